"""The order of the numbers of a row, and who is in its top-k sets with what weight."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jsoft.label_kinds import Kind, as_scores


def above_and_end(new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return A and A + E of every place of an ordered row, from where a `new` value follows.

    Args:
      new: `[N, M − 1]` booleans, whether place m + 1 holds another value than place m.

    >>> above_and_end(np.array([[True, False]]))
    (array([[0, 1, 1]]), array([[1, 3, 3]]))
    """
    place = np.arange(new.shape[1] + 1)
    edge = np.ones((len(new), 1), bool)
    above = np.maximum.accumulate(np.where(np.hstack([edge, new]), place, 0), axis=1)
    end = np.where(np.hstack([new, edge]), place + 1, len(place))
    return above, np.minimum.accumulate(end[:, ::-1], axis=1)[:, ::-1]


def ranked(scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return keys and classes of the `count` largest entries, highest first, ties by class.

    Args:
      scores: `[N, C]` finite float32.
      count: 1 … C.

    Returns:
      Whole numbers in the order of the scores and equal where these are, and classes `[N, count]`.

    A key and its class share one 64-bit word, so that one sort of plain numbers, which processors
    are quick at, orders both. Derived here.

    >>> ranked(np.array([[0.25, 0.5, 0.5]], np.float32), 2)[1]
    array([[1, 2]])
    """
    num_classes = scores.shape[1]
    bits = (scores + np.float32(0)).view(np.int32)  # −0 becomes 0, which equals it
    keys = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # in the order of the floats, those below 0 too
    words = keys.astype(np.int64)
    words <<= 32
    words |= np.arange(num_classes)[::-1]
    if count < num_classes:
        words.partition(num_classes - count, axis=1)
        words = words[:, num_classes - count :]
    words = np.sort(words, axis=1)[:, ::-1]
    return words >> 32, num_classes - 1 - (words & 0xFFFFFFFF)


def weights_in_sets(values: np.ndarray, kind: Kind) -> Callable[[int], np.ndarray]:
    """Return k → membership `[N, C]` in the sets of rows, ties at random; the mean over draws.

    Args:
      values: `[N, C]` or `[N, R, C]` rows of a kind.
      kind: what they are; of candidate sets, every k has the same.

    Derived here, as `indicators.membership`.

    >>> weights_in_sets(np.array([[0.5, 0.25, 0.25]]), Kind.PROBABILITIES)(2)
    array([[1. , 0.5, 0.5]])
    """
    num_classes = values.shape[-1]
    flat = values.reshape(-1, num_classes)
    draws = (len(values), -1, num_classes)
    if kind is Kind.SETS:
        of_sets = (flat != 0).astype(np.float64).reshape(draws).mean(axis=1)
        return lambda k: of_sets
    keys, classes = ranked(as_scores(flat), num_classes)
    above, end = above_and_end(keys[:, 1:] != keys[:, :-1])

    def of_k(k: int) -> np.ndarray:
        weights = np.empty(flat.shape)
        np.put_along_axis(weights, classes, np.clip((k - above) / (end - above), 0, 1), axis=1)
        return weights.reshape(draws).mean(axis=1)

    return of_k
