"""Asks for drills on `k2.drills`, and reads back who asked for what: the topic is the drills' audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from k2.common.announcing import DrillRequest
from k2.common.errors import RecordError, UnavailableError
from k2.common.logging import get_logger
from k2.kafka.topics import DRILLS_TOPIC

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from k2.common.clock import Clock
    from k2.kafka.ports import AssignedReader, Producing
    from k2.kafka.settings import AnnouncingSettings
    from k2.kafka.topic_follower import LogEnds

log = get_logger(__name__)

_AT: Final = (DRILLS_TOPIC, 0)
_KEY: Final = b"drill"
_MESSAGES: Final = 1_000
_POLL_SECONDS: Final = 0.2


class KafkaDrillBook:
    """The drills of one platform, for people; each call is bounded by `send_seconds_max`."""

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

    def ask(self, request: DrillRequest) -> None:
        """Tell every worker; UnavailableError where the log does not take it in time."""
        producer = self._make_producer()
        try:
            producer.send(DRILLS_TOPIC, [_KEY], [request.to_json()])
            producer.flush(self._settings.send_seconds_max)
        finally:
            producer.close()

    def asked(self, requests_max: int) -> Sequence[DrillRequest]:
        """Return the newest requests, oldest first; what is no request is left out, and logged.

        Raises:
            UnavailableError: the log does not give them in time.
        """
        extent = self._log_ends.ranges(DRILLS_TOPIC).get(_AT)
        start = 0 if extent is None else max(extent.start, extent.end - requests_max)
        if extent is None or start >= extent.end:
            return []
        deadline = self._clock.monotonic() + self._settings.send_seconds_max
        reader, found = self._open_reader(), list[DrillRequest]()
        try:
            reader.assign({_AT: start})
            while reader.position(*_AT) < extent.end:
                for batch in reader.poll(_MESSAGES, _POLL_SECONDS):
                    found += [request for value in batch.values if value is not None and (request := _read(value))]
                if self._clock.monotonic() > deadline:
                    raise UnavailableError(
                        f"expected all of {DRILLS_TOPIC} within {self._settings.send_seconds_max:g} s, found it read "
                        f"up to {reader.position(*_AT)} of {extent.end}: is the broker up? (`k2 status`)",
                        dependency="kafka",
                    )
        finally:
            reader.close()
        return found


def _read(value: bytes) -> DrillRequest | None:
    try:
        return DrillRequest.from_json(value)
    except RecordError as error:
        log.warning("drill_unreadable", reason=str(error))
        return None
