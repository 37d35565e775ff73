"""The composition root of what watches the batches that the worker commits."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k2.ingestion.events import Observer
    from k2.ingestion.settings import IngestionSettings
    from k2.ingestion.watchers import BatchWatcher
    from k2.kafka.topics import TopicCatalog


def batch_watchers(settings: IngestionSettings, topics: TopicCatalog, observer: Observer) -> tuple[BatchWatcher, ...]:
    """Return what looks at each committed batch and tells the observer."""
    from k2.ingestion.line_statistics import LineStatistics

    return (
        LineStatistics(
            topics.lines,
            window=timedelta(seconds=settings.line_window_seconds),
            numbers_max=settings.line_numbers_max,
            observer=observer,
        ),
    )
