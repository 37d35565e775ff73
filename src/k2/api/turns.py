"""Runs blocking questions on a few threads: a short queue in front of them, a clear refusal beyond it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from k2.common.errors import OverloadedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from starlette.requests import Request
    from starlette.types import Receive

    from k2.api.settings import ApiSettings

T = TypeVar("T")
_ENCODING_THREADS: Final = 2
"""Threads beyond those of the questions, so that a stream goes on while all questions are long ones."""
_END: Final = object()


class ClientGoneError(Exception):
    """Whoever asked has closed the connection."""


class Turns:
    """Gives each question its turn. A turn ends with its thread, also when nobody waits for it any more."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._free = asyncio.Semaphore(settings.concurrency_max)
        self._threads = ThreadPoolExecutor(settings.concurrency_max + _ENCODING_THREADS, thread_name_prefix="question")
        self.running = 0
        self.waiting = 0
        self.refused = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns.

        Raises:
            OverloadedError: the queue is full, the turn does not come in time, or the work takes too long.
        """
        if self._free.locked() and self.waiting >= self._settings.queue_max:
            raise self._refusal(
                f"{self.running} questions are being answered and {self.waiting} wait (K2_API__QUEUE_MAX)"
            )
        await self._turn()
        self.running += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        future.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(self._settings.query_seconds_max) as limit:
                return await asyncio.shield(future)
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._refusal(
                f"the answer took longer than {self._settings.query_seconds_max:g} s (K2_API__QUERY_SECONDS_MAX); "
                "a shorter range is quicker"
            ) from None

    async def stream(self, parts: Iterator[bytes]) -> AsyncIterator[bytes]:
        """Give the parts one by one; each is made on a thread, when the one before it has been sent."""
        loop = asyncio.get_running_loop()
        while True:
            part = await loop.run_in_executor(self._threads, next, parts, _END)
            if part is _END:
                return
            assert isinstance(part, bytes)
            yield part

    def close(self) -> None:
        """Take no more work."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _turn(self) -> None:
        self.waiting += 1
        try:
            async with asyncio.timeout(self._settings.queue_seconds_max):
                await self._free.acquire()
        except TimeoutError:
            raise self._refusal(
                f"no turn came within {self._settings.queue_seconds_max:g} s (K2_API__QUEUE_SECONDS_MAX)"
            ) from None
        finally:
            self.waiting -= 1

    def _ended(self, future: asyncio.Future[T]) -> None:
        self.running -= 1
        self._free.release()
        if not future.cancelled():
            future.exception()  # read, so that asyncio does not report an answer that nobody waited for

    def _refusal(self, text: str) -> OverloadedError:
        self.refused += 1
        return OverloadedError(
            f"{text}: ask again in a moment",
            dependency="api",
            retry_after_seconds=self._settings.retry_after_seconds,
        )


async def unless_gone(request: Request, work: Coroutine[None, None, T]) -> T:
    """Return what `work` returns; cancel it and raise ClientGoneError once the client closes the connection."""
    answer = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request.receive))
    try:
        done, _ = await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if answer in done:
            return answer.result()
        gone.result()
        raise ClientGoneError
    finally:
        gone.cancel()
        answer.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
