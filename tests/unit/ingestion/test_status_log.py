"""What feeds mark is read to its end, from all status topics, and every marker once."""

from __future__ import annotations

import datetime as dt

import polars as pl
import pytest

from k2.common.errors import UnavailableError
from k2.feeds.channel import Channel
from k2.ingestion.sequences.markers import Marker
from k2.ingestion.sequences.status_log import StatusLog
from k2.kafka.producer import partition_for
from k2.kafka.topics import TopicCatalog
from k2.schemas.arrow import message_polars_schema
from k2.schemas.records import TRADES
from k2.testing.fake_log import FakeAdmin, FakeLog, FakeProducer, FakeReader, FakeRegistry
from k2.testing.manual_clock import ManualClock
from k2.testing.market_rows import market_rows

TOPICS = TopicCatalog.load()
TRADE_TOPIC = TOPICS.topic("sim", "trades")
PLACE = (TRADE_TOPIC.name, partition_for(b"AAA", TRADE_TOPIC.partitions))
DAY = (dt.date(2026, 1, 1) - dt.date(1970, 1, 1)).days


class World:
    """A feed and a worker's status log on one log."""

    def __init__(self, markers_max: int = 100) -> None:
        self.log, self.registry, self.clock = FakeLog(), FakeRegistry(), ManualClock()
        self.channel = Channel(
            "sim", topics=TOPICS, admin=FakeAdmin(self.log), registry=self.registry, producer=FakeProducer(self.log),
            flush_seconds=1,
        )  # fmt: skip
        self.status = self.reading(markers_max)

    def reading(self, markers_max: int = 100, reader: type[FakeReader] = FakeReader) -> StatusLog:
        return StatusLog(
            [topic for topic in TOPICS.market_topics if topic.data_type == "trades"],
            [topic for topic in TOPICS.all_topics if topic.data_type == "status"],
            log_ends=FakeAdmin(self.log),
            open_reader=lambda: reader(self.log),
            registry=self.registry,
            clock=self.clock,
            silent_seconds_max=1,
            markers_max=markers_max,
            schemas_max=5,
        )

    def send(self, count: int) -> None:
        rows = market_rows(range(1, count + 1), symbols=["AAA"])
        self.channel.send("trades", rows.select(list(message_polars_schema(TRADES))))

    def mark(self, last: int | None, *, data_type: str = "trades", alive: bool = False) -> None:
        rows = pl.DataFrame(
            {
                "source": ["test"],
                "symbol": ["AAA"],
                "last_sequence": [last],
                "last_source_sequence": [1],
                "records": [1],
            }
        )
        (self.channel.mark_alive if alive else self.channel.mark_end)(data_type, rows)


def test_a_marker_says_how_far_a_symbol_went_in_which_session_and_when():
    world = World()
    world.send(3)
    world.mark(5)

    world.status.refresh()

    assert world.status.partitions() == [PLACE]
    assert world.status.of(*PLACE) == [Marker("AAA", 5, DAY, world.log.now_ms * 1_000, 0)]


def test_a_heartbeat_counts_as_the_end_does():
    world = World()
    world.mark(4, alive=True)
    world.mark(5)

    world.status.refresh()

    assert [marker.last for marker in world.status.of(*PLACE)] == [4, 5]


def test_each_marker_is_read_once_and_by_everyone_from_the_beginning():
    world = World()
    world.mark(4)
    world.status.refresh()
    world.mark(5)

    world.status.refresh()
    other = world.reading()
    other.refresh()

    assert [marker.offset for marker in world.status.of(*PLACE)] == [0, 1]
    assert other.of(*PLACE) == world.status.of(*PLACE)


class _OneByOne(FakeReader):
    """Brings one message a poll."""

    def poll(self, max_messages, timeout_seconds):
        return super().poll(min(max_messages, 1), timeout_seconds)


def test_markers_are_read_to_the_end_however_many_polls_that_takes():
    world = World()
    for number in (4, 5, 6):
        world.mark(number)
    status = world.reading(reader=_OneByOne)

    status.refresh()

    assert [marker.last for marker in status.of(*PLACE)] == [4, 5, 6]


def test_markers_of_other_tables_without_numbers_and_unreadable_ones_are_passed_over():
    world = World()
    world.mark(4, data_type="quotes")
    world.mark(None)
    world.log.append(TOPICS.topic("sim", "status").name, b"k", b"\x00no marker")
    world.mark(5)

    world.status.refresh()

    assert [marker.last for marker in world.status.of(*PLACE)] == [5]


def test_with_the_registry_down_nothing_is_left_out():
    world = World()
    world.mark(4)
    world.registry.is_up = False

    with pytest.raises(UnavailableError):
        world.status.refresh()
    world.registry.is_up = True
    world.status.refresh()

    assert [marker.last for marker in world.status.of(*PLACE)] == [4]


def test_the_registry_is_asked_for_a_schema_once():
    world = World()
    for number in range(4, 9):
        world.mark(number)
        world.status.refresh()

    assert len(world.status.of(*PLACE)) == 5
    assert len(world.registry.asked) == 1


def test_a_status_topic_that_is_made_anew_is_read_from_its_start_behind_what_was_read_before():
    world = World()
    for number in (4, 5):
        world.mark(number)
    world.status.refresh()
    world.log.create_topic(TOPICS.topic("sim", "status").name)
    world.mark(6)

    with pytest.raises(UnavailableError, match="read again from its start"):
        world.status.refresh()
    world.status.refresh()

    assert [(marker.last, marker.offset) for marker in world.status.of(*PLACE)] == [(4, 0), (5, 1), (6, 2)]


def test_the_log_has_reached_a_markers_time_and_what_has_passed_since_it_was_read():
    world = World()
    world.mark(4)
    before = world.status.passed_us()

    world.status.refresh()
    world.clock.advance(7)

    assert (before, world.status.passed_us()) == (0, world.log.now_ms * 1_000 + 7_000_000)


def test_the_oldest_markers_go_where_there_are_too_many():
    world = World(markers_max=4)
    for number in range(1, 12):
        world.mark(number)

    world.status.refresh()

    assert [marker.last for marker in world.status.of(*PLACE)][-3:] == [9, 10, 11]
    assert len(world.status.of(*PLACE)) <= 4
