"""The overload demonstration: a platform of its own, ten times its usual market, a slow sink, and what comes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.live import Live

from k2 import bootstrap
from k2.bootstrap import operations
from k2.cli.degradation_view import Freshness, Outcome, Scene, live
from k2.cli.degradation_view import closing as closing_view
from k2.client import K2Client
from k2.common.announcing import LevelAnnouncement
from k2.common.degradation import DegradationLevel
from k2.common.errors import K2Error, RecordError
from k2.kafka.topic_follower import TopicFollower
from k2.kafka.topics import DEGRADATION_TOPIC
from k2.local.assembly import EVERYTHING
from k2.local.platform import LocalPlatform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rich.console import Console

    from k2.common.clock import Clock
    from k2.kafka.topic_follower import Message
    from k2.settings import Settings

LOOK_SECONDS: Final = 0.25
_SETTLE_SECONDS_MAX: Final = 120.0
_SYMBOLS: Final = 200
_TIERS: Final = {"tier 1": "SIM0001", "tier 2": "SIM0002", "no tier": "SIM0011"}
_WINDOW_MINUTES: Final = 0.01
"""Counted back from the newest record: its age is what is asked for, not the rows."""
_TIER_2: Final = [f"SIM{number:04}" for number in range(2, 11)]


@dataclass(frozen=True, slots=True)
class Script:
    """How long each part takes, and how sensitive the ladder is: `scale` times the usual limits of lag."""

    usual_seconds: float
    overload_seconds: float
    calm_seconds: float
    scale: float
    usual_rate: float = 200.0
    times: float = 10.0
    sink_rate: float = 600.0


QUICK: Final = Script(usual_seconds=4, overload_seconds=12, calm_seconds=2, scale=0.01)
FULL: Final = Script(usual_seconds=15, overload_seconds=60, calm_seconds=8, scale=0.02)


def demonstrate(directory: Path, script: Script, *, console: Console, clock: Clock) -> bool:
    """Run the demonstration on a new platform in `directory`; return whether all of it was shown and proved."""
    root = _prepare(directory, script)
    console.print(f"starting a platform in {root}")
    with LocalPlatform(root, components=EVERYTHING) as platform:
        scene = Scene()
        show = _Show(platform.settings(), scene, clock)
        with show.listening(), Live(console=console, get_renderable=lambda: live(scene), refresh_per_second=8):
            back = _play(root, script, show)
        outcome = _audited(platform.settings(), back)
    console.print(closing_view(scene, outcome))
    return outcome.is_proved and scene.visited == list(DegradationLevel) and back is not None


def _play(root: Path, script: Script, show: _Show) -> float | None:
    """Play the parts; return how long it took from the overload's end to NORMAL with nothing deferred."""
    usual, overload = f"{script.usual_rate:g}", f"{script.times:g}"
    with _k2(
        root, "simulate", "--rate", usual, "--symbols", str(_SYMBOLS), "--duration", f"{script.usual_seconds:g}"
    ) as feed:
        show.watch(f"the usual market: {usual} records a second", lambda: feed.poll() is not None)
    with _k2(
        root, "drill", "overload", "--rate", usual, "--times", overload, "--symbols", str(_SYMBOLS), "--yes",
        "--sink-rate", f"{script.sink_rate:g}", "--for", f"{script.overload_seconds:g}s",
    ) as feed:  # fmt: skip
        what = f"overload: {script.times * script.usual_rate:,.0f} a second, the sink takes {script.sink_rate:,.0f}"
        show.watch(what, lambda: feed.poll() is not None, is_overloaded=True)
    return show.watch("the overload is over", show.is_settled, seconds_max=_SETTLE_SECONDS_MAX)


class _Show:
    """Listens to the platform and keeps the scene up to date."""

    def __init__(self, settings: Settings, scene: Scene, clock: Clock) -> None:
        self._settings = settings
        self._scene = scene
        self._clock = clock
        self._began = clock.monotonic()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Follow what the workers announce."""
        from k2.kafka.consumer import LogReader

        with closing(bootstrap.log_admin(self._settings)) as admin:
            follower = TopicFollower(
                DEGRADATION_TOPIC,
                self._hear,
                log_ends=admin,
                open_reader=lambda: LogReader(self._settings.kafka),
                clock=self._clock,
                pause_seconds=self._settings.announcing.retry_pause_seconds,
            )
            follower.start()
            with closing(follower):
                yield

    def watch(
        self, phase: str, is_over: Callable[[], bool], *, seconds_max: float = 600.0, is_overloaded: bool = False
    ) -> float | None:
        """Look at the platform until the part is over; return how long it was, None if it took too long."""
        self._scene.phase = phase
        key_file = self._settings.api.key_file or self._settings.data_dir / "api-key"
        url = f"http://{self._settings.api.host}:{self._settings.api.port}"
        began = self._clock.monotonic()
        self._scene.overloaded_since = began - self._began if is_overloaded else None
        with K2Client(url, key_file.read_text().strip(), timeout_seconds=5.0, attempts_max=1) as client:
            while not is_over():
                self._scene.seconds = self._clock.monotonic() - self._began
                for tier, symbol in _TIERS.items():
                    self._look(client, tier, symbol)
                if self._clock.monotonic() - began > seconds_max:
                    return None
                self._clock.sleep(LOOK_SECONDS)
        return self._clock.monotonic() - began

    def is_settled(self) -> bool:
        """Say whether the worker is at NORMAL and has written all that was deferred."""
        said = self._scene.current
        return said is not None and said.level == DegradationLevel.NORMAL and said.deferred_records == 0

    def _look(self, client: K2Client, tier: str, symbol: str) -> None:
        try:
            said = client.quotes(
                symbol, exchange="sim", anchor="latest", window_minutes=_WINDOW_MINUTES, on_degrade="partial"
            ).certificate
        except K2Error:  # refused or not to be had: no answer is no freshness
            self._scene.saw(tier, Freshness(None, is_complete=False))
        else:
            self._scene.saw(tier, Freshness(said["newest_record_age_seconds"], is_complete=said["complete"]))

    def _hear(self, message: Message) -> None:
        try:
            said = LevelAnnouncement.from_json(message.value or b"")
        except RecordError:
            return
        self._scene.hear(said, self._clock.monotonic() - self._began)


def _prepare(directory: Path, script: Script) -> Path:
    """Write the platform's settings and tiers; return its data directory."""
    root = directory / "platform"
    root.mkdir(parents=True, exist_ok=True)
    tiers = directory / "tiers.json"
    tiers.write_text(json.dumps({"tier_1": [_TIERS["tier 1"]], "tier_2": _TIER_2}), encoding="utf-8")
    lag = {"soft": 100_000, "graceful": 500_000, "aggressive": 1_000_000, "circuit_break": 5_000_000}
    drain = {"soft": 2, "graceful": 4, "aggressive": 6, "circuit_break": 8}
    limits = "\n".join(
        [f"{level}_lag_records = {records * script.scale:g}" for level, records in lag.items()]
        + [f"{level}_drain_seconds = {seconds}" for level, seconds in drain.items()]
    )
    (root / "k2.toml").write_text(
        f"""[degradation]
calm_seconds = {script.calm_seconds:g}
step_seconds = 1
flap_seconds = 1
hold_seconds_max = {2 * script.calm_seconds:g}
announce_seconds = 0.5
tiers_file = {json.dumps(str(tiers))}

[degradation.thresholds]
{limits}

[ingestion]
commit_interval_seconds = 0.5
commit_rows_max = 2000
""",
        encoding="utf-8",
    )
    return root


@contextmanager
def _k2(root: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of K2 beside the show; it ends with it."""
    command = [sys.executable, "-m", "k2.cli.main", *words, "--data-dir", str(root)]
    with (root / "logs" / "demo.log").open("ab") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            yield process
        finally:
            process.terminate()


def _audited(settings: Settings, back: float | None) -> Outcome:
    with operations.auditor(settings) as auditor:
        report = auditor.verify(wait_seconds=60)
    return Outcome(report.totals, report.is_sound, back)
