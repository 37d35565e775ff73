"""Whatever crashes and fails, and whatever is remembered: the table is what a plain replay of the log keeps.

Invariants, checked after quiescence, of every partition:
  1. the rows are those that the replay keeps, coordinate by coordinate and value by value;
  2. the counters say how many duplicates the replay finds, and add up;
  3. no memory, a memory that is too small, or a worker without any gives the same table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k2.common import crash_points
from k2.ingestion import events
from k2.ingestion.settings import DeduplicationSettings
from k2.schemas.records import RECORD_TYPES
from k2.storage.seam import LogPartition
from k2.testing.plain_duplicates import PlainReplay
from k2.testing.simulated_duplicates import RULES, IdentityDecoder, SimulatedDuplicates, record_value
from k2.testing.simulated_ingest import TOPICS, crash_at

if TYPE_CHECKING:
    from collections.abc import Mapping

STEPS = 60
SMALL = DeduplicationSettings(ids_capacity=1_000)
MEMORIES = {
    "as set": SMALL,
    "blind": SMALL.model_copy(update={"rebuild_rows_max": 0}),
    "few intervals": SMALL.model_copy(update={"intervals_max": 2}),
    "few streams": SMALL.model_copy(update={"streams_max": 1}),
}


@pytest.fixture
def world(request, monkeypatch):
    simulated = SimulatedDuplicates(request.param)
    monkeypatch.setattr(crash_points, "reached", crash_at(simulated))
    print(f"seed {request.param}")  # noqa: T201 shown when the test fails
    return simulated


def produce(world: SimulatedDuplicates) -> None:
    topic, partition = world.random.choice(world.all_partitions())
    for _ in range(world.random.randint(1, 30)):
        if world.random.random() < 0.05:
            world.log.append(topic, partition, world.random.choice([b"bad", None]))
        else:
            identity = world.random.randrange(60)
            price = world.random.choice([1, 1, 1, 1, 2])
            world.log.append(topic, partition, record_value(identity, price, world.random.randrange(2)))


def disturb(world: SimulatedDuplicates) -> None:
    what = world.random.random()
    if what < 0.3:
        produce(world)
    elif what < 0.36:
        world.rebalance()
    elif what < 0.39:
        world.kill(world.random.choice(world.workers))
        world.start_worker()
        world.rebalance()
    elif what < 0.45:
        often = world.random.choice([0.0, 0.1, 0.3])
        world.faults.before_commit = world.chance(often)
        world.faults.reply_lost = world.chance(often)
        world.faults.write_fails = world.chance(often)
        world.faults.head_fails = world.chance(often)
        crash = world.random.choice([0.0, 0.02, 0.05])
        world.faults.crash = lambda _point: world.random.random() < crash


def live(world: SimulatedDuplicates, workers: int) -> None:
    for _ in range(workers):
        world.start_worker()
    world.rebalance()
    for _ in range(STEPS):
        disturb(world)
        world.clock.sleep(world.random.choice([0.0, 0.3, 3.0]))
        worker = world.random.choice(world.workers)
        world.run(world.random.choice([worker.step_consumer, worker.step_writer]), worker)


def replays(world: SimulatedDuplicates) -> dict[tuple[str, LogPartition], PlainReplay]:
    found = {}
    for topic, name in TOPICS.items():
        log = next((entry for entry in world.tables.tables[name].head.logs if entry.topic == topic), None)
        decoder = IdentityDecoder(RECORD_TYPES[name])
        for number, values in enumerate(world.log.topics[topic].partitions if log else ()):
            rows = [
                decoder.row(topic, number, log.log_id, offset, value)
                for offset, value in enumerate(values)
                if value not in (None, b"bad")
            ]
            found[name, LogPartition(log.log_id, number)] = PlainReplay(RECORD_TYPES[name], RULES).replay(rows)
    return found


def check(world: SimulatedDuplicates) -> int:
    duplicates = 0
    expected: dict[str, dict[tuple[int, int, int], Mapping]] = {"trades": {}, "quotes": {}}
    for (name, at), plain in replays(world).items():
        expected[name] |= {(at.log_id, at.partition, row["log_offset"]): row for row in plain.kept}
        counts = world.tables.tables[name].head.seam.partitions[at].counts
        assert counts.duplicates == len(plain.duplicates)
        assert counts.unaccounted == 0
        duplicates += counts.duplicates
    for name, table in world.tables.tables.items():
        stored = [row for rows in table.rows for row in rows.iter_rows(named=True)]
        found = {(row["log_id"], row["log_partition"], row["log_offset"]): row for row in stored}
        assert len(found) == len(stored)
        assert found.keys() == expected[name].keys()
        assert all(found[at]["source"] == row["source"] for at, row in expected[name].items())
    return duplicates


@pytest.mark.parametrize("world", range(4), indirect=True)
@pytest.mark.parametrize("memory", MEMORIES)
def test_the_table_is_what_a_plain_replay_keeps_whatever_happens(world, memory):
    world.deduplication = MEMORIES[memory]
    live(world, workers=2)

    world.settle()

    check(world)


@pytest.mark.parametrize("world", [1], indirect=True)
def test_a_restarted_worker_still_knows_what_was_stored(world):
    key = ("market.equities.trades.asx", 0)
    world.log.append(*key, *(record_value(number) for number in range(10)))
    worker = world.start_worker()
    world.settle()
    world.kill(worker)
    world.log.append(*key, *(record_value(number) for number in range(10)))
    world.start_worker()

    world.settle()

    assert check(world) == 10


@pytest.mark.parametrize("world", [1], indirect=True)
def test_conflicts_are_kept_and_told(world):
    key = ("market.equities.trades.asx", 0)
    world.log.append(*key, record_value(1, price=1))
    worker = world.start_worker()
    world.settle()
    world.log.append(*key, record_value(1, price=2), record_value(1, price=1))

    world.settle()

    told = [event for event in worker.events if isinstance(event, events.RecordsInConflict)]
    assert check(world) == 1
    assert [dict(event.offsets) for event in told] == [{LogPartition(1, 0): (1,)}]


@pytest.mark.parametrize("world", [1], indirect=True)
def test_what_another_worker_stored_meanwhile_is_rolled_forward(world):
    key = ("market.equities.trades.asx", 0)
    first = world.start_worker()
    world.log.append(*key, record_value(1))
    world.settle()
    second = world.start_worker()
    world.group.rebalance({second.reader: [key]})
    world.log.append(*key, record_value(2))
    for _ in range(10):
        world.clock.sleep(3)
        for worker in (first, second):
            worker.step_consumer()
            worker.step_writer()
    world.group.rebalance({first.reader: world.all_partitions()})
    world.kill(second)
    world.log.append(*key, record_value(2), record_value(1))

    world.settle()

    assert check(world) == 2
