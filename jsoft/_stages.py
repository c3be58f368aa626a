"""A program of one run, cut along its long loops, so that its state can be kept on the way.

`training.fit` is a scan over epochs, and all that a training needs to go on after some of them is
what that scan carries. Here the traced program of a run is cut into stages: what comes before a
long scan, the scan a few epochs at a time, what comes after. The state between two stages is every
value that a later one reads, a list of arrays. The author of a run writes nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

_LONG = 0.1  # share of a program's work that makes a loop worth cutting

State = list[jax.Array]


class Stage(NamedTuple):
    """Part of a program: `call(constants, turn, state) -> state`, for every turn below `turns`."""

    call: Callable[[Sequence[Any], jax.Array, State], State]
    turns: int


def cut(program: core.ClosedJaxpr, pieces: int) -> list[Stage]:
    """Return the program as stages, each long scan in at most `pieces` turns of one length.

    The first state is the program's inputs, the last one its outputs. One piece is no cut.

    Raises:
      ValueError: more than one piece, and no long scan at the top level of the program.
    """
    jaxpr = program.jaxpr
    work = [_work(equation) for equation in jaxpr.eqns]
    long = [
        number
        for number, equation in enumerate(jaxpr.eqns)
        if pieces > 1
        and equation.primitive.name == "scan"
        and equation.params["length"] > 1
        and not equation.params["reverse"]
        and work[number] >= _LONG * sum(work)
    ]
    if pieces > 1 and not long:
        raise ValueError(
            "checkpoints: expected a train that spends its time in a lax.scan outside of any jit "
            "of its own, as training.fit does; found no such loop"
        )
    stages, inputs, begin = [], list(jaxpr.invars), 0
    for number in long:
        scan, before, later = jaxpr.eqns[number], jaxpr.eqns[begin:number], jaxpr.eqns[number + 1 :]
        consts, _, rows = _arguments(scan)
        read = {x for equation in later for x in _variables(equation.invars)}
        read |= set(_variables([*consts, *rows, *jaxpr.outvars]))
        known = [*inputs, *(x for equation in before for x in equation.outvars)]
        kept = [x for x in known if x in read]
        stages.append(_straight(jaxpr, before, inputs, kept, scan))
        stages.append(_loop(jaxpr, scan, kept, pieces))
        inputs, begin = [*kept, *scan.outvars], number + 1
    stages.append(_straight(jaxpr, jaxpr.eqns[begin:], inputs, jaxpr.outvars))
    return stages


def _straight(
    jaxpr: core.Jaxpr,
    equations: Sequence[core.JaxprEqn],
    inputs: list[core.Var],
    outputs: Sequence[Any],
    scan: core.JaxprEqn | None = None,
) -> Stage:
    """Return the stage of these equations, which also makes ready the scan that follows, if any."""
    carry, stacked = [], []
    if scan is not None:
        _, carry, _ = _arguments(scan)
        stacked = scan.outvars[len(carry) :]
    part = core.Jaxpr(
        jaxpr.constvars,
        inputs,
        [*outputs, *carry],
        equations,
        # of the same function, but with names for other inputs and outputs
        debug_info=jaxpr.debug_info._replace(arg_names=None, result_paths=None),
    )

    def call(constants: Sequence[Any], turn: jax.Array, state: State) -> State:
        del turn
        values = core.jaxpr_as_fun(core.ClosedJaxpr(part, constants))(*_typed(state, inputs))
        return [*_plain(values), *map(_zeros, stacked)]

    return Stage(call, turns=1)


def _loop(jaxpr: core.Jaxpr, scan: core.JaxprEqn, kept: list[core.Var], pieces: int) -> Stage:
    """Return the stage of a scan: its state holds the scan's results, as far as they have come."""
    length, num_carry = scan.params["length"], len(_arguments(scan)[1])
    turns = max(n for n in range(1, min(pieces, length) + 1) if length % n == 0)
    if turns < min(pieces, length) / 2:
        raise ValueError(
            f"checkpoints: a loop of {length} goes in {turns} equal turns, far from {pieces}; "
            "choose a number that nearly divides it, or a length with more divisors"
        )
    size = length // turns
    params = {**scan.params, "length": size, "unroll": 1}

    def call(constants: Sequence[Any], turn: jax.Array, state: State) -> State:
        first = turn * size
        values = dict(zip(jaxpr.constvars, constants, strict=True))
        values |= zip(kept, _typed(state[: len(kept)], kept), strict=True)
        results = _typed(state[len(kept) :], scan.outvars)
        consts, _, rows = _arguments(scan)
        new = scan.primitive.bind(
            *(_value(values, x) for x in consts),
            *results[:num_carry],
            *(lax.dynamic_slice_in_dim(_value(values, x), first, size) for x in rows),
            **params,
        )
        stacked = [
            lax.dynamic_update_slice_in_dim(all_turns, this, first, 0)
            for all_turns, this in zip(results[num_carry:], new[num_carry:], strict=True)
        ]
        return [*state[: len(kept)], *_plain([*new[:num_carry], *stacked])]

    return Stage(call, turns)


def _arguments(scan: Any) -> tuple[Sequence[Any], ...]:
    """Return what every turn of the scan reads, what it carries, and what it takes row by row."""
    # Told by shapes, for versions of JAX name the numbers differently: a row has one axis less.
    inside = scan.params["jaxpr"]
    num_rows = sum(x.aval.ndim > y.ndim for x, y in zip(scan.invars, inside.in_avals, strict=True))
    num_carry = sum(
        x.aval.ndim == y.ndim for x, y in zip(scan.outvars, inside.out_avals, strict=True)
    )
    last = len(scan.invars) - num_rows
    first = last - num_carry
    return scan.invars[:first], scan.invars[first:last], scan.invars[last:]


def _work(equation: core.JaxprEqn) -> int:
    """Return how many equations are carried out, as far as that is known beforehand."""
    inside = sum(_work(x) for part in core.jaxprs_in_params(equation.params) for x in part.eqns)
    return equation.params.get("length", 1) * inside if inside else 1


def _variables(atoms: Iterable[Any]) -> list[core.Var]:
    return [x for x in atoms if not isinstance(x, core.Literal)]


def _value(values: dict[core.Var, jax.Array], atom: Any) -> jax.Array:
    return jnp.asarray(atom.val if isinstance(atom, core.Literal) else values[atom])


def _zeros(variable: Any) -> jax.Array:
    """Return zeros in the place of what a scan will stack up in this variable."""
    shape = variable.aval
    if _is_key(shape.dtype):
        shape = jax.eval_shape(jax.random.key_data, shape)
    return jnp.zeros(shape.shape, shape.dtype)


def _plain(values: Iterable[jax.Array]) -> State:
    """Return the values as arrays of plain numbers: random keys as their data."""
    return [jax.random.key_data(x) if _is_key(x.dtype) else x for x in map(jnp.asarray, values)]


def _typed(state: State, variables: Iterable[Any]) -> State:
    """Return the state as the values of these variables."""
    return [
        jax.random.wrap_key_data(x, impl=jax.random.key_impl(jnp.empty(0, variable.aval.dtype)))
        if _is_key(variable.aval.dtype)
        else x
        for x, variable in zip(state, variables, strict=True)
    ]


def _is_key(dtype: Any) -> bool:
    return jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)
