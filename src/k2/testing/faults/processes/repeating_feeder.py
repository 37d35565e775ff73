"""Sends what duplicates and gaps are made of: repeats, conflicts, late and missing numbers, and records without one."""

from __future__ import annotations

from collections import Counter, deque
from decimal import Decimal
from typing import Any, Final

from k2.testing.faults.processes.feeder import SYMBOLS, Feeder, content_of
from k2.testing.messages import EVENT_NS, encode, trade

NUMBERED: Final = frozenset(SYMBOLS[::2])
"""Symbols whose messages have numbers; the others have trade ids only."""
_PER_SECOND: Final = 200
_REPEATED: Final = 0.3
_CONFLICTING: Final = 0.01
_MISSING: Final = 0.05
_LATE: Final = 0.02
_LATE_HELD: Final = 12
"""Late messages that wait at once: the more, the later each comes."""
_NS_APART: Final = 1_000_000


class RepeatingFeeder(Feeder):
    """Three messages of ten are an earlier one once more, as another feed of the venue brings it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # Any: those of Feeder
        super().__init__(*arguments, **{"per_second": _PER_SECOND} | options)
        self._earlier: list[dict[str, Any]] = []
        self._late: deque[dict[str, Any]] = deque()
        self._numbers: Counter[str] = Counter()

    def _message(self, number: int) -> tuple[bytes, bytes | None, str, str | None]:
        if self._earlier and self._draw.random() < _REPEATED:
            record = self._draw.choice(self._earlier)
        else:
            record = self._late.popleft() if len(self._late) > _LATE_HELD else self._new(number)
            self._earlier.append(record)
        brought = record | {"source_sequence": number, "ts_recv_ns": record["ts_recv_ns"] + number}
        value = encode(brought, schema_id=self._schema_id)
        return record["symbol"].encode(), value, record["trade_id"], content_of(record)

    def _new(self, number: int) -> dict[str, Any]:
        if self._earlier and self._draw.random() < _CONFLICTING:
            other = self._draw.choice(self._earlier)
            if other["sequence"] is not None:
                return other | {"trade_id": f"{self._topic}-{number}", "price": other["price"] + 1}
        symbol = self._draw.choice(SYMBOLS)
        if symbol not in NUMBERED:
            return self._record(number, symbol, None)
        if self._draw.random() < _MISSING:
            self._numbers[symbol] += 1
        if self._draw.random() < _LATE:
            self._late.append(self._record(number, symbol, self._next(symbol), late=True))
        return self._record(number, symbol, self._next(symbol))

    def _next(self, symbol: str) -> int:
        self._numbers[symbol] += 1
        return self._numbers[symbol]

    def _record(self, number: int, symbol: str, sequence: int | None, *, late: bool = False) -> dict[str, Any]:
        return trade(
            exchange=self._exchange,
            symbol=symbol,
            sequence=sequence,
            trade_id=f"{self._topic}-{number}{'-late' if late else ''}",
            ts_event_ns=EVENT_NS + number * _NS_APART,
            ts_recv_ns=EVENT_NS + number * _NS_APART,
            price=Decimal(self._draw.randrange(1, 10**9)).scaleb(-4),
            quantity=Decimal(self._draw.randrange(1, 10**6)),
            side=self._draw.choice([None, "BUY", "SELL"]),
        )
