"""Files in: every format gives the same arrays, and what is wrong is refused with its place."""

import io
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from jsoft import label_files
from jsoft.label_files import as_labels, read_classes, read_labels, read_soft_labels

RNG = np.random.default_rng(0)
NAMES = ("cat", "dog", "Ελλάς, 猫")
VALUES = RNG.dirichlet(np.ones(3), 30)
LABELS = RNG.integers(3, size=30)
NAMED = np.array(NAMES)[LABELS]
KEPT = RNG.random(30) < 0.5


def write(path, values, names=None, **columns):
    """Write soft labels, and columns beside them, in the format that the path's name asks for."""
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez_compressed(path, soft=values, **columns)
    else:
        names = names or [f"class {i}" for i in range(values.shape[1])]
        table = pa.table({**dict(zip(names, values.T, strict=True)), **columns})
        if path.suffix == ".parquet":
            pq.write_table(table, path)
        else:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            pyarrow.csv.write_csv(table, path, pyarrow.csv.WriteOptions(delimiter=delimiter))
    return path


def refusal(read, *args, **options):
    """Return what a reader says of a bad file: one line, never long."""
    with pytest.raises(ValueError, match="expected") as error:
        read(*args, **options)
    message = str(error.value)
    assert message.isprintable()
    assert len(message) < 600
    return message


@pytest.mark.parametrize("suffix", label_files.FORMATS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8, bool])
def test_every_format_gives_the_same_numbers(tmp_path, suffix, dtype):
    values = (VALUES * 10).astype(dtype)
    file = read_soft_labels(write(tmp_path / f"soft{suffix}", values))
    np.testing.assert_array_equal(file.values.astype(dtype), values)  # float32 has short decimals
    assert (file.values.dtype == bool) == (dtype is bool)
    named = suffix in (".csv", ".tsv", ".parquet")
    assert file.classes == (("class 0", "class 1", "class 2") if named else None)
    assert file.labels is None
    assert file.where is None


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("labels", [LABELS, NAMED], ids=["integers", "names"])
def test_labels_and_mask_stand_beside_the_soft_labels(tmp_path, suffix, labels):
    path = write(tmp_path / f"soft{suffix}", VALUES, NAMES, truth=labels, keep=KEPT)
    file = read_soft_labels(path, labels_column="truth", where_column="keep")
    np.testing.assert_array_equal(file.values, VALUES)
    got = as_labels(file.labels, num_rows=30, num_classes=3, classes=NAMES)
    np.testing.assert_array_equal(got, LABELS)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(file.where, KEPT)
    same = read_labels(path, num_rows=30, num_classes=3, classes=NAMES, column="truth")
    np.testing.assert_array_equal(same, LABELS)


def test_npy_is_memory_mapped_in_both_orders(tmp_path):
    for values in (VALUES, np.asfortranarray(VALUES), VALUES.reshape(10, 3, 3)):
        got = read_soft_labels(write(tmp_path / "soft.npy", values)).values
        assert isinstance(got, np.memmap)
        assert not got.flags.writeable
        np.testing.assert_array_equal(got, values)


def test_npz_needs_a_name_where_there_are_several(tmp_path):
    path = write(tmp_path / "soft.npz", VALUES, other=VALUES[:5], truth=LABELS)
    np.testing.assert_array_equal(read_soft_labels(path, array="other").values, VALUES[:5])
    message = refusal(read_soft_labels, path, labels_column="truth")
    assert "expected one array, or the name of one, got 'soft', 'other'" in message
    assert "expected array 'x'" in refusal(read_soft_labels, path, array="x")
    draws = write(tmp_path / "draws.npz", VALUES.reshape(10, 3, 3))
    assert read_soft_labels(draws).values.shape == (10, 3, 3)


def test_tables_without_names(tmp_path):
    path = tmp_path / "soft.csv"
    np.savetxt(path, VALUES, delimiter=",", fmt="%.17g")
    file = read_soft_labels(path)
    np.testing.assert_array_equal(file.values, VALUES)
    assert file.classes is None
    assert read_soft_labels(path, classes=NAMES).classes == NAMES
    assert "expected 2 classes, one a name, got 3" in refusal(
        read_soft_labels, path, classes=NAMES[:2]
    )


def test_class_names_choose_columns(tmp_path):
    for suffix in (".csv", ".parquet"):
        path = write(tmp_path / f"soft{suffix}", VALUES, NAMES, id=np.arange(30))
        file = read_soft_labels(path, classes=("dog", "cat"))
        assert file.classes == ("dog", "cat")
        np.testing.assert_array_equal(file.values, VALUES[:, [1, 0]])
        message = refusal(read_soft_labels, path)
        assert "column 3 ('id'): expected soft labels, got row numbers" in message
        assert "expected column 'cow'" in refusal(read_soft_labels, path, classes=("cat", "cow"))


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 3)])
def test_parquet_column_of_lists(tmp_path, kind):
    path = tmp_path / "soft.parquet"
    column = pa.array(VALUES.astype(np.float32).tolist(), kind)
    pq.write_table(pa.table({"logits": column, "truth": LABELS}), path, row_group_size=7)
    file = read_soft_labels(path, labels_column="truth", classes=NAMES)
    np.testing.assert_array_equal(file.values, VALUES.astype(np.float32))
    assert file.classes == NAMES
    assert "expected numbers or booleans, got" in refusal(read_soft_labels, path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0, 2.0], [1.0]], "row 1: expected 2 numbers, as in row 0, got 1"),
        ([[1.0, 2.0], None], "row 1: expected 2 numbers"),
        ([None, [1.0, 2.0]], "row 0: expected"),
        ([[1.0, 2.0], [1.0, None]], "row 1, column 1: expected a number, got nothing"),
        ([[], []], "expected numbers or booleans, got null"),
        ([["a", "b"]], "expected numbers or booleans, got string"),
        ([[[1.0, 2.0]]], "expected numbers or booleans, got list"),
    ],
)
def test_parquet_lists_that_are_no_rows(tmp_path, rows, message):
    path = tmp_path / "soft.parquet"
    pq.write_table(pa.table({"soft": rows}), path)
    assert message in refusal(read_soft_labels, path)


def test_parquet_columns_that_are_no_numbers(tmp_path):
    path = tmp_path / "soft.parquet"
    for column, message in {
        "text": (["a", "b"], "column 1 ('dog'): expected numbers or booleans, got string"),
        "null": ([0.5, None], "row 1, column 1 ('dog'): expected a number, got nothing"),
    }.values():
        pq.write_table(pa.table({"cat": [0.5, 1], "dog": column}), path)
        assert message in refusal(read_soft_labels, path)
    pq.write_table(pa.table({}), path)
    assert "expected one row or more" in refusal(read_soft_labels, path)


CSV = {
    "ragged": ("a,b\n1,2\n3\n", "row 1: expected 2 columns, got 1"),
    "ragged, no names": ("1,2\n1,2,3\n", "row 1: expected 2 columns, got 3"),
    "word": ("a,b\n1,2\n3,x\n", "row 1, column 1 ('b'): expected a number, got 'x'"),
    "word, no names": ("1,2\n3,x\n", "row 1, column 1: expected a number, got 'x'"),
    "empty cell": ("a,b\n1,2\n,4\n", "row 1, column 0 ('a'): expected a number, got nothing"),
    "empty line": ("a,b\n1,2\n\n3,4\n", "row 1, column 0 ('a'): expected a number"),
    "slip in the first line": ("0.5,O.5\n0.5,0.5\n", "expected class names or numbers, got both"),
    "counted header": ("0,1,2\n3,1,0\n", "got 0 … 2, which could be either"),
    "double names": ("a,b,a\n1,2,3\n", "class 2: expected a name of its own, got 'a'"),
    "empty name": ("a,,b\n1,2,3\n", "class 1: expected a printable name, got ''"),
    "escape in a name": ("a,\x1b[31mb\n1,2\n", "class 1: expected a printable name"),
    "header alone": ("a,b\n", "expected rows below the header"),
    "no text": ("\n", "expected class names or numbers, got an empty line"),
    "one column": ("a\n1\n2\n", "two classes or more, got [2, 1]"),
    "open quote": ('a,"b\n1,2\n', "expected a table, got: unexpected end of data"),
    "line end of its own": ("a,b\x0b1\n3,4\n", "class 1: expected a printable name"),
    "NUL": ("a,b\0\n1,2\n", "expected UTF-8 text"),
    "truth value among numbers": ("a,b\ntrue,1\n0.5,1\n", "row 1, column 0 ('a'): expected true"),
    "semicolons": ("0,5;0,5\n0,3;0,7\n", "column 1 ('5;0'): expected a number, got '3;0'"),
}


@pytest.mark.parametrize(("text", "message"), CSV.values(), ids=CSV.keys())
def test_csv_that_is_no_table(tmp_path, text, message):
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        path = tmp_path / f"soft{suffix}"
        path.write_text(text.replace(",", delimiter))
        got = refusal(read_soft_labels, path)
        assert message in got
        assert got.startswith(f"{path}: ")


def test_csv_words_for_truth_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "sets.csv"
    path.write_bytes("\ufeffa, b\r\nTrue,false\r\nfalse,TRUE\r\n".encode())
    file = read_soft_labels(path)
    assert file.classes == ("a", "b")
    assert file.values.dtype == bool
    assert file.values.tolist() == [[True, False], [False, True]]
    path.write_bytes("é,b\n1,2\n".encode("latin-1"))
    assert "expected UTF-8 text" in refusal(read_soft_labels, path)
    path.write_bytes("é,b\n1,2\n".encode("utf-16"))
    assert "expected" in refusal(read_soft_labels, path)


def npy(shape, dtype="<f8", data=b"", version=(1, 0)):
    """Return an .npy file that claims a shape, whatever it holds."""
    stream = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    text = stream.getvalue()
    return text[:6] + bytes(version) + text[8:] + data


ARRAYS = {
    "absurd": (
        npy((10**15, 10)),
        "expected 80000000000000000 bytes for float64 of shape [1000000000000000, 10]",
    ),
    "overflowing": (npy((2**62, 8), data=bytes(64)), "expected 295147905179352825856 bytes"),
    "negative": (npy((-1, 2), data=bytes(16)), "expected a shape, got [-1, 2]"),
    "truncated": (
        npy((3, 2), data=bytes(40)),
        "expected 48 bytes for float64 of shape [3, 2], as the header claims, got 40",
    ),
    "something behind": (
        npy((3, 2), data=bytes(56)),
        "expected 48 bytes for float64 of shape [3, 2], as the header claims, got 56",
    ),
    "pickled objects": (npy((1, 2), "|O", bytes(8)), "never unpickled"),
    "text": (npy((1, 2), "<U1", bytes(8)), "expected numbers or booleans, got dtype <U1"),
    "complex": (npy((1, 2), "<c16", bytes(32)), "expected numbers or booleans, got dtype complex"),
    "long double": (npy((1, 2), "<f16", bytes(32)), "expected numbers or booleans, got"),
    "one class": (npy((3, 1), data=bytes(24)), "two classes or more, got [3, 1]"),
    "no rows": (npy((0, 3)), "one row and two classes or more, got [0, 3]"),
    "no rows of endless length": (npy((2**62, 0, 8)), "expected an array that fits in memory"),
    "entries of no bytes": (npy((2**62, 9), "|V0"), "expected an array that fits in memory"),
    "more axes than there can be": (npy((1,) * 70, data=bytes(8)), "expected a shape, got [1, 1"),
    "labels": (npy((3,), data=bytes(24)), "got [3]"),
    "four axes": (npy((1, 1, 1, 2), data=bytes(16)), "got [1, 1, 1, 2]"),
    "classes without end": (npy((1, 20000), "|u1", bytes(20000)), "at most 10000 classes"),
    "another version": (npy((1, 2), data=bytes(16), version=(9, 0)), "expected the header"),
    "no header": (b"\x93NUMPY", "expected the header"),
    "no array": (b"PK no array at all", "expected the header"),
    "nested header": (b"\x93NUMPY\x01\x00\x88\x13" + b"(" * 5000, "expected the header"),
    "empty": (b"", "expected a file with data"),
}


@pytest.mark.parametrize(("data", "message"), ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays_that_are_none(tmp_path, data, message):
    path = tmp_path / "soft.npy"
    path.write_bytes(data)
    assert message in refusal(read_soft_labels, path)
    if data:
        archive = tmp_path / "soft.npz"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("soft.npy", data)
        assert message in refusal(read_soft_labels, archive)


def test_archives_that_are_none(tmp_path):
    path = write(tmp_path / "soft.npz", VALUES)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(ValueError, match=r"soft\.npz: expected an .npz archive, got"):
        read_soft_labels(path)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    with pytest.raises(ValueError, match=r"soft\.npz: expected an .npz archive, got"):
        read_soft_labels(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", npy((1, 2), data=bytes(16)))
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a", npy((1, 2), data=bytes(16)))
    assert "got one name twice" in refusal(read_soft_labels, path)
    with zipfile.ZipFile(path, "w"):
        pass
    assert "expected one array, or the name of one, got none" in refusal(read_soft_labels, path)


def test_a_small_archive_that_claims_to_be_large_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(label_files._tables, "MAX_BYTES", 10_000)
    path = tmp_path / "soft.npz"
    np.savez_compressed(path, soft=np.zeros((10_000, 2)))
    assert path.stat().st_size < 1000
    assert "expected 4 GiB or less" in refusal(read_soft_labels, path)
    table = tmp_path / "soft.parquet"
    pq.write_table(pa.table({"a": np.zeros(10_000), "b": np.zeros(10_000)}), table)
    assert table.stat().st_size < 5000
    assert "expected a table below 4 GiB" in refusal(read_soft_labels, table)
    pq.write_table(pa.table({"a": [[0.0] * 10_000]}), table)
    assert "expected a table below 4 GiB" in refusal(read_soft_labels, table)


def test_a_damaged_parquet_footer_never_ends_the_process(tmp_path):
    path = write(tmp_path / "soft.parquet", VALUES[:4], ("a", "b", "c"))
    data = path.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    refused = 0
    for place in range(footer, len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 2]) + data[place + 1 :])
        try:
            read_soft_labels(path)
        except ValueError as error:
            assert "expected" in str(error)  # noqa: PT017
            refused += 1
    assert refused > (len(data) - footer) / 4


def test_paths_that_are_no_files(tmp_path):
    for path, message in {
        tmp_path / "absent.npy": "expected a file, got none",
        tmp_path: "expected a file, got another thing",
        tmp_path / ("x" * 300 + ".npy"): "File name too long",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_soft_labels(path)
    other = tmp_path / "soft.pkl"
    other.write_bytes(b"x")
    assert "expected a file ending in .npy, .npz" in refusal(read_soft_labels, other)


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_options_of_other_formats(tmp_path, suffix):
    path = write(tmp_path / f"soft{suffix}", VALUES)
    assert "expected an .npz archive" in refusal(read_soft_labels, path, array="soft")
    message = refusal(read_soft_labels, path, labels_column="truth")
    assert "column 'truth'" in message


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (np.arange(30), "'keep': row 2: expected true or false, 1 or 0, got 2"),
        (np.full(30, "maybe"), "'keep': row 0: expected true or false, 1 or 0, got 'maybe'"),
        (np.full(30, 0.5), "'keep'"),
    ],
)
def test_mask_of_other_things(tmp_path, column, message):
    for suffix in (".npz", ".parquet", ".csv"):
        path = write(tmp_path / f"soft{suffix}", VALUES, keep=column)
        assert message.split(":")[0] in refusal(read_soft_labels, path, where_column="keep")
    short = write(tmp_path / "soft.npz", VALUES, keep=np.ones(29, bool))
    assert "expected shape [30]" in refusal(read_soft_labels, short, where_column="keep")


def labels_from(tmp_path, text, **options):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return read_labels(
        path, **{"num_rows": 3, "num_classes": 2, "classes": ("cat", "dog")} | options
    )


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("0\n1\n0\n", [0, 1, 0]),
        ("truth\n0\n1\n0", [0, 1, 0]),
        ("cat\ndog\ncat\n", [0, 1, 0]),
        ("truth\n cat\n\n-1\n", [0, -1, -1]),
        ("\ndog\n1\n", [-1, 1, 1]),
        ('"cat"\r\n"dog"\r\n"dog"\r\n', [0, 1, 1]),
    ],
)
def test_labels_as_text(tmp_path, text, labels):
    got = labels_from(tmp_path, text)
    assert got.dtype == np.int32
    assert got.tolist() == labels


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("0\n1\n", {}, "expected shape [3], one a row of soft labels, got [2]"),
        ("0\n1\n0\n1\n", {}, "got 4 lines, the first of them, '0', either a label or a header"),
        ("cat\n1\n0\n1\n", {}, "either a label or a header"),
        ("0\n1\n2\n", {}, "row 2: expected a class in 0 … 1, or -1 for unknown, got 2"),
        ("0\n1\n-2\n", {}, "row 2: expected a class in 0 … 1"),
        ("0\n1\ncow\n", {}, "row 2: expected a class name or an integer, got 'cow'"),
        ("0\n\x1e1\n0\n", {}, "row 1: expected a class name or an integer, got '\\x1e1'"),
        ("0\n1.0\n0\n", {}, "row 1: expected a class name or an integer, got '1.0'"),
        ("cat\n1\n0\n", {"classes": None}, "row 0: expected an integer (no names are known)"),
        ("0\n99999999999999999999\n0\n", {}, "row 1: expected a class name or an integer"),
        ("1\n2\n1\n", {"classes": ("1", "2")}, "class 0 is called '1'"),
        ("a,b\n1,2\n", {}, "expected one column, or the name of one"),
        ("a,b\n1,2\n", {"column": "c"}, "expected column 'c', got 'a', 'b'"),
    ],
)
def test_labels_that_are_none(tmp_path, text, options, message):
    assert message in refusal(labels_from, tmp_path, text, **options)


def test_labels_in_arrays(tmp_path):
    path = tmp_path / "labels.npy"
    known = {"num_rows": 3, "num_classes": 2, "classes": ("cat", "dog")}
    for values, labels in [
        (np.array([1, 0, -1], np.int8), [1, 0, -1]),
        (np.array([1, 0, 1], np.uint64), [1, 0, 1]),
        (np.array(["dog", "cat", ""]), [1, 0, -1]),
    ]:
        np.save(path, values)
        assert read_labels(path, **known).tolist() == labels
    for values, message in [
        (np.array([1.0, 0.0, 1.0]), "expected integers or class names, got dtype float64"),
        (np.array([True, False, True]), "expected integers or class names, got dtype bool"),
        (np.array([0, 1, 2**64 - 1], np.uint64), "row 2: expected a class in 0 … 1"),
        (np.eye(3, 2, dtype=int), "expected shape [3], one a row of soft labels, got [3, 2]"),
    ]:
        np.save(path, values)
        assert message in refusal(read_labels, path, **known)


def test_labels_in_parquet_may_be_missing_or_categorical(tmp_path):
    path = tmp_path / "labels.parquet"
    known = {"num_rows": 3, "num_classes": 2, "classes": ("cat", "dog")}
    for column in (
        pa.array([1, None, 0]),
        pa.array(["dog", None, "cat"]),
        pa.array(["dog", None, "cat"]).dictionary_encode(),
    ):
        pq.write_table(pa.table({"truth": column}), path)
        assert read_labels(path, **known).tolist() == [1, -1, 0]
    pq.write_table(pa.table({"truth": [0.5, 1, 0]}), path)
    assert "expected integers, text or booleans, got double" in refusal(read_labels, path, **known)


def test_class_names_in_a_text_file(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffcat\r\n dog \r\nΕλλάς, 猫".encode())
    assert read_classes(path) == NAMES
    for data, message in {
        b"": "expected a file with data",
        b"cat\n\ndog\n": "class 1: expected a printable name, got ''",
        b"cat\ncat\n": "class 1: expected a name of its own, got 'cat', the name of class 0",
        b"cat\x00\n": "class 0: expected a printable name",
        b"x" * 2_000_000: "more than a megabyte",
    }.items():
        path.write_bytes(data)
        assert message in refusal(read_classes, path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match="expected UTF-8 text"):
        read_classes(path)
