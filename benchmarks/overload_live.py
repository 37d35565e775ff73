"""Overload on real processes: how fresh tier 1 is in answers while a platform gets ten times its usual market.

Two ages of the newest row: since the broker had it (`ts_log`), which is what K2 adds, and since the event, which
counts the lateness of the simulated feed as well. Answers without the log's tail are counted apart.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.report import Figure, percentile
from k2.cli import overload_stage as stage
from k2.common.clock import SystemClock
from k2.common.degradation import DegradationLevel
from k2.common.errors import K2Error
from k2.local.assembly import EVERYTHING
from k2.local.platform import LocalPlatform

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from k2.cli.degradation_view import Outcome
    from k2.client import K2Client
    from k2.common.announcing import LevelAnnouncement
    from k2.common.clock import Clock
    from k2.settings import Settings

LOOK_SECONDS: Final = 0.1
TIER: Final = "tier 1"
GOAL_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Look:
    """One answer: when it was asked for and had, UTC nanoseconds, and what was the newest in it."""

    asked_ns: int
    had_ns: int
    newest: stage.Newest
    has_tail: bool
    is_complete: bool


class Watch:
    """Asks for tier 1 during the overload and hears the levels."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._said: LevelAnnouncement | None = None
        self.visited: set[DegradationLevel] = set()
        self.began_ns = 0
        self.looks: list[Look] = []
        self.refusals: list[str] = []

    def hear(self, said: LevelAnnouncement) -> None:
        """Take in what a worker says."""
        self._said = said
        self.visited.add(said.level)

    def is_settled(self) -> bool:
        """Say whether the worker is at NORMAL and has written all that was deferred."""
        return stage.is_settled(self._said)

    def watch(
        self, phase: str, is_over: Callable[[], bool], *, seconds_max: float = 600.0, is_overloaded: bool = False
    ) -> float | None:
        """Ask until the part is over, of the overload alone; return how long it was, None if it took too long."""
        print(phase, flush=True)
        began = self._clock.monotonic()
        if is_overloaded:
            self.began_ns = self._clock.time_ns()
        with stage.client_of(self._settings) as client:
            while not is_over():
                if is_overloaded:
                    self._look(client)
                if self._clock.monotonic() - began > seconds_max:
                    return None
                self._clock.sleep(LOOK_SECONDS)
        return self._clock.monotonic() - began

    def _look(self, client: K2Client) -> None:
        asked_ns = self._clock.time_ns()
        try:
            result = stage.newest_quotes(client, TIER)
        except K2Error as error:
            self.refusals.append(f"{type(error).__name__}: {error}")
            return
        said, newest = result.certificate, stage.newest_of(result)
        if newest is not None:
            has_tail, had_ns = said["degradation_level"] == "NORMAL", self._clock.time_ns()
            self.looks.append(Look(asked_ns, had_ns, newest, has_tail, said["complete"]))


def measure(*, quick: bool) -> list[Figure]:
    """Play the demonstration's overload on a platform of its own and ask ten times a second meanwhile."""
    clock, script = SystemClock(), stage.QUICK if quick else stage.FULL
    with tempfile.TemporaryDirectory(prefix="k2-overload-") as directory:
        root = stage.prepare(Path(directory), script)
        with LocalPlatform(root, components=EVERYTHING) as platform:
            settings = platform.settings()
            watch = Watch(settings, clock)
            with stage.announced(settings, watch.hear, clock):
                back = stage.play(root, script, watch)
            outcome = stage.audited(settings, back)
    for refusal in sorted(set(watch.refusals)):
        print(f"refused {watch.refusals.count(refusal)} times: {refusal}")
    return [*_freshness(_while_it_lasted(watch)), *_ends(watch, outcome)]


def _while_it_lasted(watch: Watch) -> list[Look]:
    """Return the answers asked for between the first record of the overload that was seen and its last one."""
    own = [look for look in watch.looks if look.newest.ts_log_ns >= watch.began_ns]
    if not own:
        raise RuntimeError("expected answers with records of the overload, found none")
    first, last = own[0].asked_ns, max(look.newest.ts_log_ns for look in own)
    return [look for look in watch.looks if first <= look.asked_ns <= last]


def _freshness(looks: Sequence[Look]) -> list[Figure]:
    with_tail = [look for look in looks if look.has_tail]
    of_log = [look.newest.age_seconds for look in with_tail]
    late = [look.newest.late_seconds for look in with_tail]
    of_event = [age + before for age, before in zip(of_log, late, strict=True)]
    answering = [(look.had_ns - look.asked_ns) / 1e9 for look in looks]
    p99 = percentile(of_log, 0.99)
    return [
        Figure("tier 1, newest row since the log had it, p50", percentile(of_log, 0.5), "s"),
        Figure("tier 1, newest row since the log had it, p99", p99, "s", f"< {GOAL_SECONDS:g}", met=p99 < GOAL_SECONDS),
        Figure("tier 1, newest row since the log had it, most", max(of_log), "s"),
        Figure("tier 1, newest row since its event, p50", percentile(of_event, 0.5), "s"),
        Figure("tier 1, newest row since its event, p99", percentile(of_event, 0.99), "s"),
        Figure("of that, the feed's own lateness, p99", percentile(late, 0.99), "s"),
        Figure("time to answer, p50", percentile(answering, 0.5), "s"),
        Figure("time to answer, p99", percentile(answering, 0.99), "s"),
        Figure("answers", len(looks), "answers"),
        Figure("of them without the log's tail", len(looks) - len(with_tail), "answers"),
        Figure("of them incomplete", sum(not look.is_complete for look in looks), "answers"),
    ]


def _ends(watch: Watch, outcome: Outcome) -> list[Figure]:
    totals, back = outcome.totals, outcome.seconds_to_normal
    visited, wrong = len(watch.visited), totals["lost"] + totals["doubled"] + totals["deferred"]
    return [
        Figure("refused", len(watch.refusals), "questions"),
        Figure("levels visited", visited, "levels", f"{len(DegradationLevel)}", met=visited == len(DegradationLevel)),
        Figure("lost, doubled or still deferred", wrong, "records", "0", met=wrong == 0 and outcome.is_proved),
        Figure(
            "from the overload's end to NORMAL, all written",
            -1 if back is None else back,
            "s",
            "",
            met=back is not None,
        ),
    ]
