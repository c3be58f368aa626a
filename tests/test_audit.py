import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from jsoft import certificates, indicators
from jsoft.audit import arithmetic, audit, counts, rows
from jsoft.audit.sample_size import rows_to_certify
from jsoft.label_kinds import Kind
from tests.audit_sets import (
    NAMES,
    advice_on,
    labels_of,
    probabilities,
    reference_margin,
    swapped,
    votes_of,
)

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "soft_labels"
DATA = Path(os.environ.get("JSOFT_SOFT_LABELS", SHARED))


# The slow reference: one row, one class, one k at a time, from the definitions.


def reference_membership(row, k):
    weights = []
    for value in row:
        above, equal = (row > value).sum(), (row == value).sum()
        weights.append(min(1.0, max(0.0, (k - above) / equal)))
    return np.array(weights)


def reference_degrees(values, labels, k):
    num_classes = values.shape[1]
    cells = np.full((num_classes, num_classes), np.nan)
    for y in np.unique(labels):
        cells[y] = np.mean([reference_membership(row, k) for row in values[labels == y]], axis=0)
    misses = [1 - reference_membership(row, k)[y] for row, y in zip(values, labels, strict=True)]
    off = np.where(np.eye(num_classes, dtype=bool), -1, np.nan_to_num(cells, nan=-1))
    return np.mean(misses), off.max(), np.unravel_index(off.argmax(), off.shape), cells


@pytest.mark.parametrize("kind", ["probabilities", "votes", "logits"])
def test_the_table_equals_a_loop_over_rows(kind):
    labels = labels_of(90, 5)
    values = {
        "probabilities": probabilities(labels, 5),
        "votes": votes_of(labels, 5),
        "logits": np.log(probabilities(labels, 5)),
    }[kind]
    found = audit(values, labels)
    assert found.kind == kind
    assert found.ks == (1, 2, 3, 4)
    for place, k in enumerate(found.ks):
        unreliability, ambiguity, _, cells = reference_degrees(values, labels, k)
        assert_allclose(found.degrees.unreliability[place], unreliability, atol=1e-12)
        assert_allclose(found.degrees.ambiguity[place], ambiguity, atol=1e-12)
        assert_allclose(found.labelled.frequencies[:, place], cells, atol=1e-12)
    assert_allclose(found.degrees.margin, 1 - found.degrees.unreliability - found.degrees.ambiguity)


@pytest.mark.parametrize("max_k", [2, 6])
@pytest.mark.parametrize("ties", [False, True])
def test_counts_are_those_of_indicators_and_certificates(max_k, ties):
    labels = labels_of(200, 7)
    values = (votes_of(labels, 7) if ties else probabilities(labels, 7)).astype(np.float32)
    found = counts.tally(values, labels, kind=Kind.LOGITS, max_k=max_k, block=100)
    measured = indicators.measure(values, labels, max_k=max_k)
    assert_allclose(found.tied / 200, measured.tied, rtol=1e-6)
    degrees = arithmetic.degrees(found.fractional, found.examples)
    assert_allclose(degrees.unreliability, measured.unreliability, atol=1e-6)
    assert_allclose(degrees.ambiguity, measured.ambiguity, atol=1e-6)
    assert_allclose(degrees.divergence, measured.divergence, atol=1e-6)
    off = ~np.eye(7, dtype=bool)
    for k in range(1, max_k + 1):
        pessimistic = np.asarray(indicators.pessimistic_sets(values, labels, k))
        for ours, theirs in zip(
            found.sets(k), certificates.count_sets(pessimistic, labels), strict=True
        ):
            assert_array_equal(ours, theirs)
        least = ~np.asarray(indicators.pessimistic_sets(-values, labels, 7 - k))
        surely = certificates.count_sets(least, labels).members
        assert_array_equal(found.sure[:, k - 1][off], surely[off])
        assert_array_equal(found.reachable[:, k - 1], surely.diagonal())
        first = np.asarray(indicators.membership(values, k, ties="first"))
        by_index = [first[labels == y].sum(axis=0) for y in range(7)]
        assert_array_equal(found.by_index[:, k - 1], by_index)


def test_mean_label_margin_equals_a_loop_over_classes():
    labels = labels_of(300, 5)
    values = probabilities(labels, 5, strength=0.3)
    found = audit(values, labels)
    expected = reference_margin(values, labels)
    assert_allclose(found.labelled.mean_margins.min(), expected, atol=1e-6)
    assert_allclose(found.to_json()["with_labels"]["mean_label_margin"], expected, atol=1e-6)


def test_limits_are_those_of_the_certificates_for_all_k_at_once():
    labels = labels_of(300, 4)
    values = votes_of(labels, 4).astype(np.float32)
    found = audit(values, labels, kind="votes", alpha=0.1)
    for place, k in enumerate(found.ks):
        interval = certificates.ambiguity_interval(values, labels, k, alpha=0.1 / 3)
        assert_allclose(found.labelled.limits.ambiguity[place], interval, rtol=1e-12)
        one = certificates.certify(values, labels, k, alpha=0.1 / 3)
        assert_allclose(
            found.labelled.limits.unreliability[place, 1], one.unreliability_limit, rtol=1e-12
        )
    low, high = found.labelled.limits.unreliability.T
    assert (low <= found.degrees.unreliability).all()
    assert (found.degrees.unreliability <= high).all()


@pytest.mark.parametrize("method", ["paper", "class_conditional", "paired"])
@pytest.mark.parametrize("k", [None, 2])
def test_the_certificate_is_that_of_certify(method, k):
    labels = labels_of(200, 5)
    values = probabilities(labels, 5)
    found = audit(values, labels, k=k)
    expected = certificates.certify(values, labels, k or range(1, 5), method=method)
    assert found.labelled.certificates[method].statement == expected.statement


def test_draws_are_all_counted_but_only_the_first_is_certified():
    labels = labels_of(120, 4)
    draws = np.stack([probabilities(labels, 4, seed=seed) for seed in range(3)], axis=1)
    found = audit(draws, labels)
    expected = certificates.certify_draws(draws, labels, range(1, 4), method="first_draw")
    assert found.labelled.certificate.statement == expected.statement
    pooled = audit(draws.reshape(-1, 4), np.repeat(labels, 3))
    assert_allclose(found.degrees.unreliability, pooled.degrees.unreliability, atol=1e-12)
    assert_array_equal(found.labelled.examples, np.bincount(labels))
    assert found.draws == 3
    assert "3 draws each" in found.text()


def test_candidate_sets_have_no_k():
    labels = labels_of(400, 5)
    rng = np.random.default_rng(0)
    sets = rng.random((400, 5)) < 0.2
    sets[np.arange(400), labels] = rng.random(400) < 0.95
    sets[~sets.any(axis=1), 0] = True
    found = audit(sets, labels)
    cells = np.stack([sets[labels == y].mean(axis=0) for y in range(5)])
    assert_allclose(found.degrees.unreliability[0], 1 - sets[np.arange(400), labels].mean())
    assert_allclose(found.degrees.ambiguity[0], np.where(np.eye(5), 0, cells).max())
    assert found.labelled.certificate.statement == certificates.certify_sets(sets, labels).statement
    assert found.to_json()["best_k"] is None
    assert "these candidate sets" in found.verdict
    assert "k =" not in found.text()
    assert found.to_json()["with_labels"]["student_loss"]["name"] == "membership_logistic_loss"


def test_ties_count_as_asked():
    values, labels = np.full((40, 4), 0.25), np.arange(40) % 4
    assert_allclose(audit(values, labels).degrees.unreliability, [0.75, 0.5, 0.25])
    assert_allclose(audit(values, labels, ties="first").degrees.ambiguity, [1, 1, 1])
    pessimistic = audit(values, labels, ties="pessimistic").degrees
    assert_allclose(pessimistic.unreliability + pessimistic.ambiguity, [2, 2, 2])


# The verdict.


def test_verdict_certified():
    values, labels = swapped(wrong=0)
    found = audit(values, labels, k=1)
    limit = certificates.certify(values.astype(np.float32), labels, 1)
    assert found.verdict == (
        "Learnable by top-1 sets, certified at 95 %: Δ + γ = 0.000, at most "
        f"{limit.unreliability_limit + limit.ambiguity_limit:.3f}, is below 1."
    )
    assert found.status == "certified"
    assert found.certified


def test_verdict_not_certified_says_how_many_rows_would_be():
    labels = labels_of(12, 4)
    values = np.eye(4)[labels]
    found = audit(values, labels)
    assert found.status == "learnable"
    assert not found.certified
    needed = found.labelled.rows_needed
    assert needed == 24  # six of each class, 2⁻⁶ < 0.05/3
    assert found.verdict.endswith(": about 12 more labelled rows would certify it.")
    assert audit(*[np.tile(x.T, 10).T for x in (values, labels)]).certified


def one_class_each(rng, labels, cells):
    """Return sets of one class, drawn by its frequency."""
    says = (rng.random((len(labels), 1)) > cells[labels].cumsum(axis=1)).sum(axis=1)
    return np.eye(len(cells), dtype=bool)[np.minimum(says, len(cells) - 1)]


def each_class_by_itself(rng, labels, cells):
    return rng.random((len(labels), len(cells))) < cells[labels]


def even_cells(num_classes, unreliability, wrong):
    return np.where(np.eye(num_classes, dtype=bool), 1 - unreliability, wrong)


@pytest.mark.parametrize(
    ("cells", "draw"),
    [
        (even_cells(3, 0.1, 0.05), one_class_each),
        (even_cells(4, 0.015, 0.005), one_class_each),  # so few rows that one more mistake matters
        (even_cells(10, 0.2, 0.2 / 9), one_class_each),
        (even_cells(3, 0.1, 0.2), each_class_by_itself),
        (even_cells(10, 0.2, 2.2 / 9), each_class_by_itself),
    ],
)
def test_rows_needed_are_certified_nine_times_in_ten(cells, draw):
    num_classes = len(cells)
    needed = rows_to_certify(cells, np.full(num_classes, 1 / num_classes), alpha=0.05)
    rng = np.random.default_rng(0)
    certified = 0
    for _ in range(200):
        labels = np.repeat(np.arange(num_classes), needed // num_classes)
        counted = certificates.count_sets(draw(rng, labels, cells), labels)
        certified += all(
            certificates.certify_counts(counted, method=method).certified
            for method in ("paper", "paired")
        )
    assert certified / 200 > 0.85  # 200 trials know a chance of 0.9 to 0.02


def test_rows_needed_agree_with_the_simulation_of_certificates():
    cells = even_cells(5, 0.3, 0.3 / 4)
    found = rows_to_certify(cells, np.full(5, 0.2), alpha=0.05)
    wanted = max(
        certificates.smallest_sample(
            0.3, jax.random.key(0), k=1, num_classes=5, num_trials=50, method=method
        )
        for method in ("paper", "paired")
    )
    assert 0.8 < found / wanted < 1.6


def test_no_number_of_rows_certifies_what_is_false():
    even = np.full(2, 0.5)
    assert rows_to_certify(even_cells(2, 0.4, 0.6), even, alpha=0.05) is None
    assert rows_to_certify(even_cells(2, 0.0, 0.0), np.array([1.0, 0.0]), alpha=0.05) is None
    lost = np.array([[1.0, 0.0], [0.3, 0.3]])  # Δ + γ < 1, and class 1 is class 0 as often
    assert rows_to_certify(lost, np.array([0.9, 0.1]), alpha=0.05) is None
    needed = rows_to_certify(even_cells(2, 0.1, 0.1), even, alpha=0.05)
    assert rows_to_certify(even_cells(2, 0.1, 0.1), even, alpha=0.05, at_most=needed // 2) is None


def test_verdict_names_the_class_that_is_lost():
    values, labels = swapped(wrong=0.8)
    found = audit(values, labels, classes=["a", "b", "c", "d"], k=1)
    assert found.status == "not_learnable"
    assert found.verdict.startswith(
        "Not learnable by top-1 sets: d is seen as c more often than as itself "
        "(80 % against 20 % of its 100 rows)"
    )
    assert found.to_json()["with_labels"]["student_loss"]["name"] == "none"
    assert "learns d as c" in found.text(width=500)


def test_a_lost_class_is_not_hidden_by_a_small_mean():
    labels = np.repeat(np.arange(10), [500] * 9 + [40])
    says = labels.copy()
    says[-24:] = 0  # class 9 is class 0 in 60 % of its rows, Δ is 24 in 4540
    found = audit(np.eye(10)[says], labels)
    assert found.degrees.margin[0] > 0.3
    assert found.labelled.certificate.certified
    assert not found.certified
    assert "class 9 is seen as class 0 more often than as itself" in found.verdict


def test_certified_only_if_no_class_may_be_lost():
    labels = np.repeat(np.arange(4), [600, 600, 600, 60])
    says = labels.copy()
    says[-31:] = np.arange(31) % 3  # class 3 as itself in 29 of 60 rows, as class 0 in 11
    says[-31:-11] = 0  # and now in 24
    found = audit(np.eye(4)[says], labels, k=1)
    assert found.labelled.certificate.certified
    assert not found.labelled.certificates["paired"].certified
    assert found.status == "learnable"
    assert found.verdict.startswith(
        "Learnable by top-1 sets on this sample: Δ + γ < 1 is certified at 95 %"
    )
    assert "but not that class 3 is seen as itself more often than as class 0" in found.verdict
    assert "of its 60 rows)." in found.verdict
    advice = advice_on(found, "more_rows")
    assert advice.text.startswith(f"Label about {advice.numbers['more']:,} more rows of class 3")
    more = audit(np.eye(4)[np.tile(says, 20)], np.tile(labels, 20), k=1)
    assert more.certified


def test_the_verdict_speaks_of_any_k_at_which_all_is_certified():
    labels = labels_of(400, 4)
    found = audit(probabilities(labels, 4, strength=3), labels)
    assert found.best == 0
    known = found.labelled
    sums = np.array([1.2, 0.7, 0.9])  # of the upper limits
    upper = np.stack([np.zeros(3), sums], axis=1)
    limits = arithmetic.Limits(unreliability=np.zeros((3, 2)), ambiguity=upper)

    def place(kept):
        classes_kept = {
            k: dataclasses.replace(one, certified=k in kept)
            for k, one in known.classes_kept.items()
        }
        altered = dataclasses.replace(known, limits=limits, classes_kept=classes_kept)
        return dataclasses.replace(found, labelled=altered)

    # Neither the best k nor that with the least sum, but the one that is certified altogether.
    assert (place({3}).place, place({3}).status) == (2, "certified")
    assert "The verdict speaks of k = 3" in place({3}).text(width=500)
    assert (place({2, 3}).place, place({2, 3}).status) == (1, "certified")
    assert (place({1}).place, place({1}).status) == (1, "learnable")
    assert (place(()).place, place(()).status) == (1, "learnable")
    assert "verdict speaks" not in found.text(width=500)


def test_a_loss_that_may_be_chance_is_one_of_this_sample():
    labels, place = np.arange(200) % 20, np.arange(200) // 20
    says = np.where(place < 9, labels, 0)
    says[(labels == 7) & (place < 6)] = 8  # six of ten rows, by chance
    found = audit(np.eye(20)[says], labels, k=1)
    assert found.status == "not_learnable"
    assert not found.labelled.class_lost[0]
    assert found.verdict.startswith(
        "Not learnable by top-1 sets on this sample: class 7 is seen as class 8 more often"
    )
    assert advice_on(found, "more_rows").text.startswith("Label more rows of class 7")
    assert "Not good enough on this sample" in found.html()
    # The same shares in thirty times the rows are no chance.
    found = audit(np.eye(20)[np.tile(says, 30)], np.tile(labels, 30), k=1)
    assert found.labelled.class_lost[0]
    assert found.verdict.startswith("Not learnable by top-1 sets: class 7 is seen as class 8")
    assert "Not good enough to learn from" in found.html()


def test_the_class_named_is_one_of_which_it_is_sure():
    labels = np.repeat([0, 1, 2], [500, 500, 3])
    says = labels.copy()
    says[:300] = 1  # class 0 is class 1 in 300 of 500 rows
    says[-3:] = 1  # class 2 in all three
    found = audit(np.eye(3)[says], labels, k=1)
    assert found.degrees.class_pair[0].tolist() == [2, 1]
    assert found.verdict.startswith("Not learnable by top-1 sets: class 0 is seen as class 1")


def test_lost_for_sure_is_the_paired_test_the_other_way_round():
    rng = np.random.default_rng(0)
    for hits in range(13):  # of twelve rows; the others say class 1, or hold both
        sets = np.zeros((12, 3), bool)
        sets[:hits, 0] = True
        sets[hits:, 1] = True
        counted = counts.tally(rng.permutation(sets), np.zeros(12, int), kind=Kind.SETS, max_k=1)
        lost = arithmetic.lost_for_sure(
            counted.sure, counted.reachable, counted.examples, alpha=0.05
        )
        p_value = stats.binomtest(12 - hits, 12, alternative="greater").pvalue
        assert lost.tolist() == [[0, 1] if p_value <= 0.05 / 6 else [-1, -1]]


def test_a_loss_is_certified_only_if_no_tie_could_undo_it():
    labels = np.zeros(60, int)
    ahead = np.tile([[1.0, 2.0, 0.0]], (60, 1))  # class 1 is first, class 0 second
    tied = np.tile([[2.0, 2.0, 0.0]], (60, 1))
    for values, lost in ((ahead, True), (tied, False)):
        found = audit(values, labels, kind="logits", ties="first", k=1).labelled
        assert found.class_lost[0] == lost


@pytest.mark.parametrize("num_classes", [2, 3, 6, 7, 11])
def test_rows_that_prefer_nothing_promise_nothing(num_classes):
    labels = np.arange(20 * num_classes) % num_classes
    found = audit(np.full((len(labels), num_classes), 1 / num_classes), labels)
    assert found.status == "not_learnable"
    assert_array_equal(found.degrees.margin, 0)
    assert_array_equal(found.degrees.class_margin, 0)
    assert_array_equal(found.degrees.divergence, 0)
    assert_array_equal(found.labelled.mean_margins, 0)
    assert "no less often than as itself" in found.verdict
    assert "not below 1" in audit(np.full((9, num_classes), 1 / num_classes)).verdict


def test_calibrated_labels_that_lose_a_class_are_told():
    kinds = [[0.6, 0.4, 0.0], [0.0, 0.6, 0.4], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    rows = np.repeat(kinds, [50, 25, 200, 200], axis=0)  # of class 1, 15 for it and 20 for 0
    found = audit(rows, k=1)
    assert "below 1, but class 1 is seen as class 0 at least as often as itself." in found.verdict
    assert "lose a class" in found.advice[0].text


def test_a_given_k_is_told_for_what_it_is():
    values, labels = swapped(wrong=0.6)
    values = values + 0.5 * np.eye(4)[labels] + [0.04, 0.03, 0.02, 0.01]
    found = audit(values, labels, kind="logits", k=1, max_k=3)
    words = found.text(width=500)
    assert "k was given as 1, where class 3 is seen as class 2 at least as often as itself" in words
    assert "At every k looked at" not in words
    assert "for each k by itself" in found.html()


def test_half_floats_are_the_numbers_they_hold():
    labels = labels_of(300, 5)
    values = probabilities(labels, 5).astype(np.float16)
    halves, floats = audit(values, labels), audit(values.astype(np.float32), labels)
    for name in ("unreliability", "ambiguity", "class_margin"):
        assert_array_equal(getattr(halves.degrees, name), getattr(floats.degrees, name))
    assert halves.verdict == floats.verdict
    assert_array_equal(halves.labelled.mean_labels, floats.labelled.mean_labels)


def test_the_verdict_moves_to_no_k_at_which_a_class_is_lost():
    # At k = 1 Δ + γ < 1 is certified and class 3 lost; at k = 2 no class is, by two rows.
    labels = np.repeat(np.arange(4), [500, 500, 500, 30])
    first, second = labels.copy(), (labels + 1 + np.arange(1530) % 2) % 4
    second[:500] = np.where(np.arange(500) < 2, 2, 1)
    first[-30:], second[-30:] = np.arange(30) % 2, 3
    scores = np.eye(4)[first] + 0.5 * np.eye(4)[second] + [0.01, 0.02, 0.03, 0.04]
    found = audit(scores, labels, kind="logits", max_k=2)
    assert found.best == 1
    assert not found.is_below_one(1)
    assert found.labelled.certificate.k == 1
    assert found.degrees.class_margin[0] <= 0
    assert found.place == found.best
    assert not found.certified
    assert found.to_json()["verdict_k"] == 2


def test_small_numbers_are_worded_as_such():
    labels = np.array([0] * 40 + [1] * 40 + [2])
    says = np.where(labels == 2, 0, labels)
    found = audit(np.eye(3)[says], labels, k=1, classes=["a", "b", "c"], alpha=1e-9)
    assert "of its 1 row)" in found.verdict
    assert "99.9999999 %" in found.text(width=500)
    keep = [True] * 80 + [False]
    as_array = audit(np.eye(3)[says], labels, where=np.array(keep))
    assert audit(np.eye(3)[says], labels, where=keep).verdict == as_array.verdict


def test_superset_loss_only_for_candidate_sets_and_no_limit_for_unseen_classes():
    labels = labels_of(200, 3)
    values = np.eye(3)[labels]
    assert "superset" not in audit(values, labels, kind="probabilities").text(width=500)
    told = audit(values.astype(bool), labels).text(width=500)
    assert "jsoft.superset_log_loss; in no labelled row does a set miss the truth" in told
    assert "if errors depend on the class alone" in told
    unseen = audit(np.eye(4)[labels], labels).text(width=500)
    assert "in every class with labelled rows the labels prefer the truth" in unseen
    assert "if errors depend" not in unseen


def test_no_promise_but_no_lost_class_either():
    # Class 0 comes with class 1 in 90 % of its sets, the others are missed in half of theirs.
    labels, place = np.arange(400) % 4, np.arange(400) // 4
    sets = np.zeros((400, 4), bool)
    sets[np.arange(400), labels] = (labels == 0) | (place < 50)
    sets[:, 1] |= (labels == 0) & (place < 90)
    missed = np.flatnonzero(~sets.any(axis=1))
    sets[missed, (labels[missed] + 1 + place[missed] % 3) % 4] = True  # 17 or fewer of each other
    found = audit(sets, labels)
    assert_allclose(found.degrees.unreliability, 0.375)
    assert_allclose(found.degrees.ambiguity, 0.9)
    assert_allclose(found.degrees.class_margin, 0.1)
    assert found.status == "not_learnable"
    assert found.verdict.startswith(
        "Not shown to be learnable by these candidate sets: Δ + γ = 1.2"
    )
    loss = found.to_json()["with_labels"]["student_loss"]
    assert loss["name"] == "membership_logistic_loss"
    assert "Δ + γ is not below 1, but every class is in its own sets more often" in loss["reason"]
    assert "do not separate" not in found.text(width=500)
    assert "Not shown to be good enough" in found.html()


def test_a_class_without_rows_is_told():
    labels = labels_of(200, 3)
    values = np.eye(4)[labels]
    found = audit(values, labels)
    assert found.status == "learnable"
    assert "class 3 has no labelled row" in found.verdict
    assert found.advice[0].topic == "missing_classes"
    assert found.labelled.rows_needed is found.labelled.rows_needed_k is None
    assert_array_equal(np.isnan(found.labelled.mean_labels).all(axis=1), [0, 0, 0, 1])


# What must not matter.


def same(a, b):
    a, b = a.to_json(), b.to_json()
    for found in (a, b):
        for one in (found["with_labels"] or {}).get("doubtful_rows", []):
            del one["row"]
    return a == b


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ties", ["fractional", "pessimistic"])
def test_equal_shares_stay_equal_in_any_order_of_rows(ties, seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(5), 6)
    values = rng.permuted(np.tile([3, 1, 1, 1, 0], (30, 1)), axis=1)  # ties of three everywhere
    order = rng.permutation(30)
    one, other = (audit(values[rows], labels[rows], ties=ties) for rows in (np.arange(30), order))
    a, b = one.to_json(), other.to_json()
    for found in (a, b):  # of equally doubtful rows, the lower go first
        del found["with_labels"]["doubtful_rows"]
    assert a == b


@pytest.mark.parametrize("kind", ["probabilities", "votes"])
def test_row_order_does_not_matter(kind):
    labels = labels_of(300, 6)
    values = probabilities(labels, 6) if kind == "probabilities" else votes_of(labels, 6)
    order = np.random.default_rng(5).permutation(300)
    one, other = audit(values, labels), audit(values[order], labels[order])
    a, b = one.to_json(), other.to_json()
    doubtful = [found["with_labels"].pop("doubtful_rows") for found in (a, b)]
    assert a == b
    if kind == "probabilities":  # votes tie, and the lower row goes first
        assert [order[row["row"]] for row in doubtful[1]] == [row["row"] for row in doubtful[0]]


def test_a_sample_of_rows_does_not_depend_on_their_order(monkeypatch):
    monkeypatch.setattr("jsoft.audit.core._SAMPLE", 0)  # 2000 rows, the least
    labels = labels_of(5000, 4)
    values = votes_of(labels, 4)  # a few hundred different rows
    order = np.random.default_rng(5).permutation(5000)
    one, other = audit(values, labels), audit(values[order], labels[order])
    assert one.unlabelled.sampled == 2000
    a, b = one.to_json(), other.to_json()
    for found in (a, b):  # votes tie, and the lower row goes first
        del found["with_labels"]["doubtful_rows"]
    assert a == b


def test_block_size_does_not_matter():
    labels = labels_of(100, 5)
    values = votes_of(labels, 5)
    whole = counts.tally(values, labels, kind=Kind.VOTES, max_k=3)
    pieces = counts.tally(values, labels, kind=Kind.VOTES, max_k=3, block=35)
    for name in ("fractional", "by_index", "possible", "sure", "both", "label_sums"):
        assert_allclose(getattr(whole, name), getattr(pieces, name), atol=1e-12)
    assert whole.doubtful == pieces.doubtful


def test_class_order_permutes_the_tables():
    labels = labels_of(300, 5)
    values = votes_of(labels, 5)
    order = np.array([3, 0, 4, 1, 2])  # new class j is old class order[j]
    old, new = audit(values, labels), audit(values[:, order], np.argsort(order)[labels])
    assert_allclose(new.degrees.unreliability, old.degrees.unreliability, atol=1e-12)
    assert_allclose(new.degrees.ambiguity, old.degrees.ambiguity, atol=1e-12)
    moved = old.labelled.frequencies[order][:, :, order]
    assert_allclose(new.labelled.frequencies, moved, atol=1e-12)
    assert_allclose(new.labelled.mean_margins, old.labelled.mean_margins[order], atol=1e-6)


def test_rows_left_out_and_unknown_labels_do_not_count():
    labels = labels_of(200, 4)
    values = probabilities(labels, 4)
    keep = np.arange(200) < 150
    part = audit(values[:150], labels[:150])
    assert same(part, audit(values, labels, where=keep))
    damaged = values.copy()
    damaged[150:] = np.nan
    assert same(part, audit(damaged, np.where(keep, labels, 99), where=keep))
    unknown = audit(values, np.where(keep, labels, -1))
    assert_allclose(unknown.degrees.unreliability, part.degrees.unreliability)
    assert unknown.rows == 200
    assert "200 rows" in unknown.text()
    assert "150 with a true label" in unknown.text()


def test_a_memory_map_gives_the_same(tmp_path):
    labels = labels_of(200, 4)
    values = probabilities(labels, 4)
    np.save(tmp_path / "values.npy", values)
    assert same(
        audit(values, labels), audit(np.load(tmp_path / "values.npy", mmap_mode="r"), labels)
    )


def test_random_rows_are_random_and_halves_are_halves():
    values = np.eye(2)[np.zeros(4000, int)]  # all the same row
    fingerprint = rows.fingerprints(values)
    chosen, first = rows.random_rows(fingerprint, np.zeros(4000, int), np.arange(4000), 1000)
    assert len(set(chosen.tolist())) == 1000
    assert 400 < first.sum() < 600  # 6 standard deviations
    assert rows.num_repeated(fingerprint) == 3999


def test_different_rows_of_round_numbers_have_different_fingerprints():
    assert rows.num_repeated(rows.fingerprints(np.eye(1000))) == 0
    assert rows.num_repeated(rows.fingerprints(np.eye(1000, dtype=np.float32))) == 0


# Without labels.


def test_without_labels_the_calibrated_case_is_told():
    labels = labels_of(300, 4)
    values = probabilities(labels, 4)
    found = audit(values)
    assert found.status == "unknown"
    assert found.labelled is None
    assert not found.certified
    top = values.max(axis=1).mean()
    assert_allclose(found.unlabelled.top_probability, top, rtol=1e-6)
    assert_allclose(found.degrees.unreliability[0], 1 - top, rtol=1e-5)
    cell = values[values.argmax(axis=1) == 2, 1].sum() / values[:, 1].sum()
    assert_allclose(found.unlabelled.cells[1, 0, 2], cell, rtol=1e-5)
    assert "not known without true labels" in found.verdict
    assert "if they are calibrated" in found.verdict
    needed = found.advice[0].numbers["rows_needed"]
    assert 10 < needed < 10_000
    assert found.to_json()["with_labels"] is None


def test_without_labels_sets_ties_and_repeated_rows_are_told():
    sets = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0]], bool)
    found = audit(sets)
    assert found.unlabelled.set_sizes == (1, 2, 3)
    assert found.unlabelled.repeated == 1
    assert_allclose(found.unlabelled.constant, 0.25)
    words = " ".join(found.text().split())
    assert "Sets hold 1 to 3 classes" in words
    assert "1 rows" not in words
    votes = audit(np.array([[2, 2, 0], [3, 1, 0]]))
    assert_allclose(votes.unlabelled.tied, [0.5, 0])


# Text, JSON, report.


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("labelled", [True, False])
def test_no_line_is_wider_than_the_terminal(width, labelled):
    labels = labels_of(500, 10)
    values = probabilities(labels, 10)
    found = audit(values, labels if labelled else None, classes=NAMES)
    lines = found.text(width=width).split("\n")
    assert max(map(len, lines)) <= width
    assert "\x1b" not in found.text(width=width)
    assert "\x1b[" in found.text(width=width, color=True)
    assert "\u00a0" not in found.text(width=width)


def test_text_says_all_of_it():
    labels = labels_of(500, 10)
    found = audit(probabilities(labels, 10), labels, classes=NAMES)
    words = found.text(width=200)
    for part in (found.verdict, "500 rows × 10 classes", "μ =", "Student loss", "α/9", "Advice"):
        assert part in words
    assert str(found) == found.text()
    assert "500 rows" in repr(found)
    assert found.verdict in repr(found)


def test_many_k_are_cut_to_those_worth_showing():
    labels = labels_of(300, 40)
    found = audit(probabilities(labels, 40), labels, max_k=39)
    lines = found.text().split("\n")
    assert "  …" in lines
    assert len(lines) < 70


def keys(found):
    if isinstance(found, dict):
        return {name: keys(value) for name, value in found.items()}
    return None


def test_json_is_plain_and_its_keys_are_these():
    labels = labels_of(200, 4)
    found = audit(probabilities(labels, 4), labels, classes=["a", "b", "c", "d"])
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert sorted(told) == [
        "advice", "alpha", "best_k", "certified", "classes", "draws", "k_considered", "kind",
        "labelled_rows", "rows", "schema_version", "status", "ties", "top_k", "verdict",
        "verdict_k", "versions", "with_labels", "without_labels",
    ]  # fmt: skip
    assert sorted(told["top_k"][0]) == [
        "ambiguity", "ambiguity_limits", "class_lost", "class_margin", "class_margin_pair",
        "divergence", "k", "margin", "tied", "unreliability", "unreliability_limits", "worst_pair",
    ]  # fmt: skip
    assert sorted(told["with_labels"]) == [
        "ambiguity_matrix", "certificates", "classes", "doubtful_rows", "mean_label_margin",
        "mean_labels", "rows_needed", "rows_needed_k", "student_loss", "worst_pairs",
    ]  # fmt: skip
    assert sorted(told["advice"][0]) == ["held_out", "numbers", "text", "topic"]
    assert told["schema_version"] == 1
    assert told["top_k"][0]["unreliability"] == pytest.approx(found.degrees.unreliability[0])


def test_json_of_a_class_without_rows_has_no_nan():
    labels = labels_of(90, 3)
    told = audit(np.eye(4)[labels], labels).to_json()
    json.dumps(told, allow_nan=False)
    assert told["with_labels"]["classes"][3]["unreliability"] is None
    assert told["with_labels"]["ambiguity_matrix"][3] == [None] * 4


TAGS = ['<script>alert("1")</script>', "<img src=x onerror=alert(2)>", "a & b", "'\"></td>"]


@pytest.mark.parametrize("labelled", [True, False])
def test_the_report_escapes_every_word_of_a_user(labelled):
    labels = labels_of(200, 4)
    values, command = probabilities(labels, 4), "jsoft audit '<b>'"
    found = audit(values, labels if labelled else None, classes=TAGS)
    for html in (found.html(command), found._repr_html_()):
        assert "<script>alert" not in html
        assert "<img" not in html
        assert "<b>" not in html
        assert "a & b" not in html
        assert "'\"></td>" not in html
        assert "&lt;script&gt;" in html
    assert "jsoft audit &#39;&lt;b&gt;&#39;" in found.html(command)


@pytest.mark.parametrize("num_classes", [2, 10, 300])
def test_the_report_is_one_small_page_that_loads_nothing(num_classes):
    labels = labels_of(3000, num_classes)
    html = audit(probabilities(labels, num_classes), labels).html()
    assert len(html.encode()) < 2_000_000
    for outside in ("http:", "https:", "//cdn", "src=", "@import", "url("):
        assert outside not in html
    assert html.startswith("<!DOCTYPE html>")
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    assert html.count("<script>") == 1


def test_the_report_holds_the_verdict_the_numbers_and_the_rows():
    labels = labels_of(500, 10)
    found = audit(probabilities(labels, 10), labels, classes=NAMES)
    html = found.html("jsoft audit x.npy").replace("\u00a0", " ")
    parts = ("Class by class", "Rows most worth a look", "Certificate", "jsoft audit x.npy")
    for part in (found.verdict, f"{found.degrees.unreliability[0]:.4f}", *parts):
        assert part.replace("<", "&lt;") in html
    assert html.count("<circle") == 9
    worst = found.labelled.doubtful[0]
    assert f"<td>{worst.row}</td>" in html
    assert "Class by class" not in audit(probabilities(labels, 10)).html()


def test_doubtful_rows_are_those_that_prefer_another_class_most():
    labels = labels_of(300, 5)
    values = probabilities(labels, 5)
    found = audit(values, labels).labelled.doubtful
    excess = values.max(axis=1) - values[np.arange(300), labels]
    assert [one.row for one in found] == np.argsort(-excess, kind="stable")[:20].tolist()
    assert found[0].says == values[found[0].row].argmax()
    assert_allclose(found[0].true_probability, values[found[0].row, found[0].true])


# Bad input.

GOOD = np.tile([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]], (4, 1))
TRUE = np.tile([0, 1, 2], 4)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"labels": TRUE[:5]}, ValueError, r"labels: expected shape \[12\].*got \[5\]"),
        ({"labels": TRUE.astype(float)}, TypeError, "labels: expected integer"),
        ({"labels": np.where(TRUE == 1, 3, TRUE)}, ValueError, "labels: row 1: .* 0 … 2.* got 3"),
        ({"labels": np.where(TRUE == 1, -2, TRUE)}, ValueError, "labels: row 1: .* got -2"),
        ({"labels": np.full(12, -1)}, ValueError, "labels: expected at least one"),
        ({"kind": "pictures"}, ValueError, "kind: expected one of probabilities.*'pictures'"),
        ({"kind": "sets"}, ValueError, "row 0, column 0: expected sets of 0 and 1"),
        ({"classes": ["a", "b"]}, ValueError, "classes: expected 3 names, got 2"),
        ({"classes": ["a", "b", "a"]}, ValueError, "classes: expected different names, got 'a'"),
        ({"classes": "abc"}, TypeError, "classes: expected 3 names"),
        ({"k": 3}, ValueError, "k: expected 1 … 2"),
        ({"k": 0}, ValueError, "k: expected 1 or more"),
        ({"max_k": 3}, ValueError, "max_k: expected 1 … 2"),
        ({"k": 2, "max_k": 1}, ValueError, "k: expected 1 or less, which is max_k, got 2"),
        ({"k": 1.5}, TypeError, "k: expected a whole number"),
        ({"alpha": 0.0}, ValueError, r"alpha: expected a number in \(0, 1\)"),
        ({"ties": "random"}, ValueError, "ties: expected one of fractional, first, pessimistic"),
        ({"where": np.zeros(12, bool)}, ValueError, "where: expected at least one row"),
        ({"where": np.ones(5, bool)}, ValueError, "where: expected booleans of shape"),
    ],
)
def test_bad_arguments_are_told(arguments, error, words):
    with pytest.raises(error, match=words):
        audit(GOOD, **{"labels": TRUE, **arguments})


def test_sets_take_no_k():
    with pytest.raises(ValueError, match="k: expected None for candidate sets"):
        audit(GOOD > 0.25, TRUE, k=1)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (np.array([[0.7, 0.3]]), np.array([0])),  # one row
        (np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]), np.array([0, 0])),  # one class, C > N
        (np.full((6, 2), 0.5), np.array([0, 1] * 3)),  # nothing but ties
        (np.eye(5)[[1, 2, 3]], np.array([2, 3, 1])),  # all wrong
        (np.array([[1e30, -1e30], [0.0, -1e-30]]), np.array([0, 1])),  # distant logits
    ],
)
def test_extremes_give_a_page_a_text_and_json(values, labels):
    for truth in (labels, None):
        found = audit(values, truth)
        json.dumps(found.to_json(), allow_nan=False)
        assert found.verdict in found.text(width=1000)
        assert found.html().startswith("<!DOCTYPE html>")


# Real labels.


def real(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no {name}: JSOFT_SOFT_LABELS names its folder")
    return np.load(path)


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("cifar10_test_pyx.npy", {1: (0.0706, 0.0780, "cat", "dog"),
                                  2: (0.0224, 0.7920, "truck", "automobile")}),
        ("cifar10h_counts.npy", {1: (0.00785, 0.0180, "deer", "horse"),
                                 2: (0.00084, 0.3995, "truck", "automobile")}),
    ],
)  # fmt: skip
def test_known_figures_of_cifar10(name, figures):
    found = audit(real(name), real("cifar10_test_labels.npy").astype(int), classes=NAMES)
    for k, (unreliability, ambiguity, true, wrong) in figures.items():
        assert found.degrees.unreliability[k - 1] == pytest.approx(unreliability, abs=5e-5)
        assert found.degrees.ambiguity[k - 1] == pytest.approx(ambiguity, abs=5e-5)
        assert [found.classes[j] for j in found.degrees.worst_pair[k - 1]] == [true, wrong]
    assert found.certified


def test_known_figures_of_cifar10n():
    archive = real("cifar10n_train.npz")
    votes = np.stack([archive[f"random{person}"] for person in (1, 2, 3)])
    found = audit(np.eye(10, dtype=int)[votes].sum(axis=0), archive["clean"].astype(int))
    assert found.degrees.unreliability[0] == pytest.approx(0.08821, abs=5e-6)
    assert found.degrees.ambiguity[0] == pytest.approx(0.0778, abs=5e-5)
    assert found.degrees.worst_pair[0].tolist() == [3, 5]


@pytest.mark.slow
def test_a_million_rows_stay_under_a_gigabyte(tmp_path):
    path = str(tmp_path / "x.npy")
    code = f"""
import resource
import numpy as np
from jsoft.audit import audit
values = np.lib.format.open_memmap({path!r}, "w+", np.float32, (1_000_000, 100))
rng = np.random.default_rng(0)
labels = rng.integers(0, 100, 1_000_000)
for start in range(0, 1_000_000, 10_000):
    block = rng.random((10_000, 100), dtype=np.float32)
    block[np.arange(10_000), labels[start : start + 10_000]] += 0.5
    values[start : start + 10_000] = block / block.sum(axis=1, keepdims=True)
del values
found = audit(np.load({path!r}, mmap_mode="r"), labels)
assert found.certified
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1_000_000  # kilobytes
