"""The route of trades with the quotes that stood when they happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from k2.api.cursors import continued, next_cursor
from k2.api.formats import chosen
from k2.api.parameters import refuse_unknown
from k2.api.questions import PARAMETERS, RESPONSES, CursorText, FormatName, Limit, Question, question_of
from k2.api.records import page_of, rows_limit
from k2.query.prevailing import PrevailingRequest, with_quotes

if TYPE_CHECKING:
    from k2.api.asking import Asking
    from k2.api.formats import Page

_PARAMETERS: Final = PARAMETERS | {"tolerance", "strictly_before"}

Tolerance = Annotated[
    float, Query(gt=0, allow_inf_nan=False, description="Seconds that a quote may be older than the trade")
]
StrictlyBefore = Annotated[
    bool, Query(description="Leave out quotes of the very nanosecond of the trade, which may have come after it")
]


def prevailing_routes(asking: Asking) -> APIRouter:
    """Return the route; each question waits for its turn on a thread."""
    router = APIRouter(prefix="/v1", tags=["data"])
    settings = asking.settings
    responses: dict[int | str, dict[str, Any]] = dict(RESPONSES)
    responses[200] = {
        "description": "The columns of trades, then the quote that stood: its time and coordinate (quote_...), null "
        "where none did, and its prices and sizes. The certificate is that of the trades, with that of the quotes in "
        "`quotes`; its as_of holds both. The forms, headers and pages are as for trades.",
        "content": RESPONSES[200]["content"],
    }

    @router.get("/asof", operation_id="asof", responses=responses, response_class=StreamingResponse)
    async def asof(
        request: Request,
        question: Annotated[Question, Depends(question_of)],
        limit: Limit = None,
        cursor: CursorText = None,
        tolerance: Tolerance = 3_600.0,
        strictly_before: StrictlyBefore = False,
        format_name: FormatName = None,
    ) -> StreamingResponse:
        """Return a symbol's trades, each with the last quote of its exchange that was not after it (ASOF join).

        Exact up to the last message. Without a range: the last 15 minutes.
        """
        refuse_unknown(request, _PARAMETERS)
        encoding = chosen(request.headers.get("accept"), format_name)
        whole = limit is None and encoding != "json"
        rows = settings.rows_max if whole else rows_limit(limit, settings)
        put = question.request("trades", limit=rows, goes_on=cursor)
        asked, extent = continued(put, cursor)
        joined = PrevailingRequest(trades=asked, tolerance_seconds=tolerance, strictly_before=strictly_before)

        def make() -> tuple[Page, dict[str, str]]:
            found = with_quotes(asking.engine.query, joined, quotes_max=settings.rows_max)
            return page_of(asking, request, found, next_cursor(asked, extent, found), encoding, whole=whole)

        return await asking.answer(request, asking.weight_of(asked), encoding, make)

    return router
