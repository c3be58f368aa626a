"""How long do indicators take beside `torch.topk`, and beside reading the file the labels lie in?

    python -m benchmarks.indicators_at_scale

takes some minutes on two cores and needs 2.6 GB of disk and 3 GB of memory. Two rows, each for the
largest k of 5 and of 10, over a thousand classes:

- all of Δ, γ, κ, D, ties and μ at every k up to the largest, of 200,000 float32 rows in memory,
  against `torch.topk` of the largest k and nothing else;
- the same of 1,281,167 float16 rows (as many as ImageNet has) in a memory-mapped file, against one
  plain read of the file into a buffer of 16 MB, and against `numpy.fromfile`, which also makes room
  for all of it. The file is in the system's cache on both sides.

The sides take turns, round by round; each is called once before, which compiles ours. Memory is
the peak of a process of its own, mapped pages counted. The first rows are counted again by a slow
NumPy loop, and the exit status says whether the numbers agree. Soft labels are random: cubes of
exponentials, divided by their sum, and the true label one of the larger entries.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

import jsoft
from benchmarks.results import Side, spread, take_turns, write
from experiments import use_all_cores
from jsoft import sweep

NUM_CLASSES, LARGEST_K = 1000, (5, 10)
OURS = "jsoft.measure_blocks"
BLOCK = 10_000  # rows made at a time


@dataclasses.dataclass(frozen=True)
class Config:
    """Time indicators against torch.topk and against reading a file."""

    rows: int = 1_281_167
    """Rows of the file."""
    rows_in_memory: int = 200_000
    """Rows of the array in memory."""
    rounds: int = 5
    """Rounds in which every side has its turn."""
    checked_rows: int = 2_000
    """First rows of the file that are counted again by a loop."""
    out: Path | None = None
    """File for the numbers; docs/results/bench-indicators-<platform>.json if not given."""


def run(config: Config) -> dict[str, Any]:
    """Return the measurements of every round, and what follows from them."""
    if min(dataclasses.astuple(config)[:4]) < 1:
        raise ValueError(f"rows, rounds: expected one or more, got {config}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "soft_labels.npy")
        labels = write_soft_labels(path, max(config.rows, config.rows_in_memory))
        mapped = np.load(path, mmap_mode="r")
        in_memory = aligned(mapped[: config.rows_in_memory], np.float32)
        rows: dict[str, Any] = {}
        for k in LARGEST_K:
            sides: dict[str, Side] = {OURS: measure(in_memory, labels, k)}
            if importlib.util.find_spec("torch"):
                sides["torch.topk"] = torch_topk(in_memory, k)
            rows[f"float32 in memory, k = 1 … {k}"] = {
                "rows": len(in_memory),
                "seconds": take_turns(sides, config.rounds),
            }
        del in_memory
        for k in LARGEST_K:
            sides = {
                OURS: measure(mapped, labels, k),
                "read": lambda: read(path),
                "numpy.fromfile": lambda: np.fromfile(path, np.uint8),
            }
            rows[f"float16 on file, k = 1 … {k}"] = {
                "rows": len(mapped),
                "seconds": take_turns(sides, config.rounds),
                "peak_megabytes": peak_megabytes(path, k),
            }
        checked = {str(k): differs(mapped, labels, k, config.checked_rows) for k in LARGEST_K}
    for row in rows.values():
        ours = np.array(row["seconds"][OURS])
        row["times"] = {
            name: (ours / seconds).tolist()
            for name, seconds in row["seconds"].items()
            if name != OURS
        }
    packages = ("jax", "jaxlib", "numpy", *(["torch"] if importlib.util.find_spec("torch") else []))
    return {
        **sweep.provenance(),
        "cores": os.cpu_count(),
        "versions": {package: metadata.version(package) for package in packages},
        "classes": NUM_CLASSES,
        "rounds": config.rounds,
        "sides": rows,
        "checked_rows": config.checked_rows,
        "largest_difference": checked,
        "agrees": max(checked.values()) < 1e-5,  # sums of float32 against float64
    }


def write_soft_labels(path: Path, num_rows: int) -> np.ndarray:
    """Write random float16 soft labels of `num_rows`, and return true labels that suit them."""
    rng = np.random.default_rng(0)
    labels = np.empty(num_rows, np.int32)
    mapped = np.lib.format.open_memmap(path, "w+", np.float16, (num_rows, NUM_CLASSES))
    for start in range(0, num_rows, BLOCK):
        values = rng.standard_exponential((len(labels[start : start + BLOCK]), NUM_CLASSES), "f4")
        values **= 3
        labels[start : start + BLOCK] = values[:, :200].argmax(axis=1)
        mapped[start : start + BLOCK] = values / values.sum(axis=1, keepdims=True)
    return labels


def aligned(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Return a copy at a multiple of 64 bytes, where both sides may read it without another."""
    room = np.empty(values.size * np.dtype(dtype).itemsize + 64, np.uint8)
    start = -room.ctypes.data % 64
    copy = room[start : start + values.size * np.dtype(dtype).itemsize].view(dtype)
    copy = copy.reshape(values.shape)
    copy[...] = values
    return copy


def measure(soft_labels: np.ndarray, labels: np.ndarray, k: int) -> Side:
    """Return our side: everything that `Indicators` holds, ready to be read."""
    labels = labels[: len(soft_labels)]
    return lambda: jax.block_until_ready(
        jsoft.measure_blocks(soft_labels, labels, max_k=k, progress=False)
    )


def torch_topk(soft_labels: np.ndarray, k: int) -> Side:
    """Return the other side: values and indices of the k largest of every row."""
    torch: Any = importlib.import_module("torch")
    values = torch.from_numpy(soft_labels)
    return lambda: torch.topk(values, k)


def read(path: Path) -> None:
    """Read a file once, from its first byte to its last."""
    buffer = bytearray(2**24)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def peak_megabytes(path: Path, k: int) -> float | None:
    """Return the most memory that a process which measures the file has held, where Linux tells.

    Not `ru_maxrss`: a child process begins with that of its parent.
    """
    if not sys.platform.startswith("linux"):
        return None
    code = (
        "import re, sys, numpy as np; from experiments import use_all_cores; "
        "use_all_cores(); import jsoft; soft_labels = np.load(sys.argv[1], mmap_mode='r'); "
        "labels = np.arange(len(soft_labels)) % soft_labels.shape[1]; "
        "str(jsoft.measure_blocks(soft_labels, labels, max_k=int(sys.argv[2]))); "
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    command = [sys.executable, "-c", code, str(path), str(k)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) / 1000


def differs(soft_labels: np.ndarray, labels: np.ndarray, max_k: int, num_rows: int) -> float:
    """Return the largest difference of Δ, γ and ties from a loop in float64 over the first rows."""
    part, labels = soft_labels[:num_rows], labels[:num_rows]
    measured = jsoft.measure_blocks(part, labels, max_k=max_k, progress=False)
    members = np.zeros((max_k, NUM_CLASSES, NUM_CLASSES))
    tied = np.zeros(max_k)
    for row, label in zip(part, labels, strict=True):
        ordered = np.sort(row)[::-1]
        for k in range(1, max_k + 1):
            above, equal = row > ordered[k - 1], row == ordered[k - 1]
            members[k - 1, label] += above + equal * (k - above.sum()) / equal.sum()
            tied[k - 1] += ordered[k - 1] == ordered[k]
    examples = np.bincount(labels, minlength=NUM_CLASSES)
    unreliability = 1 - np.trace(members, axis1=1, axis2=2) / len(labels)
    frequencies = members / np.maximum(examples, 1)[:, None]
    frequencies[:, np.arange(NUM_CLASSES), np.arange(NUM_CLASSES)] = 0
    expected = (unreliability, frequencies.max(axis=(1, 2)), tied / len(labels))
    found = (measured.unreliability, measured.ambiguity, measured.tied)
    return max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))


def report(results: dict[str, Any]) -> str:
    """Return the results as a person reads them."""
    lines = [
        f"{NUM_CLASSES} classes, on {results['device']}; medians (min–max) of "
        f"{results['rounds']} rounds",
    ]
    for name, row in results["sides"].items():
        lines += ["", f"{name}, {row['rows']:,} rows"]
        for side, seconds in row["seconds"].items():
            times = "" if side == OURS else f"   we take {spread(row['times'][side])} times that"
            lines.append(f"  {side:22}{spread(seconds):>22} s{times}")
        if row.get("peak_megabytes"):
            lines.append(f"  peak memory of ours {row['peak_megabytes']:.0f} MB")
    worst = max(results["largest_difference"].values())
    lines += ["", f"a loop over {results['checked_rows']:,} rows differs by {worst:.1e} at most"]
    if "torch" not in results["versions"]:
        lines.append("PyTorch is skipped: it is not installed.")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, measure, print, and write the numbers."""
    config = tyro.cli(Config, prog="python -m benchmarks.indicators_at_scale")
    use_all_cores()
    results = run(config)
    print(report(results))
    write(results, "indicators", config.out)
    if not results["agrees"]:
        sys.exit("the indicators differ from those of the loop")


if __name__ == "__main__":
    main()
