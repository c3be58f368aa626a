"""Many runs of one pure function: `train(point, key) -> metrics` mapped over a table of points.

Write `train` for one run, as if sweeps did not exist. `run` compiles it once, spreads the points
over all devices with `shard_map`, maps `batch_size` of them at a time on each, and returns one
table. This module knows nothing of labels or networks.

The key of a run is `jax.random.key(point["seed"])`, made from the point alone: chunks, devices
and the other points of the table cannot change a run's numbers (beyond the rounding of the same
operations), and any row can be run again by hand. Levels that share a seed share their random
numbers, which makes them comparable; fold the levels into the key where independent draws are
wanted.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import importlib.metadata
import itertools
import json
import logging
import math
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jax import lax
from jax.experimental import multihost_utils
from jax.extend import core
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from tqdm import tqdm

from jsoft import _chunks, _stages

Point = dict[str, jax.Array]
Train = Callable[[Point, jax.Array], Mapping[str, jax.Array]]

# Runs mapped together on one device. On a CPU a few runs fill the vector units, and more only leave
# the cache; an accelerator wants many.
_CPU_BATCH, _ACCELERATOR_BATCH = 4, 128
_CPU_CACHE = 32_000_000  # bytes
_PROGRESS_STEPS, _LARGEST_CHUNK = 64, 4096
_LOG = logging.getLogger("jsoft")


def grid(**axes: Iterable[Any]) -> dict[str, np.ndarray]:
    """Return every combination of the given levels as a table of points, the last axis fastest.

    Args:
      **axes: the levels of each axis, by name; `seed` goes last by custom.

    Raises:
      ValueError: an axis without levels, or no axis.

    Nothing here is a paper's; the order of axes is this library's.

    >>> points = grid(temperature=[1.0, 4.0], seed=range(2))
    >>> print(points["temperature"], points["seed"])
    [1. 1. 4. 4.] [0 1 0 1]
    """
    levels = {name: list(values) for name, values in axes.items()}
    for name, values in levels.items():
        if not values:
            raise ValueError(f"{name}: expected at least one level, got none")
    if not levels:
        raise ValueError("axes: expected at least one axis, got none")
    columns = zip(*itertools.product(*levels.values()), strict=True)
    return {name: np.array(column) for name, column in zip(levels, columns, strict=True)}


def run(
    train: Train,
    points: Mapping[str, ArrayLike],
    *,
    path: str | os.PathLike[str] | None = None,
    config: Mapping[str, Any] | None = None,
    batch_size: int | Literal["auto"] = "auto",
    chunk_size: int | None = None,
    checkpoints: int = 0,
    progress: bool = True,
    watch: str | None = None,
) -> pa.Table:
    """Return the metrics of `train` at every point, a long table with one row per run and step.

    The columns are those of `points`, then `step` (1, 2, …) where `train` returns curves, then
    the metrics; a scalar metric is repeated along its run's steps. `metadata` of the table gives
    config, versions, git revision, devices, and the seconds spent. A run that turns NaN is
    recorded as such.

    With a `path`, finished runs are kept. They lie in the folder `path.parts` until the table is
    whole; after an interruption (Ctrl-C, a full disk, a lost machine) the same call goes on from
    there, and a chunk that was damaged since is computed again. A table that is whole already, of
    the same configuration, points, program, kind of device and version of JAX, is returned as it
    is: remove it to compute it anew. On one kind of machine, with the same batch size and number
    of devices, an interruption changes no bit of the table.

    One call at a time may write to a path. Under `jax.distributed`, every process makes the same
    call; each computes a share of the chunks on its own devices, and all return the whole table.
    `path` then has to be on a disk that all of them see.

    Args:
      train: pure function of `(point, key)`; `point` holds a scalar for each column of `points`.
        Returns a flat dict of arrays, `[]` or, for curves, `[steps]`, all of the same length.
      points: columns `[runs]` of numbers, read as float32, int32 or bool; `seed` (whole numbers
        ≥ 0) makes the key of the run.
      path: Parquet file to write, if any; its folder is made.
      config: what the results depend on, plain values for JSON; runs at `path` that were made with
        another configuration, or at other points, are left alone.
      batch_size: runs mapped together on one device; memory and speed follow from it, numbers do
        not. "auto": a few on a CPU, many on an accelerator, as far as its memory goes.
      chunk_size: runs between two writes, rounded up to fill all devices; a 64th of all, but 4,096
        at most, by default; with checkpoints, those that are in flight together.
      checkpoints: how often the state of the runs in flight is saved on their way, for runs that
        take hours each: their long loops (`lax.scan` over epochs, as in `training.fit`) go in so
        many turns of one length, or the next smaller number that divides the loop's, and a state
        is saved after each. None are by default.
      progress: whether to show a bar (never where the output is not a terminal).
      watch: the metric whose least and greatest value so far the bar shows.

    Raises:
      TypeError, ValueError: points of unequal length, without seeds or without rows, or beyond the
        range of 32 bits; metrics that are no flat dict of real scalars and curves; sizes below one;
        checkpoints without a path, of a `train` without a long loop outside of jit, or of loops
        that do not divide into about so many turns; a configuration that JSON cannot hold; `path`
        holding runs of another configuration or program, or something else; several processes
        without a path.
      OSError: the disk is full or gone; what was finished before stays.

    Derived here: `lax.map` inside `shard_map`, without collectives.

    >>> def train(point, key):
    ...     return {"scaled": point["scale"] * jax.random.uniform(key)}
    >>> table = run(train, grid(scale=[0.0, 1.0], seed=range(2)))
    >>> table.num_rows, table.column_names
    (4, ['scale', 'seed', 'scaled'])
    """
    columns = _check_points(points)
    num_runs = len(columns["seed"])
    program, names = _trace(train, columns)
    devices = jax.local_devices()
    identity = {
        "config": _check_config(config),
        "points": _digest(columns),
        "program": _fingerprint(program),
        "device_kind": devices[0].device_kind,
        "jax": jax.__version__,
    }
    _check_sizes(batch_size, chunk_size, checkpoints)
    stages = _stages.cut(program, pieces=checkpoints or 1)
    if watch is not None and watch not in names:
        raise ValueError(f"watch: expected one of {', '.join(names)}, got {watch!r}")
    if checkpoints and path is None:
        raise ValueError("path: expected a file, beside which checkpoints are kept, got none")
    chunks: list[_chunks.Chunk] = []
    folder = None
    if path is not None:
        path = Path(path)
        folder = path.with_name(f"{path.name}.parts")
        finished = _check_file(path, identity)
        if finished is not None:
            if jax.process_index() == 0:
                _chunks.remove(folder)  # a kill between the table and this may have left it
            return finished
        chunks = _resume(folder, identity, num_runs, names)
    elif jax.process_count() > 1:
        raise ValueError("path: expected a file that all processes see, got none")

    start = time.perf_counter() - sum(chunk.seconds for chunk in chunks)
    missing = np.setdiff1d(np.arange(num_runs), _rows(chunks))
    hidden = None if progress else True  # None: where the output is no terminal
    with tqdm(total=num_runs, unit="run", desc="compiling", disable=hidden) as bar:
        compiled = _compile(
            stages, program.consts, columns, devices, batch_size=batch_size, chunk_size=chunk_size
        )
        bar.set_description(compiled.memory)
        bar.reset()  # the rate is that of the runs
        bar.initial = bar.n = bar.last_print_n = num_runs - len(missing)
        bar.refresh()
        try:
            for rows in _share(missing, _least_of_all(compiled.chunk_size)):
                chunk = _run_chunk(compiled, names, columns, rows, folder)
                chunks.append(chunk)
                bar.update(len(rows))
                if watch is not None:
                    bar.set_postfix_str(_range_of(watch, chunks))
        except (KeyboardInterrupt, OSError) as error:
            error.add_note(_kept(folder, chunks, num_runs))
            raise
    if jax.process_count() > 1:
        assert folder is not None
        _wait_for_all("runs")
        chunks, _ = _chunks.read(folder, num_runs, names)
        _wait_for_all("read")  # before the first process removes them
    found, order = np.unique(_rows(chunks), return_index=True)
    if len(found) < num_runs:
        raise RuntimeError(
            f"path: {num_runs - len(found)} runs have vanished from {folder} while others were "
            "computed; the same command computes them"
        )
    metrics = {
        name: np.concatenate([chunk.metrics[name] for chunk in chunks])[order] for name in names
    }
    noted = {
        **identity,
        "runs": num_runs,
        "wall_seconds": time.perf_counter() - start,
        "compile_seconds": compiled.seconds,
        "batch_size": compiled.batch_size,
        "chunk_size": compiled.chunk_size,
        "bytes_per_run": compiled.bytes_per_run,
        **provenance(),
    }
    table = _long_table(columns, metrics).replace_schema_metadata({"jsoft": json.dumps(noted)})
    if path is not None and folder is not None:
        if jax.process_index() == 0:
            write(table, path)
            _chunks.remove(folder)
        _wait_for_all("table")
    return table


def provenance() -> dict[str, Any]:
    """Return where numbers that are computed now come from: device, date, git revision, versions.

    What `run` notes beside its own table, for numbers that were not made by it.

    >>> sorted(provenance())
    ['date', 'device', 'git_revision', 'versions']
    """
    devices = jax.devices()
    return {
        "device": f"{len(devices)} × {devices[0].device_kind} ({platform.machine()})",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git_revision": _git_revision(),
        "versions": _versions(),
    }


def write(table: pa.Table, path: str | os.PathLike[str]) -> None:
    """Write the table as a Parquet file: the whole file or none of it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(pa.table({"x": [1, 2]}), Path(folder, "x.parquet"))
    ...     pq.read_table(Path(folder, "x.parquet")).num_rows
    2
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        pq.write_table(table, part, compression="zstd")
        os.replace(part, path)
        for left in path.parent.glob(f"{path.name}.*.part"):  # by a process that was killed
            left.unlink(missing_ok=True)
    finally:
        part.unlink(missing_ok=True)


def metadata(table: pa.Table) -> dict[str, Any]:
    """Return what `run` noted beside the numbers: config, runs, seconds, device, versions.

    Raises:
      ValueError: a table that `run` did not make.

    >>> table = run(lambda point, key: {"x": point["seed"]}, grid(seed=range(3)))
    >>> metadata(table)["runs"]
    3
    """
    noted = (table.schema.metadata or {}).get(b"jsoft")
    if noted is None:
        raise ValueError(
            "table: expected a table made by jsoft.sweep.run, got one without its notes"
        )
    return json.loads(noted)


class _Compiled(NamedTuple):
    """The programs of a chunk, one for each turn that it takes, and what they take."""

    turns: list[Callable[[list[Any]], list[jax.Array]]]
    batch_size: int
    chunk_size: int
    bytes_per_run: int
    memory: str
    seconds: float


def _trace(train: Train, columns: dict[str, np.ndarray]) -> tuple[core.ClosedJaxpr, list[str]]:
    """Return the program of one run, from a flat point to flat metrics, and the metrics' names."""
    point = {name: jax.ShapeDtypeStruct((), column.dtype) for name, column in columns.items()}
    program, metrics = jax.make_jaxpr(
        lambda point: train(point, jax.random.key(point["seed"])), return_shape=True
    )(point)
    _check_metrics(metrics, columns)
    return program, list(metrics)


def _fingerprint(program: core.ClosedJaxpr) -> str:
    """Return a fingerprint of what a run computes, data included."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(re.sub(r"0x[0-9a-f]+", "", str(program)).encode())  # addresses of functions
    for constant in _constants(program):
        if jax.dtypes.issubdtype(getattr(constant, "dtype", np.float32), jax.dtypes.prng_key):
            constant = jax.random.key_data(constant)
        digest.update(np.ascontiguousarray(constant).tobytes())
    return digest.hexdigest()


def _constants(program: Any) -> Iterator[Any]:
    """Yield the arrays that a program holds, those of the programs inside it too."""
    if isinstance(program, core.ClosedJaxpr):
        yield from program.consts
        program = program.jaxpr
    if isinstance(program, core.Jaxpr):
        for equation in program.eqns:
            yield from (x.val for x in equation.invars if isinstance(x, core.Literal))
            for part in jax.tree.leaves(
                equation.params, is_leaf=lambda x: isinstance(x, core.ClosedJaxpr | core.Jaxpr)
            ):
                yield from _constants(part)


def _mapped(stage: _stages.Stage, mesh: Mesh, batch_size: int) -> jax.stages.Wrapped:
    """Return the compilable program of a stage for many runs: every array of the state `[runs, …]`.

    What the runs share, data above all, is handed over rather than built in: XLA would fold large
    constants, slowly, and keep them once for each program.
    """

    def one_device(constants: list[Any], turn: jax.Array, state: list[Any]) -> list[jax.Array]:
        # vmap over a single run would only pad every array with an axis of one.
        return lax.map(
            lambda run: stage.call(constants, turn, run),
            state,
            batch_size=batch_size if batch_size > 1 else None,
        )

    same, spread = PartitionSpec(), PartitionSpec("runs")
    # Runs do not talk to each other; without the check `train` may mix constants into a scan's
    # carry.
    return jax.jit(
        jax.shard_map(
            one_device,
            mesh=mesh,
            in_specs=(same, same, spread),
            out_specs=spread,
            check_vma=False,
        )
    )


def _compile(
    stages: list[_stages.Stage],
    constants: list[Any],
    columns: dict[str, np.ndarray],
    devices: list[jax.Device],
    *,
    batch_size: int | Literal["auto"],
    chunk_size: int | None,
) -> _Compiled:
    """Return the compiled programs, with a batch size that fits if it is ours to choose."""
    start = time.perf_counter()
    num_runs, cpu = len(columns["seed"]), devices[0].platform == "cpu"
    mesh = Mesh(np.array(devices), ("runs",))
    constants = jax.device_put(constants, NamedSharding(mesh, PartitionSpec()))
    tried = _usual_batch_size(num_runs, devices) if batch_size == "auto" else batch_size
    while True:
        group = tried * len(devices)  # runs in flight at a time
        usual = math.ceil(num_runs / _PROGRESS_STEPS) if len(stages) == 1 else group
        wanted = chunk_size or min(_LARGEST_CHUNK, usual)
        whole = math.ceil(wanted / group) * group
        state: list[Any] = [np.resize(columns[name], whole) for name in sorted(columns)]
        turns, per_run = [], 0
        for stage in stages:
            program = _mapped(stage, mesh, tried)
            compiled = program.lower(constants, np.int32(0), state).compile()
            state = jax.eval_shape(program, constants, np.int32(0), state)
            turns += [
                functools.partial(compiled, constants, np.int32(i)) for i in range(stage.turns)
            ]
            used = compiled.memory_analysis()
            per_run = max(per_run, used.temp_size_in_bytes // tried if used is not None else 0)
        if batch_size == "auto" and tried > 1 and cpu and per_run > _CPU_CACHE:
            tried = 1  # it fills the cache alone: neighbours slow a ConvNet down by a fifth
            continue
        free = _free_bytes(devices)
        fits = max(1, free // per_run) if per_run and free else None
        if batch_size != "auto" or fits is None or tried <= fits:
            break
        tried = max(1, min(fits, tried // 2))  # some memory does not depend on the batch
    memory = f"{tried} × {len(devices)} at a time, {per_run / 1e6:.3g} MB each"
    if fits is not None:
        memory += f", memory for {fits:,}"
    return _Compiled(turns, tried, whole, per_run, memory, time.perf_counter() - start)


def _usual_batch_size(num_runs: int, devices: list[jax.Device]) -> int:
    """Return how many runs to map together where memory is no object."""
    most = _CPU_BATCH if devices[0].platform == "cpu" else _ACCELERATOR_BATCH
    per_device = math.ceil(num_runs / len(devices))
    return math.ceil(per_device / math.ceil(per_device / most))  # no thin last batch


def _free_bytes(devices: list[jax.Device]) -> int | None:
    """Return the memory that a device may fill; None where that is not known."""
    statistics = devices[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics["bytes_in_use"]
    try:  # a CPU's devices share what the machine has free
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // len(devices)
    except (AttributeError, OSError, ValueError):
        return None


def _share(missing: np.ndarray, chunk_size: int) -> list[np.ndarray]:
    """Return the chunks of this process."""
    chunks = [missing[i : i + chunk_size] for i in range(0, len(missing), chunk_size)]
    return chunks[jax.process_index() :: jax.process_count()]


def _run_chunk(
    compiled: _Compiled,
    names: list[str],
    columns: dict[str, np.ndarray],
    rows: np.ndarray,
    folder: Path | None,
) -> _chunks.Chunk:
    """Return the metrics of these runs, and keep them in the folder, if any."""
    start = time.perf_counter()
    filled = np.resize(rows, compiled.chunk_size)  # the last chunk repeats its own runs
    state: list[Any] = [columns[name][filled] for name in sorted(columns)]
    if folder is None or len(compiled.turns) == 1:
        for turn in compiled.turns:
            state = turn(state)
    else:
        state = _run_with_checkpoints(compiled.turns, state, filled, folder)
    metrics = dict(zip(names, jax.device_get(state), strict=True))
    metrics = {name: metric[: len(rows)] for name, metric in metrics.items()}
    chunk = _chunks.Chunk(rows, metrics, time.perf_counter() - start)
    if folder is not None:
        _chunks.write(folder, chunk)
        _chunks.remove_checkpoints(folder, filled)
    return chunk


def _run_with_checkpoints(
    turns: list[Callable[[list[Any]], list[Any]]], state: list[Any], rows: np.ndarray, folder: Path
) -> list[Any]:
    """Return the state after all turns, from the last one on whose state was kept."""
    with _chunks.checkpoints(folder, rows, len(turns)) as manager:
        done, state = _chunks.read_state(manager, rows) or (0, state)
        for number, turn in enumerate(turns[done:], start=done + 1):
            state = turn(state)
            if number < len(turns):
                _chunks.write_state(manager, number, rows, jax.device_get(state))
    return state


def _resume(
    folder: Path, identity: dict[str, Any], num_runs: int, names: list[str]
) -> list[_chunks.Chunk]:
    """Return the chunks that an earlier call finished; note in the folder what is run now."""
    there = _chunks.read_sweep(folder)
    if there is not None:
        _check_identity(folder, there, identity)
    chunks, damaged = ([], 0) if there is None else _chunks.read(folder, num_runs, names)
    if damaged:
        _LOG.warning("%d damaged chunks in %s are computed again", damaged, folder)
    _wait_for_all("start")  # so that all processes have seen the same chunks
    if there is None and jax.process_index() == 0:
        _chunks.remove(folder)  # chunks of nobody knows which sweep
        _chunks.write_sweep(folder, identity)
    _wait_for_all("begin")
    return chunks


def _rows(chunks: list[_chunks.Chunk]) -> np.ndarray:
    """Return the numbers of the runs in these chunks, in their order."""
    return np.concatenate([np.empty(0, int), *(chunk.rows for chunk in chunks)])


def _range_of(metric: str, chunks: list[_chunks.Chunk]) -> str:
    """Return the least and the greatest value so far."""
    values = np.concatenate([chunk.metrics[metric].ravel() for chunk in chunks])
    values = values[np.isfinite(values)]
    return f"{metric} {values.min():.3g} … {values.max():.3g}" if len(values) else ""


def _kept(folder: Path | None, chunks: list[_chunks.Chunk], num_runs: int) -> str:
    """Return what an interruption leaves."""
    if folder is None:
        return "nothing is kept: the sweep has no path"
    done = len(np.unique(_rows(chunks)))
    return f"{done} of {num_runs} runs are kept in {folder}; the same command goes on from there"


def _least_of_all(value: int) -> int:
    """Return the least of the processes' values: all have to share out the same chunks."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).min())


def _wait_for_all(stage: str) -> None:
    """Wait until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"jsoft sweep: {stage}")


def _long_table(columns: dict[str, np.ndarray], metrics: dict[str, np.ndarray]) -> pa.Table:
    """Return columns `[runs]` and metrics `[runs]` or `[runs, steps]`, one row per run and step."""
    num_runs = len(columns["seed"])
    steps = max((metric.shape[1] for metric in metrics.values() if metric.ndim == 2), default=None)
    if steps is None:
        return pa.table({**columns, **metrics})
    step = {"step": np.tile(np.arange(1, steps + 1, dtype=np.int32), num_runs)}
    repeated = {name: np.repeat(column, steps) for name, column in columns.items()}
    long = {
        name: metric.reshape(-1) if metric.ndim == 2 else np.repeat(metric, steps)
        for name, metric in metrics.items()
    }
    return pa.table({**repeated, **step, **long})


def _git_revision() -> str | None:
    """Return the commit of the working folder, marked where files differ; None outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _versions() -> dict[str, str]:
    packages = ("jsoft", "jax", "jaxlib", "flax", "optax", "numpy")
    installed = {}
    for package in packages:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"python": platform.python_version(), **installed}


def _check_points(points: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """Return the points as columns of float32, int32 or bool, all of one length."""
    if "seed" not in points:
        raise ValueError(f"points: expected a column seed, got {', '.join(points) or 'no columns'}")
    columns = {}
    for name, values in points.items():
        column = np.asarray(values)
        if column.ndim != 1 or not len(column):
            raise ValueError(f"points[{name!r}]: expected shape [runs], got {list(column.shape)}")
        if column.dtype.kind not in "fiub":
            raise TypeError(f"points[{name!r}]: expected numbers, got dtype {column.dtype}")
        if column.dtype.kind == "f":
            with np.errstate(over="ignore"):
                short = column.astype(np.float32)
            if (np.isinf(short) > np.isinf(column)).any() or ((short == 0) > (column == 0)).any():
                raise ValueError(f"points[{name!r}]: expected numbers in the range of float32")
            column = short
        elif column.dtype.kind in "iu":
            if column.max() > 2**31 - 1 or column.min() < -(2**31):
                raise ValueError(f"points[{name!r}]: expected whole numbers that fit 32 bits")
            column = column.astype(np.int32)
        columns[name] = column
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"points: expected columns of one length, got {lengths}")
    if columns["seed"].dtype != np.int32 or columns["seed"].min() < 0:
        raise ValueError("points['seed']: expected whole numbers of zero or more")
    return columns


def _check_metrics(metrics: Any, columns: dict[str, np.ndarray]) -> None:
    """Raise unless `train` returns scalars and curves by name."""
    if not isinstance(metrics, dict) or not metrics:
        raise TypeError(f"train: expected it to return a flat dict of arrays, got {metrics}")
    for name, value in metrics.items():
        dtype = getattr(value, "dtype", None)
        if not isinstance(name, str) or not isinstance(dtype, np.dtype) or dtype.kind not in "fiub":
            raise TypeError(
                "train: expected it to return a flat dict of names to arrays of bool, int or float "
                f"(16, 32 or 64 bits), got {name!r}: {value}"
            )
    curves = {name: value.shape for name, value in metrics.items() if value.shape}
    if any(len(shape) > 1 or shape == (0,) for shape in curves.values()) or (
        len(set(curves.values())) > 1
    ):
        raise ValueError(f"train: expected scalars and curves of one length, got shapes {curves}")
    taken = set(metrics) & {*columns, "step"}
    if taken:
        raise ValueError(f"train: expected metrics named unlike points and step, got {taken}")


def _check_config(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the configuration as it will be read back."""
    try:
        return json.loads(json.dumps(config, allow_nan=False))
    except (TypeError, ValueError) as error:
        kind = type(error)
        raise kind(f"config: expected plain values that JSON can hold: {error}") from None


def _digest(columns: dict[str, np.ndarray]) -> str:
    """Return a fingerprint of the points."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(columns):
        digest.update(f"{name} {columns[name].dtype} ".encode())
        digest.update(columns[name].tobytes())
    return digest.hexdigest()


def _check_sizes(
    batch_size: int | Literal["auto"], chunk_size: int | None, checkpoints: int
) -> None:
    if checkpoints < 0 or checkpoints == 1:
        raise ValueError(f"checkpoints: expected none (0), or two or more, got {checkpoints}")
    if (batch_size != "auto" and batch_size < 1) or (chunk_size is not None and chunk_size < 1):
        raise ValueError(
            f"batch_size, chunk_size: expected one or more, got {batch_size}, {chunk_size}"
        )


def _check_file(path: Path, identity: dict[str, Any]) -> pa.Table | None:
    """Return the table at `path` if it is that of this sweep; raise if it is that of another one.

    None if there is none, or one of the same configuration and points that another program made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return None
    try:
        noted = metadata(pq.read_table(path, columns=[]))
    except (pa.ArrowInvalid, ValueError):
        raise ValueError(f"path: expected a table made by jsoft.sweep.run at {path}") from None
    _check_identity(path, noted, {name: identity[name] for name in ("config", "points")})
    if any(noted.get(name) != value for name, value in identity.items()):
        return None
    return pq.read_table(path)


def _check_identity(path: Path, there: dict[str, Any], here: dict[str, Any]) -> None:
    """Raise `ValueError` unless what lies at `path` was made by the same sweep."""
    old, new = there.get("config") or {}, here["config"] or {}
    differences = [
        f"{name}: {old.get(name, 'nothing')!r} there, {new.get(name, 'nothing')!r} now"
        for name in sorted({*old, *new})
        if old.get(name, "nothing") != new.get(name, "nothing")
    ]
    differs = {name for name in here if name != "config" and there.get(name) != here[name]}
    if "points" in differs:
        differences.append("the points differ")
    elif "program" in differs and not differences:
        differences.append("what a run computes differs")
    differences += [
        f"{name}: {there.get(name)} there, {here[name]} now"
        for name in sorted(differs & {"device_kind", "jax"})
    ]
    if differences:
        raise ValueError(
            f"path: {path} holds results of another configuration ({'; '.join(differences)}); "
            "choose another folder, or remove this one if it is no longer wanted"
        )
