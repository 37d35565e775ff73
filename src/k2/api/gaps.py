"""The route of the gaps in the venues' numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from k2.api.formats import FORMATS, Page, chosen
from k2.api.parameters import nanoseconds, refuse_unknown
from k2.api.records import RESPONSES, Exchange, FormatName, rows_limit
from k2.api.turns import unless_gone
from k2.query.gap_aware import gaps_table

if TYPE_CHECKING:
    from k2.api.ports import Engine
    from k2.api.settings import ApiSettings
    from k2.api.turns import Turns

Symbol = Annotated[str | None, Query(max_length=64, description="Only this symbol")]
Since = Annotated[
    str | None,
    Query(max_length=64, description="Only gaps that end at or after this event time: ISO 8601 or ns since 1970"),
]
Limit = Annotated[int | None, Query(ge=1, description="Most gaps, counted from the newest")]


def gap_routes(engine: Engine, turns: Turns, settings: ApiSettings) -> APIRouter:
    """Return the route; each question waits for its turn on a thread."""
    router = APIRouter(prefix="/v1", tags=["data"])
    responses: dict[int | str, dict[str, Any]] = {status: RESPONSES[status] for status in (400, 401, 406, 422, 503)}
    responses[200] = {
        "description": "One row a gap, the newest first: its numbers, how many are missing, and its state: open, "
        "filled or lost. JSON: `data`; the other formats: the columns.",
        "content": RESPONSES[200]["content"],
    }

    @router.get("/gaps", operation_id="gaps", responses=responses, response_class=StreamingResponse)
    async def gaps(
        request: Request,
        symbol: Symbol = None,
        exchange: Exchange = None,
        since: Since = None,
        limit: Limit = None,
        format_name: FormatName = None,
    ) -> StreamingResponse:
        """Return the gaps in the venues' numbers, as the tables know them."""
        refuse_unknown(request, frozenset({"symbol", "exchange", "since", "limit", "format"}))
        media_type, encode = FORMATS[chosen(request.headers.get("accept"), format_name)]
        since_ns, rows = nanoseconds("since", since), rows_limit(limit, settings)

        found = await unless_gone(
            request,
            turns.run(lambda: gaps_table(engine.gaps(symbol=symbol, exchange=exchange, since_ns=since_ns), rows)),
        )
        request.state.facts["rows"] = found.num_rows
        return StreamingResponse(turns.stream(encode(Page(found))), media_type=media_type)

    return router
