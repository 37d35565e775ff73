"""A table of gaps in memory; `events` may be changed, and `fails_with` is raised while it is set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from k2.common.errors import ReadLimitError
from k2.storage.gaps import states
from k2.testing.gap_events import gap_events

if TYPE_CHECKING:
    from k2.common.errors import K2Error


def see_that_few_are_read(rows: int, read_rows_max: int | None) -> None:
    """Raise ReadLimitError if more rows are read than the caller allows."""
    if read_rows_max is not None and rows > read_rows_max:
        raise ReadLimitError(f"expected at most {read_rows_max} rows to be read, found {rows}")


class FakeGaps:
    """Reads events and gaps as `GapEvents` and `GapReader` do."""

    def __init__(self, events: pl.DataFrame | None = None) -> None:
        self.events = gap_events() if events is None else events
        self.fails_with: K2Error | None = None

    def of(
        self,
        data_type: str,
        symbol: str,
        *,
        start_ns: int | None = None,  # noqa: ARG002 - may leave gaps out, and leaves out none
        end_ns: int | None = None,  # noqa: ARG002 - as above
    ) -> pl.DataFrame:
        """Return the events of a symbol's gaps, and of gaps that name none, whatever their times."""
        self._fail()
        mine = pl.col("symbol").is_null() | (pl.col("symbol") == symbol)
        return self.events.filter(pl.col("data_type") == data_type, mine)

    def gaps(
        self,
        *,
        symbol: str | None = None,
        exchange: str | None = None,
        since_ns: int | None = None,
        read_rows_max: int | None = None,
    ) -> pl.DataFrame:
        """Return one row a gap, the newest first."""
        self._fail()
        see_that_few_are_read(self.events.height, read_rows_max)
        found = states(self.events)
        for name, value in (("symbol", symbol), ("exchange", exchange)):
            found = found if value is None else found.filter(pl.col(name) == value)
        return found if since_ns is None else found.filter(pl.col("to_ns") >= since_ns)

    def _fail(self) -> None:
        if self.fails_with is not None:
            raise self.fails_with
