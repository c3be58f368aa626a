"""Wide students against numbers computed elsewhere, identities, transformations and bad input."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.special import expit, log_softmax, softmax

from jsoft import kernels

# In float64, by two methods each: effective logits by a 60-digit Newton, kernels also by
# neural-tangents, flows by two solvers.
GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "wide_kd_closed_forms.npz"))
BIAS = {"bias_variance": 0.01}
MIXES = [(1.0, 1.0), (0.7, 1.0), (0.7, 4.0), (0.2, 1.0)]
RNG = np.random.default_rng(0)
TEACHER = RNG.normal(size=(3, 4)) * 3
LABELS = RNG.integers(0, 2, size=(3, 4))


def in_double(test):
    """Run a test in float64."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        with jax.enable_x64(True):
            test(*args, **kwargs)

    return run


@jax.jit
def effective(teacher, labels, ratio, temperature):
    """The effective logits of cases that have a ratio and a temperature each."""
    return jax.vmap(lambda z, y, r, t: kernels.effective_logits(z, y, soft_ratio=r, temperature=t))(
        teacher, labels, ratio, temperature
    )


@jax.jit
def slopes(teacher, labels, ratio, temperature):
    """Their derivatives by teacher, label, ratio and temperature."""
    total = jax.grad(lambda *case: effective(*case).sum(), argnums=(0, 1, 2, 3))
    return total(teacher, labels, ratio, temperature)


@jax.jit
def effective_classes(teacher, labels, ratio, temperature):
    return jax.vmap(
        lambda z, y, r, t: kernels.effective_logits_multiclass(z, y, soft_ratio=r, temperature=t)
    )(teacher, labels, ratio, temperature)


@jax.jit
def class_slopes(teacher, labels, ratio, temperature):
    """Derivatives of a sum in which every class has another weight."""

    def total(teacher, ratio, temperature):
        found = effective_classes(teacher, labels, ratio, temperature)
        return (found @ jnp.arange(5.0)).sum()

    return jax.grad(total, argnums=(0, 1, 2))(teacher, ratio, temperature)


@functools.partial(jax.jit, static_argnames="depth")
def relu_ntk(x1, x2, depth):
    return kernels.relu_ntk(x1, x2, depth=depth, **BIAS)


student = jax.jit(kernels.kernel_student)
norms_of = jax.jit(kernels.weight_norms)


def cases(dtype):
    """336 of them: teacher, label, ratio, temperature. Others are made as many: compiled once."""
    ratio, temperature, teacher, labels = GOLDEN["eff_cases"].astype(dtype).T
    return teacher, labels, ratio, temperature


def class_cases(dtype):
    """Eight of them, of five classes."""
    ratio, temperature = GOLDEN["mc_cases"].astype(dtype)[:, :2].T
    teacher = GOLDEN["mc_cases"].astype(dtype)[:, 2:7]
    return teacher, GOLDEN["mc_cases"][:, 7:].argmax(axis=1), ratio, temperature


@functools.cache
def student_kernel():
    """The depth-2 kernel of all 260 examples, in float64."""
    with jax.enable_x64(True):
        return np.asarray(relu_ntk(GOLDEN["kd_X"], GOLDEN["kd_X"], 2).ntk)


# The loss and its minima.


def reference_loss(z, z_t, y, ratio, temperature):
    def cross_entropy(p, x):
        return -p * np.log(expit(x)) - (1 - p) * np.log(expit(-x))

    soft = cross_entropy(expit(z_t / temperature), z / temperature)
    return ratio * soft + (1 - ratio) * cross_entropy(y, z)


@pytest.mark.parametrize("squared", [False, True])
def test_loss_matches_the_reference(squared):
    z = RNG.normal(size=TEACHER.shape) * 3

    @jax.jit
    def loss(z, teacher):
        return kernels.binary_distillation(
            z, teacher, LABELS, soft_ratio=0.3, temperature=4.0, scale_soft_by_t2=squared
        )

    expected = [
        (16 if squared else 1) * reference_loss(a, b, y, 1.0, 4.0) * 0.3
        + 0.7 * reference_loss(a, b, y, 0.0, 4.0)
        for a, b, y in zip(z.flat, TEACHER.flat, LABELS.flat, strict=True)
    ]
    found = loss(z.astype(np.float32), TEACHER.astype(np.float32))
    assert found.dtype == jnp.float32
    assert_allclose(found.ravel(), expected, rtol=1e-5)


@in_double
def test_effective_logits_are_where_the_loss_is_flat():
    @jax.jit
    def gradient(z, teacher, labels, ratio, temperature):
        def loss(z, z_t, y, r, t):
            return kernels.binary_distillation(z, z_t, y, soft_ratio=r, temperature=t)

        return jax.vmap(jax.grad(loss))(z, teacher, labels, ratio, temperature)

    found = effective(*cases(np.float64))
    assert_allclose(gradient(found, *cases(np.float64)), np.zeros(336), atol=1e-15)
    further = gradient(found + 0.1, *cases(np.float64))
    assert (further > 0).all()


def test_no_gradient_reaches_the_teacher():
    gradient = jax.grad(lambda z: kernels.binary_distillation(0.5, z, 1, soft_ratio=0.5))(2.0)
    assert gradient == 0


def test_loss_and_gradient_of_large_logits_are_finite():
    z = jnp.array([1e4, -1e4, 1e4])
    teacher, labels = jnp.array([-1e4, -1e4, 1e4]), jnp.array([0, 1, 1])

    @jax.jit
    def loss(z):
        return kernels.binary_distillation(z, teacher, labels, soft_ratio=0.5)

    assert_allclose(loss(z), [1e4, 5e3, 0.0], atol=1e-3)
    assert_allclose(jax.grad(lambda z: loss(z).sum())(z), [1.0, -0.5, 0.0], atol=1e-6)


@in_double
def test_effective_logits_match_sixty_digits():
    found = effective(*cases(np.float64))
    assert found.dtype == jnp.float64
    assert_allclose(found, GOLDEN["eff_logits"], atol=1e-10)
    assert_allclose(slopes(*cases(np.float64))[0], GOLDEN["eff_dz_dzt"], atol=1e-10)


def test_effective_logits_in_single_precision():
    found = effective(*cases(np.float32))
    assert found.dtype == jnp.float32
    assert_allclose(found, GOLDEN["eff_logits"], rtol=1e-5, atol=1e-5)
    assert_allclose(slopes(*cases(np.float32))[0], GOLDEN["eff_dz_dzt"], rtol=1e-4, atol=1e-5)


@in_double
def test_slopes_match_the_formulas_and_finite_differences():
    teacher, labels, ratio, temperature = cases(np.float64)
    ratio = np.minimum(ratio, 0.99)  # so that steps to both sides are ratios
    labels = 0.8 * labels + 0.1  # and labels
    root = np.asarray(effective(teacher, labels, ratio, temperature))

    def bell(x):
        return expit(x) * expit(-x)

    gap = expit(root / temperature) - expit(teacher / temperature)
    slope = ratio / temperature**2 * bell(root / temperature) + (1 - ratio) * bell(root)
    found = slopes(teacher, labels, ratio, temperature)
    expected = (
        ratio / temperature**2 * bell(teacher / temperature) / slope,
        (1 - ratio) / slope,
        -(gap / temperature - (expit(root) - labels)) / slope,
    )
    for by, formula in zip(found[:3], expected, strict=True):
        assert_allclose(by, formula, rtol=1e-7, atol=1e-9)
    for i, by in enumerate(found):
        ends = []
        for step in (1e-5, -1e-5):
            case = [teacher, labels, ratio, temperature]
            case[i] = case[i] + step
            ends.append(np.asarray(effective(*case)))
        assert_allclose(by, (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-6)


@in_double
def test_effective_logits_match_a_root_finder():
    ratio, temperature = RNG.uniform(0.05, 1, 336), np.exp(RNG.uniform(-1, 3, 336))
    case = RNG.normal(size=336) * 4, RNG.integers(0, 2, 336).astype(float), ratio, temperature
    found = effective(*case)

    def pull(z, z_t, y, r, t):
        return r / t * (expit(z / t) - expit(z_t / t)) + (1 - r) * (expit(z) - y)

    for i in range(0, 336, 12):
        root = brentq(pull, -1e3, 1e3, args=tuple(x[i] for x in case), xtol=1e-13)
        assert_allclose(found[i], np.clip(root, -50, 50), rtol=1e-9, atol=1e-9)


def test_the_ends_are_teacher_and_label():
    teacher, labels, ratio, temperature = cases(np.float32)
    assert_array_equal(effective(teacher, labels, ratio * 0 + 1, temperature), teacher)
    assert_array_equal(effective(teacher, labels, ratio * 0, temperature), 100 * labels - 50)
    soft = effective(teacher, labels * 0 + 0.9, ratio * 0, temperature)
    assert_allclose(soft, np.full(336, np.log(9)), rtol=1e-5)
    near = kernels.effective_logits(np.float32(-9.0), 1, soft_ratio=0.1, max_logit=1.5)
    assert near == 1.5


@in_double
def test_at_temperature_one_the_labels_mix():
    teacher, labels, ratio, temperature = cases(np.float64)
    found = effective(teacher, labels, ratio, temperature * 0 + 1)
    mixed = ratio * expit(teacher) + (1 - ratio) * labels
    assert_allclose(expit(found), mixed, atol=1e-14)


def test_hard_labels_push_to_their_side_and_repair_as_foretold():
    axes = [0.95, 0.8, 0.6, 0.3], [1.0, 4.0], [0.0, 1.0], np.linspace(-6, 6, 21) + 0.01
    ratio, temperature, labels, teacher = np.stack(
        [x.ravel() for x in np.meshgrid(*axes, indexing="ij")]
    ).astype(np.float32)
    moved = np.asarray(effective(teacher, labels, ratio, temperature)) - teacher
    sign = 2 * labels - 1
    assert (sign * moved > 0).all()
    right = sign * (teacher + moved) > 0
    repaired = (1 - ratio) / 2 > ratio / temperature * np.abs(0.5 - expit(teacher / temperature))
    assert_array_equal(right, repaired | (sign * teacher > 0))
    by_ratio = (sign * moved).reshape(4, -1)
    assert (np.diff(by_ratio, axis=0) > 0).all()  # the lower the ratio, the further
    eager = kernels.hard_label_correction(teacher[-21:], labels[-21:].astype(int), soft_ratio=0.3,
                                          temperature=4.0)  # fmt: skip
    assert_allclose(eager, moved[-21:], rtol=1e-5, atol=1e-6)


def test_extreme_teachers_give_finite_logits_and_slopes():
    teacher = np.tile(np.array([1e4, -1e4, 1e4, -1e4, 60, 20], np.float32), 56)
    labels = np.tile(np.array([1, 0, 0, 1, 1, 1], np.float32), 56)

    def mix(ratio, temperature):
        each = [np.full(336, x, np.float32) for x in (ratio, temperature)]
        return effective(teacher, labels, *each), slopes(teacher, labels, *each)

    # Teachers beyond the limit stay where they are pushed further; sure opposites meet at 0; the
    # last label is (1 + σ(20))/2.
    found, by = mix(0.5, 1.0)
    assert_allclose(found[:6], [1e4, -1e4, 0, 0, 60, 20 + np.log(2)], atol=1e-3)
    assert_allclose(by[0][:6], [1, 1, 0, 0, 1, 1], atol=1e-5)
    for ratio in (0.0, 0.5, 1.0):
        for temperature in (0.05, 1.0, 20.0):
            for value in jax.tree.leaves(mix(ratio, temperature)):
                assert np.isfinite(value).all(), (ratio, temperature)
    assert_array_equal(mix(1.0, 0.1)[0], teacher)


# More than two classes.


@pytest.mark.parametrize(("dtype", "atol"), [(np.float64, 1e-9), (np.float32, 1e-4)])
def test_classes_match_the_reference(dtype, atol):
    with jax.enable_x64(dtype == np.float64):
        found = effective_classes(*class_cases(dtype))
        assert found.dtype == dtype
        assert_allclose(found, GOLDEN["mc_eff_logits"], atol=atol)
        assert_allclose(found.sum(axis=1), np.zeros(8), atol=1e-5)


def test_classes_eager_are_those_of_jit_and_vmap():
    teacher, labels, ratio, temperature = class_cases(np.float32)
    same = effective_classes(teacher, labels, ratio * 0 + 0.5, temperature * 0 + 2)
    eager = kernels.effective_logits_multiclass(teacher, labels, soft_ratio=0.5, temperature=2.0)
    assert_allclose(eager, same, rtol=1e-5, atol=1e-6)


@in_double
def test_two_classes_are_the_binary_case():
    teacher, labels, ratio, temperature = (x[::14] for x in cases(np.float64))
    pair = np.stack([np.zeros(24), teacher], axis=-1)
    found = effective_classes(pair, labels.astype(int), ratio, temperature)
    assert_allclose(found[:, 1] - found[:, 0], GOLDEN["eff_logits"][::14], atol=1e-9)


@in_double
def test_classes_solve_their_equation_at_any_temperature():
    teacher = np.tile([[3.0, -2, 0.5, 9, 0], [0] * 5, [1e4, 0, -1e4, 30, 1], [0, 1, 2, 3, 4]], 2)
    teacher = teacher.reshape(8, 5)
    labels, ratio = np.arange(8) % 5, np.repeat([0.1, 0.6], 4)
    for temperature in (0.1, 1.0, 20.0):
        found = np.asarray(effective_classes(teacher, labels, ratio, np.full(8, temperature)))
        soft = softmax(found / temperature, axis=-1) - softmax(teacher / temperature, axis=-1)
        hard = softmax(found, axis=-1) - np.eye(5)[labels]
        r = ratio[:, None]
        # 1e-10: the last digit of 1e4/T
        zero = r / temperature * soft + (1 - r) * hard
        assert_allclose(zero, np.zeros((8, 5)), atol=1e-10)


def test_slopes_of_extreme_classes_are_finite():
    teacher = np.tile(np.array([1e4, 0, -1e4, 30, 1], np.float32), (8, 1))
    for temperature in (0.05, 1.0, 20.0):
        each = [np.full(8, x, np.float32) for x in (0.5, temperature)]
        for found in class_slopes(teacher, np.arange(8) % 5, *each):
            assert np.isfinite(found).all()


@in_double
def test_slopes_of_classes_match_finite_differences():
    teacher, labels, ratio, temperature = class_cases(np.float64)
    found = class_slopes(teacher, labels, ratio, temperature)
    direction = RNG.normal(size=teacher.shape), np.ones(8), np.ones(8)
    for i, by in enumerate(found):
        ends = []
        for step in (1e-5, -1e-5):
            case = [teacher, ratio, temperature]
            case[i] = case[i] + step * direction[i]
            logits = effective_classes(case[0], labels, *case[1:])
            ends.append(np.asarray(logits) @ np.arange(5))
        along = (by * direction[i]).reshape(8, -1).sum(axis=1)
        assert_allclose(along, (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-7)


@in_double
def test_classes_at_the_ends_of_ratio_and_temperature():
    teacher, labels, ratio, temperature = class_cases(np.float64)
    alone = effective_classes(teacher, labels, ratio * 0 + 1, temperature)
    assert_allclose(alone, teacher - teacher.mean(axis=1, keepdims=True), atol=1e-12)
    mixed = ratio[:, None] * softmax(teacher, axis=1)
    mixed += (1 - ratio[:, None]) * np.eye(5)[labels]
    found = effective_classes(teacher, labels, ratio, temperature * 0 + 1)
    assert_allclose(log_softmax(found, axis=1), np.log(mixed), atol=1e-12)


# Kernels.


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-10), (np.float32, 1e-4)])
def test_relu_kernels_match_neural_tangents(depth, dtype, rtol):
    with jax.enable_x64(dtype == np.float64):
        x, y = GOLDEN["X"].astype(dtype), GOLDEN["Y"].astype(dtype)
        found = relu_ntk(x, y, depth)
        assert found.ntk.dtype == dtype
        assert_allclose(found.ntk, GOLDEN[f"ntk_depth{depth}"], rtol=rtol)
        assert_allclose(found.nngp, GOLDEN[f"nngp_depth{depth}"], rtol=rtol, atol=rtol)
        assert_allclose(relu_ntk(x, x, depth).ntk, GOLDEN[f"ntk_train_depth{depth}"], rtol=rtol)


def reference_kernels(x, y, depth, weight, bias):
    """One pair of inputs, in plain numbers."""
    cov = {(a, b): weight * (p @ q) / len(x) + bias for a, p in enumerate((x, y)) for b, q in
           enumerate((x, y))}  # fmt: skip
    ntk = cov[0, 1]
    for _ in range(depth):
        norm = np.sqrt(cov[0, 0] * cov[1, 1])
        cosine = min(1.0, max(-1.0, cov[0, 1] / norm))
        angle = np.arccos(cosine)
        mean = norm * (np.sin(angle) + (np.pi - angle) * cosine) / (2 * np.pi)
        nngp = weight * mean + bias
        ntk = weight * ntk * (np.pi - angle) / (2 * np.pi) + nngp
        cov = {(0, 1): nngp, **{(i, i): weight * cov[i, i] / 2 + bias for i in (0, 1)}}
    return ntk, nngp


@in_double
def test_relu_kernels_match_the_reference_at_parallel_inputs_too():
    rows = RNG.normal(size=(3, 5))
    x = np.concatenate([rows, 2 * rows[:1], -rows[:1]])
    for bias in (0.0, 0.3):
        found = jax.jit(functools.partial(kernels.relu_ntk, depth=2))(
            x, x, weight_variance=1.5, bias_variance=bias
        )
        expected = [[reference_kernels(a, b, 2, 1.5, bias) for b in x] for a in x]
        assert_allclose(np.stack(found, axis=-1), expected, rtol=1e-7, atol=1e-7)
        assert_allclose(found.ntk, found.ntk.T, rtol=1e-14)


@in_double
def test_kernel_of_an_input_with_itself_is_exact():
    x = RNG.normal(size=(50, 7)) * 3
    found = np.diagonal(relu_ntk(x, x, 1).ntk)
    expected = 4 * (x**2).sum(axis=1) / 7 + 0.03  # Θ = 2 · ½ · K + (K + s_b), K = 2 x²/d + s_b
    assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize("bias", [0.0, 0.1])
def test_slopes_at_equal_opposite_and_zero_inputs_are_finite(bias):
    rows = jnp.array([[1.0, 2.0, -0.5], [1.0, 2.0, -0.5], [-1.0, -2.0, 0.5], [0.0, 0.0, 0.0]])

    @jax.jit
    def kernels_and_slopes(x):
        found, pull = jax.vjp(lambda x: kernels.relu_ntk(x, rows, depth=2, bias_variance=bias), x)
        return found, pull(jax.tree.map(jnp.ones_like, found))

    found, slope = kernels_and_slopes(rows)
    assert np.isfinite(slope).all()
    if not bias:
        assert_array_equal(found.ntk[3], np.zeros(4))


@in_double
def test_slopes_of_kernels_match_finite_differences():
    x, y = GOLDEN["X"], GOLDEN["Y"]
    move = RNG.normal(size=x.shape)
    _, change = jax.jvp(lambda x: relu_ntk(x, y, 2), (x,), (move,))
    ends = [relu_ntk(x + step * move, y, 2) for step in (1e-6, -1e-6)]
    for found, ahead, behind in zip(change, *ends, strict=True):
        assert_allclose(found, (ahead - behind) / 2e-6, rtol=1e-6, atol=1e-6)


@in_double
def test_covariance_is_smooth_at_equal_inputs():
    x = GOLDEN["X"][:1]
    one, both = jax.jit(
        lambda x: (
            jax.grad(lambda z: kernels.relu_ntk(z, x, depth=2).nngp[0, 0])(x),
            jax.grad(lambda z: kernels.relu_ntk(z, z, depth=2).nngp[0, 0])(x),
        )
    )(x)
    assert_allclose(one, both / 2, rtol=1e-10)  # by symmetry


def finite(params, x):
    """The network behind the empirical kernel's reference, in NTK parameterisation."""
    w1, b1, w2, b2 = params
    hidden = jax.nn.relu(np.sqrt(2 / len(w1)) * (x @ w1) + 0.1 * b1)
    return np.sqrt(2 / len(w2)) * (hidden @ w2) + 0.1 * b2


@pytest.mark.parametrize("method", ["jacobian", "nvp"])
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-10), (np.float32, 1e-4)])
def test_empirical_kernel_matches_a_jacobian_by_hand(method, dtype, rtol):
    with jax.enable_x64(dtype == np.float64):
        params = [GOLDEN[f"emp_{name}"].astype(dtype) for name in ("W1", "b1", "W2", "b2")]
        x, y = GOLDEN["X"].astype(dtype), GOLDEN["Y"].astype(dtype)
        found = jax.jit(
            lambda params, x, y: kernels.empirical_ntk(finite, params, x, y, method=method)
        )(params, x, y)
        assert found.dtype == dtype
        assert_allclose(found, GOLDEN["emp_ntk"], rtol=rtol, atol=rtol)


def test_empirical_kernel_of_a_wide_network_nears_the_infinite_one():
    x = GOLDEN["X"].astype(np.float32)
    errors = []
    for width in (64, 4096):
        keys = jax.random.split(jax.random.key(0), 4)
        shapes = (6, width), (width,), (width, 1), (1,)
        params = [jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]
        found = jax.jit(functools.partial(kernels.empirical_ntk, finite))(params, x, x)[..., 0, 0]
        limit = relu_ntk(x, x, 1).ntk
        errors.append(np.linalg.norm(found - limit) / np.linalg.norm(limit))
    assert errors[1] < 0.06 < 0.1 < errors[0] < 0.6  # 1/√width: an eighth or so


# Students.


@in_double
@pytest.mark.parametrize(("ratio", "temperature"), MIXES)
def test_students_norms_and_inefficiency_match_the_reference(ratio, temperature):
    name, kernel = f"kd_r{ratio}_T{temperature}.", student_kernel()
    each = [np.full(260, x) for x in (ratio, temperature)]
    targets = effective(GOLDEN["kd_zt"], GOLDEN["kd_y"], *each)[:60]
    norms = norms_of(kernel[:60, :60], targets)
    found = {
        "eff": targets,
        "pred_test": student(kernel[:60, :60], kernel[60:, :60], targets),
        "weight_norm": norms,
        "data_inefficiency_single": kernels.data_inefficiency(np.log(norms)[None]),
    }
    for key, value in found.items():
        assert_allclose(value, GOLDEN[name + key], atol=1e-10)


def test_student_and_norms_in_single_precision_eager_and_traced():
    kernel = student_kernel().astype(np.float32)
    targets = GOLDEN["kd_r0.7_T4.0.eff"].astype(np.float32)
    for norms in (norms_of, kernels.weight_norms):
        found = norms(kernel[:60, :60], targets)
        assert found.dtype == jnp.float32
        assert_allclose(found, GOLDEN["kd_r0.7_T4.0.weight_norm"], rtol=1e-4)
    for function in (student, kernels.kernel_student):
        found = function(kernel[:60, :60], kernel[60:, :60], targets)
        assert_allclose(found, GOLDEN["kd_r0.7_T4.0.pred_test"], atol=1e-4)


@in_double
@pytest.mark.parametrize("ridge", [0.0, 0.01])
def test_norms_of_all_prefixes_match_one_solve_each(ridge):
    kernel, targets = student_kernel()[:60, :60], GOLDEN["kd_zt"][:60]
    ridged = kernel + ridge * np.diagonal(kernel).mean() * np.eye(60)
    expected = [
        np.sqrt(targets[:i] @ np.linalg.solve(ridged[:i, :i], targets[:i])) for i in range(1, 61)
    ]
    found = norms_of(kernel, targets, ridge=ridge)
    assert_allclose(found, expected, rtol=1e-9)
    assert (np.diff(found) >= 0).all()


@in_double
def test_student_fits_its_examples_and_takes_columns_one_by_one():
    kernel, targets = student_kernel()[:, :60], RNG.normal(size=(60, 3))
    found = student(kernel[:60], kernel, targets)
    assert_allclose(found[:60], targets, atol=1e-9)
    columns = jax.jit(jax.vmap(kernels.kernel_student, in_axes=(None, None, 1), out_axes=1))
    assert_allclose(columns(kernel[:60], kernel, targets), found, atol=1e-9)


def test_duplicated_inputs_want_a_ridge():
    x = np.concatenate([GOLDEN["X"], GOLDEN["X"][:1]]).astype(np.float32)
    kernel, targets = relu_ntk(x, x, 2).ntk, np.arange(13, dtype=np.float32)
    with pytest.raises(ValueError, match="singular to rounding"):
        kernels.weight_norms(kernel, targets)
    assert np.isfinite(kernels.weight_norms(kernel, targets, ridge=1e-3)).all()


def test_inefficiency_of_norms_that_grow_like_a_power():
    n = np.arange(1, 2001)
    log_norms = np.stack([0.3 * np.log(n) + 1, 0.5 * np.log(n)])
    with jax.enable_x64(True):
        found = kernels.data_inefficiency(log_norms)
    assert found.shape == (1999,)
    assert_allclose(found[-500:], np.full(500, 0.4), atol=1e-3)


def test_risk_counts_other_signs_and_spares_zeros():
    student = np.array([1.0, -2.0, 0.0, 1e-30, -1e-30], np.float32)
    oracle = np.array([1.0, 1.0, -3.0, -1e-30, 0.0], np.float32)
    assert_allclose(kernels.transfer_risk(student, oracle), 0.4)


@in_double
@pytest.mark.parametrize("name", ["smooth", "mixed"])
def test_risk_and_bound_match_the_reference(name):
    kernel, oracle = student_kernel(), GOLDEN[f"sweep_{name}.zt"]
    norms = norms_of(kernel, oracle)
    test = slice(-50, None)
    angles = np.arccos(norms[GOLDEN["sweep_n"] - 1] / norms[-1])
    assert_allclose(angles, GOLDEN[f"sweep_{name}.alpha"], atol=1e-10)
    for i in (1, 4):  # every size is compiled anew
        n = GOLDEN["sweep_n"][i]
        outputs = student(kernel[:n, :n], kernel[test, :n], oracle[:n])
        risk = kernels.transfer_risk(outputs, oracle[test])
        bound = kernels.angle_bound(
            oracle[test],
            np.diagonal(kernel)[test],
            oracle_norm=norms[-1],
            student_norm=norms[n - 1],
        )
        assert_allclose([risk, bound], [GOLDEN[f"sweep_{name}.{x}"][i] for x in ("risk", "bound")])
        assert risk <= bound


@in_double
def test_angles_of_the_reference():
    n, kernel, oracle = int(GOLDEN["kd_n_train"]), student_kernel(), GOLDEN["kd_zt"]
    norms = norms_of(kernel, oracle)
    assert_allclose(norms[-1], GOLDEN["angle_oracle_norm"], atol=1e-10)
    assert_allclose(np.arccos(norms[n - 1] / norms[-1]), GOLDEN["angle_alpha"], atol=1e-10)
    cosine = np.abs(oracle) / np.sqrt(np.diagonal(kernel)) / norms[-1]
    assert_allclose(np.arccos(cosine), GOLDEN["angle_beta"], atol=1e-10)
    bound = kernels.angle_bound(
        oracle[n:], np.diagonal(kernel)[n:], oracle_norm=norms[-1], student_norm=norms[n - 1]
    )
    assert_allclose(bound, GOLDEN["risk_bound_test"])
    outputs = student(kernel[:n, :n], kernel[n:, :n], oracle[:n])
    assert_allclose(kernels.transfer_risk(outputs, oracle[n:]), GOLDEN["transfer_risk_test"])


def test_a_student_that_knows_all_has_bound_zero():
    z, k = jnp.array([0.1, -0.5]), jnp.ones(2)
    assert kernels.angle_bound(z, k, oracle_norm=2.0, student_norm=2.0) == 0
    assert kernels.angle_bound(z, k, oracle_norm=2.0, student_norm=0.0) == 1


@in_double
def test_squared_flow_matches_two_solvers():
    n = int(GOLDEN["flow_n"])
    kernel, targets = student_kernel()[:n, :n], GOLDEN["kd_r0.7_T4.0.eff"][:n]
    times = np.append(GOLDEN["flow_t"], 1e9)
    found = jax.jit(kernels.gradient_flow)(kernel, targets, times)
    assert_allclose(found[:-1], GOLDEN["flow_mse"], atol=1e-10)
    assert_allclose(found[-1], targets, atol=1e-10)


@in_double
def test_distillation_flow_ends_at_the_effective_logits():
    """The flow of the loss itself, which has no closed form, by a stiff solver."""
    n = int(GOLDEN["flow_n"])
    kernel, teacher, labels = student_kernel()[:n, :n], GOLDEN["kd_zt"][:n], GOLDEN["kd_y"][:n]
    mix = {"soft_ratio": float(GOLDEN["flow_kd_r"]), "temperature": float(GOLDEN["flow_kd_T"])}
    pull = jax.jit(jax.grad(lambda z: kernels.binary_distillation(z, teacher, labels, **mix).sum()))
    times = GOLDEN["flow_kd_t"]
    flow = solve_ivp(
        lambda t, z: -kernel @ np.asarray(pull(z)) / n,
        (0, times[-1]),
        np.zeros(n),
        method="LSODA",
        t_eval=times,
        rtol=1e-11,
        atol=1e-12,
    ).y.T
    assert_allclose(flow, GOLDEN["flow_kd"], atol=1e-8)
    assert_allclose(
        kernels.effective_logits(teacher, labels, **mix), GOLDEN["flow_kd"][-1], atol=1e-8
    )


# Bad input.

Z, Y = np.zeros(3, np.float32), np.array([0, 1, 1])
EYE, X = np.eye(3, dtype=np.float32), np.ones((3, 2), np.float32)
MIX = {"soft_ratio": 0.5}
NORMS = {"oracle_norm": 1.0, "student_norm": 0.5}


@pytest.mark.parametrize(
    ("name", "arguments", "options", "error", "message"),
    [
        ("binary_distillation", (Z, Z[:2], Y), MIX, ValueError, r"labels: .*\[2\]"),
        ("binary_distillation", (Z[:1], Z, Y), MIX, ValueError, r"logits: .*\[3\].*\[1\]"),
        ("binary_distillation", (Y, Z, Y), MIX, TypeError, "logits: expected floating"),
        ("effective_logits", (Z, Y[:, None]), MIX, ValueError, r"labels: .*\[3\].*\[3, 1\]"),
        ("effective_logits", (Y, Y), MIX, TypeError, "teacher_logits: expected floating"),
        ("effective_logits", (Z + np.inf, Y), MIX, ValueError, "teacher_logits: .*finite"),
        ("effective_logits", (Z, 2 * Y - 1), MIX, ValueError, "labels: .*got -1"),
        ("effective_logits", (Z, Y > 0), MIX, TypeError, "labels: "),
        ("effective_logits", (Z, Y), {"soft_ratio": 1.5}, ValueError, "soft_ratio: .*1.5"),
        ("effective_logits", (Z, Y), {"soft_ratio": Z}, ValueError, "soft_ratio: .*one number"),
        ("effective_logits", (Z, Y), {**MIX, "temperature": 0.0}, ValueError, "temperature: "),
        ("effective_logits", (Z, Y), {**MIX, "temperature": np.nan}, ValueError, "temperature: "),
        ("effective_logits", (Z, Y), {**MIX, "max_logit": -1.0}, ValueError, "max_logit: "),
        ("hard_label_correction", (Z, Y + 1), MIX, ValueError, "labels: .*got 2"),
        ("effective_logits_multiclass", (X, Y), {"soft_ratio": 0.0}, ValueError, "soft_ratio: "),
        ("effective_logits_multiclass", (X, Y + 1), MIX, ValueError, "labels: .*0 … 1"),
        ("effective_logits_multiclass", (X, Y[:2]), MIX, ValueError, "labels: .*shape"),
        ("effective_logits_multiclass", (X, Y * 1.0), MIX, TypeError, "labels: .*integer"),
        ("effective_logits_multiclass", (X[:, :1], Y), MIX, ValueError, "two classes"),
        ("relu_ntk", (X, EYE), {"depth": 1}, ValueError, "x2: expected 2 columns"),
        ("relu_ntk", (X[0], X), {"depth": 1}, ValueError, "x1: expected 2 axes"),
        ("relu_ntk", (X[:0], X), {"depth": 1}, ValueError, "x1: .*none empty"),
        ("relu_ntk", (X, X), {"depth": 0}, ValueError, "depth: expected 1 or more"),
        ("relu_ntk", (X, X), {"depth": 1.0}, TypeError, "depth: expected a whole"),
        ("relu_ntk", (X, X), {"depth": 1, "weight_variance": 0.0}, ValueError, "weight_variance"),
        ("relu_ntk", (X, X), {"depth": 1, "bias_variance": -0.1}, ValueError, "bias_variance"),
        ("relu_ntk", (X * np.inf, X), {"depth": 1}, ValueError, "x1: .*finite"),
        ("empirical_ntk", (finite, X, X, EYE), {}, ValueError, "x2: expected examples like"),
        ("empirical_ntk", (lambda p, x: x[0], X, X, X), {}, ValueError, r"apply: .*\[K\]"),
        (
            "empirical_ntk",
            (lambda p, x: p @ x, X, X, X),
            {"method": "fast"},
            ValueError,
            "method: .*'fast'",
        ),
        ("kernel_student", (X, EYE, Z), {}, ValueError, "k_train: expected 3 columns"),
        ("kernel_student", (EYE, X, Z), {}, ValueError, "k_test: expected 3 columns"),
        ("kernel_student", (EYE, EYE, Z[:2]), {}, ValueError, "targets: expected 3 rows"),
        ("kernel_student", (EYE, EYE, Y), {}, TypeError, "targets: expected floating"),
        ("kernel_student", (EYE, EYE, Z), {"ridge": -1e-6}, ValueError, "ridge: "),
        ("kernel_student", (-EYE, EYE, Z), {}, ValueError, "k_train: .*positive definite"),
        ("weight_norms", (EYE, EYE), {}, ValueError, "targets: expected 1 axes"),
        ("data_inefficiency", (Z,), {}, ValueError, "log_norms: expected 2 axes"),
        ("data_inefficiency", (Z[:, None],), {}, ValueError, "log_norms: .*two examples"),
        ("data_inefficiency", (Z + EYE * np.nan,), {}, ValueError, "log_norms: .*finite"),
        ("transfer_risk", (Z, Z[:2]), {}, ValueError, r"oracle_logits: .*\[3\].*\[2\]"),
        ("transfer_risk", (Z[:0], Z[:0]), {}, ValueError, "student_logits: "),
        ("angle_bound", (Z, Z + 1, ), {**NORMS, "student_norm": 1.1}, ValueError, "at most"),
        ("angle_bound", (Z, Z), NORMS, ValueError, "k_diag: "),
        ("angle_bound", (Z, Z[:2] + 1), NORMS, ValueError, "k_diag: .*shape"),
        ("angle_bound", (Z, Z + 1), {**NORMS, "oracle_norm": 0.0}, ValueError, "oracle_norm: "),
        ("gradient_flow", (EYE, Z, Z - 1), {}, ValueError, "times: "),
        ("gradient_flow", (EYE, Z[:2], Z), {}, ValueError, r"targets: .*\[3\]"),
        ("gradient_flow", (X, Z, Z), {}, ValueError, "k_train: expected 3 columns"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)  # fmt: skip
def test_bad_input_is_refused(name, arguments, options, error, message):
    with pytest.raises(error, match=message):
        getattr(kernels, name)(*arguments, **options)
