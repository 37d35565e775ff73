"""Clients that are slow on purpose: they hold no connection and no memory for long, and keep nobody else out."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import httpx2
import psutil
import pytest

from k2.testing.api_process import ApiProcess, read_all, request_of
from k2.testing.market_rows import START_NS

LONG = "/v1/trades?symbol=AAA&start=0&limit=200000"
ONE_PART = "/v1/trades?symbol=AAA&start=0&limit=30000"
LIGHT = f"/v1/trades?symbol=AAA&start={START_NS}&end={START_NS + 1_000_000_000}&limit=10"
WAIT_SECONDS = 20


@pytest.fixture(scope="module")
def api() -> Iterator[ApiProcess]:
    with ApiProcess(
        rows=200_000, request_seconds_max=0.5, send_seconds_max=0.5, keep_alive_seconds=1, connections_max=6
    ) as made:
        yield made


def established(api: ApiProcess) -> int:
    return sum(each.status == "ESTABLISHED" for each in psutil.Process(api.process.pid).net_connections())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def drip(connection: socket.socket, data: bytes) -> bytes:
    """Send a byte now and then; return what came back once the other side had enough."""
    try:
        for number in range(len(data)):
            connection.sendall(data[number : number + 1])
            time.sleep(0.1)
    except (ConnectionResetError, BrokenPipeError):
        pass
    else:
        pytest.fail("every byte was taken, however late")
    return read_all(connection)


def test_a_head_that_comes_too_slowly_is_refused(api: ApiProcess) -> None:
    with api.connect() as connection:
        connection.sendall(request_of("/livez")[:-2])
        answer = read_all(connection)

    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("begin", [b"", b"GET /livez HTTP/1.1\r\nX-A: "])
def test_bytes_now_and_then_do_not_hold_a_connection(api: ApiProcess, begin: bytes) -> None:
    with api.connect() as connection:
        connection.sendall(begin)

        drip(connection, b"G" * 200)


def test_a_client_that_says_nothing_is_cut(api: ApiProcess) -> None:
    with api.connect() as connection:
        assert read_all(connection) == b""


def test_a_body_that_comes_too_slowly_is_cut_also_after_the_answer(api: ApiProcess) -> None:
    with api.connect() as connection:
        connection.sendall(request_of("/livez", "Content-Length: 1000"))

        drip(connection, b"x" * 200)


def test_a_second_request_on_a_connection_has_to_be_as_quick(api: ApiProcess) -> None:
    with api.connect() as connection:
        connection.sendall(request_of("/livez"))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")

        connection.sendall(b"GET /li")

        assert b"HTTP/1.1 408 " in read_all(connection)


@pytest.mark.parametrize("path", [LONG, ONE_PART])
def test_a_reader_that_takes_nothing_loses_its_connection_and_its_answer_is_let_go(api: ApiProcess, path: str) -> None:
    with api.connect(receive_bytes=4096) as connection:
        connection.sendall(request_of(path))
        until(lambda: held_bytes(api) > 0 or established(api) == 0)

        until(lambda: established(api) == 0)

        assert held_bytes(api) == 0
        assert not read_all(connection).endswith(b"\r\n0\r\n\r\n"), "the answer came to its end"


def held_bytes(api: ApiProcess) -> int:
    body = api.raw(request_of("/health", "Connection: close"))
    found: int = json.loads(body.partition(b"\r\n\r\n")[2])["components"]["api"]["sending_bytes"]
    return found


@pytest.fixture(scope="module")
def patient() -> Iterator[ApiProcess]:
    with ApiProcess(rows=200_000, connections_max=4, idle_seconds_min=0.1, key_questions_at_once_max=1) as made:
        yield made


def test_idle_connections_make_room_for_new_ones(patient: ApiProcess) -> None:
    idle = [patient.connect() for _ in range(4)]
    for connection in idle:
        connection.sendall(b"GET /v1/trades HTTP/1.1\r\n")
    until(lambda: established(patient) == 4)
    time.sleep(0.3)

    answers = [patient.raw(request_of(LIGHT, "Connection: close")) for _ in range(8)]

    assert [answer[:13] for answer in answers] == [b"HTTP/1.1 200 "] * 8
    for connection in idle:
        connection.close()


def test_an_answer_counts_for_its_key_until_it_is_sent(patient: ApiProcess) -> None:
    with patient.connect(receive_bytes=4096) as connection:
        connection.sendall(request_of(LONG))
        until(lambda: held_bytes(patient) > 0)

        refused = patient.raw(request_of(LIGHT, "Connection: close"))

    assert refused.startswith(b"HTTP/1.1 429 ")
    assert b'"reason":"key_concurrency"' in refused
    until(lambda: patient.raw(request_of(LIGHT, "Connection: close")).startswith(b"HTTP/1.1 200 "))


def test_when_every_connection_is_busy_questions_are_refused_and_health_is_answered() -> None:
    with ApiProcess(rows=10, light_seconds=3.0, connections_max=3, connections_spare=2) as api:
        busy = [api.connect() for _ in range(3)]
        for connection in busy:
            connection.sendall(request_of(LIGHT))
        until(lambda: established(api) == 3)

        question = api.raw(request_of(LIGHT))
        health = api.raw(request_of("/livez", "Connection: close"))
        spare = [api.connect() for _ in range(2)]
        until(lambda: established(api) == 5)
        beyond = api.raw(request_of("/livez"))

        assert question.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in question.lower()
        assert b'"reason":"connections"' in question
        assert health.startswith(b"HTTP/1.1 200 ")
        assert beyond == b""
        for connection in busy + spare:
            connection.close()


def test_far_beyond_its_capacity_it_refuses_with_retry_after_and_nothing_else() -> None:
    settings = {"concurrency_max": 4, "queue_max": 8, "queue_seconds_max": 0.5, "key_questions_at_once_max": 100}
    counts: Counter[tuple[str, int, bool]] = Counter()
    over = threading.Event()

    with ApiProcess(rows=100, light_seconds=0.02, heavy_seconds=0.2, **settings) as api:

        def ask(kind: str, path: str) -> None:
            with httpx2.Client(
                base_url=f"http://127.0.0.1:{api.port}", headers={"X-API-Key": "key"}, trust_env=False, timeout=30
            ) as client:
                while not over.is_set():
                    response = client.get(path)
                    counts[kind, response.status_code, "Retry-After" in response.headers] += 1

        plan = [("light", LIGHT)] * 20 + [("heavy", LONG)] * 20 + [("health", "/health"), ("health", "/metrics")]
        threads = [threading.Thread(target=ask, args=each) for each in plan]
        for thread in threads:
            thread.start()
        time.sleep(3)
        over.set()
        for thread in threads:
            thread.join(WAIT_SECONDS)

    assert set(counts) <= {
        ("light", 200, False),
        ("light", 503, True),
        ("heavy", 200, False),
        ("heavy", 503, True),
        ("health", 200, False),
    }
    assert counts["light", 200, False] > 0
    assert counts["heavy", 503, True] > 0
    assert counts["health", 200, False] > 0
