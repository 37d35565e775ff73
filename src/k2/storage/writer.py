"""The fenced commit: writes data files once and appends them only where the table's seam equals the batch's start."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from k2.common.crash_points import reached
from k2.common.errors import AccountingError, FencedError, LogIdentityError
from k2.common.units import NS_PER_HOUR
from k2.storage.data_files import DataFileWriter
from k2.storage.deferral import Deferral
from k2.storage.retries import until_known
from k2.storage.seam import BATCH_KEY, SUMMARY_KEY
from k2.storage.snapshots import append
from k2.storage.tables import MAIN_TABLES, TIERS_PREFIX, head_of, new_schema_properties

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl
    import pyarrow as pa
    from pyiceberg.table import Table

    from k2.common.clock import Clock
    from k2.storage.data_files import WrittenFile
    from k2.storage.seam import LogPartition, PartitionDelta, Seam
    from k2.storage.settings import CatalogSettings
    from k2.storage.tables import MarketTables, TableHead


class SeamMovedError(FencedError):
    """The head's seam is past the batch's start; `head` is the one to seek to."""

    def __init__(self, message: str, *, head: TableHead) -> None:
        super().__init__(message)
        self.head = head


@dataclass(frozen=True, slots=True)
class Batch:
    """What one commit adds: it covers [start, end) of each partition in `deltas`.

    `new_schemas` are the schema texts met for the first time in this batch, by schema id.
    """

    batch_id: str
    deltas: Mapping[LogPartition, PartitionDelta]
    files: tuple[WrittenFile, ...] = ()
    new_schemas: Mapping[int, str] = field(default_factory=dict)
    created_at_ns: int = 0
    deferral: Deferral = field(default_factory=Deferral)

    @property
    def rows(self) -> int:
        """Rows in the files, from their footers."""
        return sum(file.rows for file in self.files)

    def seam_after(self, seam: Seam) -> Seam:
        """Return the seam of the head once the batch is in; FencedError, AccountingError as `Deferral` raises them."""
        return self.deferral.seam_after(seam, self.deltas)


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit left: the snapshot that holds the batch, and the seam of the head (at or after that snapshot)."""

    snapshot_id: int
    seam: Seam
    rows: int
    attempts: int
    found: bool
    """The batch was in the table already: an earlier attempt had landed without our knowing."""


class TableWriter:
    """Writes one main table. One thread uses one writer."""

    def __init__(self, tables: MarketTables, table_name: str, settings: CatalogSettings, clock: Clock) -> None:
        self._tables = tables
        self._name = table_name
        self._settings = settings
        self._clock = clock
        self._files = DataFileWriter(MAIN_TABLES[table_name], clock, row_group_rows=settings.row_group_rows)

    def write_files(self, rows: pa.Table | pl.DataFrame) -> tuple[WrittenFile, ...]:
        """Sort rows (all columns of the table) and write them, one file an exchange and UTC day, synced to disk."""
        return self._files.write(self._tables.latest(self._name), rows)

    def commit(self, batch: Batch) -> Commit:
        """Append the batch where the fence allows it; safe to call again with the same batch after any error.

        Raises:
            SeamMovedError: another writer has moved the seam past the batch's start; carries the head.
            LogIdentityError: the seam is below the batch's start (a hole), or a partition is not registered.
            FencedError: a deferred list of the head is not the one that the batch was sorted by.
            AccountingError: the counts do not add up.
            UnavailableError: the outcome is still unknown after all attempts.
        """
        check_accounts(batch)
        return until_known(
            lambda attempt: self._attempt(batch, attempt),
            self._settings,
            self._clock,
            doing=f"committing batch {batch.batch_id} to {self._name}",
            advice="commit the same batch again",
        )

    def _attempt(self, batch: Batch, attempt: int) -> Commit:
        table = self._tables.load(self._name)
        head = head_of(table)
        landed = find_batch(table, batch.batch_id)
        if landed is not None:
            return Commit(landed, head.seam, batch.rows, attempt, found=True)
        check_fence(head, batch)
        seam = batch.seam_after(head.seam)
        files = [self._fresh(table, file).data_file for file in batch.files]
        reached("before_commit")
        snapshot_id = append(
            table,
            files=files,
            summary={SUMMARY_KEY: seam.to_json(), BATCH_KEY: batch.batch_id},
            properties=_new_properties(head, batch),
            merge_count=self._settings.manifests_merge_count,
        )
        reached("after_commit")
        return Commit(snapshot_id, seam, batch.rows, attempt, found=False)

    def _fresh(self, table: Table, file: WrittenFile) -> WrittenFile:
        age_hours = (self._clock.time_ns() - file.written_at_ns) / NS_PER_HOUR
        return file if age_hours <= self._settings.file_age_max_hours else self._files.write_again(table, file)


def check_accounts(batch: Batch) -> None:
    """Refuse a batch whose numbers do not add up: consumed (from the consumer) against rows (from the footers)."""
    for key, delta in batch.deltas.items():
        if delta.start > delta.end:
            raise AccountingError(f"expected start <= end in {key}, found [{delta.start}, {delta.end})")
        if delta.counts.unaccounted:
            raise AccountingError(
                f"{delta.counts.unaccounted} records of log {key.log_id} partition {key.partition} in [{delta.start}, "
                f"{delta.end}) are unaccounted for: {delta.counts}"
            )
    claimed = sum(delta.counts.rows for delta in batch.deltas.values()) + batch.deferral.rows
    if claimed != batch.rows:
        raise AccountingError(
            f"batch {batch.batch_id}: expected {claimed} rows by the partitions' counts, the footers say {batch.rows}"
        )


def _new_properties(head: TableHead, batch: Batch) -> dict[str, str]:
    tiers = {
        f"{TIERS_PREFIX}{key}": text for key, text in batch.deferral.tier_maps.items() if key not in head.tier_maps
    }
    return new_schema_properties(head, batch.new_schemas) | tiers


def find_batch(table: Table, batch_id: str) -> int | None:
    """Return the snapshot id of the commit with this batch id, looking as far back as snapshots are kept.

    Where expiry has taken that snapshot, the fence refuses the batch instead: either way it is in the table once.
    """
    snapshot = table.current_snapshot()
    while snapshot is not None:
        summary = {} if snapshot.summary is None else snapshot.summary.additional_properties
        if summary.get(BATCH_KEY) == batch_id:
            return snapshot.snapshot_id
        parent = snapshot.parent_snapshot_id
        snapshot = None if parent is None else table.snapshot_by_id(parent)
    return None


def check_fence(head: TableHead, batch: Batch) -> None:
    """Allow the batch only where the seam equals its start in each of its partitions."""
    ahead = []
    for key, delta in batch.deltas.items():
        found = head.seam.next_offset(key)
        where = f"log {key.log_id} partition {key.partition} of {head.table_name}"
        if found is None:
            raise LogIdentityError(
                f"expected {where} to be registered, found no entry in the seam: register the log first"
            )
        if found < delta.start:
            raise LogIdentityError(
                f"the seam of {where} is {found}, the batch begins at {delta.start}: committing it would leave out "
                f"{delta.start - found} offsets; seek to {found} and read again"
            )
        if found > delta.start:
            ahead.append(f"{where}: the seam is {found}, the batch begins at {delta.start}")
    if ahead:
        raise SeamMovedError(f"another writer was here first; drop the batch and seek. {'; '.join(ahead)}", head=head)
