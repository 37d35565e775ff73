"""Merges small files of days still written to, and compacts quiet days, under the condition of every commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow.parquet as pq

from k2.common.errors import AccountingError, CorruptionError, UnavailableError
from k2.common.logging import get_logger
from k2.common.units import NS_PER_HOUR, NS_PER_MINUTE, NS_PER_MS
from k2.storage.failures import translated
from k2.storage.iceberg_schema import SORT_COLUMNS, is_market_table
from k2.storage.replacing import Replacement, commit_replacement
from k2.storage.seam import BATCH_KEY
from k2.storage.tables import MAIN_TABLES, SIDE_TABLES
from k2.storage.upkeep.choosing import by_partition, choose
from k2.storage.upkeep.live_files import LiveFiles
from k2.storage.upkeep.rewriting import Rewriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pyiceberg.table import Table

    from k2.common.clock import Clock
    from k2.schemas.records import RecordType
    from k2.storage.settings import CatalogSettings, UpkeepSettings
    from k2.storage.tables import MarketTables
    from k2.storage.upkeep.choosing import Job
    from k2.storage.upkeep.live_files import LiveFile

_COORDINATES: Final = ("topic_id", "log_id", "log_partition", "log_offset")
"""Order of the rows in a file of a side table, as far as it has these columns."""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one job. `problem` says why nothing was replaced."""

    job: Job
    files_after: int
    bytes_after: int
    problem: str = ""


class Compactor:
    """Rewrites the files of the tables, one job after the other."""

    def __init__(
        self,
        tables: MarketTables,
        catalog: CatalogSettings,
        settings: UpkeepSettings,
        clock: Clock,
        *,
        scratch_dir: Path,
    ) -> None:
        self._tables = tables
        self._catalog = catalog
        self._retries = catalog.model_copy(update={"commit_attempts_max": settings.commit_attempts_max})
        self._settings = settings
        self._clock = clock
        self._scratch_dir = scratch_dir
        self._log = get_logger(__name__)

    def plan(self, table_name: str, live: LiveFiles | None = None) -> tuple[Job, ...]:
        """Return the jobs that the table as it is now has."""
        return self._plan(self._tables.load(table_name), live or LiveFiles())

    def run(self, table_name: str, stopping: Callable[[], bool] = lambda: False) -> Iterator[Done]:
        """Do the jobs that the table has now; what they leave is for the next round."""
        live = LiveFiles()
        for job in self.plan(table_name, live):
            if stopping():
                return
            table = self._tables.load(table_name)
            live.of_head(table)
            yield self._do(table, live, job)

    def _plan(self, table: Table, live: LiveFiles) -> tuple[Job, ...]:
        files = live.of_head(table)
        log_now: int | None = None
        jobs: list[Job] = []
        for members in by_partition(files).values():
            wanted = choose(members, self._settings, quiet=True)
            if wanted:  # only then is it worth looking into files whether the day is quiet
                log_now = self._log_now_ns(table, files) if log_now is None else log_now
                quiet = self._is_quiet(table, members, log_now)
                jobs.extend(wanted if quiet else choose(members, self._settings, quiet=False))
        return tuple(jobs)

    def _do(self, table: Table, live: LiveFiles, job: Job) -> Done:
        name = table.name()[-1]
        began = self._clock.time_ns()
        try:
            written = self._rewriter(name).rewrite(table, job)
            if self._clock.time_ns() - began > self._catalog.file_age_max_hours * NS_PER_HOUR:
                return self._failed(
                    name, job, "rewriting took so long that the new files may be swept; do smaller jobs"
                )
            replacement = Replacement(
                table,
                _paths(job),
                added=[file.data_file for file in written],
                untouched=live.manifests_without(_paths(job)),
            )
            if not commit_replacement(replacement, self._tables, self._retries, self._clock):
                return self._failed(name, job, "other upkeep has replaced a file of it")
        except (CorruptionError, AccountingError, UnavailableError) as error:  # the other jobs are no worse for it
            return self._failed(name, job, str(error))
        done = Done(job, len(written), sum(file.size_bytes for file in written))
        self._log.info(
            "files_replaced",
            table=name,
            kind=job.kind.value,
            exchange=job.partition.exchange,
            day=job.partition.day,
            rows=job.rows,
            files_before=len(job.files),
            files_after=done.files_after,
            bytes_before=job.size_bytes,
            bytes_after=done.bytes_after,
            snapshot_id=replacement.snapshot_id,
        )
        return done

    def _failed(self, table_name: str, job: Job, problem: str) -> Done:
        self._log.warning("files_not_replaced", table=table_name, files=len(job.files), problem=problem)
        return Done(job, len(job.files), job.size_bytes, problem)

    def _rewriter(self, table_name: str) -> Rewriter:
        record_type: RecordType = {**MAIN_TABLES, **SIDE_TABLES}[table_name]
        return Rewriter(
            record_type,
            _order(record_type),
            self._settings,
            self._clock,
            row_group_rows=self._catalog.row_group_rows,
            scratch_dir=self._scratch_dir,
        )

    def _is_quiet(self, table: Table, members: Sequence[LiveFile], log_now_ns: int) -> bool:
        newest = _newest_log_ns(table, members)
        return newest is not None and log_now_ns - newest >= self._settings.quiet_minutes * NS_PER_MINUTE

    def _log_now_ns(self, table: Table, files: Sequence[LiveFile]) -> int:
        """Return the log's time: what the table has reached while it is written to, else the clock's.

        A table that works off a backlog has reached an earlier time than the clock's; its days are not quiet yet.
        """
        now = self._clock.time_ns()
        last_batch = max(
            (s.timestamp_ms for s in table.snapshots() if s.summary is not None and s.summary[BATCH_KEY]), default=0
        )
        busy = now - last_batch * NS_PER_MS < self._settings.quiet_minutes * NS_PER_MINUTE
        reached_ns = _newest_log_ns(table, files) if busy else None
        return now if reached_ns is None else min(now, reached_ns)


def _order(record_type: RecordType) -> tuple[str, ...]:
    if is_market_table(record_type):
        return SORT_COLUMNS
    names = {field.name for field in record_type.fields}
    return tuple(name for name in _COORDINATES if name in names) or (record_type.fields[0].name,)


def _paths(job: Job) -> frozenset[str]:
    return frozenset(file.path for file in job.files)


def _newest_log_ns(table: Table, files: Sequence[LiveFile]) -> int | None:
    """Return the highest `ts_log` in the files that came last, from their footers; None where none has that column."""
    newest = max((file.sequence_number for file in files), default=0)
    found = [_log_ns(table, file) for file in files if file.sequence_number == newest]
    return max((ns for ns in found if ns is not None), default=None)


def _log_ns(table: Table, file: LiveFile) -> int | None:
    with translated("reading a data file's footer", path=file.path), table.io.new_input(file.path).open() as stream:
        footer = pq.read_metadata(stream)
    if "ts_log" not in footer.schema.names:
        return None
    column = footer.schema.names.index("ts_log")
    values = [footer.row_group(number).column(column).statistics for number in range(footer.num_row_groups)]
    known = [value.max for value in values if value is not None and value.has_min_max]
    return int(max(known).timestamp() * 1_000) * NS_PER_MS if known else None
