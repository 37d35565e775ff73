"""The route of the gaps in the venues' numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from k2.api.formats import Page, chosen
from k2.api.parameters import nanoseconds, refuse_unknown
from k2.api.questions import Exchange, FormatName, responses_of_list
from k2.api.records import rows_limit
from k2.query.gap_aware import gaps_table

if TYPE_CHECKING:
    from k2.api.asking import Asking

Symbol = Annotated[str | None, Query(max_length=64, description="Only this symbol")]
Since = Annotated[
    str | None,
    Query(max_length=64, description="Only gaps that end at or after this event time: ISO 8601 or ns since 1970"),
]
Limit = Annotated[int | None, Query(ge=1, description="Most gaps, counted from the newest")]


def gap_routes(asking: Asking) -> APIRouter:
    """Return the route; each question waits for its turn on a thread."""
    router = APIRouter(prefix="/v1", tags=["data"])
    responses = responses_of_list(
        "One row a gap, the newest first: its numbers, how many are missing, and its state: open, "
        "filled or lost. JSON: `data`; the other formats: the columns."
    )

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
        encoding = chosen(request.headers.get("accept"), format_name)
        since_ns, rows = nanoseconds("since", since), rows_limit(limit, asking.settings)

        def make(read_rows_max: int | None) -> tuple[Page, dict[str, str]]:
            found = asking.engine.gaps(symbol=symbol, exchange=exchange, since_ns=since_ns, read_rows_max=read_rows_max)
            return Page(gaps_table(found, rows)), {}

        return await asking.answer_by_reading(request, encoding, make)

    return router
