"""A log in memory and tables of real Parquet files, side by side, with the plain replay that any answer must equal."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow.parquet as pq

from k2.common.errors import LogIdentityError, UnavailableError
from k2.kafka.batches import LogBatch
from k2.kafka.ports import LogIdentity, LogRange
from k2.kafka.producer import partition_for
from k2.schemas.arrow import arrow_schema
from k2.schemas.records import ORDER, RECORD_TYPES, Action, WrittenBy
from k2.storage.planning import PinnedSnapshot, PlannedFile
from k2.storage.seam import Counts, LogPartition, PartitionDelta, Seam
from k2.storage.tables import RegisteredLog, TableHead
from k2.testing.assigned_places import AssignedPlaces
from k2.testing.simulated_messages import BAD, SimulatedMarketDecoder, TradeFields, message_value, what_is_said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from k2.kafka.ports import TopicPartition
    from k2.kafka.topics import Topic
    from k2.storage.named_snapshots import KeptSnapshot

LOGGED_AT_MS = 1_767_225_600_000


@dataclass(frozen=True, slots=True)
class Message:
    """One record of the log; None in its place stands for a control record."""

    key: bytes | None
    value: bytes


@dataclass
class SimulatedPartition:
    """One partition: its first retained offset and all it was ever given."""

    start: int = 0
    messages: list[Message | None] = field(default_factory=list)


class SimulatedMarket:
    """Topics, tables and what was ever appended. Implements the query side's `LogFacts`, `Heads` and `Plans`."""

    def __init__(self, directory: Path, topics: Iterable[Topic]) -> None:
        self._directory = directory
        self.topics = tuple(topics)
        self.cluster_id = "cluster-1"
        self._written = 0
        self.topic_ids: dict[str, str] = {}
        self.log_is_up = True
        self.catalog_is_up = True
        self.dead_letters: dict[tuple[str, int], list[int]] = {}
        self.partitions: dict[TopicPartition, SimulatedPartition] = {}
        self._heads: dict[str, TableHead] = {
            name: TableHead(name, None, Seam(), (), {}, "memory") for name in RECORD_TYPES
        }
        self._files: dict[tuple[str, int], tuple[PlannedFile, ...]] = {}
        self._amended: set[str] = set()
        self._times: dict[str, tuple[int, int]] = {}
        for topic in self.topics:
            self.create(topic.name)

    def create(self, topic: str, topic_id: str = "id-1") -> None:
        """Create a topic, or create it again under another id, empty."""
        self.topic_ids[topic] = topic_id
        for number in range(self._topic(topic).partitions):
            self.partitions[topic, number] = SimulatedPartition()

    def append(
        self,
        topic: str,
        symbol: str,
        ts_event_ns: int,
        *,
        partition: int | None = None,
        key: bytes | None = None,
        source_sequence: int | None = None,
        identity: int | None = None,
        trade: TradeFields | None = None,
    ) -> None:
        """Append one record, to its symbol's partition unless another is named; its source counts by the offset.

        A record with an identity is numbered by it, and is a duplicate of an earlier one of its symbol and time.
        """
        number = partition_for(symbol.encode(), self._topic(topic).partitions) if partition is None else partition
        value = message_value(symbol, ts_event_ns, source_sequence, identity, trade)
        message = Message(symbol.encode() if key is None else key, value)
        self.partitions[topic, number].messages.append(message)

    def append_bad(self, topic: str, symbol: str) -> None:
        """Append a record that cannot be decoded."""
        number = partition_for(symbol.encode(), self._topic(topic).partitions)
        self.partitions[topic, number].messages.append(Message(symbol.encode(), BAD))

    def append_control(self, topic: str, partition: int) -> None:
        """Append a record that readers skip."""
        self.partitions[topic, partition].messages.append(None)

    def register(self, topic: str) -> RegisteredLog:
        """Register a topic's log in its table, from its start."""
        name = self._topic(topic).data_type
        head = self._heads[name]
        starts = {key[1]: part.start for key, part in self.partitions.items() if key[0] == topic}
        log = RegisteredLog(len(head.logs), self.cluster_id, self.topic_ids[topic], topic, len(starts), starts)
        seam = head.seam.with_log(log.log_id, starts)
        self._swap(replace(head, logs=(*head.logs, log), seam=seam), ())
        return log

    def commit(self, topic: str, partition: int, records: int | None = None) -> int:
        """Commit what follows the seam, at most `records` offsets; return how many offsets the seam has moved."""
        name = self._topic(topic).data_type
        head = self._heads[name]
        log = head.log_of(topic)
        if log is None:
            raise ValueError(f"expected a registered topic, found {topic}")
        at = LogPartition(log.log_id, partition)
        start = head.seam.next_offset(at) or 0
        messages = self.partitions[topic, partition].messages
        end = len(messages) if records is None else min(len(messages), start + records)
        decoded = self.decoder(name).decode(self._batch(topic, partition, start, end), log_id=log.log_id)
        consumed = decoded.rows.height + len(decoded.bad)
        rows = decoded.rows.filter(~pl.col("log_offset").is_in(sorted(self.duplicates(topic, partition))))
        counts = Counts(consumed, rows.height, decoded.rows.height - rows.height, len(decoded.bad))
        seam = head.seam.advanced({at: PartitionDelta(start, end, counts)})
        self.dead_letters.setdefault((log.topic_id, partition), []).extend(bad.offset for bad in decoded.bad)
        files = self._write(name, rows, seam.commit_sequence)
        self._swap(replace(head, seam=seam), files)
        return end - start

    def duplicates(self, topic: str, partition: int) -> set[int]:
        """Return the offsets of the records that repeat an earlier one, found record by record."""
        seen: set[tuple[str, ...]] = set()
        found: set[int] = set()
        for offset, message in enumerate(self.partitions[topic, partition].messages):
            what = None if message is None else what_is_said(message.value)
            if what is not None:
                found.update({offset} if what in seen else ())
                seen.add(what)
        return found

    def append_files(self, topic: str, partition: int, start: int, end: int) -> None:
        """Append rows of [start, end) with no regard for the fence, as a writer that is not K2 would."""
        name = self._topic(topic).data_type
        head = self._heads[name]
        log = head.log_of(topic)
        assert log is not None
        rows = self.decoder(name).decode(self._batch(topic, partition, start, end), log_id=log.log_id).rows
        self._swap(head, self._write(name, rows, head.seam.commit_sequence))

    def skip(self, topic: str, partition: int, offsets: int) -> None:
        """Move the seam past offsets as if they had been ingested, and store nothing: a loss."""
        head = self._heads[self._topic(topic).data_type]
        log = head.log_of(topic)
        assert log is not None
        at = LogPartition(log.log_id, partition)
        start = head.seam.next_offset(at) or 0
        delta = PartitionDelta(start, start + offsets, Counts(consumed=offsets, rows=offsets))
        self._swap(replace(head, seam=head.seam.advanced({at: delta})), ())

    def replay(
        self,
        data_type: str,
        symbol: str,
        *,
        exchange: str | None = None,
        ends: Mapping[tuple[int, int], int] | None = None,
    ) -> list[tuple[int, int, int, int]]:
        """Return the order keys of the symbol's rows, from the log alone; below `ends` by log id and partition."""
        rows = []
        for log in self._heads[data_type].logs:
            if exchange not in (None, self._topic(log.topic).exchange):
                continue
            for number in range(log.partitions):
                messages = self.partitions[log.topic, number].messages
                end = len(messages) if ends is None else ends.get((log.log_id, number), 0)
                repeated = self.duplicates(log.topic, number)
                for offset, message in enumerate(messages[:end]):
                    if offset in repeated:
                        continue
                    if message is not None and message.value.startswith(f"{symbol}|".encode()):
                        rows.append((int(message.value.split(b"|")[1]), log.log_id, number, offset))
        return sorted(rows)

    def records(
        self,
        data_type: str,
        symbol: str,
        *,
        exchange: str | None = None,
        ends: Mapping[tuple[int, int], int] | None = None,
    ) -> list[dict[str, Any]]:
        """Return the symbol's records in log order with all they say, from the log alone; as `replay` reads it."""
        records: list[dict[str, Any]] = []
        for log in self._heads[data_type].logs:
            if exchange not in (None, self._topic(log.topic).exchange):
                continue
            for number in range(log.partitions):
                end = len(self.partitions[log.topic, number].messages)
                end = end if ends is None else ends.get((log.log_id, number), 0)
                decoded = self.decoder(data_type).decode(self._batch(log.topic, number, 0, end), log_id=log.log_id)
                repeated = self.duplicates(log.topic, number)
                rows = decoded.rows.filter(pl.col("symbol") == symbol).to_dicts()
                records += [row for row in rows if row["log_offset"] not in repeated]
        return records

    def decoder(self, data_type: str) -> SimulatedMarketDecoder:
        """Return the decoder of a data type."""
        return SimulatedMarketDecoder(RECORD_TYPES[data_type])

    def open_reader(self, most: Callable[[], int] = lambda: 1_000) -> SimulatedAssignedReader:
        """Return a reader with nothing assigned; `most` says how many records one poll gives of a partition."""
        self._answer()
        return SimulatedAssignedReader(self, most)

    def identities(self, topics: Iterable[str]) -> dict[str, LogIdentity]:
        """Return who each topic is."""
        self._answer()
        return {
            name: LogIdentity(self.cluster_id, self.topic_ids[name], name, self._topic(name).partitions)
            for name in topics
            if name in self.topic_ids
        }

    def ranges(self, topics: str | Iterable[str]) -> dict[TopicPartition, LogRange]:
        """Return what each partition holds."""
        self._answer()
        names = {topics} if isinstance(topics, str) else set(topics)
        return {
            key: LogRange(part.start, len(part.messages)) for key, part in self.partitions.items() if key[0] in names
        }

    def head(self, table_name: str) -> TableHead:
        """Return the newest head."""
        if not self.catalog_is_up:
            raise UnavailableError("the simulated catalog is down", dependency="catalog")
        return self._heads[table_name]

    def snapshots(self, _table_name: str) -> tuple[KeptSnapshot, ...]:
        """Return nothing: these tables keep their newest snapshot alone."""
        return ()

    def pin(self, table_name: str, *, partial: bool = False, snapshot_id: int | None = None) -> PinnedSnapshot:
        """Pin the newest snapshot."""
        del partial, snapshot_id
        return PinnedSnapshot(self.head(table_name), ())

    def plan(
        self,
        pinned: PinnedSnapshot,
        *,
        exchange: str | None = None,
        symbol: str | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> tuple[PlannedFile, ...]:
        """Return the files of the times asked about, of any exchange and symbol: a plan may hold too much."""
        del exchange, symbol
        files = self._files.get((pinned.head.table_name, pinned.head.snapshot_id or 0), ())
        return tuple(
            file
            for file in files
            if (end_ns is None or self._times[file.path][0] < end_ns)
            and (start_ns is None or self._times[file.path][1] >= start_ns)
        )

    def amended(
        self,
        pinned: PinnedSnapshot,
        *,
        exchange: str | None = None,
        symbol: str | None = None,
        dates: tuple[int, int] | None = None,
    ) -> tuple[PlannedFile, ...]:
        """Return the files that hold amendments, of any exchange and symbol: a plan may hold too much."""
        del exchange, symbol
        files = self._files.get((pinned.head.table_name, pinned.head.snapshot_id or 0), ())
        return tuple(file for file in files if file.path in self._amended and file.is_of_dates(dates))

    def offsets(self, topic_id: str, partition: int) -> list[int]:
        """Return the offset of each dead letter of one partition."""
        return list(self.dead_letters.get((topic_id, partition), ()))

    def batch(self, key: TopicPartition, start: int, most: int) -> LogBatch | None:
        """Return what a reader at `start` gets; None at the log's end."""
        self._answer()
        part = self.partitions[key]
        if not part.start <= start <= len(part.messages):
            raise LogIdentityError(f"offset {start} of {key} is outside of the log")
        return None if start == len(part.messages) else self._batch(*key, start, min(len(part.messages), start + most))

    def _batch(self, topic: str, partition: int, start: int, end: int) -> LogBatch:
        messages = self.partitions[topic, partition].messages
        held = [(offset, message) for offset in range(start, end) if (message := messages[offset]) is not None]
        return LogBatch(
            topic=topic,
            partition=partition,
            offsets=[offset for offset, _ in held],
            ts_log_ms=[LOGGED_AT_MS + offset for offset, _ in held],
            keys=[message.key for _, message in held],
            values=[message.value for _, message in held],
            next_offset=end,
        )

    def _write(
        self, name: str, rows: pl.DataFrame, commit_sequence: int, written_by: str = WrittenBy.INGEST
    ) -> tuple[PlannedFile, ...]:
        if rows.height == 0:
            return ()
        self._written += 1
        path = self._directory / f"{name}-{self._written}.parquet"
        stored = rows.with_columns(
            pl.lit(commit_sequence, pl.Int64).alias("commit_sequence"), pl.lit(written_by).alias("written_by")
        )
        schema = arrow_schema(RECORD_TYPES[name])
        pq.write_table(stored.sort("symbol", *ORDER).to_arrow().select(schema.names).cast(schema), path)
        content = path.read_bytes()
        if (rows["action"] != Action.NEW).any():
            self._amended.add(str(path))
        times = rows["ts_event_ns"].sort().to_list()
        self._times[str(path)] = (times[0], times[-1])
        days = rows["trading_date"].cast(pl.Int32).sort().to_list()
        dates = (days[0], days[-1])
        checksum = zlib.crc32(content)
        return (PlannedFile(str(path), rows.height, len(content), checksum=checksum, dates=dates, last_ns=times[-1]),)

    def _swap(self, head: TableHead, files: tuple[PlannedFile, ...]) -> None:
        before = self._heads[head.table_name]
        number = (before.snapshot_id or 0) + 1
        self._heads[head.table_name] = replace(head, snapshot_id=number)
        kept = self._files.get((head.table_name, before.snapshot_id or 0), ())
        self._files[head.table_name, number] = kept + files

    def _topic(self, name: str) -> Topic:
        return next(topic for topic in self.topics if topic.name == name)

    def _answer(self) -> None:
        if not self.log_is_up:
            raise UnavailableError("the simulated broker is down", dependency="kafka")


class SimulatedAssignedReader(AssignedPlaces):
    """Reads the market's partitions, from where the caller says."""

    def __init__(self, market: SimulatedMarket, most: Callable[[], int]) -> None:
        super().__init__()
        self._market = market
        self._most = most

    def poll(self, max_messages: int, timeout_seconds: float) -> list[LogBatch]:
        """Return at most one batch a partition."""
        del timeout_seconds
        batches = []
        for key, start in self._next.items():
            most = min(max_messages, self._most())
            batch = self._market.batch(key, start, most) if most else None
            if batch is not None:
                self._next[key] = batch.next_offset
                batches.append(batch)
        return batches
