"""What the deduplicator remembers of one partition, and what it would have to read to be up to date."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from k2.ingestion.duplicates.seen_sequences import SeenSequences


@dataclass(frozen=True, slots=True)
class MemoryGap:
    """What one partition's memory lacks."""

    logged_from: datetime
    offset_from: int = 0
    commits_above: int = -1


@dataclass(slots=True)
class Memory:
    """What may be stored of one partition, up to `next_offset`, as of a commit."""

    next_offset: int
    commit_sequence: int
    sequences: SeenSequences
    written_above: int | None = None
    """Others have written rows of lower offsets since this commit, which are not remembered."""
    blind_until: datetime | None = None
    """Log time up to which rows were stored that are not remembered."""
    forgotten_at: datetime | None = None
    ids_by_generation: dict[int, datetime] = field(default_factory=dict)
    """Newest log time of the ids that went into each generation of the shared filters."""
    ids_lost: datetime | None = None
    """Log time up to which the filters have forgotten ids: too soon for a partition that lags behind the others."""

    def gap(self, start: int, since: datetime) -> MemoryGap | None:
        """Return what it lacks to say what is stored below `start`; None if nothing."""
        if self.next_offset == start and self.written_above is None:
            return None
        above = self.commit_sequence if self.written_above is None else self.written_above
        return MemoryGap(since, self.next_offset, above)

    def written_elsewhere(self, commit_sequence: int) -> None:
        """Take note that others have written rows since a commit."""
        known = self.written_above
        self.written_above = commit_sequence if known is None else min(known, commit_sequence)
