"""The route of bars: open, high, low, close, volume and VWAP of a symbol's trades."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from k2.api.formats import Page, chosen
from k2.api.parameters import refuse_unknown
from k2.api.questions import PARAMETERS, RESPONSES, FormatName, Question, question_of
from k2.api.records import certificate_header
from k2.common.errors import QueryError
from k2.query.bars.request import BarsRequest

if TYPE_CHECKING:
    from k2.api.asking import Asking

_PARAMETERS: Final = (PARAMETERS - {"limit", "cursor"}) | {"interval", "align", "prints"}

Interval = Annotated[str, Query(max_length=8, description="Length of a bar, from 1s to 1d: 30s, 5m, 1h")]
Align = Annotated[
    Literal["utc", "session"],
    Query(description="Count bars from UTC midnight, or from the exchange's midnight and the edges of its sessions"),
]
Prints = Annotated[
    Literal["regular", "all"],
    Query(description="Count the trades that the exchange's rule calls regular, or all"),
]


def bar_routes(asking: Asking) -> APIRouter:
    """Return the route; each question waits for its turn on a thread."""
    router = APIRouter(prefix="/v1", tags=["data"])
    responses: dict[int | str, dict[str, Any]] = dict(RESPONSES)
    responses[200] = {
        "description": "One row a bar that has a trade, in order of start and exchange, with their certificate; it "
        "always comes whole. JSON: `data`, `certificate`; prices, volume and VWAP are decimal texts. The other formats "
        "and the headers are as for trades.",
        "content": RESPONSES[200]["content"],
    }

    @router.get("/ohlcv", operation_id="ohlcv", responses=responses, response_class=StreamingResponse)
    async def ohlcv(
        request: Request,
        question: Annotated[Question, Depends(question_of)],
        interval: Interval = "1m",
        align: Align = "utc",
        prints: Prints = "regular",
        format_name: FormatName = None,
    ) -> StreamingResponse:
        """Return the bars of a symbol's trades, exact up to the last message. Without a range: the last 15 minutes."""
        refuse_unknown(request, _PARAMETERS)
        encoding = chosen(request.headers.get("accept"), format_name)
        asked = BarsRequest(trades=question.request("trades"), interval=interval, align=align, prints=prints)

        def make() -> tuple[Page, dict[str, str]]:
            return _page(asking, request, asked)

        return await asking.answer(request, asking.weight_of(asked.trades), encoding, make)

    return router


def _page(asking: Asking, request: Request, asked: BarsRequest) -> tuple[Page, dict[str, str]]:
    settings = asking.settings
    found = asking.engine.bars(asked)
    if found.table.num_rows > settings.rows_max:
        raise QueryError(
            f"expected at most {settings.rows_max} bars (K2_API__ROWS_MAX), found {found.table.num_rows}: ask for a "
            "shorter range, or for longer bars"
        )
    certificate = asking.stated(found.certificate)
    request.state.facts["snapshot_id"] = certificate.snapshot_id
    header = certificate_header(certificate, settings.certificate_header_bytes_max)
    return Page(found.table, certificate.to_dict()), {"K2-Certificate": header}
