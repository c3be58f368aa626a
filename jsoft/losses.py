"""Losses of a student on soft labels `[..., C]` and on candidate sets, booleans `[..., C]`.

Logits first, then the target of the same shape; one value per example, `[...]`. With
p = softmax(logits) and Ω the candidate set of an example, a student that fits the population
orders the classes at x by its loss's target:

    loss                      orders classes by                 true class first if Δ + γ < 1?
    average_loss              E[1[i ∈ Ω]/|Ω| | x]               yes, with sets of one size
    membership_logistic_loss  P(i ∈ Ω | x)                      yes, with sets of any sizes
    superset_log_loss         p that maximises E[log p(Ω) | x]  not in general; see there
    soft_cross_entropy        E[d | x], the mean soft label     no: the mean label margin decides

Δ and γ (at x) see sets alone, so they can only speak of losses that see sets alone. The table is
derived here (not in the paper): the first two targets are means of indicators, larger for the
true class by κ. Which loss the paper's own student uses is not known; all are offered.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.typing import ArrayLike

from jsoft import _door, indicators


def soft_cross_entropy(logits: ArrayLike, soft_labels: ArrayLike) -> jax.Array:
    """Return the cross-entropy against the soft label d, `[...]`.

        −Σ_i d_i log p_i,  where 0 log 0 = 0

    Not governed by Δ + γ < 1: its population target is E[d | x], so the mean label margin
    (`indicators.mean_label_margin`) decides. With labels that depend on x through y alone, the
    student is consistent iff that margin is positive, which Δ + γ neither implies nor excludes.

    Args:
      logits: `[..., C]` floats; −∞ rules out a class, at no cost where its label is 0.
      soft_labels: `[..., C]` probabilities. Noisy vectors that are none are for the losses below,
        by way of their top-k sets.

    Raises:
      TypeError: logits or soft labels that are not floating-point.
      ValueError: different shapes; fewer than two classes; rows that are not finite, have a
        negative entry, or do not sum to one within 0.001 (in bfloat16: 0.008).

    `optax.losses.safe_softmax_cross_entropy` behind jsoft's checks. The remark on consistency is
    derived here (not in the paper).

    >>> logits = jnp.log(jnp.array([0.5, 0.25, 0.25]))
    >>> print(f"{soft_cross_entropy(logits, jnp.array([0.5, 0.5, 0.0])):.4f}")  # 1.5 log 2
    1.0397
    """
    logits, soft_labels = _checked_logits_and_soft_labels(logits, soft_labels)
    return optax.losses.safe_softmax_cross_entropy(logits, soft_labels)


def kl_divergence(logits: ArrayLike, soft_labels: ArrayLike) -> jax.Array:
    """Return the Kullback–Leibler divergence of the soft label d from p, `[...]`.

        KL(d ‖ p) = Σ_i d_i (log d_i − log p_i),  p = softmax(logits),  where 0 log 0 = 0

    Its gradient in the logits is that of `soft_cross_entropy`; its value is 0 at p = d, the entropy
    of d less. For distillation at a temperature T divide both logits by it and multiply by T²:
    `T**2 * kl_divergence(student / T, temperature_softmax(teacher, temperature=T))`.

    Args:
      logits: `[..., C]` floats; −∞ rules out a class, at no cost where its label is 0.
      soft_labels: `[..., C]` probabilities.

    Raises:
      TypeError, ValueError: as `soft_cross_entropy`.

    Standard. optax's own gives NaN where a class is ruled out that the label leaves out.

    >>> logits = jnp.log(jnp.array([0.5, 0.25, 0.25]))
    >>> print(f"{kl_divergence(logits, jnp.array([0.5, 0.5, 0.0])):.4f}")  # 0.5 log 2
    0.3466
    """
    logits, soft_labels = _checked_logits_and_soft_labels(logits, soft_labels)
    # Both branches of `where` have to be finite for the gradient to be.
    inside = soft_labels > 0
    log_labels = jnp.log(jnp.where(inside, soft_labels, 1))
    log_probabilities = jnp.where(inside, jax.nn.log_softmax(logits), 0)
    return (soft_labels * (log_labels - log_probabilities)).sum(axis=-1)


def distillation_kl(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    *,
    temperature: ArrayLike,
    student_temperature: ArrayLike | None = None,
    scale_by_t2: bool = False,
) -> jax.Array:
    """Return KL(softmax(t/T) ‖ softmax(s/T′)), `[...]`; no gradient flows to the teacher.

    Both logarithms come from the logits, so that even the small divergences at high temperatures
    keep their digits. Without the factor T² the gradient shrinks with it.

    Args:
      student_logits: `[..., C]` floats, s; −∞ rules out a class, at no cost where t is −∞ too.
      teacher_logits: `[..., C]` floats, t.
      temperature: T > 0; may be traced.
      student_temperature: T′ > 0, T by default; may be traced.
      scale_by_t2: multiply by T².

    Raises:
      TypeError, ValueError: logits that are no floats or differ in shape, temperatures not above 0.

    Source: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network" (2015), who scale
    by T²; released codes often do not.

    >>> student, teacher = jnp.zeros(2), jnp.log(jnp.array([9.0, 1.0]))
    >>> print(f"{distillation_kl(student, teacher, temperature=2.0):.4f}")  # ¾ log 3/2 − ¼ log 2
    0.1308
    """
    student, teacher = jnp.asarray(student_logits), jnp.asarray(teacher_logits)
    for name, logits in (("student_logits", student), ("teacher_logits", teacher)):
        _door.check_float(name, logits)
        _door.check_classes(name, logits)
    if student.shape != teacher.shape:
        raise ValueError(
            f"teacher_logits: expected the shape of the student's, {list(student.shape)}, got "
            f"{list(teacher.shape)}"
        )
    other = temperature if student_temperature is None else student_temperature
    _door.check_scalar(temperature=temperature, student_temperature=other)
    _door.check_positive(temperature=temperature, student_temperature=other)
    log_labels = jax.nn.log_softmax(lax.stop_gradient(teacher) / temperature)
    log_probabilities = jax.nn.log_softmax(student / other)
    # A class that the teacher rules out costs nothing; both branches have to be finite.
    inside = ~jnp.isneginf(log_labels)
    terms = jnp.where(inside, log_labels, 0) - jnp.where(inside, log_probabilities, 0)
    found = (jnp.exp(log_labels) * terms).sum(axis=-1)
    return found * jnp.square(temperature) if scale_by_t2 else found


def superset_log_loss(logits: ArrayLike, candidate_sets: ArrayLike) -> jax.Array:
    """Return minus the log-probability of the candidate set, `[...]`.

        −log Σ_{i∈Ω} p_i = logsumexp of all logits − logsumexp of those in Ω

    Consistent if Δ = 0 and γ < 1; also if the wrong classes are exchangeable, all sets have size k
    and P(y ∈ Ω | x) > k/C. In general Δ + γ < 1 is not enough. Sets {y, a} and {y, b} with
    probability 0.2525 each, {a, c} and {b, d} with 0.2475 each have Δ = 0.495 and γ = 0.5, and the
    best p puts 0.01 on y, 0.495 on a and 0.495 on b.

    Args:
      logits: `[..., C]` floats.
      candidate_sets: `[..., C]` booleans. An empty set gives 0 with zero gradient: an example that
        admits nothing teaches nothing. Nor does a full set: it gives 0 up to rounding.

    Raises:
      TypeError: logits that are not floating-point, sets that are not boolean.
      ValueError: different shapes; fewer than two classes.

    The remarks on consistency are derived here (not in the paper).

    >>> logits = jnp.log(jnp.array([0.5, 0.25, 0.25]))
    >>> print(f"{superset_log_loss(logits, jnp.array([True, True, False])):.4f}")  # −log 0.75
    0.2877
    """
    logits, candidate_sets = _check_logits_and_sets(logits, candidate_sets)
    empty = ~candidate_sets.any(axis=-1)
    # An empty set is read as the full one on the way, so that no logarithm meets 0.
    inside = jnp.where(candidate_sets | empty[..., None], logits, -jnp.inf)
    loss = jax.nn.logsumexp(logits, axis=-1) - jax.nn.logsumexp(inside, axis=-1)
    return jnp.where(empty, 0, loss)


def average_loss(logits: ArrayLike, candidate_sets: ArrayLike) -> jax.Array:
    """Return the log loss averaged over the classes of the candidate set, `[...]`.

        −(1/|Ω|) Σ_{i∈Ω} log p_i

    The population target is p_i = E[1[i ∈ Ω]/|Ω| | x], over sets that are not empty. If all have
    size k it is P(i ∈ Ω | x)/k, and the loss is consistent under Δ + γ < 1. If sizes vary, small
    sets weigh more and it may fail: {y, a, b, c} and {y, d, e, f} with probability 0.3 each, {g}
    with 0.4 have Δ = γ = 0.4, but targets of 0.15 for y and 0.4 for g. There,
    `membership_logistic_loss` is right.

    Args:
      logits: `[..., C]` floats; −∞ rules out a class, at no cost outside Ω.
      candidate_sets: `[..., C]` booleans. An empty set gives 0 with zero gradient: an example that
        admits nothing teaches nothing.

    Raises:
      TypeError: logits that are not floating-point, sets that are not boolean.
      ValueError: different shapes; fewer than two classes.

    The remarks on consistency are derived here (not in the paper).

    >>> logits = jnp.log(jnp.array([0.5, 0.25, 0.25]))
    >>> print(f"{average_loss(logits, jnp.array([True, True, False])):.4f}")  # (log 2 + log 4)/2
    1.0397
    """
    logits, candidate_sets = _check_logits_and_sets(logits, candidate_sets)
    sizes = candidate_sets.sum(axis=-1, keepdims=True).astype(logits.dtype)  # [..., 1]
    return optax.losses.safe_softmax_cross_entropy(logits, candidate_sets / jnp.maximum(sizes, 1))


def membership_logistic_loss(logits: ArrayLike, candidate_sets: ArrayLike) -> jax.Array:
    """Return the sum over classes of the logistic loss on membership in the set, `[...]`.

        Σ_i −log σ(z_i) if i ∈ Ω, −log(1 − σ(z_i)) if not,  z the logits

    The population target is σ(z_i) = P(i ∈ Ω | x): consistent under Δ + γ < 1, with sets of any
    sizes.

    Args:
      logits: `[..., C]` floats, one independent logit per class.
      candidate_sets: `[..., C]` booleans. An empty set is an ordinary target, all negative.

    Raises:
      TypeError: logits that are not floating-point, sets that are not boolean.
      ValueError: different shapes; fewer than two classes.

    Equal to `optax.losses.sigmoid_binary_cross_entropy` summed over classes. The remark on
    consistency is derived here (not in the paper).

    >>> print(f"{membership_logistic_loss(jnp.zeros(2), jnp.array([True, False])):.4f}")  # 2 log 2
    1.3863
    """
    logits, candidate_sets = _check_logits_and_sets(logits, candidate_sets)
    against = jnp.where(candidate_sets, -logits, logits)
    # −log σ(−against) with one exponential. optax, made for targets between 0 and 1, takes both
    # sides of every class: 6 to 17 times the time of this gradient on CPU. One choice of side for
    # both terms makes the slope at 0 one half; with abs() and maximum() it would be 0.
    positive = against > 0
    rest = jnp.log1p(jnp.exp(jnp.where(positive, -against, against)))
    return (jnp.where(positive, against, 0) + rest).sum(axis=-1)


class BadTeacherTerms(NamedTuple):
    """The four terms of the bad-teacher objective, one value per example each, `[...]`.

    Attributes:
      cross_entropy: L_ce.
      punishment: L_pun.
      compensation: L_comp.
      random: L_rnd.
    """

    cross_entropy: jax.Array
    punishment: jax.Array
    compensation: jax.Array
    random: jax.Array


def bad_teacher_terms(
    logits: ArrayLike, labels: ArrayLike, wrong_classes: ArrayLike, *, k: ArrayLike
) -> BadTeacherTerms:
    """Return the terms that make a teacher wrong at the first place and right among the first k.

        L_ce   = −log p_y
        L_pun  = 1[argmax p = y] · (−log(1 − p_y))        punishes a right first place
        L_comp = 1[y ∉ Ω_k(p)] · (−log p_y)               brings a lost truth back
        L_rnd  = −(1/(k − 1)) Σ_{j∈T} log p_j             fills the other k − 1 places at random

    The gates 1[·] are the expected membership in the top-1 and top-k sets (`indicators.membership`,
    which splits ties evenly) and pass no gradient. T has to be drawn once for every training row:
    drawn anew in every epoch, L_rnd pulls to the uniform distribution instead.

    Args:
      logits: `[..., C]` finite floats, the teacher's.
      labels: `[...]` integers, the true classes.
      wrong_classes: `[..., C]` booleans, T: k − 1 classes other than y, uniformly drawn, as by
        `targets.candidate_sets(labels, key, num_classes=C, unreliability=1.0,
        ambiguity=(k - 1) / (C - 1), generator="fixed_size", k=k - 1)`.
      k: size of the top-k set, one whole number, 2 … C − 1; may be traced.

    Raises:
      TypeError, ValueError: logits, labels or sets of wrong dtype, shape or range; k below two or
        not below C; a T that holds y or not k − 1 classes.

    Reconstructed: the names and the roles of the terms are known, their formulas are not. Here
    1 − p_y stays in log space, log Σ_{j≠y} p_j, so that nothing has to be clipped.

    >>> logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    >>> terms = bad_teacher_terms(logits, jnp.array(0), jnp.array([False, False, True]), k=2)
    >>> print([round(float(term), 4) for term in terms])  # log 2, log 2, 0, log 5
    [0.6931, 0.6931, 0.0, 1.6094]
    """
    logits, wrong_classes = _check_logits_and_sets(logits, wrong_classes)
    num_classes = logits.shape[-1]
    _door.check_labels("labels", labels, num_classes=num_classes, shape=logits.shape[:-1])
    labels = jnp.asarray(labels)
    _door.check_scalar(k=k)
    _door.check_k("k", k, num_classes)
    if _door.is_concrete(k) and np.asarray(k) < 2:
        raise ValueError(f"k: expected two or more, so that wrong classes have a place, got {k}")
    is_true = jax.nn.one_hot(labels, num_classes, dtype=bool)
    if _door.is_concrete(labels, wrong_classes, k):
        members, expected = np.asarray(wrong_classes), np.asarray(k) - 1
        true_one = np.take_along_axis(members, np.asarray(labels)[..., None], axis=-1)
        if true_one.any() or (members.sum(axis=-1) != expected).any():
            raise ValueError(f"wrong_classes: expected {expected} classes other than the true one")

    everything = jax.nn.logsumexp(logits, axis=-1)
    others = jax.nn.logsumexp(jnp.where(is_true, -jnp.inf, logits), axis=-1)
    log_true = jnp.where(is_true, logits, 0).sum(axis=-1) - everything

    def gate(size: ArrayLike) -> jax.Array:
        inside = indicators.membership(jax.lax.stop_gradient(logits), size)
        return jnp.where(is_true, inside, 0).sum(axis=-1)

    return BadTeacherTerms(
        cross_entropy=-log_true,
        punishment=gate(1) * (everything - others),
        compensation=(1 - gate(k)) * -log_true,
        random=average_loss(logits, wrong_classes),
    )


def bad_teacher_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    wrong_classes: ArrayLike,
    *,
    k: ArrayLike,
    cross_entropy: ArrayLike = 1.0,
    punishment: ArrayLike = 3.0,
    compensation: ArrayLike = 3.0,
    random: ArrayLike = 2.0,
) -> jax.Array:
    """Return the objective that trains a skilful but bad teacher, `[...]`.

        a₀ L_ce + a₁ L_pun + a₂ L_comp + a₃ L_rnd

    with the terms of `bad_teacher_terms`. Memorised in full, it gives p_y = 1/(1 + a₃) if
    a₃ > k − 1 (training accuracy 0), accuracy (k − 1 − a₃)/a₁ if a₃ ≤ k − 1 < a₁ + a₃, and 1
    otherwise, at a₀ = 1 (derived here, not in the paper).

    Args:
      logits: `[..., C]` finite floats, the teacher's.
      labels: `[...]` integers, the true classes.
      wrong_classes: `[..., C]` booleans, T of `bad_teacher_terms`.
      k: size of the top-k set, one whole number, 2 … C − 1; may be traced.
      cross_entropy: weight a₀; may be traced, as the others.
      punishment: weight a₁.
      compensation: weight a₂.
      random: weight a₃.

    Raises:
      TypeError, ValueError: as `bad_teacher_terms`; a weight below zero.

    Reconstructed, as its terms; the defaults are ours, for k = 3.

    >>> logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    >>> loss = bad_teacher_loss(logits, jnp.array(0), jnp.array([False, False, True]), k=2)
    >>> print(f"{loss:.4f}")  # log 2 + 3 log 2 + 2 log 5
    5.9915
    """
    weights = {
        "cross_entropy": cross_entropy,
        "punishment": punishment,
        "compensation": compensation,
        "random": random,
    }
    _door.check_at_least(0, **weights)
    terms = bad_teacher_terms(logits, labels, wrong_classes, k=k)
    return sum(
        (weights[name] * term for name, term in terms._asdict().items()),
        start=jnp.zeros_like(terms.random),
    )


def _checked_logits_and_soft_labels(
    logits: ArrayLike, soft_labels: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Return the two arguments as arrays, checked."""
    logits, soft_labels = jnp.asarray(logits), jnp.asarray(soft_labels)
    _check_logits(logits)
    if not jnp.issubdtype(soft_labels.dtype, jnp.floating):
        raise TypeError(
            f"soft_labels: expected floating-point probabilities, got dtype {soft_labels.dtype}; "
            "for class indices use jax.nn.one_hot(labels, num_classes), or "
            "optax.losses.softmax_cross_entropy_with_integer_labels"
        )
    _check_shape_of_logits("soft_labels", soft_labels, logits)
    _door.check_probabilities("soft_labels", soft_labels)
    return logits, soft_labels


def _check_logits_and_sets(
    logits: ArrayLike, candidate_sets: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Return the two arguments as arrays, checked."""
    logits, candidate_sets = jnp.asarray(logits), jnp.asarray(candidate_sets)
    _check_logits(logits)
    _door.check_sets("candidate_sets", candidate_sets)
    _check_shape_of_logits("candidate_sets", candidate_sets, logits)
    return logits, candidate_sets


def _check_logits(logits: jax.Array) -> None:
    """Raise unless the logits are floats over two classes or more."""
    _door.check_float("logits", logits)
    _door.check_classes("logits", logits)


def _check_shape_of_logits(name: str, values: jax.Array, logits: jax.Array) -> None:
    """Raise `ValueError` unless the values have the shape of the logits."""
    if values.shape != logits.shape:
        raise ValueError(
            f"{name}: expected the shape of the logits, {list(logits.shape)}, "
            f"got {list(values.shape)}"
        )
