"""Labels learned by meta-learning: wrong labels put right by a hundred trusted examples.

The labels of the training rows are parameters. Before every step of the student they move against
the derivative that the loss on a few trusted examples has in them ("Learning Soft Labels via Meta
Learning", arXiv 2009.09496; the algorithm is reconstructed, see `jsoft.meta_labels`). One row of
labels for each training row unlearns noise; one for each given class learns which classes are
alike.

    python -m experiments.meta_labels --preset digits

writes results/meta_labels/digits/{results.parquet,class_labels.parquet,baselines.parquet,
figure.png,figure.svg,summary.json} in less than four minutes on two cores with other work. To
expect, of a prototype of ours at 40 % uniform noise and 100 trusted examples: 92 % test accuracy,
against 70 % of cross-entropy on the given labels, 89 % of cross-entropy on the trusted ones alone
and 97 % with all labels clean; 62 % of the labels right before, 93 % after. With labels of classes
on 150 clean rows, 92.7 % against 91.4 % of cross-entropy on the same rows, and 94.6 % of
cross-entropy on those and the 150 trusted ones: trusted rows cost data, which is to be said
wherever these are compared.

A seed is one draw of split, noise, initial weights and batches, shared by all levels and arms. Rows
are drawn with replacement, so that numbers of rows can be swept in one program. Trusted rows are
never trained on, save by the arms that say so. No epoch is chosen: accuracies are of the last step,
on valid and test rows together. Students of learned labels are trained from scratch with the labels
as they are at the end, and see no trusted example.

What the indicators say (Δ, γ, κ, D at k = 1 and at the k of the largest D, and μ) is measured
against the true labels of the training rows, at the start and along the training.

`--preset cifar10` is the full-scale task, for an accelerator: 1,000 trusted images, 40 % noise,
the normalised label step, five epochs of warm-up. It has not been run yet.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pyarrow as pa
from jax import lax
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from experiments import data, results
from jsoft import indicators, losses, meta_labels, networks, sweep, targets, theory, training
from jsoft.datasets import Dataset, Split


class Arm(NamedTuple):
    """What is trained without learning labels: weights of the two losses, and on which rows."""

    given: float  # weight of the loss on the given labels
    trusted: float  # weight of the loss on the trusted examples
    smoothing: float = 0.0
    pooled: bool = False  # whether trusted rows are drawn like the others


ARMS = {
    "given labels": Arm(1, 0),
    "given labels, smoothed": Arm(1, 0, smoothing=0.1),
    "given and trusted loss": Arm(1, 1),
    "given and trusted pooled": Arm(1, 0, pooled=True),
    "trusted alone": Arm(0, 1),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Learn labels of training rows and of classes, beside students of fixed labels."""

    preset: Literal["tiny", "digits", "cifar10"] = "digits"
    """Where the other options take their defaults from."""
    dataset: str = "digits"
    """Images and true labels: digits (built in), a TFDS name, or the path of a .npz file."""
    data: Path | None = None
    """Where the data set lies: a folder of prepared TFDS sets, or a .npz file."""
    train_rows: int = 900
    """Training rows with given labels."""
    trusted: tuple[int, ...] = (20, 50, 100)
    """Numbers of trusted rows, ascending; claims and flips are of the last."""
    rates: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6)
    """Shares of labels drawn anew from all classes, of which a C-th stays right."""
    flips: tuple[float, ...] = (0.2, 0.4, 0.6)
    """Shares of labels that become the next class."""
    claimed: float = 0.4
    """The rate, of uniform noise and of flips, that the claims speak of."""
    seeds: int = 5
    """Trainings at each level, seeds 0, 1, 2, …"""
    clean: tuple[tuple[int, int], ...] = ((150, 150), (898, 300))
    """Pairs of training and trusted rows for labels of classes on clean data."""
    clean_seeds: int = 10
    """Trainings on each pair."""
    splits: int = 10
    """Random splits into train, valid and test; seed s uses split s modulo this number."""
    network: Literal["mlp", "convnet"] = "mlp"
    """The student: a 64-unit perceptron, or a small convolutional network."""
    steps: int = 1500
    """Steps of a training."""
    looks: int = 30
    """How often a training is looked at, a divisor of the steps; at the start, too."""
    warmup: int = 0
    """Steps before labels begin to move."""
    batch_size: int = 100
    """Training rows a step, drawn with replacement."""
    trusted_batch: int = 100
    """Trusted rows a step, drawn with replacement."""
    learning_rate: float = 0.1
    """Learning rate of the first step and of its look-ahead; it falls to zero along a cosine."""
    weight_decay: float = 2e-3
    """L2 coefficient on weight matrices. Momentum is 0.9."""
    label_rate: float = 100.0
    """Step size of labels of rows."""
    class_label_rate: float = 2.0
    """Step size of labels of classes."""
    normalize: bool = False
    """Whether steps of labels are free of batch size and learning rate."""
    out: Path | None = None
    """Folder of the results; results/meta_labels/PRESET by default."""
    plot_only: bool = False
    """Redraw figure and summary from the tables that are there, without training."""
    quiet: bool = False
    """No progress bar."""
    checkpoints: int = 0
    """How often the state of trainings under way is saved, for those that take hours."""


PRESETS = {
    "tiny": Config(
        preset="tiny",
        train_rows=200,
        trusted=(20, 60),
        rates=(0.0, 0.4),
        flips=(0.4,),
        seeds=2,
        clean=((60, 40),),
        clean_seeds=2,
        splits=1,
        steps=40,
        looks=4,
    ),
    "digits": Config(),
    "cifar10": Config(
        preset="cifar10",
        dataset="cifar10",
        train_rows=39_000,
        trusted=(1000,),
        rates=(0.0, 0.2, 0.4, 0.6),
        flips=(0.4,),
        seeds=3,
        clean=((36_000, 4000),),
        clean_seeds=3,
        splits=1,
        network="convnet",
        steps=60_800,  # 200 epochs
        looks=50,
        warmup=1520,  # 5 epochs
        batch_size=128,
        trusted_batch=128,
        learning_rate=0.01,
        weight_decay=5e-4,
        label_rate=0.1,
        class_label_rate=0.03,
        normalize=True,
        checkpoints=50,
    ),
}


def run(config: Config, folder: Path) -> results.Tables:
    """Train everything and return the tables, also written to the folder."""
    sets = load(config)
    noted = {
        **results.options(config),
        "dataset": sets[0].name,
        "dataset_fingerprint": data.fingerprint(sets),
        "num_classes": sets[0].num_classes,
        "test_rows": len(sets[0].test.labels),
    }

    def swept(name: str, points: dict[str, np.ndarray], watch: str) -> pa.Table:
        return sweep.run(
            trainings(config, sets)[name],
            points,
            path=folder / f"{name}.parquet",
            checkpoints=config.checkpoints,
            progress=not config.quiet,
            watch=watch,
            config=noted,
        )

    return {
        "results": swept("results", noisy_points(config), "test_accuracy"),
        "class_labels": swept("class_labels", class_points(config), "test_accuracy"),
        "baselines": swept("baselines", baseline_points(config), "test_accuracy"),
    }


def load(config: Config) -> list[Dataset]:
    """Return the splits, valid rows counted to the test rows: nothing is chosen by them."""
    for name, least, value in (
        ("seeds", 2, config.seeds),
        ("clean_seeds", 2, config.clean_seeds),
        ("splits", 1, config.splits),
        ("steps", 1, config.steps),
        ("looks", 1, config.looks),
    ):
        if value < least:
            raise ValueError(f"{name}: expected {least} or more, got {value}")
    if config.steps % config.looks:
        raise ValueError(
            f"looks: expected a divisor of the {config.steps} steps, got {config.looks}"
        )
    for name, rates, needed in (
        ("rates", config.rates, (0.0, config.claimed)),
        ("flips", config.flips, (config.claimed,)),
    ):
        if not {*needed} <= {*rates}:
            raise ValueError(f"{name}: expected {needed} among them, got {rates}")
    if not config.trusted or list(config.trusted) != sorted({*config.trusted}):
        raise ValueError(f"trusted: expected ascending numbers, got {config.trusted}")
    sets = data.load_splits(config.dataset, config.data, splits=config.splits)
    there, asked = len(sets[0].train.labels), most_rows(config)
    if asked > there:
        raise ValueError(f"train_rows: {asked} rows asked for with the trusted ones, {there} there")
    join = lambda *parts: np.concatenate(parts)  # noqa: E731
    return [dataclasses.replace(one, test=jax.tree.map(join, one.valid, one.test)) for one in sets]


def most_rows(config: Config) -> int:
    """Return how many rows, trusted ones included, a run can ask for."""
    pairs = [(config.train_rows, most) for most in config.trusted] + list(config.clean)
    return max(sum(pair) for pair in pairs)


def noisy_points(config: Config) -> dict[str, np.ndarray]:
    """Return the points of labels of rows: uniform noise by trusted rows, flips with the most."""
    rows, most, seeds = [config.train_rows], config.trusted[-1:], range(config.seeds)
    return _joined(
        sweep.grid(
            train_rows=rows, flips=[False], rate=config.rates, trusted=config.trusted, seed=seeds
        ),
        sweep.grid(train_rows=rows, flips=[True], rate=config.flips, trusted=most, seed=seeds),
    )


def clean_points(config: Config) -> dict[str, np.ndarray]:
    """Return the points of the pairs of training and trusted rows on clean data."""
    seeds = range(config.clean_seeds)
    return _joined(
        *(
            sweep.grid(train_rows=[rows], flips=[False], rate=[0.0], trusted=[more], seed=seeds)
            for rows, more in config.clean
        )
    )


def class_points(config: Config) -> dict[str, np.ndarray]:
    """Return the points of labels of classes: clean data, and both kinds of noise."""
    noisy = sweep.grid(
        train_rows=[config.train_rows],
        flips=[False, True],
        rate=[config.claimed],
        trusted=config.trusted[-1:],
        seed=range(config.seeds),
    )
    return _joined(clean_points(config), noisy)


def baseline_points(config: Config) -> dict[str, np.ndarray]:
    """Return the points of the arms that learn no labels, once where a level makes no difference.

    Arms without trusted rows run at the most of them, the arm of trusted rows alone at no noise.
    """
    noisy, clean, parts = noisy_points(config), clean_points(config), []
    for number, arm in enumerate(ARMS.values()):
        runs = np.full(len(noisy["seed"]), True)
        if not (arm.trusted or arm.pooled):
            runs &= noisy["trusted"] == config.trusted[-1]
        if not arm.given:
            runs &= ~noisy["flips"] & (noisy["rate"] == 0)
        part = _joined({name: column[runs] for name, column in noisy.items()}, clean)
        parts.append({"arm": np.full(len(part["seed"]), number), **part})
    return _joined(*parts)


def _joined(*parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the rows of all parts."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


Train = Callable[[sweep.Point, jax.Array], dict[str, jax.Array]]


def trainings(config: Config, sets: list[Dataset]) -> dict[str, Train]:
    """Return the trainings by the name of their table."""
    num_classes, count = sets[0].num_classes, most_rows(config)
    plain = {
        "mlp": networks.MLP((64,), num_classes),
        "convnet": networks.ConvNet(num_classes=num_classes),
    }[config.network]
    arms = np.array(list(ARMS.values()), np.float32)

    def start(point: sweep.Point, key: jax.Array) -> tuple[Task, Standardised, jax.Array]:
        noise_key, student_key = jax.random.split(key)
        split = data.pick(sets, point["seed"])
        task = draw_task(split, point, noise_key, count=count)
        pixels = scaled(task.images)
        mean, deviation = pixels.mean(axis=0, keepdims=True), pixels.std(axis=0, keepdims=True)
        network = Standardised(plain, mean, jnp.where(deviation > 0, deviation, 1))
        return task, network, student_key

    def of_rows(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        task, network, key = start(point, key)
        own_row = jnp.arange(count)
        table = meta_labels.init_labels(task.given, num_classes=num_classes)
        rows = slice(config.train_rows)
        true, given = task.labels[rows], task.given[rows]

        def look(params: Any, table: jax.Array) -> dict[str, jax.Array]:
            recovered = meta_labels.label_recovery(table[rows], given, true)
            return {
                "test_accuracy": accuracy(network, params, task.test),
                **{f"labels_{name}": share for name, share in recovered._asdict().items()},
                **describe(table[rows], true),
            }

        learned, seen = fit(
            config, network, task, table, own_row, key, look, learn=config.label_rate
        )
        student = teach(config, network, task, learned, own_row, key)
        step = jnp.linspace(0, config.steps, config.looks + 1)
        return {**seen, "at_step": step, "student_test_accuracy": student}

    def of_classes(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        task, network, key = start(point, key)
        table = meta_labels.init_class_labels(num_classes)
        is_given = jnp.arange(count) < task.train_rows

        def look(params: Any, table: jax.Array) -> dict[str, jax.Array]:
            return {
                "test_accuracy": accuracy(network, params, task.test),
                **describe(table[task.given], task.labels, where=is_given),
            }

        learned, seen = fit(
            config, network, task, table, task.given, key, look, learn=config.class_label_rate
        )
        last = {name: curve[-1] for name, curve in seen.items()}
        return {
            **last,
            "student_test_accuracy": teach(config, network, task, learned, task.given, key),
            "learned_label": learned.reshape(-1),  # a step for each entry, the given class first
        }

    def of_arm(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        task, network, key = start(point, key)
        arm = Arm(*jnp.asarray(arms)[point["arm"]])
        table = meta_labels.init_labels(
            task.given, num_classes=num_classes, smoothing=arm.smoothing
        )
        return {"test_accuracy": teach(config, network, task, table, jnp.arange(count), key, arm)}

    return {"results": of_rows, "class_labels": of_classes, "baselines": of_arm}


class Standardised(NamedTuple):
    """A network that sees every pixel less its mean and over its standard deviation."""

    network: training.Network
    mean: jax.Array
    deviation: jax.Array

    def init(self, key: jax.Array, images: jax.Array) -> Any:
        """Return the parameters of the network."""
        return self.network.init(key, images)

    def apply(self, params: Any, images: jax.Array) -> jax.Array:
        """Return its logits."""
        return self.network.apply(params, (images - self.mean) / self.deviation)


class Task(NamedTuple):
    """What a run is given; trusted rows follow those with given labels."""

    images: jax.Array
    labels: jax.Array  # the true ones
    given: jax.Array  # spoilt, save those of trusted rows
    train_rows: jax.Array
    trusted: jax.Array
    test: Split


def draw_task(split: Dataset, point: sweep.Point, key: jax.Array, *, count: int) -> Task:
    """Return the first rows of the split, with the noise of this point on the given labels."""
    labels = jnp.asarray(split.train.labels)[:count]
    noise = {"num_classes": split.num_classes, "rate": point["rate"]}
    redrawn, _ = targets.uniform_label_noise(labels, key, **noise)
    flipped, _ = targets.flip_label_noise(labels, key, **noise)
    spoilt = jnp.where(point["flips"], flipped, redrawn)
    return Task(
        images=jnp.asarray(split.train.images)[:count],
        labels=labels,
        given=jnp.where(jnp.arange(count) < point["train_rows"], spoilt, labels),
        train_rows=point["train_rows"],
        trusted=point["trusted"],
        test=split.test,
    )


def fit(
    config: Config,
    network: training.Network,
    task: Task,
    table: jax.Array,
    place: jax.Array,
    key: jax.Array,
    look: Callable[[Any, jax.Array], Any],
    *,
    learn: float = 0.0,
    arm: Arm = ARMS["given labels"],
) -> tuple[jax.Array, Any]:
    """Return the table of labels after the last step, and what `look` saw, `[looks + 1, ...]`.

    Args:
      config: batches, rates and steps.
      network: the student.
      task: rows, given labels, trusted rows.
      table: labels to start from, `[rows, C]` or `[C, C]`.
      place: the row of the table that holds the label of each row of the task.
      key: decides initial parameters and batches.
      look: function of parameters and table, called at the start and after each part.
      learn: step size of the labels, which stay as they are at 0.
      arm: what the student minimises.
    """
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    optimizer = optax.chain(
        optax.add_decayed_weights(
            config.weight_decay,
            mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
        ),
        optax.sgd(schedule, momentum=0.9),
    )
    init_key, order_key = jax.random.split(key)
    drawn = task.train_rows + jnp.where(jnp.asarray(arm.pooled) > 0, task.trusted, 0)

    def step(number: jax.Array, state: tuple[Any, Any, jax.Array]):
        params, optimizer_state, table = state
        rows_key, trusted_key = jax.random.split(jax.random.fold_in(order_key, number))
        rows = jax.random.randint(rows_key, (config.batch_size,), 0, drawn)
        trusted = task.train_rows + jax.random.randint(
            trusted_key, (config.trusted_batch,), 0, task.trusted
        )
        images, trusted_images = scaled(task.images[rows]), scaled(task.images[trusted])

        def trusted_loss(params: Any) -> jax.Array:
            logits = network.apply(params, trusted_images)
            return optax.losses.softmax_cross_entropy_with_integer_labels(
                logits, task.labels[trusted]
            ).mean()

        if learn:
            gradient, _ = meta_labels.meta_label_gradient(
                network.apply,
                params,
                images,
                table[place[rows]],
                trusted_loss,
                lr=schedule(number),
                normalize=config.normalize,
            )
            rate = jnp.where(number < config.warmup, 0.0, learn)
            table = meta_labels.scatter_label_update(table, place[rows], gradient, lr=rate)

        def loss(params: Any) -> jax.Array:
            own = losses.soft_cross_entropy(network.apply(params, images), table[place[rows]])
            return arm.given * own.mean() + arm.trusted * trusted_loss(params)

        updates, optimizer_state = optimizer.update(jax.grad(loss)(params), optimizer_state, params)
        return optax.apply_updates(params, updates), optimizer_state, table

    each = config.steps // config.looks

    def part(state: tuple[Any, Any, jax.Array], number: jax.Array):
        first = (number - 1) * each
        state = lax.fori_loop(first, jnp.where(number > 0, first + each, first), step, state)
        return state, look(state[0], state[2])

    params = network.init(init_key, scaled(task.images[:1]))
    begin = (params, optimizer.init(params), table)
    (_, _, table), seen = lax.scan(part, begin, jnp.arange(config.looks + 1))
    return table, seen


def teach(
    config: Config,
    network: training.Network,
    task: Task,
    table: jax.Array,
    place: jax.Array,
    key: jax.Array,
    arm: Arm = ARMS["given labels"],
) -> jax.Array:
    """Return the test accuracy of a new student of labels that stay, `[]`; see `fit`."""

    def look(params: Any, table: jax.Array) -> jax.Array:
        return accuracy(network, params, task.test)

    return fit(config, network, task, table, place, key, look, arm=arm)[1][-1]


def scaled(images: jax.Array) -> jax.Array:
    """Return images as floats, whole numbers by 1/255."""
    return images / 255 if jnp.issubdtype(images.dtype, jnp.integer) else images


def accuracy(network: training.Network, params: Any, test: Split) -> jax.Array:
    """Return the share of test rows that the student gets right; NaN if it diverged."""
    logits = training.predict(network, params, test.images)
    right = (logits.argmax(axis=-1) == jnp.asarray(test.labels)).mean()
    return jnp.where(jnp.isfinite(logits).all(), right, jnp.nan)


def describe(
    soft_labels: jax.Array, labels: jax.Array, where: jax.Array | None = None
) -> dict[str, jax.Array]:
    """Return Δ, γ, κ and D at k = 1, the same at the k of the largest D, that k, and μ."""
    found = indicators.measure(soft_labels, labels, where=where)
    # Past the line D is continued by κ, so that one k is the best there too.
    exponents = theory.divergence(found.unreliability, found.ambiguity, extended=True)
    best = jnp.argmax(exponents)
    at = {
        "unreliability": found.unreliability,
        "ambiguity": found.ambiguity,
        "margin": found.margin,
        "divergence": exponents,
    }
    return {
        **{name: values[0] for name, values in at.items()},
        **{f"best_{name}": values[best] for name, values in at.items()},
        "best_k": found.k[best],
        "mean_label_margin": found.mean_label_margin,
    }


class Level(NamedTuple):
    """Where in the tables a row stands."""

    rate: float
    trusted: int
    train_rows: int
    flips: bool = False


class Found:
    """What the tables hold, by level, `[seeds]` or `[seeds, looks + 1]`."""

    def __init__(self, tables: results.Tables):
        self.columns = {
            name: {column: table[column].to_numpy() for column in table.column_names}
            for name, table in tables.items()
        }
        self.config = sweep.metadata(tables["results"])["config"]
        self.trusted, self.rows = self.config["trusted"][-1], self.config["train_rows"]

    def level(self, rate: float, *, flips: bool = False, trusted: int | None = None) -> Level:
        """Return the level of noisy labels at this rate, with the most trusted rows by default."""
        return Level(rate, trusted or self.trusted, self.rows, flips)

    def noisy(self) -> list[Level]:
        """Return all levels at which labels of rows were learned."""
        uniform = [
            self.level(rate, trusted=trusted)
            for rate in self.config["rates"]
            for trusted in self.config["trusted"]
        ]
        return uniform + [self.level(rate, flips=True) for rate in self.config["flips"]]

    def of_rows(self, name: str, level: Level) -> np.ndarray:
        """Return a curve of the learning of labels of rows, `[seeds, looks + 1]`."""
        return self._at("results", name, level).reshape(self.config["seeds"], -1)

    def of_classes(self, name: str, level: Level) -> np.ndarray:
        """Return a number of each learning of labels of classes, `[seeds]`, or all its labels."""
        values = self._at("class_labels", name, level)
        values = values.reshape(-1, self.config["num_classes"] ** 2)
        return values if name == "learned_label" else values[:, 0]

    def arm(self, name: str, level: Level) -> np.ndarray:
        """Return the accuracy of an arm, `[seeds]`, where it was run for all that are like it."""
        arm = ARMS[name]
        if level.train_rows == self.rows and not (arm.trusted or arm.pooled):
            level = level._replace(trusted=self.trusted)
        if not arm.given:
            level = level._replace(rate=0.0, flips=False)
        return self._at("baselines", "test_accuracy", level, arm=list(ARMS).index(name))

    def _at(self, table: str, name: str, level: Level, **more: int) -> np.ndarray:
        columns = self.columns[table]
        same = [np.isclose(columns[axis], value) for axis, value in level._asdict().items()]
        same += [columns[axis] == value for axis, value in more.items()]
        return columns[name][np.all(same, axis=0)]


SEEN = ("margin", "best_divergence", "mean_label_margin", "labels_accuracy")


def label_sets(found: Found) -> dict[str, dict[str, np.ndarray]]:
    """Return κ, D, μ, the share of right labels and the accuracy of new students, `[sets]` each.

    Of labels as given, as learned with the most trusted rows or fewer, and, `moved`, of the latter
    less what they were as given; a set for each seed.
    """
    noisy = found.noisy()

    def join(look: int, students: list[np.ndarray], levels: list[Level]) -> dict[str, np.ndarray]:
        seen = {
            name: np.concatenate([found.of_rows(name, level)[:, look] for level in levels])
            for name in SEEN
        }
        return {**seen, "accuracy": np.concatenate(students)}

    most = [level for level in noisy if level.trusted == found.trusted]
    given = join(0, [found.arm("given labels", level) for level in most], most)
    before = join(0, [found.arm("given labels", level) for level in noisy], noisy)
    after = join(
        -1, [found.of_rows("student_test_accuracy", level)[:, -1] for level in noisy], noisy
    )
    return {
        "given": given,
        "learned": after,
        "all": {name: np.concatenate([given[name], after[name]]) for name in after},
        "moved": {name: after[name] - before[name] for name in after},
    }


def _spearman(sets: dict[str, np.ndarray]) -> dict[str, float | None]:
    """Return Spearman's ρ of each indicator with the accuracy."""
    finite = np.isfinite(sets["accuracy"])
    accuracy = sets["accuracy"][finite]
    return {name: results.rounded(spearmanr(sets[name][finite], accuracy)[0], 3) for name in SEEN}


def summarise(tables: results.Tables) -> dict[str, Any]:
    """Return what the trainings show, in plain keys, from their tables alone."""
    found = Found(tables)
    sets = label_sets(found)
    moved = sets.pop("moved")
    indicators_say = {
        "spearman": {name: _spearman(one) for name, one in sets.items()},
        "same_direction": {
            name: results.rounded(np.mean((moved[name] > 0) == (moved["accuracy"] > 0)), 3)
            for name in SEEN
        },
    }
    claims = [
        *_claims_of_noise(found),
        *_claims_of_classes(found),
        *_claims_of_indicators(found, indicators_say),
    ]
    return {
        "claims": sorted(claims, key=lambda row: row["id"]),
        "noise": [_described(found, level) for level in found.noisy()],
        "clean": [_described_clean(found, Level(0.0, m, n)) for n, m in found.config["clean"]],
        **indicators_say,
        "alike": _alike(found),
        "diverged_trainings": sum(
            int(np.isnan(columns[name]).sum())
            for columns in found.columns.values()
            for name in ("test_accuracy", "student_test_accuracy")
            if name in columns
        ),
        "seeds": found.config["seeds"],
        "dataset": found.config["dataset"],
    }


PROTOTYPE = "reconstructed (a prototype of ours on digits)"


def _claims_of_noise(found: Found) -> list[dict[str, str]]:
    """Return the claims about labels of rows."""
    claims = []
    rate, spread = found.config["claimed"], results.mean_and_spread
    for identifier, kind, level in (
        ("M1", "uniform noise", found.level(rate)),
        ("M7", "cyclic flips", found.level(rate, flips=True)),
    ):
        accuracy = found.of_rows("test_accuracy", level)[:, -1]
        above = accuracy - found.arm("given labels", level)
        alone = accuracy - found.arm("trusted alone", level)
        where = f"{kind} at {rate:g}, {found.trusted} trusted examples"
        claims += [
            results.claim(
                identifier,
                f"learned labels beat cross-entropy on the given ones: {where}",
                source=PROTOTYPE,
                expected="more than 0.10 above in every seed",
                ours=f"{spread(accuracy)} against "
                f"{spread(found.arm('given labels', level))}, {above.min():.3f} above at least",
                met=bool((above > 0.10).all()),
            ),
            results.claim(
                "M2" if kind == "uniform noise" else identifier,
                f"learned labels beat cross-entropy on the trusted examples alone: {where}",
                source=PROTOTYPE,
                expected="more than 0.015 above on average" if identifier == "M1" else "above",
                ours=f"{spread(alone)} above {spread(found.arm('trusted alone', level))}",
                met=bool(alone.mean() > (0.015 if identifier == "M1" else 0)),
            ),
        ]
    level = found.level(rate)
    right = found.of_rows("labels_accuracy", level)
    fixed, kept = (found.of_rows(f"labels_{name}", level)[:, -1] for name in ("fixed", "kept"))
    student = found.of_rows("student_test_accuracy", level)[:, -1]
    given, smoothed = (found.arm(name, level) for name in list(ARMS)[:2])
    of_classes = found.of_classes("student_test_accuracy", level)
    better = bool((student > np.maximum(given, smoothed)).all())
    return [
        *claims,
        results.claim(
            "M3",
            f"labels that are right become more: uniform noise at {rate:g}",
            source=PROTOTYPE,
            expected="from about 0.62 to 0.88 or more",
            ours=f"{spread(right[:, 0])} before, {spread(right[:, -1])} after",
            met=bool(right[:, -1].mean() >= 0.88),
        ),
        results.claim(
            "M4",
            f"wrong labels are fixed, right ones kept: uniform noise at {rate:g}",
            source=PROTOTYPE,
            expected="0.75 or more, 0.90 or more",
            ours=f"{spread(fixed)}, {spread(kept)}",
            met=bool(fixed.mean() >= 0.75 and kept.mean() >= 0.90),
        ),
        results.claim(
            "M6",
            f"learned labels teach new students better: uniform noise at {rate:g}",
            source="paper (better teachers; no number)",
            expected="students of them above those of given and of smoothed ones, every seed",
            ours=f"{spread(student)} of learned labels, {spread(given)} of the given, "
            f"{spread(smoothed)} of the given, smoothed, {spread(of_classes)} of labels of classes",
            met=better,
            smaller_scale=True,
            reason="students are taught the labels themselves; the paper's own way is not known",
        ),
    ]


def _claims_of_classes(found: Found) -> list[dict[str, str]]:
    """Return the claims about labels of classes on clean data."""
    spread = results.mean_and_spread
    levels = [Level(0.0, trusted, rows) for rows, trusted in found.config["clean"]]

    def over_pairs(of: Callable[[Level], np.ndarray]) -> np.ndarray:
        return np.mean([of(level) for level in levels], axis=0)

    def arm(name: str) -> Callable[[Level], np.ndarray]:
        return lambda level: found.arm(name, level)

    learned = over_pairs(lambda level: found.of_classes("test_accuracy", level))
    student = over_pairs(lambda level: found.of_classes("student_test_accuracy", level))
    given, smoothed, pooled = (
        over_pairs(arm(name))
        for name in ("given labels", "given labels, smoothed", "given and trusted pooled")
    )
    pairs = " and ".join(f"{level.train_rows} + {level.trusted}" for level in levels)
    return [
        results.claim(
            "M5",
            f"learned labels of classes beat one-hot labels on clean data: {pairs} rows",
            source="paper",
            expected="more than 0.005 above on average",
            paper="0.021 above (ResNet-18 on CIFAR-100)",
            ours=f"{spread(learned - given)} above {spread(given)}",
            met=bool((learned - given).mean() > 0.005),
            smaller_scale=True,
            reason=f"trained on the trusted rows as well, one-hot labels give {spread(pooled)}; "
            f"smoothed by 0.1, without them, {spread(smoothed)}",
        ),
        results.claim(
            "M6",
            f"learned labels of classes teach new students better on clean data: {pairs} rows",
            source="paper (better teachers; no number)",
            expected="students of them above those of one-hot labels on average",
            ours=f"{spread(student)} against {spread(given)}; of smoothed ones {spread(smoothed)}",
            met=bool(student.mean() > given.mean()),
            smaller_scale=True,
            reason=""
            if student.mean() > smoothed.mean()
            else "smoothed ones teach as well or better",
        ),
    ]


def _claims_of_indicators(found: Found, say: dict[str, Any]) -> list[dict[str, str]]:
    """Return the claims about κ of the labels."""
    rate, spread = max(found.config["flips"]), results.mean_and_spread
    level = found.level(rate, flips=True)
    margin = found.of_rows("margin", level)
    student = found.of_rows("student_test_accuracy", level)[:, -1]
    crossed = (margin[:, 0] < 0) & (margin[:, -1] > 0)
    among, direction = say["spearman"]["all"], say["same_direction"]
    return [
        results.claim(
            "M8",
            f"learning moves κ of the labels (k = 1) across zero: cyclic flips at {rate:g}",
            source="derived here",
            expected="κ below 0 before and above 0 after, in every seed",
            ours=f"from {spread(margin[:, 0])} to {spread(margin[:, -1])}; their students from "
            f"{spread(found.arm('given labels', level))} to {spread(student)}",
            met=bool(crossed.all()),
        ),
        results.claim(
            "M9",
            "κ of the labels orders the accuracies of the students that they teach",
            source="derived here",
            expected="Spearman's ρ ≥ 0.75 over all sets of labels",
            ours=f"ρ = {among['margin']} with κ, {among['best_divergence']} with D, "
            f"{among['mean_label_margin']} with μ, {among['labels_accuracy']} with the share of "
            f"right labels; of learned labels alone {say['spearman']['learned']['margin']} with κ",
            met=among["margin"] is not None and among["margin"] >= 0.75,
            reason="whether learning helped is told by the change of κ in "
            f"{direction['margin']:.0%} of the trainings, of D in "
            f"{direction['best_divergence']:.0%}, of μ in {direction['mean_label_margin']:.0%}, of "
            f"the share of right labels in {direction['labels_accuracy']:.0%}",
        ),
    ]


def _described(found: Found, level: Level) -> dict[str, Any]:
    """Return the means of a level of noise, before and after."""
    names = (
        *("unreliability", "ambiguity", "margin", "divergence", "mean_label_margin"),
        *("best_k", "best_margin", "labels_accuracy"),
    )
    before_and_after = {
        name: [results.rounded(np.nanmean(found.of_rows(name, level)[:, look])) for look in (0, -1)]
        for name in names
    }
    last = {
        name: results.rounded(np.nanmean(found.of_rows(name, level)[:, -1]))
        for name in ("test_accuracy", "student_test_accuracy", "labels_kept")
    }
    arms = {name: results.rounded(np.nanmean(found.arm(name, level))) for name in ARMS}
    return {**level._asdict(), **last, "arms": arms, "before_and_after": before_and_after}


def _described_clean(found: Found, level: Level) -> dict[str, Any]:
    """Return accuracies on clean data with their standard errors."""
    learned = {
        "class labels": found.of_classes("test_accuracy", level),
        "student of class labels": found.of_classes("student_test_accuracy", level),
    }
    arms = learned | {name: found.arm(name, level) for name in ARMS}
    return {
        **level._asdict(),
        "mean_and_standard_error": {
            name: [
                results.rounded(values.mean()),
                results.rounded(values.std(ddof=1) / np.sqrt(len(values))),
            ]
            for name, values in arms.items()
        },
    }


def class_similarity(found: Found) -> np.ndarray:
    """Return what learned labels of classes leave to others, `[C, C]`, mean of the first pair."""
    rows, trusted = found.config["clean"][0]
    num_classes = found.config["num_classes"]
    learned = found.of_classes("learned_label", Level(0.0, trusted, rows)).mean(axis=0)
    return np.where(np.eye(num_classes, dtype=bool), np.nan, learned.reshape(num_classes, -1))


def _alike(found: Found) -> list[dict[str, Any]]:
    """Return the pairs of given class and other class with the largest learned labels."""
    similarity = np.nan_to_num(class_similarity(found))
    order = np.argsort(similarity, axis=None)[::-1][:5]
    return [
        {"given": int(row), "other": int(column), "label": round(float(similarity[row, column]), 4)}
        for row, column in zip(*np.unravel_index(order, similarity.shape), strict=True)
    ]


def report(summary: dict[str, Any]) -> str:
    """Return the summary as a person reads it."""
    alike = ", ".join(f"{one['given']} → {one['other']}" for one in summary["alike"])
    return f"""
{results.timing_line(summary)}

{results.claim_lines(summary)}

classes that learned labels hold for alike: {alike}
"""


BLUE, ORANGE, GREEN, GREY, PURPLE = "#0072b2", "#d55e00", "#009e73", "0.55", "#aa4499"


def plot(tables: results.Tables) -> Figure:
    """Return the figure: accuracies, the labels' way, κ, and what classes are held for alike."""
    found = Found(tables)
    figure = plt.figure(figsize=(7.2, 4.7), layout="constrained")
    rows: Any = figure.subfigures(2, 1)
    top = rows[0].subplots(1, 3, width_ratios=[1.15, 1, 1])
    bottom = rows[1].subplots(1, 4, width_ratios=[1, 1.1, 0.9, 1.1])
    _plot_arms(top[0], found)
    _plot_rates(top[1], found)
    _plot_recovery(top[2], found)
    _plot_margins(bottom[0], found)
    _plot_students(bottom[1], found)
    _plot_clean(bottom[2], found)
    _plot_similarity(rows[1], bottom[3], found)
    return figure


def _words(axes: Axes, lines: dict[str, Any], *, x: float, y: float, ha: str = "right") -> None:
    """Write words in the colours of what they name, one below the other."""
    for number, (words, color) in enumerate(lines.items()):
        axes.text(x, y - 0.08 * number, words, color=color, ha=ha, transform=axes.transAxes)


def _dots(axes: Axes, place: float, values: np.ndarray, color: str) -> None:
    """Draw one dot a seed and a bar at the mean."""
    axes.plot(values, np.full(len(values), place), "o", ms=2.5, mew=0, alpha=0.5, color=color)
    axes.plot([values.mean()] * 2, [place - 0.2, place + 0.2], color=color, lw=1.4)


def _band(axes: Axes, x: Any, values: np.ndarray, color: Any) -> None:
    """Draw the mean over the last axis and one standard deviation around it."""
    mean, spread = np.nanmean(values, axis=-1), np.nanstd(values, axis=-1)
    axes.fill_between(x, mean - spread, mean + spread, color=color, alpha=0.15, lw=0)
    axes.plot(x, mean, color=color, lw=1.1)


def _plot_arms(axes: Axes, found: Found) -> None:
    """Draw the accuracies of all arms at the claimed rate."""
    rate, names = found.config["claimed"], []
    for flips, color, shift in ((False, BLUE, -0.16), (True, ORANGE, 0.16)):
        level = found.level(rate, flips=flips)
        values = {
            **{name: found.arm(name, level) for name in ARMS},
            "new student, class labels": found.of_classes("student_test_accuracy", level),
            "new student, learned": found.of_rows("student_test_accuracy", level)[:, -1],
            "learned labels": found.of_rows("test_accuracy", level)[:, -1],
            "all labels clean": found.arm("given labels", found.level(0.0)),
        }
        for place, (name, accuracies) in enumerate(values.items()):
            same = name in ("trusted alone", "all labels clean")  # for both kinds of noise
            _dots(axes, place + (0 if same else shift), accuracies, GREY if same else color)
        names = list(values)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("test accuracy")
    _words(axes, {"cyclic flips": ORANGE, "uniform noise": BLUE}, x=0.03, y=0.92, ha="left")
    axes.set_title(f"a   {rate:.0%} noise, {found.trusted} trusted rows", loc="left")


def _plot_rates(axes: Axes, found: Found) -> None:
    """Draw accuracy over the rate of uniform noise, by the number of trusted rows."""
    rates = found.config["rates"]
    colors = plt.get_cmap("viridis_r")(np.linspace(0.25, 0.85, len(found.config["trusted"])))
    for trusted, color in zip(found.config["trusted"], colors, strict=True):
        levels = [found.level(rate, trusted=trusted) for rate in rates]
        values = np.array([found.of_rows("test_accuracy", level)[:, -1] for level in levels])
        _band(axes, rates, values, color)
        alone = found.arm("trusted alone", levels[0]).mean()
        axes.plot([rates[0], rates[-1]], [alone, alone], color=color, lw=0.7, ls=":")
        axes.text(rates[-1] + 0.01, np.nanmean(values[-1]), f"{trusted}", color=color, va="center")
    given = np.array([found.arm("given labels", found.level(rate)) for rate in rates])
    _band(axes, rates, given, GREY)
    axes.set(xlabel="rate of uniform noise", ylabel="test accuracy")
    axes.set_xlim(right=1.12 * rates[-1])
    _words(axes, {"dotted: trusted alone": "black", "given labels": GREY}, x=0.03, y=0.1, ha="left")
    axes.set_title("b   Learned labels, by trusted rows", loc="left")


def _plot_recovery(axes: Axes, found: Found) -> None:
    """Draw what becomes of the labels along the training."""
    level = found.level(found.config["claimed"])
    lines = {"kept": GREEN, "accuracy": "black", "fixed": ORANGE}
    for name, color in lines.items():
        step = found.of_rows("at_step", level)[0]
        _band(axes, step, found.of_rows(f"labels_{name}", level).T, color)
    words = ("right ones kept", "all that are right", "wrong ones fixed")
    _words(axes, dict(zip(words, lines.values(), strict=True)), x=0.97, y=0.4)
    axes.set(xlabel="step", ylabel="share of labels", ylim=(-0.02, 1.02))
    axes.set_title(f"c   Labels, uniform noise {level.rate:g}", loc="left")


def _plot_margins(axes: Axes, found: Found) -> None:
    """Draw κ at k = 1 along the training, for each kind and rate of noise."""
    for flips, color in ((False, BLUE), (True, ORANGE)):
        rates = [rate for rate in found.config["flips" if flips else "rates"] if rate > 0]
        for rate in rates:
            level = found.level(rate, flips=flips)
            step = found.of_rows("at_step", level)[0]
            margin = found.of_rows("margin", level)
            _band(axes, step, margin.T, color)
            place, start = (-0.03 if flips else -0.26) * step[-1], margin[:, 0].mean()
            axes.text(place, start, f"{rate:g}", color=color, ha="right", va="center", size=6)
    axes.axhline(0, color="black", lw=0.8)
    axes.set(xlabel="step", ylabel="κ = 1 − Δ − γ at k = 1")
    axes.set_xlim(left=-0.46 * step[-1])
    _words(axes, {"uniform noise": BLUE, "cyclic flips": ORANGE}, x=0.97, y=0.12)
    axes.set_title("d   κ of the labels", loc="left")


def _plot_students(axes: Axes, found: Found) -> None:
    """Draw students of given and of learned labels against κ of those."""
    for level in found.noisy():
        margin = found.of_rows("margin", level).mean(axis=0)
        student = float(np.nanmean(found.of_rows("student_test_accuracy", level)[:, -1]))
        given = float(np.nanmean(found.arm("given labels", level)))
        color = ORANGE if level.flips else BLUE
        most = level.trusted == found.trusted
        axes.plot([margin[0], margin[-1]], [given, student], color=color, lw=0.7 if most else 0.35)
        axes.plot(margin[-1], student, "o", ms=4 if most else 2.2, mew=0, color=color)
        if most:
            axes.plot(margin[0], given, "o", ms=4, mfc="white", mec=color)
            axes.text(margin[0] + 0.05, given, f"{level.rate:g}", color=color, va="top", size=6)
    axes.axvline(0, color="black", lw=0.8)
    axes.margins(0.08)
    axes.set(xlabel="κ at k = 1", ylabel="accuracy of new students")
    axes.set_title("e   Given labels (○) to learned (●)", loc="left")


def _plot_clean(axes: Axes, found: Found) -> None:
    """Draw the accuracies of labels of classes on clean data."""
    names: list[str] = []
    for (rows, trusted), color in zip(found.config["clean"], (BLUE, PURPLE), strict=False):
        level = Level(0.0, trusted, rows)
        values = {
            "one-hot": found.arm("given labels", level),
            "smoothed": found.arm("given labels, smoothed", level),
            "of classes": found.of_classes("test_accuracy", level),
            "new student": found.of_classes("student_test_accuracy", level),
            "pooled": found.arm("given and trusted pooled", level),
        }
        for place, accuracies in enumerate(values.values()):
            _dots(axes, place, accuracies, color)
        centre = values["one-hot"].mean()
        axes.text(centre, -0.6, f"{rows} + {trusted}", color=color, ha="center", size=6)
        names = list(values)
    axes.set_yticks(range(len(names)), names)
    axes.margins(x=0.15)
    axes.set(xlabel="test accuracy", ylim=(-0.75, len(names) - 0.5))
    axes.set_title("f   Clean labels", loc="left")


def _plot_similarity(figure: Any, axes: Axes, found: Found) -> None:
    """Draw what learned labels of classes leave to other classes."""
    similarity = class_similarity(found)
    image = axes.imshow(similarity, cmap="Purples", vmin=0)
    ticks = range(len(similarity))
    axes.set_xticks(ticks, [f"{tick}" for tick in ticks])
    axes.set_yticks(ticks, [f"{tick}" for tick in ticks])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set(xlabel="other class", ylabel="given class")
    axes.set_title("g   Learned labels of classes", loc="left")
    bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.03)
    bar.outline.set_visible(False)


if __name__ == "__main__":
    results.main(sys.modules[__name__])
