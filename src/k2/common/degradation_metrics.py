"""The metrics of the degradation ladder: observers that turn changes of level and deferred records into values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2.common.degradation import DegradationLevel

if TYPE_CHECKING:
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
        self._level.set(DegradationLevel.NORMAL)

    def changed(self, change: LevelChanged) -> None:
        """Count a change of level."""
        self._level.set(change.to_level)
        self._transitions.labels(change.from_level.name, change.to_level.name).inc()

    def shed(self, priority: Priority, reason: str, records: int) -> None:
        """Count records deferred."""
        self._shed.labels(priority.name.lower(), reason).inc(records)
