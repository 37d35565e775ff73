"""The part of the composition root that makes what writes deferred ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k2.common.clock import Clock
    from k2.ingestion.backfill.making import RangeParts
    from k2.ingestion.duplicates.deduplicator import StoredRows
    from k2.kafka.topics import TopicCatalog
    from k2.settings import Settings
    from k2.storage.tables import MarketTables


def range_parts(
    settings: Settings, name: str, topics: TopicCatalog, tables: MarketTables, stored: StoredRows, clock: Clock
) -> RangeParts:
    """Return what a table's backfill needs beside what its lane has."""
    from k2.ingestion.backfill.making import RangeParts
    from k2.ingestion.duplicates.below_the_seam import RangeDuplicates
    from k2.kafka.consumer import LogReader
    from k2.schemas.records import RECORD_TYPES
    from k2.storage.backfills import BackfillWriter

    rules = topics.identity_rules(enabled=settings.ingestion.deduplication.enabled)
    return RangeParts(
        lambda: LogReader(settings.kafka),
        BackfillWriter(tables, name, settings.catalog, clock),
        RangeDuplicates(RECORD_TYPES[name], rules=rules, stored=stored),
        topics.retention_ms,
    )
