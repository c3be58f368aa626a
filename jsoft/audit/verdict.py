"""The answer of an audit in words: the verdict, and which k to use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jsoft.audit.trials import confidence, percent, round_up, rows_in_words, times
from jsoft.label_kinds import Kind

if TYPE_CHECKING:
    from jsoft.audit.core import Audit
    from jsoft.audit.labelled import Labelled


def verdict(audit: Audit) -> str:
    """Return the answer in one sentence, or in two where one class is the exception."""
    known, sure = audit.labelled, confidence(audit.alpha)
    if known is None:
        return _verdict_without_labels(audit)
    found = known.degrees
    place = audit.place
    total = found.unreliability[place] + found.ambiguity[place]
    sets = sets_in_words(audit, place)
    cells = known.frequencies[:, place]
    limit = known.limits.unreliability[place, 1] + known.limits.ambiguity[place, 1]
    if audit.status == "certified":
        return (
            f"Learnable by {sets}, certified at {sure}: Δ + γ = {total:.3f}, at most "
            f"{limit:.3f}, is below 1."
        )
    if audit.status == "learnable" and audit.is_below_one(place):
        y, i = known.classes_kept[audit.ks[place]].worst_pair
        return (
            f"Learnable by {sets} on this sample: Δ + γ < 1 is certified at {sure} "
            f"({total:.3f}, at most {limit:.3f}), but not that {audit.classes[y]} is seen as "
            f"itself more often than as {audit.classes[i]} ({percent(cells[y, y])} against "
            f"{percent(cells[y, i])} of its {rows_in_words(known.examples[y])})."
        )
    if audit.status == "learnable":
        return (
            f"Learnable on this sample by {sets} (Δ + γ = {total:.3f}), not certified at "
            f"{sure}: {_what_would_certify(audit, known)}."
        )
    if found.class_margin[place] <= 0:
        sum_of = f"Δ + γ = {total:.3f}" + (
            ", not below 1" if found.margin[place] <= 0 else " notwithstanding"
        )
        sure_of_it = bool(known.class_lost[place])
        y, i = known.lost_pair[place] if sure_of_it else found.class_pair[place]
        often = "more often than" if cells[y, i] > cells[y, y] else "no less often than"
        return (
            f"Not learnable by {sets}{'' if sure_of_it else ' on this sample'}: {audit.classes[y]} "
            f"is seen as {audit.classes[i]} {often} as itself ({percent(cells[y, i])} against "
            f"{percent(cells[y, y])} of its {rows_in_words(known.examples[y])}), {sum_of}."
        )
    return (
        f"Not shown to be learnable by {sets}: Δ + γ = {total:.3f} is not below 1, although every "
        f"class is seen as itself more often than as any other, by {found.class_margin[place]:.3f} "
        "or more."
    )


def sets_in_words(audit: Audit, place: int) -> str:
    """Return what the learner sees, such as "top-2 sets"."""
    return "these candidate sets" if audit.kind is Kind.SETS else f"top-{audit.ks[place]} sets"


def _what_would_certify(audit: Audit, known: Labelled) -> str:
    missing = [audit.classes[y] for y in np.flatnonzero(known.examples == 0)]
    if missing:
        if len(missing) <= 2:
            return (
                f"{' and '.join(missing)} {'have' if len(missing) > 1 else 'has'} no labelled row"
            )
        return f"{missing[0]} and {len(missing) - 1} other classes have no labelled row"
    if known.rows_needed is None:
        return (
            "with ties decided against the labels Δ + γ is 1 or more, or a class is lost, and no "
            "more rows help"
        )
    more = max(1, known.rows_needed - int(known.examples.sum()))
    at = "" if known.rows_needed_k == audit.ks[audit.place] else f" at k = {known.rows_needed_k}"
    plural = "s" if more > 1 else ""
    return f"about {round_up(more):,} more labelled row{plural} would certify it{at}"


def _verdict_without_labels(audit: Audit) -> str:
    found, place = audit.degrees, audit.best
    total = found.unreliability[place] + found.ambiguity[place]
    below = found.margin[place] > 0
    but = f", but {_lost(audit, place)}" if below and found.class_margin[place] <= 0 else ""
    return (
        "Whether these labels can teach is not known without true labels; if they are calibrated, "
        f"{sets_in_words(audit, place)} have Δ + γ = {total:.3f}, "
        f"{'below' if below else 'not below'} 1{but}."
    )


def best_k_in_words(audit: Audit) -> str:
    """Return which k to use and why, and which the verdict speaks of if that is another."""
    if audit.place == audit.best:
        return _best_k(audit)
    verdict_k = audit.ks[audit.place]
    return f"{_best_k(audit)} The verdict speaks of k = {verdict_k}, of which more is certified."


def _best_k(audit: Audit) -> str:
    found = audit.degrees
    if audit.kind is Kind.SETS:
        value = found.divergence[0]
        return (
            f"D = {value:.3f}: a learner needs about {times(1 / value)} the rows that it "
            "needs of true labels."
            if value > 0
            else "D = 0: no number of rows is enough."
        )
    k, best = audit.ks[audit.best], audit.best
    given = len(audit.considered) == 1 and len(audit.ks) > 1
    if found.divergence[best] <= 0:
        if given and found.divergence.max() > 0:
            return f"k was given as {k}, where D = 0; {_other_k(audit)}."
        return f"No k looked at has Δ + γ < 1, so D = 0 for all of them; below, k = {k}."
    if found.class_margin[best] <= 0:
        if given:
            return f"k was given as {k}, where {_lost(audit, best)}; {_other_k(audit)}."
        return (
            "At every k looked at, a class is seen as another at least as often as itself or "
            f"Δ + γ ≥ 1; D is largest at k = {k}."
        )
    reason = (
        f"{'k was given as' if given else 'Best k ='} {k}: D = {found.divergence[best]:.3f}, so a "
        f"learner of the sets needs about {times(1 / found.divergence[best])} the rows that it "
        "needs of true labels"
    )
    return f"{reason}; {_other_k(audit)}." if len(audit.ks) > 1 else f"{reason}."


def _other_k(audit: Audit) -> str:
    """Return what the largest D at another k is, and at what cost."""
    found, best = audit.degrees, audit.best
    others = np.where(np.arange(len(audit.ks)) == best, -1, found.divergence)
    place = int(others.argmax())
    k, largest = audit.ks[place], found.divergence[place]
    if largest <= 0:
        return "every other k has Δ + γ of 1 or more"
    if largest <= found.divergence[best]:
        ratio = times(found.divergence[best] / largest)
        return f"k = {k}, next, has {largest:.3g}, {ratio} less"
    but = f", but there {_lost(audit, place)}" if found.class_margin[place] <= 0 else ""
    return f"k = {k} has a larger D ({largest:.3f}){but}"


def _lost(audit: Audit, place: int) -> str:
    y, i = (audit.classes[j] for j in audit.degrees.class_pair[place])
    return f"{y} is seen as {i} at least as often as itself"
