"""What the numbers of a soft-label array are: probabilities, logits, votes or candidate sets.

    probabilities   0 … 1, every row sums to one             taken as they are
    logits          any finite numbers                       softmax
    votes           0 or more, a positive sum in every row   shares of the row's sum
    sets            0 or 1 (or booleans), one 1 or more      uniform over the set

`detect` says which they are, or refuses where two readings are possible; `check` says whether they
are what somebody claims, and if not, where. Both read arrays `[N, C]` or, several draws for every
example, `[N, R, C]`, block by block, so that a memory-mapped file never has to fit in memory.
`as_probabilities` and `as_scores` convert a block: the first to what a student would be trained
on, the second to numbers that keep the exact order and ties of what was given, which is what
top-k sets are read from (the softmax of distant logits is 0 for several of them).

Rows, draws and columns count from 0.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from typing import NoReturn

import numpy as np

# Entries looked at together: some megabytes, whatever the number of classes.
_BLOCK_ENTRIES = 1 << 20

# Rounding to a few decimals moves the sum of a row by less; a forgotten class by more.
_SUM_TOLERANCE = 0.01


class Kind(enum.StrEnum):
    """What the entries of soft labels are: `Kind("votes")` is `Kind.VOTES`."""

    PROBABILITIES = "probabilities"
    LOGITS = "logits"
    VOTES = "votes"
    SETS = "sets"


def detect(values: np.ndarray, *, where: np.ndarray | None = None) -> Kind:
    """Return what kind of soft labels `values` are; nothing ambiguous is guessed.

    In this order, over all rows that `where` keeps:

    - booleans are sets;
    - whole numbers, none below 0, are probabilities if every row is one-hot (all other readings
      mean the same), sets if there are only 0 and 1, else votes;
    - if half of the rows or more sum to one, probabilities were meant, and all rows must be some;
    - other fractions are logits if there are numbers below 0.

    What remains is ambiguous. What `detect` returns has passed `check`.

    Args:
      values: `[N, C]` or `[N, R, C]` numbers or booleans.
      where: `[N]` booleans, the rows that count (all by default).

    Raises:
      TypeError, ValueError: as `check`; where two kinds are possible, or none.

    The rules are ours.

    >>> print(detect(np.array([[0.7, 0.3], [0.5, 0.5]])), detect(np.array([[4, 1], [0, 5]])))
    probabilities votes
    >>> print(detect(np.array([[1, 1, 0], [0, 1, 0]])), detect(np.array([[1.5, -0.9], [0.3, 2.0]])))
    sets logits
    """
    survey = _survey(values, where)
    kind = _kind_of(survey, values.dtype == bool)
    _check(survey, kind)
    return kind


def check(values: np.ndarray, kind: Kind, *, where: np.ndarray | None = None) -> None:
    """Raise unless all rows of `values` are of the given kind; see the module for what that is.

    Probabilities may miss one by 0.01, for rounding. Votes need not be whole: weights and
    percentages will do.

    Args:
      values: `[N, C]` or `[N, R, C]` numbers or booleans.
      kind: what they should be.
      where: `[N]` booleans, the rows that count (all by default).

    Raises:
      TypeError: neither numbers nor booleans.
      ValueError: a shape without rows or with fewer than two classes; a mask that is not of this
        length or keeps nothing; an entry or row that is not of this kind, with its place.

    >>> check(np.array([[1, 0], [0, 2]]), Kind.SETS)
    Traceback (most recent call last):
    ValueError: soft_labels: row 1, column 1: expected sets of 0 and 1, got 2
    """
    _check(_survey(values, where), Kind(kind))


def as_probabilities(block: np.ndarray, kind: Kind) -> np.ndarray:
    """Return checked rows of a kind as probabilities, float32 `[..., C]`.

    Softmax of logits, shares of votes, the uniform distribution over sets; probabilities are not
    rescaled, so rows rounded in a file still miss one by as much.

    Args:
      block: `[..., C]` rows that `check` has passed.
      kind: what they are.

    Derived here (conventions).

    >>> as_probabilities(np.array([[3, 1, 0]]), Kind.VOTES)
    array([[0.75, 0.25, 0.  ]], dtype=float32)
    >>> as_probabilities(np.array([[1, 1, 0]]), Kind.SETS)
    array([[0.5, 0.5, 0. ]], dtype=float32)
    """
    match Kind(kind):
        case Kind.PROBABILITIES:
            shares = block
        case Kind.LOGITS:
            floats = block.astype(np.result_type(block, np.float32))
            with np.errstate(over="ignore"):  # exp(−∞) is 0, as it should be
                weights = np.exp(floats - floats.max(axis=-1, keepdims=True))
            shares = weights / weights.sum(axis=-1, keepdims=True)
        case Kind.VOTES | Kind.SETS:
            shares = block / block.sum(axis=-1, keepdims=True, dtype=np.float64)
    return shares.astype(np.float32, copy=False)


def as_scores(block: np.ndarray) -> np.ndarray:
    """Return float32 numbers `[..., C]` with the order and the ties of every row of `block`.

    The entries themselves where float32 holds them exactly, else their dense ranks in the row:
    rounding 1e-50 and 1e-60 to float32 would make a tie of them.

    Args:
      block: `[..., C]` finite numbers or booleans.

    Derived here.

    >>> as_scores(np.array([[0.5, 0.25, 0.25]]))
    array([[0.5 , 0.25, 0.25]], dtype=float32)
    >>> as_scores(np.array([[1e-60, 1.0, 1e-50]]))
    array([[1., 3., 2.]], dtype=float32)
    """
    scores = block.astype(np.float32)
    if block.dtype.kind in "iu":
        exact = block.min() >= -(1 << 24) and block.max() <= 1 << 24
    else:
        exact = (scores == block).all()
    return scores if exact else _dense_ranks(block)


def _dense_ranks(block: np.ndarray) -> np.ndarray:
    """Return 1 for the least number of a row, 2 for the next and so on, equal for equal ones.

    As `scipy.stats.rankdata(block, method="dense", axis=-1)`, which takes five times as long, and
    most of a second to import.
    """
    order = np.argsort(block, axis=-1)
    ordered = np.take_along_axis(block, order, axis=-1)
    ranks = np.ones(block.shape, np.float32)
    ranks[..., 1:] += np.cumsum(ordered[..., 1:] != ordered[..., :-1], axis=-1)
    scores = np.empty_like(ranks)
    np.put_along_axis(scores, order, ranks, axis=-1)
    return scores


@dataclasses.dataclass
class _Survey:
    """What one pass over the rows has seen: counts, and the first place of everything odd."""

    rows: int = 0
    rows_summing_to_one: int = 0
    negative: tuple[str, float] | None = None
    fraction: tuple[str, float] | None = None
    above_one: tuple[str, float] | None = None
    other_sum: tuple[str, float] | None = None
    empty: tuple[str, float] | None = None


def _survey(values: np.ndarray, where: np.ndarray | None) -> _Survey:
    _check_array(values, where)
    survey = _Survey()
    for start, rows, block in _blocks(values, where):
        _look_at(survey, start, rows, block)
    return survey


def _check_array(values: np.ndarray, where: np.ndarray | None) -> None:
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        got = getattr(values, "dtype", type(values).__name__)
        raise TypeError(f"soft_labels: expected an array of numbers or booleans, got {got}")
    if values.ndim not in (2, 3) or 0 in values.shape or values.shape[-1] < 2:
        raise ValueError(
            "soft_labels: expected shape [N, C], or [N, R, C] for R draws, with one row and two "
            f"classes or more, got {list(values.shape)}"
        )
    if where is not None and (where.dtype != bool or where.shape != values.shape[:1]):
        raise ValueError(
            f"where: expected booleans of shape [{len(values)}], got {where.dtype} of shape "
            f"{list(where.shape)}"
        )
    if where is not None and not where.any():
        raise ValueError("where: expected at least one row to be kept, got False alone")


def _blocks(
    values: np.ndarray, where: np.ndarray | None
) -> Iterator[tuple[int, np.ndarray | None, np.ndarray]]:
    """Yield (first row, rows kept if not all, kept rows `[B, ..., C]`), block by block."""
    size = max(1, _BLOCK_ENTRIES // (values[0].size))
    for start in range(0, len(values), size):
        block = np.asarray(values[start : start + size])
        if where is None:
            yield start, None, block
        elif where[start : start + size].any():
            rows = np.flatnonzero(where[start : start + size])
            yield start, rows, block[rows]


def _look_at(survey: _Survey, start: int, rows: np.ndarray | None, block: np.ndarray) -> None:
    def first(odd: np.ndarray, numbers: np.ndarray) -> tuple[str, float] | None:
        """Return the first odd place, in words, and the number there."""
        if not odd.any():
            return None
        index = np.unravel_index(int(np.argmax(odd)), odd.shape)
        row = start + int(index[0] if rows is None else rows[index[0]])
        names = ("row", "draw", "column") if block.ndim == 3 else ("row", "column")
        place = zip(names, (row, *map(int, index[1:])), strict=False)
        return ", ".join(f"{name} {i}" for name, i in place), numbers[index].item()

    # Numbers beyond float32 would be infinite further on; a sum of any others is finite.
    with np.errstate(over="ignore", invalid="ignore"):
        sums = block.sum(axis=-1, dtype=np.float64)
    if not (np.isfinite(sums) & (np.abs(sums) < np.finfo(np.float32).max)).all():
        with np.errstate(over="ignore"):
            found = first(~np.isfinite(block.astype(np.float32)), block)
        if found:
            raise ValueError(
                f"soft_labels: {found[0]}: expected a finite number below 3.4e38, got {found[1]:g}"
            )
    if block.dtype == bool:
        block = block.view(np.uint8)
    sums_to_one = np.abs(sums - 1) <= _SUM_TOLERANCE
    survey.rows += sums.size
    survey.rows_summing_to_one += int(sums_to_one.sum())
    survey.other_sum = survey.other_sum or first(~sums_to_one, sums)
    survey.empty = survey.empty or first((sums == 0) & ~block.any(axis=-1), sums)
    if survey.negative is None and block.min() < 0:
        survey.negative = first(block < 0, block)
    if survey.fraction is None and block.dtype.kind == "f":
        survey.fraction = first(np.trunc(block) != block, block)
    if survey.above_one is None and block.max() > 1:
        survey.above_one = first(block > 1, block)


def _kind_of(survey: _Survey, boolean: bool) -> Kind:
    if boolean:
        return Kind.SETS
    if survey.fraction is None:
        if survey.negative:
            _refuse(survey.negative, "votes 0 or more, or kind logits if these are scores")
        if survey.rows_summing_to_one == survey.rows:
            return Kind.PROBABILITIES
        return Kind.VOTES if survey.above_one else Kind.SETS
    if 2 * survey.rows_summing_to_one >= survey.rows:
        return Kind.PROBABILITIES
    if survey.negative:
        return Kind.LOGITS
    assert survey.other_sum is not None
    place, total = survey.other_sum
    raise ValueError(
        f"soft_labels: {place}: expected probabilities that sum to one, got the sum {total:g}; "
        "name the kind: votes (shares of that sum) or logits (softmax)"
    )


def _check(survey: _Survey, kind: Kind) -> None:
    if kind is Kind.LOGITS:
        return
    if survey.negative:
        _refuse(survey.negative, f"{kind}, none below 0 (only logits may be)")
    if kind is Kind.PROBABILITIES and survey.other_sum:
        place, total = survey.other_sum
        raise ValueError(
            f"soft_labels: {place}: expected probabilities that sum to one, got the sum {total:g}; "
            "kind votes would take shares of the sum"
        )
    if kind is Kind.SETS and (survey.fraction or survey.above_one):
        _refuse(survey.fraction or survey.above_one, "sets of 0 and 1")
    if survey.empty:
        something = "one vote" if kind is Kind.VOTES else "one class"
        raise ValueError(f"soft_labels: {survey.empty[0]}: expected {something} or more, got none")


def _refuse(found: tuple[str, float] | None, expected: str) -> NoReturn:
    assert found is not None
    raise ValueError(f"soft_labels: {found[0]}: expected {expected}, got {found[1]:g}")
