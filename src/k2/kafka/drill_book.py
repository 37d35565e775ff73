"""Asks for drills on `k2.drills`, and reads back who asked for what: the topic is the drills' audit."""

from __future__ import annotations

from k2.common.announcing import DrillRequest
from k2.kafka.request_book import KafkaRequestBook
from k2.kafka.topics import DRILLS_TOPIC


class KafkaDrillBook(KafkaRequestBook[DrillRequest]):
    """The drills of one platform."""

    topic = DRILLS_TOPIC
    key = b"drill"

    def read(self, value: bytes) -> DrillRequest:
        """Read the value of a message; RecordError where it is no request."""
        return DrillRequest.from_json(value)
