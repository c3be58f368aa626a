"""Is this set of soft labels good enough to learn from? One function, `audit`, and its findings."""

from jsoft.audit.core import Audit, audit
from jsoft.audit.labelled import Labelled
from jsoft.audit.trials import Advice
from jsoft.audit.unlabelled import Unlabelled

__all__ = ["Advice", "Audit", "Labelled", "Unlabelled", "audit"]
