"""Exact one-sided confidence limits of a chance, at every sample size; on the host, in float64.

A limit on one side fails with chance α at most; for an interval, take α/2 on either side.
"""

from __future__ import annotations

import numpy as np
from jax.typing import ArrayLike

from jsoft import _door


def upper_limit(successes: ArrayLike, trials: ArrayLike, alpha: ArrayLike) -> np.ndarray:
    """Return U, which exceeds the chance of success with confidence 1 − α, `[...]` float64.

        U(c, n, α) = the (1 − α)-quantile of Beta(c + 1, n − c), and 1 if c = n

    Args:
      successes: `[...]` c, whole numbers in 0 … n.
      trials: `[...]` n, whole numbers; without trials U = 1.
      alpha: chance in (0, 1) that U is too small; for an interval, α/2 on either side.

    Raises:
      ValueError: an argument out of its range.

    Source: Clopper & Pearson (Biometrika 1934).

    >>> print(upper_limit([0, 1, 2], 2, 0.25))  # 1 − √¼, √¾, 1
    [0.5       0.8660254 1.       ]
    """
    from scipy import special

    successes, trials, alpha = _check_trials(successes, trials, alpha)
    limit = special.betainccinv(successes + 1, np.maximum(trials - successes, 1), alpha)
    return np.where(successes == trials, 1.0, limit)


def lower_limit(successes: ArrayLike, trials: ArrayLike, alpha: ArrayLike) -> np.ndarray:
    """Return the limit that the chance of success exceeds with confidence 1 − α, `[...]` float64.

        1 − U(n − c, n, α) = the α-quantile of Beta(c, n − c + 1), and 0 if c = 0

    Args, raises, source: as `upper_limit`.

    >>> print(lower_limit([0, 1, 2], 2, 0.25))
    [0.        0.1339746 0.5      ]
    """
    from scipy import special

    successes, trials, alpha = _check_trials(successes, trials, alpha)
    limit = special.betaincinv(np.maximum(successes, 1), trials - successes + 1, alpha)
    return np.where(successes == 0, 0.0, limit)


def hoeffding_limit(mean: ArrayLike, trials: ArrayLike, alpha: ArrayLike) -> np.ndarray:
    """Return a limit that exceeds an expectation with confidence 1 − α, `[...]` float64.

        U = sup{p : n KL(mean ‖ p) ≤ log 1/α},  KL(q ‖ p) = q log q/p + (1 − q) log (1−q)/(1−p)

    For the mean of n independent numbers of any law on [0, 1]; where they are 0 or 1, `upper_limit`
    is tighter.

    Args:
      mean: `[...]` in [0, 1].
      trials: `[...]` n, whole numbers; without trials U = 1.
      alpha: chance in (0, 1) that U is too small.

    Raises:
      ValueError: an argument out of its range.

    Source: Hoeffding (JASA 1963), Theorem 1.

    >>> print(hoeffding_limit(0.0, 2, 0.25).round(6))  # −2 log(1 − p) = log 4
    0.5
    """
    from scipy import special

    _door.check_levels(mean=mean)
    _, trials, alpha = _check_trials(0, trials, alpha)
    mean, trials, alpha = np.broadcast_arrays(np.asarray(mean, np.float64), trials, alpha)
    allowed = np.where(trials > 0, -np.log(alpha) / np.maximum(trials, 1), np.inf)
    low, high = mean, np.ones_like(mean)
    for _ in range(60):  # halvings of [0, 1], past the digits of float64
        middle = (low + high) / 2
        distance = special.rel_entr(mean, middle) + special.rel_entr(1 - mean, 1 - middle)
        low, high = np.where(distance > allowed, (low, middle), (middle, high))
    return high  # the safe end


def _check_trials(successes: ArrayLike, trials: ArrayLike, alpha: ArrayLike) -> list[np.ndarray]:
    """Return the checked counts and level in float64."""
    _door.check_inside_unit(alpha=alpha)
    successes, trials = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    for name, values in (("successes", successes), ("trials", trials)):
        if not ((values >= 0) & (values % 1 == 0)).all():
            raise ValueError(f"{name}: expected whole numbers of 0 or more, got {values}")
    if not (successes <= trials).all():
        raise ValueError(f"successes: expected no more than trials, got {successes} of {trials}")
    return [successes, trials, np.asarray(alpha, np.float64)]
