"""Wide distillation: when a wide student wants soft labels, and when hard ones.

A network of unbounded width is its tangent kernel, and distilling into it is kernel regression onto
effective logits (`jsoft.kernels`). Five looks, at images of two classes:

    a  a teacher that saw all examples: data inefficiency I(n) by soft ratio ρ, beside hard labels
       and random targets; low I means that further examples bring nothing new
    b  a teacher of few examples: what true hard labels repair as ρ falls
    c  the same, and a share of the hard labels flipped: a mix beats both ends
    d  risk of the student against the bound by angles, teachers being smooth functions
    e  finite networks: their kernels near the infinite one as width grows
    f  do κ and μ of the labels that the mix makes, σ(effective logit), pick the best ρ?

    python -m experiments.wide_distillation --preset digits

writes results/wide_distillation/digits/{results,learning,bound,width,teachers}.parquet, figure.png,
figure.svg and summary.json in less than four minutes on two cores with other work: odd against even
digits, 5 random orders (split, flips and teacher anew in each).

The setting and the claims of a to c are those of Ji & Zhu, "Knowledge Distillation in Wide Neural
Networks" (NeurIPS 2020, arXiv 2010.10090), which shows them as curves of CIFAR-10; the formulas
are reconstructed and every number expected here comes from a prototype of ours. To expect: I at
n = 215 and 700 in the order ρ = 1 < 0.5 < 0.1 < hard < random; students of a teacher of 60 examples
at 0.90 (ρ = 1) to 0.97 (ρ = 0.05); with flipped labels a mix above both ends; risk below the bound
everywhere, the bound being vacuous for few examples; distances of kernels like 1/√width. The
prototype's gain of soft over hard labels at n = 68, 0.012, depends on the teacher: the one here,
trained longer, gives no gain there.

Kernel regression is solved in float64, teachers are trained in float32. Hard labels alone, ρ = 0,
are targets of ±50: the same student as that of ±1, for the regression is linear.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from experiments import results
from jsoft import datasets, indicators, kernels, networks, sweep, targets, training

SPLIT = "1200:97:500"  # of digits; train and valid together are the examples of students
RATIOS = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99, 1.0)
COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#D55E00", "0.6")


@dataclasses.dataclass(frozen=True)
class Config:
    """Distil teachers of several skills into infinitely wide students, and draw it."""

    preset: Literal["tiny", "digits", "cifar10"] = "digits"
    """Where the other options take their defaults from."""
    dataset: str = "digits"
    """Images and true labels: digits (built in), a TFDS name, or the path of a .npz file."""
    data: Path | None = None
    """Where the data set lies: a folder of prepared TFDS sets, or a .npz file."""
    pair: tuple[int, int] | None = None
    """The two classes to tell apart; odd and even ones by default."""
    network: Literal["mlp", "convnet"] = "mlp"
    """The teacher: a 256-256 multilayer perceptron, or a small convolutional network."""
    teacher_epochs: int = 8
    """Passes of a teacher over as many rows as there are for students, its own repeated."""
    learning_rate: float = 0.1
    """Of the teacher's first step; it falls to zero along a cosine."""
    few: tuple[int, ...] = (60, 100)
    """Examples of the imperfect teachers."""
    flips: tuple[float, ...] = (0.0, 0.1, 0.2)
    """Shares of hard labels that are wrong."""
    temperatures: tuple[float, ...] = (1.0, 4.0)
    """Temperatures T of the imperfect teachers."""
    ratios: tuple[float, ...] = RATIOS
    """Soft ratios ρ; 0 is hard labels alone, 1 the teacher alone."""
    student_rows: int = 500
    """Examples of the students of imperfect teachers, none of them the teacher's."""
    sizes: tuple[int, ...] = (22, 33, 47, 68, 100, 146, 215, 316, 464, 700, 1000)
    """Numbers of examples at which learning from the good teacher is looked at."""
    depth: int = 2
    """Hidden layers of the wide student."""
    weight_variance: float = 2.0
    """Of its weights."""
    bias_variance: float = 0.01
    """Of its biases."""
    ridge: float = 1e-6
    """Added to the kernel's diagonal, as a multiple of its mean."""
    bound_seeds: int = 20
    """Smooth teachers of the bound."""
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Widths of the finite networks."""
    width_seeds: int = 8
    """Networks of each width."""
    seeds: int = 5
    """Random orders of the data, seeds 0, 1, 2, …"""
    out: Path | None = None
    """Folder of the results; results/wide_distillation/PRESET by default."""
    plot_only: bool = False
    """Redraw figure and summary from the tables that are there, without training."""
    quiet: bool = False
    """No progress bar."""


PRESETS = {
    "tiny": Config(
        preset="tiny",
        teacher_epochs=1,
        flips=(0.0, 0.2),
        temperatures=(1.0, 4.0),
        ratios=(0.0, 0.05, 0.2, 0.6, 1.0),
        student_rows=60,
        sizes=(68, 215),
        bound_seeds=2,
        widths=(16, 64),
        width_seeds=3,
        seeds=2,
    ),
    "digits": Config(),
    "cifar10": Config(
        preset="cifar10",
        dataset="cifar10",
        pair=(0, 1),  # airplane, automobile
        network="convnet",
        teacher_epochs=10,
        learning_rate=0.01,
        few=(200, 1000),
        temperatures=(1.0, 2.0, 5.0, 10.0, 20.0),
        ratios=(0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
        student_rows=5000,
        sizes=(68, 215, 700, 2000, 5000, 9000),
        seeds=3,
    ),
}
BOUND_SIZES = (5, 10, 20, 40, 80, 160, 210)  # of 260 points, the last 50 of which are judged


class Orders(NamedTuple):
    """Images of two classes in several random orders, those of testing last."""

    images: np.ndarray  # [orders, N + M, ...]
    labels: np.ndarray  # [orders, N + M]
    num_train: int  # N
    name: str

    def pick(self, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return images and labels of the order of this seed, which may be traced."""
        return jnp.asarray(self.images)[seed], jnp.asarray(self.labels)[seed]


def load(config: Config) -> Orders:
    """Return the data of all seeds."""
    source = config.dataset if config.data is None or config.data.is_dir() else config.data
    folder = config.data if config.data is not None and config.data.is_dir() else None
    parts: list[tuple[list[np.ndarray], list[np.ndarray]]] = []
    name = ""
    for seed in range(config.seeds):
        data = datasets.load(source, split=SPLIT, key=jax.random.key(seed), data_dir=folder)
        name = data.name
        images = [np.concatenate([data.train.images, data.valid.images]), data.test.images]
        labels = [np.concatenate([data.train.labels, data.valid.labels]), data.test.labels]
        if config.pair is None:
            labels = [each % 2 for each in labels]
        else:
            kept = [np.isin(each, config.pair) for each in labels]
            images = [each[rows] for each, rows in zip(images, kept, strict=True)]
            labels = [
                (each[rows] == config.pair[1]).astype(np.int32)
                for each, rows in zip(labels, kept, strict=True)
            ]
        parts.append((images, labels))
    # A random split may give another order some more of the pair.
    cut = [min(len(labels[i]) for _, labels in parts) for i in (0, 1)]
    stacked = [
        np.stack([np.concatenate([one[k][0][: cut[0]], one[k][1][: cut[1]]]) for one in parts])
        for k in (0, 1)
    ]
    return Orders(stacked[0], stacked[1], cut[0], name)


def features(images: jax.Array, num_train: int) -> jax.Array:
    """Return what the student sees, float64 `[rows, d]`: centred, of length √d."""
    flat = images.reshape(len(images), -1).astype(jnp.float64)
    flat -= flat[:num_train].mean(axis=0, keepdims=True)
    return flat * np.sqrt(flat.shape[1]) / jnp.linalg.norm(flat, axis=1, keepdims=True)


def teacher_run(config: Config, orders: Orders) -> sweep.Train:
    """Return the training of a teacher: its logit z_1 − z_0 of every row, and its accuracy."""
    network = {
        "mlp": networks.MLP((256, 256), 2),
        "convnet": networks.ConvNet(num_classes=2),
    }[config.network]
    total = orders.num_train

    def train(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        images, labels = orders.pick(point["seed"])
        # The teacher's rows over and over: one program for teachers of any number of examples.
        rows = jnp.arange(total) % point["teacher_rows"]
        params, _ = training.train(
            network,
            optax.losses.softmax_cross_entropy_with_integer_labels,
            images[rows],
            labels[rows],
            key,
            observe=lambda params: jnp.zeros(()),
            epochs=config.teacher_epochs,
            batch_size=min(64, total),
            learning_rate=config.learning_rate,
        )
        logits = training.predict(network, params, images)
        logit = logits[:, 1] - logits[:, 0]
        right = (logit > 0) == (labels == 1)
        return {"logit": logit, "teacher_accuracy": right[total:].mean()}

    return train


def _kernel(config: Config, x1: jax.Array, x2: jax.Array) -> jax.Array:
    return kernels.relu_ntk(
        x1,
        x2,
        depth=config.depth,
        weight_variance=config.weight_variance,
        bias_variance=config.bias_variance,
    ).ntk


def _accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return ((logits > 0) == (labels == 1)).mean(dtype=jnp.float32)


def learning_run(config: Config, orders: Orders, teacher_logits: np.ndarray) -> sweep.Train:
    """Return a student of the good teacher, `[orders, rows]`, at growing numbers of examples."""
    total = orders.num_train
    sizes = [size for size in config.sizes if size < total]
    rows = min(total, max(sizes) + max(sizes) // 4 + 1)  # as far as the last moving mean reaches

    def train(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        images, labels = orders.pick(point["seed"])
        x = features(images, total)
        teacher = jnp.asarray(teacher_logits, jnp.float64)[point["seed"]]
        mixed = kernels.effective_logits(
            teacher[:rows], labels[:rows], soft_ratio=point["soft_ratio"]
        )
        goal = jnp.where(point["random"], jax.random.normal(key, (rows,)), mixed)
        k_train = _kernel(config, x[:rows], x[:rows])
        k_test = _kernel(config, x[total:], x[:rows])
        norms = kernels.weight_norms(k_train, goal, ridge=config.ridge)
        inefficiency = kernels.data_inefficiency(jnp.log(norms)[None])
        seen = []
        for size in sizes:
            student = kernels.kernel_student(
                k_train[:size, :size], k_test[:, :size], goal[:size], ridge=config.ridge
            )
            quarter = size // 4  # a moving mean over n/2
            seen.append(
                {
                    "examples": jnp.int32(size),
                    "inefficiency": inefficiency[size - quarter - 1 : size + quarter].mean(),
                    "test_accuracy": _accuracy(student, labels[total:]),
                    "transfer_risk": kernels.transfer_risk(student, teacher[total:]),
                }
            )
        curves = jax.tree.map(lambda *values: jnp.stack(values), *seen)
        return {name: _narrow(curve) for name, curve in curves.items()}

    return train


def mixed_run(config: Config, orders: Orders, teacher_logits: np.ndarray) -> sweep.Train:
    """Return a student of an imperfect teacher, `[teachers, orders, rows]`, and of hard labels."""
    total, size = orders.num_train, min(config.student_rows, orders.num_train - max(config.few))

    def train(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        images, labels = orders.pick(point["seed"])
        x = features(images, total)
        which = jnp.argmax(jnp.asarray(config.few) == point["teacher_rows"])
        teacher = jnp.asarray(teacher_logits, jnp.float64)[which, point["seed"]]
        rows = point["teacher_rows"] + jnp.arange(size)  # none of them the teacher's
        hard, _ = targets.flip_label_noise(labels, key, num_classes=2, rate=point["flips"])
        goal = kernels.effective_logits(
            teacher[rows],
            hard[rows],
            soft_ratio=point["soft_ratio"],
            temperature=point["temperature"],
        )
        student = kernels.kernel_student(
            _kernel(config, x[rows], x[rows]),
            _kernel(config, x[total:], x[rows]),
            goal,
            ridge=config.ridge,
        )
        share = jax.nn.sigmoid(goal).astype(jnp.float32)
        made = indicators.measure(jnp.stack([1 - share, share], axis=1), labels[rows], max_k=1)
        wrong = (teacher[rows] > 0) != (labels[rows] == 1)
        repaired = wrong & ((goal > 0) == (labels[rows] == 1))
        seen = {
            "test_accuracy": _accuracy(student, labels[total:]),
            "unreliability": made.unreliability[0],
            "ambiguity": made.ambiguity[0],
            "margin": made.margin[0],
            "divergence": made.divergence[0],
            "mean_label_margin": made.mean_label_margin,
            "repaired": repaired.sum() / jnp.maximum(wrong.sum(), 1),
        }
        return {name: _narrow(value) for name, value in seen.items()}

    return train


def bound_run(config: Config) -> sweep.Train:
    """Return risk and bound of a student of z* = 3 w·x/√d on Gaussian points, d = 5."""

    def train(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        key, weight_key = jax.random.split(key)
        x = jax.random.normal(key, (260, 5), jnp.float64)
        oracle = 3 * x @ jax.random.normal(weight_key, (5,), jnp.float64) / np.sqrt(5)
        kernel = _kernel(config, x, x)
        norms = kernels.weight_norms(kernel, oracle)
        seen = []
        for size in BOUND_SIZES:
            student = kernels.kernel_student(
                kernel[:size, :size], kernel[-50:, :size], oracle[:size]
            )
            bound = kernels.angle_bound(
                oracle[-50:],
                jnp.diagonal(kernel)[-50:],
                oracle_norm=norms[-1],
                student_norm=norms[size - 1],
            )
            risk = kernels.transfer_risk(student, oracle[-50:])
            seen.append({"examples": jnp.int32(size), "risk": risk, "bound": bound})
        curves = jax.tree.map(lambda *values: jnp.stack(values), *seen)
        return {name: _narrow(curve) for name, curve in curves.items()}

    return train


def width_run(config: Config, orders: Orders) -> sweep.Train:
    """Return how far the kernel of a random finite network is from the infinite one."""
    rows = 20

    def network(params: list[tuple[jax.Array, jax.Array]], x: jax.Array) -> jax.Array:
        for number, (weights, biases) in enumerate(params):
            x = jax.nn.relu(x) if number else x
            scale = np.sqrt(config.weight_variance / len(x))
            x = scale * (x @ weights) + np.sqrt(config.bias_variance) * biases
        return x

    def train(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        images, _ = orders.pick(jnp.int32(0))
        x = features(images, orders.num_train)[:rows]
        infinite = _kernel(config, x, x)
        found = []
        for width in config.widths:
            shape = (x.shape[1], *[width] * config.depth, 1)
            keys = jax.random.split(jax.random.fold_in(key, width), 2 * len(shape))
            params = [
                (
                    jax.random.normal(keys[2 * i], shape[i : i + 2], jnp.float32),
                    jax.random.normal(keys[2 * i + 1], shape[i + 1 : i + 2], jnp.float32),
                )
                for i in range(len(shape) - 1)
            ]
            finite = kernels.empirical_ntk(network, params, *[x.astype(jnp.float32)] * 2)[..., 0, 0]
            found.append(jnp.linalg.norm(finite - infinite) / jnp.linalg.norm(infinite))
        widths = jnp.asarray(config.widths, jnp.int32)
        return {"width": widths, "distance": _narrow(jnp.stack(found))}

    return train


def _narrow(x: jax.Array) -> jax.Array:
    """Return floats as float32, what tables hold."""
    return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x


def run(config: Config, folder: Path) -> results.Tables:
    """Train teachers, then all students, and return their tables, also written to the folder."""
    for name in ("seeds", "bound_seeds", "width_seeds", "teacher_epochs", "student_rows", "depth"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name}: expected 1 or more, got {getattr(config, name)}")
    for name in ("ratios", "flips", "temperatures", "few", "sizes", "widths"):
        if not getattr(config, name):
            raise ValueError(f"{name}: expected at least one, got none")
    if min(config.few) < 1:
        raise ValueError(f"few: expected 1 or more examples, got {config.few}")
    if config.pair is not None and len(set(config.pair)) < 2:
        raise ValueError(f"pair: expected two classes, got {config.pair}")
    orders = load(config)
    if max(config.few) >= orders.num_train or min(config.sizes) >= orders.num_train:
        raise ValueError(
            f"few, sizes: expected fewer than the {orders.num_train} training rows, got "
            f"{config.few}, {config.sizes}"
        )
    noted = {**results.options(config), "dataset": orders.name, "num_train": orders.num_train}

    def table(name: str, train: sweep.Train, points: dict[str, Any], watch: str) -> pa.Table:
        return sweep.run(
            train,
            points,
            path=folder / f"{name}.parquet",
            config=noted,
            # A kernel fills the cache alone. Nor may they be batched: factorised several at a time
            # on several CPU devices, they wait for each other without end (XLA of jaxlib 0.10.2).
            batch_size="auto" if name == "teachers" else 1,
            progress=not config.quiet,
            watch=watch,
        )

    seeds = range(config.seeds)
    # Fewest first, and last the one that has them all.
    teachers = table(
        "teachers",
        teacher_run(config, orders),
        sweep.grid(teacher_rows=[*config.few, orders.num_train], seed=seeds),
        "teacher_accuracy",
    )
    logits = teachers["logit"].to_numpy().reshape(len(config.few) + 1, config.seeds, -1)
    kinds = [(1.0, False), (0.5, False), (0.1, False), (0.0, False), (0.0, True)]
    learning = {
        "soft_ratio": np.repeat([ratio for ratio, _ in kinds], config.seeds),
        "random": np.repeat([drawn for _, drawn in kinds], config.seeds),
        "seed": np.tile(np.arange(config.seeds), len(kinds)),
    }
    mixed = sweep.grid(
        teacher_rows=config.few,
        flips=config.flips,
        temperature=config.temperatures,
        soft_ratio=config.ratios,
        seed=seeds,
    )
    with jax.enable_x64(True):
        return {
            "teachers": teachers,
            "results": table(
                "results", mixed_run(config, orders, logits[:-1]), mixed, "test_accuracy"
            ),
            "learning": table(
                "learning", learning_run(config, orders, logits[-1]), learning, "test_accuracy"
            ),
            "bound": table(
                "bound", bound_run(config), sweep.grid(seed=range(config.bound_seeds)), "bound"
            ),
            "width": table(
                "width",
                width_run(config, orders),
                sweep.grid(seed=range(config.width_seeds)),
                "distance",
            ),
        }


def bound_curves(table: pa.Table) -> dict[str, np.ndarray]:
    """Return the columns of the bound, `[seeds, sizes]`."""
    return {
        name: table[name].to_numpy().reshape(-1, len(BOUND_SIZES)) for name in table.column_names
    }


def learning_curves(table: pa.Table) -> dict[str, np.ndarray]:
    """Return the columns of students of the good teacher, `[targets, seeds, sizes]`."""
    config = sweep.metadata(table)["config"]
    found = {name: table[name].to_numpy() for name in table.column_names}
    return {name: column.reshape(5, config["seeds"], -1) for name, column in found.items()}


def mixes(tables: results.Tables) -> dict[str, np.ndarray]:
    """Return the columns of students of imperfect teachers, `[few, flips, T, ρ, seeds]`.

    Ratios go up; with them `teacher_accuracy`, `[few, seeds]`.
    """
    table = tables["results"]
    config = sweep.metadata(table)["config"]
    shape = [len(config[name]) for name in ("few", "flips", "temperatures", "ratios")]
    order = np.argsort(config["ratios"])
    found = {
        name: table[name].to_numpy().reshape(*shape, -1)[:, :, :, order]
        for name in table.column_names
    }
    teachers = tables["teachers"]["teacher_accuracy"].to_numpy()
    return {
        **found,
        "teacher_accuracy": teachers.reshape(shape[0] + 1, config["seeds"], -1)[..., 0],
    }


class Picks(NamedTuple):
    """What an indicator says of soft ratios: a row for each teacher, share of flips and T.

    Attributes:
      correlation: Spearman's ρ with test accuracy over the ratios, NaN where either is constant.
      rank: rank of the picked ratio by test accuracy, 1 the best; the mean over equal picks.
      loss: by how much the picked ratio's accuracy is below the best one's.
      picked: its accuracy.
      best: the best one's.
    """

    correlation: np.ndarray
    rank: np.ndarray
    loss: np.ndarray
    picked: np.ndarray
    best: np.ndarray


def picks(grid: dict[str, np.ndarray], indicator: str) -> Picks:
    """Return which ratios the indicator picks and what they give, all by means over seeds."""
    accuracy = grid["test_accuracy"].mean(axis=-1)
    accuracy = accuracy.reshape(-1, accuracy.shape[-1]).astype(float)
    value = grid[indicator].mean(axis=-1).reshape(accuracy.shape).astype(float)
    chosen = value >= value.max(axis=1, keepdims=True) - 1e-6
    picked = np.ma.array(accuracy, mask=~chosen).mean(axis=1).filled(np.nan)
    ranks = stats.rankdata(-accuracy, axis=1)
    rank = np.ma.array(ranks, mask=~chosen).mean(axis=1).filled(np.nan)
    correlation = [
        stats.spearmanr(a, b)[0] if np.ptp(a) > 1e-6 and np.ptp(b) > 0 else np.nan
        for a, b in zip(value, accuracy, strict=True)
    ]
    best = accuracy.max(axis=1)
    return Picks(np.array(correlation), rank, best - picked, picked, best)


def width_slope(table: pa.Table) -> tuple[float, float]:
    """Return the slope of ln distance over ln width, and the half width of its 95 % interval."""
    x, y = (np.log(table[name].to_numpy().astype(float)) for name in ("width", "distance"))
    line: Any = stats.linregress(x, y)
    return float(line.slope), float(stats.t.ppf(0.975, len(x) - 2) * line.stderr)


def summarise(tables: results.Tables) -> dict[str, Any]:
    """Return what the students show, in plain keys, from the tables alone."""
    config = sweep.metadata(tables["results"])["config"]
    learning, grid = learning_curves(tables["learning"]), mixes(tables)
    bound = bound_curves(tables["bound"])
    picked = {name: picks(grid, name) for name in ("margin", "mean_label_margin")}
    slope, half = width_slope(tables["width"])
    claims = [
        *_claims_of_the_good_teacher(learning, config),
        *_claims_of_imperfect_teachers(grid, config),
        _claim_of_the_bound(bound),
        results.claim(
            "K6",
            "a finite network's kernel nears the infinite one like 1/√width",
            source="derived here",
            expected="−0.5 in the 95 % interval of the slope of ln distance over ln width, "
            "which is ± 0.1 or narrower",
            ours=f"{slope:.3f} ± {half:.3f}, widths {config['widths'][0]} to "
            f"{config['widths'][-1]}, {config['width_seeds']} networks each",
            met=abs(slope + 0.5) <= half <= 0.1,
        ),
        _claim_of_the_indicators(picked),
    ]
    return {
        "claims": claims,
        "teacher_accuracy": {
            str(rows): results.mean_and_spread(accuracy)
            for rows, accuracy in zip(
                [*config["few"], config["num_train"]], grid["teacher_accuracy"], strict=True
            )
        },
        "inefficiency": {
            name: [results.rounded(x) for x in learning["inefficiency"][i].mean(axis=0)]
            for i, name in enumerate(TARGETS)
        },
        "sizes": learning["examples"][0, 0].tolist(),
        "width_slope": results.rounded(slope),
        "width_slope_half_interval": results.rounded(half),
        "indicators": {
            name: {
                "mean_spearman": results.rounded(_mean(found.correlation)),
                "largest_loss": results.rounded(found.loss.max()),
                "mean_loss": results.rounded(found.loss.mean()),
                "mean_rank": results.rounded(found.rank.mean()),
                "cells": len(found.rank),
                "ratios": len(config["ratios"]),
            }
            for name, found in picked.items()
        },
        "cells": _cells(grid, picked, config),
        "seeds": config["seeds"],
        "dataset": config["dataset"],
    }


TARGETS = ("ρ = 1", "ρ = 0.5", "ρ = 0.1", "hard labels", "random")


def _mean(values: np.ndarray) -> float:
    """Return the mean of what is a number; NaN where nothing is."""
    return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else np.nan


def _cells(
    grid: dict[str, np.ndarray], picked: dict[str, Picks], config: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return teacher, flips and T of every cell, and what the indicators pick there."""
    axes = ("teacher_rows", "flips", "temperature")
    levels = [grid[name][..., 0, 0].ravel() for name in axes]
    accuracy = grid["test_accuracy"].mean(axis=-1).reshape(len(levels[0]), -1)
    best = np.sort(config["ratios"])[accuracy.argmax(axis=1)]
    return [
        {
            **{name: round(float(level[i]), 4) for name, level in zip(axes, levels, strict=True)},
            "best_ratio": float(best[i]),
            "best_accuracy": results.rounded(accuracy[i].max()),
            **{
                f"{name}_{field}": results.rounded(getattr(found, field)[i])
                for name, found in picked.items()
                for field in ("correlation", "rank", "loss")
            },
        }
        for i in range(len(best))
    ]


def _claims_of_the_good_teacher(
    learning: dict[str, np.ndarray], config: dict[str, Any]
) -> list[dict[str, str]]:
    """Return the claims about data inefficiency and few examples."""
    sizes = learning["examples"][0, 0]
    mean = learning["inefficiency"].mean(axis=1)  # [targets, sizes]
    at = [int(np.argmin(np.abs(sizes - size))) for size in (200, 700)]
    ordered = all((np.diff(mean[:, i]) > 0).all() for i in at)
    few = int(np.argmin(np.abs(sizes - 68)))
    accuracy = learning["test_accuracy"][..., few]
    gain = accuracy[0] - accuracy[3]
    early = learning["test_accuracy"][0, :, 0] - learning["test_accuracy"][3, :, 0]
    late = learning["test_accuracy"][..., -1].mean(axis=1)
    shown = "; ".join(
        f"n = {sizes[i]}: " + ", ".join(f"{value:.3f}" for value in mean[:, i]) for i in at
    )
    return [
        results.claim(
            "K1",
            "with a good teacher, tasks are the easier the more of it the labels hold",
            source="paper (with a perfect teacher a high soft ratio is beneficial)",
            expected="I(n) at n ≈ 200 and 700: ρ = 1 < 0.5 < 0.1 < hard < random",
            ours=f"{shown}, mean of {config['seeds']} orders",
            met=ordered,
            smaller_scale=True,
        ),
        results.claim(
            "K2",
            "with few examples soft labels of a good teacher beat hard ones",
            source="paper (high soft ratio is beneficial); the number is a prototype's of ours",
            expected="gain in test accuracy at n = 68 of 0.005 or more",
            ours=f"{results.mean_and_spread(gain)} at n = {sizes[few]}",
            met=bool(gain.mean() >= 0.005),
            smaller_scale=True,
            reason=f"{results.mean_and_spread(early)} at n = {sizes[0]}; at n = {sizes[-1]} soft "
            f"{late[0]:.3f}, hard {late[3]:.3f}: the teacher's own errors are a ceiling",
        ),
    ]


def _claims_of_imperfect_teachers(
    grid: dict[str, np.ndarray], config: dict[str, Any]
) -> list[dict[str, str]]:
    """Return the claims about what hard labels repair, and about what a mix does."""
    ratios = np.sort(config["ratios"])
    true, warm = int(np.argmin(config["flips"])), int(np.argmax(config["temperatures"]))
    students = grid["test_accuracy"][0, true, warm]  # [ρ, seeds]
    asked = [i for i, ratio in enumerate(ratios) if ratio in (0.05, 0.2, 0.6, 0.9, 1.0)]
    curve = students[asked].mean(axis=1)
    low = int(np.argmin(np.abs(ratios - 0.2)))
    gain = students[low] - grid["teacher_accuracy"][0]
    claims = [
        results.claim(
            "K3",
            "true hard labels repair an imperfect teacher, the more the lower the soft ratio",
            source="paper (hard labels correct wrong predictions)",
            expected="accuracy grows as ρ falls; at ρ = 0.2 student over teacher by 0.05 or more",
            ours=", ".join(
                f"ρ = {ratios[i]:g}: {value:.3f}" for i, value in zip(asked, curve, strict=True)
            )
            + f"; gain over the teacher {results.mean_and_spread(gain)}",
            met=bool((np.diff(curve) < 0).all() and gain.mean() >= 0.05),
            smaller_scale=True,
        )
    ]
    cold = int(np.argmin(config["temperatures"]))
    for flip in (i for i, share in enumerate(config["flips"]) if share > 0):
        students = grid["test_accuracy"][-1, flip, cold]
        inside = (ratios > 0) & (ratios < 1)
        best = int(np.flatnonzero(inside)[students[inside].mean(axis=1).argmax()])
        over = [students[best] - students[end] for end in (ratios.argmax(), ratios.argmin())]
        least = min(over, key=np.mean)
        unsure = len(least) > 1 and least.mean() < stats.sem(least)
        claims.append(
            results.claim(
                "K4",
                f"with {config['flips'][flip]:.0%} of hard labels flipped and an imperfect "
                "teacher a mix beats both",
                source="derived here (a prototype of ours)",
                expected="the best ρ in (0, 1) above ρ = 1 and above hard labels alone, on average",
                ours=f"ρ = {ratios[best]:g}: {results.mean_and_spread(students[best])}; over the "
                f"teacher's labels {results.mean_and_spread(over[0])}, over hard ones "
                f"{results.mean_and_spread(over[1])}",
                met=bool(min(each.mean() for each in over) > 0),
                reason="the best of several ratios, chosen by the test accuracy that it reports"
                + ("; the smaller gain is less than its standard error" if unsure else ""),
            )
        )
    return claims


def _claim_of_the_bound(bound: dict[str, np.ndarray]) -> dict[str, str]:
    """Return the claim about the risk bound."""
    sizes, risk, limit = bound["examples"][0], bound["risk"], bound["bound"]
    vacuous = sizes[(limit > 0.99).mean(axis=0) > 0.5]
    return results.claim(
        "K5",
        "the angle bound holds, and says something once there are examples enough",
        source="reconstructed",
        expected="risk ≤ bound everywhere; bound below 0.2 at n = 210",
        ours=f"{(risk <= limit).sum()} of {risk.size} below the bound; at n = {sizes[-1]} risk "
        f"{risk[:, -1].mean():.3f}, bound {results.mean_and_spread(limit[:, -1])}",
        met=bool((risk <= limit).all() and limit[:, -1].mean() < 0.2),
        reason=f"vacuous (above 0.99 in most runs) up to n = {vacuous.max()}"
        if len(vacuous)
        else "",
    )


def _claim_of_the_indicators(picked: dict[str, Picks]) -> dict[str, str]:
    """Return whether indicators of the mixed labels pick the soft ratio."""
    told = [
        f"{letter}: Spearman's ρ {_mean(found.correlation):.2f} on average, rank of the picked "
        f"ratio {found.rank.mean():.1f}, {found.loss.mean():.3f} below the best (at worst "
        f"{found.loss.max():.3f})"
        for letter, found in zip(("κ", "μ"), picked.values(), strict=True)
    ]
    return results.claim(
        "K7",
        "κ or μ of the mixed labels pick the best soft ratio",
        source="derived here (a question of ours)",
        expected="the picked ratio's accuracy within 0.005 of the best one's in every cell",
        ours="; ".join(told) + f"; {len(picked['margin'].rank)} cells",
        met=bool(min(found.loss.max() for found in picked.values()) <= 0.005),
        reason="a random flip and a teacher's error count alike, but a student averages flips out "
        "and learns the errors; and κ, of signs alone, stands still where hard labels decide them",
    )


def plot(tables: results.Tables) -> Figure:
    """Return the figure: easy tasks, repaired teachers, mixes, bound, widths, and indicators."""
    config = sweep.metadata(tables["results"])["config"]
    grid = mixes(tables)
    figure, panels = plt.subplots(2, 3, figsize=(7.2, 4.5), layout="constrained")
    _plot_inefficiency(panels[0, 0], learning_curves(tables["learning"]))
    _plot_repair(panels[0, 1], grid, config)
    _plot_mixes(panels[0, 2], grid, config)
    _plot_bound(panels[1, 0], bound_curves(tables["bound"]))
    _plot_widths(panels[1, 1], tables["width"], config)
    _plot_picks(panels[1, 2], grid)
    return figure


def _band(axes: Axes, x: Any, values: np.ndarray, colour: str, **options: Any) -> np.ndarray:
    """Draw mean and ± 1 standard deviation over the last axis; return the mean."""
    mean, spread = values.mean(axis=-1), values.std(axis=-1, ddof=1) if values.shape[-1] > 1 else 0
    axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.18, lw=0)
    axes.plot(x, mean, color=colour, marker="o", ms=2.2, lw=1.1, **options)
    return mean


def _plot_inefficiency(axes: Axes, learning: dict[str, np.ndarray]) -> None:
    """Draw I(n) for every kind of target."""
    sizes = learning["examples"][0, 0]
    shifts = (-11, -2, 7, 0, 0)  # points; the curves of soft labels lie close together
    for name, colour, values, shift in zip(
        TARGETS, COLOURS, learning["inefficiency"], shifts, strict=True
    ):
        mean = _band(axes, sizes, values.T, colour)
        axes.annotate(
            name, (sizes[-1], mean[-1]), xytext=(4, shift), textcoords="offset points",
            color=colour, va="center",
        )  # fmt: skip
    axes.axhline(0.5, color="black", lw=0.5, ls=":")
    axes.set(xscale="log", xlabel="examples n", ylabel="data inefficiency I(n)")
    axes.set_ylim(bottom=0)
    axes.set_xlim(right=sizes[-1] * (sizes[-1] / sizes[0]) ** 0.42)
    shown = [size for size in (22, 68, 215, 700, 5000) if size <= sizes[-1]]
    axes.set_xticks(shown, [str(size) for size in shown])
    axes.minorticks_off()
    axes.set_title("a   Good teacher: how hard a task is", loc="left")


def _plot_repair(axes: Axes, grid: dict[str, np.ndarray], config: dict[str, Any]) -> None:
    """Draw students of the worst teacher over ρ, hard labels being true."""
    ratios, true = np.sort(config["ratios"]), int(np.argmin(config["flips"]))
    ends = int(np.argmin(config["temperatures"])), int(np.argmax(config["temperatures"]))
    for which, colour, height in zip(ends, (COLOURS[0], COLOURS[3]), (0.66, 0.93), strict=True):
        _band(axes, ratios, grid["test_accuracy"][0, true, which], colour)
        axes.annotate(
            f"T = {config['temperatures'][which]:g}", (0.97, height), xycoords="axes fraction",
            ha="right", color=colour,
        )  # fmt: skip
    teacher = grid["teacher_accuracy"][0].mean()
    axes.axhline(teacher, color="black", lw=0.7, ls="--")
    axes.annotate("teacher", (0, teacher), xytext=(0, 2), textcoords="offset points")
    axes.set(xlabel="soft ratio ρ", ylabel="student's test accuracy")
    axes.set_title(f"b   Teacher of {config['few'][0]} examples, true labels", loc="left")


def _plot_mixes(axes: Axes, grid: dict[str, np.ndarray], config: dict[str, Any]) -> None:
    """Draw students of the better imperfect teacher over ρ, hard labels being flipped."""
    ratios, cold = np.sort(config["ratios"]), int(np.argmin(config["temperatures"]))
    for flip, colour in zip(
        range(len(config["flips"])), (COLOURS[2], COLOURS[0], COLOURS[3]) * 9, strict=False
    ):
        if config["flips"][flip] == 0:
            continue
        mean = _band(axes, ratios, grid["test_accuracy"][-1, flip, cold], colour)
        axes.plot(ratios[mean.argmax()], mean.max(), "o", ms=6, mfc="none", color=colour)
        at, shift = (0, (4, -9)) if flip == len(config["flips"]) - 1 else (3, (0, 8))
        axes.annotate(
            f"{config['flips'][flip]:.0%} flipped", (ratios[at], mean[at]), xytext=shift,
            textcoords="offset points", color=colour,
        )  # fmt: skip
    teacher = grid["teacher_accuracy"][-2].mean()
    axes.axhline(teacher, color="black", lw=0.7, ls="--")
    axes.annotate("teacher", (0.5, teacher), xytext=(0, -9), textcoords="offset points")
    axes.set(xlabel="soft ratio ρ", ylabel="student's test accuracy")
    axes.set_title(f"c   Teacher of {config['few'][-1]}, flipped labels", loc="left")


def _plot_bound(axes: Axes, bound: dict[str, np.ndarray]) -> None:
    """Draw risk and bound over the number of examples."""
    sizes = bound["examples"][0]
    for name, colour, at, shift in (
        ("bound", COLOURS[3], 4, (4, 4)),
        ("risk", COLOURS[0], 1, (6, 4)),
    ):
        mean = _band(axes, sizes, bound[name].T, colour)
        axes.annotate(
            name, (sizes[at], mean[at]), xytext=shift, textcoords="offset points", color=colour
        )
    axes.set(xscale="log", xlabel="examples n", ylabel="P(student ≠ oracle)", ylim=(-0.04, 1.08))
    axes.set_xticks(sizes[::2], [str(size) for size in sizes[::2]])
    axes.minorticks_off()
    axes.set_title("d   Smooth teacher: risk and its bound", loc="left")


def _plot_widths(axes: Axes, table: pa.Table, config: dict[str, Any]) -> None:
    """Draw the distance of finite kernels over width, with the line fitted."""
    x, y = table["width"].to_numpy(), table["distance"].to_numpy()
    slope, half = width_slope(table)
    axes.plot(x, y, "o", ms=2.5, mfc="none", color=COLOURS[0], mew=0.6)
    ends = np.array([x.min(), x.max()], float)
    middle = np.exp(np.log(y).mean() - slope * np.log(x).mean())
    axes.plot(ends, middle * ends**slope, color="black", lw=0.9)
    axes.annotate(
        f"slope {slope:.3f} ± {half:.3f}".replace("-", "−"),
        (0.95, 0.9),
        xycoords="axes fraction",
        ha="right",
    )
    axes.set(xscale="log", yscale="log", xlabel="width", ylabel="relative distance of kernels")
    axes.set_xticks(config["widths"], [str(width) for width in config["widths"]])
    axes.set_yticks([0.05, 0.1, 0.2], ["0.05", "0.1", "0.2"])
    axes.minorticks_off()
    axes.set_title("e   Finite kernels near the infinite one", loc="left")


def _plot_picks(axes: Axes, grid: dict[str, np.ndarray]) -> None:
    """Draw accuracy at the ratio that each indicator picks over that at the best one."""
    shown = (("margin", "κ", "o", COLOURS[3]), ("mean_label_margin", "μ", "^", COLOURS[0]))
    low = 1.0
    for name, letter, marker, colour in shown:
        found = picks(grid, name)
        low = min(low, found.picked.min())
        axes.plot(
            found.best, found.picked, marker, ms=4, mfc="none", color=colour,
            label=f"by {letter}",
        )  # fmt: skip
    edge = np.array([low - 0.01, found.best.max() + 0.01])
    axes.plot(edge, edge, color="black", lw=0.6)
    axes.set(xlabel="test accuracy at the best ρ", ylabel="at the picked ρ", ylim=edge)
    axes.set_xlim(found.best.min() - 0.01, edge[1])
    axes.legend(loc="upper left", handletextpad=0.2, borderpad=0)
    axes.set_title("f   ρ picked by labels' κ or μ", loc="left")


def report(summary: dict[str, Any]) -> str:
    """Return the summary as a person reads it."""
    teachers = ", ".join(
        f"{rows} examples {accuracy}" for rows, accuracy in summary["teacher_accuracy"].items()
    )
    cells = "\n".join(
        f"{cell['teacher_rows']:7g}  {cell['flips']:5.0%}  {cell['temperature']:4g}  "
        f"{cell['best_ratio']:6g}  {cell['best_accuracy']:.3f}    "
        f"{cell['margin_rank']:4.1f}  {cell['margin_loss']:.3f}    "
        f"{cell['mean_label_margin_rank']:4.1f}  {cell['mean_label_margin_loss']:.3f}"
        for cell in summary["cells"]
    )
    return f"""
{results.timing_line(summary)}

teachers, test accuracy: {teachers}

{results.claim_lines(summary)}

teacher  flips     T  best ρ           κ: rank   loss   μ: rank   loss
{cells}
"""


if __name__ == "__main__":
    results.main(sys.modules[__name__])
