"""Scenes of handwritten digits on photographs, with the class of every pixel.

Real material that comes with scikit-learn: its digits, 8 × 8 pixels doubled to 16 × 16, pasted
without overlap on crops of its two photographs, in grey. A pixel belongs to the digit's class,
1 … 10, where there is ink, and to the background, class 0, elsewhere; on scenes of 32 × 32 pixels
with two digits, 82 % of all pixels do. Scenes are drawn from a key inside a mapped run, so that no
set of them is ever stored.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

NUM_CLASSES = 11
_DIGIT = 16  # pixels a side
_TILES = {2: (1, 2), 4: (2, 2)}  # rows and columns, one tile for each digit


class Material(NamedTuple):
    """What scenes are made of.

    Attributes:
      photographs: `[2, H, W]` grey, 0 … 1.
      inks: `[N, 16, 16]` digits, 0 … 1.
      classes: `[N]` integers, 1 … 10.
    """

    photographs: jax.Array
    inks: jax.Array
    classes: jax.Array


class Scenes(NamedTuple):
    """Images and what is on them.

    Attributes:
      images: `[N, S, S, 1]` floats.
      labels: `[N, S, S]` integers, 0 … 10.
    """

    images: jax.Array
    labels: jax.Array


def load() -> Material:
    """Return the two photographs and all digits.

    >>> [array.shape for array in load()]
    [(2, 427, 640), (1797, 16, 16), (1797,)]
    """
    from sklearn.datasets import load_digits, load_sample_images

    digits: Any = load_digits()
    photographs = np.stack([image.mean(axis=-1) for image in load_sample_images().images]) / 255
    shape = (len(digits.images), _DIGIT, _DIGIT)
    inks = jax.image.resize(jnp.asarray(digits.images, jnp.float32) / 16, shape, "bilinear")
    classes = jnp.asarray(digits.target, jnp.int32) + 1
    return Material(jnp.asarray(photographs, jnp.float32), inks, classes)


def train_and_test(
    material: Material, key: jax.Array, *, num_train: int, num_test: int, size: int, num_digits: int
) -> tuple[Scenes, Scenes]:
    """Return scenes to learn from and to test on, whose digits are not the same.

    Args:
      material: photographs and digits.
      key: decides everything.
      num_train: scenes to learn from.
      num_test: scenes to test on.
      size: S, pixels a side.
      num_digits: digits on a scene, 2 or 4.

    Returns:
      Images of mean 0 and variance 1 over the scenes to learn from.
    """
    deal_key, train_key, test_key = jax.random.split(key, 3)
    dealt = jax.random.permutation(deal_key, len(material.inks))
    half = (len(dealt) + 1) // 2

    def draw(digits: jax.Array, key: jax.Array, count: int) -> Scenes:
        keys = jax.random.split(key, count)
        return Scenes(*jax.vmap(lambda key: _scene(material, digits, key, size, num_digits))(keys))

    train, test = draw(dealt[:half], train_key, num_train), draw(dealt[half:], test_key, num_test)
    mean, scale = train.images.mean(), train.images.std()
    return (
        train._replace(images=(train.images - mean) / scale),
        test._replace(images=(test.images - mean) / scale),
    )


def _scene(
    material: Material, digits: jax.Array, key: jax.Array, size: int, num_digits: int
) -> tuple[jax.Array, jax.Array]:
    """Return the image `[S, S, 1]` and the labels `[S, S]` of one scene."""
    crop_key, place_key, digit_key, noise_key = jax.random.split(key, 4)
    room = jnp.array(material.photographs.shape) - jnp.array([1, size, size]) + 1
    corner = (jax.random.uniform(crop_key, (3,)) * room).astype(jnp.int32)
    background = lax.dynamic_slice(material.photographs, corner, (1, size, size))[0]
    chosen = jax.random.choice(digit_key, digits, (num_digits,))
    ink, classes = jnp.zeros((size, size)), jnp.zeros((size, size), jnp.int32)
    for digit, place in zip(chosen, _places(place_key, size, num_digits), strict=True):
        one = jnp.broadcast_to(material.classes[digit], (_DIGIT, _DIGIT))
        ink = lax.dynamic_update_slice(ink, material.inks[digit], place)
        classes = lax.dynamic_update_slice(classes, one, place)
    noise = jax.random.normal(noise_key, (size, size))
    image = 0.4 * background + 0.6 * ink + 0.1 * noise
    return image[..., None], jnp.where(ink > 0.4, classes, 0)


def _places(key: jax.Array, size: int, num_digits: int) -> jax.Array:
    """Return the upper left corners `[digits, 2]`, one in each tile, side by side or stacked."""
    rows, columns = _TILES[num_digits]
    tile = np.array([size // rows, size // columns])
    first = np.array([(i, j) for i in range(rows) for j in range(columns)]) * tile
    place_key, turn_key = jax.random.split(key)
    offset = jax.random.uniform(place_key, first.shape) * jnp.array(tile - _DIGIT + 1)[None]
    places = first + offset.astype(jnp.int32)
    return jnp.where(jax.random.bernoulli(turn_key), places[:, ::-1], places)
