"""The composition root of what processes tell each other: levels, drills, and halted streams that are to go on."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from k2.bootstrap import log_admin, system_clock, topic_catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from k2.common.announcing import DrillBook, ReleaseBook
    from k2.kafka.admin import LogAdmin
    from k2.kafka.level_board import KafkaAnnouncer, KafkaDrills, KafkaLevelBoard
    from k2.kafka.releases import KafkaReleases
    from k2.kafka.request_book import KafkaRequestBook
    from k2.settings import Settings

Book = TypeVar("Book", bound="KafkaRequestBook[Any]")


def announcer(
    settings: Settings, *, on_outcome: Callable[[str, int], None] = lambda _outcome, _count: None
) -> KafkaAnnouncer:
    """Return what says a worker's level; it is to be closed."""
    from k2.kafka.level_board import KafkaAnnouncer
    from k2.kafka.producer import LogProducer

    return KafkaAnnouncer(lambda: LogProducer(settings.kafka), settings=settings.announcing, on_outcome=on_outcome)


def level_board(settings: Settings, admin: LogAdmin) -> KafkaLevelBoard:
    """Return what reads the levels of all workers; it is to be started and closed."""
    from k2.kafka.consumer import LogReader
    from k2.kafka.level_board import KafkaLevelBoard

    return KafkaLevelBoard(
        log_ends=admin,
        open_reader=lambda: LogReader(settings.kafka),
        settings=settings.announcing,
        clock=system_clock(),
    )


def drills(settings: Settings, admin: LogAdmin) -> KafkaDrills:
    """Return what hears of drills; it is to be started and closed."""
    from k2.kafka.consumer import LogReader
    from k2.kafka.level_board import KafkaDrills

    return KafkaDrills(
        log_ends=admin,
        open_reader=lambda: LogReader(settings.kafka),
        settings=settings.announcing,
        clock=system_clock(),
    )


def releases(settings: Settings, admin: LogAdmin) -> KafkaReleases:
    """Return what hears of halted streams that are let go on, and has begun to; it is to be closed."""
    from k2.kafka.consumer import LogReader
    from k2.kafka.releases import KafkaReleases

    heard = KafkaReleases(
        log_ends=admin,
        open_reader=lambda: LogReader(settings.kafka),
        settings=settings.announcing,
        clock=system_clock(),
    )
    heard.start()
    return heard


@contextmanager
def drill_book(settings: Settings) -> Iterator[DrillBook]:
    """Give where drills are asked for and listed; the topics are created."""
    from k2.kafka.drill_book import KafkaDrillBook

    with _request_book(settings, KafkaDrillBook) as book:
        yield book


@contextmanager
def release_book(settings: Settings) -> Iterator[ReleaseBook]:
    """Give where halted streams are let go on, and listed; the topics are created."""
    from k2.kafka.releases import KafkaReleaseBook

    with _request_book(settings, KafkaReleaseBook) as book:
        yield book


@contextmanager
def _request_book(settings: Settings, kind: type[Book]) -> Iterator[Book]:
    from k2.kafka.consumer import LogReader
    from k2.kafka.producer import LogProducer

    admin = log_admin(settings)
    try:
        admin.create_topics(topic_catalog(settings).control_topics)
        yield kind(
            make_producer=lambda: LogProducer(settings.kafka),
            log_ends=admin,
            open_reader=lambda: LogReader(settings.kafka),
            settings=settings.announcing,
            clock=system_clock(),
        )
    finally:
        admin.close()
