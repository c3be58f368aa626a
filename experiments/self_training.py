"""Self-training: what a model's own labels teach, and why it is less than Δ and γ promise.

A student is trained on a few labelled rows and labels all others, the next student is trained on
that, and so on. "Learning From Biased Soft Labels" (arXiv 2302.08155) looks at such rounds as a map
from indicators to accuracy, ρ(Δ, γ), and at the fixed points of Φ(a) = ρ(Δ(a), γ(a)) (secondary
source; the paper admits that a deterministic ρ is an unattainable idealisation). Here ρ is fitted
to students of random candidate sets, and Φ stands beside the rounds as measured and beside an
idealised model, a plurality vote in every cell of like inputs (derived here, not in the paper).

    python -m experiments.self_training --preset digits

writes results/self_training/digits/{results.parquet,surface.parquet,figure.png,figure.svg,
summary.json} in about 2 minutes on two cores: 600 students in rounds (20, 50 and 100 labels ×
20 seeds × 5 rounds × 2) and 605 for the surface (11 × 11 levels × 5 seeds).

To expect (derived here): test accuracy from 0.64 to 0.68 over five rounds with 20 labels, from 0.82
to 0.86 with 50, from 0.89 to 0.91 with 100, within two standard deviations of the single seed of
an earlier prototype. Φ takes 50 and 100 labels to 0.96 within four rounds and lets 20
labels collapse. Neither happens: a real round moves accuracy by 0.01 to 0.03. The reason can be
seen. A student of the very same labels, shuffled among the rows of each true class, gains 0.06 to
0.11 in one round; with 50 and 100 labels it lands near Φ, with 20 between the two readings of it
that are explained below. Pseudo-labels are a function of the image, so like images carry the same
mistake, and no majority is there to outvote it.

Labelled rows are drawn at random, not equally many of each class: 20 labels of two a class give
0.76, far from the prototype's 0.61. In round 0 they are repeated to the length of the training set,
so that batches are full and epochs equally long in all rounds; later they keep their true labels.
Students stop early on validation rows, which are labelled: the protocol is generous there.

γ has two readings. The paper's is the largest rate of one wrong class, over all pairs. Where errors
sit in few classes it exceeds Δ, a mean over all, and calls every class as bad as the worst. The
other is the rate of the likeliest wrong class on average over classes, γ = c Δ, with c the share of
errors that goes there. Φ is shown for both. Since γ > Δ is out of reach of single random labels, ρ
is of independent candidate sets, those of partial labels. Where no sets exist (γ < Δ/(C − 1)) it
holds the student of the nearest γ that does.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
from jax import lax
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.interpolate import RegularGridInterpolator
from scipy.optimize import isotonic_regression

from experiments import data, results
from jsoft import datasets, indicators, losses, networks, sweep, targets, theory, training

Map = Callable[[Any], np.ndarray]  # from accuracies to those of the next round

# The prototype's single seed on digits: Δ + γ of its pseudo-labels, and test accuracy by round.
PROTOTYPE = {
    20: (0.985, (0.610, 0.623, 0.623, 0.627, 0.627)),
    50: (0.62, (0.803, 0.820, 0.820, 0.820, 0.823)),
    100: (0.25, (0.883, 0.910, 0.907, 0.923, 0.910)),
}


class Cells(NamedTuple):
    """An idealised self-training of ten classes.

    Attributes:
      concentration: c, the share of errors that goes to the likeliest wrong class.
      name: c as one writes it.
      num_votes: N, labels in a cell.
      starts: accuracies of round 0, each with the rounds that the prototype gives after it.
    """

    concentration: float
    name: str
    num_votes: int
    starts: dict[float, list[float]]


CELLS = (
    Cells(1 / 9, "1/9", 25, {0.15: [0.30, 0.86, 1.00], 0.05: [0.01, 0.00]}),
    Cells(0.3, "0.3", 9, {0.18: []}),  # "climbs"
    Cells(1.0, "1", 25, {0.55: [0.69, 0.98, 1.00], 0.45: [0.31, 0.02, 0.00]}),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Train students on their predecessors' labels, fit ρ(Δ, γ) to others, and compare."""

    preset: Literal["tiny", "digits"] = "digits"
    """Where the other options take their defaults from."""
    dataset: str = "digits"
    """Images and true labels: digits (built in), a TFDS name, or the path of a .npz file."""
    data: Path | None = None
    """Where the data set lies: a folder of prepared TFDS sets, or a .npz file."""
    labels: tuple[int, ...] = (20, 50, 100)
    """Numbers of labelled rows, ascending."""
    rounds: int = 5
    """Students one after the other, the first of them on labelled rows alone."""
    seeds: int = 20
    """Self-trainings for each number of labels, seeds 0, 1, 2, …"""
    levels: int = 11
    """Levels of Δ and of γ for the surface, evenly spaced from 0 to 1."""
    surface_seeds: int = 5
    """Students at each pair of levels, seeds 0, 1, 2, …"""
    splits: int = 5
    """Random splits into train, valid and test; seed s uses split s modulo this number."""
    epochs: int = 200
    """Passes over the training examples, at most."""
    patience: int = 20
    """Epochs without a better validation accuracy after which a student stops."""
    batch_size: int = 128
    """Examples a step."""
    learning_rate: float = 0.05
    """Learning rate of the first step; it falls to zero along a cosine."""
    weight_decay: float = 1e-3
    """L2 coefficient on weight matrices."""
    out: Path | None = None
    """Folder of the results; results/self_training/PRESET by default."""
    plot_only: bool = False
    """Redraw figure and summary from the tables that are there, without training."""
    quiet: bool = False
    """No progress bar."""


PRESETS = {
    "tiny": Config(
        preset="tiny",
        labels=(20, 100),
        rounds=3,
        seeds=2,
        levels=3,
        surface_seeds=2,
        splits=1,
        epochs=5,
    ),
    "digits": Config(),
}


def run(config: Config, folder: Path) -> results.Tables:
    """Train all students and return their tables, also written to the folder."""
    for name, least, value in (
        ("rounds", 2, config.rounds),
        ("seeds", 2, config.seeds),
        ("levels", 2, config.levels),
        ("surface_seeds", 2, config.surface_seeds),
        ("splits", 1, config.splits),
    ):
        if value < least:
            raise ValueError(f"{name}: expected {least} or more, got {value}")
    sets = data.load_splits(config.dataset, config.data, splits=config.splits)
    num_classes, num_rows = sets[0].num_classes, len(sets[0].train.labels)
    ascending = tuple(sorted(set(config.labels)))
    if (
        not ascending
        or config.labels != ascending
        or not 1 <= ascending[0] <= ascending[-1] < num_rows
    ):
        raise ValueError(
            f"labels: expected ascending numbers in 1 … {num_rows - 1}, all but one of the "
            f"training rows, got {config.labels}"
        )
    network = networks.MLP((128,), num_classes)

    def student(
        images: jax.Array, candidates: jax.Array, split: datasets.Dataset, key: jax.Array
    ) -> tuple[Any, dict[str, jax.Array]]:
        return training.fit_params(
            network,
            losses.superset_log_loss,  # of a set of one class, the cross-entropy
            images,
            candidates,
            split.valid,
            split.test,
            key,
            epochs=config.epochs,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            nesterov=False,
            weight_decay=config.weight_decay,
            patience=config.patience,
        )

    def self_train(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        split = data.pick(sets, point["seed"])
        images, labels = jnp.asarray(split.train.images), jnp.asarray(split.train.labels)
        truth = targets.one_hot(labels, num_classes).astype(bool)
        draw_key, student_key, shuffle_key = jax.random.split(key, 3)
        every = jnp.arange(num_rows)
        order = jax.random.permutation(draw_key, num_rows)
        is_given = jnp.zeros(num_rows, bool).at[order].set(every < point["num_labels"])

        def one_round(taught: tuple[jax.Array, jax.Array], number: jax.Array):
            rows, told = taught
            params, metrics = student(
                images[rows], told[rows], split, jax.random.fold_in(student_key, number)
            )
            answers = targets.pseudo_labels(training.predict(network, params, images)) > 0
            told = jnp.where(is_given[:, None], truth, answers)
            # What the next student would be if the errors were nobody's: all else is the same.
            shuffled = shuffle_within_classes(told, labels, jax.random.fold_in(shuffle_key, number))
            _, of_shuffled = student(
                images, shuffled, split, jax.random.fold_in(student_key, number + 1)
            )
            measured = indicators.measure_sets(told, labels)
            return (every, told), {
                "unlabelled_accuracy": (answers & truth).any(axis=1).mean(where=~is_given),
                "test_accuracy": metrics["test_accuracy"],
                "best_epoch": metrics["best_epoch"],
                "unreliability": measured.unreliability,
                "ambiguity": measured.ambiguity,
                "concentration": concentration(told, labels),
                "shuffled_test_accuracy": of_shuffled["test_accuracy"],
            }

        labelled = order[every % point["num_labels"]]
        return lax.scan(one_round, (labelled, truth), jnp.arange(config.rounds))[1]

    def learn_from_sets(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        split = data.pick(sets, point["seed"])
        sets_key, student_key = jax.random.split(key)
        candidates = targets.candidate_sets(
            split.train.labels,
            sets_key,
            num_classes=num_classes,
            unreliability=point["unreliability"],
            ambiguity=point["ambiguity"],
        )
        _, metrics = student(jnp.asarray(split.train.images), candidates, split, student_key)
        return {name: metrics[name] for name in ("test_accuracy", "best_epoch")}

    noted = {
        **results.options(config),
        "dataset": sets[0].name,
        "dataset_fingerprint": data.fingerprint(sets),
        "num_classes": num_classes,
        "training_rows": num_rows,
    }
    levels = np.linspace(0, 1, config.levels)
    points = sweep.grid(unreliability=levels, ambiguity=levels, seed=range(config.surface_seeds))
    realisable = targets.is_realisable(
        points["unreliability"], points["ambiguity"], num_classes=num_classes
    )
    return {
        "results": sweep.run(
            self_train,
            sweep.grid(num_labels=config.labels, seed=range(config.seeds)),
            path=folder / "results.parquet",
            config=noted,
            progress=not config.quiet,
            watch="test_accuracy",
        ),
        "surface": sweep.run(
            learn_from_sets,
            {**points, "realisable": realisable},
            path=folder / "surface.parquet",
            config=noted,
            progress=not config.quiet,
            watch="test_accuracy",
        ),
    }


def shuffle_within_classes(told: jax.Array, labels: jax.Array, key: jax.Array) -> jax.Array:
    """Return the rows of `told` [N, C] in an order that is random within each true class.

    How often class y is called i stays the same to the row; which rows are does not depend on the
    image any more.

    >>> told = jnp.eye(3, dtype=bool)
    >>> bool((shuffle_within_classes(told, jnp.arange(3), jax.random.key(0)) == told).all())
    True
    """
    # Two random orders of the rows within sorted classes: the same classes in the same places.
    to, of = (jnp.lexsort((lots, labels)) for lots in jax.random.uniform(key, (2, *labels.shape)))
    return told.at[to].set(told[of])


def concentration(told: jax.Array, labels: jax.Array) -> jax.Array:
    """Return c, the share of errors that goes to the likeliest wrong class of its true class, `[]`.

    Between 1/(C − 1) and 1; NaN without errors.

    Args:
      told: `[N, C]` booleans, the one class that each row is called.
      labels: `[N]` integers, the true classes.

    >>> print(concentration(jnp.eye(3, dtype=bool)[jnp.array([0, 1, 1, 2])], jnp.zeros(4, int)))
    0.6666667
    """
    num_classes = told.shape[1]
    counts = jnp.zeros((num_classes, num_classes)).at[labels].add(told)
    wrong = jnp.where(jnp.eye(num_classes, dtype=bool), 0, counts)
    return wrong.max(axis=1).sum() / wrong.sum()


def monotone_surface(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the surface nearest to `values` that rises along neither axis, `[A, B]`.

    Nearest in weighted squares. Dykstra's method: along one axis and the other the answer is the
    pool-adjacent-violators algorithm's, and alternating between them, with what each took away
    given back before its next turn, leads to the answer along both.

    Args:
      values: `[A, B]` finite numbers.
      weights: `[A, B]` numbers above zero.

    >>> monotone_surface(np.array([[0.2, 0.4], [0.1, 0.0]]), np.ones((2, 2)))
    array([[0.3, 0.3],
           [0.1, 0. ]])
    """
    fitted = values
    taken = [np.zeros_like(values), np.zeros_like(values)]  # along the first axis, the second
    for _ in range(10_000):
        before = fitted
        for axis in (0, 1):
            given_back = fitted + taken[axis]
            fitted = _falling(given_back, weights, axis)
            taken[axis] = given_back - fitted
        if np.abs(fitted - before).max() < 1e-10:
            break
    return fitted


def _falling(values: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Return the nearest values that do not rise along the axis."""
    lines = zip(np.moveaxis(values, axis, 0).T, np.moveaxis(weights, axis, 0).T, strict=True)
    fitted = [isotonic_regression(line, weights=w, increasing=False).x for line, w in lines]
    return np.moveaxis(np.array(fitted).T, 0, axis)


class Surface(NamedTuple):
    """ρ(Δ, γ) on the grid of levels, Δ first.

    Attributes:
      levels: `[levels]` of either axis.
      mean: `[levels, levels]` test accuracy, mean over the seeds that did not diverge.
      error: `[levels, levels]` standard error of the mean; NaN for a single seed.
      realisable: `[levels, levels]` whether such sets exist.
      fitted: `[levels, levels]` the monotone fit.
    """

    levels: np.ndarray
    mean: np.ndarray
    error: np.ndarray
    realisable: np.ndarray
    fitted: np.ndarray


def fit_surface(table: pa.Table) -> Surface:
    """Return the monotone surface through the students of candidate sets."""
    levels = np.unique(table["unreliability"].to_numpy())
    shape = (len(levels), len(levels), -1)
    accuracy = np.ma.masked_invalid(table["test_accuracy"].to_numpy().astype(float).reshape(shape))
    num_seeds = accuracy.count(axis=-1)
    # A cell whose students all diverged weighs next to nothing: its neighbours decide.
    mean = accuracy.mean(axis=-1).filled(0)
    weights = np.maximum(num_seeds, 1e-6)
    variance = accuracy.var(axis=-1).filled(np.nan) * num_seeds / np.maximum(num_seeds - 1, 1e-30)
    return Surface(
        levels=levels,
        mean=np.where(num_seeds > 0, mean, np.nan),
        error=np.sqrt(np.where(num_seeds > 1, variance, np.nan) / np.maximum(num_seeds, 1)),
        realisable=table["realisable"].to_numpy().reshape(shape)[..., 0],
        fitted=monotone_surface(mean, weights),
    )


def next_round(surface: Surface, ratio: float) -> Map:
    """Return Φ(a) = ρ(1 − a, c (1 − a)), with c = γ/Δ the ratio; γ stays at 1 where above.

    The accuracy of the student that is taught by labels of accuracy a; ρ is bilinear between the
    levels. The few rows that keep their true labels are left out of account.
    """
    interpolated = RegularGridInterpolator((surface.levels, surface.levels), surface.fitted)

    def phi(accuracy: Any) -> np.ndarray:
        unreliability = 1 - np.asarray(accuracy, float)
        ambiguity = np.minimum(ratio * unreliability, 1)
        return interpolated(np.stack([unreliability, ambiguity], axis=-1))

    return phi


@functools.partial(jax.jit, static_argnums=2)
def _vote(accuracy: jax.Array, share: float, num_votes: int) -> jax.Array:
    wrong = 1 - accuracy
    return theory.plurality_accuracy(wrong, share * wrong, num_votes=num_votes, num_classes=10)


def next_vote(cells: Cells) -> Map:
    """Return the map of the idealised model: the student answers what most labels of a cell say.

    >>> print(next_vote(CELLS[2])([0.55, 0.45]).round(2))
    [0.69 0.31]
    """
    return lambda accuracy: np.asarray(
        _vote(jnp.asarray(accuracy, jnp.float32), cells.concentration, cells.num_votes), float
    )


def fixed_points(phi: Map) -> list[tuple[float, bool]]:
    """Return where a map of [0, 1] into itself crosses the diagonal, and whether that is stable.

    Stable where it comes from above. There is always one (Knaster and Tarski, for monotone maps).

    >>> [(round(a, 3), stable) for a, stable in fixed_points(lambda a: a**2 * (3 - 2 * a))]
    [(0.0, True), (0.5, False), (1.0, True)]
    """
    accuracy = np.linspace(0, 1, 401)
    gain = phi(accuracy) - accuracy
    above = gain > 0
    above[[0, -1]] = True, False  # φ(0) ≥ 0 and φ(1) ≤ 1: the ends count as such
    found = []
    for i in np.flatnonzero(above[1:] != above[:-1]):
        difference = gain[i] - gain[i + 1]
        share = gain[i] / difference if difference else 0.0
        found.append((float(accuracy[i] + share * (accuracy[i + 1] - accuracy[i])), bool(above[i])))
    return found


def trajectory(phi: Map, start: float, num_rounds: int) -> np.ndarray:
    """Return the accuracies of rounds 0 (the start), 1, …, `[num_rounds + 1]`.

    >>> print(trajectory(lambda a: a / 2, 1.0, 3))
    [1.    0.5   0.25  0.125]
    """
    found = [start]
    for _ in range(num_rounds):
        found.append(float(phi(np.array([found[-1]]))[0]))
    return np.array(found)


class Rounds(NamedTuple):
    """What was measured along self-training, arrays `[labels, seeds, rounds]`.

    Attributes:
      labels: the numbers of labelled rows.
      unlabelled: accuracy of the round's student on the rows that it gives labels to.
      test: its accuracy on test rows.
      shuffled: test accuracy of the student of its labels, shuffled within each true class.
      unreliability: Δ of the labels that it leaves to the next student.
      ambiguity: γ of them, the maximum over pairs of classes.
      concentration: c of them; c Δ is the mean over classes in the place of that maximum.
    """

    labels: list[int]
    unlabelled: np.ndarray
    test: np.ndarray
    shuffled: np.ndarray
    unreliability: np.ndarray
    ambiguity: np.ndarray
    concentration: np.ndarray

    @property
    def ratios(self) -> dict[str, float]:
        """Return c of γ = c Δ for both readings of γ, by least squares over all rounds."""
        squares = self.unreliability**2
        largest = np.nansum(self.unreliability * self.ambiguity) / np.nansum(squares)
        mean = np.nansum(squares * self.concentration) / np.nansum(squares)
        return {"maximum": float(largest), "mean": float(mean)}


def measured_rounds(table: pa.Table) -> Rounds:
    """Return the columns of the table of rounds as arrays."""
    config = sweep.metadata(table)["config"]
    shape = (len(config["labels"]), config["seeds"], config["rounds"])
    columns = (
        "unlabelled_accuracy",
        "test_accuracy",
        "shuffled_test_accuracy",
        "unreliability",
        "ambiguity",
        "concentration",
    )
    arrays = (table[name].to_numpy().astype(float).reshape(shape) for name in columns)
    return Rounds(config["labels"], *arrays)


def summarise(tables: results.Tables) -> dict[str, Any]:
    """Return what rounds, surface and maps show, in plain keys, from the tables alone."""
    config = sweep.metadata(tables["results"])["config"]
    rounds, surface = measured_rounds(tables["results"]), fit_surface(tables["surface"])
    maps = {name: next_round(surface, ratio) for name, ratio in rounds.ratios.items()}
    digits = config["dataset"] == "digits"
    return {
        "claims": [
            *_claims_of_the_cells(),
            *(_claims_of_the_prototype(rounds) if digits else []),
            _claim_of_the_surface(surface, config["surface_seeds"]),
            _claim_of_the_limit(rounds, maps),
            _claim_of_the_copies(rounds),
        ],
        "test_accuracy": _by_number(rounds.labels, _mean(rounds.test)),
        "test_accuracy_standard_deviation": _by_number(rounds.labels, _spread(rounds.test)),
        "shuffled_test_accuracy": _by_number(rounds.labels, _mean(rounds.shuffled)),
        "unlabelled_accuracy": _by_number(rounds.labels, _mean(rounds.unlabelled)),
        "unreliability": _by_number(rounds.labels, _mean(rounds.unreliability)),
        "ambiguity": _by_number(rounds.labels, _mean(rounds.ambiguity)),
        "concentration": _by_number(rounds.labels, _mean(rounds.concentration)),
        "maps": {
            name: {
                "ambiguity_by_unreliability": results.rounded(rounds.ratios[name]),
                "fixed_points": [
                    {"accuracy": results.rounded(a), "stable": stable}
                    for a, stable in fixed_points(phi)
                ],
                "rounds": _by_number(
                    rounds.labels,
                    [trajectory(phi, a, rounds.test.shape[2] - 1) for a in _starts(rounds)],
                ),
            }
            for name, phi in maps.items()
        },
        "diverged_students": int(np.isnan(rounds.test).sum()),
        "seeds": config["seeds"],
        "dataset": config["dataset"],
    }


def _claims_of_the_cells() -> list[dict[str, str]]:
    """Return the claims on the idealised model: thresholds, fixed points and trajectories."""
    thresholds = [float(theory.self_training_threshold(cells.concentration)) for cells in CELLS]
    unstable = [
        next(a for a, stable in fixed_points(next_vote(cells)) if not stable) for cells in CELLS
    ]
    expected, ours = [], []
    for cells in CELLS:
        for start, printed in cells.starts.items():
            if printed:
                found = trajectory(next_vote(cells), start, len(printed))[1:]
                name = f"c = {cells.name} from {start}: "
                expected.append(name + ", ".join(f"{a:.2f}" for a in printed))
                ours.append(name + ", ".join(f"{a:.2f}" for a in found))
    climb = trajectory(next_vote(CELLS[1]), 0.18, 5)
    return [
        results.claim(
            "B7",
            "labels of a model can teach a better one above the accuracy a† = c/(1 + c)",
            source="derived here",
            expected="a† = 0.1, 0.2308, 0.5 at c = 1/9, 0.3, 1 (to 4 digits); unstable fixed "
            "points of the cell model there for c = 1/9 and 1 (N = 25; to 0.001), below for "
            "c = 0.3 (N = 9)",
            ours=", ".join(f"{a:.4f}" for a in thresholds)
            + "; fixed points "
            + ", ".join(f"{a:.3f}" for a in unstable),
            met=np.allclose(thresholds, [0.1, 0.3 / 1.3, 0.5], atol=5e-5)
            and np.allclose([unstable[0], unstable[2]], [0.1, 0.5], atol=1e-3)
            and unstable[1] < thresholds[1],
        ),
        results.claim(
            "B7",
            "trajectories of the cell model, ten classes, 25 labels a cell",
            source="derived here",
            expected="; ".join(expected) + " (to the printed digits)",
            ours="; ".join(ours),
            met=ours == expected,
            reason="the prototype's are simulated, ours exact",
        ),
        results.claim(
            "B7",
            "few labels a cell climb from below the threshold: c = 0.3, N = 9 from 0.18",
            source="derived here",
            expected="rises in each of five rounds, to 1",
            ours=", ".join(f"{a:.3f}" for a in climb),
            met=bool((np.diff(climb) > 0).all() and climb[-1] > 0.999),
            reason="two-way ties already win half the cells",
        ),
    ]


def _claims_of_the_prototype(rounds: Rounds) -> list[dict[str, str]]:
    """Return the claims on measured rounds, for the numbers of labels that the prototype has."""
    claims = []
    for i, number in enumerate(rounds.labels):
        if number not in PROTOTYPE:
            continue
        total, printed = PROTOTYPE[number]
        mean, spread = _mean(rounds.test)[i], _spread(rounds.test)[i]
        both = min(len(printed), len(mean))
        near = np.abs(mean[:both] - printed[:both]) <= 2 * spread[:both]
        gain = rounds.test[i, :, both - 1] - rounds.test[i, :, 0]
        near_gain = abs(gain.mean() - (printed[both - 1] - printed[0])) <= 2 * gain.std(ddof=1)
        claims.append(
            results.claim(
                "B7",
                f"test accuracy in rounds 0, 1, …, {number} labels",
                source="derived here",
                expected=", ".join(f"{a:.3f}" for a in printed)
                + ": one seed of a prototype; each round, and the gain from first to "
                "last, within 2 s.d. of ours",
                ours=", ".join(f"{a:.3f}" for a in mean)
                + f", s.d. {spread.min():.3f} to {spread.max():.3f}; gain "
                + results.mean_and_spread(gain),
                met=bool(near.all() and near_gain),
                reason="labelled rows drawn at random; the prototype does not say how it drew them",
            )
        )
        sums = (rounds.unreliability + rounds.ambiguity)[i, :, 0]
        claims.append(
            results.claim(
                "B7",
                f"Δ + γ of the labels that round 0 gives, {number} labels",
                source="derived here",
                expected=f"{total}: one seed of the prototype, within 2 s.d. of ours",
                ours=results.mean_and_spread(sums),
                met=bool(abs(sums.mean() - total) <= 2 * sums.std(ddof=1)),
            )
        )
    return claims


def _claim_of_the_surface(surface: Surface, num_seeds: int) -> dict[str, str]:
    error = np.sqrt(np.nanmean(surface.error[surface.realisable] ** 2))
    moved = (surface.fitted - surface.mean)[surface.realisable]
    residual = np.sqrt(np.nanmean(moved**2))
    return results.claim(
        "B7",
        "accuracy of students of candidate sets falls in Δ and in γ: a monotone ρ(Δ, γ) fits them",
        source="paper (secondary source)",
        expected="root mean square residual within the standard error of a cell's mean",
        ours=f"residual {residual:.4f}, standard error {error:.4f} ({num_seeds} seeds, "
        f"{surface.realisable.sum()} cells)",
        met=bool(residual <= error),
        smaller_scale=True,
    )


def _claim_of_the_limit(rounds: Rounds, maps: dict[str, Map]) -> dict[str, str]:
    last = rounds.unlabelled[..., -1]
    said, near = [], []
    for name, phi in maps.items():
        limits = [trajectory(phi, start, 1000)[-1] for start in _starts(rounds)]
        said.append(f"γ the {name}: " + ", ".join(f"{limit:.2f}" for limit in limits))
        away = np.abs(last.mean(axis=1) - limits)
        near.append(bool((away <= 2 * last.std(axis=1, ddof=1)).all()))
    return results.claim(
        "B7",
        "Φ, iterated from the accuracy of round 0, tells where self-training ends, for one of the "
        "readings of γ",
        source="paper (secondary source)",
        expected="its limit within 2 s.d. of the accuracy after the last round, for "
        + ", ".join(str(number) for number in rounds.labels)
        + " labels",
        ours="; ".join(said)
        + "; measured "
        + ", ".join(results.mean_and_spread(accuracy) for accuracy in last),
        met=any(near),
        smaller_scale=True,
        reason=""
        if any(near)
        else "the paper admits that a deterministic ρ is an unattainable idealisation; errors "
        "of pseudo-labels are copies within like images, and the next student keeps them",
    )


def _claim_of_the_copies(rounds: Rounds) -> dict[str, str]:
    before, after, shuffled = rounds.test[..., 0], rounds.test[..., 1], rounds.shuffled[..., 0]
    more = shuffled - after
    error = more.std(axis=1, ddof=1) / np.sqrt(more.shape[1])
    return results.claim(
        "B7",
        "rounds are slow because errors are copies: the same labels, shuffled within each true "
        "class, teach more",
        source="derived here",
        expected="accuracy of round 1 higher by 2 standard errors or more, for every number of "
        "labels",
        ours="; ".join(
            f"{number} labels: {gain:+.3f} as they are, {gain + extra:+.3f} shuffled (s.e. of the "
            f"difference {e:.3f})"
            for number, gain, extra, e in zip(
                rounds.labels, (after - before).mean(axis=1), more.mean(axis=1), error, strict=True
            )
        ),
        met=bool((more.mean(axis=1) >= 2 * error).all()),
    )


def _starts(rounds: Rounds) -> list[float]:
    """Return the mean accuracy of round 0 for each number of labels."""
    return [float(start) for start in _mean(rounds.unlabelled)[:, 0]]


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the seeds that did not diverge, `[labels, rounds]`."""
    return np.ma.masked_invalid(values).mean(axis=1).filled(np.nan)


def _spread(values: np.ndarray) -> np.ndarray:
    """Return the standard deviation over them."""
    return np.ma.masked_invalid(values).std(axis=1, ddof=1).filled(np.nan)


def _by_number(labels: list[int], values: Any) -> dict[str, list[float | None]]:
    """Return the values `[labels, rounds]` by number of labels."""
    return {
        str(number): [results.rounded(value) for value in row]
        for number, row in zip(labels, values, strict=True)
    }


COLOURS = ("#0072B2", "#D55E00", "#009E73")  # of numbers of labels, again from the fourth on
CELL_COLOURS = ("#56B4E9", "#E69F00", "#CC79A7")
LINES = ("-", "--")  # of the readings of γ


def plot(tables: results.Tables) -> Figure:
    """Return the figure: rounds, surface, and the cobwebs of Φ and of the cell model."""
    config = sweep.metadata(tables["results"])["config"]
    rounds, surface = measured_rounds(tables["results"]), fit_surface(tables["surface"])
    figure = plt.figure(figsize=(7.2, 6.4), layout="constrained")
    panels: Any = figure.subplots(2, 2)
    _plot_rounds(panels[0, 0], rounds, with_prototype=config["dataset"] == "digits")
    _plot_surface(panels[0, 1], surface, rounds, config["num_classes"])
    _plot_map(panels[1, 0], surface, rounds)
    _plot_cells(panels[1, 1])
    return figure


def _coloured(rounds: Rounds) -> Iterator[tuple[int, int, str]]:
    """Yield position, number of labels and colour."""
    yield from zip(range(len(rounds.labels)), rounds.labels, itertools.cycle(COLOURS))


def _plot_rounds(axes: Axes, rounds: Rounds, *, with_prototype: bool) -> None:
    """Draw accuracy by round, the prototype's numbers, and what shuffled labels would teach."""
    seeds, count = rounds.test.shape[1:]
    number = np.arange(count)
    mean, spread = _mean(rounds.test), _spread(rounds.test)
    shuffled = _mean(rounds.shuffled)
    for i, labels, colour in _coloured(rounds):
        band = mean[i] - spread[i], mean[i] + spread[i]
        axes.fill_between(number, *band, color=colour, alpha=0.12, lw=0)
        axes.plot(number, mean[i], "o-", color=colour, ms=3, lw=1.2)
        axes.plot(number, _mean(rounds.unlabelled)[i], ":", color=colour, lw=0.8)
        axes.plot(number + 1, shuffled[i], "D", color=colour, mfc="white", ms=3)
        if with_prototype and labels in PROTOTYPE:
            printed = PROTOTYPE[labels][1][:count]
            axes.plot(number[: len(printed)], printed, "x", color=colour, ms=4)
        _write(axes, f"{labels} labels", (0, mean[i, 0]), (-5, 0), color=colour, ha="right")
    explained = {
        "o-": f"test rows, mean ± s.d. of {seeds} seeds",
        ":": "unlabelled rows",
        "D": "test rows, had the labels of the round before been\nshuffled within each true class",
    }
    if with_prototype:
        explained["x"] = "test rows, one seed of the prototype"
    for style, text in explained.items():
        face = "white" if style == "D" else None
        axes.plot([], [], style, color="0.3", mfc=face, ms=3, lw=1, label=text)
    axes.set(xlabel="round", ylabel="accuracy", xticks=np.arange(count + 1))
    axes.set_xlim(-0.3 * count, count + 0.3)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom - 0.35 * (top - bottom), top)  # room for the legend
    axes.legend(loc="lower left", fontsize=6, handlelength=1.6, borderpad=0)
    axes.set_title("a   Self-training, round by round", loc="left")


def _plot_surface(axes: Axes, surface: Surface, rounds: Rounds, num_classes: int) -> None:
    """Draw the fitted ρ, and the levels of the pseudo-labels on it."""
    fine = np.linspace(0, 1, 201)
    x, y = np.meshgrid(fine, fine, indexing="ij")
    rho = RegularGridInterpolator((surface.levels, surface.levels), surface.fitted)((x, y))
    axes.pcolormesh(x, y, rho, vmin=0, vmax=1, shading="nearest", rasterized=True)
    exists = np.ma.array(rho, mask=y < x / (num_classes - 1))
    levels = [0.2, 0.4, 0.6, 0.8, 0.9]
    lines = axes.contour(x, y, exists, levels=levels, colors="white", linewidths=0.5)
    axes.clabel(lines, fmt="%g", fontsize=5.5, inline_spacing=2)
    none = [0, 1, 1], [0, 0, 1 / (num_classes - 1)]  # no such sets
    axes.fill(*none, fc="0.93", ec="0.65", hatch="//////", lw=0, zorder=2)
    axes.plot([0, 1], [1, 0], color="black", lw=1.2)
    _write(axes, "Δ + γ = 1", (0.06, 0.94), (3, 2), rotation=-45, color="white")
    for ratio, style in zip(rounds.ratios.values(), LINES, strict=True):
        end = min(1, 1 / ratio)
        axes.plot([0, end], [0, ratio * end], style, color="white", lw=0.9)
        _write(
            axes,
            f"γ = {ratio:.2f} Δ",
            (0.97 * end, 0.97 * ratio * end),
            (0, 4),
            rotation=np.degrees(np.arctan(ratio)),
            color="white",
            ha="right",
        )
    for i, _, colour in _coloured(rounds):
        first = rounds.unreliability[i, :, 0], rounds.ambiguity[i, :, 0]
        axes.scatter(*first, s=9, color=colour, ec="white", lw=0.4, zorder=3)
        unreliability = _mean(rounds.unreliability)[i]
        ambiguity = _mean(rounds.ambiguity)[i]
        axes.plot(unreliability, ambiguity, color="white", lw=2.6, zorder=4)
        axes.plot(unreliability, ambiguity, color=colour, lw=1.6, zorder=5)
        axes.plot(
            unreliability[-1],
            ambiguity[-1],
            "s",
            color=colour,
            mec="white",
            mew=0.6,
            ms=4,
            zorder=5,
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set(xlabel="unreliability Δ", ylabel="ambiguity γ")
    axes.set_title("b   ρ(Δ, γ) as fitted; labels of round 0 (●) to last (■)", loc="left")


def _plot_map(axes: Axes, surface: Surface, rounds: Rounds) -> None:
    """Draw Φ, its fixed points, and the measured rounds on it."""
    _prepare_cobweb(axes)
    fine = np.linspace(0, 1, 401)
    for (name, ratio), style in zip(rounds.ratios.items(), LINES, strict=True):
        phi = next_round(surface, ratio)
        axes.plot(fine, phi(fine), style, color="black", lw=1)
        _mark_fixed_points(axes, phi, "black")
        height = 0.25 if name == "maximum" else 0.6
        side = ((4, 0), "left") if name == "maximum" else ((-4, 0), "right")
        at = fine[np.argmax(phi(fine) >= height)]
        _write(axes, f"Φ, γ the {name},\n{ratio:.2f} (1 − a)", (at, height), side[0], ha=side[1])
    for i, _, colour in _coloured(rounds):
        accuracy = _mean(rounds.unlabelled)[i]
        shuffled = _mean(rounds.shuffled)[i, 0]
        _draw_cobweb(axes, accuracy, colour)
        axes.plot([accuracy[0]] * 2, [accuracy[1], shuffled], ":", color=colour, lw=0.8)
        axes.plot(accuracy[0], shuffled, "D", mfc="white", ms=3.5, color=colour)
    axes.set_title("c   Φ(a) = ρ(1 − a, γ); rounds, shuffled labels (◇) as in a", loc="left")


def _plot_cells(axes: Axes) -> None:
    """Draw the cobwebs of the idealised model."""
    _prepare_cobweb(axes)
    fine = np.linspace(0, 1, 401)
    places = ((0.22, 0.72, "right"), (0.40, 0.64, "left"), (0.58, 0.45, "left"))
    for cells, colour, (x, y, side) in zip(CELLS, CELL_COLOURS, places, strict=True):
        phi = next_vote(cells)
        axes.plot(fine, phi(fine), color=colour, lw=1.2)
        for start in cells.starts:
            axes.plot(start, start, ".", color=colour, ms=4)
            _draw_cobweb(axes, trajectory(phi, start, 6), colour)
        _mark_fixed_points(axes, phi, colour)
        threshold = float(theory.self_training_threshold(cells.concentration))
        axes.plot(threshold, 0, "^", color=colour, ms=4, clip_on=False, zorder=4)
        text = f"c = {cells.name}\nN = {cells.num_votes}"
        _write(axes, text, (x, y), (0, 0), color=colour, ha=side)
    _write(axes, "▲ a† = c/(1 + c)", (0.98, 0.03), (0, 0), ha="right")
    axes.set_title("d   Cell model: N independent labels in a cell vote", loc="left")


def _draw_cobweb(axes: Axes, accuracy: np.ndarray, colour: str) -> None:
    """Draw the way from the diagonal to the next accuracy, and back to the diagonal."""
    corners = np.repeat(accuracy, 2)
    axes.plot(corners[:-1], corners[1:], color=colour, lw=0.7)


def _mark_fixed_points(axes: Axes, phi: Map, colour: str) -> None:
    """Mark stable fixed points by full circles, unstable ones by open circles."""
    for accuracy, stable in fixed_points(phi):
        edge, face = ("black", "black") if stable else (colour, "white")
        axes.plot(accuracy, accuracy, "o", ms=4, color=edge, mfc=face, zorder=3, clip_on=False)


def _prepare_cobweb(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color="0.6", lw=0.6)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set(xlabel="accuracy in round t", ylabel="accuracy in round t + 1")


def _write(
    axes: Axes, text: str, place: tuple[float, float], away: tuple[float, float], **style: Any
) -> None:
    """Write beside a place, so many points away from it."""
    style = {"fontsize": 6.5, "va": "baseline" if "rotation" in style else "center", **style}
    axes.annotate(text, place, away, textcoords="offset points", rotation_mode="anchor", **style)


def report(summary: dict[str, Any]) -> str:
    """Return the summary as a person reads it."""
    lines = [
        f"{number:>5} labels: " + ", ".join(f"{a:.3f}" for a in accuracy)
        for number, accuracy in summary["test_accuracy"].items()
    ]
    return "\n".join(
        [
            "",
            results.timing_line(summary),
            "",
            f"test accuracy in rounds 0, 1, …, mean of {summary['seeds']} seeds",
            *lines,
            "",
            results.claim_lines(summary),
            "",
        ]
    )


if __name__ == "__main__":
    results.main(sys.modules[__name__])
