"""A sink that fails opens the breaker at once, and is tried again one at a time."""

from __future__ import annotations

import pytest

from k2.common.circuit_breaker import CircuitBreaker, DegradationLevel
from k2.common.degradation import Cause
from k2.common.settings import DegradationSettings
from k2.common.sink_probe import SinkState
from k2.testing.manual_clock import ManualClock

NORMAL, CIRCUIT_BREAK = DegradationLevel.NORMAL, DegradationLevel.CIRCUIT_BREAK


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> CircuitBreaker:
    settings = DegradationSettings(sink_probe_seconds=1, sink_probe_seconds_max=4)
    return CircuitBreaker(settings=settings, clock=clock)


def test_the_first_error_opens_the_breaker_and_pauses_reading(breaker: CircuitBreaker) -> None:
    level = breaker.sink_failed()

    assert level is CIRCUIT_BREAK
    assert breaker.cause is Cause.SINK
    assert breaker.should_pause_partitions()
    assert not breaker.may_try_sink()


def test_a_sink_that_works_is_used_freely(breaker: CircuitBreaker) -> None:
    assert all(breaker.may_try_sink() for _ in range(3))


def test_after_a_pause_one_try_is_allowed_and_no_second(breaker: CircuitBreaker, clock: ManualClock) -> None:
    breaker.sink_failed()

    clock.advance(0.9)
    early = breaker.may_try_sink()
    clock.advance(0.1)
    tries = [breaker.may_try_sink(), breaker.may_try_sink()]

    assert not early
    assert tries == [True, False]
    assert breaker.sink_state is SinkState.HALF_OPEN
    assert breaker.should_pause_partitions()


def test_a_try_that_succeeds_closes_it_and_reading_goes_on(breaker: CircuitBreaker, clock: ManualClock) -> None:
    breaker.sink_failed()
    clock.advance(1)
    breaker.may_try_sink()

    level = breaker.sink_succeeded()

    assert level is CIRCUIT_BREAK
    assert breaker.sink_state is SinkState.CLOSED
    assert not breaker.should_pause_partitions()


def test_each_try_that_fails_doubles_the_pause_up_to_its_limit(breaker: CircuitBreaker, clock: ManualClock) -> None:
    breaker.sink_failed()
    pauses = []

    for _ in range(4):
        waited = 0
        while not breaker.may_try_sink():
            clock.advance(1)
            waited += 1
        breaker.sink_failed()
        pauses.append(waited)

    assert pauses == [1, 2, 4, 4]


def test_after_a_success_the_pause_is_the_first_one_again(breaker: CircuitBreaker, clock: ManualClock) -> None:
    for _ in range(3):
        breaker.sink_failed()
        clock.advance(9)
        breaker.may_try_sink()
    breaker.sink_succeeded()

    breaker.sink_failed()
    clock.advance(1)

    assert breaker.may_try_sink()


def test_a_try_that_never_ends_does_not_block_the_next_one_for_good(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    breaker.sink_failed()
    clock.advance(1)
    breaker.may_try_sink()

    clock.advance(4)

    assert breaker.may_try_sink()


def test_the_level_stays_while_the_sink_fails_and_comes_down_after_it(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    breaker.sink_failed()
    for _ in range(600):
        clock.advance(1)
        breaker.check_and_degrade(0)
    while_failing = breaker.level

    breaker.sink_succeeded()
    levels = []
    for _ in range(60):
        clock.advance(1)
        levels.append(breaker.check_and_degrade(0))

    assert while_failing is CIRCUIT_BREAK
    assert levels[29] is CIRCUIT_BREAK
    assert levels[-1] is NORMAL


def test_a_failure_restarts_the_calm_spell(breaker: CircuitBreaker, clock: ManualClock) -> None:
    breaker.check_and_degrade(5_000_000)
    for _ in range(30):
        clock.advance(1)
        breaker.check_and_degrade(0)

    breaker.sink_failed()
    breaker.sink_succeeded()
    clock.advance(1)

    assert breaker.check_and_degrade(0) is CIRCUIT_BREAK
