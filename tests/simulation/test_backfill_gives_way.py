"""A backfill that waits for its table's commit lets go of it where somebody else asks for one, as at a rebalance."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

import pytest

from k2.common.clock import SystemClock
from k2.common.degradation import DegradationLevel
from k2.ingestion.handover import Flush, Handover
from k2.testing.simulated_backfill import SimulatedBackfills
from k2.testing.simulated_duplicates import record_value

if TYPE_CHECKING:
    from collections.abc import Callable

LAST_SECONDS = 60.0
TRADES = ("market.equities.trades.asx", 0)
FIRST_TIER, DEFERRED, WAITING = (record_value(identity) for identity in (0, 1, 3))


class HeldFiles(Executor):
    """Writes files at once, or keeps them until they are let go."""

    def __init__(self) -> None:
        self.begun: Callable[[], None] | None = None
        self.held: list[Callable[[], None]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Keep the work, if somebody is to hear that it has begun."""
        future: Future[Any] = Future()
        self.held.append(lambda: future.set_result(fn(*args, **kwargs)))
        if self.begun is None:
            self.let_go()
        else:
            self.begun()
        return future

    def let_go(self) -> None:
        """Do what was kept."""
        while self.held:
            self.held.pop(0)()


class World(SimulatedBackfills):
    """One worker, whose files take as long as the test says."""

    def __init__(self) -> None:
        self.files = HeldFiles()
        super().__init__(0, partitions=1)
        backfill = self.settings.backfill.model_copy(
            update={"last_offsets_max": 10_000, "last_seconds_max": LAST_SECONDS}
        )
        big = {"commit_rows_max": 1_000, "buffer_bytes_max": 10_000, "decode_messages_max": 100}
        self.settings = self.settings.model_copy(update={**big, "backfill": backfill})
        self.worker = self.start_worker()
        self.rebalance()

    def file_writer(self) -> Executor:
        return self.files

    def batch_messages(self) -> int:
        return 100

    @property
    def counts(self) -> tuple[int, int]:
        """Rows of the table, and records deferred."""
        totals = self.tables.tables["trades"].head.seam.totals()
        return totals.rows, totals.deferred

    def go(self, seconds: float = 6) -> None:
        self.worker.step_consumer()
        self.worker.step_writer()
        self.clock.sleep(seconds)
        self.worker.step_writer()


@pytest.fixture
def world() -> World:
    """Return a world in which one record is deferred, and another one waits for its commit."""
    world = World()
    world.ladder.level = DegradationLevel.CIRCUIT_BREAK
    world.log.append(*TRADES, FIRST_TIER, DEFERRED)
    world.go()
    world.log.append(*TRADES, WAITING)
    world.ladder.level = DegradationLevel.NORMAL
    assert world.counts == (1, 1)
    return world


def test_partitions_taken_away_while_a_backfill_waits_for_files_are_committed_within_their_own_time(
    world: World,
) -> None:
    handover = world.worker.worker.handover
    flush = Flush(frozenset({"trades"}), world.clock.monotonic() + 10)
    world.files.begun = lambda: handover.ask_writer(flush)
    world.worker.step_consumer()
    world.clock.sleep(1)
    began = SystemClock().monotonic()
    world.worker.step_writer()
    assert SystemClock().monotonic() - began < LAST_SECONDS / 2
    assert handover.is_flush_asked

    world.files.begun = None
    world.files.let_go()
    world.worker.step_writer()

    assert flush.done.is_set()
    assert world.counts == (2, 1)


def test_having_given_way_it_is_tried_again_with_as_much_time_as_before(world: World) -> None:
    lane, handover, given = world.worker.worker.writer_loop.lanes["trades"], world.worker.worker.handover, []
    flush_lane = lane.flush

    def interrupted(seconds: float, *, gives_way: bool = False) -> bool:
        if not gives_way:
            return flush_lane(seconds)
        given.append(seconds)
        if len(given) > 1:
            return flush_lane(seconds, gives_way=True)
        handover.ask_writer(Flush(frozenset({"trades"}), world.clock.monotonic() + 10))
        return False

    lane.flush = interrupted
    for _ in range(4):
        world.go(1)

    assert given == [LAST_SECONDS, LAST_SECONDS]
    assert world.counts == (3, 0)


def test_files_are_waited_for_by_one_who_gives_way_to_nobody() -> None:
    handover, written = Handover(["trades"]), Future[None]()
    handover.ask_writer(Flush(frozenset({"trades"}), 0.0))
    written.set_result(None)

    assert handover.wait_for_files(written, 60, gives_way=False)
    assert not handover.wait_for_files(written, 60, gives_way=True)
