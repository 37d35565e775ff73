"""Releases of halted streams: asked for on a topic, heard by workers from before their start on, kept for the audit."""

from __future__ import annotations

import pytest

from k2.common.announcing import ReleaseRequest
from k2.common.errors import UnavailableError
from k2.kafka.releases import KafkaReleaseBook, KafkaReleases
from k2.kafka.settings import AnnouncingSettings
from k2.kafka.topics import RELEASES_TOPIC, TopicCatalog
from k2.testing.fake_log import FakeAdmin, FakeLog, FakeProducer, FakeReader
from k2.testing.manual_clock import ManualClock

ASKED = ReleaseRequest("trades", 0, 1, 42, "BHP", 5, "ana@desk", "the venue confirmed the loss")


@pytest.fixture
def log() -> FakeLog:
    log = FakeLog()
    FakeAdmin(log).create_topics(TopicCatalog.load().control_topics)
    return log


def releases_of(log: FakeLog, **settings: int) -> KafkaReleases:
    own = AnnouncingSettings(**settings)
    return KafkaReleases(
        log_ends=FakeAdmin(log), open_reader=lambda: FakeReader(log), settings=own, clock=ManualClock()
    )


def book_of(log: FakeLog) -> KafkaReleaseBook:
    return KafkaReleaseBook(
        make_producer=lambda: FakeProducer(log),
        log_ends=FakeAdmin(log),
        open_reader=lambda: FakeReader(log),
        settings=AnnouncingSettings(),
        clock=ManualClock(),
    )


def test_a_release_is_heard_by_a_worker_that_starts_later_and_stays_in_the_book(log: FakeLog) -> None:
    book_of(log).ask(ASKED)
    releases = releases_of(log)

    releases.follower.step()

    assert releases.is_released("trades", 0, 1, 42)
    assert book_of(log).asked(10) == [ASKED]


@pytest.mark.parametrize(
    "other", [("quotes", 0, 1, 42), ("trades", 1, 1, 42), ("trades", 0, 0, 42), ("trades", 0, 1, 43)]
)
def test_it_is_of_one_halt_and_no_other(log: FakeLog, other: tuple[str, int, int, int]) -> None:
    book_of(log).ask(ASKED)
    releases = releases_of(log)

    releases.follower.step()

    assert not releases.is_released(*other)


def test_what_is_no_release_is_passed_over(log: FakeLog) -> None:
    for value in (b"nonsense", None, ASKED.to_json()):
        log.append(RELEASES_TOPIC, b"release", value)
    releases = releases_of(log)

    releases.follower.step()

    assert releases.is_released("trades", 0, 1, 42)
    assert book_of(log).asked(10) == [ASKED]


def test_a_release_stands_while_the_log_is_away(log: FakeLog) -> None:
    book_of(log).ask(ASKED)
    releases = releases_of(log)
    releases.follower.step()
    log.is_up = False

    with pytest.raises(UnavailableError):
        releases.follower.step()

    assert releases.is_released("trades", 0, 1, 42)


def test_the_newest_are_remembered(log: FakeLog) -> None:
    for since in range(5):
        book_of(log).ask(ReleaseRequest("trades", 0, 0, since, "BHP", 5, "ana@desk"))
    releases = releases_of(log, releases_read_max=2)

    releases.follower.step()

    assert [since for since in range(5) if releases.is_released("trades", 0, 0, since)] == [3, 4]
