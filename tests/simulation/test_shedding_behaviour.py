"""How a lane cuts, holds back, is fenced and sorts again, and what a failing sink does to it: one example each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k2.common.degradation import DegradationLevel
from k2.common.settings import DegradationSettings
from k2.ingestion import events
from k2.ingestion.overload.ladder import WorkerLadder
from k2.ingestion.overload.parts import OverloadParts
from k2.ingestion.overload.spilling import NoSpill, Spill
from k2.storage.deferral import DeferredList
from k2.storage.seam import LogPartition
from k2.testing.simulated_ingest import TOPICS
from k2.testing.simulated_shedding import SYMBOLS, SimulatedShedding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from k2.ingestion.duplicates.deduplicator import Part
    from k2.testing.simulated_ingest import SimulatedWorker

TOPIC = next(iter(TOPICS))
KEY = LogPartition(1, 0)
NORMAL, SOFT, GRACEFUL, AGGRESSIVE, CIRCUIT_BREAK = DegradationLevel


class World(SimulatedShedding):
    """One worker on one partition, whose batches are as large as what was sent."""

    def __init__(self) -> None:
        super().__init__(0, partitions=1)
        self.settings = self.settings.model_copy(
            update={"commit_rows_max": 1_000, "buffer_bytes_max": 10_000, "decode_messages_max": 100}
        )
        self.real: WorkerLadder | None = None
        self.spill: Spill | NoSpill = NoSpill()
        self.shown: list[str] = []
        self.skipped_batches = 0
        self.watchers.append(self)

    def overload(self) -> OverloadParts:
        return OverloadParts(self.real or self.ladder, tiers=self.tiers, spill=self.spill)

    def batch_messages(self) -> int:
        return 100

    def start(self) -> SimulatedWorker:
        worker = self.start_worker()
        self.rebalance()
        return worker

    def send(self, *symbols: str) -> None:
        self.log.append(TOPIC, 0, *(f"good:{symbol}".encode() for symbol in symbols))

    def decode(self, worker: SimulatedWorker) -> None:
        """Let what was sent be read and decoded, and nothing be due."""
        worker.step_consumer()
        worker.step_writer()

    def commit(self, worker: SimulatedWorker) -> None:
        self.decode(worker)
        self.clock.sleep(6)
        worker.step_writer()
        worker.step_consumer()

    def committed(self, table: str, parts: Mapping[LogPartition, Part]) -> None:
        del parts
        self.shown.append(table)

    def skipped(self, table: str) -> None:
        del table
        self.skipped_batches += 1

    @property
    def entries(self) -> Sequence[tuple[int, int, int, int]]:
        held = DeferredList.of(self.tables.tables["trades"].head.seam, KEY)
        return [(each.start, each.end, each.lowest_deferred_priority, each.records) for each in held.entries]

    @property
    def offsets(self) -> list[int]:
        return sorted(offset for _, _, offset in self.tables.tables["trades"].coordinates())


@pytest.fixture
def world() -> World:
    return World()


def fences(worker: SimulatedWorker) -> int:
    return sum(isinstance(event, events.BatchFenced) for event in worker.events)


def test_a_batch_is_cut_where_a_level_defers_more(world: World) -> None:
    worker = world.start()
    world.send(*SYMBOLS)
    world.decode(worker)

    world.ladder.level = CIRCUIT_BREAK
    world.send(*SYMBOLS)
    world.decode(worker)
    cut = world.tables.tables["trades"].head.seam.next_offset(KEY)
    world.commit(worker)

    assert cut == 6
    assert world.entries == [(6, 12, 1, 5)]
    assert world.offsets == [0, 1, 2, 3, 4, 5, 6]
    world.check_now()


def test_a_wider_level_begins_an_entry_of_its_own(world: World) -> None:
    worker = world.start()
    for level in (AGGRESSIVE, CIRCUIT_BREAK):
        world.ladder.level = level
        world.send(*SYMBOLS)
        world.commit(worker)

    world.commit(worker)

    assert world.entries == [(0, 6, 2, 3), (6, 12, 1, 5)]


def test_at_normal_a_symbol_that_was_deferred_stays_so_until_it_is_written(world: World) -> None:
    worker = world.start()
    world.ladder.level = AGGRESSIVE
    world.send("A", "X")
    world.commit(worker)

    world.ladder.level = NORMAL
    world.send("A", "X", "B")
    world.commit(worker)
    held = world.entries
    world.backfill_all()
    world.send("A", "A", "B")
    world.commit(worker)
    world.send("X")
    world.commit(worker)

    assert held == [(0, 5, 2, 2)]
    assert world.entries == []
    assert world.offsets == list(range(9))
    assert fences(worker) == 0


def test_where_nothing_had_to_be_deferred_the_level_before_leaves_no_trace(world: World) -> None:
    worker = world.start()
    world.ladder.level = CIRCUIT_BREAK
    world.send("A", "A")
    world.decode(worker)

    world.ladder.level = NORMAL
    world.send("X", "B")
    world.commit(worker)

    assert world.entries == []
    assert world.offsets == [0, 1, 2, 3]


def test_a_list_that_another_worker_began_holds_for_what_comes_next(world: World) -> None:
    """It is looked up where the partition comes back, before anything is sorted: no batch has to be dropped for it."""
    worker = world.start()
    world.send("A")
    world.commit(worker)
    away = world.start_worker()
    world.group.rebalance({away.reader: world.all_partitions()})
    worker.step_consumer()
    world.ladder.level = CIRCUIT_BREAK
    world.send("A", "X")
    world.commit(away)
    world.group.rebalance({worker.reader: world.all_partitions()})
    away.step_consumer()

    world.ladder.level = NORMAL
    world.send("X", "A")
    world.commit(worker)

    assert fences(worker) == 0
    assert world.entries == [(1, 5, 1, 2)]
    assert world.offsets == [0, 1, 4]
    world.check_now()


def test_deferred_records_are_told_by_tier_and_reason_once_they_are_committed(world: World) -> None:
    worker = world.start()
    world.ladder.level = CIRCUIT_BREAK
    world.send("A", "B", "X", "Y")
    world.decode(worker)
    before = [event for event in worker.events if isinstance(event, events.RecordsDeferred)]

    world.commit(worker)

    (told,) = [event for event in worker.events if isinstance(event, events.RecordsDeferred)]
    assert before == []
    assert told.records == {("high", "forced"): 1, ("normal", "forced"): 2}


@pytest.mark.parametrize(("level", "shown"), [(NORMAL, 1), (SOFT, 0), (CIRCUIT_BREAK, 0)])
def test_optional_statistics_are_skipped_from_soft_on(world: World, level: DegradationLevel, shown: int) -> None:
    worker = world.start()
    world.ladder.level = level
    world.send("A")

    world.commit(worker)

    assert (len(world.shown), world.skipped_batches) == (shown, 1 - shown)


@pytest.mark.parametrize(
    ("level", "is_short", "moved"), [(AGGRESSIVE, True, 1), (AGGRESSIVE, False, 0), (GRACEFUL, True, 0)]
)
def test_what_waits_goes_to_disk_from_aggressive_on_where_memory_is_short(
    world: World, tmp_path: Path, level: DegradationLevel, is_short: bool, moved: int
) -> None:
    world.spill = Spill(tmp_path / "spill", bytes_max=2**20, clock=world.clock, release=lambda: None)
    worker = world.start()
    world.ladder.level, world.ladder.is_short = level, is_short
    world.send("A", "B")
    world.decode(worker)
    on_disk = int(world.spill.nbytes > 0)

    world.commit(worker)

    assert on_disk == moved
    assert world.offsets == [0, 1]


def test_what_waits_for_a_slow_sink_goes_to_disk(world: World, tmp_path: Path) -> None:
    world.spill = Spill(tmp_path / "spill", bytes_max=2**20, clock=world.clock, release=lambda: None)
    worker = world.start()
    lane = worker.worker.writer_loop.lanes["trades"]
    world.ladder.level = AGGRESSIVE
    world.faults.before_commit = lambda: True
    world.send("A")
    world.commit(worker)
    world.send("A")
    world.decode(worker)
    fresh = world.spill.nbytes

    world.clock.sleep(6)
    full = lane.wants_chunks()
    world.decode(worker)

    assert (fresh, full) == (0, False)
    assert world.spill.nbytes > 0


def test_a_failing_sink_pauses_reading_and_goes_on_by_itself(world: World) -> None:
    world.real = WorkerLadder(
        DegradationSettings(), clock=world.clock, memory=NoMemory(), worker="w", observer=lambda _: None
    )
    worker = world.start()
    world.send("A", "X")
    world.faults.before_commit = lambda: True
    world.commit(worker)
    level, paused = world.real.level, world.real.must_pause()
    world.send("A", "X")
    worker.step_consumer()
    worker.step_consumer()
    read = worker.worker.intake.positions()[TOPIC, 0]

    world.faults.before_commit = lambda: False
    for _ in range(5):
        world.commit(worker)

    assert (level, paused, read) == (CIRCUIT_BREAK, True, 2)
    assert not world.real.must_pause()
    assert world.offsets[:2] == [0, 1]
    assert world.entries == [(2, 4, 1, 1)]
    world.check_now()


class NoMemory:
    def percent(self) -> float:
        return 0.0
