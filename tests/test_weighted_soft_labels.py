"""Weighted soft labels from the command line to the figure, on its tiny preset."""

import dataclasses
import json
import os

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments import weighted_soft_labels as experiment
from jsoft import datasets, indicators
from tests.experiment_runs import check_redraws, command

TINY = experiment.PRESETS["tiny"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weighted_soft_labels")
    done = command("weighted_soft_labels", "--preset", "tiny", "--quiet", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def tables(results):
    out = results[0] / "results" / "weighted_soft_labels" / "tiny"
    return {name: pq.read_table(out / f"{name}.parquet") for name in ("results", "ensembles")}


def test_tiny_preset_writes_tables_figure_and_summary(results, tables):
    folder, printed = results
    out = folder / "results" / "weighted_soft_labels" / "tiny"
    assert sorted(os.listdir(out)) == [
        "ensembles.parquet",
        "figure.png",
        "figure.svg",
        "results.parquet",
        "summary.json",
    ]
    # two corruptions at one α and at the usual point, and a smoothed teacher; two seeds, two epochs
    assert tables["results"].num_rows == (2 + 2 + 1) * 2 * 2
    assert tables["ensembles"].num_rows == 2
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["runs"] == {"ensembles": 2, "results": 10}
    assert [row["id"] for row in summary["claims"]] == ["W1", "W2", "W3", "W4", "W5", "W6", "W7"]
    assert [row["corruption"] for row in summary["levels"]] == [0.0, 0.2]
    assert "[met] W5" in printed
    assert (out / "figure.png").stat().st_size > 20_000


def test_redraws_the_same_files_without_training(results):
    check_redraws("weighted_soft_labels", *results)


def test_students_of_one_seed_differ_in_their_objective_alone(tables):
    """Cross-entropy does not look at the teacher, so its students are the same at every level."""
    rows = {name: tables["results"][name].to_numpy() for name in tables["results"].column_names}
    for seed in (0, 1):
        for step in (1, 2):
            here = (rows["seed"] == seed) & (rows["step"] == step)
            assert np.ptp(rows["ce_test_accuracy"][here]) == 0
            assert np.ptp(rows["wsl_test_accuracy"][here]) > 0
    assert not np.array_equal(rows["kd_test_accuracy"], rows["wsl_test_accuracy"])
    assert (rows["ce_test_accuracy"] > 0.2).all()  # above chance after one epoch
    first = experiment.rows_of(tables["results"], 0.2, 2.25)
    assert first["epoch"].tolist() == [[1, 4], [1, 4]]
    assert (first["unreliability"] > 0.02).all()


def test_bias_and_variance_add_up(tables):
    for row in experiment.bias_and_variance(tables["ensembles"]):
        for arm in experiment.ARMS:
            assert row[f"{arm}_variance"] > 0.01
            total = row[f"{arm}_bias"] + row[f"{arm}_variance"]
            np.testing.assert_allclose(total, row[f"{arm}_error"], atol=2e-4)  # four digits
    for arm in experiment.ARMS:
        assert (tables["ensembles"][f"{arm}_gap"].to_numpy() < 1e-5).all()


def test_a_run_that_diverged_leaves_summary_and_figure_whole(tables):
    table = tables["results"]
    values = table["wsl_test_accuracy"].to_numpy().copy()
    values[:2] = np.nan
    place = table.column_names.index("wsl_test_accuracy")
    spoiled = {"results": table.set_column(place, "wsl_test_accuracy", pa.array(values))}
    summary = experiment.summarise(spoiled)  # without ensembles, too
    assert summary["diverged_runs"] == 1
    verdicts = {row["id"]: row["verdict"] for row in summary["claims"]}
    assert verdicts["W1"] == "not met"
    assert "W5" not in verdicts
    json.dumps(summary, allow_nan=False)
    experiment.plot(spoiled)


def test_weighted_indicators_are_the_indicators_of_the_rows_that_weigh():
    rng = np.random.default_rng(0)
    soft_labels = rng.dirichlet(np.ones(4), size=200).astype(np.float32)
    labels = rng.integers(4, size=200)
    members = indicators.membership(soft_labels, 1)
    weigh = jax.jit(experiment.weighted_indicators)
    for kept in (np.ones(200, bool), rng.random(200) < 0.5):
        found = weigh(soft_labels, members, labels, kept * np.float32(0.3))
        measured = indicators.measure(soft_labels, labels, max_k=1, where=kept)
        expected = measured.unreliability[0], measured.ambiguity[0], measured.mean_label_margin
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    # a row of weight 2 counts as two rows
    twice = np.where(np.arange(200) < 50, 2.0, 1.0).astype(np.float32)
    again = np.r_[np.arange(200), np.arange(50)]
    found = weigh(soft_labels, members, labels, twice)
    expected = indicators.mean_label_margin(soft_labels[again], labels[again])
    np.testing.assert_allclose(found[2], expected, rtol=1e-5)


def test_levels_hold_the_corruptions_the_usual_point_and_the_smoothed_teacher():
    found = experiment.points(experiment.PRESETS["digits"])
    assert len(found["seed"]) == (5 * 5 + 5 + 1) * 20
    usual = found["hard_weight"] == experiment.USUAL_HARD_WEIGHT
    assert set(found["alpha"][usual]) == {experiment.USUAL_ALPHA}
    assert set(found["corruption"][found["smoothing"] > 0]) == {0.0}


def test_networks_see_pixels_of_mean_zero():
    data = datasets.load("digits", split="500:500:797")
    network = experiment.network_of(TINY, "student", data)
    seen = (data.train.images - network.mean) / network.deviation
    np.testing.assert_allclose(np.mean(seen, axis=0), 0, atol=1e-5)
    assert np.isfinite(seen).all()  # some pixels are always black


def images_like_cifar(rows):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(rows, 32, 32, 3)).astype(np.uint8)
    return datasets.Split(images, np.arange(rows, dtype=np.int32) % 10, np.arange(rows))


# The preset's own networks take ten seconds to trace: shallow ones have the same parts.
@pytest.mark.slow
@pytest.mark.parametrize(
    "depths", [(10, 10), pytest.param((40, 16), marks=pytest.mark.slow)], ids=str
)
def test_full_scale_preset_traces(depths):
    assert experiment.PRESETS["cifar10"].depths == (40, 16)
    config = dataclasses.replace(experiment.PRESETS["cifar10"], depths=depths)
    split = images_like_cifar(64)
    data = datasets.Dataset(split, split, split, 10, "stand-in", tuple("abcdefghij"))
    levels = {name: float(column[0]) for name, column in experiment.points(config).items()}
    found = jax.eval_shape(
        lambda point, key: experiment.follow(config, data, point, key), levels, jax.random.key(0)
    )
    assert found["wsl_test_accuracy"].shape == (1,)
    assert found["teacher_test_accuracy"].shape == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 1}, "seeds: expected 2 or more, got 1"),
        ({"splits": 0}, "splits: expected 1 or more, got 0"),
        ({"ensembles": -1}, "ensembles: expected 0 or more, got -1"),
        ({"members": 1}, "members: expected 2 or more, got 1"),
        ({"alpha": 3.0}, r"alpha: expected one of alphas, \(2.25,\), got 3.0"),
        ({"corruptions": (0.2,)}, "corruptions: expected 0 and 0.2 among them"),
        ({"snapshots": ()}, "snapshots: expected epochs in ascending order"),
        ({"snapshots": (3, 2)}, "snapshots: expected epochs in ascending order"),
        ({"dataset": "digitz"}, "digits"),
        ({"split": "5:5"}, "split: expected positive whole numbers"),
    ],
    ids=lambda case: str(case),
)
def test_bad_options_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        experiment.run(dataclasses.replace(TINY, **options), tmp_path)
