"""Sends one stream for as long as the client is there: pages in their turns, what is new as it comes, heartbeats."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from k2.api.problems import TITLE_OF, nearest, status_of
from k2.api.streams.bars import FinalBars
from k2.api.streams.events import Event, json_event
from k2.api.streams.reader import SLOW_READER, StreamReader
from k2.api.weights import Weight, weight_of
from k2.common.errors import K2Error, OverloadedError, UnavailableError
from k2.common.logging import get_logger
from k2.query.request import QueryRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from k2.api.asking import Asking
    from k2.api.streams.hub import LiveHub
    from k2.api.streams.position import Position
    from k2.api.streams.subscription import StreamRequest, Subscription

log = get_logger(__name__)


class Waker:
    """Wakes the coroutine of one stream from the hub's thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Have `wait` return; from any thread, also when the loop is gone."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float) -> None:
        """Wait until woken, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
        self._event.clear()


class Sender:
    """One open stream. `events` gives what is sent, until the client leaves, the API stops or the stream fails."""

    def __init__(
        self,
        asking: Asking,
        hub: LiveHub,
        subscription: Subscription,
        position: Position,
        waker: Waker,
        *,
        facts: dict[str, Any],
    ) -> None:
        self._asking = asking
        self._hub = hub
        self._waker = waker
        self._facts = facts
        self._request = subscription.request
        self._reader = StreamReader(
            subscription.request,
            position,
            engine=asking.engine,
            hub=hub,
            subscription=subscription,
            settings=asking.settings,
        )
        bars = subscription.request.bars
        self._bars = None if bars is None else FinalBars(subscription.request, bars, asking)
        self._is_live = False
        self._sent_at = -math.inf
        self._trouble: K2Error | None = None

    async def events(self) -> AsyncIterator[bytes]:
        """Give the events' lines."""
        try:
            while not self._hub.is_ending and not self._has_sent_all():
                for event in await self._next():
                    yield self._sending(event)
            reason = "stopping" if self._hub.is_ending else "all_sent"
            yield self._sending(json_event("end", {"reason": reason}, self._reader.cursor))
        except K2Error as error:
            yield self._sending(self._failed(error))

    async def _next(self) -> list[Event]:
        """Return what is to be sent next; nothing, or a heartbeat, where there is nothing."""
        settings = self._asking.settings
        try:
            if self._reader.needs_page:
                events = await self._page()
            elif self._is_live and (bars_from_ns := self._bars_due()) is not None:
                events = await self._final_bars(bars_from_ns)
            else:
                events = self._reader.drain()
        except UnavailableError as error:
            if error.reason == SLOW_READER:
                raise
            return await self._after(error)
        self._trouble = None
        if not self._is_live and not self._reader.needs_page:
            self._is_live = True
            return [*events, self._heartbeat()]
        left = self._sent_at + settings.stream_heartbeat_seconds - self._asking.clock.monotonic()
        if not events and left <= 0:
            return [self._heartbeat()]
        if not events and not self._reader.needs_page:
            await self._waker.wait(min(left, self._seconds_until_bars()))
        return events

    def _has_sent_all(self) -> bool:
        return not self._request.follow and self._is_live and self._bars_due() is None

    def _seconds_until_bars(self) -> float:
        """Return how long it takes until bars can be final; without bars, for ever."""
        from_ns = self._reader.position.bars_from_ns
        return math.inf if self._bars is None or from_ns is None else self._bars.seconds_until_due(from_ns)

    def _bars_due(self) -> int | None:
        """Return from when on bars can be final by now; None where none can."""
        return self._reader.position.bars_from_ns if self._seconds_until_bars() <= 0 else None

    async def _final_bars(self, from_ns: int) -> list[Event]:
        """Ask for bars in a turn of their own; those of one time are one event, so that a cursor never splits them."""
        bars = self._bars
        assert bars is not None
        weight = bars.weight(from_ns)
        self._asking.level.admit(weight)
        lines, end_ns = await self._asking.turns.run(lambda: bars.read(from_ns), weight)
        cursor = self._reader.with_bars_up_to(end_ns)
        return [Event("bar", b"[" + b",".join(lines) + b"]", cursor)] if lines else []

    async def _page(self) -> list[Event]:
        """Read a page in a turn of its own: a stream holds none while it waits or sends."""
        weight = Weight.LIGHT if self._is_live else opening_weight(self._asking, self._request, self._reader.position)
        self._asking.level.admit(weight)
        await self._asking.turns.run(self._reader.page, weight)
        return self._reader.ready()

    async def _after(self, error: UnavailableError) -> list[Event]:
        """Pause, and say once why; the reader goes on at the same place."""
        is_known = str(error) == str(self._trouble)
        self._trouble = error
        wait = self._asking.settings.stream_batch_seconds if not is_known else error.retry_after_seconds
        is_due = self._asking.clock.monotonic() >= self._sent_at + self._asking.settings.stream_heartbeat_seconds
        await self._waker.wait(min(wait, self._asking.settings.stream_heartbeat_seconds))
        return [self._heartbeat()] if is_due else []

    def _heartbeat(self) -> Event:
        """Return an event that says that the stream lives, how the platform is, and where to go on."""
        trouble = self._hub.trouble(self._request.data_type)
        reasons = [text for text in (trouble, None if self._trouble is None else str(self._trouble)) if text]
        told = self._asking.level.told()
        body: dict[str, Any] = {
            "live": self._is_live and not self._reader.needs_page,
            "degradation_level": "NORMAL" if not reasons else "PARTIAL",
            "stale": bool(reasons),
            "reasons": reasons,
            "platform_level": None if told is None else told.level.name,
            "platform_reason": None if told is None else told.reason,
            "at_ns": self._asking.clock.time_ns(),
        }
        return json_event("heartbeat", body, self._reader.cursor)

    def _failed(self, error: K2Error) -> Event:
        """Return the event that ends a stream which cannot go on; a client may come back with its cursor."""
        body: dict[str, Any] = {
            "status": status_of(error),
            "title": TITLE_OF[nearest(error)],
            "detail": str(error),
        }
        if isinstance(error, UnavailableError):
            body["reason"] = error.reason or f"{error.dependency}_unavailable"
        if not isinstance(error, OverloadedError):
            log.warning("stream_failed", error=str(error))
        self._hub.counts["failed"] += 1
        return json_event("error", body)

    def _sending(self, event: Event) -> bytes:
        self._sent_at = self._asking.clock.monotonic()
        self._facts["rows"] += event.rows
        self._hub.counts["rows"] += event.rows
        self._hub.counts["left_out"] += event.name == "left_out"
        return event.encoded()


def opening_weight(asking: Asking, request: StreamRequest, position: Position) -> Weight:
    """Return the weight of what a stream reads before it is live: of history that of a question about it."""
    if position.since is not None or position.start_ns is None:
        return Weight.LIGHT
    asked = QueryRequest(data_type=request.data_type, symbol=request.symbols[0], start_ns=position.start_ns)
    return weight_of(asked, asking.settings, asking.clock.time_ns())
