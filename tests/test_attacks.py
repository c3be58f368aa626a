"""Attacks: steps as in a slow NumPy loop and in the stored runs, the box, the start, bad input."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from jsoft import attacks, losses

GOLDEN = np.load(Path(__file__).parent / "golden" / "absld_attacks.npz")
KEY = jax.random.key(0)
X = np.random.default_rng(0).random((4, 6)).astype(np.float32)
X[0, :2] = 0, 1  # on the edge of the range
WEIGHTS = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0])


def cross_entropy(x):
    return optax.losses.softmax_cross_entropy_with_integer_labels(x @ WEIGHTS, LABELS)


def attack(x=X, key=KEY, **options):
    chosen = {"epsilon": 0.1, "step_size": 0.03, "steps": 5, "init": "none", **options}
    return attacks.linf_pgd(chosen.pop("loss_fn", cross_entropy), x, key, **chosen)


compiled = jax.jit(attack, static_argnames=("loss_fn", "steps", "init", "clip", "clip_first"))


def flat(x):
    return 0 * x.sum()


def by_loop(x, *, epsilon, step_size, steps, start):
    """The steps one by one, in float64, with the gradient of softmax regression by hand."""
    attacked = np.asarray(start, np.float64)
    for _ in range(steps):
        logits = attacked @ WEIGHTS.astype(np.float64)
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        slope = (p - np.eye(3)[LABELS]) @ WEIGHTS.T
        attacked = np.clip(attacked + step_size * np.sign(slope), x - epsilon, x + epsilon)
        attacked = np.clip(attacked, 0, 1)
    return attacked


def golden(case):
    return {
        name.removeprefix(f"{case}__"): GOLDEN[name]
        for name in GOLDEN.files
        if "__" not in name or name.startswith(f"{case}__")
    }


def golden_network(stored):
    def network(x):
        hidden = jax.nn.relu(x.reshape(len(x), -1) @ stored["W1"] + stored["b1"][None])
        return hidden @ stored["W2"] + stored["b2"][None]

    return network


def test_matches_the_loop():
    found = attack()
    assert found.dtype == jnp.float32
    expected = by_loop(X, epsilon=0.1, step_size=0.03, steps=5, start=X)
    assert_allclose(found, expected, atol=1e-6)
    assert (cross_entropy(found) > cross_entropy(X)).all()


@pytest.mark.parametrize("case", ["inner_train", "inner_defaults"])
def test_matches_the_training_attack_of_the_released_code(case):
    stored = golden(case)
    network = golden_network(stored)
    target = jax.nn.softmax(stored["teacher_logits"])
    options = {"inner_train": (8 / 255, 2 / 255), "inner_defaults": (0.031, 0.003)}[case]

    @jax.jit
    def attacked(x, start):
        return [
            attacks.linf_pgd(
                lambda x: losses.kl_divergence(network(x), target),
                x,
                KEY,
                epsilon=options[0],
                step_size=options[1],
                steps=steps,
                init=start,
            )
            for steps in (1, 10)
        ]

    first, last = attacked(stored["x"], stored["x"] + np.float32(0.001) * stored["noise"])
    assert_allclose(first, stored["x_adv_step1"], atol=1e-6)
    assert_allclose(last, stored["x_adv"], atol=1e-6)
    assert_allclose(network(last), stored["adv_logits"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("clip_first", [True, False])
def test_matches_the_evaluation_of_the_released_code(clip_first):
    """Both orders of the two projections give the stored points, up to rounding."""
    stored = golden("pgd_eval")
    network = golden_network(stored)

    def loss(x):
        logits = network(x)
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, stored["labels"])

    found = jax.jit(
        lambda x, start: attacks.linf_pgd(
            lambda x: loss(x).mean(),
            x,
            KEY,
            epsilon=8 / 255,
            step_size=0.003,
            steps=20,
            init=start,
            clip_first=clip_first,
        )
    )(stored["x"], np.clip(stored["x"] + stored["noise"], 0, 1))
    assert_allclose(found, stored["x_adv"], atol=1e-6)


@pytest.mark.parametrize("init", ["none", "normal", "uniform"])
@pytest.mark.parametrize("clip_first", [False, True])
def test_stays_in_ball_and_range(init, clip_first):
    found = compiled(epsilon=0.1, init=init, clip_first=clip_first, steps=7)
    found = np.asarray(found, np.float64)
    assert (np.abs(found - X) <= 0.1 + 1e-7).all()
    rounding = 1e-7 if clip_first else 0
    assert (found >= -rounding).all()
    assert (found <= 1 + rounding).all()
    assert np.abs(found - X).max() > 0.09


def test_a_radius_of_zero_gives_the_image():
    for init in ("none", "normal", "uniform"):
        assert_array_equal(compiled(epsilon=0.0, init=init, steps=7, clip_first=False), X)


def test_starts_are_what_they_say():
    """A loss without slope leaves the start where it is, cut to ball and range."""
    wide = np.full((50, 40), 0.5, np.float32)
    start = {
        init: np.asarray(compiled(wide, init=init, loss_fn=flat), np.float64)
        for init in ("none", "normal", "uniform")
    }
    assert_array_equal(start["none"], wide)
    normal, uniform = start["normal"] - wide, start["uniform"] - wide
    # 2000 draws: five standard errors
    assert_allclose(normal.std(), 0.001, rtol=0.08)
    assert_allclose(normal.mean(), 0, atol=0.00012)
    assert_allclose(uniform.std(), 0.1 / np.sqrt(3), rtol=0.06)
    assert np.abs(uniform).max() <= 0.1 + 1e-7
    other = compiled(wide, jax.random.key(1), init="uniform", loss_fn=flat)
    assert np.abs(other - start["uniform"]).max() > 0.05


def test_an_array_is_the_start_itself():
    start = X + np.float32(0.01)
    expected = by_loop(X, epsilon=0.1, step_size=0.03, steps=2, start=start)
    assert_allclose(attack(init=start, steps=2), expected, atol=1e-6)


def test_eager_jit_and_vmap_of_single_examples_agree():
    eager = attack()
    assert_allclose(compiled(), eager, atol=1e-6)

    def one(x, label):
        def loss(x):
            return optax.losses.softmax_cross_entropy_with_integer_labels(x @ WEIGHTS, label)

        return attack(x, loss_fn=loss)

    assert_allclose(jax.jit(jax.vmap(one))(X, LABELS), eager, atol=1e-6)


def test_mapped_over_radii_equals_one_by_one():
    radii = jnp.array([0.0, 0.05, 0.1])
    mapped = jax.jit(jax.vmap(lambda radius: attack(epsilon=radius)))(radii)
    assert_allclose(mapped, [compiled(epsilon=radius) for radius in radii], atol=1e-6)


def test_sum_mean_and_vector_of_losses_are_one_attack():
    expected = compiled()
    for reduce in (jnp.sum, jnp.mean):
        found = compiled(loss_fn=lambda x, reduce=reduce: reduce(cross_entropy(x)))
        assert_allclose(found, expected, atol=1e-6)


def test_no_gradient_flows_through():
    def after(scale, x):
        attacked = attack(x, loss_fn=lambda x: cross_entropy(scale * x), steps=2)
        return (attacked**2).sum()

    of_scale, of_x = jax.jit(jax.grad(after, argnums=(0, 1)))(jnp.float32(1.5), jnp.asarray(X))
    assert of_scale == 0
    assert_array_equal(of_x, np.zeros_like(X))


def test_one_long_step_is_fgsm():
    slope = jax.jit(jax.grad(lambda x: cross_entropy(x).sum()))(X)
    found = compiled(step_size=0.1, steps=1)
    assert_allclose(found, np.clip(X + np.float32(0.1) * np.sign(slope), 0, 1), atol=1e-6)


def test_other_ranges():
    found = compiled(X - 0.5, clip=(-0.5, 0.5), loss_fn=lambda x: x.sum(), epsilon=2.0, steps=50)
    assert_array_equal(found, np.full_like(X, 0.5))


def test_half_precision_stays_half():
    x = jnp.asarray(X, jnp.bfloat16)
    found = attack(x, loss_fn=lambda x: x.astype(jnp.float32).sum())
    assert found.dtype == jnp.bfloat16
    # 0.1 and the sum are rounded to eight bits
    moved = found.astype(jnp.float32) - x.astype(jnp.float32)
    assert_allclose(moved, np.minimum(0.1, 1 - x.astype(jnp.float32)), atol=0.005)


BAD = {
    "integer images": (TypeError, "x: expected floating-point", {"x": np.zeros((4, 6), int)}),
    "nan": (ValueError, "x: expected finite numbers in 0 … 1, got nan", {"x": X * np.nan}),
    "beyond the range": (ValueError, "x: expected finite numbers in 0 … 1", {"x": X + 1}),
    "negative radius": (ValueError, "epsilon: expected 0 or more, got -0.1", {"epsilon": -0.1}),
    "a radius an example": (ValueError, "epsilon: expected one", {"epsilon": np.ones(4)}),
    "negative step": (ValueError, "step_size: expected 0 or more", {"step_size": -1.0}),
    "no steps": (ValueError, "steps: expected 1 or more, got 0", {"steps": 0}),
    "half a step": (TypeError, "steps: expected a whole number", {"steps": 2.5}),
    "unknown start": (ValueError, "init: expected .* got 'random'", {"init": "random"}),
    "start of another shape": (ValueError, r"init: expected an array like x", {"init": X[:1]}),
    "start of nan": (ValueError, "init: expected finite", {"init": X * np.nan}),
    "empty range": (ValueError, "clip: expected least and greatest", {"clip": (1.0, 0.0)}),
    "loss of a pixel": (ValueError, r"loss_fn: expected one number", {"loss_fn": lambda x: x}),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    error, message, options = BAD[case]
    with pytest.raises(error, match=message):
        attack(**options)
