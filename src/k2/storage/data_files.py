"""Data files: sorted Parquet, one an exchange and day, written once, synced, counted from its own footer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """One data file on disk, not yet part of a table. `rows` is read back from the footer."""

    path: str
    rows: int
    size_bytes: int
    written_at_ns: int
    data_file: DataFile
