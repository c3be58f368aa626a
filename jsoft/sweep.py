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
import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jax.typing import ArrayLike
from tqdm import tqdm

Point = dict[str, jax.Array]
Train = Callable[[Point, jax.Array], Mapping[str, jax.Array]]

# Runs mapped together on one device. On a CPU a few runs fill the vector units, and more only leave
# the cache; an accelerator wants many.
_CPU_BATCH, _ACCELERATOR_BATCH = 4, 128
_PROGRESS_STEPS = 64


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
    progress: bool = True,
) -> pa.Table:
    """Return the metrics of `train` at every point, a long table with one row per run and step.

    The columns are those of `points`, then `step` (1, 2, …) where `train` returns curves, then
    the metrics; a scalar metric is repeated along its run's steps. `metadata` of the table gives
    config, versions, git revision, devices, and the seconds spent. A run that turns NaN is
    recorded as such.

    Args:
      train: pure function of `(point, key)`; `point` holds a scalar for each column of `points`.
        Returns a flat dict of arrays, `[]` or, for curves, `[steps]`, all of the same length.
      points: columns `[runs]` of numbers, read as float32, int32 or bool; `seed` (whole numbers
        ≥ 0) makes the key of the run.
      path: Parquet file to write, if any; its folder is made.
      config: what the results depend on, plain values for JSON; a file at `path` that holds another
        configuration, or other points, is left alone.
      batch_size: runs mapped together on one device; memory and speed follow from it, numbers do
        not.
      chunk_size: runs between two updates of the progress bar, rounded up to fill all devices.
      progress: whether to show a bar (never where the output is not a terminal).

    Raises:
      TypeError, ValueError: points of unequal length, without seeds or without rows, or beyond the
        range of 32 bits; metrics that are no flat dict of real scalars and curves; sizes below one;
        a configuration that JSON cannot hold; `path` holding another one, or something else.

    Derived here: `lax.map` inside `shard_map`, without collectives.

    >>> def train(point, key):
    ...     return {"scaled": point["scale"] * jax.random.uniform(key)}
    >>> table = run(train, grid(scale=[0.0, 1.0], seed=range(2)))
    >>> table.num_rows, table.column_names
    (4, ['scale', 'seed', 'scaled'])
    """
    columns = _check_points(points)
    num_runs = len(columns["seed"])
    names = _check_metrics(train, columns)
    config = _check_config(config)
    digest = _digest(columns)
    if path is not None:
        _check_file(Path(path), config, digest)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    devices = jax.devices()
    per_device = math.ceil(num_runs / len(devices))
    if batch_size == "auto":
        most = _CPU_BATCH if devices[0].platform == "cpu" else _ACCELERATOR_BATCH
        batch_size = math.ceil(per_device / math.ceil(per_device / most))  # no thin last batch
    if batch_size < 1 or (chunk_size is not None and chunk_size < 1):
        raise ValueError(
            f"batch_size, chunk_size: expected one or more, got {batch_size}, {chunk_size}"
        )
    if chunk_size is None:
        chunk_size = math.ceil(num_runs / _PROGRESS_STEPS)
    group = batch_size * len(devices)  # runs in flight at a time
    chunk_size = math.ceil(chunk_size / group) * group

    def chunk_from(begin: int) -> dict[str, np.ndarray]:
        rows = np.arange(begin, begin + chunk_size) % num_runs  # fills up the last chunk
        return {name: column[rows] for name, column in columns.items()}

    start = time.perf_counter()
    hidden = None if progress else True  # None: where the output is no terminal
    with tqdm(total=num_runs, unit="run", desc="compiling", disable=hidden) as bar:
        program = _mapped(train, devices, batch_size).lower(chunk_from(0)).compile()
        compile_seconds = time.perf_counter() - start
        bar.set_description("running")
        bar.reset()  # the rate is that of the runs
        results = []
        for begin in range(0, num_runs, chunk_size):
            results.append(jax.device_get(program(chunk_from(begin))))
            bar.update(min(chunk_size, num_runs - begin))
    metrics = {
        name: np.concatenate([result[name] for result in results])[:num_runs] for name in names
    }
    table = _long_table(columns, metrics)
    table = table.replace_schema_metadata(
        {
            "jsoft": json.dumps(
                {
                    "config": config,
                    "points": digest,
                    "runs": num_runs,
                    "wall_seconds": time.perf_counter() - start,
                    "compile_seconds": compile_seconds,
                    "batch_size": batch_size,
                    "chunk_size": chunk_size,
                    **provenance(),
                }
            )
        }
    )
    if path is not None:
        write(table, path)
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


def _mapped(train: Train, devices: list[jax.Device], batch_size: int):
    """Return the compilable program from points `[runs]` to metrics `[runs, ...]`."""

    def one(point: Point):
        return train(point, jax.random.key(point["seed"]))

    def one_device(points: Point):
        # vmap over a single run would only pad every array with an axis of one.
        return lax.map(one, points, batch_size=batch_size if batch_size > 1 else None)

    spread = PartitionSpec("runs")
    mesh = Mesh(np.array(devices), ("runs",))
    # Runs do not talk to each other; without the check `train` may mix constants into a scan's
    # carry.
    return jax.jit(
        jax.shard_map(one_device, mesh=mesh, in_specs=spread, out_specs=spread, check_vma=False)
    )


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


def _check_metrics(train: Train, columns: dict[str, np.ndarray]) -> list[str]:
    """Return the names of what `train` returns for a point, without running it."""
    point = {name: jax.ShapeDtypeStruct((), column.dtype) for name, column in columns.items()}
    metrics = jax.eval_shape(lambda point: train(point, jax.random.key(point["seed"])), point)
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
    return list(metrics)


def _check_config(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the configuration as it will be read back."""
    try:
        return json.loads(json.dumps(config))
    except TypeError as error:
        raise TypeError(f"config: expected plain values that JSON can hold: {error}") from None


def _digest(columns: dict[str, np.ndarray]) -> str:
    """Return a fingerprint of the points."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(columns):
        digest.update(f"{name} {columns[name].dtype} ".encode())
        digest.update(columns[name].tobytes())
    return digest.hexdigest()


def _check_file(path: Path, config: dict[str, Any] | None, digest: str) -> None:
    """Raise `ValueError` unless the file at `path` is absent or holds results of the same sweep."""
    if not path.exists():
        return
    try:
        noted = metadata(pq.read_table(path, columns=[]))
    except (pa.ArrowInvalid, ValueError):
        raise ValueError(f"path: expected a table made by jsoft.sweep.run at {path}") from None
    there, here = noted["config"] or {}, config or {}
    differences = [
        f"{name}: {there.get(name, 'nothing')!r} there, {here.get(name, 'nothing')!r} now"
        for name in sorted({*there, *here})
        if there.get(name, "nothing") != here.get(name, "nothing")
    ]
    if not differences and noted["points"] == digest:
        return
    raise ValueError(
        f"path: {path} holds results of another configuration "
        f"({'; '.join(differences) or 'the points differ'}); "
        "choose another folder, or remove this one if it is no longer wanted"
    )
