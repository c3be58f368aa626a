"""Partial labels from the command line to the figure, on the tiny preset, and what claims ask."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments import candidate_students, partial_labels
from jsoft import datasets, losses, networks, sweep, targets, training
from tests.experiment_runs import FILES, check_redraws, command


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("partial_labels")
    done = command("partial_labels", "--preset", "tiny", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def table(results):
    return pq.read_table(results[0] / "results" / "partial_labels" / "tiny" / "results.parquet")


def test_tiny_preset_writes_table_figure_and_summary(results, table):
    folder, printed = results
    out = folder / "results" / "partial_labels" / "tiny"
    assert {path.name for path in out.iterdir()} == FILES
    # sets of 3 among 10 classes have γ ≥ 2/9: half of their four cells do not exist
    assert table.num_rows == (4 + 2 + 4) * 4 * 2 + 2
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert summary["true_labels_accuracy"] > 0.5  # three epochs are far from chance
    sets_of_3 = summary["surfaces"]["fixed_size"]["superset"]["accuracy"]
    assert [row[0] for row in sets_of_3] == [None, None]
    assert "independent, superset; Spearman's ρ" in printed
    assert {claim["id"] for claim in summary["claims"]} == {"B5"}


def test_measured_levels_are_those_asked_for(table):
    rows = {name: table[name].to_numpy() for name in table.column_names}
    # 1198 rows: five standard errors of a share are 0.07
    np.testing.assert_allclose(rows["measured_unreliability"], rows["unreliability"], atol=0.07)
    # a maximum over 90 cells of 120 rows each, biased upwards
    excess = rows["measured_ambiguity"] - rows["ambiguity"]
    assert (excess > -0.05).all()
    assert (excess < 0.25).all()
    fixed = (rows["generator"] == 1) & (rows["loss"] != 4)
    assert (rows["mean_set_size"][fixed] == 3).all()


def test_a_row_can_be_run_again_by_hand(table):
    """A student of one candidate out of sets of three, from the values in its row alone."""
    names = sweep.metadata(table)["config"]["loss_names"]
    row = next(
        row
        for row in table.to_pylist()
        if (row["generator"], row["seed"]) == (1, 1)
        and names[row["loss"]] == "one_candidate"
        and row["unreliability"] > 0
    )
    data = datasets.load("digits")

    @jax.jit
    def train(unreliability, ambiguity):
        sets_key, one_key, student_key = jax.random.split(jax.random.key(row["seed"]), 3)
        sets = targets.candidate_sets(
            data.train.labels,
            sets_key,
            num_classes=10,
            unreliability=unreliability,
            ambiguity=ambiguity,
            generator="fixed_size",
            k=3,
        )
        drawn = jax.random.categorical(one_key, jnp.where(sets, 0.0, -jnp.inf))
        return training.fit(
            networks.MLP((128,), 10),
            losses.soft_cross_entropy,
            data.train.images,
            targets.one_hot(drawn, 10),
            data.valid,
            data.test,
            student_key,
            epochs=3,
            learning_rate=0.05,
            weight_decay=1e-3,
            nesterov=False,
        )

    student = train(jnp.float32(row["unreliability"]), jnp.float32(row["ambiguity"]))
    # rounding of 27 steps may move one of 300 test rows
    np.testing.assert_allclose(student["test_accuracy"], row["test_accuracy"], atol=0.0067)


def test_plot_only_redraws_the_same_files_without_training(results):
    check_redraws("partial_labels", *results)


def test_options_of_another_table_are_refused(results):
    config = dataclasses.replace(partial_labels.PRESETS["tiny"], epochs=4)
    folder = results[0] / "results" / "partial_labels" / "tiny"
    with pytest.raises(ValueError, match=r"another configuration \(epochs: 3 there, 4 now\)"):
        partial_labels.run(config, folder)


def test_a_student_that_diverged_leaves_the_summary_and_figure_whole(table):
    column = table.column_names.index("test_accuracy")
    accuracy = table["test_accuracy"].to_numpy().copy()
    accuracy[0] = np.nan  # one of two seeds in the first cell
    accuracy[2:4] = np.nan  # both in the second
    spoiled = table.set_column(column, "test_accuracy", pa.array(accuracy))
    summary = partial_labels.summarise({"results": spoiled})
    assert summary["diverged_students"] == 3
    first, second = summary["surfaces"]["independent"]["superset"]["accuracy"][0]
    np.testing.assert_allclose(first, accuracy[1], atol=1e-4)
    assert second is None
    json.dumps(summary, allow_nan=False)
    partial_labels.plot({"results": spoiled})


def test_raw_cross_entropy_on_the_soft_label_of_a_set_is_the_average_loss():
    rng = np.random.default_rng(0)
    sets = rng.random((200, 10)) < 0.4
    sets[:, 3] |= ~sets.any(axis=1)
    logits = jnp.asarray(rng.normal(size=(200, 10)), jnp.float32)
    np.testing.assert_array_equal(
        losses.soft_cross_entropy(logits, targets.uniform_over(sets)),
        losses.average_loss(logits, sets),
    )


def test_students_see_what_their_loss_is_about():
    labels = jnp.zeros(4000, int)
    sets = jnp.tile(jnp.array([False, True, True, False, True]), (4000, 1))

    def seen(name):
        number = jnp.int32(candidate_students.NUMBER[name])
        return np.asarray(candidate_students.seen_sets(number, sets, labels, jax.random.key(0)))

    for name in ("superset", "average", "membership"):
        np.testing.assert_array_equal(seen(name), sets)
    np.testing.assert_array_equal(seen("true_labels"), np.eye(5, dtype=bool)[labels])
    one = seen("one_candidate")
    assert (one.sum(axis=1) == 1).all()
    # each of three with chance 1/3; four standard errors
    np.testing.assert_allclose(one.mean(axis=0), sets[0] / 3, atol=0.03)


def test_a_traced_number_chooses_the_loss():
    sets = jnp.array([[True, False, True], [False, True, False]])
    logits = jnp.array([[0.3, -1.0, 0.2], [2.0, 0.1, 0.4]])
    names = list(candidate_students.LOSSES)

    @jax.jit
    def chosen(number):
        return candidate_students.student_loss(number)(logits, sets)

    for number, name in enumerate(names):
        expected = candidate_students.LOSSES[name](logits, sets)
        np.testing.assert_allclose(chosen(number), expected, rtol=1e-6)


@pytest.mark.parametrize("generator", partial_labels.GENERATORS)
def test_in_the_limit_the_true_class_comes_first_where_kappa_is_positive(generator):
    """What the module says of its grid, from the frequencies of 20,000 sets of one class."""
    k = 3 if generator == "fixed_size" else None
    draw = jax.jit(
        lambda unreliability, ambiguity: targets.candidate_sets(
            jnp.zeros(20_000, int),
            jax.random.key(0),
            num_classes=10,
            unreliability=unreliability,
            ambiguity=ambiguity,
            generator=generator,
            k=k,
        )
    )
    for x in partial_labels.LEVELS[0]:
        for y in partial_labels.LEVELS[1]:
            exists = targets.is_realisable(x, y, num_classes=10, generator=generator, k=k)
            if not exists or x + y > 0.99:
                continue
            sets, counts = np.unique(np.asarray(draw(x, y)), axis=0, return_counts=True)
            weights = counts[:, None] / counts.sum()
            superset = np.full(10, 0.1)
            for _ in range(300):  # EM for the p that maximises E log p(set)
                superset = (weights * sets * superset / (sets @ superset)[:, None]).sum(axis=0)
            average = (weights * sets / sets.sum(axis=1, keepdims=True)).sum(axis=0)
            membership = (weights * sets).sum(axis=0)
            for target in (superset, average, membership):
                # κ ≥ 0.2 here; frequencies of 20,000 are right to 0.011 (three standard errors)
                assert target[0] > target[1:].max() + 0.015, (x, y)


def _table(accuracies, config=partial_labels.PRESETS["digits"]):
    """A table of the config's points with accuracies by (generator, loss, Δ, γ, seed)."""
    points = partial_labels._points(config, 10)
    names = list(candidate_students.LOSSES)
    values = [
        accuracies(config.generators[g], names[n], round(float(x), 6), round(float(y), 6), s)
        for g, n, x, y, s in zip(*points.values(), strict=True)
    ]
    noted = {
        "config": {
            **json.loads(json.dumps(dataclasses.asdict(config), default=str)),
            "num_classes": 10,
            "loss_names": names,
        }
    }
    columns = {**points, "test_accuracy": values, "measured_ambiguity": points["ambiguity"]}
    return pa.table(columns).replace_schema_metadata({"jsoft": json.dumps(noted)})


def _as_on_the_prototype(generator, loss, unreliability, ambiguity, seed):
    if loss == "true_labels":
        return 0.966
    row = partial_labels.LEVELS[0].index(unreliability)
    column = partial_labels.LEVELS[1].index(ambiguity)
    return partial_labels.PROTOTYPE["superset" if loss == "superset" else "average"][row][column]


def _claims(table):
    return {
        claim["claim"]: claim for claim in partial_labels.summarise({"results": table})["claims"]
    }


def test_the_prototypes_own_table_meets_its_claims():
    claims = _claims(_table(_as_on_the_prototype))
    for start in ("accuracies of the superset", "accuracies of the average", "the exponent D"):
        claim = next(row for name, row in claims.items() if name.startswith(start))
        assert claim["verdict"] == "met", claim
    small = [row for row in claims.values() if row["source"] == "paper (secondary source)"]
    assert {row["verdict"] for row in small} == {"met at smaller scale"}
    assert "16 of 16 cells" in claims[next(iter(claims))]["ours"]
    # rank correlation of the table with D, as the prototype has it: 0.99
    assert "ρ = 0.990 with D, 0.928 with κ" in next(
        row["ours"] for name, row in claims.items() if name.startswith("the exponent D")
    )


def test_cells_away_from_the_prototype_are_named_and_not_met():
    def moved(generator, loss, unreliability, ambiguity, seed):
        value = _as_on_the_prototype(generator, loss, unreliability, ambiguity, seed)
        if (generator, loss, unreliability) != ("independent", "superset", 0.1):
            return value
        # 4 points, of which one cell's spread excuses it and the other's does not
        wide = 0.1 * (seed - 2) if ambiguity == 0.3 else 0.0
        return value - 0.04 * (ambiguity in (0.3, 0.5)) + wide

    claim = next(iter(_claims(_table(moved)).values()))
    assert claim["verdict"] == "not met"
    assert claim["ours"].startswith("15 of 16 cells, 14 of them within 3 points")
    assert "(0.1, 0.5): 0.870 ± 0.000, prototype 0.910" in claim["reason"]
    assert "(0.1, 0.3)" not in claim["reason"]


def test_a_rise_along_an_axis_is_not_met():
    def rising(generator, loss, unreliability, ambiguity, seed):
        value = _as_on_the_prototype(generator, loss, unreliability, ambiguity, seed)
        here = (generator, unreliability, ambiguity) == ("confuser", 0.3, 0.3)
        return value + 0.08 if here else value  # 0.925 instead of 0.845

    claim = next(row for name, row in _claims(_table(rising)).items() if "falls" in name)
    assert claim["verdict"] == "not met"
    # along γ, from 0.910; along Δ it still falls, from 0.940
    assert "the largest rise is 1.5 points" in claim["ours"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds: expected 1 or more, got 0"),
        ({"splits": 0}, "splits: expected 1 or more, got 0"),
        ({"losses": ()}, "losses: expected one or more"),
        ({"generators": ("confuser", "confuser")}, "generators: expected one or more, all differ"),
        ({"unreliability": (0.3, 0.1)}, "unreliability: expected growing levels"),
        ({"ambiguity": (0.5, 1.5)}, "ambiguity: expected growing levels in"),
        ({"k": 10}, "k: expected 1 … 9"),
        ({"rows": 5000}, "rows: expected 1 … 1198"),
        ({"dataset": "digitz"}, "digits"),
        ({"preset": "real"}, "sets: expected one .npz file or more"),
    ],
    ids=lambda case: str(case),
)
def test_bad_options_are_refused(options, message, tmp_path):
    config = dataclasses.replace(partial_labels.PRESETS["tiny"], **options)
    with pytest.raises(ValueError, match=message):
        partial_labels.run(config, tmp_path)


def test_a_file_of_images_with_two_losses_and_one_generator(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 4
    images = rng.random((240, 8, 8, 1), np.float32) + labels[:, None, None, None]
    np.savez(tmp_path / "set.npz", images=images.astype(np.float32) / 4, labels=labels)
    config = dataclasses.replace(
        partial_labels.PRESETS["cifar10-cpu"],
        data=tmp_path / "set.npz",
        rows=100,
        network="mlp",
        epochs=2,
        batch_size=32,
    )
    tables = partial_labels.run(config, tmp_path)
    assert tables["results"].num_rows == 4 * 2 + 1
    assert not np.isnan(tables["results"]["test_accuracy"].to_numpy()).any()
    assert len(partial_labels.plot(tables).axes) == 3
    summary = partial_labels.summarise(tables)
    assert list(summary["surfaces"]) == ["independent"]
    assert summary["true_labels_standard_deviation"] == 0  # a single seed
    json.dumps(summary, allow_nan=False)


@pytest.mark.slow
def test_the_superset_student_meets_the_prototype_on_digits(tmp_path):
    """The prototype's protocol with the losses of its table, five seeds."""
    config = dataclasses.replace(
        partial_labels.PRESETS["digits"],
        losses=("superset", "average"),
        generators=("independent",),
    )
    tables = partial_labels.run(config, tmp_path)
    grid = partial_labels.cells(tables["results"])
    for loss, values in partial_labels.PROTOTYPE.items():
        ours = partial_labels.surface(grid, "independent", loss)
        spread = partial_labels.surface(grid, "independent", loss, "spread")
        away = np.abs(ours - np.array(values))
        # The table's means of two seeds stray by 0.7 s.d., ours by 0.45: twice their difference,
        # or three points. Single cells of 32 may be outside, and (0.3, 0.5) is (see the claim).
        assert (away <= np.maximum(0.03, 2 * spread * np.sqrt(1 / 2 + 1 / 5))).sum() >= 14
        assert np.abs((ours - np.array(values)).mean()) < 0.03
    # 0.99 with many seeds; two cells of five seeds that change places cost a hundredth each
    assert partial_labels._rho(grid.of(loss="superset"), "divergence") > 0.95
