"""The page of measured speeds says what the benchmarks wrote."""

import pytest

from benchmarks import page


def test_page_is_drawn_from_the_numbers_in_the_repository():
    assert page.PAGE.read_text(encoding="utf-8") == page.page(page.read())


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (page.Row("speed", "x", [14.0, 15.0, 99.0], least=15), True),
        (page.Row("speed", "x", [14.9, 14.9, 99.0], least=15), False),
        (page.Row("time", "x", [1.0, 1.1, 9.0], most=1.1), True),
        (page.Row("time", "x", [1.0, 1.11, 1.2], most=1.1), False),
    ],
)
def test_verdict_is_that_of_the_median(row, met):
    assert row.met is met
    table = page.draw([row])
    assert ("not met" in table) is not met
    assert ("≥ 15 ×" if row.least else "≤ 1.1 ×") in table


def test_spread_is_median_and_range():
    assert page.spread([3.0, 1.0, 2.0]) == "2.00 (1.00–3.00)"
