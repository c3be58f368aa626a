import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads
from numpy.testing import assert_allclose

from jsoft.networks import MLP, Conv3x3, ConvNet, GroupNorm, WideResNet, num_parameters

KEY = jax.random.key(0)
NETWORKS = {
    "mlp": MLP((16, 8), 3),
    "convnet": ConvNet((8, 16), 3),
    "wide": WideResNet(10, 1, 3),
}
each_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
# Halves the seconds spent on compiling, where neither speed nor fusion is what is tested.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
# A wide residual network compiles for seconds: what its parts show in others is not repeated.
small_network = pytest.mark.parametrize(
    "network", [NETWORKS["mlp"], NETWORKS["convnet"]], ids=["mlp", "convnet"]
)


def images(*shape):
    return jnp.asarray(np.random.default_rng(7).normal(size=shape), jnp.float32)


def drawn(network, x, seed=0):
    """Return parameters of the scale of initial ones, but with no scale one and no bias zero."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        fan_in = math.prod(leaf.shape[:-1])
        mean, deviation = {
            "kernel": (0.0, math.sqrt(2 / fan_in)),
            "scale": (1.0, 0.1),
            "bias": (0.0, 0.1),
        }[path[-1].key]
        return jnp.asarray(rng.normal(mean, deviation, leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(network.init, KEY, x))


def stacked(network):
    """Return the parameters of three runs, for images of 8×8×1."""
    runs = [drawn(network, jnp.zeros((1, 8, 8, 1)), seed) for seed in range(3)]
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *runs)


@functools.cache
def jitted(network):
    return jax.jit(network.apply)


# References: slow NumPy in float64, written from the definitions.


def reference_conv(x, kernel, bias=0.0, stride=1):
    batch, height, width, _ = x.shape
    shape = (batch, math.ceil(height / stride), math.ceil(width / stride), kernel.shape[-1])
    y = np.zeros(shape) + bias
    for i in range(y.shape[1]):
        for j in range(y.shape[2]):
            for p in range(3):
                for q in range(3):
                    row, column = stride * i + p - 1, stride * j + q - 1
                    if 0 <= row < height and 0 <= column < width:
                        y[:, i, j] += x[:, row, column] @ kernel[p, q]
    return y


def reference_norm(x, params):
    y = np.zeros(x.shape)
    for b in range(len(x)):
        for start in range(0, x.shape[-1], 8):
            group = x[b, ..., start : start + 8]
            y[b, ..., start : start + 8] = (group - group.mean()) / np.sqrt(group.var() + 1e-6)
    return y * params["scale"] + params["bias"]


def relu(x):
    return np.maximum(x, 0.0)


def reference_dense(x, params):
    return x @ params["kernel"] + params["bias"]


def reference_mlp(params, x):
    x = x.reshape(len(x), -1)
    x = relu(reference_dense(x, params["Dense_0"]))
    x = relu(reference_dense(x, params["Dense_1"]))
    return reference_dense(x, params["Dense_2"])


def reference_convnet(params, x):
    for block in range(2):
        x = reference_conv(x, params[f"Conv3x3_{block}"]["kernel"])
        x = relu(reference_norm(x, params[f"GroupNorm_{block}"]))
        rows, columns = x.shape[1] // 2, x.shape[2] // 2
        pooled = np.zeros((len(x), rows, columns, x.shape[3]))
        for i in range(rows):
            for j in range(columns):
                pooled[:, i, j] = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean(axis=(1, 2))
        x = pooled
    return reference_dense(x.reshape(len(x), -1), params["Dense_0"])


def reference_wide(params, x):
    x = reference_conv(x, params["Conv3x3_0"]["kernel"])
    for block in range(3):  # depth 10 has one block in each group
        layers, stride = params[f"_ResidualBlock_{block}"], 1 if block == 0 else 2
        y = relu(reference_norm(x, layers["GroupNorm_0"]))
        if "Dense_0" in layers:
            x = y[:, ::stride, ::stride] @ layers["Dense_0"]["kernel"]
        y = reference_conv(y, layers["Conv3x3_0"]["kernel"], stride=stride)
        y = relu(reference_norm(y, layers["GroupNorm_1"]))
        x = x + reference_conv(y, layers["Conv3x3_1"]["kernel"])
    x = relu(reference_norm(x, params["GroupNorm_0"])).mean(axis=(1, 2))
    return reference_dense(x, params["Dense_0"])


@pytest.mark.parametrize(
    ("name", "reference"),
    [("mlp", reference_mlp), ("convnet", reference_convnet), ("wide", reference_wide)],
)
def test_network_is_its_definition(name, reference):
    network, x = NETWORKS[name], images(2, 9, 8, 2)
    params = drawn(network, x)
    numbers = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    # Float32 through ten layers: logits of order one, rounded a few hundred times.
    assert_allclose(
        jitted(network)(params, x), reference(numbers, np.asarray(x, np.float64)), atol=1e-4
    )


def test_conv_is_its_definition():
    x = images(2, 4, 5, 3)
    conv = Conv3x3(4, stride=2, use_bias=True)
    params = drawn(conv, x)
    kernel, bias = (np.asarray(params["params"][name]) for name in ("kernel", "bias"))
    # 27 products of order one summed in float32.
    assert_allclose(
        conv.apply(params, x), reference_conv(np.asarray(x), kernel, bias, 2), atol=1e-5
    )


@pytest.mark.parametrize("use_bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "size", [(6, 6), (7, 7), (5, 8), (8, 5), (1, 2)], ids="{0[0]}x{0[1]}".format
)
def test_conv_equals_flax_conv_in_value_and_gradient(size, stride, use_bias):
    x = images(3, *size, 2)
    ours = Conv3x3(4, stride, use_bias)
    flax = nn.Conv(4, (3, 3), strides=stride, padding=((1, 1), (1, 1)), use_bias=use_bias)
    params = drawn(ours, x)
    shapes = jax.eval_shape(flax.init, KEY, x)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
    height, width = (math.ceil(pixels / stride) for pixels in size)
    weights = images(3, height, width, 4)

    def value_and_gradients(conv):
        def total(params, x):
            y = conv.apply(params, x)
            return (y * weights).sum(), y

        gradients, value = quick_jit(jax.grad(total, (0, 1), has_aux=True))(params, x)
        return value, gradients

    # Sums of 18 (value), 36 (images) and up to 147 (kernel) products of order one in float32, in
    # another order.
    jax.tree.map(
        lambda a, b: assert_allclose(a, b, atol=1e-4),
        value_and_gradients(ours),
        value_and_gradients(flax),
    )


@pytest.mark.parametrize("size", [(6, 6), (5, 8), (1, 2)], ids="{0[0]}x{0[1]}".format)
def test_conv_of_many_channels_equals_flax_conv_up_to_second_derivatives(size):
    x = images(3, *size, 8)
    ours, flax = Conv3x3(4), nn.Conv(4, (3, 3), padding=((1, 1), (1, 1)), use_bias=False)
    params = drawn(ours, x)
    directions = drawn(ours, x, seed=1), images(3, *size, 8)[::-1]

    def derivatives(conv):
        def total(params, x):
            return jnp.tanh(conv.apply(params, x)).sum()

        # Forward mode over reverse mode: value, gradients and their derivatives along a line.
        @quick_jit
        def along(params, x):
            return jax.jvp(jax.value_and_grad(total, (0, 1)), (params, x), directions)

        return along(params, x)

    # Sums of up to 144 products of order one, and of their derivatives, in another order.
    jax.tree.map(
        lambda a, b: assert_allclose(a, b, atol=5e-4), derivatives(ours), derivatives(flax)
    )


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_norm_equals_flax_norm_in_value_and_gradient(dtype):
    x = images(3, 5, 4, 16) + 3
    ours = GroupNorm(dtype)
    flax = nn.GroupNorm(num_groups=None, group_size=8, use_fast_variance=False, dtype=dtype)
    params = drawn(ours, x)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(
        jnp.shape, jax.eval_shape(flax.init, KEY, x)
    )

    def value_and_gradients(norm):
        def total(params, x):
            y = norm.apply(params, x)
            return (y * x[::-1]).sum(), y

        return quick_jit(jax.grad(total, (0, 1), has_aux=True))(params, x)

    # Float32: sums of 60 numbers of order ten. Bfloat16: values up to 4, rounded to 1/128 of them.
    jax.tree.map(
        lambda a, b: assert_allclose(
            a.astype(float), b.astype(float), atol=1e-3 if dtype is None else 0.1, rtol=0.02
        ),
        value_and_gradients(ours),
        value_and_gradients(flax),
    )


def test_conv_takes_an_initializer():
    conv = Conv3x3(2, kernel_init=nn.initializers.ones)
    params = conv.init(KEY, jnp.zeros((1, 3, 3, 5)))
    assert jax.tree.map(jnp.shape, params) == {"params": {"kernel": (3, 3, 5, 2)}}
    assert_allclose(params["params"]["kernel"], 1.0)


@pytest.mark.parametrize(
    ("network", "shape", "count"),
    [
        (MLP((64, 64), 10), (8, 8), 65 * 64 + 65 * 64 + 65 * 10),
        (MLP((5,), 2), (3,), 4 * 5 + 6 * 2),
        (ConvNet(), (28, 28, 1), 9 * (32 + 32 * 64 + 64 * 128) + 448 + (9 * 128 + 1) * 10),
        (ConvNet(), (32, 32, 3), 9 * (96 + 32 * 64 + 64 * 128) + 448 + (16 * 128 + 1) * 10),
        (ConvNet(), (8, 8, 1), 9 * (32 + 32 * 64 + 64 * 128) + 448 + (128 + 1) * 10),
        (WideResNet(28, 2, 10), (32, 32, 3), 1_467_610),
        (WideResNet(28, 2, 100), (32, 32, 3), 1_479_220),
        (WideResNet(28, 10, 10), (32, 32, 3), 36_479_194),
    ],
    ids=["mlp", "mlp-small", "conv-28", "conv-32", "conv-8", "wrn-10", "wrn-100", "wrn-28-10"],
)
def test_parameters_and_logits_have_the_known_shapes(network, shape, count):
    x = jnp.zeros((1, *shape))
    params = jax.eval_shape(network.init, KEY, x)
    assert num_parameters(params) == count
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    logits = jax.eval_shape(network.apply, params, jnp.zeros((7, *shape)))
    assert (logits.shape, logits.dtype) == ((7, network.num_classes), jnp.float32)


def test_num_parameters_of_arrays():
    assert num_parameters({"a": np.zeros((2, 3)), "b": [jnp.zeros(()), jnp.zeros((0, 4))]}) == 7
    assert num_parameters({}) == 0


@small_network
def test_initial_kernels_keep_the_scale(network):
    def init(key):
        return network.init(key, jnp.zeros((1, 8, 8, 1)))

    params = quick_jit(jax.vmap(init))(jax.random.split(KEY, 3))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if path[-1].key == "kernel":
            is_last = leaf.shape[-1] == 3
            fan_in = math.prod(leaf.shape[1:-1])
            # Three draws of 24 numbers or more; a missing factor of two would be off by 0.41.
            assert_allclose(leaf.std(), math.sqrt((1 if is_last else 2) / fan_in), rtol=0.25)


@each_network
def test_bfloat16_inside_float32_outside(network):
    narrow = dataclasses.replace(network, dtype=jnp.bfloat16)
    x = images(4, 8, 8, 1)
    params = jax.eval_shape(narrow.init, KEY, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    apply = functools.partial(narrow.apply, capture_intermediates=True, mutable=["intermediates"])
    logits, inside = jax.eval_shape(apply, params, x)
    assert logits.dtype == jnp.float32
    by_layer = inside["intermediates"]
    last = max(name for name in by_layer if name.startswith("Dense"))
    layers = [by_layer[name] for name in by_layer if name not in (last, "__call__")]
    assert {leaf.dtype for leaf in jax.tree.leaves(layers)} == {jnp.dtype("bfloat16")}


@small_network
def test_bfloat16_is_near_float32(network):
    x, params = images(4, 8, 8, 1), drawn(network, jnp.zeros((1, 8, 8, 1)))
    narrow = jitted(dataclasses.replace(network, dtype=jnp.bfloat16))(params, x)
    wide = jitted(network)(params, x)
    # Bfloat16 has 8 bits: each layer rounds by up to 1/256; and something must have been rounded.
    assert_allclose(narrow, wide, atol=0.2)
    assert not np.allclose(narrow, wide, atol=1e-5)


@small_network
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_narrow_images_give_float32_logits(network, dtype):
    x = images(4, 8, 8, 1).astype(dtype)
    params = drawn(network, x)
    logits = jitted(network)(params, x)
    assert logits.dtype == jnp.float32
    # Without a dtype nothing is narrower than the parameters.
    assert_allclose(logits, jitted(network)(params, x.astype(jnp.float32)), atol=1e-5)


@small_network
def test_eager_is_jit(network):
    x, params = images(4, 8, 8, 1), drawn(network, jnp.zeros((1, 8, 8, 1)))
    # The same operations, fused and summed in another order: float32 rounding, here and below.
    assert_allclose(jitted(network)(params, x), network.apply(params, x), atol=1e-5)


@each_network
def test_single_is_vmap(network):
    x, params = images(4, 8, 8, 1), stacked(network)
    mapped = quick_jit(jax.vmap(network.apply, (0, None)))(params, x)
    assert_allclose(mapped, singles(network, params, x), atol=1e-4)


@small_network
def test_single_is_map(network):
    x, params = images(4, 8, 8, 1), stacked(network)

    @quick_jit
    def mapped(params, x):
        return lax.map(lambda one: network.apply(one, x), params, batch_size=2)

    assert_allclose(mapped(params, x), singles(network, params, x), atol=1e-4)


def singles(network, params, x):
    runs = [jax.tree.map(lambda leaf, run=run: leaf[run], params) for run in range(3)]
    return np.stack([jitted(network)(one, x) for one in runs])


@each_network
def test_examples_do_not_depend_on_their_batch(network):
    x = images(4, 8, 8, 1)
    params, apply = drawn(network, x), jitted(network)
    together = apply(params, x)
    alone = jnp.concatenate([apply(params, x[i : i + 1]) for i in range(4)])
    # Equal but for the order of sums in matrix products of another size.
    assert_allclose(together, alone, atol=1e-5)
    with_giant = apply(params, x.at[0].set(1e4))
    assert_allclose(together[1:], with_giant[1:], atol=1e-5)
    assert jax.eval_shape(network.apply, params, x[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    "network",
    [NETWORKS["mlp"], NETWORKS["convnet"], ConvNet((8, 16), 3, jnp.bfloat16)],
    ids=["mlp", "convnet", "bfloat16"],
)
def test_training_inside_scan_and_vmap_lowers_the_loss(network):
    x, labels = images(8, 8, 8, 1), jnp.arange(8) % 3

    def train(params):
        def loss(params):
            log_probs = jax.nn.log_softmax(network.apply(params, x))
            return -(log_probs * jax.nn.one_hot(labels, 3)).sum(axis=-1).mean()

        def step(params, _):
            value, gradient = jax.value_and_grad(loss)(params)
            return jax.tree.map(lambda p, g: p - 0.05 * g, params, gradient), value

        return lax.scan(step, params, length=10)[1]

    params = stacked(network)
    losses = quick_jit(jax.vmap(train))(params)  # [runs, steps]
    assert (losses[:, -1] < losses[:, 0]).all()
    alone = quick_jit(train)(jax.tree.map(lambda leaf: leaf[1], params))
    # Rounding differs with the shape of products and grows over ten steps; bfloat16 has 8 bits.
    narrow = network.dtype == jnp.bfloat16
    assert_allclose(losses[1], alone, rtol=0.1 if narrow else 1e-3)


SMALL = {
    "mlp": (MLP((4, 3), 2), (2, 3)),
    "convnet": (ConvNet((8,), 2), (2, 3, 2, 1)),
    "conv": (Conv3x3(2, 2, True), (2, 3, 4, 2)),
}


@pytest.mark.parametrize(("network", "shape"), SMALL.values(), ids=SMALL.keys())
def test_gradients_against_finite_differences(network, shape):
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(1).normal(size=shape))
        initial = jax.eval_shape(network.init, KEY, x)
        assert {leaf.dtype for leaf in jax.tree.leaves(initial)} == {jnp.dtype("float32")}
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), drawn(network, x))
        assert network.apply(params, x).dtype == jnp.float64
        # Float64 and steps of 1e-6: errors of 1e-10 from rounding and 1e-12 from the curve, times
        # the gain of the normalisation; no ReLU of these inputs lies within a step of its bend.
        check_grads(jax.jit(network.apply), (params, x), order=1, eps=1e-6, atol=1e-5, rtol=1e-5)


EXTREMES = {
    "large": images(2, 8, 8, 1) * 1e4,
    "large constant": jnp.full((2, 8, 8, 1), 1e4),
    "constant": jnp.ones((2, 8, 8, 1)),
    "black": jnp.zeros((2, 8, 8, 1)),
}


@pytest.mark.parametrize(
    "network",
    [NETWORKS["mlp"], NETWORKS["convnet"], ConvNet((8, 16), 3, jnp.bfloat16)],
    ids=["mlp", "convnet", "bfloat16"],
)
def test_extremes_stay_finite_in_value_and_gradient(network):
    @quick_jit
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def gradients(params, x):
        logits = network.apply(params, x)
        return logits.sum(), logits

    params = drawn(network, jnp.zeros((1, 8, 8, 1)))
    for name, x in EXTREMES.items():
        for leaf in jax.tree.leaves(gradients(params, x)):
            assert np.isfinite(leaf).all(), name


def test_networks_can_be_hashed_and_compared():
    assert hash(MLP([4, 4], 2)) == hash(MLP((4, 4), 2))
    assert MLP([4, 4], 2) == MLP((4, 4), 2)
    assert ConvNet([8]) != ConvNet((16,))
    assert WideResNet(np.int64(10)) == WideResNet(10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP((), 2), r"widths: expected one .* got \(\)"),
        (lambda: MLP(64, 10), "widths: expected one .* tuple, got 64"),
        (lambda: MLP((4, 0), 2), "widths: expected a whole number, 1 or more, got 0"),
        (lambda: MLP((4.0,), 2), "widths: expected a whole number, 1 or more, got 4.0"),
        (lambda: MLP((4,), 1), "num_classes: expected a whole number, 2 or more, got 1"),
        (lambda: ConvNet(()), "widths: expected one"),
        (lambda: ConvNet((8, -8)), "widths: expected a whole number, 1 or more, got -8"),
        (lambda: ConvNet((8, 12)), r"widths: expected multiples of 8 .* got \(8, 12\)"),
        (lambda: ConvNet(num_classes=1), "num_classes: expected .* got 1"),
        (lambda: WideResNet(27), r"depth: expected 6 n \+ 4 .* got 27"),
        (lambda: WideResNet(4), "depth: expected a whole number, 10 or more, got 4"),
        (lambda: WideResNet(width=0), "width: expected a whole number, 1 or more, got 0"),
        (lambda: WideResNet(num_classes=0), "num_classes: expected .* got 0"),
        (lambda: Conv3x3(0), "features: expected .* got 0"),
        (lambda: Conv3x3(1, stride=0), "stride: expected .* got 0"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


ALL = {**NETWORKS, "conv": Conv3x3(2)}


@pytest.mark.parametrize("network", ALL.values(), ids=ALL.keys())
@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
def test_integer_images_are_refused(network, dtype):
    with pytest.raises(TypeError, match=rf"images: expected floating-point .* {dtype}; scale to"):
        network.init(KEY, np.zeros((1, 8, 8, 1), dtype))


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        (MLP((2,), 2), (3,), r"images: expected shape \[B, \.\.\.\], got \[3\]"),
        (ConvNet((8,)), (8, 8, 1), r"images: expected shape \[B, H, W, C\], got \[8, 8, 1\]"),
        (WideResNet(10), (8, 8), r"images: expected shape \[B, H, W, C\], got \[8, 8\]"),
        (Conv3x3(2), (8, 8, 1), r"images: expected shape \[B, H, W, C\]"),
        (
            ConvNet(),
            (1, 7, 9, 1),
            r"images: expected 8×8 pixels or more .* got shape \[1, 7, 9, 1\]",
        ),
    ],
)
def test_bad_shapes_are_named(network, shape, message):
    with pytest.raises(ValueError, match=message):
        network.init(KEY, jnp.zeros(shape))
