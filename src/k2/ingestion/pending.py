"""What is decoded and not committed yet, by partition, so that one partition can be dropped without the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from k2.ingestion.duplicates.deduplicator import Part
from k2.ingestion.sequences.ledger import BatchPart
from k2.storage.seam import Counts, PartitionDelta

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from k2.ingestion.duplicates.deduplicator import Decisions
    from k2.ingestion.handover import Chunk
    from k2.kafka.decoding import BadRecord, Decoded
    from k2.storage.seam import LogPartition


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

    def delta(self, duplicates: int = 0) -> PartitionDelta:
        """Return what committing this adds: consumed as the consumer counted, rows as the decoder did."""
        rows = self.rows - duplicates
        counts = Counts(consumed=self.consumed, rows=rows, duplicates=duplicates, dead_letters=len(self.bad))
        return PartitionDelta(self.start, self.end, counts, self.leader_epoch)


class Pending:
    """The next batch of one table."""

    def __init__(self) -> None:
        self.partitions: dict[LogPartition, PartitionPending] = {}
        self.records = 0
        self.nbytes = 0

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

    def add(self, chunk: Chunk, decoded: Decoded) -> None:
        """Append a decoded chunk that fits."""
        part = self.partitions.get(chunk.log)
        if part is None:
            part = PartitionPending(chunk.batch.topic, chunk.epoch, chunk.start, chunk.start, chunk.arrived)
            self.partitions[chunk.log] = part
        part.end = chunk.end
        part.leader_epoch = max(part.leader_epoch, chunk.batch.leader_epoch)
        part.consumed += len(chunk.batch)
        part.rows += decoded.rows.height
        if decoded.rows.height:
            part.frames.append(decoded.rows)
        part.bad.extend(decoded.bad)
        self.records += len(chunk.batch)
        self.nbytes += chunk.batch.nbytes

    def drop(self, log: LogPartition) -> int:
        """Forget one partition; return how many records that were. Its bytes count until the next batch."""
        part = self.partitions.pop(log, None)
        if part is None:
            return 0
        self.records -= part.consumed
        return part.consumed

    def parts(self) -> dict[LogPartition, Part]:
        """Return the decoded rows, by partition."""
        return {log: Part(part.start, part.frames) for log, part in self.partitions.items()}

    def deltas(self, decisions: Decisions) -> dict[LogPartition, PartitionDelta]:
        """Return what committing this adds to each partition, once it is decided what is a duplicate."""
        return {log: part.delta(decisions[log].duplicates) for log, part in self.partitions.items()}

    def kept(self, decisions: Decisions) -> dict[LogPartition, BatchPart]:
        """Return what goes into the table of each partition, once it is decided what is a duplicate."""
        return {log: BatchPart(p.topic, p.start, p.end, decisions[log].kept) for log, p in self.partitions.items()}

    def bad(self) -> Iterator[tuple[LogPartition, PartitionPending, BadRecord]]:
        """Iterate over the records that could not be decoded, with their partition."""
        for log, part in self.partitions.items():
            for record in part.bad:
                yield log, part, record
