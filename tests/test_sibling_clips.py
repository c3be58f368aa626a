"""Sibling clips from the command line to the figure, and the videos that they are cut from."""

import dataclasses
import functools
import itertools
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from experiments import sibling_clips, synthetic_videos
from jsoft import sweep
from jsoft.datasets import Dataset, Split
from tests.experiment_runs import check_redraws, command

TINY = sibling_clips.PRESETS["tiny"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sibling_clips")
    done = command("sibling_clips", "--preset", "tiny", "--quiet", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def tables(results):
    out = results[0] / "results" / "sibling_clips" / "tiny"
    return {path.stem: pq.read_table(path) for path in out.glob("*.parquet")}


def test_tiny_preset_writes_tables_figure_and_summary(results):
    folder, printed = results
    out = folder / "results" / "sibling_clips" / "tiny"
    assert sorted(os.listdir(out)) == [
        "control.parquet",
        "figure.png",
        "figure.svg",
        "results.parquet",
        "summary.json",
        "walk.parquet",
    ]
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["runs"] == {"control": 2, "results": 16, "walk": 4}
    assert [claim["id"] for claim in summary["claims"]] == ["N1", "N2", "N3", "N4", "N5", "N6"]
    assert 0 < summary["compile_seconds"] < summary["wall_seconds"]
    assert "more than the truth on all 4 clips" in printed
    assert (out / "figure.png").stat().st_size > 20_000


def test_arms_are_found_by_their_levels(tables):
    here = sibling_clips.arms(tables, 0)
    assert here["accuracy"].shape == (8 + 2, TINY.seeds)
    assert here["walk"][:, 0].tolist() == [0] * 8 + [1] * 2
    assert sibling_clips.pick(here, "seed", num_clips=4, learnt=1).tolist() == [0, 1]
    rows = tables["results"].to_pylist()
    usual = {"num_clips": 4, "omega": 0.5, "temperature": 1.0, "learnt": False}
    expected = [
        row["test_accuracy"]
        for row in rows
        if row["step"] == TINY.looks and usual.items() <= row.items()
    ]
    assert sibling_clips.pick(here, num_clips=4).tolist() == expected
    for prefix in ("", "unseen_"):
        margin = 1 - here[f"{prefix}unreliability"] - here[f"{prefix}ambiguity"]
        assert_allclose(here[f"{prefix}margin"], margin, atol=1e-6)


def test_trainings_of_a_seed_share_their_encoder(tables):
    accuracies = sibling_clips.arms(tables)["encoder_accuracy"]
    assert_array_equal(accuracies, np.broadcast_to(accuracies[:1], accuracies.shape))
    assert accuracies[0, 0] != accuracies[0, 1]


def test_plot_only_redraws_the_same_files_without_training(results):
    check_redraws("sibling_clips", *results)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds: expected 1 or more, got 0"),
        ({"segments": 1}, "segments: expected 2 or more, got 1"),
        ({"segments": 9}, "segments: expected 2 … 8"),
        ({"steps": 21}, "steps: expected a multiple of the 2 looks, got 21"),
        ({"clips": (4, 2)}, "clips: expected ascending numbers in 2 … 8"),
        ({"clips": (2, 9)}, "clips: expected ascending numbers in 2 … 8"),
        ({"clips": ()}, "clips: expected ascending"),
        ({"omegas": (1.0,)}, "omegas: expected numbers in"),
        ({"dataset": "digitz"}, "digits"),
    ],
    ids=lambda case: str(case),
)
def test_bad_options_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        sibling_clips.run(dataclasses.replace(TINY, **options), tmp_path)


def test_unknown_preset_names_those_there_are(tmp_path):
    done = command("sibling_clips", "--preset", "films", folder=tmp_path)
    assert done.returncode == 2
    for preset in sibling_clips.PRESETS:
        assert preset in done.stderr


def stand_in(num_images, shape, num_classes):
    def split(rows):
        labels = np.arange(rows, dtype=np.int32) % num_classes
        return Split(np.zeros((rows, *shape), np.uint8), labels, np.arange(rows, dtype=np.int32))

    names = tuple(map(str, range(num_classes)))
    parts = (split(num_images), split(num_images // 2), split(num_images // 2))
    return Dataset(*parts, num_classes, "stand-in", names)


@pytest.mark.slow
def test_full_scale_preset_traces():
    config = sibling_clips.PRESETS["clips32"]
    sets = stand_in(200, (28, 28, 1), 10)

    def train(point):
        seeds = jnp.arange(config.seeds)
        prepared = jax.vmap(lambda seed: synthetic_videos.prepare(config, sets, seed))(seeds)
        trained = sibling_clips.trainer(config, prepared, "one_step", num_classes=10)
        return trained(point, jax.random.key(point["seed"]))

    point = {
        name: jax.ShapeDtypeStruct((), jnp.asarray(column[:1]).dtype)
        for name, column in sibling_clips.points(config, "one_step").items()
    }
    seen = jax.eval_shape(train, point)
    assert {metric.shape for metric in seen.values()} == {(config.looks,)}
    assert "unseen_margin" in seen


def test_scripts_have_distinct_classes_in_whole_blocks_and_true_answers():
    labels = np.tile(np.arange(6), 3)
    sizes = {"num_videos": 300, "num_classes": 6, "num_frames": 20, "clip_len": 5, "segments": 3}
    script = jax.tree.map(
        np.asarray,
        jax.jit(functools.partial(synthetic_videos.write_scripts, **sizes))(
            jnp.asarray(labels), jax.random.key(1)
        ),
    )
    seen_images, seen_questions, lengths = set(), set(), []
    for shown, question, answer in zip(*script, strict=True):
        starts = [0, *(1 + np.flatnonzero(np.diff(shown)))]
        classes = labels[shown[starts]]
        assert len(starts) == len(set(classes)) == 3
        assert all(start % 4 == 0 for start in starts)  # the interval of clips
        kind, named = question[:3].argmax(), question[3:]
        assert question[:3].sum() == 1
        if kind == 2:
            expected = classes[1 + list(classes).index(named.argmax())]
            assert named.sum() == 1
        else:
            expected = classes[0 if kind == 0 else -1]
            assert not named.any()
        assert answer == expected
        seen_images |= set(shown)
        seen_questions.add((kind, named.argmax()))
        lengths.append(starts[1])
    assert seen_images == set(range(18))
    assert len(seen_questions) == 2 + 6
    assert set(lengths) == {4, 8, 12}


def test_noise_and_blanks_come_as_often_as_asked():
    spoil = jax.jit(functools.partial(synthetic_videos.corrupt, noise=0.3, blank=0.4))
    seen, is_blank = map(np.asarray, spoil(jnp.full((4000, 2, 2), 0.5), jax.random.key(0)))
    assert_allclose(is_blank.mean(), 0.4, atol=0.04)  # five standard errors
    assert_allclose(seen[is_blank].mean(), 0, atol=0.02)
    assert_allclose(seen[~is_blank].mean(), 0.5, atol=0.02)
    assert_allclose((seen - 0.5)[~is_blank].std(), 0.3, atol=0.02)


def test_clips_start_apart_and_anywhere():
    draw = functools.partial(
        synthetic_videos.siamese_starts, num_frames=14, clip_len=3, num_clips=3
    )
    keys = jax.random.split(jax.random.key(0), 200)
    starts, frames = jax.tree.map(np.asarray, jax.jit(jax.vmap(draw))(keys))
    assert starts.shape == (200, 3)
    assert_array_equal(frames, starts[..., None] + 4 * np.arange(3))
    assert {tuple(row) for row in starts.tolist()} == {*itertools.permutations(range(4), 3)}
    with pytest.raises(ValueError, match=r"num_clips: expected 1 … 4, the starts"):
        synthetic_videos.siamese_starts(jax.random.key(0), num_frames=14, clip_len=3, num_clips=5)
    with pytest.raises(TypeError, match="clip_len: expected a whole number"):
        synthetic_videos.siamese_starts(jax.random.key(0), num_frames=14, clip_len=3.0, num_clips=2)


def test_head_tells_order_and_question():
    """Frames in another order, or another question, are another input."""
    head = synthetic_videos.Head(8, 5, blocks=1)
    frames = jax.random.normal(jax.random.key(0), (2, 4, 3))
    questions = jnp.eye(2)
    params = jax.jit(head.init)(jax.random.key(1), frames, questions)
    apply = jax.jit(head.apply)
    scores, features = apply(params, frames, questions)
    assert scores.shape == (2, 5)
    assert features.shape == (2, 8)
    for frames_now, questions_now in ((frames[:, ::-1], questions), (frames, questions[::-1])):
        changed, _ = apply(params, frames_now, questions_now)
        assert np.abs(changed - scores).max() > 1e-4


def test_order_is_told_by_the_indicators_that_have_one(tables):
    found = sibling_clips.predictions(tables, -1)
    assert list(found) == ["training", "unseen"]
    for of_all in found.values():
        assert list(of_all) == ["Δ", "γ", "κ", "D", "μ"]
        for one in of_all.values():
            assert one["spearman"] is None or -1 <= one["spearman"] <= 1
            assert 0 <= one["chosen_below_the_best"] <= 1


def test_tables_note_where_they_come_from(tables):
    for table in tables.values():
        config = sweep.metadata(table)["config"]
        assert config["num_classes"] == 10
        assert config["dataset"] == "digits"
