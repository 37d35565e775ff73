"""Cancelled and corrected trades in answers: at the seam, outside of the range, in pages, as now and as then known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from k2.common.errors import QueryError
from k2.query.certificate import Certificate
from k2.query.request import QueryRequest
from k2.schemas.records import Action
from k2.testing.simulated_hybrid import SimulatedHybrid, simulated_hybrid, topic
from k2.testing.simulated_market import LOGGED_AT_MS, SimulatedMarket
from k2.testing.simulated_messages import TradeFields

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from k2.query.request import Answer

ASX = topic("asx", partitions=1)
QUOTES = topic("asx", "quotes", partitions=1)
NS_PER_MS = 1_000_000


@pytest.fixture
def hybrid(tmp_path: Path) -> Iterator[SimulatedHybrid]:
    market = SimulatedMarket(tmp_path, [ASX, QUOTES])
    for item in (ASX, QUOTES):
        market.register(item.name)
    made = simulated_hybrid(market, tmp_path)
    made.clock.advance(LOGGED_AT_MS / 1_000)
    yield made
    made.close()


def trade(hybrid: SimulatedHybrid, time: int, trade_id: str | None, price: int = 1, day: int = 0) -> None:
    fields = TradeFields(Action.NEW, trade_id, price=price, day=day)
    hybrid.market.append(ASX.name, "BHP", time, trade=fields)


def amend(hybrid: SimulatedHybrid, time: int, action: str, reference: str, **fields: Any) -> None:
    said = TradeFields(action, ref_trade_id=reference, **fields)
    hybrid.market.append(ASX.name, "BHP", time, trade=said)


def commit(hybrid: SimulatedHybrid, records: int | None = None) -> None:
    hybrid.market.commit(ASX.name, 0, records)


def ask(hybrid: SimulatedHybrid, **fields: Any) -> Answer:
    return hybrid.engine.query(QueryRequest(**{"data_type": "trades", "symbol": "BHP", **fields}))


def shown(answer: Answer) -> list[tuple[int, int]]:
    """Return time and price of each row."""
    return list(zip(answer.table["ts_event_ns"].to_pylist(), map(int, answer.table["price"].to_pylist()), strict=True))


def counts(certificate: Certificate) -> tuple[int, int, int, bool]:
    return certificate.cancelled, certificate.corrected, certificate.originals_unknown, certificate.complete


@pytest.mark.parametrize("committed", [0, 1, 2, 3])
def test_a_cancelled_trade_is_not_shown_wherever_the_seam_lies(hybrid: SimulatedHybrid, committed: int) -> None:
    trade(hybrid, 100, "A")
    trade(hybrid, 101, "B")
    amend(hybrid, 100, Action.CANCEL, "A")
    commit(hybrid, committed)

    answer = ask(hybrid)

    assert shown(answer) == [(101, 1)]
    assert counts(answer.certificate) == (1, 0, 0, True)


@pytest.mark.parametrize("committed", [0, 1, 2])
def test_a_corrected_trade_stands_at_its_originals_place(hybrid: SimulatedHybrid, committed: int) -> None:
    trade(hybrid, 100, "A", price=5)
    amend(hybrid, 900, Action.CORRECT, "A", price=7, trade_id="A2")
    trade(hybrid, 100, "B", price=6)
    commit(hybrid, committed)

    answer = ask(hybrid)

    assert shown(answer) == [(100, 7), (100, 6)]
    assert answer.table["log_offset"].to_pylist() == [0, 2]
    assert answer.table["action"].to_pylist() == ["CORRECT", "NEW"]
    assert answer.table["trade_id"].to_pylist() == ["A2", "B"]
    assert counts(answer.certificate) == (0, 1, 0, True)


@pytest.mark.parametrize("committed", [0, 1, 2])
@pytest.mark.parametrize("action", [Action.CANCEL, Action.CORRECT])
def test_an_amendment_outside_of_the_range_counts_inside(hybrid: SimulatedHybrid, action: str, committed: int) -> None:
    trade(hybrid, 100, "A", price=5)
    amend(hybrid, 900, action, "A", price=7)
    for _ in range(committed):  # each to a file of its own
        commit(hybrid, 1)

    answer = ask(hybrid, start_ns=50, end_ns=200)

    assert shown(answer) == ([] if action == Action.CANCEL else [(100, 7)])
    assert answer.certificate.complete


@pytest.mark.parametrize("committed", [0, 1, 2])
def test_an_original_outside_of_the_range_is_known(hybrid: SimulatedHybrid, committed: int) -> None:
    trade(hybrid, 100, "A", price=5)
    amend(hybrid, 900, Action.CORRECT, "A", price=7)
    commit(hybrid, committed)

    answer = ask(hybrid, start_ns=500)

    assert shown(answer) == []
    assert counts(answer.certificate) == (0, 0, 0, True)


@pytest.mark.parametrize("committed", [0, 1, 2])
def test_an_unknown_original_is_counted_and_makes_the_answer_incomplete(
    hybrid: SimulatedHybrid, committed: int
) -> None:
    amend(hybrid, 100, Action.CANCEL, "A")
    amend(hybrid, 101, Action.CORRECT, "B", price=7)
    commit(hybrid, committed)

    answer = ask(hybrid)

    assert shown(answer) == [(101, 7)]
    assert counts(answer.certificate) == (0, 0, 2, False)
    assert answer.certificate.reasons == (
        "2 amendments name trades that the log does not hold ('A', 'B'): their originals never came",
    )
    assert answer.certificate.degradation_level == "NORMAL"
    assert answer.certificate.as_of is not None


def test_an_unknown_original_of_another_time_leaves_an_answer_complete(hybrid: SimulatedHybrid) -> None:
    amend(hybrid, 100, Action.CANCEL, "A")
    commit(hybrid)

    assert counts(ask(hybrid, start_ns=101).certificate) == (0, 0, 0, True)


def test_an_original_that_comes_after_its_cancel_is_not_shown(hybrid: SimulatedHybrid) -> None:
    amend(hybrid, 100, Action.CANCEL, "A")
    commit(hybrid)
    before = ask(hybrid)
    trade(hybrid, 100, "A")

    answer = ask(hybrid)

    assert counts(before.certificate) == (0, 0, 1, False)
    assert counts(answer.certificate) == (1, 0, 0, True)


def test_the_same_id_on_another_day_is_another_trade(hybrid: SimulatedHybrid) -> None:
    trade(hybrid, 100, "A")
    trade(hybrid, 200, "A", day=1)
    amend(hybrid, 300, Action.CANCEL, "A", day=1)
    commit(hybrid)

    assert shown(ask(hybrid)) == [(100, 1)]


def test_raw_shows_every_record_as_it_was_written(hybrid: SimulatedHybrid) -> None:
    trade(hybrid, 100, "A", price=5)
    amend(hybrid, 101, Action.CORRECT, "A", price=7)
    amend(hybrid, 102, Action.CANCEL, "Z")
    commit(hybrid, 2)

    answer = ask(hybrid, amendments="raw")

    assert shown(answer) == [(100, 5), (101, 7), (102, 1)]
    assert counts(answer.certificate) == (0, 0, 0, True)
    assert answer.certificate.amendments == "raw"


@pytest.mark.parametrize("committed", [0, 3, None])
def test_known_at_a_time_answers_as_then_known(hybrid: SimulatedHybrid, committed: int | None) -> None:
    trade(hybrid, 100, "A", price=5)
    amend(hybrid, 100, Action.CORRECT, "A", price=7)
    amend(hybrid, 100, Action.CANCEL, "A")
    trade(hybrid, 99, "B")
    commit(hybrid, committed)
    at = [(LOGGED_AT_MS + offset) * NS_PER_MS for offset in range(5)]

    answers = [ask(hybrid, known_at_ns=time) for time in at]

    assert [shown(answer) for answer in answers] == [[], [(100, 5)], [(100, 7)], [], [(99, 1)]]
    assert [answer.certificate.known_at_ns for answer in answers] == at


def test_a_token_answers_as_then_known(hybrid: SimulatedHybrid) -> None:
    trade(hybrid, 100, "A", price=5)
    then = ask(hybrid)
    amend(hybrid, 100, Action.CANCEL, "A")
    commit(hybrid)

    answer = ask(hybrid, as_of=then.certificate.as_of)

    assert shown(answer) == [(100, 5)]
    assert shown(ask(hybrid)) == []


def test_a_time_to_come_is_refused(hybrid: SimulatedHybrid) -> None:
    with pytest.raises(QueryError, match="known_at to be a time that has come"):
        ask(hybrid, known_at_ns=hybrid.clock.time_ns() + 1)


def test_another_view_is_refused(hybrid: SimulatedHybrid) -> None:
    with pytest.raises(QueryError, match="'applied' or 'raw'"):
        ask(hybrid, amendments="some")


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
@pytest.mark.parametrize("committed", [0, 8, None])
def test_pages_are_full_and_add_up(hybrid: SimulatedHybrid, committed: int | None, limit: int) -> None:
    for number in range(10):
        trade(hybrid, 100 + number // 2, f"T{number}", price=number + 1)
    for number in (0, 1, 2, 3, 4, 9):
        amend(hybrid, 100 + number, Action.CANCEL if number != 4 else Action.CORRECT, f"T{number}", price=50)
    commit(hybrid, committed)
    whole = ask(hybrid)

    pages = [ask(hybrid, limit=limit)]
    while pages[-1].next_after is not None:
        token = pages[0].certificate.as_of
        pages.append(ask(hybrid, limit=limit, after=pages[-1].next_after, as_of=token))

    assert [row for page in pages for row in shown(page)] == shown(whole)
    assert [page.table.num_rows for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert sum(page.certificate.cancelled for page in pages) == whole.certificate.cancelled == 5
    assert sum(page.certificate.corrected for page in pages) == whole.certificate.corrected == 1


def test_a_page_is_not_filled_with_later_rows_of_the_log(hybrid: SimulatedHybrid) -> None:
    for number in range(6):
        trade(hybrid, 100 + number, "A", price=number + 1)
    trade(hybrid, 110, "B")
    amend(hybrid, 100, Action.CANCEL, "A")
    commit(hybrid)
    for number in range(3):
        trade(hybrid, 200 + number, f"C{number}")

    answer = ask(hybrid, limit=1)

    assert shown(answer) == [(110, 1)]
    assert answer.certificate.cancelled == 6


def test_an_original_that_came_later_was_unknown_then(hybrid: SimulatedHybrid) -> None:
    amend(hybrid, 900, Action.CANCEL, "A")
    trade(hybrid, 100, "A")
    commit(hybrid)
    then = (LOGGED_AT_MS + 1) * NS_PER_MS

    assert ask(hybrid, start_ns=500).certificate.originals_unknown == 0
    assert ask(hybrid, start_ns=500, known_at_ns=then).certificate.originals_unknown == 1


def test_quotes_have_no_ids_so_their_amendments_have_no_original(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(QUOTES.name, "BHP", 100)
    hybrid.market.append(QUOTES.name, "BHP", 101, trade=TradeFields(Action.CANCEL))

    answer = ask(hybrid, data_type="quotes")

    assert answer.table["ts_event_ns"].to_pylist() == [100]
    assert counts(answer.certificate) == (0, 0, 1, False)


def test_only_the_columns_that_were_asked_for_come(hybrid: SimulatedHybrid) -> None:
    trade(hybrid, 100, "A", price=5)
    amend(hybrid, 100, Action.CORRECT, "A", price=7)
    commit(hybrid)

    answer = ask(hybrid, columns=("price",))

    assert answer.table.column_names == ["price"]
    assert [int(price) for price in answer.table["price"].to_pylist()] == [7]
