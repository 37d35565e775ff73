"""A batch on its way into a table, from its first file to what is told once it is committed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from k2.ingestion import events
from k2.storage.writer import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Future

    from k2.ingestion.duplicates.deduplicator import Decisions
    from k2.ingestion.pending import Pending
    from k2.ingestion.sequences.watched import Watched
    from k2.storage.data_files import WrittenFile
    from k2.storage.deferral import Deferral
    from k2.storage.seam import LogPartition, PartitionDelta
    from k2.storage.writer import Commit


@dataclass(slots=True)
class Prepared:
    """It is kept, with its id, until its fate is known."""

    batch_id: str
    pending: Pending
    schemas: Mapping[int, str]
    created_at_ns: int
    deferral: Deferral
    deltas: Mapping[LogPartition, PartitionDelta] = field(default_factory=dict)
    """What it adds to each partition; known once it is decided what is a duplicate."""
    decisions: Decisions = field(default_factory=dict)
    written: Future[tuple[WrittenFile, ...]] | None = None
    files: tuple[WrittenFile, ...] | None = None
    write_seconds: float = 0.0
    published: set[LogPartition] = field(default_factory=set)
    recorded: set[LogPartition] = field(default_factory=set)
    watched: Watched | None = None

    @property
    def batch(self) -> Batch:
        """What the writer is given."""
        return Batch(
            self.batch_id, self.deltas, self.files or (), self.schemas, self.created_at_ns, deferral=self.deferral
        )

    def told(self, table: str, commit: Commit, commit_seconds: float) -> Iterator[events.Event]:
        """Give what observers are told, now that it is committed."""
        conflicts = {key: decision.conflicts for key, decision in self.decisions.items() if decision.conflicts}
        if conflicts:
            yield events.RecordsInConflict(table, conflicts)
        by_error_class = Counter(record.error_class for _, _, record in self.pending.bad())
        if by_error_class:
            yield events.RecordsDeadLettered(table, dict(by_error_class))
        shed: Counter[tuple[str, str]] = Counter()
        for part in self.pending.partitions.values():
            shed.update({(priority.name.lower(), reason): records for (priority, reason), records in part.shed.items()})
        if shed:
            yield events.RecordsDeferred(table, dict(shed))
        yield events.BatchCommitted(
            table=table,
            rows=commit.rows,
            dead_letters=by_error_class.total(),
            records=self.pending.records,
            files=len(self.files or ()),
            write_seconds=self.write_seconds,
            commit_seconds=commit_seconds,
            commit_sequence=commit.seam.commit_sequence,
            snapshot_id=commit.snapshot_id,
            duplicates=sum(decision.duplicates for decision in self.decisions.values()),
            deferred=shed.total(),
        )
