"""Fills gaps with records that come past the ledger's memory: replayed dead letters, and history sent late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import polars as pl

from k2.ingestion.sequences.rules import GapEvent, SequenceKind
from k2.schemas.arrow import polars_schema
from k2.schemas.records import GAPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k2.common.clock import Clock
    from k2.ingestion.sequences.batches import Observation, StreamEvent
    from k2.ingestion.sequences.rules import StreamState

_BEHIND: Final = (SequenceKind.DUPLICATE, SequenceKind.OUT_OF_ORDER)
_GAP: Final = ("log_offset", "gap_first")
_LIKE_THE_GAP: Final = (
    "data_type", "exchange", "symbol", "channel", "trading_date", "trading_date_to", "topic", "topic_id", "log_id",
    "log_partition", "log_offset", "ts_log", "gap_first", "gap_last", "from_ns", "to_ns",
)  # fmt: skip


class GapLog(Protocol):
    """Reads and keeps the events of gaps."""

    def events(self, topic_id: str, partition: int) -> pl.DataFrame:
        """Return the events of one partition's gaps; UnavailableError."""
        ...


class GapTable(Protocol):
    """What keeps the events of gaps."""

    def append(self, events: pl.DataFrame) -> int:
        """Append the events that are absent; return how many."""
        ...


class GapFilling:
    """Tells the table of gaps which of its numbers a replay brought; safe to repeat."""

    def __init__(self, gaps: GapLog, table: GapTable, *, scopes: Mapping[str, str], clock: Clock) -> None:
        """Fill gaps of the topics in `scopes`, each with the column that tells its streams apart."""
        self._gaps = gaps
        self._table = table
        self._scopes = dict(scopes)
        self._clock = clock

    def fill(self, topic: str, topic_id: str, rows: pl.DataFrame, *, seam: int, commit_sequence: int) -> int:
        """Fill what these rows of one partition close; return how many numbers. UnavailableError: call again."""
        scope = self._scopes.get(topic)
        numbered = rows.filter(pl.col("sequence").is_not_null())
        if scope is None or numbered.is_empty():
            return 0
        events = self._gaps.events(topic_id, int(rows["log_partition"][0]))
        filled = closed(
            events, numbered, scope, recorded_us=self._clock.time_ns() // 1_000, decided_offset=seam - 1,
            commit_sequence=commit_sequence,
        )  # fmt: skip
        return self._table.append(filled) if len(filled) else 0


def past_memory(seen: Observation, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of a batch that lie below what is remembered of their stream, or in a gap forgotten since."""
    behind = [event for event in seen.events if event.decision.kind in _BEHIND]
    if not behind:
        return rows.clear()
    late = rows.filter(pl.col("log_offset").is_in([event.offset for event in behind]))
    days = dict(late.select("log_offset", pl.col("trading_date").to_physical()).iter_rows())
    filled = {change.offset for _, change in seen.changes if change.event is GapEvent.FILLED}
    return late.filter(
        pl.col("log_offset").is_in(
            [
                event.offset
                for event in behind
                if event.offset not in filled and _is_below(event, days[event.offset], seen.states[event.stream])
            ]
        )
    )


def _is_below(event: StreamEvent, day: int | None, state: StreamState) -> bool:
    if event.decision.kind is SequenceKind.DUPLICATE:  # of no row: the batch's duplicates were dropped before
        return True
    return event.found < state.first or (day is not None and day < state.day_begin)


def closed(
    events: pl.DataFrame,
    rows: pl.DataFrame,
    scope: str,
    *,
    recorded_us: int,
    decided_offset: int,
    commit_sequence: int | None = None,
) -> pl.DataFrame:
    """Return one FILLED event for each number of a gap that a row brings and that no earlier one did.

    A row belongs to a gap of its stream that spans its number and its trading date, the newest of several.
    """
    types = polars_schema(GAPS)
    brought = rows.select(
        scope, number="sequence", date="trading_date", event_offset="log_offset", ts_event_log="ts_log"
    ).sort("event_offset")
    opened = events.filter(pl.col("event") == GapEvent.OPENED)
    filled = events.filter(pl.col("event") == GapEvent.FILLED).select(*_GAP, number="first_missing")
    matches = brought.join(
        opened.select(*_LIKE_THE_GAP, "first_missing", "last_missing"), on=scope, how="inner", maintain_order="left"
    ).filter(
        pl.col("number").is_between("first_missing", "last_missing"),
        (pl.col("date").is_between("trading_date", "trading_date_to")).fill_null(value=True),
    )
    found = (
        matches.join(filled, on=[*_GAP, "number"], how="anti", maintain_order="left")
        .sort("log_offset", descending=True, maintain_order=True)
        .unique(["event_offset"], keep="first", maintain_order=True)
        .sort("event_offset")
        .unique([*_GAP, "number"], keep="first", maintain_order=True)
        .with_columns(
            event=pl.lit(GapEvent.FILLED.value),
            first_missing="number",
            last_missing="number",
            ts_recorded=pl.lit(recorded_us),
            decided_offset=pl.lit(decided_offset),
            commit_sequence=pl.lit(commit_sequence),
        )
    )
    return found.select(pl.col(name).cast(types[name]) for name in types)
