"""What was deferred in a topic that was deleted and created again: lost, told so, and never read from the new one."""

from __future__ import annotations

import pytest

from k2.common.degradation import DegradationLevel
from k2.ingestion import events
from k2.storage.seam import LogPartition
from k2.testing.simulated_backfill import SimulatedBackfills

TOPIC = "market.equities.trades.asx"


class World(SimulatedBackfills):
    """One worker at a time; records of both partitions of the topic are deferred, then it is created again."""

    def __init__(self, *, partitions: int) -> None:
        super().__init__(1)
        self.ladder.level = DegradationLevel.CIRCUIT_BREAK
        for number in range(2):
            self.produce((TOPIC, number), 40)
        self.start_worker()
        self.rebalance()
        self.go(40)
        self.old = next(log for log in self.head.logs if log.topic == TOPIC)
        self.kill(self.workers[0])
        self.log.create(TOPIC, partitions, topic_id="topic-2")
        for number in range(partitions):
            self.produce((TOPIC, number), 60)

    @property
    def head(self):
        return self.tables.tables["trades"].head

    def go(self, steps: int) -> None:
        for _ in range(steps):
            self.clock.sleep(3)
            for worker in self.workers:
                worker.step_consumer()
                worker.step_writer()

    def counts_of_old(self, number: int):
        return self.head.seam.partitions[LogPartition(self.old.log_id, number)].counts

    def succeed(self, *, accepting: bool) -> None:
        worker = self.start_worker()
        if accepting:
            worker.worker.accept_new_logs([TOPIC])
        self.rebalance()


@pytest.fixture(params=[1, 2])
def world(request) -> World:
    return World(partitions=request.param)


def test_they_are_counted_as_lost_once_the_new_log_is_accepted_at_whatever_level(world: World) -> None:
    before = [world.counts_of_old(number) for number in range(2)]
    world.succeed(accepting=True)

    world.go(30)

    told = [event for event in world.workers[0].events if isinstance(event, events.DeferredLost)]
    after = [world.counts_of_old(number) for number in range(2)]
    assert all(counts.deferred for counts in before)
    assert [counts.lost for counts in after] == [counts.deferred for counts in before]
    assert sum(event.records for event in told) == sum(counts.lost for counts in after)
    assert [(counts.deferred, counts.unaccounted) for counts in after] == [(0, 0)] * 2
    assert [counts.rows for counts in after] == [counts.rows for counts in before]
    outstanding = [event for event in world.workers[0].events if isinstance(event, events.DeferredOutstanding)]
    assert {event.partition for event in outstanding if event.topic == TOPIC} == {0, 1}


def test_the_new_log_is_written_as_if_there_had_never_been_another(world: World) -> None:
    world.succeed(accepting=True)
    world.go(30)
    world.ladder.level = DegradationLevel.NORMAL

    world.settle()

    held = [entry for entry in world.head.seam.deferred if entry.log_id == world.old.log_id]
    assert not held
    for (name, at), plain in world.replays().items():
        rows = [rows.filter(log_id=at.log_id, log_partition=at.partition) for rows in world.tables.tables[name].rows]
        found = sorted(offset for frame in rows for offset in frame["log_offset"])
        assert found == sorted(row["log_offset"] for row in plain.kept)


def test_nothing_is_read_or_given_up_while_nobody_has_accepted_the_new_log(world: World) -> None:
    before = [entry for entry in world.head.seam.deferred if entry.log_id == world.old.log_id]
    world.succeed(accepting=False)
    world.ladder.level = DegradationLevel.NORMAL

    world.go(30)

    assert [entry for entry in world.head.seam.deferred if entry.log_id == world.old.log_id] == before
