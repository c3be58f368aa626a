"""Libraries to be searched: the molecules that RDKit brings along, and digits in their place.

RDKit's wheel holds small sets of molecules for its own tests: ligands of EGFR, CDK2 and c-Met,
actives of two ChEMBL assays, and two screening libraries. Three of the sets carry coordinates of
some other force field. All that is thrown away: every molecule is read as a graph and gets its
conformers from one pipeline, for otherwise geometry alone would tell actives from decoys.

A conformer becomes 720 numbers that no rotation changes: for each of 36 pairs of the 8 kinds of
heavy atoms, how many such pairs there are at each of 20 distances.
"""

from __future__ import annotations

import csv
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from tqdm import tqdm

from experiments import data
from jsoft import retrieval, sweep

TARGETS = ("EGFR", "CDK2", "c-Met", "CHEMBL2321810", "ChEMBL 11265")

# Where RDKit keeps them, whose ligands they are (5: nobody's, the library) and how many to take.
_SOURCES = (
    ("Contrib", "PBF/testData/egfr.sdf", 0, None),
    ("Contrib", "Fastcluster/testdata/cdk2.sdf", 1, None),
    ("Contrib", "FreeWilson/data/cmet_ligands.sdf", 2, None),
    ("Contrib", "FreeWilson/data/CHEMBL2321810.smi", 3, 250),
    ("Contrib", "fraggle/data/ChEMBL_11265_actives.smi", 4, None),
    ("Data", "NCI/first_5K.smi", 5, None),
    ("Data", "Pains/test_data/wehi_mols.csv", 5, 2500),
)
_SMALLEST, _LARGEST = 14, 38  # heavy atoms
_ELEMENTS = {"C", "N", "O", "S", "F", "Cl", "Br", "I", "P", "H"}
_KINDS = ("c", "C", "N", "O", "S", "F", "Cl", "other")  # of heavy atoms; c is aromatic
_CENTRES = np.linspace(1, 15, 20)  # Å
_WIDTH = 0.75  # Å
_SEED = 0


class Molecules(NamedTuple):
    """Molecules as arrays.

    Attributes:
      target: `[N]` int32, the index in TARGETS, or their number for the library.
      heavy_atoms: `[N]` int32.
      fingerprints: `[N, 2048]` booleans, Morgan fingerprints of radius 2 (ECFP4).
      features: `[N, K, 720]` float32, of K conformers, standardised over the molecules.
    """

    target: np.ndarray
    heavy_atoms: np.ndarray
    fingerprints: np.ndarray
    features: np.ndarray


def load(folder: Path, *, conformers: int = 1, quiet: bool = False) -> Molecules:
    """Return RDKit's molecules, computed once for each version and number of conformers.

    Args:
      folder: where the arrays are kept.
      conformers: K, for each molecule.
      quiet: no progress bar.

    Raises:
      ImportError: RDKit is not installed.
    """
    try:
        import rdkit
    except ImportError as error:
        raise ImportError(
            "source: the molecules are RDKit's, which is not installed; "
            "pip install 'jsoft[molecules]' brings it, the presets tiny and digits do without"
        ) from error
    path = folder / f"molecules-rdkit-{rdkit.__version__}-{conformers}.npz"
    if not path.exists():
        molecules = _compute(conformers, quiet)
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as file:
            np.savez(file, **molecules._asdict())
        part.replace(path)
    with np.load(path) as kept:
        molecules = Molecules(**kept)
    mean = molecules.features.mean(axis=(0, 1), keepdims=True)
    spread = molecules.features.std(axis=(0, 1), keepdims=True)
    features = np.clip((molecules.features - mean) / (spread + 1e-6), -5, 5)
    return molecules._replace(features=features.astype(np.float32))


def _compute(conformers: int, quiet: bool) -> Molecules:
    """Return the molecules with features that are not standardised yet."""
    from rdkit import RDLogger
    from rdkit.Chem import rdFingerprintGenerator

    RDLogger.DisableLog("rdApp.*")  # pyrefly: ignore  # salts and odd valences, thousands of lines
    found = list(_read())
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # RDKit embeds outside of Python's lock
        shapes = list(
            tqdm(
                pool.map(lambda pair: _embed(pair[0], conformers), found),
                total=len(found),
                unit="molecule",
                desc="conformers",
                disable=True if quiet else None,
            )
        )
    kept = [(*pair, shape) for pair, shape in zip(found, shapes, strict=True) if shape is not None]
    return Molecules(
        target=np.array([target for _, target, _ in kept], np.int32),
        heavy_atoms=np.array([mol.GetNumHeavyAtoms() for mol, _, _ in kept], np.int32),
        fingerprints=np.stack([generator.GetFingerprintAsNumPy(mol) for mol, _, _ in kept]) > 0,
        features=np.stack([_features(mol, shape) for mol, _, shape in kept]),
    )


def _read() -> Iterator[tuple[Any, int]]:
    """Yield every molecule once, as a graph without coordinates, and its target."""
    from rdkit import Chem, RDConfig

    folders = {"Contrib": RDConfig.RDContribDir, "Data": RDConfig.RDDataDir}
    seen = set()
    for folder, name, target, limit in _SOURCES:
        new = []
        for smiles in _smiles(Path(folders[folder], name)):
            if smiles not in seen:
                seen.add(smiles)
                new.append(smiles)
        order = np.random.default_rng(_SEED).permutation(len(new))[:limit]
        yield from ((Chem.MolFromSmiles(new[i]), target) for i in sorted(order))


def _smiles(path: Path) -> Iterator[str]:
    """Yield canonical SMILES of the molecules of a file that are drug-like enough."""
    from rdkit import Chem
    from rdkit.Chem.MolStandardize import rdMolStandardize

    largest = rdMolStandardize.LargestFragmentChooser()
    for mol in _molecules(path):
        if mol is None:  # RDKit could not read it
            continue
        mol = largest.choose(mol)
        if (
            _SMALLEST <= mol.GetNumHeavyAtoms() <= _LARGEST
            and {atom.GetSymbol() for atom in mol.GetAtoms()} <= _ELEMENTS
        ):
            yield Chem.MolToSmiles(mol)


def _molecules(path: Path) -> Iterable[Any]:
    """Return the molecules of a file, None for those that RDKit cannot read."""
    from rdkit import Chem

    if path.suffix == ".sdf":
        return Chem.SDMolSupplier(str(path))
    with path.open(encoding="utf-8") as file:
        rows = csv.reader(file) if path.suffix == ".csv" else map(str.split, file)
        return [Chem.MolFromSmiles(row[0]) for row in rows if row]


def _embed(mol: Any, conformers: int) -> np.ndarray | None:
    """Return the places of the heavy atoms `[K, atoms, 3]` in Å; None where there are none."""
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom

    whole = Chem.AddHs(mol)
    settings = rdDistGeom.ETKDGv3()
    settings.randomSeed = _SEED
    settings.maxIterations = 20
    places = list(rdDistGeom.EmbedMultipleConfs(whole, conformers, settings))
    if not places:
        return None
    heavy = [atom.GetIdx() for atom in whole.GetAtoms() if atom.GetAtomicNum() > 1]
    found = np.stack([whole.GetConformer(i).GetPositions()[heavy] for i in places])
    return np.resize(found, (conformers, *found.shape[1:]))  # repeated where some would not embed


def _features(mol: Any, places: np.ndarray) -> np.ndarray:
    """Return log(1 + Σ over pairs of atoms of a Gaussian in their distance), `[K, 720]`."""
    kinds = np.array([_kind(atom) for atom in mol.GetAtoms() if atom.GetAtomicNum() > 1])
    first, second = np.triu_indices(len(kinds), 1)
    low, high = np.minimum(kinds[first], kinds[second]), np.maximum(kinds[first], kinds[second])
    pair = high * (high + 1) // 2 + low  # of 36
    distance = np.linalg.norm(places[:, first] - places[:, second], axis=-1)  # [K, pairs]
    heights = np.exp(-(((distance[..., None] - _CENTRES) / _WIDTH) ** 2) / 2)  # [K, pairs, 20]
    num_pairs = len(_KINDS) * (len(_KINDS) + 1) // 2
    sums = np.zeros((len(places), num_pairs, len(_CENTRES)))
    for total, height in zip(sums, heights, strict=True):
        np.add.at(total, pair, height)
    return np.log1p(sums).reshape(len(places), -1).astype(np.float32)


def _kind(atom: Any) -> int:
    """Return which of the eight kinds of heavy atoms it is."""
    symbol = "c" if atom.GetIsAromatic() and atom.GetSymbol() == "C" else atom.GetSymbol()
    return _KINDS.index(symbol) if symbol in _KINDS else len(_KINDS) - 1


class Library(NamedTuple):
    """What is searched, and how seeds divide it.

    T targets, L labelled rows of each, M rows to rank for each. Rows of no target have target T.

    Attributes:
      features: `[N, K, F]` of K conformers.
      target: `[N]` integers.
      labelled: `[seeds, T, L]` rows whose target is told.
      pool: `[seeds, U]` rows to learn from without it, in random order.
      ranked: `[seeds, T, M]` rows to rank.
      kept: `[seeds, T, M]` booleans, which of them there are.
    """

    features: Any
    target: Any
    labelled: Any
    pool: Any
    ranked: Any
    kept: Any


def digits_library(*, seeds: int, labelled: int) -> Library:
    """Return the digits, with every digit of the test rows to be found among all of them."""
    sets = data.load_splits("digits", splits=seeds)
    num_rows = sum(len(part.labels) for part in (sets[0].train, sets[0].valid, sets[0].test))
    images, target = np.zeros((num_rows, 64), np.float32), np.zeros(num_rows, np.int32)
    for part in (sets[0].train, sets[0].valid, sets[0].test):
        images[part.index] = part.images.reshape(-1, 64)
        target[part.index] = part.labels
    pool = np.stack([split.train.index for split in sets])
    test = np.stack([np.concatenate([split.valid.index, split.test.index]) for split in sets])
    told = [[rows[target[rows] == digit][:labelled] for digit in range(10)] for rows in pool]
    ranked = np.repeat(test[:, None], 10, axis=1)
    return Library(
        features=images[:, None],
        target=target,
        labelled=np.array(told),
        pool=pool,
        ranked=ranked,
        kept=np.ones(ranked.shape, bool),
    )


def molecules_library(found: Molecules, *, seeds: int, labelled: int, decoys: int) -> Library:
    """Return the molecules, with up to 60 ligands of every target to be found among decoys."""
    divided = [divide(found, seed, labelled=labelled, decoys=decoys) for seed in range(seeds)]
    told, pool, ranked, kept = (np.stack(parts) for parts in zip(*divided, strict=True))
    return Library(found.features, found.target, told, pool, ranked, kept)


def divide(
    found: Molecules, seed: int, *, labelled: int, decoys: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return labelled rows, pool, ranked rows and which of these there are, of one seed.

    Of the ligands that are not labelled half are to be found, 60 at most; two fifths of the library
    are in the pool. Of the rest every target draws its decoys anew, those nearest in size first.
    """
    rng = np.random.default_rng(seed)
    num_targets, most = len(TARGETS), 60
    library = rng.permutation(np.flatnonzero(found.target == num_targets))
    unlabelled, others = np.split(library, [2 * len(library) // 5])
    pool, told = [unlabelled], []
    ranked = np.zeros((num_targets, most * (1 + decoys)), np.int64)
    kept = np.zeros(ranked.shape, bool)
    for target in range(num_targets):
        ligands = rng.permutation(np.flatnonzero(found.target == target))
        hidden = ligands[labelled:]
        wanted = hidden[: min(most, len(hidden) // 2)]
        told.append(ligands[:labelled])
        pool.append(np.setdiff1d(ligands, wanted))
        rows = np.concatenate([wanted, matched(found.heavy_atoms, wanted, others, decoys)])
        rng.shuffle(rows)  # equal scores stand in the order of input: ligands must not come first
        ranked[target, : len(rows)] = rows
        kept[target, : len(rows)] = True
    return np.array(told), rng.permutation(np.concatenate(pool)), ranked, kept


def matched(sizes: np.ndarray, wanted: np.ndarray, others: np.ndarray, each: int) -> np.ndarray:
    """Return up to `each` of `others` for each of `wanted`, without repetition, of like sizes.

    Two heavy atoms more or less are alike. The wanted choose in turns, one at a time.

    >>> sizes = np.array([20, 30, 31, 29, 21, 19, 25])
    >>> matched(sizes, np.array([0, 1]), np.array([2, 3, 4, 5, 6]), 3).tolist()
    [4, 2, 5, 3]
    """
    apart = np.abs(sizes[wanted][:, None] - sizes[others][None]).astype(float)
    taken = []
    for _ in range(each):
        for row in apart:
            best = int(np.argmin(row))
            if row[best] <= 2:
                taken.append(others[best])
                apart[:, best] = np.inf
    return np.array(taken, np.int64)


def pick(library: Library, seed: jax.Array) -> Library:
    """Return the library as this seed divides it."""
    of_seed = {
        name: jnp.asarray(getattr(library, name))[seed]
        for name in ("labelled", "pool", "ranked", "kept")
    }
    return library._replace(**of_seed)


def nearest_cosine(embeddings: jax.Array, split: Library) -> jax.Array:
    """Return the largest cosine of every ranked row to a labelled one of the target, `[T, M]`."""

    def of_target(ranked: jax.Array, labelled: jax.Array) -> jax.Array:
        cosine = optax.losses.cosine_similarity(
            embeddings[ranked][:, None], embeddings[labelled][None], epsilon=1e-12
        )
        return cosine.max(axis=1)

    return jax.vmap(of_target)(split.ranked, split.labelled)


def nearest_tanimoto(fingerprints: jax.Array, split: Library) -> jax.Array:
    """Return the largest share of common bits with a labelled row of the target, `[T, M]`."""

    def of_target(rows: tuple[jax.Array, jax.Array]) -> jax.Array:
        ranked, labelled = (fingerprints[part].astype(jnp.float32) for part in rows)
        common = ranked @ labelled.T
        either = ranked.sum(axis=1, keepdims=True) + labelled.sum(axis=1)[None] - common
        return (common / either).max(axis=1)

    return lax.map(of_target, (split.ranked, split.labelled))


def retrieve(scores: jax.Array, split: Library) -> dict[str, jax.Array]:
    """Return how well scores `[T, M]` bring a target's own rows first, means over targets."""
    own = jnp.asarray(split.target)[split.ranked] == jnp.arange(len(scores))[:, None]

    def mean(metric: Callable[..., jax.Array]) -> jax.Array:
        return jax.vmap(lambda s, y, kept: metric(s, y, where=kept))(scores, own, split.kept).mean()

    return {
        "auroc": mean(retrieval.auroc),
        "bedroc": mean(retrieval.bedroc),
        "ef1": mean(functools.partial(retrieval.enrichment_factor, fraction=0.01)),
    }


def baselines(library: Library, found: Molecules | None) -> Callable[..., dict[str, jax.Array]]:
    """Return the function of (point, key) that searches without any training.

    By the features as they are; of molecules also by fingerprints, and by the number of heavy
    atoms, which decoys of like size should leave at AUROC ½.
    """

    def search(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        split = pick(library, point["seed"])
        scores = {"raw": nearest_cosine(jnp.asarray(split.features)[:, 0], split)}
        if found is not None:
            scores["fingerprint"] = nearest_tanimoto(jnp.asarray(found.fingerprints), split)
            sizes = jnp.asarray(found.heavy_atoms, jnp.float32)
            apart = jnp.abs(sizes[split.ranked][..., None] - sizes[split.labelled][:, None])
            scores["size"] = -apart.min(axis=2)
        return {
            f"{name}_{measure}": value
            for name, ranking in scores.items()
            for measure, value in retrieve(ranking, split).items()
        }

    return search
