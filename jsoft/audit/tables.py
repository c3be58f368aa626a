"""An audit as plain numbers: what programs read.

Keys of the outermost dict, of schema version 1; classes appear by name, shares and limits as
numbers in [0, 1], and what is not known as None:

    verdict, status, certified     the answer: a sentence, one word of certified, learnable,
                                   not_learnable, unknown, and whether it is certified
    rows, labelled_rows, classes,  what was looked at
    kind, draws
    alpha, ties, k_considered      how
    verdict_k                      the k that the verdict speaks of: best_k, unless only another is
                                   certified; None for candidate sets
    best_k                         the k to use; None for candidate sets, which have none
    top_k                          for every k: k, unreliability Δ, ambiguity γ, margin κ,
                                   divergence D, worst_pair, class_margin (below 0, a class is
                                   seen as another more often than as itself), class_margin_pair,
                                   tied, and with labels unreliability_limits, ambiguity_limits
                                   (lower, upper, for all of k_considered) and class_lost (whether
                                   that is certified of a class); without labels, as if they were
                                   calibrated
    without_labels                 sampled_rows (that the following come from), repeated_rows,
                                   constant_share, entropy_bits, mean_top_probability, set_sizes,
                                   first_share
    with_labels                    None without: mean_label_margin μ, student_loss, rows_needed (to
                                   be certified, in all) and rows_needed_k (where so few are),
                                   classes (one by one), worst_pairs, ambiguity_matrix and
                                   mean_labels (true class by class), certificates (by method),
                                   doubtful_rows
    advice                         a list: topic, text, numbers, held_out
    versions, schema_version       what computed it, and of what shape this is
"""

from __future__ import annotations

import dataclasses
import math
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from jsoft.audit.words import student_loss, worst_pairs
from jsoft.certificates import Certificate
from jsoft.label_kinds import Kind

if TYPE_CHECKING:
    from jsoft.audit.core import Audit
    from jsoft.audit.labelled import Labelled

SCHEMA_VERSION = 1
_NUM_PAIRS = 20


def as_dict(audit: Audit) -> dict[str, Any]:
    """Return everything as plain numbers, words, lists and dicts; see `Audit.to_json`."""
    known = audit.labelled
    place = audit.best
    found = {
        "schema_version": SCHEMA_VERSION,
        "verdict": audit.verdict,
        "status": audit.status,
        "certified": audit.certified,
        "rows": audit.rows,
        "labelled_rows": 0 if known is None else int(known.examples.sum()),
        "classes": list(audit.classes),
        "kind": str(audit.kind),
        "draws": audit.draws,
        "alpha": audit.alpha,
        "ties": audit.ties,
        "verdict_k": None if audit.kind is Kind.SETS else audit.ks[audit.place],
        "best_k": None if audit.kind is Kind.SETS else audit.ks[place],
        "k_considered": None if audit.kind is Kind.SETS else list(audit.considered),
        "top_k": over_k(audit),
        "without_labels": _without_labels(audit),
        "with_labels": None if known is None else _with_labels(audit, known),
        "advice": [dataclasses.asdict(advice) for advice in audit.advice],
        "versions": versions(),
    }
    return _plain(found)


def versions() -> dict[str, str]:
    """Return the versions of what computed an audit."""
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("jsoft", "numpy", "scipy")},
    }


def over_k(audit: Audit) -> list[dict[str, Any]]:
    """Return a dict for every k; without labels, what it would be if they were calibrated."""
    known = audit.labelled
    found = audit.degrees
    rows = []
    for place, k in enumerate(audit.ks):
        row: dict[str, Any] = {
            "k": None if audit.kind is Kind.SETS else k,
            "unreliability": found.unreliability[place],
            "ambiguity": found.ambiguity[place],
            "margin": found.margin[place],
            "divergence": found.divergence[place],
            "worst_pair": _pair(audit, *found.worst_pair[place]),
            "class_margin": found.class_margin[place],
            "class_margin_pair": _pair(audit, *found.class_pair[place]),
        }
        tied = audit.unlabelled.tied if known is None else known.tied
        row["tied"] = None if audit.kind is Kind.SETS else tied[place]
        if known is not None:
            row["unreliability_limits"] = known.limits.unreliability[place]
            row["ambiguity_limits"] = known.limits.ambiguity[place]
            row["class_lost"] = known.class_lost[place]
        rows.append(row)
    return rows


def _pair(audit: Audit, y: int, i: int) -> dict[str, str]:
    return {"true": audit.classes[y], "wrong": audit.classes[i]}


def _without_labels(audit: Audit) -> dict[str, Any]:
    found = audit.unlabelled
    sizes = found.set_sizes and dict(zip(("least", "median", "most"), found.set_sizes, strict=True))
    return {
        "sampled_rows": found.sampled,
        "repeated_rows": found.repeated,
        "constant_share": found.constant,
        "entropy_bits": found.entropy,
        "mean_top_probability": found.top_probability,
        "set_sizes": sizes,
        "first_share": dict(zip(audit.classes, found.first_share, strict=True)),
    }


def _with_labels(audit: Audit, known: Labelled) -> dict[str, Any]:
    name, reason = student_loss(audit)
    return {
        "mean_label_margin": np.nanmin(known.mean_margins),
        "student_loss": {"name": name, "reason": reason},
        "rows_needed": known.rows_needed,
        "rows_needed_k": None if audit.kind is Kind.SETS else known.rows_needed_k,
        "classes": class_rows(audit, known),
        "worst_pairs": [
            {**_pair(audit, y, i), "frequency": share}
            for y, i, share in worst_pairs(audit, _NUM_PAIRS)
        ],
        "ambiguity_matrix": known.frequencies[:, audit.best],
        "mean_labels": known.mean_labels,
        "certificates": {
            name: _certificate(audit, one) for name, one in known.certificates.items()
        },
        "doubtful_rows": [
            {
                "row": one.row,
                "says": audit.classes[one.says],
                "true": audit.classes[one.true],
                "says_probability": one.says_probability,
                "true_probability": one.true_probability,
            }
            for one in known.doubtful
        ],
    }


def class_rows(audit: Audit, known: Labelled) -> list[dict[str, Any]]:
    """Return what each class looks like at the best k."""
    cells = known.frequencies[:, audit.best]
    rows = []
    for y, name in enumerate(audit.classes):
        wrong = np.where(np.arange(len(cells)) == y, -np.inf, np.nan_to_num(cells[y]))
        i = int(wrong.argmax())
        there = known.examples[y] > 0
        rows.append(
            {
                "class": name,
                "rows": known.examples[y],
                "unreliability": 1 - cells[y, y],
                "ambiguity": cells[y, i],
                "seen_as": audit.classes[i] if there and cells[y, i] > 0 else None,
                "margin": cells[y, y] - cells[y, i],
                "mean_label_margin": known.mean_margins[y],
            }
        )
    return rows


def _certificate(audit: Audit, one: Certificate) -> dict[str, Any]:
    return {
        "certified": one.certified,
        "claim": one.claim,
        "k": one.k,
        "worst_pair": _pair(audit, *one.worst_pair),
        "unreliability_limit": one.unreliability_limit,
        "ambiguity_limit": one.ambiguity_limit,
        "p_value": one.p_value,
        "evidence": one.evidence,
        "population": one.population,
    }


def _plain(value: Any) -> Any:
    """Return NumPy's numbers and arrays as Python's, rounded to 12 digits, NaN as None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        # Sums of fractions differ in the last digits with the order of the rows.
        return float(f"{value:.12g}") if math.isfinite(value) else None
    return value
