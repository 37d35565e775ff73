"""Trades with the quote that stood: compared with a plain search over the log, and the same again by token."""

from __future__ import annotations

import random
from typing import Any

import pytest

from k2.common.errors import QueryError
from k2.query.prevailing import PrevailingRequest, with_quotes
from k2.query.request import Answer, QueryRequest, RowKey
from k2.testing.simulated_hybrid import ASX, QUOTES, SIM, SimulatedHybrid, home

SECOND = 10**9
PLACE = ("quote_ts_event_ns", "quote_log_id", "quote_log_partition", "quote_log_offset")


def ask(
    hybrid: SimulatedHybrid, *, tolerance: float = 60, strictly_before: bool = False, most: int = 1_000, **fields: Any
) -> Answer:
    trades = QueryRequest(**{"data_type": "trades", "symbol": "BHP", **fields})
    asked = PrevailingRequest(trades=trades, tolerance_seconds=tolerance, strictly_before=strictly_before)
    return with_quotes(hybrid.engine.query, asked, quotes_max=most)


def stood(answer: Answer) -> list[tuple[int, ...] | None]:
    rows = zip(*(answer.table[name].to_pylist() for name in PLACE), strict=True)
    return [None if row[0] is None else row for row in rows]


def said(answer: Answer) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = answer.table.drop_columns(["commit_sequence", "written_by"]).to_pylist()
    return rows


def fill(hybrid: SimulatedHybrid, chance: random.Random, records: int) -> None:
    for _ in range(records):
        topic = chance.choice([ASX, QUOTES, QUOTES])
        hybrid.market.append(topic.name, chance.choice(["BHP", "BHP", "RIO"]), chance.randrange(20) * SECOND)
        if chance.random() < 0.1:
            hybrid.market.commit(topic.name, chance.randrange(2), chance.randrange(1, 9))


@pytest.mark.parametrize("seed", range(12))
def test_each_trade_has_the_last_quote_that_was_not_after_it(hybrid: SimulatedHybrid, seed: int) -> None:
    chance = random.Random(seed)
    fill(hybrid, chance, 60)
    seconds, strictly_before = chance.choice([1, 3, 60]), chance.random() < 0.5
    quotes = hybrid.market.replay("quotes", "BHP")
    latest = -1 if strictly_before else 0
    expected = []
    for time, *_ in hybrid.market.replay("trades", "BHP"):
        before = [key for key in quotes if time - seconds * SECOND <= key[0] <= time + latest]
        expected.append(max(before, default=None))

    answer = ask(hybrid, tolerance=seconds, strictly_before=strictly_before)

    assert stood(answer) == expected
    assert any(expected)
    assert answer.certificate.complete
    assert (answer.certificate.quotes or {})["table"] == "quotes"


def test_the_token_gives_the_quotes_that_stood_then(hybrid: SimulatedHybrid) -> None:
    chance = random.Random(1)
    fill(hybrid, chance, 40)
    first = ask(hybrid)

    fill(hybrid, chance, 40)
    again = ask(hybrid, as_of=first.certificate.as_of)

    assert said(again) == said(first)
    assert again.certificate.as_of == first.certificate.as_of
    assert said(ask(hybrid)) != said(first)


def test_pages_together_are_the_whole_answer(hybrid: SimulatedHybrid) -> None:
    fill(hybrid, random.Random(2), 60)
    whole, pages, after, token = ask(hybrid), [], None, None

    while True:
        page = ask(hybrid, limit=4, after=after, as_of=token, start_ns=0, end_ns=60 * SECOND)
        pages += stood(page)
        after, token = page.next_after, page.certificate.as_of
        if after is None:
            break

    assert pages == stood(whole)


def test_a_quote_stands_at_its_own_exchange_alone(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(QUOTES.name, "BHP", SECOND)
    hybrid.market.append(SIM.name, "BHP", 2 * SECOND)
    hybrid.market.append(ASX.name, "BHP", 3 * SECOND)

    answer = ask(hybrid)

    assert list(zip(answer.table["exchange"].to_pylist(), stood(answer), strict=True)) == [
        ("sim", None),
        ("asx", (SECOND, 0, home(hybrid, "BHP"), 0)),
    ]


def test_no_trade_needs_no_quote(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(QUOTES.name, "BHP", SECOND)

    first = ask(hybrid)
    hybrid.market.append(ASX.name, "BHP", SECOND)
    again = ask(hybrid, as_of=first.certificate.as_of)

    assert first.table.schema.equals(ask(hybrid).table.schema)
    assert (first.table.num_rows, again.table.num_rows, ask(hybrid).table.num_rows) == (0, 0, 1)


def test_more_quotes_than_may_be_read_are_refused(hybrid: SimulatedHybrid) -> None:
    for time in range(3):
        hybrid.market.append(QUOTES.name, "BHP", time)
    hybrid.market.append(ASX.name, "BHP", 5)

    assert ask(hybrid, most=3).table.num_rows == 1
    with pytest.raises(QueryError, match="more than 2 quotes may have stood"):
        ask(hybrid, most=2)


@pytest.mark.parametrize("tolerance", [0, -1, float("nan"), float("inf"), 400 * 86_400])
def test_a_tolerance_beyond_its_bounds_is_refused(tolerance: float) -> None:
    with pytest.raises(QueryError, match="expected a tolerance"):
        PrevailingRequest(trades=QueryRequest(data_type="trades", symbol="BHP"), tolerance_seconds=tolerance)


def test_only_trades_are_joined() -> None:
    with pytest.raises(QueryError, match="expected all columns of trades"):
        PrevailingRequest(trades=QueryRequest(data_type="quotes", symbol="BHP", after=RowKey(1, 0, 0, 0)))
