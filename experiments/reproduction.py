"""The reproduction table: every claim, the number it should meet, ours, and a verdict.

    python -m experiments.reproduction

copies what the experiments left under results/ (all presets but `tiny`) to docs/results/, and
writes docs/reproduction.md from the summaries there. `make reproduce` runs the digits presets of
the paper's experiments first, `make systems` those of the other systems. Nothing is computed or
judged here: verdicts are those of the summaries; claims at the paper's scale that left no summary
are listed as not run, and an experiment without any is named.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

EXPERIMENTS = {
    "phase_diagram": "Where students of candidate sets learn",
    "bad_teachers": "Teachers that are wrong and teach well",
    "partial_labels": "Partial labels",
    "additive_noise": "Additive noise and privacy",
    "self_training": "Self-training",
    "bounds": "Sample complexity",
    "certificates": "Certificates",
    "measured_labels": "Labels of people and models, measured",
    "weighted_soft_labels": "Weighted soft labels",
    "meta_labels": "Labels learned by meta-learning",
    "robust_fairness": "Robust fairness: temperatures by class",
    "segmentation": "Segmentation: Jaccard metric losses",
    "label_worth": "What the labels of few images are worth",
    "label_pruning": "Fewer and smaller labels of made images",
    "wide_distillation": "Distillation in wide networks",
    "molecule_search": "Transport labels: molecule search",
    "sibling_clips": "Soft labels from sibling clips",
}
NOT_RUN = "not run (needs an accelerator)"
# Claims at the paper's scale: (experiment, preset, id, claim, source, the paper's number).
PAPER_SCALE = [
    (
        "bad_teachers",
        "paper",
        "B2",
        "CIFAR-10, WRN-28-2: a teacher below 30 % teaches a student of 90 %",
        "paper",
        "< 30 %, 90 %",
    ),
    (
        "bad_teachers",
        "paper",
        "B2",
        "CIFAR-10, WRN-28-2: a student of true labels",
        "paper (secondary source)",
        "95.29 %",
    ),
    (
        "partial_labels",
        "paper",
        "B5",
        "CIFAR-10, WRN-28-2: candidate sets with Δ = γ = 0.1",
        "paper (secondary source)",
        "93.98 %",
    ),
    (
        "weighted_soft_labels",
        "cifar10",
        "W3",
        "CIFAR-10 (JPEG), WRN-40-2 to WRN-16-2: weighted soft labels above plain distillation",
        "paper (of CIFAR-100), secondary source",
        "on CIFAR-100, resnet32x4 to resnet8x4: 76.05 % against 73.33 %",
    ),
    (
        "meta_labels",
        "cifar10",
        "M3",
        "CIFAR-10 (JPEG), 40 % uniform noise, 1,000 trusted images: labels are corrected",
        "paper (its abstract, without a number)",
        "",
    ),
    (
        "robust_fairness",
        "cifar10",
        "F1",
        "CIFAR-10 (JPEG), wide residual networks: NSD under PGD-20 falls",
        "paper (secondary source, without a number)",
        "",
    ),
    (
        "segmentation",
        "scenes64",
        "J5",
        "four digits a scene: each loss is best, or near it, on its own metric; JML above CE",
        "derived here; the paper's data and networks are not at hand",
        "",
    ),
    (
        "label_worth",
        "cifar10",
        "L1",
        "CIFAR-10 (JPEG), ConvNet: soft labels at 1 and 10 images a class",
        "paper (its tables)",
        "21.1 %, 46.3 %",
    ),
    (
        "label_pruning",
        "cifar10",
        "P2",
        "CIFAR-10 (JPEG), 50 images a class: 40 × fewer labels cost class-wise images less",
        "paper (of ImageNet-1K, its tables)",
        "46.8 % with all labels (SRe2L), 46.7 % with a fortieth",
    ),
    (
        "wide_distillation",
        "cifar10",
        "K4",
        "two classes of CIFAR-10 (JPEG), up to 10,000 examples: the best soft ratio lies inside",
        "paper (its abstract, without a number)",
        "",
    ),
    (
        "molecule_search",
        "full",
        "S1",
        "a larger encoder and ten conformers of each molecule: g above f",
        "paper (its abstract; its tables could not be read)",
        "",
    ),
    (
        "sibling_clips",
        "clips32",
        "N4",
        "a larger head: accuracy rises with the number of clips",
        "paper (of videos)",
        "MSVD-QA, 1 to 12 clips: 39.9, 41.3, 42.7, 45.5, 45.7 %",
    ),
]


def publish(results: Path, docs: Path) -> None:
    """Copy the results of every experiment and preset but tiny to the documentation."""
    for summary in sorted(results.glob("*/*/summary.json")):
        experiment, preset = summary.parts[-3:-1]
        if experiment in EXPERIMENTS and preset != "tiny":
            shutil.rmtree(docs / experiment / preset, ignore_errors=True)
            shutil.copytree(
                summary.parent,
                docs / experiment / preset,
                ignore=shutil.ignore_patterns("*.parts", "*.part"),
            )


def page(docs: Path) -> str:
    """Return the page in Markdown, from the summaries under `docs`."""
    summaries: dict[str, list[dict[str, Any]]] = {
        experiment: [
            {**json.loads(path.read_text(encoding="utf-8")), "preset": path.parent.name}
            for path in sorted(docs.glob(f"{experiment}/*/summary.json"), key=_digits_first)
        ]
        for experiment in EXPERIMENTS
    }
    rows = {
        name: [_row(s, c) for s in found for c in s["claims"]] for name, found in summaries.items()
    }
    for experiment, preset, identifier, claim, source, number in PAPER_SCALE:
        if not any(found["preset"] == preset for found in summaries[experiment]):
            rows[experiment].append(
                {
                    "id": identifier,
                    "claim": claim,
                    "source": source,
                    "command": f"`{experiment} --preset {preset}`",
                    "expected": "",
                    "paper": number,
                    "ours": "",
                    "verdict": NOT_RUN,
                }
            )
    verdicts = Counter(row["verdict"] for found in rows.values() for row in found)
    counted = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.most_common())
    sections = [
        _section(name, title, summaries[name], rows[name])
        for name, title in EXPERIMENTS.items()
        if rows[name]
    ]
    absent = [title for name, title in EXPERIMENTS.items() if not summaries[name]]
    sections += [f"No results yet: {', '.join(absent)}.\n"] if absent else []
    return "\n".join([_HEAD.format(counted=counted), *sections])


_HEAD = """# Reproduction

One row per claim, written by `make reproduce` and `make systems` from the summaries of the
experiments; nothing here is typed by hand. **{counted}.**

- *source*: **paper**, its abstract or tables say so; **paper (secondary source)**, a public reading
  note says so; **derived here**, a statement of ours, proved in [theory.md](theory.md) or where it
  is computed;
  **reconstructed**, the most plausible reading of what the available texts do not settle.
- *verdict*: **met**, **met at smaller scale** (the claim was made of larger data or networks than
  ran here), **not met** (with the reason), **not run**.
- *command*: to be read after `python -m experiments.`; digits presets run on two CPU cores.
- *ours*: mean ± standard deviation over seeds. Images called CIFAR-10 (JPEG) are a lossy copy of
  CIFAR-10 and not the equal of published figures.
"""
_COLUMNS = ("id", "claim", "source", "command", "paper", "expected", "ours", "verdict")


def _section(
    name: str, title: str, summaries: list[dict[str, Any]], rows: list[dict[str, str]]
) -> str:
    """Return the part of one experiment: provenance, table, figures."""
    lines = [f"## {title}", "", f"[`experiments/{name}.py`](../experiments/{name}.py)", ""]
    for summary in summaries:
        versions, runs = summary["versions"], sum(summary["runs"].values())
        lines.append(
            f"- `{summary['preset']}`: {f'{runs:,} runs, ' if runs else ''}"
            f"{summary['wall_seconds']:,.0f} s on {summary['device']}, {summary['date'][:10]}, "
            f"Python {versions['python']}, jax {versions['jax']}"
        )
    lines += ["", f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}"]
    lines += [f"| {' | '.join(_cell(row[column]) for column in _COLUMNS)} |" for row in rows]
    for summary in summaries:
        preset = summary["preset"]
        lines += ["", f"![{title}, preset {preset}](results/{name}/{preset}/figure.png)"]
    return "\n".join([*lines, ""])


def _row(summary: dict[str, Any], claim: dict[str, str]) -> dict[str, str]:
    """Return a claim with its command; the reason goes below the number."""
    reason = f"<br>{claim['reason']}" if claim["reason"] else ""
    return {
        **claim,
        "command": f"`{summary['experiment']} --preset {summary['preset']}`",
        "ours": claim["ours"] + reason,
    }


def _cell(text: str) -> str:
    """Return the text as it may stand in a table of Markdown."""
    return text.replace("|", "\\|").replace("\n", " ")


def _digits_first(path: Path) -> tuple[bool, str]:
    return path.parent.name != "digits", path.parent.name


def main() -> None:
    """Publish the results and write the page."""
    docs = Path("docs")
    publish(Path("results"), docs / "results")
    text = page(docs / "results")
    (docs / "reproduction.md").write_text(text, encoding="utf-8")
    print(text.split("\n\n")[1].replace("\n", " "))
    print(f"written: {docs / 'reproduction.md'}")


if __name__ == "__main__":
    main()
