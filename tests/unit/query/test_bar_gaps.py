"""Bars that know the gaps in their numbers: how many are missing in each, and what the choices do."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from k2.common.errors import QueryError, UnavailableError
from k2.common.units import NS_PER_DAY, NS_PER_SECOND
from k2.query.bars.request import BarsRequest
from k2.query.gap_aware import GapAwareEngine
from k2.query.request import Answer, QueryRequest
from k2.testing.fake_gaps import FakeGaps
from k2.testing.gap_events import gap_event, gap_events
from k2.testing.simulated_hybrid import ASX, SIM, SimulatedHybrid, home
from k2.testing.simulated_messages import TradeFields

FIRST = dt.date(2026, 1, 1)
SECOND = NS_PER_SECOND


class World:
    """A trade in each of three seconds of one day, and one of the next day."""

    def __init__(self, hybrid: SimulatedHybrid) -> None:
        self.gaps = FakeGaps()
        self.watched = {"trades": frozenset({"asx"})}
        self.engine = GapAwareEngine(
            hybrid.engine, events=self.gaps, table=self.gaps, watched=self.watched, listed_max=2
        )
        self.partition = home(hybrid, "BHP")
        for time in (0, SECOND, 2 * SECOND, NS_PER_DAY):
            said = TradeFields(day=time // NS_PER_DAY, trade_id=str(time))
            hybrid.market.append(ASX.name, "BHP", time, trade=said)
        hybrid.market.commit(ASX.name, self.partition)

    def know(self, *changed: dict[str, Any]) -> None:
        dates = {"trading_date": FIRST, "trading_date_to": FIRST}
        base = {"log_partition": self.partition, "decided_offset": 0, **dates}
        self.gaps.events = gap_events(*(gap_event(**{**base, **each}) for each in changed))

    def bars(self, **fields: Any) -> Answer:
        trades = QueryRequest(**{"data_type": "trades", "symbol": "BHP", "exchange": "asx", **fields})
        return self.engine.bars(BarsRequest(trades=trades, interval="1s"))


@pytest.fixture
def world(hybrid: SimulatedHybrid) -> World:
    return World(hybrid)


def column(answer: Answer, name: str) -> list[Any]:
    found: list[Any] = answer.table[name].to_pylist()
    return found


def test_a_gap_counts_in_each_bar_that_it_overlaps(world: World) -> None:
    world.know(
        {"from_ns": 5, "to_ns": SECOND + 5},
        {"log_offset": 99, "first": 50, "last": 51, "from_ns": SECOND, "to_ns": SECOND + 1},
    )

    answer = world.bars()

    assert column(answer, "sequence_missing") == [5, 7, 0, 0]
    assert column(answer, "complete") == [False, False, True, True]
    assert answer.certificate.gap_count == 2


def test_where_nobody_watches_numbers_nothing_is_said_of_them(world: World, hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(SIM.name, "BHP", SECOND)

    answer = world.bars(exchange=None)

    assert dict(zip(column(answer, "exchange"), column(answer, "sequence_missing"), strict=True)) == {
        "asx": 0,
        "sim": None,
    }
    assert column(world.bars(exchange="sim"), "sequence_missing") == [None]


def test_sessions_with_a_gap_are_left_out_on_request(world: World) -> None:
    world.know({"from_ns": 5, "to_ns": SECOND + 5})

    answer = world.bars(gaps="exclude")

    assert column(answer, "bar_start_ns") == [NS_PER_DAY]
    assert answer.certificate.rows_excluded == 3
    assert answer.certificate.bars is not None
    assert answer.certificate.bars["bars"] == 1


def test_bars_with_a_gap_are_refused_on_request(world: World) -> None:
    world.know({"from_ns": 5, "to_ns": SECOND + 5})

    with pytest.raises(QueryError, match="without gaps, found 1"):
        world.bars(gaps="fail")


def test_unreadable_gaps_leave_the_missing_numbers_unknown(world: World) -> None:
    world.gaps.fails_with = UnavailableError("down", dependency="catalog")

    assert column(world.bars(), "sequence_missing") == [None] * 4
    with pytest.raises(UnavailableError):
        world.bars(gaps="exclude")
