"""Advice, computed: what would change the verdict or its certainty, with the numbers it changes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from jsoft.audit import arithmetic
from jsoft.audit.counts import Tally, tally
from jsoft.audit.order import weights_in_sets
from jsoft.audit.relabel import relabel
from jsoft.audit.remedies import columns, merge, set_aside, sharpen, threshold
from jsoft.audit.sample_size import rows_to_certify
from jsoft.audit.trials import (
    Advice,
    Trial,
    confidence,
    percent,
    round_up,
    rows_in_words,
    times,
)
from jsoft.audit.unlabelled import Unlabelled
from jsoft.label_kinds import Kind

if TYPE_CHECKING:
    from jsoft.audit.core import Audit
    from jsoft.audit.labelled import Labelled


def advise(
    audit: Audit, counted: Tally, values: np.ndarray, labels: np.ndarray, in_first: np.ndarray
) -> tuple[Advice, ...]:
    """Return what to do about labels whose truth is known in part.

    Args:
      audit: what was found.
      counted: the counts that it comes from.
      values: `[N, C]` or `[N, R, C]` labelled rows to try remedies on.
      labels: `[N]` their true classes.
      in_first: `[N]` whether a row is in the first half.
    """
    k = audit.ks[audit.best]
    halves = (in_first, ~in_first)
    weights = weights_in_sets(values, audit.kind)(k)
    trial = Trial(values, labels, halves, audit.kind, k, weights)
    in_halves = all(half.any() for half in halves)
    tried = [*(columns(audit, trial) if in_halves else ()), *relabel(audit, trial)]
    if in_halves:
        tried += [
            *_choose_k(audit, trial),
            *threshold(trial),
            *merge(audit, trial),
            *set_aside(audit, trial),
            *sharpen(trial),
        ]
    if audit.ties != "fractional" and audit.kind is not Kind.SETS:
        tried = [
            dataclasses.replace(one, text=f"{one.text} (Ties at random here.)") for one in tried
        ]
    return (*_more_rows(audit), *tried, *_ties(audit, counted))


def _more_rows(audit: Audit) -> Iterator[Advice]:
    known = audit.labelled
    assert known is not None
    missing = [audit.classes[y] for y in np.flatnonzero(known.examples == 0)]
    if missing:
        shown = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        yield Advice(
            "missing_classes",
            f"Label rows of {shown}: without any, nothing is known of "
            f"{'that class' if len(missing) == 1 else 'those classes'} and nothing is certified.",
            {"classes": len(missing)},
            held_out=False,
        )
    if audit.status == "not_learnable":
        yield from _doubtful_class(audit, known)
    elif audit.status == "learnable" and audit.is_below_one(audit.place):
        yield from _open_class(audit, known)
    elif known.rows_needed is not None:
        yield from _rows_needed(audit, known, known.rows_needed)


def _doubtful_class(audit: Audit, known: Labelled) -> Iterator[Advice]:
    """Yield the class to label more rows of, if it is lost on this sample, perhaps by chance."""
    place = audit.place
    if known.class_lost[place] or known.degrees.class_margin[place] > 0 or known.tied[place] > 0.5:
        return  # it is certain, or not so, or ties are what is to be mended
    pair = known.degrees.class_pair[place]
    y, i = (audit.classes[j] for j in pair)
    rows = int(known.examples[pair[0]])
    yield Advice(
        "more_rows",
        f"Label more rows of {y}: that it is seen as {i} no less often than as itself may be "
        f"chance in {rows_in_words(rows)}.",
        {"rows": rows, "class": y},
        held_out=False,
    )


def _open_class(audit: Audit, known: Labelled) -> Iterator[Advice]:
    """Yield the class to label more rows of, where it alone keeps Δ + γ < 1 from being enough."""
    k, total = audit.ks[audit.place], int(known.examples.sum())
    least = known.classes_kept[k]
    y, i = (audit.classes[j] for j in least.worst_pair)
    told: dict[str, float | int | str] = {"rows": total, "class": y, "p_value": least.p_value}
    how_many = ""
    if known.rows_needed is not None and known.rows_needed_k == k:
        there = int(known.examples[least.worst_pair[0]])
        more = round_up(max(1, math.ceil(known.rows_needed * there / total) - there))
        told["more"] = more
        how_many = f"about {more:,} "
    yield Advice(
        "more_rows",
        f"Label {how_many}more rows of {y}: whether it is seen as itself more often than as {i} is "
        f"open (p = {least.p_value:.2g}), and without that nothing is certified of {y}.",
        told,
        held_out=False,
    )


def _rows_needed(audit: Audit, known: Labelled, needed: int) -> Iterator[Advice]:
    """Yield how many more rows would be certified, or that fewer would have been."""
    sure, enough, total = confidence(audit.alpha), round_up(needed), int(known.examples.sum())
    at = "" if audit.kind is Kind.SETS else f" at k = {known.rows_needed_k}"
    if audit.status == "certified":
        more = 0
        text = (
            f"No more labelled rows are needed: about {enough:,} of such rows are enough to be "
            f"certified{at} at {sure} in nine samples of ten; you have {total:,}."
        )
    else:
        more = round_up(max(1, needed - total))
        text = (
            f"Label about {more:,} more row{'s' if more > 1 else ''}: if the shares stay as they "
            f"are, some {enough:,} in all are certified{at} at {sure} in nine samples of ten."
        )
    if more or enough < total:
        told: dict[str, float | int | str] = {"rows": total, "rows_needed": needed, "more": more}
        yield Advice("more_rows", text, told, held_out=False)


def _choose_k(audit: Audit, trial: Trial) -> Iterator[Advice]:
    if len(audit.ks) == 1:
        return
    halves = [
        tally(trial.values[half], trial.labels[half], kind=trial.kind, max_k=len(audit.ks))
        for half in trial.halves
    ]
    scores = np.stack(
        [arithmetic.order_of(arithmetic.degrees(of.fractional, of.examples)) for of in halves],
        axis=1,
    )  # [K, 2]
    average = scores.mean(axis=1)
    fixed = len(audit.considered) == 1
    best, also = (int(place) for place in scores.argmax(axis=0))
    held = float(average[best])  # chosen by either half, so found on the other
    if held <= 0 or best != also or (best != audit.best and not fixed):
        return  # the halves disagree, with each other or with all rows
    if fixed and best != audit.best:
        other = audit.best
    else:
        other = int(np.where(np.arange(len(average)) == best, -np.inf, average).argmax())
    there = float(average[other])
    told: dict[str, float | int | str] = {
        "k": audit.ks[best],
        "held_out": held,
        "other_k": audit.ks[other],
        "other": there,
    }
    cost = (
        f"top-{audit.ks[other]} sets promise nothing"
        if fixed and best != audit.best
        else "with every other k looked at, Δ + γ is 1 or more or a class is lost"
    )
    if 0 < held < 1.05 * there:
        cost = f"top-{audit.ks[other]} sets do about as well ({there:.3f})"
    elif there > 0:
        cost = (
            f"top-{audit.ks[other]} sets have {there:.3f}, so they need {times(held / there)} as "
            "many rows"
        )
    more = ""
    if best == len(audit.ks) - 1 and audit.ks[best] < len(audit.classes) - 1:
        more = " It is the largest k looked at; a larger max_k may do better."
    yield Advice(
        "choose_k",
        f"Learn from the top-{audit.ks[best]} sets: D = {held:.3f} on rows not used to choose k; "
        f"{cost}.{more}",
        told,
        held_out=True,
    )


_RULES = {
    "fractional": "at random",
    "first": "to the lower index",
    "pessimistic": "against the labels",
}


def _ties(audit: Audit, counted: Tally) -> Iterator[Advice]:
    known = audit.labelled
    assert known is not None
    if audit.kind is Kind.SETS or known.tied[audit.best] < 0.01:
        return
    sums = {}
    for rule, members in zip(
        _RULES, (counted.fractional, counted.by_index, counted.possible), strict=True
    ):
        found = arithmetic.degrees(members, counted.examples)
        sums[rule] = float(found.unreliability[audit.best] + found.ambiguity[audit.best])
    if max(sums.values()) - min(sums.values()) < 0.01:
        return
    k, tied = audit.ks[audit.best], float(known.tied[audit.best])
    told = ", ".join(
        f"{value:.3f} {'with ties broken ' if rule == 'fractional' else ''}{_RULES[rule]}"
        for rule, value in sums.items()
    )
    yield Advice(
        "ties",
        f"Break ties at random when you make top-{k} sets: {percent(tied)} of the rows tie at "
        f"place {k}, and Δ + γ is {told}.",
        {"tied": tied, **sums},
        held_out=False,
    )


def advise_without_labels(
    found: Unlabelled, best: int, k: int, kind: Kind, alpha: float
) -> tuple[Advice, ...]:
    """Return how many rows to label, should the labels be as good as they think they are.

    Args:
      found: what is known without truth.
      best: place of the k to use.
      k: that k.
      kind: candidate sets have no k.
      alpha: level that is left for each k.
    """
    assert found.if_calibrated is not None
    assert found.cells is not None
    if min(found.if_calibrated.margin[best], found.if_calibrated.class_margin[best]) <= 0:
        text = (
            "Even if these labels were calibrated, every k looked at would have Δ + γ ≥ 1 or lose "
            "a class; label a few hundred rows drawn at random to see how far they are from that."
        )
        return (Advice("more_rows", text, {}, held_out=False),)
    needed = rows_to_certify(found.cells[:, best], found.class_shares, alpha=alpha)
    if needed is None:
        return ()
    sets = "the candidate sets" if kind is Kind.SETS else f"the top-{k} sets"
    degrees = found.if_calibrated
    return (
        Advice(
            "more_rows",
            f"Label about {round_up(needed):,} rows drawn at random: if these labels are "
            f"calibrated, {sets} have Δ = {degrees.unreliability[best]:.3f} and γ = "
            f"{degrees.ambiguity[best]:.3f}, and that many are certified in nine samples of "
            "ten.",
            {"rows_needed": needed, "more": round_up(needed)},
            held_out=False,
        ),
    )
