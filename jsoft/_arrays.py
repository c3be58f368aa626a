"""Arrays of soft labels, .npy and .npz, read without trust: nothing is unpickled or believed.

What a file says of its own size is checked against its length before anything is allocated;
`label_files`, which alone reads arrays, puts the path before the errors.
"""

from __future__ import annotations

import lzma
import math
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from jsoft import _tables


def _read_header(stream: IO[bytes], length: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, Fortran order and dtype of an .npy stream that is `length` bytes long."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        version = np.lib.format.read_magic(stream)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shape, fortran, dtype = readers[version](stream)
    except (OSError, zipfile.BadZipFile, zlib.error):  # the archive around it is damaged
        raise
    # The header is a Python literal, and what Python's parser raises on bad text has no end:
    # TokenError, RecursionError, IndentationError, …
    except Exception as error:
        raise ValueError(f"expected the header of an .npy array, got: {error}") from error
    if dtype.hasobject or dtype.kind not in "biufUcSVMm":
        raise ValueError("expected a plain array, got Python objects, which are never unpickled")
    if min(shape, default=1) < 0 or len(shape) > 32:
        raise ValueError(f"expected a shape, got {list(shape)}")
    claimed = dtype.itemsize
    for size in shape:
        claimed *= size
    if claimed != length - stream.tell():
        raise ValueError(
            f"expected {claimed} bytes for {dtype} of shape {list(shape)}, as the header claims, "
            f"got {length - stream.tell()}"
        )
    return shape, fortran, dtype


def map_npy(path: Path) -> np.ndarray:
    """Return the array in an .npy file, memory-mapped where it has any entries."""
    with path.open("rb") as file:
        shape, fortran, dtype = _read_header(file, path.stat().st_size)
        offset = file.tell()
    if 0 in shape or dtype.itemsize == 0:  # no memory to map
        return _empty(shape, dtype)
    order = "F" if fortran else "C"
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    # No bytes, and so no length of a file that a shape could be checked against.
    if math.prod(size for size in shape if size) * max(1, dtype.itemsize) > _tables.MAX_BYTES:
        raise ValueError(f"expected an array that fits in memory, got shape {list(shape)}")
    return np.empty(shape, dtype)


@contextmanager
def archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Yield an open .npz archive; whatever damage shows while it is read is a ValueError."""
    try:
        with zipfile.ZipFile(path) as opened:
            yield opened
    # What zipfile and its decompressors raise on damage; RuntimeError refuses encryption.
    except (
        OSError,
        EOFError,
        RuntimeError,
        UnicodeError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        raise ValueError(f"expected an .npz archive, got: {error}") from error


def members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return what is in an archive, by name."""
    infos = archive.infolist()
    named = {info.filename.removesuffix(".npy"): info for info in infos}
    if len(named) < len(infos):
        raise ValueError("expected arrays of different names, got one name twice")
    return named


def read_member(
    archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str
) -> np.ndarray:
    """Return the array of that name."""
    info = members[_tables.choose(name, [*members])]
    if info.file_size > _tables.MAX_BYTES:
        raise ValueError(f"array {name!r}: expected 4 GiB or less; an .npy file is memory-mapped")
    with archive.open(info) as stream:
        shape, fortran, dtype = _read_header(stream, info.file_size)
        data = stream.read()  # to the end, where the checksum is compared
    if 0 in shape or dtype.itemsize == 0:
        return _empty(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
