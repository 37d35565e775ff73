"""The routes that need the key: trades, quotes and symbols."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from k2.api.cursors import continued, next_cursor
from k2.api.formats import FORMATS, Page, chosen
from k2.api.parameters import knowledge, nanoseconds, refuse_unknown
from k2.api.summaries import summaries_table
from k2.common.errors import QueryError
from k2.query.request import QueryRequest

if TYPE_CHECKING:
    from k2.api.asking import Asking
    from k2.api.settings import ApiSettings
    from k2.query.certificate import Certificate

DEFAULT_WINDOW_MINUTES: Final = 15.0
PARAMETERS: Final = frozenset(
    [
        "symbol",
        "exchange",
        "start",
        "end",
        "window_minutes",
        "anchor",
        "limit",
        "cursor",
        "as_of",
        "known_at",
        "amendments",
        "lake_only",
        "on_degrade",
        "max_staleness",
        "gaps",
        "deferred",
        "format",
    ]
)
_ESSENTIAL: Final = ("v", "snapshot_id", "commit_sequence", "rows", "complete", "truncated")
"""What the shortest K2-Certificate header says; at most 200 bytes."""
RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Rows in order of event time and log coordinate, with their certificate. JSON: `data`, "
        "`next_cursor`, `certificate`; decimals are texts without exponent or idle zeros, nanoseconds are integers "
        "beyond 2^53. CSV: nothing for null, lists as JSON. Parquet and Arrow: exact types; the keys k2.certificate "
        "and k2.next_cursor in the schema's metadata. Headers: K2-Certificate, K2-Next-Cursor. Without a limit JSON "
        "gives one page, with the cursor of the next; the other formats give the whole answer, or refuse it.",
        "content": {media_type: {} for media_type, _ in FORMATS.values()},
    },
    **{
        status: {"description": text, "content": {"application/problem+json": {}}}
        for status, text in {
            400: "An unknown or repeated parameter",
            401: "No key, or another one",
            406: "No format that Accept names",
            410: "What the answer was made of, or what as_of names, is no longer kept",
            409: "The log is not the one that the table was built from",
            422: "The question cannot be answered as asked",
            429: "Too much of this key; Retry-After says when to ask again",
            503: "Busy, or a dependency is down: `reason` says which; Retry-After says when to ask again",
        }.items()
    },
}

Exchange = Annotated[str | None, Query(max_length=64, description="Only this exchange")]
Symbol = Annotated[str, Query(min_length=1, max_length=64, description="The venue's symbol, verbatim")]
Start = Annotated[
    str | None,
    Query(max_length=64, description="First event time: ISO 8601 (no zone: UTC) or ns since 1970, 18 or 19 digits"),
]
End = Annotated[str | None, Query(max_length=64, description="End of event time, not included; the same forms")]
Window = Annotated[
    float | None, Query(description="Minutes counted back from the anchor; 15 if there is no start and no end")
]
AnchorName = Annotated[Literal["now", "latest"], Query(description="Where a window ends: now, or the newest record")]
Limit = Annotated[
    int | None,
    Query(ge=1, description="Most rows of this page; without it, JSON gives a page and the other formats all"),
]
CursorText = Annotated[str | None, Query(description="next_cursor of the page before; the range may be left out")]
Token = Annotated[
    str | None,
    Query(
        min_length=1,
        description="The same log prefix again: as_of of a certificate, a time (the forms of start), snapshot:ID, a "
        "tag of the table, or now",
    ),
]
KnownAt = Annotated[
    str | None,
    Query(
        description="As known then, not as now: only what the log had before this time (the forms of start), or in the "
        "prefix of this token (as_of of a certificate)",
    ),
]
AmendmentsName = Annotated[
    Literal["applied", "raw"],
    Query(description="Trades as CANCELs and CORRECTs leave them, or every record as it was written"),
]
LakeOnly = Annotated[bool, Query(description="Only what the table holds")]
OnDegrade = Annotated[
    Literal["fail", "stale", "partial"],
    Query(
        description="If the log is out of reach: fail, or answer from the table alone, marked (stale). If the table is "
        "as well, or a part is damaged: fail, or answer what there is, marked (partial)"
    ),
]
MaxStaleness = Annotated[
    float | None,
    Query(
        gt=0,
        allow_inf_nan=False,
        description="Seconds that the answer's end may lie behind the log's; more is refused, and what nothing tells",
    ),
]
Gaps = Annotated[
    Literal["annotate", "exclude", "fail"],
    Query(
        description="Gaps in the venue's numbers: name them, leave out sessions (exchange and date) with one, or fail"
    ),
]
DeferredName = Annotated[
    Literal["mark", "read"],
    Query(
        description="Records that overload has put off: mark the answer as incomplete, with their ranges, or read them "
        "from the log"
    ),
]
FormatName = Annotated[
    Literal["json", "csv", "parquet", "arrow"] | None, Query(alias="format", description="Beats the header Accept")
]


def responses_of_list(description: str) -> dict[int | str, dict[str, Any]]:
    """Return what a route may answer whose rows come without a certificate."""
    refusals: dict[int | str, dict[str, Any]] = {status: RESPONSES[status] for status in (400, 401, 406, 422, 429, 503)}
    return {**refusals, 200: {"description": description, "content": RESPONSES[200]["content"]}}


def record_routes(asking: Asking) -> APIRouter:
    """Return the routes; each question waits for its turn on a thread."""
    router = APIRouter(prefix="/v1", tags=["data"])
    _add_records(router, "trades", asking)
    _add_records(router, "quotes", asking)
    _add_symbols(router, asking)
    return router


def _add_records(router: APIRouter, data_type: Literal["trades", "quotes"], asking: Asking) -> None:
    settings = asking.settings

    async def records(  # noqa: PLR0917 - the parameters of the route, read by name
        request: Request,
        symbol: Symbol,
        exchange: Exchange = None,
        start: Start = None,
        end: End = None,
        window_minutes: Window = None,
        anchor: AnchorName = "now",
        limit: Limit = None,
        cursor: CursorText = None,
        as_of: Token = None,
        known_at: KnownAt = None,
        amendments: AmendmentsName = "applied",
        lake_only: LakeOnly = False,
        on_degrade: OnDegrade = "fail",
        max_staleness: MaxStaleness = None,
        gaps: Gaps = "annotate",
        deferred: DeferredName = "mark",
        format_name: FormatName = None,
    ) -> StreamingResponse:
        refuse_unknown(request, PARAMETERS)
        encoding = chosen(request.headers.get("accept"), format_name)
        whole = limit is None and encoding != "json"
        known_at_ns, token = knowledge(known_at, as_of)
        unbounded = start is None and end is None and window_minutes is None and cursor is None
        put = QueryRequest(
            data_type=data_type,
            symbol=symbol,
            exchange=exchange,
            window_minutes=DEFAULT_WINDOW_MINUTES if unbounded else window_minutes,
            anchor=anchor,
            start_ns=nanoseconds("start", start),
            end_ns=nanoseconds("end", end),
            limit=settings.rows_max if whole else rows_limit(limit, settings),
            as_of=token,
            known_at_ns=known_at_ns,
            amendments=amendments,
            lake_only=lake_only,
            on_degrade=on_degrade,
            max_staleness_seconds=max_staleness,
            gaps=gaps,
            deferred=deferred,
        )
        asked, extent = continued(put, cursor)

        def make() -> tuple[Page, dict[str, str]]:
            found = asking.engine.query(asked)
            if whole and found.next_after is not None:
                raise _too_long(found.table.num_rows, encoding)
            certificate = asking.stated(found.certificate)
            request.state.facts["snapshot_id"] = certificate.snapshot_id
            page = Page(found.table, certificate.to_dict(), next_cursor(asked, extent, found))
            headers = {"K2-Certificate": certificate_header(certificate, settings.certificate_header_bytes_max)}
            if page.next_cursor is not None:
                headers["K2-Next-Cursor"] = page.next_cursor
            return page, headers

        return await asking.answer(request, asking.weight_of(asked), encoding, make)

    records.__doc__ = (
        f"Return a symbol's {data_type}, exact up to the last message. Without a range: the last 15 minutes."
    )
    router.get(f"/{data_type}", operation_id=data_type, responses=RESPONSES, response_class=StreamingResponse)(records)


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
    long = {"partitions", "as_of", "deferred", "gaps"}
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
