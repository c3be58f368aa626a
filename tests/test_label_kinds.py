"""What soft labels are: detection, checks with their places, conversions."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jsoft
from jsoft import label_kinds
from jsoft.label_kinds import Kind, as_probabilities, as_scores, check, detect

RNG = np.random.default_rng(0)
PROBABILITIES = RNG.dirichlet(np.ones(4), 50)
LOGITS = 3 * RNG.normal(size=(50, 4))
VOTES = RNG.multinomial(5, np.ones(4) / 4, 50)
SETS = (RNG.random((50, 4)) < 0.5) | np.eye(4, dtype=bool)[RNG.integers(4, size=50)]
ONE_HOT = np.eye(4)[RNG.integers(4, size=50)]

CASES = {
    "probabilities": (PROBABILITIES, Kind.PROBABILITIES),
    "rounded probabilities": (PROBABILITIES.round(3), Kind.PROBABILITIES),
    "half precision": (PROBABILITIES.astype(np.float16), Kind.PROBABILITIES),
    "one-hot floats": (ONE_HOT, Kind.PROBABILITIES),
    "one-hot integers": (ONE_HOT.astype(np.uint8), Kind.PROBABILITIES),
    "logits": (LOGITS, Kind.LOGITS),
    "log-probabilities": (np.log(PROBABILITIES), Kind.LOGITS),
    "votes": (VOTES, Kind.VOTES),
    "votes as floats": (VOTES.astype(np.float32), Kind.VOTES),
    "unsigned votes": (VOTES.astype(np.uint8), Kind.VOTES),
    "big-endian": (VOTES.astype(">i4"), Kind.VOTES),
    "boolean sets": (SETS, Kind.SETS),
    "sets of 0 and 1": (SETS.astype(int), Kind.SETS),
    "boolean one-hot": (ONE_HOT.astype(bool), Kind.SETS),
    "draws of votes": (VOTES.reshape(10, 5, 4), Kind.VOTES),
    "draws of probabilities": (PROBABILITIES.reshape(10, 5, 4), Kind.PROBABILITIES),
    "one row": (PROBABILITIES[:1], Kind.PROBABILITIES),
}
# What has to be named may be any of these.
LEGAL = {
    Kind.PROBABILITIES: {*Kind} - {Kind.SETS},
    Kind.VOTES: {Kind.VOTES, Kind.LOGITS},
    Kind.LOGITS: {Kind.LOGITS},
    Kind.SETS: {Kind.SETS, Kind.VOTES, Kind.LOGITS},
}


@pytest.mark.parametrize(("values", "kind"), CASES.values(), ids=CASES.keys())
def test_kind_is_detected(values, kind):
    assert detect(values) is kind
    for other in LEGAL[kind]:
        check(values, other)


@pytest.mark.parametrize("name", ["probabilities", "logits", "votes", "sets of 0 and 1"])
def test_kind_and_place_of_an_error_do_not_depend_on_blocks(monkeypatch, name):
    values, kind = CASES[name]
    broken = values.astype(float)
    broken[37, 2] = np.nan
    for entries in (1, 12, 1 << 20):
        monkeypatch.setattr(label_kinds, "_BLOCK_ENTRIES", entries)
        assert detect(values) is kind
        with pytest.raises(ValueError, match="row 37, column 2: expected a finite number"):
            detect(broken)


def with_entry(values, place, value):
    changed = np.array(values, float)
    changed[place] = value
    return changed


BAD = {
    "NaN": (with_entry(PROBABILITIES, (3, 2), np.nan), "row 3, column 2: expected a finite"),
    "infinity": (with_entry(LOGITS, (4, 0), -np.inf), "row 4, column 0: expected a finite"),
    "beyond float32": (with_entry(LOGITS, (4, 1), 1e300), "row 4, column 1: expected a finite"),
    "huge sum of finite": (with_entry(LOGITS, slice(4, 5), 1.7e308), "row 4, column 0"),
    "a draw": (with_entry(VOTES.reshape(10, 5, 4), (6, 1, 3), np.nan), "row 6, draw 1, column 3"),
    "negative probability": (
        with_entry(PROBABILITIES, (7, 1), -0.2),
        r"row 7, column 1: expected probabilities, none below 0 .* got -0.2",
    ),
    "sum of a probability row": (
        with_entry(PROBABILITIES, slice(8, 9), 0.5),
        "row 8: expected probabilities that sum to one, got the sum 2",
    ),
    "zero row of probabilities": (with_entry(PROBABILITIES, slice(9, 10), 0), "row 9: .* sum 0"),
    "noise on probabilities": (
        PROBABILITIES + np.array([[0.5, -0.5, 0, 0]]),
        r"expected probabilities, none below 0",
    ),
    "negative votes": (with_entry(VOTES, (1, 1), -1), "row 1, column 1: expected votes 0 or more"),
    "nobody's vote": (with_entry(VOTES, slice(2, 3), 0), "row 2: expected one vote or more"),
    "empty set": (SETS & (np.arange(50) != 6)[:, None], "row 6: expected one class or more"),
    "weights": (
        PROBABILITIES * 2.5,
        "row 0: expected .* sum to one, got the sum 2.5; name the kind: votes",
    ),
    "one class": (np.ones((5, 1)), r"expected shape \[N, C\].*got \[5, 1\]"),
    "no rows": (np.ones((0, 3)), r"expected shape \[N, C\].*got \[0, 3\]"),
    "no draws": (np.ones((5, 0, 3)), r"got \[5, 0, 3\]"),
    "one axis": (np.ones(3), r"got \[3\]"),
}


@pytest.mark.parametrize(("values", "message"), BAD.values(), ids=BAD.keys())
def test_what_is_no_kind_is_refused_with_its_place(values, message):
    with pytest.raises(ValueError, match=message) as error:
        detect(values)
    assert str(error.value).startswith("soft_labels: ")


@pytest.mark.parametrize("values", [np.array([["a", "b"]]), np.ones((2, 2), complex), [[1, 2]]])
def test_what_are_no_numbers_is_refused(values):
    with pytest.raises(TypeError, match="soft_labels: expected an array of numbers or booleans"):
        detect(values)


def test_a_named_kind_is_checked():
    for kind, message in {
        Kind.PROBABILITIES: "row 0: expected probabilities that sum to one, got the sum 5",
        Kind.SETS: "expected sets of 0 and 1, got [2-5]",
    }.items():
        with pytest.raises(ValueError, match=message):
            check(VOTES, kind)
    with pytest.raises(ValueError, match="expected votes, none below 0"):
        check(LOGITS, Kind.VOTES)
    with pytest.raises(ValueError, match="expected sets of 0 and 1, got 0"):
        check(PROBABILITIES, Kind.SETS)
    check(PROBABILITIES * 100, Kind.VOTES)  # percentages
    check(LOGITS, "logits")
    with pytest.raises(ValueError, match="guesses"):
        check(LOGITS, "guesses")


@pytest.mark.parametrize("row", [0, 20, 49])
def test_rows_that_do_not_count_may_hold_anything(row):
    where = np.arange(50) != row
    broken = with_entry(PROBABILITIES, slice(row, row + 1), np.nan)
    assert detect(broken, where=where) is Kind.PROBABILITIES
    broken[(row + 1) % 50] = -1
    with pytest.raises(ValueError, match=f"row {(row + 1) % 50}, column 0"):
        detect(broken, where=where)


@pytest.mark.parametrize(
    "where", [np.ones(49, bool), np.ones(50), np.zeros(50, bool)], ids=["short", "float", "none"]
)
def test_bad_mask_is_refused(where):
    with pytest.raises(ValueError, match="where: expected"):
        detect(PROBABILITIES, where=where)


def test_probabilities_of_every_kind():
    def softmax(row):
        weights = [np.exp(x) for x in row]
        return [weight / sum(weights) for weight in weights]

    def shares(row):
        return [float(x) / sum(map(float, row)) for x in row]

    for values, kind, convert in [
        (PROBABILITIES, Kind.PROBABILITIES, list),
        (LOGITS, Kind.LOGITS, softmax),
        (VOTES, Kind.VOTES, shares),
        (SETS, Kind.SETS, shares),
    ]:
        got = as_probabilities(values, kind)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, [convert(row) for row in values], atol=1e-7)
        np.testing.assert_array_equal(
            as_probabilities(values.reshape(10, 5, 4), kind).reshape(50, 4), got
        )


def test_distant_logits_and_large_counts_stay_finite():
    logits = np.array([[1e4, 0, -1e4], [3e38, -3e38, 0]], np.float32)
    np.testing.assert_array_equal(as_probabilities(logits, Kind.LOGITS), [[1, 0, 0], [1, 0, 0]])
    half = np.array([[6e4, -6e4]], np.float16)
    np.testing.assert_array_equal(as_probabilities(half, Kind.LOGITS), [[1, 0]])
    many = np.full((1, 3), np.iinfo(np.int64).max)
    np.testing.assert_allclose(as_probabilities(many, Kind.VOTES), 1 / 3, rtol=1e-6)


@pytest.mark.parametrize(
    "values",
    [
        VOTES,
        SETS,
        LOGITS,
        10.0 ** -RNG.integers(30, 300, size=(50, 4)),
        2**60 + RNG.integers(3, size=(50, 4)),
        1 + RNG.integers(3, size=(50, 2, 4)) * 2.0**-50,
    ],
    ids=["votes", "sets", "logits", "tiny", "large integers", "near"],
)
def test_scores_keep_order_and_ties(values):
    scores = as_scores(values)
    assert scores.dtype == np.float32
    before = np.sign(values[..., None].astype(object) - values[..., None, :].astype(object))
    after = np.sign(scores[..., None] - scores[..., None, :])
    np.testing.assert_array_equal(after, before.astype(float))


def test_scores_of_tiny_probabilities_measure_right():
    tiny = np.array([[1.0, 1e-50, 1e-60], [1e-50, 1.0, 1e-60]])
    tied = jsoft.unreliability_degree(jnp.asarray(tiny, jnp.float32), jnp.array([2, 2]), 2)
    exact = jsoft.unreliability_degree(as_scores(tiny), jnp.array([2, 2]), 2)
    assert (float(tied), float(exact)) == (0.5, 1.0)


@pytest.mark.parametrize("shape", [(40, 6), (10, 4, 6)])
def test_ranks_are_those_of_scipy(shape):
    rng = np.random.default_rng(0)
    values = rng.choice([-0.0, 0.0, 1e-60, 1e-50, 0.1, 0.1 + 1e-12, -3.0], size=shape)
    expected = stats.rankdata(values, method="dense", axis=-1)
    np.testing.assert_array_equal(as_scores(values), expected)
