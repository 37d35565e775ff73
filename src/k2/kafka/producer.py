"""Appends messages to the log: in order per key, each exactly once, never more in memory than allowed."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from k2.common.clock import SystemClock
from k2.common.errors import K2Error, OverloadedError, RecordError, UnavailableError
from k2.kafka.client_config import common_properties
from k2.kafka.errors import DEPENDENCY, translate
from k2.kafka.ports import NotYetAcknowledgedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from confluent_kafka import Message

    from k2.common.clock import Clock
    from k2.kafka.settings import KafkaSettings

_CHUNK: Final = 10_000
_POLL_SECONDS: Final = 0.05
_LIBRARY_QUEUE_KBYTES: Final = 2_097_151
_MURMUR_SEED: Final = 0x9747B28C
_MURMUR_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF


class LogProducer:
    """An idempotent producer.

    A message that cannot be delivered takes all that waits behind it along, since to go on would leave a gap. The error
    says so to whoever sends or flushes; the next `send` begins anew, with what the caller decides to send again. Of
    what was not acknowledged, the log may hold some.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        on_delivery: Callable[[str, int, int], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._on_delivery = on_delivery
        self._failure: K2Error | None = None
        self._sent = 0
        self._failed = 0
        self._outstanding: deque[tuple[int, int]] = deque()
        """Messages and bytes of the chunks that may not be acknowledged yet, oldest first."""
        self._earlier = 0
        """Messages acknowledged before the last new beginning."""
        self._producer = self._new_producer()

    def send(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        *,
        headers: Sequence[Mapping[str, bytes]] | None = None,
    ) -> None:
        """Queue the messages in their order; blocks while too much is unacknowledged.

        Raises:
            RecordError: a message is larger than `message_bytes_max`; none of the call's messages is sent.
            UnavailableError: a message could not be delivered, or nothing moves for `delivery_timeout_seconds`.
        """
        if self._failure is not None:
            self._begin_anew()
        self._check_sizes(topic, values)
        for start in range(0, len(values), self._chunk):
            part = slice(start, start + self._chunk)
            self._wait_for_room(len(values[part]), sum(map(len, filter(None, values[part]))))
            if headers is None:
                self._queue_batch(topic, keys[part], values[part])
            else:
                self._queue_singly(topic, keys[part], values[part], headers[part])
        self._serve(self._producer.poll, 0)

    def flush(self, timeout_seconds: float) -> None:
        """Wait until everything is acknowledged; NotYetAcknowledgedError if it is not by then."""
        left = self._serve(self._producer.flush, timeout_seconds)
        if left:
            waiting = min(left, self._sent - self._failed)  # the library counts its own events, too
            raise NotYetAcknowledgedError(
                f"{waiting} messages are not acknowledged by {self._settings.bootstrap_servers} after "
                f"{timeout_seconds} s; is the broker up? (`k2 status`)",
                dependency=DEPENDENCY,
            )

    @property
    def acknowledged(self) -> int:
        """Messages that the log has accepted: exact after a flush, else at least so many."""
        return self._earlier + max(self._sent - self._failed - len(self._producer), 0)

    def close(self) -> None:
        """Give up all connections; what was not flushed is lost."""
        self._producer.purge()
        with contextlib.suppress(KafkaException, SystemError):  # what has failed was reported before
            self._producer.flush(self._settings.request_timeout_seconds)

    @property
    def _chunk(self) -> int:
        return min(_CHUNK, self._settings.producer_queue_messages_max)

    def _new_producer(self) -> Producer:
        return Producer(_properties(self._settings, every_delivery=self._on_delivery is not None))

    def _begin_anew(self) -> None:
        self._earlier = self.acknowledged
        self._sent = self._failed = 0
        self._outstanding.clear()
        self._failure = None
        self._producer = self._new_producer()

    def _check_sizes(self, topic: str, values: Sequence[bytes | None]) -> None:
        largest = max(map(len, filter(None, values)), default=0)
        if largest > self._settings.message_bytes_max:
            raise RecordError(
                f"expected messages of at most {self._settings.message_bytes_max} bytes for {topic}, found one of "
                f"{largest}; K2_KAFKA__MESSAGE_BYTES_MAX and the topic's max.message.bytes are the limits"
            )

    def _wait_for_room(self, messages: int, size: int) -> None:
        deadline = self._clock.monotonic() + self._settings.delivery_timeout_seconds
        while not self._has_room(messages, size):
            self._serve(self._producer.poll, _POLL_SECONDS)
            if self._clock.monotonic() > deadline:
                raise OverloadedError(
                    f"{len(self._producer)} messages wait for {self._settings.bootstrap_servers}, and none was "
                    f"acknowledged in {self._settings.delivery_timeout_seconds} s; is the broker up? (`k2 status`)",
                    dependency=DEPENDENCY,
                )
        self._outstanding.append((messages, size))

    def _has_room(self, messages: int, size: int) -> bool:
        waiting = len(self._producer)
        newer = sum(count for count, _ in self._outstanding)
        while self._outstanding and newer - self._outstanding[0][0] >= waiting:
            newer -= self._outstanding.popleft()[0]
        held = sum(chunk_bytes for _, chunk_bytes in self._outstanding)
        return waiting == 0 or (
            waiting + messages <= self._settings.producer_queue_messages_max
            and held + size <= self._settings.producer_queue_bytes_max
        )

    def _queue_batch(self, topic: str, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> None:
        messages = [{"key": key, "value": value} for key, value in zip(keys, values, strict=True)]
        try:
            queued = self._producer.produce_batch(topic, messages, on_delivery=self._on_report)
        except (KafkaException, BufferError) as error:
            raise self._refused(topic, error) from error
        self._sent += queued
        if queued != len(messages):
            raise self._refused(topic, next(message["_error"] for message in messages if "_error" in message))

    def _queue_singly(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Mapping[str, bytes]],
    ) -> None:
        for key, value, header in zip(keys, values, headers, strict=True):
            try:
                self._producer.produce(
                    topic, key=key, value=value, headers=list(header.items()), on_delivery=self._on_report
                )
            except (KafkaException, BufferError) as error:
                raise self._refused(topic, error) from error
            self._sent += 1

    def _serve(self, call: Callable[[float], int], seconds: float) -> int:
        """Let the library report what happened, and raise what it reported."""
        count = 0
        try:
            count = call(seconds)
        except KafkaException as error:
            self._failure = self._failure or _fatal(error)
        except SystemError as error:
            # confluent raises a fatal error inside of its callbacks; another one after it makes CPython wrap or lose it
            self._failure = self._failure or self._learn_fatal(error)
        if self._failure is not None:
            raise self._failure
        return count

    def _learn_fatal(self, error: SystemError) -> K2Error:
        """Return what ended the producer: the error's cause, or else what the message's own report says."""
        if isinstance(error.__cause__, KafkaException):
            return _fatal(error.__cause__)
        with contextlib.suppress(KafkaException, SystemError):
            self._producer.flush(self._settings.request_timeout_seconds)
        return self._failure or UnavailableError(
            f"writing to {self._settings.bootstrap_servers}: the client ended ({error}); send again what was not "
            "acknowledged",
            dependency=DEPENDENCY,
        )

    def _refused(self, topic: str, error: Any) -> K2Error:
        if isinstance(error, BufferError):
            return OverloadedError(f"writing to {topic}: the producer's queue is full", dependency=DEPENDENCY)
        return translate(error, f"writing to {topic}")

    def _on_report(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            if self._on_delivery is not None:
                self._on_delivery(str(message.topic()), message.partition() or 0, message.offset() or 0)
            return
        self._failed += 1
        if self._failure is None:
            self._failure = translate(error, f"writing to {message.topic()}")


def _fatal(error: KafkaException) -> K2Error:
    """Return the error of K2 for one that ended the producer; a message that is too large is one of them."""
    reason = error.args[0]
    too_large = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
    return translate(too_large if too_large.str() in reason.str() else reason, f"writing: {reason.str()}")


def partition_for(key: bytes, partitions: int) -> int:
    """Return the partition of a key: murmur2, as in Java's default partitioner and librdkafka's `murmur2_random`."""
    return (_murmur2(key) & 0x7FFFFFFF) % partitions


def _murmur2(data: bytes) -> int:
    """Hash `data` as Kafka's org.apache.kafka.common.utils.Utils.murmur2 does; unsigned 32 bits."""
    value = _MURMUR_SEED ^ len(data)
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _MURMUR_M & _MASK
        word = (word ^ word >> 24) * _MURMUR_M & _MASK
        value = value * _MURMUR_M & _MASK ^ word
    if whole < len(data):
        value = (value ^ int.from_bytes(data[whole:], "little")) * _MURMUR_M & _MASK
    value = (value ^ value >> 13) * _MURMUR_M & _MASK
    return value ^ value >> 15


def _ignore(_error: KafkaError) -> None:
    return None


def _properties(settings: KafkaSettings, *, every_delivery: bool) -> dict[str, Any]:
    return common_properties(settings, client_id="k2-producer") | {
        "logger": None,  # called while a fatal error is raised, it would swallow it
        "log_level": 0,
        "error_cb": _ignore,  # a fatal error is raised all the same; the others pass by themselves
        "enable.idempotence": True,
        "enable.gapless.guarantee": True,
        "acks": "all",
        "partitioner": "murmur2_random",
        "compression.type": "lz4",
        "linger.ms": settings.producer_linger_ms,
        "batch.size": settings.producer_batch_bytes_max,
        "message.max.bytes": settings.message_bytes_max,
        "message.timeout.ms": int(settings.delivery_timeout_seconds * 1000),
        "delivery.report.only.error": not every_delivery,
        "queue.buffering.max.messages": settings.producer_queue_messages_max + _CHUNK,
        "queue.buffering.max.kbytes": _LIBRARY_QUEUE_KBYTES,
    }
