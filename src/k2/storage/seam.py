"""The seam: per log and partition the next offset that the table does not hold, kept in each snapshot's summary."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from k2.common.errors import K2Error

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

VERSION: Final = 1
VERSION_WITH_REMOVED: Final = 2
"""Written once retention has removed rows: a version of K2 that knows only 1 would forget that, and call them lost."""
VERSION_WITH_HALTS: Final = 3
"""Written while a stream is halted: a version of K2 that knows only 2 would let its records pass."""
SUMMARY_KEY: Final = "k2.seam"
BATCH_KEY: Final = "k2.batch"


class SeamError(K2Error):
    """A snapshot carries no seam, or one that this version cannot read."""


@dataclass(frozen=True, order=True, slots=True)
class LogPartition:
    """One partition of one registered log."""

    log_id: int
    partition: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Records by fate; cumulative in a seam, of one batch in a `PartitionDelta`.

    The ledger: consumed = rows + duplicates + dead_letters + deferred + lost.
    """

    consumed: int = 0
    rows: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    deferred: int = 0
    lost: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Add two counts, kind by kind."""
        return Counts(
            self.consumed + other.consumed,
            self.rows + other.rows,
            self.duplicates + other.duplicates,
            self.dead_letters + other.dead_letters,
            self.deferred + other.deferred,
            self.lost + other.lost,
        )

    @property
    def unaccounted(self) -> int:
        """Records consumed less records whose fate is known; 0 in a ledger that adds up."""
        return self.consumed - self.rows - self.duplicates - self.dead_letters - self.deferred - self.lost


@dataclass(frozen=True, slots=True)
class PartitionSeam:
    """Where one partition's rows end: `next_offset` is the first offset that the table does not hold."""

    next_offset: int
    leader_epoch: int = -1
    counts: Counts = field(default_factory=Counts)
    removed_rows: int = 0
    """Of `counts.rows`, those that retention has removed; the table holds the others."""

    @property
    def rows_held(self) -> int:
        """Rows that the table must hold."""
        return self.counts.rows - self.removed_rows


@dataclass(frozen=True, slots=True)
class PartitionDelta:
    """What one batch adds to one partition: it covers the offsets [start, end)."""

    start: int
    end: int
    counts: Counts
    leader_epoch: int = -1


@dataclass(frozen=True, slots=True)
class HaltedStream:
    """A stream of numbers that is put off since one message showed a gap of halting size.

    `stream` is a symbol, or a channel with all of its `symbols`; `since` is the offset of that message and never
    changes, so together with the partition it names this halt and no other.
    """

    stream: str
    symbols: tuple[str, ...]
    since: int
    since_us: int


@dataclass(frozen=True, slots=True)
class DeferredRange:
    """A range of offsets of which some records are left out for now: those of low priority, or of one halted stream."""

    log_id: int
    partition: int
    start: int
    end: int
    tier_map_id: str
    lowest_deferred_priority: int
    records: int
    halted: HaltedStream | None = None
    """The stream whose records these are, whatever their priority; its range has no tier map."""


@dataclass(frozen=True, slots=True)
class Seam:
    """The seam of one snapshot."""

    commit_sequence: int = 0
    partitions: Mapping[LogPartition, PartitionSeam] = field(default_factory=dict)
    deferred: tuple[DeferredRange, ...] = ()

    def next_offset(self, partition: LogPartition) -> int | None:
        """Return the first offset that the table does not hold, or None for a partition not registered."""
        known = self.partitions.get(partition)
        return None if known is None else known.next_offset

    def advanced(self, deltas: Mapping[LogPartition, PartitionDelta]) -> Seam:
        """Return the seam after a commit of `deltas`; the fence has been checked before."""
        partitions = dict(self.partitions)
        for key, delta in deltas.items():
            before = partitions[key]
            partitions[key] = replace(
                before,
                next_offset=delta.end,
                leader_epoch=max(before.leader_epoch, delta.leader_epoch),
                counts=before.counts + delta.counts,
            )
        return replace(self, commit_sequence=self.commit_sequence + 1, partitions=partitions)

    def with_rows_removed(self, removed: Mapping[LogPartition, int]) -> Seam:
        """Return the seam after retention has taken out rows: offsets and counters stay, `rows_held` shrinks."""
        partitions = dict(self.partitions)
        for key, rows in removed.items():
            before = partitions.get(key)
            if before is not None:  # else rows of a log that is not registered, which no ledger counts
                partitions[key] = replace(before, removed_rows=before.removed_rows + rows)
        return replace(self, commit_sequence=self.commit_sequence + 1, partitions=partitions)

    def replayed(self, key: LogPartition, *, rows: int, duplicates: int = 0) -> Seam:
        """Return the seam after so many dead letters of a partition have become rows or duplicates; no offset moves."""
        partitions = dict(self.partitions)
        part = partitions[key]
        change = Counts(rows=rows, duplicates=duplicates, dead_letters=-rows - duplicates)
        partitions[key] = replace(part, counts=part.counts + change)
        return replace(self, commit_sequence=self.commit_sequence + 1, partitions=partitions)

    def with_log(self, log_id: int, starts: Mapping[int, int]) -> Seam:
        """Return the seam with a log's partitions added at their start offsets; known partitions stay as they are."""
        partitions = dict(self.partitions)
        for number, start in starts.items():
            partitions.setdefault(LogPartition(log_id, number), PartitionSeam(start))
        return replace(self, commit_sequence=self.commit_sequence + 1, partitions=partitions)

    def totals(self, partitions: Iterable[LogPartition] | None = None) -> Counts:
        """Add up the counters of `partitions`, or of all."""
        total = Counts()
        for key in self.partitions if partitions is None else partitions:
            total += self.partitions[key].counts
        return total

    def to_json(self) -> str:
        """Return the text that goes into the snapshot's summary."""
        logs: dict[str, dict[str, Any]] = {}
        for key, value in sorted(self.partitions.items()):
            counts = value.counts
            logs.setdefault(str(key.log_id), {})[str(key.partition)] = {
                "next": value.next_offset,
                "epoch": value.leader_epoch,
                "consumed": counts.consumed,
                "rows": counts.rows,
                "duplicates": counts.duplicates,
                "dead_letters": counts.dead_letters,
                "deferred": counts.deferred,
                "lost": counts.lost,
                **({"removed": value.removed_rows} if value.removed_rows else {}),
            }
        deferred = [
            [d.log_id, d.partition, d.start, d.end, d.tier_map_id, d.lowest_deferred_priority, d.records]
            + ([] if d.halted is None else [astuple(d.halted)])
            for d in self.deferred
        ]
        body = {"v": self._version(), "commit_sequence": self.commit_sequence, "logs": logs, "deferred": deferred}
        return json.dumps(body, separators=(",", ":"))

    def _version(self) -> int:
        """Return the oldest version that says all there is to say."""
        if any(entry.halted for entry in self.deferred):
            return VERSION_WITH_HALTS
        return VERSION_WITH_REMOVED if any(part.removed_rows for part in self.partitions.values()) else VERSION

    @classmethod
    def from_json(cls, text: str) -> Seam:
        """Read the text of a snapshot's summary.

        Raises:
            SeamError: the text is no seam, or of a version that this code does not know.
        """
        try:
            body = json.loads(text)
            version = body["v"]
            if version not in {VERSION, VERSION_WITH_REMOVED, VERSION_WITH_HALTS}:
                raise SeamError(
                    f"expected a seam of version {VERSION} to {VERSION_WITH_HALTS}, found {version}: upgrade K2 to "
                    "one that reads it"
                )
            partitions = {
                LogPartition(int(log_id), int(number)): PartitionSeam(
                    next_offset=entry["next"],
                    leader_epoch=entry["epoch"],
                    counts=Counts(
                        entry["consumed"],
                        entry["rows"],
                        entry["duplicates"],
                        entry["dead_letters"],
                        entry["deferred"],
                        entry["lost"],
                    ),
                    removed_rows=entry.get("removed", 0),
                )
                for log_id, entries in body["logs"].items()
                for number, entry in entries.items()
            }
            deferred = tuple(_deferred(entry) for entry in body["deferred"])
            return cls(body["commit_sequence"], partitions, deferred)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SeamError(f"expected a seam as JSON, found {text[:200]!r}: {error}") from error

    @classmethod
    def from_summary(cls, summary: Mapping[str, str]) -> Seam:
        """Read the seam of a snapshot's summary; SeamError if there is none."""
        text = summary.get(SUMMARY_KEY)
        if text is None:
            raise SeamError(
                f"expected the key {SUMMARY_KEY!r} in the snapshot's summary, found none: the table was written by "
                "something that keeps no seam; roll it back to its last snapshot that has one"
            )
        return cls.from_json(text)


def _deferred(entry: list[Any]) -> DeferredRange:  # Any: what JSON holds
    values, halted = entry[:7], entry[7:]
    if not halted:
        return DeferredRange(*values)
    (stream, symbols, since, since_us), *_ = halted
    return replace(DeferredRange(*values), halted=HaltedStream(stream, tuple(symbols), since, since_us))
