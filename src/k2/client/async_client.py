"""An asynchronous HTTP client of K2's live streams."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

import httpx2

from k2.client.errors import error_of, unreachable
from k2.client.streaming import HEADERS, PATH, EventParser, StreamPlan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from types import TracebackType

    from k2.client.streaming import ClientError, OnSlow, StreamEvent


class AsyncK2Client:
    """Follows streams of one API, many at a time in one thread. Use it as an async context manager, or close it.

    `timeout_seconds` is the longest silence: a stream sends a heartbeat every few seconds.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout_seconds: float = 60.0,
        attempts_max: int = 10,
        pause_seconds_max: float = 10.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._attempts_max = attempts_max
        self._pause_seconds_max = pause_seconds_max
        self._http = httpx2.AsyncClient(
            base_url=base_url,
            headers={"X-API-Key": api_key},
            timeout=httpx2.Timeout(timeout_seconds, pool=None),
            limits=httpx2.Limits(max_connections=None),
            transport=transport,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def stream(
        self,
        symbols: str | Sequence[str],
        *,
        table: str = "trades",
        exchange: str | None = None,
        start: str | int = "latest",
        cursor: str | None = None,
        bars: str | None = None,
        follow: bool = True,
        on_slow: OnSlow = "wait",
    ) -> AsyncIterator[StreamEvent]:
        """Give the events of a stream; as `K2Client.stream`."""
        names = (symbols,) if isinstance(symbols, str) else tuple(symbols)
        plan = StreamPlan(
            names, table, exchange, start, cursor, bars, follow, on_slow, self._attempts_max, self._pause_seconds_max
        )
        while not plan.is_over:
            parser = EventParser()
            error: ClientError | None = None
            try:
                async with self._http.stream("GET", PATH, params=plan.parameters(), headers=HEADERS) as response:
                    if response.is_success:
                        async for part in response.aiter_bytes():
                            for event in parser.feed(part):
                                if (found := plan.take(event)) is not None:
                                    yield found
                    else:
                        await response.aread()
                        error = error_of(response)
            except httpx2.HTTPError as failure:
                error = unreachable(str(self._http.base_url), failure)
            if not plan.is_over:
                await asyncio.sleep(plan.pause_seconds(error))
