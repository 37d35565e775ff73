"""What stands around every request: its id, caps on its size, one audit event, no error without a document."""

from __future__ import annotations

import asyncio
import math
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import MutableHeaders
from starlette.requests import Request

from k2.api.problems import HttpProblemError, problem, problem_of
from k2.common.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from k2.api.settings import ApiSettings
    from k2.common.clock import Clock
    from k2.common.errors import K2Error

log = get_logger(__name__)

QUIET_ROUTES: Final = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked every few seconds by machines; their audit events would bury the others."""
HEALTH_ROUTES: Final = QUIET_ROUTES | {"/health"}
"""Answered however busy the API is."""
_QUESTIONS: Final = "/v1/"
_GONE: Final = 499


@dataclass
class Exchange:
    """One request and what became of it."""

    route: str = "none"
    status: int = 0
    seconds: float = 0.0
    sent_bytes: int = 0
    finished: bool = False
    stalled: bool = False
    """The client took too long to take the next part."""
    facts: dict[str, Any] = field(default_factory=dict)  # Any: values of log events
    """What the route noted in `request.state`: key id, rows, snapshot id."""


class Frame:
    """ASGI middleware; `observe` is told of each exchange once it is over.

    `crowded` returns why no question could be answered or wait now, if that is so.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: ApiSettings,
        clock: Clock,
        observe: Callable[[Exchange], None],
        crowded: Callable[[], K2Error | None],
    ) -> None:
        self._app = app
        self._crowded = crowded
        self._settings = settings
        self._clock = clock
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = uuid.uuid4().hex
        state["facts"] = {}
        exchange = Exchange(facts=state["facts"])
        began = self._clock.monotonic()
        try:
            await self._answer(scope, self._capped(receive), self._counted(send, exchange, state["request_id"]))
        except Exception as error:  # noqa: BLE001 - the edge: whatever it is, the client gets a document and the log the error
            await self._failed(error, scope, receive, send, exchange)
        finally:
            exchange.seconds = self._clock.monotonic() - began
            exchange.route = getattr(scope.get("route"), "path", "none")
            self._observe(exchange)
            self._audit(scope, exchange, state["request_id"])

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        refused = _refused(request, self._settings)
        if refused is not None:
            await problem(request, refused)(scope, receive, send)
        elif request.url.path.startswith(_QUESTIONS) and (crowded := self._crowded()) is not None:
            # Before the question is looked at: else refusing many would keep the loop from answering health.
            await problem_of(request, crowded)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _capped(self, receive: Receive) -> Receive:
        left = self._settings.body_bytes_max

        async def capped() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _body_too_long(self._settings)
            return message

        return capped

    def _counted(self, send: Send, exchange: Exchange, request_id: str) -> Send:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["K2-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
            else:
                exchange.sent_bytes += len(message.get("body", b""))
                exchange.finished = not message.get("more_body", False)
            try:
                async with asyncio.timeout(self._settings.send_seconds_max):
                    await send(message)
            except TimeoutError:
                exchange.stalled = True
                raise

        return counted

    async def _failed(self, error: Exception, scope: Scope, receive: Receive, send: Send, exchange: Exchange) -> None:
        if exchange.stalled:
            return  # the server closes the connection of an answer that was not finished
        request_id = scope["state"]["request_id"]
        if isinstance(error, HttpProblemError):
            document = error
        else:
            log.error("request_failed", request_id=request_id, error=repr(error), exc_info=error)
            document = HttpProblemError(
                500, "Internal error", "K2 failed in a way that it does not know; its log has the request id"
            )
        if exchange.status:
            raise error  # the answer has begun: only a cut connection can say that it is not whole
        await problem(Request(scope), document)(scope, receive, self._counted(send, exchange, request_id))

    def _audit(self, scope: Scope, exchange: Exchange, request_id: str) -> None:
        if exchange.route in QUIET_ROUTES:
            return
        client = scope.get("client")
        log.info(
            "request",
            request_id=request_id,
            client=client[0] if client else None,
            method=scope["method"],
            route=exchange.route,
            status=exchange.status or _GONE,
            ms=round(exchange.seconds * 1e3, 1),
            bytes=exchange.sent_bytes,
            finished=exchange.finished,
            **exchange.facts,
        )


def _refused(request: Request, settings: ApiSettings) -> HttpProblemError | None:
    if request.scope["state"].get("surplus") and request.url.path not in HEALTH_ROUTES:
        return HttpProblemError(
            503,
            "K2 is busy",
            f"expected at most {settings.connections_max} connections (K2_API__CONNECTIONS_MAX), found all in use: "
            "ask again in a moment",
            {"Retry-After": str(max(1, math.ceil(settings.retry_after_seconds))), "Connection": "close"},
            reason="connections",
        )
    url_bytes = len(request.scope.get("raw_path") or request.url.path) + len(request.scope["query_string"])
    if url_bytes > settings.url_bytes_max:
        return HttpProblemError(
            414, "URL too long", f"expected a URL of at most {settings.url_bytes_max} bytes, found {url_bytes}"
        )
    header_bytes = sum(len(name) + len(value) for name, value in request.headers.raw)
    if header_bytes > settings.header_bytes_max:
        return HttpProblemError(
            431,
            "Headers too long",
            f"expected headers of at most {settings.header_bytes_max} bytes, found {header_bytes}",
        )
    length = request.headers.get("content-length", "0")
    return _body_too_long(settings) if length.isdecimal() and int(length) > settings.body_bytes_max else None


def _body_too_long(settings: ApiSettings) -> HttpProblemError:
    return HttpProblemError(413, "Body too long", f"expected a body of at most {settings.body_bytes_max} bytes")
