"""Which rows to label anew with their truth, and how many of them flip the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from jsoft.audit.arithmetic import Degrees
from jsoft.audit.trials import Advice, Trial, degrees_of, percent, round_up, rows_in_words
from jsoft.label_kinds import Kind

if TYPE_CHECKING:
    from jsoft.audit.core import Audit

_ROUNDING = 1e-9  # a margin, beyond which it is one


def relabel(audit: Audit, trial: Trial) -> Iterator[Advice]:
    """Yield which pairs to relabel, and how many rows flip the verdict or what 1 % of them gain."""
    learnable = audit.status != "not_learnable"
    total = len(trial.labels)
    budget = max(1, total // 100) if learnable else total
    rows, pairs = rows_to_relabel(
        trial.weights, trial.labels, trial.k, trial.kind, budget=budget, flip=not learnable
    )
    if len(rows) == 0:
        return
    before = degrees_of(trial.weights, trial.labels)
    after = degrees_of(_relabelled(trial, rows), trial.labels)
    rise = after.divergence[0] - before.divergence[0]
    if learnable and rise <= 0.01:
        return
    elsewhere = _relabelled_elsewhere(trial, budget, flip=not learnable)
    if learnable and elsewhere and elsewhere[1].divergence[0] <= elsewhere[0].divergence[0]:
        return
    assert audit.labelled is not None
    scale = int(audit.labelled.examples.sum()) / total
    count = len(rows) if scale == 1 else round_up(len(rows) * scale)
    words = _pairs_in_words(audit, pairs, scale)
    told: dict[str, float | int | str] = {
        "rows": count,
        "before": _sum_of(before),
        "after": _sum_of(after),
        "divergence_before": float(before.divergence[0]),
        "divergence_after": float(after.divergence[0]),
    }
    checked = ""
    if elsewhere is not None:
        told |= {
            "held_out_before": _sum_of(elsewhere[0]),
            "held_out": _sum_of(elsewhere[1]),
            "divergence_held_out_before": float(elsewhere[0].divergence[0]),
            "divergence_held_out": float(elsewhere[1].divergence[0]),
        }
        name, was, becomes = (
            ("D", elsewhere[0].divergence[0], elsewhere[1].divergence[0])
            if learnable
            else ("Δ + γ", _sum_of(elsewhere[0]), _sum_of(elsewhere[1]))
        )
        checked = (
            f" With pairs and shares chosen on one half of the rows, {name} goes from {was:.3f} to "
            f"{becomes:.3f} on the other."
        )
    if not learnable and elsewhere is not None and not _is_learnable(elsewhere[1]):
        checked += " That does not flip the verdict there: it may take more rows than these."
    how_many = f"{rows_in_words(count)} ({percent(count / total / scale)})"
    if learnable:
        text = (
            f"Relabel {how_many}, where it helps most: "
            f"{words}. D rises from {before.divergence[0]:.3f} to {after.divergence[0]:.3f}."
        )
    elif _is_learnable(after):
        text = (
            f"Relabel {how_many} with the truth to flip "
            f"the verdict: {words}. Δ + γ falls from {_sum_of(before):.3f} to "
            f"{_sum_of(after):.3f}, and D becomes {after.divergence[0]:.3f}."
        )
    else:
        return
    yield Advice("relabel", text + checked, told, held_out=elsewhere is not None)


def _sum_of(found: Degrees) -> float:
    return float(found.unreliability[0] + found.ambiguity[0])


def _is_learnable(found: Degrees) -> bool:
    return bool(min(found.margin[0], found.class_margin[0]) > 0)


def rows_to_relabel(
    weights: np.ndarray, labels: np.ndarray, k: int, kind: Kind, *, budget: int, flip: bool
) -> tuple[np.ndarray, dict[tuple[int, int], int]]:
    """Return rows to relabel with their truth, in order, and how many of every pair.

    Again and again, the worst pair (y, i) gives up the row of class y that holds i most and y
    least: of the class that is lost by most, else the pair at which γ is attained; until the budget
    is spent. Beyond a thousand rows they go by the thousandth.

    Args:
      weights: `[N, C]` membership in the sets.
      labels: `[N]` true classes.
      k: size of the sets.
      kind: candidate sets become the truth alone; top-k sets keep k classes, the others at random.
      budget: most rows to relabel.
      flip: whether to stop as soon as Δ + γ < 1 and no class is lost.
    """
    num_classes = weights.shape[1]
    examples = np.bincount(labels, minlength=num_classes)
    sums = np.stack([weights[labels == y].sum(axis=0) for y in range(num_classes)])
    truth, wrong = np.diagonal(sums).copy(), sums
    np.fill_diagonal(wrong, -np.inf)
    present = np.flatnonzero(examples)
    largest = wrong.max(axis=1)
    rest = 0.0 if kind is Kind.SETS else (k - 1) / (num_classes - 1)
    untouched = np.ones(len(labels), bool)
    queues: dict[tuple[int, int], np.ndarray] = {}
    chosen: list[np.ndarray] = []
    pairs: dict[tuple[int, int], int] = {}
    batch = max(1, len(labels) // 1000)
    spent = 0
    while spent < budget:
        ambiguity = largest[present] / examples[present]
        margins = (truth[present] - largest[present]) / examples[present]
        margin = truth.sum() / len(labels) - ambiguity.max()
        if flip and min(margin, margins.min()) > _ROUNDING:
            break
        lost = margins.min() <= _ROUNDING
        y = int(present[margins.argmin() if lost else ambiguity.argmax()])
        pair = y, i = y, int(wrong[y].argmax())
        if pair not in queues:
            of_class = np.flatnonzero((labels == y) & (weights[:, i] > rest))
            order = np.argsort(weights[of_class, y] - weights[of_class, i], kind="stable")
            queues[pair] = of_class[order]
        queue = queues[pair][untouched[queues[pair]]]
        rows, queues[pair] = np.split(queue, [min(batch, budget - spent)])
        if len(rows) == 0:
            break
        untouched[rows] = False
        truth[y] += len(rows) - weights[rows, y].sum()
        wrong[y] += len(rows) * rest - weights[rows].sum(axis=0)
        largest[y] = wrong[y].max()
        chosen.append(rows)
        pairs[pair] = pairs.get(pair, 0) + len(rows)
        spent += len(rows)
    return np.concatenate(chosen) if chosen else np.zeros(0, np.int64), pairs


def _relabelled(trial: Trial, rows: np.ndarray) -> np.ndarray:
    """Return the weights once these rows say the truth alone."""
    weights = trial.weights.copy()
    num_classes = weights.shape[1]
    weights[rows] = 0 if trial.kind is Kind.SETS else (trial.k - 1) / (num_classes - 1)
    weights[rows, trial.labels[rows]] = 1
    return weights


def _relabelled_elsewhere(
    trial: Trial, budget: int, *, flip: bool
) -> tuple[Degrees, Degrees] | None:
    """Return the indicators of the second half, before and after pairs chosen on the first go."""
    first, second = trial.halves
    if not (first.any() and second.any()):
        return None
    weights, labels = trial.weights, trial.labels
    half_budget = max(1, round(budget * first.mean()))
    _, pairs = rows_to_relabel(
        weights[first], labels[first], trial.k, trial.kind, budget=half_budget, flip=flip
    )
    there = np.bincount(labels[first], minlength=weights.shape[1])
    here = np.bincount(labels[second], minlength=weights.shape[1])
    rows = []
    for (y, i), count in pairs.items():
        of_class = np.flatnonzero(second & (labels == y))
        order = np.argsort(weights[of_class, y] - weights[of_class, i], kind="stable")
        rows.append(of_class[order[: round(count / there[y] * here[y])]])
    changed = _relabelled(trial, np.concatenate(rows) if rows else np.zeros(0, np.int64))
    return degrees_of(weights[second], labels[second]), degrees_of(changed[second], labels[second])


def _pairs_in_words(audit: Audit, pairs: dict[tuple[int, int], int], scale: float) -> str:
    most = sorted(pairs.items(), key=lambda one: -one[1])
    words = [
        f"{round_up(count * scale) if scale > 1 else count:,} of {audit.classes[y]} seen as "
        f"{audit.classes[i]}"
        for (y, i), count in most[:3]
    ]
    if len(most) > 3:
        others = len(most) - 3
        words.append(f"the rest of {others} other pair{'s' if others > 1 else ''}")
    return ", ".join(words)
