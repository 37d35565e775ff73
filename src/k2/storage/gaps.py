"""The table of gaps: its writer, and the state of each gap as its events tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, EqualTo

from k2.common.errors import ReadLimitError
from k2.schemas.arrow import polars_schema
from k2.schemas.records import GAPS
from k2.storage.event_tables import GAP_EVENTS, EventWriter
from k2.storage.failures import translated
from k2.storage.side_tables import intact_scan

if TYPE_CHECKING:
    from k2.common.clock import Clock
    from k2.storage.settings import CatalogSettings
    from k2.storage.tables import MarketTables

GAP: Final = ("topic_id", "log_partition", "log_offset", "gap_first")
"""What a gap is known by: the record that showed it, and its first number."""
_ABOUT: Final = ("data_type", "exchange", "symbol", "channel", "trading_date", "trading_date_to", "topic", "log_id",
                 "gap_last", "from_ns", "to_ns", "ts_log")  # fmt: skip


class GapWriter(EventWriter):
    """Appends events to `market.gaps`."""

    def __init__(self, tables: MarketTables, settings: CatalogSettings, clock: Clock) -> None:
        super().__init__(GAP_EVENTS, tables, settings, clock)


class GapReader:
    """Reads the gaps of `market.gaps`."""

    def __init__(self, tables: MarketTables) -> None:
        self._tables = tables

    def gaps(
        self,
        *,
        symbol: str | None = None,
        exchange: str | None = None,
        since_ns: int | None = None,
        read_rows_max: int | None = None,
    ) -> pl.DataFrame:
        """Return one row a gap, the newest first; `since_ns` leaves out those that ended before, in event time.

        Raises:
            ReadLimitError: the table holds more than `read_rows_max` events; all are read, whatever is asked for.
        """
        if read_rows_max is not None:
            self._see_that_there_are_few(read_rows_max)
        parts = {"symbol": symbol, "exchange": exchange}
        filters = [pl.col(name) == value for name, value in parts.items() if value is not None]
        if since_ns is not None:
            filters.append(pl.col("to_ns") >= since_ns)
        events = self._events(AlwaysTrue())
        return states(events.filter(*filters) if filters else events)

    def events(self, topic_id: str, partition: int) -> pl.DataFrame:
        """Return the events of one partition's gaps."""
        return self._events(
            And(EqualTo(term="topic_id", value=topic_id), EqualTo(term="log_partition", value=partition))
        )

    def _see_that_there_are_few(self, events_max: int) -> None:
        snapshot = self._tables.latest(GAPS.name).current_snapshot()
        summary = None if snapshot is None else snapshot.summary
        events = 0 if summary is None else int(summary.additional_properties.get("total-records", "0"))
        if events > events_max:
            raise ReadLimitError(f"expected at most {events_max} events of gaps, found {events}")

    def _events(self, within: BooleanExpression) -> pl.DataFrame:
        table = self._tables.latest(GAPS.name)
        with translated("reading the gaps", path=f"market.{GAPS.name}"):
            return pl.DataFrame(pl.from_arrow(intact_scan(table, within, tuple(polars_schema(GAPS))).to_arrow()))


def states(events: pl.DataFrame) -> pl.DataFrame:
    """Fold events into one row a gap: `missing` of `size` numbers have not come; `state` is open, filled or lost.

    A number that came twice, once of them from a dead letter, fills once.
    """
    return lazy_states(events.lazy()).collect()


def lazy_states(events: pl.LazyFrame) -> pl.LazyFrame:
    """Return what `states` does, as a step of a plan."""
    events = events.unique([*GAP, "event", "first_missing"], maintain_order=True)
    size = pl.col("last_missing") - pl.col("first_missing") + 1
    of = {kind: size.filter(pl.col("event") == kind).sum() for kind in ("opened", "filled", "lost")}
    folded = events.group_by(*GAP).agg(
        *(pl.col(name).first() for name in _ABOUT), size=of["opened"], filled=of["filled"], lost=of["lost"]
    )
    state = (
        pl.when(pl.col("filled") >= pl.col("size"))
        .then(pl.lit("filled"))
        .when(pl.col("lost") > 0)
        .then(pl.lit("lost"))
        .otherwise(pl.lit("open"))
    )
    return (
        folded.filter(pl.col("size") > 0)
        .with_columns(missing=pl.col("size") - pl.col("filled"), state=state)
        .select(
            "exchange", "symbol", "channel", "data_type", "trading_date", "trading_date_to", "gap_first", "gap_last",
            "size", "missing", "state", "from_ns", "to_ns", "ts_log", "topic", "topic_id", "log_id",
            "log_partition", "log_offset",
        )
        .sort("to_ns", "log_partition", "log_offset", "gap_first", descending=True)
    )  # fmt: skip
