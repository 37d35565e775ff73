"""Hostile questions: whatever the parameters, a clear refusal or rows of what was asked, never a failure of K2."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from k2.api.app import create_app
from k2.api.keys import ApiKey
from k2.api.settings import ApiSettings
from k2.query.gap_aware import GapAwareEngine
from k2.testing.fake_gaps import FakeGaps
from k2.testing.gap_events import gap_event, gap_events
from k2.testing.simulated_hybrid import simulated_hybrid, topic
from k2.testing.simulated_market import SimulatedMarket

ASX = topic("asx")
QUOTES = topic("asx", "quotes")
OPEN = {"/livez", "/readyz", "/health", "/metrics"}
REFUSALS = {400, 406, 414, 422}
CORPUS = [
    "' OR 1=1 --",
    "BHP'; DROP TABLE trades; --",
    'BHP" UNION SELECT * FROM read_text("/etc/passwd")',
    "../../../../etc/passwd",
    "file:///etc/passwd",
    "${jndi:ldap://127.0.0.1/a}",
    "%00",
    "\0",
    "\r\nSet-Cookie: a=b",
    "{{7*7}}",
    "<script>alert(1)</script>",
    "1e308",
    "-1",
    "NaN",
    "inf",
    "9" * 400,
    "9223372036854775808",
    "2026-13-45T99:99:99",
    "0001-01-01",
    "9999-12-31T23:59:59+14:00",
    "\ud7ff\U0010ffff",
    "Z" * 3000,
    "null",
    "[]",
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    directory: Path = tmp_path_factory.mktemp("market")
    market = SimulatedMarket(directory, [ASX, QUOTES])
    market.register(ASX.name)
    market.register(QUOTES.name)
    for time in range(50):
        market.append(ASX.name, "BHP", time)
        market.append(ASX.name, "CBA", time)
    for number in range(ASX.partitions):
        market.commit(ASX.name, number, 30)
    hybrid = simulated_hybrid(market, directory)
    hybrid.tail.step()
    gaps = FakeGaps(gap_events(gap_event()))
    engine = GapAwareEngine(
        hybrid.engine, events=gaps, table=gaps, watched={"trades": frozenset({"asx"})}, listed_max=10
    )
    app = create_app(
        engine, key=ApiKey("key"), settings=ApiSettings(key_burst_questions=10**9), clock=hybrid.clock, unready=list
    )
    with TestClient(app, headers={"X-API-Key": "key"}) as client, capture_logs():
        yield client
    hybrid.close()


def parameters_of(client: TestClient) -> list[tuple[str, str]]:
    paths = client.get("/openapi.json").json()["paths"]
    return [
        (path, parameter["name"])
        for path, methods in paths.items()
        for parameter in methods["get"].get("parameters", [])
        if parameter["in"] == "query"
    ]


def test_every_text_of_the_corpus_in_every_parameter_is_refused_or_answered(client: TestClient) -> None:
    asked = [(path, name, text) for path, name in parameters_of(client) for text in CORPUS]

    wrong = []
    for path, name, text in asked:
        given = {"symbol": "BHP", name: text} if path != "/v1/symbols" else {name: text}
        given = {"follow": "false", **given} if path == "/v1/stream" else given
        response = client.get(path, params=given)
        if response.status_code not in {200, *REFUSALS} or "root:" in response.text:
            wrong.append((path, name, text, response.status_code, response.text[:200]))

    assert len(asked) > 500
    assert wrong == []


texts = st.text(max_size=30) | st.sampled_from(CORPUS) | st.integers().map(str) | st.datetimes().map(str)
questions = st.fixed_dictionaries(
    {"symbol": st.sampled_from(["BHP", "CBA"]) | texts},
    optional={
        "start": texts,
        "end": texts,
        "window_minutes": st.floats().map(str) | texts,
        "anchor": st.sampled_from(["now", "latest", "then"]),
        "limit": st.integers(-1, 2_000_000).map(str),
        "exchange": st.sampled_from(["asx", "sim", "'"]),
        "lake_only": st.sampled_from(["true", "false", "2"]),
        "on_degrade": st.sampled_from(["fail", "partial", ""]),
        "format": st.sampled_from(["json", "csv", "parquet", "arrow", "xml"]),
        "as_of": texts,
        "cursor": texts,
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=questions)
def test_any_question_gives_rows_of_its_symbol_and_range_or_a_refusal(
    client: TestClient, question: dict[str, str]
) -> None:
    response = client.get("/v1/trades", params=question)

    assert response.status_code in {200, *REFUSALS}, response.text
    if response.status_code == 200 and question.get("format", "json") == "json":
        body = response.json()
        start, end = body["certificate"]["start_ns"], body["certificate"]["end_ns"]
        for row in body["data"]:
            assert row["symbol"] == question["symbol"]
            assert start is None or row["ts_event_ns"] >= start
            assert end is None or row["ts_event_ns"] < end


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    question=questions,
    interval=st.sampled_from(["1s", "7m", "1d"]) | texts,
    align=st.sampled_from(["utc", "session"]),
    prints=st.sampled_from(["regular", "all"]),
)
def test_any_question_about_bars_is_answered_or_refused(
    client: TestClient, question: dict[str, str], interval: str, align: str, prints: str
) -> None:
    asked = {name: value for name, value in question.items() if name not in {"limit", "cursor"}}

    response = client.get("/v1/ohlcv", params={**asked, "interval": interval, "align": align, "prints": prints})

    assert response.status_code in {200, *REFUSALS}, response.text
    if response.status_code == 200 and question.get("format", "json") == "json":
        assert {bar["symbol"] for bar in response.json()["data"]} <= {question["symbol"]}


def opaque(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize("name", ["as_of", "cursor"])
@pytest.mark.parametrize("nested", ["[" * 4000, '{"a":' * 900], ids=["lists", "objects"])
def test_a_token_nested_beyond_measure_is_refused(client: TestClient, name: str, nested: str) -> None:
    response = client.get("/v1/trades", params={"symbol": "BHP", name: opaque(nested)})

    assert response.status_code == 422, response.text


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "\ud800", 10**400, [], None])
@pytest.mark.parametrize("field", ["v", "t", "x", "c", "p"])
def test_a_token_with_a_strange_value_is_refused_or_answered(client: TestClient, field: str, value: object) -> None:
    end = {"symbol": "BHP", "end": "100"}
    token = client.get("/v1/trades", params=end).json()["certificate"]["as_of"]
    body = json.loads(base64.urlsafe_b64decode(token + "==")) | {field: value}

    response = client.get("/v1/trades", params={**end, "as_of": opaque(json.dumps(body))})

    assert response.status_code in {200, 422}, response.text


@pytest.mark.parametrize("key", [None, "", "wrong", "key ", "KEY", "k" * 500])
def test_only_the_routes_of_health_answer_without_the_key(client: TestClient, key: str | None) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    headers = {} if key is None else {"X-API-Key": key}
    without = TestClient(client.app)

    statuses = {path: without.get(path, params={"symbol": "BHP"}, headers=headers).status_code for path in paths}

    assert {path for path, status in statuses.items() if status != 401} == OPEN
    assert {status for path, status in statuses.items() if path in OPEN} == {200}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(client: TestClient, method: str) -> None:
    paths = client.get("/openapi.json").json()["paths"]

    assert {client.request(method, path).status_code for path in paths} == {405}
    assert all(set(methods) == {"get"} for methods in paths.values())


def test_a_path_that_is_not_there_is_a_problem_document(client: TestClient) -> None:
    response = client.get("/v1/../etc/passwd")

    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
