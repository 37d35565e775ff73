"""The only reader of a clock: wall time, monotonic time and sleep, as one value to pass around."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time in UTC nanoseconds, monotonic seconds, and a pause."""

    def time_ns(self) -> int:
        """Return the wall time, UTC nanoseconds since 1970."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean anything."""
        ...

    def sleep(self, seconds: float) -> None:
        """Pause the calling thread."""
        ...


class SystemClock:
    """The machine's clock."""

    def time_ns(self) -> int:
        """Return the wall time, UTC nanoseconds since 1970."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean anything."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Pause the calling thread."""
        time.sleep(seconds)
