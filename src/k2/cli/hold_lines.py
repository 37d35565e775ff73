"""What a feed's command says while the platform holds it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from k2.common.announcing import LevelAnnouncement


class HoldLines:
    """One line when a feed is held back, one every few seconds while it is, and one when it goes on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.total_seconds = 0.0

    def held(self, announcement: LevelAnnouncement, seconds: float) -> None:
        """Say that the feed is held back, and why."""
        since = f", for {seconds:,.0f} s now" if seconds else ""
        self._say(
            f"held back{since}: {announcement.worker} is at {announcement.level.name} ({announcement.reason}), "
            f"{announcement.lag_records:,} records wait; the feed goes on by itself"
        )

    def released(self, seconds: float) -> None:
        """Say that the feed goes on."""
        self.total_seconds += seconds
        self._say(f"going on after {seconds:,.1f} s")

    @property
    def summary(self) -> str:
        """The end of a feed's summary; nothing where it was never held back."""
        return f"; held back for {self.total_seconds:,.1f} s" if self.total_seconds else ""

    def _say(self, text: str) -> None:
        self._console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)
