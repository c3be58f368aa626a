"""Measured labels: Δ and γ of soft labels that people and models gave, with their certainty.

No student is trained here. Human votes and a model's probabilities are measured as they are: the
indicators Δ and γ of "Learning From Biased Soft Labels" (arXiv 2302.08155), the margin κ and the
exponent D (derived here, not in the paper) for every size k of the top-k set, the mean label margin
μ, the share of ties, exact limits, and the certificates of `jsoft.certificates` (derived here).

    python -m experiments.measured_labels --preset digits
    python -m experiments.measured_labels --preset cifar10 --data FOLDER

write results/measured_labels/PRESET/{results.parquet,certificates.parquet,figure.png,figure.svg,
summary.json}, each in less than half a minute on two cores. To expect of `digits`: Δ + γ < 1
certified for discriminant analysis and for the votes of neighbours, in all 5 seeds, and not for the
shallow tree, whose Δ + γ is 1 or more. Of `cifar10`, at k = 1, the best k of all of them:

    labels                       Δ        γ       κ
    CIFAR-10H                 0.00785  0.01800  0.974
    a network's               0.07060  0.07800  0.851
    CIFAR-10N, mean of three  0.08821  0.07780  0.834
    CIFAR-10N, majority       0.09010  0.07320  0.837
    CIFAR-10N, one person     0.17234  0.12580  0.702
    CIFAR-10N, worst of three 0.40208  0.28200  0.316

all certified; more places only add confusion, quickly for the network (κ = 0.19 at k = 2).

Sources. `digits` needs no file: cross-validated answers of three models of scikit-learn to its
digits, a seed being a random order of the examples before they are dealt into folds. `cifar10`
measures CIFAR-10H (51 people or so for every test image; J. C. Peterson et al., ICCV 2019),
CIFAR-10N (three people for every training image, and what was made of them; J. Wei et al., ICLR
2022) and cross-validated probabilities of the test images (C. G. Northcutt et al., NeurIPS 2021
Datasets and Benchmarks). People and the network saw the original images, and "true" is the original
label, which is wrong now and then. CIFAR-10H and CIFAR-10N are not for commercial use; the tables
hold sums over examples, not the data.

Ties. Votes tie all the time, so the rule matters: Δ and γ are `fractional`, the expectation under
random tie-breaking (`indicators.membership`). What the lower index would give instead is beside
it, and limits and certificates decide every tie against the labels.

Whom the limits are about: further examples like these, if those are independent. Images are taken
to be. Answers of a cross-validated model are not quite: the rows of one fold share a model, so
there limits describe a procedure only as far as its folds are alike.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

from experiments import results
from jsoft import certificates, indicators, limits, sweep, theory


class Source(NamedTuple):
    """Where soft labels come from.

    `read` takes (folder, seed, folds) to soft labels `[N, C]` and true labels `[N]`; `seeded` says
    whether the seed matters; `one_hot` whether every label is one class; `past_the_line` whether
    the source is there to show labels with Δ + γ of 1 or more.
    """

    title: str
    read: Callable[[Path | None, int, int], tuple[np.ndarray, np.ndarray]]
    seeded: bool = False
    one_hot: bool = False
    past_the_line: bool = False


def _cross_validated(model: str) -> Callable[[Path | None, int, int], tuple[Any, Any]]:
    """Return the reader of what a model says of digits that it was not trained on."""

    def read(folder: Path | None, seed: int, folds: int) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.datasets import load_digits
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.tree import DecisionTreeClassifier

        digits: Any = load_digits()
        models = {
            "discriminant": LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1),
            "neighbours": KNeighborsClassifier(10),
            "tree": DecisionTreeClassifier(max_depth=3, random_state=seed),
        }
        dealt = StratifiedKFold(folds, shuffle=True, random_state=seed)
        soft_labels = cross_val_predict(
            models[model], digits.data, digits.target, cv=dealt, method="predict_proba"
        )
        return np.asarray(soft_labels, np.float32), digits.target

    return read


# What the files are called here and, if otherwise, where they are published; and by which project.
_TEST_LABELS = ("cifar10_test_labels.npy", "cifar10_test_set_original_labels.npy")
_PROJECTS: dict[tuple[str, ...], str] = {
    ("cifar10h_counts.npy", "cifar10h-counts.npy"): "jcpeterson/cifar-10h",
    ("cifar10_test_pyx.npy", "cifar10_test_set_pyx.npy"): "cleanlab/label-errors",
    _TEST_LABELS: "cleanlab/label-errors",
    ("cifar10n_train.npz",): "UCSC-REAL/cifar-10-100n (what it calls clean_label, aggre_label, "
    "random_label1, random_label2, random_label3 and worse_label, as arrays clean, aggregate, "
    "random1, random2, random3 and worst)",
}


def _file(folder: Path | None, names: tuple[str, ...]) -> Path:
    """Return the path of a file that has one of the names.

    Raises:
      ValueError: no folder, or no such file in it.
    """
    found = [folder / name for name in names if (folder / name).exists()] if folder else []
    if not found:
        raise ValueError(
            f"data: expected a folder with {' or '.join(names)}, published on GitHub by the "
            f"project {_PROJECTS[names]}, got {folder}; --preset digits needs no file"
        )
    return found[0]


def _of_test_images(names: tuple[str, ...]) -> Callable[[Path | None, int, int], tuple[Any, Any]]:
    """Return the reader of soft labels of CIFAR-10's test images: counts or probabilities."""

    def read(folder: Path | None, seed: int, folds: int) -> tuple[np.ndarray, np.ndarray]:
        path, labels = _file(folder, names), np.load(_file(folder, _TEST_LABELS))
        soft_labels = np.load(path).astype(np.float32)
        if soft_labels.ndim != 2 or len(soft_labels) != len(labels):
            raise ValueError(
                f"{path.name}: expected shape [{len(labels)}, C], a row for each label, got "
                f"{list(soft_labels.shape)}"
            )
        return soft_labels / soft_labels.sum(axis=1, keepdims=True), labels

    return read


def _of_train_images(*annotators: str) -> Callable[[Path | None, int, int], tuple[Any, Any]]:
    """Return the reader of CIFAR-10N: the mean of one-hot votes."""

    def read(folder: Path | None, seed: int, folds: int) -> tuple[np.ndarray, np.ndarray]:
        path = _file(folder, ("cifar10n_train.npz",))
        with np.load(path) as archive:
            missing = {"clean", *annotators} - set(archive.files)
            if missing:
                raise ValueError(f"{path.name}: expected arrays {', '.join(sorted(missing))}")
            labels, votes = archive["clean"], np.stack([archive[name] for name in annotators])
        return np.eye(10, dtype=np.float32)[votes].mean(axis=0), labels

    return read


SOURCES = {
    "discriminant": Source("discriminant analysis", _cross_validated("discriminant"), seeded=True),
    "neighbours": Source("votes of 10 neighbours", _cross_validated("neighbours"), seeded=True),
    "tree": Source("shallow tree", _cross_validated("tree"), seeded=True, past_the_line=True),
    "cifar10h": Source(
        "CIFAR-10H, about 51 people",
        _of_test_images(("cifar10h_counts.npy", "cifar10h-counts.npy")),
    ),
    "probabilities": Source(
        "a network, cross-validated",
        _of_test_images(("cifar10_test_pyx.npy", "cifar10_test_set_pyx.npy")),
    ),
    "cifar10n_votes": Source(
        "CIFAR-10N, 3 people", _of_train_images("random1", "random2", "random3")
    ),
    "cifar10n_aggregate": Source(
        "CIFAR-10N, majority", _of_train_images("aggregate"), one_hot=True
    ),
    "cifar10n_one": Source("CIFAR-10N, 1 person", _of_train_images("random1"), one_hot=True),
    "cifar10n_worst": Source("CIFAR-10N, worst of 3", _of_train_images("worst"), one_hot=True),
}

# What `indicators.measure` printed of the files before: (source, k) to Δ and γ.
MEASURED_BEFORE = {
    ("probabilities", 1): ("0.07060", "0.07800"),
    ("cifar10h", 1): ("0.00785", "0.0180"),
    ("cifar10h", 2): ("0.00084", "0.3995"),
    ("cifar10n_votes", 1): ("0.08821", "0.0778"),
}
METHODS: tuple[certificates.Method, ...] = ("paper", "class_conditional", "paired")


@dataclasses.dataclass(frozen=True)
class Config:
    """Measure soft labels that exist: how unreliable and how ambiguous, and how sure that is."""

    preset: Literal["tiny", "digits", "cifar10"] = "digits"
    """Where the other options take their defaults from."""
    sources: tuple[str, ...] = ("discriminant", "neighbours", "tree")
    """Soft labels to measure, by name."""
    data: Path | None = None
    """Folder with the files of CIFAR-10H, CIFAR-10N and the cross-validated probabilities."""
    alpha: float = 0.05
    """1 − confidence of intervals and certificates, in (0, 1)."""
    seeds: int = 5
    """Random orders of the examples before they are dealt into folds, where there are folds."""
    folds: int = 5
    """Parts of the digits, each answered by a model that was trained on the others; 2 or more."""
    out: Path | None = None
    """Folder of the results; results/measured_labels/PRESET by default."""
    plot_only: bool = False
    """Redraw figure and summary from the tables that are there, without measuring."""
    quiet: bool = False
    """No progress bar."""


PRESETS = {
    "tiny": Config(preset="tiny", sources=("neighbours", "tree"), seeds=2, folds=2),
    "digits": Config(),
    "cifar10": Config(preset="cifar10", sources=tuple(SOURCES)[3:]),
}


def run(config: Config, folder: Path) -> results.Tables:
    """Measure all sources and return the tables, also written to the folder."""
    _check(config)
    started = time.perf_counter()
    tasks = [
        (source, seed)
        for source in config.sources
        for seed in range(config.seeds if SOURCES[source].seeded else 1)
    ]
    # All that is to be read, before anything is measured.
    labels = {
        (source, seed): SOURCES[source].read(config.data, seed, config.folds)
        for source, seed in tasks
    }
    rows, certified = [], []
    for source, seed in tqdm(tasks, unit="source", disable=config.quiet or None):
        soft_labels, true = labels[source, seed]
        rows += [
            {"source": source, "seed": seed, **row}
            for row in measurements(soft_labels, true, alpha=config.alpha, seed=seed)
        ]
        certified += [
            {"source": source, "seed": seed, **row}
            for row in certified_at_best_k(soft_labels, true, alpha=config.alpha)
        ]
    options = {
        **results.options(config),
        "fingerprint": _fingerprint([array for pair in labels.values() for array in pair]),
    }
    measured = results.save(_columns(rows), folder / "results.parquet", options, started=started)
    # Made in the same loop, whose time is noted with the results.
    now = time.perf_counter()
    tried = results.save(_columns(certified), folder / "certificates.parquet", options, started=now)
    return {"certificates": tried, "results": measured}


def _check(config: Config) -> None:
    """Raise `ValueError` for an option out of its range."""
    unknown = [source for source in config.sources if source not in SOURCES]
    if unknown or not config.sources:
        raise ValueError(f"sources: expected some of {', '.join(SOURCES)}, got {config.sources}")
    for name, least in (("seeds", 1), ("folds", 2)):
        if getattr(config, name) < least:
            raise ValueError(f"{name}: expected {least} or more, got {getattr(config, name)}")
    if not 0 < config.alpha < 1:
        raise ValueError(f"alpha: expected a number in (0, 1), got {config.alpha}")


def _fingerprint(arrays: list[np.ndarray]) -> str:
    seen = hashlib.blake2b(digest_size=8)
    for array in arrays:
        seen.update(np.ascontiguousarray(array).tobytes())
    return seen.hexdigest()


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def measurements(
    soft_labels: np.ndarray, labels: np.ndarray, *, alpha: float, seed: int
) -> list[dict[str, Any]]:
    """Return what is measured at k = 1 … C − 1, a row for each.

    Limits hold with confidence 1 − α each, however ties are broken; certificates as if k had been
    fixed beforehand.
    """
    measured = jax.tree.map(np.asarray, indicators.measure(soft_labels, labels))
    classes = soft_labels.shape[1]
    rows = []
    for k in range(1, classes):
        low, high = unreliability_interval(soft_labels, labels, k, alpha=alpha)
        lowest, highest = certificates.ambiguity_interval(soft_labels, labels, k, alpha=alpha)
        # One k at a time: `measure` has summed thousands of fractions by then, in float32.
        unreliability = indicators.unreliability_degree(soft_labels, labels, k)
        ambiguity, true_class, wrong_class = _largest_wrong_class(
            indicators.ambiguity_matrix(soft_labels, labels, k)
        )
        by_index = indicators.measure_sets(
            indicators.membership(soft_labels, k, ties="first") > 0, labels
        )
        rows.append(
            {
                "k": k,
                "examples": len(labels),
                "classes": classes,
                "unreliability": float(unreliability),
                "unreliability_low": low,
                "unreliability_high": high,
                "ambiguity": ambiguity,
                "ambiguity_low": lowest,
                "ambiguity_high": highest,
                "ambiguity_split": certificates.split_ambiguity(
                    soft_labels, labels, k, jax.random.key(seed)
                ),
                "true_class": true_class,
                "wrong_class": wrong_class,
                "margin": float(theory.margin(unreliability, ambiguity)),
                "divergence": float(theory.divergence(unreliability, ambiguity)),
                "tied": float(measured.tied[k - 1]),
                "mean_label_margin": float(measured.mean_label_margin),
                "unreliability_by_index": float(by_index.unreliability),
                "ambiguity_by_index": float(by_index.ambiguity),
                **{
                    f"certified_{method}": certificates.certify(
                        soft_labels, labels, k, alpha=alpha, method=method
                    ).certified
                    for method in METHODS
                },
            }
        )
    return rows


def _largest_wrong_class(matrix: jax.Array) -> tuple[float, int, int]:
    """Return γ, and the true and the wrong class at which it is attained."""
    wrong = np.where(np.eye(len(matrix), dtype=bool), -1, np.nan_to_num(matrix, nan=-1.0))
    true_class, wrong_class = np.unravel_index(wrong.argmax(), wrong.shape)
    return float(wrong[true_class, wrong_class]), int(true_class), int(wrong_class)


def unreliability_interval(
    soft_labels: np.ndarray, labels: np.ndarray, k: int, *, alpha: float
) -> tuple[float, float]:
    """Return limits that hold Δ between them with confidence 1 − α, however ties are broken.

    >>> votes = np.array([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0]])  # the second may be right or wrong
    >>> low, high = unreliability_interval(votes, np.array([0, 0]), 1, alpha=0.5)
    >>> print(low, round(high, 4))  # of 0 misses in 2, and of 1 in 2: √¾
    0.0 0.866
    """
    own = np.take_along_axis(soft_labels, labels[:, None].astype(int), axis=1)
    surely_missed = int(((soft_labels > own).sum(axis=1) >= k).sum())
    possibly_missed = int(((soft_labels >= own).sum(axis=1) - 1 >= k).sum())
    return (
        float(limits.lower_limit(surely_missed, len(labels), alpha / 2)),
        float(limits.upper_limit(possibly_missed, len(labels), alpha / 2)),
    )


def certified_at_best_k(
    soft_labels: np.ndarray, labels: np.ndarray, *, alpha: float
) -> list[dict[str, Any]]:
    """Return the certificate of every method at the best k of all, which pays for the choice."""
    rows = []
    for method in METHODS:
        found = certificates.certify(
            soft_labels, labels, range(1, soft_labels.shape[1]), alpha=alpha, method=method
        )
        rows.append(
            {
                "method": method,
                "certified": found.certified,
                "k": found.k,
                "true_class": found.worst_pair[0],
                "wrong_class": found.worst_pair[1],
                "unreliability_limit": found.unreliability_limit,
                "ambiguity_limit": found.ambiguity_limit,
                "p_value": found.p_value,
                "statement": found.statement,
            }
        )
    return rows


def _by_source(table: Any) -> dict[str, dict[str, np.ndarray]]:
    """Return the columns of every source as arrays `[seeds, rows of a seed]`."""
    rows = {name: np.array(table[name].to_pylist()) for name in table.column_names}
    grouped = {}
    for source in dict.fromkeys(rows["source"].tolist()):
        of_source = {name: column[rows["source"] == source] for name, column in rows.items()}
        seeds = len(np.unique(of_source["seed"]))
        grouped[source] = {name: column.reshape(seeds, -1) for name, column in of_source.items()}
    return grouped


def summarise(tables: results.Tables) -> dict[str, Any]:
    """Return what was measured, at the best k and in the claims, in plain keys."""
    config = sweep.metadata(tables["results"])["config"]
    measured, certified = _by_source(tables["results"]), _by_source(tables["certificates"])
    claims = [
        *(_claim_of_condition(source, certified[source], config) for source in measured),
        *_claims_of_earlier(measured),
        *_claims_of_ties(measured),
    ]
    return {
        "claims": claims,
        "tie_rule": "fractional: expected membership under random tie-breaking; limits and "
        "certificates decide every tie against the labels",
        "population": "further examples like these, if those are independent; rows that one fold "
        "of a cross-validation answered share a model and are not quite",
        "sources": {
            source: _summary_of_source(rows, certified[source]) for source, rows in measured.items()
        },
        "confidence": 1 - config["alpha"],
    }


def _summary_of_source(
    rows: Mapping[str, np.ndarray], certified: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Return the numbers of a source at the k of largest mean D; limits are of the first seed."""
    best = int(rows["divergence"].mean(axis=0).argmax())
    names = ("unreliability", "ambiguity", "ambiguity_split", "margin", "divergence", "tied")
    names += ("mean_label_margin", "unreliability_by_index", "ambiguity_by_index")
    at_best = {name: results.rounded(rows[name][:, best].mean(), 5) for name in names}
    intervals = {
        f"{name}_interval": [
            results.rounded(rows[f"{name}_{side}"][0, best], 5) for side in ("low", "high")
        ]
        for name in ("unreliability", "ambiguity")
    }
    return {
        "examples": int(rows["examples"][0, 0]),
        "seeds": len(rows["seed"]),
        "k_of_largest_divergence": int(rows["k"][0, best]),
        "ks_with_positive_margin": [
            int(k)
            for k, kappa in zip(rows["k"][0], rows["margin"].min(axis=0), strict=True)
            if kappa > 0
        ],
        **at_best,
        **intervals,
        "worst_pair": [int(rows[name][0, best]) for name in ("true_class", "wrong_class")],
        "certified": {
            method: f"{certified['certified'][:, place].sum()} of {len(certified['certified'])}"
            for place, method in enumerate(METHODS)
        },
        "statement": str(certified["statement"][0, 0]),
    }


def _claim_of_condition(
    source: str, certified: Mapping[str, np.ndarray], config: dict[str, Any]
) -> dict[str, str]:
    """Return whether the paper's condition is certified for a source."""
    held = certified["certified"][:, METHODS.index("paper")]
    ks = sorted({int(k) for k in certified["k"][:, METHODS.index("paper")]})
    sums = (certified["unreliability_limit"] + certified["ambiguity_limit"])[:, 0]
    of_classes = certified["certified"][:, METHODS.index("paired")]
    wanted = not SOURCES[source].past_the_line
    level = f"at α = {config['alpha']:g}, all k tried and paid for"
    return results.claim(
        "labels",
        f"Δ + γ < 1 for {SOURCES[source].title}",
        source="paper (secondary source) for the condition, derived here for the certificate",
        expected=f"certified {level}" if wanted else f"not certified {level}: it is 1 or more",
        ours=f"certified in {held.sum()} of {len(held)}; limits of Δ and γ together "
        f"{results.mean_and_spread(sums)}, at k = {', '.join(map(str, ks))}; paired, for every "
        f"pair of classes, in {of_classes.sum()} of {len(of_classes)}",
        met=bool(held.all() if wanted else not held.any()),
    )


def _claims_of_earlier(measured: dict[str, dict[str, np.ndarray]]) -> list[dict[str, str]]:
    """Return whether the files give the Δ and γ that they gave before."""
    entries = {}
    for (source, k), printed in MEASURED_BEFORE.items():
        if source in measured:
            for name, number in zip(("unreliability", "ambiguity"), printed, strict=True):
                ours = measured[source][name][0, k - 1]
                symbol = {"unreliability": "Δ", "ambiguity": "γ"}[name]
                where = f"{symbol} of {SOURCES[source].title} at k = {k}"
                entries[where] = (number, f"{ours:.{len(number) - 2}f}")
    if not entries:
        return []
    differing = [
        f"{where} is {ours} (before: {number})"
        for where, (number, ours) in entries.items()
        if number != ours
    ]
    return [
        results.claim(
            "labels",
            "Δ and γ of human and model labels of CIFAR-10, ties fractional",
            source="derived here",
            expected=", ".join(f"{where} {number}" for where, (number, _) in entries.items()),
            ours=f"{len(entries) - len(differing)} of {len(entries)} to the printed digits",
            met=not differing,
            reason="; ".join(differing),
        )
    ]


def _claims_of_ties(measured: dict[str, dict[str, np.ndarray]]) -> list[dict[str, str]]:
    """Return what the two tie rules make of one-hot labels, all of whose zeros are tied."""
    one_hot = {source: rows for source, rows in measured.items() if SOURCES[source].one_hot}
    if not one_hot:
        return []
    k = 3
    by_index = min(rows["ambiguity_by_index"][0, k - 1] for rows in one_hot.values())
    fractional = {source: rows["ambiguity"][0, k - 1] for source, rows in one_hot.items()}
    gap = 0.0
    for rows in one_hot.values():
        told, classes = rows["ambiguity"][0, 0], rows["classes"][0, 0]
        # The class that is told, and a share of the k − 1 places that are left.
        expected = told + (1 - told) * (k - 1) / (classes - 1)
        gap = max(gap, abs(rows["ambiguity"][0, k - 1] - expected))
    listed = ", ".join(f"{value:.3f} {source}" for source, value in fractional.items())
    return [
        results.claim(
            "labels",
            "γ of one-hot labels at k = 3: the lower index among ties fakes 1, fractional ties do "
            "not",
            source="derived here",
            expected="1.000 by index; with γ₁ that of k = 1, γ₁ + (1 − γ₁) 2/9 to 1e-4 with "
            "fractional ties",
            ours=f"{by_index:.3f} by index; fractional {listed}, off by {gap:.0e} at most",
            met=bool(by_index > 0.9995 and gap <= 1e-4),
        )
    ]


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def plot(tables: results.Tables) -> Figure:
    """Return the figure: the plane of Δ and γ, and what k and the tie rule make of them."""
    config = sweep.metadata(tables["results"])["config"]
    measured = _by_source(tables["results"])
    colours = dict(zip(measured, COLOURS * len(measured), strict=False))
    figure = plt.figure(figsize=(7.2, 3.5), layout="constrained")
    panels = figure.subplot_mosaic("abc;ade", width_ratios=[2, 1, 1])
    _plot_plane(panels["a"], measured, colours, config)
    for letter, name, label in (
        ("b", "margin", "κ = 1 − Δ − γ"),
        ("c", "divergence", "D(Δ, γ)"),
        ("d", "tied", "share tied at place k"),
    ):
        axes = panels[letter]
        for source, rows in measured.items():
            k, mean, spread = rows["k"][0], rows[name].mean(axis=0), rows[name].std(axis=0)
            colour = colours[source]
            axes.fill_between(k, mean - spread, mean + spread, color=colour, alpha=0.25, lw=0)
            axes.plot(k, mean, "-o", color=colour, ms=2, lw=0.8)
        axes.set(xlabel="k", ylabel=label, xticks=_ticks(measured))
        axes.set_title(letter, loc="left")
    panels["b"].axhline(0, color="0.6", lw=0.6)
    _plot_ties(panels["e"], measured, colours)
    return figure


def _plot_plane(
    axes: Axes,
    measured: dict[str, dict[str, np.ndarray]],
    colours: dict[str, str],
    config: dict[str, Any],
) -> None:
    """Draw the path of every source over k, with boxes that hold Δ and γ, on square-root axes.

    Boxes hold them however ties are broken, and are left out where a tenth or more is tied: with
    all zeros tied they would be as good as the whole plane. Of several seeds the first is drawn.
    """
    axes.set_xscale("function", functions=(np.sqrt, np.square))
    axes.set_yscale("function", functions=(np.sqrt, np.square))
    edge = np.linspace(0, 1, 201)
    axes.plot(edge, 1 - edge, color="black", lw=1)
    axes.fill_between(edge, 1 - edge, 1, color="0.93", lw=0)
    axes.text(0.9, 0.19, "Δ + γ = 1", rotation=-66, ha="center", va="center")
    for source, rows in measured.items():
        first = {name: column[0] for name, column in rows.items()}
        for place in np.flatnonzero(first["tied"] < 0.1):
            low, high = (first[f"unreliability_{side}"][place] for side in ("low", "high"))
            below, above = (first[f"ambiguity_{side}"][place] for side in ("low", "high"))
            axes.add_patch(
                plt.Rectangle(
                    *((low, below), high - low, above - below),
                    color=colours[source],
                    alpha=0.25,
                    lw=0,
                )
            )
        path = (first["unreliability"], first["ambiguity"])
        title = SOURCES[source].title
        axes.plot(*path, "-o", color=colours[source], ms=2, lw=0.8, label=title)
    ticks = [0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1]
    axes.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axes.set_yticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axes.set(xlim=(0, 1), ylim=(0, 1), box_aspect=1)
    axes.set(xlabel="unreliability Δ", ylabel="ambiguity γ")
    percent = 100 * (1 - config["alpha"])
    axes.set_title(f"a   From k = 1, lowest, upwards; boxes: {percent:g} % limits", loc="left")
    axes.legend(loc="lower right", bbox_to_anchor=(0.96, 0), fontsize=6)


def _plot_ties(
    axes: Axes, measured: dict[str, dict[str, np.ndarray]], colours: dict[str, str]
) -> None:
    """Draw γ over k with fractional ties, and with ties given to the lower index."""
    for source, rows in measured.items():
        k, colour = rows["k"][0], colours[source]
        axes.plot(k, rows["ambiguity"].mean(axis=0), color=colour, lw=0.8)
        axes.plot(k, rows["ambiguity_by_index"].mean(axis=0), ":", color=colour, lw=1)
    axes.text(
        *(0.98, 0.02, "dots: ties to the\nlower index"),
        fontsize=6,
        ha="right",
        transform=axes.transAxes,
    )
    axes.set(xlabel="k", ylabel="ambiguity γ", xticks=_ticks(measured))
    axes.set_title("e", loc="left")


def _ticks(measured: dict[str, dict[str, np.ndarray]]) -> range:
    """Return whole numbers to mark on an axis of k."""
    most = max(int(rows["k"].max()) for rows in measured.values())
    return range(1, most + 1, max(1, most // 4))


def report(summary: dict[str, Any]) -> str:
    """Return the summary as a person reads it."""
    lines = [
        f"measured in {summary['wall_seconds']:.1f} s, on {summary['device']}",
        "",
        "at the k of largest D, mean of the seeds:",
        f"{'source':<20}{'N':>7}{'k':>3}{'Δ':>9}{'γ':>9}{'κ':>8}{'D':>8}{'tied':>7}{'μ':>8}",
    ]
    for source, found in summary["sources"].items():
        lines.append(
            f"{source:<20}{found['examples']:>7}{found['k_of_largest_divergence']:>3}"
            f"{found['unreliability']:>9.5f}{found['ambiguity']:>9.5f}{found['margin']:>8.4f}"
            f"{found['divergence']:>8.4f}{found['tied']:>7.1%}{found['mean_label_margin']:>8.4f}"
        )
    statements = [f"{source}: {found['statement']}" for source, found in summary["sources"].items()]
    parts = [*lines, "", *statements, "", f"ties: {summary['tie_rule']}"]
    parts += [f"population: {summary['population']}", "", results.claim_lines(summary)]
    return "\n".join(["", *parts, ""])


if __name__ == "__main__":
    results.main(sys.modules[__name__])
