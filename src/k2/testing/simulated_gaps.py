"""Numbered feeds with faults drawn from a seed, and a reference that says from sets of numbers what is missing when."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from k2.ingestion.sequences.markers import Marker, NoMarkers
from k2.ingestion.sequences.settings import SequenceSettings
from k2.testing.simulated_duplicates import SimulatedDuplicates
from k2.testing.simulated_ingest import TOPICS
from k2.testing.simulated_tables import SimulatedDecoder

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from k2.ingestion.sequences.markers import Markers
    from k2.kafka.ports import TopicPartition
    from k2.schemas.records import RecordType
    from k2.testing.simulated_ingest import SimulatedWorker

TOPIC: Final = next(iter(TOPICS))
SETTINGS: Final = SequenceSettings(
    reorder_messages=5, reorder_seconds=0.2, lost_seconds=4, memory_seconds=900, memory_offsets=1_000_000
)
OPENED, FILLED, LOST = "opened", "filled", "lost"
PARTITIONS: Final = 2
KINDS: Final = ("gap", "reorder", "duplicate", "reset", "tail")
_SHARES: Final = (
    ("gap", "reorder", "duplicate", "reset", "tail", "heartbeat", "nothing"),
    (60, 40, 30, 5, 20, 20, 825),
)
"""What happens to a message, and how often in a thousand."""
_LOOK_STEPS: Final = 50
"""How often it is looked at whether all has come: that takes as long as some steps."""
_QUIET_MS: Final = 1_000
"""Log time that passes after the last message."""

Key = tuple[str, int, int]
"""Symbol, trading date, number."""
Fact = tuple[str, str, int, int]
"""Event, symbol, offset, number."""


class Stream:
    """One symbol's feed: numbers in order, of which some are dropped, doubled, late or begin anew.

    Its first one comes as it is: a low number that comes long after higher ones, and that nobody misses, is a new
    numbering to the ledger.
    """

    def __init__(self, drawn: random.Random) -> None:
        self._drawn = drawn
        self.number, self.day = 0, 20_000
        self._late: list[tuple[int, int, int]] = []
        self.injected: Counter[str] = Counter()

    def next(self) -> tuple[list[tuple[int, int]], bool]:
        """Return what is sent now (sequence and trading date), and whether a heartbeat follows."""
        sent = []
        self._late = [(wait - 1, number, day) for wait, number, day in self._late]
        sent += [(number, day) for wait, number, day in self._late if wait <= 0]
        self._late = [entry for entry in self._late if entry[0] > 0]
        (what,) = self._drawn.choices(*_SHARES) if self.number else ("nothing",)
        if what == "tail":
            self.withhold()
            return sent, True
        self.number += 1
        if what == "gap":
            self.number += self._drawn.choice([1, 1, 2, 7, 40])
        elif what == "reorder":
            self._late.append((self._drawn.choice([1, 2, 4, 5, 6, 7, 30, 90]), self.number, self.day))
            self.number += 1
        elif what == "duplicate":
            sent.append((self.number, self.day))
        elif what == "reset":
            self.number, self.day = 1, self.day + 1
        if what in KINDS:
            self.injected[what] += 1
        return [*sent, (self.number, self.day)], what == "heartbeat"

    def withhold(self) -> None:
        """Lose the newest numbers: only a marker shows them, until another message comes."""
        self.injected["tail"] += 1
        self.number += self._drawn.choice([1, 2, 5])


@dataclass
class Reference:
    """What a ledger must say of a partition: by sets of what was seen, and when each missing number was missed."""

    events: set[Fact] = field(default_factory=set)
    seen: set[Key] = field(default_factory=set)
    _front: dict[str, int] = field(default_factory=dict)
    _day: dict[str, int] = field(default_factory=dict)
    _at: dict[str, int] = field(default_factory=dict)
    _count: Counter[str] = field(default_factory=Counter)
    _missing: set[Key] = field(default_factory=set)
    _opened: set[Key] = field(default_factory=set)
    _waiting: dict[Key, tuple[int, int, int]] = field(default_factory=dict)
    _clock: int = 0

    def take(self, symbol: str, number: int, day: int, ms: int, offset: int) -> None:
        """Take one message, in the order of the log."""
        if (symbol, day, number) in self.seen:  # the deduplicator drops it
            return
        self.seen.add((symbol, day, number))
        self._clock = max(self._clock, ms)
        self._pass_time()
        if symbol not in self._front or (day > self._day[symbol] and number <= self._front[symbol]):
            self._front[symbol], self._day[symbol] = number, day
        elif day >= self._day[symbol] and number > self._front[symbol]:
            self._miss(symbol, number - 1, offset, self._count[symbol] + 1)
            self._front[symbol] = number
        elif (symbol, day, number) in self._missing:
            self._fill((symbol, day, number), offset)
        self._count[symbol] += 1
        self._at[symbol] = offset
        self._pass_time()

    def mark(self, symbol: str, last: int, day: int, ms: int) -> None:
        """Take a marker, logged at `ms` right after the last message; a duplicate there moved no clock."""
        if self._day.get(symbol) == day and last > self._front[symbol]:
            self._miss(symbol, last, self._at[symbol], self._count[symbol], ms)
            self._front[symbol] = last

    def end(self, ms: int) -> None:
        """Let the log's time go on to `ms` without another message."""
        self._clock = ms
        self._pass_time()

    def _miss(self, symbol: str, last: int, offset: int, count: int, ms: int = 0) -> None:
        for absent in range(self._front[symbol] + 1, last + 1):
            key = symbol, self._day[symbol], absent
            self._missing.add(key)
            self._waiting[key] = offset, max(self._clock, ms), count

    def _fill(self, key: Key, offset: int) -> None:
        if key in self._opened:
            self.events.add((FILLED, key[0], offset, key[2]))
        self._missing.discard(key)
        self._waiting.pop(key, None)

    def _pass_time(self) -> None:
        """Open what waited too long, and lose it, by the time and the message that have come."""
        for key, (at_offset, at_ms, at_count) in list(self._waiting.items()):
            name, _, number = key
            coming, late = self._count[name] + 1, self._clock - at_ms
            lost = late > SETTINGS.lost_seconds * 1_000
            if key not in self._opened and (
                lost or late > SETTINGS.reorder_seconds * 1_000 or coming - at_count > SETTINGS.reorder_messages
            ):
                self._opened.add(key)
                self.events.add((OPENED, name, at_offset, number))
            if lost:
                self.events.add((LOST, name, at_offset, number))
                del self._waiting[key]


class _Said(NoMarkers):
    """All markers from the beginning: they are there long before the rows that they speak of."""

    def __init__(self, world: SimulatedGapLedger) -> None:
        self._world = world

    def of(self, topic: str, partition: int) -> Sequence[Marker]:
        return self._world.markers_of.get((topic, partition), ())

    def partitions(self) -> Sequence[TopicPartition]:
        return sorted(self._world.markers_of)

    def passed_us(self) -> int:
        return self._world.end_ms * 1_000


class SimulatedGapLedger(SimulatedDuplicates):
    """Workers that deduplicate and keep the ledger, on feeds with faults."""

    def __init__(self, seed: int, *, messages: int) -> None:
        super().__init__(seed, partitions=PARTITIONS)
        self.markers_of: dict[TopicPartition, list[Marker]] = {}
        self.end_ms = 0
        self._messages = messages
        self.crashes = 0
        self.rebalances = 0
        self.settings = self.settings.model_copy(
            update={
                "sequences": SETTINGS,
                "commit_rows_max": self.random.choice([30, 200, 1_000]),
                "decode_messages_max": 500,
                "buffer_bytes_max": 100_000,
            }
        )

    def batch_messages(self) -> int:
        """Draw how many messages one poll brings from a partition."""
        return self.random.randint(1, max(12, self._messages // 100))

    def decoder(self, record_type: RecordType, registry_fails: Callable[[], bool]) -> SimulatedDecoder:
        """Return a worker's decoder."""
        return SimulatedDecoder(record_type, registry_fails=registry_fails)

    def markers(self, record_type: RecordType) -> Markers:
        """Return what the feeds have marked."""
        return _Said(self) if record_type.name == TOPICS[TOPIC] else NoMarkers()

    def produce(self) -> tuple[list[Reference], Counter[str]]:
        """Write every partition's messages to the log; return what the reference says of each, and the faults."""
        references, injected = [], Counter[str]()
        for partition in range(PARTITIONS):
            reference, ms = Reference(), 1_700_000_000_000
            streams = {name: Stream(self.random) for name in "ABC"}
            said = self.markers_of[TOPIC, partition] = []
            values: list[bytes] = []

            while len(values) < self._messages:
                name = self.random.choice(list(streams))
                sent, has_heartbeat = streams[name].next()
                for number, day in sent:
                    ms += self.random.choice([1, 1, 5, 40, 400])
                    reference.take(name, number, day, ms, len(values))
                    values.append(f"#{name}|{number}|{day}|{ms}".encode())
                if has_heartbeat:
                    _mark(name, streams[name], ms, said, reference)
            for name, stream in streams.items():
                stream.withhold()
                _mark(name, stream, ms, said, reference)
                injected += stream.injected
            self.log.append(TOPIC, partition, *values)
            self.end_ms = max(self.end_ms, ms + _QUIET_MS)
            references.append(reference)
        for reference in references:
            reference.end(self.end_ms)
        return references, injected

    def live(self, workers: int, *, steps: int = 120) -> None:
        """Let workers work while things fail."""
        crash = self.random.choice([0.01, 0.03])
        faults = self.faults
        faults.crash = lambda _point: self.random.random() < crash
        faults.reply_lost = self.chance(0.1)
        faults.side_table_fails = self.chance(0.1)
        faults.before_commit = self.chance(0.05)
        for _ in range(workers):
            self.start_worker()
        self.rebalance()
        for step in range(steps):
            if step % _LOOK_STEPS == 0 and self.is_settled():
                break
            if self.random.random() < 0.05:  # noqa: PLR2004 - one step in twenty
                self.rebalance()
            self.clock.sleep(self.random.choice([0.0, 0.3, 3.0]))
            worker = self.random.choice(self.workers)
            self.run(self.random.choice([worker.step_consumer, worker.step_writer]), worker)

    def fall_quiet(self) -> None:
        """Let every worker look at what has no more messages."""
        for worker in self.workers:
            self.clock.sleep(SETTINGS.quiet_look_seconds + 1)
            worker.step_writer()

    def found(self, partition: int) -> Counter[Fact]:
        """Return the ledger number by number."""
        return Counter(
            (event["event"], event["symbol"], event["event_offset"], number)
            for event in self.tables.gap_events.values()
            if event["log_partition"] == partition
            for number in range(event["first_missing"], event["last_missing"] + 1)
        )

    @property
    def dropped(self) -> int:
        """Records that the table counts as duplicates."""
        seam = self.tables.tables[TOPICS[TOPIC]].head.seam
        return sum(partition.counts.duplicates for partition in seam.partitions.values())

    def rebalance(self) -> None:
        """Share all partitions out anew, at random."""
        self.rebalances += 1
        super().rebalance()

    def run(self, action: Callable[[], None], worker: SimulatedWorker) -> None:
        """Run a worker's step; a crash in it ends the worker, and a new one starts."""
        super().run(action, worker)
        self.crashes += worker not in self.workers


def _mark(name: str, stream: Stream, ms: int, said: list[Marker], reference: Reference) -> None:
    said.append(Marker(name, stream.number, stream.day, ms * 1_000, len(said)))
    reference.mark(name, stream.number, stream.day, ms)
