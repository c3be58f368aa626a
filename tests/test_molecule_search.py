"""Molecule search from the command line to the figure, on its tiny preset, and its parts."""

import dataclasses
import json
import os
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

from experiments import molecule_search, molecules
from tests.experiment_runs import check_redraws, command

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("molecule_search")
    done = command("molecule_search", "--preset", "tiny", "--quiet", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def columns(results, name):
    path = results[0] / "results" / "molecule_search" / "tiny" / f"{name}.parquet"
    table = pq.read_table(path)
    return {column: table[column].to_numpy() for column in table.column_names}


def test_tiny_preset_writes_tables_figure_and_summary(results):
    folder, printed = results
    out = folder / "results" / "molecule_search" / "tiny"
    assert sorted(os.listdir(out)) == [
        "baselines.parquet",
        "figure.png",
        "figure.svg",
        "plans.parquet",
        "results.parquet",
        "summary.json",
    ]
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["runs"] == {"baselines": 2, "plans": 1, "results": 4}
    assert [claim["id"] for claim in summary["claims"]] == ["S1", "S2", "S3"]
    assert "raw features" in printed
    rows = columns(results, "results")
    assert len(rows["seed"]) == 2 * 2 * 2  # γ × seeds × looks
    assert (rows["f_auroc"] > 0.7).all()  # better than chance after ten steps


def test_f_does_not_see_gamma_and_g_does(results):
    rows = columns(results, "results")
    identity, plan = rows["gamma"] == 0, rows["gamma"] == 1
    assert_array_equal(rows["f_auroc"][identity], rows["f_auroc"][plan])
    assert (rows["g_auroc"][identity] != rows["g_auroc"][plan]).all()


def test_identity_is_right_about_itself_and_says_nothing_of_others(results):
    rows = columns(results, "results")
    identity = rows["gamma"] == 0
    assert_allclose(rows["plan_margin"][identity], 1, rtol=1e-6)
    assert_allclose(rows["plan_mean_label_margin"][identity], 1, rtol=1e-6)
    assert_allclose(rows["others_margin"][identity], 0, atol=1e-6)
    assert_array_equal(rows["others_mean_label_margin"][identity], 0)


def test_plans_that_are_drawn_have_rows_of_one(results):
    rows = columns(results, "plans")
    assert_allclose(rows["mass"].reshape(32, 32).sum(axis=1), 1, rtol=1e-5)
    targets = rows["row_target"].reshape(32, 32)
    assert (np.diff(targets[:, 0]) >= 0).all()
    assert_array_equal(targets.T, rows["column_target"].reshape(32, 32))


def test_plot_only_redraws_the_same_files_without_training(results):
    check_redraws("molecule_search", *results)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 1}, "seeds: expected 2 or more, got 1"),
        ({"labelled": 1}, "labelled: expected 2 or more, got 1"),
        ({"looks": 3}, "looks: expected a divisor of 20 steps, got 3"),
        ({"transport_batch": 24}, "transport_batch: expected a divisor of batch_size, 32, got 24"),
        ({"gammas": (0.5, 1.0)}, "gammas: expected 0"),
        ({"gammas": (0.0, 0.5)}, "gammas: expected 0"),
        ({"gammas": (-1.0, 0.0, 1.0)}, "gammas: expected 0"),
        ({"shown": (0.0,)}, "shown: expected numbers above zero"),
        ({"shown": ()}, "shown: expected numbers above zero"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options, message, tmp_path):
    config = dataclasses.replace(molecule_search.PRESETS["tiny"], **options)
    with pytest.raises(ValueError, match=message):
        molecule_search.run(config, tmp_path)


def test_molecules_without_rdkit_name_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(ImportError, match=r"pip install 'jsoft\[molecules\]'"):
        molecule_search.run(molecule_search.PRESETS["molecules"], tmp_path)


def stand_in(num_rows=900, conformers=1, width=720):
    """Five targets of 60 ligands each, and a library, in random features."""
    target = np.minimum(np.arange(num_rows) // 60, 5).astype(np.int32)
    return molecules.Molecules(
        target=target,
        heavy_atoms=RNG.integers(14, 39, num_rows).astype(np.int32),
        fingerprints=RNG.random((num_rows, 64)) < 0.2,
        features=RNG.normal(size=(num_rows, conformers, width)).astype(np.float32),
    )


@pytest.mark.slow
def test_full_scale_can_be_traced():
    config = dataclasses.replace(molecule_search.PRESETS["full"], seeds=1)
    found = stand_in(conformers=config.conformers)
    library = molecules.molecules_library(found, seeds=1, labelled=3, decoys=config.decoys)
    shapes = jax.eval_shape(
        molecule_search.searching(library, config),
        {"gamma": jnp.float32(1), "seed": jnp.int32(0)},
        jax.random.key(0),
    )
    assert shapes["g_auroc"].shape == (config.looks,)


def test_seeds_divide_the_molecules():
    found = stand_in()
    library = molecules.molecules_library(found, seeds=2, labelled=3, decoys=4)
    assert not np.array_equal(library.labelled[0], library.labelled[1])
    for seed in range(2):
        for target in range(5):
            told = library.labelled[seed, target]
            ranked = library.ranked[seed, target][library.kept[seed, target]]
            assert (found.target[told] == target).all()
            assert set(told) <= set(library.pool[seed])  # g learns from them too
            assert len(set(ranked)) == len(ranked)
            assert not set(ranked) & set(library.pool[seed])
            own = found.target[ranked] == target
            assert own.sum() == 28  # half of 57
            assert (found.target[ranked[~own]] == 5).all()
            assert (~own).sum() == 4 * 28
            sizes = [found.heavy_atoms[ranked[part]].mean() for part in (own, ~own)]
            assert abs(sizes[0] - sizes[1]) < 1.5


def test_digits_are_divided_likewise():
    library = molecules.digits_library(seeds=2, labelled=3)
    assert library.features.shape == (1797, 1, 64)
    for seed in range(2):
        assert not set(library.ranked[seed, 0]) & set(library.pool[seed])
        for digit in range(10):
            assert (library.target[library.labelled[seed, digit]] == digit).all()


def test_nearest_labelled_rows_by_cosine_and_by_tanimoto():
    found = stand_in(width=8)
    split = molecules.molecules_library(found, seeds=1, labelled=3, decoys=4)
    split = molecules.pick(split, jnp.int32(0))
    cosine = jax.jit(molecules.nearest_cosine)(found.features[:, 0], split)
    tanimoto = jax.jit(molecules.nearest_tanimoto)(jnp.asarray(found.fingerprints), split)
    for target, place in ((0, 0), (3, 17)):
        row, labelled = split.ranked[target, place], split.labelled[target]
        x = found.features[row, 0]
        expected = [
            x @ y / np.sqrt((x @ x) * (y @ y)) for y in found.features[np.asarray(labelled), 0]
        ]
        assert_allclose(cosine[target, place], max(expected), rtol=1e-5)
        bits = found.fingerprints[row]
        others = found.fingerprints[np.asarray(labelled)]
        expected = [(bits & other).sum() / (bits | other).sum() for other in others]
        assert_allclose(tanimoto[target, place], max(expected), rtol=1e-6)


def test_indicators_of_a_plan_by_hand():
    # Two targets, 0 0 1, and one molecule of the library (2).
    plan = np.array(
        [[0.5, 0.3, 0.1, 0.1], [0.3, 0.5, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1], [0.1, 0.1, 0.1, 0.7]],
        np.float32,
    )
    found = jax.jit(molecule_search.measure, static_argnums=(2, 3))(
        plan[None], jnp.array([[0, 0, 1, 2]]), 2, 3
    )
    assert found["plan_k"] == 1
    assert found["plan_margin"] == 1  # 0.8, 0.8 and 0.7 for the truth
    assert_allclose(found["plan_mean_label_margin"], 0.5, rtol=1e-6)  # of target 1, against 0.2
    # Without itself target 1 gets nothing, target 0 0.2, the library 0.1.
    assert_allclose(found["others_unreliability"], 1 / 3, rtol=1e-6)
    assert_allclose(found["others_ambiguity"], 1, rtol=1e-6)
    assert_allclose(found["others_mean_label_margin"], -0.2, rtol=1e-6)


def test_identity_stands_for_gamma_zero():
    config = molecule_search.PRESETS["tiny"]
    embeddings = jnp.asarray(RNG.normal(size=(2, 32, 16)), jnp.float32)
    labels = jax.jit(lambda gamma: molecule_search.soft_labels(embeddings, gamma, config))
    assert_array_equal(labels(0.0), np.broadcast_to(np.eye(32), (2, 32, 32)))
    assert_allclose(labels(1.0).sum(axis=2), 1, rtol=1e-5)


def test_what_picking_gamma_by_an_indicator_costs():
    last = {
        "gamma": np.array([[0.5, 0.5], [1.0, 1.0]]),
        "g_auroc": np.array([[0.9, 0.8], [0.7, 0.9]]),
        "good": np.array([[2.0, 1.0], [0.0, 2.5]]),
        "bad": np.array([[0.0, 1.0], [1.0, 0.0]]),
        "flat": np.zeros((2, 2)),
    }
    good, bad, flat = (molecule_search.predicted(last, name) for name in ("good", "bad", "flat"))
    assert good["auroc_lost"] == 0
    assert good["spearman_within_seeds"] == 1
    assert good["gamma_picked"] == 0.5  # 1.5 against 1.25
    assert bad["auroc_lost"] == 0.15  # 0.2 and 0.1
    assert bad["spearman_within_seeds"] == -1
    assert flat["spearman"] is None
    assert flat["spearman_within_seeds"] is None


def atom(symbol, aromatic=False, number=6):
    return SimpleNamespace(
        GetSymbol=lambda: symbol, GetIsAromatic=lambda: aromatic, GetAtomicNum=lambda: number
    )


def test_features_see_distances_of_pairs_and_nothing_else():
    mol = SimpleNamespace(GetAtoms=lambda: [atom("C"), atom("N"), atom("Br"), atom("C", True)])
    places = RNG.normal(size=(2, 4, 3)) * 2
    found = molecules._features(mol, places)
    assert found.shape == (2, 720)
    assert found.dtype == np.float32
    turned = places @ Rotation.random(rng=0).as_matrix().T + 5
    assert_allclose(molecules._features(mol, turned), found, atol=1e-5)
    # kinds c C N … other: 0 1 2 … 7; the pair (C, N) is number 2 · 3/2 + 1
    distance = np.linalg.norm(places[0, 0] - places[0, 1])
    bell = np.exp(-(((distance - np.linspace(1, 15, 20)) / 0.75) ** 2) / 2)
    assert_allclose(found[0].reshape(36, 20)[4], np.log1p(bell), atol=1e-5)
    assert (found[0].reshape(36, 20).any(axis=1)).sum() <= 6


def test_molecules_are_read_and_embedded_by_rdkit():
    chem = pytest.importorskip("rdkit.Chem")
    mol = chem.MolFromSmiles("c1ccccc1CC(=O)NCCOc1ccccc1")
    places = molecules._embed(mol, 2)
    assert places is not None
    assert places.shape == (2, mol.GetNumHeavyAtoms(), 3)
    assert_allclose(molecules._embed(mol, 2), places)  # one seed, one answer
    assert molecules._features(mol, places).shape == (2, 720)


@pytest.mark.slow  # compiles a training of its own
def test_encoders_begin_alike():
    """The same start for f and g, as in the paper, so that at γ = 0 only their losses differ."""
    config = dataclasses.replace(molecule_search.PRESETS["tiny"], steps=2, looks=1, warmup=2)
    library = molecules.digits_library(seeds=2, labelled=3)
    split = molecules.pick(library, jnp.int32(0))
    params, _ = jax.jit(
        lambda key: molecule_search.train(split, jnp.float32(1), key, config, lambda _: {})
    )(jax.random.key(0))
    start = molecule_search.encoder(config).init(
        jax.random.split(jax.random.key(0))[0], library.features[:1, 0]
    )
    # During the warm-up g only decays.
    for old, new in zip(jax.tree.leaves(start), jax.tree.leaves(params["g"]), strict=True):
        assert_allclose(new, old, rtol=1e-3, atol=1e-6)
    assert any(
        np.abs(old - new).max() > 1e-4
        for old, new in zip(jax.tree.leaves(start), jax.tree.leaves(params["f"]), strict=True)
    )
