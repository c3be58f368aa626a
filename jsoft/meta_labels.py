"""Labels as parameters: soft labels learned through a few examples whose labels are trusted.

A model takes a step with the labels Y of a batch, on trial; a loss on trusted examples tells how
good a step it was, and its derivative in Y which labels should have been otherwise:

    g  = ∇ L(θ, Y),   L(θ, Y) = −(1/B) Σ_i Σ_c Y_ic log p_ic(θ)   the batch's loss
    θ′ = θ − η g                                                  the look-ahead, thrown away
    G  = ∂ M(θ′) / ∂Y                                             M, the trusted examples' loss
    Y ← project(Y − β G)                                          the step of the labels
    θ ← θ − η ∇ L(θ, Y)                                           the real step, Y a constant

L is linear in Y, so G takes one forward-mode pass instead of second derivatives. With
w = ∂M(θ′)/∂g, which is −η ∇M(θ′) for plain descent,

    G_ic = −(1/B) ⟨∇ log p_ic(θ), w⟩

Only w knows the optimiser, so that momentum, weight decay or Adam change nothing else. Labels are
one row for each example, `[N, C]` (noisy labels), or one for each given class, `[C, C]` (clean
ones). No example may be both trusted and trained on.

Source: Vyas, Saxena & Voice, "Learning Soft Labels via Meta Learning" (arXiv 2009.09496). The
algorithm is reconstructed from what the abstract says; the form of G is derived here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from jsoft import _door, targets

Projection = Literal["simplex", "clip_renormalize", "softmax"]


def init_labels(
    hard_labels: ArrayLike, *, num_classes: int, smoothing: ArrayLike = 0.0
) -> jax.Array:
    """Return the labels that learning starts from, (1 − s) 1[c = h] + s/C, `[..., C]`.

    Args:
      hard_labels: `[...]` integers, the given classes h.
      num_classes: C.
      smoothing: s in [0, 1]; may be traced. Above 0, the labels' logarithm is finite, from which
        logits are learned.

    Raises:
      TypeError, ValueError: labels that are not integers in range, a smoothing outside [0, 1].

    Reconstructed.

    >>> init_labels(jnp.array([1, 0]), num_classes=2, smoothing=0.5)
    Array([[0.25, 0.75],
           [0.75, 0.25]], dtype=float32)
    """
    _door.check_scalar(smoothing=smoothing)
    _door.check_levels(smoothing=smoothing)
    return targets.smooth(targets.one_hot(hard_labels, num_classes), alpha=smoothing)


def init_class_labels(num_classes: int, *, smoothing: ArrayLike = 0.0) -> jax.Array:
    """Return the labels that learning starts from, row h for all of given class h, `[C, C]`.

    Args, raises: as `init_labels`. Reconstructed.

    >>> init_class_labels(2, smoothing=0.5)
    Array([[0.75, 0.25],
           [0.25, 0.75]], dtype=float32)
    """
    _door.check_whole(2, num_classes=num_classes)
    return init_labels(np.arange(num_classes), num_classes=num_classes, smoothing=smoothing)


def lookahead_params(params: Any, gradients: Any, *, lr: ArrayLike) -> Any:
    """Return the parameters after one step of plain descent, θ − η g, a pytree like `params`.

    Both are pytrees of floats of one structure; η, 0 or more, may be traced.

    Raises:
      TypeError, ValueError: a rate that is below zero or not one number; unlike pytrees.

    Reconstructed.

    >>> lookahead_params({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([2.0, 2.0])}, lr=0.5)
    {'w': Array([0., 1.], dtype=float32)}
    """
    _check_rate(lr)
    if (found := jax.tree.structure(gradients)) != (expected := jax.tree.structure(params)):
        raise ValueError(f"gradients: expected the structure of params, {expected}, got {found}")

    def step(param: jax.Array, gradient: jax.Array) -> jax.Array:
        _check_floats("gradients", gradient, param.shape)
        return param - (lr * gradient).astype(param.dtype)

    return jax.tree.map(step, params, gradients)


def meta_label_gradient(
    logits_fn: Callable[[Any, Any], jax.Array],
    params: Any,
    inputs: Any,
    labels: ArrayLike,
    meta_loss_fn: Callable[[Any], jax.Array],
    *,
    lr: ArrayLike,
    lookahead: Callable[..., Any] = lookahead_params,
    method: Literal["jvp", "reverse"] = "jvp",
    inner_steps: int = 1,
    normalize: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Return the derivative of the trusted loss in the batch's labels, `[B, C]`, and that loss.

        G = ∂ M(θ′)/∂Y and M(θ′),   θ′ = lookahead(θ, ∇ L(θ, Y), lr=η)

    Labels are free here (rows need not sum to one), and Σ_c p_ic G_ic = 0. A network with batch
    statistics closes over old ones or computes the batch's; the real step alone keeps new ones.

    Args:
      logits_fn: pure function `(params, inputs) -> logits [B, C]`. A class with logit −∞ takes no
        part: it costs nothing, whatever its label, and its gradient is 0.
      params: pytree of floats, θ.
      inputs: the batch as the real step sees it, augmented alike.
      labels: `[B, C]` float32 or float64, finite; G is computed in no fewer digits.
      meta_loss_fn: pure function `params -> []`, M: the loss of the trusted examples.
      lr: η of the look-ahead, 0 or more; may be traced. G fades as it does.
      lookahead: `(params, gradients, lr=η) -> params`, plain descent by default; of optax,
        `lambda p, g, lr: optax.apply_updates(p, optimizer.update(g, state, p)[0])`.
      method: "jvp" (forward mode), or "reverse", the same number by second derivatives.
      inner_steps: steps of the look-ahead, all on this batch; several need "reverse".
      normalize: return G · B/η, which depends on neither batch size nor learning rate.

    Raises:
      TypeError, ValueError: labels of wrong dtype or shape, or not finite; functions that return
        something else; rate, method or inner steps out of range or unfit for each other.

    Reconstructed; forward mode for every look-ahead is derived here.

    >>> logits_fn = lambda params, inputs: inputs @ params
    >>> trusted = lambda params: -jax.nn.log_softmax(jnp.ones(1) @ params)[0]  # x = 1 is class 0
    >>> params, inputs, labels = jnp.zeros((1, 2)), jnp.ones((1, 1)), jnp.full((1, 2), 0.5)
    >>> gradient, loss = meta_label_gradient(logits_fn, params, inputs, labels, trusted, lr=1.0)
    >>> print(gradient, f"{loss:.4f}")  # p − t = (−0.5, 0.5); log 2
    [[-0.5  0.5]] 0.6931
    """
    labels = jnp.asarray(labels)
    _check_label_rows("labels", labels, ndim=2)
    _check_rate(lr)
    if normalize:
        _door.check_positive(lr=lr)
    _door.check_whole(1, inner_steps=inner_steps)
    if method not in ("jvp", "reverse"):
        raise ValueError(f'method: expected "jvp" or "reverse", got {method!r}')
    if method == "jvp" and inner_steps > 1:
        raise ValueError(f'inner_steps: expected 1 with method="jvp", got {inner_steps}')
    _check_floats("logits_fn", jax.eval_shape(logits_fn, params, inputs), labels.shape)
    _check_floats("meta_loss_fn", jax.eval_shape(meta_loss_fn, params), ())
    batch_size = len(labels)

    def log_probabilities(params: Any) -> jax.Array:
        logits = logits_fn(params, inputs)
        log_p = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, labels.dtype)))
        return jnp.where(jnp.isneginf(log_p), 0, log_p)  # a class that is ruled out

    if method == "jvp":
        # One forward pass for both directions: ∇L is the linear map transposed.
        log_p, push = jax.linearize(log_probabilities, params)
        pull = jax.linear_transpose(push, params)
        (gradients,) = pull(-labels.astype(log_p.dtype) / batch_size)
        meta_loss, back = jax.value_and_grad(
            lambda gradients: meta_loss_fn(lookahead(params, gradients, lr=lr))
        )(gradients)
        gradient = -push(back) / batch_size
    else:

        def loss(params: Any, labels: jax.Array) -> jax.Array:
            return -(labels * log_probabilities(params)).sum() / batch_size

        def loss_after(labels: jax.Array) -> jax.Array:
            moved = params
            for _ in range(inner_steps):
                moved = lookahead(moved, jax.grad(loss)(moved, labels), lr=lr)
            return meta_loss_fn(moved)

        meta_loss, gradient = jax.value_and_grad(loss_after)(labels)
    if normalize:
        gradient = gradient * (batch_size / lr)
    return gradient.astype(labels.dtype), meta_loss


def class_label_gradient(
    instance_gradient: ArrayLike, hard_labels: ArrayLike, *, num_classes: int
) -> jax.Array:
    """Return the derivative in labels that a class shares, ∂M/∂Q_h = Σ_{i: h_i = h} G_i, `[C, C]`.

    Args:
      instance_gradient: `[B, C]` floats, G of `meta_label_gradient`.
      hard_labels: `[B]` integers, the given classes h; a class without examples has a row of 0.
      num_classes: C.

    Raises:
      TypeError, ValueError: gradients or labels of wrong dtype, shape or range.

    Derived here.

    >>> class_label_gradient(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1, 1]), num_classes=2)
    Array([[0., 0.],
           [4., 6.]], dtype=float32)
    """
    gradient = jnp.asarray(instance_gradient)
    _check_floats("instance_gradient", gradient, (*np.shape(hard_labels), num_classes))
    rows = gradient.shape[:1]
    _door.check_labels("hard_labels", hard_labels, num_classes=num_classes, shape=rows)
    return jax.ops.segment_sum(gradient, jnp.asarray(hard_labels), num_classes)


def project_simplex(values: ArrayLike) -> jax.Array:
    """Return the nearest probability vector of every row, `[..., C]`.

        argmin ‖q − x‖²  over q ≥ 0, Σ_c q_c = 1

    Differentiable almost everywhere. A row that holds NaN or +∞ comes back as NaN.

    Raises:
      TypeError, ValueError: values that are not floating-point; fewer than two classes.

    `optax.projections.projection_simplex`, row by row.

    >>> project_simplex(jnp.array([[0.75, 0.75, -1.0], [5.0, 0.0, 0.0]]))
    Array([[0.5, 0.5, 0. ],
           [1. , 0. , 0. ]], dtype=float32)
    """
    values = jnp.asarray(values)
    _door.check_float("values", values)
    _door.check_classes("values", values)
    project = jnp.vectorize(optax.projections.projection_simplex, signature="(c)->(c)")
    return project(values.astype(jnp.promote_types(values.dtype, jnp.float32))).astype(values.dtype)


def update_labels(
    labels: ArrayLike, gradient: ArrayLike, *, lr: ArrayLike, projection: Projection = "simplex"
) -> jax.Array:
    """Return the labels after one step against the gradient, valid again, `[..., C]`.

    Args:
      labels: `[..., C]` float32 or float64, finite.
      gradient: floats of the same shape, finite.
      lr: β, 0 or more; may be traced. 0.1 suits a normalised gradient, 0.1 B/η one that is not.
      projection: how labels stay probabilities. "simplex": the nearest to Y − β G.
        "clip_renormalize": max(Y − β G, 0) over its sum; a row with nothing left becomes uniform.
        "softmax": `labels` are logits Z of Y = softmax(Z), and so is what comes back, Z − β dZ with
        dZ = Y (G − Σ_c Y_c G_c).

    Raises:
      TypeError, ValueError: arrays of wrong dtype or shape, or not finite; rate or projection.

    Reconstructed, and the rates too, from a prototype of ours; dZ is derived here.

    >>> update_labels(jnp.array([0.5, 0.5]), jnp.array([-0.5, 0.5]), lr=0.5)
    Array([0.75, 0.25], dtype=float32)
    """
    labels, gradient = jnp.asarray(labels), jnp.asarray(gradient)
    _check_rate(lr)
    _check_label_rows("labels", labels)
    _check_floats("gradient", gradient, labels.shape)
    _door.check_finite("gradient", gradient)
    change = lr * _direction(labels, gradient, projection)
    return _projected(labels - change.astype(labels.dtype), projection)


def scatter_label_update(
    table: ArrayLike,
    indices: ArrayLike,
    gradient: ArrayLike,
    *,
    lr: ArrayLike,
    projection: Projection = "simplex",
) -> jax.Array:
    """Return the table of labels after a step of the batch's rows, `[N, C]`.

    Gradients of a row that comes up several times add; other rows stay as they are. With the given
    classes as indices it is the step of labels that a class shares.

    Args:
      table: `[N, C]`, as the labels of `update_labels`.
      indices: `[B]` integers in 0 … N − 1, the row of each example of the batch.
      gradient: `[B, C]` floats, finite.
      lr: as of `update_labels`.
      projection: as of `update_labels`.

    Raises:
      TypeError, ValueError: as `update_labels`; indices that are no rows of the table.

    Reconstructed.

    >>> table = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    >>> gradient = jnp.array([[0.25, -0.25], [0.25, -0.25]])
    >>> scatter_label_update(table, jnp.array([1, 1]), gradient, lr=1.0)
    Array([[1. , 0. ],
           [0.5, 0.5]], dtype=float32)
    """
    table, gradient = jnp.asarray(table), jnp.asarray(gradient)
    _check_rate(lr)
    _check_label_rows("table", table, ndim=2)
    _check_floats("gradient", gradient, (*np.shape(indices), table.shape[1]))
    _door.check_finite("gradient", gradient)
    _door.check_labels("indices", indices, num_classes=len(table), shape=gradient.shape[:1])
    indices = jnp.asarray(indices)
    change = lr * _direction(table[indices], gradient, projection)
    moved = table.at[indices].add(-change.astype(table.dtype))
    return moved.at[indices].set(_projected(moved[indices], projection))


class Recovery(NamedTuple):
    """What learning made of hard labels that were wrong in part, shares `[]`."""

    fixed: jax.Array  # of the wrong ones, how many are right now; NaN where none was wrong
    kept: jax.Array  # of the right ones, how many are right still; NaN where none was right
    accuracy: jax.Array  # of all, how many are right now


def label_recovery(learned: ArrayLike, given: ArrayLike, true: ArrayLike) -> Recovery:
    """Return how many wrong labels were fixed, how many right ones kept, how many are right.

    Args:
      learned: `[N, C]` finite floats, read by their first largest entry, or `[N]` classes.
      given: `[N]` integers, the labels that learning started from.
      true: `[N]` integers, the true classes.

    Raises:
      TypeError, ValueError: labels of wrong dtype, shape or range.

    Derived here.

    >>> found = label_recovery(jnp.array([0, 1, 2, 0]), jnp.array([0, 0, 1, 1]),
    ...                        jnp.array([0, 1, 2, 1]))
    >>> print(*found)  # both wrong ones fixed, one of two right ones kept
    1.0 0.5 0.75
    """
    learned = jnp.asarray(learned)
    num_classes = np.iinfo(np.int32).max
    if jnp.issubdtype(learned.dtype, jnp.floating):
        _door.check_classes("learned", learned, ndim=2)
        _door.check_finite("learned", learned)
        num_classes = learned.shape[1]
        learned = jnp.argmax(learned, axis=-1)
    for name, labels in {"learned": learned, "given": given, "true": true}.items():
        _door.check_labels(name, labels, num_classes=num_classes, shape=learned.shape[:1])
    right, was_right = learned == jnp.asarray(true), jnp.asarray(given) == jnp.asarray(true)
    fixed, kept = (jnp.mean(right, where=among) for among in (~was_right, was_right))
    return Recovery(fixed, kept, right.mean())


def _direction(labels: jax.Array, gradient: jax.Array, projection: Projection) -> jax.Array:
    """Return the derivative in what is learned: the labels, or the logits that make them."""
    if projection != "softmax":
        return gradient
    probabilities = jax.nn.softmax(labels)
    return probabilities * (gradient - (probabilities * gradient).sum(axis=-1, keepdims=True))


def _projected(labels: jax.Array, projection: Projection) -> jax.Array:
    """Return labels that are valid again after a step."""
    if projection == "simplex":
        return project_simplex(labels)
    if projection == "softmax":
        return labels
    if projection != "clip_renormalize":
        raise ValueError(
            f'projection: expected "simplex", "clip_renormalize" or "softmax", got {projection!r}'
        )
    clipped = jnp.maximum(labels, 0)
    total = clipped.sum(axis=-1, keepdims=True)
    return jnp.where(total > 0, clipped / jnp.where(total > 0, total, 1), 1 / labels.shape[-1])


def _check_label_rows(name: str, rows: jax.Array, ndim: int | None = None) -> None:
    """Raise unless the rows are finite floats that do not lose small steps, `[..., C]`."""
    if rows.dtype not in (jnp.float32, jnp.float64):
        raise TypeError(f"{name}: expected float32 or float64, got dtype {rows.dtype}")
    _door.check_classes(name, rows, ndim)
    _door.check_finite(name, rows)


def _check_floats(name: str, value: Any, shape: tuple[int, ...]) -> None:
    """Raise unless the value is, or is going to be, floats of this shape."""
    _door.check_float(name, value)
    if value.shape != shape:
        raise ValueError(f"{name}: expected shape {list(shape)}, got {list(value.shape)}")


def _check_rate(lr: ArrayLike) -> None:
    """Raise unless the rate is one number, 0 or more where it is not traced."""
    _door.check_scalar(lr=lr)
    _door.check_at_least(0, lr=lr)
