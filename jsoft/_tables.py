"""Tables of soft labels, CSV and Parquet, read strictly: what is not understood is an error.

Errors say where, rows and columns counted from 0 and without the header; `label_files`, which alone
reads tables, puts the path before them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # slow to import, and needed where there is a table alone
    import pyarrow as pa

# What is not memory-mapped is held in memory; a small file may claim to hold any number.
MAX_BYTES = 4 << 30
# Tables over pairs of classes have a hundred million cells then.
MAX_CLASSES = 10_000
# Of text that is looked at before it is parsed.
MAX_TEXT = 1 << 20
# Fewer rows may count 0, 1, 2, … by chance.
_ROW_NUMBERS = 10


def one_line(text: str) -> str:
    """Return `text` on one line of printable characters, cut where it gets too long to read."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    words = " ".join(printable.split())
    return words if len(words) <= 400 else f"{words[:400]} …"


def quote(value: Any) -> str:
    """Return what a value looks like in Python, cut where it gets long."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return class names; ValueError unless each is printable and its own."""
    places: dict[str, int] = {}
    for i, name in enumerate(names):
        # What a terminal may take for a command is no name.
        if not name or not name.isprintable():
            raise ValueError(f"class {i}: expected a printable name, got {quote(name)}")
        if name in places:
            raise ValueError(
                f"class {i}: expected a name of its own, got {quote(name)}, the name of "
                f"class {places[name]}"
            )
        places[name] = i
    return tuple(names)


def choose(name: str | None, names: list[str], *, what: str = "array") -> str:
    """Return the name asked for, or the only one."""
    if name is None and len(names) == 1:
        return names[0]
    if name not in names:
        wanted = f"one {what}, or the name of one" if name is None else f"{what} {quote(name)}"
        listed = ", ".join(map(quote, names[:10])) + (", …" if len(names) > 10 else "")
        raise ValueError(f"expected {wanted}, got {listed or 'none'}")
    return name


def read_table(path: Path, suffix: str, text: Sequence[str] | None) -> pa.Table:
    """Return a table whose columns called in `text` (None means all) are, in a CSV, strings."""
    if suffix == ".parquet":
        return _read_parquet(path)
    first = _first_lines(path, suffix)[0]
    if not first:
        raise ValueError("line 1: expected class names or numbers, got an empty line")
    header = _is_header(first)
    names = [cell.strip(" \t") for cell in first] if header else None
    return read_csv(path, suffix, names, text)


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            # Of damaged files, only what `metadata` says as a whole may be asked for: the
            # accessors of single columns abort the process (pyarrow 26).
            if 8 * file.metadata.num_rows * file.metadata.num_columns <= MAX_BYTES:
                batches, num_bytes = [], 0
                for batch in file.iter_batches(use_threads=False):  # lists are as long as they like
                    batches.append(batch)
                    num_bytes += batch.nbytes
                    if num_bytes > MAX_BYTES:
                        break
                else:
                    return pa.Table.from_batches(batches, file.schema_arrow)
    except pa.ArrowException as error:
        raise ValueError(f"expected a Parquet table, got: {error}") from error
    raise ValueError("expected a table below 4 GiB; an .npy file is memory-mapped")


def _first_lines(path: Path, suffix: str) -> list[list[str]]:
    """Return the cells of the first line, and of the second if there is one."""
    with path.open("rb") as file:
        start = file.read(MAX_TEXT)
    # Where pyarrow ends lines, and nowhere else; `splitlines` knows many more places.
    lines = re.split("\r\n|\r|\n", start.decode("utf-8-sig", errors="replace"), maxsplit=2)
    if not lines[-1]:
        lines.pop()
    if len(lines) < 2 and len(start) == MAX_TEXT:
        raise ValueError("expected lines of less than a megabyte")
    lines = lines[:2] or [""]
    for line in lines:
        if "\ufffd" in line or "\0" in line:
            raise ValueError("expected UTF-8 text")
    delimiter = "\t" if suffix == ".tsv" else ","
    # One by one: a quoted line break is no part of a name or number.
    return [next(csv.reader([line], delimiter=delimiter, strict=True)) for line in lines]


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def whole(cell: str) -> int | None:
    """Return the integer that a text spells, or None."""
    return int(cell) if re.fullmatch(r"-?[0-9]{1,18}", cell) else None


def _is_boolean(cell: str) -> bool:
    return cell.strip(" \t").lower() in ("true", "false")


def _is_header(first: list[str]) -> bool:
    words = [cell for cell in first if cell and _number(cell) is None and not _is_boolean(cell)]
    if not words:
        if len(first) > 1 and first == [str(i) for i in range(len(first))]:
            raise ValueError(
                f"line 1: expected class names or soft labels, got 0 … {len(first) - 1}, which "
                "could be either: give the columns names, or leave out a header that counts them"
            )
        return False
    # Classes may be called 0 … 9, but not 0.25: that is a row of numbers with a slip in it.
    for cell in first:
        if _number(cell) is not None and whole(cell.strip(" \t")) is None:
            raise ValueError(
                f"line 1: expected class names or numbers, got both: {quote(words[0])} and "
                f"{quote(cell)}"
            )
    return True


def read_csv(
    path: Path, suffix: str, names: list[str] | None, text: Sequence[str] | None
) -> pa.Table:
    """Return a table with `names` (None: the file has no header) and columns `text` as strings."""
    import pyarrow as pa
    import pyarrow.csv

    lines = _first_lines(path, suffix)
    columns = names or _counted(len(lines[0]) or 1)
    if len(set(columns)) < len(columns):
        check_names(columns)
    first_row = lines[-1] if names else lines[0]
    if names and len(lines) < 2:
        raise ValueError("expected rows below the header, got none")

    def type_of(i: int) -> pa.DataType:
        if text is None or columns[i] in text:
            return pa.string()
        boolean = i < len(first_row) and _is_boolean(first_row[i])
        return pa.bool_() if boolean else pa.float64()

    try:
        return pyarrow.csv.read_csv(
            path,
            # One thread: only then do messages know the row.
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, column_names=columns, skip_rows=1 if names else 0
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter="\t" if suffix == ".tsv" else ",", ignore_empty_lines=False
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={column: type_of(i) for i, column in enumerate(columns)},
                null_values=[""],
            ),
        )
    except pa.ArrowInvalid as error:
        raise ValueError(_explain(str(error), columns, header=names is not None)) from error


def _explain(message: str, columns: list[str], *, header: bool) -> str:
    """Return pyarrow's complaint about a CSV file in our words, rows counted from 0."""
    cell = re.search(
        r"CSV column #(\d+): Row #(\d+): CSV conversion error to (\w+): invalid (.*)",
        message,
        re.DOTALL,
    )
    if cell:
        column, line, kind, got = cell.groups()
        expected = {"double": "a number", "bool": "true or false"}.get(kind, "UTF-8 text")
        name = f" ({quote(columns[int(column)])})" if header else ""
        place = f"row {int(line) - 1 - header}, column {column}{name}"
        return f"{place}: expected {expected}, got {one_line(got.removeprefix('value '))[:60]}"
    ragged = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", message)
    if ragged:
        line, expected, got = ragged.groups()
        return f"row {int(line) - 1 - header}: expected {expected} columns, got {got}"
    return f"expected a table, got: {message}"


def column_of(table: pa.Table, name: str) -> np.ndarray:
    """Return a column as a NumPy array: numbers, booleans, or text with "" for nulls."""
    import pyarrow as pa

    choose(name, table.column_names, what="column")
    column = table.column(table.column_names.index(name))
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.array([(text or "").strip(" \t") for text in column.to_pylist()], object)
    if pa.types.is_integer(column.type):
        return column.fill_null(-1).to_numpy()
    if pa.types.is_boolean(column.type) and not column.null_count:
        return column.to_numpy()
    raise ValueError(f"column {name!r}: expected integers, text or booleans, got {column.type}")


def matrix(
    table: pa.Table, classes: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Return numbers or booleans `[N, C]` and the columns' names, if they have any."""
    import pyarrow as pa

    if table.num_rows == 0:
        raise ValueError("expected one row or more, got none")
    if table.num_columns == 1 and pa.types.is_nested(table.schema.types[0]):
        return _from_lists(table.column(0)), None
    named = table.column_names != _counted(table.num_columns)
    if named and classes is not None:
        table = table.select(
            [choose(name, table.column_names, what="column") for name in check_names(classes)]
        )
    if table.num_columns > MAX_CLASSES:
        raise ValueError(f"expected at most {MAX_CLASSES} classes, got {table.num_columns}")
    columns = []
    for i, name in enumerate(table.column_names):
        place = f"column {i} ({quote(name)})" if named else f"column {i}"
        columns.append(_numbers(table.column(i), place))
        if _counts_rows(columns[i]):
            raise ValueError(f"{place}: expected soft labels, got row numbers")
    return np.stack(columns, axis=1), check_names(table.column_names) if named else None


def _counts_rows(column: np.ndarray) -> bool:
    if len(column) < _ROW_NUMBERS or column.dtype == bool or column[0] not in (0, 1):
        return False
    return bool((column == column[0] + np.arange(len(column))).all())


def _from_lists(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of equally long lists of numbers as `[N, C]`."""
    import pyarrow.compute as pc

    lengths = pc.call_function("list_value_length", [column]).to_numpy()
    odd = ~(lengths == lengths[0])  # a missing list has the length NaN
    if odd.any():
        row = int(np.argmax(odd))
        raise ValueError(
            f"row {row}: expected {lengths[0]:.0f} numbers, as in row 0, got {lengths[row]:.0f}"
        )
    entries = pc.call_function("list_flatten", [column])
    if entries.null_count:
        row, i = divmod(int(np.argmax(entries.is_null().to_numpy())), int(lengths[0]))
        raise ValueError(f"row {row}, column {i}: expected a number, got nothing")
    return _numbers(entries, "the lists").reshape(len(column), int(lengths[0]))


def _numbers(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """Return a column of numbers or booleans without nulls."""
    import pyarrow as pa

    kind = column.type
    if not any(
        is_a(kind) for is_a in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    ):
        raise ValueError(f"{name}: expected numbers or booleans, got {kind}")
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        raise ValueError(f"row {row}, {name}: expected a number, got nothing")
    return column.to_numpy()


def _counted(num_columns: int) -> list[str]:
    """Return what columns without names are called in a table."""
    return [f"column {i}" for i in range(num_columns)]
