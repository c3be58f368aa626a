"""What Δ and γ promise before any training: the margin κ, the rate D, and sample sizes.

Ω is the candidate set of an example (the top-k classes of its soft label), y its true class, h a
classifier and h* the true one:

    Δ  unreliability degree   P(y ∉ Ω | x) ≤ Δ
    γ  ambiguity degree       P(i ∈ Ω | x) ≤ γ for every wrong class i ≠ y
    κ  margin                 1 − Δ − γ; the paper's condition is κ > 0, that is Δ + γ < 1

The learner minimises the superset error, the share of examples with h(x) ∉ Ω, over a class that
holds h*. Its sample size n₀(θ) knows three constants θ, named apart because their worth differs:

    theta_superset      proved by Liu & Dietterich (2014), for Δ = 0
    theta_conditional   reconstructed; for the examples with y ∈ Ω alone, not for this learner
    theta_robust        derived here (not in the paper); for this learner, at every κ > 0

All need Δ and γ to hold at almost every x. A Δ that holds on average is not enough: unreliable
examples gathered in one region stay wrong there, whatever n. Degrees within each class are enough
where Ω is independent of x given y.

Two idealised models say what becomes of labels that networks make: `bad_teacher_limit`, where a
teacher ends that is punished for being right, and `plurality_accuracy` with the
`self_training_threshold`, where rounds of self-training lead.

Every function is elementwise: arrays of one shape, or scalars, give an array of that shape.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import poisson
from jax.typing import ArrayLike

from jsoft import _door


def margin(unreliability: ArrayLike, ambiguity: ArrayLike) -> jax.Array:
    """Return κ, the margin by which the paper's condition Δ + γ < 1 holds, `[...]`.

        κ = 1 − Δ − γ

    Args:
      unreliability: `[...]` Δ in [0, 1].
      ambiguity: `[...]` γ in [0, 1].

    Raises:
      ValueError: a level outside [0, 1].

    The condition is the paper's (arXiv 2302.08155). What κ measures is derived here (not in the
    paper): where h is wrong it has P(h(x) ∉ Ω) ≥ 1 − γ, where h* has P(y ∉ Ω) ≤ Δ, so the superset
    error of h exceeds that of h* by at least κ times the error of h.

    >>> print(margin(0.25, 0.5))
    0.25
    """
    unreliability, ambiguity = _levels(unreliability=unreliability, ambiguity=ambiguity)
    return 1 - unreliability - ambiguity


def divergence(
    unreliability: ArrayLike, ambiguity: ArrayLike, *, extended: bool = False
) -> jax.Array:
    """Return D, the rate at which examples tell the true classifier from a wrong one, `[...]`.

        D(Δ, γ) = (√(1 − max(Δ, γ)) − √min(Δ, γ))²  where Δ + γ < 1, and 0 elsewhere

    Symmetric, with D(0, γ) = 1 − γ and κ²/2 ≤ D ≤ κ where κ ≥ 0. The slope is −∞ where the smaller
    level is 0, finite inside.

    Args:
      unreliability: `[...]` Δ in [0, 1].
      ambiguity: `[...]` γ in [0, 1].
      extended: return κ instead of 0 where κ ≤ 0, so that levels past the line are ordered too.
        This is a predictor of accuracy, of no use in a bound.

    Raises:
      ValueError: a level outside [0, 1].

    Derived here (not in the paper), the extension too. Where h errs, let
    g = 1[h(x) ∉ Ω] − 1[y ∉ Ω]; by Chernoff, n such examples have Σ g ≤ 0 with probability at most
    (min over t of E exp(−t g))ⁿ. Of all laws that Δ and γ admit, the worst has
    P(g = 1) = 1 − max(Δ, γ) and P(g = −1) = min(Δ, γ), and there the minimum over t is 1 − D.

    >>> print(f"{divergence(0.36, 0.25):.2f}")  # (0.8 − 0.5)²
    0.09
    >>> print(divergence(0.5, 0.75), divergence(0.5, 0.75, extended=True))
    0.0 -0.25
    """
    unreliability, ambiguity = _levels(unreliability=unreliability, ambiguity=ambiguity)
    larger = jnp.maximum(unreliability, ambiguity)
    smaller = jnp.minimum(unreliability, ambiguity)
    kappa = (1 - larger) - smaller
    past = kappa <= 0
    # √a − √b = (a − b)/(√a + √b) keeps its digits near the line, where a → b. Past the line an
    # inner point stands in for both levels, so that no root has an infinite slope there.
    roots = jnp.sqrt(1 - jnp.where(past, 0.5, larger)) + jnp.sqrt(jnp.where(past, 0.5, smaller))
    return jnp.where(past, kappa if extended else 0, jnp.square(kappa / roots))


def theta_superset(ambiguity: ArrayLike) -> jax.Array:
    """Return θ for sets that always hold the true class (Δ = 0), `[...]`; positive iff γ < 1.

        θ = log(2/(1 + γ))

    Args:
      ambiguity: `[...]` γ in [0, 1].

    Raises:
      ValueError: a level outside [0, 1].

    Liu & Dietterich, "Learnability of the Superset Label Learning Problem" (ICML 2014),
    Theorem 3.1: u errors go unseen with probability at most γᵘ, and when each is swapped with a
    ghost example at even odds, (1 + γ)/2 is left for each.

    >>> print(f"{theta_superset(0.6):.4f}")  # log 1.25
    0.2231
    """
    (ambiguity,) = _levels(ambiguity=ambiguity)
    return -jnp.log1p(-(1 - ambiguity) / 2)


def theta_conditional(unreliability: ArrayLike, ambiguity: ArrayLike) -> jax.Array:
    """Return θ on the reliable examples, those with y ∈ Ω, `[...]`; positive iff Δ + γ < 1.

        θ = log(2(1 − Δ)/(1 − Δ + γ))

    At Δ = 1 no example is reliable and θ = −∞. For claims use `theta_robust`.

    Args:
      unreliability: `[...]` Δ in [0, 1].
      ambiguity: `[...]` γ in [0, 1].

    Raises:
      ValueError: a level outside [0, 1].

    Reconstructed: the paper's constant as remembered, which no text at hand confirms. It equals
    `theta_superset` at γ/(1 − Δ), a bound on the ambiguity once the examples with y ∉ Ω are
    removed. For the learner that keeps them the sample size it gives is too small (derived here):
    two hypotheses, Δ = γ = 0.45, ε = 1 and δ = 0.001 ask for 547 examples, where the probability
    of failure is 0.0095.

    >>> print(f"{theta_conditional(0.2, 0.4):.4f}")  # log(1.6/1.2)
    0.2877
    """
    unreliability, ambiguity = _levels(unreliability=unreliability, ambiguity=ambiguity)
    reliability = 1 - unreliability
    none = reliability <= 0
    kappa = reliability - ambiguity
    theta = -jnp.log1p(-kappa / (2 * jnp.where(none, 1, reliability)))
    return jnp.where(none, -jnp.inf, theta)


def theta_robust(unreliability: ArrayLike, ambiguity: ArrayLike) -> jax.Array:
    """Return θ for the learner that minimises the error on all sets, `[...]`; positive iff κ > 0.

        θ = log(2/(2 − D(Δ, γ)))

    Args:
      unreliability: `[...]` Δ in [0, 1].
      ambiguity: `[...]` γ in [0, 1].

    Raises:
      ValueError: a level outside [0, 1].

    Derived here (not in the paper). In the proof of `theta_superset`, "u errors go unseen with
    probability at most γᵘ" becomes "on u errors h pays no more than h* with probability at most
    (1 − D)ᵘ", see `divergence`; the rest stands. At Δ = 0 it is `theta_superset`.

    >>> print(f"{theta_robust(0.1, 0.1):.4f}")  # D = 0.9 + 0.1 − 2 √0.09 = 0.4, θ = log(2/1.6)
    0.2231
    """
    return -jnp.log1p(-divergence(unreliability, ambiguity) / 2)


def sample_complexity(
    theta: ArrayLike,
    *,
    epsilon: ArrayLike,
    delta: ArrayLike,
    natarajan_dimension: ArrayLike,
    num_classes: ArrayLike,
) -> jax.Array:
    """Return n₀, the examples enough for a class of Natarajan dimension d, `[...]`; ∞ if θ ≤ 0.

        n₀ = 4/(θε) · (d (log 4d + 2 log C + log 1/(θε)) + log 1/δ + 1)

    With n > n₀ examples every minimiser of the superset error has P(error < ε) ≥ 1 − δ. Not
    rounded.

    Args:
      theta: `[...]` one of the three constants above.
      epsilon: error ε in (0, 1].
      delta: probability of failure δ in (0, 1).
      natarajan_dimension: d, a whole number of 1 or more.
      num_classes: C, a whole number of 2 or more.

    Raises:
      ValueError: an argument out of its range.

    The formula is Liu & Dietterich's (ICML 2014, Theorem 3.1) and their theorem with
    `theta_superset`. With `theta_robust` it is derived here (not in the paper); with
    `theta_conditional` it speaks of the reliable examples alone.

    >>> n = sample_complexity(0.5, epsilon=0.5, delta=0.5, natarajan_dimension=1, num_classes=2)
    >>> print(f"{n:.2f}")  # 16 (7 log 2 + 1)
    93.63
    """
    _check_probability("epsilon", epsilon, allow_one=True)
    _check_probability("delta", delta)
    _check_count("natarajan_dimension", natarajan_dimension, least=1)
    _check_count("num_classes", num_classes, least=2)
    theta, epsilon, delta, d, num_classes = _as_floats(
        theta, epsilon, delta, natarajan_dimension, num_classes
    )
    never = theta <= 0
    rate = jnp.where(never, 1, theta) * epsilon
    capacity = d * (jnp.log(4 * d) + 2 * jnp.log(num_classes) - jnp.log(rate))
    return jnp.where(never, jnp.inf, 4 / rate * (capacity - jnp.log(delta) + 1))


def finite_class_sample_complexity(
    divergence: ArrayLike, *, epsilon: ArrayLike, delta: ArrayLike, class_size: ArrayLike
) -> jax.Array:
    """Return n, the examples enough for a finite class H, `[...]`; ∞ where D ≤ 0.

        n = log(|H|/δ)/(εD)

    With n examples or more every minimiser of the superset error has P(error < ε) ≥ 1 − δ. Not
    rounded.

    Args:
      divergence: `[...]` D of the function of that name.
      epsilon: error ε in (0, 1].
      delta: probability of failure δ in (0, 1).
      class_size: |H|, a whole number of 1 or more; a Python int may exceed every float.

    Raises:
      ValueError: an argument out of its range.

    Derived here (not in the paper). A classifier of error ε or more pays no more than h* on n
    examples with probability at most (1 − εD)ⁿ ≤ exp(−nεD), see `divergence`; summed over H that
    is at most δ.

    >>> n = finite_class_sample_complexity(1.0, epsilon=0.1, delta=0.05, class_size=1000)
    >>> print(f"{n:.2f}")  # 10 log 20000
    99.03
    """
    _check_probability("epsilon", epsilon, allow_one=True)
    _check_probability("delta", delta)
    _check_count("class_size", class_size, least=1)
    log_size = (
        math.log(class_size) if isinstance(class_size, int) else jnp.log(*_as_floats(class_size))
    )
    divergence, epsilon, delta, log_size = _as_floats(divergence, epsilon, delta, log_size)
    never = divergence <= 0
    rate = jnp.where(never, 1, divergence) * epsilon
    return jnp.where(never, jnp.inf, (log_size - jnp.log(delta)) / rate)


class TeacherLimit(NamedTuple):
    """Where the training of a bad teacher ends, arrays `[...]`.

    Attributes:
      regime: 0 the true class is never first, 1 it is now and then, 2 it always is.
      true_probability: p_y, the probability that the teacher gives the true class.
      accuracy: share of training examples whose true class comes first.
    """

    regime: jax.Array
    true_probability: jax.Array
    accuracy: jax.Array


def bad_teacher_limit(a1: ArrayLike, a3: ArrayLike, *, k: ArrayLike) -> TeacherLimit:
    """Return where a teacher ends that memorises −log p_y + a1 L_pun + a3 L_rnd, `[...]`.

        a3 > k − 1             p_y = 1/(1 + a3)        accuracy 0
        a3 ≤ k − 1 < a1 + a3   p_y = 1/k               accuracy (k − 1 − a3)/a1
        a1 + a3 ≤ k − 1        p_y = 1/(1 + a1 + a3)   accuracy 1

    L_pun = −log(1 − p_y), for examples whose true class comes first; L_rnd is the mean of −log p_j
    over k − 1 wrong classes, drawn once for every example. Always y is among the k largest, so that
    Δ = 0 and γ = (k − 1)/(C − 1) up to sampling.

    Args:
      a1: `[...]` weight of the punishment, 0 or more.
      a3: `[...]` weight of the random classes, 0 or more.
      k: size of the top-k set, a whole number of 2 or more.

    Raises:
      ValueError: an argument out of its range.

    Derived here (not in the paper), for a reconstructed objective and a teacher that can give every
    example any probabilities. The k − 1 random classes share 1 − p_y alike, so y comes first iff
    p_y > 1/k; on that tie it is first in just the share of steps that holds p_y there. Networks
    keep to the regimes; between 0 and 1 their accuracy follows loosely.

    >>> limit = bad_teacher_limit(4.0, jnp.array([1.0, 4.0]), k=4)
    >>> print(limit.regime, limit.true_probability, limit.accuracy)  # (4 − 1 − 1)/4
    [1 0] [0.25 0.2 ] [0.5 0. ]
    """
    _door.check_at_least(0, a1=a1, a3=a3)
    _check_count("k", k, least=2)
    a1, a3, k = _as_floats(a1, a3, k)
    never, slides = a3 > k - 1, (a3 <= k - 1) & (a1 + a3 > k - 1)
    share = (k - 1 - a3) / jnp.where(slides, a1, 1)
    return TeacherLimit(
        regime=jnp.where(never, 0, jnp.where(slides, 1, 2)),
        true_probability=jnp.where(slides, 1 / k, 1 / (1 + a3 + jnp.where(never, 0, a1))),
        accuracy=jnp.where(slides, share, jnp.where(never, 0, 1)),
    )


def self_training_threshold(
    concentration: ArrayLike, *, labelled_fraction: ArrayLike = 0.0
) -> jax.Array:
    """Return a†, the accuracy above which a model's own labels can teach a better one, `[...]`.

        a† = max(0, 1 − 1/((1 − λ)(1 + c))),  which is c/(1 + c) at λ = 0

    Labels of accuracy a have Δ = 1 − a and γ = c (1 − a) at k = 1. A share λ of correct ones among
    them leaves (1 − λ)Δ and (1 − λ)γ, so the condition becomes Δ + γ < 1/(1 − λ).

    Args:
      concentration: `[...]` c in [0, 1], the share of errors that goes to the likeliest wrong
        class; not below 1/(C − 1).
      labelled_fraction: λ in [0, 1].

    Raises:
      ValueError: a level outside [0, 1].

    Derived here (not in the paper): where `plurality_accuracy` goes to 1 in place of 0 as N grows.

    >>> print(self_training_threshold(1.0), self_training_threshold(0.6, labelled_fraction=0.5))
    0.5 0.0
    """
    c, labelled_fraction = _levels(concentration=concentration, labelled_fraction=labelled_fraction)
    return 1 - 1 / jnp.maximum(1, (1 - labelled_fraction) * (1 + c))


def plurality_accuracy(
    unreliability: ArrayLike, ambiguity: ArrayLike, *, num_votes: int, num_classes: int
) -> jax.Array:
    """Return ρ_N(Δ, γ), the chance that the true class wins a vote of N noisy labels, `[...]`.

        ρ_N = E[1[n_y = max n] / #{i: n_i = n_y}],  n ~ Multinomial(N; p)

    A vote goes to y by p_y = 1 − Δ, to one wrong class by γ, to each other by (Δ − γ)/(C − 2);
    classes with equal counts win at even odds.

    The student of an idealised self-training: inputs fall into cells, every cell has N labels with
    independent errors, and the student answers what most of them say. A round turns accuracy a into
    ρ_N(1 − a, c (1 − a)), and ρ_N → 1[Δ + γ < 1] as N grows. The labels that a real model gives to
    like inputs share their errors, so real rounds gain less.

    Args:
      unreliability: `[...]` Δ in [0, 1].
      ambiguity: `[...]` γ, the rate of the likeliest wrong class: Δ/(C − 1) ≤ γ ≤ Δ.
      num_votes: N, 1 or more.
      num_classes: C, 2 or more.

    Raises:
      ValueError: an argument out of its range.

    Derived here (not in the paper). Exact, in the order of N²C² numbers of memory for each Δ.

    >>> rho = plurality_accuracy(0.25, 0.25, num_votes=3, num_classes=2)
    >>> print(f"{rho:.5f}")  # 0.75³ + 3 · 0.75² · 0.25
    0.84375
    """
    levels = _levels(unreliability=unreliability, ambiguity=ambiguity)
    _check_count("num_votes", num_votes, least=1)
    _check_count("num_classes", num_classes, least=2)
    if _door.is_concrete(unreliability, ambiguity):
        delta, gamma = np.asarray(unreliability), np.asarray(ambiguity)
        rounding = 1e-6
        least = delta / (num_classes - 1)
        if not ((gamma >= least - rounding) & (gamma <= delta + rounding)).all():
            raise ValueError(
                f"ambiguity: expected Δ/{num_classes - 1} ≤ γ ≤ Δ, got {ambiguity} at Δ = "
                f"{unreliability}"
            )
    # Independent Poisson counts are multinomial once their sum is known. Given n_y, the others'
    # counts up to n_y are polynomials, and their product's coefficient at N − n_y is the chance
    # that y wins; u marks the ties, since the mean of 1/(1 + ties) is the integral of u^ties.
    nodes, weights = np.polynomial.legendre.leggauss(min(num_votes, num_classes) // 2 + 1)
    u = (nodes[:, None, None] + 1) / 2
    wins, votes = np.arange(1, num_votes + 1), np.arange(num_votes + 1)
    below, equal = votes < wins[:, None], votes == wins[:, None]
    allowed = np.where(equal, u, below)  # [U, N, votes]
    size = (num_classes - 1) * num_votes + 1  # one more than the product's degree

    def chance(delta, gamma):
        def count(rate):  # the slope of a logarithm of zero would not be a number
            return poisson.pmf(votes, num_votes * jnp.maximum(rate, 1e-30))

        confuser, other = (
            jnp.fft.rfft(count(rate)[None, None] * allowed, size)
            for rate in (gamma, (delta - gamma) / max(num_classes - 2, 1))
        )
        product = jnp.fft.irfft(confuser * other ** (num_classes - 2), size)
        lost = jnp.asarray(weights / 2) @ product[:, wins - 1, num_votes - wins]  # [N]
        won = count(1 - delta)[wins] @ lost / poisson.pmf(num_votes, num_votes)
        return jnp.clip(won, 0, 1)

    return jnp.vectorize(chance)(*levels)


def _levels(**levels: ArrayLike) -> list[jax.Array]:
    """Return the checked levels as floats."""
    _door.check_levels(**levels)
    return _as_floats(*levels.values())


def _as_floats(*values: ArrayLike) -> list[jax.Array]:
    """Return the values as arrays of the float dtype they promote to."""
    dtype = jnp.result_type(float, *values)
    return [jnp.asarray(value, dtype) for value in values]


def _check_probability(name: str, value: ArrayLike, *, allow_one: bool = False) -> None:
    """Raise `ValueError` where a concrete value lies outside (0, 1), or (0, 1]."""
    if _door.is_concrete(value):
        values = np.asarray(value)
        if not ((values > 0) & ((values <= 1) if allow_one else (values < 1))).all():
            expected = "(0, 1]" if allow_one else "(0, 1)"
            raise ValueError(f"{name}: expected a number in {expected}, got {value}")


def _check_count(name: str, value: ArrayLike, *, least: int) -> None:
    """Raise `ValueError` where a concrete value is not a whole number of `least` or more."""
    if _door.is_concrete(value):
        values = np.asarray(value)  # a Python int of any size stays exact
        if not ((values >= least) & (values % 1 == 0)).all():
            raise ValueError(f"{name}: expected a whole number of {least} or more, got {value}")
