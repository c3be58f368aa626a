"""The command `jsoft`, also `python -m jsoft`: `jsoft audit` tells what soft labels can teach.

It reads files, has `jsoft.audit` do the work, and prints, or writes, what came out. Exit codes: 0
fine, 1 a requirement was not met, 2 bad input, with one line on stderr that says what and where.
Nothing is written but the files asked for, and those only once they are whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from jsoft import label_files, label_kinds

if TYPE_CHECKING:
    from jsoft import audit

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclasses.dataclass(frozen=True)
class AuditCommand:
    """Are these soft labels good enough to learn from?

    Prints a verdict with its certainty, the unreliability Δ and the ambiguity γ for every k, the
    pairs of classes that are confused most, and what to do about it.

    SOFT holds a row per example and a column per class, or several draws per example, [N, R, C]:
    probabilities, logits, votes, or candidate sets of 0 and 1. LABELS holds the true classes, as
    integers from 0 or as names; -1 or nothing where unknown. Both are files of one of the formats
    .npy, .npz, .csv, .tsv and .parquet. Without labels the audit says what can be known without.

    For example:
      jsoft audit --demo --report report.html
      jsoft audit teacher.npy labels.npy
      jsoft audit votes.csv --labels-column truth --require-certified
      jsoft audit archive.npz labels.csv --array logits --kind logits --classes names.txt

    Rows and columns in messages count from 0, without a header. Exit codes: 0 fine, 1 not
    certified although required, 2 bad input.
    """

    soft: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[SOFT]")] = None
    """File of soft labels."""
    labels: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[LABELS]")] = None
    """File of true labels, if they are not a column of the first."""
    kind: Literal["probabilities", "logits", "votes", "sets"] | None = None
    """What the numbers are; detected by default, and refused where that is ambiguous."""
    array: str | None = None
    """Array of soft labels in an .npz archive that holds several."""
    labels_column: str | None = None
    """Column (of an archive: array) of true labels, in LABELS if given, else in SOFT."""
    where: str | None = None
    """Column (of an archive: array) of SOFT that says by 1 and 0 which rows count."""
    classes: Path | None = None
    """Text file of class names, one a line; of a table with names, the columns to read."""
    k: int | None = None
    """Size of the top-k sets, if it was fixed before looking; else all are compared."""
    max_k: int | None = None
    """Largest k to compare."""
    alpha: float = 0.05
    """1 - confidence of limits and certificates."""
    ties: Literal["fractional", "first", "pessimistic"] = "fractional"
    """Who belongs to the top-k set among equals, in Δ and γ; limits decide against the labels."""
    json: Path | None = None
    """Write all numbers to this JSON file."""
    report: Path | None = None
    """Write a report to this HTML file."""
    require_certified: bool = False
    """Exit with 1 unless the labels are certified to be learnable."""
    demo: bool = False
    """Audit built-in soft labels: what a model says of digits of which it sees the right half."""
    quiet: bool = False
    """Print nothing but errors."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = sys.argv[1:] if args is None else args
    try:
        return _run(_parse(args), shlex.join(["jsoft", *args]))
    except KeyboardInterrupt:
        problem, code = "interrupted", 130
    except MemoryError:
        problem, code = "this needs more memory than there is", 2
    except OSError as error:
        problem = error.strerror or str(error)
        problem, code = f"{error.filename}: {problem}" if error.filename else problem, 2
    except (TypeError, ValueError) as error:  # how jsoft refuses bad input, wherever it is found
        problem, code = str(error), 2
    print(f"jsoft audit: {' '.join(problem.split())}", file=sys.stderr)
    return code


def _parse(args: Sequence[str]) -> AuditCommand:
    """Return the command that these words spell; ValueError of one line if they spell none."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.extras.subcommand_cli_from_dict(
                {"audit": AuditCommand},
                prog="jsoft",
                description="Measure soft labels.",
                args=args,
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
            )
    except SystemExit as end:
        if not end.code:  # that was --help
            raise
    # Tyro says it in a box: a title, what is wrong, a rule or an empty line, and help.
    box = re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue()).splitlines()[1:]
    lines = [line.strip("│ ") if line.strip("│─╰╯- ") else "" for line in box]
    problem = " ".join(itertools.takewhile(bool, itertools.dropwhile(lambda line: not line, lines)))
    raise ValueError(f"{problem.rstrip('.')}; see jsoft audit --help")


def _run(command: AuditCommand, line: str) -> int:
    outputs = _check_outputs(command)
    soft_labels, labels, options = _read(command)

    from jsoft.audit import audit  # with all it stands on, and only once the files are known good

    result = audit(
        soft_labels,
        labels,
        k=command.k,
        max_k=command.max_k,
        alpha=command.alpha,
        ties=command.ties,
        progress=not command.quiet and sys.stderr.isatty(),
        **options,
    )
    contents: dict[str, Callable[[], str]] = {
        "json": lambda: json.dumps(result.to_json(), indent=2, allow_nan=False) + "\n",
        "report": lambda: result.html(command=line),
    }
    for name, path in outputs.items():
        _write(path, contents[name]())
    if not command.quiet:
        _show(result)
    return 1 if command.require_certified and not result.certified else 0


def _check_outputs(command: AuditCommand) -> dict[str, Path]:
    """Return the files to write by what goes there; an hour's work should not end in an error."""
    outputs = {
        name: path
        for name, path in (("json", command.json), ("report", command.report))
        if path is not None
    }
    inputs = [path for path in (command.soft, command.labels, command.classes) if path is not None]
    for name, path in outputs.items():
        if path.exists() and not path.is_file():
            raise ValueError(f"--{name} {path}: expected a file to write, got another thing")
        if not path.parent.is_dir():
            raise ValueError(f"--{name} {path}: expected an existing folder, got {path.parent}")
        if any(path.exists() and other.exists() and path.samefile(other) for other in inputs):
            raise ValueError(f"--{name} {path}: expected another file than those to read")
    if len({path.resolve() for path in outputs.values()}) < len(outputs):
        raise ValueError(f"--report {command.report}: expected another file than --json")
    return outputs


def _read(command: AuditCommand) -> tuple[np.ndarray, np.ndarray | None, dict]:
    """Return soft labels, labels and what the audit should know of them."""
    if command.demo:
        given = [command.soft, command.labels, command.labels_column, command.where, command.array]
        if any(value is not None for value in [*given, command.classes, command.kind]):
            raise ValueError("--demo: expected no file, for it brings its own soft labels")
        soft_labels, labels = _digits()
        return soft_labels, labels, {"classes": DIGITS}
    if command.soft is None:
        raise ValueError("expected a file of soft labels, or --demo; see jsoft audit --help")
    beside = command.labels_column if command.labels is None else None
    file = label_files.read_soft_labels(
        command.soft,
        array=command.array,
        labels_column=beside,
        where_column=command.where,
        classes=None if command.classes is None else label_files.read_classes(command.classes),
    )
    num_rows, *_, num_classes = file.values.shape
    labels = None
    if command.labels is not None:
        labels = label_files.read_labels(
            command.labels,
            num_rows=num_rows,
            num_classes=num_classes,
            classes=file.classes,
            column=command.labels_column,
        )
    elif file.labels is not None:
        labels = label_files.as_labels(
            file.labels, num_rows=num_rows, num_classes=num_classes, classes=file.classes
        )
    kind = None if command.kind is None else label_kinds.Kind(command.kind)
    return file.values, labels, {"kind": kind, "classes": file.classes, "where": file.where}


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Return what discriminant analysis says of digits when it sees the right half of them.

    Each is answered by a model that was trained on others. A nine looks like a zero from there: the
    sets of one class are fine, and those of two are not.
    """
    from sklearn.datasets import load_digits
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    digits: Any = load_digits()
    right_half = digits.images[:, :, 4:].reshape(-1, 32)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    soft_labels = cross_val_predict(
        model, right_half, digits.target, cv=folds, method="predict_proba"
    )
    return np.asarray(soft_labels, np.float32), digits.target.astype(np.int32)


def _write(path: Path, text: str) -> None:
    # Written aside and moved: what carries the name is always whole.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".jsoft-") as folder:
        aside = Path(folder) / "output"
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)


def _show(result: audit.Audit) -> None:
    """Print the audit as wide as the terminal is, in colour where that is wanted."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every terminal knows Δ
    try:
        print(
            result.text(
                width=shutil.get_terminal_size().columns,
                color=sys.stdout.isatty() and not plain,
            ),
            flush=True,
        )
    except BrokenPipeError:  # `jsoft audit … | head`: nobody reads on, and Python will flush again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
