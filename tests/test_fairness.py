"""ABSLD: stored runs of the released code, its formulas in NumPy, invariances, bad input."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax, softmax

from jsoft import fairness, indicators, losses

FOLDER = Path(__file__).parent / "golden"
LOSS_CASES = ["temps_one", "temps_mixed", "temps_bounds", "c3"]
RNG = np.random.default_rng(0)
TEACHER, ADV, NAT = (3 * RNG.normal(size=(3, 12, 4))).astype(np.float32)
LABELS = RNG.integers(0, 4, 12)
TEMP_ADV, TEMP_NAT = RNG.uniform(0.5, 3, (2, 4)).astype(np.float32)


def golden(file, case):
    stored = np.load(FOLDER / f"absld_{file}.npz")
    return {
        name.removeprefix(f"{case}__"): stored[name]
        for name in stored.files
        if "__" not in name or name.startswith(f"{case}__")
    }


loss_of = jax.jit(fairness.absld_loss)
tempered = jax.jit(fairness.class_temperature_targets)
moved_by = jax.jit(fairness.update_class_temperatures)
cross_entropy = jax.jit(optax.losses.softmax_cross_entropy_with_integer_labels)
added, ended = jax.jit(fairness.add_risks), jax.jit(fairness.end_epoch)
nsd_of = jax.jit(fairness.normalized_standard_deviation, static_argnames="ddof")
worst_of = jax.jit(fairness.worst_class_accuracy)


ARGUMENTS = ("adv_logits", "nat_logits", "teacher_logits", "labels", "temp_adv", "temp_nat")


@jax.jit
def mean_loss(adv, nat, teacher, labels, temp_adv, temp_nat, coupled):
    """The loss as the released code scales it, and its gradients in the student's logits."""

    def loss(adv, nat):
        values = fairness.absld_loss(adv, nat, teacher, labels, temp_adv, temp_nat, coupled=coupled)
        return values.mean() / adv.shape[1]

    return jax.value_and_grad(loss, argnums=(0, 1))(adv, nat)


def entropy(soft_labels):
    return -(soft_labels * np.log(np.maximum(soft_labels, 1e-30))).sum(axis=-1)


# Labels and loss


@pytest.mark.parametrize("case", LOSS_CASES)
@pytest.mark.parametrize("coupled", [False, True])
def test_loss_and_gradients_match_the_released_code(case, coupled):
    """Divided by C, up to what the released code adds inside its logarithm."""
    stored = golden("batch_loss", case)
    which = "official" if coupled else "paper"
    value, slopes = mean_loss(*(stored[name] for name in ARGUMENTS), coupled)
    assert_allclose(value, stored[f"{which}_loss"], atol=2e-5)
    for slope, name in zip(slopes, ("adv", "nat"), strict=True):
        expected = stored[f"{which}_grad_{name}"]
        assert_allclose(slope, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("case", LOSS_CASES)
def test_divergences_match_the_exact_ones(case):
    stored = golden("batch_loss", case)
    for weight, name in ((1.0, "adv"), (0.0, "nat")):
        values = loss_of(*(stored[name] for name in ARGUMENTS), adv_weight=weight)
        exact = stored[f"paper_exact_kl_{name}_batchmean_f64"]
        assert_allclose(values.mean(), exact, rtol=1e-6)


def test_coupled_tables_are_not_the_paper():
    """The stored runs tell the released code's behaviour from that of the paper."""
    stored = golden("batch_loss", "temps_mixed")
    assert np.abs(stored["official_loss"] / stored["paper_loss"] - 1) > 0.01


def by_loop(weight, coupled):
    found = []
    for z, a, n, y in zip(*map(np.float64, (TEACHER, ADV, NAT)), LABELS, strict=True):
        tau, nu = float(TEMP_ADV[y]), float(TEMP_NAT[y])
        if coupled:
            tau = nu = tau * nu
        total = 0.0
        for share, logits, temperature in ((weight, a, tau), (1 - weight, n, nu)):
            d = softmax(z / temperature)
            total += share * float((d * (np.log(d) - log_softmax(logits))).sum())
        found.append(total)
    return found


@pytest.mark.parametrize("coupled", [False, True])
def test_loss_matches_the_loop(coupled):
    found = loss_of(ADV, NAT, TEACHER, LABELS, TEMP_ADV, TEMP_NAT, adv_weight=0.7, coupled=coupled)
    assert found.dtype == jnp.float32
    assert_allclose(found, by_loop(0.7, coupled), rtol=1e-5)


def test_loss_under_jit_and_vmap_equals_eager():
    def loss(adv, nat, z, y, coupled):
        return fairness.absld_loss(adv, nat, z, y, TEMP_ADV, TEMP_NAT, coupled=coupled)

    eager = loss(ADV, NAT, TEACHER, LABELS, True)
    single = jax.jit(jax.vmap(loss, in_axes=(0, 0, 0, 0, None)))
    assert_allclose(jax.jit(loss)(ADV, NAT, TEACHER, LABELS, True), eager, rtol=1e-5)
    assert_allclose(single(ADV, NAT, TEACHER, LABELS, True), eager, rtol=1e-5)


def test_loss_gradients_match_finite_differences():
    with jax.enable_x64(True):
        arrays = [jnp.asarray(array[:3], jnp.float64) for array in (ADV, NAT)]
        teacher, *temperatures = (np.float64(x) for x in (TEACHER[:3], TEMP_ADV, TEMP_NAT))
        check_grads(
            jax.jit(lambda a, n: fairness.absld_loss(a, n, teacher, LABELS[:3], *temperatures)),
            arrays,
            order=1,
            modes=("rev",),
        )


def test_no_gradient_reaches_teacher_or_temperatures():
    def loss(z, temp_adv, temp_nat):
        return fairness.absld_loss(ADV, NAT, z, LABELS, temp_adv, temp_nat).sum()

    slopes = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(TEACHER, TEMP_ADV, TEMP_NAT)
    for slope in slopes:
        assert_array_equal(slope, np.zeros_like(slope))


def test_temperatures_of_one_give_rslad():
    ones = np.ones(4, np.float32)
    found = loss_of(ADV, NAT, TEACHER, LABELS, ones, ones)
    soft_labels = jax.nn.softmax(TEACHER)
    of_adv, of_nat = (losses.kl_divergence(logits, soft_labels) for logits in (ADV, NAT))
    assert_allclose(found, 5 / 6 * of_adv + of_nat / 6, rtol=1e-5)
    coupled = loss_of(ADV, NAT, TEACHER, LABELS, ones, ones, coupled=True)
    assert_array_equal(found, coupled)


def test_targets_are_those_of_the_formula():
    found = tempered(TEACHER, LABELS, TEMP_ADV)
    expected = [
        softmax(z / float(TEMP_ADV[y])) for z, y in zip(np.float64(TEACHER), LABELS, strict=True)
    ]
    assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    one = fairness.class_temperature_targets(TEACHER[0], LABELS[0], TEMP_ADV)
    assert_allclose(one, expected[0], rtol=1e-5)


def test_lower_temperature_lowers_the_entropy():
    temperatures = np.linspace(0.5, 5, 10, dtype=np.float32)
    entropies = [
        entropy(np.asarray(tempered(TEACHER, LABELS, np.full(4, t)))) for t in temperatures
    ]
    assert (np.diff(entropies, axis=0) > 0).all()


def test_temperatures_move_no_top_k_set():
    """Δ and γ read the order of the classes within a label, which is the teacher's."""
    labels = np.tile(np.arange(4), 25)
    teacher = np.float32(2 * np.random.default_rng(1).normal(size=(100, 4)))
    teacher[np.arange(100), labels] += 2
    measure = jax.jit(lambda table: indicators.measure(tempered(teacher, labels, table), labels))
    plain, moved = (
        measure(np.array(table, np.float32)) for table in ([1, 1, 1, 1], [0.5, 1, 3, 5])
    )
    assert_array_equal(moved.unreliability, plain.unreliability)
    assert_array_equal(moved.ambiguity, plain.ambiguity)
    assert abs(moved.mean_label_margin - plain.mean_label_margin) > 0.05


@pytest.mark.parametrize("size", [1e3, 1e4])
def test_large_logits_stay_finite(size):
    teacher = np.float32([[size, 0, -size], [0, 0, size]])
    student = np.float32([[-size, 0, size], [size, 0, 0]])
    coldest = np.full(3, 0.5, np.float32)

    def loss(z):
        return loss_of(z, z, teacher, np.array([0, 2]), coldest, coldest).sum()

    value, slope = jax.jit(jax.value_and_grad(loss))(student)
    assert_allclose(value, 3 * size, rtol=1e-6)
    assert np.isfinite(slope).all()


def test_a_class_that_the_student_rules_out_costs_nothing_where_the_label_is_zero():
    teacher, ones = np.float32([[2e3, 0.0, 0.0]]), np.ones(3, np.float32)
    student = np.float32([[0.0, -np.inf, 0.0]])
    found = loss_of(student, student, teacher, np.array([0]), ones, ones)
    assert_allclose(found, [math.log(2)], rtol=1e-6)


# Risks and temperatures


@pytest.mark.parametrize("case", LOSS_CASES)
def test_risk_sums_match_the_released_code(case):
    stored = golden("batch_loss", case)
    num_classes = stored["temp_adv"].shape[0]
    state = fairness.init_absld(num_classes)
    per_example = [
        cross_entropy(stored[name], stored["labels"]) for name in ("adv_logits", "nat_logits")
    ]
    for half in (slice(None, None, 2), slice(1, None, 2)):  # two batches
        batch = [loss[half] for loss in per_example]
        state = added(state, *batch, stored["labels"][half])
    assert_allclose(state.risk_adv, stored["class_loss_sum_adv"], rtol=1e-5)
    assert_allclose(state.risk_nat, stored["class_loss_sum_nat"], rtol=1e-5)
    assert_array_equal(state.counts, stored["class_count"])


@pytest.mark.parametrize("case", ["random10", "lr_milestones", "clamped"])
def test_temperatures_match_the_released_code(case):
    stored = golden("temperature_update", case)
    bounds = {
        "min_temperature": float(stored["temp_min"]),
        "max_temperature": float(stored["temp_max"]),
    }

    @jax.jit
    def path(first, risks, rates):
        def epoch(temperatures, row):
            risk, rate = row
            moved = fairness.update_class_temperatures(temperatures, risk, rate=rate, **bounds)
            return moved, moved

        return jax.lax.scan(epoch, first, (risks, rates))[1]

    for table in ("adv", "nat"):
        first = np.broadcast_to(np.float32(stored["temp_init"]), stored["temp_adv"].shape[1:])
        risks, rates = np.float32(stored[f"class_loss_{table}"]), np.float32(stored["rate_used"])
        assert_allclose(path(first, risks, rates), stored[f"temp_{table}"], atol=2e-6)


def test_equal_risks_change_nothing_where_the_released_code_turns_nan():
    stored = golden("temperature_update", "degenerate_equal")
    assert np.isnan(stored["temp_adv"][-1]).any()
    first = np.broadcast_to(np.float32(stored["temp_init"]), stored["temp_adv"].shape[1:])
    for risk in stored["class_loss_adv"]:
        moved = moved_by(first, np.float32(risk))
        assert_array_equal(moved, first)


@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3, 1e-30, 3e38])
def test_equal_risks_are_equal_whatever_the_rounding_of_their_mean(value):
    risk = np.full(10, value, np.float32)
    temperatures = np.linspace(0.5, 5, 10, dtype=np.float32)
    for move in (fairness.update_class_temperatures, moved_by):
        assert_array_equal(move(temperatures, risk), temperatures)


def updated(risk, **options):
    return np.asarray(moved_by(np.ones(len(risk), np.float32), np.float32(risk), **options))


def test_one_step_is_that_of_the_formula():
    risk = RNG.exponential(size=10)
    gap = risk - risk.mean()
    assert_allclose(updated(risk, rate=0.2), 1 - 0.2 * gap / np.abs(gap).max(), atol=1e-6)


def test_higher_risk_never_moves_further_up():
    risk = np.sort(RNG.exponential(size=(20, 10)), axis=1)
    for row in risk:
        assert (np.diff(updated(row)) <= 1e-7).all()
        assert updated(row)[0] > 1 > updated(row)[-1]


def test_shift_and_scale_of_risks_do_not_matter():
    risk = RNG.exponential(size=10)
    expected = updated(risk)
    assert_allclose(updated(risk + 7), expected, atol=2e-6)
    for factor in (1e-20, 0.3, 100, 1e30):
        assert_allclose(updated(factor * risk), expected, atol=2e-6)


def test_bounds_and_rates_may_be_traced_and_hold():
    def move(rate, least, most):
        return fairness.update_class_temperatures(
            jnp.ones(3), jnp.array([0.0, 1.0, 2.0]), rate=rate, min_temperature=least,
            max_temperature=most,
        )  # fmt: skip

    found = jax.jit(jax.vmap(move))(
        jnp.array([0.0, 0.1, 9.0]), jnp.full(3, 0.5), jnp.array([5.0, 5.0, 4.0])
    )
    assert_allclose(found, [[1, 1, 1], [1.1, 1, 0.9], [4, 1, 0.5]], atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_class_without_a_finite_risk_is_left_out(value):
    """The others move as if it were not there, and it stays, even outside the bounds."""
    temperatures = np.float32([1, 9, 1, 1])
    risk = np.float32([3, value, 1, 2])
    found = moved_by(temperatures, risk)
    assert_allclose(found, [0.9, 9, 1.1, 1], atol=1e-6)
    nothing = moved_by(temperatures, np.full(4, value, np.float32))
    assert_array_equal(nothing, temperatures)


def test_an_epoch_without_a_class_leaves_its_temperature():
    state = fairness.init_absld(4)
    adv = jnp.array([3.0, 1.0, 1.0, 2.0])
    state = added(state, adv, adv[::-1], jnp.array([0, 2, 2, 3]))
    begun, (risk_adv, risk_nat) = ended(state)
    assert_allclose(risk_adv, [3, np.nan, 1, 2])
    assert_allclose(risk_nat, [2, np.nan, 1, 3])
    assert_allclose(begun.temp_adv, [0.9, 1, 1.1, 1], atol=1e-6)
    assert_allclose(begun.temp_nat, [1, 1, 1.1, 0.9], atol=1e-6)
    for zeros in (begun.risk_adv, begun.risk_nat, begun.counts):
        assert_array_equal(zeros, np.zeros(4))


def test_a_diverged_class_shows_in_the_risk_and_not_in_the_table():
    state = added(
        fairness.init_absld(3),
        jnp.array([jnp.nan, 1.0, 2.0]),
        jnp.array([1.0, 1.0, 2.0]),
        jnp.arange(3),
    )
    begun, (risk, _) = ended(state)
    assert np.isnan(risk).tolist() == [True, False, False]
    assert_allclose(begun.temp_adv, [1, 1.1, 0.9], atol=1e-6)


def test_sums_make_frequent_classes_look_hard():
    """Mean risks 1, 2, 3 of 8, 1 and 1 examples; sums 8, 2, 3."""
    labels = jnp.array([0] * 8 + [1, 2])
    loss = jnp.array([1.0] * 8 + [2.0, 3.0])
    state = added(fairness.init_absld(3), loss, loss, labels)
    by_mean, _ = ended(state, summed=False)
    by_sum, (risk, _) = ended(state, summed=True)
    assert_allclose(by_mean.temp_adv, [1.1, 1, 0.9], atol=1e-6)
    assert_array_equal(risk, [8, 2, 3])
    assert by_sum.temp_adv[0] < by_sum.temp_adv[2] < by_sum.temp_adv[1]


def test_state_goes_through_a_scan():
    losses_by_step = jnp.asarray(RNG.exponential(size=(6, 8)), jnp.float32)
    labels = jnp.asarray(RNG.integers(0, 3, (6, 8)))

    def step(state, row):
        loss, label = row
        return fairness.add_risks(state, loss, 2 * loss, label), ()

    state, _ = jax.jit(
        lambda losses, labels: jax.lax.scan(step, fairness.init_absld(3), (losses, labels))
    )(losses_by_step, labels)
    flat = np.asarray(labels).ravel()
    expected = np.bincount(flat, np.asarray(losses_by_step).ravel(), 3)
    assert_allclose(state.risk_adv, expected, rtol=1e-5)
    assert_allclose(state.risk_nat, 2 * expected, rtol=1e-5)
    assert_array_equal(state.counts, np.bincount(flat, minlength=3))


# What fairness is judged by


def test_measures_match_the_stored_ones():
    stored = np.load(FOLDER / "absld_fairness_metrics.npz")
    accuracy = np.float32(stored["class_accuracy"])
    eager = fairness.normalized_standard_deviation(accuracy)
    assert_allclose(eager, stored["nsd_population"], rtol=1e-5)
    assert_allclose(nsd_of(accuracy, ddof=1), stored["nsd_sample"], rtol=1e-5)
    assert_allclose(worst_of(accuracy), stored["worst"], rtol=1e-6)
    for transformed in (nsd_of, jax.jit(jax.vmap(fairness.normalized_standard_deviation))):
        assert_allclose(transformed(accuracy), eager, rtol=1e-6)


def test_class_wise_accuracy_matches_the_loop():
    labels, correct = RNG.integers(0, 5, 60), RNG.random(60) < 0.6
    where = (labels != 3) & (RNG.random(60) < 0.8)
    found = fairness.class_wise_accuracy(correct, labels, 6, where=where)
    expected = [
        correct[where & (labels == k)].mean() if (where & (labels == k)).any() else np.nan
        for k in range(6)
    ]
    assert_allclose(found, expected, rtol=1e-6)
    assert np.isnan(expected)[[3, 5]].all()
    traced = jax.jit(fairness.class_wise_accuracy, static_argnums=2)
    assert_allclose(traced(correct, labels, 6, where=where), found, rtol=1e-6)


def test_classes_that_are_not_there_are_masked_or_show():
    values = np.float32([0.2, np.nan, 0.6])
    there = ~np.isnan(values)
    assert np.isnan(nsd_of(values))
    assert np.isnan(worst_of(values))
    rows, masks = np.stack([values, values]), np.stack([there, np.zeros(3, bool)])
    assert_allclose(nsd_of(rows, where=masks), [0.5, np.nan], rtol=1e-6)
    assert_allclose(worst_of(rows, where=masks), [0.2, np.nan], rtol=1e-6)


def test_deviation_is_scale_free_zero_for_equals_and_nan_at_mean_zero():
    values = np.float32([0.1, 0.5, 0.9])
    assert_allclose(nsd_of(values / 2), nsd_of(values), rtol=1e-6)
    assert_allclose(nsd_of(np.full(3, 0.5, np.float32)), 0)
    assert np.isnan(nsd_of(np.zeros(3, np.float32)))
    assert np.isnan(nsd_of(np.float32([-1, 0, 1])))


ONES = np.ones(4, np.float32)
LOSS = {
    "adv_logits": ADV, "nat_logits": NAT, "teacher_logits": TEACHER, "labels": LABELS,
    "temp_adv": ONES, "temp_nat": ONES,
}  # fmt: skip
BAD_LOSS = {
    "integer logits": (TypeError, "adv_logits: expected floating-point", {"adv_logits": LABELS}),
    "one image for many": (ValueError, "nat_logits: expected the shape", {"nat_logits": NAT[:1]}),
    "teacher of nan": (ValueError, "logits: expected finite", {"teacher_logits": TEACHER * np.nan}),
    "labels out of range": (ValueError, "labels: expected classes", {"labels": LABELS + 4}),
    "float labels": (TypeError, "labels: expected integer", {"labels": LABELS * 1.0}),
    "one label for many": (ValueError, "labels: expected shape", {"labels": LABELS[:1]}),
    "temperature of zero": (ValueError, "temp_adv: expected a number", {"temp_adv": 0 * ONES}),
    "negative temperature": (ValueError, "temp_nat: expected a number", {"temp_nat": -ONES}),
    "a temperature an example": (ValueError, "temp_adv: .* one temperature a class",
                                 {"temp_adv": np.ones(12, np.float32)}),
    "one temperature": (ValueError, "temp_nat: expected", {"temp_nat": np.float32(1)}),
    "integer temperatures": (TypeError, "temp_nat: expected floating", {"temp_nat": ONES > 0}),
    "weight above one": (ValueError, "adv_weight: expected a level", {"adv_weight": 1.5}),
    "a weight an example": (ValueError, "adv_weight: expected one", {"adv_weight": np.ones(12)}),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_LOSS)
def test_loss_refuses_bad_input(case):
    error, message, options = BAD_LOSS[case]
    with pytest.raises(error, match=message):
        fairness.absld_loss(**{**LOSS, **options})


BAD = {
    "labels of another length": (
        ValueError,
        r"labels: expected shape \[2\]",
        lambda: fairness.class_risk_sums(np.ones(2), np.array([0]), 3),
    ),
    "losses of no batch": (
        ValueError,
        r"per_example_loss: expected shape \[N\]",
        lambda: fairness.class_risk_sums(np.float32(1), np.array(0), 3),
    ),
    "integer losses": (
        TypeError,
        "per_example_loss: expected floating",
        lambda: fairness.class_risk_sums(np.ones(2, int), np.array([0, 1]), 3),
    ),
    "one class": (
        ValueError,
        "num_classes: expected 2 or more",
        lambda: fairness.init_absld(1),
    ),
    "risks of other classes": (
        ValueError,
        "temperatures: expected one temperature a class",
        lambda: fairness.update_class_temperatures(np.ones(3), np.ones(4)),
    ),
    "negative rate": (
        ValueError,
        "rate: expected 0 or more",
        lambda: fairness.update_class_temperatures(np.ones(3), np.ones(3), rate=-0.1),
    ),
    "a rate a class": (
        ValueError,
        "rate: expected one number",
        lambda: fairness.update_class_temperatures(np.ones(3), np.ones(3), rate=np.ones(3)),
    ),
    "bound of zero": (
        ValueError,
        "min_temperature: expected a number above zero",
        lambda: fairness.update_class_temperatures(np.ones(3), np.ones(3), min_temperature=0.0),
    ),
    "bounds the wrong way round": (
        ValueError,
        "max_temperature: expected 2 or more, got 1",
        lambda: fairness.update_class_temperatures(
            np.ones(3), np.ones(3), min_temperature=2.0, max_temperature=1.0
        ),
    ),
    "answers that are no booleans": (
        TypeError,
        "correct: expected booleans",
        lambda: fairness.class_wise_accuracy(np.ones(2), np.array([0, 1]), 2),
    ),
    "empty mask": (
        ValueError,
        "where: expected at least one example",
        lambda: fairness.class_wise_accuracy(
            np.ones(2, bool), np.array([0, 1]), 2, where=np.zeros(2, bool)
        ),
    ),
    "no class that counts": (
        ValueError,
        "where: expected at least one",
        lambda: fairness.worst_class_accuracy(np.ones(3), where=np.zeros(3, bool)),
    ),
    "integer accuracies": (
        TypeError,
        "values: expected floating-point",
        lambda: fairness.normalized_standard_deviation(np.array([1, 2])),
    ),
    "mask of another shape": (
        ValueError,
        "where: expected shape",
        lambda: fairness.normalized_standard_deviation(np.ones(3), where=np.ones(2, bool)),
    ),
    "more degrees than classes": (
        ValueError,
        "ddof: expected 0 … 2, got 3",
        lambda: fairness.normalized_standard_deviation(np.ones(3), ddof=3),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    error, message, call = BAD[case]
    with pytest.raises(error, match=message):
        call()
