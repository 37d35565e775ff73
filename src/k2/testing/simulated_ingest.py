"""Ingest workers on a simulated log and tables, in one thread: rebalances, crashes and failures come from a seed."""

from __future__ import annotations

import random
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, TypeVar

from k2.common import crash_points
from k2.ingestion.dead_letters.collector import DeadLetters
from k2.ingestion.duplicates.deduplicator import KeepAll
from k2.ingestion.overload.parts import OverloadParts
from k2.ingestion.sequences.markers import NoMarkers
from k2.ingestion.settings import IngestionSettings
from k2.ingestion.worker import IngestWorker, TableParts
from k2.kafka.registry import CachedSchemas
from k2.schemas.records import RECORD_TYPES
from k2.testing.fake_releases import FakeReleases
from k2.testing.simulated_checkpoints import SimulatedCheckpoints
from k2.testing.simulated_log import SimulatedGroup, SimulatedGroupReader, SimulatedLog, SimulatedProducer
from k2.testing.simulated_tables import (
    Faults,
    SimulatedCrash,
    SimulatedDecoder,
    SimulatedGaps,
    SimulatedTables,
    SimulatedWriter,
)

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from k2.ingestion.backfill.making import RangeParts
    from k2.ingestion.duplicates.deduplicator import Deduplicator
    from k2.ingestion.events import Event
    from k2.ingestion.lane_ports import Decoder
    from k2.ingestion.sequences.markers import Markers
    from k2.ingestion.watching.watchers import BatchWatcher
    from k2.kafka.ports import TopicPartition
    from k2.schemas.records import RecordType

T = TypeVar("T")

TOPICS = {
    "market.equities.trades.asx": "trades",
    "market.crypto.trades.sim": "trades",
    "market.equities.quotes.asx": "quotes",
}
_FLUSH_STEPS_MAX = 20


class ManualClock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def time_ns(self) -> int:
        """Return the wall time."""
        return int(1_700_000_000 * 10**9 + self.seconds * 10**9)

    def monotonic(self) -> float:
        """Return the seconds so far."""
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """Move on."""
        self.seconds += seconds


class InlineExecutor(Executor):
    """Does its work when it is asked, in the caller's thread; a simulated crash goes through."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Return the result, as a future that is done."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - a future keeps any for its reader
            future.set_exception(error)
        return future


class _NoExpiry:
    def start(self) -> None: ...

    def after_commit(self, table_name: str) -> None: ...

    def stop(self) -> None: ...


class SimulatedWorker:
    """One worker process, whose two threads take turns by `step_consumer` and `step_writer`."""

    def __init__(self, world: SimulatedIngest) -> None:
        self._world = world
        self.events: list[Event] = []
        parts = []
        for name, record_type in RECORD_TYPES.items():
            schemas = CachedSchemas(world.registry, {}, entries_max=100)
            parts.append(
                TableParts(
                    record_type,
                    world.decoder(record_type, self._registry_fails),
                    schemas,
                    SimulatedWriter(world.tables, name),
                    world.deduplicator(record_type),
                    world.watchers,
                    world.markers(record_type),
                    world.ranges(record_type),
                )
            )
        self.worker = IngestWorker(
            settings=world.settings,
            table_of=TOPICS,
            tables=world.tables,
            cluster=world.log,
            parts=parts,
            dead_letters=DeadLetters(
                lambda: SimulatedProducer(world.log), world.tables, clock=world.clock, flush_seconds=1
            ),
            scopes=dict.fromkeys(TOPICS, "symbol"),
            rows=world.tables,
            gaps=SimulatedGaps(world.tables),
            gap_checkpoints=world.checkpoints,
            make_reader=lambda _topics, *, on_assign, on_revoke: SimulatedGroupReader(
                world.group, on_assign=on_assign, on_revoke=on_revoke, batch_messages_max=world.batch_messages
            ),
            expiry=_NoExpiry(),
            clock=world.clock,
            observer=self.events.append,
            overload=world.overload(),
            releases=world.releases,
            wait_for_writer=self._wait_for_writer,
            file_writer=world.file_writer(),
        )
        self.reader = SimulatedGroupReader(
            world.group,
            on_assign=self.worker.intake.on_assign,
            on_revoke=self.worker.intake.on_revoke,
            batch_messages_max=world.batch_messages,
        )
        self.worker.intake.use(self.reader)

    def step_consumer(self) -> None:
        """Let the consuming thread go once round its loop."""
        self.worker.intake.step()

    def step_writer(self) -> None:
        """Let the writing thread go once round its loop."""
        self.worker.writer_loop.step(0)

    def _registry_fails(self) -> bool:
        return self._world.faults.registry_fails()  # the world's faults are replaced now and then

    def _wait_for_writer(self, done: threading.Event, seconds: float) -> bool:
        """Let the writer work while the consumer waits; at random it is too slow."""
        if self._world.random.random() < self._world.flush_too_slow:
            self._world.clock.sleep(seconds)
            return False
        for _ in range(_FLUSH_STEPS_MAX):
            if done.is_set():
                return True
            self.step_writer()
        return done.is_set()


class _NoRegistry:
    def schema_text(self, schema_id: int) -> str:
        """Return the text of a schema."""
        return f"schema {schema_id}"


class SimulatedIngest:
    """A log, tables, and some workers; every decision is drawn from `seed`."""

    def __init__(self, seed: int, *, partitions: int = 2) -> None:
        self.random = random.Random(seed)  # noqa: S311 a simulation must be repeatable
        self.clock = ManualClock()
        self.registry = _NoRegistry()
        self.log = SimulatedLog()
        self.group = SimulatedGroup(self.log)
        self.flush_too_slow = 0.0
        self.settings = IngestionSettings(
            commit_interval_seconds=5,
            first_commit_seconds=5,
            commit_rows_max=self.random.choice([5, 40, 1_000]),
            buffer_bytes_max=self.random.choice([60, 10_000]),
            decode_messages_max=self.random.choice([3, 25]),
            poll_messages_max=50,
            poll_timeout_seconds=1e-6,
            pause_after_seconds=self.random.choice([0.0, 1.0]),
            log_end_grace_seconds=0,
        )
        self.tables = SimulatedTables(Faults(), *RECORD_TYPES)
        self.checkpoints = SimulatedCheckpoints(seed)
        self.workers: list[SimulatedWorker] = []
        self.watchers: list[BatchWatcher] = []
        self.releases = FakeReleases()
        for topic in TOPICS:
            self.log.create(topic, partitions)

    @property
    def faults(self) -> Faults:
        """What goes wrong from now on."""
        return self.tables.faults

    def decoder(self, record_type: RecordType, registry_fails: Callable[[], bool]) -> Decoder:
        """Return a worker's decoder."""
        return SimulatedDecoder(record_type, registry_fails=registry_fails)

    def deduplicator(self, record_type: RecordType) -> Deduplicator:
        """Return a worker's deduplicator."""
        del record_type
        return KeepAll()

    def markers(self, record_type: RecordType) -> Markers:
        """Return what the feeds have marked, as a worker sees it."""
        del record_type
        return NoMarkers()

    def overload(self) -> OverloadParts:
        """Return what a worker does about overload."""
        return OverloadParts()

    def ranges(self, record_type: RecordType) -> RangeParts | None:
        """Return what a worker's backfill needs; None where there is none."""
        del record_type
        return None

    def file_writer(self) -> Executor:
        """Return what a worker writes its files by."""
        return InlineExecutor()

    def batch_messages(self) -> int:
        """Draw how many messages one poll brings from a partition."""
        return self.random.randint(1, 12)

    def chance(self, probability: float) -> Callable[[], bool]:
        """Return a fault that happens with this probability each time that it is asked."""
        return lambda: self.random.random() < probability

    def start_worker(self) -> SimulatedWorker:
        """Start one more worker; it gets its share at the next rebalance."""
        worker = SimulatedWorker(self)
        self.workers.append(worker)
        return worker

    def kill(self, worker: SimulatedWorker) -> None:
        """End a worker as kill -9 does."""
        worker.reader.vanish()
        self.workers.remove(worker)

    def rebalance(self) -> None:
        """Share all partitions out anew, at random."""
        shares: dict[SimulatedGroupReader, list[TopicPartition]] = {}
        for key in self.all_partitions():
            if self.workers:
                shares.setdefault(self.random.choice(self.workers).reader, []).append(key)
        self.group.rebalance(shares)

    def all_partitions(self) -> list[TopicPartition]:
        """Return every partition of the market topics."""
        return [(topic, number) for topic in sorted(TOPICS) for number in range(len(self.log.topics[topic].partitions))]

    def run(self, action: Callable[[], None], worker: SimulatedWorker) -> None:
        """Run a worker's step; a crash in it ends the worker, and a new one starts."""
        try:
            action()
        except SimulatedCrash:
            self.kill(worker)
            self.start_worker()
            self.rebalance()

    def settle(self, *, steps_max: int = 400) -> None:
        """Let all workers go on without faults until nothing is left to do."""
        self.tables.faults = Faults()
        for table in self.tables.tables.values():
            table.land_delayed()
        self.log.is_up = True
        self.flush_too_slow = 0.0
        self.rebalance()
        for _ in range(steps_max):
            self.clock.sleep(2)
            for worker in list(self.workers):
                worker.step_consumer()
                worker.step_writer()
            if self.is_settled():
                return
        raise AssertionError(f"not settled after {steps_max} steps: {self.seams()} of {self.ends()}")

    def is_settled(self) -> bool:
        """Say whether every record's offset lies below its table's seam."""
        seams = self.seams()
        return all(seams.get(key, 0) >= end for key, end in self.ends().items())

    def ends(self) -> Mapping[TopicPartition, int]:
        """Return the offset behind the last record, per partition; a control record at the end is no record."""
        return {
            (topic, number): max((i + 1 for i, value in enumerate(values) if value is not None), default=0)
            for topic in TOPICS
            for number, values in enumerate(self.log.topics[topic].partitions)
        }

    def seams(self) -> dict[TopicPartition, int]:
        """Return the first offset that the tables do not hold, per partition."""
        found: dict[TopicPartition, int] = {}
        for table in self.tables.tables.values():
            topics = {log.log_id: log.topic for log in table.head.logs}
            for key, seam in table.head.seam.partitions.items():
                found[topics[key.log_id], key.partition] = seam.next_offset
        return found


def crash_at(world: SimulatedIngest) -> Callable[[str], None]:
    """Return a stand-in for `crash_points.reached` that ends the simulated process when its faults say so."""

    def reached(name: str) -> None:
        if name not in crash_points.NAMES:
            raise ValueError(f"unknown crash point {name!r}")
        world.faults.reached(name)

    return reached
