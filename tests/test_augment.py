"""Transforms of images: golden numbers of the released code, identities, draws, bad input."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jsoft import augment

GOLDEN = np.load(Path(__file__).parent / "golden" / "label_worth_dsa.npz")
IMAGES = GOLDEN["x"].transpose(0, 2, 3, 1)
NAMES = {
    "brightness": augment.brightness,
    "saturation": augment.saturation,
    "contrast": augment.contrast,
    "flip": augment.flip,
    "scale": augment.scale,
    "rotate": augment.rotate,
    "crop": augment.shift,
    "cutout": augment.cutout,
}


@pytest.mark.parametrize("name", NAMES)
def test_transforms_are_those_of_the_released_code(name):
    draws = [
        GOLDEN[key].reshape(-1)
        for key in (f"rand_{name}.draw0", f"rand_{name}.draw1")
        if key in GOLDEN.files
    ]
    expected = GOLDEN[f"rand_{name}.out"].transpose(0, 2, 3, 1)
    found = NAMES[name](IMAGES, *draws)
    assert_allclose(found, expected, atol=1e-4 if name in ("scale", "rotate") else 1e-5)
    # Each image by itself, and compiled.
    single = jax.jit(jax.vmap(lambda x, *d: NAMES[name](x[None], *(one[None] for one in d))[0]))
    assert_allclose(single(IMAGES, *draws), found, atol=1e-5)


def test_draws_in_the_middle_change_nothing():
    half, zero = np.full(5, 0.5, np.float32), np.zeros(5, int)
    for same in (
        augment.brightness(IMAGES, half),
        augment.saturation(IMAGES, half),
        augment.contrast(IMAGES, half),
        augment.flip(IMAGES, half),
        augment.rotate(IMAGES, half),
        augment.shift(IMAGES, zero, zero),
        augment.cutout(IMAGES, zero, zero, ratio=0.0),
        augment.scale(IMAGES, half, half, ratio=1.0),
    ):
        assert_allclose(same, IMAGES, atol=1e-5)


def test_gradients_reach_the_images():
    draws = np.full(5, 0.3, np.float32)
    for transform in (augment.rotate, augment.contrast, augment.flip):
        slope = jax.grad(lambda x, f=transform: f(x, draws).sum())(jnp.asarray(IMAGES))
        assert np.isfinite(slope).all()
        assert np.abs(slope).max() > 0


def test_one_kind_is_drawn_for_the_batch():
    draw = jax.jit(lambda key: augment.augment(IMAGES, key, kinds=("flip", "colour")))
    flipped = coloured = 0
    for key in jax.random.split(jax.random.key(0), 30):
        found = np.asarray(draw(key))
        mirrored = [np.allclose(x, y[:, ::-1]) for x, y in zip(found, IMAGES, strict=True)]
        same = [np.allclose(x, y) for x, y in zip(found, IMAGES, strict=True)]
        if all(a or b for a, b in zip(mirrored, same, strict=True)):
            flipped += 1
        else:
            assert not any(mirrored)
            coloured += 1
    assert min(flipped, coloured) > 5


def test_every_kind_keeps_shape_and_finite_numbers():
    for kind in augment.KINDS:
        found = augment.augment(IMAGES, jax.random.key(1), kinds=(kind,))
        assert found.shape == IMAGES.shape
        assert np.isfinite(found).all()


MIX = np.load(Path(__file__).parent / "golden" / "label_pruning_mix.npz")
MIXED = MIX["images"].transpose(0, 2, 3, 1)


@pytest.mark.parametrize("case", range(4))
def test_cutmix_is_that_of_the_released_code(case):
    partners, box = MIX[f"cutmix{case}.perm"], MIX[f"cutmix{case}.bbox"]
    found = jax.jit(augment.cutmix)(MIXED, partners.astype(np.int32), box)
    assert_array_equal(found, MIX[f"cutmix{case}.out"].transpose(0, 2, 3, 1))


@pytest.mark.parametrize("case", range(2))
def test_mixup_is_that_of_the_released_code(case):
    share = MIX[f"mixup{case}.lam"].astype(np.float32)
    found = augment.mixup(MIXED, MIX[f"mixup{case}.perm"], share)
    assert_allclose(found, MIX[f"mixup{case}.out"].transpose(0, 2, 3, 1), atol=1e-6)


def test_boxes_are_those_of_the_released_code():
    boxes = {}
    for width, height, share, x, y, *corners in MIX["bbox_table"]:
        size = (int(width), int(height))
        if size not in boxes:
            boxes[size] = jax.jit(
                lambda share, x, y, size=size: augment.cutmix_box(share, (x, y), size)
            )
        assert_array_equal(boxes[size](np.float32(share), int(x), int(y)), corners)


BAD = {
    "partners": (
        ValueError,
        "partners: ",
        lambda: augment.cutmix(IMAGES, np.arange(5) + 1, [0] * 4),
    ),
    "box": (
        ValueError,
        "box: expected four",
        lambda: augment.cutmix(IMAGES, np.arange(5), np.zeros(4)),
    ),
    "share": (ValueError, "share: ", lambda: augment.mixup(IMAGES, np.arange(5), 1.5)),
    "center": (ValueError, "center y: .*got 4", lambda: augment.cutmix_box(0.5, (0, 4), (4, 4))),
    "integers": (TypeError, "images: ", lambda: augment.flip(np.ones((1, 2, 2, 1), int), [0.5])),
    "no batch": (ValueError, r"images: expected shape \[B", lambda: augment.flip(IMAGES[0], [0.5])),
    "draws": (ValueError, "one for each image", lambda: augment.flip(IMAGES, np.zeros(2))),
    "offsets": (
        TypeError,
        "offsets: expected whole",
        lambda: augment.shift(IMAGES, np.zeros(5), np.zeros(5)),
    ),
    "ratio": (
        ValueError,
        "ratio: ",
        lambda: augment.scale(IMAGES, np.ones(5), np.ones(5), ratio=0.5),
    ),
    "kinds": (
        ValueError,
        "kinds: expected some of colour",
        lambda: augment.augment(IMAGES, jax.random.key(0), kinds=("blur",)),
    ),
    "no kinds": (
        ValueError,
        "kinds: ",
        lambda: augment.augment(IMAGES, jax.random.key(0), kinds=()),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_at_the_door(case):
    error, message, call = BAD[case]
    with pytest.raises(error, match=message):
        call()
