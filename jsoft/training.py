"""One student or teacher: a training as a pure function of data, hyper-parameters and a key.

`fit` and `train` are scans over epochs of a scan over steps. A student is chosen by validation
(`fit`, and `fit_params` where its parameters are wanted); `train` goes to the end and looks at
every epoch, as one does with a teacher. Nothing in it depends on a Python number that one
might sweep, so `vmap` or `jsoft.sweep` over learning rates, levels or keys maps the whole training.
Early stopping is a mask: a stopped run stands still while its neighbours go on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.typing import ArrayLike

from jsoft import _door
from jsoft.datasets import Split

Loss = Callable[[jax.Array, Any], jax.Array]

_PREDICTED = 2**18  # numbers in the images that `predict` looks at together


class Network(Protocol):
    """Anything with a pure `init` and `apply`: a Linen module without mutable state is one."""

    def init(self, key: jax.Array, images: jax.Array, /) -> Any:
        """Return fresh parameters for `images` [B, ...]."""

    def apply(self, params: Any, images: jax.Array, /) -> Any:
        """Return logits `[B, C]`, an array."""


class _Run(NamedTuple):
    """Where a training stands after an epoch."""

    params: Any
    optimizer: optax.OptState
    epoch: jax.Array  # epochs trained
    best_params: Any
    best_epoch: jax.Array
    best_valid: jax.Array
    best_test: jax.Array


def fit(
    network: Network,
    loss: Loss,
    images: ArrayLike,
    targets: Any,
    valid: Split,
    test: Split,
    key: jax.Array,
    *,
    epochs: int,
    batch_size: int = 128,
    microbatch_size: int | None = None,
    learning_rate: jax.Array | float = 0.1,
    momentum: jax.Array | float = 0.9,
    nesterov: bool = True,
    weight_decay: jax.Array | float = 5e-4,
    patience: jax.Array | float = jnp.inf,
) -> dict[str, jax.Array]:
    """Return the metrics of one student trained on `(images, targets)`.

    Stochastic gradient descent with momentum on the mean of `loss(apply(params, batch), targets)`;
    the learning rate falls to zero along a cosine over all steps; weight decay, on arrays of two or
    more axes, is added to the gradient. Every epoch visits the examples in a new random order and
    leaves out the last N mod batch_size of it. Integer images are scaled by 1/255.

    The reported student is the one of the epoch with the best validation accuracy (the first among
    equals); test images take no part in any choice.

    Args:
      network: `init(key, images) -> params`, `apply(params, images) -> logits [B, C]`.
      loss: `(logits [B, C], targets of the batch) -> [B]`.
      images: `[N, ...]` floats, or integers in 0 … 255.
      targets: what the loss compares with: an array `[N, ...]`, or a pytree of them.
      valid: images and true labels for choosing the epoch.
      test: images and true labels for the report.
      key: random key; initial parameters and order of examples follow from it.
      epochs: number of passes.
      batch_size: examples a step.
      microbatch_size: examples whose gradient is taken together, a divisor of `batch_size`, which
        it is by default. Fewer take less memory, and on a CPU less time where activations leave the
        cache (16, for convolutions). The sum is the same to rounding, if the network's logits of an
        example do not depend on its batch-mates, as those of `jsoft.networks` do not.
      learning_rate: of the first step; may be traced.
      momentum: may be traced.
      nesterov: whether the momentum looks ahead.
      weight_decay: may be traced.
      patience: epochs without a better validation accuracy after which training stands still
        (never, by default); may be traced.

    Returns:
      `test_accuracy`, `valid_accuracy`, `best_epoch` of the chosen epoch (counted from 1);
      `last_test_accuracy` and `last_epoch` of the last epoch trained; and the curves, `[epochs]`,
      `train_loss_curve`, `valid_accuracy_curve`, `test_accuracy_curve`, NaN after an early stop.
      An accuracy is NaN where logits are not finite; a run that never had finite ones has NaN
      throughout and best epoch 0.

    Raises:
      TypeError, ValueError: images that are not finite or of unlike kinds, labels that are not
        classes of the network, lengths that differ, fewer examples than one batch, epochs below
        one, hyper-parameters out of range, targets that the loss refuses, a loss that does not
        give one value per example. What is traced is checked for shapes alone.

    Source: batch size and reporting rule (test accuracy at the best validation epoch) as in the
    sister paper of arXiv 2302.08155, arXiv 2302.09891; the paper's own rates are not known.

    >>> import flax.linen as nn
    >>> x = jnp.linspace(-1, 1, 64)[:, None]
    >>> data = Split(images=x, labels=(x[:, 0] > 0).astype(int), index=jnp.arange(64))
    >>> loss = optax.softmax_cross_entropy_with_integer_labels
    >>> metrics = fit(nn.Dense(2), loss, data.images, data.labels, data, data,
    ...               jax.random.key(0), epochs=20, batch_size=16)
    >>> bool(metrics["test_accuracy"] > 0.95)
    True
    """
    _, metrics = fit_params(
        network,
        loss,
        images,
        targets,
        valid,
        test,
        key,
        epochs=epochs,
        batch_size=batch_size,
        microbatch_size=microbatch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        patience=patience,
    )
    return metrics


def fit_params(
    network: Network,
    loss: Loss,
    images: ArrayLike,
    targets: Any,
    valid: Split,
    test: Split,
    key: jax.Array,
    *,
    epochs: int,
    batch_size: int = 128,
    microbatch_size: int | None = None,
    learning_rate: jax.Array | float = 0.1,
    momentum: jax.Array | float = 0.9,
    nesterov: bool = True,
    weight_decay: jax.Array | float = 5e-4,
    patience: jax.Array | float = jnp.inf,
) -> tuple[Any, dict[str, jax.Array]]:
    """Return the parameters of the chosen epoch, and the metrics of `fit`.

    The parameters are those of the epoch with the best validation accuracy, the first among equals;
    the initial ones where no epoch had finite logits.

    Args, raises: as `fit`, and for the same reasons.

    >>> import flax.linen as nn
    >>> x = jnp.linspace(-1, 1, 64)[:, None]
    >>> data = Split(images=x, labels=(x[:, 0] > 0).astype(int), index=jnp.arange(64))
    >>> loss = optax.softmax_cross_entropy_with_integer_labels
    >>> params, metrics = fit_params(nn.Dense(2), loss, x, data.labels, data, data,
    ...                              jax.random.key(0), epochs=20, batch_size=16)
    >>> accuracy = (predict(nn.Dense(2), params, x).argmax(axis=-1) == data.labels).mean()
    >>> bool(accuracy == metrics["test_accuracy"])
    True
    """
    _door.check_scalar(patience=patience)
    _door.check_at_least(1, patience=patience)
    images, targets = jax.tree.map(jnp.asarray, (images, targets))
    start, epoch = _training(
        network,
        loss,
        images,
        targets,
        key,
        epochs=epochs,
        batch_size=batch_size,
        microbatch_size=microbatch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
    )
    params, optimizer_state = start
    num_classes = jax.eval_shape(network.apply, params, _scaled(images[:1])).shape[-1]
    for name, split in (("valid", valid), ("test", test)):
        _check_split(name, split, images, num_classes)

    def watched_epoch(run: _Run, number: jax.Array):
        stopped = run.epoch - run.best_epoch >= patience
        (params, optimizer_state), loss_value = epoch((run.params, run.optimizer), number)
        valid_accuracy = _accuracy(network, params, valid)
        test_accuracy = _accuracy(network, params, test)
        # NaN is never better, and the first number is better than the NaN at the start.
        better = ~jnp.isnan(valid_accuracy) & ~(valid_accuracy <= run.best_valid)

        def best(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda new, old: jnp.where(better, new, old), new, old)

        trained = _Run(
            params=params,
            optimizer=optimizer_state,
            epoch=number,
            best_params=best(params, run.best_params),
            best_epoch=best(number, run.best_epoch),
            best_valid=best(valid_accuracy, run.best_valid),
            best_test=best(test_accuracy, run.best_test),
        )
        curves = {
            "train_loss_curve": loss_value,
            "valid_accuracy_curve": valid_accuracy,
            "test_accuracy_curve": test_accuracy,
        }
        run = jax.tree.map(lambda new, old: jnp.where(stopped, old, new), trained, run)
        return run, jax.tree.map(lambda value: jnp.where(stopped, jnp.nan, value), curves)

    none, nan = jnp.zeros((), jnp.int32), jnp.full((), jnp.nan, jnp.float32)
    begin = _Run(params, optimizer_state, none, params, none, nan, nan)
    run, curves = lax.scan(watched_epoch, begin, jnp.arange(1, epochs + 1, dtype=jnp.int32))
    return run.best_params, {
        "test_accuracy": run.best_test,
        "valid_accuracy": run.best_valid,
        "best_epoch": run.best_epoch,
        "last_test_accuracy": curves["test_accuracy_curve"][run.epoch - 1],
        "last_epoch": run.epoch,
        **curves,
    }


def train(
    network: Network,
    loss: Loss,
    images: ArrayLike,
    targets: Any,
    key: jax.Array,
    *,
    observe: Callable[[Any], Any],
    epochs: int,
    batch_size: int = 128,
    microbatch_size: int | None = None,
    learning_rate: jax.Array | float = 0.1,
    momentum: jax.Array | float = 0.9,
    nesterov: bool = True,
    weight_decay: jax.Array | float = 5e-4,
) -> tuple[Any, Any]:
    """Return the parameters after the last epoch, and what `observe` saw after every epoch.

    Trained as `fit` does, but to the end: no validation, no choice of an epoch.

    Args:
      network: as for `fit`, like the other arguments that are not named here.
      loss: `(logits [B, C], targets of the batch) -> [B]`.
      images: `[N, ...]` floats, or integers in 0 … 255.
      targets: an array `[N, ...]`, a pytree of them, or a function from the epoch's number (1, 2,
        …, traced) to one, for targets that are drawn anew in every epoch.
      key: random key; initial parameters and order of examples follow from it.
      observe: pure function of the parameters; what it returns comes back stacked, `[epochs, ...]`.
      epochs: number of passes.
      batch_size: examples a step.
      microbatch_size: examples whose gradient is taken together.
      learning_rate: of the first step; may be traced.
      momentum: may be traced.
      nesterov: whether the momentum looks ahead.
      weight_decay: may be traced.

    Raises:
      TypeError, ValueError: as `fit`.

    The protocol of `fit` without its choice of an epoch; derived here.

    >>> import flax.linen as nn
    >>> x = jnp.linspace(-1, 1, 64)[:, None]
    >>> loss = optax.softmax_cross_entropy_with_integer_labels
    >>> largest = lambda params: jnp.abs(params["params"]["kernel"]).max()
    >>> params, seen = train(nn.Dense(2), loss, x, (x[:, 0] > 0).astype(int), jax.random.key(0),
    ...                      observe=largest, epochs=5, batch_size=16)
    >>> seen.shape, bool(seen[-1] == largest(params))
    ((5,), True)
    """
    images = jnp.asarray(images)
    start, epoch = _training(
        network,
        loss,
        images,
        targets,
        key,
        epochs=epochs,
        batch_size=batch_size,
        microbatch_size=microbatch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
    )

    def observed_epoch(state: Any, number: jax.Array):
        state, _ = epoch(state, number)
        return state, observe(state[0])

    numbers = jnp.arange(1, epochs + 1, dtype=jnp.int32)
    (params, _), observations = lax.scan(observed_epoch, start, numbers)
    return params, observations


def predict(network: Network, params: Any, images: ArrayLike) -> jax.Array:
    """Return the logits of the network at `images`, `[N, C]`.

    Args:
      network: as for `fit`.
      params: its parameters.
      images: `[N, ...]` floats, or integers in 0 … 255, which are scaled by 1/255.

    Raises:
      ValueError: images without rows.

    The forward pass of `fit`, some images at a time; derived here.

    >>> import flax.linen as nn
    >>> params = nn.Dense(2).init(jax.random.key(0), jnp.ones((1, 3)))
    >>> predict(nn.Dense(2), params, jnp.ones((4, 3))).shape
    (4, 2)
    """
    images = jnp.asarray(images)
    if images.ndim < 2 or not len(images):
        raise ValueError(f"images: expected shape [N, ...] with N ≥ 1, got {list(images.shape)}")

    def logits(image: jax.Array) -> jax.Array:
        return network.apply(params, _scaled(image[None]))[0]

    # All digits at once, but 85 images of CIFAR: what a convolution makes of a thousand would take
    # ten times the memory of its training, and leave the cache.
    rows = max(1, _PREDICTED // math.prod(images.shape[1:]))
    return lax.map(logits, images, batch_size=min(len(images), rows))


def _training(
    network: Network,
    loss: Loss,
    images: jax.Array,
    targets: Any,
    key: jax.Array,
    *,
    epochs: int,
    batch_size: int,
    microbatch_size: int | None,
    learning_rate: jax.Array | float,
    momentum: jax.Array | float,
    nesterov: bool,
    weight_decay: jax.Array | float,
) -> tuple[Any, Callable[[Any, jax.Array], tuple[Any, jax.Array]]]:
    """Return the state at the start, and the function of one epoch.

    The state is (parameters, state of the optimiser); an epoch takes it and the epoch's number to
    the next state and the mean loss.
    """
    _door.check_scalar(learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay)
    _door.check_positive(learning_rate=learning_rate)
    _door.check_levels(momentum=momentum)
    _door.check_at_least(0, weight_decay=weight_decay)
    _door.check_whole(1, epochs=epochs, batch_size=batch_size)
    if microbatch_size is not None:
        _door.check_whole(1, microbatch_size=microbatch_size)
        if batch_size % microbatch_size:
            raise ValueError(
                f"microbatch_size: expected a divisor of batch_size, {batch_size}, got "
                f"{microbatch_size}"
            )
    draw = targets if callable(targets) else lambda _: targets

    def targets_of(number: jax.Array) -> Any:
        return jax.tree.map(jnp.asarray, draw(number))

    _check(network, loss, images, targets_of(jnp.int32(1)), batch_size)

    steps = len(images) // batch_size
    optimizer = optax.chain(
        optax.add_decayed_weights(weight_decay, mask=_matrices),
        optax.sgd(
            optax.cosine_decay_schedule(learning_rate, epochs * steps),
            momentum=momentum,
            nesterov=nesterov,
        ),
    )
    init_key, order_key = jax.random.split(key)

    @jax.value_and_grad
    def of_rows(params: Any, rows: jax.Array, all_targets: Any) -> jax.Array:
        batch, batch_targets = jax.tree.map(lambda array: array[rows], (images, all_targets))
        return loss(network.apply(params, _scaled(batch)), batch_targets).mean()

    def loss_and_gradient(params: Any, rows: jax.Array, all_targets: Any) -> tuple[jax.Array, Any]:
        if microbatch_size in (None, batch_size):
            return of_rows(params, rows, all_targets)

        def add(total: Any, some: jax.Array):
            return jax.tree.map(jnp.add, total, of_rows(params, some, all_targets)), None

        parts = rows.reshape(-1, microbatch_size)
        shapes = jax.eval_shape(of_rows, params, parts[0], all_targets)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        total, _ = lax.scan(add, nothing, parts)
        return jax.tree.map(lambda sums: sums / len(parts), total)

    def epoch(state: tuple[Any, optax.OptState], number: jax.Array):
        epoch_targets = targets_of(number)

        def step(state: tuple[Any, optax.OptState], rows: jax.Array):
            params, optimizer_state = state
            value, gradients = loss_and_gradient(params, rows, epoch_targets)
            updates, optimizer_state = optimizer.update(gradients, optimizer_state, params)
            return (optax.apply_updates(params, updates), optimizer_state), value

        order = _order(jax.random.fold_in(order_key, number), len(images))
        rows = order[: steps * batch_size].reshape(steps, batch_size)
        state, losses = lax.scan(step, state, rows)
        return state, losses.mean()

    params = network.init(init_key, _scaled(images[:1]))
    return (params, optimizer.init(params)), epoch


def _order(key: jax.Array, num_rows: int) -> jax.Array:
    """Return the rows in a random order.

    `jax.random.permutation` sorts pairs, three times slower on a CPU than the sort of single words
    here: random high bits, and the row in the low ones. Where the high bits of two rows agree, the
    lower row goes first; with 16 of them or more that does not bind which rows share a batch.
    """
    bits = (num_rows - 1).bit_length()
    if bits > 16:
        return jax.random.permutation(key, num_rows)
    low = jnp.uint32(2**bits - 1)
    words = jax.random.bits(key, (num_rows,), jnp.uint32) & ~low | lax.iota(jnp.uint32, num_rows)
    return (lax.sort(words) & low).astype(jnp.int32)


def _matrices(params: Any) -> Any:
    """Return which arrays decay: weights do, biases and scales do not."""
    return jax.tree.map(lambda param: param.ndim > 1, params)


def _scaled(images: jax.Array) -> jax.Array:
    return images.astype(jnp.float32) / 255 if _is_pixels(images) else images


def _accuracy(network: Network, params: Any, split: Split) -> jax.Array:
    """Return the share of `split` that the network gets right; NaN if a logit is not finite."""
    logits = predict(network, params, split.images)
    right = (jnp.argmax(logits, axis=-1) == jnp.asarray(split.labels)).mean()
    return jnp.where(jnp.isfinite(logits).all(), right, jnp.nan)


def _check(network: Network, loss: Loss, images: jax.Array, targets: Any, batch_size: int) -> None:
    """Raise unless images, targets, network and loss fit together; nothing is trained."""
    if images.ndim < 2 or not len(images):
        raise ValueError(f"images: expected shape [N, ...] with N ≥ 1, got {list(images.shape)}")
    if batch_size > len(images):
        raise ValueError(f"batch_size: expected 1 … {len(images)}, the examples, got {batch_size}")
    _check_images("images", images)
    for leaf in jax.tree.leaves(targets):
        if leaf.shape[:1] != images.shape[:1]:
            raise ValueError(
                f"targets: expected {len(images)} rows as images, got shape {list(leaf.shape)}"
            )

    def logits_of(key: jax.Array, batch: jax.Array) -> jax.Array:
        return network.apply(network.init(key, batch), batch)

    batch = jax.ShapeDtypeStruct(
        (batch_size, *images.shape[1:]), jax.eval_shape(_scaled, images).dtype
    )
    logits = jax.eval_shape(logits_of, jax.random.key(0), batch)
    if logits.ndim != 2 or logits.shape[0] != batch_size:
        raise ValueError(
            f"network: expected logits of shape [{batch_size}, C], got {list(logits.shape)}"
        )
    # Once with all targets at hand: what the loss refuses, it refuses here, before it is traced.
    values = loss(jnp.zeros((len(images), logits.shape[1])), targets)
    if values.shape != images.shape[:1]:
        raise ValueError(
            f"loss: expected one value per example, shape [{len(images)}], got {list(values.shape)}"
        )


def _check_split(name: str, split: Any, images: jax.Array, num_classes: int) -> None:
    """Raise unless the split's images are like those of training, and its labels are classes."""
    if not isinstance(split, Split):
        raise TypeError(f"{name}: expected a jsoft.datasets.Split, got {type(split).__name__}")
    if split.images.shape[1:] != images.shape[1:] or _is_pixels(split.images) != _is_pixels(images):
        raise ValueError(
            f"{name}: expected images like those of training, {images.dtype}"
            f"{list(images.shape[1:])} each, got {split.images.dtype}"
            f"{list(split.images.shape[1:])}"
        )
    if not len(split.images):
        raise ValueError(f"{name}: expected at least one image, got none")
    _check_images(f"{name}.images", split.images)
    _door.check_labels(
        f"{name}.labels", split.labels, num_classes=num_classes, shape=split.images.shape[:1]
    )


def _check_images(name: str, images: Any) -> None:
    if not _door.is_concrete(images):
        return
    values = np.asarray(images)
    if _is_pixels(images):
        if values.min() < 0 or values.max() > 255:
            raise ValueError(
                f"{name}: expected integers in 0 … 255, got {values.min()} … {values.max()}"
            )
    else:
        _door.check_float(name, images)
        _door.check_finite(name, values.reshape(len(values), -1))


def _is_pixels(images: Any) -> bool:
    return jnp.issubdtype(images.dtype, jnp.integer)
