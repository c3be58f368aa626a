"""The page across systems says what the systems' tables hold."""

import numpy as np
import pytest

from experiments import across_systems


@pytest.fixture(scope="module")
def found():
    return {name: labels() for name, labels in across_systems.SYSTEMS.items()}


def test_page_is_drawn_from_the_tables_in_the_repository(found):
    path = across_systems.DOCS / "indicators-across-systems.md"
    assert path.read_text(encoding="utf-8") == across_systems.page(found)


def test_every_set_of_labels_has_indicators_and_an_accuracy(found):
    assert len(found) == 9
    for labels in found.values():
        assert len({one.name for one in labels}) == len(labels) >= 3
        for one in labels:
            assert 0 <= round(one.unreliability, 6) <= 1
            assert 0 <= round(one.ambiguity, 6) <= 1
            assert -1 <= one.mean_label_margin <= 1
            assert 0.2 < one.relative < 1.3


def test_means_are_those_of_the_rows(found):
    table = across_systems.read("weighted_soft_labels")
    last = table["step"] == table["step"].max()
    here = last & (table["smoothing"] == 0) & (table["hard_weight"] == 1)
    here &= np.isclose(table["alpha"], 2.25) & np.isclose(table["corruption"], 0.2)
    one = next(one for one in found["Weighted soft labels"] if one.name == "20% wrong, KD")
    assert one.accuracy == pytest.approx(table["kd_test_accuracy"][here].mean())
    assert one.unreliability == pytest.approx(table["unreliability"][here].mean())
    assert here.sum() == 20


def test_an_indicator_that_stands_still_has_no_rank_correlation():
    labels = [across_systems.Labels(str(i), 0.1, 0.1, 0.5, 0.1 * i, 1.0) for i in range(5)]
    assert across_systems.rank_correlation(np.zeros(5), labels) is None
    assert across_systems.rank_correlation(np.arange(5.0), labels) == pytest.approx(1)
    assert labels[4].relative == pytest.approx(0.3 / 0.9)
