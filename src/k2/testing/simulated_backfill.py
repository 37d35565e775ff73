"""Ingest workers that defer, duplicate and die on a simulated log, and write what they deferred as the product does."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from k2.common.degradation import DegradationLevel
from k2.common.errors import LogIdentityError, UnavailableError
from k2.ingestion.backfill.making import RangeParts
from k2.ingestion.backfill.settings import BackfillSettings
from k2.ingestion.duplicates.below_the_seam import RangeDuplicates
from k2.ingestion.overload.parts import OverloadParts
from k2.kafka.batches import LogBatch
from k2.schemas.records import RECORD_TYPES, Origin
from k2.schemas.tier_maps import TierMap
from k2.storage.data_files import WrittenFile
from k2.storage.deferral import Deferral, check_lists
from k2.storage.seam import LogPartition
from k2.storage.writer import Batch, Commit
from k2.testing.assigned_places import AssignedPlaces
from k2.testing.plain_duplicates import PlainReplay
from k2.testing.simulated_duplicates import RULES, IdentityDecoder, SimulatedDuplicates, SimulatedStored, record_value
from k2.testing.simulated_ingest import TOPICS
from k2.testing.simulated_shedding import ForcedLadder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from k2.kafka.ports import TopicPartition
    from k2.schemas.records import RecordType
    from k2.storage.backfills import BackfilledRange
    from k2.testing.simulated_log import SimulatedLog
    from k2.testing.simulated_tables import SimulatedTables

TIERS: Final = TierMap.of({"S0"}, {"S1"})
"""S0 is never deferred, S1 at the top level only, S2 from the level on that defers what is in no tier."""
BAD_KEY: Final = b"S2"


class SimulatedBackfillWriter:
    """Commits ranges to a simulated table; the fence and the accounts are checked by the product's own functions."""

    def __init__(self, tables: SimulatedTables, table_name: str) -> None:
        self._tables = tables
        self._name = table_name

    def commit(self, found: BackfilledRange) -> Commit:
        """Commit as the real writer does; where the reply is lost, nobody learns whether it is in the table."""
        faults, table = self._tables.faults, self._tables.tables[self._name]
        if faults.before_commit():
            raise UnavailableError("the simulated catalog is down", dependency="catalog")
        seam = found.seam_after(table.head.seam)
        faults.reached("mid_parquet")
        rows = found.stored_rows(seam)
        faults.reached("before_backfill")
        data_file: Any = None  # Any: nothing in a simulation reads the manifest's entry
        files = (WrittenFile("memory", rows.height, 0, 0, data_file),) if rows.height else ()
        deferral = Deferral(backfill=(found.key, found.backfill))
        batch = Batch(f"backfill-{uuid.uuid4()}", {}, files, found.new_schemas, deferral=deferral)
        columns = [field.name for field in RECORD_TYPES[self._name].fields]
        table.swap(batch, [rows.select(columns)] if rows.height else [])
        faults.reached("after_backfill")
        if faults.reply_lost():
            raise UnavailableError("the simulated catalog is down", dependency="catalog")
        return Commit(table.commits, table.head.seam, rows.height, 1, found=False)


class SimulatedRangeReader(AssignedPlaces):
    """Reads partitions of the simulated log, from where the caller says."""

    def __init__(self, log: SimulatedLog, messages_max: Callable[[], int]) -> None:
        log.answer()
        super().__init__()
        self._log = log
        self._messages_max = messages_max

    def poll(self, max_messages: int, timeout_seconds: float) -> list[LogBatch]:
        """Return at most one batch a partition."""
        del timeout_seconds
        self._log.answer()
        batches = []
        for key, start in self._next.items():
            topic = self._log.topics[key[0]]
            values = topic.partitions[key[1]]
            if not topic.starts[key[1]] <= start <= len(values):
                raise LogIdentityError(f"offset {start} of {key} is outside of the log")
            end = min(len(values), start + min(max_messages, self._messages_max()))
            offsets = [offset for offset in range(start, end) if values[offset] is not None]
            if end > start:
                self._next[key] = end
                batches.append(
                    LogBatch(
                        topic=key[0],
                        partition=key[1],
                        offsets=offsets,
                        ts_log_ms=[1_700_000_000_000 + offset for offset in offsets],
                        keys=[self._log.key_of(values[offset] or b"") for offset in offsets],
                        values=[values[offset] for offset in offsets],
                        next_offset=end,
                        leader_epoch=0,
                    )
                )
        return batches


class SimulatedBackfills(SimulatedDuplicates):
    """A world whose level moves, and whose workers write what they deferred once it has fallen."""

    def __init__(self, seed: int, *, partitions: int = 2) -> None:
        super().__init__(seed, partitions=partitions)
        self.log.key_of = key_of
        self.ladder = ForcedLadder()
        self.retention_ms: dict[str, int] = {}
        self.deferred_max = 0
        backfill = BackfillSettings(
            records_max=self.random.choice([3, 40]),
            last_offsets_max=self.random.choice([1, 20, 10_000]),
            poll_seconds=0,
            look_seconds=0.5,
            time_ratio=1,
        )
        self.settings = self.settings.model_copy(update={"backfill": backfill})

    def overload(self) -> OverloadParts:
        """Return what a worker does: it obeys the world's level."""
        return OverloadParts(self.ladder, tiers=TIERS)

    def ranges(self, record_type: RecordType) -> RangeParts:
        """Return what a worker's backfill needs."""
        return RangeParts(
            lambda: SimulatedRangeReader(self.log, self.batch_messages),
            SimulatedBackfillWriter(self.tables, record_type.name),
            RangeDuplicates(record_type, rules=RULES, stored=SimulatedStored(self.tables, record_type)),
            self.retention_ms,
        )

    def draw_level(self) -> None:
        """Force another level."""
        self.ladder.level = DegradationLevel(self.random.choice([0, 0, 1, 2, 3, 4]))

    def produce(self, key: TopicPartition, records: int, identities: int = 60) -> None:
        """Append records of few identities, so that some repeat or contradict others; some are bad, some no records."""
        for _ in range(records):
            if self.random.random() < 0.1:  # noqa: PLR2004 - a share
                self.log.append(*key, self.random.choice([b"bad", None]))
            else:
                price = self.random.choice([1, 1, 1, 1, 2])
                identity = self.random.randrange(identities)
                self.log.append(*key, record_value(identity, price, self.random.randrange(2)))

    def is_settled(self) -> bool:
        """Say whether everything is in the tables, and nothing deferred."""
        deferred = sum(len(table.head.seam.deferred) for table in self.tables.tables.values())
        return super().is_settled() and not deferred

    def look(self) -> None:
        """See that the lists fit the counters, and that no record of the first tier was ever deferred."""
        for name, table in self.tables.tables.items():
            check_lists(table.head.seam)
            held = {tuple(row) for rows in table.rows for row in _coordinates(rows)}
            deferred = sum(part.counts.deferred for part in table.head.seam.partitions.values())
            self.deferred_max = max(self.deferred_max, deferred)
            for (kind, at), plain in self.replays().items():
                seam = table.head.seam.next_offset(at) or 0
                critical = {
                    (at.log_id, at.partition, row["log_offset"])
                    for row in plain.kept
                    if kind == name and row["symbol"] == "S0" and row["log_offset"] < seam
                }
                assert critical <= held

    def replays(self) -> dict[tuple[str, LogPartition], PlainReplay]:
        """Return what a plain reading of each partition's log keeps, without any overload."""
        found = {}
        for topic, name in TOPICS.items():
            log = self.tables.tables[name].head.log_of(topic)
            decoder = IdentityDecoder(RECORD_TYPES[name])
            for number, values in enumerate(self.log.topics[topic].partitions if log else ()):
                assert log is not None
                rows = [
                    decoder.row(topic, number, log.log_id, offset, value)
                    for offset, value in enumerate(values)
                    if value not in (None, b"bad")
                ]
                found[name, LogPartition(log.log_id, number)] = PlainReplay(RECORD_TYPES[name], RULES).replay(rows)
        return found

    def check(self) -> None:
        """See that the tables hold what the plain reading keeps, value by value, and count what it counts."""
        expected: dict[str, dict[tuple[int, int, int], Mapping[str, Any]]] = {name: {} for name in RECORD_TYPES}
        for (name, at), plain in self.replays().items():
            expected[name] |= {(at.log_id, at.partition, row["log_offset"]): row for row in plain.kept}
            counts = self.tables.tables[name].head.seam.partitions[at].counts
            topic = next(log.topic for log in self.tables.tables[name].head.logs if log.log_id == at.log_id)
            values = self.log.topics[topic].partitions[at.partition]
            assert (counts.unaccounted, counts.deferred, counts.lost) == (0, 0, 0)
            assert counts.duplicates == len(plain.duplicates)
            assert counts.dead_letters == values.count(b"bad")
            assert counts.consumed == sum(value is not None for value in values)
        for name, table in self.tables.tables.items():
            said = [field.name for field in RECORD_TYPES[name].fields if field.origin is not Origin.COMMIT]
            stored = pl.concat([rows.select(said) for rows in table.rows]).rows(named=True) if table.rows else []
            found = {(row["log_id"], row["log_partition"], row["log_offset"]): row for row in stored}
            assert len(found) == len(stored)
            assert found.keys() == expected[name].keys()
            frame = pl.DataFrame(list(expected[name].values()), schema=table.rows[0].schema) if stored else None
            plain_rows = [] if frame is None else frame.select(said).rows(named=True)
            assert [found[at] for at in expected[name]] == plain_rows


def key_of(value: bytes) -> bytes:
    """Return the key of a message: the symbol that its row will have."""
    if value == b"bad":
        return BAD_KEY
    return f"S{int(value.split(b'|')[0]) % 3}".encode()


def _coordinates(rows: pl.DataFrame) -> list[tuple[int, int, int]]:
    return rows.select("log_id", "log_partition", "log_offset").rows()
