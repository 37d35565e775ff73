"""Markers: a feed says how far a stream went, so that what is missing at its end is known as well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from k2.common.units import NS_PER_HOUR
from k2.ingestion.sequences.rules import Hole, add_hole, is_forgotten, settle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k2.ingestion.sequences.rules import GapChange, SequenceRules, StreamState

_ABOVE_ALL_PARTS: Final = 2**31 - 1
_DAY_NS: Final = 24 * NS_PER_HOUR


class Marker(NamedTuple):
    """`stream` went up to `last` in the session of `day`, when the log's time was `time_us`."""

    stream: str
    last: int
    day: int
    """Trading date, in days since 1970; NO_DAY where the stream has none."""
    time_us: int
    offset: int
    """Its own coordinate: markers count once, in the order in which they were written."""


class Markers(Protocol):
    """What has been marked of the topics watched."""

    def refresh(self) -> None:
        """Read all that has been written until now; UnavailableError."""
        ...

    def of(self, topic: str, partition: int) -> Sequence[Marker]:
        """Return the markers of a partition's streams, in the order of their offsets."""
        ...

    def partitions(self) -> Sequence[tuple[str, int]]:
        """Return the partitions that have markers."""
        ...

    def passed_us(self) -> int:
        """Return a time that the log's clock has reached."""
        ...


class NoMarkers:
    """A log without markers."""

    def refresh(self) -> None:
        """Read nothing."""

    def of(self, topic: str, partition: int) -> Sequence[Marker]:
        """Return none."""
        del topic, partition
        return ()

    def partitions(self) -> Sequence[tuple[str, int]]:
        """Return none."""
        return ()

    def passed_us(self) -> int:
        """Return the beginning of time."""
        return 0


def announce(
    state: StreamState, marker: Marker, *, offset: int, rules: SequenceRules, changes: list[GapChange]
) -> None:
    """Let the stream miss what a marker says was sent and has not come; `offset` is the partition's last row so far.

    What is missing is suspected at first, as after any other message: late rows fill it without a trace. A marker of
    another session than the stream is in says nothing: which numbers that one began with is not known. What is missing
    happened after the stream's last record and before the marker, or before that day was over where history is sent.
    """
    settle(state, time_us=marker.time_us, offset=offset, rules=rules, changes=changes)
    if is_forgotten(state, marker.time_us, offset, rules) or marker.day != state.day or marker.last <= state.last:
        return
    hole = Hole(
        first=state.last + 1,
        last=marker.last,
        numbering=state.numbering,
        from_day=state.day,
        to_day=state.day,
        time_us=max(marker.time_us, state.time_us),
        offset=state.offset,
        messages=state.messages,
        from_ns=state.event_ns,
        to_ns=max(state.event_ns, min(marker.time_us * 1_000, (state.event_ns // _DAY_NS + 1) * _DAY_NS - 1)),
    )
    add_hole(state, hole, rules, changes)
    state.last, state.sub_index = marker.last, _ABOVE_ALL_PARTS
