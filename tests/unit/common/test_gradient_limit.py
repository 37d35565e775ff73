"""The gradient limit: it grows while work is quick, falls while it waits, and measures what quick is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.common.gradient_limit import GradientLimit, gradient_of, next_limit
from k2.testing.manual_clock import ManualClock


def limit_of(clock: ManualClock, least: int = 2, most: int = 32) -> GradientLimit:
    return GradientLimit(
        least=least, most=most, window_seconds=1, unloaded_seconds=60, tolerance_ratio=1.5, clock=clock
    )


def work(
    limit: GradientLimit, clock: ManualClock, seconds: float, *, beside: int | None = None, of: str = "LIGHT"
) -> None:
    """Have a window's worth of work end, each piece after `seconds`."""
    for _ in range(20):
        clock.advance(0.1)
        limit.ended(of, seconds, beside=limit.limit if beside is None else beside)


def server(cores: int, limit: GradientLimit, clock: ManualClock, rounds: int) -> list[int]:
    """Keep a machine of `cores` busy, on which work takes longer the more of it runs; return the limits it came to."""
    found = []
    for _ in range(rounds):
        at_once = limit.limit
        work(limit, clock, 0.01 * max(1.0, at_once / cores), beside=at_once)
        found.append(limit.limit)
    return found


@pytest.mark.parametrize(
    ("now", "expected"), [(0.010, 1.0), (0.015, 1.0), (0.020, 0.75), (0.030, 0.5), (9.0, 0.25), (0.0, 1.0)]
)
def test_the_gradient_falls_with_the_time_that_work_takes(now: float, expected: float) -> None:
    found = gradient_of({"LIGHT": [now] * 3}, {"LIGHT": 0.010}, tolerance_ratio=1.5)

    assert found == pytest.approx(expected)


def test_each_kind_of_work_is_compared_with_itself() -> None:
    quick_and_long = {"LIGHT": [0.010] * 9, "HEAVY": [5.0]}

    assert gradient_of(quick_and_long, {"LIGHT": 0.010, "HEAVY": 4.0}, tolerance_ratio=1.5) == 1.0
    assert gradient_of(quick_and_long, {"LIGHT": 0.010, "HEAVY": 0.1}, tolerance_ratio=1.5) == pytest.approx(0.925)


def test_work_of_which_nothing_is_known_decides_nothing() -> None:
    assert gradient_of({"HEAVY": [5.0]}, {"LIGHT": 0.010}, tolerance_ratio=1.5) == 1.0


@given(limit=st.floats(1, 256), gradient=st.floats(0.25, 1), least=st.integers(1, 8), more=st.integers(0, 248))
def test_the_limit_stays_within_its_bounds(limit: float, gradient: float, least: int, more: int) -> None:
    assert least <= next_limit(limit, gradient, least=least, most=least + more) <= least + more


def test_the_limit_grows_by_its_root_while_work_is_as_quick_as_without_load() -> None:
    assert next_limit(16, 1.0, least=1, most=100) == 20
    assert next_limit(16, 0.5, least=1, most=100) == 12


def test_it_settles_where_the_cores_are_busy_and_no_higher() -> None:
    clock = ManualClock()
    limit = limit_of(clock)
    work(limit, clock, 0.01, beside=1)

    found = server(4, limit, clock, 60)

    assert all(4 <= at_once <= 12 for at_once in found[20:] if at_once != 2), found


def test_it_grows_to_the_most_where_nothing_gets_slower() -> None:
    clock = ManualClock()
    limit = limit_of(clock)
    work(limit, clock, 0.01, beside=1)

    assert server(1_000, limit, clock, 20)[-1] == 32


def test_it_does_not_grow_while_little_of_it_is_used() -> None:
    clock = ManualClock()
    limit = limit_of(clock)
    before = limit.limit

    for _ in range(30):
        work(limit, clock, 0.01, beside=1)

    assert limit.limit == before


def test_too_few_pieces_of_work_decide_nothing() -> None:
    clock = ManualClock()
    limit = limit_of(clock)
    work(limit, clock, 0.01, beside=1)
    before = limit.limit

    for _ in range(5):
        clock.advance(2)
        limit.ended("LIGHT", 5.0, beside=before)

    assert limit.limit == before


def test_under_steady_load_it_is_lowered_now_and_then_to_see_how_long_work_takes_without() -> None:
    clock = ManualClock()
    limit = limit_of(clock)
    work(limit, clock, 0.01, beside=1)

    measured = 0
    for _ in range(40):  # 80 s
        at_once = limit.limit
        measured += limit.is_measuring
        work(limit, clock, 0.02, beside=at_once)

    assert measured >= 1
    assert limit.unloaded_seconds == {"LIGHT": 0.02}
    assert not limit.is_measuring


def test_a_measurement_that_finds_nothing_ends_by_itself() -> None:
    clock = ManualClock()
    limit = limit_of(clock)
    work(limit, clock, 0.01)
    clock.advance(60)
    work(limit, clock, 0.01, beside=16)
    began = limit.is_measuring

    for _ in range(3):
        work(limit, clock, 0.01, beside=16)  # began before, beside many others

    assert (began, limit.is_measuring) == (True, False)


def test_little_load_needs_no_measurement_of_its_own() -> None:
    clock = ManualClock()
    limit = limit_of(clock)

    for _ in range(100):
        work(limit, clock, 0.01, beside=2)
        assert not limit.is_measuring


def test_bounds_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="least 3 and most 2"):
        limit_of(ManualClock(), least=3, most=2)
