"""A program cut along its long loops does what it did whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jsoft import _stages


def program(x, scale):
    """Straight, a loop with a key in its carry, straight, a loop over two stacks, straight."""
    weights = jnp.arange(4.0) * scale
    key = jax.random.key(x)

    def first(carry, _):
        total, key = carry
        key, this = jax.random.split(key)
        return (total + weights * jax.random.normal(this, (4,)), key), total.sum()

    (total, key), curve = lax.scan(first, (jnp.zeros(4), key), None, length=12)
    start = total.max()

    def second(carry, row):
        a, b = row
        return carry * 0.9 + a * b, (carry, key)

    last, (carries, keys) = lax.scan(second, start, (curve, jnp.flip(curve)))
    return {"last": last, "carries": carries * scale, "key": jax.random.uniform(keys[3]), "x": x}


def run(stages, constants, inputs):
    state = list(inputs)
    for stage in stages:
        call = jax.jit(stage.call)
        for turn in range(stage.turns):
            state = call(constants, jnp.int32(turn), state)
            assert not any(jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) for x in state)
    return state


@pytest.mark.parametrize(
    ("pieces", "turns"),
    [
        (1, [1]),
        (2, [1, 2, 1, 2, 1]),
        (5, [1, 4, 1, 4, 1]),  # the next smaller number that divides 12
        (100, [1, 12, 1, 12, 1]),
    ],
)
def test_cut_program_gives_what_the_whole_one_gives(pieces, turns):
    inputs = (jnp.int32(3), jnp.float32(0.5))
    closed = jax.make_jaxpr(program)(*inputs)
    stages = _stages.cut(closed, pieces)
    assert [stage.turns for stage in stages] == turns
    found = run(stages, closed.consts, inputs)
    for value, expected in zip(found, jax.tree.leaves(program(*inputs)), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_state_holds_what_later_stages_read_and_no_more():
    large = jnp.ones(1000)

    def only_its_sum(x):
        total = (large * x).sum()
        return lax.scan(lambda c, _: (c + total, c), x, None, length=6)

    closed = jax.make_jaxpr(only_its_sum)(1.0)
    first, loop, _ = _stages.cut(closed, 3)
    state = first.call(closed.consts, jnp.int32(0), [jnp.float32(1.0)])
    assert [x.shape for x in state] == [(), (), (6,)]  # the total, the carry, the stack
    after = loop.call(closed.consts, jnp.int32(0), state)
    np.testing.assert_allclose(after[1], 2001.0)
    np.testing.assert_allclose(after[2], [1.0, 1001.0, 0, 0, 0, 0])


def test_short_loops_are_left_whole():
    def mostly_one(x):
        x, _ = lax.scan(lambda c, _: (c + 1, None), x, None, length=3)
        return lax.scan(lambda c, _: (jnp.sin(c), c), x, None, length=100)

    stages = _stages.cut(jax.make_jaxpr(mostly_one)(1.0), 5)
    assert [stage.turns for stage in stages] == [1, 5, 1]


def test_a_loop_that_does_not_divide_is_refused():
    def of_length_seven(x):
        return lax.scan(lambda c, _: (jnp.sin(c), c), x, None, length=7)

    with pytest.raises(ValueError, match="checkpoints: a loop of 7 goes in 1 equal turns"):
        _stages.cut(jax.make_jaxpr(of_length_seven)(1.0), 3)


@pytest.mark.parametrize(
    "function",
    [
        jnp.sin,
        jax.jit(lambda x: lax.scan(lambda c, _: (c, c), x, None, length=9)),
        lambda x: lax.scan(lambda c, _: (c, c), x, None, length=9, reverse=True),
    ],
    ids=["no loop", "inside jit", "backwards"],
)
def test_nothing_to_cut_is_refused(function):
    with pytest.raises(ValueError, match="checkpoints: expected a train that spends its time"):
        _stages.cut(jax.make_jaxpr(function)(1.0), 2)
