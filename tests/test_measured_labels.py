"""Measured labels from the command line to the figure, against loops over the examples."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from experiments import measured_labels
from tests.experiment_runs import FILES, check_redraws, command

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "soft_labels"
SOFT_LABELS = Path(os.environ.get("JSOFT_SOFT_LABELS", SHARED))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured_labels")
    done = command("measured_labels", "--preset", "tiny", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def tables(results):
    out = results[0] / "results" / "measured_labels" / "tiny"
    return {name: pq.read_table(out / f"{name}.parquet") for name in ("results", "certificates")}


def write_files(folder, *, num_rows=120, seed=0):
    """Write small files named and shaped like the real ones."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_rows, dtype=np.uint8) % 10
    chances = 0.7 * np.eye(10)[labels] + 0.03
    told = np.array([[rng.choice(10, p=row) for row in chances] for _ in range(3)])
    votes = np.stack([(told == c).sum(axis=0) for c in range(10)], axis=1)
    worst = np.where(told[0] != labels, told[0], told[1])
    np.save(folder / "cifar10_test_labels.npy", labels)
    np.save(folder / "cifar10h_counts.npy", rng.multinomial(20, chances).astype(np.uint8))
    np.save(folder / "cifar10_test_pyx.npy", rng.dirichlet(np.ones(10), num_rows))
    np.savez(
        folder / "cifar10n_train.npz",
        clean=labels,
        random1=told[0],
        random2=told[1],
        random3=told[2],
        aggregate=votes.argmax(axis=1),
        worst=worst,
    )
    return labels, votes / 3


def test_tiny_preset_writes_tables_figure_and_summary(results):
    folder, printed = results
    out = folder / "results" / "measured_labels" / "tiny"
    assert {path.name for path in out.iterdir()} == FILES | {"certificates.parquet"}
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["sources"]) == {"neighbours", "tree"}
    assert summary["sources"]["neighbours"]["seeds"] == 2
    assert summary["sources"]["neighbours"]["certified"]["paper"] == "2 of 2"
    assert summary["tie_rule"].startswith("fractional")
    assert [row["verdict"] for row in summary["claims"]] == ["met", "met"]
    assert "neighbours: Certified with 95 % confidence" in printed
    assert "tree: Not certified" in printed
    assert (out / "figure.png").stat().st_size > 30_000


def test_rows_obey_the_counts_of_a_set(tables):
    for row in tables["results"].to_pylist():
        # the C − 1 wrong classes of the worst class share k − 1 + Δ_y, and Δ_y ≥ Δ for some y
        least = (row["k"] - 1 + row["unreliability"]) / (row["classes"] - 1)
        assert row["ambiguity"] >= least - 1e-6
        for name in ("unreliability", "ambiguity"):
            assert row[f"{name}_low"] <= row[name] + 1e-6
            assert row[f"{name}_high"] >= row[name] - 1e-6
        np.testing.assert_allclose(
            row["margin"], 1 - row["unreliability"] - row["ambiguity"], atol=1e-6
        )
        # whatever is certified holds of the sample
        assert row["margin"] > 0 or not row["certified_paper"]


def test_measurements_are_those_of_a_loop_over_the_examples():
    rng = np.random.default_rng(1)
    labels = np.arange(90) % 3
    counts = rng.multinomial(4, 0.5 * np.eye(3)[labels] + 0.5 / 3)  # few votes, many ties
    rows = measured_labels.measurements((counts / 4).astype(np.float32), labels, alpha=0.1, seed=0)
    assert [row["k"] for row in rows] == [1, 2]
    for row in rows:
        k, weights, first = row["k"], np.zeros((90, 3)), np.zeros((90, 3))
        for n, votes in enumerate(counts):
            for i in range(3):
                above, equal = (votes > votes[i]).sum(), (votes == votes[i]).sum()
                weights[n, i] = min(1, max(0, (k - above) / equal))
                first[n, i] = above + (votes[:i] == votes[i]).sum() < k
        for name, members in (("", weights), ("_by_index", first)):
            missed = 1 - members[np.arange(90), labels].mean()
            cells = [members[labels == y, i].mean() for y in range(3) for i in range(3) if i != y]
            np.testing.assert_allclose(row[f"unreliability{name}"], missed, atol=1e-6)
            np.testing.assert_allclose(row[f"ambiguity{name}"], max(cells), atol=1e-6)
        own = counts[np.arange(90), labels][:, None]
        surely, possibly = ((counts > own).sum(1) >= k).sum(), ((counts >= own).sum(1) > k).sum()
        assert surely < possibly
        low = stats.beta.ppf(0.05, surely, 91 - surely) if surely else 0
        high = stats.beta.ppf(0.95, possibly + 1, 90 - possibly)
        interval = (row["unreliability_low"], row["unreliability_high"])
        np.testing.assert_allclose(interval, (low, high), rtol=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_models_answer_digits_that_they_did_not_see(seed):
    from sklearn.datasets import load_digits

    for name, right in (("discriminant", 0.9), ("neighbours", 0.95), ("tree", 0.4)):
        source = measured_labels.SOURCES[name]
        soft_labels, labels = source.read(None, seed, 3)
        assert soft_labels.shape == (1797, 10)
        np.testing.assert_array_equal(labels, load_digits().target)
        np.testing.assert_allclose(soft_labels.sum(axis=1), 1, atol=1e-5)
        assert (soft_labels.argmax(axis=1) == labels).mean() > right
    votes = measured_labels.SOURCES["neighbours"].read(None, seed, 3)[0] * 10
    np.testing.assert_allclose(votes, votes.round(), atol=1e-5)


def test_files_are_read_as_votes_and_probabilities(tmp_path):
    labels, votes = write_files(tmp_path)
    read = {name: measured_labels.SOURCES[name].read for name in measured_labels.SOURCES}
    soft_labels, true = read["cifar10n_votes"](tmp_path, 0, 2)
    np.testing.assert_array_equal(true, labels)
    np.testing.assert_allclose(soft_labels, votes, atol=1e-6)
    soft_labels, _ = read["cifar10h"](tmp_path, 0, 2)
    np.testing.assert_allclose(soft_labels.sum(axis=1), 1, atol=1e-6)
    (tmp_path / "cifar10h_counts.npy").rename(tmp_path / "cifar10h-counts.npy")  # as published
    np.testing.assert_array_equal(read["cifar10h"](tmp_path, 0, 2)[0], soft_labels)


def test_cifar10_preset_measures_files_of_the_same_form(tmp_path):
    write_files(tmp_path)
    config = dataclasses.replace(measured_labels.PRESETS["cifar10"], data=tmp_path)
    sources = ("cifar10h", "cifar10n_votes", "cifar10n_worst")
    config = dataclasses.replace(config, sources=sources)
    tables = measured_labels.run(config, tmp_path)
    summary = measured_labels.summarise(tables)
    assert set(summary["sources"]) == set(sources)
    json.dumps(summary, allow_nan=False)
    of_ties = summary["claims"][-1]
    assert of_ties["claim"].startswith("γ of one-hot labels at k = 3")
    assert of_ties["verdict"] == "met"
    # other labels than those that were measured before
    assert summary["claims"][-2]["verdict"] == "not met"
    assert measured_labels.plot(tables).axes


def test_plot_only_redraws_the_same_files_without_measuring(results):
    check_redraws("measured_labels", *results)


def test_a_file_that_is_not_there_is_named_with_its_project(tmp_path):
    done = command("measured_labels", "--preset", "cifar10", folder=tmp_path)
    assert done.returncode != 0
    assert (
        "data: expected a folder with cifar10h_counts.npy or cifar10h-counts.npy, published on "
        "GitHub by the project jcpeterson/cifar-10h, got None; --preset digits needs no file"
    ) in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": ("cifar11",)}, "sources: expected some of discriminant, neighbours, tree"),
        ({"sources": ()}, "sources: expected some of"),
        ({"seeds": 0}, "seeds: expected 1 or more, got 0"),
        ({"folds": 1}, "folds: expected 2 or more, got 1"),
        ({"alpha": 1.0}, r"alpha: expected a number in \(0, 1\), got 1.0"),
        ({"sources": ("probabilities",)}, "cifar10_test_pyx.npy .* cleanlab/label-errors"),
        ({"sources": ("cifar10n_votes",)}, "cifar10n_train.npz, .* UCSC-REAL/cifar-10-100n"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options, message, tmp_path):
    config = dataclasses.replace(measured_labels.PRESETS["tiny"], data=tmp_path, **options)
    with pytest.raises(ValueError, match=message):
        measured_labels.run(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_files_of_another_form_are_refused(tmp_path):
    write_files(tmp_path)
    np.save(tmp_path / "cifar10h_counts.npy", np.ones((7, 10), np.uint8))
    np.savez(tmp_path / "cifar10n_train.npz", clean=np.arange(10), random1=np.arange(10))
    for source, message in (
        ("cifar10h", r"cifar10h_counts.npy: expected shape \[120, C\], .* got \[7, 10\]"),
        ("cifar10n_votes", "cifar10n_train.npz: expected arrays random2, random3"),
    ):
        with pytest.raises(ValueError, match=message):
            measured_labels.SOURCES[source].read(tmp_path, 0, 2)


@pytest.mark.slow
@pytest.mark.skipif(
    not (SOFT_LABELS / "cifar10n_train.npz").exists(),
    reason="CIFAR-10H, CIFAR-10N and cross-validated probabilities are not at hand "
    "(JSOFT_SOFT_LABELS names their folder)",
)
def test_real_labels_give_what_they_gave_before(tmp_path):
    config = dataclasses.replace(measured_labels.PRESETS["cifar10"], data=SOFT_LABELS)
    summary = measured_labels.summarise(measured_labels.run(config, tmp_path))
    assert [row["verdict"] for row in summary["claims"]] == ["met"] * 8
