"""Plans what happens to the seam when somebody must move it, exactly and in advance, and applies such a plan."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from k2.common.errors import ConfigurationError, FencedError, LogIdentityError, UnavailableError
from k2.storage.deferral import DeferredList
from k2.storage.seam import Counts, LogPartition
from k2.storage.seam_moves import SeamMove

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import polars as pl

    from k2.common.clock import Clock
    from k2.ingestion.positioner import Cluster, Tables
    from k2.ingestion.settings import IngestionSettings
    from k2.kafka.ports import AssignedReader, LogIdentity, LogRange
    from k2.storage.tables import RegisteredLog, TableHead

VERSION: Final = 1
_POLL_RECORDS: Final = 100_000


class Mover(Protocol):
    """Surveys and moves seams."""

    def row_offsets(self, table_name: str, key: LogPartition, first: int) -> pl.Series:
        """Return the offsets of the rows of one partition at or above `first`."""
        ...

    def apply(self, table_name: str, plan_id: str, snapshot_id: int, moves: Sequence[SeamMove]) -> bool:
        """Commit the moves on the head that they were planned for; False if they had been committed before."""
        ...

    def forget_letters(self, topic_id: str, moves: Sequence[SeamMove]) -> None:
        """Take out the dead letters and the gaps that will be decided again."""
        ...


class Letters(Protocol):
    """Tells which coordinates are dead letters."""

    def offsets(self, topic_id: str, partition: int) -> list[int]:
        """Return the offset of each dead letter of one partition."""
        ...


@dataclass(frozen=True, slots=True)
class OffsetPlan:
    """What is to be done to one topic, on one head of its table; a new log has `starts` and no moves."""

    plan_id: str
    table_name: str
    snapshot_id: int | None
    topic: str
    cluster_id: str
    topic_id: str
    moves: tuple[SeamMove, ...] = ()
    starts: Mapping[int, int] | None = None
    lost: Sequence[str] = ()
    """What a new log makes of the deferred records of the older ones, a line a partition."""

    def to_json(self) -> str:
        """Return the text of a plan file."""
        return json.dumps({"v": VERSION, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> OffsetPlan:
        """Read a plan file; ConfigurationError for a text that is none."""
        try:
            body = json.loads(text)
            if body.pop("v") != VERSION:
                raise ConfigurationError(f"expected a plan of version {VERSION}: make it anew with this K2")
            moves = tuple(SeamMove(**{**move, "counts": Counts(**move["counts"])}) for move in body.pop("moves"))
            starts = body.pop("starts")
            lost = tuple(body.pop("lost", ()))
            starts = None if starts is None else {int(k): v for k, v in starts.items()}
            return cls(**body, moves=moves, starts=starts, lost=lost)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"expected a plan of `k2 offsets plan`, found {text[:80]!r} ({error})") from error

    def lines(self) -> list[str]:
        """Return what the plan does, a line a partition."""
        if self.starts is not None:
            return [
                f"{self.topic} (cluster {self.cluster_id}, topic id {self.topic_id}): a new log of {self.table_name}",
                "  rows of its old log stay; what was not ingested of the old log is GIVEN UP",
                *(f"  {line} are LOST" for line in self.lost),
                *(f"  partition {number}: read from {start:,}" for number, start in sorted(self.starts.items())),
            ]
        return [_line(move) for move in self.moves]


class OffsetPlanner:
    """Makes and applies plans; reads the log only to count records."""

    def __init__(
        self,
        tables: Tables,
        cluster: Cluster,
        mover: Mover,
        letters: Letters,
        open_reader: Callable[[], AssignedReader],
        table_of: Mapping[str, str],
        *,
        settings: IngestionSettings,
        clock: Clock,
    ) -> None:
        self._tables = tables
        self._cluster = cluster
        self._mover = mover
        self._letters = letters
        self._open_reader = open_reader
        self._table_of = table_of
        self._settings = settings
        self._clock = clock

    def show(self) -> list[dict[str, Any]]:
        """Return for each partition where seam and log are, and what lies between them."""
        found: list[dict[str, Any]] = []
        for topic, table in sorted(self._table_of.items()):
            head = self._tables.head(table)
            identity = self._cluster.identities([topic]).get(topic)
            log = head.log_of(topic)
            for (_, number), extent in sorted(self._cluster.ranges(topic).items()):
                key = None if log is None else LogPartition(log.log_id, number)
                part = None if key is None else head.seam.partitions.get(key)
                state = _state(identity, log, None if part is None else part.next_offset, extent)
                deferred = 0 if key is None else DeferredList.of(head.seam, key).records
                found.append(
                    {
                        "table": table,
                        "topic": topic,
                        "partition": number,
                        "log_id": None if log is None else log.log_id,
                        "seam": None if part is None else part.next_offset,
                        "leader_epoch": None if part is None else part.leader_epoch,
                        "log_start": extent.start,
                        "log_end": extent.end,
                        "state": f"{state}; {deferred:,} records deferred" if deferred else state,
                    }
                )
            found += _gone(table, head, topic, None if log is None else log.log_id)
        return found

    def plan_move(self, topic: str, to: str, *, partition: int | None = None) -> OffsetPlan:
        """Plan to move the seams of a topic to an offset, or to the `start` or `end` of its log.

        Raises:
            ConfigurationError: the offset is not one that the log can be read from, or nothing would move.
            LogIdentityError: the topic is not the log that the table was built from.
        """
        table, head, identity = self._look(topic)
        log = _exact(head, identity)
        if log is None or head.snapshot_id is None:
            raise LogIdentityError(
                f"{topic} with id {identity.topic_id} on cluster {identity.cluster_id} is no log of market.{table}: "
                "bring the log back, or plan a new one with --new-log"
            )
        ranges = {number: extent for (_, number), extent in self._cluster.ranges(topic).items()}
        numbers = sorted(ranges) if partition is None else [partition]
        moves = [self._move(head, log, number, ranges, to) for number in numbers]
        moving = tuple(move for move in moves if move.to != move.start)
        if not moving:
            raise ConfigurationError(f"expected a seam of {topic} that is not at {to} yet, found none: nothing to do")
        return OffsetPlan(
            str(uuid.uuid4()), table, head.snapshot_id, topic, identity.cluster_id, identity.topic_id, moving
        )

    def plan_new_log(self, topic: str) -> OffsetPlan:
        """Plan to register a topic as it is now as a new log, read from its start; ConfigurationError if known."""
        table, head, identity = self._look(topic)
        known = _exact(head, identity)
        if known is not None:
            raise ConfigurationError(f"{topic} as it is now is log {known.log_id} of market.{table} already")
        starts = {number: extent.start for (_, number), extent in self._cluster.ranges(topic).items()}
        lost = [f"{_deferred(held)} in log {held.key.log_id}" for held in _lists(head, topic, None)]
        return OffsetPlan(
            str(uuid.uuid4()),
            table,
            head.snapshot_id,
            topic,
            identity.cluster_id,
            identity.topic_id,
            starts=starts,
            lost=lost,
        )

    def apply(self, plan: OffsetPlan) -> bool:
        """Apply a plan; False if it had been applied before. Safe to repeat after an error or a crash.

        Raises:
            FencedError: the table's head is not the one of the plan.
            LogIdentityError: the topic is not the one of the plan.
        """
        identity = self._look(plan.topic)[2]
        if (identity.cluster_id, identity.topic_id) != (plan.cluster_id, plan.topic_id):
            raise LogIdentityError(
                f"the plan is for {plan.topic} with id {plan.topic_id} on cluster {plan.cluster_id}, found id "
                f"{identity.topic_id} on cluster {identity.cluster_id}: make a new plan"
            )
        if plan.starts is not None:
            return self._register(plan, plan.starts)
        if plan.snapshot_id is None:
            raise ConfigurationError("expected the plan of a move to name a snapshot: make a new plan")
        done = self._mover.apply(plan.table_name, plan.plan_id, plan.snapshot_id, plan.moves)
        seam = self._tables.head(plan.table_name).seam
        # Where a worker has read on since, its dead letters must stay.
        self._mover.forget_letters(
            plan.topic_id, [move for move in plan.moves if seam.next_offset(move.key) == move.to]
        )
        return done

    def _register(self, plan: OffsetPlan, starts: Mapping[int, int]) -> bool:
        head = self._tables.head(plan.table_name)
        if any((log.cluster_id, log.topic_id) == (plan.cluster_id, plan.topic_id) for log in head.logs):
            return False
        if head.snapshot_id != plan.snapshot_id:
            raise FencedError(
                f"the plan is for snapshot {plan.snapshot_id} of market.{plan.table_name}, its head is "
                f"{head.snapshot_id}: stop the workers and make a new plan"
            )
        self._tables.register_log(
            plan.table_name,
            cluster_id=plan.cluster_id,
            topic_id=plan.topic_id,
            topic=plan.topic,
            starts=starts,
            accept_new_log=True,
        )
        return True

    def _look(self, topic: str) -> tuple[str, TableHead, LogIdentity]:
        table = self._table_of.get(topic)
        if table is None:
            raise ConfigurationError(f"expected one of {', '.join(sorted(self._table_of))}, found {topic}")
        identity = self._cluster.identities([topic]).get(topic)
        if identity is None:
            raise UnavailableError(f"topic {topic} does not exist: is this the right broker?", dependency="kafka")
        return table, self._tables.head(table), identity

    def _move(
        self, head: TableHead, log: RegisteredLog, number: int, ranges: Mapping[int, LogRange], to: str
    ) -> SeamMove:
        extent, key = ranges.get(number), LogPartition(log.log_id, number)
        part = head.seam.partitions.get(key)
        if extent is None or part is None:
            raise ConfigurationError(f"expected a partition of {log.topic} among {sorted(ranges)}, found {number}")
        target, seam = _target(to, extent), part.next_offset
        where = f"{log.topic} partition {number}"
        lowest = max(extent.start, log.starts.get(number, 0))
        if not lowest <= target <= extent.end:
            raise ConfigurationError(
                f"{where}: expected an offset from {lowest:,} to {extent.end:,}, which the log holds and the table is "
                f"for, found {target:,}; the seam is {seam:,}"
            )
        if any((entry.log_id, entry.partition) == (key.log_id, number) for entry in head.seam.deferred):
            raise ConfigurationError(f"{where}: its deferred records are not written yet: wait for the backfill")
        if target >= seam:
            gone = max(0, min(extent.start, target) - seam)
            lost = gone + self._count(log.topic, number, max(seam, extent.start), target)
            return SeamMove(log.log_id, number, seam, target, Counts(consumed=lost, lost=lost))
        return SeamMove(log.log_id, number, seam, target, self._taken_back(head, log, key, target, extent))

    def _taken_back(
        self, head: TableHead, log: RegisteredLog, key: LogPartition, target: int, extent: LogRange
    ) -> Counts:
        """Return what the ledger counts of the offsets from `target` to the seam."""
        part = head.seam.partitions[key]
        where = f"{log.topic} partition {key.partition}"
        inside = [one for one in head.given_up if one.key == key and one.end > target]
        if any(one.start < target for one in inside):
            raise ConfigurationError(f"{where}: {target:,} lies within a range that was given up: move to its start")
        rows = self._mover.row_offsets(head.table_name, key, target)
        stored = set(rows.to_list()) | head.settled.get(key, frozenset())
        letters = self._letters.offsets(log.topic_id, key.partition)
        dead = len({o for o in letters if target <= o < part.next_offset} - stored)
        lost = sum(one.records for one in inside)
        known = len(rows) + dead + lost
        consumed = known
        if part.counts.duplicates or part.removed_rows:
            if part.next_offset > extent.end:
                raise ConfigurationError(f"{where}: the log is too short to tell duplicates of [{target:,}, ...) apart")
            consumed = self._count(log.topic, key.partition, target, part.next_offset)
        duplicates = consumed - known
        if not 0 <= duplicates <= (0 if part.removed_rows else part.counts.duplicates):
            raise ConfigurationError(
                f"{where}: the log has {consumed:,} records from {target:,} on, the table accounts for {known:,} of "
                f"them: retention has removed rows, or the table is not sound (`k2 verify`); move back less far"
            )
        return Counts(consumed, len(rows), duplicates, dead, 0, lost)

    def _count(self, topic: str, number: int, first: int, last: int) -> int:
        """Count the records of the offsets [first, last): control records and aborted messages leave holes."""
        if first >= last:
            return 0
        deadline = self._clock.monotonic() + self._settings.plan_seconds_max
        reader, records = self._open_reader(), 0
        try:
            reader.assign({(topic, number): first})
            while reader.position(topic, number) < last:
                if self._clock.monotonic() > deadline:
                    raise UnavailableError(
                        f"counting the records of {topic} partition {number} takes longer than "
                        f"{self._settings.plan_seconds_max:g} s (K2_INGESTION__PLAN_SECONDS_MAX)",
                        dependency="kafka",
                    )
                for batch in reader.poll(_POLL_RECORDS, self._settings.poll_timeout_seconds):
                    records += sum(first <= offset < last for offset in batch.offsets)
        finally:
            reader.close()
        return records


def _exact(head: TableHead, identity: LogIdentity) -> RegisteredLog | None:
    return next(
        (log for log in head.logs if (log.cluster_id, log.topic_id) == (identity.cluster_id, identity.topic_id)), None
    )


def _lists(head: TableHead, topic: str, newest: int | None) -> list[DeferredList]:
    """Return what is deferred in the logs of a topic, less the newest one."""
    logs = {log.log_id for log in head.logs if log.topic == topic and log.log_id != newest}
    keys = sorted(key for key in head.seam.partitions if key.log_id in logs)
    return [held for key in keys if (held := DeferredList.of(head.seam, key)).ranges]


def _deferred(held: DeferredList) -> str:
    start, end = min(entry.start for entry in held.ranges), max(entry.end for entry in held.ranges)
    return f"partition {held.key.partition}: {held.records:,} deferred records of offsets {start:,} to {end - 1:,}"


def _gone(table: str, head: TableHead, topic: str, newest: int | None) -> Iterator[dict[str, Any]]:
    """Give the partitions of older logs of which something is deferred: nobody can write it any more."""
    for held in _lists(head, topic, newest):
        part = head.seam.partitions[held.key]
        yield {
            "table": table,
            "topic": topic,
            "partition": held.key.partition,
            "log_id": held.key.log_id,
            "seam": part.next_offset,
            "leader_epoch": part.leader_epoch,
            "log_start": None,
            "log_end": None,
            "state": f"an older log: {held.records:,} deferred records are lost",
        }


def _target(to: str, extent: LogRange) -> int:
    if to in ("start", "end"):
        return extent.start if to == "start" else extent.end
    try:
        return int(to)
    except ValueError as error:
        raise ConfigurationError(f"expected an offset, `start` or `end`, found {to!r}") from error


def _state(identity: LogIdentity | None, log: RegisteredLog | None, seam: int | None, extent: LogRange) -> str:
    if log is None or seam is None:
        return "not registered yet"
    if identity is None or (log.cluster_id, log.topic_id) != (identity.cluster_id, identity.topic_id):
        return f"another log: expected cluster {log.cluster_id}, topic id {log.topic_id}; plan with --new-log"
    if seam > extent.end:
        return f"the log ends {seam - extent.end:,} offsets below the seam"
    if seam < extent.start:
        return f"the log begins {extent.start - seam:,} offsets above the seam"
    return f"{extent.end - seam:,} offsets to ingest"


def _line(move: SeamMove) -> str:
    counts = move.counts
    where = f"  partition {move.partition}: seam {move.start:,} -> {move.to:,}"
    if move.to > move.start:
        return f"{where}: {counts.lost:,} records of offsets {move.start:,} to {move.to - 1:,} are GIVEN UP (lost)"
    return (
        f"{where}: {counts.rows:,} rows and {counts.dead_letters:,} dead letters of offsets {move.to:,} to "
        f"{move.start - 1:,} are taken out, and {counts.consumed:,} records are read again as far as the log has them"
    )
