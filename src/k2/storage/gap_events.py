"""The events of gaps that a question needs: held in memory, and brought up to date by the files that are new."""

from __future__ import annotations

import threading
from dataclasses import dataclass
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
_NONE: Final = pl.DataFrame(schema={name: polars_schema(GAPS)[name] for name in _COLUMNS})
_KEPT_MAX: Final = 1_000
"""Symbols whose events are kept apart, and events of one symbol up to which they are."""


@dataclass(frozen=True, slots=True)
class _OfSymbol:
    """A symbol's events, and the event times between which all of its gaps lie."""

    events: pl.DataFrame
    from_ns: int
    to_ns: int


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
        self._of_symbol: dict[tuple[str, str], _OfSymbol] = {}

    def of(
        self, data_type: str, symbol: str, *, start_ns: int | None = None, end_ns: int | None = None
    ) -> pl.DataFrame:
        """Return the events of a symbol's gaps and of those in numbers that several symbols share.

        None of them, where all of these gaps lie before `start_ns` or from `end_ns` on.

        Raises:
            UnavailableError: the table cannot be read now.
            CorruptionError: one of its files is damaged.
            ConfigurationError: there is no such table.
        """
        table = self._tables.latest(GAPS.name)
        with self._lock:
            if self._location != table.metadata_location:
                self._refresh(table)
            found = self._known(data_type, symbol)
        if found is not None:
            is_before = start_ns is not None and found.to_ns < start_ns
            is_after = end_ns is not None and found.from_ns >= end_ns
            return _NONE if is_before or is_after else found.events
        within = And(
            EqualTo(term="data_type", value=data_type), Or(EqualTo(term="symbol", value=symbol), IsNull(term="symbol"))
        )
        with translated(_DOING, path=f"market.{GAPS.name}"):
            return pl.DataFrame(pl.from_arrow(intact_scan(table, within, _COLUMNS).to_arrow())).select(_COLUMNS)

    def _known(self, data_type: str, symbol: str) -> _OfSymbol | None:
        """Return what is held of a symbol; None if nothing is held at all."""
        if self._held is None:
            return None
        known = self._of_symbol.get((data_type, symbol))
        if known is None:
            mine = (pl.col("symbol") == symbol) | pl.col("symbol").is_null()
            events = self._held.filter(pl.col("data_type") == data_type, mine)
            times = pl.concat([events["from_ns"], events["to_ns"]])
            known = _OfSymbol(events, times.min() or 0, times.max() or 0)  # type: ignore[arg-type]  # whole numbers
            if events.height <= _KEPT_MAX and len(self._of_symbol) < _KEPT_MAX:
                self._of_symbol[data_type, symbol] = known
        return known

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
                self._held = pl.concat([_NONE, *self._frames.values()])
        self._of_symbol.clear()
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
