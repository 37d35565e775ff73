"""Compares the coordinates of a window of offsets: what the log has, what is stored, what is a dead letter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from k2.common.errors import AccountingError
from k2.storage.deferral import check_lists

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from k2.kafka.ports import AssignedReader, TopicPartition
    from k2.storage.seam import PartitionSeam, Seam

    Numbers = NDArray[np.int64]


@dataclass(slots=True)
class Compared:
    """What comparing a partition's coordinates has come to."""

    rows: int = 0
    present: int = 0
    absent: int = 0
    doubled: int = 0
    not_in_log: int = 0
    distinct_rows: int = 0
    distinct_dead_letters: int = 0
    given_up: tuple[tuple[int, int], ...] = ()
    """Ranges [start, end) that somebody decided to leave out."""
    given_up_absent: int = 0

    def add(self, first: int, last: int, in_log: NDArray[np.bool_] | None, rows: Numbers, dead: Numbers) -> None:
        """Compare one window; `in_log` is None where the log has deleted it."""
        self.rows += len(rows)
        stored = np.bincount(rows - first, minlength=last - first)
        written = np.bincount(dead - first, minlength=last - first)
        both = stored + written
        self.doubled += int(np.maximum(both - 1, 0).sum())
        self.distinct_rows += int((stored > 0).sum())
        self.distinct_dead_letters += int((written > 0).sum())
        if in_log is not None:
            self.present += int(in_log.sum())
            absent = in_log & (both == 0)
            self.absent += int(absent.sum())
            for start, end in self.given_up:
                self.given_up_absent += int(absent[max(start - first, 0) : max(end - first, 0)].sum())
            self.not_in_log += int(both[~in_log].sum())

    def lost(self, seam: PartitionSeam) -> int:
        """Return the records lost: what the log shows, or, where it has been deleted, what the counters show.

        Rows that retention has removed are not lost.
        """
        counts = seam.counts
        by_log = self.absent - self.given_up_absent - counts.duplicates - counts.deferred - seam.removed_rows
        by_ledger = seam.rows_held - self.distinct_rows + counts.dead_letters - self.distinct_dead_letters
        return counts.lost + max(by_log, by_ledger, 0)


class LogWindow:
    """Reads a partition's offsets window by window; what a poll gives beyond a window is kept for the next."""

    def __init__(
        self, reader: AssignedReader, key: TopicPartition, poll: Callable[[AssignedReader], list[int]]
    ) -> None:
        self._reader = reader
        self._key = key
        self._poll = poll
        self._ahead: list[int] = []

    def present(self, first: int, last: int) -> NDArray[np.bool_]:
        """Return for each offset of [first, last) whether the log has a record there; windows follow on one another."""
        found = np.zeros(last - first, dtype=np.bool_)
        offsets = self._ahead
        while True:
            here = np.array([offset for offset in offsets if offset < last], dtype=np.int64)
            found[here - first] = True
            self._ahead = [offset for offset in offsets if offset >= last]
            if self._ahead or self._reader.position(*self._key) >= last:
                return found
            offsets = self._poll(self._reader)


def list_problems(table: str, seam: Seam) -> Iterator[str]:
    """Tell of deferred lists that do not hold as many records as the counters say, or are out of order."""
    try:
        check_lists(seam)
    except AccountingError as error:
        yield f"market.{table}: {error}"
