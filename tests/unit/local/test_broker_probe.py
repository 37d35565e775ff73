"""The one question that the supervisor asks a broker."""

from __future__ import annotations

import socket
import struct
import threading

import pytest

from k2.local.broker_probe import BrokerAnswer, ask_broker
from k2.local.component import UnhealthyError


def _string(text: str | None) -> bytes:
    return struct.pack(">h", -1) if text is None else struct.pack(">h", len(text)) + text.encode()


def _answer(*brokers: tuple[int, str, int, str | None], cluster: str = "c-1") -> bytes:
    body = struct.pack(">iii", 1, 0, len(brokers))
    for node, host, port, rack in brokers:
        body += struct.pack(">i", node) + _string(host) + struct.pack(">i", port) + _string(rack)
    body += _string(cluster) + struct.pack(">ii", 1, 0)
    return struct.pack(">i", len(body)) + body


@pytest.fixture
def serve():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threads = []

        def start(answer: bytes) -> int:
            def run() -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1024)
                    connection.sendall(answer)

            threads.append(threading.Thread(target=run))
            threads[-1].start()
            return int(listener.getsockname()[1])

        yield start
        for thread in threads:
            thread.join()


def test_the_answer_names_the_cluster_and_counts_its_brokers(serve):
    port = serve(_answer((1, "127.0.0.1", 9092, None), (2, "h", 1, "rack")))

    assert ask_broker("127.0.0.1", port, timeout_seconds=5) == BrokerAnswer("c-1", 2)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", _answer((1, "h", 1, None))[:20]])
def test_what_is_no_broker_is_unhealthy(serve, answer):
    port = serve(answer)

    with pytest.raises(UnhealthyError, match=str(port)):
        ask_broker("127.0.0.1", port, timeout_seconds=5)


def test_nobody_there_is_unhealthy(serve):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]

        with pytest.raises(UnhealthyError, match="no answer"):
            ask_broker("127.0.0.1", port, timeout_seconds=1)
