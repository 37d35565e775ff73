"""What the hybrid engine answers, refuses and certifies."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from k2.common.errors import OverloadedError, QueryError, ReadLimitError
from k2.query.certificate import AsOf, Certificate
from k2.testing.simulated_hybrid import (
    ASX,
    QUOTES,
    SETTINGS,
    SIM,
    SimulatedHybrid,
    ask,
    home,
    simulated_hybrid,
    times,
)
from k2.testing.simulated_market import SimulatedMarket

if TYPE_CHECKING:
    from pathlib import Path


NOW = 1_700_000_000_000_000_000
MINUTE = 60_000_000_000


def test_rows_come_once_from_the_table_and_once_from_the_log(hybrid: SimulatedHybrid) -> None:
    for number in range(10):
        hybrid.market.append(ASX.name, "BHP", 100 + number)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"), 6)
    hybrid.tail.step()

    answer = ask(hybrid)

    assert times(answer) == list(range(100, 110))
    assert (answer.certificate.rows_from_table, answer.certificate.rows_from_log) == (6, 4)
    assert answer.certificate.complete
    assert answer.certificate.degradation_level == "NORMAL"


def test_repeated_rows_are_sought_in_the_range_asked_for(hybrid: SimulatedHybrid) -> None:
    for at, identity in ((100, 1), (100, 1), (500, 2), (500, 2), (600, 3)):
        hybrid.market.append(ASX.name, "BHP", at, identity=identity)
    hybrid.tail.step()

    answer = ask(hybrid, start_ns=400, end_ns=601)

    assert times(answer) == [500, 600]
    assert answer.certificate.duplicates_removed == 1


def test_a_row_in_another_partition_repeats_nothing(hybrid: SimulatedHybrid) -> None:
    own = home(hybrid, "BHP")
    hybrid.market.append(ASX.name, "BHP", 100, identity=1, partition=1 - own)
    hybrid.market.commit(ASX.name, 1 - own)
    hybrid.market.append(ASX.name, "BHP", 50)
    hybrid.market.append(ASX.name, "BHP", 100, identity=1)

    answer = ask(hybrid)

    assert times(answer) == [50, 100, 100]
    assert answer.certificate.duplicates_removed == 0


def test_a_window_counts_back_from_now(hybrid: SimulatedHybrid) -> None:
    for minutes in (16, 15, 1, 0):
        hybrid.market.append(ASX.name, "BHP", NOW - minutes * MINUTE)

    answer = hybrid.engine.query_recent_trades("BHP")

    assert times(answer) == [NOW - 15 * MINUTE, NOW - MINUTE]
    assert (answer.certificate.start_ns, answer.certificate.end_ns) == (NOW - 15 * MINUTE, NOW)


@pytest.mark.parametrize("committed", [0, 2, 3])
def test_a_window_can_count_back_from_the_newest_record(hybrid: SimulatedHybrid, committed: int) -> None:
    for minute in (0, 10, 20):
        hybrid.market.append(ASX.name, "BHP", 1_000 + minute * MINUTE)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"), committed)

    answer = hybrid.engine.query_recent_trades("BHP", 15, anchor="latest")

    assert times(answer) == [1_000 + 10 * MINUTE, 1_000 + 20 * MINUTE]


@pytest.mark.parametrize(("symbol", "in_log", "read"), [("BHP", 1, 0), ("BHP", 0, 4), ("BHQ", 0, 20)])
def test_the_newest_record_is_looked_for_in_the_newest_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, symbol: str, in_log: int, read: int
) -> None:
    market = SimulatedMarket(tmp_path, [replace(ASX, partitions=1)])
    market.register(ASX.name)
    hybrid = simulated_hybrid(market, tmp_path)
    for minute in (5, *range(20), *[21] * in_log):  # a late record is in a file of its own as well
        market.append(ASX.name, "BHQ" if minute == 10 else "BHP", 1_000 + minute * MINUTE)
    for _ in range(21):
        market.commit(ASX.name, 0, 1)
    files: list[int] = []
    fetch = hybrid.engine._rows._files_read.fetch

    def counted(sql: str, *others: Any) -> Any:
        files.extend([len(others[1])] if "AS newest" in sql else [])
        return fetch(sql, *others)

    monkeypatch.setattr(hybrid.engine._rows._files_read, "fetch", counted)

    answer = hybrid.engine.query_recent_trades(symbol, 1, anchor="latest")

    newest = 10 if symbol == "BHQ" else 19 + 2 * in_log
    assert max(times(answer)) == 1_000 + newest * MINUTE
    assert sum(files) == read
    hybrid.close()


def test_quotes_and_trades_are_kept_apart(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(QUOTES.name, "BHP", NOW - 5)

    assert hybrid.engine.query_recent_quotes("BHP").table.num_rows == 1
    assert hybrid.engine.query_recent_trades("BHP").table.num_rows == 0


def test_an_exchange_narrows_the_answer(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(ASX.name, "BHP", 1)
    hybrid.market.append(SIM.name, "BHP", 2)

    assert times(ask(hybrid)) == [1, 2]
    assert times(ask(hybrid, exchange="sim")) == [2]
    with pytest.raises(QueryError, match="asx, sim"):
        ask(hybrid, exchange="nyse")


def test_a_range_is_half_open(hybrid: SimulatedHybrid) -> None:
    for number in range(5):
        hybrid.market.append(ASX.name, "BHP", number)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"), 3)

    assert times(ask(hybrid, start_ns=1, end_ns=4)) == [1, 2, 3]


def test_pages_continue_where_a_limit_cut(hybrid: SimulatedHybrid) -> None:
    for number in range(7):
        hybrid.market.append(ASX.name, "BHP", number // 2)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"), 3)
    first = ask(hybrid, limit=3)
    hybrid.market.append(ASX.name, "BHP", 2)

    second = ask(hybrid, limit=3, after=first.next_after, as_of=first.certificate.as_of)
    third = ask(hybrid, limit=3, after=second.next_after, as_of=first.certificate.as_of)

    pages = [answer.table["log_offset"].to_pylist() for answer in (first, second, third)]
    assert pages == [[0, 1, 2], [3, 4, 5], [6]]
    assert [answer.certificate.truncated for answer in (first, second, third)] == [True, True, False]
    assert third.next_after is None


def test_a_token_asks_the_same_question_again(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(ASX.name, "BHP", 1)
    token = ask(hybrid).certificate.as_of
    hybrid.market.append(ASX.name, "BHP", 0)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"))

    assert times(ask(hybrid)) == [0, 1]
    assert times(ask(hybrid, as_of=token)) == [1]


def test_a_token_of_another_question_is_refused(hybrid: SimulatedHybrid) -> None:
    other = next(symbol for symbol in "ABCDEF" if home(hybrid, symbol) != home(hybrid, "BHP"))
    token = ask(hybrid, exchange="asx").certificate.as_of

    for wrong in ({"data_type": "quotes"}, {"exchange": None}, {"symbol": other, "exchange": "asx"}):
        with pytest.raises(QueryError, match="token"):
            ask(hybrid, as_of=token, **wrong)
    with pytest.raises(QueryError, match="as_of"):
        ask(hybrid, as_of="no token")


@pytest.mark.parametrize("committed", [False, True])
def test_a_record_in_a_foreign_partition_is_found(hybrid: SimulatedHybrid, committed: bool) -> None:
    away = 1 - home(hybrid, "BHP")
    hybrid.market.append(ASX.name, "BHP", 1)
    hybrid.market.append(ASX.name, "BHP", 2, partition=away)
    hybrid.market.append(ASX.name, "BHP", 3, partition=away, key=b"")
    if committed:
        hybrid.market.commit(ASX.name, away, 1)
    else:
        hybrid.tail.step()

    answer = ask(hybrid)

    assert times(answer) == [1, 2, 3]
    assert {item.partition for item in answer.certificate.partitions if item.topic == ASX.name} == {0, 1}


def test_undecodable_records_are_counted(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append_bad(ASX.name, "BHP")
    hybrid.market.append(ASX.name, "BHP", 1)
    hybrid.tail.step()

    answer = ask(hybrid)

    assert (answer.certificate.rows, answer.certificate.undecodable) == (1, 1)


def test_columns_come_as_asked_with_exact_types(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(ASX.name, "BHP", 1)

    answer = ask(hybrid, columns=("price", "ts_event_ns"))

    assert answer.table.column_names == ["price", "ts_event_ns"]
    assert str(answer.table.schema.field("price").type) == "decimal128(28, 12)"
    with pytest.raises(QueryError, match="found open"):
        ask(hybrid, columns=("open",))


def test_rows_that_no_commit_has_stored_have_no_commit_columns(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(ASX.name, "BHP", 1)
    hybrid.market.append(ASX.name, "BHP", 2)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"), 1)

    answer = ask(hybrid)

    assert answer.table["written_by"].to_pylist() == ["ingest", None]


def test_too_many_rows_need_a_limit(tmp_path: Path) -> None:
    market = SimulatedMarket(tmp_path, [ASX])
    market.register(ASX.name)
    hybrid = simulated_hybrid(market, tmp_path, settings=SETTINGS.model_copy(update={"rows_max": 3}))
    hybrid.tail.step()
    for number in range(4):
        market.append(ASX.name, "BHP", number)

    with pytest.raises(QueryError, match="more than 3 rows"):
        ask(hybrid)
    assert ask(hybrid, limit=3).certificate.truncated
    hybrid.close()


def test_a_question_too_many_is_turned_away(hybrid: SimulatedHybrid) -> None:
    taken = [hybrid.engine._turns.acquire() for _ in range(SETTINGS.queries_at_once_max)]

    with pytest.raises(OverloadedError, match="ask again"):
        ask(hybrid)

    assert all(taken)


@pytest.mark.parametrize(
    "wrong",
    [
        {"symbol": ""},
        {"symbol": "B" * 65},
        {"symbol": "B\nHP"},
        {"start_ns": 5, "end_ns": 5},
        {"start_ns": 6, "end_ns": 5},
        {"start_ns": NOW + 2 * 86_400_000_000_000},
        {"start_ns": 2**63},
        {"window_minutes": 0},
        {"window_minutes": float("nan")},
        {"window_minutes": 1e9},
        {"window_minutes": 5, "start_ns": 1},
        {"limit": 0},
        {"limit": 10**9},
        {"anchor": "then"},
        {"data_type": "books"},
        {"on_degrade": "guess"},
    ],
)
def test_a_wrong_question_is_one_clear_error(hybrid: SimulatedHybrid, wrong: dict[str, object]) -> None:
    with pytest.raises(QueryError, match="expected"):
        ask(hybrid, **wrong)


def test_a_symbol_that_says_sql_is_only_a_symbol(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(ASX.name, "BHP", 1)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"))

    assert ask(hybrid, symbol="' OR 1=1 --").table.num_rows == 0


def test_what_was_counted_once_is_not_to_be_read_again(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(ASX.name, "BHP", 1)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"))

    with pytest.raises(ReadLimitError, match=r"at most 0 rows.*found 1"):
        hybrid.engine.symbols(read_rows_max=0)

    counted = hybrid.engine.symbols(read_rows_max=1)
    assert counted
    assert hybrid.engine.symbols(read_rows_max=0) == counted


def test_symbols_are_counted_over_table_and_tail(hybrid: SimulatedHybrid) -> None:
    for number in range(5):
        hybrid.market.append(ASX.name, "BHP", number)
    hybrid.market.append(QUOTES.name, "CBA", 7)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"), 3)
    hybrid.tail.step()

    found = hybrid.engine.symbols()

    assert [(s.data_type, s.exchange, s.symbol, s.rows, s.last_ts_event_ns) for s in found] == [
        ("trades", "asx", "BHP", 5, 4),
        ("quotes", "asx", "CBA", 1, 7),
    ]
    assert hybrid.engine.symbols("sim", "trades") == []


def test_a_certificate_survives_json(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(ASX.name, "BHP", 1)
    certificate = ask(hybrid).certificate

    assert Certificate.from_json(certificate.to_json()) == certificate
    assert json.loads(certificate.to_json())["gaps"] is None
    assert AsOf.from_token(certificate.as_of or "").data_type == "trades"


def test_stats_count_what_was_answered(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(ASX.name, "BHP", 1)
    ask(hybrid)

    stats = hybrid.engine.get_stats()

    assert (stats["queries"], stats["rows"], stats["rows_from_log"]) == (1, 1, 1)
