"""Ingest workers whose records have identities, over a simulated log into which duplicates and conflicts are put."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from k2.common.errors import UnavailableError
from k2.ingestion.duplicates.deduplicator import TableDeduplicator
from k2.ingestion.settings import DeduplicationSettings
from k2.kafka.decoding import BadRecord, Decoded
from k2.schemas.arrow import polars_schema
from k2.schemas.identity import IdentityRules
from k2.testing.market_rows import START_NS, market_rows
from k2.testing.simulated_ingest import SimulatedIngest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from k2.ingestion.duplicates.deduplicator import Deduplicator
    from k2.ingestion.lane_ports import Decoder
    from k2.kafka.batches import LogBatch
    from k2.schemas.records import RecordType
    from k2.storage.seam import LogPartition
    from k2.storage.stored_rows import Wanted
    from k2.storage.tables import TableHead
    from k2.testing.simulated_tables import SimulatedTables

RULES = IdentityRules(numbered=frozenset({"asx"}))
"""The exchange `asx` numbers its messages; `sim` has trade ids."""
HOURS_A_RECORD = 0.5
_START = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


def record_value(identity: int, price: int = 1, feed: int = 0) -> bytes:
    """Return a message: the record number `identity` at a price, from one of several feeds."""
    return f"{identity}|{price}|{feed}".encode()


class IdentityDecoder:
    """Makes complete rows; the log moves on by half an hour a record, so that windows end."""

    def __init__(self, record_type: RecordType, fails: Callable[[], bool] = lambda: False) -> None:
        self._record_type = record_type
        self._fails = fails
        self._base = market_rows([0], record_type=record_type).row(0, named=True)

    def decode(self, batch: LogBatch, *, log_id: int) -> Decoded:
        """Decode a batch."""
        if self._fails():
            raise UnavailableError("the simulated registry is down", dependency="registry")
        rows, bad = [], []
        for offset, at_ms, key, value in zip(batch.offsets, batch.ts_log_ms, batch.keys, batch.values, strict=True):
            if value is None or value.startswith(b"bad"):
                bad.append(BadRecord(batch.partition, offset, at_ms, key, value, "Bad", "it is bad"))
            else:
                rows.append(self.row(batch.topic, batch.partition, log_id, offset, value))
        schema = polars_schema(self._record_type)
        frame = pl.DataFrame(rows, schema=schema, orient="row").drop("commit_sequence", "written_by")
        return Decoded(frame, tuple(bad))

    def row(self, topic: str, partition: int, log_id: int, offset: int, value: bytes) -> dict[str, Any]:
        """Return the row of one message."""
        identity, price, feed = (int(part) for part in value.decode().split("|"))
        exchange = topic.rpartition(".")[2]
        values = self._base | {
            "exchange": exchange,
            "symbol": f"S{identity % 3}",
            "sequence": identity if exchange == "asx" else None,
            "trade_id": None if exchange == "asx" else f"T-{identity}",
            "ts_event_ns": START_NS + identity * 1_000,
            "price": price,
            "bid_price": price,
            "source": f"feed-{feed}",
            "source_sequence": offset,
            "ts_recv_ns": offset,
            "ts_log": _START + dt.timedelta(hours=HOURS_A_RECORD * offset),
            "log_id": log_id,
            "log_partition": partition,
            "log_offset": offset,
        }
        return {name: values[name] for name in self._base}


@dataclass(frozen=True)
class _Pinned:
    head: TableHead
    rows: pl.DataFrame


class SimulatedStored:
    """The rows of a simulated table, read as StoredRows reads the real one's."""

    def __init__(self, tables: SimulatedTables, record_type: RecordType) -> None:
        self._tables = tables
        self._record_type = record_type

    def pin(self) -> Any:  # Any: a stand-in for a pinned snapshot, of which only the head is looked at
        """Pin the table as it is."""
        table = self._tables.tables[self._record_type.name]
        head = self._tables.head(self._record_type.name)
        rows = pl.concat(table.rows) if table.rows else pl.DataFrame(schema=polars_schema(self._record_type))
        return _Pinned(head, rows)

    def between(
        self,
        pinned: Any,
        log: LogPartition,
        like: pl.DataFrame,
        columns: Sequence[str],
        *,
        margin_ns: int = 0,
        files_max: int | None = None,
    ) -> pl.DataFrame:
        """Return a partition's rows like these."""
        del files_max
        times = pl.lit(like["ts_event_ns"])
        return (
            _of(pinned.rows, log)
            .filter(
                pl.col("symbol").is_in(like["symbol"].implode()),
                pl.col("ts_event_ns").is_between(times.min() - margin_ns, times.max() + margin_ns),
            )
            .select(columns)
        )

    def since(
        self, pinned: Any, wanted: Mapping[LogPartition, Wanted], columns: Sequence[str]
    ) -> Iterator[tuple[LogPartition, pl.DataFrame]]:
        """Give the rows wanted."""
        for log, each in wanted.items():
            new = (pl.col("log_offset") >= each.offset_from) | (pl.col("commit_sequence") > each.commits_above)
            rows = _of(pinned.rows, log).filter(pl.col("ts_log") >= each.logged_from, new)
            yield log, rows.select(columns)

    def rows_since(self, pinned: Any, at: dt.datetime) -> int:
        """Count the rows."""
        del at
        return int(pinned.rows.height)


def _of(rows: pl.DataFrame, log: LogPartition) -> pl.DataFrame:
    return rows.filter(pl.col("log_id") == log.log_id, pl.col("log_partition") == log.partition)


class SimulatedDuplicates(SimulatedIngest):
    """Workers that deduplicate; `deduplication` may be changed before a worker starts."""

    deduplication = DeduplicationSettings(ids_capacity=1_000)

    def decoder(self, record_type: RecordType, registry_fails: Callable[[], bool]) -> Decoder:
        """Return a worker's decoder."""
        return IdentityDecoder(record_type, registry_fails)

    def deduplicator(self, record_type: RecordType) -> Deduplicator:
        """Return a worker's deduplicator."""
        return TableDeduplicator(
            record_type,
            rules=RULES,
            stored=SimulatedStored(self.tables, record_type),
            settings=self.deduplication,
        )
