"""Labels of few images: numbers of the released code, slow references, extremes, bad input."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jsoft import condensation, networks

GOLDEN = Path(__file__).parent / "golden"
TARGETS = np.load(GOLDEN / "label_worth_targets.npz")
BINS = np.load(GOLDEN / "label_worth_quantile_bins.npz")
LABELS, HARD = TARGETS["labels"], TARGETS["hard_labels"]
close = {"rtol": 1e-5, "atol": 1e-6}


@pytest.mark.parametrize("inverse", ["0.25", "0.5", "1.0", "2.0"])
def test_expert_labels_are_those_of_the_released_code(inverse):
    found = condensation.expert_soft_labels(TARGETS["logits"], temperature=1 / float(inverse))
    assert_allclose(found, TARGETS[f"softmax_inv_temp_{inverse}"], **close)


def test_an_ensemble_is_averaged_before_the_softmax():
    logits, inverse = TARGETS["ensemble_logits"], float(TARGETS["ensemble_inv_temp"])
    found = condensation.ensemble_soft_labels(logits, temperature=1 / inverse)
    assert_allclose(found, TARGETS["ensemble_labels"], **close)
    other = condensation.ensemble_soft_labels(logits, space="probabilities")
    assert_allclose(other, jax.nn.softmax(logits).mean(axis=0), **close)
    assert np.abs(other - condensation.ensemble_soft_labels(logits)).max() > 0.01


def test_labels_are_constants():
    slope = jax.grad(lambda z: (condensation.expert_soft_labels(z) * z[::-1]).sum())
    logits = jnp.array([[1.0, 2.0], [3.0, -1.0]])
    assert_allclose(slope(logits), jax.nn.softmax(logits)[::-1], rtol=1e-6)


@pytest.mark.parametrize("k", range(1, 7))
def test_swapping_ranks(k):
    found = condensation.swap_rank(LABELS, k=k)
    assert_array_equal(found, TARGETS[f"swap_k{k}"])
    assert_array_equal(np.sort(found), np.sort(LABELS))
    mapped = jax.jit(jax.vmap(lambda row: condensation.swap_rank(row, k=k)))(LABELS)
    assert_array_equal(mapped, found)
    if k == 6:
        assert_array_equal(found, LABELS)


@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_keeping_the_largest(k):
    found = condensation.keep_top_k(LABELS, k=k)
    assert_array_equal(found, TARGETS[f"keep_top{k}"])
    assert_array_equal((found > 0).sum(axis=1), k)
    whole = condensation.keep_top_k(LABELS, k=k, renormalize=True)
    assert_allclose(whole.sum(axis=1), 1, rtol=1e-6)
    slopes = jax.grad(lambda q: condensation.keep_top_k(q, k=k).sum())(jnp.asarray(LABELS))
    assert_array_equal(slopes, found > 0)


def test_the_lower_class_is_kept_among_equals():
    tied = jnp.array([0.2, 0.4, 0.4, 0.0])
    assert_array_equal(condensation.keep_top_k(tied, k=1) > 0, [0, 1, 0, 0])
    assert_array_equal(condensation.swap_rank(tied, k=2), jnp.array([0.2, 0.4, 0.0, 0.4]))


@pytest.mark.parametrize("label", [0, 3])
def test_removing_what_others_know_of_a_class(label):
    found = condensation.remove_class(LABELS, HARD, class_index=label)
    assert_array_equal(found, TARGETS[f"remove_class{label}"])


def test_a_row_without_mass_is_uniform_or_teaches_nothing():
    only = jnp.array([[0.0, 1.0, 0.0]])
    removed = condensation.remove_class(only, jnp.array([0]), class_index=1)
    assert_array_equal(removed, 0)
    uniform = condensation.remove_class(only, jnp.array([0]), class_index=1, renormalize=True)
    assert_allclose(uniform, 1 / 3, rtol=1e-6)
    value, slope = jax.value_and_grad(
        lambda z: condensation.truncated_cross_entropy(z, removed).sum()
    )(jnp.array([[1.0, 2.0, 1e4]]))
    assert value == 0
    assert_array_equal(slope, 0)


@pytest.mark.parametrize(
    ("name", "weights"),
    [("full", LABELS), ("top2", TARGETS["keep_top2"]), ("rm3", TARGETS["remove_class3"])],
)
def test_cross_entropy_of_labels_that_do_not_sum_to_one(name, weights):
    value, slope = jax.value_and_grad(
        lambda z: condensation.truncated_cross_entropy(z, weights).mean()
    )(TARGETS["student_logits"])
    assert_allclose(value, TARGETS[f"ce_{name}"], rtol=1e-5)
    assert_allclose(slope, TARGETS[f"ce_{name}_grad"], **close)
    p = jax.nn.softmax(TARGETS["student_logits"])
    closed = (weights.sum(axis=1, keepdims=True) * p - weights) / len(weights)
    assert_allclose(slope, closed, **close)


def test_hard_labels_are_the_other_end():
    assert_array_equal(TARGETS["keep_top0"], HARD)
    value, slope = jax.value_and_grad(
        lambda z: condensation.truncated_cross_entropy(z, np.eye(6, dtype=np.float32)[HARD]).mean()
    )(TARGETS["student_logits"])
    assert_allclose(value, TARGETS["ce_hard"], rtol=1e-5)
    assert_allclose(slope, TARGETS["ce_hard_grad"], **close)


def test_cross_entropy_where_a_class_is_ruled_out():
    logits = jnp.array([0.0, -jnp.inf, 0.0])
    value = condensation.truncated_cross_entropy(logits, jnp.array([0.25, 0.0, 0.25]))
    assert_allclose(value, 0.5 * np.log(2), rtol=1e-6)


def test_entropy_and_difficulty():
    assert_allclose(condensation.label_entropy(LABELS), TARGETS["entropy"], **close)
    found = condensation.label_difficulty(LABELS, HARD, double_softmax=True)
    assert_allclose(found, TARGETS["difficulty_code"], **close)
    assert_allclose(
        condensation.label_difficulty(LABELS, HARD), TARGETS["difficulty_logp"], **close
    )
    assert_array_equal(condensation.label_entropy(np.eye(3, dtype=np.float32), eps=0.0), 0)


def test_bins_are_those_of_the_released_code():
    found = jax.jit(
        lambda d: condensation.difficulty_bins(d, BINS["labels"].astype(np.int32), num_classes=5)
    )(BINS["difficulty"])
    assert_array_equal(found, BINS["bin_index"])
    everyone = condensation.difficulty_bins(
        BINS["difficulty"], BINS["labels"], num_classes=5, include_max=True
    )
    assert_array_equal(np.where(found == -1, 9, found), everyone)
    assert (found == -1).sum() == 5
    difficulty = condensation.label_difficulty(BINS["probs"], BINS["labels"], double_softmax=True)
    assert_allclose(difficulty, BINS["difficulty"], **close)


def test_confusion_of_classes():
    found = condensation.class_confusion(BINS["probs"], BINS["labels"])
    assert_allclose(found, BINS["class_confusion"], **close)
    assert np.isnan(np.diagonal(found)).all()
    full = condensation.class_confusion(BINS["probs"], BINS["labels"], fill_diagonal=None)
    assert_allclose(full.sum(axis=1), 1, rtol=1e-5)


def test_pareto_front_against_a_loop():
    rng = np.random.default_rng(0)
    cost, value = rng.integers(5, size=(2, 40)).astype(np.float32)
    expected = [
        not any(
            c <= cost[i] and v >= value[i] and (c < cost[i] or v > value[i])
            for c, v in zip(cost, value, strict=True)
        )
        for i in range(40)
    ]
    assert_array_equal(condensation.pareto_front(cost, value), expected)
    assert 0 < sum(expected) < 40


def test_random_subsets():
    hard = np.repeat(np.arange(4), [3, 5, 4, 9])[np.random.default_rng(0).permutation(21)]
    draw = jax.jit(lambda key: condensation.random_subset(hard, key, num_classes=4, per_class=3))
    rows = np.asarray([draw(key) for key in jax.random.split(jax.random.key(0), 400)])
    assert_array_equal(hard[rows], np.broadcast_to(np.repeat(np.arange(4), 3), (400, 12)))
    assert (np.sort(rows[0, 9:]) != np.sort(rows[1, 9:])).any()
    for row in rows[:20]:
        assert len(set(row)) == 12
    share = np.bincount(rows.ravel(), minlength=21)[hard == 3] / 400
    assert_allclose(share, 3 / 9, atol=0.12)  # five standard errors


def to_flax(prefix):
    """Return the golden ConvNet's arrays as ours: kernels HWIO, classifier rows height first."""
    arrays = np.load(GOLDEN / "label_worth_convnet.npz")

    def get(name):
        return arrays[f"{prefix}.{name}"]

    layers = {}
    for i, (conv, norm) in enumerate([("a.0", "a.1"), ("a.4", "a.5"), ("b.1", "b.2")]):
        kernel = get(f"features_{conv}.weight").transpose(2, 3, 1, 0)
        layers[f"Conv3x3_{i}"] = {"kernel": kernel}
        layers[f"GroupNorm_{i}"] = {
            "scale": get(f"features_{norm}.weight"),
            "bias": get(f"features_{norm}.bias"),
        }
    last = get("classifier.weight").reshape(10, 8, 4, 4).transpose(2, 3, 1, 0).reshape(128, 10)
    layers["Dense_0"] = {"kernel": last, "bias": get("classifier.bias")}
    return {"params": layers}, arrays


def test_convnet_is_that_of_the_released_code():
    params, arrays = to_flax("param")
    network = networks.ConvNet((8, 8, 8), group=1)
    images = arrays["x_nchw"].transpose(0, 2, 3, 1)
    drawn = jax.eval_shape(network.init, jax.random.key(0), images)
    params = jax.tree.map(lambda x, like: jnp.asarray(x).reshape(like.shape), params, drawn)

    def loss(params):
        logits = network.apply(params, images)
        return optax.losses.softmax_cross_entropy(logits, arrays["targets"]).mean(), logits

    (value, logits), slopes = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    # Our normalisation adds 1e-6 to the variance, theirs 1e-5.
    assert_allclose(logits, arrays["logits"], rtol=1e-3, atol=2e-4)
    assert_allclose(value, arrays["loss"], rtol=1e-4)
    expected, _ = to_flax("grad")
    for found, there in zip(jax.tree.leaves(slopes), jax.tree.leaves(expected), strict=True):
        assert_allclose(
            found, there.reshape(found.shape), rtol=1e-2, atol=1e-3 * np.abs(there).max()
        )


SOFT = np.float32([[0.5, 0.5], [0.25, 0.75]])
HALF = np.array([0, 1])
BAD = {
    "temperature": (
        ValueError,
        "temperature: ",
        lambda: condensation.expert_soft_labels(SOFT, temperature=0.0),
    ),
    "one expert": (
        ValueError,
        r"logits: expected shape \[M",
        lambda: condensation.ensemble_soft_labels(SOFT[0]),
    ),
    "space": (
        ValueError,
        "space: .*'probs'",
        lambda: condensation.ensemble_soft_labels(SOFT, space="probs"),
    ),
    "rank": (ValueError, "k: expected 1 … 2, .*got 3", lambda: condensation.swap_rank(SOFT, k=3)),
    "rank zero": (ValueError, "k: expected 1", lambda: condensation.keep_top_k(SOFT, k=0)),
    "rank of a half": (TypeError, "k: ", lambda: condensation.keep_top_k(SOFT, k=0.5)),
    "integers": (TypeError, "soft_labels: ", lambda: condensation.keep_top_k([[1, 0]], k=1)),
    "class": (
        ValueError,
        "class_index: .*got 2",
        lambda: condensation.remove_class(SOFT, HALF, class_index=2),
    ),
    "rows": (
        ValueError,
        r"hard_labels: expected shape \[2\]",
        lambda: condensation.remove_class(SOFT, HALF[:1], class_index=0),
    ),
    "weights": (
        ValueError,
        "weights: expected 0 or more",
        lambda: condensation.truncated_cross_entropy(SOFT, -SOFT),
    ),
    "shapes": (
        ValueError,
        "weights: expected the shape",
        lambda: condensation.truncated_cross_entropy(SOFT, SOFT[0]),
    ),
    "no simplex": (ValueError, "sum to one", lambda: condensation.label_entropy(2 * SOFT)),
    "confusion": (
        ValueError,
        "hard_labels: .*got 2",
        lambda: condensation.class_confusion(SOFT, HALF + 1),
    ),
    "NaN": (
        ValueError,
        "difficulty: expected numbers, got NaN",
        lambda: condensation.difficulty_bins(np.float32([np.nan, 0]), HALF, num_classes=2),
    ),
    "no bins": (
        ValueError,
        "num_bins: ",
        lambda: condensation.difficulty_bins(SOFT[0], HALF, num_classes=2, num_bins=0),
    ),
    "front": (ValueError, "value: ", lambda: condensation.pareto_front(SOFT[0], SOFT)),
    "too few": (
        ValueError,
        "per_class: .*class 0, 1, got 2",
        lambda: condensation.random_subset(HALF, jax.random.key(0), num_classes=2, per_class=2),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_at_the_door(case):
    error, message, call = BAD[case]
    with pytest.raises(error, match=message):
        call()
