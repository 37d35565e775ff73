"""What can be asked about bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from k2.common.errors import QueryError
from k2.query.bars.interval import interval_ns

if TYPE_CHECKING:
    from k2.query.request import QueryRequest

Alignment = Literal["utc", "session"]
Prints = Literal["regular", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BarsRequest:
    """One question: the bars of a symbol's trades, which `trades` asks for.

    The range is moved back to the start of its first bar, never beyond its end. With `amendments` "raw" the bars are of
    the trades as first printed.
    """

    trades: QueryRequest
    interval: str = "1m"
    """From 1s to 1d."""
    align: Alignment = "utc"
    """Bars are counted from UTC midnight, or from the exchange's midnight and the edges of its sessions."""
    prints: Prints = "regular"
    """Which trades count: those that the exchange's rule calls regular, or all."""

    def __post_init__(self) -> None:
        asked = self.trades
        if asked.data_type != "trades":
            raise QueryError(f"expected bars of trades, found of {asked.data_type}")
        if asked.limit is not None or asked.after is not None or asked.columns is not None:
            raise QueryError("expected bars without limit, cursor and columns, found one: ask for a shorter range")
        if self.align not in ("utc", "session"):
            raise QueryError(f"expected align 'utc' or 'session', found {self.align!r}")
        if self.prints not in ("regular", "all"):
            raise QueryError(f"expected prints 'regular' or 'all', found {self.prints!r}")
        interval_ns(self.interval)

    @property
    def length_ns(self) -> int:
        """Length of a bar; the last one before the end of a day or session may be shorter."""
        return interval_ns(self.interval)
