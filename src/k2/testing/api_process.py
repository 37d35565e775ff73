"""The API as a process of its own, over rows in memory: real sockets and the real server, answers as slow as wanted."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Self

from k2.api import server
from k2.api.app import create_app
from k2.api.keys import ApiKey
from k2.api.settings import ApiSettings
from k2.common import logging
from k2.common.clock import SystemClock
from k2.testing.fake_engine import FakeEngine
from k2.testing.market_rows import market_rows

if TYPE_CHECKING:
    import signal
    from types import TracebackType

    from k2.common.clock import Clock
    from k2.query.request import Answer, QueryRequest

KEY = "key"
_END_SECONDS = 30


class SlowEngine(FakeEngine):
    """Takes `light_seconds` for a question with an end, and `heavy_seconds` for one without."""

    clock: Clock
    light_seconds = 0.0
    heavy_seconds = 0.0

    def query(self, request: QueryRequest) -> Answer:
        """Answer after a while."""
        self.clock.sleep(self.heavy_seconds if request.end_ns is None else self.light_seconds)
        answer = super().query(request)
        self.asked.clear()
        return answer


class ApiProcess:
    """A running API with `rows` trades of AAA. Use it as a context manager."""

    def __init__(self, rows: int, *, light_seconds: float = 0.0, heavy_seconds: float = 0.0, **settings: float) -> None:
        plan = {"rows": rows, "light_seconds": light_seconds, "heavy_seconds": heavy_seconds, "settings": settings}
        words = [sys.executable, "-m", "k2.testing.api_process", json.dumps(plan)]
        # A file: nobody reads a pipe meanwhile, and a full one would stop the process at its next log event.
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - it lives as long as the process
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=self._errors, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()
        self._errors.close()

    def stop(self, number: signal.Signals) -> tuple[str, str]:
        """Send the signal and return what the process printed."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=_END_SECONDS)
        self._errors.seek(0)
        return out, self._errors.read()

    def connect(self, *, receive_bytes: int | None = None) -> socket.socket:
        """Return a connection; `receive_bytes` bounds what the client's side takes before it is read."""
        connection = socket.socket()
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.settimeout(_END_SECONDS)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def raw(self, request: bytes) -> bytes:
        """Send bytes and return all that comes back."""
        with self.connect() as connection:
            connection.sendall(request)
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes or cuts the connection."""
    answer = b""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while part := connection.recv(65_536):
            answer += part
    return answer


def request_of(path: str, *lines: str) -> bytes:
    """Return a GET request with the key and more header lines."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: k2", f"X-API-Key: {KEY}", *lines, "", ""]).encode()


def main(plan: dict[str, Any]) -> None:
    """Serve until stopped; the first line printed is the port."""
    logging.configure(component="api", json=True)
    settings = ApiSettings(**{"shutdown_seconds": 1, **plan["settings"]})
    engine = SlowEngine({"trades": market_rows(range(plan["rows"]), symbols=("AAA",))})
    engine.clock = SystemClock()
    engine.light_seconds, engine.heavy_seconds = plan["light_seconds"], plan["heavy_seconds"]
    with server.listen("127.0.0.1", 0) as listener:
        print(listener.getsockname()[1], flush=True)  # noqa: T201 - how the parent learns the port
        app = create_app(engine, key=ApiKey(KEY), settings=settings, clock=engine.clock, unready=list)
        server.serve(app, listener, settings)
    print("stopped", flush=True)  # noqa: T201 - how the parent sees the end


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
