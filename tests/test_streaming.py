"""Blocks of a file against `measure` of the whole, on one device, two and eight."""

import functools
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jsoft
from jsoft import _counts, indicators, streaming


def draw(num_rows, num_classes, *, seed=0, levels=None, dtype=np.float16):
    """Return soft labels and labels; few `levels` make ties on purpose."""
    rng = np.random.default_rng(seed)
    soft_labels = rng.random((num_rows, num_classes), dtype=np.float32)
    if levels:
        soft_labels = np.round(soft_labels * levels) / np.float32(levels)
    return soft_labels.astype(dtype), rng.integers(0, num_classes, num_rows)


SMALL = 64 * 5 * 2  # bytes of 64 rows of five float16, the smallest block of a device


def on_file(path, soft_labels):
    np.save(path, soft_labels)
    return np.load(path, mmap_mode="r")


def check_equal(a, b):
    """Up to the rounding of sums in another order; κ and D follow from Δ and γ."""
    chex.assert_trees_all_close(a, b, atol=2e-6)


@pytest.mark.parametrize("levels", [None, 4], ids=["few ties", "many ties"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_blocks_equal_measure(dtype, levels):
    soft_labels, labels = draw(768, 5, levels=levels, dtype=jnp.dtype(dtype))
    whole = indicators.measure(soft_labels, labels, max_k=3)
    check_equal(streaming.measure_blocks(soft_labels, labels, max_k=3), whole)


@pytest.mark.parametrize("rows", [1, 300, 10_000])
def test_any_block_size_gives_the_same(tmp_path, rows):
    """768 rows are whole blocks of 2 · 64, a whole and a short one of 2 · 256, and one of all."""
    soft_labels, labels = draw(768, 5, levels=50)
    mapped = on_file(tmp_path / "labels.npy", soft_labels)
    blocks = streaming.measure_blocks(mapped, labels, max_k=3, block_bytes=rows * 5 * 2)
    check_equal(blocks, indicators.measure(soft_labels, labels, max_k=3))


def test_sums_are_folded_before_float32_is_too_short(monkeypatch):
    soft_labels, labels = draw(768, 5, levels=9)
    whole = indicators.measure(soft_labels, labels, max_k=3)
    folded = []
    fold = streaming._fold
    monkeypatch.setattr(streaming, "_fold", lambda *a: folded.append(1) or fold(*a))
    monkeypatch.setattr(_counts, "ROWS_PER_CLASS", 52)  # 260 rows: two blocks
    blocks = streaming.measure_blocks(soft_labels, labels, max_k=3, block_bytes=SMALL)
    check_equal(blocks, whole)
    assert len(folded) >= 2  # and the rest at the end


def test_the_order_of_rows_does_not_matter():
    soft_labels, labels = draw(768, 5, levels=7)
    order = np.random.default_rng(1).permutation(768)
    straight = streaming.measure_blocks(soft_labels, labels, max_k=3, block_bytes=SMALL)
    shuffled = streaming.measure_blocks(
        soft_labels[order], labels[order], max_k=3, block_bytes=SMALL
    )
    check_equal(straight, shuffled)


def test_hundreds_of_classes_equal_the_definition():
    """Groups of classes find the same sets as a sort, ties within and beyond the last place too."""
    soft_labels, _ = draw(300, 200, levels=100, dtype=np.float32)
    labels = np.arange(300) % 3
    measured = streaming.measure_blocks(soft_labels, labels, max_k=5)
    for k in (1, 3, 5):
        one = indicators.unreliability_degree(soft_labels, labels, k)
        np.testing.assert_allclose(measured.unreliability[k - 1], one, atol=1e-6)
        one = indicators.ambiguity_degree(soft_labels, labels, k)
        np.testing.assert_allclose(measured.ambiguity[k - 1], one, atol=1e-6)
    descending = -np.sort(-soft_labels, axis=1)
    tied = (descending[:, :5] == descending[:, 1:6]).mean(axis=0)
    assert tied[-1] > 0.1
    np.testing.assert_allclose(measured.tied, tied, atol=1e-6)


@pytest.mark.parametrize(("num_classes", "places"), [(128, 16), (200, 2), (1000, 6), (2001, 11)])
def test_groups_find_the_largest(num_classes, places):
    soft_labels, _ = draw(40, num_classes, dtype=np.float32)
    values, classes = _counts._largest_by_groups(jnp.asarray(soft_labels), places)
    expected, _ = lax.top_k(soft_labels, places)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(np.take_along_axis(soft_labels, classes, 1), expected)


@pytest.mark.parametrize("levels", [1, 4, 100])
def test_groups_name_no_class_twice(levels):
    row = np.arange(200) * levels // 200 - 1.0
    values, classes = _counts._largest_by_groups(jnp.asarray(row, jnp.float32)[None], 7)
    assert len(set(np.asarray(classes)[0].tolist())) == 7
    np.testing.assert_array_equal(row[np.asarray(classes)[0]], np.asarray(values)[0])
    np.testing.assert_array_equal(values[0], np.sort(row)[::-1][:7])


def test_groups_of_mapped_measurements_equal_eager():
    soft_labels, labels = draw(40, 130, levels=50, dtype=np.float32)
    measure = functools.partial(indicators.measure, max_k=4)
    stack = jnp.stack([soft_labels, soft_labels[::-1]])
    mapped = jax.vmap(measure)(stack, jnp.stack([labels, labels[::-1]]))
    for i in range(2):
        check_equal(jax.tree.map(lambda x, i=i: x[i], mapped), measure(soft_labels, labels))


def test_masked_rows_do_not_count_whatever_they_hold():
    soft_labels, labels = draw(768, 5, levels=6)
    where = np.arange(768) % 3 > 0
    spoiled, unknown = soft_labels.copy(), labels.copy()
    spoiled[~where], unknown[~where] = np.nan, -1
    blocks = streaming.measure_blocks(spoiled, unknown, max_k=3, where=where, block_bytes=SMALL)
    check_equal(blocks, indicators.measure(soft_labels, labels, max_k=3, where=where))


@pytest.mark.parametrize("order", ["C", "F"])
def test_parts_and_other_layouts_of_an_array(tmp_path, order):
    soft_labels, labels = draw(1600, 12)
    mapped = on_file(tmp_path / "labels.npy", np.asarray(soft_labels, order=order))
    part, labels = mapped[30:1566:2, 1:11:2], labels[:768] % 5
    blocks = streaming.measure_blocks(part, labels, max_k=3, block_bytes=SMALL)
    check_equal(blocks, indicators.measure(np.array(part), labels, max_k=3))


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_changes_to_a_mapped_file_are_seen_and_kept(tmp_path, mode):
    soft_labels, labels = draw(768, 5)
    np.save(tmp_path / "labels.npy", soft_labels)
    mapped = np.load(tmp_path / "labels.npy", mmap_mode=mode)
    if mode != "r":
        mapped[:700] = soft_labels[:700] = 1 - soft_labels[:700]
    blocks = streaming.measure_blocks(mapped, labels, max_k=3, block_bytes=SMALL)
    check_equal(blocks, indicators.measure(soft_labels, labels, max_k=3))
    np.testing.assert_array_equal(mapped, soft_labels)


IN_A_PROCESS = """
import sys, jax, numpy as np
jax.config.update("jax_num_cpu_devices", int(sys.argv[2]))
import jsoft
soft_labels = np.load(sys.argv[1], mmap_mode="r")
labels = np.random.default_rng(0).integers(0, 9, len(soft_labels))
found = jsoft.measure_blocks(soft_labels, labels, max_k=3, block_bytes=2**12)
assert len(jax.devices()) == int(sys.argv[2])
np.savez(sys.argv[3], **vars(found))
"""


@pytest.mark.parametrize("num_devices", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_devices_do_not_change_the_numbers(tmp_path, num_devices):
    soft_labels, _ = draw(5001, 9, levels=60)
    path = tmp_path / "labels.npy"
    np.save(path, soft_labels)
    arguments = [sys.executable, "-W", "error", "-c", IN_A_PROCESS, path, num_devices]
    out = tmp_path / "found.npz"
    folder = Path(jsoft.__file__).parents[1]
    subprocess.run([*map(str, arguments), str(out)], check=True, cwd=folder)
    labels = np.random.default_rng(0).integers(0, 9, 5001)
    whole = indicators.measure(soft_labels, labels, max_k=3)
    for name, values in np.load(out).items():
        np.testing.assert_allclose(values, getattr(whole, name), atol=2e-6, err_msg=name)


# Bad input

GOOD, TRUTH = draw(300, 5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 130, 299])
def test_a_row_that_is_not_finite_is_named(row, value):
    bad = GOOD.copy()
    bad[row, 2] = value
    with pytest.raises(ValueError, match=rf"soft_labels: .*NaN or infinity in row \[{row}\]"):
        streaming.measure_blocks(bad, TRUTH, max_k=3, block_bytes=SMALL)


def test_large_finite_numbers_are_no_error():
    large = np.full((300, 5), 3e38, np.float32)
    large[np.arange(300), TRUTH] = 2e38
    blocks = streaming.measure_blocks(large, TRUTH, max_k=3, block_bytes=2 * SMALL)
    np.testing.assert_allclose(blocks.unreliability[0], 1)


BAD = {
    "a list": (TypeError, "soft_labels: expected a NumPy array, got list", [[0.5, 0.5]], [0], {}),
    "integers": (TypeError, "soft_labels: expected floating", TRUTH[:, None] + [0, 1], TRUTH, {}),
    "one axis": (ValueError, r"soft_labels: expected shape \[N, C\]", GOOD[0], TRUTH, {}),
    "no rows": (ValueError, "soft_labels: .*at least one example", GOOD[:0], TRUTH[:0], {}),
    "float labels": (TypeError, "labels: expected integer", GOOD, TRUTH * 1.0, {}),
    "labels out of range": (ValueError, "labels: .*0 … 4, got 9", GOOD, TRUTH * 0 + 9, {}),
    "fewer labels": (ValueError, r"labels: expected shape \[300\]", GOOD, TRUTH[1:], {}),
    "max_k of C": (ValueError, "max_k: expected 1 … 4", GOOD, TRUTH, {"max_k": 5}),
    "max_k of 1.5": (TypeError, "max_k: expected a whole number", GOOD, TRUTH, {"max_k": 1.5}),
    "empty blocks": (ValueError, "block_bytes: expected 1", GOOD, TRUTH, {"block_bytes": 0}),
    "all masked": (ValueError, "where: .*one", GOOD, TRUTH, {"where": np.zeros(300, bool)}),
    "float mask": (TypeError, "where: .*boolean", GOOD, TRUTH, {"where": np.ones(300)}),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_at_the_door(case):
    error, message, soft_labels, labels, options = BAD[case]
    with pytest.raises(error, match=message):
        streaming.measure_blocks(soft_labels, labels, **{"max_k": 2, **options})
