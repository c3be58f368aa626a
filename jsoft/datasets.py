"""Arrays in: the embedded digits, a prepared image classification set of TFDS, a user's own .npz.

`load` is the one door. Whatever the source, the answer is a `Dataset` of three `Split`s, cut at
random from a key, in which every row keeps its `index`: its position in the source. Labels that
live elsewhere (crowd counts, a teacher's outputs) are joined by it, never by the position in the
split:

    dataset = load("cifar10", data_dir=...)
    worst = np.load("cifar10n_train.npz")["worst"]  # in the order of the original files
    noisy = worst[dataset.train.index]              # in the order of dataset.train.images

All arrays are NumPy arrays on the host; nothing goes to a device before it is used. Catalogue
images stay `uint8`, so that a set stays small in memory; `training.fit` scales `uint8` images to
[0, 1] batch by batch. Float images are taken as they are.

Decoding tens of thousands of images takes a while, so decoded sets are kept, uncompressed, under
`$JSOFT_CACHE`, else `$XDG_CACHE_HOME/jsoft`, else `~/.cache/jsoft`. That folder may be deleted at
any time.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import os
import re
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jsoft import _door


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Rows that belong together: images, labels, their place in the source, perhaps soft labels.

    Args:
      images: float32 or uint8 [N, ...].
      labels: int32 [N], the class of each row.
      index: int32 [N], each row's position in the source; labels kept elsewhere are joined by it.
      soft_labels: float32 [N, C], or None where the source has none.

    Example:
      >>> load("digits").valid
      Split(images=float32[299, 8, 8, 1], labels=int32[299], index=int32[299], soft_labels=None)
    """

    # NumPy arrays as loaded, JAX arrays or tracers once they went through a transformation.
    images: Any
    labels: Any
    index: Any
    soft_labels: Any = None

    def __repr__(self) -> str:
        def show(leaf: Any) -> str:
            return f"{leaf.dtype}{list(leaf.shape)}" if hasattr(leaf, "dtype") else repr(leaf)

        fields = [f"{f.name}={show(getattr(self, f.name))}" for f in dataclasses.fields(self)]
        return f"Split({', '.join(fields)})"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Three splits of one source and its classes: a pytree whose leaves are the splits' arrays.

    Args:
      train: the rows to learn from.
      valid: the rows to choose by.
      test: the rows to report on.
      num_classes: C.
      name: what to call the set wherever results are reported.
      class_names: C names, in index order.

    Example:
      >>> load("digits", split="1:1:1")
      Dataset(digits: 599 train, 599 valid, 599 test, images float32[8, 8, 1], 10 classes)
    """

    train: Split
    valid: Split
    test: Split
    num_classes: int = dataclasses.field(metadata={"static": True})
    name: str = dataclasses.field(metadata={"static": True})
    class_names: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    def __repr__(self) -> str:
        # Leaves may be anything after a jax.tree.map; a repr that raises would hide the real error.
        shapes = [getattr(part.images, "shape", ()) for part in (self.train, self.valid, self.test)]
        sizes = [str(shape[0]) if shape else "?" for shape in shapes]
        images = f"{getattr(self.train.images, 'dtype', '?')}{list(shapes[0][1:])}"
        return (
            f"Dataset({self.name}: {sizes[0]} train, {sizes[1]} valid, {sizes[2]} test, "
            f"images {images}, {self.num_classes} classes)"
        )


def load(
    name: str | os.PathLike[str],
    *,
    split: str = "4:1:1",
    key: jax.Array | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Return the set called `name`, split into train, valid and test.

    `name` is one of

    - `"digits"`: scikit-learn's 1797 handwritten digits, float32 [N, 8, 8, 1] in [0, 1]. Nothing
      needs to be fetched or prepared.
    - a prepared image classification set of TFDS (`"mnist"`, `"cifar10"`, `"name/config"`,
      `"name:version"`), read without TensorFlow. Images are uint8 [N, H, W, channels];
      `training.fit` scales them to [0, 1] batch by batch. Rows stand in the order of the original
      files where their ids number them (as CIFAR's do), else in that of TFDS. A copy that says its
      images were re-encoded as JPEG is named so: "CIFAR-10 (JPEG)".
    - the path of an `.npz` archive that holds `images` [N, ...] (uint8 or finite floats, kept as
      float32), `labels` [N] (integers) and perhaps `soft_labels` [N, C] (finite floats); or
      `train_x, train_y, test_x, test_y`; or `x_train, y_train, x_test, y_test`. Images [N, H, W]
      become [N, H, W, 1]. C is the width of `soft_labels`, else the largest label plus one. Rows
      of soft labels need not sum to one here: the indicators only look at their order, and the
      losses check for themselves.

    A test set that comes with the source stays the test set, in its own order, and the other rows
    are split at random into train and valid by the first two numbers of `split`. A source without
    one is split at random in three. Sizes are rounded down; the last part takes the remainder.

    Args:
      name: "digits", a TFDS name, or the path of an .npz archive.
      split: the ratio train:valid:test in positive whole numbers.
      key: decides the random split; None means `jax.random.key(0)`, the same split for everybody.
      data_dir: the TFDS directory, for TFDS names; None means TFDS's own default.

    Raises:
      ValueError: for an unknown name (with near matches), a set that is not prepared (with the
        command that prepares it) or is not one of equally large uint8 images with one class each,
        an archive or arrays that break the rules above, a malformed `split`, too few rows.
      TypeError: for a `name` or `key` of another kind, and for arrays of another dtype.
      ImportError: for a TFDS name where TFDS is not installed.

    Example:
      >>> dataset = load("digits")
      >>> dataset
      Dataset(digits: 1198 train, 299 valid, 300 test, images float32[8, 8, 1], 10 classes)
      >>> parts = dataset.train.index, dataset.valid.index, dataset.test.index
      >>> bool((np.sort(np.concatenate(parts)) == np.arange(1797)).all())
      True
    """
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"name: expected a name or a path, got {name!r}")
    ratio = _parse_ratio(split)
    key = jax.random.key(0) if key is None else _check_key(key)
    if isinstance(name, os.PathLike) or name.endswith(".npz"):
        title, rows, test, class_names = _read_npz(Path(name).expanduser())
    elif name == "digits":
        title, rows, test, class_names = _read_digits()
    else:
        title, rows, test, class_names = _read_tfds(name, data_dir)

    if len(class_names) < 2:
        raise ValueError(f"{title}: expected two classes or more, got {len(class_names)}")
    if test is None:
        train, valid, test = _cut(rows, ratio, key)
    elif test.images.shape[1:] != rows.images.shape[1:] or test.images.dtype != rows.images.dtype:
        raise ValueError(f"{title}: expected test images like the others, got {rows} and {test}")
    else:
        train, valid = _cut(rows, ratio[:2], key)
    return Dataset(train, valid, test, len(class_names), title, tuple(class_names))


# What a source gives: its name, rows to split, its own test set if it has one, its classes' names.
_Source = tuple[str, Split, Split | None, Sequence[str]]


def _rows(images: np.ndarray, labels: np.ndarray, soft_labels: np.ndarray | None = None) -> Split:
    index = np.arange(len(labels), dtype=np.int32)
    return Split(images, labels.astype(np.int32, copy=False), index, soft_labels)


def _parse_ratio(split: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"0*([1-9][0-9]*):0*([1-9][0-9]*):0*([1-9][0-9]*)", str(split))
    if match is None:
        raise ValueError(f"split: expected positive whole numbers like '4:1:1', got {split!r}")
    train, valid, test = map(int, match.groups())
    return train, valid, test


def _check_key(key: Any) -> jax.Array:
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(f"key: expected one key from jax.random.key(seed), got {key!r}")
    if key.shape != ():
        raise TypeError(f"key: expected one key, got keys of shape {list(key.shape)}")
    return key


def _cut(rows: Split, ratio: Sequence[int], key: jax.Array) -> list[Split]:
    num_rows = len(rows.labels)
    sizes = [num_rows * part // sum(ratio) for part in ratio[:-1]]
    sizes.append(num_rows - sum(sizes))
    if 0 in sizes:
        raise ValueError(
            f"split: expected at least one example in every part, got {num_rows} rows, which "
            f"{':'.join(map(str, ratio))} cuts into {', '.join(map(str, sizes))}"
        )
    order = np.asarray(jax.random.permutation(key, num_rows))
    parts = np.split(order, np.cumsum(sizes)[:-1])
    return [jax.tree.map(lambda leaf, part=part: leaf[part], rows) for part in parts]


def _read_digits() -> _Source:
    from sklearn.datasets import load_digits  # slow to import, and needed here alone

    digits: Any = load_digits()
    images = (digits.images / 16).astype(np.float32)[..., None]  # [N, 8, 8, 1]
    names = [str(name) for name in digits.target_names]
    return "digits", _rows(images, digits.target), None, names


def _read_arrays(path: Path) -> dict[str, Any]:
    """Return an archive's arrays by name; ValueError unless they are whole, plain arrays."""
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    array = np.lib.format.read_array(file, allow_pickle=False)
                arrays[member.removesuffix(".npy")] = array
    # RuntimeError is how zipfile refuses encryption and unknown compression.
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: expected an .npz archive of plain arrays (numpy.savez), got: {error}"
        ) from error
    return arrays


_LAYOUTS = (
    ("images", "labels"),
    ("train_x", "train_y", "test_x", "test_y"),
    ("x_train", "y_train", "x_test", "y_test"),
)


def _check_rows(arrays: dict[str, Any], names: Sequence[str], num_classes: int) -> Split:
    images, labels = arrays[names[0]], arrays[names[1]]
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise TypeError(f"{names[0]}: expected uint8 or floats, got dtype {images.dtype}")
    if images.ndim < 2 or images.size == 0:
        raise ValueError(f"{names[0]}: expected shape [N, ...], got {list(images.shape)}")
    if images.dtype != np.uint8:
        images = _check_float32(names[0], images)
    _door.check_labels(names[1], labels, num_classes=num_classes, shape=images.shape[:1])
    return _rows(images[..., None] if images.ndim == 3 else images, labels)


def _check_float32(name: str, values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # beyond float32's range is infinite, and refused below
        values = values.astype(np.float32, copy=False)
    _door.check_finite(name, jnp.asarray(values).reshape(len(values), -1))
    return values


def _read_npz(path: Path) -> _Source:
    arrays = _read_arrays(path)
    layout = next((names for names in _LAYOUTS if set(names) <= set(arrays)), None)
    if layout is None:
        expected = " or ".join(", ".join(names) for names in _LAYOUTS)
        raise ValueError(f"{path}: expected the arrays {expected}, got {sorted(arrays)}")
    if "soft_labels" in arrays:
        soft_labels = arrays["soft_labels"]
        if len(layout) > 2:
            raise ValueError(f"{path}: soft_labels go with images, labels; got {sorted(arrays)}")
        _door.check_float("soft_labels", soft_labels)
        _door.check_classes("soft_labels", soft_labels, ndim=2)
        num_classes = soft_labels.shape[1]
        rows = _check_rows(arrays, layout, num_classes)
        if len(soft_labels) != len(rows.labels):
            raise ValueError(
                f"soft_labels: expected {len(rows.labels)} rows, one a label, "
                f"got {len(soft_labels)}"
            )
        soft_labels = _check_float32("soft_labels", soft_labels)
        rows, test = dataclasses.replace(rows, soft_labels=soft_labels), None
    else:
        # There cannot be more classes than rows: a larger label is an identifier, not a class.
        limit = arrays[layout[1]].size
        rows = _check_rows(arrays, layout[:2], limit)
        test = _check_rows(arrays, layout[2:], limit) if len(layout) > 2 else None
        num_classes = 1 + max(int(part.labels.max()) for part in (rows, test) if part is not None)
    return path.name, rows, test, [str(label) for label in range(num_classes)]


def _read_tfds(name: str, data_dir: str | os.PathLike[str] | None) -> _Source:
    try:
        import tensorflow_datasets as tfds  # slow to import; digits and .npz work without it
    except ImportError as error:
        raise ImportError(
            f"name: {name!r} is read by TFDS, which cannot be imported ({error}): pip install "
            "tensorflow-datasets importlib_resources array_record pillow. "
            "'digits' and the path of an .npz archive work without it"
        ) from error

    builder = _find_prepared(tfds, name, data_dir)
    info = builder.info
    title = _title(info)
    image, label = (dict(info.features.items()).get(feature) for feature in ("image", "label"))
    if not (
        isinstance(image, tfds.features.Image)
        and image.np_dtype == np.uint8
        and isinstance(label, tfds.features.ClassLabel)
    ):
        raise ValueError(
            f"name: expected the features image (uint8 Image) and label (ClassLabel), got {title} "
            f"with {info.features}"
        )
    if "train" not in info.splits:
        raise ValueError(f"name: expected a train split, got {title} with {[*info.splits]}")
    parts = [part for part in ("train", "test") if part in info.splits]
    try:
        sources = builder.as_data_source(parts)
    except NotImplementedError as error:
        raise ValueError(
            f"name: {title} is prepared as {info.file_format.value}, which only TensorFlow reads. "
            f"Remove {info.data_dir}, then\n  {_prepare_command(name, data_dir)}"
        ) from error

    stem = f"{info.full_name.replace('/', '-')}-{_fingerprint(Path(info.data_dir))}"
    splits = {}
    for part, source in zip(parts, sources, strict=True):
        cache = _cache_folder() / f"{stem}-{part}.npz"
        rows = splits[part] = _read_decoded(source, cache, f"{title} {part}")
        # Some catalogue sets mark rows whose class was never published with -1.
        _door.check_labels(f"{title} {part}: label", rows.labels, num_classes=len(label.names))
    return title, splits["train"], splits.get("test"), label.names


def _find_prepared(tfds: Any, name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    """Return the builder of a prepared set; ValueError that says how to go on where there is none.

    It is restored from the prepared files alone: the catalogue's own code may want TensorFlow, and
    describes the catalogue's set rather than the copy at hand.
    """
    parsed = re.fullmatch(r"([a-zA-Z]\w*)(/[\w.-]+)?(:[\d.*]+)?", name)
    if parsed:
        folder = None if data_dir is None else os.path.expanduser(data_dir)
        try:
            return tfds.core.read_only_builder.builder_from_files(name, data_dir=folder)
        except tfds.core.DatasetNotFoundError:
            pass  # either not prepared or not a set at all: told apart below
    catalogue = tfds.list_builders(with_community_datasets=False)
    if parsed and parsed[1].lower() in catalogue:
        where = "the default directory of TFDS" if data_dir is None else os.fspath(data_dir)
        raise ValueError(
            f"name: {name!r} is not prepared in {where}. This prepares it:\n"
            f"  {_prepare_command(name, data_dir)}\n'digits' works without"
        )
    near = difflib.get_close_matches(re.split("[/:]", name)[0].lower(), ["digits", *catalogue])
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise ValueError(
        f"name: expected 'digits', a TFDS name or the path of an .npz archive, got {name!r}{hint}"
    )


def _prepare_command(name: str, data_dir: str | os.PathLike[str] | None) -> str:
    # Not `tfds build`: that command fails where apache-beam is not installed as well. The format
    # is named because TFDS's default one, tfrecord, cannot be read without TensorFlow.
    where = "" if data_dir is None else f"data_dir={os.fspath(data_dir)!r}, "
    return (
        f"{sys.executable} -m pip install tensorflow && "
        f'{sys.executable} -c "import tensorflow_datasets as tfds; '
        f"tfds.builder({name!r}, {where}file_format='array_record').download_and_prepare()\""
    )


def _title(info: Any) -> str:
    # Only the copy itself can tell that its pixels are not the catalogue's, and its description
    # (dataset_info.json) is where it does. Sets that are JPEG by nature are not "re-encoded".
    if re.search(r"re-?encoded as JPEG", info.description):
        return re.sub(r"(?<=[a-z])(?=[0-9])", "-", info.name).upper() + " (JPEG)"
    return f"{info.name}/{info.config_name}" if info.config_name else info.name


def _cache_folder() -> Path:
    if folder := os.environ.get("JSOFT_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jsoft"


def _fingerprint(folder: Path) -> str:
    """Return sixteen hex digits that change whenever a file of `folder` does."""
    stats = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    return hashlib.sha256(repr(files).encode()).hexdigest()[:16]


def _read_decoded(source: Any, cache: Path, title: str) -> Split:
    """Return the rows of `source`, from `cache` where it has them, else decoded and kept there."""
    if cache.exists():
        try:
            arrays = _read_arrays(cache)
            shapes = [arrays[name].shape[:1] for name in ("images", "labels")]
            if shapes != [(len(source),)] * 2:
                raise ValueError(f"{cache}: expected {len(source)} rows, got {shapes}")
            return _rows(arrays["images"], arrays["labels"])
        except (KeyError, ValueError) as error:
            warnings.warn(f"damaged cache, decoding {title} again: {error}", stacklevel=2)

    images, labels = _decode(source, title)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        # Written aside and moved: what carries the cache's name is always whole.
        with tempfile.TemporaryDirectory(dir=cache.parent) as folder:
            np.savez(Path(folder) / cache.name, images=images, labels=labels)
            os.replace(Path(folder) / cache.name, cache)
    except OSError as error:
        warnings.warn(f"{title} will be decoded again next time: {error}", stacklevel=2)
    return _rows(images, labels)


def _decode(source: Any, title: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images [N, H, W, channels] and labels [N] in the order of the original files."""
    blocks, labels, ids = [], [], []
    description = f"decoding {title}"
    with tqdm(total=len(source), desc=description, unit=" images", disable=None) as bar:
        for start in range(0, len(source), 1000):
            rows = source.__getitems__(range(start, min(start + 1000, len(source))))
            expected = blocks[0].shape[1:] if blocks else rows[0]["image"].shape
            for row in rows:
                if row["image"].shape != expected:
                    raise ValueError(
                        f"name: expected images of one shape, got {title} with "
                        f"{list(expected)} and {list(row['image'].shape)}"
                    )
            blocks.append(np.stack([row["image"] for row in rows]))
            labels += [row["label"] for row in rows]
            ids += [row.get("id") for row in rows]
            bar.update(len(rows))
    images, labels = np.concatenate(blocks), np.asarray(labels, np.int32)

    # "train_16399" stands at 16399 in the original files, where the ids count all of 0 … N − 1.
    digits = [re.search(rb"[0-9]+$", id) if isinstance(id, bytes) else None for id in ids]
    places = [int(match[0]) if match else -1 for match in digits]
    if sorted(places) == list(range(len(places))):
        order = np.argsort(places)
        images, labels = images[order], labels[order]
    return images, labels
