"""A proxy before an HTTP server that answers 500 or 503, keeps silent, loses replies or is slow, as a test asks."""

from __future__ import annotations

import threading
from contextlib import suppress
from enum import Enum
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Self

from k2.local.ports import HOST

_UPSTREAM_SECONDS_MAX: Final = 60.0
_HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


class HttpFault(Enum):
    """What happens to each request."""

    NONE = "none"
    REFUSE = "refuse"
    """The connection ends before anything is answered; the server behind never hears of the request."""
    ANSWER = "answer"
    """The proxy answers `status` itself."""
    LOSE_REPLY = "lose_reply"
    """The server behind does its work; its reply is thrown away and the connection ends."""
    SILENCE = "silence"
    """Nothing is answered until the fault is over; then the connection ends."""
    DELAY = "delay"
    """The request is handed on after `seconds`."""


class HttpFaults:
    """One proxy; `set` changes what happens from the next request on."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.requests = 0
        self.faulty_requests = 0
        self.fault = HttpFault.NONE
        self.status = 503
        self.seconds = 0.0
        self.writes_only = False
        self.over = threading.Event()
        proxy = self

        class Handler(_Handler):
            faults = proxy

        self._server = _Server((HOST, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Return the port to connect to in place of the server's."""
        return int(self._server.server_address[1])

    def set(self, fault: HttpFault, *, status: int = 503, seconds: float = 0.0, writes_only: bool = False) -> None:
        """Begin a fault, of every request or of POST and PUT only, or end one with `HttpFault.NONE`.

        Who waits in a silence is let go.
        """
        self.over.set()
        self.over = threading.Event()
        self.status, self.seconds, self.writes_only, self.fault = status, seconds, writes_only, fault

    def fault_of(self, method: str) -> HttpFault:
        """Return what is to happen to a request, and count it."""
        fault = HttpFault.NONE if self.writes_only and method not in {"POST", "PUT"} else self.fault
        self.requests += 1
        self.faulty_requests += fault is not HttpFault.NONE
        return fault

    def close(self) -> None:
        """End the proxy and every connection."""
        self.set(HttpFault.REFUSE)
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: broken connections are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    faults: HttpFaults
    protocol_version = "HTTP/1.1"
    timeout = _UPSTREAM_SECONDS_MAX

    def do_GET(self) -> None:
        faults = self.faults
        fault, over = faults.fault_of(self.command), faults.over
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        body = self._body()
        match fault:
            case HttpFault.REFUSE:
                self.close_connection = True
            case HttpFault.SILENCE:
                over.wait(_UPSTREAM_SECONDS_MAX)
                self.close_connection = True
            case HttpFault.ANSWER:
                self._answer(faults.status, [("Content-Type", "text/plain")], b"out of order")
            case HttpFault.DELAY:
                over.wait(faults.seconds)
                self._hand_on(body, lose_reply=False)
            case _:
                self._hand_on(body, lose_reply=fault is HttpFault.LOSE_REPLY)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815  # the names that http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's own signature
        """Say nothing."""

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        content = self.rfile.read(size)
        self.rfile.readline()
        return content

    def _hand_on(self, body: bytes, *, lose_reply: bool) -> None:
        """Ask the server behind with the very headers that came: S3 requests are signed, `Host` included."""
        connection = HTTPConnection(HOST, self.faults.upstream_port, timeout=_UPSTREAM_SECONDS_MAX)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP | {"expect"}:
                    connection.putheader(name, value)
            if body or self.command in {"POST", "PUT"}:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            response = connection.getresponse()
            content = response.read()
        except (OSError, HTTPException):
            self.close_connection = True
            return
        finally:
            connection.close()
        if lose_reply:
            self.close_connection = True
            return
        headers = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP]
        length = response.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self._answer(response.status, headers, content, length=length)

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, *, length: str | None = None
    ) -> None:
        with suppress(OSError):
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            if length is not None or content:
                self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
