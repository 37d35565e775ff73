"""Whatever level, crash and rebalance: once backfilled, the events of gaps are those of a run without overload."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from k2.common import crash_points
from k2.common.degradation import DegradationLevel
from k2.testing.simulated_backfill import SimulatedBackfills
from k2.testing.simulated_duplicates import record_value
from k2.testing.simulated_ingest import crash_at

if TYPE_CHECKING:
    from k2.kafka.ports import TopicPartition

STEPS = 60
OF_COMMITS = {"commit_sequence", "decided_offset", "ts_recorded", "log_id"}
"""Columns that tell when something was written; a log's number, in which order the logs were registered."""


class World(SimulatedBackfills):
    """The numbers of each partition's three symbols go up; some never come, some come late."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.last: Counter[TopicPartition] = Counter()

    def send(self, key: TopicPartition, records: int) -> None:
        for _ in range(records):
            what, back = self.random.random(), 3 * self.random.randint(1, 3)
            if what < 0.05:
                self.last[key] += back
            if 0.05 <= what < 0.1 and self.last[key] > back:
                self.log.append(*key, record_value(self.last[key] - back))
            else:
                self.last[key] += 1
                self.log.append(*key, record_value(self.last[key]))

    def disturb(self) -> None:
        what = self.random.random()
        if what < 0.3:
            self.send(self.random.choice(self.all_partitions()), self.random.randint(1, 30))
        elif what < 0.45:
            self.draw_level()
        elif what < 0.49:
            self.rebalance()
        elif what < 0.52:
            self.kill(self.random.choice(self.workers))
            self.start_worker()
            self.rebalance()
        elif what < 0.58:
            crash = self.random.choice([0.0, 0.02, 0.05])
            self.faults.crash = lambda _point: self.random.random() < crash

    @property
    def gap_events(self) -> set[str]:
        events = self.tables.gap_events.values()
        return {repr(sorted((k, v) for k, v in event.items() if k not in OF_COMMITS)) for event in events}


@pytest.mark.parametrize("seed", [1, 4, 5])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_events_of_gaps_are_those_of_a_run_without_overload(
    seed: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, calm = World(seed), World(seed)
    calm.log.topics = world.log.topics
    monkeypatch.setattr(crash_points, "reached", crash_at(world))
    for _ in range(workers):
        world.start_worker()
    world.rebalance()

    for _ in range(STEPS):
        world.disturb()
        world.clock.sleep(world.random.choice([0.0, 0.3, 3.0]))
        worker = world.random.choice(world.workers)
        world.run(world.random.choice([worker.step_consumer, worker.step_writer]), worker)
    world.ladder.level = DegradationLevel.NORMAL
    world.settle()
    for key in world.all_partitions():  # what a deferred range hid is decided with the next record
        world.send(key, 1)
    world.settle()
    calm.start_worker()
    calm.settle()

    assert len(calm.gap_events) > 50
    assert world.gap_events == calm.gap_events
