"""The faults that real processes meet, each by name: what is done to them between the first commit and quiescence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from k2.common.crash_points import EXIT_CODE, INGEST_NAMES
from k2.common.degradation import DegradationLevel
from k2.testing.faults.processes import surroundings, valkey_losses
from k2.testing.faults.processes.feeder import Feeder
from k2.testing.faults.processes.level_kills import kill_at
from k2.testing.faults.processes.repeating_feeder import RepeatingFeeder
from k2.testing.faults.processes.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.testing.faults.processes.arena import Run

_STORM_MEMBERS: Final = 5
_STORM_SECONDS: Final = 2.0
_OVERLAPPING_WORKERS: Final = 3
_FROZEN_SECONDS: Final = 12.0
_START_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of run. `inject` starts the workers itself; records are coming meanwhile."""

    name: str
    numbers: str
    inject: Callable[[Run], None]
    broken: float = 0.02
    small_disk: bool = False
    """The warehouse lies on a small file system of its own, which only root can mount."""
    feeder: type[Feeder] = Feeder


def _crash_at(point: str) -> Callable[[Run], None]:
    def inject(run: Run) -> None:
        revoked = point == "during_revoke"
        hits = 1 if revoked else run.draw.randint(1, 4)
        first = run.start_worker(member="one", crash_points=f"{point}:{hits}")
        if revoked:  # a second member makes the first one give partitions back, once
            run.wait_for_commits()
            run.start_worker()
        run.wait(f"the worker to end at {point}", lambda: not first.alive)
        died = run.clock.monotonic()
        if first.exit_code != EXIT_CODE:
            run.complaints.append(f"the worker ended with {first.exit_code}, not at the crash point {point}")
        run.injected += 1
        run.start_worker(member="one")
        run.recover(died)

    return inject


def _kill(run: Run) -> None:
    """Kill the only worker three times, and start another at once, as a supervisor does."""
    worker = run.start_worker(member="one")
    for _ in range(3):
        run.wait_for_commits()
        run.clock.sleep(run.draw.random() * 0.5)
        worker.kill()
        died = run.clock.monotonic()
        run.injected += 1
        worker = run.start_worker(member="one")
        run.recover(died)


def _zombie(run: Run) -> None:
    """Stop a worker; when a successor of another or the same name has committed in its place, let it go on."""
    names = run.draw.choice([("one", "one"), ("one", "two"), (None, None)])
    zombie = run.start_worker(member=names[0])
    run.wait_for_commits()
    run.clock.sleep(run.draw.random() * 0.5)
    zombie.freeze()
    stopped = run.clock.monotonic()
    run.injected += 1
    run.start_worker(member=names[1])
    run.recover(stopped)
    run.wait_for_commits()
    zombie.thaw()
    run.wait_for_commits()
    run.wait_for_commits()


def _overlap(run: Run) -> None:
    """Let three workers of three groups write the same partitions at once."""
    for number in range(_OVERLAPPING_WORKERS):
        run.start_worker(group=f"overlap-{number}")
    run.wait("batches dropped at the fence", lambda: run.fenced() >= _OVERLAPPING_WORKERS)
    run.injected += _OVERLAPPING_WORKERS - 1
    run.wait_for_commits()


def _lost_replies(run: Run) -> None:
    run.start_worker(arguments=["--lost", "0.5", "--seed", str(run.draw.randrange(10**6))])
    _count_commits(run, 6)


def _delayed_replies(run: Run) -> None:
    """Delay replies until a second writer of another group has moved on."""
    run.start_worker(arguments=["--lost", "0.5", "--delay", "4", "--seed", str(run.draw.randrange(10**6))])
    run.start_worker(group="other")
    _count_commits(run, 6)


def _count_commits(run: Run, commits: int) -> None:
    for _ in range(commits):
        run.wait_for_commits()
    run.injected += commits


def _storm(run: Run) -> None:
    """Let a member join or leave every two seconds."""
    run.start_worker()
    run.wait_for_commits()
    before = sum(run.seams().values())
    guests = []
    for number in range(_STORM_MEMBERS):
        guests.append(run.start_worker())
        run.clock.sleep(_STORM_SECONDS)
        if number % 2:
            run.draw.choice([WorkerProcess.kill, WorkerProcess.leave])(run.draw.choice(guests))
        run.injected += 1
    if sum(run.seams().values()) <= before:
        run.complaints.append("no progress during the storm")
    run.wait_for_commits()


def _burst(run: Run) -> None:
    run.start_worker()
    run.wait_for_commits()
    run.feeder.send(20_000)
    run.injected += 1
    run.wait_for_commits()


def _broken_records(run: Run) -> None:
    run.start_worker()
    run.wait_for_commits()
    run.wait_for_commits()
    run.injected += len(run.feeder.bad)


def _wrong_clock(run: Run) -> None:
    for offset in (3_600, -3_600):
        worker = run.start_worker(arguments=["--clock-offset", str(offset), "--seed", str(run.draw.randrange(10**6))])
        run.wait_for_commits()
        run.wait_for_commits()
        worker.leave()
        run.injected += 1


def _frozen_clock(run: Run) -> None:
    """Let a worker's wall clock stand still while it commits, then jump an hour back; no duration may come of it."""
    worker = run.start_worker(arguments=["--clock-frozen", str(_FROZEN_SECONDS)])
    began = run.clock.monotonic()
    run.wait_for_commits()
    run.wait_for_commits()
    run.injected += 1
    run.clock.sleep(max(0.0, began + _FROZEN_SECONDS + _START_SECONDS - run.clock.monotonic()))
    run.wait_for_commits()
    run.wait_for_commits()
    run.injected += 1
    commits = worker.events("batch_committed")
    timeless = [event for event in commits if event["commit_seconds"] <= 0]
    if timeless:
        run.complaints.append(f"{len(timeless)} of {len(commits)} commits took no time, such as {timeless[0]}")


def _expiry_and_kills(run: Run) -> None:
    run.catalog_settings = {
        "expire_every_commits": 2, "snapshots_kept_min": 1, "snapshot_age_min_seconds": 0.0, "snapshots_kept_max": 2,
    }  # fmt: skip
    _kill(run)


SCENARIOS: Final[tuple[Scenario, ...]] = (
    *(Scenario(f"crash at {point}", "1-8", _crash_at(point)) for point in sorted(INGEST_NAMES)),
    Scenario("kill -9", "1-8", _kill),
    Scenario("zombie", "9", _zombie),
    Scenario("overlapping writers", "10", _overlap),
    Scenario("commit reply lost", "11", _lost_replies),
    Scenario("commit reply delayed", "11", _delayed_replies),
    Scenario("rebalance storm", "12", _storm),
    Scenario("broker kill -9", "13", surroundings.kill_broker),
    Scenario("topic created again", "14", surroundings.create_topic_again),
    Scenario("partitions added", "14", surroundings.add_partitions),
    Scenario("log start passes the seam", "14", surroundings.let_retention_pass),
    Scenario("log end below the seam", "14", surroundings.restore_old_log),
    Scenario("registry and Valkey killed", "15", surroundings.kill_registry),
    Scenario("registry falls silent", "15", surroundings.silence_registry),
    Scenario("Valkey stalled", "15", surroundings.stall_valkey),
    Scenario("Valkey lost", "15", valkey_losses.lose_valkey, broken=0.0, feeder=RepeatingFeeder),
    Scenario("catalog locked", "16", surroundings.lock_catalog),
    Scenario("no space left", "17", surroundings.fill_disk, small_disk=True),
    Scenario("read-only file system", "18", surroundings.make_read_only, small_disk=True),
    Scenario("broken records", "20", _broken_records, broken=0.3),
    Scenario("clock off", "21", _wrong_clock),
    Scenario("clock frozen", "21", _frozen_clock),
    Scenario("burst", "22", _burst),
    Scenario("kill -9 at every level", "22", kill_at(*DegradationLevel), broken=0.0, feeder=RepeatingFeeder),
    Scenario(
        "kill -9 at the top level", "22", kill_at(DegradationLevel.CIRCUIT_BREAK), broken=0.0, feeder=RepeatingFeeder
    ),
    Scenario("expiry beside kills", "25", _expiry_and_kills),
)
QUICK: Final = (
    "crash at metadata_written", "zombie", "overlapping writers", "Valkey lost", "kill -9 at the top level",
)  # fmt: skip
"""The stated share that runs with the tests."""
