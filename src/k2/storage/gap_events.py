"""The events of gaps that a question needs: held in memory, and brought up to date by the files that are new."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow.parquet as pq
from pyiceberg.expressions import And, EqualTo, IsNull, Or

from k2.schemas.arrow import polars_schema
from k2.schemas.records import GAPS
from k2.storage.failures import translated
from k2.storage.file_checks import require_as_written
from k2.storage.side_tables import intact_scan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

    from k2.storage.tables import MarketTables

_COLUMNS: Final = tuple(name for name in polars_schema(GAPS) if name not in ("ts_recorded", "event_offset"))
_DOING: Final = "reading the gaps"


class GapEvents:
    """Reads `market.gaps`. Safe to share between threads.

    A table of more than `events_max` events is not held: each question reads what it needs of it.
    """

    def __init__(self, tables: MarketTables, *, events_max: int) -> None:
        self._tables = tables
        self._events_max = events_max
        self._lock = threading.Lock()
        self._location: str | None = None
        self._frames: Mapping[str, pl.DataFrame] = {}
        self._held: pl.DataFrame | None = None

    def of(self, data_type: str, symbol: str) -> pl.DataFrame:
        """Return the events of a symbol's gaps and of those in numbers that several symbols share.

        Raises:
            UnavailableError: the table cannot be read now.
            CorruptionError: one of its files is damaged.
            ConfigurationError: there is no such table.
        """
        table = self._tables.latest(GAPS.name)
        with self._lock:
            if self._location != table.metadata_location:
                self._refresh(table)
            held = self._held
        if held is not None:
            mine = (pl.col("symbol") == symbol) | pl.col("symbol").is_null()
            return held.filter(pl.col("data_type") == data_type, mine)
        within = And(
            EqualTo(term="data_type", value=data_type), Or(EqualTo(term="symbol", value=symbol), IsNull(term="symbol"))
        )
        with translated(_DOING, path=f"market.{GAPS.name}"):
            return pl.DataFrame(pl.from_arrow(intact_scan(table, within, _COLUMNS).to_arrow())).select(_COLUMNS)

    def _refresh(self, table: Table) -> None:
        with translated(_DOING, path=f"market.{GAPS.name}"):
            files = {task.file.file_path: task.file for task in table.scan().plan_files()}
            if sum(file.record_count for file in files.values()) > self._events_max:
                self._frames, self._held = {}, None
            else:
                self._frames = {
                    path: self._frames[path] if path in self._frames else _read(table, file)
                    for path, file in files.items()
                }
                none = pl.DataFrame(schema={name: polars_schema(GAPS)[name] for name in _COLUMNS})
                self._held = pl.concat([none, *self._frames.values()])
        self._location = table.metadata_location


def _read(table: Table, file: DataFile) -> pl.DataFrame:
    require_as_written(table.io, file)
    with table.io.new_input(file.file_path).open() as stream:
        content = pq.ParquetFile(stream)
        there = [name for name in _COLUMNS if name in content.schema_arrow.names]
        found = pl.DataFrame(pl.from_arrow(content.read(columns=there)))
    types = polars_schema(GAPS)
    return found.select(
        (pl.col(name) if name in there else pl.lit(None)).cast(types[name]).alias(name) for name in _COLUMNS
    )
