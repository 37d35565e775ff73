"""Dead letters: to the dead-letter topic as they came, acknowledged, then to the table of dead letters, once each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

import pyarrow as pa

from k2.common.errors import K2Error, RecordError
from k2.kafka.topics import DEAD_LETTER_SUFFIX
from k2.schemas.arrow import arrow_schema
from k2.schemas.records import DEAD_LETTERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from k2.common.clock import Clock
    from k2.kafka.decoding import BadRecord
    from k2.kafka.ports import Producing

WRITTEN: Final = "written"
KILLED: Final = "KilledTheProcess"
"""Error class of a message that ended the process that decoded it, again and again."""
REASON_CHARACTERS_MAX: Final = 500
VALUE_BYTES_MAX: Final = 512 * 1024
"""Bytes kept of a value that no topic takes; the table of dead letters keeps all."""


class EventTable(Protocol):
    """What keeps the events of dead letters."""

    def append(self, events: pa.Table) -> int:
        """Append the events that are absent; return how many."""
        ...


class DeadLetters:
    """Sends the bad records of a batch on, before the batch is committed."""

    def __init__(
        self, make_producer: Callable[[], Producing], events: EventTable, *, clock: Clock, flush_seconds: float
    ) -> None:
        """Keep what is needed; a producer is made for the first dead letter, and a new one after each failure."""
        self._make_producer = make_producer
        self._producer: Producing | None = None
        self._events = events
        self._clock = clock
        self._flush_seconds = flush_seconds

    def publish(self, topic: str, topic_id: str, records: Sequence[BadRecord]) -> None:
        """Send the original bytes to the topic's dead-letter topic and wait for the broker's word; UnavailableError."""
        try:
            self._producer = self._producer or self._make_producer()
            try:
                self._send(self._producer, topic, topic_id, records)
            except RecordError:
                self._send(self._producer, topic, topic_id, [_shortened(record) for record in records])
            self._producer.flush(self._flush_seconds)
        except K2Error:
            self.close()
            raise

    def close(self) -> None:
        """Give up the producer; what it had not sent is sent again with its batch."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()

    def _send(self, producer: Producing, topic: str, topic_id: str, records: Sequence[BadRecord]) -> None:
        producer.send(
            topic + DEAD_LETTER_SUFFIX,
            [record.key for record in records],
            [record.value for record in records],
            headers=[_headers(topic, topic_id, record) for record in records],
        )

    def record(self, table: str, log_id: int, topic: str, topic_id: str, records: Iterable[BadRecord]) -> None:
        """Append one `written` event a record to the table of dead letters; safe to call again; UnavailableError."""
        recorded_us = self._clock.time_ns() // 1_000
        rows = [
            {
                "event": WRITTEN,
                "ts_recorded": recorded_us,
                "table_name": table,
                "topic": topic,
                "topic_id": topic_id,
                "log_id": log_id,
                "log_partition": record.partition,
                "log_offset": record.offset,
                "ts_log": record.ts_log_ms * 1_000 if record.ts_log_ms >= 0 else None,
                "error_class": record.error_class,
                "reason": record.reason[:REASON_CHARACTERS_MAX],
                "key": record.key,
                "value": record.value,
            }
            for record in records
        ]
        self._events.append(pa.Table.from_pylist(rows, schema=arrow_schema(DEAD_LETTERS)))


def _shortened(record: BadRecord) -> BadRecord:
    if record.value is None or len(record.value) <= VALUE_BYTES_MAX:
        return record
    note = f"; {len(record.value) - VALUE_BYTES_MAX:,} bytes of the value are left out here"
    return replace(
        record, value=record.value[:VALUE_BYTES_MAX], reason=record.reason[: REASON_CHARACTERS_MAX - len(note)] + note
    )


def _headers(topic: str, topic_id: str, record: BadRecord) -> dict[str, bytes]:
    return {
        "k2.topic": topic.encode(),
        "k2.topic_id": topic_id.encode(),
        "k2.partition": str(record.partition).encode(),
        "k2.offset": str(record.offset).encode(),
        "k2.error_class": record.error_class.encode(),
        "k2.reason": record.reason[:REASON_CHARACTERS_MAX].encode(),
    }
