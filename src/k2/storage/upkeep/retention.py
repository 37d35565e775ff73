"""Retention: drops whole days of an exchange from a table, and keeps the ledger of what was dropped in the seam."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow.parquet as pq
from pyiceberg.table.snapshots import Operation

from k2.common.errors import ConfigurationError, UnavailableError
from k2.common.logging import get_logger
from k2.common.units import NS_PER_DAY
from k2.storage.dropped_days import DroppedDays, dropped_property
from k2.storage.failures import translated
from k2.storage.file_checks import require_as_written
from k2.storage.replacing import Replacement, commit_replacement
from k2.storage.seam import SUMMARY_KEY, LogPartition, Seam
from k2.storage.tables import MAIN_TABLES, head_of
from k2.storage.upkeep.choosing import by_partition
from k2.storage.upkeep.live_files import LiveFiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

    from k2.common.clock import Clock
    from k2.storage.settings import CatalogSettings
    from k2.storage.tables import MarketTables
    from k2.storage.upkeep.live_files import LiveFile

_EPOCH: Final = dt.date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Day:
    """One exchange and UTC day that is to go, or went."""

    exchange: str
    date: dt.date
    files: tuple[LiveFile, ...]

    @property
    def file_count(self) -> int:
        """Return how many files it has."""
        return len(self.files)

    @property
    def rows(self) -> int:
        """Return how many rows it has."""
        return sum(file.rows for file in self.files)

    @property
    def size_bytes(self) -> int:
        """Return the size of its files."""
        return sum(file.size_bytes for file in self.files)


class Retention:
    """Drops old days of the main tables."""

    def __init__(self, tables: MarketTables, settings: CatalogSettings, clock: Clock) -> None:
        self._tables = tables
        self._settings = settings
        self._clock = clock
        self._log = get_logger(__name__)

    @property
    def table_names(self) -> tuple[str, ...]:
        """Return the tables that retention is for."""
        return tuple(MAIN_TABLES)

    def plan(self, table_name: str, *, older_than_days: float) -> tuple[Day, ...]:
        """Return the days of `ts_event` (UTC) that ended at least so many days ago, oldest first.

        Raises:
            ConfigurationError: the table is none that retention is for.
        """
        if table_name not in MAIN_TABLES:
            raise ConfigurationError(f"expected a table among {', '.join(MAIN_TABLES)}, found {table_name!r}")
        limit_ns = self._clock.time_ns() - int(older_than_days * NS_PER_DAY)
        files = LiveFiles().of_head(self._tables.load(table_name))
        days = [
            Day(partition.exchange, _EPOCH + dt.timedelta(days=partition.day), tuple(members))
            for partition, members in by_partition(files).items()
            if (partition.day + 1) * NS_PER_DAY <= limit_ns
        ]
        return tuple(sorted(days, key=lambda day: (day.date, day.exchange)))

    def drop(self, table_name: str, days: tuple[Day, ...]) -> int:
        """Take the days' files out of the table in one commit; return the rows that went.

        The seam's offsets and counters stay; it says how many rows of each log partition are gone. The files are
        deleted by the orphan sweep, once no snapshot names them.

        Raises:
            UnavailableError: upkeep or ingestion was faster each time; nothing was dropped.
        """
        if not days:
            return 0
        files = [file for day in days for file in day.files]
        table = self._tables.load(table_name)
        removed = _rows_by_log_partition(table, files)
        replacement = Replacement(table, frozenset(file.path for file in files), operation=Operation.DELETE)

        def summary(_table: Table, head: Snapshot) -> dict[str, str]:
            seam = Seam.from_summary({} if head.summary is None else head.summary.additional_properties)
            return {SUMMARY_KEY: seam.with_rows_removed(removed).to_json()}

        def properties(table: Table, _head: Snapshot) -> dict[str, str]:
            head = head_of(table)
            return dropped_property(head.dropped, self._as_dropped(days, head.seam.commit_sequence + 1))

        if not commit_replacement(replacement, self._tables, self._settings, self._clock, summary, properties):
            raise UnavailableError(
                f"expected the files of {len(days)} days in {table_name}, found some replaced by compaction meanwhile; "
                "nothing was dropped: run the command again",
                dependency="catalog",
            )
        rows = sum(day.rows for day in days)
        self._log.info("days_dropped", table=table_name, days=len(days), files=len(files), rows=rows)
        return rows

    def _as_dropped(self, days: tuple[Day, ...], commit_sequence: int) -> list[DroppedDays]:
        """Return what the table remembers of days that go by this commit."""
        numbers: dict[str, list[int]] = {}
        for day in days:
            numbers.setdefault(day.exchange, []).append((day.date - _EPOCH).days)
        now_ns = self._clock.time_ns()
        return [
            DroppedDays(exchange, min(each), max(each), commit_sequence, now_ns)
            for exchange, each in sorted(numbers.items())
        ]


def _rows_by_log_partition(table: Table, files: list[LiveFile]) -> Mapping[LogPartition, int]:
    """Count the rows of the files by log and partition, once each is seen to be what was written."""
    counts: dict[LogPartition, int] = {}
    for file in files:
        require_as_written(table.io, file.data_file)
        with translated("counting rows to drop", path=file.path), table.io.new_input(file.path).open() as stream:
            columns = pq.ParquetFile(stream).read(columns=["log_id", "log_partition"])
        grouped = pl.DataFrame(pl.from_arrow(columns)).group_by("log_id", "log_partition").len()
        for log_id, partition, rows in grouped.rows():
            key = LogPartition(log_id, partition)
            counts[key] = counts.get(key, 0) + rows
    return counts
