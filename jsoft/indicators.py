"""Indicators of soft labels: unreliability Δ, ambiguity γ, and the margins built on them.

A soft label `d` is read only through its top-k set Ω_k(d), the classes of its k largest entries;
any finite numbers will do (probabilities, logits, votes, noisy scores), for only their order
matters. Rows need not sum to one. With true class y,

    Δ = P(y ∉ Ω_k)                            how often the truth is missed
    γ = max over i ≠ y of P(i ∈ Ω_k | Y = y)  how often one wrong class comes along
    κ = 1 − Δ − γ                             the paper's condition is κ > 0

Both depend on k, and the k that suits is a property of the labels, so `measure` gives all of them
at once. γ is read class-conditionally (for one label per example the instance-level supremum is 0
or 1), and its plug-in estimate, a maximum over C(C − 1) cells, is biased upwards in small
samples.

Ties are part of real labels. The default, `"fractional"`, gives every class its expected
membership under uniformly random tie-breaking; taking the lowest index instead (`lax.top_k`)
would make γ = 1 for one-hot labels at k = 2.

Sources: Yuan et al., "Learning From Biased Soft Labels" (arXiv 2302.08155) for Δ, γ and κ; the
estimators and the tie rule are ours, where the paper leaves them open.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jsoft import _counts, _door, theory
from jsoft._counts import Counts as Counts
from jsoft._counts import init as init
from jsoft._counts import merge as merge

Ties = Literal["fractional", "random", "first"]


def membership(
    soft_labels: ArrayLike, k: ArrayLike, *, ties: Ties = "fractional", key: jax.Array | None = None
) -> jax.Array:
    """Return the weight of each class in the top-k set, `[..., C]`.

    With A classes strictly above class i and E classes equal to it (itself included),

        fractional:  weight_i = clip((k − A) / E, 0, 1)

    is the expected membership under uniformly random tie-breaking: deterministic, permutation
    equivariant, and summing to k. `"random"` breaks each row's ties at random and `"first"` by the
    lower index; both give weights in {0, 1}.

    Args:
      soft_labels: `[..., C]` finite floats.
      k: size of the set, 1 … C − 1; may be traced.
      ties: what happens to classes tied at the k-th place.
      key: random key, for `ties="random"` only.

    Raises:
      TypeError, ValueError: integer or non-finite soft labels, k out of range, unknown `ties`, a
        key without random ties or random ties without a key.

    The tie rule is ours; the paper leaves it open. C² comparisons a row.

    >>> membership(jnp.array([0.5, 0.25, 0.25, 0.0]), 2)
    Array([1. , 0.5, 0.5, 0. ], dtype=float32)
    >>> membership(jnp.array([0.5, 0.25, 0.25, 0.0]), 2, ties="first")
    Array([1., 1., 0., 0.], dtype=float32)
    """
    soft_labels = jnp.asarray(soft_labels)
    _door.check_soft_labels(soft_labels)
    num_classes = soft_labels.shape[-1]
    _check_k(k, num_classes)
    if ties not in ("fractional", "random", "first"):
        raise ValueError(f'ties: expected "fractional", "random" or "first", got {ties!r}')
    if key is not None and ties != "random":
        raise ValueError(f"key: expected None with ties={ties!r}, which draws nothing, got a key")
    if ties == "fractional":
        return _fractional_membership(soft_labels, k).astype(soft_labels.dtype)
    order = jnp.broadcast_to(jnp.arange(num_classes), soft_labels.shape)
    if ties == "random":
        if key is None:
            raise ValueError('key: expected a random key with ties="random", got None')
        order = jax.random.permutation(key, order, axis=-1, independent=True)
    return _ordered_membership(soft_labels, order, k).astype(soft_labels.dtype)


# Compiled even when called by itself: the C² comparisons of a row are then never stored.
@jax.jit
def _fractional_membership(soft_labels: jax.Array, k: ArrayLike) -> jax.Array:
    """Return the expected membership `[..., C]` in float32, whatever the dtype of the labels."""
    above = soft_labels[..., None, :] > soft_labels[..., :, None]  # [..., C, C], of j over i
    equal = soft_labels[..., None, :] == soft_labels[..., :, None]
    places_left = (k - above.sum(axis=-1)).astype(jnp.float32)
    return jnp.clip(places_left / equal.sum(axis=-1), 0, 1)


@jax.jit
def _ordered_membership(soft_labels: jax.Array, order: jax.Array, k: ArrayLike) -> jax.Array:
    """Return which classes `[..., C]` are among the first k, ties going to the lower `order`."""
    above = soft_labels[..., None, :] > soft_labels[..., :, None]
    equal = soft_labels[..., None, :] == soft_labels[..., :, None]
    ahead = above | (equal & (order[..., None, :] < order[..., :, None]))
    return ahead.sum(axis=-1) < k


def pessimistic_sets(soft_labels: ArrayLike, labels: ArrayLike, k: ArrayLike) -> jax.Array:
    """Return the top-k sets with every tie decided against the labels, booleans `[..., C]`.

    The true class y is in only if fewer than k others reach its value, #{j ≠ y: d_j ≥ d_y} < k; a
    wrong class i is in as soon as #{j: d_j > d_i} < k. Δ and γ of these sets bound those of any
    tie-breaking rule from above, which is what a certificate needs. The sets may hold more or
    fewer than k classes.

    Args:
      soft_labels: `[..., C]` finite floats.
      labels: `[...]` integers, the true classes.
      k: 1 … C − 1; may be traced.

    Raises:
      TypeError, ValueError: as `membership`; labels of another shape or out of range.

    Derived here, from the definition of Δ and γ.

    >>> pessimistic_sets(jnp.array([0.5, 0.25, 0.25, 0.0]), jnp.array(1), 2)
    Array([ True, False,  True, False], dtype=bool)
    """
    soft_labels = jnp.asarray(soft_labels)
    _door.check_soft_labels(soft_labels)
    num_classes = soft_labels.shape[-1]
    _door.check_labels("labels", labels, num_classes=num_classes, shape=soft_labels.shape[:-1])
    _check_k(k, num_classes)
    ascending = jnp.sort(soft_labels, axis=-1)
    kth = jnp.take(ascending, num_classes - jnp.asarray(k)[None], axis=-1)  # [..., 1]
    next_to_kth = jnp.take(ascending, num_classes - 1 - jnp.asarray(k)[None], axis=-1)
    is_true = jax.nn.one_hot(labels, num_classes, dtype=bool)
    return jnp.where(is_true, soft_labels > next_to_kth, soft_labels >= kth)


def unreliability_degree(
    soft_labels: ArrayLike, labels: ArrayLike, k: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """Return Δ, the share of examples whose true class is not in the top-k set, `[]`.

        Δ = (1/N) Σ_n (1 − membership(d_n, k)[y_n])

    Args:
      soft_labels: `[N, C]` finite floats.
      labels: `[N]` integers, the true classes.
      k: 1 … C − 1; may be traced.
      where: `[N]` booleans, the examples that count (all by default).

    Raises:
      TypeError, ValueError: soft labels or labels of wrong dtype, shape or range; k out of range;
        no example left.

    Source: the unreliability degree of arXiv 2302.08155; ties by fractional membership (ours).

    >>> soft_labels = jnp.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]])
    >>> print(unreliability_degree(soft_labels, jnp.array([0, 1]), 1))
    0.5
    """
    soft_labels, labels, where = _check(soft_labels, labels, where)
    _check_k(k, soft_labels.shape[1])
    members = _fractional_membership(soft_labels, k)
    missed = 1 - jnp.take_along_axis(members, labels[:, None], axis=1)[:, 0]
    return jnp.mean(missed, where=where)


def _frequencies(
    soft_labels: ArrayLike, labels: ArrayLike, k: ArrayLike, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array]:
    """Return P(i ∈ Ω_k | Y = y), `[C, C]`, and which classes y are present, `[C]`."""
    soft_labels, labels, where = _check(soft_labels, labels, where)
    _check_k(k, soft_labels.shape[1])
    return _class_means(_fractional_membership(soft_labels, k), labels, where)


def ambiguity_matrix(
    soft_labels: ArrayLike, labels: ArrayLike, k: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """Return P(i ∈ Ω_k | Y = y) for every true class y (row) and class i (column), `[C, C]`.

    The diagonal holds 1 − Δ_y; the largest entry off it is γ. Every row sums to k, hence the
    wrong classes of row y share k − 1 + Δ_y. Rows of classes that no label names are NaN: nothing
    is known.

    Args, raises: as `unreliability_degree`. Source: the ambiguity degree of arXiv 2302.08155 and of
    Cour, Sapp & Taskar (JMLR 2011), read class-conditionally (ours).

    >>> soft_labels = jnp.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]])
    >>> ambiguity_matrix(soft_labels, jnp.array([1, 1]), 1)
    Array([[nan, nan, nan],
           [ 1.,  0.,  0.],
           [nan, nan, nan]], dtype=float32)
    """
    frequencies, present = _frequencies(soft_labels, labels, k, where)
    return jnp.where(present[:, None], frequencies, jnp.nan)


def ambiguity_degree(
    soft_labels: ArrayLike, labels: ArrayLike, k: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """Return γ, the largest chance of one wrong class to share the top-k set with the truth, `[]`.

        γ = max over present y and i ≠ y of P(i ∈ Ω_k | Y = y)

    The plug-in estimate: a maximum of C(C − 1) frequencies, hence biased upwards when classes are
    small.

    Args, raises, source: as `ambiguity_matrix`.

    >>> soft_labels = jnp.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]])
    >>> print(ambiguity_degree(soft_labels, jnp.array([0, 1]), 1))
    1.0
    """
    return _worst_wrong_class(*_frequencies(soft_labels, labels, k, where))[0]


def mean_label_margin(
    soft_labels: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """Return μ, by how much the mean soft label of the worst class favours the truth, `[]`.

        μ = min over present y of ( E[d_y | y] − max over i ≠ y of E[d_i | y] )

    A student of the raw labels (cross-entropy or KL) is consistent iff μ > 0; Δ and γ do not
    decide it. Unlike the other indicators, μ depends on the values and not only on their order.

    Args:
      soft_labels: `[N, C]` finite floats.
      labels: `[N]` integers, the true classes.
      where: `[N]` booleans, the examples that count (all by default).

    Raises:
      TypeError, ValueError: as `unreliability_degree`.

    Derived here: cross-entropy is minimised by the conditional mean of its targets.

    >>> soft_labels = jnp.array([[0.75, 0.25, 0.0], [0.25, 0.75, 0.0], [0.0, 0.5, 0.5]])
    >>> print(mean_label_margin(soft_labels, jnp.array([0, 1, 1])))
    0.375
    """
    soft_labels, labels, where = _check(soft_labels, labels, where)
    return _mean_margin(*_class_means(soft_labels.astype(jnp.float32), labels, where))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Indicators:
    """The indicators of a set of soft labels for k = 1 … K; `str()` of it is a table.

    Attributes:
      k: `[K]` sizes of the top-k set.
      unreliability: `[K]` Δ.
      ambiguity: `[K]` γ, the plug-in estimate.
      margin: `[K]` κ = 1 − Δ − γ.
      divergence: `[K]` D(Δ, γ), the error exponent of `theory.divergence`: 1/D scales the
        examples needed.
      worst_pair: `[K, 2]` the true class and the wrong class at which γ is attained.
      tied: `[K]` share of examples whose k-th and (k + 1)-th largest entries are equal.
      mean_label_margin: `[]` μ, what decides whether the raw labels can be fitted by cross-entropy.
    """

    k: jax.Array
    unreliability: jax.Array
    ambiguity: jax.Array
    margin: jax.Array
    divergence: jax.Array
    worst_pair: jax.Array
    tied: jax.Array
    mean_label_margin: jax.Array

    def __str__(self) -> str:
        if not _door.is_concrete(*jax.tree.leaves(self)) or self.k.ndim != 1:
            return repr(self)  # inside a transformation, or mapped
        on_host = jax.tree.map(np.asarray, self)
        best = int(np.argmax(on_host.divergence))
        learnable = on_host.margin[best] > 0
        lines = ["    k        Δ        γ   (true, other)        κ        D   tied"]
        for row in _rows_worth_showing(len(on_host.k), best):
            if row is None:
                lines.append("    …")
                continue
            mark = "*" if learnable and row == best else " "
            pair = "({}, {})".format(*on_host.worst_pair[row])
            lines.append(
                f"{mark} {on_host.k[row]:>3}  {on_host.unreliability[row]:.5f}"
                f"  {on_host.ambiguity[row]:.5f}  {pair:>14}  {on_host.margin[row]:>7.4f}"
                f"  {on_host.divergence[row]:.5f}  {on_host.tied[row]:>5.1%}"
            )
        if learnable:
            verdict = f"* largest D, at k = {on_host.k[best]}: Δ + γ < 1 holds on this sample"
        else:
            verdict = (
                "Δ + γ ≥ 1 for every k: the top-k sets of these labels do not separate the classes"
            )
        mu = float(on_host.mean_label_margin)
        raw = "can be fitted as they are" if mu > 0 else "mislead plain cross-entropy"
        return "\n".join([*lines, verdict, f"mean-label margin μ = {mu:.4f}: the raw labels {raw}"])


def _rows_worth_showing(num_rows: int, best: int) -> list[int | None]:
    """Return all rows of a short table; of a long one the first ten, the best and the last."""
    if num_rows <= 20:
        return list(range(num_rows))
    shown: list[int | None] = []
    previous = -1
    for row in sorted({*range(10), best, num_rows - 1}):
        if row != previous + 1:
            shown.append(None)  # rows left out
        shown.append(row)
        previous = row
    return shown


def measure(
    soft_labels: ArrayLike,
    labels: ArrayLike,
    *,
    max_k: int | None = None,
    where: ArrayLike | None = None,
) -> Indicators:
    """Return Δ, γ, κ, D and what belongs to them for k = 1 … `max_k`, in one pass over the data.

    Equal to `unreliability_degree`, `ambiguity_degree` at every k, at the price of one top-k of
    the largest k. Classes that no label names have no row of their own (they can still be the
    wrong class of others). Memory: C · max_k · C counts, so with a thousand classes ask for the k
    you need.

    Args:
      soft_labels: `[N, C]` finite floats; rows need not sum to one.
      labels: `[N]` integers, the true classes.
      max_k: largest k, 1 … C − 1 (C − 1 by default).
      where: `[N]` booleans, the examples that count (all by default).

    Raises:
      TypeError, ValueError: soft labels or labels of wrong dtype, shape or range; `max_k` out of
        range; no example left.

    Source: Δ, γ and κ of arXiv 2302.08155; D, the tie rule and the estimators are derived here.

    >>> soft_labels = jnp.array([[0.6, 0.3, 0.1], [0.4, 0.5, 0.1], [0.1, 0.8, 0.1], [0, 0.1, 0.9]])
    >>> print(measure(soft_labels, jnp.array([0, 0, 1, 2])))
        k        Δ        γ   (true, other)        κ        D   tied
    *   1  0.25000  0.50000          (0, 1)   0.2500  0.04289   0.0%
        2  0.00000  1.00000          (0, 1)   0.0000  0.00000  25.0%
    * largest D, at k = 1: Δ + γ < 1 holds on this sample
    mean-label margin μ = 0.1000: the raw labels can be fitted as they are
    """
    soft_labels, labels, where = _check(soft_labels, labels, where)
    num_classes = soft_labels.shape[1]
    state = init(num_classes, num_classes - 1 if max_k is None else max_k)
    return compute(_counts.count(state, soft_labels, jnp.where(where, labels, num_classes)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SetIndicators:
    """The indicators of a set of candidate sets.

    Attributes:
      mean_size: `[]` mean number of classes in a set.
      unreliability: `[]` Δ.
      ambiguity: `[]` γ, the plug-in estimate.
      margin: `[]` κ = 1 − Δ − γ.
      divergence: `[]` D(Δ, γ).
      worst_pair: `[2]` the true class and the wrong class at which γ is attained.
    """

    mean_size: jax.Array
    unreliability: jax.Array
    ambiguity: jax.Array
    margin: jax.Array
    divergence: jax.Array
    worst_pair: jax.Array


def measure_sets(
    candidate_sets: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None
) -> SetIndicators:
    """Return Δ, γ and what belongs to them of candidate sets, which stand where top-k sets stood.

        Δ = P(y ∉ s),   γ = max over present y and i ≠ y of P(i ∈ s | Y = y)

    Args:
      candidate_sets: `[N, C]` booleans, of any size each; empty sets are sets that miss the truth.
      labels: `[N]` integers, the true classes.
      where: `[N]` booleans, the examples that count (all by default).

    Raises:
      TypeError, ValueError: sets that are not booleans; labels of wrong dtype, shape or range; no
        example left.

    Source: the ambiguity degree of Cour, Sapp & Taskar (JMLR 2011), with the unreliability degree
      of arXiv 2302.08155; class-conditional reading (ours).

    >>> sets = jnp.array([[True, True, False], [True, False, False], [False, True, False]])
    >>> found = measure_sets(sets, jnp.array([0, 0, 2]))
    >>> print(found.unreliability.round(4), found.ambiguity, found.worst_pair)
    0.3333 1.0 [2 1]
    """
    candidate_sets = jnp.asarray(candidate_sets)
    _door.check_sets("candidate_sets", candidate_sets, ndim=2)
    labels, where = _check_labels(labels, where, candidate_sets.shape)
    sets = candidate_sets.astype(jnp.float32)
    unreliability = 1 - jnp.mean(
        jnp.take_along_axis(sets, labels[:, None], axis=1)[:, 0], where=where
    )
    ambiguity, worst_pair = _worst_wrong_class(*_class_means(sets, labels, where))
    return SetIndicators(
        mean_size=jnp.mean(sets.sum(axis=1), where=where),
        unreliability=unreliability,
        ambiguity=ambiguity,
        margin=theory.margin(unreliability, ambiguity),
        divergence=theory.divergence(unreliability, ambiguity),
        worst_pair=worst_pair,
    )


def update(
    state: Counts, soft_labels: ArrayLike, labels: ArrayLike, where: ArrayLike | None = None
) -> Counts:
    """Return `state` with a batch of examples counted in.

    Args:
      state: counts so far, from `init`.
      soft_labels: `[B, C]` finite floats.
      labels: `[B]` integers, the true classes.
      where: `[B]` booleans, the examples that count; pad a last, short batch and mask the padding.

    Raises:
      TypeError, ValueError: as `measure`; another number of classes than the state's.

    Derived here; rounding as in `measure`.

    >>> state = update(init(3, 2), jnp.array([[0.6, 0.3, 0.1]]), jnp.array([0]))
    >>> state = update(state, jnp.array([[0.1, 0.2, 0.7]]), jnp.array([2]))
    >>> print(compute(state).unreliability)
    [0. 0.]
    """
    soft_labels, labels, where = _check(soft_labels, labels, where)
    num_classes = state.examples.shape[-1]
    if soft_labels.shape[1] != num_classes:
        raise ValueError(
            f"soft_labels: expected {num_classes} classes as in state, got {soft_labels.shape[1]}"
        )
    return _counts.count(state, soft_labels, jnp.where(where, labels, num_classes))


def compute(state: Counts) -> Indicators:
    """Return the indicators of all examples counted in `state`.

    Raises:
      ValueError: nothing has been counted (traced counts of nothing give NaN).

    Source: as `measure`.

    >>> state = update(init(3, 2), jnp.array([[0.6, 0.3, 0.1]]), jnp.array([0]))
    >>> print(compute(state).ambiguity)
    [0. 1.]
    """
    if _door.is_concrete(state.examples) and not np.any(state.examples):
        raise ValueError("state: expected at least one example, got empty counts")
    return _compute(state)


@jax.jit
def _compute(state: Counts) -> Indicators:
    max_k = state.tied.shape[1]
    hits = jnp.moveaxis(jnp.diagonal(state.members, axis1=1, axis2=3), 2, 1)  # [2, C, K]
    examples = jnp.broadcast_to(state.examples[:, :, None], hits.shape)
    # Subtracted before rounding: a Δ of 1e-9 survives. Clipped: thirds do not sum to one exactly.
    misses = _counts.value(_counts.sum_classes(_counts.add(examples, -hits)))  # [K]
    total = _counts.value(_counts.sum_classes(state.examples))
    unreliability = jnp.clip(misses / total, 0, 1)
    per_class = _counts.value(state.examples)
    present = per_class > 0
    per_class = jnp.maximum(per_class, 1)
    frequencies = jnp.clip(
        _counts.value(state.members) / per_class[:, None, None], 0, 1
    )  # [C, K, C]
    ambiguity, worst_pair = jax.vmap(_worst_wrong_class, in_axes=(1, None))(frequencies, present)
    return Indicators(
        k=jnp.arange(1, max_k + 1),
        unreliability=unreliability,
        ambiguity=ambiguity,
        margin=theory.margin(unreliability, ambiguity),
        divergence=theory.divergence(unreliability, ambiguity),
        worst_pair=worst_pair,
        tied=_counts.value(state.tied) / total,
        mean_label_margin=_mean_margin(
            _counts.value(state.label_sums) / per_class[:, None], present
        ),
    )


def _class_means(
    values: jax.Array, labels: jax.Array, where: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the mean row of `values` [N, C] for every true class, `[C, C]`, and who is present."""
    one_hot = jax.nn.one_hot(labels, values.shape[1]) * where[:, None]
    counts = one_hot.sum(axis=0)
    # Accelerators default to fewer digits in a matrix product.
    sums = jnp.matmul(one_hot.T, values, precision=lax.Precision.HIGHEST)
    return sums / jnp.maximum(counts, 1)[:, None], counts > 0


def _worst_wrong_class(frequencies: jax.Array, present: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the largest entry off the diagonal of `[C, C]` in a present row, and where it is."""
    right = jnp.eye(len(frequencies), dtype=bool)
    wrong = jnp.where(right | ~present[:, None], -jnp.inf, frequencies)
    worst = wrong.max(axis=1)  # first by row: an argmax over all C² takes a CPU much longer
    row = jnp.argmax(worst)
    pair = jnp.stack([row, jnp.argmax(wrong[row])])
    return jnp.where(present.any(), worst.max(), jnp.nan), pair


def _mean_margin(mean_labels: jax.Array, present: jax.Array) -> jax.Array:
    """Return μ from the mean soft label of every class, `[C, C]`."""
    right = jnp.eye(len(mean_labels), dtype=bool)
    margins = jnp.diagonal(mean_labels) - jnp.where(right, -jnp.inf, mean_labels).max(axis=1)
    return jnp.where(present.any(), jnp.where(present, margins, jnp.inf).min(), jnp.nan)


def _check_k(k: ArrayLike, num_classes: int) -> None:
    _door.check_scalar(k=k)
    _door.check_k("k", k, num_classes)


def _check_labels(
    labels: ArrayLike, where: ArrayLike | None, shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """Return labels and mask for rows of `shape` [N, C]; masked labels become 0."""
    where = jnp.ones(shape[:-1], bool) if where is None else jnp.asarray(where)
    _door.check_where("where", where, shape[:-1])
    _door.check_labels("labels", labels, num_classes=shape[-1], shape=shape[:-1], where=where)
    return jnp.where(where, jnp.asarray(labels), 0), where


def _check(
    soft_labels: ArrayLike, labels: ArrayLike, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return checked arrays; masked rows become zeros, so that what they held cannot spread."""
    soft_labels = jnp.asarray(soft_labels)
    _door.check_float("soft_labels", soft_labels)
    _door.check_classes("soft_labels", soft_labels, ndim=2)
    labels, mask = _check_labels(labels, where, soft_labels.shape)
    _door.check_finite("soft_labels", soft_labels, mask)
    if where is not None:
        soft_labels = jnp.where(mask[:, None], soft_labels, 0)
    return soft_labels, labels, mask
