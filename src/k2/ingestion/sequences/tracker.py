"""Trackers of numbered streams: the port, its events, and the tracker that remembers in this process's memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from k2.ingestion.sequences.rules import (
    NO_DAY,
    NO_OFFSET,
    NO_SUB_INDEX,
    Message,
    SequenceKind,
    SequenceRules,
    StreamState,
    decide,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from k2.ingestion.sequences.rules import Decision, GapChange

DEFAULT_STREAMS_MAX = 200_000


class SequenceCheck(NamedTuple):
    """One message to check; a plain tuple of the first four does as well.

    `timestamp` is the log's time where it is known: an aware datetime, or UTC nanoseconds. `channel` and `session`
    name numberings of their own; `trading_day` (days since 1970) tells a numbering that begins anew each day.
    """

    exchange: str
    symbol: str
    sequence: int
    timestamp: datetime | int
    data_type: str = "trades"
    channel: str | None = None
    session: str | None = None
    trading_day: int | None = None
    sub_index: int | None = None
    partition: int | None = None
    offset: int | None = None

    @property
    def stream(self) -> StreamKey:
        """The stream that the message belongs to."""
        return StreamKey(self.exchange, self.symbol, self.data_type, self.channel or self.session or "")

    @property
    def message(self) -> Message:
        """What the rules look at."""
        return Message(
            sequence=self.sequence,
            time_us=microseconds(self.timestamp),
            day=NO_DAY if self.trading_day is None else self.trading_day,
            sub_index=NO_SUB_INDEX if self.sub_index is None else self.sub_index,
            partition=self.partition or 0,
            offset=NO_OFFSET if self.offset is None else self.offset,
        )


class StreamKey(NamedTuple):
    """Whose numbers run by themselves."""

    exchange: str
    symbol: str
    data_type: str = "trades"
    channel: str = ""
    """The venue's channel or, where it has none, its session."""


@dataclass(frozen=True, slots=True)
class SequenceEvent:
    """What one message is to its stream: `expected` was the number to come (None: the stream begins), `found` came."""

    kind: SequenceKind
    exchange: str
    symbol: str
    expected: int | None
    found: int
    replayed: bool = False
    """The message's coordinate had been seen: nothing was changed."""

    @property
    def missing(self) -> int:
        """How many numbers a GAP skips; 0 for other kinds."""
        return self.found - self.expected if self.kind is SequenceKind.GAP and self.expected is not None else 0


@dataclass(frozen=True, slots=True)
class SequenceStats:
    """What a tracker has seen since it was made; replays are not counted among the kinds."""

    checks: int
    by_kind: dict[SequenceKind, int]
    missing: int
    replayed: int
    streams: int
    degraded: bool = False
    """The shared state cannot be reached; this process's own memory carries on."""


class SequenceTracker(ABC):
    """Tells gaps, duplicates, late messages and new numberings of numbered streams."""

    def check_sequence(
        self,
        exchange: str,
        symbol: str,
        sequence: int,
        timestamp: datetime | int,
        *,
        data_type: str = "trades",
        channel: str | None = None,
        session: str | None = None,
        trading_day: int | None = None,
        sub_index: int | None = None,
        partition: int | None = None,
        offset: int | None = None,
    ) -> SequenceEvent:
        """Check one message and remember it."""
        check = SequenceCheck(
            exchange, symbol, sequence, timestamp, data_type, channel, session, trading_day, sub_index, partition,
            offset,
        )  # fmt: skip
        return self.check_sequence_batch([check])[0]

    @abstractmethod
    def check_sequence_batch(
        self, checks: Iterable[SequenceCheck | tuple[str, str, int, datetime | int]]
    ) -> list[SequenceEvent]:
        """Check messages in their order, as one step; return one event each."""

    @abstractmethod
    def get_stats(self) -> SequenceStats:
        """Return the counts so far."""

    @abstractmethod
    def clear_symbol(self, exchange: str, symbol: str) -> None:
        """Forget a symbol's streams, of every data type and channel."""

    @abstractmethod
    def clear_all(self) -> None:
        """Forget every stream."""


class MemorySequenceTracker(SequenceTracker):
    """Remembers streams in this process; at `streams_max` the ones silent for longest are forgotten.

    `load` is asked for a stream that is not remembered (the table knows): None means that it begins.
    """

    def __init__(
        self,
        rules: SequenceRules | None = None,
        *,
        load: Callable[[StreamKey], StreamState | None] | None = None,
        streams_max: int = DEFAULT_STREAMS_MAX,
    ) -> None:
        self._rules = rules or SequenceRules()
        self._load = load
        self._streams_max = streams_max
        self._streams: dict[StreamKey, StreamState] = {}
        self.counts = SequenceCounts()

    def check_sequence_batch(
        self, checks: Iterable[SequenceCheck | tuple[str, str, int, datetime | int]]
    ) -> list[SequenceEvent]:
        """Check messages in their order."""
        return [self._check(SequenceCheck(*check)) for check in checks]

    def get_stats(self) -> SequenceStats:
        """Return the counts so far."""
        return self.counts.stats(len(self._streams))

    def clear_symbol(self, exchange: str, symbol: str) -> None:
        """Forget a symbol's streams."""
        for key in [key for key in self._streams if (key.exchange, key.symbol) == (exchange, symbol)]:
            del self._streams[key]

    def clear_all(self) -> None:
        """Forget every stream."""
        self._streams.clear()

    def state(self, key: StreamKey) -> StreamState | None:
        """Return what is remembered of a stream."""
        return self._streams.get(key)

    def states(self) -> Iterable[tuple[StreamKey, StreamState]]:
        """Return every stream that is remembered, the one silent for longest first."""
        return self._streams.items()

    def remember(self, key: StreamKey, state: StreamState) -> None:
        """Take over what is known of a stream from elsewhere."""
        self._streams.pop(key, None)  # the dict's order is that of the newest message
        self._streams[key] = state
        if len(self._streams) > self._streams_max:
            del self._streams[next(iter(self._streams))]

    def _check(self, check: SequenceCheck) -> SequenceEvent:
        key = check.stream
        known = self._streams.get(key)
        if known is None and self._load is not None:
            known = self._load(key)
        changes: list[GapChange] = []
        state, decision = decide(known, check.message, self._rules, changes)
        self.remember(key, state)
        return self.counts.event(check, decision)


class SequenceCounts:
    """Counts of what a tracker has said."""

    def __init__(self) -> None:
        self._by_kind: Counter[SequenceKind] = Counter()
        self._missing = 0
        self._replayed = 0

    def event(self, check: SequenceCheck, decision: Decision) -> SequenceEvent:
        """Count a decision, and return it as an event."""
        event = SequenceEvent(
            decision.kind, check.exchange, check.symbol, decision.expected, check.sequence, decision.replayed
        )
        self._replayed += event.replayed
        self._by_kind[event.kind] += not event.replayed
        self._missing += event.missing
        return event

    def stats(self, streams: int, *, degraded: bool = False) -> SequenceStats:
        """Return the counts."""
        by_kind = {kind: self._by_kind[kind] for kind in SequenceKind}
        return SequenceStats(
            sum(by_kind.values()) + self._replayed, by_kind, self._missing, self._replayed, streams, degraded
        )


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(timestamp: datetime | int) -> int:
    """Return UTC microseconds since 1970 of a datetime (UTC where it has no zone) or of nanoseconds."""
    if isinstance(timestamp, int):
        return timestamp // 1_000
    aware = timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)
    since = aware - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
