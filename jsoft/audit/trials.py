"""What a remedy is tried on, and how it is judged: on rows not used to choose it.

The rows (a random sample where there are very many) fall into two random halves. A remedy with
options, such as k or a temperature, takes the option that is best on one half and is judged on the
other, both ways round; both must choose the same, and the two judgements are averaged. D is what a
remedy of the sets is judged by, μ what one of the raw labels is. Derived here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from jsoft.audit import arithmetic
from jsoft.audit.arithmetic import Degrees
from jsoft.label_kinds import Kind, as_probabilities

# A remedy is worth a line if it raises D by a hundredth and a twentieth of itself.
_LEAST_GAIN, _LEAST_SHARE = 0.01, 0.05


@dataclasses.dataclass(frozen=True)
class Advice:
    """One piece of advice.

    Attributes:
      topic: which remedy: more_rows, missing_classes, columns, relabel, choose_k, threshold, merge,
        set_aside, temperature, truncate or ties.
      text: what to do and what it would change, in words.
      numbers: the numbers in it, by name.
      held_out: whether they were found on rows not used to choose the remedy.
    """

    topic: str
    text: str
    numbers: dict[str, float | int | str]
    held_out: bool


@dataclasses.dataclass(frozen=True)
class Trial:
    """Labelled rows to try remedies on.

    `values` `[N, ..., C]` of a kind, `labels` `[N]`, `halves` two masks `[N]`; `k` the size of the
    sets; `weights` `[N, C]` membership in them.
    """

    values: np.ndarray
    labels: np.ndarray
    halves: tuple[np.ndarray, np.ndarray]
    kind: Kind
    k: int
    weights: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """The rows as probabilities `[N, C]`, the mean over draws."""
        shares = as_probabilities(self.values, self.kind)
        return shares.mean(axis=1) if shares.ndim == 3 else shares

    def scores(
        self, sets: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None
    ) -> list[float]:
        """Return D on either half; `sets` takes a mask to weights `[M, C]` and labels `[M]`."""
        sets = sets or (lambda half: (self.weights[half], self.labels[half]))
        return [float(arithmetic.order_of(degrees_of(*sets(half)))[0]) for half in self.halves]


def gain(
    before: np.ndarray,
    after: np.ndarray,
    *,
    least: float = _LEAST_GAIN,
    share: float = _LEAST_SHARE,
) -> tuple[int, float, float] | None:
    """Return which option of a remedy gains, from what and to what; None if not worth a line.

    Both halves must choose the same option, gain by it, and end above 0; the mean of both, which
    is returned, must gain by more than `least` and by more than a `share` of itself. So whichever
    half chose, the other was not used to.

    Args:
      before: `[2]` D, or μ, on either half.
      after: `[options, 2]` the same with every option of the remedy.
      least: smallest gain.
      share: smallest gain as a share of what was.

    >>> gain(np.array([0.25, 0.25]), np.array([[0.1, 0.1], [0.5, 0.75]]))
    (1, 0.25, 0.625)
    """
    option, other = (int(best) for best in after.argmax(axis=0))
    each, floor = after[option], np.maximum(before, 0)  # below 0, nothing is promised
    becomes = float(each.mean())
    enough = becomes - floor.mean() > max(least, share * floor.mean())
    agree = option == other and bool((each > floor).all())
    return (option, float(before.mean()), becomes) if agree and enough else None


def degrees_of(weights: np.ndarray, labels: np.ndarray) -> Degrees:
    """Return the indicators of sets given by weights `[N, C]`."""
    num_classes = weights.shape[1]
    members = np.stack([weights[labels == y].sum(axis=0) for y in range(num_classes)])
    return arithmetic.degrees(members[:, None], np.bincount(labels, minlength=num_classes))


def round_up(count: float) -> int:
    """Return about `count`, two digits that say no less.

    >>> round_up(1234), round_up(99)
    (1300, 99)
    """
    step = 10 ** max(0, math.floor(math.log10(max(count, 1))) - 1)
    return math.ceil(count / step) * step


def percent(share: float) -> str:
    """Return a share in words.

    >>> percent(0.0784), percent(1)
    ('7.8 %', '100 %')
    """
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.3g} %"


def confidence(alpha: float) -> str:
    """Return 1 − α in words.

    >>> confidence(0.05), confidence(1e-9)
    ('95 %', '99.9999999 %')
    """
    return f"{100 * (1 - alpha):.12g} %"


def rows_in_words(count: int) -> str:
    """Return a number of rows in words.

    >>> rows_in_words(1), rows_in_words(1000)
    ('1 row', '1,000 rows')
    """
    return f"{count:,} row{'s' if count != 1 else ''}"


def times(ratio: float) -> str:
    """Return how many times, in words.

    >>> times(2.345), times(12345)
    ('2.3 times', '13,000 times')
    """
    return f"{ratio:.2g} times" if ratio < 100 else f"{round_up(ratio):,} times"
