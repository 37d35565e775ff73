"""Counts, for an audit, the gaps that the ledger knows: what became of each, by exchange."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import polars as pl

from k2.common.errors import K2Error
from k2.common.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class GapCounts:
    """The gaps in one exchange's numbers, as the ledger tells them. They are the venue's or the feed's, no defect."""

    exchange: str
    opened: int
    """All gaps that were opened; each of them is now filled, lost or open."""
    filled: int
    lost: int
    open: int
    missing: int
    """Numbers that have not come."""


class Gaps(Protocol):
    """Where the gaps are read."""

    def gaps(self) -> pl.DataFrame:
        """Return one row a gap."""
        ...


def counted_gaps(ledger: Gaps) -> tuple[GapCounts, ...] | None:
    """Return the counts by exchange; None where the ledger cannot be read, on which no record's fate depends."""
    try:
        gaps = ledger.gaps()
    except K2Error as error:
        log.warning("gaps_not_counted", error=str(error))
        return None
    state = {name: (pl.col("state") == name).sum() for name in ("filled", "lost", "open")}
    counted = gaps.group_by("exchange").agg(opened=pl.len(), **state, missing=pl.col("missing").sum()).sort("exchange")
    return tuple(GapCounts(*row) for row in counted.iter_rows())


def in_words(counts: Iterable[GapCounts] | None) -> list[str]:
    """Return one line an exchange."""
    if counts is None:
        return ["gaps in the venues' numbers: unknown, market.gaps cannot be read"]
    return [
        f"gaps in the numbers of {each.exchange}: {each.opened:,} opened, of these {each.filled:,} filled, "
        f"{each.lost:,} lost, {each.open:,} still open; {each.missing:,} numbers are missing"
        for each in counts
    ]
