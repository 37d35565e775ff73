"""The data files of a side table, which has no seam and so is not planned like a main table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2.storage.failures import translated
from k2.storage.file_io import local_path

if TYPE_CHECKING:
    from k2.storage.tables import MarketTables


def files_of_side_table(tables: MarketTables, table_name: str) -> list[str]:
    """Return the files of the newest snapshot: plain paths where they are local, URIs where they are not."""
    table = tables.latest(table_name)
    with translated(f"planning the table {table_name}", path=table_name):
        files = [task.file.file_path for task in table.scan().plan_files()]
    return [path if local_path(path) is None else str(local_path(path)) for path in files]
