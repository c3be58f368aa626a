"""Distillation with a weight for every example: weighted soft labels, and plain distillation.

A student with logits s learns from the label y and from a teacher with logits t. With
p = softmax(s), q = softmax(t), and p_T, q_T the softened softmax(s/T), softmax(t/T):

    CE^s = −log p_y               hard cross-entropy of the student, at temperature 1
    CE^t = −log q_y               that of the teacher, at temperature 1
    H    = −Σ_i q_T,i log p_T,i   soft cross-entropy, at temperature T
    KD     h CE^s + α T² H        the same weight on the teacher for every example
    WSL    CE^s + α T² w H        w = 1 − exp(−CE^s/CE^t), through which no gradient flows

A teacher that fits the label much worse than the student does is hardly listened to (w near 0).

Student logits come first, `[..., C]`, then the teacher's, of the same shape, finite or −∞, which
rules a class out, with one finite number or more in a row; then the labels, integers `[...]` or
(an extension of ours) probabilities `[..., C]`, for which CE^s = −Σ_i y_i log p_i. Numbers such as
T and α may be traced. No gradient flows to the teacher (in the released code one does, unused). All
is computed in float32 or wider and comes back for each example, in the dtype of the logits.

Source: Zhou et al., "Rethinking Soft Labels for Knowledge Distillation: A Bias–Variance Tradeoff
Perspective" (ICLR 2021, arXiv 2102.00650) and its released code.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jsoft import _door, losses, targets


class WeightedTerms(NamedTuple):
    """The terms of weighted soft labels, one value per example each, `[...]`.

    Attributes:
      hard: CE^s, against the smoothed label if label smoothing is asked for.
      soft: T² w H, without α.
      weights: w in [0, 1]; no gradient flows through.
    """

    hard: jax.Array
    soft: jax.Array
    weights: jax.Array


class BiasVariance(NamedTuple):
    """What the error of models is made of (`ensemble_bias_variance`), `[...]` each."""

    bias: jax.Array
    variance: jax.Array
    error: jax.Array


def wsl_weights(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike,
    *,
    eps: ArrayLike = 1e-7,
) -> jax.Array:
    """Return how much the teacher is listened to at each example, w in [0, 1], `[...]`.

        w = 1 − exp(−CE^s/(CE^t + ε)),  both at temperature 1; no gradient flows through

    It is 0 where the student's CE is 0 or the teacher's infinite, whatever the other.

    Args:
      student_logits: `[..., C]` floats.
      teacher_logits: `[..., C]` floats.
      labels: `[...]` integers, or probabilities `[..., C]`.
      eps: ε, 0 or more. 0 is the paper's formula, with w = 1 where only the teacher's CE is 0;
        10⁻⁷ is the released code's, added there against NaN.

    Raises:
      TypeError, ValueError: logits or labels of wrong dtype or shape; NaN, +∞, a row of nothing but
        −∞; labels out of range or rows that are no probabilities; an ε below 0.

    Source: arXiv 2102.00650; ε as in its released code.

    >>> student, teacher = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
    >>> print(f"{wsl_weights(student, teacher, jnp.array(0)):.4f}")  # 1 − exp(−log 2/log 4)
    0.3935
    """
    rows, dtype = _checked(student_logits, teacher_logits, labels)
    return _weights(*rows, eps).astype(dtype)


def wsl_loss_terms(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: ArrayLike = 4.0,
    eps: ArrayLike = 1e-7,
    label_smoothing: ArrayLike = 0.0,
) -> WeightedTerms:
    """Return the terms of `wsl_loss`: CE^s, T² w H and w, `[...]` each.

    Args, raises, source: as `wsl_loss`.

    >>> student, teacher = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
    >>> terms = wsl_loss_terms(student, teacher, jnp.array(0), temperature=1.0)
    >>> print([round(float(term), 4) for term in terms])  # log 2, w log 2, w
    [0.6931, 0.2727, 0.3935]
    """
    _door.check_scalar(label_smoothing=label_smoothing)
    _door.check_levels(label_smoothing=label_smoothing)
    (student, teacher, truth), dtype = _checked(student_logits, teacher_logits, labels)
    hard = _cross_entropy(_tempered(student, 1), targets.smooth(truth, alpha=label_smoothing))
    weights = _weights(student, teacher, truth, eps)
    terms = hard, weights * _soft_term(student, teacher, temperature), weights
    return WeightedTerms(*(term.astype(dtype) for term in terms))


def wsl_loss(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: ArrayLike = 4.0,
    alpha: ArrayLike = 2.25,
    eps: ArrayLike = 1e-7,
    label_smoothing: ArrayLike = 0.0,
) -> jax.Array:
    """Return the loss of weighted soft labels, `[...]`.

        CE^s + α T² w H,  w of `wsl_weights`

    The gradient in s is (p − y) + α T w (p_T − q_T), y one-hot. With the divergence in the place of
    the cross-entropy H it is the same, and the value smaller by α T² w times the entropy of q_T. At
    the defaults H counts 36-fold: values of 20 to 50 are usual.

    Args:
      student_logits: `[..., C]` floats.
      teacher_logits: `[..., C]` floats, of a teacher in evaluation mode (in the released script it
        stays in training mode).
      labels: `[...]` integers, or probabilities `[..., C]`.
      temperature: T > 0. The authors' is 4 for CIFAR-100, 2 in their ImageNet script.
      alpha: α, 0 or more. The authors' is 2.25 for CIFAR-100, 2.5 in their ImageNet script.
      eps: ε of the weights, 0 or more.
      label_smoothing: share of the uniform label in the first term, in [0, 1]; the weights see the
        labels as given. The released code has such a switch, without effect.

    Raises:
      TypeError, ValueError: as `wsl_weights`; a temperature that is not above 0, an α below 0, a
        smoothing outside [0, 1], any of them not one number.

    Source: arXiv 2102.00650 and its released code; T and α for CIFAR-100 from an answer of the
    authors there (secondary source).

    >>> student, teacher = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
    >>> loss = wsl_loss(student, teacher, jnp.array(0), temperature=1.0, alpha=2.0)
    >>> print(f"{loss:.4f}")  # log 2 + 2 w log 2
    1.2386
    """
    _check_coefficients(alpha=alpha)
    terms = wsl_loss_terms(
        student_logits,
        teacher_logits,
        labels,
        temperature=temperature,
        eps=eps,
        label_smoothing=label_smoothing,
    )
    return terms.hard + terms.soft * jnp.asarray(alpha, terms.soft.dtype)


def distillation_loss(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: ArrayLike,
    alpha: ArrayLike,
    hard_weight: ArrayLike = 1.0,
) -> jax.Array:
    """Return the loss of plain distillation, the same weight for every example, `[...]`.

        h CE^s + α T² H

    That is `wsl_loss` with w = 1 where h = 1. The usual point is h = 0.1, α = 0.9.

    Args, raises: as `wsl_loss`; `hard_weight` is h, 0 or more.

    Source: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network" (2015), with the
    cross-entropy where others write the divergence.

    >>> student, teacher = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
    >>> loss = distillation_loss(student, teacher, jnp.array(0), temperature=1.0, alpha=2.0)
    >>> print(f"{loss:.4f}")  # 3 log 2
    2.0794
    """
    _check_coefficients(alpha=alpha, hard_weight=hard_weight)
    (student, teacher, truth), dtype = _checked(student_logits, teacher_logits, labels)
    hard = _cross_entropy(_tempered(student, 1), truth)
    soft = _soft_term(student, teacher, temperature)
    return (hard * hard_weight + soft * alpha).astype(dtype)


def bias_variance_logit_gradients(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: ArrayLike,
) -> tuple[jax.Array, jax.Array]:
    """Return the slopes of bias and of variance along the student's logit of the label, `[...]`.

        a = ∂ CE^s/∂s_y          = p_y − 1, never positive
        b = ∂ (T² H − CE^s)/∂s_y = T (p_T,y − q_T,y) − a

    Args, raises: as `wsl_loss`; the labels are integers.

    Derived here, from the reading of arXiv 2102.00650 in which CE^s stands for the bias and what
    distillation adds to it for the variance.

    >>> student, teacher = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
    >>> print(*bias_variance_logit_gradients(student, teacher, jnp.array(0), temperature=1.0))
    -0.5 0.75
    """
    (student, teacher, truth), dtype = _checked(student_logits, teacher_logits, labels)
    if truth.ndim == np.ndim(labels):
        raise TypeError("labels: expected integer class indices, got probabilities")

    def at_label(logits: jax.Array) -> jax.Array:
        return (truth * jax.nn.softmax(logits)).sum(axis=-1)

    bias = at_label(student) - 1
    softened = at_label(_tempered(student, temperature)) - at_label(_tempered(teacher, temperature))
    return bias.astype(dtype), (softened * temperature - bias).astype(dtype)


def regularization_sample_mask(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: ArrayLike,
    rule: Literal["signed", "magnitude"] = "signed",
) -> jax.Array:
    """Return which examples are regularisation samples, booleans `[...]`.

        signed: b > a,  magnitude: |b| > |a|,  a and b of `bias_variance_logit_gradients`

    The paper counts more under a label-smoothed teacher, and so does the signed rule; the other
    goes the other way early in training (a prototype of ours, on digits).

    Args, raises: as `bias_variance_logit_gradients`; a rule of another name.

    Reconstructed: the idea is that of arXiv 2102.00650, its wording was not at hand.

    >>> student, teacher = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.75]))
    >>> print(regularization_sample_mask(student, teacher, jnp.array(0), temperature=1.0))
    True
    """
    if rule not in ("signed", "magnitude"):
        raise ValueError(f'rule: expected "signed" or "magnitude", got {rule!r}')
    bias, variance = bias_variance_logit_gradients(
        student_logits, teacher_logits, labels, temperature=temperature
    )
    return variance > bias if rule == "signed" else jnp.abs(variance) > jnp.abs(bias)


def ensemble_bias_variance(log_probabilities: ArrayLike, labels: ArrayLike) -> BiasVariance:
    """Return bias, variance and error of models trained on different draws, `[...]` each.

        bias = KL(y ‖ p̄),  variance = (1/M) Σ_m KL(p̄ ‖ p_m),  error = −(1/M) Σ_m Σ_i y_i log p_m,i

    around the normalised geometric mean p̄ ∝ exp((1/M) Σ_m log p_m) of the M predictions. Exactly,
    error = bias + variance + entropy of y, and the last is 0 for a hard label.

    Args:
      log_probabilities: `[M, ..., C]` floats, or logits: only differences within a row matter. −∞
        rules a class out; one class or more of each example has to be left by all members.
      labels: `[...]` integers, or probabilities `[..., C]`.

    Raises:
      TypeError, ValueError: as `wsl_weights`; no member; an example of which the members together
        rule out every class.

    Source: Heskes, "Bias/variance decompositions for likelihood-based estimators" (1998), which
    arXiv 2102.00650 builds on; the identity for soft labels is derived here.

    >>> members = jnp.log(jnp.array([[0.8, 0.2], [0.2, 0.8]]))
    >>> parts = ensemble_bias_variance(members, jnp.array(0))
    >>> print([round(float(part), 4) for part in parts])  # log 2, log 1.25, log 2.5
    [0.6931, 0.2231, 0.9163]
    """
    given = jnp.asarray(log_probabilities)
    if given.ndim < 2:
        raise ValueError(f"log_probabilities: expected shape [M, ..., C], got {list(given.shape)}")
    _check_logits("log_probabilities", given)
    members = jax.nn.log_softmax(given.astype(jnp.promote_types(given.dtype, jnp.float32)))
    centre = members.mean(axis=0)  # log p̄ [..., C], up to a constant
    _check_logits("log_probabilities, mean over members", centre)
    truth = _probabilities(labels, centre)

    def for_each(probabilities: jax.Array) -> jax.Array:
        return jnp.broadcast_to(probabilities, members.shape)

    variance = losses.kl_divergence(members, for_each(jax.nn.softmax(centre))).mean(axis=0)
    error = losses.soft_cross_entropy(members, for_each(truth)).mean(axis=0)
    parts = (losses.kl_divergence(centre, truth), variance, error)
    return BiasVariance(*(part.astype(given.dtype) for part in parts))


def _weights(
    student_logits: jax.Array, teacher_logits: jax.Array, truth: jax.Array, eps: ArrayLike
) -> jax.Array:
    _check_coefficients(eps=eps)
    student = _cross_entropy(_tempered(student_logits, 1), truth)
    teacher = _cross_entropy(_tempered(teacher_logits, 1), truth)
    # 0/0 and ∞/∞ count as 0; expm1 keeps the digits of small ratios.
    listened_to = (student > 0) & jnp.isfinite(teacher)
    ratio = jnp.where(listened_to, student / (teacher + eps), 0)
    return lax.stop_gradient(-jnp.expm1(-ratio))


def _cross_entropy(logits: jax.Array, probabilities: jax.Array) -> jax.Array:
    """Return `losses.soft_cross_entropy` by way of log Σ exp, of logits whose largest is 0.

    The same exponentials serve value and gradient, where log-probabilities take new ones: half the
    time on a CPU.
    """
    log_sum = jnp.log(jnp.exp(logits).sum(axis=-1))
    # Both branches have to be finite where a class is ruled out.
    told = probabilities * jnp.where(probabilities > 0, logits, 0)
    return log_sum * probabilities.sum(axis=-1) - told.sum(axis=-1)


def _soft_term(student: jax.Array, teacher: jax.Array, temperature: ArrayLike) -> jax.Array:
    """Return T² H."""
    taught = jax.nn.softmax(_tempered(teacher, temperature))
    soft = _cross_entropy(_tempered(student, temperature), taught)
    return jnp.square(temperature) * soft


def _tempered(logits: jax.Array, temperature: ArrayLike) -> jax.Array:
    """Return the logits over T, the largest taken off first so that a small T cannot overflow.

    The softmax of it is `targets.temperature_softmax`, which refuses classes ruled out by −∞.
    """
    _door.check_scalar(temperature=temperature)
    _door.check_positive(temperature=temperature)
    largest = lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    return (logits - largest) / temperature


def _checked(
    student_logits: ArrayLike, teacher_logits: ArrayLike, labels: ArrayLike
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jnp.dtype]:
    """Return logits, labels as probabilities, in float32 or wider; the dtype of what came."""
    student, teacher = jnp.asarray(student_logits), jnp.asarray(teacher_logits)
    _check_logits("student_logits", student)
    _check_logits("teacher_logits", teacher)
    if teacher.shape != student.shape:
        raise ValueError(
            f"teacher_logits: expected the shape of the student's, {list(student.shape)}, got "
            f"{list(teacher.shape)}"
        )
    dtype = jnp.promote_types(student.dtype, teacher.dtype)
    wide = jnp.promote_types(dtype, jnp.float32)
    student, teacher = student.astype(wide), lax.stop_gradient(teacher.astype(wide))
    return (student, teacher, _probabilities(labels, student)), dtype


def _check_logits(name: str, logits: jax.Array) -> None:
    """Raise unless these are floats `[..., C]`, no row with NaN, +∞ or nothing but −∞."""
    _door.check_float(name, logits)
    _door.check_classes(name, logits)
    if not _door.is_concrete(logits):
        return
    largest = np.asarray(logits).max(axis=-1)  # NaN where there is one
    bad = ~np.isfinite(largest)
    if bad.any():
        row = [int(i) for i in np.unravel_index(np.argmax(bad), bad.shape)]
        raise ValueError(
            f"{name}: expected finite numbers or −∞, and a finite one in every row, got "
            f"{largest[bad][0]} as the largest of row {row}"
        )


def _probabilities(labels: ArrayLike, logits: jax.Array) -> jax.Array:
    """Return the labels of rows of logits as probabilities `[..., C]`, checked."""
    labels = np.asarray(labels) if _door.is_concrete(labels) else jnp.asarray(labels)
    num_classes = logits.shape[-1]
    if jnp.issubdtype(labels.dtype, jnp.integer):
        _door.check_labels("labels", labels, num_classes=num_classes, shape=logits.shape[:-1])
        return jax.nn.one_hot(jnp.asarray(labels), num_classes, dtype=logits.dtype)
    if not jnp.issubdtype(labels.dtype, jnp.floating):
        raise TypeError(
            "labels: expected integer class indices or floating-point probabilities, got dtype "
            f"{labels.dtype}"
        )
    if labels.shape != logits.shape:
        raise ValueError(
            f"labels: expected probabilities of shape {list(logits.shape)}, got "
            f"{list(labels.shape)}"
        )
    _door.check_probabilities("labels", labels)
    return jnp.asarray(labels, logits.dtype)


def _check_coefficients(**coefficients: ArrayLike) -> None:
    _door.check_scalar(**coefficients)
    _door.check_at_least(0, **coefficients)
