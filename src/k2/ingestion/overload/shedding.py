"""Sorts the chunks of one table, by key and before they are decoded, into what is written now and what is put off.

What a deferred list holds back stays held back, whatever the level: by the tier map of the list, until it is empty.
So do halted streams, each until it is written, from the message on that showed its gap.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from k2.common.degradation import DEFERRED_FROM, Priority
from k2.common.errors import CorruptionError, FencedError
from k2.common.load_shedder import LoadShedder
from k2.ingestion.sequences.parts import LeftOut
from k2.schemas.tier_maps import TierMap
from k2.storage.deferral import Deferral, DeferredList, Predicate
from k2.storage.halts import NOBODY, owners
from k2.storage.seam import LogPartition, Seam

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from k2.ingestion.handover import Chunk
    from k2.ingestion.overload.flows import Flows
    from k2.ingestion.overload.ladder import Ladder
    from k2.ingestion.pending import PartitionPending, Pending
    from k2.kafka.batches import LogBatch
    from k2.storage.seam import HaltedStream
    from k2.storage.tables import TableHead

_SAMPLE: Final = 1_000
"""Keys of a chunk that are looked at for their priorities alone, where nothing is deferred."""
_HELD_BACK: Final = "held_back"
"""Why a record is deferred that the level by itself would let pass: the list holds earlier ones of its symbol."""
_HALTED: Final = "halted"
"""Why a record of a halted stream is deferred."""


@dataclass(frozen=True, slots=True)
class Sorted:
    """What became of a chunk: `batch` is to be decoded, `shed` counts the others by priority and reason.

    `halts` has every stream that is halted, with how many of the others are its own.
    """

    batch: LogBatch
    shed: Counter[tuple[Priority, str]] = field(default_factory=Counter)
    halts: Mapping[HaltedStream, int] = field(default_factory=dict)


class Shedding:
    """The deferred lists of one table as this worker knows them; only the writer's thread uses it."""

    def __init__(
        self,
        table: str,
        *,
        ladder: Ladder,
        flows: Flows,
        tiers: TierMap | None = None,
        keys_max: int = 100_000,
    ) -> None:
        """Begin; without `tiers`, nothing new is deferred."""
        self._table = table
        self._ladder = ladder
        self._flows = flows
        self._tiers = tiers
        self._keys_max = keys_max
        self._seam = Seam()
        self._texts: dict[str, str] = {} if tiers is None else {tiers.map_id: tiers.to_json()}
        self._shedders: dict[str, LoadShedder] = {}
        self._labels = LoadShedder((tiers or TierMap()).priorities(), keys_max=keys_max)
        self._to_halt: dict[LogPartition, tuple[HaltedStream, ...]] = {}
        """Streams that a batch showed to be halted; they are in no list yet."""

    # Lists.

    def learn(self, head: TableHead) -> dict[LogPartition, int]:
        """Take the lists from a head; see `committed` for what is returned."""
        self._texts |= head.tier_maps
        changed = self._take(head.seam, {})
        for log, wanted in self._to_halt.items():  # below the seam the stream has gone on, or is halted by now
            at = head.seam.next_offset(log)
            self._to_halt[log] = tuple(halted for halted in wanted if at is None or halted.since >= at)
        return changed

    def committed(self, seam: Seam, pending: Pending) -> dict[LogPartition, int]:
        """Take the lists from the head after a commit.

        Returns the partitions in which others have written what was deferred, each with the commit it came after.
        """
        return self._take(seam, pending.partitions)

    def backfilled(self, seam: Seam) -> dict[LogPartition, int]:
        """Take the lists from the head after a backfill; see `committed` for what is returned."""
        return self._take(seam, {})

    def _take(self, seam: Seam, added: Mapping[LogPartition, PartitionPending]) -> dict[LogPartition, int]:
        before, self._seam = self._seam, seam
        self._ladder.deferred(
            self._table,
            sum(entry.records for entry in seam.deferred),
            lowest_priority=min((entry.lowest_deferred_priority for entry in seam.deferred), default=len(Priority)),
        )
        changed = {}
        listed = {LogPartition(entry.log_id, entry.partition) for entry in (*before.deferred, *seam.deferred)}
        for key in listed | added.keys():
            held = DeferredList.of(before, key)
            if DeferredList.of(seam, key) != _with(held, added.get(key)):
                changed[key] = before.commit_sequence
        return changed

    def left_out(self, pending: Pending) -> dict[LogPartition, LeftOut]:
        """Return what is left out of each partition of a batch, by the batch or by what is listed before it.

        A predicate that has matched nothing leaves nothing out.
        """
        found = {}
        for log, part in pending.partitions.items():
            held = DeferredList.of(self._seam, log)
            predicate = part.predicate or held.in_force(None)
            if predicate is not None and (held.entries or part.deferred_by_priority):
                since = held.entries[0].start if held.entries else part.start
                found[log] = LeftOut(since, predicate, partial(self._matches, predicate))
        return found

    def _matches(self, predicate: Predicate, symbol: str) -> bool:
        return predicate.matches(self._shedder(predicate.tier_map_id).get_priority(symbol, self._table))

    def reaches(self, log: LogPartition, parts: Iterable[PartitionPending], start: int) -> bool:
        """Say whether what is known of a partition's list holds for a chunk that begins at `start`.

        A list gets longer only where the seam moves: what is known at this very seam lacks nothing but what others
        have written of it, which shows at the next look. `parts` are as in `in_force`.
        """
        known = self._seam.next_offset(log)
        for part in parts:
            known = part.end
        return known == start

    # Halted streams.

    def halt(self, wanted: Mapping[LogPartition, Sequence[HaltedStream]]) -> None:
        """Put off streams from the message on that showed their gap, which is in no table yet.

        One that is known was sorted so and showed the gap all the same: its key is not its symbol. It goes on.

        Raises:
            FencedError: some are new; drop what was sorted without them, and read it again.
        """
        new = [
            (log, halted)
            for log, streams in wanted.items()
            for halted in streams
            if halted not in self._to_halt.get(log, ())
        ]
        for log, halted in new:
            self._to_halt[log] = (*self._to_halt.get(log, ()), halted)
        if new:
            streams = ", ".join(halted.stream for _, halted in new)
            raise FencedError(f"a gap of halting size in {streams} of {self._table}: the batch is read again without")

    def halted(self, log: LogPartition, parts: Sequence[PartitionPending]) -> list[HaltedStream]:
        """Return the streams that a partition's next chunk puts off; `parts` as for `in_force`, and FencedError too."""
        at = max([self._seam.next_offset(log) or 0, *(part.end for part in parts)])
        new = [each for each in self._to_halt.get(log, ()) if each.since >= at]
        return [*self._held(log, parts).halted, *new]

    # Sorting.

    def in_force(self, log: LogPartition, parts: Iterable[PartitionPending]) -> Predicate | None:
        """Return what a partition's next chunk defers; `parts` are its batches that are not committed yet, in order.

        Raises:
            FencedError: what was sorted already does not fit the lists; drop it, and take the lists from the head.
        """
        return self._held(log, parts).in_force(self._wanted())

    def _held(self, log: LogPartition, parts: Iterable[PartitionPending]) -> DeferredList:
        held = DeferredList.of(self._seam, log)
        for part in parts:
            held = _with(held, part)
        return held

    def _wanted(self) -> Predicate | None:
        return None if self._tiers is None else Predicate.at(self._ladder.level, self._tiers.map_id)

    def sort(self, chunk: Chunk, predicate: Predicate | None, halts: Sequence[HaltedStream] = ()) -> Sorted:
        """Sort a chunk: the records of halted streams are theirs, the others are sorted by their priority."""
        if not halts:
            return self._by_priority(chunk, predicate)
        batch = chunk.batch
        owner = owners(batch.keys, batch.offsets, halts)
        is_halted = owner != NOBODY
        found = self._by_priority(replace(chunk, batch=batch.where((~is_halted).tolist())), predicate)
        counts = np.bincount(owner[is_halted], minlength=len(halts)).tolist()
        shed = found.shed + self._halted_by_priority(batch.where(is_halted.tolist()))
        return Sorted(found.batch, shed, dict(zip(halts, counts, strict=True)))

    def _halted_by_priority(self, batch: LogBatch) -> Counter[tuple[Priority, str]]:
        """Count the records of halted streams by their priority: without tiers, they are in none."""
        priorities = self._labels.priorities(batch.keys, self._table)
        return Counter({(Priority(each), _HALTED): count for each, count in Counter(priorities.tolist()).items()})

    def _by_priority(self, chunk: Chunk, predicate: Predicate | None) -> Sorted:
        if predicate is None:
            taken = self._sampled(chunk.batch)
            self._came_to(chunk, taken, len(chunk.batch))
            return Sorted(chunk.batch)
        division = self._shedder(predicate.tier_map_id).divide_from(
            chunk.batch.keys, predicate.deferred_from, self._table
        )
        self._came_to(chunk, division.by_priority, len(chunk.batch) - division.deferred)
        if not division.deferred:
            return Sorted(chunk.batch)
        shed: Counter[tuple[Priority, str]] = Counter()
        by_level = DEFERRED_FROM[self._ladder.level] if self._tiers is not None else len(Priority)
        for priority in Priority:
            if priority >= predicate.deferred_from and division.by_priority[priority]:
                reason = self._ladder.reason if priority >= by_level else _HELD_BACK
                shed[priority, reason] = division.by_priority[priority]
        return Sorted(chunk.batch.where(division.keep.tolist()), shed)

    def deferral(self, pending: Pending) -> Deferral:
        """Return what a batch does to the lists."""
        predicates = {log: part.predicate for log, part in pending.partitions.items() if part.predicate is not None}
        named = {predicate.tier_map_id for predicate in predicates.values()}
        halts = {log: part.halted_parts for log, part in pending.partitions.items() if part.halts}
        return Deferral(predicates, tier_maps={each: self._texts[each] for each in sorted(named)}, halts=halts)

    def _sampled(self, batch: LogBatch) -> tuple[int, ...]:
        """Return about how many keys have which priority: neighbours, since a stride may meet one symbol's only."""
        if self._tiers is None or not len(batch):
            return (len(batch), 0, 0, 0)
        counts = (
            self._shedder(self._tiers.map_id).divide_from(batch.keys[:_SAMPLE], len(Priority), self._table).by_priority
        )
        return tuple(count * len(batch) // min(len(batch), _SAMPLE) for count in counts)

    def _came_to(self, chunk: Chunk, taken: tuple[int, ...], served: int) -> None:
        self._flows.came_to(self._table, chunk.log, epoch=chunk.epoch, position=chunk.end, taken=taken, served=served)

    def _shedder(self, map_id: str) -> LoadShedder:
        known = self._shedders.get(map_id)
        if known is None:
            text = self._texts.get(map_id)
            if text is None:
                raise CorruptionError(
                    f"expected the tier map {map_id}, by which records of {self._table} were deferred, in the table's "
                    "properties, found none: it was removed; put it back",
                    path=self._table,
                )
            priorities = TierMap.from_json(text).priorities()
            known = self._shedders[map_id] = LoadShedder(priorities, keys_max=self._keys_max)
        return known


def _with(held: DeferredList, part: PartitionPending | None) -> DeferredList:
    if part is None:
        return held
    held = held.halting(part.start, part.end, part.halted_parts)
    if part.predicate is None:
        return held
    return held.deferring(part.start, part.end, part.predicate, part.deferred_by_priority)
