"""Losses over regions for soft labels of pixels, labels smoothed at boundaries, and measures.

For one class, with x the predicted and y the target values of the pixels, in [0, 1], the usual soft
Jaccard loss takes the product for the intersection. That is right where y is 0 or 1 and wrong
elsewhere: one pixel with y = 0.5 would best be predicted by 1. The Jaccard metric loss of Wang,
Ning & Blaschko (NeurIPS 2023, arXiv 2302.05666), 1 − Σ min(x, y) / Σ max(x, y), is the same for
hard labels, 0 exactly where x = y, and a metric; `jdt_loss` is the family around it.

Shapes: B images, spatial axes S, C classes last; logits and soft labels `[B, *S, C]`, hard labels
integers `[B, *S]`. Pixels are left out by `where`, True where a pixel counts, and in no other way:
no label means "ignore". What a pixel that is left out holds, be it NaN, does not matter. A region
has no loss per pixel: losses are one number; the table `[B, C]` behind `jdt_loss` is the
`tversky_index` of `soft_confusion`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jsoft import _door, losses, targets

Active = Literal["present", "all"]
Axis = int | tuple[int, ...]
Parts = tuple[jax.Array, jax.Array, jax.Array]


def soft_confusion(
    probs: ArrayLike, labels: ArrayLike, *, where: Any = None, norm: int = 1, axis: Axis = -2
) -> Parts:
    """Return soft true positives, false positives and false negatives of every class, `[..., C]`.

        tp = Σ (pʳ + qʳ − |p − q|ʳ)/2,   fp = Σ pʳ − tp,   fn = Σ qʳ − tp

    over pixels. At r = 1: Σ min(p, q), Σ max(p − q, 0), Σ max(q − p, 0); at r = 2, tp = Σ p q.

    Args:
      probs: p, `[..., n, C]` floats.
      labels: q, `[..., n, C]` floats.
      where: `[..., n]` booleans, the pixels that count (all by default; sums over none are 0).
      norm: r, a whole number, 1 or more.
      axis: the axis or axes of pixels.

    Raises:
      TypeError, ValueError: arguments that are not floats of one shape; a mask of another shape or
        dtype; a norm below one.

    Source: arXiv 2302.05666 and 2310.19252, released code; summed in float32 or wider.

    >>> probs = jnp.array([[0.75, 0.25], [0.5, 0.5]])
    >>> tp, fp, fn = soft_confusion(probs, jnp.array([[1.0, 0.0], [0.25, 0.75]]))
    >>> print(tp, fp, fn)
    [1.  0.5] [0.25 0.25] [0.25 0.25]
    """
    probs, labels = _pair("probs", probs, "labels", labels)
    _door.check_classes("probs", probs)
    _door.check_whole(1, norm=norm)
    mask = _mask(where, probs.shape[:-1])[..., None]
    shared, over, under = (
        part.sum(axis=axis, where=mask) for part in _compared(probs, labels, norm)
    )
    return shared, over, under


def _compared(x: jax.Array, y: jax.Array, norm: int) -> Parts:
    """Return what x and y share, what x has too much and what it lacks, entry by entry."""
    if norm == 1:
        shared = jnp.minimum(x, y)
    else:  # powers of entries: a norm, then raised, would have no slope at 0
        shared = (x**norm + y**norm - jnp.abs(x - y) ** norm) / 2
    return shared, x**norm - shared, y**norm - shared


def tversky_index(
    tp: ArrayLike,
    fp: ArrayLike,
    fn: ArrayLike,
    *,
    alpha: ArrayLike = 1.0,
    beta: ArrayLike = 1.0,
    smooth: ArrayLike = 0.0,
) -> jax.Array:
    """Return (tp + s) / (tp + α fp + β fn + s), of the shape of the arguments; 1 for 0/0.

    The Jaccard index at α = β = 1, the Dice score at 1/2.

    Args:
      tp: true positives, of any shape, soft or counted.
      fp: false positives, of the same shape.
      fn: false negatives, of the same shape.
      alpha: α, what a false positive weighs, 0 or more; may be traced, as the next two.
      beta: β, what a false negative weighs, 0 or more.
      smooth: s, 0 or more.

    Raises:
      ValueError: arguments of different shapes; α, β or s below 0, or not one number.

    Source: Tversky, "Features of similarity" (Psychological Review 84, 1977), smoothed as in the
    released code; an empty class has lost nothing (derived here; the released code gives NaN).

    >>> print(tversky_index(2.0, 1.0, 1.0), tversky_index(1.0, 1.0, 1.0, alpha=0.5, beta=0.5))
    0.5 0.5
    """
    tp, fp, fn = _same_shapes(tp, fp, fn)
    _door.check_scalar(alpha=alpha, beta=beta, smooth=smooth)
    _door.check_at_least(0, alpha=alpha, beta=beta, smooth=smooth)
    return _ratio(tp + smooth, tp + alpha * fp + beta * fn + smooth)


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """Return the quotient, 1 without a slope where the divisor is 0."""
    empty = whole == 0
    return jnp.where(empty, 1, part / jnp.where(empty, 1, whole))


def jdt_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: Sequence[ArrayLike] = (1.0, 0.0, 0.0),
    alpha: ArrayLike = 1.0,
    beta: ArrayLike = 1.0,
    gamma: float = 1.0,
    smooth: ArrayLike = 1e-3,
    threshold: ArrayLike = 0.01,
    norm: int = 1,
    log_loss: bool = False,
    class_weights: ArrayLike | None = None,
    active: Active = "present",
) -> jax.Array:
    """Return the Jaccard, Dice or Tversky loss of softmax(z) against hard or soft labels, `[]`.

    With t the Tversky index of a region, its loss is (1 − t)^γ, or (−log t)^γ, times the weight of
    its class. Three means of it, over what is active, are added up; a mean over nothing is 0:

        D   tp, fp, fn summed over the batch, then the mean over classes
        I   of every image the mean over its classes, then over images: small images count
        C   of every class the mean over the images that have it, then over classes

    Args:
      logits: z, `[B, *S, C]` floats; −∞ rules out a class.
      labels: `[B, *S]` integers, or `[B, *S, C]` probabilities, through which gradients flow.
      where: `[B, *S]` booleans, the pixels that count (all by default); the loss of none is 0.
      weights: of D, I and C, 0 or more each; a part whose weight is plainly 0 is left out.
      alpha: what a false positive weighs, 0 or more: 1 for Jaccard, 0.5 for Dice. May be traced.
      beta: what a false negative weighs; may be traced.
      gamma: γ, 1 or more: above 1, regions that are badly predicted weigh more.
      smooth: s of `tversky_index`, in pixels; may be traced. The released configurations train
        with 1; 0.001 is another loss where classes are small.
      threshold: a class is present in an image if a label of it exceeds this. It has to exceed the
        ε/C of smoothed labels, or all classes are present at every boundary. May be traced.
      norm: r of `soft_confusion`: 1 makes a metric, 2 is the squared form.
      log_loss: −log t in the place of 1 − t; infinite at t = 0 (no overlap and no smoothing).
      class_weights: `[C]`, 0 or more; means still divide by the number of active classes.
      active: the classes that count: "present" in the labels, or "all". The released code takes
        "all" for soft labels, so that absent classes, pushed to 0, outweigh the others.

    Raises:
      TypeError, ValueError: logits that are not floats `[B, *S, C]`; labels of another shape,
        outside 0 … C − 1 (the released code moves those to the nearest class) or, if soft, no
        probabilities, where they count; a mask of another shape or dtype; options out of range.

    Source: arXiv 2302.05666 (Jaccard), 2303.16296 (Dice), 2310.19252 (D, I, C); released code.

    >>> labels = jnp.array([[[1.0, 0.0], [0.25, 0.75]]])  # one image of two pixels
    >>> logits = jnp.log(jnp.array([[[0.75, 0.25], [0.5, 0.5]]]))
    >>> print(f"{jdt_loss(logits, labels, smooth=0):.4f}")  # mean of 1 − 1/1.5 and 1 − 0.5/1
    0.4167
    """
    logits, labels, mask = _checked("logits", logits, labels, where)
    class_weights = jnp.ones(logits.shape[-1:]) if class_weights is None else class_weights
    class_weights = _shaped("class_weights", jnp.asarray(class_weights), logits.shape[-1:])
    _door.check_at_least(0, class_weights=class_weights)
    if len(weights) != 3:
        raise ValueError(f"weights: expected three numbers, of D, I and C, got {weights!r}")
    for weight in weights:
        _door.check_scalar(weights=weight)
        _door.check_at_least(0, weights=weight)
    _door.check_scalar(gamma=gamma, threshold=threshold)
    _door.check_at_least(1, gamma=gamma)
    _door.check_levels(threshold=threshold)
    if active not in ("present", "all"):
        raise ValueError(f'active: expected "present" or "all", got {active!r}')

    pixels = tuple(range(1, logits.ndim - 1))
    confusion = soft_confusion(jax.nn.softmax(logits), labels, where=mask, norm=norm, axis=pixels)
    present = jnp.where(mask[..., None], labels, 0).max(axis=pixels) > threshold  # [B, C]
    present |= active == "all"

    def of_regions(confusion: Sequence[jax.Array], present: jax.Array) -> jax.Array:
        index = tversky_index(*confusion, alpha=alpha, beta=beta, smooth=smooth)
        # Not even an infinity of what is absent is to reach the value or the gradient.
        index = jnp.where(present, index, 1)
        loss = -jnp.log(index) if log_loss else 1 - index
        if gamma > 1:
            loss = jnp.maximum(loss, 0) ** gamma  # rounding may have taken it below 0
        return loss * jnp.broadcast_to(class_weights, loss.shape)

    def of_batch() -> jax.Array:
        anywhere = present.any(axis=0)
        return _mean_present(of_regions([x.sum(axis=0) for x in confusion], anywhere), anywhere)[0]

    def first_over(axis: int) -> jax.Array:
        return _mean_present(*_mean_present(of_regions(confusion, present), present, axis))[0]

    means = (of_batch, functools.partial(first_over, 1), functools.partial(first_over, 0))
    total = jnp.zeros((), logits.dtype)
    for weight, mean in zip(weights, means, strict=True):
        if not _door.is_concrete(weight) or weight != 0:
            total += weight * mean()
    return total


def _mean_present(values: jax.Array, present: jax.Array, axis: int = 0) -> Any:
    """Return the mean of what is present along an axis, 0 where nothing is, and where any is."""
    mean = values.sum(axis=axis, where=present) / jnp.maximum(present.sum(axis=axis), 1)
    return mean, present.any(axis=axis)


def jaccard_metric_loss(
    x: ArrayLike,
    y: ArrayLike,
    *,
    axis: Axis = -1,
    variant: Literal[1, 2] = 1,
    smooth: ArrayLike = 0.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return the Jaccard metric loss of x and y, one value for the axes that remain.

        variant 1   1 − (Σ min(x, y) + s) / (Σ max(x, y) + s)
        variant 2   1 − (Σ x y + s) / (Σ x y + Σ |x − y| + s)

    At s = 0 both are metrics on [0, 1]ⁿ; both are the soft Jaccard loss where y is 0 or 1. The
    loss of nothing against nothing is 0.

    Args:
      x: floats of any shape, 0 or more.
      y: floats of the same shape, 0 or more.
      axis: the axis or axes of pixels.
      variant: 1, that of `jdt_loss`, or 2.
      smooth: s, 0 or more; may be traced. The first release smoothed variant 1 by s/2.
      where: booleans of the shape of x, the pixels that count (all by default).

    Raises:
      TypeError, ValueError: arguments that are not floats of one shape, 0 or more; a mask of
        another shape or dtype; an unknown variant; s below 0.

    Source: arXiv 2302.05666 and its released code (variant 2: the first release alone).

    >>> x, y = jnp.array([0.5, 1.0]), jnp.array([1.0, 1.0])
    >>> print(jaccard_metric_loss(x, y), jaccard_metric_loss(x, x, variant=2))
    0.25 0.0
    """
    return _overlap_loss(x, y, 1.0, axis, variant, smooth, where)


def dice_semimetric_loss(
    x: ArrayLike,
    y: ArrayLike,
    *,
    axis: Axis = -1,
    variant: Literal[1, 2] = 1,
    smooth: ArrayLike = 0.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return the Dice semimetric loss of x and y, one value for the axes that remain.

        variant 1   1 − (Σ min(x, y) + s) / (Σ (x + y)/2 + s)
        variant 2   1 − (Σ x y + s) / (Σ x y + Σ |x − y|/2 + s)

    0 exactly where x = y, but the triangle inequality fails: a detour may be shorter.

    Args, raises: as `jaccard_metric_loss`. Source: arXiv 2303.16296 and its released code for
    variant 1; variant 2 is derived here from that of the Jaccard metric loss.

    >>> print(dice_semimetric_loss(jnp.array([0.5, 0.5]), jnp.array([1.0, 0.0])))
    0.5
    """
    return _overlap_loss(x, y, 0.5, axis, variant, smooth, where)


def _overlap_loss(
    x: Any, y: Any, error_weight: float, axis: Axis, variant: int, smooth: Any, where: Any
) -> jax.Array:
    """Return 1 − shared / (shared + weighted differences), of arguments that it checks."""
    x, y = _pair("x", x, "y", y)
    _door.check_scalar(smooth=smooth)
    _door.check_at_least(0, x=x, y=y, smooth=smooth)
    if variant not in (1, 2):
        raise ValueError(f"variant: expected 1 or 2, got {variant!r}")
    mask = _mask(where, x.shape)
    shared = jnp.minimum(x, y) if variant == 1 else x * y
    shared = shared.sum(axis=axis, where=mask) + smooth
    error = jnp.abs(x - y).sum(axis=axis, where=mask)
    return 1 - _ratio(shared, shared + error_weight * error)


def boundary_mask(labels: ArrayLike, *, kernel_size: int = 3, where: Any = None) -> jax.Array:
    """Return which pixels have another class in their neighbourhood, booleans `[..., H, W]`.

    The neighbourhood is the square of `kernel_size` pixels a side around a pixel, as far as it lies
    inside the image. A pixel whose neighbourhood holds one that is left out is no boundary.

    Args:
      labels: `[..., H, W]` integers.
      kernel_size: an odd whole number.
      where: `[..., H, W]` booleans, the pixels that count (all by default).

    Raises:
      TypeError, ValueError: labels that are not integers or have fewer than two axes; an even
        kernel; a mask of another shape or dtype.

    Source: boundary label smoothing of arXiv 2302.05666, released code.

    >>> print(boundary_mask(jnp.array([[0, 0, 0, 1]])))
    [[False False  True  True]]
    """
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels: expected integer class indices, got dtype {labels.dtype}")
    if labels.ndim < 2 or not labels.size:
        raise ValueError(f"labels: expected shape [..., H, W], got {list(labels.shape)}")
    _door.check_whole(1, kernel_size=kernel_size)
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size: expected an odd number, got {kernel_size}")
    window = (1,) * (labels.ndim - 2) + (kernel_size, kernel_size)

    def over_neighbours(values: jax.Array, start: Any, reduce: Any) -> jax.Array:
        return lax.reduce_window(values, start, reduce, window, (1,) * labels.ndim, "SAME")

    dtype, limits = labels.dtype.type, np.iinfo(labels.dtype)
    largest = over_neighbours(labels, dtype(limits.min), lax.max)
    smallest = over_neighbours(labels, dtype(limits.max), lax.min)
    mixed = largest != smallest
    if where is None:
        return mixed
    return mixed & over_neighbours(_mask(where, labels.shape), np.bool_(True), lax.bitwise_and)


def boundary_label_smoothing(
    labels: ArrayLike,
    num_classes: int,
    *,
    epsilon: ArrayLike,
    kernel_size: int = 3,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return labels that are smoothed at boundaries and one-hot elsewhere, `[..., H, W, C]`.

        (1 − ε) e_y + ε/C where `boundary_mask` holds, e_y elsewhere, 0 for pixels left out

    Below ε = 1 the true class stays on top and the others tie: Δ of the top-1 sets is 0, and only
    the mean label margin falls, to 1 − ε at boundaries (derived here).

    Args:
      labels: `[..., H, W]` integers.
      num_classes: C.
      epsilon: ε in [0, 1]; may be traced. The released code has 0.5; less is better where most
        pixels of a thing are boundary. Keep ε/C below the `threshold` of `jdt_loss`.
      kernel_size: an odd whole number.
      where: `[..., H, W]` booleans, the pixels that count (all by default).

    Raises:
      TypeError, ValueError: as `boundary_mask`; labels outside 0 … C − 1 where they count; ε
        outside [0, 1]; fewer than two classes.

    Source: arXiv 2302.05666, released code.

    >>> print(boundary_label_smoothing(jnp.array([[0, 0, 1]]), 2, epsilon=0.5)[0])
    [[1.   0.  ]
     [0.75 0.25]
     [0.25 0.75]]
    """
    boundary = boundary_mask(labels, kernel_size=kernel_size, where=where)
    _door.check_scalar(epsilon=epsilon)
    _door.check_levels(epsilon=epsilon)
    mask = _mask(where, boundary.shape)
    hard = _one_hot("labels", labels, num_classes, mask)
    soft = targets.smooth(hard, alpha=epsilon)
    return jnp.where(mask[..., None], jnp.where(boundary[..., None], soft, hard), 0)


def segmentation_distillation_loss(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    ce_weight: ArrayLike = 0.25,
    jdt_weight: ArrayLike = 0.75,
    label_weight: ArrayLike = 0.5,
    teacher_weight: ArrayLike = 0.5,
    temperature: ArrayLike = 1.0,
    teacher_active: Active = "present",
    **jdt: Any,
) -> jax.Array:
    """Return the loss of a student of labels and of a teacher at once, `[]`.

        a · mean over pixels of ( l · CE(z_s, y) + t · T² KL(q ‖ softmax(z_s/T)) )
          + b · ( l · JDT(z_s, y) + t · JDT(z_s, q) ),     q = softmax(z_t / T)

    JDT takes the student at temperature 1 whatever T is. No gradient reaches the teacher.

    Args:
      student_logits: z_s, `[B, *S, C]` floats.
      teacher_logits: z_t, of the same shape.
      labels: y, `[B, *S]` integers or `[B, *S, C]` probabilities.
      where: `[B, *S]` booleans, the pixels that count (all by default); the loss of none is 0.
      ce_weight: a, 0 or more; may be traced, as the next four.
      jdt_weight: b, 0 or more.
      label_weight: l, 0 or more.
      teacher_weight: t, 0 or more.
      temperature: T > 0.
      teacher_active: `active` of the loss against q; the released code has "all".
      **jdt: further options of both `jdt_loss`.

    Raises:
      TypeError, ValueError: as `jdt_loss`; logits of different shapes; teacher's that are not
        finite; a weight below 0; T of 0 or below.

    Source: arXiv 2302.05666, released code (without its auxiliary head, which halves a for both
    heads).

    >>> logits = jnp.zeros((1, 4, 2))
    >>> loss = segmentation_distillation_loss(logits, logits, jnp.array([[0, 0, 1, 1]]), smooth=0)
    >>> print(f"{loss:.4f}")  # 0.25 · 0.5 log 2 + 0.75 · 0.5 (1 − 1/3)
    0.3366
    """
    scales = {"ce_weight": ce_weight, "jdt_weight": jdt_weight}
    scales |= {"label_weight": label_weight, "teacher_weight": teacher_weight}
    _door.check_scalar(temperature=temperature, **scales)
    _door.check_at_least(0, **scales)
    student, hard, mask = _checked("student_logits", student_logits, labels, where)
    teacher = _shaped("teacher_logits", jnp.asarray(teacher_logits), student.shape)
    _door.check_float("teacher_logits", teacher)
    teacher = lax.stop_gradient(jnp.where(mask[..., None], teacher.astype(student.dtype), 0))
    soft = targets.temperature_softmax(teacher, temperature=temperature)

    per_pixel = label_weight * losses.soft_cross_entropy(student, hard)
    divergence = losses.kl_divergence(student / temperature, soft)
    per_pixel += teacher_weight * temperature**2 * divergence
    cross_entropy = per_pixel.sum(where=mask) / jnp.maximum(mask.sum(), 1)
    told_by_teacher: dict[str, Any] = {**jdt, "active": teacher_active}
    jaccard = label_weight * jdt_loss(student, hard, where=mask, **jdt)
    jaccard += teacher_weight * jdt_loss(student, soft, where=mask, **told_by_teacher)
    return jnp.asarray(ce_weight * cross_entropy + jdt_weight * jaccard)


def segmentation_counts(
    predictions: ArrayLike, labels: ArrayLike, num_classes: int, *, where: Any = None
) -> Parts:
    """Return true positives, false positives and false negatives, int32 `[B, C]` each.

    Args:
      predictions: `[B, *S]` integers, the predicted classes.
      labels: `[B, *S]` integers, the true classes.
      num_classes: C.
      where: `[B, *S]` booleans, the pixels that count (all by default).

    Raises:
      TypeError, ValueError: predictions or labels that are not integers of one shape or, where
        they count, outside 0 … C − 1; a mask of another shape or dtype.

    The usual counts.

    >>> tp, fp, fn = segmentation_counts(jnp.array([[0, 1, 1]]), jnp.array([[0, 0, 1]]), 2)
    >>> print(tp, fp, fn)
    [[1 1]] [[0 1]] [[1 0]]
    """
    shape = np.shape(labels)
    if len(shape) < 2:
        raise ValueError(f"labels: expected shape [B, *S], got {list(shape)}")
    mask = _mask(where, shape)
    predicted = _one_hot("predictions", predictions, num_classes, mask) > 0
    true = _one_hot("labels", labels, num_classes, mask) > 0

    def count(chosen: jax.Array) -> jax.Array:
        return (chosen & mask[..., None]).sum(axis=tuple(range(1, len(shape))), dtype=jnp.int32)

    return count(predicted & true), count(predicted & ~true), count(~predicted & true)


def mean_iou(
    tp: ArrayLike,
    fp: ArrayLike,
    fn: ArrayLike,
    *,
    kind: Literal["D", "I", "C"] = "D",
    quantile: int | None = None,
) -> jax.Array:
    """Return the mean intersection over union, a fraction of 1, `[]`.

    D, I and C as in `jdt_loss`. A class counts where labels name it: in the data set for D, in an
    image for I and C.

    Args:
      tp: `[N, C]` true positives of N images, as of `segmentation_counts`.
      fp: `[N, C]` false positives.
      fn: `[N, C]` false negatives.
      kind: "D", "I" or "C".
      quantile: per cent, a whole number in 1 … 100, for I and C: the mean over the worst images
        alone, for C the worst of every class, at least one. The paper's measure of worst cases is
        the mean over 10, 20, …, 100.

    Raises:
      ValueError: counts that are not `[N, C]` each, negative, or without any label; an unknown
        kind; a quantile out of range or of kind D.

    Source: arXiv 2310.19252, released code (NaN there where a class has no label).

    >>> tp, fp, fn = jnp.array([[[1, 1], [4, 0]], [[1, 0], [0, 0]], [[0, 1], [0, 0]]])
    >>> print([f"{mean_iou(tp, fp, fn, kind=kind):.3f}" for kind in "DIC"])
    ['0.667', '0.750', '0.625']
    """
    tp, fp, fn = _same_shapes(tp, fp, fn)
    if tp.ndim != 2:
        raise ValueError(f"tp: expected shape [N, C], got {list(tp.shape)}")
    _door.check_at_least(0, tp=tp, fp=fp, fn=fn)
    if _door.is_concrete(tp, fn) and not (np.asarray(tp) + np.asarray(fn)).any():
        raise ValueError("tp, fn: expected a class that some label names, got none")
    if kind not in ("D", "I", "C"):
        raise ValueError(f'kind: expected "D", "I" or "C", got {kind!r}')
    if quantile is not None:
        _door.check_whole(1, quantile=quantile)
        if kind == "D" or quantile > 100:
            raise ValueError(f"quantile: expected 1 … 100 of I or C, got {quantile} of {kind}")
    tp, fp, fn = (counts.astype(jnp.float32) for counts in (tp, fp, fn))
    present = tp + fn > 0
    if kind == "D":
        iou = tversky_index(tp.sum(axis=0), fp.sum(axis=0), fn.sum(axis=0))
        return _mean_present(iou, present.any(axis=0))[0]
    lowest = functools.partial(_mean_of_lowest, percent=100 if quantile is None else quantile)
    iou = tversky_index(tp, fp, fn)  # [N, C]
    if kind == "I":
        return lowest(*_mean_present(iou, present, axis=1))
    return _mean_present(jax.vmap(lowest, in_axes=1)(iou, present), present.any(axis=0))[0]


def _mean_of_lowest(values: jax.Array, present: jax.Array, percent: int) -> jax.Array:
    """Return the mean of the lowest values `[N]` among those that are present, one at least."""
    kept = jnp.arange(len(values)) < jnp.maximum(present.sum() * percent // 100, 1)
    return jnp.sort(jnp.where(present, values, jnp.inf)).mean(where=kept)


def segmentation_ece(
    probs: ArrayLike, labels: ArrayLike, *, num_bins: int = 10, where: Any = None
) -> jax.Array:
    """Return the expected calibration error over pixels, a fraction of 1, `[]`.

        Σ_b n_b/n |accuracy_b − confidence_b|

    over bins of equal width of the largest probability, each with its lower end, the last with 1.

    Args:
      probs: `[..., C]` probabilities.
      labels: `[...]` integers, the true classes.
      num_bins: number of bins.
      where: `[...]` booleans, the pixels that count (all by default).

    Raises:
      TypeError, ValueError: probabilities or labels of wrong dtype, shape or, where they count,
        range; no pixel left; no bins.

    Source: Guo et al., "On calibration of modern neural networks" (ICML 2017); bins as in the
    released code of arXiv 2302.05666.

    >>> probs = jnp.array([[0.75, 0.25], [0.75, 0.25]])
    >>> print(segmentation_ece(probs, jnp.array([0, 1])))  # |0.5 − 0.75|
    0.25
    """
    probs = jnp.asarray(probs)
    _door.check_float("probs", probs)
    _door.check_classes("probs", probs)
    _door.check_whole(1, num_bins=num_bins)
    mask = _mask(where, probs.shape[:-1])
    _door.check_where("where", mask, mask.shape)
    true = _one_hot("labels", labels, probs.shape[-1], mask).argmax(axis=-1)
    probs = jnp.where(mask[..., None], probs, 0).astype(jnp.float32)
    _door.check_levels(probs=probs)
    confidence = probs.max(axis=-1)
    bins = jnp.minimum((confidence * num_bins).astype(jnp.int32), num_bins - 1)
    # n_b (accuracy_b − confidence_b), as a sum over pixels of small terms of both signs.
    gaps = jnp.where(mask, (probs.argmax(axis=-1) == true) - confidence, 0)
    by_bin = jax.ops.segment_sum(gaps.ravel(), bins.ravel(), num_segments=num_bins)
    return jnp.abs(by_bin).sum() / mask.sum()


def _checked(name: str, logits: ArrayLike, labels: ArrayLike, where: ArrayLike | None) -> Parts:
    """Return logits, soft labels and mask, checked, in float32 or wider.

    Pixels that are left out get logits of 0 and class 0, so that what they held cannot spread.
    """
    logits = jnp.asarray(logits)
    _door.check_float(name, logits)
    _door.check_classes(name, logits)
    if logits.ndim < 3:
        raise ValueError(f"{name}: expected shape [B, *S, C], got {list(logits.shape)}")
    mask = _mask(where, logits.shape[:-1])
    if jnp.issubdtype(jnp.result_type(labels), jnp.floating):
        labels = _shaped("labels", jnp.asarray(labels), logits.shape)
        first = jnp.arange(logits.shape[-1]) == 0
        soft = jnp.where(mask[..., None], labels, jnp.broadcast_to(first, labels.shape))
        _door.check_probabilities("labels", soft)
    else:
        soft = _one_hot("labels", labels, logits.shape[-1], mask)
    wide = jnp.promote_types(logits.dtype, jnp.float32)
    return jnp.where(mask[..., None], logits, 0).astype(wide), soft.astype(wide), mask


def _one_hot(name: str, labels: ArrayLike, num_classes: int, mask: jax.Array) -> jax.Array:
    """Return checked labels of the mask's shape as one-hot rows; class 0 where left out."""
    _door.check_whole(2, num_classes=num_classes)
    _door.check_labels(name, labels, num_classes=num_classes, shape=mask.shape, where=mask)
    return jax.nn.one_hot(jnp.where(mask, jnp.asarray(labels), 0), num_classes)


def _pair(name: str, first: Any, other: str, second: Any) -> tuple[jax.Array, jax.Array]:
    """Return two floats of one shape, in float32 or wider."""
    first = jnp.asarray(first)
    second = _shaped(other, jnp.asarray(second), first.shape)
    _door.check_float(name, first)
    _door.check_float(other, second)
    wide = jnp.result_type(first, second, jnp.float32)
    return first.astype(wide), second.astype(wide)


def _same_shapes(tp: ArrayLike, fp: ArrayLike, fn: ArrayLike) -> Parts:
    """Return the counts as arrays of the shape of the first."""
    tp, fp, fn = jnp.asarray(tp), jnp.asarray(fp), jnp.asarray(fn)
    return tp, _shaped("fp", fp, tp.shape), _shaped("fn", fn, tp.shape)


def _mask(where: ArrayLike | None, shape: tuple[int, ...]) -> jax.Array:
    """Return the mask of pixels. It may keep none: sums over no pixel are defined."""
    if where is None:
        return jnp.ones(shape, bool)
    mask = _shaped("where", jnp.asarray(where), shape)
    if mask.dtype != jnp.bool_:
        raise TypeError(f"where: expected a boolean mask over pixels, got dtype {mask.dtype}")
    return mask


def _shaped(name: str, array: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return the array, or raise `ValueError` unless it has the shape."""
    if array.shape != tuple(shape):
        raise ValueError(f"{name}: expected shape {list(shape)}, got {list(array.shape)}")
    return array
