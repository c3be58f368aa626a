"""Segmentation: Jaccard metric losses for hard labels, smoothed boundaries and a teacher's labels.

Small networks find digits pasted on photographs (`experiments.digit_scenes`), pixel by pixel. They
minimise the cross-entropy, or a quarter of it and three quarters of a Jaccard metric loss (Wang,
Ning & Blaschko, NeurIPS 2023, arXiv 2302.05666), of true labels, labels smoothed at boundaries
(BLS), or half true labels and half a teacher's (KD). Beside them stand the usual soft Jaccard loss,
which multiplies where the metric loss takes the smaller, and the metric loss of all classes in the
place of those that are present.

    python -m experiments.segmentation --preset digits

writes results/segmentation/digits/{results.parquet,teachers.parquet,labels.parquet,figure.png,
figure.svg,summary.json}: three teachers, and 39 students of 1,000 steps, in less than half an hour
on two cores with other work. To expect (a prototype of ours with another draw of scenes; mean IoU
in points over 3 seeds): cross-entropy 22.5 ± 0.4, with a teacher 24.0 ± 0.6; JML 29.7 ± 1.2, with
BLS 29.4 ± 0.8, with a teacher 31.1 ± 1.3; JML over all classes with BLS 24.7 ± 1.0; the teacher 48.
The calibration error (15 bins) 0.3 points after cross-entropy, 3.7 after JML, 1.7 with BLS. The
paper's own numbers are of Cityscapes and PASCAL VOC.

`--preset scenes64` has 20,000 scenes of 64 × 64 pixels with four digits, wider networks, and
students of the per-image and per-class losses, for an accelerator; it has not been run yet.

A seed is one draw of scenes, teacher, initial weights and order of scenes, shared by all students.
There is no validation: every student is measured after its last step. The true labels of training
scenes are exact, so Δ of the teacher's labels is its own pixel error there.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.flatten_util
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax import lax
from jax.nn.initializers import he_normal
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from experiments import digit_scenes, results
from experiments.digit_scenes import NUM_CLASSES, Scenes
from jsoft import indicators, losses, networks, segmentation, sweep, targets

METRIC, ALL_CLASSES, PRODUCT, TAUGHT, TAUGHT_PRODUCT = range(5)
REGIONS = ("all", "boundary", "elsewhere")
KINDS: tuple[Literal["D", "I", "C"], ...] = ("D", "I", "C")
KERNELS = (3, 5)
DESCRIBED = 100  # training scenes whose labels are looked at, all their pixels


class Job(NamedTuple):
    """What a student minimises: (1 − w) · cross-entropy + w · Jaccard loss, of which labels.

    Attributes:
      form: place in `objectives`.
      epsilon: how much boundaries are smoothed.
      jdt_weight: w.
      threshold: what a label has to exceed for its class to be present.
      kind: 0, 1 or 2: the loss of the batch, per image or per class.
    """

    form: int = METRIC
    epsilon: float = 0.0
    jdt_weight: float = 0.75
    threshold: float = 0.01
    kind: int = 0


ARMS = {
    "CE": Job(jdt_weight=0.0),
    "CE, BLS": Job(epsilon=0.1, jdt_weight=0.0),
    "CE, KD": Job(TAUGHT, jdt_weight=0.0),
    "JML": Job(),
    "JML, BLS": Job(epsilon=0.1),
    "JML, BLS, all classes": Job(ALL_CLASSES, epsilon=0.1),
    "product, BLS": Job(PRODUCT, epsilon=0.1),
    "product, KD": Job(TAUGHT_PRODUCT),
    "JML, KD": Job(TAUGHT),
}
PICTURED = ("CE", "JML", "JML, KD")


@dataclasses.dataclass(frozen=True)
class Config:
    """Train students of several losses on scenes of digits, measure them, and draw it."""

    preset: Literal["tiny", "digits", "scenes64"] = "digits"
    """Where the other options take their defaults from."""
    size: int = 32
    """Pixels a side of a scene."""
    digits: int = 2
    """Digits on a scene, 2 or 4."""
    train_scenes: int = 300
    """Scenes to learn from."""
    test_scenes: int = 200
    """Scenes to test on."""
    seeds: int = 3
    """Draws of scenes, teacher and initial weights, seeds 0, 1, 2, …"""
    width: int = 32
    """Channels of a student."""
    teacher_width: int = 96
    """Channels of the teacher."""
    steps: int = 1000
    """Steps of a student."""
    teacher_steps: int = 600
    """Steps of a teacher."""
    batch_size: int = 8
    """Scenes a step."""
    learning_rate: float = 5e-3
    """Largest learning rate of AdamW, after warming up for 5 % of the steps; then a cosine."""
    epsilons: tuple[float, ...] = (0.2, 0.5)
    """Further levels of smoothing for JML, beside 0 and 0.1."""
    jdt_weights: tuple[float, ...] = (0.5, 1.0)
    """Further weights of JML against the cross-entropy, beside 0 and 0.75, with true labels."""
    kinds: bool = False
    """Whether to train students of the per-image and per-class losses too."""
    pictured: int = 3
    """Test scenes to draw."""
    out: Path | None = None
    """Folder of the results; results/segmentation/PRESET by default."""
    plot_only: bool = False
    """Redraw figure and summary from the tables that are there, without training."""
    quiet: bool = False
    """No progress bar."""


PRESETS = {
    "tiny": Config(
        preset="tiny",
        train_scenes=12,
        test_scenes=6,
        seeds=2,
        width=8,
        teacher_width=8,
        steps=6,
        teacher_steps=4,
        batch_size=4,
        epsilons=(0.5,),
        jdt_weights=(1.0,),
        pictured=2,
    ),
    "digits": Config(),
    "scenes64": Config(
        preset="scenes64",
        size=64,
        digits=4,
        train_scenes=20_000,
        test_scenes=2_000,
        seeds=5,
        width=128,
        teacher_width=256,
        steps=20_000,
        teacher_steps=20_000,
        batch_size=64,
        kinds=True,
    ),
}


def jobs(options: dict[str, Any]) -> dict[str, Job]:
    """Return the students to train by name: the arms, and the levels of smoothing and weight.

    Levels of smoothing have a threshold above any ε/C, so that they differ in the labels alone.
    """
    smoothed = {f"ε = {e:g}": Job(epsilon=e, threshold=0.1) for e in options["epsilons"]}
    weighed = {f"w = {w:g}": Job(jdt_weight=w) for w in options["jdt_weights"]}
    kinds = {"JML per image": Job(kind=1), "JML per class": Job(kind=2)} if options["kinds"] else {}
    return {**ARMS, **smoothed, **weighed, **kinds}


class PixelNetwork(nn.Module):
    """Images [B, H, W, 1] to logits [B, H, W, C]: 9 × 9 taps two pixels apart, and two layers.

    The first layer is one matrix product with 81 shifted images, the second looks at one pixel, or
    at 3 × 3 of them if `deep`: a convolution inside a scan would take ten times as long on a CPU.
    """

    width: int
    deep: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the logits of `images`."""
        batch, height, width, _ = images.shape
        padded = jnp.pad(images[..., 0], ((0, 0), (8, 8), (8, 8)))
        padded = lax.optimization_barrier(padded)  # or every slice would pad for itself
        # Shifts come first, so that whole rows of pixels are copied: first sideways, then down.
        shifted = jnp.stack([padded[:, :, j : j + width] for j in range(0, 17, 2)])
        shifted = lax.optimization_barrier(shifted)
        shifted = jnp.stack([shifted[:, :, i : i + height] for i in range(0, 17, 2)])
        kernel = self.param("kernel", he_normal(), (81, self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        x = lax.dot_general(shifted.reshape(81, -1), kernel, (((0,), (0,)), ((), ())))
        x = nn.relu(x + bias[None])  # [B H W, width]
        if self.deep:
            x = x.reshape(batch, height, width, self.width)
            x = networks.Conv3x3(self.width, use_bias=True)(x).reshape(-1, self.width)
        else:
            x = nn.Dense(self.width, kernel_init=he_normal())(x)
        logits = nn.Dense(NUM_CLASSES)(nn.relu(x))
        return logits.reshape(batch, height, width, NUM_CLASSES)


def product_loss(
    logits: jax.Array, labels: jax.Array, *, smooth: float, threshold: Any
) -> jax.Array:
    """Return the usual soft Jaccard loss, mean over the classes present in the batch, `[]`.

        1 − (Σ p q + s) / (Σ p + Σ q − Σ p q + s)

    The Jaccard metric loss for hard labels; for soft ones it is not least at p = q.
    """
    axes = (0, 1, 2)
    probs = jax.nn.softmax(logits)
    shared = (probs * labels).sum(axis=axes)
    total = probs.sum(axis=axes) + labels.sum(axis=axes)
    loss = 1 - (shared + smooth) / (total - shared + smooth)
    present = labels.max(axis=axes) > threshold
    return jnp.where(present, loss, 0).sum() / jnp.maximum(present.sum(), 1)


class Batch(NamedTuple):
    """What a student is told of a batch of scenes.

    Attributes:
      labels: `[B, H, W]` integers.
      soft_labels: `[B, H, W, C]`, the labels after smoothing.
      teacher_logits: `[B, H, W, C]`, zeros where the job has no teacher.
    """

    labels: jax.Array
    soft_labels: jax.Array
    teacher_logits: jax.Array


def objectives(job: dict[str, Any]) -> list[Callable[[jax.Array, Batch], jax.Array]]:
    """Return the losses of logits and a batch by `Job.form`; the job's numbers may be traced."""
    weight, options = job["jdt_weight"], {"smooth": 1.0, "threshold": job["threshold"]}
    kinds = tuple(jax.nn.one_hot(job["kind"], 3))

    def of_labels(jaccard: Callable[..., jax.Array], logits: jax.Array, batch: Batch) -> jax.Array:
        divergence = losses.kl_divergence(logits, batch.soft_labels).mean()
        return (1 - weight) * divergence + weight * jaccard(logits, batch.soft_labels, **options)

    def metric(logits: jax.Array, batch: Batch) -> jax.Array:
        def jaccard(*arguments: Any, **options: Any) -> jax.Array:
            return segmentation.jdt_loss(*arguments, weights=kinds, **options)

        return of_labels(jaccard, logits, batch)

    def all_classes(logits: jax.Array, batch: Batch) -> jax.Array:
        def jaccard(*arguments: Any, **options: Any) -> jax.Array:
            return segmentation.jdt_loss(*arguments, active="all", **options)

        return of_labels(jaccard, logits, batch)

    def product(logits: jax.Array, batch: Batch) -> jax.Array:
        return of_labels(product_loss, logits, batch)

    def taught(logits: jax.Array, batch: Batch) -> jax.Array:
        return segmentation.segmentation_distillation_loss(
            logits,
            batch.teacher_logits,
            batch.labels,
            ce_weight=1 - weight,
            jdt_weight=weight,
            **options,
        )

    def taught_product(logits: jax.Array, batch: Batch) -> jax.Array:
        hard = targets.one_hot(batch.labels, NUM_CLASSES)
        of_teacher = batch._replace(soft_labels=jax.nn.softmax(batch.teacher_logits))
        return (product(logits, batch._replace(soft_labels=hard)) + product(logits, of_teacher)) / 2

    return [metric, all_classes, product, taught, taught_product]


def train(
    network: PixelNetwork,
    scenes: Scenes,
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    key: jax.Array,
    *,
    steps: int,
    config: Config,
) -> Any:
    """Return the parameters after the last step.

    Args:
      network: what to train.
      scenes: what to train it on.
      loss: from logits of a batch and the rows of the scenes in it to one number.
      key: decides initial parameters and order of scenes.
      steps: number of steps.
      config: batch size and learning rate.
    """
    init_key, order_key = jax.random.split(key)
    optimizer = optax.adamw(
        optax.warmup_cosine_decay_schedule(0, config.learning_rate, max(1, steps // 20), steps)
    )
    params = network.init(init_key, scenes.images[:1])
    predicted: Any = network.apply

    def step(state: Any, number: jax.Array) -> Any:
        params, optimizer_state = state
        rows = jax.random.randint(
            jax.random.fold_in(order_key, number), (config.batch_size,), 0, len(scenes.images)
        )

        @jax.grad
        def gradient(params: Any) -> jax.Array:
            return loss(predicted(params, scenes.images[rows]), rows)

        gradients = gradient(params)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), None

    (params, _), _ = lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))
    return params


def predict(network: PixelNetwork, params: Any, images: jax.Array) -> jax.Array:
    """Return the logits of all images `[N, H, W, C]`, some images at a time."""
    return lax.map(
        lambda image: network.apply(params, image[None])[0],
        images,
        batch_size=min(10, len(images)),
    )


def measure(logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """Return mean IoU, IoU by class, pixel accuracy and calibration error of predictions."""
    predicted = logits.argmax(axis=-1)
    counts = segmentation.segmentation_counts(predicted, labels, NUM_CLASSES)
    by_class = segmentation.tversky_index(*(count.sum(axis=0) for count in counts))
    return {
        **{f"miou_{kind}": segmentation.mean_iou(*counts, kind=kind) for kind in KINDS},
        **{f"iou_{c}": by_class[c] for c in range(NUM_CLASSES)},
        "accuracy": (predicted == labels).mean(),
        "ece": segmentation.segmentation_ece(jax.nn.softmax(logits), labels, num_bins=15),
    }


class Runs(NamedTuple):
    """The mapped runs: of teachers, and given these, `[seeds, P]`, of students and of labels."""

    teacher: sweep.Train
    student: Callable[[jax.Array], sweep.Train]
    labels: Callable[[jax.Array], sweep.Train]


def make_runs(config: Config, material: digit_scenes.Material) -> Runs:
    """Return the functions to map; teachers are known by their parameters as rows."""
    teacher = PixelNetwork(config.teacher_width, deep=True)
    network = PixelNetwork(config.width)
    image = jnp.zeros((1, config.size, config.size, 1))
    empty = jax.eval_shape(teacher.init, jax.random.key(0), image)
    empty = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), empty)
    unravel = jax.flatten_util.ravel_pytree(empty)[1]

    def draw(key: jax.Array) -> tuple[Scenes, Scenes]:
        return digit_scenes.train_and_test(
            material,
            key,
            num_train=config.train_scenes,
            num_test=config.test_scenes,
            size=config.size,
            num_digits=config.digits,
        )

    def train_teacher(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        del point
        scenes_key, teacher_key, _ = jax.random.split(key, 3)
        scenes, test = draw(scenes_key)

        def loss(logits: jax.Array, rows: jax.Array) -> jax.Array:
            labels = scenes.labels[rows]
            hard = targets.one_hot(labels, NUM_CLASSES)
            return objectives(Job()._asdict())[METRIC](logits, Batch(labels, hard, logits))

        params = train(
            teacher, scenes, loss, teacher_key, steps=config.teacher_steps, config=config
        )
        measured = measure(predict(teacher, params, test.images), test.labels)
        return {"parameter": jax.flatten_util.ravel_pytree(params)[0], **measured}

    def taught(teachers: jax.Array, seed: jax.Array, scenes: Scenes) -> jax.Array:
        return predict(teacher, unravel(teachers[seed]), scenes.images)

    def student(teachers: jax.Array, point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        scenes_key, _, student_key = jax.random.split(key, 3)
        scenes, test = draw(scenes_key)
        smoothed = segmentation.boundary_label_smoothing(
            scenes.labels, NUM_CLASSES, epsilon=point["epsilon"]
        )
        teacher_logits = lax.cond(
            point["form"] >= TAUGHT,
            lambda: taught(teachers, point["seed"], scenes),
            lambda: jnp.zeros_like(smoothed),
        )
        told = Batch(scenes.labels, smoothed, teacher_logits)

        def loss(logits: jax.Array, rows: jax.Array) -> jax.Array:
            batch = jax.tree.map(lambda leaf: leaf[rows], told)
            return lax.switch(point["form"], objectives(point), logits, batch)

        params = train(network, scenes, loss, student_key, steps=config.steps, config=config)
        logits = predict(network, params, test.images)
        shown = jax.tree.map(lambda leaf: leaf[: config.pictured], test)
        return {
            **measure(logits, test.labels),
            "pictured_image": shown.images.ravel(),
            "pictured_label": shown.labels.ravel(),
            "pictured_boundary": segmentation.boundary_mask(shown.labels).ravel(),
            "pictured_prediction": logits[: config.pictured].argmax(axis=-1).ravel(),
        }

    def labels(teachers: jax.Array, point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        scenes, _ = draw(jax.random.split(key, 3)[0])
        scenes = jax.tree.map(lambda leaf: leaf[:DESCRIBED], scenes)
        of_teacher = lax.cond(
            point["taught"],
            lambda: jax.nn.softmax(taught(teachers, point["seed"], scenes)),
            lambda: jnp.zeros((*scenes.labels.shape, NUM_CLASSES)),
        )
        soft, regions = [], []
        for kernel_size in KERNELS:
            smoothed = segmentation.boundary_label_smoothing(
                scenes.labels, NUM_CLASSES, epsilon=point["epsilon"], kernel_size=kernel_size
            )
            soft.append(jnp.where(point["taught"], of_teacher, smoothed))
            boundary = segmentation.boundary_mask(scenes.labels, kernel_size=kernel_size)
            regions.append(jnp.stack([jnp.ones_like(boundary), boundary, ~boundary]))
        places = jnp.arange(len(KERNELS) * len(REGIONS))
        soft, regions = jnp.stack(soft), jnp.concatenate(regions)
        rows = lax.map(
            lambda at: describe(soft[at // len(REGIONS)], scenes.labels, regions[at]), places
        )
        return jax.tree.map(jnp.ravel, rows)

    return Runs(
        train_teacher,
        lambda teachers: functools.partial(student, teachers),
        lambda teachers: functools.partial(labels, teachers),
    )


def describe(soft_labels: jax.Array, labels: jax.Array, where: jax.Array) -> dict[str, jax.Array]:
    """Return the indicators of the labels of all pixels in a region, one row for each class.

    Δ, γ, D and μ of all, at k = 1 and 2, are repeated; `class_…` is of the pixels of one class: Δ_y
    and γ_y, the rate of its likeliest companion, at k = 1, NaN where the region has none of it.
    """
    rows, labels, where = soft_labels.reshape(-1, NUM_CLASSES), labels.ravel(), where.ravel()
    found = indicators.measure(rows, labels, max_k=2, where=where)
    matrix = indicators.ambiguity_matrix(rows, labels, 1, where=where)
    wrong = jnp.where(jnp.eye(NUM_CLASSES, dtype=bool), -jnp.inf, matrix)
    overall = {"share": where.mean(), "mean_label_margin": found.mean_label_margin}
    for name in ("unreliability", "ambiguity", "divergence"):
        overall |= {f"{name}_{k}": getattr(found, name)[k - 1] for k in (1, 2)}
    return {
        **{name: jnp.broadcast_to(value, (NUM_CLASSES,)) for name, value in overall.items()},
        "class_unreliability": 1 - jnp.diagonal(matrix),
        "class_ambiguity": wrong.max(axis=1),
    }


def run(config: Config, folder: Path) -> results.Tables:
    """Train teachers and students, measure labels, and return the tables, also written."""
    _check(config)
    started, noted = time.perf_counter(), results.options(config)
    runs = make_runs(config, digit_scenes.load())
    seeds = range(config.seeds)
    # One at a time on every device: each fills it, and only the student's own loss is computed.
    options: Any = {"config": noted, "progress": not config.quiet, "batch_size": 1}
    trained = sweep.run(runs.teacher, sweep.grid(seed=seeds), watch="miou_D", **options)
    teachers = jnp.asarray(trained["parameter"].to_numpy().reshape(config.seeds, -1))
    once = {name: trained[name].to_numpy() for name in trained.column_names if name != "parameter"}
    columns = {name: x[once["step"] == 1] for name, x in once.items() if name != "step"}

    listed = list(jobs(noted).values())
    points = sweep.grid(job=range(len(listed)), seed=seeds)
    chosen = [listed[job] for job in points["job"]]
    points |= {name: np.array([getattr(job, name) for job in chosen]) for name in Job._fields}
    levels = sorted({job.epsilon for job in listed})
    smoothed = sweep.grid(taught=[False], epsilon=levels, seed=seeds)
    of_teacher = sweep.grid(taught=[True], epsilon=[0.0], seed=seeds)
    labelled = {name: np.concatenate([smoothed[name], of_teacher[name]]) for name in smoothed}
    return {
        "teachers": results.save(columns, folder / "teachers.parquet", noted, started=started),
        "labels": sweep.run(
            runs.labels(teachers), labelled, path=folder / "labels.parquet", **options
        ),
        "results": sweep.run(
            runs.student(teachers),
            points,
            path=folder / "results.parquet",
            watch="miou_D",
            **options,
        ),
    }


def _check(config: Config) -> None:
    """Raise `ValueError` unless such scenes can be drawn and such students trained."""
    for name in ("train_scenes", "test_scenes", "seeds", "steps", "teacher_steps", "batch_size"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name}: expected 1 or more, got {getattr(config, name)}")
    if config.digits not in (2, 4):
        raise ValueError(f"digits: expected 2 or 4, got {config.digits}")
    if not 32 <= config.size <= 400:
        raise ValueError(f"size: expected 32 … 400, got {config.size}")
    if not 1 <= config.pictured <= config.test_scenes:
        raise ValueError(
            f"pictured: expected 1 … {config.test_scenes}, the test scenes, got {config.pictured}"
        )
    for name in ("epsilons", "jdt_weights"):
        for level in getattr(config, name):
            if not 0 <= level <= 1:
                raise ValueError(f"{name}: expected levels in [0, 1], got {level}")


def scores(tables: results.Tables) -> dict[str, dict[str, np.ndarray]]:
    """Return how good the students of every job are, in points, `[seeds]` by name and measure."""
    table = tables["results"]
    names = list(jobs(sweep.metadata(table)["config"]))
    first = table["step"].to_numpy() == 1
    measures = [x for x in table.column_names if x.startswith(("miou_", "iou_", "accuracy", "ece"))]
    grid = {x: 100 * table[x].to_numpy()[first].reshape(len(names), -1) for x in measures}
    return {
        job: {measure: values[row] for measure, values in grid.items()}
        for row, job in enumerate(names)
    }


def described(tables: results.Tables) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the levels of smoothing and the labels' indicators, those of teachers last.

    Indicators are `[levels + 1, seeds, kernels, regions, classes]`.
    """
    table = tables["labels"]
    levels = np.unique(table["epsilon"].to_numpy())
    shape = (len(levels) + 1, -1, len(KERNELS), len(REGIONS), NUM_CLASSES)
    return levels, {name: table[name].to_numpy().reshape(shape) for name in table.column_names}


def summarise(tables: results.Tables) -> dict[str, Any]:
    """Return what students and labels show, in plain keys, from the tables alone."""
    config = sweep.metadata(tables["results"])["config"]
    found = scores(tables)
    spread = results.mean_and_spread

    def lead(of: str, over: str, measure: str = "miou_D") -> np.ndarray:
        return found[of][measure] - found[over][measure]

    hard, taught = lead("JML", "CE"), lead("JML, KD", "CE, KD")
    gain, loss = lead("JML, KD", "JML"), -lead("JML, BLS", "JML")
    kept = found["JML, BLS"]["ece"].mean() / found["JML"]["ece"].mean()
    scale = "margin of a prototype of ours; the paper's own data are Cityscapes and PASCAL VOC"
    claims = [
        results.claim(
            "J1",
            "the Jaccard metric loss beats cross-entropy, with true labels",
            source="paper (secondary source)",
            expected="more than 4 points of mean IoU in every seed",
            ours=f"{spread(hard, 1)} points, least {hard.min():.1f}",
            met=bool(hard.min() > 4),
            smaller_scale=True,
            reason=scale,
        ),
        results.claim(
            "J2",
            "the Jaccard metric loss beats cross-entropy, with a teacher's labels",
            source="paper (secondary source)",
            expected="more than 4 points of mean IoU in every seed",
            ours=f"{spread(taught, 1)} points, least {taught.min():.1f}",
            met=bool(taught.min() > 4),
            smaller_scale=True,
            reason=scale,
        ),
        results.claim(
            "J3",
            "a teacher's labels help the Jaccard metric loss",
            source="paper (secondary source)",
            expected="mean IoU above that of true labels, on average",
            ours=f"{spread(gain, 1)} points",
            met=bool(gain.mean() > 0),
            smaller_scale=True,
        ),
        results.claim(
            "J4",
            "smoothed boundaries calibrate the Jaccard metric loss at little cost",
            source="paper (secondary source)",
            expected="calibration error down by more than a quarter, mean IoU by less than 1.5 "
            "points, on average",
            ours=f"calibration error times {kept:.2f}, mean IoU down by {spread(loss, 1)} points",
            met=bool(kept < 0.75 and loss.mean() < 1.5),
            smaller_scale=True,
            reason="thresholds of a prototype of ours",
        ),
    ]
    if config["kinds"]:
        claims += [_claim_of_kind(found, kind) for kind in "DIC"]
    return {
        "claims": claims,
        "arms": {
            name: {
                "miou": spread(found[name]["miou_D"], 1),
                "pixel_accuracy": spread(found[name]["accuracy"], 1),
                "ece": spread(found[name]["ece"], 2),
            }
            for name in found
        },
        "teacher_miou": spread(100 * tables["teachers"]["miou_D"].to_numpy(), 1),
        "metric_over_product_with_teacher": spread(lead("JML, KD", "product, KD"), 1),
        "metric_over_product_smoothed": spread(lead("JML, BLS", "product, BLS"), 1),
        "price_of_all_classes": spread(lead("JML, BLS", "JML, BLS, all classes"), 1),
        **_reading(tables, found),
    }


def _claim_of_kind(found: dict[str, dict[str, np.ndarray]], kind: str) -> dict[str, str]:
    """Return the claim that the loss of a kind is best by its own mean, or within noise of it."""
    names = dict(zip("DIC", ("JML", "JML per image", "JML per class"), strict=True))
    values = {other: found[name][f"miou_{kind}"] for other, name in names.items()}
    best = max(values, key=lambda other: values[other].mean())
    behind = values[best].mean() - values[kind].mean()
    return results.claim(
        "J5",
        f"the loss of kind {kind} is best by the mean IoU of its kind",
        source="paper (secondary source)",
        expected="no more than one standard deviation behind the best",
        ours=f"{behind:.1f} points behind, {results.mean_and_spread(values[kind], 1)}",
        met=bool(behind <= values[best].std(ddof=1)),
        smaller_scale=True,
    )


def _reading(tables: results.Tables, found: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    """Return what the indicators say of the labels, and what of it shows in the students."""
    levels, grid = described(tables)
    shown = {}
    for row, name in enumerate([*(f"ε = {level:g}" for level in levels), "teacher"]):
        for place, region in enumerate(REGIONS):
            means = {key: grid[key][row, :, 0, place].mean() for key in grid}
            shown[f"{name}, {region}"] = {
                "Δ": results.rounded(means["unreliability_1"]),
                "γ": results.rounded(means["ambiguity_1"]),
                "κ": results.rounded(1 - means["unreliability_1"] - means["ambiguity_1"]),
                "D": results.rounded(means["divergence_1"]),
                "μ": results.rounded(means["mean_label_margin"]),
                "γ at k = 2": results.rounded(means["ambiguity_2"]),
            }
    missed = grid["class_unreliability"][-1, :, 0, 0]  # [seeds, classes]
    margins = _class_margins(grid).ravel()
    by_class = {name: _by_class(found[name]).ravel() for name in ("JML", "JML, KD")}
    return {
        "indicators_at_kernel_3": shown,
        "boundary_share": results.rounded(grid["share"][0, :, 0, 1].mean()),
        "teacher_unreliability_mean_over_classes": results.rounded(missed.mean()),
        "spearman_of_teacher_class_margin": {
            **{
                f"with class IoU of {name}": results.rounded(spearmanr(margins, values)[0])
                for name, values in by_class.items()
            },
            "with what KD adds to it": results.rounded(
                spearmanr(margins, by_class["JML, KD"] - by_class["JML"])[0]
            ),
        },
    }


def _class_margins(grid: dict[str, np.ndarray]) -> np.ndarray:
    """Return κ_y = 1 − Δ_y − γ_y of the teachers' labels, all pixels, `[seeds, classes]`."""
    taught = (-1, slice(None), 0, 0)
    return 1 - grid["class_unreliability"][taught] - grid["class_ambiguity"][taught]


def _by_class(measures: dict[str, np.ndarray]) -> np.ndarray:
    """Return the IoU of every class, `[seeds, classes]`."""
    return np.stack([measures[f"iou_{c}"] for c in range(NUM_CLASSES)], axis=1)


def plot(tables: results.Tables) -> Figure:
    """Return the figure: scenes, arms, and the labels' indicators beside what they do."""
    figure = plt.figure(figsize=(7.2, 8.0), layout="constrained")
    parts: Any = figure.subfigures(3, 1, height_ratios=[1.4, 0.9, 1])
    _plot_scenes(parts[0], tables)
    left, right = parts[1].subplots(1, 2, sharey=True, width_ratios=[1.3, 1])
    _plot_arms(left, right, tables)
    panels = parts[2].subplots(1, 3)
    _plot_indicators(panels[0], tables)
    _plot_levels(panels[1], tables)
    _plot_classes(panels[2], tables)
    return figure


def _plot_scenes(figure: Any, tables: results.Tables) -> None:
    """Draw test scenes, their labels, where they are smoothed, and what three students see."""
    table = tables["results"]
    config = sweep.metadata(table)["config"]
    shape = (len(jobs(config)), -1, config["pictured"], config["size"], config["size"])
    found = {
        name: table[f"pictured_{name}"].to_numpy().reshape(shape)[:, 0]  # of the first seed
        for name in ("image", "label", "boundary", "prediction")
    }
    rows = list(ARMS)
    columns = [
        ("scene", found["image"][0], "gray"),
        ("labels", found["label"][0], "digits"),
        ("smoothed by BLS", found["boundary"][0], "gray_r"),
        *((name, found["prediction"][rows.index(name)], "digits") for name in PICTURED),
    ]
    colours = plt.get_cmap("tab10")(np.arange(10))
    colours[7] = (0, 0, 0, 1)  # its grey is too near the background's
    digits = ListedColormap([(0.93, 0.93, 0.93, 1.0), *colours])
    panels = figure.subplots(config["pictured"], len(columns), squeeze=False)
    for place, (title, pictures, style) in enumerate(columns):
        panels[0, place].set_title(title, fontsize=6.5)
        for axes, picture in zip(panels[:, place], pictures, strict=True):
            limits = {"vmin": 0, "vmax": 10} if style == "digits" else {}
            colour_map = digits if style == "digits" else style
            axes.imshow(picture, cmap=colour_map, interpolation="nearest", **limits)
            axes.set_axis_off()
    figure.suptitle(
        "a   Test scenes, what they show, and what students see in them; a colour for each digit",
        x=0.01,
        ha="left",
        fontsize=7.5,
    )


def _plot_arms(left: Axes, right: Axes, tables: results.Tables) -> None:
    """Draw mean IoU and calibration error of every arm, a dot for each seed."""
    found = scores(tables)
    for row, name in enumerate(ARMS):
        colour = "C0" if name.startswith("CE") else "C2" if "product" in name else "C1"
        for axes, measure in ((left, "miou_D"), (right, "ece")):
            values = found[name][measure]
            axes.plot(values, np.full(len(values), row), "o", ms=3, alpha=0.5, color=colour, mew=0)
            axes.plot([values.mean()] * 2, [row - 0.32, row + 0.32], color=colour, lw=1.6)
            axes.text(
                values.max(), row, f"  {values.mean():.1f}", va="center", fontsize=6, color=colour
            )
    left.set_yticks(range(len(ARMS)), ARMS)
    left.invert_yaxis()
    teacher = 100 * tables["teachers"]["miou_D"].to_numpy().mean()
    seeds = len(found["CE"]["ece"])
    left.set_title(f"b   Mean IoU by loss and labels, {seeds} seeds; bar: mean", loc="left")
    left.set_xlabel(f"mean IoU on test scenes, points (teacher: {teacher:.0f})")
    right.set_title("c   Calibration error", loc="left")
    right.set_xlabel("15 bins, points")
    for axes in (left, right):
        axes.margins(x=0.15)
        axes.tick_params(axis="y", length=0)


def _plot_indicators(axes: Axes, tables: results.Tables) -> None:
    """Draw Δ, γ and μ of smoothed boundaries over ε, and the teacher's at the side."""
    levels, grid = described(tables)

    def over_levels(name: str, region: str, kernel: int = 3) -> np.ndarray:
        place = (slice(None, -1), slice(None), KERNELS.index(kernel), REGIONS.index(region))
        return grid[name][place].mean(axis=(1, 2))

    lines = [
        ("μ, all pixels, k = 3 × 3", over_levels("mean_label_margin", "all"), "C0", "-"),
        ("μ, all pixels, k = 5 × 5", over_levels("mean_label_margin", "all", 5), "C0", "--"),
        ("μ, boundaries", over_levels("mean_label_margin", "boundary"), "C0", ":"),
        ("γ, top 2: ties, 1/(C − 1)", over_levels("ambiguity_2", "all"), "C1", "-"),
        ("Δ and γ, top 1", over_levels("unreliability_1", "all"), "black", "-"),
    ]
    for label, values, colour, style in lines:
        axes.plot(levels, values, style, color=colour, lw=1.1, marker="o", ms=2, label=label)
    axes.set(xlabel="smoothing ε", ylim=(-0.04, 1.04))
    axes.legend(fontsize=5.5, loc=(0.02, 0.2), handlelength=3)
    axes.set_title("d   Smoothing moves μ, not Δ or γ", loc="left")


def _plot_levels(axes: Axes, tables: results.Tables) -> None:
    """Draw mean IoU against calibration error along the levels of ε and of the loss's weight."""
    found = scores(tables)
    config = sweep.metadata(tables["results"])["config"]
    smoothing = {0.0: "JML", 0.1: "JML, BLS"} | {e: f"ε = {e:g}" for e in config["epsilons"]}
    weighing = {0.0: "CE", 0.75: "JML"} | {w: f"w = {w:g}" for w in config["jdt_weights"]}
    for name, path, colour, shift in (
        ("ε", smoothing, "C1", (4, -6)),
        ("w", weighing, "C0", (-5, 4)),
    ):
        steps = sorted(path)
        x, y = (
            np.array([found[path[step]][measure].mean() for step in steps])
            for measure in ("ece", "miou_D")
        )
        axes.plot(x, y, "o-", color=colour, lw=0.9, ms=3)
        for step, at in zip(steps, zip(x, y, strict=True), strict=True):
            axes.annotate(
                f"{name} = {step:g}",
                at,
                xytext=shift,
                textcoords="offset points",
                fontsize=5.5,
                color=colour,
            )
    axes.margins(0.18)
    axes.set(xlabel="calibration error, points", ylabel="mean IoU, points")
    axes.set_title("e   Weight w of JML, smoothing ε", loc="left")


def _plot_classes(axes: Axes, tables: results.Tables) -> None:
    """Draw the IoU of every class against the margin κ_y of the teacher's labels."""
    margins = _class_margins(described(tables)[1]).mean(axis=0)
    found = {name: _by_class(x).mean(axis=0) for name, x in scores(tables).items()}
    for name, colour, marker in (("JML, KD", "C1", "o"), ("JML", "0.4", "x")):
        axes.plot(margins, found[name], marker, ms=3.5, color=colour, label=name)
    for c in range(NUM_CLASSES):
        axes.annotate(
            "background" if c == 0 else str(c - 1),
            (margins[c], max(found["JML"][c], found["JML, KD"][c])),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right" if c == 0 else "center",
            fontsize=5.5,
        )
    axes.legend(fontsize=6, loc="upper left")
    axes.margins(0.12)
    axes.set(xlabel="κ of the teacher's labels of a class", ylabel="IoU of the class, points")
    axes.set_title("f   Teacher and students by class", loc="left")


def report(summary: dict[str, Any]) -> str:
    """Return the summary as a person reads it."""
    lines = [f"{'':<24}{'mean IoU':<22}{'pixel accuracy':<22}calibration error"]
    for name, row in summary["arms"].items():
        lines.append(f"{name:<24}{row['miou']:<22}{row['pixel_accuracy']:<22}{row['ece']}")
    return "\n".join(
        [
            "",
            results.timing_line(summary),
            "",
            *lines,
            "",
            f"teacher: mean IoU {summary['teacher_miou']}",
            "metric over product form, mean IoU: with a teacher "
            f"{summary['metric_over_product_with_teacher']}, smoothed "
            f"{summary['metric_over_product_smoothed']}",
            f"present over all classes, smoothed: {summary['price_of_all_classes']}",
            "",
            results.claim_lines(summary),
            "",
        ]
    )


if __name__ == "__main__":
    results.main(sys.modules[__name__])
