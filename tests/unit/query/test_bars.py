"""What bars are made of: which trades, from which side, exactly; and what each says of itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from k2.common.errors import QueryError
from k2.common.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE, NS_PER_SECOND
from k2.query.bars.request import BarsRequest
from k2.query.bars.rules import BarRule
from k2.query.certificate import AsOf
from k2.query.request import Answer, QueryRequest
from k2.testing.simulated_hybrid import ASX, SETTINGS, SIM, SimulatedHybrid, home, simulated_hybrid
from k2.testing.simulated_market import SimulatedMarket
from k2.testing.simulated_messages import TradeFields

DAY = 1_700_006_400_000_000_000
"""2023-11-15, a Wednesday, at midnight in UTC."""
TEN = DAY - NS_PER_HOUR
"""Ten o'clock in Sydney on that day."""
RULE = BarRule(
    timezone="Australia/Sydney",
    sessions=((dt.time(10), dt.time(16)),),
    hours=((dt.time(9, 59), dt.time(16, 13)),),
    conditions=("0", "2"),
)


@pytest.fixture
def hybrid(tmp_path: Path) -> Iterator[SimulatedHybrid]:
    """ASX with a rule, and an exchange without one, days after the last trade that a test has."""
    market = SimulatedMarket(tmp_path, [ASX, SIM])
    market.register(ASX.name)
    market.register(SIM.name)
    made = simulated_hybrid(market, tmp_path, bar_rules={"asx": RULE})
    at(made, DAY + 10 * NS_PER_DAY)
    yield made
    made.close()


def at(hybrid: SimulatedHybrid, time_ns: int) -> None:
    hybrid.clock.advance((time_ns - hybrid.clock.time_ns()) / 1e9)


def trade(hybrid: SimulatedHybrid, at_ns: int, price: int = 1, quantity: int = 1, **more: Any) -> None:
    said = TradeFields(price=price, quantity=quantity, **more)
    hybrid.market.append(ASX.name, "BHP", at_ns, trade=said)


def commit(hybrid: SimulatedHybrid, records: int | None = None) -> None:
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"), records)


def ask(hybrid: SimulatedHybrid, interval: str = "1m", **more: Any) -> Answer:
    own = {name: more.pop(name) for name in ("align", "prints") if name in more}
    trades = QueryRequest(data_type="trades", symbol="BHP", **{"exchange": "asx", **more})
    return hybrid.engine.bars(BarsRequest(trades=trades, interval=interval, **own))


def column(answer: Answer, name: str) -> list[Any]:
    found: list[Any] = answer.table[name].to_pylist()
    return found


def prices(answer: Answer) -> list[tuple[int, ...]]:
    rows = answer.table.select(["open", "high", "low", "close", "volume"]).to_pylist()
    return [tuple(int(value) for value in row.values()) for row in rows]


@pytest.mark.parametrize("committed", [0, 1, 3, 5])
def test_a_bar_is_made_of_trades_of_the_table_and_of_the_log(hybrid: SimulatedHybrid, committed: int) -> None:
    for second, price in ((1, 5), (2, 9), (50, 3), (59, 4), (60, 7)):
        trade(hybrid, TEN + second * NS_PER_SECOND, price, quantity=second)
    commit(hybrid, committed)
    hybrid.tail.step()

    answer = ask(hybrid)

    assert prices(answer) == [(5, 9, 3, 4, 112), (7, 7, 7, 7, 60)]
    assert column(answer, "trade_count") == [4, 1]
    assert column(answer, "bar_start_ns") == [TEN, TEN + NS_PER_MINUTE]
    assert column(answer, "first_log_offset") == [0, 4]
    assert column(answer, "last_log_offset") == [3, 4]
    assert (answer.certificate.rows_from_table, answer.certificate.rows_from_log) == (committed, 5 - committed)


def test_equal_times_go_by_the_place_in_the_log(hybrid: SimulatedHybrid) -> None:
    for price in (4, 9, 2, 6):
        trade(hybrid, TEN, price)
    commit(hybrid, 2)

    assert prices(ask(hybrid)) == [(4, 9, 2, 6, 4)]


def test_special_and_off_session_prints_are_left_out_unless_all_are_asked_for(hybrid: SimulatedHybrid) -> None:
    trade(hybrid, TEN - 3 * NS_PER_HOUR, 42)
    trade(hybrid, TEN, 10, conditions=("0",))
    trade(hybrid, TEN + 1, 11, conditions=("2", "0"))
    trade(hybrid, TEN + 2, 99, conditions=("0", "1"))
    commit(hybrid, 2)

    regular, everything = ask(hybrid, "1d", align="session"), ask(hybrid, "1d", align="session", prints="all")

    assert prices(regular) == [(10, 11, 10, 11, 2)]
    assert prices(everything) == [(42, 99, 10, 99, 4)]
    assert column(regular, "excluded_count") == [2]
    assert regular.certificate.bars is not None
    assert regular.certificate.bars["trades_left_out"] == 2
    assert regular.certificate.bars["rules"]["asx"]["conditions"] == ["0", "2"]


def test_an_exchange_without_a_rule_counts_every_print(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(SIM.name, "BHP", TEN - 5 * NS_PER_HOUR, trade=TradeFields(conditions=("odd",)))

    assert column(ask(hybrid, exchange="sim"), "trade_count") == [1]
    assert column(ask(hybrid, exchange=None), "exchange") == ["sim"]


def test_bars_of_several_exchanges_are_kept_apart(hybrid: SimulatedHybrid) -> None:
    trade(hybrid, TEN, 1)
    hybrid.market.append(SIM.name, "BHP", TEN + 1, trade=TradeFields(price=2))

    answer = ask(hybrid, exchange=None)

    assert column(answer, "exchange") == ["asx", "sim"]
    assert prices(answer) == [(1, 1, 1, 1, 1), (2, 2, 2, 2, 1)]


def test_session_bars_begin_with_the_session_and_are_cut_at_its_end(hybrid: SimulatedHybrid) -> None:
    for minutes in (-1, 0, 239, 240, 359, 360):
        trade(hybrid, TEN + minutes * NS_PER_MINUTE)

    answer = ask(hybrid, "4h", align="session")

    hours = [(start - TEN) / NS_PER_HOUR for start in column(answer, "bar_start_ns")]
    lengths = [(end - TEN) / NS_PER_HOUR for end in column(answer, "bar_end_ns")]
    assert hours == [-2, 0, 4, 6]
    assert lengths == [0, 4, 6, 10]
    assert column(answer, "trade_count") == [1, 2, 2, 1]


def test_a_vwap_is_exact_and_rounded_once(hybrid: SimulatedHybrid) -> None:
    trade(hybrid, TEN, 1, 1)
    trade(hybrid, TEN, 2, 2)
    trade(hybrid, TEN + NS_PER_MINUTE, 1, 5)
    trade(hybrid, TEN + NS_PER_MINUTE, 1, -5)
    commit(hybrid, 1)

    assert column(ask(hybrid), "vwap") == [Decimal("1.666666666667"), None]


def test_products_beyond_one_sum_are_summed_in_parts(hybrid: SimulatedHybrid) -> None:
    for _ in range(3):
        trade(hybrid, TEN, 9_999_999_999_999_999, 999_999_999_999_999_999)
    commit(hybrid, 2)

    answer = ask(hybrid)

    assert column(answer, "vwap") == [Decimal(9_999_999_999_999_999)]
    assert column(answer, "volume") == [Decimal(3 * 999_999_999_999_999_999)]


def test_a_bar_is_provisional_until_it_is_stored_and_its_late_trades_can_have_come(hybrid: SimulatedHybrid) -> None:
    trade(hybrid, TEN)
    trade(hybrid, TEN + NS_PER_MINUTE)
    trade(hybrid, TEN + 2 * NS_PER_MINUTE)
    commit(hybrid, 2)
    at(hybrid, TEN + 2 * NS_PER_MINUTE + NS_PER_SECOND)

    early = ask(hybrid, start_ns=TEN)
    hybrid.clock.advance(60)
    late = ask(hybrid, start_ns=TEN)
    hybrid.clock.advance(3_600)
    commit(hybrid)

    assert column(early, "state") == ["final", "provisional", "provisional"]
    assert column(late, "state") == ["final", "final", "provisional"]
    assert column(ask(hybrid, start_ns=TEN), "state") == ["final", "final", "final"]
    again = ask(hybrid, start_ns=TEN, as_of=early.certificate.as_of)
    assert again.table.equals(early.table)


def test_a_range_begins_with_a_whole_bar_and_says_which_bar_it_cuts(hybrid: SimulatedHybrid) -> None:
    for second in (0, 40, 60, 110):
        trade(hybrid, TEN + second * NS_PER_SECOND)
    commit(hybrid)

    answer = ask(hybrid, start_ns=TEN + 30 * NS_PER_SECOND, end_ns=TEN + 100 * NS_PER_SECOND)

    assert answer.certificate.start_ns == TEN
    assert column(answer, "trade_count") == [2, 1]
    assert column(answer, "complete") == [True, False]
    assert column(answer, "state") == ["final", "provisional"]


def test_a_repeated_trade_before_the_range_counts_once_in_the_first_bar(hybrid: SimulatedHybrid) -> None:
    for second, identity in ((0, 1), (0, 1), (40, 2)):
        hybrid.market.append(ASX.name, "BHP", TEN + second * NS_PER_SECOND, identity=identity)
    hybrid.tail.step()

    answer = ask(hybrid, start_ns=TEN + 30 * NS_PER_SECOND)

    assert column(answer, "trade_count") == [2]
    assert answer.certificate.duplicates_removed == 1


def test_no_bar_of_another_exchange_is_cut_at_the_start(hybrid: SimulatedHybrid) -> None:
    trade(hybrid, TEN + 2 * NS_PER_HOUR)
    for minutes in (30, 90, 150):
        hybrid.market.append(SIM.name, "BHP", TEN + minutes * NS_PER_MINUTE)

    answer = ask(hybrid, "2h", align="session", exchange=None, start_ns=TEN + 100 * NS_PER_MINUTE)

    assert column(answer, "exchange") == ["sim", "asx"]
    assert column(answer, "bar_start_ns") == [DAY, TEN + 2 * NS_PER_HOUR]
    assert column(answer, "trade_count") == [2, 1]


@pytest.mark.parametrize("committed", [0, 3, 4, 6])
def test_amendments_change_their_bars_which_say_so(hybrid: SimulatedHybrid, committed: int) -> None:
    trade(hybrid, TEN, 5, trade_id="a")
    trade(hybrid, TEN + 1, 9, trade_id="b")
    trade(hybrid, TEN + 2, 3, trade_id="c")
    trade(hybrid, TEN + NS_PER_MINUTE, 6, trade_id="d")
    trade(hybrid, TEN + 1, 9, action="CANCEL", ref_trade_id="b")
    trade(hybrid, TEN + 2, 8, 4, action="CORRECT", trade_id="c2", ref_trade_id="c")
    commit(hybrid, committed)
    hybrid.tail.step()

    answer, raw = ask(hybrid), ask(hybrid, amendments="raw")

    assert prices(answer) == [(5, 8, 5, 8, 5), (6, 6, 6, 6, 1)]
    assert column(answer, "amended") == [True, False]
    assert column(answer, "revision") == [5, 1]
    assert (answer.certificate.cancelled, answer.certificate.corrected) == (1, 1)
    assert prices(raw) == [(5, 9, 3, 3, 3), (6, 6, 6, 6, 1)]
    assert column(raw, "amended") == [False, False]
    assert column(answer, "state") == [
        "final" if committed == 6 else "provisional",
        "final" if committed > 3 else "provisional",
    ]


def test_a_correction_can_make_a_print_special(hybrid: SimulatedHybrid) -> None:
    trade(hybrid, TEN, 5, trade_id="a")
    trade(hybrid, TEN, 9, trade_id="b")
    trade(hybrid, TEN, 9, action="CORRECT", trade_id="b", ref_trade_id="b", conditions=("1",))

    answer = ask(hybrid)

    assert prices(answer) == [(5, 5, 5, 5, 1)]
    assert (column(answer, "amended"), column(answer, "revision")) == ([True], [3])


def test_the_same_token_gives_the_same_bars_after_late_trades_and_commits(hybrid: SimulatedHybrid) -> None:
    trade(hybrid, TEN, 5, trade_id="a")
    trade(hybrid, TEN + 1, 6)
    commit(hybrid, 1)
    first = ask(hybrid)
    trade(hybrid, TEN + 2, 9)
    trade(hybrid, TEN, 5, action="CANCEL", ref_trade_id="a")
    commit(hybrid)

    again, newest = ask(hybrid, as_of=first.certificate.as_of), ask(hybrid)

    assert again.table.equals(first.table)
    assert again.certificate.as_of == first.certificate.as_of
    assert prices(newest) == [(6, 9, 6, 9, 2)]
    assert (column(first, "revision"), column(newest, "revision")) == ([2], [4])


def test_too_many_bars_are_refused(tmp_path: Path) -> None:
    market = SimulatedMarket(tmp_path, [ASX])
    market.register(ASX.name)
    hybrid = simulated_hybrid(market, tmp_path, settings=SETTINGS.model_copy(update={"bars_max": 2}))
    at(hybrid, DAY)
    for minute in range(3):
        trade(hybrid, TEN - minute * NS_PER_MINUTE)

    with pytest.raises(QueryError, match="more than 2 bars"):
        ask(hybrid)
    assert len(column(ask(hybrid, "5m"), "volume")) == 2
    hybrid.close()


def test_more_amended_trades_than_rows_of_an_answer_are_refused(tmp_path: Path) -> None:
    market = SimulatedMarket(tmp_path, [ASX])
    market.register(ASX.name)
    hybrid = simulated_hybrid(market, tmp_path, settings=SETTINGS.model_copy(update={"rows_max": 3}))
    at(hybrid, DAY)
    for name in "ab":
        trade(hybrid, TEN, trade_id=name)
        trade(hybrid, TEN, action="CANCEL", ref_trade_id=name)
    commit(hybrid, 3)
    allowed = ask(hybrid, lake_only=True)
    commit(hybrid)

    with pytest.raises(QueryError, match="amendments concern more than 3 trades"):
        ask(hybrid)
    assert allowed.certificate.cancelled == 1
    hybrid.close()


@pytest.mark.parametrize("interval", ["7m", "1d"])
@pytest.mark.parametrize("align", ["utc", "session"])
def test_a_range_may_be_as_long_as_numbers_go(hybrid: SimulatedHybrid, interval: str, align: str) -> None:
    trade(hybrid, TEN)
    commit(hybrid)

    answer = ask(hybrid, interval, align=align, start_ns=-(2**63) + 1, end_ns=2**63 - 1)

    assert column(answer, "trade_count") == [1]


def test_what_was_known_may_be_as_long_ago_as_numbers_go(hybrid: SimulatedHybrid) -> None:
    trade(hybrid, TEN)
    token = AsOf.from_token(ask(hybrid).certificate.as_of or "")

    assert ask(hybrid, known_at_ns=-(2**63) + 1).table.num_rows == 0
    assert column(ask(hybrid, as_of=replace(token, at_ns=-(2**63)).to_token()), "state") == ["provisional"]


def test_there_is_no_bar_where_there_is_no_trade(hybrid: SimulatedHybrid) -> None:
    assert ask(hybrid).table.num_rows == 0
    assert ask(hybrid, start_ns=TEN, end_ns=DAY).table.num_rows == 0


@pytest.mark.parametrize("wrong", [{"limit": 5}, {"columns": ("price",)}, {"data_type": "quotes"}])
def test_bars_are_of_all_trades_of_a_range(wrong: dict[str, Any]) -> None:
    trades = QueryRequest(**{"data_type": "trades", "symbol": "BHP", **wrong})

    with pytest.raises(QueryError, match="expected bars"):
        BarsRequest(trades=trades)
