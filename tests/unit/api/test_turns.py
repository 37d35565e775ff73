"""Turns: so many questions at once, a short queue, a clear refusal beyond it, nothing done for who has left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from starlette.requests import Request

from k2.api.settings import ApiSettings
from k2.api.turns import ClientGoneError, Turns, unless_gone
from k2.common.errors import OverloadedError


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    opened = threading.Event()
    yield opened
    opened.set()


def settings(**values: float) -> ApiSettings:
    return ApiSettings(**{"concurrency_max": 1, "queue_max": 1, **values})  # type: ignore[arg-type]  # numbers of either kind


async def until(condition: object) -> None:
    async with asyncio.timeout(5):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110  # any test without arguments
            await asyncio.sleep(0)


def test_a_question_beyond_the_queue_is_refused_and_told_when_to_ask_again(gate: threading.Event) -> None:
    async def scene() -> OverloadedError:
        turns = Turns(settings(retry_after_seconds=7))
        running = asyncio.ensure_future(turns.run(gate.wait))
        await until(lambda: turns.running == 1)
        waiting = asyncio.ensure_future(turns.run(lambda: "second"))
        await until(lambda: turns.waiting == 1)

        with pytest.raises(OverloadedError, match="K2_API__QUEUE_MAX") as refused:
            await turns.run(lambda: "third")

        gate.set()
        assert await running
        assert await waiting == "second"
        assert (turns.running, turns.waiting, turns.refused) == (0, 0, 1)
        turns.close()
        return refused.value

    assert asyncio.run(scene()).retry_after_seconds == 7


def test_a_question_whose_turn_does_not_come_in_time_is_refused(gate: threading.Event) -> None:
    async def scene() -> None:
        turns = Turns(settings(queue_seconds_max=0.01))
        running = asyncio.ensure_future(turns.run(gate.wait))
        await until(lambda: turns.running == 1)

        with pytest.raises(OverloadedError, match="K2_API__QUEUE_SECONDS_MAX"):
            await turns.run(lambda: "late")

        gate.set()
        await running
        turns.close()

    asyncio.run(scene())


def test_an_answer_that_takes_too_long_is_given_up_but_keeps_its_turn_until_it_ends(gate: threading.Event) -> None:
    async def scene() -> None:
        turns = Turns(settings(query_seconds_max=0.01))

        with pytest.raises(OverloadedError, match="K2_API__QUERY_SECONDS_MAX"):
            await turns.run(gate.wait)

        assert turns.running == 1
        gate.set()
        await until(lambda: turns.running == 0)
        turns.close()

    asyncio.run(scene())


def test_a_timeout_of_the_work_itself_is_not_taken_for_the_limit() -> None:
    def work() -> None:
        raise TimeoutError("of the work")

    async def scene() -> None:
        turns = Turns(settings())
        with pytest.raises(TimeoutError, match="of the work"):
            await turns.run(work)
        assert turns.running == 0
        turns.close()

    asyncio.run(scene())


def test_a_question_that_waits_is_dropped_when_its_client_leaves(gate: threading.Event) -> None:
    asked: list[str] = []

    async def scene() -> None:
        turns = Turns(settings())
        running = asyncio.ensure_future(turns.run(gate.wait))
        await until(lambda: turns.running == 1)
        left = asyncio.Event()

        async def receive() -> dict[str, str]:
            await left.wait()
            return {"type": "http.disconnect"}

        request = Request({"type": "http"}, receive)
        waiting = asyncio.ensure_future(unless_gone(request, turns.run(lambda: asked.append("asked"))))
        await until(lambda: turns.waiting == 1)
        left.set()
        with pytest.raises(ClientGoneError):
            await waiting

        gate.set()
        await running
        assert turns.waiting == 0
        turns.close()

    asyncio.run(scene())

    assert asked == []


def test_the_parts_of_a_stream_come_one_by_one_and_no_part_before_it_is_asked_for() -> None:
    made: list[int] = []

    def parts() -> Iterator[bytes]:
        for number in range(3):
            made.append(number)
            yield bytes([number])

    async def scene() -> None:
        turns = Turns(settings())
        stream = turns.stream(parts())
        assert await anext(stream) == b"\0"
        assert made == [0]
        assert [part async for part in stream] == [b"\1", b"\2"]
        turns.close()

    asyncio.run(scene())
