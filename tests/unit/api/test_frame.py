"""The frame around every request: caps, one audit event, and no error without a document."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from k2.api.app import create_app
from k2.api.frame import Exchange, Frame
from k2.api.keys import ApiKey
from k2.api.settings import ApiSettings
from k2.common.clock import SystemClock
from k2.common.errors import K2Error, OverloadedError
from k2.testing.fake_engine import FakeEngine
from k2.testing.market_rows import START_NS, market_rows

KEY = "k2_0a1b2c3d_secretsecret"


def app_of(engine: FakeEngine, **settings: Any) -> FastAPI:
    return create_app(engine, key=ApiKey(KEY), settings=ApiSettings(**settings), clock=SystemClock(), unready=list)


@pytest.fixture
def client() -> Iterator[TestClient]:
    engine = FakeEngine({"trades": market_rows(range(30))})
    with TestClient(app_of(engine, body_bytes_max=100), headers={"X-API-Key": KEY}) as client:
        yield client


def test_an_answer_leaves_one_audit_event_that_says_who_asked_what_and_got_how_much(client: TestClient) -> None:
    with capture_logs() as events:
        response = client.get("/v1/trades", params={"symbol": "AAA", "start": str(START_NS)})

    (event,) = [event for event in events if event["event"] == "request"]
    expected = {"key_id": "0a1b2c3d", "route": "/v1/trades", "status": 200, "rows": 10, "snapshot_id": 1}
    assert {name: event[name] for name in expected} == expected
    assert event["bytes"] == len(response.content)
    assert event["finished"] is True
    assert event["ms"] >= 0
    assert event["request_id"] == response.headers["K2-Request-Id"]
    assert "secretsecret" not in str(events)


def test_a_refused_key_is_in_the_audit_log_without_the_key(client: TestClient) -> None:
    with capture_logs() as events:
        client.get("/v1/trades", headers={"X-API-Key": "another"})

    assert [(event["status"], "key_id" in event) for event in events] == [(401, False)]
    assert "another" not in str(events)


def test_what_machines_ask_every_few_seconds_leaves_no_event(client: TestClient) -> None:
    with capture_logs() as events:
        for path in ("/livez", "/readyz", "/metrics"):
            client.get(path)

    assert events == []


@pytest.mark.parametrize("length", ["101", "99999999999999999999"])
def test_a_body_that_says_it_is_too_long_is_refused(client: TestClient, length: str) -> None:
    response = client.request("GET", "/v1/symbols", headers={"Content-Length": length}, content=b"")

    assert response.status_code == 413
    assert response.json()["request_id"]


def test_a_body_that_grows_too_long_is_refused(client: TestClient) -> None:
    response = client.request("GET", "/v1/symbols", content=iter([b"x" * 60, b"x" * 60]))

    assert response.status_code == 413


def scope(path: str = "/") -> Scope:
    return {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [], "client": None}


def framed(app: Any, seen: list[Exchange], **settings: Any) -> Frame:
    return framed_while(None, app, seen, **settings)


def framed_while(crowded: K2Error | None, app: Any, seen: list[Exchange], **settings: Any) -> Frame:
    made = ApiSettings(**settings)
    return Frame(app, settings=made, clock=SystemClock(), observe=seen.append, crowded=lambda: crowded)


async def nothing_more() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def test_a_client_that_takes_nothing_is_given_up_after_the_limit() -> None:
    seen: list[Exchange] = []

    async def endless(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})

    async def stuck(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    asyncio.run(framed(endless, seen, send_seconds_max=0.01)(scope(), nothing_more, stuck))

    assert [(exchange.stalled, exchange.finished) for exchange in seen] == [(True, False)]


@pytest.mark.parametrize(("path", "status"), [("/v1/trades", 503), ("/livez", 200), ("/health", 200)])
def test_while_no_question_could_wait_they_are_refused_before_they_are_looked_at_and_health_is_answered(
    path: str, status: int
) -> None:
    sent: list[Message] = []

    async def well(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Message) -> None:
        sent.append(message)

    crowded = OverloadedError("full", dependency="api", retry_after_seconds=3, reason="queue_full")
    asyncio.run(framed_while(crowded, well, [])(scope(path), nothing_more, send))

    assert sent[0]["status"] == status
    assert ((b"retry-after", b"3") in sent[0]["headers"]) == (status == 503)


def test_an_error_in_the_middle_of_an_answer_cuts_it_short() -> None:
    async def broken(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("in the middle")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(RuntimeError, match="in the middle"), capture_logs():
        asyncio.run(framed(broken, [])(scope(), nothing_more, send))

    assert [message["type"] for message in sent] == ["http.response.start"]


def test_an_unforeseen_error_is_in_the_log_under_the_id_that_the_client_got() -> None:
    engine = FakeEngine()
    engine.fails_with = RuntimeError("secret detail")  # type: ignore[assignment]  # an error that K2 does not know
    with TestClient(app_of(engine), headers={"X-API-Key": KEY}) as client, capture_logs() as events:
        response = client.get("/v1/trades", params={"symbol": "AAA"})

    assert response.status_code == 500
    (failure,) = [event for event in events if event["event"] == "request_failed"]
    assert failure["request_id"] == response.json()["request_id"]
    assert "secret detail" in failure["error"]
