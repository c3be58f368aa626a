"""What images made to stand for a class are matched to: its statistics in the layers of a teacher.

A frozen teacher is shown real images once; at the input of every normalisation its activations
`[B, H, W, D]` have a mean and a variance for each class. Images that start as noise are then moved
until theirs agree, one class at a time. Images of one class made together differ more from each
other than images made each by itself, which is what few labels need.

Source: Xiao & He (NeurIPS 2024, arXiv 2410.15919) and its released code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jsoft import _door


class Statistics(NamedTuple):
    """Mean and variance of activations by class, `[C, D]` each."""

    mean: jax.Array
    variance: jax.Array


def init_statistics(num_classes: int, num_features: int) -> Statistics:
    """Return statistics that have seen nothing: mean 0 and variance 1, `[C, D]`.

    Args:
      num_classes: C.
      num_features: D.

    Raises:
      TypeError, ValueError: numbers below 2 and below 1.

    Source: the released code of arXiv 2410.15919. Classes seen rarely stay biased towards this.

    >>> init_statistics(3, 5).mean.shape
    (3, 5)
    """
    _door.check_whole(2, num_classes=num_classes)
    _door.check_whole(1, num_features=num_features)
    shape = (num_classes, num_features)
    return Statistics(jnp.zeros(shape), jnp.ones(shape))


def update_statistics(
    statistics: Statistics,
    features: ArrayLike,
    labels: ArrayLike,
    *,
    momentum: ArrayLike = 0.1,
) -> Statistics:
    """Return the statistics moved towards those of a batch, (1 − m) old + m new, by class.

    New are mean and (biased) variance over the images of the class and their pixels; a class that
    the batch lacks keeps what it had.

    Args:
      statistics: of `init_statistics`, or as returned here.
      features: `[B, ..., D]` floats, activations before a normalisation.
      labels: `[B]` integers, the classes of the images.
      momentum: m in [0, 1]; may be traced. With 1 they are those of the batch.

    Raises:
      TypeError, ValueError: features that are no floats or of other widths, labels of another
        shape or out of range, a momentum out of range.

    Source: the released code of arXiv 2410.15919. With about one image of a class in a batch, the
    variance is that within an image.

    >>> seen = update_statistics(
    ...     init_statistics(2, 1), jnp.array([[1.0], [3.0]]), jnp.array([0, 0]), momentum=1.0)
    >>> print(seen.mean.ravel(), seen.variance.ravel())
    [2. 0.] [1. 1.]
    """
    features = _checked_features("features", features)
    num_classes, width = statistics.mean.shape
    if features.shape[-1] != width:
        raise ValueError(f"features: expected {width} on the last axis, got {features.shape[-1]}")
    _door.check_labels("labels", labels, num_classes=num_classes, shape=features.shape[:1])
    _door.check_scalar(momentum=momentum)
    _door.check_levels(momentum=momentum)
    labels = jnp.asarray(labels)
    pixels = features.reshape(len(features), -1, width).astype(statistics.mean.dtype)

    def by_class(values: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(values.sum(axis=1), labels, num_classes)

    counts = (jnp.bincount(labels, length=num_classes) * pixels.shape[1])[:, None]
    mean = by_class(pixels) / jnp.maximum(counts, 1)
    variance = by_class(jnp.square(pixels - mean[labels][:, None])) / jnp.maximum(counts, 1)

    def moved(old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.where(counts > 0, (1 - momentum) * old + momentum * new, old)

    return Statistics(moved(statistics.mean, mean), moved(statistics.variance, variance))


def statistics_loss(
    features: Sequence[Any],
    references: Sequence[Statistics],
    *,
    layer_weights: Sequence[float] | None = None,
) -> jax.Array:
    """Return how far a batch's statistics are from those to be met, `[]`.

        Σ_l w_l (‖v_l − var(h_l)‖₂ + ‖m_l − mean(h_l)‖₂),  biased variances

    Args:
      features: activations by layer, h_l `[B, ..., D_l]` floats.
      references: by layer, `[D_l]` each: those of one class, or of all data.
      layer_weights: w_l, by default 10 for the first layer and 1 for the others.

    Raises:
      TypeError, ValueError: lists of other lengths, activations that are no floats, statistics of
        other widths.

    Source: the released code of arXiv 2410.15919. A norm has no slope at 0; 10⁻¹² inside the root
    gives it one.

    >>> reference = Statistics(jnp.array([1.0]), jnp.array([1.0]))
    >>> loss = statistics_loss([jnp.array([[1.0], [3.0]])], [reference], layer_weights=[1.0])
    >>> print(f"{loss:.4f}")  # the mean is off by 1
    1.0000
    """
    weights = [10.0, *[1.0] * (len(features) - 1)] if layer_weights is None else layer_weights
    if not features or len(references) != len(features) or len(weights) != len(features):
        raise ValueError(
            f"references, layer_weights: expected one for each of {len(features)} layers, one or "
            f"more, got {len(references)} and {len(weights)}"
        )
    total = jnp.zeros(())
    for activations, reference, weight in zip(features, references, weights, strict=True):
        values = _checked_features("features", activations)
        if reference.mean.shape != values.shape[-1:]:
            raise ValueError(
                f"references: expected shape {list(values.shape[-1:])}, that of the last axis, got "
                f"{list(reference.mean.shape)}"
            )
        rows = values.reshape(-1, values.shape[-1])
        off = _norm(reference.variance - rows.var(axis=0)) + _norm(
            reference.mean - rows.mean(axis=0)
        )
        total = total + weight * off
    return total


def total_variation(images: ArrayLike, *, norm: Literal[1, 2] = 1) -> jax.Array:
    """Return how rough images are along four directions: right, down and both diagonals, `[]`.

    The sum over directions of the mean absolute difference of neighbours (norm 1), or of the root
    of the sum of squared differences (norm 2), over the whole batch.

    Args:
      images: `[B, H, W, channels]` floats.
      norm: 1 or 2.

    Raises:
      TypeError, ValueError: images that are no floats or of another shape, another norm.

    Source: the released code of arXiv 2410.15919, where it is not used for ImageNet.

    >>> print(total_variation(jnp.array([[0.0, 1.0], [0.0, 1.0]]).reshape(1, 2, 2, 1)))
    3.0
    """
    images = jnp.asarray(images)
    _door.check_float("images", images)
    if images.ndim != 4:
        raise ValueError(f"images: expected shape [B, H, W, channels], got {list(images.shape)}")
    differences = (
        images[:, :, :-1] - images[:, :, 1:],
        images[:, :-1] - images[:, 1:],
        images[:, :-1, :-1] - images[:, 1:, 1:],
        images[:, 1:, :-1] - images[:, :-1, 1:],
    )
    if norm == 1:
        return sum((jnp.abs(one).mean() for one in differences), start=jnp.zeros(()))
    if norm == 2:
        return sum((_norm(one.ravel()) for one in differences), start=jnp.zeros(()))
    raise ValueError(f"norm: expected 1 or 2, got {norm!r}")


def clip_to_range(images: ArrayLike, mean: ArrayLike, deviation: ArrayLike) -> jax.Array:
    """Return normalised images cut to what images in [0, 1] become, −μ/σ … (1 − μ)/σ by channel.

    Args:
      images: `[..., channels]` floats.
      mean: `[channels]` floats, μ.
      deviation: `[channels]` floats above 0, σ.

    Raises:
      TypeError, ValueError: images that are no floats; tables of another shape, deviations not
        above 0.

    Source: the released code of arXiv 2410.15919.

    >>> print(clip_to_range(jnp.array([-9.0]), jnp.array([0.5]), jnp.array([0.25])))
    [-2.]
    """
    images, mean, deviation = map(jnp.asarray, (images, mean, deviation))
    _door.check_float("images", images)
    for name, table in (("mean", mean), ("deviation", deviation)):
        if table.shape != images.shape[-1:]:
            raise ValueError(
                f"{name}: expected shape {list(images.shape[-1:])}, one for each channel, got "
                f"{list(table.shape)}"
            )
    _door.check_positive(deviation=deviation)

    def limit(value: float) -> jax.Array:
        return jnp.broadcast_to((value - mean) / deviation, images.shape)

    return jnp.clip(images, limit(0.0), limit(1.0))


def within_class_cosine(features: ArrayLike, labels: ArrayLike, *, num_classes: int) -> jax.Array:
    """Return how alike the images of each class are, the mean cosine of their pairs, `[C]`.

    Args:
      features: `[N, D]` floats; a row of zeros is like nothing.
      labels: `[N]` integers, the classes; NaN is returned for one with fewer than two images.
      num_classes: C.

    Raises:
      TypeError, ValueError: features that are no floats or of another shape, labels of another
        shape or out of range.

    Source: arXiv 2410.15919, which measures diversity so.

    >>> features = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    >>> print(within_class_cosine(features, jnp.array([0, 0, 1, 1]), num_classes=2))
    [1. 0.]
    """
    features, labels = _checked_rows("features", features, "labels", labels, num_classes)
    length = jnp.linalg.norm(features, axis=1, keepdims=True)
    unit = jnp.where(length > 0, features / jnp.where(length > 0, length, 1), 0)
    counts = jnp.bincount(labels, length=num_classes)
    # The square of the sum holds every pair twice, and each row with itself.
    squared = jnp.square(jax.ops.segment_sum(unit, labels, num_classes)).sum(axis=1)
    selves = jax.ops.segment_sum(jnp.square(unit).sum(axis=1), labels, num_classes)
    pairs = counts * (counts - 1)
    return jnp.where(pairs > 0, (squared - selves) / jnp.maximum(pairs, 1), jnp.nan)


def class_mmd(
    features: ArrayLike,
    labels: ArrayLike,
    reference_features: ArrayLike,
    reference_labels: ArrayLike,
    *,
    num_classes: int,
    bandwidth: ArrayLike,
) -> jax.Array:
    """Return the maximum mean discrepancy of each class from that of reference images, `[C]`.

        √(mean k(x, x′) + mean k(r, r′) − 2 mean k(x, r)),  k(a, b) = exp(−‖a − b‖²/(2 h²))

    over all pairs of the class, each with itself too.

    Args:
      features: `[N, D]` floats.
      labels: `[N]` integers, their classes.
      reference_features: `[M, D]` floats.
      reference_labels: `[M]` integers, their classes; NaN is returned for a class that either side
        lacks.
      num_classes: C.
      bandwidth: h > 0; may be traced.

    Raises:
      TypeError, ValueError: features that are no floats or of other shapes, labels of another shape
        or out of range, a bandwidth not above 0.

    Reconstructed: arXiv 2410.15919 names the measure; kernel and estimate (Gretton et al., JMLR
    2012, biased) are ours.

    >>> one, two = jnp.zeros((2, 1)), jnp.full((2, 1), 9.0)
    >>> labels = jnp.array([0, 1])
    >>> print(class_mmd(one, labels, two, labels, num_classes=2, bandwidth=1.0).round(4))
    [1.4142 1.4142]
    """
    first, of_first = _checked_rows("features", features, "labels", labels, num_classes)
    other, of_other = _checked_rows(
        "reference_features", reference_features, "reference_labels", reference_labels, num_classes
    )
    if first.shape[1] != other.shape[1]:
        raise ValueError(
            f"reference_features: expected {first.shape[1]} columns, got {other.shape[1]}"
        )
    _door.check_scalar(bandwidth=bandwidth)
    _door.check_positive(bandwidth=bandwidth)

    def mean(x: jax.Array, of_x: jax.Array, y: jax.Array, of_y: jax.Array) -> jax.Array:
        """Return the mean kernel of the pairs of each class, NaN where there are none."""
        squares = jnp.square(x).sum(axis=1)[:, None] + jnp.square(y).sum(axis=1)[None] - 2 * x @ y.T
        kernel = jnp.exp(-jnp.maximum(squares, 0) / (2 * jnp.square(bandwidth)))
        is_x, is_y = (jax.nn.one_hot(labels, num_classes) for labels in (of_x, of_y))
        return jnp.einsum("nc,nm,mc->c", is_x, kernel, is_y) / (is_x.sum(axis=0) * is_y.sum(axis=0))

    squared = mean(first, of_first, first, of_first) + mean(other, of_other, other, of_other)
    return jnp.sqrt(jnp.maximum(squared - 2 * mean(first, of_first, other, of_other), 0))


def _norm(values: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.square(values).sum() + 1e-12)


def _checked_features(name: str, features: ArrayLike) -> jax.Array:
    features = jnp.asarray(features)
    _door.check_float(name, features)
    if features.ndim < 2 or not features.size:
        raise ValueError(f"{name}: expected shape [B, ..., D], got {list(np.shape(features))}")
    return features


def _checked_rows(
    name: str, features: ArrayLike, labels_name: str, labels: ArrayLike, num_classes: int
) -> tuple[jax.Array, jax.Array]:
    features = _checked_features(name, features)
    if features.ndim != 2:
        raise ValueError(f"{name}: expected shape [N, D], got {list(features.shape)}")
    _door.check_whole(2, num_classes=num_classes)
    _door.check_labels(labels_name, labels, num_classes=num_classes, shape=features.shape[:1])
    return features, jnp.asarray(labels)
