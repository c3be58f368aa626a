"""Label pruning from the command line to the figure, on its tiny preset."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from experiments import label_pruning
from jsoft import datasets, label_store, sweep
from tests.experiment_runs import FILES, check_redraws, command

TINY = label_pruning.PRESETS["tiny"]
TABLES = {"synthesis.parquet", "images.parquet", "stored.parquet"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("label_pruning")
    done = command("label_pruning", "--preset", "tiny", "--quiet", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def read(results, name):
    table = pq.read_table(results[0] / "results" / "label_pruning" / "tiny" / f"{name}.parquet")
    return label_pruning.columns_of(table)


def test_tiny_preset_writes_tables_figure_and_summary(results):
    folder, printed = results
    out = folder / "results" / "label_pruning" / "tiny"
    assert set(os.listdir(out)) == FILES | TABLES
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["runs"] == {"results": 10 * 2 * 2}  # labels, compressions, seeds
    assert [claim["id"] for claim in summary["claims"]] == ["P1", "P2", "P3", "P4", "P5"]
    assert [claim["verdict"] for claim in summary["claims"][3:]] == ["met", "met"]
    assert len(summary["students"]) == 20
    assert "top 3, min-fill" in printed
    assert (out / "figure.png").stat().st_size > 20_000


def test_plot_only_redraws_the_same_files_without_training(results):
    check_redraws("label_pruning", *results)


def test_labels_of_one_hot_keep_first_places_and_lose_margins(results):
    rows = read(results, "results")
    kinds = label_pruning.kinds_of(TINY)
    of_four = (label_pruning.Kind("class", k, "renorm", 4.0) for k in (None, 1))
    whole, one_hot = (kinds.index(kind) for kind in of_four)
    of = {kind: {n: x[rows["kind"] == kind] for n, x in rows.items()} for kind in (whole, one_hot)}
    for name in ("unreliability_1", "ambiguity_1"):
        np.testing.assert_array_equal(of[whole][name], of[one_hot][name])
    # of one-hot labels the mean label holds the frequencies of first places
    assert (of[one_hot]["mean_label_margin"] < of[one_hot]["margin_1"] + 1 + 1e-6).all()
    assert np.abs(of[whole]["mean_label_margin"] - of[one_hot]["mean_label_margin"]).min() > 0.01


def test_bytes_on_disk_are_those_of_the_rows(results):
    rows = read(results, "stored")
    kinds = label_pruning.kinds_of(TINY)
    for number, compression, found in zip(
        rows["kind"], rows["compression"], rows["bytes"], strict=True
    ):
        kind, kept = kinds[number], 20 * 8 / compression  # of 20 images, 8 epochs
        a_row = 10 * 2 if kind.k is None else kind.k * 3 + 2 * (kind.rule == "min_fill")
        assert found == kept * a_row
    assert (rows["bytes_on_disk"] > rows["bytes"]).all()


def test_made_images_are_images(results):
    rows = read(results, "images")
    assert len(rows["value"]) == 3 * 10 * 64
    assert rows["value"].min() >= -1e-6
    assert rows["value"].max() <= 1 + 1e-6
    assert min(rows["value"][rows["images"] == name].std() for name in label_pruning.SETS) > 0.1


def test_labels_come_back_from_stores(tmp_path):
    config = dataclasses.replace(TINY, seeds=1)
    logits = 3 * np.random.default_rng(0).normal(size=(1, 3, 16, 10, 10)).astype(np.float32)
    labels, noted = label_pruning.through_stores(config, logits, tmp_path)
    kinds = label_pruning.kinds_of(config)
    assert labels.shape == (len(kinds), 1, 16, 10, 10)
    np.testing.assert_allclose(labels.sum(axis=-1), 1, rtol=1e-5)
    for number, kind in enumerate(kinds):
        ours = logits[0, label_pruning.SETS.index(kind.images)]
        if kind.k is None:
            expected = jax.nn.softmax(ours / kind.temperature)
            np.testing.assert_allclose(labels[number, 0], expected, atol=2e-3)  # of 16 bits
        elif kind.rule == "renorm":
            assert ((labels[number] > 0).sum(axis=-1) == kind.k).all()
        assert (labels[number, 0].argmax(axis=-1) == ours.argmax(axis=-1)).mean() > 0.99
    assert len(noted["bytes"]) == 2 * (len(kinds) - 2)  # marginal smoothing is not stored
    whole, pruned = (label_store.open_store(tmp_path / f"0-1-{ratio}") for ratio in (1, 4))
    np.testing.assert_array_equal(pruned.kept.values, whole.kept.values[: len(pruned)])


def test_every_epoch_visits_every_image_once():
    records = jax.jit(
        lambda key: label_pruning.draw_records(TINY, 20, (8, 8), key)
    )(jax.random.key(0))  # fmt: skip
    rows = np.asarray(records.rows).reshape(8, 20)
    assert (np.sort(rows, axis=1) == np.arange(20)).all()
    assert (np.sort(records.partners, axis=1) == np.arange(10)).all()
    assert len({tuple(epoch) for epoch in rows}) == 8
    assert np.abs(records.offset_y).max() == TINY.jitter


def test_statistics_are_those_of_the_class_and_images_do_not_touch_each_other():
    rows = datasets.load("digits").valid
    teacher = label_pruning.Teacher((8,), 10, residual=True)

    @jax.jit
    def look(key):
        scale = label_pruning.scale_of(rows)
        x = scale.standardised(jnp.asarray(rows.images))
        variables = teacher.init(key, x[:1])
        of_all, of_class = label_pruning.references_of(TINY, teacher, variables, rows, scale)
        few = label_pruning.seen(teacher, variables, x[:3])[0]
        return *label_pruning.seen(teacher, variables, x), few, of_all, of_class

    logits, inputs, features, few, of_all, of_class = look(jax.random.key(0))
    count = len(rows.labels)
    assert [h.shape for h in inputs] == [(count, 8, 8, 8), (count, 4, 4, 8)]
    assert features.shape == (count, 8)
    np.testing.assert_allclose(few, logits[:3], atol=1e-5)
    assert len(of_all) == 2
    threes = np.asarray(inputs[1])[rows.labels == 3].reshape(-1, 8)
    np.testing.assert_allclose(of_class[1].mean[3], threes.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(of_class[1].variance[3], threes.var(axis=0), rtol=1e-4, atol=1e-6)


def test_real_images_stand_class_by_class():
    rows = datasets.load("digits").valid
    shown = label_pruning.real_images(TINY, rows, 10, jax.random.key(0))
    known = {image.tobytes(): label for image, label in zip(rows.images, rows.labels, strict=True)}
    found = [known[np.asarray(image).tobytes()] for image in shown]
    assert found == [label for label in range(10) for _ in range(2)]


@pytest.mark.slow
def test_full_scale_training_traces():
    """Shapes, no numbers: images of CIFAR-10, fewer epochs of labels and none of the rest."""
    config = label_pruning.PRESETS["cifar10"]
    rng = np.random.default_rng(0)

    def rows(number):
        images = rng.integers(0, 256, (number, 32, 32, 3), np.uint8)
        labels = (np.arange(number) % 10).astype(np.int32)
        return datasets.Split(images, labels, np.arange(number, dtype=np.int32))

    names = tuple(map(str, range(10)))
    sets = [datasets.Dataset(rows(640), rows(20), rows(20), 10, "CIFAR-10 (JPEG)", names)]
    made = jax.eval_shape(lambda: label_pruning.make(config, sets, jnp.int32(0)))
    assert made["images"].shape == (3, 500, 32, 32, 3)
    assert made["logits"].shape == (3, 300 * 10, 50, 10)
    kinds = label_pruning.kinds_of(config)
    labels = jax.ShapeDtypeStruct((len(kinds), 1, 3000, 50, 10), jnp.float32)
    of_seeds = jax.tree.map(
        lambda one: jax.ShapeDtypeStruct((1, *one.shape), one.dtype),
        (made["images"], made["records"]),
    )
    point = {name: jnp.asarray(x[0]) for name, x in label_pruning.points_of(config).items()}
    seen = jax.eval_shape(
        lambda images, records, labels, key: label_pruning.train(
            config, sets, images, records, labels, point, key
        ),
        *of_seeds,
        labels,
        jax.random.key(0),
    )
    assert {value.shape for value in seen.values()} == {()}


def test_students_are_those_of_the_options(results):
    table = pq.read_table(results[0] / "results" / "label_pruning" / "tiny" / "results.parquet")
    points = label_pruning.points_of(TINY)
    for name, values in points.items():
        np.testing.assert_array_equal(table[name].to_numpy(), values)
    assert sweep.metadata(table)["config"]["test_rows"] == 599


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds: expected 1 or more, got 0"),
        ({"batch_size": 7}, "batch_size: expected a divisor of 20, the images of a set, got 7"),
        ({"compressions": (2.0, 4.0)}, "compressions: expected two or more, ascending from 1"),
        ({"compressions": (1.0,)}, "compressions: expected two or more, ascending from 1"),
        ({"compared": 40.0}, r"compared: expected one of \(4.0,\), got 40.0"),
        ({"compressions": (1.0, 4.0, 40.0)}, "prune_ratio: expected one batch or more to be left"),
        ({"temperatures": (0.0,)}, "temperatures: expected some above 0"),
        ({"images_per_class": 200}, "images_per_class: expected"),
        ({"dataset": "digitz"}, "digits"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        label_pruning.run(dataclasses.replace(TINY, **options), tmp_path)
