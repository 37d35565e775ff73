"""Which deferred range is written next: overload's first, halted streams once they go on or would be lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from k2.common.announcing import ReleaseRequest
from k2.common.units import NS_PER_SECOND
from k2.ingestion import events
from k2.ingestion.backfill.choosing import Chooser, Task
from k2.ingestion.backfill.reading import RangeReader
from k2.ingestion.backfill.releasing import GoingOn
from k2.ingestion.backfill.retention import RetentionWatch
from k2.ingestion.backfill.settings import BackfillSettings
from k2.kafka.ports import LogRange
from k2.storage.deferral import DeferredList
from k2.storage.seam import DeferredRange, HaltedStream, LogPartition, PartitionSeam, Seam
from k2.storage.tables import RegisteredLog, TableHead
from k2.testing.fake_log import FakeLog, FakeReader
from k2.testing.fake_releases import FakeReleases
from k2.testing.manual_clock import ManualClock

TOPIC = "market.equities.trades.asx"
CLOCK = ManualClock()
NOW_US = CLOCK.time_ns() // 1_000
LOW = DeferredRange(0, 0, 10, 90, "map", 3, 4)
A = DeferredRange(0, 0, 20, 90, "", 4, 5, HaltedStream("A", ("A",), 20, NOW_US))
B = DeferredRange(0, 0, 30, 90, "", 4, 6, HaltedStream("B", ("B",), 30, NOW_US - 3_600_000_000))


class World:
    def __init__(self, *, halt_seconds: float = 0.0, log_start: int = 0, log_id: int = 0) -> None:
        self.releases, self.heard, self.log_start = FakeReleases(), list[events.Event](), log_start
        log, settings = FakeLog(), BackfillSettings(poll_seconds=0)
        log.create_topic(TOPIC)
        for _ in range(100):
            log.append(TOPIC, b"A", b"", partition=0)
        self.chooser = Chooser(
            "trades",
            log_ends=self,
            owned=lambda: {(TOPIC, 0): LogPartition(log_id, 0)},
            reader=RangeReader(lambda: FakeReader(log), settings),
            retention=RetentionWatch({}, settings=settings, clock=CLOCK),
            clock=CLOCK,
            observer=self.heard.append,
            going_on=GoingOn(self.releases, halt_seconds, CLOCK),
        )

    def ranges(self, topics: object) -> dict[tuple[str, int], LogRange]:
        del topics
        return {(TOPIC, 0): LogRange(self.log_start, 100)}

    def choose(self, *entries: DeferredRange) -> Task | None:
        return self.chooser.choose(head(*entries))

    def release(self, since: int, *, table: str = "trades", log_id: int = 0) -> None:
        self.releases.ask(ReleaseRequest(table, log_id, 0, since, "A", 0, "me@here"))


def head(*entries: DeferredRange) -> TableHead:
    seam = Seam(1, {LogPartition(0, 0): PartitionSeam(100)}, entries)
    return TableHead("trades", 1, seam, (RegisteredLog(0, "cluster", "id", TOPIC, 1, {0: 0}),), {}, "memory")


def test_a_halted_stream_is_not_written_before_it_goes_on() -> None:
    world = World()

    assert world.choose(A, B) is None
    assert world.heard == [events.DeferredOutstanding("trades", TOPIC, 0, 11, near_retention=False, halted_streams=2)]


def test_what_overload_deferred_is_written_whatever_is_halted() -> None:
    task = World().choose(LOW, A)

    assert task is not None
    assert (task.entry, task.offsets) == (LOW, 80)


def test_the_stream_that_was_released_is_written_and_no_other() -> None:
    world = World()
    world.release(30)

    task = world.choose(A, B)

    assert task is not None
    assert (task.entry, task.offsets) == (B, 60)


@pytest.mark.parametrize(
    ("since", "table", "log_id"), [(19, "trades", 0), (20, "quotes", 0), (20, "trades", 1)], ids=str
)
def test_a_release_of_another_halt_does_nothing(since: int, table: str, log_id: int) -> None:
    world = World()
    world.release(since, table=table, log_id=log_id)

    assert world.choose(A) is None


def test_writing_that_has_begun_goes_on_without_a_release() -> None:
    begun = replace(A, start=25)

    task = World().choose(begun, B)

    assert task is not None
    assert task.entry == begun


def test_its_time_lets_a_stream_go_on() -> None:
    task = World(halt_seconds=3_600).choose(A, B)

    assert task is not None
    assert task.entry == B
    assert World(halt_seconds=3_600 + 1 / NS_PER_SECOND * 10**6).choose(A, B) is None


def test_what_the_log_will_delete_is_written_released_or_not() -> None:
    task = World(log_start=15).choose(A, B)

    assert task is not None
    assert (task.entry, task.urgent) == (A, True)


def test_a_halted_stream_of_a_log_whose_topic_was_created_again_is_given_up_released_or_not() -> None:
    world, before = World(log_id=1), head(A)
    made_anew = replace(before, logs=(*before.logs, RegisteredLog(1, "cluster", "id-2", TOPIC, 1, {0: 0})))

    task = world.chooser.choose(made_anew)

    assert task is not None
    assert (task.entry, task.extent, task.urgent) == (A, LogRange(90, 90), True)


def test_a_task_goes_on_with_its_own_stream_only() -> None:
    world = World()
    world.release(20)
    task = world.choose(A, B)
    assert task is not None

    grown = replace(A, start=60, end=120)

    assert task.of(held(grown, B)) == replace(task, held=held(grown, B), entry=grown)
    assert task.of(held(B)) is None
    assert task.of(held(LOW, grown)) is None


def held(*entries: DeferredRange) -> DeferredList:
    return DeferredList.of(head(*entries).seam, LogPartition(0, 0))
