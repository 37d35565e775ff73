"""Mappings: what each field may say, what a wrong one is told, and how texts become times, numbers and lists."""

from __future__ import annotations

import hashlib
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from k2.common.errors import ConfigurationError
from k2.feeds.mapped.csv_cells import CsvCells
from k2.feeds.mapped.making import BROKEN, LINE, RecordMaker
from k2.feeds.mapped.mapping import read_mapping

BASE = "version: 1\ntable: trades\nexchange: asx\n"
COLUMNS = {"symbol": "s", "ts_event_ns": "{column: t, unit: ns}", "price": "p", "quantity": "q"}
LOCAL = datetime(2014, 3, 10, 20, 11, 14)  # noqa: DTZ001 - a time without a zone is meant
NOW_NS = 1_800_000_000_000_000_000


@pytest.fixture
def mapping_of(tmp_path: Path):
    """Return what reads a mapping that says these columns."""

    def made(base: str = BASE, **columns: str):
        path = tmp_path / "mapping.yaml"
        said = "".join(f"  {name}: {column}\n" for name, column in {**COLUMNS, **columns}.items() if column)
        path.write_text(f"{base}columns:\n{said}")
        return read_mapping(path)

    return made


def make(mapping, zone: str = "Australia/Sydney", **cells: object):
    """Return what becomes of one record of these cells."""
    given = {"s": "A", "t": "1394442674553000000", "p": "1", "q": "2", "b": "1", **cells}
    frame = pl.DataFrame({name: [value] for name, value in given.items()})
    frame = frame.with_columns(pl.lit(1, pl.Int64).alias(LINE), pl.lit(None, pl.Int32).alias(BROKEN))
    read = RecordMaker(mapping, zone=zone, source="f" * 64, latest_ns=NOW_NS).make(frame)
    return read.rows.to_dicts()[0] if read.rows.height else read.bad[0]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"price": ""}, r"expected columns for price, found none"),
        ({"prise": "p"}, r"unknown field columns\.prise: the fields of trades are symbol, "),
        ({"bid_price": "p"}, r"unknown field columns\.bid_price"),
        ({"source": "p"}, r"columns\.source: no column says it"),
        ({"price": "{column: p, skale: 2}"}, r"unknown key columns\.price\.skale"),
        ({"price": "{column: p, scale: 99}"}, r"columns\.price\.scale: .*18; found 99"),
        ({"price": "{column: 1}"}, r"columns\.price\.column: .*valid string; found 1"),
        ({"side": "{column: a, values: {true: BUY}}"}, r"columns\.side\.values.*valid string; found True"),
        ({"symbol": "{column: a, constant: b}"}, r"columns\.symbol: .*either column or constant"),
        ({"ts_event_ns": "{column: t, unit: ms, zone: UTC}"}, r"a unit alone"),
        ({"ts_event_ns": "{column: t, format: '%Y'}"}, r"a zone with a format of local times"),
        ({"ts_event_ns": "{column: t, format: '%Y %z', zone: UTC}"}, r"none with a format that has an offset"),
        ({"ts_event_ns": "{column: t, format: '%Y', zone: Mars}"}, r"no such time zone"),
        ({"ts_event_ns": "{columns: [d, t]}"}, r"a format with columns"),
        ({"extra": "{column: a, columns: [b]}"}, r"columns\.extra: .*one of the two"),
    ],
)
def test_a_wrong_mapping_is_told_where_and_what(mapping_of, columns: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as refused:
        mapping_of(**columns)

    assert len(str(refused.value).splitlines()) == 1
    assert "mapping.yaml: " in str(refused.value)


def test_all_mistakes_are_told_at_once(mapping_of) -> None:
    with pytest.raises(ConfigurationError) as refused:
        mapping_of(price="", prise="p", side="{constant: 1}")

    assert len(str(refused.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("base", "told"),
    [
        ("version: 1\ntable: bars\nexchange: asx\n", "table: .*'trades' or 'quotes'; found 'bars'"),
        ("table: trades\nexchange: asx\n", "version: Field required"),
        (BASE + "csv: {header: false}\n", "names of the columns where header is false"),
        (BASE + "exchange: asx\n", "the key 'exchange' comes twice"),
        (BASE + "csv: {delimiter: '\"'}\n", "an ASCII delimiter"),
    ],
)
def test_the_rest_of_a_mapping_is_checked_as_well(mapping_of, base: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        mapping_of(base)


@pytest.mark.parametrize(
    ("said", "cell", "expected_ns"),
    [
        ("{column: t, unit: s}", "1394442674", 1394442674_000_000_000),
        ("{column: t, unit: s}", "1394442674.123456789", 1394442674_123_456_789),
        ("{column: t, unit: us}", 1394442674123456, 1394442674_123_456_000),
        ("{column: t, unit: s}", 1394442674.5, 1394442674_500_000_000),
        ("{column: t, format: '%d/%m/%Y %H:%M:%S%.f', zone: Australia/Sydney}", "10/03/2014 20:11:14.123456789",
         1394442674_123_456_789),
        ("{columns: [b, t], format: '%Y%m%d %H:%M:%S', zone: UTC}", "09:11:14", 1394442674_000_000_000),
        ("{column: t, format: '%Y-%m-%dT%H:%M:%S%.f%#z'}", "2014-03-10T20:11:14.5+11:00", 1394442674_500_000_000),
        ("{column: t, zone: Australia/Sydney}", LOCAL, 1394442674_000_000_000),
        ("{column: t, format: '%Y-%m-%d %H:%M:%S', zone: Australia/Sydney, ambiguous: earliest}",
         "2014-04-06 02:30:00", 1396711800_000_000_000),
        ("{column: t, format: '%Y-%m-%d %H:%M:%S', zone: Australia/Sydney, ambiguous: latest}",
         "2014-04-06 02:30:00", 1396715400_000_000_000),
    ],
)  # fmt: skip
def test_a_time_is_exact_to_the_nanosecond(mapping_of, said: str, cell: object, expected_ns: int) -> None:
    row = make(mapping_of(ts_event_ns=said), t=cell, b="20140310")

    assert row["ts_event_ns"] == row["ts_recv_ns"] == expected_ns


@pytest.mark.parametrize(
    ("said", "cell"),
    [
        ("{column: t, unit: ns}", "1394442674553000000.5"),
        ("{column: t, unit: ns}", "99999999999999999999"),
        ("{column: t, unit: s}", "1394442674.1234567891"),
        ("{column: t, format: '%Y-%m-%d %H:%M:%S%.f', zone: UTC}", "2014-03-10 09:11:14.1234567891"),
        ("{column: t, format: '%Y-%m-%d %H:%M:%S', zone: UTC}", "9999-03-10 09:11:14"),
        ("{column: t, format: '%Y-%m-%d %H:%M:%S', zone: Australia/Sydney}", "2014-04-06 02:30:00"),
        ("{column: t, format: '%Y-%m-%d %H:%M:%S', zone: Australia/Sydney}", "2014-10-05 02:30:00"),
    ],
    ids=[
        "half a nanosecond",
        "too many digits",
        "finer than a nanosecond",
        "ten decimals",
        "no 64 bits",
        "twice",
        "never",
    ],
)
def test_a_time_that_is_not_exactly_one_is_no_record(mapping_of, said: str, cell: str) -> None:
    assert make(mapping_of(ts_event_ns=said), t=cell).error_class == "InvalidTime"


@pytest.mark.parametrize("cell", ["0", str(NOW_NS + 1)])
def test_a_time_that_ingestion_would_refuse_is_no_record(mapping_of, cell: str) -> None:
    assert make(mapping_of(), t=cell).error_class == "EventTimeOutOfBounds"


@pytest.mark.parametrize(
    ("said", "cell", "expected"),
    [
        ("p", "007.10", "7.1"),
        ("{column: p, scale: 4}", "-12345", "-1.2345"),
        ("{column: p, scale: 4}", "5", "0.0005"),
        ("p", 0.1, "0.1"),
        ("p", 1e-7, "0.0000001"),
        ("p", 123456789.123, "123456789.123"),
        ("p", Decimal("1.10"), "1.1"),
        ("p", 12, "12"),
    ],
)
def test_a_price_is_the_number_that_is_written(mapping_of, said: str, cell: object, expected: str) -> None:
    assert make(mapping_of(price=said), p=cell)["price"] == Decimal(expected)


@pytest.mark.parametrize("cell", ["1,5", "1e-13", " 1", "0x1", float("nan"), float("inf"), 1e300, None])
def test_a_price_that_no_decimal_holds_is_no_record(mapping_of, cell: object) -> None:
    assert make(mapping_of(), p=cell).error_class == "InvalidPrice"


@pytest.mark.parametrize(
    ("field", "said", "cell", "expected"),
    [
        ("conditions", "{column: b, separator: ' '}", "XT  CX ", ["XT", "CX"]),
        ("conditions", "b", "XT CX", ["XT CX"]),
        ("conditions", "b", "", []),
        ("conditions", "b", ["x", "y"], ["x", "y"]),
        ("side", "{column: b, values: {B: BUY, '?': null}}", "?", None),
        ("side", "{column: b, values: {B: BUY}}", "B", "BUY"),
        ("side", "{column: b, empty: ['-']}", "-", None),
        ("sequence", "b", "", None),
        ("sequence", "b", "9223372036854775807", 2**63 - 1),
        ("trade_id", "b", 17, "17"),
        ("extra", "b", '{"a": 1}', '{"a": 1}'),
        ("trading_date", "{column: b, format: '%Y%m%d'}", 20140311, date(2014, 3, 11)),
        ("trading_date", "b", date(2014, 3, 11), date(2014, 3, 11)),
    ],
)
def test_other_fields_are_what_the_mapping_says(
    mapping_of, field: str, said: str, cell: object, expected: object
) -> None:
    assert make(mapping_of(**{field: said}), b=cell)[field] == expected


@pytest.mark.parametrize(
    ("field", "said", "cell", "error_class"),
    [
        ("sequence", "b", "9223372036854775808", "InvalidNumber"),
        ("sub_index", "b", "2147483648", "InvalidNumber"),
        ("side", "b", "buy", "InvalidSide"),
        ("action", "{column: b, values: {N: NEW}}", "X", "InvalidAction"),
        ("symbol", "b", "x" * 65, "InvalidSymbol"),
        ("symbol", "b", "a\tb", "InvalidSymbol"),
        ("extra", "b", "no json", "InvalidExtra"),
        ("trading_date", "{column: b, format: '%Y%m%d'}", "20150311", "TradingDateOutOfBounds"),
        ("trading_date", "{column: b, format: '%Y%m%d'}", "", "InvalidDate"),
    ],
)
def test_what_is_wrong_with_a_field_is_named(mapping_of, field: str, said: str, cell: str, error_class: str) -> None:
    bad = make(mapping_of(**{field: said}), b=cell)

    assert bad.error_class == error_class
    assert "column b" in bad.expected


@pytest.mark.parametrize(
    ("columns", "cells", "told"),
    [
        ({"ts_event_ns": "t"}, {}, "expected a unit .*or a format for ts_event_ns"),
        ({"ts_event_ns": "t"}, {"t": LOCAL}, "expected a zone for ts_event_ns"),
        ({}, {"t": LOCAL}, "expected neither unit nor format"),
        ({"trading_date": "b"}, {}, "expected a format for trading_date"),
        ({"price": "b"}, {"b": [1]}, "expected texts or numbers in column 'b', from which price comes"),
        (
            {"ts_event_ns": "{column: t, format: '%H', zone: UTC}"},
            {},
            "expected formats in .*that texts can be read by",
        ),
    ],
)
def test_a_mapping_that_does_not_go_with_a_columns_type_is_refused(
    mapping_of, columns: dict[str, str], cells: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told) as refused:
        make(mapping_of(**columns), **cells)

    assert "mapping.yaml" in str(refused.value)


def test_quotes_have_empty_sides(mapping_of, tmp_path: Path) -> None:
    path = tmp_path / "quotes.yaml"
    path.write_text(
        "version: 1\ntable: quotes\nexchange: asx\ncolumns:\n  symbol: {constant: A}\n"
        "  ts_event_ns: {column: t, unit: ns}\n  bid_price: {column: p, empty: ['', '0']}\n  bid_size: q\n"
    )

    row = make(read_mapping(path), p="0", q="")

    assert (row["bid_price"], row["bid_size"], row["ask_price"]) == (None, None, None)


@pytest.mark.parametrize("delimiter", [",", ";", "\\t", "|", " "])
def test_fields_in_quotes_may_hold_delimiters_and_quotes(mapping_of, tmp_path: Path, delimiter: str) -> None:
    mapping = mapping_of(f'{BASE}csv: {{delimiter: "{delimiter}", header: false, names: [s, t, p, q]}}\n')
    mark = mapping.csv.delimiter
    path = tmp_path / "trades.csv"
    path.write_text(mark.join(['"a""b' + mark + '"', "1", "", '""']) + "\r\n" + mark.join("wxyz"))

    cells = pl.concat(CsvCells(path, mapping, 4096).read(hashlib.sha256()))

    assert cells.select("s", "t", "p", "q").rows() == [('a"b' + mark, "1", "", ""), ("w", "x", "y", "z")]
    assert cells[BROKEN].to_list() == [None, None]
