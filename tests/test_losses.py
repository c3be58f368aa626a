import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from jax.test_util import check_grads
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, softmax

from jsoft import losses, theory

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(3, 4, 5)).astype(np.float32) * 3
SETS = RNG.random((3, 4, 5)) < 0.5
SETS[0, 0] = False  # empty
SETS[0, 1] = True  # full
SETS[0, 2] = np.arange(5) == 3  # one class
SOFT = RNG.dirichlet(np.ones(5), size=(3, 4)).astype(np.float32)
SOFT[0, 0] = [0.5, 0.5, 0.0, 0.0, 0.0]


def log_softmax(z):
    top = max(z)
    return [x - top - math.log(sum(math.exp(y - top) for y in z)) for x in z]


def reference_soft(z, d):
    return -sum(w * q for w, q in zip(d, log_softmax(z), strict=True) if w > 0)


def reference_kl(z, d):
    return sum(w * (math.log(w) - q) for w, q in zip(d, log_softmax(z), strict=True) if w > 0)


def reference_superset(z, members):
    inside = [q for q, m in zip(log_softmax(z), members, strict=True) if m]
    if not inside:
        return 0.0
    top = max(inside)
    return -top - math.log(sum(math.exp(q - top) for q in inside))


def reference_average(z, members):
    inside = [q for q, m in zip(log_softmax(z), members, strict=True) if m]
    return -sum(inside) / len(inside) if inside else 0.0


def reference_membership(z, members):
    total = 0.0
    for x, m in zip(z, members, strict=True):
        against = -x if m else x
        total += max(against, 0.0) + math.log1p(math.exp(-abs(against)))
    return total


SET_LOSSES = {
    "superset": (losses.superset_log_loss, reference_superset),
    "average": (losses.average_loss, reference_average),
    "membership": (losses.membership_logistic_loss, reference_membership),
}
ALL = {
    "soft": (losses.soft_cross_entropy, reference_soft, SOFT),
    "kl": (losses.kl_divergence, reference_kl, SOFT),
    **{name: (loss, reference, SETS) for name, (loss, reference) in SET_LOSSES.items()},
}
each_loss = pytest.mark.parametrize(("loss", "reference", "targets"), ALL.values(), ids=ALL)
each_set_loss = pytest.mark.parametrize(("loss", "reference"), SET_LOSSES.values(), ids=SET_LOSSES)


def loop(reference, logits, targets):
    rows = np.asarray(logits, np.float64).reshape(-1, logits.shape[-1])
    targets = np.asarray(targets).reshape(rows.shape)
    found = [reference(z, t) for z, t in zip(rows, targets, strict=True)]
    return np.reshape(found, logits.shape[:-1])


@functools.partial(jax.jit, static_argnums=0)
def values(loss, logits, targets):
    return loss(logits, targets)


@functools.partial(jax.jit, static_argnums=0)
def gradients(loss, logits, targets):
    return jax.grad(lambda z: loss(z, targets).sum())(logits)


@each_loss
def test_matches_the_reference(loss, reference, targets):
    found = loss(LOGITS, targets)
    assert found.dtype == jnp.float32
    assert_allclose(found, loop(reference, LOGITS, targets), rtol=1e-5, atol=1e-6)


@each_loss
def test_one_example_is_enough(loss, reference, targets):
    found = loss(LOGITS[1, 2], targets[1, 2])
    assert found.shape == ()
    assert_allclose(found, reference(LOGITS[1, 2], targets[1, 2]), rtol=1e-5)


@each_loss
def test_eager_jit_vmap_and_closed_over_targets_agree(loss, reference, targets):
    eager = loss(LOGITS, targets)
    for transformed in (
        jax.jit(loss)(LOGITS, targets),
        jax.vmap(jax.vmap(loss))(LOGITS, targets),
        jax.jit(lambda z: loss(z, targets))(LOGITS),
        jax.jit(lambda z: loss(z, jnp.asarray(targets)))(LOGITS),
        jax.jit(lambda t: loss(LOGITS, t))(targets),
    ):
        assert_allclose(transformed, eager, rtol=1e-6, atol=1e-6)


@each_loss
def test_gradients_match_finite_differences(loss, reference, targets):
    with jax.enable_x64(True):
        logits = jnp.asarray(LOGITS[0], jnp.float64)
        check_grads(
            jax.jit(lambda z: loss(z, targets[0])), (logits,), order=1, modes=("fwd", "rev")
        )


def test_soft_labels_have_a_gradient_too():
    """Labels that are learnt: the slope along d_i is −log p_i, at d_i = 0 as well."""
    found = jax.grad(losses.soft_cross_entropy, argnums=1)(LOGITS[0, 0], jnp.asarray(SOFT[0, 0]))
    assert_allclose(found, [-q for q in log_softmax(LOGITS[0, 0])], rtol=1e-5)


def test_divergence_is_the_cross_entropy_less_the_entropy():
    entropy = -np.where(SOFT > 0, SOFT * np.log(np.where(SOFT > 0, SOFT, 1)), 0).sum(axis=-1)
    expected = losses.soft_cross_entropy(LOGITS, SOFT) - entropy
    assert_allclose(losses.kl_divergence(LOGITS, SOFT), expected, rtol=1e-5, atol=1e-6)
    assert_allclose(losses.kl_divergence(np.log(SOFT[1]), SOFT[1]), 0, atol=1e-6)
    both = [
        jax.grad(lambda z, f=f: f(z, SOFT).sum())(LOGITS)
        for f in (losses.kl_divergence, losses.soft_cross_entropy)
    ]
    assert_allclose(*both, rtol=1e-5, atol=1e-6)


def test_divergence_and_its_slopes_are_finite_where_a_class_is_ruled_out():
    logits, label = jnp.array([0.0, -jnp.inf, 1.0]), jnp.array([0.5, 0.0, 0.5])
    value, slopes = jax.value_and_grad(losses.kl_divergence, argnums=(0, 1))(logits, label)
    assert_allclose(value, reference_kl([0.0, 1.0], [0.5, 0.5]), rtol=1e-6)
    assert_allclose(slopes[0], [1 / (1 + math.e) - 0.5, 0, 0.5 - 1 / (1 + math.e)], rtol=1e-5)
    assert np.isfinite(slopes[1]).all()


@each_loss
def test_class_permutation_changes_nothing(loss, reference, targets):
    order = np.array([3, 0, 4, 1, 2])
    assert_allclose(
        values(loss, LOGITS[..., order], targets[..., order]),
        values(loss, LOGITS, targets),
        rtol=1e-5,
        atol=1e-6,
    )
    assert_allclose(
        gradients(loss, LOGITS[..., order], targets[..., order]),
        gradients(loss, LOGITS, targets)[..., order],
        rtol=1e-5,
        atol=1e-6,
    )


def every_set_at_extreme_logits(size):
    """All sets over four classes against logits of ±size, with ties at both ends."""
    rows = np.array([[size, -size, size, -size], [size, -size, -size, 0], [-size] * 4], np.float32)
    sets = np.array([[bool(mask >> i & 1) for i in range(4)] for mask in range(16)])
    return np.repeat(rows, 16, axis=0), np.tile(sets, (3, 1))


@each_set_loss
def test_extreme_logits_stay_finite_and_right(loss, reference):
    logits, sets = every_set_at_extreme_logits(1e4)
    assert_allclose(values(loss, logits, sets), loop(reference, logits, sets), rtol=1e-6, atol=1e-3)
    slopes = gradients(loss, logits, sets)
    assert np.isfinite(slopes).all()
    assert np.abs(slopes).max() <= 1 + 1e-6


def test_extreme_logits_of_soft_cross_entropy():
    logits, sets = every_set_at_extreme_logits(1e4)
    logits, sets = logits[sets.any(-1)], sets[sets.any(-1)]
    soft = (sets / sets.sum(-1, keepdims=True)).astype(np.float32)
    found = values(losses.soft_cross_entropy, logits, soft)
    assert_allclose(found, loop(reference_soft, logits, soft), rtol=1e-6)
    assert np.isfinite(gradients(losses.soft_cross_entropy, logits, soft)).all()


@each_loss
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision(loss, reference, targets, dtype):
    logits = jnp.asarray(LOGITS, dtype)
    if targets.dtype != np.bool_:
        targets = jnp.asarray(targets, dtype)
    found = values(loss, logits, targets)
    assert found.dtype == dtype
    eps = float(jnp.finfo(dtype).eps)
    exact = loop(reference, np.asarray(logits, np.float64), np.asarray(targets, np.float64))
    # logsumexp rounds at the size of the logits, 10 here, and the difference of two keeps that.
    assert_allclose(np.asarray(found, np.float64), exact, rtol=4 * eps, atol=10 * eps)
    assert gradients(loss, logits, targets).dtype == dtype


@each_set_loss
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_extreme_logits_in_half_precision(loss, reference, dtype):
    logits, sets = every_set_at_extreme_logits(1e4)
    logits = jnp.asarray(logits, dtype)
    found = np.asarray(values(loss, logits, sets), np.float64)
    exact = loop(reference, logits, sets)
    # Differences are known to one step of the logits, 64 at 1e4 in bfloat16.
    assert_allclose(found, exact, rtol=0, atol=2e4 * float(jnp.finfo(dtype).eps))
    assert np.isfinite(np.asarray(gradients(loss, logits, sets), np.float32)).all()


def test_soft_labels_may_be_wider_than_the_logits():
    found = values(losses.soft_cross_entropy, jnp.asarray(LOGITS, jnp.bfloat16), SOFT)
    assert_allclose(found, values(losses.soft_cross_entropy, LOGITS, SOFT), rtol=0.02, atol=0.05)
    assert gradients(losses.soft_cross_entropy, jnp.asarray(LOGITS, jnp.bfloat16), SOFT).dtype == (
        jnp.bfloat16
    )


@pytest.mark.parametrize("loss", [losses.superset_log_loss, losses.average_loss])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_empty_set_teaches_nothing(loss, size):
    logits, empty = LOGITS * size, np.zeros_like(SETS)
    assert_array_equal(values(loss, logits, empty), np.zeros((3, 4)))
    assert_array_equal(gradients(loss, logits, empty), np.zeros_like(LOGITS))


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_full_set_costs_nothing_in_the_superset_loss(size):
    full = np.ones_like(SETS)
    assert_allclose(
        values(losses.superset_log_loss, LOGITS * size, full), np.zeros((3, 4)), atol=1e-6
    )
    slopes = gradients(losses.superset_log_loss, LOGITS * size, full)
    assert_allclose(slopes, np.zeros_like(LOGITS), atol=1e-6)


def test_empty_set_is_all_negative_in_the_membership_loss():
    found = values(losses.membership_logistic_loss, LOGITS, np.zeros_like(SETS))
    assert_allclose(found, np.log1p(np.exp(LOGITS)).sum(-1), rtol=1e-5)


@pytest.mark.parametrize("num_classes", [2, 5, 100])
def test_one_hot_targets_give_the_hard_cross_entropy(num_classes):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(16, num_classes)).astype(np.float32)
    labels = rng.integers(num_classes, size=16)
    one_hot = np.eye(num_classes, dtype=np.float32)[labels]
    hard = values(optax.losses.softmax_cross_entropy_with_integer_labels, logits, labels)
    assert_allclose(values(losses.soft_cross_entropy, logits, one_hot), hard, rtol=1e-5)
    assert_allclose(
        values(losses.superset_log_loss, logits, one_hot > 0), hard, rtol=1e-5, atol=1e-6
    )
    assert_allclose(values(losses.average_loss, logits, one_hot > 0), hard, rtol=1e-5)


def test_superset_loss_is_the_lower_bound_of_the_average():
    """−log of a sum of probabilities is below −log of any of them, so below their mean."""
    superset = values(losses.superset_log_loss, LOGITS, SETS)
    assert np.all(superset <= values(losses.average_loss, LOGITS, SETS) + 1e-6)


def test_membership_loss_is_optax_summed_over_classes():
    def by_optax(logits, sets):
        return optax.losses.sigmoid_binary_cross_entropy(logits, sets).sum(-1)

    loss = losses.membership_logistic_loss
    assert_allclose(values(loss, LOGITS, SETS), values(by_optax, LOGITS, SETS), rtol=1e-6)
    assert_allclose(
        gradients(loss, LOGITS, SETS), gradients(by_optax, LOGITS, SETS), rtol=1e-5, atol=1e-7
    )


def test_membership_gradient_at_zero_is_one_half():
    slopes = gradients(losses.membership_logistic_loss, jnp.zeros(4), np.arange(4) < 2)
    assert_array_equal(slopes, [-0.5, -0.5, 0.5, 0.5])


@pytest.mark.parametrize("name", ["soft", "superset", "average"])
def test_a_class_ruled_out_costs_nothing_outside_the_target(name):
    """Logits of −∞ act as if the class were not there."""
    loss, _, _ = ALL[name]
    targets = np.array([0.5, 0.5, 0.0], np.float32)
    targets = targets if name == "soft" else targets > 0
    logits = jnp.array([1.0, -2.0, -jnp.inf])
    assert_allclose(values(loss, logits, targets), values(loss, logits[:2], targets[:2]), rtol=1e-6)
    assert_allclose(gradients(loss, logits, targets)[:2], gradients(loss, logits[:2], targets[:2]))
    assert gradients(loss, logits, targets)[2] == 0


def population_minimiser(loss, targets, weights):
    """Find the logits, the same for all, that minimise the mean loss over the weighted targets."""

    @jax.jit
    @jax.value_and_grad
    def mean_loss(logits):
        return jnp.sum(weights * loss(jnp.broadcast_to(logits, targets.shape), targets))

    with jax.enable_x64(True):
        start = np.zeros(targets.shape[-1])
        options = {"gtol": 1e-9, "ftol": 1e-15, "maxiter": 1000}
        found = scipy.optimize.minimize(
            mean_loss, start, jac=True, method="L-BFGS-B", options=options
        )
    return found.x


def sets_of(*members, num_classes):
    return np.array([np.isin(np.arange(num_classes), row) for row in members])


def levels(sets, weights):
    """Δ and γ of a population of sets, true class 0."""
    share = weights @ sets
    return 1 - share[0], share[1:].max()


# y = 0, a = 1, b = 2 and two classes that fill the sets up to k = 2.
PAIRS = sets_of([0, 1], [0, 2], [1, 3], [2, 4], num_classes=5)
PAIR_WEIGHTS = np.array([0.2525, 0.2525, 0.2475, 0.2475])
# y = 0 in sets of four, class 7 alone.
MIXED = sets_of([0, 1, 2, 3], [0, 4, 5, 6], [7], num_classes=8)
MIXED_WEIGHTS = np.array([0.3, 0.3, 0.4])


def test_superset_log_loss_fails_under_the_condition():
    unreliability, ambiguity = levels(PAIRS, PAIR_WEIGHTS)
    assert_allclose((unreliability, ambiguity), (0.495, 0.5), atol=1e-12)
    assert theory.margin(unreliability, ambiguity) > 0
    p = softmax(population_minimiser(losses.superset_log_loss, PAIRS, PAIR_WEIGHTS))
    # The two filling classes go to zero only as their logits go to −∞.
    assert_allclose(p, [0.01, 0.495, 0.495, 0.0, 0.0], atol=1e-4)


def test_average_and_membership_losses_get_the_same_sets_right():
    p = softmax(population_minimiser(losses.average_loss, PAIRS, PAIR_WEIGHTS))
    logits = population_minimiser(losses.membership_logistic_loss, PAIRS, PAIR_WEIGHTS)
    assert_allclose(p, [0.2525, 0.25, 0.25, 0.12375, 0.12375], atol=1e-5)
    assert_allclose(expit(logits), [0.505, 0.5, 0.5, 0.2475, 0.2475], atol=1e-5)
    assert np.argmax(p) == np.argmax(logits) == 0


def test_average_loss_fails_with_sets_of_several_sizes_and_membership_does_not():
    assert_allclose(levels(MIXED, MIXED_WEIGHTS), (0.4, 0.4), atol=1e-12)
    p = softmax(population_minimiser(losses.average_loss, MIXED, MIXED_WEIGHTS))
    logits = population_minimiser(losses.membership_logistic_loss, MIXED, MIXED_WEIGHTS)
    assert_allclose(p, [0.15] + [0.075] * 6 + [0.4], atol=1e-5)
    assert np.argmax(p) == 7
    assert_allclose(expit(logits), [0.6] + [0.3] * 6 + [0.4], atol=1e-5)


def test_superset_log_loss_is_right_with_exchangeable_wrong_classes():
    """Pairs from four classes: y with each of the others, 0.2 each, and the rest, 0.4/3 each."""
    sets = sets_of([0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3], num_classes=4)
    weights = np.array([0.2] * 3 + [0.4 / 3] * 3)  # P(y in) = 0.6 > k/C = 1/2
    p = softmax(population_minimiser(losses.superset_log_loss, sets, weights))
    # Maximise 0.6 log(y + w) + 0.4 log(2w) with y + 3w = 1: w = 0.2.
    assert_allclose(p, [0.4, 0.2, 0.2, 0.2], atol=1e-5)


def test_raw_cross_entropy_is_decided_by_the_mean_label():
    """The top-2 sets always hold y and no other class, yet the mean label favours the others."""
    soft = np.array([[0.3, 0.7, 0.0], [0.3, 0.0, 0.7], [0.3, 0.7, 0.0]], np.float32)
    weights = np.array([0.25, 0.5, 0.25])
    assert_allclose(levels(soft > 0, weights), (0.0, 0.5))
    logits = population_minimiser(losses.soft_cross_entropy, soft, weights)
    assert_allclose(softmax(logits), [0.3, 0.35, 0.35], atol=1e-5)


@pytest.mark.parametrize(
    ("logits", "soft_labels", "error", "message"),
    [
        (np.array([1, 2]), [0.5, 0.5], TypeError, "logits: expected floating-point numbers, got"),
        ([[0.0], [0.0]], [[1.0], [1.0]], ValueError, "logits: expected two classes or more"),
        (0.0, 1.0, ValueError, r"logits: expected shape \[..., C\], got \[\]"),
        ([0.0, 0.0], [1, 0], TypeError, "soft_labels: .* got dtype int32; .*one_hot"),
        ([0.0, 0.0], [0.5, 0.25, 0.25], ValueError, r"soft_labels: .*\[2\], got \[3\]"),
        ([[0.0, 0.0]], [0.5, 0.5], ValueError, r"soft_labels: .*\[1, 2\], got \[2\]"),
        ([0.0, 0.0], [math.nan, 1.0], ValueError, "soft_labels: expected finite numbers"),
        (
            [[0.0, 0.0]] * 2,
            [[0.5, 0.5], [-0.25, 1.25]],
            ValueError,
            r"soft_labels: expected entries of 0 or more, got -0.25 in row \[1\]",
        ),
        (
            [[0.0, 0.0]] * 2,
            [[0.5, 0.5], [0.75, 0.75]],
            ValueError,
            r"soft_labels: expected rows that sum to one, got 1.5 in row \[1\]",
        ),
    ],
    ids=[
        "integer logits",
        "one class",
        "no class axis",
        "class indices",
        "other classes",
        "other batch",
        "nan",
        "negative",
        "unnormalised",
    ],
)
def test_bad_soft_labels_are_refused(logits, soft_labels, error, message):
    with pytest.raises(error, match=message):
        losses.soft_cross_entropy(np.asarray(logits), np.asarray(soft_labels))


@each_set_loss
@pytest.mark.parametrize(
    ("logits", "sets", "error", "message"),
    [
        ([1, 2], [True, False], TypeError, "logits: expected floating-point numbers, got"),
        ([0.0], [True], ValueError, "logits: expected two classes or more"),
        ([0.0, 0.0], [1, 0], TypeError, "candidate_sets: expected boolean candidate sets, got"),
        ([0.0, 0.0], [True] * 3, ValueError, r"candidate_sets: .*\[2\], got \[3\]"),
        ([[0.0, 0.0]], [True, False], ValueError, r"candidate_sets: .*\[1, 2\], got \[2\]"),
    ],
    ids=["integer logits", "one class", "class indices", "other classes", "other batch"],
)
def test_bad_candidate_sets_are_refused(loss, reference, logits, sets, error, message):
    with pytest.raises(error, match=message):
        loss(np.asarray(logits), np.asarray(sets))


def test_bad_labels_are_refused_where_jit_closes_over_them():
    bad = jnp.array([0.75, 0.75])
    with pytest.raises(ValueError, match="rows that sum to one"):
        jax.jit(lambda z: losses.soft_cross_entropy(z, bad))(jnp.zeros(2))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_rounded_probabilities_pass_the_door(dtype):
    rows = jnp.asarray(RNG.dirichlet(np.ones(1000)), dtype)
    assert losses.soft_cross_entropy(jnp.zeros(1000), rows).shape == ()


# The bad teacher's objective


def teacher_rows(num_examples=40, num_classes=6, *, k=3, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_examples, num_classes)).astype(np.float32)
    labels = rng.integers(0, num_classes, num_examples)
    wrong = np.zeros((num_examples, num_classes), bool)
    for n in range(num_examples):
        others = [i for i in range(num_classes) if i != labels[n]]
        wrong[n, rng.choice(others, k - 1, replace=False)] = True
    return logits, labels, wrong


def teacher_terms_by_loop(logits, labels, wrong, k):
    """The four terms in float64, row by row as the formulas are written."""
    terms = []
    for z, y, drawn in zip(logits.astype(np.float64), labels, wrong, strict=True):
        p = np.exp(z) / np.exp(z).sum()
        punish = -np.log(1 - p[y]) if p.argmax() == y else 0.0
        compensate = 0.0 if y in np.argsort(-p)[:k] else -np.log(p[y])
        random = -sum(np.log(p[j]) for j in range(len(p)) if drawn[j]) / (k - 1)
        terms.append([-np.log(p[y]), punish, compensate, random])
    return np.array(terms).T


@pytest.mark.parametrize("k", [2, 3, 5])
def test_bad_teacher_terms_equal_the_loop(k):
    logits, labels, wrong = teacher_rows(k=k)
    terms = losses.bad_teacher_terms(logits, labels, wrong, k=k)
    np.testing.assert_allclose(terms, teacher_terms_by_loop(logits, labels, wrong, k), rtol=1e-5)
    weights = {"cross_entropy": 0.5, "punishment": 2.0, "compensation": 3.0, "random": 1.5}
    total = losses.bad_teacher_loss(logits, labels, wrong, k=k, **weights)
    np.testing.assert_allclose(total, np.array([0.5, 2, 3, 1.5]) @ np.stack(terms), rtol=1e-5)


def test_bad_teacher_gates_pass_no_gradient_and_the_rest_does():
    """With the gates held at their values, autodiff gives the gradient of the written formulas."""
    logits, labels, wrong = teacher_rows()
    first = logits.argmax(axis=1) == labels
    rank = (logits > np.take_along_axis(logits, labels[:, None], 1)).sum(axis=1)

    def written(logits):
        log_p = jax.nn.log_softmax(logits)
        true = jnp.take_along_axis(log_p, labels[:, None], 1)[:, 0]
        punish = jnp.where(first, -jnp.log1p(-jnp.exp(true)), 0)
        compensate = jnp.where(rank >= 3, -true, 0)
        random = -jnp.where(wrong, log_p, 0).sum(axis=1) / 2
        return (-true + 3 * punish + 3 * compensate + 2 * random).sum()

    found = jax.grad(lambda z: losses.bad_teacher_loss(z, labels, wrong, k=3).sum())(logits)
    np.testing.assert_allclose(found, jax.grad(written)(logits), atol=1e-5)


def test_bad_teacher_is_finite_for_sure_and_for_lost_truths():
    wrong = np.array([[False, True, True, False]] * 2)
    logits = np.float32([[1e4, 0, 0, -1e4], [-1e4, 0, 0, 1e4]])
    labels = np.array([0, 0])
    value, gradient = jax.value_and_grad(
        lambda z: losses.bad_teacher_loss(z, labels, wrong, k=3).sum()
    )(logits)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_bad_teacher_under_jit_and_vmap_equals_eager():
    logits, labels, wrong = teacher_rows()
    eager = losses.bad_teacher_loss(logits, labels, wrong, k=3, punishment=2.0)
    one = lambda z, y, t, a: losses.bad_teacher_loss(z, y, t, k=3, punishment=a)  # noqa: E731
    np.testing.assert_allclose(jax.jit(one)(logits, labels, wrong, 2.0), eager, rtol=1e-6)
    mapped = jax.vmap(one, in_axes=(0, 0, 0, None))(logits, labels, wrong, 2.0)
    np.testing.assert_allclose(mapped, eager, rtol=1e-6)
    closed_over = jax.jit(lambda z: one(z, jnp.asarray(labels), jnp.asarray(wrong), 2.0))(logits)
    np.testing.assert_allclose(closed_over, eager, rtol=1e-6)


def test_bad_teacher_takes_a_traced_k():
    """Teachers of several k in one program: T has k − 1 classes of its own in each of them."""
    sizes = (2, 3, 5)
    rows = [teacher_rows(k=k) for k in sizes]  # the same logits and labels
    logits, labels, _ = rows[0]
    wrong = np.stack([one[2] for one in rows])
    mapped = jax.jit(
        jax.vmap(lambda t, k: losses.bad_teacher_loss(logits, labels, t, k=k), in_axes=(0, 0))
    )(wrong, jnp.array(sizes))
    one_by_one = [
        losses.bad_teacher_loss(logits, labels, t, k=k) for t, k in zip(wrong, sizes, strict=True)
    ]
    np.testing.assert_allclose(mapped, one_by_one, rtol=1e-6)


@pytest.mark.parametrize(
    ("punishment", "random", "accuracy", "true_probability"),
    [(1.0, 3.0, 0.0, 1 / 4), (3.0, 1.0, 1 / 3, 1 / 3), (0.5, 1.0, 1.0, 2 / 5)],
    ids=["never first", "sliding on the tie", "always first"],
)
def test_design_rule_on_free_logits(punishment, random, accuracy, true_probability):
    """Full memorisation without a network, C = 10, k = 3; Δ = 0 in all regimes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 300)
    wrong = np.zeros((300, 10), bool)
    for n in range(300):
        wrong[n, rng.choice([i for i in range(10) if i != labels[n]], 2, replace=False)] = True
    slope = jax.grad(
        lambda z: losses.bad_teacher_loss(
            z, labels, wrong, k=3, punishment=punishment, random=random
        ).sum()
    )

    @jax.jit
    def train(logits):
        return jax.lax.scan(lambda z, _: (z - 0.1 * slope(z), z), logits, None, length=2000)

    _, path = train(rng.normal(size=(300, 10)).astype(np.float32))
    late = np.asarray(path[-300:])  # the truth slides on and off the first place
    # a gate that flips in steps of 0.1 stays off its mean by a few hundredths
    found = (late.argmax(axis=-1) == labels).mean()
    np.testing.assert_allclose(found, accuracy, atol=0.03)
    probability = np.asarray(jax.nn.softmax(late))[:, np.arange(300), labels].mean()
    np.testing.assert_allclose(probability, true_probability, atol=0.02)
    true = np.take_along_axis(late[-1], labels[:, None], 1)
    assert ((late[-1] > true).sum(axis=1) < 3).all()


TEACHER = teacher_rows()
BAD_TEACHER = {
    "k of one": (ValueError, "k: expected two or more", {"k": 1}),
    "several k": (ValueError, "k: expected one number", {"k": np.array([3, 3])}),
    "k of C": (ValueError, "k: expected 1 … 5", {"k": 6}),
    "too few wrong classes": (ValueError, "wrong_classes: expected 3 classes other", {"k": 4}),
    "the truth among them": (
        ValueError,
        "wrong_classes: expected 2 classes other",
        {"wrong_classes": np.eye(6, dtype=bool)[TEACHER[1]] | np.eye(6, dtype=bool)[0]},
    ),
    "labels out of range": (ValueError, "labels: expected classes", {"labels": TEACHER[1] + 6}),
    "float labels": (TypeError, "labels: expected integer", {"labels": TEACHER[1] * 1.0}),
    "negative weight": (ValueError, "punishment: expected 0 or more", {"punishment": -1.0}),
}


@pytest.mark.parametrize("case", BAD_TEACHER)
def test_bad_teacher_refuses_bad_input(case):
    error, message, options = BAD_TEACHER[case]
    logits, labels, wrong = TEACHER
    arguments = {"logits": logits, "labels": labels, "wrong_classes": wrong, "k": 3, **options}
    with pytest.raises(error, match=message):
        losses.bad_teacher_loss(**arguments)
