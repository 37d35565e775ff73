"""The REST API: puts routes, key, limits and errors around a hybrid query engine."""

from __future__ import annotations

from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.security import APIKeyHeader
from starlette.exceptions import HTTPException

from k2 import __version__
from k2.api.asking import Asking
from k2.api.bars import bar_routes
from k2.api.frame import Frame
from k2.api.gaps import gap_routes
from k2.api.health import health_routes
from k2.api.key_limits import KeyLimits
from k2.api.levels import PlatformLevel
from k2.api.measures import Measures
from k2.api.prevailing import prevailing_routes
from k2.api.problems import HttpProblemError, problem, problem_of
from k2.api.records import record_routes
from k2.api.snapshots import snapshot_routes
from k2.api.streams.hub import LiveHub
from k2.api.streams.route import stream_routes
from k2.api.turns import ClientGoneError, Turns
from k2.common.errors import K2Error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from starlette.responses import JSONResponse

    from k2.api.keys import ApiKey
    from k2.api.ports import Engine
    from k2.api.settings import ApiSettings
    from k2.common.announcing import LevelBoard
    from k2.common.clock import Clock

_key_header: Final = APIKeyHeader(name="X-API-Key", auto_error=False, description="The key that `k2 up` prints")


def create_app(
    engine: Engine,
    *,
    key: ApiKey,
    settings: ApiSettings,
    clock: Clock,
    unready: Callable[[], Sequence[str]],
    board: LevelBoard | None = None,
) -> FastAPI:
    """Return the API around `engine`; `unready()` names what keeps it from answering in full.

    `board` tells the level of degradation; without one the platform is at NORMAL.
    """
    turns = Turns(settings, clock)
    level = PlatformLevel(board, retry_after_seconds=settings.circuit_break_retry_seconds)
    measures = Measures(settings)
    limits = KeyLimits(settings, clock)
    asking = Asking(engine, turns, level, settings, clock)
    hub = LiveHub(engine, settings, clock)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        hub.end()
        turns.close()

    def id_of(request: Request, value: str | None) -> str:
        if not value:
            raise HttpProblemError(
                401, "No API key", "expected the platform's key in the header X-API-Key, found none: `k2 up` prints it"
            )
        if not key.accepts(value):
            raise HttpProblemError(
                401,
                "Another API key",
                "expected the platform's key in the header X-API-Key, found one that is not this platform's: `k2 up` "
                "prints the right one",
            )
        request.state.facts["key_id"] = key.key_id
        return key.key_id

    async def authorized(request: Request, value: Annotated[str | None, Depends(_key_header)]) -> AsyncIterator[None]:
        with limits.admitted(id_of(request, value)):
            yield  # until the answer is sent

    async def may_follow(request: Request, value: Annotated[str | None, Depends(_key_header)]) -> None:
        with limits.admitted(id_of(request, value)):
            return  # a stream is a question while it begins; how many of them a key may have is the hub's to say

    app = FastAPI(
        title="K2",
        version=__version__,
        description="Trades and quotes, exact up to the last message. Times are UTC, ranges half-open, prices and "
        "quantities decimal texts. Every answer carries a certificate of the log prefix that it is.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Frame, settings=settings, clock=clock, observe=measures.observe, crowded=turns.crowded)
    _add_errors(app)
    app.include_router(health_routes(engine, turns, level, measures, unready, hub))
    app.include_router(record_routes(asking), dependencies=[Depends(authorized)])
    app.include_router(bar_routes(asking), dependencies=[Depends(authorized)])
    app.include_router(prevailing_routes(asking), dependencies=[Depends(authorized)])
    app.include_router(stream_routes(asking, hub), dependencies=[Depends(may_follow)])
    app.state.end_streams = hub.end
    app.include_router(gap_routes(asking), dependencies=[Depends(authorized)])
    app.include_router(snapshot_routes(asking), dependencies=[Depends(authorized)])
    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(K2Error)
    async def known(request: Request, error: K2Error) -> JSONResponse:
        return problem_of(request, error)

    @app.exception_handler(HttpProblemError)
    async def refused(request: Request, error: HttpProblemError) -> JSONResponse:
        return problem(request, error)

    @app.exception_handler(ClientGoneError)
    async def gone(request: Request, _: ClientGoneError) -> JSONResponse:
        return problem(request, HttpProblemError(499, "Client closed the connection", "nobody waits for the answer"))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        parts = (f"{'.'.join(str(part) for part in item['loc'][1:])}: {item['msg']}" for item in error.errors())
        return problem(request, HttpProblemError(422, "Bad parameter", "; ".join(parts)))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        return problem(request, _no_route(request, error))


def _no_route(request: Request, error: HTTPException) -> HttpProblemError:
    """Return the refusal of a request that no route takes, with where the routes are listed."""
    headers = dict(error.headers or {})
    title = HTTPStatus(error.status_code).phrase
    details = {
        HTTPStatus.NOT_FOUND: f"there is no {request.url.path[:64]!r} here: /docs lists the routes",
        HTTPStatus.METHOD_NOT_ALLOWED: f"expected {headers.get('Allow', headers.get('allow', 'GET'))}, found "
        f"{request.method}: /docs lists the routes",
    }
    status = HTTPStatus(error.status_code)
    return HttpProblemError(status, title, details.get(status, str(error.detail)), headers)
