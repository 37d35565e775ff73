"""Thresholds that contradict each other stop at the start, with their names."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from k2.common.degradation import Load, level_for
from k2.common.settings import DegradationSettings, DegradationThresholds


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"soft_lag_records": 600_000}, "expected soft_lag_records below graceful_lag_records, found 600000"),
        ({"aggressive_lag_records": 500_000}, "graceful_lag_records below aggressive_lag_records"),
        ({"circuit_break_memory_percent": 89}, "aggressive_memory_percent below circuit_break_memory_percent"),
        ({"soft_drain_seconds": 2}, "soft_drain_seconds below graceful_drain_seconds"),
    ],
)
def test_levels_that_do_not_rise_are_refused_by_name(wrong: dict[str, float], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        DegradationThresholds(**wrong)  # type: ignore[arg-type]  # all of them are numbers


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"calm_seconds": 2}, "step_seconds at most calm_seconds"),
        ({"hold_seconds_max": 29}, "calm_seconds at most hold_seconds_max"),
        ({"sink_probe_seconds": 16}, "sink_probe_seconds at most sink_probe_seconds_max"),
    ],
)
def test_times_that_do_not_fit_are_refused_by_name(wrong: dict[str, float], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        DegradationSettings(**wrong)  # type: ignore[arg-type]  # all of them are numbers


@pytest.mark.parametrize(
    "wrong",
    [
        {"soft_lag_records": 0},
        {"soft_memory_percent": 101},
        {"lag_recovery_ratio": 1},
        {"memory_recovery_ratio": 0},
        {"circuit_break_drain_seconds": float("inf")},
        {"soft_drain_seconds": float("nan")},
    ],
)
def test_impossible_values_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        DegradationThresholds(**wrong)  # type: ignore[arg-type]  # all of them are numbers


def test_a_threshold_is_where_its_level_begins() -> None:
    thresholds = DegradationThresholds(soft_lag_records=7)

    assert level_for(Load(lag_records=6), thresholds.limits()) == 0
    assert level_for(Load(lag_records=7), thresholds.limits()) == 1


def test_a_combination_that_cannot_be_names_what_is_wrong() -> None:
    with pytest.raises(ValidationError, match="soft_lag_records below"):
        DegradationThresholds(soft_lag_records=500_000)
