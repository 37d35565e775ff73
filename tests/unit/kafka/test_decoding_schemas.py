"""Older, newer and foreign schemas: what they give, and what a registry in trouble does to a batch."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal

import pytest

from k2.common.errors import ConfigurationError, UnavailableError
from k2.kafka.decoding import Decoder
from k2.kafka.registry import CachedSchemas
from k2.schemas.arrow import polars_schema
from k2.schemas.avro import avro_schema, avro_text
from k2.schemas.records import QUOTES, TRADES
from k2.testing.fake_log import FakeRegistry
from k2.testing.messages import SCHEMA_ID, batch_of, encode, trade


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry({SCHEMA_ID: avro_text(TRADES), 8: avro_text(QUOTES)})


@pytest.fixture
def decoder(registry) -> Decoder:
    return Decoder(TRADES, registry)


def decode(decoder, *values, **kwargs):
    return decoder.decode(batch_of(values, **kwargs), log_id=3)


def with_fields(record_type, *fields):
    schema = avro_schema(record_type)
    return schema | {"fields": [*schema["fields"], *fields]}


def without_field(record_type, name):
    schema = avro_schema(record_type)
    return schema | {"fields": [field for field in schema["fields"] if field["name"] != name]}


def test_two_schemas_in_one_batch_keep_the_order_of_the_log(registry, decoder) -> None:
    newer = with_fields(TRADES, {"name": "venue", "type": "string", "default": ""})
    registry.schemas[9] = json.dumps(newer)
    old = [encode(trade(sequence=at)) for at in range(0, 20, 2)]
    new = [encode(trade(sequence=at, venue="x"), newer, schema_id=9) for at in range(1, 20, 2)]
    values = [value for pair in zip(old, new, strict=True) for value in pair]

    rows = decode(decoder, *values).rows

    assert rows["sequence"].to_list() == rows["log_offset"].to_list() == list(range(20))
    assert "venue" not in rows.columns


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("string", "x"),
        (["null", "string"], None),
        ({"type": "map", "values": "long"}, {"a": 1}),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B"),
        (["null", {"type": "enum", "name": "E", "symbols": ["A", "B"]}], "B"),
        (["null", "string", "long"], 5),
        ({"type": "record", "name": "R", "fields": [{"name": "a", "type": "double"}]}, {"a": 1.5}),
        ({"type": "fixed", "name": "F", "size": 3}, b"abc"),
        ({"type": "array", "items": {"type": "array", "items": "int"}}, [[1, 2], []]),
        ("boolean", True),
        (["boolean", "null"], True),
        ("float", 1.5),
        (["null", "double"], 2.5),
        (["null", "bytes"], b"x"),
        ({"type": "long", "logicalType": "timestamp-micros"}, dt.datetime(2020, 1, 1, tzinfo=dt.UTC)),
        ({"type": "bytes", "logicalType": "decimal", "precision": 60, "scale": 2}, Decimal("1.25")),
    ],
)
def test_a_field_that_k2_does_not_know_is_left_out_whatever_its_type(registry, decoder, kind, value) -> None:
    newer = with_fields(TRADES, {"name": "news", "type": kind})
    registry.schemas[9] = json.dumps(newer)
    values = [encode(trade(sequence=at, news=value), newer, schema_id=9) for at in range(3)]

    decoded = decode(decoder, *values, values[0] + b"x", values[0][:-1])

    assert [bad.error_class for bad in decoded.bad] == ["Undecodable"] * 2
    assert decoded.rows["sequence"].to_list() == [0, 1, 2]
    assert decoded.rows["price"].to_list() == [Decimal("36.45")] * 3


@pytest.mark.parametrize(("name", "default"), [("channel", None), ("conditions", [])])
def test_an_older_writer_without_a_field_gets_its_default(registry, decoder, name, default) -> None:
    older = without_field(TRADES, name)
    registry.schemas[9] = json.dumps(older)

    rows = decode(decoder, encode(trade(), older, schema_id=9), encode(trade())).rows

    assert rows[name].to_list()[0] == default
    assert rows.schema[name] == polars_schema(TRADES)[name]


def changed(name, kind):
    schema = avro_schema(TRADES)
    return schema | {"fields": [f | {"type": kind} if f["name"] == name else f for f in schema["fields"]]}


@pytest.mark.parametrize(
    "text",
    [
        avro_text(QUOTES),
        json.dumps(without_field(TRADES, "symbol")),
        json.dumps(changed("price", {"type": "bytes", "logicalType": "decimal", "precision": 28, "scale": 2})),
        json.dumps(changed("ts_event_ns", {"type": "long", "logicalType": "timestamp-micros"})),
        json.dumps(changed("trading_date", "int")),
        json.dumps("string"),
        json.dumps({"type": "record", "name": "Empty", "fields": []}),
        "syntax = proto3",
        json.dumps(with_fields(TRADES, {"name": "n", "type": {"type": "array", "items": "null"}})),
        json.dumps(with_fields(TRADES, {"name": "n", "type": ["null", "Trade"]})),
    ],
)
def test_a_schema_of_something_else_makes_every_message_a_bad_record(registry, decoder, text) -> None:
    registry.schemas[9] = text

    decoded = decode(decoder, encode(trade()), encode(trade(), schema_id=9))

    assert [(bad.offset, bad.error_class) for bad in decoded.bad] == [(1, "SchemaMismatch")]
    assert "expected an Avro schema" in decoded.bad[0].reason


def test_a_price_that_may_be_null_is_refused_where_it_is(registry, decoder) -> None:
    price = next(field["type"] for field in avro_schema(TRADES)["fields"] if field["name"] == "price")
    nullable = changed("price", ["null", price])
    registry.schemas[9] = json.dumps(nullable)

    decoded = decode(decoder, encode(trade(), nullable, schema_id=9), encode(trade(price=None), nullable, schema_id=9))

    assert [(bad.offset, bad.error_class) for bad in decoded.bad] == [(1, "NullValue")]


def test_a_registry_that_is_down_is_a_pause_and_no_bad_record(registry, decoder) -> None:
    registry.is_up = False

    with pytest.raises(UnavailableError):
        decode(decoder, encode(trade()))
    registry.is_up = True

    assert len(decode(decoder, encode(trade())).rows) == 1


def test_a_known_schema_is_read_while_the_registry_is_down(registry) -> None:
    registry.is_up = False
    decoder = Decoder(TRADES, CachedSchemas(registry, {SCHEMA_ID: avro_text(TRADES)}, entries_max=100))

    assert len(decode(decoder, encode(trade())).rows) == 1


def test_a_schema_is_asked_for_once(registry, decoder) -> None:
    for _ in range(3):
        decode(decoder, encode(trade()), encode(trade()))

    assert registry.asked == [SCHEMA_ID]


def test_many_unknown_schema_ids_stop_instead_of_being_dead_lettered(decoder) -> None:
    values = [encode(trade(), schema_id=99 if at < 6 else SCHEMA_ID) for at in range(100)]

    with pytest.raises(ConfigurationError, match=r"found 6 of 100 .* 99 among them: .*UNKNOWN_SCHEMAS_RATIO_MAX"):
        decode(decoder, *values)


def test_many_schemas_of_other_records_stop_too_as_another_registry_would_give_them(registry, decoder) -> None:
    registry.schemas[99] = avro_text(QUOTES)
    values = [encode(trade(), schema_id=99 if at < 6 else SCHEMA_ID) for at in range(100)]

    with pytest.raises(ConfigurationError, match="other records"):
        decode(decoder, *values)


def test_few_unknown_schema_ids_are_bad_records(decoder) -> None:
    values = [encode(trade(), schema_id=99 if at < 5 else SCHEMA_ID) for at in range(100)]

    decoded = decode(decoder, *values)

    assert {bad.error_class for bad in decoded.bad} == {"UnknownSchema"}
    assert (len(decoded.bad), len(decoded.rows)) == (5, 95)


def test_a_small_batch_says_nothing_of_the_registry(decoder) -> None:
    decoded = decode(decoder, *[encode(trade(), schema_id=99)] * 99)

    assert len(decoded.bad) == 99
