"""What a batch holds of one partition, and which streams are left out of it for now."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import polars as pl

    from k2.storage.deferral import Predicate
    from k2.storage.seam import HaltedStream


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
    """What overload leaves out of the batch, or of those before it: what is missing there is no gap yet."""
    halts: tuple[HaltedStream, ...] = ()
    """Streams that are left out, each since its message; what others miss is a gap."""

    logged_us: int = 0
    """Log time that the batch reaches, with the records that are left out."""

    @property
    def left_out_since(self) -> list[int]:
        """Since which offsets something is left out."""
        return [halted.since for halted in self.halts] + ([] if self.deferring is None else [self.deferring.since])

    @property
    def pieces(self) -> list[tuple[int, int, int]]:
        """The batch, cut where a stream is halted: of each piece a stream is left out or is not.

        With each piece comes a log time that it reaches: rows that are left out show none. It decides all of a stream
        that may be decided before it is left out, since what was decided by then is not looked at again.
        """
        cuts = sorted({(each.since, each.since_us) for each in self.halts if self.start < each.since < self.end})
        edges = [(self.start, 0), *cuts, (self.end, self.logged_us if self.left_out_since else 0)]
        return [(low, high, until_us) for (low, _), (high, until_us) in itertools.pairwise(edges)]

    def held_at(self, offset: int) -> Callable[[str], bool]:
        """Return what says of a stream that its record of an offset would be left out."""
        halted = {symbol for halted in self.halts if halted.since <= offset for symbol in halted.symbols}
        if self.deferring is None or self.deferring.since > offset:
            return halted.__contains__ if halted else nobody
        holds = self.deferring.holds
        return (lambda symbol: symbol in halted or holds(symbol)) if halted else holds


def nobody(stream: str) -> bool:
    """Say of each stream that it is not left out."""
    del stream
    return False
