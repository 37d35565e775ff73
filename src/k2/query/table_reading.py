"""Reads a table's rows in the order of answers, a stretch of time after another, so that memory is bounded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import polars as pl

from k2.query.scan import Condition, files_source
from k2.schemas.arrow import arrow_schema
from k2.schemas.records import ORDER, RECORD_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from k2.common.errors import CorruptionError
    from k2.query.intact_files import IntactFiles
    from k2.query.ports import Plans

_STRETCH_NS: Final = 60_000_000_000
"""Rows are counted by the minute; a minute that has more than allowed is read whole."""
_MINUTES: Final = "SELECT ts_event_ns // {stretch} AS stretch, count(*) AS rows FROM {source} WHERE {where} GROUP BY 1"
_ROWS: Final = "SELECT * FROM {source} WHERE {where} ORDER BY {order}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsWanted:
    """Which rows of a table: half-open in time, None for no bound."""

    table: str
    exchange: str | None = None
    symbol: str | None = None
    start_ns: int | None = None
    end_ns: int | None = None

    @property
    def condition(self) -> Condition:
        """The rows as a predicate."""
        parts = {
            "exchange = $exchange": self.exchange,
            "symbol = $symbol": self.symbol,
            "ts_event_ns >= $start_ns": self.start_ns,
            "ts_event_ns < $end_ns": self.end_ns,
        }
        condition = Condition()
        for sql, value in parts.items():
            if value is not None:
                condition &= Condition(sql, {sql.rpartition("$")[2]: value})
        return condition


def rows_in_order(planner: Plans, files: IntactFiles, wanted: RowsWanted, *, rows_max: int) -> Iterator[pl.DataFrame]:
    """Yield the rows of the newest snapshot in the order of answers, about `rows_max` at a time, all columns.

    Raises:
        CorruptionError: a file is damaged; the rows before it are right.
    """
    record_type = RECORD_TYPES[wanted.table]
    pinned = planner.pin(wanted.table)

    def fetch(statement: str, part: RowsWanted) -> pl.DataFrame:
        planned = planner.plan(
            pinned, exchange=part.exchange, symbol=part.symbol, start_ns=part.start_ns, end_ns=part.end_ns
        )
        condition = part.condition
        sql = statement.format(
            source=files_source(record_type), where=condition.sql, order=", ".join(ORDER), stretch=_STRETCH_NS
        )
        found = files.fetch(sql, condition.values, planned, _refuse)
        rows = pl.from_arrow(arrow_schema(record_type).empty_table() if found is None else found)
        assert isinstance(rows, pl.DataFrame)
        return rows

    minutes = fetch(_MINUTES, wanted)
    if minutes.is_empty():
        return
    for first, last in _stretches(minutes.sort("stretch").rows(), rows_max):
        start_ns, end_ns = first * _STRETCH_NS, (last + 1) * _STRETCH_NS
        part = replace(
            wanted,
            start_ns=start_ns if wanted.start_ns is None else max(start_ns, wanted.start_ns),
            end_ns=end_ns if wanted.end_ns is None else min(end_ns, wanted.end_ns),
        )
        yield fetch(_ROWS, part)


def _refuse(error: CorruptionError) -> None:
    raise error


def _stretches(minutes: Sequence[tuple[int, int]], rows_max: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last minute of each stretch."""
    first = last = None
    rows = 0
    for minute, count in minutes:
        if first is not None and last is not None and rows + count > rows_max:
            yield first, last
            first, rows = None, 0
        first = minute if first is None else first
        last, rows = minute, rows + count
    if first is not None and last is not None:
        yield first, last
