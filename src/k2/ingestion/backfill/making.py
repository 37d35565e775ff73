"""Puts the backfills of a worker together out of the parts of its lanes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from k2.ingestion.backfill.backfiller import Backfiller, BackfillParts
from k2.ingestion.backfill.choosing import Chooser
from k2.ingestion.backfill.reading import RangeReader
from k2.ingestion.backfill.releasing import GoingOn
from k2.ingestion.backfill.retention import RetentionWatch
from k2.ingestion.duplicates.below_the_seam import KeepWholeRange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from k2.common.clock import Clock
    from k2.common.degradation import DegradationLevel
    from k2.ingestion import events
    from k2.ingestion.backfill.backfiller import Decides, Writer
    from k2.ingestion.backfill.choosing import LogEnds
    from k2.ingestion.backfill.settings import BackfillSettings
    from k2.ingestion.dead_letters.collector import DeadLetters
    from k2.ingestion.lane_ports import Decoder, Heads
    from k2.kafka.ports import AssignedReader, TopicPartition
    from k2.kafka.registry import CachedSchemas
    from k2.storage.seam import LogPartition


@dataclass(frozen=True, slots=True)
class RangeParts:
    """What a table's backfill needs beside what its lane has; `open_reader` makes a reader with nothing assigned."""

    open_reader: Callable[[], AssignedReader]
    writer: Writer
    duplicates: Decides = field(default_factory=KeepWholeRange)
    retention_ms: Mapping[str, int] = field(default_factory=dict)
    """How long each topic keeps its records; those that keep them for good are left out."""


class Level(Protocol):
    """Where the level of degradation is read."""

    @property
    def level(self) -> DegradationLevel:
        """The level now."""
        ...


@dataclass(frozen=True, slots=True)
class BackfillMaker:
    """Makes the backfill of each table of one worker; `owned` tells the partitions that it reads, and of which log.

    `must_give_way` says whether somebody waits for a commit, as where partitions are taken away.
    """

    heads: Heads
    log_ends: LogEnds
    dead_letters: DeadLetters
    check_topics: Callable[[set[str]], None]
    owned: Callable[[], Mapping[TopicPartition, LogPartition]]
    ladder: Level
    must_give_way: Callable[[], bool]
    settings: BackfillSettings
    clock: Clock
    observer: events.Observer
    going_on: GoingOn = field(default_factory=GoingOn)

    def make(self, table: str, own: RangeParts, decoder: Decoder, schemas: CachedSchemas) -> Backfiller:
        """Return the backfill of one table, whose lane has this decoder and these schemas."""
        reader = RangeReader(own.open_reader, self.settings)
        chooser = Chooser(
            table,
            log_ends=self.log_ends,
            owned=self.owned,
            reader=reader,
            retention=RetentionWatch(own.retention_ms, settings=self.settings, clock=self.clock),
            clock=self.clock,
            observer=self.observer,
            going_on=self.going_on,
        )
        parts = BackfillParts(
            table=table,
            decoder=decoder,
            schemas=schemas,
            duplicates=own.duplicates,
            writer=own.writer,
            heads=self.heads,
            dead_letters=self.dead_letters,
            check_topics=self.check_topics,
        )
        return Backfiller(
            parts,
            chooser=chooser,
            reader=reader,
            level=lambda: self.ladder.level,
            must_give_way=self.must_give_way,
            settings=self.settings,
            clock=self.clock,
            observer=self.observer,
        )
