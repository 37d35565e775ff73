"""The fault injector: the truth file and what was sent give the feed back, whatever the seed, rates and cuts."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.common.errors import ConfigurationError
from k2.feeds.faults.injector import FaultInjector
from k2.feeds.faults.rates import RESET_AFTER, FaultRates
from k2.feeds.faults.truth import Entry, TruthFile, read_truth, withheld_rows
from k2.feeds.market import Market, MarketRun
from k2.schemas.arrow import message_polars_schema
from k2.schemas.records import TRADES

START_NS = 1_767_225_600_000_000_000
SCHEMA = message_polars_schema(TRADES)
ALL = FaultRates(gaps=0.1, duplicates=0.1, reorder=0.1, resets=0.01, mute=0.01, cancels=0.1, mute_seconds=0.02)
STREAM = ("symbol", "channel")


def feed_of(streams: list[int], packet_sizes: list[int], *, day_after: int = 10**9) -> pl.DataFrame:
    """Return records whose streams follow `streams`; a stream numbers its packets from 1, and again on the next day."""
    numbers: Counter[tuple[int, bool]] = Counter()
    rows = []
    for at, (stream, size) in enumerate(zip(streams, packet_sizes, strict=True)):
        is_later = at >= day_after
        numbers[stream, is_later] += 1
        rows += [(f"S{stream}", numbers[stream, is_later], sub, at, is_later) for sub in range(size)]
    columns: dict[str, list[Any]] = {
        "symbol": [row[0] for row in rows],
        "sequence": [row[1] if row[0] != "S9" else None for row in rows],
        "sub_index": [row[2] for row in rows],
        "ts_event_ns": [START_NS + row[3] * 1_000_000 for row in rows],
        "trading_date": [dt.date(2026, 1, 1) + dt.timedelta(days=row[4]) for row in rows],
        "trade_id": [f"T{number}" if number % 3 else None for number in range(len(rows))],
        "source_sequence": list(range(1, len(rows) + 1)),
    }
    frame = pl.DataFrame(columns).with_columns(
        exchange=pl.lit("sim"), ts_recv_ns="ts_event_ns", action=pl.lit("NEW"), source=pl.lit("run"),
        channel=pl.lit("c"), price=pl.col("source_sequence"), quantity=pl.lit(1),
        conditions=pl.lit([], pl.List(pl.String)),
    )  # fmt: skip
    missing = {name: pl.lit(None) for name in SCHEMA if name not in frame.columns}
    return frame.with_columns(**missing).select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())


def injected(batches: list[pl.DataFrame], rates: FaultRates, scope: str = "symbol") -> tuple[pl.DataFrame, list[Entry]]:
    entries: list[Entry] = []
    injector = FaultInjector("trades", rates, scope=scope, streams_max=1_000, tell=entries.append)
    sent = pl.concat([*(injector.inject(batch) for batch in batches), injector.end()])
    return sent, entries


def of_kind(entries: list[Entry], kind: str) -> list[Entry]:
    return [entry for entry in entries if entry["kind"] == kind]


def through_a_file(entries: list[Entry], path: Path) -> list[Entry]:
    truth = TruthFile(path, FaultRates(), "test")
    for entry in entries:
        truth(entry)
    truth.close()
    return read_truth(path)[1:]


def restored(sent: pl.DataFrame, entries: list[Entry]) -> pl.DataFrame:
    """Undo what the entries say was injected."""
    extra = {entry["place"] for kind in ("duplicate", "cancel") for entry in of_kind(entries, kind)}
    moves = {entry["place"]: entry["input"] for entry in of_kind(entries, "move")}
    withheld = withheld_rows(entries, "trades")
    (end,) = of_kind(entries, "end")
    known = set(moves.values()) | set(withheld["input"].to_list())
    free = iter(number for number in range(end["input"]) if number not in known)
    inputs = [moves[place] if place in moves else -1 if place in extra else next(free) for place in range(len(sent))]
    rows = sent.with_columns(input=pl.Series(inputs, dtype=pl.Int64)).filter(pl.col("input") >= 0)
    rows = pl.concat([rows, withheld.select(rows.columns)]).sort("input")
    shift = pl.lit(0)
    for reset in of_kind(entries, "reset"):
        of_stream = (pl.col("symbol") == reset["symbol"]) & (pl.col("channel") == reset["channel"])
        shift = pl.when(of_stream & (pl.col("input") >= reset["input"])).then(reset["shift"]).otherwise(shift)
    return rows.with_columns(sequence=pl.col("sequence") + shift).drop("input")


def cut(rows: pl.DataFrame, places: list[int]) -> list[pl.DataFrame]:
    edges = [0, *sorted({place % (len(rows) + 1) for place in places}), len(rows)]
    return [rows[low:high] for low, high in pairwise(edges)]


chances = st.sampled_from([0.0, 0.05, 0.3])
rates = st.builds(
    FaultRates,
    gaps=chances, duplicates=chances, reorder=chances, resets=chances, mute=chances, cancels=chances,
    seed=st.integers(0, 1_000), reorder_span=st.integers(1, 8), mute_seconds=st.sampled_from([0.001, 0.02, 0.2]),
    reset_after=st.sampled_from([1, 5, 50]),
)  # fmt: skip
packets = st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 2, 9]), st.sampled_from([1, 1, 1, 3])), max_size=400)


@given(packets, rates, st.lists(st.integers(0, 1_000), max_size=6), st.integers(0, 400))
def test_the_truth_and_what_was_sent_give_the_feed_back(
    drawn: list[tuple[int, int]], rates: FaultRates, cuts: list[int], day_after: int
) -> None:
    feed = feed_of([stream for stream, _ in drawn], [size for _, size in drawn], day_after=day_after)

    sent, entries = injected(cut(feed, cuts), rates)

    entries = json.loads(json.dumps(entries, default=str))
    assert restored(sent, entries).equals(feed)


@given(packets, rates, st.lists(st.integers(0, 1_000), min_size=1, max_size=6))
def test_where_batches_end_changes_nothing(drawn: list[tuple[int, int]], rates: FaultRates, cuts: list[int]) -> None:
    feed = feed_of([stream for stream, _ in drawn], [size for _, size in drawn])

    whole, told = injected([feed], rates)
    in_parts, told_in_parts = injected(cut(feed, cuts), rates)

    assert in_parts.equals(whole)
    assert sorted(map(repr, told_in_parts)) == sorted(map(repr, told))


@settings(max_examples=25)
@given(packets)
def test_rates_of_zero_change_nothing(drawn: list[tuple[int, int]]) -> None:
    feed = feed_of([stream for stream, _ in drawn], [size for _, size in drawn])

    sent, entries = injected(cut(feed, [7, 100]), FaultRates())

    assert sent.equals(feed)
    assert [entry["kind"] for entry in entries] == ["end"]


@pytest.fixture(scope="module")
def feed() -> pl.DataFrame:
    return feed_of([0, 1, 0, 2] * 5_000, [1] * 20_000)


def test_each_fault_comes_about_as_often_as_asked_for(feed: pl.DataFrame) -> None:
    asked = {"withheld": 0.02, "duplicate": 0.03, "move": 0.01, "cancel": 0.05 * 2 / 3}

    _, entries = injected([feed], FaultRates(gaps=0.02, duplicates=0.03, reorder=0.01, cancels=0.05))

    found = Counter(entry["kind"] for entry in entries)
    for kind, rate in asked.items():
        deviation = (len(feed) * rate * (1 - rate)) ** 0.5
        assert abs(found[kind] - len(feed) * rate) < 5 * deviation, kind


def test_another_seed_injects_elsewhere(feed: pl.DataFrame) -> None:
    one, other = (injected([feed], FaultRates(gaps=0.02, seed=seed))[0] for seed in (1, 2))

    assert not one.equals(other)


def test_the_gaps_told_are_the_numbers_missing_from_what_was_sent(feed: pl.DataFrame) -> None:
    sent, entries = injected([feed], FaultRates(gaps=0.1, duplicates=0.1, reorder=0.1, mute=0.001, mute_seconds=0.05))

    for symbol in ("S0", "S1", "S2"):
        had = set(feed.filter(pl.col("symbol") == symbol)["sequence"].to_list())
        came = set(sent.filter(pl.col("symbol") == symbol)["sequence"].to_list())
        gaps = [entry for entry in of_kind(entries, "gap") if entry["symbol"] == symbol]
        told = [number for gap in gaps for number in range(gap["first"], gap["last"] + 1)]
        assert sorted(told) == sorted(had - came)
        assert all(gap["first"] - 1 in came and (gap["tail"] or gap["last"] + 1 in came) for gap in gaps)
        assert all(gap["tail"] == (gap["last"] + 1 not in came) for gap in gaps)


def test_a_copy_follows_its_original_and_says_the_same(feed: pl.DataFrame) -> None:
    sent, entries = injected([feed], FaultRates(duplicates=0.1, reorder_span=5))

    for entry in of_kind(entries, "duplicate"):
        original, copy = sent[entry["original_place"]], sent[entry["place"]]
        between = sent[entry["original_place"] + 1 : entry["place"]].filter(pl.col("symbol") == entry["symbol"])
        assert copy.equals(original)
        assert entry["original_place"] < entry["place"]
        assert between["sequence"].n_unique() <= 5 + 2


def test_a_moved_record_is_late_by_the_span_at_most(feed: pl.DataFrame) -> None:
    sent, entries = injected([feed], FaultRates(reorder=0.1, reorder_span=5))

    moved = of_kind(entries, "move")
    for entry in moved:
        assert sent[entry["place"]]["sequence"].item() == entry["sequence"]
        before = sent[: entry["place"]].filter(pl.col("symbol") == entry["symbol"])["sequence"].max()
        assert before - entry["sequence"] <= 5
    assert len(moved) > 1_000


def test_after_a_reset_numbers_begin_at_1_and_nothing_old_comes_late(feed: pl.DataFrame) -> None:
    sent, entries = injected([feed], FaultRates(gaps=0.1, duplicates=0.1, reorder=0.2, resets=0.01))

    resets = of_kind(entries, "reset")
    for entry in resets:
        assert sent[entry["place"]]["sequence"].item() == 1
        assert entry["last"] >= RESET_AFTER
        later = sent[entry["place"] :].filter(pl.col("symbol") == entry["symbol"])["sequence"]
        assert later.head(RESET_AFTER // 2).max() < RESET_AFTER
    assert len(resets) > 10


def test_a_mute_is_silent_and_ends_with_the_event_told(feed: pl.DataFrame) -> None:
    sent, entries = injected(
        [feed], FaultRates(mute=0.002, mute_seconds=0.05, duplicates=0.2, reorder=0.2, cancels=0.2)
    )

    mutes = of_kind(entries, "mute")
    for entry in mutes:
        of_symbol = sent.filter(pl.col("symbol") == entry["symbol"])["ts_event_ns"]
        silent_to = entry["to_ns"] or feed["ts_event_ns"].max() + 1
        withheld = feed.filter(
            (pl.col("symbol") == entry["symbol"]) & (pl.col("sequence").is_between(entry["first"], entry["last"]))
        )
        assert entry["records"] == len(withheld) > 0
        assert entry["to_ns"] is None or entry["to_ns"] - entry["from_ns"] >= 50_000_000
        assert of_symbol.filter((of_symbol >= entry["from_ns"]) & (of_symbol < silent_to)).is_empty()
        places = of_symbol.search_sorted(entry["from_ns"])
        assert of_symbol.head(places).max() < entry["from_ns"]
        assert of_symbol.slice(places).is_empty() or of_symbol.slice(places).min() >= silent_to
    assert len(mutes) > 5


def test_a_cancel_names_its_trade_and_has_no_number(feed: pl.DataFrame) -> None:
    sent, entries = injected([feed], FaultRates(cancels=0.1, gaps=0.2))

    for entry in of_kind(entries, "cancel"):
        row = sent[entry["place"]]
        original = sent.filter((pl.col("trade_id") == entry["ref_trade_id"]) & (pl.col("action") == "NEW"))
        assert (row["action"].item(), row["sequence"].item()) == ("CANCEL", None)
        assert row["ref_trade_id"].item() == row["trade_id"].item() == entry["ref_trade_id"]
        assert entry["original_sent"] == (len(original) == 1)


def test_a_venue_that_numbers_channels_has_one_stream_of_all_symbols() -> None:
    feed = feed_of([0] * 1_000, [1] * 1_000).with_columns(symbol="S" + (pl.int_range(pl.len()) % 7).cast(pl.String))

    sent, entries = injected([feed], FaultRates(gaps=0.1, reorder=0.1), scope="channel")

    told = [number for gap in of_kind(entries, "gap") for number in range(gap["first"], gap["last"] + 1)]
    assert sorted(told) == sorted(set(range(1, 1_001)) - set(sent["sequence"].to_list()))


def test_the_simulated_market_comes_back_from_a_truth_file(tmp_path: Path) -> None:
    run = MarketRun(seed=3, start_ns=START_NS, rate=5_000, symbols=4)
    batches = [part.trades for part in Market(run, duration_ns=2_000_000_000).slices()]

    sent, entries = injected(batches, ALL)

    assert restored(sent, through_a_file(entries, tmp_path / "truth.jsonl")).equals(pl.concat(batches))
    assert {entry["kind"] for entry in entries} >= {"gap", "withheld", "duplicate", "move", "cancel", "reset", "end"}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"gaps": 1.5}, "--gaps"),
        ({"mute": -0.1}, "--mute"),
        ({"gaps": 0.5, "reorder": 0.4, "duplicates": 0.2}, "together"),
        ({"reorder_span": 0}, "--reorder-span"),
        ({"mute_seconds": 0}, "--mute-seconds"),
    ],
)
def test_what_is_no_chance_is_refused(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        FaultRates(**wrong)


def test_more_streams_than_allowed_are_refused() -> None:
    injector = FaultInjector("trades", ALL, scope="symbol", streams_max=2)

    with pytest.raises(ConfigurationError, match="K2_FEEDS__FAULT_STREAMS_MAX"):
        injector.inject(feed_of([0, 1, 2], [1, 1, 1]))


def test_the_truth_of_a_run_that_was_broken_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    TruthFile(path, ALL, "test").close()

    with pytest.raises(ConfigurationError, match="broken off"):
        read_truth(path)
