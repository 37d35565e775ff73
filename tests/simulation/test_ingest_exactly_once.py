"""Whatever crashes, rebalances, overlaps and fails: each record is one row or one dead letter, and the ledger adds up.

Invariants, checked after quiescence:
  1. the coordinates of the rows are those of the good records, each once;
  2. the table of dead letters holds each bad record once, its topic at least once;
  3. each partition's counters add up, and say how many records its log has.
"""

from __future__ import annotations

from collections import Counter

import pytest

from k2.common import crash_points
from k2.testing.simulated_ingest import TOPICS, SimulatedIngest, crash_at

SEEDS = range(12)
STEPS = 150


@pytest.fixture
def world(request, monkeypatch):
    simulated = SimulatedIngest(request.param)
    monkeypatch.setattr(crash_points, "reached", crash_at(simulated))
    print(f"seed {request.param}")  # noqa: T201 shown when the test fails
    return simulated


def produce(world: SimulatedIngest) -> None:
    topic, partition = world.random.choice(world.all_partitions())
    for _ in range(world.random.randint(1, 40)):
        value = world.random.choices([b"good", b"bad", None], [20, 2, 1])[0]
        world.log.append(topic, partition, value)


def set_faults(world: SimulatedIngest) -> None:
    faults = world.faults
    often = world.random.choice([0.0, 0.05, 0.3])
    faults.before_commit = world.chance(often)
    faults.reply_lost = world.chance(often)
    faults.write_fails = world.chance(often)
    faults.head_fails = world.chance(often)
    faults.side_table_fails = world.chance(often)
    crash = world.random.choice([0.0, 0.01, 0.05])
    faults.crash = lambda _point: world.random.random() < crash
    world.flush_too_slow = world.random.choice([0.0, 0.5])


def disturb(world: SimulatedIngest) -> None:
    what = world.random.random()
    if what < 0.25:
        produce(world)
    elif what < 0.29:
        world.rebalance()
    elif what < 0.31:
        world.kill(world.random.choice(world.workers))
        world.start_worker()
        world.rebalance()
    elif what < 0.33:
        world.log.is_up = not world.log.is_up
    elif what < 0.36:
        set_faults(world)


def live(world: SimulatedIngest, workers: int) -> None:
    for _ in range(workers):
        world.start_worker()
    world.rebalance()
    for _ in range(STEPS):
        disturb(world)
        world.clock.sleep(world.random.choice([0.0, 0.3, 3.0]))
        worker = world.random.choice(world.workers)
        world.run(world.random.choice([worker.step_consumer, worker.step_writer]), worker)


def check(world: SimulatedIngest) -> None:
    good: dict[str, Counter] = {"trades": Counter(), "quotes": Counter()}
    bad: Counter = Counter()
    for topic, name in TOPICS.items():
        table = world.tables.tables[name]
        log = next((entry for entry in table.head.logs if entry.topic == topic), None)
        for number, values in enumerate(world.log.topics[topic].partitions):
            if log is None:
                assert not any(values)
                continue
            for offset, value in enumerate(values):
                if value == b"good":
                    good[name][(log.log_id, number, offset)] += 1
                elif value == b"bad":
                    bad[(log.topic_id, number, offset, "written")] += 1
    for name, table in world.tables.tables.items():
        assert Counter(table.coordinates()) == good[name]
        for key, seam in table.head.seam.partitions.items():
            topic = next(entry.topic for entry in table.head.logs if entry.log_id == key.log_id)
            values = world.log.topics[topic].partitions[key.partition]
            assert seam.counts.unaccounted == 0
            assert seam.counts.consumed == sum(value is not None for value in values)
            assert seam.counts.dead_letters == values.count(b"bad")
    assert set(world.tables.dead_letters) == set(bad)
    sent = {
        (h["k2.topic_id"].decode(), int(h["k2.partition"]), int(h["k2.offset"]), "written")
        for messages in world.log.sent.values()
        for _, _, h in messages
    }
    assert sent == set(bad)


@pytest.mark.parametrize("world", SEEDS, indirect=True)
@pytest.mark.parametrize("workers", [1, 3])
def test_each_record_is_one_row_or_one_dead_letter_whatever_happens(world, workers):
    live(world, workers)

    world.settle()

    check(world)


@pytest.mark.parametrize("world", range(10), indirect=True)
@pytest.mark.parametrize("point", sorted(crash_points.INGEST_NAMES))
def test_a_crash_at_any_point_loses_and_doubles_nothing(world, point):
    for key in world.all_partitions():
        world.log.append(*key, *[b"good", b"bad", b"good", b"good"] * 5)
    left = 2

    def crash(name: str) -> bool:
        nonlocal left
        left -= name == point
        return name == point and left >= 0

    world.faults.crash = crash
    worker = world.start_worker()
    world.rebalance()

    for step in range(60):
        worker = world.workers[0]
        world.clock.sleep(1)
        world.run(worker.step_consumer, worker)
        if worker in world.workers:
            world.run(worker.step_writer, worker)
        if step % 7 == 6:
            world.group.rebalance({})
            worker = world.workers[0]
            world.run(worker.step_consumer, worker)
            world.rebalance()
    world.settle()

    assert left <= 0, f"the point {point} was never reached twice"
    check(world)
