"""One seeded run of the real ingest worker on a simulated log and catalog, with the faults of a plan.

Invariants, after every step: no coordinate is stored twice; no seam goes back; no batch is accepted whose start was not
the seam; the ledger of every partition adds up and agrees with the rows. After quiescence oracle O1: every record that
the log acknowledged is one row with its content, or one dead letter.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from unittest.mock import patch

from k2.common import crash_points
from k2.ingestion import events
from k2.testing.faults.oracle import StoredRow, Verdict, check_progress, check_seam, judge
from k2.testing.simulated_ingest import TOPICS, SimulatedIngest, SimulatedWorker, crash_at
from k2.testing.simulated_tables import Faults, columns_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from k2.kafka.ports import TopicPartition
    from k2.storage.seam import Seam
    from k2.testing.faults.plans import Plan

STEPS: Final = 120
_PRODUCE: Final = 0.3
_LAND_DELAYED: Final = 0.3
_BROKER_RETURNS: Final = 0.3
_CONTROL: Final = 0.03
_WRITER_STEPS: Final = 0.5
_FROZEN_STEPS_MAX: Final = 40
_SETTLE_STEPS_MAX: Final = 2_000


@dataclass(frozen=True, slots=True)
class RunResult:
    """What one run did and found."""

    kind: str
    seed: int
    injected: int
    verdict: Verdict
    stale_commits: int
    fenced: int
    recovery_seconds: tuple[float, ...]
    """Simulated: from the last fault until everything was in the tables. Real: from each death to the first commit."""


def simulate(plan: Plan, seed: int, *, steps: int = STEPS) -> RunResult:
    """Run one seed of one plan."""
    run = _Run(plan, seed)
    with _simulated_crashes(run.world):
        return run.result(steps)


class _Run:
    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan = plan
        self.world = SimulatedIngest(seed)
        self.random = self.world.random
        self.injected: Counter[str] = Counter()
        self.frozen: dict[SimulatedWorker, int] = {}
        self.acting: list[SimulatedWorker] = []
        self.complaints: list[str] = []
        self.sent = 0
        self.seed = seed
        self.seams: dict[str, Seam] = {}
        self.counted: dict[str, tuple[int, Counter[tuple[int, int]], set[tuple[int, int, int]]]] = {}
        self.heard: list[events.Event] = []
        self._set_faults()

    def result(self, steps: int) -> RunResult:
        """Live through the steps, settle, and ask the oracle."""
        for _ in range(self.plan.workers):
            self.world.start_worker()
        self._share_out()
        for _ in range(steps):
            self._disturb()
            self._step()
            self._check()
        settled_from = self.world.clock.seconds
        try:
            self.world.settle(steps_max=_SETTLE_STEPS_MAX)
        except AssertionError as error:
            self.complaints.append(str(error))
        self._check()
        tables = self.world.tables.tables.values()
        return RunResult(
            kind=self.plan.name,
            seed=self.seed,
            injected=self.injected.total(),
            verdict=self._judge(),
            stale_commits=sum(table.stale_commits for table in tables),
            fenced=self._fenced(),
            recovery_seconds=(self.world.clock.seconds - settled_from,),
        )

    # What goes wrong.

    def _set_faults(self) -> None:
        plan = self.plan
        self.world.tables.faults = Faults(
            before_commit=self._chance("catalog", plan.catalog),
            reply_lost=self._chance("reply lost", plan.reply_lost),
            write_fails=self._chance("warehouse", plan.warehouse),
            head_fails=self._chance("catalog", plan.catalog / 2),
            side_table_fails=self._chance("side table", plan.side_table),
            registry_fails=self._chance("registry", plan.registry),
            swap_delayed=self._chance("swap delayed", plan.swap_delayed),
            meanwhile=self._meanwhile,
            crash=self._crash,
        )
        self.world.flush_too_slow = plan.flush_too_slow

    def _chance(self, name: str, probability: float) -> Callable[[], bool]:
        def happens() -> bool:
            drawn = self.random.random() < probability
            self.injected[name] += drawn
            return drawn

        return happens

    def _crash(self, point: str) -> bool:
        if self.plan.crash_point not in (point, "*") or len(self.acting) > 1:
            return False
        drawn = self.random.random() < self.plan.crash
        self.injected["crash"] += drawn
        return drawn

    def _meanwhile(self) -> None:
        """Let others work while one writer stands between its look at the head and its swap."""
        if len(self.acting) > 1 or self.random.random() >= self.plan.overtake:
            return
        others = [worker for worker in self.world.workers if worker not in self.acting and worker not in self.frozen]
        if others:
            self.injected["overtaken"] += 1
            self._share_out(others)
            for _ in range(self.random.randint(2, 20)):
                self.world.clock.sleep(self.random.choice([0.3, 3.0]))
                self._act(self.random.choice(others))

    def _disturb(self) -> None:
        plan, draw = self.plan, self.random.random
        if draw() < _PRODUCE:
            self._produce()
        if draw() < plan.rebalance:
            self.injected["rebalance"] += 1
            self._share_out()
        if draw() < plan.kill:
            self.injected["kill"] += 1
            self._replace(self.random.choice(self.world.workers))
        if draw() < plan.freeze and len(self.world.workers) > 1 + len(self.frozen):
            self._freeze(self.random.choice([worker for worker in self.world.workers if worker not in self.frozen]))
        if draw() < (plan.broker if self.world.log.is_up else _BROKER_RETURNS):
            self.injected["broker"] += self.world.log.is_up
            self.world.log.is_up = not self.world.log.is_up
        for table in self.world.tables.tables.values():
            if table.delayed is not None and draw() < _LAND_DELAYED:
                table.land_delayed()
            if draw() < plan.expire:
                self.injected["expiry"] += 1
                table.expire()

    def _freeze(self, worker: SimulatedWorker) -> None:
        """Stop a worker as SIGSTOP does; its partitions go to the others, and it wakes up later, knowing nothing."""
        self.injected["zombie"] += 1
        self.frozen[worker] = self.random.randint(5, _FROZEN_STEPS_MAX)
        self._share_out([other for other in self.world.workers if other not in self.frozen])

    def _produce(self) -> None:
        topic, partition = self.random.choice(self.world.all_partitions())
        for _ in range(self.random.randint(1, self.plan.burst)):
            self.sent += 1
            drawn = self.random.random()
            kind = b"bad" if drawn < self.plan.bad else b"good"
            self.world.log.append(topic, partition, None if drawn > 1 - _CONTROL else b"%s %d" % (kind, self.sent))

    # What goes on.

    def _step(self) -> None:
        self.world.clock.sleep(self.random.choice([0.0, 0.3, 3.0]))
        for worker in [worker for worker, left in self.frozen.items() if left <= 0]:
            del self.frozen[worker]
            if worker in self.world.workers:  # its writer goes on where it stood, before it hears of anything
                self._act(worker, writer=True)
        self.frozen = {worker: left - 1 for worker, left in self.frozen.items()}
        awake = [worker for worker in self.world.workers if worker not in self.frozen]
        if awake:
            self._act(self.random.choice(awake))

    def _act(self, worker: SimulatedWorker, *, writer: bool | None = None) -> None:
        writes = self.random.random() < _WRITER_STEPS if writer is None else writer
        before = list(self.world.workers)
        self.acting.append(worker)
        self.world.run(worker.step_writer if writes else worker.step_consumer, worker)
        self.acting.pop()
        if worker not in self.world.workers and worker in before:
            self.heard += worker.events
            self._share_out()

    def _replace(self, worker: SimulatedWorker) -> None:
        self.heard += worker.events
        self.frozen.pop(worker, None)
        self.world.kill(worker)
        self.world.start_worker()
        self._share_out()

    def _share_out(self, members: list[SimulatedWorker] | None = None) -> None:
        """Share the partitions out among the members, each to one of them, or to two where the plan says so."""
        among = members or [worker for worker in self.world.workers if worker not in self.frozen] or self.world.workers
        shares: dict[SimulatedWorker, list[TopicPartition]] = {worker: [] for worker in among}
        for key in self.world.all_partitions():
            owners = self.random.sample(among, min(len(among), 2 if self.plan.overlap else 1))
            self.injected["overlap"] += len(owners) > 1
            for owner in owners:
                shares[owner].append(key)
        self.world.group.rebalance({worker.reader: keys for worker, keys in shares.items()})

    # What must hold.

    def _check(self) -> None:
        for name, table in self.world.tables.tables.items():
            seam = table.head.seam
            self.complaints += check_progress(name, self.seams.get(name, seam), seam)
            self.seams[name] = seam
            seen, counts, coordinates = self.counted.get(name, (0, Counter(), set()))
            for rows in table.rows[seen:]:
                for coordinate in columns_of(rows, "log_id", "log_partition", "log_offset"):
                    if coordinate in coordinates:
                        self.complaints.append(f"{name}: the coordinate {coordinate} is stored twice")
                    coordinates.add(coordinate)
                    counts[coordinate[0], coordinate[1]] += 1
            self.counted[name] = len(table.rows), counts, coordinates
            self.complaints += check_seam(name, seam, counts)

    def _fenced(self) -> int:
        heard = [*self.heard, *(event for worker in self.world.workers for event in worker.events)]
        self.complaints += [
            f"{type(event).__name__}: {event.reason}"
            for event in heard
            if isinstance(event, events.TableStopped | events.TopicRefused)
        ]
        return sum(isinstance(event, events.BatchFenced) for event in heard)

    def _judge(self) -> Verdict:
        self._fenced()
        good: dict[object, str] = {}
        bad: set[object] = set()
        rows: list[StoredRow] = []
        for topic, name in TOPICS.items():
            log = self.world.tables.tables[name].head.log_of(topic)
            for number, values in enumerate(self.world.log.topics[topic].partitions):
                for offset, value in enumerate(values):
                    if value is not None and value.startswith(b"good"):
                        good[name, -1 if log is None else log.log_id, number, offset] = value.decode()
                    elif value is not None:
                        bad.add(("" if log is None else log.topic_id, number, offset, "written"))
        for name, table in self.world.tables.tables.items():
            for frame in table.rows:
                for *coordinate, text in columns_of(frame, "log_id", "log_partition", "log_offset", "source"):
                    key = (name, *coordinate)
                    rows.append(StoredRow(key, key, text))
        return judge(
            good,
            bad,
            rows=rows,
            dead_letters=list(self.world.tables.dead_letters),
            ledger=dict.fromkeys(self.complaints),
        )


@contextmanager
def _simulated_crashes(world: SimulatedIngest) -> Iterator[None]:
    with patch.object(crash_points, "reached", crash_at(world)):
        yield
