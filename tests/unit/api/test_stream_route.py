"""The route of streams: what it takes, what it refuses, and that a stream holds neither a turn nor a question."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from k2.api.app import create_app
from k2.api.asking import Asking
from k2.api.keys import ApiKey
from k2.api.levels import PlatformLevel
from k2.api.settings import ApiSettings
from k2.api.streams.hub import LiveHub
from k2.api.streams.sending import Sender, Waker
from k2.api.streams.subscription import StreamRequest
from k2.api.turns import Turns
from k2.common.clock import SystemClock
from k2.common.errors import CorruptionError, UnavailableError
from k2.testing.fake_engine import FakeEngine
from k2.testing.market_rows import START_NS, market_rows


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine({"trades": market_rows(range(30), symbols=("AAA", "BBB"))})


@pytest.fixture
def client(engine: FakeEngine) -> Iterator[TestClient]:
    settings = ApiSettings(stream_symbols_max=2, key_questions_at_once_max=1)
    app = create_app(engine, key=ApiKey("key"), settings=settings, clock=SystemClock(), unready=list)
    with TestClient(app, headers={"X-API-Key": "key"}) as client:
        yield client


def events_of(text: str) -> list[tuple[str, str, Any]]:
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))
    return found


def test_without_following_a_stream_ends_at_the_newest_record(client: TestClient) -> None:
    response = client.get("/v1/stream", params={"symbol": ["AAA", "BBB"], "from": "0", "follow": "false"})

    events = events_of(response.text)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert [name for name, _, _ in events] == ["rows", "heartbeat", "end"]
    assert [row["log_offset"] for row in events[0][2]] == list(range(30))
    assert events[1][2]["live"] is True
    assert events[2][2] == {"reason": "all_sent"}


def test_the_last_event_of_a_browser_goes_before_the_cursor_and_the_beginning(client: TestClient) -> None:
    asked = {"symbol": "AAA", "from": "0", "follow": "false"}
    first = events_of(client.get("/v1/stream", params=asked).text)

    again = client.get("/v1/stream", params={**asked, "cursor": "nonsense"}, headers={"Last-Event-ID": first[0][1]})

    assert [name for name, _, _ in events_of(again.text)] == ["heartbeat", "end"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"symbol": ["A", "B", "C"]}, "K2_API__STREAM_SYMBOLS_MAX"),
        ({"symbol": ["AAA"], "from": "yesterday"}, "expected from as ISO 8601"),
        ({"symbol": ["AAA"], "from": "eyJ2IjoxfQ"}, "token of a certificate"),
        ({"symbol": ["AAA"], "exchange": "nyse"}, "expected an exchange of topics.yaml"),
        ({"symbol": ["AAA"], "cursor": "x"}, "id of an event"),
        ({"symbol": ["A\tA"]}, "control"),
        ({"symbol": ["AAA"], "bars": "2d"}, "expected an interval"),
        ({"symbol": ["AAA"], "bars": "1m", "table": "quotes"}, "expected bars of trades"),
        ({"symbol": ["AAA"], "start": "0"}, "expected one of bars, cursor, exchange, follow"),
        ({"symbol": ["AAA"], "table": ["trades", "quotes"]}, "expected table once"),
    ],
)
def test_what_cannot_be_followed_is_refused_before_it_begins(
    client: TestClient, given: dict[str, Any], said: str
) -> None:
    response = client.get("/v1/stream", params=given)

    assert response.status_code in {400, 422}
    assert said in response.json()["detail"]


def bars_of(client: TestClient, **given: str) -> list[tuple[str, str, Any]]:
    asked = {"symbol": ["AAA", "BBB"], "bars": "1h", "follow": "false", **given}
    return [event for event in events_of(client.get("/v1/stream", params=asked).text) if event[0] == "bar"]


def test_bars_come_once_they_are_final_and_a_cursor_goes_on_behind_them(client: TestClient) -> None:
    answered = [
        client.get("/v1/ohlcv", params={"symbol": symbol, "interval": "1h", "start": "0"}).json()["data"][0]
        for symbol in ("AAA", "BBB")
    ]

    told = bars_of(client, **{"from": str(START_NS - 5_000_000_000)})

    assert [bar for _, _, bars in told for bar in bars] == answered
    assert bars_of(client, cursor=told[-1][1]) == []


class Sending:
    """A stream that is sent in this process."""

    def __init__(self, engine: FakeEngine, **settings: Any) -> None:
        self.engine = engine
        self.settings = ApiSettings(**{"stream_heartbeat_seconds": 0.05, "stream_batch_seconds": 0.001, **settings})
        clock = SystemClock()
        self.turns = Turns(self.settings, clock)
        level = PlatformLevel(None, retry_after_seconds=1)
        self.asking = Asking(engine, self.turns, level, self.settings, clock)
        self.hub = LiveHub(engine, self.settings, clock)

    async def events(self, until: Callable[[str, Any], bool]) -> list[tuple[str, Any]]:
        request = StreamRequest(data_type="trades", symbols=("AAA",), start_ns=0)
        found = []
        waker = Waker()
        with self.hub.subscribed(request, "key", waker.wake) as subscription:
            position = self.hub.begin(request, with_history=True)
            sender = Sender(self.asking, self.hub, subscription, position, waker, facts={"rows": 0})
            sent: AsyncIterator[bytes] = sender.events()
            async with asyncio.timeout(30):
                async for part in sent:
                    name, _, body = events_of(part.decode())[0]
                    found.append((name, body))
                    if until(name, body):
                        break
        self.hub.end()
        self.turns.close()
        return found


def test_a_live_stream_holds_no_turn(engine: FakeEngine) -> None:
    sending = Sending(engine)
    running = []

    def live(name: str, body: Any) -> bool:
        running.append(sending.turns.running)
        return name == "heartbeat" and len(running) > 2

    events = asyncio.run(sending.events(live))

    assert [name for name, _ in events] == ["rows", "heartbeat", "heartbeat"]
    assert running[1:] == [0, 0]


def test_a_stream_says_what_keeps_it_from_going_on_and_goes_on_later(engine: FakeEngine) -> None:
    sending = Sending(engine)
    engine.fails_with = UnavailableError("the catalog is away", dependency="catalog", retry_after_seconds=0.01)

    def heals(name: str, body: Any) -> bool:
        if name == "heartbeat":
            engine.fails_with = None
        return name == "heartbeat" and body["live"]

    events = asyncio.run(sending.events(heals))

    assert events[0][1]["reasons"] == ["the catalog is away"]
    assert (events[0][1]["live"], events[0][1]["degradation_level"]) == (False, "PARTIAL")
    assert [name for name, _ in events[1:]] == ["rows", "heartbeat"]
    assert events[-1][1]["reasons"] == []


def test_a_failure_that_does_not_pass_ends_the_stream_with_its_reason(engine: FakeEngine) -> None:
    sending = Sending(engine)
    engine.fails_with = CorruptionError("a file is damaged", path="x")

    events = asyncio.run(sending.events(lambda *_: False))

    assert [(name, body["status"]) for name, body in events] == [("error", 500)]
