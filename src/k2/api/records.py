"""The routes that need the key: trades, quotes and symbols."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Final, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse

from k2.api.cursors import continued, next_cursor
from k2.api.formats import Page, chosen
from k2.api.parameters import refuse_unknown
from k2.api.questions import (
    PARAMETERS,
    RESPONSES,
    CursorText,
    Exchange,
    FormatName,
    Limit,
    Question,
    question_of,
    responses_of_list,
)
from k2.api.summaries import summaries_table
from k2.common.errors import QueryError

if TYPE_CHECKING:
    from k2.api.asking import Asking
    from k2.api.settings import ApiSettings
    from k2.query.certificate import Certificate
    from k2.query.request import Answer

_ESSENTIAL: Final = ("v", "snapshot_id", "commit_sequence", "rows", "complete", "truncated")
"""What the shortest K2-Certificate header says; at most 200 bytes."""


def record_routes(asking: Asking) -> APIRouter:
    """Return the routes; each question waits for its turn on a thread."""
    router = APIRouter(prefix="/v1", tags=["data"])
    _add_records(router, "trades", asking)
    _add_records(router, "quotes", asking)
    _add_symbols(router, asking)
    return router


def _add_records(router: APIRouter, data_type: Literal["trades", "quotes"], asking: Asking) -> None:
    settings = asking.settings

    async def records(
        request: Request,
        question: Annotated[Question, Depends(question_of)],
        limit: Limit = None,
        cursor: CursorText = None,
        format_name: FormatName = None,
    ) -> StreamingResponse:
        refuse_unknown(request, PARAMETERS)
        encoding = chosen(request.headers.get("accept"), format_name)
        whole = limit is None and encoding != "json"
        rows = settings.rows_max if whole else rows_limit(limit, settings)
        put = question.request(data_type, limit=rows, goes_on=cursor)
        asked, extent = continued(put, cursor)

        def make() -> tuple[Page, dict[str, str]]:
            found = asking.engine.query(asked)
            return page_of(asking, request, found, next_cursor(asked, extent, found), encoding, whole=whole)

        return await asking.answer(request, asking.weight_of(asked), encoding, make)

    records.__doc__ = (
        f"Return a symbol's {data_type}, exact up to the last message. Without a range: the last 15 minutes."
    )
    router.get(f"/{data_type}", operation_id=data_type, responses=RESPONSES, response_class=StreamingResponse)(records)


def page_of(
    asking: Asking, request: Request, found: Answer, cursor: str | None, encoding: str, *, whole: bool
) -> tuple[Page, dict[str, str]]:
    """Return an answer as a page with its headers; QueryError where it was to come `whole` and does not."""
    if whole and found.next_after is not None:
        raise _too_long(found.table.num_rows, encoding)
    certificate = asking.stated(found.certificate)
    request.state.facts["snapshot_id"] = certificate.snapshot_id
    page = Page(found.table, certificate.to_dict(), cursor)
    headers = {"K2-Certificate": certificate_header(certificate, asking.settings.certificate_header_bytes_max)}
    if cursor is not None:
        headers["K2-Next-Cursor"] = cursor
    return page, headers


def _add_symbols(router: APIRouter, asking: Asking) -> None:
    responses = responses_of_list(
        "One row for each data type, exchange and symbol. JSON: `data`; the other formats: the columns."
    )

    @router.get("/symbols", operation_id="symbols", responses=responses, response_class=StreamingResponse)
    async def symbols(
        request: Request,
        exchange: Exchange = None,
        data_type: Literal["trades", "quotes"] | None = None,
        format_name: FormatName = None,
    ) -> StreamingResponse:
        """Return the symbols that there are, with rows and the times of the first and last event."""
        refuse_unknown(request, frozenset({"exchange", "data_type", "format"}))
        encoding = chosen(request.headers.get("accept"), format_name)

        def make(read_rows_max: int | None) -> tuple[Page, dict[str, str]]:
            return Page(summaries_table(asking.engine.symbols(exchange, data_type, read_rows_max=read_rows_max))), {}

        return await asking.answer_by_reading(request, encoding, make)


def certificate_header(certificate: Certificate, bytes_max: int) -> str:
    """Return the certificate as one header: whole, without its partitions and token, or only what matters most."""
    body = certificate.to_dict()
    long = {"partitions", "as_of", "deferred", "gaps", "quotes"}
    for names in (set(body), set(body) - long):
        text = json.dumps({name: body[name] for name in body if name in names}, separators=(",", ":"))
        if len(text) <= bytes_max:
            return text
    return json.dumps({name: body[name] for name in _ESSENTIAL}, separators=(",", ":"))


def _too_long(rows: int, encoding: str) -> QueryError:
    """Return the refusal of an answer that cannot come whole: a short one would look like all there is."""
    return QueryError(
        f"the answer has more than {rows} rows, the most that come at once (K2_API__ROWS_MAX, K2_QUERY__ROWS_MAX): ask "
        f"for a shorter range, or give a limit and page through it as {encoding} with the cursor"
    )


def rows_limit(limit: int | None, settings: ApiSettings) -> int:
    """Return how many rows come at most; QueryError if that is more than the settings allow."""
    if limit is not None and limit > settings.rows_max:
        raise QueryError(
            f"expected a limit of at most {settings.rows_max} (K2_API__ROWS_MAX), found {limit}: page with the cursor"
        )
    return min(settings.rows_default, settings.rows_max) if limit is None else limit
