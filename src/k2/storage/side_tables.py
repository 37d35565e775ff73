"""The data files of a side table, which has no seam and so is not planned like a main table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2.storage.failures import translated
from k2.storage.file_checks import require_as_written
from k2.storage.planning import planned_file

if TYPE_CHECKING:
    from pyiceberg.expressions import BooleanExpression
    from pyiceberg.table import DataScan, Table

    from k2.storage.planning import PlannedFile
    from k2.storage.tables import MarketTables


def files_of_side_table(tables: MarketTables, table_name: str) -> list[PlannedFile]:
    """Return the files of the newest snapshot."""
    table = tables.latest(table_name)
    with translated(f"planning the table {table_name}", path=table_name):
        return [planned_file(task.file) for task in table.scan().plan_files()]


def intact_scan(table: Table, within: str | BooleanExpression, columns: tuple[str, ...]) -> DataScan:
    """Return a scan whose files were all seen to be what was written.

    Raises:
        CorruptionError: one is not; it is named.
    """
    scan = table.scan(within, selected_fields=columns)
    for task in scan.plan_files():
        require_as_written(table.io, task.file)
    return scan
