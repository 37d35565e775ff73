"""One table's way from consumed chunks to commits: decode, hold, write, send dead letters on, commit by the fence."""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING, Final

import polars as pl

from k2.common import crash_points
from k2.common.degradation import DegradationLevel
from k2.common.errors import AccountingError, FencedError, K2Error, LogIdentityError
from k2.common.logging import get_logger
from k2.ingestion import events
from k2.ingestion.accounting import check_ledger
from k2.ingestion.handover import Abandon, Committed, Reposition, joined
from k2.ingestion.overload.sink_watch import SinkWatch
from k2.ingestion.pending import Pending
from k2.ingestion.prepared import Prepared
from k2.ingestion.watching.watchers import show, skip
from k2.schemas.arrow import polars_schema
from k2.schemas.records import WrittenBy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Executor

    from k2.common.clock import Clock
    from k2.ingestion.dead_letters.collector import DeadLetters
    from k2.ingestion.duplicates.deduplicator import Deduplicator
    from k2.ingestion.handover import Chunk, Handover
    from k2.ingestion.lane_ports import Decoder, Heads, Writer
    from k2.ingestion.overload.ladder import Ladder
    from k2.ingestion.overload.shedding import Shedding
    from k2.ingestion.overload.spilling import NoSpill, Spill
    from k2.ingestion.sequences.ledger import GapLedger
    from k2.ingestion.sequences.watched import Watched
    from k2.ingestion.settings import IngestionSettings
    from k2.ingestion.watching.watchers import BatchWatcher
    from k2.kafka.registry import CachedSchemas
    from k2.schemas.records import RecordType
    from k2.storage.data_files import WrittenFile
    from k2.storage.seam import LogPartition, Seam
    from k2.storage.tables import RegisteredLog, TableHead
    from k2.storage.writer import Commit

log = get_logger(__name__)

_SINK_LOOK_SECONDS: Final = 0.25
"""How soon a lane asks again whether it may try the sink."""


class TableLane:
    """The writing side of one table; only the writer's thread uses it."""

    def __init__(
        self,
        record_type: RecordType,
        *,
        decoder: Decoder,
        schemas: CachedSchemas,
        writer: Writer,
        heads: Heads,
        dead_letters: DeadLetters,
        deduplicator: Deduplicator,
        gap_ledger: GapLedger,
        handover: Handover,
        file_writer: Executor,
        settings: IngestionSettings,
        clock: Clock,
        observer: events.Observer,
        check_topics: Callable[[set[str]], None],
        shedding: Shedding,
        ladder: Ladder,
        spill: Spill | NoSpill,
        watchers: Sequence[BatchWatcher] = (),
    ) -> None:
        self.table = record_type.name
        self._record_type = record_type
        self._columns = list(polars_schema(record_type))
        self._decoder = decoder
        self._schemas = schemas
        self._writer = writer
        self._heads = heads
        self._dead_letters = dead_letters
        self._deduplicator = deduplicator
        self._gap_ledger = gap_ledger
        self._handover = handover
        self._file_writer = file_writer
        self._settings = settings
        self._clock = clock
        self._observe = observer
        self._check_topics = check_topics
        self._shedding = shedding
        self._ladder = ladder
        self._spill = spill
        self._watchers = tuple(watchers)
        self._pending = Pending()
        self._prepared: Prepared | None = None
        self._waiting: list[Chunk] = []
        self._is_cut = False
        self._sink = SinkWatch(ladder)
        self._oldest_epoch = 0
        self._commit_sequence = 0
        self._logs: Mapping[int, RegisteredLog] = {}
        self._interval_seconds = min(settings.first_commit_seconds, settings.commit_interval_seconds)
        self._failures = 0
        self._retry_at = 0.0
        self.stopped: str | None = None

    # What the writer's loop asks.

    def wants_chunks(self) -> bool:
        """Say whether the lane can decode more now."""
        return not (self.stopped or self._waiting or self._is_full() or self._is_overdue())

    @property
    def is_idle(self) -> bool:
        """Say whether nothing waits for a commit."""
        return not (self._prepared or self._pending or self._waiting)

    @property
    def is_between_batches(self) -> bool:
        """Say whether no batch is on its way into the table."""
        return self._prepared is None

    def lists_changed(self, seam: Seam) -> None:
        """Take the deferred lists from the head that a backfill of this worker has made."""
        self._take_note_of_backfills(self._shedding.backfilled(seam))

    def seconds_to_next_step(self) -> float | None:
        """Return how long until the lane has something to do by itself, or None."""
        if self.stopped or self.is_idle:
            return None
        return max(0.0, self._due_at() - self._clock.monotonic())

    def _due_at(self) -> float:
        if self._prepared and self._prepared.written and not self._prepared.written.done():
            return math.inf  # the file writer nudges when it is done
        if self._prepared or self._waiting or self._is_full():
            return self._retry_at
        return max(self._retry_at, self._pending.oldest_arrival + self._interval_seconds)

    def _is_full(self) -> bool:
        enough = self._pending.records_kept >= self._settings.commit_rows_max
        return enough or self._pending.nbytes >= self._settings.pending_bytes_max

    def _is_overdue(self) -> bool:
        """Say whether the next batch should be under way, while the one before is: then the sink is too slow."""
        began = self._pending.began
        if self._prepared is None or began is None:
            return False
        return self._clock.monotonic() - began >= self._settings.commit_interval_seconds

    # Steps; each handles its own errors, so that the loop never sees one.

    def add(self, chunks: list[Chunk]) -> None:
        """Decode chunks; those that cannot be decoded now wait and are tried again."""
        self._waiting.extend(chunks)
        if not self.stopped:
            self._guarded(self._decode_waiting)

    def step(self) -> None:
        """Do what is due: decode again what failed, commit what is old or large enough."""
        if not self.stopped:
            self._watch_quiet()
            self._relieve()
        if self.stopped or self.is_idle or self._clock.monotonic() < self._due_at():
            return
        if self._prepared is None:
            self._guarded(self._decode_waiting)
        if self._prepared or self._is_cut or not self._waiting:
            self._guarded(self._commit)

    def _watch_quiet(self) -> None:
        try:
            self._gap_ledger.watch_quiet()
        except AccountingError as error:
            self._stop(error)
        except K2Error as error:  # nothing waits for it: the next look comes by itself
            log.warning("quiet_partitions_not_watched", table=self.table, error=str(error))

    def flush(self, seconds: float, *, gives_way: bool = False) -> bool:
        """Commit all that is decoded, due or not, until it `gives_way` to a flush; True if nothing is left in time."""
        deadline = self._clock.monotonic() + seconds
        self._sink.try_in_any_case()
        while not (self.stopped or self.is_idle):
            if not self._guarded(self._decode_waiting) or not self._guarded(self._commit):
                return False
            if self._prepared and self._prepared.written:
                left = deadline - self._clock.monotonic()
                if left <= 0 or not self._handover.wait_for_files(self._prepared.written, left, gives_way=gives_way):
                    return False
        return self.is_idle

    def _guarded(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except FencedError as error:
            self._drop(error)
        except (AccountingError, LogIdentityError) as error:
            self._stop(error)
            return False
        except K2Error as error:
            self._fail(error)
            return False
        except Exception as error:  # the edge of the loop: whatever it is, the batch is kept and tried again
            log.exception("ingest_step_failed", table=self.table)
            self._fail(error)
            return False
        return True

    # Decoding.

    def _decode_waiting(self) -> None:
        if any(chunk.log.log_id not in self._logs for chunk in self._waiting):  # a log registered since the last look
            self._learn(self._heads.head(self.table))
        self._waiting = joined(self._waiting, records_max=self._settings.decode_messages_max)
        while self._waiting and not self._is_cut:
            if self._decode(self._waiting[0]):
                self._waiting.pop(0)
        self._relieve()

    def _relieve(self) -> None:
        """Give back the memory of what has to wait, where the level and a slow sink or short memory ask for it."""
        if self._ladder.level >= DegradationLevel.AGGRESSIVE and (
            self._ladder.is_short_of_memory() or self._is_overdue()
        ):
            self._spill.relieve(self._pending)

    def _decode(self, chunk: Chunk) -> bool:
        """Sort and decode a chunk; False if the batch must be committed first, since it was sorted otherwise."""
        if chunk.epoch <= self._oldest_epoch:
            return True
        if not self._pending.fits(chunk):
            self._pending.drop(chunk.log)
        batches = [self._pending] if self._prepared is None else [self._prepared.pending, self._pending]
        held = [part for batch in batches if (part := batch.partitions.get(chunk.log)) is not None]
        if not self._shedding.reaches(chunk.log, held, chunk.start):  # others went on with it, and may have deferred
            self._learn(self._heads.head(self.table))
        predicate, halts = self._shedding.in_force(chunk.log, held), self._shedding.halted(chunk.log, held)
        if not self._pending.takes(chunk.log, predicate, halts):
            self._is_cut = True
            return False
        found = self._shedding.sort(chunk, predicate, halts)
        decoded = self._decoder.decode(found.batch, log_id=chunk.log.log_id)
        self._pending.add(chunk, decoded, found, at=self._clock.monotonic(), predicate=predicate)
        crash_points.reached("after_decode")
        return True

    # Committing.

    def _commit(self) -> None:
        if self._prepared is None:
            if not self._pending:
                return
            self._prepared = self._prepare()
        prepared = self._prepared
        if not self._sink.may_try():
            self._retry_at = self._clock.monotonic() + _SINK_LOOK_SECONDS
            return
        if not self._files_are_written(prepared):
            self._decode_waiting()  # what waited for the batch to be cut
            return
        check_ledger(self.table, prepared.deltas, rows_in_files=sum(file.rows for file in prepared.files or ()))
        self._see_that_topics_are_unchanged(prepared)
        watched = self._watched(prepared)
        self._send_dead_letters(prepared)
        self._sink.told(lambda: self._gap_ledger.record(watched))
        crash_points.reached("after_side_tables")
        started = self._clock.monotonic()
        commit = self._sink.told(lambda: self._writer.commit(prepared.batch))
        self._sink.succeeded()
        self._gap_ledger.committed(watched, commit.seam.commit_sequence)
        self._committed(prepared, commit, self._clock.monotonic() - started)

    def _see_that_topics_are_unchanged(self, prepared: Prepared) -> None:
        try:
            self._check_topics({part.topic for part in prepared.pending.partitions.values()})
        except LogIdentityError as error:
            raise FencedError(str(error)) from error

    def _prepare(self) -> Prepared:
        pending, self._pending, self._is_cut = self._pending, Pending(), False
        deferral = self._shedding.deferral(pending)
        return Prepared(str(uuid.uuid4()), pending, self._schemas.newly_met, self._clock.time_ns(), deferral)

    def _files_are_written(self, prepared: Prepared) -> bool:
        """Have the files written beside this thread, which decodes the next batch meanwhile; True once they are."""
        if prepared.files is not None:
            return True
        if prepared.written is None:
            prepared.written = self._file_writer.submit(self._write_files, prepared)
            prepared.written.add_done_callback(lambda _: self._handover.nudge_writer())
        if not prepared.written.done():
            return False
        written, prepared.written = prepared.written, None
        prepared.files = self._sink.told(written.result)
        prepared.deltas = prepared.pending.deltas(prepared.decisions)
        return True

    def _write_files(self, prepared: Prepared) -> tuple[WrittenFile, ...]:
        """Write the batch's rows less duplicates; runs in the file writer's thread, on what no other thread changes."""
        started = self._clock.monotonic()
        prepared.decisions = self._deduplicator.decide(prepared.pending.parts())
        frames = [frame for decision in prepared.decisions.values() for frame in decision.kept if frame.height]
        files = self._writer.write_files(self._rows(frames)) if frames else ()
        prepared.write_seconds = self._clock.monotonic() - started
        return files

    def _rows(self, frames: list[pl.DataFrame]) -> pl.DataFrame:
        rows = pl.concat(frames).with_columns(
            commit_sequence=pl.lit(self._commit_sequence + 1, pl.Int64), written_by=pl.lit(WrittenBy.INGEST)
        )
        return rows.select(self._columns)

    def _watched(self, prepared: Prepared) -> Watched:
        if prepared.watched is None:
            kept = prepared.pending.kept(prepared.decisions, self._shedding.left_out(prepared.pending))
            watched = self._gap_ledger.watch(kept, self._logs)
            self._shedding.halt(watched.halts)
            prepared.watched = watched
        return prepared.watched

    def _send_dead_letters(self, prepared: Prepared) -> None:
        for key, part in prepared.pending.partitions.items():
            if part.bad and key not in prepared.recorded:
                topic_id = self._logs[key.log_id].topic_id
                if key not in prepared.published:
                    self._dead_letters.publish(part.topic, topic_id, part.bad)
                    prepared.published.add(key)
                self._dead_letters.record(self.table, key.log_id, part.topic, topic_id, part.bad)
                prepared.recorded.add(key)

    def _committed(self, prepared: Prepared, commit: Commit, commit_seconds: float) -> None:
        self._prepared = None
        self._interval_seconds = self._settings.commit_interval_seconds
        self._failures, self._retry_at = 0, 0.0
        self._commit_sequence = max(self._commit_sequence, commit.seam.commit_sequence)
        self._schemas.recorded(prepared.schemas)
        number = 0 if commit.found else commit.seam.commit_sequence  # of an older try, only the head's is known
        self._deduplicator.committed(prepared.decisions, prepared.deltas, number)
        self._handover.ask_consumer(Committed(self.table, {key: delta.end for key, delta in prepared.deltas.items()}))
        self._take_note_of_backfills(self._shedding.committed(commit.seam, prepared.pending))
        self._show(prepared)
        for event in prepared.told(self.table, commit, commit_seconds):
            self._observe(event)

    def _show(self, prepared: Prepared) -> None:
        """Show the batch to those who watch, unless their time is needed elsewhere or they would miss some of it."""
        is_whole = all(part.predicate is None for part in prepared.pending.partitions.values())
        if is_whole and self._ladder.level < DegradationLevel.SOFT:
            show(self._watchers, self.table, prepared.pending.parts())
        else:
            skip(self._watchers, self.table)

    # When it cannot go on.

    def _drop(self, error: FencedError) -> None:
        """Drop everything held: another writer owns some of it; the consumer seeks to the seam and reads on there."""
        self._observe(events.BatchFenced(self.table, self._forget(), str(error)))
        self._handover.ask_consumer(Reposition(self.table))

    def _fail(self, error: Exception) -> None:
        """Keep what is held and try again after a pause, which doubles from failure to failure."""
        settings = self._settings
        pause = min(settings.retry_pause_seconds * 2 ** min(self._failures, 30), settings.retry_pause_seconds_max)
        self._failures += 1
        self._retry_at = self._clock.monotonic() + pause
        self._observe(events.CommitFailed(self.table, self._failures, f"{type(error).__name__}: {error}", pause))

    def _stop(self, error: AccountingError | LogIdentityError) -> None:
        self.stopped = f"{type(error).__name__}: {error}"
        self._forget()
        self._observe(events.TableStopped(self.table, self.stopped))
        self._handover.ask_consumer(Abandon(self.table))

    def _forget(self) -> int:
        self._sink.given_up()
        records = self._pending.records + sum(len(chunk.batch) for chunk in self._waiting)
        if self._prepared is not None:
            records += self._prepared.pending.records
        self._oldest_epoch = self._handover.epoch
        self._handover.discard(self.table)
        self._pending, self._prepared, self._waiting, self._is_cut = Pending(), None, [], False
        self._failures, self._retry_at, self._logs = 0, 0.0, {}
        return records

    def _learn(self, head: TableHead) -> None:
        self._logs = {entry.log_id: entry for entry in head.logs}
        self._commit_sequence = head.seam.commit_sequence
        self._schemas.learn(head.schemas)
        self._take_note_of_backfills(self._shedding.learn(head))

    def _take_note_of_backfills(self, written: Mapping[LogPartition, int]) -> None:
        """Let go of what is remembered without the rows that others have written since, of offsets passed before."""
        self._deduplicator.written_elsewhere(written)
        self._gap_ledger.written_elsewhere(written)
