"""What callers see of a platform that is degraded: levels, reasons, 429 and 503, and what is answered all the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from k2.api.app import create_app
from k2.api.keys import ApiKey
from k2.api.levels import PlatformLevel
from k2.api.settings import ApiSettings
from k2.common.announcing import LevelAnnouncement
from k2.common.degradation import DegradationLevel
from k2.common.errors import UnavailableError
from k2.testing.fake_engine import FakeEngine
from k2.testing.gap_events import gap_event, gap_events
from k2.testing.level_board import FakeLevelBoard
from k2.testing.manual_clock import ManualClock
from k2.testing.market_rows import START_NS, market_rows

LIGHT = {"symbol": "AAA", "start": str(START_NS), "end": str(START_NS + 60_000_000_000)}
HEAVY = {"symbol": "AAA", "start": "0"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def board(clock: ManualClock) -> FakeLevelBoard:
    return FakeLevelBoard(clock)


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine({"trades": market_rows(range(30))})
    engine.known_gaps.events = gap_events(gap_event("opened", 10, 14))
    return engine


def client_of(
    engine: FakeEngine, clock: ManualClock, board: FakeLevelBoard | None = None, **settings: Any
) -> TestClient:
    app = create_app(
        engine, key=ApiKey("key"), settings=ApiSettings(**settings), clock=clock, unready=list, board=board
    )
    return TestClient(app, headers={"X-API-Key": "key"})


@pytest.fixture
def client(engine: FakeEngine, clock: ManualClock, board: FakeLevelBoard) -> Iterator[TestClient]:
    with client_of(engine, clock, board, circuit_break_retry_seconds=17) as client:
        yield client


def announce(board: FakeLevelBoard, clock: ManualClock, level: DegradationLevel, worker: str = "w1") -> None:
    now_ns = clock.time_ns()
    board.announce(LevelAnnouncement(worker, level, f"lag of {worker}", now_ns, now_ns))


@pytest.mark.parametrize(
    ("path", "asked"), [("/v1/trades", HEAVY), ("/v1/quotes", HEAVY), ("/v1/symbols", {}), ("/v1/gaps", {})]
)
def test_at_circuit_break_heavy_work_is_refused_with_the_reason_and_when_to_ask_again(
    board: FakeLevelBoard, clock: ManualClock, engine: FakeEngine, path: str, asked: dict[str, str]
) -> None:
    announce(board, clock, DegradationLevel.CIRCUIT_BREAK)

    with client_of(engine, clock, board, circuit_break_retry_seconds=17, light_read_rows_max=0) as client:
        response = client.get(path, params=asked)

    assert (response.status_code, response.headers["Retry-After"]) == (503, "17")
    assert response.json()["reason"] == "circuit_break"
    assert "CIRCUIT_BREAK (lag of w1)" in response.json()["detail"]
    assert engine.asked == []


def test_at_circuit_break_light_reads_are_answered_and_the_certificate_says_the_level(
    client: TestClient, board: FakeLevelBoard, clock: ManualClock
) -> None:
    announce(board, clock, DegradationLevel.CIRCUIT_BREAK)

    response = client.get("/v1/trades", params=LIGHT)

    certificate = response.json()["certificate"]
    assert response.status_code == 200
    assert (certificate["platform_level"], certificate["platform_reason"]) == ("CIRCUIT_BREAK", "lag of w1")


@pytest.mark.parametrize("path", ["/v1/symbols", "/v1/gaps"])
def test_symbols_and_gaps_that_read_little_are_answered_at_circuit_break(
    client: TestClient, board: FakeLevelBoard, clock: ManualClock, path: str
) -> None:
    announce(board, clock, DegradationLevel.CIRCUIT_BREAK)

    response = client.get(path)

    assert response.status_code == 200
    assert response.json()["data"]


@pytest.mark.parametrize("path", ["/v1/symbols", "/v1/gaps"])
def test_symbols_and_gaps_that_read_much_are_answered_as_heavy_questions(
    engine: FakeEngine, clock: ManualClock, path: str
) -> None:
    with client_of(engine, clock, light_read_rows_max=0) as client:
        response = client.get(path)

    assert response.status_code == 200
    assert response.json()["data"]


@pytest.mark.parametrize("level", [level for level in DegradationLevel if level < DegradationLevel.CIRCUIT_BREAK])
def test_below_circuit_break_heavy_work_is_answered(
    client: TestClient, board: FakeLevelBoard, clock: ManualClock, level: DegradationLevel
) -> None:
    announce(board, clock, level)

    response = client.get("/v1/trades", params=HEAVY)

    assert response.status_code == 200
    assert response.json()["certificate"]["platform_level"] == level.name


def test_an_announcement_that_is_old_counts_no_more(
    client: TestClient, board: FakeLevelBoard, clock: ManualClock
) -> None:
    announce(board, clock, DegradationLevel.CIRCUIT_BREAK)
    clock.advance(16)

    response = client.get("/v1/trades", params=HEAVY)

    assert response.status_code == 200
    assert response.json()["certificate"]["platform_level"] is None


def test_the_worker_with_the_highest_level_decides(
    client: TestClient, board: FakeLevelBoard, clock: ManualClock
) -> None:
    announce(board, clock, DegradationLevel.GRACEFUL, "w1")
    announce(board, clock, DegradationLevel.NORMAL, "w2")

    body = client.get("/health").json()

    assert (body["level"], body["level_reason"]) == ("GRACEFUL", "lag of w1")


@pytest.mark.parametrize("level", DegradationLevel)
def test_enrichment_is_skipped_from_soft_on(clock: ManualClock, board: FakeLevelBoard, level: DegradationLevel) -> None:
    announce(board, clock, level)

    skips = PlatformLevel(board, retry_after_seconds=1).skips_enrichment

    assert skips == (level >= DegradationLevel.SOFT)
    assert not PlatformLevel(None, retry_after_seconds=1).skips_enrichment


def test_a_platform_without_a_board_answers_as_at_normal(engine: FakeEngine, clock: ManualClock) -> None:
    with client_of(engine, clock) as client:
        response = client.get("/v1/trades", params=HEAVY)

        assert response.status_code == 200
        assert client.get("/health").json()["level"] is None


def test_a_key_over_its_rate_gets_429_and_health_is_answered_all_the_same(
    engine: FakeEngine, clock: ManualClock
) -> None:
    with client_of(engine, clock, key_questions_per_second=0.5, key_burst_questions=2) as client:
        statuses = [client.get("/v1/trades", params=LIGHT).status_code for _ in range(3)]
        refused = client.get("/v1/trades", params=LIGHT)
        metrics = client.get("/metrics").text

    assert statuses == [200, 200, 429]
    assert (refused.headers["Retry-After"], refused.json()["reason"]) == ("2", "key_rate")
    assert 'k2_api_refused_total{reason="key_rate"} 2.0' in metrics


def test_answers_that_are_over_are_not_under_way_whatever_came_of_them(engine: FakeEngine, clock: ManualClock) -> None:
    with client_of(engine, clock, key_questions_at_once_max=1) as client:
        asked = [LIGHT, HEAVY, {"symbol": ""}, {**LIGHT, "format": "arrow"}, LIGHT]
        statuses = [client.get("/v1/trades", params=question).status_code for question in asked]
        health = client.get("/health").json()["components"]["api"]

    assert statuses == [200, 200, 422, 200, 200]
    assert (health["running"], health["sending_bytes"]) == (0, 0)


def test_a_dependency_that_is_down_is_named_for_programs(client: TestClient, engine: FakeEngine) -> None:
    engine.fails_with = UnavailableError("the broker is down", dependency="kafka", retry_after_seconds=4)

    response = client.get("/v1/trades", params=LIGHT)

    assert (response.status_code, response.headers["Retry-After"]) == (503, "4")
    assert response.json()["reason"] == "kafka_unavailable"


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon"])
def test_an_impossible_staleness_is_refused(client: TestClient, value: str) -> None:
    assert client.get("/v1/trades", params={**LIGHT, "max_staleness": value}).status_code == 422


def test_what_the_caller_accepts_reaches_the_engine(client: TestClient, engine: FakeEngine) -> None:
    client.get("/v1/trades", params={**LIGHT, "on_degrade": "stale", "max_staleness": "2.5"})

    assert (engine.asked[0].on_degrade, engine.asked[0].max_staleness_seconds) == ("stale", 2.5)
