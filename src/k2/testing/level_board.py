"""A board of levels in memory: what was announced last by each worker, as long as it is fresh."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k2.common.announcing import LevelAnnouncement
    from k2.common.clock import Clock


class FakeLevelBoard:
    """Both ends of the board: a worker announces, others read the highest level that is still fresh."""

    def __init__(self, clock: Clock, *, fresh_seconds: float = 15.0) -> None:
        self._clock = clock
        self._fresh_ns = int(fresh_seconds * 1e9)
        self._newest: dict[str, LevelAnnouncement] = {}

    def announce(self, announcement: LevelAnnouncement) -> None:
        """Take the place of what the worker said before."""
        self._newest[announcement.worker] = announcement

    def current(self) -> LevelAnnouncement | None:
        """Return the announcement of the highest level that is still fresh; of equals, the newest."""
        now_ns = self._clock.time_ns()
        fresh = [each for each in self._newest.values() if now_ns - each.at_ns <= self._fresh_ns]
        return max(fresh, key=lambda each: (each.level, each.at_ns), default=None)
