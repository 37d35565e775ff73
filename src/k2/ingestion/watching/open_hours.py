"""When a venue is open: turns times into open time, in which nights, weekends and closed days do not pass."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import numpy as np

from k2.common.units import NS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date, time

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

CLOSED: Final = -1
_DAYS_AHEAD: Final = 40
_SATURDAY: Final = 5
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Moments:
    """Times as the venue sees them: its session (CLOSED: none), and open nanoseconds, which pass in sessions only."""

    session: Ints
    open_ns: Ints
    since_ns: Ints
    """Open nanoseconds at which the session began."""


class OpenHours:
    """A venue's sessions from Monday to Friday, but for the days closed; without sessions it is always open."""

    def __init__(
        self, timezone: str = "UTC", sessions: Sequence[tuple[time, time]] = (), closed: Sequence[date] = ()
    ) -> None:
        self._zone = ZoneInfo(timezone)
        self._sessions = tuple(sessions)
        self._closed = frozenset(closed)
        self._starts = self._ends = self._begun = np.empty(0, np.int64)
        self._from_day = self._to_day = 0

    def at(self, times_ns: Ints) -> Moments:
        """Return the moments of UTC nanoseconds."""
        if not self._sessions:
            nothing = np.zeros(len(times_ns), np.int64)
            return Moments(nothing, times_ns, np.full(len(times_ns), -(2**62), np.int64))
        if len(times_ns):
            self._cover(int(times_ns.min()) // NS_PER_DAY, int(times_ns.max()) // NS_PER_DAY)
        place = np.searchsorted(self._starts, times_ns, side="right") - 1
        known = np.maximum(place, 0)
        is_open = (place >= 0) & (times_ns < self._ends[known])
        passed = np.minimum(times_ns, self._ends[known]) - self._starts[known]
        session = np.where(is_open, place + self._first_session, CLOSED)
        return Moments(session, self._begun[known] + np.maximum(passed, 0), self._begun[known])

    def _cover(self, first_day: int, last_day: int) -> None:
        """Know the sessions of these days; what open time is counted from moves when earlier days are asked for."""
        if self._from_day <= first_day - 1 and last_day + 1 < self._to_day:
            return
        if not len(self._starts) or first_day - 1 < self._from_day:
            self._from_day = first_day - _DAYS_AHEAD
        self._to_day = max(self._to_day, last_day + _DAYS_AHEAD)
        spans = [span for day in range(self._from_day, self._to_day) for span in self._spans(day)]
        self._starts = np.array([start for start, _ in spans], np.int64)
        self._ends = np.array([end for _, end in spans], np.int64)
        lengths = self._ends - self._starts
        self._begun = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)

    @property
    def _first_session(self) -> int:
        return self._from_day * len(self._sessions)

    def _spans(self, day: int) -> list[tuple[int, int]]:
        date = (_EPOCH + timedelta(days=day)).date()
        if date.weekday() >= _SATURDAY or date in self._closed:
            return []
        return [(self._ns(date, start), self._ns(date, end)) for start, end in self._sessions]

    def _ns(self, day: date, at: time) -> int:
        return (datetime.combine(day, at, self._zone) - _EPOCH) // _MICROSECOND * 1_000
