"""The route of live streams: what may be followed, from where, and how a client goes on after a disconnect."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from k2.api.parameters import nanoseconds, refuse_unknown
from k2.api.questions import RESPONSES, Exchange
from k2.api.streams.bars import FinalBars
from k2.api.streams.events import MEDIA_TYPE
from k2.api.streams.reader import resumed
from k2.api.streams.sending import Sender, Waker, opening_weight
from k2.api.streams.subscription import OnSlow, StreamRequest
from k2.api.turns import unless_gone
from k2.api.weights import Weight
from k2.common.errors import QueryError
from k2.query.as_of import ENCODED_BEGINS
from k2.query.bars.interval import interval_ns
from k2.query.certificate import AsOf
from k2.schemas.symbols import SYMBOL_RULE, is_symbol

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from k2.api.asking import Asking
    from k2.api.streams.hub import LiveHub

LATEST: Final = "latest"
_PARAMETERS: Final = frozenset({"table", "symbol", "exchange", "from", "cursor", "bars", "follow", "on_slow"})
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    **{status: RESPONSES[status] for status in (400, 401, 409, 410, 422, 429, 503)},
    200: {
        "description": "Server-sent events, until the client leaves or the API stops. `rows`: a JSON list of records, "
        "as they were written (amendments=raw), in order within the event; history comes in order throughout. "
        "`left_out`: ranges of the log that a slow reader was not sent (on_slow=drop). `bar`: a list of "
        "bars that became final (bars=). `heartbeat`: the levels of the "
        "platform, and whether the stream has come to the newest record. `error`: why the stream ends. `end`: the API "
        "stops, or all was sent (follow=false). The id of an event is the cursor with which another stream goes on "
        "behind it: nothing is missing, nothing comes twice.",
        "content": {MEDIA_TYPE: {}},
    },
}

Symbols = Annotated[
    list[str], Query(min_length=1, description="The venue's symbol, verbatim; given several times for several symbols")
]
Table = Annotated[Literal["trades", "quotes"], Query(description="What to follow")]
From = Annotated[
    str,
    Query(
        alias="from",
        min_length=1,
        description="Where to begin: latest (what comes from now on), a time (all events from then on, history first), "
        "or as_of of a certificate (what the log has got since that answer)",
    ),
]
CursorText = Annotated[str | None, Query(description="Go on behind the event with this id; from= is then not needed")]
LastEvent = Annotated[str | None, Header(alias="Last-Event-ID", description="As cursor=, which it goes before")]
Bars = Annotated[
    str | None,
    Query(
        max_length=8,
        description="Tell the bars of this length as well, once each is final: 1s to 1d, from UTC midnight",
    ),
]
Follow = Annotated[bool, Query(description="Go on with what comes next, or end at the newest record")]
OnSlowName = Annotated[
    OnSlow,
    Query(
        description="A reader that does not keep up: gets what it missed from the table (wait), is told what was left "
        "out (drop), or is ended (disconnect)"
    ),
]


def stream_routes(asking: Asking, hub: LiveHub) -> APIRouter:
    """Return the route; a stream takes a turn for each page that it reads, and none while it waits."""
    router = APIRouter(prefix="/v1", tags=["data"])

    @router.get("/stream", operation_id="stream", responses=_RESPONSES, response_class=StreamingResponse)
    async def stream(  # noqa: PLR0917 - the parameters of the route, read by name
        request: Request,
        symbol: Symbols,
        table: Table = "trades",
        exchange: Exchange = None,
        begin: From = LATEST,
        cursor: CursorText = None,
        bars: Bars = None,
        follow: Follow = True,
        on_slow: OnSlowName = "wait",
        last_event_id: LastEvent = None,
    ) -> StreamingResponse:
        """Follow symbols from history to what comes next, with one cursor: no gap, no record twice."""
        refuse_unknown(request, _PARAMETERS, lists=frozenset({"symbol"}))
        symbols = _checked(symbol, asking.settings.stream_symbols_max)
        token, start_ns = _beginning(begin)
        asked = StreamRequest(
            data_type=table,
            symbols=symbols,
            exchange=exchange,
            start_ns=start_ns,
            bars=_checked_bars(bars, table),
            follow=follow,
            on_slow=on_slow,
        )
        before = last_event_id or cursor
        if before is not None:
            position = resumed(asked, before)
            asked = replace(asked, start_ns=position.start_ns)
        with ExitStack() as stack:
            waker = Waker()
            subscription = stack.enter_context(hub.subscribed(asked, request.state.facts["key_id"], waker.wake))
            if before is None:
                begun = asking.turns.run(
                    lambda: hub.begin(asked, with_history=start_ns is not None, since=token), Weight.LIGHT
                )
                position = await unless_gone(request, begun)
            if asked.bars is not None and position.bars_from_ns is None:
                begins_ns = FinalBars(asked, asked.bars, asking).begin_ns(start_ns)
                position = replace(position, bars_from_ns=begins_ns)
            asking.level.admit(opening_weight(asking, asked, position))
            request.state.facts |= {"stream": True, "rows": 0}
            sender = Sender(asking, hub, subscription, position, waker, facts=request.state.facts)
            return _StreamResponse(sender, stack.pop_all())

    return router


class _StreamResponse(StreamingResponse):
    """A response that gives its subscription up once it is over, however it ends."""

    def __init__(self, sender: Sender, stack: ExitStack) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(sender.events(), media_type=MEDIA_TYPE, headers=headers)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        with self._stack:
            await super().__call__(scope, receive, send)


def _checked(symbols: list[str], symbols_max: int) -> tuple[str, ...]:
    for symbol in symbols:
        if not is_symbol(symbol):
            raise QueryError(f"expected {SYMBOL_RULE}, found {symbol[:80]!r}")
    distinct = tuple(sorted(set(symbols)))
    if len(distinct) > symbols_max:
        raise QueryError(
            f"expected at most {symbols_max} symbols in one stream (K2_API__STREAM_SYMBOLS_MAX), found {len(distinct)}"
        )
    return distinct


def _checked_bars(interval: str | None, table: str) -> str | None:
    if interval is not None:
        interval_ns(interval)
        if table != "trades":
            raise QueryError(f"expected bars of trades, found of {table}")
    return interval


def _beginning(text: str) -> tuple[AsOf | None, int | None]:
    """Return what `from` names: a token, or the time of the first event; neither for the newest record."""
    if text == LATEST:
        return None, None
    if text.startswith(ENCODED_BEGINS):
        return AsOf.from_token(text), None
    return None, nanoseconds("from", text)
