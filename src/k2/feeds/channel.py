"""The way of a feed into the log: topics and schemas made ready, frames sent, the end of the stream marked."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Protocol

import fastavro
import polars as pl

from k2.kafka.serialization import encode_frame
from k2.schemas.arrow import message_polars_schema
from k2.schemas.avro import avro_text
from k2.schemas.status import END_OF_STREAM, STATUS_SCHEMA, status_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from k2.kafka.ports import Producing, Registry
    from k2.kafka.topics import Topic, TopicCatalog

FLUSH_SECONDS = 60.0


class Topics(Protocol):
    """Creates what is missing."""

    def create_topics(self, topics: Iterable[Topic]) -> list[str]:
        """Create missing topics and return their names."""
        ...


class Channel:
    """One exchange's topics, ready to be sent to. The key of a message is its symbol."""

    def __init__(
        self, exchange: str, *, topics: TopicCatalog, admin: Topics, registry: Registry, producer: Producing
    ) -> None:
        self._topics = topics
        self._exchange = exchange
        self._producer = producer
        mine = [topic for topic in topics.all_topics if topic.exchange == exchange]
        admin.create_topics(mine)
        self._schema_ids = {
            data_type: registry.register(self.topic(data_type).subject, text)
            for data_type, text in (("trades", self._text("trades")), ("quotes", self._text("quotes")))
        }
        self._status_id = registry.register(self.topic("status").subject, status_text())
        self._status_schema = fastavro.parse_schema(STATUS_SCHEMA)
        self.sent: dict[str, int] = {"trades": 0, "quotes": 0}

    def _text(self, data_type: str) -> str:
        return avro_text(self._topics.record_type(self.topic(data_type)))

    def topic(self, data_type: str) -> Topic:
        """Return the exchange's topic of one data type."""
        return self._topics.topic(self._exchange, data_type)

    def send(self, data_type: str, rows: pl.DataFrame) -> None:
        """Queue the rows (columns of `message_polars_schema`) in their order; blocks while the log is slow."""
        if rows.is_empty():
            return
        topic = self.topic(data_type)
        record_type = self._topics.record_type(topic)
        rows = rows.select(list(message_polars_schema(record_type)))
        keys = [symbol.encode() for symbol in rows["symbol"].to_list()]
        self._producer.send(topic.name, keys, encode_frame(record_type, rows, self._schema_ids[data_type]))
        self.sent[data_type] += len(rows)

    def flush(self) -> None:
        """Wait until everything sent is acknowledged; UnavailableError if it is not by then."""
        self._producer.flush(FLUSH_SECONDS)

    def mark_end(self, data_type: str, rows: pl.DataFrame) -> None:
        """Send one end-of-stream marker a source and symbol; `rows` are as `ends_of` makes them."""
        values = [self._marker(data_type, row) for row in rows.iter_rows(named=True)]
        keys = [json.dumps([row["source"], row["symbol"], data_type]).encode() for row in rows.iter_rows(named=True)]
        self._producer.send(self.topic("status").name, keys, values)
        self.flush()

    def _marker(self, data_type: str, row: dict[str, object]) -> bytes:
        buffer = io.BytesIO(b"\0" + self._status_id.to_bytes(4, "big"))
        buffer.seek(0, io.SEEK_END)
        marker = {"kind": END_OF_STREAM, "exchange": self._exchange, "data_type": data_type, **row}
        fastavro.schemaless_writer(buffer, self._status_schema, marker)
        return buffer.getvalue()


def ends_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Return what `mark_end` needs, from all rows of one or more sources."""
    return rows.group_by("source", "symbol", maintain_order=True).agg(
        last_sequence=pl.col("sequence").max(),
        last_source_sequence=pl.col("source_sequence").max(),
        records=pl.len().cast(pl.Int64),
    )
