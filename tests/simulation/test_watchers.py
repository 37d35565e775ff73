"""Watchers of committed batches: each sees every record once, and none can hold records up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from k2.ingestion.duplicates.deduplicator import Part
from k2.storage.seam import LogPartition
from k2.testing.simulated_ingest import TOPICS, SimulatedIngest
from k2.testing.simulated_tables import Faults

ASX = next(iter(TOPICS))


class Counting:
    """Counts how often each coordinate was shown."""

    def __init__(self) -> None:
        self.shown: Counter[tuple[str, int, int, int]] = Counter()

    def committed(self, table: str, parts: Mapping[LogPartition, Part]) -> None:
        for at, part in parts.items():
            for frame in part.frames:
                self.shown.update((table, at.log_id, at.partition, offset) for offset in frame["log_offset"])


class Failing:
    """Cannot count."""

    def committed(self, table: str, parts: Mapping[LogPartition, Part]) -> None:
        raise ZeroDivisionError(table, len(parts))


def test_every_record_is_shown_once_it_is_committed_and_a_watcher_that_fails_holds_none_up() -> None:
    counting = Counting()
    world = SimulatedIngest(1)
    world.watchers = [Failing(), counting]
    world.start_worker()
    world.tables.faults = Faults()
    for _ in range(50):
        world.log.append(ASX, 0, b"good")

    world.settle()

    stored = [("trades", *coordinate) for coordinate in world.tables.tables["trades"].coordinates()]
    assert len(stored) == 50
    assert counting.shown == Counter(stored)
