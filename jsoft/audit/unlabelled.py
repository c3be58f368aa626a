"""What soft labels tell without true labels: how sure they are, and what they would be if right."""

from __future__ import annotations

import dataclasses

import numpy as np

from jsoft.audit import arithmetic
from jsoft.audit.arithmetic import Degrees
from jsoft.audit.order import weights_in_sets
from jsoft.label_kinds import Kind, as_probabilities, as_scores


@dataclasses.dataclass(frozen=True)
class Unlabelled:
    """What can be known without truth, from a random sample of rows where there are very many.

    Attributes:
      sampled: rows that these numbers come from.
      repeated: rows, of all, that equal an earlier one.
      constant: share of rows that prefer no class at all.
      entropy: mean entropy of a row, in bits.
      top_probability: mean probability of the first class: the accuracy if it were calibrated.
      tied: `[K]` share of rows tied at the k-th place; of sets, nothing.
      set_sizes: least, median and largest size of a set; None if these are no sets.
      first_share: `[C]` how often every class is first, ties shared.
      class_shares: `[C]` mean probability of every class.
      cells: `[C, K, C]` P(i ∈ Ω_k | Y = y) if the labels were calibrated; None where the truth of
        some rows tells.
      if_calibrated: Δ, γ and what follows if they were, that is, if of all rows that give class i
        the probability p, a share p were of class i; None where the truth of some rows tells.
    """

    sampled: int
    repeated: int
    constant: float
    entropy: float
    top_probability: float
    tied: np.ndarray
    set_sizes: tuple[int, float, int] | None
    first_share: np.ndarray
    class_shares: np.ndarray
    cells: np.ndarray | None
    if_calibrated: Degrees | None

    @property
    def best_if_calibrated(self) -> int:
        """Place of the best k, if the labels were calibrated."""
        assert self.if_calibrated is not None
        return arithmetic.best_place(self.if_calibrated)


def look_without_labels(
    values: np.ndarray, kind: Kind, *, max_k: int, repeated: int, calibrated: bool = True
) -> Unlabelled:
    """Return what these rows tell without true labels.

    Args:
      values: `[N, C]` or `[N, R, C]` rows of a kind.
      kind: what they are.
      max_k: largest k to look at.
      repeated: rows of the whole set that equal an earlier one.
      calibrated: whether to compute what the indicators would be if the labels were calibrated.

    Derived here: calibrated labels have the law P(y | row) = p_y.

    >>> rows = np.array([[0.75, 0.25], [0.25, 0.75]])
    >>> found = look_without_labels(rows, Kind.PROBABILITIES, max_k=1, repeated=0)
    >>> found.top_probability, found.if_calibrated.unreliability
    (0.75, array([0.25]))
    """
    num_rows, num_classes = len(values), values.shape[-1]
    values = values.reshape(-1, num_classes)
    shares = as_probabilities(values, kind).astype(np.float64)
    logs = np.log2(np.where(shares > 0, shares, 1))
    sets = weights_in_sets(values, kind)
    mass = shares.sum(axis=0)
    first = sets(1)
    cells = expected = None
    if calibrated:
        members = np.stack([shares.T @ sets(k) for k in range(1, max_k + 1)], axis=1)  # [C, K, C]
        cells, expected = arithmetic.frequencies(members, mass), arithmetic.degrees(members, mass)
    ordered = -np.sort(-as_scores(values), axis=1)
    tied = ordered[:, :max_k] == ordered[:, 1 : max_k + 1]
    sizes = (values != 0).sum(axis=1)
    return Unlabelled(
        sampled=num_rows,
        repeated=repeated,
        constant=float((values == values[:, :1]).all(axis=1).mean()),
        entropy=float(-(shares * logs).sum(axis=1).mean()),
        top_probability=float(shares.max(axis=1).mean()),
        tied=np.zeros(0) if kind is Kind.SETS else tied.mean(axis=0),
        set_sizes=(int(sizes.min()), float(np.median(sizes)), int(sizes.max()))
        if kind is Kind.SETS
        else None,
        first_share=first.sum(axis=0) / first.sum(),
        class_shares=mass / mass.sum(),
        cells=cells,
        if_calibrated=expected,
    )
