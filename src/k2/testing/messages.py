"""Builds Avro messages and consumed batches for tests, by plain fastavro and not by the code under test."""

from __future__ import annotations

import datetime as dt
import io
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import fastavro

from k2.kafka.batches import LogBatch
from k2.schemas.avro import avro_schema
from k2.schemas.records import QUOTES, TRADES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from k2.schemas.avro import AvroSchema

SCHEMA_ID: Final = 7
TOPIC: Final = "market.equities.trades.asx"
EVENT_NS: Final = 1_394_494_200_000_000_000
"""2014-03-10 23:30 UTC, a Tuesday morning in Sydney."""
LOG_MS: Final = 1_800_000_000_000

_COMMON: Final[dict[str, Any]] = {
    "exchange": "asx",
    "symbol": "BHP",
    "ts_event_ns": EVENT_NS,
    "ts_recv_ns": EVENT_NS + 1_000,
    "trading_date": dt.date(2014, 3, 11),
    "action": "NEW",
    "source": "0" * 64,
    "source_sequence": 1,
    "channel": None,
    "sequence": 1,
    "sub_index": None,
    "conditions": [],
    "extra": None,
}
_TRADE: Final[dict[str, Any]] = {
    "trade_id": None,
    "ref_trade_id": None,
    "price": Decimal("36.45"),
    "quantity": Decimal(100),
    "side": None,
}
_QUOTE: Final[dict[str, Any]] = {
    "bid_price": Decimal("36.44"),
    "bid_size": Decimal(100),
    "ask_price": None,
    "ask_size": None,
}


def trade(**changes: Any) -> dict[str, Any]:
    """Return the fields of a trade message, with some of them changed."""
    return _COMMON | _TRADE | changes


def quote(**changes: Any) -> dict[str, Any]:
    """Return the fields of a quote message, with some of them changed."""
    return _COMMON | _QUOTE | changes


def encode(record: Mapping[str, Any], schema: AvroSchema | None = None, *, schema_id: int = SCHEMA_ID) -> bytes:
    """Return the record in the Confluent wire format; the schema is K2's own of a trade or a quote if none is given."""
    own = QUOTES if "bid_price" in record else TRADES
    target = io.BytesIO()
    target.write(b"\0" + schema_id.to_bytes(4, "big"))
    fastavro.schemaless_writer(target, fastavro.parse_schema(schema or avro_schema(own)), dict(record))
    return target.getvalue()


def batch_of(
    values: Sequence[bytes | None],
    *,
    keys: Sequence[bytes | None] | None = None,
    topic: str = TOPIC,
    partition: int = 0,
    start: int = 0,
    ts_log_ms: int = LOG_MS,
) -> LogBatch:
    """Return consumed messages at consecutive offsets, with the key BHP unless keys are given."""
    count = len(values)
    return LogBatch(
        topic=topic,
        partition=partition,
        offsets=list(range(start, start + count)),
        ts_log_ms=[ts_log_ms] * count,
        keys=list(keys) if keys is not None else [b"BHP"] * count,
        values=list(values),
        next_offset=start + count,
        leader_epoch=0,
    )
