"""Reads narrow slices of a main table by log partition: the rows that may be winners, and identities of a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from k2.schemas.arrow import polars_schema
from k2.schemas.records import RECORD_TYPES
from k2.storage.failures import translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from k2.storage.file_checks import FileChecks
    from k2.storage.planning import PinnedSnapshot, PlannedFile, Planner
    from k2.storage.seam import LogPartition
    from k2.storage.tables import MarketTables

_SYMBOLS_MAX: Final = 200
"""More symbols than this are not looked for by name: the range of times is what narrows the scan."""
_PARTITION: Final = ("log_id", "log_partition")


class Wanted(Protocol):
    """Rows of one partition logged at or after a time, from an offset on or of commits above a number."""

    @property
    def logged_from(self) -> datetime:
        """The earliest log time."""
        ...

    @property
    def offset_from(self) -> int:
        """The first offset; lower ones only where they came in a later commit."""
        ...

    @property
    def commits_above(self) -> int:
        """Rows of commits above this number are wanted whatever their offset."""
        ...


class StoredRows:
    """Reads one main table at a pinned snapshot."""

    def __init__(self, planner: Planner, tables: MarketTables, table_name: str, checks: FileChecks) -> None:
        self._planner = planner
        self._checks = checks
        self._tables = tables
        self._name = table_name
        self._types = polars_schema(RECORD_TYPES[table_name])

    def pin(self) -> PinnedSnapshot:
        """Pin the newest snapshot."""
        return self._planner.pin(self._name)

    def between(
        self,
        pinned: PinnedSnapshot,
        log: LogPartition,
        like: pl.DataFrame,
        columns: Sequence[str],
        *,
        margin_ns: int = 0,
        files_max: int | None = None,
        same_times: bool = False,
    ) -> pl.DataFrame:
        """Return a partition's rows that agree with `like` in exchange, symbol and, but for a margin, event times.

        They lie between its first and its last time; with `same_times` each has one of them. No row at all if that
        takes more than `files_max` files.
        """
        symbols = like["symbol"].unique().to_list()
        times: tuple[int, ...] = like.select(low=pl.col("ts_event_ns").min(), high=pl.col("ts_event_ns").max()).row(0)
        start, last = times[0] - margin_ns, times[1] + margin_ns
        condition = _of(log) & (ds.field("ts_event_ns") >= start) & (ds.field("ts_event_ns") <= last)
        if same_times:
            condition &= ds.field("ts_event_ns").isin(like["ts_event_ns"].unique().to_list())
        if len(symbols) <= _SYMBOLS_MAX:
            condition &= ds.field("symbol").isin(symbols)
        files = [
            file
            for exchange in like["exchange"].unique().to_list()
            for file in self._planner.plan(
                pinned,
                exchange=exchange,
                symbol=symbols[0] if len(symbols) == 1 else None,
                start_ns=start,
                end_ns=last + 1,
            )
        ]
        if files_max is not None and len(files) > files_max:
            return self._none(columns)
        frames = [self._read(file, columns, condition) for file in files]
        return pl.concat(frames) if frames else self._none(columns)

    def since(
        self, pinned: PinnedSnapshot, wanted: Mapping[LogPartition, Wanted], columns: Sequence[str]
    ) -> Iterator[tuple[LogPartition, pl.DataFrame]]:
        """Give the rows wanted of each partition, file by file."""
        earliest = min(each.logged_from for each in wanted.values())
        for file in self._planner.plan(pinned, logged_from=earliest):
            condition = ds.scalar(False)
            for log, each in wanted.items():
                new = (ds.field("log_offset") >= each.offset_from) | (ds.field("commit_sequence") > each.commits_above)
                condition |= _of(log) & (ds.field("ts_log") >= pa.scalar(each.logged_from)) & new
            rows = self._read(file, [*columns, *_PARTITION], condition)
            for log in wanted if rows.height else ():
                found = rows.filter(log_id=log.log_id, log_partition=log.partition)
                if found.height:
                    yield log, found.select(columns)

    def rows_since(self, pinned: PinnedSnapshot, at: datetime) -> int:
        """Return at most how many rows were logged at or after a time."""
        return sum(file.rows for file in self._planner.plan(pinned, logged_from=at))

    def _read(self, file: PlannedFile, columns: Sequence[str], condition: Any) -> pl.DataFrame:
        # Any: pyarrow has no types for its expressions
        self._checks.require([file])
        with translated("reading rows that may be winners", path=file.path):
            if file.path.startswith("/"):
                found = self._from(file.path, columns, condition)
            else:
                with self._tables.latest(self._name).io.new_input(file.path).open() as stream:
                    found = self._from(stream, columns, condition)
        return found

    def _from(self, source: Any, columns: Sequence[str], condition: Any) -> pl.DataFrame:
        # Any: a path or a stream, and the same expressions
        there = set(pq.read_schema(source).names)
        table = pq.read_table(source, columns=[name for name in columns if name in there], filters=condition)
        frame = pl.DataFrame(pl.from_arrow(table))
        return frame.select(
            (pl.col(name) if name in there else pl.lit(None)).cast(self._types[name]).alias(name) for name in columns
        )

    def _none(self, columns: Sequence[str]) -> pl.DataFrame:
        return pl.DataFrame(schema={name: self._types[name] for name in columns})


def _of(log: LogPartition) -> Any:
    # Any: pyarrow has no types for its expressions
    return (ds.field("log_id") == log.log_id) & (ds.field("log_partition") == log.partition)
