"""The composition root of what people do to a platform now and then: dead letters, seams, upkeep, gaps, audits."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from k2.bootstrap import (
    existing_tables,
    file_checks,
    log_admin,
    planner,
    scanner,
    schema_registry,
    system_clock,
    topic_catalog,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from k2.ingestion.dead_letters.replaying import DeadLetterReplay
    from k2.ingestion.offset_plans import OffsetPlanner
    from k2.query.audit import Auditor
    from k2.query.table_reading import RowsWanted
    from k2.settings import Settings
    from k2.storage.dead_letter_events import DeadLetterEvents
    from k2.storage.gaps import GapReader
    from k2.storage.named_snapshots import SnapshotTags
    from k2.storage.tables import TableHead
    from k2.storage.upkeep.round import Upkeep


@contextmanager
def dead_letters(settings: Settings) -> Iterator[DeadLetterEvents]:
    """Give what reads the dead letters of tables that exist; it needs no broker and no registry."""
    from k2.storage.dead_letter_events import DeadLetterEvents

    tables = existing_tables(settings)
    try:
        yield DeadLetterEvents(tables)
    finally:
        tables.close()


@contextmanager
def dead_letter_replay(settings: Settings) -> Iterator[DeadLetterReplay]:
    """Give what replays dead letters with today's decoder and registry, and close its connections afterwards."""
    from k2.ingestion.dead_letters.duplicates import ReplayDuplicates
    from k2.ingestion.dead_letters.replaying import DeadLetterReplay, ReplayParts
    from k2.ingestion.sequences.filling import GapFilling
    from k2.kafka.decoding import Decoder
    from k2.kafka.registry import CachedSchemas
    from k2.schemas.records import RECORD_TYPES
    from k2.storage.dead_letter_events import DeadLetterEvents
    from k2.storage.dead_letters import DeadLetterWriter
    from k2.storage.gaps import GapReader, GapWriter
    from k2.storage.replays import ReplayWriter
    from k2.storage.stored_rows import StoredRows

    clock, tables, registry = system_clock(), existing_tables(settings), schema_registry(settings)
    topics = topic_catalog(settings)
    rules = topics.identity_rules(enabled=settings.ingestion.deduplication.enabled)
    filling = GapFilling(
        GapReader(tables),
        GapWriter(tables, settings.catalog, clock),
        scopes=topics.sequence_columns if settings.ingestion.sequences.enabled else {},
        clock=clock,
    )
    checks = file_checks(settings)

    def parts(name: str) -> ReplayParts:
        schemas = CachedSchemas(
            registry, tables.head(name).schemas, entries_max=settings.kafka.schema_cache_entries_max
        )
        decoder = Decoder(RECORD_TYPES[name], schemas, unknown_schemas_ratio_max=1)
        stored = StoredRows(planner(settings, tables), tables, name, checks)
        duplicates = ReplayDuplicates(RECORD_TYPES[name], rules=rules, stored=stored)
        return ReplayParts(decoder, schemas, ReplayWriter(tables, name, settings.catalog, clock), duplicates, filling)

    try:
        yield DeadLetterReplay(
            DeadLetterEvents(tables),
            DeadLetterWriter(tables, settings.catalog, clock),
            tables,
            parts,
            settings=settings.ingestion,
            clock=clock,
        )
    finally:
        registry.close()
        tables.close()


@contextmanager
def upkeep(settings: Settings) -> Iterator[Upkeep]:
    """Give what keeps the tables up, in rounds, and drops their old days."""
    from k2.storage.upkeep.round import Upkeep

    tables = existing_tables(settings)
    scratch_dir = settings.upkeep.scratch_dir or settings.data_dir / "scratch"
    try:
        yield Upkeep(tables, settings.catalog, settings.upkeep, system_clock(), scratch_dir=scratch_dir)
    finally:
        tables.close()


@contextmanager
def snapshot_tags(settings: Settings) -> Iterator[SnapshotTags]:
    """Give what lists the snapshots of tables that exist, and names them; it needs no broker."""
    from k2.storage.named_snapshots import SnapshotTags

    with closing(existing_tables(settings)) as tables:
        yield SnapshotTags(tables, settings.catalog, system_clock())


@contextmanager
def offset_planner(settings: Settings) -> Iterator[OffsetPlanner]:
    """Give what plans and applies moves of seams, and close its connections afterwards."""
    from k2.ingestion.offset_plans import OffsetPlanner
    from k2.kafka.consumer import LogReader
    from k2.storage.dead_letter_offsets import DeadLetterOffsets
    from k2.storage.seam_moves import SeamMover

    clock, tables, admin = system_clock(), existing_tables(settings), log_admin(settings)
    try:
        yield OffsetPlanner(
            tables,
            admin,
            SeamMover(tables, settings.catalog, clock),
            DeadLetterOffsets(tables),
            lambda: LogReader(settings.kafka),
            {topic.name: topic.data_type for topic in topic_catalog(settings).market_topics},
            settings=settings.ingestion,
            clock=clock,
        )
    finally:
        admin.close()
        tables.close()


@contextmanager
def table_rows(settings: Settings, wanted: RowsWanted) -> Iterator[Iterator[pl.DataFrame]]:
    """Give a table's rows in the order of answers, some at a time; it needs no broker and no registry."""
    from k2.query.intact_files import IntactFiles
    from k2.query.table_reading import rows_in_order
    from k2.storage.file_checks import FileChecks

    tables = existing_tables(settings)
    files = scanner(settings, tables)
    own = settings.query
    checks = FileChecks(check_contents=own.check_files, files_max=own.checked_files_max)
    try:
        yield rows_in_order(
            planner(settings, tables),
            IntactFiles(files, checks),
            wanted,
            rows_max=settings.feeds.replay_records_max,
        )
    finally:
        files.close()
        tables.close()


@contextmanager
def gap_reader(settings: Settings) -> Iterator[GapReader]:
    """Give what reads the gaps; it needs no broker."""
    from k2.storage.gaps import GapReader

    with closing(existing_tables(settings)) as tables:
        yield GapReader(tables)


def table_heads(settings: Settings) -> list[TableHead]:
    """Return the heads of the main tables as they are; it needs no broker."""
    from k2.storage.tables import MAIN_TABLES

    with closing(existing_tables(settings)) as tables:
        return [tables.head(name) for name in MAIN_TABLES]


@contextmanager
def auditor(settings: Settings) -> Iterator[Auditor]:
    """Give what compares the tables with the log, and close its connections afterwards."""
    from k2.kafka.consumer import LogReader
    from k2.query.audit import Auditor
    from k2.storage.dead_letter_offsets import DeadLetterOffsets
    from k2.storage.gaps import GapReader

    tables = existing_tables(settings)
    admin = log_admin(settings)
    files = scanner(settings, tables)
    try:
        yield Auditor(
            topic_catalog(settings).market_topics,
            planner=planner(settings, tables),
            log_facts=admin,
            open_reader=lambda: LogReader(settings.kafka),
            dead_letters=DeadLetterOffsets(tables),
            gaps=GapReader(tables),
            scanner=files,
            settings=settings.query,
            clock=system_clock(),
        )
    finally:
        files.close()
        admin.close()
        tables.close()
