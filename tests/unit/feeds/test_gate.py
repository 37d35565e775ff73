"""A feed is held back while the platform is at its highest level, says so, and goes on by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2.common.announcing import LevelAnnouncement
from k2.common.degradation import DegradationLevel
from k2.feeds.gate import FeedGate
from k2.feeds.market import Market, MarketRun
from k2.feeds.settings import FeedSettings
from k2.testing.feed_world import FeedWorld
from k2.testing.manual_clock import ManualClock

SETTINGS = FeedSettings(hold_look_seconds=0.5, hold_told_seconds=2)
BREAK = DegradationLevel.CIRCUIT_BREAK


class Board:
    """A level for some seconds of a clock's time, and none afterwards."""

    def __init__(self, clock: ManualClock, level: DegradationLevel, seconds: float) -> None:
        self._clock = clock
        self._until = clock.monotonic() + seconds
        self._said = LevelAnnouncement("w-1", level, "lag", 0, 0)

    def current(self) -> LevelAnnouncement | None:
        return self._said if self._clock.monotonic() < self._until else None


class Told:
    """Notes what a gate says."""

    def __init__(self) -> None:
        self.held_seconds: list[float] = []
        self.released_seconds: list[float] = []

    def held(self, announcement: LevelAnnouncement, seconds: float) -> None:
        assert announcement.worker == "w-1"
        self.held_seconds.append(seconds)

    def released(self, seconds: float) -> None:
        self.released_seconds.append(seconds)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def told() -> Told:
    return Told()


def gate_of(clock, told, level=BREAK, seconds=5.0, is_stopped=lambda: False) -> FeedGate:
    board = Board(clock, level, seconds)
    return FeedGate(board, settings=SETTINGS, clock=clock, told=told, is_stopped=is_stopped)


def test_a_feed_is_held_back_until_the_level_falls(clock: ManualClock, told: Told) -> None:
    gate = gate_of(clock, told, seconds=5)

    gate.wait()

    assert clock.monotonic() == pytest.approx(5)
    assert told.released_seconds == [pytest.approx(5)]
    assert gate.held_seconds == pytest.approx(5)


def test_it_says_so_at_once_and_every_few_seconds(clock: ManualClock, told: Told) -> None:
    gate_of(clock, told, seconds=5).wait()

    assert told.held_seconds == [0, 2, 4]


@pytest.mark.parametrize("level", [level for level in DegradationLevel if level < BREAK])
def test_a_lower_level_holds_nothing_back(clock: ManualClock, told: Told, level: DegradationLevel) -> None:
    gate_of(clock, told, level).wait()

    assert clock.monotonic() == 0
    assert told.held_seconds == []


def test_a_feed_that_is_stopped_waits_no_longer(clock: ManualClock, told: Told) -> None:
    gate = gate_of(clock, told, seconds=1_000_000, is_stopped=lambda: clock.monotonic() >= 3)

    gate.wait()

    assert clock.monotonic() == pytest.approx(3)


def test_a_channel_asks_before_it_sends_and_sends_nothing_meanwhile(tmp_path: Path) -> None:
    world = FeedWorld(tmp_path, "sim")
    held: list[int] = []
    channel = world.new_channel(hold_back=lambda: held.append(len(world.values("trades"))))
    part = Market(MarketRun(seed=1, start_ns=1_767_225_600_000_000_000, rate=2_000), duration_ns=10**9).next_slice()

    channel.send("trades", part.trades)
    channel.send("trades", part.trades[:0])

    assert held == [0]
    assert len(world.values("trades")) == len(part.trades) > 0
