"""Two lines of one venue: who was first, by how much, and what each has lost, whatever the cuts between batches."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest

from k2.feeds.faults.injector import FaultInjector
from k2.feeds.faults.rates import FaultRates
from k2.feeds.faults.truth import Entry
from k2.ingestion import events
from k2.ingestion.duplicates.deduplicator import Part
from k2.ingestion.events import LineCounts
from k2.ingestion.watching.lines import LineStatistics
from k2.schemas.arrow import message_polars_schema
from k2.schemas.records import TRADES
from k2.storage.seam import LogPartition
from k2.testing.market_rows import market_rows

START = datetime(2026, 1, 2, tzinfo=UTC)
WINDOW = timedelta(seconds=10)
AT = LogPartition(0, 0)
Arrival = tuple[str, int, float]
"""Source, number, and seconds of log time."""


class Told:
    """Adds up what is told, by line."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}

    def __call__(self, event: events.Event, /) -> None:
        assert isinstance(event, events.LinesCompared)
        for line, counts in event.lines.items():
            names = LineCounts.__dataclass_fields__
            self.counts.setdefault(line, Counter()).update({name: getattr(counts, name) for name in names})


def statistics(told: Told, *, numbers_max: int = 1_000) -> LineStatistics:
    return LineStatistics({"sim": ("a", "b")}, window=WINDOW, numbers_max=numbers_max, observer=told)


def rows_of(arrivals: list[Arrival], *, offset: int = 0) -> pl.DataFrame:
    times = [START + timedelta(seconds=seconds) for _, _, seconds in arrivals]
    return market_rows(range(offset, offset + len(arrivals)), symbols=("AAA",)).with_columns(
        source=pl.Series([source for source, _, _ in arrivals], dtype=pl.String),
        sequence=pl.Series([number for _, number, _ in arrivals], dtype=pl.Int64),
        ts_log=pl.Series(times, dtype=pl.Datetime("us", "UTC")),
    )


def watch(watcher: LineStatistics, *batches: list[Arrival]) -> None:
    offset = 0
    for arrivals in batches:
        watcher.committed("trades", {AT: Part(offset, [rows_of(arrivals, offset=offset)])})
        offset += len(arrivals)


def test_the_line_that_was_first_leads_by_the_log_time_between_the_two() -> None:
    told = Told()

    watch(statistics(told), [("a", 1, 0.0), ("b", 1, 0.25), ("b", 2, 1.0), ("a", 2, 1.5), ("other", 9, 20.0)])

    assert told.counts["a"] == Counter(first=1, second=1, led=1, lead_seconds=0.25, lost=0, late=0)
    assert told.counts["b"] == Counter(first=1, second=1, led=1, lead_seconds=0.5, lost=0, late=0)


def test_a_number_is_lost_once_the_window_is_over_and_not_before() -> None:
    told = Told()
    watcher = statistics(told)

    watch(watcher, [("a", 1, 0.0), ("a", 2, 9.9)])
    early = told.counts["b"]["lost"]
    watch(watcher, [("b", 3, 10.0)])

    assert (early, told.counts["b"]["lost"]) == (0, 1)
    assert told.counts["a"]["lost"] == 0


def test_a_number_that_comes_after_the_window_is_late_and_no_longer_counted_as_first() -> None:
    told = Told()

    watch(statistics(told), [("a", 1, 0.0)], [("a", 2, 20.0)], [("b", 1, 21.0)], [("b", 3, 60.0), ("a", 3, 60.5)])

    assert told.counts["b"]["late"] == 1
    assert told.counts["b"]["first"] == 0
    assert told.counts["b"]["lost"] == 2


def test_a_session_of_a_line_belongs_to_it_and_a_repetition_counts_once() -> None:
    told = Told()

    watch(statistics(told), [("a/2026-01-02", 1, 0.0), ("a/2026-01-02", 1, 0.1), ("ab", 1, 0.2), ("b", 99, 20.0)])

    assert told.counts["a"] == Counter(first=1, second=0, lost=0, late=0, led=0, lead_seconds=0)
    assert told.counts["b"]["lost"] == 1


def test_an_exchange_without_lines_tells_nothing() -> None:
    told = Told()
    watcher = LineStatistics({"asx": ("a", "b")}, window=WINDOW, numbers_max=10, observer=told)

    watch(watcher, [("a", 1, 0.0), ("b", 1, 60.0)])

    assert told.counts == {}


def test_what_is_held_is_bounded() -> None:
    told = Told()
    watcher = statistics(told, numbers_max=100)

    watch(watcher, *[[("a", number, number / 1_000)] for number in range(1, 401)])

    (held,) = watcher._held.values()
    assert len(held) == 100
    assert told.counts["b"]["lost"] == 300


@pytest.mark.parametrize("seed", range(4))
def test_what_each_line_lost_and_led_is_what_was_injected(seed: int) -> None:
    feed = market_rows(range(1, 3_001), symbols=("AAA",)).select(list(message_polars_schema(TRADES)))
    truths: dict[str, list[Entry]] = {"a": [], "b": []}
    arrivals: list[Arrival] = []
    draw = random.Random(seed)
    for line, rates in (("a", FaultRates(gaps=0.05, seed=seed)), ("b", FaultRates(gaps=0.1, reorder=0.1, seed=99))):
        injector = FaultInjector("trades", rates, scope="symbol", streams_max=10, tell=truths[line].append)
        sent = pl.concat([injector.inject(feed), injector.end()])["sequence"].to_list()
        arrivals += [(line, number, place * 0.01 + draw.random() * 0.02) for place, number in enumerate(sent)]
    arrivals.sort(key=lambda arrival: arrival[2])
    ending: list[Arrival] = [("a", 3_001, 100.0), ("b", 3_001, 100.0)]
    edges = [0, *sorted(draw.sample(range(1, len(arrivals)), 9)), len(arrivals)]

    told = Told()
    watch(statistics(told), *[arrivals[low:high] for low, high in pairwise(edges)], ending)

    missing = {
        line: {entry["record"]["sequence"] for entry in truth if entry["kind"] == "withheld"}
        for line, truth in truths.items()
    }
    firsts: dict[int, Arrival] = {}
    for arrival in arrivals:
        firsts.setdefault(arrival[1], arrival)
    for line, other in (("a", "b"), ("b", "a")):
        assert told.counts[line]["lost"] == len(missing[line] - missing[other])
        assert told.counts[line]["first"] == sum(arrival[0] == line for arrival in firsts.values())
        assert told.counts[line]["late"] == 0
    leads = [seconds - firsts[number][2] for _, number, seconds in arrivals if firsts[number][2] != seconds]
    assert sum(told.counts[line]["lead_seconds"] for line in "ab") == pytest.approx(sum(leads), abs=0.01)


def test_what_was_not_shown_is_lost_to_no_line() -> None:
    told = Told()
    watcher = statistics(told)
    watch(watcher, [("a", 1, 0.0)])

    watcher.skipped("trades")
    watch(watcher, [("a", 5, 30.0), ("b", 5, 30.5)], [("a", 6, 60.0)])

    assert told.counts["b"]["lost"] == 0
    assert told.counts["b"]["second"] == 1
