"""Labels learned by meta-learning, from the command line to the figure, on the tiny preset."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments import meta_labels
from jsoft import datasets, indicators, networks
from tests.experiment_runs import check_redraws, command

TINY = meta_labels.PRESETS["tiny"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meta_labels")
    done = command("meta_labels", "--preset", "tiny", "--quiet", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def tables(results):
    out = results[0] / "results" / "meta_labels" / "tiny"
    return {path.stem: pq.read_table(path) for path in out.glob("*.parquet")}


def test_tiny_preset_writes_tables_figure_and_summary(results):
    folder, printed = results
    out = folder / "results" / "meta_labels" / "tiny"
    assert sorted(os.listdir(out)) == [
        "baselines.parquet",
        "class_labels.parquet",
        "figure.png",
        "figure.svg",
        "results.parquet",
        "summary.json",
    ]
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    # uniform noise at two rates × two numbers of trusted rows, and flips at one, two seeds each
    assert summary["runs"]["results"] == (2 * 2 + 1) * 2
    assert summary["runs"]["class_labels"] == 2 + 2 * 2
    assert {claim["id"] for claim in summary["claims"]} == {f"M{i}" for i in range(1, 10)}
    assert summary["diverged_trainings"] == 0
    assert "classes that learned labels hold for alike" in printed
    assert (out / "figure.png").stat().st_size > 20_000


def test_labels_start_as_given_and_move(tables):
    found = meta_labels.Found(tables)
    for level in found.noisy():
        kept, right = (found.of_rows(f"labels_{name}", level) for name in ("kept", "accuracy"))
        np.testing.assert_array_equal(kept[:, 0], 1)
        spoilt = level.rate if level.flips else 0.9 * level.rate
        # 200 rows, two seeds: five standard errors of a share are 0.12
        np.testing.assert_allclose(right[:, 0].mean(), 1 - spoilt, atol=0.12)
        unreliability = found.of_rows("unreliability", level)
        np.testing.assert_allclose(unreliability[:, 0], 1 - right[:, 0], atol=1e-6)
        assert (found.of_rows("at_step", level) == [0, 10, 20, 30, 40]).all()
    clean, spoilt = found.level(0.0), found.level(0.4)
    np.testing.assert_allclose(found.of_rows("margin", clean)[:, 0], 1, atol=1e-6)
    fixed = found.of_rows("labels_fixed", spoilt)
    np.testing.assert_array_equal(fixed[:, 0], 0)
    assert (fixed[:, -1] > 0.1).all()


def test_learned_labels_of_classes_are_probabilities(tables):
    found = meta_labels.Found(tables)
    learned = found.of_classes("learned_label", meta_labels.Level(0.0, 40, 60))
    rows = learned.reshape(2, 10, 10)
    np.testing.assert_allclose(rows.sum(axis=-1), 1, atol=1e-5)
    assert (rows >= 0).all()
    assert (np.diagonal(rows, axis1=1, axis2=2) < 1).any()


def test_every_arm_is_found_at_every_level(tables):
    """Where a level makes no difference to an arm, its one run stands for all."""
    found = meta_labels.Found(tables)
    levels = [*found.noisy(), meta_labels.Level(0.0, 40, 60)]
    for name in meta_labels.ARMS:
        for level in levels:
            accuracy = found.arm(name, level)
            assert accuracy.shape == (2,)
            assert ((accuracy >= 0) & (accuracy <= 1)).all()
    points = meta_labels.baseline_points(TINY)
    rows = set(zip(*(column.tolist() for column in points.values()), strict=True))
    assert len(rows) == len(points["seed"])  # no run twice


def test_noise_spares_trusted_rows():
    split = datasets.load("digits")
    point = {"rate": jnp.float32(1.0), "train_rows": 50, "trusted": 20}
    for flips in (False, True):
        task = meta_labels.draw_task(
            split, {**point, "flips": jnp.array(flips)}, jax.random.key(0), count=70
        )
        true, given = np.asarray(task.labels), np.asarray(task.given)
        np.testing.assert_array_equal(given[50:], true[50:])
        expected = (true[:50] + 1) % 10
        assert (given[:50] == expected).all() == flips
        assert (given[:50] == true[:50]).mean() < 0.3


def test_description_is_that_of_the_indicators():
    rng = np.random.default_rng(0)
    soft, labels = rng.dirichlet(np.ones(4), 30).astype(np.float32), np.arange(30) % 4
    found = meta_labels.describe(jnp.asarray(soft), jnp.asarray(labels))
    expected = indicators.measure(soft, labels)
    np.testing.assert_allclose(found["margin"], expected.margin[0])
    np.testing.assert_allclose(found["mean_label_margin"], expected.mean_label_margin)
    best = int(found["best_k"]) - 1
    np.testing.assert_allclose(found["best_margin"], expected.margin[best])
    assert (np.asarray(expected.divergence) <= max(0, float(found["best_divergence"]))).all()


def test_labels_stay_during_the_warm_up():
    config = dataclasses.replace(TINY, steps=6, looks=2, warmup=3, batch_size=20)
    split = datasets.load("digits")
    point = {"rate": 0.4, "train_rows": 40, "trusted": 20, "flips": jnp.array(False)}
    network = networks.MLP((4,), 10)

    @jax.jit
    def run(key):
        task = meta_labels.draw_task(split, point, key, count=60)
        table = jax.nn.one_hot(task.given, 10)
        learned, seen = meta_labels.fit(
            config, network, task, table, jnp.arange(60), key, lambda _, table: table, learn=100.0
        )
        return table, learned, seen

    table, learned, seen = run(jax.random.key(0))
    np.testing.assert_array_equal(seen[0], table)  # at the start
    np.testing.assert_array_equal(seen[1], table)  # after three steps
    np.testing.assert_array_equal(seen[2], learned)
    moved = (np.asarray(learned) != np.asarray(table)).any(axis=1)
    assert moved[:40].any()
    assert not moved[40:].any()  # trusted rows are never trained on


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("class_labels", "baselines")),
        "results",
    ],
)
def test_the_full_scale_preset_can_be_traced(name):
    config = dataclasses.replace(
        meta_labels.PRESETS["cifar10"], train_rows=600, trusted=(100,), clean=((500, 200),)
    )
    images = np.zeros((700, 32, 32, 3), np.uint8)
    rows = datasets.Split(images, np.arange(700, dtype=np.int32) % 10, np.arange(700))
    stand_in = datasets.Dataset(rows, rows, rows, 10, "stand-in", tuple("0123456789"))
    point = {
        "rate": jnp.float32(0.4),
        "train_rows": jnp.int32(600),
        "trusted": jnp.int32(100),
        "flips": jnp.array(False),
        "seed": jnp.int32(0),
        "arm": jnp.int32(0),
    }
    train = meta_labels.trainings(config, [stand_in])[name]
    shapes = jax.eval_shape(train, point, jax.random.key(0))
    assert shapes["test_accuracy"].shape == ((51,) if name == "results" else ())


def test_plot_only_redraws_the_same_files_without_training(results):
    check_redraws("meta_labels", *results)


def test_a_training_that_diverged_leaves_summary_and_figure_whole(tables):
    spoilt = {}
    for name, table in tables.items():
        column = table.column_names.index("test_accuracy")
        accuracy = table["test_accuracy"].to_numpy().copy()
        accuracy[-1] = np.nan
        spoilt[name] = table.set_column(column, "test_accuracy", pa.array(accuracy))
    summary = meta_labels.summarise(spoilt)
    assert summary["diverged_trainings"] == 3
    json.dumps(summary, allow_nan=False)
    meta_labels.plot(spoilt)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 1}, "seeds: expected 2 or more, got 1"),
        ({"clean_seeds": 1}, "clean_seeds: expected 2 or more"),
        ({"splits": 0}, "splits: expected 1 or more, got 0"),
        ({"looks": 7}, "looks: expected a divisor of the 40 steps, got 7"),
        ({"rates": (0.4,)}, r"rates: expected \(0.0, 0.4\) among them"),
        ({"flips": (0.2,)}, r"flips: expected \(0.4,\) among them"),
        ({"train_rows": 1200}, "train_rows: 1260 rows asked for with the trusted ones, 1198 there"),
        ({"trusted": (60, 20)}, r"trusted: expected ascending numbers, got \(60, 20\)"),
        ({"dataset": "digitz"}, "digits"),
    ],
    ids=lambda case: str(case),
)
def test_bad_options_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        meta_labels.run(dataclasses.replace(TINY, **options), tmp_path)
