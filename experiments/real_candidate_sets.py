"""Real candidate sets, read from files and cross-validated: `partial_labels --preset real`.

A set is an .npz archive of features [N, d], candidates [N, C] (0 or 1) and label [N], the true
class. True labels choose nothing: they are for the report, the indicators and the reference
student alone. So there are no validation rows, and every student is trained to the last epoch.

Every repetition cuts the rows at random into folds and tests each row once; its accuracy is the
share of all rows that were right. Reported are mean and standard deviation over repetitions,
which is what another cut would change, not what other examples would: the repetitions share all
rows. Nothing is tuned on these sets; the student, a perceptron of 128 hidden units, and its
training are those of the digits.

To expect, superset, average, membership, one candidate and, as a reference, true labels: 0.62,
0.49, 0.61, 0.41, 0.84 for Lost, and 0.50, 0.42, 0.45, 0.30, 0.70 for MSRCv2. Δ + γ < 1 is about the
worst pair of classes: it fails on MSRCv2, which says nothing of the other pairs.
"""

from __future__ import annotations

import hashlib
import time
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import results
from experiments.candidate_students import LOOKS, LOSSES, NUMBER, seen_sets, student_loss
from jsoft import certificates, indicators, limits, networks, sweep, training

if TYPE_CHECKING:
    from experiments.partial_labels import Config

# γ̂ and where it is attained: true class, wrong class, examples. Derived here, from the files.
KNOWN = {"lost": (0.763, 6, 2, 76), "msrcv2": (1.0, 3, 1, 63)}


class CandidateSets(NamedTuple):
    """A set's features [N, d] float32, candidates [N, C] bool, labels [N] int32, and its name."""

    features: np.ndarray
    candidates: np.ndarray
    labels: np.ndarray
    name: str


def read(path: Path) -> CandidateSets:
    """Return the checked arrays of a file; the features come standardised over all rows.

    Raises:
      ValueError: no such file, or one whose arrays are not features, finite numbers [N, d];
        candidates, 0 or 1, [N, C], no row without any; label, the true classes [N].
    """
    arrays = _arrays(path)

    def refuse(name: str, expected: str, found: object) -> NoReturn:
        raise ValueError(f"{path}: {name}: expected {expected}, got {found}")

    features, candidates, labels = (arrays[name] for name in ("features", "candidates", "label"))
    if features.dtype.kind not in "fiu" or features.ndim != 2 or features.size == 0:
        refuse("features", "numbers [N, d]", f"{features.dtype}{list(features.shape)}")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        refuse("features", "finite numbers", f"NaN or infinity in row {finite.argmin()}")
    num_rows = len(features)
    if candidates.dtype.kind not in "fiub" or candidates.ndim != 2 or len(candidates) != num_rows:
        found = f"{candidates.dtype}{list(candidates.shape)}"
        refuse("candidates", f"0 or 1, [{num_rows}, C] like the rows of features", found)
    num_classes = candidates.shape[1]
    if num_classes < 2:
        refuse("candidates", "two classes or more", f"shape {list(candidates.shape)}")
    if not np.isin(candidates, (0, 1)).all():
        refuse("candidates", "0 or 1", candidates[~np.isin(candidates, (0, 1))][0])
    candidates = candidates.astype(bool)
    filled = candidates.any(axis=1)
    if not filled.all():
        refuse("candidates", "a class or more in every row", f"none in row {filled.argmin()}")
    if labels.dtype.kind not in "iu" or labels.shape != (num_rows,):
        found = f"{labels.dtype}{list(labels.shape)}"
        refuse("label", f"whole numbers [{num_rows}], the true classes", found)
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        refuse("label", f"0 … {num_classes - 1}, a column of candidates", labels[outside][0])

    # Only so that float32 loses no digits: every fold is standardised by its own training rows,
    # and what has been shifted and scaled before comes out the same.
    features = features.astype(float)
    centred = features - features.mean(axis=0)
    largest = np.abs(centred).max(axis=0)
    features = centred / np.where(largest > 0, largest, 1)
    return CandidateSets(
        features.astype(np.float32), candidates, labels.astype(np.int32), path.stem
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an archive that has all three."""
    if not path.is_file():
        raise ValueError(f"sets: expected an .npz file, got {path}, where there is none")
    try:
        archive = np.load(path, allow_pickle=False)
        arrays = {name: archive[name] for name in archive.files}
    # AttributeError: a single array, not an archive.
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: expected an .npz archive of plain arrays (numpy.savez), got: {error}"
        ) from error
    missing = [name for name in ("features", "candidates", "label") if name not in arrays]
    if missing:
        why = "; without true classes there is no accuracy to report" if "label" in missing else ""
        raise ValueError(
            f"{path}: expected the arrays features, candidates and label, got {sorted(arrays)}{why}"
        )
    return arrays


def run(config: Config, folder: Path) -> results.Tables:
    """Cross-validate every set; return a table of the sets, and one of the students for each."""
    every = [read(path) for path in config.sets]
    names = [one.name for one in every]
    if len(set(names)) < len(names) or "results" in names:
        raise ValueError(f"sets: expected files of different names, none of them results: {names}")
    for one in every:
        if config.folds > len(one.labels):
            raise ValueError(
                f"folds: expected 2 … {len(one.labels)}, the rows of {one.name}, got {config.folds}"
            )
    started = time.perf_counter()
    rows = [describe(one) for one in every]
    fingerprints = {one.name: _fingerprint(one) for one in every}
    table = results.save(
        {name: [row[name] for row in rows] for name in rows[0]},
        folder / "results.parquet",
        {**results.options(config), "sets": fingerprints},
        started=started,
    )
    return {"results": table, **{one.name: _cross_validate(one, config, folder) for one in every}}


def _fingerprint(one: CandidateSets) -> str:
    seen = hashlib.blake2b(digest_size=8)
    for array in one[:3]:
        seen.update(array.tobytes())
    return seen.hexdigest()


def _cross_validate(one: CandidateSets, config: Config, folder: Path) -> pa.Table:
    """Return how many test rows were right, by loss, repetition (seed) and fold."""
    num_rows, num_classes = one.candidates.shape
    network = networks.MLP((128,), num_classes)
    features, candidates, labels = (jnp.asarray(array) for array in one[:3])

    def train(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        order_key, one_key, students_key = jax.random.split(key, 3)
        rows, test_rows, counts = fold_rows(
            order_key, point["fold"], num_rows=num_rows, num_folds=config.folds
        )
        seen = seen_sets(point["loss"], candidates, labels, one_key)
        train_features, test_features = standardise(features[rows], features[test_rows])
        params, _ = training.train(
            network,
            student_loss(point["loss"]),
            train_features,
            seen[rows],
            jax.random.fold_in(students_key, point["fold"]),
            observe=lambda params: (),
            epochs=config.epochs,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
        )
        logits = training.predict(network, params, test_features)
        right = ((logits.argmax(axis=-1) == labels[test_rows]) & counts).sum()
        return {
            "tested": counts.sum(),
            "right": jnp.where(jnp.isfinite(logits).all(), right, jnp.nan),
        }

    return sweep.run(
        train,
        sweep.grid(
            loss=[NUMBER[name] for name in (*config.losses, "true_labels")],
            seed=range(config.seeds),
            fold=range(config.folds),
        ),
        # One at a time: students mapped together would all take every branch of the loss.
        batch_size=1,
        progress=not config.quiet,
        path=folder / f"{one.name}.parquet",
        config={
            **results.options(config),
            "set": one.name,
            "set_fingerprint": _fingerprint(one),
            "loss_names": [*LOSSES],
        },
    )


def fold_rows(
    key: jax.Array, fold: jax.Array, *, num_rows: int, num_folds: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the training rows of a fold, its test rows, and which of the latter count.

    The folds of one key cut one random order, so that each row counts in one of them. All have the
    shapes of the largest; a fold that is smaller by one leaves one row out of both parts.

    >>> folds = [fold_rows(jax.random.key(0), f, num_rows=5, num_folds=2) for f in range(2)]
    >>> [(len(rows), len(test_rows), int(counts.sum())) for rows, test_rows, counts in folds]
    [(2, 3, 2), (2, 3, 3)]
    """
    largest = -(-num_rows // num_folds)
    begin, end = fold * num_rows // num_folds, (fold + 1) * num_rows // num_folds
    order = jnp.roll(jax.random.permutation(key, num_rows), -begin)
    return order[largest:], order[:largest], jnp.arange(largest) < end - begin


def standardise(train: jax.Array, test: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return both with the shift and scale that give features of `train` mean 0 and variance 1.

    A feature that is constant in `train` is only shifted.

    >>> train, test = standardise(jnp.array([[0.0], [4.0]]), jnp.array([[6.0]]))
    >>> print(train.ravel(), test.ravel())
    [-1.  1.] [2.]
    """
    centre, spread = train.mean(axis=0, keepdims=True), train.std(axis=0, keepdims=True)
    scale = jnp.where(spread > 1e-6, spread, 1)  # a constant's spread is rounding
    return (train - centre) / scale, (test - centre) / scale


def describe(one: CandidateSets) -> dict[str, Any]:
    """Return size, indicators and certificate of a set, a row of the table of sets."""
    measured = indicators.measure_sets(one.candidates, one.labels)
    certificate = certificates.certify_sets(one.candidates, one.labels)
    counts = np.bincount(one.labels, minlength=one.candidates.shape[1])
    true, wrong = (int(place) for place in measured.worst_pair)
    return {
        "set": one.name,
        "examples": len(one.labels),
        "features": one.features.shape[1],
        "classes": len(counts),
        "classes_with_examples": int((counts > 0).sum()),
        "mean_set_size": float(measured.mean_size),
        "unreliability": float(measured.unreliability),
        "ambiguity": float(measured.ambiguity),
        "divergence": float(measured.divergence),
        "worst_true_class": true,
        "worst_wrong_class": wrong,
        "worst_true_class_examples": int(counts[true]),
        "certified": certificate.certified,
        "certificate": certificate.statement,
        "limit_of_classes_with_examples": limit_of_classes_with_examples(
            one.candidates, one.labels
        ),
    }


def limit_of_classes_with_examples(
    candidates: np.ndarray, labels: np.ndarray, *, alpha: float = 0.05
) -> float:
    """Return the upper limit of Δ + γ among the true classes that have examples.

    That of `certificates.certify_sets` where all have some. A class that only ever joins others
    leaves that certificate without an answer, for nothing is known of its own γ; if it is no
    true class at all, as in Lost, this limit is the one that counts. Derived here.

    >>> candidates = np.array([[True, False, True]] * 2 + [[False, True, False]] * 2)
    >>> limit = limit_of_classes_with_examples(candidates, np.array([0, 0, 1, 1]), alpha=0.5)
    >>> print(f"{limit:.4f}")  # 1 − ¼^¼ for Δ, 1 for γ
    1.2929
    """
    num_classes = candidates.shape[1]
    counts = np.bincount(labels, minlength=num_classes)
    is_true = np.eye(num_classes, dtype=bool)[labels]
    joined = np.stack(
        [(candidates & ~is_true)[labels == y].sum(axis=0) for y in range(num_classes)]
    )
    of_joined = limits.upper_limit(joined.max(axis=1), counts, alpha / 2)[counts > 0]
    of_missed = limits.upper_limit((is_true & ~candidates).sum(), len(labels), alpha / 2)
    return float(of_missed + of_joined.max())


def accuracies(table: pa.Table) -> dict[str, np.ndarray]:
    """Return the accuracy of every repetition, `[seeds]`, by loss; NaN where a fold diverged."""
    config = sweep.metadata(table)["config"]
    shape = (-1, config["seeds"], config["folds"])
    loss, right, tested = (
        table[name].to_numpy().reshape(shape) for name in ("loss", "right", "tested")
    )
    shares = right.sum(axis=-1, dtype=float) / tested.sum(axis=-1)
    names = [config["loss_names"][number] for number in loss[:, 0, 0]]
    return dict(zip(names, shares, strict=True))


def summarise(tables: results.Tables) -> dict[str, Any]:
    """Return indicators, certificates and accuracies of all sets, and claims on known ones."""
    config = sweep.metadata(tables["results"])["config"]
    sets = {}
    for row in tables["results"].to_pylist():
        found = {
            loss: {
                "accuracy": results.rounded(values.mean()),
                "standard_deviation": results.rounded(values.std(ddof=min(1, len(values) - 1))),
            }
            for loss, values in accuracies(tables[row["set"]]).items()
        }
        numbers = {
            name: results.rounded(x) if isinstance(x, float) else x for name, x in row.items()
        }
        sets[numbers.pop("set")] = {**numbers, "accuracies": found}
    claims = [_known_claim(name, found) for name, found in sets.items() if name in KNOWN]
    return {
        "claims": claims,
        "sets": sets,
        "spread_means": "standard deviation over repetitions of the cross-validation",
        "seeds": config["seeds"],
        "folds": config["folds"],
    }


def _known_claim(name: str, found: dict[str, Any]) -> dict[str, str]:
    ambiguity, *place = KNOWN[name]
    keys = ("worst_true_class", "worst_wrong_class", "worst_true_class_examples")
    here = [found[key] for key in keys]

    def words(ambiguity: float, place: list[int]) -> str:
        return f"{ambiguity:.3f} (true {place[0]}, other {place[1]}; {place[2]} examples)"

    return results.claim(
        "B5",
        f"γ̂ of the candidate sets of {name}",
        source="derived here",
        expected=words(ambiguity, place),
        ours=words(found["ambiguity"], here),
        met=abs(found["ambiguity"] - ambiguity) <= 0.0005 and here == place,
    )


def _condition(found: dict[str, Any]) -> str:
    """Return in a few words whether Δ + γ < 1 is certified."""
    if found["certified"]:
        return "Δ + γ < 1 certified (95 %)"
    limit = found["limit_of_classes_with_examples"]
    if limit < 1:
        return (
            f"Δ + γ ≤ {limit:.4f} (95 %) on the {found['classes_with_examples']} classes that have "
            "examples"
        )
    return "Δ + γ < 1 not certified (95 %)"


def report(summary: dict[str, Any]) -> str:
    """Return the summary as a person reads it."""
    lines = [results.timing_line(summary)]
    for name, found in summary["sets"].items():
        lines += [
            f"\n{name}: {found['examples']} examples of {found['features']} features, "
            f"{found['classes']} classes, {found['mean_set_size']:.2f} candidates each",
            f"  Δ = {found['unreliability']:.3f}, γ̂ = {found['ambiguity']:.3f} (true class "
            f"{found['worst_true_class']} with class {found['worst_wrong_class']}, "
            f"{found['worst_true_class_examples']} examples), D = {found['divergence']:.3f}; "
            f"{_condition(found)}",
            *(f"  {line}" for line in found["certificate"].splitlines()),
        ]
        for loss, value in found["accuracies"].items():
            lines.append(
                f"  {LOOKS[loss][0]:<14} {value['accuracy']} ± {value['standard_deviation']}"
            )
    lines.append(f"\nmean ± s.d. over {summary['seeds']} repetitions of {summary['folds']} folds\n")
    return "\n".join(["", *lines, results.claim_lines(summary), ""])


def plot(tables: results.Tables) -> Figure:
    """Return the figure: one panel a set, one dot a loss, the indicators in words."""
    config = sweep.metadata(tables["results"])["config"]
    rows = tables["results"].to_pylist()
    figure, panels = plt.subplots(
        1, len(rows), figsize=(7.2, 2.2), squeeze=False, layout="constrained"
    )
    for number, (axes, row) in enumerate(zip(panels[0], rows, strict=True)):
        _plot_set(axes, row, accuracies(tables[row["set"]]))
        letter = chr(ord("a") + number)
        axes.set_title(f"{letter}   {row['set']}\n{_in_words(row)}", loc="left", fontsize=7)
        axes.set_xlabel(
            f"test accuracy, ± s.d. of {config['seeds']} repetitions of {config['folds']} folds"
        )
        if number:
            axes.tick_params(labelleft=False)
    return figure


def _plot_set(axes: Axes, row: dict[str, Any], found: dict[str, np.ndarray]) -> None:
    for place, (loss, values) in enumerate(reversed(found.items())):
        _, colour, marker = LOOKS[loss]
        spread = values.std(ddof=min(1, len(values) - 1))
        axes.errorbar(
            values.mean(), place, xerr=spread, fmt=marker, color=colour, ms=4, mew=0, elinewidth=1
        )
        axes.annotate(
            f"{100 * values.mean():.1f}",
            (values.mean(), place),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
        )
    axes.set_yticks(range(len(found)), [LOOKS[loss][0] for loss in reversed(found)])
    axes.set(ylim=(-0.5, len(found) - 0.3), xlim=(0, 1))


def _in_words(row: dict[str, Any]) -> str:
    """Return the two lines under a panel's title."""
    return (
        f"Δ = {row['unreliability']:.3f}, γ̂ = {row['ambiguity']:.3f}, D = {row['divergence']:.3f}; "
        f"{row['mean_set_size']:.1f} candidates of {row['classes']}\n{_condition(row)}"
    )
