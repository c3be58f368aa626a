"""Soft labels on disk: the k largest logits of every row in 16 bits, mapped into memory, by batch.

`write` takes logits block by block and leaves a folder; `open_store` maps it without reading it.
Of a row are kept its k largest logits and their classes, with all logits where k = C. What is kept
of a batch is a pytree of small arrays (`Kept`), which may be the targets of a training as it is
(`training.fit(..., targets=store.read(rows))`): `LabelStore.restore` makes soft labels of it inside
the loss, at whatever temperature.

    folder/store.json     format, classes, k, rule, number of rows
    folder/values.npy     [N, k] float16, the largest logit of the row taken off
    folder/classes.npy    [N, k] uint8 or uint16, where k < C
    folder/row_min.npy    [N] float16, where the rule needs it

A row whose largest logit is taken off has the same softmax, and 16 bits go further.

The rules are those of `jsoft.label_pruning` (arXiv 2604.18135). The files are ours.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jsoft import _door, label_pruning, targets

FORMAT = "jsoft label store 1"
Rule = Literal["renorm", "min_fill"]
_MOST_CLASSES = 2**16


class Kept(NamedTuple):
    """What is kept of some rows; a pytree.

    Attributes:
      values: `[..., k]` logits, the largest of the row taken off.
      classes: `[..., k]` where they stand; None where all are kept, in order.
      row_min: `[...]` the least logit of the row; None where the rule does not need it.
    """

    values: Any
    classes: Any = None
    row_min: Any = None


@dataclasses.dataclass(frozen=True)
class LabelStore:
    """Soft labels of N rows on disk.

    Attributes:
      num_classes: C.
      rule: what stands in the place of logits that were not kept: nothing ("renorm"), or the least
        of the row ("min_fill").
      kept: the files, mapped into memory.
    """

    num_classes: int
    rule: Rule
    kept: Kept

    def __len__(self) -> int:
        """Return the number of rows, N."""
        return len(self.kept.values)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, all rows together."""
        return sum(array.nbytes for array in self.kept if array is not None)

    def read(self, rows: ArrayLike) -> Kept:
        """Return what is kept of these rows, in memory.

        Args:
          rows: `[...]` integers in 0 … N − 1.

        Raises:
          TypeError, ValueError: rows that are no integers or out of range.
        """
        _door.check_labels("rows", rows, num_classes=len(self))
        index = np.asarray(rows)
        return Kept(*(None if array is None else np.asarray(array[index]) for array in self.kept))

    def restore(self, kept: Kept, *, temperature: ArrayLike = 1.0) -> jax.Array:
        """Return the soft labels of what was read, `[..., C]`; pure, and fit for `jit`.

        Args:
          kept: of `read`.
          temperature: T > 0; may be traced.

        Raises:
          TypeError, ValueError: a temperature not above 0, classes out of range.
        """
        values = jnp.asarray(kept.values, jnp.float32)
        if kept.classes is None:
            return targets.temperature_softmax(values, temperature=temperature)
        classes = jnp.asarray(kept.classes, jnp.int32)
        if kept.row_min is None:
            return label_pruning.restore_marginal_renorm(
                values, classes, num_classes=self.num_classes, temperature=temperature
            )
        return label_pruning.restore_min_fill(
            values,
            classes,
            jnp.asarray(kept.row_min, jnp.float32),
            num_classes=self.num_classes,
            temperature=temperature,
        )


def write(
    folder: str | os.PathLike[str],
    blocks: Iterable[Any],
    *,
    k: int | None = None,
    rule: Rule = "renorm",
) -> LabelStore:
    """Return the store of these logits, written to a new folder.

    Args:
      folder: where to; made here, whole or not at all.
      blocks: logits `[n, C]`, finite floats, block by block; soft labels as their logarithms.
      k: logits kept of each row, 1 … C; all by default.
      rule: what is to stand for the others, see `LabelStore`.

    Raises:
      FileExistsError: a folder that is there.
      TypeError, ValueError: blocks that are not finite floats or differ in classes, none at all, a
        k out of range, an unknown rule, more than 65,536 classes.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "labels"
    >>> store = write(folder, [jnp.log(jnp.array([[0.5, 0.3, 0.2]]))], k=2)
    >>> restored = np.asarray(store.restore(store.read([0])))
    >>> print(restored.round(3), store.nbytes)  # 2 × (2 + 1) bytes
    [[0.625 0.375 0.   ]] 6
    """
    folder = Path(folder)
    if rule not in ("renorm", "min_fill"):
        raise ValueError(f'rule: expected "renorm" or "min_fill", got {rule!r}')
    if folder.exists():
        raise FileExistsError(f"folder: expected a new one, {folder} is there")
    parts: dict[str, Path] = {}
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    part.mkdir(parents=True)
    try:
        with contextlib.ExitStack() as open_files:
            files: dict[str, Any] = {}
            num_rows, num_classes = 0, 0
            for block in blocks:
                arrays = _compress(jnp.asarray(block), k, rule)
                if num_classes not in (0, np.shape(block)[1]):
                    raise ValueError(
                        f"blocks: expected {num_classes} classes in each, got {np.shape(block)[1]}"
                    )
                num_classes = np.shape(block)[1]
                num_rows += np.shape(block)[0]
                for name, array in arrays.items():
                    if name not in files:
                        parts[name] = part / f"{name}.bin"
                        files[name] = (open_files.enter_context(parts[name].open("wb")), array)
                    files[name][0].write(array.tobytes())
        if not num_rows:
            raise ValueError("blocks: expected one row or more, got none")
        for name, (_, like) in files.items():
            _to_npy(parts[name], part / f"{name}.npy", like.dtype, (num_rows, *like.shape[1:]))
        noted = {"format": FORMAT, "num_classes": num_classes, "rule": rule, "rows": num_rows}
        (part / "store.json").write_text(json.dumps(noted) + "\n", encoding="utf-8")
        part.rename(folder)
    except BaseException:
        for path in part.iterdir():
            path.unlink()
        part.rmdir()
        raise
    return open_store(folder)


def open_store(folder: str | os.PathLike[str]) -> LabelStore:
    """Return the store in a folder, mapped into memory.

    Args:
      folder: as written by `write`.

    Raises:
      ValueError: a folder without a store, or one whose files do not fit each other.
    """
    folder = Path(folder)
    try:
        noted = json.loads((folder / "store.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"folder: expected a label store, got {folder}: {error}") from None
    if not isinstance(noted, dict) or noted.get("format") != FORMAT:
        raise ValueError(f"folder: expected {FORMAT!r}, got {folder}")

    def mapped(name: str) -> np.ndarray | None:
        path = folder / f"{name}.npy"
        return np.load(path, mmap_mode="r", allow_pickle=False) if path.exists() else None

    values, classes, row_min = (mapped(name) for name in Kept._fields)
    rows, num_classes, rule = noted["rows"], noted["num_classes"], noted["rule"]
    fits = (
        values is not None
        and values.ndim == 2
        and len(values) == rows
        and (values.shape[1] == num_classes if classes is None else classes.shape == values.shape)
        and (row_min is None or row_min.shape == (rows,))
        and (row_min is not None) == (rule == "min_fill" and classes is not None)
    )
    if not fits:
        raise ValueError(
            f"folder: expected the files of {rows} rows that fit, got others: {folder}"
        )
    return LabelStore(num_classes, rule, Kept(values, classes, row_min))


def _compress(logits: jax.Array, k: int | None, rule: Rule) -> dict[str, np.ndarray]:
    """Return what is kept of a block, by file."""
    _door.check_float("blocks", logits)
    _door.check_classes("blocks", logits, ndim=2)
    num_classes = logits.shape[1]
    if num_classes > _MOST_CLASSES:
        raise ValueError(f"blocks: expected {_MOST_CLASSES:,} classes at most, got {num_classes:,}")
    _door.check_finite("blocks", logits)
    logits = logits.astype(jnp.float32)
    logits = logits - logits.max(axis=1, keepdims=True)
    # 16 bits end at 65,504; a class so far below the largest has probability 0 as it is.
    logits = jnp.maximum(logits, float(jnp.finfo(jnp.float16).min))
    if k is None or k == num_classes:
        return {"values": np.asarray(logits, np.float16)}
    values, classes = label_pruning.top_k_logits(logits, k=k)
    kept = {
        "values": np.asarray(values, np.float16),
        "classes": np.asarray(classes).astype(np.uint8 if num_classes <= 256 else np.uint16),
    }
    if rule == "min_fill":
        kept["row_min"] = np.asarray(logits.min(axis=1), np.float16)
    return kept


def _to_npy(source: Path, path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Write the bytes as a NumPy file, in one pass, and remove them."""
    raw = np.memmap(source, dtype, "r", shape=shape)
    np.save(path, raw, allow_pickle=False)
    del raw
    source.unlink()
