"""The commit of a replay: rows at coordinates that were dead letters, once each; no seam moves."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Final

import polars as pl
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import And, BooleanExpression, EqualTo, GreaterThanOrEqual, In, LessThanOrEqual

from k2.common.crash_points import reached
from k2.common.errors import (
    AccountingError,
    ConfigurationError,
    CorruptionError,
    FencedError,
    LogIdentityError,
    UnavailableError,
)
from k2.schemas.records import WrittenBy
from k2.storage.data_files import DataFileWriter
from k2.storage.failures import as_k2_error, translated
from k2.storage.retries import attempts
from k2.storage.seam import BATCH_KEY, SUMMARY_KEY, LogPartition
from k2.storage.snapshots import append
from k2.storage.tables import MAIN_TABLES, SCHEMA_PREFIX, head_of
from k2.storage.writer import find_batch

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Mapping

    from pyiceberg.table import Table

    from k2.common.clock import Clock
    from k2.storage.settings import CatalogSettings
    from k2.storage.tables import MarketTables, TableHead

COORDINATE: Final = ("log_id", "log_partition", "log_offset")
_OFFSETS_AT_ONCE: Final = 200
"""As many values of a set PyIceberg compares with the files' bounds; of more it reads every file."""


@dataclass(frozen=True, slots=True)
class ReplayCommit:
    """What a replay left: all its coordinates have a row now, `rows` of them by this call."""

    rows: int
    commit_sequence: int


class ReplayWriter:
    """Writes rows of dead letters into one main table. One thread uses one writer."""

    def __init__(self, tables: MarketTables, table_name: str, settings: CatalogSettings, clock: Clock) -> None:
        self._tables = tables
        self._name = table_name
        self._settings = settings
        self._clock = clock
        self._files = DataFileWriter(MAIN_TABLES[table_name], clock, row_group_rows=settings.row_group_rows)

    def log_reaches(self, key: LogPartition, at: dt.datetime) -> bool:
        """Say whether the table holds a row of the partition whose log time is `at` or later."""
        within: BooleanExpression = And(
            EqualTo(term="log_id", value=key.log_id),
            EqualTo(term="log_partition", value=key.partition),
            GreaterThanOrEqual(term="ts_log", value=at.isoformat()),
        )
        table = self._tables.latest(self._name)
        with translated(f"reading the log times of market.{self._name}", path=f"market.{self._name}"):
            found: int = table.scan(within, selected_fields=("log_offset",), limit=1).to_arrow().num_rows
        return found > 0

    def commit(self, rows: pl.DataFrame, new_schemas: Mapping[int, str]) -> ReplayCommit:
        """Commit the rows (all columns but the commit's) whose coordinates the head does not hold; safe to call again.

        Raises:
            FencedError: a coordinate is not below the head's seam, or is deferred there: read the head, choose again.
            AccountingError: the head's ledger has fewer dead letters than are to be replayed.
            UnavailableError: the outcome is still unknown after all attempts.
        """
        batch_id = f"replay-{uuid.uuid4()}"
        doing = f"committing {rows.height} replayed records to market.{self._name}"
        failure: Exception | None = None
        for _ in attempts(self._settings, self._clock):
            try:
                return self._attempt(rows, new_schemas, batch_id)
            except CommitFailedException as error:  # someone else was faster: look again
                failure = error
            except (AccountingError, ConfigurationError, CorruptionError, FencedError, LogIdentityError):
                raise
            except Exception as error:  # the outcome is unknown: the next look at the head tells
                failure = as_k2_error(error, doing)
                if not isinstance(failure, UnavailableError):
                    raise failure or error from error
        raise UnavailableError(
            f"{doing}: not known to be in the table after all attempts; call again. Last: {failure}",
            dependency="catalog",
        ) from failure

    def _attempt(self, rows: pl.DataFrame, new_schemas: Mapping[int, str], batch_id: str) -> ReplayCommit:
        table = self._tables.load(self._name)
        head = head_of(table)
        landed = find_batch(table, batch_id)
        absent = rows.join(_held(table, rows), on=COORDINATE, how="anti", maintain_order="left")
        if absent.is_empty():
            return ReplayCommit(rows.height if landed is not None else 0, head.seam.commit_sequence)
        seam = head.seam.replayed(check_replay(head, absent))
        # Written for this head and no other: with a lower sequence a token older than this commit would show the rows.
        files = self._files.write(
            table,
            absent.with_columns(
                commit_sequence=pl.lit(seam.commit_sequence, pl.Int64), written_by=pl.lit(WrittenBy.REPLAY)
            ),
        )
        written = sum(file.rows for file in files)
        if written != absent.height:
            raise AccountingError(f"expected {absent.height} replayed rows, the footers of the files say {written}")
        reached("before_commit")
        append(
            table,
            files=[file.data_file for file in files],
            summary={SUMMARY_KEY: seam.to_json(), BATCH_KEY: batch_id},
            properties={f"{SCHEMA_PREFIX}{key}": text for key, text in new_schemas.items() if key not in head.schemas},
            merge_count=self._settings.manifests_merge_count,
        )
        reached("after_commit")
        return ReplayCommit(absent.height, seam.commit_sequence)


def check_replay(head: TableHead, rows: pl.DataFrame) -> dict[LogPartition, int]:
    """Return how many rows each partition gets; refuse coordinates that are not dead letters below the head's seam."""
    counts: dict[LogPartition, int] = {}
    for log_id, partition, count, last, offsets in _by_partition(rows):
        key = LogPartition(log_id, partition)
        where = f"log {log_id} partition {partition} of market.{head.table_name}"
        known = head.seam.partitions.get(key)
        if known is None:
            raise LogIdentityError(f"expected {where} to be registered, found no entry in the seam")
        if last >= known.next_offset:
            raise FencedError(
                f"expected dead letters below the seam of {where}, {known.next_offset}, found offset {last}: it is "
                "not committed yet; replay it later"
            )
        for entry in head.seam.deferred:
            within = (entry.log_id, entry.partition) == (log_id, partition)
            if within and any(entry.start <= offset < entry.end for offset in offsets):
                raise FencedError(
                    f"expected no deferred records around what is replayed in {where}, found the range "
                    f"[{entry.start}, {entry.end}): replay once it is written"
                )
        if known.counts.dead_letters < count:
            raise AccountingError(
                f"expected at least {count} dead letters in the ledger of {where}, found {known.counts.dead_letters}: "
                "run `k2 verify`"
            )
        counts[key] = count
    return counts


def _held(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Return which of the coordinates the table holds."""
    schema = rows.select(COORDINATE).schema
    held = [pl.DataFrame(schema=schema)]
    for log_id, partition, _, _, offsets in _by_partition(rows):
        for first in range(0, len(offsets), _OFFSETS_AT_ONCE):
            some = offsets[first : first + _OFFSETS_AT_ONCE]
            parts: list[BooleanExpression] = [
                EqualTo(term="log_id", value=log_id),
                EqualTo(term="log_partition", value=partition),
                GreaterThanOrEqual(term="log_offset", value=some[0]),
                LessThanOrEqual(term="log_offset", value=some[-1]),
                In(term="log_offset", literals=set(some)),
            ]
            found = pl.DataFrame(pl.from_arrow(table.scan(reduce(And, parts), selected_fields=COORDINATE).to_arrow()))
            held.append(found.select(pl.col(name).cast(kind) for name, kind in schema.items()))
    return pl.concat(held)


def _by_partition(rows: pl.DataFrame) -> Iterator[tuple[int, int, int, int, list[int]]]:
    """Iterate over log id, partition, number of rows, last offset, and the offsets in order."""
    for (log_id, partition), part in rows.group_by("log_id", "log_partition", maintain_order=True):
        offsets = sorted(part["log_offset"].to_list())
        yield log_id, partition, len(offsets), offsets[-1], offsets
