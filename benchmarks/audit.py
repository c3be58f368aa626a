"""How long does `jsoft audit` take beside reading the file and `numpy.argpartition` of it?

    python -m benchmarks.audit

takes some minutes on two cores and needs 0.4 GB of disk and 1.5 GB of memory. A million float32
rows over a hundred classes lie in an .npy file, their true labels in another. Three sides take
turns, round by round, each in a process of its own:

- `numpy.load` of the whole file and `numpy.argpartition` of it at once, for the ten largest;
- the same of the mapped file, ten thousand rows at a time, which takes little memory;
- `jsoft audit` of it, every k from 1 to 10, limits, certificates, advice.

Seconds are those of the work, imports done; those of the whole process stand beside them. The file
is in the system's cache on all sides. Memory is the peak of the process, mapped pages counted. The
exit status says whether Δ at k = 1 is that of a plain count. Soft labels are the softmax of
Gaussian logits that prefer the truth.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.results import spread, write
from jsoft import sweep

OURS = "jsoft audit"
BLOCK = 10_000  # rows made, or partitioned, at a time
LARGEST_K = 10
CODES = {
    "load, argpartition": """
values = np.load("soft.npy")
np.argpartition(values, -{k}, axis=1)
""",
    "map, argpartition by blocks": """
values = np.load("soft.npy", mmap_mode="r")
for start in range(0, len(values), {block}):
    np.argpartition(values[start : start + {block}], -{k}, axis=1)
""",
    OURS: """
assert main(["audit", "soft.npy", "labels.npy", "--quiet", "--json", "audit.json"]) == 0
""",
}
BEFORE = """
import time
import numpy as np
if {ours}:
    import jsoft.audit
    from jsoft.__main__ import main
began = time.perf_counter()
"""
AFTER = """
seconds = time.perf_counter() - began
import re, sys
status = open("/proc/self/status").read() if sys.platform == "linux" else ""
peak = re.search(r"VmHWM:\\s+(\\d+)", status)
print(seconds, peak[1] if peak else "nan")
"""


@dataclasses.dataclass(frozen=True)
class Config:
    """Time the audit against reading a file and numpy.argpartition."""

    rows: int = 1_000_000
    """Rows of the file."""
    classes: int = 100
    """Classes, more than ten."""
    rounds: int = 5
    """Rounds in which every side has its turn."""
    out: Path | None = None
    """File for the numbers; docs/results/bench-audit-<platform>.json if not given."""


def run(config: Config) -> dict[str, Any]:
    """Return the measurements of every round, and what follows from them."""
    if config.rows < 1 or config.rounds < 1 or config.classes <= LARGEST_K:
        raise ValueError(
            f"rows, rounds: expected one or more, and classes: more than {LARGEST_K}, got {config}"
        )
    sides: dict[str, dict[str, list[float]]] = {
        name: {"seconds": [], "process_seconds": [], "peak_megabytes": []} for name in CODES
    }
    with tempfile.TemporaryDirectory() as folder:
        unreliability = write_files(Path(folder), config.rows, config.classes)
        for _ in range(config.rounds):
            for name, measured in sides.items():
                for quantity, value in turn(name, folder).items():
                    measured[quantity].append(value)
        audited = json.loads(Path(folder, "audit.json").read_text())
    ours = np.array(sides[OURS]["seconds"])
    packages = ("jax", "numpy", "scipy")
    return {
        **sweep.provenance(),
        "cores": os.cpu_count(),
        "versions": {package: metadata.version(package) for package in packages},
        "rows": config.rows,
        "classes": config.classes,
        "rounds": config.rounds,
        "sides": sides,
        "times": {
            name: (ours / measured["seconds"]).tolist()
            for name, measured in sides.items()
            if name != OURS
        },
        "agrees": abs(audited["top_k"][0]["unreliability"] - unreliability) < 1e-9,
    }


def write_files(folder: Path, num_rows: int, num_classes: int) -> float:
    """Write soft labels and true labels, and return how often the first class is not the truth."""
    rng = np.random.default_rng(0)
    labels = rng.integers(num_classes, size=num_rows)
    np.save(folder / "labels.npy", labels)
    shape = (num_rows, num_classes)
    values = np.lib.format.open_memmap(folder / "soft.npy", "w+", np.float32, shape)
    wrong = 0
    for start in range(0, num_rows, BLOCK):
        true = labels[start : start + BLOCK]
        logits = 2 * rng.standard_normal((len(true), num_classes), dtype=np.float32)
        logits[np.arange(len(true)), true] += 5
        weights = np.exp(logits)
        values[start : start + BLOCK] = weights / weights.sum(axis=1, keepdims=True)
        wrong += int((values[start : start + BLOCK].argmax(axis=1) != true).sum())
    values.flush()
    return wrong / num_rows


def turn(name: str, folder: str) -> dict[str, float]:
    """Return what one side took, in a process of its own."""
    before = BEFORE.format(ours=name == OURS)
    code = before + CODES[name].format(block=BLOCK, k=LARGEST_K) + AFTER
    paths = [os.getcwd(), os.environ.get("PYTHONPATH", "")]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=True,
    )
    whole = time.perf_counter() - start
    seconds, peak = map(float, done.stdout.split())
    return {"seconds": seconds, "process_seconds": whole, "peak_megabytes": peak / 1000}


def report(results: dict[str, Any]) -> str:
    """Return the results as a person reads them."""
    lines = [
        f"{results['rows']:,} × {results['classes']} float32 from .npy, on {results['device']}; "
        f"medians (min–max) of {results['rounds']} rounds",
        "",
    ]
    for name, measured in results["sides"].items():
        peak = np.max(measured["peak_megabytes"])
        lines.append(
            f"  {name:28}{spread(measured['seconds']):>22} s   peak {peak:5.0f} MB   "
            f"whole process {spread(measured['process_seconds'])} s"
        )
    lines.append("")
    for name, times in results["times"].items():
        lines.append(f"  the audit takes {spread(times)} times as long as {name}")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, measure, print, and write the numbers."""
    config = tyro.cli(Config, prog="python -m benchmarks.audit")
    results = run(config)
    print(report(results))
    write(results, "audit", config.out)
    if not results["agrees"]:
        sys.exit("the audit's Δ differs from that of a plain count")


if __name__ == "__main__":
    main()
