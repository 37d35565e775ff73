"""Turns: so many questions at once, a short queue, a clear refusal beyond it, nothing done for who has left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from starlette.requests import Request

from k2.api.settings import ApiSettings
from k2.api.turns import ClientGoneError, Turns, unless_gone
from k2.api.weights import Weight
from k2.common.errors import OverloadedError
from k2.testing.manual_clock import ManualClock


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    opened = threading.Event()
    yield opened
    opened.set()


def turns_of(**values: float) -> Turns:
    settings = ApiSettings(**{"concurrency_max": 1, "queue_max": 1, **values})  # type: ignore[arg-type]  # numbers of either kind
    return Turns(settings, ManualClock())


async def until(condition: object) -> None:
    async with asyncio.timeout(5):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110  # any test without arguments
            await asyncio.sleep(0)


def test_a_question_beyond_the_queue_is_refused_and_told_when_to_ask_again(gate: threading.Event) -> None:
    async def scene() -> OverloadedError:
        turns = turns_of(retry_after_seconds=7)
        running = asyncio.ensure_future(turns.run(gate.wait))
        await until(lambda: turns.running == 1)
        waiting = asyncio.ensure_future(turns.run(lambda: "second"))
        await until(lambda: turns.waiting == 1)

        with pytest.raises(OverloadedError, match="K2_API__QUEUE_MAX") as refused:
            await turns.run(lambda: "third")

        gate.set()
        assert await running
        assert await waiting == "second"
        assert (turns.running, turns.waiting, turns.refused) == (0, 0, {"queue_full": 1})
        turns.close()
        return refused.value

    assert asyncio.run(scene()).retry_after_seconds == 7


@pytest.mark.parametrize(
    ("limits", "weight", "named"),
    [
        ({"queue_seconds_max": 0.01}, Weight.LIGHT, "K2_API__QUEUE_SECONDS_MAX"),
        ({"queue_seconds_max": 0.01}, Weight.HEAVY, "K2_API__QUEUE_SECONDS_MAX"),
        ({"light_queue_seconds_max": 0.01}, Weight.LIGHT, "K2_API__LIGHT_QUEUE_SECONDS_MAX"),
    ],
)
def test_a_question_whose_turn_does_not_come_in_time_is_refused(
    gate: threading.Event, limits: dict[str, float], weight: Weight, named: str
) -> None:
    async def scene() -> None:
        turns = turns_of(**limits)
        running = asyncio.ensure_future(turns.run(gate.wait))
        await until(lambda: turns.running == 1)

        with pytest.raises(OverloadedError, match=named):
            await turns.run(lambda: "late", weight)

        gate.set()
        await running
        turns.close()

    asyncio.run(scene())


def test_an_answer_that_takes_too_long_is_given_up_but_keeps_its_turn_until_it_ends(gate: threading.Event) -> None:
    async def scene() -> None:
        turns = turns_of(query_seconds_max=0.01)

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
        turns = turns_of()
        with pytest.raises(TimeoutError, match="of the work"):
            await turns.run(work)
        assert turns.running == 0
        turns.close()

    asyncio.run(scene())


def test_a_question_that_waits_is_dropped_when_its_client_leaves(gate: threading.Event) -> None:
    asked: list[str] = []

    async def scene() -> None:
        turns = turns_of()
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
        for number in range(1, 3):
            made.append(number)
            yield bytes([number])

    async def scene() -> None:
        turns = turns_of()
        stream = turns.stream(b"\0", parts())
        assert await anext(stream) == b"\0"
        assert made == []
        assert await anext(stream) == b"\1"
        assert made == [1]
        assert [part async for part in stream] == [b"\2"]
        turns.close()

    asyncio.run(scene())


class Scene:
    """Questions under names, that run until they are let go; `order` is the order in which they began."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.order: list[str] = []
        self.gates: dict[str, threading.Event] = {}
        self.asked: dict[str, asyncio.Task[bool]] = {}

    async def ask(self, name: str, weight: Weight) -> None:
        """Ask, and come back once the question runs, waits or is refused."""
        gate = self.gates[name] = threading.Event()

        def work() -> bool:
            self.order.append(name)
            return gate.wait(5)

        before = self.turns.running + self.turns.waiting + self.turns.refused.total()
        self.asked[name] = asyncio.ensure_future(self.turns.run(work, weight))
        await until(lambda: self.turns.running + self.turns.waiting + self.turns.refused.total() > before)

    async def began(self, *names: str) -> None:
        await until(lambda: self.order == list(names))

    async def let_go(self, name: str) -> None:
        self.gates[name].set()
        assert await self.asked[name]

    def close(self) -> None:
        for gate in self.gates.values():
            gate.set()
        self.turns.close()


def test_light_questions_go_before_heavy_ones_that_came_first() -> None:
    async def scene() -> None:
        scene = Scene(turns_of(queue_max=3))
        await scene.ask("running", Weight.LIGHT)
        for name, weight in (("scan", Weight.HEAVY), ("read", Weight.LIGHT), ("read again", Weight.LIGHT)):
            await scene.ask(name, weight)

        for name in ("running", "read", "read again", "scan"):
            await scene.let_go(name)

        assert scene.order == ["running", "read", "read again", "scan"]
        scene.close()

    asyncio.run(scene())


def test_a_light_question_takes_the_place_of_the_youngest_heavy_one_in_a_full_line() -> None:
    async def scene() -> None:
        scene = Scene(turns_of(queue_max=2))
        await scene.ask("running", Weight.LIGHT)
        await scene.ask("scan", Weight.HEAVY)
        await scene.ask("younger scan", Weight.HEAVY)

        scene.asked["read"] = asyncio.ensure_future(scene.turns.run(lambda: True, Weight.LIGHT))
        with pytest.raises(OverloadedError, match="K2_API__QUEUE_MAX"):
            await scene.asked["younger scan"]

        assert scene.turns.waiting == 2
        await scene.let_go("running")
        await scene.asked["read"]
        await scene.let_go("scan")
        scene.close()

    asyncio.run(scene())


@pytest.mark.parametrize(("waiting", "is_crowded"), [(None, False), (Weight.HEAVY, False), (Weight.LIGHT, True)])
def test_it_is_crowded_once_not_even_a_light_question_could_wait(waiting: Weight | None, is_crowded: bool) -> None:
    async def scene() -> None:
        scene = Scene(turns_of(queue_max=1))
        await scene.ask("running", Weight.LIGHT)
        if waiting is not None:
            await scene.ask("waiting", waiting)

        assert (scene.turns.crowded() is not None) == is_crowded

        for name in list(scene.gates):
            await scene.let_go(name)
        assert scene.turns.crowded() is None
        scene.close()

    asyncio.run(scene())


def test_heavy_questions_take_half_of_the_turns_and_leave_the_rest_to_light_ones() -> None:
    async def scene() -> None:
        scene = Scene(turns_of(concurrency_max=8, queue_max=8))  # begins with 4 at once
        for number in range(4):
            await scene.ask(f"scan {number}", Weight.HEAVY)

        await scene.ask("read", Weight.LIGHT)

        await until(lambda: "read" in scene.order)
        assert (scene.turns.running, scene.turns.waiting) == (3, 2)
        for name in ("scan 0", "scan 1", "scan 2", "scan 3", "read"):
            await scene.let_go(name)
        scene.close()

    asyncio.run(scene())


@pytest.mark.parametrize(("held_bytes", "weight"), [(50, Weight.HEAVY), (100, Weight.LIGHT)])
def test_a_question_waits_while_answers_that_are_being_sent_hold_too_much(held_bytes: int, weight: Weight) -> None:
    async def scene() -> None:
        scene = Scene(turns_of(sending_bytes_max=100))
        with scene.turns.holding(held_bytes):
            await scene.ask("next", weight)
            assert (scene.turns.running, scene.turns.waiting) == (0, 1)

        await scene.let_go("next")

        assert scene.turns.held_bytes == 0
        scene.close()

    asyncio.run(scene())


def test_a_turn_given_in_the_moment_in_which_its_client_leaves_goes_to_the_next_one() -> None:
    async def scene() -> None:
        scene = Scene(turns_of(queue_max=2))
        await scene.ask("running", Weight.LIGHT)
        await scene.ask("leaves", Weight.LIGHT)
        await scene.ask("next", Weight.LIGHT)

        scene.gates["running"].set()
        await until(lambda: scene.turns.waiting == 1)  # "leaves" has been called, and does not know yet
        scene.asked["leaves"].cancel()

        await scene.let_go("next")
        assert scene.order == ["running", "next"]
        await until(lambda: scene.turns.running == 0)
        scene.close()

    asyncio.run(scene())


def test_fewer_run_at_once_when_answers_take_longer_than_without_load() -> None:
    async def scene() -> None:
        clock = ManualClock()
        turns = Turns(ApiSettings(concurrency_max=8, queue_max=100), clock)

        async def ask_many(count: int, at_once: int, seconds: float) -> None:
            for _ in range(0, count, at_once):
                gate = threading.Event()
                running = [asyncio.ensure_future(turns.run(lambda gate=gate: gate.wait(5))) for _ in range(at_once)]  # type: ignore[misc]
                await until(lambda: turns.running == min(at_once, turns.limit.limit))
                clock.advance(seconds)
                gate.set()
                await asyncio.gather(*running)

        await ask_many(20, 1, 0.01)
        before = turns.limit.limit
        await ask_many(24, 4, 1.0)

        assert before == 4
        assert turns.limit.limit < before
        turns.close()

    asyncio.run(scene())
