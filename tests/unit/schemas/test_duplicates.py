"""The rule of duplicates: what is dropped, for how long, what is a conflict; and that it equals a plain replay."""

from __future__ import annotations

import datetime as dt
import random

import polars as pl
import pytest

from k2.schemas.arrow import polars_schema
from k2.schemas.duplicates import decide
from k2.schemas.identity import IdentityRules, with_content
from k2.schemas.records import QUOTES, TRADES
from k2.testing.market_rows import market_rows
from k2.testing.plain_duplicates import PlainReplay

RULES = IdentityRules(numbered=frozenset({"sim"}))
START = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
DAY = dt.timedelta(hours=24)


def records(*changes: dict, record_type=TRADES) -> pl.DataFrame:
    """Return one row for each set of changes, at offsets 0, 1, ...; all are the same record but for these."""
    base = market_rows([0], record_type=record_type).row(0, named=True)
    rows = [base | {"log_offset": offset} | change for offset, change in enumerate(changes)]
    return pl.DataFrame(rows, schema=polars_schema(record_type), orient="row")


def keyed(rows: pl.DataFrame, record_type=TRADES, rules=RULES) -> pl.DataFrame:
    return with_content(rows, record_type, rules)


def decided(rows: pl.DataFrame, *, record_type=TRADES, rules=RULES) -> tuple[list[int], list[int]]:
    suspects = keyed(rows, record_type, rules)
    found = decide(suspects, suspects.clear())
    return found.duplicates.to_list(), found.conflicts.to_list()


def test_the_same_record_again_is_a_duplicate():
    assert decided(records({}, {}, {})) == ([1, 2], [])


@pytest.mark.parametrize("name", ["ts_recv_ns", "source", "source_sequence"])
def test_what_a_feed_adds_is_not_content(name):
    other = "B" if name == "source" else 99

    assert decided(records({}, {name: other})) == ([1], [])


@pytest.mark.parametrize(
    "change",
    [
        {"price": 7},
        {"conditions": ["X"]},
        {"side": "BUY"},
        {"extra": "{}"},
        {"ts_event_ns": 1},
        {"ref_trade_id": "T"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_content_is_a_conflict_and_both_are_kept(change):
    assert decided(records({}, change)) == ([], [1])


def test_each_side_of_a_conflict_has_its_own_duplicates():
    assert decided(records({}, {"price": 7}, {}, {"price": 7})) == ([2, 3], [1])


@pytest.mark.parametrize(
    "change",
    [
        {"action": "CANCEL"},
        {"symbol": "ZZZ"},
        {"channel": "9"},
        {"sequence": 9},
        {"sub_index": 1},
        {"trading_date": dt.date(2026, 2, 1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_identity_is_another_record(change):
    assert decided(records({}, change)) == ([], [])


def test_lists_of_conditions_are_told_apart_whatever_they_hold():
    assert decided(records({"conditions": ["a\x1fb"]}, {"conditions": ["a", "b"]})) == ([], [1])


def test_a_trade_id_serves_where_there_is_no_number():
    rows = records({"sequence": None, "trade_id": "T"}, {"sequence": None, "trade_id": "T"})

    assert decided(rows) == ([1], [])


def test_where_the_venue_does_not_number_the_sequence_is_content_like_any_other():
    rows = records({"sequence": 1, "trade_id": "T"}, {"sequence": 2, "trade_id": "T"}, {"sequence": 2, "trade_id": "T"})

    assert decided(rows, rules=IdentityRules()) == ([2], [1])


def test_what_has_no_identity_is_never_a_duplicate():
    assert decided(records({"sequence": None}, {"sequence": None})) == ([], [])
    assert decided(records({"sequence": None}, {"sequence": None}, record_type=QUOTES), record_type=QUOTES) == ([], [])


def test_an_exchange_can_be_left_unchecked():
    assert decided(records({}, {}), rules=IdentityRules(frozenset({"sim"}), frozenset({"sim"}))) == ([], [])


def test_the_window_is_a_day_from_the_winner_and_not_from_the_last_duplicate():
    times = [START, START + 0.9 * DAY, START + DAY, START + DAY + dt.timedelta(milliseconds=1), START + 1.9 * DAY]

    assert decided(records(*({"ts_log": at} for at in times))) == ([1, 2, 4], [])


def test_a_winner_that_is_stored_counts():
    stored = keyed(records({}))
    later = keyed(records({}, {}, {"sequence": 5}).with_columns(pl.col("log_offset") + 10))

    assert decide(later, stored).duplicates.to_list() == [10, 11]


def test_a_stored_row_that_is_not_earlier_does_not_count():
    stored = keyed(records({}).with_columns(log_offset=pl.lit(50, pl.Int64)))
    earlier = keyed(records({}).with_columns(log_offset=pl.lit(10, pl.Int64)))

    assert decide(earlier, stored).duplicates.to_list() == []


@pytest.mark.parametrize("seed", range(10))
def test_decisions_equal_a_plain_replay_however_the_log_is_cut(seed):
    drawn = random.Random(seed)
    clock = START
    changes = []
    for _ in range(150):
        clock += drawn.choice([dt.timedelta(0), dt.timedelta(minutes=1), dt.timedelta(hours=5)])
        back = drawn.choice([0, 0, 0, 30])
        number = drawn.choice([None, *range(6)])
        changes.append(
            {
                "ts_log": clock - dt.timedelta(seconds=back),
                "sequence": number,
                "trade_id": drawn.choice([None, "T-1", "T-2"]),
                "sub_index": drawn.choice([None, None, 1]),
                "price": drawn.choice([1, 1, 1, 2]),
                "source_sequence": drawn.randrange(100),
            }
        )
    rows = records(*changes)
    plain = PlainReplay(TRADES, RULES).replay(rows.iter_rows(named=True))

    kept = keyed(rows).clear()
    duplicates, conflicts, at = [], [], 0
    while at < rows.height:
        size = drawn.choice([5, 20, 60])
        suspects = keyed(rows.slice(at, size))
        found = decide(suspects, kept)
        duplicates += found.duplicates.to_list()
        conflicts += found.conflicts.to_list()
        kept = pl.concat([kept, suspects.filter(~pl.col("log_offset").is_in(found.duplicates.to_list()))])
        at += size

    assert (duplicates, conflicts) == (plain.duplicates, plain.conflicts)
