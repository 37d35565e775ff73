"""The commit of a backfill: rows of a deferred range, below the seam, with a sequence of their own; no offset moves."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from k2.common.crash_points import reached
from k2.common.errors import AccountingError
from k2.schemas.records import WrittenBy
from k2.storage.data_files import DataFileWriter
from k2.storage.deferral import Deferral
from k2.storage.retries import until_known
from k2.storage.seam import BATCH_KEY, SUMMARY_KEY
from k2.storage.snapshots import append
from k2.storage.tables import MAIN_TABLES, head_of, new_schema_properties
from k2.storage.writer import Commit, find_batch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyiceberg.table import Table

    from k2.common.clock import Clock
    from k2.storage.data_files import WrittenFile
    from k2.storage.deferral import Backfill
    from k2.storage.seam import LogPartition, Seam
    from k2.storage.settings import CatalogSettings
    from k2.storage.tables import MarketTables


@dataclass(frozen=True, slots=True)
class BackfilledRange:
    """What was found of a deferred range: the rows to store, with all columns but the commit's, and what to count."""

    key: LogPartition
    backfill: Backfill
    rows: pl.DataFrame
    new_schemas: Mapping[int, str] = field(default_factory=dict)

    def seam_after(self, seam: Seam) -> Seam:
        """Return the seam of the head once the range is in.

        Raises:
            FencedError: the first entry of the partition is another by now; take the list from the head, begin again.
            AccountingError: the rows are not those counted, or not as many records were found as were deferred.
        """
        if self.rows.height != self.backfill.found.rows:
            raise AccountingError(
                f"expected {self.backfill.found.rows} rows of [{self.backfill.start}, {self.backfill.end}) of log "
                f"{self.key.log_id} partition {self.key.partition}, found {self.rows.height}: nothing was committed"
            )
        return Deferral(backfill=(self.key, self.backfill)).seam_after(seam, {})

    def stored_rows(self, seam: Seam) -> pl.DataFrame:
        """Return the rows as the commit that leads to `seam` stores them."""
        sequence = pl.lit(seam.commit_sequence, pl.Int64)
        return self.rows.with_columns(commit_sequence=sequence, written_by=pl.lit(WrittenBy.BACKFILL))


class BackfillWriter:
    """Writes deferred ranges into one main table. One thread uses one writer."""

    def __init__(self, tables: MarketTables, table_name: str, settings: CatalogSettings, clock: Clock) -> None:
        self._tables = tables
        self._name = table_name
        self._settings = settings
        self._clock = clock
        self._files = DataFileWriter(MAIN_TABLES[table_name], clock, row_group_rows=settings.row_group_rows)

    def commit(self, found: BackfilledRange) -> Commit:
        """Store the range where the head's list still begins with it.

        Files are written for one head and no other: with a lower sequence, a token older than the commit shows them.

        Raises:
            FencedError, AccountingError: as `BackfilledRange.seam_after` does.
            UnavailableError: the outcome is still unknown after all attempts: the head's list tells, begin again.
        """
        return until_known(
            partial(self._attempt, found, f"backfill-{uuid.uuid4()}"),
            self._settings,
            self._clock,
            doing=f"committing the backfill of [{found.backfill.start}, {found.backfill.end}) to {self._name}",
            advice="begin again from the head's deferred list",
        )

    def _attempt(self, found: BackfilledRange, batch_id: str, attempt: int) -> Commit:
        table = self._tables.load(self._name)
        head = head_of(table)
        landed = find_batch(table, batch_id)
        if landed is not None:
            return Commit(landed, head.seam, found.rows.height, attempt, found=True)
        seam = found.seam_after(head.seam)
        files = self._write(table, found, seam)
        reached("before_backfill")
        snapshot_id = append(
            table,
            files=[file.data_file for file in files],
            summary={SUMMARY_KEY: seam.to_json(), BATCH_KEY: batch_id},
            properties=new_schema_properties(head, found.new_schemas),
            merge_count=self._settings.manifests_merge_count,
        )
        reached("after_backfill")
        return Commit(snapshot_id, seam, found.rows.height, attempt, found=False)

    def _write(self, table: Table, found: BackfilledRange, seam: Seam) -> tuple[WrittenFile, ...]:
        files = self._files.write(table, found.stored_rows(seam))
        written = sum(file.rows for file in files)
        if written != found.rows.height:
            raise AccountingError(f"expected {found.rows.height} backfilled rows, the files' footers say {written}")
        return files
