"""What an audit found: per partition and in all, with what each number means for the reader."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from k2.query.audit_gaps import GapCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionAudit:
    """One partition of one log, against the table that was built from it. All counts are of records, below the seam."""

    table: str
    topic: str
    partition: int
    log_id: int | None
    """None for a topic that no table knows yet."""
    seam: int
    log_start: int
    log_end: int
    messages: int
    rows: int
    duplicates: int
    dead_letters: int
    deferred: int
    lost: int
    """Records of the log that are neither a row nor a dead letter, nor counted as a duplicate or deferred."""
    doubled: int
    """Rows and dead letters too many: coordinates that occur more than once, and the repeated ones."""
    not_in_log: int
    """Rows at coordinates that the log, or the seam, says do not exist."""
    pending: int
    """Offsets above the seam: not ingested yet."""
    compared_with_log: bool
    """Whether the log still holds all that the table was built from; else counters stand in for what is gone."""
    repeated: int = 0
    """Of the doubled ones, those that the log itself holds twice: one source and source_sequence, other coordinates."""
    given_up: int = 0
    """Records that somebody decided to leave out (`k2 offsets`): lost in the ledger, and not in `lost` here."""
    problems: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Tell whether every record is accounted for."""
        return not (self.lost or self.doubled or self.not_in_log or self.problems)


TOTALS: Final = (
    "messages",
    "rows",
    "duplicates",
    "dead_letters",
    "deferred",
    "lost",
    "given_up",
    "doubled",
    "repeated",
    "not_in_log",
    "pending",
)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """All partitions of all logs."""

    partitions: tuple[PartitionAudit, ...]
    problems: tuple[str, ...] = ()
    seconds: float = 0.0
    gaps: tuple[GapCounts, ...] | None = ()
    """By exchange; None where the ledger cannot be read. They do not make a report unsound."""

    @property
    def totals(self) -> dict[str, int]:
        """Return the sum of each count."""
        return {name: sum(getattr(item, name) for item in self.partitions) for name in TOTALS}

    @property
    def is_sound(self) -> bool:
        """Tell whether nothing is lost, doubled or unexplained."""
        return not self.problems and all(item.is_sound for item in self.partitions)

    @property
    def advice(self) -> tuple[str, ...]:
        """Return every problem, each with what to do; empty for a sound report."""
        found = list(self.problems)
        for item in self.partitions:
            where = f"{item.topic} partition {item.partition}"
            if item.lost:
                found.append(
                    f"{where}: {item.lost} records lost: they were acknowledged and are no row, dead letter or "
                    f"duplicate of market.{item.table}. Keep topic and table as they are (raise the retention)"
                )
            if item.doubled > item.repeated:
                found.append(
                    f"{where}: {item.doubled - item.repeated} rows or dead letters too many: something appended to "
                    f"market.{item.table} without the fence. Roll it back to the last snapshot without them; "
                    "ingestion reads on from there"
                )
            if item.repeated:
                found.append(
                    f"{where}: {item.repeated} records were sent twice: the log has their source and source_sequence "
                    f"at two offsets, so market.{item.table} and every answer has them twice. Import a file from one "
                    "machine at a time; to be rid of them, import it into a platform without them"
                )
            if item.not_in_log:
                found.append(
                    f"{where}: {item.not_in_log} rows of market.{item.table} have coordinates that the log has not. "
                    "Look for a writer that is not K2, or a topic that was created again"
                )
            found += [f"{where}: {problem}" for problem in item.problems]
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values: the totals, then each partition."""
        return {
            **self.totals,
            "sound": self.is_sound,
            "problems": list(self.advice),
            "seconds": self.seconds,
            "gaps": None if self.gaps is None else [asdict(item) for item in self.gaps],
            "partitions": [asdict(item) for item in self.partitions],
        }


COLUMNS: Final = tuple(field.name for field in fields(PartitionAudit) if field.name != "problems")
