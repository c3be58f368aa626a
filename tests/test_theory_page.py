"""docs/theory.md: what it names exists, and its statements that no other test computes."""

import importlib
import itertools
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, stats

from jsoft import indicators, limits, losses, noise, theory

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/theory.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### ([\d.]+) .*\n((?:(?!^##).*\n)*)", PAGE, flags=re.MULTILINE))


def test_functions_of_the_page_exist():
    for name in set(re.findall(r"`jsoft\.(\w+\.\w+)`", PAGE)):
        module, function = name.split(".")
        assert callable(getattr(importlib.import_module(f"jsoft.{module}"), function)), name


def test_tests_of_the_page_exist():
    for name in set(re.findall(r"`(tests/\w+\.py::\w+)`", PAGE)):
        path, function = name.split("::")
        assert f"\ndef {function}(" in (ROOT / path).read_text(encoding="utf-8"), name


def test_every_statement_names_its_test():
    assert len(SECTIONS) > 40
    for number in SECTIONS.keys() - {"4.1"}:  # the assumptions
        line = re.search(r"^(Computed by|Tested in) (.+\n?)+", SECTIONS[number], flags=re.MULTILINE)
        assert line, number
        assert re.search(r"`tests/\w+\.py::\w+`", line[0]), number


def test_page_is_whole():
    headings = re.findall(r"^#+ (.*)", PAGE, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
    links = re.findall(r"\]\(#([^)]+)\)", PAGE)
    assert len(links) == 13
    assert set(links) <= anchors
    assert PAGE.count("```") % 2 == 0
    assert max(len(line) for line in PAGE.splitlines()) <= 120


# Laws of sets over C classes, as chances of all 2^C of them; true class 0


def every_set(num_classes):
    return np.array(list(itertools.product([False, True], repeat=num_classes)))


def test_better_than_chance():
    rng = np.random.default_rng(0)
    sets = every_set(5)
    for k in range(1, 5):
        of_size = sets[sets.sum(axis=1) == k]
        chances = rng.dirichlet(np.full(len(of_size), 0.3), size=300)
        members = chances @ of_size
        unreliability, ambiguity = 1 - members[:, 0], members[:, 1:].max(axis=1)
        assert (unreliability[unreliability + ambiguity < 1] < 1 - k / 5).all()
        least = noise.exchangeable_ambiguity(unreliability, k=k, num_classes=5)
        assert (ambiguity >= least - 1e-12).all()
        assert_allclose(1 - unreliability - least, (5 - k - 5 * unreliability) / 4, atol=1e-12)


def test_separation_and_chernoff_on_random_laws():
    """At one s for all laws of given Δ and γ, E s^(−g) ≤ 1 − D where h answers a wrong class."""
    rng = np.random.default_rng(0)
    sets = every_set(3)
    laws = rng.dirichlet(np.full(8, 0.3), size=3000)
    missed, joined = 1 - laws @ sets[:, 0], laws @ sets[:, 1]  # h answers class 1
    cost = sets[:, 0].astype(int) - sets[:, 1]  # g
    for delta, gamma in [(0.1, 0.3), (0.3, 0.1), (0.4, 0.4), (0.3, 0.6), (0.6, 0.3)]:
        admitted = (missed <= delta) & (joined <= gamma)
        assert admitted.sum() > 20
        assert (laws[admitted] @ cost >= 1 - delta - gamma - 1e-12).all()
        s = math.sqrt((1 - max(delta, gamma)) / min(delta, gamma))
        rate = float(theory.divergence(delta, gamma))
        assert (laws[admitted] @ s ** (-1.0 * cost)).max() <= 1 - rate + 1e-6


@pytest.mark.parametrize(
    ("level", "delta", "n", "failure"),
    [(0.45, 1e-3, 547, "9.5e-03"), (0.45, 1e-6, 837, "1.9e-03"), (0.4, 1e-6, 424, "1.9e-05")],
)
def test_remembered_constant_on_two_hypotheses(level, delta, n, failure):
    theta = theory.theta_conditional(level, level)
    setting = {"epsilon": 1.0, "natarajan_dimension": 1, "num_classes": 2}
    assert math.ceil(theory.sample_complexity(theta, delta=delta, **setting)) == n
    assert f"{stats.binom.cdf(n // 2, n, 1 - level):.1e}" == failure
    finite = theory.finite_class_sample_complexity(
        theory.divergence(level, level), epsilon=1.0, delta=delta, class_size=2
    )
    enough = math.ceil(finite)
    assert stats.binom.cdf(enough // 2, enough, 1 - level) < delta
    if (level, delta) == (0.45, 1e-3):
        assert enough == 1517


def test_average_unreliability_is_not_enough():
    members = np.full((10, 4), 0.5)  # P(i ∈ Ω | x) at ten points, class 0 true
    members[:, 0] = [0.0] + [1.0] * 9
    unreliability = 1 - members[:, 0].mean()
    assert unreliability + 0.5 == pytest.approx(0.6)
    error = (members.argmax(axis=1) != 0).mean()
    assert error == pytest.approx(0.1)
    assert error <= unreliability / (1 - 0.5)
    # The bound is the best: a share of nearly Δ/(1 − γ) where y is in a little less often than γ
    share, in_true = 0.1 / (1 - 0.499), 0.499
    assert share * (1 - in_true) == pytest.approx(0.1)  # Δ
    assert in_true < 0.5
    assert share == pytest.approx(0.1 / (1 - 0.5), rel=0.003)


def test_teachers_own_answer_costs_nothing():
    soft_labels = np.random.default_rng(0).random((50, 6), dtype=np.float32)
    answers = soft_labels.argmax(axis=1)
    for k in range(1, 6):
        assert (
            np.asarray(indicators.membership(soft_labels, k))[np.arange(50), answers] == 1
        ).all()


def test_converse_with_relabelled_classes():
    """All maps of three classes to three: the least superset risk renames class 1 to 2."""
    members = np.array([[0.9, 0.5, 0.3], [0.2, 0.4, 0.6], [0.1, 0.3, 0.8]])  # P(i ∈ Ω | y)
    shares = np.array([0.5, 0.2, 0.3])
    maps = np.array(list(itertools.product(range(3), repeat=3)))
    risks = (shares * (1 - members[np.arange(3), maps])).sum(axis=1)
    best = maps[risks.argmin()]
    assert_array_equal(best, [0, 2, 2])
    assert shares[best != np.arange(3)].sum() == shares[1]
    # Without all maps in H another minimiser may err elsewhere, on less than P(Y = 1)
    members[2], shares = [0.95, 0.3, 0.1], np.array([0.5, 0.4, 0.1])
    few = np.array([[0, 1, 2], [0, 2, 2], [0, 1, 0]])
    gains = (shares * (members[np.arange(3), few] - members.diagonal())).sum(axis=1)
    assert_array_equal(few[gains.argmax()], [0, 1, 0])


def test_random_labels_keep_their_order_if_noise_is_symmetric():
    eta = np.random.default_rng(0).dirichlet(np.ones(4), size=200)
    for unreliability, ambiguity in [(0.3, 0.5), (0.6, 0.39), (0.6, 0.5)]:
        table = np.full((4, 4), ambiguity)
        np.fill_diagonal(table, 1 - unreliability)
        kappa = 1 - unreliability - ambiguity
        assert_allclose(eta @ table, ambiguity + kappa * eta, atol=1e-12)
        same = ((eta @ table).argmax(axis=1) == eta.argmax(axis=1)).all()
        assert same == (kappa > 0)
    flips = np.array([[0.6, 0.4], [0.0, 1.0]])
    assert_allclose(np.array([0.6, 0.4]) @ flips, [0.36, 0.64])
    assert_allclose(np.linalg.solve(flips.T, [0.36, 0.64]), [0.6, 0.4])


def test_random_classes_drawn_anew_are_all_wrong_classes():
    """The mean of the objective over every T is stationary where the rule says, with k = C."""
    pairs = itertools.combinations(range(1, 5), 2)
    wrong = np.array([np.isin(np.arange(5), pair) for pair in pairs])
    limit = theory.bad_teacher_limit(1.0, 2.0, k=5)
    assert (int(limit.regime), float(limit.true_probability)) == (2, 0.25)
    p = jnp.array([0.25] + [0.75 / 4] * 4)
    labels = np.zeros(len(wrong), int)

    @jax.jit
    @jax.grad
    def slope(logits):
        weights = {"punishment": 1.0, "compensation": 3.0, "random": 2.0}
        rows = jnp.broadcast_to(logits, wrong.shape)
        return losses.bad_teacher_loss(rows, labels, wrong, k=3, **weights).mean()

    assert_allclose(slope(jnp.log(p)), np.zeros(5), atol=1e-6)
    fixed, drawn = (theory.bad_teacher_limit(3.0, 2.0, k=k).accuracy for k in (3, 10))
    assert (float(fixed), float(drawn)) == (0, 1)


def test_other_means_may_break_the_condition():
    means, scale = np.array([0.45, 0.5, 0.05]), 0.1  # the true class comes first

    def first(i):
        others = [j for j in range(3) if j != i]
        return integrate.quad(
            lambda t: (
                stats.norm.pdf(t)
                * math.prod(stats.norm.cdf(t + (means[i] - means[j]) / scale) for j in others)
            ),
            -9,
            9,
        )[0]

    assert [f"{first(i):.3f}" for i in range(3)] == ["0.362", "0.638", "0.000"]
    assert f"{1 - first(0):.3f}" == "0.638"


def test_votes_are_as_good_as_the_chernoff_rate_says():
    delta, gamma = np.array([0.3, 0.5, 0.4]), np.array([0.1, 0.3, 0.4])
    vote = jax.jit(theory.plurality_accuracy, static_argnames=("num_votes", "num_classes"))
    rate = theory.divergence(delta, gamma)
    for num_votes in (5, 25):
        found = vote(delta, gamma, num_votes=num_votes, num_classes=6)
        assert (found >= 1 - 5 * (1 - rate) ** num_votes - 1e-5).all()


def test_exact_levels_of_the_certificate():
    """All outcomes of two counts: misses of 1000 at 0.3, and one cell of 100 at 0.7."""
    misses, hits = np.arange(1001), np.arange(101)
    chance = np.outer(stats.binom.pmf(misses, 1000, 0.3), stats.binom.pmf(hits, 100, 0.7))
    of_misses = limits.upper_limit(misses, 1000, 0.025)[:, None]
    of_hits = limits.upper_limit(hits, 100, 0.025)[None]
    assert f"{chance[of_misses + of_hits < 1].sum():.3f}" == "0.005"
    assert f"{chance[misses[:, None] + 10 * hits[None] < 1000].sum():.2f}" == "0.49"
    covered = limits.upper_limit(hits, 100, 0.05) >= 0.6
    assert f"{stats.binom.pmf(hits, 100, 0.6) @ covered:.3f}" == "0.958"


def test_limits_hold_with_fixed_class_sizes():
    for n in range(2, 60):
        c = np.arange(n - 1)  # up to n − 2
        assert (limits.upper_limit(c, n, 0.25) >= (c + 1) / n - 1e-12).all()
        for beta in (0.25, 0.025):  # n − 1 misses of n never certify, whatever the cells
            least = limits.upper_limit(n - 1, n, beta) + limits.upper_limit(0, n, beta)
            assert least >= 1 - 1e-12
    assert limits.upper_limit(1, 2, 0.0976) < 0.95  # chances 1 and 0.9: n − 1 is the exception
    # Two groups of unequal chances: the tail that K1 uses is no larger than the binomial one
    for first, second in [(0.1, 0.5), (0.0, 0.3), (0.9, 0.7)]:
        of_sum = np.convolve(
            stats.binom.pmf(range(31), 30, first), stats.binom.pmf(range(11), 10, second)
        )
        mean = (30 * first + 10 * second) / 40
        counts = np.arange(39)
        low = counts[limits.upper_limit(counts, 40, 0.05) < mean]
        assert of_sum[low].sum() <= 0.05
