"""The arithmetic of an audit: Δ, γ, κ, D and their limits from counts, in float64."""

from __future__ import annotations

import dataclasses

import numpy as np

from jsoft.limits import lower_limit, upper_limit

# Digits of a share: sums of fractions differ beyond them with the order of the rows, and what is
# equal, or adds up to one, must not become more or less by that.
_DIGITS = 12


@dataclasses.dataclass(frozen=True)
class Degrees:
    """Δ and γ of sets, and what follows from them; arrays over k, `[K]`.

    Attributes:
      unreliability: `[K]` Δ.
      ambiguity: `[K]` γ, the plug-in estimate.
      margin: `[K]` κ = 1 − Δ − γ.
      divergence: `[K]` D(Δ, γ).
      worst_pair: `[K, 2]` the true class and the wrong class at which γ is attained.
      class_margin: `[K]` the least of 1 − Δ_y − γ_yi over all pairs: below 0, a class is seen as
        another more often than as itself.
      class_pair: `[K, 2]` the pair where it is attained.
    """

    unreliability: np.ndarray
    ambiguity: np.ndarray
    margin: np.ndarray
    divergence: np.ndarray
    worst_pair: np.ndarray
    class_margin: np.ndarray
    class_pair: np.ndarray


def frequencies(members: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """Return P(i ∈ Ω | Y = y) `[C, K, C]` from summed members; NaN for classes without examples.

    >>> frequencies(np.array([[[3.0, 1.0]], [[0.0, 0.0]]]), np.array([4, 0]))[:, 0]
    array([[0.75, 0.25],
           [ nan,  nan]])
    """
    present = np.where(examples > 0, examples, np.nan)
    return (members / present[:, None, None]).round(_DIGITS)


def degrees(members: np.ndarray, examples: np.ndarray) -> Degrees:
    """Return Δ, γ and what follows from them, for every k.

    Args:
      members: `[C, K, C]` summed weights by true class, k and class.
      examples: `[C]` examples of each true class; one of them is positive.

    Source: `indicators.measure`, here from counts that fit any memory.

    >>> found = degrees(np.array([[[3.0, 1.0]], [[1.0, 3.0]]]), np.array([4, 4]))
    >>> print(found.unreliability, found.ambiguity, found.class_margin)
    [0.25] [0.25] [0.5]
    """
    num_classes = len(examples)
    shares = np.moveaxis(frequencies(members, examples), 1, 0)  # [K, C, C]
    shares = shares[:, examples > 0]
    true = np.flatnonzero(examples > 0)
    of_truth = shares[:, np.arange(len(true)), true]  # [K, C present]
    wrong = np.where(np.arange(num_classes) == true[:, None], -np.inf, shares)
    hits = members[true, :, true].sum(axis=0)
    unreliability = np.clip(1 - hits / examples.sum(), 0, 1).round(_DIGITS)
    ambiguity = np.clip(wrong.max(axis=(1, 2)), 0, 1)
    margin = (1 - unreliability - ambiguity).round(_DIGITS - 1)
    class_margins = of_truth[:, :, None] - wrong
    return Degrees(
        unreliability=unreliability,
        ambiguity=ambiguity,
        margin=margin,
        divergence=np.where(margin > 0, divergence(unreliability, ambiguity), 0),
        worst_pair=_pairs(wrong.reshape(len(wrong), -1).argmax(axis=1), num_classes, true),
        class_margin=class_margins.min(axis=(1, 2)),
        class_pair=_pairs(class_margins.reshape(len(wrong), -1).argmin(axis=1), num_classes, true),
    )


def _pairs(flat: np.ndarray, num_classes: int, true: np.ndarray) -> np.ndarray:
    return np.stack([true[flat // num_classes], flat % num_classes], axis=1)


def divergence(unreliability: np.ndarray | float, ambiguity: np.ndarray | float) -> np.ndarray:
    """Return D(Δ, γ), 0 where Δ + γ ≥ 1; `theory.divergence` in float64, without a compilation.

    >>> print(divergence(0.36, 0.25).round(12))
    0.09
    """
    larger, smaller = np.maximum(unreliability, ambiguity), np.minimum(unreliability, ambiguity)
    inside = larger + smaller < 1
    roots = np.sqrt(np.where(inside, 1 - larger, 0)) - np.sqrt(np.where(inside, smaller, 0))
    return np.square(roots)


def order_of(found: Degrees) -> np.ndarray:
    """Return what to compare k by, `[K]`: D, or a number below 0 where no learner is promised.

    That is κ where Δ + γ ≥ 1, or the margin of the class that is seen as another more often than as
    itself, if that is less.
    """
    least = np.minimum(found.margin, found.class_margin)
    return np.where(least > 0, found.divergence, np.minimum(least, 0))


def best_place(found: Degrees) -> int:
    """Return the place of the k to use: the largest D among those that promise something.

    Where none does, the largest D all the same, and the first k where D is 0 for all: the least
    Δ + γ would be that of the largest sets, which say nothing.
    """
    order = order_of(found)
    return int(order.argmax() if order.max() > 0 else found.divergence.argmax())


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits that hold Δ and γ between them, each with confidence 1 − α, `[K]`.

    Attributes:
      unreliability: `[K, 2]` lower and upper limit of Δ.
      ambiguity: `[K, 2]` lower and upper limit of γ.
    """

    unreliability: np.ndarray
    ambiguity: np.ndarray


def limits(
    possible: np.ndarray,
    sure: np.ndarray,
    reachable: np.ndarray,
    examples: np.ndarray,
    *,
    alpha: float,
) -> Limits:
    """Return exact limits however ties are broken; a class without examples puts γ's at 1.

    Args:
      possible: `[C, K, C]` of a `Tally`.
      sure: `[C, K, C]` of a `Tally`.
      reachable: `[C, K]` rows whose true class is possibly in.
      examples: `[C]`.
      alpha: level of each interval, half of it on either side.

    Derived here, as `certificates.ambiguity_interval` and `certificates.certify`.

    >>> two = np.array([[[2, 0]], [[0, 2]]])
    >>> limits(two, two, np.array([[2], [2]]), np.array([2, 2]), alpha=0.5).ambiguity.round(4)
    array([[0. , 0.5]])
    """
    num_classes, max_k = reachable.shape
    total = int(examples.sum())
    classes = np.arange(num_classes)
    most_missed = total - possible[classes, :, classes].sum(axis=0)
    least_missed = total - reachable.sum(axis=0)
    off = ~np.eye(num_classes, dtype=bool)[:, None, :]
    most = np.where(off, possible, -1).max(axis=2)  # [C, K]
    least = np.where(off, sure, -1).max(axis=2)
    per_class = np.repeat(examples[:, None], max_k, axis=1)
    num_cells = num_classes * (num_classes - 1)
    return Limits(
        unreliability=np.stack(
            [
                lower_limit(least_missed, np.full(max_k, total), alpha / 2),
                upper_limit(most_missed, np.full(max_k, total), alpha / 2),
            ],
            axis=1,
        ),
        ambiguity=np.stack(
            [
                lower_limit(least, per_class, alpha / 2 / num_cells).max(axis=0),
                upper_limit(most, per_class, alpha / 2).max(axis=0),
            ],
            axis=1,
        ),
    )


def lost_for_sure(
    sure: np.ndarray, reachable: np.ndarray, examples: np.ndarray, *, alpha: float
) -> np.ndarray:
    """Return the pair of which it is certified that its class is lost, for every k, `[K, 2]`.

    Lost is a class that is seen as another more often than as itself. Of n rows of a class, y is
    possibly in R sets and i surely in S; at most b = min(R, n − S) sets then hold y alone, and
    c = b + S − R hold i alone. A pair is certified if P(Bin(b + c, ½) ≥ c) ≤ α/m, m = C(C − 1);
    of several, that with the largest (S − R)/n is returned, of none −1.

    Args:
      sure: `[C, K, C]` of a `Tally`.
      reachable: `[C, K]` of a `Tally`.
      examples: `[C]`.
      alpha: level.

    Derived here: "paired" of `certificates.certify` the other way round, where one pair among all
    is enough, and is paid for.

    >>> sure = np.array([[[1, 9]], [[5, 5]]])  # of ten rows of each class
    >>> lost_for_sure(sure, np.array([[1], [5]]), np.array([10, 10]), alpha=0.05)  # 11/2¹⁰ < 0.025
    array([[0, 1]])
    """
    from scipy import special

    y, place, i = np.nonzero(sure > reachable[:, :, None])
    excess = sure[y, place, i] - reachable[y, place]
    for_truth = np.minimum(reachable[y, place], examples[y] - sure[y, place, i])
    p_values = special.betainc(for_truth + excess, for_truth + 1.0, 0.5)
    num_pairs = len(examples) * (len(examples) - 1)
    certified = np.flatnonzero(p_values <= alpha / num_pairs)
    by_share = certified[np.argsort((excess / examples[y])[certified], kind="stable")]
    pairs = np.full((sure.shape[1], 2), -1)
    pairs[place[by_share]] = np.stack([y, i], axis=1)[by_share]  # the last of each k stays
    return pairs
