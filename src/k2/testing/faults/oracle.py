"""Oracle O1: what was acknowledged is in the tables once, with the same content, and every ledger adds up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

    from k2.storage.seam import Seam


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One row: what its record is known by, where it lies in the log, and its content."""

    key: Hashable
    coordinate: Hashable
    content: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the oracle found; `complaints` are in words and empty in a run that keeps the promises."""

    acknowledged: int
    rows: int
    dead_letters: int
    lost: int
    doubled: int
    altered: int
    complaints: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Say whether every promise was kept."""
        return not (self.lost or self.doubled or self.altered or self.complaints)


def judge(
    good: Mapping[Hashable, str],
    bad: Collection[Hashable],
    *,
    rows: Sequence[StoredRow],
    dead_letters: Sequence[Hashable],
    duplicates: int = 0,
    unacknowledged: Collection[Hashable] = (),
    ledger: Iterable[str] = (),
) -> Verdict:
    """Compare what was acknowledged with what is stored.

    `good` maps each acknowledged record to its content, `bad` are those that must become dead letters, `duplicates`
    is how many of the good ones were declared duplicates. A record of `unacknowledged` may be stored or not.
    """
    keys = Counter(row.key for row in rows)
    places = Counter(row.coordinate for row in rows)
    dead = Counter(dead_letters)
    known = good.keys() | set(unacknowledged)
    lost = max(0, sum(key not in keys for key in good) - duplicates) + sum(key not in dead for key in bad)
    doubled = max(keys.total() - len(keys), places.total() - len(places)) + dead.total() - len(dead)
    altered = sum(row.key in good and row.content != good[row.key] for row in rows)
    complaints = list(ledger)
    foreign = [key for key in keys if key not in known]
    if foreign:
        complaints.append(f"{len(foreign)} rows that nobody sent, {foreign[0]} among them")
    wrongly_dead = [key for key in dead if key not in set(bad) and key not in unacknowledged]
    if wrongly_dead:
        complaints.append(f"{len(wrongly_dead)} dead letters of sound records, {wrongly_dead[0]} among them")
    return Verdict(len(good) + len(bad), len(rows), len(dead_letters), lost, doubled, altered, tuple(complaints))


def check_seam(table: str, seam: Seam, rows: Mapping[tuple[int, int], int]) -> list[str]:
    """Return what is wrong with a seam's ledger; `rows` counts the table's rows by log and partition."""
    complaints = []
    for key, part in seam.partitions.items():
        where = f"{table}, log {key.log_id} partition {key.partition}"
        if part.counts.unaccounted:
            complaints.append(f"{where}: {part.counts.unaccounted} records unaccounted for: {part.counts}")
        found = rows.get((key.log_id, key.partition), 0)
        if part.counts.rows != found:
            complaints.append(f"{where}: the ledger counts {part.counts.rows} rows, the table has {found}")
        if part.counts.consumed > part.next_offset:
            complaints.append(f"{where}: {part.counts.consumed} records consumed below offset {part.next_offset}")
    return complaints


def check_progress(table: str, before: Seam, after: Seam) -> list[str]:
    """Return where a later seam went back behind an earlier one."""
    complaints = []
    if after.commit_sequence < before.commit_sequence:
        complaints.append(
            f"{table}: commit_sequence went back from {before.commit_sequence} to {after.commit_sequence}"
        )
    for key, part in before.partitions.items():
        found = after.next_offset(key)
        if found is None or found < part.next_offset:
            complaints.append(
                f"{table}, log {key.log_id} partition {key.partition}: the seam went back from {part.next_offset} to "
                f"{'nothing' if found is None else found}"
            )
    return complaints
