"""What a batch holds of one partition, and which streams are left out of it for now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import polars as pl

    from k2.storage.deferral import Predicate


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a partition leaves out for now: from `since` on, the records of the symbols that it `holds`."""

    since: int
    predicate: Predicate
    holds: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class BatchPart:
    """What a batch holds of one partition: the rows of the offsets [start, end) that go into the table."""

    topic: str
    start: int
    end: int
    frames: Sequence[pl.DataFrame]
    deferring: LeftOut | None = None
    """What is left out of the batch, or of those before it: what is missing there is no gap yet."""
    logged_us: int = 0
    """Log time that the batch reaches, with the records that are left out."""

    @property
    def passed_us(self) -> int:
        """The log time by which the streams that are kept are decided, 0 where that of the rows is enough.

        A later batch may leave such a stream out as well. What is not decided by then has to wait until all is
        written, and is never decided where a successor's memory does not reach back that far.
        """
        return 0 if self.deferring is None else self.logged_us

    def held_at(self, offset: int) -> Callable[[str], bool]:
        """Return what says of a stream that its record of an offset would be left out."""
        if self.deferring is not None and self.deferring.since <= offset:
            return self.deferring.holds
        return nobody


def nobody(stream: str) -> bool:
    """Say of each stream that it is not left out."""
    del stream
    return False
