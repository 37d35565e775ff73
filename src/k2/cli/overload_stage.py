"""The stage of an overload: a platform of its own, ten times its usual market, a slow sink. Shown, and measured."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from k2 import bootstrap
from k2.bootstrap import operations
from k2.cli.degradation_view import Outcome
from k2.client import K2Client
from k2.common.announcing import LevelAnnouncement
from k2.common.degradation import DegradationLevel
from k2.common.errors import RecordError
from k2.common.units import NS_PER_SECOND
from k2.kafka.topic_follower import TopicFollower
from k2.kafka.topics import DEGRADATION_TOPIC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from k2.client import Result
    from k2.common.clock import Clock
    from k2.kafka.topic_follower import Message
    from k2.settings import Settings

TIERS: Final = {"tier 1": "SIM0001", "tier 2": "SIM0002", "no tier": "SIM0011"}
"""Of each tier, the symbol that is asked for."""
_TIER_2: Final = [f"SIM{number:04}" for number in range(2, 11)]
_SYMBOLS: Final = 200
_SETTLE_SECONDS_MAX: Final = 120.0
_WINDOW_MINUTES: Final = 0.01
"""Counted back from the newest record: its age is what is asked for, not the rows."""


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


@dataclass(frozen=True, slots=True)
class Newest:
    """Times of an answer and of the newest rows in it, UTC nanoseconds."""

    answered_at_ns: int
    ts_log_ns: int
    ts_event_ns: int

    @property
    def age_seconds(self) -> float:
        """How long the log had had it: what the platform adds."""
        return (self.answered_at_ns - self.ts_log_ns) / NS_PER_SECOND

    @property
    def late_seconds(self) -> float:
        """How long after its event it came into the log: what the feed adds, much of it where the machine is busy."""
        return (self.ts_log_ns - self.ts_event_ns) / NS_PER_SECOND


class Audience(Protocol):
    """Watches the parts of the play, and says when the platform has calmed down."""

    def watch(
        self, phase: str, is_over: Callable[[], bool], *, seconds_max: float = ..., is_overloaded: bool = ...
    ) -> float | None:
        """Look at the platform until the part is over; return how long it was, None if it took too long."""
        ...

    def is_settled(self) -> bool:
        """Say whether the worker is at NORMAL and has written all that was deferred."""
        ...


def prepare(directory: Path, script: Script) -> Path:
    """Write the platform's settings and tiers; return its data directory."""
    root = directory / "platform"
    root.mkdir(parents=True, exist_ok=True)
    tiers = directory / "tiers.json"
    tiers.write_text(json.dumps({"tier_1": [TIERS["tier 1"]], "tier_2": _TIER_2}), encoding="utf-8")
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


def play(root: Path, script: Script, audience: Audience) -> float | None:
    """Play the parts; return how long it took from the overload's end to NORMAL with nothing deferred."""
    usual, overload = f"{script.usual_rate:g}", f"{script.times:g}"
    with _k2(
        root, "simulate", "--rate", usual, "--symbols", str(_SYMBOLS), "--duration", f"{script.usual_seconds:g}"
    ) as feed:
        audience.watch(f"the usual market: {usual} records a second", lambda: feed.poll() is not None)
    with _k2(
        root, "drill", "overload", "--rate", usual, "--times", overload, "--symbols", str(_SYMBOLS), "--yes",
        "--sink-rate", f"{script.sink_rate:g}", "--for", f"{script.overload_seconds:g}s",
    ) as feed:  # fmt: skip
        what = f"overload: {script.times * script.usual_rate:,.0f} a second, the sink takes {script.sink_rate:,.0f}"
        audience.watch(what, lambda: feed.poll() is not None, is_overloaded=True)
    return audience.watch("the overload is over", audience.is_settled, seconds_max=_SETTLE_SECONDS_MAX)


@contextmanager
def announced(settings: Settings, hear: Callable[[LevelAnnouncement], None], clock: Clock) -> Iterator[None]:
    """Follow what the workers announce."""
    from k2.kafka.consumer import LogReader

    with closing(bootstrap.log_admin(settings)) as admin:
        follower = TopicFollower(
            DEGRADATION_TOPIC,
            lambda message: _hear(message, hear),
            log_ends=admin,
            open_reader=lambda: LogReader(settings.kafka),
            clock=clock,
            pause_seconds=settings.announcing.retry_pause_seconds,
        )
        follower.start()
        with closing(follower):
            yield


def client_of(settings: Settings) -> K2Client:
    """Return what asks the platform's API, each question once."""
    key_file = settings.api.key_file or settings.data_dir / "api-key"
    url = f"http://{settings.api.host}:{settings.api.port}"
    return K2Client(url, key_file.read_text().strip(), timeout_seconds=5.0, attempts_max=1)


def is_settled(said: LevelAnnouncement | None) -> bool:
    """Say whether the worker is at NORMAL and has written all that was deferred."""
    return said is not None and said.level == DegradationLevel.NORMAL and said.deferred_records == 0


def newest_quotes(client: K2Client, tier: str) -> Result:
    """Ask for the newest quotes of the tier's symbol; K2Error where that is refused."""
    return client.quotes(
        TIERS[tier], exchange="sim", anchor="latest", window_minutes=_WINDOW_MINUTES, on_degrade="partial"
    )


def audited(settings: Settings, back: float | None) -> Outcome:
    """Audit the platform; `back` is how long it took to come back."""
    with operations.auditor(settings) as auditor:
        report = auditor.verify(wait_seconds=60)
    return Outcome(report.totals, report.is_sound, back)


def newest_of(result: Result) -> Newest | None:
    """Return the newest times of an answer; None where it has no rows."""
    if not result.table.num_rows:
        return None
    ts_log = pc.max(result.table["ts_log"]).cast(pa.timestamp("ns", tz="UTC"))
    ts_event_ns = pc.max(result.table["ts_event_ns"]).as_py()
    return Newest(result.certificate["answered_at_ns"], ts_log.value, ts_event_ns)


@contextmanager
def _k2(root: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of K2 beside the show; it ends with it."""
    command = [sys.executable, "-m", "k2.cli.main", *words, "--data-dir", str(root)]
    with (root / "logs" / "demo.log").open("ab") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            yield process
        finally:
            process.terminate()


def _hear(message: Message, hear: Callable[[LevelAnnouncement], None]) -> None:
    try:
        said = LevelAnnouncement.from_json(message.value or b"")
    except RecordError:
        return
    hear(said)
