"""What every experiment does with its results: command line, files, claims and their verdicts.

An experiment is a module with

    PRESETS     presets by name, instances of one frozen dataclass `Config` that has the fields
                preset, out, plot_only and quiet
    run         (config, folder) -> tables by name; `results` is the main one, all lie in the folder
                as NAME.parquet
    summarise   (tables) -> what they show, plain values for JSON; `claims` lists what was expected
    plot        (tables) -> the figure
    report      (summary) -> the lines to print

and `main(module)` is its command line. Figure and summary are made from the tables alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from experiments import keep_compiled_programs, use_all_cores
from jsoft import sweep

Tables = dict[str, pa.Table]

STYLE = {
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.4,
    "legend.frameon": False,
    "svg.fonttype": "none",
}


def main(experiment: ModuleType) -> None:
    """Read the command line, train, and write figure and summary beside the tables."""
    name, presets = _name(experiment), experiment.PRESETS
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--preset", choices=presets, default="digits")
    preset = parser.parse_known_args()[0].preset
    config = tyro.cli(
        type(presets[preset]), default=presets[preset], prog=f"python -m experiments.{name}"
    )
    folder = config.out or Path("results", name, config.preset)
    if config.plot_only:
        tables = read(folder, options(config))
    else:
        use_all_cores()
        keep_compiled_programs()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            tables = dict(sorted(experiment.run(config, folder).items()))  # in the order of `read`
        except KeyboardInterrupt as interrupt:
            sys.exit("\n".join(["interrupted", *getattr(interrupt, "__notes__", [])]))
    summary = write(experiment, tables, folder)
    print(experiment.report(summary))
    files = ", ".join([*(f"{table}.parquet" for table in tables), "figure.png", "figure.svg"])
    print(f"written to {folder}: {files}, summary.json")


def options(config: Any) -> dict[str, Any]:
    """Return what the command line decides of the results: not where files lie."""
    elsewhere = ("data", "sets", "out", "plot_only", "quiet", "checkpoints")
    chosen = {name: x for name, x in dataclasses.asdict(config).items() if name not in elsewhere}
    return json.loads(json.dumps(chosen))


def save(
    columns: Mapping[str, Any], path: Path, config: Mapping[str, Any], *, started: float
) -> pa.Table:
    """Return the columns as a table with its provenance, written to `path`.

    For what is computed without `sweep.run`; `started` is `time.perf_counter()` at the beginning.

    Raises:
      ValueError: `path` holds results of another configuration.
    """
    config = json.loads(json.dumps(dict(config)))
    if path.exists() and sweep.metadata(pq.read_table(path, columns=[]))["config"] != config:
        raise ValueError(f"path: {path} holds results of another configuration")
    table = pa.table(dict(columns))
    noted = {
        "config": config,
        "runs": table.num_rows,
        "wall_seconds": time.perf_counter() - started,
        **sweep.provenance(),
    }
    table = table.replace_schema_metadata({"jsoft": json.dumps(noted)})
    sweep.write(table, path)
    return table


def read(folder: Path, expected: Mapping[str, Any]) -> Tables:
    """Return the tables that `run` wrote, if they are those that the options describe.

    Raises:
      ValueError: no tables there, an interrupted run, or tables made with other options.
    """
    for left in folder.glob("*.parquet.parts"):
        raise ValueError(
            f"out: {left} is not finished; run without --plot-only, which goes on from it"
        )
    if not (folder / "results.parquet").exists():
        raise ValueError(
            f"out: expected {folder / 'results.parquet'} to redraw from; run without --plot-only "
            "first"
        )
    tables = {path.stem: pq.read_table(path) for path in sorted(folder.glob("*.parquet"))}
    found = sweep.metadata(tables["results"])["config"]
    for name, value in expected.items():
        if name != "dataset" and found.get(name) != value:
            raise ValueError(f"{name}: expected {found.get(name)!r} as in {folder}, got {value!r}")
    return tables


def _settle(figure: Figure, dpi: int) -> None:
    """Lay the figure out for good, to six digits of its size.

    The layout leaves the last digit of positions to chance, and with it shades of pixels and, in
    SVG, names: one picture is to have the same bytes.
    """
    figure.set_dpi(dpi)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for part in figure.subfigs:
        part.bbox_relative.set_points(part.bbox_relative.get_points().round(6))
    for axes in figure.axes:
        corners = axes.get_position(original=True).get_points().round(6)
        axes.set_position(Bbox(corners))


def write(experiment: ModuleType, tables: Tables, folder: Path) -> dict[str, Any]:
    """Write what is drawn from the tables, the figure twice and the summary; return the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        figure = experiment.plot(tables)
        _settle(figure, dpi=300)
        figure.savefig(folder / "figure.png", dpi=300)
    with plt.rc_context({**STYLE, "svg.hashsalt": "jsoft"}):  # the same names of parts
        figure.savefig(folder / "figure.svg", metadata={"Date": None})
    plt.close(figure)
    summary = {
        "experiment": _name(experiment),
        **experiment.summarise(tables),
        **provenance(tables),
    }
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    return summary


def provenance(tables: Tables) -> dict[str, Any]:
    """Return where the numbers come from: seconds spent, device, date, revision, versions."""
    noted = {name: sweep.metadata(table) for name, table in tables.items()}
    main = noted["results"]
    return {
        "runs": {name: note["runs"] for name, note in noted.items() if "compile_seconds" in note},
        "wall_seconds": round(sum(note["wall_seconds"] for note in noted.values()), 2),
        "compile_seconds": round(sum(note.get("compile_seconds", 0) for note in noted.values()), 2),
        **{name: main[name] for name in ("device", "date", "git_revision", "versions", "config")},
    }


def claim(
    identifier: str,
    statement: str,
    *,
    source: str,
    expected: str,
    ours: str,
    met: bool,
    paper: str = "",
    smaller_scale: bool = False,
    reason: str = "",
) -> dict[str, str]:
    """Return one row of the reproduction table, its verdict included.

    Args:
      identifier: B1 … B9, or `labels`.
      statement: what is claimed, in one sentence.
      source: whose claim it is: "paper", "paper (secondary source)", "derived here",
        "reconstructed".
      expected: the number that it should meet, with its tolerance.
      ours: what was measured, mean ± standard deviation over how many seeds.
      met: whether ours meets what was expected.
      paper: the paper's own number, where one is known.
      smaller_scale: whether the claim was made of a larger data set or network than ran here.
      reason: why it was not met, or what else has to be known.

    >>> claim("B2", "s", source="paper", expected="≥ 0.9", ours="0.95", met=True)["verdict"]
    'met'
    """
    verdict = ("met at smaller scale" if smaller_scale else "met") if met else "not met"
    return {
        "id": identifier,
        "claim": statement,
        "source": source,
        "expected": expected,
        "paper": paper,
        "ours": ours,
        "verdict": verdict,
        "reason": reason,
    }


def mean_and_spread(values: Any, digits: int = 3) -> str:
    """Return "mean ± standard deviation (n seeds)", the mean alone for a single seed.

    >>> mean_and_spread([0.9, 1.0])
    '0.950 ± 0.071 (2 seeds)'
    """
    values = np.asarray(values, float).ravel()
    if len(values) == 1:
        return f"{values[0]:.{digits}f} (1 seed)"
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f} ({len(values)} seeds)"


def rounded(value: Any, digits: int = 4) -> float | None:
    """Return the number rounded, or None where there is none: JSON knows no NaN.

    >>> rounded(0.123456), rounded(float("nan"))
    (0.1235, None)
    """
    return round(float(value), digits) if np.isfinite(value) else None


def claim_lines(summary: Mapping[str, Any]) -> str:
    """Return the claims of a summary as lines to print."""
    lines = []
    for row in summary["claims"]:
        lines.append(f"[{row['verdict']}] {row['id']}  {row['claim']}")
        lines.append(f"    {row['ours']}; expected {row['expected']}")
        if row["reason"]:
            lines.append(f"    {row['reason']}")
    return "\n".join(lines)


def timing_line(summary: Mapping[str, Any]) -> str:
    """Return how much was trained in what time, where."""
    runs = sum(summary["runs"].values())
    return (
        (f"{runs:,} runs in " if runs else "")
        + f"{summary['wall_seconds']:.1f} s, of which compilation "
        f"{summary['compile_seconds']:.1f} s, on {summary['device']}"
    )


def _name(experiment: ModuleType) -> str:
    assert experiment.__file__ is not None
    return Path(experiment.__file__).stem
