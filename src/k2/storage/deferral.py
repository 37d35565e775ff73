"""The deferred list of a partition: what overload left out, in order, and the rules by which it is written later.

Deferral is sticky: while the list holds an entry, everything that it matches is deferred too. A predicate may only
widen, and a new tier map takes effect once the list is empty, so a list has at most one entry a predicate.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from k2.common.degradation import DEFERRED_FROM, Priority
from k2.common.errors import AccountingError, FencedError
from k2.storage.seam import Counts, DeferredRange, LogPartition, Seam

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k2.common.degradation import DegradationLevel
    from k2.storage.seam import PartitionDelta


@dataclass(frozen=True, slots=True)
class Predicate:
    """Which records are deferred: by this tier map, those whose priority's number is `deferred_from` or more."""

    tier_map_id: str
    deferred_from: int

    def __post_init__(self) -> None:
        if self.deferred_from <= Priority.CRITICAL:
            raise ValueError(f"expected a priority below CRITICAL to defer from, found {self.deferred_from}")

    @classmethod
    def at(cls, level: DegradationLevel, tier_map_id: str) -> Predicate | None:
        """Return what a level defers; None if it defers nothing."""
        deferred_from = DEFERRED_FROM[level]
        return None if deferred_from >= len(Priority) else cls(tier_map_id, deferred_from)

    def matches(self, priority: int) -> bool:
        """Say whether a record of a priority is deferred."""
        return priority >= self.deferred_from

    def covers(self, other: Predicate) -> bool:
        """Say whether all that another one matches is deferred by this one too."""
        return self.tier_map_id == other.tier_map_id and self.deferred_from <= other.deferred_from


@dataclass(frozen=True, slots=True)
class Backfill:
    """What became of the deferred records of [start, end), the beginning of a partition's first entry.

    `log_start` is the first offset that the log still held: records below it may be lost, others may not. A part that
    is not the whole entry tells of losses only where it is just what the log has lost.
    """

    start: int
    end: int
    predicate: Predicate
    found: Counts
    log_start: int = 0
    lost: int = 0

    @property
    def records(self) -> int:
        """Deferred records whose fate is known now."""
        return self.found.rows + self.found.duplicates + self.found.dead_letters + self.lost


@dataclass(frozen=True, slots=True)
class DeferredList:
    """The entries of one partition, first offset first."""

    key: LogPartition
    entries: tuple[DeferredRange, ...] = ()

    @classmethod
    def of(cls, seam: Seam, key: LogPartition) -> DeferredList:
        """Return the list that a seam holds for a partition."""
        return cls(key, tuple(entry for entry in seam.deferred if _partition_of(entry) == key))

    @property
    def records(self) -> int:
        """Records that are deferred and not written yet."""
        return sum(entry.records for entry in self.entries)

    def in_force(self, wanted: Predicate | None) -> Predicate | None:
        """Return what the next batch defers, where the level by itself would defer what is `wanted`."""
        if not self.entries:
            return wanted
        held = predicate_of(self.entries[-1])
        if wanted is None:
            return held
        return replace(held, deferred_from=min(held.deferred_from, wanted.deferred_from))

    def deferring(self, start: int, end: int, predicate: Predicate, records: int) -> DeferredList:
        """Return the list after a batch of [start, end) has deferred so many records.

        Raises:
            FencedError: the batch was sorted by a predicate that lets records pass which the list holds back.
        """
        if self.in_force(predicate) != predicate:
            raise FencedError(
                f"expected a batch of {_where(self.key)} to be sorted by {self.in_force(predicate)}, as its deferred "
                f"list asks, found {predicate}: drop the batch, take the list from the head and sort again"
            )
        if not records:
            return self
        last = self.entries[-1] if self.entries else None
        if last is not None and predicate_of(last) == predicate:
            return replace(self, entries=(*self.entries[:-1], replace(last, end=end, records=last.records + records)))
        added = DeferredRange(
            self.key.log_id, self.key.partition, start, end, predicate.tier_map_id, predicate.deferred_from, records
        )
        return replace(self, entries=(*self.entries, added))

    def backfilled(self, backfill: Backfill) -> DeferredList:
        """Return the list after a backfill of the beginning of its first entry.

        Raises:
            FencedError: the first entry is another by now; take the list from the head and begin again.
            AccountingError: more or fewer records were found than were deferred.
        """
        entry = self.fence(backfill)
        left = entry.records - backfill.records
        whole = backfill.end == entry.end
        gone = max(entry.start, backfill.log_start)
        if left < 0 or (whole and left) or (backfill.lost and not (whole or backfill.end == gone)):
            raise AccountingError(
                f"expected {entry.records} deferred records in [{entry.start}, {entry.end}) of {_where(self.key)}, "
                f"found {backfill.records} of them, {backfill.lost} lost, in [{backfill.start}, {backfill.end}): "
                "nothing was committed; a person decides, `k2 verify` shows the log's side"
            )
        if backfill.lost and backfill.log_start <= entry.start:
            raise AccountingError(
                f"{backfill.lost} deferred records of [{entry.start}, {entry.end}) of {_where(self.key)} are missing, "
                f"but the log still begins at {backfill.log_start}: nothing was committed; a person decides"
            )
        rest = self.entries[1:]
        return replace(self, entries=rest if whole else (replace(entry, start=backfill.end, records=left), *rest))

    def fence(self, backfill: Backfill) -> DeferredRange:
        """Return the first entry, if it has the backfill's start and predicate and reaches its end."""
        entry = self.entries[0] if self.entries else None
        if (
            entry is None
            or entry.start != backfill.start
            or predicate_of(entry) != backfill.predicate
            or not entry.start < backfill.end <= entry.end
        ):
            raise FencedError(
                f"expected [{backfill.start}, {backfill.end}), deferred by {backfill.predicate}, at the beginning of "
                f"the deferred list of {_where(self.key)}, found {entry}: somebody else wrote it; drop the backfill "
                "and take the list from the head"
            )
        return entry


@dataclass(frozen=True, slots=True)
class Deferral:
    """What one commit does to the deferred lists: an ingest batch defers, a backfill writes a range.

    `predicates` says by what each partition of the batch was sorted; `tier_maps` are the texts, by id, of the maps that
    they name. With `backfill`, the commit has no deltas: no offset moves.
    """

    predicates: Mapping[LogPartition, Predicate] = field(default_factory=dict)
    backfill: tuple[LogPartition, Backfill] | None = None
    tier_maps: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of the commit that had been deferred by earlier ones."""
        return self.backfill[1].found.rows if self.backfill else 0

    def seam_after(self, seam: Seam, deltas: Mapping[LogPartition, PartitionDelta]) -> Seam:
        """Return the seam after the commit.

        Raises:
            FencedError, AccountingError: as `seam_after_batch` and `seam_after_backfill` do.
        """
        if self.backfill is None:
            return seam_after_batch(seam, deltas, self.predicates)
        if deltas:
            raise AccountingError(
                f"expected no new offsets in the commit of a backfill, found some of {len(deltas)} partitions: "
                "nothing was committed"
            )
        return seam_after_backfill(seam, *self.backfill)


def complete_through(seam: Seam, key: LogPartition) -> int | None:
    """Return the offset below which every record of a partition is written or counted; None if it is not registered.

    That is where its first deferred range begins, or the next offset where nothing is deferred.
    """
    entries = DeferredList.of(seam, key).entries
    return entries[0].start if entries else seam.next_offset(key)


def predicate_of(entry: DeferredRange) -> Predicate:
    """Return the predicate by which an entry was deferred."""
    return Predicate(entry.tier_map_id, entry.lowest_deferred_priority)


def seam_after_batch(
    seam: Seam,
    deltas: Mapping[LogPartition, PartitionDelta],
    predicates: Mapping[LogPartition, Predicate],
) -> Seam:
    """Return the seam after an ingest commit: what the batch deferred joins the lists.

    `predicates` says by what each partition was sorted; it has none for a partition of which nothing was deferred.

    Raises:
        FencedError: a batch let records pass that a list holds back.
        AccountingError: counts do not add up.
    """
    after = seam.advanced(deltas)
    for key, delta in deltas.items():
        held = DeferredList.of(after, key)
        predicate = predicates.get(key)
        if predicate is not None:
            after = _with_list(after, held.deferring(delta.start, delta.end, predicate, delta.counts.deferred))
        elif held.entries:
            raise FencedError(
                f"expected a batch of {_where(key)} to be sorted by {held.in_force(None)}, as its deferred list asks, "
                "found that nothing was deferred: drop the batch, take the list from the head and sort again"
            )
        elif delta.counts.deferred:
            raise AccountingError(
                f"expected no deferred records in a batch of {_where(key)} that was sorted by no predicate, found "
                f"{delta.counts.deferred}: nothing was committed"
            )
    return after


def seam_after_backfill(seam: Seam, key: LogPartition, backfill: Backfill) -> Seam:
    """Return the seam after the commit of a backfill; no offset moves.

    Raises:
        FencedError, AccountingError: as `DeferredList.backfilled` does.
    """
    return replace(_applied(seam, key, backfill), commit_sequence=seam.commit_sequence + 1)


def check_lists(seam: Seam) -> None:
    """See that the lists are in order and hold as many records as the counters say.

    Raises:
        AccountingError: they are not, or do not.
    """
    for key, part in seam.partitions.items():
        held = DeferredList.of(seam, key)
        problems = [] if held.records == part.counts.deferred else [f"{part.counts.deferred} records by the counters"]
        place = 0
        before: Predicate | None = None
        for entry in held.entries:
            predicate = predicate_of(entry)
            if entry.start < place or entry.end <= entry.start or entry.end > part.next_offset:
                problems.append(f"[{entry.start}, {entry.end}) is out of place")
            if before is not None and (
                predicate.tier_map_id != before.tier_map_id or predicate.deferred_from >= before.deferred_from
            ):
                problems.append(f"{predicate} after {before} does not widen")
            place, before = entry.end, predicate
        if problems:
            raise AccountingError(
                f"the deferred list of {_where(key)} holds {held.records} records and does not fit: "
                f"{'; '.join(problems)}"
            )


def _applied(seam: Seam, key: LogPartition, backfill: Backfill) -> Seam:
    shortened = DeferredList.of(seam, key).backfilled(backfill)
    part = seam.partitions[key]
    found = backfill.found
    change = Counts(
        rows=found.rows,
        duplicates=found.duplicates,
        dead_letters=found.dead_letters,
        deferred=-backfill.records,
        lost=backfill.lost,
    )
    partitions = {**seam.partitions, key: replace(part, counts=part.counts + change)}
    return _with_list(replace(seam, partitions=partitions), shortened)


def _with_list(seam: Seam, changed: DeferredList) -> Seam:
    others = (entry for entry in seam.deferred if _partition_of(entry) != changed.key)
    return replace(seam, deferred=tuple(sorted((*others, *changed.entries), key=_place_of)))


def _partition_of(entry: DeferredRange) -> LogPartition:
    return LogPartition(entry.log_id, entry.partition)


def _place_of(entry: DeferredRange) -> tuple[int, int, int]:
    return entry.log_id, entry.partition, entry.start


def _where(key: LogPartition) -> str:
    return f"log {key.log_id} partition {key.partition}"
