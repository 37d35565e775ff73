"""A whole worker at a gap of halting size: one stream waits, the others go on, and a release writes it in order."""

from __future__ import annotations

import pytest

from k2.common.degradation import DegradationLevel
from k2.testing.simulated_gaps import TOPIC
from k2.testing.simulated_halting import SimulatedHalting
from k2.testing.simulated_ingest import TOPICS

START_MS = 1_700_000_000_000


@pytest.fixture
def world() -> SimulatedHalting:
    world = SimulatedHalting(3, messages=10)
    world.start_worker()
    world.rebalance()
    return world


def append(world: SimulatedHalting, *messages: tuple[str, int]) -> None:
    """Write messages of symbols with their numbers to partition 0."""
    at = len(world.log.topics[TOPIC].partitions[0])
    values = [
        f"#{symbol}|{number}|20000|{START_MS + 10 * (at + place)}".encode()
        for place, (symbol, number) in enumerate(messages)
    ]
    world.log.append(TOPIC, 0, *values)


def work(world: SimulatedHalting, steps: int = 25) -> None:
    for _ in range(steps):
        world.clock.sleep(1)
        for worker in list(world.workers):
            worker.step_consumer()
            worker.step_writer()


def restart(world: SimulatedHalting) -> None:
    world.kill(world.workers[0])
    world.start_worker()
    world.rebalance()


def with_gap(world: SimulatedHalting) -> None:
    """A skips 49 numbers at its third message, offset 4."""
    append(world, ("A", 1), ("C", 1), ("A", 2), ("C", 2), ("A", 52), ("C", 3), ("A", 53), ("C", 4))


def opened(world: SimulatedHalting) -> list[tuple[str, int, int]]:
    return [
        (event["symbol"], event["first_missing"], event["last_missing"])
        for event in world.tables.gap_events.values()
        if event["event"] == "opened"
    ]


def test_one_stream_waits_from_the_message_that_showed_its_gap_and_the_others_go_on(world) -> None:
    with_gap(world)
    work(world)
    append(world, ("A", 54), ("C", 5))

    work(world)

    ((table, entry),) = world.halts()
    assert (table, entry.start, entry.end, entry.records) == (TOPICS[TOPIC], 4, 10, 3)
    assert world.messages_of(0, "A") == [(0, 1), (2, 2)]
    assert world.messages_of(0, "C") == [(1, 1), (3, 2), (5, 3), (7, 4), (9, 5)]
    assert opened(world) == []


def test_it_waits_after_a_restart_as_well(world) -> None:
    with_gap(world)
    work(world)
    restart(world)
    append(world, ("A", 54), ("C", 5))

    work(world)

    ((_, entry),) = world.halts()
    assert entry.records == 3
    assert world.messages_of(0, "A") == [(0, 1), (2, 2)]


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_release_writes_it_in_order_and_tells_its_gap(world, is_killed: bool) -> None:
    with_gap(world)
    work(world)
    world.release(*world.halts()[0])
    if is_killed:
        restart(world)

    work(world)
    append(world, *[("A", number) for number in range(54, 62)])
    work(world)

    assert world.halts() == []
    assert world.messages_of(0, "A") == [(0, 1), (2, 2), (4, 52), (6, 53), *enumerate(range(54, 62), start=8)]
    assert opened(world) == [("A", 3, 51)]


def test_a_later_gap_is_another_halt(world) -> None:
    with_gap(world)
    work(world)
    world.release(*world.halts()[0])
    work(world)

    append(world, ("A", 54), ("A", 154), ("C", 5))
    work(world)

    ((_, entry),) = world.halts()
    assert (entry.halted.since, entry.records) == (9, 1)
    assert world.messages_of(0, "C")[-1] == (10, 5)


def test_overload_comes_and_goes_while_a_stream_is_halted(world) -> None:
    append(world, ("C", 1), ("D", 1), ("C", 51), ("D", 2))
    work(world)
    world.ladder.level = DegradationLevel.AGGRESSIVE
    append(world, ("A", 1), ("C", 52), ("D", 3))
    work(world)
    during = [world.messages_of(0, symbol)[-1:] for symbol in "ACD"]

    world.ladder.level = DegradationLevel.NORMAL
    work(world)
    after = [world.messages_of(0, symbol)[-1:] for symbol in "ACD"]

    ((_, entry),) = world.halts()
    assert during == [[(4, 1)], [(0, 1)], [(3, 2)]]
    assert after == [[(4, 1)], [(0, 1)], [(6, 3)]]
    assert (entry.start, entry.records) == (2, 2)


def test_without_the_policy_nothing_waits(world) -> None:
    world.settings = world.settings.model_copy(
        update={"sequences": world.settings.sequences.model_copy(update={"on_halt": "alert"})}
    )
    restart(world)
    with_gap(world)

    work(world)

    assert world.halts() == []
    assert world.messages_of(0, "A") == [(0, 1), (2, 2), (4, 52), (6, 53)]
