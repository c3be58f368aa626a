"""An interrupted sweep goes on: kills, damaged files, full disks, several processes."""

import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from jsoft import _chunks, sweep

SCRIPT = Path(__file__).with_name("sweep_process.py")
POINTS = sweep.grid(scale=[0.5, 1.0, 2.0], seed=range(4))


def train(point, key):
    noise = jax.random.normal(key, (5,))
    return {"last": noise.sum() * point["scale"], "curve": jax.numpy.cumsum(noise)}


def start(path, checkpoints=0, *distributed, **environment):
    return subprocess.Popen(
        [sys.executable, "-W", "error", SCRIPT, *map(str, [path, checkpoints, *distributed])],
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(path, checkpoints=0, **environment):
    process = start(path, checkpoints, **environment)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    return pq.read_table(path)


def parts(path):
    return sorted(Path(f"{path}.parts").glob("*.npz"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return finish(tmp_path_factory.mktemp("whole") / "results.parquet")


def kill_and_finish(folder, whole, chunks):
    """Kill the sweep once it has written this many chunks, or is about to; then finish it."""
    path = folder / "results.parquet"
    process = start(path)
    while len(parts(path)) < chunks and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not path.exists()
    assert len(parts(path)) >= chunks
    before = {part.name: part.stat().st_mtime_ns for part in parts(path)}
    marker = folder / "marker"
    marker.touch()
    table = finish(path)
    assert table.equals(whole)  # to the bit
    assert table.schema.equals(whole.schema)
    assert len(before) >= chunks
    assert sorted(os.listdir(folder)) == ["marker", "results.parquet"]


def test_killed_sweep_goes_on_and_ends_in_the_same_table(tmp_path, whole):
    kill_and_finish(tmp_path, whole, chunks=5)


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(10))
def test_killed_at_ten_random_moments(attempt, tmp_path, whole):
    kill_and_finish(tmp_path, whole, chunks=random.Random(attempt).randrange(0, 36))


def interrupted(path, after, config=None):
    """Leave `after` chunks of two runs each at `path`, as an interruption does."""
    count = 0
    write = _chunks.write

    def interrupt(folder, chunk):
        nonlocal count
        if count == after:
            raise KeyboardInterrupt
        count += 1
        write(folder, chunk)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_chunks, "write", interrupt)
        with pytest.raises(KeyboardInterrupt) as raised:
            sweep.run(train, POINTS, path=path, config=config, batch_size=1, chunk_size=2)
    return raised.value.__notes__


def resumed(path, monkeypatch, **options):
    """Return the finished table, and which runs were computed for it."""
    computed = []
    run_chunk = sweep._run_chunk

    def watched(compiled, names, columns, rows, folder):
        computed.extend(rows.tolist())
        return run_chunk(compiled, names, columns, rows, folder)

    monkeypatch.setattr(sweep, "_run_chunk", watched)
    options = {"batch_size": 1, "chunk_size": 2, **options}
    return sweep.run(train, POINTS, path=path, **options), computed


def test_only_what_is_missing_is_computed(tmp_path, monkeypatch):
    path = tmp_path / "results.parquet"
    notes = interrupted(path, after=3)
    assert notes == [f"6 of 12 runs are kept in {path}.parts; the same command goes on from there"]
    table, computed = resumed(path, monkeypatch)
    assert computed == [6, 7, 8, 9, 10, 11]
    assert table.equals(sweep.run(train, POINTS, batch_size=1, chunk_size=2))
    assert os.listdir(tmp_path) == ["results.parquet"]


def test_finished_table_is_returned_and_another_program_computes_anew(tmp_path, monkeypatch):
    path = tmp_path / "results.parquet"
    first = sweep.run(train, POINTS, path=path)
    again, computed = resumed(path, monkeypatch)
    assert computed == []
    assert again.equals(first)
    assert sweep.metadata(again) == sweep.metadata(first)
    other = sweep.run(lambda point, key: {"last": point["scale"]}, POINTS, path=path, batch_size=1)
    assert other["last"].to_pylist() == POINTS["scale"].tolist()


def closes_over(data):
    """Return a training that holds its data in a program inside its own."""
    inner = jax.jit(lambda x: (jax.numpy.asarray(data) * x).sum())
    return lambda point, key: {"last": inner(point["scale"])}


def test_other_data_is_another_program(tmp_path):
    path = tmp_path / "results.parquet"
    first = sweep.run(closes_over([1.0, 2.0]), POINTS, path=path)
    second = sweep.run(closes_over([100.0, 2.0]), POINTS, path=path)
    np.testing.assert_allclose(first["last"], 3 * POINTS["scale"])
    np.testing.assert_allclose(second["last"], 102 * POINTS["scale"])


def test_a_key_may_be_closed_over(tmp_path):
    def with_key(seed):
        key = jax.random.key(seed)
        return lambda point, _: {"x": jax.random.uniform(key) * point["scale"]}

    path = tmp_path / "results.parquet"
    first = sweep.run(with_key(0), POINTS, path=path)
    assert not sweep.run(with_key(1), POINTS, path=path).equals(first)


def test_chunks_that_overlap_do_no_harm(tmp_path, monkeypatch):
    path = tmp_path / "results.parquet"
    interrupted(path, after=3)
    first = _chunks.read(Path(f"{path}.parts"), 12, ["last", "curve"])[0][0]
    overlap = {name: metric[1:] for name, metric in first.metrics.items()}
    _chunks.write(Path(f"{path}.parts"), _chunks.Chunk(first.rows[1:], overlap, 0.0))
    table, computed = resumed(path, monkeypatch)
    assert computed == list(range(6, 12))
    assert table.equals(sweep.run(train, POINTS, batch_size=1, chunk_size=2))


def test_chunks_of_nobody_knows_which_sweep_are_not_used(tmp_path, monkeypatch):
    path = tmp_path / "results.parquet"
    interrupted(path, after=3)
    (Path(f"{path}.parts") / _chunks.SWEEP).write_text("{", encoding="utf-8")
    _, computed = resumed(path, monkeypatch)
    assert computed == list(range(12))


def test_a_kill_between_table_and_cleaning_up_is_mended(tmp_path, monkeypatch):
    path = tmp_path / "results.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_chunks, "remove", lambda folder: None)
        sweep.run(train, POINTS, path=path)
    assert parts(path)
    _, computed = resumed(path, monkeypatch)
    assert computed == []
    assert os.listdir(tmp_path) == ["results.parquet"]


@pytest.mark.parametrize("chunk_size", [1, 4, 7, 64])
def test_other_chunks_may_go_on(chunk_size, tmp_path, monkeypatch):
    path = tmp_path / "results.parquet"
    interrupted(path, after=2)
    table, computed = resumed(path, monkeypatch, chunk_size=chunk_size)
    assert computed == list(range(4, 12))
    expected = sweep.run(train, POINTS)
    for name in table.column_names:
        np.testing.assert_allclose(table[name], expected[name], rtol=1e-6)


def test_damaged_chunks_are_found_and_computed_again(tmp_path, monkeypatch, caplog):
    path = tmp_path / "results.parquet"
    interrupted(path, after=5)
    first, second, third, fourth, _ = parts(path)
    first.unlink()
    second.write_bytes(second.read_bytes()[:-40])  # truncated
    content = bytearray(third.read_bytes())
    place = content.index(np.load(third)["metric last"].tobytes())
    content[place] ^= 1  # one bit
    third.write_bytes(content)
    fourth.write_bytes(b"")
    table, computed = resumed(path, monkeypatch)
    assert computed == [*range(8), 10, 11]
    assert "3 damaged chunks" in caplog.text
    assert table.equals(sweep.run(train, POINTS, batch_size=1, chunk_size=2))


def test_any_flipped_byte_is_found_or_harmless(tmp_path):
    rows, last = np.arange(3), np.array([1.0, 2.0, 3.0], np.float32)
    _chunks.write(tmp_path, _chunks.Chunk(rows, {"last": last}, 0.5))
    (path,) = tmp_path.glob("*.npz")
    content = path.read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 0x10
        path.write_bytes(flipped)
        chunks, damaged = _chunks.read(tmp_path, 3, ["last"])
        if not damaged:  # a byte that holds nothing, such as a date
            np.testing.assert_array_equal(chunks[0].rows, rows)
            np.testing.assert_array_equal(chunks[0].metrics["last"], last)
            assert chunks[0].seconds == 0.5


def test_another_configuration_is_refused_with_the_difference(tmp_path):
    path = tmp_path / "results.parquet"
    interrupted(path, after=2, config={"epochs": 3})
    with pytest.raises(ValueError, match=r"another configuration \(epochs: 3 there, 4 now\)"):
        sweep.run(train, POINTS, path=path, config={"epochs": 4})
    with pytest.raises(ValueError, match="the points differ"):
        sweep.run(train, {**POINTS, "seed": POINTS["seed"] + 1}, path=path, config={"epochs": 3})
    with pytest.raises(ValueError, match="what a run computes differs"):
        sweep.run(
            lambda point, key: {name: 2 * x for name, x in train(point, key).items()},
            POINTS,
            path=path,
            config={"epochs": 3},
        )
    assert len(parts(path)) == 2


def test_full_disk_stops_with_a_message_and_keeps_what_was_finished(tmp_path):
    path = tmp_path / "results.parquet"

    process = start(path)
    while len(parts(path)) < 3 and process.poll() is None:
        time.sleep(0.002)
    # No file may grow beyond 100 bytes from now on.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100, 100))
    _, stderr = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "File too large" in stderr
    assert "runs are kept in" in stderr
    kept = parts(path)
    assert len(kept) >= 3
    chunks, damaged = _chunks.read(kept[0].parent, 80, ["last", "curve"])
    assert damaged == 0
    assert len(chunks) == len(kept)


def test_full_disk_at_a_checkpoint_stops_with_a_message(tmp_path):
    path = tmp_path / "results.parquet"
    process = start(path, 5)
    while not list(Path(f"{path}.parts").glob("checkpoints/*/*")) and process.poll() is None:
        time.sleep(0.002)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100, 100))
    _, stderr = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "runs are kept in" in stderr


def test_watched_metric_must_exist():
    with pytest.raises(ValueError, match="watch: expected one of curve, last, got 'loss'"):
        sweep.run(train, POINTS, watch="loss")


def test_two_processes_share_the_runs_and_one_table(tmp_path, whole):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    path = tmp_path / "results.parquet"
    processes = [start(path, 0, number, 2, port) for number in range(2)]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    table = pq.read_table(path)
    assert table.equals(whole)
    assert json.loads(table.schema.metadata[b"jsoft"])["runs"] == 80
    assert os.listdir(tmp_path) == ["results.parquet"]


@pytest.mark.parametrize("devices", [1, 8])
def test_number_of_devices_changes_no_number(devices, tmp_path, whole):
    table = finish(tmp_path / "results.parquet", DEVICES=str(devices))
    assert json.loads(table.schema.metadata[b"jsoft"])["device"].startswith(f"{devices} × cpu")
    for name in whole.column_names:  # the same operations, in whatever order XLA takes them
        np.testing.assert_allclose(table[name], whole[name], rtol=1e-5)


def long_run(point, key):
    """Two long loops, the first of which hands a key on to the second."""

    def turn(carry, x):
        total, key = carry
        total = 0.9 * total + point["scale"] * jax.random.normal(key, (3,)) * x
        return (total, jax.random.fold_in(key, 1)), total.sum()

    (total, key), first = jax.lax.scan(turn, (jax.numpy.zeros(3), key), jax.numpy.arange(12.0))
    (total, _), second = jax.lax.scan(turn, (total, key), first[::-1])
    return {"last": total.sum(), "curve": second}


FEW_POINTS = sweep.grid(scale=[0.5, 1.0], seed=range(3))  # two chunks, the second half empty


def run_long(path, checkpoints=2, **options):
    options = {"batch_size": 2, "checkpoints": checkpoints, **options}
    return sweep.run(long_run, FEW_POINTS, path=path, **options)


def interrupt_after(path, states):
    """Interrupt the sweep after so many checkpoints."""
    count = 0
    write_state = _chunks.write_state

    def interrupt(*arguments):
        nonlocal count
        write_state(*arguments)
        count += 1
        if count == states:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_chunks, "write_state", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_long(path)


def states_written(monkeypatch, path):
    """Return the finished table and after which turns states were saved for it."""
    turns = []
    write_state = _chunks.write_state
    with monkeypatch.context() as patch:
        patch.setattr(
            _chunks,
            "write_state",
            lambda *arguments: (turns.append(arguments[1]), write_state(*arguments)),
        )
        return run_long(path), turns


@pytest.fixture(scope="module")
def long_table(tmp_path_factory):
    """The table of the run with checkpoints; that without them is the same to rounding."""
    table = run_long(tmp_path_factory.mktemp("long") / "results.parquet")
    expected = sweep.run(long_run, FEW_POINTS, batch_size=2)
    for name in expected.column_names:
        np.testing.assert_allclose(table[name], expected[name], rtol=1e-5)
    return table


@pytest.mark.parametrize("states", [3, 7])
def test_runs_in_flight_go_on_from_their_checkpoint(states, tmp_path, monkeypatch, long_table):
    path = tmp_path / "results.parquet"
    interrupt_after(path, states)
    table, turns = states_written(monkeypatch, path)
    # Straight, 2 turns, straight, 2 turns, straight: 7 turns, of which 6 leave a state.
    assert turns == ([*range(1, 7)] * 2)[states:]
    assert table.equals(long_table)
    assert os.listdir(tmp_path) == ["results.parquet"]


# A read that fails leaves orbax's other reads of the same state to end in the void.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damaged_checkpoint_begins_the_chunk_again(tmp_path, monkeypatch, long_table):
    path = tmp_path / "results.parquet"
    interrupt_after(path, 9)
    states = [file for file in path.parent.glob("*.parts/checkpoints/**/d/*") if file.is_file()]
    assert states
    for file in states:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    table, turns = states_written(monkeypatch, path)
    assert turns == [*range(1, 7)]
    assert table.equals(long_table)


def test_other_chunks_do_not_go_on_from_a_checkpoint(tmp_path, monkeypatch, long_table):
    path = tmp_path / "results.parquet"
    interrupt_after(path, 4)
    table = run_long(path, chunk_size=8)
    for name in long_table.column_names:
        np.testing.assert_allclose(table[name], long_table[name], rtol=1e-6)
    assert os.listdir(tmp_path) == ["results.parquet"]


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(5))
def test_killed_at_random_moments_between_checkpoints(attempt, tmp_path):
    whole = finish(tmp_path / "whole.parquet", 5)
    path = tmp_path / "results.parquet"
    process = start(path, 5)
    folder = Path(f"{path}.parts")
    while not list(folder.glob("checkpoints/*/*")) and process.poll() is None:
        time.sleep(0.002)
    time.sleep(random.Random(attempt).random() * 1.5)  # of some five seconds
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not path.exists()
    assert finish(path, 5).equals(whole)


@pytest.mark.slow
def test_two_processes_keep_checkpoints_apart(tmp_path):
    whole = finish(tmp_path / "whole.parquet", 2)
    path = tmp_path / "results.parquet"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [start(path, 2, number, 2, port) for number in range(2)]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    assert pq.read_table(path).equals(whole)


def test_checkpoints_may_lie_in_a_relative_folder(tmp_path, monkeypatch, long_table):
    monkeypatch.chdir(tmp_path)
    assert run_long("results.parquet").equals(long_table)


def test_checkpoints_need_a_path_and_a_long_loop(tmp_path):
    with pytest.raises(ValueError, match="path: expected a file, beside which checkpoints"):
        run_long(None)
    with pytest.raises(
        ValueError, match=r"checkpoints: expected none \(0\), or two or more, got -1"
    ):
        run_long(None, checkpoints=-1)
    with pytest.raises(ValueError, match=r"checkpoints: expected .* outside of any jit"):
        sweep.run(
            lambda point, key: jax.jit(long_run)(point, key),
            POINTS,
            path=tmp_path / "results.parquet",
            checkpoints=2,
        )
