"""A table with dead letters whose schema the registry did not know, and the replay that can begin once it does."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Final

from k2.ingestion.dead_letters.collector import WRITTEN, DeadLetters
from k2.ingestion.dead_letters.duplicates import ReplayDuplicates
from k2.ingestion.dead_letters.replaying import DeadLetterReplay, ReplayParts, ReplayReport
from k2.ingestion.sequences.filling import GapFilling
from k2.ingestion.settings import IngestionSettings
from k2.kafka.decoding import BadRecord, Decoder
from k2.kafka.registry import CachedSchemas
from k2.schemas.avro import avro_text
from k2.schemas.identity import IdentityRules
from k2.schemas.records import RECORD_TYPES, TRADES
from k2.storage.dead_letter_events import Chosen, DeadLetterEvents
from k2.storage.dead_letters import DeadLetterWriter
from k2.storage.file_checks import FileChecks
from k2.storage.gaps import GapReader, GapWriter
from k2.storage.planning import Planner
from k2.storage.replays import ReplayWriter
from k2.storage.seam import Counts, LogPartition, PartitionDelta
from k2.storage.stored_rows import StoredRows
from k2.storage.writer import Batch
from k2.testing.fake_log import FakeLog, FakeProducer, FakeRegistry
from k2.testing.local_lake import TOPIC, LocalLake
from k2.testing.market_rows import market_rows
from k2.testing.messages import encode, trade

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from k2.common.clock import Clock

SCHEMA_ID: Final = 9
"""The schema of the dead letters."""
TOPIC_ID: Final = "topic-1"
AT: Final = LogPartition(0, 0)
ROWS_LOGGED: Final = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
"""Log time of every row that is not a replay's."""
OLD: Final = ROWS_LOGGED - dt.timedelta(hours=24)
"""A log time whose window the table has passed, just so."""


def message(offset: int, *, schema_id: int = SCHEMA_ID, **fields: Any) -> bytes:  # Any: whatever a trade has
    """Return the message at an offset, which is a sound trade once its schema is known."""
    event_ns = int(OLD.timestamp()) * 10**9 + offset
    usual = trade(
        exchange="sim",
        symbol="AAA",
        ts_event_ns=event_ns,
        trading_date=OLD.date(),
        source_sequence=offset,
        sequence=offset,
    )
    return encode(usual | fields, schema_id=schema_id)


class ReplayWorld:
    """Tables under `directory`; several worlds may share it, as processes do."""

    def __init__(self, directory: Path, clock: Clock | None = None) -> None:
        self.lake = LocalLake(directory, clock)
        self.registry = FakeRegistry({SCHEMA_ID: avro_text(TRADES)})
        self.settings = IngestionSettings()
        self.letters = DeadLetterEvents(self.lake.tables)
        self.events = DeadLetterWriter(self.lake.tables, self.lake.settings, self.lake.clock)

    def create(self) -> ReplayWorld:
        """Create the tables."""
        self.lake.create()
        return self

    def ingest(
        self, start: int, end: int, bad: Iterable[int], *, logged: dt.datetime = OLD, value: bytes | None = None
    ) -> None:
        """Commit the offsets [start, end), of which `bad` become dead letters, logged at `logged`."""
        bad = sorted(bad)
        rows = market_rows([offset for offset in range(start, end) if offset not in bad])
        files = self.lake.writer().write_files(rows)
        self.record(bad, logged=logged, value=value)
        counts = Counts(consumed=end - start, rows=rows.height, dead_letters=len(bad))
        self.lake.writer().commit(Batch(f"batch-{start}", {AT: PartitionDelta(start, end, counts)}, files))

    def record(self, offsets: Iterable[int], *, logged: dt.datetime = OLD, value: bytes | None = None) -> None:
        """Write the dead letters of offsets to their table."""
        records = [
            BadRecord(
                partition=AT.partition,
                offset=offset,
                ts_log_ms=int(logged.timestamp() * 1000),
                key=b"AAA",
                value=message(offset) if value is None else value,
                error_class="UnknownSchema",
                reason=f"expected a schema id that the registry knows, found {SCHEMA_ID}",
            )
            for offset in offsets
        ]
        log = FakeLog()
        letters = DeadLetters(lambda: FakeProducer(log), self.events, clock=self.lake.clock, flush_seconds=1)
        letters.record("trades", AT.log_id, TOPIC, TOPIC_ID, records)

    def replay(self, chosen: Chosen | None = None) -> ReplayReport:
        """Replay what is chosen, else all."""
        return self.replaying().replay(chosen or Chosen())

    def replaying(self) -> DeadLetterReplay:
        """Return what replays."""
        return DeadLetterReplay(
            self.letters, self.events, self.lake.tables, self._parts, settings=self.settings, clock=self.lake.clock
        )

    def outstanding(self) -> list[int]:
        """Return the offsets that are dead letters still."""
        return sorted(offset for frame in self.letters.outstanding(Chosen()) for offset in frame["log_offset"])

    def events_of(self, event: str = WRITTEN) -> list[int]:
        """Return the offsets that have an event of this kind, each as often as it is there."""
        rows = self.lake.tables.load("dead_letters").scan(f"event = '{event}'").to_arrow()
        offsets: list[int] = rows["log_offset"].to_pylist()
        return sorted(offsets)

    @property
    def counts(self) -> Counts:
        """The ledger of the partition."""
        return self.lake.tables.head("trades").seam.partitions[AT].counts

    def _parts(self, name: str) -> ReplayParts:
        schemas = CachedSchemas(self.registry, self.lake.tables.head(name).schemas, entries_max=100)
        decoder = Decoder(RECORD_TYPES[name], schemas, unknown_schemas_ratio_max=1)
        writer = ReplayWriter(self.lake.tables, name, self.lake.settings, self.lake.clock)
        checks = FileChecks(check_contents=True, files_max=1_000)
        stored = StoredRows(Planner(self.lake.tables, self.lake.settings), self.lake.tables, name, checks)
        rules = IdentityRules(numbered=frozenset({"sim"}))
        duplicates = ReplayDuplicates(RECORD_TYPES[name], rules=rules, stored=stored)
        filling = GapFilling(
            GapReader(self.lake.tables),
            GapWriter(self.lake.tables, self.lake.settings, self.lake.clock),
            scopes={TOPIC: "symbol"},
            clock=self.lake.clock,
        )
        return ReplayParts(decoder, schemas, writer, duplicates, filling)
