"""A run of the simulated market on its way through the channel: the same bytes each time, and each record once."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2.common.errors import CorruptionError
from k2.feeds.market import Market, MarketRun
from k2.feeds.resuming import ResumingOutlet
from k2.feeds.simulation import Played, play
from k2.schemas.records import RECORD_TYPES
from k2.testing.damage import flip
from k2.testing.feed_world import FeedWorld
from k2.testing.manual_clock import ManualClock

RUN = MarketRun(seed=7, start_ns=1_767_225_600_000_000_000, rate=2_000.0, symbols=20)
SECONDS = 2
SECOND_NS = 1_000_000_000
STATUS = "market.simulated.status.sim"


def outlet_of(world: FeedWorld, run: MarketRun = RUN) -> ResumingOutlet:
    held = {
        name: world.held.highest_by_partition(
            world.channel.topic(name), source=run.run_id, start_ns=run.start_ns, end_ns=run.start_ns + 60 * SECOND_NS
        )
        for name in RECORD_TYPES
    }
    return ResumingOutlet(world.channel, held)


def run_of(outlet, run: MarketRun = RUN) -> Played:
    return play(
        Market(run, duration_ns=SECONDS * SECOND_NS),
        outlet,
        clock=ManualClock(),
        pacer=None,
        is_stopped=lambda: False,
        on_progress=lambda _: None,
    )


def test_two_runs_with_the_same_seed_and_start_send_the_same_bytes(tmp_path: Path) -> None:
    one, other = FeedWorld(tmp_path, "sim"), FeedWorld(tmp_path, "sim")

    run_of(one.channel)
    run_of(other.channel)

    for name in (*RECORD_TYPES, "status"):
        assert one.values(name) == other.values(name) != []
    assert one.rows("trades").height > 100


def test_another_seed_sends_other_bytes(tmp_path: Path) -> None:
    one, other = FeedWorld(tmp_path, "sim"), FeedWorld(tmp_path, "sim")

    run_of(one.channel)
    run_of(other.channel, MarketRun(seed=8, start_ns=RUN.start_ns, rate=RUN.rate, symbols=RUN.symbols))

    assert one.values("trades") != other.values("trades")


@pytest.mark.parametrize("ingested", [False, True], ids=["still in the log", "in the table"])
def test_the_same_run_played_again_adds_nothing(tmp_path: Path, ingested: bool) -> None:
    world = FeedWorld(tmp_path, "sim")
    first = run_of(outlet_of(world))
    before = {name: world.values(name) for name in (*RECORD_TYPES, "status")}
    if ingested:
        for name in RECORD_TYPES:
            world.ingest(name)

    outlet = outlet_of(world)
    again = run_of(outlet)

    assert {name: world.values(name) for name in before} == before
    assert outlet.left_out == again.total == first.total


def test_a_run_whose_records_are_deferred_adds_nothing_when_it_is_played_again(tmp_path: Path) -> None:
    world = FeedWorld(tmp_path, "sim")
    run_of(world.channel)
    for name in RECORD_TYPES:
        world.ingest(name, deferred=True)
    before = {name: world.values(name) for name in RECORD_TYPES}

    run_of(outlet_of(world))

    assert {name: world.values(name) for name in RECORD_TYPES} == before


@pytest.mark.parametrize("ingested", [False, True], ids=["still in the log", "in the table"])
def test_an_interrupted_run_is_completed_byte_for_byte(tmp_path: Path, ingested: bool) -> None:
    world, whole = FeedWorld(tmp_path, "sim"), FeedWorld(tmp_path, "sim")
    run_of(world.channel)
    run_of(whole.channel)
    for name in RECORD_TYPES:
        topic = world.channel.topic(name).name
        for number, entries in enumerate(world.log.topics[topic].partitions):
            world.log.truncate(topic, number, len(entries) * number // 4)
        if ingested:
            world.ingest(name)
    world.log.truncate(STATUS, 0, 0)

    run_of(outlet_of(world))

    for name in (*RECORD_TYPES, "status"):
        assert world.values(name) == whole.values(name)


def test_what_is_held_is_not_read_from_a_damaged_file(tmp_path: Path) -> None:
    world = FeedWorld(tmp_path, "sim")
    run_of(world.channel)
    world.ingest("trades")
    (damaged,) = tmp_path.glob("trades-*.parquet")
    flip(damaged, 800)

    with pytest.raises(CorruptionError, match=damaged.name):
        outlet_of(world)
