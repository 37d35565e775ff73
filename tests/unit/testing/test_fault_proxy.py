"""The fault proxy passes bytes on, and does with them what it is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from k2.testing.fault_proxy import HEALTHY, FaultProxy, NetworkFault
from k2.testing.manual_clock import ManualClock


class Echo:
    """A server that answers each request with its own bytes, and keeps what it got."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.arrived = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while True:
                try:
                    data = connection.recv(65_536)
                except OSError:
                    return
                if not data:
                    return
                self.got.append(data)
                self.arrived.set()
                connection.sendall(data)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def proxy(echo: Echo, clock: ManualClock) -> Iterator[FaultProxy]:
    with FaultProxy(echo.port, clock=clock) as started:
        yield started


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as connected:
        yield connected


def ask(client: socket.socket, request: bytes = b"hello") -> bytes:
    client.sendall(request)
    return client.recv(65_536)


def test_bytes_pass_both_ways(proxy: FaultProxy, client: socket.socket) -> None:
    assert ask(client) == b"hello"
    assert proxy.connections == 1


def test_a_delay_passes_before_each_way(proxy: FaultProxy, client: socket.socket, clock: ManualClock) -> None:
    proxy.fault = NetworkFault(delay_seconds=7)

    answer = ask(client)

    assert answer == b"hello"
    assert clock.monotonic() >= 14


def test_a_dropped_reply_was_a_request_all_the_same(proxy: FaultProxy, client: socket.socket, echo: Echo) -> None:
    proxy.fault = NetworkFault(drop_replies=True)
    client.settimeout(0.2)

    with pytest.raises(TimeoutError):
        ask(client)

    assert echo.got == [b"hello"]
    assert proxy.bytes_dropped == 5


def test_a_cut_ends_connections_old_and_new(proxy: FaultProxy, client: socket.socket) -> None:
    assert ask(client) == b"hello"

    proxy.fault = NetworkFault(cut=True)

    assert is_ended(client)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as late:
        assert is_ended(late)


def is_ended(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_reply_can_be_cut_in_its_middle(proxy: FaultProxy, client: socket.socket) -> None:
    proxy.fault = NetworkFault(cut_after_bytes=3)

    assert ask(client) == b"hel"
    assert is_ended(client)


def test_a_silent_network_keeps_the_connection_and_passes_nothing_until_it_is_over(
    proxy: FaultProxy, client: socket.socket, echo: Echo
) -> None:
    proxy.fault = NetworkFault(silent=True)
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        ask(client)
    arrived = list(echo.got)

    proxy.fault = HEALTHY
    client.settimeout(5)

    assert client.recv(100) == b"hello"
    assert arrived == []


def test_a_server_that_is_not_there_is_a_closed_connection(echo: Echo) -> None:
    echo.close()
    with (
        FaultProxy(1, clock=ManualClock()) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as client,
    ):
        assert is_ended(client)
