"""Weighted soft labels: whom a student listens to when its teacher is sometimes wrong.

A teacher is trained on labels of which a share is wrong; students see the right labels and the
teacher's soft ones. Three of them start alike and see the same batches: cross-entropy alone (CE),
plain distillation (KD), and weighted soft labels (WSL; arXiv 2102.00650), in which the teacher has
a weight for every example.

    python -m experiments.weighted_soft_labels --preset digits

writes results/weighted_soft_labels/digits/{results.parquet,ensembles.parquet,figure.png,figure.svg,
summary.json}: 620 teachers, each with three students, and 8 ensembles of ten, in less than nine
minutes on two cores with other work. To expect: WSL and KD tie with a clean teacher; with one
trained on 20 % wrong labels KD 84, WSL 93 and CE, which does not ask it, 95 % (a prototype of ours:
86.5, 93.1, 94.7). The paper's own numbers are of CIFAR-100 and ImageNet and not compared with.

`--preset cifar10` takes WRN-40-2 and WRN-16-2 on CIFAR-10, 240 epochs, for an accelerator; with
group normalisation, a cosine in the place of steps of the learning rate, and no augmentation of
images, so that the teacher's logits are stored. It has not been run yet.

A seed is one draw of split, wrong labels, initial weights and order of examples, shared by all
levels. Students are those of the last epoch; nothing is chosen by validation. Members of an
ensemble have a draw of training rows and a teacher each.
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
import pyarrow as pa
from jax import lax
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from scipy.stats import spearmanr

from experiments import data, results
from jsoft import distillation, indicators, losses, networks, sweep, targets, theory, training
from jsoft.datasets import Dataset

ARMS = ("ce", "kd", "wsl")
COLOURS = {"ce": "0.45", "kd": "#D55E00", "wsl": "#0072B2", "teacher": "black"}
PREFIXES = ("", "wsl_weighted_")  # of indicators: all rows count alike, or as much as WSL's w
REPORTED = [
    *(f"{name}_test_accuracy" for name in ("teacher", *ARMS)),
    *(
        f"{prefix}{name}"
        for prefix in PREFIXES
        for name in ("unreliability", "ambiguity", "margin", "divergence", "mean_label_margin")
    ),
    "wsl_weight_right",
    "wsl_weight_wrong",
]
CORRUPTED = 0.2  # the share of wrong labels that claims speak of
# 0.1 CE + 0.9 T² KL, where others distil.
USUAL_HARD_WEIGHT, USUAL_ALPHA = 0.1, 0.9


@dataclasses.dataclass(frozen=True)
class Config:
    """Distil teachers of corrupted labels, with and without weights, and draw what happens."""

    preset: Literal["tiny", "digits", "cifar10"] = "digits"
    """Where the other options take their defaults from."""
    dataset: str = "digits"
    """Images and true labels: digits (built in), a TFDS name, or the path of a .npz file."""
    data: Path | None = None
    """Where the data set lies: a folder of prepared TFDS sets, or a .npz file."""
    split: str = "500:500:797"
    """Rows to train on, rows that ensembles draw from as well, test rows, as a ratio."""
    seeds: int = 20
    """Students of each kind at each pair of levels, seeds 0, 1, 2, …"""
    splits: int = 20
    """Random splits of the rows; seed s uses split s modulo this number."""
    corruptions: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4)
    """Shares of wrong labels that teachers are trained on."""
    alphas: tuple[float, ...] = (0.25, 0.5, 1.0, 2.25, 5.0)
    """Weights α of the teacher in the objective CE + α T² H. At 10 some students diverge."""
    alpha: float = 2.25
    """The α of the claims, one of alphas; the authors' for CIFAR-100."""
    temperature: float = 4.0
    """T of the soft labels; the authors' for CIFAR-100."""
    teacher_smoothing: float = 0.1
    """Label smoothing of one further teacher, of clean labels."""
    network: Literal["mlp", "wrn"] = "mlp"
    """Perceptrons, 128-128 the teacher and 16 the students; or wide residual networks, WRN-d-2."""
    depths: tuple[int, int] = (40, 16)
    """Layers d of the residual networks, the teacher's and the students'."""
    snapshots: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 114)
    """Epochs after which students are looked at; the last is the last of teachers and students."""
    batch_size: int = 64
    """Examples a step."""
    learning_rate: float = 0.05
    """Of the first step; it falls to zero along a cosine. Nesterov momentum 0.9."""
    weight_decay: float = 5e-4
    """L2 coefficient on weight matrices."""
    ensembles: int = 4
    """Ensembles of each kind at 0 and at the corruption of the claims; none if 0."""
    members: int = 10
    """Students of an ensemble, each on a draw of its own."""
    out: Path | None = None
    """Folder of the results; results/weighted_soft_labels/PRESET by default."""
    plot_only: bool = False
    """Redraw figure and summary from the tables that are there, without training."""
    quiet: bool = False
    """No progress bar."""
    checkpoints: int = 0
    """How often the state of trainings under way is saved, for those that take hours."""


PRESETS = {
    "tiny": Config(
        preset="tiny",
        seeds=2,
        splits=2,
        corruptions=(0.0, 0.2),
        alphas=(2.25,),
        snapshots=(1, 4),
        ensembles=1,
        members=2,
    ),
    "digits": Config(),
    "cifar10": Config(
        preset="cifar10",
        dataset="cifar10",
        split="9:1:1",  # the test rows are those of the source
        seeds=5,
        splits=1,
        corruptions=(0.0, 0.2),
        alphas=(2.25,),
        network="wrn",
        snapshots=(240,),
        ensembles=0,
        checkpoints=20,
    ),
}


class Normalised(NamedTuple):
    """A network that sees images less a mean and over a deviation."""

    network: training.Network
    mean: jax.Array
    deviation: jax.Array

    def init(self, key: jax.Array, images: jax.Array) -> Any:
        """Return the parameters of the network."""
        return self.network.init(key, (images - self.mean) / self.deviation)

    def apply(self, params: Any, images: jax.Array) -> jax.Array:
        """Return its logits."""
        return self.network.apply(params, (images - self.mean) / self.deviation)


def objectives(alpha: ArrayLike, hard_weight: ArrayLike = 1.0) -> tuple[jax.Array, ...]:
    """Return h, α and whether w counts of h CE + α T² (w or 1) H, for the students of ARMS.

    >>> print(*objectives(2.25))
    [1. 1. 1.] [0.   2.25 2.25] [False False  True]
    """
    ce, distilled = jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 1.0, 1.0])
    return ce + distilled * hard_weight, distilled * alpha, jnp.array([False, False, True])


def run(config: Config, folder: Path) -> results.Tables:
    """Train all teachers and students and return their tables, also written to the folder."""
    _check(config)
    sets = data.load_splits(config.dataset, config.data, splits=config.splits, split=config.split)
    options: dict[str, Any] = {
        "checkpoints": config.checkpoints,
        "progress": not config.quiet,
        "config": {
            **results.options(config),
            "dataset": sets[0].name,
            "dataset_fingerprint": data.fingerprint(sets),
            "num_classes": sets[0].num_classes,
        },
    }

    def train(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        return follow(config, data.pick(sets, point["seed"]), point, key)

    def train_ensemble(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        return ensemble(config, sets[0], point, key)

    tables = {
        "results": sweep.run(train, points(config), path=folder / "results.parquet", **options)
    }
    if config.ensembles:
        levels = sweep.grid(corruption=[0.0, CORRUPTED], seed=range(config.ensembles))
        tables["ensembles"] = sweep.run(
            train_ensemble, levels, path=folder / "ensembles.parquet", **options
        )
    return tables


def points(config: Config) -> dict[str, np.ndarray]:
    """Return the levels of all runs: corruption × α, the usual operating point, label smoothing."""
    seeds, plain = range(config.seeds), {"corruption": config.corruptions, "smoothing": [0.0]}
    smoothed = {"corruption": [0.0], "smoothing": [config.teacher_smoothing]}
    grids = [
        sweep.grid(**plain, hard_weight=[1.0], alpha=config.alphas, seed=seeds),
        sweep.grid(**plain, hard_weight=[USUAL_HARD_WEIGHT], alpha=[USUAL_ALPHA], seed=seeds),
        sweep.grid(**smoothed, hard_weight=[1.0], alpha=[config.alpha], seed=seeds),
    ]
    return {name: np.concatenate([grid[name] for grid in grids]) for name in grids[0]}


def follow(
    config: Config, split: Dataset, point: sweep.Point, key: jax.Array
) -> dict[str, jax.Array]:
    """Return what became of one teacher and its three students, at the snapshots."""
    labels = jnp.asarray(split.train.labels)
    teacher_key, student_key = jax.random.split(key)
    logits, teacher_accuracy = train_teacher(
        config, split, teacher_key, corruption=point["corruption"], smoothing=point["smoothing"]
    )
    taught = targets.temperature_softmax(logits, temperature=config.temperature)
    measured = indicators.measure(taught, labels, max_k=1)
    first = indicators.membership(taught, 1)
    right = jnp.take_along_axis(first, labels[:, None], axis=1)[:, 0] > 0.5
    student = network_of(config, "student", split)

    def look(params: Any) -> dict[str, jax.Array]:
        seen = training.predict(student, params, split.train.images)
        weights = distillation.wsl_weights(seen, logits, labels)
        regularization = distillation.regularization_sample_mask(
            seen, logits, labels, temperature=config.temperature
        )
        unreliability, ambiguity, margin = weighted_indicators(taught, first, labels, weights)
        return {
            "test_accuracy": accuracy(student, params, split),
            "regularization": regularization.mean(),
            "weight_right": weights.mean(where=right),
            "weight_wrong": weights.mean(where=~right),  # NaN where the teacher is never wrong
            "weighted_unreliability": unreliability,
            "weighted_ambiguity": ambiguity,
            "weighted_mean_label_margin": margin,
        }

    three = objectives(point["alpha"], point["hard_weight"])
    _, seen = train_students(config, student, split, logits, three, student_key, look)
    accuracies, regularization = seen.pop("test_accuracy"), seen.pop("regularization")
    return {
        "epoch": jnp.array(config.snapshots),
        "teacher_test_accuracy": teacher_accuracy,
        "unreliability": measured.unreliability[0],
        "ambiguity": measured.ambiguity[0],
        "mean_label_margin": measured.mean_label_margin,
        "kd_regularization": regularization[1],
        **{f"{arm}_test_accuracy": accuracies[i] for i, arm in enumerate(ARMS)},
        **{f"wsl_{name}": values[2] for name, values in seen.items()},
    }


def train_teacher(
    config: Config,
    split: Dataset,
    key: jax.Array,
    *,
    corruption: jax.Array,
    smoothing: jax.Array | float,
) -> tuple[jax.Array, jax.Array]:
    """Return a teacher's logits of the training rows, and its test accuracy.

    It learns from the labels after a share `corruption` of them was made wrong, uniformly.
    """
    noise_key, key = jax.random.split(key)
    num_classes = split.num_classes
    rate = corruption * num_classes / (num_classes - 1)
    shown, _ = targets.uniform_label_noise(
        split.train.labels, noise_key, num_classes=num_classes, rate=rate
    )
    soft_labels = targets.smooth(targets.one_hot(shown, num_classes), alpha=smoothing)
    network = network_of(config, "teacher", split)
    params, _ = training.train(
        network,
        losses.soft_cross_entropy,
        split.train.images,
        soft_labels,
        key,
        observe=lambda params: (),
        **_schedule(config),
    )
    logits = training.predict(network, params, split.train.images)
    return logits, accuracy(network, params, split)


def train_students(
    config: Config,
    network: training.Network,
    split: Dataset,
    teacher_logits: jax.Array,
    three: tuple[jax.Array, ...],
    key: jax.Array,
    look: Callable[[Any], Any],
) -> tuple[Any, Any]:
    """Return parameters, and what `look` saw of them at the snapshots, of a student for each arm.

    They start alike and see the same batches. `three` is of `objectives`.
    """
    several = len(config.snapshots) > 1

    def train_one(objective: tuple[jax.Array, ...]) -> tuple[Any, Any]:
        hard_weight, alpha, weighted = objective

        def loss(logits: jax.Array, target: Any) -> jax.Array:
            terms = distillation.wsl_loss_terms(logits, *target, temperature=config.temperature)
            unweighted = distillation.distillation_loss(
                logits, *target, temperature=config.temperature, alpha=1.0, hard_weight=0.0
            )
            return hard_weight * terms.hard + alpha * jnp.where(weighted, terms.soft, unweighted)

        params, seen = training.train(
            network,
            loss,
            split.train.images,
            (teacher_logits, jnp.asarray(split.train.labels)),
            key,
            observe=look if several else lambda params: (),
            **_schedule(config),
        )
        if not several:  # looked at once instead of after every epoch
            return params, jax.tree.map(lambda leaf: leaf[None], look(params))
        return params, jax.tree.map(lambda leaf: leaf[jnp.array(config.snapshots) - 1], seen)

    return lax.map(train_one, three)


def ensemble(
    config: Config, split: Dataset, point: sweep.Point, key: jax.Array
) -> dict[str, jax.Array]:
    """Return bias, variance and error of students of several draws, means over test rows.

    Every member draws its rows from those of training and validation together. `gap` is how far
    bias and variance are from adding up to the error, relative to it.
    """
    pool = jax.tree.map(lambda *parts: jnp.concatenate(parts), split.train, split.valid)

    def member(key: jax.Array) -> jax.Array:
        rows_key, teacher_key, student_key = jax.random.split(key, 3)
        rows = jax.random.permutation(rows_key, len(pool.labels))[: len(split.train.labels)]
        drawn = dataclasses.replace(split, train=jax.tree.map(lambda array: array[rows], pool))
        logits, _ = train_teacher(
            config, drawn, teacher_key, corruption=point["corruption"], smoothing=0.0
        )
        network = network_of(config, "student", drawn)
        params, _ = train_students(
            config,
            network,
            drawn,
            logits,
            objectives(config.alpha),
            student_key,
            look=lambda params: (),
        )
        return lax.map(lambda one: training.predict(network, one, split.test.images), params)

    logits = lax.map(member, jax.random.split(key, config.members))  # [M, arms, N, C]
    parts = jax.vmap(distillation.ensemble_bias_variance, in_axes=(1, None))(
        logits, jnp.asarray(split.test.labels)
    )
    means = {name: part.mean(axis=1) for name, part in parts._asdict().items()}  # [arms]
    means["gap"] = jnp.abs(means["bias"] + means["variance"] - means["error"]) / means["error"]
    return {f"{arm}_{name}": means[name][i] for i, arm in enumerate(ARMS) for name in means}


def weighted_indicators(
    soft_labels: jax.Array, members: jax.Array, labels: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return Δ, γ and μ where each row counts as much as its weight, `[]` each.

    `members` [N, C], the memberships in top-k sets, decide Δ and γ, the soft labels [N, C] μ. NaN
    for a class without weight; with equal weights it is as in `jsoft.indicators`.

    >>> soft_labels = jnp.array([[0.7, 0.3], [0.4, 0.6], [0.0, 1.0]])
    >>> members, labels = jnp.round(soft_labels), jnp.array([0, 0, 1])
    >>> found = weighted_indicators(soft_labels, members, labels, jnp.array([3.0, 1.0, 1.0]))
    >>> print([round(float(x), 4) for x in found])  # 1/5, 1/4, (3 × 0.4 − 0.2)/4
    [0.2, 0.25, 0.25]
    """
    num_classes = soft_labels.shape[1]
    own = jnp.eye(num_classes, dtype=bool)

    def by_class(values: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(weights[:, None] * values, labels, num_classes)

    def largest_other(means: jax.Array) -> jax.Array:
        return jnp.where(own, -jnp.inf, means).max(axis=1)

    share = by_class(jnp.ones_like(members))
    frequencies, mean_labels = by_class(members) / share, by_class(soft_labels) / share  # [C, C]
    unreliability = 1 - jnp.trace(by_class(members)) / weights.sum()
    margin = (jnp.diagonal(mean_labels) - largest_other(mean_labels)).min()
    return jnp.clip(unreliability, 0, 1), largest_other(frequencies).max(), margin


def network_of(config: Config, role: Literal["teacher", "student"], split: Dataset) -> Normalised:
    """Return the network of this role, which sees images normalised as those of training."""
    images = jnp.asarray(split.train.images)
    if jnp.issubdtype(images.dtype, jnp.integer):
        images = images.astype(jnp.float32) / 255
    if config.network == "mlp":
        widths = {"teacher": (128, 128), "student": (16,)}[role]
        network = networks.MLP(widths, split.num_classes)
        axes, least = (0,), 0.1  # by pixel, some of which are always black
    else:
        depth = config.depths[0 if role == "teacher" else 1]
        network = networks.WideResNet(depth, 2, split.num_classes)
        axes, least = (0, 1, 2), 0.0  # by channel
    mean, deviation = (f(images, axis=axes, keepdims=True) for f in (jnp.mean, jnp.std))
    return Normalised(network, mean, deviation + least)


def accuracy(network: training.Network, params: Any, split: Dataset) -> jax.Array:
    """Return the share of test rows that the network gets right; NaN if a logit is not finite."""
    logits = training.predict(network, params, split.test.images)
    right = (logits.argmax(axis=-1) == jnp.asarray(split.test.labels)).mean()
    return jnp.where(jnp.isfinite(logits).all(), right, jnp.nan)


def _schedule(config: Config) -> dict[str, Any]:
    return {
        "epochs": config.snapshots[-1],
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "weight_decay": config.weight_decay,
    }


def _check(config: Config) -> None:
    for name, least in (("seeds", 2), ("splits", 1), ("ensembles", 0), ("members", 2)):
        if (value := getattr(config, name)) < least:
            raise ValueError(f"{name}: expected {least} or more, got {value}")
    if config.alpha not in config.alphas:
        raise ValueError(f"alpha: expected one of alphas, {config.alphas}, got {config.alpha}")
    if not {0.0, CORRUPTED} <= {*config.corruptions}:
        raise ValueError(
            f"corruptions: expected 0 and {CORRUPTED} among them, got {config.corruptions}"
        )
    snapshots = config.snapshots
    if not snapshots or sorted({*snapshots}) != [*snapshots] or snapshots[0] < 1:
        raise ValueError(f"snapshots: expected epochs in ascending order, got {snapshots}")


def rows_of(
    table: pa.Table,
    corruption: float,
    alpha: float,
    *,
    hard_weight: float = 1.0,
    smoothing: float = 0.0,
) -> dict[str, np.ndarray]:
    """Return the columns of the runs at these levels, `[seeds, snapshots]` each."""
    columns = {name: table[name].to_numpy() for name in table.column_names}
    chosen = np.isclose(columns["corruption"], corruption) & np.isclose(columns["alpha"], alpha)
    chosen &= np.isclose(columns["hard_weight"], hard_weight)
    chosen &= np.isclose(columns["smoothing"], smoothing)
    steps = len(np.unique(columns["step"]))
    return {name: column[chosen].reshape(-1, steps) for name, column in columns.items()}


def levels_of(table: pa.Table, **level: float) -> dict[str, np.ndarray]:
    """Return the last rows at this α (and h), `[corruptions, seeds]` each, with κ and D."""
    shares = sweep.metadata(table)["config"]["corruptions"]
    parts = [rows_of(table, share, **level) for share in shares]
    levels = {name: np.stack([part[name][:, -1] for part in parts]) for name in parts[0]}
    for prefix in PREFIXES:
        pair = levels[f"{prefix}unreliability"], levels[f"{prefix}ambiguity"]
        levels[f"{prefix}margin"] = np.asarray(theory.margin(*pair))
        levels[f"{prefix}divergence"] = np.asarray(theory.divergence(*pair))
    return levels


def correlations(levels: dict[str, np.ndarray]) -> dict[str, dict[str, float | None]]:
    """Return Spearman's ρ of κ, D and μ with the accuracies of KD and, weighted too, of WSL.

    Over all teachers, and as the mean over corruptions of the ρ among teachers of one corruption.
    """
    found = {}
    for arm, prefix in (("kd", ""), ("wsl", ""), ("wsl", "wsl_weighted_")):
        for name in ("margin", "divergence", "mean_label_margin"):
            x, y = levels[f"{prefix}{name}"], levels[f"{arm}_test_accuracy"]
            pairs = [(x.ravel(), y.ravel()), *zip(x, y, strict=True)]
            # A clean teacher has κ = D = 1 in every seed.
            rhos = [spearmanr(a, b)[0] if np.ptp(a) and np.ptp(b) else np.nan for a, b in pairs]
            within = [rho for rho in rhos[1:] if np.isfinite(rho)]
            found[f"{arm}_accuracy_with_{prefix.removeprefix('wsl_')}{name}"] = {
                "all": results.rounded(rhos[0], 3),
                "within": results.rounded(np.mean(within), 3) if within else None,
            }
    return found


def bias_and_variance(table: pa.Table) -> list[dict[str, Any]]:
    """Return the means over ensembles at each corruption, in nats, for each arm."""
    shown = [name for name in table.column_names if name != "seed" and not name.endswith("gap")]
    columns = {name: table[name].to_numpy() for name in shown}
    shares = columns["corruption"]
    return [
        {name: results.rounded(column[shares == share].mean()) for name, column in columns.items()}
        for share in np.unique(shares)
    ]


def summarise(tables: results.Tables) -> dict[str, Any]:
    """Return what the sweeps show, in plain keys, from their tables alone."""
    table = tables["results"]
    config = sweep.metadata(table)["config"]
    levels = levels_of(table, alpha=config["alpha"])
    usual = levels_of(table, alpha=USUAL_ALPHA, hard_weight=USUAL_HARD_WEIGHT)
    shares = config["corruptions"]
    parts = bias_and_variance(tables["ensembles"]) if "ensembles" in tables else []
    return {
        "claims": _claims(tables, levels, parts),
        "levels": [
            {
                "corruption": share,
                **{name: results.rounded(levels[name][i].mean()) for name in REPORTED},
                "kd_usual_test_accuracy": results.rounded(usual["kd_test_accuracy"][i].mean()),
                "wsl_usual_test_accuracy": results.rounded(usual["wsl_test_accuracy"][i].mean()),
            }
            for i, share in enumerate(shares)
        ],
        "usual": f"{USUAL_HARD_WEIGHT} CE + {USUAL_ALPHA} T² KL",
        "ensembles": parts,
        "spearman": correlations(levels),
        "diverged_runs": int(np.isnan(levels["wsl_test_accuracy"]).sum()),
        "seeds": config["seeds"],
        "dataset": config["dataset"],
    }


def _claims(
    tables: results.Tables, levels: dict[str, np.ndarray], parts: list[dict[str, Any]]
) -> list[dict[str, str]]:
    config = sweep.metadata(tables["results"])["config"]
    shares, alpha = config["corruptions"], config["alpha"]
    clean, spoilt = (
        {name: values[shares.index(share)] for name, values in levels.items()}
        for share in (0.0, CORRUPTED)
    )
    smoothed = rows_of(tables["results"], 0.0, alpha, smoothing=config["teacher_smoothing"])
    by_smoothed, by_plain = smoothed["kd_regularization"][:, -1], clean["kd_regularization"]
    right, wrong = spoilt["wsl_weight_right"], spoilt["wsl_weight_wrong"]
    margin, weighted = spoilt["mean_label_margin"], spoilt["wsl_weighted_mean_label_margin"]

    def ahead(seeds: dict[str, np.ndarray], other: str) -> tuple[np.ndarray, float, str]:
        points = 100 * (seeds["wsl_test_accuracy"] - seeds[f"{other}_test_accuracy"])
        error = points.std(ddof=1) / len(points) ** 0.5
        return points, error, f"{points.mean():+.2f} points (s.e. {error:.2f}, {len(points)} seeds)"

    over_ce, error, over_ce_text = ahead(clean, "ce")
    over_kd, _, over_kd_text = ahead(clean, "kd")
    gains, _, gains_text = ahead(spoilt, "kd")
    text = results.mean_and_spread
    rows = [
        results.claim(
            "W1",
            "with a clean teacher, weighted soft labels beat cross-entropy",
            source="paper (secondary source)",
            expected="paired mean above 0 by more than 2 s.e.",
            ours=over_ce_text,
            met=over_ce.mean() > 2 * error,
            smaller_scale=True,
        ),
        results.claim(
            "W2",
            "with a clean teacher, weighted soft labels tie plain distillation",
            source="derived here (a prototype of ours)",
            expected="not behind by more than 0.3 points on average",
            ours=over_kd_text,
            met=over_kd.mean() >= -0.3,
            reason="on the paper's own data sets, weighted soft labels are ahead",
        ),
        results.claim(
            "W3",
            "with a teacher trained on 20 % wrong labels, they beat plain distillation",
            source="derived here (a prototype of ours)",
            expected="in every seed, by more than 3 points on average",
            ours=f"{gains_text}, in {(gains > 0).sum()} of {len(gains)} seeds",
            met=bool((gains > 0).all()) and gains.mean() > 3,
            reason=f"against cross-entropy, which needs no teacher: {ahead(spoilt, 'ce')[2]}",
        ),
        results.claim(
            "W4",
            "under plain distillation, a label-smoothed teacher makes more regularisation samples",
            source="reconstructed",
            expected="in every seed; about 1.00 against about 0.5 (a prototype of ours)",
            ours=f"{text(by_smoothed)} against {text(by_plain)}",
            met=bool((by_smoothed > by_plain).all()),
            smaller_scale=True,
        ),
    ]
    if parts:
        table = tables["ensembles"]
        gap = max(table[f"{arm}_gap"].to_numpy().max() for arm in ARMS)
        told = "; ".join(
            f"{100 * row['corruption']:g} % wrong labels: "
            + ", ".join(
                f"{arm.upper()} {row[f'{arm}_bias']} + {row[f'{arm}_variance']}" for arm in ARMS
            )
            for row in parts
        )
        rows.append(
            results.claim(
                "W5",
                "bias and variance of an ensemble add up to its error",
                source="derived here",
                expected="relative gap below 1e-5, in float32",
                ours=f"{gap:.0e} at most, ensembles of {config['members']}",
                met=gap < 1e-5,
                reason=f"in nats, reported and not asserted, {told}",
            )
        )
    return [
        *rows,
        results.claim(
            "W6",
            "the weight is smaller where the teacher's first class is wrong (20 % wrong labels)",
            source="derived here",
            expected="in every seed, at the last epoch",
            ours=f"{text(wrong)} against {text(right)} elsewhere",
            met=bool((wrong < right).all()),
        ),
        results.claim(
            "W7",
            "weighting rows by w raises the mean label margin μ (20 % wrong labels)",
            source="derived here",
            expected="in every seed, at the last epoch",
            ours=f"{text(margin)} to {text(weighted)}",
            met=bool((weighted > margin).all()),
        ),
    ]


def plot(tables: results.Tables) -> Figure:
    """Return the figure: accuracies, gain, regularisation; indicators, weights, bias, variance."""
    table = tables["results"]
    config = sweep.metadata(table)["config"]
    figure = plt.figure(figsize=(7.2, 4.5), layout="constrained")
    axes: Any = figure.subplots(2, 3)
    levels = levels_of(table, alpha=config["alpha"])
    shares, epochs = 100 * np.array(config["corruptions"]), np.array(config["snapshots"])
    spoilt = rows_of(table, CORRUPTED, config["alpha"])

    for name, colour in COLOURS.items():
        values = 100 * levels[f"{name}_test_accuracy"].T
        title = name if name == "teacher" else name.upper()
        style = ":" if name == "teacher" else "-"
        _line(axes[0, 0], shares, values, title, colour, (4, 0), ls=style)
    axes[0, 0].set(ylabel="test accuracy (%)")
    axes[0, 0].set_title(f"a   Accuracy, mean ± s.d. of {config['seeds']} seeds", loc="left")

    for place, alpha in enumerate(config["alphas"]):
        found = levels_of(table, alpha=alpha)
        values = 100 * (found["wsl_test_accuracy"] - found["kd_test_accuracy"]).T
        blue = plt.get_cmap("Blues")((place + 4) / (len(config["alphas"]) + 4))
        _line(axes[0, 1], shares, values, f"α = {alpha:g}", blue, (4, 0))
    axes[0, 1].set(ylabel="points")
    axes[0, 1].set_title("b   WSL − KD, by weight α of the teacher", loc="left")

    for title, smoothing, colour in (
        ("label-smoothed teacher", config["teacher_smoothing"], "#009E73"),
        ("plain teacher", 0.0, "black"),
    ):
        found = rows_of(table, 0.0, config["alpha"], smoothing=smoothing)
        _line(axes[0, 2], epochs, found["kd_regularization"], title, colour, (0, -7))
    axes[0, 2].set(ylabel="share of training rows", ylim=(0, 1.05))
    axes[0, 2].set_title("c   Regularisation samples, KD", loc="left")

    for name, title, colour, up in (
        ("margin", "κ", "#009E73", 0),
        ("divergence", "D", "#AA4499", -4),
        ("mean_label_margin", "μ", "#E69F00", 4),
    ):
        for prefix, word, style in zip(PREFIXES, ("", " weighted"), ("-", "--"), strict=True):
            values = levels[f"{prefix}{name}"].T
            shift = (4, 0 if word else up)
            _line(axes[1, 0], shares, values, title + word, colour, shift, ls=style)
    axes[1, 0].set(ylabel="of the teacher's labels", ylim=(0, 1.05))
    axes[1, 0].set_title("d   Indicators, also weighted by w", loc="left")

    for name, colour in (("right", COLOURS["wsl"]), ("wrong", COLOURS["kd"])):
        values = spoilt[f"wsl_weight_{name}"]
        _line(axes[1, 1], epochs, values, f"teacher {name}", colour, (0, 7))
    axes[1, 1].set(ylabel="mean weight w", ylim=(0, 1))
    axes[1, 1].set_title("e   Weights at 20 % wrong labels", loc="left")

    for row in (*axes[:, 0], axes[0, 1]):
        row.set(xlabel="wrong labels of the teacher (%)", xticks=shares)
        row.set_xlim(None, shares[-1] * 1.5)
    for row in (axes[0, 2], axes[1, 1]):
        row.set(xlabel="epoch", xscale="log")
        row.set_xticks(epochs, labels=[f"{epoch}" for epoch in epochs], minor=False)
        row.xaxis.set_minor_locator(NullLocator())
    if "ensembles" in tables:
        _plot_parts(axes[1, 2], tables["ensembles"], config["members"])
    else:
        axes[1, 2].axis("off")
    return figure


def _line(
    axes: Axes,
    x: np.ndarray,
    values: np.ndarray,
    title: str,
    colour: Any,
    shift: tuple[float, float],
    **style: Any,
) -> None:
    """Draw the mean over seeds, the first axis, with a band of ± s.d. and its name at the end."""
    mean, spread = values.mean(axis=0), values.std(axis=0)
    axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.18, lw=0)
    axes.plot(x, mean, color=colour, marker="o", ms=2.5, lw=1, **style)
    axes.annotate(
        title,
        (x[-1], mean[-1]),
        shift,
        textcoords="offset points",
        ha="left" if shift[0] else "right",
        va="center",
        color=colour,
    )


def _plot_parts(axes: Axes, table: pa.Table, members: int) -> None:
    """Draw bias and variance, one upon the other; their sum, the error, with ± s.d."""
    ticks, shares = {}, table["corruption"].to_numpy()
    for group, row in enumerate(bias_and_variance(table)):
        for place, arm in enumerate(ARMS, start=4 * group):
            bias, variance = row[f"{arm}_bias"], row[f"{arm}_variance"]
            axes.bar(place, bias, color=COLOURS[arm])
            axes.bar(place, variance, bottom=bias, color=COLOURS[arm], alpha=0.35, hatch="////")
            errors = table[f"{arm}_error"].to_numpy()[np.isclose(shares, row["corruption"])]
            axes.errorbar(place, errors.mean(), errors.std(), color="black", lw=0.8, capsize=2)
            below = f"{100 * row['corruption']:g} % wrong labels" if arm == ARMS[1] else " "
            ticks[place] = f"{arm.upper()}\n{below}"
    axes.set_xticks([*ticks], labels=[*ticks.values()])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("nats: bias + variance (hatched)")
    axes.set_title(f"f   Error over {members} draws", loc="left")


def report(summary: dict[str, Any]) -> str:
    """Return the summary as a person reads it."""
    return f"\n{results.timing_line(summary)}\n\n{results.claim_lines(summary)}\n"


if __name__ == "__main__":
    results.main(sys.modules[__name__])
