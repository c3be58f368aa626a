"""Noise: printed numbers, independent quadrature, simulation, limits, privacy, bad input."""

import itertools
import math
from typing import get_args

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, special, stats

from jsoft import indicators, noise, targets

ambiguity_matrix = jax.jit(indicators.ambiguity_matrix)
unreliability_degree = jax.jit(indicators.unreliability_degree)

KINDS = {  # the law of noise of scale 1, and where its density or its shifted tail has a kink
    "gaussian": (stats.norm(), []),
    "uniform": (stats.uniform(-1, 2), [-1, 1]),
    "laplace": (stats.laplace(), [0]),
    "gumbel": (stats.gumbel_r(), []),
}
each_kind = pytest.mark.parametrize("kind", KINDS)

# Seven settings of (k, C), each with the scale of every kind: Δ from 0.02 to 0.9
SIMULATED = [
    (kind, scales[kind], k, num_classes)
    for num_classes, k, scales in [
        (10, 1, {"gaussian": 0.5, "uniform": 1.0, "laplace": 0.5, "gumbel": 0.5}),
        (10, 3, {"gaussian": 0.5, "uniform": 1.0, "laplace": 0.5, "gumbel": 0.5}),
        (10, 5, {"gaussian": 1.0, "uniform": 2.0, "laplace": 1.0, "gumbel": 1.0}),
        (10, 3, {"gaussian": 3.0, "uniform": 5.0, "laplace": 2.0, "gumbel": 2.0}),
        (100, 1, {"gaussian": 0.5, "uniform": 1.0, "laplace": 0.5, "gumbel": 0.5}),
        (100, 3, {"gaussian": 0.5, "uniform": 1.0, "laplace": 0.5, "gumbel": 0.25}),
        (100, 5, {"gaussian": 1.0, "uniform": 2.0, "laplace": 0.25, "gumbel": 0.25}),
    ]
    for kind in KINDS
]
each_simulation = pytest.mark.parametrize(("kind", "scale", "k", "num_classes"), SIMULATED)

# ε | Laplace Δ, Δ + γ at k = 1, then at k = 3 | σ | Gaussian Δ, Δ + γ at k = 1, then at k = 3 |
# Δ + γ of randomised response. Ten classes, δ = 1e-5.
PRIVACY = [
    (0.5, ".872 .969 .622 .914", "9.945", ".884 .982 .667 .963", ".939"),
    (1.0, ".836 .929 .537 .819", "5.276", ".868 .964 .637 .930", ".853"),
    (2.0, ".743 .825 .371 .635", "2.820", ".834 .927 .579 .865", ".610"),
    (4.0, ".501 .557 .149 .388", "1.529", ".761 .846 .470 .744", ".157"),
    (8.0, ".144 .160 .021 .245", "0.849", ".601 .668 .289 .543", ".003"),
]


def reference_unreliability(kind, scale, k, num_classes):
    """Add up the chances of k or more wrong classes above a true score of 1 + t · scale."""
    law, kinks = KINDS[kind]

    def integrand(t):
        return law.pdf(t) * stats.binom.sf(k - 1, num_classes - 1, law.sf(t + 1 / scale))

    edges = sorted({-40.0, 40.0, *kinks, *(kink - 1 / scale for kink in kinks)})
    inside = [edge for edge in edges if law.support()[0] <= edge <= law.support()[1]]
    return sum(
        integrate.quad(integrand, *pair, epsabs=1e-11, limit=200)[0]
        for pair in itertools.pairwise(inside)
    )


def test_every_noise_that_can_be_drawn_is_known():
    assert set(get_args(targets.Noise)) == set(KINDS)


def test_golden_values_to_the_printed_digits():
    def printed(kind, scale, k, digits):
        return f"{noise.noise_unreliability(kind, scale, k=k, num_classes=10):.{digits}f}"

    assert printed("gaussian", 1.0, 3, 6) == "0.346807"
    assert printed("gaussian", 3.0, 3, 6) == "0.586317"
    assert printed("uniform", 1.0, 1, 5) == "0.40010"
    assert printed("uniform", 1.0, 3, 5) == "0.20664"
    assert printed("laplace", 0.5, 3, 5) == "0.14931"
    unreliability = noise.noise_unreliability("laplace", 0.5, k=3, num_classes=10)
    assert f"{noise.exchangeable_ambiguity(unreliability, k=3, num_classes=10):.5f}" == "0.23881"


@pytest.mark.parametrize("row", PRIVACY, ids=lambda row: f"epsilon={row[0]}")
def test_privacy_table_to_the_printed_digits(row):
    def indicators_at(kind, scale):
        found = []
        for k in (1, 3):
            unreliability = noise.noise_unreliability(kind, scale, k=k, num_classes=10)
            ambiguity = noise.exchangeable_ambiguity(unreliability, k=k, num_classes=10)
            found += [unreliability, unreliability + ambiguity]
        return " ".join(f"{value:.3f}"[1:] for value in found)

    epsilon = row[0]
    sigma = noise.gaussian_mechanism_scale(epsilon, 1e-5, sensitivity=math.sqrt(2))
    told = noise.randomised_response_indicators(epsilon, num_classes=10)
    found = (
        indicators_at("laplace", noise.laplace_mechanism_scale(epsilon, sensitivity=2)),
        f"{sigma:.3f}",
        indicators_at("gaussian", sigma),
        f"{sum(told):.3f}"[1:],
    )
    assert found == row[1:]


@each_kind
@pytest.mark.parametrize(("k", "num_classes"), [(1, 2), (1, 10), (3, 10), (9, 10), (5, 100)])
@pytest.mark.parametrize("scale", [0.3, 0.7, 4.0])
def test_matches_quadrature_over_binomial_chances(kind, k, num_classes, scale):
    expected = reference_unreliability(kind, scale, k, num_classes)
    found = noise.noise_unreliability(kind, scale, k=k, num_classes=num_classes)
    assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
@pytest.mark.parametrize(("k", "num_classes"), [(30, 100), (100, 1000), (500, 1000)])
def test_many_classes_make_steep_integrands(kind, k, num_classes):
    law, _ = KINDS[kind]
    v = (np.arange(10**6) + 0.5) / 10**6  # midpoints in F(t), where the integrand has no density
    above = law.sf(law.ppf(v) + 1 / 0.7)
    expected = special.betainc(k, num_classes - k, above).mean()
    found = noise.noise_unreliability(kind, 0.7, k=k, num_classes=num_classes)
    assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_gumbel_noise_is_drawing_without_replacement(k):
    for scale in (0.1, 0.5, 3.0):
        weight = math.exp(1 / scale)
        missed = math.prod((9 - j) / (9 - j + weight) for j in range(k))
        found = noise.noise_unreliability("gumbel", scale, k=k, num_classes=10)
        assert_allclose(found, missed, rtol=1e-9)


def test_uniform_noise_as_first_written_down():
    """1 − Δ = c + 1 − c I_c(C−k, k) − (1 − k/C)(1 − I_c(C−k+1, k)) with c = 1/2a."""
    for k in (1, 3, 9):
        for a in (0.5, 0.6, 1.0, 7.0):
            c = 1 / (2 * a)
            reliability = (
                c
                + 1
                - c * special.betainc(10 - k, k, c)
                - (1 - k / 10) * (1 - special.betainc(11 - k, k, c))
            )
            found = noise.noise_unreliability("uniform", a, k=k, num_classes=10)
            assert_allclose(1 - found, reliability, rtol=1e-12)
            if k == 1:
                assert_allclose(1 - found, (1 - c**10) / 10 + c, rtol=1e-12)


@each_simulation
def test_simulated_noise_agrees(kind, scale, k, num_classes):
    """Of the 28 settings 21 have Gaussian, uniform or Laplace noise."""
    scores = targets.additive_noise(
        np.zeros(20000, int), jax.random.key(0), num_classes=num_classes, kind=kind, scale=scale
    )
    ranks = np.asarray(scores[:, 1:] > scores[:, :1]).sum(axis=1)  # wrong classes above
    unreliability = noise.noise_unreliability(kind, scale, k=k, num_classes=num_classes)
    standard_error = math.sqrt(unreliability * (1 - unreliability) / 20000)
    assert abs((ranks >= k).mean() - unreliability) < 4 * standard_error


@each_simulation
def test_wrong_classes_share_what_the_truth_leaves(kind, scale, k, num_classes):
    labels = np.zeros(2000, int)
    scores = targets.additive_noise(
        labels, jax.random.key(1), num_classes=num_classes, kind=kind, scale=scale
    )
    rates = np.float64(ambiguity_matrix(scores, labels, k)[0])
    # Counting members, exactly in every sample; 1e-6 for a hundred roundings in float32
    missed = unreliability_degree(scores, labels, k)
    assert_allclose(rates[1:].sum(), k - 1 + missed, atol=1e-6)
    assert_allclose(
        rates[1:].mean(),
        noise.exchangeable_ambiguity(missed, k=k, num_classes=num_classes),
        atol=1e-6,
    )
    # and each of them alike, in the mean
    unreliability = noise.noise_unreliability(kind, scale, k=k, num_classes=num_classes)
    ambiguity = noise.exchangeable_ambiguity(unreliability, k=k, num_classes=num_classes)
    standard_error = math.sqrt(ambiguity * (1 - ambiguity) / 2000)
    assert_allclose(rates[1:], ambiguity, atol=5 * standard_error)  # the largest of up to 99


@each_kind
@pytest.mark.parametrize(("k", "num_classes"), [(1, 2), (1, 10), (3, 10), (9, 10), (50, 100)])
def test_from_no_noise_to_nothing_but_noise(kind, k, num_classes):
    scales = np.array([0, 1e-9, 1e-4, 0.02, 0.1, 0.3, 0.6, 1, 2, 5, 30, 1e3, np.inf])
    found = noise.noise_unreliability(kind, scales, k=k, num_classes=num_classes)
    chance = 1 - k / num_classes
    assert_allclose(found[:3], 0, atol=1e-12)
    assert_allclose(found[-2:], chance, atol=1e-2)
    assert_allclose(found[-1], chance, rtol=1e-12)
    assert (np.diff(found[4:]) > 0).all() or kind == "uniform"
    assert (np.diff(found) >= 0).all()
    # Hence Δ + γ < 1 at every finite scale
    ambiguity = noise.exchangeable_ambiguity(found, k=k, num_classes=num_classes)
    assert (found + ambiguity)[:-1].max() < 1


def test_bounded_noise_may_change_no_rank():
    assert_array_equal(
        noise.noise_unreliability("uniform", [0.2, 0.5], k=3, num_classes=10), [0, 0]
    )
    assert noise.noise_unreliability("uniform", 0.6, k=3, num_classes=10) > 0


@each_kind
def test_scales_and_sizes_broadcast(kind):
    scales, ks = np.array([[0.6], [2.0]]), np.array([1, 3, 9])
    found = noise.noise_unreliability(kind, scales, k=ks, num_classes=10)
    assert found.shape == (2, 3)
    assert found.dtype == np.float64
    for i, scale in enumerate(scales[:, 0]):
        for j, k in enumerate(ks):
            single = noise.noise_unreliability(kind, scale, k=k, num_classes=10)
            assert_allclose(found[i, j], single, rtol=1e-12)
    assert (np.diff(found, axis=1) < 0).all()  # a larger set misses less


@pytest.mark.parametrize(
    ("num_classes", "scale", "by_sum", "by_divergence"),
    [
        (10, 0.5, 2, 1),
        (10, 1, 3, 2),
        (10, 2, 4, 2),
        (10, 5, 5, 3),
        (100, 0.3, 5, 1),
        (100, 0.5, 16, 6),
        (100, 1, 31, 14),
        (100, 2, 40, 20),
    ],
)
def test_best_k_of_gaussian_noise(num_classes, scale, by_sum, by_divergence):
    found = noise.best_k("gaussian", scale, num_classes=num_classes)
    assert found == (by_divergence, by_sum)


@each_kind
def test_best_k_by_looking_at_every_k(kind):
    for scale in (0.4, 1.5):
        rows = []
        for k in range(1, 10):
            d = float(noise.noise_unreliability(kind, scale, k=k, num_classes=10))
            g = (k - 1 + d) / 9
            rows.append(((math.sqrt(1 - max(d, g)) - math.sqrt(min(d, g))) ** 2, -(d + g)))
        expected = [1 + int(np.argmax(column)) for column in zip(*rows, strict=True)]
        assert noise.best_k(kind, scale, num_classes=10) == tuple(expected)
    assert noise.best_k(kind, np.full((2, 3), 0.4), num_classes=10).by_sum.shape == (2, 3)


def test_randomised_response_is_gumbel_noise_at_the_top():
    epsilons = np.array([0, 0.1, 1, 5, 30, 1e4])
    unreliability, ambiguity = noise.randomised_response_indicators(epsilons, num_classes=10)
    expected = 10 / (np.exp(np.minimum(epsilons, 600)) + 9)
    assert_allclose(unreliability + ambiguity, expected, rtol=1e-12, atol=1e-250)
    assert_allclose(
        ambiguity, noise.exchangeable_ambiguity(unreliability, k=1, num_classes=10), rtol=1e-12
    )
    gumbel = noise.noise_unreliability("gumbel", 1 / epsilons[1:], k=1, num_classes=10)
    assert_allclose(gumbel, unreliability[1:], rtol=1e-9, atol=1e-250)


def test_simulated_responses_agree():
    labels = np.arange(20000) % 10
    told = targets.randomised_response(labels, jax.random.key(0), num_classes=10, epsilon=2.0)
    unreliability, ambiguity = noise.randomised_response_indicators(2.0, num_classes=10)
    missed = unreliability_degree(told, labels, 1)
    assert abs(missed - unreliability) < 4 * math.sqrt(unreliability * (1 - unreliability) / 20000)
    rates = np.asarray(ambiguity_matrix(told, labels, 1))
    wrong = rates[~np.eye(10, dtype=bool)]  # ninety cells of 2000 examples
    assert_allclose(wrong, ambiguity, atol=4 * math.sqrt(ambiguity * (1 - ambiguity) / 2000))


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 3.0, 50.0, 2000.0])
@pytest.mark.parametrize("delta", [1e-9, 1e-5, 0.1])
def test_gaussian_scale_is_private_and_no_less_would_be(epsilon, delta):
    def excess(sigma):
        """δ = E max(0, 1 − exp(ε − loss)), the loss being Gaussian: mean μ²/2, variance μ²."""
        mu = 1.5 / sigma
        first = (epsilon - mu**2 / 2) / mu  # from where the loss exceeds ε, in standard deviations
        inside = integrate.quad(
            lambda z: stats.norm.pdf(z) * -math.expm1(epsilon - mu**2 / 2 - mu * z),
            first,
            first + 40,
            points=[first + 0.5, first + 2],
            epsabs=0,
            epsrel=1e-9,
            limit=500,
        )
        return inside[0]

    sigma = float(noise.gaussian_mechanism_scale(epsilon, delta, sensitivity=1.5))
    assert_allclose(excess(sigma), delta, rtol=1e-5)
    if epsilon < 1:
        assert sigma < 1.5 * math.sqrt(2 * math.log(1.25 / delta)) / epsilon


def test_mechanism_scales_broadcast_and_grow_with_sensitivity():
    epsilons, deltas = np.array([[0.5], [2.0]]), np.array([1e-6, 1e-5, 1e-4])
    sigma = noise.gaussian_mechanism_scale(epsilons, deltas, sensitivity=1.0)
    assert sigma.shape == (2, 3)
    assert (np.diff(sigma, axis=1) < 0).all()
    assert (np.diff(sigma, axis=0) < 0).all()
    doubled = noise.gaussian_mechanism_scale(epsilons, deltas, sensitivity=2.0)
    assert_allclose(doubled, 2 * sigma, rtol=1e-12)
    assert_allclose(noise.laplace_mechanism_scale(epsilons, sensitivity=2), [[4], [1]])


def unreliability_of(kind="gaussian", scale=1.0, k=1, num_classes=10):
    return noise.noise_unreliability(kind, scale, k=k, num_classes=num_classes)


BAD = {
    "unknown kind": (
        ValueError,
        'kind: expected "gaussian", "uniform", "laplace" or "gumbel", got \'cauchy\'',
        lambda: unreliability_of("cauchy"),
    ),
    "negative scale": (
        ValueError,
        "scale: expected 0 or more, got -1",
        lambda: unreliability_of(scale=[1, -1]),
    ),
    "missing scale": (ValueError, "scale: .* got nan", lambda: unreliability_of(scale=math.nan)),
    "k of C": (ValueError, "k: expected 1 … 9", lambda: unreliability_of(k=10)),
    "k of none": (ValueError, "k: .* got 0", lambda: unreliability_of(k=[1, 0])),
    "broken k": (TypeError, "k: expected a whole number, got 1.5", lambda: unreliability_of(k=1.5)),
    "level": (
        ValueError,
        r"unreliability: expected a level in \[0, 1\], got 2",
        lambda: noise.exchangeable_ambiguity(2.0, k=1, num_classes=10),
    ),
    "k of an ambiguity": (
        ValueError,
        "k: expected 1 … 9",
        lambda: noise.exchangeable_ambiguity(0.5, k=10, num_classes=10),
    ),
    "best k of no noise": (
        ValueError,
        "scale: expected a number above zero, got 0",
        lambda: noise.best_k("gaussian", 0.0, num_classes=10),
    ),
    "best k of one class": (
        ValueError,
        "num_classes: expected 2 or more, got 1",
        lambda: noise.best_k("gaussian", 1.0, num_classes=1),
    ),
    "response of negative epsilon": (
        ValueError,
        "epsilon: expected 0 or more, got -1",
        lambda: noise.randomised_response_indicators(-1.0, num_classes=10),
    ),
    "response of one class": (
        ValueError,
        "num_classes: expected 2 or more, got 1",
        lambda: noise.randomised_response_indicators(1.0, num_classes=1),
    ),
    "Laplace epsilon": (
        ValueError,
        "epsilon: expected a number above zero, got 0",
        lambda: noise.laplace_mechanism_scale(0.0, sensitivity=2),
    ),
    "Gaussian sensitivity": (
        ValueError,
        "sensitivity: expected a number above zero, got -1",
        lambda: noise.gaussian_mechanism_scale(1.0, 1e-5, sensitivity=-1),
    ),
    "Gaussian delta": (
        ValueError,
        r"delta: expected a number in \(0, 1\), got 0",
        lambda: noise.gaussian_mechanism_scale(1.0, 0, sensitivity=1),
    ),
    "Gaussian delta missing": (
        ValueError,
        r"delta: expected a number in \(0, 1\), got nan",
        lambda: noise.gaussian_mechanism_scale(1.0, math.nan, sensitivity=1),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_at_the_door(case):
    error, message, call = BAD[case]
    with pytest.raises(error, match=message):
        call()


def test_a_traced_scale_is_refused_by_jax():
    with pytest.raises(jax.errors.TracerArrayConversionError):
        jax.jit(unreliability_of, static_argnames="kind")("gaussian", 1.0)
