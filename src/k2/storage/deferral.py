"""The deferred list of a partition: what overload left out, in order, and the rules by which it is written later.

Deferral is sticky: while the list holds an entry, everything that it matches is deferred too. A predicate may only
widen, and a new tier map takes effect once the list is empty, so a list has at most one entry a predicate.
Halted streams have entries of their own, beside those; they are written once a person lets them go on.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from k2.common.degradation import DEFERRED_FROM, Priority
from k2.common.errors import AccountingError, FencedError
from k2.storage.halts import problems_of, with_batch
from k2.storage.seam import Counts, DeferredRange, LogPartition, Seam

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from k2.common.degradation import DegradationLevel
    from k2.storage.halts import HaltedPart
    from k2.storage.seam import HaltedStream, PartitionDelta


@dataclass(frozen=True, slots=True)
class Predicate:
    """Which records are deferred: by this tier map, those whose priority's number is `deferred_from` or more.

    With `halted`, those of a halted stream instead, and no others.
    """

    tier_map_id: str
    deferred_from: int
    halted: HaltedStream | None = None

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

    def covers(self, other: Predicate | None) -> bool:
        """Say whether all that another one matches is deferred by this one too."""
        if other is None:
            return True
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
    """The entries of one partition, first offset first; `halts` are those of halted streams, one each."""

    key: LogPartition
    entries: tuple[DeferredRange, ...] = ()
    halts: tuple[DeferredRange, ...] = ()

    @classmethod
    def of(cls, seam: Seam, key: LogPartition) -> DeferredList:
        """Return the list that a seam holds for a partition."""
        mine = [entry for entry in seam.deferred if _partition_of(entry) == key]
        return cls(
            key,
            tuple(entry for entry in mine if entry.halted is None),
            tuple(entry for entry in mine if entry.halted is not None),
        )

    @property
    def ranges(self) -> tuple[DeferredRange, ...]:
        """All that is deferred, whatever for."""
        return (*self.entries, *self.halts)

    @property
    def records(self) -> int:
        """Records that are deferred and not written yet."""
        return sum(entry.records for entry in self.ranges)

    @property
    def halted(self) -> tuple[HaltedStream, ...]:
        """The streams that are halted."""
        return tuple(entry.halted for entry in self.halts if entry.halted is not None)

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

    def halting(self, start: int, end: int, parts: Sequence[HaltedPart]) -> DeferredList:
        """Return the list after a batch of [start, end) that put off so many records of each halted stream.

        Raises:
            FencedError: the batch was sorted by other streams than those that are halted.
        """
        halts = sorted(with_batch(self.halts, self.key, start, end, parts), key=_place_of)
        return replace(self, halts=tuple(halts))

    def backfilled(self, backfill: Backfill) -> DeferredList:
        """Return the list after a backfill of the beginning of its first entry, or of a halted stream's.

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
        kept = () if whole else (replace(entry, start=backfill.end, records=left),)
        if entry.halted is None:
            return replace(self, entries=(*kept, *self.entries[1:]))
        others = (each for each in self.halts if each.halted != entry.halted)
        return replace(self, halts=tuple(sorted((*kept, *others), key=_place_of)))

    def fence(self, backfill: Backfill) -> DeferredRange:
        """Return the first entry, if it has the backfill's start and predicate and reaches its end.

        A halted stream may have earlier records in entries of overload, so those are written before it.
        """
        halted = None if self.entries else backfill.predicate.halted
        entry = next((each for each in self.ranges if each.halted == halted), None)
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

    `predicates` and `halts` say by what each partition of the batch was sorted; `tier_maps` are the texts, by id, of
    the maps that they name. With `backfill`, the commit has no deltas: no offset moves.
    """

    predicates: Mapping[LogPartition, Predicate] = field(default_factory=dict)
    backfill: tuple[LogPartition, Backfill] | None = None
    tier_maps: Mapping[str, str] = field(default_factory=dict)
    halts: Mapping[LogPartition, tuple[HaltedPart, ...]] = field(default_factory=dict)

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
            return seam_after_batch(seam, deltas, self.predicates, self.halts)
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
    held = DeferredList.of(seam, key)
    return min((entry.start for entry in held.ranges), default=seam.next_offset(key))


def predicate_of(entry: DeferredRange) -> Predicate:
    """Return the predicate by which an entry was deferred."""
    return Predicate(entry.tier_map_id, entry.lowest_deferred_priority, entry.halted)


def seam_after_batch(
    seam: Seam,
    deltas: Mapping[LogPartition, PartitionDelta],
    predicates: Mapping[LogPartition, Predicate],
    halts: Mapping[LogPartition, Sequence[HaltedPart]] | None = None,
) -> Seam:
    """Return the seam after an ingest commit: what the batch deferred joins the lists.

    `predicates` says by what each partition was sorted; it has none for a partition of which nothing was deferred.
    `halts` has all streams that were put off in a partition, and how many of the deferred records are theirs.

    Raises:
        FencedError: a batch let records pass that a list holds back.
        AccountingError: counts do not add up.
    """
    after = seam.advanced(deltas)
    for key, delta in deltas.items():
        parts = (halts or {}).get(key, ())
        held = DeferredList.of(after, key).halting(delta.start, delta.end, parts)
        by_priority = delta.counts.deferred - sum(part.records for part in parts)
        predicate = predicates.get(key)
        if predicate is not None:
            held = held.deferring(delta.start, delta.end, predicate, by_priority)
        elif held.entries:
            raise FencedError(
                f"expected a batch of {_where(key)} to be sorted by {held.in_force(None)}, as its deferred list asks, "
                "found that nothing was deferred: drop the batch, take the list from the head and sort again"
            )
        elif by_priority:
            raise AccountingError(
                f"expected no deferred records in a batch of {_where(key)} that was sorted by no predicate, found "
                f"{by_priority}: nothing was committed"
            )
        after = _with_list(after, held)
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
        problems += problems_of(held.halts, part.next_offset)
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
    return replace(seam, deferred=tuple(sorted((*others, *changed.entries, *changed.halts), key=_place_of)))


def _partition_of(entry: DeferredRange) -> LogPartition:
    return LogPartition(entry.log_id, entry.partition)


def _place_of(entry: DeferredRange) -> tuple[int, int, int]:
    return entry.log_id, entry.partition, entry.start


def _where(key: LogPartition) -> str:
    return f"log {key.log_id} partition {key.partition}"
