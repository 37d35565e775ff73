"""The mute watch: who falls silent is told of once, who keeps its rhythm never, and nobody out of hours."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import numpy as np
import polars as pl
import pytest

from k2.ingestion import events
from k2.ingestion.duplicates.deduplicator import Part
from k2.ingestion.watching.mutes import MuteWatch
from k2.ingestion.watching.open_hours import OpenHours
from k2.ingestion.watching.rhythm import NEVER, RhythmRules, Rhythms
from k2.storage.seam import LogPartition
from k2.testing.manual_clock import ManualClock

START = datetime(2014, 3, 11, 10, tzinfo=UTC)
TOPIC = "market.equities.trades.asx"
SECOND_NS = 10**9


class World:
    """A watch, and what it told."""

    def __init__(self, hours: OpenHours | None = None, *, streams_max: int = 100) -> None:
        self.told: list[events.Event] = []
        self.clock = ManualClock(int(START.timestamp()) * SECOND_NS)
        self.watch = MuteWatch(
            {} if hours is None else {"asx": hours},
            rules=RhythmRules(),
            streams_max=streams_max,
            live_seconds_max=60,
            clock=self.clock,
            observer=self.told.append,
        )

    def arrive(self, arrivals: list[tuple[str, float]], *, since: datetime = START, delay_seconds: float = 0) -> None:
        """Commit one batch of symbols at seconds."""
        arrivals = sorted(arrivals, key=lambda arrival: arrival[1])
        times = [since + timedelta(seconds=seconds) for _, seconds in arrivals]
        frame = pl.DataFrame(
            {"symbol": [symbol for symbol, _ in arrivals], "ts_log": times},
            schema={"symbol": pl.String, "ts_log": pl.Datetime("us", "UTC")},
        ).with_columns(
            exchange=pl.lit("asx"), ts_recv_ns=pl.col("ts_log").dt.epoch("ns") - int(delay_seconds * SECOND_NS)
        )
        self.watch.committed("trades", {LogPartition(0, 1): Part(0, [frame])})

    def pass_time(self, seconds: float, *, lag: int = 0) -> None:
        """Let the machine's clock come to some seconds after the start, with nothing left to read."""
        self.clock.advance(seconds - self.clock.monotonic())
        self.watch(events.LagMeasured("trades", TOPIC, 1, lag))

    def silent(self) -> list[str | None]:
        return [event.symbol for event in self.told if isinstance(event, events.StreamSilent)]

    def heard(self) -> list[str | None]:
        return [event.symbol for event in self.told if isinstance(event, events.StreamHeard)]


def steady(symbol: str, start: float, end: float, step: float = 0.5) -> list[tuple[str, float]]:
    return [(symbol, float(seconds)) for seconds in np.arange(start, end, step)]


def both(start: float, end: float) -> list[tuple[str, float]]:
    return [*steady("AAA", start, end), *steady("BBB", start + 0.2, end)]


def test_a_symbol_that_falls_silent_is_told_of_once_and_again_when_it_is_heard() -> None:
    world = World()
    world.arrive(both(0, 300))

    for second in range(300, 340, 5):
        world.arrive(steady("BBB", second, second + 5))
    silent = world.silent()
    world.arrive(both(340, 345))

    (event,) = [event for event in world.told if isinstance(event, events.StreamSilent)]
    assert silent == ["AAA"]
    assert event.silent_seconds > event.limit_seconds >= 2
    assert world.heard() == ["AAA"]
    assert world.silent() == ["AAA"]


def test_a_silent_partition_is_told_of_as_one_and_its_symbols_begin_anew() -> None:
    world = World()
    world.arrive(both(0, 300))

    for second in range(300, 360, 5):
        world.pass_time(second)
    world.arrive(steady("AAA", 360, 361))
    world.arrive(both(361, 370))

    assert world.silent() == [None]
    assert world.heard() == [None]


def test_a_partition_that_is_behind_is_not_silent() -> None:
    world = World()
    world.arrive(both(0, 300))

    world.pass_time(400, lag=7)

    assert world.silent() == []


def test_nobody_is_silent_while_the_venue_is_closed() -> None:
    world = World(OpenHours("UTC", [(time(10), time(10, 5))]))
    world.arrive(both(0, 270))  # silent for half a minute at the end, which nobody looks at before it is closed

    for hours in (1, 5, 12, 23):
        world.pass_time(hours * 3_600)
    next_day = START + timedelta(days=1)
    world.pass_time(86_400 + 1)
    world.arrive(both(1, 5), since=next_day)

    assert world.told == []


def test_a_symbol_that_does_not_begin_the_day_is_told_of_after_the_opening() -> None:
    world = World(OpenHours("UTC", [(time(10), time(10, 5))]))
    world.arrive(both(0, 300))

    next_day = START + timedelta(days=1)
    for second in range(0, 60, 5):
        world.arrive(steady("BBB", second, second + 5), since=next_day)

    assert world.silent() == ["AAA"]
    (event,) = world.told
    assert event.silent_seconds < 30


def test_a_stream_that_is_not_known_yet_is_never_silent() -> None:
    world = World()
    world.arrive(steady("AAA", 0, 40))

    world.pass_time(4_000)

    assert world.silent() == []


def test_history_has_no_rhythm_and_its_end_is_no_silence() -> None:
    world = World()
    world.arrive(both(0, 300), delay_seconds=61)

    world.pass_time(4_000)

    assert world.silent() == []


def test_streams_beyond_the_bound_are_not_watched() -> None:
    world = World(streams_max=2)
    world.arrive([*steady("AAA", 0, 300), *steady("ZZZ", 0.1, 300)])

    for second in range(300, 400, 5):
        world.arrive(steady("NEW", second, second + 5))

    assert world.silent() == ["AAA"]


@pytest.mark.parametrize("seed", range(3))
def test_the_limit_of_poisson_arrivals_is_the_quantile_that_was_asked_for(seed: int) -> None:
    gaps = np.random.default_rng(seed).exponential(SECOND_NS, 20_000)
    rhythms = Rhythms(RhythmRules(chance=1e-6))

    rhythms.heard(np.zeros(20_000, np.int64), np.cumsum(gaps).astype(np.int64), np.zeros(20_000, np.int64))

    quantile = -np.log(1e-6)
    assert 0.95 * quantile < rhythms.limit_ns[0] / SECOND_NS < 1.6 * quantile


def test_a_rhythm_that_slows_down_is_learned_and_one_silence_is_not() -> None:
    rhythms = Rhythms(RhythmRules())
    random = np.random.default_rng(1)

    def hear(seconds: np.ndarray) -> float:
        if len(seconds) > 500:
            return [hear(part) for part in np.split(seconds, len(seconds) // 500)][-1]
        times = max(0, rhythms.last_ns[0])
        arrivals = times + np.cumsum(seconds * SECOND_NS).astype(np.int64)
        rhythms.heard(np.zeros(len(arrivals), np.int64), arrivals, np.zeros(len(arrivals), np.int64))
        return float(rhythms.limit_ns[0]) / SECOND_NS

    quick = hear(random.exponential(0.5, 5_000))
    after_silence = hear(np.array([3_600.0]))
    slow = hear(random.exponential(5.0, 30_000))

    assert after_silence < 1.5 * quick
    assert slow > 5 * quick


def test_where_batches_end_changes_no_limit() -> None:
    random = np.random.default_rng(7)
    stream = np.sort(random.integers(0, 3, 3_000))
    times = random.integers(0, 600 * SECOND_NS, 3_000)
    order = np.lexsort((times, stream))
    stream, times = stream[order], times[order]
    whole, parts = Rhythms(RhythmRules(gaps_memory=10**6)), Rhythms(RhythmRules(gaps_memory=10**6, gaps_min=10**5))
    nothing = np.zeros(3_000, np.int64)

    whole.heard(stream, times, nothing)
    for low in range(0, 600 * SECOND_NS, 7 * SECOND_NS):
        now = (times >= low) & (times < low + 7 * SECOND_NS)
        parts.heard(stream[now], times[now], nothing[now])

    assert np.allclose(parts._count, whole._count)
    assert np.allclose(parts._sum, whole._sum)
    assert (whole.limit_ns[:3] < NEVER).all()


def test_silence_is_not_counted_while_batches_are_not_shown() -> None:
    world = World()
    world.arrive(both(0, 300))

    world.watch.skipped("trades")
    world.pass_time(400)
    world.arrive(both(400, 402))
    world.pass_time(402.5)
    shown_again = world.silent()
    for second in range(403, 440, 5):
        world.arrive(steady("BBB", second, second + 5))

    assert shown_again == []
    assert world.silent() == ["AAA"]
