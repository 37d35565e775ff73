"""A feed's surroundings in memory: the log, the registry, and tables that hold what a test has let them ingest."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import polars as pl

from k2.common.degradation import Priority
from k2.feeds.channel import Channel
from k2.feeds.held import HeldSource
from k2.feeds.settings import FeedSettings
from k2.kafka.decoding import Decoder
from k2.kafka.registry import CachedSchemas
from k2.kafka.topics import TopicCatalog
from k2.schemas.records import RECORD_TYPES
from k2.storage.deferral import Predicate, seam_after_batch
from k2.storage.file_checks import FileChecks
from k2.storage.planning import PinnedSnapshot, PlannedFile
from k2.storage.seam import Counts, LogPartition, PartitionDelta, Seam
from k2.storage.tables import RegisteredLog, TableHead
from k2.testing.fake_log import FakeAdmin, FakeLog, FakeProducer, FakeReader, FakeRegistry
from k2.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from k2.kafka.ports import Producing


class FeedWorld:
    """One exchange's topics, and all that a feed into them needs. Plans name every file: they may hold too much."""

    def __init__(self, directory: Path, exchange: str, settings: FeedSettings | None = None) -> None:
        self.settings = settings or FeedSettings()
        self.log = FakeLog()
        self.registry = FakeRegistry()
        self.topics = TopicCatalog.load()
        self.exchange = exchange
        self._directory = directory
        self._heads = {name: TableHead(name, None, Seam(), (), {}, "memory") for name in RECORD_TYPES}
        self._files: dict[str, tuple[PlannedFile, ...]] = dict.fromkeys(RECORD_TYPES, ())
        self._decoders = {
            name: Decoder(kind, CachedSchemas(self.registry, {}, entries_max=100))
            for name, kind in RECORD_TYPES.items()
        }
        self.channel = self.new_channel()
        self.held = HeldSource(
            planner=self,
            checks=FileChecks(check_contents=True, files_max=1_000),
            admin=FakeAdmin(self.log),
            open_reader=lambda: FakeReader(self.log, with_headers=True),
            decoders=self._decoders,
            registry=self.registry,
            settings=self.settings,
            clock=ManualClock(),
        )

    def new_channel(
        self, *, producer: Producing | None = None, hold_back: Callable[[], None] = lambda: None
    ) -> Channel:
        """Return another way into the same log."""
        return Channel(
            self.exchange,
            topics=self.topics,
            admin=FakeAdmin(self.log),
            registry=self.registry,
            producer=producer or FakeProducer(self.log),
            flush_seconds=1,
            hold_back=hold_back,
        )

    def rows(self, data_type: str) -> pl.DataFrame:
        """Return what the log holds of one data type, partition after partition, decoded."""
        return pl.concat(rows for _, _, rows in self._decoded(data_type, from_seam=False))

    def values(self, data_type: str) -> list[bytes | None]:
        """Return the bytes of a topic's messages, partition after partition."""
        return [message.value for message in self.log.messages(self._topic(data_type))]

    def ingest(self, data_type: str, *, deferred: bool = False) -> None:
        """Move all that the log holds above the seam into a file of the table, or put it off."""
        name, head = self._topic(data_type), self._heads[data_type]
        if not head.logs:
            starts = dict.fromkeys(range(len(self.log.topics[name].partitions)), 0)
            log = RegisteredLog(0, self.log.cluster_id, self.log.topics[name].topic_id, name, len(starts), starts)
            head = TableHead(data_type, None, head.seam.with_log(0, starts), (log,), {}, "memory")
        seam, frames = head.seam, []
        for number, end, rows in self._decoded(data_type, from_seam=True, seam=seam):
            at = LogPartition(0, number)
            start = seam.next_offset(at) or 0
            if end > start and deferred:
                delta = PartitionDelta(start, end, Counts(consumed=len(rows), deferred=len(rows)))
                seam = seam_after_batch(seam, {at: delta}, {at: Predicate("map", Priority.LOW)})
            elif end > start:
                counts = Counts(consumed=len(rows), rows=len(rows))
                seam = seam.advanced({at: PartitionDelta(start, end, counts)})
                frames.append(rows)
        if frames:
            path = self._directory / f"{data_type}-{seam.commit_sequence}.parquet"
            pl.concat(frames).write_parquet(path)
            content = path.read_bytes()
            self._files[data_type] += (
                PlannedFile(str(path), sum(map(len, frames)), len(content), checksum=zlib.crc32(content)),
            )
        self._heads[data_type] = TableHead(data_type, None, seam, head.logs, {}, "memory")

    def pin(self, table_name: str) -> PinnedSnapshot:
        """Pin the newest head."""
        return PinnedSnapshot(self._heads[table_name], ())

    def plan(
        self, pinned: PinnedSnapshot, *, exchange: str, symbol: str | None, start_ns: int, end_ns: int
    ) -> Sequence[PlannedFile]:
        """Return all files of the table."""
        del exchange, symbol, start_ns, end_ns
        return self._files[pinned.head.table_name]

    def _topic(self, data_type: str) -> str:
        return self.topics.topic(self.exchange, data_type).name

    def _decoded(
        self, data_type: str, *, from_seam: bool, seam: Seam | None = None
    ) -> list[tuple[int, int, pl.DataFrame]]:
        name = self._topic(data_type)
        found = []
        for number, entries in enumerate(self.log.topics[name].partitions):
            start = (seam.next_offset(LogPartition(0, number)) or 0) if from_seam and seam else 0
            batches = FakeReader(self.log, {(name, number): start}).poll(1_000_000, 0)
            frames = [self._decoders[data_type].decode(batch, log_id=0).rows for batch in batches]
            if frames:
                found.append((number, len(entries), pl.concat(frames)))
        return found
