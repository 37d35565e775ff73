"""Streams as a client sees them: events however the bytes are cut, and going on after a connection was lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from k2.client import ApiUnavailableError, AsyncK2Client, K2Client, RefusedKeyError, RefusedQuestionError, StreamEvent
from k2.client.streaming import EventParser
from k2.testing.manual_clock import ManualClock


def written(kind: str, body: Any, cursor: str | None = None) -> bytes:
    at = "" if cursor is None else f"id: {cursor}\n"
    return f"event: {kind}\n{at}data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


@pytest.mark.parametrize("size", [1, 2, 7, 1_000])
def test_events_come_whole_however_the_bytes_are_cut(size: int) -> None:
    text = "a: b\u2028\x85c"
    body = written("rows", [{"symbol": text}], "c1") + written("heartbeat", {"live": True})
    parser = EventParser()

    events = [event for at in range(0, len(body), size) for event in parser.feed(body[at : at + size])]

    assert events == [StreamEvent("rows", [{"symbol": text}], "c1"), StreamEvent("heartbeat", {"live": True}, None)]
    assert events[0].rows == [{"symbol": text}]
    assert events[1].rows == []


class Cut(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that ends with a failure of the connection."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body
        raise httpx2.ReadError("cut")

    async def __aiter__(self) -> Any:
        for part in self:
            yield part


class Server:
    """Answers one request after the other with what it is given."""

    def __init__(self, *answers: httpx2.Response) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, str]] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(dict(request.url.params))
        return self.answers.pop(0)


def problem(status: int) -> httpx2.Response:
    return httpx2.Response(status, json={"detail": "no"}, headers={"Retry-After": "2"})


END = written("end", {"reason": "all_sent"}, "c9")


def client(server: Server, clock: ManualClock | None = None) -> K2Client:
    return K2Client("http://k2", "key", transport=httpx2.MockTransport(server), clock=clock or ManualClock())


def test_a_stream_that_was_cut_goes_on_behind_its_last_event() -> None:
    server = Server(
        httpx2.Response(200, stream=Cut(written("rows", [1], "c1") + written("rows", [2], "c2") + b"event: ro")),
        problem(503),
        httpx2.Response(200, content=written("rows", [3], "c3") + written("end", {"reason": "stopping"}, "c4")),
        httpx2.Response(200, content=written("rows", [4], "c5") + END),
    )

    with client(server) as k2:
        events = list(k2.stream(["A", "B"], start="0", exchange="sim", on_slow="drop"))

    assert [event.body for event in events] == [[1], [2], [3], [4]]
    assert [asked.get("cursor") for asked in server.asked] == [None, "c2", "c2", "c4"]
    assert [asked.get("from") for asked in server.asked] == ["0", None, None, None]
    assert server.asked[0]["on_slow"] == "drop"


def test_the_asynchronous_client_does_the_same() -> None:
    server = Server(httpx2.Response(200, stream=Cut(written("rows", [1], "c1"))), httpx2.Response(200, content=END))

    async def follow() -> list[StreamEvent]:
        async with AsyncK2Client("http://k2", "key", transport=httpx2.MockTransport(server), pause_seconds_max=0) as k2:
            return [event async for event in k2.stream("A")]

    assert [event.body for event in asyncio.run(follow())] == [[1]]
    assert [asked.get("cursor") for asked in server.asked] == [None, "c1"]


def test_the_pause_that_a_refusal_asks_for_is_kept() -> None:
    clock = ManualClock()
    began = clock.monotonic()

    with client(Server(problem(503), httpx2.Response(200, content=END)), clock) as k2:
        assert list(k2.stream("A")) == []

    assert clock.monotonic() - began == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (problem(422), RefusedQuestionError),
        (problem(401), RefusedKeyError),
        (problem(500), ApiUnavailableError),
        (httpx2.Response(200, content=written("error", {"status": 410, "detail": "gone"})), RefusedQuestionError),
        (httpx2.Response(200, content=written("error", {"status": 500, "detail": "x"})), ApiUnavailableError),
        (
            httpx2.Response(200, content=written("error", {"status": 503, "detail": "x", "reason": "slow_reader"})),
            ApiUnavailableError,
        ),
    ],
    ids=["question", "key", "failure", "expired", "failed", "slow"],
)
def test_what_another_attempt_would_meet_again_ends_the_stream(answer: httpx2.Response, error: type[Exception]) -> None:
    with client(Server(answer)) as k2, pytest.raises(error):
        list(k2.stream("A"))


def test_there_is_an_end_to_attempts_in_vain_but_each_event_begins_the_count_anew() -> None:
    busy = [httpx2.Response(200, content=written("error", {"status": 503, "detail": "busy"})) for _ in range(3)]
    server = Server(problem(503), problem(503), httpx2.Response(200, stream=Cut(written("heartbeat", {}, "c1"))), *busy)

    with client(server) as k2, pytest.raises(ApiUnavailableError, match="busy"):
        list(k2.stream("A"))

    assert len(server.asked) == 5
