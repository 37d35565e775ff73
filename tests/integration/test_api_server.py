"""The API as its own process: it answers, stops cleanly by signal, says only log events, and tells a port in use."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from k2.api import server
from k2.client import ApiUnavailableError, K2Client
from k2.common.errors import ConfigurationError
from k2.testing.api_process import ApiProcess


@pytest.fixture
def api() -> Iterator[ApiProcess]:
    with ApiProcess(rows=1_000, connections_max=8) as made:
        yield made


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly_and_all_it_says_is_log_events(api: ApiProcess, number: signal.Signals) -> None:
    with K2Client(f"http://127.0.0.1:{api.port}", "key") as k2:
        assert k2.trades("AAA", start=0).table.num_rows == 1_000

    out, errors = api.stop(number)

    assert api.process.returncode == 0
    assert out == "stopped\n"
    events = [json.loads(line) for line in errors.splitlines()]
    assert [event["event"] for event in events if event["level"] == "info"] == ["request"]


def test_bytes_that_are_no_request_are_refused_and_the_next_one_is_answered() -> None:
    hostile = [
        b"\0\1\2\3\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: k2\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: k2\r\n" + b"X-A: " + b"b" * 100_000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: k2\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    ]

    with ApiProcess(rows=1_000, connections_max=8, keep_alive_seconds=1) as api:
        answers = [api.raw(request)[:12] for request in hostile]

        assert {answer[:10] for answer in answers} <= {b"HTTP/1.1 4", b""}
        connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
        connection.request("GET", "/livez")
        assert connection.getresponse().status == 200
        connection.close()


def test_a_client_that_leaves_in_the_middle_of_an_answer_does_no_harm() -> None:
    with ApiProcess(rows=200_000, connections_max=8) as api:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", api.port), timeout=30) as connection:
                connection.sendall(
                    b"GET /v1/trades?symbol=AAA&start=0&limit=200000 HTTP/1.1\r\nHost: k2\r\nX-API-Key: key\r\n\r\n"
                )
                connection.recv(1_000)
        with K2Client(f"http://127.0.0.1:{api.port}", "key") as k2:
            assert k2.trades("AAA", start=0, limit=10).table.num_rows == 10

        _, errors = api.stop(signal.SIGTERM)

        events = [json.loads(line) for line in errors.splitlines()]
        assert [event["event"] for event in events if event["level"] == "error"] == []
        assert False in {event["finished"] for event in events if event["event"] == "request"}
        assert api.process.returncode == 0


def test_a_stream_ends_when_its_client_leaves_and_says_so_when_the_api_stops() -> None:
    with ApiProcess(rows=100, stream_heartbeat_seconds=0.1, stream_batch_seconds=0.01) as api:
        with K2Client(f"http://127.0.0.1:{api.port}", "key", attempts_max=1) as k2:
            left = next(k2.stream("AAA", start=0))
            staying = k2.stream("AAA", start=0)
            kinds = [next(staying).kind, next(staying).kind]
            deadline = time.monotonic() + 10
            while k2.health()["components"]["api"]["streams"] > 1 and time.monotonic() < deadline:
                time.sleep(0.02)
            open_then = k2.health()["components"]["api"]["streams"]

            began = time.monotonic()
            api.process.send_signal(signal.SIGTERM)
            with pytest.raises(ApiUnavailableError):
                list(staying)
            seconds = time.monotonic() - began

        out, errors = api.stop(signal.SIGTERM)

    assert len(left.rows) == 100
    assert kinds == ["rows", "heartbeat"]
    assert open_then == 1
    assert seconds < 3, "a stop waits for answers, and a stream is none"
    assert out == "stopped\n"
    assert [event for event in map(json.loads, errors.splitlines()) if event["level"] in {"warning", "error"}] == []


def test_many_clients_at_once_each_get_their_answer(api: ApiProcess) -> None:
    counts: list[int] = []

    def ask() -> None:
        with K2Client(f"http://127.0.0.1:{api.port}", "key", attempts_max=20, pause_seconds_max=0.1) as k2:
            counts.append(k2.trades("AAA", start=0, limit=500).table.num_rows)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert counts == [500] * 12


def test_small_answers_do_not_wait_for_the_acknowledgement_of_others(api: ApiProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
    seconds = []

    for _ in range(20):
        began = time.perf_counter()
        connection.request("GET", "/livez")
        connection.getresponse().read()
        seconds.append(time.perf_counter() - began)

    connection.close()
    assert min(seconds) < 0.02, "Nagle's algorithm and delayed acknowledgements cost 40 ms each time"


def test_a_port_in_use_is_named() -> None:
    with server.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{port} to be free.*K2_API__PORT"):
            server.listen("127.0.0.1", port)


def test_an_address_that_is_not_of_this_machine_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="K2_API__HOST"):
        server.listen("203.0.113.1", 0)
