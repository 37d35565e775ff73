"""Remembers whether the sink works, and when one that failed is tried again: closed, open, half open."""

from __future__ import annotations

from enum import StrEnum


class SinkState(StrEnum):
    """CLOSED: it works. OPEN: it failed, leave it alone. HALF_OPEN: one try is under way."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class SinkProbe:
    """The state of one sink; times are monotonic seconds, passed in."""

    def __init__(self, *, probe_seconds: float, probe_seconds_max: float) -> None:
        self._first_pause = probe_seconds
        self._pause_max = probe_seconds_max
        self._pause = probe_seconds
        self._try_at = 0.0
        self.state = SinkState.CLOSED

    def failed(self, now: float) -> None:
        """Open; a try that failed doubles the pause before the next one."""
        if self.state is SinkState.HALF_OPEN:
            self._pause = min(2 * self._pause, self._pause_max)
        elif self.state is SinkState.CLOSED:
            self._pause = self._first_pause
        self.state = SinkState.OPEN
        self._try_at = now + self._pause

    def succeeded(self) -> None:
        """Close."""
        self.state = SinkState.CLOSED

    def may_try(self, now: float) -> bool:
        """Say whether the sink may be given something now; once it failed, one caller at a time is told so.

        A try whose outcome is never told counts as given up after the longest pause.
        """
        if self.state is SinkState.CLOSED:
            return True
        if now < self._try_at:
            return False
        self.state = SinkState.HALF_OPEN
        self._try_at = now + self._pause_max
        return True
