"""Level, changes and deferred records show as metrics of the names that dashboards use."""

from __future__ import annotations

from k2.common.circuit_breaker import CircuitBreaker
from k2.common.degradation import DegradationLevel
from k2.common.degradation_metrics import DegradationMetrics
from k2.common.load_shedder import LoadShedder, TieredPriorities
from k2.common.metrics import Metrics
from k2.testing.manual_clock import ManualClock


def test_the_level_is_shown_from_the_start() -> None:
    metrics = Metrics()

    DegradationMetrics(metrics)

    assert "k2_degradation_level 0.0" in metrics.render().decode()


def test_changes_of_level_are_shown_and_counted() -> None:
    metrics = Metrics()
    breaker = CircuitBreaker(clock=ManualClock(), observers=[DegradationMetrics(metrics).changed])

    breaker.check_and_degrade(1_000_000)

    text = metrics.render().decode()
    assert "k2_degradation_level 3.0" in text
    assert 'k2_degradation_transitions_total{from_level="NORMAL",to_level="AGGRESSIVE"} 1.0' in text


def test_deferred_records_are_counted_by_priority_and_reason() -> None:
    metrics = Metrics()
    shedder = LoadShedder(TieredPriorities({"BHP"}), observer=DegradationMetrics(metrics).shed)

    shedder.divide([b"BHP", b"XYZ", b"ABC"], DegradationLevel.CIRCUIT_BREAK, reason="drain_time")

    text = metrics.render().decode()
    assert 'k2_messages_shed_total{reason="drain_time",symbol_tier="normal"} 2.0' in text
    assert 'symbol_tier="critical"' not in text
