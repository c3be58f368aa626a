"""Fewer and smaller soft labels: pools of label batches, top-k logits, what restores them, bytes.

A distilled data set stores a teacher's logits for every augmentation of every image in every
epoch. Two things make that small. Pruning keeps a random part of the batches, the pool, from which
each epoch draws. Quantisation keeps the k largest logits of a row; when they are used, a rule makes
a soft label `[..., C]` of them again:

    restore_marginal_renorm   softmax over the k kept logits, 0 elsewhere
    restore_marginal_smooth   k kept probabilities, what is left of 1 shared by the others equally
    restore_min_fill          the least logit of the row in the place of the others, then softmax

Source: Xiao & He, "Are Large-scale Soft Labels Necessary for Large-scale Dataset Distillation?"
(NeurIPS 2024, arXiv 2410.15919), for the pool, and its follow-up (arXiv 2604.18135) for what is
kept of a row; both with their released code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jsoft import _door, losses, targets

Schedule = Literal["step", "cosine", "step_reverse", "cosine_reverse"]


def label_pool(
    *, num_epochs: int, batches_per_epoch: int, prune_ratio: float, exact: bool = True
) -> np.ndarray:
    """Return which batches of labels are kept, `[P]` int32: the first P = ⌊(1 − r) E M⌋.

    Batches of random augmentations in a random order are all alike, so the first are as good as
    random ones. Batch b is number b mod M of epoch ⌊b/M⌋.

    Args:
      num_epochs: E.
      batches_per_epoch: M.
      prune_ratio: r in [0, 1); labels take 1/(1 − r) times less room.
      exact: with slack for the rounding of 1 − r; the released code has none, and keeps 2,369
        batches of 23,700 at r = 0.9.

    Raises:
      TypeError, ValueError: numbers out of range; a pool without a batch.

    Source: arXiv 2410.15919 and its released code; the slack is ours.

    >>> len(label_pool(num_epochs=300, batches_per_epoch=79, prune_ratio=0.9))
    2370
    """
    _door.check_whole(1, num_epochs=num_epochs, batches_per_epoch=batches_per_epoch)
    _door.check_scalar(prune_ratio=prune_ratio)
    _door.check_levels(prune_ratio=prune_ratio)
    kept = int((1 - prune_ratio) * (num_epochs * batches_per_epoch) + (1e-9 if exact else 0))
    if kept < 1:
        raise ValueError(
            f"prune_ratio: expected one batch or more to be left of "
            f"{num_epochs * batches_per_epoch}, got {prune_ratio}"
        )
    return np.arange(kept, dtype=np.int32)


def sample_pool(
    pool: ArrayLike,
    key: jax.Array,
    *,
    batches_per_epoch: int,
    replace: bool = True,
    skip_ragged: bool = True,
) -> jax.Array:
    """Return the batches of an epoch of training, `[M]` int32, drawn from the pool.

    Args:
      pool: `[P]` integers, of `label_pool`.
      key: random key.
      batches_per_epoch: M.
      replace: draw with replacement, as in arXiv 2410.15919; its follow-up draws without.
      skip_ragged: take the batch before in the place of the last of an epoch, which may be short.

    Raises:
      TypeError, ValueError: a pool that is not `[P]` integers; fewer batches than are drawn without
        replacement; ragged batches to be skipped of epochs of a single one.

    Source: the released code of arXiv 2410.15919.

    >>> pool = label_pool(num_epochs=2, batches_per_epoch=4, prune_ratio=0.0)
    >>> drawn = sample_pool(pool, jax.random.key(0), batches_per_epoch=4)
    >>> drawn.shape, bool((drawn % 4 < 3).all())
    ((4,), True)
    """
    pool = jnp.asarray(pool)
    if pool.ndim != 1 or not len(pool) or not jnp.issubdtype(pool.dtype, jnp.integer):
        raise ValueError(f"pool: expected [P] integers, got {pool.dtype}{list(pool.shape)}")
    _door.check_whole(2 if skip_ragged else 1, batches_per_epoch=batches_per_epoch)
    if not replace and len(pool) < batches_per_epoch:
        raise ValueError(
            f"pool: expected {batches_per_epoch} batches or more to draw without replacement, got "
            f"{len(pool)}"
        )
    drawn = jax.random.choice(key, pool, (batches_per_epoch,), replace=replace)
    return skip_last_of_epoch(drawn, batches_per_epoch=batches_per_epoch) if skip_ragged else drawn


def skip_last_of_epoch(batches: ArrayLike, *, batches_per_epoch: int) -> jax.Array:
    """Return the batches with the last of any epoch replaced by the one before it, like `batches`.

    Args:
      batches: `[...]` integers, b with b mod M the number in its epoch.
      batches_per_epoch: M, 2 or more.

    Raises:
      TypeError, ValueError: batches that are no integers, an M below 2.

    Source: the released code of arXiv 2410.15919, where last batches are short.

    >>> print(skip_last_of_epoch(jnp.array([4, 19, 3]), batches_per_epoch=4))
    [ 4 18  2]
    """
    batches = jnp.asarray(batches)
    _door.check_whole(2, batches_per_epoch=batches_per_epoch)
    if not jnp.issubdtype(batches.dtype, jnp.integer):
        raise TypeError(f"batches: expected whole numbers, got dtype {batches.dtype}")
    return jnp.where((batches + 1) % batches_per_epoch == 0, batches - 1, batches)


def top_k_logits(logits: ArrayLike, *, k: int) -> tuple[jax.Array, jax.Array]:
    """Return the k largest logits of each row and their classes (int32), both `[..., k]`.

    Args:
      logits: `[..., C]` finite floats.
      k: 1 … C.

    Raises:
      TypeError, ValueError: logits that are not finite floats, a k out of range.

    Source: arXiv 2604.18135.

    >>> values, classes = top_k_logits(jnp.array([1.0, 3.0, 2.0]), k=2)
    >>> print(values, classes)
    [3. 2.] [1 2]
    """
    logits = jnp.asarray(logits)
    _door.check_float("logits", logits)
    _door.check_classes("logits", logits)
    _door.check_finite("logits", logits)
    _door.check_whole(1, k=k)
    if k > logits.shape[-1]:
        raise ValueError(f"k: expected 1 … {logits.shape[-1]}, the classes, got {k}")
    values, classes = lax.top_k(logits, k)
    return values, classes.astype(jnp.int32)


def restore_marginal_renorm(
    values: ArrayLike, classes: ArrayLike, *, num_classes: int, temperature: ArrayLike = 1.0
) -> jax.Array:
    """Return soft labels of the kept logits alone, softmax(values/T) at their classes, `[..., C]`.

    At a high temperature nearly uniform over the k kept classes.

    Args:
      values: `[..., k]` floats.
      classes: `[..., k]` integers, no class twice in a row.
      num_classes: C.
      temperature: T > 0; may be traced.

    Raises:
      TypeError, ValueError: values that are no floats, classes of another shape or out of range, a
        temperature not above 0.

    Source: marginal re-normalisation of arXiv 2604.18135.

    >>> restored = restore_marginal_renorm(
    ...     jnp.log(jnp.array([3.0, 1.0])), jnp.array([2, 0]), num_classes=4)
    >>> print(restored.round(4))
    [0.25 0.   0.75 0.  ]
    """
    values, classes = _kept(values, classes, num_classes)
    _door.check_positive(temperature=temperature)
    return _scattered(jax.nn.softmax(values / temperature), classes, num_classes, 0.0)


def restore_marginal_smooth(
    probabilities: ArrayLike, classes: ArrayLike, *, num_classes: int
) -> jax.Array:
    """Return the kept probabilities with what they leave of 1 shared equally, `[..., C]`.

    Args:
      probabilities: `[..., k]` floats, 0 or more, summing to 1 at most.
      classes: `[..., k]` integers, no class twice in a row.
      num_classes: C.

    Raises:
      TypeError, ValueError: probabilities below 0 or of a sum above 1 (by more than 0.001), classes
        of another shape or out of range.

    Source: marginal smoothing of arXiv 2604.18135.

    >>> restored = restore_marginal_smooth(jnp.array([0.8]), jnp.array([1]), num_classes=3)
    >>> print(np.asarray(restored).round(4))
    [0.1 0.8 0.1]
    """
    values, classes = _kept(probabilities, classes, num_classes)
    if _door.is_concrete(values):
        _door.check_at_least(0, probabilities=values)
        if (most := np.asarray(values, np.float64).sum(axis=-1).max()) > 1.001:
            raise ValueError(f"probabilities: expected rows that sum to 1 at most, got {most:g}")
    others = num_classes - values.shape[-1]
    left = jnp.maximum(1 - values.sum(axis=-1, keepdims=True), 0) / max(others, 1)
    return _scattered(values, classes, num_classes, left)


def restore_min_fill(
    values: ArrayLike,
    classes: ArrayLike,
    row_min: ArrayLike,
    *,
    num_classes: int,
    temperature: ArrayLike = 1.0,
) -> jax.Array:
    """Return soft labels of the kept logits with the row's least in the place of all others.

    softmax over C of these logits divided by T, `[..., C]`.

    Args:
      values: `[..., k]` floats.
      classes: `[..., k]` integers, no class twice in a row.
      row_min: `[...]` floats, the least logit of each whole row.
      num_classes: C.
      temperature: T > 0; may be traced.

    Raises:
      TypeError, ValueError: as `restore_marginal_renorm`; `row_min` of another shape.

    Source: arXiv 2604.18135.

    >>> restored = restore_min_fill(
    ...     jnp.log(jnp.array([2.0])), jnp.array([1]), jnp.array(0.0), num_classes=3)
    >>> print(restored.round(4))
    [0.25 0.5  0.25]
    """
    values, classes = _kept(values, classes, num_classes)
    row_min = jnp.asarray(row_min)
    _door.check_float("row_min", row_min)
    if row_min.shape != values.shape[:-1]:
        raise ValueError(
            f"row_min: expected shape {list(values.shape[:-1])}, got {list(row_min.shape)}"
        )
    _door.check_positive(temperature=temperature)
    filled = _scattered(values, classes, num_classes, row_min[..., None].astype(values.dtype))
    return jax.nn.softmax(filled / temperature)


def smoothed_soft_labels(
    logits: ArrayLike, *, temperature: ArrayLike, alpha: ArrayLike, on_logits: bool = False
) -> jax.Array:
    """Return softened and then smoothed labels, (1 − α) softmax(t/T) + α/C, `[..., C]`.

    Args:
      logits: `[..., C]` finite floats, t.
      temperature: T > 0; may be traced.
      alpha: α in [0, 1]; may be traced.
      on_logits: softmax(((1 − α) t + α/C)/T) instead, as the released code has it: a higher
        temperature and no smoothing.

    Raises:
      TypeError, ValueError: as `targets.temperature_softmax`, α outside [0, 1].

    Source: smoothing as usual; the other is the released code's of arXiv 2410.15919.

    >>> logits = jnp.log(jnp.array([9.0, 1.0]))
    >>> print(smoothed_soft_labels(logits, temperature=2.0, alpha=0.5).round(4))
    [0.625 0.375]
    """
    _door.check_scalar(alpha=alpha)
    _door.check_levels(alpha=alpha)
    if on_logits:
        logits = (1 - alpha) * jnp.asarray(logits)
        return targets.temperature_softmax(logits, temperature=temperature)
    softened = targets.temperature_softmax(logits, temperature=temperature)
    return targets.smooth(softened, alpha=alpha)


def temperature_schedule(
    kind: Schedule,
    *,
    start: float = 20.0,
    least: float = 2.0,
    epochs: int,
    decay: float = 0.7,
    step_size: int = 30,
) -> Callable[[ArrayLike], jax.Array]:
    """Return the temperature of stored labels as a function of the epoch e = 1, 2, …

    - "step": max(T₀ δ^⌊e/s⌋, T_min)
    - "cosine": T_min + (T₀ − T_min)(1 + cos(π e/E))/2
    - "step_reverse": min(T₀ δ^(⌊E/s⌋ − 1 − ⌊e/s⌋), T₀), which may begin below T_min
    - "cosine_reverse": T_min + (T₀ − T_min)(1 − cos(π e/E))/2

    Args:
      kind: which.
      start: T₀ > 0.
      least: T_min > 0.
      epochs: E.
      decay: δ in (0, 1).
      step_size: s.

    Raises:
      TypeError, ValueError: an unknown kind, numbers out of range.

    Source: the released code of arXiv 2604.18135.

    >>> temperature = temperature_schedule("step", epochs=300)
    >>> print(f"{temperature(1):.1f} {temperature(30):.1f} {temperature(299):.1f}")
    20.0 14.0 2.0
    """
    _door.check_positive(start=start, least=least)
    _door.check_whole(1, epochs=epochs, step_size=step_size)
    _door.check_inside_unit(decay=decay)

    def step(epoch: ArrayLike) -> jax.Array:
        return jnp.maximum(start * decay ** (jnp.asarray(epoch) // step_size), least)

    def cosine(epoch: ArrayLike) -> jax.Array:
        share = (1 + jnp.cos(jnp.pi * jnp.asarray(epoch) / epochs)) / 2
        return least + (start - least) * share

    def step_reverse(epoch: ArrayLike) -> jax.Array:
        power = epochs // step_size - 1 - jnp.asarray(epoch) // step_size
        return jnp.minimum(start * jnp.asarray(decay) ** power, start)

    def cosine_reverse(epoch: ArrayLike) -> jax.Array:
        return start + least - cosine(epoch)

    found = {
        "step": step,
        "cosine": cosine,
        "step_reverse": step_reverse,
        "cosine_reverse": cosine_reverse,
    }
    if kind not in found:
        raise ValueError(f"kind: expected one of {', '.join(found)}, got {kind!r}")
    return found[kind]


def calibrated_temperature(
    student_logits: ArrayLike, soft_labels: ArrayLike, grid: ArrayLike
) -> jax.Array:
    """Return the temperature of the grid at which the student is nearest to the labels, `[]`.

    argmin over T′ in the grid of the batch mean of KL(q ‖ softmax(s/T′)); the first among equals.
    No gradient flows through.

    Args:
      student_logits: `[B, C]` finite floats.
      soft_labels: `[B, C]` probabilities.
      grid: `[G]` temperatures above 0.

    Raises:
      TypeError, ValueError: as `losses.kl_divergence`; a grid of another shape or not above 0.

    Source: the released code of arXiv 2604.18135, whose grid is linspace(0.01, 1, 100) and which
    takes the last batch of an epoch.

    >>> logits = jnp.array([[2.0, 0.0], [0.0, 1.0]])
    >>> grid = jnp.array([0.25, 0.5, 1.0])
    >>> print(calibrated_temperature(logits, jax.nn.softmax(2 * logits), grid))
    0.5
    """
    logits, labels, grid = map(jnp.asarray, (student_logits, soft_labels, grid))
    if grid.ndim != 1 or not len(grid):
        raise ValueError(f"grid: expected shape [G], got {list(grid.shape)}")
    _door.check_positive(grid=grid)

    def divergence(temperature: jax.Array) -> jax.Array:
        return losses.kl_divergence(logits / temperature, labels).mean()

    divergence(grid[0])  # what the loss refuses, it refuses here
    return lax.stop_gradient(grid[jnp.argmin(jax.vmap(divergence)(grid))])


def label_storage_bytes(
    *,
    num_images: int,
    num_epochs: int,
    num_classes: int,
    prune_ratio: float = 0.0,
    k: int | None = None,
    logit_bytes: int = 2,
    index_bytes: int = 2,
    augmentation_bytes: int = 29,
) -> int:
    """Return how many bytes the labels of all kept augmentations take.

    (1 − r) N E (C logit_bytes + augmentation_bytes), and with k logits kept of a row
    (1 − r) N E (k (logit_bytes + index_bytes) + augmentation_bytes).

    Args:
      num_images: N.
      num_epochs: E.
      num_classes: C.
      prune_ratio: r in [0, 1).
      k: logits kept of each row, 1 … C; all by default, without indices.
      logit_bytes: of a logit.
      index_bytes: of a class.
      augmentation_bytes: of what replays an augmentation.

    Raises:
      TypeError, ValueError: numbers out of range.

    Source: arithmetic; 29 bytes as in the released code of arXiv 2410.15919.

    >>> size = label_storage_bytes(num_images=10_000, num_epochs=300, num_classes=1000)
    >>> print(f"{size / 2**30:.2f}")  # GiB: the authors' 5.67 GB of ten images per class
    5.67
    """
    _door.check_whole(1, num_images=num_images, num_epochs=num_epochs)
    _door.check_whole(2, num_classes=num_classes)
    _door.check_whole(0, augmentation_bytes=augmentation_bytes)
    _door.check_whole(1, logit_bytes=logit_bytes, index_bytes=index_bytes)
    _door.check_levels(prune_ratio=prune_ratio)
    row = num_classes * logit_bytes
    if k is not None:
        _door.check_whole(1, k=k)
        if k > num_classes:
            raise ValueError(f"k: expected 1 … {num_classes}, the classes, got {k}")
        row = k * (logit_bytes + index_bytes)
    rows = math.floor((1 - prune_ratio) * num_images * num_epochs + 1e-9)
    return rows * (row + augmentation_bytes)


def _kept(values: ArrayLike, classes: ArrayLike, num_classes: int) -> tuple[jax.Array, jax.Array]:
    """Return what is kept of each row and at which classes, checked; values in float32 or wider."""
    values = jnp.asarray(values)
    _door.check_float("values", values)
    _door.check_whole(2, num_classes=num_classes)
    if values.ndim < 1 or not 1 <= values.shape[-1] <= num_classes:
        raise ValueError(
            f"values: expected shape [..., k] with k of 1 … {num_classes}, got {list(values.shape)}"
        )
    _door.check_finite("values", values)
    _door.check_labels("classes", classes, num_classes=num_classes, shape=values.shape)
    return values.astype(jnp.promote_types(values.dtype, jnp.float32)), jnp.asarray(classes)


def _scattered(
    values: jax.Array, classes: jax.Array, num_classes: int, elsewhere: jax.Array | float
) -> jax.Array:
    """Return `[..., C]` with the values at their classes."""
    shape = (*values.shape[:-1], num_classes)
    filled = jnp.broadcast_to(jnp.asarray(elsewhere, values.dtype), shape)
    return jnp.put_along_axis(filled, classes, values, axis=-1, inplace=False)
