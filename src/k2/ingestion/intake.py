"""The consuming side: polls, cuts what comes into chunks, pauses when buffers are full, seeks to the seam."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k2.common import crash_points
from k2.common.errors import K2Error, LogIdentityError, MemberFencedError
from k2.common.logging import get_logger
from k2.ingestion import events
from k2.ingestion.handover import Chunk, Committed, Flush, Reposition

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from k2.common.clock import Clock
    from k2.common.drain_time import Progress
    from k2.ingestion.handover import Handover, Wish
    from k2.ingestion.overload.flows import Flows
    from k2.ingestion.overload.ladder import Ladder
    from k2.ingestion.positioner import Cluster, Positioner
    from k2.ingestion.settings import IngestionSettings
    from k2.kafka.batches import LogBatch
    from k2.kafka.ports import GroupedReader, TopicPartition
    from k2.storage.seam import LogPartition

log = get_logger(__name__)


@dataclass(slots=True)
class _Place:
    """Where reading a partition is; `next_offset` is where its next chunk starts."""

    table: str
    log: LogPartition
    epoch: int
    next_offset: int


class Intake:
    """Reads the partitions that the group gives this worker; only the consumer's thread uses it."""

    def __init__(
        self,
        *,
        positioner: Positioner,
        cluster: Cluster,
        handover: Handover,
        table_of: Mapping[str, str],
        settings: IngestionSettings,
        clock: Clock,
        observer: events.Observer,
        ladder: Ladder,
        flows: Flows,
        wait_for_writer: Callable[[threading.Event, float], bool],
    ) -> None:
        self._positioner = positioner
        self._cluster = cluster
        self._handover = handover
        self._table_of = table_of
        self._settings = settings
        self._clock = clock
        self._observe = observer
        self._ladder = ladder
        self._flows = flows
        self._wait_for_writer = wait_for_writer
        self._reader: GroupedReader | None = None
        self._places: dict[TopicPartition, _Place] = {}
        self._unplaced: set[TopicPartition] = set()
        self._place_again_at = 0.0
        self._refused: dict[str, str] = {}
        self._abandoned: set[str] = set()
        self._full_since: float | None = None
        self._paused: set[str] = set()
        self._has_new = False
        self._failures: Counter[str] = Counter()
        self._seams: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._measure_at = 0.0
        self._wishes: list[Wish] = []
        self.last_step_at = clock.monotonic()
        self.last_seams: dict[TopicPartition, int] = {}
        """First offset that the table did not hold when last seen, also of partitions since given away."""

    def use(self, reader: GroupedReader) -> None:
        """Take the reader, which was made with this object's `on_assign` and `on_revoke`."""
        self._reader = reader

    @property
    def refused(self) -> dict[str, str]:
        """Why topics are not read, by topic."""
        return dict(self._refused)

    def positions(self) -> dict[TopicPartition, int]:
        """Return the offset that is read next, per partition that is positioned."""
        return {key: place.next_offset for key, place in self._places.items()}

    def owned(self) -> dict[TopicPartition, LogPartition]:
        """Return the partitions that are positioned, each with the log that it was found to be; any thread may ask."""
        return {key: place.log for key, place in tuple(self._places.items())}

    # What the reader calls, inside of poll.

    def on_assign(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return where to read the partitions from; those left out are read once they could be positioned."""
        self._has_new = True
        return {key: place.next_offset for key, place in self._place(partitions).items()}

    def on_revoke(self, partitions: Sequence[TopicPartition]) -> None:
        """Have committed what is there, within a bound, then forget the partitions."""
        tables = {self._places[key].table for key in partitions if key in self._places}
        if tables:
            self._flush(tables, self._settings.revoke_seconds)
            self._take_note_of_commits()
        crash_points.reached("during_revoke")
        self._forget(partitions)

    # The loop's body.

    def step(self) -> None:
        """Do what the writer wished, position what waits, poll once."""
        self.last_step_at = self._clock.monotonic()
        wishes, self._wishes = [*self._wishes, *self._handover.wishes()], []
        for wish in wishes:
            self._grant(wish)
        if self._unplaced and self._clock.monotonic() >= self._place_again_at:
            self._resume_at(self._place(sorted(self._unplaced)))
        self._ladder.check(self._progress)
        self._make_room()
        try:
            batches = self._use_reader.poll(self._settings.poll_messages_max, self._settings.poll_timeout_seconds)
        except LogIdentityError as error:
            log.warning("read_refused", reason=str(error))
            self._reposition(set(self._table_of.values()))
        except MemberFencedError:
            raise
        except K2Error as error:
            self._failed(events.Reading.POLL, error)
            self._clock.sleep(self._settings.poll_timeout_seconds)
        else:
            if batches:
                crash_points.reached("after_poll")
                self._works(events.Reading.POLL)
            for batch in batches:
                self._take(batch)
        if self._clock.monotonic() >= self._measure_at:
            self._measure_lag()

    def finish(self) -> None:
        """Have committed all that was consumed, within the bound of a shutdown."""
        self._flush(set(self._table_of.values()), self._settings.shutdown_seconds)
        self._take_note_of_commits()

    @property
    def _use_reader(self) -> GroupedReader:
        if self._reader is None:
            raise RuntimeError("the intake has no reader yet: call use() first")
        return self._reader

    # Chunks.

    def _take(self, batch: LogBatch) -> None:
        place = self._places.get((batch.topic, batch.partition))
        if place is None or not len(batch):
            return
        if batch.offsets[0] < place.next_offset:
            log.warning("stale_batch_dropped", topic=batch.topic, partition=batch.partition, offset=batch.offsets[0])
            return
        self._handover.put(
            Chunk(
                table=place.table,
                log=place.log,
                epoch=place.epoch,
                start=place.next_offset,
                end=batch.next_offset,
                batch=batch,
                arrived=self._clock.monotonic(),
            )
        )
        place.next_offset = batch.next_offset

    def _make_room(self) -> None:
        """While a buffer is full: wait a little without polling, then pause its table and poll on."""
        limit = self._settings.buffer_bytes_max
        tables = set(self._table_of.values())
        if self._has_new:  # partitions of a paused table that came since are read, until they pause as well
            self._has_new = False
            self._use_reader.pause(self._partitions_of(self._paused))
        waiting = {table: self._handover.bytes_waiting(table) for table in tables}
        if self._ladder.must_pause():
            self._pause(tables - self._paused - self._abandoned, waiting)
            return
        resumable = {table for table in self._paused if waiting[table] < limit // 2}
        if resumable:
            self._paused -= resumable
            self._use_reader.resume(self._partitions_of(resumable))
            self._tell_buffers(resumable, waiting)
        full = {table for table, size in waiting.items() if size >= limit} - self._paused - self._abandoned
        if not full:
            self._full_since = None
            return
        now = self._clock.monotonic()
        self._full_since = now if self._full_since is None else self._full_since
        if now - self._full_since < self._settings.pause_after_seconds:
            self._handover.wait_for_room(self._settings.poll_timeout_seconds, tables=full, bytes_max=limit)
        full = {table for table in full if self._handover.bytes_waiting(table) >= limit}
        self._pause(full, waiting)

    def _pause(self, tables: set[str], waiting: Mapping[str, int]) -> None:
        if tables:
            self._paused |= tables
            self._use_reader.pause(self._partitions_of(tables))
            self._tell_buffers(tables, waiting)

    def _tell_buffers(self, tables: Iterable[str], waiting: Mapping[str, int]) -> None:
        for table in tables:
            self._observe(events.Buffered(table, waiting[table], table in self._paused))

    # Positions.

    def _place(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, _Place]:
        wanted = [key for key in partitions if self._table_of[key[0]] not in self._abandoned]
        positions = self._positioner.position(wanted)
        placed = {
            key: _Place(found.table, found.log, self._handover.next_epoch(), found.offset)
            for key, found in positions.found.items()
        }
        self._places.update(placed)
        at = {key: place.next_offset for key, place in placed.items()}
        self._seams.update(at)
        self.last_seams.update(at)
        self._unplaced.difference_update(placed)
        self._unplaced.update(key for key in wanted if key not in placed)
        self._tell_topics({topic for topic, _ in placed}, positions.refused)
        if positions.unchecked:
            self._failed(events.Reading.POSITIONS, "; ".join(sorted(set(positions.unchecked.values()))))
        else:
            self._works(events.Reading.POSITIONS)
        pause = self._settings.retry_pause_seconds if positions.unchecked else self._settings.identity_check_seconds
        self._place_again_at = self._clock.monotonic() + pause
        return placed

    def _tell_topics(self, accepted: Iterable[str], refused: Mapping[str, str]) -> None:
        for topic in accepted:
            if self._refused.pop(topic, None) is not None:
                self._observe(events.TopicAccepted(topic))
        for topic, reason in refused.items():
            if self._refused.get(topic) != reason:
                self._observe(events.TopicRefused(topic, reason))
            self._refused[topic] = reason

    def _resume_at(self, placed: Mapping[TopicPartition, _Place]) -> None:
        for (topic, partition), place in placed.items():
            self._use_reader.seek(topic, partition, place.next_offset)
        self._use_reader.resume([key for key, place in placed.items() if place.table not in self._paused])

    def _reposition(self, tables: Iterable[str]) -> None:
        """Read the heads again and seek; a partition that cannot be positioned now is paused until it can."""
        keys = self._partitions_of(tables)
        for key in keys:
            del self._places[key]
        placed = self._place(keys)
        self._use_reader.pause([key for key in keys if key not in placed])
        self._resume_at(placed)

    def _partitions_of(self, tables: Iterable[str]) -> list[TopicPartition]:
        wanted = set(tables)
        return [key for key, place in self._places.items() if place.table in wanted]

    def _forget(self, partitions: Iterable[TopicPartition]) -> None:
        for key in partitions:
            self._places.pop(key, None)
            self._seams.pop(key, None)
            self._unplaced.discard(key)

    # The writer's wishes.

    def _grant(self, wish: Wish) -> None:
        if isinstance(wish, Reposition):
            self._reposition([wish.table])
        elif isinstance(wish, Committed):
            self._commit_offsets(wish)
        else:
            self._abandoned.add(wish.table)
            keys = self._partitions_of([wish.table])
            self._use_reader.pause(keys)
            self._forget(keys)
            self._handover.discard(wish.table)

    def _take_note_of_commits(self) -> None:
        """Grant what needs no seek; the rest waits for the loop, since this may run inside of a callback."""
        for wish in self._handover.wishes():
            if isinstance(wish, Committed):
                self._commit_offsets(wish)
            else:
                self._wishes.append(wish)

    def _commit_offsets(self, committed: Committed) -> None:
        by_log = {place.log: key for key, place in self._places.items() if place.table == committed.table}
        offsets = {by_log[key]: offset for key, offset in committed.next_offsets.items() if key in by_log}
        if offsets:
            self._seams.update(offsets)
            self.last_seams.update(offsets)
            self._use_reader.commit_offsets(offsets)

    def _flush(self, tables: set[str], seconds: float) -> None:
        flush = Flush(frozenset(tables), self._clock.monotonic() + seconds)
        self._handover.ask_writer(flush)
        if not self._wait_for_writer(flush.done, seconds):
            log.warning("flush_timed_out", tables=sorted(tables), seconds=seconds)

    # What it tells.

    def _progress(self) -> Iterator[tuple[TopicPartition, Progress]]:
        """Give where each partition is; the log reaches at least as far as it was ever seen to."""
        for key, place in self._places.items():
            end = self._ends[key] = max(self._ends.get(key, 0), place.next_offset)
            progress = self._flows.progress(
                place.table, place.log, epoch=place.epoch, seam=self._seams[key], log_end=end
            )
            yield (key, progress)

    def _measure_lag(self) -> None:
        """Compare the seams with the ends of the logs; an answer also proves that Kafka is there again."""
        self._measure_at = self._clock.monotonic() + self._settings.lag_interval_seconds
        try:
            ranges = self._cluster.ranges(sorted({topic for topic, _ in self._places}))
        except K2Error as error:
            self._failed(events.Reading.LAG, error)
            return
        self._works(events.Reading.LAG)
        self._works(events.Reading.POLL)
        self._ends.update({key: each.end for key, each in ranges.items()})
        for key, seam in self._seams.items():
            if key in ranges:
                records = max(0, ranges[key].end - seam)
                self._observe(events.LagMeasured(self._table_of[key[0]], *key, records))
        for table in set(self._table_of.values()):
            self._observe(events.Buffered(table, self._handover.bytes_waiting(table), table in self._paused))

    def _failed(self, part: str, reason: object) -> None:
        self._failures[part] += 1
        self._observe(events.ReadFailed(part, str(reason), self._failures[part]))

    def _works(self, part: str) -> None:
        if self._failures.pop(part, 1):
            self._observe(events.ReadRecovered(part))
        self._failures[part] = 0
