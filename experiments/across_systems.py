"""What the indicators say of the labels of every other system: one plane, one page.

    python -m experiments.across_systems

draws docs/figures/indicators-across-systems.png and writes docs/indicators-across-systems.md from
the tables under docs/results, in seconds. A point is a set of labels that a system makes: Δ and γ
(at the k named below), the mean label margin μ, and the accuracy of the students that learned from
it, all means over seeds. Accuracies are not comparable between systems, so each is set against that
of students of the system's own true labels, or of its best ones where it trained none of those:

    relative accuracy = (accuracy − chance)/(reference − chance)

Nothing is trained here, and what to read into it is written below by hand, without numbers.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import spearmanr

from experiments import label_pruning, label_worth, results, segmentation
from jsoft import sweep, theory

DOCS = Path("docs")
Columns = dict[str, np.ndarray]


class Labels(NamedTuple):
    """A set of labels, and what students of it reach against those of true labels."""

    name: str
    unreliability: float
    ambiguity: float
    mean_label_margin: float
    accuracy: float
    reference: float
    chance: float = 0.1

    @property
    def relative(self) -> float:
        """Accuracy above chance, against that of the reference."""
        return (self.accuracy - self.chance) / (self.reference - self.chance)


def read(experiment: str, table: str = "results", preset: str = "digits") -> Columns:
    """Return the columns of a table of the documentation."""
    found = pq.read_table(DOCS / "results" / experiment / preset / f"{table}.parquet")
    return {name: found[name].to_numpy(zero_copy_only=False) for name in found.column_names}


def where(columns: Columns, **levels: Any) -> Columns:
    """Return the rows at these levels."""
    here = np.ones(len(next(iter(columns.values()))), bool)
    for name, level in levels.items():
        here &= np.isclose(columns[name].astype(float), float(level))
    return {name: column[here] for name, column in columns.items()}


def mean(columns: Columns, name: str) -> float:
    """Return the mean over the rows that have a number."""
    return float(np.nanmean(columns[name]))


def point(name: str, rows: Columns, accuracy: str, reference: float, **names: str) -> Labels:
    """Return the labels of these rows, whose indicators may have other names."""
    usual = {x: x for x in ("unreliability", "ambiguity", "mean_label_margin")}
    found = {x: mean(rows, column) for x, column in (usual | names).items()}
    return Labels(name, **found, accuracy=mean(rows, accuracy), reference=reference)


def _weighted_soft_labels() -> list[Labels]:
    table = read("weighted_soft_labels")
    table = where(table, smoothing=0, hard_weight=1, alpha=2.25, step=table["step"].max())
    truth = mean(where(table, corruption=0), "ce_test_accuracy")
    return [
        point(f"{corruption:.0%} wrong, {loss}", rows, f"{loss.lower()}_test_accuracy", truth)
        for corruption in np.unique(table["corruption"])
        for rows in [where(table, corruption=corruption)]
        for loss in ("KD", "WSL")
    ]


def _meta_labels() -> list[Labels]:
    table, arms = read("meta_labels"), read("meta_labels", "baselines")
    table = where(table, trusted=table["trusted"].max(), train_rows=table["train_rows"].min())
    clean = where(arms, arm=0, rate=0, train_rows=table["train_rows"][0])
    truth = mean(clean, "test_accuracy")
    found = []
    for flips, rate in np.unique(np.stack([table["flips"], table["rate"]]), axis=1).T:
        name = f"{'flips' if flips else 'uniform'} {rate:.1f}"
        rows = where(table, flips=flips, rate=rate)
        begin, end = (where(rows, step=step) for step in (rows["step"].min(), rows["step"].max()))
        # Students of the given labels, which the table of learned ones lacks.
        given = where(arms, arm=0, flips=flips, rate=rate, train_rows=rows["train_rows"][0])
        begin["given"] = np.full(len(begin["step"]), mean(given, "test_accuracy"))
        found.append(point(f"{name}, given", begin, "given", truth))
        found.append(point(f"{name}, learned", end, "student_test_accuracy", truth))
    return found


def _robust_fairness() -> list[Labels]:
    table = read("robust_fairness")
    table = where(
        table, epsilon=0.12, width=32, coupled=False, imbalanced=False, epoch=table["epoch"].max()
    )
    best = max(mean(where(table, rate=r), "clean_accuracy") for r in np.unique(table["rate"]))
    columns = {"unreliability": "unreliability_1", "ambiguity": "ambiguity_1"}
    return [
        point(f"rate {rate:g}", where(table, rate=rate), "clean_accuracy", best, **columns)
        for rate in np.unique(table["rate"])
    ]


def _segmentation() -> list[Labels]:
    students, labels = read("segmentation"), read("segmentation", "labels")
    labels = where(labels, share=1)  # of all pixels
    jaccard = where(students, jdt_weight=0.75, threshold=students["threshold"].min())
    truth = mean(where(jaccard, form=segmentation.METRIC, epsilon=0), "miou_D")
    columns = {"unreliability": "unreliability_1", "ambiguity": "ambiguity_1"}
    found = []
    for epsilon in np.unique(labels["epsilon"]):
        rows = where(students, form=segmentation.METRIC, epsilon=epsilon, jdt_weight=0.75)
        told = where(labels, taught=False, epsilon=epsilon)
        found.append(_pixels(f"boundaries smoothed by {epsilon:g}", told, rows, truth, columns))
    rows, told = where(students, form=segmentation.TAUGHT, jdt_weight=0.75), where(labels, taught=1)
    found.append(_pixels("a teacher's", told, rows, truth, columns))
    return found


def _pixels(name: str, told: Columns, rows: Columns, truth: float, names: dict) -> Labels:
    """Return labels of pixels, whose students are in another table; chance is nothing here."""
    told = {**told, "miou": np.full(len(told["share"]), mean(rows, "miou_D"))}
    return point(name, told, "miou", truth, **names)._replace(chance=0.0)


def _wide_distillation() -> list[Labels]:
    table = where(read("wide_distillation"), temperature=1)
    found = []
    for rows_of_teacher in np.unique(table["teacher_rows"]):
        cell = where(table, teacher_rows=rows_of_teacher)
        truth = mean(where(cell, flips=0, soft_ratio=0), "test_accuracy")
        for flips in np.unique(table["flips"]):
            for ratio in (0.0, 0.2, 0.6, 1.0):
                name = f"teacher of {rows_of_teacher}, {flips:.0%} flipped, ρ = {ratio:g}"
                rows = where(cell, flips=flips, soft_ratio=ratio)
                found.append(point(name, rows, "test_accuracy", truth)._replace(chance=0.5))
    return found


def _molecule_search() -> list[Labels]:
    table = read("molecule_search")
    table = where(table, step=table["step"].max())
    truth = mean(table, "f_auroc")
    names = {x: f"others_{x}" for x in ("unreliability", "ambiguity", "mean_label_margin")}
    return [
        point(
            f"γ of the transport {gamma:g}" if gamma else "identity",
            where(table, gamma=gamma),
            "g_auroc",
            truth,
            **names,
        )._replace(chance=0.5)
        for gamma in np.unique(table["gamma"])
    ]


def _sibling_clips() -> list[Labels]:
    names = {x: f"unseen_{x}" for x in ("unreliability", "ambiguity", "mean_label_margin")}
    found, truth = [], float("nan")
    for table_name, kind in (("results", "one step"), ("walk", "walk")):
        table = read("sibling_clips", table_name)
        table = where(table, step=table["step"].max(), temperature=1, learnt=False)
        if kind == "one step":
            truth = mean(where(table, alpha=0), "test_accuracy")
        taught = {name: column[table["alpha"] > 0] for name, column in table.items()}
        for clips, omega in np.unique(np.stack([taught["num_clips"], taught["omega"]]), axis=1).T:
            rows = where(taught, num_clips=clips, omega=omega)
            name = f"{clips:.0f} clips, {kind}, ω = {omega:g}"
            found.append(point(name, rows, "test_accuracy", truth, **names))
    return found


def _label_worth() -> list[Labels]:
    table = read("label_worth")
    found = []
    for images in np.unique(table["images_per_class"]):
        few = where(table, images_per_class=images)
        truth = mean(where(few, kind=label_worth.KINDS.index("hard")), "test_accuracy")
        soft = where(few, kind=label_worth.KINDS.index("soft"))
        for epoch in np.unique(soft["level"]):
            rows = where(soft, level=epoch)
            name = f"{images} a class, epoch {epoch}"
            found.append(point(name, rows, "test_accuracy", truth))
    return found


def _label_pruning() -> list[Labels]:
    table = read("label_pruning")
    config = sweep.metadata(
        pq.read_table(DOCS / "results/label_pruning/digits/results.parquet", columns=[])
    )["config"]
    kinds = label_pruning.kinds_of(label_pruning.PRESETS[config["preset"]])
    columns = {"unreliability": "unreliability_1", "ambiguity": "ambiguity_1"}
    whole = where(table, compression=1)
    best = max(mean(where(whole, kind=kind), "test_accuracy") for kind in np.unique(whole["kind"]))
    return [
        point(
            f"{kinds[kind].images}: {kinds[kind]}, {ratio:g} ×",
            rows,
            "test_accuracy",
            best,
            **columns,
        )
        for kind in np.unique(table["kind"])
        for ratio in np.unique(table["compression"])
        for rows in [where(table, kind=kind, compression=ratio)]
        if len(rows["kind"])
    ]


SYSTEMS: dict[str, Callable[[], list[Labels]]] = {
    "Weighted soft labels": _weighted_soft_labels,
    "Learned labels": _meta_labels,
    "Class temperatures": _robust_fairness,
    "Pixels": _segmentation,
    "Labels of few images": _label_worth,
    "Pruned labels": _label_pruning,
    "Wide distillation": _wide_distillation,
    "Transport labels": _molecule_search,
    "Sibling labels": _sibling_clips,
}


def predictors(labels: list[Labels]) -> dict[str, np.ndarray]:
    """Return what the indicators say of each set: κ, D and μ."""
    unreliability = np.array([one.unreliability for one in labels])
    ambiguity = np.array([one.ambiguity for one in labels])
    return {
        "κ": 1 - unreliability - ambiguity,
        "D": np.asarray(theory.divergence(unreliability, ambiguity, extended=True)),
        "μ": np.array([one.mean_label_margin for one in labels]),
    }


def rank_correlation(values: np.ndarray, labels: list[Labels]) -> float | None:
    """Return Spearman's ρ with the relative accuracy; None where an indicator hardly moves."""
    if np.ptp(values) < 1e-3 or len(labels) < 4:
        return None
    return float(spearmanr(values, [one.relative for one in labels])[0])


def plot(found: dict[str, list[Labels]]) -> Figure:
    """Return the figure: all sets on one plane, and each system's accuracy against its κ."""
    figure = plt.figure(figsize=(7.2, 5.4), layout="constrained")
    panels: Any = figure.subfigures(1, 2, width_ratios=[1, 1.15])
    left, right = panels
    _plot_plane(left.subplots(), found)
    grid = right.subplots(3, 3, sharey=True).ravel()
    for axes, (name, labels) in zip(grid, found.items(), strict=True):
        _plot_system(axes, name, labels)
    grid[0].set_title("b   Weighted soft labels", loc="left", fontsize=6.5)
    right.supxlabel("κ = 1 − Δ − γ", fontsize=7)
    right.supylabel("relative accuracy of students", fontsize=7)
    return figure


MARKERS, RELATIVE = "osv^DP*Xp", (0.4, 1.1)


def _plot_plane(axes: Axes, found: dict[str, list[Labels]]) -> None:
    axes.plot([0, 1], [1, 0], color="black", linewidth=0.8)
    axes.text(0.62, 0.40, "Δ + γ = 1", rotation=-45, rotation_mode="anchor", fontsize=6.5)
    for marker, labels in zip(MARKERS, found.values(), strict=True):
        axes.scatter(
            [one.unreliability for one in labels],
            [one.ambiguity for one in labels],
            c=[one.relative for one in labels],
            marker=marker,
            s=16,
            linewidths=0.3,
            edgecolors="black",
            norm=Normalize(*RELATIVE),
            cmap="viridis",
        )
    axes.set(xlabel="unreliability Δ", ylabel="ambiguity γ", xlim=(-0.03, 1), ylim=(-0.03, 1.03))
    axes.set_title("a   Labels of nine systems", loc="left")
    handles = [
        Line2D([], [], marker=marker, linestyle="", color="0.6", markersize=4, label=name)
        for marker, name in zip(MARKERS, found, strict=True)
    ]
    axes.legend(handles=handles, loc="upper right", fontsize=6, handletextpad=0.2)
    colours = ScalarMappable(Normalize(*RELATIVE), "viridis")
    axes.figure.colorbar(
        colours, ax=axes, orientation="horizontal", label="relative accuracy", aspect=30, pad=0.02
    )


def _plot_system(axes: Axes, name: str, labels: list[Labels]) -> None:
    margin = predictors(labels)["κ"]
    axes.axvline(0, color="black", linewidth=0.6)
    axes.axhline(1, color="0.8", linewidth=0.6, zorder=0)
    axes.scatter(margin, [one.relative for one in labels], s=8, color="#0072b2", alpha=0.7)
    rho = rank_correlation(margin, labels)
    axes.set_title(name, loc="left", fontsize=6.5)
    told = "κ stands still" if rho is None else f"ρ = {rho:.2f}"
    axes.text(0.97, 0.05, told, transform=axes.transAxes, ha="right", fontsize=6)
    low = min(-0.05, margin.min() - 0.05)
    axes.set(xlim=(low, 1.05))
    axes.tick_params(labelsize=6)


def page(found: dict[str, list[Labels]]) -> str:
    """Return the page in Markdown."""
    lines = [
        "| system | sets of labels | κ | relative accuracy | ρ with κ | ρ with D | ρ with μ |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, labels in found.items():
        values = predictors(labels)
        relative = [one.relative for one in labels]
        told = [rank_correlation(column, labels) for column in values.values()]
        cells = ["stands still" if rho is None else f"{rho:.2f}" for rho in told]
        lines.append(
            f"| {name} | {len(labels)} | {_range(values['κ'])} | {_range(relative)} | "
            f"{' | '.join(cells)} |"
        )
    everyone = [one for labels in found.values() for one in labels]
    together = [rank_correlation(column, everyone) for column in predictors(everyone).values()]
    past = [
        f"{name.lower()}: {one.name} ({one.relative:.2f})"
        for name, labels in found.items()
        for one in labels
        if one.unreliability + one.ambiguity >= 1
    ]
    return string.Template(WORDS).substitute(
        table="\n".join(lines),
        sets=len(everyone),
        together=", ".join(
            f"{rho:.2f} with {name}" for name, rho in zip("κDμ", together, strict=True) if rho
        ),
        past="; ".join(past) or "none",
    )


def _range(values: Any) -> str:
    return f"{np.min(values):.2f} … {np.max(values):.2f}"


WORDS = """# Indicators across systems

Nine systems make soft labels in nine ways. Here all of them pass through the same indicators:
$sets sets of labels on one plane of unreliability Δ and ambiguity γ, coloured by what students of
them reach. Written by `python -m experiments.across_systems` from the tables under
[results](results), which `make systems` makes; means over seeds, digits throughout. Accuracy is
relative: above chance, against that of students of the true labels (or against the best of the
system, where it trained none).

![Sets of labels on the plane of Δ and γ, and relative accuracy against κ by system.][figure]

[figure]: figures/indicators-across-systems.png

$table

ρ is Spearman's, over the sets of a system. Over all sets together it is $together.

**Where they predict.** Where systems change *which class a label puts first*, and students are as
good as their labels: learned labels, where noise is taken out; distillation from teachers that
were trained on wrong labels; wide students of mixed labels, where hard ones repair the teacher;
transport plans without their diagonal, whose κ before any training points at the best regulariser
(on digits; on [molecules](systems/molecule_search.md) it does not).

**Where they do not.**

- Where labels change and their sets do not. A temperature for each class, smoothed boundaries,
  top-1 labels in the place of whole ones: Δ and γ at k = 1 stand still by construction, while
  calibration, fairness and, far enough, accuracy move. μ moves with them, not always in the same
  direction.
- Where something else is short. Students of [few images](systems/label_worth.md) do better with
  soft labels than with true ones, so more truth is not what they lack, and Δ and γ of ten or
  twenty rows are coarse: one image a class has γ of 0 or 1 in each class. Students of [pruned
  labels](systems/label_pruning.md) are told apart by the images they see.
- Where weights enter. The same teacher's labels taught with and without
  [weights](systems/weighted_soft_labels.md) are two points above each other in the first panel of
  b.
- Where differences are small. [Siblings' labels](systems/sibling_clips.md) are all within three
  points of each other, and no indicator ranks them.

**Δ + γ < 1 as a line.** Sets beyond it, with the relative accuracy of their students: $past. The
condition speaks of a learner of the sets and of the population; with ten rows to count in,
crossing it means little, and raw soft-label students follow μ. No set well below the line has
students that fail: everything below one half lies near it or has labels that are wrong more often
than not.

**Between systems** the indicators are no common currency: equal κ goes with relative accuracies
from bad to perfect, because rows, networks and losses differ. They compare labels for one learner
on one task; that is what to use them for.
"""


def main() -> None:
    """Draw the figure and write the page."""
    found = {name: labels() for name, labels in SYSTEMS.items()}
    with plt.rc_context(results.STYLE):
        figure = plot(found)
        figure.savefig(DOCS / "figures" / "indicators-across-systems.png", dpi=300)
    plt.close(figure)
    path = DOCS / "indicators-across-systems.md"
    path.write_text(page(found), encoding="utf-8")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
