"""The one definition of each record: names, types, nullability, origin and Iceberg field ids."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

PRICE_PRECISION: Final = 28
PRICE_SCALE: Final = 12
QUANTITY_PRECISION: Final = 28
QUANTITY_SCALE: Final = 10


class FieldType(Enum):
    """The types that a column can have; each maps to exactly one Avro, Arrow and Iceberg type."""

    STRING = "string"
    STRINGS = "strings"
    INT = "int"
    LONG = "long"
    DATE = "date"
    TIMESTAMP = "timestamp"
    PRICE = "price"
    QUANTITY = "quantity"
    BINARY = "binary"


class Origin(Enum):
    """Who knows a column's value."""

    MESSAGE = "message"
    """The producer: the value travels in the Avro message."""
    LOG = "log"
    """The log: the coordinate and the broker's time."""
    DERIVED = "derived"
    """A function of the message, stored for pruning."""
    COMMIT = "commit"
    """The commit that stored the row."""


@dataclass(frozen=True, slots=True)
class Field:
    """One column. `field_id` is Iceberg's and is never reused; `element_id` is that of a list's element."""

    name: str
    type: FieldType
    field_id: int
    doc: str
    nullable: bool = False
    origin: Origin = Origin.MESSAGE
    element_id: int | None = None


@dataclass(frozen=True, slots=True)
class RecordType:
    """One kind of record: its table is `market.<name>`, its topics `market.<asset class>.<name>.<exchange>`."""

    name: str
    fields: tuple[Field, ...]

    @property
    def avro_name(self) -> str:
        """Name of the Avro record, in the singular: `Trade`, `Quote`."""
        return self.name.removesuffix("s").capitalize()

    @property
    def message_fields(self) -> tuple[Field, ...]:
        """Fields that travel in the message, in the order of the wire."""
        return tuple(field for field in self.fields if field.origin is Origin.MESSAGE)

    def field(self, name: str) -> Field:
        """Return the field called `name`; KeyError if there is none."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)


class Action:
    """What a record does to its original."""

    NEW: Final = "NEW"
    CANCEL: Final = "CANCEL"
    CORRECT: Final = "CORRECT"


class WrittenBy:
    """The path by which a row came into the table."""

    INGEST: Final = "ingest"
    BACKFILL: Final = "backfill"
    REPLAY: Final = "replay"


ORDER: Final = ("ts_event_ns", "log_id", "log_partition", "log_offset")
"""Order of rows in every answer."""

_IDENTITY: Final = (
    Field("exchange", FieldType.STRING, 1, "Exchange, as in config/topics.yaml"),
    Field("symbol", FieldType.STRING, 2, "The venue's symbol, verbatim; also the message key"),
    Field("ts_event_ns", FieldType.LONG, 3, "When it happened at the venue, UTC nanoseconds"),
    Field("ts_recv_ns", FieldType.LONG, 4, "When the feed received it, UTC nanoseconds"),
    Field("trading_date", FieldType.DATE, 5, "Session date in the exchange's calendar"),
    Field("action", FieldType.STRING, 6, "NEW, CANCEL or CORRECT"),
    Field("source", FieldType.STRING, 7, "Feed and session: a file's SHA-256 or a feed run"),
    Field("source_sequence", FieldType.LONG, 8, "Counter of the source; imports resume by it"),
    Field("channel", FieldType.STRING, 9, "The venue's channel", nullable=True),
    Field("sequence", FieldType.LONG, 10, "The venue's number, in the scope that the exchange declares", nullable=True),
    Field("sub_index", FieldType.INT, 11, "Position among messages that share a sequence", nullable=True),
)

_TRADE: Final = (
    Field("trade_id", FieldType.STRING, 30, "The venue's trade id", nullable=True),
    Field("ref_trade_id", FieldType.STRING, 31, "The trade that a CANCEL or CORRECT refers to", nullable=True),
    Field("price", FieldType.PRICE, 32, "Price, exact; zero and negative are legal"),
    Field("quantity", FieldType.QUANTITY, 33, "Quantity, exact"),
    Field("side", FieldType.STRING, 34, "Aggressor side: BUY, SELL or null", nullable=True),
    Field("conditions", FieldType.STRINGS, 35, "The venue's condition codes, in its order", element_id=36),
)

_QUOTE: Final = (
    Field("bid_price", FieldType.PRICE, 50, "Best bid; null when the side is empty", nullable=True),
    Field("bid_size", FieldType.QUANTITY, 51, "Quantity at the best bid; null when the side is empty", nullable=True),
    Field("ask_price", FieldType.PRICE, 52, "Best ask; null when the side is empty", nullable=True),
    Field("ask_size", FieldType.QUANTITY, 53, "Quantity at the best ask; null when the side is empty", nullable=True),
    Field("conditions", FieldType.STRINGS, 35, "The venue's condition codes, in its order", element_id=36),
)

_EXTRA: Final = (
    Field("extra", FieldType.STRING, 20, "What else the venue sent: one JSON object, as it came", nullable=True),
)

_COORDINATE: Final = (
    Field(
        "ts_event", FieldType.TIMESTAMP, 100, "ts_event_ns in microseconds, for partitions and pruning",
        origin=Origin.DERIVED,
    ),
    Field("log_id", FieldType.INT, 101, "Index into the table's registered logs", origin=Origin.LOG),
    Field("log_partition", FieldType.INT, 102, "Kafka partition", origin=Origin.LOG),
    Field("log_offset", FieldType.LONG, 103, "Kafka offset", origin=Origin.LOG),
    Field("ts_log", FieldType.TIMESTAMP, 104, "When the broker appended it, in milliseconds", origin=Origin.LOG),
    Field("commit_sequence", FieldType.LONG, 105, "Number of the commit that stored the row", origin=Origin.COMMIT),
    Field("written_by", FieldType.STRING, 106, "ingest, backfill or replay", origin=Origin.COMMIT),
)  # fmt: skip

TRADES: Final = RecordType("trades", (*_IDENTITY, *_TRADE, *_EXTRA, *_COORDINATE))
QUOTES: Final = RecordType("quotes", (*_IDENTITY, *_QUOTE, *_EXTRA, *_COORDINATE))

RECORD_TYPES: Final = {record_type.name: record_type for record_type in (TRADES, QUOTES)}
"""The record types that have a table of their own, by name."""

DEAD_LETTERS: Final = RecordType(
    "dead_letters",
    (
        Field("event", FieldType.STRING, 1, "written or replayed"),
        Field("ts_recorded", FieldType.TIMESTAMP, 2, "When K2 recorded the event"),
        Field("table_name", FieldType.STRING, 3, "The table that the record was meant for"),
        Field("topic", FieldType.STRING, 4, "Topic of the record"),
        Field("topic_id", FieldType.STRING, 5, "Kafka's id of the topic"),
        Field("log_id", FieldType.INT, 6, "Index into the registered logs of `table_name`"),
        Field("log_partition", FieldType.INT, 7, "Kafka partition"),
        Field("log_offset", FieldType.LONG, 8, "Kafka offset"),
        Field("ts_log", FieldType.TIMESTAMP, 9, "When the broker appended it", nullable=True),
        Field("error_class", FieldType.STRING, 10, "Kind of the defect"),
        Field("reason", FieldType.STRING, 11, "What was expected and what was found"),
        Field("key", FieldType.BINARY, 12, "The message's key, as it came", nullable=True),
        Field("value", FieldType.BINARY, 13, "The message's bytes, as they came", nullable=True),
    ),
)
"""Event table of the records that could not become rows; one `written` event a coordinate."""

GAPS: Final = RecordType(
    "gaps",
    (
        Field("event", FieldType.STRING, 1, "opened, filled or lost"),
        Field("ts_recorded", FieldType.TIMESTAMP, 2, "When K2 recorded the event"),
        Field("data_type", FieldType.STRING, 3, "The table whose numbers are missing"),
        Field("exchange", FieldType.STRING, 4, "Exchange, as in config/topics.yaml"),
        Field("symbol", FieldType.STRING, 5, "The symbol, where the venue numbers per symbol", nullable=True),
        Field("channel", FieldType.STRING, 6, "The channel, where the venue numbers per channel", nullable=True),
        Field("trading_date", FieldType.DATE, 7, "Session date of the last record before the gap", nullable=True),
        Field("trading_date_to", FieldType.DATE, 8, "Session date of the record that showed it", nullable=True),
        Field("topic", FieldType.STRING, 9, "Topic of the record that showed the gap"),
        Field("topic_id", FieldType.STRING, 10, "Kafka's id of the topic"),
        Field("log_id", FieldType.INT, 11, "Index into the registered logs of `data_type`"),
        Field("log_partition", FieldType.INT, 12, "Kafka partition"),
        Field("log_offset", FieldType.LONG, 13, "Kafka offset of the record that showed the gap"),
        Field("ts_log", FieldType.TIMESTAMP, 14, "When the broker had appended that record"),
        Field("gap_first", FieldType.LONG, 15, "First number of the gap as it was opened"),
        Field("gap_last", FieldType.LONG, 16, "Last number of the gap as it was opened"),
        Field("first_missing", FieldType.LONG, 17, "First number that this event is about"),
        Field("last_missing", FieldType.LONG, 18, "Last number that this event is about"),
        Field("event_offset", FieldType.LONG, 19, "Kafka offset of the record that filled; else as log_offset"),
        Field("ts_event_log", FieldType.TIMESTAMP, 20, "When the broker had appended that record"),
        Field("from_ns", FieldType.LONG, 21, "Event time of the last record before the gap"),
        Field("to_ns", FieldType.LONG, 22, "Event time of the record that showed the gap"),
        Field("decided_offset", FieldType.LONG, 23, "Kafka offset up to which the log was known when it was decided"),
        Field(
            "commit_sequence",
            FieldType.LONG,
            24,
            "Number of the commit that replayed the record that filled",
            nullable=True,
        ),
    ),
)
"""Event table of the numbers that did not come; a gap is known by topic id, partition, log_offset and gap_first."""
