"""Soft labels in JAX: are they good enough to learn from, and what student do they give?

`indicators` measures soft labels, `theory` says what the numbers promise, `targets` builds soft
labels and candidate sets, `losses` compares students with them, `networks` and `training` make
one student a pure function, `sweep` maps it over thousands of points, `datasets` brings images
and labels.
"""

from jsoft import (
    datasets,
    indicators,
    losses,
    networks,
    sweep,
    targets,
    theory,
    training,
)
from jsoft.datasets import Dataset, Split, load
from jsoft.indicators import (
    Indicators,
    SetIndicators,
    ambiguity_degree,
    ambiguity_matrix,
    mean_label_margin,
    measure,
    measure_sets,
    membership,
    pessimistic_sets,
    unreliability_degree,
)
from jsoft.losses import (
    bad_teacher_loss,
    bad_teacher_terms,
    average_loss,
    membership_logistic_loss,
    soft_cross_entropy,
    superset_log_loss,
)
from jsoft.networks import MLP, Conv3x3, ConvNet, WideResNet, num_parameters
from jsoft.targets import (
    candidate_sets,
    is_realisable,
    one_hot,
    smooth,
    temperature_softmax,
    uniform_over,
)
from jsoft.theory import (
    divergence,
    finite_class_sample_complexity,
    margin,
    sample_complexity,
    theta_conditional,
    theta_robust,
    theta_superset,
)
from jsoft.training import fit

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "Conv3x3",
    "ConvNet",
    "Dataset",
    "Indicators",
    "SetIndicators",
    "Split",
    "WideResNet",
    "ambiguity_degree",
    "ambiguity_matrix",
    "average_loss",
    "bad_teacher_loss",
    "bad_teacher_terms",
    "candidate_sets",
    "datasets",
    "divergence",
    "finite_class_sample_complexity",
    "fit",
    "indicators",
    "is_realisable",
    "load",
    "losses",
    "margin",
    "mean_label_margin",
    "measure",
    "measure_sets",
    "membership",
    "membership_logistic_loss",
    "networks",
    "num_parameters",
    "one_hot",
    "pessimistic_sets",
    "sample_complexity",
    "smooth",
    "soft_cross_entropy",
    "superset_log_loss",
    "sweep",
    "targets",
    "temperature_softmax",
    "theory",
    "theta_conditional",
    "theta_robust",
    "theta_superset",
    "training",
    "uniform_over",
    "unreliability_degree",
]
