"""An audit in words: the verdict, and what each finding means."""

from __future__ import annotations

import re
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
    y, i = (audit.classes[j] for j in found.class_pair[place])
    cells = known.frequencies[:, place]
    seen = cells[found.class_pair[place][0], found.class_pair[place][1]]
    itself = cells[found.class_pair[place][0], found.class_pair[place][0]]
    rows = known.examples[found.class_pair[place][0]]
    often = "more often than" if seen > itself else "no less often than"
    confused = (
        f"{y} is seen as {i} {often} as itself ({percent(seen)} against {percent(itself)} of its "
        f"{rows_in_words(rows)})"
    )
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
        here = "" if known.class_lost[place] else " on this sample"
        return f"Not learnable by {sets}{here}: {confused}, {sum_of}."
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


def indicators_in_words(audit: Audit) -> tuple[str, str]:
    """Return what Δ and γ say of these labels, a sentence each."""
    known = audit.labelled
    found = audit.degrees
    place = audit.place
    y, i = (audit.classes[j] for j in found.worst_pair[place])
    k = audit.ks[place]
    if audit.kind is Kind.SETS:
        within, beside = "not in the set", "is in the set too"
    elif k == 1:
        within, beside = "not the class that the label puts first", "is put first instead"
    else:
        within = f"not among the {k} classes that the label puts first"
        beside = f"is among the first {k} too"
    would = "" if known is not None else "If these labels were calibrated: "
    return (
        f"{would}Δ = {found.unreliability[place]:.4f}: in "
        f"{percent(found.unreliability[place])} of the rows the true class is {within}.",
        f"γ = {found.ambiguity[place]:.4f}: no wrong class comes along more often than {i} does "
        f"with {y}, which in {percent(found.ambiguity[place])} of the rows of {y} {beside}.",
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


def worst_pairs(audit: Audit, count: int) -> list[tuple[int, int, float]]:
    """Return the pairs (true, wrong, frequency) that share a set most often, at the best k."""
    assert audit.labelled is not None
    cells = audit.labelled.frequencies[:, audit.best].copy()
    np.fill_diagonal(cells, np.nan)
    flat = np.argsort(-np.nan_to_num(cells, nan=-1), axis=None, kind="stable")[:count]
    pairs = [(*divmod(int(j), len(cells)), float(cells.flat[j])) for j in flat]
    return [(y, i, share) for y, i, share in pairs if share > 0]


def mean_label_in_words(audit: Audit) -> str:
    """Return μ and what it means for ordinary distillation."""
    known = audit.labelled
    assert known is not None
    margins = np.where(np.isnan(known.mean_margins), np.inf, known.mean_margins)
    y = int(margins.argmin())
    mu = margins[y]
    row = np.where(np.arange(len(margins)) == y, -np.inf, known.mean_labels[y])
    i = audit.classes[int(row.argmax())]
    y = audit.classes[y]
    if mu > 0 and (known.examples == 0).any():
        return (
            f"Mean-label margin μ = {mu:.3f} > 0: in every class with labelled rows the labels "
            f"prefer the truth on average, least in {y} (over {i})."
        )
    if mu > 0:
        return (
            f"Mean-label margin μ = {mu:.3f} > 0: in every class the labels prefer the truth on "
            f"average, least in {y} (over {i}), so ordinary distillation (cross-entropy with the "
            "labels as they are) has the right classes in the limit, if errors depend on the class "
            "alone."
        )
    more, learns = (
        ("more than", f"learns {y} as {i}") if mu < 0 else ("as much as", f"mixes {y} up with {i}")
    )
    return (
        f"Mean-label margin μ = {mu:.3f} ≤ 0: on average the labels of {y} give {i} {more} the "
        f"truth, so ordinary distillation (cross-entropy with the labels as they are) {learns}."
    )


def student_loss(audit: Audit) -> tuple[str, str]:
    """Return the name of the loss to train a student with, and why; "none" if none is consistent.

    Consistent, that is right in the limit if errors depend on the class alone, where every class is
    in its own sets more often than any other: the average loss for sets of one size and the
    membership loss for any; the superset log loss if Δ = 0 or all wrong classes are alike.
    Cross-entropy with the raw labels is iff μ > 0, whatever Δ and γ are. Derived here.
    """
    known = audit.labelled
    assert known is not None
    place = audit.place
    found = known.degrees
    raw_works = np.nanmin(known.mean_margins) > 0
    if found.class_margin[place] <= 0:
        if raw_works:
            return "soft_cross_entropy", (
                "the sets do not separate the classes, but the mean labels do (μ > 0)"
            )
        return "none", "neither the sets nor the mean labels (μ ≤ 0) lead to the truth"
    too = raw_works and (known.examples > 0).all()
    also = "; cross-entropy with the raw labels would do too (μ > 0)" if too else ""
    if found.margin[place] <= 0:
        name = "membership_logistic_loss" if audit.kind is Kind.SETS else "average_loss"
        return name, (
            "Δ + γ is not below 1, but every class is in its own sets more often than any other, "
            f"which is enough if errors depend on the class alone{also}"
        )
    if audit.kind is Kind.SETS and found.unreliability[place] == 0:
        return "superset_log_loss", (
            "in no labelled row does a set miss the truth (Δ = 0); if some do, "
            f"membership_logistic_loss{also}"
        )
    if audit.kind is Kind.SETS:
        return "membership_logistic_loss", (
            f"consistent under Δ + γ < 1 for sets of any size; the superset log loss is not, "
            f"as Δ > 0{also}"
        )
    if audit.ks[place] == 1:
        return "average_loss", (
            f"with k = 1 it is cross-entropy with the first class of every label, consistent "
            f"under Δ + γ < 1{also}"
        )
    return "average_loss", (
        f"consistent under Δ + γ < 1 with top-{audit.ks[place]} sets; the superset log loss is "
        f"not in general where Δ > 0{also}"
    )


def kept_together(words: str) -> str:
    """Return words with no line break inside "7.8 %", "k = 1" and the like."""
    return re.sub(
        r" (?=[%=<>≤]|together\b)|(?<=[=<>≤]) |(?<=[Δγ]) (?=\+)|(?<=\+) (?=γ)", "\u00a0", words
    )


def loss_in_words(audit: Audit) -> str:
    """Return the loss to train a student with, and why, as a sentence."""
    name, reason = student_loss(audit)
    if name == "none":
        return f"Student loss: none is consistent; {reason}."
    return f"Student loss: jsoft.{name}; {reason}."


def size_in_words(audit: Audit) -> str:
    """Return what was looked at."""
    draws = f", {audit.draws} draws each" if audit.draws > 1 else ""
    labelled = "none" if audit.labelled is None else f"{audit.labelled.examples.sum():,}"
    return (
        f"{audit.rows:,} rows × {len(audit.classes)} classes, {audit.kind}{draws}; "
        f"{labelled} with a true label"
    )


def without_labels_in_words(audit: Audit) -> list[str]:
    """Return what is known without true labels, as sentences."""
    found = audit.unlabelled
    of = "" if found.sampled == audit.rows else f" (from {found.sampled:,} rows drawn at random)"
    lines = []
    if found.set_sizes is not None:
        least, middle, most = found.set_sizes
        lines.append(f"Sets hold {least} to {most} classes, {middle:g} in the median{of}.")
    else:
        lines.append(
            f"The first class has a probability of {found.top_probability:.3f} on average{of}: the "
            "accuracy of the first class, if the labels are calibrated."
        )
    full = np.log2(len(audit.classes))
    lines.append(f"Mean entropy {found.entropy:.2f} bits of {full:.2f}.")
    if found.tied.size and found.tied[audit.best] > 0:
        k = audit.ks[audit.best]
        lines.append(f"{percent(found.tied[audit.best])} of the rows tie at place {k}.")
    if found.repeated:
        repeated = "row repeats" if found.repeated == 1 else "rows repeat"
        share = percent(found.repeated / audit.rows)
        lines.append(f"{found.repeated:,} {repeated} an earlier one ({share}).")
    if found.constant:
        lines.append(f"{percent(found.constant)} of the rows prefer no class at all.")
    order = np.argsort(-found.first_share, kind="stable")
    most, least = order[0], order[-1]
    lines.append(
        f"First most often: {audit.classes[most]} ({percent(found.first_share[most])}); least "
        f"often: {audit.classes[least]} ({percent(found.first_share[least])})."
    )
    return lines


def certificate_in_words(audit: Audit) -> list[str]:
    """Return the certificates with their population and assumptions, as sentences."""
    known, place = audit.labelled, audit.place
    assert known is not None
    missed, joined = known.limits.unreliability[place, 1], known.limits.ambiguity[place, 1]
    at = "" if audit.kind is Kind.SETS else f" at k = {audit.ks[place]}"
    lines = [
        f"Δ + γ < 1{at}: {_certified(missed + joined < 1)}. Δ ≤ {missed:.4f} and γ ≤ {joined:.4f}, "
        f"together {missed + joined:.4f}, with {confidence(audit.alpha)} confidence."
    ]
    paid = len(audit.considered)
    if paid > 1:
        lines.append(f"That pays for the choice among {paid} k: each is tested at α/{paid}.")
    elif audit.kind is not Kind.SETS:
        lines.append("Valid if k was fixed without these rows.")
    paired = known.classes_kept[audit.ks[place]]
    y, i = (audit.classes[j] for j in paired.worst_pair)
    p = f"p = {paired.p_value:.2g} at the worst pair, {y} with {i}"
    p = p if paired.p_value > 1e-300 else "p < 1e-300 at every pair"
    kept = _certified(paired.certified)
    lines.append(f"Every class seen as itself more often than as any other{at}: {kept} ({p}).")
    lines.append(f"About {known.certificate.population}.")
    lines.append(
        "Consistent and 'in the limit' suppose that labels err at random given the true class. "
        "With one label a row from a fixed teacher, a student that can copy the teacher learns its "
        "errors too (docs/theory.md 4.9)."
    )
    return lines


def _certified(sure: bool) -> str:
    return "certified" if sure else "not certified"
