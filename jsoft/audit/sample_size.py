"""How many labelled rows certify labels such as these, in nine samples of ten."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from jsoft.limits import upper_limit

# Three conditions, each of which fails in one sample of thirty: all hold in nine of ten.
_FAILING = 0.1 / 3


def rows_to_certify(
    cells: np.ndarray, shares: np.ndarray, *, alpha: float, at_most: int = 10**9
) -> int | None:
    """Return about how many labelled rows an audit certifies, or None if more than `at_most`.

    The smallest n at which, in nine samples of ten, both hold (`certificates.certify`):

        "paper"     U(c, n, α/2) + max over y, i of U(c_yi, n_y, α/2) < 1
        "paired"    P(Bin(b + c, ½) ≥ b) ≤ α  for all y, i

    c is what chance makes of Δ at worst in 29 samples of 30; the cells, taken to be independent,
    all stay below what that leaves in 29 of 30 too, and so do the pairs pass. Both classes of a
    pair are taken to share as few sets as they can, which is when the pair is hardest to tell.

    Args:
      cells: `[C, C]` P(i ∈ Ω | Y = y); plug-ins make n too large.
      shares: `[C]` of the rows, one for each class, summing to one.
      alpha: level.
      at_most: rows beyond which it is of no interest.

    Derived here; `certificates.smallest_sample` simulates either where wrong cells are all equal.

    >>> rows_to_certify(np.eye(4), np.full(4, 0.25), alpha=0.05)  # 2⁻⁵ < 0.05
    20
    """
    from scipy import special

    wrong = ~np.eye(len(shares), dtype=bool)
    truth = np.diagonal(cells)
    unreliability = min(1.0, max(0.0, 1 - float(truth @ shares)))
    hopeless = unreliability + cells[wrong].max() >= 1 or (truth[:, None] <= cells)[wrong].any()
    if hopeless or not (shares > 0).all():
        return None

    pairs = _different_pairs(cells)

    def suffices(n: int) -> bool:
        missed = special.bdtrik(1 - _FAILING, n, unreliability) if unreliability > 0 else 0
        left = 1 - float(upper_limit(min(math.ceil(missed), n), n, alpha / 2))
        of_class = np.floor(n * shares).astype(np.int64)
        if left <= 0 or of_class.min() < 1:
            return False
        # The largest counts whose limits are below what Δ's leaves; −1 where there is none.
        allowed = np.floor(special.bdtrik(alpha / 2, of_class, left))
        allowed = np.where((1 - left) ** of_class > alpha / 2, -1, allowed)
        if allowed.min() < 0:
            return False
        stays = special.bdtr(allowed[pairs.true], of_class[pairs.true], pairs.wrong)
        if (stays**pairs.times).prod() < 1 - _FAILING:
            return False
        passing = _passing(truth[pairs.true], pairs.wrong, of_class[pairs.true], alpha)
        return bool((passing**pairs.times).prod() >= 1 - _FAILING)

    if not suffices(at_most):
        return None
    low, high = 0, at_most
    while high - low > max(1, high // 100):
        middle = max(low + 1, math.isqrt(max(low, 1) * high))
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


class _Pairs(NamedTuple):
    """Pairs of a true and a wrong class, those that are alike as one, `[P]`."""

    true: np.ndarray  # index of the true class
    wrong: np.ndarray  # how often the wrong class is in its sets
    times: np.ndarray  # how many pairs are like this


def _different_pairs(cells: np.ndarray) -> _Pairs:
    """Return what pairs there are: of a thousand classes a million, but few that differ."""
    num_classes = len(cells)
    coarse = np.ceil(1e4 * cells - 1e-6) / 1e4  # rather too often
    np.fill_diagonal(coarse, np.inf)
    ordered = np.sort(coarse, axis=1)[:, :-1]
    new = np.ones(ordered.shape, bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    starts = np.flatnonzero(new)
    times = np.diff(np.append(starts, ordered.size))
    return _Pairs(starts // (num_classes - 1), ordered.ravel()[starts], times)


def _passing(truth: np.ndarray, wrong: np.ndarray, rows: np.ndarray, alpha: float) -> np.ndarray:
    """Return about how often pairs pass the exact test of "paired", `[P]`.

    Args:
      truth: `[P]` how often the true class is in its own sets.
      wrong: `[P]` how often the wrong class is in them.
      rows: `[P]` rows of the true class.
      alpha: level.
    """
    from scipy import special

    together = np.maximum(0, truth + wrong - 1)
    alone, against = truth - together, wrong - together
    telling = np.floor(rows * (alone + against)).astype(np.int64)  # sets that hold one of the two
    several, index = np.unique(np.maximum(telling, 1), return_inverse=True)
    least = (np.ceil(special.bdtrik(1 - alpha, several, 0.5)) + 1)[index]
    for_truth = alone / np.maximum(alone + against, 1e-12)
    return np.where(least <= telling, special.bdtrc(least - 1, telling, for_truth), 0)
