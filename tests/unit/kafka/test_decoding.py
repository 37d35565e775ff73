"""Messages become rows, each bad one becomes one bad record, and no other notices."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import polars as pl
import pytest

from k2.kafka.batches import LogBatch
from k2.kafka.decoding import Decoder, EventBounds
from k2.schemas.arrow import polars_schema
from k2.schemas.avro import avro_schema, avro_text
from k2.schemas.records import QUOTES, TRADES
from k2.testing.fake_log import FakeRegistry
from k2.testing.messages import EVENT_NS, LOG_MS, SCHEMA_ID, batch_of, encode, quote, trade

QUOTE_TOPIC = "market.equities.quotes.asx"
DAY_NS = 86_400_000_000_000


@pytest.fixture
def registry() -> FakeRegistry:
    return FakeRegistry({SCHEMA_ID: avro_text(TRADES), 8: avro_text(QUOTES)})


@pytest.fixture
def decoder(registry) -> Decoder:
    return Decoder(TRADES, registry)


def decode(decoder, *values, **kwargs):
    return decoder.decode(batch_of(values, **kwargs), log_id=3)


def the_defect(decoder, record, *, key=b"BHP", **kwargs):
    good = encode(trade(sequence=10))
    decoded = decode(decoder, good, encode(record, **kwargs), good, keys=[b"BHP", key, b"BHP"])
    assert [bad.offset for bad in decoded.bad] == [1]
    assert decoded.rows["log_offset"].to_list() == [0, 2]
    return decoded.bad[0].error_class, decoded.bad[0].reason


# What a row holds.


def test_a_row_has_the_tables_columns_and_types(decoder) -> None:
    rows = decode(decoder, encode(trade())).rows

    expected = polars_schema(TRADES)
    assert dict(rows.schema) == {k: v for k, v in expected.items() if k not in {"commit_sequence", "written_by"}}


def test_an_empty_batch_has_the_same_columns(decoder) -> None:
    assert decode(decoder).rows.schema == decode(decoder, encode(trade())).rows.schema


def test_a_batch_of_bad_records_alone_has_the_same_columns(decoder) -> None:
    assert decode(decoder, b"", None).rows.schema == decode(decoder, encode(trade())).rows.schema


def test_a_trade_comes_out_as_it_went_in(decoder) -> None:
    sent = trade(
        trade_id="t-1",
        ref_trade_id="é",
        price=Decimal("-0.000000000001"),
        quantity=Decimal("999999999999999999.9999999999"),
        side="SELL",
        conditions=["a", "", "ß"],
        channel="c",
        sub_index=-(2**31),
        sequence=2**63 - 1,
        extra='{"x": 1}',
    )

    row = decode(decoder, encode(sent)).rows.row(0, named=True)

    assert {name: row[name] for name in sent} == sent


def test_a_quote_with_an_empty_side_comes_out_as_it_went_in(registry) -> None:
    sent = quote(conditions=["x"])

    decoded = decode(Decoder(QUOTES, registry), encode(sent, schema_id=8), topic=QUOTE_TOPIC)

    row = decoded.rows.row(0, named=True)
    assert {name: row[name] for name in sent} == sent


def test_a_row_carries_its_coordinate_and_times(decoder) -> None:
    rows = decode(decoder, encode(trade(ts_event_ns=EVENT_NS + 1_999)), partition=2, start=41).rows

    row = rows.row(0, named=True)
    assert (row["log_id"], row["log_partition"], row["log_offset"]) == (3, 2, 41)
    assert row["ts_log"] == dt.datetime.fromtimestamp(LOG_MS / 1000, dt.UTC)
    assert rows["ts_event"].to_physical()[0] == EVENT_NS // 1000 + 1


def test_offsets_with_holes_are_kept(decoder) -> None:
    value = encode(trade())
    batch = LogBatch("market.equities.trades.asx", 0, [5, 9], [LOG_MS] * 2, [b"BHP"] * 2, [value] * 2, 12)

    assert decoder.decode(batch, log_id=0).rows["log_offset"].to_list() == [5, 9]


# What is refused: bytes.


@pytest.mark.parametrize(
    ("value", "error_class", "reason"),
    [
        (None, "NullValue", "tombstone"),
        (b"", "NotFramed", "found 0 bytes"),
        (b"\0\0\0", "NotFramed", "found 3 bytes"),
        (b'{"symbol": "BHP"}', "NotFramed", "begins with the byte 0"),
        (b"\0\0\0\0\x07", "Undecodable", "field exchange: expected an integer, found the end"),
        (encode(trade())[:-1], "Undecodable", "field extra: expected an integer, found the end"),
        (encode(trade()) + b"\0", "Undecodable", "found 1 more"),
        (encode(trade(), schema_id=99), "UnknownSchema", "99"),
        (encode(trade(), schema_id=2**32 - 1), "UnknownSchema", str(2**32 - 1)),
        (encode(trade(symbol="BHP")).replace(b"BHP", b"B\xffP"), "Undecodable", "field symbol: expected UTF-8"),
        (b"\0\0\0\0\x07" + b"\xff" * 20, "Undecodable", "at most 10 bytes, found a longer one"),
        (b"\0\0\0\0\x07" + b"\x80\x80\x80\x80\x80\x80\x01" + b"asx", "Undecodable", "bytes, found 3"),
    ],
)
def test_bytes_that_are_no_record_become_one_bad_record(decoder, value, error_class, reason) -> None:
    good = encode(trade())

    decoded = decode(decoder, good, value, good)

    assert decoded.rows["log_offset"].to_list() == [0, 2]
    assert len(decoded.bad) == 1
    bad = decoded.bad[0]
    assert (bad.offset, bad.partition, bad.ts_log_ms, bad.key, bad.value) == (1, 0, LOG_MS, b"BHP", value)
    assert bad.error_class == error_class
    assert reason in bad.reason


def test_a_bad_last_message_is_found(decoder) -> None:
    good = encode(trade())

    assert [bad.offset for bad in decode(decoder, good, good + b"x").bad] == [1]


def test_two_records_in_one_message_and_none_in_the_next_do_not_shift(decoder) -> None:
    one, two = encode(trade(sequence=1)), encode(trade(sequence=2))

    decoded = decode(decoder, one + two, b"", two)

    assert [bad.offset for bad in decoded.bad] == [0, 1]
    assert decoded.rows.select("log_offset", "sequence").rows() == [(2, 2)]


def test_a_record_cut_in_two_messages_is_not_joined(decoder) -> None:
    value = encode(trade(sequence=1))
    double = encode(trade(sequence=5)) + encode(trade(sequence=6))

    decoded = decode(decoder, value[:20], value[20:], double, value)

    assert [bad.offset for bad in decoded.bad] == [0, 1, 2]
    assert decoded.rows.select("log_offset", "sequence").rows() == [(3, 1)]


def test_many_bad_messages_among_many_good_ones_are_all_found(decoder) -> None:
    good, bad = encode(trade()), encode(trade())[:-2]
    values = [bad if at % 7 == 3 else good for at in range(5_000)]

    decoded = decode(decoder, *values)

    assert [record.offset for record in decoded.bad] == [at for at in range(5_000) if at % 7 == 3]
    assert decoded.rows["log_offset"].to_list() == [at for at in range(5_000) if at % 7 != 3]


# What is refused: values.


@pytest.mark.parametrize(
    ("changes", "error_class", "reason"),
    [
        ({"exchange": "nyse"}, "InvalidExchange", "expected exchange asx, found 'nyse'"),
        ({"action": "DELETE"}, "InvalidAction", "NEW or CANCEL or CORRECT"),
        ({"side": "B"}, "InvalidSide", "BUY or SELL"),
        ({"ts_event_ns": 631_152_000_000_000_000 - 1}, "EventTimeOutOfBounds", "ts_event_ns"),
        ({"ts_event_ns": LOG_MS * 1_000_000 + DAY_NS + 1}, "EventTimeOutOfBounds", "append time"),
        ({"ts_event_ns": -(2**63)}, "EventTimeOutOfBounds", "ts_event_ns"),
        ({"ts_event_ns": 2**63 - 1}, "EventTimeOutOfBounds", "ts_event_ns"),
        ({"trading_date": dt.date(1, 1, 1)}, "TradingDateOutOfBounds", "trading_date"),
        ({"trading_date": dt.date(2014, 5, 1)}, "TradingDateOutOfBounds", "trading_date"),
    ],
)
def test_values_that_break_a_rule_become_one_bad_record(decoder, changes, error_class, reason) -> None:
    found_class, found_reason = the_defect(decoder, trade(**changes))

    assert found_class == error_class
    assert reason in found_reason


@pytest.mark.parametrize(
    ("symbol", "reason"),
    [
        ("", "1 to 64 bytes, found 0"),
        ("é" * 33, "1 to 64 bytes, found 66"),
        ("B\nP", "control"),
        ("B\x85P", "control"),
        ("B\x7fP", "control"),
    ],
)
def test_symbols_out_of_the_rules_are_refused(decoder, symbol, reason) -> None:
    error_class, found = the_defect(decoder, trade(symbol=symbol), key=symbol.encode())

    assert error_class == "InvalidSymbol"
    assert reason in found


@pytest.mark.parametrize("symbol", ["B", "é" * 32, "BRK.B", "BTC/USDT", "日経", " a "])
def test_symbols_are_kept_verbatim(decoder, symbol) -> None:
    decoded = decode(decoder, encode(trade(symbol=symbol)), keys=[symbol.encode()])

    assert decoded.rows["symbol"].to_list() == [symbol]


@pytest.mark.parametrize(("key", "error_class"), [(None, "NullKey"), (b"RIO", "KeyMismatch"), (b"\xff", "KeyMismatch")])
def test_the_key_must_be_the_symbol(decoder, key, error_class) -> None:
    assert the_defect(decoder, trade(), key=key)[0] == error_class


@pytest.mark.parametrize("price", ["9999999999999999.999999999999", "-9999999999999999.999999999999", "0"])
def test_the_largest_price_is_taken(decoder, price) -> None:
    assert decode(decoder, encode(trade(price=Decimal(price)))).rows["price"].to_list() == [Decimal(price)]


@pytest.mark.parametrize("unscaled", [10**28, -(10**28), 2**127 - 1, -(2**127)])
def test_a_price_of_more_digits_is_refused(decoder, unscaled) -> None:
    plain = avro_schema(TRADES)
    plain["fields"] = [f | {"type": "bytes"} if f["name"] == "price" else f for f in plain["fields"]]

    error_class, reason = the_defect(decoder, trade(price=unscaled.to_bytes(16, "big", signed=True)), schema=plain)

    assert error_class == "DecimalOverflow"
    assert "expected price within" in reason


def test_a_decimal_of_more_than_16_bytes_is_refused(decoder) -> None:
    plain = avro_schema(TRADES)
    plain["fields"] = [f | {"type": "bytes"} if f["name"] == "price" else f for f in plain["fields"]]

    error_class, reason = the_defect(decoder, trade(price=bytes(17)), schema=plain)

    assert (error_class, "at most 16 bytes, found one of 17" in reason) == ("Undecodable", True)


def test_an_int_of_more_than_32_bits_is_refused_and_not_cut(decoder) -> None:
    long = avro_schema(TRADES)
    long["fields"] = [f | {"type": ["null", "long"]} if f["name"] == "sub_index" else f for f in long["fields"]]

    assert the_defect(decoder, trade(sub_index=2**40), schema=long)[0] == "ValueOutOfRange"


def test_the_bounds_follow_the_log_and_not_this_machines_clock(registry) -> None:
    decoder = Decoder(TRADES, registry, bounds=EventBounds(earliest_ns=0, ahead_ns=5))
    values = [encode(trade(ts_event_ns=1_000_000_000_000_000_005 + more)) for more in (0, 1)]

    decoded = decoder.decode(batch_of(values, ts_log_ms=1_000_000_000_000), log_id=0)

    # the trading date of 2014 is out of bounds for an event of 2001, but the time is judged first
    assert [bad.error_class for bad in decoded.bad] == ["TradingDateOutOfBounds", "EventTimeOutOfBounds"]


def test_rows_do_not_depend_on_how_the_log_was_cut_into_batches(decoder) -> None:
    good = [encode(trade(sequence=at)) for at in range(200)]
    good[50], good[51], good[120] = good[50][:-1], good[50] + good[51], b"\0\0\0\0\x07\x02a"
    whole = decode(decoder, *good)

    parts = [decoder.decode(part, log_id=3) for part in batch_of(good).chunks(7)]

    assert pl.concat(part.rows for part in parts).equals(whole.rows)
    assert tuple(bad for part in parts for bad in part.bad) == whole.bad


# Several batches at once.


def test_batches_read_together_are_what_each_is_by_itself(decoder) -> None:
    batches = [
        batch_of([encode(trade(sequence=number)) for number in range(size)], partition=partition, start=10 * partition)
        for partition, size in ((0, 3), (1, 0), (3, 1))
    ]

    together = decoder.decode_all(batches, log_id=3)

    alone = [decoder.decode(batch, log_id=3) for batch in batches]
    assert [part.rows["log_partition"].to_list() for part in together] == [[0, 0, 0], [], [3]]
    for one, other in zip(together, alone, strict=True):
        assert one.rows.equals(other.rows)
        assert one.rows.schema == other.rows.schema
        assert one.bad == other.bad == ()


@pytest.mark.parametrize("bad", [b"", None, b"\0\0\0\0\7xx", encode(trade(symbol="other"))], ids=repr)
def test_a_bad_message_among_batches_read_together_is_of_its_own_batch(decoder, bad) -> None:
    good = encode(trade())
    batches = [batch_of([good, good]), batch_of([good, bad, good], partition=2, start=7)]

    first, second = decoder.decode_all(batches, log_id=3)

    assert (first.rows.height, first.bad) == (2, ())
    assert second.rows["log_offset"].to_list() == [7, 9]
    assert [(record.partition, record.offset) for record in second.bad] == [(2, 8)]
