"""The route of the snapshots that `as_of` can name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from k2.api.formats import Page, chosen
from k2.api.parameters import refuse_unknown
from k2.api.questions import FormatName, responses_of_list
from k2.api.weights import Weight
from k2.query.snapshot_list import snapshots_table

if TYPE_CHECKING:
    from k2.api.asking import Asking

Table = Annotated[Literal["trades", "quotes"] | None, Query(alias="table", description="Only this table")]


def snapshot_routes(asking: Asking) -> APIRouter:
    """Return the route; each question waits for its turn on a thread."""
    router = APIRouter(prefix="/v1", tags=["data"])
    responses = responses_of_list(
        "One row a snapshot, each table's newest first: what as_of takes for it, its tags, when it was "
        "committed, and its rows. JSON: `data`; the other formats: the columns."
    )

    @router.get("/snapshots", operation_id="snapshots", responses=responses, response_class=StreamingResponse)
    async def snapshots(request: Request, table: Table = None, format_name: FormatName = None) -> StreamingResponse:
        """Return the snapshots that the tables still have; a tag (`k2 snapshot tag NAME`) keeps one from expiring."""
        refuse_unknown(request, frozenset({"table", "format"}))
        encoding = chosen(request.headers.get("accept"), format_name)

        def make() -> tuple[Page, dict[str, str]]:
            return Page(snapshots_table(asking.engine.snapshots(table))), {}

        return await asking.answer(request, Weight.LIGHT, encoding, make)

    return router
