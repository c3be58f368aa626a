"""Labels as parameters: golden numbers, both modes against each other and finite differences."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax

from jsoft import meta_labels

GOLDEN = Path(__file__).parent / "golden"
PROJECTIONS = ("simplex", "clip_renormalize", "softmax")
each_method = pytest.mark.parametrize("method", ["jvp", "reverse"])
each_projection = pytest.mark.parametrize("projection", PROJECTIONS)


def golden(name, case=""):
    with np.load(GOLDEN / f"meta_labels_{name}.npz") as file:
        start = f"{case}__" if case else ""
        return {key.removeprefix(start): file[key] for key in file if key.startswith(start)}


def linear(params, inputs):
    return inputs @ params["W"] + params["b"][None]


def trusted_loss(logits_fn, inputs, labels):
    """Return the mean cross-entropy on trusted examples, as a function of the parameters."""

    def loss(params):
        logits = logits_fn(params, jnp.asarray(inputs))
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels)).mean()

    return loss


def softmax_regression(case):
    vectors = golden("softmax_regression", case)
    params = {name: jnp.asarray(vectors[name]) for name in ("W", "b")}
    trusted = trusted_loss(linear, vectors["X_meta"], vectors["hard_meta"])
    return vectors, params, trusted


def perceptron(seed, *, dtype=np.float32):
    """Return a smooth network of one hidden layer, a batch, its labels and a trusted loss."""
    rng = np.random.default_rng(seed)
    shapes = {"W": (4, 6), "b": (6,), "V": (6, 3)}
    params = {name: rng.normal(size=shape).astype(dtype) / 2 for name, shape in shapes.items()}
    inputs, trusted_inputs = (rng.normal(size=(rows, 4)).astype(dtype) for rows in (5, 7))
    labels = rng.dirichlet(np.ones(3), 5).astype(dtype)
    return params, inputs, labels, trusted_loss(hidden, trusted_inputs, np.arange(7) % 3)


@functools.cache
def compiled(logits_fn, trusted, **options):
    @jax.jit
    def compute(params, inputs, labels, lr):
        return meta_labels.meta_label_gradient(
            logits_fn, params, inputs, labels, trusted, lr=lr, **options
        )

    return compute


def gradient_of(logits_fn, params, inputs, labels, trusted, *, lr=0.5, **options):
    """Return what the function returns compiled, which is quicker than one operation at a time."""
    return compiled(logits_fn, trusted, **options)(params, inputs, labels, lr)


update = jax.jit(meta_labels.update_labels, static_argnames="projection")
scatter = jax.jit(meta_labels.scatter_label_update, static_argnames="projection")
project = jax.jit(meta_labels.project_simplex)


def hidden(params, inputs):
    return jnp.tanh(inputs @ params["W"] + params["b"][None]) @ params["V"]


# --- golden numbers -------------------------------------------------------------------------------


def close_to_largest(found, expected, tolerance):
    assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@each_method
def test_golden_binary_logistic_regression(method):
    """One label P(class 1) is a row (1 − y, y), whose logits are (0, z)."""
    vectors = golden("logreg_binary")

    def logits_fn(w, inputs):
        z = inputs @ w
        return jnp.stack([jnp.zeros_like(z), z], axis=-1)

    with jax.enable_x64(True):
        w, y = jnp.asarray(vectors["w"]), jnp.asarray(vectors["y_train"])
        trusted = trusted_loss(logits_fn, vectors["X_meta"], vectors["y_meta"].astype(int))
        rows = jnp.stack([1 - y, y], axis=-1)
        inputs = jnp.asarray(vectors["X_train"])
        gradient, loss = gradient_of(
            logits_fn, w, inputs, rows, trusted, lr=vectors["lr"].item(), method=method
        )
        along = gradient[:, 1] - gradient[:, 0]
        assert_allclose(loss, vectors["meta_loss"], rtol=1e-10)
        assert_allclose(along, vectors["label_grad_analytic"], rtol=1e-10)
        close_to_largest(along, vectors["label_grad_fd"], 1e-6)
        # The projection shares a step among both entries: a step twice as long goes as far.
        rate = 2 * vectors["label_lr"].item()
        updated = update(rows, gradient, lr=rate)
        assert_allclose(updated[:, 1], vectors["label_updated_clipped"], rtol=1e-10, atol=1e-15)

        def train_loss(w):
            return optax.losses.sigmoid_binary_cross_entropy(inputs @ w, y).mean()

        value, slope = jax.jit(jax.value_and_grad(train_loss))(w)
        assert_allclose(value, vectors["train_loss"], rtol=1e-10)
        ahead = meta_labels.lookahead_params(w, slope, lr=vectors["lr"].item())
        assert_allclose(ahead, vectors["w_lookahead"], rtol=1e-10)
        assert_allclose(jax.grad(trusted)(ahead), vectors["grad_w_meta"], rtol=1e-10)


@each_method
@pytest.mark.parametrize("case", ["c2", "c4"])
def test_golden_softmax_regression(case, method):
    with jax.enable_x64(True):
        vectors, params, trusted = softmax_regression(case)
        inputs, hard = jnp.asarray(vectors["X_train"]), vectors["hard_train"]
        num_classes, rate = vectors["labels"].shape[1], vectors["label_lr"].item()
        of = functools.partial(
            gradient_of, linear, params, inputs, lr=vectors["lr"].item(), method=method
        )
        gradient, loss = of(vectors["labels"], trusted)
        assert_allclose(loss, vectors["meta_loss"], rtol=1e-10)
        expected = vectors["label_grad_analytic"]
        close_to_largest(gradient, expected, 1e-10)
        close_to_largest(gradient, vectors["label_grad_fd"], 1e-6)
        tangent = gradient - gradient.mean(axis=1, keepdims=True)
        close_to_largest(tangent, vectors["label_grad_tangent"], 1e-10)

        for projection, name in (
            ("simplex", "labels_simplex_projected"),
            ("clip_renormalize", "labels_clip_renorm"),
        ):
            updated = update(vectors["labels"], gradient, lr=rate, projection=projection)
            assert_allclose(updated, vectors[name], rtol=1e-10, atol=1e-14)

        logits = vectors["label_logits"]
        of_labels, _ = of(softmax(logits, axis=1), trusted)
        moved = update(logits, of_labels, lr=1.0, projection="softmax")
        close_to_largest(logits - moved, vectors["label_logits_grad_analytic"], 1e-10)
        close_to_largest(logits - moved, vectors["label_logits_grad_fd"], 1e-6)

        of_rows, loss = of(vectors["class_labels"][hard], trusted)
        assert_allclose(loss, vectors["meta_loss_class"], rtol=1e-10)
        of_classes = meta_labels.class_label_gradient(of_rows, hard, num_classes=num_classes)
        close_to_largest(of_classes, vectors["class_label_grad_analytic"], 1e-10)
        close_to_largest(of_classes, vectors["class_label_grad_fd"], 1e-6)


@pytest.mark.parametrize("case", ["c2", "c4"])
def test_golden_look_ahead(case):
    """The step itself, two of them, and one with momentum and weight decay."""
    with jax.enable_x64(True):
        vectors, params, trusted = softmax_regression(case)
        inputs, labels = jnp.asarray(vectors["X_train"]), jnp.asarray(vectors["labels"])
        lr = vectors["lr"].item()

        def train_loss(params):
            return optax.safe_softmax_cross_entropy(linear(params, inputs), labels).mean()

        value, slope = jax.jit(jax.value_and_grad(train_loss))(params)
        assert_allclose(value, vectors["train_loss"], rtol=1e-10)
        ahead = meta_labels.lookahead_params(params, slope, lr=lr)
        for name in ("W", "b"):
            assert_allclose(ahead[name], vectors[f"{name}_lookahead"], rtol=1e-10)

        gradient, loss = gradient_of(
            linear, params, inputs, labels, trusted, lr=lr, method="reverse", inner_steps=2
        )
        assert_allclose(loss, vectors["meta_loss_unroll2"], rtol=1e-10)
        close_to_largest(gradient, vectors["label_grad_unroll2_fd"], 1e-6)

        optimizer = optax.chain(
            optax.add_decayed_weights(vectors["weight_decay"].item()),
            optax.sgd(lr, momentum=vectors["momentum"].item()),
        )
        velocity = {name: jnp.asarray(vectors[f"momentum_{name}"]) for name in ("W", "b")}
        state = optax.tree_utils.tree_set(optimizer.init(params), trace=velocity)

        def step(params, gradients, *, lr):
            return optax.apply_updates(params, optimizer.update(gradients, state, params)[0])

        for method in ("jvp", "reverse"):
            gradient, loss = gradient_of(
                linear, params, inputs, labels, trusted, lr=lr, lookahead=step, method=method
            )
            assert_allclose(loss, vectors["meta_loss_momentum"], rtol=1e-10)
            close_to_largest(gradient, vectors["label_grad_momentum_fd"], 1e-6)


@each_method
@pytest.mark.parametrize("case", ["c2", "c4"])
def test_golden_in_float32(case, method):
    vectors, params, trusted = softmax_regression(case)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    inputs, labels = (jnp.asarray(vectors[name], jnp.float32) for name in ("X_train", "labels"))
    gradient, loss = gradient_of(
        linear, params, inputs, labels, trusted, lr=vectors["lr"].item(), method=method
    )
    assert gradient.dtype == jnp.float32
    assert_allclose(loss, vectors["meta_loss"], rtol=1e-4)
    close_to_largest(gradient, vectors["label_grad_analytic"], 1e-4)


# --- the gradient ---------------------------------------------------------------------------------


def reference_gradient(params, inputs, labels, trusted_inputs, trusted_labels, lr):
    """Softmax regression by loops: G_ic = (η/B)(u_ic − Σ_k p_ik u_ik), u the trusted direction."""
    weights, bias = params["W"], params["b"]
    slope_w, slope_b = np.zeros_like(weights), np.zeros_like(bias)
    for x, row in zip(inputs, labels, strict=True):
        error = softmax(x @ weights + bias) * row.sum() - row
        slope_w += np.outer(x, error) / len(inputs)
        slope_b += error / len(inputs)
    weights_ahead, bias_ahead = weights - lr * slope_w, bias - lr * slope_b
    v_w, v_b = np.zeros_like(weights), np.zeros_like(bias)
    for x, t in zip(trusted_inputs, trusted_labels, strict=True):
        error = softmax(x @ weights_ahead + bias_ahead) - np.eye(len(bias))[t]
        v_w += np.outer(x, error) / len(trusted_inputs)
        v_b += error / len(trusted_inputs)
    gradient = []
    for x in inputs:
        p, u = softmax(x @ weights + bias), x @ v_w + v_b
        gradient.append(lr / len(inputs) * (u - p @ u))
    return np.array(gradient)


@each_method
def test_gradient_matches_the_loops(method):
    rng = np.random.default_rng(0)
    params = {"W": rng.normal(size=(4, 3)), "b": rng.normal(size=3)}
    inputs, labels = rng.normal(size=(6, 4)), rng.random((6, 3))  # rows that do not sum to one
    labels[2] = 0  # teaches nothing, and could
    trusted_inputs, trusted_labels = rng.normal(size=(5, 4)), rng.integers(0, 3, 5)
    expected = reference_gradient(params, inputs, labels, trusted_inputs, trusted_labels, 0.7)
    with jax.enable_x64(True):
        gradient, _ = gradient_of(
            linear,
            jax.tree.map(jnp.asarray, params),
            jnp.asarray(inputs),
            labels,
            trusted_loss(linear, trusted_inputs, trusted_labels),
            lr=0.7,
            method=method,
        )
    assert_allclose(gradient, expected, rtol=1e-10)


def batch_normalised(params, inputs):
    x = inputs @ params["W"] + params["b"][None]
    x = (x - x.mean(axis=0, keepdims=True)) / jnp.sqrt(x.var(axis=0, keepdims=True) + 0.1)
    return jnp.tanh(x) @ params["V"]


def adam(params, gradients, *, lr):
    optimizer = optax.adam(lr, eps=0.1)  # smooth at a gradient of 0
    return optax.apply_updates(
        params, optimizer.update(gradients, optimizer.init(params), params)[0]
    )


@pytest.mark.parametrize(
    ("logits_fn", "lookahead"),
    [
        (hidden, meta_labels.lookahead_params),
        (batch_normalised, meta_labels.lookahead_params),
        (hidden, adam),
    ],
    ids=["plain", "batch normalisation", "adam"],
)
def test_both_modes_and_finite_differences_agree(logits_fn, lookahead):
    with jax.enable_x64(True):
        params, inputs, labels, _ = perceptron(0, dtype=np.float64)
        trusted = trusted_loss(logits_fn, np.linspace(-2, 2, 28).reshape(7, 4), np.arange(7) % 3)
        of = functools.partial(
            meta_labels.meta_label_gradient,
            logits_fn,
            params,
            inputs,
            meta_loss_fn=trusted,
            lr=0.3,
            lookahead=lookahead,
        )
        both = jax.jit(lambda labels: (of(labels=labels), of(labels=labels, method="reverse")))
        (forward, loss), (reverse, same_loss) = both(labels)
        assert_allclose(loss, same_loss, rtol=1e-12)
        close_to_largest(forward, reverse, 1e-12)
        step = 1e-6
        differences = np.zeros(labels.shape)
        for place in np.ndindex(labels.shape):
            nudge = np.zeros(labels.shape)
            nudge[place] = step
            up, down = both(labels + nudge)[0][1], both(labels - nudge)[0][1]
            differences[place] = (up - down) / (2 * step)
        close_to_largest(forward, differences, 1e-6)


def test_nesterov_multiplies_the_gradient():
    """G is by 1 + μ what it is at the same look-ahead point without."""
    with jax.enable_x64(True):
        params, inputs, labels, _ = perceptron(1, dtype=np.float64)
        flat_loss = lambda params: sum(leaf.sum() for leaf in jax.tree.leaves(params))  # noqa: E731
        optimizer = optax.sgd(0.2, momentum=0.9, nesterov=True)
        state = optimizer.init(params)

        def nesterov(params, gradients, *, lr):
            return optax.apply_updates(params, optimizer.update(gradients, state, params)[0])

        of = functools.partial(gradient_of, hidden, params, inputs, labels, flat_loss, lr=0.2)
        assert_allclose(of(lookahead=nesterov)[0], 1.9 * of()[0], rtol=1e-12)


def test_gradient_has_no_mean_under_the_model():
    params, inputs, labels, trusted = perceptron(2)
    gradient, _ = gradient_of(hidden, params, inputs, labels, trusted)
    probabilities = jax.nn.softmax(hidden(params, inputs))
    assert np.abs(gradient).max() > 1e-3
    assert_allclose((probabilities * gradient).sum(axis=1), 0, atol=1e-8)


def test_no_look_ahead_no_gradient_and_rate_and_batch_size_drop_out_when_normalised():
    params, inputs, labels, trusted = perceptron(3)
    of = functools.partial(gradient_of, hidden, params, inputs, labels, trusted)
    assert_array_equal(of(lr=0.0)[0], np.zeros((5, 3)))
    raw, _ = of(lr=0.25)
    assert_allclose(of(lr=0.25, normalize=True)[0], raw * 5 / 0.25, rtol=1e-6)
    assert_allclose(
        of(lr=0.25, normalize=True, method="reverse")[0], raw * 5 / 0.25, rtol=1e-4, atol=1e-6
    )


@each_method
def test_a_class_that_is_ruled_out_takes_no_part(method):
    """The same as without the class, and 0 where it was, whatever its label."""
    params, inputs, _, _ = perceptron(4)
    mask = jnp.array([0.0, 0.0, -jnp.inf])

    def masked(params, inputs):
        return hidden(params, inputs) + mask[None]

    def narrow(params, inputs):
        return hidden(params, inputs)[:, :2]

    labels = jnp.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0, 0, 1], [0, 1, 0]])
    trusted_inputs, trusted_labels = (
        np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
        [0, 1, 0],
    )
    gradient, loss = gradient_of(
        masked,
        params,
        inputs,
        labels,
        trusted_loss(masked, trusted_inputs, trusted_labels),
        lr=0.5,
        method=method,
    )
    expected, same_loss = gradient_of(
        narrow,
        params,
        inputs,
        labels[:, :2],
        trusted_loss(narrow, trusted_inputs, trusted_labels),
        lr=0.5,
        method=method,
    )
    assert_allclose(loss, same_loss, rtol=1e-6)
    assert_allclose(gradient[:, :2], expected, rtol=1e-5, atol=1e-8)
    assert_array_equal(gradient[:, 2], np.zeros(5))


def test_a_row_of_zeros_teaches_nothing_and_has_a_gradient():
    """The look-ahead is that of the other rows, by a batch of the same size."""
    params, inputs, labels, trusted = perceptron(5)
    labels = np.where(np.arange(5)[:, None] == 1, 0, labels)
    of = functools.partial(gradient_of, hidden, params)
    gradient, loss = of(inputs, labels, trusted)
    _, of_others = of(np.where(np.arange(5)[:, None] == 1, 7, inputs), labels, trusted)
    assert_allclose(loss, of_others, rtol=1e-6)
    assert np.abs(gradient[1]).max() > 1e-4


@each_method
def test_logits_of_ten_thousand_stay_finite(method):
    params, inputs, labels, _ = perceptron(6)

    def huge(params, inputs):
        return 1e4 * hidden(params, inputs)

    gradient, loss = gradient_of(
        huge,
        params,
        inputs,
        labels,
        trusted_loss(huge, np.ones((2, 4), np.float32), [0, 1]),
        lr=1e-8,
        method=method,
    )
    assert np.isfinite(gradient).all()
    assert np.isfinite(loss)
    assert np.abs(gradient).max() > 0


def test_a_bfloat16_network_has_a_float32_gradient():
    params, inputs, labels, _ = perceptron(7)

    def narrow(params, inputs):
        low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
        return hidden(low, inputs.astype(jnp.bfloat16))

    trusted_inputs = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)

    def compute(network):
        def trusted(params):
            logits = network(params, jnp.asarray(trusted_inputs)).astype(jnp.float32)
            return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(3)).mean()

        return gradient_of(network, params, inputs, labels, trusted)[0]

    gradient = compute(narrow)
    assert gradient.dtype == jnp.float32
    # bfloat16 has 8 bits; a few roundings of it
    close_to_largest(gradient, np.asarray(compute(hidden)), 0.05)


@each_method
def test_jit_and_vmap_over_runs_agree(method):
    params, inputs, _, trusted = perceptron(10)
    stacked = jax.tree.map(lambda leaf: np.stack([leaf, leaf / 2, -leaf]), params)
    labels = np.random.default_rng(0).dirichlet(np.ones(3), (3, 5)).astype(np.float32)

    def run(params, labels, lr):
        gradient, loss = meta_labels.meta_label_gradient(
            hidden, params, inputs, labels, trusted, lr=lr, method=method
        )
        rows = jnp.array([0, 3, 3, 1, 2])
        return gradient, loss, scatter(labels, rows, gradient, lr=10 * lr)

    rates = np.array([0.1, 0.2, 0.0], np.float32)
    mapped = jax.jit(jax.vmap(run))(stacked, labels, rates)
    jitted = jax.jit(run)
    for row, rate in enumerate(rates):
        of_row = jax.tree.map(lambda leaf, row=row: leaf[row], stacked)
        for one, many in zip(jitted(of_row, labels[row], rate), mapped, strict=True):
            assert_allclose(many[row], one, rtol=1e-5, atol=1e-7)
    assert jitted._cache_size() == 1  # rates are traced


def test_one_example_and_two_inner_steps_of_a_network():
    """Two steps by hand, differentiated."""
    params, inputs, labels, trusted = perceptron(8)
    inputs, labels = inputs[:1], labels[:1]

    def by_hand(labels):
        moved = params
        for _ in range(2):
            slope = jax.grad(lambda p: -(labels * jax.nn.log_softmax(hidden(p, inputs))).sum())(
                moved
            )
            moved = jax.tree.map(lambda p, g: p - 0.3 * g, moved, slope)
        return trusted(moved)

    gradient, _ = gradient_of(
        hidden, params, inputs, labels, trusted, lr=0.3, method="reverse", inner_steps=2
    )
    assert_allclose(gradient, jax.jit(jax.grad(by_hand))(labels), rtol=1e-4, atol=1e-7)


# --- labels that stay valid -----------------------------------------------------------------------


def nearest_by_search(x):
    """Return the projection on the simplex by quadratic programming."""
    found = scipy.optimize.minimize(
        lambda q: ((q - x) ** 2).sum(),
        np.full(len(x), 1 / len(x)),
        jac=lambda q: 2 * (q - x),
        bounds=[(0, None)] * len(x),
        constraints={"type": "eq", "fun": lambda q: q.sum() - 1, "jac": lambda q: np.ones(len(x))},
        method="SLSQP",
        options={"ftol": 1e-14},
    )
    assert found.success
    return found.x


def test_projection_is_the_nearest_point():
    rows = np.random.default_rng(0).normal(size=(8, 4)) * 2
    with jax.enable_x64(True):
        projected = np.asarray(project(rows))
    for x, q in zip(rows, projected, strict=True):
        assert_allclose(q, nearest_by_search(x), atol=1e-6)


def test_projection_keeps_probabilities_and_shapes():
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(10), (3, 4)).astype(np.float32)
    assert_allclose(project(rows), rows, atol=3e-7)
    one_hot = np.eye(10, dtype=np.float32)[rng.integers(0, 10, (3, 4))]
    assert_array_equal(project(one_hot), one_hot)
    values = 3 * rng.normal(size=(3, 4, 10)).astype(np.float32)
    once = project(values)
    assert once.shape == (3, 4, 10)
    assert_allclose(once.sum(axis=-1), 1, atol=1e-6)
    assert (np.asarray(once) >= 0).all()
    assert_allclose(project(once), once, atol=3e-7)
    order = rng.permutation(10)
    assert_allclose(project(values[..., order]), once[..., order], atol=1e-6)
    assert_allclose(jax.vmap(project)(values), once, atol=1e-6)
    assert_allclose(meta_labels.project_simplex(values), once, atol=1e-6)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([1e30, 0.0, -1.0], [1, 0, 0]),
        ([0.0, 1e4, 0.0], [0, 1, 0]),
        ([-1e4, -1e4, -1e4], [1 / 3, 1 / 3, 1 / 3]),
        ([-np.inf, 0.5, 0.5], [0, 0.5, 0.5]),
        ([np.nan, 0.5, 0.5], [np.nan] * 3),
        ([np.inf, 0.5, 0.5], [np.nan] * 3),
    ],
    ids=["huge", "large", "far below", "minus infinity", "nan", "infinity"],
)
def test_projection_of_extremes(row, expected):
    """NaN spreads over its row and no further."""
    rows = jnp.array([row, [0.25, 0.25, 0.5]])
    projected = project(rows)
    assert_allclose(projected, [expected, [0.25, 0.25, 0.5]], rtol=1e-6)


def test_projection_of_bfloat16_stays_bfloat16():
    projected = project(jnp.array([0.75, 0.75, -1.0], jnp.bfloat16))
    assert projected.dtype == jnp.bfloat16
    assert_array_equal(projected.astype(jnp.float32), [0.5, 0.5, 0.0])


def test_projection_is_differentiable():
    rows = np.random.default_rng(1).normal(size=(5, 4))
    with jax.enable_x64(True):
        weights = jnp.arange(4.0)
        slope = jax.jit(jax.grad(lambda x: (project(x) * weights[None]).sum()))(rows)
        for place in np.ndindex(rows.shape):
            nudge = np.zeros(rows.shape)
            nudge[place] = 1e-6
            up, down = ((project(rows + sign * nudge) * weights[None]).sum() for sign in (1, -1))
            assert_allclose(slope[place], (up - down) / 2e-6, atol=1e-8)


@each_projection
def test_a_step_gives_labels_that_lower_the_trusted_loss(projection):
    with jax.enable_x64(True):
        params, inputs, labels, trusted = perceptron(9, dtype=np.float64)
        is_logits = projection == "softmax"
        learned = jnp.log(labels) if is_logits else labels
        of = functools.partial(gradient_of, hidden, params, inputs, trusted=trusted, lr=0.3)
        gradient, before = of(labels=labels)
        moved = update(learned, gradient, lr=1.0, projection=projection)
        moved = jax.nn.softmax(moved) if is_logits else moved
        assert_allclose(moved.sum(axis=-1), 1, rtol=1e-12)
        assert (np.asarray(moved) >= 0).all()
        _, after = of(labels=moved)
        assert after < before - 1e-4


def test_clipping_makes_a_row_with_nothing_left_uniform():
    labels = jnp.array([[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    gradient = jnp.array([[2.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, -0.5]])
    moved = update(labels, gradient, lr=1.0, projection="clip_renormalize")
    assert_allclose(moved, [[0.25] * 4, [0, 0.5, 0, 0.5]])


def reference_scatter(table, indices, gradient, lr, projection):
    """One table row after the other; gradients of a row that comes up twice add."""
    moved = np.array(table)
    for row in set(indices.tolist()):
        total = sum(g for i, g in zip(indices, gradient, strict=True) if i == row)
        moved[row] = update(
            jnp.asarray(table[row]), jnp.asarray(total), lr=lr, projection=projection
        )
    return moved


@each_projection
def test_scatter_adds_duplicates_and_leaves_other_rows(projection):
    rng = np.random.default_rng(2)
    table = rng.random((6, 3)).astype(np.float32)  # no probabilities: what is untouched shows
    indices = np.array([4, 1, 4, 4, 0])
    gradient = rng.normal(size=(5, 3)).astype(np.float32)
    moved = scatter(table, indices, gradient, lr=0.5, projection=projection)
    expected = reference_scatter(table, indices, gradient, 0.5, projection)
    assert_allclose(moved, expected, atol=1e-6)
    assert_array_equal(np.asarray(moved)[[2, 3, 5]], table[[2, 3, 5]])


def test_labels_of_classes_move_by_the_sum_of_their_examples():
    rng = np.random.default_rng(3)
    table = 0.7 * np.eye(4, dtype=np.float32) + np.float32(0.3 / 4)
    hard, gradient = np.array([2, 0, 2, 3, 2]), rng.normal(size=(5, 4)).astype(np.float32)
    summed = meta_labels.class_label_gradient(gradient, hard, num_classes=4)
    expected = np.zeros((4, 4))
    for h, g in zip(hard, gradient, strict=True):
        expected[h] += g
    assert_allclose(summed, expected, atol=1e-6)
    assert_array_equal(summed[1], np.zeros(4))
    by_rows = scatter(table, hard, gradient, lr=0.1)
    by_class = update(table, summed, lr=0.1)
    assert_allclose(by_rows, by_class, atol=1e-6)


def test_labels_start_from_the_hard_ones():
    hard = np.array([[2, 0], [1, 2]])
    expected = 0.7 * np.eye(3)[hard] + 0.1
    found = meta_labels.init_labels(hard, num_classes=3, smoothing=0.3)
    assert found.dtype == jnp.float32
    assert_allclose(found, expected, rtol=1e-6)
    assert_array_equal(meta_labels.init_labels(hard, num_classes=3), np.eye(3)[hard])
    smoothed = jax.jit(lambda s: meta_labels.init_class_labels(3, smoothing=s))(0.3)
    assert_allclose(smoothed, 0.7 * np.eye(3) + 0.1, rtol=1e-6)


# --- what was recovered ---------------------------------------------------------------------------


def test_recovery_counts_by_hand():
    rng = np.random.default_rng(4)
    true, given = rng.integers(0, 3, 40), rng.integers(0, 3, 40)
    learned = rng.random((40, 3)).astype(np.float32)
    answers = learned.argmax(axis=1)
    wrong = [i for i in range(40) if given[i] != true[i]]
    right = [i for i in range(40) if given[i] == true[i]]
    expected = [
        sum(answers[i] == true[i] for i in rows) / len(rows) for rows in (wrong, right, range(40))
    ]
    for form in (learned, answers):
        found = meta_labels.label_recovery(form, given, true)
        assert_allclose(found, expected, rtol=1e-6)
        mapped = jax.vmap(meta_labels.label_recovery)(
            jnp.stack([form] * 2), jnp.stack([given] * 2), jnp.stack([true] * 2)
        )
        assert_allclose(mapped.fixed, expected[0], rtol=1e-6)
    nothing_wrong = meta_labels.label_recovery(answers, true, true)
    assert np.isnan(nothing_wrong.fixed)
    assert_allclose(nothing_wrong.kept, nothing_wrong.accuracy)


# --- refusals -------------------------------------------------------------------------------------

LABELS = jnp.full((2, 3), 1 / 3)
CALLS = {
    "gradient": lambda **changed: meta_labels.meta_label_gradient(
        **{
            "logits_fn": lambda params, inputs: inputs @ params,
            "params": jnp.ones((4, 3)),
            "inputs": jnp.ones((2, 4)),
            "labels": LABELS,
            "meta_loss_fn": lambda params: params.sum(),
            "lr": 0.1,
            **changed,
        }
    ),
    "update": lambda **changed: meta_labels.update_labels(
        **{"labels": LABELS, "gradient": LABELS, "lr": 0.1, **changed}
    ),
    "scatter": lambda **changed: meta_labels.scatter_label_update(
        **{
            "table": LABELS,
            "indices": np.array([0, 1]),
            "gradient": LABELS,
            "lr": 0.1,
            **changed,
        }
    ),
    "class": lambda **changed: meta_labels.class_label_gradient(
        **{
            "instance_gradient": LABELS,
            "hard_labels": np.array([0, 2]),
            "num_classes": 3,
            **changed,
        }
    ),
    "recovery": lambda **changed: meta_labels.label_recovery(
        **{
            "learned": LABELS,
            "given": np.array([0, 1]),
            "true": np.array([0, 2]),
            **changed,
        }
    ),
    "init": lambda **changed: meta_labels.init_labels(
        **{"hard_labels": np.array([0, 1]), "num_classes": 3, **changed}
    ),
    "classes": lambda **changed: meta_labels.init_class_labels(**{"num_classes": 3, **changed}),
    "ahead": lambda **changed: meta_labels.lookahead_params(
        **{"params": jnp.ones(3), "gradients": jnp.ones(3), "lr": 0.1, **changed}
    ),
    "project": lambda **changed: meta_labels.project_simplex(**{"values": LABELS, **changed}),
}


@pytest.mark.parametrize(
    ("call", "changed", "message"),
    [
        ("gradient", {"labels": jnp.ones((2, 3), int)}, "labels: expected float32 or float64"),
        ("gradient", {"labels": LABELS.astype(jnp.bfloat16)}, "labels: expected float32"),
        ("gradient", {"labels": jnp.ones(3)}, r"labels: expected shape \[N, C\]"),
        ("gradient", {"labels": jnp.ones((1, 3))}, r"logits_fn: expected shape \[1, 3\]"),
        ("gradient", {"labels": jnp.ones((2, 2))}, r"logits_fn: expected shape \[2, 2\]"),
        ("gradient", {"labels": LABELS.at[1, 0].set(jnp.nan)}, "labels: expected finite"),
        ("gradient", {"logits_fn": lambda p, x: jnp.ones((2, 3), int)}, "logits_fn: expected flo"),
        ("gradient", {"meta_loss_fn": lambda p: p}, r"meta_loss_fn: expected shape \[\]"),
        ("gradient", {"lr": -0.1}, "lr: expected 0 or more"),
        ("gradient", {"lr": np.ones(2)}, "lr: expected one number"),
        ("gradient", {"lr": 0.0, "normalize": True}, "lr: expected a number above zero"),
        ("gradient", {"method": "forward"}, "method: expected"),
        ("gradient", {"inner_steps": 2}, "inner_steps: expected 1 with"),
        ("gradient", {"inner_steps": 0}, "inner_steps: expected 1 or more"),
        ("update", {"labels": LABELS.astype(jnp.bfloat16)}, "labels: expected float32"),
        ("update", {"gradient": jnp.ones(3)}, r"gradient: expected shape \[2, 3\], got \[3\]"),
        ("update", {"gradient": jnp.ones((2, 3), int)}, "gradient: expected floating"),
        ("update", {"gradient": LABELS * jnp.nan}, "gradient: expected finite"),
        ("update", {"lr": -1.0}, "lr: expected 0 or more"),
        ("update", {"lr": np.ones(3)}, "lr: expected one number"),
        ("update", {"projection": "sphere"}, "projection: expected"),
        ("scatter", {"table": jnp.ones(3)}, r"table: expected shape \[N, C\]"),
        ("scatter", {"indices": np.array([0, 2])}, "indices: expected .* 0 … 1, got 2"),
        ("scatter", {"indices": np.array([0, -1])}, "indices: expected .* 0 … 1, got -1"),
        ("scatter", {"indices": np.array([0.0, 1.0])}, "indices: expected integer"),
        ("scatter", {"indices": np.array([0])}, r"gradient: expected shape \[1, 3\]"),
        ("scatter", {"gradient": jnp.ones((1, 3))}, r"gradient: expected shape \[2, 3\]"),
        ("scatter", {"gradient": LABELS * jnp.nan}, "gradient: expected finite"),
        ("scatter", {"projection": "none"}, "projection: expected"),
        ("class", {"num_classes": 4}, r"instance_gradient: expected shape \[2, 4\]"),
        ("class", {"hard_labels": np.array([0, 3])}, "hard_labels: expected classes in 0 … 2"),
        ("class", {"hard_labels": np.array([0])}, r"instance_gradient: expected shape \[1, 3\]"),
        ("recovery", {"learned": jnp.ones(3)}, r"learned: expected shape \[N, C\]"),
        ("recovery", {"learned": np.array([0, 1, 2])}, r"given: expected shape \[3\], got \[2\]"),
        ("recovery", {"learned": np.array([0, -1])}, "learned: expected classes"),
        ("recovery", {"learned": LABELS * jnp.nan}, "learned: expected finite"),
        ("recovery", {"true": np.array([0, 3])}, "true: expected classes in 0 … 2, got 3"),
        ("recovery", {"given": np.array([0.0, 1.0])}, "given: expected integer"),
        ("init", {"hard_labels": np.array([0, 3])}, "labels: expected classes in 0 … 2"),
        ("init", {"smoothing": 1.5}, "smoothing: expected a level"),
        ("init", {"smoothing": np.zeros(2)}, "smoothing: expected one number"),
        ("classes", {"num_classes": 1}, "num_classes: expected 2 or more"),
        ("ahead", {"gradients": jnp.ones((1, 3))}, r"gradients: expected shape \[3\]"),
        ("ahead", {"gradients": {"w": jnp.ones(3)}}, "gradients: expected the structure"),
        ("ahead", {"lr": -0.1}, "lr: expected 0 or more"),
        ("project", {"values": jnp.ones(3, int)}, "values: expected floating"),
        ("project", {"values": jnp.ones((3, 1))}, "values: expected two classes"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_bad_input_is_refused(call, changed, message):
    with pytest.raises((TypeError, ValueError), match=message):
        CALLS[call](**changed)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_calls_above_are_good_unchanged_and_the_same_compiled(call):
    jax.tree.map(
        lambda eager, jitted: assert_allclose(eager, jitted, rtol=1e-5, atol=1e-7),
        call(),
        jax.jit(call)(),
    )
