"""The forms of an answer: the same rows, every digit, in parts."""

from __future__ import annotations

import datetime as dt
import io
import json
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.api import formats
from k2.api.formats import FORMATS, Page, chosen
from k2.api.problems import HttpProblemError
from k2.api.text_columns import as_text, plain

CERTIFICATE = {"rows": 3, "complete": True}
TABLE = pa.table(
    {
        "price": pa.array([Decimal("36.667"), None, Decimal("-0.000000000001")], pa.decimal128(28, 12)),
        "text": pa.array(['say "a",\nb', "", None]),
        "conditions": pa.array([["XT", 'C"X'], [], None], pa.list_(pa.string())),
        "at": pa.array([0, 1, None], pa.timestamp("us", tz="UTC")),
        "day": pa.array([dt.date(2014, 3, 10), None, dt.date(1990, 1, 1)]),
        "ns": pa.array([2**63 - 1, -(2**63), None], pa.int64()),
        "raw": pa.array([b"\0\xff", b"", None], pa.binary()),
    }
)


def encoded(name: str, page: Page) -> bytes:
    return b"".join(FORMATS[name][1](page))


@pytest.fixture(params=[1, 2, 100])
def part_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(formats, "PART_ROWS", request.param)
    return int(request.param)


def test_json_is_one_document_however_many_parts_it_has(part_rows: int) -> None:
    body = json.loads(encoded("json", Page(TABLE, CERTIFICATE, "next")))

    assert (body["certificate"], body["next_cursor"]) == (CERTIFICATE, "next")
    assert body["data"][0] == {
        "price": "36.667",
        "text": 'say "a",\nb',
        "conditions": ["XT", 'C"X'],
        "at": "1970-01-01T00:00:00.000000Z",
        "day": "2014-03-10",
        "ns": 2**63 - 1,
        "raw": "AP8=",
    }
    assert [row["price"] for row in body["data"]] == ["36.667", None, "-0.000000000001"]


def test_csv_has_one_header_and_tells_null_from_an_empty_text(part_rows: int) -> None:
    lines = encoded("csv", Page(TABLE)).decode().split("\n")

    assert lines[0] == "price,text,conditions,at,day,ns,raw"
    assert lines[1:3] == [
        '36.667,"say ""a"",',
        'b","[""XT"",""C\\""X""]",1970-01-01T00:00:00.000000Z,2014-03-10,9223372036854775807,AP8=',
    ]
    assert lines[3] == ',"",[],1970-01-01T00:00:00.000001Z,,-9223372036854775808,""'
    assert lines[4] == "-0.000000000001,,,,1990-01-01,,"


@pytest.mark.parametrize("name", ["parquet", "arrow"])
def test_binary_forms_give_back_the_table_itself(part_rows: int, name: str) -> None:
    body = encoded(name, Page(TABLE, CERTIFICATE, "next"))

    table = pq.read_table(io.BytesIO(body)) if name == "parquet" else pa.ipc.open_stream(body).read_all()
    assert table.replace_schema_metadata(None).equals(TABLE)
    assert json.loads(table.schema.metadata[b"k2.certificate"]) == CERTIFICATE
    assert table.schema.metadata[b"k2.next_cursor"] == b"next"


def test_an_answer_without_rows_keeps_its_columns() -> None:
    empty = TABLE.slice(0, 0)

    assert json.loads(encoded("json", Page(empty, CERTIFICATE)))["data"] == []
    assert json.loads(encoded("json", Page(empty))) == {"data": []}
    assert encoded("csv", Page(empty)).decode() == "price,text,conditions,at,day,ns,raw\n"
    assert pa.ipc.open_stream(encoded("arrow", Page(empty))).read_all().schema == TABLE.schema
    assert pq.read_table(io.BytesIO(encoded("parquet", Page(empty)))).num_rows == 0


def test_parts_are_made_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "PART_ROWS", 1)

    assert [len(list(FORMATS[name][1](Page(TABLE)))) for name in ("json", "csv")] == [4, 3]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-(10**15), max_value=10**15)))
def test_a_decimal_comes_back_from_its_text(values: list[Decimal]) -> None:
    table = pa.table({"price": pa.array(values, pa.decimal128(28, 12))})

    texts = as_text(table, lists_as_text=False)["price"].to_list()

    assert [Decimal(text) for text in texts] == values
    assert [text for text in texts if "E" in text.upper() or ("." in text and text.endswith("0"))] == []
    assert texts == [plain(value.quantize(Decimal("1e-12"))) for value in values]


@given(st.lists(st.one_of(st.none(), st.lists(st.text(), max_size=3)), max_size=5))
def test_a_list_in_csv_is_a_json_text(lists: list[list[str] | None]) -> None:
    table = pa.table({"conditions": pa.array(lists, pa.list_(pa.string()))})

    texts = as_text(table, lists_as_text=True)["conditions"].to_list()

    assert [None if text is None else json.loads(text) for text in texts] == lists


def test_types_that_no_text_format_knows_become_text_and_names_stay_apart() -> None:
    table = pa.table([pa.array([{"a": 1}]), pa.array([100], pa.decimal128(38, 0))], names=["x", "x"])

    frame = as_text(table, lists_as_text=True)

    assert frame.to_dicts() == [{"x": "{'a': 1}", "x_1": "100"}]
    assert frame.schema == {"x": pl.String, "x_1": pl.String}


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        (None, "json"),
        ("*/*", "json"),
        ("text/csv", "csv"),
        ("text/*", "csv"),
        ("text/html, text/csv;q=0.5, application/json;q=0.9", "json"),
        ("application/vnd.apache.arrow.stream, */*;q=0.1", "arrow"),
        ("application/vnd.apache.parquet", "parquet"),
        ("TEXT/CSV", "csv"),
    ],
)
def test_accept_chooses_the_form_that_is_wanted_most(accept: str | None, name: str) -> None:
    assert chosen(accept, None) == name


@pytest.mark.parametrize("accept", ["image/png", "application/json;q=0", "application/json;q=x", ";;", ""])
def test_an_accept_that_names_nothing_known_is_refused(accept: str) -> None:
    if accept == "":
        assert chosen(accept, None) == "json"
        return
    with pytest.raises(HttpProblemError, match="expected Accept"):
        chosen(accept, None)


def test_the_parameter_beats_the_header() -> None:
    assert chosen("text/csv", "arrow") == "arrow"
