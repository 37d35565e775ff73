"""A hybrid engine over a simulated market, asked at any moment: each answer must equal a plain replay of the log."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from k2.common.degradation import Priority
from k2.query.request import Answer, QueryRequest
from k2.schemas.records import ORDER
from k2.testing.deferring_market import DeferringMarket
from k2.testing.simulated_hybrid import SETTINGS, simulated_hybrid, topic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from k2.query.bars.rules import BarRule
    from k2.query.certificate import Deferred

SYMBOLS: Final = ("BHP", "CBA", "NAB", "ANZ")
TOPICS: Final = (topic("asx"), topic("sim", partitions=3), topic("asx", "quotes"))
STEPS: Final = 120
_CONTROL: Final = 0.05
_BAD: Final = 0.05
_IDENTIFIED = 0.4


class SimulatedQuestions:
    """One seeded run: what happens is drawn, and every question is checked against the replay."""

    bar_rules: Mapping[str, BarRule] | None = None

    def __init__(self, seed: int, directory: Path) -> None:
        self.random = random.Random(seed)  # noqa: S311 a simulation must be repeatable
        self.directory = directory
        self.market = DeferringMarket(directory, TOPICS)
        for item in TOPICS:
            self.market.register(item.name)
        self.tokens: list[tuple[QueryRequest, list[tuple[Any, ...]]]] = []
        self.asked = 0
        self.removed = 0
        self.marked = 0
        self.read_while_deferred = 0
        self.begin_again()

    def begin_again(self) -> None:
        """Start the tail and the engine anew, sometimes with room for a few rows only, so that the tail is outrun."""
        room = self.random.choice([SETTINGS.tail_bytes_max, 4_000, 1])
        settings = SETTINGS.model_copy(
            update={"tail_bytes_max": room, "tail_chunk_rows": self.random.choice([8, 65_536])}
        )
        self.hybrid = simulated_hybrid(
            self.market,
            self.directory,
            settings=settings,
            most=lambda: self.random.choice([0, 1, 3, 50]),
            bar_rules=self.bar_rules,
        )

    def step(self) -> None:
        """Let one thing happen."""
        what = self.random.choices(
            ["append", "commit", "backfill", "tail", "ask", "ask_again", "ask_while_it_moves", "restart"],
            [8, 4, 2, 5, 5, 2, 2, 0.3],
        )[0]
        getattr(self, what)()

    def append(self) -> None:
        """Append records, now and then a bad one or a control record."""
        item = self.random.choice(TOPICS)
        for _ in range(self.random.choice([1, 1, 5, 40])):
            drawn = self.random.random()
            if drawn < _CONTROL:
                self.market.append_control(item.name, self.random.randrange(item.partitions))
            elif drawn < _CONTROL + _BAD:
                self.market.append_bad(item.name, self.random.choice(SYMBOLS))
            elif drawn < _IDENTIFIED:
                time = self.random.randrange(1_000, 1_050)
                identity = time + self.random.choice([0, 0, 0, 1])  # the same number at two times: a conflict
                self.market.append(item.name, self.random.choice(SYMBOLS), time, identity=identity)
            else:
                self.market.append(item.name, self.random.choice(SYMBOLS), self.random.randrange(1_000, 1_050))

    def commit(self) -> None:
        """Let the tables take some of what the log holds, and defer some of it under overload."""
        item = self.random.choice(TOPICS)
        records = self.random.choice([1, 7, None])
        level = self.random.choice([None, None, Priority.LOW, Priority.NORMAL, Priority.HIGH])
        self.market.commit(item.name, self.random.randrange(item.partitions), records, deferred_from=level)

    def backfill(self) -> None:
        """Write some of what was deferred."""
        item = self.random.choice(TOPICS)
        for _ in range(self.random.choice([1, 3])):
            self.market.backfill(item.name, self.random.randrange(item.partitions), self.random.choice([1, 9, None]))

    def tail(self) -> None:
        """Let the tail do one round."""
        self.hybrid.tail.step()

    def restart(self) -> None:
        """Stop the tail and the engine, and start them anew."""
        self.hybrid.close()
        self.begin_again()

    def request(self) -> QueryRequest:
        """Draw a question."""
        start, end = sorted(self.random.sample(range(995, 1_055), 2))
        return QueryRequest(
            data_type=self.random.choice(["trades", "trades", "quotes"]),
            symbol=self.random.choice(SYMBOLS),
            exchange=self.random.choice([None, "asx"]),
            start_ns=self.random.choice([None, start]),
            end_ns=self.random.choice([None, end]),
            deferred=self.random.choice(["mark", "read", "read"]),
        )

    def answer(self, request: QueryRequest) -> Answer:
        """Ask the engine."""
        return self.hybrid.engine.query(request)

    def ask(self) -> None:
        """Ask, and compare with a replay of the log as it is."""
        request = self.request()

        answer = self.answer(request)

        self.check(request, answer, self.replay(request))

    def ask_while_it_moves(self) -> None:
        """Ask while records arrive, are committed and read between the steps of the answer: its own ends count."""
        request = self.request()
        log_side: Any = self.hybrid.engine._log  # noqa: SLF001 the only place between the ends and the reading
        read = log_side.read

        def read_late(*arguments: Any) -> Any:  # Any: handed through
            for _ in range(3):
                self.random.choice([self.append, self.commit, self.backfill, self.tail])()
            return read(*arguments)

        log_side.read = read_late
        answer = self.answer(request)
        log_side.read = read

        ends = {(item.log_id, item.partition): item.end for item in answer.certificate.partitions}
        self.check(request, answer, self.replay(request, ends))

    def ask_again(self) -> None:
        """Ask with the token of an earlier answer: the same rows must come."""
        if not self.tokens:
            return
        request, expected = self.random.choice(self.tokens)

        answer = self.hybrid.engine.query(request)

        assert self.seen(answer) == expected

    def seen(self, answer: Answer) -> list[tuple[Any, ...]]:
        """Return what is compared of an answer's rows: their order's columns."""
        return list(zip(*(answer.table[name].to_pylist() for name in ORDER), strict=True))

    def replay(self, request: QueryRequest, ends: dict[tuple[int, int], int] | None = None) -> list[tuple[Any, ...]]:
        """Return the rows that a plain reading of the log gives, as `seen` gives those of an answer."""
        rows = self.market.replay(request.data_type, request.symbol, exchange=request.exchange, ends=ends)
        start = -1 if request.start_ns is None else request.start_ns
        end = 10**9 if request.end_ns is None else request.end_ns
        return [row for row in rows if start <= row[0] < end]

    def check(self, request: QueryRequest, answer: Answer, expected: list[tuple[Any, ...]]) -> None:
        """See that an answer is what the replay gave, less what it says is deferred, and keep its token."""
        self.asked += 1
        unread = [item for item in answer.certificate.deferred if not item.read]
        if unread:
            self.check_marked(request, answer, expected, unread)
            return
        self.read_while_deferred += len(answer.certificate.deferred)
        assert answer.certificate.complete
        assert self.seen(answer) == expected
        assert answer.certificate.rows_from_table + answer.certificate.rows_from_log == len(expected)
        self.removed += answer.certificate.duplicates_removed
        self.tokens.append((replace(request, as_of=answer.certificate.as_of), expected))

    def check_marked(
        self,
        request: QueryRequest,
        answer: Answer,
        expected: list[tuple[Any, ...]],
        unread: list[Deferred],
    ) -> None:
        """See that an answer that lacks deferred records lacks no other, and is not called complete.

        What repeats a deferred record is shown meanwhile, since the record itself is not.
        """
        self.marked += 1
        assert request.deferred == "mark"
        assert not answer.certificate.complete
        assert answer.certificate.as_of is None
        seen = self.seen(answer)
        assert seen == sorted(seen)
        lacking = set(expected) - set(seen)
        assert all(
            any((item.log_id, item.partition) == row[1:3] and item.start <= row[3] < item.end for item in unread)
            for row in lacking
        )
