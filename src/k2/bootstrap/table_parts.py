"""The part of the composition root that makes what the ingest worker needs for each table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from k2.bootstrap import file_checks, planner
from k2.bootstrap.backfills import range_parts
from k2.bootstrap.watchers import status_log
from k2.ingestion.duplicates.deduplicator import TableDeduplicator
from k2.ingestion.guarded_decoder import GuardedDecoder
from k2.ingestion.sink_throttle import ThrottledWriter
from k2.ingestion.worker import TableParts
from k2.kafka.decoding import Decoder
from k2.kafka.registry import CachedSchemas
from k2.schemas.records import RECORD_TYPES
from k2.storage.stored_rows import StoredRows
from k2.storage.writer import TableWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from k2.common.clock import Clock
    from k2.ingestion.decode_journal import DecodeJournal
    from k2.ingestion.sink_throttle import SinkThrottle
    from k2.ingestion.watching.watchers import BatchWatcher
    from k2.kafka.admin import LogAdmin
    from k2.kafka.registry import SchemaRegistry
    from k2.kafka.topics import TopicCatalog
    from k2.settings import Settings
    from k2.storage.tables import MarketTables


@dataclass(frozen=True, kw_only=True)
class TablePartsMaker:
    """Makes the parts of one table after another from what all of them share; `closing` closes what they opened."""

    settings: Settings
    topics: TopicCatalog
    tables: MarketTables
    admin: LogAdmin
    registry: SchemaRegistry
    journal: DecodeJournal
    throttle: SinkThrottle
    watchers: Sequence[BatchWatcher]
    clock: Clock
    closing: list[Callable[[], None]] = field(default_factory=list)

    def make(self, name: str) -> TableParts:
        """Return the parts of the table called `name`."""
        settings, tables, clock = self.settings, self.tables, self.clock
        own, record_type = settings.ingestion, RECORD_TYPES[name]
        schemas = CachedSchemas(
            self.registry, tables.head(name).schemas, entries_max=settings.kafka.schema_cache_entries_max
        )
        decoder = Decoder(record_type, schemas, unknown_schemas_ratio_max=own.unknown_schemas_ratio_max)
        stored = StoredRows(planner(settings, tables), tables, name, file_checks(settings))
        rules = self.topics.identity_rules(enabled=own.deduplication.enabled)
        status = status_log(settings, self.topics, name, self.admin, self.registry, clock)
        self.closing.append(status.close)
        return TableParts(
            record_type,
            decoder=GuardedDecoder(decoder, self.journal, kills_max=own.kills_max),
            schemas=schemas,
            writer=ThrottledWriter(TableWriter(tables, name, settings.catalog, clock), self.throttle),
            deduplicator=TableDeduplicator(record_type, rules=rules, stored=stored, settings=own.deduplication),
            watchers=self.watchers,
            markers=status,
            ranges=range_parts(settings, name, self.topics, tables, stored, clock),
        )
