"""Whole batches of one partition against the rules of sequences: runs of consecutive numbers in one step each."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import polars as pl

from k2.ingestion.sequences.markers import Marker, announce
from k2.ingestion.sequences.parts import nobody
from k2.ingestion.sequences.rules import (
    NO_DAY,
    NO_OFFSET,
    NO_SUB_INDEX,
    Decision,
    GapChange,
    HoleStage,
    Message,
    SequenceKind,
    SequenceRules,
    StreamState,
    decide,
    is_due,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

COLUMNS: Final = (
    "symbol", "channel", "sequence", "sub_index", "trading_date", "ts_event_ns", "ts_log", "log_offset",
)  # fmt: skip
"""What is read of a table's rows; with the partition they are of, all that a decision depends on."""
_KEPT_MIN: Final = 1_000
_MARKED: Final = Decision(SequenceKind.NORMAL, None, replayed=True)
_AT_FRONT: Final = (SequenceKind.NORMAL, SequenceKind.GAP, SequenceKind.RESET)


_NUMBERS: Final = ("sequence", "sub_index", "day", "event_ns", "time_us", "offset", "marker")


class StreamEvent(NamedTuple):
    """What a message was that was not NORMAL."""

    stream: str
    offset: int
    found: int
    decision: Decision


class StreamChange(NamedTuple):
    """What happened to a gap of a stream."""

    stream: str
    change: GapChange


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of one partition's streams; nothing in it changes, a batch leads to the next one."""

    streams: Mapping[str, StreamState] = field(default_factory=dict)
    holed: frozenset[str] = frozenset()
    """The streams that miss something that is not lost yet."""
    clock_us: int = 0
    """The highest log time so far."""
    kept: int = 0
    """How many streams were left when those silent for too long were last forgotten."""
    offset: int = NO_OFFSET
    """The partition's last row so far."""
    marker: int = NO_OFFSET
    """The last marker that counted."""


@dataclass(slots=True)
class Observation:
    """What a batch did: the states that it moved, and what happened."""

    states: dict[str, StreamState] = field(default_factory=dict)
    events: list[StreamEvent] = field(default_factory=list)
    changes: list[StreamChange] = field(default_factory=list)
    messages: int = 0
    clock_us: int = 0
    offset: int = NO_OFFSET
    marker: int = NO_OFFSET


class _Columns(NamedTuple):
    """The numbered rows of a batch, by stream and then offset."""

    names: list[str]
    starts: Ints
    """Where each stream's rows begin, and the end."""
    sequence: Ints
    sub_index: Ints
    day: Ints
    event_ns: Ints
    time_us: Ints
    offset: Ints
    """Of a marker, the offset of the partition's row before it."""
    marker: Ints
    """Offset of a marker, NO_OFFSET for a row."""


def observe(
    memory: Memory,
    rows: pl.DataFrame,
    rules: SequenceRules,
    *,
    scope: str,
    partition: int,
    end_offset: int,
    markers: Sequence[Marker] = (),
    until_us: int = 0,
    is_held: Callable[[str], bool] = nobody,
    before: Observation | None = None,
) -> Observation:
    """Check the rows of one partition, in the order of their offsets, up to `end_offset`; `memory` stays as it is.

    `scope` names the column that tells streams apart: symbol or channel. A marker counts before the first row that was
    logged after it; `until_us` is a time that the log has passed without another row. Of a stream that `is_held` the
    rows are left out: what it misses, or is said to have sent, may be in those, and nothing is said of it. `before` is
    what the rows before these did since `memory`; it is moved, and returned.
    """
    seen = before or Observation(clock_us=memory.clock_us, offset=memory.offset, marker=memory.marker)
    clock_us, offset = seen.clock_us, seen.offset
    if rows.height:
        rows = rows if rows["log_offset"].is_sorted() else rows.sort("log_offset")
        newest = rows["ts_log"].dt.epoch("us").max()
        seen.clock_us = max(clock_us, newest if isinstance(newest, int) else 0)
        seen.offset = int(rows["log_offset"][-1])
    passed_us = max(seen.clock_us, until_us)
    due = [each for each in markers if each.offset > seen.marker and each.time_us < passed_us]
    if due:
        seen.marker = due[-1].offset
    if rows.height or due:
        columns = _columns(rows, scope, clock_us, offset, [each for each in due if not is_held(each.stream)])
        seen.messages += int(np.count_nonzero(columns.marker == NO_OFFSET))
        breaks = _breaks(columns, rules)
        for place, name in enumerate(columns.names):
            first, last = int(columns.starts[place]), int(columns.starts[place + 1])
            known = memory.streams.get(name)
            state = seen.states.get(name) or (known.copy() if known else None)
            walk = _Walk(name, state, columns, partition, rules, seen)
            inside = breaks[np.searchsorted(breaks, first, "right") : np.searchsorted(breaks, last, "left")]
            edges = [first, *inside.tolist(), last]
            for start, end in itertools.pairwise(edges):
                walk.run(start, end)
            if walk.state is not None:
                seen.states[name] = walk.state
    holed = memory.holed.union(name for name, state in seen.states.items() if waits(state))
    told = [name for name in sorted(holed) if not is_held(name)]
    _settle_all(memory, told, seen, rules, time_us=passed_us, offset=end_offset - 1)
    return seen


def remembered(memory: Memory, seen: Observation) -> Memory:
    """Return the memory once the batch is in the table. The mapping is shared and moved: the old memory is void."""
    streams = memory.streams if isinstance(memory.streams, dict) else dict(memory.streams)
    streams.update(seen.states)
    moved = frozenset(name for name, state in seen.states.items() if waits(state))
    holed = (memory.holed - seen.states.keys()) | moved
    return Memory(streams, holed, seen.clock_us, memory.kept, seen.offset, seen.marker)


def without_forgotten(memory: Memory, rules: SequenceRules, *, streams_max: int) -> Memory:
    """Return the memory without the streams that would begin anew; at most `streams_max` stay, the latest ones.

    It looks only once the memory has doubled, so that a batch costs no more with many streams.
    """
    count = len(memory.streams)
    if count <= min(streams_max, 2 * memory.kept + _KEPT_MIN):
        return memory
    since_us = memory.clock_us - rules.memory_us
    kept = {name: state for name, state in memory.streams.items() if state.time_us >= since_us}
    if len(kept) > streams_max:
        latest = sorted(kept, key=lambda name: (kept[name].time_us, name))[-streams_max // 2 :]
        kept = {name: kept[name] for name in latest}
    return replace(memory, streams=kept, holed=memory.holed & kept.keys(), kept=len(kept))


class _Walk:
    """One stream's way through a batch."""

    def __init__(
        self,
        name: str,
        state: StreamState | None,
        columns: _Columns,
        partition: int,
        rules: SequenceRules,
        seen: Observation,
    ) -> None:
        self.state = state
        self._name = name
        self._columns = columns
        self._partition = partition
        self._rules = rules
        self._seen = seen

    def run(self, start: int, end: int) -> None:
        """Check a run of consecutive numbers: once one is the newest of its stream, so are those that follow."""
        for row in range(start, end):
            decision = self._decide(row)
            at_front = decision.kind in _AT_FRONT and not decision.replayed
            if at_front and self.state is not None and self.state.last == self._columns.sequence[row]:
                self._skip(row, end - 1)
                return

    def _decide(self, row: int) -> Decision:
        columns = self._columns
        if columns.marker[row] != NO_OFFSET:
            return self._announce(row)
        message = Message(
            int(columns.sequence[row]),
            int(columns.time_us[row]),
            int(columns.day[row]),
            int(columns.sub_index[row]),
            self._partition,
            int(columns.offset[row]),
            int(columns.event_ns[row]),
        )
        changes: list[GapChange] = []
        self.state, decision = decide(self.state, message, self._rules, changes)
        if changes:
            self._seen.changes.extend(StreamChange(self._name, change) for change in changes)
        if decision.kind is not SequenceKind.NORMAL:
            self._seen.events.append(StreamEvent(self._name, message.offset, message.sequence, decision))
        return decision

    def _announce(self, row: int) -> Decision:
        if self.state is not None:
            columns = self._columns
            marker = Marker(
                self._name,
                int(columns.sequence[row]),
                int(columns.day[row]),
                int(columns.time_us[row]),
                int(columns.marker[row]),
            )
            changes: list[GapChange] = []
            announce(self.state, marker, offset=int(columns.offset[row]), rules=self._rules, changes=changes)
            self._seen.changes.extend(StreamChange(self._name, change) for change in changes)
        return _MARKED

    def _skip(self, row: int, last: int) -> None:
        """Take the rows after `row` up to `last`, which continue it one by one."""
        if last == row or self.state is None:
            return
        columns, state = self._columns, self.state
        state.last, state.sub_index = int(columns.sequence[last]), int(columns.sub_index[last])
        state.event_ns, state.offset = int(columns.event_ns[last]), int(columns.offset[last])
        state.time_us = max(state.time_us, int(columns.time_us[last]))
        state.messages += last - row


def _columns(rows: pl.DataFrame, scope: str, clock_us: int, offset: int, markers: Sequence[Marker]) -> _Columns:
    clock = pl.col("ts_log").dt.epoch("us").cum_max().clip(lower_bound=clock_us)
    prepared = rows.lazy().select(
        stream=pl.col(scope),
        sequence=pl.col("sequence"),
        sub_index=pl.col("sub_index").fill_null(NO_SUB_INDEX).cast(pl.Int64),
        day=pl.col("trading_date").to_physical().cast(pl.Int64).fill_null(NO_DAY),
        event_ns=pl.col("ts_event_ns"),
        time_us=clock,
        offset=pl.col("log_offset"),
        marker=pl.lit(NO_OFFSET, pl.Int64),
    )
    frame = prepared.collect()
    if markers:
        frame = _with_markers(frame, markers, offset)
    frame = frame.filter(pl.col("sequence").is_not_null() & pl.col("stream").is_not_null())
    names = frame["stream"].unique().sort()
    code = frame["stream"].cast(pl.Enum(names)).to_physical().to_numpy()
    order = np.argsort(code, kind="stable")
    starts = np.searchsorted(code[order], np.arange(len(names) + 1))
    frame = frame.select(pl.col(_NUMBERS).gather(order))
    return _Columns(
        names=names.to_list(),
        starts=starts.astype(np.int64),
        **{name: frame[name].to_numpy() for name in _NUMBERS},
    )


def _with_markers(rows: pl.DataFrame, markers: Sequence[Marker], offset: int) -> pl.DataFrame:
    """Put each marker behind the rows that were logged before it, or at the same time."""
    marked = pl.DataFrame(
        {
            "stream": [each.stream for each in markers],
            "sequence": [each.last for each in markers],
            "day": [each.day for each in markers],
            "time_us": [each.time_us for each in markers],
            "marker": [each.offset for each in markers],
        },
        schema={name: rows.schema[name] for name in ("stream", "sequence", "day", "time_us", "marker")},
    )
    both = pl.concat([rows, marked], how="diagonal").sort("time_us", "marker", maintain_order=True)
    return both.with_columns(
        pl.col("offset").forward_fill().fill_null(offset),
        pl.col("sub_index").fill_null(NO_SUB_INDEX),
        pl.col("event_ns").fill_null(0),
    )


def _breaks(columns: _Columns, rules: SequenceRules) -> Ints:
    """Return the rows that do not simply continue the row before them."""
    if len(columns.sequence) < 2:  # noqa: PLR2004 - a pair
        return np.zeros(0, np.int64)
    step, days = np.diff(columns.sequence), np.diff(columns.day)
    sub_steps = np.diff(columns.sub_index)
    continues = (step == 1) | ((step == 0) & (sub_steps > 0))
    continues &= days == 0
    continues &= (columns.marker[1:] == NO_OFFSET) & (columns.marker[:-1] == NO_OFFSET)
    continues &= np.diff(columns.time_us) <= rules.memory_us
    continues &= np.diff(columns.offset) <= rules.memory_offsets
    return np.flatnonzero(~continues) + 1


def _settle_all(
    memory: Memory, holed: Sequence[str], seen: Observation, rules: SequenceRules, *, time_us: int, offset: int
) -> None:
    """Look at the streams that miss something with the time and place that the batch has reached."""
    for name in holed:
        state = seen.states.get(name)
        if state is None:
            if not is_due(memory.streams[name], time_us=time_us, offset=offset, rules=rules):
                continue
            state = seen.states[name] = memory.streams[name].copy()
        changes: list[GapChange] = []
        settle(state, time_us=time_us, offset=offset, rules=rules, changes=changes)
        seen.changes.extend(StreamChange(name, change) for change in changes)


def waits(state: StreamState) -> bool:
    """Say whether a stream misses something that is not lost yet."""
    return bool(state.holes) and state.holes[-1].stage < HoleStage.LOST
