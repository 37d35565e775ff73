"""What the overload demonstration shows: the level and why, freshness by tier, what is deferred, and the proof."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from k2.common.degradation import DegradationLevel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from k2.common.announcing import LevelAnnouncement

_STYLES: Final = {
    DegradationLevel.NORMAL: "green",
    DegradationLevel.SOFT: "yellow",
    DegradationLevel.GRACEFUL: "dark_orange",
    DegradationLevel.AGGRESSIVE: "red",
    DegradationLevel.CIRCUIT_BREAK: "bold white on dark_red",
}
_CHANGES_SHOWN: Final = 6
_WIDTH: Final = 80
_ENDLESS_SECONDS: Final = 1e6


@dataclass(frozen=True, slots=True)
class Freshness:
    """What an answer about one symbol of a tier said of its newest record; None where it had none."""

    age_seconds: float | None
    """Since the log had it."""
    late_seconds: float | None = None
    """How long after its event the log had it: the feed's own lateness."""
    is_complete: bool = field(kw_only=True)


@dataclass
class Scene:
    """What has been seen until now. `changes` are (seconds since the beginning, announcement) at each new level."""

    phase: str = ""
    seconds: float = 0.0
    current: LevelAnnouncement | None = None
    changes: list[tuple[float, LevelAnnouncement]] = field(default_factory=list)
    fresh: dict[str, Freshness] = field(default_factory=dict)
    ages: dict[str, list[float]] = field(default_factory=dict)
    """Every age that was seen of the overload's own records, by tier."""
    lateness: list[float] = field(default_factory=list)
    """How late the feed was with each of them."""
    overloaded_since: float | None = None
    """When the overload began, in the seconds of this scene; None before and after."""
    deferred_most: int = 0

    def hear(self, announcement: LevelAnnouncement, seconds: float) -> None:
        """Take in what a worker says."""
        if self.current is None or announcement.level != self.current.level:
            self.changes.append((seconds, announcement))
        self.current = announcement
        self.deferred_most = max(self.deferred_most, announcement.deferred_records)

    def saw(self, tier: str, fresh: Freshness) -> None:
        """Take in how fresh a tier's answer is."""
        self.fresh[tier] = fresh
        since = self.overloaded_since
        if fresh.age_seconds is not None and since is not None and fresh.age_seconds < self.seconds - since:
            self.ages.setdefault(tier, []).append(fresh.age_seconds)
            if fresh.late_seconds is not None:
                self.lateness.append(fresh.late_seconds)

    @property
    def visited(self) -> list[DegradationLevel]:
        """The levels that were taken, each once."""
        return sorted({each.level for _, each in self.changes})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the demonstration came to; `totals` are those of `k2 verify`."""

    totals: Mapping[str, int]
    is_sound: bool
    seconds_to_normal: float | None
    """From the end of the overload to NORMAL with nothing deferred any more; None if that did not come in time."""

    @property
    def is_proved(self) -> bool:
        """Whether everything sent is a row, once."""
        held = self.totals["rows"] + self.totals["duplicates"] + self.totals["dead_letters"]
        return self.is_sound and not self.totals["deferred"] and held == self.totals["messages"]


def live(scene: Scene) -> RenderableType:
    """Return the display of this moment."""
    head = Text.assemble((f"{scene.seconds:6.1f} s  ", "dim"), (scene.phase, "bold"))
    return Panel(
        Group(head, Text(), _level_table(scene), Text(), _tier_table(scene), Text(), _changes(scene)), width=_WIDTH
    )


def closing(scene: Scene, outcome: Outcome) -> RenderableType:
    """Return the closing table: what was taken, how fresh tier 1 was, and what the audit found."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column()
    for name, value in closing_rows(scene, outcome):
        table.add_row(name, value)
    return Panel(table, title="proved by k2 verify" if outcome.is_proved else "NOT PROVED", width=_WIDTH)


def closing_rows(scene: Scene, outcome: Outcome) -> list[tuple[str, str]]:
    """Return the lines of the closing table."""
    totals = outcome.totals
    rows = [
        ("levels visited", " ".join(level.name for level in scene.visited)),
        ("most records deferred at a time", f"{scene.deferred_most:,}"),
        ("messages in the log", f"{totals['messages']:,}"),
        ("rows in the tables", f"{totals['rows']:,}"),
        ("duplicates, dead letters", f"{totals['duplicates']:,}, {totals['dead_letters']:,}"),
        ("still deferred", f"{totals['deferred']:,}"),
        ("lost, doubled", f"{totals['lost']:,}, {totals['doubled']:,}"),
    ]
    for tier, ages in sorted(scene.ages.items()):
        rows.append((f"newest record, since the log had it, {tier}", _shares(ages)))
    if scene.lateness:
        rows.append(("the feed's own lateness before that", _shares(scene.lateness)))
    back = outcome.seconds_to_normal
    rows.append(
        ("from the overload's end to NORMAL, all written", "not within the limit" if back is None else f"{back:.1f} s")
    )
    return rows


def _shares(values: Sequence[float]) -> str:
    return f"p50 {_share(values, 0.5):.2f} s, p99 {_share(values, 0.99):.2f} s"


def _share(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _level_table(scene: Scene) -> Table:
    table = Table(box=None, pad_edge=False)
    for name, width in (("level", 17), ("why", 11), ("waiting", 9), ("drain", 8), ("memory", 7), ("deferred", 9)):
        table.add_column(name, justify="left" if name in ("level", "why") else "right", min_width=width)
    said = scene.current
    if said is None:
        table.add_row("(no worker heard)", "", "", "", "", "")
        return table
    drain = "no end" if said.drain_seconds >= _ENDLESS_SECONDS else f"{said.drain_seconds:.1f} s"
    table.add_row(
        Text(f" {int(said.level)} {said.level.name} ", style=_STYLES[said.level]),
        said.reason,
        f"{said.lag_records:,}",
        drain,
        f"{said.memory_percent:.0f} %",
        f"{said.deferred_records:,}",
    )
    return table


def _tier_table(scene: Scene) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("tier", min_width=14)
    table.add_column("newest: in the log for", justify="right", min_width=22)
    table.add_column("sent late by", justify="right", min_width=12)
    table.add_column("answer", min_width=14)
    for tier, fresh in sorted(scene.fresh.items()):
        age = "none" if fresh.age_seconds is None else f"{fresh.age_seconds:.2f} s"
        late = "" if fresh.late_seconds is None else f"{fresh.late_seconds:.2f} s"
        word = Text("complete", "green") if fresh.is_complete else Text("incomplete, says so", "yellow")
        table.add_row(tier, age, late, word)
    return table


def _changes(scene: Scene) -> Text:
    text = Text()
    for seconds, said in scene.changes[-_CHANGES_SHOWN:]:
        text.append(f"{seconds:6.1f} s  ", "dim")
        text.append(f"{said.level.name:<14}", _STYLES[said.level])
        text.append(f"  {said.reason}\n")
    return text
