"""The bars of one stream that have become final: of all its symbols up to one time, each bar once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow.compute as pc

from k2.api.formats import table_lines
from k2.api.weights import Weight, weight_of
from k2.common.units import NS_PER_DAY, NS_PER_SECOND
from k2.query.bars.finishing import FINAL
from k2.query.bars.interval import interval_ns
from k2.query.bars.request import BarsRequest
from k2.query.request import QueryRequest

if TYPE_CHECKING:
    from k2.api.asking import Asking
    from k2.api.streams.subscription import StreamRequest

_BARS_MIN: Final = 500
_BARS_MAX: Final = 10_000
"""Bars of a symbol that are asked for at a time: more, step by step, while there are none."""
_RETRY_SECONDS: Final = 1.0
"""Pause where a bar is over, and some of its trades are in no table yet."""


class FinalBars:
    """Asks the engine for bars once they can be final; `read` blocks, and gives the time up to which it has come."""

    def __init__(self, request: StreamRequest, interval: str, asking: Asking) -> None:
        self._request = request
        self._interval = interval
        self._length_ns = interval_ns(interval)
        self._asking = asking
        self._bars = _BARS_MIN
        self._not_before = 0.0

    def begin_ns(self, at_ns: int | None) -> int:
        """Return the start of the bar that holds a time; None stands for now."""
        return self._floor(self._asking.clock.time_ns() if at_ns is None else at_ns)

    def seconds_until_due(self, from_ns: int) -> float:
        """Return how long it takes until the bar that begins at a time can be final."""
        clock = self._asking.clock
        end_ns = min(from_ns + self._length_ns, self._day(from_ns) + NS_PER_DAY)
        left_ns = end_ns + self._asking.engine.bar_settle_ns - clock.time_ns()
        return max(0.0, left_ns / NS_PER_SECOND, self._not_before - clock.monotonic())

    def weight(self, from_ns: int) -> Weight:
        """Return the weight of what `read` would ask."""
        asked = self._asked(self._request.symbols[0], from_ns, self._end_ns(from_ns))
        return weight_of(asked, self._asking.settings, self._asking.clock.time_ns())

    def read(self, from_ns: int) -> tuple[list[bytes], int]:
        """Return the bars from a time on that are final, each as JSON, and the time up to which no other will come."""
        end_ns = self._end_ns(from_ns)
        if end_ns <= from_ns:
            return [], from_ns
        tables = []
        for symbol in self._request.symbols:
            asked = BarsRequest(trades=self._asked(symbol, from_ns, end_ns), interval=self._interval)
            tables.append(self._asking.engine.bars(asked).table)
        open_ns = [
            pc.min(table.filter(pc.not_equal(table["state"], FINAL))["bar_start_ns"]).as_py() for table in tables
        ]
        reached_ns = min((at for at in open_ns if at is not None), default=end_ns)
        if reached_ns < end_ns:
            self._not_before = self._asking.clock.monotonic() + _RETRY_SECONDS
        lines = [
            line for table in tables for line in table_lines(table.filter(pc.less(table["bar_start_ns"], reached_ns)))
        ]
        self._bars = _BARS_MIN if lines else min(2 * self._bars, _BARS_MAX)
        return lines, reached_ns

    def _asked(self, symbol: str, from_ns: int, end_ns: int) -> QueryRequest:
        return QueryRequest(
            data_type="trades",
            symbol=symbol,
            exchange=self._request.exchange,
            start_ns=from_ns,
            end_ns=max(end_ns, from_ns + 1),
            deferred="read",
        )

    def _end_ns(self, from_ns: int) -> int:
        """Return the end of the bars to ask for: none of them can change any more but by late trades."""
        settled_ns = self._asking.clock.time_ns() - self._asking.engine.bar_settle_ns
        return self._floor(min(settled_ns, from_ns + self._bars * self._length_ns))

    def _floor(self, at_ns: int) -> int:
        day_ns = self._day(at_ns)
        return day_ns + (at_ns - day_ns) // self._length_ns * self._length_ns

    @staticmethod
    def _day(at_ns: int) -> int:
        return at_ns // NS_PER_DAY * NS_PER_DAY
