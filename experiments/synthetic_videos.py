"""Synthetic videos with questions: images one after another, seen through noise and blanks.

A video shows a few images of different classes, one segment each. A question asks for the class of
the first segment, the last, or the one after a named class. Clips take every d-th frame, segments
begin at multiples of d, and some frames are blank: a clip may miss a segment that another clip of
the same video shows.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jsoft import _door, networks, training
from jsoft.datasets import Dataset, Split

QUESTIONS = ("first", "last", "after")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What videos look like, how many there are, and what the frozen encoder is."""

    num_frames: int = 64
    """Frames of a video."""
    clip_len: int = 8
    """Frames of a clip, num_frames/clip_len apart."""
    segments: int = 4
    """Images shown in a video, of different classes."""
    noise: float = 0.3
    """Standard deviation of the noise on every pixel, which is 0 to 1 without."""
    blank: float = 0.4
    """Chance of a frame to show nothing but noise."""
    train_videos: int = 800
    """Videos to train on, of training images."""
    unseen_videos: int = 400
    """Videos of validation images, to measure labels on that nothing was trained on."""
    test_videos: int = 1500
    """Videos of test images."""
    encoder: Literal["mlp", "convnet"] = "mlp"
    """What sees single frames: a perceptron of 128 units, or a small convolutional network."""
    num_features: int = 24
    """Numbers that the encoder makes of a frame."""
    encoder_copies: int = 16
    """Noisy copies of every image that the encoder is trained on."""
    encoder_epochs: int = 10
    """Passes over them."""


class Script(NamedTuple):
    """What videos show and what is asked of them.

    Attributes:
      shown: `[V, T]` integers, the image of every frame.
      questions: `[V, 3 + C]` which question, one-hot, and the class it names, if it names one.
      answers: `[V]` integers.
    """

    shown: jax.Array
    questions: jax.Array
    answers: jax.Array


def siamese_starts(
    key: jax.Array, *, num_frames: int, clip_len: int, num_clips: int
) -> tuple[jax.Array, jax.Array]:
    """Return where the clips of a video start, `[N]`, and their frames, `[N, B]`, the anchor first.

        frames(s) = s + d · (0, 1, …, B − 1),  d = ⌊T/B⌋

    All take every d-th of the T frames. The anchor starts anywhere in 0 … d − 1, its siblings at
    other starts (modulo d), no two alike, uniformly drawn.

    Args:
      key: random key.
      num_frames: T.
      clip_len: B, frames of a clip.
      num_clips: N, the anchor among them.

    Raises:
      TypeError, ValueError: sizes that are not whole numbers, one or more; more clips than there
        are starts.

    The sampling of SiaSamRea (NeurIPS 2021) in its words; indices and the draw are reconstructed.

    >>> starts, frames = siamese_starts(jax.random.key(0), num_frames=8, clip_len=4, num_clips=2)
    >>> bool((frames[:, 0] == starts).all()), jnp.sort(frames.ravel())  # two clips see all frames
    (True, Array([0, 1, 2, 3, 4, 5, 6, 7], dtype=int32))
    """
    _door.check_whole(1, num_frames=num_frames, clip_len=clip_len, num_clips=num_clips)
    interval = num_frames // clip_len
    if num_clips > interval:
        raise ValueError(
            f"num_clips: expected 1 … {interval}, the starts of clips of {clip_len} out of "
            f"{num_frames} frames, got {num_clips}"
        )
    starts = jnp.argsort(jax.random.uniform(key, (interval,)))[:num_clips]
    return starts, starts[:, None] + interval * jnp.arange(clip_len)[None]


def write_scripts(
    labels: jax.Array,
    key: jax.Array,
    *,
    num_videos: int,
    num_classes: int,
    num_frames: int,
    clip_len: int,
    segments: int,
) -> Script:
    """Return random scripts: classes, images of them, cuts and questions, all uniformly drawn.

    Cuts lie at multiples of ⌊T/B⌋, so that a clip has a frame of every segment, if it is not blank;
    frames left over at the end belong to the last segment. All classes have to be among the labels
    `[M]` of the images.

    >>> script = write_scripts(jnp.arange(4), jax.random.key(0), num_videos=5, num_classes=4,
    ...                        num_frames=6, clip_len=3, segments=3)
    >>> script.shown.shape, bool((script.shown[:, ::2] == script.shown[:, 1::2]).all())
    ((5, 6), True)
    """
    part = jnp.minimum(jnp.arange(num_frames) // (num_frames // clip_len), clip_len - 1)
    by_class = jnp.argsort(labels)
    counts = jnp.bincount(labels, length=num_classes)
    first = jnp.cumsum(counts) - counts
    numbers = [num_classes, clip_len - 1, segments, 1, 1]

    def one(lots: jax.Array) -> Script:
        class_lots, cut_lots, image_lots, question_lot, place_lot = jnp.split(
            lots, np.cumsum(numbers)[:-1]
        )
        classes = jnp.argsort(class_lots)[:segments]
        images = by_class[first[classes] + _whole(image_lots, counts[classes])]
        cuts = jnp.argsort(cut_lots)[: segments - 1] + 1
        segment = (part[:, None] >= cuts[None]).sum(axis=1)
        question, place = (
            _whole(question_lot, len(QUESTIONS))[0],
            _whole(place_lot, segments - 1)[0],
        )
        answer = jnp.array([0, segments - 1, place + 1])[question]
        named = jax.nn.one_hot(classes[place], num_classes) * (question == 2)
        asked = jnp.concatenate([jax.nn.one_hot(question, len(QUESTIONS)), named])
        return Script(images[segment], asked, classes[answer])

    return jax.vmap(one)(jax.random.uniform(key, (num_videos, sum(numbers))))


def _whole(lots: jax.Array, number: Any) -> jax.Array:
    """Return whole numbers 0 … number − 1 from lots in [0, 1)."""
    return jnp.minimum(lots * number, number - 1).astype(jnp.int32)


def corrupt(
    frames: jax.Array, key: jax.Array, *, noise: float, blank: float
) -> tuple[jax.Array, jax.Array]:
    """Return frames `[B, ...]` with Gaussian noise, some of them blank, and which are, `[B]`.

    >>> seen, is_blank = corrupt(jnp.ones((3, 2, 2)), jax.random.key(0), noise=0.0, blank=1.0)
    >>> print(seen.sum(), is_blank.all())
    0.0 True
    """
    blank_key, noise_key = jax.random.split(key)
    is_blank = jax.random.uniform(blank_key, frames.shape[:1]) < blank
    seen = jnp.where(jnp.expand_dims(is_blank, range(1, frames.ndim)), 0, frames)
    return seen + noise * jax.random.normal(noise_key, frames.shape), is_blank


class FrameEncoder(nn.Module):
    """Frames `[B, ...]` to logits of the class that they show, the last one blank, `[B, C + 1]`.

    The classifier is for training the encoder; `features` is what is used of it.
    """

    body: nn.Module
    num_classes: int

    def setup(self) -> None:
        """Make the classifier."""
        self.classifier = nn.Dense(self.num_classes + 1)

    def features(self, frames: jax.Array) -> jax.Array:
        """Return what the encoder sees, `[B, F]`."""
        return nn.relu(self.body(frames))

    def __call__(self, frames: jax.Array) -> jax.Array:
        """Return the logits of `frames`."""
        return self.classifier(self.features(frames))


class Head(nn.Module):
    """Clips `[..., B, F]` and their questions `[..., Q]` to scores `[..., C]` and features.

    A frame is told from its own features, those of the frame before, its place and the question:
    without the frame before, no head of this size learns what comes after what.
    """

    width: int
    num_answers: int
    blocks: int = 0

    @nn.compact
    def __call__(self, frames: jax.Array, questions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return scores `[..., C]`, and the features before the classifier, `[..., width]`."""
        batch, length = frames.shape[:-2], frames.shape[-2]
        before = jnp.concatenate([jnp.zeros_like(frames[..., :1, :]), frames[..., :-1, :]], axis=-2)
        place = jnp.broadcast_to(jnp.eye(length), (*batch, length, length))
        asked = jnp.broadcast_to(questions[..., None, :], (*batch, length, questions.shape[-1]))
        x = jnp.concatenate([frames, before, place, asked], axis=-1)
        for _ in range(2):
            x = nn.relu(nn.Dense(self.width)(x))
        for _ in range(self.blocks):
            attended: Any = nn.MultiHeadDotProductAttention(num_heads=4)(nn.LayerNorm()(x))
            x = x + attended
            x = x + nn.Dense(self.width)(nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x))))
        attention = jax.nn.softmax(nn.Dense(1)(x), axis=-2)
        features = nn.relu(nn.Dense(self.width)((attention * x).sum(axis=-2)))
        return nn.Dense(self.num_answers)(features), features


class Videos(NamedTuple):
    """Videos as the frozen encoder sees them, each with one question.

    Attributes:
      frames: `[V, T, F]` features of all frames.
      questions: `[V, 3 + C]` which question, one-hot, and the class it names, if it names one.
      answers: `[V]` integers.
    """

    frames: jax.Array
    questions: jax.Array
    answers: jax.Array


class Prepared(NamedTuple):
    """What all trainings of a seed share.

    Attributes:
      train: videos to train on.
      unseen: videos to measure labels on.
      test: videos to report on.
      encoder_accuracy: `[]` share of noisy frames of validation images, or blanks, told right.
    """

    train: Videos
    unseen: Videos
    test: Videos
    encoder_accuracy: jax.Array


def prepare(recipe: Recipe, split: Dataset, seed: jax.Array) -> Prepared:
    """Return the videos of a seed as its own frozen encoder sees them."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), 7)
    num_classes = split.num_classes
    body = {
        "mlp": networks.MLP((128,), recipe.num_features),
        "convnet": networks.ConvNet(num_classes=recipe.num_features),
    }[recipe.encoder]
    encoder = FrameEncoder(body, num_classes)

    def seen(images: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        images = jnp.asarray(images)
        frames = images / 255 if jnp.issubdtype(images.dtype, jnp.integer) else images
        return corrupt(frames, key, noise=recipe.noise, blank=recipe.blank)

    def single_frames(images: Split, key: jax.Array, copies: int) -> tuple[jax.Array, jax.Array]:
        frames, is_blank = seen(jnp.concatenate([jnp.asarray(images.images)] * copies), key)
        labels = jnp.tile(jnp.asarray(images.labels), copies)
        return frames, jnp.where(is_blank, num_classes, labels)

    params, _ = training.train(
        encoder,
        optax.losses.softmax_cross_entropy_with_integer_labels,
        *single_frames(split.train, keys[0], recipe.encoder_copies),
        keys[1],
        observe=lambda params: (),
        epochs=recipe.encoder_epochs,
        batch_size=min(128, len(split.train.labels)),
        learning_rate=0.05,
    )

    parts = (split.train, split.valid, split.test)
    sizes = (recipe.train_videos, recipe.unseen_videos, recipe.test_videos)
    scripts = [
        write_scripts(
            jnp.asarray(part.labels),
            key,
            num_videos=size,
            num_classes=num_classes,
            num_frames=recipe.num_frames,
            clip_len=recipe.clip_len,
            segments=recipe.segments,
        )
        for part, size, key in zip(parts, sizes, keys[3:6], strict=True)
    ]
    images = jnp.concatenate([jnp.asarray(part.images) for part in parts])
    before = np.cumsum([0, *(len(part.labels) for part in parts)])
    shown = jnp.concatenate(
        [script.shown + start for script, start in zip(scripts, before[:-1], strict=True)]
    )

    def see(video: tuple[jax.Array, jax.Array]) -> Any:
        frames, _ = seen(images[video[0]], video[1])
        return encoder.apply(params, frames, method="features")

    # A video at a time: all frames of all videos are large.
    frames = lax.map(see, (shown, jax.random.split(keys[6], len(shown))), batch_size=16)
    train, unseen, test = (
        Videos(some, script.questions, script.answers)
        for some, script in zip(jnp.split(frames, np.cumsum(sizes)[:-1]), scripts, strict=True)
    )
    noisy, labels = single_frames(split.valid, keys[2], 1)
    answers = training.predict(encoder, params, noisy).argmax(axis=1)
    return Prepared(train, unseen, test, (answers == labels).mean())
