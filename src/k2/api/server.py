"""Serves the app with uvicorn: a socket of its own, a stop by signal that ends cleanly, its messages as log events."""

from __future__ import annotations

import logging
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import uvicorn

from k2.api.connections import limited_connections
from k2.common.errors import ConfigurationError
from k2.common.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi import FastAPI

    from k2.api.settings import ApiSettings

log = get_logger(__name__)
_BACKLOG: Final = 256
_HEAD_BYTES_EXTRA: Final = 4096
"""Room for the request line's verb and for separators beyond URL and headers."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; ConfigurationError if the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named, asyncio turns Nagle's delay off in each connection: it costs 40 ms an answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"expected {host}:{port} to be free for the API, found: {error.strerror}; "
            "set K2_API__PORT or K2_API__HOST, or stop what holds it"
        ) from error
    return listener


def serve(app: FastAPI, listener: socket.socket, settings: ApiSettings) -> None:
    """Answer requests until SIGTERM or SIGINT; answers that run then get `shutdown_seconds` to end."""
    server = Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=settings.keep_alive_seconds,
            timeout_graceful_shutdown=settings.shutdown_seconds,
            h11_max_incomplete_event_size=settings.url_bytes_max + settings.header_bytes_max + _HEAD_BYTES_EXTRA,
            ws="none",
            http=limited_connections(settings),
        ),
        app.state.end_streams,
    )
    with _stopped_by_signals(server), _messages_as_events():
        server.run(sockets=[listener])


@contextmanager
def _stopped_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """Keep the signal that uvicorn raises once more after its own clean stop from ending the process on the spot."""

    def stop(*_: object) -> None:
        server.should_exit = True

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Server(uvicorn.Server):
    """A server whose streams end before it waits for its answers: they would not by themselves."""

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then everything else."""
        self._end_streams()
        await super().shutdown(sockets)


class _Events(logging.Handler):
    """Passes what uvicorn has to say on as log events."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one message."""
        log.log(record.levelno, "server", message=record.getMessage(), exc_info=record.exc_info)


@contextmanager
def _messages_as_events() -> Iterator[None]:
    """Send uvicorn's and asyncio's warnings and errors where K2's log events go."""
    handler = _Events(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "asyncio")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.propagate = True
