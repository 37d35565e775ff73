"""What one more message of a numbered stream means, given what came before: pure rules over a small state.

A hole in the numbers is at first only suspected: late messages may fill it. Once its window (messages of the stream,
or log time) is over it is a gap: opened. Where nothing fills it for long, it is declared lost; a message that comes
later still fills it. All of it follows from the messages before, never from a clock or from where a batch ends.
"""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

NO_OFFSET: Final = -1
NO_DAY: Final = -1
NO_SUB_INDEX: Final = -1


class SequenceKind(StrEnum):
    """What a message is to its stream."""

    NORMAL = "normal"
    GAP = "gap"
    OUT_OF_ORDER = "out_of_order"
    DUPLICATE = "duplicate"
    RESET = "reset"


class GapEvent(StrEnum):
    """What happens to a gap."""

    OPENED = "opened"
    FILLED = "filled"
    LOST = "lost"


class HoleStage(IntEnum):
    """How far a hole is; a late message fills it at any stage but the last."""

    SUSPECTED = 0
    OPENED = 1
    LOST = 2
    FORGOTTEN = 3


@dataclass(frozen=True, slots=True)
class SequenceRules:
    """Where the rules draw their lines; times in microseconds of log time."""

    reorder_messages: int = 100
    reorder_us: int = 10_000_000
    lost_us: int = 86_400_000_000
    memory_us: int = 7 * 86_400_000_000
    memory_offsets: int = 1_000_000
    holes_max: int = 1_000
    reset_number_max: int = 10
    reset_distance_min: int = 100


class Message(NamedTuple):
    """What the rules look at of one message."""

    sequence: int
    time_us: int
    day: int = NO_DAY
    """Trading date, in days since 1970; NO_DAY where it is not known."""
    sub_index: int = NO_SUB_INDEX
    partition: int = 0
    offset: int = NO_OFFSET
    event_ns: int = 0


class Hole(NamedTuple):
    """Numbers that have not come, as one message revealed them; `gap_first` to `gap_last` is what was opened."""

    first: int
    last: int
    numbering: int
    from_day: int
    """Trading date of the last message before it; its own messages are of this one, or of one up to `to_day`."""
    to_day: int
    time_us: int
    offset: int
    messages: int
    from_ns: int
    to_ns: int
    gap_first: int = 0
    gap_last: int = 0
    stage: HoleStage = HoleStage.SUSPECTED


class GapChange(NamedTuple):
    """One event of one gap; `first` to `last` are the numbers that it is about."""

    event: GapEvent
    hole: Hole
    first: int
    last: int
    offset: int
    """The record that opened the gap or, for FILLED, the one that filled it."""
    time_us: int


class Decision(NamedTuple):
    """What a message is; `expected` is None for a stream's first one."""

    kind: SequenceKind
    expected: int | None
    replayed: bool = False


class StreamState:
    """All that is remembered of one stream."""

    __slots__ = (
        "day",
        "day_begin",
        "event_ns",
        "first",
        "holes",
        "last",
        "messages",
        "numbering",
        "offset",
        "partition",
        "sub_index",
        "time_us",
    )

    def __init__(self, message: Message) -> None:
        self.first = self.last = message.sequence
        self.sub_index = message.sub_index
        self.day = self.day_begin = message.day
        self.time_us = message.time_us
        self.partition = message.partition
        self.offset = message.offset
        self.event_ns = message.event_ns
        self.messages = 1
        self.numbering = 0
        self.holes: tuple[Hole, ...] = ()

    def copy(self) -> StreamState:
        """Return a state that can be moved without this one."""
        other = StreamState.__new__(StreamState)
        for name in StreamState.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StreamState) and all(
            getattr(self, name) == getattr(other, name) for name in StreamState.__slots__
        )

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"StreamState({', '.join(f'{name}={getattr(self, name)!r}' for name in StreamState.__slots__)})"


def decide(
    state: StreamState | None, message: Message, rules: SequenceRules, changes: list[GapChange]
) -> tuple[StreamState, Decision]:
    """Say what the message is, move the state, and append what happened to gaps.

    The state given is moved in place, or a new one is returned where the stream begins (anew).
    """
    if state is None:
        return StreamState(message), Decision(SequenceKind.NORMAL, None)
    if is_replay(state, message):
        return state, Decision(SequenceKind.NORMAL, state.last + 1, replayed=True)
    time_us = max(message.time_us, state.time_us)
    settle(state, time_us=time_us, offset=message.offset, rules=rules, changes=changes)
    if is_forgotten(state, time_us, message.offset, rules):
        _give_up(state, changes)
        return StreamState(message), Decision(SequenceKind.NORMAL, None)
    expected = state.last + 1
    kind = _classified(state, message, rules, changes)
    state.messages += 1
    state.time_us = time_us
    state.partition, state.offset = message.partition, message.offset
    return state, Decision(kind, expected)


def is_replay(state: StreamState, message: Message) -> bool:
    """Say whether the message's coordinate is at or below the one remembered."""
    return message.offset != NO_OFFSET and message.partition == state.partition and message.offset <= state.offset


def is_forgotten(state: StreamState, time_us: int, offset: int, rules: SequenceRules) -> bool:
    """Say whether the stream was silent for so long that its next message begins it anew."""
    if time_us - state.time_us > rules.memory_us:
        return True
    return NO_OFFSET not in (offset, state.offset) and offset - state.offset > rules.memory_offsets


def settle(state: StreamState, *, time_us: int, offset: int, rules: SequenceRules, changes: list[GapChange]) -> None:
    """Open the gaps whose window is over by the stream's next message, and declare lost those that waited too long.

    It can be called at any time before that message, with the log's time and end as known: the outcome is the same.
    """
    if not is_due(state, time_us=time_us, offset=offset, rules=rules):
        return
    coming, holes = state.messages + 1, state.holes
    kept: list[Hole] = []
    for start, end in itertools.pairwise(_edges(holes)):
        place = start
        while place < end:
            stage = _stage(holes[place], coming, time_us, offset, rules)
            if stage <= holes[place].stage:
                break
            moved = _moved(holes[place], stage, changes)
            if stage is not HoleStage.FORGOTTEN:
                kept.append(moved)
            place += 1
        kept.extend(holes[place:end])
    state.holes = tuple(kept)


def is_due(state: StreamState, *, time_us: int, offset: int, rules: SequenceRules) -> bool:
    """Say whether `settle` would do something."""
    holes = state.holes
    if not holes:
        return False
    coming = state.messages + 1
    return any(
        _stage(holes[start], coming, time_us, offset, rules) > holes[start].stage
        for start, end in itertools.pairwise(_edges(holes))
        if start < end
    )


def _edges(holes: tuple[Hole, ...]) -> tuple[int, int, int, int]:
    """Return where the lost holes, those opened and those suspected begin, and the end.

    Holes lie in the order in which they were met, and so the older ones are at the later stages: of each stage only
    the first can be the next one to move. It makes a stream that misses a thousand numbers as quick as any other.
    """
    opened = bisect.bisect_left(holes, -HoleStage.OPENED, key=_stage_downwards)
    return 0, opened, bisect.bisect_left(holes, 0, lo=opened, key=_stage_downwards), len(holes)


def _stage_downwards(hole: Hole) -> int:
    return -hole.stage


def _stage(hole: Hole, coming: int, time_us: int, offset: int, rules: SequenceRules) -> HoleStage:
    """Return how far a hole is once the stream's message number `coming` comes at this time and offset."""
    late_us = time_us - hole.time_us
    if late_us > rules.memory_us or (
        NO_OFFSET not in (offset, hole.offset) and offset - hole.offset > rules.memory_offsets
    ):
        return HoleStage.FORGOTTEN
    if late_us > rules.lost_us:
        return HoleStage.LOST
    if late_us > rules.reorder_us or coming - hole.messages > rules.reorder_messages:
        return HoleStage.OPENED
    return HoleStage.SUSPECTED


def _moved(hole: Hole, stage: HoleStage, changes: list[GapChange]) -> Hole:
    """Return the hole at a stage, where it is not there yet, with the events on the way."""
    if stage <= hole.stage:
        return hole
    moved = hole
    if hole.stage is HoleStage.SUSPECTED:
        moved = hole._replace(gap_first=hole.first, gap_last=hole.last, stage=HoleStage.OPENED)
        changes.append(_change(GapEvent.OPENED, moved))
    if hole.stage < HoleStage.LOST <= stage:
        changes.append(_change(GapEvent.LOST, moved))
    return moved._replace(stage=stage)


def _classified(state: StreamState, message: Message, rules: SequenceRules, changes: list[GapChange]) -> SequenceKind:
    if _is_earlier(message.day, state.day_begin):
        _fill(state, message, changes, current=False)
        return SequenceKind.OUT_OF_ORDER
    if message.sequence <= state.last:
        return _behind(state, message, rules, changes)
    kind = SequenceKind.NORMAL
    if message.sequence > state.last + 1:
        _open_hole(state, message, rules, changes)
        kind = SequenceKind.GAP
    _advance(state, message)
    return kind


def _behind(state: StreamState, message: Message, rules: SequenceRules, changes: list[GapChange]) -> SequenceKind:
    sequence = message.sequence
    if sequence == state.last and message.sub_index > state.sub_index:
        _advance(state, message)
        return SequenceKind.NORMAL
    new_day = _is_earlier(state.day, message.day)
    if not new_day and _fill(state, message, changes, current=True):
        return SequenceKind.OUT_OF_ORDER
    low = sequence <= rules.reset_number_max and state.last - sequence >= rules.reset_distance_min
    if new_day or (low and not _is_earlier(message.day, state.day)):
        _restart(state, message, changes, same_day=not new_day)
        return SequenceKind.RESET
    if sequence < state.first or (sequence < state.last and message.sub_index > 0):
        return SequenceKind.OUT_OF_ORDER
    return SequenceKind.DUPLICATE


def _is_earlier(day: int, other: int) -> bool:
    return NO_DAY not in (day, other) and day < other


def _advance(state: StreamState, message: Message) -> None:
    state.last, state.sub_index = message.sequence, message.sub_index
    state.event_ns = message.event_ns
    state.day = max(state.day, message.day)
    if state.day_begin == NO_DAY:
        state.day_begin = message.day


def _open_hole(state: StreamState, message: Message, rules: SequenceRules, changes: list[GapChange]) -> None:
    hole = Hole(
        first=state.last + 1,
        last=message.sequence - 1,
        numbering=state.numbering,
        from_day=state.day,
        to_day=max(state.day, message.day),
        time_us=max(message.time_us, state.time_us),
        offset=message.offset,
        messages=state.messages + 1,
        from_ns=state.event_ns,
        to_ns=message.event_ns,
    )
    add_hole(state, hole, rules, changes)


def add_hole(state: StreamState, hole: Hole, rules: SequenceRules, changes: list[GapChange]) -> None:
    """Let the state miss a hole too; where that makes too many, the oldest are given up."""
    holes = (*state.holes, hole)
    for oldest in holes[: -rules.holes_max]:
        _moved(oldest, HoleStage.FORGOTTEN, changes)
    state.holes = holes[-rules.holes_max :]


def _fill(state: StreamState, message: Message, changes: list[GapChange], *, current: bool) -> bool:
    """Take the message's number out of the newest hole that misses it; of this numbering, or of those before."""
    sequence = message.sequence
    for place in range(len(state.holes) - 1, -1, -1):
        hole = state.holes[place]
        mine = current or not (_is_earlier(message.day, hole.from_day) or _is_earlier(hole.to_day, message.day))
        if mine and hole.first <= sequence <= hole.last and (hole.numbering == state.numbering) is current:
            break
    else:
        return False
    if hole.stage is not HoleStage.SUSPECTED:
        time_us = max(message.time_us, state.time_us)
        changes.append(GapChange(GapEvent.FILLED, hole, sequence, sequence, message.offset, time_us))
    left = [
        hole._replace(first=first, last=last)
        for first, last in ((hole.first, sequence - 1), (sequence + 1, hole.last))
        if first <= last
    ]
    state.holes = (*state.holes[:place], *left, *state.holes[place + 1 :])
    return True


def _restart(state: StreamState, message: Message, changes: list[GapChange], *, same_day: bool) -> None:
    """Begin a new numbering. What is missing of the old one can still come where the trading date tells them apart."""
    if same_day:
        _give_up(state, changes)
    state.numbering += 1
    state.first = state.last = message.sequence
    state.sub_index, state.event_ns = message.sub_index, message.event_ns
    state.day = state.day_begin = max(state.day, message.day)


def _give_up(state: StreamState, changes: list[GapChange]) -> None:
    for hole in state.holes:
        _moved(hole, HoleStage.FORGOTTEN, changes)
    state.holes = ()


def _change(event: GapEvent, hole: Hole) -> GapChange:
    return GapChange(event, hole, hole.first, hole.last, hole.offset, hole.time_us)
