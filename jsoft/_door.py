"""Checks at the public doors: which argument, what came, what was expected.

Shapes and dtypes are known everywhere, so they are always checked. Values (finite, in range,
summing to one) are known only outside `jit`, `vmap` and `grad`: there they are checked, inside
they are the caller's word. Everything that computes may then assume good input.

Values are looked at with NumPy: inside `jit`, jax.numpy would trace even what is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def is_concrete(*values: ArrayLike | None) -> bool:
    """Return whether all `values` can be looked at, that is, whether none is being traced."""
    return not any(isinstance(value, jax.core.Tracer) for value in values)


def check_float(name: str, values: jax.Array | np.ndarray) -> None:
    """Raise `TypeError` unless `values` are floating-point numbers."""
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"{name}: expected floating-point numbers, got dtype {values.dtype}")


def check_classes(name: str, values: jax.Array | np.ndarray, ndim: int | None = None) -> None:
    """Raise unless `values` have `ndim` non-empty axes, the last holding two classes or more."""
    if values.ndim < 1 or (ndim is not None and values.ndim != ndim):
        expected = "[..., C]" if ndim is None else "[N, C]"
        raise ValueError(f"{name}: expected shape {expected}, got {list(values.shape)}")
    if values.shape[-1] < 2:
        raise ValueError(
            f"{name}: expected two classes or more on the last axis, got shape {list(values.shape)}"
        )
    if values.size == 0:
        raise ValueError(f"{name}: expected at least one example, got shape {list(values.shape)}")


def check_finite(name: str, values: jax.Array | np.ndarray, where: jax.Array | None = None) -> None:
    """Raise `ValueError` where a concrete row of `values` [..., C] holds NaN or an infinity."""
    if not is_concrete(values, where):
        return
    bad = ~np.isfinite(np.asarray(values)).all(axis=-1)
    if where is not None:
        bad &= np.asarray(where)
    if bad.any():
        row = [int(i) for i in np.unravel_index(np.argmax(bad), bad.shape)]
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity in row {row}")


def check_probabilities(name: str, rows: jax.Array | np.ndarray) -> None:
    """Raise `ValueError` where a concrete row [..., C] is not a probability vector."""
    if not is_concrete(rows):
        return
    check_finite(name, rows)
    values = np.asarray(rows, np.float64)
    sums = values.sum(axis=-1)
    tolerance = max(1e-3, float(jnp.finfo(rows.dtype).eps))
    for expected, found, bad in (
        ("entries of 0 or more", values.min(axis=-1), (values < 0).any(axis=-1)),
        ("rows that sum to one", sums, np.abs(sums - 1) > tolerance),
    ):
        if bad.any():
            row = tuple(int(i) for i in np.unravel_index(np.argmax(bad), bad.shape))
            raise ValueError(f"{name}: expected {expected}, got {found[row]:g} in row {list(row)}")


def check_soft_labels(
    values: jax.Array, ndim: int | None = None, where: jax.Array | None = None
) -> None:
    """Raise unless `values`, an argument called soft_labels, are finite floats `[..., C]`."""
    check_float("soft_labels", values)
    check_classes("soft_labels", values, ndim)
    check_finite("soft_labels", values, where)


def check_labels(
    name: str,
    labels: ArrayLike,
    *,
    num_classes: int,
    shape: tuple[int, ...] | None = None,
    where: ArrayLike | None = None,
) -> None:
    """Raise unless `labels` are integers of `shape` in 0 … num_classes − 1.

    To be called before `jnp.asarray`, which would cut 64-bit integers to 32 bits.
    """
    if is_concrete(labels):
        labels = np.asarray(labels)
    assert isinstance(labels, np.ndarray | jax.Array)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"{name}: expected integer class indices, got dtype {labels.dtype}")
    if shape is not None and labels.shape != tuple(shape):
        raise ValueError(f"{name}: expected shape {list(shape)}, got {list(labels.shape)}")
    if not is_concrete(labels, where):
        return
    values = np.asarray(labels)
    bad = (values < 0) | (values >= num_classes)
    if where is not None:
        bad &= np.asarray(where)
    if bad.any():
        raise ValueError(f"{name}: expected classes in 0 … {num_classes - 1}, got {values[bad][0]}")


def check_where(name: str, where: jax.Array | np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise unless `where` is a boolean mask of `shape` that keeps at least one example."""
    if where.dtype != jnp.bool_:
        raise TypeError(f"{name}: expected a boolean mask over examples, got dtype {where.dtype}")
    if where.shape != tuple(shape):
        raise ValueError(f"{name}: expected shape {list(shape)}, got {list(where.shape)}")
    if is_concrete(where) and not np.asarray(where).any():
        raise ValueError(
            f"{name}: expected at least one example to be kept, got a mask of False alone"
        )


def check_sets(name: str, candidate_sets: jax.Array, ndim: int | None = None) -> None:
    """Raise unless `candidate_sets` are booleans over two classes or more."""
    if candidate_sets.dtype != jnp.bool_:
        raise TypeError(
            f"{name}: expected boolean candidate sets, got dtype {candidate_sets.dtype}"
        )
    check_classes(name, candidate_sets, ndim)


def check_scalar(**values: ArrayLike) -> None:
    """Raise `ValueError` unless every value, traced or not, is one number: map with `vmap`."""
    for name, value in values.items():
        if np.shape(value) != ():
            raise ValueError(f"{name}: expected one number, got shape {list(np.shape(value))}")


def check_levels(**levels: ArrayLike) -> None:
    """Raise `ValueError` where a concrete level lies outside [0, 1] or is not a number."""
    _check_values(levels, "a level in [0, 1]", lambda level: (level >= 0) & (level <= 1))


def check_positive(**values: ArrayLike) -> None:
    """Raise `ValueError` where a concrete value is not a finite number above zero."""
    _check_values(values, "a number above zero", lambda value: np.isfinite(value) & (value > 0))


def check_at_least(least: float, **values: ArrayLike) -> None:
    """Raise `ValueError` where a concrete value is below `least` or not a number."""
    _check_values(values, f"{least:g} or more", lambda value: value >= least)


def check_inside_unit(**values: ArrayLike) -> None:
    """Raise `ValueError` where a concrete value is not in (0, 1), ends left out."""
    _check_values(values, "a number in (0, 1)", lambda value: (value > 0) & (value < 1))


def _check_values(
    values: Mapping[str, ArrayLike], expected: str, is_good: Callable[[np.ndarray], np.ndarray]
) -> None:
    for name, value in values.items():
        if not is_concrete(value):
            continue
        array = np.asarray(value)
        if not jnp.issubdtype(array.dtype, jnp.number):
            raise TypeError(f"{name}: expected {expected}, got {value!r}")
        bad = ~is_good(array)
        if bad.any():
            raise ValueError(f"{name}: expected {expected}, got {array[bad][0].item()!r}")


def check_whole(least: int, **values: Any) -> None:
    """Raise unless every value is a Python or NumPy whole number, `least` or more."""
    for name, value in values.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            raise TypeError(f"{name}: expected a whole number, got {value!r}")
        if value < least:
            raise ValueError(f"{name}: expected {least} or more, got {value}")


def check_k(name: str, k: ArrayLike, num_classes: int) -> None:
    """Raise unless `k` are whole numbers, where they are not traced in 1 … num_classes − 1."""
    values = np.asarray(k) if is_concrete(k) else k
    if not jnp.issubdtype(jnp.result_type(values), jnp.integer):
        raise TypeError(f"{name}: expected a whole number, got {k!r}")
    if isinstance(values, np.ndarray):
        bad = (values < 1) | (values >= num_classes)
        if bad.any():
            raise ValueError(
                f"{name}: expected 1 … {num_classes - 1}, below the number of classes, "
                f"got {values[bad][0]}"
            )
