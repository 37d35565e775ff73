"""Questions about the bars of a simulated market with amendments, each checked against bars made trade by trade."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from k2.common.units import NS_PER_MS
from k2.query.bars.request import BarsRequest
from k2.query.bars.rules import BarRule
from k2.schemas.records import ORDER, Action
from k2.testing.plain_amendments import PlainAnswer, plain_answer
from k2.testing.plain_bars import plain_bars, session_start, utc_start
from k2.testing.simulated_amendments import SimulatedAmendments
from k2.testing.simulated_questions import SYMBOLS, TOPICS

if TYPE_CHECKING:
    from k2.query.request import Answer, QueryRequest

_TICK_NS: Final = 300 * NS_PER_MS
_TICKS: Final = range(1_000, 1_050)
"""Trades lie between five minutes and a quarter of a minute more after midnight."""
_EDGE: Final = dt.time(0, 5, 6)
_CLOSE: Final = dt.time(0, 5, 11)
_CODES: Final = ("0", "2")
_RULE: Final = BarRule(sessions=((_EDGE, _CLOSE),), hours=((dt.time(), _CLOSE),), conditions=_CODES)
_SHAPES: Final = tuple(
    (interval, align, prints)
    for interval in ("1s", "4s", "1m", "1d")
    for align in ("utc", "session")
    for prints in ("regular", "all")
)
_LENGTHS_NS: Final = {"1s": 10**9, "4s": 4 * 10**9, "1m": 60 * 10**9, "1d": 86_400 * 10**9}
_VALUES: Final = ("open", "high", "low", "close", "volume", "vwap", "trade_count")


class SimulatedBars(SimulatedAmendments):
    """One seeded run."""

    bar_rules = {"asx": _RULE}  # noqa: RUF012 - read by the base, never changed

    def append(self) -> None:
        """Append trades of any size and condition, and amendments of them."""
        item = self.random.choice(TOPICS[:2])
        for _ in range(self.random.choice([1, 1, 5, 40])):
            conditions = self.random.choice([(), ("0",), ("0", "2"), ("7",), ("2", "7")])
            trade = replace(self._trade(), quantity=self.random.randrange(-3, 40), conditions=conditions)
            for _ in range(self.random.choice([1, 1, 1, 2])):
                at_ns = self.random.choice(_TICKS) * _TICK_NS
                self.market.append(item.name, self.random.choice(SYMBOLS[:2]), at_ns, trade=trade)

    def request(self) -> QueryRequest:
        """Draw a question about trades, whose bars are asked for."""
        asked = super().request()
        start, end = (None if at is None else at * _TICK_NS for at in (asked.start_ns, asked.end_ns))
        return replace(asked, data_type="trades", limit=None, columns=None, start_ns=start, end_ns=end)

    def answer(self, request: QueryRequest) -> Answer:
        """Ask for bars; which, follows from the range, so that a token asks for the same."""
        interval, align, prints = _shape(request)
        return self.hybrid.engine.bars(
            BarsRequest(trades=request, interval=interval, align=align, prints=prints)  # type: ignore[arg-type]  # drawn
        )

    def ask_again(self) -> None:
        """Ask with the token of an earlier answer: the same bars must come, to the last column."""
        if self.tokens:
            request, (expected,) = self.random.choice(self.tokens)
            assert self.answer(request).table.equals(expected)

    def seen(self, answer: Answer) -> list[tuple[Any, ...]]:
        """Return what is compared of an answer's bars."""
        names = ("bar_start_ns", "exchange", *_VALUES)
        return list(zip(*(answer.table[name].to_pylist() for name in names), strict=True))

    def replay(self, request: QueryRequest, ends: dict[tuple[int, int], int] | None = None) -> list[tuple[Any, ...]]:
        """Return the bars of the plain answer, as `seen` gives those of an answer."""
        _, _, prints = _shape(request)
        plain = self._plain(request, ends)
        found = []
        for exchange in ("asx", "sim"):
            rows = [row for row in plain.rows if row["exchange"] == exchange]
            if prints == "regular" and exchange == "asx":
                rows = [row for row in rows if _is_regular(row)]
            bars = plain_bars(rows, partial(_start, request, exchange))
            found += [(start, exchange, *values) for start, values in bars.items()]
        return sorted(found)

    def check(self, request: QueryRequest, answer: Answer, expected: list[tuple[Any, ...]]) -> None:
        """See that an answer is the plain one, counts and all; keep its token."""
        self.asked += 1
        certificate = answer.certificate
        ends = {(item.log_id, item.partition): item.end for item in certificate.partitions}
        plain = self._plain(request, ends)
        assert self.seen(answer) == expected
        counted = {name: getattr(certificate, name) for name in self.counted}
        if request.exchange is not None or request.start_ns is None:
            assert list(counted.values()) == [plain.cancelled, plain.corrected, plain.unknown]
        assert certificate.rows == sum(answer.table["trade_count"].to_pylist())
        assert certificate.rows_from_table + certificate.rows_from_log == certificate.rows
        self.counted = {name: self.counted[name] + count for name, count in counted.items()}
        self.as_then_known += request.known_at_ns is not None
        tables: list[Any] = [answer.table]
        if certificate.as_of is not None:
            self.tokens.append((replace(request, as_of=certificate.as_of), tables))

    def _plain(self, request: QueryRequest, ends: dict[tuple[int, int], int] | None) -> PlainAnswer:
        records = self.market.records("trades", request.symbol, exchange=request.exchange, ends=ends)
        if request.known_at_ns is not None:
            cut = request.known_at_ns
            records = [row for row in records if int(row["ts_log"].timestamp() * 1_000) * NS_PER_MS < cut]
        in_range = [row for row in records if _is_in_range(request, row)]
        in_range.sort(key=lambda row: tuple(row[name] for name in ORDER))
        if request.amendments == "raw":
            return PlainAnswer([row for row in in_range if row["action"] == Action.NEW])
        return plain_answer(records, in_range)


def _shape(request: QueryRequest) -> tuple[str, str, str]:
    drawn = ((request.start_ns or 0) + (request.end_ns or 0) * 3) // _TICK_NS
    return _SHAPES[drawn % len(_SHAPES)]


def _start(request: QueryRequest, exchange: str, at_ns: int) -> int:
    interval, align, _ = _shape(request)
    if align == "utc":
        return utc_start(at_ns, _LENGTHS_NS[interval])
    edges = (_EDGE, _CLOSE) if exchange == "asx" and interval != "1d" else ()
    return session_start(at_ns, _LENGTHS_NS[interval], "UTC", edges)


def _is_in_range(request: QueryRequest, row: dict[str, Any]) -> bool:
    at_ns = row["ts_event_ns"]
    begun = request.start_ns is None or at_ns >= _start(request, row["exchange"], request.start_ns)
    return begun and (request.end_ns is None or at_ns < request.end_ns)


def _is_regular(row: dict[str, Any]) -> bool:
    in_hours = (dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=row["ts_event_ns"] // 1_000)).time() < _CLOSE  # noqa: DTZ001 - UTC
    return in_hours and set(row["conditions"]) <= set(_CODES)
