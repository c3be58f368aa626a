"""Run an experiment as a user does, and what the tests of all experiments ask of its files."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
FILES = {"figure.png", "figure.svg", "results.parquet", "summary.json"}


def command(experiment, *arguments, folder):
    """Run `python -m experiments.NAME` in a process of its own, warnings being errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", f"experiments.{experiment}", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


def check_redraws(experiment, folder, printed):
    """Assert that --plot-only writes the same bytes and prints the same lines."""
    out = folder / "results" / experiment / "tiny"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(before) >= FILES
    done = command(experiment, "--preset", "tiny", "--plot-only", folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed
    for name, content in before.items():
        assert (out / name).read_bytes() == content, name
