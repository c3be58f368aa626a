import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.test_util import check_grads
from numpy.testing import assert_allclose, assert_array_equal

from jsoft import transport

GOLDEN = Path(__file__).parent / "golden"
PLANS = np.load(GOLDEN / "s_molsearch_ot_plans.npz")
LOSS = np.load(GOLDEN / "s_molsearch_loss.npz")
RNG = np.random.default_rng(0)
A, B, T, Z = RNG.normal(size=(4, 6, 5)).astype(np.float32)
COST = RNG.random((4, 6)).astype(np.float32)
ROWS = np.array([0.5, 1.5, 1.0, 1.0], np.float32)
COLUMNS = np.full(6, 4 / 6, np.float32)

smoothed = jax.jit(transport.smoothed_transport_plan, static_argnames="num_iters")
entropic = jax.jit(transport.entropic_transport_plan, static_argnames="num_iters")
soft_labels = jax.jit(transport.transport_soft_labels, static_argnames=("num_iters", "regularizer"))
PLANNERS = {
    "l2": functools.partial(smoothed, gamma=0.7),
    "entropy": functools.partial(entropic, epsilon=0.3),
}
each_planner = pytest.mark.parametrize("plan", PLANNERS.values(), ids=PLANNERS)


# ---------------------------------------------------------------------------- plans


# More turns than a training takes: to 1e-10.
@pytest.mark.parametrize("gamma", [5.0, 1.0, 0.2, 0.05])
@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_smoothed_plans_are_the_exact_ones(name, gamma):
    with jax.enable_x64(True):
        found = soft_labels(jnp.asarray(PLANS[f"{name}.emb"]), gamma=gamma, num_iters=1000)
        assert_allclose(found, PLANS[f"{name}.plan_l2_gamma{gamma}"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_plan_of_the_released_code_is_near(name):
    """It stops at 1e-5 of the dual's gradient; ours, in float32, after the usual turns."""
    found = soft_labels(PLANS[f"{name}.emb"].astype(np.float32), gamma=5.0)
    assert_allclose(found, PLANS[f"{name}.plan_code_defaults"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("gamma", [1.0, 0.1])
def test_smoothed_plan_of_unlike_masses(gamma):
    with jax.enable_x64(True):
        problem = [jnp.asarray(PLANS[f"rect.{part}"]) for part in ("cost", "a", "b")]
        found = smoothed(*problem, gamma=gamma, num_iters=1000)
        assert_allclose(found, PLANS[f"rect.plan_l2_gamma{gamma}"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.05])
def test_entropic_plan_of_unlike_masses(epsilon):
    with jax.enable_x64(True):
        problem = [jnp.asarray(PLANS[f"rect.{part}"]) for part in ("cost", "a", "b")]
        found = entropic(*problem, epsilon=epsilon)
        assert_allclose(found, PLANS[f"rect.plan_entropic_eps{epsilon}"], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("epsilon", "turns"), [(0.5, 200), (0.1, 20_000)])
@pytest.mark.parametrize("name", ["a", "b"])
def test_entropic_soft_labels(name, epsilon, turns):
    with jax.enable_x64(True):
        found = soft_labels(
            jnp.asarray(PLANS[f"{name}.emb"]), gamma=epsilon, regularizer="entropy", num_iters=turns
        )
        assert_allclose(found, PLANS[f"{name}.plan_entropic_eps{epsilon}"], rtol=0, atol=1e-10)


def reference_plan(cost, rows, columns, gamma):
    """By a quasi-Newton method on the dual, as the released code does."""
    n = len(rows)

    def negative_dual(x):
        excess = np.maximum(x[:n, None] + x[None, n:] - cost, 0)
        value = x[:n] @ rows + x[n:] @ columns - (excess**2).sum() / (2 * gamma)
        plan = excess / gamma
        return -value, -np.concatenate([rows - plan.sum(axis=1), columns - plan.sum(axis=0)])

    start = np.zeros(n + len(columns))
    found = scipy.optimize.minimize(
        negative_dual,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 5000, "gtol": 1e-9},
    ).x
    return np.maximum(found[:n, None] + found[None, n:] - cost, 0) / gamma


@pytest.mark.parametrize("gamma", [0.1, 0.7, 5.0])
def test_smoothed_plan_matches_a_solver_of_the_dual(gamma):
    expected = reference_plan(COST.astype(float), ROWS, COLUMNS.astype(float), gamma)
    found = smoothed(COST, ROWS, COLUMNS, gamma=gamma, num_iters=500)
    assert_allclose(found, expected, atol=5e-5)  # as far as the quasi-Newton method comes


def test_entropic_plan_matches_plain_scaling():
    kernel, u, v = np.exp(-COST.astype(float) / 0.3), np.ones(4), np.ones(6)
    for _ in range(500):
        u = ROWS / (kernel @ v)
        v = COLUMNS / (kernel.T @ u)
    found = entropic(COST, ROWS, COLUMNS, epsilon=0.3)
    assert_allclose(found, u[:, None] * kernel * v, atol=1e-6)


@each_planner
def test_marginals_are_kept(plan):
    found = np.asarray(plan(COST, ROWS, COLUMNS))
    assert found.dtype == np.float32
    assert (found >= 0).all()
    assert_allclose(found.sum(axis=1), ROWS, rtol=1e-6)
    assert_allclose(found.sum(axis=0), COLUMNS, rtol=2e-4)  # as far as the turns came


@each_planner
def test_costs_of_a_row_or_a_column_alone_change_nothing(plan):
    moved = COST + RNG.normal(size=(4, 1)) + RNG.normal(size=(1, 6))
    assert_allclose(
        plan(moved.astype(np.float32), ROWS, COLUMNS, num_iters=500),
        plan(COST, ROWS, COLUMNS, num_iters=500),
        atol=1e-5,
    )


@each_planner
def test_plan_follows_rows_and_columns_about(plan):
    rows, columns = RNG.permutation(4), RNG.permutation(6)
    assert_allclose(
        plan(COST[rows][:, columns], ROWS[rows], COLUMNS[columns]),
        plan(COST, ROWS, COLUMNS)[rows][:, columns],
        atol=1e-6,
    )


@each_planner
def test_vmap_agrees_with_one_at_a_time(plan):
    costs = np.stack([COST, COST**2, 1 - COST])
    mapped = jax.vmap(plan, (0, None, None))(costs, ROWS, COLUMNS)
    for cost, found in zip(costs, mapped, strict=True):
        assert_allclose(found, plan(cost, ROWS, COLUMNS), atol=1e-6)


def test_jit_agrees_with_eager():
    eager = transport.smoothed_transport_plan(COST, ROWS, COLUMNS, gamma=0.7)
    assert_allclose(smoothed(COST, ROWS, COLUMNS, gamma=0.7), eager, atol=1e-6)
    eager = transport.entropic_transport_plan(COST, ROWS, COLUMNS, epsilon=0.3)
    assert_allclose(entropic(COST, ROWS, COLUMNS, epsilon=0.3), eager, atol=1e-6)


@each_planner
def test_plans_have_gradients_of_their_costs(plan):
    with jax.enable_x64(True):
        weights = jnp.asarray(RNG.normal(size=COST.shape))
        rows, columns = jnp.asarray(ROWS, float), jnp.full(6, 4 / 6, float)
        check_grads(
            jax.jit(lambda cost: (plan(cost, rows, columns, num_iters=200) * weights).sum()),
            (jnp.asarray(COST, float),),
            order=1,
            modes=("rev",),
            eps=1e-6,
        )


def test_rows_alone_are_sparsemax_and_softmax():
    found = entropic(COST, ROWS, COLUMNS, epsilon=0.3, num_iters=0)
    assert_allclose(found, ROWS[:, None] * jax.nn.softmax(-COST / 0.3, axis=1), rtol=1e-6)
    ones = np.ones(2, np.float32)
    cost = np.array([[0.0, 0.4], [3.0, 0.0]], np.float32)
    expected = [[0.7, 0.3], [0.0, 1.0]]  # half of 1 ± 0.4; more than 1 apart
    assert_allclose(smoothed(cost, ones, ones, gamma=1.0, num_iters=0), expected, atol=1e-6)


def test_flat_plan_is_the_centred_cosine():
    """The closed form where γ is large enough that no entry is clipped."""
    units = T / np.linalg.norm(T, axis=1, keepdims=True)
    cosines = units @ units.T
    centred = cosines - cosines.mean(0, keepdims=True) - cosines.mean(1, keepdims=True)
    expected = 1 / 6 + (centred + cosines.mean()) / 20
    assert expected.min() > 0
    assert_allclose(soft_labels(T, gamma=20.0), expected, atol=1e-6)


def test_sharp_plan_is_the_identity():
    assert_allclose(soft_labels(T, gamma=0.01), np.eye(6), atol=1e-6)
    found = soft_labels(T, gamma=0.001, regularizer="entropy")
    assert_allclose(found, np.eye(6), atol=1e-6)


def test_soft_temperature_divides_the_cosine():
    found = soft_labels(T, gamma=2.0, soft_temperature=0.5, num_iters=300)
    assert_allclose(found, soft_labels(T, gamma=1.0, num_iters=300), atol=1e-5)


def test_soft_labels_know_directions_alone():
    found = soft_labels(T * np.float32(1e4))
    assert_allclose(found, soft_labels(T), atol=1e-6)
    assert_allclose(found, found.T, atol=1e-5)
    assert_allclose(found.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("regularizer", ["l2", "entropy"])
def test_soft_labels_pass_no_gradient(regularizer):
    def first(t):
        return transport.transport_soft_labels(t, regularizer=regularizer)[0, 0]

    assert_array_equal(jax.jit(jax.grad(first))(T), np.zeros_like(T))


def test_soft_labels_of_odd_batches():
    assert_array_equal(soft_labels(T[:1]), [[1.0]])
    zeros = soft_labels(np.zeros_like(T))
    assert_allclose(zeros, np.full((6, 6), 1 / 6), rtol=1e-6)  # like nothing, not even itself
    twins = soft_labels(T[[0, 0, 1]], gamma=1.0)
    assert_allclose(twins[0, 0], twins[0, 1], atol=1e-6)
    narrow = soft_labels(T.astype(jnp.bfloat16))
    assert narrow.dtype == jnp.float32
    assert_allclose(narrow, soft_labels(T), atol=2e-3)  # bfloat16 has 8 bits, γ is 5


def test_large_costs_stay_finite():
    cost = np.where(np.eye(4, 6), 0, 1e4).astype(np.float32)
    for plan in PLANNERS.values():
        found = np.asarray(plan(cost, ROWS, COLUMNS))
        assert np.isfinite(found).all()
        assert_allclose(found.sum(axis=1), ROWS, rtol=1e-5)


# ---------------------------------------------------------------------------- losses


@jax.jit
def total_and_gradients(batch, options):
    """Return the total, the terms, and the gradients by the four sets of embeddings."""

    def total(*batch):
        return transport.semi_supervised_contrastive(*batch, **options)

    (value, terms), slopes = jax.value_and_grad(total, (0, 1, 2, 3), has_aux=True)(*batch)
    return value, terms, slopes


def test_loss_and_gradients_of_the_released_code():
    batch = [LOSS[name] for name in ("pos1", "pos2", "teacher", "unsup")]
    found, terms, (a, b, t, z) = total_and_gradients(batch, {})
    assert_allclose(found, LOSS["loss"], rtol=1e-3)
    assert_allclose(terms["labelled"], LOSS["sup_clip_loss"], atol=1e-6)  # 0.002 of logits of 20
    assert_allclose(terms["soft"], LOSS["soft_loss"], rtol=1e-3)
    assert_allclose(terms["spread"], LOSS["reg_loss"], rtol=1e-5)
    for name, slope in (("pos1", a), ("pos2", b), ("unsup", z)):
        expected = LOSS[f"grad.{name}"]
        assert_allclose(slope, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())
    assert_array_equal(t, np.zeros_like(t))
    assert_allclose(soft_labels(LOSS["teacher"]), LOSS["soft_labels"], atol=1e-3)


def test_neighbours_of_the_released_code():
    """The neighbour of a row is told by whose gradient its own term has."""
    z = LOSS["unsup"]
    slopes = jax.jit(jax.jacobian(transport.nearest_neighbor_spread))(z)  # [B, B, D]
    touched = np.abs(slopes).max(axis=2) > 0
    for row, neighbour in enumerate(LOSS["nearest_neighbour"]):
        assert set(np.flatnonzero(touched[row])) == {row, neighbour}


def cosine(x, y):
    return float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))


def log_softmax(row):
    top = max(row)
    total = top + math.log(sum(math.exp(s - top) for s in row))
    return [s - total for s in row]


def reference_info_nce(a, b, tau, mask):
    out = []
    for i in range(len(a)):
        right = [j for j in range(len(b)) if j == i or not mask[i][j]]
        down = [j for j in range(len(a)) if j == i or not mask[j][i]]
        row = log_softmax([cosine(a[i], b[j]) / tau for j in right])[right.index(i)]
        column = log_softmax([cosine(a[j], b[i]) / tau for j in down])[down.index(i)]
        out.append(-(row + column) / 2)
    return out


@pytest.mark.parametrize("masked", [False, True], ids=["all pairs", "masked"])
def test_info_nce_matches_the_reference(masked):
    mask = (RNG.random((6, 6)) < 0.4) & ~np.eye(6, dtype=bool)
    found = jax.jit(transport.info_nce)(A, B, temperature=0.2, mask=mask if masked else None)
    expected = reference_info_nce(A, B, 0.2, mask if masked else np.zeros((6, 6), bool))
    assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_soft_contrastive_matches_the_reference():
    labels = np.asarray(soft_labels(T, gamma=1.0))
    expected = []
    for i in range(6):
        row = log_softmax([cosine(Z[i], Z[j]) / 0.2 for j in range(6)])
        expected.append(-sum(w * s for w, s in zip(labels[i], row, strict=True)))
    found = jax.jit(transport.soft_contrastive)(Z, labels, temperature=0.2)
    assert_allclose(found, expected, rtol=1e-5)


def test_spread_matches_the_reference():
    units = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    expected = []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        nearest = max(others, key=lambda j, i=i: cosine(Z[i], Z[j]))
        distance = math.sqrt(sum((x + 1e-6) ** 2 for x in units[i] - units[nearest]))
        expected.append(-math.log(6 * distance))
    found = jax.jit(transport.nearest_neighbor_spread)(Z)
    assert_allclose(found, expected, rtol=1e-4)


LOSSES = {
    "info_nce": lambda z: transport.info_nce(z, jnp.asarray(B, z.dtype), temperature=0.2),
    "soft_contrastive": lambda z: transport.soft_contrastive(
        z, jnp.full((6, 6), 1 / 6, z.dtype), temperature=0.2
    ),
    "spread": transport.nearest_neighbor_spread,
}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@each_loss
def test_losses_give_one_value_for_each_row_however_called(loss):
    eager = loss(jnp.asarray(Z))
    assert eager.shape == (6,)
    assert eager.dtype == jnp.float32
    mapped = jax.jit(jax.vmap(loss))(jnp.stack([A, Z]))
    assert_allclose(mapped[1], eager, rtol=1e-5)
    assert_allclose(jax.jit(loss)(A), mapped[0], rtol=1e-5, atol=1e-6)


@each_loss
def test_gradients_match_finite_differences(loss):
    with jax.enable_x64(True):
        z = jnp.asarray(Z, float)
        check_grads(jax.jit(loss), (z,), order=1, modes=("rev",), eps=1e-6)


@each_loss
def test_any_length_of_embeddings_has_a_finite_loss_and_gradient(loss):
    both = jax.jit(jax.value_and_grad(lambda z: loss(z).sum()))
    for scale in (0.0, 1e-12, 1e4):
        value, gradient = both(Z * np.float32(scale))
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


@each_loss
def test_bfloat16_embeddings_are_compared_in_float32(loss):
    found = jax.jit(loss)(jnp.asarray(Z, jnp.bfloat16))
    assert found.dtype == jnp.float32
    assert_allclose(found, jax.jit(loss)(Z), rtol=0.1, atol=0.05)


def test_batches_of_one():
    @jax.jit
    def losses(a, z):
        soft = transport.soft_contrastive(z, jnp.ones((1, 1)))
        return transport.info_nce(a, z), soft, transport.nearest_neighbor_spread(z)

    assert_array_equal(losses(A[:1], Z[:1]), np.zeros((3, 1)))


def test_twins_cost_much_but_not_everything():
    found, back = jax.jit(lambda z: jax.vjp(transport.nearest_neighbor_spread, z))(Z[[0, 0, 1]])
    assert_allclose(found[:2], -math.log(3 * 1e-6 * math.sqrt(5)), rtol=1e-3)
    assert np.isfinite(back(np.ones(3, np.float32))[0]).all()


def test_dropped_pairs_have_no_gradient():
    mask = np.zeros((6, 6), bool)
    mask[0, 1:] = mask[1:, 0] = True  # row 0 is compared with itself alone
    found, slope = jax.jit(jax.value_and_grad(lambda a: transport.info_nce(a, B, mask=mask)[0]))(A)
    assert found == 0
    assert_array_equal(slope, np.zeros_like(A))


def test_total_weighs_its_terms_and_keeps_the_encoders_apart():
    options = {"soft_weight": 0.5, "spread_weight": 2.0, "gamma": 1.0, "temperature": 0.1}
    total, terms, (a, b, t, z) = total_and_gradients((A, B, T, Z), options)
    expected = terms["labelled"] + 0.5 * terms["soft"] + 2 * terms["spread"]
    assert_allclose(total, expected, rtol=1e-6)
    labels = soft_labels(T, gamma=1.0)
    soft = transport.soft_contrastive(Z, labels, temperature=0.1)
    assert_allclose(terms["soft"], soft.mean(), rtol=1e-5)
    assert_array_equal(t, np.zeros_like(t))  # labels teach g alone
    assert all(np.abs(slope).max() > 1e-3 for slope in (a, b, z))


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((COST.astype(int), ROWS, COLUMNS), {}, TypeError, "cost: expected floating-point"),
        ((COST[0], ROWS, COLUMNS), {}, ValueError, r"cost: expected shape \[n, m\], got \[6\]"),
        ((COST * np.nan, ROWS, COLUMNS), {}, ValueError, "cost: expected finite"),
        ((COST, COLUMNS, ROWS), {}, ValueError, r"row_mass: expected shape \[4\], got \[6\]"),
        ((COST, ROWS, ROWS), {}, ValueError, r"col_mass: expected shape \[6\], got \[4\]"),
        ((COST, ROWS * 0, COLUMNS), {}, ValueError, "row_mass: expected a number above zero"),
        ((COST, ROWS.astype(int), COLUMNS), {}, TypeError, "row_mass: expected floating-point"),
        ((COST, ROWS, COLUMNS * 2), {}, ValueError, "col_mass: expected the sum 4 of row_mass"),
        ((COST, ROWS, COLUMNS), {"weight": 0.0}, ValueError, "expected a number above zero"),
        ((COST, ROWS, COLUMNS), {"weight": np.ones(2)}, ValueError, "expected one number"),
        ((COST, ROWS, COLUMNS), {"num_iters": -1}, ValueError, "num_iters: expected 0 or more"),
        ((COST, ROWS, COLUMNS), {"num_iters": 2.0}, TypeError, "num_iters: expected a whole"),
    ],
)
@pytest.mark.parametrize(
    ("plan", "name"),
    [
        (transport.smoothed_transport_plan, "gamma"),
        (transport.entropic_transport_plan, "epsilon"),
    ],
    ids=["l2", "entropy"],
)
def test_bad_problems_are_refused(plan, name, arguments, options, error, message):
    options = {name: options.get("weight", 1.0)} | {
        key: value for key, value in options.items() if key != "weight"
    }
    with pytest.raises(error, match=message):
        plan(*arguments, **options)


LABELS = np.full((6, 6), 1 / 6, np.float32)
ON_DIAGONAL = np.eye(6, dtype=bool)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: transport.transport_soft_labels(T[0]), ValueError, r"expected shape \[B, D\]"),
        (lambda: transport.transport_soft_labels(T[:0]), ValueError, r"expected shape \[B, D\]"),
        (lambda: transport.transport_soft_labels(T.astype(int)), TypeError, "embeddings: expected"),
        (lambda: transport.transport_soft_labels(T * np.inf), ValueError, "embeddings: expected"),
        (lambda: transport.transport_soft_labels(T, gamma=-1.0), ValueError, "gamma: expected"),
        (
            lambda: transport.transport_soft_labels(T, soft_temperature=0.0),
            ValueError,
            "soft_temperature: expected a number above zero",
        ),
        (
            lambda: transport.transport_soft_labels(T, regularizer="L2"),
            ValueError,
            'regularizer: expected "l2" or "entropy", got \'L2\'',
        ),
        (lambda: transport.info_nce(A, B[:5]), ValueError, r"b: expected shape \[6, 5\]"),
        (lambda: transport.info_nce(A, B[:1]), ValueError, r"b: expected shape \[6, 5\]"),
        (lambda: transport.info_nce(A, B, temperature=0), ValueError, "temperature: expected"),
        (lambda: transport.info_nce(A, B, mask=LABELS), TypeError, "mask: expected booleans"),
        (
            lambda: transport.info_nce(A, B, mask=ON_DIAGONAL[:5]),
            ValueError,
            r"mask: expected shape \[6, 6\]",
        ),
        (
            lambda: transport.info_nce(A, B, mask=ON_DIAGONAL),
            ValueError,
            r"mask: expected the pairs \(i, i\) to be kept",
        ),
        (lambda: transport.soft_contrastive(Z, LABELS[:1]), ValueError, "soft_labels: expected"),
        (lambda: transport.soft_contrastive(Z, LABELS * 2), ValueError, "rows that sum to one"),
        (lambda: transport.soft_contrastive(Z, -LABELS), ValueError, "entries of 0 or more"),
        (
            lambda: transport.soft_contrastive(Z, LABELS, temperature=-1.0),
            ValueError,
            "temperature: expected",
        ),
        (lambda: transport.nearest_neighbor_spread(Z[0]), ValueError, "z: expected shape"),
        (lambda: transport.nearest_neighbor_spread(Z, eps=0.0), ValueError, "eps: expected"),
        (
            lambda: transport.semi_supervised_contrastive(A, B, T, Z[:5]),
            ValueError,
            r"z: expected one row for each of t, shape \[6, 5\], got \[5, 5\]",
        ),
        (
            lambda: transport.semi_supervised_contrastive(A, B, T, Z, soft_weight=-1.0),
            ValueError,
            "soft_weight: expected 0 or more",
        ),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
