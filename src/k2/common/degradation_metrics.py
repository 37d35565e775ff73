"""The metrics of the degradation ladder: observers that turn changes of level and deferred records into values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2.common.degradation import DegradationLevel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k2.common.circuit_breaker import LevelChanged
    from k2.common.degradation import Priority
    from k2.common.metrics import Metrics


class DegradationMetrics:
    """Shows the level from the start; `changed` is for the breaker, `shed` for the shedder."""

    def __init__(self, metrics: Metrics) -> None:
        self._level = metrics.gauge("k2_degradation_level", "Degradation level, 0 (NORMAL) to 4 (CIRCUIT_BREAK)")
        self._transitions = metrics.counter(
            "k2_degradation_transitions_total", "Changes of the degradation level", ["from_level", "to_level"]
        )
        self._shed = metrics.counter(
            "k2_messages_shed_total", "Records deferred, by priority and reason", ["symbol_tier", "reason"]
        )
        self._lag = metrics.gauge("k2_degradation_lag_records", "Records that wait, without what is deferred")
        self._drain = metrics.gauge(
            "k2_degradation_drain_seconds", "Time that what waits in the worst partition will take"
        )
        self._deferred = metrics.gauge(
            "k2_degradation_deferred_seconds",
            "How long this worker has known that records of a tier are deferred; 0 where all are written",
            ["symbol_tier"],
        )
        self._level.set(DegradationLevel.NORMAL)

    def changed(self, change: LevelChanged) -> None:
        """Count a change of level."""
        self._level.set(change.to_level)
        self._transitions.labels(change.from_level.name, change.to_level.name).inc()

    def measured(self, lag_records: float, drain_seconds: float, deferred_seconds: Mapping[Priority, float]) -> None:
        """Show what the level is decided by, and for how long which tier is deferred."""
        self._lag.set(lag_records)
        self._drain.set(drain_seconds)
        for priority, seconds in deferred_seconds.items():
            self._deferred.labels(priority.name.lower()).set(seconds)

    def shed(self, priority: Priority, reason: str, records: int) -> None:
        """Count records deferred."""
        self._shed.labels(priority.name.lower(), reason).inc(records)
