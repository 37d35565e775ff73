"""Answers while records are deferred: marked with the ranges, or complete by reading the log."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from k2.common.degradation import Priority
from k2.common.errors import LogIdentityError, QueryError, UnavailableError
from k2.query.certificate import AsOf, Certificate, Deferred
from k2.testing.deferring_market import DeferringMarket
from k2.testing.simulated_hybrid import (
    ASX,
    QUOTES,
    SETTINGS,
    SimulatedHybrid,
    ask,
    home,
    simulated_hybrid,
    times,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAB = {"symbol": "NAB"}
"""A symbol of no tier: its trades are NORMAL, its quotes LOW."""


@pytest.fixture
def hybrid(tmp_path: Path) -> Iterator[SimulatedHybrid]:
    """Return an engine over topics whose commits can defer."""
    market = DeferringMarket(tmp_path, [ASX, QUOTES])
    for item in (ASX, QUOTES):
        market.register(item.name)
    made = simulated_hybrid(market, tmp_path)
    yield made
    made.close()


def market_of(hybrid: SimulatedHybrid) -> DeferringMarket:
    assert isinstance(hybrid.market, DeferringMarket)
    return hybrid.market


def append(hybrid: SimulatedHybrid, symbol: str, *at: int, identity: int | None = None) -> None:
    for time in at:
        hybrid.market.append(ASX.name, symbol, time, partition=home(hybrid, "NAB"), identity=identity)


def defer(hybrid: SimulatedHybrid, deferred_from: Priority = Priority.NORMAL) -> None:
    market_of(hybrid).commit(ASX.name, home(hybrid, "NAB"), deferred_from=deferred_from)


def backfill(hybrid: SimulatedHybrid, offsets: int | None = None) -> None:
    market_of(hybrid).backfill(ASX.name, home(hybrid, "NAB"), offsets)


def test_an_answer_that_lacks_deferred_records_is_marked_with_their_ranges(hybrid: SimulatedHybrid) -> None:
    append(hybrid, "NAB", 1, 2)
    defer(hybrid)
    append(hybrid, "NAB", 3)

    answer = ask(hybrid, **NAB)

    assert times(answer) == [3]
    assert not answer.certificate.complete
    assert answer.certificate.as_of is None
    assert answer.certificate.deferred == (Deferred(0, home(hybrid, "NAB"), 0, 2),)
    assert "deferred=read" in answer.certificate.reasons[0]


def test_an_answer_that_reads_the_deferred_records_is_complete(hybrid: SimulatedHybrid) -> None:
    append(hybrid, "NAB", 1, 4)
    defer(hybrid)
    append(hybrid, "NAB", 3, 2)

    answer = ask(hybrid, **NAB, deferred="read")

    assert times(answer) == [1, 2, 3, 4]
    assert answer.certificate.complete
    assert answer.certificate.deferred == (Deferred(0, home(hybrid, "NAB"), 0, 2, read=True),)
    assert (answer.certificate.rows_from_table, answer.certificate.rows_from_log) == (0, 4)
    assert Certificate.from_json(answer.certificate.to_json()) == answer.certificate


@pytest.mark.parametrize(("deferred_from", "concerned"), [(Priority.NORMAL, ["NAB"]), (Priority.HIGH, ["CBA", "NAB"])])
def test_a_symbol_that_the_predicate_lets_pass_is_complete(
    hybrid: SimulatedHybrid, deferred_from: Priority, concerned: list[str]
) -> None:
    for number, symbol in enumerate(("ANZ", "CBA", "NAB")):
        append(hybrid, symbol, number)
    defer(hybrid, deferred_from)

    incomplete = [name for name in ("ANZ", "CBA", "NAB") if not ask(hybrid, symbol=name).certificate.complete]

    assert incomplete == concerned


def test_quotes_of_the_lowest_priority_are_told_from_trades(hybrid: SimulatedHybrid) -> None:
    number = home(hybrid, "NAB")
    hybrid.market.append(QUOTES.name, "NAB", 1, partition=number)
    append(hybrid, "NAB", 1)
    market_of(hybrid).commit(QUOTES.name, number, deferred_from=Priority.LOW)
    defer(hybrid, Priority.LOW)

    quotes, trades = ask(hybrid, **NAB, data_type="quotes"), ask(hybrid, **NAB)

    assert not quotes.certificate.complete
    assert trades.certificate.complete
    assert times(trades) == [1]


def test_duplicates_across_a_deferred_range_and_the_tail_come_once(hybrid: SimulatedHybrid) -> None:
    append(hybrid, "NAB", 5, identity=7)
    defer(hybrid)
    append(hybrid, "NAB", 5, identity=7)

    answer = ask(hybrid, **NAB, deferred="read")

    assert answer.table["log_offset"].to_pylist() == [0]
    assert answer.certificate.duplicates_removed == 1


def test_deferred_duplicates_of_stored_rows_are_left_out(hybrid: SimulatedHybrid) -> None:
    append(hybrid, "NAB", 5, identity=7)
    market_of(hybrid).commit(ASX.name, home(hybrid, "NAB"))
    append(hybrid, "NAB", 5, identity=7)
    defer(hybrid)

    answer = ask(hybrid, **NAB, deferred="read")

    assert answer.table["log_offset"].to_pylist() == [0]


def test_a_half_written_range_is_read_from_where_it_begins_now(hybrid: SimulatedHybrid) -> None:
    append(hybrid, "NAB", 1, 2, 3)
    defer(hybrid)
    backfill(hybrid, 2)

    answer = ask(hybrid, **NAB, deferred="read")

    assert times(answer) == [1, 2, 3]
    assert (answer.certificate.rows_from_table, answer.certificate.rows_from_log) == (2, 1)


def test_a_token_gives_the_same_rows_before_and_after_the_backfill(hybrid: SimulatedHybrid) -> None:
    append(hybrid, "NAB", 1, 2)
    defer(hybrid)
    append(hybrid, "NAB", 3)
    first = ask(hybrid, **NAB, deferred="read")
    append(hybrid, "NAB", 4)
    defer(hybrid)

    token = first.certificate.as_of
    while_deferred = ask(hybrid, **NAB, as_of=token)
    backfill(hybrid, 1)
    half = ask(hybrid, **NAB, as_of=token)
    backfill(hybrid)
    after = ask(hybrid, **NAB, as_of=token)

    assert times(first) == times(while_deferred) == times(half) == times(after) == [1, 2, 3]
    assert all(answer.certificate.complete for answer in (while_deferred, half, after))


def test_the_token_of_a_complete_symbol_names_the_prefix_for_all_symbols(hybrid: SimulatedHybrid) -> None:
    append(hybrid, "NAB", 1)
    append(hybrid, "ANZ", 2)
    defer(hybrid)
    token = ask(hybrid, symbol="ANZ").certificate.as_of
    assert token is not None

    before = ask(hybrid, **NAB, as_of=token)
    backfill(hybrid)
    after = ask(hybrid, **NAB, as_of=token)

    assert times(before) == times(after) == [1]
    assert AsOf.from_token(token).deferred == ((0, home(hybrid, "NAB"), 0, 2),)
    assert AsOf.from_token(AsOf.from_token(token).to_token()) == AsOf.from_token(token)


def test_a_pinned_snapshot_does_not_see_a_later_backfill(hybrid: SimulatedHybrid) -> None:
    append(hybrid, "NAB", 1, 2)
    defer(hybrid)
    pinned = hybrid.market.pin("trades")
    before = hybrid.market.plan(pinned)

    backfill(hybrid)

    assert hybrid.market.plan(pinned) == before
    assert len(hybrid.market.plan(hybrid.market.pin("trades"))) == len(before) + 1


def test_a_log_out_of_reach_fails_the_question_or_marks_the_answer(hybrid: SimulatedHybrid) -> None:
    append(hybrid, "NAB", 1)
    defer(hybrid)
    ask(hybrid, **NAB)
    hybrid.market.log_is_up = False

    with pytest.raises(UnavailableError):
        ask(hybrid, **NAB, deferred="read")
    answer = ask(hybrid, **NAB, deferred="read", on_degrade="partial")

    assert not answer.certificate.complete
    assert answer.certificate.deferred == (Deferred(0, home(hybrid, "NAB"), 0, 1),)


def test_deferred_records_that_the_log_has_lost_are_not_passed_over(hybrid: SimulatedHybrid) -> None:
    append(hybrid, "NAB", 1, 2)
    defer(hybrid)
    hybrid.market.partitions[ASX.name, home(hybrid, "NAB")].start = 1

    with pytest.raises(LogIdentityError, match="deleted by retention"):
        ask(hybrid, **NAB, deferred="read")


def test_a_range_longer_than_the_limit_is_refused(hybrid: SimulatedHybrid, tmp_path: Path) -> None:
    append(hybrid, "NAB", *range(50))
    defer(hybrid)
    limits = {"on_demand_records_max": 10, "tail_poll_records_max": 6}
    small = simulated_hybrid(hybrid.market, tmp_path, settings=SETTINGS.model_copy(update=limits))

    with pytest.raises(UnavailableError, match="ON_DEMAND_RECORDS_MAX"):
        ask(small, **NAB, deferred="read")

    small.close()


def test_reading_the_log_for_the_table_alone_is_a_contradiction(hybrid: SimulatedHybrid) -> None:
    with pytest.raises(QueryError, match="lake_only"):
        ask(hybrid, **NAB, deferred="read", lake_only=True)


def test_a_range_whose_tier_map_is_gone_concerns_every_symbol(hybrid: SimulatedHybrid) -> None:
    append(hybrid, "NAB", 1)
    append(hybrid, "ANZ", 1)
    defer(hybrid)
    market = market_of(hybrid)
    head = market.head("trades")
    market._swap(dataclasses.replace(head, tier_maps={}), ())

    assert not ask(hybrid, symbol="ANZ").certificate.complete


def test_what_was_deferred_in_a_log_that_is_gone_is_never_read_from_the_topic_of_its_name(
    hybrid: SimulatedHybrid,
) -> None:
    append(hybrid, "NAB", 1, 2)
    defer(hybrid)
    hybrid.market.create(ASX.name, "id-2")
    hybrid.market.register(ASX.name)
    append(hybrid, "NAB", 7, 8, 9)
    hybrid.tail.step()

    answer = ask(hybrid, **NAB, deferred="read")

    assert times(answer) == [7, 8, 9]
    assert answer.table["log_id"].unique().to_pylist() == [1]
    assert answer.certificate.deferred == (Deferred(0, home(hybrid, "NAB"), 0, 2),)
    assert not answer.certificate.complete
    assert "lost, since the topic market.equities.trades.asx was created again" in answer.certificate.reasons[0]
