"""One pass over soft labels on the host: all that an audit counts, for every k at once.

Of a class i in one row, two numbers decide everything: A, how many classes are strictly above it,
and E, how many are equal to it, itself included. The class is

    possibly in the top-k set    iff k > A            (all ties decided for it)
    surely in it                 iff k ≥ A + E        (all ties decided against it)
    in it by the lower index     iff k > its place in the stable order
    in it with weight            clip((k − A)/E, 0, 1), over random tie-breaking

so each is a start on the axis of k, a histogram over starts for every pair of classes, and a
cumulative sum. NumPy does this without compiling anything, in exact integers, block by block; the
numbers are those of `jsoft.indicators` and `jsoft.certificates`, as the tests hold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from jsoft.audit.order import above_and_end, ranked
from jsoft.certificates import SetCounts
from jsoft.label_kinds import Kind, as_probabilities, as_scores

# Numbers of a block: its arrays stay within the cache's reach, a few times 4 MB.
_BLOCK = 1 << 20
NUM_ROWS_TO_LOOK_AT = 20


@dataclasses.dataclass(frozen=True)
class Tally:
    """What was counted over the labelled rows, for k = 1 … K; of candidate sets, K = 1.

    Attributes:
      examples: `[C]` rows of each true class; several draws of a row count as rows.
      fractional: `[C, K, C]` summed weight by true class, k and class, random tie-breaking.
      by_index: `[C, K, C]` the same with ties going to the lower index.
      possible: `[C, K, C]` pessimistic: classes possibly in, the true class surely in.
      sure: `[C, K, C]` classes surely in.
      both: `[C, K, C]` the rows of `possible` that hold the true class as well.
      reachable: `[C, K]` rows with the true class possibly in.
      tied: `[K]` rows tied at the k-th place.
      label_sums: `[C, C]` summed probabilities by true class and class.
      doubtful: the rows whose label most prefers another class to the truth.
    """

    examples: np.ndarray
    fractional: np.ndarray
    by_index: np.ndarray
    possible: np.ndarray
    sure: np.ndarray
    both: np.ndarray
    reachable: np.ndarray
    tied: np.ndarray
    label_sums: np.ndarray
    doubtful: tuple[DoubtfulRow, ...]

    def sets(self, k: int) -> SetCounts:
        """Return the pessimistic counts of the top-k sets, which certificates are made from."""
        return SetCounts(self.possible[:, k - 1], self.both[:, k - 1], self.examples)


@dataclasses.dataclass(frozen=True, order=True)
class DoubtfulRow:
    """A row whose soft label prefers another class to the truth.

    Attributes:
      excess: by how much, probability of `says` less that of `true`.
      row: index of the row.
      says: the class that the label prefers.
      true: the true class.
      says_probability: what the label gives to the class it prefers.
      true_probability: what it gives to the truth.
    """

    excess: float
    row: int
    says: int
    true: int
    says_probability: float
    true_probability: float


def tally(
    values: np.ndarray,
    labels: np.ndarray,
    *,
    kind: Kind,
    max_k: int,
    block: int = _BLOCK,
    advance: Callable[[int], object] = lambda rows: None,
) -> Tally:
    """Return what an audit counts over the rows with a label.

    Args:
      values: `[N, C]` or `[N, R, C]` finite numbers, or 0/1 for sets; may be memory-mapped.
      labels: `[N]` integers, the true classes; −1 leaves a row out.
      kind: what the values are.
      max_k: largest k, 1 … C − 1; of no meaning for sets.
      block: about how many numbers are looked at together; the counts do not depend on it.
      advance: told after every block how many rows it had.

    Derived here; see the head of this file.

    >>> rows = np.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])
    >>> counted = tally(rows, np.array([0, 1]), kind=Kind.PROBABILITIES, max_k=2)
    >>> print(counted.fractional[:, 1])  # top-2 sets by true class
    [[1.  0.5 0.5]
     [0.  1.  1. ]
     [0.  0.  0. ]]
    """
    num_classes = values.shape[-1]
    draws = values.shape[1] if values.ndim == 3 else 1
    whole = np.int32 if len(values) * draws < 2**31 else np.int64  # half the memory, if they fit
    state = _Histograms(num_classes, 1 if kind is Kind.SETS else max_k, whole)
    step = max(1, block // (draws * num_classes))
    for start in range(0, len(values), step):
        chosen = np.flatnonzero(labels[start : start + step] >= 0)
        advance(min(step, len(values) - start))
        if len(chosen) == 0:
            continue
        part = np.asarray(values[start : start + step])
        part = part if len(chosen) == len(part) else part[chosen]
        rows = np.repeat(chosen + start, draws)
        true = np.repeat(labels[chosen + start], draws)
        part = part.reshape(-1, num_classes)
        if kind is Kind.SETS:
            state.add_sets(part != 0, true)
        else:
            state.add_ordered(as_scores(part), true)
        state.add_probabilities(as_probabilities(part, kind), true, rows)
    return state.result()


class _Histograms:
    """Starts on the axis of k, by true class and class; the one place that changes in this file."""

    def __init__(self, num_classes: int, max_k: int, whole: type[np.integer]) -> None:
        self.max_k = max_k
        shape = (num_classes, max_k, num_classes)
        self.examples = np.zeros(num_classes, np.int64)
        self.single = np.zeros(shape, whole)  # untied: one start whatever the rule
        self.possible, self.sure, self.by_index, self.both = (
            np.zeros(shape, whole) for _ in range(4)
        )
        self.slope = np.zeros(shape)  # second differences of the weights of tied classes
        self.reachable = np.zeros((num_classes, max_k), np.int64)
        self.tied = np.zeros(max_k, np.int64)
        self.label_sums = np.zeros((num_classes, num_classes))
        self.doubtful: list[DoubtfulRow] = []

    def add_ordered(self, scores: np.ndarray, true: np.ndarray) -> None:
        """Count rows that are read through the order of their numbers."""
        num_classes, max_k = scores.shape[1], self.max_k
        self.examples += np.bincount(true, minlength=num_classes)
        ordered, classes = ranked(scores, max_k + 1)
        self.tied += (ordered[:, :max_k] == ordered[:, 1 : max_k + 1]).sum(axis=0)
        # Where a tie reaches beyond what was taken, its other members are needed too.
        beyond = ordered[:, max_k - 1] == ordered[:, max_k]
        if max_k + 1 < num_classes and beyond.any():
            self._add(*ranked(scores[beyond], num_classes), true[beyond])
            ordered, classes, true = ordered[~beyond], classes[~beyond], true[~beyond]
        self._add(ordered, classes, true)

    def _add(self, ordered: np.ndarray, classes: np.ndarray, true: np.ndarray) -> None:
        """Count rows of `ordered` values and their `classes`, both `[B, M]`, highest first."""
        max_k, place = self.max_k, np.arange(ordered.shape[1])
        new = ordered[:, 1:] != ordered[:, :-1]
        untied = np.ones(len(new), bool)
        untied[np.nonzero(~new)[0]] = False
        is_true = classes == true[:, None]
        never = np.int64(max_k)  # a start at K is past all sets
        if untied.any():
            of_true = np.full(untied.sum(), never)
            rows, places = np.nonzero(is_true[untied])
            of_true[rows] = places
            within = min(len(place), max_k)
            index = self._index(true[untied], place[:within], classes[untied, :within])
            _add_ones(self.single, index.ravel())
            start = np.maximum(of_true[:, None], place[:within])
            index = self._index(true[untied], start, classes[untied, :within])
            _add_ones(self.both, index[start < max_k])
            self._add_reachable(true[untied], of_true)
        if untied.all():
            return
        tied = ~untied
        new, classes, is_true, true = new[tied], classes[tied], is_true[tied], true[tied]
        above, end = above_and_end(new)
        possible = np.where(is_true, end - 1, above)
        of_true = np.where(is_true, end - 1, never).min(axis=1)
        for table, start in (
            (self.possible, possible),
            (self.sure, end - 1),
            (self.by_index, np.broadcast_to(place, above.shape)),
            (self.both, np.maximum(of_true[:, None], above)),
        ):
            _add_ones(table, self._index(true, start, classes)[start < max_k])
        self._add_reachable(true, np.where(is_true, above, never).min(axis=1))
        steepness = 1 / (end - above)
        for start, sign in ((above, 1), (end, -1)):
            index, inside = self._index(true, start, classes), start < max_k
            np.add.at(self.slope.reshape(-1), index[inside], sign * steepness[inside])

    def _index(self, true: np.ndarray, start: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Return where (true class, start, class) lies in a table laid flat."""
        return (true[:, None] * self.max_k + start) * len(self.examples) + classes

    def _add_reachable(self, true: np.ndarray, start: np.ndarray) -> None:
        inside = start < self.max_k
        _add_ones(self.reachable, true[inside] * self.max_k + start[inside])

    def add_sets(self, sets: np.ndarray, true: np.ndarray) -> None:
        """Count rows that are sets themselves."""
        self.examples += np.bincount(true, minlength=sets.shape[1])
        holds = sets[np.arange(len(true)), true]
        rows, classes = np.nonzero(sets)
        index = self._index(true[rows], np.zeros(1, np.int64), classes[:, None])[:, 0]
        _add_ones(self.single, index)
        _add_ones(self.both, index[holds[rows]])
        self._add_reachable(true[holds], np.zeros(holds.sum(), np.int64))

    def add_probabilities(
        self, probabilities: np.ndarray, true: np.ndarray, rows: np.ndarray
    ) -> None:
        """Add up mean labels, and keep the rows that prefer another class most."""
        counts = np.bincount(true, minlength=len(self.examples))
        by_class, present = np.argsort(true, kind="stable"), np.flatnonzero(counts)
        self.label_sums[present] += np.add.reduceat(
            probabilities[by_class], (counts.cumsum() - counts)[present], axis=0, dtype=np.float64
        )
        of_true = probabilities[np.arange(len(true)), true]
        excess = probabilities.max(axis=1) - of_true
        candidates = np.flatnonzero(excess > 0)
        if len(candidates) > NUM_ROWS_TO_LOOK_AT:
            order = np.lexsort((rows[candidates], -excess[candidates]))
            candidates = candidates[order[:NUM_ROWS_TO_LOOK_AT]]
        says = probabilities[candidates].argmax(axis=1)
        self.doubtful += [
            DoubtfulRow(
                float(excess[j]), int(rows[j]), int(i), int(true[j]),
                float(probabilities[j, i]), float(of_true[j]),
            )
            for j, i in zip(candidates, says, strict=True)
        ]  # fmt: skip
        self.doubtful = sorted(self.doubtful, key=lambda one: (-one.excess, one.row))
        del self.doubtful[NUM_ROWS_TO_LOOK_AT:]

    def result(self) -> Tally:
        """Return the counts, from starts to members for every k; the starts are gone then."""
        for starts in (self.single, self.possible, self.sure, self.by_index, self.both, self.slope):
            _accumulate(starts)
        weights = _accumulate(self.slope)
        for table in (weights, self.possible, self.sure, self.by_index):
            table += self.single
        return Tally(
            examples=self.examples,
            fractional=weights,
            by_index=self.by_index,
            possible=self.possible,
            sure=self.sure,
            both=self.both,
            reachable=self.reachable.cumsum(axis=1),
            tied=self.tied,
            label_sums=self.label_sums,
            doubtful=tuple(self.doubtful),
        )


def _accumulate(starts: np.ndarray) -> np.ndarray:
    """Sum `[C, K, C]` up over k, in place; `np.cumsum` is several times slower on such an axis."""
    for place in range(1, starts.shape[1]):
        starts[:, place] += starts[:, place - 1]
    return starts


def _add_ones(table: np.ndarray, index: np.ndarray) -> None:
    np.add.at(table.reshape(-1), index, 1)
