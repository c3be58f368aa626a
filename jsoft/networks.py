"""Networks that map over runs: pure functions of (params, images), without hidden state.

A network is anything with `init(key, images) -> params` and `apply(params, images) -> logits`.
There is no train flag and nothing beside the parameters, so that a whole training is a function
that `vmap` and `lax.map` take as it is. The classes below are Flax Linen modules; a module of your
own will do as well if it keeps no mutable state.

Convolutions. Inside `scan` or `lax.map`, XLA's convolution on CPU is ten times slower or more than
the same convolution called directly, and `vmap` over its kernels makes a grouped convolution, which
is worse still. `Conv3x3` is made of matrix products instead, the same function of the same
parameters, and keeps its pace everywhere: by Winograd's minimal filtering (Lavin & Gray, CVPR 2016,
https://arxiv.org/abs/1509.09308) where it can, with 16 products in the place of 36 and four copies
of its input in memory; else by nine shifted images side by side times one matrix.

Normalisation. The papers use batch normalisation; here it is group normalisation (Wu & He, 2018,
https://arxiv.org/abs/1803.08494) over groups of 8 channels. It keeps no running averages that each
run would have to carry, an example's logits do not depend on its batch-mates, and training and
evaluation are one function. It has the same scale and bias for each channel, so the parameter
counts of the literature hold. The price is that accuracies of papers may be missed by a little.

Numbers. Parameters are float32. `dtype` is the dtype that layers compute in: `jnp.bfloat16` where
asked for; None follows Flax's promotion of images and parameters, float32 for float32 images. The
statistics of the normalisation and the last layer are never narrower than float32, whatever
`dtype`, so logits come back in float32.

Initial kernels are He-normal (https://arxiv.org/abs/1502.01852, variance 2 / fan-in), which keeps
the scale of activations through ReLU. No ReLU follows the last layer: there it is 1 / fan-in.

Shapes: B examples in a batch, height H, width W, channels C; logits `[B, num_classes]`.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax import lax
from jax.nn.initializers import Initializer, he_normal, lecun_normal
from jax.typing import ArrayLike, DTypeLike

_GROUP = 8  # channels that are normalised together


def num_parameters(params: Any) -> int:
    """Return the number of trainable numbers in the pytree `params`.

    Shapes suffice, so `jax.eval_shape` of an `init` does as well as its parameters.

    >>> num_parameters({"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)})
    16
    """
    return sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(params))


class Conv3x3(nn.Module):
    """A 3×3 convolution with zero padding of one pixel: [B, H, W, C] to [B, ⌈H/s⌉, ⌈W/s⌉, F].

    y[b, i, j] = Σ_{p, q ∈ {0, 1, 2}} x[b, s·i + p − 1, s·j + q − 1] · kernel[p, q] + bias, with s
    the stride and x zero outside of the image: the function and the parameters of
    `flax.linen.Conv(features, (3, 3), strides=stride, padding=((1, 1), (1, 1)))`, to rounding.

    Args:
      features: number of output channels F.
      stride: distance between outputs, in pixels of the input.
      use_bias: whether to add one number for each output channel.
      dtype: dtype to compute in; None for that of input and parameters together.
      kernel_init: initializer of the kernel `[3, 3, C, F]`.

    Raises:
      ValueError: features or stride below one, or an input that is not `[B, H, W, C]`.
      TypeError: an input of integers.

    >>> images = jnp.ones((1, 4, 4, 1))
    >>> conv = Conv3x3(1, kernel_init=nn.initializers.ones)
    >>> conv.apply(conv.init(jax.random.key(0), images), images)[0, :, :, 0]
    Array([[4., 6., 6., 4.],
           [6., 9., 9., 6.],
           [6., 9., 9., 6.],
           [4., 6., 6., 4.]], dtype=float32)
    """

    features: int
    stride: int = 1
    use_bias: bool = False
    dtype: DTypeLike | None = None
    kernel_init: Initializer = he_normal()

    def __post_init__(self) -> None:
        _check_at_least("features", self.features, 1)
        _check_at_least("stride", self.stride, 1)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: ArrayLike) -> jax.Array:
        """Return the convolved `images`."""
        x = _checked_images(images, ndim=4)
        channels = x.shape[-1]
        shape = (3, 3, channels, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)

        # Sums of four pixels would cost bfloat16 a bit or two; few channels fill no vectors.
        if self.stride == 1 and channels >= 8 and x.dtype.itemsize >= 4:
            y = _convolve(x, kernel)
        else:
            y = _convolve_patches(x, kernel, self.stride)
        return y if bias is None else y + bias.reshape(1, 1, 1, self.features)


@jax.custom_jvp
def _convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return the convolution [B, H, W, F] by Winograd's minimal filtering, stride 1.

    Two by two outputs come from four by four inputs d by the 3×3 kernel g as
    Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A: 16 products for each pair of channels in the place of 36.
    """
    return _from_tiles(_to_tiles(x), kernel, x.shape)


@_convolve.defjvp
def _convolve_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    x, kernel = primals
    tangent_x, tangent_kernel = tangents
    tiles = _to_tiles(x)
    y, tangent = jax.jvp(lambda k: _from_tiles(tiles, k, x.shape), (kernel,), (tangent_kernel,))
    # The derivative by x, written as the transpose of its transpose: so reverse mode, which
    # transposes it, meets a convolution again and not thirty-two sums of dilated images.
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    back = jax.linear_transpose(lambda y: _from_tiles(_to_tiles(y), turned, y.shape), y)
    (of_x,) = back(tangent_x)
    return y, tangent + of_x


def _to_tiles(x: jax.Array) -> list[list[jax.Array]]:
    """Return Bᵀ d B for all overlapping 4×4 tiles d, 4 times 4 arrays [B, ⌈H/2⌉, ⌈W/2⌉, C]."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1 + height % 2), (1, 1 + width % 2), (0, 0)))
    padded = lax.optimization_barrier(padded)  # or each of 16 sums would pad for itself, slowly

    def along(x: jax.Array, axis: int) -> list[jax.Array]:
        size = x.shape[axis]
        d = [lax.slice_in_dim(x, i, size - 3 + i, 2, axis) for i in range(4)]
        return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]

    return [along(row, 2) for row in along(padded, 1)]


def _from_tiles(tiles: list[list[jax.Array]], kernel: jax.Array, shape: Any) -> jax.Array:
    """Return the convolution [B, H, W, F] of transformed tiles."""
    batch, height, width = shape[:3]
    features = kernel.shape[-1]

    def spread(g: Any) -> list[jax.Array]:
        return [g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]]

    def gather(m: list[jax.Array]) -> list[jax.Array]:
        return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]

    def product(tile: jax.Array, kernel: jax.Array) -> jax.Array:
        # Of matrices: the gradient of a product of more axes would move them in memory.
        y = jnp.dot(_rows(tile), kernel)
        return y.reshape(*tile.shape[:-1], features)

    products = [
        gather([product(t, k) for t, k in zip(*row, strict=True)])
        for row in zip(tiles, [spread(row) for row in spread(kernel)], strict=True)
    ]  # 4 × 2
    pixels = [gather(list(column)) for column in zip(*products, strict=True)]  # columns × rows
    rows = [jnp.stack(row, axis=3) for row in zip(*pixels, strict=True)]
    y = jnp.stack(rows, axis=2)  # [B, ⌈H/2⌉, 2, ⌈W/2⌉, 2, F]
    y = y.reshape(batch, 2 * y.shape[1], 2 * y.shape[3], features)
    return y[:, :height, :width]


def _convolve_patches(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Return the convolution [B, ⌈H/s⌉, ⌈W/s⌉, F] as nine shifted images times one matrix."""
    batch, height, width, channels = x.shape
    padded = lax.optimization_barrier(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))
    # Shifts in the order of the kernel's first two axes, channels last: its own row order.
    shifted = [
        lax.slice(
            padded,
            (0, p, q, 0),
            (batch, p + height, q + width, channels),
            (1, stride, stride, 1),
        )
        for p in range(3)
        for q in range(3)
    ]
    patches = jnp.concatenate(shifted, axis=-1)  # [B, ⌈H/s⌉, ⌈W/s⌉, 9 C]
    # Of matrices: the gradient of a product of more axes would move them in memory.
    y = jnp.dot(_rows(patches), kernel.reshape(9 * channels, kernel.shape[-1]))
    return y.reshape(*patches.shape[:-1], kernel.shape[-1])


class MLP(nn.Module):
    """A multilayer perceptron on flattened images: [B, ...] to logits [B, num_classes].

    Each hidden layer is linear with ReLU, the last one linear.

    Args:
      widths: number of units of each hidden layer.
      num_classes: number of logits.
      dtype: dtype that the hidden layers compute in; None for that of images and parameters.

    Raises:
      ValueError: no widths or one below one, fewer than two classes, images without a batch axis.
      TypeError: images of integers.

    The textbook network; source of its initial kernels in the module's docstring.

    >>> network = MLP((64, 64), 10)
    >>> images = jnp.zeros((5, 8, 8))
    >>> params = network.init(jax.random.key(0), images)
    >>> num_parameters(params) == (64 + 1) * 64 + (64 + 1) * 64 + (64 + 1) * 10
    True
    >>> network.apply(params, images).shape
    (5, 10)
    """

    widths: tuple[int, ...]
    num_classes: int
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        self.widths = _checked_widths(self.widths)
        _check_at_least("num_classes", self.num_classes, 2)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: ArrayLike) -> jax.Array:
        """Return the logits of `images`."""
        x = _flat(_checked_images(images))
        for width in self.widths:
            x = nn.relu(nn.Dense(width, dtype=self.dtype, kernel_init=he_normal())(x))
        return _classifier(self.num_classes)(x)


class ConvNet(nn.Module):
    """A small convolutional network: [B, H, W, C] to logits [B, num_classes].

    One block for each width: 3×3 convolution, group normalisation, ReLU, average pooling over 2×2
    pixels; then a linear layer on all that is left. Pooling halves the height and the width, and
    drops the last row or column of odd ones: 28×28 images become 14×14, 7×7 and 3×3.

    Args:
      widths: number of channels of each block, multiples of `group`.
      num_classes: number of logits.
      dtype: dtype that the blocks compute in; None for that of images and parameters.
      group: channels that are normalised together; 1 is instance normalisation.

    Raises:
      ValueError: no widths or one that is no multiple of the group, fewer than two classes, images
        that are not `[B, H, W, C]` or too small to be halved once for each block.
      TypeError: images of integers.

    Source: the ConvNet of Gidaris & Komodakis (CVPR 2018) and of dataset condensation (Zhao et al.,
    ICLR 2021), with groups of 8 channels where those normalise the batch or, the latter, single
    channels (`group=1`; its convolutions have biases too, which that normalisation removes).

    >>> network = ConvNet((8, 16), num_classes=10)
    >>> params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    >>> kernels, norms, last = 9 * 1 * 8 + 9 * 8 * 16, 2 * 8 + 2 * 16, (2 * 2 * 16 + 1) * 10
    >>> num_parameters(params) == kernels + norms + last
    True
    """

    widths: tuple[int, ...] = (32, 64, 128)
    num_classes: int = 10
    dtype: DTypeLike | None = None
    group: int = _GROUP

    def __post_init__(self) -> None:
        self.widths = _checked_widths(self.widths)
        _check_at_least("group", self.group, 1)
        if any(width % self.group for width in self.widths):
            raise ValueError(
                f"widths: expected multiples of {self.group} (channels are normalised in groups of"
                f" {self.group}), got {self.widths}"
            )
        _check_at_least("num_classes", self.num_classes, 2)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: ArrayLike) -> jax.Array:
        """Return the logits of `images`."""
        x = _checked_images(images, ndim=4)
        smallest = 2 ** len(self.widths)
        if min(x.shape[1:3]) < smallest:
            raise ValueError(
                f"images: expected {smallest}×{smallest} pixels or more for {len(self.widths)}"
                f" blocks, each halving them, got shape {list(x.shape)}"
            )
        for width in self.widths:
            x = Conv3x3(width, dtype=self.dtype)(x)
            x = nn.relu(GroupNorm(self.dtype, self.group)(x))
            # Mapped on CPU, forward and backward, this takes half to two thirds of the time of a
            # reshape and mean. A sum of four strided slices is as fast alone, but not in here.
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        return _classifier(self.num_classes)(_flat(x))


class WideResNet(nn.Module):
    """A wide residual network, WRN-depth-width: [B, H, W, C] to logits [B, num_classes].

    A 3×3 convolution to 16 channels; three groups of (depth − 4) / 6 residual blocks with 16 w,
    32 w and 64 w channels, the second and the third group halving height and width; normalisation,
    ReLU, average over all pixels, and a linear layer. In every block normalisation and ReLU come
    before the convolution; where the number of channels changes, the shortcut is a 1×1 convolution.
    There is no dropout.

    Args:
      depth: number of layers, 6 n + 4 for n blocks in each group.
      width: factor w on the number of channels.
      num_classes: number of logits.
      dtype: dtype that the blocks compute in; None for that of images and parameters.

    Raises:
      ValueError: a depth other than 10, 16, 22, 28, …, a width below one, fewer than two classes,
        images that are not `[B, H, W, C]`.
      TypeError: images of integers.

    >>> image = jnp.zeros((1, 32, 32, 3))
    >>> num_parameters(jax.eval_shape(WideResNet(28, 2).init, jax.random.key(0), image))
    1467610

    Source: Zagoruyko & Komodakis, 2016, https://arxiv.org/abs/1605.07146, Table 1, with group
    normalisation in the place of batch normalisation.
    """

    depth: int = 28
    width: int = 2
    num_classes: int = 10
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        _check_at_least("depth", self.depth, 10)
        if self.depth % 6 != 4:
            raise ValueError(f"depth: expected 6 n + 4 (10, 16, 22, 28, …), got {self.depth}")
        _check_at_least("width", self.width, 1)
        _check_at_least("num_classes", self.num_classes, 2)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: ArrayLike) -> jax.Array:
        """Return the logits of `images`."""
        x = Conv3x3(16, dtype=self.dtype)(_checked_images(images, ndim=4))
        for channels, stride in ((16, 1), (32, 2), (64, 2)):
            for block in range((self.depth - 4) // 6):
                x = _ResidualBlock(channels * self.width, stride if block == 0 else 1, self.dtype)(
                    x
                )
        x = nn.relu(GroupNorm(self.dtype)(x))
        return _classifier(self.num_classes)(x.mean(axis=(1, 2)))


class _ResidualBlock(nn.Module):
    """Two convolutions, each after normalisation and ReLU, beside a shortcut."""

    features: int
    stride: int
    dtype: DTypeLike | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(GroupNorm(self.dtype)(x))
        if x.shape[-1] == self.features:
            shortcut = x
        else:  # a 1×1 convolution, of the activated input as in the authors' code
            project = nn.Dense(
                self.features, use_bias=False, dtype=self.dtype, kernel_init=he_normal()
            )
            shortcut = project(y[:, :: self.stride, :: self.stride])
        y = Conv3x3(self.features, self.stride, dtype=self.dtype)(y)
        y = nn.relu(GroupNorm(self.dtype)(y))
        return shortcut + Conv3x3(self.features, dtype=self.dtype)(y)


class GroupNorm(nn.Module):
    """Normalises each example's groups of channels over all pixels: [B, H, W, C] to the same.

    y = scale · (x − mean) / √(var + 10⁻⁶) + bias: the function and the parameters of
    `flax.linen.GroupNorm(num_groups=None, group_size=group, use_fast_variance=False)`, the sums
    taken over pixels first and over a group's channels last, so that neighbouring channels are
    summed side by side; on CPU that takes a third to a half of the time.
    """

    dtype: DTypeLike | None = None
    group: int = _GROUP

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the normalised `x`."""
        batch, height, width, channels = x.shape
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
        dtype = promote_dtype(x, scale, bias, dtype=self.dtype)[0].dtype
        # Statistics are float32 or wider.
        pixels = x.reshape(batch, height * width, channels)
        pixels = pixels.astype(jnp.promote_types(x.dtype, jnp.float32))

        def group_mean(x: jax.Array) -> jax.Array:
            by_group = x.mean(axis=1).reshape(batch, channels // self.group, self.group)
            return jnp.repeat(by_group.mean(axis=-1), self.group, axis=1)[:, None, :]  # [B, 1, C]

        # The variance as mean square minus squared mean would be noise where the mean is large.
        centred = pixels - group_mean(pixels)
        factor = lax.rsqrt(group_mean(jnp.square(centred)) + 1e-6) * scale.reshape(1, 1, channels)
        y = centred * factor + bias.reshape(1, 1, channels)
        return y.reshape(x.shape).astype(dtype)


def _classifier(num_classes: int) -> nn.Dense:
    """Return the last layer: no ReLU follows, and promotion makes it float32 or wider."""
    return nn.Dense(num_classes, kernel_init=lecun_normal())


def _rows(x: jax.Array) -> jax.Array:
    """Return `x` [..., C] as a matrix of pixels."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _flat(x: jax.Array) -> jax.Array:
    """Return `x` [B, ...] as `[B, D]`."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def _checked_images(images: ArrayLike, ndim: int | None = None) -> jax.Array:
    """Return `images` as an array, or raise unless they are floats of `ndim` axes."""
    x = jnp.asarray(images)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"images: expected floating-point numbers, got dtype {x.dtype}; scale to [0, 1] first;"
            " training.fit does it"
        )
    if x.ndim < 2 or (ndim is not None and x.ndim != ndim):
        expected = "[B, ...]" if ndim is None else "[B, H, W, C]"
        raise ValueError(f"images: expected shape {expected}, got {list(x.shape)}")
    return x


def _check_at_least(name: str, value: int, least: int) -> None:
    """Raise `ValueError` unless `value` is a whole number, `least` or more."""
    if not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}: expected a whole number, {least} or more, got {value!r}")


def _checked_widths(widths: Any) -> tuple[int, ...]:
    """Return `widths` as a tuple, which can be hashed, or raise unless they are such numbers."""
    if not isinstance(widths, tuple | list) or not widths:
        raise ValueError(f"widths: expected one whole number or more in a tuple, got {widths!r}")
    for width in widths:
        _check_at_least("widths", width, 1)
    return tuple(widths)
