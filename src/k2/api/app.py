"""The REST API: routes, keys, limits and errors around a hybrid query engine."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Protocol

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import APIKeyHeader
from starlette.exceptions import HTTPException

from k2 import __version__
from k2.api.documentation import PAGE
from k2.api.formats import FORMATS, Page, chosen
from k2.api.parameters import continued, cursor_of, nanoseconds, refuse_unknown
from k2.api.problems import HttpProblemError, problem, problem_of
from k2.common.errors import K2Error
from k2.common.logging import get_logger
from k2.common.metrics import CONTENT_TYPE, Metrics
from k2.query.request import QueryRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from k2.api.keys import ApiKey
    from k2.api.settings import ApiSettings
    from k2.common.clock import Clock
    from k2.query.request import Answer, SymbolSummary

log = get_logger(__name__)

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
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
        "lake_only",
        "on_degrade",
        "format",
    ]
)
OPEN_ROUTES: Final = frozenset({"/livez", "/readyz", "/metrics", "/docs", "/openapi.json"})
_key_header: Final = APIKeyHeader(name="X-API-Key", auto_error=False, description="The key that `k2 up` prints")

FormatName = Literal["json", "csv", "parquet", "arrow"]


class Engine(Protocol):
    """What answers questions."""

    def query(self, request: QueryRequest) -> Answer:
        """Answer a question."""
        ...

    def symbols(self, exchange: str | None = None, data_type: str | None = None) -> list[SymbolSummary]:
        """Return the symbols that there are."""
        ...

    def get_stats(self) -> dict[str, Any]:
        """Return what the engine has done and holds."""
        ...


def create_app(
    engine: Engine, *, key: ApiKey, settings: ApiSettings, clock: Clock, unready: Callable[[], Sequence[str]]
) -> FastAPI:
    """Return the API around `engine`; `unready()` names what keeps it from answering in full."""
    app = FastAPI(
        title="K2", version=__version__, docs_url=None, redoc_url=None, description="Exact up to the last message."
    )
    metrics = Metrics()
    latency = metrics.histogram("k2_api_request_seconds", "Time to answer", ["route", "status"], buckets=BUCKETS)
    rows_total = metrics.counter("k2_api_rows_total", "Rows answered", ["route"])

    def authorized(value: Annotated[str | None, Depends(_key_header)]) -> None:
        if not key.accepts(value):
            raise HttpProblemError(
                401, "Unauthorized", "expected the platform's key in the header X-API-Key, found none or another one"
            )

    _add_middleware(app, settings, clock, latency)
    _add_errors(app)
    _add_health(app, engine, metrics, unready)
    _add_data(app, engine, settings, rows_total, authorized)
    return app


def _add_middleware(app: FastAPI, settings: ApiSettings, clock: Clock, latency: Any) -> None:
    @app.middleware("http")
    async def frame(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        request.state.request_id = uuid.uuid4().hex
        began = clock.monotonic()
        refused = _too_large(request, settings)
        response = refused if refused is not None else await call_next(request)
        seconds = clock.monotonic() - began
        route = getattr(request.scope.get("route"), "path", "none")
        latency.labels(route, str(response.status_code)).observe(seconds)
        response.headers["K2-Request-Id"] = request.state.request_id
        if route not in OPEN_ROUTES:
            log.info("request", request_id=request.state.request_id, route=route, status=response.status_code,
                     ms=round(seconds * 1e3, 1), rows=getattr(request.state, "rows", None))  # fmt: skip
        return response


def _too_large(request: Request, settings: ApiSettings) -> Response | None:
    if len(str(request.url)) > settings.url_bytes_max:
        return problem(request, 414, "URL too long", f"expected a URL of at most {settings.url_bytes_max} bytes")
    if sum(len(name) + len(value) for name, value in request.headers.raw) > settings.header_bytes_max:
        return problem(
            request, 431, "Headers too long", f"expected headers of at most {settings.header_bytes_max} bytes"
        )
    return None


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(K2Error)
    def known(request: Request, error: K2Error) -> JSONResponse:
        return problem_of(request, error)

    @app.exception_handler(HttpProblemError)
    def refused(request: Request, error: HttpProblemError) -> JSONResponse:
        return problem(request, error.status, error.title, error.detail, error.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        parts = (f"{'.'.join(str(part) for part in item['loc'][1:])}: {item['msg']}" for item in error.errors())
        return problem(request, 422, "Bad parameter", "; ".join(parts))

    @app.exception_handler(HTTPException)
    def other(request: Request, error: HTTPException) -> JSONResponse:
        return problem(request, error.status_code, "Not possible", str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Exception)
    def unforeseen(request: Request, error: Exception) -> JSONResponse:
        log.error("request_failed", request_id=getattr(request.state, "request_id", ""), error=repr(error))
        return problem(
            request, 500, "Internal error", "K2 failed in a way that it does not know; its log has the request id"
        )


def _add_health(app: FastAPI, engine: Engine, metrics: Metrics, unready: Callable[[], Sequence[str]]) -> None:
    @app.get("/livez", tags=["health"])
    def livez() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"])
    def readyz() -> JSONResponse:
        """Say whether questions can be answered in full, and if not, why not."""
        reasons = list(unready())
        return JSONResponse({"status": "not ready" if reasons else "ok", "reasons": reasons}, 503 if reasons else 200)

    @app.get("/health", tags=["health"])
    def health() -> dict[str, Any]:
        """Show what the engine and its tail have done and hold."""
        reasons = list(unready())
        return {
            "status": "degraded" if reasons else "ok",
            "reasons": reasons,
            "version": __version__,
            **engine.get_stats(),
        }

    @app.get("/metrics", tags=["health"])
    def prometheus() -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    @app.get("/docs", include_in_schema=False)
    def documentation() -> HTMLResponse:
        return HTMLResponse(PAGE)


def _add_data(app: FastAPI, engine: Engine, settings: ApiSettings, rows_total: Any, authorized: Any) -> None:
    def answer(request: Request, asked: QueryRequest, cursor: str | None, format_name: str | None) -> Response:
        encoding = chosen(request.headers.get("accept"), format_name)
        asked = continued(asked, cursor)
        found = engine.query(asked)
        request.state.rows = found.table.num_rows
        rows_total.labels(f"/v1/{asked.data_type}").inc(found.table.num_rows)
        certificate = found.certificate.to_dict()
        media_type, encode = FORMATS[encoding]
        page = Page(found.table, certificate, cursor_of(asked, found))
        headers = {"K2-Certificate": _header(found, settings)}
        if page.next_cursor is not None:
            headers["K2-Next-Cursor"] = page.next_cursor
        return Response(encode(page), media_type=media_type, headers=headers)

    def add(data_type: Literal["trades", "quotes"]) -> None:
        def records(  # noqa: PLR0917 - the parameters of the route, read by name
            request: Request,
            symbol: Annotated[str, Query(min_length=1, max_length=64)],
            exchange: Annotated[str | None, Query(max_length=64)] = None,
            start: Annotated[str | None, Query(description="ISO 8601 (no zone: UTC) or nanoseconds, inclusive")] = None,
            end: Annotated[str | None, Query(description="the same, exclusive")] = None,
            window_minutes: Annotated[float | None, Query(description="counted back from the anchor")] = None,
            anchor: Literal["now", "latest"] = "now",
            limit: Annotated[int | None, Query(ge=1)] = None,
            cursor: Annotated[str | None, Query(description="next_cursor of the page before")] = None,
            as_of: Annotated[str | None, Query(description="token of a certificate")] = None,
            lake_only: bool = False,
            on_degrade: Literal["fail", "partial"] = "fail",
            format_name: Annotated[FormatName | None, Query(alias="format", description="beats Accept")] = None,
        ) -> Response:
            refuse_unknown(request, PARAMETERS)
            asked = QueryRequest(
                data_type=data_type,
                symbol=symbol,
                exchange=exchange,
                window_minutes=window_minutes if start or end or window_minutes or cursor else 15,
                anchor=anchor,
                start_ns=nanoseconds("start", start),
                end_ns=nanoseconds("end", end),
                limit=_limit(limit, settings),
                as_of=as_of,
                lake_only=lake_only,
                on_degrade=on_degrade,
            )
            return answer(request, asked, cursor, format_name)

        records.__doc__ = (
            f"Return a symbol's {data_type}, exact up to the last message. Without a range: the last 15 minutes."
        )
        app.get(f"/v1/{data_type}", tags=["data"], dependencies=[Depends(authorized)])(records)

    add("trades")
    add("quotes")

    @app.get("/v1/symbols", tags=["data"], dependencies=[Depends(authorized)])
    def symbols(
        request: Request,
        exchange: Annotated[str | None, Query(max_length=64)] = None,
        data_type: Literal["trades", "quotes"] | None = None,
    ) -> dict[str, Any]:
        """Return the symbols that there are, with rows and the times of the first and last event."""
        refuse_unknown(request, frozenset({"exchange", "data_type"}))
        found = engine.symbols(exchange, data_type)
        return {"data": [{name: getattr(entry, name) for name in entry.__slots__} for entry in found]}


def _limit(limit: int | None, settings: ApiSettings) -> int:
    if limit is not None and limit > settings.rows_max:
        raise HttpProblemError(422, "Bad parameter", f"expected a limit of at most {settings.rows_max}, found {limit}")
    return settings.rows_default if limit is None else limit


def _header(answer: Answer, settings: ApiSettings) -> str:
    text = answer.certificate.to_json()
    if len(text) <= settings.certificate_header_bytes_max and text.isascii():
        return text
    certificate = answer.certificate
    return (
        f'{{"v":1,"snapshot_id":{certificate.snapshot_id or "null"},"rows":{certificate.rows},'
        f'"complete":{str(certificate.complete).lower()},"shortened":true}}'
    )
