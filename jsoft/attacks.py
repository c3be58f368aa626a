"""Adversarial examples: the point of a small box around an image where a loss is large.

Written for one loss, a function of the image alone; the network and its parameters are in its
closure. One function makes the known attacks, told apart by loss, start and number of steps:

    attack           loss                                 start       steps, their size
    FGSM             cross-entropy                        "none"      1, ε
    PGD-20           cross-entropy                        "uniform"   20, about ε/8
    CW               largest wrong logit less the true    "uniform"   as PGD
    in distillation  KL from the teacher's soft label     "normal"    10, ε/4

Images are floats in [0, 1] and so is ε, in units of their range: 8/255 for images of eight bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jsoft import _door

_NORMAL_SCALE = 0.001  # of the start of training attacks, in the released code


def linf_pgd(
    loss_fn: Callable[[jax.Array], jax.Array],
    x: ArrayLike,
    key: jax.Array,
    *,
    epsilon: ArrayLike,
    step_size: ArrayLike,
    steps: int,
    init: Literal["normal", "uniform", "none"] | jax.Array | np.ndarray = "uniform",
    clip: tuple[float, float] = (0.0, 1.0),
    clip_first: bool = False,
) -> jax.Array:
    """Return x′ with a large loss and ‖x′ − x‖_∞ ≤ ε inside the range of images, like `x`.

        x′ ← P(x′ + a · sign ∇ loss(x′)),  `steps` times,  P the projection on ball and range

    Projected gradient ascent on the sum of what `loss_fn` returns, so that examples of a batch do
    not change each other's steps. A pixel whose gradient is exactly 0 stands still. No gradient
    flows through the result. With ε = 0 it is `x`.

    Args:
      loss_fn: of an array like `x`, to one number or one per example. Let a network with batch
        statistics or dropout answer as in evaluation.
      x: floats within `clip`, a batch or one example.
      key: random key, for the start.
      epsilon: ε, radius of the ball, 0 or more; may be traced.
      step_size: a, 0 or more; may be traced.
      steps: how many, 1 or more.
      init: where to start: `"uniform"` in the ball (then cut to the range), `"normal"` around `x`
        with standard deviation 0.001, `"none"` for `x` itself; or the point itself, an array like
        `x`.
      clip: least and greatest value of an image.
      clip_first: cut to the range first and to the ball last, x′ = x + clip(x′ − x, −ε, ε). For
        `x` in the range both orders are one projection, up to rounding.

    Raises:
      TypeError, ValueError: `x` or start that are not finite floats, not of one shape, or (`x`
        alone) not in the range; ε, step size or steps out of range; an unknown `init`; a range
        without inside; a loss of another shape.

    Source: Madry et al. (arXiv 1706.06083). Start and order of the training attack (10 steps of
    2/255, `"normal"`, the ball first) and of the evaluation (20 steps of 0.003, `"uniform"`, the
    range first) as in the released code of arXiv 2312.05508, at ε = 8/255.

    >>> def loss_fn(x):
    ...     return (x * jnp.array([1.0, -2.0, 1.0])).sum()
    >>> x = jnp.array([0.5, 0.5, 0.95])
    >>> attacked = linf_pgd(loss_fn, x, jax.random.key(0), epsilon=0.1, step_size=0.04, steps=3,
    ...                     init="none")
    >>> print([round(float(pixel), 2) for pixel in attacked])  # steps cut at 0.1 and at 1
    [0.6, 0.4, 1.0]
    """
    x = jnp.asarray(x)
    _check(x, epsilon, step_size, steps, clip)
    _check_loss(loss_fn, x)
    x = lax.stop_gradient(x)
    begin = lax.stop_gradient(_start(x, key, epsilon, init, clip))
    radius, size = jnp.asarray(epsilon, x.dtype), jnp.asarray(step_size, x.dtype)
    gradient = jax.grad(lambda x: jnp.sum(loss_fn(x)))

    def step(_: Any, attacked: jax.Array) -> jax.Array:
        moved = attacked + size * jnp.sign(gradient(attacked))
        if clip_first:
            return x + jnp.clip(jnp.clip(moved, *clip) - x, -radius, radius)
        return jnp.clip(jnp.clip(moved, x - radius, x + radius), *clip)

    return lax.stop_gradient(lax.fori_loop(0, steps, step, begin))


def _start(
    x: jax.Array, key: jax.Array, epsilon: ArrayLike, init: Any, clip: tuple[float, float]
) -> jax.Array:
    """Return the point to start from."""
    if not isinstance(init, str):
        begin = jnp.asarray(init)
        if begin.shape != x.shape or begin.dtype != x.dtype:
            raise ValueError(
                f"init: expected an array like x, {x.dtype}{list(x.shape)}, got "
                f"{begin.dtype}{list(begin.shape)}"
            )
        _check_numbers("init", begin, (-np.inf, np.inf))
        return begin
    if init == "none":
        return x
    if init == "normal":
        return x + _NORMAL_SCALE * jax.random.normal(key, x.shape, x.dtype)
    if init == "uniform":
        drawn = jax.random.uniform(key, x.shape, x.dtype, -1, 1)
        return jnp.clip(x + jnp.asarray(epsilon, x.dtype) * drawn, *clip)
    raise ValueError(f'init: expected "normal", "uniform", "none" or an array, got {init!r}')


def _check(
    x: jax.Array, epsilon: ArrayLike, step_size: ArrayLike, steps: int, clip: tuple[float, float]
) -> None:
    """Raise unless image and hyper-parameters are in range."""
    _door.check_float("x", x)
    _door.check_scalar(epsilon=epsilon, step_size=step_size)
    _door.check_at_least(0, epsilon=epsilon, step_size=step_size)
    _door.check_whole(1, steps=steps)
    if len(clip) != 2 or not clip[0] < clip[1]:
        raise ValueError(f"clip: expected least and greatest value of an image, got {clip}")
    _check_numbers("x", x, clip)


def _check_numbers(name: str, values: jax.Array, clip: tuple[float, float]) -> None:
    """Raise where a concrete value is not a finite number of the range."""
    if not _door.is_concrete(values):
        return
    seen = np.asarray(values)
    bad = ~(np.isfinite(seen) & (seen >= clip[0]) & (seen <= clip[1]))
    if bad.any():
        raise ValueError(
            f"{name}: expected finite numbers in {clip[0]:g} … {clip[1]:g}, got {seen[bad][0]}"
        )


def _check_loss(loss_fn: Callable[[jax.Array], jax.Array], x: jax.Array) -> None:
    """Raise unless the loss is a number, or one for each example."""
    shape = jax.eval_shape(loss_fn, x).shape
    if shape not in ((), x.shape[:1]):
        raise ValueError(
            f"loss_fn: expected one number or one per example, shape [] or {list(x.shape[:1])}, "
            f"got {list(shape)}"
        )
