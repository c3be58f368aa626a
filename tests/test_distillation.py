import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from numpy.testing import assert_allclose, assert_array_equal

from jsoft import distillation, losses

RNG = np.random.default_rng(0)
STUDENT = RNG.normal(size=(3, 4, 5)).astype(np.float32) * 2
TEACHER = RNG.normal(size=(3, 4, 5)).astype(np.float32) * 4
LABELS = RNG.integers(5, size=(3, 4))
SOFT = RNG.dirichlet(np.ones(5), size=(3, 4)).astype(np.float32)
SOFT[0, 0] = [0.5, 0.5, 0.0, 0.0, 0.0]


# Golden vectors: numbers of the authors' code (losses) and of the formulas in float64 (indicator)


def golden(name):
    """Arrays of a golden file by case; those without a case belong to every case."""
    arrays = np.load(Path(__file__).parent / "golden" / f"wsl_{name}.npz")
    shared = {key: arrays[key] for key in arrays if "__" not in key}
    cases = {}
    for key in arrays:
        if "__" in key:
            case, quantity = key.split("__")
            cases.setdefault(case, dict(shared))[quantity] = arrays[key]
    return cases


LOSS_CASES = {
    case: numbers
    for name in ("loss_k10", "loss_k1000", "loss_edge")
    for case, numbers in golden(name).items()
}


@jax.jit
def official_loss(student, teacher, labels, temperature, alpha):
    """The batch's loss as the authors reduce it, the hard term, the weights."""
    options = {"temperature": temperature}
    loss = distillation.wsl_loss(student, teacher, labels, alpha=alpha, **options)
    terms = distillation.wsl_loss_terms(student, teacher, labels, **options)
    return loss.mean(), (terms.hard.mean(), terms.weights)


@pytest.mark.parametrize("numbers", LOSS_CASES.values(), ids=LOSS_CASES)
def test_loss_weights_and_gradient_are_those_of_the_released_code(numbers):
    inputs = [numbers[name] for name in ("student_logits", "teacher_logits", "labels")]
    (loss, (hard, weights)), gradient = jax.value_and_grad(official_loss, has_aux=True)(
        *inputs, numbers["temperature"].item(), numbers["alpha"].item()
    )
    for found, expected in ((loss, numbers["loss"]), (hard, numbers["hard_loss"])):
        assert_allclose(found, expected, rtol=1e-6, atol=1e-6 if expected == 0 else 0)
    expected = numbers["grad_student"]
    scale = max(1e-6 * np.abs(expected).max(), 1e-9)
    assert_allclose(gradient, expected, rtol=1e-5, atol=scale)
    assert_allclose(weights, numbers["weight_f64"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["T1", "T2", "T4", "T8"])
def test_slopes_and_masks_are_those_of_the_formulas(case):
    numbers = golden("indicator")[case]
    inputs = [numbers[name] for name in ("student_logits", "teacher_logits", "labels")]
    temperature = float(case[1:])
    bias, variance = slopes(*inputs, temperature=temperature)
    assert_allclose(bias, numbers["bias_grad_f64"], atol=1e-6)
    assert_allclose(variance, numbers["variance_grad_f64"], atol=1e-6)
    for rule, name, gap in (
        ("signed", "mask_signed", bias - variance),
        ("magnitude", "mask_magnitude", np.abs(bias) - np.abs(variance)),
    ):
        mask = distillation.regularization_sample_mask(*inputs, temperature=temperature, rule=rule)
        assert mask.dtype == bool
        clear = np.abs(gap) > 1e-6
        assert clear.sum() > 50
        assert_array_equal(mask[clear], numbers[name][clear])


# References: loops over examples, in float64


def softmax(z, temperature=1.0):
    with np.errstate(invalid="ignore"):
        e = np.exp((np.asarray(z, np.float64) - np.max(z)) / temperature)
    return e / e.sum()


def cross_entropy(d, p):
    return -sum(x * math.log(q) for x, q in zip(d, p, strict=True) if x > 0)


def probabilities(y, num_classes):
    return np.eye(num_classes)[y] if np.ndim(y) == 0 else np.asarray(y, np.float64)


def reference_terms(s, t, y, *, temperature=4.0, eps=1e-7, label_smoothing=0.0):
    y = probabilities(y, len(s))
    ratio = cross_entropy(y, softmax(s)) / (cross_entropy(y, softmax(t)) + eps)
    weight = 1 - math.exp(-max(ratio, 0))
    soft = cross_entropy(softmax(t, temperature), softmax(s, temperature))
    smoothed = (1 - label_smoothing) * y + label_smoothing / len(s)
    return cross_entropy(smoothed, softmax(s)), temperature**2 * weight * soft, weight


def reference_wsl(s, t, y, *, alpha=2.25, **options):
    hard, soft, _ = reference_terms(s, t, y, **options)
    return hard + alpha * soft


def reference_kd(s, t, y, *, temperature, alpha, hard_weight=1.0):
    y = probabilities(y, len(s))
    soft = cross_entropy(softmax(t, temperature), softmax(s, temperature))
    return hard_weight * cross_entropy(y, softmax(s)) + alpha * temperature**2 * soft


def loop(reference, student, teacher, labels, **options):
    rows = np.ndindex(student.shape[:-1])
    found = [reference(student[row], teacher[row], labels[row], **options) for row in rows]
    return np.reshape(found, (*student.shape[:-1], -1)).squeeze(-1)


WSL = functools.partial(distillation.wsl_loss, temperature=3.0, alpha=1.5, label_smoothing=0.1)
KD = functools.partial(distillation.distillation_loss, temperature=3.0, alpha=1.5, hard_weight=0.5)
LOSSES = {"wsl": (WSL, reference_wsl), "kd": (KD, reference_kd)}
each_loss = pytest.mark.parametrize(("loss", "reference"), LOSSES.values(), ids=LOSSES)
each_truth = pytest.mark.parametrize("labels", [LABELS, SOFT], ids=["hard", "soft"])


# One program each: called eagerly, every primitive is one.
weigh = jax.jit(distillation.wsl_weights)
weighted_loss = jax.jit(distillation.wsl_loss)
terms_of = jax.jit(distillation.wsl_loss_terms)
plain_loss = jax.jit(distillation.distillation_loss)
slopes = jax.jit(distillation.bias_variance_logit_gradients)
parts_of = jax.jit(distillation.ensemble_bias_variance)


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradient(loss, student, teacher, labels):
    def total(student):
        values = loss(student, teacher, labels)
        return values.sum(), values

    (_, values), gradient = jax.value_and_grad(total, has_aux=True)(student)
    return values, gradient


@each_loss
@each_truth
def test_matches_the_reference(loss, reference, labels):
    found, _ = value_and_gradient(loss, STUDENT, TEACHER, labels)
    assert found.dtype == jnp.float32
    expected = loop(reference, STUDENT, TEACHER, labels, **loss.keywords)
    assert_allclose(found, expected, rtol=1e-5)


@each_truth
def test_terms_match_the_reference_and_add_up_to_the_loss(labels):
    options = {"temperature": 2.0, "eps": 0.01, "label_smoothing": 0.2}
    terms = terms_of(STUDENT, TEACHER, labels, **options)
    for i, found in enumerate(terms):
        reference = lambda *row, i=i, **kw: reference_terms(*row, **kw)[i]  # noqa: E731
        expected = loop(reference, STUDENT, TEACHER, labels, **options)
        assert_allclose(found, expected, rtol=2e-5)
    total = weighted_loss(STUDENT, TEACHER, labels, alpha=3.0, **options)
    assert_allclose(total, terms.hard + 3 * terms.soft, rtol=1e-6)


@each_loss
def test_eager_jit_vmap_and_traced_numbers_agree(loss, reference):
    eager = loss(STUDENT, TEACHER, LABELS)

    def traced(temperature, alpha):
        return loss(STUDENT, TEACHER, LABELS, temperature=temperature, alpha=alpha)

    for transformed in (
        value_and_gradient(loss, STUDENT, TEACHER, LABELS)[0],
        jax.jit(jax.vmap(jax.vmap(loss)))(STUDENT, TEACHER, LABELS),
        jax.jit(traced)(3.0, 1.5),
        jax.jit(jax.vmap(traced))(jnp.array([1.0, 3.0]), jnp.array([0.5, 1.5]))[1],
    ):
        assert_allclose(transformed, eager, rtol=1e-5)
    single, _ = value_and_gradient(loss, STUDENT[1, 2], TEACHER[1, 2], LABELS[1, 2])
    assert single.shape == ()
    assert_allclose(single, eager[1, 2], rtol=1e-6)


@each_truth
def test_gradient_is_the_closed_form_and_the_weight_passes_none(labels):
    """(p − y) + α T w (p_T − q_T): a weight that passed gradient would add a term."""
    temperature, alpha = 3.0, 1.5
    weighted = functools.partial(distillation.wsl_loss, temperature=temperature, alpha=alpha)
    for loss, weights in (
        (weighted, weigh(STUDENT, TEACHER, labels)),
        (functools.partial(KD, hard_weight=1.0), np.ones((3, 4))),
    ):
        _, gradient = value_and_gradient(loss, STUDENT, TEACHER, labels)
        for row in np.ndindex(3, 4):
            truth = probabilities(labels[row], 5)
            softened = softmax(STUDENT[row], temperature) - softmax(TEACHER[row], temperature)
            expected = softmax(STUDENT[row]) - truth + alpha * temperature * weights[row] * softened
            assert_allclose(gradient[row], expected, rtol=1e-4, atol=1e-6)


def test_gradients_match_finite_differences():
    """With the weights held, as the derivative of the whole would move them."""
    with jax.enable_x64(True):
        student = jnp.asarray(STUDENT[0], jnp.float64)
        teacher = jnp.asarray(TEACHER[0], jnp.float64)
        weights = weigh(student, teacher, LABELS[0])

        def held(z):
            kd = functools.partial(
                distillation.distillation_loss, z, teacher, LABELS[0], temperature=4.0
            )
            return kd(alpha=0.0) + 2.25 * weights * kd(alpha=1.0, hard_weight=0.0)

        held = jax.jit(held)
        check_grads(held, (student,), order=1, modes=("fwd", "rev"))
        _, found = value_and_gradient(distillation.wsl_loss, student, teacher, LABELS[0])
        assert_allclose(found, jax.grad(lambda z: held(z).sum())(student), rtol=1e-10, atol=1e-12)


@each_loss
def test_no_gradient_reaches_the_teacher(loss, reference):
    total = jax.jit(lambda t: loss(STUDENT, t, LABELS).sum())
    found = jax.grad(total)(jnp.asarray(TEACHER))
    assert_array_equal(found, np.zeros_like(TEACHER))


def test_weights_pass_no_gradient_at_all():
    total = jax.jit(lambda s, t: distillation.wsl_weights(s, t, LABELS).sum())
    for found in jax.grad(total, argnums=(0, 1))(jnp.asarray(STUDENT), jnp.asarray(TEACHER)):
        assert_array_equal(found, np.zeros_like(STUDENT))


# Identities


def test_one_hot_probabilities_are_integer_labels():
    one_hot = np.eye(5, dtype=np.float32)[LABELS]
    hard, soft = (value_and_gradient(WSL, STUDENT, TEACHER, labels) for labels in (LABELS, one_hot))
    assert_array_equal(hard[0], soft[0])
    assert_array_equal(hard[1], soft[1])


def test_without_alpha_it_is_the_cross_entropy():
    one_hot = np.eye(5, dtype=np.float32)[LABELS]
    found = weighted_loss(STUDENT, TEACHER, LABELS, alpha=0.0)
    assert_allclose(found, losses.soft_cross_entropy(STUDENT, one_hot), rtol=1e-6)


def test_with_weights_of_one_it_is_plain_distillation():
    """A teacher that is sure of the label gets weight 1 from a student that is not."""
    teacher = 40 * np.eye(5, dtype=np.float32)[LABELS]
    assert_array_equal(weigh(STUDENT, teacher, LABELS), np.ones((3, 4)))
    weighted = weighted_loss(STUDENT, teacher, LABELS)
    plain = plain_loss(STUDENT, teacher, LABELS, temperature=4.0, alpha=2.25)
    assert_allclose(weighted, plain, rtol=1e-6)


def test_divergence_in_place_of_cross_entropy_has_the_same_gradient():
    """The entropy of the softened teacher is all that lies between the two values."""
    taught = jax.nn.softmax(TEACHER / 3.0)

    def by_divergence(student, teacher, labels):
        return 9.0 * losses.kl_divergence(student / 3.0, taught)

    soft = functools.partial(KD, alpha=1.0, hard_weight=0.0)
    values, gradient = value_and_gradient(soft, STUDENT, TEACHER, LABELS)
    other_values, other_gradient = value_and_gradient(by_divergence, STUDENT, TEACHER, LABELS)
    entropy = losses.soft_cross_entropy(TEACHER / 3.0, taught)
    assert_allclose(values - 9 * entropy, other_values, rtol=1e-4, atol=1e-4)
    assert_allclose(gradient, other_gradient, rtol=1e-4, atol=1e-5)


@each_loss
def test_a_constant_on_all_logits_of_an_example_changes_nothing(loss, reference):
    shift = np.float32(RNG.integers(-8, 8, size=(3, 4, 1)))
    values, gradient = value_and_gradient(loss, STUDENT, TEACHER, LABELS)
    moved, moved_gradient = value_and_gradient(loss, STUDENT + shift, TEACHER - shift, LABELS)
    assert_allclose(moved, values, rtol=1e-5)
    assert_allclose(moved_gradient, gradient, rtol=1e-4, atol=1e-5)


def test_weight_grows_with_the_students_loss_and_shrinks_with_the_teachers():
    worse = np.linspace(0, 6, 13, dtype=np.float32)  # what is taken off the logit of the label
    logits = np.stack([-worse, np.zeros_like(worse), np.zeros_like(worse)], axis=1)
    middle = np.broadcast_to(logits[6], logits.shape)
    labels = np.zeros(13, int)
    of_student = np.asarray(weigh(logits, middle, labels))
    of_teacher = np.asarray(weigh(middle, logits, labels))
    assert (np.diff(of_student) > 0).all()
    assert (np.diff(of_teacher) < 0).all()
    assert_allclose(of_student[6], 1 - math.exp(-1), rtol=1e-5)


# Edges


def test_small_ratios_keep_their_digits():
    student, teacher = jnp.array([12.0, 0.0]), jnp.array([-60.0, 0.0])
    found = weigh(student, teacher, jnp.array(0))
    # log(1 + e⁻¹²) loses its own digits in float32, but 1 − exp would lose all of them.
    assert_allclose(found, math.log1p(math.exp(-12)) / 60, rtol=0.02)


def test_paper_formula_without_eps_is_defined_where_both_losses_vanish():
    sure, unsure = jnp.array([60.0, 0.0]), jnp.array([0.0, 0.0])
    for student, teacher, weight in ((sure, sure, 0), (unsure, sure, 1)):
        assert weigh(student, teacher, np.array(0), eps=0.0) == weight
    found = weigh(unsure, unsure, np.array(0), eps=0.0)
    assert_allclose(found, 1 - math.exp(-1), rtol=1e-6)
    loss = functools.partial(distillation.wsl_loss, eps=0.0)
    value, gradient = value_and_gradient(loss, sure, sure, np.array(0))
    assert_allclose(value, 0, atol=1e-4)  # the softened teacher is not sure
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("size", [1e3, 1e4])
@each_loss
def test_extreme_logits_stay_finite_and_right(loss, reference, size):
    student = np.float32([[size, -size, 0], [-size, size, 0], [-size, -size, size]])
    teacher = np.float32([[size, -size, 0], [size, -size, 0], [0, 0, 0]])
    labels = np.array([0, 0, 2])

    def exact(s, t, y):  # the loops above would take logarithms of 0
        with jax.enable_x64(True):
            s, t = jnp.asarray(s, jnp.float64), jnp.asarray(t, jnp.float64)
            return value_and_gradient(loss, s, t, y)[0]

    values, gradient = value_and_gradient(loss, student, teacher, labels)
    assert_allclose(values, loop(exact, student, teacher, labels), rtol=1e-5, atol=1e-5)
    assert np.isfinite(gradient).all()


def test_a_class_ruled_out_by_the_teacher_costs_nothing():
    """Masked classes: −∞ of the teacher alone, or of both, is as if the class were not taught."""
    loss = functools.partial(distillation.wsl_loss, temperature=2.0)
    teacher = np.float32([2.0, 0.5, -np.inf])
    both = np.float32([1.0, -2.0, -np.inf])
    values, gradient = value_and_gradient(loss, both, teacher, np.array(1))
    expected, rest = value_and_gradient(loss, both[:2], teacher[:2], np.array(1))
    assert_allclose(values, expected, rtol=1e-6)
    assert_allclose(gradient[:2], rest, rtol=1e-5, atol=1e-7)
    assert gradient[2] == 0
    only = value_and_gradient(loss, np.float32([1.0, -2.0, 3.0]), teacher, np.array(1))
    assert np.isfinite(only[0])
    assert np.isfinite(only[1]).all()


def test_a_teacher_that_rules_the_label_out_is_not_listened_to():
    teacher = np.float32([-np.inf, 0.0])
    assert weigh(np.float32([1.0, 0.0]), teacher, np.array(0)) == 0
    assert weigh(np.float32([-np.inf, 0.0]), teacher, np.array(0)) == 0


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@each_loss
def test_half_precision_computes_in_float32(loss, reference, dtype):
    student, teacher = jnp.asarray(STUDENT, dtype), jnp.asarray(TEACHER, dtype)
    values, gradient = value_and_gradient(loss, student, teacher, LABELS)
    assert values.dtype == gradient.dtype == dtype
    wide = [np.asarray(logits, np.float32) for logits in (student, teacher)]
    expected, expected_gradient = value_and_gradient(loss, *wide, LABELS)
    eps = float(jnp.finfo(dtype).eps)
    assert_allclose(np.asarray(values, np.float32), expected, rtol=2 * eps)
    assert_allclose(np.asarray(gradient, np.float32), expected_gradient, rtol=8 * eps, atol=8 * eps)
    assert weigh(student, TEACHER, LABELS).dtype == jnp.float32


def test_two_classes_and_one_example():
    found = weighted_loss(STUDENT[0, :1, :2], TEACHER[0, :1, :2], np.array([1]))
    expected = loop(reference_wsl, STUDENT[0, :1, :2], TEACHER[0, :1, :2], np.array([1]))
    assert_allclose(found, expected, rtol=1e-5)


# Bias and variance


def test_slopes_are_the_derivatives_they_are_said_to_be():
    temperature = 3.0
    with jax.enable_x64(True):
        student, teacher = jnp.asarray(STUDENT, jnp.float64), jnp.asarray(TEACHER, jnp.float64)

        def along_label(alpha, hard_weight):
            loss = functools.partial(KD, alpha=alpha, hard_weight=hard_weight)
            _, gradient = value_and_gradient(loss, student, teacher, LABELS)
            return np.take_along_axis(np.asarray(gradient), LABELS[..., None], -1)[..., 0]

        bias, variance = slopes(student, teacher, LABELS, temperature=temperature)
        hard = along_label(0.0, 1.0)
        assert_allclose(bias, hard, rtol=1e-9)
        assert_allclose(variance, along_label(1.0, 0.0) - hard, rtol=1e-9, atol=1e-12)
        assert (bias <= 0).all()


def reference_parts(log_probabilities, y):
    members = [softmax(row) for row in log_probabilities]
    mean = sum(np.log(p) for p in members) / len(members)
    centre = softmax(mean)
    y = probabilities(y, len(centre))
    bias = cross_entropy(y, centre) - cross_entropy(y, y)
    variance = sum(cross_entropy(centre, p) - cross_entropy(centre, centre) for p in members)
    error = sum(cross_entropy(y, p) for p in members)
    return bias, variance / len(members), error / len(members)


@each_truth
def test_bias_and_variance_match_the_reference_and_add_up_to_the_error(labels):
    members = RNG.normal(size=(6, 3, 4, 5)).astype(np.float32) * 2
    parts = parts_of(members, labels)
    for row in np.ndindex(3, 4):
        expected = reference_parts(members[(slice(None), *row)], labels[row])
        assert_allclose([part[row] for part in parts], expected, rtol=1e-4, atol=1e-6)
    truth = np.eye(5)[labels] if labels.ndim == 2 else labels.astype(np.float64)
    entropy = -np.where(truth > 0, truth * np.log(np.where(truth > 0, truth, 1)), 0).sum(-1)
    assert_allclose(parts.bias + parts.variance + entropy, parts.error, rtol=1e-5)


def test_the_arithmetic_mean_would_not_do():
    members = np.log(np.float32([[0.8, 0.2], [0.4, 0.6]]))
    parts = parts_of(members, np.array(0))
    assert_allclose(parts.bias + parts.variance, parts.error, rtol=1e-6)
    mean = np.exp(members).mean(axis=0)
    arithmetic = -np.log(mean[0]) + losses.kl_divergence(members, np.stack([mean, mean])).mean()
    assert abs(arithmetic - parts.error) > 0.01


def test_one_member_has_no_variance_and_equal_members_neither():
    members = np.broadcast_to(STUDENT[:1], (4, *STUDENT[0].shape))
    for ensemble in (members, members[:1]):
        parts = parts_of(ensemble, LABELS[0])
        assert_allclose(parts.variance, 0, atol=1e-6)
        assert_allclose(parts.bias, parts.error, rtol=1e-5)


def test_a_class_that_one_member_rules_out_is_out_of_the_centre():
    members = np.float32([[0.0, 0.0, -np.inf], [1.0, 0.0, 2.0]])
    parts = parts_of(members, np.array(0))
    assert np.isfinite(parts).all()
    assert_allclose(parts.bias + parts.variance, parts.error, rtol=1e-5)
    assert parts_of(members, np.array(2)).bias == np.inf


def test_ensembles_map_and_keep_the_dtype():
    members = RNG.normal(size=(6, 3, 4, 5)).astype(np.float32)
    whole = parts_of(members, LABELS)
    mapped = jax.vmap(parts_of, in_axes=(1, 0))(members, LABELS)
    for one, other in zip(whole, mapped, strict=True):
        assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    half = parts_of(jnp.asarray(members, jnp.bfloat16), LABELS)
    assert {part.dtype for part in half} == {jnp.dtype(jnp.bfloat16)}


# The door

GOOD = {"student_logits": np.zeros((2, 3)), "teacher_logits": np.zeros((2, 3)), "labels": [0, 1]}
BAD_ROWS = {
    "integer student": ({"student_logits": np.zeros((2, 3), int)}, TypeError, "student_logits: .*"),
    "integer teacher": ({"teacher_logits": np.zeros((2, 3), int)}, TypeError, "teacher_logits: .*"),
    "other classes": ({"teacher_logits": np.zeros((2, 4))}, ValueError, r"\[2, 3\], got \[2, 4\]"),
    "broadcast": ({"teacher_logits": np.zeros((1, 3))}, ValueError, r"teacher_logits: .*\[1, 3\]"),
    "one class": ({"student_logits": np.zeros((2, 1))}, ValueError, "two classes or more"),
    "no class axis": ({"student_logits": np.float64(0)}, ValueError, "student_logits: expected"),
    "nan": ({"teacher_logits": np.full((2, 3), np.nan)}, ValueError, r"teacher_logits: .*nan"),
    "+inf": ({"student_logits": np.full((2, 3), np.inf)}, ValueError, "student_logits: .* inf"),
    "nothing left": ({"student_logits": np.full((2, 3), -np.inf)}, ValueError, "a finite one"),
    "label too large": ({"labels": [0, 3]}, ValueError, "labels: expected classes in 0 … 2, got 3"),
    "label below 0": ({"labels": [0, -1]}, ValueError, "labels: .* got -1"),
    "too few labels": ({"labels": [0]}, ValueError, r"labels: expected shape \[2\], got \[1\]"),
    "boolean labels": ({"labels": [True, False]}, TypeError, "labels: .* got dtype bool"),
    "other soft labels": ({"labels": [0.5, 0.5]}, ValueError, r"labels: .*\[2, 3\], got \[2\]"),
    "unnormalised": ({"labels": np.full((2, 3), 0.5)}, ValueError, "labels: .*sum to one"),
    "negative": ({"labels": [[1.5, -0.5, 0.0]] * 2}, ValueError, "labels: .*0 or more"),
}
TAKES_PAIRS = {
    "weights": distillation.wsl_weights,
    "terms": distillation.wsl_loss_terms,
    "wsl": distillation.wsl_loss,
    "kd": functools.partial(distillation.distillation_loss, temperature=4.0, alpha=2.25),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
@pytest.mark.parametrize("function", TAKES_PAIRS.values(), ids=TAKES_PAIRS)
def test_bad_rows_are_refused(function, change, error, message):
    with pytest.raises(error, match=message):
        function(**{**GOOD, **change})


BAD_NUMBERS = [
    ("wsl", {"temperature": 0.0}, "temperature: expected a number above zero, got 0.0"),
    ("wsl", {"temperature": -1.0}, "temperature: expected a number above zero"),
    ("wsl", {"temperature": math.inf}, "temperature: expected a number above zero"),
    ("wsl", {"temperature": np.ones(2)}, r"temperature: expected one number, got shape \[2\]"),
    ("wsl", {"alpha": -0.5}, "alpha: expected 0 or more, got -0.5"),
    ("wsl", {"alpha": np.ones(3)}, "alpha: expected one number"),
    ("wsl", {"eps": -1e-7}, "eps: expected 0 or more"),
    ("weights", {"eps": math.nan}, "eps: expected 0 or more, got nan"),
    ("wsl", {"label_smoothing": 1.5}, r"label_smoothing: expected a level in \[0, 1\], got 1.5"),
    ("terms", {"label_smoothing": np.zeros(2)}, "label_smoothing: expected one number"),
    ("kd", {"hard_weight": -1.0}, "hard_weight: expected 0 or more"),
    ("kd", {"temperature": 0}, "temperature: expected a number above zero"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD_NUMBERS)
def test_bad_numbers_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        TAKES_PAIRS[name](**GOOD, **options)


def test_regularisation_samples_refuse_what_has_no_label():
    soft = {**GOOD, "labels": np.full((2, 3), 1 / 3)}
    for function in (
        distillation.bias_variance_logit_gradients,
        distillation.regularization_sample_mask,
    ):
        with pytest.raises(TypeError, match="labels: expected integer class indices"):
            function(**soft, temperature=4.0)
        with pytest.raises(ValueError, match="temperature: expected a number above zero"):
            function(**GOOD, temperature=0.0)
    with pytest.raises(ValueError, match='rule: expected "signed" or "magnitude", got \'other\''):
        distillation.regularization_sample_mask(**GOOD, temperature=4.0, rule="other")


@pytest.mark.parametrize(
    ("members", "labels", "error", "message"),
    [
        (np.zeros(3), [0], ValueError, r"log_probabilities: expected shape \[M, ..., C\]"),
        (np.zeros((2, 4, 3), int), [0] * 4, TypeError, "log_probabilities: expected floating"),
        (np.zeros((0, 4, 3)), [0] * 4, ValueError, "log_probabilities: expected at least one"),
        (np.zeros((2, 4, 3)), [0] * 2, ValueError, r"labels: expected shape \[4\], got \[2\]"),
        (np.zeros((2, 4, 3)), [3] * 4, ValueError, "labels: expected classes in 0 … 2"),
        (np.full((2, 3), np.nan), 0, ValueError, "log_probabilities: .*nan"),
        (np.float32([[-np.inf, 0], [0, -np.inf]]), 0, ValueError, "mean over members: .*a finite"),
    ],
    ids=["one axis", "integers", "no member", "too few labels", "label", "nan", "nothing left"],
)
def test_bad_ensembles_are_refused(members, labels, error, message):
    with pytest.raises(error, match=message):
        distillation.ensemble_bias_variance(members, np.asarray(labels))


def test_bad_labels_are_refused_where_jit_closes_over_them():
    with pytest.raises(ValueError, match="labels: expected classes"):
        jax.jit(lambda z: distillation.wsl_loss(z, z, np.array([5])))(jnp.zeros((1, 3)))
