"""Statistics by class and what images are matched to: numbers of the released code, references."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jsoft import synthesis

GOLDEN = np.load(Path(__file__).parent / "golden" / "label_pruning_classbn.npz")
IMAGENET = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def channels_last(images):
    return np.moveaxis(images, 1, -1)


def seen():
    """Return the statistics after each of the five batches."""
    statistics, found = synthesis.init_statistics(4, 6), []
    update = jax.jit(synthesis.update_statistics)
    for features, labels in zip(GOLDEN["bn_x"], GOLDEN["bn_y"], strict=True):
        statistics = update(statistics, channels_last(features), labels.astype(np.int32))
        found.append(statistics)
    return found


def test_statistics_are_those_of_the_released_code():
    for found, mean, variance in zip(
        seen(), GOLDEN["bn_class_mean"], GOLDEN["bn_class_var"], strict=True
    ):
        assert_allclose(found.mean, mean, rtol=1e-4, atol=1e-6)
        assert_allclose(found.variance, variance, rtol=1e-4, atol=1e-6)
    assert_array_equal(found.mean[3], 0)  # a class that never occurs
    assert_array_equal(found.variance[3], 1)


@pytest.mark.parametrize("which", ["class", "global"])
def test_matching_is_that_of_the_released_code(which):
    if which == "class":
        reference = jax.tree.map(lambda x: x[int(GOLDEN["match_class"])], seen()[-1])
    else:
        reference = synthesis.Statistics(
            jnp.asarray(GOLDEN["global_mean"]), jnp.asarray(GOLDEN["global_var"])
        )
    value, slope = jax.jit(
        jax.value_and_grad(
            lambda x: synthesis.statistics_loss([x], [reference], layer_weights=[1.0])
        )
    )(channels_last(GOLDEN["match_x"]))
    assert_allclose(value, GOLDEN[f"match_loss_{which}"], rtol=1e-4)
    there = channels_last(GOLDEN[f"match_grad_{which}"])
    assert_allclose(slope, there, rtol=1e-3, atol=1e-4 * np.abs(there).max())


def test_the_first_layer_weighs_ten_times():
    x = jnp.asarray(channels_last(GOLDEN["match_x"]))
    reference = synthesis.Statistics(jnp.zeros(6), jnp.ones(6))
    one = synthesis.statistics_loss([x], [reference], layer_weights=[1.0])
    both = synthesis.statistics_loss([x, x], [reference, reference])
    assert_allclose(both, 11 * one, rtol=1e-5)
    # At the goal itself the value is next to 0 and the slope finite.
    at_goal = synthesis.Statistics(x.reshape(-1, 6).mean(axis=0), x.reshape(-1, 6).var(axis=0))
    value, slope = jax.value_and_grad(lambda x: synthesis.statistics_loss([x], [at_goal]))(x)
    assert value < 1e-4
    assert np.isfinite(slope).all()


def test_statistics_of_a_whole_batch_against_numpy():
    features, labels = channels_last(GOLDEN["bn_x"][0]), GOLDEN["bn_y"][0]
    found = synthesis.update_statistics(
        synthesis.init_statistics(4, 6), features, labels, momentum=1.0
    )
    for label in (0, 1, 2):
        rows = features[labels == label].reshape(-1, 6)
        assert_allclose(found.mean[label], rows.mean(axis=0), rtol=1e-5, atol=1e-6)
        assert_allclose(found.variance[label], rows.var(axis=0), rtol=1e-4)


def test_priors_and_clipping():
    images = channels_last(GOLDEN["prior_x"])
    assert_allclose(synthesis.total_variation(images), GOLDEN["tv_l1"], rtol=1e-5)
    assert_allclose(synthesis.total_variation(images, norm=2), GOLDEN["tv_l2"], rtol=1e-5)
    found = synthesis.clip_to_range(images, *IMAGENET)
    assert_allclose(found, channels_last(GOLDEN["clip_out"]), rtol=1e-5, atol=1e-6)


def test_optax_has_the_learning_rates_of_the_released_code():
    rate = optax.cosine_decay_schedule(0.25, 4000)
    assert_allclose(rate(GOLDEN["cos_iters"]), GOLDEN["cos_lr"], rtol=1e-4, atol=1e-8)


def test_cosines_against_a_loop():
    rng = np.random.default_rng(0)
    features, labels = rng.standard_normal((30, 5)).astype(np.float32), rng.integers(3, size=30)
    labels[labels == 2] = 1
    labels[0] = 2  # a single one
    found = synthesis.within_class_cosine(features, labels, num_classes=4)
    for label in (0, 1):
        rows = features[labels == label]
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        cosines = [rows[i] @ rows[j] for i in range(len(rows)) for j in range(len(rows)) if i != j]
        assert_allclose(found[label], np.mean(cosines), rtol=1e-4, atol=1e-6)
    assert np.isnan(found[2:]).all()


def test_discrepancy_against_a_loop():
    rng = np.random.default_rng(0)
    one, two = rng.standard_normal((2, 20, 3)).astype(np.float32)
    labels = np.arange(20) % 2

    def kernel(a, b):
        return np.mean([[np.exp(-np.sum((x - y) ** 2) / 8) for y in b] for x in a])

    found = synthesis.class_mmd(one, labels, two + 1, labels, num_classes=3, bandwidth=2.0)
    for label in (0, 1):
        a, b = one[labels == label], two[labels == label] + 1
        expected = np.sqrt(kernel(a, a) + kernel(b, b) - 2 * kernel(a, b))
        assert_allclose(found[label], expected, rtol=1e-4)
    assert np.isnan(found[2])
    same = synthesis.class_mmd(one, labels, one, labels, num_classes=2, bandwidth=2.0)
    assert_allclose(same, 0, atol=1e-3)


FEATURES = np.zeros((2, 3), np.float32)
HALF = np.array([0, 1])
EMPTY = synthesis.init_statistics(2, 3)
BAD = {
    "one class": (ValueError, "num_classes: ", lambda: synthesis.init_statistics(1, 3)),
    "width": (
        ValueError,
        "features: expected 3",
        lambda: synthesis.update_statistics(EMPTY, FEATURES[:, :2], HALF),
    ),
    "labels": (
        ValueError,
        "labels: .*got 2",
        lambda: synthesis.update_statistics(EMPTY, FEATURES, HALF + 1),
    ),
    "momentum": (
        ValueError,
        "momentum: ",
        lambda: synthesis.update_statistics(EMPTY, FEATURES, HALF, momentum=1.5),
    ),
    "layers": (
        ValueError,
        "references, layer_weights",
        lambda: synthesis.statistics_loss([FEATURES], []),
    ),
    "reference": (
        ValueError,
        r"references: expected shape \[3\]",
        lambda: synthesis.statistics_loss([FEATURES], [EMPTY]),
    ),
    "norm": (
        ValueError,
        "norm: ",
        lambda: synthesis.total_variation(np.zeros((1, 2, 2, 1), np.float32), norm=3),
    ),
    "images": (ValueError, "images: ", lambda: synthesis.total_variation(FEATURES)),
    "deviation": (
        ValueError,
        "deviation: ",
        lambda: synthesis.clip_to_range(FEATURES, np.zeros(3), np.zeros(3)),
    ),
    "cosine": (
        TypeError,
        "features: ",
        lambda: synthesis.within_class_cosine([[1], [2]], HALF, num_classes=2),
    ),
    "bandwidth": (
        ValueError,
        "bandwidth: ",
        lambda: synthesis.class_mmd(FEATURES, HALF, FEATURES, HALF, num_classes=2, bandwidth=0.0),
    ),
    "columns": (
        ValueError,
        "reference_features: expected 3",
        lambda: synthesis.class_mmd(
            FEATURES, HALF, FEATURES[:, :1], HALF, num_classes=2, bandwidth=1.0
        ),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_at_the_door(case):
    error, message, call = BAD[case]
    with pytest.raises(error, match=message):
        call()
