"""Real candidate sets from the command line to the figure, on two small made ones."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from experiments import partial_labels, real_candidate_sets
from jsoft import certificates, indicators, losses, networks, targets, training
from tests.experiment_runs import FILES, command

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "partial_labels"
OPTIONS = ("--preset", "real", "--seeds", 2, "--folds", 4, "--epochs", 6, "--batch-size", 16)


def made(num_rows=90, num_classes=4, seed=0, unused=0):
    """Features that tell the classes apart, sets of two candidates, the true class among them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_classes - unused, size=num_rows)
    other = (labels + rng.integers(1, num_classes, size=num_rows)) % num_classes
    candidates = np.zeros((num_rows, num_classes), np.uint8)
    candidates[np.arange(num_rows), labels] = candidates[np.arange(num_rows), other] = 1
    features = 1e4 + 30 * np.eye(num_classes)[labels] + rng.normal(size=(num_rows, num_classes))
    return {"features": features, "candidates": candidates, "label": labels.astype(np.uint8)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    np.savez(folder / "plain.npz", **made())
    np.savez(folder / "unused.npz", **made(50, 5, seed=1, unused=2))
    return folder / "plain.npz", folder / "unused.npz"


@pytest.fixture(scope="module")
def results(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    done = command("partial_labels", *OPTIONS, "--sets", *files, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def out(results):
    return results[0] / "results" / "partial_labels" / "real"


def test_real_preset_writes_tables_figure_and_summary(results, out):
    assert {path.name for path in out.iterdir()} == {*FILES, "plain.parquet", "unused.parquet"}
    sets = pq.read_table(out / "results.parquet").to_pylist()
    assert [row["set"] for row in sets] == ["plain", "unused"]
    assert [row["classes_with_examples"] for row in sets] == [4, 3]
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["runs"] == {"plain": 5 * 2 * 4, "unused": 5 * 2 * 4}
    assert summary["claims"] == []  # nothing is known of these
    found = summary["sets"]["plain"]["accuracies"]
    assert list(found) == ["superset", "average", "membership", "one_candidate", "true_labels"]
    assert found["true_labels"]["accuracy"] > 0.9  # separable by far
    assert "plain: 90 examples of 4 features, 4 classes, 2.00 candidates each" in results[1]
    assert "on the 3 classes that have examples" in results[1]
    for path in out.iterdir():
        assert str(results[0]) not in path.read_bytes().decode("utf-8", "ignore"), path


def test_every_row_is_tested_once_in_every_repetition(out):
    table = pq.read_table(out / "plain.parquet")
    tested = table["tested"].to_numpy().reshape(5, 2, 4)
    assert (tested.sum(axis=2) == 90).all()
    assert sorted(set(tested.ravel())) == [22, 23]
    right = table["right"].to_numpy().reshape(5, 2, 4)
    assert (right <= tested).all()
    found = real_candidate_sets.accuracies(table)
    np.testing.assert_allclose(found["superset"], right[0].sum(axis=1) / 90)


def test_a_fold_can_be_run_again_by_hand(files, out):
    """The third fold of the second repetition, average loss, in NumPy where that can be."""
    row = next(
        row
        for row in pq.read_table(out / "plain.parquet").to_pylist()
        if (row["loss"], row["seed"], row["fold"]) == (1, 1, 2)
    )
    one = made()
    order_key, _, students_key = jax.random.split(jax.random.key(1), 3)
    order = np.asarray(jax.random.permutation(order_key, 90))
    begin, end = 90 * 2 // 4, 90 * 3 // 4
    test = order[begin:end]
    order = np.roll(order, -begin)
    train = order[23:]  # of the largest fold, 23, one row is left out where a fold has 22
    assert not set(train) & set(test)
    features = one["features"]
    features = (features - features[train].mean(axis=0)) / features[train].std(axis=0)
    network = networks.MLP((128,), 4)
    params, _ = training.train(
        network,
        losses.soft_cross_entropy,
        features[train].astype(np.float32),
        targets.uniform_over(one["candidates"][train].astype(bool)),
        jax.random.fold_in(students_key, 2),
        observe=lambda params: (),
        epochs=6,
        batch_size=16,
        learning_rate=0.05,
        nesterov=False,
        weight_decay=1e-3,
    )
    logits = training.predict(network, params, features[test].astype(np.float32))
    right = (logits.argmax(axis=1) == one["label"][test]).sum()
    assert row["tested"] == len(test)
    assert abs(row["right"] - right) <= 1  # rounding may move one row


def test_plot_only_redraws_the_same_files_without_the_sets(results, out):
    folder, printed = results
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    done = command("partial_labels", *OPTIONS, "--plot-only", folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed
    for name, content in before.items():
        assert (out / name).read_bytes() == content, name


def test_other_sets_are_refused_before_training(files, out, tmp_path):
    np.savez(tmp_path / "plain.npz", **made(seed=7))
    config = dataclasses.replace(
        partial_labels.PRESETS["real"], seeds=2, folds=4, epochs=6, batch_size=16
    )
    for sets in ((tmp_path / "plain.npz", files[1]), files[:1]):
        with pytest.raises(ValueError, match="another configuration"):
            partial_labels.run(dataclasses.replace(config, sets=sets), out)


@pytest.mark.parametrize(("num_rows", "num_folds"), [(20, 10), (23, 10), (7, 2), (5, 5)])
def test_folds_cut_the_rows(num_rows, num_folds):
    seen = []
    for fold in range(num_folds):
        rows, test_rows, counts = real_candidate_sets.fold_rows(
            jax.random.key(3), jnp.int32(fold), num_rows=num_rows, num_folds=num_folds
        )
        tested = np.asarray(test_rows)[np.asarray(counts)]
        assert len(tested) in (num_rows // num_folds, -(-num_rows // num_folds))
        assert not set(tested.tolist()) & set(np.asarray(rows).tolist())
        assert len(rows) == num_rows - -(-num_rows // num_folds)
        assert len(set(np.asarray(rows).tolist())) == len(rows)
        seen += tested.tolist()
    assert sorted(seen) == list(range(num_rows))


def test_features_are_standardised_by_the_training_rows_alone(tmp_path):
    """Whatever `read` does to all rows cancels; NumPy in float64, constants left alone."""
    rng = np.random.default_rng(0)
    one = made(40)
    one["features"] = np.column_stack(
        [1e9 + rng.normal(size=40), 1e-9 * rng.normal(size=40), np.full(40, 0.1), np.arange(40)]
    )
    np.savez(tmp_path / "set.npz", **one)
    features = real_candidate_sets.read(tmp_path / "set.npz").features
    train, test = real_candidate_sets.standardise(jnp.asarray(features[:30]), features[30:])
    spread = one["features"][:30].std(axis=0)
    spread[2] = 1
    expected = (one["features"] - one["features"][:30].mean(axis=0)) / spread
    # float32, and 1e9 has seven digits fewer to give
    np.testing.assert_allclose(np.concatenate([train, test]), expected, atol=2e-6)


def test_indicators_and_certificate_stand_beside_the_accuracies(files):
    one = real_candidate_sets.read(files[0])
    described = real_candidate_sets.describe(one)
    measured = indicators.measure_sets(one.candidates, one.labels)
    assert described["ambiguity"] == float(measured.ambiguity)
    assert described["unreliability"] == 0
    certificate = certificates.certify_sets(one.candidates, one.labels)
    assert described["certificate"] == certificate.statement
    np.testing.assert_allclose(
        described["limit_of_classes_with_examples"],
        certificate.unreliability_limit + certificate.ambiguity_limit,
    )


def test_a_class_without_examples_leaves_the_others_their_limit(files):
    one = real_candidate_sets.read(files[1])
    described = real_candidate_sets.describe(one)
    assert not described["certified"]
    assert "Without examples: class 3, 4" in described["certificate"]
    assert described["limit_of_classes_with_examples"] < 1
    # the same sets with an example of class 3 and of class 4: now both have limits, of 1
    labels = np.append(one.labels, [3, 4])
    candidates = np.append(one.candidates, np.eye(5, dtype=bool)[3:], axis=0)
    assert real_candidate_sets.limit_of_classes_with_examples(candidates, labels) > 0.97


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("label"), "got .*; without true classes there is no accuracy"),
        (lambda a: a.pop("features"), "expected the arrays features, candidates and label, got"),
        (lambda a: a.update(features=a["features"][:, 0]), r"features: expected numbers \[N, d\]"),
        (lambda a: a.update(features=a["features"].astype(str)), "features: expected numbers"),
        (lambda a: a["features"].__setitem__((5, 1), np.nan), "NaN or infinity in row 5"),
        (lambda a: a.update(candidates=a["candidates"][:-1]), r"expected 0 or 1, \[90, C\]"),
        (lambda a: a.update(candidates=a["candidates"][:, :1]), "two classes or more"),
        (lambda a: a["candidates"].__setitem__((3, 2), 7), "candidates: expected 0 or 1, got 7"),
        (lambda a: a["candidates"].__setitem__(8, 0), "in every row, got none in row 8"),
        (lambda a: a.update(label=a["label"] / 1), r"label: expected whole numbers \[90\]"),
        (lambda a: a.update(label=a["label"] + 1), "label: expected 0 … 3, .*, got 4"),
        (lambda a: a.update(label=a["candidates"]), r"label: expected whole numbers \[90\]"),
    ],
    ids=range(12),
)
def test_arrays_that_break_the_rules_are_refused(change, message, tmp_path):
    arrays = made()
    change(arrays)
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        real_candidate_sets.read(tmp_path / "set.npz")


def test_files_that_are_no_archives_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"sets: expected an .npz file, got .*none\.npz"):
        real_candidate_sets.read(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("features", encoding="utf-8")
    np.save(tmp_path / "single.npy", np.zeros(3))
    np.savez(tmp_path / "objects.npz", features=np.array([{}], object))
    for name in ("text.npz", "single.npy", "objects.npz"):
        with pytest.raises(ValueError, match=r"expected an \.npz archive of plain arrays"):
            real_candidate_sets.read(tmp_path / name)


def test_options_that_do_not_fit_real_sets_are_refused(files, tmp_path):
    config = dataclasses.replace(partial_labels.PRESETS["real"], sets=files)
    np.savez(tmp_path / "results.npz", **made())
    for change, message in (
        ({"folds": 51}, "folds: expected 2 … 50, the rows of unused, got 51"),
        ({"folds": 1}, "folds: expected 2 or more, got 1"),
        ({"sets": (files[0], files[0])}, "sets: expected files of different names"),
        ({"sets": (tmp_path / "results.npz",)}, "none of them results"),
        ({"preset": "digits"}, "sets: expected none with --preset digits"),
    ):
        with pytest.raises(ValueError, match=message):
            partial_labels.run(dataclasses.replace(config, **change), tmp_path / "out")


@pytest.mark.parametrize("name", real_candidate_sets.KNOWN)
def test_ambiguity_of_the_sets_at_hand(name):
    path = SHARED / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"no {path}: the set is for academic use and does not come with jsoft")
    one = real_candidate_sets.describe(real_candidate_sets.read(path))
    assert real_candidate_sets._known_claim(name, one)["verdict"] == "met"
    assert one["unreliability"] == 0
