"""Soft labels between the examples of a batch, by optimal transport, and the losses around them.

S-MolSearch (arXiv 2409.07462) searches a library for molecules that act like a known one. Few
molecules are labelled by the target they bind, so an encoder f learns from those alone, and its
similarities on a batch of B unlabelled molecules become a plan P `[B, B]`: row i says how much
molecule i is like each of the batch. P is the soft label that a second encoder g learns from; g
does the search.

Of all plans with the marginals a and b, P costs least, smoothed by a regulariser:

    min over P ≥ 0, P 1 = a, Pᵀ 1 = b of  ⟨C, P⟩ + (γ/2) ‖P‖²        smoothed_transport_plan
    min over P ≥ 0, P 1 = a, Pᵀ 1 = b of  ⟨C, P⟩ + ε Σ P (log P − 1)  entropic_transport_plan

The released code takes the first, sparse one; "inverse optimal transport", the paper's word for
it, suggests the second. Both are solved by turns: the rows' potentials exactly for the columns'
ones given, then the reverse, a fixed number of times, so that a training maps over runs. The last
turn is the rows': they hold their mass to rounding, the columns as far as the turns came.

Everything here takes one batch, embeddings `[B, D]`, and maps with `vmap`. Embeddings enter by
their direction alone; one of norm below 1e-8 has none and is like nothing.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from jsoft import _door, losses

Regularizer = Literal["l2", "entropy"]


def smoothed_transport_plan(
    cost: ArrayLike,
    row_mass: ArrayLike,
    col_mass: ArrayLike,
    *,
    gamma: ArrayLike,
    num_iters: int = 50,
) -> jax.Array:
    """Return the transport plan smoothed by its squared norm, `[n, m]`.

        P_ij = [α_i + β_j − C_ij]₊ / γ

    with the α, β that maximise Σ α_i a_i + Σ β_j b_j − Σ [α_i + β_j − C_ij]₊² / (2γ). For β given,
    row i of P is the point of the simplex of mass a_i nearest to (β − C_i)/γ, and so by turns.

    A large γ flattens: where no entry is clipped and all masses are one, P is 1/n − C/γ, with C
    centred in rows and columns. A small γ tends to a permutation. On 32 unit embeddings the error
    is 3e-11 after 20 turns at γ = 5 and 4e-5 after 50 at γ = 1.

    Args:
      cost: C, `[n, m]` finite floats.
      row_mass: a, `[n]` numbers above zero.
      col_mass: b, `[m]` numbers above zero, of the same sum.
      gamma: γ > 0; may be traced.
      num_iters: turns, 0 or more. 0 gives rows alone, the sparsemax of −C_i/γ.

    Raises:
      TypeError, ValueError: costs that are not finite floats; masses of another length, of zero or
        below, or of unlike sums; γ that is not above zero; a number of turns below zero.

    Source: released code of arXiv 2409.07462, which solves the same dual by a quasi-Newton method
    to 1e-5; the problem is that of Blondel, Seguy & Rolet (AISTATS 2018). Exact turns derived here.

    >>> cost = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    >>> smoothed_transport_plan(cost, jnp.ones(2), jnp.ones(2), gamma=2.0)  # 1/2 ± 1/(2γ)
    Array([[0.75, 0.25],
           [0.25, 0.75]], dtype=float32)
    """
    cost, row_mass, col_mass = _checked_problem(cost, row_mass, col_mass)
    _check_scale(gamma=gamma)
    _door.check_whole(0, num_iters=num_iters)
    gamma = jnp.asarray(gamma, cost.dtype)

    def turn(_: jax.Array, potentials: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        rows, columns = potentials
        rows = _raised(rows, columns[None, :] - cost, gamma * row_mass)
        return rows, _raised(columns, rows[None, :] - cost.T, gamma * col_mass)

    start = jnp.zeros_like(row_mass), jnp.zeros_like(col_mass)
    _, columns = lax.fori_loop(0, num_iters, turn, start)
    gain = columns[None, :] - cost
    # The largest gain goes first, so that a small γ does not blow up numbers that are clipped.
    gain = (gain - gain.max(axis=1, keepdims=True)) / gamma
    return jax.vmap(optax.projections.projection_simplex)(gain, row_mass)


def entropic_transport_plan(
    cost: ArrayLike,
    row_mass: ArrayLike,
    col_mass: ArrayLike,
    *,
    epsilon: ArrayLike,
    num_iters: int = 200,
) -> jax.Array:
    """Return the transport plan smoothed by its entropy, `[n, m]`.

        P_ij = exp((α_i + β_j − C_ij)/ε)

    by Sinkhorn's turns in the log domain, so that no small ε underflows.

    Args:
      cost: C, `[n, m]` finite floats.
      row_mass: a, `[n]` numbers above zero.
      col_mass: b, `[m]` numbers above zero, of the same sum.
      epsilon: ε > 0; may be traced.
      num_iters: turns, 0 or more. 0 gives rows alone, the softmax of −C_i/ε that InfoNCE compares
        with the identity.

    Raises:
      TypeError, ValueError: as `smoothed_transport_plan`.

    Source: Cuturi (NeurIPS 2013), Sinkhorn's algorithm.

    >>> cost = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    >>> plan = entropic_transport_plan(cost, jnp.ones(2), jnp.ones(2), epsilon=0.5)
    >>> print(np.asarray(plan).round(4))  # the softmax of (0, −2)
    [[0.8808 0.1192]
     [0.1192 0.8808]]
    """
    cost, row_mass, col_mass = _checked_problem(cost, row_mass, col_mass)
    _check_scale(epsilon=epsilon)
    _door.check_whole(0, num_iters=num_iters)
    gain, log_row_mass, log_col_mass = -cost / epsilon, jnp.log(row_mass), jnp.log(col_mass)

    def turn(_: jax.Array, columns: jax.Array) -> jax.Array:
        rows = log_row_mass - logsumexp(columns[None, :] + gain, axis=1)
        return log_col_mass - logsumexp(rows[:, None] + gain, axis=0)

    columns = lax.fori_loop(0, num_iters, turn, jnp.zeros_like(log_col_mass))
    return row_mass[:, None] * jax.nn.softmax(columns[None, :] + gain, axis=1)


def transport_soft_labels(
    embeddings: ArrayLike,
    *,
    gamma: ArrayLike = 5.0,
    soft_temperature: ArrayLike = 1.0,
    regularizer: Regularizer = "l2",
    num_iters: int = 50,
) -> jax.Array:
    """Return the soft labels of a batch from its own similarities, `[B, B]`, rows summing to one.

    The plan at the cost 1 − cos(t_i, t_j)/τ with all masses one. It passes no gradient: the
    encoder of the embeddings learns from its labels alone. The diagonal stays in; its cost is the
    least, so that a molecule is most like itself.

    γ/B sets how flat the labels are: at γ = 5 and B = 32 about half of the entries are above zero
    and a molecule keeps some 0.18 for itself; a small γ gives the identity.

    Args:
      embeddings: t, `[B, D]` finite floats, of the encoder that learns from labels. B = 1 gives
        [[1]].
      gamma: weight of the regulariser, γ or (entropy) ε, above zero; may be traced.
      soft_temperature: τ > 0; may be traced.
      regularizer: `"l2"`, the squared norm of the released code, or `"entropy"`.
      num_iters: turns of the solver.

    Raises:
      TypeError, ValueError: embeddings that are not finite floats `[B, D]`; γ or τ that is not
        above zero; an unknown regulariser.

    Source: released code of arXiv 2409.07462; defaults of its training script.

    >>> transport_soft_labels(jnp.array([[1.0, 0.0], [0.0, 2.0]]), gamma=2.0)
    Array([[0.75, 0.25],
           [0.25, 0.75]], dtype=float32)
    """
    (embeddings,) = _checked_embeddings(embeddings=embeddings)
    _check_scale(soft_temperature=soft_temperature)
    units = _units(lax.stop_gradient(embeddings))
    cost = 1 - units @ units.T / soft_temperature
    mass = jnp.ones(len(units), units.dtype)
    if regularizer == "l2":
        plan = smoothed_transport_plan(cost, mass, mass, gamma=gamma, num_iters=num_iters)
    elif regularizer == "entropy":
        plan = entropic_transport_plan(cost, mass, mass, epsilon=gamma, num_iters=num_iters)
    else:
        raise ValueError(f'regularizer: expected "l2" or "entropy", got {regularizer!r}')
    return lax.stop_gradient(plan)


def info_nce(
    a: ArrayLike, b: ArrayLike, *, temperature: ArrayLike = 0.05, mask: ArrayLike | None = None
) -> jax.Array:
    """Return the contrastive loss of pairs of like molecules, `[B]`.

        ½ (−log softmax_j(S_ij) at j = i  −  log softmax_j(S_ji) at j = i),  S = cos(a, b)/τ

    Args:
      a: `[B, D]` finite floats, one molecule of each pair.
      b: `[B, D]` finite floats, the other; row i belongs to row i of `a`.
      temperature: τ > 0; may be traced.
      mask: `[B, B]` booleans, true for the pairs (i, j) to be dropped from the softmax: those that
        share a target by accident, which are no negatives. The diagonal cannot be dropped.

    Raises:
      TypeError, ValueError: embeddings that are not finite floats of one shape `[B, D]`; τ that is
        not above zero; a mask of another dtype or shape, or one that drops a pair (i, i).

    Source: released code of arXiv 2409.07462, which has no mask; needed where targets are few.

    >>> eye = jnp.eye(2)
    >>> print(np.asarray(info_nce(eye, eye, temperature=1.0)).round(4))  # log(1 + e⁻¹)
    [0.3133 0.3133]
    """
    a, b = _checked_embeddings(a=a, b=b)
    _check_scale(temperature=temperature)
    similarities = _units(a) @ _units(b).T / temperature
    if mask is not None:
        similarities = jnp.where(_checked_mask(mask, len(a)), -jnp.inf, similarities)
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    same = jnp.arange(len(a))
    return (cross_entropy(similarities, same) + cross_entropy(similarities.T, same)) / 2


def soft_contrastive(
    z: ArrayLike, soft_labels: ArrayLike, *, temperature: ArrayLike = 0.05
) -> jax.Array:
    """Return the contrastive loss of a batch against its soft labels, `[B]`.

        −Σ_j P_ij log softmax_j(cos(z_i, z_j)/τ)

    The diagonal takes part, at the logit 1/τ, the largest there is: at τ = 0.05 the loss starts
    near 20 (1 − mean of P_ii), and values above 10 are no sign of trouble.

    Args:
      z: `[B, D]` finite floats, of the encoder that learns from soft labels.
      soft_labels: P, `[B, B]` probabilities in rows, as of `transport_soft_labels`.
      temperature: τ > 0; may be traced.

    Raises:
      TypeError, ValueError: embeddings that are not finite floats `[B, D]`; soft labels as refused
        by `losses.soft_cross_entropy`; τ that is not above zero.

    Source: released code of arXiv 2409.07462.

    >>> eye = jnp.eye(2)
    >>> print(np.asarray(soft_contrastive(eye, eye, temperature=1.0)).round(4))  # log(1 + e⁻¹)
    [0.3133 0.3133]
    """
    (z,) = _checked_embeddings(z=z)
    _check_scale(temperature=temperature)
    units = _units(z)
    similarities = units @ units.T / temperature
    soft_labels = jnp.asarray(soft_labels)
    if similarities.shape == soft_labels.shape == (1, 1):  # one class, which has no entropy
        return jnp.zeros_like(similarities[0])
    return losses.soft_cross_entropy(similarities, soft_labels)


def nearest_neighbor_spread(z: ArrayLike, *, eps: ArrayLike = 1e-6) -> jax.Array:
    """Return the loss that keeps a batch from falling together, `[B]`.

        −log(B ‖u_i − u_n(i) + eps‖),  u = z/‖z‖,  n(i) = the nearest other row

    n is constant; u_i and u_n(i) both have a gradient. Equal rows cost −log(B eps √D): large, not
    infinite. One row alone has no neighbour and costs 0.

    Args:
      z: `[B, D]` finite floats.
      eps: added to every coordinate of the difference; above zero.

    Raises:
      TypeError, ValueError: embeddings that are not finite floats `[B, D]`; eps that is not above
        zero.

    Source: released code of arXiv 2409.07462; up to log B, the Kozachenko–Leonenko regulariser of
    Sablayrolles et al. (ICLR 2019).

    >>> print(np.asarray(nearest_neighbor_spread(jnp.eye(2))).round(4))  # −log(2 √2)
    [-1.0397 -1.0397]
    """
    (z,) = _checked_embeddings(z=z)
    _check_scale(eps=eps)
    units = _units(z)
    num_rows = len(units)
    if num_rows == 1:
        return jnp.zeros_like(units[:, 0])
    similarities = jnp.where(jnp.eye(num_rows, dtype=bool), -jnp.inf, units @ units.T)
    nearest = jnp.argmax(similarities, axis=1)
    return -jnp.log(num_rows * jnp.linalg.norm(units - units[nearest] + eps, axis=1))


def semi_supervised_contrastive(
    a: ArrayLike,
    b: ArrayLike,
    t: ArrayLike,
    z: ArrayLike,
    *,
    temperature: ArrayLike = 0.05,
    soft_temperature: ArrayLike = 1.0,
    gamma: ArrayLike = 5.0,
    soft_weight: ArrayLike = 1.0,
    spread_weight: ArrayLike = 0.1,
    regularizer: Regularizer = "l2",
    num_iters: int = 50,
    mask: ArrayLike | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the loss of both encoders, `[]`, and its mean terms by name, `[]` each.

        mean info_nce(a, b) + w₁ mean soft_contrastive(z, P) + w₂ mean nearest_neighbor_spread(z)

    with P = transport_soft_labels(t). f, the encoder of a, b and t, has its gradient from the first
    term alone; g, that of z, from the other two.

    Args:
      a: `[B, D]` finite floats, f of one molecule of each labelled pair.
      b: `[B, D]` finite floats, f of the other.
      t: `[M, D]` finite floats, f of the unlabelled molecules.
      z: `[M, E]` finite floats, g of the same molecules.
      temperature: τ of the labelled and of the soft term.
      soft_temperature: as for `transport_soft_labels`, as are the next three.
      gamma: weight of the transport's regulariser.
      regularizer: what smooths the plan.
      num_iters: turns of the solver.
      soft_weight: w₁, 0 or more.
      spread_weight: w₂, 0 or more.
      mask: labelled pairs to drop, as for `info_nce`.

    Returns:
      The total, and `labelled`, `soft` and `spread`, not yet weighted.

    Raises:
      TypeError, ValueError: as its parts; a weight below zero; `t` and `z` of unlike lengths.

    Source: released code of arXiv 2409.07462.

    >>> eye = jnp.eye(2)
    >>> total, terms = semi_supervised_contrastive(eye, eye, eye, eye, temperature=1.0, gamma=2.0)
    >>> print({name: f"{term:.4f}" for name, term in terms.items()})
    {'labelled': '0.3133', 'soft': '0.5633', 'spread': '-1.0397'}
    >>> print(f"{total:.4f}")
    0.7726
    """
    _door.check_scalar(soft_weight=soft_weight, spread_weight=spread_weight)
    _door.check_at_least(0, soft_weight=soft_weight, spread_weight=spread_weight)
    if np.shape(t)[:1] != np.shape(z)[:1]:
        raise ValueError(
            f"z: expected one row for each of t, shape {list(np.shape(t))}, got {list(np.shape(z))}"
        )
    soft_labels = transport_soft_labels(
        t,
        gamma=gamma,
        soft_temperature=soft_temperature,
        regularizer=regularizer,
        num_iters=num_iters,
    )
    terms = {
        "labelled": info_nce(a, b, temperature=temperature, mask=mask).mean(),
        "soft": soft_contrastive(z, soft_labels, temperature=temperature).mean(),
        "spread": nearest_neighbor_spread(z).mean(),
    }
    return terms["labelled"] + soft_weight * terms["soft"] + spread_weight * terms["spread"], terms


def _raised(potential: jax.Array, gain: jax.Array, total: jax.Array) -> jax.Array:
    """Return the α with Σ_j [α_i + gain_ij]₊ = total_i, `[n]`, from a guess that is near.

    Newton's method, which ends after finitely many steps on a function of straight pieces: it is
    exact once the entries above zero are those of the answer. From the last turn's potential two
    steps will do, and take a fiftieth of the time of sorting the gains.
    """
    top = gain.max(axis=1)
    potential = jnp.clip(potential, total / gain.shape[1] - top, total - top)  # it lies in between
    for _ in range(2):
        above = (gain + potential[:, None] > 0) | (gain == top[:, None])  # the top one always is
        potential = (total - jnp.where(above, gain, 0).sum(axis=1)) / above.sum(axis=1)
    return potential


def _units(embeddings: jax.Array) -> jax.Array:
    """Return the rows at length one, in float32 or wider; a row of next to nothing stays so."""
    wide = embeddings.astype(jnp.promote_types(embeddings.dtype, jnp.float32))
    return wide / optax.safe_norm(wide, 1e-8, axis=1, keepdims=True)


def _checked_embeddings(**embeddings: ArrayLike) -> list[jax.Array]:
    """Return the arguments as arrays, checked to be finite floats `[B, D]` of one shape."""
    arrays = {name: jnp.asarray(values) for name, values in embeddings.items()}
    first = next(iter(arrays.values())).shape
    for name, array in arrays.items():
        _door.check_float(name, array)
        if array.ndim != 2 or array.size == 0:
            raise ValueError(f"{name}: expected shape [B, D], got {list(array.shape)}")
        if array.shape != first:
            raise ValueError(f"{name}: expected shape {list(first)}, got {list(array.shape)}")
        _door.check_finite(name, array)
    return list(arrays.values())


def _checked_problem(
    cost: ArrayLike, row_mass: ArrayLike, col_mass: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return costs and masses as arrays, checked to belong together."""
    cost, row_mass, col_mass = jnp.asarray(cost), jnp.asarray(row_mass), jnp.asarray(col_mass)
    _door.check_float("cost", cost)
    if cost.ndim != 2 or cost.size == 0:
        raise ValueError(f"cost: expected shape [n, m], got {list(cost.shape)}")
    _door.check_finite("cost", cost)
    masses = {"row_mass": row_mass, "col_mass": col_mass}
    for (name, mass), length in zip(masses.items(), cost.shape, strict=True):
        _door.check_float(name, mass)
        if mass.shape != (length,):
            raise ValueError(f"{name}: expected shape {[length]}, got {list(mass.shape)}")
    _door.check_positive(**masses)
    if _door.is_concrete(row_mass, col_mass):
        sums = [float(np.asarray(mass, np.float64).sum()) for mass in masses.values()]
        if not np.isclose(*sums, rtol=1e-4):
            raise ValueError(f"col_mass: expected the sum {sums[0]:g} of row_mass, got {sums[1]:g}")
    return cost, row_mass.astype(cost.dtype), col_mass.astype(cost.dtype)


def _check_scale(**value: ArrayLike) -> None:
    """Raise unless the value is one number above zero."""
    _door.check_scalar(**value)
    _door.check_positive(**value)


def _checked_mask(mask: ArrayLike, num_pairs: int) -> jax.Array:
    """Return the mask as an array, checked to be booleans that leave the diagonal alone."""
    mask = jnp.asarray(mask)
    if mask.dtype != jnp.bool_:
        raise TypeError(f"mask: expected booleans, true for pairs to drop, got dtype {mask.dtype}")
    if mask.shape != (num_pairs, num_pairs):
        raise ValueError(f"mask: expected shape {[num_pairs] * 2}, got {list(mask.shape)}")
    if _door.is_concrete(mask) and np.asarray(mask).diagonal().any():
        raise ValueError("mask: expected the pairs (i, i) to be kept, got True on the diagonal")
    return mask
