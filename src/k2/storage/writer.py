"""The fenced commit: writes data files once and appends them only where the table's seam equals the batch's start."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from k2.common.errors import FencedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

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


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit left: the snapshot that holds the batch, and the seam in it."""

    snapshot_id: int
    seam: Seam
    rows: int
    attempts: int
    found: bool
    """The batch was in the table already: an earlier attempt had landed without our knowing."""


class TableWriter:
    """Writes one main table. One thread uses one writer."""

    def __init__(self, tables: MarketTables, table_name: str, settings: CatalogSettings, clock: Clock) -> None:
        raise NotImplementedError

    def write_files(self, rows: pa.Table) -> tuple[WrittenFile, ...]:
        """Sort rows (all columns of the table) and write them, one file an exchange and UTC day, synced to disk."""
        raise NotImplementedError

    def commit(self, batch: Batch) -> Commit:
        """Append the batch where the fence allows it; safe to call again with the same batch after any error.

        Raises:
            SeamMovedError: another writer has moved the seam past the batch's start (a FencedError; it carries the head).
            LogIdentityError: the seam is below the batch's start (a hole), or a partition is not registered.
            AccountingError: the counts do not add up.
            UnavailableError: the outcome is still unknown after all attempts.
        """
        raise NotImplementedError
