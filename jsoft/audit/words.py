"""An audit in words: what each finding means."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from jsoft.audit.trials import confidence, percent
from jsoft.label_kinds import Kind

if TYPE_CHECKING:
    from jsoft.audit.core import Audit


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
