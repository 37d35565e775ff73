"""The gap ledger of one table: watches the rows of each batch, writes what happens to gaps, remembers after the commit.

What is decided depends on the table's rows and the feeds' markers alone, in the order of the log. So the memory can be
rebuilt from them, and what is decided again after a crash writes the same events, which the table of gaps holds once.
"""

from __future__ import annotations

import bisect
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from k2.common.errors import FencedError, LogIdentityError
from k2.common.logging import get_logger
from k2.ingestion.sequences.batches import COLUMNS, Memory, Observation, observe, remembered, without_forgotten
from k2.ingestion.sequences.checkpoints import Checkpoint, CheckpointPlace, NoCheckpoints, fitting
from k2.ingestion.sequences.filling import closed, past_memory
from k2.ingestion.sequences.gap_frames import GapPlace, gap_frame
from k2.ingestion.sequences.halting import SYMBOLS, halting, symbols_of
from k2.ingestion.sequences.markers import NoMarkers
from k2.ingestion.sequences.parts import BatchPart
from k2.ingestion.sequences.telling import GapTeller
from k2.ingestion.sequences.watched import Remembered, Undecided, Watched
from k2.schemas.arrow import polars_schema
from k2.schemas.records import TRADES, WrittenBy
from k2.storage.deferral import DeferredList
from k2.storage.seam import LogPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from k2.common.clock import Clock
    from k2.ingestion.events import Observer
    from k2.ingestion.sequences.batches import StreamChange
    from k2.ingestion.sequences.checkpoints import Checkpoints
    from k2.ingestion.sequences.filling import GapLog
    from k2.ingestion.sequences.markers import Marker, Markers
    from k2.ingestion.sequences.ports import GapTable, LogEnds, RowSource
    from k2.ingestion.sequences.settings import SequenceSettings
    from k2.storage.seam import HaltedStream, Seam
    from k2.storage.tables import RegisteredLog

log = get_logger(__name__)


class GapLedger:
    """Watches one table; only the writer's thread uses it."""

    def __init__(
        self,
        table: str,
        *,
        scopes: Mapping[str, str],
        rows: RowSource,
        gaps: GapTable,
        settings: SequenceSettings,
        clock: Clock,
        observer: Observer,
        log_ends: LogEnds,
        markers: Markers | None = None,
        history: GapLog | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        """Watch the topics in `scopes`, each by the column that tells its streams apart: symbol or channel."""
        self._table = table
        self._scopes = dict(scopes)
        self._source = rows
        self._gaps = gaps
        self._settings = settings
        self._rules = settings.rules
        self._clock = clock
        self._teller = GapTeller(table, settings, observer)
        self._log_ends = log_ends
        self._markers = markers or NoMarkers()
        self._history = history
        self._checkpoints = checkpoints or NoCheckpoints()
        self._table_uuid = ""
        self._look_at = clock.monotonic()
        self._known: dict[LogPartition, Remembered] = {}
        self._undecided: dict[LogPartition, Undecided] = {}
        self._halted: dict[LogPartition, set[HaltedStream]] = {}
        """Streams that are halted, or were and are not decided since; where streams are symbols."""

    def watch(self, parts: Mapping[LogPartition, BatchPart], logs: Mapping[int, RegisteredLog]) -> Watched:
        """Decide what the batch's rows are; changes nothing.

        Raises:
            FencedError: the table holds rows of the batch already.
            AccountingError: a gap is so large that the settings say to stop.
            LogIdentityError: the table ends below the batch.
            UnavailableError: the table cannot be read.
        """
        watched = Watched()
        changes: list[pl.DataFrame] = []
        parts = {key: part for key, part in parts.items() if part.topic in self._scopes}
        if parts:
            self._markers.refresh()
        for key, part in parts.items():
            if part.left_out_since and self._scopes[part.topic] != "symbol":
                watched.undecided[key] = self._undecided_after(key, part)
                continue  # its streams go through what is deferred and what is not
            self._halted.setdefault(key, set()).update(part.halts)
            rows = _rows(part.frames)
            memory, missed = self._memory(key, part, rows)
            seen = self._seen(memory, rows, key, part)
            watched.seen[key], watched.ends[key], watched.topics[key] = seen, part.end, part.topic
            watched.undecided[key] = self._undecided_after(key, part)
            watched.released += [(key, halted) for halted in self._released(key, part)]
            watched.halts[key] = halting(seen, rows, part, self._settings, partial(self._symbols, key, part, rows))
            topic_id = logs[key.log_id].topic_id
            if missed or seen.changes:
                changes.append(self._as_events([*missed, *seen.changes], key, part, topic_id))
            changes += self._filled_past_memory(seen, rows, key, part, topic_id)
        if changes:
            watched.gap_events = pl.concat(changes)
            self._teller.see_that_none_halts(watched.gap_events)
        return watched

    def watch_quiet(self) -> None:
        """Let the log's time pass in the partitions that have markers and no row beyond the table's.

        Their log may never have another row, so nothing else would show what is missing at its end. That the table
        holds all of the log is asked after the time has passed: no row that was logged before can come any more.
        It looks every `quiet_look_seconds`, whoever reads the partition: what two workers find is the same.

        Raises:
            AccountingError: a gap is so large that the settings say to stop.
            UnavailableError: the log or a table cannot be read; call again.
        """
        if not self._scopes or self._clock.monotonic() < self._look_at:
            return
        self._look_at = self._clock.monotonic() + self._settings.quiet_look_seconds
        self._markers.refresh()
        marked = [place for place in self._markers.partitions() if place[0] in self._scopes]
        until_us = self._markers.passed_us()
        if not marked:
            return
        ends = self._log_ends.ranges({topic for topic, _ in marked})
        pinned = self._source.pinned(self._table)
        for topic, number in marked:
            registered = pinned.head.log_of(topic)
            if registered is None or (topic, number) not in ends:
                continue
            key = LogPartition(registered.log_id, number)
            seam = pinned.head.seam.next_offset(key)
            held = DeferredList.of(pinned.head.seam, key)
            if held.entries or (held.halts and self._scopes[topic] != "symbol"):
                continue
            if seam is not None and seam >= ends[topic, number].end:
                quiet = BatchPart(topic, seam, seam, (), halts=held.halted)
                self._pass_time(key, quiet, registered.topic_id, until_us)

    def record(self, watched: Watched) -> None:
        """Write the events of gaps, before the batch is committed; safe to call again; UnavailableError."""
        if watched.gap_events is not None and not watched.is_recorded:
            self._gaps.append(watched.gap_events)
        watched.is_recorded = True

    def committed(self, watched: Watched, commit_sequence: int) -> None:
        """Remember what the batch did, now that it is in the table."""
        for key, halted in watched.released:
            self._halted[key].discard(halted)
        for key, seen in watched.seen.items():
            known = self._known.get(key)
            if known is None:
                continue  # others have written rows since: it is read from the table
            memory = without_forgotten(
                remembered(known.memory, seen), self._rules, streams_max=self._settings.streams_max
            )
            is_partial = watched.undecided[key] is not None
            self._known[key] = Remembered(memory, watched.ends[key], commit_sequence, is_partial=is_partial)
            if not is_partial and not self._halted.get(key):  # nobody writes rows below it any more
                saved = Checkpoint(memory, watched.ends[key], commit_sequence)
                self._checkpoints.save(self._place(key, watched.topics[key]), saved)
        for key, undecided in watched.undecided.items():
            if undecided is None:
                self._undecided.pop(key, None)
            else:
                self._undecided[key] = undecided
        if watched.seen:
            told = [(watched.topics[key], seen) for key, seen in watched.seen.items()]
            self._teller.tell(told, watched.gap_events)

    def written_elsewhere(self, partitions: Iterable[LogPartition]) -> None:
        """Take note that others have written rows below the seams of partitions: memory is to be read anew.

        Where something is left out still, it is read once nothing is.
        """
        for key in partitions:
            known = self._known.get(key)
            is_read_later = key in self._undecided or (known and not known.is_partial and self._halted.get(key))
            if not is_read_later:
                self._known.pop(key, None)

    def _filled_past_memory(
        self, seen: Observation, rows: pl.DataFrame, key: LogPartition, part: BatchPart, topic_id: str
    ) -> list[pl.DataFrame]:
        late = past_memory(seen, rows)
        if late.is_empty() or self._history is None:
            return []
        known, now_us = self._history.events(topic_id, key.partition), self._clock.time_ns() // 1_000
        scope = self._scopes[part.topic]
        return [closed(known, late, scope, recorded_us=now_us, decided_offset=part.end - 1)]

    def _pass_time(self, key: LogPartition, part: BatchPart, topic_id: str, until_us: int) -> None:
        rows = _rows(())
        self._halted.setdefault(key, set()).update(part.halts)
        memory, missed = self._memory(key, part, rows)
        seen = self._seen(memory, rows, key, part, until_us)
        watched = Watched({key: seen}, {key: part.end}, {key: None}, {key: part.topic})
        watched.released = [(key, halted) for halted in self._released(key, part)]
        if missed or seen.changes:
            watched.gap_events = self._as_events([*missed, *seen.changes], key, part, topic_id)
            self._teller.see_that_none_halts(watched.gap_events)
        if missed or seen.states or seen.marker != memory.marker or watched.released or key in self._undecided:
            self.record(watched)
            self.committed(watched, self._known[key].commit_sequence)

    # Memory.

    def _seen(
        self, memory: Memory, rows: pl.DataFrame, key: LogPartition, part: BatchPart, until_us: int = 0
    ) -> Observation:
        """Return what a batch's own rows did, each stream's until it is left out."""
        seen, pieces = Observation(clock_us=memory.clock_us, offset=memory.offset, marker=memory.marker), part.pieces
        for low, high, reached_us in pieces:
            piece = rows if len(pieces) == 1 else rows.filter(pl.col("log_offset").is_between(low, high - 1))
            place, us = replace(part, end=high), max(until_us, reached_us)
            seen = self._observed(memory, piece, key, place, part.held_at(low), us, seen)
        return seen

    def _observed(
        self,
        memory: Memory,
        rows: pl.DataFrame,
        key: LogPartition,
        part: BatchPart,
        is_held: Callable[[str], bool],
        until_us: int = 0,
        before: Observation | None = None,
    ) -> Observation:
        return observe(
            memory,
            rows,
            self._rules,
            scope=self._scopes[part.topic],
            partition=key.partition,
            end_offset=part.end,
            markers=_after(self._markers.of(part.topic, key.partition), memory.marker),
            until_us=until_us,
            is_held=is_held,
            before=before,
        )

    def _memory(self, key: LogPartition, part: BatchPart, rows: pl.DataFrame) -> tuple[Memory, Sequence[StreamChange]]:
        """Return the memory at the part's start, and what was not decided yet of the offsets before."""
        found = self._known.get(key)
        undecided = [Undecided(None, halted.since, halted.since) for halted in self._released(key, part)]
        if key in self._undecided and not self._goes_on(key, part):
            undecided.append(self._undecided[key])
        is_late = found is not None and found.is_partial and part.deferring is None
        if found is None or found.next_offset != part.start or undecided or is_late:
            found = self._from_table(key, part, rows, undecided)
            self._known[key] = found
        return found.memory, found.untold

    def _released(self, key: LogPartition, part: BatchPart) -> set[HaltedStream]:
        return self._halted.get(key, set()).difference(part.halts)

    def _symbols(self, key: LogPartition, part: BatchPart, rows: pl.DataFrame, stream: str) -> set[str]:
        if self._scopes[part.topic] == "symbol":
            return {stream}
        low = max(0, part.start - self._rules.memory_offsets)
        table = self._source.pinned(self._table)
        return symbols_of(
            stream, [rows, *(table.rows(key, low, part.start, columns=SYMBOLS) if low < part.start else ())]
        )

    def _goes_on(self, key: LogPartition, part: BatchPart) -> bool:
        """Say whether all that was left out of a partition is still; otherwise some of it has been written since."""
        undecided = self._undecided.get(key)
        if undecided is None or self._scopes[part.topic] != "symbol":
            return undecided is not None and bool(part.left_out_since)
        return part.deferring is not None and part.deferring.predicate.covers(undecided.predicate)

    def _undecided_after(self, key: LogPartition, part: BatchPart) -> Undecided | None:
        """Return what is to be decided again of a partition once the part and those before it are whole."""
        by_symbol = self._scopes[part.topic] == "symbol"
        predicate = None if part.deferring is None else part.deferring.predicate
        if predicate is None and (by_symbol or not part.halts):
            return None
        before, known = self._undecided.get(key), self._known.get(key)
        if before is not None and self._goes_on(key, part):
            return before._replace(predicate=predicate)
        since = part.deferring.since if by_symbol and part.deferring else min(part.left_out_since)
        is_first = since >= part.start and known is not None and known.next_offset == part.start
        is_told = by_symbol or known is None or not known.untold
        return Undecided(predicate, part.start if is_first and is_told else None, since)

    def _from_table(
        self, key: LogPartition, part: BatchPart, rows: pl.DataFrame, undecided: Sequence[Undecided]
    ) -> Remembered:
        """Take the memory from one head: rolled forward where it is behind, rebuilt where there is none to trust.

        What happens from the first `undecided` offset on was not told before. Where one is not known, a backfilled row
        tells: then what the rows can tell for certain is decided again, which changes nothing where it was. However
        long something was left out, that reaches back to before it.
        """
        start, table = part.start, self._source.pinned(self._table)
        self._see_that_it_begins_at(table.head.seam, key, start)
        self._table_uuid = table.head.table_uuid
        known = self._known.pop(key, None)  # it moves with the rows: where those cannot be read, it is of no use
        if known and known.is_partial:  # the rows that others have written below its end would be taken for missing
            known = None
        saved = self._checkpoints.load(self._place(key, part.topic)) if known is None else None
        if (saved := fitting(saved, self._markers.of(part.topic, key.partition))) is not None:
            known = Remembered(saved.memory, saved.next_offset, saved.commit_sequence)
        if known and (known.next_offset > start or known.commit_sequence > table.head.seam.commit_sequence):
            known = None
        offsets = [each.since for each in undecided if each.since is not None]
        pending_from = min(offsets) if offsets and len(offsets) == len(undecided) else None
        known_from = min([start, *(each.listed_since if each.since is None else each.since for each in undecided)])
        reach = max(0, known_from - 2 * self._rules.memory_offsets)
        if known and known.next_offset >= reach and not undecided:
            memory, low, sure, since_us = known.memory, known.next_offset, known.next_offset, 0
            missed = [*known.untold]
        else:
            memory, low, missed = Memory(), reach, []
            sure = reach + self._rules.memory_offsets if reach else 0
            since_us = 0 if undecided else self._since_us(rows)
        decided_from = min(sure if pending_from is None else pending_from, start)
        is_held, is_told, count = part.held_at(start - 1), pending_from is not None or bool(missed), 0
        for slab in table.rows(key, low, start, columns=_REBUILT, since_us=since_us) if low < start else ():
            count += slab.height
            is_told = is_told or bool((slab["written_by"] == WrittenBy.BACKFILL).any())
            was_decided = slab["log_offset"] < decided_from
            for each in (slab.filter(was_decided), slab.filter(~was_decided)):
                if each.height:
                    reached = replace(part, end=each["log_offset"][-1] + 1)
                    seen = self._observed(memory, each, key, reached, is_held)
                    missed += seen.changes if each["log_offset"][0] >= decided_from else []
                    memory = remembered(memory, seen)
        log.info("sequence_memory_read", table=self._table, partition=key.partition, rows=count, from_offset=low)
        untold = tuple(change for change in missed if not is_held(change.stream)) if is_told else ()
        is_partial = part.deferring is not None and part.deferring.since < start
        return Remembered(memory, start, table.head.seam.commit_sequence, untold, is_partial)

    def _see_that_it_begins_at(self, seam: Seam, key: LogPartition, start: int) -> None:
        found = seam.next_offset(key)
        if found is None or found < start:
            raise LogIdentityError(
                f"the seam of log {key.log_id} partition {key.partition} of {self._table} is {found}, the batch begins "
                f"at {start}: rows between them are in no table; seek to the seam and read again"
            )
        if found > start:
            raise FencedError(
                f"log {key.log_id} partition {key.partition} of {self._table}: the seam is {found}, the batch begins "
                f"at {start}: another writer was here first"
            )

    def _since_us(self, rows: pl.DataFrame) -> int:
        first = rows["ts_log"].dt.epoch("us").min()
        return max(0, first - 3 * self._rules.memory_us) if isinstance(first, int) else 0

    def _place(self, key: LogPartition, topic: str) -> CheckpointPlace:
        return CheckpointPlace(self._table, self._table_uuid, self._scopes[topic], key)

    # Events.

    def _as_events(
        self, changes: Iterable[StreamChange], key: LogPartition, part: BatchPart, topic_id: str
    ) -> pl.DataFrame:
        place = GapPlace(self._table, self._scopes[part.topic], part.topic, topic_id, key)
        return gap_frame(place, changes, recorded_us=self._clock.time_ns() // 1_000, decided_offset=part.end - 1)


_ROW_TYPES = polars_schema(TRADES)
_REBUILT = (*COLUMNS, "written_by")


def _after(markers: Sequence[Marker], offset: int) -> Sequence[Marker]:
    return markers[bisect.bisect_right(markers, offset, key=_offset_of) :] if markers else markers


def _offset_of(marker: Marker) -> int:
    return marker.offset


def _rows(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    if not frames:
        return pl.DataFrame(schema={name: _ROW_TYPES[name] for name in COLUMNS})
    return pl.concat([frame.select(COLUMNS) for frame in frames])
