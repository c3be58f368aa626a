import functools
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax

from jsoft import indicators, losses, targets
from jsoft import segmentation as seg

GOLDEN = Path(__file__).parent / "golden"
RNG = np.random.default_rng(0)
SHAPE = (3, 4, 5, 6)  # three images of 4 × 5 pixels, six classes
LOGITS = RNG.normal(size=SHAPE).astype(np.float32) * 2
HARD = RNG.integers(0, 5, SHAPE[:-1])  # class 5 is absent
HARD[0] %= 2  # and others from the first image
SOFT = RNG.dirichlet(np.full(6, 0.3), SHAPE[:-1]).astype(np.float32)
WHERE = RNG.random(SHAPE[:-1]) < 0.8


def read(name):
    """The official results by case, with classes last."""
    cases = {}
    with np.load(GOLDEN / f"jml_{name}.npz") as file:
        for key, value in file.items():
            case, _, field = key.rpartition("__")
            if value.ndim > 2 and not field.startswith(("hard", "keep", "boundary")) and case:
                value = np.moveaxis(value, 1, -1)
            cases.setdefault(case, {})[field] = value
    return cases


def assert_matches(case, loss, gradient, kink=False):
    """The tolerances of an independent implementation, measured."""
    assert_allclose(loss, case["loss"], rtol=1e-6, atol=1e-6)
    if not kink:  # at p = q the last digit of a softmax flips signs
        scale = max(1e-6 * np.abs(case["grad"]).max(), 1e-9)
        assert_allclose(gradient, case["grad"], rtol=1e-5, atol=scale)


def target_of(case):
    """Labels and mask of an official case, which ignores by a label that has no class."""
    where = case.get("keep_mask")
    if "soft_label" in case:
        return case["soft_label"], where
    if where is None and case["ignore_index"] >= 0:
        where = case["hard_label"] != case["ignore_index"]
    return case["hard_label"], where


JDT = {**read("hard"), **read("soft"), **read("edge")}
SCALARS = ("alpha", "beta", "smooth", "threshold")
# Few programs: what may be traced is.
STATIC = ("gamma", "norm", "log_loss", "active")
JITTED = jax.jit(jax.value_and_grad(seg.jdt_loss), static_argnames=STATIC)
jdt_loss = jax.jit(seg.jdt_loss, static_argnames=STATIC)


@pytest.mark.parametrize("name", JDT)
def test_jdt_loss_is_that_of_the_released_code(name):
    case = JDT[name]
    labels, where = target_of(case)
    shape = case["logits"].shape
    only_present = case["soft_present_only" if "soft_label" in case else "hard_present_only"]
    loss, gradient = JITTED(
        case["logits"],
        labels,
        where=np.ones(shape[:-1], bool) if where is None else where,
        weights=[float(case[f"mIoU{kind}"]) for kind in "DIC"],
        gamma=float(case["gamma"]),
        norm=int(case["norm"]),
        log_loss=bool(case["log_loss"]),
        class_weights=case.get("class_weights", np.ones(shape[-1:], np.float32)),
        active="present" if only_present else "all",
        **{option: float(case[option]) for option in SCALARS},
    )
    assert_matches(case, loss, gradient, kink=name == "soft_equal_prob")


COMPOSED = read("composed")


@pytest.mark.parametrize("name", COMPOSED)
def test_whole_objectives_are_those_of_the_released_code(name):
    case = COMPOSED[name]
    labels, where = target_of(case)
    where = np.ones(case["logits"].shape[:-1], bool) if where is None else where
    weight = {key: float(value) for key, value in case.items() if key.endswith("_weight")}
    smooth = float(case["smooth"])
    soft = targets.one_hot(np.where(where, labels, 0), 5) if labels.ndim == 3 else labels
    soft = np.where(where[..., None], soft, 1 / 5)

    def cross_entropy(logits, teacher):
        # With soft labels the released code takes the divergence, at no other gradient.
        loss = losses.kl_divergence(logits, soft)
        if teacher is not None:
            temperature = float(case["temperature"])
            told = targets.temperature_softmax(teacher, temperature=temperature)
            loss = weight["label_weight"] * loss + weight[
                "teacher_weight"
            ] * temperature**2 * losses.kl_divergence(logits / temperature, told)
        return weight["ce_weight"] * loss.mean(where=where)

    def objective(logits, aux_logits):
        if "teacher_logits" in case:
            loss = seg.segmentation_distillation_loss(
                logits,
                case["teacher_logits"],
                labels,
                where=where,
                ce_weight=weight["ce_weight"] * weight["main_weight"],
                jdt_weight=weight["jdt_weight"],
                label_weight=weight["label_weight"],
                teacher_weight=weight["teacher_weight"],
                temperature=float(case["temperature"]),
                teacher_active="all",
                smooth=smooth,
            )
        else:
            active = "present" if labels.ndim == 3 else "all"
            jdt = seg.jdt_loss(logits, labels, where=where, smooth=smooth, active=active)
            loss = weight["main_weight"] * cross_entropy(logits, None) + weight["jdt_weight"] * jdt
        if aux_logits is not None:
            loss += weight["aux_weight"] * cross_entropy(aux_logits, case.get("teacher_aux_logits"))
        return loss

    aux_logits = case.get("aux_logits")
    arguments = (0,) if aux_logits is None else (0, 1)
    both = jax.jit(jax.value_and_grad(objective, argnums=arguments))
    loss, gradients = both(case["logits"], aux_logits)
    for name, gradient in zip(("grad", "grad_aux"), gradients, strict=False):
        assert_matches({**case, "grad": case[name]}, loss, gradient)


VARIANTS = read("paper_variants")


@pytest.mark.parametrize("name", [name for name in VARIANTS if "_both_" not in name])
def test_metric_losses_are_those_of_the_first_release(name):
    case = VARIANTS[name]
    variant = int(name[3])
    hard = "hard_label" in case
    labels = jax.nn.one_hot(case["hard_label"], 5) if hard else jnp.asarray(case["soft_label"])
    axis = (1, 2) if case["per_image"] else (0, 1, 2)

    def objective(logits):
        smooth = float(case["smooth"]) / (2 if variant == 1 else 1)
        loss = seg.jaccard_metric_loss(
            jax.nn.softmax(logits), labels, axis=axis, variant=variant, smooth=smooth
        )
        active = jnp.ones(loss.shape, bool)
        if "_all_" not in name:
            active = labels.max(axis=axis) > case["threshold"]
        return loss.mean(axis=-1, where=active).mean()

    assert_matches(case, *jax.jit(jax.value_and_grad(objective))(case["logits"]))


def test_boundaries_are_those_of_the_released_code():
    cases = read("boundary_smoothing")
    labels, ignored = cases[""]["label"], int(cases[""]["ignore_index"])
    where = labels != ignored
    for size, epsilon in itertools.product((3, 5), (0.1, 0.5)):
        boundary = seg.boundary_mask(labels, kernel_size=size, where=where)
        assert_array_equal(boundary, cases[f"k{size}"]["boundary"])
        soft = seg.boundary_label_smoothing(
            labels, 4, epsilon=epsilon, kernel_size=size, where=where
        )
        case = cases[f"k{size}_eps{epsilon}".replace(".", "p")]
        assert_allclose(soft, case["soft_label"], atol=1e-7)
    uniform = cases["uniform"]
    assert_array_equal(seg.boundary_mask(uniform["label"]), uniform["boundary_k3"])


def test_measures_are_those_of_the_released_code():
    cases = read("metrics")
    given, expected = cases[""], cases["metric"]
    probs = np.moveaxis(given["prob"], 1, -1)
    where = given["label"] != given["ignore_index"]
    counts = seg.segmentation_counts(probs.argmax(axis=-1), given["label"], 4, where=where)
    for name, found in zip(("tp", "fp", "fn"), counts, strict=True):
        assert found.dtype == jnp.int32
        assert_array_equal(found, given[name])

    @jax.jit
    def measures(counts, probs, labels, where):
        def percent(kind, quantile=None):
            return 100 * seg.mean_iou(*counts, kind=kind, quantile=quantile)

        def error(probs, labels, where):
            return 100 * seg.segmentation_ece(probs, labels, where=where)

        found = {f"mIoU{kind}": percent(kind) for kind in "DIC"}
        for kind in "IC":
            worst = jnp.stack([percent(kind, quantile) for quantile in range(10, 101, 10)])
            found |= {f"mIoU{kind}10": worst[0], f"mIoU{kind}Q": worst.mean()}
        by_image = jax.vmap(error)(probs, labels, where)
        return {**found, "ECED": error(probs, labels, where), "ECEI": by_image.mean()}

    found = measures(counts, probs, np.where(where, given["label"], 0), where)
    for name, value in found.items():
        assert_allclose(value, expected[name].item(), rtol=2e-6, err_msg=name)


def reference(logits, labels, where, kind, alpha, beta, smooth, threshold, active):
    """JDT with loops over images and classes, in float64."""
    probs = softmax(np.asarray(logits, np.float64), axis=-1)
    q = np.eye(probs.shape[-1])[labels] if labels.ndim == 3 else np.asarray(labels, np.float64)

    def parts(image, c):
        a, b = probs[image][where[image]][:, c], q[image][where[image]][:, c]
        present = active == "all" or (b.size > 0 and b.max() > threshold)
        low = sum(min(u, v) for u, v in zip(a, b, strict=True))
        return np.array([low, a.sum() - low, b.sum() - low]), present

    def loss(tp, fp, fn):
        return 1 - (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)

    images, classes = range(len(probs)), range(probs.shape[-1])
    table = {(n, c): parts(n, c) for n in images for c in classes}
    if kind == "D":
        summed = {c: sum(table[n, c][0] for n in images) for c in classes}
        return np.mean([loss(*summed[c]) for c in classes if any(table[n, c][1] for n in images)])
    keys = [[(n, c) for c in classes] for n in images]
    keys = keys if kind == "I" else list(zip(*keys, strict=True))
    groups = [[loss(*table[key][0]) for key in row if table[key][1]] for row in keys]
    return np.mean([np.mean(group) for group in groups if group])


@pytest.mark.parametrize("active", ["present", "all"])
@pytest.mark.parametrize("kind", "DIC")
@pytest.mark.parametrize("labels", [HARD, SOFT], ids=["hard", "soft"])
def test_jdt_loss_follows_the_definition(labels, kind, active):
    options = {"alpha": 0.3, "beta": 0.7, "smooth": 0.5, "threshold": 0.6, "active": active}
    weights = [float(kind == other) for other in "DIC"]
    found, _ = JITTED(LOGITS, labels, where=WHERE, weights=weights, **options)
    expected = reference(LOGITS, labels, WHERE, kind, **options)
    assert_allclose(found, expected, rtol=1e-6)


def test_table_of_regions_gives_the_loss():
    probs = jax.nn.softmax(LOGITS).reshape(3, 20, 6)
    confusion = seg.soft_confusion(probs, SOFT.reshape(3, 20, 6), where=WHERE.reshape(3, 20))
    assert confusion[0].shape == (3, 6)
    table = 1 - seg.tversky_index(*confusion, smooth=1.0)
    loss = jdt_loss(LOGITS, SOFT, where=WHERE, weights=(0, 1, 0), smooth=1.0, active="all")
    assert_allclose(table.mean(), loss, rtol=1e-6)


@pytest.mark.parametrize("norm", [1, 2, 3])
def test_confusion_follows_its_powers(norm):
    p, q = softmax(LOGITS.astype(np.float64), axis=-1), SOFT.astype(np.float64)
    total, true, apart = ((abs(x) ** norm).sum(axis=(1, 2)) for x in (p, q, p - q))
    tp = (total + true - apart) / 2
    found = seg.soft_confusion(jnp.asarray(p), jnp.asarray(q), norm=norm, axis=(1, 2))
    for part, expected in zip(found, (tp, total - tp, true - tp), strict=True):
        assert_allclose(part, expected, rtol=2e-6, atol=2e-6)


# What the metric losses promise, and what others do not.


def soft_loss(name, x, y):
    """A loss of [..., n] by name, the product and the squared forms for comparison."""
    if name == "squared":
        parts = seg.soft_confusion(x[..., None].repeat(2, -1), y[..., None].repeat(2, -1), norm=2)
        return 1 - seg.tversky_index(*parts)[..., 0]
    if name == "product":
        shared = (x * y).sum(axis=-1)
        return 1 - shared / (x.sum(axis=-1) + y.sum(axis=-1) - shared)
    kind, variant = name
    of = seg.jaccard_metric_loss if kind == "jaccard" else seg.dice_semimetric_loss
    return of(x, y, variant=variant)


soft_loss = jax.jit(soft_loss, static_argnums=0)
FORMS = [("jaccard", 1), ("jaccard", 2), ("dice", 1), ("dice", 2)]


@pytest.mark.parametrize("name", [*FORMS, "product", "squared"], ids=str)
def test_a_half_is_best_predicted_by_a_half_but_for_the_product(name):
    x = jnp.linspace(0, 1, 101)[:, None]
    values = soft_loss(name, x, jnp.full((101, 1), 0.5))
    assert int(values.argmin()) == (100 if name == "product" else 50)


@pytest.mark.parametrize("name", [*FORMS, "squared"], ids=str)
def test_loss_is_zero_where_equal_and_symmetric(name):
    x, y = jnp.asarray(RNG.random((2, 50, 7)), jnp.float32)
    assert_allclose(soft_loss(name, x, x), 0, atol=1e-6)
    assert (soft_loss(name, x, y) > 0.01).all()
    assert_allclose(soft_loss(name, x, y), soft_loss(name, y, x), atol=1e-6)


@pytest.mark.parametrize("name", [*FORMS, "squared"], ids=str)
def test_only_the_jaccard_metric_losses_are_metrics(name):
    excess = -np.inf
    for n in (1, 2, 5):
        x, y, z = jnp.asarray(RNG.beta(0.3, 0.3, (3, 20_000, n)), jnp.float32)
        detour = soft_loss(name, x, z) + soft_loss(name, z, y)
        excess = max(excess, float((soft_loss(name, x, y) - detour).max()))
    if name[0] == "jaccard":
        assert excess < 1e-6
    else:
        assert excess > 0.1


@pytest.mark.parametrize("name", FORMS, ids=str)
def test_hard_labels_give_the_usual_soft_losses(name):
    x = jnp.asarray(RNG.random((9, 11)), jnp.float32)
    y = jnp.asarray(RNG.random((9, 11)) < 0.4, jnp.float32)
    shared, both = (x * y).sum(axis=-1), x.sum(axis=-1) + y.sum(axis=-1)
    usual = shared / (both - shared) if name[0] == "jaccard" else 2 * shared / both
    assert_allclose(soft_loss(name, x, y), 1 - usual, rtol=1e-5)


def test_metric_losses_reduce_over_any_axis_and_only_what_counts():
    x, y = jnp.asarray(RNG.random((2, 4, 6, 3)), jnp.float32)
    where = RNG.random((4, 6, 3)) < 0.5
    where[1, :, 2] = False
    for loss in (seg.jaccard_metric_loss, seg.dice_semimetric_loss):
        found = loss(x, y, axis=1, smooth=0.1, where=where)
        assert found.shape == (4, 3)
        kept = where[2, :, 0]
        assert_allclose(found[2, 0], loss(x[2, kept, 0], y[2, kept, 0], smooth=0.1), rtol=1e-6)
        assert found[1, 2] == 0
        assert loss(jnp.zeros(3), jnp.zeros(3)) == 0
        assert_allclose(loss(x, y, axis=(0, 1, 2)), loss(x.ravel(), y.ravel()), rtol=1e-6)


def test_jdt_loss_without_smoothing_is_the_metric_loss_of_each_class():
    probs = jax.nn.softmax(LOGITS)
    for loss, weight in ((seg.jaccard_metric_loss, 1.0), (seg.dice_semimetric_loss, 0.5)):
        by_class = loss(probs, SOFT, axis=(0, 1, 2))
        whole = jdt_loss(LOGITS, SOFT, smooth=0, alpha=weight, beta=weight, active="all")
        assert_allclose(whole, by_class.mean(), rtol=1e-6)


# Identities.


def test_hard_labels_are_one_hot_soft_labels():
    soft = targets.one_hot(HARD, 6)
    for active in ("present", "all"):
        options = {"weights": (0.5, 0.3, 0.2), "active": active, "where": WHERE}
        hard = jdt_loss(LOGITS, HARD, **options)
        assert_allclose(hard, jdt_loss(LOGITS, soft, **options), rtol=1e-6)


def test_orders_of_pixels_and_of_classes_do_not_matter():
    weights = np.arange(1.0, 7.0, dtype=np.float32)
    options = {"weights": (1, 1, 1), "threshold": 0.5}
    loss = jdt_loss(LOGITS, SOFT, class_weights=weights, **options)
    rows = RNG.permutation(4)
    turned = jdt_loss(LOGITS[:, rows], SOFT[:, rows], class_weights=weights, **options)
    assert_allclose(turned, loss, rtol=1e-6)
    order = RNG.permutation(6)
    named = jdt_loss(LOGITS[..., order], SOFT[..., order], class_weights=weights[order], **options)
    assert_allclose(named, loss, rtol=1e-6)


def test_one_image_has_one_loss_for_all_kinds():
    for active in ("present", "all"):
        found = [
            jdt_loss(LOGITS[:1], HARD[:1], weights=np.eye(3)[i].tolist(), active=active)
            for i in range(3)
        ]
        assert_allclose(found, found[0], rtol=1e-6)


def test_false_positives_at_no_price_do_not_count():
    parts = seg.soft_confusion(jnp.asarray(SOFT), targets.one_hot(HARD, 6), axis=(1, 2))
    tp, fp, fn = parts
    free = seg.tversky_index(tp, fp, fn, alpha=0.0)
    assert_allclose(free, seg.tversky_index(tp, 9 * fp, fn, alpha=0.0), rtol=1e-6)
    assert_allclose(free[:, :2], (tp / (tp + fn))[:, :2], rtol=1e-6)


def test_a_perfect_prediction_costs_nothing_and_any_other_at_most_one():
    certain = 60 * np.eye(6, dtype=np.float32)[HARD]
    for options in ({}, {"smooth": 0}, {"norm": 2}, {"log_loss": True}, {"gamma": 1.5}):
        assert abs(jdt_loss(certain, HARD, weights=(1, 1, 1), **options)) < 1e-6
    for seed in range(20):
        logits = 5 * np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
        assert 0 <= jdt_loss(logits, SOFT, smooth=0, active="all") <= 1


def test_gamma_and_class_weights_scale_the_elements():
    only = [1, 0, 0]
    single = jdt_loss(LOGITS[..., :2], HARD % 2, weights=only, class_weights=[1.0, 0.0])
    other = jdt_loss(LOGITS[..., :2], HARD % 2, weights=only, class_weights=[0.0, 1.0])
    both = jdt_loss(LOGITS[..., :2], HARD % 2, weights=only)
    assert_allclose(single + other, both, rtol=1e-6)  # the mean still divides by two
    squared = jdt_loss(LOGITS[..., :2], HARD % 2, class_weights=[1.0, 0.0], gamma=2.0)
    assert_allclose(squared, (2 * single) ** 2 / 2, rtol=1e-6)


def test_smoothed_labels_wake_absent_classes_unless_the_threshold_is_above():
    labels = HARD[:, :, :] % 3
    logits = jnp.asarray(LOGITS.repeat(2, axis=-1)[..., :11])
    for epsilon, wakes in ((0.1, False), (0.2, True)):  # ε/C is 0.009 and 0.018
        soft = seg.boundary_label_smoothing(labels, 11, epsilon=epsilon)
        present = jdt_loss(logits, soft, smooth=1.0)
        everything = jdt_loss(logits, soft, smooth=1.0, active="all")
        assert bool(abs(present - everything) < 1e-6) is wakes


# Transformations.


@pytest.mark.parametrize("labels", [HARD, SOFT], ids=["hard", "soft"])
def test_eager_jit_and_vmap_agree_with_traced_options(labels):
    swept = {"alpha": 0.4, "beta": 0.6, "smooth": 0.7, "threshold": 0.3}
    weights = jnp.array([0.5, 0.3, 0.2])

    def loss(logits, labels, where, options, weights):
        return seg.jdt_loss(logits, labels, where=where, weights=tuple(weights), **options)

    stack = jnp.stack([LOGITS, -LOGITS, LOGITS[::-1]])
    eager = [loss(logits, labels, WHERE, swept, weights) for logits in stack]
    mapped = jax.jit(jax.vmap(loss, in_axes=(0, None, None, None, None)))
    traced = jax.tree.map(jnp.float32, swept)
    assert_allclose(mapped(stack, labels, WHERE, traced, weights), eager, rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"weights": (1.0, 0.5, 0.5), "threshold": 0.5},
        {"norm": 2, "gamma": 1.5},
        {"log_loss": True, "where": WHERE},
    ],
    ids=lambda options: ", ".join(options),
)
def test_gradients_are_slopes(options):
    with jax.enable_x64(True):
        both = jax.jit(
            jax.value_and_grad(functools.partial(seg.jdt_loss, **options), argnums=(0, 1))
        )
        at = [np.asarray(LOGITS, np.float64), np.asarray(SOFT, np.float64)]
        _, gradients = both(*at)
        for place, gradient in enumerate(gradients):
            ahead, behind = list(at), list(at)
            step = 1e-6 * np.random.default_rng(place).normal(size=SHAPE)
            ahead[place], behind[place] = at[place] + step, at[place] - step
            rise = (both(*ahead)[0] - both(*behind)[0]) / 2
            assert_allclose((gradient * step).sum(), rise, rtol=1e-5)


def test_no_gradient_reaches_the_teacher():
    loss = functools.partial(seg.segmentation_distillation_loss, labels=HARD)
    both = jax.jit(jax.grad(lambda s, t: loss(s, t), argnums=(0, 1)))
    gradients = both(LOGITS, LOGITS[::-1])
    assert jnp.abs(gradients[0]).max() > 1e-4
    assert_array_equal(gradients[1], 0)


def test_distillation_is_the_sum_of_its_parts_and_its_options_may_be_traced():
    teacher, temperature = jnp.asarray(LOGITS[::-1]), 3.0
    soft = targets.temperature_softmax(teacher, temperature=temperature)
    entropy = losses.soft_cross_entropy(LOGITS, targets.one_hot(HARD, 6))
    divergence = losses.kl_divergence(LOGITS / temperature, soft) * temperature**2
    ce = (0.7 * entropy + 0.3 * divergence).mean(where=WHERE)
    options = {"where": WHERE, "smooth": 1.0, "weights": (0.0, 1.0, 0.0)}
    jdt = 0.7 * jdt_loss(LOGITS, HARD, **options) + 0.3 * jdt_loss(LOGITS, soft, **options)

    @jax.jit
    def loss(scalars):
        return seg.segmentation_distillation_loss(LOGITS, teacher, HARD, **options, **scalars)

    scalars = {"ce_weight": 0.4, "jdt_weight": 0.6, "label_weight": 0.7, "teacher_weight": 0.3}
    found = loss({**scalars, "temperature": temperature})
    assert_allclose(found, 0.4 * ce + 0.6 * jdt, rtol=1e-5)


# Extremes.

distil = jax.jit(seg.segmentation_distillation_loss)


@pytest.mark.parametrize("active", ["present", "all"])
@pytest.mark.parametrize("labels", [HARD, SOFT], ids=["hard", "soft"])
def test_nothing_left_costs_nothing(labels, active):
    nothing = np.zeros(SHAPE[:-1], bool)
    for smooth in (0.0, 1.0):
        value, gradient = JITTED(
            jnp.full(SHAPE, jnp.nan),
            labels,
            where=nothing,
            weights=(1, 1, 1),
            smooth=smooth,
            active=active,
        )
        assert value == 0
        assert_array_equal(gradient, 0)
    assert distil(LOGITS, LOGITS, labels, where=nothing) == 0


def test_what_is_left_out_does_not_matter():
    spoiled, marked, soft = LOGITS.copy(), HARD.copy(), SOFT.copy()
    spoiled[~WHERE] = np.nan
    marked[~WHERE] = 255
    soft[~WHERE] = 7.0
    for labels, bad in ((HARD, marked), (SOFT, soft)):
        clean = JITTED(jnp.asarray(LOGITS), labels, where=WHERE)
        dirty = JITTED(jnp.asarray(spoiled), bad, where=WHERE)
        assert_allclose(clean[0], dirty[0], rtol=1e-6)
        assert_allclose(clean[1], dirty[1], atol=1e-7)
    clean = distil(LOGITS, -LOGITS, HARD, where=WHERE)
    assert_allclose(distil(spoiled, -spoiled, marked, where=WHERE), clean, rtol=1e-6)


def test_infinities_of_absent_classes_stay_there():
    # Class 5 has no label; without smoothing its overlap is 0 and −log t infinite.
    value, gradient = JITTED(LOGITS, HARD, log_loss=True, smooth=0)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert jdt_loss(LOGITS, HARD, log_loss=True, smooth=0, active="all") == np.inf
    # An empty class of "all" that nobody predicts either is no loss.
    ruled_out = jnp.asarray(LOGITS).at[..., 5].set(-jnp.inf)
    value, gradient = JITTED(ruled_out, HARD, smooth=0, active="all")
    five = jdt_loss(LOGITS[..., :5], HARD, smooth=0, active="all")
    assert_allclose(value, five * 5 / 6, rtol=1e-6)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("options", [{}, {"norm": 2}, {"gamma": 1.5}, {"log_loss": True}], ids=str)
def test_huge_logits_stay_finite(options):
    for labels in (HARD, SOFT):
        value, gradient = JITTED(1e4 * jnp.asarray(LOGITS), labels, **options)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_half_precision_logits_are_summed_in_full():
    logits = jnp.zeros((1, 64, 64, 2), jnp.bfloat16)  # a bfloat16 counts to 256
    labels = np.zeros((1, 64, 64), int)
    loss = jdt_loss(logits, labels, smooth=0)
    assert loss.dtype == jnp.float32
    assert_allclose(loss, 0.5, rtol=1e-6)
    assert_allclose(
        jdt_loss(jnp.asarray(LOGITS, jnp.bfloat16), jnp.asarray(SOFT, jnp.bfloat16)),
        jdt_loss(LOGITS, SOFT),
        rtol=0.02,
    )


# Boundaries.


def reference_boundary(labels, size, where):
    half, (height, width) = size // 2, labels.shape
    found = np.zeros(labels.shape, bool)
    for i, j in np.ndindex(height, width):
        near = np.s_[max(i - half, 0) : i + half + 1, max(j - half, 0) : j + half + 1]
        found[i, j] = where[near].all() and (labels[near] != labels[i, j]).any()
    return found


@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_boundaries_follow_the_definition(size):
    labels = RNG.integers(0, 2, (2, 6, 7)).repeat(2, axis=1).repeat(2, axis=2)
    where = RNG.random(labels.shape) < 0.97
    found = seg.boundary_mask(labels, kernel_size=size, where=where)
    for image in range(2):
        expected = reference_boundary(labels[image], size, where[image])
        assert_array_equal(found[image], expected)
        alone = seg.boundary_mask(labels[image], kernel_size=size, where=where[image])
        assert_array_equal(alone, expected)
    mapped = jax.vmap(jax.jit(functools.partial(seg.boundary_mask, kernel_size=size)))
    assert_array_equal(mapped(labels), seg.boundary_mask(labels, kernel_size=size))


def test_smoothed_boundaries_keep_the_truth_on_top_and_tie_the_rest():
    labels = HARD[0]
    where = np.asarray(seg.boundary_mask(labels))
    for epsilon in (0.1, 0.5, 0.9):
        soft = seg.boundary_label_smoothing(labels, 6, epsilon=epsilon)
        assert_allclose(soft.sum(axis=-1), 1, rtol=1e-6)
        found = indicators.measure(soft[where], labels[where], max_k=2)
        assert_array_equal(found.unreliability, 0)
        assert_allclose(found.ambiguity, [0, 1 / 5], atol=1e-6)
        assert_allclose(found.mean_label_margin, 1 - epsilon, rtol=1e-5)
    assert_array_equal(
        seg.boundary_label_smoothing(labels, 6, epsilon=0.0), targets.one_hot(labels, 6)
    )


def test_smoothing_leaves_out_what_does_not_count_and_traces_epsilon():
    marked = np.where(WHERE, HARD, 255)
    smooth = functools.partial(seg.boundary_label_smoothing, marked, 6, where=WHERE)
    soft = jax.jit(lambda epsilon: smooth(epsilon=epsilon))(0.3)
    assert_allclose(soft, smooth(epsilon=0.3), atol=1e-7)
    assert_array_equal(soft.sum(axis=-1) > 0, WHERE)


# Measures.

mean_iou = jax.jit(seg.mean_iou, static_argnames=("kind", "quantile"))
calibration_error = jax.jit(seg.segmentation_ece, static_argnames="num_bins")


def test_counts_are_those_of_the_confusion_matrix():
    predicted = RNG.integers(0, 6, HARD.shape)
    tp, fp, fn = seg.segmentation_counts(predicted, HARD, 6, where=WHERE)
    for n, c in np.ndindex(3, 6):
        hit, true = predicted[n][WHERE[n]] == c, HARD[n][WHERE[n]] == c
        counts = tp[n, c], fp[n, c], fn[n, c]
        assert counts == ((hit & true).sum(), (hit & ~true).sum(), (~hit & true).sum())


def test_mean_iou_passes_over_what_has_no_label():
    tp, fp, fn = np.array([[3, 0, 0], [1, 2, 0]]), np.zeros((2, 3), int), np.ones((2, 3), int)
    fn[:, 2] = 0
    fp[:, 2] = 4  # predicted, never true
    fn[0, 1] = 0  # absent from the first image
    assert_allclose(mean_iou(tp, fp, fn), (4 / 6 + 2 / 3) / 2, rtol=1e-6)
    images = [3 / 4, (1 / 2 + 2 / 3) / 2]
    assert_allclose(mean_iou(tp, fp, fn, kind="I"), np.mean(images), rtol=1e-6)
    assert_allclose(mean_iou(tp, fp, fn, kind="I", quantile=1), min(images), rtol=1e-6)
    classes = [(3 / 4 + 1 / 2) / 2, 2 / 3]
    assert_allclose(mean_iou(tp, fp, fn, kind="C"), np.mean(classes), rtol=1e-6)
    worst = mean_iou(tp, fp, fn, kind="C", quantile=50)
    assert_allclose(worst, (1 / 2 + 2 / 3) / 2, rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"kind": "I"}, {"kind": "C", "quantile": 30}], ids=str)
def test_mean_iou_maps(options):
    stack = RNG.integers(0, 9, (4, 3, 7, 5))  # runs, (tp, fp, fn), images, classes
    measure = functools.partial(seg.mean_iou, **options)
    mapped = jax.jit(jax.vmap(lambda counts: measure(*counts)))(stack)
    assert_allclose(mapped, [measure(*counts) for counts in stack], rtol=1e-6)


def test_calibration_error_follows_the_definition():
    probs = np.asarray(SOFT.reshape(-1, 6))
    labels, where = HARD.ravel(), WHERE.ravel()
    confidence, right = probs.max(axis=1)[where], (probs.argmax(axis=1) == labels)[where]
    for num_bins in (1, 4, 15):
        bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
        gaps = [
            abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean()
            for b in set(bins)
        ]
        found = calibration_error(SOFT, HARD, num_bins=num_bins, where=WHERE)
        assert_allclose(found, sum(gaps), rtol=1e-5)
    certain = np.eye(6, dtype=np.float32)[HARD]
    assert calibration_error(certain, HARD) == 0  # probability 1 is in the last bin
    spoiled = np.where(WHERE[..., None], SOFT, np.nan)
    mapped = jax.vmap(lambda p, y, w: calibration_error(p, y, where=w))
    assert_allclose(
        mapped(spoiled, HARD, WHERE),
        [calibration_error(p, y, where=w) for p, y, w in zip(SOFT, HARD, WHERE, strict=True)],
        rtol=1e-5,
    )


# At the door.

MASK = np.ones(SHAPE[:-1], bool)
ONES = np.ones((3, 4), np.float32)
OUT = np.where(HARD == 0, 6, HARD)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: seg.jdt_loss(HARD, HARD), "logits: expected floating-point"),
        (lambda: seg.jdt_loss(LOGITS[0, 0], HARD[0, 0]), r"logits: expected shape \[B, \*S, C\]"),
        (lambda: seg.jdt_loss(LOGITS[..., :1], HARD), "logits: expected two classes"),
        (lambda: seg.jdt_loss(LOGITS, HARD[:1]), "labels: expected shape"),
        (lambda: seg.jdt_loss(LOGITS, SOFT[:1]), "labels: expected shape"),
        (lambda: seg.jdt_loss(LOGITS, OUT), "labels: expected classes in 0 … 5, got 6"),
        (lambda: seg.jdt_loss(LOGITS, MASK), "labels: expected integer"),
        (lambda: seg.jdt_loss(LOGITS, 2 * SOFT), "labels: expected rows that sum to one"),
        (lambda: seg.jdt_loss(LOGITS, SOFT + np.nan), "labels: expected finite"),
        (lambda: seg.jdt_loss(LOGITS, HARD, where=MASK[:1]), "where: expected shape"),
        (lambda: seg.jdt_loss(LOGITS, HARD, where=HARD), "where: expected a boolean mask"),
        (lambda: seg.jdt_loss(LOGITS, HARD, weights=(1, 0)), "weights: expected three"),
        (lambda: seg.jdt_loss(LOGITS, HARD, weights=(1, -1, 0)), "weights: expected 0 or more"),
        (lambda: seg.jdt_loss(LOGITS, HARD, alpha=-1), "alpha: expected 0 or more"),
        (lambda: seg.jdt_loss(LOGITS, HARD, beta=-1), "beta: expected 0 or more"),
        (lambda: seg.jdt_loss(LOGITS, HARD, smooth=-1), "smooth: expected 0 or more"),
        (lambda: seg.jdt_loss(LOGITS, HARD, smooth=np.ones(6)), "smooth: expected one number"),
        (lambda: seg.jdt_loss(LOGITS, HARD, gamma=0.5), "gamma: expected 1 or more"),
        (lambda: seg.jdt_loss(LOGITS, HARD, threshold=2), "threshold: expected a level"),
        (lambda: seg.jdt_loss(LOGITS, HARD, norm=0), "norm: expected 1 or more"),
        (lambda: seg.jdt_loss(LOGITS, HARD, norm=1.5), "norm: expected a whole number"),
        (lambda: seg.jdt_loss(LOGITS, HARD, class_weights=ONES), "class_weights: expected shape"),
        (
            lambda: seg.jdt_loss(LOGITS, HARD, class_weights=-np.ones(6)),
            "class_weights: expected 0 or more",
        ),
        (lambda: seg.jdt_loss(LOGITS, HARD, active="some"), 'active: expected "present"'),
        (lambda: seg.soft_confusion(ONES, ONES[:1]), "labels: expected shape"),
        (lambda: seg.soft_confusion(HARD, HARD), "probs: expected floating-point"),
        (lambda: seg.soft_confusion(ONES, ONES, where=MASK), "where: expected shape"),
        (lambda: seg.tversky_index(ONES, ONES[:1], ONES), "fp: expected shape"),
        (lambda: seg.tversky_index(ONES, ONES, ONES[0]), "fn: expected shape"),
        (lambda: seg.jaccard_metric_loss(ONES, ONES[0]), "y: expected shape"),
        (lambda: seg.jaccard_metric_loss(-ONES, ONES), "x: expected 0 or more"),
        (lambda: seg.jaccard_metric_loss(ONES, HARD[0, :3, :4]), "y: expected floating-point"),
        (lambda: seg.jaccard_metric_loss(ONES, ONES, variant=3), "variant: expected 1 or 2"),
        (lambda: seg.dice_semimetric_loss(ONES, ONES, smooth=-1), "smooth: expected 0 or more"),
        (lambda: seg.dice_semimetric_loss(ONES, -ONES), "y: expected 0 or more"),
        (lambda: seg.boundary_mask(ONES), "labels: expected integer"),
        (lambda: seg.boundary_mask(np.arange(3)), r"labels: expected shape \[..., H, W\]"),
        (lambda: seg.boundary_mask(HARD, kernel_size=4), "kernel_size: expected an odd number"),
        (lambda: seg.boundary_mask(HARD, where=MASK[0]), "where: expected shape"),
        (lambda: seg.boundary_label_smoothing(OUT, 6, epsilon=0.1), "labels: expected classes"),
        (lambda: seg.boundary_label_smoothing(HARD, 6, epsilon=-0.1), "epsilon: expected a level"),
        (lambda: seg.boundary_label_smoothing(HARD, 1, epsilon=0.1), "num_classes: expected 2"),
        (
            lambda: seg.segmentation_distillation_loss(LOGITS, LOGITS[:1], HARD),
            "teacher_logits: expected shape",
        ),
        (
            lambda: seg.segmentation_distillation_loss(LOGITS, LOGITS, HARD, temperature=0),
            "temperature: expected a number above zero",
        ),
        (
            lambda: seg.segmentation_distillation_loss(LOGITS, LOGITS, HARD, ce_weight=-1),
            "ce_weight: expected 0 or more",
        ),
        (
            lambda: seg.segmentation_distillation_loss(LOGITS, LOGITS, HARD, jdt_weight=MASK * 1),
            "jdt_weight: expected one number",
        ),
        (
            lambda: seg.segmentation_distillation_loss(LOGITS, LOGITS, HARD, teacher_active="no"),
            'active: expected "present"',
        ),
        (lambda: seg.segmentation_counts(HARD[:1], HARD, 6), "predictions: expected shape"),
        (lambda: seg.segmentation_counts(OUT, HARD, 6), "predictions: expected classes"),
        (lambda: seg.segmentation_counts(HARD, OUT, 6), "labels: expected classes"),
        (lambda: seg.segmentation_counts(HARD[0, 0], HARD[0, 0], 6), "labels: expected shape"),
        (lambda: seg.mean_iou(ONES[0], ONES[0], ONES[0]), r"tp: expected shape \[N, C\]"),
        (lambda: seg.mean_iou(ONES, ONES, ONES[:1]), "fn: expected shape"),
        (lambda: seg.mean_iou(ONES, -ONES, ONES), "fp: expected 0 or more"),
        (lambda: seg.mean_iou(0 * ONES, ONES, 0 * ONES), "expected a class that some label"),
        (lambda: seg.mean_iou(ONES, ONES, ONES, kind="X"), "kind: expected"),
        (lambda: seg.mean_iou(ONES, ONES, ONES, quantile=10), "quantile: expected 1 … 100"),
        (
            lambda: seg.mean_iou(ONES, ONES, ONES, kind="I", quantile=101),
            "quantile: expected 1 … 100",
        ),
        (
            lambda: seg.mean_iou(ONES, ONES, ONES, kind="I", quantile=0.1),
            "quantile: expected a whole number",
        ),
        (lambda: seg.segmentation_ece(SOFT, HARD[:1]), "labels: expected shape"),
        (lambda: seg.segmentation_ece(SOFT, OUT), "labels: expected classes"),
        (lambda: seg.segmentation_ece(3 * SOFT, HARD), "probs: expected a level"),
        (lambda: seg.segmentation_ece(SOFT, HARD, num_bins=0), "num_bins: expected 1"),
        (lambda: seg.segmentation_ece(SOFT, HARD, where=~MASK), "where: expected at least one"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
