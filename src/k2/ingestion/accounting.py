"""The ledger of one batch: every record consumed is a row, a duplicate, a dead letter, deferred or lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2.common.errors import AccountingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k2.storage.seam import LogPartition, PartitionDelta


def check_ledger(table: str, deltas: Mapping[LogPartition, PartitionDelta], *, rows_in_files: int) -> None:
    """Compare what the consumer counted with what the files' footers hold, and each partition's sums.

    Raises:
        AccountingError: a record is unaccounted for, or a row is in no file; the text gives the figures.
    """
    for key, delta in deltas.items():
        counts, unaccounted = delta.counts, delta.counts.unaccounted
        if unaccounted:
            raise AccountingError(
                f"{table}, log {key.log_id} partition {key.partition}, offsets {delta.start:,} to {delta.end - 1:,}: "
                f"consumed {counts.consumed:,}, but rows {counts.rows:,} + duplicates {counts.duplicates:,} + dead "
                f"letters {counts.dead_letters:,} + deferred {counts.deferred:,} + lost {counts.lost:,} leave "
                f"{unaccounted:,} unaccounted for; nothing was committed"
            )
        if counts.consumed > delta.end - delta.start:
            raise AccountingError(
                f"{table}, log {key.log_id} partition {key.partition}: consumed {counts.consumed:,} records from the "
                f"{delta.end - delta.start:,} offsets {delta.start:,} to {delta.end - 1:,}; nothing was committed"
            )
    rows = sum(delta.counts.rows for delta in deltas.values())
    if rows != rows_in_files:
        raise AccountingError(
            f"{table}: {rows:,} rows were decoded, but the footers of the files written hold {rows_in_files:,}; "
            "nothing was committed"
        )
