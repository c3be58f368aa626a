import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import roc_auc_score

from jsoft import retrieval

GOLDEN = np.load(Path(__file__).parent / "golden" / "s_molsearch_metrics.npz")
CASES = ["c0", "c1", "c2", "c3"]
RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=300).astype(np.float32)
ACTIVE = RNG.random(300) < 0.1
TIED = np.round(SCORES)  # a dozen values

factor = jax.jit(retrieval.enrichment_factor, static_argnames="fraction")
bedroc = jax.jit(retrieval.bedroc)
auroc = jax.jit(retrieval.auroc)
METRICS = {
    "enrichment_factor": functools.partial(factor, fraction=0.05),
    "bedroc": bedroc,
    "auroc": auroc,
}
each_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


def padded(case, dtype):
    """Return scores, labels and mask of a case, all cases at one length: one compilation."""
    scores, labels = GOLDEN[f"{case}.scores"], GOLDEN[f"{case}.labels"]
    extra = 1600 - len(scores)
    where = np.arange(1600) < len(scores)
    return np.pad(scores, (0, extra)).astype(dtype), np.pad(labels, (0, extra)), where


@pytest.mark.parametrize("case", CASES)
def test_golden_values_in_float64(case):
    with jax.enable_x64(True):
        scores, labels, where = padded(case, np.float64)
        found = [factor(scores, labels, fraction=x, where=where) for x in (0.005, 0.01, 0.05)]
        assert_allclose(found, GOLDEN[f"{case}.ef_0.5_1_5"], rtol=1e-9)
        found = [bedroc(scores, labels, alpha=x, where=where) for x in (20.0, 80.5)]
        assert_allclose(found, GOLDEN[f"{case}.bedroc_20_80.5"], rtol=1e-9)
        assert_allclose(auroc(scores, labels, where=where), GOLDEN[f"{case}.auroc"], rtol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_float32_keeps_its_digits(case):
    scores, labels, where = padded(case, np.float32)
    found = [bedroc(scores, labels, alpha=x, where=where) for x in (20.0, 80.5)]
    assert found[0].dtype == jnp.float32
    assert_allclose(found, GOLDEN[f"{case}.bedroc_20_80.5"], rtol=2e-5)
    assert_allclose(auroc(scores, labels, where=where), GOLDEN[f"{case}.auroc"], rtol=1e-6)


def ranked(scores, labels):
    """Return the labels in the order of the ranking; Python's sort is stable."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return [bool(labels[i]) for i in order]


def reference_factor(scores, labels, fraction):
    head = ranked(scores, labels)[: math.ceil(fraction * len(scores))]
    return (sum(head) / len(head)) / (sum(labels) / len(labels))


def reference_bedroc(scores, labels, alpha):
    """By the formula of the paper, in float64."""
    total, number = len(scores), sum(map(bool, labels))
    share = number / total
    ranks = [r for r, active in enumerate(ranked(scores, labels), start=1) if active]
    rie = sum(math.exp(-alpha * r / total) for r in ranks) / number
    rie *= total * math.expm1(alpha / total) / -math.expm1(-alpha)
    scale = (
        share * math.sinh(alpha / 2) / (math.cosh(alpha / 2) - math.cosh(alpha / 2 - alpha * share))
    )
    return rie * scale + 1 / (1 - math.exp(alpha * (1 - share)))


def reference_auroc(scores, labels):
    actives = [s for s, active in zip(scores, labels, strict=True) if active]
    decoys = [s for s, active in zip(scores, labels, strict=True) if not active]
    wins = [(a > d) + (a == d) / 2 for a in actives for d in decoys]
    return sum(wins) / len(wins)


REFERENCES = {
    "enrichment_factor": functools.partial(reference_factor, fraction=0.05),
    "bedroc": functools.partial(reference_bedroc, alpha=80.5),
    "auroc": reference_auroc,
}


@pytest.mark.parametrize("scores", [SCORES, TIED], ids=["distinct", "tied"])
@pytest.mark.parametrize("name", METRICS)
def test_matches_the_reference(name, scores):
    found = METRICS[name](scores, ACTIVE)
    assert found.shape == ()
    assert_allclose(found, REFERENCES[name](scores, ACTIVE), rtol=1e-5)


def test_auroc_with_ties_is_that_of_scikit_learn():
    assert_allclose(auroc(TIED, ACTIVE), roc_auc_score(ACTIVE, TIED), rtol=1e-6)


@pytest.mark.parametrize("fraction", [0.005, 0.01, 0.05, 0.07, 0.1, 1.0])
def test_heads_are_as_long_as_float64_says(fraction):
    """0.07 · 100 is 7.000000000000001 there, so that eight of a hundred count."""
    rows = np.arange(300)
    for total in (3, 10, 60, 100, 200, 300):
        # the best row alone is active
        found = factor(-rows.astype(np.float32), rows < 1, fraction=fraction, where=rows < total)
        assert_allclose(found, total / math.ceil(fraction * total), rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.5, 20.0, 80.5, 178.0, 1e3, 1e4])
def test_bedroc_of_the_best_and_worst_rankings(alpha):
    best = np.arange(1000) < 7
    falling = -np.arange(1000, dtype=np.float32)
    assert_allclose(bedroc(falling, best, alpha=alpha), 1, rtol=1e-4)
    assert_allclose(bedroc(-falling, best, alpha=alpha), 0, atol=1e-4)


@pytest.mark.parametrize("alpha", [178.0, 500.0])
def test_bedroc_where_the_textbook_formula_overflows_float32(alpha):
    assert_allclose(
        bedroc(SCORES, ACTIVE, alpha=alpha), reference_bedroc(SCORES, ACTIVE, alpha), rtol=1e-4
    )


def test_bedroc_with_one_active_in_many_thousands():
    total = 50_000
    scores = -np.arange(total, dtype=np.float32)
    labels = np.zeros(total, int)
    labels[100] = 1
    assert_allclose(bedroc(scores, labels), reference_bedroc(scores, labels, 80.5), rtol=1e-4)


@each_metric
def test_constant_scores(metric):
    found = metric(np.zeros(300, np.float32), ACTIVE)
    if metric is auroc:
        assert found == 0.5
    else:  # the order of input
        assert_allclose(found, metric(-np.arange(300, dtype=np.float32), ACTIVE))


@each_metric
def test_only_the_order_of_scores_matters(metric):
    expected = metric(SCORES, ACTIVE)
    assert_allclose(metric(np.exp(SCORES), ACTIVE), expected)
    assert_allclose(metric(SCORES * np.float32(1e4), ACTIVE), expected)


@each_metric
def test_rows_left_out_do_not_count(metric):
    where = RNG.random(300) < 0.6
    scores = np.where(where, TIED, np.nan)  # nor are they looked at
    found = metric(scores, ACTIVE, where=where)
    assert_allclose(found, metric(TIED[where], ACTIVE[where]), rtol=1e-6)


@each_metric
def test_vmap_agrees_with_one_at_a_time(metric):
    scores = np.stack([SCORES, TIED, -SCORES])
    labels = np.stack([ACTIVE, ACTIVE[::-1], ACTIVE])
    masks = RNG.random((3, 300)) < 0.7
    mapped = jax.jit(jax.vmap(lambda s, a, w: metric(s, a, where=w)))(scores, labels, masks)
    for s, a, w, found in zip(scores, labels, masks, mapped, strict=True):
        assert_allclose(found, metric(s, a, where=w), rtol=1e-5)


def test_jit_agrees_with_eager():
    assert_allclose(retrieval.auroc(TIED, ACTIVE), auroc(TIED, ACTIVE))
    assert_allclose(retrieval.bedroc(TIED, ACTIVE), bedroc(TIED, ACTIVE), rtol=1e-6)
    found = retrieval.enrichment_factor(TIED, ACTIVE, fraction=0.05)
    assert_allclose(found, factor(TIED, ACTIVE, fraction=0.05))


@each_metric
def test_booleans_and_numbers_are_the_same_labels(metric):
    for labels in (ACTIVE.astype(int), ACTIVE.astype(np.uint8), list(map(bool, ACTIVE))):
        assert metric(SCORES, jnp.asarray(labels)) == metric(SCORES, ACTIVE)


@each_metric
def test_bfloat16_scores_are_counted_in_float32(metric):
    scores = jnp.asarray(SCORES, jnp.bfloat16)
    found = metric(scores, ACTIVE)
    assert found.dtype == jnp.float32
    assert_allclose(found, metric(scores.astype(jnp.float32), ACTIVE))


BAD = [
    ((np.arange(4), [1, 0, 0, 0]), {}, TypeError, "scores: expected floating-point"),
    ((SCORES[None], ACTIVE[None]), {}, ValueError, r"scores: expected shape \[N\]"),
    ((SCORES * np.nan, ACTIVE), {}, ValueError, "scores: expected finite"),
    ((SCORES, ACTIVE[:-1]), {}, ValueError, r"labels: expected shape \[300\], got \[299\]"),
    ((SCORES, ACTIVE[:1]), {}, ValueError, r"labels: expected shape \[300\], got \[1\]"),
    ((SCORES, ACTIVE * 2), {}, ValueError, "labels: expected classes in 0 … 1, got 2"),
    ((SCORES, SCORES), {}, TypeError, "labels: expected integer"),
    ((SCORES, ACTIVE & False), {}, ValueError, "labels: expected an active and a decoy, got 0"),
    ((SCORES, ACTIVE | True), {}, ValueError, "expected an active and a decoy, got 300 actives"),
    ((SCORES, ACTIVE), {"where": ACTIVE}, ValueError, "labels: expected an active and a decoy"),
    ((SCORES, ACTIVE), {"where": ACTIVE[:1]}, ValueError, r"where: expected shape \[300\]"),
    ((SCORES, ACTIVE), {"where": ACTIVE & False}, ValueError, "where: expected at least one"),
    ((SCORES, ACTIVE), {"where": SCORES}, TypeError, "where: expected a boolean mask"),
]


@pytest.mark.parametrize(("arguments", "options", "error", "message"), BAD)
def test_bad_input_is_refused(arguments, options, error, message):
    for metric in (
        functools.partial(retrieval.enrichment_factor, fraction=0.01),
        retrieval.bedroc,
        retrieval.auroc,
    ):
        with pytest.raises(error, match=message):
            metric(*arguments, **options)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, math.nan, "1%"])
def test_fractions_outside_of_the_ranking_are_refused(fraction):
    with pytest.raises(ValueError, match="fraction: expected a Python number"):
        retrieval.enrichment_factor(SCORES, ACTIVE, fraction=fraction)


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.inf])
def test_bedroc_refuses_an_alpha_that_is_not_above_zero(alpha):
    with pytest.raises(ValueError, match="alpha: expected a number above zero"):
        retrieval.bedroc(SCORES, ACTIVE, alpha=alpha)
