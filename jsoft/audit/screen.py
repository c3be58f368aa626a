"""An audit for a terminal: words and tables that fit its width, in colour where that is wanted."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from jsoft.audit import words
from jsoft.audit.verdict import best_k_in_words, verdict
from jsoft.label_kinds import Kind

if TYPE_CHECKING:
    from jsoft.audit.core import Audit

_MOST_ROWS = 12  # of the table over k
_MOST_PAIRS = 5
_MOST_ADVICE = 5


def text(audit: Audit, *, width: int, color: bool) -> str:
    """Return the audit for a terminal of `width` columns."""
    width = max(40, width)
    paint = _painter(color)
    tone = {"certified": "32", "learnable": "33", "not_learnable": "31", "unknown": "36"}
    wrap = _wrapper(width)
    lines = [paint(line, f"1;{tone[audit.status]}") for line in wrap(verdict(audit))]
    lines += [paint(line, "2") for line in wrap(words.size_in_words(audit))] + [""]
    lines += _table(audit, width, paint)
    lines += ["", *wrap(best_k_in_words(audit))]
    if audit.labelled is None:
        lines += ["", paint("Without true labels", "1")]
        for line in words.without_labels_in_words(audit):
            lines += wrap(line, "  ")
        lines += wrap(
            "Δ, γ, μ, the worst pairs and a certificate need true labels; the table says what they "
            "would be if the labels were calibrated.",
            "  ",
        )
    else:
        lines += ["", paint(f"Seen as another class, {_at(audit)}", "1")]
        lines += _pairs_table(audit, width)
        lines += ["", paint("Student", "1")]
        for line in (words.mean_label_in_words(audit), words.loss_in_words(audit)):
            lines += wrap(line, "  ")
        lines += ["", paint("Certificate", "1")]
        for line in words.certificate_in_words(audit):
            lines += wrap(line, "  ")
    if audit.advice:
        lines += ["", paint("Advice", "1")]
        for number, advice in enumerate(audit.advice[:_MOST_ADVICE], 1):
            lines += wrap(advice.text, f"  {number}. ")
    return "\n".join(lines)


def _at(audit: Audit) -> str:
    return "in the sets" if audit.kind is Kind.SETS else f"k = {audit.ks[audit.best]}"


def _pairs_table(audit: Audit, width: int) -> list[str]:
    pairs = words.worst_pairs(audit, _MOST_PAIRS)
    if not pairs:
        return ["  none: no wrong class was ever in a set"]
    names = [f"{audit.classes[y]} → {audit.classes[i]}" for y, i, _ in pairs]
    assert audit.labelled is not None
    cells = audit.labelled.frequencies[:, audit.best]
    longest = max(map(len, names))
    wide = min(longest, width - 10)
    lines = [
        f"  {name if len(name) <= wide else name[: wide - 1] + '…':<{wide}}  {share:>6.1%}"
        for name, (_, _, share) in zip(names, pairs, strict=True)
    ]
    if longest + 32 > width:
        return lines
    return [
        f"{line}  (as itself {cells[y, y]:.1%})"
        for line, (y, _, _) in zip(lines, pairs, strict=True)
    ]


def _table(audit: Audit, width: int, paint: Callable[[str, str], str]) -> list[str]:
    """Return the table over k: columns that do not fit are left out, the least useful first."""
    known = audit.labelled
    found = audit.degrees
    columns: dict[str, tuple[list[str], int]] = {}  # cells, and how soon it goes
    if audit.kind is not Kind.SETS:
        columns["k"] = [str(k) for k in audit.ks], 99
    columns["Δ"] = [f"{value:.4f}" for value in found.unreliability], 99
    columns["γ"] = [f"{value:.4f}" for value in found.ambiguity], 99
    columns["κ"] = [f"{value:z.4f}" for value in found.margin], 5
    columns["D"] = [f"{value:.4f}" for value in found.divergence], 99
    if known is not None:
        limits = known.limits
        sums = limits.unreliability[:, 1] + limits.ambiguity[:, 1]
        columns["Δ ≤"] = [f"{value:.4f}" for value in limits.unreliability[:, 1]], 1
        columns["γ ≤"] = [f"{value:.4f}" for value in limits.ambiguity[:, 1]], 2
        columns["Δ+γ ≤"] = [f"{value:.4f}" for value in sums], 6
    tied = audit.unlabelled.tied if known is None else known.tied
    if audit.kind is not Kind.SETS:
        columns["tied"] = [f"{value:.1%}" for value in tied], 3
    columns["γ at"] = (
        [f"{audit.classes[y]} → {audit.classes[i]}" for y, i in found.worst_pair],
        4,
    )
    while len(columns) > 4:
        wide = {name: max(len(name), *map(len, cells)) for name, (cells, _) in columns.items()}
        if sum(wide.values()) + 2 * len(wide) <= width:
            break
        del columns[min(columns, key=lambda name: columns[name][1])]
    wide = {name: max(len(name), *map(len, cells)) for name, (cells, _) in columns.items()}

    def row(cells: dict[str, str], mark: str) -> str:
        body = "  ".join(
            f"{cell:<{wide[name]}}" if name == "γ at" else f"{cell:>{wide[name]}}"
            for name, cell in cells.items()
        )
        return f"{mark} {body}".rstrip()

    lines = [paint(row({name: name for name in columns}, " "), "1")]
    learnable = found.margin[audit.best] > 0
    for place in _rows_shown(len(audit.ks), audit.best):
        if place is None:
            lines.append("  …")
            continue
        is_best = place == audit.best and learnable
        cells = {name: cells[place] for name, (cells, _) in columns.items()}
        line = row(cells, "*" if is_best and audit.kind is not Kind.SETS else " ")
        lines.append(paint(line, "1") if is_best else line)
    return lines


def _rows_shown(num_rows: int, best: int) -> Iterator[int | None]:
    """Yield the places to show, and None where some are left out."""
    if num_rows <= _MOST_ROWS:
        yield from range(num_rows)
        return
    previous = -1
    for place in sorted({*range(_MOST_ROWS - 2), best, num_rows - 1}):
        if place != previous + 1:
            yield None
        yield place
        previous = place


def _wrapper(width: int) -> Callable[..., list[str]]:
    def wrap(sentence: str, first: str = "") -> list[str]:
        lines = textwrap.wrap(
            words.kept_together(sentence), width, initial_indent=first,
            subsequent_indent=" " * len(first), break_on_hyphens=False,
        )  # fmt: skip
        return [line.replace("\u00a0", " ") for line in lines]

    return wrap


def _painter(color: bool) -> Callable[[str, str], str]:
    def paint(line: str, code: str) -> str:
        return f"\x1b[{code}m{line}\x1b[0m" if color else line

    return paint
