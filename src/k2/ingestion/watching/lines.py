"""Compares the lines of a venue (two feeds of one stream): which was first, by how much, and what each has lost.

The deduplicator keeps the first arrival of each number and drops the others; here they are counted. A record belongs to
the line whose name its `source` is, or begins with before a slash. A number is looked at once the log is `window` past
its first arrival: a line that had it not by then has lost it. Statistics begin anew with the process and after
overload, and nothing else depends on them. A venue that begins its numbers anew within a day and channel makes what
follows late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from k2.ingestion import events
from k2.ingestion.duplicates.seen_sequences import STREAM
from k2.ingestion.events import LineCounts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from k2.ingestion.duplicates.deduplicator import Part
    from k2.storage.seam import LogPartition

_NUMBER: Final = (*STREAM, "sequence", "sub_index", "action")
_COLUMNS: Final = (*_NUMBER, "ts_log", "log_offset")


class LineStatistics:
    """The lines of all venues that have some; only the writer's thread uses it."""

    def __init__(
        self,
        lines: Mapping[str, Sequence[str]],
        *,
        window: timedelta,
        numbers_max: int,
        observer: events.Observer,
    ) -> None:
        """Begin; `lines` names the lines of each exchange, `numbers_max` bounds those held of a partition."""
        self._lines = {exchange: tuple(names) for exchange, names in lines.items() if names}
        self._window = window
        self._numbers_max = numbers_max
        self._observe = observer
        self._held: dict[tuple[str, LogPartition], pl.DataFrame] = {}
        self._settled: dict[tuple[str, LogPartition], pl.DataFrame] = {}

    def committed(self, table: str, parts: Mapping[LogPartition, Part]) -> None:
        """Count a batch; see BatchWatcher."""
        for at, part in parts.items():
            if part.frames and (names := self._lines.get(part.frames[0]["exchange"][0])):
                self._count(table, at, part.frames, names)

    def skipped(self, table: str) -> None:
        """Begin anew: what was not shown would seem lost to a line; see BatchWatcher."""
        for key in [key for key in self._held if key[0] == table]:
            del self._held[key]
            self._settled.pop(key, None)

    def _count(self, table: str, at: LogPartition, frames: Sequence[pl.DataFrame], names: tuple[str, ...]) -> None:
        exchange = frames[0]["exchange"][0]
        rows = pl.concat([frame.select(*_COLUMNS, line=_line(names)) for frame in frames])
        newest = rows["ts_log"].max()
        rows = rows.filter(pl.col("line").is_not_null() & pl.col("sequence").is_not_null())
        rows, late = self._without_late(table, at, rows)
        held = self._held.get((table, at))
        rows = rows if held is None else pl.concat([held, rows])
        due, self._held[table, at] = self._due(rows, newest)  # type: ignore[arg-type]  # a column of times
        self._note_settled(table, at, due)
        counts = compared(due, names)
        late_by_line = dict(late.group_by("line").len().rows())
        self._observe(
            events.LinesCompared(
                table,
                exchange,
                {name: _with_late(counts[name], late_by_line.get(name, 0)) for name in names},
            )
        )

    def _due(self, rows: pl.DataFrame, newest: datetime) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Part the numbers to look at now from those that a line may still bring; past the bound, the oldest are."""
        first = pl.col("ts_log").min().over(_NUMBER)
        rows = rows.with_columns(first=first)
        horizon = newest - self._window
        firsts = rows.select(*_NUMBER, "first").unique()
        if len(firsts.filter(pl.col("first") > horizon)) > self._numbers_max:
            horizon = max(horizon, firsts["first"].sort()[-self._numbers_max - 1])
        is_due = pl.col("first") <= horizon
        return rows.filter(is_due).drop("first"), rows.filter(~is_due).drop("first")

    def _without_late(self, table: str, at: LogPartition, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Part the rows whose number was looked at before from the others."""
        settled = self._settled.get((table, at))
        if settled is None:
            return rows, rows.clear()
        held = self._held[table, at].select(_NUMBER).unique().with_columns(is_held=pl.lit(value=True))
        known = rows.join(settled, on=STREAM, how="left", nulls_equal=True, maintain_order="left")
        known = known.join(held, on=_NUMBER, how="left", nulls_equal=True, maintain_order="left")
        is_late = (pl.col("sequence") <= pl.col("settled")) & pl.col("is_held").is_null()
        is_late = is_late.fill_null(value=False)
        return known.filter(~is_late).select(rows.columns), known.filter(is_late).select(rows.columns)

    def _note_settled(self, table: str, at: LogPartition, due: pl.DataFrame) -> None:
        reached = due.group_by(STREAM).agg(settled=pl.col("sequence").max())
        before = self._settled.get((table, at))
        if before is not None:
            reached = pl.concat([before, reached]).group_by(STREAM).agg(pl.col("settled").max())
            newest = reached["trading_date"].max()
            if len(reached) > self._numbers_max:  # past days are not coming again
                reached = reached.filter(pl.col("trading_date") == newest)
        self._settled[table, at] = reached


def compared(rows: pl.DataFrame, names: Sequence[str]) -> dict[str, LineCounts]:
    """Count, for each line, the numbers in `rows` that it brought first, after another, or not at all.

    `rows` have the number's columns, line, ts_log and log_offset; a line that repeats itself counts once.
    """
    arrivals = rows.group_by(*_NUMBER, "line").agg(pl.col("log_offset").min(), pl.col("ts_log").min())
    numbers = (
        arrivals.sort("log_offset")
        .group_by(_NUMBER, maintain_order=True)
        .agg(
            winner=pl.col("line").first(),
            lead=(pl.col("ts_log").get(1, null_on_oob=True) - pl.col("ts_log").first()).dt.total_microseconds() / 1e6,
        )
    )
    came = dict(arrivals.group_by("line").len().rows())
    won = {
        name: (first, led, seconds or 0.0)
        for name, first, led, seconds in numbers.group_by("winner")
        .agg(pl.len(), pl.col("lead").count().alias("led"), pl.col("lead").sum().alias("seconds"))
        .rows()
    }
    found = {}
    for name in names:
        first, led, seconds = won.get(name, (0, 0, 0.0))
        arrived = came.get(name, 0)
        found[name] = LineCounts(first, arrived - first, len(numbers) - arrived, 0, led, seconds)
    return found


def _line(names: Sequence[str]) -> pl.Expr:
    source = pl.col("source")
    return pl.coalesce(
        pl.when((source == name) | source.str.starts_with(f"{name}/")).then(pl.lit(name)) for name in names
    )


def _with_late(counts: LineCounts, late: int) -> LineCounts:
    return LineCounts(counts.first, counts.second, counts.lost, late, counts.led, counts.lead_seconds)
