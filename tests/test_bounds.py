"""The bounds from the command line to the figure, and the learner against slow references."""

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from experiments import bounds
from tests.experiment_runs import FILES, check_redraws, command

TABLES = {"transition.parquet", "smallest.parquet", "violation.parquet", "golden.parquet"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bounds")
    done = command("bounds", "--preset", "tiny", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def tables(results):
    out = results[0] / "results" / "bounds" / "tiny"
    return {path.stem: pq.read_table(path) for path in out.glob("*.parquet")}


def test_tiny_preset_writes_tables_figure_and_summary(results):
    folder, printed = results
    out = folder / "results" / "bounds" / "tiny"
    assert {path.name for path in out.iterdir()} == FILES | TABLES
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert (summary["trials"], summary["seeds"]) == (40, 2)
    assert {claim["id"] for claim in summary["claims"]} == {"B8"}
    assert len(summary["claims"]) == 18
    for claim in summary["claims"]:
        assert claim["claim"] in printed
    assert (out / "figure.png").stat().st_size > 20_000


def test_what_needs_no_simulation_is_met_in_every_preset(tables):
    summary = bounds.summarise(tables)
    exact = [
        claim for claim in summary["claims"] if "exact sum" in claim["ours"] + claim["claim"]
    ] + [claim for claim in summary["claims"] if "as tabulated: κ" in claim["claim"]]
    assert len(exact) == 6
    assert {claim["verdict"] for claim in exact} == {"met"}
    assert summary["exact_smallest_n"] == {
        "Δ = 0, γ = 0.5": 124,
        "Δ = 0.1, γ = 0.1": 94,
        "Δ = 0.2, γ = 0.3": 271,
        "Δ = 0.3, γ = 0.3": 419,
        "Δ = 0.3, γ = 0.5": 1615,
        "Δ = 0.4, γ = 0.4": 1680,
        "Δ = 0.45, γ = 0.45": 6679,
    }


def test_plot_only_redraws_the_same_files(results):
    check_redraws("bounds", *results)


def test_another_configuration_is_refused(results):
    config = dataclasses.replace(bounds.PRESETS["tiny"], trials=3)
    with pytest.raises(ValueError, match=r"another configuration \(trials: 40 there, 3 now\)"):
        bounds.run(config, results[0] / "results" / "bounds" / "tiny")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "trials: expected 1 or more, got 0"),
        ({"sizes": 1}, "sizes: expected 2 or more, got 1"),
        ({"curve": 1}, "curve: expected 2 or more, got 1"),
        ({"seeds": 0}, "seeds: expected 1 or more, got 0"),
    ],
    ids=str,
)
def test_bad_options_are_refused(options, message, tmp_path):
    config = dataclasses.replace(bounds.PRESETS["tiny"], **options)
    with pytest.raises(ValueError, match=message):
        bounds.run(config, tmp_path)


# The learner, from rows and sets


def learn(rng, n, unreliability, ambiguity, *, coupled):
    """Draw n rows with a set each; return at which of ten points the learner errs, `[10]`.

    The true class is 0 everywhere; the learner answers the class that most sets hold.
    """
    points = rng.integers(10, size=n)
    sets = np.zeros((n, 4), bool)
    for row in range(n):
        sets[row, 0] = rng.random() >= unreliability
        for wrong in (1, 2, 3):
            if not coupled:
                sets[row, wrong] = rng.random() < ambiguity
            elif sets[row, 0]:
                chance = (ambiguity - unreliability) / (1 - unreliability)
                sets[row, wrong] = rng.random() < chance
            else:
                sets[row, wrong] = True
    errs = []
    for point in range(10):
        votes = sets[points == point].sum(axis=0)
        errs.append(bool((votes[1:] >= votes[0]).any()))
    return np.array(errs)


@functools.partial(jax.jit, static_argnames="trials")
def wrong_points(n, unreliability, ambiguity, coupled, key, *, trials):
    levels = jnp.float32(unreliability), jnp.float32(ambiguity)
    point = {"n": n, "unreliability": levels[0], "ambiguity": levels[1], "coupled": coupled}
    return bounds.wrong_points(point, key, trials=trials)


LEARNERS = [
    (60, 0.0, 0.5, True),
    (60, 0.1, 0.1, True),
    (100, 0.2, 0.3, True),
    (40, 0.3, 0.5, True),
    (60, 0.0, 0.5, False),
    (60, 0.3, 0.3, False),
    (40, 0.6, 0.2, False),
]


@pytest.mark.parametrize(("n", "unreliability", "ambiguity", "coupled"), LEARNERS)
def test_learner_from_sets_from_counts_and_from_sums(n, unreliability, ambiguity, coupled):
    rng = np.random.default_rng(0)
    slow = np.array([learn(rng, n, unreliability, ambiguity, coupled=coupled) for _ in range(300)])
    counts = np.asarray(
        wrong_points(n, unreliability, ambiguity, coupled, jax.random.key(0), trials=4000)
    )
    if coupled:
        rows = np.arange(n + 1)
        error = bounds.point_error(rows, unreliability, ambiguity, coupled=True, num_classes=4)
        exact = error @ stats.binom.pmf(rows, n, 0.1)
        fails = bounds.failure(n, unreliability, ambiguity)
        # Four standard errors of a share of 4000 data sets.
        assert abs(counts.any(axis=1).mean() - fails) < 4 * math.sqrt(fails * (1 - fails) / 4000)
        assert abs(slow.any(axis=1).mean() - fails) < 4 * math.sqrt(fails * (1 - fails) / 300)
    else:
        exact = bounds.mean_error(n, unreliability, ambiguity)
    # Four standard errors again; points of one data set lean against each other, which only helps.
    assert abs(counts.mean() - exact) < 4 * math.sqrt(exact * (1 - exact) / 40_000)
    assert abs(slow.mean() - exact) < 4 * math.sqrt(exact * (1 - exact) / 3000)


def test_binomials_of_float32_follow_their_law():
    """The counts of the largest data sets, against NumPy's law to four standard errors."""
    draws = 20_000
    for n, p in [(33_633, 0.1), (2_000, 0.8), (700, 0.45), (12, 0.3)]:
        found = np.asarray(
            jax.random.binomial(jax.random.key(1), jnp.full(draws, float(n)), jnp.float32(p))
        )
        assert_allclose(found, np.round(found))
        reference = np.random.default_rng(1).binomial(n, p, draws)
        assert stats.ks_2samp(found, reference).statistic < 1.95 * math.sqrt(2 / draws)  # 0.1 %
        assert abs(found.mean() - n * p) < 4 * math.sqrt(n * p * (1 - p) / draws)


# The exact sums


def test_failure_goes_through_every_split_of_a_few_rows():
    """Ten points and three rows: 1000 splits, each point on its own given its rows."""
    unreliability, ambiguity = 0.1, 0.3
    error = bounds.point_error(np.arange(4), unreliability, ambiguity, coupled=True, num_classes=4)
    right = 0.0
    for split in np.ndindex(10, 10, 10):
        right += np.prod(1 - error[np.bincount(split, minlength=10)]) / 1000
    assert_allclose(bounds.failure(3, unreliability, ambiguity), 1 - right, atol=1e-12)
    assert error[0] == 1  # without rows all classes tie


@pytest.mark.parametrize("coupled", [True, False])
def test_point_error_goes_through_every_outcome_of_two_rows(coupled):
    unreliability, ambiguity = 0.2, 0.4
    total = 0.0
    outcomes = []
    for members in np.ndindex(2, 2, 2):  # the true class and two wrong ones
        true, *wrong = members
        alone = 0.25 if true else 1.0  # (0.4 − 0.2)/0.8
        rate = alone if coupled else ambiguity
        chance = (1 - unreliability if true else unreliability) * np.prod(
            [rate if member else 1 - rate for member in wrong]
        )
        outcomes.append((np.array(members), chance))
    assert_allclose(sum(chance for _, chance in outcomes), 1)
    for one, chance in outcomes:
        for other, another in outcomes:
            votes = one + other
            total += chance * another * (votes[1:].max() >= votes[0])
    found = bounds.point_error(
        np.array([2]), unreliability, ambiguity, coupled=coupled, num_classes=3
    )
    assert_allclose(found, [total], rtol=1e-12)


def test_equal_levels_are_the_limit_of_unequal_ones():
    rows = np.arange(1, 60)
    equal = bounds.point_error(rows, 0.3, 0.3, coupled=True, num_classes=4)
    close = bounds.point_error(rows, 0.3, 0.3 + 1e-9, coupled=True, num_classes=4)
    assert_allclose(equal, close, rtol=1e-6)


@pytest.mark.parametrize("levels", bounds.SMALLEST, ids=str)
def test_worst_coupling_loses_at_the_rate_of_the_lemma(levels):
    """P falls like (1 − D)ⁿ/√n, without the root at Δ = 0, where each row either tells or not."""
    rate = bounds.bounds(*levels, **bounds.ALL_FUNCTIONS)["divergence"]
    n = 2 * math.ceil(5 / rate) + 1
    rows = np.array([n, 2 * n + 1])
    lost = bounds.point_error(rows, *levels, coupled=True, num_classes=2)
    assert (lost <= (1 - rate) ** rows * (1 + 1e-9)).all()
    root = math.log(rows[1] / rows[0]) / 2 if levels[0] > 0 else 0.0
    slope = (math.log(lost[0] / lost[1]) - root) / (n + 1)
    assert_allclose(slope, -math.log1p(-rate), rtol=0.03)  # the next term is of order 1/n


def test_failure_falls_with_n_and_stays_below_the_chernoff_bound():
    for levels in [(0.1, 0.1), (0.2, 0.3)]:
        rate = bounds.bounds(*levels, **bounds.ALL_FUNCTIONS)["divergence"]
        fails = [bounds.failure(n, *levels) for n in range(50, 400, 7)]
        assert (np.diff(fails) < 0).all()
        n = np.arange(50, 400, 7)
        assert (fails <= 30 * (1 - rate / 10) ** n).all()  # thirty wrong answers, each 1 − εD


def test_smallest_n_is_where_failure_crosses():
    n = bounds.smallest_n(0.2, 0.3)
    assert bounds.failure(n, 0.2, 0.3) <= 0.05 < bounds.failure(n - 1, 0.2, 0.3)


def test_violation_in_integers():
    """Two hypotheses at Δ = γ = 0.45: each row votes for h* with 11 chances in 20."""
    for n, printed in ((547, "9.5e-03"), (837, "1.9e-03")):
        lost = sum(math.comb(n, k) * 11**k * 9 ** (n - k) for k in range(n // 2 + 1))
        assert f"{lost / 20**n:.1e}" == printed
        assert_allclose(bounds.two_hypotheses_failure(n, 0.45), lost / 20**n, rtol=1e-9)


def test_remembered_bound_fails_for_all_functions_too(tables):
    exact = {name: tables["smallest"][name].to_numpy() for name in tables["smallest"].column_names}
    levels = exact["unreliability"][-1]
    n = math.ceil(exact["conditional"][-1])
    assert_allclose(1 - 2 * levels, 0.004)
    # Points are nearly independent, their rows nearly normal around n/10
    error = stats.binom.sf(n // 20 - 1, n // 10, levels)
    assert_allclose(exact["failure_at_conditional"][-1], 1 - (1 - error) ** 10, atol=0.01)
    assert exact["conditional"][-1] < exact["smallest_n"][-1] < exact["finite_class"][-1]


# The acceptance checks


@pytest.mark.slow
def test_digits_preset_meets_its_claims(tmp_path):
    """Checks 2, 4 and 5: the golden table, no failure at the bounds, the phase transition."""
    config = dataclasses.replace(bounds.PRESETS["digits"], seeds=2)
    tables = bounds.run(config, tmp_path)
    summary = bounds.summarise(tables)
    for claim in summary["claims"]:
        assert claim["verdict"] == "met", claim
    # Simulated against exact, over all cells: four standard errors of 2 · 400 data sets and a
    # little, for 96 cells. Points of one data set lean against each other.
    rows = {name: tables["results"][name].to_numpy() for name in tables["results"].column_names}
    exact = {n: tables["transition"][n].to_numpy() for n in tables["transition"].column_names}
    for delta, total, n, error in zip(*exact.values(), strict=True):
        cell = ~rows["coupled"] & np.isclose(rows["unreliability"], delta) & (rows["n"] == n)
        cell &= np.isclose(rows["ambiguity"], total - delta, atol=1e-6)
        if cell.any():
            spread = math.sqrt(max(error * (1 - error), 1e-4) / 8000)
            assert abs(rows["error"][cell].mean() - error) < 4.5 * spread, (delta, total, n)
