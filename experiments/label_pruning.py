"""Few labels for few images: how far the labels of a distilled data set can be compressed.

A distilled set holds a few images of each class and, for every epoch of a student's training, what
a teacher says of every augmented image. Label pruning (LPLD, arXiv 2410.15919) keeps a random part
of these batches of labels and draws from it again and again. Images that were made class by class,
matched to the statistics of their class in the teacher, are said to bear that better than images
made across classes (as in SRe2L). The follow-up (arXiv 2604.18135) keeps the k largest logits.

    python -m experiments.label_pruning --preset digits

writes results/label_pruning/digits/{results,synthesis,stored,images}.parquet, figure.png,
figure.svg and summary.json in a minute and a half on two cores: three teachers, two sets of
100 images of each and one of real images, labels for 120 epochs, and 84 students of them. All
labels go through files on disk (`jsoft.label_store`). To expect (a prototype of ours, students with
batch normalisation, 1×, 20×, 40×, 100×): across classes 0.883, 0.873, 0.841, 0.757; class by class
0.936, 0.935, 0.927, 0.909; real images 0.933, 0.933, 0.923, 0.908; feature discrepancy 0.231, 0.169
and 0.046. The paper reports, on ImageNet-1K at 50 images per class, 46.8 % from the labels of
SRe2L's images and 46.7 % from its own at 40×.

The teacher normalises batches, with frozen statistics once it is trained; students normalise groups
of channels. All rows that are not trained on are test rows, and nothing is chosen by them.
`--preset cifar10` is the set-up at larger scale (CIFAR-10 (JPEG), 50 images per class, labels for
300 epochs), for an accelerator; it has not been run yet.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import flax.linen as nn
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
from jsoft import (
    augment,
    indicators,
    label_pruning,
    label_store,
    losses,
    networks,
    sweep,
    synthesis,
    training,
)
from jsoft.datasets import Dataset, Split

cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels

SETS = ("across", "class", "real")
Rule = Literal["renorm", "smooth", "min_fill"]
RULES: tuple[Rule, ...] = ("renorm", "smooth", "min_fill")
LARGEST_K = 3  # of the indicators
REFERENCES = 1000  # real images that features are compared with


class Kind(NamedTuple):
    """Which labels: of which images, how many logits of a row, what restores them, temperature."""

    images: str
    k: int | None
    rule: Rule
    temperature: float

    def __str__(self) -> str:
        if self.k is None:
            return f"all logits, T = {self.temperature:g}"
        return f"top {self.k}, {self.rule.replace('_', '-')}"


@dataclasses.dataclass(frozen=True)
class Config:
    """Make images, label them, prune and quantise the labels, train students."""

    preset: Literal["tiny", "digits", "cifar10"] = "digits"
    """Where the other options take their defaults from."""
    dataset: str = "digits"
    """Images and true labels: digits (built in), a TFDS name, or the path of a .npz file."""
    data: Path | None = None
    """Where the data set lies: a folder of prepared TFDS sets, or a .npz file."""
    seeds: int = 3
    """Splits, teachers and their images, seeds 0, 1, 2, …"""
    widths: tuple[int, ...] = (32, 64)
    """Channels of the teacher's blocks."""
    residual: bool = False
    """Whether each of these blocks is followed by a residual one."""
    student_widths: tuple[int, ...] = (16, 32)
    """Channels of the students' blocks."""
    teacher_steps: int = 800
    """Steps of the teacher, of 64 images."""
    exact_statistics: bool = True
    """Statistics of all images of a class at once; or moving averages over batches of 64, as in the
    released code."""
    images_per_class: int = 10
    """Images that are made of each class."""
    synthesis_steps: int = 600
    """Steps of making images."""
    matching: float = 0.05
    """Weight of the statistics beside the cross-entropy."""
    jitter: int = 1
    """Pixels by which images are shifted at most, of teacher, synthesis and students."""
    epochs: int = 120
    """Epochs of labels, and of a student."""
    batch_size: int = 20
    """Images of a stored batch, a divisor of the images of a set."""
    temperatures: tuple[float, ...] = (4.0, 1.0, 20.0)
    """Temperatures of labels and students; that of all comparisons is the first."""
    kept: tuple[int, ...] = (3, 1)
    """Logits kept of a row, where not all are."""
    compressions: tuple[float, ...] = (1.0, 20.0, 40.0, 100.0)
    """Batches of labels for each that is kept, ascending from 1."""
    compared: float = 40.0
    """The one at which quantised labels are looked at, beside 1."""
    out: Path | None = None
    """Folder of the results; results/label_pruning/PRESET by default."""
    plot_only: bool = False
    """Redraw figure and summary from the tables that are there, without training."""
    quiet: bool = False
    """No progress bar."""


PRESETS = {
    "tiny": Config(
        preset="tiny",
        seeds=2,
        widths=(16, 16),
        student_widths=(8,),
        teacher_steps=150,
        images_per_class=2,
        synthesis_steps=20,
        epochs=8,
        batch_size=10,
        temperatures=(4.0, 1.0),
        compressions=(1.0, 4.0),
        compared=4.0,
    ),
    "digits": Config(),
    "cifar10": Config(
        preset="cifar10",
        dataset="cifar10",
        seeds=1,
        widths=(64, 128, 256),
        residual=True,
        student_widths=(64, 128, 256),
        teacher_steps=20_000,
        exact_statistics=False,
        images_per_class=50,
        synthesis_steps=1000,
        jitter=4,
        epochs=300,
        batch_size=50,
        temperatures=(4.0,),
    ),
}


def kinds_of(config: Config) -> list[Kind]:
    """Return the labels that students are trained on; of the three sets first."""
    first, *others = config.temperatures
    return [
        *(Kind(images, None, "renorm", first) for images in SETS),
        *(Kind("class", None, "renorm", temperature) for temperature in others),
        *(Kind("class", k, rule, first) for k in config.kept for rule in RULES),
    ]


def run(config: Config, folder: Path) -> results.Tables:
    """Make images and labels, train all students; return the tables, also written to the folder."""
    _check(config)
    sets = [
        train_and_test(one)
        for one in data.load_splits(config.dataset, config.data, splits=config.seeds)
    ]
    _check_rows(config, sets)
    noted = {
        **results.options(config),
        "dataset": sets[0].name,
        "dataset_fingerprint": data.fingerprint(sets),
        "num_classes": sets[0].num_classes,
        "train_rows": len(sets[0].train.labels),
        "test_rows": len(sets[0].test.labels),
    }
    started = time.perf_counter()
    seeds = jnp.arange(config.seeds)
    made = jax.jit(lambda: lax.map(functools.partial(make, config, sets), seeds))()
    columns, images = _described(config, jax.tree.map(np.asarray, made))
    tables = {"synthesis": results.save(columns, folder / "synthesis.parquet", noted,
                                        started=started)}  # fmt: skip
    tables["images"] = results.save(
        images, folder / "images.parquet", noted, started=time.perf_counter()
    )
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        labels, columns = through_stores(config, made["logits"], Path(temporary))
    tables["stored"] = results.save(columns, folder / "stored.parquet", noted, started=started)
    tables["results"] = sweep.run(
        functools.partial(train, config, sets, made["images"], made["records"], labels),
        points_of(config),
        path=folder / "results.parquet",
        progress=not config.quiet,
        watch="test_accuracy",
        config=noted,
    )
    return tables


def points_of(config: Config) -> dict[str, np.ndarray]:
    """Return all students: every compression of the three sets' labels, two of the others."""
    rows = [
        (kind, compression, seed)
        for kind in range(len(kinds_of(config)))
        for compression in config.compressions
        if kind < len(SETS) or compression in (1, config.compared)
        for seed in range(config.seeds)
    ]
    kinds, compressions, seeds = zip(*rows, strict=True)
    return {"kind": np.array(kinds), "compression": np.array(compressions), "seed": np.array(seeds)}


def train_and_test(one: Dataset) -> Dataset:
    """Return the set with all rows for tests that are not for training: nothing is chosen."""
    both = jax.tree.map(lambda *arrays: np.concatenate(arrays), one.valid, one.test)
    return dataclasses.replace(one, test=both)


def pixels(images: Any) -> jax.Array:
    """Return images as floats in [0, 1]."""
    images = jnp.asarray(images)
    return images if jnp.issubdtype(images.dtype, jnp.floating) else images / jnp.float32(255)


class Scale(NamedTuple):
    """Mean and standard deviation of each channel, `[1, 1, 1, channels]`."""

    mean: jax.Array
    deviation: jax.Array

    def standardised(self, images: jax.Array) -> jax.Array:
        """Return images of [0, 1] with mean 0 and deviation 1."""
        return (images - self.mean) / self.deviation


def scale_of(rows: Split) -> Scale:
    """Return the scale of the (first thousand) training rows."""
    images = pixels(rows.images[:REFERENCES])
    axes = (0, 1, 2)
    return Scale(images.mean(axis=axes, keepdims=True), images.std(axis=axes, keepdims=True))


class Teacher(nn.Module):
    """Blocks of convolution, batch normalisation, ReLU and pooling; a linear layer.

    `inputs` of all normalisations and the last `features` are sown as intermediates.
    """

    widths: tuple[int, ...]
    num_classes: int
    residual: bool

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Return the logits, of running averages or, in training, of the batch's statistics."""

        def block(x: jax.Array, width: int) -> jax.Array:
            x = networks.Conv3x3(width)(x)
            self.sow("intermediates", "inputs", x)
            return nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))

        x = images
        for width in self.widths:
            x = nn.avg_pool(block(x, width), (2, 2), strides=(2, 2))
            x = x + block(x, width) if self.residual else x
        x = x.mean(axis=(1, 2)) if self.residual else x.reshape(len(x), -1)
        self.sow("intermediates", "features", x)
        return nn.Dense(self.num_classes)(x)


def seen(teacher: Teacher, variables: Any, images: jax.Array) -> tuple[jax.Array, Any, jax.Array]:
    """Return logits, inputs of all normalisations and last features, statistics being frozen."""
    logits, found = cast(Any, teacher.apply(variables, images, mutable=["intermediates"]))
    return logits, found["intermediates"]["inputs"], found["intermediates"]["features"][0]


def shifted(config: Config, images: jax.Array, key: jax.Array) -> jax.Array:
    """Return the images, each shifted by a few pixels, black coming in."""
    offsets = jax.random.randint(key, (2, len(images)), -config.jitter, config.jitter + 1)
    return augment.shift(images, *offsets)


def train_teacher(
    config: Config, teacher: Teacher, rows: Split, scale: Scale, key: jax.Array
) -> Any:
    """Return the teacher's variables: parameters, and running averages of its statistics."""
    images, labels = jnp.asarray(rows.images), jnp.asarray(rows.labels)
    init_key, steps_key = jax.random.split(key)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, config.teacher_steps))

    def step(state: Any, key: jax.Array):
        params, averages, optimizer_state = state
        rows_key, shift_key = jax.random.split(key)
        batch = jax.random.randint(rows_key, (64,), 0, len(labels))
        x = scale.standardised(shifted(config, pixels(images[batch]), shift_key))

        def loss(params: Any):
            variables = {"params": params, "batch_stats": averages}
            logits, updated = teacher.apply(variables, x, train=True, mutable=["batch_stats"])
            return cross_entropy(logits, labels[batch]).mean(), updated["batch_stats"]

        slopes, averages = jax.grad(loss, has_aux=True)(params)
        updates, optimizer_state = optimizer.update(slopes, optimizer_state)
        return (optax.apply_updates(params, updates), averages, optimizer_state), None

    start = teacher.init(init_key, pixels(images[:1]))
    state = start["params"], start["batch_stats"], optimizer.init(start["params"])
    keys = jax.random.split(steps_key, config.teacher_steps)
    (params, averages, _), _ = lax.scan(step, state, keys)
    return {"params": params, "batch_stats": averages}


def references_of(
    config: Config, teacher: Teacher, variables: Any, rows: Split, scale: Scale
) -> tuple[Any, Any]:
    """Return the statistics to be met, by layer: of all data `[D]`, and of each class `[C, D]`."""
    named = variables["batch_stats"]
    averages = [named[f"BatchNorm_{layer}"] for layer in range(len(named))]
    of_all = [synthesis.Statistics(one["mean"], one["var"]) for one in averages]
    size = len(rows.labels) if config.exact_statistics else 64
    momentum = 1.0 if config.exact_statistics else 0.1
    count = len(rows.labels) // size
    batches = jax.tree.map(
        lambda array: jnp.asarray(array)[: count * size].reshape(count, size, *array.shape[1:]),
        (rows.images, rows.labels),
    )

    def step(state: Any, batch: tuple[jax.Array, jax.Array]):
        images, labels = batch
        _, inputs, _ = seen(teacher, variables, scale.standardised(pixels(images)))
        pairs = zip(state, inputs, strict=True)
        moved = [synthesis.update_statistics(one, h, labels, momentum=momentum) for one, h in pairs]
        return moved, None

    start = [synthesis.init_statistics(teacher.num_classes, one.mean.shape[0]) for one in of_all]
    of_class, _ = lax.scan(step, start, batches)
    return of_all, of_class


def synthesise(
    config: Config,
    loss: Any,
    shape: tuple[int, ...],
    labels: jax.Array,
    references: Any,
    scale: Scale,
    key: jax.Array,
) -> jax.Array:
    """Return images in [0, 1] of these labels, made from noise as one batch, `[B, ...]`."""
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, config.synthesis_steps), 0.5, 0.9)

    def pictures(z: jax.Array) -> jax.Array:
        return z * scale.deviation + scale.mean

    def step(state: Any, key: jax.Array):
        z, optimizer_state = state

        def of_shifted(z: jax.Array) -> jax.Array:
            x = scale.standardised(shifted(config, pictures(z), key))
            return loss(x, labels, references)

        updates, optimizer_state = optimizer.update(jax.grad(of_shifted)(z), optimizer_state)
        z = synthesis.clip_to_range(z + updates, scale.mean.ravel(), scale.deviation.ravel())
        return (z, optimizer_state), None

    noise_key, steps_key = jax.random.split(key)
    z = jax.random.normal(noise_key, (len(labels), *shape))
    keys = jax.random.split(steps_key, config.synthesis_steps)
    (z, _), _ = lax.scan(step, (z, optimizer.init(z)), keys)
    return pictures(z)


class Records(NamedTuple):
    """What replays the augmentation of every batch, `[E·M, B]` each; boxes `[E·M, 4]`."""

    rows: jax.Array
    offset_y: jax.Array
    offset_x: jax.Array
    partners: jax.Array
    box: jax.Array


def draw_records(config: Config, num_images: int, size: tuple[int, int], key: jax.Array) -> Records:
    """Return the draws of all batches of all epochs; CutMix with λ of Beta(1, 1)."""
    shape, jitter = (config.batch_size,), config.jitter

    def one_batch(rows: jax.Array, key: jax.Array) -> Records:
        keys = jax.random.split(key, 5)
        offsets = jax.random.randint(keys[0], (2, *shape), -jitter, jitter + 1)
        center = [jax.random.randint(keys[axis + 1], (), 0, size[axis]) for axis in (0, 1)]
        box = augment.cutmix_box(jax.random.uniform(keys[3]), (center[0], center[1]), size)
        partners = jax.random.permutation(keys[4], config.batch_size)
        return Records(rows, offsets[0], offsets[1], partners, box)

    def one_epoch(key: jax.Array) -> Records:
        order_key, key = jax.random.split(key)
        order = jax.random.permutation(order_key, num_images).reshape(-1, config.batch_size)
        return jax.vmap(one_batch)(order, jax.random.split(key, len(order)))

    drawn = jax.vmap(one_epoch)(jax.random.split(key, config.epochs))
    return jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:]), drawn)


def replay(images: jax.Array, record: Records) -> jax.Array:
    """Return the augmented images of one batch."""
    x = augment.shift(images[record.rows], record.offset_y, record.offset_x)
    return augment.cutmix(x, record.partners, record.box)


def real_images(config: Config, rows: Split, num_classes: int, key: jax.Array) -> jax.Array:
    """Return random real images, class by class."""
    order = jax.random.permutation(key, len(rows.labels))
    labels = jnp.asarray(rows.labels)[order]
    order = order[jnp.argsort(labels)]
    first = jnp.searchsorted(jnp.sort(labels), jnp.arange(num_classes))
    chosen = order[first[:, None] + jnp.arange(config.images_per_class)[None]]
    return pixels(jnp.asarray(rows.images)[chosen.ravel()])


def make(config: Config, sets: list[Dataset], seed: jax.Array) -> dict[str, Any]:
    """Return the images `[3, N, ...]` of a seed, in the order of `SETS`, and all that labels need.

    Images stand class by class. Logits `[3, E·M, B, C]`, records of the augmentations, measures.
    """
    split, num_classes = data.pick(sets, seed), sets[0].num_classes
    rows, count = split.train, config.images_per_class
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), 5)
    scale, shape = scale_of(rows), rows.images.shape[1:]
    teacher = Teacher(config.widths, num_classes, config.residual)
    variables = train_teacher(config, teacher, rows, scale, keys[0])
    of_all, of_class = references_of(config, teacher, variables, rows, scale)

    def loss(x: jax.Array, labels: jax.Array, references: Any) -> jax.Array:
        logits, inputs, _ = seen(teacher, variables, x)
        matched = synthesis.statistics_loss(inputs, references)
        return cross_entropy(logits, labels).mean() + config.matching * matched

    classes = jnp.arange(num_classes)
    across = jax.vmap(lambda key: synthesise(config, loss, shape, classes, of_all, scale, key))(
        jax.random.split(keys[1], count)
    )
    by_class = jax.vmap(
        lambda label, references, key: synthesise(
            config, loss, shape, jnp.full(count, label), references, scale, key
        )
    )(classes, of_class, jax.random.split(keys[2], num_classes))
    images = jnp.stack([
        across.swapaxes(0, 1).reshape(-1, *shape),
        by_class.reshape(-1, *shape),
        real_images(config, rows, num_classes, keys[3]),
    ])  # fmt: skip
    records = draw_records(config, images.shape[1], shape[:2], keys[4])

    def relabelled(images: jax.Array) -> jax.Array:
        def one(record: Records) -> jax.Array:
            return seen(teacher, variables, scale.standardised(replay(images, record)))[0]

        return lax.map(one, records)

    real, real_labels = rows.images[:REFERENCES], jnp.asarray(rows.labels)[:REFERENCES]
    real = seen(teacher, variables, scale.standardised(pixels(real)))[2]
    labels = jnp.repeat(classes, count)
    some = real[:300]
    distances = jnp.linalg.norm(some[:, None] - some[None], axis=-1)

    def likeness(images: jax.Array) -> dict[str, jax.Array]:
        features = seen(teacher, variables, scale.standardised(images))[2]
        return {
            "mmd": synthesis.class_mmd(
                features, labels, real, real_labels, num_classes=num_classes,
                bandwidth=jnp.median(distances),
            ),
            "cosine": synthesis.within_class_cosine(features, labels, num_classes=num_classes),
        }  # fmt: skip

    unseen = scale.standardised(pixels(split.test.images))
    right = training.predict(teacher, variables, unseen).argmax(axis=1) == split.test.labels
    return {
        "images": images,
        "records": records,
        "logits": lax.map(relabelled, images),
        "teacher_accuracy": right.mean(),
        **lax.map(likeness, images),
    }


def _described(config: Config, made: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return columns of what the images are like, by seed, set, class; and one of each class."""
    seeds, sets, classes = (a.ravel() for a in np.indices(made["mmd"].shape))
    names = np.array(SETS)
    columns = {
        "seed": seeds,
        "images": names[sets],
        "class": classes,
        "mmd": made["mmd"].ravel(),
        "cosine": made["cosine"].ravel(),
        "teacher_accuracy": made["teacher_accuracy"][seeds],
    }
    shown = made["images"][0][:, :: config.images_per_class]
    sets, classes, y, x, channels = (array.ravel() for array in np.indices(shown.shape))
    shown = {
        "images": names[sets], "class": classes, "y": y, "x": x, "channel": channels,
        "value": shown.ravel(),
    }  # fmt: skip
    return columns, shown


def pool_of(config: Config, compression: float, batches: int) -> np.ndarray:
    """Return the batches that are kept, of all E·M."""
    return label_pruning.label_pool(
        num_epochs=config.epochs,
        batches_per_epoch=batches // config.epochs,
        prune_ratio=1 - 1 / compression,
    )


def through_stores(config: Config, logits: Any, folder: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the labels of every kind as a store on disk gives them back, and what it takes.

    Labels `[kinds, seeds, E·M, B, C]`. Marginal smoothing keeps probabilities, which the store does
    not, and is applied to the logits themselves.
    """
    kinds, logits = kinds_of(config), np.asarray(logits)
    num_seeds, _, batches, size, num_classes = logits.shape
    labels = np.empty((len(kinds), num_seeds, batches, size, num_classes), np.float32)
    noted = []
    for seed, (number, kind) in itertools.product(range(num_seeds), enumerate(kinds)):
        ours = logits[seed, SETS.index(kind.images)]
        if kind.rule == "smooth":
            assert kind.k is not None
            soft_labels = jax.nn.softmax(jnp.asarray(ours) / kind.temperature)
            kept = label_pruning.top_k_logits(soft_labels, k=kind.k)
            restored = label_pruning.restore_marginal_smooth(*kept, num_classes=num_classes)
            labels[number, seed] = restored
            continue
        for compression in sorted({1.0, config.compared}, reverse=True):
            rows = ours[pool_of(config, compression, batches)].reshape(-1, num_classes)
            path = folder / f"{seed}-{number}-{compression:g}"
            store = label_store.write(path, [rows], k=kind.k, rule=kind.rule)
            noted.append({
                "kind": number,
                "compression": compression,
                "seed": seed,
                "bytes": store.nbytes,
                "bytes_on_disk": sum(file.stat().st_size for file in path.iterdir()),
                "bytes_computed": label_pruning.label_storage_bytes(
                    num_images=size * batches // config.epochs, num_epochs=config.epochs,
                    num_classes=num_classes, prune_ratio=1 - 1 / compression, k=kind.k,
                    # draws of augmentations lie elsewhere; the least logit of a row lies here
                    index_bytes=1, augmentation_bytes=2 * (kind.rule == "min_fill"),
                ),
            })  # fmt: skip
        kept = store.read(np.arange(len(store)))  # all rows: 1 comes last
        restored = store.restore(kept, temperature=kind.temperature)
        labels[number, seed] = np.asarray(restored).reshape(batches, size, num_classes)
    return labels, {name: [row[name] for row in noted] for name in noted[0]}


def train(
    config: Config,
    sets: list[Dataset],
    images: Any,
    records: Records,
    labels: Any,
    point: sweep.Point,
    key: jax.Array,
) -> dict[str, jax.Array]:
    """Return the accuracy of one student, and the indicators of the labels that it may draw."""
    seed, kinds, num_classes = point["seed"], kinds_of(config), sets[0].num_classes
    split, scale = data.pick(sets, seed), scale_of(data.pick(sets, seed).train)
    temperature = jnp.array([kind.temperature for kind in kinds])[point["kind"]]
    our_images = jnp.asarray(images)[
        seed, jnp.array([SETS.index(kind.images) for kind in kinds])[point["kind"]]
    ]
    record = jax.tree.map(lambda array: jnp.asarray(array)[seed], records)
    our_labels = jnp.asarray(labels)[point["kind"], seed]  # [E·M, B, C]
    batches, size = our_labels.shape[:2]
    per_epoch = batches // config.epochs
    init_key, pool_key = jax.random.split(key)

    pools = [pool_of(config, compression, batches) for compression in config.compressions]
    epoch_keys = jax.random.split(pool_key, config.epochs)
    drawn = [
        jax.vmap(
            lambda key, pool=pool: label_pruning.sample_pool(
                pool, key, batches_per_epoch=per_epoch, skip_ragged=False  # all are full
            )
        )(epoch_keys)
        for pool in pools
    ]  # fmt: skip
    drawn[0] = jnp.arange(batches).reshape(config.epochs, per_epoch)  # nothing pruned: in order
    chosen = jnp.argmin(jnp.abs(jnp.array(config.compressions) - point["compression"]))
    schedule = jnp.stack(drawn)[chosen].ravel()

    network: training.Network = networks.ConvNet(config.student_widths, num_classes)
    rate = optax.cosine_decay_schedule(2e-3, batches)
    optimizer = optax.adamw(rate, weight_decay=0.01)

    def step(state: Any, batch: jax.Array):
        params, optimizer_state = state
        x = replay(our_images, jax.tree.map(lambda array: array[batch], record))
        x = scale.standardised(x)

        def loss(params: Any) -> jax.Array:
            logits = network.apply(params, x) / temperature
            return losses.kl_divergence(logits, our_labels[batch]).mean()

        updates, optimizer_state = optimizer.update(jax.grad(loss)(params), optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), None

    params = network.init(init_key, our_images[:1])
    (params, _), _ = lax.scan(step, (params, optimizer.init(params)), schedule)
    unseen = scale.standardised(pixels(split.test.images))
    right = training.predict(network, params, unseen).argmax(axis=1) == split.test.labels

    kept = jnp.array([len(pool) for pool in pools])[chosen]
    found = indicators.measure(
        our_labels.reshape(-1, num_classes),
        record.rows.ravel() // config.images_per_class,
        max_k=LARGEST_K,
        where=jnp.repeat(jnp.arange(batches) < kept, size),
    )
    return {
        "test_accuracy": right.mean(),
        "mean_label_margin": found.mean_label_margin,
        **{
            f"{name}_{k + 1}": getattr(found, name)[k]
            for name in ("unreliability", "ambiguity", "margin", "divergence")
            for k in range(LARGEST_K)
        },
    }


def _check(config: Config) -> None:
    """Raise unless the options can be run, before anything is read or trained."""
    for name in ("seeds", "epochs", "teacher_steps", "synthesis_steps", "images_per_class"):
        if (value := getattr(config, name)) < 1:
            raise ValueError(f"{name}: expected 1 or more, got {value}")
    ratios = config.compressions
    if len(ratios) < 2 or ratios[0] != 1 or (np.diff(ratios) <= 0).any():
        raise ValueError(f"compressions: expected two or more, ascending from 1, got {ratios}")
    if config.compared not in ratios[1:]:
        raise ValueError(f"compared: expected one of {ratios[1:]}, got {config.compared}")
    if not config.temperatures or min(config.temperatures) <= 0:
        raise ValueError(f"temperatures: expected some above 0, got {config.temperatures}")


def _check_rows(config: Config, sets: list[Dataset]) -> None:
    """Raise unless there are enough images of each class, in batches without remainder."""
    counts = [np.bincount(one.train.labels, minlength=one.num_classes).min() for one in sets]
    if config.images_per_class > (least := min(counts)):
        raise ValueError(
            f"images_per_class: expected {least} at most, the training rows of the rarest class, "
            f"got {config.images_per_class}"
        )
    images = config.images_per_class * sets[0].num_classes
    if config.batch_size < 1 or images % config.batch_size:
        raise ValueError(
            f"batch_size: expected a divisor of {images}, the images of a set, "
            f"got {config.batch_size}"
        )
    for compression in config.compressions:
        pool_of(config, compression, config.epochs * images // config.batch_size)


Columns = dict[str, np.ndarray]


def columns_of(table: pa.Table) -> Columns:
    """Return the columns of a table."""
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


def by_student(table: pa.Table) -> dict[tuple[int, float], Columns]:
    """Return the columns of every kind of labels and compression, `[seeds]`."""
    columns = columns_of(table)
    pairs = dict.fromkeys(zip(columns["kind"], columns["compression"], strict=True))
    return {
        (int(kind), float(compression)): {
            name: values[(columns["kind"] == kind) & (columns["compression"] == compression)]
            for name, values in columns.items()
        }
        for kind, compression in pairs
    }


def _config_of(table: pa.Table) -> Config:
    """Return the options that the tables were made with."""
    found = sweep.metadata(table)["config"]
    fields = {one.name for one in dataclasses.fields(Config)}
    options: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in found.items()
        if name in fields
    }
    return Config(**options)


def _of_set(table: pa.Table, images: str, name: str) -> np.ndarray:
    """Return the mean over classes of a measure of one set of images, `[seeds]`."""
    columns = columns_of(table)
    chosen = columns["images"] == images
    seeds, values = (columns[column][chosen] for column in ("seed", name))
    return np.array([values[seeds == seed].mean() for seed in np.unique(seeds)])


def summarise(tables: results.Tables) -> dict[str, Any]:
    """Return what the students show, in plain keys, from the tables alone."""
    config, students = _config_of(tables["results"]), by_student(tables["results"])
    kinds, stored = kinds_of(config), columns_of(tables["stored"])
    described = {
        images: {
            name: _spread(_of_set(tables["synthesis"], images, name)) for name in ("mmd", "cosine")
        }
        for images in SETS
    }
    noted = sweep.metadata(tables["results"])["config"]
    return {
        "claims": [
            *_claims_of_images(config, students, tables["synthesis"]),
            _claim_of_bytes(config, stored),
            _claim_of_indicators(config, students),
        ],
        "teacher_accuracy": _spread(_of_set(tables["synthesis"], "real", "teacher_accuracy")),
        "images": described,
        "students": [
            {
                "images": kinds[kind].images,
                "labels": str(kinds[kind]),
                "compression": compression,
                "bytes_on_disk": _bytes(stored, kind, compression),
                **{
                    name: _spread(values)
                    for name, values in found.items()
                    if name not in ("kind", "compression", "seed")
                },
            }
            for (kind, compression), found in students.items()
        ],
        "spearman": _correlations(config, students),
        "seeds": config.seeds,
        **{name: noted[name] for name in ("dataset", "train_rows", "test_rows")},
    }


def _bytes(stored: Any, kind: int, compression: float) -> int | None:
    here = (stored["kind"] == kind) & (stored["compression"] == compression)
    return int(stored["bytes_on_disk"][here].mean()) if here.any() else None


def _spread(values: np.ndarray) -> list[float | None]:
    """Return mean and standard deviation over seeds, which a single seed does not have."""
    spread = values.std(ddof=1) if len(values) > 1 else np.nan
    return [results.rounded(values.mean()), results.rounded(spread)]


PAPER = "paper, tolerance of a prototype of ours"
SMALL = (
    "few seeds, whose spread is as large as the difference; students normalise groups of channels, "
    "those of the prototype normalised batches"
)


def _claims_of_images(
    config: Config, students: dict[tuple[int, float], Columns], made: pa.Table
) -> list[dict[str, str]]:
    """Return what is claimed of images made across classes and class by class."""
    accuracy = {
        images: np.stack(
            [students[number, ratio]["test_accuracy"] for ratio in config.compressions]
        )
        for number, images in enumerate(SETS)
    }
    ahead = accuracy["class"] - accuracy["across"]
    at = config.compressions.index(config.compared)
    drop = {images: found[0] - found[at] for images, found in accuracy.items()}
    mmd = {images: _of_set(made, images, "mmd") for images in SETS}
    spread = results.mean_and_spread
    rows = [
        (
            "P1",
            "images made class by class give better students at every compression",
            PAPER,
            "means over seeds higher",
            ", ".join(
                f"{ratio:g}×: {spread(gap)}, ahead in {(gap > 0).sum()}"
                for ratio, gap in zip(config.compressions, ahead, strict=True)
            ),
            (ahead.mean(axis=1) > 0).all(),
        ),
        (
            "P2",
            f"{config.compared:g}× fewer labels cost class-wise images little",
            PAPER,
            "accuracy falls by < 0.02, and by less than across classes",
            f"by {spread(drop['class'])}; across classes by {spread(drop['across'])}",
            drop["class"].mean() < min(0.02, drop["across"].mean()),
        ),
        (
            "P3",
            "features of class-wise images are nearer to those of real ones",
            "paper (measure reconstructed)",
            "discrepancy, mean of classes, lower in every seed",
            f"{spread(mmd['class'])}, across classes {spread(mmd['across'])}, real images "
            f"{spread(mmd['real'])}",
            (mmd["class"] < mmd["across"]).all(),
        ),
    ]
    return [
        results.claim(
            identifier, statement, source=source, expected=expected, ours=ours, met=bool(met),
            smaller_scale=True, reason="" if met else SMALL,
        )
        for identifier, statement, source, expected, ours, met in rows
    ]  # fmt: skip


def _claim_of_bytes(config: Config, stored: Any) -> dict[str, str]:
    """Return what is claimed of the labels on disk."""
    over = (stored["bytes_on_disk"] - stored["bytes"]).max()
    exact = (stored["bytes"] == stored["bytes_computed"]).all()
    whole = _bytes(stored, SETS.index("class"), 1.0)
    parts = [
        f"{str(kind).removesuffix(f', T = {kind.temperature:g}')} "
        f"{_bytes(stored, number, 1.0):,} and {_bytes(stored, number, config.compared):,}"
        for number, kind in enumerate(kinds_of(config))
        if kind.images == "class" and kind.temperature == config.temperatures[0]
        and kind.rule != "smooth"
    ]  # fmt: skip
    assert whole is not None
    return results.claim(
        "P4",
        "labels take the bytes that were computed, on disk too",
        source="derived here",
        expected="arrays to the byte; files 1,000 bytes more at most, whatever the rows",
        ours=f"bytes on disk at 1× and {config.compared:g}×: {'; '.join(parts)}; {over} more than "
        "the arrays at most",
        met=bool(exact and over <= 1000),
    )


def _claim_of_indicators(
    config: Config, students: dict[tuple[int, float], Columns]
) -> dict[str, str]:
    """Return what quantisation cannot do to the first place of a label, and what it does to μ."""
    whole = SETS.index("class")
    others = range(len(SETS), len(kinds_of(config)))
    moved = max(
        np.abs(students[kind, ratio][f"{name}_1"] - students[whole, ratio][f"{name}_1"]).max()
        for kind in others
        for ratio in (1.0, config.compared)
        for name in ("unreliability", "ambiguity")
    )
    mu = {kind: students[kind, 1.0]["mean_label_margin"] for kind in (whole, *others)}
    lowest, highest = (f(found.mean() for found in mu.values()) for f in (min, max))
    return results.claim(
        "P5",
        "no restore and no temperature moves Δ or γ at k = 1, one-hot labels included; μ moves",
        source="derived here",
        expected="no change above 1e-6 at either compression",
        ours=f"{moved:.1g} at most, while μ ranges from {lowest:.3f} to {highest:.3f} "
        f"({results.mean_and_spread(mu[whole])} of all logits)",
        met=bool(moved <= 1e-6),
    )


PREDICTORS = ("margin_1", "margin_2", "margin_3", "mean_label_margin")


def _correlations(
    config: Config, students: dict[tuple[int, float], Columns]
) -> dict[str, dict[str, list[float | None]]]:
    """Return Spearman's ρ of indicators and accuracy within a seed, mean and spread of seeds.

    Over all labels of class-wise images, over the quantised ones at each of two compressions, over
    the compressions of all logits, and over the three sets at all compressions.
    """
    kinds, first = kinds_of(config), config.temperatures[0]
    ours = [key for key in students if kinds[key[0]].images == "class"]
    same = [key for key in ours if kinds[key[0]].temperature == first]
    groups = {
        "all of class-wise images": ours,
        "quantised, 1×": [key for key in same if key[1] == 1],
        f"quantised, {config.compared:g}×": [key for key in same if key[1] == config.compared],
        "pruned": [key for key in ours if key[0] == SETS.index("class")],
        "three sets, pruned": [key for key in students if key[0] < len(SETS)],
    }

    def correlation(keys: list[tuple[int, float]], name: str) -> list[float | None]:
        x, y = (np.stack([students[key][of] for key in keys]) for of in (name, "test_accuracy"))
        pairs = [(a, b) for a, b in zip(x.T, y.T, strict=True) if np.ptp(a) * np.ptp(b) > 1e-9]
        return _spread(np.array([spearmanr(a, b)[0] for a, b in pairs])) if pairs else [None, None]

    return {
        group: {name: correlation(keys, name) for name in PREDICTORS}
        for group, keys in groups.items()
    }


GREY, BLUE, ORANGE, PURPLE, GREEN = "0.45", "#0072b2", "#d55e00", "#aa4499", "#009e73"
MARKS = (
    ("margin_1", "κ, k = 1", GREEN, "o"),
    ("margin_2", "κ, k = 2", BLUE, "s"),
    ("margin_3", "κ, k = 3", ORANGE, "^"),
    ("mean_label_margin", "μ", PURPLE, "D"),
)
COLOURS = dict(zip(SETS, (ORANGE, BLUE, GREY), strict=True))
NAMES = {"across": "across classes", "class": "class by class", "real": "real images"}


def plot(tables: results.Tables) -> Figure:
    """Return the figure: images, pruning; quantised labels, their accuracy and indicators."""
    config, students = _config_of(tables["results"]), by_student(tables["results"])
    figure = plt.figure(figsize=(7.2, 5.0), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[1, 1.15])
    images, pruned = halves[0].subplots(1, 2, width_ratios=[1.6, 1])
    _plot_images(images, config, tables["images"])
    _plot_pruned(pruned, config, students, tables["synthesis"])
    accuracy, found = halves[1].subplots(1, 2, sharey=True, width_ratios=[1, 1.2])
    _plot_quantised(accuracy, found, config, students, columns_of(tables["stored"]))
    return figure


def _plot_images(axes: Axes, config: Config, table: pa.Table) -> None:
    """Draw the first image of each class of each set, of seed 0, a line between them."""
    shown = columns_of(table)
    shown["row"] = np.array([SETS.index(images) for images in shown["images"]])
    sizes = [int(shown[name].max()) + 1 for name in ("row", "class", "y", "x", "channel")]
    values = np.empty(sizes)
    values[tuple(shown[name] for name in ("row", "class", "y", "x", "channel"))] = shown["value"]
    values = np.pad(values, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), constant_values=1)
    mosaic = values.transpose(0, 2, 1, 3, 4).reshape(sizes[0] * (sizes[2] + 1), -1, sizes[4])
    axes.imshow(mosaic[:-1, :-1], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    height, width = sizes[2] + 1, sizes[3] + 1
    axes.set_yticks(np.arange(sizes[0]) * height + height / 2 - 1,
                    [NAMES[images].replace(" ", "\n", 1) for images in SETS])  # fmt: skip
    axes.set_xticks(np.arange(sizes[1]) * width + width / 2 - 1, [str(i) for i in range(sizes[1])])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("a   One image of each class", loc="left")


def _plot_pruned(
    axes: Axes, config: Config, students: dict[tuple[int, float], Columns], made: pa.Table
) -> None:
    """Draw accuracy against compression of each set, mean and deviation of seeds."""
    for number, images in enumerate(SETS):
        found = [students[number, ratio]["test_accuracy"] for ratio in config.compressions]
        shift = 1.04 ** (number - 1)
        axes.errorbar(
            np.array(config.compressions) * shift, [x.mean() for x in found],
            [_deviation(x) for x in found], fmt="o-", color=COLOURS[images], ms=3, lw=1.2,
            elinewidth=0.7,
            label=f"{NAMES[images]}, MMD {_of_set(made, images, 'mmd').mean():.2f}",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(config.compressions, [f"{ratio:g}×" for ratio in config.compressions])
    axes.minorticks_off()
    axes.set(xlabel="fewer labels", ylabel="test accuracy")
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.45 * (high - low), high)  # room for the legend
    axes.legend(loc="lower left", borderaxespad=0)
    seeds = "1 seed" if config.seeds == 1 else f"{config.seeds} seeds"
    axes.set_title(f"b   Pruned labels, {seeds}", loc="left")


def _plot_quantised(
    left: Axes,
    right: Axes,
    config: Config,
    students: dict[tuple[int, float], Columns],
    stored: Any,
) -> None:
    """Draw accuracy, bytes and indicators of all labels of class-wise images, at 1× and pruned."""
    kinds = kinds_of(config)
    rows = [number for number, kind in enumerate(kinds) if kind.images == "class"]
    ends = 1.0, config.compared
    for place, kind in enumerate(rows):
        for shift, ratio in zip((-0.17, 0.17), ends, strict=True):
            found = students[kind, ratio]
            for axes, name, colour, mark in (
                (left, "test_accuracy", BLUE, "o"),
                *((right, name, colour, mark) for name, _, colour, mark in MARKS),
            ):
                axes.errorbar(
                    found[name].mean(), place + shift, xerr=_deviation(found[name]), fmt=mark,
                    color=colour, mfc=colour if ratio == 1 else "white", ms=3.2, elinewidth=0.6,
                    mew=0.8,
                )  # fmt: skip
        sizes = [_bytes(stored, kind, ratio) for ratio in ends]
        if None not in sizes:
            left.annotate(
                " / ".join(f"{size / 1000:.3g}" for size in sizes if size), (1.01, place),
                xycoords=("axes fraction", "data"), va="center", fontsize=6, color=GREY,
            )  # fmt: skip
    for axes in (left, right):
        axes.grid(axis="y", color="0.94", lw=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
    for _, text, colour, mark in MARKS:
        right.plot([], [], mark, color=colour, ms=3.2, label=text)
    right.legend(loc="lower center", bbox_to_anchor=(0.5, -0.38), ncols=4, handletextpad=0.1,
                 columnspacing=1.2)  # fmt: skip
    right.axvline(0, color="0.7", lw=0.6, zorder=0)
    left.set_yticks(range(len(rows)), [str(kinds[number]) for number in rows])
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.set_xlabel(f"test accuracy (filled: 1×, open: {config.compared:g}×)")
    right.set_xlabel("indicator of the labels")
    left.set_title("c   Class-wise images; right: kB on disk", loc="left")
    right.set_title("d   What stays of the true class", loc="left")


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def report(summary: dict[str, Any]) -> str:
    """Return the summary as a person reads it."""
    lines = [f"{'images':8}{'labels':24}{'fewer':>6}  accuracy        κ₁      κ₂      κ₃      μ"]
    for row in summary["students"]:
        found = "  ".join(f"{row[name][0]:6.3f}" for name in PREDICTORS)
        mean, spread = row["test_accuracy"]
        shown = f"{mean:.3f}" + (f" ± {spread:.3f}" if spread is not None else " " * 8)
        lines.append(
            f"{row['images']:8}{row['labels']:24}{row['compression']:5g}×  {shown} {found}"
        )
    lines += ["", "Spearman's ρ with accuracy, " + ", ".join(PREDICTORS)]
    for group, row in summary["spearman"].items():
        found = "  ".join("   –" if mean is None else f"{mean:5.2f}" for mean, _ in row.values())
        lines.append(f"{group:28}{found}")
    table = "\n".join(lines)
    cosine = ", ".join(f"{name} {row['cosine'][0]:.3f}" for name, row in summary["images"].items())
    return f"""
{results.timing_line(summary)}

{results.claim_lines(summary)}

Within-class cosine of features (not claimed): {cosine}

{table}
"""


if __name__ == "__main__":
    results.main(sys.modules[__name__])
