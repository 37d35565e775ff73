"""The log's side of an answer: where each partition ends now, and the symbol's rows from the seam to that end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from k2.common.errors import K2Error, LogIdentityError, QueryError, UnavailableError
from k2.kafka.topics import exchange_of
from k2.query.certificate import PartitionRead
from k2.query.following import misfit
from k2.query.on_demand import MissingRange
from k2.storage.seam import LogPartition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from k2.kafka.ports import LogRange, TopicPartition
    from k2.kafka.topics import Topic
    from k2.query.certificate import AsOf
    from k2.query.following import Followed
    from k2.query.kafka_tail import KafkaTail
    from k2.query.on_demand import OnDemandReader
    from k2.query.ports import Decodes, RemembersEnds
    from k2.query.request import QueryRequest
    from k2.query.settings import QuerySettings
    from k2.query.topic_watch import WatchedState
    from k2.storage.tables import RegisteredLog, TableHead


class Shortfalls:
    """What keeps an answer from being complete: raised where the caller wants all or nothing, else kept as reasons."""

    def __init__(self, *, partial_allowed: bool) -> None:
        self._partial_allowed = partial_allowed
        self.reasons: list[str] = []

    def add(self, error: K2Error) -> None:
        """Raise the error, or note it if the caller accepts a partial answer."""
        if not self._partial_allowed:
            raise error
        self.note(error)

    def note(self, error: K2Error) -> None:
        """Keep the error as a reason, whatever the caller accepts."""
        if str(error) not in self.reasons:
            self.reasons.append(str(error))


@dataclass(frozen=True, slots=True)
class Extent:
    """The partitions that an answer reads. Those in `live` are read from the log where their end is above the seam."""

    partitions: tuple[PartitionRead, ...]
    live: Mapping[TopicPartition, LogRange]


@dataclass(frozen=True, slots=True)
class LogRows:
    """The symbol's rows of [seam, end), in no order."""

    frames: tuple[pl.DataFrame, ...] = ()
    undecodable: int = 0
    with_deferred: bool = False
    """Whether the rows of the deferred ranges asked for are among them."""


class LogSide:
    """Reads the log's side: what the tail holds, and what it does not from the log itself."""

    def __init__(
        self, *, tail: KafkaTail, log_facts: RemembersEnds, on_demand: OnDemandReader, settings: QuerySettings
    ) -> None:
        self._tail = tail
        self._log_facts = log_facts
        self._on_demand = on_demand
        self._settings = settings

    def extent(self, request: QueryRequest, head: TableHead, topics: Sequence[Topic], shortfalls: Shortfalls) -> Extent:
        """Return the partitions with the end that each has now, fixed once for the whole answer.

        A symbol's records lie in its own partition of each topic; topics known to hold strays are read in full.
        """
        logs = [log for log in head.logs if request.exchange in (None, exchange_of(log.topic))]
        if request.lake_only:
            return self.table_extent(request, head)
        state = self._state(head)
        followed = [state.followed[topic.name] for topic in topics if topic.name in state.followed]
        unregistered = [name for name, refused in state.refused.items() if refused.unregistered]
        wanted = {topic.name for topic in topics}
        ranges = self._log_facts.ranges([item.topic.name for item in followed] + sorted(wanted & set(unregistered)))
        _check_followed(followed, head, shortfalls)
        live = {
            (item.topic.name, number): ranges[item.topic.name, number]
            for item in followed
            if item.log == head.log_of(item.topic.name)
            for number in range(item.log.partitions)
            if (item.topic.name, number) in ranges
        }
        self._check_topics(topics, logs, state, ranges, shortfalls)
        _check_reaches(logs, head, live, shortfalls)
        partitions = _partitions(request, logs, head, {key: extent.end for key, extent in live.items()}, self._tail)
        return Extent(partitions, live)

    def table_extent(self, request: QueryRequest, head: TableHead) -> Extent:
        """Return the partitions up to their seams: what the table alone can answer."""
        logs = [log for log in head.logs if request.exchange in (None, exchange_of(log.topic))]
        return Extent(_partitions(request, logs, head, {}, self._tail), {})

    def seconds_behind(self, partitions: Sequence[PartitionRead]) -> float | None:
        """Return how far at most these ends are behind the log's; None where that is unknown of one of them."""
        behind = [self._log_facts.seconds_behind((item.topic, item.partition), item.end) for item in partitions]
        known = [seconds for seconds in behind if seconds is not None]
        return max(known) if known and len(known) == len(behind) else None

    def read(
        self,
        request: QueryRequest,
        extent: Extent,
        decoder: Decodes,
        shortfalls: Shortfalls,
        deferred: Sequence[MissingRange] = (),
    ) -> LogRows:
        """Return the symbol's rows of [seam, end) of every partition of the extent, and of deferred ranges."""
        wanted = [item for item in extent.partitions if item.end > item.seam]
        if not wanted and not deferred:
            return LogRows()
        ends = {(item.topic, item.partition): item.end for item in wanted}
        self._tail.wait_for(ends, self._settings.catch_up_seconds_max)
        frames: list[pl.DataFrame] = []
        undecodable = 0
        missing: list[MissingRange] = list(deferred)
        for item in wanted:
            view = self._tail.view((item.topic, item.partition))
            if view is None:
                low = high = item.seam
            else:
                held = view.slice(request.symbol, item.seam, item.end)
                low, high = held.start, held.end
                frames.extend(held.frames)
                undecodable += held.undecodable
            missing += [
                MissingRange(item.topic, item.partition, item.log_id, start, end, self._is_by_key(item.topic))
                for start, end in ((item.seam, low), (max(high, item.seam), item.end))
                if start < end
            ]
        try:
            _check_retained(missing, extent.live)
            found = self._on_demand.read(missing, request.symbol, decoder)
        except (UnavailableError, LogIdentityError) as error:
            shortfalls.add(error)
            return LogRows(tuple(frames), undecodable)
        return LogRows((*frames, *found.frames), undecodable + found.undecodable, with_deferred=True)

    def held(self, request: QueryRequest, topics: Sequence[Topic]) -> tuple[tuple[PartitionRead, ...], LogRows]:
        """Return what the tail holds, for an answer without the table."""
        partitions: list[PartitionRead] = []
        frames: list[pl.DataFrame] = []
        undecodable = 0
        for topic in topics:
            followed = self._tail.state.followed.get(topic.name)
            for number in range(followed.log.partitions if followed else 0):
                view = self._tail.view((topic.name, number))
                if followed is None or view is None:
                    continue
                held = view.slice(request.symbol, view.start, view.end)
                frames.extend(held.frames)
                undecodable += held.undecodable
                partitions.append(PartitionRead(followed.log.log_id, topic.name, number, view.start, view.end))
        return tuple(partitions), LogRows(tuple(frames), undecodable)

    def _state(self, head: TableHead) -> WatchedState:
        """Return the state of the topics; looked at anew where the table knows logs that it does not."""
        state = self._tail.state
        known = state.heads.get(head.table_name)
        if known is None or known.logs != head.logs:
            self._tail.look_again(self._settings.catch_up_seconds_max)
            state = self._tail.state
        if head.table_name not in state.heads:
            raise UnavailableError(
                f"the tail has not seen the topics yet: {self._tail.watch_trouble or 'it just started'}",
                dependency="kafka",
            )
        return state

    def _check_topics(
        self,
        topics: Sequence[Topic],
        logs: Sequence[RegisteredLog],
        state: WatchedState,
        ranges: Mapping[TopicPartition, LogRange],
        shortfalls: Shortfalls,
    ) -> None:
        """See that every topic asked for can be read, or holds nothing."""
        registered = {log.topic for log in logs}
        for topic in topics:
            refused = state.refused.get(topic.name)
            if refused is not None and refused.unregistered and topic.name not in registered:
                if any(extent.end > extent.start for key, extent in ranges.items() if key[0] == topic.name):
                    shortfalls.add(UnavailableError(refused.reason, dependency="ingestion"))
            elif refused is not None:
                shortfalls.add(LogIdentityError(refused.reason))
            elif topic.name not in state.followed and topic.name in registered:
                shortfalls.add(
                    LogIdentityError(
                        f"expected the topic {topic.name}, which the table was built from, found none on the broker: "
                        "it was deleted, or this is another broker; bring it back, or ask with lake_only"
                    )
                )

    def _is_by_key(self, topic: str) -> bool:
        return topic not in self._tail.placement.strays


def with_token(extent: Extent, token: AsOf) -> Extent:
    """Return the extent cut at the ends that a token names.

    Raises:
        QueryError: the token's ends are not reached by the log any more.
    """
    ends = {(log_id, partition): end for log_id, partition, _, end in token.partitions}
    known = {log_id for log_id, _, _, _ in token.partitions}
    cut = []
    for item in extent.partitions:
        end = ends.get((item.log_id, item.partition))
        if end is None and item.log_id in known:
            raise QueryError(
                f"the token names no offset of {item.topic} partition {item.partition}: it belongs to an answer about "
                "another symbol; ask without it"
            )
        if end is None:  # a log that was registered after the answer was given
            continue
        if end > item.end:
            raise QueryError(
                f"the token names offset {end} of {item.topic} partition {item.partition}, which ends at {item.end}: "
                "the log is shorter than it was, or cannot be reached"
            )
        cut.append(replace(item, end=end))
    return replace(extent, partitions=tuple(cut))


def _partitions(
    request: QueryRequest,
    logs: Sequence[RegisteredLog],
    head: TableHead,
    ends: Mapping[TopicPartition, int],
    tail: KafkaTail,
) -> tuple[PartitionRead, ...]:
    partitions = []
    newest = {log.topic: log.log_id for log in logs}
    for log in logs:
        for number in _numbers(request.symbol, log, tail):
            seam = head.seam.next_offset(LogPartition(log.log_id, number)) or 0
            end = ends.get((log.topic, number)) if newest[log.topic] == log.log_id else None
            partitions.append(PartitionRead(log.log_id, log.topic, number, seam, max(seam, end or seam)))
    return tuple(partitions)


def _numbers(symbol: str, log: RegisteredLog, tail: KafkaTail) -> Sequence[int]:
    if log.topic in tail.placement.strays:
        return range(log.partitions)
    return [tail.placement.own_partition(symbol, log.partitions)]


def _check_reaches(
    logs: Sequence[RegisteredLog], head: TableHead, live: Mapping[TopicPartition, LogRange], shortfalls: Shortfalls
) -> None:
    """See that no log ends below the seam: it would not be the one that the table was built from."""
    for log in logs:
        for number in range(log.partitions if head.log_of(log.topic) == log else 0):
            extent, seam = live.get((log.topic, number)), head.seam.next_offset(LogPartition(log.log_id, number))
            if extent is not None and seam is not None and extent.end < seam:
                shortfalls.add(LogIdentityError(misfit(head.table_name, log.topic, number, seam, extent) or ""))


def _check_followed(followed: Sequence[Followed], head: TableHead, shortfalls: Shortfalls) -> None:
    """See that the tail follows the logs that the table knows by now: of another one it tells nothing."""
    for item in followed:
        if item.log != head.log_of(item.topic.name):
            shortfalls.add(
                UnavailableError(
                    f"expected the tail to follow the log of {item.topic.name} that {head.table_name} was built from, "
                    "found it at another one, which the table has left or not taken up yet: ask again in a moment",
                    dependency="kafka",
                )
            )


def _check_retained(missing: Sequence[MissingRange], live: Mapping[TopicPartition, LogRange]) -> None:
    for item in missing:
        extent = live[item.topic, item.partition]
        fault = (
            misfit("the table", item.topic, item.partition, item.start, extent) if item.start < extent.start else None
        )
        if fault:
            raise LogIdentityError(fault)
