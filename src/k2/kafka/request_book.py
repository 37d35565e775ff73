"""Asks workers for something on a topic, and reads back who asked for what: the topic is the audit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final, Generic, Protocol, TypeVar

from k2.common.errors import RecordError, UnavailableError
from k2.common.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from k2.common.clock import Clock
    from k2.kafka.ports import AssignedReader, Producing
    from k2.kafka.settings import AnnouncingSettings
    from k2.kafka.topic_follower import LogEnds

log = get_logger(__name__)

_MESSAGES: Final = 1_000
_POLL_SECONDS: Final = 0.2


class _Request(Protocol):
    def to_json(self) -> bytes:
        """Return the request as the value of a message."""
        ...


R = TypeVar("R", bound=_Request)


class KafkaRequestBook(ABC, Generic[R]):
    """The requests of one kind on one topic, for people; each call is bounded by `send_seconds_max`."""

    topic: ClassVar[str]
    key: ClassVar[bytes]

    def __init__(
        self,
        *,
        make_producer: Callable[[], Producing],
        log_ends: LogEnds,
        open_reader: Callable[[], AssignedReader],
        settings: AnnouncingSettings,
        clock: Clock,
    ) -> None:
        self._make_producer = make_producer
        self._log_ends = log_ends
        self._open_reader = open_reader
        self._settings = settings
        self._clock = clock

    def ask(self, request: R) -> None:
        """Tell every worker; UnavailableError where the log does not take it in time."""
        producer = self._make_producer()
        try:
            producer.send(self.topic, [self.key], [request.to_json()])
            producer.flush(self._settings.send_seconds_max)
        finally:
            producer.close()

    def asked(self, requests_max: int) -> Sequence[R]:
        """Return the newest requests, oldest first; what is no request is left out, and logged.

        Raises:
            UnavailableError: the log does not give them in time.
        """
        at = (self.topic, 0)
        extent = self._log_ends.ranges(self.topic).get(at)
        start = 0 if extent is None else max(extent.start, extent.end - requests_max)
        if extent is None or start >= extent.end:
            return []
        deadline = self._clock.monotonic() + self._settings.send_seconds_max
        reader, found = self._open_reader(), list[R]()
        try:
            reader.assign({at: start})
            while reader.position(*at) < extent.end:
                for batch in reader.poll(_MESSAGES, _POLL_SECONDS):
                    found += [request for value in batch.values if value is not None and (request := self._read(value))]
                if self._clock.monotonic() > deadline:
                    raise UnavailableError(
                        f"expected all of {self.topic} within {self._settings.send_seconds_max:g} s, found it read "
                        f"up to {reader.position(*at)} of {extent.end}: is the broker up? (`k2 status`)",
                        dependency="kafka",
                    )
        finally:
            reader.close()
        return found

    @abstractmethod
    def read(self, value: bytes) -> R:
        """Read the value of a message; RecordError where it is no request."""

    def _read(self, value: bytes) -> R | None:
        try:
            return self.read(value)
        except RecordError as error:
            log.warning("request_unreadable", topic=self.topic, reason=str(error))
            return None
