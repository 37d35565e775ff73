"""Answers while a stream is halted: its symbols are marked or read from the log, and no other is concerned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k2.common.degradation import Priority
from k2.query.certificate import Deferred
from k2.storage.seam import HaltedStream
from k2.testing.deferring_market import DeferringMarket
from k2.testing.simulated_hybrid import ASX, SimulatedHybrid, ask, home, simulated_hybrid, times

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SINCE_2 = HaltedStream("NAB", ("NAB",), 2, 0)


@pytest.fixture
def hybrid(tmp_path: Path) -> Iterator[SimulatedHybrid]:
    """Return an engine over a topic whose commits can halt streams."""
    market = DeferringMarket(tmp_path, [ASX])
    market.register(ASX.name)
    made = simulated_hybrid(market, tmp_path)
    yield made
    made.close()


def append(hybrid: SimulatedHybrid, *symbols: str) -> None:
    number = home(hybrid, "NAB")
    for symbol in symbols:
        at = len(hybrid.market.partitions[ASX.name, number].messages)
        hybrid.market.append(ASX.name, symbol, at, partition=number)


def commit(
    hybrid: SimulatedHybrid, *halt: HaltedStream, deferred_from: Priority | None = None, records: int | None = None
) -> None:
    assert isinstance(hybrid.market, DeferringMarket)
    hybrid.market.commit(ASX.name, home(hybrid, "NAB"), records, deferred_from=deferred_from, halt=halt)


def backfill(hybrid: SimulatedHybrid, offsets: int | None = None) -> None:
    assert isinstance(hybrid.market, DeferringMarket)
    hybrid.market.backfill(ASX.name, home(hybrid, "NAB"), offsets)


def test_answers_of_a_halted_symbol_are_marked_and_those_of_others_complete(hybrid: SimulatedHybrid) -> None:
    append(hybrid, "NAB", "ANZ", "NAB", "ANZ", "NAB")
    commit(hybrid, SINCE_2)

    halted, other = ask(hybrid, symbol="NAB"), ask(hybrid, symbol="ANZ")

    assert times(halted) == [0]
    assert halted.certificate.deferred == (Deferred(0, home(hybrid, "NAB"), 2, 5),)
    assert not halted.certificate.complete
    assert times(other) == [1, 3]
    assert other.certificate.complete


def test_what_a_halted_stream_holds_back_is_read_from_the_log(hybrid: SimulatedHybrid) -> None:
    append(hybrid, "NAB", "ANZ", "NAB", "ANZ", "NAB")
    commit(hybrid, SINCE_2)
    append(hybrid, "NAB")

    answer = ask(hybrid, symbol="NAB", deferred="read")

    assert times(answer) == [0, 2, 4, 5]
    assert answer.certificate.complete


def test_a_record_that_overload_would_defer_as_well_comes_once(hybrid: SimulatedHybrid) -> None:
    append(hybrid, "NAB", "CBA")
    commit(hybrid, deferred_from=Priority.NORMAL)
    append(hybrid, "NAB", "WES", "NAB")
    commit(hybrid, SINCE_2, deferred_from=Priority.NORMAL)
    append(hybrid, "NAB")

    answer = ask(hybrid, symbol="NAB", deferred="read")

    assert times(answer) == [0, 2, 4, 5]
    assert answer.certificate.complete


def test_overload_is_over_for_all_but_the_halted_stream(hybrid: SimulatedHybrid) -> None:
    append(hybrid, "NAB", "CBA", "NAB", "CBA", "NAB")
    commit(hybrid, SINCE_2, deferred_from=Priority.HIGH)
    backfill(hybrid)

    halted, other = ask(hybrid, symbol="NAB"), ask(hybrid, symbol="CBA")

    assert times(halted) == [0]
    assert not halted.certificate.complete
    assert times(other) == [1, 3]
    assert other.certificate.complete


def test_a_token_gives_the_same_rows_while_halted_half_written_and_after(hybrid: SimulatedHybrid) -> None:
    append(hybrid, "NAB", "ANZ", "NAB", "ANZ", "NAB")
    commit(hybrid, SINCE_2)
    append(hybrid, "NAB")
    token = ask(hybrid, symbol="NAB", deferred="read").certificate.as_of
    answers = []

    for step in (lambda: append(hybrid, "NAB"), lambda: backfill(hybrid, 1), lambda: commit(hybrid),
                 lambda: backfill(hybrid)):  # fmt: skip
        step()
        answers.append(times(ask(hybrid, symbol="NAB", as_of=token)))

    assert answers == [[0, 2, 4, 5]] * 4
    assert times(ask(hybrid, symbol="NAB")) == [0, 2, 4, 5, 6]
    assert ask(hybrid, symbol="NAB").certificate.complete
