"""Levels and drills as processes tell each other: in memory, over a log in memory, and over a real broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from k2.common.announcing import Announcer, DrillBook, DrillRequest, Drills, LevelAnnouncement, LevelBoard
from k2.common.clock import SystemClock
from k2.common.degradation import DegradationLevel
from k2.common.units import NS_PER_SECOND
from k2.kafka.admin import LogAdmin
from k2.kafka.consumer import LogReader
from k2.kafka.drill_book import KafkaDrillBook
from k2.kafka.level_board import KafkaAnnouncer, KafkaDrills, KafkaLevelBoard
from k2.kafka.producer import LogProducer
from k2.kafka.settings import AnnouncingSettings
from k2.kafka.topics import TopicCatalog
from k2.testing.fake_drills import FakeDrills
from k2.testing.fake_log import FakeAdmin, FakeLog, FakeProducer, FakeReader
from k2.testing.level_board import FakeLevelBoard
from k2.testing.manual_clock import ManualClock

NORMAL, SOFT, BREAK = DegradationLevel.NORMAL, DegradationLevel.SOFT, DegradationLevel.CIRCUIT_BREAK
SETTINGS = AnnouncingSettings(fresh_seconds=10, drill_seconds_max=100, retry_pause_seconds=0.05)
TOPICS = TopicCatalog.load().control_topics
TRIES_MAX = 200


class World:
    """The ports under test. `eventually` is what crossing a log takes; in memory it is at once."""

    announcer: Announcer
    drills: Drills
    book: DrillBook
    board: LevelBoard

    def __init__(self) -> None:
        self.clock = ManualClock()

    def eventually(self, ask: Callable[[], Any], wanted: Any) -> None:
        assert ask() == wanted

    def close(self) -> None: ...


class InMemory(World):
    def __init__(self) -> None:
        super().__init__()
        self.announcer = self.board = FakeLevelBoard(self.clock, fresh_seconds=SETTINGS.fresh_seconds)
        self.drills = self.book = FakeDrills(self.clock, drill_seconds_max=SETTINGS.drill_seconds_max)


class OverALog(World):
    """Kafka's own classes on any log."""

    def __init__(self, admin: Any, producer: Callable[[], Any], reader: Callable[[], Any]) -> None:
        super().__init__()
        admin.create_topics(TOPICS)
        parts = {"log_ends": admin, "open_reader": reader, "settings": SETTINGS, "clock": self.clock}
        self.announcer = KafkaAnnouncer(producer, settings=SETTINGS)
        self.board, self.drills = KafkaLevelBoard(**parts), KafkaDrills(**parts)
        self.book = KafkaDrillBook(make_producer=producer, **parts)
        self.board.start()
        self.drills.start()

    def eventually(self, ask, wanted) -> None:
        for _ in range(TRIES_MAX):
            if ask() == wanted:
                return
            SystemClock().sleep(0.05)
        assert ask() == wanted

    def close(self) -> None:
        self.announcer.close()
        self.board.close()
        self.drills.close()


class ReaderThatWaits(FakeReader):
    """Waits a moment as a real one does, so that a thread that follows it does not spin."""

    def poll(self, max_messages, timeout_seconds):
        SystemClock().sleep(0.01)
        return super().poll(max_messages, timeout_seconds)


@pytest.fixture(params=["memory", "fake log", pytest.param("kafka", marks=pytest.mark.platform)])
def world(request) -> Iterator[World]:
    if request.param == "memory":
        yield InMemory()
        return
    if request.param == "fake log":
        log = FakeLog()
        made = OverALog(FakeAdmin(log), lambda: FakeProducer(log), lambda: ReaderThatWaits(log))
        yield made
        made.close()
        return
    settings = request.getfixturevalue("kafka_settings")
    admin = LogAdmin(settings)
    admin.create_topics(TOPICS)
    empty(settings, admin)
    made = OverALog(admin, lambda: LogProducer(settings), lambda: LogReader(settings))
    yield made
    made.close()
    admin.close()


def empty(settings, admin) -> None:
    """Forget what the tests before have said."""
    client = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
    ends = [TopicPartition(*at, extent.end) for at, extent in admin.ranges([topic.name for topic in TOPICS]).items()]
    for future in client.delete_records(ends).values():
        future.result(10)


@pytest.fixture
def board(world) -> LevelBoard:
    return world.board


def said(world, worker: str, level: DegradationLevel) -> LevelAnnouncement:
    now = world.clock.time_ns()
    return LevelAnnouncement(worker, level, "lag", now, now)


def request_of(world, level: DegradationLevel, seconds: float, **more: Any) -> DrillRequest:
    now = world.clock.time_ns()
    return DrillRequest(level, now + int(seconds * NS_PER_SECOND), now, "ops@here", **more)


def test_nobody_is_heard_before_somebody_speaks(world, board) -> None:
    assert board.current() is None
    assert world.drills.wanted() is None


def test_the_highest_level_of_all_workers_is_the_platforms(world, board) -> None:
    high = said(world, "w-2", BREAK)

    for each in (said(world, "w-1", SOFT), high, said(world, "w-3", NORMAL)):
        world.announcer.announce(each)

    world.eventually(board.current, high)


def test_a_worker_that_came_down_is_no_longer_up(world, board) -> None:
    world.announcer.announce(said(world, "w-1", BREAK))
    down = said(world, "w-1", NORMAL)

    world.announcer.announce(down)

    world.eventually(board.current, down)


def test_a_worker_that_is_silent_no_longer_counts(world, board) -> None:
    high = said(world, "w-1", BREAK)
    world.announcer.announce(high)
    world.eventually(board.current, high)

    world.clock.advance(SETTINGS.fresh_seconds + 1)

    assert board.current() is None


def test_a_drill_is_heard_with_all_that_was_asked_for(world) -> None:
    request = request_of(world, SOFT, 60, sink_delay_seconds=0.5, sink_rows_per_second=400.0, note="a rehearsal")

    world.book.ask(request)

    world.eventually(world.drills.wanted, request)


def test_a_drill_ends_when_its_time_is_over(world) -> None:
    request = request_of(world, SOFT, 60)
    world.book.ask(request)
    world.eventually(world.drills.wanted, request)

    world.clock.advance(59)
    assert world.drills.wanted() == request
    world.clock.advance(1)

    assert world.drills.wanted() is None


def test_a_request_whose_time_is_over_ends_the_one_before(world) -> None:
    request = request_of(world, BREAK, 60)
    world.book.ask(request)
    world.eventually(world.drills.wanted, request)

    world.book.ask(request_of(world, NORMAL, 0))

    world.eventually(world.drills.wanted, None)


def test_no_drill_takes_longer_than_is_allowed(world) -> None:
    request = request_of(world, BREAK, 1_000_000)
    world.book.ask(request)
    world.eventually(world.drills.wanted, request)

    world.clock.advance(SETTINGS.drill_seconds_max)

    assert world.drills.wanted() is None


def test_the_book_keeps_who_asked_for_what_in_order(world) -> None:
    requests = [request_of(world, level, 60) for level in (SOFT, BREAK, NORMAL)]

    for each in requests:
        world.book.ask(each)

    assert list(world.book.asked(100)) == requests
    assert list(world.book.asked(2)) == requests[1:]
