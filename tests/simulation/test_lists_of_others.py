"""Deferred lists that others begin and write while a worker does not look: what it decides then, and remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k2.common.degradation import DegradationLevel
from k2.testing.simulated_backfill import SimulatedBackfills
from k2.testing.simulated_duplicates import record_value

if TYPE_CHECKING:
    from k2.testing.simulated_ingest import SimulatedWorker

TRADES = ("market.equities.trades.asx", 0)
FIRST_TIER, DEFERRED = 0, 1
"""Identities of a record of the first tier, and of one that the top level defers."""


class World(SimulatedBackfills):
    """Two workers that own the partition in turn; who has lost it does not know before it polls."""

    def __init__(self) -> None:
        super().__init__(0, partitions=1)
        self.settings = self.settings.model_copy(
            update={
                "commit_rows_max": 1_000,
                "buffer_bytes_max": 10_000,
                "decode_messages_max": 100,
                "backfill": self.settings.backfill.model_copy(update={"last_offsets_max": 10_000}),
            }
        )
        self.first, self.second = self.start_worker(), self.start_worker()

    def batch_messages(self) -> int:
        return 100

    def give_to(self, worker: SimulatedWorker) -> None:
        self.group.rebalance({worker.reader: [TRADES]})

    def send(self, *identities: int) -> None:
        self.log.append(*TRADES, *(record_value(each) for each in identities))

    def commit(self, worker: SimulatedWorker) -> None:
        worker.step_consumer()
        worker.step_writer()
        self.clock.sleep(6)
        worker.step_writer()
        worker.step_consumer()

    @property
    def deferred(self) -> int:
        return self.tables.tables["trades"].head.seam.totals().deferred

    def backfill(self, worker: SimulatedWorker) -> None:
        for _ in range(20):
            if self.deferred:
                self.clock.sleep(1)
                worker.step_writer()
        assert not self.deferred

    def defer_by_the_second(self) -> None:
        """Let the second worker take the partition over, and put a record off."""
        self.send(FIRST_TIER)
        self.give_to(self.first)
        self.commit(self.first)
        self.give_to(self.second)
        self.first.step_consumer()
        self.ladder.level = DegradationLevel.CIRCUIT_BREAK
        self.send(DEFERRED)
        self.commit(self.second)
        assert self.deferred == 1
        self.ladder.level = DegradationLevel.NORMAL


@pytest.fixture
def world() -> World:
    return World()


def test_a_list_that_is_written_while_a_returning_worker_commits_hides_no_duplicate(world: World) -> None:
    world.defer_by_the_second()
    world.give_to(world.first)
    world.send(DEFERRED)

    world.faults.meanwhile = lambda: world.backfill(world.second)
    world.commit(world.first)
    world.settle()

    world.check()


def test_a_list_that_began_and_ended_between_two_looks_is_read_before_the_next_batch(world: World) -> None:
    world.defer_by_the_second()
    world.give_to(world.first)
    world.send(FIRST_TIER)
    world.faults.before_commit = lambda: True
    world.commit(world.first)

    world.faults.before_commit = lambda: False
    world.backfill(world.second)
    world.commit(world.first)
    world.send(DEFERRED)
    world.commit(world.first)
    world.settle()

    world.check()
