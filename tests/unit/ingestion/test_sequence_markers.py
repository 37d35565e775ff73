"""A marker shows what is missing at a stream's end, from when it was logged, wherever batches are cut."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.ingestion.sequences.batches import COLUMNS, Memory, observe, remembered
from k2.ingestion.sequences.markers import Marker
from k2.ingestion.sequences.rules import NO_DAY, SequenceRules

RULES = SequenceRules(reorder_messages=1_000, reorder_us=10_000, lost_us=50_000, memory_us=10**9, memory_offsets=10**6)
BEGIN = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
BEGIN_US = int(BEGIN.timestamp()) * 1_000_000
DAY = (BEGIN.date() - dt.date(1970, 1, 1)).days


def rows(*messages: tuple[str, int, int], first_offset: int = 0) -> pl.DataFrame:
    """Return rows of symbol, number and milliseconds of log time."""
    begin_us = [BEGIN_US + ms * 1_000 for _, _, ms in messages]
    return pl.DataFrame(
        [
            (symbol, None, number, None, BEGIN.date(), us * 1_000, BEGIN + dt.timedelta(milliseconds=ms), place)
            for place, ((symbol, number, ms), us) in enumerate(zip(messages, begin_us, strict=True), first_offset)
        ],
        schema={
            "symbol": pl.String, "channel": pl.String, "sequence": pl.Int64, "sub_index": pl.Int32,
            "trading_date": pl.Date, "ts_event_ns": pl.Int64, "ts_log": pl.Datetime("us", "UTC"),
            "log_offset": pl.Int64,
        },
        orient="row",
    ).select(COLUMNS)  # fmt: skip


def marker(last: int, at_ms: int, *, stream: str = "A", day: int = DAY, offset: int = 0) -> Marker:
    return Marker(stream, last, day, BEGIN_US + at_ms * 1_000, offset)


def told(*frames: pl.DataFrame, markers: list[Marker], until_ms: int = 0) -> list[tuple[str, str, int, int]]:
    """Return what happened to gaps over batches of these rows, and then as time passes without any."""
    memory, found, end = Memory(), [], 0
    for place, frame in enumerate([*frames, rows()]):
        end = frame["log_offset"][-1] + 1 if frame.height else end
        until_us = BEGIN_US + until_ms * 1_000 if place == len(frames) else 0
        seen = observe(
            memory, frame, RULES, scope="symbol", partition=0, end_offset=end, markers=markers, until_us=until_us
        )
        memory = remembered(memory, seen)
        found += [(name, change.event.value, change.first, change.last) for name, change in seen.changes]
    return found


def test_what_was_sent_and_did_not_come_is_a_gap_once_the_window_is_over():
    found = told(rows(("A", 1, 0), ("A", 2, 1)), markers=[marker(5, 2)], until_ms=13)

    assert found == [("A", "opened", 3, 5)]


@pytest.mark.parametrize("until_ms", [0, 11, 12])
def test_within_the_window_nothing_is_told(until_ms):
    assert told(rows(("A", 1, 0), ("A", 2, 1)), markers=[marker(5, 2)], until_ms=until_ms) == []


def test_a_marker_that_is_there_before_its_rows_is_no_alarm():
    found = told(rows(("A", 1, 0)), rows(("A", 2, 5), ("A", 3, 6), first_offset=1), markers=[marker(3, 2)], until_ms=99)

    assert found == []


def test_a_row_that_comes_after_the_window_fills():
    late = rows(("A", 4, 20), first_offset=1)

    assert told(rows(("A", 3, 0)), late, markers=[marker(5, 2)]) == [("A", "opened", 4, 5), ("A", "filled", 4, 4)]


def test_the_rows_that_follow_do_not_open_it_a_second_time():
    later = rows(("A", 6, 20), ("A", 7, 21), first_offset=1)

    assert told(rows(("A", 3, 0)), later, markers=[marker(5, 2)], until_ms=40) == [("A", "opened", 4, 5)]


def test_heartbeats_open_what_each_adds():
    beats = [marker(4, 2), marker(4, 3, offset=1), marker(6, 4, offset=2)]

    assert told(rows(("A", 3, 0)), markers=beats, until_ms=40) == [("A", "opened", 4, 4), ("A", "opened", 5, 6)]


@pytest.mark.parametrize("other", [{"day": DAY - 1}, {"day": DAY + 1}, {"day": NO_DAY}, {"stream": "B"}])
def test_a_marker_of_another_session_or_of_a_stream_that_never_came_says_nothing(other):
    assert told(rows(("A", 3, 0)), markers=[marker(9, 2, **other)], until_ms=99) == []


def test_a_number_below_the_newest_shows_nothing():
    assert told(rows(("A", 3, 0)), markers=[marker(2, 2), marker(3, 3, offset=1)], until_ms=99) == []


def test_it_is_lost_like_any_other_gap():
    found = told(rows(("A", 3, 0)), markers=[marker(4, 2)], until_ms=60)

    assert found == [("A", "opened", 4, 4), ("A", "lost", 4, 4)]


@pytest.mark.parametrize(("marked_ms", "to_us", "to_ns"), [(2, 2_000, 0), (10 * 86_400_000, 86_400_000_000, -1)])
def test_it_reaches_from_the_last_record_to_the_marker_or_to_the_end_of_the_day(marked_ms, to_us, to_ns):
    seen = observe(
        Memory(),
        rows(("A", 3, 1)),
        replace(RULES, memory_us=10**13),
        scope="symbol",
        partition=0,
        end_offset=1,
        markers=[marker(4, marked_ms)],
        until_us=BEGIN_US + marked_ms * 1_000 + 1,
    )

    (hole,) = seen.states["A"].holes

    assert hole.from_ns == (BEGIN_US + 1_000) * 1_000
    assert hole.to_ns == (BEGIN_US + to_us) * 1_000 + to_ns


sent = st.lists(
    st.tuples(
        st.sampled_from("AB"),
        st.sampled_from(["row", "row", "row", "gone", "gone", "late", "marker"]),
        st.sampled_from([0, 1, 1, 4, 20]),
    ),
    max_size=40,
)


def feed(drawn) -> tuple[list[tuple[str, int, int]], list[Marker], set[tuple[str, int]], int]:
    """Return rows in the log's order, markers, the numbers that never came though a marker or row showed them, time.

    Late numbers come at the end of the feed.
    """
    at_ms, numbers, late = 0, {"A": 1, "B": 1}, []
    logged = [("A", 1, 0), ("B", 1, 0)]
    came, markers, shown = {("A", 1), ("B", 1)}, [], {"A": 1, "B": 1}
    for symbol, what, pause in drawn:
        at_ms += pause
        if what == "marker":
            markers.append(marker(numbers[symbol], at_ms, stream=symbol, offset=len(markers)))
            shown[symbol] = max(shown[symbol], numbers[symbol])
            continue
        numbers[symbol] += 1
        if what == "late":
            late.append((symbol, numbers[symbol]))
        elif what == "row":
            logged.append((symbol, numbers[symbol], at_ms))
            came.add((symbol, numbers[symbol]))
            shown[symbol] = numbers[symbol]
    at_ms += 100
    for symbol, number in late:
        if number <= shown[symbol]:
            logged.append((symbol, number, at_ms))
    missing = {(symbol, n) for symbol in "AB" for n in range(1, shown[symbol] + 1)} - came
    return logged, markers, missing, at_ms + 1_000


@settings(max_examples=150, deadline=None)
@given(sent, st.lists(st.integers(1, 40), max_size=6))
def test_wherever_batches_are_cut_the_gaps_are_what_a_set_of_the_numbers_says(drawn, cuts):
    logged, markers, missing, until_ms = feed(drawn)
    edges = sorted({0, len(logged), *(cut for cut in cuts if cut < len(logged))})
    batches = [rows(*logged[low:high], first_offset=low) for low, high in itertools.pairwise(edges)]

    whole = told(rows(*logged), markers=markers, until_ms=until_ms)
    cut = told(*batches, markers=markers, until_ms=until_ms)

    opened = [(s, n) for s, event, low, high in whole if event == "opened" for n in range(low, high + 1)]
    assert (sorted(opened), len(opened)) == (sorted(missing), len(set(opened)))
    assert sorted(cut) == sorted(whole)
