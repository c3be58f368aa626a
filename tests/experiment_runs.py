"""Run an experiment's command line, and what the tests of all experiments ask of its files."""

import contextlib
import importlib
import io
import re
import subprocess
import sys
import traceback
from pathlib import Path
from unittest import mock

import jax

from experiments import results

REPOSITORY = Path(__file__).parents[1]
FILES = {"figure.png", "figure.svg", "results.parquet", "summary.json"}


def command(experiment, *arguments, folder):
    """Do what `python -m experiments.NAME` does in this folder, and return what it said.

    In this process, where everything is imported: a process of its own takes seconds to start, and
    the suite has a hundred of these. Devices and compiled programs are left as the tests have them.
    """
    said, complained, code = io.StringIO(), io.StringIO(), 0
    argv = [f"experiments.{experiment}", *map(str, arguments)]
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(complained),
        mock.patch.object(sys, "argv", argv),
        mock.patch.multiple(
            results, use_all_cores=lambda: None, keep_compiled_programs=lambda: None
        ),
        jax.numpy_rank_promotion("allow"),  # as users have it
    ):
        try:
            results.main(importlib.import_module(f"experiments.{experiment}"))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        except Exception:
            code = 1
            traceback.print_exc()
    return subprocess.CompletedProcess(argv, code, said.getvalue(), complained.getvalue())


def check_redraws(experiment, folder, printed):
    """Assert that --plot-only writes the same bytes and prints the same lines."""
    out = folder / "results" / experiment / "tiny"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(before) >= FILES
    done = command(experiment, "--preset", "tiny", "--plot-only", folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed
    for name, content in before.items():
        again = (out / name).read_bytes()
        assert _without_names(again, name) == _without_names(content, name), name


def _without_names(content, name):
    """Return the bytes, of an SVG without the names of its parts.

    Those of clipped ones come from addresses in memory: the same in processes of their own only.
    """
    return re.sub(rb"\bp[0-9a-f]{10}\b", b"", content) if name.endswith(".svg") else content
