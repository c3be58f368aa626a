"""Transforms of images, each a function of the images and of explicit draws, and one that draws.

Images are `[B, H, W, channels]` floats. A draw is one number for each image, `[B]`: uniform in
[0, 1) where it is called `draw`, an offset in pixels where it is called `offset`. So a transform is
a pure function that can be replayed, and labels of augmented images can be stored with the draws.

`augment` draws one kind of transform for the whole batch and its numbers for each image apart, as
is usual in data set condensation. `cutmix` and `mixup` mix pairs of images.

Source: differentiable siamese augmentation (Zhao & Bilen, ICML 2021, arXiv 2102.08259) as in the
released code of arXiv 2406.10485, with its constants as defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jsoft import _door

Kind = Literal["colour", "crop", "cutout", "flip", "scale", "rotate"]
KINDS: tuple[Kind, ...] = ("colour", "crop", "cutout", "flip", "scale", "rotate")


def brightness(images: ArrayLike, draw: ArrayLike, *, strength: float = 1.0) -> jax.Array:
    """Return the images made lighter or darker, x + (u − ½) · strength.

    Args:
      images: `[B, H, W, channels]` floats.
      draw: `[B]`, u.
      strength: width of the range.

    Raises:
      TypeError, ValueError: images that are no floats or of another shape, draws of another shape.

    Source: as the module's.

    >>> print(brightness(jnp.zeros((1, 1, 1, 1)), jnp.array([0.75])).ravel())
    [0.25]
    """
    images, draw = _checked(images, draw)
    return images + (draw - 0.5) * strength


def saturation(images: ArrayLike, draw: ArrayLike, *, strength: float = 2.0) -> jax.Array:
    """Return the images with colours drawn to or from grey, m + (x − m) · u · strength.

    m is the mean over channels of each pixel.

    Args, raises: as `brightness`.

    Source: as the module's.

    >>> grey = saturation(jnp.array([0.0, 1.0]).reshape(1, 1, 1, 2), jnp.array([0.0]))
    >>> print(grey.ravel())
    [0.5 0.5]
    """
    images, draw = _checked(images, draw)
    mean = images.mean(axis=3, keepdims=True)
    return mean + (images - mean) * draw * strength


def contrast(images: ArrayLike, draw: ArrayLike, *, strength: float = 0.5) -> jax.Array:
    """Return the images stretched about their mean, m + (x − m)(u + strength).

    m is the mean over pixels and channels of each image.

    Args, raises: as `brightness`.

    Source: as the module's.

    >>> flat = contrast(jnp.array([0.0, 1.0]).reshape(1, 1, 2, 1), jnp.array([0.0]))
    >>> print(flat.ravel())
    [0.25 0.75]
    """
    images, draw = _checked(images, draw)
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return mean + (images - mean) * (draw + strength)


def flip(images: ArrayLike, draw: ArrayLike, *, probability: float = 0.5) -> jax.Array:
    """Return the images, mirrored left to right where u < probability.

    Args, raises: as `brightness`.

    Source: as the module's.

    >>> print(flip(jnp.array([0.0, 1.0]).reshape(1, 1, 2, 1), jnp.array([0.2])).ravel())
    [1. 0.]
    """
    images, draw = _checked(images, draw)
    return jnp.where(draw < probability, images[:, :, ::-1], images)


def scale(
    images: ArrayLike, draw_x: ArrayLike, draw_y: ArrayLike, *, ratio: float = 1.2
) -> jax.Array:
    """Return the images stretched along both axes, by factors s = u (r − 1/r) + 1/r of [1/r, r].

    The output at (X, Y), in −1 … 1 from corner to corner, is the input at (s_x X, s_y Y), linear
    between pixels and 0 outside.

    Args:
      images: `[B, H, W, channels]` floats.
      draw_x: `[B]`, u along the width.
      draw_y: `[B]`, u along the height.
      ratio: r, 1 or more.

    Raises:
      TypeError, ValueError: as `brightness`; a ratio below 1.

    Source: as the module's.

    >>> half = (1 - 1 / 1.2) / (1.2 - 1 / 1.2)  # s = 1
    >>> image = jnp.arange(4.0).reshape(1, 2, 2, 1)
    >>> print(scale(image, jnp.array([half]), jnp.array([half])).ravel().round(4))
    [0. 1. 2. 3.]
    """
    _door.check_at_least(1, ratio=ratio)
    images, draw_x = _checked(images, draw_x)
    images, draw_y = _checked(images, draw_y)

    def factor(draw: jax.Array) -> jax.Array:
        return draw.reshape(-1) * (ratio - 1 / ratio) + 1 / ratio

    zero = jnp.zeros(len(images), images.dtype)
    return _resampled(images, factor(draw_x), zero, zero, factor(draw_y))


def rotate(images: ArrayLike, draw: ArrayLike, *, degrees: float = 15.0) -> jax.Array:
    """Return the images turned about their middle by θ = (2u − 1) · degrees.

    The output at (X, Y), in −1 … 1 from corner to corner, is the input at
    (X cos θ − Y sin θ, X sin θ + Y cos θ), linear between pixels and 0 outside.

    Args, raises: as `brightness`.

    Source: as the module's.

    >>> image = jnp.arange(4.0).reshape(1, 2, 2, 1)
    >>> print(rotate(image, jnp.array([1.0]), degrees=90.0).ravel().round(4))
    [1. 3. 0. 2.]
    """
    images, draw = _checked(images, draw)
    angle = (draw.reshape(-1) - 0.5) * 2 * degrees * jnp.pi / 180
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return _resampled(images, cosine, -sine, sine, cosine)


def shift(images: ArrayLike, offset_y: ArrayLike, offset_x: ArrayLike) -> jax.Array:
    """Return the images moved, out[i, j] = x[i + t_y, j + t_x], 0 outside.

    A random crop of the padded image, with offsets of −pad … pad.

    Args:
      images: `[B, H, W, channels]` floats.
      offset_y: `[B]` integers, t_y.
      offset_x: `[B]` integers, t_x.

    Raises:
      TypeError, ValueError: images that are no floats or of another shape, offsets that are no
        integers or of another shape.

    Source: as the module's.

    >>> print(shift(jnp.arange(4.0).reshape(1, 2, 2, 1), jnp.array([0]), jnp.array([1])).ravel())
    [1. 0. 3. 0.]
    """
    images, offset_y = _checked(images, offset_y, integers=True)
    images, offset_x = _checked(images, offset_x, integers=True)

    def one(image: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
        height, width, _ = image.shape
        rows, columns = jnp.arange(height) + y, jnp.arange(width) + x
        inside = (rows >= 0) & (rows < height)
        inside = inside[:, None] & ((columns >= 0) & (columns < width))[None]
        moved = image.at[rows[:, None], columns[None]].get(mode="clip")
        return jnp.where(inside[..., None], moved, 0)

    return jax.vmap(one)(images, offset_y.reshape(-1), offset_x.reshape(-1))


def cutout(
    images: ArrayLike, offset_y: ArrayLike, offset_x: ArrayLike, *, ratio: float = 0.5
) -> jax.Array:
    """Return the images with a square set to 0, of side n = ⌊ratio · H + ½⌋ (and so along W).

    Rows o − ⌊n/2⌋ … o − ⌊n/2⌋ + n − 1, cut to the image; columns alike.

    Args:
      images: `[B, H, W, channels]` floats.
      offset_y: `[B]` integers, o of the rows, 0 … H − (n mod 2).
      offset_x: `[B]` integers, o of the columns.
      ratio: side over that of the image, in [0, 1].

    Raises:
      TypeError, ValueError: as `shift`; a ratio outside [0, 1].

    Source: as the module's.

    >>> print(cutout(jnp.ones((1, 2, 2, 1)), jnp.array([0]), jnp.array([1])).ravel())
    [1. 0. 1. 1.]
    """
    _door.check_levels(ratio=ratio)
    images, offset_y = _checked(images, offset_y, integers=True)
    images, offset_x = _checked(images, offset_x, integers=True)
    height, width = images.shape[1:3]

    def inside(offset: jax.Array, size: int) -> jax.Array:
        """Return which of `size` pixels the square covers, `[B, size]`."""
        side = int(ratio * size + 0.5)
        first = offset.reshape(-1, 1) - side // 2
        pixels = jnp.arange(size)[None]
        # Where the square leaves the image, the released code cuts its pixels to the last one.
        covered = (pixels >= first) & (pixels < first + side)
        over = (first + side > size) & (pixels == size - 1)
        under = (first < 0) & (pixels == 0)
        return (covered | over | under) & (side > 0)

    square = inside(offset_y, height)[:, :, None] & inside(offset_x, width)[:, None]
    return jnp.where(square[..., None], 0, images)


def cutmix_box(
    share: ArrayLike, center: tuple[ArrayLike, ArrayLike], size: tuple[int, int]
) -> jax.Array:
    """Return the box that CutMix takes from the partner, (x1, y1, x2, y2), integers `[4]`.

    Of w = ⌊W √(1 − λ)⌋ by h = ⌊H √(1 − λ)⌋ pixels about the centre, [c − ⌊w/2⌋, c + ⌊w/2⌋), cut to
    the image; x runs along the first axis of the image here and in `cutmix`.

    Args:
      share: λ in [0, 1], the share that stays; may be traced.
      center: (c_x, c_y), pixels; may be traced.
      size: (W, H), pixels along the first and the second axis of the image.

    Raises:
      TypeError, ValueError: λ outside [0, 1], a centre outside the image, sizes below 1.

    Source: Yun et al., "CutMix" (ICCV 2019), as in the released code of arXiv 2410.15919.

    >>> print(cutmix_box(0.75, (2, 2), (4, 4)))
    [1 1 3 3]
    """
    _door.check_scalar(share=share)
    _door.check_levels(share=share)
    _door.check_whole(1, width=size[0], height=size[1])
    for name, pixel, length in zip(("center x", "center y"), center, size, strict=True):
        _door.check_labels(name, jnp.asarray(pixel), num_classes=length, shape=())
    low, high = [], []
    for pixel, length in zip(center, size, strict=True):
        half = (length * jnp.sqrt(1 - jnp.asarray(share))).astype(jnp.int32) // 2
        low.append(jnp.clip(pixel - half, 0, length))
        high.append(jnp.clip(pixel + half, 0, length))
    return jnp.stack([*low, *high])


def cutmix(images: ArrayLike, partners: ArrayLike, box: ArrayLike) -> jax.Array:
    """Return the images with a box of each one's partner in it, the same box for all.

    Args:
      images: `[B, H, W, channels]` floats.
      partners: `[B]` integers, whose pixels come into the box.
      box: (x1, y1, x2, y2) of `cutmix_box`, `[4]` integers; may be traced.

    Raises:
      TypeError, ValueError: images that are no floats or of another shape, partners that are no
        rows of the batch, a box of another shape.

    Source: as `cutmix_box`.

    >>> images = jnp.arange(8.0).reshape(2, 2, 2, 1)
    >>> print(cutmix(images, jnp.array([1, 0]), jnp.array([0, 0, 1, 2]))[0].ravel())
    [4. 5. 2. 3.]
    """
    images, partners = _paired(images, partners)
    box = jnp.asarray(box)
    if box.shape != (4,) or not jnp.issubdtype(box.dtype, jnp.integer):
        raise ValueError(f"box: expected four whole numbers, got {box.dtype}{list(box.shape)}")
    rows, columns = (jnp.arange(length) for length in images.shape[1:3])
    inside = (rows >= box[0]) & (rows < box[2])
    inside = inside[:, None] & ((columns >= box[1]) & (columns < box[3]))[None]
    return jnp.where(inside[None, :, :, None], images[partners], images)


def mixup(images: ArrayLike, partners: ArrayLike, share: ArrayLike) -> jax.Array:
    """Return mixtures of each image and its partner, λ x + (1 − λ) x_partner.

    Args:
      images: `[B, H, W, channels]` floats.
      partners: `[B]` integers, rows of the batch.
      share: λ in [0, 1]; may be traced.

    Raises:
      TypeError, ValueError: as `cutmix`; λ outside [0, 1].

    Source: Zhang et al., "mixup" (ICLR 2018), as in the released code of arXiv 2410.15919.

    >>> images = jnp.arange(2.0).reshape(2, 1, 1, 1)
    >>> print(mixup(images, jnp.array([1, 0]), 0.75).ravel())
    [0.25 0.75]
    """
    images, partners = _paired(images, partners)
    _door.check_scalar(share=share)
    _door.check_levels(share=share)
    kept = jnp.asarray(share, images.dtype)
    return kept * images + (1 - kept) * images[partners]


def augment(images: ArrayLike, key: jax.Array, *, kinds: Sequence[Kind] = KINDS) -> jax.Array:
    """Return the images under one random transform, the same kind for all, at the defaults.

    "colour" is brightness, saturation and contrast in turn, "crop" a `shift` by up to an eighth of
    the height. A kind drawn for each image would be another augmentation.

    Args:
      images: `[B, H, W, channels]` floats.
      key: random key; kind and draws follow from it.
      kinds: to draw from, each as likely.

    Raises:
      TypeError, ValueError: images that are no floats or of another shape; no kinds, unknown ones.

    Source: as the module's.

    >>> augment(jnp.ones((2, 8, 8, 3)), jax.random.key(0), kinds=("flip",)).shape
    (2, 8, 8, 3)
    """
    images, _ = _checked(images, jnp.zeros(len(jnp.asarray(images))))
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ValueError(f"kinds: expected some of {', '.join(KINDS)}, got {tuple(kinds)}")
    count, height, width, _ = images.shape
    kind_key, *keys = jax.random.split(key, 4)

    def uniform(i: int) -> jax.Array:
        return jax.random.uniform(keys[i], (count,))

    def whole(i: int, low: int, high: int) -> jax.Array:
        return jax.random.randint(keys[i], (count,), low, high + 1)

    pad, side, side_x = int(0.125 * height + 0.5), int(0.5 * height + 0.5), int(0.5 * width + 0.5)
    transforms: dict[str, Callable[[jax.Array], jax.Array]] = {
        "colour": lambda x: contrast(saturation(brightness(x, uniform(0)), uniform(1)), uniform(2)),
        "crop": lambda x: shift(x, whole(0, -pad, pad), whole(1, -pad, pad)),
        "cutout": lambda x: cutout(
            x, whole(0, 0, height - side % 2), whole(1, 0, width - side_x % 2)
        ),
        "flip": lambda x: flip(x, uniform(0)),
        "scale": lambda x: scale(x, uniform(0), uniform(1)),
        "rotate": lambda x: rotate(x, uniform(0)),
    }
    drawn = jax.random.randint(kind_key, (), 0, len(kinds))
    return lax.switch(drawn, [transforms[kind] for kind in kinds], images)


def _resampled(images: jax.Array, a: Any, b: Any, c: Any, d: Any) -> jax.Array:
    """Return the images read at (a X + b Y, c X + d Y), each coefficient `[B]`."""
    height, width = images.shape[1:3]
    y, x = jnp.linspace(-1, 1, height)[:, None], jnp.linspace(-1, 1, width)[None]

    def one(image: jax.Array, a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> jax.Array:
        columns = ((a * x + b * y) + 1) / 2 * (width - 1)
        rows = ((c * x + d * y) + 1) / 2 * (height - 1)
        return jax.vmap(
            lambda channel: jax.scipy.ndimage.map_coordinates(
                channel, [rows, columns], order=1, mode="constant"
            ),
            in_axes=2,
            out_axes=2,
        )(image)

    return jax.vmap(one)(images, a, b, c, d)


def _paired(images: ArrayLike, partners: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Return images and the rows of their partners, checked."""
    images = jnp.asarray(images)
    _check_images(images)
    _door.check_labels("partners", partners, num_classes=len(images), shape=images.shape[:1])
    return images, jnp.asarray(partners)


def _check_images(images: jax.Array) -> None:
    _door.check_float("images", images)
    if images.ndim != 4:
        raise ValueError(f"images: expected shape [B, H, W, channels], got {list(images.shape)}")


def _checked(
    images: ArrayLike, draw: ArrayLike, *, integers: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Return images and draws, those as `[B, 1, 1, 1]`."""
    images, draw = jnp.asarray(images), jnp.asarray(draw)
    _check_images(images)
    if draw.shape != images.shape[:1]:
        raise ValueError(
            f"draws: expected one for each image, shape [{len(images)}], got {list(draw.shape)}"
        )
    if integers and not jnp.issubdtype(draw.dtype, jnp.integer):
        raise TypeError(f"offsets: expected whole numbers, got dtype {draw.dtype}")
    if not integers:
        _door.check_float("draws", draw)
    return images, draw.reshape(-1, 1, 1, 1)
