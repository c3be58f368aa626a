"""Robust fairness from the command line to the figure, on its tiny preset."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments import robust_fairness
from experiments.robust_fairness import Arm
from jsoft import attacks, datasets, fairness, networks
from tests.experiment_runs import FILES, check_redraws, command

TINY = robust_fairness.PRESETS["tiny"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("robust_fairness")
    done = command("robust_fairness", "--preset", "tiny", "--quiet", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def table(results):
    return pq.read_table(results[0] / "results" / "robust_fairness" / "tiny" / "results.parquet")


def test_tiny_preset_writes_table_figure_and_summary(results, table):
    folder, printed = results
    out = folder / "results" / "robust_fairness" / "tiny"
    assert set(os.listdir(out)) == FILES
    assert table.num_rows == 2 * 2 * 2 * 10 * 5  # radii, seeds, looks, classes, students
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["runs"] == {"results": 4}
    assert {claim["id"] for claim in summary["claims"]} == {"F1", "F2", "F3", "F4", "F5"}
    assert len(summary["students"]) == 10
    assert "rate 0.25, imbalanced, summed" in printed
    assert (out / "figure.png").stat().st_size > 20_000


def test_plot_only_redraws_the_same_files_without_training(results):
    check_redraws("robust_fairness", *results)


def test_rate_zero_is_rslad_and_temperatures_keep_their_bounds(table):
    rows = {name: table[name].to_numpy() for name in table.column_names}
    still = rows["rate"] == 0
    assert (rows["temp_adv"][still] == 1).all()
    assert (rows["temp_nat"][still] == 1).all()
    assert rows["temp_adv"].min() >= 0.5
    # after three epochs no class can have moved by more than three full steps
    early = rows["epoch"] == 3
    assert np.abs(rows["temp_adv"][early] - 1).max() <= 3 * 0.25 + 1e-6
    assert np.abs(rows["temp_adv"][early & ~still] - 1).max() > 0.25
    coupled = rows["coupled"]
    np.testing.assert_allclose(
        rows["temperature"][coupled], (rows["temp_adv"] * rows["temp_nat"])[coupled], rtol=1e-6
    )
    np.testing.assert_array_equal(rows["temperature"][~coupled], rows["temp_adv"][~coupled])


def test_temperatures_move_margins_and_entropy_but_no_set(table):
    rows = {name: table[name].to_numpy() for name in table.column_names}
    assert rows["unreliability_moved"].max() <= 1e-6
    assert rows["ambiguity_moved"].max() <= 1e-6
    plain = {}
    for row in np.flatnonzero(rows["rate"] == 0):
        plain[rows["epsilon"][row], rows["seed"][row], rows["class"][row]] = rows["entropy"][row]
    teachers = zip(rows["epsilon"], rows["seed"], rows["class"], strict=True)
    change = rows["entropy"] - [plain[teacher] for teacher in teachers]
    assert (change[rows["temperature"] < 0.8] < 0).all()
    assert (change[rows["temperature"] > 1.2] > 0).all()
    assert (change[rows["temperature"] == 1] == 0).all()
    assert np.ptp(rows["mean_label_margin"]) > 0.01


def test_students_are_told_apart(table):
    students = robust_fairness.by_student(table)
    assert len(students) == 10
    first = students[0.12, 16, Arm(0.0)]
    assert first["robust_accuracy"].shape == (2, 2, 10)
    np.testing.assert_allclose(
        first["nsd"], first["robust_accuracy"].std(axis=2) / first["robust_accuracy"].mean(axis=2),
        rtol=1e-5,
    )  # fmt: skip
    np.testing.assert_array_equal(first["worst"], first["robust_accuracy"].min(axis=2))
    assert (students[0.12, 16, Arm(0.25, imbalanced=True, summed=True)]["summed"] == 1).all()


def test_a_student_that_diverged_leaves_the_summary_and_figure_whole(table):
    for name in ("robust_accuracy", "temp_adv", "mean_label_margin", "class_margin"):
        values = table[name].to_numpy().copy()
        values[:10] = np.nan
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    summary = robust_fairness.summarise({"results": table})
    json.dumps(summary, allow_nan=False)
    robust_fairness.plot({"results": table})


def test_all_rows_beyond_the_first_are_for_tests():
    whole = datasets.load("digits")
    cut = robust_fairness.train_and_test(whole, 1000)
    assert len(cut.train.labels) == 1000
    index = np.concatenate([cut.train.index, cut.test.index])
    assert sorted(index) == list(range(1797))
    assert robust_fairness.train_and_test(whole, None) is whole
    with pytest.raises(ValueError, match="rows: expected 1 … 1796, fewer than digits has"):
        robust_fairness.train_and_test(whole, 1797)


def test_odd_classes_become_rare():
    labels = jnp.arange(10_000) % 10
    drawn = np.asarray(labels[robust_fairness.imbalanced_rows(labels, jax.random.key(0))])
    share = np.bincount(drawn, minlength=10) / len(drawn)
    # 1/6 and 1/30 of all, five standard errors of 10,000 draws
    np.testing.assert_allclose(share[::2], 1 / 6, atol=0.019)
    np.testing.assert_allclose(share[1::2], 1 / 30, atol=0.009)


def test_what_can_be_told_from_labels_is_more_with_their_sharpness():
    """Two classes whose labels look alike but for the temperature."""
    labels = jnp.arange(200) % 2
    noise = jax.random.normal(jax.random.key(0), (200, 1))
    logits = jnp.concatenate([3 + noise, -3 - noise], axis=1)
    plain, tempered = (
        fairness.class_temperature_targets(logits, labels, jnp.array(table))
        for table in ([1.0, 1.0], [0.3, 3.0])
    )
    told = jax.jit(robust_fairness.told_classes)
    assert told(plain, labels) < 0.7
    assert told(tempered, labels) > 0.95


def test_tested_rows_are_attacked_one_by_one():
    """Equal to one attack on all rows together, with the same start for each."""
    split = datasets.load("digits", split="1:1:1").test
    split = jax.tree.map(lambda array: array[:30], split)
    network = networks.MLP((16,), 10)
    params = network.init(jax.random.key(0), split.images)
    key = jax.random.key(1)

    @jax.jit
    def together(images, labels):
        keys = jax.random.split(key, len(labels))
        start = jax.vmap(lambda k: jax.random.uniform(k, (8, 8, 1), minval=-1, maxval=1))(keys)
        attacked = attacks.linf_pgd(
            lambda x: robust_fairness.cross_entropy(network.apply(params, x), labels),
            images, key, epsilon=0.1, step_size=0.0125, steps=20,
            init=jnp.clip(images + 0.1 * start, 0, 1),
        )  # fmt: skip
        return network.apply(params, attacked).argmax(axis=1) == labels

    one_by_one = jax.jit(
        lambda split: robust_fairness.robust(network, params, split, jnp.float32(0.1), key)
    )
    # rounding may turn the sign of a slope near zero
    agree = np.asarray(one_by_one(split)) == np.asarray(together(split.images, split.labels))
    assert agree.mean() > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    "depths",
    [(10, 10), pytest.param((28, 16), marks=pytest.mark.slow)],  # as is, it takes half a minute
    ids=str,
)
def test_full_scale_training_traces(depths):
    """Shapes, no numbers: images of CIFAR-10, wide residual networks."""
    config = dataclasses.replace(robust_fairness.PRESETS["cifar10"], depths=depths)
    rng = np.random.default_rng(0)

    def rows(number):
        images = rng.integers(0, 256, (number, 32, 32, 3), np.uint8)
        labels = (np.arange(number) % 10).astype(np.int32)
        return datasets.Split(images, labels, np.arange(number, dtype=np.int32))

    names = tuple(map(str, range(10)))
    sets = [datasets.Dataset(rows(256), rows(20), rows(20), 10, "CIFAR-10 (JPEG)", names)]
    point = {"epsilon": jnp.float32(8 / 255), "seed": jnp.int32(0)}
    seen = jax.eval_shape(
        lambda point, key: robust_fairness.train(config, sets, point, key),
        point,
        jax.random.key(0),
    )
    # looks, students and classes
    assert {value.shape for value in seen.values()} == {(6 * 3 * 10,)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds: expected 1 or more, got 0"),
        ({"look_every": 4}, "look_every: expected a divisor of epochs, 6, got 4"),
        ({"rates": (0.1, 0.2)}, "rates: expected two or more, ascending from 0"),
        ({"rates": (0.0,)}, "rates: expected two or more, ascending from 0"),
        ({"epsilons": (0.1, -0.1)}, "epsilons: expected different numbers above zero"),
        ({"widths": (16, 16)}, "widths: expected different numbers above zero"),
        ({"rows": 50}, "rows: expected 100, a batch, or more, got 50"),
        ({"rows": 1797}, "rows: expected 1 … 1796"),
        ({"dataset": "digitz"}, "digits"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        robust_fairness.run(dataclasses.replace(TINY, **options), tmp_path)
