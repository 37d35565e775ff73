"""The overload demonstration: a platform of its own, ten times its usual market, a slow sink, and what comes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.live import Live

from k2.cli import overload_stage as stage
from k2.cli.degradation_view import Freshness, Scene, closing, live
from k2.common.degradation import DegradationLevel
from k2.common.errors import K2Error
from k2.local.assembly import EVERYTHING
from k2.local.platform import LocalPlatform

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rich.console import Console

    from k2.client import K2Client
    from k2.common.announcing import LevelAnnouncement
    from k2.common.clock import Clock
    from k2.settings import Settings

LOOK_SECONDS: Final = 0.25


def demonstrate(directory: Path, script: stage.Script, *, console: Console, clock: Clock) -> bool:
    """Run the demonstration on a new platform in `directory`; return whether all of it was shown and proved."""
    root = stage.prepare(directory, script)
    console.print(f"starting a platform in {root}")
    with LocalPlatform(root, components=EVERYTHING) as platform:
        settings, scene = platform.settings(), Scene()
        show = _Show(settings, scene, clock)
        with (
            stage.announced(settings, show.hear, clock),
            Live(console=console, get_renderable=lambda: live(scene), refresh_per_second=8),
        ):
            back = stage.play(root, script, show)
        outcome = stage.audited(settings, back)
    console.print(closing(scene, outcome))
    return outcome.is_proved and scene.visited == list(DegradationLevel) and back is not None


class _Show:
    """Asks the platform and keeps the scene up to date."""

    def __init__(self, settings: Settings, scene: Scene, clock: Clock) -> None:
        self._settings = settings
        self._scene = scene
        self._clock = clock
        self._began = clock.monotonic()

    def watch(
        self, phase: str, is_over: Callable[[], bool], *, seconds_max: float = 600.0, is_overloaded: bool = False
    ) -> float | None:
        """Look at the platform until the part is over; return how long it was, None if it took too long."""
        self._scene.phase = phase
        began = self._clock.monotonic()
        self._scene.overloaded_since = began - self._began if is_overloaded else None
        with stage.client_of(self._settings) as client:
            while not is_over():
                self._scene.seconds = self._clock.monotonic() - self._began
                for tier in stage.TIERS:
                    self._look(client, tier)
                if self._clock.monotonic() - began > seconds_max:
                    return None
                self._clock.sleep(LOOK_SECONDS)
        return self._clock.monotonic() - began

    def is_settled(self) -> bool:
        """Say whether the worker is at NORMAL and has written all that was deferred."""
        return stage.is_settled(self._scene.current)

    def hear(self, said: LevelAnnouncement) -> None:
        """Take in what a worker says."""
        self._scene.hear(said, self._clock.monotonic() - self._began)

    def _look(self, client: K2Client, tier: str) -> None:
        try:
            answer = stage.newest_quotes(client, tier)
        except K2Error:  # refused or not to be had: no answer is no freshness
            self._scene.saw(tier, Freshness(None, is_complete=False))
            return
        newest, is_complete = stage.newest_of(answer), answer.certificate["complete"]
        if newest is None:
            self._scene.saw(tier, Freshness(None, is_complete=is_complete))
        else:
            self._scene.saw(tier, Freshness(newest.age_seconds, newest.late_seconds, is_complete=is_complete))
