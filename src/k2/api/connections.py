"""Connections that cannot be held for nothing: each has so long to send a request, and to take what is left at its end.

uvicorn limits how long a connection is idle between two requests, and nothing else of what a client does slowly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

    from k2.api.settings import ApiSettings

_TIMEOUT: Final = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain\r\ncontent-length: 26\r\nconnection: close\r\n\r\n"
    b"The request took too long."
)


def limited_connections(settings: ApiSettings) -> type[H11Protocol]:
    """Return what uvicorn is to make of each connection."""

    class Limited(LimitedConnection):
        limits = settings

    return Limited


class LimitedConnection(H11Protocol):
    """A connection with limits. Where there are too many, the longest idle one makes room.

    Where none is idle, a few more are taken, whose requests find `surplus` in their state; any more are cut.
    """

    limits: ApiSettings

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take a connection, make room for it, or cut it."""
        others = len(self.connections)
        super().connection_made(cast("asyncio.Transport", _Ending(transport, self.loop, self.limits.send_seconds_max)))
        self.idle_since = self.loop.time()
        self._deadline: asyncio.TimerHandle | None = None
        if others >= self.limits.connections_max and not self._make_room():
            if others >= self.limits.connections_max + self.limits.connections_spare:
                transport.abort()
                return
            self.app = cast("Any", _surplus(self.app))  # uvicorn's types of an app are its own
        self._watch_request()

    def data_received(self, data: bytes) -> None:
        """Take what came, and see whether the request is whole by now."""
        super().data_received(data)
        self._watch_request()

    def on_response_complete(self) -> None:
        """Begin to be idle."""
        self.idle_since = self.loop.time()
        super().on_response_complete()
        self._watch_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the watch."""
        self._unwatch()
        super().connection_lost(exc)

    def is_idle(self, seconds: float) -> bool:
        """Say whether no request is being answered, and none has been whole for so long."""
        answering = self.cycle is not None and not self.cycle.response_complete
        return not answering and self.loop.time() - self.idle_since >= seconds

    def _make_room(self) -> bool:
        idle = [
            other
            for other in self.connections
            if isinstance(other, LimitedConnection) and other.is_idle(self.limits.idle_seconds_min)
        ]
        if not idle:
            return False
        min(idle, key=lambda other: other.idle_since).transport.close()
        return True

    def _watch_request(self) -> None:
        """Hold the client to the time that a request may take; it runs from the connection or the first byte on."""
        if self.transport.is_closing() or not self._is_awaited():
            self._unwatch()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.limits.request_seconds_max, self._give_up)

    def _is_awaited(self) -> bool:
        """Say whether a part of a request is still to come: any after the first byte, or the first request at all."""
        if self.conn.their_state is h11.SEND_BODY:
            return True
        begun = self.cycle is None or bool(self.conn.trailing_data[0])
        return self.conn.their_state is h11.IDLE and begun

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self.transport.write(_TIMEOUT)
            self.transport.close()
        else:
            self.transport.abort()


class _Ending:
    """A transport that, once closed, waits only so long for the client to take what is left."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._transport = transport
        self._loop = loop
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:  # Any: whatever a transport has
        return getattr(self._transport, name)

    def close(self) -> None:
        """Close, and cut the connection if that takes too long."""
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._loop.call_later(self._seconds, self._transport.abort)


def _surplus(app: Callable[[Scope, Receive, Send], Any]) -> Callable[[Scope, Receive, Send], Any]:
    async def marked(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["surplus"] = True
        await app(scope, receive, send)

    return marked
