"""Ends a process whose SQL outlives its limits: DuckDB cannot be interrupted inside a function such as `repeat`."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Final, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from k2.common.clock import Clock

_LOOK_SECONDS: Final = 0.05
_GRACE_SECONDS: Final = 1.0
"""The interrupt comes first: where it works, the error is told as any other."""
_EXIT_ERROR: Final = 2


class SqlLimits:
    """While it is entered, the process ends once the statement takes too long or the process holds too much memory."""

    def __init__(
        self,
        *,
        seconds_max: float,
        resident_bytes_max: int,
        clock: Clock,
        resident_bytes: Callable[[], int] | None = None,
        end: Callable[[str], None] | None = None,
    ) -> None:
        self._seconds_max = seconds_max
        self._resident_bytes_max = resident_bytes_max
        self._clock = clock
        self._resident_bytes = resident_bytes or _resident_bytes
        self._end = end or _end_process
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="k2-sql-limits", daemon=True)

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching."""
        self._over.set()
        self._watcher.join()

    def _watch(self) -> None:
        until = self._clock.monotonic() + self._seconds_max + _GRACE_SECONDS
        while not self._over.wait(_LOOK_SECONDS):
            if self._clock.monotonic() > until:
                return self._end(
                    f"the question took longer than {self._seconds_max:g} s (K2_QUERY__QUERY_SECONDS_MAX) and was "
                    "ended: ask for less, or in smaller steps"
                )
            held = self._resident_bytes()
            if held > self._resident_bytes_max:
                return self._end(
                    f"the question took {held} bytes of memory, more than {self._resident_bytes_max} "
                    "(K2_QUERY__SQL_RESIDENT_BYTES_MAX), and was ended: ask for fewer rows or columns"
                )
        return None


def _resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def _end_process(reason: str) -> None:
    sys.stderr.write(f"k2: {reason}\n")
    sys.stderr.flush()
    os._exit(_EXIT_ERROR)
