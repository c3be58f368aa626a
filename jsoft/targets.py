"""Builders of soft labels `[..., C]` and of candidate sets, booleans `[..., C]`.

A candidate set takes the place of a top-k set: the classes that a weak annotator would not rule
out. Its two levels are swept, so they are traced numbers and every builder is a pure function of
`(labels, key, levels)`; the same key at neighbouring levels gives coupled draws.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.typing import ArrayLike

from jsoft import _door

Generator = Literal["independent", "fixed_size", "confuser"]
Noise = Literal["gaussian", "uniform", "laplace", "gumbel"]


def candidate_sets(
    labels: ArrayLike,
    key: jax.Array,
    *,
    num_classes: int,
    unreliability: ArrayLike,
    ambiguity: ArrayLike,
    generator: Generator = "independent",
    k: int | None = None,
) -> jax.Array:
    """Return random candidate sets of given unreliability Δ and ambiguity γ, booleans `[..., C]`.

    The true class y is left out with probability Δ. The wrong classes enter by `generator`,
    always so that max over i ≠ y of P(i ∈ s | y) = γ exactly (C classes):

    - `"independent"`: each with probability η; a set left empty gets one wrong class at random.
      η solves γ = η + Δ (1 − η)^(C−1) / (C − 1).
    - `"fixed_size"`: sets of exactly `k` classes, like top-k sets. The class y + 1 (mod C) is the
      confuser with rate γ, the others share what is left, k − 1 + Δ − γ, equally.
    - `"confuser"`: the class y + 1 (mod C) with probability η, no other; a set left empty gets one
      wrong class at random. η solves γ = η + Δ (1 − η) / (C − 1).

    Not every pair of levels can be realised, see `is_realisable`. Where traced levels cannot, γ
    is the nearest one that can (given Δ).

    Args:
      labels: `[...]` integers, the true classes.
      key: random key.
      num_classes: C.
      unreliability: Δ in [0, 1]; may be traced.
      ambiguity: γ in [0, 1]; may be traced.
      generator: how wrong classes enter.
      k: size of the sets, 1 … C − 1, for `"fixed_size"` only.

    Raises:
      TypeError, ValueError: labels that are not integers in range, levels outside [0, 1] or (where
        they are not traced) not realisable, an unknown generator, `k` missing, misplaced or out of
        range.

    Reconstructed: the paper's sampler is not public. The exact solutions for η and the fixed-size
    sampler are derived here.

    >>> labels = jnp.array([0, 1, 2])
    >>> key = jax.random.key(0)
    >>> candidate_sets(labels, key, num_classes=3, unreliability=0.0, ambiguity=0.0)
    Array([[ True, False, False],
           [False,  True, False],
           [False, False,  True]], dtype=bool)
    """
    _door.check_whole(2, num_classes=num_classes)
    _door.check_labels("labels", labels, num_classes=num_classes)
    labels = jnp.asarray(labels)
    _check_generator(num_classes, generator, k)
    _door.check_scalar(unreliability=unreliability, ambiguity=ambiguity)
    _door.check_levels(unreliability=unreliability, ambiguity=ambiguity)
    if _door.is_concrete(unreliability, ambiguity):
        levels = np.asarray(unreliability), np.asarray(ambiguity)
        if not np.all(_realisable(*levels, num_classes, k)):
            raise ValueError(
                f"ambiguity: no {generator} sets over {num_classes} classes"
                f"{'' if k is None else f' of size {k}'} have unreliability {unreliability} and "
                f"ambiguity {ambiguity}; see jsoft.targets.is_realisable"
            )
    key_true, key_wrong, key_repair = jax.random.split(key, 3)
    is_true = jax.nn.one_hot(labels, num_classes, dtype=bool)  # [..., C]
    is_confuser = jax.nn.one_hot((labels + 1) % num_classes, num_classes, dtype=bool)
    kept = jax.random.uniform(key_true, labels.shape) >= unreliability  # [...]

    if generator == "fixed_size":
        assert k is not None  # by _check_generator
        rate = _confuser_rate(kept, k, num_classes, unreliability, ambiguity)
        confused = jax.random.uniform(key_wrong, labels.shape) < rate
        # The set is the k first classes in an order that is random but for the true class and the
        # confuser, which stand at the front or at the back as drawn.
        order = jax.random.uniform(key_repair, is_true.shape)
        order = jnp.where(is_confuser, jnp.where(confused, -1.0, 2.0)[..., None], order)
        order = jnp.where(is_true, jnp.where(kept, -2.0, 3.0)[..., None], order)
        return jnp.argsort(jnp.argsort(order, axis=-1), axis=-1) < k

    share = jnp.asarray(unreliability) / (num_classes - 1)  # of an emptied set's one wrong class
    if generator == "independent":
        rate = _independent_rate(share, ambiguity, num_classes)
        enters = ~is_true
    else:
        rate = jnp.clip((ambiguity - share) / jnp.maximum(1 - share, 1e-30), 0, 1)
        enters = is_confuser
    sets = (is_true & kept[..., None]) | (
        enters & (jax.random.uniform(key_wrong, is_true.shape) < rate)
    )
    lottery = jnp.where(is_true, -1.0, jax.random.uniform(key_repair, is_true.shape))
    drawn = jax.nn.one_hot(jnp.argmax(lottery, axis=-1), num_classes, dtype=bool)
    return sets | (drawn & ~sets.any(axis=-1, keepdims=True))


def is_realisable(
    unreliability: ArrayLike,
    ambiguity: ArrayLike,
    *,
    num_classes: int,
    generator: Generator = "independent",
    k: int | None = None,
) -> jax.Array:
    """Return whether sets of these levels exist at all, booleans of the levels' shape.

    A set that misses the truth holds a wrong class, so γ ≥ Δ/(C − 1); sets of k classes hold
    k − 1 + Δ wrong ones on average, so (k − 1 + Δ)/(C − 1) ≤ γ ≤ min(1, k − 1 + Δ).

    Args, raises: as `candidate_sets`. Derived here, by counting members.

    >>> is_realisable(0.9, jnp.array([0.0, 0.2]), num_classes=10)
    Array([False,  True], dtype=bool)
    """
    _door.check_whole(2, num_classes=num_classes)
    _check_generator(num_classes, generator, k)
    _door.check_levels(unreliability=unreliability, ambiguity=ambiguity)
    return _realisable(jnp.asarray(unreliability), jnp.asarray(ambiguity), num_classes, k)


def uniform_over(candidate_sets: ArrayLike) -> jax.Array:
    """Return the soft labels that spread evenly over each set, d_i = 1[i ∈ s] / |s|, `[..., C]`.

    Args:
      candidate_sets: `[..., C]` booleans, no set empty.

    Raises:
      TypeError, ValueError: sets that are not booleans; an empty set (a traced one gives zeros).

    The target of `losses.average_loss`; derived here.

    >>> uniform_over(jnp.array([True, False, True, False]))
    Array([0.5, 0. , 0.5, 0. ], dtype=float32)
    """
    candidate_sets = jnp.asarray(candidate_sets)
    _door.check_sets("candidate_sets", candidate_sets)
    sizes = candidate_sets.sum(axis=-1, keepdims=True)
    if _door.is_concrete(sizes) and not np.all(sizes):
        raise ValueError("candidate_sets: expected a class or more in every set, got an empty set")
    return candidate_sets / jnp.maximum(sizes, 1).astype(jnp.float32)


def one_hot(labels: ArrayLike, num_classes: int) -> jax.Array:
    """Return hard labels as soft ones, d_i = 1[i = y], `[..., C]`.

    Raises:
      TypeError, ValueError: labels that are not integers in 0 … C − 1; fewer than two classes.

    The usual encoding, `jax.nn.one_hot`, behind jsoft's checks.

    >>> one_hot(jnp.array([2, 0]), 3)
    Array([[0., 0., 1.],
           [1., 0., 0.]], dtype=float32)
    """
    _door.check_whole(2, num_classes=num_classes)
    _door.check_labels("labels", labels, num_classes=num_classes)
    labels = jnp.asarray(labels)
    return jax.nn.one_hot(labels, num_classes)


def smooth(soft_labels: ArrayLike, *, alpha: ArrayLike) -> jax.Array:
    """Return soft labels mixed with the uniform one, (1 − α) d + α/C, `[..., C]`; optax's function.

    Args:
      soft_labels: `[..., C]` finite floats.
      alpha: weight of the uniform label in [0, 1]; may be traced.

    Raises:
      TypeError, ValueError: integer or non-finite soft labels; α outside [0, 1].

    Source: Szegedy et al., "Rethinking the Inception Architecture" (CVPR 2016), section 7.

    >>> smooth(jnp.array([0.0, 1.0]), alpha=0.5)
    Array([0.25, 0.75], dtype=float32)
    """
    soft_labels = jnp.asarray(soft_labels)
    _door.check_soft_labels(soft_labels)
    _door.check_levels(alpha=alpha)
    return optax.smooth_labels(soft_labels, alpha)  # pyrefly: ignore


def temperature_softmax(logits: ArrayLike, *, temperature: ArrayLike) -> jax.Array:
    """Return the softened class probabilities softmax(z / T), `[..., C]`.

    Args:
      logits: `[..., C]` finite floats.
      temperature: T > 0; above one flattens, below one sharpens; may be traced.

    Raises:
      TypeError, ValueError: integer or non-finite logits; a temperature that is not above zero.

    Source: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network" (2015), eq. 1.

    >>> print(temperature_softmax(jnp.log(jnp.array([9.0, 1.0])), temperature=2.0).round(4))
    [0.75 0.25]
    """
    logits = jnp.asarray(logits)
    _door.check_float("logits", logits)
    _door.check_classes("logits", logits)
    _door.check_finite("logits", logits)
    _door.check_positive(temperature=temperature)
    # The largest logit goes first, so that a division by a small temperature cannot overflow.
    return jax.nn.softmax((logits - logits.max(axis=-1, keepdims=True)) / temperature)


def additive_noise(
    labels: ArrayLike, key: jax.Array, *, num_classes: int, kind: Noise, scale: ArrayLike
) -> jax.Array:
    """Return one-hot labels plus independent noise on every class, e_y + ξ, `[..., C]` scores.

    Scores, not probabilities: they may be negative and do not sum to one. Δ and γ of their top-k
    sets read only the order of the scores; `noise.noise_unreliability` gives Δ in closed form.

    Args:
      labels: `[...]` integers, the true classes.
      key: random key; the same key at another scale stretches the same noise.
      num_classes: C.
      kind: the law of the noise: `"gaussian"` of standard deviation `scale`, `"uniform"` on
        ±`scale`, `"laplace"` of density exp(−|t|/scale)/(2 scale), `"gumbel"` of distribution
        exp(−exp(−t/scale)).
      scale: one finite number, 0 or more; may be traced.

    Raises:
      TypeError, ValueError: labels that are not integers in range, an unknown kind, a scale out of
        range.

    Reconstructed: the paper learns "with additive noise" (arXiv 2302.08155, abstract); its noise is
    not public.

    >>> labels = jnp.array([2, 0])
    >>> key = jax.random.key(0)
    >>> scores = additive_noise(labels, key, num_classes=3, kind="uniform", scale=0.25)
    >>> print(np.asarray(scores).round(2))  # within 0.25 of one-hot
    [[ 0.22  0.24  0.92]
     [ 0.98  0.03 -0.17]]
    """
    _door.check_whole(2, num_classes=num_classes)
    _door.check_labels("labels", labels, num_classes=num_classes)
    labels = jnp.asarray(labels)
    _door.check_at_least(0, scale=scale)
    if _door.is_concrete(scale) and not np.isfinite(scale).all():
        raise ValueError(f"scale: expected a finite number, got {scale}")
    shape = (*labels.shape, num_classes)
    if kind == "gaussian":
        noise = jax.random.normal(key, shape)
    elif kind == "uniform":
        noise = jax.random.uniform(key, shape, minval=-1, maxval=1)
    elif kind == "laplace":
        noise = jax.random.laplace(key, shape)
    elif kind == "gumbel":
        noise = jax.random.gumbel(key, shape)
    else:
        raise ValueError(
            f'kind: expected "gaussian", "uniform", "laplace" or "gumbel", got {kind!r}'
        )
    return jax.nn.one_hot(labels, num_classes) + scale * noise


def randomised_response(
    labels: ArrayLike, key: jax.Array, *, num_classes: int, epsilon: ArrayLike
) -> jax.Array:
    """Return one-hot labels of the class that is told in place of the true one, `[..., C]`.

    Class i is told with probability proportional to exp(ε · 1[i = y]): the truth with
    exp(ε)/(exp(ε) + C − 1), every other class with 1/(exp(ε) + C − 1). That is ε-differentially
    private with regard to the label. Δ and γ: `noise.randomised_response_indicators`.

    A simulation of the mechanism, for experiments: the draws are float32 and their generator is
    not a cryptographic one, so this must not guard real secrets.

    Args:
      labels: `[...]` integers, the true classes.
      key: random key; the same key at a larger ε tells the truth for the same examples and more.
      num_classes: C.
      epsilon: ε, one finite number, 0 or more; may be traced.

    Raises:
      TypeError, ValueError: labels that are not integers in range, ε out of range.

    Source: Warner, "Randomized Response" (JASA 1965), here for C classes.

    >>> labels = jnp.array([2, 0])
    >>> randomised_response(labels, jax.random.key(0), num_classes=3, epsilon=20.0)
    Array([[0., 0., 1.],
           [1., 0., 0.]], dtype=float32)
    """
    _door.check_whole(2, num_classes=num_classes)
    _door.check_labels("labels", labels, num_classes=num_classes)
    labels = jnp.asarray(labels)
    _door.check_at_least(0, epsilon=epsilon)
    if _door.is_concrete(epsilon) and not np.isfinite(epsilon).all():
        raise ValueError(f"epsilon: expected a finite number, got {epsilon}")
    told = jax.random.categorical(key, epsilon * jax.nn.one_hot(labels, num_classes))
    return jax.nn.one_hot(told, num_classes)


def uniform_label_noise(
    labels: ArrayLike, key: jax.Array, *, num_classes: int, rate: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Return labels of which some were drawn anew, and which of them are wrong now, both `[...]`.

    With probability `rate` a label gives way to a class drawn uniformly from all C, the true one
    among them: a share rate · (1 − 1/C) ends up wrong. For a share s of wrong labels ask for
    rate = s C / (C − 1).

    Args:
      labels: `[...]` integers, the true classes.
      key: random key; the same key at a higher rate spoils the same labels and more.
      num_classes: C.
      rate: in [0, 1]; may be traced.

    Returns:
      Integer labels, and booleans that are true where a label changed.

    Raises:
      TypeError, ValueError: labels that are not integers in range, a rate outside [0, 1].

    Source: symmetric noise, e.g. van Rooyen, Menon & Williamson (NeurIPS 2015).

    >>> noisy, changed = uniform_label_noise(
    ...     jnp.arange(10), jax.random.key(0), num_classes=10, rate=0.5)
    >>> bool((changed == (noisy != jnp.arange(10))).all())
    True
    """
    labels, key, redrawn = _spoilt(labels, key, num_classes, rate)
    drawn = jax.random.randint(key, labels.shape, 0, num_classes, labels.dtype)
    noisy = jnp.where(redrawn, drawn, labels)
    return noisy, noisy != labels


def flip_label_noise(
    labels: ArrayLike, key: jax.Array, *, num_classes: int, rate: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Return labels of which a share `rate` became the next class, and which, both `[...]`.

    With probability `rate` the label y gives way to y + 1 (mod C).

    Args:
      labels: `[...]` integers, the true classes.
      key: random key; the same key at a higher rate flips the same labels and more.
      num_classes: C.
      rate: in [0, 1]; may be traced.

    Returns:
      Integer labels, and booleans that are true where a label changed.

    Raises:
      TypeError, ValueError: labels that are not integers in range, a rate outside [0, 1].

    Source: pair flips, e.g. Han et al., "Co-teaching" (NeurIPS 2018).

    >>> flip_label_noise(jnp.array([0, 1, 2]), jax.random.key(0), num_classes=3, rate=1.0)[0]
    Array([1, 2, 0], dtype=int32)
    """
    labels, _, flipped = _spoilt(labels, key, num_classes, rate)
    return jnp.where(flipped, (labels + 1) % num_classes, labels), flipped


def pseudo_labels(logits: ArrayLike) -> jax.Array:
    """Return a model's answers as one-hot labels, d_i = 1[i = argmax z], `[..., C]`.

    The lower class among equals. No gradient flows through; for soft pseudo-labels use
    `temperature_softmax` and `lax.stop_gradient`.

    Args:
      logits: `[..., C]` finite floats.

    Raises:
      TypeError, ValueError: integer or non-finite logits; fewer than two classes.

    Source: Lee, "Pseudo-Label" (ICML 2013, workshop on representation learning).

    >>> pseudo_labels(jnp.array([[0.5, 2.0, -1.0], [3.0, 0.0, 1.0]]))
    Array([[0., 1., 0.],
           [1., 0., 0.]], dtype=float32)
    """
    logits = jnp.asarray(logits)
    _door.check_float("logits", logits)
    _door.check_classes("logits", logits)
    _door.check_finite("logits", logits)
    return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=logits.dtype)


def _spoilt(
    labels: ArrayLike, key: jax.Array, num_classes: int, rate: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the labels, checked, a key for what takes their place, and where something does."""
    _door.check_whole(2, num_classes=num_classes)
    _door.check_labels("labels", labels, num_classes=num_classes)
    _door.check_scalar(rate=rate)
    _door.check_levels(rate=rate)
    labels = jnp.asarray(labels)
    where_key, what_key = jax.random.split(key)
    return labels, what_key, jax.random.uniform(where_key, labels.shape) < rate


def _realisable(unreliability: Any, ambiguity: Any, num_classes: int, k: int | None) -> Any:
    num_wrong = unreliability if k is None else k - 1 + unreliability
    rounding = 1e-6  # 0.9/9 is not 0.1 in float32
    enough = ambiguity >= num_wrong / (num_classes - 1) - rounding
    return enough if k is None else enough & (ambiguity <= num_wrong + rounding)


def _independent_rate(share: jax.Array, ambiguity: ArrayLike, num_classes: int) -> jax.Array:
    """Return η in [0, 1] with η + share (1 − η)^(C−1) = γ, by bisection: the left side grows."""

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        too_high = middle + share * (1 - middle) ** (num_classes - 1) > ambiguity
        return jnp.where(too_high, low, middle), jnp.where(too_high, middle, high)

    ambiguity = jnp.asarray(ambiguity, dtype=jnp.float32)
    low = jnp.zeros(jnp.broadcast_shapes(jnp.shape(share), jnp.shape(ambiguity)))
    low, _ = lax.fori_loop(0, 26, halve, (low, low + 1))  # to float32's last digit
    return low


def _confuser_rate(
    kept: jax.Array, k: int, num_classes: int, unreliability: ArrayLike, ambiguity: ArrayLike
) -> jax.Array:
    """Return the confuser's chance to be in, given whether the true class was kept.

    With m = k − 1 or k places for C − 1 wrong classes the chance can be anything from
    max(0, m − (C − 2)) to min(1, m); both cases take the same fraction t of their range, the t that
    makes the mean over both equal γ.
    """

    def bounds(places):
        return max(0, places - (num_classes - 2)), min(1, places)

    (low_kept, high_kept), (low_missed, high_missed) = bounds(k - 1), bounds(k)
    low = low_kept * (1 - unreliability) + low_missed * unreliability
    high = high_kept * (1 - unreliability) + high_missed * unreliability
    # At equal rates for all wrong classes this is (k − 1 + Δ)/(C − 1): no less is possible for a
    # maximum over classes.
    least = (k - 1 + unreliability) / (num_classes - 1)
    fraction = jnp.clip(
        (jnp.maximum(ambiguity, least) - low) / jnp.maximum(high - low, 1e-30), 0, 1
    )
    in_if_kept = low_kept + fraction * (high_kept - low_kept)
    in_if_missed = low_missed + fraction * (high_missed - low_missed)
    return jnp.where(kept, in_if_kept, in_if_missed)


def _check_generator(num_classes: int, generator: str, k: int | None) -> None:
    if generator not in ("independent", "fixed_size", "confuser"):
        raise ValueError(
            f'generator: expected "independent", "fixed_size" or "confuser", got {generator!r}'
        )
    if generator == "fixed_size":
        if k is None:
            raise ValueError(
                'k: expected the size of the sets with generator="fixed_size", got None'
            )
        _door.check_k("k", k, num_classes)
    elif k is not None:
        raise ValueError(f'k: expected None with generator="{generator}", got {k}')
