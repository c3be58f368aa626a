"""The phase diagram from the command line to the figure, on its tiny preset."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments import phase_diagram
from jsoft import datasets, sweep
from tests.experiment_runs import FILES, REPOSITORY, check_redraws, command


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phase_diagram")
    # With a checkpoint after the first of two epochs, which changes nothing that is written.
    options = ("--quiet", "--checkpoints", 2)
    done = command("phase_diagram", "--preset", "tiny", *options, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_tiny_preset_writes_table_figure_and_summary(results):
    folder, printed = results
    out = folder / "results" / "phase_diagram" / "tiny"
    assert sorted(os.listdir(out)) == [
        "figure.png",
        "figure.svg",
        "results.parquet",
        "summary.json",
    ]
    table = pq.read_table(out / "results.parquet")
    assert table.num_rows == 3 * 3 * 2
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["runs"] == {"results": 18}
    assert summary["seeds"] == 2
    assert 0 < summary["compile_seconds"] < summary["wall_seconds"]
    # two epochs at (0, 0) are far from the end of training, and far from chance
    assert summary["accuracy_at_0_0"] > 0.5
    assert "right side of Δ + γ = 1" in printed
    assert (out / "figure.png").stat().st_size > 20_000


def test_rows_carry_nominal_and_measured_levels(results):
    table = pq.read_table(results[0] / "results" / "phase_diagram" / "tiny" / "results.parquet")
    rows = {name: table[name].to_numpy() for name in table.column_names}
    # Δ in truth minus nominal: 1198 rows, five standard errors are 0.07
    np.testing.assert_allclose(rows["measured_unreliability"], rows["unreliability"], atol=0.07)
    exists = rows["realisable"]
    assert rows["ambiguity"][~exists].tolist() == [0.0] * 4  # γ = 0 at Δ = 1/2 and at Δ = 1
    # γ̂ is a maximum over 90 cells of 120 rows each: biased upwards, by 0.15 at γ = 1/2
    excess = (rows["measured_ambiguity"] - rows["ambiguity"])[exists]
    assert (excess > -0.05).all()
    assert (excess < 0.25).all()


def test_a_row_can_be_run_again_by_hand(results):
    """The student of one row, without the sweep, from the values in the row alone."""
    from jsoft import losses, networks, targets, training

    table = pq.read_table(results[0] / "results" / "phase_diagram" / "tiny" / "results.parquet")
    row = table.slice(3, 1).to_pylist()[0]  # (0, 0.5), seed 1
    data = datasets.load("digits")
    sets_key, student_key = jax.random.split(jax.random.key(row["seed"]))
    sets = targets.candidate_sets(
        data.train.labels,
        sets_key,
        num_classes=10,
        unreliability=jnp.float32(row["unreliability"]),
        ambiguity=jnp.float32(row["ambiguity"]),
    )
    student = training.fit(
        networks.MLP((64, 64), 10),
        losses.superset_log_loss,
        data.train.images,
        sets,
        data.valid,
        data.test,
        student_key,
        epochs=2,
    )
    # rounding of 18 steps may move one of 300 test rows
    np.testing.assert_allclose(student["test_accuracy"], row["test_accuracy"], atol=0.0067)


def test_plot_only_redraws_the_same_files_without_training(results):
    check_redraws("phase_diagram", *results)


def test_plot_only_refuses_options_that_the_table_was_not_made_with(results):
    done = command(
        "phase_diagram", "--preset", "tiny", "--plot-only", "--levels", 7, folder=results[0]
    )
    assert done.returncode != 0
    assert "levels: expected 3 as in" in done.stderr
    done = command(
        "phase_diagram", "--preset", "tiny", "--plot-only", "--out", "elsewhere", folder=results[0]
    )
    assert done.returncode != 0
    assert "run without --plot-only first" in done.stderr


def test_a_student_that_diverged_leaves_the_summary_and_figure_whole(results):
    table = pq.read_table(results[0] / "results" / "phase_diagram" / "tiny" / "results.parquet")
    column = table.column_names.index("test_accuracy")
    accuracy = table["test_accuracy"].to_numpy().copy()
    accuracy[0] = np.nan  # one of two seeds at (0, 0)
    accuracy[2:4] = np.nan  # both seeds at (0, 0.5)
    spoiled = table.set_column(column, "test_accuracy", pa.array(accuracy))
    summary = phase_diagram.summarise({"results": spoiled})
    assert summary["diverged_students"] == 3
    np.testing.assert_allclose(summary["accuracy_at_0_0"], accuracy[1], atol=1e-4)
    assert -1 <= summary["spearman_divergence"] <= 1
    json.dumps(summary, allow_nan=False)
    phase_diagram.plot({"results": spoiled})


def test_files_of_one_name_with_other_images_are_told_apart(tmp_path):
    config = dataclasses.replace(
        phase_diagram.PRESETS["tiny"], levels=2, seeds=1, epochs=1, batch_size=16
    )
    for number, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        images = np.random.default_rng(number).random((60, 5), np.float32)
        np.savez(tmp_path / folder / "set.npz", images=images, labels=np.arange(60) % 3)
    phase_diagram.run(dataclasses.replace(config, data=tmp_path / "a" / "set.npz"), tmp_path)
    with pytest.raises(ValueError, match=r"another configuration \(dataset_fingerprint"):
        phase_diagram.run(dataclasses.replace(config, data=tmp_path / "b" / "set.npz"), tmp_path)


def test_another_configuration_is_refused_before_training(results):
    done = command("phase_diagram", "--preset", "tiny", "--epochs", 3, folder=results[0])
    assert done.returncode != 0
    assert "another configuration (epochs: 2 there, 3 now)" in done.stderr


def test_a_process_of_its_own_does_the_same(tmp_path):
    """As users start it: devices of its own, compiled programs kept."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "experiments.phase_diagram", "--preset", "tiny"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    out = tmp_path / "results" / "phase_diagram" / "tiny"
    assert {path.name for path in out.iterdir()} == FILES
    assert f"written to {out.relative_to(tmp_path)}" in done.stdout
    assert any((tmp_path / "jsoft" / "programs").iterdir())


def test_unknown_preset_names_those_there_are(tmp_path):
    done = command("phase_diagram", "--preset", "imagenet", folder=tmp_path)
    assert done.returncode == 2
    for preset in phase_diagram.PRESETS:
        assert preset in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 1}, "levels: expected 2 or more, got 1"),
        ({"seeds": 0}, "seeds: expected 1 or more, got 0"),
        ({"splits": 0}, "splits: expected 1 or more, got 0"),
        ({"k": 3}, "k: expected None"),
        ({"generator": "fixed_size"}, "k: expected the size"),
        ({"dataset": "digitz"}, "digits"),
    ],
    ids=lambda case: str(case),
)
def test_bad_options_are_refused(options, message, tmp_path):
    config = dataclasses.replace(phase_diagram.PRESETS["tiny"], **options)
    with pytest.raises(ValueError, match=message):
        phase_diagram.run(config, tmp_path)


@pytest.mark.parametrize(
    ("generator", "k", "network"),
    [
        ("fixed_size", 2, "mlp"),
        ("confuser", None, "mlp"),
        pytest.param("independent", None, "convnet", marks=pytest.mark.slow),
    ],
)
def test_generators_and_networks_of_the_options_train(generator, k, network, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 4
    images = rng.random((240, 8, 8, 1), np.float32) + labels[:, None, None, None]
    np.savez(tmp_path / "set.npz", images=images.astype(np.float32) / 4, labels=labels)
    config = phase_diagram.Config(
        preset="tiny",
        data=tmp_path / "set.npz",
        levels=2,
        seeds=1,
        splits=1,
        epochs=2,
        batch_size=32,
        generator=generator,
        k=k,
        network=network,
    )
    tables = phase_diagram.run(config, tmp_path)
    table = tables["results"]
    assert table.num_rows == 4
    assert not np.isnan(table["test_accuracy"].to_numpy()).any()
    assert sweep.metadata(table)["config"]["num_classes"] == 4
    figure = phase_diagram.plot(tables)
    assert len(figure.subfigs) == 2
    summary = phase_diagram.summarise(tables)
    assert 0 <= summary["accuracy_at_0_0"] <= 1


@pytest.mark.slow  # for its times, which another test beside it would spoil
def test_second_start_hardly_compiles(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    seconds = []
    for out in ("first", "second"):
        done = command("phase_diagram", "--preset", "tiny", "--out", out, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        summary = json.loads((tmp_path / out / "summary.json").read_text(encoding="utf-8"))
        seconds.append(summary["compile_seconds"])
    assert list((tmp_path / "jsoft" / "programs").iterdir())
    assert seconds[1] < min(1.5, seconds[0])
