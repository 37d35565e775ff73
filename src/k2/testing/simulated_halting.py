"""Workers that put off streams for their gaps, on feeds with faults, while levels move and people let streams go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from k2.common.announcing import ReleaseRequest
from k2.common.degradation import DegradationLevel
from k2.ingestion.backfill.making import RangeParts
from k2.ingestion.backfill.settings import BackfillSettings
from k2.ingestion.duplicates.below_the_seam import RangeDuplicates
from k2.ingestion.overload.parts import OverloadParts
from k2.schemas.tier_maps import TierMap
from k2.storage.deferral import check_lists
from k2.testing.simulated_backfill import SimulatedBackfillWriter, SimulatedRangeReader
from k2.testing.simulated_duplicates import RULES, SimulatedStored
from k2.testing.simulated_gaps import SETTINGS, TOPIC, SimulatedGapLedger
from k2.testing.simulated_ingest import TOPICS
from k2.testing.simulated_shedding import ForcedLadder

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.schemas.records import RecordType
    from k2.storage.seam import DeferredRange
    from k2.testing.simulated_ingest import SimulatedWorker

TIERS: Final = TierMap.of({"A"}, {"B"})
"""A is never deferred by a level, B at the top level only; either may be halted."""
HALTING: Final = SETTINGS.model_copy(
    update={"on_halt": "defer", "log_missing_min": 10, "alert_missing_min": 20, "halt_missing_min": 30}
)
_DISTURBED: Final = 0.1
"""Share of the steps at which a level is drawn, and of those at which a stream is released."""


class SimulatedHalting(SimulatedGapLedger):
    """A world in which a gap of 30 numbers halts its stream."""

    def __init__(self, seed: int, *, messages: int) -> None:
        super().__init__(seed, messages=messages)
        self.log.key_of = key_of
        self.log.ms_of = ms_of
        self.ladder = ForcedLadder()
        self.halted: set[tuple[int, int]] = set()
        """Partition and offset of each halt that was seen in a table."""
        backfill = BackfillSettings(
            records_max=self.random.choice([3, 40, 1_000]),
            last_offsets_max=self.random.choice([1, 50, 10_000]),
            poll_seconds=0,
            look_seconds=0.5,
            time_ratio=1,
        )
        self.settings = self.settings.model_copy(update={"backfill": backfill, "sequences": HALTING})

    def overload(self) -> OverloadParts:
        """Return what a worker does: it obeys the world's level."""
        return OverloadParts(self.ladder, tiers=TIERS)

    def ranges(self, record_type: RecordType) -> RangeParts:
        """Return what a worker's backfill needs."""
        return RangeParts(
            lambda: SimulatedRangeReader(self.log, self.batch_messages),
            SimulatedBackfillWriter(self.tables, record_type.name),
            RangeDuplicates(record_type, rules=RULES, stored=SimulatedStored(self.tables, record_type)),
        )

    def halts(self) -> list[tuple[str, DeferredRange]]:
        """Return the ranges of halted streams, each with its table; every one is remembered in `halted`."""
        found = [
            (name, entry)
            for name, table in self.tables.tables.items()
            for entry in table.head.seam.deferred
            if entry.halted is not None
        ]
        self.halted |= {(entry.partition, entry.halted.since) for _, entry in found if entry.halted is not None}
        return found

    def release(self, table: str, entry: DeferredRange) -> None:
        """Let a stream go on."""
        if entry.halted is not None:
            place = (table, entry.log_id, entry.partition, entry.halted.since)
            self.releases.ask(ReleaseRequest(*place, entry.halted.stream, 0, "somebody"))

    def run(self, action: Callable[[], None], worker: SimulatedWorker) -> None:
        """Run a worker's step, after which the lists must fit; at random a level is drawn, or a stream released."""
        super().run(action, worker)
        for table in self.tables.tables.values():
            check_lists(table.head.seam)
        halts = self.halts()
        if self.random.random() < _DISTURBED:
            self.ladder.level = DegradationLevel(self.random.choice([0, 0, 2, 3, 4]))
        if halts and self.random.random() < _DISTURBED:
            self.release(*self.random.choice(halts))

    def is_settled(self) -> bool:
        """Say whether everything is in the tables and nothing deferred; what is halted by then is released."""
        for halt in self.halts():
            self.release(*halt)
        deferred = sum(len(table.head.seam.deferred) for table in self.tables.tables.values())
        return super().is_settled() and not deferred

    def messages_of(self, partition: int, symbol: str) -> list[tuple[int, int]]:
        """Return offset and number of each row that a table holds of a symbol, in the order of the log."""
        rows = [
            (row["log_offset"], row["sequence"])
            for frame in self.tables.tables[TOPICS[TOPIC]].rows
            for row in frame.iter_rows(named=True)
            if (row["log_partition"], row["symbol"]) == (partition, symbol)
        ]
        return sorted(rows)


def key_of(value: bytes) -> bytes:
    """Return the symbol of a value `#symbol|sequence|...`."""
    return value[1:].partition(b"|")[0]


def ms_of(offset: int, value: bytes) -> int:
    """Return the log time of a value `#symbol|sequence|day|ms`."""
    del offset
    return int(value.rpartition(b"|")[2])
