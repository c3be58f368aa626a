"""Training: a plain NumPy-style loop as reference, masks, mapping, divergence, bad input."""

import dataclasses

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jsoft import losses, networks, targets, training
from jsoft.datasets import Split

HARD = optax.softmax_cross_entropy_with_integer_labels


def split(num_examples, seed):
    """Three classes in four dimensions, separable but for a little noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, num_examples)
    images = np.eye(4, dtype=np.float32)[labels] + 0.4 * rng.standard_normal((num_examples, 4))
    return Split(images.astype(np.float32), labels.astype(np.int32), np.arange(num_examples))


TRAIN, VALID, TEST = split(70, 0), split(40, 1), split(50, 2)
NETWORK = networks.MLP((8,), 3)


def fit(key=0, *, network=NETWORK, loss=HARD, train=TRAIN, targets=TRAIN.labels, **options):
    options = {"epochs": 6, "batch_size": 16, **options}
    if isinstance(key, int):
        key = jax.random.key(key)
    return training.fit(network, loss, train.images, targets, VALID, TEST, key, **options)


def fit_by_loop(key, *, epochs, batch_size, learning_rate, momentum, nesterov, weight_decay):
    """The same training with Python loops and the update rules written out."""
    init_key, order_key = jax.random.split(key)
    params = NETWORK.init(init_key, TRAIN.images[:1])
    velocity = jax.tree.map(jnp.zeros_like, params)
    steps = len(TRAIN.images) // batch_size

    def mean_loss(params, rows):
        return HARD(NETWORK.apply(params, TRAIN.images[rows]), TRAIN.labels[rows]).mean()

    def accuracy(split):
        return np.mean(np.argmax(NETWORK.apply(params, split.images), axis=1) == split.labels)

    curves = {"train_loss_curve": [], "valid_accuracy_curve": [], "test_accuracy_curve": []}
    for epoch in range(1, epochs + 1):
        drawn = jax.random.bits(jax.random.fold_in(order_key, epoch), len(TRAIN.images))
        order = np.argsort(np.asarray(drawn) >> (len(TRAIN.images) - 1).bit_length(), stable=True)
        values = []
        for step in range(steps):
            rows = np.asarray(order[step * batch_size : (step + 1) * batch_size])
            done = ((epoch - 1) * steps + step) / (epochs * steps)
            rate = learning_rate * (1 + np.cos(np.pi * done)) / 2
            value, gradients = jax.value_and_grad(mean_loss)(params, rows)
            values.append(value)
            gradients = jax.tree.map(
                lambda g, p: g + weight_decay * p if p.ndim > 1 else g, gradients, params
            )
            velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, gradients)
            ahead = (
                jax.tree.map(lambda v, g: momentum * v + g, velocity, gradients)
                if nesterov
                else velocity
            )
            params = jax.tree.map(lambda p, v, rate=rate: p - rate * v, params, ahead)
        curves["train_loss_curve"].append(np.mean(values))
        curves["valid_accuracy_curve"].append(accuracy(VALID))
        curves["test_accuracy_curve"].append(accuracy(TEST))
    return {name: np.array(curve) for name, curve in curves.items()}


@pytest.mark.parametrize("nesterov", [True, False])
def test_fit_equals_the_written_out_loop(nesterov):
    options = {
        "epochs": 4,
        "batch_size": 16,
        "learning_rate": 0.2,
        "momentum": 0.8,
        "nesterov": nesterov,
        "weight_decay": 1e-2,
    }
    found = fit(3, **options)
    expected = fit_by_loop(jax.random.key(3), **options)
    # float32 over 16 steps; an accuracy may differ by no example
    np.testing.assert_allclose(found["train_loss_curve"], expected["train_loss_curve"], rtol=1e-4)
    for name in ("valid_accuracy_curve", "test_accuracy_curve"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6)


def test_reported_student_is_the_first_best_on_validation():
    found = fit(epochs=12)
    best = int(np.argmax(found["valid_accuracy_curve"]))
    assert int(found["best_epoch"]) == best + 1
    assert found["valid_accuracy"] == found["valid_accuracy_curve"][best]
    assert found["test_accuracy"] == found["test_accuracy_curve"][best]
    assert found["last_test_accuracy"] == found["test_accuracy_curve"][-1]
    assert int(found["last_epoch"]) == 12
    assert found["test_accuracy"] > 0.8


def test_test_labels_choose_nothing():
    """With the test labels scrambled, everything but test accuracies stays as it was."""
    scrambled = Split(TEST.images, (TEST.labels + 1) % 3, TEST.index)
    true, false = (
        training.fit(
            NETWORK,
            HARD,
            TRAIN.images,
            TRAIN.labels,
            VALID,
            test,
            jax.random.key(0),
            epochs=6,
            batch_size=16,
        )
        for test in (TEST, scrambled)
    )
    for name in ("valid_accuracy", "best_epoch", "last_epoch", "train_loss_curve"):
        np.testing.assert_array_equal(true[name], false[name])
    assert true["test_accuracy"] != false["test_accuracy"]


def test_patience_stops_and_changes_nothing_before():
    free = fit(epochs=20, learning_rate=1.0)
    stopped = fit(epochs=20, learning_rate=1.0, patience=2)
    last = int(stopped["last_epoch"])
    assert last == int(stopped["best_epoch"]) + 2 < 20
    for name in ("train_loss_curve", "valid_accuracy_curve", "test_accuracy_curve"):
        np.testing.assert_array_equal(stopped[name][:last], free[name][:last])
        assert np.isnan(stopped[name][last:]).all()
    assert stopped["last_test_accuracy"] == free["test_accuracy_curve"][last - 1]


def test_mapped_fits_equal_single_ones_and_trace_once():
    rates = jnp.array([0.05, 0.3])
    keys = jax.random.split(jax.random.key(1), 2)

    def one(rate, key):
        return fit(
            key, learning_rate=rate, weight_decay=rate / 100, momentum=1 - rate, patience=3.0
        )

    traced = jax.jit(chex.assert_max_traces(one, n=1))
    single = [traced(rate, key) for rate, key in zip(rates, keys, strict=True)]
    single = jax.tree.map(lambda *values: jnp.stack(values), *single)
    # rounding of 24 steps; accuracies of 40 and 50 examples do not move
    chex.assert_trees_all_close(jax.vmap(one)(rates, keys), single, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(jax.lax.map(lambda x: one(*x), (rates, keys)), single, rtol=1e-4)


def test_any_pure_pair_of_init_and_apply_is_a_network():
    class Linear:
        def init(self, key, images):
            return 0.01 * jax.random.normal(key, (images.shape[-1], 3))

        def apply(self, params, images):
            return images @ params

    assert fit(network=Linear())["test_accuracy"] > 0.8


def test_targets_may_be_sets_soft_labels_or_several_arrays():
    sets = targets.one_hot(TRAIN.labels, 3) > 0
    soft = targets.one_hot(TRAIN.labels, 3)
    hard = fit()
    for loss, target in (
        (losses.superset_log_loss, sets),
        (losses.soft_cross_entropy, soft),
        (
            lambda logits, t: (HARD(logits, t[0]) + losses.soft_cross_entropy(logits, t[1])) / 2,
            (TRAIN.labels, soft),
        ),
    ):
        found = fit(loss=loss, targets=target)
        # one-hot targets: all these losses are the hard one, to rounding
        np.testing.assert_allclose(found["train_loss_curve"], hard["train_loss_curve"], rtol=1e-4)


def test_integer_images_are_scaled():
    pixels = np.clip(TRAIN.images * 60 + 100, 0, 255).astype(np.uint8)
    as_pixels = Split(pixels, TRAIN.labels, TRAIN.index)
    as_floats = Split(pixels.astype(np.float32) / 255, TRAIN.labels, TRAIN.index)
    key = jax.random.key(0)
    a, b = (
        training.fit(NETWORK, HARD, s.images, s.labels, s, s, key, epochs=3, batch_size=16)
        for s in (as_pixels, as_floats)
    )
    chex.assert_trees_all_close(a, b, rtol=1e-5)


OPTIONS = {"epochs": 4, "batch_size": 16, "learning_rate": 0.3}


def train(key=0, *, targets=TRAIN.labels, observe=lambda params: params, **options):
    return training.train(
        NETWORK,
        HARD,
        TRAIN.images,
        targets,
        jax.random.key(key),
        observe=observe,
        **{**OPTIONS, **options},
    )


def accuracy(params, split):
    return (training.predict(NETWORK, params, split.images).argmax(axis=-1) == split.labels).mean()


def test_train_walks_the_same_way_as_fit_and_sees_every_epoch():
    curve = fit(**OPTIONS)["test_accuracy_curve"]
    params, seen = train()
    chex.assert_trees_all_equal(params, jax.tree.map(lambda array: array[-1], seen))
    by_epoch = [accuracy(jax.tree.map(lambda a, e=e: a[e], seen), TEST) for e in range(4)]
    np.testing.assert_array_equal(by_epoch, curve)


def test_params_of_fit_are_those_of_the_reported_epoch():
    params, metrics = training.fit_params(
        NETWORK, HARD, TRAIN.images, TRAIN.labels, VALID, TEST, jax.random.key(2), **OPTIONS
    )
    chex.assert_trees_all_equal(metrics, fit(2, **OPTIONS))
    _, seen = train(2)
    best = int(metrics["best_epoch"]) - 1
    assert best < 3  # else the last epoch's parameters would do
    chex.assert_trees_all_equal(params, jax.tree.map(lambda array: array[best], seen))


def test_targets_may_be_drawn_anew_in_every_epoch():
    labels = jnp.asarray(TRAIN.labels)
    fixed, _ = train()
    same, _ = train(targets=lambda epoch: TRAIN.labels)  # a NumPy array will do
    chex.assert_trees_all_equal(same, fixed)
    # Targets are those of the epoch's number: wrong ones after the first spoil what comes then.
    _, seen = train(targets=lambda epoch: jnp.where(epoch == 1, labels, (labels + 1) % 3))
    _, right = train()

    def after(epoch, seen):
        return jax.tree.map(lambda array: array[epoch], seen)

    chex.assert_trees_all_equal(after(0, seen), after(0, right))
    assert accuracy(after(-1, seen), TRAIN) < 0.3
    assert accuracy(after(-1, right), TRAIN) > 0.8


def test_mapped_trainings_equal_single_ones():
    keys = jnp.arange(3)
    mapped = jax.jit(jax.vmap(lambda key: train(key, observe=lambda p: accuracy(p, TEST))[1]))(keys)
    single = [train(key, observe=lambda p: accuracy(p, TEST))[1] for key in range(3)]
    np.testing.assert_allclose(mapped, jnp.stack(single), atol=0.021)  # one of 50 rows


def test_predict_goes_in_parts_and_scales_integers():
    params = NETWORK.init(jax.random.key(0), TRAIN.images[:1])
    pixels = np.random.default_rng(0).integers(0, 256, (2003, 4)).astype(np.uint8)
    expected = NETWORK.apply(params, jnp.asarray(pixels, jnp.float32) / 255)
    np.testing.assert_allclose(training.predict(NETWORK, params, pixels), expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"images: expected shape \[N, ...\]"):
        training.predict(NETWORK, params, np.zeros((0, 4), np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"targets": lambda epoch: jnp.zeros(3, int)}, "targets: expected 70 rows"),
        ({"targets": TRAIN.labels[:3]}, "targets: expected 70 rows"),
        ({"batch_size": 71}, "batch_size: expected 1 … 70"),
    ],
)
def test_train_refuses_at_the_door(options, message):
    with pytest.raises(ValueError, match=message):
        train(**options)


def test_divergence_is_recorded_as_nan():
    found = fit(learning_rate=1e30)
    assert np.isnan(found["last_test_accuracy"])
    assert np.isnan(found["test_accuracy"])
    assert int(found["best_epoch"]) == 0


def test_divergence_after_a_good_start_keeps_the_best_epoch():
    """One example's target is NaN, and with batches of 16 of 70 some first epochs leave it out."""
    weights = np.ones(70, np.float32)
    weights[0] = np.nan
    keys = jax.vmap(jax.random.key)(jnp.arange(40))

    def one(key):
        loss = lambda logits, t: HARD(logits, t[0]) * t[1]  # noqa: E731
        return fit(key, loss=loss, targets=(TRAIN.labels, weights), epochs=8)

    mapped = jax.jit(jax.vmap(one))(keys)
    late = [i for i in range(40) if int(mapped["best_epoch"][i]) > 0]
    assert late
    for i in late:
        best = int(mapped["best_epoch"][i])
        assert mapped["test_accuracy"][i] == mapped["test_accuracy_curve"][i, best - 1]
        assert np.isnan(mapped["last_test_accuracy"][i])


@pytest.mark.parametrize("num_rows", [1, 2, 3, 1198, 70_000])
def test_every_epoch_visits_all_rows_once_in_a_random_order(num_rows):
    orders = np.asarray(
        jax.vmap(lambda seed: training._order(jax.random.key(seed), num_rows))(jnp.arange(40))
    )
    np.testing.assert_array_equal(
        np.sort(orders), np.broadcast_to(np.arange(num_rows), orders.shape)
    )
    # Where the first row lands, as a share of all places: uniform, so its mean is near one half.
    places = orders.argmin(axis=1) / max(num_rows - 1, 1)
    assert num_rows == 1 or abs(places.mean() - 0.5) < 4 * places.std() / 40**0.5


@pytest.mark.parametrize("microbatch_size", [1, 4, 16])
def test_microbatches_change_nothing(microbatch_size):
    whole, parts = (
        train(observe=lambda params: params, microbatch_size=size)[1]
        for size in (None, microbatch_size)
    )
    first = jax.tree.map(lambda array: array[0], (whole, parts))
    chex.assert_trees_all_close(*first, rtol=1e-4, atol=1e-6)


def test_microbatches_divide_the_batch():
    with pytest.raises(ValueError, match="microbatch_size: expected a divisor of batch_size, 16"):
        fit(microbatch_size=5)
    with pytest.raises(ValueError, match="microbatch_size: expected"):
        fit(microbatch_size=0)


def test_large_splits_are_evaluated_in_parts():
    rng = np.random.default_rng(0)
    large = Split(rng.random((2503, 4), np.float32), rng.integers(0, 3, 2503), np.arange(2503))
    params = NETWORK.init(jax.random.key(0), large.images[:1])
    whole = np.mean(np.argmax(NETWORK.apply(params, large.images), axis=1) == large.labels)
    np.testing.assert_allclose(training._accuracy(NETWORK, params, large), whole, rtol=1e-6)


def test_linen_modules_with_a_convolution_train():
    class Tiny(nn.Module):
        @nn.compact
        def __call__(self, images):
            hidden = networks.Conv3x3(2)(images.reshape(-1, 2, 2, 1))
            return nn.Dense(3)(nn.relu(hidden).reshape(len(images), -1))

    assert fit(network=Tiny(), epochs=15)["test_accuracy"] > 0.8


BAD = {
    "targets of another length": (
        ValueError,
        "targets: expected 70 rows",
        {"targets": TRAIN.labels[:9]},
    ),
    "no epochs": (ValueError, "epochs: ", {"epochs": 0}),
    "batch too large": (ValueError, "batch_size: expected 1 … 70", {"batch_size": 71}),
    "half an epoch": (TypeError, "epochs: expected a whole number", {"epochs": 2.5}),
    "float batch size": (TypeError, "batch_size: expected a whole", {"batch_size": 16.0}),
    "several learning rates": (
        ValueError,
        r"learning_rate: expected one number, got shape \[2\]",
        {"learning_rate": np.array([0.1, 0.2])},
    ),
    "no patience": (TypeError, "patience: expected 1 or more, got None", {"patience": None}),
    "labels that are no probabilities": (
        ValueError,
        "soft_labels: expected rows that sum to one",
        {
            "loss": losses.soft_cross_entropy,
            "targets": 5 * np.eye(3, dtype=np.float32)[TRAIN.labels],
        },
    ),
    "a scalar as targets": (ValueError, "targets: expected 70 rows", {"targets": 1.0}),
    "NaN images": (
        ValueError,
        r"images: expected finite numbers, got NaN or infinity in row \[0\]",
        {"train": dataclasses.replace(TRAIN, images=TRAIN.images * np.nan)},
    ),
    "too bright images": (
        ValueError,
        r"images: expected integers in 0 … 255, got 1000 … 1000",
        {"train": dataclasses.replace(TRAIN, images=np.full((70, 4), 1000))},
    ),
    "learning rate": (ValueError, "learning_rate: ", {"learning_rate": -0.1}),
    "momentum": (ValueError, "momentum: ", {"momentum": 1.5}),
    "weight decay": (ValueError, "weight_decay: ", {"weight_decay": -1.0}),
    "mean as a loss": (
        ValueError,
        r"loss: expected one value per example, shape \[70\], got \[\]",
        {"loss": lambda logits, labels: HARD(logits, labels).mean()},
    ),
    "patience": (ValueError, "patience: ", {"patience": 0}),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options_are_refused_at_the_door(case):
    error, message, options = BAD[case]
    with pytest.raises(error, match=message):
        fit(**options)


@pytest.mark.parametrize(
    ("valid", "error", "message"),
    [
        (
            dataclasses.replace(VALID, labels=VALID.labels * 1.0),
            TypeError,
            r"valid\.labels: expected integer",
        ),
        (
            dataclasses.replace(VALID, labels=VALID.labels[:3]),
            ValueError,
            r"valid\.labels: expected shape \[40\], got \[3\]",
        ),
        (
            dataclasses.replace(VALID, images=VALID.images[:, :2]),
            ValueError,
            "valid: expected images",
        ),
        (
            Split(VALID.images[:0], VALID.labels[:0], VALID.index[:0]),
            ValueError,
            "valid: .*one image",
        ),
        ((VALID.images, VALID.labels), TypeError, r"valid: expected a jsoft\.datasets\.Split"),
        (
            dataclasses.replace(VALID, labels=VALID.labels + 3),
            ValueError,
            r"valid\.labels: expected classes in 0 … 2",
        ),
        (
            dataclasses.replace(VALID, images=VALID.images * np.nan),
            ValueError,
            r"valid\.images: .*NaN",
        ),
        (
            dataclasses.replace(VALID, images=VALID.images.astype(np.uint8)),
            ValueError,
            "valid: expected images like those of training, float32",
        ),
    ],
    ids=["float labels", "lengths", "shapes", "empty", "pair", "classes", "NaN", "pixels"],
)
def test_bad_splits_are_refused_at_the_door(valid, error, message):
    with pytest.raises(error, match=message):
        training.fit(
            NETWORK,
            HARD,
            TRAIN.images,
            TRAIN.labels,
            valid,
            TEST,
            jax.random.key(0),
            epochs=1,
            batch_size=16,
        )
