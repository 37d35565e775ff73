"""Questions about a simulated market whose trades are cancelled and corrected, each checked against a plain replay."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from k2.common.units import NS_PER_MS
from k2.schemas.records import ORDER, Action
from k2.testing.plain_amendments import PlainAnswer, plain_answer
from k2.testing.simulated_market import LOGGED_AT_MS
from k2.testing.simulated_messages import TradeFields
from k2.testing.simulated_questions import SYMBOLS, TOPICS, SimulatedQuestions

if TYPE_CHECKING:
    from pathlib import Path

    from k2.query.request import Answer, QueryRequest

TIMES: Final = range(1_000, 1_050)
SHOWN: Final = (*ORDER, "action", "trading_date", "price", "trade_id", "ref_trade_id", "source_sequence")
_IDS: Final = tuple(f"T{number}" for number in range(14))
_COUNTED: Final = ("cancelled", "corrected", "originals_unknown")


class SimulatedAmendments(SimulatedQuestions):
    """One seeded run: amendments of any order, time and day; answers as now and as then known, whole and in pages."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.counted = dict.fromkeys(_COUNTED, 0)
        self.as_then_known = 0
        super().__init__(seed, directory)

    def begin_again(self) -> None:
        """Start the tail and the engine anew, at a time when all that was appended has come."""
        super().begin_again()
        self.hybrid.clock.advance(LOGGED_AT_MS / 1_000)

    def append(self) -> None:
        """Append trades with few different ids, and amendments of what may have come, comes later, or never."""
        item = self.random.choice(TOPICS)
        for _ in range(self.random.choice([1, 1, 5, 40])):
            trade = self._trade() if item.data_type == "trades" else self._quote()
            for _ in range(self.random.choice([1, 1, 1, 2])):
                self.market.append(item.name, self.random.choice(SYMBOLS[:2]), self.random.choice(TIMES), trade=trade)

    def _trade(self) -> TradeFields:
        action = self.random.choices([Action.NEW, Action.CANCEL, Action.CORRECT], [6, 1, 2])[0]
        named = None if action == Action.NEW else self.random.choice([None, *_IDS])
        own = self.random.choice([None, *_IDS] if action == Action.NEW else [None, named, *_IDS])
        price = self.random.randrange(1, 1_000)
        return TradeFields(action, own, named, day=self.random.choice([0, 0, 0, 1]), price=price)

    def _quote(self) -> TradeFields:
        return TradeFields(self.random.choices([Action.NEW, Action.CANCEL, Action.CORRECT], [20, 1, 1])[0])

    def request(self) -> QueryRequest:
        """Draw a question."""
        ends = [len(part.messages) for part in self.market.partitions.values()]
        known = LOGGED_AT_MS * NS_PER_MS + self.random.randrange(max(ends) * NS_PER_MS + 1)
        asked = super().request()
        return replace(
            asked,
            symbol=self.random.choice(SYMBOLS[:2]),
            deferred="read",
            amendments=self.random.choice(["applied", "applied", "applied", "raw"]),
            known_at_ns=self.random.choice([None, None, known]),
            limit=self.random.choice([None, None, 9, 40]),
            columns=self.random.choice([None, SHOWN if asked.data_type == "trades" else None]),
        )

    def seen(self, answer: Answer) -> list[tuple[Any, ...]]:
        """Return what is compared of an answer's rows."""
        names = [name for name in SHOWN if name in answer.table.column_names]
        return list(zip(*(answer.table[name].to_pylist() for name in names), strict=True))

    def replay(self, request: QueryRequest, ends: dict[tuple[int, int], int] | None = None) -> list[tuple[Any, ...]]:
        """Return the rows of the plain answer, as `seen` gives those of an answer."""
        return [tuple(row[name] for name in SHOWN if name in row) for row in self._plain(request, ends).rows]

    def check(self, request: QueryRequest, answer: Answer, expected: list[tuple[Any, ...]]) -> None:
        """See that an answer and the pages after it are the plain one, counts and all; keep the token."""
        self.asked += 1
        pages = [answer]
        while pages[-1].next_after is not None:
            assert pages[-1].table.num_rows == request.limit
            page = replace(request, as_of=answer.certificate.as_of, after=pages[-1].next_after)
            pages.append(self.hybrid.engine.query(page))
        certificates = [page.certificate for page in pages]
        ends = {(item.log_id, item.partition): item.end for item in answer.certificate.partitions}
        plain = self._plain(request, ends)
        counted = {name: sum(getattr(item, name) for item in certificates) for name in _COUNTED}
        assert [row for page in pages for row in self.seen(page)] == expected
        assert list(counted.values()) == [plain.cancelled, plain.corrected, plain.unknown]
        assert all(item.complete == (item.originals_unknown == 0) for item in certificates)
        assert all(item.rows_from_table + item.rows_from_log == item.rows for item in certificates)
        self.counted = {name: self.counted[name] + count for name, count in counted.items()}
        self.as_then_known += request.known_at_ns is not None
        self.removed += sum(item.duplicates_removed for item in certificates)
        self.tokens.append((replace(request, as_of=answer.certificate.as_of, limit=None), expected))

    def _plain(self, request: QueryRequest, ends: dict[tuple[int, int], int] | None) -> PlainAnswer:
        records = self.market.records(request.data_type, request.symbol, exchange=request.exchange, ends=ends)
        if request.known_at_ns is not None:
            cut = request.known_at_ns
            records = [row for row in records if int(row["ts_log"].timestamp() * 1_000) * NS_PER_MS < cut]
        start = -1 if request.start_ns is None else request.start_ns
        end = 10**9 if request.end_ns is None else request.end_ns
        in_range = sorted((row for row in records if start <= row["ts_event_ns"] < end), key=_order)
        return PlainAnswer(in_range) if request.amendments == "raw" else plain_answer(records, in_range)


def _order(row: dict[str, Any]) -> tuple[int, ...]:
    return tuple(row[name] for name in ORDER)
