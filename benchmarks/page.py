"""docs/performance.md from the numbers that the benchmarks wrote: `python -m benchmarks.page`.

The table and the figures in the text come from docs/results/bench-*.json; the words around them are
benchmarks/performance.md.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.results import spread

REPOSITORY = Path(__file__).parents[1]
RESULTS, WORDS = REPOSITORY / "docs" / "results", Path(__file__).with_name("performance.md")
PAGE = REPOSITORY / "docs" / "performance.md"
PARTS = ("digits", "networks", "engine", "indicators", "inner-loop", "audit", "rooms")


class Row(NamedTuple):
    """A line of the table: what was measured, and what it was to reach."""

    what: str
    against: str
    ratios: Sequence[float]
    least: float | None = None  # as many times as fast, or such a share
    most: float | None = None  # as many times as long, or as large

    @property
    def met(self) -> bool:
        """Whether the median reaches what was asked for."""
        middle = float(np.median(self.ratios))
        return (self.least is None or middle >= self.least) and (
            self.most is None or middle <= self.most
        )


def rows(found: dict[str, Any]) -> list[Row]:
    """Return the lines of the table, from the numbers by benchmark."""
    sides = found["digits"]["sides"]
    loop = next(name for name in sides if "thread" in name and not name.startswith("PyTorch, 1"))
    processes = next(name for name in sides if "processes" in name)

    def speed(name: str) -> list[float]:
        return sides[name]["times_mapped"]

    student = "digits student, speed"
    table = [
        Row(student, "PyTorch loop, one process, all threads", speed(loop), least=15),
        Row(student, "PyTorch loop, one process, one thread", speed("PyTorch, 1 thread"), least=15),
        Row(student, "PyTorch loop, one process per core", speed(processes), least=7.5),
        Row(student, "`torch.func` ensemble", speed("PyTorch, torch.func"), least=3),
        Row(student, "jitted JAX, one at a time", speed("JAX, one at a time"), least=2),
        Row(
            student,
            "loop of [128, 64] × [64, 64] products",
            found["digits"]["share_of_peak"],
            least=0.45,
        ),
    ]
    for name, row in found["networks"]["rows"].items():
        least = 0.8 if name.startswith("WRN") else 1.0
        table.append(
            Row(f"{name}, speed", "PyTorch, channels-last, all cores", row["times_pytorch"], least)
        )
    engine = found["engine"]
    growth = f"{engine['few']:,} → {engine['many']:,} runs"
    table += [
        Row(f"time a student, {growth}", "itself", engine["growth_of_time"], most=1.1),
        Row(f"peak memory, {growth}", "itself", engine["growth_of_memory"], most=1.2),
        Row(
            "sweep with its runs kept, time",
            "the sweep without",
            engine["time_with_keeping"],
            most=1.03,
        ),
    ]
    limits = {"torch.topk": 1.5, "read": 3.0, "numpy.fromfile": None}
    against = {
        "torch.topk": "`torch.topk` of the largest k, alone",
        "read": "a plain read into one small buffer",
        "numpy.fromfile": "`numpy.fromfile`",
    }
    for name, row in found["indicators"]["sides"].items():
        for side, most in limits.items():
            if side in row["times"]:
                what = f"indicators, {row['rows']:,} × 1,000 {name}, time"
                table.append(Row(what, against[side], row["times"][side], most=most))
    audit = found["audit"]
    whole, by_block = audit["times"].values()
    what = f"audit, {audit['rows']:,} × {audit['classes']} float32 on file, time"
    table += [
        Row(what, "`numpy.load` and `argpartition` of all of it", whole, most=3),
        Row(what, "the same of the mapped file, block by block", by_block),
    ]
    for name, row in found["rooms"]["rows"].items():
        table.append(Row(f"{name}, speed", "PyTorch, eager", row["times_pytorch"], least=1))
    return table


def draw(table: list[Row]) -> str:
    """Return the table in Markdown."""
    lines = ["| what | against | asked | found, median (min–max) | |", "|---|---|---|---|---|"]
    for row in table:
        asked, verdict = "", ""
        if row.least is not None or row.most is not None:
            asked = f"≥ {row.least:g} ×" if row.least is not None else f"≤ {row.most:g} ×"
            verdict = "met" if row.met else "**not met**"
        lines.append(f"| {row.what} | {row.against} | {asked} | {spread(row.ratios)} | {verdict} |")
    return "\n".join(lines)


def inner_loop(found: dict[str, Any]) -> str:
    """Return where the time of a digits student goes, in Markdown."""
    parts = found["inner-loop"]["ms_per_student"]
    whole = np.array(parts["the training"])
    lines = ["| a digits student | ms | share of the training |", "|---|---|---|"]
    for name, values in parts.items():
        share = float(np.median(np.array(values) / whole))
        lines.append(f"| {name} | {spread(values)} | {share:.0%} |")
    return "\n".join(lines)


def page(found: dict[str, Any]) -> str:
    """Return the page."""
    digits, indicators = found["digits"], found["indicators"]
    loop = np.median(digits["sides"]["PyTorch, 1 thread"]["ms_per_student"])
    one_by_one = digits["sides"]["JAX, one at a time"]["mapping_pays_from"]
    torch_pays = digits["sides"]["PyTorch, 1 thread"]["mapping_pays_from"]
    peaks = [
        row["peak_megabytes"] for row in indicators["sides"].values() if "peak_megabytes" in row
    ]
    shares = {
        name: np.median(row["share_of_peak"]) for name, row in found["networks"]["rows"].items()
    }
    return string.Template(WORDS.read_text(encoding="utf-8")).substitute(
        table=draw(rows(found)),
        inner_loop=inner_loop(found),
        rounds=", ".join(f"{part} {found[part]['rounds']}" for part in PARTS),
        device=digits["device"],
        dates=", ".join(sorted({found[part]["date"][:10] for part in PARTS})),
        versions=", ".join(
            f"{name} {x}" for name, x in digits["versions"].items() if name != "jsoft"
        ),
        milliseconds=spread(digits["sides"]["jsoft.sweep"]["ms_per_student"]),
        peak=spread(digits["gflops_matmul_peak"]),
        pays_torch=torch_pays,
        pays_jax=one_by_one,
        stream_megabytes=f"{max(map(np.max, peaks)):,.0f}",
        audit_megabytes=f"{max(found['audit']['sides']['jsoft audit']['peak_megabytes']):,.0f}",
        shares=", ".join(f"{name} {share:.0%}" for name, share in shares.items()),
        commits=", ".join(sorted({found[part]["git_revision"][:9] for part in PARTS})),
        floor=f"{loop / np.median(found['inner-loop']['ms_per_student']['products alone']):.0f}",
    )


def read() -> dict[str, Any]:
    """Return what the benchmarks wrote on a CPU, by benchmark."""
    return {
        part: json.loads((RESULTS / f"bench-{part}-cpu.json").read_text(encoding="utf-8"))
        for part in PARTS
    }


if __name__ == "__main__":
    PAGE.write_text(page(read()), encoding="utf-8")
    print(f"written: {PAGE.relative_to(Path.cwd())}")
