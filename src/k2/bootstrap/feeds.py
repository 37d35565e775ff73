"""The composition root of feeds: their way into the log, straight or through a spool, and what holds them back."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k2.bootstrap import (
    file_checks,
    log_admin,
    market_tables,
    planner,
    schema_registry,
    system_clock,
    topic_catalog,
)
from k2.bootstrap.announcing import level_board

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from k2.feeds.channel import Channel
    from k2.feeds.gate import FeedGate, HoldTold
    from k2.feeds.held import HeldSource
    from k2.feeds.spooling_producer import SpoolingProducer
    from k2.kafka.admin import LogAdmin
    from k2.settings import Settings


@dataclass(frozen=True, slots=True)
class Feed:
    """The way of one exchange's feed into the log, and what tells how much of a source is held already."""

    channel: Channel
    held: HeldSource
    spool: SpoolingProducer | None = None
    """What keeps on disk what the log has not taken, where the feed has a spool."""


@contextmanager
def feed(
    settings: Settings,
    exchange: str,
    *,
    told: HoldTold | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
    spool_dir: Path | None = None,
) -> Iterator[Feed]:
    """Give an exchange's feed; topics are created and schemas registered. What was sent is flushed by the caller.

    A feed with a `told` is held back while the platform is at its highest level, until `is_stopped`; one with a
    `spool_dir` never is, and never waits for the log.
    """
    from k2.feeds.channel import Channel
    from k2.feeds.held import HeldSource
    from k2.kafka.consumer import LogReader
    from k2.kafka.decoding import Decoder
    from k2.kafka.producer import LogProducer
    from k2.kafka.registry import CachedSchemas
    from k2.schemas.records import RECORD_TYPES

    with ExitStack() as stack:
        topics, admin, registry = topic_catalog(settings), log_admin(settings), schema_registry(settings)
        stack.callback(admin.close)
        stack.callback(registry.close)
        tables = market_tables(settings)
        stack.callback(tables.close)
        held = HeldSource(
            planner=planner(settings, tables),
            checks=file_checks(settings),
            admin=admin,
            open_reader=lambda: LogReader(settings.kafka, with_headers=True),
            decoders={
                name: Decoder(kind, CachedSchemas(registry, {}, entries_max=settings.kafka.schema_cache_entries_max))
                for name, kind in RECORD_TYPES.items()
            },
            registry=registry,
            settings=settings.feeds,
            clock=system_clock(),
        )
        names = [topic.name for topic in topics.all_topics if topic.exchange == exchange]
        spool = None if spool_dir is None else _spooling_producer(settings, spool_dir, names, admin)
        producer = spool or LogProducer(settings.kafka)
        stack.callback(producer.close)
        gate = None
        if told is not None and spool is None:
            gate = stack.enter_context(_gate(settings, told, is_stopped=is_stopped))
        channel = Channel(
            exchange,
            topics=topics,
            admin=admin,
            registry=registry,
            producer=producer,
            flush_seconds=settings.feeds.flush_timeout_seconds,
            hold_back=gate.wait if gate is not None else lambda: None,
        )
        if spool is not None:
            spool.start()
        yield Feed(channel, held, spool)


@contextmanager
def _gate(settings: Settings, told: HoldTold, *, is_stopped: Callable[[], bool]) -> Iterator[FeedGate]:
    """Give what holds a feed back while the platform is at its highest level."""
    from k2.feeds.gate import FeedGate

    admin = log_admin(settings)
    board = level_board(settings, admin)
    board.start()
    board.wait_ready(settings.announcing.send_seconds_max)  # else the feed's first records would find it empty
    try:
        yield FeedGate(board, settings=settings.feeds, clock=system_clock(), told=told, is_stopped=is_stopped)
    finally:
        board.close()
        admin.close()


def _spooling_producer(settings: Settings, directory: Path, topics: Sequence[str], admin: LogAdmin) -> SpoolingProducer:
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
