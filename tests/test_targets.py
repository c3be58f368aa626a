"""Targets: rates of the generators against their levels, limits, transformations, bad input."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsoft import indicators, targets

# Enough rows that a rate of one class pair has a standard error of 0.5/sqrt(40000/5) = 0.0056.
LABELS = np.arange(40000) % 5


def draw(unreliability, ambiguity, *, generator="independent", k=None, labels=LABELS, seed=0):
    return targets.candidate_sets(
        labels,
        jax.random.key(seed),
        num_classes=5,
        unreliability=unreliability,
        ambiguity=ambiguity,
        generator=generator,
        k=k,
    )


LEVELS = {
    "independent": (
        None,
        [(0, 0), (0, 0.3), (0.3, 0.075), (0.3, 0.5), (0.9, 0.3), (1, 0.25), (1, 1)],
    ),
    "confuser": (None, [(0, 0), (0, 0.3), (0.3, 0.075), (0.3, 0.5), (0.9, 0.3), (1, 0.25), (1, 1)]),
    "fixed_size of 1": (1, [(0, 0), (0.4, 0.1), (0.4, 0.25), (0.4, 0.4), (1, 1)]),
    "fixed_size of 3": (3, [(0, 0.5), (0.4, 0.6), (0.4, 0.8), (0, 1), (1, 1), (1, 0.75)]),
    "fixed_size of 4": (4, [(0, 0.75), (0.4, 0.85), (0.4, 1), (1, 1)]),
}
CASES = [(name, k, pair) for name, (k, pairs) in LEVELS.items() for pair in pairs]


@pytest.mark.parametrize(("name", "k", "levels"), CASES, ids=lambda case: str(case))
def test_sets_have_the_levels_that_were_asked_for(name, k, levels):
    generator = name.split(" ")[0]
    sets = draw(*levels, generator=generator, k=k)
    assert bool(sets.any(axis=1).all())
    rates = np.stack([np.asarray(sets)[y == LABELS].mean(axis=0) for y in range(5)])  # [C, C]
    wrong = rates[~np.eye(5, dtype=bool)].reshape(5, 4)
    five_standard_errors = 0.028
    np.testing.assert_allclose(1 - np.diag(rates), levels[0], atol=five_standard_errors)
    np.testing.assert_allclose(wrong.max(axis=1), levels[1], atol=five_standard_errors)
    if generator == "independent":  # all wrong classes alike
        np.testing.assert_allclose(wrong, levels[1], atol=five_standard_errors)
    else:
        confuser = rates[np.arange(5), (np.arange(5) + 1) % 5]
        np.testing.assert_allclose(confuser, levels[1], atol=five_standard_errors)
    if k is not None:
        assert (np.asarray(sets).sum(axis=1) == k).all()
        # members: sum over i ≠ y of γ_{y,i} = k − 1 + Δ_y, exactly in every sample
        np.testing.assert_allclose(wrong.sum(axis=1), k - np.diag(rates), atol=1e-6)


def test_flip_rate_solves_its_equation():
    for unreliability in (0.0, 0.3, 0.9, 1.0):
        for ambiguity in np.linspace(unreliability / 9, 1, 7):
            share = jnp.asarray(unreliability / 9, jnp.float32)
            eta = float(targets._independent_rate(share, ambiguity, 10))
            # float32: bisection to 2^-24, a slope of at most two
            assert eta + unreliability / 9 * (1 - eta) ** 9 == pytest.approx(ambiguity, abs=1e-6)


def test_no_bias_gives_the_one_hot_label():
    np.testing.assert_array_equal(draw(0.0, 0.0), targets.one_hot(LABELS, 5) > 0)
    np.testing.assert_array_equal(draw(0.0, 1.0), True)


def test_same_key_couples_levels():
    """Raising γ only adds wrong classes, raising Δ only drops true ones."""
    low, high = np.asarray(draw(0.2, 0.3)), np.asarray(draw(0.2, 0.6))
    is_true = np.eye(5, dtype=bool)[LABELS]
    np.testing.assert_array_equal(low[is_true], high[is_true])
    fewer = np.asarray(draw(0.5, 0.3))
    assert (low[is_true] >= fewer[is_true]).all()


@pytest.mark.parametrize(
    ("generator", "k"), [("independent", None), ("confuser", None), ("fixed_size", 3)]
)
def test_eager_jit_and_mapped_sets_agree(generator, k):
    labels = LABELS[:300]
    levels = jnp.array([[0.1, 0.6], [0.5, 0.9]])

    def one(pair):
        return draw(pair[0], pair[1], generator=generator, k=k, labels=labels)

    single = jnp.stack([one(pair) for pair in levels])
    chex.assert_trees_all_equal(jnp.stack([jax.jit(one)(pair) for pair in levels]), single)
    chex.assert_trees_all_equal(jax.vmap(one)(levels), single)


def test_batches_of_labels_keep_their_shape():
    assert draw(0.2, 0.3, labels=LABELS[:24].reshape(2, 3, 4)).shape == (2, 3, 4, 5)
    assert draw(0.2, 0.3, labels=jnp.array(2)).shape == (5,)


def test_two_classes():
    sets = targets.candidate_sets(
        np.arange(4000) % 2, jax.random.key(0), num_classes=2, unreliability=0.3, ambiguity=0.4
    )
    found = indicators.measure_sets(sets, np.arange(4000) % 2)
    np.testing.assert_allclose([found.unreliability, found.ambiguity], [0.3, 0.4], atol=0.05)


@pytest.mark.parametrize(
    ("generator", "k", "levels", "exists"),
    [
        ("independent", None, (0.9, 0.1), True),
        ("independent", None, (0.9, 0.09), False),
        ("confuser", None, (0.0, 0.0), True),
        ("fixed_size", 3, (0.1, 2.1 / 9), True),
        ("fixed_size", 3, (0.1, 0.2), False),
        ("fixed_size", 1, (0.3, 0.4), False),
    ],
)
def test_realisable(generator, k, levels, exists):
    def look(unreliability, ambiguity):
        return targets.is_realisable(
            unreliability, ambiguity, num_classes=10, generator=generator, k=k
        )

    assert bool(look(*levels)) is exists
    assert bool(jax.jit(look)(*levels)) is exists


def test_traced_levels_that_do_not_exist_give_the_nearest_ambiguity():
    sets = jax.jit(draw)(0.8, 0.0)
    found = indicators.measure_sets(sets, LABELS)
    np.testing.assert_allclose(found.unreliability, 0.8, atol=0.01)
    np.testing.assert_allclose(found.ambiguity, 0.2, atol=0.03)


def test_uniform_over_is_a_distribution_over_the_set():
    sets = draw(0.2, 0.5)[:100]
    soft = targets.uniform_over(sets)
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(soft > 0, sets)
    for row, members in zip(np.asarray(soft), np.asarray(sets), strict=True):
        np.testing.assert_allclose(row[members], 1 / members.sum(), rtol=1e-6)


def test_smooth_and_temperature_by_hand():
    smooth = targets.smooth(np.float32([[0, 1, 0]]), alpha=0.3)
    np.testing.assert_allclose(smooth, [[0.1, 0.8, 0.1]], rtol=1e-6)
    logits = np.float32([[1.0, -2.0, 0.5]])
    for temperature in (0.5, 1.0, 4.0):
        expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
        soft = targets.temperature_softmax(logits, temperature=temperature)
        np.testing.assert_allclose(soft, expected, rtol=1e-6)
    sharp = targets.temperature_softmax(np.float32([1e4, -1e4]), temperature=1e-2)
    np.testing.assert_array_equal(sharp, [1, 0])
    temperatures = jnp.array([1.0, 2.0])
    swept = jax.vmap(lambda t: targets.temperature_softmax(logits, temperature=t))(temperatures)
    np.testing.assert_allclose(swept.sum(axis=-1), 1, rtol=1e-6)


LAWS = {  # of noise of scale 1: mean, standard deviation, third quartile
    "gaussian": (0.0, 1.0, 0.6745),
    "uniform": (0.0, 1 / np.sqrt(3), 0.5),
    "laplace": (0.0, np.sqrt(2), np.log(2)),
    "gumbel": (np.euler_gamma, np.pi / np.sqrt(6), -np.log(np.log(4 / 3))),
}


def noisy(kind="gaussian", scale=1.0, labels=LABELS[:2000]):
    return targets.additive_noise(labels, jax.random.key(0), num_classes=5, kind=kind, scale=scale)


@pytest.mark.parametrize("kind", LAWS)
def test_additive_noise_has_the_law_and_the_scale_that_were_asked_for(kind):
    noise = np.asarray(noisy(kind, 3.0) - targets.one_hot(LABELS[:2000], 5)) / 3
    mean, deviation, quartile = LAWS[kind]
    # 10000 draws: four standard errors of a mean; heavy tails make the deviation less certain
    np.testing.assert_allclose(noise.mean(), mean, atol=0.04 * deviation)
    np.testing.assert_allclose(noise.std(), deviation, rtol=0.06)
    np.testing.assert_allclose((noise < quartile).mean(), 0.75, atol=0.018)
    correlations = np.corrcoef(noise.T)[~np.eye(5, dtype=bool)]
    np.testing.assert_allclose(correlations, 0, atol=0.1)  # independent over classes


@pytest.mark.parametrize("kind", LAWS)
def test_scale_stretches_the_same_noise_and_can_be_mapped(kind):
    one_hot = targets.one_hot(LABELS[:2000], 5)
    np.testing.assert_array_equal(noisy(kind, 0.0), one_hot)
    unit = noisy(kind, 1.0) - one_hot
    np.testing.assert_allclose(noisy(kind, 3.0) - one_hot, 3 * unit, atol=1e-5)
    scales = jnp.array([0.0, 0.5, 3.0])
    mapped = jax.jit(jax.vmap(lambda scale: noisy(kind, scale)))(scales)
    looped = jnp.stack([noisy(kind, scale) for scale in scales])
    np.testing.assert_allclose(mapped, looped, rtol=1e-5, atol=1e-6)  # fused operations round anew


def told(epsilon, labels=LABELS):
    return targets.randomised_response(labels, jax.random.key(0), num_classes=5, epsilon=epsilon)


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 3.0])
def test_randomised_response_has_the_rates_of_its_definition(epsilon):
    soft = np.asarray(told(epsilon))
    np.testing.assert_array_equal(soft.sum(axis=1), 1)
    assert set(np.unique(soft)) == {0, 1}
    rates = np.stack([soft[y == LABELS].mean(axis=0) for y in range(5)])  # [C, C]
    expected = (1 + np.eye(5) * np.expm1(epsilon)) / (np.exp(epsilon) + 4)
    np.testing.assert_allclose(rates, expected, atol=0.028)  # five standard errors


def test_more_privacy_only_hides_more_labels():
    kept = [np.asarray(told(epsilon))[np.arange(40000), LABELS] for epsilon in (0.5, 2.0, 5.0)]
    assert (kept[0] <= kept[1]).all()
    assert (kept[1] <= kept[2]).all()
    np.testing.assert_array_equal(told(100.0), targets.one_hot(LABELS, 5))
    mapped = jax.jit(jax.vmap(told))(jnp.array([0.5, 2.0]))
    np.testing.assert_array_equal(mapped[1], told(2.0))


NOISES = {"uniform": targets.uniform_label_noise, "flip": targets.flip_label_noise}


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_label_noise_has_the_rates_of_its_definition(noise):
    label_noise = jax.jit(lambda rate: noise(LABELS, jax.random.key(0), num_classes=5, rate=rate))
    told, changed = map(np.asarray, label_noise(0.4))
    np.testing.assert_array_equal(changed, told != LABELS)
    rates = np.stack([np.bincount(told[y == LABELS], minlength=5) / 8000 for y in range(5)])
    if noise is targets.uniform_label_noise:
        expected = 0.6 * np.eye(5) + 0.4 / 5
    else:
        expected = 0.6 * np.eye(5) + 0.4 * np.roll(np.eye(5), 1, axis=1)
    np.testing.assert_allclose(rates, expected, atol=0.028)  # five standard errors
    for rate, share in ((0.0, 0.0), (1.0, 0.8 if noise is targets.uniform_label_noise else 1.0)):
        assert np.mean(label_noise(rate)[1]) == pytest.approx(share, abs=0.01)
    assert (np.asarray(label_noise(0.7)[1]) >= changed).all()  # the same and more
    eager, _ = noise(LABELS[:24].reshape(4, 6), jax.random.key(1), num_classes=5, rate=0.4)
    assert eager.shape == (4, 6)
    assert jnp.issubdtype(eager.dtype, jnp.integer)


def test_noisy_labels_keep_the_shape_of_their_labels():
    for labels in (LABELS[:24].reshape(2, 3, 4), np.array(2)):
        assert noisy(labels=labels).shape == (*labels.shape, 5)
        assert told(1.0, labels=labels).shape == (*labels.shape, 5)


def test_pseudo_labels_are_the_models_answers():
    logits = np.float32([[[1, 3, 2], [1e4, -1e4, 0]], [[0, 0, 0], [-5, -1, -1]]])
    expected = [[[0, 1, 0], [1, 0, 0]], [[1, 0, 0], [0, 1, 0]]]  # the lower class among equals
    np.testing.assert_array_equal(targets.pseudo_labels(logits), expected)
    np.testing.assert_array_equal(jax.jit(targets.pseudo_labels)(logits), expected)
    assert targets.pseudo_labels(jnp.asarray(logits, jnp.bfloat16)).dtype == jnp.bfloat16
    slopes = jax.grad(lambda logits: (targets.pseudo_labels(logits) * logits).sum())(logits)
    np.testing.assert_array_equal(slopes, expected)  # none through the labels


SOFT = np.float32([[0.5, 0.5]])
BAD = {
    "level above one": (ValueError, r"unreliability: .*\[0, 1\], got 1.5", lambda: draw(1.5, 0.5)),
    "level below zero": (ValueError, "ambiguity: .*got -0.1", lambda: draw(0.5, -0.1)),
    "level NaN": (ValueError, "ambiguity: .*got nan", lambda: draw(0.5, float("nan"))),
    "levels without sets": (
        ValueError,
        "no independent sets over 5 classes have",
        lambda: draw(0.8, 0.1),
    ),
    "sizes without sets": (
        ValueError,
        "of size 3 have",
        lambda: draw(0.1, 0.2, generator="fixed_size", k=3),
    ),
    "unknown generator": (
        ValueError,
        "generator: expected .*'flip'",
        lambda: draw(0, 0, generator="flip"),
    ),
    "no k": (ValueError, "k: expected the size", lambda: draw(0, 0, generator="fixed_size")),
    "k of C": (ValueError, "k: expected 1 … 4", lambda: draw(0, 1, generator="fixed_size", k=5)),
    "k misplaced": (ValueError, "k: expected None", lambda: draw(0, 0, k=2)),
    "float labels": (TypeError, "labels: expected integer", lambda: draw(0, 0, labels=np.ones(3))),
    "labels out of range": (ValueError, "labels: .*got 5", lambda: draw(0, 0, labels=LABELS + 1)),
    "one class": (ValueError, "num_classes: ", lambda: targets.one_hot(LABELS, 1)),
    "empty set": (
        ValueError,
        "got an empty set",
        lambda: targets.uniform_over(np.zeros((2, 3), bool)),
    ),
    "sets of integers": (TypeError, "boolean", lambda: targets.uniform_over(np.ones((2, 3), int))),
    "alpha": (ValueError, "alpha: ", lambda: targets.smooth(SOFT, alpha=2.0)),
    "integer soft labels": (
        TypeError,
        "soft_labels: ",
        lambda: targets.smooth([[0, 1]], alpha=0.1),
    ),
    "cold": (
        ValueError,
        "temperature: ",
        lambda: targets.temperature_softmax(SOFT, temperature=0.0),
    ),
    "logits NaN": (
        ValueError,
        "logits: ",
        lambda: targets.temperature_softmax(SOFT * np.nan, temperature=1.0),
    ),
    "unknown noise": (ValueError, "kind: expected .*, got 'cauchy'", lambda: noisy("cauchy")),
    "negative noise": (ValueError, "scale: expected 0 or more, got -1", lambda: noisy(scale=-1.0)),
    "boundless noise": (ValueError, "scale: expected a finite", lambda: noisy(scale=np.inf)),
    "noise on floats": (TypeError, "labels: ", lambda: noisy(labels=np.ones(3))),
    "noise on one class": (
        ValueError,
        "num_classes: ",
        lambda: targets.additive_noise(
            LABELS, jax.random.key(0), num_classes=1, kind="gaussian", scale=1.0
        ),
    ),
    "response below zero": (ValueError, "epsilon: expected 0 or more", lambda: told(-1.0)),
    "boundless response": (ValueError, "epsilon: expected a finite", lambda: told(np.inf)),
    "response out of range": (ValueError, "labels: .*got 5", lambda: told(1.0, LABELS + 1)),
    "label noise above one": (
        ValueError,
        r"rate: .*\[0, 1\], got 1.5",
        lambda: targets.uniform_label_noise(LABELS, jax.random.key(0), num_classes=5, rate=1.5),
    ),
    "label noise by class": (
        ValueError,
        r"rate: expected one number, got shape \[5\]",
        lambda: targets.flip_label_noise(
            LABELS, jax.random.key(0), num_classes=5, rate=np.zeros(5)
        ),
    ),
    "label noise out of range": (
        ValueError,
        "labels: .*got 5",
        lambda: targets.flip_label_noise(LABELS + 1, jax.random.key(0), num_classes=5, rate=0.5),
    ),
    "integer logits": (TypeError, "logits: ", lambda: targets.pseudo_labels([[0, 1]])),
    "pseudo-label NaN": (ValueError, "logits: ", lambda: targets.pseudo_labels(SOFT * np.nan)),
    "pseudo-label of one class": (ValueError, "logits: ", lambda: targets.pseudo_labels([[0.5]])),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_at_the_door(case):
    error, message, call = BAD[case]
    with pytest.raises(error, match=message):
        call()
