"""Reads the log: partitions that the caller chooses (LogReader) or that a consumer group shares out (GroupReader)."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka import Message as ConsumedMessage

from k2.common.errors import ConfigurationError, K2Error, LogIdentityError
from k2.common.logging import get_logger
from k2.kafka.batches import LogBatch
from k2.kafka.client_config import Properties, common_properties
from k2.kafka.errors import AUTO_OFFSET_RESET, OUTAGES, PARTITION_EOF, TRANSIENT, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from confluent_kafka import KafkaError

    from k2.kafka.settings import KafkaSettings

log = get_logger(__name__)

Key = tuple[str, int]
"""Topic name and partition number."""

Message = Any
"""A confluent_kafka.Message; its stub makes each part optional, which consumed messages never lack."""

_PART: Final[Any] = ConsumedMessage
"""Its methods are mapped over whole lists: a tenth of a worker's time was a function call for each message."""

_HEARTBEAT_MS: Final = 1000
_FETCH_RETRY_MS: Final = 100
_QUEUE_FULL_PAUSE_MS: Final = 10


class _Client:
    """What both readers share: consuming, positions, pausing, errors. Used by one thread at a time."""

    def __init__(self, settings: KafkaSettings, properties: Properties, *, with_headers: bool = False) -> None:
        self._settings = settings
        self._with_headers = with_headers
        self._next: dict[Key, int] = {}
        self._paused: set[Key] = set()
        self._failure: K2Error | None = None
        self._outage: K2Error | None = None
        self._consumer = Consumer(_fetch_properties(settings) | properties | {"error_cb": self._on_error})

    def poll(self, max_messages: int, timeout_seconds: float) -> list[LogBatch]:
        """Return what has arrived, as soon as something has, one batch a partition; [] after `timeout_seconds`.

        A batch may hold no message and only move the position past control records.

        Raises:
            LogIdentityError: a position lies outside its log, or a topic is gone.
            UnavailableError: no broker can be reached; polling again goes on.
            ConfigurationError: the broker refuses this client.
        """
        self._raise_failure()
        try:
            first = self._consumer.poll(timeout_seconds)
            if first is None:
                self._raise_outage()
                return []
            messages = [first, *self._consumer.consume(max_messages - 1, 0)] if max_messages > 1 else [first]
        except KafkaException as error:
            raise translate(error, "reading the log") from error
        batches = self._batches(messages)
        if batches:
            self._outage = None
        else:
            self._raise_failure()
        return batches

    def position(self, topic: str, partition: int) -> int:
        """Return the offset that is read next; KeyError for a partition that is not assigned."""
        return self._next[topic, partition]

    def positions(self) -> dict[Key, int]:
        """Return the offset that is read next, per assigned partition."""
        return dict(self._next)

    def pause(self, partitions: Iterable[Key]) -> None:
        """Return nothing of these partitions until `resume`; polling must go on."""
        keys = [key for key in partitions if key in self._next and key not in self._paused]
        self._paused.update(keys)
        if keys:
            self._call(self._consumer.pause, [TopicPartition(*key) for key in keys])

    def resume(self, partitions: Iterable[Key]) -> None:
        """Read these partitions on, from where they were paused."""
        keys = [key for key in partitions if key in self._paused]
        self._paused.difference_update(keys)
        if keys:
            self._call(self._consumer.resume, [TopicPartition(*key) for key in keys])
        for topic, partition in keys:  # a seek wakes the fetcher at once; resuming alone takes it up to a second
            self.seek(topic, partition, self._next[topic, partition])

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Read on from `offset`; nothing that was fetched before the call is returned. Paused stays paused."""
        key = (topic, partition)
        if key in self._next:
            self._call(self._consumer.incremental_unassign, [TopicPartition(topic, partition)])
        self._assign({key: offset})
        if key in self._paused:
            self._call(self._consumer.pause, [TopicPartition(topic, partition)])

    def close(self) -> None:
        """Give up all partitions and connections."""
        self._call(self._consumer.close)
        self._next.clear()

    def _assign(self, starts: Mapping[Key, int]) -> None:
        self._next.update(starts)
        self._call(self._consumer.incremental_assign, [TopicPartition(*key, offset) for key, offset in starts.items()])

    def _unassign(self, partitions: Iterable[Key]) -> None:
        keys = [key for key in partitions if self._next.pop(key, None) is not None]
        self._paused.difference_update(keys)
        self._call(self._consumer.incremental_unassign, [TopicPartition(*key) for key in keys])

    def _call(self, function: Callable[..., Any], *arguments: Any) -> None:
        try:
            function(*arguments)
        except KafkaException as error:
            raise translate(error, "reading the log") from error

    def _batches(self, messages: list[Message]) -> list[LogBatch]:
        """Gather messages by partition, in offset order, and move the positions."""
        runs: dict[Key, list[Message]] = {}
        ends: dict[Key, int] = {}
        if any(map(_PART.error, messages)):
            for event in filter(_PART.error, messages):
                self._take_event(event, ends)
            messages = [message for message in messages if message.error() is None]
        start = 0
        for key, run in groupby(zip(map(_PART.topic, messages), map(_PART.partition, messages), strict=True)):
            end = start + sum(1 for _ in run)
            runs.setdefault(key, []).extend(messages[start:end])
            start = end
        batches = [self._batch(key, run, ends.pop(key, -1)) for key, run in runs.items() if key in self._next]
        batches += [self._batch(key, [], end) for key, end in ends.items() if self._next.get(key, end) < end]
        return [batch for batch in batches if batch is not None]

    def _batch(self, key: Key, messages: list[Message], end: int) -> LogBatch | None:
        position = self._next[key]
        if messages and messages[0].offset() < position:  # fetched before a seek
            messages = [message for message in messages if message.offset() >= position]
        if not messages and end <= position:
            return None
        offsets: list[int] = list(map(_PART.offset, messages))
        next_offset = max(offsets[-1] + 1 if offsets else position, end)
        self._next[key] = next_offset
        return LogBatch(
            topic=key[0],
            partition=key[1],
            offsets=offsets,
            ts_log_ms=[at for _, at in map(_PART.timestamp, messages)],
            keys=list(map(_PART.key, messages)),
            values=list(map(_PART.value, messages)),
            next_offset=next_offset,
            leader_epoch=_epoch(messages),
            headers=[dict(message.headers() or ()) for message in messages] if self._with_headers else None,
        )

    def _take_event(self, event: Message, ends: dict[Key, int]) -> None:
        error = event.error()
        key = (event.topic(), event.partition())
        if error.code() == PARTITION_EOF:
            ends[key] = max(event.offset(), ends.get(key, -1))
        elif error.code() == AUTO_OFFSET_RESET and key in self._next:
            self._failure = self._out_of_range(key, error)
        elif error.retriable() or error.code() in TRANSIENT:
            self._on_error(error)
        else:
            self._failure = translate(error, f"reading {key[0]} partition {key[1]}")

    def _out_of_range(self, key: Key, error: KafkaError) -> K2Error:
        topic, partition = key
        position = self._next[key]
        try:
            start, end = self._consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=self._settings.request_timeout_seconds, cached=False
            )
        except KafkaException as unanswered:
            return translate(unanswered, f"reading {topic} partition {partition} at offset {position}")
        if position < start:
            difference = f"{start - position} records were deleted before they were read (retention)"
        elif position > end:
            difference = f"{position - end} records are missing (another topic, or an older copy of it)"
        else:
            difference = error.str()
        return LogIdentityError(
            f"expected offset {position} in {topic} partition {partition}, found a log of [{start}, {end}): "
            f"{difference}"
        )

    def _on_error(self, error: KafkaError) -> None:
        """Take an error that belongs to no partition; librdkafka calls this inside of poll."""
        translated = translate(error, f"reading from {self._settings.bootstrap_servers}")
        if isinstance(translated, ConfigurationError) or error.fatal():
            self._failure = translated
        elif error.code() in OUTAGES:
            self._outage = translated
        else:
            log.debug("kafka_error", code=error.name(), text=error.str())

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _raise_outage(self) -> None:
        """Say once per outage that no broker answers; the reader itself goes on trying."""
        self._raise_failure()
        outage, self._outage = self._outage, None
        if outage is not None:
            raise outage


class LogReader(_Client):
    """Reads partitions that the caller chooses, each from an offset that the caller states."""

    def __init__(
        self, settings: KafkaSettings, starts: Mapping[Key, int] | None = None, *, with_headers: bool = False
    ) -> None:
        properties = common_properties(settings, client_id="k2-reader") | {"group.id": "k2-reader"}
        super().__init__(settings, properties, with_headers=with_headers)
        if starts:
            self.assign(starts)

    def assign(self, starts: Mapping[Key, int]) -> None:
        """Read these partitions too, each from its offset."""
        self._assign(starts)

    def unassign(self, partitions: Iterable[Key]) -> None:
        """Stop reading these partitions."""
        self._unassign(partitions)


class GroupReader(_Client):
    """Reads the partitions that a consumer group gives to this member; calls back, inside of `poll` and `close`.

    `on_assign(partitions)` returns where to start; a partition that it leaves out is held and not read until `seek`.
    `on_revoke(partitions)` is called before they go to another member; `on_lost` when they have gone already.
    A reader with a `member_id` takes the place of the one that had it before, at once; that one gets MemberFencedError.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        group_id: str,
        topics: Sequence[str],
        on_assign: Callable[[Sequence[Key]], Mapping[Key, int]],
        on_revoke: Callable[[Sequence[Key]], None],
        on_lost: Callable[[Sequence[Key]], None] | None = None,
        member_id: str | None = None,
    ) -> None:
        group = _group(settings, group_id, member_id)
        super().__init__(settings, common_properties(settings, client_id="k2-member") | group)
        self._assigned_cb = on_assign
        self._revoked_cb = on_revoke
        self._lost_cb = on_lost or on_revoke
        self._consumer.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def commit_offsets(self, offsets: Mapping[Key, int]) -> None:
        """Tell the group the next offsets, for lag tools only; does not wait, never fails."""
        held = [TopicPartition(*key, offset) for key, offset in offsets.items() if key in self._next]
        if not held:
            return
        try:
            self._consumer.commit(offsets=held, asynchronous=True)
        except KafkaException as error:
            log.debug("offsets_not_committed", reason=str(error))

    def _on_assign(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        keys = [(p.topic, p.partition) for p in partitions]
        try:
            starts = dict(self._assigned_cb(keys))
        except BaseException:
            self._assign({})
            raise
        self._assign(starts)

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._give_up(partitions, self._revoked_cb)

    def _on_lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._give_up(partitions, self._lost_cb)

    def _give_up(self, partitions: list[TopicPartition], callback: Callable[[Sequence[Key]], None]) -> None:
        keys = [(p.topic, p.partition) for p in partitions]
        try:
            callback(keys)
        finally:
            self._unassign(keys)


def _fetch_properties(settings: KafkaSettings) -> Properties:
    return {
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "check.crcs": True,
        "fetch.min.bytes": 1,
        "fetch.wait.max.ms": settings.fetch_wait_ms,
        "fetch.max.bytes": settings.fetch_bytes_max,
        "receive.message.max.bytes": settings.fetch_bytes_max + 512,
        "message.max.bytes": min(settings.message_bytes_max, settings.fetch_bytes_max),
        "max.partition.fetch.bytes": min(settings.partition_fetch_bytes_max, settings.fetch_bytes_max),
        "fetch.error.backoff.ms": _FETCH_RETRY_MS,
        "fetch.queue.backoff.ms": _QUEUE_FULL_PAUSE_MS,
        "queued.min.messages": settings.consumer_queue_messages_min,
        "queued.max.messages.kbytes": min(settings.consumer_queue_bytes_max // 1024, 2_097_151),
    }


def _group(settings: KafkaSettings, group_id: str, member_id: str | None) -> Properties:
    session_ms = int(settings.session_timeout_seconds * 1000)
    return ({"group.instance.id": member_id} if member_id else {}) | {
        "group.id": group_id,
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": session_ms,
        "heartbeat.interval.ms": max(min(session_ms // 4, _HEARTBEAT_MS), 1),
        "max.poll.interval.ms": max(int(settings.poll_interval_seconds_max * 1000), session_ms),
    }


def _epoch(messages: list[Message]) -> int:
    epoch = messages[-1].leader_epoch() if messages else None
    return -1 if epoch is None else epoch
