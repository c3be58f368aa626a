"""Few images, labelled once by an expert: their soft labels, surgery on them, and what they hold.

Data set condensation keeps a few images of each class. Most of what a student learns from them
comes from the labels: the probabilities q that a partly trained expert gives to the images as they
are, in inference mode, one label for every augmentation of an image.

Soft labels are `[..., C]` with the class axis last. Labels after surgery need not sum to one, and
are not made to unless asked for: `truncated_cross_entropy` takes them as they are.

Source: Qin, Deng & Alvarez-Melis, "A Label is Worth a Thousand Images in Dataset Distillation"
(NeurIPS 2024, arXiv 2406.10485) and its released code, whose `temp` multiplies the logits: it is
one over the temperature here.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.typing import ArrayLike

from jsoft import _door, targets


def expert_soft_labels(logits: ArrayLike, *, temperature: ArrayLike = 1.0) -> jax.Array:
    """Return what the expert tells of the images, softmax(z/T), `[..., C]`.

    No gradient flows through.

    Args:
      logits: `[..., C]` finite floats, of images that are not augmented.
      temperature: T > 0; may be traced.

    Raises:
      TypeError, ValueError: as `targets.temperature_softmax`.

    Source: arXiv 2406.10485, whose code has 1/T.

    >>> print(expert_soft_labels(jnp.log(jnp.array([9.0, 1.0])), temperature=2.0).round(4))
    [0.75 0.25]
    """
    return lax.stop_gradient(targets.temperature_softmax(logits, temperature=temperature))


def ensemble_soft_labels(
    logits: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    space: Literal["logits", "probabilities"] = "logits",
) -> jax.Array:
    """Return what several experts tell together, softmax(mean over m of z_m / T), `[..., C]`.

    No gradient flows through.

    Args:
      logits: `[M, ..., C]` finite floats of M experts.
      temperature: T > 0; may be traced.
      space: where the mean is taken; "probabilities" for the mean of softmax(z_m/T) instead.

    Raises:
      TypeError, ValueError: as `targets.temperature_softmax`; no axis of experts, an unknown space.

    Source: arXiv 2406.10485 for "logits"; the other mean is ours.

    >>> experts = jnp.log(jnp.array([[0.8, 0.2], [0.2, 0.8]]))
    >>> print(ensemble_soft_labels(experts))
    [0.5 0.5]
    """
    logits = jnp.asarray(logits)
    if logits.ndim < 2 or not len(logits):
        raise ValueError(f"logits: expected shape [M, ..., C], got {list(logits.shape)}")
    if space == "logits":
        return expert_soft_labels(logits.mean(axis=0), temperature=temperature)
    if space == "probabilities":
        return expert_soft_labels(logits, temperature=temperature).mean(axis=0)
    raise ValueError(f'space: expected "logits" or "probabilities", got {space!r}')


def swap_rank(soft_labels: ArrayLike, *, k: int) -> jax.Array:
    """Return the labels with the k-th largest entry and the smallest in each other's place.

    k = 1 takes the top class away; the larger k, the less is destroyed; k = C changes nothing.
    Among equals the lower class ranks first.

    Args:
      soft_labels: `[..., C]` finite floats.
      k: 1 … C.

    Raises:
      TypeError, ValueError: soft labels that are not finite floats, a k out of range.

    Source: arXiv 2406.10485, and its released code.

    >>> print(swap_rank(jnp.array([0.6, 0.3, 0.1]), k=1))
    [0.1 0.3 0.6]
    """
    soft_labels, order = _ranked(soft_labels, k)
    at_k, at_end = order[..., k - 1 : k], order[..., -1:]
    swapped = jnp.put_along_axis(
        soft_labels, at_k, _take(soft_labels, at_end), axis=-1, inplace=False
    )
    return jnp.put_along_axis(swapped, at_end, _take(soft_labels, at_k), axis=-1, inplace=False)


def keep_top_k(soft_labels: ArrayLike, *, k: int, renormalize: bool = False) -> jax.Array:
    """Return the labels with all but their k largest entries set to zero, `[..., C]`.

    Among equals the lower class is kept. Gradients flow through what is kept.

    Args:
      soft_labels: `[..., C]` finite floats.
      k: 1 … C.
      renormalize: divide each row by its sum; a row that sums to zero becomes uniform.

    Raises:
      TypeError, ValueError: soft labels that are not finite floats, a k out of range.

    Source: arXiv 2406.10485, and its released code, which does not renormalise.

    >>> print(keep_top_k(jnp.array([0.5, 0.3, 0.2]), k=2))
    [0.5 0.3 0. ]
    """
    soft_labels, order = _ranked(soft_labels, k)
    kept = jnp.put_along_axis(
        jnp.zeros(soft_labels.shape, bool), order[..., :k], True, axis=-1, inplace=False
    )
    return _renormalized(jnp.where(kept, soft_labels, 0), renormalize)


def remove_class(
    soft_labels: ArrayLike, hard_labels: ArrayLike, *, class_index: int, renormalize: bool = False
) -> jax.Array:
    """Return the labels with one class taken out of the rows of all others, `[..., C]`.

    Rows of the class itself stay as they are.

    Args:
      soft_labels: `[..., C]` finite floats.
      hard_labels: `[...]` integers, the classes that the images are of.
      class_index: the class, 0 … C − 1.
      renormalize: divide each row by its sum; a row that sums to zero becomes uniform.

    Raises:
      TypeError, ValueError: soft labels that are not finite floats, hard labels of another shape or
        out of range, a class out of range.

    Source: arXiv 2406.10485, and its released code, which does not renormalise.

    >>> labels = jnp.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])
    >>> print(remove_class(labels, jnp.array([0, 1]), class_index=0))
    [[0.5  0.25 0.25]
     [0.   0.5  0.25]]
    """
    soft_labels = jnp.asarray(soft_labels)
    _door.check_soft_labels(soft_labels)
    num_classes = soft_labels.shape[-1]
    _door.check_labels(
        "hard_labels", hard_labels, num_classes=num_classes, shape=soft_labels.shape[:-1]
    )
    _door.check_labels("class_index", np.asarray(class_index), num_classes=num_classes, shape=())
    others = jnp.asarray(hard_labels)[..., None] != class_index
    column = jnp.arange(num_classes) == class_index
    column = jnp.broadcast_to(column, soft_labels.shape)
    return _renormalized(jnp.where(others & column, 0, soft_labels), renormalize)


def truncated_cross_entropy(logits: ArrayLike, weights: ArrayLike) -> jax.Array:
    """Return −Σ_i q_i log p_i with entries q that need not sum to one, `[...]`.

    The gradient in the logits is (Σ_i q_i) p − q, so that a row with little mass teaches little.
    `losses.soft_cross_entropy` is the same for probabilities, and refuses all else.

    Args:
      logits: `[..., C]` floats; −∞ rules out a class, at no cost where its entry is 0.
      weights: `[..., C]` finite floats, 0 or more; a row of zeros costs nothing.

    Raises:
      TypeError, ValueError: arguments that are not floats or differ in shape, entries that are not
        finite or below 0.

    Source: arXiv 2406.10485 and its released code.

    >>> logits = jnp.log(jnp.array([0.5, 0.25, 0.25]))
    >>> print(f"{truncated_cross_entropy(logits, jnp.array([0.5, 0.0, 0.0])):.4f}")  # 0.5 log 2
    0.3466
    """
    logits, weights = jnp.asarray(logits), jnp.asarray(weights)
    for name, values in (("logits", logits), ("weights", weights)):
        _door.check_float(name, values)
        _door.check_classes(name, values)
    if weights.shape != logits.shape:
        raise ValueError(
            f"weights: expected the shape of the logits, {list(logits.shape)}, "
            f"got {list(weights.shape)}"
        )
    _door.check_finite("weights", weights)
    _door.check_at_least(0, weights=weights)
    return optax.losses.safe_softmax_cross_entropy(logits, weights)


def label_entropy(soft_labels: ArrayLike, *, eps: ArrayLike = 1e-10) -> jax.Array:
    """Return the entropy of the labels, −Σ_i q_i log(q_i + ε) in nats, `[...]`.

    Args:
      soft_labels: `[..., C]` probabilities.
      eps: ε, 0 or more; with 0, 0 log 0 = 0. The released code has 1e-10, 1e-6 and 0.

    Raises:
      TypeError, ValueError: rows that are no probabilities, ε below 0.

    Standard; ε as in the released code of arXiv 2406.10485.

    >>> print(f"{label_entropy(jnp.array([0.5, 0.5, 0.0])):.4f}")  # log 2
    0.6931
    """
    soft_labels = jnp.asarray(soft_labels)
    _check_probabilities(soft_labels)
    _door.check_at_least(0, eps=eps)
    inside = soft_labels > 0
    return -(soft_labels * jnp.log(jnp.where(inside, soft_labels + eps, 1))).sum(axis=-1)


def class_confusion(
    soft_labels: ArrayLike,
    hard_labels: ArrayLike,
    *,
    fill_diagonal: float | None = float("nan"),
) -> jax.Array:
    """Return the mean label of the images of each class, `[C, C]`; row i is of true class i.

    Args:
      soft_labels: `[N, C]` probabilities.
      hard_labels: `[N]` integers, the true classes; a class without images has a row of NaN.
      fill_diagonal: what stands on the diagonal, NaN by default; None for the mean itself.

    Raises:
      TypeError, ValueError: rows that are no probabilities, labels of another shape or range.

    Source: arXiv 2406.10485 and its released code. The least of the diagonal's lead in a row is μ,
    `indicators.mean_label_margin`.

    >>> labels = jnp.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> print(class_confusion(labels, jnp.array([0, 0, 1]), fill_diagonal=None))
    [[0.75  0.125 0.125]
     [0.    1.    0.   ]
     [  nan   nan   nan]]
    """
    soft_labels, hard_labels = _checked_rows(soft_labels, hard_labels)
    num_classes = soft_labels.shape[1]
    sums = jax.ops.segment_sum(soft_labels, hard_labels, num_classes)
    counts = jnp.bincount(hard_labels, length=num_classes)[:, None]
    means = jnp.where(counts > 0, sums / jnp.maximum(counts, 1), jnp.nan)
    if fill_diagonal is None:
        return means
    return jnp.where(jnp.eye(num_classes, dtype=bool), fill_diagonal, means)


def label_difficulty(
    soft_labels: ArrayLike, hard_labels: ArrayLike, *, double_softmax: bool = False
) -> jax.Array:
    """Return how hard the expert found each image, −log q_y, `[N]`.

    Args:
      soft_labels: `[N, C]` probabilities.
      hard_labels: `[N]` integers, the true classes y.
      double_softmax: log Σ_i exp(q_i) − q_y instead, which is what the released selection script
        computes, by a softmax of probabilities. It orders images in another way.

    Raises:
      TypeError, ValueError: rows that are no probabilities, labels of another shape or range.

    Source: the quantity that arXiv 2406.10485 intends; the other is its released code's.

    >>> print(label_difficulty(jnp.array([[0.5, 0.5]]), jnp.array([1])))  # log 2
    [0.6931472]
    """
    soft_labels, hard_labels = _checked_rows(soft_labels, hard_labels)
    of_truth = _take(soft_labels, hard_labels[:, None])[:, 0]
    if double_softmax:
        return jax.nn.logsumexp(soft_labels, axis=1) - of_truth
    return -jnp.log(of_truth)


def difficulty_bins(
    difficulty: ArrayLike,
    hard_labels: ArrayLike,
    *,
    num_classes: int,
    num_bins: int = 10,
    include_max: bool = False,
) -> jax.Array:
    """Return which of the equal shares of its class each image lies in, `[N]` integers from 0.

    The edges are quantiles 0, 1/n, …, 1 of the class (linear between images); share s holds
    edge_s ≤ difficulty < edge_s+1. So the hardest image of a class is in none: −1.

    Args:
      difficulty: `[N]` numbers, not NaN.
      hard_labels: `[N]` integers, the classes.
      num_classes: C.
      num_bins: n, 1 or more.
      include_max: put the hardest images into the last share instead.

    Raises:
      TypeError, ValueError: difficulties that are no floats or NaN, labels of another shape or out
        of range, numbers out of range.

    Source: the released code of arXiv 2406.10485; `include_max` is ours.

    >>> print(difficulty_bins(jnp.arange(4.0), jnp.zeros(4, int), num_classes=2, num_bins=2))
    [ 0  0  1 -1]
    """
    difficulty = jnp.asarray(difficulty)
    _door.check_float("difficulty", difficulty)
    if difficulty.ndim != 1 or not len(difficulty):
        raise ValueError(f"difficulty: expected shape [N], got {list(difficulty.shape)}")
    if _door.is_concrete(difficulty) and np.isnan(np.asarray(difficulty)).any():
        raise ValueError("difficulty: expected numbers, got NaN")
    _door.check_whole(2, num_classes=num_classes)
    _door.check_whole(1, num_bins=num_bins)
    _door.check_labels("hard_labels", hard_labels, num_classes=num_classes, shape=difficulty.shape)
    hard_labels = jnp.asarray(hard_labels)
    shares = jnp.linspace(0, 1, num_bins + 1, dtype=difficulty.dtype)

    def edges_of(label: jax.Array) -> jax.Array:
        return jnp.nanquantile(jnp.where(hard_labels == label, difficulty, jnp.nan), shares)

    edges = jax.vmap(edges_of)(jnp.arange(num_classes))[hard_labels]
    share = (difficulty[:, None] >= edges).sum(axis=1, dtype=jnp.int32) - 1
    return jnp.where(share < num_bins, share, num_bins - 1 if include_max else -1)


def pareto_front(cost: ArrayLike, value: ArrayLike) -> jax.Array:
    """Return which points no other beats, booleans `[N]`.

    A point is beaten by one that costs no more and is worth no less, one of the two strictly.

    Args:
      cost: `[N]` numbers, not NaN; less is better.
      value: `[N]` numbers, not NaN; more is better.

    Raises:
      ValueError: other shapes, NaN.

    Reconstructed: arXiv 2406.10485 draws such a front; the rule is the usual one.

    >>> print(pareto_front(jnp.array([1.0, 2.0, 2.0]), jnp.array([0.5, 0.7, 0.6])))
    [ True  True False]
    """
    cost, value = jnp.asarray(cost), jnp.asarray(value)
    for name, values in (("cost", cost), ("value", value)):
        if values.ndim != 1 or values.shape != cost.shape or not len(values):
            raise ValueError(f"{name}: expected shape [N], the same for both, got {values.shape}")
        if _door.is_concrete(values) and np.isnan(np.asarray(values)).any():
            raise ValueError(f"{name}: expected numbers, got NaN")
    no_dearer = cost[:, None] <= cost[None]  # by the first, of the second
    no_worse = value[:, None] >= value[None]
    better = (cost[:, None] < cost[None]) | (value[:, None] > value[None])
    return ~(no_dearer & no_worse & better).any(axis=0)


def random_subset(
    hard_labels: ArrayLike, key: jax.Array, *, num_classes: int, per_class: int
) -> jax.Array:
    """Return the rows of random images, so many of each class, `[C · per_class]`, class by class.

    Args:
      hard_labels: `[N]` integers, the classes.
      key: random key.
      num_classes: C.
      per_class: images of each class, without replacement.

    Raises:
      TypeError, ValueError: labels that are not integers in range; a class with fewer images, where
        labels are not traced.

    Source: random real images as in arXiv 2406.10485.

    >>> labels = jnp.array([0, 1, 0, 1, 1])
    >>> rows = random_subset(labels, jax.random.key(0), num_classes=2, per_class=2)
    >>> print(labels[rows])
    [0 0 1 1]
    """
    _door.check_whole(2, num_classes=num_classes)
    _door.check_whole(1, per_class=per_class)
    _door.check_labels("hard_labels", hard_labels, num_classes=num_classes)
    if np.ndim(hard_labels) != 1 or np.shape(hard_labels)[0] < per_class:
        raise ValueError(
            f"hard_labels: expected shape [N] with N ≥ {per_class}, got "
            f"{list(np.shape(hard_labels))}"
        )
    if _door.is_concrete(hard_labels):
        counts = np.bincount(np.asarray(hard_labels), minlength=num_classes)
        if counts.min() < per_class:
            raise ValueError(
                f"per_class: expected no more than the images of class {counts.argmin()}, "
                f"{counts.min()}, got {per_class}"
            )
    hard_labels = jnp.asarray(hard_labels)
    drawn = jax.random.uniform(key, hard_labels.shape)

    def of_class(label: jax.Array) -> jax.Array:
        return lax.top_k(jnp.where(hard_labels == label, drawn, -1), per_class)[1]

    return jax.vmap(of_class)(jnp.arange(num_classes)).reshape(-1)


def _take(values: jax.Array, index: jax.Array) -> jax.Array:
    return jnp.take_along_axis(values, index, axis=-1)


def _ranked(soft_labels: ArrayLike, k: int) -> tuple[jax.Array, jax.Array]:
    """Return the labels, checked, and their classes from the largest entry to the smallest."""
    soft_labels = jnp.asarray(soft_labels)
    _door.check_soft_labels(soft_labels)
    _door.check_whole(1, k=k)
    if k > soft_labels.shape[-1]:
        raise ValueError(f"k: expected 1 … {soft_labels.shape[-1]}, the classes, got {k}")
    return soft_labels, jnp.argsort(soft_labels, axis=-1, descending=True, stable=True)


def _renormalized(soft_labels: jax.Array, renormalize: bool) -> jax.Array:
    if not renormalize:
        return soft_labels
    sums = soft_labels.sum(axis=-1, keepdims=True)
    return jnp.where(
        sums > 0, soft_labels / jnp.where(sums > 0, sums, 1), 1 / soft_labels.shape[-1]
    )


def _check_probabilities(soft_labels: jax.Array, ndim: int | None = None) -> None:
    _door.check_float("soft_labels", soft_labels)
    _door.check_classes("soft_labels", soft_labels, ndim)
    _door.check_probabilities("soft_labels", soft_labels)


def _checked_rows(soft_labels: ArrayLike, hard_labels: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Return soft labels `[N, C]` and their classes, checked."""
    soft_labels = jnp.asarray(soft_labels)
    _check_probabilities(soft_labels, ndim=2)
    _door.check_labels(
        "hard_labels",
        hard_labels,
        num_classes=soft_labels.shape[1],
        shape=soft_labels.shape[:1],
    )
    return soft_labels, jnp.asarray(hard_labels)
