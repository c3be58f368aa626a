"""Advice: the advised thing is done, and the number is met."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from jsoft.audit import audit
from jsoft.audit.order import weights_in_sets
from jsoft.audit.relabel import rows_to_relabel
from jsoft.audit.trials import degrees_of, gain
from jsoft.label_kinds import Kind
from tests.audit_sets import (
    advice_on,
    labels_of,
    probabilities,
    reference_margin,
    swapped,
    votes_of,
)


def test_relabelling_as_advised_flips_the_verdict_and_one_row_less_does_not():
    values, labels = swapped(wrong=0.8)
    found = audit(values, labels, k=1)
    advice = advice_on(found, "relabel")
    count = advice.numbers["rows"]
    assert count == 31  # from 80 against 20 of a hundred to 49 against 51
    third = np.flatnonzero((labels == 3) & (values[:, 2] == 1))
    for rows_done, status in ((count, "not not_learnable"), (count - 1, "not_learnable")):
        done = values.copy()
        done[third[:rows_done]] = np.eye(4)[3]
        again = audit(done, labels, k=1)
        assert (again.status == "not_learnable") == (status == "not_learnable")
    done = values.copy()
    done[third[:count]] = np.eye(4)[3]
    sum_of = audit(done, labels, k=1).degrees
    assert_allclose(sum_of.unreliability[0] + sum_of.ambiguity[0], advice.numbers["after"])
    assert f"Relabel {count} rows" in advice.text
    assert "class 3 seen as class 2" in advice.text


def test_relabelling_for_larger_sets_is_what_it_says():
    labels = labels_of(300, 5)
    values = votes_of(labels, 5, people=3)
    weights = weights_in_sets(values, Kind.VOTES)(2)
    chosen, pairs = rows_to_relabel(weights, labels, 2, Kind.VOTES, budget=20, flip=False)
    assert len(chosen) == len(set(chosen.tolist())) == sum(pairs.values()) == 20
    done = values.astype(float)
    done[chosen] = np.eye(5)[labels[chosen]]
    before, after = (audit(x, labels, k=2, kind="votes").degrees for x in (values, done))
    assert after.margin[1] > before.margin[1]


def test_merging_as_advised_raises_the_divergence():
    labels = labels_of(2000, 4)
    values = probabilities(labels, 4, strength=4)
    swap = (labels == 1) & (np.arange(2000) % 3 == 0)
    values[swap] = values[swap][:, [0, 2, 1, 3]]
    found = audit(values, labels, k=1)
    advice = advice_on(found, "merge")
    assert {advice.numbers["first"], advice.numbers["second"]} == {"class 1", "class 2"}
    merged = np.stack([values[:, 0], values[:, 1] + values[:, 2], values[:, 3]], axis=1)
    after = audit(merged, np.array([0, 1, 1, 2])[labels], k=1).degrees.divergence[0]
    assert_allclose(advice.numbers["held_out"], after, atol=0.03)
    assert after > found.degrees.divergence[0] + 0.05


def test_setting_aside_as_advised_raises_the_divergence():
    values, labels = swapped(2000, wrong=0.45)
    found = audit(values, labels, k=1)
    advice = advice_on(found, "set_aside")
    assert advice.numbers["class"] == "class 3"
    rest = audit(values, labels, where=labels != 3, k=1).degrees.divergence[0]
    assert_allclose(advice.numbers["held_out"], rest, atol=1e-12)


def test_thresholds_as_advised_raise_the_divergence():
    rng = np.random.default_rng(0)
    labels = labels_of(3000, 5)
    values = np.full((3000, 5), 0.01)
    values[np.arange(3000), labels] = 0.5
    doubt = rng.random(3000) < 0.5  # two classes alike, the truth a little behind
    wrong = (labels + 1 + rng.integers(0, 4, 3000)) % 5
    values[doubt, wrong[doubt]] = 0.55
    found = audit(values, labels, kind="votes")
    advice = advice_on(found, "threshold")
    relative = values / values.max(axis=1, keepdims=True)
    sets = relative >= advice.numbers["threshold"]
    assert_allclose(
        advice.numbers["held_out"], audit(sets, labels).degrees.divergence[0], atol=0.03
    )
    assert advice.numbers["held_out"] > found.degrees.divergence[found.best]


def test_sharpening_as_advised_widens_the_mean_label_margin():
    labels = labels_of(2000, 4)
    flat = probabilities(labels, 4, strength=3) ** 0.2
    values = flat / flat.sum(axis=1, keepdims=True)
    found = audit(values, labels)
    advice = next(one for one in found.advice if one.topic in ("temperature", "truncate"))
    if advice.topic == "temperature":
        done = values ** (1 / advice.numbers["value"])
    else:
        kth = np.sort(values, axis=1)[:, -int(advice.numbers["value"]), None]
        done = np.where(values >= kth, values, 0)
    done = done / done.sum(axis=1, keepdims=True)
    after = reference_margin(done, labels)
    assert_allclose(advice.numbers["held_out"], after, atol=0.03)
    assert after > advice.numbers["before"]


def test_choice_of_k_is_judged_on_the_other_half():
    labels = labels_of(1000, 5)
    values = probabilities(labels, 5, strength=2.5)
    found = audit(values, labels)
    advice = advice_on(found, "choose_k")
    assert advice.numbers["k"] == found.ks[found.best]
    assert_allclose(advice.numbers["held_out"], found.degrees.divergence[found.best], atol=0.05)
    assert advice.held_out


def test_sharpening_does_not_promise_the_same_sets_where_it_cuts_them():
    labels = labels_of(600, 4)
    values = np.full((600, 4), 0.2)  # the truth is first, by less than it could be
    values[np.arange(600), labels] = 0.4
    values[np.arange(600), (labels + 1 + np.arange(600) % 3) % 4] = 0.3
    values = values / values.sum(axis=1, keepdims=True)
    for k, cuts in ((1, False), (2, True)):
        advice = advice_on(audit(values, labels, k=k), "truncate")
        assert advice.numbers["value"] == 1
        assert ("from the full rows" in advice.text) == cuts
        assert ("The order of classes stays" in advice.text) == (not cuts)


def test_relabelling_that_does_not_flip_the_other_half_says_so():
    rng = np.random.default_rng(0)
    said = set()
    for _ in range(20):
        labels = np.arange(80) % 4
        says = np.where((labels == 3) & (rng.random(80) < 0.8), 2, labels)
        found = audit(np.eye(4)[says], labels, k=1)
        for one in found.advice:
            if one.topic == "relabel" and "to flip the verdict" in one.text:
                # The first half's shares flip the second only if they suffice there.
                doubt = "does not flip the verdict there" in one.text
                said.add(doubt)
                assert doubt or one.numbers["held_out"] < 1
    assert said == {True, False}


def test_a_remedy_must_gain_on_both_halves():
    before = np.array([0.4, 0.4])
    assert gain(before, np.array([[0.1, 0.1], [0.6, 0.5]])) == pytest.approx((1, 0.4, 0.55))
    assert gain(before, np.array([[0.9, 0.3]])) is None  # one half loses
    assert gain(before, np.array([[0.405, 0.405]])) is None  # too little
    assert gain(before, np.array([[0.6, 0.5], [0.5, 0.6]])) is None  # the halves disagree
    assert gain(-before, np.array([[-0.1, -0.1]])) is None  # still no promise
    assert gain(-before, np.array([[0.3, -0.1]])) is None  # none on one half
    assert gain(-before, np.array([[0.005, 0.005]])) is None  # one worth nothing
    assert gain(-before, np.array([[0.005, 0.005]]), least=0) == pytest.approx((0, -0.4, 0.005))
    assert gain(before, np.array([[0.44, 0.44]]), least=0.05) is None


def test_ties_are_told_with_all_three_numbers():
    labels = labels_of(500, 4)
    values = votes_of(labels, 4, people=2)
    found = audit(values, labels, k=1)
    numbers = advice_on(found, "ties").numbers
    for ties in ("fractional", "first", "pessimistic"):
        degrees = audit(values, labels, k=1, ties=ties).degrees
        assert_allclose(numbers[ties], degrees.unreliability[0] + degrees.ambiguity[0])


def test_the_words_fit_the_numbers_of_rows():
    labels = labels_of(60, 3)
    found = audit(np.eye(3)[labels], labels)
    assert "1 rows" not in found.text()


def test_rows_to_label_are_told_with_their_k():
    labels = labels_of(60, 3)
    found = audit(np.eye(3)[labels], labels)
    assert found.labelled.rows_needed_k == 1
    assert "are enough to be certified at k = 1 at 95 %" in advice_on(found, "more_rows").text
    assert (
        audit(np.eye(3, dtype=bool)[labels], labels).to_json()["with_labels"]["rows_needed_k"]
        is None
    )


def test_columns_in_another_order_than_the_labels_are_found():
    labels = labels_of(600, 6)
    values = probabilities(labels, 6, strength=4)
    order = np.array([1, 2, 0, 3, 4, 5])
    found = audit(values[:, order], labels, classes=list("abcdef"))
    assert found.status == "not_learnable"
    advice = advice_on(found, "columns")
    assert "a is in the column of c, b is in the column of a, c is in the column of b, D" in (
        advice.text
    )
    right = audit(values, labels)
    assert_allclose(advice.numbers["held_out"], right.degrees.divergence[0], atol=0.05)
    assert "columns" not in {one.topic for one in right.advice}
    # A class that is lost is not one in another place.
    swap, truth = swapped(wrong=0.8)
    assert "columns" not in {one.topic for one in audit(swap, truth).advice}


def test_classes_without_rows_are_not_merged_into_others():
    labels = labels_of(900, 3)
    says = np.where((labels == 1) & (np.arange(900) % 5 < 2), 3, labels)
    found = audit(np.eye(4)[says], labels)  # class 3 has no labelled row
    assert found.degrees.ambiguity[0] > 0.3
    assert "merge" not in {one.topic for one in found.advice}


def test_what_was_tried_with_ties_at_random_says_so():
    labels = labels_of(600, 4)
    values = votes_of(labels, 4, people=3)
    for ties in ("fractional", "first"):
        found = audit(values, labels, ties=ties)
        tried = [one for one in found.advice if one.topic not in ("more_rows", "ties")]
        assert tried
        assert {one.text.endswith("(Ties at random here.)") for one in tried} == {ties == "first"}


def test_sharpening_asks_for_the_same_on_both_halves():
    before = np.array([0.2, 0.2])
    options = np.array([[0.3, 0.6], [0.6, 0.3]])  # one half each
    assert gain(before, options, least=0.05, share=0) is None
    assert gain(before, options[:1], least=0.05, share=0) == pytest.approx((0, 0.2, 0.45))


def test_fewest_rows_to_relabel_are_found_by_trying_all():
    rng = np.random.default_rng(0)
    tried = 0
    for _ in range(12):
        labels = rng.permutation(np.arange(9) % 3)
        says = np.where(rng.random(9) < 0.4, labels, (labels + 1) % 3)
        values = np.eye(3)[says]
        found = audit(values, labels, k=1)
        if found.status != "not_learnable":
            continue
        rows = advice_on(found, "relabel").numbers["rows"]
        fewest = next(
            count
            for count in range(10)
            if any(flips(values, labels, some) for some in itertools.combinations(range(9), count))
        )
        assert rows == fewest
        tried += 1
    assert tried > 5


def flips(values, labels, rows):
    rows = list(rows)
    done = values.copy()
    done[rows] = np.eye(3)[labels[rows]]
    found = degrees_of(done, labels)
    return min(found.margin[0], found.class_margin[0]) > 0
