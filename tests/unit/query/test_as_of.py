"""What `as_of` may name, and what is answered where retention has taken rows out since."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from k2 import bootstrap
from k2.common.errors import ExpiredError, QueryError
from k2.common.units import NS_PER_DAY
from k2.query.bars.request import BarsRequest
from k2.query.certificate import AsOf
from k2.query.gap_aware import GapAwareEngine
from k2.query.request import Answer, QueryRequest
from k2.settings import Settings
from k2.storage.expiry import SnapshotExpiry
from k2.storage.named_snapshots import SnapshotTags
from k2.storage.seam import Counts, LogPartition, PartitionDelta
from k2.storage.upkeep.retention import Retention
from k2.storage.writer import Batch
from k2.testing.local_lake import TOPIC, LocalLake
from k2.testing.manual_clock import ManualClock
from k2.testing.market_rows import START_NS, market_rows

LOGGED_NS = START_NS + NS_PER_DAY
"""When the log took the rows of `market_rows`."""


class World:
    def __init__(self, lake: LocalLake, engine: GapAwareEngine) -> None:
        self.lake, self.engine = lake, engine
        self.tags = SnapshotTags(lake.tables, lake.settings, lake.clock)
        self.end = 0

    def commit(self, days: int = 1) -> None:
        """Commit a trade of each of the next days."""
        rows = market_rows(range(self.end, self.end + days), symbols=("AAA",), step_ns=NS_PER_DAY)
        delta = PartitionDelta(self.end, self.end + days, Counts(consumed=days, rows=days))
        writer = self.lake.writer()
        writer.commit(Batch(f"b{self.end}", {LogPartition(0, 0): delta}, writer.write_files(rows)))
        self.end += days

    def drop_first_day(self) -> None:
        retention = Retention(self.lake.tables, self.lake.settings, self.lake.clock)
        retention.drop("trades", retention.plan("trades", older_than_days=0)[:1])

    def expire(self) -> None:
        SnapshotExpiry(self.lake.tables, self.lake.settings, self.lake.clock).expire("trades")

    def answer(self, **fields: Any) -> Answer:
        return self.engine.query(
            QueryRequest(data_type="trades", symbol="AAA", exchange="sim", lake_only=True, **fields)
        )

    def days(self, **fields: Any) -> list[int]:
        times = self.answer(**fields).table["ts_event_ns"].to_pylist()
        return [(at - START_NS) // NS_PER_DAY for at in times]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    lake = LocalLake(
        tmp_path,
        ManualClock(START_NS + 100 * NS_PER_DAY),
        snapshots_kept_min=1,
        snapshots_kept_max=2,
        snapshot_age_min_seconds=0,
    )
    lake.tables.ensure()
    lake.tables.register_log("trades", cluster_id="c", topic_id="t", topic=TOPIC, starts={0: 0})
    with bootstrap.lake_engine(Settings(data_dir=tmp_path, catalog=lake.settings)) as engine:
        yield World(lake, engine)
    lake.close()


def test_a_snapshot_and_its_tag_answer_with_the_rows_up_to_its_seam(world: World) -> None:
    world.commit(2)
    tag = world.tags.tag("before", "trades")
    world.commit(3)
    assert tag is not None

    found = [world.days(as_of=name) for name in (f"snapshot:{tag.snapshot_id}", "before", "tag:before", "now", None)]

    assert found == [[0, 1], [0, 1], [0, 1], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    token = world.answer(as_of="before").certificate.as_of
    assert world.days(as_of=token) == [0, 1]


def test_bars_go_back_to_a_tag_and_keep_their_state(world: World) -> None:
    world.commit(2)
    world.tags.tag("before", "trades")
    world.commit(1)
    trades = QueryRequest(data_type="trades", symbol="AAA", exchange="sim", lake_only=True, as_of="before")

    bars = world.engine.bars(BarsRequest(trades=trades, interval="1d")).table

    assert bars["trade_count"].to_pylist() == [1, 1]


@pytest.mark.parametrize("name", ["missing", "tag:missing", "a b", "snapshot", "eyJ2"])
def test_what_names_nothing_is_refused_with_what_there_is(world: World, name: str) -> None:
    world.commit()
    world.tags.tag("known", "trades")

    with pytest.raises(QueryError, match=r"known|token of a certificate"):
        world.answer(as_of=name)


def test_a_snapshot_that_has_expired_is_refused_and_one_with_a_tag_is_not(world: World) -> None:
    for _ in range(6):
        world.commit()
    oldest, tagged = (world.tags.snapshots(["trades"])[place].snapshot_id for place in (4, 3))
    world.tags.tag("kept", "trades", snapshot_id=tagged)
    world.expire()

    with pytest.raises(ExpiredError, match="it has expired"):
        world.answer(as_of=f"snapshot:{oldest}")
    assert world.days(as_of=f"snapshot:{tagged}") == [0, 1, 2]


def test_a_token_from_before_a_drop_is_refused_and_later_days_are_not(world: World) -> None:
    world.commit(3)
    token = world.answer().certificate.as_of
    world.drop_first_day()
    for _ in range(3):
        world.commit()
    world.expire()

    with pytest.raises(ExpiredError, match="days of sim dropped by retention"):
        world.answer(as_of=token)
    assert world.days(as_of=token, start_ns=START_NS + NS_PER_DAY) == [1, 2]
    assert world.days() == [1, 2, 3, 4, 5]
    rest = world.answer(as_of=token, on_degrade="partial")
    assert not rest.certificate.complete
    assert rest.certificate.as_of is None
    assert rest.table.num_rows == 2


def test_a_token_from_after_a_drop_is_answered(world: World) -> None:
    world.commit(3)
    world.drop_first_day()
    token = world.answer().certificate.as_of
    for _ in range(3):
        world.commit()
    world.expire()

    assert world.days(as_of=token) == [1, 2]


def test_a_tag_from_after_a_token_keeps_what_the_token_needs(world: World) -> None:
    world.commit(2)
    token = world.answer().certificate.as_of
    world.commit()
    world.tags.tag("month-end", "trades")
    world.drop_first_day()
    for _ in range(3):
        world.commit()
    world.expire()

    assert world.days(as_of=token) == [0, 1]
    assert world.days(as_of="month-end") == [0, 1, 2]
    assert world.days(as_of="month-end", window_minutes=5, anchor="latest") == [2]


def test_a_time_before_a_drop_is_refused_where_rows_of_it_are_gone(world: World) -> None:
    world.commit(3)
    then = world.lake.clock.time_ns()
    world.drop_first_day()

    with pytest.raises(ExpiredError, match="dropped by retention"):
        world.answer(known_at_ns=then)
    assert world.days(known_at_ns=then, start_ns=START_NS + NS_PER_DAY) == [1, 2]


def test_the_token_of_an_answer_as_known_at_a_time_keeps_the_time(world: World) -> None:
    world.commit(2)
    early = world.answer(known_at_ns=LOGGED_NS)
    late = world.answer(known_at_ns=LOGGED_NS + 1_000)

    again = [world.answer(as_of=each.certificate.as_of) for each in (early, late)]

    assert [each.table.num_rows for each in again] == [0, 2]
    assert [each.certificate.known_at_ns for each in again] == [LOGGED_NS, LOGGED_NS + 1_000]
    assert world.answer(as_of=late.certificate.as_of, known_at_ns=LOGGED_NS).table.num_rows == 0


def test_a_token_with_a_time_is_refused_by_what_does_not_know_of_times() -> None:
    token = AsOf("trades", "sim", 1, ((0, 0, 0, 1),), known_at_ns=5)

    assert AsOf.from_token(token.to_token()) == token
    assert token._version == 3
