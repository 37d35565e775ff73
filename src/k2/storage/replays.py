"""The commit of a replay: rows at coordinates that were dead letters, once each; no seam moves."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING, Final, Protocol

import polars as pl
from pyiceberg.expressions import And, BooleanExpression, EqualTo, GreaterThanOrEqual, In, LessThanOrEqual

from k2.common.crash_points import reached
from k2.common.errors import AccountingError, FencedError, LogIdentityError
from k2.schemas.records import WrittenBy
from k2.storage.data_files import DataFileWriter
from k2.storage.failures import translated
from k2.storage.retries import until_known
from k2.storage.seam import BATCH_KEY, SUMMARY_KEY, LogPartition
from k2.storage.side_tables import intact_scan
from k2.storage.snapshots import append
from k2.storage.tables import MAIN_TABLES, head_of, new_schema_properties, settled_property
from k2.storage.writer import find_batch

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Collection, Mapping

    from pyiceberg.table import Table

    from k2.common.clock import Clock
    from k2.storage.data_files import WrittenFile
    from k2.storage.seam import Seam
    from k2.storage.settings import CatalogSettings
    from k2.storage.tables import MarketTables, TableHead

_OFFSETS_AT_ONCE: Final = 200
"""As many values of a set PyIceberg compares with the files' bounds; of more it reads every file."""
_NOTHING: Final[frozenset[int]] = frozenset()


class Settling(Protocol):
    """What is asked about the records to replay, anew at each attempt, once the head has been read."""

    def repeated(self, rows: pl.DataFrame) -> frozenset[int]:
        """Return the offsets of the rows that repeat a row of the table, or an earlier one of theirs."""
        ...

    def outstanding(self, offsets: Collection[int]) -> frozenset[int]:
        """Return which of the offsets have no event yet that says that they were replayed."""
        ...


@dataclass(frozen=True, slots=True)
class Replay:
    """Records of one partition to store, with all columns but the commit's."""

    key: LogPartition
    rows: pl.DataFrame
    new_schemas: Mapping[int, str]
    settling: Settling


@dataclass(frozen=True, slots=True)
class ReplayCommit:
    """What a replay left: each of its coordinates has a row now, or repeats one. `rows` were stored by this call."""

    rows: int
    repeated: frozenset[int]
    """Offsets that have no row, since another row says the same; the ledger counts them as duplicates."""
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

    def commit(self, replay: Replay) -> ReplayCommit:
        """Commit the rows whose coordinates the head does not hold, unless they repeat others; safe to call again.

        A duplicate leaves the dead letters in the ledger by this commit, and its event is written after it. In between
        a property of the table names its offset, so that nobody takes it from the ledger a second time.

        Raises:
            FencedError: a coordinate is not below the head's seam, or is deferred there: read the head, choose again.
            AccountingError: the head's ledger has fewer dead letters than are to be replayed.
            UnavailableError: the outcome is still unknown after all attempts.
        """
        return until_known(
            partial(self._attempt, replay, f"replay-{uuid.uuid4()}"),
            self._settings,
            self._clock,
            doing=f"committing {replay.rows.height} replayed records to market.{self._name}",
            advice="call again",
        )

    def _attempt(self, replay: Replay, batch_id: str, _attempt: int) -> ReplayCommit:
        table = self._tables.load(self._name)
        head = head_of(table)
        landed = find_batch(table, batch_id)
        absent = replay.rows.join(_held(table, replay), on="log_offset", how="anti", maintain_order="left")
        repeated = replay.settling.repeated(absent) if absent.height else _NOTHING
        fresh = absent.filter(~pl.col("log_offset").is_in(repeated))
        settled, known = _settled(head, replay, repeated)
        if fresh.is_empty() and not settled:
            stored = 0 if landed is None else replay.rows.height - len(repeated)
            return ReplayCommit(stored, repeated, head.seam.commit_sequence)
        check_replay(head, replay.key, [*fresh["log_offset"], *settled])
        seam = head.seam.replayed(replay.key, rows=fresh.height, duplicates=len(settled))
        schemas = new_schema_properties(head, replay.new_schemas)
        files = self._write(table, fresh, seam)
        reached("before_commit")
        append(
            table,
            files=[file.data_file for file in files],
            summary={SUMMARY_KEY: seam.to_json(), BATCH_KEY: batch_id},
            properties=schemas | (settled_property(replay.key, settled | known) if settled else {}),
            merge_count=self._settings.manifests_merge_count,
        )
        reached("after_commit")
        return ReplayCommit(fresh.height, repeated, seam.commit_sequence)

    def _write(self, table: Table, rows: pl.DataFrame, seam: Seam) -> tuple[WrittenFile, ...]:
        """Write the rows for this head and no other: with a lower sequence a token older than the commit shows them."""
        sequence = pl.lit(seam.commit_sequence, pl.Int64)
        files = self._files.write(
            table, rows.with_columns(commit_sequence=sequence, written_by=pl.lit(WrittenBy.REPLAY))
        )
        written = sum(file.rows for file in files)
        if written != rows.height:
            raise AccountingError(f"expected {rows.height} replayed rows, the footers of the files say {written}")
        return files


def check_replay(head: TableHead, key: LogPartition, offsets: Collection[int]) -> None:
    """Refuse coordinates that are not dead letters below the head's seam."""
    where = f"log {key.log_id} partition {key.partition} of market.{head.table_name}"
    known = head.seam.partitions.get(key)
    if known is None:
        raise LogIdentityError(f"expected {where} to be registered, found no entry in the seam")
    last = max(offsets)
    if last >= known.next_offset:
        raise FencedError(
            f"expected dead letters below the seam of {where}, {known.next_offset}, found offset {last}: it is "
            "not committed yet; replay it later"
        )
    for entry in head.seam.deferred:
        within = (entry.log_id, entry.partition) == (key.log_id, key.partition)
        if within and any(entry.start <= offset < entry.end for offset in offsets):
            raise FencedError(
                f"expected no deferred records around what is replayed in {where}, found the range "
                f"[{entry.start}, {entry.end}): replay once it is written"
            )
    if known.counts.dead_letters < len(offsets):
        raise AccountingError(
            f"expected at least {len(offsets)} dead letters in the ledger of {where}, found "
            f"{known.counts.dead_letters}: run `k2 verify`"
        )


def _settled(head: TableHead, replay: Replay, repeated: frozenset[int]) -> tuple[frozenset[int], frozenset[int]]:
    """Return which duplicates the ledger has to take over now, and those taken over before that still lack an event.

    An event is written only after its commit, and was read here only after the head: one that is there by now stands
    for a commit that this head has, or for one that makes this attempt fail.
    """
    known = head.settled.get(replay.key, _NOTHING)
    if not repeated - known:
        return _NOTHING, known
    outstanding = replay.settling.outstanding(repeated | known)
    return (repeated - known) & outstanding, known & outstanding


def _held(table: Table, replay: Replay) -> pl.DataFrame:
    """Return which of the offsets the table holds."""
    offsets = replay.rows["log_offset"].sort()
    held = [offsets.clear().to_frame()]
    for first in range(0, len(offsets), _OFFSETS_AT_ONCE):
        some: list[int] = offsets[first : first + _OFFSETS_AT_ONCE].to_list()
        parts: list[BooleanExpression] = [
            EqualTo(term="log_id", value=replay.key.log_id),
            EqualTo(term="log_partition", value=replay.key.partition),
            GreaterThanOrEqual(term="log_offset", value=some[0]),
            LessThanOrEqual(term="log_offset", value=some[-1]),
            In(term="log_offset", literals=set(some)),
        ]
        found = pl.DataFrame(pl.from_arrow(intact_scan(table, reduce(And, parts), ("log_offset",)).to_arrow()))
        held.append(found.select(pl.col("log_offset").cast(offsets.dtype)))
    return pl.concat(held)
