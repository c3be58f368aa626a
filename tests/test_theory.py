import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import binom

from jsoft import theory

# Every pair of levels on a grid, corners and the line Δ + γ = 1 included.
GRID = [(i / 20, j / 20) for i in range(21) for j in range(21)]
UNRELIABILITY, AMBIGUITY = (np.array(levels, np.float32) for levels in zip(*GRID, strict=True))
INSIDE = np.array([round(20 * d) + round(20 * g) < 20 for d, g in GRID])

# ε = 0.1, δ = 0.05, d = 10, C = 10; |H| = 1000 in the last column.
GOLDEN = [
    # Δ, γ, κ, D, θ conditional, θ robust, n₀ conditional, n₀ robust, finite class
    (0.0, 0.0, "1.0", "1.000000", "0.693147", "0.693147", "6557.2", "6557.2", "99.0"),
    (0.0, 0.5, "0.5", "0.500000", "0.287682", "0.287682", "17021.7", "17021.7", "198.1"),
    (0.1, 0.1, "0.8", "0.400000", "0.587787", "0.223144", "7844.8", "22400.2", "247.6"),
    (0.1, 0.3, "0.6", "0.270850", "0.405465", "0.145517", "11738.5", "35524.8", "365.6"),
    (0.2, 0.3, "0.5", "0.151669", "0.374693", "0.078864", "12786.8", "68656.2", "653.0"),
    (0.3, 0.3, "0.4", "0.083485", "0.336472", "0.042639", "14367.2", "132754.6", "1186.3"),
    (0.4, 0.4, "0.2", "0.020204", "0.182322", "0.010153", "27858.9", "614025.5", "4901.7"),
]
NATARAJAN = {"epsilon": 0.1, "delta": 0.05, "natarajan_dimension": 10, "num_classes": 10}
FINITE = {"epsilon": 0.1, "delta": 0.05, "class_size": 1000}

FUNCTIONS = {
    "margin": theory.margin,
    "divergence": theory.divergence,
    "divergence_extended": lambda d, g: theory.divergence(d, g, extended=True),
    "theta_superset": lambda d, g: theory.theta_superset(g),
    "theta_conditional": theory.theta_conditional,
    "theta_robust": theory.theta_robust,
    "sample_complexity": lambda d, g: theory.sample_complexity(
        theory.theta_robust(d, g), **NATARAJAN
    ),
    "finite_class": lambda d, g: theory.finite_class_sample_complexity(
        theory.divergence(d, g), **FINITE
    ),
}
each_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def reference_divergence(unreliability, ambiguity):
    if unreliability + ambiguity >= 1:
        return 0.0
    larger, smaller = max(unreliability, ambiguity), min(unreliability, ambiguity)
    return (math.sqrt(1 - larger) - math.sqrt(smaller)) ** 2


def reference_sample_complexity(theta, epsilon, delta, natarajan_dimension, num_classes):
    if theta <= 0:
        return math.inf
    d = natarajan_dimension
    capacity = math.log(4 * d) + 2 * math.log(num_classes) + math.log(1 / (theta * epsilon))
    return 4 / (theta * epsilon) * (d * capacity + math.log(1 / delta) + 1)


def row_id(row):
    return f"unreliability={row[0]},ambiguity={row[1]}"


@pytest.mark.parametrize("row", GOLDEN, ids=row_id)
def test_golden_table_to_the_printed_digits(row):
    with jax.enable_x64(True):
        d, g = row[:2]
        rate = theory.divergence(d, g)
        conditional, robust = theory.theta_conditional(d, g), theory.theta_robust(d, g)
        found = (
            f"{theory.margin(d, g):.1f}",
            f"{rate:.6f}",
            f"{conditional:.6f}",
            f"{robust:.6f}",
            f"{theory.sample_complexity(conditional, **NATARAJAN):.1f}",
            f"{theory.sample_complexity(robust, **NATARAJAN):.1f}",
            f"{theory.finite_class_sample_complexity(rate, **FINITE):.1f}",
        )
    assert found == row[2:]


@pytest.mark.parametrize("row", GOLDEN, ids=row_id)
def test_golden_sample_sizes_in_float32(row):
    n = FUNCTIONS["sample_complexity"](row[0], row[1])
    # κ carries the rounding of Δ and γ, 6e-8 of 0.2, and enters squared; 0.05 is the printed digit.
    assert_allclose(n, float(row[7]), rtol=3e-6, atol=0.05)
    assert n.dtype == jnp.float32


def test_matches_the_reference_on_the_grid():
    expected = [reference_divergence(d, g) for d, g in GRID]
    # 0.55 + 0.45 may round to just below 1, where D is of the order of the rounding, squared.
    assert_allclose(theory.divergence(UNRELIABILITY, AMBIGUITY), expected, rtol=2e-6, atol=1e-12)
    extended = [reference_divergence(d, g) or 1 - d - g for d, g in GRID]
    assert_allclose(
        theory.divergence(UNRELIABILITY, AMBIGUITY, extended=True), extended, rtol=2e-6, atol=1e-7
    )
    assert_allclose(
        theory.theta_robust(UNRELIABILITY, AMBIGUITY),
        [math.log(2 / (2 - d)) for d in expected],
        rtol=2e-6,
        atol=1e-12,
    )
    assert_allclose(
        theory.theta_superset(AMBIGUITY), [math.log(2 / (1 + g)) for _, g in GRID], rtol=1e-6
    )
    reliable = [(d, g) for d, g in GRID if d < 1]
    d, g = np.array(reliable, np.float32).T
    assert_allclose(
        theory.theta_conditional(d, g),
        [math.log(2 * (1 - d) / (1 - d + g)) for d, g in reliable],
        rtol=1e-5,  # 1 − Δ at Δ = 0.95 has the rounding of Δ twentyfold
        atol=1e-6,
    )


@pytest.mark.parametrize("theta", [-1.0, 0.0, 1e-4, 0.1, math.log(2)])
def test_sample_complexity_matches_the_reference(theta):
    found = theory.sample_complexity(theta, **NATARAJAN)
    assert_allclose(found, reference_sample_complexity(theta, **NATARAJAN), rtol=1e-6)


def test_identities_of_the_divergence():
    rate = theory.divergence(UNRELIABILITY, AMBIGUITY)
    assert_array_equal(rate, theory.divergence(AMBIGUITY, UNRELIABILITY))
    assert_allclose(theory.divergence(0.0, AMBIGUITY), 1 - AMBIGUITY, rtol=1e-6)
    kappa = theory.margin(UNRELIABILITY, AMBIGUITY)
    positive = np.maximum(kappa, 0)
    assert np.all(rate <= positive + 2e-7)  # equal at Δ = 0, up to rounding
    assert np.all(rate >= positive**2 / 2 - 2e-7)
    assert np.all(rate[INSIDE] > 1e-4)
    assert np.all(rate[~INSIDE] < 1e-12)


def test_divergence_keeps_its_digits_near_the_line():
    kappa = 2.0**-16
    found = theory.divergence(0.5, 0.5 - kappa)
    assert_allclose(found, kappa**2 / (math.sqrt(0.5) + math.sqrt(0.5 - kappa)) ** 2, rtol=1e-6)


def test_divergence_is_the_chernoff_rate_of_the_worst_law():
    """Minimise E exp(−t g) over t on a grid; the worst admissible law must leave 1 − D."""
    t = np.linspace(0, 8, 40001)
    for d, g in [(0.1, 0.3), (0.3, 0.1), (0.4, 0.4), (0.0, 0.5)]:
        rates = []
        for a in np.linspace(1 - d, 1, 9):  # P(y in)
            for b in np.linspace(0, g, 9):  # P(h(x) in)
                for q in np.linspace(max(0, a + b - 1), min(a, b), 9):  # P(both in)
                    u, v = a - q, b - q
                    rates.append(1 - np.min(1 - u - v + u * np.exp(-t) + v * np.exp(t)))
        assert_allclose(min(rates), theory.divergence(d, g), atol=4e-4)  # t ends at 8


def test_theta_robust_is_the_superset_theorem_at_no_unreliability():
    assert_allclose(
        theory.theta_robust(0.0, AMBIGUITY), theory.theta_superset(AMBIGUITY), rtol=1e-6
    )
    assert_allclose(
        theory.theta_conditional(0.0, AMBIGUITY), theory.theta_superset(AMBIGUITY), rtol=1e-6
    )


def test_thetas_are_positive_exactly_under_the_condition():
    for theta in (theory.theta_conditional, theory.theta_robust):
        found = np.asarray(theta(UNRELIABILITY, AMBIGUITY))
        assert np.all(found[INSIDE] > 0)
        assert np.all(found[~INSIDE] < 1e-6)
    assert np.all(
        theory.theta_robust(UNRELIABILITY, AMBIGUITY)
        <= theory.theta_conditional(UNRELIABILITY, AMBIGUITY).clip(0) + 1e-6
    )


def test_conditional_bound_is_false_for_the_learner_that_sees_all_sets():
    """Two hypotheses, wrong everywhere or nowhere: they tie when the votes do (n is odd)."""
    theta = theory.theta_conditional(0.45, 0.45)
    n0 = theory.sample_complexity(
        theta, epsilon=1.0, delta=1e-3, natarajan_dimension=1, num_classes=2
    )
    n = math.ceil(n0)
    assert n == 547
    assert f"{binom.cdf(n // 2, n, 0.55):.1e}" == "9.5e-03"  # ten times the promised 1e-3
    robust = theory.finite_class_sample_complexity(
        theory.divergence(0.45, 0.45), epsilon=1.0, delta=1e-3, class_size=2
    )
    n = math.ceil(robust)
    assert f"{binom.cdf(n // 2, n, 0.55):.1e}" == "4.7e-05"


@pytest.mark.parametrize("class_size", [1, 7, 2**31, 4**10, 10**400])
def test_finite_class_of_any_size(class_size):
    found = theory.finite_class_sample_complexity(
        0.25, epsilon=0.5, delta=0.5, class_size=class_size
    )
    assert_allclose(found, 8 * (math.log(class_size) + math.log(2)), rtol=1e-6)


def test_no_sample_is_enough_without_margin():
    for rate in (0.0, -0.25):
        assert theory.sample_complexity(rate, **NATARAJAN) == math.inf
        assert theory.finite_class_sample_complexity(rate, **FINITE) == math.inf
    assert theory.theta_conditional(1.0, 0.0) == -math.inf
    assert theory.theta_conditional(1.0, 1.0) == -math.inf


def test_a_missing_number_stays_missing():
    assert np.isnan(theory.sample_complexity(math.nan, **NATARAJAN))
    assert np.isnan(theory.finite_class_sample_complexity(math.nan, **FINITE))
    assert np.isnan(jax.jit(theory.divergence)(math.nan, 0.1))


@each_function
@pytest.mark.parametrize("corner", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)], ids=str)
def test_corners_are_numbers(function, corner):
    assert not np.isnan(function(*corner))
    assert not np.isnan(jax.jit(function)(*corner))


@each_function
def test_eager_jit_and_vmap_agree(function):
    d, g = UNRELIABILITY[INSIDE], AMBIGUITY[INSIDE]
    eager = function(d, g)
    assert eager.shape == d.shape
    # Fused operations may round differently; near κ = 0.05 the rounding is amplified by 1/κ.
    assert_allclose(jax.jit(function)(d, g), eager, rtol=5e-6)
    assert_allclose(jax.vmap(function)(d, g), eager, rtol=5e-6)
    assert_allclose(jax.jit(lambda g: function(0.25, g))(g), function(0.25, g), rtol=5e-6)


@each_function
def test_scalars_and_equal_ranks_broadcast(function):
    d, g = np.float32([[0.1], [0.2], [0.3]]), np.float32([[0.1, 0.4]])
    with jax.numpy_rank_promotion("raise"):
        assert function(0.25, g).shape == (1, 2)
        if function is not FUNCTIONS["theta_superset"]:  # knows γ alone
            assert function(d, 0.25).shape == (3, 1)
            table = function(d, g)  # [3, 2]
            assert_allclose(table[2, 1], function(d[2, 0], g[0, 1]), rtol=5e-6)


@each_function
@pytest.mark.parametrize("levels", [(0.1, 0.3), (0.3, 0.1), (0.45, 0.4), (0.02, 0.9)], ids=str)
def test_gradients_match_finite_differences(function, levels):
    with jax.enable_x64(True):
        check_grads(jax.jit(function), levels, order=1, modes=("fwd", "rev"), eps=1e-6, rtol=1e-5)


@each_function
def test_gradients_are_finite_inside_the_square_off_the_line(function):
    inner = np.array([0 < d < 1 and 0 < g < 1 and abs(d + g - 1) > 0.01 for d, g in GRID])
    slopes = jax.vmap(jax.grad(function, argnums=(0, 1)))(UNRELIABILITY[inner], AMBIGUITY[inner])
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize(
    ("name", "slope"),
    [("divergence", 0), ("divergence_extended", -1), ("theta_robust", 0), ("sample_complexity", 0)],
)
@pytest.mark.parametrize("levels", [(0.7, 0.6), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)], ids=str)
def test_slopes_past_the_line_and_on_its_corners(name, slope, levels):
    assert_array_equal(jax.grad(FUNCTIONS[name], argnums=(0, 1))(*levels), [slope, slope])


@each_function
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_follows_the_dtype_of_the_levels(function, dtype):
    assert function(jnp.asarray(0.25, dtype), jnp.asarray(0.25, dtype)).dtype == dtype
    assert function(0, 0).dtype == jnp.float32


@pytest.mark.parametrize("level", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("name", ["unreliability", "ambiguity"])
@pytest.mark.parametrize(
    "function", [theory.margin, theory.divergence, theory.theta_conditional, theory.theta_robust]
)
def test_levels_outside_the_unit_interval_are_refused(function, name, level):
    levels = {"unreliability": 0.5, "ambiguity": np.array([0.5, 0.5])} | {name: level}
    with pytest.raises(ValueError, match=rf"{name}: expected a level in \[0, 1\], got {level:g}"):
        function(**levels)


def test_superset_level_outside_the_unit_interval_is_refused():
    with pytest.raises(ValueError, match=r"ambiguity: expected a level in \[0, 1\], got 2"):
        theory.theta_superset(2.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0.0}, r"epsilon: expected a number in \(0, 1\], got 0.0"),
        ({"epsilon": 1.5}, r"epsilon: expected a number in \(0, 1\], got 1.5"),
        ({"epsilon": math.nan}, r"epsilon: .* got nan"),
        ({"delta": 0.0}, r"delta: expected a number in \(0, 1\), got 0.0"),
        ({"delta": 1.0}, r"delta: expected a number in \(0, 1\), got 1.0"),
        ({"natarajan_dimension": 0}, "natarajan_dimension: expected a whole number of 1 or more"),
        ({"natarajan_dimension": 2.5}, "natarajan_dimension: .* got 2.5"),
        ({"num_classes": 1}, "num_classes: expected a whole number of 2 or more, got 1"),
        ({"class_size": 0}, "class_size: expected a whole number of 1 or more, got 0"),
        ({"class_size": math.nan}, "class_size: .* got nan"),
        ({"class_size": -(10**400)}, "class_size: .* got -1000"),
    ],
    ids=str,
)
def test_bad_constants_are_refused(change, message):
    if "class_size" in change:
        function, arguments = theory.finite_class_sample_complexity, FINITE | change
    else:
        function, arguments = theory.sample_complexity, NATARAJAN | change
    with pytest.raises(ValueError, match=message):
        function(0.5, **arguments)


def test_constants_can_be_swept():
    epsilons = jnp.array([0.01, 0.1, 1.0])
    sizes = jnp.array([10.0, 100.0, 1000.0])
    found = jax.jit(
        lambda e, h: theory.finite_class_sample_complexity(0.5, epsilon=e, delta=0.05, class_size=h)
    )(epsilons, sizes)
    expected = [math.log(h / 0.05) / (e * 0.5) for e, h in zip(epsilons, sizes, strict=True)]
    assert_allclose(found, expected, rtol=1e-6)


# Idealised models: the limit of a bad teacher


@pytest.mark.parametrize(
    ("a1", "a3", "regime", "true_probability", "accuracy"),
    [
        (3.0, 1.0, 1, 1 / 3, 1 / 3),
        (3.0, 1.5, 1, 1 / 3, 1 / 6),
        (3.0, 2.0, 1, 1 / 3, 0.0),
        (1.0, 3.0, 0, 1 / 4, 0.0),
        (0.5, 1.0, 2, 2 / 5, 1.0),
        (1.0, 1.0, 2, 1 / 3, 1.0),  # a1 + a3 = k − 1
        (0.0, 2.0, 2, 1 / 3, 1.0),
        (0.0, 0.0, 2, 1.0, 1.0),
        (0.0, 9.0, 0, 1 / 10, 0.0),
    ],
)
def test_bad_teacher_limit_by_hand(a1, a3, regime, true_probability, accuracy):
    found = theory.bad_teacher_limit(a1, a3, k=3)
    assert_allclose(found, (regime, true_probability, accuracy), rtol=1e-6)
    mapped = jax.jit(jax.vmap(lambda a3, k: theory.bad_teacher_limit(a1, a3, k=k)))
    assert_allclose([x[0] for x in mapped(jnp.array([a3]), jnp.array([3]))], found, rtol=1e-6)


def test_bad_teacher_limit_is_continuous():
    a3 = jnp.linspace(0, 4, 401)
    for a1 in (0.5, 1.0, 3.0):
        found = theory.bad_teacher_limit(a1, a3, k=3)
        assert (np.diff(found.true_probability) <= 0).all()
        assert (np.diff(found.accuracy) <= 0).all()
        assert -np.diff(found.true_probability).min() < 0.011  # slope of 1/(1 + a3) at 0
        assert -np.diff(found.accuracy).min() < 0.01 / a1 + 1e-5
        assert set(np.asarray(found.regime)) == {0, 1, 2} - ({2} if a1 == 3.0 else set())


@pytest.mark.parametrize(("a1", "a3"), [(1, 3), (3, 1), (3, 1.5), (0.5, 1)], ids=str)
def test_free_logits_end_where_the_rule_says(a1, a3):
    """Descend the objective on a table of logits: 1000 examples, ten classes, k = 3, y = 0."""

    def loss(logits):
        log_p = jax.nn.log_softmax(logits)
        p = jnp.minimum(jnp.exp(log_p[:, 0]), 1 - 1e-6)
        first = (logits[:, 0] >= logits.max(axis=1)).astype(jnp.float32)
        return (-log_p[:, 0] - a1 * first * jnp.log(1 - p) - a3 * log_p[:, 1:3].mean(axis=1)).sum()

    start = jax.random.normal(jax.random.key(0), (1000, 10))

    def step(logits, i):  # shorter steps at last, for long ones leap over the tie
        logits = logits - jnp.where(i < 1000, 0.1, 0.02) * jax.grad(loss)(logits)
        return logits, (logits.argmax(axis=1) == 0).mean()

    # The examples cross the tie together, so their share must be seen over many steps.
    logits, shares = jax.jit(lambda start: jax.lax.scan(step, start, jnp.arange(2000)))(start)
    limit = theory.bad_teacher_limit(a1, a3, k=3)
    assert_allclose(shares[-500:].mean(), limit.accuracy, atol=0.01)
    found = jax.nn.softmax(logits)[:, 0].mean()
    assert_allclose(found, limit.true_probability, atol=0.01)  # as wide as a step of 0.02
    assert ((logits[:, 3:] > logits[:, :1]).sum(axis=1) == 0).all()  # Δ = 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, 1.0, 3), "a1: expected 0 or more, got -1"),
        ((1.0, -1.0, 3), "a3: expected 0 or more, got -1"),
        ((1.0, math.nan, 3), "a3: expected 0 or more, got nan"),
        ((1.0, 1.0, 1), "k: expected a whole number of 2 or more, got 1"),
        ((1.0, 1.0, 2.5), "k: expected a whole number of 2 or more, got 2.5"),
    ],
    ids=str,
)
def test_bad_teacher_weights_are_refused(arguments, message):
    a1, a3, k = arguments
    with pytest.raises(ValueError, match=message):
        theory.bad_teacher_limit(a1, a3, k=k)


# Idealised models: self-training

plurality = jax.jit(theory.plurality_accuracy, static_argnames=("num_votes", "num_classes"))


def reference_plurality(chances, num_votes):
    """Go through every multinomial outcome; the true class is the first."""
    total = 0.0
    for counts in itertools.product(range(num_votes + 1), repeat=len(chances)):
        if sum(counts) == num_votes and counts[0] == max(counts):
            ways = math.factorial(num_votes) / math.prod(math.factorial(n) for n in counts)
            chance = math.prod(p**n for p, n in zip(chances, counts, strict=True))
            total += ways * chance / counts.count(counts[0])
    return total


def rounds(accuracy, concentration, num_votes, num_rounds=3):
    found = []
    for _ in range(num_rounds):
        wrong = 1 - accuracy
        accuracy = plurality(wrong, concentration * wrong, num_votes=num_votes, num_classes=10)
        found.append(float(accuracy))
    return found


@pytest.mark.parametrize(
    ("num_classes", "num_votes"), [(2, 1), (2, 6), (3, 1), (3, 2), (3, 7), (4, 5), (5, 6)]
)
def test_plurality_goes_through_every_outcome(num_classes, num_votes):
    for delta in (0.0, 0.3, 0.75, 1.0):
        for c in {1 / (num_classes - 1), 0.6, 1.0} if num_classes > 2 else {1.0}:
            others = [delta * (1 - c) / max(num_classes - 2, 1)] * (num_classes - 2)
            expected = reference_plurality([1 - delta, c * delta, *others], num_votes)
            sizes = {"num_votes": num_votes, "num_classes": num_classes}
            found = plurality(delta, c * delta, **sizes)
            assert_allclose(found, expected, atol=1e-5)  # a float32 transform
            with jax.enable_x64(True):
                found = plurality(delta, c * delta, **sizes)
                assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("start", "concentration", "num_votes", "expected"),
    [
        (0.15, 1 / 9, 25, [0.30, 0.86, 1.00]),
        (0.05, 1 / 9, 25, [0.01, 0.00]),
        (0.55, 1.0, 25, [0.69, 0.98, 1.00]),
        (0.45, 1.0, 25, [0.31, 0.02, 0.00]),
    ],
)
def test_rounds_of_self_training_to_the_printed_digits(start, concentration, num_votes, expected):
    found = rounds(start, concentration, num_votes, len(expected))
    assert [round(accuracy, 2) for accuracy in found] == expected


def test_few_votes_climb_from_below_the_threshold():
    assert theory.self_training_threshold(0.3) > 0.23
    found = rounds(0.18, 0.3, 9, 5)
    assert (np.diff([0.18, *found]) > 0).all()
    assert found[-1] > 0.999


def test_the_threshold_is_a_fixed_point_of_symmetric_votes():
    for num_votes in (1, 4, 25):
        # Chance among equals, and one confuser that is as likely as the truth
        assert_allclose(rounds(0.1, 1 / 9, num_votes, 1), [0.1], atol=1e-5)
        assert_allclose(rounds(0.5, 1.0, num_votes, 1), [0.5], atol=1e-5)
    assert_allclose(theory.self_training_threshold(1 / 9), 0.1, rtol=1e-6)
    assert_allclose(theory.self_training_threshold(1.0), 0.5, rtol=1e-6)


def test_many_votes_decide_by_the_condition():
    concentrations = np.float32([[1 / 9], [0.3], [1.0]])
    threshold = theory.self_training_threshold(concentrations)  # [3, 1]
    wrong = 1 - (threshold + np.float32([[-0.08, 0.1]]))  # [3, 2]
    degrees = wrong, concentrations * wrong
    assert_array_equal(theory.margin(*degrees) > 0, [[False, True]] * 3)
    found = plurality(*degrees, num_votes=200, num_classes=10)
    assert_allclose(found, [[0, 1]] * 3, atol=0.02)


def test_threshold_is_where_the_diluted_condition_begins():
    for c in (1 / 9, 0.3, 1.0):
        for labelled in (0.0, 0.05, 0.3):
            threshold = theory.self_training_threshold(c, labelled_fraction=labelled)
            unreliability, ambiguity = 1 - threshold, c * (1 - threshold)
            if threshold > 0:
                assert_allclose(unreliability + ambiguity, 1 / (1 - labelled), rtol=1e-6)
                left = theory.margin((1 - labelled) * unreliability, (1 - labelled) * ambiguity)
                assert_allclose(left, 0, atol=1e-6)
            else:
                assert (1 - labelled) * (1 + c) <= 1
    assert theory.self_training_threshold(1.0, labelled_fraction=1.0) == 0


def test_plurality_is_monotone_and_one_vote_is_the_label():
    delta = jnp.linspace(0.05, 0.95, 19)
    found = plurality(delta, 0.4 * delta, num_votes=9, num_classes=10)
    assert (np.diff(found) < 0).all()
    single = plurality(delta, 0.4 * delta, num_votes=1, num_classes=10)
    assert_allclose(single, 1 - delta, atol=1e-5)
    assert plurality(0.0, 0.0, num_votes=25, num_classes=100) <= 1


def test_plurality_under_transformations():
    sizes = {"num_votes": 5, "num_classes": 4}
    function = functools.partial(plurality, **sizes)
    delta, gamma = np.float32([[0.3], [0.6]]), np.float32([[0.2, 0.3]])
    table = function(delta, gamma)
    assert table.shape == (2, 2)
    assert_allclose(table[1, 0], theory.plurality_accuracy(0.6, 0.2, **sizes), rtol=1e-5)
    with jax.enable_x64(True):
        check_grads(function, (0.6, 0.3), order=1, modes=("rev",), eps=1e-6, rtol=1e-5)
    slopes = jax.jit(jax.grad(function, argnums=(0, 1)))
    for corner in [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)]:
        assert np.isfinite(slopes(*corner)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ambiguity": 0.7}, "ambiguity: expected Δ/9 ≤ γ ≤ Δ, got 0.7 at Δ = 0.5"),
        ({"ambiguity": 0.01}, "ambiguity: expected Δ/9 ≤ γ ≤ Δ, got 0.01"),
        ({"unreliability": -0.1}, r"unreliability: expected a level in \[0, 1\], got -0.1"),
        ({"unreliability": 1.5}, r"unreliability: expected a level in \[0, 1\], got 1.5"),
        ({"num_votes": 0}, "num_votes: expected a whole number of 1 or more, got 0"),
        ({"num_classes": 1}, "num_classes: expected a whole number of 2 or more, got 1"),
    ],
    ids=str,
)
def test_votes_that_cannot_be_are_refused(change, message):
    arguments = {"unreliability": 0.5, "ambiguity": 0.2, "num_votes": 5, "num_classes": 10}
    with pytest.raises(ValueError, match=message):
        theory.plurality_accuracy(**(arguments | change))


@pytest.mark.parametrize("name", ["concentration", "labelled_fraction"])
def test_thresholds_of_levels_out_of_range_are_refused(name):
    with pytest.raises(ValueError, match=rf"{name}: expected a level in \[0, 1\], got -0.5"):
        theory.self_training_threshold(**({"concentration": 0.5} | {name: -0.5}))
