"""The way of a feed into the log: topics and schemas made ready, frames sent, the end of the stream marked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from k2.feeds.bad_line_letters import headers_of, value_of
from k2.kafka.serialization import encode_frame, encode_record
from k2.schemas.arrow import message_polars_schema
from k2.schemas.avro import avro_text
from k2.schemas.instruments import INSTRUMENT_SCHEMA, instrument_text
from k2.schemas.status import END_OF_STREAM, HEARTBEAT, STATUS_SCHEMA, status_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from k2.feeds.asx_lines import BadLine
    from k2.kafka.ports import Producing, Registry
    from k2.kafka.topics import Topic, TopicCatalog


class Topics(Protocol):
    """Creates what is missing."""

    def create_topics(self, topics: Iterable[Topic]) -> list[str]:
        """Create missing topics and return their names."""
        ...


class Channel:
    """One exchange's topics, ready to be sent to. The key of a message is its symbol."""

    def __init__(
        self,
        exchange: str,
        *,
        topics: TopicCatalog,
        admin: Topics,
        registry: Registry,
        producer: Producing,
        flush_seconds: float,
        hold_back: Callable[[], None] = lambda: None,
    ) -> None:
        """Make topics and schemas ready; `hold_back` is called before records are sent, and may wait."""
        self._hold_back = hold_back
        self._topics = topics
        self._exchange = exchange
        self._producer = producer
        self._registry = registry
        self._flush_seconds = flush_seconds
        mine = [topic for topic in topics.all_topics if topic.exchange == exchange]
        admin.create_topics(mine)
        self._schema_ids = {
            data_type: registry.register(self.topic(data_type).subject, text)
            for data_type, text in (("trades", self._text("trades")), ("quotes", self._text("quotes")))
        }
        self._sessions: dict[tuple[str, str, str], int] = {}
        self._status_id = registry.register(self.topic("status").subject, status_text())

    def _text(self, data_type: str) -> str:
        return avro_text(self._topics.record_type(self.topic(data_type)))

    def topic(self, data_type: str) -> Topic:
        """Return the exchange's topic of one data type."""
        return self._topics.topic(self._exchange, data_type)

    def send(self, data_type: str, rows: pl.DataFrame) -> None:
        """Queue the rows (columns of `message_polars_schema`) in their order; blocks while the log is slow."""
        if rows.is_empty():
            return
        self._hold_back()
        topic = self.topic(data_type)
        record_type = self._topics.record_type(topic)
        self._note_sessions(data_type, rows)
        rows = rows.select(list(message_polars_schema(record_type)))
        keys = [symbol.encode() for symbol in rows["symbol"].to_list()]
        self._producer.send(topic.name, keys, encode_frame(record_type, rows, self._schema_ids[data_type]))

    def send_bad_lines(self, data_type: str, symbol: str, source: str, bad: Sequence[BadLine]) -> None:
        """Queue bad lines for the dead-letter topic of a data type, each as it came."""
        topic = self.topic(data_type)
        self._producer.send(
            topic.dead_letter_name,
            [symbol.encode()] * len(bad),
            [value_of(entry) for entry in bad],
            headers=[headers_of(topic.name, source, entry) for entry in bad],
        )

    def send_instruments(self, records: Mapping[bytes, Mapping[str, Any]]) -> None:
        """Send reference data by its keys, and wait until it is acknowledged."""
        if not records:
            return
        topic = self.topic("instruments")
        schema_id = self._registry.register(topic.subject, instrument_text())
        values = [encode_record(INSTRUMENT_SCHEMA, record, schema_id) for record in records.values()]
        self._producer.send(topic.name, list(records), values)
        self.flush()

    def flush(self) -> None:
        """Wait until everything sent is acknowledged; UnavailableError if it is not by then."""
        self._producer.flush(self._flush_seconds)

    def mark_end(self, data_type: str, rows: pl.DataFrame) -> None:
        """Send one end-of-stream marker a source and symbol.

        `rows` say how far each came: source, symbol, last_sequence, last_source_sequence, records.
        """
        self._mark(END_OF_STREAM, data_type, rows, end_key)

    def mark_alive(self, data_type: str, rows: pl.DataFrame) -> None:
        """Send one heartbeat a source and symbol: how far each has come until now, as in `mark_end`."""
        self._mark(HEARTBEAT, data_type, rows, _heartbeat_key)

    def _mark(self, kind: str, data_type: str, rows: pl.DataFrame, key_of: Callable[[str, str, str], bytes]) -> None:
        self.flush()  # what a marker speaks of is in the log before it
        values = [self._marker(kind, data_type, row) for row in rows.iter_rows(named=True)]
        keys = [key_of(row["source"], row["symbol"], data_type) for row in rows.iter_rows(named=True)]
        self._producer.send(self.topic("status").name, keys, values)
        self.flush()

    def _note_sessions(self, data_type: str, rows: pl.DataFrame) -> None:
        """Remember the newest session of each symbol: its numbers mean nothing without it."""
        newest = rows.group_by("source", "symbol").agg(pl.col("trading_date").max().to_physical())
        for source, symbol, day in newest.iter_rows():
            key = data_type, source, symbol
            self._sessions[key] = max(day, self._sessions.get(key, day))

    def _marker(self, kind: str, data_type: str, row: Mapping[str, Any]) -> bytes:
        day = self._sessions.get((data_type, row["source"], row["symbol"]))
        marker = {"kind": kind, "exchange": self._exchange, "data_type": data_type, "trading_date": day, **row}
        return encode_record(STATUS_SCHEMA, marker, self._status_id)


def end_key(source: str, symbol: str, data_type: str) -> bytes:
    """Return the key of an end-of-stream marker."""
    return json.dumps([source, symbol, data_type]).encode()


def _heartbeat_key(source: str, symbol: str, data_type: str) -> bytes:
    return json.dumps([source, symbol, data_type, "alive"]).encode()
