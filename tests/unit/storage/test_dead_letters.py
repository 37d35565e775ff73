"""Dead letters: each coordinate and kind once, whatever happens to the commit."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import polars as pl

from k2.schemas.arrow import polars_schema
from k2.schemas.records import DEAD_LETTERS
from k2.storage.dead_letters import DeadLetterWriter
from k2.testing.faulty_catalog import Fault
from k2.testing.local_lake import LocalLake

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def events(offsets: Iterable[int], *, partition: int = 0, event: str = "written", topic_id: str = "t") -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "event": event,
                "ts_recorded": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
                "table_name": "trades",
                "topic": "market.equities.trades.sim",
                "topic_id": topic_id,
                "log_id": 0,
                "log_partition": partition,
                "log_offset": offset,
                "ts_log": None,
                "error_class": "undecodable",
                "reason": "too short",
                "key": b"AAA",
                "value": b"\x00\xff",
            }
            for offset in offsets
        ],
        schema=polars_schema(DEAD_LETTERS),
    )


def letters(lake: LocalLake) -> DeadLetterWriter:
    return DeadLetterWriter(lake.tables, lake.settings, lake.clock)


def held(lake: LocalLake) -> list[tuple[str, int, int, str]]:
    rows = lake.tables.load("dead_letters").scan().to_arrow().to_pylist()
    return sorted((row["topic_id"], row["log_partition"], row["log_offset"], row["event"]) for row in rows)


def test_events_are_appended_with_their_bytes(lake: LocalLake) -> None:
    appended = letters(lake).append(events([3, 1]).to_arrow())

    rows = lake.tables.load("dead_letters").scan().to_arrow().to_pylist()
    assert appended == 2
    assert [(row["log_offset"], row["key"], row["value"]) for row in rows] == [
        (1, b"AAA", b"\x00\xff"),
        (3, b"AAA", b"\x00\xff"),
    ]


def test_only_absent_coordinates_are_appended(lake: LocalLake) -> None:
    letters(lake).append(events([1, 5]))

    appended = letters(lake).append(events([1, 2, 5, 9]))

    assert appended == 2
    assert held(lake) == [("t", 0, offset, "written") for offset in (1, 2, 5, 9)]


def test_the_same_offset_of_another_partition_topic_or_kind_is_another_event(lake: LocalLake) -> None:
    letters(lake).append(events([1]))

    others = pl.concat([events([1], partition=1), events([1], topic_id="u"), events([1], event="replayed")])

    assert letters(lake).append(others) == 3


def test_an_event_told_twice_in_one_call_is_one(lake: LocalLake) -> None:
    assert letters(lake).append(events([4, 4, 4])) == 1


def test_nothing_new_makes_no_snapshot(lake: LocalLake) -> None:
    letters(lake).append(events([1]))
    before = lake.tables.load("dead_letters").metadata_location

    assert letters(lake).append(events([1])) == 0
    assert lake.tables.load("dead_letters").metadata_location == before


def test_no_events_are_no_work(lake: LocalLake) -> None:
    assert letters(lake).append(events([])) == 0


def test_a_lost_reply_appends_once(lake: LocalLake) -> None:
    lake.catalog.faults.append(Fault.LOSE_REPLY)

    appended = letters(lake).append(events([1, 2]))

    assert appended == 2
    assert len(held(lake)) == 2


def test_a_worker_that_was_faster_with_the_same_events_leaves_only_the_rest(tmp_path: Path) -> None:
    other = LocalLake(tmp_path).create()
    lake = LocalLake(tmp_path)
    left = [events([1, 2])]
    lake.catalog.before_commit = lambda: letters(other).append(left.pop()) if left else None

    appended = letters(lake).append(events([2, 3]))

    assert appended == 1
    assert held(lake) == [("t", 0, offset, "written") for offset in (1, 2, 3)]
