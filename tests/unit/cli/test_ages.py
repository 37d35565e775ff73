"""Ages as a person says them."""

from __future__ import annotations

import pytest

from k2.cli.ages import age, freshness


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (12.34, "12.3 s"),
        (59, "59.0 s"),
        (204, "3.4 min"),
        (3600, "1.0 h"),
        (86_400 * 1.5, "36.0 h"),
        (86_400 * 12, "12 days"),
        (400_761_857.3, "12.7 years"),
    ],
)
def test_an_age_is_said_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_a_newest_record_ahead_of_the_clock_is_not_old() -> None:
    assert freshness(-90) == ", newest record 1.5 min ahead of this clock"
    assert freshness(90) == ", newest record 1.5 min old"
    assert freshness(None) == ""
