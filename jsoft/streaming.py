"""Indicators of soft labels that lie in a file larger than memory.

Blocks of rows are shared out over all local devices, each of which keeps sums of its own; at the
end the counts of all are merged. A memory-mapped file is not copied: a CPU reads it where it lies
in the system's cache. The block that comes next is asked for ahead, and blocks are let go once
they are counted.
"""

from __future__ import annotations

import collections
import functools
import mmap
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from tqdm import tqdm

from jsoft import _counts, _door, indicators
from jsoft._counts import Counts, Sums

# Blocks handed to the devices and not yet counted: while one is counted, the next one waits.
_IN_FLIGHT = 2

# Rows of a device come in multiples of this: then blocks of a file start at multiples of 64 bytes,
# where JAX can use them without a copy.
_ALIGNED_ROWS = 64


def measure_blocks(
    soft_labels: np.ndarray,
    labels: ArrayLike,
    *,
    max_k: int,
    where: ArrayLike | None = None,
    block_bytes: int = 2**24,
    progress: bool = True,
) -> indicators.Indicators:
    """Return what `jsoft.measure` returns, block by block, for arrays larger than memory.

    All local devices count rows of their own. Each holds a few blocks and some 8 · C · max_k · C
    numbers at any time, however many rows there are.

    Args:
      soft_labels: `[N, C]` finite floats on the host, such as `np.load(path, mmap_mode="r")`; rows
        need not sum to one.
      labels: `[N]` integers, the true classes.
      max_k: largest k, 1 … C − 1.
      where: `[N]` booleans, the examples that count (all by default).
      block_bytes: bytes of soft labels that a device is handed at a time.
      progress: show a bar, on a terminal, once ten seconds have passed.

    Raises:
      TypeError, ValueError: as `jsoft.measure`, but values are looked at while they are counted:
        the first block that holds a row which is not finite stops it, and the row is named.

    Source: as `jsoft.measure`.

    >>> soft_labels = np.array([[0.6, 0.3, 0.1], [0.4, 0.5, 0.1], [0.1, 0.8, 0.1]], np.float16)
    >>> measured = measure_blocks(soft_labels, np.array([0, 0, 1]), max_k=2)
    >>> print(measured.unreliability.round(4), measured.ambiguity)
    [0.3333 0.    ] [0.5 1. ]
    """
    if not isinstance(soft_labels, np.ndarray):
        raise TypeError(f"soft_labels: expected a NumPy array, got {type(soft_labels).__name__}")
    _door.check_float("soft_labels", soft_labels)
    _door.check_classes("soft_labels", soft_labels, ndim=2)
    num_rows, num_classes = soft_labels.shape
    _door.check_whole(1, max_k=max_k, block_bytes=block_bytes)
    _door.check_k("max_k", max_k, num_classes)
    where = np.ones(num_rows, bool) if where is None else np.asarray(where)
    _door.check_where("where", where, (num_rows,))
    _door.check_labels("labels", labels, num_classes=num_classes, shape=(num_rows,), where=where)
    labels = np.where(where, labels, num_classes).astype(np.int32)  # of C: not counted

    mesh = Mesh(np.array(jax.local_devices()), ("rows",))
    size = mesh.size * _rows_of_a_device(soft_labels, mesh.size, block_bytes)
    counts, sums, tallied = None, _empty(num_classes, max_k, mesh), 0
    waiting: collections.deque[tuple[slice, jax.Array]] = collections.deque()
    hidden = None if progress else True  # None: where the output is no terminal
    with tqdm(total=num_rows, unit="row", unit_scale=True, delay=10, disable=hidden) as bar:

        def finish(rows: slice, largest_sum: jax.Array) -> None:
            if not np.isfinite(largest_sum).all():  # waits until the block is counted
                _check_finite(soft_labels, rows, where)
            _advise(soft_labels[rows], "MADV_DONTNEED")
            bar.update(len(soft_labels[rows]))

        for start in range(0, num_rows, size):
            rows = slice(start, start + size)
            _advise(soft_labels[rows.stop : rows.stop + size], "MADV_WILLNEED")
            if tallied + size > _counts.ROWS_PER_CLASS * num_classes:
                counts = _fold(counts, _on_first_device(sums))
                sums, tallied = _empty(num_classes, max_k, mesh), 0
            sums, largest_sum = _tally(
                sums,
                _spread(soft_labels[rows], size, 0, mesh),
                _spread(labels[rows], size, num_classes, mesh),
                mesh,
            )
            tallied += size
            waiting.append((rows, largest_sum))
            if len(waiting) > _IN_FLIGHT:
                finish(*waiting.popleft())
        while waiting:
            finish(*waiting.popleft())
    return _finish(counts, _on_first_device(sums))


def _rows_of_a_device(soft_labels: np.ndarray, num_devices: int, block_bytes: int) -> int:
    """Return how many rows a device is handed at a time."""
    num_rows, num_classes = soft_labels.shape
    rows = block_bytes // (num_classes * soft_labels.itemsize) // _ALIGNED_ROWS * _ALIGNED_ROWS
    most = -(-min(_counts.ROWS_PER_CLASS * num_classes, num_rows) // num_devices)
    return min(max(rows, _ALIGNED_ROWS), most)


def _spread(block: np.ndarray, size: int, fill: int, mesh: Mesh) -> jax.Array:
    """Return a block with its rows shared out, `[devices, rows, ...]`, filled up to `size`."""
    if len(block) < size:
        padding = np.full((size - len(block), *block.shape[1:]), fill, block.dtype)
        block = np.concatenate([block, padding])
    shape = (mesh.size, size // mesh.size, *block.shape[1:])
    return jax.device_put(block.reshape(shape), NamedSharding(mesh, PartitionSpec("rows")))


def _on_every_device(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Return `function` of one device, of trees of arrays that have an axis of devices in front."""

    def on_one_device(*trees: Any) -> Any:
        return jax.tree.map(lambda a: a[None], function(*jax.tree.map(lambda a: a[0], trees)))

    rows = PartitionSpec("rows")
    return jax.shard_map(on_one_device, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)


@functools.partial(jax.jit, static_argnames=("num_classes", "max_k", "mesh"))
def _empty(num_classes: int, max_k: int, mesh: Mesh) -> Sums:
    """Return empty sums on every device."""
    of_one_device = lambda _: _counts.init_sums(num_classes, max_k)  # noqa: E731
    return _on_every_device(of_one_device, mesh)(jnp.zeros(mesh.size))


@functools.partial(jax.jit, static_argnames="mesh", donate_argnames="sums")
def _tally(
    sums: Sums, soft_labels: jax.Array, labels: jax.Array, mesh: Mesh
) -> tuple[Sums, jax.Array]:
    """Return the sums of every device with its rows added, and the largest of each.

    A row that is not finite makes a sum that is not, which is found by looking at C · C sums.
    """

    def of_one_device(
        sums: Sums, soft_labels: jax.Array, labels: jax.Array
    ) -> tuple[Sums, jax.Array]:
        sums = _counts.tally(sums, soft_labels, labels)
        return sums, jnp.abs(sums.label_sums).max()

    return _on_every_device(of_one_device, mesh)(sums, soft_labels, labels)


def _on_first_device(sums: Sums) -> list[Sums]:
    """Return the sums of all devices, one after the other, on the first."""
    of_devices = [
        jax.tree.map(lambda a, i=i: a.addressable_data(i), sums) for i in range(len(sums.examples))
    ]
    return jax.device_put(of_devices, jax.local_devices()[0])


@functools.partial(jax.jit, donate_argnames="counts")
def _fold(counts: Counts | None, of_devices: list[Sums]) -> Counts:
    """Return `counts` with the sums of all devices counted in."""
    sums = jax.tree.map(lambda *parts: functools.reduce(jnp.add, parts)[0], *of_devices)
    num_classes, max_k, _ = sums.curvature.shape
    return _counts.fold(counts or _counts.init(num_classes, max_k), sums)


@jax.jit
def _finish(counts: Counts | None, of_devices: list[Sums]) -> indicators.Indicators:
    """Return the indicators of all that was counted; compiled as one, it stores no last counts."""
    return indicators.compute(_fold(counts, of_devices))


def _check_finite(soft_labels: np.ndarray, rows: slice, where: np.ndarray) -> None:
    """Raise `ValueError` with the first of these rows that counts and is not finite.

    There may be none: finite numbers can add up to more than float32 holds.
    """
    bad = ~np.isfinite(soft_labels[rows]).all(axis=1) & where[rows]
    if bad.any():
        row = rows.start + int(np.argmax(bad))
        raise ValueError(
            f"soft_labels: expected finite numbers, got NaN or infinity in row [{row}]"
        )


def _advise(block: np.ndarray, advice: str) -> None:
    """Tell the system what becomes of the part of a mapped file that holds `block`, if any.

    Blocks that were counted would otherwise add up in the memory of the process.
    """
    mapping = _mapped_file(block)
    option = getattr(mmap, advice, None)  # not on every system
    if mapping is None or option is None or block.size == 0:
        return
    start = np.frombuffer(mapping, np.uint8).ctypes.data
    low, high = (int(at) - start for at in np.lib.array_utils.byte_bounds(block))
    low -= low % mmap.PAGESIZE
    mapping.madvise(option, low, high - low)


def _mapped_file(array: Any) -> mmap.mmap | None:
    """Return the mapping that an array is a part of, unless letting go of it would lose changes."""
    shared = False
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            shared = array.mode != "c"  # copy on write: changes are nowhere but in memory
        array = array.base
    return array if shared and isinstance(array, mmap.mmap) else None
