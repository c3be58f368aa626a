"""Pools, top-k logits and what restores them: numbers of the released code, bad input."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jsoft import label_pruning, losses

GOLDEN = Path(__file__).parent / "golden"
LOSSES = np.load(GOLDEN / "label_pruning_losses.npz")
POOL = np.load(GOLDEN / "label_pruning_pool.npz")
STUDENT, TEACHER = LOSSES["student_logits"], LOSSES["teacher_logits_fp16"]
close = {"rtol": 1e-5, "atol": 1e-7}


@pytest.mark.parametrize("temperature", [1, 3, 20])
@pytest.mark.parametrize("scaled", [False, True])
def test_divergence_is_that_of_the_released_code(temperature, scaled):
    value, slope = jax.jit(
        jax.value_and_grad(
            lambda z: losses.distillation_kl(
                z, TEACHER, temperature=float(temperature), scale_by_t2=scaled
            ).mean()
        )
    )(STUDENT)
    name = f"kl_{'t2_' if scaled else ''}T{temperature}"
    assert_allclose(value, LOSSES[name], rtol=1e-5)
    assert_allclose(slope, LOSSES[f"{name}_grad"], rtol=1e-5, atol=1e-6 * np.abs(slope).max())


def test_no_gradient_reaches_the_teacher_and_ruled_out_classes_cost_nothing():
    slope = jax.grad(lambda t: losses.distillation_kl(STUDENT, t, temperature=2.0).sum())(
        jnp.asarray(TEACHER)
    )
    assert_array_equal(slope, 0)
    both = jnp.array([0.0, 1.0, -jnp.inf])
    value, slope = jax.value_and_grad(
        lambda z: losses.distillation_kl(z, both + jnp.array([1.0, 0.0, 0.0]), temperature=1.0)
    )(both)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()
    assert_allclose(losses.distillation_kl(both, both, temperature=3.0), 0, atol=1e-7)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_what_is_kept_and_restored(k):
    values, classes = label_pruning.top_k_logits(TEACHER, k=k)
    assert_allclose(values, LOSSES[f"topk{k}_values"], **close)
    assert_array_equal(classes, LOSSES[f"topk{k}_indices"])
    row_min = LOSSES["row_min_fp16"][:, 0]
    for temperature in (1, 20):
        renormed = label_pruning.restore_marginal_renorm(
            values, classes, num_classes=11, temperature=float(temperature)
        )
        filled = jax.jit(
            lambda v, c, t: label_pruning.restore_min_fill(
                v, c, row_min, num_classes=11, temperature=t
            )
        )(values, classes, float(temperature))
        assert_allclose(renormed, LOSSES[f"mr_k{k}_T{temperature}"], **close)
        assert_allclose(filled, LOSSES[f"mrs_k{k}_T{temperature}"], **close)
        assert_allclose(renormed.sum(axis=1), 1, rtol=1e-6)
        assert_array_equal((renormed > 0).sum(axis=1), k)


@pytest.mark.parametrize("k", [1, 3, 10, 11])
def test_smoothing_what_was_not_kept(k):
    values, classes = jax.lax.top_k(jax.nn.softmax(LOSSES["teacher_logits"]), k)
    found = label_pruning.restore_marginal_smooth(values, classes, num_classes=11)
    assert_allclose(found, LOSSES[f"marginal_smoothing_k{k}"], rtol=1e-4, atol=1e-7)
    assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_all_logits_kept_are_the_label_itself():
    values, classes = label_pruning.top_k_logits(TEACHER, k=11)
    whole = label_pruning.restore_marginal_renorm(values, classes, num_classes=11, temperature=3.0)
    assert_allclose(whole, jax.nn.softmax(TEACHER / 3), **close)
    filled = label_pruning.restore_min_fill(
        values, classes, TEACHER.min(axis=1), num_classes=11, temperature=3.0
    )
    assert_allclose(filled, whole, **close)


def test_smoothing_of_logits_is_a_temperature():
    found = label_pruning.smoothed_soft_labels(
        LOSSES["teacher_logits"], temperature=20.0, alpha=0.2, on_logits=True
    )
    assert_allclose(found, LOSSES["smoothed_target_T20"], rtol=1e-5, atol=1e-5)
    hotter = jax.nn.softmax(LOSSES["teacher_logits"] / 25)
    assert_allclose(found, hotter, rtol=1e-5)
    usual = label_pruning.smoothed_soft_labels(TEACHER, temperature=1.0, alpha=0.2)
    assert_allclose(usual, 0.8 * jax.nn.softmax(TEACHER) + 0.2 / 11, **close)


@pytest.mark.parametrize("kind", ["step", "cosine", "step_reverse", "cosine_reverse"])
def test_schedules_are_those_of_the_released_code(kind):
    temperature = label_pruning.temperature_schedule(kind, epochs=300)
    found = jax.jit(jax.vmap(temperature))(LOSSES["sched_epochs"].astype(np.int32))
    assert_allclose(found, LOSSES[f"sched_{kind}"], rtol=1e-5)


def test_calibrated_temperature():
    student, labels, grid = (LOSSES[f"ca_{name}"] for name in ("student_logits", "targets", "grid"))
    found = jax.jit(label_pruning.calibrated_temperature)(student, labels, grid.astype(np.float32))
    assert_allclose(found, LOSSES["ca_best"], rtol=1e-6)
    each = [losses.kl_divergence(student / t, labels).mean() for t in grid[[0, 20, 49, 99]]]
    assert_allclose(each, LOSSES["ca_kl"][[0, 20, 49, 99]], rtol=1e-4)


def test_pools_have_the_sizes_of_the_released_code():
    for (epochs, batches, ratio), size in zip(POOL["pool_cfg"], POOL["pool_size"], strict=True):
        options = {
            "num_epochs": int(epochs),
            "batches_per_epoch": int(batches),
            "prune_ratio": float(ratio),
        }
        if size == 0:
            with pytest.raises(ValueError, match="one batch or more to be left of 21"):
                label_pruning.label_pool(**options, exact=False)
            continue
        assert_array_equal(label_pruning.label_pool(**options, exact=False), np.arange(size))
        exact = round((1 - ratio) * epochs * batches, 6) // 1
        assert len(label_pruning.label_pool(**options)) == exact


def test_draws_from_the_pool():
    batches = int(POOL["batches_per_epoch"])
    found = label_pruning.skip_last_of_epoch(POOL["draws"], batches_per_epoch=batches)
    assert_array_equal(found, POOL["draws_after_drop_last"])
    pool = label_pruning.label_pool(num_epochs=10, batches_per_epoch=4, prune_ratio=0.5)
    draw = jax.jit(jax.vmap(lambda key: label_pruning.sample_pool(pool, key, batches_per_epoch=4)))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 500)))
    assert set(np.unique(drawn)) == {b for b in range(20) if b % 4 != 3}
    assert any(len(set(row)) < 4 for row in drawn)
    once = [
        label_pruning.sample_pool(pool, key, batches_per_epoch=4, replace=False, skip_ragged=False)
        for key in jax.random.split(jax.random.key(1), 20)
    ]
    assert all(len(set(np.asarray(row))) == 4 for row in once)


def test_bytes_of_the_paper():
    size = label_pruning.label_storage_bytes(num_images=10_000, num_epochs=300, num_classes=1000)
    assert size == 10_000 * 300 * 2029
    kept = label_pruning.label_storage_bytes(
        num_images=10_000, num_epochs=300, num_classes=1000, prune_ratio=0.975
    )
    assert kept * 40 == size
    few = label_pruning.label_storage_bytes(num_images=10, num_epochs=1, num_classes=1000, k=10)
    assert few == 10 * (40 + 29)


BAD = {
    "temperature": (
        ValueError,
        "temperature: ",
        lambda: losses.distillation_kl(STUDENT, TEACHER, temperature=0.0),
    ),
    "shape": (
        ValueError,
        "teacher_logits: expected the shape",
        lambda: losses.distillation_kl(STUDENT, TEACHER[0], temperature=1.0),
    ),
    "no pool": (
        ValueError,
        "prune_ratio: expected one batch",
        lambda: label_pruning.label_pool(num_epochs=1, batches_per_epoch=2, prune_ratio=1.0),
    ),
    "ratio": (
        ValueError,
        r"prune_ratio: .*\[0, 1\]",
        lambda: label_pruning.label_pool(num_epochs=1, batches_per_epoch=2, prune_ratio=-0.5),
    ),
    "pool of floats": (
        ValueError,
        "pool: ",
        lambda: label_pruning.sample_pool(np.ones(3), jax.random.key(0), batches_per_epoch=2),
    ),
    "too few": (
        ValueError,
        "without replacement",
        lambda: label_pruning.sample_pool(
            np.arange(3), jax.random.key(0), batches_per_epoch=4, replace=False
        ),
    ),
    "one batch": (
        ValueError,
        "batches_per_epoch: expected 2",
        lambda: label_pruning.sample_pool(np.arange(3), jax.random.key(0), batches_per_epoch=1),
    ),
    "k": (ValueError, "k: expected 1 … 11", lambda: label_pruning.top_k_logits(TEACHER, k=12)),
    "classes": (
        ValueError,
        "classes: .*got 5",
        lambda: label_pruning.restore_marginal_renorm(
            np.ones((1, 1), np.float32), [[5]], num_classes=5
        ),
    ),
    "mass": (
        ValueError,
        "sum to 1 at most, got 2",
        lambda: label_pruning.restore_marginal_smooth(
            np.ones((1, 2), np.float32), [[0, 1]], num_classes=5
        ),
    ),
    "row_min": (
        ValueError,
        "row_min: expected shape",
        lambda: label_pruning.restore_min_fill(
            np.ones((2, 1), np.float32), [[0], [1]], np.zeros(1, np.float32), num_classes=5
        ),
    ),
    "schedule": (
        ValueError,
        "kind: .*'linear'",
        lambda: label_pruning.temperature_schedule("linear", epochs=3),
    ),
    "grid": (
        ValueError,
        "grid: ",
        lambda: label_pruning.calibrated_temperature(
            STUDENT, jax.nn.softmax(TEACHER), np.zeros(2, np.float32)
        ),
    ),
    "bytes": (
        ValueError,
        "k: expected 1 … 10",
        lambda: label_pruning.label_storage_bytes(num_images=1, num_epochs=1, num_classes=10, k=11),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_at_the_door(case):
    error, message, call = BAD[case]
    with pytest.raises(error, match=message):
        call()
