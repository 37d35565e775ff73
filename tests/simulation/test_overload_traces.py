"""Simulated overload: the ladder keeps the time to drain short, never defers the first tier, and comes back."""

from __future__ import annotations

import pytest

from k2.common.degradation import DegradationLevel
from k2.testing.overload_traces import TRACES, Trace
from k2.testing.simulated_overload import Outcome, fixed_lag_settings, run_trace

BY_NAME = {trace.name: trace for trace in TRACES}
HARD = ("10x spike", "hot partition", "sink collapse")


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    return {trace.name: run_trace(trace) for trace in TRACES}


@pytest.mark.parametrize("name", HARD)
def test_the_worst_time_to_drain_stays_within_five_seconds(outcomes: dict[str, Outcome], name: str) -> None:
    assert outcomes[name].worst_drain_seconds <= 5


@pytest.mark.parametrize("name", HARD)
def test_fixed_lag_thresholds_alone_let_the_time_to_drain_grow(outcomes: dict[str, Outcome], name: str) -> None:
    fixed = run_trace(BY_NAME[name], fixed_lag_only=True, settings=fixed_lag_settings())

    assert fixed.worst_drain_seconds > 5 * outcomes[name].worst_drain_seconds


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.name)
def test_it_is_back_at_normal_within_a_minute_and_writes_all_that_it_deferred(
    outcomes: dict[str, Outcome], trace: Trace
) -> None:
    outcome = outcomes[trace.name]

    assert outcome.normal_after_seconds <= 60
    assert outcome.backfilled_after_seconds < trace.seconds - trace.ends_at
    assert abs(outcome.unaccounted) < 0.01


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.name)
def test_the_first_tier_is_never_deferred_and_never_waits_for_long(outcomes: dict[str, Outcome], trace: Trace) -> None:
    assert outcomes[trace.name].first_tier_deferred == 0
    assert outcomes[trace.name].worst_first_tier_seconds <= 3.5


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.name)
def test_it_does_not_flap(outcomes: dict[str, Outcome], trace: Trace) -> None:
    assert outcomes[trace.name].level_changes <= 2 * len(DegradationLevel)


@pytest.mark.parametrize("name", HARD)
def test_the_whole_ladder_is_climbed_where_it_has_to_be(outcomes: dict[str, Outcome], name: str) -> None:
    assert outcomes[name].highest_level is DegradationLevel.CIRCUIT_BREAK


def test_memory_that_leaks_is_given_back_before_it_is_out(outcomes: dict[str, Outcome]) -> None:
    assert 90 <= outcomes["slow leak"].worst_memory_percent < 95
