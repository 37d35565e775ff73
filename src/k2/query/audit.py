"""Audits tables against the log, record by record, by their coordinates: nothing is decoded, nothing is trusted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from k2.common.errors import LogIdentityError, UnavailableError
from k2.query.audit_compare import Compared, LogWindow, list_problems
from k2.query.audit_gaps import counted_gaps
from k2.query.audit_report import AuditReport, PartitionAudit
from k2.query.audit_sources import repeated_records
from k2.query.following import Refused, decide, misfit
from k2.query.scan import files_source
from k2.schemas.records import RECORD_TYPES, RecordType, WrittenBy
from k2.storage.file_checks import FileChecks
from k2.storage.seam import LogPartition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from k2.common.clock import Clock
    from k2.kafka.ports import AssignedReader, LogIdentity, LogRange, TopicPartition
    from k2.kafka.topics import Topic
    from k2.query.audit_gaps import Gaps
    from k2.query.ports import LogFacts, OpenReader, Plans
    from k2.query.scan import Scanner
    from k2.query.settings import QuerySettings
    from k2.storage.planning import PinnedSnapshot, PlannedFile
    from k2.storage.seam import PartitionSeam
    from k2.storage.tables import GivenUp, RegisteredLog

    Numbers = NDArray[np.int64]

_POLL_RECORDS: Final = 100_000
_WAIT_POLL_SECONDS: Final = 0.25


class DeadLetterCoordinates(Protocol):
    """Tells which coordinates have a dead letter."""

    def offsets(self, topic_id: str, partition: int) -> list[int]:
        """Return the offset of each dead letter of one partition."""
        ...


class Auditor:
    """Compares the tables with the log; memory is bounded by the window of offsets that it compares at a time."""

    def __init__(
        self,
        topics: Sequence[Topic],
        *,
        planner: Plans,
        log_facts: LogFacts,
        open_reader: OpenReader,
        dead_letters: DeadLetterCoordinates,
        gaps: Gaps,
        scanner: Scanner,
        settings: QuerySettings,
        clock: Clock,
    ) -> None:
        self._topics = tuple(topics)
        self._planner = planner
        self._log_facts = log_facts
        self._open_reader = open_reader
        self._dead_letters = dead_letters
        self._gaps = gaps
        self._scanner = scanner
        self._checks = FileChecks(check_contents=settings.check_files, files_max=settings.checked_files_max)
        self._settings = settings
        self._clock = clock
        self._deadline = float("inf")

    def verify(self, *, wait_seconds: float = 0.0) -> AuditReport:
        """Audit every table, after waiting at most `wait_seconds` for ingestion to catch up with the log.

        Raises:
            UnavailableError: the log or the tables are out of reach, or the audit takes too long.
            LogIdentityError: the log is not the one that a table was built from.
            CorruptionError: a data file is not what was written; it is named.
        """
        began = self._clock.monotonic()
        self._wait(began + wait_seconds)
        self._deadline = self._clock.monotonic() + self._settings.audit_seconds_max
        partitions: list[PartitionAudit] = []
        problems: list[str] = []
        for record_type in RECORD_TYPES.values():
            pinned = self._planner.pin(record_type.name)
            found, more = self._table(record_type, pinned)
            partitions += found
            problems += more
        seconds = round(self._clock.monotonic() - began, 3)
        return AuditReport(tuple(partitions), tuple(problems), seconds, counted_gaps(self._gaps))

    def _wait(self, until: float) -> None:
        while self._clock.monotonic() < until and self._is_behind():
            self._clock.sleep(_WAIT_POLL_SECONDS)

    def _is_behind(self) -> bool:
        heads = {name: self._planner.pin(name).head for name in RECORD_TYPES}
        for (name, number), extent in self._log_facts.ranges([topic.name for topic in self._topics]).items():
            topic = next(topic for topic in self._topics if topic.name == name)
            head = heads[topic.data_type]
            log = head.log_of(name)
            seam = None if log is None else head.seam.next_offset(LogPartition(log.log_id, number))
            if (extent.start if seam is None else seam) < extent.end:
                return True
        return False

    def _table(self, record_type: RecordType, pinned: PinnedSnapshot) -> tuple[list[PartitionAudit], list[str]]:
        head = pinned.head
        topics = {topic.name: topic for topic in self._topics if topic.data_type == record_type.name}
        names = sorted(topics.keys() | {log.topic for log in head.logs})
        identities = self._log_facts.identities(names)
        ranges = self._log_facts.ranges([name for name in names if name in identities])
        files = self._planner.plan(pinned)
        paths = self._intact(files)
        stored = self._stored(record_type, paths)
        repeated = repeated_records(
            self._scanner,
            record_type,
            files,
            rows_max=self._settings.audit_rows_at_once_max,
            check_time=self._check_time,
        )
        audits = [
            self._partition(record_type, pinned, log, number, paths, stored.pop((log.log_id, number), 0), ranges)
            for log in head.logs
            if self._is_live(log, topics.get(log.topic), pinned, identities)
            for number in range(log.partitions)
        ]
        audits += [
            self._by_counters(record_type, pinned, log, number, paths, stored.pop((log.log_id, number), 0))
            for log in head.logs
            if head.log_of(log.topic) != log
            for number in range(log.partitions)
        ]
        audits = [_with_repeated(audit, repeated) for audit in audits]
        registered = {log.topic for log in head.logs}
        audits += [
            _unread(record_type.name, name, number, extent)
            for (name, number), extent in sorted(ranges.items())
            if name not in registered
        ]
        problems = [
            f"market.{record_type.name} has {count} rows of log {log_id} partition {number}, which it has not "
            "registered: look for a writer that is not K2"
            for (log_id, number), count in stored.items()
        ]
        return audits, [*problems, *list_problems(record_type.name, head.seam)]

    def _intact(self, files: Iterable[PlannedFile]) -> list[str]:
        """Return the paths of the files; a bit flipped in a coordinate would be told as a loss."""
        paths = []
        for file in files:
            self._check_time()
            paths += self._checks.require([file])
        return paths

    def _is_live(
        self,
        log: RegisteredLog,
        topic: Topic | None,
        pinned: PinnedSnapshot,
        identities: Mapping[str, LogIdentity],
    ) -> bool:
        """Tell whether a log is the one on the broker now; an older log of the same topic is not.

        Raises:
            LogIdentityError: the newest log of the topic is not on the broker.
        """
        if pinned.head.log_of(log.topic) != log:
            return False
        identity = identities.get(log.topic)
        if topic is None or identity is None:
            raise LogIdentityError(
                f"expected the topic {log.topic} (id {log.topic_id}), which market.{pinned.head.table_name} was built "
                "from, found none: is this the right broker (K2_KAFKA__BOOTSTRAP_SERVERS), and the right topics file?"
            )
        decision = decide(topic, pinned.head, identity, {})  # its identity only: what it holds is compared below
        if isinstance(decision, Refused):
            raise LogIdentityError(decision.reason)
        return True

    def _partition(
        self,
        record_type: RecordType,
        pinned: PinnedSnapshot,
        log: RegisteredLog,
        number: int,
        paths: list[str],
        rows: int,
        ranges: Mapping[TopicPartition, LogRange],
    ) -> PartitionAudit:
        at = LogPartition(log.log_id, number)
        known = pinned.head.seam.partitions[at]
        extent = ranges[log.topic, number]
        if extent.end < known.next_offset:
            raise LogIdentityError(
                misfit(pinned.head.table_name, log.topic, number, known.next_offset, extent) or "the log is too short"
            )
        start, seam = log.starts.get(number, 0), known.next_offset
        left_out = [one for one in pinned.head.given_up if one.key == at]
        letters = self._dead_letters.offsets(log.topic_id, number)
        dead = np.array([o for o in letters if o < seam], dtype=np.int64)
        settled = list(pinned.head.settled.get(at, ()))
        dead = dead[~np.isin(dead, [*self._replayed(record_type, log, number, paths), *settled])]
        done = self._compare(record_type, log, number, paths, dead, range(start, seam), extent, left_out)
        counts, whole = known.counts, extent.start <= start
        done.not_in_log += rows - done.rows
        problems = list(_ledger_problems(known, rows, len(dead), done.present if whole else None))
        if extent.start > seam:
            problems.append(misfit(record_type.name, log.topic, number, seam, extent) or "")
        return PartitionAudit(
            table=record_type.name,
            topic=log.topic,
            partition=number,
            log_id=log.log_id,
            seam=seam,
            log_start=extent.start,
            log_end=extent.end,
            messages=done.present if whole else counts.consumed,
            rows=rows,
            duplicates=counts.duplicates,
            dead_letters=len(dead),
            deferred=counts.deferred,
            lost=done.lost(known) - sum(one.records for one in left_out),
            given_up=sum(one.records for one in left_out),
            doubled=done.doubled,
            not_in_log=done.not_in_log,
            pending=extent.end - max(seam, extent.start),
            compared_with_log=whole,
            problems=tuple(problems),
        )

    def _by_counters(
        self,
        record_type: RecordType,
        pinned: PinnedSnapshot,
        log: RegisteredLog,
        number: int,
        paths: list[str],
        rows: int,
    ) -> PartitionAudit:
        """Audit a partition of a log that is gone: the counters of the seam stand in for it."""
        known = pinned.head.seam.partitions[LogPartition(log.log_id, number)]
        counts, letters = known.counts, self._dead_letters.offsets(log.topic_id, number)
        at = LogPartition(log.log_id, number)
        given_up = sum(one.records for one in pinned.head.given_up if one.key == at)
        replayed = {*self._replayed(record_type, log, number, paths).tolist(), *pinned.head.settled.get(at, ())}
        dead = sum(offset not in replayed for offset in letters)
        gone = f"{counts.deferred} records that were put off went with the log: its topic was created again"
        return PartitionAudit(
            table=record_type.name,
            topic=log.topic,
            partition=number,
            log_id=log.log_id,
            seam=known.next_offset,
            log_start=known.next_offset,
            log_end=known.next_offset,
            messages=counts.consumed,
            rows=rows,
            duplicates=counts.duplicates,
            dead_letters=dead,
            deferred=0,
            lost=counts.lost + counts.deferred + max(known.rows_held - rows, 0) - given_up,
            given_up=given_up,
            doubled=max(rows - known.rows_held, 0),
            not_in_log=0,
            pending=0,
            compared_with_log=False,
            problems=(*_ledger_problems(known, rows, dead, None), *([gone] if counts.deferred else [])),
        )

    def _compare(
        self,
        record_type: RecordType,
        log: RegisteredLog,
        number: int,
        paths: list[str],
        dead: Numbers,
        offsets: range,
        extent: LogRange,
        left_out: Sequence[GivenUp],
    ) -> Compared:
        """Compare the coordinates of [start, seam), window by window."""
        done = Compared(given_up=tuple((one.start, one.end) for one in left_out))
        held = max(offsets.start, extent.start)
        reader = self._open_reader()
        try:
            if held < offsets.stop:
                reader.assign({(log.topic, number): held})
            window = LogWindow(reader, (log.topic, number), self._poll)
            first = offsets.start
            while first < offsets.stop:
                last = min(first + self._settings.audit_window_offsets, held if first < held else offsets.stop)
                last = min(last, offsets.stop)
                rows = self._offsets(record_type, log, number, paths, first, last)
                in_log = None if first < held else window.present(first, last)
                done.add(first, last, in_log, rows, dead[(dead >= first) & (dead < last)])
                first = last
        finally:
            reader.close()
        return done

    def _poll(self, reader: AssignedReader) -> list[int]:
        """Return the offsets that one poll gives."""
        self._check_time()
        batches = reader.poll(_POLL_RECORDS, self._settings.tail_poll_seconds)
        return [offset for batch in batches for offset in batch.offsets]

    def _check_time(self) -> None:
        if self._clock.monotonic() > self._deadline:
            raise UnavailableError(
                f"the audit takes longer than {self._settings.audit_seconds_max:g} s (K2_QUERY__AUDIT_SECONDS_MAX): "
                "raise the limit, or see whether the broker answers (`k2 status`)",
                dependency="kafka",
            )

    def _stored(self, record_type: RecordType, paths: list[str]) -> dict[tuple[int, int], int]:
        if not paths:
            return {}
        source = files_source(record_type)
        statement = f"SELECT log_id, log_partition, count(*) AS rows FROM {source} GROUP BY ALL"  # noqa: S608 - fixed text
        found = self._scanner.fetch(statement, {}, files=paths).to_pylist()
        return {(row["log_id"], row["log_partition"]): row["rows"] for row in found}

    def _offsets(
        self, record_type: RecordType, log: RegisteredLog, number: int, paths: list[str], first: int, last: int
    ) -> Numbers:
        if not paths:
            return np.array([], dtype=np.int64)
        statement = f"SELECT log_offset FROM {files_source(record_type)} WHERE {_WITHIN}"  # noqa: S608 - fixed text
        values = {"log": log.log_id, "number": number, "first": first, "last": last}
        found: Numbers = self._scanner.fetch(statement, values, files=paths)["log_offset"].to_numpy()
        return found

    def _replayed(self, record_type: RecordType, log: RegisteredLog, number: int, paths: list[str]) -> Numbers:
        """Return the offsets of rows that a replay stored: no dead letters, whether they are marked yet or not."""
        if not paths:
            return np.array([], dtype=np.int64)
        statement = f"SELECT log_offset FROM {files_source(record_type)} WHERE {_REPLAYED}"  # noqa: S608 - fixed text
        values = {"log": log.log_id, "number": number, "replay": WrittenBy.REPLAY}
        found: Numbers = self._scanner.fetch(statement, values, files=paths)["log_offset"].to_numpy()
        return found


_REPLAYED: Final = "log_id = $log AND log_partition = $number AND written_by = $replay"
_WITHIN: Final = "log_id = $log AND log_partition = $number AND log_offset >= $first AND log_offset < $last"


def _ledger_problems(seam: PartitionSeam, rows: int, dead_letters: int, messages: int | None) -> Iterator[str]:
    counts = seam.counts
    if counts.unaccounted:
        yield f"the ledger of the seam does not add up: {counts.unaccounted} records of {counts.consumed} have no fate"
    if seam.rows_held != rows:
        yield f"the ledger of the seam says {seam.rows_held} rows, the table has {rows}"
    if counts.dead_letters != dead_letters:
        yield f"the ledger of the seam says {counts.dead_letters} dead letters, market.dead_letters has {dead_letters}"
    if messages is not None and counts.consumed != messages:
        yield f"the ledger of the seam says that {counts.consumed} records were consumed, the log has {messages}"


def _with_repeated(audit: PartitionAudit, repeated: Mapping[tuple[int, int], int]) -> PartitionAudit:
    count = 0 if audit.log_id is None else repeated.get((audit.log_id, audit.partition), 0)
    return replace(audit, repeated=count, doubled=audit.doubled + count)


def _unread(table: str, topic: str, number: int, extent: LogRange) -> PartitionAudit:
    return PartitionAudit(
        table=table,
        topic=topic,
        partition=number,
        log_id=None,
        seam=extent.start,
        log_start=extent.start,
        log_end=extent.end,
        messages=0,
        rows=0,
        duplicates=0,
        dead_letters=0,
        deferred=0,
        lost=0,
        doubled=0,
        not_in_log=0,
        pending=extent.end - extent.start,
        compared_with_log=True,
    )
