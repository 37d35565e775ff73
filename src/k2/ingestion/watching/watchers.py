"""What may look at each committed batch: statistics that decide nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from k2.common.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from k2.ingestion.duplicates.deduplicator import Part
    from k2.storage.seam import LogPartition

log = get_logger(__name__)


class BatchWatcher(Protocol):
    """Is shown every batch of every table once it is committed, by the writer's thread."""

    def committed(self, table: str, parts: Mapping[LogPartition, Part]) -> None:
        """Look at a batch's records, duplicates among them, by partition in the order of their offsets."""
        ...

    def skipped(self, table: str) -> None:
        """Take note that a batch of a table was not shown, in whole or in part: under overload none is."""
        ...


def show(watchers: Iterable[BatchWatcher], table: str, parts: Mapping[LogPartition, Part]) -> None:
    """Show a batch to each; one that fails is told of, and the batch stays committed."""
    for watcher in watchers:
        try:
            watcher.committed(table, parts)
        except Exception:  # a statistic, whatever is wrong with it, must not hold records up
            log.exception("watcher_failed", table=table, watcher=type(watcher).__name__)


def skip(watchers: Iterable[BatchWatcher], table: str) -> None:
    """Tell each that a batch is not shown."""
    for watcher in watchers:
        try:
            watcher.skipped(table)
        except Exception:  # as in `show`
            log.exception("watcher_failed", table=table, watcher=type(watcher).__name__)
