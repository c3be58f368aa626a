"""What the true labels of some rows tell: Δ and γ with their limits, certificates, lost classes."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from jsoft import certificates
from jsoft.audit import arithmetic
from jsoft.audit.arithmetic import Degrees, Limits
from jsoft.audit.counts import DoubtfulRow, Tally
from jsoft.audit.sample_size import rows_to_certify
from jsoft.certificates import Certificate
from jsoft.label_kinds import Kind

Ties = Literal["fractional", "first", "pessimistic"]  # in the indicators
# Of a mean label: probabilities are float32, and what they differ by beyond this is rounding.
_DIGITS = 6


@dataclasses.dataclass(frozen=True)
class Labelled:
    """What the true labels of some rows tell.

    Attributes:
      examples: `[C]` rows of every true class.
      degrees: Δ, γ and what follows, for every k looked at.
      limits: of Δ and γ, holding for all k considered at once with confidence 1 − α.
      frequencies: `[C, K, C]` P(i ∈ Ω_k | Y = y); NaN for classes without rows.
      tied: `[K]` share of rows tied at the k-th place.
      mean_labels: `[C, C]` mean probabilities by true class; NaN for classes without rows.
      certificates: by method; "paper" (or "first_draw") is the one that the verdict speaks of.
      classes_kept: by k considered (1 for candidate sets), whether every class is seen as itself
        more often than as any other: "paired" at α divided by the number of k considered.
      lost_pair: `[K, 2]` a class and another of which the reverse is certified, that it is seen as
        the other more often than as itself; −1 if of none; at α divided by the number of k
        considered.
      rows_needed: about how many labelled rows in all would be certified, if the shares stay; None
        if none would.
      rows_needed_k: the k considered that needs so few; None if none would.
      doubtful: rows whose label most prefers another class to the truth.
    """

    examples: np.ndarray
    degrees: Degrees
    limits: Limits
    frequencies: np.ndarray
    tied: np.ndarray
    mean_labels: np.ndarray
    certificates: dict[str, Certificate]
    classes_kept: dict[int, Certificate]
    lost_pair: np.ndarray
    rows_needed: int | None
    rows_needed_k: int | None
    doubtful: tuple[DoubtfulRow, ...]

    @property
    def certificate(self) -> Certificate:
        """The certificate that the verdict speaks of."""
        return next(iter(self.certificates.values()))

    @property
    def class_lost(self) -> np.ndarray:
        """Whether it is certified of some class that it is lost, `[K]`."""
        return self.lost_pair[:, 0] >= 0

    @property
    def mean_margins(self) -> np.ndarray:
        """By how much the mean label of every class prefers the truth, `[C]`; the least is μ."""
        off = np.where(np.eye(len(self.examples), dtype=bool), -np.inf, self.mean_labels)
        return (np.diagonal(self.mean_labels) - off.max(axis=1)).round(_DIGITS)


def look_with_labels(
    counted: Tally,
    first: Tally,
    kind: Kind,
    *,
    considered: tuple[int, ...],
    alpha: float,
    ties: Ties,
) -> Labelled:
    """Return what the counts tell.

    Args:
      counted: counts of all draws, which the indicators are made from.
      first: counts of the first draws, which certificates and limits are made from.
      kind: what was counted; candidate sets have no k.
      considered: the k that the certificate is free to choose from.
      alpha: 1 − confidence.
      ties: how ties count in the indicators.
    """
    members = {
        "fractional": counted.fractional,
        "first": counted.by_index,
        "pessimistic": counted.possible,
    }[ties]
    examples = counted.examples
    of_each_k = alpha / len(considered)
    main: certificates.CountsMethod = "paper" if counted is first else "first_draw"
    several = {k: first.sets(k) for k in considered}
    sets = several[1] if kind is Kind.SETS else several
    methods: tuple[certificates.CountsMethod, ...] = (main, "class_conditional", "paired")
    rows_needed, rows_needed_k = _rows_needed(first, considered, of_each_k)
    return Labelled(
        examples=first.examples,
        degrees=arithmetic.degrees(members, examples),
        limits=arithmetic.limits(
            first.possible, first.sure, first.reachable, first.examples, alpha=of_each_k
        ),
        frequencies=arithmetic.frequencies(members, examples),
        tied=counted.tied / examples.sum(),
        mean_labels=arithmetic.frequencies(counted.label_sums[:, None], examples)[:, 0],
        certificates={
            method: certificates.certify_counts(sets, alpha=alpha, method=method)
            for method in methods
        },
        classes_kept={
            k: certificates.certify_counts(one, alpha=of_each_k, method="paired")
            for k, one in several.items()
        },
        lost_pair=arithmetic.lost_for_sure(
            first.sure, first.reachable, first.examples, alpha=of_each_k
        ),
        rows_needed=rows_needed,
        rows_needed_k=rows_needed_k,
        doubtful=counted.doubtful,
    )


def _rows_needed(
    first: Tally, considered: tuple[int, ...], alpha: float
) -> tuple[int | None, int | None]:
    """Return about how many labelled rows would be certified, and the k that needs fewest."""
    shares = first.examples / first.examples.sum()
    needed = fewest = None
    for k in considered:
        cells = first.possible[:, k - 1] / np.maximum(first.examples, 1)[:, None]
        limit = 10**9 if needed is None else needed - 1
        rows = rows_to_certify(cells, shares, alpha=alpha, at_most=limit)
        if rows is not None:
            needed, fewest = rows, k
    return needed, fewest
