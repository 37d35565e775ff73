"""A clock that moves when it is told to; sleeping moves it at once."""

from __future__ import annotations

import threading


class ManualClock:
    """A clock for tests. Wall and monotonic time move together."""

    def __init__(self, start_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now_ns = start_ns
        self._start_ns = start_ns
        self._lock = threading.Lock()

    def time_ns(self) -> int:
        """Return the wall time, UTC nanoseconds since 1970."""
        return self._now_ns

    def monotonic(self) -> float:
        """Return the seconds since this clock was made."""
        return (self._now_ns - self._start_ns) / 1e9

    def sleep(self, seconds: float) -> None:
        """Let `seconds` pass at once."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        with self._lock:
            self._now_ns += int(seconds * 1e9)
