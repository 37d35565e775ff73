"""Bars once more, trade by trade with fractions and the standard library's calendar: what the fast way must equal."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_DAY_NS = 86_400_000_000_000


@dataclass
class PlainBar:
    """The trades of one bar, in their order."""

    prices: list[Decimal] = field(default_factory=list)
    quantities: list[Decimal] = field(default_factory=list)

    def add(self, price: Decimal, quantity: Decimal) -> None:
        """Count one more trade."""
        self.prices.append(price)
        self.quantities.append(quantity)

    @property
    def values(self) -> tuple[Any, ...]:
        """Return open, high, low, close, volume, VWAP and the number of trades."""
        volume = sum(map(Fraction, self.quantities))
        value = sum(Fraction(price) * Fraction(each) for price, each in zip(self.prices, self.quantities, strict=True))
        vwap = None if volume == 0 else Decimal(round(value / volume * 10**12)).scaleb(-12)
        ends = self.prices[0], max(self.prices), min(self.prices), self.prices[-1]
        return *ends, Decimal(sum(self.quantities)), vwap, len(self.prices)


def plain_bars(trades: Iterable[Mapping[str, Any]], start_of: Callable[[int], int]) -> dict[int, tuple[Any, ...]]:
    """Return the values of each bar by its start; the trades are in their order."""
    bars: dict[int, PlainBar] = {}
    for trade in trades:
        bars.setdefault(start_of(trade["ts_event_ns"]), PlainBar()).add(trade["price"], trade["quantity"])
    return {start: bar.values for start, bar in sorted(bars.items())}


def utc_start(at_ns: int, length_ns: int) -> int:
    """Return the start of a bar counted from midnight in UTC."""
    midnight = at_ns - at_ns % _DAY_NS
    return midnight + (at_ns - midnight) // length_ns * length_ns


def session_start(at_ns: int, length_ns: int, zone: str, edges: Iterable[dt.time]) -> int:
    """Return the start of a bar counted from midnight or the last of the day's `edges`, on the clocks of a zone."""
    local = (_EPOCH + dt.timedelta(microseconds=at_ns // 1_000)).astimezone(ZoneInfo(zone))
    passed = [edge for edge in (dt.time(), *edges) if edge <= local.time()]
    begun = dt.datetime.combine(local.date(), max(passed), ZoneInfo(zone))
    origin = (begun - _EPOCH) // dt.timedelta(microseconds=1) * 1_000
    return origin + (at_ns - origin) // length_ns * length_ns
