"""Wide distillation from the command line to the figure, on its tiny preset."""

import dataclasses
import json
import os

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from experiments import wide_distillation
from tests.experiment_runs import check_redraws, command

TABLES = ("bound", "learning", "results", "teachers", "width")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wide_distillation")
    done = command("wide_distillation", "--preset", "tiny", "--quiet", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def tables(results):
    out = results[0] / "results" / "wide_distillation" / "tiny"
    return {name: pq.read_table(out / f"{name}.parquet") for name in TABLES}


def test_tiny_preset_writes_tables_figure_and_summary(results):
    folder, printed = results
    out = folder / "results" / "wide_distillation" / "tiny"
    names = {"figure.png", "figure.svg", "summary.json", *(f"{name}.parquet" for name in TABLES)}
    assert set(os.listdir(out)) == names
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["runs"] == {
        "bound": 2, "learning": 10, "results": 80, "teachers": 6, "width": 3
    }  # fmt: skip
    assert [claim["id"] for claim in summary["claims"]] == [f"K{i}" for i in range(1, 8)]
    assert "[" in printed
    assert len(summary["cells"]) == 2 * 2 * 2
    # The bound is proved, whatever the number of runs.
    assert "of 14 below" not in printed.replace("14 of 14 below", "")


def test_students_are_told_apart_by_what_they_were_taught(tables):
    learning = wide_distillation.learning_curves(tables["learning"])
    assert learning["examples"][0, 0].tolist() == [68, 215]
    late = learning["test_accuracy"][..., -1].mean(axis=1)
    assert late[:4].min() > 0.85
    assert 0.35 < late[4] < 0.65  # random targets
    late = learning["inefficiency"][..., -1].mean(axis=1)
    assert late[:4].max() < late[4]


def test_labels_of_the_mix_are_what_they_should_be(tables):
    grid = wide_distillation.mixes(tables)
    assert grid["test_accuracy"].shape == (2, 2, 2, 5, 2)
    assert (np.diff(grid["soft_ratio"], axis=3) > 0).all()
    hard = grid["soft_ratio"] == 0
    clean = grid["flips"] == 0
    np.testing.assert_allclose(grid["unreliability"][hard & clean], 0, atol=1e-6)
    np.testing.assert_allclose(grid["repaired"][hard & clean], 1)
    # 60 labels, of which 12 flip: five standard deviations are 15
    assert (np.abs(grid["unreliability"][hard & ~clean] - 0.2) < 0.26).all()
    # The teacher alone: neither temperature nor hard labels matter.
    alone = grid["test_accuracy"][:, :, :, -1]
    np.testing.assert_allclose(alone, np.broadcast_to(alone[:, :1, :1], alone.shape))
    np.testing.assert_allclose(grid["repaired"][:, :, :, -1], 0)


def test_picks_by_hand():
    grid = {
        "test_accuracy": np.array([[0.9, 0.8, 0.7], [0.5, 0.7, 0.6]])[..., None],
        "margin": np.array([[0.1, 0.2, 0.2], [0.0, 1.0, 0.5]])[..., None],
    }
    found = wide_distillation.picks(grid, "margin")
    np.testing.assert_allclose(found.rank, [2.5, 1])  # of two equal picks the mean
    np.testing.assert_allclose(found.loss, [0.15, 0])
    np.testing.assert_allclose(found.correlation, [-np.sqrt(0.75), 1])


def test_the_slope_of_a_power_is_found():
    import pyarrow as pa

    width = np.tile([64, 256, 1024], 2)
    table = pa.table({"width": width, "distance": 3 * width**-0.4})
    slope, half = wide_distillation.width_slope(table)
    np.testing.assert_allclose([slope, half], [-0.4, 0], atol=1e-6)


def test_plot_only_redraws_the_same_files_without_training(results):
    check_redraws("wide_distillation", *results)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds: expected 1 or more, got 0"),
        ({"depth": 0}, "depth: expected 1 or more"),
        ({"ratios": ()}, "ratios: expected at least one"),
        ({"few": (0,)}, "few: expected 1 or more"),
        ({"few": (2000,)}, "few, sizes: expected fewer than the 1297"),
        ({"pair": (3, 3)}, "pair: expected two classes"),
        ({"dataset": "digitz"}, "digits"),
    ],
    ids=lambda case: str(case),
)
def test_bad_options_are_refused(options, message, tmp_path):
    config = dataclasses.replace(wide_distillation.PRESETS["tiny"], **options)
    with pytest.raises(ValueError, match=message):
        wide_distillation.run(config, tmp_path)


@pytest.mark.slow
def test_full_scale_preset_is_traced_on_images_of_its_shape(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(900) % 3
    images = rng.integers(0, 256, (900, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    full = wide_distillation.PRESETS["cifar10"]
    config = dataclasses.replace(
        full, data=tmp_path / "set.npz", few=(20, 100), student_rows=200, sizes=(22, 68, 215)
    )
    orders = wide_distillation.load(config)
    assert set(np.unique(orders.labels)) == {0, 1}
    rows = orders.labels.shape[1]
    assert orders.images.shape == (3, rows, 32, 32, 3)
    assert 550 < rows < 600  # about two thirds of the classes are the pair
    logits = np.zeros((2, 3, rows), np.float32)
    reals = {"soft_ratio": 0.5, "temperature": 2.0, "flips": 0.1}
    point = {name: np.float32(x) for name, x in reals.items()}
    point |= {"teacher_rows": np.int32(20), "seed": np.int32(1), "random": np.bool_(True)}

    def made(train):
        found = jax.eval_shape(train, point, jax.random.key(0)).values()
        assert {value.dtype for value in found} <= {np.dtype("float32"), np.dtype("int32")}
        return {value.shape for value in found}

    assert made(wide_distillation.teacher_run(config, orders)) == {(rows,), ()}
    with jax.enable_x64(True):
        assert made(wide_distillation.mixed_run(config, orders, logits)) == {()}
        assert made(wide_distillation.learning_run(config, orders, logits[0])) == {(3,)}
