"""How a recording is played again: its pace, its names, its end."""

from __future__ import annotations

import polars as pl
import pytest

from k2.feeds.replaying import Replay, Replayed
from k2.schemas.arrow import message_polars_schema
from k2.schemas.records import TRADES
from k2.testing.manual_clock import ManualClock
from k2.testing.market_rows import market_rows

STEP_NS = 10_000_000


class Memory:
    """An outlet that keeps what it gets and when."""

    def __init__(self, clock: ManualClock) -> None:
        self.sent: list[tuple[float, pl.DataFrame]] = []
        self.ends = pl.DataFrame()
        self._clock = clock

    @property
    def rows(self) -> pl.DataFrame:
        return pl.concat(rows for _, rows in self.sent)

    def send(self, data_type: str, rows: pl.DataFrame) -> None:
        assert data_type == "trades"
        self.sent.append((self._clock.monotonic(), rows))

    def flush(self) -> None:
        assert self.ends.is_empty(), "an end is marked once everything before it is in the log"

    def mark_end(self, data_type: str, rows: pl.DataFrame) -> None:
        assert data_type == "trades"
        self.ends = rows


def recording(records: int = 1_000) -> list[pl.DataFrame]:
    rows = market_rows(range(1, records + 1), step_ns=STEP_NS).select(list(message_polars_schema(TRADES)))
    return [rows[:333], rows[333:]]


def play(
    frames: list[pl.DataFrame], *, speed: float | None, source: str | None = None, stop_after: int = 10**9
) -> tuple[Memory, Replayed]:
    clock = ManualClock()
    outlet = Memory(clock)
    replay = Replay(
        "trades", "asx", outlet=outlet, clock=clock, speed=speed, catch_up_seconds_max=5, source=source
    )  # fmt: skip
    is_stopped = lambda: sum(len(rows) for _, rows in outlet.sent) >= stop_after  # noqa: E731 - one expression
    return outlet, replay.play(frames, is_stopped=is_stopped, on_progress=lambda _: None)


@pytest.mark.parametrize("speed", [0.5, 1, 20])
def test_a_replay_takes_its_recorded_time_over_the_speed(speed: float) -> None:
    outlet, replayed = play(recording(), speed=speed)

    assert replayed.seconds == pytest.approx(999 * STEP_NS / 1e9 / speed, abs=0.06)
    assert outlet.rows.drop("exchange").equals(pl.concat(recording()).drop("exchange"))
    for seconds, rows in outlet.sent:
        due = (rows["ts_event_ns"][-1] - outlet.rows["ts_event_ns"][0]) / 1e9 / speed
        assert due - 0.06 <= seconds <= due + 0.01


def test_a_replay_without_a_pace_waits_for_nothing() -> None:
    _, replayed = play(recording(), speed=None)

    assert (replayed.records, replayed.seconds) == (1_000, 0)


def test_a_record_that_is_older_than_the_one_before_it_is_not_waited_for_again() -> None:
    first, rest = recording()
    frames = [first, first.head(1), rest]

    outlet, replayed = play(frames, speed=1)

    assert outlet.rows["source_sequence"].to_list() == [*range(1, 334), 1, *range(334, 1_001)]
    assert replayed.seconds == pytest.approx(9.99, abs=0.06)


def test_records_become_the_exchanges_and_keep_their_source() -> None:
    outlet, _ = play(recording(), speed=None)

    assert outlet.rows["exchange"].unique().to_list() == ["asx"]
    assert outlet.rows.select("source", "source_sequence").equals(
        pl.concat(recording()).select("source", "source_sequence")
    )


def test_a_named_feed_counts_its_own_records() -> None:
    outlet, _ = play(recording(), speed=None, source="line-a")

    assert outlet.rows["source"].unique().to_list() == ["line-a"]
    assert outlet.rows["source_sequence"].to_list() == list(range(1, 1_001))
    assert outlet.rows["sequence"].equals(pl.concat(recording())["sequence"])


def test_the_end_of_each_source_and_symbol_is_marked_with_what_was_sent() -> None:
    outlet, _ = play(recording(), speed=1, stop_after=500)

    by_symbol = outlet.rows.group_by("symbol").agg(pl.col("sequence").max(), pl.len()).sort("symbol")
    assert outlet.ends["last_sequence"].to_list() == by_symbol["sequence"].to_list()
    assert outlet.ends["records"].to_list() == by_symbol["len"].to_list()
    assert 500 <= outlet.ends["records"].sum() < 520


def test_a_symbol_without_numbers_has_an_end_without_one() -> None:
    unnumbered = [frame.with_columns(sequence=pl.lit(None, pl.Int64)) for frame in recording()]

    outlet, _ = play(unnumbered, speed=None)

    assert outlet.ends["last_sequence"].to_list() == [None] * 3
    assert outlet.ends["last_source_sequence"].max() == 1_000


def test_the_end_is_in_the_numbers_of_the_last_session() -> None:
    first = recording(300)
    second = [frame.with_columns(trading_date=pl.col("trading_date") + pl.duration(days=1)) for frame in recording(90)]
    late = [first[0][:3]]

    outlet, _ = play([*first, *second, *late], speed=None)

    assert sorted(outlet.ends["last_sequence"].to_list()) == [29, 29, 30]
    assert outlet.ends["records"].sum() == 393
