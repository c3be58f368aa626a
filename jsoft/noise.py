"""How unreliable noise makes a one-hot label: closed forms, and what privacy costs.

A noisy label is d = e_y + ξ, one-hot plus noise drawn independently for each of C classes
(`targets.additive_noise`), or a class that was swapped at random (`targets.randomised_response`).
Its top-k set misses the true class with probability Δ. All wrong classes are alike, and a set that
holds k − 1 + Δ of them on average holds each of them equally often:

    γ = (k − 1 + Δ)/(C − 1),  hence  Δ + γ < 1  iff  Δ < 1 − k/C

Adding one to the true score can only raise its rank, so Δ is below what a random set has, 1 − k/C,
at every finite scale: noise never breaks the paper's condition, the margin just goes to zero.

With f, F and S = 1 − F the density, distribution and tail of ξ, the number of wrong classes above a
true score of 1 + t is binomial, C − 1 draws of chance S(1 + t). At least k of them are above with
probability I_{S(1+t)}(k, C − k), the regularised incomplete beta function, and

    Δ = ∫ f(t) I_{S(1+t)}(k, C − k) dt

That the paper treats additive noise is known from its abstract (arXiv 2302.08155); one-hot plus
noise is a reconstruction, the corollary and all closed forms are derived here (not in the paper).

These are curves to draw beside measurements, not training code: they run on the host in float64,
over scales of any shape, and cannot be traced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from jsoft import _door, targets, theory


def noise_unreliability(
    kind: targets.Noise, scale: ArrayLike, *, k: ArrayLike, num_classes: int
) -> np.ndarray:
    """Return Δ of the top-k sets of one-hot labels plus independent noise, `[...]` float64.

        Δ = ∫ f(t) I_{S(1+t)}(k, C − k) dt

    - `"gaussian"` of standard deviation `scale`: the integral, numerically.
    - `"uniform"` on ±`scale` = ±a: J(1 − 1/2a), and 0 for a ≤ 1/2, with J(c) = ∫₀ᶜ I_x(k, C − k) dx
      = c I_c(k, C − k) − (k/C) I_c(k + 1, C − k).
    - `"laplace"` of density exp(−|t|/b)/2b, b = `scale`: by J outside (−1, 0), numerically inside.
    - `"gumbel"` of distribution exp(−exp(−t/b)), b = `scale`: the top k are then k draws without
      replacement in which y has weight w = exp(1/b) and every other class weight one, so
      Δ = ∏ over j < k of (C − 1 − j)/(C − 1 − j + w).

    Args:
      kind: the law of the noise.
      scale: `[...]` 0 or more; 0 gives Δ = 0 and infinity 1 − k/C.
      k: size of the set, 1 … C − 1; whole numbers that broadcast with `scale`.
      num_classes: C.

    Raises:
      TypeError, ValueError: an unknown kind, a negative or missing scale, k out of range.

    Derived here (not in the paper); for Gumbel noise from Plackett and Luce's model of rankings.

    >>> # Two classes: P(ξ₂ − ξ₁ > 1), a corner of area 1/2 in a square of area 4
    >>> print(noise_unreliability("uniform", 1.0, k=1, num_classes=2))
    0.125
    >>> scale = 1 / np.log([4.0, 9.0])  # weights of 4 and 9 against two others
    >>> print(noise_unreliability("gumbel", scale, k=1, num_classes=3).round(4))  # 2/6, 2/11
    [0.3333 0.1818]
    """
    if kind not in _UNRELIABILITY:
        raise ValueError(
            f'kind: expected "gaussian", "uniform", "laplace" or "gumbel", got {kind!r}'
        )
    _door.check_at_least(0, scale=scale)
    _door.check_k("k", k, num_classes)
    scale, k = np.broadcast_arrays(np.asarray(scale, np.float64), np.asarray(k))
    # A scale too small to divide by is as good as none.
    return _UNRELIABILITY[kind](1 / np.maximum(scale, 1e-300), k, num_classes)


def _gaussian(shift: np.ndarray, k: np.ndarray, num_classes: int) -> np.ndarray:
    from scipy import special

    # With t in standard deviations. The trapezium rule is exact to 1e-14 for smooth integrands
    # that vanish at both ends; Gauss–Hermite rules are too coarse for a hundred classes and more.
    step = 0.01
    t = np.arange(-9, 9 + step, step)
    density = np.exp(-np.square(t) / 2) / np.sqrt(2 * np.pi)
    tail = special.ndtr(-(t + shift[..., None]))  # [..., T]
    missed = special.betainc(k[..., None], num_classes - k[..., None], tail)
    return (density * missed).sum(axis=-1) * step


def _uniform(shift: np.ndarray, k: np.ndarray, num_classes: int) -> np.ndarray:
    return _integral(np.maximum(1 - shift / 2, 0), k, num_classes)


def _laplace(shift: np.ndarray, k: np.ndarray, num_classes: int) -> np.ndarray:
    from scipy import special

    shift = np.minimum(shift, 600)  # exp(−600) is nothing, and still a divisor
    ratio = np.exp(-shift)
    half = np.full_like(shift, 0.5)
    # t > 0: with v = S(t) in (0, 1/2), S(1 + t) = v exp(−1/b)
    above = _integral(ratio / 2, k, num_classes) / ratio
    # t < −1: with v = F(1 + t) in (0, 1/2), F(t) = v exp(−1/b)
    below = ratio * (1 - k / num_classes - _integral(half, k, num_classes))
    # Between the kinks: with s = (1 + t)/b in (0, 1/b), S(1 + t) = exp(−s)/2
    nodes, weights = np.polynomial.legendre.leggauss(200)
    s = shift[..., None] * (1 + nodes) / 2  # [..., S]
    missed = special.betainc(k[..., None], num_classes - k[..., None], np.exp(-s) / 2)
    between = (weights * np.exp(s - shift[..., None]) / 2 * missed).sum(axis=-1) * shift / 2
    return above + between + below


def _gumbel(shift: np.ndarray, k: np.ndarray, num_classes: int) -> np.ndarray:
    from scipy import special

    weight = np.exp(np.minimum(shift, 600))
    # The product over j < k, as a ratio of beta functions
    return np.exp(special.betaln(num_classes, weight) - special.betaln(num_classes - k, weight))


def _integral(end: np.ndarray, k: np.ndarray, num_classes: int) -> np.ndarray:
    """Return J(end) = ∫ from 0 to `end` of I_x(k, C − k) dx, by parts."""
    from scipy import special

    share = k / num_classes
    return end * special.betainc(k, num_classes - k, end) - share * special.betainc(
        k + 1, num_classes - k, end
    )


_UNRELIABILITY: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "gaussian": _gaussian,
    "uniform": _uniform,
    "laplace": _laplace,
    "gumbel": _gumbel,
}


def exchangeable_ambiguity(
    unreliability: ArrayLike, *, k: ArrayLike, num_classes: int
) -> np.ndarray:
    """Return γ of top-k sets in which all wrong classes are alike, `[...]` float64.

        γ = (k − 1 + Δ)/(C − 1)

    The least that Δ allows: other wrong classes at other rates can only raise the largest.

    Args:
      unreliability: `[...]` Δ in [0, 1].
      k: size of the sets, 1 … C − 1; whole numbers that broadcast with Δ.
      num_classes: C.

    Raises:
      TypeError, ValueError: Δ outside [0, 1], k out of range.

    Derived here (not in the paper), by counting the members of a set.

    >>> print(exchangeable_ambiguity(0.25, k=2, num_classes=6))
    0.25
    """
    _door.check_levels(unreliability=unreliability)
    _door.check_k("k", k, num_classes)
    return (np.asarray(k) - 1 + np.asarray(unreliability, np.float64)) / (num_classes - 1)


class BestK(NamedTuple):
    """Sizes of the top-k set, whole numbers of one shape.

    Attributes:
      by_divergence: where `theory.divergence` is largest, and the fewest examples are needed.
      by_sum: where Δ + γ is smallest, and the margin of the paper's condition widest.
    """

    by_divergence: np.ndarray
    by_sum: np.ndarray


def best_k(kind: targets.Noise, scale: ArrayLike, *, num_classes: int) -> BestK:
    """Return the sizes k of the top-k set that suit labels with this noise best, `[...]`.

        argmax over k of D(Δ, γ)   and   argmin over k of Δ + γ

    The smallest k among equals. The two can be far apart; the examples needed follow D.

    Args:
      kind: the law of the noise.
      scale: `[...]` finite, above 0.
      num_classes: C.

    Raises:
      ValueError: an unknown kind, a scale or a number of classes out of range.

    Derived here (not in the paper).

    >>> by_divergence, by_sum = best_k("gaussian", [0.5, 5.0], num_classes=10)
    >>> print(by_divergence, by_sum)
    [1 3] [2 5]
    """
    _door.check_positive(scale=scale)
    _door.check_at_least(2, num_classes=num_classes)
    ks = np.arange(1, num_classes)
    unreliability = noise_unreliability(
        kind, np.asarray(scale)[..., None], k=ks, num_classes=num_classes
    )  # [..., K]
    ambiguity = exchangeable_ambiguity(unreliability, k=ks, num_classes=num_classes)
    with jax.enable_x64(True):  # much noise leaves a margin that float32 cannot see
        rate = np.asarray(theory.divergence(unreliability, ambiguity))
    return BestK(ks[rate.argmax(axis=-1)], ks[(unreliability + ambiguity).argmin(axis=-1)])


def randomised_response_indicators(
    epsilon: ArrayLike, *, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return Δ and γ at k = 1 of a label told by randomised response, each `[...]` float64.

        Δ = (C − 1)/(exp(ε) + C − 1)   and   γ = 1/(exp(ε) + C − 1)

    Args:
      epsilon: `[...]` the privacy ε of `targets.randomised_response`, 0 or more.
      num_classes: C.

    Raises:
      ValueError: an argument out of its range.

    Derived here (not in the paper). The mechanism is Warner's (JASA 1965); the same Δ and γ come
    from Gumbel noise of scale 1/ε at k = 1.

    >>> unreliability, ambiguity = randomised_response_indicators(np.log(2), num_classes=3)
    >>> print(unreliability.round(4), ambiguity.round(4))  # 2/4, 1/4
    0.5 0.25
    """
    _door.check_at_least(0, epsilon=epsilon)
    _door.check_at_least(2, num_classes=num_classes)
    odds = np.exp(-np.asarray(epsilon, np.float64))  # of one wrong class against the true one
    ambiguity = odds / (1 + (num_classes - 1) * odds)
    return (num_classes - 1) * ambiguity, ambiguity


def laplace_mechanism_scale(epsilon: ArrayLike, *, sensitivity: ArrayLike) -> np.ndarray:
    """Return the scale b of Laplace noise that makes a release ε-private, `[...]` float64.

        b = sensitivity/ε

    Args:
      epsilon: `[...]` ε above 0.
      sensitivity: the largest L1 distance between what two inputs release; 2 for one-hot labels.

    Raises:
      ValueError: an argument that is not above 0.

    Source: Dwork, McSherry, Nissim & Smith, "Calibrating Noise to Sensitivity" (TCC 2006).

    >>> print(laplace_mechanism_scale(4.0, sensitivity=2.0))
    0.5
    """
    _door.check_positive(epsilon=epsilon, sensitivity=sensitivity)
    return np.asarray(sensitivity, np.float64) / np.asarray(epsilon, np.float64)


def gaussian_mechanism_scale(
    epsilon: ArrayLike, delta: ArrayLike, *, sensitivity: ArrayLike
) -> np.ndarray:
    """Return the least σ of Gaussian noise that makes a release (ε, δ)-private, `[...]` float64.

        Φ(μ/2 − ε/μ) − exp(ε) Φ(−μ/2 − ε/μ) = δ  with  μ = sensitivity/σ

    solved for μ. The left side is exact, not a bound, so no less noise would do.

    Args:
      epsilon: `[...]` ε above 0.
      delta: `[...]` δ in (0, 1), the privacy parameter (not the unreliability Δ).
      sensitivity: the largest L2 distance between what two inputs release; √2 for one-hot labels.

    Raises:
      ValueError: an argument out of its range.

    Source: Balle & Wang, "Improving the Gaussian Mechanism for Differential Privacy" (ICML 2018),
    Theorem 8.

    >>> # The classical σ = √(2 log(1.25/δ)) · sensitivity/ε is 6.85 here
    >>> print(gaussian_mechanism_scale(1.0, 1e-5, sensitivity=np.sqrt(2)).round(3))
    5.276
    """
    from scipy import special

    _door.check_positive(epsilon=epsilon, sensitivity=sensitivity)
    inside = (np.asarray(delta) > 0) & (np.asarray(delta) < 1)
    if not inside.all():
        raise ValueError(f"delta: expected a number in (0, 1), got {delta}")
    epsilon, delta = np.broadcast_arrays(np.asarray(epsilon, np.float64), delta)
    # The left side grows with μ: halve an interval of log μ.
    low, high = np.full(epsilon.shape, -40.0), np.full(epsilon.shape, 40.0)
    for _ in range(60):  # past the digits of float64
        middle = (low + high) / 2
        mu = np.exp(middle)
        # In logs, for exp(ε) may overflow where the product does not
        unlikely = np.exp(epsilon + special.log_ndtr(-mu / 2 - epsilon / mu))
        exceeds = special.ndtr(mu / 2 - epsilon / mu) - unlikely > delta
        low, high = np.where(exceeds, (low, middle), (middle, high))
    return np.asarray(sensitivity, np.float64) / np.exp(low)  # the private end
