"""The writing side's loop: hands waiting chunks to their tables' lanes, and lets each lane do what is due."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from k2.common.clock import Clock
    from k2.ingestion.backfill.backfiller import Backfiller
    from k2.ingestion.handover import Flush, Handover
    from k2.ingestion.settings import IngestionSettings
    from k2.ingestion.table_lane import TableLane

STEP_SECONDS_MAX = 0.5


class WriterLoop:
    """Runs the lanes; only the writer's thread uses it."""

    def __init__(
        self,
        lanes: Iterable[TableLane],
        *,
        handover: Handover,
        settings: IngestionSettings,
        clock: Clock,
        backfillers: Mapping[str, Backfiller] | None = None,
    ) -> None:
        self._backfillers = dict(backfillers or {})
        self.lanes = {lane.table: lane for lane in lanes}
        self._handover = handover
        self._settings = settings
        self._clock = clock
        self.last_step_at = clock.monotonic()

    def step(self, wait_seconds: float = STEP_SECONDS_MAX) -> None:
        """Wait for work, at most until something is due; then decode what came, commit what is due."""
        self.last_step_at = self._clock.monotonic()
        wanting = [lane for lane in self.lanes.values() if lane.wants_chunks()]
        self._handover.wait_for_work(self._seconds_to_wait(wait_seconds), tables=[lane.table for lane in wanting])
        for lane in wanting:
            self._feed(lane)
        for lane in self.lanes.values():
            lane.step()
        flush = self._handover.next_flush()
        if flush is not None:
            self._flush(flush)
            return
        for table, backfiller in self._backfillers.items():
            backfiller.step(self.lanes[table])

    def close(self) -> None:
        """Give up what the backfills read; the loop has ended."""
        for backfiller in self._backfillers.values():
            backfiller.close()

    def _seconds_to_wait(self, most: float) -> float:
        steps = [lane.seconds_to_next_step() for lane in self.lanes.values()]
        steps += [backfiller.seconds_to_next_step() for backfiller in self._backfillers.values()]
        due = [seconds for seconds in steps if seconds is not None]
        return min([most, *due])

    def _feed(self, lane: TableLane) -> None:
        chunks = self._handover.take(lane.table, records_max=self._settings.decode_messages_max)
        if chunks:
            lane.add(chunks)

    def _flush(self, flush: Flush) -> None:
        """Commit what has come until now; what cannot be committed in time is read again by whoever comes next."""
        for table in sorted(flush.tables):
            lane = self.lanes[table]
            while lane.wants_chunks() and self._handover.bytes_waiting(table) and self._seconds_left(flush) > 0:
                self._feed(lane)
                if not lane.wants_chunks() and not lane.flush(self._seconds_left(flush)):
                    break
            lane.flush(self._seconds_left(flush))
        flush.done.set()

    def _seconds_left(self, flush: Flush) -> float:
        return flush.deadline - self._clock.monotonic()
