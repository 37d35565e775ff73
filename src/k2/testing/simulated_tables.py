"""Tables in memory behind the real fence, with a catalog that can be down, lose replies, or be slow to apply."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from k2.common.errors import UnavailableError
from k2.kafka.decoding import BadRecord, Decoded
from k2.kafka.topics import exchange_of
from k2.schemas.arrow import polars_schema
from k2.storage.data_files import WrittenFile
from k2.storage.event_tables import GAP_EVENTS
from k2.storage.seam import Seam
from k2.storage.tables import RegisteredLog, TableHead
from k2.storage.writer import Batch, Commit, check_accounts, check_fence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from k2.kafka.batches import LogBatch
    from k2.schemas.records import RecordType
    from k2.storage.seam import LogPartition


_ATTEMPTS_MAX: Final = 3


class SimulatedCrash(BaseException):
    """The process ends here, as by kill -9."""


@dataclass
class Faults:
    """What goes wrong; each is asked at its place, and answers from the simulation's random numbers."""

    before_commit: Callable[[], bool] = lambda: False
    reply_lost: Callable[[], bool] = lambda: False
    write_fails: Callable[[], bool] = lambda: False
    head_fails: Callable[[], bool] = lambda: False
    side_table_fails: Callable[[], bool] = lambda: False
    registry_fails: Callable[[], bool] = lambda: False
    swap_delayed: Callable[[], bool] = lambda: False
    """The catalog takes the request and applies it later, if the table has not moved by then; nobody hears of it."""

    meanwhile: Callable[[], None] = lambda: None
    """What others do between a writer's look at the head and its swap."""

    crash: Callable[[str], bool] = lambda _point: False

    def reached(self, point: str) -> None:
        """End the process here, if that is drawn."""
        if self.crash(point):
            raise SimulatedCrash(point)


def _down(what: str) -> UnavailableError:
    return UnavailableError(f"the simulated {what} is down", dependency=what)


@dataclass
class SimulatedTable:
    """One main table: its head, and all rows with the batch that brought them."""

    head: TableHead
    rows: list[pl.DataFrame] = field(default_factory=list)
    batches: dict[str, int] = field(default_factory=dict)
    commits: int = 0
    version: int = 0
    """Moves with every swap, as the catalog's pointer does."""

    delayed: tuple[int, Batch, list[pl.DataFrame]] | None = None
    stale_commits: int = 0
    """Batches accepted whose start was not the seam; counted here, not by the fence."""

    def coordinates(self) -> list[tuple[int, int, int]]:
        """Return the coordinate of every row, in no order."""
        return [row for rows in self.rows for row in columns_of(rows, "log_id", "log_partition", "log_offset")]

    def swap(self, batch: Batch, rows: list[pl.DataFrame]) -> None:
        """Make the batch part of the table."""
        self.stale_commits += any(self.head.seam.next_offset(key) != delta.start for key, delta in batch.deltas.items())
        self.commits += 1
        self.version += 1
        self.rows += rows
        self.batches[batch.batch_id] = self.commits
        self.head = replace(
            self.head,
            snapshot_id=self.commits,
            seam=batch.seam_after(self.head.seam),
            schemas={**batch.new_schemas, **self.head.schemas},
            tier_maps={**batch.deferral.tier_maps, **self.head.tier_maps},
        )

    def land_delayed(self) -> bool:
        """Apply the swap that was delayed, unless the table has moved since; say whether it was."""
        delayed, self.delayed = self.delayed, None
        if delayed is None or delayed[0] != self.version:
            return False
        self.swap(delayed[1], delayed[2])
        return True

    def expire(self) -> None:
        """Forget all snapshots but the head, and with them their batch ids."""
        self.batches = {name: number for name, number in self.batches.items() if number == self.commits}


def columns_of(rows: pl.DataFrame, *names: str) -> list[tuple[Any, ...]]:
    """Return some columns as tuples, one a row, without a query."""
    return list(zip(*(rows.get_column(name).to_list() for name in names), strict=True))


class SimulatedTables:
    """The catalog."""

    def __init__(self, faults: Faults, *names: str) -> None:
        self.faults = faults
        self.tables = {name: SimulatedTable(TableHead(name, None, Seam(), (), {}, "memory")) for name in names}
        self.dead_letters: dict[tuple[str, int, int, str], dict[str, Any]] = {}
        self.gap_events: dict[tuple[object, ...], dict[str, Any]] = {}
        self.files: dict[str, pl.DataFrame] = {}

    def head(self, table_name: str) -> TableHead:
        """Return the newest head."""
        if self.faults.head_fails():
            raise _down("catalog")
        return self.tables[table_name].head

    def register_log(
        self,
        table_name: str,
        *,
        cluster_id: str,
        topic_id: str,
        topic: str,
        starts: Mapping[int, int],
        accept_new_log: bool = False,
    ) -> RegisteredLog:
        """Register a log; idempotent."""
        del accept_new_log
        table = self.tables[table_name]
        for known in table.head.logs:
            if (known.cluster_id, known.topic_id) == (cluster_id, topic_id):
                return known
        log = RegisteredLog(len(table.head.logs), cluster_id, topic_id, topic, len(starts), dict(starts))
        table.head = replace(
            table.head, logs=(*table.head.logs, log), seam=table.head.seam.with_log(log.log_id, starts), snapshot_id=1
        )
        table.version += 1
        return log

    def append(self, events: pa.Table) -> int:
        """Append events of dead letters whose coordinate and kind are absent."""
        if self.faults.side_table_fails():
            raise _down("catalog")
        new = 0
        for event in events.to_pylist():
            key = (event["topic_id"], event["log_partition"], event["log_offset"], event["event"])
            new += key not in self.dead_letters
            self.dead_letters.setdefault(key, event)
        return new

    def append_gaps(self, events: pl.DataFrame) -> int:
        """Append events of gaps whose identity is absent."""
        if self.faults.side_table_fails():
            raise _down("catalog")
        before = len(self.gap_events)
        for event in events.to_dicts():
            self.gap_events.setdefault(tuple(event[name] for name in GAP_EVENTS.identity), event)
        return len(self.gap_events) - before

    def pinned(self, table_name: str) -> SimulatedRows:
        """Return the rows as they are now."""
        return SimulatedRows(self.head(table_name), tuple(self.tables[table_name].rows))


@dataclass(frozen=True)
class SimulatedRows:
    """One snapshot of a table."""

    head: TableHead
    frames: tuple[pl.DataFrame, ...]

    def rows(
        self, partition: LogPartition, start: int, end: int, *, columns: Sequence[str], since_us: int = 0
    ) -> Iterator[pl.DataFrame]:
        """Return one partition's rows, ordered by offset."""
        if self.frames:
            yield (
                pl.concat(self.frames)
                .filter(
                    pl.col("log_id") == partition.log_id,
                    pl.col("log_partition") == partition.partition,
                    pl.col("log_offset").is_between(start, end, closed="left"),
                    pl.col("ts_log").dt.epoch("us").fill_null(since_us) >= since_us,
                )
                .select(columns)
                .sort("log_offset")
            )


class SimulatedGaps:
    """The table of gaps."""

    def __init__(self, tables: SimulatedTables) -> None:
        self._tables = tables

    def append(self, events: pl.DataFrame) -> int:
        """Append the events that are absent."""
        return self._tables.append_gaps(events)


class SimulatedWriter:
    """Writes one simulated table; the fence and the accounts are checked by the product's own functions."""

    def __init__(self, tables: SimulatedTables, table_name: str) -> None:
        self._tables = tables
        self._name = table_name

    def write_files(self, rows: pl.DataFrame) -> tuple[WrittenFile, ...]:
        """Keep the rows under a path."""
        faults = self._tables.faults
        if faults.write_fails():
            raise _down("warehouse")
        faults.reached("mid_parquet")
        path = f"memory://{self._name}/{len(self._tables.files)}"
        self._tables.files[path] = rows
        faults.reached("file_closed")
        data_file: Any = None  # Any: nothing in a simulation reads the manifest's entry
        return (WrittenFile(path, rows.height, 0, 0, data_file),)

    def commit(self, batch: Batch) -> Commit:
        """Commit as the real writer does: look for the batch, check the fence, append."""
        check_accounts(batch)
        for attempt in range(1, _ATTEMPTS_MAX + 1):
            commit = self._attempt(batch, attempt)
            if commit is not None:
                return commit
        raise _down("catalog")

    def _attempt(self, batch: Batch, attempt: int) -> Commit | None:
        """Try once; None where the table has moved between the look at it and the swap."""
        faults, table = self._tables.faults, self._tables.tables[self._name]
        if faults.before_commit():
            raise _down("catalog")
        if batch.batch_id in table.batches:
            return Commit(table.batches[batch.batch_id], table.head.seam, batch.rows, attempt, found=True)
        check_fence(table.head, batch)
        batch.seam_after(table.head.seam)
        version = table.version
        faults.reached("before_commit")
        faults.meanwhile()
        faults.reached("metadata_written")
        if table.version != version:
            return None
        rows = [self._tables.files[file.path] for file in batch.files]
        if table.delayed is None and faults.swap_delayed():
            table.delayed = version, batch, rows
            raise _down("catalog")
        table.swap(batch, rows)
        faults.reached("after_commit")
        if faults.reply_lost():
            raise _down("catalog")
        return Commit(table.commits, table.head.seam, batch.rows, attempt, found=False)


class SimulatedDecoder:
    """Makes a row of each value, which it keeps in `source`, and a bad record of each that begins with `bad`.

    A value `#symbol|sequence|trading date|log time` (days since 1970, milliseconds) has these in its row.
    """

    def __init__(
        self, record_type: RecordType, schemas: object = None, *, registry_fails: Callable[[], bool] = lambda: False
    ) -> None:
        self._schema = {
            name: dtype
            for name, dtype in polars_schema(record_type).items()
            if name not in ("commit_sequence", "written_by")
        }
        self._schemas = schemas
        self._registry_fails = registry_fails
        self._empty: dict[int, pl.DataFrame] = {}

    def decode(self, batch: LogBatch, *, log_id: int) -> Decoded:
        """Decode a batch."""
        if self._registry_fails():
            raise _down("registry")
        good, texts, bad = [], [], []
        for offset, ts_log_ms, key, value in zip(batch.offsets, batch.ts_log_ms, batch.keys, batch.values, strict=True):
            if value is None or value.startswith(b"bad"):
                bad.append(BadRecord(batch.partition, offset, ts_log_ms, key, value, "Bad", "it is bad"))
            else:
                good.append(offset)
                texts.append(value.decode())
        count = len(good)
        known: dict[str, list[Any]] = {
            "log_offset": good,
            "source": texts,
            "log_id": [log_id] * count,
            "log_partition": [batch.partition] * count,
        }
        columns = [pl.Series(name, values, self._schema[name]) for name, values in known.items()]
        rows = self._empty_columns(count).hstack(columns)
        if any(text.startswith("#") for text in texts):
            rows = _with_numbers(rows, exchange_of(batch.topic))
        return Decoded(rows, tuple(bad))

    def _empty_columns(self, count: int) -> pl.DataFrame:
        """Return the columns that nothing in a simulation reads; kept by length, since making them costs the most."""
        if count not in self._empty:
            named = ("log_offset", "source", "log_id", "log_partition")
            self._empty[count] = pl.DataFrame(
                [pl.Series(name, [None] * count, dtype) for name, dtype in self._schema.items() if name not in named]
            )
        return self._empty[count]


def _with_numbers(rows: pl.DataFrame, exchange: str) -> pl.DataFrame:
    """Fill in what numbered messages say; two of one number say the same but for their log time."""
    fields = pl.col("source").str.strip_prefix("#").str.split_exact("|", 3).struct
    sequence, day = fields[1].cast(pl.Int64), fields[2].cast(pl.Int64)
    known = {
        "exchange": pl.lit(exchange),
        "symbol": fields[0],
        "sequence": sequence,
        "trading_date": day.cast(pl.Int32),
        "ts_event_ns": (day * 86_400_000 + sequence) * 1_000_000,
        "ts_log": fields[3].cast(pl.Int64) * 1_000,
    }
    return rows.with_columns(value.cast(rows.schema[name]).alias(name) for name, value in known.items())
