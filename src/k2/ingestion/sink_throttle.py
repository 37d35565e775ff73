"""Makes a commit wait while a drill asks for a slow sink."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import polars as pl

    from k2.common.announcing import Drills
    from k2.common.clock import Clock
    from k2.ingestion.lane_ports import Writer
    from k2.storage.data_files import WrittenFile
    from k2.storage.writer import Batch, Commit

_NAP_SECONDS: Final = 0.1


class SinkThrottle:
    """A pause before a commit: as long as the drill in force says, and no longer than `wait_seconds_max`."""

    def __init__(self, drills: Drills, *, clock: Clock, wait_seconds_max: float) -> None:
        self._drills = drills
        self._clock = clock
        self._wait_seconds_max = wait_seconds_max

    def wait(self, rows: int) -> float:
        """Wait as a slow sink would with so many rows, and return for how many seconds; a drill's end ends it."""
        began = self._clock.monotonic()
        while (left := began + self._seconds(rows) - self._clock.monotonic()) > 0:
            self._clock.sleep(min(left, _NAP_SECONDS))
        return self._clock.monotonic() - began

    def _seconds(self, rows: int) -> float:
        drill = self._drills.wanted()
        if drill is None:
            return 0.0
        rate = drill.sink_rows_per_second
        return min(drill.sink_delay_seconds + (rows / rate if rate > 0 else 0.0), self._wait_seconds_max)


class ThrottledWriter:
    """A table's writer whose commits wait while a drill asks for it; what is written stays the same."""

    def __init__(self, writer: Writer, throttle: SinkThrottle) -> None:
        self._writer = writer
        self._throttle = throttle

    def write_files(self, rows: pl.DataFrame) -> tuple[WrittenFile, ...]:
        """Write the rows, sorted and synced."""
        return self._writer.write_files(rows)

    def commit(self, batch: Batch) -> Commit:
        """Append the batch where the fence allows it, after the wait that a drill asks for."""
        self._throttle.wait(batch.rows)
        return self._writer.commit(batch)
