"""Open time: it passes in sessions only, whatever the clocks of the venue do."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from k2.ingestion.watching.open_hours import CLOSED, OpenHours

SYDNEY = ZoneInfo("Australia/Sydney")
HOUR_NS = 3_600_000_000_000
MORNING, AFTERNOON = (time(10), time(12)), (time(13), time(16))


def ns(*moments: datetime) -> np.ndarray:
    return np.array([int(moment.timestamp()) * 10**9 for moment in moments], np.int64)


def sydney(day: int, hour: int, month: int = 3) -> datetime:
    return datetime(2014, month, day, hour, tzinfo=SYDNEY)


def hours_between(hours: OpenHours, start: datetime, end: datetime) -> float:
    first, last = hours.at(ns(start, end)).open_ns
    return float(last - first) / HOUR_NS


@pytest.mark.parametrize(
    ("start", "end", "open_hours"),
    [
        (sydney(11, 10), sydney(11, 11), 1),
        (sydney(11, 11), sydney(11, 14), 2),
        (sydney(11, 15), sydney(12, 11), 2),
        (sydney(14, 15), sydney(17, 11), 2),  # over a weekend
        (sydney(11, 17), sydney(12, 9), 0),
        (sydney(11, 9), sydney(13, 9), 10 - 5),  # the 12th is closed
        (sydney(4, 15, month=4), sydney(7, 11, month=4), 2),  # clocks went back between
    ],
)
def test_open_time_passes_in_sessions_only(start: datetime, end: datetime, open_hours: float) -> None:
    closed = (date(2014, 3, 12),) if (start, end) == (sydney(11, 9), sydney(13, 9)) else ()
    hours = OpenHours("Australia/Sydney", [MORNING, AFTERNOON], closed)

    assert hours_between(hours, start, end) == open_hours


def test_each_session_has_a_number_of_its_own_and_between_them_there_is_none() -> None:
    hours = OpenHours("Australia/Sydney", [MORNING, AFTERNOON])
    moments = hours.at(ns(*(sydney(11, hour) for hour in (9, 10, 11, 12, 13, 15, 16)), sydney(12, 10)))

    first, second, next_day = moments.session[1], moments.session[4], moments.session[7]
    assert moments.session.tolist() == [CLOSED, first, first, CLOSED, second, second, CLOSED, next_day]
    assert len({first, second, next_day}) == 3
    assert (moments.open_ns - moments.since_ns)[[1, 2, 5, 7]].tolist() == [0, HOUR_NS, 2 * HOUR_NS, 0]


def test_later_days_change_no_moment_that_was_told_before() -> None:
    hours = OpenHours("Australia/Sydney", [MORNING])
    early = ns(sydney(11, 11))
    before = hours.at(early)

    hours.at(ns(datetime(2016, 5, 5, tzinfo=UTC)))
    after = hours.at(early)

    assert (before.session, before.open_ns) == (after.session, after.open_ns)


def test_a_venue_without_sessions_is_always_open() -> None:
    moments = OpenHours().at(ns(sydney(9, 3), sydney(9, 4)))

    assert CLOSED not in moments.session
    assert moments.open_ns[1] - moments.open_ns[0] == HOUR_NS
