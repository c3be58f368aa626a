"""Fingerprints of rows: which rows are the same, and a random sample that no row order changes.

A sample drawn by row number would change when the file is sorted. Here every row draws its lot from
its own contents, its label included; identical rows draw different lots, as many as there are of
them, so that a sample of one-hot labels is as random as any.
"""

from __future__ import annotations

import numpy as np

_BLOCK = 1 << 20
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def fingerprints(values: np.ndarray) -> np.ndarray:
    """Return 64 bits for every row of `[N, ...]`, equal for equal bytes, `[N]`.

    Rows of different contents share theirs with a chance of about 2⁻³³ a pair. The upper half of a
    word is mixed into its lower first: round floats end in zeros, which no odd factor changes.

    >>> first, second, third = fingerprints(np.array([[0.5, 0.5], [0.25, 0.75], [0.5, 0.5]]))
    >>> bool(first == third), bool(first == second)
    (True, False)
    """
    num_bytes = values[0].size * values.dtype.itemsize
    num_words = -(-num_bytes // 8)
    odd = np.random.default_rng(0).integers(0, 2**64, num_words, np.uint64) | np.uint64(1)
    found = np.empty(len(values), np.uint64)
    step = max(1, _BLOCK // values[0].size)
    for start in range(0, len(values), step):
        block = np.ascontiguousarray(values[start : start + step])
        raw = block.reshape(len(block), -1).view(np.uint8)
        if num_bytes % 8:
            raw = np.pad(raw, ((0, 0), (0, 8 * num_words - num_bytes)))
        words = raw.view(np.uint64)
        words = words ^ (words >> np.uint64(32))
        found[start : start + step] = np.einsum("nw,w->n", words, odd)
    return _mix(found)


def random_rows(
    fingerprint: np.ndarray, labels: np.ndarray, rows: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return up to `count` of `rows` in random order, and which of them are in the first half.

    The contents of the returned rows, and of both halves, are the same whatever the order of the
    rows; a class order other than this one gives another sample.

    Args:
      fingerprint: `[N]` as from `fingerprints`.
      labels: `[N]` integers.
      rows: `[M]` indices to choose from.
      count: how many, at most.

    Derived here: splitmix64 (Steele, Lea & Flood, OOPSLA 2014) of contents and copy number.

    >>> chosen, in_first = random_rows(np.arange(4, dtype=np.uint64), np.zeros(4, int), np.arange(4), 2)
    >>> len(chosen), in_first.dtype
    (2, dtype('bool'))
    """  # noqa: E501
    lots = _mix(fingerprint[rows] ^ _mix(labels[rows].astype(np.uint64)))
    if num_repeated(lots):
        order = np.argsort(lots, kind="stable")
        rows, lots = rows[order], lots[order]
        is_first = np.concatenate([[True], lots[1:] != lots[:-1]])
        place = np.arange(len(lots))
        copy = place - np.maximum.accumulate(np.where(is_first, place, 0))
        lots = _mix(lots + _GOLDEN * copy.astype(np.uint64))
    if count < len(rows):
        least = np.argpartition(lots, count)[:count]
        rows, lots = rows[least], lots[least]
    order = np.argsort(lots, kind="stable")
    return rows[order], (lots[order] & np.uint64(1)).astype(bool)


def num_repeated(fingerprint: np.ndarray) -> int:
    """Return how many rows equal an earlier one.

    >>> num_repeated(np.array([7, 8, 7, 7], np.uint64))
    2
    """
    ordered = np.sort(fingerprint)
    return int((ordered[1:] == ordered[:-1]).sum())


def _mix(bits: np.ndarray) -> np.ndarray:
    """Return splitmix64 of every word: each bit depends on all bits."""
    bits = bits + _GOLDEN
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
