"""Kills the worker at levels that a drill forces; in the end the tables must be those of an undisturbed run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from k2.bootstrap import announcing, operations
from k2.common.announcing import DrillRequest
from k2.common.degradation import DEFERRED_FROM, DegradationLevel, Priority
from k2.common.units import NS_PER_SECOND
from k2.testing.faults.contents import content_of, difference
from k2.testing.faults.processes.feeder import SYMBOLS

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.common.announcing import DrillBook
    from k2.testing.faults.processes.arena import Run
    from k2.testing.faults.processes.worker_process import WorkerProcess

_DRILL_SECONDS: Final = 600
_AUDIT_SECONDS: Final = 30.0
_TIERS: Final = {"tier_1": list(SYMBOLS[:2]), "tier_2": list(SYMBOLS[2:4])}
"""Of each tier, a symbol that is numbered and one that is not; trades of the others are deferred from level 3 on."""
_LADDER: Final = {"calm_seconds": 1.0, "step_seconds": 0.2, "drain_records_min": 10**9}
"""The drill alone decides: a busy machine, where a commit may take seconds, would hold levels of its own for long."""


def kill_at(*levels: DegradationLevel) -> Callable[[Run], None]:
    """Return what kills the worker at each of the levels, and its successor at the next one."""

    def inject(run: Run) -> None:
        tiers = run.directory / "tiers.json"
        tiers.write_text(json.dumps(_TIERS), encoding="utf-8")
        run.degradation_settings = {"tiers_file": str(tiers), **_LADDER}
        with announcing.drill_book(run.settings) as book:
            worker = run.start_worker(member="one")
            try:
                for level in levels:
                    _ask(run, book, level, _DRILL_SECONDS)
                    worker = _kill_at(run, worker, level)
            finally:  # the drill reaches the workers of later runs as well
                _ask(run, book, DegradationLevel.NORMAL, 0)
        run.wait("all that was deferred to be written", lambda: not _deferred(run))
        run.wait_for_commits()  # what a deferred range hid of gaps is decided by the next record
        run.feeder.stop()
        run.wait_until_all_is_held()
        run.wait("nothing to be deferred any more", lambda: not _deferred(run))
        run.quiesce()
        _verify(run)
        run.degradation_settings = {}  # the undisturbed worker defers nothing, however busy the machine is
        _compare(run)

    return inject


def _ask(run: Run, book: DrillBook, level: DegradationLevel, seconds: int) -> None:
    now_ns = run.clock.time_ns()
    book.ask(DrillRequest(level, now_ns + seconds * NS_PER_SECOND, now_ns, "faults", note=run.exchange))


def _kill_at(run: Run, worker: WorkerProcess, level: DegradationLevel) -> WorkerProcess:
    """Kill the worker once it has committed at the level, and put off what the level defers; return its successor."""
    before = _deferred(run)
    run.wait(f"the worker to take {level.name}", lambda: _level_of(worker) >= level)
    run.wait_for_commits()
    if DEFERRED_FROM[level] <= Priority.NORMAL:
        run.wait(f"records deferred at {level.name}", lambda: _deferred(run) > before)
    run.clock.sleep(run.draw.random() * 0.5)
    worker.kill()
    died = run.clock.monotonic()
    run.injected += 1
    successor = run.start_worker(member="one")
    run.recover(died)
    return successor


def _level_of(worker: WorkerProcess) -> DegradationLevel:
    changes: list[dict[str, Any]] = worker.events("level_changed")
    return DegradationLevel[changes[-1]["to_level"]] if changes else DegradationLevel.NORMAL


def _deferred(run: Run) -> int:
    return run.tables.head("trades").seam.totals().deferred


def _verify(run: Run) -> None:
    """Ask what `k2 verify` asks."""
    with operations.auditor(run.settings) as auditor:
        report = auditor.verify(wait_seconds=_AUDIT_SECONDS)
    found = {name: report.totals[name] for name in ("lost", "doubled", "deferred", "not_in_log", "pending")}
    if any(found.values()):
        run.complaints.append(f"verify found {found}")
    run.complaints += report.advice


def _compare(run: Run) -> None:
    """Ingest the topic again without any level: both tables must say the same, and the accounts be equal."""
    with run.ingested_again() as undisturbed:
        for name in ("trades", "gaps"):
            run.complaints += difference(content_of(run.tables, name), content_of(undisturbed, name))
        counts, again = run.tables.head("trades").seam.totals(), undisturbed.head("trades").seam.totals()
    if counts != again:
        run.complaints.append(f"the accounts differ: {counts}, undisturbed {again}")
    if not counts.duplicates:
        run.complaints.append("no duplicate came, which proves nothing of what was remembered")
