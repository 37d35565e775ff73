"""A worker's level: from its load, from a failing sink, from a drill; told once a change and now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k2.common.announcing import DrillRequest, LevelAnnouncement
from k2.common.degradation import Cause, DegradationLevel, Priority
from k2.common.drain_time import Progress
from k2.common.errors import FencedError, UnavailableError
from k2.common.settings import DegradationSettings
from k2.ingestion.events import LoadMeasured
from k2.ingestion.overload.ladder import NoLadder, WorkerLadder
from k2.ingestion.overload.sink_watch import SinkWatch
from k2.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from k2.common.circuit_breaker import LevelChanged

NORMAL, SOFT, GRACEFUL, AGGRESSIVE, CIRCUIT_BREAK = DegradationLevel
CALM_SECONDS = 60


class Memory:
    share = 0.0

    def percent(self) -> float:
        return self.share


class World:
    """A worker that reads one partition, whose log and progress the test moves."""

    def __init__(self, **settings: object) -> None:
        self.clock = ManualClock()
        self.memory = Memory()
        self.changes: list[LevelChanged] = []
        self.measured: list[LoadMeasured] = []
        self.announced: list[LevelAnnouncement] = []
        self.drill: DrillRequest | None = None
        self.log_end = self.position = 0
        self.reads = True
        self.ladder = WorkerLadder(
            DegradationSettings.model_validate(settings),
            clock=self.clock,
            memory=self.memory,
            worker="w1",
            observer=self.hear,
            announcer=self,
            drills=self,
        )

    def hear(self, event: LevelChanged | LoadMeasured) -> None:
        (self.measured if isinstance(event, LoadMeasured) else self.changes).append(event)

    def announce(self, announcement: LevelAnnouncement) -> None:
        self.announced.append(announcement)

    def wanted(self) -> DrillRequest | None:
        return self.drill

    def want(self, level: DegradationLevel | None) -> None:
        self.drill = None if level is None else DrillRequest(level, 2**62, 0, "a person")

    def go(self, seconds: float, *, arriving: float = 0, serving: float = 0) -> list[DegradationLevel]:
        """Let time pass in steps of 0.1 s; return the level after each."""
        levels = []
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            self.log_end += round(arriving / 10)
            self.position = min(self.log_end, self.position + round(serving / 10))
            self.ladder.check(self.measure)
            levels.append(self.ladder.level)
        return levels

    def measure(self) -> list[tuple[str, Progress]]:
        progress = Progress(self.log_end, self.position, (self.position, 0, 0, 0), 0, self.position)
        return [("p0", progress)] if self.reads else []


def test_a_backlog_that_lasts_is_climbed_for_and_left_again() -> None:
    world = World()
    world.go(3, arriving=1_000, serving=10_000)

    levels = world.go(4, arriving=10_000, serving=2_000)
    world.go(CALM_SECONDS, arriving=1_000, serving=10_000)

    assert CIRCUIT_BREAK in levels
    assert world.ladder.level is NORMAL
    assert [change.to_level for change in world.changes][-1] is NORMAL
    assert {change.cause for change in world.changes} <= {Cause.DRAIN_TIME, Cause.RECOVERED}


def test_a_burst_that_is_served_within_a_second_is_no_overload() -> None:
    world = World()
    world.go(20, arriving=100, serving=100_000)

    world.log_end += 5_000
    levels = world.go(0.8, serving=10_000) + world.go(5, arriving=100, serving=100_000)

    assert set(levels) == {NORMAL}


def test_a_start_with_a_backlog_is_given_time_to_serve_the_first_records() -> None:
    world = World(warm_up_seconds=5)
    world.log_end = 1_000

    assert set(world.go(4)) == {NORMAL}
    assert world.go(3)[-1] is CIRCUIT_BREAK


@pytest.mark.parametrize("stopped_seconds", [10, 600])
def test_a_process_that_was_stopped_tells_how_long_it_needs_and_not_how_long_it_stood(stopped_seconds: int) -> None:
    world = World()
    world.go(20, arriving=1_000, serving=20_000)

    world.clock.advance(stopped_seconds)
    world.log_end += 20_000
    levels = world.go(5, arriving=1_000, serving=10_000)

    assert max(levels) < CIRCUIT_BREAK
    assert max(told.drain_seconds for told in world.announced) < 4


def test_a_worker_that_stands_still_tells_a_time_that_has_an_end() -> None:
    world = World()
    world.go(20, arriving=10_000, serving=20_000)

    assert world.go(60, arriving=10_000)[-1] is CIRCUIT_BREAK
    assert 60 < world.announced[-1].drain_seconds < 60 + 600_000 / 10_000 + 1


def test_a_partition_that_is_read_elsewhere_now_counts_no_more() -> None:
    world = World()
    world.log_end = 200_000
    assert world.go(0.5)[-1] is SOFT

    world.reads = False
    world.go(CALM_SECONDS)

    assert world.ladder.level is NORMAL


def test_memory_decides_as_well_and_pauses_once_it_is_out() -> None:
    world = World()
    world.memory.share = 91.0
    assert world.go(0.2)[-1] is AGGRESSIVE
    assert not world.ladder.must_pause()
    assert world.ladder.is_short_of_memory()

    world.memory.share = 96.0
    assert world.go(0.2)[-1] is CIRCUIT_BREAK
    assert world.ladder.must_pause()


def test_the_load_is_looked_at_no_more_often_than_the_settings_say() -> None:
    world = World(check_seconds=1)
    world.log_end = 6_000_000
    world.ladder.check(world.measure)

    world.log_end = 0
    assert set(world.go(0.8)) == {CIRCUIT_BREAK}


def test_a_drill_is_a_floor_that_is_gone_with_it() -> None:
    world = World()
    world.want(GRACEFUL)
    assert world.go(0.2)[-1] is GRACEFUL
    assert world.ladder.is_short_of_memory()

    world.want(None)
    assert world.go(0.2)[-1] is NORMAL
    assert [(change.to_level, change.cause) for change in world.changes] == [
        (GRACEFUL, Cause.DRILL),
        (NORMAL, Cause.RESET),
    ]


def test_a_drill_never_lowers_the_level() -> None:
    world = World()
    world.log_end = 1_500_000
    world.go(0.5)

    world.want(SOFT)

    assert world.go(0.5)[-1] is AGGRESSIVE
    assert not world.announced[-1].drill
    assert not world.ladder.is_short_of_memory()


def test_the_level_is_announced_at_each_change_and_now_and_then() -> None:
    world = World(announce_seconds=2)
    world.go(4)
    before = len(world.announced)

    world.want(AGGRESSIVE)
    world.go(0.1)

    assert before == 2
    told = world.announced[-1]
    assert (told.worker, told.level, told.reason, told.drill) == ("w1", AGGRESSIVE, "drill", True)
    assert told.since_ns == told.at_ns == world.clock.time_ns()
    assert LevelAnnouncement.from_json(told.to_json()) == told


def test_an_announcement_says_how_much_is_deferred() -> None:
    world = World()
    world.ladder.deferred("trades", 7, lowest_priority=2)
    world.ladder.deferred("quotes", 5, lowest_priority=3)

    world.go(0.1)

    assert world.announced[-1].deferred_records == 12


def test_it_tells_for_how_long_which_tier_is_deferred_in_any_table() -> None:
    world = World(announce_seconds=2)
    world.ladder.deferred("trades", 7, lowest_priority=3)
    world.go(10)
    world.ladder.deferred("quotes", 5, lowest_priority=2)
    world.ladder.deferred("trades", 9, lowest_priority=3)
    world.go(10)
    both = world.measured[-1].deferred_seconds

    world.ladder.deferred("trades", 0, lowest_priority=4)
    world.go(2)

    assert [both[priority] for priority in Priority] == pytest.approx([0, 0, 10, 20], abs=2)
    assert [world.measured[-1].deferred_seconds[priority] for priority in Priority] == pytest.approx(
        [0, 0, 12, 12], abs=2
    )


def test_a_sink_that_fails_takes_the_top_level_and_is_tried_by_one_at_a_time() -> None:
    world = World(sink_probe_seconds=1, sink_probe_seconds_max=8)
    first, second = SinkWatch(world.ladder), SinkWatch(world.ladder)
    assert first.may_try()

    with pytest.raises(UnavailableError):
        first.told(down)

    assert world.ladder.level is CIRCUIT_BREAK
    assert world.ladder.must_pause()
    assert not first.may_try()
    world.clock.advance(1)
    assert second.may_try()
    assert second.may_try()
    assert not first.may_try()
    second.succeeded()
    assert first.may_try()
    assert not world.ladder.must_pause()


def test_a_lane_that_drops_what_it_could_not_commit_lets_others_try() -> None:
    world = World()
    lane = SinkWatch(world.ladder)
    lane.may_try()
    with pytest.raises(UnavailableError):
        lane.told(down)

    lane.given_up()

    assert not world.ladder.must_pause()


def test_a_fence_is_no_failure_of_the_sink() -> None:
    world = World()
    lane = SinkWatch(world.ladder)
    lane.may_try()

    with pytest.raises(FencedError):
        lane.told(fenced)

    assert world.ladder.level is NORMAL


def test_the_last_commit_of_a_worker_is_tried_whatever_the_sink_did() -> None:
    world = World()
    lane = SinkWatch(world.ladder)
    world.ladder.sink_failed()
    assert not lane.may_try()

    lane.try_in_any_case()

    assert lane.may_try()


def test_without_a_ladder_nothing_is_ever_held_up() -> None:
    ladder = NoLadder()
    ladder.sink_failed()
    ladder.check(list)
    ladder.deferred("trades", 1, lowest_priority=3)
    ladder.sink_succeeded()

    assert (ladder.level, ladder.reason) == (NORMAL, "")
    assert ladder.may_try_sink()
    assert not ladder.must_pause()
    assert not ladder.is_short_of_memory()


def down() -> None:
    raise UnavailableError("down", dependency="catalog")


def fenced() -> None:
    raise FencedError("another writer")
