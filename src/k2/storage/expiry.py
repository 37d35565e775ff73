"""Snapshot expiry beside the commits, so that they stay flat: metadata only, no data file is touched."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table.update import RemoveSnapshotRefUpdate, RemoveSnapshotsUpdate

from k2.common.errors import K2Error
from k2.common.logging import get_logger
from k2.common.units import NS_PER_MS
from k2.storage.failures import translated
from k2.storage.named_snapshots import tags_of
from k2.storage.snapshots import swap

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.update import TableUpdate

    from k2.common.clock import Clock
    from k2.storage.settings import CatalogSettings
    from k2.storage.tables import MarketTables


class SnapshotExpiry:
    """Expires snapshots of some tables every `expire_every_commits` commits, in a thread of its own."""

    def __init__(self, tables: MarketTables, settings: CatalogSettings, clock: Clock) -> None:
        self._tables = tables
        self._settings = settings
        self._clock = clock
        self._log = get_logger(__name__)
        self._changed = threading.Condition()
        self._commits: dict[str, int] = {}
        self._due: set[str] = set()
        self._stopping = False
        self._busy = False
        self._thread: threading.Thread | None = None

    def after_commit(self, table_name: str) -> None:
        """Count a commit; every so many, wake the thread. Returns at once."""
        with self._changed:
            commits = self._commits.get(table_name, 0) + 1
            self._commits[table_name] = commits % self._settings.expire_every_commits
            if commits == self._settings.expire_every_commits:
                self._due.add(table_name)
                self._changed.notify_all()

    def expire(self, table_name: str) -> int:
        """Expire now, in the calling thread; return how many snapshots went.

        0 where a commit was faster: the next expiry finds the same snapshots. The head stays, and with it the seam.
        """
        table = self._tables.load(table_name)
        gone, over = self._expirable(table), self._tags_over(table)
        if not gone and not over:
            return 0
        updates: list[TableUpdate] = [RemoveSnapshotRefUpdate(ref_name=name) for name in over]
        updates += [RemoveSnapshotsUpdate(snapshot_ids=gone)] if gone else []
        try:
            with translated(f"expiring {len(gone)} snapshots of {table_name}"):
                swap(table, tuple(updates))
        except K2Error as error:
            if isinstance(error.__cause__, CommitFailedException):
                return 0
            raise
        self._log.info("snapshots_expired", table=table_name, expired=len(gone), tags_over=over)
        return len(gone)

    def expirable(self, table_name: str) -> int:
        """Return how many snapshots an expiry would take now."""
        return len(self._expirable(self._tables.load(table_name)))

    def start(self) -> None:
        """Start the thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="snapshot-expiry", daemon=True)
            self._thread.start()

    def wait_idle(self, timeout_seconds: float) -> bool:
        """Wait until nothing is due; say whether that came about in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._due and not self._busy, timeout_seconds)

    def stop(self) -> None:
        """Stop the thread, after the expiry at hand."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._due or self._stopping)
                if self._stopping:
                    return
                table_name = self._due.pop()
                self._busy = True
            self._expire_in_time(table_name)
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _expire_in_time(self, table_name: str) -> None:
        """Try a few times, since commits come between; what is left waits for the next round."""
        for _ in range(self._settings.commit_attempts_max):
            try:
                if self.expire(table_name):
                    return
            except K2Error as error:  # upkeep never stops the writer: it is tried again after the next commits
                self._log.warning("snapshot_expiry_failed", table=table_name, error=str(error))
                return

    def _expirable(self, table: Table) -> list[int]:
        """Return the snapshots that may go: beyond the newest few, and old enough or too many."""
        head = table.current_snapshot()
        newest_first = sorted(table.snapshots(), key=lambda snapshot: snapshot.sequence_number or 0, reverse=True)
        limit_ms = (self._clock.time_ns() - int(self._settings.snapshot_age_min_seconds * 1e9)) // NS_PER_MS
        over = self._tags_over(table)
        protected = {each.snapshot_id for name, each in table.metadata.refs.items() if name not in over}
        return [
            snapshot.snapshot_id
            for position, snapshot in enumerate(newest_first)
            if position >= self._settings.snapshots_kept_min
            and (snapshot.timestamp_ms < limit_ms or position >= self._settings.snapshots_kept_max)
            and snapshot is not head
            and snapshot.snapshot_id not in protected
        ]

    def _tags_over(self, table: Table) -> list[str]:
        """Return the tags that were to be kept for a time which is over."""
        now_ns = self._clock.time_ns()
        return [tag.name for tag in tags_of(table) if tag.until_ns is not None and tag.until_ns <= now_ns]
