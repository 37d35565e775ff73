"""Ask a Kafka broker who it is, over one short-lived socket.

The supervisor asks every two seconds for as long as the platform runs. A librdkafka client would keep threads and
some 20 MiB for that, and would retry on its own while the broker is away; one request of the protocol is enough.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final

from k2.local.component import UnhealthyError

_METADATA: Final = 3
_VERSION: Final = 4
_CLIENT: Final = b"k2-platform"
_ANSWER_BYTES_MAX: Final = 1024 * 1024


@dataclass(frozen=True)
class BrokerAnswer:
    """The cluster's id and how many brokers it has registered."""

    cluster_id: str
    brokers: int


def ask_broker(host: str, port: int, *, timeout_seconds: float) -> BrokerAnswer:
    """Return what the broker says of its cluster.

    Raises:
        UnhealthyError: no broker answers there in time.
    """
    body = struct.pack(">hhih", _METADATA, _VERSION, 1, len(_CLIENT)) + _CLIENT + struct.pack(">i?", 0, False)
    try:
        with socket.create_connection((host, port), timeout_seconds) as connection:
            connection.settimeout(timeout_seconds)
            connection.sendall(struct.pack(">i", len(body)) + body)
            (size,) = struct.unpack(">i", _exactly(connection, 4))
            if not 0 < size <= _ANSWER_BYTES_MAX:
                raise UnhealthyError(f"what answers on port {port} is no Kafka broker")
            return _parse(_exactly(connection, size))
    except (OSError, struct.error, UnicodeDecodeError) as error:
        raise UnhealthyError(f"no answer from the broker on port {port}: {error}") from error


def _exactly(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        chunk = connection.recv(size - len(received))
        if not chunk:
            raise ConnectionResetError("the connection was closed")
        received += chunk
    return bytes(received)


def _parse(answer: bytes) -> BrokerAnswer:
    """Read a metadata answer, version 4: correlation, throttle, brokers (node, host, port, rack), cluster id."""
    (brokers,) = struct.unpack_from(">i", answer, 8)
    position = 12
    for _ in range(brokers):
        position += 4
        position = _after_string(answer, position) + 4
        position = _after_string(answer, position)
    (length,) = struct.unpack_from(">h", answer, position)
    cluster_id = answer[position + 2 : position + 2 + max(length, 0)].decode("utf-8")
    return BrokerAnswer(cluster_id, brokers)


def _after_string(answer: bytes, position: int) -> int:
    (length,) = struct.unpack_from(">h", answer, position)
    return position + 2 + max(int(length), 0)
