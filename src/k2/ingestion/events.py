"""What the worker tells its observers: one frozen value per thing that happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from k2.common.circuit_breaker import LevelChanged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k2.common.degradation import Priority
    from k2.storage.seam import LogPartition


@dataclass(frozen=True, slots=True)
class BatchCommitted:
    """A batch is in the table, by this commit or, when its reply was lost, by an earlier try."""

    table: str
    rows: int
    dead_letters: int
    records: int
    files: int
    write_seconds: float
    commit_seconds: float
    commit_sequence: int
    snapshot_id: int
    duplicates: int = 0
    deferred: int = 0


@dataclass(frozen=True, slots=True)
class CommitFailed:
    """A commit could not be made; the batch is kept and tried again."""

    table: str
    failures: int
    reason: str
    pause_seconds: float


@dataclass(frozen=True, slots=True)
class BatchFenced:
    """Another writer had moved the seam; the batch was dropped."""

    table: str
    records: int
    reason: str


@dataclass(frozen=True, slots=True)
class RecordsDeadLettered:
    """Records that could not become rows were sent to the dead-letter topic and table."""

    table: str
    by_error_class: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RecordsDeferred:
    """Records were left out of a committed batch for now: how many, by priority (lower case) and reason."""

    table: str
    records: Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class RecordsInConflict:
    """Records say other than earlier ones of the same identity; all are kept. Of each partition, their offsets."""

    table: str
    offsets: Mapping[LogPartition, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class TopicRefused:
    """A topic is not the log that the table was built from; it is not ingested."""

    topic: str
    reason: str


@dataclass(frozen=True, slots=True)
class TopicAccepted:
    """A topic that had been refused or could not be checked is ingested now."""

    topic: str


@dataclass(frozen=True, slots=True)
class TableStopped:
    """A table is no longer written by this worker; a person decides."""

    table: str
    reason: str


@dataclass(frozen=True, slots=True)
class LineCounts:
    """One line among those of its venue: numbers that it brought first, after another, or not at all.

    `late` came when the number had been looked at already. `lead_seconds` is the sum over `led` numbers that another
    line brought as well, later, of the log time between the two.
    """

    first: int = 0
    second: int = 0
    lost: int = 0
    late: int = 0
    led: int = 0
    lead_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LinesCompared:
    """What each line of a venue has brought, of the numbers that were compared now."""

    table: str
    exchange: str
    lines: Mapping[str, LineCounts]


@dataclass(frozen=True, slots=True)
class SequencesWatched:
    """What the messages of a committed batch were to their streams, and how many numbers its gap events are about."""

    table: str
    messages: Mapping[str, int]
    numbers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class GapOpened:
    """Numbers of a stream did not come within the window; `level` is log, alert or halt, by their count."""

    table: str
    exchange: str
    stream: str
    first_missing: int
    last_missing: int
    level: str


@dataclass(frozen=True, slots=True)
class NumbersDoubted:
    """So many of a topic's messages open gaps that its numbers may run otherwise than `sequence_scope` says."""

    table: str
    topic: str
    messages: int
    gaps: int


@dataclass(frozen=True, slots=True)
class NumbersTrusted:
    """A topic's numbers are not doubted any more."""

    table: str
    topic: str


@dataclass(frozen=True, slots=True)
class StreamSilent:
    """A symbol, or all of a partition (None), is silent for longer than its rhythm makes likely."""

    table: str
    exchange: str
    partition: int
    symbol: str | None
    silent_seconds: float
    limit_seconds: float


@dataclass(frozen=True, slots=True)
class StreamHeard:
    """A stream that was silent is heard again, after so much time in which its venue was open."""

    table: str
    exchange: str
    partition: int
    symbol: str | None
    silent_seconds: float


class Reading:
    """The parts of reading that can fail by themselves."""

    JOIN: Final = "join"
    POLL: Final = "poll"
    POSITIONS: Final = "positions"
    LAG: Final = "lag"


@dataclass(frozen=True, slots=True)
class ReadFailed:
    """A part of reading did not work; it is tried again by itself."""

    part: str
    reason: str
    failures: int


@dataclass(frozen=True, slots=True)
class ReadRecovered:
    """A part of reading works, for the first time or again."""

    part: str


@dataclass(frozen=True, slots=True)
class Buffered:
    """How much of a table is consumed and not committed yet."""

    table: str
    bytes_buffered: int
    paused: bool


@dataclass(frozen=True, slots=True)
class LagMeasured:
    """How many records of a partition lie between the seam and the end of the log."""

    table: str
    topic: str
    partition: int
    records: int


@dataclass(frozen=True, slots=True)
class LevelsAnnounced:
    """What became of announcements of this worker's level: sent, failed, or dropped before they were sent."""

    outcome: str
    announcements: int


@dataclass(frozen=True, slots=True)
class BackfillCommitted:
    """A part of a deferred range is in the table; `records_left` are deferred in the partition still."""

    table: str
    topic: str
    partition: int
    rows: int
    duplicates: int
    dead_letters: int
    records_left: int
    commit_seconds: float
    commit_sequence: int


@dataclass(frozen=True, slots=True)
class BackfillFenced:
    """Another worker had written the range; it is begun again from the head."""

    table: str
    reason: str


@dataclass(frozen=True, slots=True)
class BackfillFailed:
    """A backfill could not go on; it is begun again from the head after a pause."""

    table: str
    failures: int
    reason: str
    pause_seconds: float


@dataclass(frozen=True, slots=True)
class BackfillStopped:
    """The deferred records of a table are no longer written by this worker; a person decides."""

    table: str
    reason: str


@dataclass(frozen=True, slots=True)
class DeferredOutstanding:
    """How many records of a partition are deferred, whether the log's retention comes near them, and halted streams."""

    table: str
    topic: str
    partition: int
    records: int
    near_retention: bool
    halted_streams: int = 0


@dataclass(frozen=True, slots=True)
class DeferredNearRetention:
    """The log will soon delete deferred records; from now on they go before everything else."""

    table: str
    topic: str
    partition: int
    records: int
    offset: int
    hours_left: float | None


@dataclass(frozen=True, slots=True)
class LoadMeasured:
    """What the level is decided by, and since when which priority is deferred, as this worker knows."""

    lag_records: float
    drain_seconds: float
    deferred_seconds: Mapping[Priority, float]
    """0 where everything of a priority is written."""


@dataclass(frozen=True, slots=True)
class DeferredLost:
    """The log has deleted deferred records before they were written; `k2 verify` tells of them for good."""

    table: str
    topic: str
    partition: int
    records: int
    start: int
    end: int


Event = (
    BatchCommitted
    | CommitFailed
    | BatchFenced
    | RecordsDeadLettered
    | RecordsDeferred
    | LevelChanged
    | LoadMeasured
    | RecordsInConflict
    | TopicRefused
    | TopicAccepted
    | TableStopped
    | LinesCompared
    | SequencesWatched
    | GapOpened
    | NumbersDoubted
    | NumbersTrusted
    | StreamSilent
    | StreamHeard
    | ReadFailed
    | ReadRecovered
    | Buffered
    | LagMeasured
    | LevelsAnnounced
    | BackfillCommitted
    | BackfillFenced
    | BackfillFailed
    | BackfillStopped
    | DeferredOutstanding
    | DeferredNearRetention
    | DeferredLost
)


class Observer(Protocol):
    """Hears of every event; called from both of the worker's threads, must not block or raise."""

    def __call__(self, event: Event, /) -> None:
        """Take note of the event."""
        ...


class Observers:
    """Several observers as one."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def __call__(self, event: Event) -> None:
        """Tell each observer."""
        for observer in self._observers:
            observer(event)
