"""The ingest worker: takes records from the log into the tables, each exactly once, on three threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from k2.common.errors import K2Error, MemberFencedError
from k2.common.logging import get_logger
from k2.ingestion import events
from k2.ingestion.backfill.making import BackfillMaker
from k2.ingestion.backfill.releasing import GoingOn, NothingReleased
from k2.ingestion.duplicates.deduplicator import KeepAll
from k2.ingestion.handover import Handover
from k2.ingestion.intake import Intake
from k2.ingestion.overload.flows import Flows
from k2.ingestion.overload.parts import OverloadParts
from k2.ingestion.overload.shedding import Shedding
from k2.ingestion.positioner import Positioner
from k2.ingestion.sequences.ledger import GapLedger
from k2.ingestion.sequences.markers import NoMarkers
from k2.ingestion.table_lane import TableLane
from k2.ingestion.writer_loop import WriterLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Executor

    from k2.common.clock import Clock
    from k2.ingestion.backfill.making import RangeParts
    from k2.ingestion.backfill.releasing import Releases
    from k2.ingestion.dead_letters.collector import DeadLetters
    from k2.ingestion.duplicates.deduplicator import Deduplicator
    from k2.ingestion.lane_ports import Decoder, Writer
    from k2.ingestion.positioner import Cluster, Tables
    from k2.ingestion.sequences.checkpoints import Checkpoints
    from k2.ingestion.sequences.filling import GapLog
    from k2.ingestion.sequences.markers import Markers
    from k2.ingestion.sequences.ports import GapTable, RowSource
    from k2.ingestion.settings import IngestionSettings
    from k2.ingestion.watching.watchers import BatchWatcher
    from k2.kafka.ports import GroupedReader, TopicPartition
    from k2.kafka.registry import CachedSchemas
    from k2.schemas.records import RecordType

log = get_logger(__name__)

_LOOK_SECONDS: Final = 0.02


class ReaderFactory(Protocol):
    """Makes the group's reader, with the worker's callbacks."""

    def __call__(
        self,
        topics: Sequence[str],
        *,
        on_assign: Callable[[Sequence[TopicPartition]], Mapping[TopicPartition, int]],
        on_revoke: Callable[[Sequence[TopicPartition]], None],
    ) -> GroupedReader:
        """Join the group."""
        ...


@dataclass(frozen=True, slots=True)
class TableParts:
    """What one table needs: its decoder asks `schemas`, which must be the same object as here."""

    record_type: RecordType
    decoder: Decoder
    schemas: CachedSchemas
    writer: Writer
    deduplicator: Deduplicator = field(default_factory=KeepAll)
    watchers: Sequence[BatchWatcher] = ()
    markers: Markers = field(default_factory=NoMarkers)
    ranges: RangeParts | None = None
    """What writes the table's deferred ranges; None where others do."""


class Expiry(Protocol):
    """What keeps the number of snapshots small, beside the commits."""

    def start(self) -> None:
        """Begin."""
        ...

    def after_commit(self, table_name: str) -> None:
        """Count a commit."""
        ...

    def stop(self) -> None:
        """End."""
        ...


class IngestWorker:
    """One member of the group: one thread consumes, one decodes and commits, one sorts and writes files."""

    def __init__(
        self,
        *,
        settings: IngestionSettings,
        table_of: Mapping[str, str],
        tables: Tables,
        cluster: Cluster,
        parts: Iterable[TableParts],
        dead_letters: DeadLetters,
        scopes: Mapping[str, str],
        rows: RowSource,
        gaps: GapTable,
        gap_log: GapLog | None = None,
        gap_checkpoints: Checkpoints | None = None,
        make_reader: ReaderFactory,
        expiry: Expiry,
        clock: Clock,
        observer: events.Observer,
        overload: OverloadParts | None = None,
        releases: Releases | None = None,
        wait_for_writer: Callable[[threading.Event, float], bool] = threading.Event.wait,
        file_writer: Executor | None = None,
        closing: Sequence[Callable[[], None]] = (),
    ) -> None:
        """Put the worker together. `closing` is called when `run` ends.

        `table_of` maps the topics read to tables, `scopes` those with numbers to watch to the column (symbol or
        channel) that tells their streams apart.
        """
        parts, overload, flows = tuple(parts), overload or OverloadParts(), Flows()
        self._settings = settings
        self._table_of = dict(table_of)
        self._make_reader = make_reader
        self._dead_letters = dead_letters
        self._closing = tuple(closing)
        self._expiry = expiry
        self._clock = clock
        self._observe = events.Observers(observer, self._count_commit)
        self.handover = Handover(sorted(part.record_type.name for part in parts))
        positioner = self._positioner = Positioner(
            tables, cluster, self._table_of, clock=clock, log_end_grace_seconds=settings.log_end_grace_seconds
        )
        self.intake = Intake(
            positioner=positioner,
            cluster=cluster,
            handover=self.handover,
            table_of=self._table_of,
            settings=settings,
            clock=clock,
            observer=self._observe,
            ladder=overload.ladder,
            flows=flows,
            wait_for_writer=wait_for_writer,
        )
        self._file_writer = file_writer or ThreadPoolExecutor(max_workers=1, thread_name_prefix="k2-ingest-files")
        lanes = [
            TableLane(
                part.record_type,
                decoder=part.decoder,
                schemas=part.schemas,
                writer=part.writer,
                heads=tables,
                dead_letters=dead_letters,
                deduplicator=part.deduplicator,
                gap_ledger=GapLedger(
                    part.record_type.name,
                    scopes=scopes if settings.sequences.enabled else {},
                    rows=rows,
                    gaps=gaps,
                    settings=settings.sequences,
                    clock=clock,
                    observer=self._observe,
                    log_ends=cluster,
                    markers=part.markers,
                    history=gap_log,
                    checkpoints=gap_checkpoints,
                ),
                handover=self.handover,
                file_writer=self._file_writer,
                settings=settings,
                clock=clock,
                observer=self._observe,
                check_topics=positioner.check_topics,
                shedding=Shedding(
                    part.record_type.name,
                    ladder=overload.ladder,
                    flows=flows,
                    tiers=overload.tiers,
                    keys_max=overload.keys_max,
                ),
                ladder=overload.ladder,
                spill=overload.spill,
                watchers=part.watchers,
            )
            for part in parts
        ]
        backfills = BackfillMaker(
            heads=tables,
            log_ends=cluster,
            dead_letters=dead_letters,
            check_topics=positioner.check_topics,
            owned=self.intake.owned,
            ladder=overload.ladder,
            must_give_way=lambda: self.handover.is_flush_asked,
            settings=settings.backfill,
            clock=clock,
            observer=self._observe,
            going_on=GoingOn(releases or NothingReleased(), settings.sequences.halt_seconds, clock),
        )
        backfillers = {
            part.record_type.name: backfills.make(part.record_type.name, part.ranges, part.decoder, part.schemas)
            for part in parts
            if part.ranges is not None
        }
        self.writer_loop = WriterLoop(
            lanes, handover=self.handover, settings=settings, clock=clock, backfillers=backfillers
        )
        self._writer_stop = threading.Event()

    @property
    def table_names(self) -> tuple[str, ...]:
        """The tables that this worker writes."""
        return tuple(self.writer_loop.lanes)

    def accept_new_logs(self, topics: Iterable[str]) -> None:
        """Let these topics be registered as new logs of their tables, where they are not the logs known."""
        self._positioner.accept_new_logs(topics)

    def silent_seconds(self) -> float:
        """Return how long ago the slower of the two threads began its last step."""
        return self._clock.monotonic() - min(self.intake.last_step_at, self.writer_loop.last_step_at)

    def run(self, stop: threading.Event) -> None:
        """Ingest until `stop` is set; then commit what has come, within a bound, and leave the group.

        Raises:
            MemberFencedError: another process took this one's place; what it had not committed, that one reads.
        """
        writer = threading.Thread(target=self._write, name="k2-ingest-writer", daemon=True)
        self._writer_stop.clear()
        self._expiry.start()
        writer.start()
        try:
            reader = self._join(stop)
            if reader is not None:
                self._consume(reader, stop)
        finally:
            self._writer_stop.set()
            writer.join(self._settings.shutdown_seconds)
            self._file_writer.shutdown(wait=False, cancel_futures=True)
            self._dead_letters.close()
            self._expiry.stop()
            for close in self._closing:
                close()

    def run_until(self, ends: Mapping[TopicPartition, int], *, timeout_seconds: float) -> bool:
        """Ingest until every partition of `ends` is in its table up to there; return whether that was in time."""
        stop = threading.Event()
        runner = threading.Thread(target=self.run, args=(stop,), name="k2-ingest-run", daemon=True)
        deadline = self._clock.monotonic() + timeout_seconds
        runner.start()
        while runner.is_alive() and self._clock.monotonic() < deadline:
            if _reached(self.intake.positions(), ends):
                break
            runner.join(_LOOK_SECONDS)
        stop.set()
        runner.join()
        return _reached(self.intake.last_seams, ends)

    def _join(self, stop: threading.Event) -> GroupedReader | None:
        """Make the reader; a cluster that cannot be reached is tried again until `stop`."""
        failures = 0
        while not stop.is_set():
            try:
                reader = self._make_reader(
                    sorted(self._table_of), on_assign=self.intake.on_assign, on_revoke=self.intake.on_revoke
                )
            except K2Error as error:
                failures += 1
                self._observe(events.ReadFailed(events.Reading.JOIN, str(error), failures))
                self.intake.last_step_at = self._clock.monotonic()
                stop.wait(min(self._settings.retry_pause_seconds * 2**failures, self._settings.retry_pause_seconds_max))
            else:
                self.intake.use(reader)
                self._observe(events.ReadRecovered(events.Reading.JOIN))
                return reader
        return None

    def _consume(self, reader: GroupedReader, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                try:
                    self.intake.step()
                except MemberFencedError:
                    raise
                except Exception:  # the edge of the loop: a surprise is told and does not end the worker
                    log.exception("intake_step_failed")
                    stop.wait(self._settings.retry_pause_seconds)
            self.intake.finish()
        finally:
            reader.close()

    def _write(self) -> None:
        while not self._writer_stop.is_set():
            try:
                self.writer_loop.step()
            except Exception:  # the edge of the loop: lanes handle their own errors
                log.exception("writer_step_failed")
                self._writer_stop.wait(self._settings.retry_pause_seconds)
        self.writer_loop.close()

    def _count_commit(self, event: events.Event) -> None:
        if isinstance(event, events.BatchCommitted | events.BackfillCommitted):
            self._expiry.after_commit(event.table)


def _reached(positions: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> bool:
    return all(positions.get(key, -1) >= end for key, end in ends.items())
