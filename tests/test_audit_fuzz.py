"""Thousands of malformed inputs: one line that says where and what was expected, or right numbers.

Every example writes soft labels and labels that are good, in some format, and then breaks them in
one way, or not at all. What is broken on purpose must be refused with its place. What is damaged at
random, byte by byte, may by chance still be a good file: then the numbers must be those of the
function on what a simple reader, below, finds in it.
"""

import contextlib
import csv
import dataclasses
import io
import json
import math
import re
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jsoft.__main__ import main
from jsoft.audit import audit

FORMATS = (".npy", ".npz", ".csv", ".tsv", ".parquet")
NAMES = ("cat", "dog", "猫", "a b", 'say "hi"', "comma, too", "<script>", "Δ", "3", "None", "-")


@dataclasses.dataclass(frozen=True)
class Files:
    """Soft labels and labels before they are written."""

    suffix: str
    kind: str
    values: np.ndarray
    names: tuple[str, ...] | None
    labels: list | None
    labels_suffix: str | None  # None: a column beside the soft labels

    @property
    def is_table(self):
        return self.suffix in (".csv", ".tsv", ".parquet")


@st.composite
def good_files(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, classes = draw(st.integers(1, 12)), draw(st.integers(2, 6))
    kind = draw(st.sampled_from(["probabilities", "logits", "votes", "sets"]))
    suffix = draw(st.sampled_from(FORMATS))
    if kind == "probabilities":
        values = rng.dirichlet(np.ones(classes), rows)
    elif kind == "logits":
        values = rng.normal(size=(rows, classes)) - 3
    elif kind == "votes":
        values = rng.multinomial(5, np.full(classes, 1 / classes), rows)
    else:
        values = np.eye(classes, dtype=int)[rng.integers(classes, size=rows)]
        values = values | (rng.random((rows, classes)) < 0.3)
    if draw(st.booleans()) and kind in ("probabilities", "logits"):
        values = values.astype(np.float32)
    if suffix in (".npy", ".npz") and draw(st.booleans()):
        values = np.stack([values, values], axis=1)
    named = suffix == ".parquet" or (suffix in (".csv", ".tsv") and draw(st.booleans()))
    names = tuple(draw(st.permutations(NAMES))[:classes]) if named else None
    if names and "3" in names:  # a class called by another integer is refused; see the readers
        names = tuple("drei" if name == "3" else name for name in names)
    if not names and values.ndim == 2 and (values[0] == np.arange(classes)).all():
        values[0] = 1  # a first line 0, 1, 2 could be a header, and is refused; see the readers
    labels, beside = None, None
    if draw(st.booleans()):
        labels = rng.integers(-1, classes, size=rows).tolist()
        labels[0] = max(labels[0], 0)
        beside = draw(st.sampled_from([*FORMATS, *([None] if named or suffix == ".npz" else [])]))
        if names and beside and draw(st.booleans()):
            labels = ["" if label < 0 else names[label] for label in labels]
    return Files(suffix, kind, values, names, labels, beside)


def text_of(cell):
    return repr(cell.item()) if isinstance(cell, np.generic) else str(cell)


def write_rows(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows(rows)


def write_soft(files, path):
    beside = {"truth": files.labels} if files.labels and files.labels_suffix is None else {}
    if files.suffix == ".npy":
        np.save(path, files.values)
    elif files.suffix == ".npz":
        np.savez_compressed(path, soft=files.values, **beside)
    elif files.suffix == ".parquet":
        columns = dict(zip(files.names, map(pa.array, files.values.T), strict=True)) | beside
        pq.write_table(pa.table(columns), path)
    else:
        rows = [[text_of(cell) for cell in row] for row in files.values]
        if beside:
            rows = [[*row, label] for row, label in zip(rows, files.labels, strict=True)]
        write_rows(path, ([[*files.names, *beside]] if files.names else []) + rows)


def write_labels(labels, path):
    if path.suffix == ".npy":
        np.save(path, labels)
    elif path.suffix == ".npz":
        np.savez(path, labels)
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"truth": labels}), path)
    else:
        write_rows(path, [[label] for label in labels])


# What breaks, and what the one line must say of it. Each takes (draw, files) and returns either
# other files, or what to do to the path of the soft labels.


def place(draw, files):
    row = draw(st.integers(0, len(files.values) - 1))
    return row, draw(st.integers(0, files.values.shape[-1] - 1))


def with_entry(files, row, column, value):
    values = files.values.astype(float)
    values[(row, 0, column) if values.ndim == 3 else (row, column)] = value
    return dataclasses.replace(files, values=values)


def where_in(files, row, column):
    return rf"row {row}, (draw 0, )?column {column}\b"


def not_finite(draw, files):
    row, column = place(draw, files)
    value = draw(st.sampled_from([math.nan, math.inf, -math.inf, 1e39, -1e300, 1.7e308]))
    return with_entry(files, row, column, value), where_in(files, row, column) + ".*finite"


def below_zero(draw, files):
    row, column = place(draw, files)
    if files.kind == "logits":
        return not_finite(draw, files)
    return (
        with_entry(files, row, column, draw(st.sampled_from([-1, -0.5, -1e30]))),
        where_in(files, row, column) + f": expected {files.kind}, none below 0",
    )


def empty_row(draw, files):
    if files.kind == "logits":
        return not_finite(draw, files)
    row = draw(st.integers(0, len(files.values) - 1))
    values = files.values.copy()
    values[row] = 0
    return dataclasses.replace(files, values=values), rf"row {row}[,:].*expected"


def no_unit_row(draw, files):
    files = dataclasses.replace(files, kind="probabilities", values=np.abs(files.values) + 0.6)
    return files, "row 0(, draw 0)?: expected probabilities that sum to one"


def no_set(draw, files):
    row, column = place(draw, files)
    values = (files.values > 0).astype(float)
    files = with_entry(dataclasses.replace(files, kind="sets", values=values), row, column, 0.5)
    return files, where_in(files, row, column) + ": expected sets of 0 and 1, got 0.5"


def other_shape(draw, files):
    values = files.values
    shapes = [values[..., :1], values[:0]]
    if not files.is_table:
        shapes += [values.reshape(-1), values[..., None], values[None, None]]
    values = draw(st.sampled_from(shapes))
    return dataclasses.replace(
        files,
        values=values,
        names=None if files.names is None else files.names[: values.shape[-1]],
        labels=None,
    ), r"expected (shape \[N, C\]|one row or more|rows below|a file with data|at most)"


def other_dtype(draw, files):
    dtype = draw(st.sampled_from([complex, "U3", "S3", object, "datetime64[s]", np.longdouble]))
    suffix = draw(st.sampled_from([".npy", ".npz"]))
    values = files.values.astype(np.int64).astype(dtype)
    files = dataclasses.replace(files, suffix=suffix, values=values, names=None, labels=None)
    return files, "expected (numbers or booleans|a plain array)"


def text_cells(draw, files):
    suffix = draw(st.sampled_from([".csv", ".tsv"]))
    names = tuple(f"class {i}" for i in range(files.values.shape[-1]))
    return dataclasses.replace(
        files,
        suffix=suffix,
        values=files.values[:, 0].astype(object) if files.values.ndim == 3 else files.values,
        names=names,
        labels=None,
    )


def word_in_a_cell(draw, files):
    files = text_cells(draw, files)
    row, column = place(draw, files)
    values = files.values.astype(object)
    values[row, column] = draw(st.sampled_from(["", "x", "1_0", "0x1", "1,5", "NA", "猫", "--1"]))
    files = dataclasses.replace(files, values=values)
    return files, rf"row {row}, column {column} \('class {column}'\): expected a number"


def ragged(draw, files):
    files = text_cells(draw, files)
    row = draw(st.integers(0, len(files.values) - 1))
    classes = files.values.shape[-1]
    length = draw(st.integers(1, 9).filter(lambda length: length != classes))
    rows = [list(row) for row in files.values]
    rows[row] = (rows[row] * 9)[:length]

    def write(path):
        write_rows(path, [files.names, *([text_of(cell) for cell in row] for row in rows)])

    message = rf"row {row}: expected {classes} columns, got {length}"
    return dataclasses.replace(files, kind="logits"), message, write


def bad_names(draw, files):
    files = text_cells(draw, files)
    names = [*files.names]
    names[-1] = draw(st.sampled_from(["", names[0], "\x1b[2J", "a\nb", "\u202e", "a\x00b"]))
    expected = "expected (a printable name|a name of its own|UTF-8|a table|.* columns|class names)"
    return dataclasses.replace(files, names=tuple(names)), expected


def bad_labels(draw, files):
    rows, classes = len(files.values), files.values.shape[-1]
    row = draw(st.integers(0, rows - 1))
    labels = [0] * rows
    labels[row] = draw(st.sampled_from([classes, -2, 2**31, 2**32, 2**62, -(2**63)]))
    suffix = draw(st.sampled_from(FORMATS))
    message = rf"labels: row {row}: expected (a class in 0|a class name or an integer|an integer)"
    return dataclasses.replace(files, labels=labels, labels_suffix=suffix), message


def other_labels(draw, files):
    rows = len(files.values)
    labels = draw(
        st.sampled_from(
            [
                [0] * (rows + 1),
                [0] * (rows + 7),
                [0] * (rows - 1),
                [0.5] * rows,
                [True] * rows,
                ["no class"] * rows,
                [[0, 1]] * rows,
            ]
        )
    )
    suffix = draw(st.sampled_from([".npy", ".npz", ".parquet"]))
    return dataclasses.replace(files, labels=labels, labels_suffix=suffix), "expected"


def truncated(draw, files):
    cut = draw(st.floats(0, 1))

    def write(path):
        write_soft(files, path)
        data = path.read_bytes()
        path.write_bytes(data[: int(cut * (len(data) - 1))])

    return files, None, write


def flipped(draw, files):
    changes = draw(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1))

    def write(path):
        write_soft(files, path)
        data = bytearray(path.read_bytes())
        for where, change in changes:
            data[int(where * (len(data) - 1))] ^= change
        path.write_bytes(data)

    return files, None, write


def damaged_labels(draw, files):
    rows, classes = len(files.values), files.values.shape[-1]
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))
    cut, change = draw(st.floats(0, 1)), draw(st.integers(0, 255))

    def damage(path):
        data = bytearray(path.read_bytes())
        place = int(cut * (len(data) - 1))
        if change:
            data[place] ^= change
        path.write_bytes(data if change else data[:place])

    files = dataclasses.replace(files, labels=labels, labels_suffix=draw(st.sampled_from(FORMATS)))
    return files, None, lambda path: write_soft(files, path), damage


def lengthened(draw, files):
    more = draw(st.binary(min_size=1, max_size=50))

    def write(path):
        write_soft(files, path)
        with path.open("ab") as file:
            file.write(more)

    return files, None, write


def anything(draw, files):
    data = draw(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
    start = draw(st.sampled_from([b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"PAR1", b"a,b\n"]))
    return files, None, lambda path: path.write_bytes(start + data)


def lying_header(draw, files):
    """Return an array that claims any shape and dtype."""
    shape = tuple(draw(st.lists(st.integers(-2, 2**63), max_size=4)))
    descr = draw(st.sampled_from(["<f8", "<f4", "|u1", "|O", "|V0", "<U0", "<M8[s]", "<f2"]))
    stream = io.BytesIO()
    header = {"descr": descr, "fortran_order": draw(st.booleans()), "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    data = stream.getvalue() + draw(st.binary(max_size=64))
    files = dataclasses.replace(files, suffix=draw(st.sampled_from([".npy", ".npz"])))

    def write(path):
        if path.suffix == ".npy":
            path.write_bytes(data)
        else:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("soft.npy", data)

    return files, None, write


def other_format(draw, files):
    other = draw(st.sampled_from([s for s in FORMATS if s != files.suffix] + [".pkl", ""]))

    def write(path):
        written = path.with_suffix(files.suffix)
        write_soft(files, written)
        written.rename(path.with_suffix(other))

    return dataclasses.replace(files, suffix=other), None, write


def nothing(draw, files):
    return files, ""


BREAKS = (
    nothing,
    not_finite,
    below_zero,
    empty_row,
    no_unit_row,
    no_set,
    other_shape,
    other_dtype,
    word_in_a_cell,
    ragged,
    bad_names,
    bad_labels,
    other_labels,
    truncated,
    flipped,
    damaged_labels,
    lengthened,
    anything,
    lying_header,
    other_format,
)


def simply_read(path, beside):
    """Return (values, names, labels) of a file that was accepted, read without any care."""
    if path.suffix == ".npy":
        return np.load(path), None, None
    if path.suffix == ".npz":
        with np.load(path) as archive:
            names = [name for name in archive.files if not (beside and name == "truth")]
            return archive[names[0]], None, archive["truth"] if beside else None
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        columns = {name: table[name].to_numpy() for name in table.column_names}
    else:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
        header = not all(re.fullmatch(r"[-+.0-9e]+|nan|inf", cell) for cell in rows[0])
        names = [name.strip() for name in rows.pop(0)] if header else range(len(rows[0]))
        columns = {
            name: [row[i] if name == "truth" else float(row[i]) for row in rows]
            for i, name in enumerate(names)
        }
    labels = columns.pop("truth") if beside else None
    names = tuple(columns) if isinstance(next(iter(columns)), str) else None
    return np.stack([np.asarray(column) for column in columns.values()], axis=1), names, labels


def simply_read_labels(path):
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".npz":
        with np.load(path) as archive:
            return archive[archive.files[0]]
    if path.suffix == ".parquet":
        return pq.read_table(path)[0].to_pylist()
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        return [row[0] if row else "" for row in rows]


def indices(labels, names):
    """Return integers for labels that may be names, or text that spells integers."""
    known = dict(zip(names or (), range(99), strict=False)) | {"": -1, None: -1}
    return np.array([known[label] if label in known else int(label) for label in labels])


def run(args):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["audit", *map(str, args)])
    return code, out.getvalue(), err.getvalue()


def check(files, message, write, damage=lambda path: None):
    with tempfile.TemporaryDirectory() as folder:
        soft, numbers = Path(folder, f"soft{files.suffix}"), Path(folder, "numbers.json")
        write(soft)
        args = [soft, "--json", numbers, "--kind", files.kind]
        beside = files.labels is not None and files.labels_suffix is None
        if beside:
            args += ["--labels-column", "truth"]
        elif files.labels is not None:
            labels = Path(folder, f"labels{files.labels_suffix}")
            write_labels(files.labels, labels)
            damage(labels)
            args.insert(1, labels)
        before = sorted(Path(folder).iterdir())
        code, out, err = run(args)
        if code == 0:
            assert not message, f"accepted, though it should say: {message}"
            assert err == ""
            values, names, found = simply_read(soft, beside)
            if files.labels is not None and not beside:
                found = simply_read_labels(labels)[-len(values) :]  # without a header
            labels = None if found is None else indices(found, names)
            expected = audit(values, labels, kind=files.kind, classes=names).to_json()
            assert json.loads(numbers.read_text()) == json.loads(json.dumps(expected))
            return
        assert code == 2
        assert message != "", f"refused, though it is good: {err}"
        assert out == ""
        assert err.startswith("jsoft audit: ")
        assert err.endswith("\n")
        line = err[:-1]
        assert line.isprintable()
        assert "expected" in line
        assert re.search(message or "", line), line
        assert sorted(Path(folder).iterdir()) == before


@st.composite
def cases(draw):
    files = draw(good_files())
    files, message, *write = draw(st.sampled_from(BREAKS))(draw, files)
    return files, message, *(write or [lambda path: write_soft(files, path)])


def fuzz(examples):
    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def search(case):
        check(*case)

    search()


def test_hundreds_of_malformed_inputs():
    fuzz(300)


@pytest.mark.slow
def test_ten_thousand_malformed_inputs():
    fuzz(10_000)
