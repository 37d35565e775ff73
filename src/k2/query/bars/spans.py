"""Cuts time into the frames that bars are counted from: UTC days, or an exchange's days and sessions."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple
from zoneinfo import ZoneInfo

from k2.common.units import NS_PER_DAY

if TYPE_CHECKING:
    from datetime import date

    from k2.query.bars.request import Alignment
    from k2.query.bars.rules import BarRule, Hours

NS_MIN: Final = -(2**63) + 1
"""The earliest start of a bar: nanoseconds in 64 bits, none of whose negatives falls outside of them."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SATURDAY: Final = 5
_DAYS_AROUND: Final = 2
"""A local day begins less than a day from the UTC day of its date."""


class Frame(NamedTuple):
    """Bars of [origin_ns, until_ns) are counted from its origin, and the last one is cut at its end."""

    origin_ns: int
    until_ns: int


class Span(NamedTuple):
    """A stretch of one UTC day, within one frame, in which prints are either all in hours or all out of them."""

    day: int
    from_ns: int
    to_ns: int
    origin_ns: int
    until_ns: int
    in_hours: bool


class BarCalendar:
    """Where the bars of one exchange begin and end."""

    def __init__(self, rule: BarRule, length_ns: int, align: Alignment) -> None:
        self._rule = rule
        self._zone = ZoneInfo(rule.timezone)
        self._align = align
        self._whole_days = length_ns == NS_PER_DAY
        # A local day may have 25 hours; a bar of a day ends with its frame in any case.
        self.step_ns = 2 * NS_PER_DAY if self._whole_days else length_ns

    def bar_start_ns(self, at_ns: int) -> int:
        """Return the start of the bar in which a time lies."""
        frames = self._frames(at_ns, at_ns)
        frame = frames[bisect_right(frames, at_ns, key=lambda each: each.origin_ns) - 1]
        return frame.origin_ns + (at_ns - frame.origin_ns) // self.step_ns * self.step_ns

    def spans(self, first_ns: int, last_ns: int) -> list[Span]:
        """Return the spans that cover both times and all between them, in order."""
        frames = self._frames(first_ns, last_ns)
        hours = self._daily(self._rule.hours, first_ns, last_ns)
        edges = {frame.origin_ns for frame in frames} | {edge for span in hours for edge in span}
        edges |= {day * NS_PER_DAY for day in range(first_ns // NS_PER_DAY, last_ns // NS_PER_DAY + 2)}
        low, high = first_ns // NS_PER_DAY * NS_PER_DAY, (last_ns // NS_PER_DAY + 1) * NS_PER_DAY
        found = []
        for start, end in pairwise(sorted(edge for edge in edges if low <= edge <= high)):
            frame = frames[bisect_right(frames, start, key=lambda each: each.origin_ns) - 1]
            place = bisect_right(hours, start, key=lambda each: each[0]) - 1
            in_hours = not self._rule.hours or (place >= 0 and start < hours[place][1])
            found.append(Span(start // NS_PER_DAY, start, end, *frame, in_hours))
        return found

    def _frames(self, first_ns: int, last_ns: int) -> list[Frame]:
        if self._align == "utc":
            days = range(first_ns // NS_PER_DAY, last_ns // NS_PER_DAY + 1)
            return [Frame(day * NS_PER_DAY, (day + 1) * NS_PER_DAY) for day in days]
        edges = {self._ns(day, time()) for day in _days(first_ns, last_ns)}
        if not self._whole_days:
            edges |= {edge for session in self._daily(self._rule.sessions, first_ns, last_ns) for edge in session}
        return [Frame(*pair) for pair in pairwise(sorted(edges))]

    def _daily(self, hours: Hours, first_ns: int, last_ns: int) -> list[tuple[int, int]]:
        """Return the hours of each day that has some, in order."""
        return [
            (self._ns(day, start), self._ns(day, end))
            for day in _days(first_ns, last_ns)
            if day.weekday() < _SATURDAY and day not in self._rule.closed
            for start, end in hours
        ]

    def _ns(self, day: date, at: time) -> int:
        return (datetime.combine(day, at, self._zone) - _EPOCH) // _MICROSECOND * 1_000


def _days(first_ns: int, last_ns: int) -> list[date]:
    first, last = first_ns // NS_PER_DAY - _DAYS_AROUND, last_ns // NS_PER_DAY + _DAYS_AROUND
    return [(_EPOCH + timedelta(days=day)).date() for day in range(first, last + 1)]
