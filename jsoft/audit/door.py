"""What an audit accepts: checks of its arguments, and what is meant where none is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jsoft import _door
from jsoft.label_kinds import Kind

TIES = ("fractional", "first", "pessimistic")


def class_names(classes: Sequence[str] | None, num_classes: int) -> tuple[str, ...]:
    """Return the names given, or "class 0" and so on.

    Raises:
      TypeError, ValueError: names that are not words, are not C, or are the same.
    """
    if classes is None:
        return tuple(f"class {i}" for i in range(num_classes))
    names = tuple(classes)
    if isinstance(classes, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"classes: expected {num_classes} names, got {classes!r}")
    if len(names) != num_classes:
        raise ValueError(f"classes: expected {num_classes} names, got {len(names)}")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"classes: expected different names, got {twice!r} more than once")
    return names


def known_kind(kind: Kind | str) -> Kind:
    """Return the kind of that name.

    Raises:
      ValueError: no such kind.
    """
    if kind not in list(Kind):
        raise ValueError(f"kind: expected one of {', '.join(Kind)}, got {kind!r}")
    return Kind(kind)


def known_labels(
    labels: np.ndarray | None, num_rows: int, num_classes: int, where: np.ndarray | None
) -> np.ndarray:
    """Return labels `[N]`, −1 where unknown or left out.

    Raises:
      TypeError, ValueError: labels of wrong dtype, shape or range; none known.
    """
    if labels is None:
        return np.full(num_rows, -1)
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"labels: expected integer class indices, got dtype {labels.dtype}")
    if labels.shape != (num_rows,):
        raise ValueError(
            f"labels: expected shape [{num_rows}], one for each row, got {list(labels.shape)}"
        )
    outside = (labels < -1) | (labels >= num_classes)
    if where is not None:
        outside &= where
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(
            f"labels: row {row}: expected a class in 0 … {num_classes - 1}, or -1 for unknown, "
            f"got {labels[row]}"
        )
    labels = labels.astype(np.int64)
    labels = labels if where is None else np.where(where, labels, -1)
    if (labels < 0).all():
        raise ValueError("labels: expected at least one that is known, got -1 alone")
    return labels


def looked_at(
    k: int | None, max_k: int | None, num_classes: int, default: int, kind: Kind
) -> tuple[int, ...]:
    """Return all k to look at.

    Raises:
      TypeError, ValueError: k or max_k out of 1 … C − 1, or given for sets; k above max_k.
    """
    for name, value in (("k", k), ("max_k", max_k)):
        if value is None:
            continue
        if kind is Kind.SETS:
            raise ValueError(f"{name}: expected None for candidate sets, which have no k")
        _door.check_whole(1, **{name: value})
        _door.check_k(name, value, num_classes)
    if kind is Kind.SETS:
        return (1,)
    if max_k is None:
        max_k = max(k or 1, min(default, num_classes - 1))
    if k is not None and k > max_k:
        raise ValueError(f"k: expected {max_k} or less, which is max_k, got {k}")
    return tuple(range(1, max_k + 1))


def check_options(alpha: float, ties: str) -> None:
    """Raise unless α is a level and ties a known rule."""
    _door.check_scalar(alpha=alpha)
    _door.check_inside_unit(alpha=alpha)
    if ties not in TIES:
        raise ValueError(f"ties: expected one of {', '.join(TIES)}, got {ties!r}")
