"""`k2 offsets` tells what is deferred, and what of it is lost with a log whose topic was created again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k2.common.degradation import Priority
from k2.ingestion.offset_plans import OffsetPlan, OffsetPlanner
from k2.ingestion.settings import IngestionSettings
from k2.storage.seam import HaltedStream
from k2.testing.deferring_market import DeferringMarket
from k2.testing.manual_clock import ManualClock
from k2.testing.simulated_hybrid import topic

if TYPE_CHECKING:
    from pathlib import Path

ASX = topic("asx", partitions=1)


def market_of(tmp_path: Path, deferred_from: Priority | None, *halt: HaltedStream) -> DeferringMarket:
    """Return a market of which the table holds the trades 0 and 2 of 4."""
    made = DeferringMarket(tmp_path, [ASX, topic("asx", "quotes", partitions=1)])
    made.register(ASX.name)
    for number in range(2):
        made.append(ASX.name, "ANZ", number)
        made.append(ASX.name, "NAB", number)
    made.commit(ASX.name, 0, deferred_from=deferred_from, halt=halt)
    return made


@pytest.fixture
def market(tmp_path: Path) -> DeferringMarket:
    """Return a market of which the table has deferred the trades 1 and 3 of 4."""
    return market_of(tmp_path, Priority.NORMAL)


def planner_of(market: DeferringMarket) -> OffsetPlanner:
    return OffsetPlanner(
        market,
        market,
        mover=None,
        letters=market,
        open_reader=market.open_reader,
        table_of={ASX.name: "trades"},
        settings=IngestionSettings(),
        clock=ManualClock(),
    )


def states(market: DeferringMarket) -> list[str]:
    return [entry["state"] for entry in planner_of(market).show()]


def test_what_is_deferred_is_shown_beside_what_is_to_be_ingested(market: DeferringMarket) -> None:
    assert states(market) == ["0 offsets to ingest; 2 records deferred"]


def test_the_plan_of_a_new_log_says_what_is_lost_with_the_old_one(market: DeferringMarket) -> None:
    market.create(ASX.name, "id-2")

    plan = OffsetPlan.from_json(planner_of(market).plan_new_log(ASX.name).to_json())

    assert "  partition 0: 2 deferred records of offsets 0 to 3 in log 0 are LOST" in plan.lines()


def test_the_plan_of_a_new_log_says_that_a_halted_stream_is_lost_with_the_old_one(tmp_path: Path) -> None:
    market = market_of(tmp_path, None, HaltedStream("NAB", ("NAB",), 1, 0))
    market.create(ASX.name, "id-2")

    plan = planner_of(market).plan_new_log(ASX.name)

    assert "  partition 0: 2 deferred records of offsets 1 to 3 in log 0 are LOST" in plan.lines()


def test_a_plan_of_a_new_log_without_deferred_records_says_nothing_of_them(market: DeferringMarket) -> None:
    market.backfill(ASX.name, 0)
    market.create(ASX.name, "id-2")

    plan = planner_of(market).plan_new_log(ASX.name)

    assert not any("deferred" in line for line in plan.lines())


def test_what_was_deferred_in_an_older_log_is_shown_until_it_is_counted_as_lost(market: DeferringMarket) -> None:
    market.create(ASX.name, "id-2")
    market.register(ASX.name)

    assert states(market) == ["0 offsets to ingest", "an older log: 2 deferred records are lost"]
