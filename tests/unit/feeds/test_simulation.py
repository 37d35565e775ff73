"""How a run is played: at its own pace, late within a bound, and always with an end."""

from __future__ import annotations

import polars as pl
import pytest

from k2.common.errors import UnavailableError
from k2.feeds.market import Market, MarketRun
from k2.feeds.simulation import Pacer, Played, play
from k2.testing.manual_clock import ManualClock

RUN = MarketRun(seed=7, start_ns=1_767_225_600_000_000_000, rate=500.0, symbols=5)
SECOND_NS = 1_000_000_000


class Memory:
    """An outlet that keeps what it gets; fails from its `fails_at`-th send on."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.sent: dict[str, list[pl.DataFrame]] = {"trades": [], "quotes": []}
        self.ends: dict[str, pl.DataFrame] = {}
        self.flushes = 0
        self.beats: list[tuple[str, int, int]] = []
        self._left = fails_at

    def send(self, data_type: str, rows: pl.DataFrame) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise UnavailableError("the broker is down", dependency="kafka")
        self.sent[data_type].append(rows)

    def flush(self) -> None:
        self.flushes += 1

    def mark_end(self, data_type: str, rows: pl.DataFrame) -> None:
        assert self.flushes, "an end is marked once everything before it is in the log"
        self.ends[data_type] = rows

    def mark_alive(self, data_type: str, rows: pl.DataFrame) -> None:
        sent = sum(len(frame) for frame in self.sent[data_type])
        self.beats.append((data_type, rows["records"].sum(), sent))


def market(seconds: float = 2) -> Market:
    return Market(RUN, duration_ns=int(seconds * SECOND_NS))


def pacer_of(clock: ManualClock, catch_up_seconds_max: float = 5.0) -> Pacer:
    return Pacer(clock, start_ns=RUN.start_ns, catch_up_seconds_max=catch_up_seconds_max)


def never() -> bool:
    return False


def nobody(played: Played) -> None:
    del played


def test_a_paced_run_takes_its_own_time() -> None:
    clock, outlet = ManualClock(), Memory()

    played = play(market(2), outlet, clock=clock, pacer=pacer_of(clock), is_stopped=never, on_progress=nobody)

    assert played.seconds == pytest.approx(2, abs=0.01)
    assert played.slipped_seconds == 0


def test_the_pace_changes_no_byte() -> None:
    clock, paced, hurried = ManualClock(), Memory(), Memory()

    play(market(), paced, clock=clock, pacer=pacer_of(clock), is_stopped=never, on_progress=nobody)
    play(market(), hurried, clock=clock, pacer=None, is_stopped=never, on_progress=nobody)

    for data_type in ("trades", "quotes"):
        assert pl.concat(paced.sent[data_type]).equals(pl.concat(hurried.sent[data_type]))


def test_the_end_is_marked_with_what_was_sent() -> None:
    clock, outlet = ManualClock(), Memory()

    played = play(market(), outlet, clock=clock, pacer=None, is_stopped=never, on_progress=nobody)

    for data_type, ends in outlet.ends.items():
        assert ends["records"].sum() == played.records[data_type] == sum(map(len, outlet.sent[data_type]))


def test_a_stopped_run_marks_the_end_of_what_it_sent() -> None:
    clock, outlet = ManualClock(), Memory()

    played = play(
        Market(RUN), outlet, clock=clock, pacer=None, is_stopped=lambda: len(outlet.sent["quotes"]) >= 3,
        on_progress=nobody,
    )  # fmt: skip

    assert len(outlet.sent["quotes"]) == 3
    assert outlet.ends["quotes"]["records"].sum() == played.records["quotes"] == sum(map(len, outlet.sent["quotes"]))


def test_a_run_that_the_log_refuses_marks_no_end() -> None:
    outlet = Memory(fails_at=2)

    with pytest.raises(UnavailableError):
        play(market(), outlet, clock=ManualClock(), pacer=None, is_stopped=never, on_progress=nobody)

    assert outlet.ends == {}


def test_a_late_run_catches_up_without_waiting() -> None:
    clock = ManualClock()
    pacer = pacer_of(clock)
    clock.sleep(3)

    pacer.wait_for(RUN.start_ns + SECOND_NS, is_stopped=never)

    assert clock.monotonic() == pytest.approx(3 + ManualClock().monotonic())
    assert pacer.slipped_seconds == 0


def test_a_run_that_is_later_than_the_bound_slips_and_says_by_how_much() -> None:
    clock = ManualClock()
    pacer = pacer_of(clock, catch_up_seconds_max=5)
    clock.sleep(11)

    pacer.wait_for(RUN.start_ns + SECOND_NS, is_stopped=never)
    before = clock.monotonic()
    pacer.wait_for(RUN.start_ns + 2 * SECOND_NS, is_stopped=never)

    assert pacer.slipped_seconds == pytest.approx(10)
    assert clock.monotonic() - before == pytest.approx(1)


def test_heartbeats_say_what_was_sent_until_then() -> None:
    outlet = Memory()

    play(
        market(3),
        outlet,
        clock=ManualClock(),
        pacer=None,
        is_stopped=never,
        on_progress=nobody,
        heartbeat_seconds=1,
    )

    assert [data_type for data_type, _, _ in outlet.beats].count("trades") == 3
    assert all(said == sent for _, said, sent in outlet.beats)
    assert len({said for data_type, said, _ in outlet.beats if data_type == "trades"}) == 3
