"""Whatever level, crash, rebalance and fault: once backfilled, the tables are those of a run without overload.

Invariants, checked after quiescence, of every partition:
  1. the rows are those that a plain replay of the log keeps, coordinate by coordinate and value by value;
  2. duplicates, dead letters and records are counted as the log has them; nothing is deferred, nothing lost;
and at every moment: the deferred lists fit the counters, and no record of the first tier is ever missing.
"""

from __future__ import annotations

import pytest

from k2.common import crash_points
from k2.common.degradation import DegradationLevel
from k2.common.errors import UnavailableError
from k2.ingestion import events
from k2.testing.simulated_backfill import SimulatedBackfills
from k2.testing.simulated_ingest import crash_at

STEPS = 60
TRADES = ("market.equities.trades.asx", 0)


@pytest.fixture
def world(request, monkeypatch):
    simulated = SimulatedBackfills(request.param)
    monkeypatch.setattr(crash_points, "reached", crash_at(simulated))
    print(f"seed {request.param}")  # noqa: T201 shown when the test fails
    return simulated


def disturb(world: SimulatedBackfills) -> None:
    what = world.random.random()
    if what < 0.3:
        world.produce(world.random.choice(world.all_partitions()), world.random.randint(1, 30))
    elif what < 0.45:
        world.draw_level()
    elif what < 0.49:
        world.rebalance()
    elif what < 0.52:
        world.kill(world.random.choice(world.workers))
        world.start_worker()
        world.rebalance()
    elif what < 0.58:
        often = world.random.choice([0.0, 0.1, 0.3])
        world.faults.before_commit = world.chance(often)
        world.faults.reply_lost = world.chance(often)
        world.faults.head_fails = world.chance(often)
        world.faults.side_table_fails = world.chance(often)
        crash = world.random.choice([0.0, 0.02, 0.05])
        world.faults.crash = lambda _point: world.random.random() < crash


@pytest.mark.parametrize("world", range(5), indirect=True)
@pytest.mark.parametrize("workers", [1, 2])
def test_after_all_backfills_the_tables_are_those_of_a_run_without_overload(world, workers):
    for _ in range(workers):
        world.start_worker()
    world.rebalance()

    for _ in range(STEPS):
        disturb(world)
        world.clock.sleep(world.random.choice([0.0, 0.3, 3.0]))
        worker = world.random.choice(world.workers)
        world.run(world.random.choice([worker.step_consumer, worker.step_writer]), worker)
    world.look()
    world.ladder.level = DegradationLevel.NORMAL
    world.settle()

    world.check()


def deferred(world: SimulatedBackfills) -> int:
    return sum(part.counts.deferred for part in world.tables.tables["trades"].head.seam.partitions.values())


def run_until_ingested(world: SimulatedBackfills) -> None:
    for _ in range(200):
        if super(SimulatedBackfills, world).is_settled():
            return
        world.clock.sleep(3)
        for worker in list(world.workers):
            world.run(worker.step_consumer, worker)
            if worker in world.workers:
                world.run(worker.step_writer, worker)
    raise AssertionError("not ingested")


@pytest.mark.parametrize("world", [1], indirect=True)
@pytest.mark.parametrize(
    "point", sorted({*crash_points.BACKFILL_NAMES, "mid_parquet", "before_commit", "after_commit"})
)
def test_a_crash_at_any_point_of_a_backfill_loses_and_doubles_nothing(world, point):
    world.ladder.level = DegradationLevel.CIRCUIT_BREAK
    world.produce(TRADES, 80)
    world.start_worker()
    world.rebalance()
    run_until_ingested(world)
    assert deferred(world) > 0
    left = 2

    def crash(name: str) -> bool:
        nonlocal left
        left -= name == point
        return name == point and left >= 0

    world.faults.crash = crash
    world.ladder.level = DegradationLevel.NORMAL
    for _ in range(40):
        if world.random.random() < 0.3:
            world.produce(TRADES, 2)
        world.clock.sleep(2)
        worker = world.workers[0]
        world.run(worker.step_consumer, worker)
        if worker in world.workers:
            world.run(worker.step_writer, worker)
    world.settle()

    assert left <= 0, f"the point {point} was never reached twice"
    world.check()


@pytest.mark.parametrize("world", [1, 2, 3], indirect=True)
def test_nothing_is_written_while_the_level_would_defer_it_again(world):
    world.ladder.level = DegradationLevel.GRACEFUL
    world.produce(("market.equities.quotes.asx", 0), 60)
    world.start_worker()
    world.rebalance()
    run_until_ingested(world)
    before = world.tables.tables["quotes"].head.seam.deferred

    for _ in range(20):
        world.clock.sleep(3)
        world.workers[0].step_consumer()
        world.workers[0].step_writer()

    assert before
    assert world.tables.tables["quotes"].head.seam.deferred == before


@pytest.mark.parametrize("world", [1, 2], indirect=True)
def test_ranges_are_written_the_first_one_first(world):
    worker = world.start_worker()
    world.rebalance()
    for level in (DegradationLevel.AGGRESSIVE, DegradationLevel.CIRCUIT_BREAK):
        world.ladder.level = level
        world.produce(TRADES, 40)
        run_until_ingested(world)
    seam = world.tables.tables["trades"].head.seam
    assert [entry.lowest_deferred_priority for entry in seam.deferred] == [2, 1]

    world.ladder.level = DegradationLevel.NORMAL
    for _ in range(60):
        world.clock.sleep(3)
        worker.step_writer()

    assert deferred(world) == 0
    world.check()


@pytest.mark.parametrize("world", [1, 2, 3], indirect=True)
def test_a_symbol_that_never_pauses_comes_back_all_the_same(world):
    world.settings = world.settings.model_copy(
        update={"backfill": world.settings.backfill.model_copy(update={"last_offsets_max": 10_000})}
    )
    world.ladder.level = DegradationLevel.CIRCUIT_BREAK
    world.produce(TRADES, 40)
    worker = world.start_worker()
    world.rebalance()
    run_until_ingested(world)
    world.ladder.level = DegradationLevel.NORMAL

    for _ in range(40):
        world.produce(TRADES, 5)
        world.clock.sleep(1)
        worker.step_consumer()
        worker.step_writer()

    assert deferred(world) == 0
    world.settle()
    world.check()


@pytest.mark.parametrize("world", [1], indirect=True)
@pytest.mark.parametrize(("needed_seconds", "left"), [(12.0, False), (1_000.0, True)])
def test_a_sink_too_slow_to_be_waited_for_keeps_no_list_from_being_written(world, needed_seconds, left):
    world.settings = world.settings.model_copy(
        update={"backfill": world.settings.backfill.model_copy(update={"last_offsets_max": 10_000})}
    )
    world.ladder.level = DegradationLevel.CIRCUIT_BREAK
    world.produce(TRADES, 40)
    worker = world.start_worker()
    world.rebalance()
    run_until_ingested(world)
    before = world.tables.tables["trades"].head.seam.deferred
    lane = worker.worker.writer_loop.lanes["trades"]
    flush = lane.flush
    lane.flush = lambda seconds, **how: seconds >= needed_seconds and flush(seconds, **how)
    world.ladder.level = DegradationLevel.NORMAL

    for _ in range(60):
        world.produce(TRADES, 5)
        world.clock.sleep(1)
        worker.step_consumer()
        worker.step_writer()

    held = world.tables.tables["trades"].head.seam.deferred
    assert (len(held) > 0) is left
    assert not left or held[0].start > before[0].end
    lane.flush = flush
    world.settle()
    world.check()


@pytest.mark.parametrize("world", [1, 2], indirect=True)
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_what_retention_has_eaten_is_lost_and_told(world, share):
    world.ladder.level = DegradationLevel.CIRCUIT_BREAK
    world.produce(TRADES, 80)
    worker = world.start_worker()
    world.rebalance()
    run_until_ingested(world)
    before = deferred(world)
    world.log.cut_below(*TRADES, round(share * world.log.end(*TRADES)))

    world.ladder.level = DegradationLevel.NORMAL
    world.settle()

    lost = [event for event in worker.events if isinstance(event, events.DeferredLost)]
    counts = world.tables.tables["trades"].head.seam.totals()
    assert counts.lost == sum(event.records for event in lost) > 0
    assert (counts.lost == before) is (share == 1.0)
    assert counts.unaccounted == counts.deferred == 0


@pytest.mark.parametrize("world", [1], indirect=True)
def test_retention_that_comes_near_gives_the_backfill_priority_and_is_told(world):
    world.retention_ms = {TRADES[0]: 1_000}
    world.ladder.level = DegradationLevel.CIRCUIT_BREAK
    world.produce(TRADES, 40)
    worker = world.start_worker()
    world.rebalance()

    run_until_ingested(world)
    for _ in range(40):
        world.clock.sleep(3)
        worker.step_writer()

    told = [event for event in worker.events if isinstance(event, events.DeferredNearRetention)]
    assert [(event.topic, event.partition) for event in told] == [TRADES]
    assert deferred(world) == 0
    world.check()


@pytest.mark.parametrize("world", [1], indirect=True)
def test_only_the_owner_of_a_partition_writes_what_is_deferred_in_it(world):
    world.ladder.level = DegradationLevel.CIRCUIT_BREAK
    world.produce(TRADES, 40)
    owner, other = world.start_worker(), world.start_worker()
    world.group.rebalance({owner.reader: [TRADES]})
    for _ in range(30):
        world.clock.sleep(3)
        for worker in (owner, other):
            worker.step_consumer()
            worker.step_writer()
    world.ladder.level = DegradationLevel.NORMAL

    for _ in range(10):
        world.clock.sleep(3)
        other.step_writer()
    held_by_other = deferred(world)
    for _ in range(60):
        world.clock.sleep(3)
        owner.step_writer()

    assert held_by_other > 0
    assert deferred(world) == 0


@pytest.mark.parametrize("world", [1], indirect=True)
def test_a_log_that_is_down_is_tried_again(world):
    world.ladder.level = DegradationLevel.CIRCUIT_BREAK
    world.produce(TRADES, 40)
    worker = world.start_worker()
    world.rebalance()
    run_until_ingested(world)
    world.ladder.level = DegradationLevel.NORMAL
    world.log.is_up = False
    for _ in range(5):
        world.clock.sleep(30)
        worker.step_writer()
    failed = [event for event in worker.events if isinstance(event, events.BackfillFailed)]

    world.settle()

    assert failed
    assert UnavailableError.__name__ in failed[0].reason
    world.check()
