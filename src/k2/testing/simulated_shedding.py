"""Ingest workers whose level is drawn from a seed, and a backfill that writes what they deferred."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from k2.common.degradation import DegradationLevel
from k2.common.errors import FencedError, UnavailableError
from k2.ingestion.overload.ladder import NoLadder
from k2.ingestion.overload.parts import OverloadParts
from k2.kafka.batches import LogBatch
from k2.schemas.arrow import polars_schema
from k2.schemas.records import RECORD_TYPES, WrittenBy
from k2.schemas.tier_maps import TierMap
from k2.storage.deferral import Backfill, Deferral, DeferredList, check_lists, predicate_of
from k2.storage.seam import Counts, LogPartition
from k2.storage.writer import Batch
from k2.testing.simulated_ingest import TOPICS, SimulatedIngest
from k2.testing.simulated_tables import SimulatedDecoder, SimulatedWriter, columns_of

if TYPE_CHECKING:
    from k2.storage.seam import DeferredRange
    from k2.testing.simulated_tables import SimulatedTable

SYMBOLS: Final = ("A", "B", "C", "D", "E", "F")
TIERS: Final = (TierMap.of({"A"}, {"B", "C"}), TierMap.of({"A", "B"}, {"D"}))
"""What two runs of a worker may be started with; A is in the first tier of both."""


class ForcedLadder(NoLadder):
    """Stands where it is told to."""

    def __init__(self) -> None:
        self.level = DegradationLevel.NORMAL
        self.reason = "forced"
        self.is_paused = False
        self.is_short = False

    def is_short_of_memory(self) -> bool:
        """Say whether it was told so."""
        return self.is_short

    def must_pause(self) -> bool:
        """Say whether it was told so."""
        return self.is_paused


class SimulatedShedding(SimulatedIngest):
    """The level and the tier map are the same for all workers, as it is where one board tells them."""

    def __init__(self, seed: int, *, partitions: int = 2) -> None:
        super().__init__(seed, partitions=partitions)
        self.log.key_of = key_of
        self.ladder = ForcedLadder()
        self.tiers = TIERS[0]
        self._fills = 0
        self.highest = DegradationLevel.NORMAL

    def overload(self) -> OverloadParts:
        """Return what a worker does: it obeys the world's level, and begins with the tier map of now."""
        return OverloadParts(self.ladder, tiers=self.tiers)

    def draw_level(self) -> None:
        """Force another level; at random, another tier map is what workers begin with from now on."""
        self.ladder.level = DegradationLevel(self.random.randrange(5))
        self.ladder.is_paused = self.random.randrange(10) == 0
        self.tiers = self.random.choice(TIERS)
        self.highest = max(self.highest, self.ladder.level)

    def produce(self, topic: str, partition: int, records: int) -> None:
        """Append records of random symbols; bad ones are of the first tier, and some offsets hold no record."""
        for _ in range(records):
            what = self.random.choices(["good", "bad", ""], [20, 1, 1])[0]
            symbol = "A" if what == "bad" else self.random.choice(SYMBOLS)
            self.log.append(topic, partition, f"{what}:{symbol}".encode() if what else None)

    def backfill_some(self) -> None:
        """Write the beginning of one partition's list, or all of its first entry; faults and fences end it."""
        name = self.random.choice(sorted(RECORD_TYPES))
        table = self.tables.tables[name]
        if not table.head.seam.deferred:
            return
        entry = self.random.choice(table.head.seam.deferred)
        first = DeferredList.of(table.head.seam, LogPartition(entry.log_id, entry.partition)).entries[0]
        try:
            self._backfill(name, table, first, self.random.randint(first.start + 1, first.end))
        except (FencedError, UnavailableError):
            return

    def backfill_all(self) -> None:
        """Write all that is deferred."""
        for name, table in self.tables.tables.items():
            while table.head.seam.deferred:
                entry = table.head.seam.deferred[0]
                self._backfill(name, table, entry, entry.end)

    def _backfill(self, name: str, table: SimulatedTable, entry: DeferredRange, end: int) -> None:
        key, predicate = LogPartition(entry.log_id, entry.partition), predicate_of(entry)
        topic = next(log.topic for log in table.head.logs if log.log_id == entry.log_id)
        priority_of = TierMap.from_json(table.head.tier_maps[predicate.tier_map_id]).priorities()
        values = self.log.topics[topic].partitions[entry.partition]
        offsets = [
            offset
            for offset in range(entry.start, end)
            if (value := values[offset]) is not None and predicate.matches(priority_of(key_of(value).decode(), name))
        ]
        found = [values[offset] for offset in offsets]
        batch = LogBatch(topic, entry.partition, offsets, [0] * len(found), [None] * len(found), found, end)
        rows = SimulatedDecoder(RECORD_TYPES[name]).decode(batch, log_id=entry.log_id).rows
        rows = rows.with_columns(
            commit_sequence=pl.lit(table.head.seam.commit_sequence + 1, pl.Int64),
            written_by=pl.lit(WrittenBy.BACKFILL),
        ).select(list(polars_schema(RECORD_TYPES[name])))
        writer = SimulatedWriter(self.tables, name)
        self._fills += 1
        filled = Backfill(entry.start, end, predicate, Counts(rows=rows.height))
        writer.commit(
            Batch(f"fill-{self._fills}", {}, writer.write_files(rows), deferral=Deferral(backfill=(key, filled)))
        )

    def check_now(self) -> None:
        """See that each record below the seam is a row, a dead letter or deferred, and that the first tier never is."""
        for name, table in self.tables.tables.items():
            check_lists(table.head.seam)
            held = {row for rows in table.rows for row in columns_of(rows, "log_id", "log_partition", "log_offset")}
            for key, part in table.head.seam.partitions.items():
                topic = next(log.topic for log in table.head.logs if log.log_id == key.log_id)
                values = self.log.topics[topic].partitions[key.partition][: part.next_offset]
                good = [offset for offset, value in enumerate(values) if value and value.startswith(b"good")]
                absent = [offset for offset in good if (key.log_id, key.partition, offset) not in held]
                entries = DeferredList.of(table.head.seam, key).entries
                unexplained = [at for at in absent if not any(entry.start <= at < entry.end for entry in entries)]
                counts = part.counts
                if (
                    unexplained
                    or len(absent) != counts.deferred
                    or counts.unaccounted
                    or counts.consumed != sum(value is not None for value in values)
                    or any(values[offset] == b"good:A" for offset in absent)
                ):
                    raise AssertionError(
                        f"{name} {key}: expected the rows below {part.next_offset} but for {counts.deferred} deferred, "
                        f"found {len(absent)} absent, {unexplained[:5]} in no range; counts {counts}"
                    )


def key_of(value: bytes) -> bytes:
    """Return the symbol of a value."""
    return value.rpartition(b":")[2]


def good_coordinates(world: SimulatedIngest) -> dict[str, list[tuple[int, int, int]]]:
    """Return, by table, the coordinates that rows must have, sorted."""
    found: dict[str, list[tuple[int, int, int]]] = {name: [] for name in RECORD_TYPES}
    for topic, name in TOPICS.items():
        log = world.tables.tables[name].head.log_of(topic)
        for number, values in enumerate(world.log.topics[topic].partitions):
            if log is not None:
                found[name] += [
                    (log.log_id, number, at) for at, value in enumerate(values) if value and value.startswith(b"good")
                ]
    return {name: sorted(each) for name, each in found.items()}
