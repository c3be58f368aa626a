"""Soft labels in JAX: are they good enough to learn from, and what student do they give?

`indicators` measures soft labels, `certificates` says how sure that is, `theory` what it
promises, `targets` builds soft labels and candidate sets, `losses` compares students with them,
`networks` and `training` make one student a pure function, `sweep` maps it over thousands of
points, `datasets` brings images and labels.
"""

from jsoft import (
    certificates,
    datasets,
    indicators,
    limits,
    losses,
    networks,
    sweep,
    targets,
    theory,
    training,
)
from jsoft.certificates import (
    Certificate,
    ambiguity_interval,
    certify,
    certify_draws,
    certify_sets,
    smallest_sample,
    split_ambiguity,
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
from jsoft.limits import hoeffding_limit, lower_limit, upper_limit
from jsoft.losses import (
    average_loss,
    bad_teacher_loss,
    bad_teacher_terms,
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
    "Certificate",
    "Conv3x3",
    "ConvNet",
    "Dataset",
    "Indicators",
    "SetIndicators",
    "Split",
    "WideResNet",
    "ambiguity_degree",
    "ambiguity_interval",
    "ambiguity_matrix",
    "average_loss",
    "bad_teacher_loss",
    "bad_teacher_terms",
    "candidate_sets",
    "certificates",
    "certify",
    "certify_draws",
    "certify_sets",
    "datasets",
    "divergence",
    "finite_class_sample_complexity",
    "fit",
    "hoeffding_limit",
    "indicators",
    "is_realisable",
    "limits",
    "load",
    "losses",
    "lower_limit",
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
    "smallest_sample",
    "smooth",
    "soft_cross_entropy",
    "split_ambiguity",
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
    "upper_limit",
]
