"""Halted streams that are let go on, on `k2.releases`: people ask, workers hear, and the topic keeps who asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2.common.announcing import ReleaseRequest
from k2.common.errors import RecordError
from k2.common.logging import get_logger
from k2.kafka.request_book import KafkaRequestBook
from k2.kafka.topic_follower import Follows, Message, TopicFollower
from k2.kafka.topics import RELEASES_TOPIC

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.common.clock import Clock
    from k2.kafka.ports import AssignedReader
    from k2.kafka.settings import AnnouncingSettings
    from k2.kafka.topic_follower import LogEnds

log = get_logger(__name__)


class KafkaReleaseBook(KafkaRequestBook[ReleaseRequest]):
    """The releases of one platform."""

    topic = RELEASES_TOPIC
    key = b"release"

    def read(self, value: bytes) -> ReleaseRequest:
        """Read the value of a message; RecordError where it is no request."""
        return ReleaseRequest.from_json(value)


class KafkaReleases(Follows):
    """Hears of releases, those from before its start among them; `start` and `close` are for whoever made it.

    While the log cannot be followed, what it heard stands: a release is never taken back.
    """

    def __init__(
        self,
        *,
        log_ends: LogEnds,
        open_reader: Callable[[], AssignedReader],
        settings: AnnouncingSettings,
        clock: Clock,
    ) -> None:
        self._releases_max = settings.releases_read_max
        self._heard: dict[tuple[str, int, int, int], None] = {}
        self.follower = TopicFollower(
            RELEASES_TOPIC,
            self._take,
            log_ends=log_ends,
            open_reader=open_reader,
            clock=clock,
            pause_seconds=settings.retry_pause_seconds,
            back_max=settings.releases_read_max,
        )

    def is_released(self, table: str, log_id: int, partition: int, since: int) -> bool:
        """Say whether the stream of a partition that is halted since an offset was let go on; any thread may ask."""
        return (table, log_id, partition, since) in self._heard

    def _take(self, message: Message) -> None:
        if message.value is None:
            return
        try:
            asked = ReleaseRequest.from_json(message.value)
        except RecordError as error:
            log.warning("message_unreadable", topic=RELEASES_TOPIC, reason=str(error))
            return
        self._heard[asked.table, asked.log_id, asked.partition, asked.since] = None
        while len(self._heard) > self._releases_max:
            del self._heard[next(iter(self._heard))]
        log.info("stream_released", stream=asked.stream, table=asked.table, by=asked.requested_by, note=asked.note)
