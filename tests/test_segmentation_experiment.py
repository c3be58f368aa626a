"""Segmentation of digit scenes from the command line to the figure, on its tiny preset."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax

from experiments import digit_scenes, segmentation
from experiments import results as files
from jsoft import segmentation as room
from tests.experiment_runs import check_redraws, command

TINY = segmentation.PRESETS["tiny"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmentation")
    done = command("segmentation", "--preset", "tiny", "--quiet", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def tables(results):
    folder = results[0] / "results" / "segmentation" / "tiny"
    return {path.stem: pq.read_table(path) for path in folder.glob("*.parquet")}


@pytest.fixture(scope="module")
def material():
    return digit_scenes.load()


def test_tiny_preset_writes_tables_figure_and_summary(results, tables):
    out = results[0] / "results" / "segmentation" / "tiny"
    assert set(tables) == {"results", "teachers", "labels"}
    jobs = segmentation.jobs(files.options(TINY))
    assert tables["results"].num_rows == len(jobs) * 2 * 2 * 32 * 32
    assert tables["teachers"].num_rows == 2
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["arms"]) == set(jobs)
    assert [claim["id"] for claim in summary["claims"]] == ["J1", "J2", "J3", "J4"]
    for name in jobs:
        assert f"\n{name} " in results[1]
    assert (out / "figure.png").stat().st_size > 20_000


def test_plot_only_redraws_the_same_files_without_training(results):
    check_redraws("segmentation", *results)


def test_smoothed_labels_have_the_indicators_that_they_must(tables):
    levels, grid = segmentation.described(tables)
    assert_allclose(levels, [0, 0.1, 0.5], rtol=1e-6)
    smoothed = {name: values[:-1] for name, values in grid.items()}
    assert_array_equal(smoothed["unreliability_1"], 0)
    assert_array_equal(smoothed["ambiguity_1"], 0)
    assert_allclose(smoothed["ambiguity_2"], 1 / 10, rtol=1e-4)  # sums of tenths of pixels
    at_boundaries = smoothed["mean_label_margin"][..., 1, :]
    expected = 1 - levels[:, None, None, None]
    assert_allclose(at_boundaries, np.broadcast_to(expected, at_boundaries.shape), rtol=1e-5)
    assert_allclose(smoothed["mean_label_margin"][..., 2, :], 1, rtol=1e-6)
    assert_allclose(grid["share"][..., 1, :] + grid["share"][..., 2, :], 1, rtol=1e-5)
    # A teacher of four steps is wrong somewhere, and its classes are those of its errors.
    teacher = {name: values[-1] for name, values in grid.items()}
    assert (teacher["unreliability_1"][..., 0, 0] > 0.01).all()
    missed = teacher["class_unreliability"]
    assert ((missed >= -1e-6) | np.isnan(missed)).all()
    assert (missed + 1e-6 >= teacher["class_ambiguity"])[~np.isnan(missed)].all()


def test_students_of_a_seed_share_its_scenes_and_differ_by_their_loss(tables):
    found = segmentation.scores(tables)
    assert (found["CE"]["miou_D"] > 0).all()
    assert np.abs(found["JML"]["accuracy"] - found["w = 1"]["accuracy"]).max() > 0
    table = tables["results"]
    columns = {name: table[name].to_numpy() for name in ("job", "seed", "pictured_label")}
    labels = columns["pictured_label"].reshape(-1, 2, 2 * 32 * 32)  # jobs, seeds
    assert_array_equal(labels, np.broadcast_to(labels[:1], labels.shape))
    assert (labels[0, 0] != labels[0, 1]).any()


def test_scenes_are_disjoint_digits_on_photographs(material):
    draw = jax.jit(
        lambda key: digit_scenes.train_and_test(
            material, key, num_train=64, num_test=8, size=32, num_digits=2
        )
    )
    train, test = draw(jax.random.key(0))
    assert train.images.shape == (64, 32, 32, 1)
    assert test.labels.shape == (8, 32, 32)
    assert_allclose([train.images.mean(), train.images.std()], [0, 1], atol=1e-4)
    share = float((train.labels == 0).mean())
    assert 0.78 < share < 0.88
    for labels in train.labels:
        assert len(set(labels.ravel().tolist())) in (2, 3)  # background, one or two digits
    again = draw(jax.random.key(0))[0]
    assert_array_equal(again.images, train.images)


@pytest.mark.parametrize(("size", "num_digits"), [(32, 2), (64, 4), (50, 2)])
def test_places_do_not_overlap_and_reach_every_edge(size, num_digits):
    draw = jax.jit(jax.vmap(lambda key: digit_scenes._places(key, size, num_digits)))
    places = np.asarray(draw(jax.random.split(jax.random.key(0), 500)))
    assert places.min() == 0
    assert places.max() == size - 16
    apart = np.abs(places[:, :, None] - places[:, None]).max(axis=-1)  # [scenes, digits, digits]
    others = ~np.eye(num_digits, dtype=bool)
    assert (apart[:, others] >= 16).all()


def test_network_is_the_dilated_convolution():
    network = segmentation.PixelNetwork(4)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(2, 20, 24, 1)), jnp.float32)
    params = network.init(jax.random.key(0), images)
    weights = params["params"]
    convolved = jax.lax.conv_general_dilated(
        images,
        weights["kernel"].reshape(9, 9, 1, 4),
        (1, 1),
        "SAME",
        rhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    x = jax.nn.relu(convolved).reshape(-1, 4)
    x = jax.nn.relu(x @ weights["Dense_0"]["kernel"])
    expected = (x @ weights["Dense_1"]["kernel"]).reshape(2, 20, 24, 11)
    assert_allclose(network.apply(params, images), expected, rtol=1e-4, atol=1e-5)


def test_product_loss_is_the_metric_loss_of_hard_labels_alone():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(2, 4, 4, 11)), jnp.float32)
    labels = rng.integers(0, 3, (2, 4, 4))
    hard = np.eye(11, dtype=np.float32)[labels]
    product = segmentation.product_loss(logits, hard, smooth=1.0, threshold=0.01)
    assert_allclose(product, room.jdt_loss(logits, labels, smooth=1.0), rtol=1e-5)
    soft = softmax(np.asarray(logits), axis=-1)
    assert room.jdt_loss(logits, soft, smooth=1.0) < 1e-6
    assert segmentation.product_loss(logits, soft, smooth=1.0, threshold=0.01) > 0.3


def test_objectives_are_those_that_their_names_say():
    rng = np.random.default_rng(0)
    logits, teacher_logits = jnp.asarray(rng.normal(size=(2, 2, 4, 4, 11)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 3, (2, 4, 4)))
    soft = room.boundary_label_smoothing(labels, 11, epsilon=0.1)
    batch = segmentation.Batch(labels, soft, teacher_logits)
    job = segmentation.Job()._asdict()
    metric, everything, product, taught, taught_product = (
        float(objective(logits, batch)) for objective in segmentation.objectives(job)
    )
    options = {"smooth": 1.0}
    gap = room.jdt_loss(logits, soft, active="all", **options) - room.jdt_loss(
        logits, soft, **options
    )
    assert_allclose(everything - metric, 0.75 * gap, rtol=1e-4)
    assert taught == pytest.approx(
        float(room.segmentation_distillation_loss(logits, teacher_logits, labels, smooth=1.0))
    )
    # Both forms agree where labels are hard; for soft ones the product asks for more.
    assert product > metric
    assert taught_product > taught
    sharp = batch._replace(
        soft_labels=jax.nn.one_hot(labels, 11), teacher_logits=60 * jax.nn.one_hot(labels, 11)
    )
    of_sharp = [float(objective(logits, sharp)) for objective in segmentation.objectives(job)]
    assert_allclose(of_sharp[segmentation.TAUGHT], of_sharp[segmentation.METRIC], rtol=1e-5)
    assert_allclose(of_sharp[segmentation.TAUGHT_PRODUCT], of_sharp[segmentation.METRIC], rtol=1e-5)


@pytest.mark.slow
def test_full_scale_preset_traces_on_few_scenes(material):
    config = dataclasses.replace(
        segmentation.PRESETS["scenes64"], train_scenes=70, test_scenes=4, steps=20
    )
    runs = segmentation.make_runs(config, material)
    key = jax.random.key(0)
    teacher = jax.eval_shape(runs.teacher, {"seed": jnp.int32(0)}, key)
    assert teacher["miou_D"].shape == ()
    parameters = jnp.zeros((5, *teacher["parameter"].shape))
    names = segmentation.jobs(files.options(config))
    assert {"JML per image", "JML per class"} < set(names)
    point = {name: jnp.asarray(value) for name, value in names["JML per class"]._asdict().items()}
    point |= {"job": jnp.int32(0), "seed": jnp.int32(0)}
    student = jax.eval_shape(runs.student(parameters), point, key)
    assert student["pictured_prediction"].shape == (3 * 64 * 64,)
    point = {"taught": jnp.asarray(True), "epsilon": jnp.float32(0), "seed": jnp.int32(0)}
    labels = jax.eval_shape(runs.labels(parameters), point, key)
    assert labels["class_ambiguity"].shape == (2 * 3 * 11,)


def test_claims_of_kinds_are_told_by_their_own_means():
    found = {
        "JML": {"miou_D": np.array([30.0, 32.0]), "miou_I": np.array([50.0, 52.0])},
        "JML per image": {"miou_D": np.array([29.0, 31.5]), "miou_I": np.array([55.0, 56.0])},
        "JML per class": {"miou_D": np.array([20.0, 21.0]), "miou_I": np.array([54.0, 55.0])},
    }
    assert segmentation._claim_of_kind(found, "D")["verdict"] == "met at smaller scale"
    assert segmentation._claim_of_kind(found, "I")["verdict"] == "met at smaller scale"
    found["JML per image"]["miou_I"] -= 10
    assert segmentation._claim_of_kind(found, "I")["verdict"] == "not met"


def test_redrawing_refuses_options_that_the_tables_were_not_made_with(results):
    folder = results[0] / "results" / "segmentation" / "tiny"
    with pytest.raises(ValueError, match="steps: expected 6 as in"):
        files.read(folder, files.options(dataclasses.replace(TINY, steps=7)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds: expected 1 or more, got 0"),
        ({"steps": 0}, "steps: expected 1 or more"),
        ({"digits": 3}, "digits: expected 2 or 4, got 3"),
        ({"size": 16}, "size: expected 32 … 400, got 16"),
        ({"pictured": 7}, "pictured: expected 1 … 6"),
        ({"epsilons": (1.5,)}, "epsilons: expected levels"),
        ({"jdt_weights": (-1.0,)}, "jdt_weights: expected levels"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        segmentation.run(dataclasses.replace(TINY, **options), tmp_path)
