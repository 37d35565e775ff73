"""Snapshot expiry beside the commits, so that they stay flat: metadata only, no data file is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k2.common.clock import Clock
    from k2.storage.settings import CatalogSettings
    from k2.storage.tables import MarketTables


class SnapshotExpiry:
    """Expires snapshots of some tables every `expire_every_commits` commits, in a thread of its own."""

    def __init__(self, tables: MarketTables, settings: CatalogSettings, clock: Clock) -> None:
        raise NotImplementedError

    def after_commit(self, table_name: str) -> None:
        """Count a commit; every so many, wake the thread. Returns at once."""
        raise NotImplementedError

    def expire(self, table_name: str) -> int:
        """Expire now, in the calling thread; return how many snapshots went (0 on a conflict: the next time does it)."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the thread."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop the thread, after the expiry at hand."""
        raise NotImplementedError
