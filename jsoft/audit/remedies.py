"""Remedies other than labels: other sets, fewer classes, sharper labels; each tried, and judged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from jsoft.audit.order import weights_in_sets
from jsoft.audit.trials import Advice, Trial, gain
from jsoft.label_kinds import Kind

if TYPE_CHECKING:
    from jsoft.audit.core import Audit

_LEAST_MARGIN = 0.05  # of μ that is worth a line
_NUM_TRIED = 3  # pairs to merge, classes to set aside
_THRESHOLDS = (0.8, 0.5, 0.3, 0.1, 0.03, 0.01)
_TEMPERATURES = (0.25, 0.5, 2.0, 4.0)
_TRUNCATIONS = (1, 2, 3, 5)


def columns(audit: Audit, trial: Trial) -> Iterator[Advice]:
    """Yield another order of the columns, if with it the labels would be learnable.

    Where labels and soft labels come from two files, classes may be numbered in two ways.
    """
    if audit.status != "not_learnable":
        return
    first = weights_in_sets(trial.values, trial.kind)(1)
    order, other = (_best_order(first[half], trial.labels[half]) for half in trial.halves)
    if (order != other).any():
        return
    in_order = trial.weights[:, order]
    scores = trial.scores(lambda half: (in_order[half], trial.labels[half]))
    found = gain(np.array(trial.scores()), np.array([scores]))
    if found is None:
        return
    _, _, held = found
    moved = np.flatnonzero(order != np.arange(len(order)))
    shown = ", ".join(
        f"{audit.classes[y]} is in the column of {audit.classes[order[y]]}" for y in moved[:3]
    )
    more = "" if len(moved) <= 3 else f" and {len(moved) - 3} more are elsewhere"
    yield Advice(
        "columns",
        f"Check that labels and columns number the classes alike: if {shown}{more}, D = {held:.3f} "
        "on rows not used to find that, and now nothing is promised.",
        {"moved": len(moved), "held_out": held},
        held_out=True,
    )


def _best_order(first: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return for each class the column that is first in most of its rows, each column once."""
    from scipy.optimize import linear_sum_assignment

    num_classes = first.shape[1]
    sums = np.stack([first[labels == y].sum(axis=0) for y in range(num_classes)])
    # Where nothing speaks for another order, columns stay.
    return linear_sum_assignment(sums + 1e-6 * np.eye(num_classes), maximize=True)[1]


def threshold(trial: Trial) -> Iterator[Advice]:
    """Yield sets of all classes nearly as likely as the first, where they beat the top-k sets."""
    if trial.kind is Kind.SETS or trial.values.ndim == 3:
        return
    shares = trial.shares
    relative = shares / shares.max(axis=1, keepdims=True)
    options = [(relative >= least).astype(np.float64) for least in _THRESHOLDS]
    scores = np.array(
        [trial.scores(lambda half, w=w: (w[half], trial.labels[half])) for w in options]
    )
    found = gain(np.array(trial.scores()), scores)
    if found is None:
        return
    best, plain, held = found
    size = float(options[best].sum(axis=1).mean())
    yield Advice(
        "threshold",
        f"Make sets of all classes at least {_THRESHOLDS[best]:g} times as likely as the first "
        f"({size:.1f} classes on average): D = {held:.3f} on rows not used to choose that, against "
        f"{plain:.3f} of the top-{trial.k} sets. Sets of several sizes ask for "
        "membership_logistic_loss.",
        {"threshold": _THRESHOLDS[best], "held_out": held, "before": plain, "size": size},
        held_out=True,
    )


def merge(audit: Audit, trial: Trial) -> Iterator[Advice]:
    """Yield the pair of classes to make one, if D of what remains is larger."""
    assert audit.labelled is not None
    if len(audit.classes) < 4 or trial.values.ndim == 3:
        return
    cells = np.nan_to_num(audit.labelled.frequencies[:, audit.best])
    absent = audit.labelled.examples == 0  # of which nothing is known that merging could mend
    together = np.where(absent | absent[:, None], 0, np.triu(cells + cells.T, 1))
    most = np.argsort(-together, axis=None, kind="stable")[:_NUM_TRIED]
    pairs = [divmod(int(flat), len(audit.classes)) for flat in most if together.flat[flat] > 0]
    if not pairs:
        return

    # Votes and probabilities add up as they are.
    parts = trial.shares if trial.kind is Kind.LOGITS else trial.values
    parts = parts.astype(np.result_type(parts, np.float32))

    def merged(kept: int, gone: int) -> tuple[np.ndarray, np.ndarray]:
        shares = parts.copy()
        shares[:, kept] += shares[:, gone]
        labels = np.where(trial.labels == gone, kept, trial.labels)
        labels = labels - (labels > gone)
        values = np.delete(shares, gone, axis=1)
        values = (values > 0).astype(np.uint8) if trial.kind is Kind.SETS else values
        kind = Kind.SETS if trial.kind is Kind.SETS else Kind.PROBABILITIES
        k = min(trial.k, values.shape[1] - 1)
        return weights_in_sets(values, kind)(k), labels

    options = [merged(*pair) for pair in pairs]
    scores = np.array([trial.scores(lambda half, w=w, y=y: (w[half], y[half])) for w, y in options])
    found = gain(np.array(trial.scores()), scores)
    if found is None:
        return
    option, plain, held = found
    a, b = (audit.classes[i] for i in pairs[option])
    yield Advice(
        "merge",
        f"Merge {a} with {b}, if the task allows: D = {held:.3f} against {max(0, plain):.3f}.",
        {"first": a, "second": b, "held_out": held, "before": plain},
        held_out=False,  # the pairs to try come from all rows
    )


def set_aside(audit: Audit, trial: Trial) -> Iterator[Advice]:
    """Yield the class whose rows are better left out, if D of the rest is larger."""
    assert audit.labelled is not None
    if len(audit.classes) < 4:
        return
    cells = audit.labelled.frequencies[:, audit.best].copy()
    truth = np.diagonal(cells).copy()
    np.fill_diagonal(cells, -np.inf)
    margins = np.where(np.isnan(truth), np.inf, truth - np.nan_to_num(cells).max(axis=1))
    classes = np.argsort(margins, kind="stable")[:_NUM_TRIED]

    def without(y: int, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = half & (trial.labels != y)
        return trial.weights[rows], trial.labels[rows]

    if any((trial.labels[half] == y).all() for half in trial.halves for y in classes):
        return
    scores = np.array([trial.scores(lambda half, y=y: without(y, half)) for y in classes])
    found = gain(np.array(trial.scores()), scores)
    if found is None:
        return
    option, plain, held = found
    y = int(classes[option])
    yield Advice(
        "set_aside",
        f"Set the rows of {audit.classes[y]} aside, if they can be told, or label them by hand: on "
        f"the rest D = {held:.3f} against {max(0, plain):.3f}.",
        {"class": audit.classes[y], "held_out": held, "before": plain},
        held_out=False,  # the classes to try come from all rows
    )


def sharpen(trial: Trial) -> Iterator[Advice]:
    """Yield the temperature or truncation that widens the mean-label margin μ of the raw labels."""
    if trial.kind is Kind.SETS or trial.values.ndim == 3:
        return
    shares = trial.shares.astype(np.float64)
    num_classes = shares.shape[1]
    options: list[tuple[str, float, np.ndarray]] = []
    for temperature in _TEMPERATURES:
        # Relative to the first class, so that no small power is lost in rounding.
        powers = (shares / shares.max(axis=1, keepdims=True)) ** (1 / temperature)
        options.append(("temperature", temperature, powers))
    first = weights_in_sets(shares, Kind.PROBABILITIES)
    for kept in (m for m in _TRUNCATIONS if m < num_classes):
        options.append(("truncate", float(kept), shares * first(kept)))

    def margins(weights: np.ndarray) -> list[float]:
        done = weights / weights.sum(axis=1, keepdims=True)
        return [_mean_margin(done[half], trial.labels[half]) for half in trial.halves]

    before = np.array(margins(shares))
    # Where μ is not positive, whatever makes it so is worth a line.
    least = _LEAST_MARGIN if before.mean() > 0 else 0.0
    found = gain(before, np.array([margins(w) for _, _, w in options]), least=least, share=0)
    if found is None:
        return
    option, plain, held = found
    topic, value, _ = options[option]
    what = (
        f"Divide the logits by the temperature {value:g} (powers {1 / value:g} of probabilities)"
        if topic == "temperature"
        else f"Keep only the first {value:.0f} classes of every row"
        if value > 1
        else "Keep only the first class of every row"
    )
    same_sets = topic == "temperature" or value >= trial.k
    consequence = (
        "The order of classes stays, and with it Δ, γ and D."
        if same_sets
        else f"Make top-{trial.k} sets before that, from the full rows: what is cut off ties."
    )
    yield Advice(
        topic,
        f"{what} before ordinary distillation: the mean-label margin μ becomes {held:.3f} on rows "
        f"not used to choose that, against {plain:.3f}. {consequence}",
        {"value": value, "held_out": held, "before": plain},
        held_out=True,
    )


def _mean_margin(shares: np.ndarray, labels: np.ndarray) -> float:
    """Return μ of rows `[N, C]`."""
    present = np.unique(labels)
    means = np.stack([shares[labels == y].mean(axis=0) for y in present])
    truth = means[np.arange(len(present)), present]
    means[np.arange(len(present)), present] = -np.inf
    return float((truth - means.max(axis=1)).min())
