"""The REST API: who may ask, what may be asked, and that every form of an answer keeps every digit."""

from __future__ import annotations

import inspect
import io
import json
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from k2.api.app import create_app
from k2.api.keys import ApiKey
from k2.api.problems import STATUS_OF, TITLE_OF, status_of
from k2.api.settings import ApiSettings
from k2.api.text_columns import plain
from k2.common import errors
from k2.common.clock import SystemClock
from k2.common.errors import K2Error, LogIdentityError, QueryError, UnavailableError
from k2.testing.fake_engine import FakeEngine
from k2.testing.gap_events import gap_event, gap_events
from k2.testing.market_rows import START_NS, market_rows

KEY = "k2_test_key"
PRICES = ["36.667", "-1", "0", "1234567890123456.123456789012"]


def trades(count: int = 30) -> pl.DataFrame:
    rows = market_rows(range(count), symbols=("AAA", "BBB"))
    prices = pl.Series("price", [Decimal(PRICES[number % 4]) for number in range(count)], dtype=pl.Decimal(28, 12))
    return rows.with_columns(prices)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine({"trades": trades()})


@pytest.fixture
def unready() -> list[str]:
    return []


@pytest.fixture
def client(engine: FakeEngine, unready: list[str]) -> Iterator[TestClient]:
    app = create_app(engine, key=ApiKey(KEY), settings=ApiSettings(), clock=SystemClock(), unready=lambda: unready)
    with TestClient(app, headers={"X-API-Key": KEY}, raise_server_exceptions=False) as client:
        yield client


def rows_of(client: TestClient, **parameters: Any) -> list[dict[str, Any]]:
    response = client.get("/v1/trades", params={"symbol": "AAA", "start": str(START_NS), **parameters})
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["data"]
    return found


def test_json_gives_prices_as_strings_with_every_digit(client: TestClient) -> None:
    found = [row["price"] for row in rows_of(client)[:2]]

    assert found == ["36.667", "0"]
    assert {row["price"] for row in rows_of(client, symbol="BBB")} == {"-1", "1234567890123456.123456789012"}


def test_csv_gives_the_same_numbers_as_json(client: TestClient) -> None:
    response = client.get(
        "/v1/trades", params={"symbol": "BBB", "start": str(START_NS)}, headers={"Accept": "text/csv"}
    )

    frame = pl.read_csv(io.BytesIO(response.content), infer_schema=False)
    assert frame["price"].to_list() == [row["price"] for row in rows_of(client, symbol="BBB")]
    assert response.headers["content-type"].startswith("text/csv")


@pytest.mark.parametrize("name", ["parquet", "arrow"])
def test_binary_forms_keep_decimals_and_carry_the_certificate(client: TestClient, name: str) -> None:
    body = client.get("/v1/trades", params={"symbol": "BBB", "start": str(START_NS), "format": name}).content

    table = pq.read_table(io.BytesIO(body)) if name == "parquet" else pa.ipc.open_stream(body).read_all()
    assert table.schema.field("price").type == pa.decimal128(28, 12)
    assert table["price"][1].as_py() == Decimal("1234567890123456.123456789012")
    assert json.loads(table.schema.metadata[b"k2.certificate"])["rows"] == 15


def test_the_certificate_is_in_the_envelope_and_in_a_header(client: TestClient) -> None:
    response = client.get("/v1/trades", params={"symbol": "AAA"})

    assert response.json()["certificate"] == json.loads(response.headers["K2-Certificate"])
    assert response.json()["certificate"]["complete"] is True


def test_pages_neither_overlap_nor_skip_while_rows_arrive(client: TestClient, engine: FakeEngine) -> None:
    pages, cursor = [], None
    for _ in range(10):
        parameters = {"symbol": "AAA", "limit": 4, **({"cursor": cursor} if cursor else {"start": str(START_NS)})}
        body = client.get("/v1/trades", params=parameters).json()
        pages += body["data"]
        cursor = body["next_cursor"]
        engine.rows["trades"] = trades(len(engine.rows["trades"]) + 6)
        if cursor is None:
            break

    assert [row["log_offset"] for row in pages] == list(range(0, 30, 2))


def test_without_a_range_the_last_fifteen_minutes_are_asked_for(client: TestClient, engine: FakeEngine) -> None:
    client.get("/v1/trades", params={"symbol": "AAA"})

    assert engine.asked[-1].window_minutes == 15


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose own time is not UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Australia/Sydney")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01T00:00:00", START_NS),
        ("2026-01-01", START_NS),
        ("2026-01-01T11:00:00+11:00", START_NS),
        ("2026-01-01T11:00:00 11:00", START_NS),
        ("2026-01-01T00:00:00.000000001Z", START_NS + 1),
        ("2026-01-01T00:00:00.5", START_NS + 500_000_000),
        ("2025-12-31T23:59:59.25-00:00", START_NS - 750_000_000),
        ("1969-12-31T23:59:59.9Z", -100_000_000),
        (str(START_NS), START_NS),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(
    client: TestClient, engine: FakeEngine, elsewhere: None, text: str, expected: int
) -> None:
    client.get("/v1/trades", params={"symbol": "AAA", "start": text})

    assert engine.asked[-1].start_ns == expected


@pytest.mark.parametrize("name", ["start", "end"])
@pytest.mark.parametrize("text", ["20200101", "1767225600", "1767225600000", "1767225600000000", "-20200101"])
def test_a_number_that_is_no_nanoseconds_is_not_taken_for_1970(client: TestClient, name: str, text: str) -> None:
    refused = client.get("/v1/trades", params={"symbol": "AAA", name: text})

    assert refused.status_code == 422
    assert f"expected {name} as nanoseconds since 1970, which have 18 or 19 digits" in refused.json()["detail"]
    assert "2020-01-01" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("parameters", "status", "named"),
    [
        ({}, 422, "symbol"),
        ({"symbol": ""}, 422, "symbol"),
        ({"symbol": "A" * 65}, 422, "symbol"),
        ({"symbol": "AAA", "widnow_minutes": "5"}, 400, "widnow_minutes"),
        ({"symbol": ["AAA", "BBB"]}, 400, "symbol"),
        ({"symbol": "AAA", "start": "yesterday"}, 422, "start"),
        ({"symbol": "AAA", "start": "2026-01-02", "end": "2026-01-01"}, 422, "before the end"),
        ({"symbol": "AAA", "window_minutes": "-1"}, 422, "window"),
        ({"symbol": "AAA", "window_minutes": "5", "start": "2026-01-01"}, 422, "both"),
        ({"symbol": "AAA", "limit": "0"}, 422, "limit"),
        ({"symbol": "AAA", "limit": "99999999"}, 422, "limit"),
        ({"symbol": "AAA", "cursor": "nonsense"}, 422, "cursor"),
        ({"symbol": "AAA", "format": "xml"}, 422, "format"),
        ({"symbol": "AAA", "anchor": "then"}, 422, "anchor"),
    ],
)
def test_a_wrong_question_is_refused_and_named(
    client: TestClient, parameters: dict[str, Any], status: int, named: str
) -> None:
    response = client.get("/v1/trades", params=parameters)

    assert response.status_code == status
    assert named in response.json()["detail"]
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["request_id"] == response.headers["K2-Request-Id"]


def test_an_accept_that_cannot_be_met_is_refused(client: TestClient) -> None:
    response = client.get("/v1/trades", params={"symbol": "AAA"}, headers={"Accept": "image/png"})

    assert response.status_code == 406


def test_a_symbol_that_is_not_there_is_an_empty_complete_answer(client: TestClient) -> None:
    response = client.get("/v1/trades", params={"symbol": "NONE"})

    assert response.json()["data"] == []
    assert response.json()["certificate"]["complete"] is True


@pytest.mark.parametrize("key", [None, "", "wrong", KEY + "x", KEY[:-1]])
def test_every_data_route_wants_the_key(client: TestClient, key: str | None) -> None:
    routes = [path for path in client.get("/openapi.json").json()["paths"] if path.startswith("/v1/")]
    headers = {} if key is None else {"X-API-Key": key}

    client.headers.pop("X-API-Key")
    answers = {path: client.get(path, params={"symbol": "AAA"}, headers=headers).status_code for path in routes}

    assert len(answers) >= 3
    assert set(answers.values()) == {401}


def test_a_missing_key_and_another_one_are_told_apart(client: TestClient) -> None:
    another = client.get("/v1/symbols", headers={"X-API-Key": "another"}).json()
    client.headers.pop("X-API-Key")
    missing = client.get("/v1/symbols").json()

    assert "found none" in missing["detail"]
    assert "found one that is not this platform's" in another["detail"]
    assert KEY not in str(another) + str(missing)


def test_a_route_that_is_not_there_names_the_documentation(client: TestClient) -> None:
    absent = client.get("/v1/trade")
    posted = client.post("/v1/trades")

    assert (absent.status_code, absent.json()["title"]) == (404, "Not Found")
    assert "/docs" in absent.json()["detail"]
    assert (posted.status_code, posted.json()["title"]) == (405, "Method Not Allowed")
    assert "GET" in posted.json()["detail"]


def test_an_error_of_the_engine_is_a_problem_document_with_its_status(client: TestClient, engine: FakeEngine) -> None:
    engine.fails_with = UnavailableError("the log is down", dependency="kafka", retry_after_seconds=2.5)

    response = client.get("/v1/trades", params={"symbol": "AAA"})

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "3"
    assert response.json()["detail"] == "the log is down"
    assert response.json()["title"] == "A dependency is out of reach"


def test_an_unforeseen_error_shows_no_trace(client: TestClient, engine: FakeEngine) -> None:
    engine.fails_with = RuntimeError("secret detail")  # type: ignore[assignment]  # an error that K2 does not know

    with capture_logs() as events:
        response = client.get("/v1/trades", params={"symbol": "AAA"})

    assert response.status_code == 500
    assert [event["event"] for event in events if event["log_level"] == "error"] != [], "the log has it"
    assert "secret" not in response.text
    assert "Traceback" not in response.text


def test_every_error_of_k2_has_a_status() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, K2Error)]

    unmapped = [kind.__name__ for kind in kinds if kind not in STATUS_OF]

    assert len(kinds) >= 9
    assert unmapped == []
    assert set(TITLE_OF) == set(STATUS_OF)


def test_a_subclass_has_the_status_of_its_nearest_base() -> None:
    class NewError(LogIdentityError):
        pass

    assert status_of(NewError("x")) == 409
    assert status_of(QueryError("x")) == 422


def test_readiness_says_why_not(client: TestClient, unready: list[str]) -> None:
    assert client.get("/readyz").status_code == 200

    unready.append("the log is out of reach")

    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["reasons"] == ["the log is out of reach"]
    assert client.get("/livez").status_code == 200


def test_metrics_count_answers_by_route(client: TestClient) -> None:
    client.get("/v1/trades", params={"symbol": "AAA", "start": str(START_NS)})

    text = client.get("/metrics").text

    assert 'k2_api_rows_total{route="/v1/trades"} 15.0' in text
    assert 'k2_api_request_seconds_count{route="/v1/trades",status="200"} 1.0' in text


def test_the_documentation_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs")

    assert page.status_code == 200
    assert "://" not in page.text


def test_a_url_or_headers_beyond_their_limit_are_refused(client: TestClient) -> None:
    assert client.get("/v1/trades", params={"symbol": "A" * 9000}).status_code == 414
    assert client.get("/v1/symbols", headers={"X-Long": "x" * 20_000}).status_code == 431


def test_symbols_lists_what_is_there(client: TestClient) -> None:
    found = client.get("/v1/symbols").json()["data"]

    assert [(entry["symbol"], entry["rows"]) for entry in found] == [("AAA", 15), ("BBB", 15)]


def test_symbols_come_in_every_format(client: TestClient, engine: FakeEngine) -> None:
    listed = client.get("/v1/symbols").json()["data"]
    csv = client.get("/v1/symbols", headers={"Accept": "text/csv"})
    parquet = client.get("/v1/symbols", params={"format": "parquet"})
    refused = client.get("/v1/symbols", headers={"Accept": "image/png"})
    engine.rows = {}

    assert csv.headers["content-type"].startswith("text/csv")
    assert pl.read_csv(io.BytesIO(csv.content)).to_dicts() == listed
    assert pq.read_table(io.BytesIO(parquet.content)).to_pylist() == listed
    assert refused.status_code == 406
    assert client.get("/v1/symbols").json() == {"data": []}


@pytest.mark.parametrize(
    ("value", "text"),
    [("36.6670", "36.667"), ("100.00", "100"), ("0E-12", "0"), ("-0.5", "-0.5"), ("1E+3", "1000"), ("10", "10")],
)
def test_a_decimal_is_written_without_exponent_and_without_idle_zeros(value: str, text: str) -> None:
    assert plain(Decimal(value)) == text


def test_gaps_are_listed_the_newest_first(client: TestClient, engine: FakeEngine) -> None:
    engine.known_gaps.events = gap_events(
        gap_event(), gap_event("opened", 30, 31, gap_first=30, gap_last=31, to_ns=900)
    )

    listed = client.get("/v1/gaps", params={"symbol": "BHP"}).json()["data"]
    newest = client.get("/v1/gaps", params={"limit": 1, "since": 300}).json()["data"]
    other = client.get("/v1/gaps", params={"symbol": "CBA"}).json()["data"]

    assert [(gap["gap_first"], gap["missing"], gap["state"]) for gap in listed] == [(30, 2, "open"), (10, 5, "open")]
    assert [gap["gap_first"] for gap in newest] == [30]
    assert other == []


def test_gaps_need_the_key_and_refuse_what_they_do_not_know(client: TestClient) -> None:
    assert client.get("/v1/gaps", headers={"X-API-Key": "other"}).status_code == 401
    assert client.get("/v1/gaps", params={"since_ns": 5}).status_code == 400
    assert client.get("/v1/gaps", params={"since": "soon"}).status_code == 422


def test_the_choice_about_gaps_reaches_the_engine_and_binds_the_cursor(client: TestClient, engine: FakeEngine) -> None:
    question = {"symbol": "AAA", "start": "0", "limit": "2"}
    first = client.get("/v1/trades", params={**question, "gaps": "exclude"}).json()

    other = client.get("/v1/trades", params={**question, "cursor": first["next_cursor"]})

    assert engine.asked[0].gaps == "exclude"
    assert other.status_code == 422
    assert client.get("/v1/trades", params={**question, "gaps": "none"}).status_code == 422
