"""Ready means: the tail follows every topic that has rows; else the reasons are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from k2.api.readiness import reasons_not_ready
from k2.common.errors import UnavailableError
from k2.query.topic_watch import WatchedState
from k2.testing.simulated_hybrid import SimulatedHybrid, simulated_hybrid, topic
from k2.testing.simulated_market import SimulatedMarket

ASX = topic("asx")
NEW = topic("sim")


@pytest.fixture
def hybrid(tmp_path: Path) -> Iterator[SimulatedHybrid]:
    market = SimulatedMarket(tmp_path, [ASX, NEW])
    market.register(ASX.name)
    market.append(ASX.name, "BHP", 1)
    made = simulated_hybrid(market, tmp_path)
    yield made
    made.close()


def test_it_is_not_ready_before_the_first_look_at_the_topics(hybrid: SimulatedHybrid) -> None:
    assert reasons_not_ready(hybrid.tail) == ["the tail has not seen the tables and the topics yet"]


def test_it_is_ready_once_the_topics_are_followed_even_if_one_is_new_and_empty(hybrid: SimulatedHybrid) -> None:
    hybrid.tail.step()

    assert reasons_not_ready(hybrid.tail) == []


@pytest.mark.parametrize("name", ["trouble", "watch_trouble"])
def test_it_says_what_is_down(name: str) -> None:
    troubles = {
        "trouble": None,
        "watch_trouble": None,
        name: UnavailableError("the broker is down", dependency="kafka"),
    }
    tail = SimpleNamespace(state=WatchedState(), **troubles)

    assert reasons_not_ready(tail) == ["the broker is down"]  # type: ignore[arg-type]  # all that is looked at


def test_it_names_a_topic_that_is_not_the_one_the_table_was_built_from(hybrid: SimulatedHybrid) -> None:
    hybrid.tail.step()
    hybrid.market.create(ASX.name, "id-2")
    hybrid.tail.step()

    assert any(ASX.name in reason for reason in reasons_not_ready(hybrid.tail))
