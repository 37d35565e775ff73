"""What a look at the tables teaches."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from k2.common.clock import SystemClock
from k2.common.errors import UnavailableError
from k2.kafka.registry import CachedSchemas
from k2.kafka.topics import Topic
from k2.query.topic_watch import LearningHeads, PinnedHeads, TopicWatch
from k2.testing.fake_log import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAIT_SECONDS = 30.0
AT_ONCE_SECONDS = 5.0


class Tables:
    """Answers as it is told to, once it may."""

    def __init__(self) -> None:
        self.may_answer, self.asked = threading.Event(), threading.Semaphore(0)
        self.answer: Callable[[], object] = lambda: None

    def head(self, name: str) -> object:
        del name
        self.asked.release()
        self.may_answer.wait(WAIT_SECONDS)
        return self.answer()


@pytest.fixture
def tables() -> Tables:
    return Tables()


@pytest.fixture
def watch(tables: Tables) -> Iterator[TopicWatch]:
    topic = Topic("market.equities.trades.asx", "equities", "trades", "asx", 1, {})
    facts = SimpleNamespace(identities=lambda _: {}, ranges=lambda _: {})
    watch = TopicWatch([topic], log_facts=facts, tables=tables, interval_seconds=WAIT_SECONDS)  # type: ignore[arg-type]  # all that is asked of them
    watch.start()
    yield watch
    tables.may_answer.set()
    watch.stop(WAIT_SECONDS)


def seconds_of(action: Callable[[], None]) -> float:
    clock = SystemClock()
    began = clock.monotonic()
    action()
    return clock.monotonic() - began


def test_nobody_waits_for_a_look_that_somebody_has_waited_for_in_vain(watch: TopicWatch, tables: Tables) -> None:
    tables.asked.acquire(timeout=WAIT_SECONDS)
    watch.look_again(0.01)

    assert seconds_of(lambda: watch.look_again(WAIT_SECONDS)) < AT_ONCE_SECONDS


def test_nobody_waits_where_the_last_look_failed(watch: TopicWatch, tables: Tables) -> None:
    def fail() -> None:
        raise UnavailableError("the catalog is down", dependency="catalog")

    tables.answer = fail
    tables.may_answer.set()
    watch.look_again(WAIT_SECONDS)

    assert watch.trouble is not None
    assert seconds_of(lambda: watch.look_again(WAIT_SECONDS)) < AT_ONCE_SECONDS


def test_a_look_that_is_asked_for_is_waited_for(watch: TopicWatch, tables: Tables) -> None:
    tables.may_answer.set()
    watch.look_again(WAIT_SECONDS)

    watch.look_again(WAIT_SECONDS)

    assert set(watch.state.heads) == {"trades"}


def test_schemas_that_a_table_has_recorded_are_known_without_the_registry() -> None:
    registry = FakeRegistry()
    registry.is_up = False
    schemas = CachedSchemas(registry, {}, entries_max=100)
    tables = SimpleNamespace(head=lambda _: SimpleNamespace(schemas={7: "text"}))

    LearningHeads(tables, {"trades": schemas}).head("trades")  # type: ignore[arg-type]  # all that is asked of them

    assert schemas.schema_text(7) == "text"


def test_a_look_pins_the_newest_snapshots_whatever_is_damaged() -> None:
    pinned: list[tuple[str, bool]] = []

    def pin(name: str, *, partial: bool = False) -> SimpleNamespace:
        pinned.append((name, partial))
        return SimpleNamespace(head=f"head of {name}")

    heads = PinnedHeads(SimpleNamespace(pin=pin))  # type: ignore[arg-type]  # all that is asked of it

    assert heads.head("trades") == "head of trades"  # type: ignore[comparison-overlap]  # stands for a head
    assert pinned == [("trades", True)]
