"""What fastavro reads of an encoded row is the row, exactly; nothing inexact passes."""

from __future__ import annotations

import datetime as dt
import io
from decimal import Decimal, localcontext

import fastavro
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k2.common.errors import ConfigurationError, RecordError
from k2.kafka.avro_blocks import BlockReader
from k2.kafka.avro_plans import block_plan
from k2.kafka.serialization import encode_frame, encode_record
from k2.schemas.arrow import message_polars_schema
from k2.schemas.avro import avro_schema
from k2.schemas.records import QUOTES, TRADES, Field, FieldType, RecordType
from k2.testing.messages import encode, quote, trade

TEXT = st.text(max_size=80)
PRICES = st.integers(-(10**28) + 1, 10**28 - 1)
VALUES = {
    FieldType.STRING: TEXT,
    FieldType.STRINGS: st.lists(TEXT, max_size=4),
    FieldType.INT: st.integers(-(2**31), 2**31 - 1),
    FieldType.LONG: st.integers(-(2**63), 2**63 - 1),
    FieldType.DATE: st.dates(),
    FieldType.PRICE: PRICES.map(lambda unscaled: exact(unscaled, 12)),
    FieldType.QUANTITY: PRICES.map(lambda unscaled: exact(unscaled, 10)),
}


def exact(unscaled: int, scale: int) -> Decimal:
    digits = tuple(int(digit) for digit in str(abs(unscaled)))
    return Decimal((int(unscaled < 0), digits, -scale))


def value_of(field: Field) -> st.SearchStrategy:
    values = VALUES[field.type]
    return st.one_of(st.none(), values) if field.nullable else values


def records(record_type: RecordType) -> st.SearchStrategy:
    return st.lists(
        st.fixed_dictionaries({field.name: value_of(field) for field in record_type.message_fields}),
        min_size=1,
        max_size=5,
    )


def read_all(record_type: RecordType, messages: list[bytes]) -> list[dict]:
    schema = fastavro.parse_schema(avro_schema(record_type))
    found = []
    with localcontext(prec=60):  # fastavro rounds to the context's digits
        for message in messages:
            source = io.BytesIO(message)
            assert source.read(5) == b"\0\0\0\0\x07"
            found.append(fastavro.schemaless_reader(source, schema))
            assert source.read() == b""
    return found


def frame_of(record_type: RecordType, rows: list[dict]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=message_polars_schema(record_type), orient="row")


@pytest.mark.parametrize("record_type", [TRADES, QUOTES], ids=lambda record_type: record_type.name)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_fastavro_reads_the_rows_that_were_encoded(record_type, data) -> None:
    rows = data.draw(records(record_type))

    messages = encode_frame(record_type, frame_of(record_type, rows), 7)

    assert read_all(record_type, messages) == rows


@pytest.mark.parametrize("bits", range(1, 93))
def test_decimals_around_each_power_of_two_are_exact(bits) -> None:
    unscaled = [sign * min(2**bits + more, 10**28 - 1) for more in (-1, 0, 1) for sign in (1, -1)]
    rows = [trade(price=exact(number, 12)) for number in unscaled]

    messages = encode_frame(TRADES, frame_of(TRADES, rows), 7)

    assert read_all(TRADES, messages) == rows
    assert all(len(message) <= len(encode(row)) for message, row in zip(messages, rows, strict=True))


def test_a_part_of_a_frame_is_encoded_like_the_same_rows_alone() -> None:
    rows = [trade(sequence=at, conditions=["x"] * at, side=None if at % 2 else "BUY") for at in range(9)]
    whole = frame_of(TRADES, rows)

    assert encode_frame(TRADES, whole.slice(3, 4), 7) == encode_frame(TRADES, whole, 7)[3:7]


def test_a_frame_of_several_chunks_is_encoded_in_order() -> None:
    parts = [frame_of(TRADES, [trade(sequence=at, trade_id=str(at))]) for at in range(4)]

    messages = encode_frame(TRADES, pl.concat(parts, rechunk=False), 7)

    assert messages == [encode(trade(sequence=at, trade_id=str(at))) for at in range(4)]


def test_no_rows_are_no_messages() -> None:
    assert encode_frame(QUOTES, frame_of(QUOTES, []), 7) == []


def test_the_schema_id_leads_each_message() -> None:
    messages = encode_frame(QUOTES, frame_of(QUOTES, [quote()]), 2**31 - 1)

    assert messages[0][:5] == b"\0\x7f\xff\xff\xff"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop("price"), "price is None"),
        (lambda frame: frame.with_columns(colour=pl.lit("red")), "colour is unknown"),
        (lambda frame: frame.with_columns(pl.col("price").cast(pl.Float64)), "price is Float64"),
        (lambda frame: frame.with_columns(pl.col("sub_index").cast(pl.Int64)), "sub_index is Int64"),
    ],
)
def test_other_columns_are_refused_by_name(change, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        encode_frame(TRADES, change(frame_of(TRADES, [trade()])), 7)


def test_a_null_where_a_value_must_be_is_refused() -> None:
    with pytest.raises(RecordError, match="price"):
        encode_frame(TRADES, frame_of(TRADES, [trade(), trade(price=None)]), 7)


def test_a_null_in_a_list_is_refused() -> None:
    with pytest.raises(RecordError, match="conditions"):
        encode_frame(TRADES, frame_of(TRADES, [trade(conditions=["a", None])]), 7)


@pytest.mark.parametrize("unscaled", [10**28, -(10**28), 2**127 - 1, -(2**127)])
def test_a_decimal_of_more_digits_is_refused_and_not_cut(unscaled) -> None:
    plain = avro_schema(TRADES)
    plain["fields"] = [f | {"type": "bytes"} if f["name"] == "price" else f for f in plain["fields"]]
    message = encode(trade(price=unscaled.to_bytes(16, "big", signed=True)), plain)
    beyond = BlockReader(block_plan(TRADES), 7).read([message])
    assert beyond is not None
    frame = frame_of(TRADES, [trade()]).with_columns(beyond["price"])

    with pytest.raises(RecordError, match="28 digits in price"):
        encode_frame(TRADES, frame, 7)


def test_one_record_of_any_schema_is_encoded() -> None:
    schema = {"type": "record", "name": "Marker", "fields": [{"name": "count", "type": "long"}]}

    message = encode_record(schema, {"count": 5}, 3)

    assert message[:5] == b"\0\0\0\0\3"
    assert fastavro.schemaless_reader(io.BytesIO(message[5:]), schema) == {"count": 5}


def test_a_record_that_does_not_fit_its_schema_is_refused() -> None:
    schema = {"type": "record", "name": "Marker", "fields": [{"name": "count", "type": "long"}]}

    with pytest.raises(RecordError, match="Marker"):
        encode_record(schema, {"count": dt.date(2020, 1, 1)}, 3)
