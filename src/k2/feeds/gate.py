"""Holds a feed back while the platform is at its highest level; the feed goes on by itself afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from k2.common.degradation import DegradationLevel

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.common.announcing import LevelAnnouncement, LevelBoard
    from k2.common.clock import Clock
    from k2.feeds.settings import FeedSettings


class HoldTold(Protocol):
    """Who hears that a feed is held back, in the feed's thread."""

    def held(self, announcement: LevelAnnouncement, seconds: float) -> None:
        """Hear that the feed has been held back for so long, from its beginning on and every few seconds."""
        ...

    def released(self, seconds: float) -> None:
        """Hear that the feed goes on."""
        ...


class FeedGate:
    """Closed at CIRCUIT_BREAK. Where no worker is heard any more it is open: the log takes records without one."""

    def __init__(
        self,
        board: LevelBoard,
        *,
        settings: FeedSettings,
        clock: Clock,
        told: HoldTold,
        is_stopped: Callable[[], bool],
    ) -> None:
        self._board = board
        self._settings = settings
        self._clock = clock
        self._told = told
        self._is_stopped = is_stopped
        self.held_seconds = 0.0
        """For how long the feed was held back in all."""

    def wait(self) -> None:
        """Return once the platform takes records again, or as soon as the feed is stopped."""
        announcement = self._closed_by()
        if announcement is None:
            return
        began, told_at = self._clock.monotonic(), float("-inf")
        while announcement is not None and not self._is_stopped():
            now = self._clock.monotonic()
            if now - told_at >= self._settings.hold_told_seconds:
                self._told.held(announcement, now - began)
                told_at = now
            self._clock.sleep(self._settings.hold_look_seconds)
            announcement = self._closed_by()
        seconds = self._clock.monotonic() - began
        self.held_seconds += seconds
        self._told.released(seconds)

    def _closed_by(self) -> LevelAnnouncement | None:
        current = self._board.current()
        return current if current is not None and current.level >= DegradationLevel.CIRCUIT_BREAK else None
