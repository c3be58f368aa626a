"""The audit as one HTML page that needs no other file, and as a fragment for notebooks.

Everything that came from a user (class names, the command) reaches the page through jinja2's
escaping. Pictures are drawn here as geometry and written by the template as inline SVG, so that
they follow light and dark, print well and stay small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jsoft.audit import tables, words
from jsoft.audit.trials import confidence, percent
from jsoft.audit.verdict import best_k_in_words
from jsoft.label_kinds import Kind

if TYPE_CHECKING:
    from jsoft.audit.core import Audit
    from jsoft.audit.labelled import Labelled

_MOST_CLASSES = 30  # in the picture of the ambiguity matrix
_MOST_NAMED = 12  # classes whose cells have room for a number
_MOST_CLASS_ROWS = 500  # in the table of classes

_HEADLINES = {
    "certified": "Good enough to learn from, certified",
    "learnable": "Good enough on this sample, not certified",
    "not_learnable": "Not good enough to learn from",
    "unknown": "Not known without true labels",
}


def page(audit: Audit, command: str = "") -> str:
    """Return the report as one HTML page."""
    known = audit.labelled
    context: dict[str, Any] = _shared(audit) | {
        "command": command,
        "headline": _headline(audit),
        "size": words.size_in_words(audit),
        "meaning": words.indicators_in_words(audit),
        "cards": _cards(audit),
        "plane": plane(audit),
        "facts": words.without_labels_in_words(audit),
        "versions": tables.versions(),
    }
    if known is not None:
        rows = tables.class_rows(audit, known)
        rows.sort(key=lambda row: (row["rows"] == 0, row["margin"]))
        context |= {
            "mean_label": words.mean_label_in_words(audit),
            "loss": words.student_loss(audit),
            "classes": rows[:_MOST_CLASS_ROWS],
            "classes_left_out": max(0, len(rows) - _MOST_CLASS_ROWS),
            "heat": heat(audit, known),
            "certificate": words.certificate_in_words(audit),
        }
    return _environment().get_template("page.html.jinja").render(context)


def fragment(audit: Audit) -> str:
    """Return verdict, table over k and advice as HTML for a notebook's cell."""
    context = _shared(audit) | {"size": words.size_in_words(audit)}
    return _environment().get_template("fragment.html.jinja").render(context)


def _headline(audit: Audit) -> str:
    known, place = audit.labelled, audit.place
    if audit.status != "not_learnable" or known is None or known.class_lost[place]:
        return _HEADLINES[audit.status]
    if known.degrees.class_margin[place] > 0:
        return "Not shown to be good enough to learn from"
    return "Not good enough on this sample"


def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jsoft.audit", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["tidy"] = words.kept_together
    return environment


def _shared(audit: Audit) -> dict[str, Any]:
    known = audit.labelled
    return {
        "audit": audit,
        "known": known,
        "names": audit.classes,
        "are_sets": audit.kind is Kind.SETS,
        "over_k": tables.over_k(audit),
        "best": audit.best,
        "best_k": best_k_in_words(audit),
        "confidence": confidence(audit.alpha),
    }


def _cards(audit: Audit) -> list[tuple[str, str, str]]:
    """Return the numbers that matter most: symbol, value, what it is."""
    known, place = audit.labelled, audit.place
    found = audit.degrees
    total = found.unreliability[place] + found.ambiguity[place]
    cards = []
    if audit.kind is not Kind.SETS:
        k = audit.ks[place]
        cards.append(("k", str(k), f"first class{'es make' if k > 1 else ' makes'} a set"))
    cards += [
        ("Δ", f"{found.unreliability[place]:.3f}", "truth missing from the set"),
        ("γ", f"{found.ambiguity[place]:.3f}", "worst wrong class in the set"),
    ]
    if known is None:
        return [*cards, ("Δ + γ", f"{total:.3f}", "if the labels are calibrated; below 1 is good")]
    limit = known.limits.unreliability[place, 1] + known.limits.ambiguity[place, 1]
    return [
        *cards,
        ("Δ + γ", f"{total:.3f}", f"below 1 is good; at most {limit:.3f}"),
        ("D", f"{found.divergence[place]:.3f}", "of 1 for true labels: what a row is worth"),
        ("μ", f"{np.nanmin(known.mean_margins):.3f}", "above 0, raw labels lead to the truth"),
    ]


# Pictures, in units of the SVG's view box.
_WIDTH, _HEIGHT = 560.0, 430.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 18.0, 16.0, 58.0


def plane(audit: Audit) -> dict[str, Any]:
    """Return the (Δ, γ) plane: a point and a box of limits for every k, and the line Δ + γ = 1."""
    known = audit.labelled
    found = audit.degrees
    lower = np.stack([found.unreliability, found.ambiguity], axis=1)
    upper = lower
    if known is not None:
        both = np.stack([known.limits.unreliability, known.limits.ambiguity], axis=1)
        lower, upper = both[:, :, 0], both[:, :, 1]  # [K, 2]
    widest = max(upper[:, 0].max(), found.unreliability.max())
    x_most = next(most for most in (0.1, 0.25, 0.5, 1.0) if widest <= most)
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return round(_LEFT + wide * x / x_most, 1), round(_TOP + high * (1 - y), 1)

    points, taken = [], []
    for place, k in enumerate(audit.ks):
        x, y = at(found.unreliability[place], found.ambiguity[place])
        (x0, y1), (x1, y0) = at(*lower[place]), at(*upper[place])
        taken.append((x, y))
        points.append(
            {
                "k": k,
                "x": x,
                "y": y,
                "box": (x0, y0, round(max(x1 - x0, 0.5), 1), round(max(y1 - y0, 0.5), 1)),
                "best": place == audit.best,
                "title": f"k = {k}: Δ {found.unreliability[place]:.4f}, "
                f"γ {found.ambiguity[place]:.4f}",
            }
        )
    _label(points, taken)
    start, end = at(0, 1), at(x_most, 1 - x_most)
    corner = at(0, 0)
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "points": points,
        "line": (*start, *end),
        "region": [start, end, at(x_most, 0), corner],
        "frame": (_LEFT, _TOP, wide, high),
        "x_ticks": [(at(x_most * j / 5, 0)[0], f"{x_most * j / 5:g}") for j in range(6)],
        "y_ticks": [(at(0, j / 5)[1], f"{j / 5:g}") for j in range(6)],
        "boxes": known is not None,
    }


def _label(points: list[dict[str, Any]], taken: list[tuple[float, float]]) -> None:
    """Give every point a place for its name that hides no point and no other name, or none."""
    for point in sorted(points, key=lambda one: (not one["best"], one["k"])):
        x, y = point["x"], point["y"]
        point["label"] = None
        for dx, dy, anchor in ((11, 5, "start"), (-11, 5, "end"), (0, -12, "middle"), (0, 22, "middle")):  # fmt: skip  # noqa: E501
            middle = (x + (dx + 14 * (dx > 0) - 14 * (dx < 0)), y + dy - 5)
            inside = _LEFT + 4 < middle[0] < _WIDTH - 14 and _TOP < middle[1] < _HEIGHT - _BOTTOM
            clear = all(
                abs(middle[0] - a) > 26 or abs(middle[1] - b) > 13
                for a, b in taken
                if (a, b) != (x, y)
            )
            if inside and clear:
                point["label"] = (round(x + dx, 1), round(y + dy, 1), anchor)
                taken.append(middle)
                break


def heat(audit: Audit, known: Labelled) -> dict[str, Any]:
    """Return the picture of P(class in the set | true class); of many classes, the worst."""
    cells = np.nan_to_num(known.frequencies[:, audit.best])
    off = np.where(np.eye(len(cells), dtype=bool), 0, cells)
    worst = np.argsort(-np.maximum(off.max(axis=0), off.max(axis=1)), kind="stable")
    shown = np.sort(worst[:_MOST_CLASSES])
    names = [_short(audit.classes[j]) for j in shown]
    margin = 14.0 + 8.6 * max(map(len, names))
    size = (620.0 - margin) / len(shown)
    squares = []
    for row, y in enumerate(shown):
        for column, i in enumerate(shown):
            share = cells[y, i]
            if share == 0:
                continue
            squares.append(
                {
                    "x": round(margin + column * size, 1),
                    "y": round(margin + row * size, 1),
                    "opacity": round(float(np.sqrt(share)), 3),
                    "light": share > 0.35,
                    "right": y == i,
                    "title": f"{audit.classes[y]} → {audit.classes[i]}: {percent(share)}",
                    "text": _cell_text(share) if len(shown) <= _MOST_NAMED else "",
                }
            )
    return {
        "extent": 620.0,
        "margin": margin,
        "size": round(size, 2),
        "side": round(size * len(shown), 1),
        "squares": squares,
        "names": [(round(margin + (j + 0.5) * size, 1), name) for j, name in enumerate(names)],
        "font": round(min(15.0, max(9.0, 0.7 * size)), 1),
        "left_out": len(cells) - len(shown),
    }


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"


def _cell_text(share: float) -> str:
    """Return a share in per cent, as few digits as fit."""
    return f"{100 * share:.0f}" if share >= 0.0095 else "<1"
