"""Counts behind the indicators: sums over examples, made block by block, that add up.

Every count is an unevaluated sum of two float32 (leading axis 2): whole numbers stay exact to
2^48, fractional memberships to the same digits, and no 64-bit mode is asked for (Dekker 1971,
https://doi.org/10.1007/BF01397083). Up to a given number of rows, plain float32 is as good and
half as much to move: rows are tallied in `Sums`, and those are folded into `Counts` now and then.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from jsoft import _door

# Rows for each class that are summed in plain float32 before the sum joins the running counts.
# Whole counts are exact; a membership of 1/E, added that often, is good to 512 · 2⁻²⁵ = 1.5e-5.
ROWS_PER_CLASS = 512

# Entries that a CPU works on at a time: 1 MB of float32, what its nearest caches hold. An
# accelerator is given all rows at once.
_CPU_ENTRIES = 2**18

# From this many classes on, and up to this many places, groups beat `lax.top_k` on a CPU.
_GROUPED_CLASSES, _GROUPED_PLACES = 128, 16
_GROUP, _FEW = 4, 64

# Rows whose ties reach beyond the last place, which a CPU counts this many at a time.
_TIED_ROWS = 8


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Counts:
    """What `update` has counted so far; sums only, so two of them `merge` into one.

    Attributes:
      examples: `[2, C]` examples of each true class.
      members: `[2, C, K, C]` summed membership by true class, k and class.
      label_sums: `[2, C, C]` summed soft labels by true class and class.
      tied: `[2, K]` examples tied at the k-th place.
    """

    examples: jax.Array
    members: jax.Array
    label_sums: jax.Array
    tied: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sums:
    """The same in plain float32, with second differences over k in the place of members.

    Attributes:
      examples: `[C]`.
      curvature: `[C, K, C]`.
      label_sums: `[C, C]`.
      tied: `[K]`.
    """

    examples: jax.Array
    curvature: jax.Array
    label_sums: jax.Array
    tied: jax.Array


def init(num_classes: int, max_k: int) -> Counts:
    """Return empty counts for soft labels over `num_classes` and k = 1 … `max_k`.

    Raises:
      TypeError, ValueError: fewer than two classes; `max_k` out of 1 … num_classes − 1.

    The counts behind `measure`; derived here.

    >>> init(num_classes=10, max_k=3).members.shape
    (2, 10, 3, 10)
    """
    _door.check_whole(2, num_classes=num_classes)
    _door.check_whole(1, max_k=max_k)
    _door.check_k("max_k", max_k, num_classes)
    return Counts(
        examples=jnp.zeros((2, num_classes)),
        members=jnp.zeros((2, num_classes, max_k, num_classes)),
        label_sums=jnp.zeros((2, num_classes, num_classes)),
        tied=jnp.zeros((2, max_k)),
    )


def init_sums(num_classes: int, max_k: int) -> Sums:
    """Return empty sums for soft labels over `num_classes` and k = 1 … `max_k`."""
    return Sums(
        examples=jnp.zeros(num_classes),
        curvature=jnp.zeros((num_classes, max_k, num_classes)),
        label_sums=jnp.zeros((num_classes, num_classes)),
        tied=jnp.zeros(max_k),
    )


def merge(a: Counts, b: Counts) -> Counts:
    """Return the counts of two sets of examples taken together; associative and commutative.

    Raises:
      ValueError: counts over other numbers of classes or other largest k.

    Derived here: every count is a sum over examples.

    >>> one = init(num_classes=3, max_k=2)
    >>> merge(one, one).tied.shape
    (2, 2)
    """
    if a.members.shape != b.members.shape:
        raise ValueError(
            f"b: expected counts of shape {a.members.shape} as a's, got {b.members.shape}"
        )
    return jax.tree.map(add, a, b)


def count(state: Counts, soft_labels: jax.Array, labels: jax.Array) -> Counts:
    """Return `state` with rows [B, C] counted in; those whose label is C are left out."""
    num_classes = state.examples.shape[-1]
    size = ROWS_PER_CLASS * num_classes
    for start in range(0, len(labels), size):
        block = slice(start, start + size)
        state = _count_block(state, soft_labels[block], labels[block])
    return state


@jax.jit
def _count_block(state: Counts, soft_labels: jax.Array, labels: jax.Array) -> Counts:
    _, num_classes, max_k, _ = state.members.shape
    return fold(state, tally(init_sums(num_classes, max_k), soft_labels, labels))


def fold(state: Counts, sums: Sums) -> Counts:
    """Return `state` with the rows of `sums` counted in."""
    counted = Counts(
        examples=sums.examples,
        members=_running_sums(_running_sums(sums.curvature)),
        label_sums=sums.label_sums,
        tied=sums.tied,
    )
    return jax.tree.map(
        lambda old, new: add(old, jnp.stack([new, jnp.zeros_like(new)])), state, counted
    )


def _running_sums(values: jax.Array) -> jax.Array:
    """Return `jnp.cumsum(values, axis=1)`, which takes a CPU several times as long."""

    def add_previous(k: jax.Array, values: jax.Array) -> jax.Array:
        return values.at[:, k].add(values[:, k - 1])

    return lax.fori_loop(1, values.shape[1], add_previous, values)


def tally(sums: Sums, soft_labels: jax.Array, labels: jax.Array) -> Sums:
    """Return `sums` with rows [B, C] added; those whose label is C are left out."""
    num_rows, num_classes = soft_labels.shape
    size = max(1, _CPU_ENTRIES // num_classes) if _on_cpu() else num_rows
    if num_rows <= size:
        return _add_rows(sums, soft_labels, labels)

    def add_some(i: jax.Array, sums: Sums) -> Sums:
        start = jnp.minimum(i * size, num_rows - size)  # the last rows overlap those before
        fresh = start + jnp.arange(size) >= i * size
        rows = lax.dynamic_slice_in_dim(soft_labels, start, size)
        some = lax.dynamic_slice_in_dim(labels, start, size)
        return _add_rows(sums, rows, jnp.where(fresh, some, num_classes))

    return lax.fori_loop(0, -(-num_rows // size), add_some, sums)


def _add_rows(sums: Sums, soft_labels: jax.Array, labels: jax.Array) -> Sums:
    num_classes, max_k, _ = sums.curvature.shape
    counted = labels < num_classes
    # One place more than is counted: it shows whether the last one is tied.
    values, classes = _largest(lax.stop_gradient(soft_labels), max_k + 1)
    tied = values[:, 1:] == values[:, :-1]
    reaches_beyond = tied[:, -1] & counted
    values, classes = values[:, :-1], classes[:, :-1]

    # For a class with A classes above and E equal, membership as a function of k is a ramp from k
    # = A to k = A + E: its second difference is +1/E at A and −1/E at A + E. So one pass adds up
    # second differences, and two cumulative sums over k give the membership for every k at once.
    place = jnp.broadcast_to(jnp.arange(max_k), values.shape)
    first = jnp.pad(~tied[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    last = jnp.pad(~tied[:, :-1], ((0, 0), (0, 1)), constant_values=True)
    above = lax.cummax(jnp.where(first, place, 0), axis=1)  # A
    end = lax.cummin(jnp.where(last, place + 1, max_k), axis=1, reverse=True)  # A + E
    within = ~(reaches_beyond[:, None] & (end == max_k))
    ramp = jnp.where(within, 1 / (end - above), 0)
    true = labels[:, None]  # of C: dropped
    curvature = sums.curvature.at[true, above, classes].add(ramp, mode="drop")
    curvature = curvature.at[true, end, classes].add(-ramp, mode="drop")
    rows = soft_labels.astype(jnp.float32)
    return Sums(
        examples=sums.examples.at[labels].add(1.0, mode="drop"),
        curvature=_add_tied_rows(
            curvature, soft_labels, labels, reaches_beyond, above[:, -1], classes[:, -1]
        ),
        label_sums=sums.label_sums.at[labels].add(rows, mode="drop"),
        tied=sums.tied + jnp.sum(tied & counted[:, None], axis=0, dtype=jnp.float32),
    )


def _add_tied_rows(
    curvature: jax.Array,
    soft_labels: jax.Array,
    labels: jax.Array,
    chosen: jax.Array,
    above: jax.Array,
    last: jax.Array,
) -> jax.Array:
    """Return `curvature` with the classes tied at the last place of the chosen rows added.

    They may be more than the places at hand, all C of them: whole rows are looked at. Few rows
    ask for that (all, if labels are one-hot), so they are taken some at a time.
    """
    size = min(_TIED_ROWS, len(labels)) if _on_cpu() else len(labels)

    def add_some(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        curvature, left = carry
        taken, some = lax.top_k(left, size)  # finds what jnp.nonzero would, many times faster
        rows = soft_labels[some]
        tied = rows == jnp.take_along_axis(rows, last[some, None], axis=1)
        ramp = tied * (taken / jnp.sum(tied, axis=1, dtype=jnp.float32))[:, None]
        curvature = curvature.at[labels[some], above[some]].add(ramp, mode="drop")
        return curvature, left.at[some].set(0)

    left = chosen.astype(jnp.float32)
    return lax.while_loop(lambda carry: carry[1].any(), add_some, (curvature, left))[0]


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _largest(soft_labels: jax.Array, places: int) -> tuple[jax.Array, jax.Array]:
    """Return the largest entries of every row, `[B, places]`, in order, and their classes."""
    if soft_labels.dtype.itemsize < 4:
        soft_labels = soft_labels.astype(jnp.float32)  # of others top_k is a full sort on a CPU
    num_classes = soft_labels.shape[1]
    if _on_cpu() and num_classes >= _GROUPED_CLASSES and places <= _GROUPED_PLACES:
        return _largest_by_groups(soft_labels, places)
    # Without the barriers XLA merges slices of these into top_k, which then becomes a full sort,
    # 25 times slower for a thousand classes on a CPU. One barrier for both outputs at once would
    # abort XLA's compiler where runs are mapped (jaxlib 0.10.2).
    values, classes = map(lax.optimization_barrier, lax.top_k(soft_labels, places))
    return values, classes


def _largest_by_groups(values: jax.Array, places: int) -> tuple[jax.Array, jax.Array]:
    """Return the largest entries of every row and where they are, both `[B, places]`.

    The largest entries lie in the groups of the largest maxima (equal ones may lie elsewhere too,
    then others of the same value are returned). So all but a few entries are only compared within
    their group, many rows at a time, where a heap compares them one by one.
    """
    num_rows, num_values = values.shape
    if num_values <= _FEW:
        return _pick(values, places)
    num_groups = -(-num_values // _GROUP)
    missing = num_groups * _GROUP - num_values
    values = jnp.pad(values, ((0, 0), (0, missing)), constant_values=-jnp.inf)
    groups = values.reshape(num_rows, _GROUP, num_groups)
    _, best = _largest_by_groups(groups.max(axis=1), places)
    finalists = jnp.take_along_axis(groups, best[:, None, :], axis=2)  # [B, group, places]
    index = best[:, None, :] + num_groups * jnp.arange(_GROUP)[None, :, None]
    values, picked = _pick(finalists.reshape(num_rows, -1), places)
    return values, jnp.take_along_axis(index.reshape(num_rows, -1), picked, axis=1)


def _pick(values: jax.Array, places: int) -> tuple[jax.Array, jax.Array]:
    """Return as `_largest_by_groups`, by taking the largest away, one after the other."""
    position = lax.broadcasted_iota(jnp.int32, values.T.shape, 0)

    def take(values: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        largest = values.max(axis=0)
        at = jnp.where(values == largest[None], position, len(values)).min(axis=0)
        return jnp.where(position == at[None], -jnp.inf, values), (largest, at)

    _, (largest, at) = lax.scan(take, values.T, length=places)
    return largest.T, at.T


@jax.jit
def add(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return a + b, both unevaluated sums `[2, ...]` of a float32 and its rounding error."""
    total = a[0] + b[0]
    b_part = total - a[0]
    error = (a[0] - (total - b_part)) + (b[0] - b_part) + a[1] + b[1]
    rounded = total + error
    return jnp.stack([rounded, error - (rounded - total)])


def value(pair: jax.Array) -> jax.Array:
    """Return the float32 nearest to an unevaluated sum."""
    return pair[0] + pair[1]


def sum_classes(pair: jax.Array) -> jax.Array:
    """Return the sum over the classes, axis 1 of `[2, C, ...]`, still as a pair."""
    per_class = jnp.moveaxis(pair, 1, 0)
    return lax.scan(lambda total, new: (add(total, new), None), per_class[0], per_class[1:])[0]
