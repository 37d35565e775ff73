"""Drops what was stored before: decides a batch by the log alone, and remembers it once it is in the table.

Memory only says what may have been stored; a winner is always read from the batch or the table before anything is
dropped. So memory that knows too much costs a look at the table, and memory that knows too little must say so: it is
`blind`, and each record is looked for in the table.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import polars as pl

from k2.common.errors import FencedError
from k2.common.logging import get_logger
from k2.common.units import NS_PER_SECOND
from k2.ingestion.duplicates.bloom_generations import BloomGenerations
from k2.ingestion.duplicates.memory import Memory, MemoryGap
from k2.ingestion.duplicates.named import Named
from k2.ingestion.duplicates.seen_sequences import SeenSequences
from k2.schemas.duplicates import WINDOW, WINNER, decide
from k2.schemas.identity import (
    KEY,
    content_hash,
    decision_source,
    identities,
    identity_source,
    with_identity,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from k2.ingestion.settings import DeduplicationSettings
    from k2.schemas.identity import IdentityRules
    from k2.schemas.records import RecordType
    from k2.storage.planning import PinnedSnapshot
    from k2.storage.seam import LogPartition, PartitionDelta
    from k2.storage.stored_rows import Wanted

log = get_logger(__name__)

_WINDOW_MS: Final = WINDOW // timedelta(milliseconds=1)
_SLACK: Final = timedelta(hours=1)
"""How far a broker's clock may step back between two records of a partition."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class StoredRows(Protocol):
    """Where winners are read: one main table."""

    def pin(self) -> PinnedSnapshot:
        """Pin the newest snapshot."""
        ...

    def between(
        self,
        pinned: PinnedSnapshot,
        log: LogPartition,
        like: pl.DataFrame,
        columns: Sequence[str],
        *,
        margin_ns: int = 0,
        files_max: int | None = None,
    ) -> pl.DataFrame:
        """Return a partition's rows that agree with `like` in exchange, symbol and, but for a margin, event times.

        No row at all if that takes more than `files_max` files.
        """
        ...

    def since(
        self, pinned: PinnedSnapshot, wanted: Mapping[LogPartition, Wanted], columns: Sequence[str]
    ) -> Iterator[tuple[LogPartition, pl.DataFrame]]:
        """Give the rows wanted of each partition, some at a time."""
        ...

    def rows_since(self, pinned: PinnedSnapshot, at: datetime) -> int:
        """Return at most how many rows were logged at or after a time."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """The decoded rows of one partition from `start` on, in the order of their offsets."""

    start: int
    frames: Sequence[pl.DataFrame]


@dataclass(frozen=True, slots=True)
class PartDecision:
    """What became of one partition's rows: those kept, how many were duplicates, which are in conflict."""

    kept: Sequence[pl.DataFrame]
    duplicates: int = 0
    conflicts: tuple[int, ...] = ()
    """Offsets kept although an earlier record of the same identity says otherwise."""
    learned: Named | None = None
    """Identities to remember once the rows are in the table."""


Decisions = dict["LogPartition", PartDecision]


class Deduplicator(Protocol):
    """Decides batches of one table; `committed` follows in the order of the commits."""

    def decide(self, parts: Mapping[LogPartition, Part]) -> Decisions:
        """Decide a batch; nothing is remembered.

        Raises:
            FencedError: the table is past the batch's start: another writer was here first.
            UnavailableError: the table cannot be read now.
        """
        ...

    def committed(
        self, decisions: Decisions, deltas: Mapping[LogPartition, PartitionDelta], commit_sequence: int
    ) -> None:
        """Remember a batch that is in the table, by a commit of this number; 0 if the number is not known."""
        ...

    def written_elsewhere(self, since: Mapping[LogPartition, int]) -> None:
        """Take note, even while a batch is decided, of rows that others wrote below seams, each after a commit."""
        ...


class KeepAll:
    """Drops nothing: for tables that are not to be checked."""

    def decide(self, parts: Mapping[LogPartition, Part]) -> Decisions:
        """Keep everything."""
        return {at: PartDecision(part.frames) for at, part in parts.items()}

    def committed(
        self, decisions: Decisions, deltas: Mapping[LogPartition, PartitionDelta], commit_sequence: int
    ) -> None:
        """Remember nothing."""

    def written_elsewhere(self, since: Mapping[LogPartition, int]) -> None:
        """Forget nothing."""


@dataclass(frozen=True, slots=True)
class _Keyed:
    """A partition's rows with what tells them apart."""

    rows: pl.DataFrame
    named: Named
    since: datetime
    """No winner was logged before."""


class TableDeduplicator:
    """Deduplicates one table. `decide` and `committed` may run in different threads, never at once."""

    def __init__(
        self,
        record_type: RecordType,
        *,
        rules: IdentityRules,
        stored: StoredRows,
        settings: DeduplicationSettings,
    ) -> None:
        self._record_type = record_type
        self._rules = rules
        self._stored = stored
        self._settings = settings
        self._identity = [*identity_source(record_type), "ts_log", "log_offset"]
        self._columns = decision_source(record_type)
        self._memories: dict[LogPartition, Memory] = {}
        self._ids = BloomGenerations(
            capacity=settings.ids_capacity, error_rate=settings.ids_error_rate, window_ms=_WINDOW_MS
        )
        self._ids_at_ms = 0
        self._lock = threading.Lock()
        self._written_since: dict[LogPartition, int] = {}

    def decide(self, parts: Mapping[LogPartition, Part]) -> Decisions:
        """Decide a batch; see Deduplicator."""
        keyed = {at: self._keyed(part) for at, part in parts.items() if part.frames}
        known = {at: found for at, found in keyed.items() if found.named.rows.height}
        pinned = self._take_memory({at: (parts[at].start, found) for at, found in known.items()})
        decisions: Decisions = {}
        for at, part in parts.items():
            if at in known:
                decisions[at] = self._decide(at, part, known[at], pinned)
            else:
                decisions[at] = PartDecision(part.frames)
        return decisions

    def committed(
        self, decisions: Decisions, deltas: Mapping[LogPartition, PartitionDelta], commit_sequence: int
    ) -> None:
        """Remember a batch that is in the table; see Deduplicator."""
        for at, decision in decisions.items():
            memory = self._memories.get(at)
            if memory is None or memory.next_offset != deltas[at].start:
                continue  # it had nothing to decide: what memory lacks is read from the table when it has
            if decision.learned is not None:
                self._learn(memory, decision.learned)
            memory.next_offset = deltas[at].end
            memory.commit_sequence = max(memory.commit_sequence, commit_sequence)

    def written_elsewhere(self, since: Mapping[LogPartition, int]) -> None:
        """Read those rows before the partition's next batch is decided; see Deduplicator."""
        with self._lock:
            for at, commit_sequence in since.items():
                self._written_since[at] = min(commit_sequence, self._written_since.get(at, commit_sequence))

    @property
    def size_bytes(self) -> int:
        """Memory of filters and intervals."""
        return self._ids.size_bytes + sum(memory.sequences.size_bytes for memory in self._memories.values())

    # Deciding.

    def _keyed(self, part: Part) -> _Keyed:
        rows = part.frames[0] if len(part.frames) == 1 else pl.concat(part.frames)
        named = Named(identities(rows, self._record_type, self._rules))
        since = named.rows["ts_log"].min()
        return _Keyed(rows, named, since - WINDOW - _SLACK if isinstance(since, datetime) else _EPOCH)

    def _decide(self, at: LogPartition, part: Part, keyed: _Keyed, pinned: PinnedSnapshot | None) -> PartDecision:
        memory, named = self._memories[at], keyed.named
        stored = self._may_be_stored(memory, named)
        suspect = stored | named.repeated()
        if not suspect.any():
            return PartDecision(part.frames, learned=named)
        suspects = self._with_content(keyed.rows, named.those(suspect))
        if stored.any():
            pinned = self._at_start(at, part.start, pinned or self._stored.pin())
            kept = self._winners(at, pinned, keyed, named.those(stored))
        else:
            kept = suspects.clear()
        decided = decide(suspects, kept)
        if decided.duplicates.is_empty():
            return PartDecision(part.frames, conflicts=tuple(decided.conflicts), learned=named)
        dropped = decided.duplicates.implode()
        return PartDecision(
            [keyed.rows.filter(~pl.col("log_offset").is_in(dropped))],
            duplicates=len(decided.duplicates),
            conflicts=tuple(decided.conflicts),
            learned=Named(named.rows.filter(~pl.col("log_offset").is_in(dropped))),
        )

    def _may_be_stored(self, memory: Memory, named: Named) -> pl.Series:
        size = named.rows.height
        if memory.blind_until is not None:
            return pl.repeat(value=True, n=size, eager=True)
        found = pl.Series(_places(size, named.by_number, memory.sequences.suspects(named.numbered)))
        by_id = ~named.by_number
        if by_id.any():
            earliest = named.rows["ts_log"].min()
            assert isinstance(earliest, datetime)
            if memory.ids_lost is not None and earliest - WINDOW <= memory.ids_lost:
                return found | by_id
            held = self._ids.holds(named.keys.filter(by_id).to_list())
            found |= pl.Series(_places(size, by_id, held))
        return found

    def _winners(self, at: LogPartition, pinned: PinnedSnapshot, keyed: _Keyed, asked: pl.DataFrame) -> pl.DataFrame:
        """Return the stored rows that have the identities asked for.

        A winner says the same, so it has the same event time; only what finds none is looked for more widely, to see
        whether it is in conflict.
        """
        like = keyed.rows[asked["place"]]
        found = self._stored_like(at, pinned, keyed, like, asked)
        left = ~asked[KEY].is_in(found[KEY].implode())
        if left.any() and self._settings.conflict_seconds and self._memories[at].blind_until is None:
            margin_ns = int(self._settings.conflict_seconds * NS_PER_SECOND)
            more = self._stored_like(at, pinned, keyed, like.filter(left), asked.filter(left), margin_ns=margin_ns)
            found = pl.concat([found, more])
        return found

    def _stored_like(
        self,
        at: LogPartition,
        pinned: PinnedSnapshot,
        keyed: _Keyed,
        like: pl.DataFrame,
        asked: pl.DataFrame,
        *,
        margin_ns: int = 0,
    ) -> pl.DataFrame:
        files_max = self._settings.conflict_files_max if margin_ns else None
        rows = self._stored.between(pinned, at, like, self._columns, margin_ns=margin_ns, files_max=files_max)
        rows = rows.filter(pl.col("ts_log") >= keyed.since)
        named = with_identity(rows, self._record_type, self._rules)
        return self._with_content(rows, named.filter(pl.col(KEY).is_in(asked[KEY].implode())))

    def _with_content(self, rows: pl.DataFrame, named: pl.DataFrame) -> pl.DataFrame:
        content = content_hash(rows[named["place"]], self._record_type)
        return named.with_columns(content).select(*WINNER, KEY)

    # Memory: taken from one head, moved by commits.

    def _take_memory(self, wanted: Mapping[LogPartition, tuple[int, _Keyed]]) -> PinnedSnapshot | None:
        """See that memory ends where each part begins: forget what is ahead, roll forward what is behind."""
        with self._lock:
            told, self._written_since = self._written_since, {}
        for at in told.keys() & self._memories.keys():
            self._memories[at].written_elsewhere(told[at])
        gaps: dict[LogPartition, MemoryGap] = {}
        for at, (start, keyed) in wanted.items():
            memory = self._memories.get(at)
            if memory is not None and memory.next_offset > start:
                del self._memories[at]
                memory = None
            if memory is None:
                gaps[at] = MemoryGap(keyed.since)
            elif (gap := memory.gap(start, keyed.since)) is not None:
                gaps[at] = gap
        if not gaps:
            return None
        pinned = self._stored.pin()
        for at in gaps:
            self._at_start(at, wanted[at][0], pinned)
        self._roll_forward(pinned, gaps, {at: wanted[at] for at in gaps})
        return pinned

    def _roll_forward(
        self,
        pinned: PinnedSnapshot,
        gaps: Mapping[LogPartition, MemoryGap],
        wanted: Mapping[LogPartition, tuple[int, _Keyed]],
    ) -> None:
        rows = self._stored.rows_since(pinned, min(gap.logged_from for gap in gaps.values()))
        blind = rows > self._settings.rebuild_rows_max
        fresh = {at: self._memories.get(at) or self._nothing() for at in gaps}
        if blind:
            log.warning("deduplicator_blind", table=self._record_type.name, rows=rows, meaning="the table is asked")
        else:
            for at, found in self._stored.since(pinned, gaps, self._identity):
                self._learn(fresh[at], Named(identities(found, self._record_type, self._rules)))
        for at, (start, keyed) in wanted.items():
            memory = fresh[at]
            newest = keyed.named.rows["ts_log"].max()
            if blind and isinstance(newest, datetime):
                memory.blind_until = newest + WINDOW + _SLACK
            memory.next_offset, memory.commit_sequence = start, pinned.head.seam.commit_sequence
            memory.written_above = None
            self._memories[at] = memory

    def _nothing(self) -> Memory:
        return Memory(0, -1, SeenSequences(intervals_max=self._settings.intervals_max))

    def _at_start(self, at: LogPartition, start: int, pinned: PinnedSnapshot) -> PinnedSnapshot:
        seam = pinned.head.seam.next_offset(at)
        if seam is not None and seam > start:
            raise FencedError(
                f"another writer was here first: the seam of log {at.log_id} partition {at.partition} of "
                f"{self._record_type.name} is {seam}, the batch begins at {start}"
            )
        return pinned

    def _learn(self, memory: Memory, named: Named) -> None:
        if named.rows.is_empty():
            return
        memory.sequences.add(named.numbered)
        newest = named.rows["ts_log"].max()
        assert isinstance(newest, datetime)
        if not named.by_number.all():
            self._learn_ids(memory, named.keys.filter(~named.by_number).to_list(), newest)
        if memory.blind_until is not None and named.rows["ts_log"].min() > memory.blind_until:  # type: ignore[operator]  # times
            memory.blind_until = None
        if memory.forgotten_at is None or newest - memory.forgotten_at > _SLACK:
            memory.forgotten_at = newest
            memory.sequences.forget(newest - WINDOW - _SLACK)
        if memory.sequences.streams > self._settings.streams_max:
            log.warning("deduplicator_blind", table=self._record_type.name, streams=memory.sequences.streams)
            memory.sequences = SeenSequences(intervals_max=self._settings.intervals_max)
            memory.blind_until = newest + WINDOW + _SLACK

    def _learn_ids(self, memory: Memory, keys: list[int], newest: datetime) -> None:
        """Add ids as of the newest log time of all partitions: one that lags behind must not fall out of the window."""
        self._ids_at_ms = max(self._ids_at_ms, int(newest.timestamp() * 1000))
        for generation in self._ids.advance(self._ids_at_ms):
            for each in self._memories.values():
                lost = each.ids_by_generation.pop(generation, None)
                each.ids_lost = max(filter(None, (lost, each.ids_lost)), default=None)
        self._ids.add(keys, self._ids_at_ms)
        generation = self._ids.number_of(self._ids_at_ms)
        memory.ids_by_generation[generation] = max(newest, memory.ids_by_generation.get(generation, newest))


def _places(size: int, among: pl.Series, flags: NDArray[np.bool_] | list[bool]) -> NDArray[np.bool_]:
    """Spread flags of the rows that `among` selects over all rows."""
    found = np.zeros(size, dtype=np.bool_)
    found[among.to_numpy()] = flags
    return found
