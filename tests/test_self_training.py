"""Self-training from the command line to the figure, its maps, and the surface they read."""

import dataclasses
import itertools
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose

from experiments import self_training
from jsoft import datasets, losses, networks, sweep, targets, training
from tests.experiment_runs import FILES, check_redraws, command

TINY = self_training.PRESETS["tiny"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("self_training")
    done = command("self_training", "--preset", "tiny", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def tables(results):
    out = results[0] / "results" / "self_training" / "tiny"
    return {name: pq.read_table(out / f"{name}.parquet") for name in ("results", "surface")}


def test_tiny_preset_writes_tables_figure_and_summary(results):
    folder, printed = results
    out = folder / "results" / "self_training" / "tiny"
    assert set(os.listdir(out)) == FILES | {"surface.parquet"}
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["runs"] == {"results": 2 * 2, "surface": 3 * 3 * 2}
    assert set(summary["test_accuracy"]) == {"20", "100"}
    assert {claim["id"] for claim in summary["claims"]} == {"B7"}
    # What needs no training is met even here
    assert [claim["verdict"] for claim in summary["claims"][:3]] == ["met"] * 3
    assert "[met] B7  trajectories of the cell model" in printed
    assert (out / "figure.png").stat().st_size > 50_000


def test_plot_only_redraws_the_same_files_without_training(results):
    check_redraws("self_training", *results)


def test_another_configuration_is_refused_before_training(results):
    out = results[0] / "results" / "self_training" / "tiny"
    with pytest.raises(ValueError, match=r"another configuration \(rounds: 3 there, 4 now\)"):
        self_training.run(dataclasses.replace(TINY, rounds=4), out)


def test_labels_of_a_round_are_the_given_ones_and_the_students_own(tables):
    table = tables["results"]
    rows = {name: table[name].to_numpy() for name in table.column_names}
    lam = rows["num_labels"] / sweep.metadata(table)["config"]["training_rows"]
    # 1198 float32 rows: half a row is 0.0004
    wrong = (1 - lam) * (1 - rows["unlabelled_accuracy"])
    assert_allclose(rows["unreliability"], wrong, atol=1e-5)
    # c is the share of one class of nine, or more; c Δ, a mean over classes, is not above γ, the
    # maximum, where classes are of one size (here 105 to 140 rows)
    assert (rows["concentration"] >= 1 / 9).all()
    assert (rows["concentration"] <= 1).all()
    assert (rows["concentration"] * rows["unreliability"] <= 1.2 * rows["ambiguity"]).all()


def test_rounds_can_be_run_again_by_hand(tables):
    """Rounds 0 and 1 without scan or sweep, from the values in the row alone."""
    row = tables["results"].slice(0, 2).to_pylist()
    assert (row[0]["num_labels"], row[0]["seed"], row[1]["step"]) == (20, 0, 2)
    data = datasets.load("digits")
    num_rows = len(data.train.labels)
    draw_key, student_key, _ = jax.random.split(jax.random.key(0), 3)
    given = np.asarray(jax.random.permutation(draw_key, num_rows))[:20]
    truth = np.eye(10, dtype=bool)[data.train.labels]
    network = networks.MLP((128,), 10)

    @jax.jit
    def student(images, candidates, number):
        params, metrics = training.fit_params(
            network,
            losses.superset_log_loss,
            images,
            candidates,
            data.valid,
            data.test,
            jax.random.fold_in(student_key, number),
            epochs=TINY.epochs,
            learning_rate=0.05,
            nesterov=False,
            weight_decay=1e-3,
        )
        return training.predict(network, params, data.train.images), metrics["test_accuracy"]

    repeated = np.resize(given, num_rows)  # over and over again
    logits, accuracy = student(data.train.images[repeated], truth[repeated], 0)
    # rounding may move one of 300 test rows, and a few of the labels it gives
    assert_allclose(accuracy, row[0]["test_accuracy"], atol=0.0067)
    told = np.array(targets.pseudo_labels(logits)) > 0
    told[given] = truth[given]
    assert_allclose((told != truth).any(axis=1).mean(), row[0]["unreliability"], atol=0.003)
    _, accuracy = student(data.train.images, told, 1)
    assert_allclose(accuracy, row[1]["test_accuracy"], atol=0.02)


@pytest.mark.slow
def test_a_student_that_diverged_leaves_the_summary_and_figure_whole(tables):
    spoiled = dict(tables)
    for name in tables:
        accuracy = tables[name]["test_accuracy"].to_numpy().copy()
        accuracy[:2] = np.nan  # of the surface both seeds of the first cell
        column = tables[name].column_names.index("test_accuracy")
        spoiled[name] = tables[name].set_column(column, "test_accuracy", pa.array(accuracy))
    summary = self_training.summarise(spoiled)
    assert summary["diverged_students"] == 2
    json.dumps(summary, allow_nan=False)
    self_training.plot(spoiled)


def test_shuffling_keeps_how_often_each_class_is_called_what():
    labels = np.arange(60) % 3
    told = np.eye(4, dtype=bool)[np.random.default_rng(0).integers(0, 4, 60)]
    shuffled = np.asarray(
        self_training.shuffle_within_classes(
            jnp.asarray(told), jnp.asarray(labels), jax.random.key(0)
        )
    )
    for label in range(3):
        before, after = told[labels == label], shuffled[labels == label]
        assert (before.sum(axis=0) == after.sum(axis=0)).all()
        assert (before != after).any()


def test_concentration_is_the_share_of_the_likeliest_wrong_class():
    # class 0: five rows are called 1, one 2; class 1: two are called 0, two 2; class 2 is right
    labels = np.repeat([0, 1, 2], [8, 4, 3])
    told = np.array([0, 0, 1, 1, 1, 1, 1, 2, 0, 0, 2, 2, 2, 2, 2])
    found = self_training.concentration(jnp.eye(3, dtype=bool)[told], jnp.asarray(labels))
    assert_allclose(found, (5 + 2) / (6 + 4), rtol=1e-6)


def reference_monotone(values, weights):
    """Return the falling fit of `[A, B]` by the min–max formula of isotonic regression.

    At x, the largest over sets U that hold x and whatever is before it, of the smallest, over sets
    D that hold x and whatever is behind it, of the weighted mean over U ∩ D.
    """
    shape = values.shape
    cells = list(itertools.product(*map(range, shape)))
    falls = itertools.combinations_with_replacement(range(shape[1], -1, -1), shape[0])
    # A set of first cells holds the first n_a of row a, with n falling
    firsts = [{(a, b) for a, n in enumerate(lengths) for b in range(n)} for lengths in falls]
    lasts = [set(cells) - first for first in firsts]

    def mean(some):
        rows, columns = zip(*some, strict=True)
        return np.average(values[rows, columns], weights=weights[rows, columns])

    # Falling along both axes: the mean over an early set may be raised, over a late one lowered
    return np.array(
        [
            [
                max(
                    min(mean(first & last) for last in lasts if (a, b) in last)
                    for first in firsts
                    if (a, b) in first
                )
                for b in range(shape[1])
            ]
            for a in range(shape[0])
        ]
    )


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (1, 5), (4, 1)], ids=str)
def test_monotone_surface_is_the_nearest_one(shape):
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=shape), rng.uniform(0.2, 3, shape)
    found = self_training.monotone_surface(values, weights)
    # Dykstra's method stops at steps of 1e-10
    assert_allclose(found, reference_monotone(values, weights), atol=1e-7)


def test_monotone_surface_leaves_what_falls_and_keeps_the_mean():
    rng = np.random.default_rng(1)
    falling = -np.cumsum(np.cumsum(rng.random((5, 6)), axis=0), axis=1)
    weights = rng.random((5, 6)) + 0.1
    assert_allclose(self_training.monotone_surface(falling, weights), falling)
    values = rng.random((11, 11))
    found = self_training.monotone_surface(values, np.ones_like(values))
    assert np.diff(found, axis=0).max() < 1e-8
    assert np.diff(found, axis=1).max() < 1e-8
    assert_allclose(found.mean(), values.mean())


def surface_of(function, num_levels=6):
    levels = np.linspace(0, 1, num_levels)
    values = function(levels[:, None], levels[None, :])
    nothing = np.zeros_like(values)
    return self_training.Surface(levels, values, nothing, nothing == 0, values)


def test_next_round_reads_the_surface_along_the_line():
    # ρ = 1 − Δ/2 − γ/4 is linear, hence exact between the levels; γ stops at 1
    phi = self_training.next_round(surface_of(lambda d, g: 1 - d / 2 - g / 4), 2.0)
    accuracy = np.array([0.0, 0.37, 0.5, 0.93, 1.0])
    wrong = 1 - accuracy
    expected = 1 - wrong / 2 - np.minimum(2 * wrong, 1) / 4
    assert_allclose(phi(accuracy), expected, atol=1e-12)


def test_fixed_points_and_where_one_goes_from_them():
    def phi(a):
        a = np.asarray(a)
        return a + 0.5 * (a - 0.1) * (a - 0.42) * (0.9 - a)

    found = self_training.fixed_points(phi)
    assert [stable for _, stable in found] == [True, False, True]
    # φ(0) > 0 and φ(1) < 1 here; between two of 401 points the curve is taken as straight
    assert_allclose([a for a, _ in found], [0.1, 0.42, 0.9], atol=1e-4)
    assert_allclose(self_training.trajectory(phi, 0.40, 1000)[-1], 0.1, atol=1e-6)
    assert_allclose(self_training.trajectory(phi, 0.44, 1000)[-1], 0.9, atol=1e-6)
    assert self_training.fixed_points(lambda a: 0 * a + 0.3) == [(pytest.approx(0.3), True)]


@pytest.mark.parametrize("cells", self_training.CELLS, ids=lambda cells: f"c={cells.name}")
def test_the_cell_model_goes_to_nothing_or_to_everything(cells):
    found = self_training.fixed_points(self_training.next_vote(cells))
    assert [stable for _, stable in found] == [True, False, True]
    assert_allclose([found[0][0], found[2][0]], [0, 1], atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 1}, "rounds: expected 2 or more, got 1"),
        ({"seeds": 1}, "seeds: expected 2 or more, got 1"),
        ({"levels": 1}, "levels: expected 2 or more, got 1"),
        ({"surface_seeds": 1}, "surface_seeds: expected 2 or more, got 1"),
        ({"splits": 0}, "splits: expected 1 or more, got 0"),
        ({"labels": ()}, "labels: expected ascending numbers"),
        ({"labels": (50, 20)}, "labels: expected ascending numbers"),
        ({"labels": (0, 20)}, r"labels: expected ascending numbers in 1 … 1197"),
        ({"labels": (20, 1198)}, r"labels: .* got \(20, 1198\)"),
        ({"dataset": "digitz"}, "digits"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options, message, tmp_path):
    config = dataclasses.replace(TINY, **options)
    with pytest.raises(ValueError, match=message):
        self_training.run(config, tmp_path)


@pytest.mark.slow
def test_a_users_own_images_go_through_without_claims_of_the_prototype(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 4
    images = (rng.random((240, 6)) + np.eye(4, 6)[labels]).astype(np.float32)
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    config = dataclasses.replace(
        TINY, data=tmp_path / "set.npz", labels=(8,), rounds=2, levels=2, batch_size=32, epochs=3
    )
    tables = self_training.run(config, tmp_path)
    summary = self_training.summarise(tables)
    assert not any("100 labels" in claim["claim"] for claim in summary["claims"])
    json.dumps(summary, allow_nan=False)
    self_training.plot(tables)


@pytest.mark.slow
def test_digits_rounds_are_slower_than_their_labels_allow(tmp_path):
    """On digits, six seeds: the prototype's rounds, and the reason why they are slow."""
    config = dataclasses.replace(
        self_training.PRESETS["digits"], seeds=6, rounds=3, levels=2, surface_seeds=2
    )
    rounds = self_training.measured_rounds(self_training.run(config, tmp_path)["results"])
    # One seed of 20 labels has an s.d. of 0.07, of 50 0.045, of 100 0.03: the single printed seed
    # and the mean of six differ by an s.d. of 1.08 times that; 3 of them, and 0 of 3 should fail.
    spread = np.array([0.07, 0.045, 0.03])
    first = np.array([printed[0] for _, printed in self_training.PROTOTYPE.values()])
    assert (np.abs(rounds.test[..., 0].mean(axis=1) - first) < 3 * 1.08 * spread).all()
    # A round gains 0.01 to 0.03; shuffled labels 0.05 to 0.08 more, with a standard error of 0.015
    more = rounds.shuffled[..., 0] - rounds.test[..., 1]
    assert (more.mean(axis=1) > 0.01).all()
