"""What labels of few images are worth, from the command line to the figure, on its tiny preset."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pyarrow.parquet as pq
import pytest

from experiments import label_worth
from jsoft import datasets, networks
from tests.experiment_runs import FILES, check_redraws, command

TINY = label_worth.PRESETS["tiny"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("label_worth")
    done = command("label_worth", "--preset", "tiny", "--quiet", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def table(results):
    return pq.read_table(results[0] / "results" / "label_worth" / "tiny" / "results.parquet")


def test_tiny_preset_writes_table_figure_and_summary(results, table):
    folder, printed = results
    out = folder / "results" / "label_worth" / "tiny"
    assert set(os.listdir(out)) == FILES
    # hard, 3 epochs, 2 kept; at 2 images also 3 swapped and 2 classes in 4 ways
    assert table.num_rows == 2 * (6 + 6 + 3 + 2 * 4)
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["runs"] == {"results": 2}
    assert {claim["id"] for claim in summary["claims"]} == {f"L{i}" for i in range(1, 9)}
    assert "D, all rows" in printed
    assert (out / "figure.png").stat().st_size > 20_000


def test_plot_only_redraws_the_same_files_without_training(results):
    check_redraws("label_worth", *results)


def test_students_are_told_apart(table):
    soft = label_worth.select(table, "soft", 2)
    np.testing.assert_array_equal(soft["level"], [TINY.epochs] * 2)
    assert np.isfinite(soft["divergence"]).all()
    assert np.isnan(label_worth.select(table, "hard", 2)["divergence"]).all()
    assert label_worth.select(table, "swap", 1)["level"].shape == (2, 0)
    # fewer images are the first of more, so their indicators differ, those of all rows do not
    one = label_worth.select(table, "soft", 1)
    np.testing.assert_array_equal(one["all_divergence"], soft["all_divergence"])
    assert (one["entropy"] != soft["entropy"]).all()


def test_a_class_without_images_is_never_named_by_hard_labels(table):
    assert (label_worth.select(table, "unseen_hard", 2)["class_accuracy"] == 0).all()
    assert label_worth.select(table, "control", 2)["class_accuracy"].max() > 0.3
    chosen = label_worth.soft_and_hard(table)[2]
    control = label_worth.select(table, "control", 2)
    np.testing.assert_array_equal(control["test_accuracy"], chosen["soft"][:, None].repeat(2, 1))


def test_surgery_on_one_table():
    soft = jnp.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.3, 0.1, 0.6]])
    classes = jnp.arange(3)
    hard = jnp.eye(3)
    for kind, level, expected in (
        ("keep", 1, [[0.6, 0, 0], [0, 0.7, 0], [0, 0, 0.6]]),
        ("swap", 2, [[0.6, 0.1, 0.3], [0.1, 0.7, 0.2], [0.1, 0.3, 0.6]]),
        ("unnamed", 0, [[0.6, 0.3, 0.1], [0, 0.7, 0.1], [0, 0.1, 0.6]]),
        ("unseen", 0, [[0, 0, 0], [0.2, 0.7, 0.1], [0.3, 0.1, 0.6]]),
        ("unseen_hard", 1, [[1, 0, 0], [0, 0, 0], [0, 0, 1]]),
    ):
        np.testing.assert_allclose(
            label_worth.operated(soft, hard, classes, kind, level), expected, err_msg=kind
        )


def test_an_image_without_a_label_is_left_out():
    """A student of three images, one of them with a label of zeros, is that of two."""
    split = label_worth.centred(datasets.load("digits", split="1:1:1").train)
    some = jax.tree.map(lambda array: array[:20], split)
    few = dataclasses.replace(datasets.load("digits"), valid=some, test=some)
    network, labels = networks.MLP((8,), 10), jax.nn.one_hot(split.labels[:3], 10)
    key = jax.random.key(0)

    @jax.jit
    def students(images, tables):
        return label_worth.train_students(TINY, network, images, few, key, tables)

    with_third = students(split.images[:3], jnp.stack([labels, labels.at[2].set(0)]))
    without = students(split.images[:2], labels[None, :2])
    np.testing.assert_allclose(with_third["test_accuracy"][1], without["test_accuracy"][0])
    np.testing.assert_allclose(with_third["class_accuracy"][1], without["class_accuracy"][0])


def test_the_expert_is_plain_gradient_descent():
    """One epoch of one batch is one step on all rows, in whatever order."""
    config = dataclasses.replace(TINY, epochs=(1, 2), batch_size=30, expert_learning_rate=0.5)
    split = label_worth.centred(datasets.load("digits").train)
    rows = jax.tree.map(lambda array: array[:30], split)
    few = dataclasses.replace(datasets.load("digits"), train=rows, valid=rows)
    network, key = networks.MLP((8,), 10), jax.random.key(3)
    found, accuracy = jax.jit(lambda: label_worth.train_expert(config, network, few, key))()

    params = network.init(jax.random.split(key)[0], rows.images[:1])

    @jax.jit
    def descend(params):
        def loss(params):
            logits = network.apply(params, rows.images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, rows.labels).mean()

        slopes = jax.grad(loss)(params)
        params = jax.tree.map(lambda p, slope: p - 0.5 * slope, params, slopes)
        return params, jax.nn.softmax(network.apply(params, rows.images))

    for labels, share in zip(found, accuracy, strict=True):
        params, expected = descend(params)
        np.testing.assert_allclose(labels, expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(share, (expected.argmax(axis=1) == rows.labels).mean())


def test_a_power_law_is_found():
    images = [1, 2, 5, 10]
    accuracy = 1 - 0.4 * np.array(images) ** np.array([[-0.5], [-0.7]])
    found = label_worth.scaling(accuracy, images, 300)
    assert found["slope"] == pytest.approx(-0.6)
    assert found["scale"] == pytest.approx(0.4)
    assert found["r_squared"] == pytest.approx(1)
    # mean −0.6, standard error 0.1, and 12.706 is Student's t of one degree of freedom at 97.5 %
    assert found["interval"] == pytest.approx([-0.6 - 1.2706, -0.6 + 1.2706], abs=1e-3)
    assert label_worth.scaling(accuracy[:1], images, 300)["interval"] == [None, None]


def test_bytes_of_images_and_labels(table):
    points = label_worth.trade(table)
    found = dict(
        zip(zip(points["images"], points["kept"], strict=True), points["bytes"], strict=True)
    )
    # 64 pixels; a class, three bytes an entry, or ten numbers of two bytes
    assert found[1, 0] == 65
    assert found[2, 1] == 2 * (64 + 3)
    assert found[2, 3] == 2 * (64 + 9)
    assert found[1, 10] == 64 + 20
    assert points["front"][np.argmin(points["bytes"])]


def test_picks_of_the_epoch(table):
    picked = label_worth.picks(table)
    assert len(picked) == 2 * 6 + 2
    softs = [label_worth.select(table, "soft", number) for number in TINY.images]
    # by hand: labels of the least entropy, and those of the best students on validation rows
    for rule, name, sign in (("entropy", "entropy", -1), ("students", "valid_accuracy", 1)):
        for i, soft in enumerate(softs):
            places = (sign * soft[name]).argmax(axis=1)
            taken = [row[place] for row, place in zip(soft["test_accuracy"], places, strict=True)]
            best = soft["test_accuracy"].mean(axis=0).max()
            np.testing.assert_allclose(picked[rule]["regret"][i], best - np.mean(taken), atol=1e-6)
            np.testing.assert_allclose(
                picked[rule]["epoch"][i], np.mean([TINY.epochs[place] for place in places])
            )


@pytest.mark.slow
def test_full_scale_training_traces():
    """Shapes, no numbers: images of CIFAR-10, convolutional networks, augmentation."""
    config = label_worth.PRESETS["cifar10"]
    rng = np.random.default_rng(0)

    def rows(number):
        images = rng.integers(0, 256, (number, 32, 32, 3), np.uint8)
        labels = (np.arange(number) % 10).astype(np.int32)
        return datasets.Split(images, labels, np.arange(number, dtype=np.int32))

    names = tuple(map(str, range(10)))
    sets = [datasets.Dataset(rows(256), rows(20), rows(20), 10, "CIFAR-10 (JPEG)", names)]
    seen = jax.eval_shape(
        lambda point, key: label_worth.train(config, sets, point, key),
        {"seed": jnp.int32(0)},
        jax.random.key(0),
    )
    # hard, epochs and kept at both numbers of images; swaps, and four classes in four ways
    assert {value.shape for value in seen.values()} == {(2 * (1 + 8 + 4) + 6 + 16,)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds: expected 1 or more, got 0"),
        ({"epochs": (6, 2)}, "epochs: expected two or more, ascending from 1"),
        ({"images": (1,)}, "images: expected two or more, ascending from 1"),
        ({"swap": (1, 3)}, "swap: expected ranks with 2 among them"),
        ({"swap_images": 3}, "swap_images: expected one of"),
        ({"removed": ()}, "removed: expected classes from 0"),
        ({"removed": (10,)}, "removed: expected classes below 10"),
        ({"dataset": "digitz"}, "digits"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        label_worth.run(dataclasses.replace(TINY, **options), tmp_path)
