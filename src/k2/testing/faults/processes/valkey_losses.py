"""Takes Valkey away in every way while records come; tables and decisions must be those of an undisturbed run."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from k2.ingestion.sequences.tracker import MemorySequenceTracker
from k2.testing.faults.contents import content_of, difference
from k2.testing.faults.processes.valkey_reader import ValkeyReader

if TYPE_CHECKING:
    from k2.storage.tables import MarketTables
    from k2.testing.faults.processes.arena import Run

_STALLED_SECONDS: Final = 5.0
_PROOF_MIN: Final = 20
"""With less of anything a run would prove nothing."""


def lose_valkey(run: Run) -> None:
    """Kill Valkey, empty it, flush it and stall it under a worker, and under a reader that lives by it.

    Then ingest the same topic again, undisturbed: both tables must say the same, and the reader must have dropped what
    neither holds.
    """
    run.start_worker(member="one")
    with ValkeyReader(run) as reader:
        _go_on(run, reader)
        reader.begin_again()
        for harm in (_kill, _empty, _stall, _flush):
            _go_on(run, reader)
            harm(run, reader)
            run.injected += 1
        _go_on(run, reader)
        run.wait("gaps to be told", lambda: len(content_of(run.tables, "gaps").rows) > _PROOF_MIN)
        run.quiesce()
        reader.follow(run.seams())
        with run.ingested_again() as undisturbed:
            _compare(run, reader, undisturbed)


def _go_on(run: Run, reader: ValkeyReader) -> None:
    run.wait_for_commits()
    reader.follow(run.seams())


def _kill(run: Run, reader: ValkeyReader) -> None:
    """Kill it after it has saved and has learned more: what comes back is an older copy."""
    reader.client.save()
    _go_on(run, reader)
    _restart(run, reader)


def _empty(run: Run, reader: ValkeyReader) -> None:
    saved = run.arena.platform.directory.component("valkey") / "dump.rdb"
    saved.unlink(missing_ok=True)
    _restart(run, reader)


def _restart(run: Run, reader: ValkeyReader) -> None:
    restarts = run.arena.platform.status("valkey").restarts
    run.arena.platform.kill("valkey")
    reader.step()
    run.arena.platform.wait_restarted("valkey", restarts=restarts + 1)


def _stall(run: Run, reader: ValkeyReader) -> None:
    """Stop it for five seconds or more: ingestion goes on meanwhile, and a worker dies and another begins."""
    began = run.clock.monotonic()
    restarts = run.arena.platform.status("valkey").restarts
    run.arena.platform.kill("valkey", signal.SIGSTOP)
    try:
        _go_on(run, reader)
        run.workers[-1].kill()
        run.start_worker(member="one")
        reader.step()
        run.clock.sleep(max(0.0, _STALLED_SECONDS - (run.clock.monotonic() - began)))
    finally:
        run.arena.platform.kill("valkey", signal.SIGCONT)
    if run.arena.platform.status("valkey").restarts != restarts:
        run.complaints.append("Valkey was restarted while it was to be silent only")


def _flush(run: Run, reader: ValkeyReader) -> None:
    """Flush it under the reader; then flush it again and lose the reader's memory too: only the table is left."""
    reader.client.flushall()
    _go_on(run, reader)
    reader.client.flushall()
    reader.begin_again()


def _compare(run: Run, reader: ValkeyReader, undisturbed: MarketTables) -> None:
    expected = {name: content_of(undisturbed, name) for name in ("trades", "gaps")}
    for name, content in expected.items():
        run.complaints += difference(content_of(run.tables, name), content)
    counts = run.tables.head("trades").seam.totals()
    again = undisturbed.head("trades").seam.totals()
    if counts != again:
        run.complaints.append(f"the accounts differ: {counts}, undisturbed {again}")
    run.complaints += _decided_otherwise(run, reader, undisturbed)
    happened = {
        "duplicates": counts.duplicates,
        "duplicates by id": len(reader.dropped - reader.numbered),
        "ids that the filters knew to be new": reader.filtered,
        "ids that were looked up in Valkey": reader.confirmed,
        "events of gaps": len(expected["gaps"].rows),
    }
    run.complaints += [f"too little happened: {found} {what}" for what, found in happened.items() if found < _PROOF_MIN]


def _decided_otherwise(run: Run, reader: ValkeyReader, undisturbed: MarketTables) -> list[str]:
    """Compare what the reader decided with Valkey's help with what the undisturbed tables say."""
    stored = undisturbed.load("trades").scan(selected_fields=("log_partition", "log_offset")).to_arrow()
    kept = set(zip(stored["log_partition"].to_pylist(), stored["log_offset"].to_pylist(), strict=True))
    read = {(partition, offset) for partition, end in run.seams().items() for offset in range(end)}
    complaints = []
    wrongly, missed = reader.dropped & kept, read - kept - reader.dropped
    if wrongly or missed:
        complaints.append(
            f"by Valkey {len(wrongly)} records were dropped that are none, and {len(missed)} of {len(read - kept)} "
            f"duplicates passed; the first are {min(wrongly, default=None)} and {min(missed, default=None)}"
        )
    expected = MemorySequenceTracker().check_sequence_batch(reader.checks)
    others = [pair for pair in zip(reader.events, expected, strict=True) if pair[0] != pair[1]]
    if others:
        complaints.append(f"{len(others)} of {len(expected)} events of numbers differ, such as {others[0]}")
    return complaints
