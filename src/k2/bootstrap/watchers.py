"""The composition root of what watches the batches that the worker commits, and of what the feeds say of them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k2.common.clock import Clock
    from k2.ingestion.events import Observer
    from k2.ingestion.sequences.status_log import StatusLog
    from k2.ingestion.settings import IngestionSettings
    from k2.ingestion.watching.watchers import BatchWatcher
    from k2.kafka.admin import LogAdmin
    from k2.kafka.registry import SchemaSource
    from k2.kafka.topics import TopicCatalog
    from k2.settings import Settings


def batch_watchers(
    settings: IngestionSettings, topics: TopicCatalog, clock: Clock, observer: Observer
) -> tuple[tuple[BatchWatcher, ...], Observer]:
    """Return what looks at each committed batch and tells the observer, and the observer for the worker's events."""
    from k2.ingestion.events import Observers
    from k2.ingestion.watching.lines import LineStatistics
    from k2.ingestion.watching.mutes import MuteWatch
    from k2.ingestion.watching.open_hours import OpenHours

    lines = LineStatistics(
        topics.lines,
        window=timedelta(seconds=settings.line_window_seconds),
        numbers_max=settings.line_numbers_max,
        observer=observer,
    )
    if not settings.mutes.enabled:
        return (lines,), observer
    mutes = MuteWatch(
        {name: OpenHours(each.timezone, each.sessions, each.closed) for name, each in topics.exchanges.items()},
        rules=settings.mutes.rules,
        streams_max=settings.mutes.streams_max,
        live_seconds_max=settings.mutes.live_seconds_max,
        clock=clock,
        observer=observer,
    )
    return (lines, mutes), Observers(observer, mutes)


def status_log(
    settings: Settings, topics: TopicCatalog, data_type: str, admin: LogAdmin, registry: SchemaSource, clock: Clock
) -> StatusLog:
    """Return what reads how far the feeds say that one data type went, where its numbers are watched per symbol."""
    from k2.ingestion.sequences.status_log import StatusLog
    from k2.kafka.consumer import LogReader

    own = settings.ingestion.sequences
    columns = topics.sequence_columns if own.enabled else {}
    return StatusLog(
        [each for each in topics.market_topics if each.data_type == data_type and columns.get(each.name) == "symbol"],
        [each for each in topics.all_topics if each.data_type == "status"],
        log_ends=admin,
        open_reader=lambda: LogReader(settings.kafka),
        registry=registry,
        clock=clock,
        silent_seconds_max=own.status_silent_seconds,
        markers_max=own.markers_max,
        schemas_max=settings.kafka.schema_cache_entries_max,
    )
