"""The ladder climbs at once, comes down slowly, opens with the sink, and never pauses for lag."""

from __future__ import annotations

import pytest

from k2.common.circuit_breaker import CircuitBreaker, DegradationLevel, DegradationThresholds, LevelChanged
from k2.common.degradation import Cause, Load
from k2.common.load_shedder import TieredPriorities
from k2.common.settings import DegradationSettings
from k2.testing.manual_clock import ManualClock

NORMAL, SOFT, GRACEFUL, AGGRESSIVE, CIRCUIT_BREAK = DegradationLevel
CALM = 30.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> CircuitBreaker:
    return CircuitBreaker(settings=DegradationSettings(hold_seconds_max=480), clock=clock)


def pass_calmly(breaker: CircuitBreaker, clock: ManualClock, seconds: float, *, lag: float = 0) -> list[int]:
    """Check once a second at a lag; return the level after each check."""
    levels = []
    for _ in range(round(seconds)):
        clock.advance(1)
        levels.append(int(breaker.check_and_degrade(lag)))
    return levels


def climb_and_calm_down(breaker: CircuitBreaker, clock: ManualClock, *, within: int = 1000) -> int:
    """Go to SOFT, then check calmly once a second until NORMAL; return the seconds that this took."""
    breaker.check_and_degrade(100_000)
    for second in range(1, within):
        clock.advance(1)
        if breaker.check_and_degrade(0) is NORMAL:
            return second
    raise AssertionError("never NORMAL again")


def test_it_works_without_arguments() -> None:
    breaker = CircuitBreaker()

    assert breaker.check_and_degrade(0) is NORMAL
    assert breaker.level is NORMAL


@pytest.mark.parametrize(
    ("lag", "level"),
    [
        (0, NORMAL),
        (99_999, NORMAL),
        (100_000, SOFT),
        (499_999, SOFT),
        (500_000, GRACEFUL),
        (1_000_000, AGGRESSIVE),
        (4_999_999, AGGRESSIVE),
        (5_000_000, CIRCUIT_BREAK),
        (10**12, CIRCUIT_BREAK),
    ],
)
def test_the_lag_alone_takes_the_level_to_where_it_belongs(
    breaker: CircuitBreaker, lag: int, level: DegradationLevel
) -> None:
    assert breaker.check_and_degrade(lag) is level


@pytest.mark.parametrize(
    ("percent", "level"),
    [(69.9, NORMAL), (70, SOFT), (80, GRACEFUL), (90, AGGRESSIVE), (95, CIRCUIT_BREAK), (120, CIRCUIT_BREAK)],
)
def test_memory_alone_takes_the_level_to_where_it_belongs(
    breaker: CircuitBreaker, percent: float, level: DegradationLevel
) -> None:
    assert breaker.check_and_degrade(0, percent) is level


@pytest.mark.parametrize(
    ("seconds", "level"),
    [(0.9, NORMAL), (1, SOFT), (2, GRACEFUL), (3, AGGRESSIVE), (4, CIRCUIT_BREAK), (float("inf"), CIRCUIT_BREAK)],
)
def test_the_time_to_drain_alone_takes_the_level_to_where_it_belongs(
    breaker: CircuitBreaker, seconds: float, level: DegradationLevel
) -> None:
    assert breaker.check_and_degrade(0, drain_seconds=seconds) is level


def test_of_three_measures_the_worst_decides(breaker: CircuitBreaker) -> None:
    level = breaker.check_and_degrade(100_000, 91, drain_seconds=2)

    assert level is AGGRESSIVE
    assert breaker.cause is Cause.MEMORY


def test_it_climbs_over_several_levels_at_once(breaker: CircuitBreaker) -> None:
    breaker.check_and_degrade(5_000_000)

    assert [(each.from_level, each.to_level) for each in breaker.history] == [(NORMAL, CIRCUIT_BREAK)]


def test_it_stays_until_it_has_been_calm_for_half_a_minute(breaker: CircuitBreaker, clock: ManualClock) -> None:
    breaker.check_and_degrade(100_000)

    levels = pass_calmly(breaker, clock, CALM + 1)

    assert levels == [SOFT] * 30 + [NORMAL]


def test_just_below_the_threshold_is_not_calm(breaker: CircuitBreaker, clock: ManualClock) -> None:
    breaker.check_and_degrade(100_000)

    at_half = pass_calmly(breaker, clock, 10 * CALM, lag=50_000)
    below_half = pass_calmly(breaker, clock, CALM + 1, lag=49_999)

    assert set(at_half) == {SOFT}
    assert below_half[-1] == NORMAL


def test_memory_must_fall_below_nine_tenths_of_its_threshold(breaker: CircuitBreaker, clock: ManualClock) -> None:
    breaker.check_and_degrade(0, 70)
    levels = []

    for percent in (63, 62.9):
        for _ in range(31):
            clock.advance(1)
            breaker.check_and_degrade(0, percent)
        levels.append(breaker.level)

    assert levels == [SOFT, NORMAL]


def test_the_time_to_drain_must_fall_below_half_of_its_threshold(breaker: CircuitBreaker, clock: ManualClock) -> None:
    breaker.check_and_degrade(0, drain_seconds=1)
    levels = []

    for seconds in (0.5, 0.49):
        for _ in range(31):
            clock.advance(1)
            breaker.check_and_degrade(0, drain_seconds=seconds)
        levels.append(breaker.level)

    assert levels == [SOFT, NORMAL]


def test_a_spike_restarts_the_calm_spell(breaker: CircuitBreaker, clock: ManualClock) -> None:
    breaker.check_and_degrade(100_000)
    pass_calmly(breaker, clock, 29)

    breaker.check_and_degrade(60_000)
    levels = pass_calmly(breaker, clock, CALM + 1)

    assert levels == [SOFT] * 30 + [NORMAL]


def test_a_long_silence_is_no_calm_spell(breaker: CircuitBreaker, clock: ManualClock) -> None:
    breaker.check_and_degrade(100_000)

    clock.advance(1_000)

    assert breaker.check_and_degrade(0) is SOFT


def test_it_comes_down_one_level_at_a_time(breaker: CircuitBreaker, clock: ManualClock) -> None:
    breaker.check_and_degrade(5_000_000)

    levels = pass_calmly(breaker, clock, 60)

    assert list(dict.fromkeys(levels)) == [CIRCUIT_BREAK, AGGRESSIVE, GRACEFUL, SOFT, NORMAL]
    assert levels[29:31] == [CIRCUIT_BREAK, AGGRESSIVE]
    assert levels.count(AGGRESSIVE) == levels.count(GRACEFUL) == levels.count(SOFT) == 3


def test_it_is_back_at_normal_within_a_minute_of_calm_however_often_it_flapped(clock: ManualClock) -> None:
    breaker = CircuitBreaker(clock=clock)
    for _ in range(5):
        climb_and_calm_down(breaker, clock)
    breaker.check_and_degrade(5_000_000)

    assert pass_calmly(breaker, clock, 60)[-1] == NORMAL


def test_a_load_that_is_calm_for_a_high_level_only_stops_the_way_down(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    breaker.check_and_degrade(5_000_000)

    levels = pass_calmly(breaker, clock, 10 * CALM, lag=300_000)

    assert levels[-1] == GRACEFUL


def test_a_level_whose_effect_alone_keeps_the_load_low_is_not_left(breaker: CircuitBreaker, clock: ManualClock) -> None:
    breaker.check_and_degrade(0, drain_seconds=4)
    levels = []

    for _ in range(300):
        clock.advance(1)
        levels.append(breaker.check_and_degrade(0, below=Load(drain_seconds=9)))

    assert set(levels) == {CIRCUIT_BREAK}


def test_coming_down_too_early_doubles_the_calm_that_is_asked_for(breaker: CircuitBreaker, clock: ManualClock) -> None:
    spells = [climb_and_calm_down(breaker, clock) for _ in range(4)]

    assert spells == [31, 61, 121, 241]


def test_the_doubling_ends_at_the_longest_hold(clock: ManualClock) -> None:
    breaker = CircuitBreaker(clock=clock)

    spells = [climb_and_calm_down(breaker, clock) for _ in range(4)]

    assert spells == [31, 46, 46, 46]


def test_a_new_load_after_a_while_doubles_nothing(breaker: CircuitBreaker, clock: ManualClock) -> None:
    climb_and_calm_down(breaker, clock)

    pass_calmly(breaker, clock, 31)

    assert climb_and_calm_down(breaker, clock) == 31


def test_flapping_is_forgotten_after_as_much_calm_as_it_cost(breaker: CircuitBreaker, clock: ManualClock) -> None:
    climb_and_calm_down(breaker, clock)
    climb_and_calm_down(breaker, clock)

    pass_calmly(breaker, clock, 61)

    assert climb_and_calm_down(breaker, clock) == 31


def test_a_high_lag_alone_never_pauses_reading(breaker: CircuitBreaker) -> None:
    breaker.check_and_degrade(10**12, 0, drain_seconds=float("inf"))

    assert breaker.level is CIRCUIT_BREAK
    assert not breaker.should_pause_partitions()


def test_memory_that_is_out_pauses_reading_until_there_is_room(breaker: CircuitBreaker) -> None:
    paused = []

    for percent in (94.9, 95, 86, 85.4, 94.9):
        breaker.check_and_degrade(0, percent)
        paused.append(breaker.should_pause_partitions())

    assert paused == [False, True, True, False, False]


def test_a_negative_or_undefined_load_is_refused(breaker: CircuitBreaker) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        breaker.check_and_degrade(-1)
    with pytest.raises(ValueError, match="0 or more"):
        breaker.check_and_degrade(0, drain_seconds=float("nan"))


def test_memory_is_measured_where_it_is_not_given(clock: ManualClock) -> None:
    class Full:
        def percent(self) -> float:
            return 91.0

    breaker = CircuitBreaker(clock=clock, memory=Full())

    assert breaker.check_and_degrade(0) is AGGRESSIVE
    assert CircuitBreaker(clock=clock, memory=Full()).check_and_degrade(0, 10) is NORMAL


def test_what_each_level_does(breaker: CircuitBreaker) -> None:
    does = {}

    for level, lag in ((NORMAL, 0), (SOFT, 1e5), (GRACEFUL, 5e5), (AGGRESSIVE, 1e6), (CIRCUIT_BREAK, 5e6)):
        breaker.check_and_degrade(lag)
        does[level] = (
            breaker.should_skip_enrichment(),
            breaker.should_spill_to_disk(),
            breaker.is_accepting_data(),
        )

    assert does == {
        NORMAL: (False, False, True),
        SOFT: (True, False, True),
        GRACEFUL: (True, False, True),
        AGGRESSIVE: (True, True, True),
        CIRCUIT_BREAK: (True, True, False),
    }


def test_keys_of_the_first_tier_are_processed_at_every_level(clock: ManualClock) -> None:
    breaker = CircuitBreaker(clock=clock, priority_of=TieredPriorities({"BHP"}, {"CBA"}))
    processed = {}

    for lag in (0, 1e5, 5e5, 1e6, 5e6):
        level = breaker.check_and_degrade(lag)
        keys = (("BHP", "trades"), ("BHP", "quotes"), ("CBA", "trades"), ("XYZ", "trades"), ("XYZ", "quotes"))
        processed[int(level)] = "".join("y" if breaker.should_process_symbol(*key) else "-" for key in keys)

    assert processed == {0: "yyyyy", 1: "yyyyy", 2: "yyyy-", 3: "yyy--", 4: "yy---"}


def test_reset_goes_to_normal_at_once_and_says_so(breaker: CircuitBreaker, clock: ManualClock) -> None:
    breaker.check_and_degrade(5_000_000, 99)
    breaker.sink_failed()

    breaker.reset()

    assert breaker.level is NORMAL
    assert breaker.history[-1].cause is Cause.RESET
    assert not breaker.should_pause_partitions()
    assert climb_and_calm_down(breaker, clock) == 31


def test_observers_hear_of_each_change_in_order(clock: ManualClock) -> None:
    heard: list[LevelChanged] = []
    breaker = CircuitBreaker(clock=clock, observers=[heard.append])

    breaker.check_and_degrade(500_000)
    breaker.check_and_degrade(500_001)
    breaker.check_and_degrade(1_000_000)

    assert [(each.from_level, each.to_level, each.cause) for each in heard] == [
        (NORMAL, GRACEFUL, Cause.LAG),
        (GRACEFUL, AGGRESSIVE, Cause.LAG),
    ]
    assert heard[0].load == Load(500_000, 0, 0)
    assert breaker.history == tuple(heard)


def test_the_history_is_bounded(clock: ManualClock) -> None:
    breaker = CircuitBreaker(settings=DegradationSettings(history_max=3), clock=clock)

    for _ in range(5):
        breaker.check_and_degrade(100_000)
        breaker.reset()

    assert len(breaker.history) == 3


def test_own_thresholds_take_the_place_of_the_usual_ones() -> None:
    thresholds = DegradationThresholds(
        soft_lag_records=1, graceful_lag_records=2, aggressive_lag_records=3, circuit_break_lag_records=4
    )

    breaker = CircuitBreaker(thresholds=thresholds)

    assert [breaker.check_and_degrade(lag) for lag in range(5)] == list(DegradationLevel)


def test_the_status_says_why_the_level_was_taken(breaker: CircuitBreaker, clock: ManualClock) -> None:
    breaker.check_and_degrade(7, 10, drain_seconds=float("inf"))
    clock.advance(2)

    status = breaker.get_status()

    assert (status["level"], status["level_name"], status["cause"]) == (4, "CIRCUIT_BREAK", "drain_time")
    assert (status["lag_records"], status["level_seconds"], status["hold_seconds"]) == (7, 2.0, 30.0)
    assert status["accepting_data"] is False
    assert len(status["changes"]) == 1  # type: ignore[arg-type]  # the status is open, for JSON
