import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from jsoft import certificates, indicators
from jsoft.certificates import certify, certify_draws, certify_sets, upper_limit

# U(c, n, α) to the printed digits.
GOLDEN = [
    (0, 100, 0.025, "0.036217"),
    (23, 100, 0.025, "0.324859"),
    (2333, 10000, 0.025, "0.241716"),
    (5, 40000, 0.025, "0.000292"),
    (0, 20, 0.05, "0.139108"),
]
METHODS = ["paper", "class_conditional", "paired"]
DRAWS_METHODS = ["first_draw", "chernoff_hoeffding", "each_example"]
each_method = pytest.mark.parametrize("method", METHODS)
each_draws_method = pytest.mark.parametrize("method", DRAWS_METHODS)


def exchangeable_sets(rng, labels, num_classes, k, unreliability):
    """Sets of k classes that miss the truth at rate Δ and favour no wrong class."""
    scores = rng.random((len(labels), num_classes))
    missed = rng.random(len(labels)) < unreliability
    scores[np.arange(len(labels)), labels] = np.where(missed, -1, 2)
    return scores.argsort(axis=1).argsort(axis=1) >= num_classes - k


def random_soft_labels(seed, n=240, num_classes=4, signal=2.0, levels=None):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % num_classes)
    values = rng.normal(size=(n, num_classes)) + signal * np.eye(num_classes)[labels]
    if levels:  # few distinct values, hence many ties
        values = np.round(values * levels) / levels
    return values.astype(np.float32), labels


# References: the formulas, a loop over cells.


def reference_upper(c, n, alpha):
    return 1.0 if c == n else float(stats.beta.ppf(1 - alpha, c + 1, n - c))


def reference_counts(sets, labels):
    num_classes = sets.shape[1]
    n, members = np.zeros(num_classes, int), np.zeros((num_classes, num_classes), int)
    for row, y in zip(sets, labels, strict=True):
        n[y] += 1
        for i in range(num_classes):
            members[y, i] += row[i]
    return n, members


def reference_paper(sets, labels, alpha):
    n, members = reference_counts(sets, labels)
    misses = sum(n[y] - members[y, y] for y in range(len(n)))
    pairs = [(y, i) for y in range(len(n)) for i in range(len(n)) if i != y]
    limits = [reference_upper(members[y, i], n[y], alpha / 2) for y, i in pairs]
    return reference_upper(misses, n.sum(), alpha / 2), max(limits)


def reference_class_conditional(sets, labels, alpha):
    n, members = reference_counts(sets, labels)
    return max(
        reference_upper(n[y] - members[y, y], n[y], alpha / 2)
        + reference_upper(members[y, i], n[y], alpha / 2)
        for y in range(len(n))
        for i in range(len(n))
        if i != y
    )


def reference_paired(sets, labels):
    worst = 0.0
    for y in range(sets.shape[1]):
        for i in range(sets.shape[1]):
            b = sum(row[y] and not row[i] for row in sets[labels == y])
            c = sum(row[i] and not row[y] for row in sets[labels == y])
            tail = sum(math.comb(b + c, j) for j in range(b, b + c + 1)) / 2 ** (b + c)
            worst = max(worst, tail if i != y else 0.0)
    return worst


# Limits


@pytest.mark.parametrize(("c", "n", "alpha", "printed"), GOLDEN)
def test_golden_limits_to_the_printed_digits(c, n, alpha, printed):
    assert f"{upper_limit(c, n, alpha):.6f}" == printed


@pytest.mark.parametrize("alpha", [1e-9, 0.05, 0.5, 0.99])
@pytest.mark.parametrize("n", [1, 2, 7, 100, 10**6])
def test_limits_invert_the_binomial_tails(n, alpha):
    c = np.unique([0, 1, n // 3, n // 2, n - 1, n])
    upper, lower = upper_limit(c, n, alpha), certificates.lower_limit(c, n, alpha)
    assert upper.dtype == lower.dtype == np.float64
    rounding = 4e-16 * n  # next to 1 the tail magnifies the rounding of the limit n times
    assert_allclose(stats.binom.cdf(c, n, upper)[c < n], alpha, rtol=1e-8, atol=rounding)
    assert_allclose(stats.binom.sf(c - 1, n, lower)[c > 0], alpha, rtol=1e-8, atol=rounding)
    assert upper[-1] == 1
    assert lower[0] == 0
    assert_allclose(lower, 1 - upper_limit(n - c, n, alpha), rtol=1e-9, atol=1e-15)
    assert np.all(np.diff(upper) > 0)


@pytest.mark.parametrize("n", [1, 5, 40])
def test_limits_agree_with_scipy(n):
    for c in range(n + 1):
        found = stats.binomtest(c, n).proportion_ci(0.9, method="exact")
        assert_allclose(certificates.lower_limit(c, n, 0.05), found.low, rtol=1e-9)
        assert_allclose(upper_limit(c, n, 0.05), found.high, rtol=1e-9)


def test_limits_broadcast_and_know_nothing_without_trials():
    assert upper_limit(np.zeros((2, 1), int), [1, 2, 3], 0.05).shape == (2, 3)
    assert upper_limit(0, 0, 0.05) == 1
    assert certificates.lower_limit(0, 0, 0.05) == 0
    assert certificates.hoeffding_limit(0.5, 0, 0.05) == 1


def test_hoeffding_limit_solves_its_equation():
    mean, n, alpha = np.array([0.001, 0.2333, 0.5, 0.99]), 200, 0.025
    limit = certificates.hoeffding_limit(mean, n, alpha)
    kl = mean * np.log(mean / limit) + (1 - mean) * np.log((1 - mean) / (1 - limit))
    assert_allclose(n * kl, math.log(1 / alpha), rtol=1e-9)
    assert np.all(limit > upper_limit(np.round(mean * n), n, alpha) - 1e-12)  # never tighter
    assert_allclose(certificates.hoeffding_limit(0, n, alpha), 1 - alpha ** (1 / n), rtol=1e-12)
    assert certificates.hoeffding_limit(1, n, alpha) == 1


# Certificates against the loops


@pytest.mark.parametrize("levels", [None, 1], ids=["no ties", "ties"])
@pytest.mark.parametrize("k", [1, 3])
def test_certificates_match_the_loops(k, levels):
    soft_labels, labels = random_soft_labels(k, levels=levels)
    sets = np.asarray(indicators.pessimistic_sets(soft_labels, labels, k))
    paper = certify(soft_labels, labels, k, alpha=0.1)
    limits = (paper.unreliability_limit, paper.ambiguity_limit)
    assert_allclose(limits, reference_paper(sets, labels, 0.1), rtol=1e-12)
    assert paper.certified == (sum(limits) < 1)
    by_class = certify(soft_labels, labels, k, alpha=0.1, method="class_conditional")
    total = by_class.unreliability_limit + by_class.ambiguity_limit
    assert_allclose(total, reference_class_conditional(sets, labels, 0.1), rtol=1e-12)
    paired = certify(soft_labels, labels, k, alpha=0.1, method="paired")
    assert_allclose(paired.p_value, reference_paired(sets, labels), rtol=1e-9)
    assert paired.certified == (paired.p_value <= 0.1)
    for method in METHODS:  # candidate sets that are the top-k sets
        of_labels = certify(soft_labels, labels, k, alpha=0.1, method=method)
        of_sets = certify_sets(sets, labels, alpha=0.1, method=method)
        assert of_sets.evidence == of_labels.evidence
        assert of_sets.k is None


@each_method
def test_order_of_rows_and_classes_does_not_matter(method):
    soft_labels, labels = random_soft_labels(0, levels=2)
    rng = np.random.default_rng(1)
    rows, classes = rng.permutation(len(labels)), rng.permutation(4)
    found = certify(soft_labels, labels, 2, method=method)
    assert certify(soft_labels[rows], labels[rows], 2, method=method).evidence == found.evidence
    renamed = certify(soft_labels[:, classes], np.argsort(classes)[labels], 2, method=method)
    # the same but for the names; NaN = NaN here
    for name in ("unreliability_limit", "ambiguity_limit", "p_value"):
        assert_array_equal(getattr(renamed, name), getattr(found, name))
    assert renamed.certified == found.certified


@each_method
def test_rows_left_out_do_not_count(method):
    soft_labels, labels = random_soft_labels(2)
    where = np.arange(len(labels)) % 3 > 0
    expected = certify(soft_labels[where], labels[where], 1, method=method)
    soft_labels[~where], labels[~where] = np.nan, -1
    found = certify(soft_labels, labels, 1, method=method, where=where)
    assert found.evidence == expected.evidence
    assert found.examples == expected.examples


def test_every_way_of_breaking_ties_is_bounded():
    soft_labels, labels = random_soft_labels(3, levels=1)
    worst = certify(soft_labels, labels, 2)
    for seed in range(5):
        members = indicators.membership(soft_labels, 2, ties="random", key=jax.random.key(seed))
        some = certify_sets(members > 0, labels)
        assert some.unreliability_limit <= worst.unreliability_limit
        assert some.ambiguity_limit <= worst.ambiguity_limit


def test_one_hot_labels_certify_at_one_and_not_beyond():
    labels = np.arange(200) % 4
    assert certify(np.eye(4)[labels], labels, 1).certified
    assert not certify(np.eye(4)[labels], labels, 2).certified  # any wrong class may come second
    assert not certify(np.full((200, 4), 0.25), labels, 1).certified


def test_one_example_certifies_nothing():
    for method in METHODS:
        assert not certify(np.eye(2)[:1], np.array([0]), 1, method=method).certified


# k: one, or several that are paid for


def test_several_k_share_the_level_and_the_best_is_returned():
    soft_labels, labels = random_soft_labels(4)
    found = certify(soft_labels, labels, range(1, 4), alpha=0.06)
    each = [certify(soft_labels, labels, k, alpha=0.02) for k in (1, 2, 3)]
    best = min(each, key=lambda c: c.unreliability_limit + c.ambiguity_limit)
    assert found.k == best.k
    assert found.evidence == best.evidence
    assert found.considered == (1, 2, 3)
    assert found.alpha == 0.06
    assert "came out best of 1, 2, 3; each was tested at α/3" in found.statement
    assert certify(soft_labels, labels, np.array([3, 1, 2, 2]), alpha=0.06) == found


def test_paired_chooses_k_by_its_p_value():
    soft_labels, labels = random_soft_labels(5)
    found = certify(soft_labels, labels, [1, 2, 3], method="paired")
    values = [certify(soft_labels, labels, k, method="paired").p_value for k in (1, 2, 3)]
    assert found.k == 1 + int(np.argmin(values))
    assert found.p_value == min(values)


def test_a_k_found_on_the_examples_is_refused():
    soft_labels, labels = random_soft_labels(0)
    with pytest.raises(ValueError, match="found on the examples voids the level"):
        certify(soft_labels, labels, "best")


# What it says


def test_statement_names_claim_level_k_counts_and_population():
    labels = np.arange(16) % 2
    found = certify(np.eye(2)[labels], labels, 1, alpha=0.125)
    assert str(found) == found.statement
    assert found.statement.splitlines() == [
        "Certified with 87.5 % confidence (α = 0.125): Δ + γ < 1, the paper's condition.",
        "For the top-1 sets, Δ ≤ 0.1591 (0 of 16) and γ ≤ 0.2929 (0 of 8, true class 0 with class "
        "1), together 0.4520.",
        "Valid if k = 1 and the method were fixed without these examples.",
        "About the law these 16 examples were drawn from, each independently; a teacher's own "
        "training rows are no such draw.",
    ]


def test_what_is_not_certified_is_not_refuted():
    found = certify(np.eye(3)[[0, 1]], np.array([0, 1]), 1)
    assert not found.certified
    assert found.statement.startswith("Not certified")
    assert "Without examples: class 2." in found.statement
    assert found.statement.endswith("more examples may certify it, or may not.")


@each_method
def test_a_class_without_examples_blocks_the_certificate(method):
    labels = np.arange(1000) % 3
    present = certify(np.eye(3)[labels], labels, 1, method=method)
    absent = certify(np.eye(4)[labels], labels, 1, method=method)
    assert present.certified
    assert not absent.certified
    assert absent.examples[3] == 0
    assert absent.worst_pair[0] == 3


def test_certificates_are_frozen():
    found = certify(np.eye(2), np.array([0, 1]), 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.certified = True


# γ: interval and split


@pytest.mark.parametrize("levels", [None, 1], ids=["no ties", "ties"])
def test_ambiguity_interval_matches_the_loop(levels):
    soft_labels, labels = random_soft_labels(6, levels=levels)
    low, high = certificates.ambiguity_interval(soft_labels, labels, 2, alpha=0.1)
    lows, highs = [], []
    for y in range(4):
        rows = soft_labels[labels == y]
        for i in set(range(4)) - {y}:
            surely = sum((row >= row[i]).sum() - 1 < 2 for row in rows)
            possibly = sum((row > row[i]).sum() < 2 for row in rows)
            lows.append(1 - reference_upper(len(rows) - surely, len(rows), 0.1 / 24))
            highs.append(reference_upper(possibly, len(rows), 0.05))
    assert_allclose((low, high), (max(lows), max(highs)), rtol=1e-9)
    assert low < indicators.ambiguity_degree(soft_labels, labels, 2) < high


def test_split_ambiguity_by_hand():
    # one class, one wrong cell: each half reads what the other holds
    soft_labels = np.array([[0.7, 0.3]] * 6 + [[0.2, 0.8]] * 2)
    found = certificates.split_ambiguity(soft_labels, np.zeros(8, int), 1, jax.random.key(0))
    assert found == 0.25
    with pytest.raises(ValueError, match="labels: expected a class with two examples"):
        certificates.split_ambiguity(np.eye(2), np.array([0, 1]), 1, jax.random.key(0))


def test_split_ambiguity_and_the_plug_in_bracket_the_truth():
    # Ten classes, k = 3, Δ = 0.1: γ = 2.1/9 in every cell, where the split is unbiased and the
    # plug-in is 0.11 too high. One split has a standard deviation of √(γ(1 − γ)/50/2) = 0.042, the
    # mean of 40 one of 0.007; the bound is at four of these.
    rng = np.random.default_rng(7)
    split, plug_in = [], []
    for trial in range(40):
        labels = rng.permutation(np.arange(1000) % 10)
        scores = exchangeable_sets(rng, labels, 10, 3, 0.1).astype(np.float32)
        split.append(certificates.split_ambiguity(scores, labels, 3, jax.random.key(trial)))
        plug_in.append(float(indicators.measure_sets(scores > 0, labels).ambiguity))
    assert abs(np.mean(split) - 2.1 / 9) < 0.028
    assert 0.32 < np.mean(plug_in) < 0.37


@pytest.mark.slow
def test_split_ambiguity_with_one_confuser_per_class():
    # k = 3, n = 2000 and class y + 1 favoured, γ near 0.467. One split has a standard deviation of
    # 0.035, the mean of 200 one of 0.0025; the truth is read off a million examples, to 0.002.
    def soft_labels(labels):
        values = rng.gumbel(size=(len(labels), 10)).astype(np.float32)
        values[np.arange(len(labels)), (labels + 1) % 10] += 0.92
        values[np.arange(len(labels)), labels] = np.where(rng.random(len(labels)) < 0.1, -99, 99)
        return values

    rng = np.random.default_rng(0)
    labels = np.arange(1_000_000) % 10
    truth = float(indicators.measure(soft_labels(labels), labels, max_k=3).ambiguity[2])
    labels, split, plug_in = labels[:2000], [], []
    for trial in range(200):
        values = soft_labels(labels)
        split.append(certificates.split_ambiguity(values, labels, 3, jax.random.key(trial)))
        plug_in.append(float(indicators.measure(values, labels, max_k=3).ambiguity[2]))
    assert truth - 0.02 < np.mean(split) < truth + 0.01
    assert truth + 0.035 < np.mean(plug_in) < truth + 0.075  # printed: 0.052


# Levels, by simulation. A share of T trials has a standard error of at most 0.5/√T.


def test_coverage_of_the_largest_cell_wastes_nothing():
    # One dominant cell, p = 0.6, n = 100, among 89 small ones; α = 0.05 and 20 000 trials.
    counts = np.random.default_rng(0).binomial(100, [0.6] + [0.1] * 89, size=(20_000, 90))
    largest = upper_limit(counts.max(axis=1), 100, 0.05)
    assert 0.95 <= np.mean(largest >= 0.6) <= 0.97
    exact = stats.binom.pmf(np.arange(101), 100, 0.6) @ (upper_limit(range(101), 100, 0.05) >= 0.6)
    assert abs(np.mean(largest >= 0.6) - exact) < 0.006  # four standard errors


def test_pooled_draws_under_cover_and_the_valid_limits_do_not():
    # 200 examples, 20 draws each, chance p ~ Beta with mean 0.2333 and ICC 1/3; 4000 trials
    rng = np.random.default_rng(0)
    mean, n, num_draws = 2.1 / 9, 200, 20
    chance = rng.beta(2 * mean, 2 * (1 - mean), size=(4000, n))
    hits = rng.binomial(num_draws, chance)
    first = rng.binomial(1, hits / num_draws)  # draws are exchangeable: one at random
    pooled = upper_limit(hits.sum(axis=1), n * num_draws, 0.05)
    of_first = upper_limit(first.sum(axis=1), n, 0.05)
    of_means = certificates.hoeffding_limit(hits.mean(axis=1) / num_draws, n, 0.05)
    assert np.mean(pooled >= mean) <= 0.80
    assert np.mean(of_first >= mean) >= 0.945  # 0.95, less 1.5 standard errors
    assert np.mean(of_means >= mean) >= 0.99


def boundary_samples(num_trials, n=1000):
    """Ten classes with Δ = 0.3, and γ = 0.7 in one cell alone: Δ + γ = 1."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 10
    for _ in range(num_trials):
        sets = np.zeros((n, 10), bool)
        sets[np.arange(n), labels] = rng.random(n) < 0.7
        sets[labels == 0, 1] = rng.random(n // 10) < 0.7
        yield sets, labels


def shares_of_yes(num_trials):
    plug_in = certified = 0
    for sets, labels in boundary_samples(num_trials):
        unreliability = 1 - sets[np.arange(len(labels)), labels].mean()
        plug_in += unreliability + sets[labels == 0, 1].mean() < 1
        certified += certify_sets(sets, labels).certified
    return plug_in / num_trials, certified / num_trials


def test_error_on_the_boundary():
    plug_in, certified = shares_of_yes(300)
    assert 0.37 < plug_in < 0.61  # 0.49, four standard errors
    assert certified <= 0.03  # about 0.005: seven standard errors below α = 0.05


@pytest.mark.slow
def test_error_on_the_boundary_closely():
    plug_in, certified = shares_of_yes(4000)
    assert abs(plug_in - 0.49) < 0.03
    assert 0.001 < certified < 0.012  # 0.005 with a standard error of 0.001


@pytest.mark.slow
@pytest.mark.parametrize("method", ["class_conditional", "paired"])
def test_error_on_the_boundary_of_classes(method):
    # One pair on the line, all others far inside. Four standard errors of 0.05 are 0.02.
    rng = np.random.default_rng(0)
    labels = np.arange(1000) % 10
    certified = 0
    for _ in range(2000):
        sets = np.eye(10, dtype=bool)[labels]
        sets[labels == 0, 0] = rng.random(100) < 0.6
        sets[labels == 0, 1] = rng.random(100) < 0.6
        certified += certify_sets(sets, labels, method=method).certified
    assert certified / 2000 <= 0.05 + 0.02


@pytest.mark.slow
def test_without_correction_the_many_cells_still_cover():
    # Ten classes, k = 3, γ = 2.1/9 in all 90 cells: U near 0.448 on average, and always above γ.
    rng = np.random.default_rng(0)
    labels = np.arange(1000) % 10
    limits = [
        certify_sets(exchangeable_sets(rng, labels, 10, 3, 0.1), labels).ambiguity_limit
        for _ in range(300)
    ]
    assert min(limits) > 2.1 / 9
    assert abs(np.mean(limits) - 0.448) < 0.006  # standard deviation 0.02 over √300, fourfold


# Several draws


def draws_of(seed, n, num_draws, num_classes=4, k=2, unreliability=0.1):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % num_classes
    sets = exchangeable_sets(rng, np.repeat(labels, num_draws), num_classes, k, unreliability)
    return sets.reshape(n, num_draws, num_classes).astype(np.float32), labels


def test_draws_match_the_loops():
    draws, labels = draws_of(0, n=80, num_draws=15)
    sets, alpha = draws > 0, 0.1
    first = certify_draws(draws, labels, 2, alpha=alpha)
    assert first.evidence == certify(draws[:, 0], labels, 2, alpha=alpha).evidence

    means = sets.mean(axis=1)
    found = certify_draws(draws, labels, 2, alpha=alpha, method="chernoff_hoeffding")
    missed = 1 - means[np.arange(80), labels].mean()
    cells = [means[labels == y, i].mean() for y in range(4) for i in range(4) if i != y]
    expected = certificates.hoeffding_limit([missed, max(cells)], [80, 20], alpha / 2)
    assert_allclose((found.unreliability_limit, found.ambiguity_limit), expected, rtol=1e-9)

    found = certify_draws(draws, labels, 2, alpha=alpha, method="each_example")
    totals = []
    for example, y in zip(sets, labels, strict=True):
        hits = example.sum(axis=0)
        wrong = max(hits[i] for i in range(4) if i != y)
        limits = (15 - hits[y], 15, alpha / 2), (wrong, 15, alpha / 2)
        totals.append(sum(reference_upper(*limit) for limit in limits))
    assert_allclose(found.unreliability_limit + found.ambiguity_limit, max(totals), rtol=1e-12)
    assert f"{np.sum(np.array(totals) < 1)} of 80 examples pass" in found.evidence


@each_draws_method
def test_draws_with_rows_left_out_and_several_k(method):
    draws, labels = draws_of(1, n=40, num_draws=10)
    where = np.arange(40) < 28
    found = certify_draws(draws, labels, [1, 2], method=method, where=where)
    assert found == certify_draws(draws[where], labels[where], (2, 1), method=method)
    assert found.considered == (1, 2)
    assert found.method == method


def test_population_of_draws_is_named():
    draws, labels = draws_of(2, n=8, num_draws=3)
    first = certify_draws(draws, labels, 2)
    assert "About the law these 8 examples, one draw for each, were drawn from" in first.statement
    own = certify_draws(draws, labels, 2, method="each_example")
    assert "About new draws for these 8 examples, and about no other examples." in own.statement


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_draws", "least", "most"), [(20, 0.68, 0.76), (40, 0.997, 1.0), (60, 1.0, 1.0)]
)
def test_draws_needed_for_each_example(num_draws, least, most):
    # Δ = 0.1, γ = 2.1/9 at every one of 2000 examples: 72 %, 99.9 % and all of them pass.
    draws, labels = draws_of(3, n=2000, num_draws=num_draws, num_classes=10, k=3)
    found = certify_draws(draws, labels, 3, method="each_example")
    share = int(found.evidence.split(" of ")[0]) / 2000
    assert least <= share <= most
    assert found.certified == (share == 1)


# Sample sizes


def test_smallest_sample_of_exact_cases():
    # Without errors the outcome is certain. Paired: 2^(−m) ≤ α. Paper: U(0, 2m) + U(0, m) < 1.
    key = jax.random.key(0)
    for alpha in (0.05, 0.01):
        m = math.ceil(-math.log2(alpha))
        settings = {"k": 1, "num_classes": 2, "alpha": alpha, "num_trials": 1}
        assert certificates.smallest_sample(0.0, key, method="paired", **settings) == 2 * m
        m = next(m for m in range(1, 99) if sum(upper_limit(0, [2 * m, m], alpha / 2)) < 1)
        assert certificates.smallest_sample(0.0, key, **settings) == 2 * m


def test_smallest_sample_is_seeded_and_has_the_power():
    key = jax.random.key(1)
    n = certificates.smallest_sample(0.2, key, k=3, num_classes=10, num_trials=60)
    assert n == certificates.smallest_sample(0.2, key, k=3, num_classes=10, num_trials=60)
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 10
    passed = [
        certify_sets(exchangeable_sets(rng, labels, 10, 3, 0.2), labels).certified
        for _ in range(100)
    ]
    assert 0.7 < np.mean(passed) <= 1  # two simulations, of 60 and of 100: 0.05 each, fourfold


@pytest.mark.slow
@pytest.mark.parametrize(
    ("unreliability", "method", "least", "most"),
    [
        # The table tried 300, 500, 1000, 2000, 3000 and 4000; its entry is the first to pass.
        (0.2, "paper", 150, 330),
        (0.2, "class_conditional", 480, 1050),
        (0.2, "paired", 300, 550),
        (0.4, "paper", 480, 1050),
        (0.4, "class_conditional", 1000, 2100),
        (0.4, "paired", 800, 1300),
        (0.5, "paper", 1000, 2100),
        (0.5, "class_conditional", 2800, 4200),
        (0.5, "paired", 2000, 3300),
        (0.6, "paper", 4000, 9000),
        (0.6, "paired", 4000, 12000),
    ],
)
def test_smallest_sample_as_printed(unreliability, method, least, most):
    key = jax.random.key(0)
    n = certificates.smallest_sample(unreliability, key, k=3, num_classes=10, method=method)
    assert least <= n <= most


# The door

SOFT, LABELS = np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 0])


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_levels_outside_the_unit_interval_are_refused(alpha):
    calls = [
        lambda: upper_limit(0, 1, alpha),
        lambda: certificates.hoeffding_limit(0.0, 1, alpha),
        lambda: certificates.ambiguity_interval(SOFT, LABELS, 1, alpha=alpha),
        lambda: certify(SOFT, LABELS, 1, alpha=alpha),
        lambda: certify_sets(SOFT > 0, LABELS, alpha=alpha),
        lambda: certify_draws(SOFT[:, None], LABELS, 1, alpha=alpha),
        lambda: certificates.smallest_sample(
            0.1, jax.random.key(0), k=1, num_classes=3, alpha=alpha
        ),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"alpha: expected a number in \(0, 1\), got"):
            call()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: upper_limit(-1, 2, 0.05), ValueError, "successes: expected whole numbers"),
        (lambda: upper_limit(0.5, 2, 0.05), ValueError, "successes: expected whole numbers"),
        (lambda: upper_limit(0, 2.5, 0.05), ValueError, "trials: expected whole numbers"),
        (lambda: upper_limit(3, 2, 0.05), ValueError, "no more than trials"),
        (lambda: certificates.hoeffding_limit(1.5, 2, 0.05), ValueError, "mean: expected a level"),
        (lambda: certify(SOFT, LABELS, 0), ValueError, "k: expected 1 … 2"),
        (lambda: certify(SOFT, LABELS, [1, 3]), ValueError, "k: expected 1 … 2"),
        (lambda: certify(SOFT, LABELS, []), ValueError, "k: expected at least one"),
        (lambda: certify(SOFT, LABELS, 1.5), TypeError, "k: expected a whole number"),
        (lambda: certify(SOFT.astype(int), LABELS, 1), TypeError, "soft_labels: expected float"),
        (lambda: certify(SOFT[0], LABELS, 1), ValueError, r"soft_labels: expected shape \[N, C\]"),
        (lambda: certify(SOFT * np.nan, LABELS, 1), ValueError, "soft_labels: expected finite"),
        (lambda: certify(SOFT, LABELS + 1, 1), ValueError, "labels: expected classes in 0 … 2"),
        (lambda: certify(SOFT, LABELS[:3], 1), ValueError, r"labels: expected shape \[4\]"),
        (lambda: certify(SOFT, LABELS * 1.0, 1), TypeError, "labels: expected integer"),
        (
            lambda: certify(SOFT, LABELS, 1, where=np.zeros(4, bool)),
            ValueError,
            "where: expected at least one example",
        ),
        (
            lambda: certify(SOFT, LABELS, 1, method="first_draw"),
            ValueError,
            "method: expected one of paper, class_conditional, paired, got 'first_draw'",
        ),
        (
            lambda: certify_draws(SOFT[:, None], LABELS, 1, method="pooled"),
            ValueError,
            "method: expected one of first_draw, chernoff_hoeffding, each_example, got 'pooled'",
        ),
        (lambda: certify_draws(SOFT, LABELS, 1), ValueError, r"expected shape \[N, R, C\]"),
        (lambda: certify_sets(SOFT, LABELS), TypeError, "candidate_sets: expected boolean"),
        (
            lambda: certificates.smallest_sample(0.5, jax.random.key(0), k=2, num_classes=3),
            ValueError,
            "expected Δ \\+ γ < 1, which a sample can certify, got Δ = 0.5 and with it γ = 0.75",
        ),
    ],
)
def test_bad_input_is_refused_at_the_door(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_labels_of_any_float_type_and_jax_arrays_are_taken():
    for dtype in (jnp.float32, jnp.bfloat16, np.float64):
        assert certify(np.asarray(SOFT, dtype), jnp.asarray(LABELS), 1).evidence.startswith("Δ ≤")


# Certificates from counts.


def counted(soft_labels, labels, ks):
    return {
        k: certificates.count_sets(
            np.asarray(indicators.pessimistic_sets(soft_labels, labels, k)), labels
        )
        for k in ks
    }


@pytest.mark.parametrize("method", ["paper", "class_conditional", "paired"])
def test_counts_certify_what_the_rows_do(method):
    labels = np.arange(60) % 3
    soft_labels = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    soft_labels[np.arange(60), labels] += 3
    expected = certificates.certify(soft_labels, labels, [1, 2], method=method)
    found = certificates.certify_counts(counted(soft_labels, labels, [2, 1]), method=method)
    assert found.statement == expected.statement
    halves = [counted(soft_labels[half], labels[half], [1]) for half in (slice(30), slice(30, 60))]
    added = certificates.SetCounts(
        *(a + b for a, b in zip(*(half[1] for half in halves), strict=True))
    )
    one = certificates.certify(soft_labels, labels, 1, method=method)
    assert certificates.certify_counts({1: added}, method=method).statement == one.statement


def test_counts_of_sets_and_of_first_draws_certify_what_those_do():
    labels = np.arange(40) % 2
    sets = np.eye(2, dtype=bool)[labels]
    expected = certificates.certify_sets(sets, labels)
    found = certificates.certify_counts(certificates.count_sets(sets, labels))
    assert found.statement == expected.statement
    draws = np.random.default_rng(0).normal(size=(40, 3, 2)).astype(np.float32)
    expected = certificates.certify_draws(draws, labels, 1)
    found = certificates.certify_counts(counted(draws[:, 0], labels, [1]), method="first_draw")
    assert found.statement == expected.statement


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({}, "counts: expected SetCounts"),
        ({1: np.eye(2)}, "counts: expected SetCounts"),
        ({2: certificates.count_sets(np.eye(2, dtype=bool), np.arange(2))}, "k: expected 1 … 1"),
    ],
)
def test_counts_that_are_none_are_refused(counts, words):
    with pytest.raises(ValueError, match=words):
        certificates.certify_counts(counts)
