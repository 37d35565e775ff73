"""Whatever crashes, rebalances and fails: the ledger of gaps is what a sorted set of the numbers says, each gap once.

`K2_GAP_MESSAGES` sets how many messages each partition gets; with 46000 the eight runs inject 93,070 faults.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from k2.common import crash_points
from k2.ingestion import events
from k2.ingestion.sequences.settings import SequenceSettings
from k2.testing.simulated_duplicates import SimulatedDuplicates
from k2.testing.simulated_ingest import TOPICS, crash_at
from k2.testing.simulated_tables import SimulatedDecoder

TOPIC = next(iter(TOPICS))
MESSAGES = int(os.environ.get("K2_GAP_MESSAGES", "800"))
PARTITIONS = 2
SETTINGS = SequenceSettings(
    reorder_messages=5, reorder_seconds=0.2, lost_seconds=4, memory_seconds=900, memory_offsets=1_000_000
)
OPENED, FILLED, LOST = "opened", "filled", "lost"


class Stream:
    """One symbol's feed: numbers in order, of which some are dropped, doubled, late or begin anew."""

    def __init__(self, drawn: random.Random) -> None:
        self.drawn = drawn
        self.number, self.day = 0, 20_000
        self.late: list[tuple[int, int, int]] = []
        self.injected: Counter = Counter()

    def next(self) -> list[tuple[int, int]]:
        """Return what is sent now: sequence and trading date."""
        sent = []
        self.late = [(wait - 1, number, day) for wait, number, day in self.late]
        sent += [(number, day) for wait, number, day in self.late if wait <= 0]
        self.late = [entry for entry in self.late if entry[0] > 0]
        self.number += 1
        what = self.drawn.random()
        if what < 0.06:
            self.injected["gap"] += 1
            self.number += self.drawn.choice([1, 1, 2, 7, 40])
        elif what < 0.10:
            self.injected["reorder"] += 1
            self.late.append((self.drawn.choice([1, 2, 4, 5, 6, 7, 30, 90]), self.number, self.day))
            self.number += 1
        elif what < 0.13:
            self.injected["duplicate"] += 1
            sent.append((self.number, self.day))
        elif what < 0.135:
            self.injected["reset"] += 1
            self.number, self.day = 1, self.day + 1
        return [*sent, (self.number, self.day)]


class Model:
    """The reference: per symbol a sorted set of what was seen, and for each number missing when it was missed."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int, int]] = set()
        self.front: dict[str, int] = {}
        self.day: dict[str, int] = {}
        self.count: Counter = Counter()
        self.missing: dict[tuple[str, int, int], tuple[int, int, int]] = {}
        self.opened: set = set()
        self.lost: set = set()
        self.waiting: dict = {}
        self.events: set = set()
        self.clock = 0

    def pass_time(self) -> None:
        """Open what waited too long, and lose it, by the time and the message that have come."""
        for key, (at_offset, at_ms, at_count) in list(self.waiting.items()):
            name, _, number = key
            coming = self.count[name] + 1
            late = self.clock - at_ms
            lost = late > SETTINGS.lost_seconds * 1_000
            if key not in self.opened and (
                lost or late > SETTINGS.reorder_seconds * 1_000 or coming - at_count > SETTINGS.reorder_messages
            ):
                self.opened.add(key)
                self.events.add((OPENED, name, at_offset, number))
            if lost and key not in self.lost:
                self.lost.add(key)
                self.events.add((LOST, name, at_offset, number))
                del self.waiting[key]

    def take(self, symbol: str, number: int, day: int, ms: int, offset: int) -> None:
        if (symbol, day, number) in self.seen:  # the deduplicator drops it
            return
        self.seen.add((symbol, day, number))
        self.clock = max(self.clock, ms)
        self.pass_time()
        if symbol not in self.front or (day > self.day[symbol] and number <= self.front[symbol]):
            self.front[symbol], self.day[symbol] = number, day
        elif day >= self.day[symbol] and number > self.front[symbol]:
            for absent in range(self.front[symbol] + 1, number):
                key = (symbol, self.day[symbol], absent)
                self.missing[key] = self.waiting[key] = (offset, self.clock, self.count[symbol] + 1)
            self.front[symbol] = number
        else:
            key = (symbol, day, number)
            if key in self.missing:
                if key in self.opened:
                    self.events.add((FILLED, symbol, offset, number))
                del self.missing[key]
                self.waiting.pop(key, None)
        self.count[symbol] += 1
        self.pass_time()


class NumberedIngest(SimulatedDuplicates):
    """Workers that deduplicate, and read what `produce` writes."""

    def decoder(self, record_type, registry_fails):
        return SimulatedDecoder(record_type, registry_fails=registry_fails)


@pytest.fixture
def world(request, monkeypatch):
    simulated = NumberedIngest(request.param, partitions=PARTITIONS)
    simulated.settings = simulated.settings.model_copy(
        update={
            "sequences": SETTINGS,
            "commit_rows_max": simulated.random.choice([30, 200, 1_000]),
            "decode_messages_max": 500,
            "buffer_bytes_max": 100_000,
        }
    )
    batch = max(12, MESSAGES // 100)
    simulated.batch_messages = lambda: simulated.random.randint(1, batch)
    monkeypatch.setattr(crash_points, "reached", crash_at(simulated))
    print(f"seed {request.param}")  # noqa: T201 shown when the test fails
    return simulated


def produce(world: NumberedIngest) -> tuple[list[Model], Counter]:
    """Write every partition's messages to the log; return what the reference says of each."""
    models, injected = [], Counter()
    for partition in range(PARTITIONS):
        model, ms = Model(), 1_700_000_000_000
        streams = {name: Stream(world.random) for name in "ABC"}
        values: list[bytes] = []
        while len(values) < MESSAGES:
            name = world.random.choice(list(streams))
            for number, day in streams[name].next():
                ms += world.random.choice([1, 1, 5, 40, 400])
                model.take(name, number, day, ms, len(values))
                values.append(f"#{name}|{number}|{day}|{ms}".encode())
        world.log.append(TOPIC, partition, *values)
        models.append(model)
        for stream in streams.values():
            injected += stream.injected
    return models, injected


def live(world: NumberedIngest, workers: int) -> None:
    crash = world.random.choice([0.01, 0.03])
    faults = world.faults
    faults.crash = lambda _point: world.random.random() < crash
    faults.reply_lost = world.chance(0.1)
    faults.side_table_fails = world.chance(0.1)
    faults.before_commit = world.chance(0.05)
    for _ in range(workers):
        world.start_worker()
    world.rebalance()
    for _ in range(120):
        if world.random.random() < 0.05:
            world.rebalance()
        world.clock.sleep(world.random.choice([0.0, 0.3, 3.0]))
        worker = world.random.choice(world.workers)
        world.run(world.random.choice([worker.step_consumer, worker.step_writer]), worker)


def found(world: NumberedIngest, partition: int) -> Counter:
    """Return the ledger number by number: event, symbol, offset, number."""
    return Counter(
        (event["event"], event["symbol"], event["event_offset"], number)
        for event in world.tables.gap_events.values()
        if event["log_partition"] == partition
        for number in range(event["first_missing"], event["last_missing"] + 1)
    )


def watched(world: NumberedIngest) -> list[events.SequencesWatched]:
    return [event for worker in world.workers for event in worker.events if isinstance(event, events.SequencesWatched)]


def dropped(world: NumberedIngest) -> int:
    seam = world.tables.tables[TOPICS[TOPIC]].head.seam
    return sum(partition.counts.duplicates for partition in seam.partitions.values())


@pytest.mark.parametrize("world", range(4), indirect=True)
@pytest.mark.parametrize("workers", [1, 2])
def test_the_ledger_is_what_a_sorted_set_says_whatever_happens(world, workers):
    models, injected = produce(world)

    live(world, workers)
    world.settle(steps_max=400 + MESSAGES // 10)

    total = Counter()
    for partition, model in enumerate(models):
        ledger = found(world, partition)
        total.update(event for event, *_ in ledger)
        assert ledger == Counter(model.events)
    assert dropped(world) == injected["duplicate"]
    assert not any(event.messages.get("duplicate") for event in watched(world))
    assert min(injected[kind] for kind in ("gap", "duplicate", "reorder", "reset")) > 0
    assert min(total[kind] for kind in (OPENED, FILLED, LOST)) > 0
    print(f"injected {dict(injected)}, numbers {dict(total)}, crashes and all")  # noqa: T201 for the long run
