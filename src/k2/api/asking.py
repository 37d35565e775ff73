"""The way of a question through the API: weighed, let in or refused, its turn, and the answer sent part by part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from fastapi.responses import StreamingResponse

from k2.api.formats import FORMATS, Page
from k2.api.turns import unless_gone
from k2.api.weights import Weight, weight_of
from k2.common.errors import ReadLimitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from k2.api.levels import PlatformLevel
    from k2.api.ports import Engine
    from k2.api.settings import ApiSettings
    from k2.api.turns import Turns
    from k2.common.clock import Clock
    from k2.query.certificate import Certificate
    from k2.query.request import QueryRequest


class _Begun(NamedTuple):
    """A page whose first part is made; most pages have no other."""

    page: Page
    headers: Mapping[str, str]
    first: bytes
    rest: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class Asking:
    """What every route with data goes through."""

    engine: Engine
    turns: Turns
    level: PlatformLevel
    settings: ApiSettings
    clock: Clock

    def weight_of(self, request: QueryRequest) -> Weight:
        """Return the weight of a question about records."""
        return weight_of(request, self.settings, self.clock.time_ns())

    def stated(self, certificate: Certificate) -> Certificate:
        """Return the certificate with the level of the platform, as the workers tell it."""
        told = self.level.told()
        if told is None:
            return certificate
        return replace(certificate, platform_level=told.level.name, platform_reason=told.reason)

    async def answer(
        self, request: Request, weight: Weight, encoding: str, make: Callable[[], tuple[Page, Mapping[str, str]]]
    ) -> StreamingResponse:
        """Return the response with the page that `make` makes in its turn, and with its headers.

        The first part is encoded in the same turn, so that a short answer waits for nothing else.
        """
        self.level.admit(weight)
        media_type, encode = FORMATS[encoding]

        def begin() -> _Begun:
            page, headers = make()
            parts = encode(page)
            return _Begun(page, headers, next(parts), parts)

        begun = await unless_gone(request, self.turns.run(begin, weight))
        request.state.facts["rows"] = begun.page.table.num_rows
        return _HeldResponse(self.turns, begun, media_type)

    async def answer_by_reading(
        self, request: Request, encoding: str, make: Callable[[int | None], tuple[Page, Mapping[str, str]]]
    ) -> StreamingResponse:
        """Answer as a light question where `make` reads no more rows than it is told, else as a heavy one.

        How much is to be read shows only with a look at the table, which a light question's turn is enough for.
        """
        try:
            return await self.answer(request, Weight.LIGHT, encoding, lambda: make(self.settings.light_read_rows_max))
        except ReadLimitError:
            return await self.answer(request, Weight.HEAVY, encoding, lambda: make(None))


class _HeldResponse(StreamingResponse):
    """A response that counts as memory in use until it is sent, or given up."""

    def __init__(self, turns: Turns, begun: _Begun, media_type: str) -> None:
        super().__init__(turns.stream(begun.first, begun.rest), media_type=media_type, headers=dict(begun.headers))
        self._turns = turns
        self._size_bytes = begun.page.table.nbytes + len(begun.first)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the parts."""
        with self._turns.holding(self._size_bytes):
            await super().__call__(scope, receive, send)
