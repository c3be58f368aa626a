"""Soft labels, labels and class names from files: `.npy`, `.npz`, `.csv`, `.tsv`, `.parquet`.

    .npy            [N, C] or [N, R, C], memory-mapped
    .npz            the array named, or the only one that is not named as labels or mask
    .csv, .tsv      a column per class; a first line with class names is optional
    .parquet        a column per class, or one column of lists

A file is data and nothing else: nothing is unpickled or executed, and its own word for how large it
is is checked against its length before anything is allocated. Whatever is wrong raises one
`ValueError` that starts with the path, says where (rows and columns count from 0, without a header)
and what was expected. Nothing is repaired.
"""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from jsoft import _arrays, _tables

FORMATS = (".npy", ".npz", ".csv", ".tsv", ".parquet")


@dataclasses.dataclass(frozen=True, eq=False)
class SoftLabelFile:
    """What a file holds: soft labels as they stand there, and what stands beside them.

    Args:
      values: `[N, C]` or `[N, R, C]` numbers or booleans, memory-mapped where the format allows.
      classes: the names of the C classes, or None where neither file nor caller has any.
      labels: `[N]`, the column asked for: integers, or text ("" where it is empty).
      where: `[N]` booleans, the column asked for.
    """

    values: np.ndarray
    classes: tuple[str, ...] | None = None
    labels: np.ndarray | None = None
    where: np.ndarray | None = None


def read_soft_labels(
    path: str | os.PathLike[str],
    *,
    array: str | None = None,
    labels_column: str | None = None,
    where_column: str | None = None,
    classes: Sequence[str] | None = None,
) -> SoftLabelFile:
    r"""Return the soft labels in a file, unconverted, and the columns that stand beside them.

    Args:
      path: a `.npy`, `.npz`, `.csv`, `.tsv` or `.parquet` file.
      array: of an `.npz`, the array of soft labels; needed where there are several.
      labels_column: of a table, the column of labels; of an `.npz`, the array.
      where_column: the column or array that says by booleans, or by 0 and 1, which rows count.
      classes: the names of the classes; of a table with names, the columns to read, in this order.

    Raises:
      ValueError: a file that is absent, damaged, of another format or larger than it can be; no
        such array or column; not numbers or booleans of two classes or more; rows of unequal
        length; class names that are empty, double or not as many as classes; a column that counts
        the rows.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "votes.csv"
    ...     _ = path.write_text("cat,dog,truth\n3,2,cat\n0,5,\n")
    ...     file = read_soft_labels(path, labels_column="truth")
    >>> print(file.values.tolist(), file.classes, file.labels)
    [[3.0, 2.0], [0.0, 5.0]] ('cat', 'dog') ['cat' '']
    """
    path = Path(path)
    beside = [name for name in (labels_column, where_column) if name is not None]
    names = None
    with _naming(path):
        suffix = _check_path(path)
        if array is not None and suffix != ".npz":
            raise ValueError(f"expected an .npz archive, where arrays have names like {array!r}")
        if suffix == ".npy":
            if beside:
                raise ValueError(f"expected a table or .npz archive with a column {beside[0]!r}")
            values, columns = _arrays.map_npy(path), {}
        elif suffix == ".npz":
            with _arrays.archive(path) as archive:
                members = _arrays.members(archive)
                chosen = _tables.choose(array, [name for name in members if name not in beside])
                values = _arrays.read_member(archive, members, chosen)
                columns = {name: _arrays.read_member(archive, members, name) for name in beside}
        else:
            table = _tables.read_table(path, suffix, text=beside)
            columns = {name: _tables.column_of(table, name) for name in beside}
            values, names = _tables.matrix(table.drop_columns(list(columns)), classes)
        _check_values(values)
        if names is None and classes is not None:
            names = _tables.check_names(classes)
        if names is not None and len(names) != values.shape[-1]:
            raise ValueError(
                f"expected {len(names)} classes, one a name, got {values.shape[-1]} columns"
            )
        for name, column in columns.items():
            if column.shape != values.shape[:1]:
                raise ValueError(
                    f"{name!r}: expected shape [{len(values)}], one a row of soft labels, got "
                    f"{list(column.shape)}"
                )
        labels = columns[labels_column] if labels_column is not None else None
        where = _as_mask(columns[where_column], where_column) if where_column is not None else None
    return SoftLabelFile(values, names, labels, where)


def read_labels(
    path: str | os.PathLike[str],
    *,
    num_rows: int,
    num_classes: int,
    classes: Sequence[str] | None = None,
    column: str | None = None,
) -> np.ndarray:
    r"""Return the labels in a file, int32 `[N]` in −1 … C − 1, where −1 stands for unknown.

    A table of one column may have a first line that is no label: a header.

    Args:
      path: a `.npy`, `.npz`, `.csv`, `.tsv` or `.parquet` file of integers or class names.
      num_rows: N, how many there should be.
      num_classes: C.
      classes: the names of the C classes, needed where labels are names.
      column: which column, or array of an `.npz`; needed where there are several.

    Raises:
      ValueError: as `read_soft_labels` and `as_labels`; another number of labels than N.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "labels.csv"
    ...     _ = path.write_text("truth\ndog\n\ncat\n")
    ...     read_labels(path, num_rows=3, num_classes=2, classes=("cat", "dog"))
    array([ 1, -1,  0], dtype=int32)
    """
    path = Path(path)
    with _naming(path):
        suffix = _check_path(path)
        if suffix == ".npy":
            if column is not None:
                raise ValueError(f"expected a table or .npz archive with a column {column!r}")
            raw = _arrays.map_npy(path)
        elif suffix == ".npz":
            with _arrays.archive(path) as archive:
                members = _arrays.members(archive)
                raw = _arrays.read_member(archive, members, _tables.choose(column, [*members]))
        elif suffix == ".parquet" or column is not None:
            table = _tables.read_table(path, suffix, text=None)
            raw = _tables.column_of(
                table, _tables.choose(column, table.column_names, what="column")
            )
        else:
            raw = _one_column(path, suffix, num_rows, classes)
        return as_labels(raw, num_rows=num_rows, num_classes=num_classes, classes=classes)


def as_labels(
    raw: np.ndarray, *, num_rows: int, num_classes: int, classes: Sequence[str] | None = None
) -> np.ndarray:
    """Return labels as they stand in a file as int32 `[N]` in −1 … C − 1; −1 stands for unknown.

    Args:
      raw: `[N]` integers, or text: class names or integers, "" for unknown.
      num_rows: N, how many there should be.
      num_classes: C.
      classes: the names of the C classes, needed where labels are names.

    Raises:
      ValueError: another shape or dtype; a label out of range or no class's name, with its row;
        integers where class names are other integers, which could mean either.

    >>> as_labels(np.array(["dog", "", "0"]), num_rows=3, num_classes=2, classes=("cat", "dog"))
    array([ 1, -1,  0], dtype=int32)
    """
    if raw.shape != (num_rows,):
        raise ValueError(
            f"labels: expected shape [{num_rows}], one a row of soft labels, got {list(raw.shape)}"
        )
    places = {name: i for i, name in enumerate(classes or ())}
    if raw.dtype.kind in "iu":
        integers, as_integers = raw, True
    elif raw.dtype.kind in "OU":
        meanings = {text: _meaning(text, places) for text in dict.fromkeys(raw.tolist())}
        unknown = [text for text, meaning in meanings.items() if meaning is None]
        if unknown:
            row = raw.tolist().index(unknown[0])
            expected = "a class name or an integer" if places else "an integer (no names are known)"
            raise ValueError(
                f"labels: row {row}: expected {expected}, got {_tables.quote(unknown[0])}"
            )
        integers = np.array([meanings[text] for text in raw.tolist()], np.int64)
        as_integers = any(_tables.whole(text) not in (None, -1) for text in meanings)
    else:
        raise ValueError(f"labels: expected integers or class names, got dtype {raw.dtype}")
    # With classes called "1", "2", "3" the label 1 is the first to some, the second to others.
    clash = [name for name, i in places.items() if _tables.whole(name) not in (None, i)]
    if clash and as_integers:
        raise ValueError(
            f"labels: expected class names that are no integers, or each its own index; class "
            f"{places[clash[0]]} is called {_tables.quote(clash[0])}, so integers could mean either"
        )
    odd = (integers < -1) | (integers >= num_classes)
    if odd.any():
        row = int(np.argmax(odd))
        raise ValueError(
            f"labels: row {row}: expected a class in 0 … {num_classes - 1}, or -1 for unknown, "
            f"got {integers[row]}"
        )
    return integers.astype(np.int32)


def _meaning(text: str, places: dict[str, int]) -> int | None:
    """Return the class that a text stands for, -1 if unknown, or None if it stands for nothing."""
    if text == "":
        return -1
    return places[text] if text in places else _tables.whole(text)


def _one_column(
    path: Path, suffix: str, num_rows: int, classes: Sequence[str] | None
) -> np.ndarray:
    """Return the only column of a CSV file; a first line is a header if it can be no label."""
    table = _tables.read_csv(path, suffix, None, text=None)
    raw = _tables.column_of(table, _tables.choose(None, table.column_names, what="column"))
    if len(raw) != num_rows + 1:
        return raw
    if _tables.whole(raw[0]) is not None or raw[0] in ("", *(classes or ())):
        raise ValueError(
            f"expected {num_rows} labels, one a row of soft labels, got {len(raw)} lines, the "
            f"first of them, {_tables.quote(raw[0])}, either a label or a header"
        )
    return raw[1:]


def read_classes(path: str | os.PathLike[str]) -> tuple[str, ...]:
    r"""Return the class names in a text file, one a line, in index order.

    Args:
      path: a UTF-8 text file.

    Raises:
      ValueError: a file that is absent or not such text; names that are empty or double.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "classes.txt"
    ...     _ = path.write_text("cat\ndog\n")
    ...     read_classes(path)
    ('cat', 'dog')
    """
    path = Path(path)
    with _naming(path):
        _check_regular(path)
        with path.open("rb") as file:
            text = file.read(_tables.MAX_TEXT + 1)
        if len(text) > _tables.MAX_TEXT:
            raise ValueError("expected one class name a line, got more than a megabyte of text")
        return _tables.check_names(
            [name.strip(" \t") for name in text.decode("utf-8-sig").splitlines()]
        )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn whatever a reader says of a bad file into one `ValueError` of one line with the path."""
    try:
        yield
    except MemoryError:
        problem = "expected a file that fits in memory"
    except OSError as error:
        problem = f"expected a file to read, got: {error.strerror or error}"
    except csv.Error as error:
        problem = f"expected a table, got: {error}"
    except UnicodeError as error:
        problem = f"expected UTF-8 text, got: {error}"
    except ValueError as error:
        problem = str(error)
    else:
        return
    name = str(path) if len(str(path)) <= 200 else f"…{str(path)[-200:]}"
    raise ValueError(_tables.one_line(f"{name}: {problem}"))


def _check_path(path: Path) -> str:
    """Return the file's format; ValueError unless it is a file of a known one."""
    _check_regular(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"expected a file ending in {', '.join(FORMATS)}")
    if suffix not in (".npy", ".npz") and path.stat().st_size > _tables.MAX_BYTES:
        raise ValueError("expected a table below 4 GiB; an .npy file is memory-mapped")
    return suffix


def _check_regular(path: Path) -> None:
    # Anything else, a pipe say, can neither be memory-mapped nor asked for its length.
    if not path.is_file():
        raise ValueError(f"expected a file, got {'another thing' if path.exists() else 'none'}")
    if path.stat().st_size == 0:
        raise ValueError("expected a file with data, got an empty one")


def _check_values(values: np.ndarray) -> None:
    if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
        raise ValueError(f"expected numbers or booleans, got dtype {values.dtype}")
    if values.ndim not in (2, 3) or 0 in values.shape or values.shape[-1] < 2:
        raise ValueError(
            "expected shape [N, C], or [N, R, C] for R draws, with one row and two classes or "
            f"more, got {list(values.shape)}"
        )
    if values.shape[-1] > _tables.MAX_CLASSES:
        raise ValueError(f"expected at most {_tables.MAX_CLASSES} classes, got {values.shape[-1]}")


def _as_mask(column: np.ndarray, name: str | None) -> np.ndarray:
    """Return a column of booleans, of 0 and 1, or of such text, as booleans."""
    if column.dtype.kind == "b":
        return np.array(column)
    entries = column.tolist()
    words = np.array([str(entry).lower() for entry in entries], object)
    mask = np.isin(words, ["true", "1"])
    odd = ~mask & ~np.isin(words, ["false", "0"])
    if odd.any():
        row = int(np.argmax(odd))
        raise ValueError(
            f"{name!r}: row {row}: expected true or false, 1 or 0, got "
            f"{_tables.quote(entries[row])}"
        )
    return mask
