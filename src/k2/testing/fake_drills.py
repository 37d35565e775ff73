"""The drills of a platform in memory: asked for and heard of at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k2.common.announcing import DrillRequest
    from k2.common.clock import Clock


class FakeDrills:
    """Both ends: people ask and list, workers hear."""

    def __init__(self, clock: Clock, *, drill_seconds_max: float = 3600.0) -> None:
        self._clock = clock
        self._drill_seconds_max = drill_seconds_max
        self.requests: list[DrillRequest] = []

    def ask(self, request: DrillRequest) -> None:
        """Keep the request; it takes the place of the one before."""
        self.requests.append(request)

    def asked(self, requests_max: int) -> Sequence[DrillRequest]:
        """Return the newest requests, oldest first."""
        return self.requests[-requests_max:]

    def wanted(self) -> DrillRequest | None:
        """Return the drill in force; None when there is none, or when its time is over."""
        newest = self.requests[-1] if self.requests else None
        is_running = newest and newest.runs_at(self._clock.time_ns(), seconds_max=self._drill_seconds_max)
        return newest if is_running else None
