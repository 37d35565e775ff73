"""A drill makes commits wait, for as long as it asks and no longer than is allowed."""

from __future__ import annotations

import pytest

from k2.common.announcing import DrillRequest
from k2.common.degradation import DegradationLevel
from k2.common.units import NS_PER_SECOND
from k2.ingestion.sink_throttle import SinkThrottle, ThrottledWriter
from k2.storage.writer import Batch
from k2.testing.fake_drills import FakeDrills
from k2.testing.manual_clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def drills(clock: ManualClock) -> FakeDrills:
    return FakeDrills(clock)


@pytest.fixture
def throttle(drills: FakeDrills, clock: ManualClock) -> SinkThrottle:
    return SinkThrottle(drills, clock=clock, wait_seconds_max=30)


def ask(drills: FakeDrills, clock: ManualClock, seconds: float, **more: float) -> None:
    now = clock.time_ns()
    drills.ask(DrillRequest(DegradationLevel.NORMAL, now + int(seconds * NS_PER_SECOND), now, "ops", **more))


def test_without_a_drill_nothing_waits(throttle: SinkThrottle) -> None:
    assert throttle.wait(1_000_000) == 0


def test_a_commit_waits_as_long_as_its_rows_take(throttle: SinkThrottle, drills: FakeDrills, clock) -> None:
    ask(drills, clock, 60, sink_delay_seconds=0.5, sink_rows_per_second=400)

    assert throttle.wait(1_000) == pytest.approx(3.0)


def test_no_commit_waits_longer_than_allowed(throttle: SinkThrottle, drills: FakeDrills, clock) -> None:
    ask(drills, clock, 600, sink_rows_per_second=1)

    assert throttle.wait(1_000_000) == pytest.approx(30)


def test_the_end_of_a_drill_ends_the_wait(throttle: SinkThrottle, drills: FakeDrills, clock) -> None:
    ask(drills, clock, 2, sink_delay_seconds=20)

    assert throttle.wait(0) == pytest.approx(2, abs=0.11)


class Noting:
    """A writer that notes when it commits."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.committed_at: list[float] = []

    def write_files(self, rows):
        return (rows,)

    def commit(self, batch):
        self.committed_at.append(self._clock.monotonic())
        return batch


def test_a_throttled_writer_writes_the_same_later(throttle: SinkThrottle, drills: FakeDrills, clock) -> None:
    inner = Noting(clock)
    writer = ThrottledWriter(inner, throttle)
    batch = Batch("b-1", {})
    ask(drills, clock, 60, sink_delay_seconds=5)

    assert writer.write_files("rows") == ("rows",)
    assert writer.commit(batch) is batch
    assert inner.committed_at == [pytest.approx(5)]
