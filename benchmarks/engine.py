"""What does the engine itself cost: as a sweep grows, and where finished runs are kept?

    python -m benchmarks.engine

takes about four minutes on two cores. The student is that of `benchmarks.digits_sweep`.

Growth: 441 and 44,100 students of two epochs, each sweep in a process of its own, in turns. Time is
that of a student, compilation apart; memory is the largest resident set of the process.
Keeping: 441 students of twenty epochs, with their chunks written to disk and without, in turns.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.digits_sweep import student
from benchmarks.results import spread, write
from experiments import use_all_cores
from jsoft import datasets, sweep


@dataclasses.dataclass(frozen=True)
class Config:
    """Time sweeps of different lengths, and sweeps with and without a place for their runs."""

    few: int = 441
    """Students of the short sweep."""
    many: int = 44_100
    """Students of the long sweep."""
    short_epochs: int = 2
    """Passes over the training rows where the sweep's length is what is varied."""
    epochs: int = 20
    """Passes over the training rows where the disk is."""
    rounds: int = 5
    """Rounds in which every side has its turn."""
    out: Path | None = None
    """File for the numbers; docs/results/bench-engine-<platform>.json if not given."""


def run(config: Config) -> dict[str, Any]:
    """Return the measurements of every round."""
    growth: dict[str, list[dict[str, float]]] = {"few": [], "many": []}
    for _ in range(config.rounds):
        for name, length in (("few", config.few), ("many", config.many)):
            command = [sys.executable, "-m", "benchmarks.engine", "sweep", str(length)]
            done = subprocess.run(
                [*command, str(config.short_epochs)], capture_output=True, text=True, check=True
            )
            growth[name].append(json.loads(done.stdout))
    train = student(datasets.load("digits"), config.epochs)
    keeping: dict[str, list[float]] = {"kept": [], "not kept": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(config.rounds):
            for name in keeping:
                path = Path(folder, f"{turn}.parquet") if name == "kept" else None
                keeping[name].append(_seconds(train, config.few, path))
    by_student = {
        name: [one["seconds"] / length for one in growth[name]]
        for name, length in (("few", config.few), ("many", config.many))
    }
    memory = {name: [one["peak_bytes"] for one in growth[name]] for name in growth}
    return {
        **sweep.provenance(),
        **{x: getattr(config, x) for x in ("few", "many", "short_epochs", "epochs", "rounds")},
        "seconds_a_student": by_student,
        "peak_bytes": memory,
        "growth_of_time": _ratios(by_student["many"], by_student["few"]),
        "growth_of_memory": _ratios(memory["many"], memory["few"]),
        "seconds_of_sweep": keeping,
        "time_with_keeping": _ratios(keeping["kept"], keeping["not kept"]),
    }


def measure_one(length: int, epochs: int) -> dict[str, float]:
    """Return seconds and peak memory of one sweep, the only one of this process."""
    seconds = _seconds(student(datasets.load("digits"), epochs), length, None)
    # Not ru_maxrss, which starts at the peak of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return {"seconds": seconds, "peak_bytes": 1024 * int(peak.split()[1])}


def _seconds(train: sweep.Train, length: int, path: Path | None) -> float:
    """Return the seconds of the whole call, the last write of the table too, without compiling."""
    start = time.perf_counter()
    table = sweep.run(train, {"seed": np.arange(length)}, path=path, progress=False)
    return time.perf_counter() - start - sweep.metadata(table)["compile_seconds"]


def _ratios(these: list[float], those: list[float]) -> list[float]:
    return (np.array(these) / np.array(those)).tolist()


def report(results: dict[str, Any]) -> str:
    """Return the results as a person reads them."""
    few, many = results["seconds_a_student"].values()
    small, large = results["peak_bytes"].values()

    return "\n".join(
        [
            f"digits, 64-64-10, on {results['device']}; medians (min–max) of {results['rounds']}",
            f"a student of {results['short_epochs']} epochs: "
            f"{spread(1e3 * np.array(few))} ms in a sweep of {results['few']:,}, "
            f"{spread(1e3 * np.array(many))} in one of {results['many']:,}: "
            f"{spread(results['growth_of_time'])} times",
            f"peak memory: {spread(np.array(small) / 1e6)} MB, "
            f"{spread(np.array(large) / 1e6)} MB: "
            f"{spread(results['growth_of_memory'])} times",
            f"a sweep of {results['few']} students of {results['epochs']} epochs whose runs are "
            f"kept: {spread(results['time_with_keeping'])} times one whose runs are not",
        ]
    )


def main() -> None:
    """Read the command line, measure, print, and write the numbers."""
    if sys.argv[1:2] == ["sweep"]:
        use_all_cores()
        print(json.dumps(measure_one(*map(int, sys.argv[2:]))))
        return
    config = tyro.cli(Config, prog="python -m benchmarks.engine")
    use_all_cores()
    results = run(config)
    print(report(results))
    write(results, "engine", config.out)


if __name__ == "__main__":
    main()
