"""The routes that need no key: is it alive, is it ready, what does it hold, metrics, documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse, JSONResponse

from k2 import __version__
from k2.api.documentation import PAGE
from k2.common.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from k2.api.levels import PlatformLevel
    from k2.api.measures import Measures
    from k2.api.ports import Engine
    from k2.api.streams.hub import LiveHub
    from k2.api.turns import Turns

_POLICY: Final = "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def health_routes(
    engine: Engine,
    turns: Turns,
    level: PlatformLevel,
    measures: Measures,
    unready: Callable[[], Sequence[str]],
    hub: LiveHub,
) -> APIRouter:
    """Return the routes; none of them waits for a turn."""
    router = APIRouter(tags=["health"])

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "ok"}

    @router.get("/readyz", responses={503: {"description": "Not ready; `reasons` says why"}})
    async def readyz() -> JSONResponse:
        """Say whether questions can be answered in full, and if not, why not."""
        reasons = list(unready())
        body = {"status": "not ready" if reasons else "ok", "reasons": reasons}
        return JSONResponse(body, 503 if reasons else 200, {"Retry-After": "1"} if reasons else {})

    @router.get("/health")
    async def health() -> dict[str, Any]:
        """Show what each part does and holds: the API, the engine and its tail."""
        reasons = list(unready())
        stats = engine.get_stats()
        tail = stats.pop("tail", {})
        told = level.told()
        return {
            "status": "degraded" if reasons else "ok",
            "reasons": reasons,
            "version": __version__,
            "level": None if told is None else told.level.name,
            "level_reason": None if told is None else told.reason,
            "components": {
                "api": {
                    "running": turns.running,
                    "waiting": turns.waiting,
                    "refused": turns.refused.total(),
                    "concurrency": turns.limit.limit,
                    "sending_bytes": turns.held_bytes,
                    "streams": hub.streams,
                },
                "engine": stats,
                "tail": tail,
            },
        }

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Return the metrics in Prometheus' text format."""
        body = measures.render(engine.get_stats(), turns, len(unready()), hub)
        return Response(body, media_type=CONTENT_TYPE)

    @router.get("/docs", include_in_schema=False)
    async def documentation() -> HTMLResponse:
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": _POLICY})

    return router
