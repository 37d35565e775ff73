"""What every question about a symbol's records says, the parameters that say it, and what their routes may answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

from fastapi import Query

from k2.api.formats import FORMATS
from k2.api.parameters import knowledge, nanoseconds
from k2.query.request import DataType, QueryRequest

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


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a symbol's records, before it is known of which table and how many."""

    asked: QueryRequest
    is_unbounded: bool
    """Neither a range nor a window was given."""

    def request(self, data_type: DataType, *, limit: int | None = None, goes_on: str | None = None) -> QueryRequest:
        """Return the question about one table; of an unbounded one, unless a cursor `goes_on`, the last minutes."""
        window = DEFAULT_WINDOW_MINUTES if self.is_unbounded and goes_on is None else self.asked.window_minutes
        return replace(self.asked, data_type=data_type, limit=limit, window_minutes=window)


def question_of(  # noqa: PLR0917 - the parameters of the routes, read by name
    symbol: Symbol,
    exchange: Exchange = None,
    start: Start = None,
    end: End = None,
    window_minutes: Window = None,
    anchor: AnchorName = "now",
    as_of: Token = None,
    known_at: KnownAt = None,
    amendments: AmendmentsName = "applied",
    lake_only: LakeOnly = False,
    on_degrade: OnDegrade = "fail",
    max_staleness: MaxStaleness = None,
    gaps: Gaps = "annotate",
    deferred: DeferredName = "mark",
) -> Question:
    """Return what a request's parameters ask; a dependency of routes. QueryError if they contradict each other."""
    known_at_ns, token = knowledge(known_at, as_of)
    asked = QueryRequest(
        data_type="trades",
        symbol=symbol,
        exchange=exchange,
        window_minutes=window_minutes,
        anchor=anchor,
        start_ns=nanoseconds("start", start),
        end_ns=nanoseconds("end", end),
        as_of=token,
        known_at_ns=known_at_ns,
        amendments=amendments,
        lake_only=lake_only,
        on_degrade=on_degrade,
        max_staleness_seconds=max_staleness,
        gaps=gaps,
        deferred=deferred,
    )
    return Question(asked, is_unbounded=start is None and end is None and window_minutes is None)
