"""Soft labels from siblings: clips of one video answer one question, and teach one of them.

What one clip misses another shows, so the predictions of N clips are mixed along their likeness
into one soft label, and the first of them, the anchor, is trained on it beside the true answer.
Inference needs the anchor alone. Any rows that share an answer (views of an image) are siblings.

N clips with features F `[N, D]` and scores S `[N, K]` over K answers; P = softmax(S) and the
affinity A `[N, N]`, A_ij = exp(cos(F_i, F_j)/T) / Σ_{k ≠ i} exp(cos(F_i, F_k)/T), zero at i = j.

    label_kind  label                                          whose
    one_step    Q = ω w₁ A P + (1 − ω) w₂ P, `[K]`             SiaSamRea (Yu et al., NeurIPS 2021)
    walk        Q = (1 − ω) (I − ω A)⁻¹ P, `[N, K]`, row 0     BAKE (Ge et al., arXiv 2104.13298)

The random walk is the relative's, not SiaSamRea's, which takes one step and weighs the clips by w₁
and w₂. "Confirmed" is what SiaSamRea's submitted version says; no code of it is known. Numbers that
one might sweep may be traced.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.typing import ArrayLike

from jsoft import _door, losses, targets

_EXACT = lax.Precision.HIGHEST  # labels have to sum to one on accelerators too


def siamese_affinity(
    features: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    kind: Literal["cosine", "uniform"] = "cosine",
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return how much each clip listens to each of its siblings, A `[..., N, N]`.

        A_ij = exp(cos(F_i, F_j)/T) / Σ_{k ≠ i} exp(cos(F_i, F_k)/T),  A_ii = 0

    Rows sum to one; that of a clip without siblings is zero. At T = 1 no two entries of a row
    differ by more than a factor of e², about 7: cosines lie between −1 and 1.

    Args:
      features: F, `[..., N, D]` finite floats, of a clip and its question, before the classifier.
        Features of zeros have cosine 0 with all others.
      temperature: T > 0.
      kind: "uniform" gives 1/(N − 1) to all siblings, the paper's ablation ("reasoning only").
      where: `[..., N]` booleans, the clips that exist (all by default). Others listen to nobody and
        nobody to them, whatever their features hold.

    Raises:
      TypeError, ValueError: features or mask of wrong dtype or shape, features that are not finite,
        a temperature that is not one number above zero, an unknown kind, a video without clips.

    Source: SiaSamRea, confirmed; the temperature is ours, the paper has 1.

    >>> features = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> print(np.asarray(siamese_affinity(features)).round(2))  # e/(e + 1) = 0.73 for the like one
    [[0.   0.73 0.27]
     [0.73 0.   0.27]
     [0.5  0.5  0.  ]]
    """
    features = jnp.asarray(features)
    _check_clips("features", features, "[..., N, D]", width=1)
    where = _checked_where(where, features.shape[:-1])
    features = jnp.where(where[..., None], features, 0)
    _door.check_finite("features", features)
    _door.check_scalar(temperature=temperature)
    _door.check_positive(temperature=temperature)
    if kind == "cosine":
        # Under the root, so that features of zeros have a slope.
        units = features / jnp.sqrt((features**2).sum(axis=-1, keepdims=True) + 1e-12)
        cosines = jnp.matmul(units, jnp.swapaxes(units, -1, -2), precision=_EXACT)
    elif kind == "uniform":
        cosines = jnp.zeros((*where.shape, where.shape[-1]), features.dtype)
    else:
        raise ValueError(f'kind: expected "cosine" or "uniform", got {kind!r}')
    siblings = ~_identity(where) & where[..., None, :] & where[..., None]
    # A clip without siblings listens to all on the way, so that no row is 0/0.
    alone = ~siblings.any(axis=-1, keepdims=True)
    affinity = jax.nn.softmax(jnp.where(siblings | alone, cosines / temperature, -jnp.inf))
    return jnp.where(siblings, affinity, 0)


def siamese_soft_label(
    scores: ArrayLike,
    affinity: ArrayLike,
    *,
    omega: ArrayLike = 0.5,
    w1: ArrayLike | None = None,
    w2: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Return the label that the clips of a video agree on, Q `[..., K]`.

        Q = ω w₁ A P + (1 − ω) w₂ P,  P = softmax(S/T),  w = softmax of its logits over the clips

    Scores and affinity are constants here: gradients reach `w1` and `w2` alone, and favour clips
    that agree with the anchor; leave the weights out where this self-confirmation hurts. If weights
    and affinity are uniform, Q is the mean of P at any ω (derived here).

    Args:
      scores: S, `[..., N, K]` finite floats.
      affinity: A, `[..., N, N]` as of `siamese_affinity`; clips with rows of zeros keep their P.
      omega: ω in [0, 1], the part that went through the siblings.
      w1: `[N]` logits of the weights of A P; uniform by default.
      w2: `[N]` logits of the weights of P; uniform by default.
      temperature: T > 0, of the scores.
      where: `[..., N]` booleans, the clips that exist (all by default); others weigh nothing.

    Raises:
      TypeError, ValueError: arrays of wrong dtype or shape, or not finite; affinity below zero or
        with rows that sum to neither one nor zero; ω or the temperature out of range.

    Source: SiaSamRea, confirmed. Reconstructed: the softmax over weights, what is constant.

    >>> scores = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))  # the anchor missed what was asked
    >>> affinity = siamese_affinity(jnp.ones((2, 3)))
    >>> print(np.asarray(siamese_soft_label(scores, affinity)).round(4))
    [0.7 0.3]
    """
    scores = jnp.asarray(scores)
    _check_clips("scores", scores, "[..., N, K]", width=2)
    where = _checked_where(where, scores.shape[:-1])
    scores = lax.stop_gradient(jnp.where(where[..., None], scores, 0))
    own, transitions, omega = _checked_walk(
        targets.temperature_softmax(scores, temperature=temperature),
        lax.stop_gradient(jnp.asarray(affinity)),
        omega,
    )

    def weighed(name: str, logits: ArrayLike | None, rows: jax.Array) -> jax.Array:
        weights = _weights(name, logits, where, rows.dtype)
        return jnp.einsum("...n,...nk->...k", weights, rows, precision=_EXACT)

    passed_on = jnp.matmul(transitions, own, precision=_EXACT)
    return omega * weighed("w1", w1, passed_on) + (1 - omega) * weighed("w2", w2, own)


def propagate(
    probabilities: ArrayLike, affinity: ArrayLike, *, omega: ArrayLike, num_steps: int
) -> jax.Array:
    """Return the labels after some steps of the random walk among siblings, `[..., N, K]`.

        Q₀ = P,  Q_{t+1} = ω A Q_t + (1 − ω) P

    One label for each clip, not one for all. |Q_t − Q_∞| ≤ 2 ω^t, summed over the answers.

    Args:
      probabilities: P, `[..., N, K]`, rows that sum to one.
      affinity: A, `[..., N, N]` as of `siamese_affinity`; clips with rows of zeros keep their P.
      omega: ω in [0, 1].
      num_steps: t, a whole number, 0 or more.

    Raises:
      TypeError, ValueError: arrays as for `siamese_soft_label`, rows of P that do not sum to one; ω
        or the number of steps out of range.

    Source: BAKE (arXiv 2104.13298) and its released code; not SiaSamRea.

    >>> probabilities = jnp.array([[0.5, 0.5], [0.9, 0.1]])
    >>> affinity = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    >>> print(np.asarray(propagate(probabilities, affinity, omega=0.25, num_steps=1)).round(4))
    [[0.6 0.4]
     [0.8 0.2]]
    """
    own, transitions, omega = _checked_walk(probabilities, affinity, omega)
    _door.check_whole(0, num_steps=num_steps)

    def step(_: int, labels: jax.Array) -> jax.Array:
        return omega * jnp.matmul(transitions, labels, precision=_EXACT) + (1 - omega) * own

    return lax.fori_loop(0, num_steps, step, own)


def propagate_closed_form(
    probabilities: ArrayLike, affinity: ArrayLike, *, omega: ArrayLike
) -> jax.Array:
    """Return where the random walk among siblings ends, Q_∞ `[..., N, K]`.

        Q_∞ = (1 − ω) (I − ω A)⁻¹ P

    At ω = 1 the walk forgets where it began, and the system is singular. The released code trains
    on P = softmax(S/4) at ω = 1/2, by `16 * losses.kl_divergence(scores / 4, labels)`.

    Args, raises, source: as `propagate`; ω = 1 is refused.

    >>> probabilities = jnp.array([[0.5, 0.5], [0.8, 0.2]])
    >>> affinity = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    >>> walked = propagate_closed_form(probabilities, affinity, omega=0.5)
    >>> print(np.asarray(walked).round(4))  # (2 P₀ + P₁)/3 first
    [[0.6 0.4]
     [0.7 0.3]]
    """
    own, transitions, omega = _checked_walk(probabilities, affinity, omega)
    if _door.is_concrete(omega) and float(omega) == 1:
        raise ValueError("omega: expected a number in [0, 1), for the walk to have a limit, got 1")
    return jnp.linalg.solve(_identity(own[..., 0]) - omega * transitions, (1 - omega) * own)


def pairwise_hinge(scores: ArrayLike, labels: ArrayLike, *, margin: ArrayLike = 1.0) -> jax.Array:
    """Return the hinge loss of the true answer against every other one, `[...]`.

        Σ_{m ≠ y} max(0, margin − (s_y − s_m))

    Args:
      scores: `[..., M]` finite floats, of answers that are scored one by one (multiple choice).
      labels: `[...]` integers, the true answers.
      margin: 0 or more.

    Raises:
      TypeError, ValueError: scores or labels of wrong dtype, shape or range, a margin below 0.

    Source: SiaSamRea's loss of multiple choice, confirmed (margin 1).

    >>> print(pairwise_hinge(jnp.array([2.0, 1.5, 0.0]), jnp.array(0)))  # 1 − 0.5, and 0
    0.5
    """
    scores = jnp.asarray(scores)
    _door.check_float("scores", scores)
    _door.check_classes("scores", scores)
    _door.check_finite("scores", scores)
    num_answers = scores.shape[-1]
    _door.check_labels("labels", labels, num_classes=num_answers, shape=scores.shape[:-1])
    _door.check_scalar(margin=margin)
    _door.check_at_least(0, margin=margin)
    is_true = jax.nn.one_hot(labels, num_answers, dtype=bool)
    true = jnp.where(is_true, scores, 0).sum(axis=-1, keepdims=True)
    return jnp.where(is_true, 0, jax.nn.relu(margin - (true - scores))).sum(axis=-1)


def siamese_reasoning(
    scores: ArrayLike,
    features: ArrayLike,
    labels: ArrayLike,
    *,
    omega: ArrayLike = 0.5,
    alpha: ArrayLike = 1.0,
    w1: ArrayLike | None = None,
    w2: ArrayLike | None = None,
    task: Literal["open", "choice"] = "open",
    label_kind: Literal["one_step", "walk"] = "one_step",
    affinity: Literal["cosine", "uniform"] = "cosine",
    affinity_temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the loss of every anchor under its true and its siblings' label, and its parts.

        L = L_gt + α L_siamese,  L_siamese = −Σ_k Q_k log p_k,  p = softmax(S_0)

    Q is a constant of the network, so siblings have no loss of their own. An anchor alone (N = 1)
    has Q = p and an L_siamese without gradient: what is gained comes from siblings.

    Args:
      scores: S, `[..., N, K]` finite floats, the anchor in row 0 of the clips.
      features: F, `[..., N, D]` finite floats.
      labels: `[...]` integers, the true answer of each video.
      omega: ω in [0, 1]; below 1 for a walk.
      alpha: α ≥ 0, the weight of L_siamese.
      w1: `[N]` trainable logits of weights, uniform by default; not for a walk.
      w2: `[N]` trainable logits, as w1.
      task: L_gt is the cross-entropy if "open", `pairwise_hinge` at margin 1 if "choice".
      label_kind: "one_step", `siamese_soft_label`; "walk", the anchor in `propagate_closed_form`.
      affinity: the `kind` of `siamese_affinity`.
      affinity_temperature: its temperature.
      where: `[..., N]` booleans, the clips that exist (all by default), every anchor among them.

    Returns:
      `[...]`, and a dict: `ground_truth` and `siamese`, `[...]`; `soft_label`, Q `[..., K]`.

    Raises:
      TypeError, ValueError: as the functions above; labels of wrong dtype, shape or range; α below
        0; an unknown task or kind of label; weights for a walk, which has none; a missing anchor.

    Source: SiaSamRea, confirmed: both losses, α = 1, ω = 1/2. Reconstructed: what is constant, and
    P = softmax over the answers in multiple choice.

    >>> scores = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))
    >>> loss, terms = siamese_reasoning(scores, jnp.ones((2, 3)), jnp.array(0))
    >>> print(np.asarray(terms["soft_label"]).round(4), f"{loss:.4f}")  # log 2 + log 2
    [0.7 0.3] 1.3863
    """
    scores, features = jnp.asarray(scores), jnp.asarray(features)
    _check_clips("scores", scores, "[..., N, K]", width=2)
    if features.shape[:-1] != scores.shape[:-1]:
        expected = [*scores.shape[:-1], "D"]
        raise ValueError(f"features: expected shape {expected}, got {list(features.shape)}")
    _door.check_labels("labels", labels, num_classes=scores.shape[-1], shape=scores.shape[:-2])
    _door.check_scalar(alpha=alpha)
    _door.check_at_least(0, alpha=alpha)
    where = _checked_where(where, scores.shape[:-1])
    if _door.is_concrete(where) and not np.asarray(where)[..., 0].all():
        raise ValueError("where: expected every anchor, clip 0, to exist")
    anchor = scores[..., 0, :]
    if task == "open":
        ground_truth = optax.losses.softmax_cross_entropy_with_integer_labels(
            anchor, jnp.asarray(labels)
        )
    elif task == "choice":
        ground_truth = pairwise_hinge(anchor, labels)
    else:
        raise ValueError(f'task: expected "open" or "choice", got {task!r}')

    likeness = siamese_affinity(
        features, temperature=affinity_temperature, kind=affinity, where=where
    )
    if label_kind == "one_step":
        soft_label = siamese_soft_label(scores, likeness, omega=omega, w1=w1, w2=w2, where=where)
    elif label_kind == "walk":
        if w1 is not None or w2 is not None:
            raise ValueError('w1, w2: expected None with label_kind="walk", which weighs no clips')
        own = jnp.where(where[..., None], scores, 0)
        own = targets.temperature_softmax(own, temperature=1.0)
        walked = propagate_closed_form(own, likeness, omega=omega)
        soft_label = lax.stop_gradient(walked[..., 0, :])
    else:
        raise ValueError(f'label_kind: expected "one_step" or "walk", got {label_kind!r}')
    siamese = losses.soft_cross_entropy(anchor, soft_label)
    terms = {"ground_truth": ground_truth, "siamese": siamese, "soft_label": soft_label}
    return ground_truth + alpha * siamese, terms


def _identity(rows: jax.Array) -> jax.Array:
    """Return the identity matrix for rows `[..., N]`, `[..., N, N]`, of their dtype."""
    size = rows.shape[-1]
    return jnp.broadcast_to(jnp.eye(size, dtype=rows.dtype), (*rows.shape, size))


def _weights(name: str, logits: ArrayLike | None, where: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Return the weights of the clips that exist, `[..., N]`; they sum to one."""
    num_clips = where.shape[-1]
    logits = jnp.zeros(num_clips, dtype) if logits is None else jnp.asarray(logits)
    _door.check_float(name, logits)
    if logits.shape != (num_clips,):
        raise ValueError(f"{name}: expected shape [{num_clips}], got {list(logits.shape)}")
    _door.check_finite(name, logits)
    return jax.nn.softmax(jnp.where(where, jnp.broadcast_to(logits, where.shape), -jnp.inf))


def _check_clips(name: str, values: jax.Array, shape: str, *, width: int) -> None:
    """Raise unless the values are floats of one clip or more, of `width` columns or more."""
    _door.check_float(name, values)
    if values.ndim < 2 or values.size == 0 or values.shape[-1] < width:
        expected = f"shape {shape} with N ≥ 1 and {shape[-2]} ≥ {width}"
        raise ValueError(f"{name}: expected {expected}, got {list(values.shape)}")


def _checked_where(where: ArrayLike | None, shape: tuple[int, ...]) -> jax.Array:
    """Return which clips exist, `[..., N]`; one or more in every video."""
    if where is None:
        return jnp.ones(shape, bool)
    where = jnp.asarray(where)
    _door.check_where("where", where, shape)
    if _door.is_concrete(where) and not np.asarray(where).any(axis=-1).all():
        raise ValueError("where: expected one clip or more in every video, got a video of none")
    return where


def _checked_walk(
    probabilities: ArrayLike, affinity: ArrayLike, omega: ArrayLike
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return P, the affinity in which clips without siblings stand still, and ω, all checked."""
    own, affinity = jnp.asarray(probabilities), jnp.asarray(affinity)
    _check_clips("probabilities", own, "[..., N, K]", width=2)
    _door.check_float("affinity", affinity)
    expected = [*own.shape[:-1], own.shape[-2]]
    if list(affinity.shape) != expected:
        raise ValueError(f"affinity: expected shape {expected}, got {list(affinity.shape)}")
    _check_sums("probabilities", own, (1,))
    _check_sums("affinity", affinity, (0, 1))
    _door.check_scalar(omega=omega)
    _door.check_levels(omega=omega)
    alone = ~(affinity > 0).any(axis=-1, keepdims=True)
    return own, jnp.where(alone, _identity(own[..., 0]), affinity), jnp.asarray(omega, own.dtype)


def _check_sums(name: str, rows: jax.Array, sums: tuple[int, ...]) -> None:
    """Raise `ValueError` where a concrete row has a negative entry or another sum than these."""
    if not _door.is_concrete(rows):
        return
    _door.check_finite(name, rows)
    values = np.asarray(rows, np.float64)
    tolerance = max(1e-3, float(jnp.finfo(rows.dtype).eps))
    near = np.abs(values.sum(axis=-1)[..., None] - sums) <= tolerance * np.array(sums)
    bad = (values < 0).any(axis=-1) | ~near.any(axis=-1)
    if bad.any():
        row = tuple(int(i) for i in np.unravel_index(np.argmax(bad), bad.shape))
        raise ValueError(
            f"{name}: expected entries of 0 or more and rows that sum to "
            f"{' or '.join(map(str, sums))}, got {values[row].tolist()} in row {list(row)}"
        )
