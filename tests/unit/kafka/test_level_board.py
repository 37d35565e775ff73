"""Levels on the log: an announcer that never waits, and readers that take what they find and begin again."""

from __future__ import annotations

import threading

import pytest

from k2.common.announcing import DrillRequest, LevelAnnouncement
from k2.common.degradation import DegradationLevel
from k2.common.errors import UnavailableError
from k2.common.units import NS_PER_SECOND
from k2.kafka.drill_book import KafkaDrillBook
from k2.kafka.level_board import DROPPED, FAILED, SENT, KafkaAnnouncer, KafkaDrills, KafkaLevelBoard
from k2.kafka.settings import AnnouncingSettings
from k2.kafka.topics import DEGRADATION_TOPIC, DRILLS_TOPIC, TopicCatalog
from k2.testing.fake_log import FakeAdmin, FakeLog, FakeProducer, FakeReader
from k2.testing.manual_clock import ManualClock

SETTINGS = AnnouncingSettings(fresh_seconds=10, queued_max=3, retry_pause_seconds=0.001, workers_max=2)
BREAK = DegradationLevel.CIRCUIT_BREAK
SECONDS_MAX = 10


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def log(clock: ManualClock) -> FakeLog:
    log = FakeLog(now_ms=clock.time_ns() // 1_000_000)
    FakeAdmin(log).create_topics(TopicCatalog.load().control_topics)
    return log


@pytest.fixture
def board(log: FakeLog, clock: ManualClock) -> KafkaLevelBoard:
    return KafkaLevelBoard(log_ends=FakeAdmin(log), open_reader=lambda: FakeReader(log), settings=SETTINGS, clock=clock)


@pytest.fixture
def drills(log: FakeLog, clock: ManualClock) -> KafkaDrills:
    return KafkaDrills(log_ends=FakeAdmin(log), open_reader=lambda: FakeReader(log), settings=SETTINGS, clock=clock)


def said(worker: str = "w-1", level: DegradationLevel = BREAK) -> LevelAnnouncement:
    return LevelAnnouncement(worker, level, "lag", 1, 2)


def append(log: FakeLog, announcement: LevelAnnouncement) -> None:
    log.append(DEGRADATION_TOPIC, announcement.worker.encode(), announcement.to_json())


def request_at(clock: ManualClock, seconds: float = 60) -> DrillRequest:
    now = clock.time_ns()
    return DrillRequest(BREAK, now + int(seconds * NS_PER_SECOND), now, "ops")


class StuckProducer(FakeProducer):
    """Takes nothing until it is let go."""

    def __init__(self, log: FakeLog) -> None:
        super().__init__(log)
        self.is_entered, self.may_go = threading.Event(), threading.Event()

    def send(self, *arguments, **named) -> None:
        self.is_entered.set()
        assert self.may_go.wait(SECONDS_MAX)
        super().send(*arguments, **named)


def test_announcing_does_not_wait_for_a_log_that_is_stuck(log: FakeLog) -> None:
    producer, outcomes = StuckProducer(log), []
    announcer = KafkaAnnouncer(lambda: producer, settings=SETTINGS, on_outcome=lambda *told: outcomes.append(told))
    announcer.announce(said("first"))
    assert producer.is_entered.wait(SECONDS_MAX)

    for number in range(5):
        announcer.announce(said(f"w-{number}"))

    assert outcomes == [(DROPPED, 1)] * 2
    producer.may_go.set()
    announcer.close()
    assert [message.key for message in log.messages(DEGRADATION_TOPIC)] == [b"first", b"w-2", b"w-3", b"w-4"]
    assert sum(count for outcome, count in outcomes if outcome == SENT) == 4


def test_an_announcement_that_fails_is_counted_and_the_next_one_is_sent(log: FakeLog) -> None:
    told = threading.Event()
    outcomes: list[tuple[str, int]] = []

    def counted(outcome: str, count: int) -> None:
        outcomes.append((outcome, count))
        told.set()

    announcer = KafkaAnnouncer(lambda: FakeProducer(log), settings=SETTINGS, on_outcome=counted)
    log.is_up = False
    announcer.announce(said())
    assert told.wait(SECONDS_MAX)
    log.is_up = True

    announcer.announce(said())
    announcer.close()

    assert outcomes == [(FAILED, 1), (SENT, 1)]
    assert len(log.messages(DEGRADATION_TOPIC)) == 1


def test_a_closed_announcer_says_nothing_more(log: FakeLog) -> None:
    announcer = KafkaAnnouncer(lambda: FakeProducer(log), settings=SETTINGS)
    announcer.close()

    announcer.announce(said())

    assert log.messages(DEGRADATION_TOPIC) == []


def test_a_topic_that_is_not_there_yet_is_waited_for(board: KafkaLevelBoard, log: FakeLog) -> None:
    del log.topics[DEGRADATION_TOPIC]
    board.follower.step()
    log.create_topic(DEGRADATION_TOPIC)
    append(log, said())

    board.follower.step()

    assert board.current() == said()


def test_a_board_is_ready_once_it_has_read_what_was_there(board: KafkaLevelBoard, log: FakeLog) -> None:
    append(log, said())
    assert not board.wait_ready(0)

    board.follower.step()

    assert board.wait_ready(0)


def test_bytes_of_another_program_are_passed_over(board: KafkaLevelBoard, log: FakeLog) -> None:
    log.append(DEGRADATION_TOPIC, b"w-1", b"hello")
    append(log, said())

    board.follower.step()

    assert board.current() == said()


def test_a_level_that_was_announced_long_before_the_board_began_is_old(board, log: FakeLog, clock: ManualClock) -> None:
    append(log, said())
    clock.advance(SETTINGS.fresh_seconds + 1)

    board.follower.step()

    assert board.current() is None


def test_a_level_is_new_when_it_comes_whatever_the_clocks_of_worker_and_broker_say(board, log: FakeLog) -> None:
    board.follower.step()
    log.now_ms -= 3_600_000
    append(log, said())  # its own clock says 1970

    board.follower.step()

    assert board.current() == said()


def test_a_worker_whose_key_was_deleted_is_forgotten(board: KafkaLevelBoard, log: FakeLog) -> None:
    append(log, said())
    log.append(DEGRADATION_TOPIC, b"w-1", None)

    board.follower.step()

    assert board.current() is None


def test_no_more_workers_are_remembered_than_allowed(board: KafkaLevelBoard, log: FakeLog, clock) -> None:
    board.follower.step()
    for number, level in enumerate((BREAK, DegradationLevel.SOFT, DegradationLevel.NORMAL)):
        append(log, said(f"w-{number}", level))
        board.follower.step()
        clock.advance(1)

    current = board.current()

    assert current is not None
    assert current.worker == "w-1"


def test_reading_begins_again_after_an_outage(board: KafkaLevelBoard, log: FakeLog) -> None:
    board.follower.step()
    log.is_up = False
    with pytest.raises(UnavailableError):
        board.follower.step()
    log.is_up = True
    append(log, said())

    board.follower.step()

    assert board.current() == said()


def test_a_board_reads_on_its_own_thread_until_it_is_closed(board: KafkaLevelBoard, log: FakeLog) -> None:
    append(log, said())

    board.start()
    for _ in range(1_000_000):
        if board.current() is not None:
            break
    board.close()

    assert board.current() == said()


def test_a_drill_whose_end_could_not_be_heard_is_not_in_force(drills: KafkaDrills, log: FakeLog, clock) -> None:
    log.append(DRILLS_TOPIC, b"drill", request_at(clock).to_json())
    drills.follower.step()
    log.is_up = False
    with pytest.raises(UnavailableError):
        drills.follower.step()
    assert drills.wanted() is not None

    clock.advance(SETTINGS.fresh_seconds + 1)

    assert drills.wanted() is None


def test_drills_that_lie_far_back_are_not_read(log: FakeLog, clock: ManualClock) -> None:
    settings = SETTINGS.model_copy(update={"drills_read_max": 2})
    drills = KafkaDrills(log_ends=FakeAdmin(log), open_reader=lambda: FakeReader(log), settings=settings, clock=clock)
    log.append(DRILLS_TOPIC, b"drill", request_at(clock).to_json())
    for _ in range(2):
        log.append(DRILLS_TOPIC, b"drill", b"no request")

    drills.follower.step()

    assert drills.wanted() is None


class SilentReader(FakeReader):
    """Gives nothing, and lets time pass."""

    def __init__(self, log: FakeLog, clock: ManualClock) -> None:
        super().__init__(log)
        self._clock = clock

    def poll(self, _max_messages, _timeout_seconds):
        self._clock.advance(1)
        return []


def test_a_list_of_drills_that_does_not_come_is_an_error(log: FakeLog, clock: ManualClock) -> None:
    log.append(DRILLS_TOPIC, b"drill", request_at(clock).to_json())
    book = KafkaDrillBook(
        make_producer=lambda: FakeProducer(log),
        log_ends=FakeAdmin(log),
        open_reader=lambda: SilentReader(log, clock),
        settings=SETTINGS,
        clock=clock,
    )

    with pytest.raises(UnavailableError, match="read up to 0 of 1"):
        book.asked(10)
