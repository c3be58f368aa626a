"""Finished runs of a sweep on disk, and the state of those in flight, until its table is whole.

A chunk is one `.npz` archive of plain arrays: the runs' numbers, the seconds that they took, and
their metrics. It is written beside its place and renamed, so it is there in full or not at all;
zip's own checksums tell where bytes have changed since. Beside the chunks lie `sweep.json`, what is
being run, and the checkpoints of chunks in flight, which orbax writes and reads.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax
import numpy as np

SWEEP, CHECKPOINTS = "sweep.json", "checkpoints"


def write_sweep(folder: Path, sweep: Mapping[str, Any]) -> None:
    """Note in the folder which sweep its chunks belong to."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / SWEEP, lambda file: file.write(json.dumps(sweep).encode()))


def read_sweep(folder: Path) -> dict[str, Any] | None:
    """Return which sweep the chunks in the folder belong to; None if that is not to be told."""
    try:
        return json.loads((folder / SWEEP).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


class Chunk(NamedTuple):
    """Runs that are done: their numbers `[n]`, metrics `[n, ...]`, and the seconds they took."""

    rows: np.ndarray
    metrics: dict[str, np.ndarray]
    seconds: float


def write(folder: Path, chunk: Chunk) -> None:
    """Write a chunk as a file of its own."""
    path = folder / f"{chunk.rows[0]:09d}-{chunk.rows[-1]:09d}.npz"
    # Prefixed, so that a metric may be called rows.
    arrays: dict[str, Any] = {f"metric {name}": x for name, x in chunk.metrics.items()}
    arrays |= {"rows": chunk.rows, "seconds": chunk.seconds}
    _write(path, lambda file: np.savez(file, **arrays))


def read(folder: Path, num_runs: int, names: list[str]) -> tuple[list[Chunk], int]:
    """Return the chunks that are whole, and how many were not.

    Those are removed: their runs have to be computed again.
    """
    whole, damaged = [], 0
    for path in sorted(folder.glob("*.npz")):
        try:
            chunk = _read(path, num_runs, names)
        # RuntimeError, NotImplementedError: a flipped bit may ask for a password, or for a
        # compression that does not exist.
        except (OSError, EOFError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile):
            path.unlink(missing_ok=True)
            damaged += 1
            continue
        whole.append(chunk)
    return whole, damaged


def _read(path: Path, num_runs: int, names: list[str]) -> Chunk:
    # np.load leaves a file open that turns out not to be an archive
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        rows, seconds = arrays["rows"], float(arrays["seconds"])
        metrics = {name: arrays[f"metric {name}"] for name in names}
    if rows.ndim != 1 or rows.min() < 0 or rows.max() >= num_runs:
        raise ValueError(f"{path}: expected runs below {num_runs}")
    if any(len(metric) != len(rows) for metric in metrics.values()):
        raise ValueError(f"{path}: expected {len(rows)} runs in every metric")
    return Chunk(rows, metrics, seconds)


def checkpoints(folder: Path, rows: np.ndarray, turns: int) -> Any:
    """Return orbax's manager of the last state of a chunk in flight, which takes so many turns."""
    # Imported here: it takes two seconds, and few sweeps have checkpoints.
    import orbax.checkpoint as ocp

    place = folder.absolute() / CHECKPOINTS / f"{rows[0]:09d}-{rows[-1]:09d}-of-{turns}"
    place.mkdir(parents=True, exist_ok=True)
    this = jax.process_index()
    options = ocp.CheckpointManagerOptions(
        max_to_keep=1,
        enable_async_checkpointing=False,
        create=False,
        # No process waits for another's chunk.
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process{this}"
        ),
    )
    return ocp.CheckpointManager(place, options=options)


def write_state(manager: Any, turns: int, rows: np.ndarray, state: list[np.ndarray]) -> None:
    """Keep the state after these turns, in the place of the one before."""
    from orbax.checkpoint import args

    kept = {"rows": rows, "digest": _digest(state), "state": state}
    try:
        manager.save(turns, args=args.StandardSave(kept), force=True)
    except ValueError as error:  # what a write that failed comes to, of a full disk above all
        raise OSError(f"the state after turn {turns} could not be written: {error}") from error


def read_state(manager: Any, rows: np.ndarray) -> tuple[int, list[np.ndarray]] | None:
    """Return the turns done and the state after them; None if there is none that is whole."""
    from orbax.checkpoint import args

    turns = manager.latest_step()
    if turns is None:
        return None
    try:
        kept = manager.restore(turns, args=args.StandardRestore())
        if np.array_equal(kept["rows"], rows) and np.array_equal(
            kept["digest"], _digest(kept["state"])
        ):
            return turns, kept["state"]
    except (OSError, KeyError, TypeError, ValueError):
        pass  # what damaged files come to
    manager.delete(turns)
    return None


def remove_checkpoints(folder: Path, rows: np.ndarray) -> None:
    """Remove the state of a chunk that is finished."""
    for place in (folder / CHECKPOINTS).glob(f"{rows[0]:09d}-{rows[-1]:09d}-of-*"):
        shutil.rmtree(place)


def _digest(state: list[np.ndarray]) -> np.ndarray:
    digest = hashlib.blake2b(digest_size=8)
    for array in state:
        digest.update(np.ascontiguousarray(array).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def remove(folder: Path) -> None:
    """Remove the chunks, once their table is written; files of others stay."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    for path in [*folder.glob("*.npz"), *folder.glob("*.part"), folder / SWEEP]:
        path.unlink(missing_ok=True)
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


def _write(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write the whole file or none of it."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
