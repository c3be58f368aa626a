"""Audit: is this set of soft labels good enough to learn from, how sure is that, and what to do?

    print(audit(soft_labels, labels))

One pass counts the top-k sets for every k at once (`counts`); the rest is arithmetic on
counts (`arithmetic`), certificates (`certificates`) and trials of remedies on random halves of
the rows (`advice`). Δ, γ, κ and the condition Δ + γ < 1 are those of "Learning From Biased
Soft Labels" (arXiv 2302.08155); D, the limits and the certificates are derived here.

Ties count as chosen for the indicators, and against the labels in every limit. Limits and the
certificate pay for all k that were looked at. Several draws of one row are all counted for the
indicators; limits see the first of each row, since draws of one row resemble each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from jsoft.audit import arithmetic, door
from jsoft.audit.advice import advise, advise_without_labels
from jsoft.audit.arithmetic import Degrees
from jsoft.audit.counts import Tally, tally
from jsoft.audit.labelled import Labelled, Ties, look_with_labels
from jsoft.audit.rows import fingerprints, num_repeated, random_rows
from jsoft.audit.trials import Advice
from jsoft.audit.unlabelled import Unlabelled, look_without_labels
from jsoft.label_kinds import Kind, check, detect

Status = Literal["certified", "learnable", "not_learnable", "unknown"]

# Looked at by default: all k of up to eleven classes, which is where the right one hides.
_DEFAULT_MAX_K = 10
# What remedies are tried on, in numbers: a sample of the rows where there are more, but never
# fewer than two thousand rows.
_SAMPLE = 1_000_000


@dataclasses.dataclass(frozen=True)
class Audit:
    """What soft labels can teach, how sure that is, what is wrong where, and what to do.

    `str()` of it, `text` and `html` are for people, `to_json` for programs.

    Attributes:
      rows: number of rows looked at.
      classes: names of the classes.
      kind: what the numbers are.
      draws: labels of every row.
      alpha: 1 − confidence.
      ties: how ties count in the indicators.
      ks: all k looked at; (1,) for candidate sets, which have none.
      considered: the k that the certificate was free to choose from.
      best: place in `ks` of the k to use, see `arithmetic.best_place`.
      unlabelled: what can be known without true labels.
      labelled: what the true labels tell; None without.
      advice: what to do, most useful first.
    """

    rows: int
    classes: tuple[str, ...]
    kind: Kind
    draws: int
    alpha: float
    ties: Ties
    ks: tuple[int, ...]
    considered: tuple[int, ...]
    best: int
    unlabelled: Unlabelled
    labelled: Labelled | None
    advice: tuple[Advice, ...]

    @property
    def status(self) -> Status:
        """In one word: certified, learnable (on this sample), not_learnable, unknown.

        Not learnable are labels with Δ + γ ≥ 1, and those with a class that is seen as another at
        least as often as itself: there the learner of the sets errs in the limit, however small Δ
        is on average.
        """
        if self.labelled is None:
            return "unknown"
        found = self.labelled.degrees
        if found.margin[self.place] <= 0 or found.class_margin[self.place] <= 0:
            return "not_learnable"
        sure = self.is_below_one(self.place) and self.keeps_classes(self.place)
        return "certified" if sure else "learnable"

    @property
    def certified(self) -> bool:
        """Whether Δ + γ < 1, and that no class is the exception, are certified at one k.

        Each of the two is tested with confidence 1 − α for all k considered, so both together are
        claimed wrongly with chance α at most.
        """
        return self.status == "certified"

    def is_below_one(self, place: int) -> bool:
        """Whether the upper limits add up to less than 1."""
        assert self.labelled is not None
        limits = self.labelled.limits
        return bool(limits.unreliability[place, 1] + limits.ambiguity[place, 1] < 1)

    def keeps_classes(self, place: int) -> bool:
        """Whether every class is certified to be seen as itself more often than as any other."""
        assert self.labelled is not None
        kept = self.labelled.classes_kept[self.ks[place]].certified
        return kept and bool(self.labelled.degrees.class_margin[place] > 0)

    @property
    def degrees(self) -> Degrees:
        """Δ, γ and what follows, for every k; without true labels, as if they were calibrated."""
        found = self.unlabelled.if_calibrated if self.labelled is None else self.labelled.degrees
        assert found is not None
        return found

    @property
    def place(self) -> int:
        """Place of the k that the verdict speaks of: the best, unless more is certified of another.

        Limits and tests hold for all k considered at once, so whatever is certified at any of them
        is. A k at which a class is lost is no alternative.
        """
        if self.labelled is None:
            return self.best
        found = self.labelled.degrees

        def order(place: int) -> tuple[int, bool, float]:
            below_one = self.is_below_one(place) and bool(found.class_margin[place] > 0)
            certainty = below_one + (below_one and self.keeps_classes(place))
            return certainty, place == self.best, float(found.divergence[place])

        return max((self.ks.index(k) for k in self.considered), key=order)

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        from jsoft.audit.verdict import verdict

        return verdict(self)

    def text(self, width: int = 80, color: bool = False) -> str:
        """Return the audit for a terminal of `width` columns."""
        from jsoft.audit.screen import text

        return text(self, width=width, color=color)

    def html(self, command: str = "") -> str:
        """Return the report, one page that needs no other file, with the `command` in it."""
        from jsoft.audit.report import page

        return page(self, command)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain numbers, words, lists and dicts; None where nothing is known.

        `jsoft.audit.tables` says what stands under which key. `schema_version` grows when a key
        changes its meaning or goes; new keys may come.
        """
        from jsoft.audit.tables import as_dict

        return as_dict(self)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<Audit of {self.rows:,} rows × {len(self.classes)} classes: {self.verdict}>"

    def _repr_html_(self) -> str:
        from jsoft.audit.report import fragment

        return fragment(self)


def audit(
    soft_labels: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    kind: Kind | str | None = None,
    classes: Sequence[str] | None = None,
    where: np.ndarray | None = None,
    k: int | None = None,
    max_k: int | None = None,
    alpha: float = 0.05,
    ties: Ties = "fractional",
    progress: bool = False,
) -> Audit:
    """Return what the soft labels can teach, how sure that is, and what would help.

    The indicators, for every k up to `max_k`, are those of `indicators.measure`, the certificate
    that of `certificates.certify` over the k looked at. Memory does not grow with N beyond a few
    numbers a row; `soft_labels` may be memory-mapped.

    Args:
      soft_labels: `[N, C]` numbers, or `[N, R, C]` for R draws of every row.
      labels: `[N]` integers, the true classes, −1 where unknown; without, the audit says what can
        be known without truth.
      kind: what the numbers are: probabilities, logits, votes or sets; found out by default, and
        asked for where two readings are possible.
      classes: names of the C classes.
      where: `[N]` booleans, the rows that count (all by default).
      k: size of the top-k sets if it was fixed beforehand; else the best of 1 … `max_k` is chosen,
        and the certificate pays for the choice.
      max_k: largest k, 1 … C − 1 (the lesser of 10 and C − 1 by default).
      alpha: 1 − confidence, in (0, 1).
      ties: how ties count in the indicators: "fractional" (at random), "first" (to the lower
        index) or "pessimistic" (against the labels).
      progress: whether to show a bar where the count takes more than ten seconds.

    Raises:
      TypeError, ValueError: an argument of wrong type, shape or range; labels that are not of the
        kind, or could be of two.

    Δ, γ and the condition: arXiv 2302.08155; the rest is derived here.

    >>> soft_labels = np.tile([[0.7, 0.3], [0.4, 0.6]], (50, 1))
    >>> print(audit(soft_labels, np.tile([0, 1], 50), classes=["cat", "dog"]).verdict)
    Learnable by top-1 sets, certified at 95 %: Δ + γ = 0.000, at most 0.107, is below 1.
    """
    soft_labels = np.asanyarray(soft_labels)  # a memory map stays one
    where = None if where is None else np.asarray(where)
    if kind is None:
        kind = detect(soft_labels, where=where)
    else:
        kind = door.known_kind(kind)
        check(soft_labels, kind, where=where)
    num_classes = soft_labels.shape[-1]
    names = door.class_names(classes, num_classes)
    labels = door.known_labels(labels, len(soft_labels), num_classes, where)
    ks = door.looked_at(k, max_k, num_classes, _DEFAULT_MAX_K, kind)
    door.check_options(alpha, ties)

    kept = np.arange(len(soft_labels)) if where is None else np.flatnonzero(where)
    fingerprint = fingerprints(soft_labels)
    sample_size = max(2000, _SAMPLE // soft_labels[0].size)
    sampled, in_first = random_rows(fingerprint, labels, kept, sample_size)
    unlabelled = look_without_labels(
        soft_labels[np.sort(sampled)],
        kind,
        max_k=len(ks),
        repeated=num_repeated(fingerprint[kept]),
        calibrated=bool((labels < 0).all()),
    )
    considered = ks if k is None else (k,)
    found = Audit(
        rows=len(kept),
        classes=names,
        kind=kind,
        draws=soft_labels.shape[1] if soft_labels.ndim == 3 else 1,
        alpha=alpha,
        ties=ties,
        ks=ks,
        considered=considered,
        best=0 if k is None else ks.index(k),
        unlabelled=unlabelled,
        labelled=None,
        advice=(),
    )
    if (labels < 0).all():
        best = unlabelled.best_if_calibrated if k is None else found.best
        advice = advise_without_labels(unlabelled, best, ks[best], kind, alpha / len(considered))
        return dataclasses.replace(found, best=best, advice=advice)

    counted, first = _count(soft_labels, labels, kind, len(ks), progress)
    known = look_with_labels(counted, first, kind, considered=considered, alpha=alpha, ties=ties)
    best = arithmetic.best_place(known.degrees) if k is None else found.best
    found = dataclasses.replace(found, best=best, labelled=known)
    if (labels[kept] < 0).any():
        with_truth = np.flatnonzero(labels >= 0)
        sampled, in_first = random_rows(fingerprint, labels, with_truth, sample_size)
    advice = advise(found, counted, soft_labels[sampled], labels[sampled], in_first)
    return dataclasses.replace(found, advice=advice)


def _count(
    soft_labels: np.ndarray, labels: np.ndarray, kind: Kind, max_k: int, progress: bool
) -> tuple[Tally, Tally]:
    """Return the counts of all draws, and of the first of each row."""
    from tqdm import tqdm

    shown = {"unit": "row", "unit_scale": True, "delay": 10, "disable": not progress}
    with tqdm(total=len(labels), **shown) as bar:
        counted = tally(soft_labels, labels, kind=kind, max_k=max_k, advance=bar.update)
    if soft_labels.ndim == 2:
        return counted, counted
    return counted, tally(soft_labels[:, 0], labels, kind=kind, max_k=max_k)
