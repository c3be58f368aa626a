"""What experiments share: claims, provenance, data splits, and the reproduction page."""

import json
import time
import types
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import pyarrow.parquet as pq
import pytest

from experiments import data, reproduction, results
from jsoft import sweep

REPOSITORY = Path(__file__).parents[1]


def experiment(folder):
    """A smallest experiment of one table."""
    table = results.save(
        {"x": [1.0, 3.0]}, folder / "results.parquet", {"preset": "tiny"}, started=0
    )

    def summarise(tables):
        mean = tables["results"]["x"].to_numpy().mean()
        row = results.claim(
            "B1", "x|y", source="paper", expected="2", ours=str(mean), met=mean == 2
        )
        return {"claims": [row]}

    made = types.ModuleType("bounds")
    made.__file__ = "bounds.py"
    made.summarise, made.plot = summarise, lambda tables: plt.figure()
    return made, {"results": table}


def test_saved_table_carries_its_provenance_and_reads_back(tmp_path):
    started = time.perf_counter()
    table = results.save({"x": [1.0, 2.0]}, tmp_path / "results.parquet", {"a": 1}, started=started)
    noted = sweep.metadata(table)
    assert noted["config"] == {"a": 1}
    assert noted["runs"] == 2
    assert 0 <= noted["wall_seconds"] < 60
    assert {"device", "date", "git_revision", "versions"} <= set(noted)
    again = results.read(tmp_path, {"a": 1})
    assert again["results"].equals(table)
    with pytest.raises(ValueError, match="a: expected 1 as in"):
        results.read(tmp_path, {"a": 2})
    with pytest.raises(ValueError, match="run without --plot-only first"):
        results.read(tmp_path / "elsewhere", {})
    (tmp_path / "surface.parquet.parts").mkdir()
    with pytest.raises(ValueError, match=r"surface\.parquet\.parts is not finished; run without"):
        results.read(tmp_path, {"a": 1})


def test_save_refuses_a_file_of_another_configuration(tmp_path):
    path = tmp_path / "x.parquet"
    results.save({"x": [1.0]}, path, {"a": (1, 2)}, started=0)
    results.save({"x": [2.0]}, path, {"a": (1, 2)}, started=0)
    with pytest.raises(ValueError, match=r"x\.parquet holds results of another configuration"):
        results.save({"x": [3.0]}, path, {"a": (1, 3)}, started=0)
    assert pq.read_table(path)["x"].to_pylist() == [2.0]


def test_settled_figures_keep_to_six_digits():
    figure = plt.figure(figsize=(4, 3), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.3, 1])
    left.subplots().set(xlabel="x", ylabel="y", title="one")
    image = right.subplots().imshow(np.eye(3))
    right.colorbar(image)
    results._settle(figure, dpi=300)
    boxes = [left.bbox_relative, right.bbox_relative]
    boxes += [axes.get_position(original=True) for axes in figure.axes]
    settled = np.array([box.get_points() for box in boxes])
    np.testing.assert_array_equal(settled, settled.round(6))
    assert (settled >= 0).all()
    assert (settled <= 1).all()
    figure.draw_without_rendering()  # lays nothing out again
    again = [left.bbox_relative, right.bbox_relative]
    again += [axes.get_position(original=True) for axes in figure.axes]
    np.testing.assert_array_equal(settled, [box.get_points() for box in again])
    plt.close(figure)


def test_summary_adds_where_numbers_come_from(tmp_path):
    summary = results.write(*experiment(tmp_path), tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == summary
    assert summary["experiment"] == "bounds"
    assert summary["runs"] == {}  # rows of a table that no sweep made are no runs
    assert "[met] B1  x|y" in results.claim_lines(summary)
    assert results.timing_line(summary).endswith(f"on {summary['device']}")


@pytest.mark.parametrize(
    ("met", "smaller", "verdict"),
    [(True, False, "met"), (True, True, "met at smaller scale"), (False, True, "not met")],
)
def test_verdicts(met, smaller, verdict):
    row = results.claim(
        "B1", "c", source="paper", expected="", ours="", met=met, smaller_scale=smaller
    )
    assert row["verdict"] == verdict


def test_mean_and_spread_is_that_of_a_sample():
    values = [0.1, 0.2, 0.6]
    expected = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f} (3 seeds)"
    assert results.mean_and_spread(values) == expected
    assert results.mean_and_spread([0.5]) == "0.500 (1 seed)"


def test_splits_of_seeds_are_picked_inside_jit():
    sets = data.load_splits("digits", splits=2, rows=50)
    picked = jax.jit(lambda seed: data.pick(sets, seed).train.index)(5)
    np.testing.assert_array_equal(picked, sets[1].train.index)
    assert data.fingerprint(sets) != data.fingerprint(sets[:1])
    with pytest.raises(ValueError, match="rows: expected 1 … 1198, the training rows of digits"):
        data.load_splits("digits", rows=1199)
    with pytest.raises(ValueError, match="digits") as raised:
        data.load_splits("digitz")
    assert raised.value.__notes__ == ["The presets tiny and digits run without any data."]


def test_reproduction_page_lists_what_ran_and_what_did_not(tmp_path):
    for preset in ("digits", "tiny"):
        folder = tmp_path / "results" / "bounds" / preset
        folder.mkdir(parents=True)
        results.write(*experiment(folder), folder)
    reproduction.publish(tmp_path / "results", tmp_path / "docs")
    assert [path.name for path in (tmp_path / "docs" / "bounds").iterdir()] == ["digits"]
    page = reproduction.page(tmp_path / "docs")
    assert "x\\|y" in page
    not_run = len(reproduction.PAPER_SCALE)
    assert f"**{not_run} not run (needs an accelerator), 1 met.**" in page
    assert "(results/bounds/digits/figure.png)" in page
    assert "No results yet: Where students of candidate sets learn, Teachers" in page
    assert page.count("93.98 %") == 1


def test_committed_results_are_small_and_listed():
    for path in (REPOSITORY / "docs" / "results").rglob("*"):
        assert path.stat().st_size < 1_000_000, path
    for folder in (REPOSITORY / "docs" / "results").glob("*/*/"):
        assert folder.parent.name in reproduction.EXPERIMENTS
        assert (folder / "summary.json").exists(), folder
