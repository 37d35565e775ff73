"""A replayed dead letter fills the gap that it closes, once, and answers that knew the gap keep it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import polars as pl
import pytest

from k2.common.errors import UnavailableError
from k2.ingestion.sequences.filling import closed
from k2.storage.gaps import GapReader, GapWriter
from k2.testing.gap_events import gap_event, gap_events
from k2.testing.local_lake import TOPIC
from k2.testing.replay_world import OLD, TOPIC_ID, ReplayWorld

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATE = dt.date(2026, 1, 5)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ReplayWorld]:
    made = ReplayWorld(tmp_path).create()
    yield made
    made.lake.close()


def opened(world: ReplayWorld, first: int, last: int) -> None:
    gap = gap_event(
        "opened", first, last, gap_first=first, gap_last=last, exchange="sim", symbol="AAA", topic=TOPIC,
        topic_id=TOPIC_ID, trading_date=OLD.date(), trading_date_to=OLD.date(),
    )  # fmt: skip
    GapWriter(world.lake.tables, world.lake.settings, world.lake.clock).append(gap_events(gap))


def gaps(world: ReplayWorld) -> list[tuple[str, int]]:
    return GapReader(world.lake.tables).gaps().select("state", "missing").rows()


def test_a_replay_fills_the_gap_that_its_dead_letters_left(world: ReplayWorld) -> None:
    world.ingest(0, 10, bad=[3, 5])
    opened(world, 3, 3)

    world.replay()

    assert gaps(world) == [("filled", 0)]
    (event,) = world.lake.tables.load("gaps").scan("event = 'filled'").to_arrow().to_pylist()
    head = world.lake.tables.head("trades").seam
    assert (event["event_offset"], event["first_missing"], event["decided_offset"]) == (3, 3, 9)
    assert event["commit_sequence"] == head.commit_sequence


def test_numbers_that_stay_dead_letters_stay_missing(world: ReplayWorld) -> None:
    world.ingest(0, 10, bad=[3])
    opened(world, 3, 5)

    world.replay()

    assert gaps(world) == [("open", 2)]


def test_a_replay_that_ended_before_its_marks_is_repeated_and_fills_once(world: ReplayWorld, monkeypatch) -> None:
    def down(_events: pl.DataFrame) -> int:
        raise UnavailableError("the catalog is down", dependency="catalog")

    world.ingest(0, 10, bad=[3])
    opened(world, 3, 4)
    with monkeypatch.context() as broken:
        broken.setattr(world.events, "append", down)
        with pytest.raises(UnavailableError):
            world.replay()

    world.replay()

    assert world.lake.tables.load("gaps").scan("event = 'filled'").to_arrow().num_rows == 1
    assert gaps(world) == [("open", 1)]


def rows(*numbers: tuple[int, int], date: dt.date = DATE, symbol: str = "BHP") -> pl.DataFrame:
    """Return rows of sequence and offset."""
    return pl.DataFrame(
        [(symbol, number, date, offset, dt.datetime(2026, 1, 6, tzinfo=dt.UTC)) for number, offset in numbers],
        schema=["symbol", "sequence", "trading_date", "log_offset", "ts_log"],
        orient="row",
    )


@pytest.mark.parametrize(
    ("brought", "filled"),
    [
        (rows((9, 1), (10, 2), (14, 3), (15, 4)), [(10, 2), (14, 3)]),
        (rows((12, 5), (12, 6)), [(12, 5)]),
        (rows((11, 7)), []),
        (rows((12, 5), symbol="CBA"), []),
        (rows((12, 5), date=DATE + dt.timedelta(days=1)), []),
    ],
    ids=["within it", "twice", "filled before", "another symbol", "another session"],
)
def test_a_row_closes_what_its_stream_misses_in_its_session(brought, filled) -> None:
    events = gap_events(gap_event("opened", 10, 14), gap_event("filled", 11, 11, event_offset=30))

    found = closed(events, brought, "symbol", recorded_us=0, decided_offset=0)

    assert found.select("first_missing", "event_offset").rows() == filled


def test_of_two_gaps_that_span_a_number_it_fills_the_newer_one() -> None:
    events = gap_events(gap_event("opened", 10, 14), gap_event("opened", 10, 12, gap_last=12, log_offset=90))

    found = closed(events, rows((11, 95)), "symbol", recorded_us=0, decided_offset=0)

    assert found["log_offset"].to_list() == [90]
