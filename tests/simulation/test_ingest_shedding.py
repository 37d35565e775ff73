"""Whatever the levels, crashes and rebalances: nothing is lost or doubled, and the first tier is never put off.

Checked after every step: below the seam, each record is a row, a dead letter or in a range of the deferred list, whose
count says how many there are. After all is backfilled, the rows are those of a run at NORMAL.
"""

from __future__ import annotations

import pytest

from k2.common import crash_points
from k2.common.degradation import DegradationLevel
from k2.ingestion import events
from k2.testing.simulated_ingest import crash_at
from k2.testing.simulated_shedding import SimulatedShedding, good_coordinates

STEPS = 150


@pytest.fixture
def world(request, monkeypatch):
    simulated = SimulatedShedding(request.param)
    monkeypatch.setattr(crash_points, "reached", crash_at(simulated))
    print(f"seed {request.param}")  # noqa: T201 shown when the test fails
    return simulated


def set_faults(world: SimulatedShedding) -> None:
    often = world.random.choice([0.0, 0.05, 0.3])
    world.faults.before_commit = world.chance(often)
    world.faults.reply_lost = world.chance(often)
    world.faults.write_fails = world.chance(often)
    world.faults.head_fails = world.chance(often)
    crash = world.random.choice([0.0, 0.01, 0.05])
    world.faults.crash = lambda _point: world.random.random() < crash
    world.faults.meanwhile = lambda: world.backfill_some() if world.random.random() < 0.05 else None
    world.flush_too_slow = world.random.choice([0.0, 0.5])


def disturb(world: SimulatedShedding) -> None:
    what = world.random.random()
    if what < 0.3:
        topic, partition = world.random.choice(world.all_partitions())
        world.produce(topic, partition, world.random.randint(1, 40))
    elif what < 0.4:
        world.draw_level()
    elif what < 0.5:
        world.run(world.backfill_some, world.random.choice(world.workers))
    elif what < 0.53:
        world.rebalance()
    elif what < 0.55:
        world.kill(world.random.choice(world.workers))
        world.start_worker()
        world.rebalance()
    elif what < 0.6:
        set_faults(world)


def live(world: SimulatedShedding, workers: int) -> None:
    for _ in range(workers):
        world.start_worker()
    world.rebalance()
    for _ in range(STEPS):
        disturb(world)
        world.clock.sleep(world.random.choice([0.0, 0.3, 3.0]))
        worker = world.random.choice(world.workers)
        world.run(world.random.choice([worker.step_consumer, worker.step_writer]), worker)
        world.check_now()


@pytest.mark.parametrize("world", range(12), indirect=True)
@pytest.mark.parametrize("workers", [1, 3])
def test_each_record_is_a_row_once_whatever_the_levels_were(world, workers):
    live(world, workers)

    world.ladder.is_paused = False
    world.settle()
    world.check_now()
    deferred = sum(entry.records for table in world.tables.tables.values() for entry in table.head.seam.deferred)
    world.backfill_all()

    world.check_now()
    assert {name: sorted(table.coordinates()) for name, table in world.tables.tables.items()} == good_coordinates(world)
    assert not any(table.head.seam.deferred for table in world.tables.tables.values())
    assert world.highest > DegradationLevel.SOFT or not deferred


def test_the_worlds_do_defer_and_cut(monkeypatch):
    shed, fenced = 0, 0
    for seed in range(6):
        world = SimulatedShedding(seed)
        monkeypatch.setattr(crash_points, "reached", crash_at(world))
        workers = []
        start = world.start_worker
        world.start_worker = lambda start=start, workers=workers: workers.append(start()) or workers[-1]
        live(world, 2)
        told = [event for worker in workers for event in worker.events]
        shed += sum(sum(event.records.values()) for event in told if isinstance(event, events.RecordsDeferred))
        fenced += sum(isinstance(event, events.BatchFenced) for event in told)

    assert shed > 100
    assert fenced > 0
