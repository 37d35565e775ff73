"""The composition root of what processes tell each other: levels, drills, and feeds that heed them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from k2.bootstrap import log_admin, system_clock, topic_catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from k2.common.announcing import DrillBook
    from k2.feeds.gate import FeedGate, HoldTold
    from k2.feeds.spooling_producer import SpoolingProducer
    from k2.kafka.admin import LogAdmin
    from k2.kafka.level_board import KafkaAnnouncer, KafkaDrills, KafkaLevelBoard
    from k2.settings import Settings


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


@contextmanager
def drill_book(settings: Settings) -> Iterator[DrillBook]:
    """Give where drills are asked for and listed; the topics are created."""
    from k2.kafka.consumer import LogReader
    from k2.kafka.drill_book import KafkaDrillBook
    from k2.kafka.producer import LogProducer

    admin = log_admin(settings)
    try:
        admin.create_topics(topic_catalog(settings).control_topics)
        yield KafkaDrillBook(
            make_producer=lambda: LogProducer(settings.kafka),
            log_ends=admin,
            open_reader=lambda: LogReader(settings.kafka),
            settings=settings.announcing,
            clock=system_clock(),
        )
    finally:
        admin.close()


@contextmanager
def feed_gate(settings: Settings, told: HoldTold, *, is_stopped: Callable[[], bool]) -> Iterator[FeedGate]:
    """Give what holds a feed back while the platform is at its highest level."""
    from k2.feeds.gate import FeedGate

    admin = log_admin(settings)
    board = level_board(settings, admin)
    board.start()
    try:
        yield FeedGate(board, settings=settings.feeds, clock=system_clock(), told=told, is_stopped=is_stopped)
    finally:
        board.close()
        admin.close()


def spooling_producer(settings: Settings, directory: Path, topics: Sequence[str], admin: LogAdmin) -> SpoolingProducer:
    """Return a producer that keeps what it sends on disk until the log has it; it is to be started and closed."""
    from k2.feeds.spool import Spool
    from k2.feeds.spooling_producer import SpoolingProducer
    from k2.kafka.consumer import LogReader
    from k2.kafka.producer import LogProducer

    own = settings.feeds.spool
    patient = settings.kafka.model_copy(update={"delivery_timeout_seconds": own.delivery_seconds})
    return SpoolingProducer(
        Spool(directory, own, system_clock()),
        topics=topics,
        make_producer=lambda on_delivery: LogProducer(patient, on_delivery=on_delivery),
        log_ends=admin,
        open_reader=lambda: LogReader(settings.kafka),
        settings=own,
        clock=system_clock(),
    )
