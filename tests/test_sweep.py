"""Sweeps: equal to single runs whatever the chunks, the table and its notes, refusals."""

import json
import os
import subprocess

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jsoft import _stages, sweep


def train(point, key):
    """A small run with a scan inside, whose carry starts as a constant."""
    noise = jax.random.normal(key, (5,))

    def step(total, x):
        total = total + point["scale"] * x
        return total, total

    last, curve = jax.lax.scan(step, 0.0, noise)
    return {"last": last, "curve": curve, "whole": jnp.int32(3) * point["seed"]}


POINTS = sweep.grid(scale=[0.5, 1.0, 2.0, 4.0], seed=range(3))


def scalars(point, key):
    metrics = train(point, key)
    return {"last": metrics["last"], "whole": metrics["whole"]}


def test_grid_is_every_combination_last_axis_fastest():
    points = sweep.grid(a=[1.0, 2.0], b=["x", "y"], seed=range(3))
    assert [tuple(row) for row in zip(*points.values(), strict=True)][:4] == [
        (1.0, "x", 0),
        (1.0, "x", 1),
        (1.0, "x", 2),
        (1.0, "y", 0),
    ]
    assert len(points["seed"]) == 12


def test_run_i_equals_the_single_run():
    table = sweep.run(train, POINTS)
    assert table.num_rows == 12 * 5
    for i in range(12):
        point = {name: jnp.asarray(column[i]) for name, column in POINTS.items()}
        single = jax.jit(train)(point, jax.random.key(POINTS["seed"][i]))
        rows = table.slice(5 * i, 5)
        np.testing.assert_allclose(rows["curve"].to_numpy(), single["curve"], rtol=1e-6)
        np.testing.assert_allclose(rows["last"].to_numpy(), np.full(5, single["last"]), rtol=1e-6)
        assert rows["step"].to_pylist() == [1, 2, 3, 4, 5]
        assert rows["whole"].to_pylist() == [3 * int(POINTS["seed"][i])] * 5
        assert rows["scale"].to_pylist() == [float(POINTS["scale"][i])] * 5


@pytest.mark.parametrize("batch_size", [1, 2, 5, "auto"])
@pytest.mark.parametrize("chunk_size", [None, 1, 7, 64])
def test_chunks_and_batches_change_no_number(batch_size, chunk_size):
    expected = sweep.run(scalars, POINTS, batch_size=1, chunk_size=100)
    found = sweep.run(scalars, POINTS, batch_size=batch_size, chunk_size=chunk_size)
    assert found.column_names == expected.column_names
    for name in found.column_names:  # beyond the rounding of the same operations
        np.testing.assert_allclose(found[name].to_numpy(), expected[name].to_numpy(), rtol=1e-6)


def test_the_other_points_change_no_number():
    part = {name: column[4:9] for name, column in POINTS.items()}
    whole = sweep.run(scalars, POINTS)["last"].to_numpy()[4:9]
    np.testing.assert_allclose(sweep.run(scalars, part)["last"].to_numpy(), whole, rtol=1e-6)


@pytest.mark.parametrize("pieces", [1, 5])
def test_runs_are_spread_over_devices_without_talking(pieces):
    assert len(jax.devices()) == 2
    columns = sweep._check_points(POINTS)
    program, names = sweep._trace(train, columns)
    compiled = sweep._compile(
        _stages.cut(program, pieces),
        program.consts,
        columns,
        jax.devices(),
        batch_size=3,
        chunk_size=6,
    )
    assert len(compiled.turns) == (1 if pieces == 1 else 7)
    state = [column[:6] for column in columns.values()]
    for turn in compiled.turns:
        text = turn.func.as_text()
        assert not any(
            word in text for word in ("all-gather", "all-reduce", "all-to-all", "permute")
        )
        state = turn(state)
    found = dict(zip(names, state, strict=True))
    assert found["last"].sharding.device_set == set(jax.devices())


def test_one_trace_per_sweep():
    traced = chex.assert_max_traces(scalars, n=1)
    sweep.run(traced, POINTS, batch_size=2, chunk_size=4)


def test_a_run_that_turns_nan_harms_no_other():
    points = {**POINTS, "scale": np.where(np.arange(12) == 5, np.nan, POINTS["scale"])}
    clean = sweep.run(scalars, POINTS, batch_size=4)["last"].to_numpy()
    found = sweep.run(scalars, points, batch_size=4)["last"].to_numpy()
    assert np.isnan(found[5])
    np.testing.assert_array_equal(np.delete(found, 5), np.delete(clean, 5))


def test_file_holds_the_table_and_what_made_it(tmp_path):
    path = tmp_path / "new" / "results.parquet"
    table = sweep.run(train, POINTS, path=path, config={"levels": 4, "name": "Δ"})
    read = pq.read_table(path)
    assert read.equals(table)
    noted = sweep.metadata(read)
    assert noted["config"] == {"levels": 4, "name": "Δ"}
    assert noted["runs"] == 12
    assert 0 < noted["compile_seconds"] < noted["wall_seconds"]
    assert noted["versions"]["jax"] == jax.__version__
    assert noted["device"].startswith("2 × cpu")
    assert os.listdir(path.parent) == ["results.parquet"]  # nothing half-written is left


def test_git_revision_is_noted_inside_a_checkout_and_absent_outside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert sweep._git_revision() is None
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    revision = sweep._git_revision()
    assert revision is not None
    assert len(revision) == 40


def test_same_configuration_runs_again_another_is_refused(tmp_path):
    path = tmp_path / "results.parquet"
    first = sweep.run(scalars, POINTS, path=path, config={"epochs": 3, "loss": "a"})
    again = sweep.run(scalars, POINTS, path=path, config={"epochs": 3, "loss": "a"})
    assert again.equals(first)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"another configuration \(epochs: 3 there, 4 now\)"):
        sweep.run(scalars, POINTS, path=path, config={"epochs": 4, "loss": "a"})
    assert path.read_bytes() == before


def test_same_configuration_with_other_points_is_refused(tmp_path):
    path = tmp_path / "results.parquet"
    sweep.run(scalars, POINTS, path=path)
    with pytest.raises(ValueError, match="the points differ"):
        sweep.run(scalars, sweep.grid(scale=[7.0], seed=[9]), path=path)
    assert pq.read_table(path).num_rows == 12


def test_a_file_of_somebody_else_is_left_alone(tmp_path):
    path = tmp_path / "results.parquet"
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(ValueError, match="path: expected a table made by"):
        sweep.run(scalars, POINTS, path=path)
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(ValueError, match="path: expected a table made by"):
        sweep.run(scalars, POINTS, path=tmp_path / "junk")
    assert pq.read_table(path).num_rows == 1


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.parquet"
    sweep.run(scalars, POINTS, path=path)
    before = path.read_bytes()

    def full_disk(table, name, **_):
        with open(name, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sweep.pq, "write_table", full_disk)
    with pytest.raises(OSError, match="No space left"):  # another program, so computed anew
        sweep.run(lambda point, key: {"last": point["scale"]}, POINTS, path=path)
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["results.parquet", "results.parquet.parts"]


def test_notes_are_plain_json():
    table = sweep.run(scalars, POINTS)
    assert json.loads(table.schema.metadata[b"jsoft"])["config"] is None


def broken(**metrics):
    return lambda point, key: metrics


BAD = {
    "no seed": (ValueError, "expected a column seed, got scale", scalars, {"scale": [1.0]}, {}),
    "no points": (ValueError, "expected a column seed, got no columns", scalars, {}, {}),
    "no rows": (
        ValueError,
        r"points\['seed'\]: expected shape \[runs\], got \[0\]",
        scalars,
        {"seed": []},
        {},
    ),
    "lengths": (ValueError, "columns of one length", scalars, {"scale": [1.0], "seed": [1, 2]}, {}),
    "words": (
        TypeError,
        r"points\['scale'\]: expected numbers",
        scalars,
        {"scale": ["a"], "seed": [0]},
        {},
    ),
    "float seed": (ValueError, "seed.*: expected whole", scalars, {"seed": [0.5]}, {}),
    "negative seed": (ValueError, "seed.*: expected whole", scalars, {"seed": [-1]}, {}),
    "huge seed": (ValueError, "fit 32 bits", scalars, {"seed": [2**40]}, {}),
    "no dict": (
        TypeError,
        "train: expected it to return a flat dict",
        lambda point, key: 1.0,
        POINTS,
        {},
    ),
    "nested": (TypeError, "flat dict", broken(a={"b": jnp.zeros(())}), POINTS, {}),
    "matrices": (ValueError, "scalars and curves", broken(a=jnp.zeros((2, 2))), POINTS, {}),
    "curves": (ValueError, "one length", broken(a=jnp.zeros(2), b=jnp.zeros(3)), POINTS, {}),
    "taken name": (ValueError, "named unlike points", broken(scale=jnp.zeros(())), POINTS, {}),
    "bfloat16": (TypeError, "'a': .*bfloat16", broken(a=jnp.zeros((), jnp.bfloat16)), POINTS, {}),
    "keys": (TypeError, "flat dict of names to arrays", lambda point, key: {"a": key}, POINTS, {}),
    "no steps": (ValueError, "curves of one length", broken(a=jnp.zeros(0)), POINTS, {}),
    "no metrics": (TypeError, "train: expected", broken(), POINTS, {}),
    "too large": (ValueError, "range of float32", scalars, {"scale": [1e300], "seed": [0]}, {}),
    "too small": (ValueError, "range of float32", scalars, {"scale": [1e-300], "seed": [0]}, {}),
    "config": (TypeError, "config: expected plain", scalars, POINTS, {"config": {"a": {1}}}),
    "config NaN": (
        ValueError,
        "config: expected plain",
        scalars,
        POINTS,
        {"config": {"a": float("nan")}},
    ),
    "batch size": (ValueError, "batch_size, chunk_size: ", scalars, POINTS, {"batch_size": 0}),
    "chunk size": (ValueError, "batch_size, chunk_size: ", scalars, POINTS, {"chunk_size": 0}),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_at_the_door(case):
    error, message, function, points, options = BAD[case]
    with pytest.raises(error, match=message):
        sweep.run(function, points, **options)


def test_axes_need_levels():
    with pytest.raises(ValueError, match="scale: expected at least one level"):
        sweep.grid(scale=[], seed=[0])
    with pytest.raises(ValueError, match="axes: expected at least one axis"):
        sweep.grid()
    with pytest.raises(ValueError, match="table: expected a table made by"):
        sweep.metadata(pa.table({"x": [1]}))


@pytest.mark.parametrize("num_runs", [1, 3, 9])
def test_any_number_of_runs_fits_any_devices(num_runs):
    points = {name: column[:num_runs] for name, column in POINTS.items()}
    table = sweep.run(scalars, points)
    expected = [float(train(p, jax.random.key(p["seed"]))["last"]) for p in rows_of(points)]
    np.testing.assert_allclose(table["last"].to_numpy(), expected, rtol=1e-6)


def rows_of(points):
    columns = sweep._check_points(points)
    return [
        {name: column[i] for name, column in columns.items()} for i in range(len(columns["seed"]))
    ]
