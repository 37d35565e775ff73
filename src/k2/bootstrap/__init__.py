"""The composition root: the only package that turns settings into objects.

Imports stand inside the functions, so that a command loads only the libraries that it uses.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from k2.common.clock import Clock
    from k2.ingestion.events import Observer
    from k2.ingestion.worker import IngestWorker
    from k2.kafka.admin import LogAdmin
    from k2.kafka.registry import SchemaRegistry
    from k2.kafka.topics import TopicCatalog
    from k2.query.gap_aware import GapAwareEngine
    from k2.query.kafka_tail import KafkaTail
    from k2.query.ports import Decodes, Heads, LogFacts, OpenReader
    from k2.query.scan import Scanner
    from k2.query.table_sql import TableSql
    from k2.query.warm_start import WarmStart
    from k2.settings import Settings
    from k2.storage.file_checks import FileChecks
    from k2.storage.planning import PlannedFile, Planner
    from k2.storage.tables import MarketTables


def system_clock() -> Clock:
    """Return the machine's clock."""
    from k2.common.clock import SystemClock

    return SystemClock()


def start_process(settings: Settings, *, component: str) -> None:
    """Set up what a whole process shares: logs, and the crash points that a test has armed."""
    from k2.common import crash_points, logging

    logging.configure(component=component, level=settings.log_level)
    crash_points.arm_from(settings.crash_points)


def topic_catalog(settings: Settings) -> TopicCatalog:
    """Return the exchanges and topics of the platform."""
    from k2.kafka.topics import TopicCatalog

    return TopicCatalog.load(settings.topics_file)


def log_admin(settings: Settings) -> LogAdmin:
    """Return what creates topics and tells what the cluster holds."""
    from k2.kafka.admin import LogAdmin

    return LogAdmin(settings.kafka)


def schema_registry(settings: Settings) -> SchemaRegistry:
    """Return the client of the schema registry."""
    from k2.kafka.registry import SchemaRegistry

    return SchemaRegistry(settings.kafka)


def market_tables(settings: Settings) -> MarketTables:
    """Return the market tables, each created or grown to today's columns if need be."""
    from k2.storage.tables import MarketTables

    tables = MarketTables(settings.catalog, system_clock())
    tables.ensure()
    return tables


def planner(settings: Settings, tables: MarketTables) -> Planner:
    """Return what plans scans of the tables."""
    from k2.storage.planning import Planner

    return Planner(tables, settings.catalog)


def ingest_worker(settings: Settings, *, observer: Observer) -> IngestWorker:
    """Return an ingest worker; topics and tables that are missing are created."""
    from k2.bootstrap.announcing import announcer, drills, releases
    from k2.bootstrap.overload import overload_parts
    from k2.bootstrap.table_parts import TablePartsMaker
    from k2.bootstrap.watchers import batch_watchers
    from k2.ingestion.dead_letters.collector import DeadLetters
    from k2.ingestion.decode_journal import DecodeJournal
    from k2.ingestion.events import LevelsAnnounced
    from k2.ingestion.sequences.checkpoints import CheckpointFiles
    from k2.ingestion.sink_throttle import SinkThrottle
    from k2.ingestion.worker import IngestWorker
    from k2.kafka.consumer import GroupReader
    from k2.kafka.producer import LogProducer
    from k2.schemas.records import RECORD_TYPES
    from k2.storage.dead_letters import DeadLetterWriter
    from k2.storage.expiry import SnapshotExpiry
    from k2.storage.gaps import GapReader, GapWriter
    from k2.storage.partition_rows import PartitionRows

    clock = system_clock()
    topics = topic_catalog(settings)
    admin = log_admin(settings)
    admin.create_topics(topics.all_topics)
    tables = market_tables(settings)
    registry = schema_registry(settings)
    own = settings.ingestion
    watchers, observer = batch_watchers(own, topics, clock, observer)
    journal = DecodeJournal.open(settings.data_dir / "ingest", own.group_id, own.member_id, kills_max=own.kills_max)

    heard, let_go = drills(settings, admin), releases(settings, admin)
    said = announcer(settings, on_outcome=lambda outcome, count: observer(LevelsAnnounced(outcome, count)))
    throttle = SinkThrottle(heard, clock=clock, wait_seconds_max=settings.announcing.drill_sink_delay_seconds_max)
    heard.start()

    maker = TablePartsMaker(
        settings=settings,
        topics=topics,
        tables=tables,
        admin=admin,
        registry=registry,
        journal=journal,
        throttle=throttle,
        watchers=watchers,
        clock=clock,
    )
    made = [maker.make(name) for name in RECORD_TYPES]
    return IngestWorker(
        settings=settings.ingestion,
        table_of={topic.name: topic.data_type for topic in topics.market_topics},
        tables=tables,
        cluster=admin,
        parts=made,
        dead_letters=DeadLetters(
            lambda: LogProducer(settings.kafka),
            DeadLetterWriter(tables, settings.catalog, clock),
            clock=clock,
            flush_seconds=settings.ingestion.dead_letter_flush_seconds,
        ),
        scopes=topics.sequence_columns,
        rows=PartitionRows(tables),
        gaps=GapWriter(tables, settings.catalog, clock),
        gap_log=GapReader(tables),
        gap_checkpoints=CheckpointFiles(settings.data_dir / "ingest", rules=own.sequences.rules, clock=clock),
        make_reader=lambda names, *, on_assign, on_revoke: GroupReader(
            settings.kafka,
            group_id=settings.ingestion.group_id,
            member_id=settings.ingestion.member_id,
            topics=names,
            on_assign=on_assign,
            on_revoke=on_revoke,
        ),
        expiry=SnapshotExpiry(tables, settings.catalog, clock),
        clock=clock,
        observer=observer,
        overload=overload_parts(settings, clock, observer, announcer=said, drills=heard),
        releases=let_go,
        closing=[
            heard.close,
            let_go.close,
            said.close,
            journal.close,
            admin.close,
            registry.close,
            tables.close,
            *maker.closing,
        ],
    )


@dataclass(frozen=True, slots=True)
class QuerySide:
    """What answers questions: the engine, the tail that it reads, and what tells why it cannot answer in full."""

    engine: GapAwareEngine
    tail: KafkaTail
    warm_start: WarmStart
    """Asks the first questions, for a process that goes on to answer many; not started with the rest."""
    closing: tuple[Callable[[], None], ...] = ()

    def start(self) -> None:
        """Begin to follow the log."""
        self.tail.start()

    def stop(self) -> None:
        """Stop following the log and close DuckDB and all connections."""
        self.warm_start.stop()
        self.tail.stop()
        self.engine.close()
        for close in self.closing:
            close()


def query_side(settings: Settings) -> QuerySide:
    """Return the hybrid query engine with its tail, not started; log, registry and catalog may be down as yet."""
    from k2.kafka.consumer import LogReader
    from k2.kafka.decoding import Decoder
    from k2.kafka.registry import CachedSchemas
    from k2.query.topic_watch import LearningHeads, PinnedHeads
    from k2.schemas.records import RECORD_TYPES
    from k2.storage.tables import MarketTables

    admin, registry = log_admin(settings), schema_registry(settings)
    tables = MarketTables(settings.catalog, system_clock())
    tables.ensure_in_time()
    schemas = {
        name: CachedSchemas(registry, {}, entries_max=settings.kafka.schema_cache_entries_max) for name in RECORD_TYPES
    }
    plans = planner(settings, tables)
    side = _query_side(
        settings,
        tables,
        plans,
        log_facts=admin,
        open_reader=lambda: LogReader(settings.kafka),
        decoders={
            name: Decoder(kind, schemas[name], unknown_schemas_ratio_max=1) for name, kind in RECORD_TYPES.items()
        },
        heads=LearningHeads(PinnedHeads(plans), schemas),
    )
    return replace(side, closing=(admin.close, registry.close, tables.close))


@contextmanager
def lake_engine(settings: Settings) -> Iterator[GapAwareEngine]:
    """Give an engine for questions about the tables alone; it needs no broker and no registry, and creates nothing."""
    from k2.query.no_log import NoLog
    from k2.schemas.records import RECORD_TYPES

    tables = existing_tables(settings)
    no_log = NoLog()
    decoders = dict.fromkeys(RECORD_TYPES, no_log)
    side = _query_side(
        settings, tables, planner(settings, tables), log_facts=no_log, open_reader=no_log.open_reader, decoders=decoders
    )
    try:
        yield side.engine
    finally:
        side.engine.close()
        tables.close()


def _query_side(
    settings: Settings,
    tables: MarketTables,
    plans: Planner,
    *,
    log_facts: LogFacts,
    open_reader: OpenReader,
    decoders: Mapping[str, Decodes],
    heads: Heads | None = None,
) -> QuerySide:
    from k2.query.bars.rules import bar_rules
    from k2.query.gap_aware import GapAwareEngine
    from k2.query.hybrid_engine import HybridQueryEngine
    from k2.query.kafka_tail import KafkaTail
    from k2.query.known_log import KnownLog
    from k2.query.warm_start import WarmStart
    from k2.storage.gap_events import GapEvents
    from k2.storage.gaps import GapReader

    clock = system_clock()
    catalog = topic_catalog(settings)
    topics = catalog.market_topics
    known = KnownLog(log_facts, clock=clock, retry_seconds=settings.query.tail_retry_seconds)
    tail = KafkaTail(
        topics,
        open_reader=open_reader,
        log_facts=known,
        tables=heads or tables,
        decoders=decoders,
        settings=settings.query,
        clock=clock,
    )
    engine = HybridQueryEngine(
        topics,
        tail=tail,
        planner=plans,
        log_facts=known,
        open_reader=open_reader,
        decoders=decoders,
        scanner=scanner(settings, tables),
        settings=settings.query,
        clock=clock,
        rules=catalog.identity_rules(enabled=settings.ingestion.deduplication.enabled),
        bar_rules=bar_rules(catalog.exchanges),
    )
    aware = GapAwareEngine(
        engine,
        events=GapEvents(tables, events_max=settings.query.gap_events_max),
        table=GapReader(tables),
        watched=catalog.watched if settings.ingestion.sequences.enabled else {},
        listed_max=settings.query.gaps_listed_max,
    )
    warm_start = WarmStart(
        aware,
        plans,
        can_answer=lambda: bool(tail.state.heads),
        clock=clock,
        seconds_max=settings.query.warm_start_seconds_max,
    )
    return QuerySide(aware, tail, warm_start)


def existing_tables(settings: Settings) -> MarketTables:
    """Return the tables as they are; a local catalog that is not there is an error, and is not made."""
    from pathlib import Path

    from k2.common.errors import ConfigurationError
    from k2.storage.tables import MarketTables

    path = settings.catalog.uri.removeprefix("sqlite:///")
    if path != settings.catalog.uri and not Path(path).is_file():
        raise ConfigurationError(
            f"expected tables in the catalog {path}, found no such file: is --data-dir right? `k2 up` makes a platform"
        )
    return MarketTables(settings.catalog, system_clock())


def file_checks(settings: Settings) -> FileChecks:
    """Return what sees that data files are what was written, before their first use."""
    from k2.storage.file_checks import FileChecks

    return FileChecks(check_contents=settings.query.check_files, files_max=settings.query.checked_files_max)


def scanner(settings: Settings, tables: MarketTables) -> Scanner:
    """Return the locked DuckDB that reads the warehouse's files and nothing else."""
    from k2.bootstrap.object_store import object_store
    from k2.query.scan import Scanner

    catalog = settings.catalog
    return Scanner(
        # A REST catalog decides by itself where its tables are, and may be down now.
        tables.locations if catalog.type == "rest" else [catalog.warehouse.removeprefix("file://")],
        memory_limit_bytes=settings.query.memory_limit_bytes,
        threads=settings.query.threads,
        seconds_max=settings.query.query_seconds_max,
        object_store=object_store(catalog),
    )


@contextmanager
def table_sql(settings: Settings) -> Iterator[TableSql]:
    """Give what runs read-only SQL over the tables as they are now."""
    from k2.query.table_sql import TableSql
    from k2.storage.side_tables import files_of_side_table
    from k2.storage.tables import SIDE_TABLES

    tables = existing_tables(settings)
    plans = planner(settings, tables)
    files = scanner(settings, tables)

    def files_of(name: str) -> Sequence[PlannedFile]:
        return files_of_side_table(tables, name) if name in SIDE_TABLES else plans.plan(plans.pin(name))

    try:
        yield TableSql(files, files_of, file_checks(settings))
    finally:
        files.close()
        tables.close()
