"""Writes the deferred records of one table: first entry first, a part at a time, in what time ingestion leaves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import polars as pl

from k2.common import crash_points
from k2.common.degradation import DEFERRED_FROM, DegradationLevel, Priority
from k2.common.errors import AccountingError, CorruptionError, FencedError, K2Error, LogIdentityError
from k2.common.load_shedder import LoadShedder
from k2.common.logging import get_logger
from k2.ingestion import events
from k2.kafka.batches import LogBatch
from k2.schemas.tier_maps import TierMap
from k2.storage.backfills import BackfilledRange
from k2.storage.deferral import Backfill, DeferredList, predicate_of, seam_after_backfill
from k2.storage.halts import NOBODY, owners
from k2.storage.seam import Counts

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.common.clock import Clock
    from k2.ingestion.backfill.choosing import Chooser, Task
    from k2.ingestion.backfill.reading import Keeps, RangeReader
    from k2.ingestion.backfill.settings import BackfillSettings
    from k2.ingestion.dead_letters.collector import DeadLetters
    from k2.ingestion.duplicates.deduplicator import PartDecision
    from k2.ingestion.lane_ports import Decoder, Heads
    from k2.kafka.decoding import BadRecord
    from k2.kafka.registry import CachedSchemas
    from k2.storage.seam import HaltedStream, LogPartition, Seam
    from k2.storage.writer import Commit

log = get_logger(__name__)

_PAUSE_SECONDS_MIN: Final = 0.02


class Lane(Protocol):
    """The ingesting side of the same table, in the same thread."""

    stopped: str | None

    @property
    def is_between_batches(self) -> bool:
        """Say whether no batch of it is on its way into the table."""
        ...

    def flush(self, seconds: float, *, gives_way: bool = False) -> bool:
        """Commit all that is there, in time and before it gives way to others; return whether nothing is left."""
        ...

    def lists_changed(self, seam: Seam) -> None:
        """Take the deferred lists from the head that a backfill has made."""
        ...


class Decides(Protocol):
    """Decides which records of a range are duplicates."""

    def decide(self, at: LogPartition, rows: pl.DataFrame) -> PartDecision:
        """Decide about the rows of one partition."""
        ...


class Writer(Protocol):
    """Commits ranges behind their fence."""

    def commit(self, found: BackfilledRange) -> Commit:
        """Store the range where the head's list still begins with it."""
        ...


@dataclass(frozen=True, slots=True)
class BackfillParts:
    """What writing one table's deferred ranges needs; the decoder and the schemas are those of the table's lane."""

    table: str
    decoder: Decoder
    schemas: CachedSchemas
    duplicates: Decides
    writer: Writer
    heads: Heads
    dead_letters: DeadLetters
    check_topics: Callable[[set[str]], None]


@dataclass(slots=True)
class _Count:
    """How many deferred records the log still holds of an entry of which it has lost the beginning."""

    start: int
    log_start: int
    end: int
    records: int = 0


class Backfiller:
    """Backfills one table; only the writer's thread uses it."""

    def __init__(
        self,
        parts: BackfillParts,
        *,
        chooser: Chooser,
        reader: RangeReader,
        level: Callable[[], DegradationLevel],
        must_give_way: Callable[[], bool],
        settings: BackfillSettings,
        clock: Clock,
        observer: events.Observer,
    ) -> None:
        self._parts = parts
        self._chooser = chooser
        self._reader = reader
        self._level = level
        self._must_give_way = must_give_way
        self._settings = settings
        self._clock = clock
        self._observe = observer
        self._task: Task | None = None
        self._count: _Count | None = None
        self._shedders: dict[str, LoadShedder] = {}
        self._due_at = 0.0
        self._worked_since = 0.0
        self._flush_seconds = settings.last_seconds_max
        self._is_part_owed = False
        self._failures = 0
        self.stopped: str | None = None

    def seconds_to_next_step(self) -> float | None:
        """Return how long until there may be something to do; None where nothing ever will be."""
        if self.stopped or not self._settings.enabled:
            return None
        return max(0.0, self._due_at - self._clock.monotonic())

    def step(self, lane: Lane) -> None:
        """Do the next bit of work, if it is due; handles its own errors, so that the loop never sees one."""
        due_in = self.seconds_to_next_step()
        if due_in is None or due_in > 0 or lane.stopped:
            return
        self._worked_since = self._clock.monotonic()
        try:
            is_busy = self._work(lane)
        except FencedError as error:
            self._begin_again()
            self._observe(events.BackfillFenced(self._parts.table, str(error)))
            self._rest(is_busy=True)
        except AccountingError as error:
            self._stop(error)
        except K2Error as error:
            self._fail(error)
        except Exception as error:  # the edge of the loop: whatever it is, it is begun again from the head
            log.exception("backfill_step_failed", table=self._parts.table)
            self._fail(error)
        else:
            self._failures = 0
            self._rest(is_busy=is_busy)

    def close(self) -> None:
        """Give up the connection to the log."""
        self._begin_again()

    # What is done.

    def _work(self, lane: Lane) -> bool:
        """Take one step; return whether there is more to do at once."""
        task = self._task = self._task or self._chosen()
        if task is None:
            return False
        if not self._may_run(task):
            self._begin_again()
            return False
        if task.extent.start > task.entry.start:
            return self._give_up_lost(task, lane)
        self._reader.place(task.place, task.entry.start)
        if not (task.urgent or self._is_part_owed) and task.offsets <= self._settings.last_offsets_max:
            return self._finish(task, lane)
        if self._reader.step(task.entry.end, self._keeps(task)) and lane.is_between_batches:
            self._write_part(task, lane)
        return True

    def _chosen(self) -> Task | None:
        task = self._chooser.choose(self._parts.heads.head(self._parts.table))
        if task is None:
            self._reader.close()
        return task

    def _may_run(self, task: Task) -> bool:
        """Say whether the level defers nothing, or the range will soon be gone from the log."""
        return task.urgent or DEFERRED_FROM[self._level()] >= len(Priority)

    def _finish(self, task: Task, lane: Lane) -> bool:
        """Write all that is left of a short list while its table takes nothing new, so that it comes to an end."""
        settings = self._settings
        if not lane.flush(self._flush_seconds, gives_way=True):
            if self._must_give_way():  # a partition may be taken away: what is next is chosen anew
                self._task = None
            else:  # a slow sink: a part is written first, and more time given next
                self._flush_seconds = min(2 * self._flush_seconds, settings.last_flush_seconds_max)
                self._is_part_owed = True
            self._worked_since = self._clock.monotonic()
            return True
        self._flush_seconds = settings.last_seconds_max
        self._worked_since = self._clock.monotonic()  # what was flushed is ingestion's own work
        deadline = self._worked_since + settings.last_seconds_max
        while self._clock.monotonic() < deadline and not self._must_give_way():
            head = self._parts.heads.head(self._parts.table)
            held = DeferredList.of(head.seam, task.key)
            following = task.of(held)
            if following is None:
                break
            task = following
            self._reader.place(task.place, task.entry.start)
            keeps = self._keeps(task)
            while not self._reader.step(task.entry.end, keeps):
                if self._clock.monotonic() >= deadline or self._must_give_way():
                    return True
            self._write_part(task, lane)
        self._task = None
        return True

    def _give_up_lost(self, task: Task, lane: Lane) -> bool:
        """Count as lost what the log no longer holds of the entry: all that is not found in the rest of it."""
        entry, log_start = task.entry, task.extent.start
        found = 0
        if log_start < entry.end:
            if self._count is None or (self._count.start, self._count.log_start) != (entry.start, log_start):
                self._count = _Count(entry.start, log_start, entry.end)
                self._reader.place(task.place, log_start)
            count = self._count
            if self._reader.step(count.end, self._keeps(task)):
                part = self._reader.part()
                count.records += len(part.batch)
                self._reader.taken()
                if part.end < count.end:
                    return True
            else:
                return True
            found = count.records
        if not lane.is_between_batches:
            return True
        lost, end = max(entry.records - found, 0), min(log_start, entry.end)
        backfill = Backfill(entry.start, end, predicate_of(entry), Counts(), log_start=log_start, lost=lost)
        self._commit(task, backfill, None, (), lane)
        if lost:
            self._observe(events.DeferredLost(self._parts.table, *task.place, lost, entry.start, end))
        self._begin_again()
        return True

    def _keeps(self, task: Task) -> Keeps:
        predicate, data_type = predicate_of(task.entry), self._parts.table
        if predicate.halted is not None:
            return partial(_are_of, (predicate.halted,))
        halts = task.held.halted
        shedder = self._shedders.get(predicate.tier_map_id)
        if shedder is None:
            shedder = self._shedders[predicate.tier_map_id] = LoadShedder(self._tier_map(task).priorities())

        def keeps(batch: LogBatch) -> list[bool]:
            of_none = owners(batch.keys, batch.offsets, halts) == NOBODY
            deferred = of_none & (shedder.priorities(batch.keys, data_type) >= predicate.deferred_from)
            found: list[bool] = deferred.tolist()
            return found

        return keeps

    def _tier_map(self, task: Task) -> TierMap:
        name = f"market.{self._parts.table}"
        text = self._parts.heads.head(self._parts.table).tier_maps.get(task.entry.tier_map_id)
        if text is None:
            raise CorruptionError(
                f"expected the tier map {task.entry.tier_map_id} among the properties of {name}, by which "
                f"[{task.entry.start}, {task.entry.end}) of {task.topic} was deferred, found none: something that is "
                "not K2 has changed the table's properties; put it back",
                path=name,
            )
        return TierMap.from_json(text)

    # Committing.

    def _write_part(self, task: Task, lane: Lane) -> None:
        parts, read = self._parts, self._reader.part()
        parts.schemas.learn(parts.heads.head(parts.table).schemas)
        decoded = parts.decoder.decode(read.batch, log_id=task.key.log_id)
        crash_points.reached("backfill_read")
        decision = parts.duplicates.decide(task.key, decoded.rows)
        rows = pl.concat(decision.kept)
        found = Counts(rows=rows.height, duplicates=decision.duplicates, dead_letters=len(decoded.bad))
        backfill = Backfill(read.start, read.end, predicate_of(task.entry), found)
        self._commit(task, backfill, rows, decoded.bad, lane)
        self._reader.taken()
        self._task, self._is_part_owed = None, False

    def _commit(
        self, task: Task, backfill: Backfill, rows: pl.DataFrame | None, bad: tuple[BadRecord, ...], lane: Lane
    ) -> None:
        parts, key, topic = self._parts, task.key, task.topic
        head = parts.heads.head(parts.table)
        if rows is None:
            rows = parts.decoder.decode(_nothing(task), log_id=key.log_id).rows
        seam_after_backfill(head.seam, key, backfill)
        self._see_that_the_topic_is_unchanged(topic)
        if bad:
            topic_id = next(entry.topic_id for entry in head.logs if entry.log_id == key.log_id)
            parts.dead_letters.publish(topic, topic_id, bad)
            parts.dead_letters.record(parts.table, key.log_id, topic, topic_id, bad)
        crash_points.reached("backfill_recorded")
        schemas = parts.schemas.newly_met
        began = self._clock.monotonic()
        commit = parts.writer.commit(BackfilledRange(key, backfill, rows, schemas))
        parts.schemas.recorded(schemas)
        lane.lists_changed(commit.seam)
        self._tell(task, backfill, commit, self._clock.monotonic() - began)

    def _see_that_the_topic_is_unchanged(self, topic: str) -> None:
        try:
            self._parts.check_topics({topic})
        except LogIdentityError as error:
            raise FencedError(str(error)) from error

    def _tell(self, task: Task, backfill: Backfill, commit: Commit, seconds: float) -> None:
        left = DeferredList.of(commit.seam, task.key).records
        self._observe(
            events.BackfillCommitted(
                table=self._parts.table,
                topic=task.topic,
                partition=task.key.partition,
                rows=backfill.found.rows,
                duplicates=backfill.found.duplicates,
                dead_letters=backfill.found.dead_letters,
                records_left=left,
                commit_seconds=seconds,
                commit_sequence=commit.seam.commit_sequence,
            )
        )

    # Pace, and when it cannot go on.

    def _rest(self, *, is_busy: bool) -> None:
        """Leave ingestion its share of the time that this step took."""
        now, settings = self._clock.monotonic(), self._settings
        if not is_busy:
            self._due_at = now + settings.look_seconds
            return
        ratio = settings.urgent_time_ratio if self._task is not None and self._task.urgent else settings.time_ratio
        self._due_at = now + max((now - self._worked_since) * (1 / ratio - 1), _PAUSE_SECONDS_MIN)

    def _begin_again(self) -> None:
        self._task = self._count = None
        self._reader.close()

    def _fail(self, error: Exception) -> None:
        self._begin_again()
        self._failures += 1
        pause = self._settings.look_seconds * 2 ** min(self._failures, 4)
        self._due_at = self._clock.monotonic() + pause
        reason = f"{type(error).__name__}: {error}"
        self._observe(events.BackfillFailed(self._parts.table, self._failures, reason, pause))

    def _stop(self, error: AccountingError) -> None:
        self._begin_again()
        self.stopped = f"{type(error).__name__}: {error}"
        self._observe(events.BackfillStopped(self._parts.table, self.stopped))


def _are_of(halts: tuple[HaltedStream, ...], batch: LogBatch) -> list[bool]:
    """Say of each message whether it is one of the streams'."""
    found: list[bool] = (owners(batch.keys, batch.offsets, halts) != NOBODY).tolist()
    return found


def _nothing(task: Task) -> LogBatch:
    """Return a batch without messages."""
    return LogBatch(task.topic, task.key.partition, [], [], [], [], task.entry.start)
