import io
import json
import os
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jsoft import datasets

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JSOFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def sorted_index(*parts):
    return np.sort(np.concatenate([part.index for part in parts]))


# ---- digits


def test_digits_has_the_sizes_of_the_ratio_and_values_in_the_unit_interval():
    data = datasets.load("digits")
    assert [len(part.labels) for part in (data.train, data.valid, data.test)] == [1198, 299, 300]
    assert data.train.images.shape == (1198, 8, 8, 1)
    assert data.train.images.dtype == np.float32
    assert data.train.labels.dtype == data.train.index.dtype == np.int32
    assert data.train.images.min() == 0
    assert data.train.images.max() == 1
    assert data.train.soft_labels is None
    assert (data.num_classes, data.name) == (10, "digits")
    assert data.class_names == tuple("0123456789")


def test_every_source_row_appears_once_and_index_says_which_one_it_is():
    from sklearn.datasets import load_digits

    source = load_digits()
    data = datasets.load("digits", split="3:2:1", key=jax.random.key(7))
    parts = (data.train, data.valid, data.test)
    np.testing.assert_array_equal(sorted_index(*parts), np.arange(1797))
    for part in parts:
        np.testing.assert_array_equal(part.labels, source.target[part.index])
        np.testing.assert_allclose(part.images[..., 0], source.images[part.index] / 16)


def test_the_key_decides_the_split_and_none_means_key_zero():
    index = [
        datasets.load("digits", key=key).train.index
        for key in (None, jax.random.key(0), jax.random.key(1))
    ]
    np.testing.assert_array_equal(index[0], index[1])
    assert set(index[0]) != set(index[2])


def test_a_dataset_is_a_pytree_of_its_arrays_with_a_short_repr():
    data = datasets.load("digits")
    assert len(jax.tree.leaves(data)) == 9
    doubled = jax.tree.map(lambda leaf: 2 * leaf, data)
    assert (doubled.name, doubled.num_classes) == ("digits", 10)
    np.testing.assert_array_equal(doubled.test.images, 2 * data.test.images)
    assert repr(data) == (
        "Dataset(digits: 1198 train, 299 valid, 300 test, images float32[8, 8, 1], 10 classes)"
    )
    assert str(data.test) == (
        "Split(images=float32[300, 8, 8, 1], labels=int32[300], index=int32[300], soft_labels=None)"
    )
    assert "?" in repr(jax.tree.map(lambda leaf: None, data))


@pytest.mark.parametrize("split", ["4:1", "4:1:0", "0:1:1", "4:1:1:1", "a:b:c", "4:-1:1", "", 411])
def test_a_malformed_split_is_refused(split):
    with pytest.raises(ValueError, match="split: expected positive whole numbers"):
        datasets.load("digits", split=split)


def test_a_split_that_leaves_a_part_empty_is_refused():
    with pytest.raises(ValueError, match="at least one example in every part, got 1797 rows"):
        datasets.load("digits", split="9999:1:1")


@pytest.mark.parametrize("key", [0, np.zeros(2, np.uint32), jax.numpy.zeros(2, np.uint32)])
def test_a_key_of_another_kind_is_refused(key):
    with pytest.raises(TypeError, match=r"key: expected one key from jax.random.key"):
        datasets.load("digits", key=key)


def test_several_keys_are_refused():
    with pytest.raises(TypeError, match=r"key: expected one key, got keys of shape \[2\]"):
        datasets.load("digits", key=jax.random.split(jax.random.key(0)))


def test_a_name_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="name: expected a name or a path, got 3"):
        datasets.load(3)


# ---- .npz


def archive(path, **arrays):
    np.savez(path, **arrays)
    return path


def good(num_rows=12, **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "images": rng.random((num_rows, 4, 5)),
        "labels": np.arange(num_rows) % 3,
        "soft_labels": rng.random((num_rows, 4)),
    }
    arrays |= changes
    return {name: array for name, array in arrays.items() if array is not None}


@pytest.mark.parametrize("kind", [str, Path])
def test_npz_rows_stay_together_through_the_split(tmp_path, kind):
    arrays = good()
    data = datasets.load(kind(archive(tmp_path / "mine.npz", **arrays)))
    assert (data.name, data.num_classes, data.class_names) == ("mine.npz", 4, ("0", "1", "2", "3"))
    parts = (data.train, data.valid, data.test)
    assert [len(part.labels) for part in parts] == [8, 2, 2]
    np.testing.assert_array_equal(sorted_index(*parts), np.arange(12))
    for part in parts:
        assert part.images.shape[1:] == (4, 5, 1)
        assert part.images.dtype == part.soft_labels.dtype == np.float32
        np.testing.assert_array_equal(part.images[..., 0], np.float32(arrays["images"])[part.index])
        np.testing.assert_array_equal(part.labels, arrays["labels"][part.index])
        np.testing.assert_array_equal(
            part.soft_labels, np.float32(arrays["soft_labels"])[part.index]
        )


def test_npz_without_soft_labels_counts_classes_by_the_largest_label(tmp_path):
    labels = np.asarray([0, 4] * 6, np.uint8)
    data = datasets.load(archive(tmp_path / "x.npz", **good(labels=labels, soft_labels=None)))
    assert data.num_classes == 5
    assert data.train.soft_labels is None


@pytest.mark.parametrize("shape", [(12, 7), (12, 4, 5, 3)], ids=["features", "colour"])
def test_npz_images_of_other_ranks_keep_their_shape_and_uint8_stays(tmp_path, shape):
    images = np.zeros(shape, np.uint8)
    data = datasets.load(archive(tmp_path / "x.npz", **good(images=images)))
    assert data.train.images.shape == (8, *shape[1:])
    assert data.train.images.dtype == np.uint8


@pytest.mark.parametrize("form", ["{}_{}", "{1}_{0}"], ids=["train_x", "x_train"])
def test_a_given_test_set_stays_the_test_set(tmp_path, form):
    x, y = np.arange(40, dtype=np.uint8).reshape(10, 2, 2), np.arange(10) % 2
    arrays = {}
    for part, rows in [("train", slice(0, 6)), ("test", slice(6, 10))]:
        arrays[form.format(part, "x")], arrays[form.format(part, "y")] = x[rows], y[rows]
    data = datasets.load(archive(tmp_path / "x.npz", **arrays), split="2:1:5")
    assert [len(part.labels) for part in (data.train, data.valid, data.test)] == [4, 2, 4]
    np.testing.assert_array_equal(sorted_index(data.train, data.valid), np.arange(6))
    np.testing.assert_array_equal(data.train.images[..., 0], x[data.train.index])
    np.testing.assert_array_equal(data.test.images[..., 0], x[6:])
    np.testing.assert_array_equal(data.test.index, np.arange(4))
    assert data.num_classes == 2


NAN = np.full((12, 4), np.nan)
FAR = np.full((12, 4, 5), 1e300)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": None}, ValueError, r"expected the arrays images, labels or .* got \['labels'"),
        ({"labels": None}, ValueError, r"expected the arrays .* got \['images', 'soft_labels'\]"),
        ({"images": np.ones((12, 4), int)}, TypeError, "images: expected uint8 or floats, got dty"),
        ({"images": np.ones(12)}, ValueError, r"images: expected shape \[N, ...\], got \[12\]"),
        ({"images": np.ones(())}, ValueError, r"images: expected shape \[N, ...\], got \[\]"),
        ({"images": np.ones((12, 0))}, ValueError, r"images: expected shape .* got \[12, 0\]"),
        ({"images": NAN}, ValueError, r"images: expected finite numbers, .* row \[0\]"),
        ({"images": FAR}, ValueError, "images: expected finite numbers"),
        ({"labels": np.ones(11, int)}, ValueError, r"labels: expected shape \[12\], got \[11\]"),
        ({"labels": np.ones((12, 1), int)}, ValueError, r"labels: expected shape \[12\], got"),
        ({"labels": np.ones(12)}, TypeError, "labels: expected integer class indices, got dtype f"),
        ({"labels": np.ones(12, bool)}, TypeError, "labels: expected integer .* got dtype bool"),
        ({"labels": np.full(12, -1)}, ValueError, r"labels: expected classes in 0 … 3, got -1"),
        ({"labels": np.full(12, 4)}, ValueError, r"labels: expected classes in 0 … 3, got 4"),
        ({"labels": np.full(12, 2**32)}, ValueError, r"0 … 3, got 4294967296"),
        ({"soft_labels": NAN}, ValueError, "soft_labels: expected finite numbers, got NaN"),
        ({"soft_labels": np.ones((12, 4), int)}, TypeError, "soft_labels: expected floating-point"),
        ({"soft_labels": np.ones(12)}, ValueError, r"soft_labels: expected shape \[N, C\], got"),
        ({"soft_labels": np.ones((12, 1))}, ValueError, "soft_labels: expected two classes or mor"),
        ({"soft_labels": np.ones((11, 4))}, ValueError, "soft_labels: expected 12 rows, .* got 11"),
        ({"soft_labels": None, "labels": np.zeros(12, int)}, ValueError, "two classes or more"),
        ({"soft_labels": None, "labels": np.full(12, 12)}, ValueError, r"in 0 … 11, got 12"),
        (
            {"labels": np.asarray([None] * 12)},
            ValueError,
            "archive of plain arrays .*Object arrays",
        ),
    ],
)
def test_bad_arrays_are_refused(tmp_path, changes, error, message):
    path = archive(tmp_path / "bad.npz", **good(**changes))
    with pytest.raises(error, match=message):
        datasets.load(path)


def test_soft_labels_beside_a_given_test_set_are_refused(tmp_path):
    x, y = np.zeros((6, 3), np.uint8), np.arange(6)
    arrays = {"train_x": x, "train_y": y, "test_x": x, "test_y": y, "soft_labels": np.eye(6)}
    with pytest.raises(ValueError, match="soft_labels go with images, labels; got"):
        datasets.load(archive(tmp_path / "x.npz", **arrays))


def test_test_images_of_another_shape_are_refused(tmp_path):
    x, y = np.zeros((6, 3), np.uint8), np.arange(6)
    arrays = {"train_x": x, "train_y": y, "test_x": x[:, :2], "test_y": y}
    with pytest.raises(ValueError, match=r"expected test images like the others, .*\[6, 2\]"):
        datasets.load(archive(tmp_path / "x.npz", **arrays))


def test_too_few_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got 5 rows, which 4:1:1 cuts into 3, 0, 2"):
        datasets.load(archive(tmp_path / "x.npz", **good(5)))


def test_files_that_are_no_archive_are_refused(tmp_path):
    missing = tmp_path / "missing.npz"
    with pytest.raises(ValueError, match=r"missing.npz: expected an .npz archive .* No such file"):
        datasets.load(missing)
    text = tmp_path / "text.npz"
    text.write_text("no zip")
    with pytest.raises(ValueError, match=r"expected an .npz archive .* not a zip file"):
        datasets.load(str(text))
    foreign = tmp_path / "foreign.npz"
    with zipfile.ZipFile(foreign, "w") as file:
        file.writestr("images.npy", b"no array")
    with pytest.raises(ValueError, match=r"expected an .npz archive of plain arrays"):
        datasets.load(foreign)
    cut = archive(tmp_path / "cut.npz", **good())
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"expected an .npz archive of plain arrays"):
        datasets.load(cut)


# ---- TFDS


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def example(image, label, **extra):
    from tensorflow_datasets.proto import tf_example_pb2

    row = tf_example_pb2.Example()
    row.features.feature["image"].bytes_list.value.append(png(image))
    row.features.feature["label"].int64_list.value.append(label)
    for name, value in extra.items():
        row.features.feature[name].bytes_list.value.append(value)
    return row.SerializeToString()


def feature(kind, **fields):
    module = {
        "Image": "image_feature",
        "ClassLabel": "class_label_feature",
        "Text": "text_feature",
        "Scalar": "scalar",
    }[kind]
    return {"pythonClassName": f"tensorflow_datasets.core.features.{module}.{kind}", **fields}


def image_feature(*shape, dtype="uint8"):
    dimensions = [str(size) for size in shape]
    return feature("Image", image={"dtype": dtype, "shape": {"dimensions": dimensions}})


FEATURES = {
    "image": image_feature(2, 3, 3),
    "label": feature("ClassLabel", classLabel={"numClasses": "2"}),
    "id": feature("Text", text={}),
}


def prepare(root, splits, *, name="toy", features=None, file_format="array_record", about="Toys."):
    """Write a prepared TFDS set as `download_and_prepare` does, without TensorFlow."""
    from array_record.python.array_record_module import ArrayRecordWriter

    folder = root / name / "1.0.0"
    folder.mkdir(parents=True)
    described = []
    for split, rows in splits.items():
        file = folder / f"{name}-{split}.{file_format}-00000-of-00001"
        writer = ArrayRecordWriter(str(file), "group_size:1")
        for row in rows:
            writer.write(row)
        writer.close()
        described.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": "1",
                "shardLengths": [str(len(rows))],
            }
        )
    info = {
        "name": name,
        "version": "1.0.0",
        "description": about,
        "fileFormat": file_format,
        "splits": described,
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "label.labels.txt").write_text("cat\ndog\n")
    features = FEATURES if features is None else features
    tree = {
        "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
    (folder / "features.json").write_text(json.dumps(tree))
    return root


PIXELS = np.random.default_rng(0).integers(0, 256, (12, 2, 3, 3)).astype(np.uint8)


def rows(order, prefix="train", start=0):
    return [example(PIXELS[start + i], i % 2, id=f"{prefix}_{i:05d}".encode()) for i in order]


@pytest.fixture
def toy(tmp_path):
    splits = {"train": rows([3, 0, 7, 5, 2, 6, 1, 4]), "test": rows([2, 0, 3, 1], "test", 8)}
    return prepare(tmp_path / "tfds", splits)


def test_a_prepared_set_is_read_without_tensorflow_in_the_order_of_its_ids(toy):
    before = "tensorflow" in sys.modules
    data = datasets.load("toy", data_dir=toy, split="3:1:1")
    assert ("tensorflow" in sys.modules) == before
    assert repr(data) == "Dataset(toy: 6 train, 2 valid, 4 test, images uint8[2, 3, 3], 2 classes)"
    assert data.class_names == ("cat", "dog")
    np.testing.assert_array_equal(sorted_index(data.train, data.valid), np.arange(8))
    for part in (data.train, data.valid):
        np.testing.assert_array_equal(part.images, PIXELS[part.index])
        np.testing.assert_array_equal(part.labels, part.index % 2)
    np.testing.assert_array_equal(data.test.images, PIXELS[8:])
    np.testing.assert_array_equal(data.test.index, np.arange(4))
    assert datasets.load("toy:1.0.0", data_dir=str(toy)).name == "toy"


def test_ids_that_do_not_count_the_rows_leave_the_order_of_tfds(tmp_path):
    order = [3, 0, 7, 9, 2, 6, 1, 4]  # 9 instead of 5
    data = datasets.load("toy", data_dir=prepare(tmp_path, {"train": rows(order)}), split="2:1:1")
    assert [len(part.labels) for part in (data.train, data.valid, data.test)] == [4, 2, 2]
    for part in (data.train, data.valid, data.test):
        np.testing.assert_array_equal(part.images, PIXELS[np.asarray(order)[part.index]])


def test_a_copy_that_says_it_is_jpeg_is_named_so(tmp_path):
    about = "Small pictures. This copy holds the images re-encoded as JPEG, which is lossy."
    root = prepare(tmp_path, {"train": rows(range(8))}, name="toy10", about=about)
    assert datasets.load("toy10", data_dir=root).name == "TOY-10 (JPEG)"


def refuse(*_):
    raise AssertionError("decoded a second time")


def test_the_second_load_reads_the_cache(toy, cache, monkeypatch):
    first = datasets.load("toy", data_dir=toy)
    assert len(list(cache.iterdir())) == 2  # no partial files are left
    monkeypatch.setattr(datasets, "_decode", refuse)
    second = datasets.load("toy", data_dir=toy)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_changed_source_files_are_decoded_again(toy, monkeypatch):
    datasets.load("toy", data_dir=toy)
    os.utime(toy / "toy/1.0.0/toy-train.array_record-00000-of-00001", (1, 1))
    monkeypatch.setattr(datasets, "_decode", refuse)
    with pytest.raises(AssertionError, match="decoded a second time"):
        datasets.load("toy", data_dir=toy)


def flip_a_pixel(file):
    content = bytearray(file.read_bytes())
    content[content.index(PIXELS[:8].tobytes()) + 5] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-200]),
        lambda file: file.write_bytes(b""),
        flip_a_pixel,
        lambda file: np.savez(file, images=PIXELS, labels=np.zeros(12, int)),
        lambda file: np.savez(file, images=PIXELS),
    ],
    ids=["truncated", "empty", "flipped", "other size", "no labels"],
)
def test_a_damaged_cache_is_decoded_again_with_a_warning(toy, cache, damage):
    first = datasets.load("toy", data_dir=toy)
    damage(next(cache.glob("toy-1.0.0-*-train.npz")))
    with pytest.warns(UserWarning, match="damaged cache, decoding toy train again"):
        second = datasets.load("toy", data_dir=toy)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    datasets.load("toy", data_dir=toy)  # whole again: a warning would be an error


def test_an_interrupted_write_leaves_nothing_to_read(toy, cache, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets.np, "savez", interrupt)
    with pytest.raises(KeyboardInterrupt):
        datasets.load("toy", data_dir=toy)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_said(toy, cache):
    cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="toy (train|test) will be decoded again next time"):
        assert len(datasets.load("toy", data_dir=toy).test.labels) == 4


def test_the_cache_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/there")
    monkeypatch.delenv("JSOFT_CACHE")
    assert datasets._cache_folder() == Path("/there/jsoft")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert datasets._cache_folder() == Path.home() / ".cache" / "jsoft"


def test_images_of_several_shapes_are_refused(tmp_path):
    features = FEATURES | {"image": image_feature(-1, -1, 3)}
    mixed = [*rows([0, 1]), example(np.zeros((5, 4, 3), np.uint8), 0, id=b"x")]
    root = prepare(tmp_path, {"train": mixed}, features=features)
    with pytest.raises(ValueError, match=r"images of one shape.* \[2, 3, 3\] and \[5, 4, 3\]"):
        datasets.load("toy", data_dir=root)


def test_an_unpublished_label_is_refused(tmp_path):
    test = [example(PIXELS[0], -1, id=b"x")]
    root = prepare(tmp_path, {"train": rows(range(8)), "test": test})
    with pytest.raises(ValueError, match=r"toy test: label: expected classes in 0 … 1, got -1"):
        datasets.load("toy", data_dir=root)


@pytest.mark.parametrize(
    "changes",
    [
        {"image": feature("Text", text={})},
        {"image": image_feature(2, 3, 3, dtype="uint16")},
        {"label": feature("Text", text={})},
    ],
    ids=["no image", "uint16", "no class"],
)
def test_sets_of_another_kind_are_refused(tmp_path, changes):
    root = prepare(tmp_path, {"train": rows(range(8))}, features=FEATURES | changes)
    with pytest.raises(ValueError, match=r"expected the features image .* got toy with Feature"):
        datasets.load("toy", data_dir=root)


def test_a_set_without_train_is_refused(tmp_path):
    root = prepare(tmp_path, {"test": rows(range(8))})
    with pytest.raises(ValueError, match=r"expected a train split, got toy with \['test'\]"):
        datasets.load("toy", data_dir=root)


def test_a_set_in_tfrecord_form_is_refused_with_the_remedy(tmp_path):
    root = prepare(tmp_path, {"train": rows(range(8))}, file_format="tfrecord")
    with pytest.raises(ValueError, match="prepared as tfrecord, which only TensorFlow reads") as e:
        datasets.load("toy", data_dir=root)
    assert "file_format='array_record'" in str(e.value)


def test_a_known_set_that_is_not_prepared_tells_the_command(tmp_path):
    with pytest.raises(ValueError, match="'mnist' is not prepared in") as caught:
        datasets.load("mnist", data_dir=tmp_path)
    command = (
        f"{sys.executable} -m pip install tensorflow && "
        f'{sys.executable} -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('mnist', data_dir='{tmp_path}', file_format='array_record')"
        '.download_and_prepare()"'
    )
    assert command in str(caught.value)
    assert "'digits' works without" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "near"),
    [("cifr10", "cifar10"), ("CIFAR-10", "cifar10"), ("digit", "digits"), ("Digits", "digits")],
)
def test_an_unknown_name_brings_near_matches(tmp_path, name, near):
    with pytest.raises(ValueError, match=f"name: expected .* got '{name}'; did you mean.*'{near}'"):
        datasets.load(name, data_dir=tmp_path)


@pytest.mark.parametrize("name", ["qqqqqqqq", "", "../elsewhere"])
def test_a_name_like_no_other_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="name: expected 'digits', a TFDS name or the path of"):
        datasets.load(name, data_dir=tmp_path)


def test_without_tfds_the_rest_works_and_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install tensorflow-datasets .* archive work witho"):
        datasets.load("cifar10")
    assert datasets.load("digits").num_classes == 10
    assert datasets.load(archive(tmp_path / "x.npz", **good())).num_classes == 4


@pytest.mark.slow
def test_cifar10_jpeg_is_read_in_the_original_order(monkeypatch):
    root = SHARED / "tfds"
    if not (root / "cifar10").is_dir():
        pytest.skip(f"no prepared CIFAR-10 (JPEG) in {root}")
    data = datasets.load("cifar10", data_dir=root)
    assert repr(data) == (
        "Dataset(CIFAR-10 (JPEG): 40000 train, 10000 valid, 10000 test, images uint8[32, 32, 3], "
        "10 classes)"
    )
    assert data.class_names[:3] == ("airplane", "automobile", "bird")
    clean = np.load(SHARED / "soft_labels" / "cifar10n_train.npz")["clean"]
    np.testing.assert_array_equal(sorted_index(data.train, data.valid), np.arange(50000))
    np.testing.assert_array_equal(data.train.labels, clean[data.train.index])
    np.testing.assert_array_equal(data.valid.labels, clean[data.valid.index])
    test_labels = np.load(SHARED / "soft_labels" / "cifar10_test_labels.npy")
    np.testing.assert_array_equal(data.test.labels, test_labels)

    monkeypatch.setattr(datasets, "_decode", refuse)
    again = datasets.load("cifar10", data_dir=root)
    np.testing.assert_array_equal(again.train.images, data.train.images)


def test_mnist_npz_keeps_its_test_set():
    path = SHARED / "mnist.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    data = datasets.load(path)
    assert repr(data) == (
        "Dataset(mnist.npz: 48000 train, 12000 valid, 10000 test, images uint8[28, 28, 1], "
        "10 classes)"
    )
