"""Replays dead letters: decodes the bytes again, and stores what is a record now, once, at its own coordinate."""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import polars as pl

from k2.common import crash_points
from k2.common.errors import LogIdentityError
from k2.common.logging import get_logger
from k2.ingestion.dead_letters.collector import KILLED
from k2.kafka.batches import LogBatch
from k2.schemas.arrow import polars_schema
from k2.schemas.records import DEAD_LETTERS
from k2.storage.dead_letter_events import COORDINATE, Chosen
from k2.storage.replays import Replay
from k2.storage.seam import LogPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from k2.common.clock import Clock
    from k2.ingestion.lane_ports import Decoder
    from k2.ingestion.sequences.filling import GapFilling
    from k2.ingestion.settings import IngestionSettings
    from k2.kafka.decoding import BadRecord
    from k2.kafka.registry import CachedSchemas
    from k2.storage.replays import ReplayCommit
    from k2.storage.tables import TableHead

log = get_logger(__name__)

REPLAYED: Final = "replayed"


class Letters(Protocol):
    """Reads the dead letters."""

    def outstanding(self, chosen: Chosen, *, with_bytes: bool = False) -> Iterator[pl.DataFrame]:
        """Iterate over those that were not replayed."""
        ...


class Events(Protocol):
    """Keeps the events of dead letters."""

    def append(self, events: pl.DataFrame) -> int:
        """Append the events that are absent; return how many."""
        ...


class Heads(Protocol):
    """Where the head of a table is read."""

    def head(self, table_name: str) -> TableHead:
        """Return the newest snapshot's head."""
        ...


class Writer(Protocol):
    """Stores replayed rows of one table."""

    def log_reaches(self, key: LogPartition, at: dt.datetime) -> bool:
        """Say whether the table holds a row of the partition whose log time is `at` or later."""
        ...

    def commit(self, replay: Replay) -> ReplayCommit:
        """Commit the rows that the head does not hold and that repeat none of it."""
        ...


class Duplicates(Protocol):
    """Tells which decoded dead letters would be second rows."""

    def repeated(self, rows: pl.DataFrame) -> frozenset[int]:
        """Return the offsets of the rows that repeat a stored row, or an earlier one of theirs."""
        ...


@dataclass(frozen=True, slots=True)
class ReplayParts:
    """What one table's replay needs: the decoder asks `schemas`, which must be the same object as here."""

    decoder: Decoder
    schemas: CachedSchemas
    writer: Writer
    duplicates: Duplicates
    filling: GapFilling | None = None
    """What tells the table of gaps; None where no numbers are watched."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Dead letters that stay what they are, and why."""

    topic: str
    log_partition: int
    offsets: tuple[int, ...]
    reason: str


@dataclass(slots=True)
class ReplayReport:
    """What a replay came to, in records."""

    chosen: int = 0
    stored: int = 0
    """Rows by this call; of what was decoded the rest had its row already, and only the mark was missing."""
    duplicates: int = 0
    """Records that another row of the table says already: they are settled without a row."""
    marked: int = 0
    still_bad: list[LeftOut] = field(default_factory=list)
    not_yet: list[LeftOut] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "chosen": self.chosen,
            "stored": self.stored,
            "duplicates": self.duplicates,
            "marked": self.marked,
            "still_bad": [_plain(item) for item in self.still_bad],
            "not_yet": [_plain(item) for item in self.not_yet],
        }


class DeadLetterReplay:
    """Replays dead letters, a bounded number at a time; each step is safe to repeat after a crash at any point."""

    def __init__(
        self,
        letters: Letters,
        events: Events,
        heads: Heads,
        make_parts: Callable[[str], ReplayParts],
        *,
        settings: IngestionSettings,
        clock: Clock,
    ) -> None:
        self._letters = letters
        self._events = events
        self._heads = heads
        self._make_parts = make_parts
        self._settings = settings
        self._clock = clock
        self._parts: dict[str, ReplayParts] = {}

    def replay(self, chosen: Chosen) -> ReplayReport:
        """Replay what is chosen. A message that killed its worker is left out unless it is chosen by its error class.

        Raises:
            LogIdentityError: a dead letter is of a log that its table has not registered.
            UnavailableError: a dependency is down; what was done until then stays done: call again.
        """
        report = ReplayReport()
        wanted = pl.concat([_coordinates(pl.DataFrame(schema=polars_schema(DEAD_LETTERS))), *self._find(chosen)])
        report.chosen = wanted.height
        parts = wanted.partition_by("table_name", "topic", "topic_id", "log_partition", maintain_order=True)
        for part in parts:
            table, topic, topic_id, partition = part.select("table_name", "topic", "topic_id", "log_partition").row(0)
            ordered = part.sort("log_offset")
            for first in range(0, ordered.height, self._settings.replay_records_max):
                some = ordered.slice(first, self._settings.replay_records_max)
                self._replay(table, topic, topic_id, partition, some, report)
        return report

    def _find(self, chosen: Chosen) -> Iterator[pl.DataFrame]:
        for frame in self._letters.outstanding(chosen):
            kept = frame if chosen.error_class == KILLED else frame.filter(pl.col("error_class") != KILLED)
            yield _coordinates(kept)

    def _replay(
        self, table: str, topic: str, topic_id: str, partition: int, wanted: pl.DataFrame, report: ReplayReport
    ) -> None:
        parts = self._parts.get(table)
        if parts is None:
            parts = self._parts[table] = self._make_parts(table)
        head = self._heads.head(table)
        registered = next((entry for entry in head.logs if entry.topic_id == topic_id), None)
        if registered is None:
            raise LogIdentityError(
                f"expected the topic {topic} with id {topic_id} among the logs of market.{table}, found none: "
                "are these the tables that the dead letters belong to?"
            )
        key = LogPartition(registered.log_id, partition)
        possible = self._possible(head, key, topic, wanted, parts.writer, report)
        letters = self._read(table, topic_id, partition, possible)
        if letters.is_empty():
            return
        decoded = parts.decoder.decode(_batch(topic, partition, letters), log_id=key.log_id)
        report.still_bad += _refused(topic, partition, decoded.bad)
        if decoded.rows.is_empty():
            return
        settling = _Settling(self._letters, table, topic_id, partition, parts.duplicates)
        commit = parts.writer.commit(Replay(key, decoded.rows, parts.schemas.newly_met, settling))
        parts.schemas.recorded(parts.schemas.newly_met)
        report.stored += commit.rows
        report.duplicates += len(commit.repeated)
        self._fill_gaps(parts, topic, topic_id, decoded.rows, commit, head)
        good = letters.join(decoded.rows.select("log_offset"), on="log_offset", how="semi")
        report.marked += self._mark(good, commit)
        crash_points.reached("after_side_tables")
        log.info(
            "dead_letters_replayed",
            table=table,
            topic=topic,
            partition=partition,
            rows=commit.rows,
            duplicates=len(commit.repeated),
        )

    def _fill_gaps(
        self,
        parts: ReplayParts,
        topic: str,
        topic_id: str,
        rows: pl.DataFrame,
        commit: ReplayCommit,
        head: TableHead,
    ) -> None:
        """Before the dead letters are marked: after a crash they are outstanding still, and it is done again."""
        if parts.filling is not None:
            brought = rows.filter(~pl.col("log_offset").is_in(commit.repeated))
            key = LogPartition(*rows.select("log_id", "log_partition").row(0))
            seam = head.seam.next_offset(key) or 0
            parts.filling.fill(topic, topic_id, brought, seam=seam, commit_sequence=commit.commit_sequence)

    def _possible(
        self,
        head: TableHead,
        key: LogPartition,
        topic: str,
        wanted: pl.DataFrame,
        writer: Writer,
        report: ReplayReport,
    ) -> pl.DataFrame:
        """Return what may be replayed now; the rest would change answers already given, and is reported."""
        seam = head.seam.next_offset(key) or 0
        above = wanted.filter(pl.col("log_offset") >= seam)
        wanted = wanted.filter(pl.col("log_offset") < seam)
        report.not_yet += _left_out(topic, key, above, f"not committed yet: the seam is {seam}")
        for entry in head.seam.deferred:
            if (entry.log_id, entry.partition) == (key.log_id, key.partition):
                inside = pl.col("log_offset").is_between(entry.start, entry.end, closed="left")
                why = f"deferred records of [{entry.start}, {entry.end}) are not written yet"
                report.not_yet += _left_out(topic, key, wanted.filter(inside), why)
                wanted = wanted.filter(~inside)
        passed = self._passed(key, wanted, writer)
        waiting = wanted.join(passed, on="log_offset", how="anti")
        if waiting.height:
            hours = self._settings.duplicate_window_hours
            until = max(waiting["ts_log"].to_list()) + dt.timedelta(hours=hours)
            why = (
                f"within {hours:g} h another record of the same identity may follow (K2_INGESTION__DUPLICATE_WINDOW_"
                f"HOURS): possible once a record of this partition with a log time of {until.isoformat()} or later "
                "is in the table"
            )
            report.not_yet += _left_out(topic, key, waiting, why)
        return passed

    def _passed(self, key: LogPartition, wanted: pl.DataFrame, writer: Writer) -> pl.DataFrame:
        """Return those whose window of log time the seam has passed; log times grow along a partition."""
        window = dt.timedelta(hours=self._settings.duplicate_window_hours)
        times: list[dt.datetime] = sorted(set(wanted["ts_log"].drop_nulls().to_list()))

        def passed(at: dt.datetime) -> bool:  # a dead letter below the seam tells how far the log has come, too
            return at + window <= times[-1] or writer.log_reaches(key, at + window)

        count = len(times)
        if times and not passed(times[-1]):  # all of them are old, as a rule
            count = bisect_left(times, 1, key=lambda at: 0 if passed(at) else 1)
        timeless = pl.col("ts_log").is_null()
        return wanted.filter(timeless | (pl.col("ts_log") <= times[count - 1]) if count else timeless)

    def _read(self, table: str, topic_id: str, partition: int, wanted: pl.DataFrame) -> pl.DataFrame:
        if wanted.is_empty():
            return wanted
        offsets: list[int] = wanted["log_offset"].to_list()
        chosen = Chosen(
            table_name=table,
            topic_id=topic_id,
            log_partition=partition,
            first_offset=min(offsets),
            last_offset=max(offsets),
        )
        found = [
            frame.join(wanted.select("log_offset"), on="log_offset", how="semi")
            for frame in self._letters.outstanding(chosen, with_bytes=True)
        ]
        return pl.concat(found).sort("log_offset") if found else wanted.clear()

    def _mark(self, letters: pl.DataFrame, commit: ReplayCommit) -> int:
        now_us = self._clock.time_ns() // 1_000
        types = polars_schema(DEAD_LETTERS)
        marks = letters.with_columns(
            event=pl.lit(REPLAYED),
            ts_recorded=pl.lit(now_us).cast(types["ts_recorded"]),
            reason=pl.when(pl.col("log_offset").is_in(commit.repeated))
            .then(pl.lit("replayed: a duplicate, another row of the table says the same"))
            .otherwise(pl.lit(f"replayed: its row is in the table since commit {commit.commit_sequence} or earlier")),
            key=pl.lit(None, types["key"]),
            value=pl.lit(None, types["value"]),
        )
        return self._events.append(marks.select(list(types)))


@dataclass(frozen=True, slots=True)
class _Settling:
    """What a commit asks about the dead letters of one partition, each time that it looks at the head."""

    letters: Letters
    table: str
    topic_id: str
    partition: int
    duplicates: Duplicates

    def repeated(self, rows: pl.DataFrame) -> frozenset[int]:
        return self.duplicates.repeated(rows)

    def outstanding(self, offsets: Collection[int]) -> frozenset[int]:
        chosen = Chosen(
            table_name=self.table,
            topic_id=self.topic_id,
            log_partition=self.partition,
            first_offset=min(offsets),
            last_offset=max(offsets),
        )
        found = [frame["log_offset"] for frame in self.letters.outstanding(chosen)]
        return frozenset(offset for offset in pl.concat(found) if offset in offsets) if found else frozenset()


def _coordinates(letters: pl.DataFrame) -> pl.DataFrame:
    return letters.select("table_name", "topic", *COORDINATE, "ts_log")


def _batch(topic: str, partition: int, letters: pl.DataFrame) -> LogBatch:
    """Return the messages as they were consumed; a log time that the broker did not give is -1, as it was then."""
    offsets = letters["log_offset"].to_list()
    return LogBatch(
        topic=topic,
        partition=partition,
        offsets=offsets,
        ts_log_ms=letters["ts_log"].dt.epoch("ms").fill_null(-1).to_list(),
        keys=letters["key"].to_list(),
        values=letters["value"].to_list(),
        next_offset=offsets[-1] + 1,
    )


def _refused(topic: str, partition: int, bad: tuple[BadRecord, ...]) -> list[LeftOut]:
    offsets: dict[str, list[int]] = {}
    for record in bad:
        offsets.setdefault(f"{record.error_class}: {record.reason}", []).append(record.offset)
    return [LeftOut(topic, partition, tuple(found), reason) for reason, found in offsets.items()]


def _left_out(topic: str, key: LogPartition, letters: pl.DataFrame, reason: str) -> list[LeftOut]:
    return [LeftOut(topic, key.partition, tuple(letters["log_offset"].to_list()), reason)] if letters.height else []


def _plain(item: LeftOut) -> dict[str, Any]:
    return {
        "topic": item.topic,
        "partition": item.log_partition,
        "offsets": list(item.offsets),
        "reason": item.reason,
    }
