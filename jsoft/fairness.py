"""Fairness among classes: anti-bias soft label distillation (ABSLD), and what it is judged by.

Robust students are unfair: under attack some classes keep far less accuracy than others. ABSLD
(arXiv 2312.05508) distils a robust teacher z with one temperature for every class, sharper labels
for classes that the student finds hard and smoother ones for those it finds easy,

    d = softmax(z(x) / τ_y),   y the true class of x, which has to be known,

and moves the temperatures after every epoch by the class-wise risk of the student. There are two
tables of them, for the labels of attacked and of clean images; the teacher sees the clean image
for both. With all temperatures at 1 this is RSLAD, robust soft label adversarial distillation.

    every step    attack with soft_cross_entropy(f(x′), class_temperature_targets(…)), descend on
                  absld_loss(f(x′), f(x), …).mean(), add_risks of the cross-entropies of both
    every epoch   end_epoch

The loss of the released code is divided by C and has 1e-5 inside a logarithm, which changes no
gradient. To copy its step size divide the mean of ours by C: to change the learning rate would
change the weight decay too. What else it does otherwise is told at each function.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jsoft import _door, losses, targets


def class_temperature_targets(
    teacher_logits: ArrayLike, labels: ArrayLike, temperatures: ArrayLike
) -> jax.Array:
    """Return the teacher's soft labels at the temperature of each true class, `[..., C]`.

        d = softmax(z / τ_y)

    The order of the classes is the teacher's, whatever τ: no top-k set changes. The sharpness of a
    label tells of its true class, though, so these labels hold more than the teacher knows. No
    gradient flows through.

    Args:
      teacher_logits: z, `[..., C]` finite floats.
      labels: `[...]` integers, the true classes.
      temperatures: τ, `[C]`, above zero; may be traced.

    Raises:
      TypeError, ValueError: logits, labels or temperatures of wrong dtype, shape or range.

    Source: arXiv 2312.05508 and its released code.

    >>> logits = jnp.log(jnp.array([[9.0, 1.0], [9.0, 1.0]]))
    >>> soft_labels = class_temperature_targets(logits, jnp.array([0, 1]), jnp.array([1.0, 2.0]))
    >>> print([round(float(d), 4) for d in soft_labels[:, 0]])
    [0.9, 0.75]
    """
    teacher_logits = _checked_floats("teacher_logits", teacher_logits)
    temperatures = _checked_table("temperatures", temperatures, teacher_logits.shape[-1:])
    *shape, num_classes = teacher_logits.shape
    _door.check_labels("labels", labels, num_classes=num_classes, shape=tuple(shape))
    chosen = temperatures[jnp.asarray(labels)][..., None]  # [..., 1]
    return lax.stop_gradient(targets.temperature_softmax(teacher_logits, temperature=chosen))


def absld_loss(
    adv_logits: ArrayLike,
    nat_logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike,
    temp_adv: ArrayLike,
    temp_nat: ArrayLike,
    *,
    adv_weight: ArrayLike = 5 / 6,
    coupled: ArrayLike = False,
) -> jax.Array:
    """Return the loss of a student on attacked and clean images, `[...]`.

        w KL(softmax(z/τ_y) ‖ softmax f(x′)) + (1 − w) KL(softmax(z/ν_y) ‖ softmax f(x))

    The student has no temperature, and there is no T². With τ = ν = 1 it is the loss of RSLAD.

    Args:
      adv_logits: f(x′), `[..., C]` floats, of attacked images.
      nat_logits: f(x), of the clean ones.
      teacher_logits: z(x), of the clean ones too; no gradient flows to them.
      labels: `[...]` integers, the true classes y.
      temp_adv: τ, `[C]` temperatures above zero.
      temp_nat: ν, as τ.
      adv_weight: w in [0, 1]; may be traced.
      coupled: whether both labels have the temperature τ_y ν_y, as in the released code, where the
        two share memory and are divided in place one after the other; may be traced.

    Raises:
      TypeError, ValueError: logits, labels or temperatures of wrong dtype, shape or range; a weight
        outside [0, 1].

    Source: arXiv 2312.05508; w and `coupled` of its released code, whose loss is the mean of this
    over examples, divided by C.

    >>> teacher = jnp.log(jnp.array([0.5, 0.25, 0.25]))
    >>> same, uniform, ones = teacher, jnp.zeros(3), jnp.ones(3)
    >>> loss = absld_loss(uniform, same, teacher, jnp.array(0), ones, ones, adv_weight=0.5)
    >>> print(f"{loss:.4f}")  # 0.5 (log 3 − 1.5 log 2)
    0.0294
    """
    teacher_logits = _checked_floats("teacher_logits", teacher_logits)
    for name, logits in (("adv_logits", adv_logits), ("nat_logits", nat_logits)):
        if (shape := _checked_floats(name, logits).shape) != teacher_logits.shape:
            raise ValueError(
                f"{name}: expected the shape of teacher_logits, {list(teacher_logits.shape)}, got "
                f"{list(shape)}"
            )
    temp_adv = _checked_table("temp_adv", temp_adv, teacher_logits.shape[-1:])
    temp_nat = _checked_table("temp_nat", temp_nat, teacher_logits.shape[-1:])
    _door.check_scalar(adv_weight=adv_weight, coupled=coupled)
    _door.check_levels(adv_weight=adv_weight)

    def divergence(logits: ArrayLike, temperatures: jax.Array) -> jax.Array:
        temperatures = jnp.where(coupled, temp_adv * temp_nat, temperatures)
        soft_labels = class_temperature_targets(teacher_logits, labels, temperatures)
        return losses.kl_divergence(logits, soft_labels)

    of_adv, of_nat = divergence(adv_logits, temp_adv), divergence(nat_logits, temp_nat)
    weight = jnp.asarray(adv_weight, of_adv.dtype)
    return weight * of_adv + (1 - weight) * of_nat


def class_risk_sums(
    per_example_loss: ArrayLike, labels: ArrayLike, num_classes: int
) -> tuple[jax.Array, jax.Array]:
    """Return the sum of losses and the number of examples of every class, `[C]` each.

    To be added up over batches. Their quotient is the risk of a class; the released code takes the
    sums themselves, see `end_epoch`.

    Args:
      per_example_loss: `[B]` floats.
      labels: `[B]` integers, the true classes.
      num_classes: C.

    Raises:
      TypeError, ValueError: losses or labels of wrong dtype, shape or range.

    Source: released code of arXiv 2312.05508.

    >>> sums, counts = class_risk_sums(jnp.array([1.0, 2.0, 4.0]), jnp.array([0, 2, 2]), 3)
    >>> print(sums, counts)
    [1. 0. 6.] [1 0 2]
    """
    per_example_loss = jnp.asarray(per_example_loss)
    _door.check_float("per_example_loss", per_example_loss)
    labels = _checked_labels("per_example_loss", per_example_loss, labels, num_classes)
    sums = jax.ops.segment_sum(per_example_loss, labels, num_classes)
    return sums, jax.ops.segment_sum(jnp.ones_like(labels), labels, num_classes)


def update_class_temperatures(
    temperatures: ArrayLike,
    risk: ArrayLike,
    *,
    rate: ArrayLike = 0.1,
    min_temperature: ArrayLike = 0.5,
    max_temperature: ArrayLike = 5.0,
) -> jax.Array:
    """Return the temperatures after an epoch, lower for hard classes, higher for easy ones, `[C]`.

        τ ← clip(τ − rate · g / max_k |g_k|, τ_min, τ_max),   g = risk − mean over classes

    Only ratios of gaps count: a constant may be added to the risks, a positive one multiplied. A
    class whose risk is not finite (NaN: no example in the epoch, or diverged) takes no part in
    mean and maximum and keeps its temperature. If all risks are equal all classes do; there the
    released code divides 0 by 0, and its table is NaN from then on.

    Args:
      temperatures: τ, `[C]`, above zero.
      risk: `[C]` floats; NaN for classes that are to be left alone.
      rate: how far the class with the largest gap moves, 0 or more; may be traced, and falls with
        the learning rate in the released code.
      min_temperature: τ_min, above zero; may be traced.
      max_temperature: τ_max, at least τ_min; may be traced.

    Raises:
      TypeError, ValueError: tables of wrong dtype or shape, rate or bounds out of range.

    Source: arXiv 2312.05508, with defaults of its released code; what happens to classes without
    a finite risk is ours.

    >>> risk = jnp.array([3.0, 1.0, 2.0, jnp.nan])  # mean 2
    >>> print(update_class_temperatures(jnp.ones(4), risk))
    [0.9 1.1 1.  1. ]
    """
    risk = _checked_floats("risk", risk)
    temperatures = _checked_table("temperatures", temperatures, risk.shape)
    _door.check_scalar(rate=rate, min_temperature=min_temperature, max_temperature=max_temperature)
    _door.check_at_least(0, rate=rate)
    _door.check_positive(min_temperature=min_temperature, max_temperature=max_temperature)
    if _door.is_concrete(min_temperature):
        _door.check_at_least(float(np.asarray(min_temperature)), max_temperature=max_temperature)
    known = jnp.isfinite(risk)
    # On a scale from the least risk, 0, to the greatest, 1, equal ones are exactly equal. A mean
    # that is off by its last digit would otherwise make gaps, and the largest counts whatever size.
    above = jnp.where(known, risk - jnp.where(known, risk, jnp.inf).min(), 0)
    relative = above / jnp.where(above.max() > 0, above.max(), 1)
    gap = jnp.where(known, relative - relative.sum() / jnp.maximum(known.sum(), 1), 0)
    largest = jnp.abs(gap).max()
    step = rate * gap / jnp.where(largest > 0, largest, 1)
    moved = jnp.clip(temperatures - step, min_temperature, max_temperature)
    return jnp.where(known & (largest > 0), moved, temperatures).astype(temperatures.dtype)


class AbsldState(NamedTuple):
    """What ABSLD carries through an epoch and to the next, `[C]` each; belongs into checkpoints.

    Attributes:
      temp_adv: temperatures of labels for attacked images.
      temp_nat: temperatures of labels for clean images.
      risk_adv: sums of the losses on attacked images in this epoch so far.
      risk_nat: sums of the losses on clean images.
      counts: number of examples.
    """

    temp_adv: jax.Array
    temp_nat: jax.Array
    risk_adv: jax.Array
    risk_nat: jax.Array
    counts: jax.Array


def init_absld(num_classes: int) -> AbsldState:
    """Return the state of the start: all temperatures 1, nothing counted.

    Raises TypeError or ValueError unless `num_classes` is a whole number, two or more. Source:
    released code of arXiv 2312.05508.

    >>> init_absld(3).temp_adv
    Array([1., 1., 1.], dtype=float32)
    """
    _door.check_whole(2, num_classes=num_classes)
    ones, zeros = jnp.ones(num_classes), jnp.zeros(num_classes)
    return AbsldState(ones, ones, zeros, zeros, jnp.zeros(num_classes, jnp.int32))


def add_risks(
    state: AbsldState, adv_loss: ArrayLike, nat_loss: ArrayLike, labels: ArrayLike
) -> AbsldState:
    """Return the state with the losses of a batch counted in.

    They are cross-entropies of the student with the true class, from the very logits that the step
    is taken on: of the attacked batch and of the clean one, before the update.

    Args:
      state: of the epoch so far.
      adv_loss: `[B]` floats, of attacked images.
      nat_loss: `[B]` floats, of clean images.
      labels: `[B]` integers, the true classes.

    Raises, source: as `class_risk_sums`.

    >>> state = add_risks(init_absld(2), jnp.array([2.0, 3.0]), jnp.ones(2), jnp.array([1, 1]))
    >>> print(state.risk_adv, state.risk_nat, state.counts)
    [0. 5.] [0. 2.] [0 2]
    """
    of_adv, counts = class_risk_sums(adv_loss, labels, len(state.counts))
    of_nat, _ = class_risk_sums(nat_loss, labels, len(state.counts))
    sums = zip(state[2:], (of_adv, of_nat, counts), strict=True)
    return AbsldState(*state[:2], *(so_far + batch for so_far, batch in sums))


def end_epoch(
    state: AbsldState,
    *,
    rate: ArrayLike = 0.1,
    min_temperature: ArrayLike = 0.5,
    max_temperature: ArrayLike = 5.0,
    summed: ArrayLike = False,
) -> tuple[AbsldState, tuple[jax.Array, jax.Array]]:
    """Return the state of the next epoch, and the risks on attacked and on clean images, `[C]`.

    Both tables of temperatures move by `update_class_temperatures`, each by its own risks, and
    counting begins anew. A class without examples has risk NaN and keeps its temperatures.

    Args:
      state: with all batches of the epoch counted in.
      rate: as for `update_class_temperatures`, like the bounds.
      min_temperature: τ_min.
      max_temperature: τ_max.
      summed: whether the risk is the sum over examples, as in the released code, in the place of
        the mean. The temperatures are the same where classes are balanced; where not, frequent
        classes look hard. May be traced.

    Raises, source: as `update_class_temperatures`.

    >>> state = add_risks(init_absld(2), jnp.array([3.0, 1.0]), jnp.ones(2), jnp.array([0, 1]))
    >>> state, (risk, _) = end_epoch(state)
    >>> print(risk, state.temp_adv, state.counts)
    [3. 1.] [0.9 1.1] [0 0]
    """
    _door.check_scalar(summed=summed)
    present = state.counts > 0
    examples = jnp.where(present & ~jnp.asarray(summed, bool), state.counts, 1)
    risk_adv, risk_nat = (
        jnp.where(present, sums / examples, jnp.nan) for sums in (state.risk_adv, state.risk_nat)
    )
    move = functools.partial(
        update_class_temperatures,
        rate=rate,
        min_temperature=min_temperature,
        max_temperature=max_temperature,
    )
    temp_adv, temp_nat = move(state.temp_adv, risk_adv), move(state.temp_nat, risk_nat)
    begun = jax.tree.map(jnp.zeros_like, state)._replace(temp_adv=temp_adv, temp_nat=temp_nat)
    return begun, (risk_adv, risk_nat)


def class_wise_accuracy(
    correct: ArrayLike, labels: ArrayLike, num_classes: int, *, where: ArrayLike | None = None
) -> jax.Array:
    """Return the share of each class that is answered right, `[C]`; NaN for a class not there.

    Args:
      correct: `[N]` booleans.
      labels: `[N]` integers, the true classes.
      num_classes: C.
      where: `[N]` booleans, the examples that count (all by default).

    Raises:
      TypeError, ValueError: answers that are not `[N]` booleans, labels of wrong dtype, shape or
        range, no example left.

    The recall of each class.

    >>> print(class_wise_accuracy(jnp.array([True, False, True]), jnp.array([0, 0, 2]), 3))
    [0.5 nan 1. ]
    """
    correct = jnp.asarray(correct)
    where = jnp.ones(correct.shape, bool) if where is None else jnp.asarray(where)
    if correct.dtype != jnp.bool_:
        raise TypeError(f"correct: expected booleans, got dtype {correct.dtype}")
    labels = _checked_labels("correct", correct, labels, num_classes)
    _door.check_where("where", where, correct.shape)
    hits, _ = class_risk_sums((correct & where).astype(jnp.float32), labels, num_classes)
    counts, _ = class_risk_sums(where.astype(jnp.float32), labels, num_classes)
    return jnp.where(counts > 0, hits / jnp.maximum(counts, 1), jnp.nan)


def normalized_standard_deviation(
    values: ArrayLike, *, where: ArrayLike | None = None, ddof: int = 0
) -> jax.Array:
    """Return NSD, the standard deviation over classes over their mean, `[...]`.

        NSD = std_k(A_k) / mean_k(A_k)

    Lower is fairer, and 0 if all classes are alike, however bad: report mean and worst class too.
    NaN if the mean is 0, if a class that counts is NaN, or if none counts.

    Args:
      values: A, `[..., C]` floats, accuracies of the classes.
      where: of the same shape, booleans, the classes that count (all by default).
      ddof: 0 for the population's standard deviation, 1 for that of a sample.

    Raises:
      TypeError, ValueError: values that are not floats over two classes or more, a mask of wrong
        dtype or shape or without a class, a `ddof` that is no whole number below C.

    Source: arXiv 2312.05508; that the standard deviation is the population's is reconstructed.

    >>> print(normalized_standard_deviation(jnp.array([0.25, 0.75])))  # 0.25 / 0.5
    0.5
    """
    values, where = _checked_values(values, where)
    _door.check_whole(0, ddof=ddof)
    if ddof >= values.shape[-1]:
        raise ValueError(f"ddof: expected 0 … {values.shape[-1] - 1}, got {ddof}")
    mean = jnp.mean(values, axis=-1, where=where)
    spread = jnp.std(values, axis=-1, where=where, ddof=ddof)
    return jnp.where(mean == 0, jnp.nan, spread / jnp.where(mean == 0, 1, mean))


def worst_class_accuracy(values: ArrayLike, *, where: ArrayLike | None = None) -> jax.Array:
    """Return the least accuracy among classes, `[...]`; NaN where NSD is for such a class.

    Args, raises: as `normalized_standard_deviation`. The usual companion of NSD.

    >>> print(worst_class_accuracy(jnp.array([0.25, 0.75])))
    0.25
    """
    values, where = _checked_values(values, where)
    worst = jnp.where(where, values, jnp.inf).min(axis=-1)
    return jnp.where(where.any(axis=-1), worst, jnp.nan)


def _checked_floats(name: str, values: ArrayLike) -> jax.Array:
    """Return floats over two classes or more as an array."""
    values = jnp.asarray(values)
    _door.check_float(name, values)
    _door.check_classes(name, values)
    return values


def _checked_table(name: str, temperatures: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Return temperatures, one for each class, as an array."""
    temperatures = _checked_floats(name, temperatures)
    if temperatures.ndim != 1 or temperatures.shape != shape:
        raise ValueError(
            f"{name}: expected one temperature a class, shape [C], {list(shape)} elsewhere, got "
            f"{list(temperatures.shape)}"
        )
    _door.check_positive(**{name: temperatures})
    return temperatures


def _checked_labels(name: str, values: jax.Array, labels: ArrayLike, num_classes: int) -> jax.Array:
    """Return the labels of the values `[N]` of this name as an array."""
    _door.check_whole(2, num_classes=num_classes)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{name}: expected shape [N] with N ≥ 1, got {list(values.shape)}")
    _door.check_labels("labels", labels, num_classes=num_classes, shape=values.shape)
    return jnp.asarray(labels)


def _checked_values(values: ArrayLike, where: ArrayLike | None) -> tuple[jax.Array, jax.Array]:
    """Return class-wise values and their mask as arrays."""
    values = _checked_floats("values", values)
    where = jnp.ones(values.shape, bool) if where is None else jnp.asarray(where)
    _door.check_where("where", where, values.shape)
    return values, where
