"""Data sets of the experiments: one random split per seed, chosen inside a mapped run."""

import dataclasses
import hashlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jsoft import datasets


def load_splits(
    name: str,
    data: Path | None = None,
    *,
    splits: int = 1,
    rows: int | None = None,
    split: str = "4:1:1",
) -> list[datasets.Dataset]:
    """Return a data set, split at random once for each of the keys 0, 1, … up to `splits`.

    Args:
      name: digits, or the name of a prepared TFDS set.
      data: folder of prepared TFDS sets, or the path of an .npz file that takes the place of
        `name`.
      splits: number of random splits.
      rows: training rows to keep, the first of the shuffled ones; all by default.
      split: the ratio train:valid:test, as for `datasets.load`.

    Raises:
      ImportError, ValueError: as `datasets.load`; fewer training rows than asked for.

    >>> [split.train.labels.shape for split in load_splits("digits", splits=2, rows=100)]
    [(100,), (100,)]
    """
    if data is not None and data.suffix == ".npz":
        source, folder = str(data), None
    else:
        source, folder = name, data
    try:
        sets = [
            datasets.load(source, split=split, key=jax.random.key(number), data_dir=folder)
            for number in range(splits)
        ]
    except (ImportError, ValueError) as error:
        error.add_note("The presets tiny and digits run without any data.")
        raise
    if rows is None:
        return sets
    there = len(sets[0].train.labels)
    if not 1 <= rows <= there:
        raise ValueError(f"rows: expected 1 … {there}, the training rows of {name}, got {rows}")
    return [
        dataclasses.replace(one, train=jax.tree.map(lambda array: array[:rows], one.train))
        for one in sets
    ]


def pick(sets: list[datasets.Dataset], seed: jax.Array) -> datasets.Dataset:
    """Return the split of this seed, which may be traced: the seed modulo the number of splits.

    >>> sets = load_splits("digits", splits=2)
    >>> bool((pick(sets, 3).train.index == sets[1].train.index).all())
    True
    """
    if len(sets) == 1:
        return sets[0]
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *sets)
    return jax.tree.map(lambda array: array[seed % len(sets)], stacked)


def fingerprint(sets: list[datasets.Dataset]) -> str:
    """Return a fingerprint of images and labels, so that files of one name are told apart.

    >>> len(fingerprint(load_splits("digits")))
    16
    """
    seen = hashlib.blake2b(digest_size=8)
    for array in jax.tree.leaves(sets):
        seen.update(np.ascontiguousarray(array).tobytes())
    return seen.hexdigest()
