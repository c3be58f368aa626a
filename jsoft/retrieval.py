"""How early a ranking brings what was looked for: enrichment factor, BEDROC, AUROC.

Scores `[N]` rank a library, the highest first; labels `[N]` tell its n actives from N − n decoys.
In virtual screening only the first per cent of a ranking is ever tested, so two of the three look
at the head of the list. All take one ranking and map with `vmap`; `where` leaves rows out, so that
libraries of unlike sizes map too.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.scipy.stats
import numpy as np
from jax.typing import ArrayLike

from jsoft import _door


def enrichment_factor(
    scores: ArrayLike, labels: ArrayLike, *, fraction: float, where: ArrayLike | None = None
) -> jax.Array:
    """Return how many times more actives the head of the ranking holds than chance would, `[]`.

        EF = (actives among the first m)/m / (n/N),  m = ⌈fraction · N⌉

    Between 0 and min(N/n, N/m). Equal scores stand in their order of input.

    Args:
      scores: `[N]` finite floats, the higher the better.
      labels: `[N]` booleans, or integers 0 and 1: which are active.
      fraction: of the ranking, a Python number in (0, 1], since m is rounded up in float64.
      where: `[N]` booleans, the rows that count (all by default).

    Raises:
      TypeError, ValueError: scores or labels of wrong dtype or shape, labels other than 0 and 1, a
        fraction out of range, no active or no decoy left.

    Source: as in RDKit's scoring, with which it agrees; the measure of arXiv 2409.07462.

    >>> print(enrichment_factor(jnp.array([0.9, 0.1, 0.8, 0.2]), jnp.array([1, 0, 0, 0]),
    ...                         fraction=0.5))  # one active of two, where chance brings 1/4
    2.0
    """
    scores, active, kept = _checked(scores, labels, where)
    if not isinstance(fraction, int | float | np.number) or not 0 < fraction <= 1:
        raise ValueError(f"fraction: expected a Python number in (0, 1], got {fraction!r}")
    # For every number of rows that may be left, so that a mask can be traced.
    lengths = np.ceil(float(fraction) * np.arange(len(scores) + 1)).astype(np.int32)
    num_rows = kept.sum()
    head = jnp.asarray(lengths)[num_rows]
    found = (active & (_ranks(scores, kept) <= head)).sum()
    return (found / head) / (active.sum() / num_rows)


def bedroc(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike = 80.5,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return the Boltzmann-enhanced discrimination of the ranking, in [0, 1], `[]`.

        BEDROC = (R − R_min)/(R_max − R_min),  R = Σ over actives of exp(−α r_i/N)

    with ranks r_i from 1, and R_min, R_max the values of the worst and best rankings. 1/α of the
    ranking takes 63 % of the weight: α = 80.5 puts 80 % of it into the first 2 %, α = 20 into the
    first 8 %. Equal scores stand in their order of input.

    Args:
      scores: `[N]` finite floats, the higher the better.
      labels: `[N]` booleans, or integers 0 and 1: which are active.
      alpha: α > 0; may be traced.
      where: `[N]` booleans, the rows that count (all by default).

    Raises:
      TypeError, ValueError: as `enrichment_factor`; α that is not above zero.

    Source: Truchon & Bayly (J. Chem. Inf. Model. 2007). Their cosh α/2 − cosh (α/2 − α n/N) loses
    its digits in float32 and overflows from α = 177; here it is divided by exp(α/2) beforehand,
    which leaves sums of exp(−α …) alone (derived here).

    >>> scores = jnp.array([0.9, 0.8, 0.2, 0.1])
    >>> print(bedroc(scores, jnp.array([1, 1, 0, 0])), bedroc(scores, jnp.array([0, 0, 1, 1])))
    1.0 0.0
    """
    scores, active, kept = _checked(scores, labels, where)
    _door.check_scalar(alpha=alpha)
    _door.check_positive(alpha=alpha)
    alpha = jnp.asarray(alpha, scores.dtype)
    num_rows = kept.sum().astype(scores.dtype)
    share = active.sum() / num_rows
    weights = jnp.exp(-alpha * (_ranks(scores, kept) - 1) / num_rows)
    # exp(−α (r − 1)/N) (1 − exp(−α/N)), summed over the first n ranks, is 1 − exp(−α n/N).
    of_best = -jnp.expm1(-alpha / num_rows) * weights.sum(where=active) / -jnp.expm1(-alpha * share)
    return (of_best - jnp.exp(-alpha * (1 - share))) / -jnp.expm1(-alpha * (1 - share))


def auroc(scores: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None) -> jax.Array:
    """Return the area under the ROC curve, `[]`: how often an active outranks a decoy.

        P(s_active > s_decoy) + ½ P(s_active = s_decoy)

    by mid-ranks, so that a constant score gets ½.

    Args:
      scores: `[N]` finite floats, the higher the better.
      labels: `[N]` booleans, or integers 0 and 1: which are active.
      where: `[N]` booleans, the rows that count (all by default).

    Raises:
      TypeError, ValueError: as `enrichment_factor`.

    Source: Mann & Whitney (1947); agrees with scikit-learn's `roc_auc_score`.

    >>> print(auroc(jnp.array([0.9, 0.4, 0.4, 0.1]), jnp.array([1, 1, 0, 0])))  # 3.5 pairs of 4
    0.875
    """
    scores, active, kept = _checked(scores, labels, where)
    # From the lowest score upwards, those left out above all.
    ranks = jax.scipy.stats.rankdata(jnp.where(kept, scores, jnp.inf))
    num_active = active.sum()
    mean_rank = jnp.mean(ranks, where=active)
    return ((mean_rank - (num_active + 1) / 2) / (kept.sum() - num_active)).astype(scores.dtype)


def _ranks(scores: jax.Array, kept: jax.Array) -> jax.Array:
    """Return the rank of each row from 1, the highest score first, those left out last, `[N]`."""
    order = jnp.argsort(jnp.where(kept, -scores, jnp.inf), stable=True)
    return jnp.zeros_like(order).at[order].set(jnp.arange(1, len(scores) + 1, dtype=order.dtype))


def _checked(
    scores: ArrayLike, labels: ArrayLike, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return scores, which rows are active (and kept), and which are kept, `[N]` each."""
    scores = jnp.asarray(scores)
    _door.check_float("scores", scores)
    if scores.ndim != 1:
        raise ValueError(f"scores: expected shape [N], got {list(scores.shape)}")
    kept = jnp.ones(scores.shape, bool) if where is None else jnp.asarray(where)
    _door.check_where("where", kept, scores.shape)
    _door.check_finite("scores", scores[:, None], where=kept)
    if jnp.asarray(labels).dtype != jnp.bool_:
        _door.check_labels("labels", labels, num_classes=2, shape=scores.shape)
    labels = jnp.asarray(labels).astype(bool)
    if labels.shape != scores.shape:
        raise ValueError(f"labels: expected shape {list(scores.shape)}, got {list(labels.shape)}")
    if _door.is_concrete(labels, kept):
        actives = np.asarray(labels)[np.asarray(kept)]
        if actives.all() or not actives.any():
            raise ValueError(
                f"labels: expected an active and a decoy, got {actives.sum()} actives of "
                f"{len(actives)}"
            )
    wide = jnp.promote_types(scores.dtype, jnp.float32)  # bfloat16 cannot count to 1,000
    return scores.astype(wide), labels & kept, kept
