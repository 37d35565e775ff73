"""Tells how near the log's retention has come to a deferred range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from k2.common.units import NS_PER_MS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k2.common.clock import Clock
    from k2.ingestion.backfill.settings import BackfillSettings
    from k2.kafka.ports import LogRange

_MS_PER_HOUR: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """How long the log will still hold a record, as far as that is known."""

    hours: float | None
    """By its log time and the topic's retention; None where one of them is not known."""
    share: float | None
    """Share of the log that lies before it; None while the log has deleted nothing."""
    is_near: bool


class RetentionWatch:
    """Compares deferred ranges with the retention of their topics, in milliseconds by topic."""

    def __init__(self, retention_ms: Mapping[str, int], *, settings: BackfillSettings, clock: Clock) -> None:
        self._retention_ms = dict(retention_ms)
        self._settings = settings
        self._clock = clock

    def left(self, topic: str, start: int, logged_ms: int | None, extent: LogRange) -> TimeLeft:
        """Return how long the record at `start`, logged at `logged_ms`, will still be there."""
        retention_ms = self._retention_ms.get(topic)
        hours = None
        if retention_ms is not None and logged_ms is not None:
            hours = (logged_ms + retention_ms - self._clock.time_ns() // NS_PER_MS) / _MS_PER_HOUR
        share = None
        if extent.start > 0 and extent.end > extent.start:
            share = (start - extent.start) / (extent.end - extent.start)
        settings = self._settings
        is_near = (hours is not None and hours < settings.retention_hours_left_min) or (
            share is not None and share < settings.retention_share_left_min
        )
        return TimeLeft(hours, share, is_near)
