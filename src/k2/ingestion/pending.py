"""What is decoded and not committed yet, by partition, so that one partition can be dropped without the others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from k2.ingestion.duplicates.deduplicator import Part
from k2.ingestion.sequences.parts import BatchPart
from k2.storage.halts import HaltedPart
from k2.storage.seam import Counts, PartitionDelta

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import polars as pl

    from k2.common.degradation import Priority
    from k2.ingestion.duplicates.deduplicator import Decisions
    from k2.ingestion.handover import Chunk
    from k2.ingestion.overload.shedding import Sorted
    from k2.ingestion.sequences.parts import LeftOut
    from k2.kafka.decoding import BadRecord, Decoded
    from k2.storage.deferral import Predicate
    from k2.storage.seam import HaltedStream, LogPartition

_US_PER_MS: Final = 1_000


@dataclass(slots=True)
class PartitionPending:
    """Decoded records of one partition that cover [start, end)."""

    topic: str
    epoch: int
    start: int
    end: int
    arrived: float
    leader_epoch: int = -1
    consumed: int = 0
    rows: int = 0
    frames: list[pl.DataFrame] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)
    predicate: Predicate | None = None
    """By what all of it was sorted; None where all is kept."""
    shed: Counter[tuple[Priority, str]] = field(default_factory=Counter)
    """Records deferred, by priority and reason."""
    logged_ms: int = 0
    """Log time that it reaches, with the records that were left out."""
    halts: Counter[HaltedStream] = field(default_factory=Counter)
    """The streams that were put off in all of it, each with how many of the deferred records are its own."""
    spilled: int = 0
    """How many of the frames, the first ones, are on disk."""

    @property
    def deferred(self) -> int:
        """Records that were left out for now."""
        return self.shed.total()

    @property
    def deferred_by_priority(self) -> int:
        """Of those, the records that are no halted stream's."""
        return self.deferred - self.halts.total()

    @property
    def halted_parts(self) -> tuple[HaltedPart, ...]:
        """What it does to halted streams."""
        return tuple(HaltedPart(halted, records) for halted, records in self.halts.items())

    def delta(self, duplicates: int = 0) -> PartitionDelta:
        """Return what committing this adds: consumed as the consumer counted, rows as the decoder did."""
        rows = self.rows - duplicates
        counts = Counts(
            consumed=self.consumed,
            rows=rows,
            duplicates=duplicates,
            dead_letters=len(self.bad),
            deferred=self.deferred,
        )
        return PartitionDelta(self.start, self.end, counts, self.leader_epoch)


class Pending:
    """The next batch of one table."""

    def __init__(self) -> None:
        self.partitions: dict[LogPartition, PartitionPending] = {}
        self.records = 0
        self.records_kept = 0
        """Records that were not deferred: what has to be held and written."""
        self.nbytes = 0
        self.began: float | None = None
        """Monotonic seconds at which its first record came in."""

    def __bool__(self) -> bool:
        """Say whether there is anything to commit."""
        return self.records > 0

    @property
    def oldest_arrival(self) -> float:
        """Monotonic seconds at which the oldest record was consumed."""
        return min(part.arrived for part in self.partitions.values())

    def fits(self, chunk: Chunk) -> bool:
        """Say whether the chunk goes on where the partition's pending records end."""
        part = self.partitions.get(chunk.log)
        return part is None or (part.epoch == chunk.epoch and part.end == chunk.start)

    def takes(self, log: LogPartition, predicate: Predicate | None, halts: Collection[HaltedStream] = ()) -> bool:
        """Say whether a chunk that is sorted by a predicate, and without halted streams, may join the partition's.

        One range of a deferred list has one predicate. Where nothing was deferred so far, a narrower one may take the
        place of the one before: it matches nothing that was kept.
        """
        part = self.partitions.get(log)
        if part is None:
            return True
        if part.halts.keys() != set(halts):
            return False
        if part.predicate == predicate:
            return True
        if part.deferred_by_priority or part.predicate is None:
            return False
        if predicate is not None and (
            predicate.tier_map_id != part.predicate.tier_map_id
            or predicate.deferred_from < part.predicate.deferred_from
        ):
            return False
        part.predicate = predicate
        return True

    def add(
        self,
        chunk: Chunk,
        decoded: Decoded,
        found: Sorted,
        *,
        at: float,
        predicate: Predicate | None = None,
    ) -> None:
        """Append a decoded chunk that fits, as it was sorted by the predicate."""
        self.began = at if self.began is None else self.began
        part = self.partitions.get(chunk.log)
        if part is None:
            part = PartitionPending(chunk.batch.topic, chunk.epoch, chunk.start, chunk.start, chunk.arrived)
            part.predicate = predicate
            self.partitions[chunk.log] = part
        part.shed.update(found.shed)
        part.halts.update(found.halts)
        part.end = chunk.end
        part.logged_ms = max(part.logged_ms, *chunk.batch.ts_log_ms[-1:], 0)
        part.leader_epoch = max(part.leader_epoch, chunk.batch.leader_epoch)
        part.consumed += len(chunk.batch)
        part.rows += decoded.rows.height
        if decoded.rows.height:
            part.frames.append(decoded.rows)
        part.bad.extend(decoded.bad)
        self.records += len(chunk.batch)
        self.records_kept += len(chunk.batch) - found.shed.total()
        self.nbytes += found.batch.nbytes

    def drop(self, log: LogPartition) -> int:
        """Forget one partition; return how many records that were. Its bytes count until the next batch."""
        part = self.partitions.pop(log, None)
        if part is None:
            return 0
        self.records -= part.consumed
        self.records_kept -= part.consumed - part.deferred
        return part.consumed

    def parts(self) -> dict[LogPartition, Part]:
        """Return the decoded rows, by partition."""
        return {log: Part(part.start, part.frames) for log, part in self.partitions.items()}

    def deltas(self, decisions: Decisions) -> dict[LogPartition, PartitionDelta]:
        """Return what committing this adds to each partition, once it is decided what is a duplicate."""
        return {log: part.delta(decisions[log].duplicates) for log, part in self.partitions.items()}

    def kept(self, decisions: Decisions, left_out: Mapping[LogPartition, LeftOut]) -> dict[LogPartition, BatchPart]:
        """Return what goes into the table of each partition, once it is decided what is a duplicate."""
        return {
            log: BatchPart(
                part.topic,
                part.start,
                part.end,
                decisions[log].kept,
                left_out.get(log),
                tuple(halted for halted in part.halts if halted.since < part.end),
                part.logged_ms * _US_PER_MS,
            )
            for log, part in self.partitions.items()
        }

    def bad(self) -> Iterator[tuple[LogPartition, PartitionPending, BadRecord]]:
        """Iterate over the records that could not be decoded, with their partition."""
        for log, part in self.partitions.items():
            for record in part.bad:
                yield log, part, record
