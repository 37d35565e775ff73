"""Counts symbols: each data file once, whatever the number of questions, and the tail above the seam."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import polars as pl

from k2.common.errors import QueryError, ReadLimitError
from k2.kafka.topics import exchange_of
from k2.query.request import DataType, SymbolSummary
from k2.query.scan import files_source
from k2.schemas.records import RECORD_TYPES
from k2.storage.seam import LogPartition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from k2.common.errors import CorruptionError
    from k2.query.intact_files import IntactFiles
    from k2.query.kafka_tail import KafkaTail
    from k2.query.ports import Plans
    from k2.query.settings import QuerySettings
    from k2.storage.planning import PinnedSnapshot, PlannedFile

_FILES_AT_ONCE: Final = 200
_COUNTED: Final = "count(*) AS rows, min(ts_event_ns) AS first, max(ts_event_ns) AS last"

Counted = tuple[str, str, int, int, int]
"""Exchange, symbol, rows, first and last event time."""


class SymbolCounter:
    """Keeps the counts of files that it has read; data files never change."""

    def __init__(self, *, planner: Plans, files: IntactFiles, tail: KafkaTail, settings: QuerySettings) -> None:
        self._planner = planner
        self._intact = files
        self._tail = tail
        self._settings = settings
        self._files: OrderedDict[str, tuple[Counted, ...]] = OrderedDict()
        self._kept = 0
        self._lock = threading.Lock()

    def count(
        self, exchange: str | None, data_types: Sequence[str], *, read_rows_max: int | None = None
    ) -> list[SymbolSummary]:
        """Return the symbols of the newest snapshots and of what the tail holds above their seams.

        Raises:
            ReadLimitError: the files that nobody has counted yet hold more than `read_rows_max` rows.
            QueryError: there are more symbols than the limit.
        """
        pinned = {data_type: self._planner.pin(data_type) for data_type in data_types}
        files = {
            data_type: {file.path: file for file in self._planner.plan(each, exchange=exchange)}
            for data_type, each in pinned.items()
        }
        self._see_that_little_is_unread(files.values(), read_rows_max)
        summaries: list[SymbolSummary] = []
        for data_type, each in pinned.items():
            entries = [*self._stored(data_type, files[data_type], exchange), *self._held(each, exchange)]
            summaries += _merged(data_type, entries)
        if len(summaries) > self._settings.symbols_max:
            raise QueryError(
                f"there are {len(summaries)} symbols, more than {self._settings.symbols_max} (K2_QUERY__SYMBOLS_MAX): "
                "ask for one exchange"
            )
        return summaries

    def _see_that_little_is_unread(
        self, planned: Iterable[Mapping[str, PlannedFile]], read_rows_max: int | None
    ) -> None:
        if read_rows_max is None:
            return
        rows = sum(file.rows for files in planned for path, file in files.items() if path not in self._files)
        if rows > read_rows_max:
            raise ReadLimitError(
                f"expected at most {read_rows_max} rows in files whose symbols are not counted yet, found {rows}"
            )

    def _stored(self, data_type: str, files: Mapping[str, PlannedFile], exchange: str | None) -> Iterable[Counted]:
        with self._lock:  # one reads, the others wait for what it finds
            unread = [path for path in files if path not in self._files]
            found: dict[str, list[Counted]] = {path: [] for path in unread}
            for first in range(0, len(unread), _FILES_AT_ONCE):
                self._read(data_type, [files[path] for path in unread[first : first + _FILES_AT_ONCE]], found)
            entries = [entry for path in files for entry in (found.get(path) or self._files.get(path) or ())]
            for path, counted in found.items():
                self._keep(path, tuple(counted))
        return [entry for entry in entries if exchange in (None, entry[0])]

    def _read(self, data_type: str, files: list[PlannedFile], found: dict[str, list[Counted]]) -> None:
        source = files_source(RECORD_TYPES[data_type]).removesuffix(")") + ", filename = true)"
        statement = f"SELECT filename, exchange, symbol, {_COUNTED} FROM {source} GROUP BY ALL"  # noqa: S608 - fixed text
        table = self._intact.fetch(statement, {}, files, _refuse)
        for row in [] if table is None else table.to_pylist():
            found[row["filename"]].append((row["exchange"], row["symbol"], row["rows"], row["first"], row["last"]))

    def _keep(self, path: str, counted: tuple[Counted, ...]) -> None:
        self._files[path] = counted
        self._kept += len(counted)
        while self._kept > 10 * self._settings.symbols_max and len(self._files) > 1:
            self._kept -= len(self._files.popitem(last=False)[1])

    def _held(self, pinned: PinnedSnapshot, exchange: str | None) -> Iterable[Counted]:
        entries: list[Counted] = []
        for log in pinned.head.logs:
            if pinned.head.log_of(log.topic) != log or exchange not in (None, exchange_of(log.topic)):
                continue
            for number in range(log.partitions):
                view = self._tail.view((log.topic, number))
                seam = pinned.head.seam.next_offset(LogPartition(log.log_id, number))
                if view is None or seam is None:
                    continue
                for rows in view.slice(None, seam, view.end).frames:
                    counted = rows.group_by("exchange", "symbol").agg(
                        pl.len(), pl.col("ts_event_ns").min().alias("first"), pl.col("ts_event_ns").max().alias("last")
                    )
                    entries += counted.rows()
        return entries


def _refuse(damage: CorruptionError) -> None:
    raise damage


def _merged(data_type: str, entries: Iterable[Counted]) -> list[SymbolSummary]:
    merged: dict[tuple[str, str], tuple[int, int, int]] = {}
    for exchange, symbol, rows, first, last in entries:
        before = merged.get((exchange, symbol), (0, first, last))
        merged[exchange, symbol] = (before[0] + rows, min(before[1], first), max(before[2], last))
    kind: DataType = "quotes" if data_type == "quotes" else "trades"
    return [SymbolSummary(kind, *key, *counts) for key, counts in sorted(merged.items())]
