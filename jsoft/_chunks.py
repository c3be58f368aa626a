"""Finished runs of a sweep on disk, until its table is whole.

A chunk is one `.npz` archive of plain arrays: the runs' numbers, the seconds that they took, and
their metrics. It is
written beside its place and renamed, so it is there in full or not at all; zip's own checksums
tell where bytes have changed since. Beside the chunks lies `sweep.json`: what is being run.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

SWEEP = "sweep.json"


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


def remove(folder: Path) -> None:
    """Remove the chunks, once their table is written; files of others stay."""
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
