"""One partition's rows of a main table, in the order of the log, as one snapshot holds them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

import polars as pl
from pyiceberg.expressions import And, BooleanExpression, EqualTo, GreaterThanOrEqual, LessThan, NotEqualTo

from k2.schemas.records import WrittenBy
from k2.storage.failures import translated
from k2.storage.side_tables import intact_scan
from k2.storage.tables import head_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyiceberg.table import Table

    from k2.storage.seam import LogPartition
    from k2.storage.tables import MarketTables, TableHead

SLAB_OFFSETS: Final = 500_000
"""Offsets read at a time: what one read holds in memory."""


class PinnedRows:
    """A table's newest snapshot: its head, and rows by partition."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.head: TableHead = head_of(table)

    def rows(
        self, partition: LogPartition, start: int, end: int, *, columns: Sequence[str], since_us: int = 0
    ) -> Iterator[pl.DataFrame]:
        """Iterate over rows, but for replayed ones, of offsets in [start, end) logged from `since_us` on, in order."""
        since = dt.datetime.fromtimestamp(since_us // 1_000_000, tz=dt.UTC).isoformat()
        for low in range(start, end, SLAB_OFFSETS):
            within: BooleanExpression = And(
                EqualTo(term="log_id", value=partition.log_id),
                EqualTo(term="log_partition", value=partition.partition),
                GreaterThanOrEqual(term="log_offset", value=low),
                LessThan(term="log_offset", value=min(end, low + SLAB_OFFSETS)),
                GreaterThanOrEqual(term="ts_log", value=since),
                NotEqualTo(term="written_by", value=WrittenBy.REPLAY),
            )
            with translated(f"reading rows of {partition}", path=".".join(self._table.name())):
                found = intact_scan(self._table, within, tuple(columns)).to_arrow()
            yield pl.DataFrame(pl.from_arrow(found)).select(columns).sort("log_offset")


class PartitionRows:
    """Pins tables for whoever rebuilds a memory from them."""

    def __init__(self, tables: MarketTables) -> None:
        self._tables = tables

    def pinned(self, table_name: str) -> PinnedRows:
        """Return the newest snapshot of a main table."""
        return PinnedRows(self._tables.load(table_name))
