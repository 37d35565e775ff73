"""Runs blocking questions on a few threads, as many as do well at once, with a short line in front of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from k2.api.waiting_line import WaitingLine
from k2.api.weights import Weight
from k2.common.errors import OverloadedError
from k2.common.gradient_limit import GradientLimit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from starlette.requests import Request
    from starlette.types import Receive

    from k2.api.settings import ApiSettings
    from k2.common.clock import Clock

T = TypeVar("T")
_ENCODING_THREADS: Final = 2
"""Threads for the later parts of long answers, so that a stream goes on while all questions are long ones."""
_END: Final = object()


class ClientGoneError(Exception):
    """Whoever asked has closed the connection."""


class _Ticket:
    """A question that waits: `called` is set when its turn comes."""

    def __init__(self, weight: Weight) -> None:
        self.weight = weight
        self.called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.has_turn = False


class Turns:
    """Gives each question its turn. A turn ends with its thread, also when nobody waits for it any more.

    Heavy questions take at most half of the turns, and none while the answers that are being sent hold half of the
    memory that they may: what is left is there for light ones.
    """

    def __init__(self, settings: ApiSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self.limit = GradientLimit(
            least=min(settings.concurrency_min, settings.concurrency_max),
            most=settings.concurrency_max,
            window_seconds=settings.concurrency_window_seconds,
            unloaded_seconds=settings.unloaded_seconds,
            tolerance_ratio=settings.latency_tolerance_ratio,
            clock=clock,
        )
        self._line: WaitingLine[_Ticket] = WaitingLine(settings.queue_max)
        self._questions = ThreadPoolExecutor(settings.concurrency_max, thread_name_prefix="question")
        self._encoders = ThreadPoolExecutor(_ENCODING_THREADS, thread_name_prefix="encoding")
        self._running = dict.fromkeys(Weight, 0)
        self.held_bytes = 0
        """Memory of the answers that are being sent."""
        self.refused: Counter[str] = Counter()

    @property
    def running(self) -> int:
        """Return how many questions are being answered."""
        return sum(self._running.values())

    @property
    def waiting(self) -> int:
        """Return how many questions wait for their turn."""
        return len(self._line)

    async def run(self, work: Callable[[], T], weight: Weight = Weight.LIGHT) -> T:
        """Return what `work` returns.

        Raises:
            OverloadedError: the line is full, the turn does not come in time, or the work takes too long.
        """
        await self._turn(weight)
        began, beside = self._clock.monotonic(), self.running
        future = asyncio.get_running_loop().run_in_executor(self._questions, work)
        future.add_done_callback(partial(self._ended, weight, began, beside))
        try:
            async with asyncio.timeout(self._settings.query_seconds_max) as limit:
                return await asyncio.shield(future)
        except TimeoutError:
            if not limit.expired():
                raise
            raise self.refusal(
                f"the answer took longer than {self._settings.query_seconds_max:g} s (K2_API__QUERY_SECONDS_MAX); "
                "a shorter range is quicker",
                "answer_time",
            ) from None

    def crowded(self) -> OverloadedError | None:
        """Return the refusal of whatever question came now, where none could run or wait; None where one could."""
        return self._full() if self._line.is_shut and not self._callable() else None

    async def stream(self, first: bytes, rest: Iterator[bytes]) -> AsyncIterator[bytes]:
        """Give the parts one by one; each of the rest is made on a thread, when the one before it has been sent."""
        loop = asyncio.get_running_loop()
        part: object = first
        while part is not _END:
            assert isinstance(part, bytes)
            yield part
            part = await loop.run_in_executor(self._encoders, next, rest, _END)

    @contextmanager
    def holding(self, size_bytes: int) -> Iterator[None]:
        """Count an answer's memory until it is sent."""
        self.held_bytes += size_bytes
        try:
            yield
        finally:
            self.held_bytes -= size_bytes
            self._call()

    def refusal(self, text: str, reason: str) -> OverloadedError:
        """Count a refusal, and return it."""
        self.refused[reason] += 1
        return OverloadedError(
            f"{text}: ask again in a moment",
            dependency="api",
            retry_after_seconds=self._settings.retry_after_seconds,
            reason=reason,
        )

    def close(self) -> None:
        """Take no more work."""
        for threads in (self._questions, self._encoders):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _turn(self, weight: Weight) -> None:
        """Wait for a turn, and take it."""
        if weight in self._callable() and not any(count for other, count in self._line.counts() if other <= weight):
            self._running[weight] += 1
            return
        ticket = _Ticket(weight)
        gone = self._line.join(ticket, weight)
        if gone is not None:
            refused = self._full()
            if gone is ticket:
                raise refused
            if not gone.called.done():
                gone.called.set_exception(refused)
        seconds, name = self._longest_wait(weight)
        try:
            async with asyncio.timeout(seconds):
                await ticket.called
        except TimeoutError:
            self._give_up(ticket)
            raise self.refusal(f"no turn came within {seconds:g} s ({name})", "queue_time") from None
        except BaseException:
            self._give_up(ticket)
            raise

    def _longest_wait(self, weight: Weight) -> tuple[float, str]:
        """Return how long a question waits at most, and the setting that says so."""
        every, light = self._settings.queue_seconds_max, self._settings.light_queue_seconds_max
        if weight == Weight.LIGHT and light < every:
            return light, "K2_API__LIGHT_QUEUE_SECONDS_MAX"
        return every, "K2_API__QUEUE_SECONDS_MAX"

    def _give_up(self, ticket: _Ticket) -> None:
        """Leave the line; the turn of a question that was called and left in the same moment goes to the next one."""
        self._line.leave(ticket)
        if ticket.has_turn:
            self._running[ticket.weight] -= 1
            self._call()

    def _call(self) -> None:
        """Give every turn that is free to whoever is next."""
        while (ticket := self._line.call(*self._callable())) is not None:
            if not ticket.called.done():
                ticket.has_turn = True
                self._running[ticket.weight] += 1
                ticket.called.set_result(None)

    def _callable(self) -> tuple[Weight, ...]:
        """Return the weights of which one more question may run now."""
        limit, most = self.limit.limit, self._settings.sending_bytes_max
        if self.running >= limit or self.held_bytes >= most:
            return ()
        if self._running[Weight.HEAVY] >= max(1, limit // 2) or 2 * self.held_bytes >= most:
            return (Weight.LIGHT,)
        return (Weight.LIGHT, Weight.HEAVY)

    def _ended(self, weight: Weight, began: float, beside: int, future: asyncio.Future[T]) -> None:
        beside = max(beside, self.running)
        self._running[weight] -= 1
        if not future.cancelled() and future.exception() is None:  # a question that failed tells nothing of the load
            self.limit.ended(weight.name, self._clock.monotonic() - began, beside=beside)
        self._call()

    def _full(self) -> OverloadedError:
        return self.refusal(
            f"{self.running} questions are being answered and {self.waiting} wait (K2_API__QUEUE_MAX)", "queue_full"
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
