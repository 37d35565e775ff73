"""The worker's own HTTP server: `/metrics`, `/livez`, `/readyz`; small, on loopback unless set otherwise."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final

from k2.common.errors import ConfigurationError
from k2.common.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.common.metrics import Metrics

REQUEST_SECONDS_MAX: Final = 5.0


class StatusServer:
    """Serves until it is stopped."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        metrics: Metrics,
        unready: Callable[[], list[str]],
        silent_seconds: Callable[[], float],
        silent_seconds_max: float,
    ) -> None:
        """Bind the address. `silent_seconds` tells how long ago a thread of the worker was last heard of."""

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_SECONDS_MAX

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(HTTPStatus.OK, metrics.render(), CONTENT_TYPE)
                elif self.path == "/livez":
                    silent = silent_seconds()
                    self._answer_reasons(
                        [f"a thread was silent for {silent:.0f} s"] if silent > silent_seconds_max else []
                    )
                elif self.path == "/readyz":
                    self._answer_reasons(unready())
                else:
                    self._answer(HTTPStatus.NOT_FOUND, b"/metrics, /livez, /readyz\n", "text/plain")

            def _answer_reasons(self, reasons: list[str]) -> None:
                status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
                self._answer(status, json.dumps({"ok": not reasons, "reasons": reasons}).encode(), "application/json")

            def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
                with suppress(ConnectionError):  # who asked did not wait for the answer
                    self.send_response(status)
                    self.send_header("Content-Type", content_type)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class's name
                """Say nothing: a probe a second is no event."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise ConfigurationError(
                f"cannot serve the worker's metrics on {host}:{port} ({error.strerror}): set "
                "K2_INGESTION__METRICS_PORT or --metrics-port to a free port, or to 0"
            ) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="k2-ingest-status", daemon=True)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it is bound to."""
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def start(self) -> None:
        """Serve, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
