import functools
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from numpy.testing import assert_allclose, assert_array_equal

from jsoft import losses, propagation, targets

GOLDEN = Path(__file__).parent / "golden" / "siamese_sampling_propagation.npz"
RNG = np.random.default_rng(0)
NUM_VIDEOS, NUM_CLIPS, NUM_ANSWERS, WIDTH = 3, 4, 5, 6
SCORES = 2 * RNG.normal(size=(NUM_VIDEOS, NUM_CLIPS, NUM_ANSWERS)).astype(np.float32)
FEATURES = RNG.normal(size=(NUM_VIDEOS, NUM_CLIPS, WIDTH)).astype(np.float32)
LABELS = RNG.integers(0, NUM_ANSWERS, NUM_VIDEOS).astype(np.int32)
WHERE = np.array([[True] * 4, [True, False, True, False], [True, False, False, False]])
W1, W2 = RNG.normal(size=(2, NUM_CLIPS)).astype(np.float32)
KINDS = ("cosine", "uniform")
each_kind = pytest.mark.parametrize("kind", KINDS)
each_mask = pytest.mark.parametrize("where", [None, WHERE], ids=["all", "some"])


def softmax(x):
    weights = [math.exp(value - max(x)) for value in x]
    return [weight / sum(weights) for weight in weights]


def reference_affinity(features, kind, temperature, where):
    features = [[float(x) for x in row] for row in features]
    num_clips = len(features)
    found = np.zeros((num_clips, num_clips))
    for i in range(num_clips):
        siblings = [j for j in range(num_clips) if j != i and where[i] and where[j]]
        cosines = [
            sum(a * b for a, b in zip(features[i], features[j], strict=True))
            / math.hypot(*features[i])
            / math.hypot(*features[j])
            for j in siblings
        ]
        if kind == "uniform":
            cosines = [0.0] * len(siblings)
        if siblings:
            found[i, siblings] = softmax([cosine / temperature for cosine in cosines])
    return found


def reference_label(scores, affinity, omega, w1, w2, where):
    clips = [i for i, exists in enumerate(where) if exists]
    own = np.array([softmax(row) for row in np.asarray(scores, float)])
    u1 = dict(zip(clips, softmax([float(w1[i]) for i in clips]), strict=True))
    u2 = dict(zip(clips, softmax([float(w2[i]) for i in clips]), strict=True))
    label = np.zeros(own.shape[1])
    for i in clips:
        told = sum(affinity[i, j] * own[j] for j in clips) if affinity[i].any() else own[i]
        label += omega * u1[i] * told + (1 - omega) * u2[i] * own[i]
    return label


def reference_walk(probabilities, affinity, omega, num_steps):
    labels = probabilities
    for _ in range(num_steps):
        told = [row @ labels if row.any() else labels[i] for i, row in enumerate(affinity)]
        labels = omega * np.array(told) + (1 - omega) * probabilities
    return labels


@functools.partial(jax.jit, static_argnames=("kind",))
def affinity_of(features, *, where=None, temperature=1.0, kind="cosine"):
    return propagation.siamese_affinity(features, temperature=temperature, kind=kind, where=where)


@jax.jit
def label_of(scores, affinity, omega=0.5, w1=None, w2=None, where=None):
    return propagation.siamese_soft_label(scores, affinity, omega=omega, w1=w1, w2=w2, where=where)


@functools.partial(jax.jit, static_argnames=("num_steps",))
def walk_of(probabilities, affinity, omega, num_steps=None):
    if num_steps is None:
        return propagation.propagate_closed_form(probabilities, affinity, omega=omega)
    return propagation.propagate(probabilities, affinity, omega=omega, num_steps=num_steps)


PROBABILITIES = np.asarray(jax.nn.softmax(SCORES))
AFFINITY = np.asarray(affinity_of(FEATURES))
SOME_AFFINITY = np.asarray(affinity_of(FEATURES, where=WHERE))


@each_kind
@each_mask
def test_affinity_matches_the_reference(kind, where):
    found = affinity_of(FEATURES, where=where, temperature=0.5, kind=kind)
    assert found.dtype == jnp.float32
    exists = np.ones_like(WHERE) if where is None else where
    for video in range(NUM_VIDEOS):
        expected = reference_affinity(FEATURES[video], kind, 0.5, exists[video])
        assert_allclose(found[video], expected, rtol=1e-5, atol=1e-7)
    assert_array_equal(np.diagonal(found, axis1=1, axis2=2), 0)
    has_siblings = exists & (exists.sum(axis=1, keepdims=True) > 1)
    assert_allclose(found.sum(axis=-1), has_siblings, rtol=1e-6)


@each_mask
def test_soft_label_matches_the_reference(where):
    affinity = AFFINITY if where is None else SOME_AFFINITY
    found = label_of(SCORES, affinity, 0.3, W1, W2, where)
    exists = np.ones_like(WHERE) if where is None else where
    for video in range(NUM_VIDEOS):
        expected = reference_label(SCORES[video], affinity[video], 0.3, W1, W2, exists[video])
        assert_allclose(found[video], expected, rtol=1e-5)
    assert_allclose(found.sum(axis=-1), 1, rtol=1e-6)


@pytest.mark.parametrize("omega", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("affinity", [AFFINITY, SOME_AFFINITY], ids=["all", "some"])
def test_walk_matches_the_reference(affinity, omega):
    for video in range(NUM_VIDEOS):
        expected = reference_walk(PROBABILITIES[video], affinity[video], omega, 3)
        found = walk_of(PROBABILITIES[video], affinity[video], omega, num_steps=3)
        assert_allclose(found, expected, rtol=1e-5)
    assert_array_equal(walk_of(PROBABILITIES, affinity, omega, num_steps=0), PROBABILITIES)


@pytest.mark.parametrize("omega", np.array([0.1, 0.5, 0.9], np.float32))
@pytest.mark.parametrize("affinity", [AFFINITY, SOME_AFFINITY], ids=["all", "some"])
def test_walk_converges_to_the_closed_form_at_the_rate_promised(affinity, omega):
    limit = walk_of(PROBABILITIES, affinity, omega)
    assert_allclose(limit.sum(axis=-1), 1, rtol=1e-5)
    for num_steps in (0, 1, 2, 5):
        steps = walk_of(PROBABILITIES, affinity, omega, num_steps=num_steps)
        assert (np.abs(steps - limit).sum(axis=-1) <= 2 * omega**num_steps + 1e-6).all()
    assert_allclose(walk_of(PROBABILITIES, affinity, omega, num_steps=200), limit, atol=2e-6)


def test_closed_form_keeps_six_digits_in_float32():
    for omega in (0.5, 0.9, 0.95):
        exact = np.linalg.solve(
            np.eye(NUM_CLIPS) - omega * AFFINITY.astype(np.float64),
            (1 - omega) * PROBABILITIES.astype(np.float64),
        )
        assert_allclose(walk_of(PROBABILITIES, AFFINITY, omega), exact, rtol=0, atol=1e-6)


def test_clips_without_siblings_keep_their_own_prediction():
    limit = walk_of(PROBABILITIES, SOME_AFFINITY, 0.7)
    for missing in ((1, 1), (1, 3), (2, 0), (2, 1)):
        assert_allclose(limit[missing], PROBABILITIES[missing], rtol=1e-5)
    alone = FEATURES[:, :1]
    assert_array_equal(affinity_of(alone), np.zeros((NUM_VIDEOS, 1, 1)))
    for omega in (0.0, 0.5, 1.0):
        label = label_of(SCORES[:, :1], np.zeros((NUM_VIDEOS, 1, 1), np.float32), omega)
        assert_allclose(label, PROBABILITIES[:, 0], rtol=1e-5)
    by_mask = label_of(SCORES, SOME_AFFINITY, 0.5, W1, W2, WHERE)
    assert_allclose(by_mask[2], PROBABILITIES[2, 0], rtol=1e-5)


def test_missing_clips_may_hold_anything():
    spoiled_scores, spoiled_features = SCORES.copy(), FEATURES.copy()
    spoiled_scores[~WHERE] = np.nan
    spoiled_features[~WHERE] = np.inf

    def loss(scores, features):
        return propagation.siamese_reasoning(scores, features, LABELS, where=WHERE, w1=W1, w2=W2)[
            0
        ].sum()

    value_and_slopes = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    for spoiled, clean in zip(
        jax.tree.leaves(value_and_slopes(spoiled_scores, spoiled_features)),
        jax.tree.leaves(value_and_slopes(SCORES, FEATURES)),
        strict=True,
    ):
        assert_array_equal(spoiled, clean)


def test_masked_clips_are_as_if_they_were_not_there():
    kept = [0, 2]
    fewer = loss_of(SCORES[1, kept], FEATURES[1, kept], LABELS[1], w1=W1[kept], w2=W2[kept])
    masked = loss_of(SCORES[1], FEATURES[1], LABELS[1], w1=W1, w2=W2, where=WHERE[1])
    for a, b in zip(jax.tree.leaves(fewer), jax.tree.leaves(masked), strict=True):
        assert_allclose(a, b, rtol=1e-5)


def test_uniform_weights_and_affinities_give_the_mean_at_any_omega():
    uniform = affinity_of(FEATURES, kind="uniform")
    for omega in (0.0, 0.3, 1.0):
        found = label_of(SCORES, uniform, omega)
        assert_allclose(found, PROBABILITIES.mean(axis=1), rtol=1e-5)


def test_omega_zero_asks_no_sibling():
    uniform = affinity_of(FEATURES, kind="uniform")
    found = [label_of(SCORES, a, 0.0, W1, W2) for a in (AFFINITY, uniform)]
    assert_array_equal(*found)
    assert_allclose(walk_of(PROBABILITIES, AFFINITY, 0.0), PROBABILITIES, rtol=1e-6)


def test_low_temperature_listens_to_the_likest_sibling_alone():
    features = np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32)
    found = affinity_of(features, temperature=1e-3)
    assert_allclose(found, [[0, 1, 0], [1, 0, 0], [0, 1, 0]], atol=1e-6)


def test_features_of_zeros_are_like_nothing_and_have_slopes():
    features = FEATURES[0].copy()
    features[1] = 0
    found = affinity_of(features)
    assert_allclose(found[1, [0, 2, 3]], 1 / 3, rtol=1e-6)
    slopes = jax.jit(jax.grad(lambda f: (propagation.siamese_affinity(f) ** 2).sum()))(features)
    assert np.isfinite(slopes).all()


def test_order_of_clips_and_answers_does_not_matter():
    clips, answers = np.array([2, 0, 3, 1]), np.array([4, 2, 0, 1, 3])
    affinity = affinity_of(FEATURES[:, clips])
    assert_allclose(affinity, AFFINITY[:, clips][:, :, clips], rtol=1e-5, atol=1e-7)
    found = label_of(SCORES[:, clips][..., answers], affinity, 0.5, W1[clips], W2[clips])
    expected = label_of(SCORES, AFFINITY, 0.5, W1, W2)[:, answers]
    assert_allclose(found, expected, rtol=1e-5)
    walked = walk_of(PROBABILITIES[:, clips][..., answers], affinity, 0.5)
    expected = walk_of(PROBABILITIES, AFFINITY, 0.5)[:, clips][..., answers]
    assert_allclose(walked, expected, rtol=1e-5)


def test_hinge_matches_the_reference():
    rows = SCORES.reshape(-1, NUM_ANSWERS)
    labels = np.arange(len(rows)) % NUM_ANSWERS
    found = propagation.pairwise_hinge(rows, labels, margin=0.7)
    for row, label, value in zip(rows, labels, found, strict=True):
        others = [m for m in range(NUM_ANSWERS) if m != label]
        expected = sum(max(0.0, 0.7 - float(row[label] - row[m])) for m in others)
        assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    assert propagation.pairwise_hinge(jnp.array([3.0, 2.0]), jnp.array(0)) == 0  # on the margin


@functools.partial(jax.jit, static_argnames=("task", "label_kind", "affinity"))
def loss_of(scores, features, labels, **options):
    return propagation.siamese_reasoning(scores, features, labels, **options)


@pytest.mark.parametrize("task", ["open", "choice"])
@pytest.mark.parametrize("label_kind", ["one_step", "walk"])
@each_mask
def test_loss_is_made_of_its_parts(task, label_kind, where):
    options = {"omega": 0.4, "alpha": 0.6, "affinity": "cosine", "affinity_temperature": 0.5}
    total, terms = loss_of(
        SCORES, FEATURES, LABELS, task=task, label_kind=label_kind, where=where, **options
    )
    anchor = SCORES[:, 0]
    affinity = affinity_of(FEATURES, where=where, temperature=0.5)
    if label_kind == "walk":
        label = walk_of(PROBABILITIES, affinity, 0.4)[:, 0]
    else:
        label = label_of(SCORES, affinity, 0.4, where=where)
    if task == "open":
        truth = -jax.nn.log_softmax(anchor)[np.arange(NUM_VIDEOS), LABELS]
    else:
        truth = propagation.pairwise_hinge(anchor, LABELS)
    assert_allclose(terms["soft_label"], label, rtol=1e-5)
    assert_allclose(terms["ground_truth"], truth, rtol=1e-5)
    assert_allclose(terms["siamese"], losses.soft_cross_entropy(anchor, label), rtol=1e-5)
    assert_allclose(total, truth + 0.6 * terms["siamese"], rtol=1e-5)


@pytest.mark.parametrize("label_kind", ["one_step", "walk"])
def test_gradients_reach_the_anchor_and_the_weights_alone(label_kind):
    def loss(scores, features, w1, w2):
        weights = {"w1": w1, "w2": w2} if label_kind == "one_step" else {}
        total, _ = propagation.siamese_reasoning(
            scores, features, LABELS, label_kind=label_kind, **weights
        )
        return total.sum()

    slopes = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(SCORES, FEATURES, W1, W2)
    of_scores, of_features, of_w1, of_w2 = map(np.asarray, slopes)
    assert_array_equal(of_scores[:, 1:], 0)
    assert_array_equal(of_features, 0)
    assert (of_w1 != 0).any() == (of_w2 != 0).any() == (label_kind == "one_step")
    # d/ds of both cross-entropies: p − e_y and p − Q
    options = {"label_kind": label_kind}
    if label_kind == "one_step":
        options |= {"w1": W1, "w2": W2}
    label = loss_of(SCORES, FEATURES, LABELS, **options)[1]["soft_label"]
    truth = np.eye(NUM_ANSWERS)[LABELS]
    assert_allclose(of_scores[:, 0], 2 * PROBABILITIES[:, 0] - truth - label, rtol=1e-4, atol=1e-6)


def test_gradient_on_the_weights_favours_clips_that_agree_with_the_anchor():
    scores = jnp.array([[3.0, 0.0], [3.0, 0.0], [0.0, 3.0]])

    @jax.jit
    @jax.grad
    def slope(weights):
        features, label = jnp.ones((3, 2)), jnp.array(0)
        return propagation.siamese_reasoning(scores, features, label, w2=weights)[0]

    slopes = slope(jnp.zeros(3))
    assert slopes[1] < 0 < slopes[2]  # descent: the clip that agrees gains weight


@pytest.mark.parametrize("label_kind", ["one_step", "walk"])
@pytest.mark.parametrize("masked", [False, True], ids=["one clip", "one clip by mask"])
def test_own_label_teaches_nothing(label_kind, masked):
    """The control: a clip's own prediction, held constant, has no gradient."""
    clips = slice(None) if masked else slice(1)
    where = np.arange(NUM_CLIPS)[clips] == 0

    def siamese(scores):
        features, options = FEATURES[0, clips], {"label_kind": label_kind, "where": where}
        _, terms = propagation.siamese_reasoning(scores, features, LABELS[0], **options)
        return terms["siamese"]

    assert_allclose(jax.jit(jax.grad(siamese))(SCORES[0, clips]), 0, atol=1e-6)


def test_walk_of_one_step_has_the_labels_that_the_paper_averages():
    """Read out clip by clip and then averaged uniformly, it is the paper's label."""
    step = walk_of(PROBABILITIES, AFFINITY, 0.3, num_steps=1)
    assert_allclose(step.mean(axis=1), label_of(SCORES, AFFINITY, 0.3), rtol=1e-5)


def test_eager_jit_and_vmap_agree():
    def everything(scores, features, labels, where):
        affinity = propagation.siamese_affinity(features, where=where, temperature=0.5)
        own = targets.temperature_softmax(scores, temperature=2.0)
        return (
            affinity,
            propagation.siamese_soft_label(scores, affinity, w1=W1, where=where),
            propagation.propagate(own, affinity, omega=0.5, num_steps=2),
            propagation.propagate_closed_form(own, affinity, omega=0.5),
            propagation.pairwise_hinge(scores[..., 0, :], labels),
            propagation.siamese_reasoning(scores, features, labels, w1=W1, where=where),
            propagation.siamese_reasoning(
                scores, features, labels, label_kind="walk", task="choice", where=where
            ),
        )

    arrays = (SCORES, FEATURES, LABELS, WHERE)
    eager, compiled = everything(*arrays), jax.jit(everything)
    one_by_one = [compiled(*(array[i] for array in arrays)) for i in range(NUM_VIDEOS)]
    for other in (
        compiled(*arrays),
        jax.jit(jax.vmap(everything))(*arrays),
        jax.tree.map(lambda *leaves: np.stack(leaves), *one_by_one),
    ):
        jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-5, atol=1e-6), eager, other)


def test_hyper_parameters_can_be_mapped():
    def loss(omega, alpha, temperature):
        return propagation.siamese_reasoning(
            SCORES, FEATURES, LABELS, omega=omega, alpha=alpha, affinity_temperature=temperature
        )[0]

    values = [np.array(column, np.float32) for column in ([0.0, 0.5], [1.0, 2.0], [0.1, 1.0])]
    mapped = jax.jit(jax.vmap(loss))(*values)
    for i in range(2):
        assert_allclose(mapped[i], loss(*(column[i] for column in values)), rtol=1e-5)


def test_gradients_match_finite_differences():
    with jax.enable_x64(True):
        scores, features, w1, w2 = (
            jnp.asarray(x, jnp.float64) for x in (SCORES[0, :2], FEATURES[0, :3], W1[:2], W2[:2])
        )
        affinity = jnp.array([[0.0, 1.0], [1.0, 0.0]])
        own = jax.nn.softmax(scores)
        check = functools.partial(check_grads, order=1, modes=("fwd", "rev"))
        check(jax.jit(lambda f: propagation.siamese_affinity(f)), (features,))
        check(
            jax.jit(lambda v1, v2: propagation.siamese_soft_label(scores, affinity, w1=v1, w2=v2)),
            (w1, w2),
        )
        check(jax.jit(lambda p: propagation.propagate(p, affinity, omega=0.4, num_steps=3)), (own,))
        check(jax.jit(lambda p: propagation.propagate_closed_form(p, affinity, omega=0.4)), (own,))
        check(jax.jit(lambda s: propagation.pairwise_hinge(s, LABELS[:2])), (scores,))


def test_extreme_scores_stay_finite():
    scores = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 0], [1e4, 1e4, -1e4]], np.float32)

    def loss(scores):
        return propagation.siamese_reasoning(scores, np.eye(3, dtype=np.float32), np.int32(0))[0]

    value, slopes = jax.jit(jax.value_and_grad(loss))(scores)
    label = label_of(scores, affinity_of(np.eye(3, dtype=np.float32)))
    assert_allclose(label, [0.5, 0.5, 0], atol=1e-6)
    assert_allclose(value, 1e4, rtol=1e-6)  # half of the label lies 20,000 below the anchor's best
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize(("num_clips", "num_answers"), [(4, 5), (8, 10), (2, 3)])
def test_golden_vectors(num_clips, num_answers):
    with jax.enable_x64(True), np.load(GOLDEN) as stored:
        prefix = f"n{num_clips}."
        golden = {
            name.removeprefix(prefix): jnp.asarray(stored[name])
            for name in stored.files
            if name.startswith(prefix)
        }
        same = functools.partial(assert_allclose, rtol=1e-12, atol=1e-12)
        scores, own = golden["scores"], golden["probs"]
        assert scores.shape == (num_clips, num_answers)
        assert scores.dtype == jnp.float64
        same(targets.temperature_softmax(scores, temperature=1.0), own)
        affinity = affinity_of(golden["features"])
        same(affinity, golden["affinity_norm"])
        same(walk_of(own, affinity, 1.0, num_steps=1), golden["propagated"])
        w1, w2 = jnp.log(golden["w1"]), jnp.log(golden["w2"])
        same(label_of(scores, affinity, 0.5, w1, w2), golden["soft_label_paper"])
        same(label_of(scores, affinity), golden["soft_label_uniform_w"])
        uniform = affinity_of(golden["features"], kind="uniform")
        same(label_of(scores, uniform), golden["soft_label_skr_only"])
        for omega in (0.1, 0.5, 0.9):
            for steps in (1, 2, 3):
                expected = golden[f"walk_t{steps}_omega{omega}"]
                same(walk_of(own, affinity, omega, num_steps=steps), expected)
            same(walk_of(own, affinity, omega), golden[f"walk_closed_omega{omega}"])
        label = golden["label"].astype(int)
        same(propagation.pairwise_hinge(scores[0], label), golden["hinge"])

        def loss(scores, w1, w2):
            total, terms = propagation.siamese_reasoning(
                scores, golden["features"], label, w1=w1, w2=w2
            )
            return total, terms

        slopes, terms = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(scores, w1, w2)
        same(terms["siamese"], golden["loss_siamese"])
        same(terms["ground_truth"], golden["loss_gt"])
        for found, name in zip(slopes, ("scores", "logw1", "logw2"), strict=True):
            same(found, golden[f"grad_{name}"])
        if num_clips == 8:
            own = targets.temperature_softmax(scores, temperature=4.0)
            found = walk_of(own, affinity, 0.5)
            same(found, golden["walk_T4_omega0.5"])
            assert_allclose(found, golden["walk_official_T4_omega0.5"], rtol=0, atol=1e-6)


BAD_SCORES, BAD_FEATURES = SCORES.copy(), FEATURES.copy()
BAD_SCORES[0, 1, 2] = np.inf
BAD_FEATURES[0, 1, 2] = np.nan
NEGATIVE = PROBABILITIES.copy()
NEGATIVE[0, 0, :2] = [-0.5, 1.0]
NO_ANCHOR = np.array([[False, True, True, True]] * NUM_VIDEOS)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: p.siamese_affinity(FEATURES.astype(int)), TypeError, "features: expected fl"),
        (lambda p: p.siamese_affinity(FEATURES[0, 0]), ValueError, "features: expected shape [..."),
        (
            lambda p: p.siamese_affinity(FEATURES[:, :0]),
            ValueError,
            "features: expected shape [...",
        ),
        (lambda p: p.siamese_affinity(BAD_FEATURES), ValueError, "infinity in row [0, 1]"),
        (lambda p: p.siamese_affinity(FEATURES, temperature=0.0), ValueError, "temperature: exp"),
        (lambda p: p.siamese_affinity(FEATURES, temperature=W1), ValueError, "temperature: exp"),
        (lambda p: p.siamese_affinity(FEATURES, kind="dot"), ValueError, "kind: expected"),
        (lambda p: p.siamese_affinity(FEATURES, where=WHERE * 1), TypeError, "where: expected a b"),
        (lambda p: p.siamese_affinity(FEATURES, where=WHERE[0]), ValueError, "where: expected sh"),
        (
            lambda p: p.siamese_affinity(FEATURES, where=WHERE & (np.arange(4) > 0)),
            ValueError,
            "got a video of none",
        ),
        (lambda p: p.siamese_soft_label(SCORES.astype(int), AFFINITY), TypeError, "scores: expec"),
        (lambda p: p.siamese_soft_label(SCORES[..., :1], AFFINITY), ValueError, "N ≥ 1 and K ≥ 2"),
        (
            lambda p: p.siamese_soft_label(BAD_SCORES, AFFINITY),
            ValueError,
            "infinity in row [0, 1]",
        ),
        (lambda p: p.siamese_soft_label(SCORES, AFFINITY[0]), ValueError, "affinity: expected sha"),
        (lambda p: p.siamese_soft_label(SCORES, AFFINITY[:, :2]), ValueError, "affinity: expected"),
        (lambda p: p.siamese_soft_label(SCORES, 2 * AFFINITY), ValueError, "sum to 0 or 1, got"),
        (lambda p: p.siamese_soft_label(SCORES, AFFINITY, omega=1.5), ValueError, "omega: expect"),
        (lambda p: p.siamese_soft_label(SCORES, AFFINITY, omega=W1), ValueError, "omega: expect"),
        (lambda p: p.siamese_soft_label(SCORES, AFFINITY, w1=W1[:2]), ValueError, "w1: expected s"),
        (lambda p: p.siamese_soft_label(SCORES, AFFINITY, w2=[1, 2, 3, 4]), TypeError, "w2: exp"),
        (
            lambda p: p.siamese_soft_label(SCORES, AFFINITY, w2=np.full(4, np.nan)),
            ValueError,
            "w2: expected finite",
        ),
        (
            lambda p: p.siamese_soft_label(SCORES, AFFINITY, temperature=-1.0),
            ValueError,
            "temperature: expected",
        ),
        (
            lambda p: p.propagate(SCORES, AFFINITY, omega=0.5, num_steps=1),
            ValueError,
            "probabilities: expected entries of 0 or more",
        ),
        (
            lambda p: p.propagate(NEGATIVE, AFFINITY, omega=0.5, num_steps=1),
            ValueError,
            "in row [0, 0]",
        ),
        (
            lambda p: p.propagate(PROBABILITIES, AFFINITY, omega=0.5, num_steps=-1),
            ValueError,
            "num_steps: expected 0 or more",
        ),
        (
            lambda p: p.propagate(PROBABILITIES, AFFINITY, omega=0.5, num_steps=1.0),
            TypeError,
            "num_steps: expected a whole",
        ),
        (
            lambda p: p.propagate_closed_form(PROBABILITIES, AFFINITY, omega=1.0),
            ValueError,
            "omega: expected a number in [0, 1)",
        ),
        (
            lambda p: p.propagate_closed_form(PROBABILITIES, AFFINITY > 0, omega=0.5),
            TypeError,
            "affinity: expected floating",
        ),
        (lambda p: p.pairwise_hinge(SCORES, LABELS), ValueError, "labels: expected shape [3, 4]"),
        (lambda p: p.pairwise_hinge(SCORES[:, 0], LABELS + 5), ValueError, "labels: expected cla"),
        (lambda p: p.pairwise_hinge(SCORES[:, 0], LABELS * 1.0), TypeError, "labels: expected int"),
        (
            lambda p: p.pairwise_hinge(SCORES[:, 0], LABELS, margin=-1.0),
            ValueError,
            "margin: expected 0 or more",
        ),
        (lambda p: p.siamese_reasoning(SCORES, FEATURES[0], LABELS), ValueError, "features: expec"),
        (lambda p: p.siamese_reasoning(SCORES, FEATURES, LABELS[0]), ValueError, "labels: expect"),
        (lambda p: p.siamese_reasoning(SCORES, FEATURES, LABELS + 9), ValueError, "labels: expe"),
        (
            lambda p: p.siamese_reasoning(SCORES, FEATURES, LABELS, alpha=-0.1),
            ValueError,
            "alpha: expected 0 or more",
        ),
        (
            lambda p: p.siamese_reasoning(SCORES, FEATURES, LABELS, task="count"),
            ValueError,
            "task: expected",
        ),
        (
            lambda p: p.siamese_reasoning(SCORES, FEATURES, LABELS, label_kind="two_step"),
            ValueError,
            "label_kind: expected",
        ),
        (
            lambda p: p.siamese_reasoning(SCORES, FEATURES, LABELS, label_kind="walk", w1=W1),
            ValueError,
            "w1, w2: expected None",
        ),
        (
            lambda p: p.siamese_reasoning(SCORES, FEATURES, LABELS, label_kind="walk", omega=1.0),
            ValueError,
            "omega: expected a number in [0, 1)",
        ),
        (
            lambda p: p.siamese_reasoning(SCORES, FEATURES, LABELS, where=NO_ANCHOR),
            ValueError,
            "where: expected every anchor",
        ),
    ],
    ids=lambda case: case[:24] if isinstance(case, str) else "",
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call(propagation)
