"""Few images, labelled once: what their soft labels are worth, and which of the labels' entries.

A student learns from a few random images of each class. Their labels are what a partly trained
expert says of them, at one of its epochs ("A Label is Worth a Thousand Images in Dataset
Distillation", arXiv 2406.10485), or the true classes. Then the labels are operated on: one entry is
swapped with the smallest, all but the k largest are dropped, a class loses its images, or its place
in the labels of others.

    python -m experiments.label_worth --preset digits

writes results/label_worth/digits/{results.parquet,figure.png,figure.svg,summary.json} in about
a minute on two cores: for each of 6 seeds an expert and 93 students of 1, 2, 5, 10 and 20 images a
class. To expect (a prototype of ours, another split): hard labels 0.66, 0.76, 0.86, 0.90, 0.94; the
labels of the best of five epochs up to 60, on test rows, 0.74, 0.86, 0.92, 0.95, 0.96.

A seed is a split, an expert, an order of images in each class (fewer are the first of more) and
initial weights, shared by all its students. Students are of full batches and reported after their
last step. The expert's epoch is chosen on validation rows, for each seed and number of images;
surgery is on the labels of that epoch. The paper tunes the epoch, and takes the best of all
evaluations, on test rows.

`--preset cifar10` is the training at full scale (CIFAR-10 (JPEG), convolutional networks with
instance normalisation, augmented images that are not whitened as the paper's are), for an
accelerator; it has not been run yet.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pyarrow as pa
from jax import lax
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from experiments import data, results
from jsoft import augment, condensation, fairness, indicators, networks, sweep, training
from jsoft.datasets import Dataset, Split

# What a student learns from, numbers in the table by their place here. `level` is the epoch of soft
# labels, the k of `keep` and `swap`, the class that is without images (`unseen`, and with hard
# labels `unseen_hard`) or without a place in others' labels (`unnamed`); `control` has both.
KINDS = ("hard", "soft", "keep", "swap", "control", "unnamed", "unseen", "unseen_hard")
OF_CLASS = ("control", "unnamed", "unseen", "unseen_hard")


@dataclasses.dataclass(frozen=True)
class Config:
    """Train students on few images with an expert's labels, and operate on the labels."""

    preset: Literal["tiny", "digits", "cifar10"] = "digits"
    """Where the other options take their defaults from."""
    dataset: str = "digits"
    """Images and true labels: digits (built in), a TFDS name, or the path of a .npz file."""
    data: Path | None = None
    """Where the data set lies: a folder of prepared TFDS sets, or a .npz file."""
    images: tuple[int, ...] = (1, 2, 5, 10, 20)
    """Images of each class, ascending."""
    epochs: tuple[int, ...] = (5, 8, 12, 16, 20, 30, 40, 60, 100, 200)
    """Epochs of the expert that give labels, ascending; the last ends its training."""
    keep: tuple[int, ...] = (1, 2, 3, 5)
    """Entries of a label that are kept, at every number of images."""
    swap: tuple[int, ...] = (1, 2, 3, 4, 6, 9)
    """Ranks that are swapped with the smallest entry, at `swap_images`."""
    swap_images: int = 5
    """Images of each class where ranks are swapped."""
    removed: tuple[int, ...] = (0, 3, 6, 9)
    """Classes that are removed, one at a time, at `removed_images`."""
    removed_images: int = 10
    """Images of each class where classes are removed."""
    seeds: int = 6
    """Experts, seeds 0, 1, 2, …"""
    splits: int = 6
    """Random splits into train, valid and test; seed s uses split s modulo this number."""
    network: Literal["mlp", "convnet"] = "mlp"
    """Expert and student: a 128-128 perceptron, or three blocks with instance normalisation."""
    augment: bool = False
    """Whether expert and students see augmented images."""
    batch_size: int = 64
    """Examples a step of the expert."""
    expert_learning_rate: float = 0.02
    """Of plain gradient descent."""
    steps: int = 600
    """Steps of a student, each on all its images."""
    learning_rate: float = 0.05
    """Of a student at the start, with momentum 0.9 and L2 coefficient 5e-4; times 0.3 after each
    quarter of the steps."""
    out: Path | None = None
    """Folder of the results; results/label_worth/PRESET by default."""
    plot_only: bool = False
    """Redraw figure and summary from the table that is there, without training."""
    quiet: bool = False
    """No progress bar."""


PRESETS = {
    "tiny": Config(
        preset="tiny",
        images=(1, 2),
        epochs=(2, 6, 12),
        keep=(1, 3),
        swap=(1, 2, 9),
        swap_images=2,
        removed=(0, 3),
        removed_images=2,
        seeds=2,
        splits=2,
        steps=60,
    ),
    "digits": Config(),
    "cifar10": Config(
        preset="cifar10",
        dataset="cifar10",
        images=(1, 10),
        epochs=(10, 20, 30, 44, 60, 90, 128, 164),
        swap_images=10,
        seeds=5,
        splits=1,
        network="convnet",
        augment=True,
        batch_size=256,
        expert_learning_rate=5e-4,
        steps=3000,
        learning_rate=0.01,
    ),
}


def run(config: Config, folder: Path) -> results.Tables:
    """Train all experts and students and return their table, also written to the folder."""
    _check(config)
    sets = data.load_splits(config.dataset, config.data, splits=config.splits)
    if max(config.removed) >= sets[0].num_classes:
        raise ValueError(f"removed: expected classes below {sets[0].num_classes}")
    table = sweep.run(
        functools.partial(train, config, sets),
        sweep.grid(seed=range(config.seeds)),
        path=folder / "results.parquet",
        progress=not config.quiet,
        config={
            **results.options(config),
            "dataset": sets[0].name,
            "dataset_fingerprint": data.fingerprint(sets),
            "num_classes": sets[0].num_classes,
            "image_bytes": int(np.prod(sets[0].train.images.shape[1:])),  # a byte for each value
            "valid_rows": len(sets[0].valid.labels),
            "test_rows": len(sets[0].test.labels),
        },
    )
    return {"results": table}


def centred(part: Split) -> Split:
    """Return the rows with images in [−0.5, 0.5]."""
    scale = 255 if jnp.issubdtype(part.images.dtype, jnp.integer) else 1
    return dataclasses.replace(part, images=jnp.asarray(part.images, jnp.float32) / scale - 0.5)


def train(
    config: Config, sets: list[Dataset], point: sweep.Point, key: jax.Array
) -> dict[str, jax.Array]:
    """Return what the students of one expert do, a row for each."""
    split, num_classes = data.pick(sets, point["seed"]), sets[0].num_classes
    split = dataclasses.replace(
        split,
        train=centred(split.train),
        valid=centred(split.valid),
        test=centred(split.test),
    )
    network = {
        "mlp": networks.MLP((128, 128), num_classes),
        "convnet": networks.ConvNet((128,) * 3, num_classes, group=1),
    }[config.network]
    expert_key, subset_key, student_key = jax.random.split(key, 3)
    labels, expert_accuracy = train_expert(config, network, split, expert_key)
    truth, images = jnp.asarray(split.train.labels), split.train.images
    rows = condensation.random_subset(
        truth, subset_key, num_classes=num_classes, per_class=max(config.images)
    ).reshape(num_classes, -1)
    of_all = lax.map(lambda q: describe(q, truth), labels)
    of_all = {f"all_{name}": column for name, column in of_all.items()}
    of_all["expert_accuracy"] = expert_accuracy

    parts = []
    for number in config.images:
        chosen = rows[:, :number].reshape(-1)
        classes = jnp.repeat(jnp.arange(num_classes), number)
        students = functools.partial(
            train_students, config, network, images[chosen], split, student_key
        )
        soft, hard = labels[:, chosen], jax.nn.one_hot(classes, num_classes)
        plain = students(jnp.concatenate([hard[None], soft]))
        best = plain["valid_accuracy"][1:].argmax()
        listed = surgery(config, number)
        altered = students(
            jnp.stack([operated(soft[best], hard, classes, *each) for each in listed])
        )
        controls = len(config.removed) if number == config.removed_images else 0
        again = jnp.concatenate(
            [jnp.arange(1 + len(soft) + len(listed)), jnp.full(controls, 1 + best)]
        )
        seen = {name: jnp.concatenate([plain[name], altered[name]])[again] for name in plain}
        kinds, levels = zip(
            ("hard", 0),
            *(("soft", epoch) for epoch in config.epochs),
            *listed,
            *(("control", label) for label in config.removed[:controls]),
            strict=True,
        )
        is_of_class = np.isin(kinds, OF_CLASS)
        of_class = seen["class_accuracy"][np.arange(len(kinds)), levels * is_of_class]
        seen |= {
            "images_per_class": jnp.full(len(kinds), number),
            "kind": jnp.array([KINDS.index(kind) for kind in kinds]),
            "level": jnp.array(levels),
            "class_accuracy": jnp.where(is_of_class, of_class, jnp.nan),
        }
        of_epochs = lax.map(lambda q, classes=classes: describe(q, classes), soft) | of_all
        for name, column in of_epochs.items():
            seen[name] = jnp.full(len(kinds), jnp.nan).at[1 : 1 + len(soft)].set(column)
        parts.append(seen)
    return {name: jnp.concatenate([part[name] for part in parts]) for name in parts[0]}


def train_expert(
    config: Config, network: training.Network, split: Dataset, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the labels of training rows at each epoch that gives some, and its accuracy.

    `[E, N, C]`, of images as they are, and `[E]`, on validation rows.
    """
    init_key, epochs_key = jax.random.split(key)
    images, labels = split.train.images, jnp.asarray(split.train.labels)
    optimizer = optax.sgd(config.expert_learning_rate)
    steps = len(labels) // config.batch_size

    def step(params: Any, drawn: tuple[jax.Array, jax.Array]):
        batch, draw_key = drawn

        def loss(params: Any) -> jax.Array:
            logits = network.apply(params, augmented(config, images[batch], draw_key))
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch]).mean()

        updates, _ = optimizer.update(jax.grad(loss)(params), optimizer.init(params))
        return optax.apply_updates(params, updates), None

    def one_epoch(params: Any, number: jax.Array):
        order_key, draw_key = jax.random.split(jax.random.fold_in(epochs_key, number))
        order = jax.random.permutation(order_key, len(labels))[: steps * config.batch_size]
        drawn = order.reshape(steps, -1), jax.random.split(draw_key, steps)
        params, _ = lax.scan(step, params, drawn)
        valid = right(network, params, split.valid).mean()
        return params, (training.predict(network, params, images), valid)

    numbers = jnp.arange(config.epochs[-1])
    _, (logits, accuracy) = lax.scan(one_epoch, network.init(init_key, images[:1]), numbers)
    giving = np.array(config.epochs) - 1
    return condensation.expert_soft_labels(logits[giving]), accuracy[giving]


def train_students(
    config: Config,
    network: training.Network,
    images: jax.Array,
    split: Dataset,
    key: jax.Array,
    tables: jax.Array,
) -> dict[str, jax.Array]:
    """Return the accuracies of a student for each table of labels, `[S]` or by class `[S, C]`.

    Args:
      config: steps and rates.
      network: the students.
      images: `[N, ...]`, the few.
      split: its validation and test rows are looked at after the last step.
      key: decides initial weights and augmentation, the same for all students.
      tables: `[S, N, C]` labels; an image whose label is all zeros is left out.
    """
    init_key, steps_key = jax.random.split(key)
    falls = {config.steps * quarter // 4: 0.3 for quarter in (1, 2, 3)}
    optimizer = optax.chain(
        optax.add_decayed_weights(5e-4),
        optax.sgd(optax.piecewise_constant_schedule(config.learning_rate, falls), momentum=0.9),
    )

    def one(labels: jax.Array) -> dict[str, jax.Array]:
        count = (labels.sum(axis=1) > 0).sum()

        def step(state: Any, number: jax.Array):
            params, moments = state

            def loss(params: Any) -> jax.Array:
                seen = augmented(config, images, jax.random.fold_in(steps_key, number))
                values = condensation.truncated_cross_entropy(network.apply(params, seen), labels)
                return values.sum() / count

            updates, moments = optimizer.update(jax.grad(loss)(params), moments, params)
            return (optax.apply_updates(params, updates), moments), None

        params = network.init(init_key, images[:1])
        start = params, optimizer.init(params)
        (params, _), _ = lax.scan(step, start, jnp.arange(config.steps))
        tested = right(network, params, split.test)
        return {
            "valid_accuracy": right(network, params, split.valid).mean(),
            "test_accuracy": tested.mean(),
            "class_accuracy": fairness.class_wise_accuracy(
                tested, jnp.asarray(split.test.labels), tables.shape[-1]
            ),
        }

    return lax.map(one, tables)


def augmented(config: Config, images: jax.Array, key: jax.Array) -> jax.Array:
    """Return the images under one random transform, or as they are."""
    return augment.augment(images, key) if config.augment else images


def right(network: training.Network, params: Any, split: Split) -> jax.Array:
    """Return which rows the network gets right, `[N]`."""
    logits = training.predict(network, params, split.images)
    return logits.argmax(axis=1) == jnp.asarray(split.labels)


def surgery(config: Config, number: int) -> list[tuple[str, int]]:
    """Return what is done to the labels at this number of images: kinds and levels."""
    listed = [("keep", k) for k in config.keep]
    if number == config.swap_images:
        listed += [("swap", k) for k in config.swap]
    if number == config.removed_images:
        listed += [(kind, label) for kind in OF_CLASS[1:] for label in config.removed]
    return listed


def operated(
    soft: jax.Array, hard: jax.Array, classes: jax.Array, kind: str, level: int
) -> jax.Array:
    """Return the labels after surgery, `[N, C]`; rows of zeros are images that are gone."""
    gone = (classes == level)[:, None]
    if kind == "keep":
        return condensation.keep_top_k(soft, k=level)
    if kind == "swap":
        return condensation.swap_rank(soft, k=level)
    if kind == "unnamed":
        return condensation.remove_class(soft, classes, class_index=level)
    return jnp.where(gone, 0, soft if kind == "unseen" else hard)


def describe(soft_labels: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """Return the indicators of labels: Δ, γ at k = 1; the largest κ and D of all k; μ; entropy."""
    measured = indicators.measure(soft_labels, labels)
    return {
        "unreliability": measured.unreliability[0],
        "ambiguity": measured.ambiguity[0],
        "margin": measured.margin.max(),
        "divergence": measured.divergence.max(),
        "mean_label_margin": measured.mean_label_margin,
        "entropy": condensation.label_entropy(soft_labels).mean(),
    }


def _check(config: Config) -> None:
    """Raise unless the options can be run, before anything is read or trained."""
    for name in ("seeds", "splits", "steps", "batch_size"):
        if (value := getattr(config, name)) < 1:
            raise ValueError(f"{name}: expected 1 or more, got {value}")
    for name in ("images", "epochs", "keep", "swap"):
        values = getattr(config, name)
        if len(values) < 2 or values[0] < 1 or (np.diff(values) <= 0).any():
            raise ValueError(f"{name}: expected two or more, ascending from 1, got {values}")
    if 2 not in config.swap:
        raise ValueError(f"swap: expected ranks with 2 among them, got {config.swap}")
    for name in ("swap_images", "removed_images"):
        if (value := getattr(config, name)) not in config.images:
            raise ValueError(f"{name}: expected one of {config.images}, the images, got {value}")
    if not config.removed or min(config.removed) < 0:
        raise ValueError(f"removed: expected classes from 0, got {config.removed}")


Columns = dict[str, np.ndarray]


def select(table: pa.Table, kind: str, images: int) -> Columns:
    """Return the columns of these students, `[seeds, levels]`."""
    columns = {name: table[name].to_numpy() for name in table.column_names}
    here = (columns["kind"] == KINDS.index(kind)) & (columns["images_per_class"] == images)
    seeds = sweep.metadata(table)["config"]["seeds"]
    return {name: column[here].reshape(seeds, -1) for name, column in columns.items()}


def at(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return one value of each row.

    >>> at(np.array([[1, 2], [3, 4]]), np.array([1, 0]))
    array([2, 3])
    """
    return np.take_along_axis(values, places[:, None], axis=1)[:, 0]


def soft_and_hard(table: pa.Table) -> dict[int, Columns]:
    """Return test accuracies `[seeds]` at every number of images, and the epoch of soft labels.

    `soft` is that of the epoch chosen on validation rows, `epoch`.
    """
    found = {}
    for number in sweep.metadata(table)["config"]["images"]:
        soft = select(table, "soft", number)
        chosen = soft["valid_accuracy"].argmax(axis=1)
        found[number] = {
            "hard": select(table, "hard", number)["test_accuracy"][:, 0],
            "soft": at(soft["test_accuracy"], chosen),
            "epoch": at(soft["level"], chosen),
        }
    return found


def scaling(accuracy: np.ndarray, images: list[int], test_rows: int) -> dict[str, Any]:
    """Return the power law error = scale · n^slope in the number of images a class.

    A line through the logarithms of errors (half a test row or more), mean of seeds, with its R²;
    `interval` is that of the slope, 95 %, by Student's t over the slopes of seeds.
    """
    logs = np.log(images), np.log(np.maximum(1 - accuracy, 0.5 / test_rows))
    slopes = np.array([stats.linregress(logs[0], row).slope for row in logs[1]])
    mean = stats.linregress(logs[0], logs[1].mean(axis=0))
    interval = [np.nan] * 2
    if len(slopes) > 1:
        interval = stats.ttest_1samp(slopes, 0).confidence_interval()
    return {
        "slope": float(mean.slope),
        "scale": float(np.exp(mean.intercept)),
        "interval": [results.rounded(end) for end in interval],
        "r_squared": float(mean.rvalue**2),
    }


def trade(table: pa.Table) -> Columns:
    """Return what bytes of images and labels buy, `[points]`: of all numbers of images and kinds.

    `kept` is k of keep-top-k, C for whole soft labels, 0 for hard ones. An image is a byte for each
    value. A hard label is one byte; k entries are three each, a class and a half-precision number;
    a whole label has the numbers alone.
    """
    config = sweep.metadata(table)["config"]
    num_classes = config["num_classes"]
    points = []
    for number, plain in soft_and_hard(table).items():
        kept = select(table, "keep", number)["test_accuracy"].mean(axis=0)
        means = {0: plain["hard"].mean(), **dict(zip(config["keep"], kept, strict=True))}
        for k, mean in (means | {num_classes: plain["soft"].mean()}).items():
            label_bytes = min(3 * k, 2 * num_classes) or 1
            points.append((number, k, number * (config["image_bytes"] + label_bytes), mean))
    images, kept, cost, accuracy = map(np.array, zip(*points, strict=True))
    front = np.asarray(condensation.pareto_front(cost.astype(np.float32), accuracy))
    return {"images": images, "kept": kept, "bytes": cost, "accuracy": accuracy, "front": front}


# Which epoch an indicator would take: the first of the largest value, or of the least.
SIGNS = {
    "Δ": ("unreliability", -1),
    "γ": ("ambiguity", -1),
    "κ": ("margin", 1),
    "D": ("divergence", 1),
    "μ": ("mean_label_margin", 1),
    "entropy": ("entropy", -1),
}
RULES = {
    **SIGNS,
    **{f"{rule}, all rows": (f"all_{name}", sign) for rule, (name, sign) in SIGNS.items()},
    "expert's accuracy": ("expert_accuracy", 1),
    "students": ("valid_accuracy", 1),
}


def picks(table: pa.Table) -> dict[str, Columns]:
    """Return by rule Spearman's ρ over epochs, the epoch and the regret, `[images]` each.

    Means over seeds. Regret is against the one epoch whose mean test accuracy is best; ρ is of the
    indicator, turned so that more is better, with test accuracy, NaN where it never varies.
    `students` is the choice on validation rows, after training a student for each epoch.
    """
    softs = [select(table, "soft", n) for n in sweep.metadata(table)["config"]["images"]]
    found: dict[str, Columns] = {}
    for rule, (name, sign) in RULES.items():
        rows = []
        for soft in softs:
            accuracy, values = soft["test_accuracy"], np.round(sign * soft[name], 6)
            place = values.argmax(axis=1)
            pairs = zip(values, accuracy, strict=True)
            rho = [stats.spearmanr(x, y)[0] for x, y in pairs if np.ptp(x) > 0 and np.ptp(y) > 0]
            rows.append(
                (
                    np.mean(rho) if rho else np.nan,
                    at(soft["level"], place).mean(),
                    accuracy.mean(axis=0).max() - at(accuracy, place).mean(),
                )
            )
        columns = map(np.array, zip(*rows, strict=True))
        found[rule] = dict(zip(("spearman", "epoch", "regret"), columns, strict=True))
    return found


def summarise(tables: results.Tables) -> dict[str, Any]:
    """Return what the students show, in plain keys, from the table alone."""
    table = tables["results"]
    config = sweep.metadata(table)["config"]
    plain, points = soft_and_hard(table), trade(table)
    hard_law = _laws(table, plain)["hard"]
    front = zip(points["images"][points["front"]], points["kept"][points["front"]], strict=True)
    return {
        "claims": _claims(table, plain),
        "images": [
            {
                "images_per_class": number,
                "hard": results.mean_and_spread(columns["hard"]),
                "soft": results.mean_and_spread(columns["soft"]),
                "epochs": columns["epoch"].tolist(),
                "hard_images_of_the_same_error": results.rounded(
                    ((1 - columns["soft"].mean()) / hard_law["scale"]) ** (1 / hard_law["slope"])
                ),
                "soft_by_epoch": _means(select(table, "soft", number)["test_accuracy"]),
                "keep": _means(select(table, "keep", number)["test_accuracy"]),
            }
            for number, columns in plain.items()
        ],
        "swap": _means(select(table, "swap", config["swap_images"])["test_accuracy"]),
        "removed_class": {
            kind: _means(select(table, kind, config["removed_images"])["class_accuracy"])
            for kind in OF_CLASS
        },
        "front_images_and_kept": [[int(number), int(kept)] for number, kept in front],
        "picks": {
            rule: {name: [results.rounded(x) for x in column] for name, column in columns.items()}
            for rule, columns in picks(table).items()
        },
        **{name: config[name] for name in ("seeds", "dataset", "valid_rows", "test_rows")},
    }


def _means(values: np.ndarray) -> list[float | None]:
    return [results.rounded(value) for value in values.mean(axis=0)]


PAPER, OURS = "paper", "derived here"
BOTH = "paper; the amount derived here (a prototype of ours)"


def _claims(table: pa.Table, plain: dict[int, Columns]) -> list[dict[str, str]]:
    """Return what is claimed, by number: source, what is expected, what was found, whether met."""
    config, spread = sweep.metadata(table)["config"], results.mean_and_spread
    gains = {n: x["soft"] - x["hard"] for n, x in plain.items() if n <= 5}
    few, many = config["images"][0], 10 if 10 in plain else config["images"][-1]
    early, late = (plain[number]["epoch"] for number in (few, many))
    swapped = select(table, "swap", config["swap_images"])["test_accuracy"]
    lost = plain[config["swap_images"]]["soft"] - swapped[:, config["swap"].index(2)]
    falls = stats.spearmanr(config["swap"], swapped.mean(axis=0))[0]
    unseen, unseen_hard = (
        select(table, kind, config["removed_images"])["class_accuracy"]
        for kind in ("unseen", "unseen_hard")
    )
    points, picked, laws = trade(table), picks(table), _laws(table, plain)
    hard = (points["kept"] == 0) & (points["images"] >= 5)
    beaten = hard & ~points["front"]
    law = "{scale:.2f} · n^{slope:.2f} ({interval[0]} … {interval[1]}), R² {r_squared:.3f}"
    regrets = [picked[rule]["regret"].mean() for rule in ("D", "expert's accuracy", "students")]
    rho = dict(zip(plain, picked["D, all rows"]["spearman"], strict=True))
    rows = [
        *(
            ("L1", f"soft labels of the chosen epoch beat hard ones, images a class: {number}",
             BOTH, "≥ 0.03 more", f"{spread(gain)}: {plain[number]['soft'].mean():.3f} against "
             f"{plain[number]['hard'].mean():.3f}", gain.mean() >= 0.03)
            for number, gain in gains.items()
        ),
        ("L2", "the best expert is an earlier one where there are fewer images", PAPER,
         f"mean epoch at {few} a class below that at {many}",
         f"{spread(early, 1)} against {spread(late, 1)}", early.mean() < late.mean()),
        ("L3", "entries below the first matter: the second in the smallest's place costs accuracy",
         BOTH, "≥ 0.03 less than without a swap", f"{spread(lost)} less", lost.mean() >= 0.03),
        ("L3", "the lower the rank that is swapped, the less is lost", PAPER,
         "Spearman's ρ of accuracy with k ≥ 0.9", f"ρ = {falls:.3f}, mean of {len(lost)} seeds",
         falls >= 0.9),
        ("L4", "a class without images is learnt from the soft labels of others", BOTH,
         "accuracy on it > 0.05, mean of classes and seeds", spread(unseen.mean(axis=1)),
         unseen.mean() > 0.05),
        ("L4", "a class without images is not learnt from hard labels", OURS,
         "accuracy on it 0 for every class and seed", f"{unseen_hard.max():g} at most",
         unseen_hard.max() == 0),
        ("L5", "labels can be traded for images: fewer bytes with soft labels do as well as 5 or "
         "more images a class with hard ones", "paper; the rule derived here",
         "no such hard-labelled set on the front", f"{beaten.sum()} of {hard.sum()} are off it",
         hard.any() and (beaten == hard).all()),
        ("L6", "error falls as a power of the number of images, with soft as with hard labels",
         OURS, "95 % intervals of both exponents below 0, R² ≥ 0.95",
         "; ".join(f"{name} {law.format(**found)}" for name, found in laws.items()),
         all((x["interval"][1] or 0) < 0 and x["r_squared"] >= 0.95 for x in laws.values())),
        ("L7", "the first epoch at which the few images' labels have the largest D is a good one",
         OURS, "accuracy lost ≤ 0.01, mean over numbers of images", "{:.3f}; {:.3f} with the most "
         "accurate expert, {:.3f} with the best students on validation rows".format(*regrets),
         regrets[0] <= 0.01),
        ("L8", "D of the expert's labels of all training rows orders the epochs", OURS,
         "Spearman's ρ with accuracy ≥ 0.8 at every number of images",
         ", ".join(f"{value:.2f} at {number}" for number, value in rho.items()),
         min(rho.values()) >= 0.8),
    ]  # fmt: skip
    known = {
        "L1": "0.6 % to 6.6 % (ImageNet-1K, ResNet-18, 1 a class)",
        "L2": "epochs 20 and 44 at 1 and 10 images a class (CIFAR-10)",
    }
    return [
        results.claim(
            number,
            statement,
            source=source,
            expected=expected,
            paper=known.get(number, ""),
            ours=ours,
            met=bool(met),
            smaller_scale=source != OURS,
            reason="" if met else REASONS.get(number, ""),
        )
        for number, statement, source, expected, ours, met in rows
    ]


REASONS = {
    "L5": "soft labels gain less the more images there are",
    "L7": "that epoch is too late where images are few",
    "L8": "the expert improves long after its labels are too sharp for students of few images",
}


def _laws(table: pa.Table, plain: dict[int, Columns]) -> dict[str, dict[str, Any]]:
    """Return the power laws of soft and of hard labels."""
    config = sweep.metadata(table)["config"]
    return {
        name: scaling(
            np.stack([columns[name] for columns in plain.values()], axis=1),
            config["images"],
            config["test_rows"],
        )
        for name in ("soft", "hard")
    }


GREY, BLUE, ORANGE = "0.45", "#0072b2", "#d55e00"
DASHES = (0, (2, 2))


def plot(tables: results.Tables) -> Figure:
    """Return the figure: epochs, numbers of images, surgery; the trade; what picks the epoch."""
    table = tables["results"]
    numbers = sweep.metadata(table)["config"]["images"]
    shades = plt.get_cmap("viridis_r")(np.linspace(0.15, 1, len(numbers)))
    colours = dict(zip(numbers, shades, strict=True))
    figure = plt.figure(figsize=(7.2, 4.9), layout="constrained")
    halves: Any = figure.subfigures(2, 1)
    epochs, law, ranks = halves[0].subplots(1, 3, width_ratios=[1.25, 1, 1])
    removed, front, divergence, regret = halves[1].subplots(1, 4, width_ratios=[1.1, 1.05, 1, 0.85])
    _plot_epochs(epochs, table, colours)
    _plot_laws(law, table)
    _plot_ranks(ranks, table)
    _plot_removed(removed, table)
    _plot_trade(front, table)
    _plot_divergence(divergence, table, colours)
    _plot_regret(regret, table, colours)
    return figure


def _bars(axes: Axes, x: Any, values: np.ndarray, colour: Any, **style: Any) -> None:
    """Draw means and standard deviations of the seeds, the first axis."""
    spread = values.std(axis=0, ddof=min(1, len(values) - 1))
    axes.errorbar(x, values.mean(axis=0), spread, color=colour, ms=3, elinewidth=0.7, **style)


def _log_ticks(axes: Axes, ticks: Any, axis: Literal["x", "y"] = "x") -> None:
    """Scale an axis by logarithms, with these ticks and no others."""
    axes.set(**{f"{axis}scale": "log"})
    axes.minorticks_off()
    axes.set(**{f"{axis}ticks": ticks, f"{axis}ticklabels": [f"{tick:g}" for tick in ticks]})


def _plot_epochs(axes: Axes, table: pa.Table, colours: dict[int, Any]) -> None:
    """Draw accuracy against the expert's epoch, dots at the best mean; hard labels at the right."""
    for number, colour in colours.items():
        soft = select(table, "soft", number)
        epochs, values = soft["level"][0], soft["test_accuracy"]
        mean, spread = values.mean(axis=0), values.std(axis=0)
        axes.plot(epochs, mean, color=colour, lw=1.2)
        axes.fill_between(epochs, mean - spread, mean + spread, color=colour, alpha=0.12, lw=0)
        axes.plot(epochs[mean.argmax()], mean.max(), "o", color=colour, ms=4)
        hard = select(table, "hard", number)["test_accuracy"].mean()
        axes.plot(2 * epochs[-1], hard, "s", color=colour, ms=3.5)
        axes.annotate(
            str(number), (2 * epochs[-1], hard), xytext=(5, 0), textcoords="offset points",
            va="center", color=colour,
        )  # fmt: skip
    axes.axvline(1.35 * epochs[-1], color="0.8", lw=0.6)
    _log_ticks(axes, [*epochs[::3], 2 * epochs[-1]])
    axes.set_xticklabels([*map(str, epochs[::3]), "hard"])
    axes.set(xlim=(epochs[0], 3 * epochs[-1]), xlabel="epoch of the expert",
             ylabel="test accuracy")  # fmt: skip
    axes.set_title("a   Images a class, by the expert's epoch", loc="left")


def _plot_laws(axes: Axes, table: pa.Table) -> None:
    """Draw error against the number of images, with the power laws."""
    plain = soft_and_hard(table)
    numbers = np.array(list(plain))
    for name, law in _laws(table, plain).items():
        colour, soft = (BLUE, True) if name == "soft" else (GREY, False)
        errors = 1 - np.stack([columns[name] for columns in plain.values()], axis=1)
        _bars(axes, numbers, errors, colour, fmt="o")
        line = law["scale"] * numbers ** law["slope"]
        axes.plot(numbers, line, color=colour, lw=0.8)
        axes.annotate(
            f"{name}: {law['scale']:.2f} n$^{{{law['slope']:.2f}}}$",
            (0.04, 0.06) if soft else (0.98, 0.9), xycoords="axes fraction", color=colour,
            ha="left" if soft else "right",
        )  # fmt: skip
    _log_ticks(axes, numbers)
    _log_ticks(axes, [0.05, 0.1, 0.2, 0.4], "y")
    axes.set(xlabel="images a class, n", ylabel="test error", xlim=(0.8, 1.25 * numbers[-1]))
    axes.set_title("b   Power laws", loc="left")


def _plot_ranks(axes: Axes, table: pa.Table) -> None:
    """Draw accuracy against the rank that is swapped, and the number that is kept."""
    config = sweep.metadata(table)["config"]
    plain = soft_and_hard(table)[config["swap_images"]]
    for kind, colour, name in (
        ("swap", ORANGE, "k-th in the last's place"),
        ("keep", BLUE, "first k kept"),
    ):
        rows = select(table, kind, config["swap_images"])
        _bars(axes, rows["level"][0], rows["test_accuracy"], colour, fmt="o-", lw=1, label=name)
    axes.axhline(plain["soft"].mean(), color="black", lw=0.7, label="whole")
    axes.axhline(plain["hard"].mean(), color=GREY, lw=0.8, ls=DASHES, label="hard")
    axes.set(ylim=(0, 1), xlabel="k", ylabel="test accuracy", xticks=config["swap"])
    axes.legend(loc="lower right", borderaxespad=0, handlelength=1.4)
    axes.set_title(f"c   Ranks, {config['swap_images']} images a class", loc="left")


def _plot_removed(axes: Axes, table: pa.Table) -> None:
    """Draw the accuracy on a class that lacks its place in labels, or its images."""
    config = sweep.metadata(table)["config"]
    for place, kind in enumerate(OF_CLASS):
        values = select(table, kind, config["removed_images"])["class_accuracy"]
        x = place + np.linspace(-0.33, 0.33, values.shape[1])
        colour = ORANGE if kind == "unseen" else GREY
        _bars(axes, x, values, colour, fmt="none", alpha=0.5)
        for label, at_x, mean in zip(config["removed"], x, values.mean(axis=0), strict=True):
            axes.text(at_x, mean, str(label), ha="center", va="center", color=colour)
    names = "nothing", "place in labels", "images", "images, hard"
    axes.set_xticks(range(len(names)), names, rotation=25, ha="right", rotation_mode="anchor")
    axes.set(ylim=(-0.04, 1.06), ylabel="accuracy on the class", xlim=(-0.55, len(names) - 0.45))
    axes.set_title("d   Taken from a class", loc="left")


def _plot_trade(axes: Axes, table: pa.Table) -> None:
    """Draw accuracy against bytes, by what is kept of labels, and the front."""
    num_classes, points = sweep.metadata(table)["config"]["num_classes"], trade(table)
    cost = points["bytes"] * num_classes / 1000
    kept = np.unique(points["kept"])
    for k, shade in zip(kept, np.linspace(0.2, 1, len(kept)), strict=True):
        here = points["kept"] == k
        axes.plot(
            cost[here],
            points["accuracy"][here],
            "o" if k else "s",
            color=plt.get_cmap("Blues")(shade) if k else GREY,
            ms=3,
            label={0: "hard", num_classes: "whole"}.get(int(k), f"{k} kept"),
        )
    front = np.flatnonzero(points["front"])
    front = front[np.argsort(cost[front])]
    axes.step(cost[front], points["accuracy"][front], where="post", color="black", lw=0.6, zorder=0)
    _log_ticks(axes, [1, 3, 10])
    axes.set(xlabel="kB of images and labels", ylabel="test accuracy")
    axes.legend(loc="lower right", borderaxespad=0, handletextpad=0, labelspacing=0.3)
    axes.set_title("e   Labels for images", loc="left")


def _plot_divergence(axes: Axes, table: pa.Table, colours: dict[int, Any]) -> None:
    """Draw D of the few images' labels and of all over epochs; dots at the best for students."""
    for number, colour in colours.items():
        soft = select(table, "soft", number)
        epochs, mean = soft["level"][0], soft["divergence"].mean(axis=0)
        axes.plot(epochs, mean, color=colour, lw=1.2)
        best = soft["test_accuracy"].mean(axis=0).argmax()
        axes.plot(epochs[best], mean[best], "o", color=colour, ms=4)
    axes.plot(epochs, soft["all_divergence"].mean(axis=0), color="black", lw=1, ls=DASHES)
    _log_ticks(axes, epochs[::-1][::3][::-1])
    axes.set(ylim=(0, 1.03), xlabel="epoch of the expert", ylabel="D(Δ, γ), best k")
    axes.set_title("f   D of labels; dashes: all rows", loc="left")


def _plot_regret(axes: Axes, table: pa.Table, colours: dict[int, Any]) -> None:
    """Draw what ways of picking the epoch lose, at every number of images; bars: means."""
    picked = picks(table)
    shown = "D", "γ", "μ", "entropy", "D, all rows", "expert's accuracy", "students"
    for place, rule in enumerate(shown):
        lost = picked[rule]["regret"]
        axes.scatter(lost, [place] * len(lost), c=[*colours.values()], s=9)
        axes.plot(lost.mean(), place, "|", color="black", ms=8)
    axes.set_yticks(range(len(shown)), shown)
    axes.invert_yaxis()
    axes.axvline(0, color="0.8", lw=0.6, zorder=0)
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="accuracy lost")
    axes.set_title("g   Epoch picked by", loc="left")


def report(summary: dict[str, Any]) -> str:
    """Return the summary as a person reads it."""
    rows = [
        f"{row['images_per_class']:6}   {row['hard']:23}  {row['soft']:23}  {row['epochs']}"
        for row in summary["images"]
    ]
    names = "".join(f"{row['images_per_class']:>15}" for row in summary["images"])
    lines = [f"accuracy lost by picks of the epoch (Spearman's ρ)\n{'':18}{names}"]
    for rule, found in summary["picks"].items():
        pairs = zip(found["regret"], found["spearman"], strict=True)
        cells = (f"{lost:7.3f} ({'—' if rho is None else f'{rho:.2f}'})" for lost, rho in pairs)
        lines.append(f"{rule:18}" + "".join(f"{cell:>15}" for cell in cells))
    rows, lines = "\n".join(rows), "\n".join(lines)
    return f"""
{results.timing_line(summary)}

{results.claim_lines(summary)}

images   hard                     soft                     epochs chosen
{rows}

{lines}
"""


if __name__ == "__main__":
    results.main(sys.modules[__name__])
