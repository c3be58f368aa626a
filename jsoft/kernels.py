"""Distillation in wide networks: effective logits, neural tangent kernels, the risk of a student.

A wide student stays near its linearisation at the start, so distilling into it is kernel regression
onto the logits that minimise its loss example by example, the *effective logits*. Of two classes,

    z_t, y    the teacher's logit, and the hard label, 0 or 1
    ρ, T      the soft ratio, which is the weight of the teacher in the loss, and the temperature
    φ, Θ      gradient of the student's output at the start; its kernel Θ(x, x') = φ(x)ᵀφ(x')
    w_n, w*   the change of weights that fits n examples, and the oracle's, that fits them all

The student's output at the start counts as zero: subtract it from targets and predictions.

Source: Ji & Zhu, "Knowledge Distillation in Wide Neural Networks" (NeurIPS 2020, arXiv 2010.10090)
for setting, loss and names. No code was released. "Reconstructed" formulas are derived here from
that setting; none of them is to be cited as a theorem of the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.nn import log_softmax, sigmoid, softmax
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.special import logit
from jax.typing import ArrayLike

from jsoft import _door

_EXACT = lax.Precision.HIGHEST  # accelerators default to fewer digits in a matrix product
_LEAST = 1e-30  # slope by which another is divided, so that neither mode overflows


def binary_distillation(
    logits: ArrayLike,
    teacher_logits: ArrayLike,
    labels: ArrayLike,
    *,
    soft_ratio: ArrayLike,
    temperature: ArrayLike = 1.0,
    scale_soft_by_t2: bool = False,
) -> jax.Array:
    """Return the distillation loss of two classes, `[...]`.

        ρ H(σ(z_t/T), σ(z/T)) + (1 − ρ) H(y, σ(z)),  H the binary cross-entropy, σ the logistic

    Args:
      logits: `[...]` finite floats z, the student's.
      teacher_logits: `[...]` finite floats z_t; no gradient flows into them.
      labels: `[...]`, 0 or 1, or the probability of 1.
      soft_ratio: ρ in [0, 1], one number; may be traced.
      temperature: T > 0, one number; may be traced.
      scale_soft_by_t2: whether the soft term is multiplied by T², as in Hinton et al. (2015).

    Raises:
      TypeError, ValueError: different shapes, logits that are not finite floats, numbers out of
        range.

    Source: the loss of arXiv 2010.10090, without a factor T².

    >>> print(f"{binary_distillation(0.0, 0.0, 1, soft_ratio=0.5):.4f}")  # log 2
    0.6931
    """
    teacher_logits, labels = _checked_examples(teacher_logits, labels, soft_ratio, temperature)
    logits = _checked("logits", logits, shape=teacher_logits.shape)
    cross_entropy = optax.losses.sigmoid_binary_cross_entropy
    teacher = lax.stop_gradient(sigmoid(teacher_logits / temperature))
    soft = cross_entropy(logits / temperature, teacher)
    if scale_soft_by_t2:
        soft *= jnp.square(temperature)
    ratio = jnp.asarray(soft_ratio)
    return ratio * soft + (1 - ratio) * cross_entropy(logits, labels)


def effective_logits(
    teacher_logits: ArrayLike,
    labels: ArrayLike,
    *,
    soft_ratio: ArrayLike,
    temperature: ArrayLike = 1.0,
    max_logit: ArrayLike = 50.0,
) -> jax.Array:
    """Return the logits that minimise `binary_distillation` example by example, `[...]`.

    The root of the increasing function (ρ/T) (σ(z/T) − σ(z_t/T)) + (1 − ρ) (σ(z) − y). It lies
    between the teacher's logit, where it is for ρ = 1, and that of the label, which is infinite for
    a hard one: the way there ends at ±max_logit, or at a teacher's logit beyond. Differentiable in
    teacher's logits, labels, ρ and T; where the limit binds, slopes are zero.

    Args, raises: as `binary_distillation`; `max_logit` is one number above zero.

    Reconstructed. At T = 1 it is the logit of the mixed label, ρ σ(z_t) + (1 − ρ) y:

    >>> print(f"{effective_logits(0.0, 1, soft_ratio=0.5):.4f}")  # of 3/4: log 3
    1.0986
    """
    teacher_logits, labels = _checked_examples(teacher_logits, labels, soft_ratio, temperature)
    _door.check_scalar(max_logit=max_logit)
    _door.check_positive(max_logit=max_logit)
    mix = (
        jnp.asarray(value, teacher_logits.dtype) for value in (soft_ratio, temperature, max_logit)
    )
    return _effective(teacher_logits, labels, *mix)


@jax.custom_jvp
def _effective(
    teacher: jax.Array, label: jax.Array, ratio: jax.Array, temperature: jax.Array, limit: jax.Array
) -> jax.Array:
    """Return the root by bisection, on the way from the teacher's logit to the label's."""
    goal = logit(label)
    sign = jnp.where(goal > teacher, 1, -1).astype(teacher.dtype)
    far = sign * jnp.maximum(sign * teacher, sign * jnp.clip(goal, -limit, limit))

    def falls_short(z: jax.Array) -> jax.Array:
        soft, hard = _pulls(z, teacher, label, temperature)
        return sign * (ratio * soft + (1 - ratio) * hard) < 0

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        near, far = ends
        middle = (near + far) / 2
        short = falls_short(middle)
        return jnp.where(short, middle, near), jnp.where(short, far, middle)

    near = jnp.where(falls_short(far), far, teacher)
    return lax.fori_loop(0, _steps(teacher), halve, (near, far))[0]


@_effective.defjvp
def _effective_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    """Return the root and its change, by the implicit function theorem."""
    teacher, label, ratio, temperature, limit = primals
    root = _effective(*primals)

    def bell(x: jax.Array) -> jax.Array:
        return sigmoid(x) * sigmoid(-x)

    soft, of_teacher = root / temperature, teacher / temperature
    soft_pull, hard_pull = _pulls(root, teacher, label, temperature)
    bend = soft * bell(soft) - of_teacher * bell(of_teacher)
    changes = (
        ratio / temperature**2 * bell(of_teacher),
        1 - ratio,
        hard_pull - soft_pull,
        ratio / temperature * (soft_pull + bend / temperature),
    )
    slope = ratio / temperature**2 * bell(soft) + (1 - ratio) * bell(root)
    limited = jnp.where(logit(label) > teacher, root, -root) >= limit
    kept = (root == teacher).astype(root.dtype), 0, 0, 0  # a teacher's logit beyond the limit
    return root, sum(
        (
            jnp.where(limited, stays, change / jnp.maximum(slope, _LEAST)) * tangent
            for stays, change, tangent in zip(kept, changes, tangents[:4], strict=True)
        ),
        start=jnp.zeros_like(root),
    )


def _pulls(
    z: jax.Array, teacher: jax.Array, label: jax.Array, temperature: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return (σ(z/T) − σ(z_t/T))/T and σ(z) − y, without cancellation."""
    scaled, of_teacher = z / temperature, teacher / temperature
    high, low = jnp.maximum(scaled, of_teacher), jnp.minimum(scaled, of_teacher)
    gap = -jnp.expm1(low - high) * sigmoid(high) * sigmoid(-low)
    hard = (1 - label) * sigmoid(z) - label * sigmoid(-z)
    return jnp.where(scaled > of_teacher, gap, -gap) / temperature, hard


def hard_label_correction(
    teacher_logits: ArrayLike,
    labels: ArrayLike,
    *,
    soft_ratio: ArrayLike,
    temperature: ArrayLike = 1.0,
    max_logit: ArrayLike = 50.0,
) -> jax.Array:
    """Return by how much hard labels move the teacher's logits, z_eff − z_t, `[...]`.

    Always towards the label's side. A teacher on the wrong side of a hard label is put right if and
    only if (1 − ρ)/2 > (ρ/T) |1/2 − σ(z_t/T)|.

    Args, raises: as `effective_logits`. Reconstructed.

    >>> print(f"{hard_label_correction(0.0, 0, soft_ratio=0.5):.4f}")  # −log 3
    -1.0986
    """
    mix = {"soft_ratio": soft_ratio, "temperature": temperature, "max_logit": max_logit}
    return effective_logits(teacher_logits, labels, **mix) - jnp.asarray(teacher_logits)


def effective_logits_multiclass(
    teacher_logits: ArrayLike,
    labels: ArrayLike,
    *,
    soft_ratio: ArrayLike,
    temperature: ArrayLike = 1.0,
) -> jax.Array:
    """Return the effective logits of C classes, which sum to zero, `[..., C]`.

    The root of (ρ/T) (softmax(z/T) − softmax(z_t/T)) + (1 − ρ) (softmax(z) − e_y); differentiable
    in the teacher's logits, ρ and T.

    Args:
      teacher_logits: `[..., C]` finite floats z_t.
      labels: `[...]` integers y.
      soft_ratio: ρ in (0, 1], one number; may be traced. Without a teacher no root is finite.
      temperature: T > 0, one number; may be traced.

    Raises:
      TypeError, ValueError: logits that are not finite floats over two classes or more; labels,
        ρ or T out of range.

    Derived here; the paper has two classes.

    >>> logits = effective_logits_multiclass(jnp.zeros(3), jnp.array(1), soft_ratio=0.75)
    >>> print(np.asarray(logits).round(3))  # softmax: 1/4, 1/2, 1/4
    [-0.231  0.462 -0.231]
    """
    teacher_logits = _checked("teacher_logits", teacher_logits)
    _door.check_classes("teacher_logits", teacher_logits)
    num_classes, dtype = teacher_logits.shape[-1], teacher_logits.dtype
    _door.check_labels("labels", labels, num_classes=num_classes, shape=teacher_logits.shape[:-1])
    _check_mix(soft_ratio, temperature)
    _door.check_positive(soft_ratio=soft_ratio)
    one_hot = jax.nn.one_hot(jnp.asarray(labels), num_classes, dtype=dtype)
    mix = jnp.asarray(soft_ratio, dtype), jnp.asarray(temperature, dtype)
    return _effective_classes(teacher_logits, one_hot, *mix)


@jax.custom_jvp
def _effective_classes(
    teacher: jax.Array, one_hot: jax.Array, ratio: jax.Array, temperature: jax.Array
) -> jax.Array:
    """Return the root by bisection over one number, however many the classes.

    With u = log softmax(z/T) and s = log Σ_i exp(T u_i), every class for itself has
    (ρ/T) exp(u_i) + (1 − ρ) exp(T u_i − s) = c_i, whose logarithm is convex and increasing in u_i;
    Σ_i exp(u_i), to be 1, increases with s.
    """
    log_soft, log_hard = jnp.log(ratio / temperature), jnp.log1p(-ratio)
    log_c = jnp.logaddexp(
        log_soft + log_softmax(teacher / temperature), jnp.where(one_hot > 0, log_hard, -jnp.inf)
    )

    def classes(s: jax.Array) -> jax.Array:
        def newton(_: Any, u: jax.Array) -> jax.Array:
            hard = log_hard + temperature * u - s
            both = jnp.logaddexp(log_soft + u, hard)
            return u - (both - log_c) / (1 + jnp.exp(hard - both) * (temperature - 1))

        # Where one term alone is c, both are above it, by log 2 at most: right of the root.
        start = jnp.minimum(log_c - log_soft, (log_c + s - log_hard) / temperature)
        return lax.fori_loop(0, 12, newton, start)

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        short = jax.nn.logsumexp(classes(middle), axis=-1, keepdims=True) < 0
        return jnp.where(short, middle, low), jnp.where(short, high, middle)

    of_one = jnp.zeros_like(teacher[..., :1])  # s where one class has it all
    of_equals = of_one + (1 - temperature) * np.log(teacher.shape[-1])
    ends = jnp.minimum(of_one, of_equals), jnp.maximum(of_one, of_equals)
    root = temperature * classes(lax.fori_loop(0, _steps(teacher), halve, ends)[0])
    return root - root.mean(axis=-1, keepdims=True)


@_effective_classes.defjvp
def _effective_classes_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    """Return the root and its change, by the implicit function theorem."""
    ratio, temperature = primals[2:]
    root = _effective_classes(*primals)

    def residual(teacher: Any, one_hot: Any, ratio: Any, temperature: Any) -> jax.Array:
        soft = softmax(root / temperature) - softmax(teacher / temperature)
        return ratio / temperature * soft + (1 - ratio) * (softmax(root) - one_hot)

    _, change = jax.jvp(residual, primals, tangents)
    # The Hessian is diagonal but for (ρ/T²) p pᵀ and (1 − ρ) q qᵀ. A shift of all logits is free;
    # with the one that makes pᵀ dz = 0 the second is left.
    soft, hard = ratio / temperature**2 * softmax(root / temperature), softmax(root)
    diagonal = jnp.maximum(soft + (1 - ratio) * hard, _LEAST)
    step = -change / diagonal
    along = (hard * step).sum(axis=-1, keepdims=True)
    along /= (hard * soft / diagonal).sum(axis=-1, keepdims=True)
    step += (1 - ratio) * hard / diagonal * along
    return root, step - step.mean(axis=-1, keepdims=True)


class Kernels(NamedTuple):
    """The two kernels of an infinitely wide network, `[n, m]` each.

    Attributes:
      ntk: the neural tangent kernel Θ, that of training all layers.
      nngp: the covariance of outputs at the start, that of training the last layer.
    """

    ntk: jax.Array
    nngp: jax.Array


def relu_ntk(
    x1: ArrayLike,
    x2: ArrayLike,
    *,
    depth: int,
    weight_variance: ArrayLike = 2.0,
    bias_variance: ArrayLike = 0.0,
) -> Kernels:
    """Return the kernels of an infinitely wide ReLU network between two sets of inputs, `[n, m]`.

    From K = s_w x·x'/d + s_b and Θ = K, every hidden layer makes, with n² = K(x, x) K(x', x') and
    cos α = K/n,

        K ← s_w n (sin α + (π − α) cos α)/(2π) + s_b,   Θ ← s_w Θ (π − α)/(2π) + K

    Differentiable in the inputs. At equal ones Θ has a kink; its slope there is that of the smooth
    part. Inputs of zeros without bias have kernel 0.

    Args:
      x1: `[n, d]` finite floats.
      x2: `[m, d]` finite floats.
      depth: number of hidden layers, 1 or more.
      weight_variance: s_w > 0.
      bias_variance: s_b ≥ 0.

    Raises:
      TypeError, ValueError: inputs of another shape or kind, a depth or variances out of range.

    Source: Jacot, Gabriel & Hongler (NeurIPS 2018, arXiv 1806.07572), with the arc-cosine kernels
      of Cho & Saul (NeurIPS 2009); the guards at parallel inputs are ours.

    >>> x = jnp.array([[1.0, 1.0], [1.0, -1.0]])
    >>> print(np.asarray(relu_ntk(x, x, depth=1).ntk).round(3))  # 2 + 2; at right angles 2/π
    [[4.    0.637]
     [0.637 4.   ]]
    """
    x1 = _wide("x1", x1)
    x2 = _wide("x2", x2)
    _check_columns("x2", x2, x1.shape[1])
    _door.check_whole(1, depth=depth)
    _door.check_scalar(weight_variance=weight_variance, bias_variance=bias_variance)
    _door.check_positive(weight_variance=weight_variance)
    _door.check_at_least(0, bias_variance=bias_variance)
    weight, bias = (jnp.asarray(value, x1.dtype) for value in (weight_variance, bias_variance))
    scale = weight / x1.shape[1]
    nngp = scale * jnp.matmul(x1, x2.T, precision=_EXACT) + bias
    left = scale * (x1**2).sum(axis=1)[:, None] + bias  # K(x, x)
    right = scale * (x2**2).sum(axis=1)[None, :] + bias
    ntk = nngp
    for _ in range(depth):
        mean, slope = _relu_moments(nngp, left, right)
        nngp = weight * mean + bias
        ntk = weight * slope * ntk + nngp
        left, right = (weight * own / 2 + bias for own in (left, right))
    return Kernels(ntk, nngp)


def _relu_moments(
    covariance: jax.Array, left: jax.Array, right: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return E[relu(a) relu(b)] and P(a > 0, b > 0) for Gaussians of these (co)variances.

    At parallel inputs both are known and the formula's slope is infinite: `where` inside keeps it
    out of gradients, `where` outside puts what is known.
    """
    product = left * right
    norm = jnp.sqrt(jnp.where(product > 0, product, 1))
    cosine = jnp.where(product > 0, covariance / norm, 0)
    one = 1 - (1e-14 if cosine.dtype == jnp.float64 else 1e-6)
    parallel, opposite = cosine >= one, (cosine <= -one) | (product == 0)
    cosine = jnp.where(parallel | opposite, 0, cosine)
    rest = jnp.pi - jnp.arccos(cosine)
    mean = norm * (jnp.sqrt(1 - cosine**2) + rest * cosine) / (2 * jnp.pi)
    mean = jnp.where(parallel, covariance / 2, jnp.where(opposite, 0, mean))
    return mean, jnp.where(parallel, 0.5, jnp.where(opposite, 0, rest / (2 * jnp.pi)))


def empirical_ntk(
    apply: Callable[[Any, jax.Array], jax.Array],
    params: Any,
    x1: ArrayLike,
    x2: ArrayLike,
    *,
    method: Literal["jacobian", "nvp"] = "jacobian",
) -> jax.Array:
    """Return the neural tangent kernel of a network at these parameters, `[n, m, K, K]`.

        Θ[i, j, a, b] = ⟨∂f_a(x1_i)/∂params, ∂f_b(x2_j)/∂params⟩

    Args:
      apply: `(params, one example) -> [K]`.
      params: pytree of floats, P numbers in all.
      x1: `[n, ...]` examples.
      x2: `[m, ...]` examples.
      method: "jacobian" holds (n + m) K P numbers; "nvp", which pushes single gradients through the
        linearised network, m K P and takes longer.

    Raises:
      ValueError: examples of unlike shapes, outputs that are not `[K]` floats, another method.

    Standard; the same numbers by both methods, to rounding.

    >>> apply = lambda w, x: (w * x).sum(keepdims=True)
    >>> print(empirical_ntk(apply, jnp.ones(2), jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 4.0]])))
    [[[[11.]]]]
    """
    x1, x2 = jnp.asarray(x1), jnp.asarray(x2)
    if x1.ndim < 1 or x1.shape[1:] != x2.shape[1:] or not x1.size or not x2.size:
        raise ValueError(
            f"x2: expected examples like those of x1, {list(x1.shape)}, got {list(x2.shape)}"
        )
    out = jax.eval_shape(apply, params, x1[0])
    if out.ndim != 1 or not jnp.issubdtype(out.dtype, jnp.floating):
        raise ValueError(f"apply: expected floats of shape [K], got {out.dtype}{list(out.shape)}")
    if method == "jacobian":
        jacobian = jax.vmap(jax.jacrev(apply), in_axes=(None, 0))

        def contract(a: jax.Array, b: jax.Array) -> jax.Array:
            a, b = (one.reshape(*one.shape[:2], -1) for one in (a, b))  # [n, K, P]
            return jnp.einsum("iap,jbp->ijab", a, b, precision=_EXACT)

        return jax.tree.reduce(
            jnp.add, jax.tree.map(contract, jacobian(params, x1), jacobian(params, x2))
        )
    if method != "nvp":
        raise ValueError(f'method: expected "jacobian" or "nvp", got {method!r}')

    def block(one: jax.Array, other: jax.Array) -> jax.Array:
        _, pull = jax.vjp(lambda weights: apply(weights, other), params)
        _, push = jax.linearize(lambda weights: apply(weights, one), params)
        return jax.vmap(lambda unit: push(*pull(unit)), out_axes=1)(
            jnp.eye(*out.shape, dtype=out.dtype)
        )

    return lax.map(lambda one: jax.vmap(lambda other: block(one, other))(x2), x1)


def kernel_student(
    k_train: ArrayLike, k_test: ArrayLike, targets: ArrayLike, *, ridge: ArrayLike = 0.0
) -> jax.Array:
    """Return the outputs of the fully trained linearised student, `[m]` or `[m, K]`.

        z(x) = Θ(x, X) (Θ(X, X) + ε I)⁻¹ z_eff

    where gradient flow ends whatever the strictly convex loss whose minima the targets are. Take
    float64 beyond some 500 examples, in float32 a ridge of 1e-5.

    Args:
      k_train: `[n, n]` kernel among training examples.
      k_test: `[m, n]` kernel of test with training examples.
      targets: `[n]` or `[n, K]` floats, the effective logits.
      ridge: ε as a multiple of the mean diagonal, 0 or more.

    Raises:
      TypeError, ValueError: shapes that do not fit, numbers that are not finite floats, a kernel
        that is singular to rounding, as with duplicated inputs: they want a ridge.

    Reconstructed; kernel ridge regression.

    >>> print(kernel_student(4 * jnp.eye(2), jnp.array([[1.0, 1.0]]), jnp.array([1.0, 3.0])))
    [1.]
    """
    factor, targets = _factor(k_train, targets, ridge)
    k_test = _wide("k_test", k_test)
    _check_columns("k_test", k_test, len(factor))
    return jnp.matmul(k_test, cho_solve((factor, True), targets), precision=_EXACT)


def weight_norms(k_train: ArrayLike, targets: ArrayLike, *, ridge: ArrayLike = 0.0) -> jax.Array:
    """Return how far weights move to fit the first 1, 2, …, n examples, ‖w_1‖ … ‖w_n‖, `[n]`.

        ‖w_i‖² = r_iᵀ Θ_i⁻¹ r_i = Σ_{j≤i} (L⁻¹ r)_j²,  Θ = L Lᵀ

    with the first i targets r_i and their kernel Θ_i. A large ridge caps the growth and makes tasks
    look easier than they are.

    Args, raises: as `kernel_student`, with targets `[n]`. Reconstructed.

    >>> print(weight_norms(jnp.eye(2), jnp.array([3.0, 4.0])))
    [3. 5.]
    """
    factor, targets = _factor(k_train, _checked("targets", targets, ndim=1), ridge)
    return jnp.sqrt(jnp.cumsum(solve_triangular(factor, targets, lower=True) ** 2))


def data_inefficiency(log_norms: ArrayLike) -> jax.Array:
    """Return the data inefficiency I(1) … I(n − 1), `[n − 1]`: how hard a task is to learn.

        I(n) = n (E ln ‖w_{n+1}‖ − E ln ‖w_n‖)

    The log-log slope of the weight norm: near 0 where more examples bring nothing new, 1/2 or more
    where labels cannot be foretold. Noisy: average three orders or more, and over about n/2.

    Args:
      log_norms: `[R, n]` finite floats, ln of `weight_norms` in R random orders.

    Raises:
      TypeError, ValueError: another shape, fewer than two examples, numbers that are not finite.

    Source: named in arXiv 2010.10090; the formula is reconstructed.

    >>> print(data_inefficiency(0.5 * jnp.log(jnp.array([[1.0, 2.0, 3.0]]))).round(4))
    [0.3466 0.4055]
    """
    log_norms = _wide("log_norms", log_norms)
    if log_norms.shape[1] < 2:
        raise ValueError(f"log_norms: expected two examples or more, got {list(log_norms.shape)}")
    numbers = jnp.arange(1, log_norms.shape[1], dtype=log_norms.dtype)
    return numbers * jnp.diff(log_norms.mean(axis=0))


def transfer_risk(student_logits: ArrayLike, oracle_logits: ArrayLike) -> jax.Array:
    """Return how often student and oracle decide differently, P(z_n z* < 0), `[]`.

    Args:
      student_logits: `[m]` finite floats.
      oracle_logits: `[m]` finite floats. A zero on either side counts as agreement.

    Raises:
      TypeError, ValueError: other or different shapes, numbers that are not finite floats.

    Source: named in arXiv 2010.10090; the formula is reconstructed.

    >>> print(transfer_risk(jnp.array([1.0, -1.0, 0.0, 2.0]), jnp.array([3.0, 1.0, 1.0, 1.0])))
    0.25
    """
    student_logits = _checked("student_logits", student_logits, ndim=1)
    oracle_logits = _checked("oracle_logits", oracle_logits, shape=student_logits.shape)
    return (jnp.sign(student_logits) * jnp.sign(oracle_logits) < 0).mean(dtype=student_logits.dtype)


def angle_bound(
    oracle_logits: ArrayLike, k_diag: ArrayLike, *, oracle_norm: ArrayLike, student_norm: ArrayLike
) -> jax.Array:
    """Return a bound of the transfer risk that looks at angles alone, `[]`.

        P(β(x) ≥ π/2 − α),  cos β(x) = |z*(x)| / (‖φ(x)‖ ‖w*‖),  cos α = ‖w_n‖ / ‖w*‖

    w_n is w* projected on the span of n examples, α the angle between them: an x whose β is below
    π/2 − α is on one side for both. With few examples α is near π/2 and the bound 1.

    Args:
      oracle_logits: `[m]` finite floats z*, which the student was trained on elsewhere.
      k_diag: `[m]` floats above zero, Θ(x, x) = ‖φ(x)‖².
      oracle_norm: ‖w*‖ > 0, the last of `weight_norms` of a reference set that holds the student's
        examples and those it is judged on.
      student_norm: ‖w_n‖, 0 or more, and not above ‖w*‖.

    Raises:
      TypeError, ValueError: other or different shapes, numbers out of range.

    Reconstructed; proved by the remark above, for a student without ridge.

    >>> z, k = jnp.array([0.1, 0.5, 1.0]), jnp.ones(3)
    >>> print(f"{angle_bound(z, k, oracle_norm=1.0, student_norm=0.8):.4f}")  # |z| ≤ sin α = 0.6
    0.6667
    """
    oracle_logits = _checked("oracle_logits", oracle_logits, ndim=1)
    k_diag = _checked("k_diag", k_diag, shape=oracle_logits.shape)
    _door.check_scalar(oracle_norm=oracle_norm, student_norm=student_norm)
    _door.check_positive(k_diag=k_diag, oracle_norm=oracle_norm)
    _door.check_at_least(0, student_norm=student_norm)
    cosine = jnp.asarray(student_norm) / oracle_norm
    if _door.is_concrete(cosine) and cosine > 1.0001:  # rounding aside
        raise ValueError(
            f"student_norm: expected at most the oracle's, {oracle_norm}, which is to be taken "
            f"over a set that holds the student's examples, got {student_norm}"
        )
    sine = jnp.sqrt(jnp.maximum(1 - cosine**2, 0))
    inside = jnp.abs(oracle_logits) <= sine * oracle_norm * jnp.sqrt(k_diag)
    return inside.mean(dtype=oracle_logits.dtype)


def gradient_flow(k_train: ArrayLike, targets: ArrayLike, times: ArrayLike) -> jax.Array:
    """Return the student's outputs on its examples at times of training, `[times, n]`.

        z(t) = r − exp(−Θ t/n) r

    Gradient flow on the mean of (z − r)²/2 from 0. That of the distillation loss has no closed
    form; it ends at the effective logits, slowly where they are large.

    Args:
      k_train: `[n, n]` kernel among training examples.
      targets: `[n]` floats r.
      times: `[times]` floats, 0 or more.

    Raises:
      TypeError, ValueError: shapes that do not fit, numbers that are not finite, a time below zero.

    Reconstructed; linear dynamics.

    >>> print(gradient_flow(jnp.eye(1), jnp.ones(1), jnp.array([0.0, 1.0])).round(4))  # 1 − 1/e
    [[0.    ]
     [0.6321]]
    """
    k_train = _wide("k_train", k_train)
    targets = _checked("targets", targets, shape=k_train.shape[:1])
    _check_columns("k_train", k_train, len(k_train))
    times = _checked("times", times, ndim=1)
    _door.check_at_least(0, times=times)
    rates, vectors = jnp.linalg.eigh(k_train)
    learned = -jnp.expm1(-times[:, None] * jnp.maximum(rates, 0)[None, :] / len(targets))
    along = jnp.matmul(targets, vectors, precision=_EXACT)
    return jnp.matmul(learned * along[None, :], vectors.T, precision=_EXACT)


def _steps(x: jax.Array) -> int:
    """Return how many bisections take an interval to the last digit."""
    return 80 if x.dtype == jnp.float64 else 40


def _factor(
    k_train: ArrayLike, targets: ArrayLike, ridge: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Return L of Θ + ε I = L Lᵀ and the targets; raise where it is singular to rounding."""
    k_train, targets = _wide("k_train", k_train), _checked("targets", targets)
    _check_columns("k_train", k_train, len(k_train))
    if targets.ndim not in (1, 2) or len(targets) != len(k_train):
        raise ValueError(
            f"targets: expected {len(k_train)} rows as k_train, got shape {list(targets.shape)}"
        )
    _door.check_scalar(ridge=ridge)
    _door.check_at_least(0, ridge=ridge)
    diagonal = jnp.diagonal(k_train)
    factor = jnp.linalg.cholesky(k_train + ridge * diagonal.mean() * jnp.eye(len(k_train)))
    if _door.is_concrete(factor):
        pivots = np.diagonal(np.asarray(factor)) ** 2
        if not pivots.min() > 10 * jnp.finfo(k_train.dtype).eps * np.asarray(diagonal).max():
            raise ValueError(
                "k_train: expected a positive definite kernel, got one that is singular to "
                "rounding; duplicated inputs make it so, a larger ridge helps"
            )
    return factor, targets


def _wide(name: str, values: ArrayLike) -> jax.Array:
    """Return a matrix of finite floats, never narrower than float32."""
    array = _checked(name, values, ndim=2)
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def _checked(
    name: str, values: ArrayLike, *, ndim: int | None = None, shape: tuple[int, ...] | None = None
) -> jax.Array:
    """Return finite floats, of so many axes or of this shape."""
    array = jnp.asarray(values)
    _door.check_float(name, array)
    if ndim not in (None, array.ndim) or shape not in (None, array.shape) or not array.size:
        expected = f"{ndim} axes, none empty," if shape is None else f"shape {list(shape)},"
        raise ValueError(f"{name}: expected {expected} got shape {list(array.shape)}")
    _door.check_finite(name, array[..., None])
    return array


def _check_columns(name: str, matrix: jax.Array, columns: int) -> None:
    if matrix.shape[1] != columns:
        raise ValueError(f"{name}: expected {columns} columns, got shape {list(matrix.shape)}")


def _checked_examples(
    teacher_logits: ArrayLike, labels: ArrayLike, soft_ratio: ArrayLike, temperature: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Return the teacher's logits, and labels as numbers like them."""
    teacher_logits = _checked("teacher_logits", teacher_logits)
    _door.check_levels(labels=labels)
    labels = jnp.asarray(labels).astype(teacher_logits.dtype)
    _check_mix(soft_ratio, temperature)
    return teacher_logits, _checked("labels", labels, shape=teacher_logits.shape)


def _check_mix(soft_ratio: ArrayLike, temperature: ArrayLike) -> None:
    """Raise unless ρ is one level and T one positive number."""
    _door.check_scalar(soft_ratio=soft_ratio, temperature=temperature)
    _door.check_levels(soft_ratio=soft_ratio)
    _door.check_positive(temperature=temperature)
