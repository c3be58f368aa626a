"""Soft labels on disk: what is written is what is read, in the bytes that were computed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jsoft import label_store, losses, targets

RNG = np.random.default_rng(0)
LOGITS = (3 * RNG.standard_normal((50, 12))).astype(np.float32)
BLOCKS = [LOGITS[:20], LOGITS[20:33], LOGITS[33:]]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_all_logits_come_back(tmp_path, temperature):
    store = label_store.write(tmp_path / "all", BLOCKS)
    rows = np.array([[3, 49], [20, 3]])
    found = store.restore(store.read(rows), temperature=temperature)
    expected = jax.nn.softmax(LOGITS[rows] / temperature)
    assert_allclose(found, expected, atol=2e-3)  # ten bits of a logit up to ten
    assert len(store) == 50
    assert store.nbytes == 50 * 12 * 2


@pytest.mark.parametrize("rule", ["renorm", "min_fill"])
def test_top_k_of_every_row(tmp_path, rule):
    store = label_store.write(tmp_path / "few", BLOCKS, k=3, rule=rule)
    found = np.asarray(store.restore(store.read(np.arange(50)), temperature=2.0))
    order = np.argsort(-LOGITS, axis=1)
    expected = np.where(
        np.argsort(order, axis=1) < 3,
        LOGITS,
        -np.inf if rule == "renorm" else LOGITS.min(axis=1, keepdims=True),
    )
    assert_allclose(found, jax.nn.softmax(expected / 2), atol=2e-3)
    assert store.nbytes == 50 * (3 * (2 + 1) + (2 if rule == "min_fill" else 0))
    files = sum(path.stat().st_size for path in (tmp_path / "few").glob("*.npy"))
    assert files == store.nbytes + 128 * len(list((tmp_path / "few").glob("*.npy")))  # headers


def test_files_are_mapped_and_a_batch_is_read(tmp_path):
    label_store.write(tmp_path / "s", BLOCKS, k=2)
    store = label_store.open_store(tmp_path / "s")
    assert isinstance(store.kept.values, np.memmap)
    batch = store.read([7])
    assert type(batch.values) is np.ndarray
    assert batch.values.shape == (1, 2)


def test_more_than_256_classes_take_two_bytes(tmp_path):
    logits = RNG.standard_normal((4, 300)).astype(np.float32)
    store = label_store.write(tmp_path / "wide", [logits], k=5)
    assert store.kept.classes.dtype == np.uint16
    found = store.restore(store.read(np.arange(4)))
    assert_array_equal(found.argmax(axis=1), logits.argmax(axis=1))


def test_extreme_logits_keep_their_label(tmp_path):
    logits = np.float32([[1e30, 0.0, -1e30], [-1e5, -1e5, 2e5]])
    store = label_store.write(tmp_path / "extreme", [logits])
    assert_array_equal(store.restore(store.read([0, 1])), [[1, 0, 0], [0, 0, 1]])
    zeros = np.log(np.float32([[0.5, 0.5, 1e-30]]))
    again = label_store.write(tmp_path / "zeros", [zeros])
    assert_allclose(again.restore(again.read([0])), [[0.5, 0.5, 0]], atol=1e-4)


def test_what_is_kept_may_be_the_targets_of_a_training(tmp_path):
    store = label_store.write(tmp_path / "s", BLOCKS, k=3)
    kept = jax.tree.map(jnp.asarray, store.read(np.arange(50)))

    @jax.jit
    def loss(logits, kept, temperature):
        labels = store.restore(kept, temperature=temperature)
        return losses.soft_cross_entropy(logits, labels).mean()

    value = loss(LOGITS, kept, 1.0)
    expected = losses.soft_cross_entropy(LOGITS, store.restore(kept)).mean()
    assert_allclose(value, expected, rtol=1e-5)
    part = jax.tree.map(lambda array: array[:4], kept)
    assert loss(LOGITS[:4], part, 2.0) > 0


def test_a_failed_write_leaves_nothing(tmp_path):
    def blocks():
        yield LOGITS
        yield LOGITS[:, :5]

    with pytest.raises(ValueError, match="expected 12 classes in each, got 5"):
        label_store.write(tmp_path / "s", blocks())
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_refused_at_the_door(tmp_path):
    folder = tmp_path / "s"
    for error, message, options in (
        (ValueError, "rule: .*'smooth'", {"rule": "smooth"}),
        (ValueError, "k: expected 1 … 12", {"k": 13}),
        (TypeError, "k: ", {"k": 1.5}),
    ):
        with pytest.raises(error, match=message):
            label_store.write(folder, BLOCKS, **options)
    for error, message, blocks in (
        (ValueError, "one row or more", []),
        (TypeError, "blocks: expected floating", [np.ones((2, 3), int)]),
        (ValueError, "finite", [np.full((1, 3), np.nan, np.float32)]),
        (ValueError, "blocks: expected shape", [LOGITS[0]]),
    ):
        with pytest.raises(error, match=message):
            label_store.write(folder, blocks)
    store = label_store.write(folder, BLOCKS)
    with pytest.raises(FileExistsError, match="expected a new one"):
        label_store.write(folder, BLOCKS)
    with pytest.raises(ValueError, match=r"rows: .*got 50"):
        store.read([50])
    with pytest.raises(TypeError, match="rows: "):
        store.read([0.5])
    with pytest.raises(ValueError, match="temperature: "):
        store.restore(store.read([0]), temperature=0.0)


def test_damaged_stores_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a label store"):
        label_store.open_store(tmp_path / "nowhere")
    label_store.write(tmp_path / "s", BLOCKS, k=2)
    note = tmp_path / "s" / "store.json"
    noted = json.loads(note.read_text())
    note.write_text(json.dumps({**noted, "rows": 49}))
    with pytest.raises(ValueError, match="files of 49 rows"):
        label_store.open_store(tmp_path / "s")
    note.write_text(json.dumps({**noted, "format": "another"}))
    with pytest.raises(ValueError, match="expected 'jsoft label store 1'"):
        label_store.open_store(tmp_path / "s")
    note.write_text("{")
    with pytest.raises(ValueError, match="expected a label store"):
        label_store.open_store(tmp_path / "s")


def test_labels_of_a_temperature_are_those_of_targets(tmp_path):
    store = label_store.write(tmp_path / "s", [LOGITS.astype(np.float16)])
    found = store.restore(store.read([1]), temperature=3.0)
    expected = targets.temperature_softmax(LOGITS[1:2], temperature=3.0)
    assert_allclose(found, expected, atol=2e-3)
