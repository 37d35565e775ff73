"""Reads the tables of a run as plain PyIceberg sees them, and puts oracle O1 to them and to every snapshot kept."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from k2.storage.seam import Seam
from k2.testing.faults.oracle import StoredRow, Verdict, check_progress, check_seam, judge
from k2.testing.faults.processes.feeder import content_of, letter_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from k2.storage.tables import MarketTables
    from k2.testing.faults.processes.feeder import Feeder


def judge_tables(tables: MarketTables, feeder: Feeder, complaints: Iterable[str] = ()) -> tuple[Verdict, int]:
    """Return the oracle's verdict, and how many commits were accepted whose start was not the seam."""
    rows = [
        StoredRow(row["trade_id"], (row["log_id"], row["log_partition"], row["log_offset"]), content_of(row))
        for row in tables.load("trades").scan().to_arrow().to_pylist()
    ]
    letters = tables.load("dead_letters").scan(selected_fields=("key", "value")).to_arrow().to_pylist()
    counts = Counter((row.coordinate[0], row.coordinate[1]) for row in rows if isinstance(row.coordinate, tuple))
    ledger = [*complaints, *check_seam("trades", tables.head("trades").seam, counts)]
    history, stale = _check_history(tables)
    good: dict[Hashable, str] = dict(feeder.good.items())
    verdict = judge(
        good,
        feeder.bad,
        rows=rows,
        dead_letters=[letter_of(letter["key"], letter["value"]) for letter in letters],
        unacknowledged=feeder.unacknowledged,
        ledger=[*ledger, *history],
    )
    return verdict, stale


def _check_history(tables: MarketTables) -> tuple[list[str], int]:
    """Look at every snapshot kept: the ledger adds up in each, no seam goes back, rows come only as the seam moves."""
    complaints: list[str] = []
    stale = 0
    before: Seam | None = None
    table = tables.load("trades")
    for snapshot in sorted(table.snapshots(), key=lambda found: found.sequence_number or 0):
        seam = Seam.from_summary({} if snapshot.summary is None else snapshot.summary.additional_properties)
        if seam.totals().unaccounted:
            complaints.append(f"snapshot {snapshot.snapshot_id}: {seam.totals().unaccounted} records unaccounted for")
        if before is not None:
            complaints += check_progress("trades", before, seam)
            for key, part in seam.partitions.items():
                known = before.partitions.get(key)
                if known is not None:
                    consumed = part.counts.consumed - known.counts.consumed
                    stale += consumed > part.next_offset - known.next_offset
        before = seam
    return complaints, stale
