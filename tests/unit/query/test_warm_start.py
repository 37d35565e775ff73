"""A process that serves asks the first questions itself."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from k2.api.readiness import reasons_not_ready
from k2.common.errors import UnavailableError
from k2.query.warm_start import WarmStart
from k2.testing.manual_clock import ManualClock
from k2.testing.simulated_hybrid import ASX, QUOTES, home, simulated_hybrid
from k2.testing.simulated_market import SimulatedMarket

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECONDS_MAX = 5.0
WAIT_SECONDS = 30.0


class Engine:
    """Notes what it is asked, and does then as it is told."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.then: Callable[[], object] = lambda: None

    def query(self, request: object) -> None:
        self.asked.append(request)
        self.then()

    def bars(self, request: object) -> None:
        self.asked.append(request)


def file(rows: int, symbol: str) -> SimpleNamespace:
    return SimpleNamespace(file=SimpleNamespace(rows=rows), symbol_min=symbol, start_ns=rows * 100, exchange="asx")


@pytest.fixture(autouse=True)
def collected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Spare the tests' own process a look at all of its objects; tell what was asked of the garbage collector."""
    calls: list[str] = []
    collector = SimpleNamespace(collect=lambda: calls.append("collect"), freeze=lambda: calls.append("freeze"))
    monkeypatch.setattr("k2.query.warm_start.gc", collector)
    return calls


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def warm_start(engine: Engine, clock: ManualClock, *, can_answer: Callable[[], bool] = lambda: True) -> WarmStart:
    files = (file(9, "BHP"), file(5, "CBA"), file(7, "RIO"))
    pinned = {"trades": (SimpleNamespace(files=files),), "quotes": ()}
    planner = SimpleNamespace(pin=lambda name, *, partial: SimpleNamespace(manifests=pinned[name] if partial else ()))
    return WarmStart(engine, planner, can_answer=can_answer, clock=clock, seconds_max=SECONDS_MAX)  # type: ignore[arg-type]  # all that is asked of them


def test_it_asks_every_table_about_a_moment_of_its_smallest_file(
    engine: Engine, clock: ManualClock, collected: list[str]
) -> None:
    warm = warm_start(engine, clock)

    warm.run()

    trades, bars, quotes = engine.asked
    assert (trades.data_type, trades.symbol, trades.exchange) == ("trades", "CBA", "asx")
    assert (trades.start_ns, trades.end_ns) == (500, 501)
    assert bars.trades == trades
    assert (quotes.data_type, quotes.exchange) == ("quotes", None)
    assert collected == ["collect", "freeze"]
    assert warm.is_over


def test_it_waits_until_there_can_be_answers_but_not_for_ever(engine: Engine, clock: ManualClock) -> None:
    late = threading.Event()

    def not_yet() -> bool:
        clock.advance(SECONDS_MAX / 2)
        if clock.monotonic() >= SECONDS_MAX:
            late.set()
        return False

    warm = warm_start(engine, clock, can_answer=not_yet)
    before = warm.is_over
    warm.start()
    late.wait(WAIT_SECONDS)
    warm.stop()

    assert (before, warm.is_over) == (False, True)
    assert engine.asked == []


def test_what_cannot_be_answered_ends_it(engine: Engine, clock: ManualClock) -> None:
    def fail() -> None:
        raise UnavailableError("the broker is down", dependency="kafka")

    engine.then = fail
    warm = warm_start(engine, clock)

    warm.run()

    assert len(engine.asked) == 1
    assert warm.is_over


def test_once_stopped_it_asks_nothing_more(engine: Engine, clock: ManualClock) -> None:
    warm = warm_start(engine, clock)
    engine.then = warm.stop

    warm.run()

    trades, bars = engine.asked
    assert bars.trades == trades


def test_the_process_is_not_ready_before_it_is_over(engine: Engine, clock: ManualClock) -> None:
    tail = SimpleNamespace(state=SimpleNamespace(heads={"trades": None}, refused={}), trouble=None, watch_trouble=None)
    warm = warm_start(engine, clock)

    before = reasons_not_ready(tail, warm)  # type: ignore[arg-type]  # all that is looked at
    warm.run()

    assert before == ["the process still asks its first questions itself, which take longer than others"]
    assert reasons_not_ready(tail, warm) == []  # type: ignore[arg-type]  # the same


def test_its_questions_are_such_as_an_engine_answers(tmp_path: Path) -> None:
    market = SimulatedMarket(tmp_path, [ASX, QUOTES])
    market.register(ASX.name)
    market.register(QUOTES.name)
    hybrid = simulated_hybrid(market, tmp_path)
    market.append(ASX.name, "BHP", 100)
    market.commit(ASX.name, home(hybrid, "BHP"))
    warm = WarmStart(hybrid.engine, market, can_answer=lambda: True, clock=hybrid.clock, seconds_max=SECONDS_MAX)

    warm.run()
    hybrid.close()

    stats = hybrid.engine.get_stats()
    assert (stats["queries"], stats["failures"]) == (3, 0)
