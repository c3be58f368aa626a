"""Indicators against loops written from the definitions, identities, transformations, extremes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jsoft import _counts, indicators, sweep


def draw(num_examples, num_classes, *, seed=0, levels=None):
    """Return soft labels and labels; few `levels` make ties on purpose."""
    rng = np.random.default_rng(seed)
    soft_labels = rng.random((num_examples, num_classes), dtype=np.float32)
    if levels:
        soft_labels = np.round(soft_labels * levels) / np.float32(levels)
    return soft_labels, rng.integers(0, num_classes, num_examples)


def membership_by_loop(row, k):
    """Expected membership: average over all places that random tie-breaking can give."""
    weights = np.zeros(len(row))
    for i, value in enumerate(row):
        above = sum(other > value for other in row)
        equal = sum(other == value for other in row)
        places = range(above, above + equal)
        weights[i] = sum(place < k for place in places) / equal
    return weights


def indicators_by_loop(soft_labels, labels, k):
    """Δ, γ, the pair of γ, κ and the tie share in float64, example by example."""
    num_examples, num_classes = soft_labels.shape
    members = np.array([membership_by_loop(row, k) for row in soft_labels])
    missed = sum(1 - members[n, labels[n]] for n in range(num_examples))
    gamma = -1.0
    for y in set(labels.tolist()):
        for i in range(num_classes):
            if i != y:
                gamma = max(gamma, members[labels == y, i].mean())
    ordered = -np.sort(-soft_labels, axis=1)
    tied = np.mean(ordered[:, k - 1] == ordered[:, k])
    return missed / num_examples, gamma, tied


CASES = {
    "no ties": draw(200, 5, seed=1),
    "many ties": draw(200, 5, seed=2, levels=3),
    "two classes": draw(50, 2, seed=3, levels=4),
    "one example": draw(1, 4, seed=4),
    "absent class": (draw(60, 6, seed=5)[0], draw(60, 4, seed=5)[1]),
    "all equal": (np.full((30, 4), 0.25, np.float32), draw(30, 4, seed=6)[1]),
    "one-hot": (np.eye(4, dtype=np.float32)[draw(40, 4, seed=7)[1]], draw(40, 4, seed=7)[1]),
    "huge and negative": (draw(50, 4, seed=8)[0] * 2e4 - 1e4, draw(50, 4, seed=8)[1]),
}


@pytest.mark.parametrize("case", CASES)
def test_measure_equals_the_loop(case):
    soft_labels, labels = CASES[case]
    measured = indicators.measure(soft_labels, labels)
    assert measured.k.tolist() == list(range(1, soft_labels.shape[1]))
    for k in range(1, soft_labels.shape[1]):
        unreliability, ambiguity, tied = indicators_by_loop(soft_labels, labels, k)
        # float32 sums of at most 200 memberships
        np.testing.assert_allclose(measured.unreliability[k - 1], unreliability, atol=1e-6)
        np.testing.assert_allclose(measured.ambiguity[k - 1], ambiguity, atol=1e-6)
        np.testing.assert_allclose(measured.margin[k - 1], 1 - unreliability - ambiguity, atol=2e-6)
        np.testing.assert_allclose(measured.tied[k - 1], tied, atol=1e-6)
        true, other = measured.worst_pair[k - 1]
        matrix = indicators.ambiguity_matrix(soft_labels, labels, k)
        np.testing.assert_allclose(matrix[true, other], ambiguity, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_single_functions_equal_measure(case):
    soft_labels, labels = CASES[case]
    measured = indicators.measure(soft_labels, labels)
    for k in range(1, soft_labels.shape[1]):
        one = indicators.unreliability_degree(soft_labels, labels, k)
        np.testing.assert_allclose(one, measured.unreliability[k - 1], atol=1e-6)
        one = indicators.ambiguity_degree(soft_labels, labels, k)
        np.testing.assert_allclose(one, measured.ambiguity[k - 1], atol=1e-6)
    one = indicators.mean_label_margin(soft_labels, labels)
    np.testing.assert_allclose(one, measured.mean_label_margin, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("levels", [None, 3], ids=["no ties", "ties"])
def test_membership_equals_the_loop(levels):
    soft_labels, _ = draw(40, 6, levels=levels)
    for k in range(1, 6):
        expected = [membership_by_loop(row, k) for row in soft_labels]
        np.testing.assert_allclose(indicators.membership(soft_labels, k), expected, atol=1e-6)


def modes(soft_labels, k):
    key = jax.random.key(0)
    return {
        "fractional": indicators.membership(soft_labels, k),
        "random": indicators.membership(soft_labels, k, ties="random", key=key),
        "first": indicators.membership(soft_labels, k, ties="first"),
    }


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("levels", [None, 2], ids=["no ties", "ties"])
@pytest.mark.parametrize("ties", ["fractional", "random", "first"])
def test_every_mode_has_k_members_and_the_identity_of_the_rows(k, levels, ties):
    """Sum over i ≠ y of γ_{y,i} is k − 1 + Δ_y, so γ ≥ (k − 1 + max Δ_y)/(C − 1)."""
    soft_labels, labels = draw(500, 6, levels=levels)
    members = np.asarray(modes(soft_labels, k)[ties], np.float64)
    np.testing.assert_allclose(members.sum(axis=1), k, atol=1e-6)
    for y in range(6):
        rates = members[labels == y].mean(axis=0)
        missed = 1 - rates[y]
        wrong = np.delete(rates, y)
        np.testing.assert_allclose(wrong.sum(), k - 1 + missed, atol=1e-6)
        assert wrong.max() >= (k - 1 + missed) / 5 - 1e-6


def test_modes_agree_without_ties_and_random_ties_average_to_fractional():
    soft_labels, _ = draw(50, 5)
    members = modes(soft_labels, 2)
    chex.assert_trees_all_close(members["fractional"], members["random"], members["first"])
    tied = jnp.array([0.3, 0.3, 0.3, 0.1])
    keys = jax.random.split(jax.random.key(1), 4000)
    draws = jax.vmap(lambda key: indicators.membership(tied, 2, ties="random", key=key))(keys)
    # standard error sqrt(2/9/4000) = 0.0075
    np.testing.assert_allclose(draws.mean(axis=0), [2 / 3, 2 / 3, 2 / 3, 0], atol=0.03)


def test_first_is_top_k():
    soft_labels, _ = draw(30, 6, levels=3)
    members = indicators.membership(soft_labels, 3, ties="first")
    _, classes = jax.lax.top_k(soft_labels, 3)
    np.testing.assert_array_equal(members, jax.nn.one_hot(classes, 6).sum(axis=1))


def test_one_hot_labels_at_k_3_of_10_have_gamma_two_ninths():
    labels = np.arange(100) % 10
    soft_labels = np.eye(10, dtype=np.float32)[labels]
    np.testing.assert_allclose(
        indicators.ambiguity_degree(soft_labels, labels, 3), 2 / 9, atol=1e-6
    )
    np.testing.assert_allclose(
        indicators.measure(soft_labels, labels).ambiguity[2], 2 / 9, atol=1e-6
    )


def test_gamma_grows_and_delta_falls_with_k():
    measured = indicators.measure(*draw(300, 8, levels=4))
    assert (np.diff(measured.unreliability) <= 1e-6).all()
    assert (np.diff(measured.ambiguity) >= -1e-6).all()


def test_permuting_classes_permutes_the_results():
    soft_labels, labels = draw(200, 6, levels=5)
    order = np.random.default_rng(3).permutation(6)
    renamed = np.argsort(order)[labels]
    chex.assert_trees_all_close(
        indicators.membership(soft_labels, 2)[:, order],
        indicators.membership(soft_labels[:, order], 2),
    )
    a = indicators.measure(soft_labels, labels)
    b = indicators.measure(soft_labels[:, order], renamed)
    chex.assert_trees_all_close(
        (a.unreliability, a.ambiguity, a.tied, a.mean_label_margin),
        (b.unreliability, b.ambiguity, b.tied, b.mean_label_margin),
        atol=1e-6,
    )
    matrix = indicators.ambiguity_matrix(soft_labels, labels, 2)
    permuted = indicators.ambiguity_matrix(soft_labels[:, order], renamed, 2)
    np.testing.assert_allclose(matrix[order][:, order], permuted, atol=1e-6)


def test_only_the_order_of_entries_matters():
    soft_labels, labels = draw(100, 5)
    a = indicators.measure(soft_labels, labels)
    b = indicators.measure(np.exp(5 * soft_labels), labels)  # rows that sum to anything
    chex.assert_trees_all_close((a.unreliability, a.ambiguity), (b.unreliability, b.ambiguity))


def test_mean_label_margin_by_loop():
    soft_labels, labels = draw(100, 5)
    margins = []
    for y in range(5):
        mean = soft_labels[labels == y].astype(np.float64).mean(axis=0)
        margins.append(mean[y] - max(mean[i] for i in range(5) if i != y))
    np.testing.assert_allclose(
        indicators.mean_label_margin(soft_labels, labels), min(margins), atol=1e-6
    )


def test_masked_examples_do_not_count_whatever_they_hold():
    soft_labels, labels = draw(80, 5, levels=4)
    where = np.arange(80) % 3 > 0
    spoiled, unknown = soft_labels.copy(), labels.copy()
    spoiled[~where], unknown[~where] = np.nan, -1
    masked = indicators.measure(spoiled, unknown, where=where)
    kept = indicators.measure(soft_labels[where], labels[where])
    chex.assert_trees_all_close(masked, kept, atol=1e-6)
    for function in (indicators.unreliability_degree, indicators.ambiguity_degree):
        np.testing.assert_allclose(
            function(spoiled, unknown, 2, where=where),
            function(soft_labels[where], labels[where], 2),
            atol=1e-6,
        )
    sets = soft_labels > 0.5
    chex.assert_trees_all_close(
        indicators.measure_sets(sets, unknown, where=where),
        indicators.measure_sets(sets[where], labels[where]),
        atol=1e-6,
    )


def test_max_k_gives_the_first_rows_of_the_table():
    soft_labels, labels = draw(150, 7, levels=3)
    whole = indicators.measure(soft_labels, labels)
    for max_k in (1, 2, 5):
        part = indicators.measure(soft_labels, labels, max_k=max_k)
        for name in ("k", "unreliability", "ambiguity", "divergence", "worst_pair", "tied"):
            first = getattr(whole, name)[:max_k]
            np.testing.assert_allclose(getattr(part, name), first, atol=1e-6)


def test_candidate_sets_are_measured_as_top_k_sets_are():
    soft_labels, labels = draw(200, 6)
    sets = indicators.membership(soft_labels, 2) > 0
    found = indicators.measure_sets(sets, labels)
    measured = indicators.measure(soft_labels, labels, max_k=2)
    np.testing.assert_allclose(found.mean_size, 2)
    np.testing.assert_allclose(found.unreliability, measured.unreliability[1], atol=1e-6)
    np.testing.assert_allclose(found.ambiguity, measured.ambiguity[1], atol=1e-6)
    np.testing.assert_allclose(found.divergence, measured.divergence[1], atol=1e-6)
    np.testing.assert_array_equal(found.worst_pair, measured.worst_pair[1])


def test_pessimistic_sets_bound_every_tie_breaking():
    soft_labels, labels = draw(300, 5, levels=3)
    for k in (1, 2, 4):
        worst = indicators.measure_sets(indicators.pessimistic_sets(soft_labels, labels, k), labels)
        for members in modes(soft_labels, k).values():
            missed = 1 - np.take_along_axis(np.asarray(members), labels[:, None], 1)
            assert worst.unreliability >= missed.mean() - 1e-6
        assert worst.ambiguity >= indicators.ambiguity_degree(soft_labels, labels, k) - 1e-6
    row = jnp.array([0.4, 0.4, 0.2])
    assert indicators.pessimistic_sets(row, jnp.array(0), 1).tolist() == [False, True, False]
    assert indicators.pessimistic_sets(row, jnp.array(2), 2).tolist() == [True, True, False]


# Transformations


def test_measure_inside_a_sweep_equals_eager():
    """XLA aborted here, in the decomposition of a batched top-k behind one barrier."""
    labels = jnp.arange(40) % 5

    def train(point, key):
        measured = indicators.measure(jax.random.normal(key, (40, 5)), labels)
        return {"margin": measured.margin[1]}

    table = sweep.run(train, sweep.grid(seed=range(6)), batch_size=3)
    eager = [train({}, jax.random.key(seed))["margin"] for seed in range(6)]
    np.testing.assert_allclose(table["margin"].to_numpy(), eager, atol=1e-6)


def test_measure_under_jit_and_vmap_equals_eager():
    soft_labels, labels = draw(64, 5, levels=6)
    eager = indicators.measure(soft_labels, labels)
    chex.assert_trees_all_close(jax.jit(indicators.measure)(soft_labels, labels), eager)
    stack = jnp.stack([soft_labels, soft_labels[::-1]])
    mapped = jax.vmap(indicators.measure)(stack, jnp.stack([labels, labels[::-1]]))
    for i in range(2):
        chex.assert_trees_all_close(jax.tree.map(lambda x, i=i: x[i], mapped), eager, atol=1e-6)


def test_k_may_be_traced_and_swept():
    soft_labels, labels = draw(64, 5)
    ks = jnp.arange(1, 5)
    measured = indicators.measure(soft_labels, labels)
    for function, expected in (
        (indicators.unreliability_degree, measured.unreliability),
        (indicators.ambiguity_degree, measured.ambiguity),
    ):
        swept = jax.jit(jax.vmap(lambda k, f=function: f(soft_labels, labels, k)))(ks)
        np.testing.assert_allclose(swept, expected, atol=1e-6)


def test_membership_of_batches_is_membership_of_rows():
    soft_labels = jnp.asarray(draw(24, 5, levels=4)[0]).reshape(2, 3, 4, 5)
    whole = jax.jit(indicators.membership)(soft_labels, 2)
    rows = [indicators.membership(row, 2) for row in soft_labels.reshape(-1, 5)]
    np.testing.assert_array_equal(whole.reshape(-1, 5), jnp.stack(rows))


def test_mean_label_margin_has_a_gradient():
    soft_labels, labels = draw(30, 3)
    margin = lambda d: indicators.mean_label_margin(d, labels)  # noqa: E731
    gradient = jax.grad(margin)(jnp.asarray(soft_labels))
    step = 1e-2 * np.random.default_rng(0).standard_normal(soft_labels.shape).astype(np.float32)
    # linear between the kinks: exact to the rounding of the difference
    np.testing.assert_allclose(
        margin(soft_labels + step) - margin(soft_labels - step),
        2 * jnp.vdot(gradient, step),
        atol=1e-5,
    )


def test_mean_label_margin_has_a_gradient_when_a_class_is_absent():
    soft_labels = jnp.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1]])
    gradient = jax.grad(indicators.mean_label_margin)(soft_labels, jnp.array([0, 1]))
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).sum() > 0


def test_nothing_is_known_of_groups_that_a_mapped_mask_empties():
    soft_labels, labels = draw(20, 3)
    masks = jnp.stack([jnp.ones(20, bool), jnp.zeros(20, bool)])
    mapped = jax.vmap(lambda where: indicators.measure(soft_labels, labels, where=where))(masks)
    assert np.isfinite(mapped.ambiguity[0]).all()
    for values in (mapped.unreliability, mapped.ambiguity, mapped.margin, mapped.mean_label_margin):
        assert np.isnan(values[1]).all()
    assert "Indicators(" in str(mapped)  # a table is for one set of labels


def test_half_precision_gives_the_same_indicators_one_k_at_a_time():
    labels = np.arange(50) % 10
    one_hot = jax.nn.one_hot(labels, 10, dtype=jnp.bfloat16)
    np.testing.assert_allclose(indicators.ambiguity_degree(one_hot, labels, 3), 2 / 9, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_labels_are_read_exactly(dtype):
    soft_labels, labels = draw(100, 5)
    half = jnp.asarray(soft_labels, dtype)
    chex.assert_trees_all_close(
        indicators.measure(half, labels),
        indicators.measure(half.astype(jnp.float32), labels),
        atol=1e-6,
    )


# Streaming


def count(soft_labels, labels, batch, max_k):
    state = indicators.init(soft_labels.shape[1], max_k)
    for start in range(0, len(labels), batch):
        rows = slice(start, start + batch)
        state = indicators.update(state, soft_labels[rows], labels[rows])
    return state


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_streaming_equals_measure_whatever_the_batch(batch):
    soft_labels, labels = draw(130, 4, levels=3)
    streamed = indicators.compute(count(soft_labels, labels, batch, 3))
    chex.assert_trees_all_close(streamed, indicators.measure(soft_labels, labels), atol=1e-6)


def test_merge_is_associative_and_commutative():
    soft_labels, labels = draw(120, 4, levels=3)
    a, b, c = (count(soft_labels[i::3], labels[i::3], 16, 3) for i in range(3))
    left = indicators.merge(indicators.merge(a, b), c)
    right = indicators.merge(a, indicators.merge(b, c))
    swapped = indicators.merge(indicators.merge(c, a), b)
    value = lambda state: jax.tree.map(lambda pair: pair[0] + pair[1], state)  # noqa: E731
    chex.assert_trees_all_close(value(left), value(right), value(swapped), rtol=1e-7, atol=0)
    whole = indicators.measure(soft_labels, labels)
    chex.assert_trees_all_close(indicators.compute(left), whole, atol=1e-6)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_counts_stay_exact_beyond_two_to_the_24(jit):
    """One missed example among 2^26 + 1 is still there; a float32 count would have stopped."""
    merge = jax.jit(indicators.merge) if jit else indicators.merge
    right = count(np.float32([[0.9, 0.1]]), np.array([0]), 1, 1)
    missed = count(np.float32([[0.1, 0.9]]), np.array([0]), 1, 1)
    state = right
    for _ in range(26):
        state = merge(state, state)
    state = merge(state, missed)
    total = 2**26 + 1
    assert np.asarray(state.examples, np.float64).sum(axis=0).tolist() == [total, 0]
    assert np.asarray(state.members, np.float64).sum(axis=0)[0, 0].tolist() == [2**26, 1]
    measured = indicators.compute(state)
    np.testing.assert_allclose(measured.unreliability[0], 1 / total, rtol=1e-6)
    np.testing.assert_allclose(measured.ambiguity[0], 1 / total, rtol=1e-6)


def test_long_batches_are_counted_in_blocks(monkeypatch):
    soft_labels, labels = draw(100, 4, levels=3)
    whole = indicators.measure(soft_labels, labels)
    monkeypatch.setattr(_counts, "ROWS_PER_CLASS", 8)  # blocks of 32
    chex.assert_trees_all_close(indicators.measure(soft_labels, labels), whole, atol=1e-6)


def test_fractions_of_many_rows_keep_their_digits():
    """One-hot labels, a tenth of them wrong, are all ties beyond the first place."""
    labels = np.arange(50_000) % 10
    given = np.where(labels == 0, 1, labels)  # class 0 is always called 1
    measured = indicators.measure(np.eye(10, dtype=np.float32)[given], labels)
    k = np.arange(1, 10)
    np.testing.assert_allclose(measured.unreliability, 0.1 * (10 - k) / 9, atol=1.5e-5)
    np.testing.assert_allclose(measured.ambiguity, 1, atol=1.5e-5)


def test_update_traces_once_for_batches_of_one_shape():
    soft_labels, labels = draw(64, 4)
    update = jax.jit(chex.assert_max_traces(indicators.update, n=1))
    state = indicators.init(4, 3)
    for start in range(0, 64, 16):
        state = update(state, soft_labels[start : start + 16], labels[start : start + 16])
    chex.assert_trees_all_close(
        indicators.compute(state), indicators.measure(soft_labels, labels), atol=1e-6
    )


# What a person reads


def test_str_is_a_table_that_marks_the_best_k():
    labels = np.arange(60) % 3
    soft_labels = np.float32([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.3, 0.5]])[labels]
    text = str(indicators.measure(soft_labels, labels))
    assert text.splitlines()[1].startswith("*   1  0.00000  0.00000")
    assert "largest D, at k = 1" in text
    assert "μ = 0.2000: the raw labels can be fitted" in text
    unlearnable = str(indicators.measure(soft_labels[:, ::-1].copy(), np.zeros(60, int)))
    assert "do not separate" in unlearnable
    assert "*" not in unlearnable


def test_str_of_a_long_table_is_short():
    soft_labels, labels = draw(200, 50)
    lines = str(indicators.measure(soft_labels, labels)).splitlines()
    assert len(lines) < 20
    assert any(line.strip() == "…" for line in lines)


# Bad input

GOOD, TRUTH = draw(10, 4)
BAD = {
    "integer soft labels": (
        TypeError,
        "soft_labels: expected floating",
        lambda: indicators.measure(TRUTH[:, None] + [0, 1], TRUTH),
    ),
    "NaN": (
        ValueError,
        r"soft_labels: .*NaN or infinity in row \[3\]",
        lambda: indicators.measure(np.where(np.arange(10)[:, None] == 3, np.nan, GOOD), TRUTH),
    ),
    "infinity": (
        ValueError,
        "soft_labels: .*infinity",
        lambda: indicators.membership(jnp.array([1.0, jnp.inf]), 1),
    ),
    "float labels": (
        TypeError,
        "labels: expected integer .* float32",
        lambda: indicators.measure(GOOD, TRUTH.astype(np.float32)),
    ),
    "labels out of range": (
        ValueError,
        r"labels: expected classes in 0 … 3, got 7",
        lambda: indicators.measure(GOOD, TRUTH * 0 + 7),
    ),
    "negative labels": (
        ValueError,
        r"labels: .*got -1",
        lambda: indicators.ambiguity_degree(GOOD, TRUTH * 0 - 1, 1),
    ),
    "labels beyond 32 bits": (
        ValueError,
        "labels: expected classes in 0 … 3",
        lambda: indicators.measure(GOOD, TRUTH.astype(np.int64) + 2**32),
    ),
    "several k": (
        ValueError,
        r"k: expected one number, got shape \[2\]",
        lambda: indicators.membership(GOOD, np.array([1, 2])),
    ),
    "traced float k": (
        TypeError,
        "k: expected a whole number",
        lambda: jax.jit(lambda k: indicators.membership(GOOD, k))(1.5),
    ),
    "labels of another length": (
        ValueError,
        r"labels: expected shape \[10\], got \[9\]",
        lambda: indicators.measure(GOOD, TRUTH[:9]),
    ),
    "k of zero": (ValueError, "k: expected 1 … 3", lambda: indicators.membership(GOOD, 0)),
    "k of C": (
        ValueError,
        "k: expected 1 … 3",
        lambda: indicators.unreliability_degree(GOOD, TRUTH, 4),
    ),
    "fractional k": (
        TypeError,
        "k: expected a whole number",
        lambda: indicators.membership(GOOD, 1.5),
    ),
    "max_k of C": (
        ValueError,
        "max_k: expected 1 … 3",
        lambda: indicators.measure(GOOD, TRUTH, max_k=4),
    ),
    "no examples": (
        ValueError,
        "at least one example",
        lambda: indicators.measure(GOOD[:0], TRUTH[:0]),
    ),
    "all masked": (
        ValueError,
        "where: .*at least one",
        lambda: indicators.measure(GOOD, TRUTH, where=np.zeros(10, bool)),
    ),
    "float mask": (
        TypeError,
        "where: expected a boolean",
        lambda: indicators.measure(GOOD, TRUTH, where=np.ones(10)),
    ),
    "one class": (ValueError, "two classes", lambda: indicators.measure(GOOD[:, :1], TRUTH * 0)),
    "one row without an axis": (
        ValueError,
        r"expected shape \[N, C\]",
        lambda: indicators.measure(GOOD[0], TRUTH),
    ),
    "unknown ties": (
        ValueError,
        "ties: expected",
        lambda: indicators.membership(GOOD, 1, ties="last"),
    ),
    "random without key": (
        ValueError,
        "key: expected",
        lambda: indicators.membership(GOOD, 1, ties="random"),
    ),
    "sets of floats": (
        TypeError,
        "candidate_sets: expected boolean",
        lambda: indicators.measure_sets(GOOD, TRUTH),
    ),
    "state of other classes": (
        ValueError,
        "expected 3 classes",
        lambda: indicators.update(indicators.init(3, 1), GOOD, TRUTH),
    ),
    "states of other shapes": (
        ValueError,
        "b: expected",
        lambda: indicators.merge(indicators.init(3, 1), indicators.init(4, 1)),
    ),
    "empty state": (ValueError, "state: ", lambda: indicators.compute(indicators.init(3, 1))),
    "init of one class": (ValueError, "num_classes: ", lambda: indicators.init(1, 1)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_at_the_door(case):
    error, message, call = BAD[case]
    with pytest.raises(error, match=message):
        call()
