"""Planning: which data files of a pinned snapshot can hold the rows asked for; each manifest is read once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k2.storage.settings import CatalogSettings
    from k2.storage.tables import MarketTables, TableHead


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One data file to read. `path` is a plain path for local files, a URI for others."""

    path: str
    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PinnedSnapshot:
    """One snapshot of a table, with the seam that cuts it; commits and expiry do not change what it holds."""

    head: TableHead
    files_key: int
    """Key of the planner's own cache."""


class Planner:
    """Plans scans of the main tables. Safe to share between threads."""

    def __init__(self, tables: MarketTables, settings: CatalogSettings) -> None:
        raise NotImplementedError

    def pin(self, table_name: str) -> PinnedSnapshot:
        """Pin the newest snapshot; reads only manifests that were not read before."""
        raise NotImplementedError

    def plan(
        self,
        pinned: PinnedSnapshot,
        *,
        exchange: str | None = None,
        symbol: str | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> tuple[PlannedFile, ...]:
        """Return the files that can hold rows with ts_event_ns in [start_ns, end_ns) of the exchange and symbol."""
        raise NotImplementedError
