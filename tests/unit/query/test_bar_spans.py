"""Where bars begin and end: intervals, days, sessions, and the days on which clocks change."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise

import pytest

from k2.common.errors import QueryError
from k2.common.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE, NS_PER_SECOND
from k2.query.bars.interval import interval_ns
from k2.query.bars.rules import BarRule
from k2.query.bars.spans import BarCalendar

SYDNEY = BarRule(
    timezone="Australia/Sydney",
    sessions=((dt.time(10), dt.time(12)), (dt.time(13), dt.time(16))),
    closed=frozenset([dt.date(2014, 3, 12)]),
    hours=((dt.time(9, 59), dt.time(16, 13)),),
)


def ns(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp()) * NS_PER_SECOND


@pytest.mark.parametrize(
    ("text", "length_ns"), [("1s", 10**9), ("90s", 90 * 10**9), ("7m", 7 * NS_PER_MINUTE), ("1d", NS_PER_DAY)]
)
def test_an_interval_is_a_number_and_a_unit(text: str, length_ns: int) -> None:
    assert interval_ns(text) == length_ns


@pytest.mark.parametrize("text", ["", "0s", "2d", "1w", "1", "m", "-1m", "1.5m", "01m", "86401s", "1m ", "9999999h"])
def test_other_intervals_are_refused(text: str) -> None:
    with pytest.raises(QueryError, match="from 1s to 1d"):
        interval_ns(text)


def test_utc_bars_are_counted_anew_from_each_midnight() -> None:
    calendar = BarCalendar(SYDNEY, 7 * NS_PER_HOUR, "utc")

    assert calendar.bar_start_ns(ns("2014-03-11T06:59:59+00:00")) == ns("2014-03-11T00:00:00+00:00")
    assert calendar.bar_start_ns(ns("2014-03-11T23:00:00+00:00")) == ns("2014-03-11T21:00:00+00:00")
    assert calendar.bar_start_ns(ns("2014-03-12T01:00:00+00:00")) == ns("2014-03-12T00:00:00+00:00")


@pytest.mark.parametrize(
    ("at", "start"),
    [
        ("2014-03-11T09:30:00+11:00", "2014-03-11T09:00:00+11:00"),
        ("2014-03-11T10:59:00+11:00", "2014-03-11T10:00:00+11:00"),
        ("2014-03-11T13:10:00+11:00", "2014-03-11T13:00:00+11:00"),
        ("2014-03-11T12:59:00+11:00", "2014-03-11T12:00:00+11:00"),
        ("2014-03-11T14:30:00+11:00", "2014-03-11T14:30:00+11:00"),
        ("2014-03-11T16:00:00+11:00", "2014-03-11T16:00:00+11:00"),
        ("2014-03-15T10:20:00+11:00", "2014-03-15T09:00:00+11:00"),
        ("2014-03-12T10:20:00+11:00", "2014-03-12T09:00:00+11:00"),
    ],
)
def test_session_bars_are_counted_from_midnight_and_the_edges_of_sessions(at: str, start: str) -> None:
    assert BarCalendar(SYDNEY, 90 * NS_PER_MINUTE, "session").bar_start_ns(ns(at)) == ns(start)


@pytest.mark.parametrize(
    ("day", "next_day"),
    [
        ("2014-03-11T00:00:00+11:00", "2014-03-12T00:00:00+11:00"),
        ("2014-04-06T00:00:00+11:00", "2014-04-07T00:00:00+10:00"),
        ("2014-10-05T00:00:00+10:00", "2014-10-06T00:00:00+11:00"),
    ],
)
def test_a_day_of_an_exchange_is_as_long_as_its_clocks_make_it(day: str, next_day: str) -> None:
    calendar = BarCalendar(SYDNEY, NS_PER_DAY, "session")

    assert calendar.bar_start_ns(ns(day)) == ns(day)
    assert calendar.bar_start_ns(ns(next_day) - 1) == ns(day)
    assert calendar.bar_start_ns(ns(next_day)) == ns(next_day)


@pytest.mark.parametrize("align", ["utc", "session"])
@pytest.mark.parametrize("length_ns", [NS_PER_HOUR, NS_PER_DAY])
def test_spans_cover_a_range_without_gap_or_overlap(align: str, length_ns: int) -> None:
    first, last = ns("2014-03-09T22:30:00+00:00"), ns("2014-03-13T01:00:00+00:00")

    spans = BarCalendar(SYDNEY, length_ns, align).spans(first, last)  # type: ignore[arg-type]  # drawn from a list

    assert spans[0].from_ns <= first
    assert spans[-1].to_ns > last
    assert all(before.to_ns == after.from_ns for before, after in pairwise(spans))
    assert all(span.day == span.from_ns // NS_PER_DAY == (span.to_ns - 1) // NS_PER_DAY for span in spans)
    assert all(span.origin_ns <= span.from_ns and span.to_ns <= span.until_ns for span in spans)


def test_prints_are_in_hours_on_days_with_a_session_only() -> None:
    calendar = BarCalendar(SYDNEY, NS_PER_HOUR, "utc")

    monday_night = ns("2014-03-10T23:00:00+11:00")
    spans = calendar.spans(monday_night, ns("2014-03-16T00:00:00+11:00"))

    inside = [(span.from_ns, span.to_ns) for span in spans if span.in_hours and span.from_ns > monday_night]
    days = {dt.datetime.fromtimestamp(start / 1e9, dt.timezone(dt.timedelta(hours=11))).day for start, _ in inside}
    assert days == {11, 13, 14}
    assert sum(end - start for start, end in inside) == 3 * (6 * 60 + 14) * NS_PER_MINUTE
