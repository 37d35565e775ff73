"""Moves a seam by hand, in one commit: forward over records that are given up, back by taking out the rows above."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow.parquet as pq
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table.snapshots import Operation

from k2.common.crash_points import reached
from k2.common.errors import FencedError, K2Error, UnavailableError
from k2.schemas.arrow import polars_schema
from k2.schemas.records import DEAD_LETTERS, GAPS
from k2.storage.data_files import DataFileWriter
from k2.storage.failures import as_k2_error, translated
from k2.storage.file_checks import require_as_written
from k2.storage.replacing import Replacement, commit_replacement
from k2.storage.seam import BATCH_KEY, SUMMARY_KEY, Counts, LogPartition, Seam
from k2.storage.snapshots import append
from k2.storage.tables import GIVEN_UP_PREFIX, MAIN_TABLES, SIDE_TABLES, head_of, settled_property
from k2.storage.upkeep.live_files import LiveFiles
from k2.storage.upkeep.rewriting import Content, StoredRows, row_groups
from k2.storage.writer import find_batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

    from k2.common.clock import Clock
    from k2.storage.settings import CatalogSettings
    from k2.storage.tables import MarketTables, TableHead
    from k2.storage.upkeep.live_files import LiveFile

_BATCH_ROWS: Final = 16_384
_CLEANING_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class SeamMove:
    """One partition's move from `start`, where its seam is, to `to`, and what that does to the ledger."""

    log_id: int
    partition: int
    start: int
    to: int
    counts: Counts
    """Forward: what is consumed and lost. Back: what was counted of [to, start), and is taken back."""

    @property
    def key(self) -> LogPartition:
        """Return the partition."""
        return LogPartition(self.log_id, self.partition)


class SeamMover:
    """Surveys and moves the seams of the main tables."""

    def __init__(self, tables: MarketTables, settings: CatalogSettings, clock: Clock) -> None:
        self._tables = tables
        self._settings = settings
        self._clock = clock

    def row_offsets(self, table_name: str, key: LogPartition, first: int) -> pl.Series:
        """Return the offsets of the rows of one partition at or above `first`."""
        table = self._tables.load(table_name)
        found = [_offsets(table, file, key, first) for file in LiveFiles().of_head(table)]
        return pl.concat([pl.Series("log_offset", [], dtype=pl.Int64), *found])

    def apply(self, table_name: str, plan_id: str, snapshot_id: int, moves: Sequence[SeamMove]) -> bool:
        """Commit the moves on the head that they were planned for; False if they had been committed before.

        Raises:
            FencedError: the head is another; the text names the difference. Plan again.
            UnavailableError: the outcome is unknown: apply the same plan again.
        """
        doing = f"moving seams of market.{table_name}"
        table = self._tables.load(table_name)
        if find_batch(table, plan_id) is not None:
            return False
        head = head_of(table)
        _check(head, snapshot_id, moves)
        summary = {SUMMARY_KEY: moved(head.seam, moves).to_json(), BATCH_KEY: plan_id}
        properties = given_up(plan_id, moves) | _taken_back(head, moves)
        try:
            replacement = self._replacement(table, table_name, moves)
            reached("before_commit")
            if replacement is None:
                append(table, summary=summary, properties=properties, merge_count=self._settings.manifests_merge_count)
            else:
                replacement.swap(table, lambda _head: summary, properties)
            reached("after_commit")
        except CommitFailedException as error:
            raise FencedError(f"{doing}: something was committed meanwhile; make a new plan") from error
        except K2Error:
            raise
        except Exception as error:
            failure = as_k2_error(error, doing)
            if failure is None:
                raise
            raise UnavailableError(f"{failure}; apply the same plan again", dependency="catalog") from error
        return True

    def forget_letters(self, topic_id: str, moves: Sequence[SeamMove]) -> None:
        """Take out the events of dead letters and gaps that will be decided again; safe to repeat.

        A gap goes by how far the log was known when it was decided: what is read again may fill it before it is told.

        Raises:
            UnavailableError: upkeep was faster each time: apply the same plan again.
        """
        back = [move for move in moves if move.to < move.start]
        if back:
            self._forget(DEAD_LETTERS.name, topic_id, back, "log_offset")
            self._forget(GAPS.name, topic_id, back, "decided_offset")

    def _forget(self, table_name: str, topic_id: str, back: Sequence[SeamMove], offset: str) -> None:
        gone = pl.any_horizontal(
            (pl.col("topic_id") == topic_id) & (pl.col("log_partition") == move.partition) & (pl.col(offset) >= move.to)
            for move in back
        )
        for _ in range(_CLEANING_ATTEMPTS):
            table = self._tables.load(table_name)
            removed, added = self._without(table, table_name, LiveFiles().of_head(table), gone)
            if not removed:
                return
            replacement = Replacement(table, frozenset(removed), added, Operation.OVERWRITE)
            if commit_replacement(replacement, self._tables, self._settings, self._clock):
                return
        raise UnavailableError(
            f"market.{table_name} is being rewritten; apply the same plan again", dependency="catalog"
        )

    def _replacement(self, table: Table, table_name: str, moves: Sequence[SeamMove]) -> Replacement | None:
        back = [move for move in moves if move.to < move.start]
        if not back:
            return None
        gone = pl.any_horizontal(
            (pl.col("log_id") == move.log_id)
            & (pl.col("log_partition") == move.partition)
            & (pl.col("log_offset") >= move.to)
            for move in back
        )
        files = [
            file
            for file in LiveFiles().of_head(table)
            if any(len(_offsets(table, file, move.key, move.to)) for move in back)
        ]
        removed, added = self._without(table, table_name, files, gone)
        return Replacement(table, frozenset(removed), added, Operation.OVERWRITE) if removed else None

    def _without(
        self, table: Table, table_name: str, files: Sequence[LiveFile], gone: pl.Expr
    ) -> tuple[list[str], list[DataFile]]:
        """Write the files again without the rows that go, a row group at a time; return old paths and new files."""
        record_type = {**MAIN_TABLES, **SIDE_TABLES}[table_name]
        writer = DataFileWriter(record_type, self._clock, row_group_rows=self._settings.row_group_rows)
        schema = polars_schema(record_type)
        removed, added = [], []
        for file in files:
            stored = StoredRows(table.io, file.data_file, schema, Content())
            kept = sum(frame.filter(~gone).height for frame in stored.batches(_BATCH_ROWS))
            if kept == stored.rows:
                continue
            removed.append(file.path)
            if kept:
                frames = row_groups(_filtered(stored, gone), self._settings.row_group_rows)
                directory = file.path.removeprefix(f"{table.location()}/").rpartition("/")[0]
                written = writer.write_sorted(table, frames, file.data_file.partition, directory)
                added.append(written.data_file)
        return removed, added


def moved(seam: Seam, moves: Sequence[SeamMove]) -> Seam:
    """Return the seam after the moves: forward adds to the ledger, back takes from it."""
    partitions = dict(seam.partitions)
    for move in moves:
        part = partitions[move.key]
        counts = part.counts + (move.counts if move.to > move.start else _negative(move.counts))
        partitions[move.key] = replace(part, next_offset=move.to, counts=counts)
    return replace(seam, commit_sequence=seam.commit_sequence + 1, partitions=partitions)


def given_up(plan_id: str, moves: Sequence[SeamMove]) -> dict[str, str]:
    """Return the table properties that say for good which ranges were given up."""
    return {
        f"{GIVEN_UP_PREFIX}{plan_id}.{number}": json.dumps(
            [move.log_id, move.partition, move.start, move.to, move.counts.lost]
        )
        for number, move in enumerate(moves)
        if move.to > move.start
    }


def _taken_back(head: TableHead, moves: Sequence[SeamMove]) -> dict[str, str]:
    """Return the properties that make ranges given up before empty: their records are read again.

    So are dead letters that were settled as duplicates: no later replay may take the new ones for them.
    """
    forgotten: dict[str, str] = {}
    for move in moves:
        if move.to < move.start and move.key in head.settled:
            forgotten |= settled_property(move.key, (o for o in head.settled[move.key] if o < move.to))
    return forgotten | {
        one.name: json.dumps([one.key.log_id, one.key.partition, one.start, one.start, 0])
        for move in moves
        for one in head.given_up
        if one.key == move.key and one.start >= move.to
    }


def _negative(counts: Counts) -> Counts:
    return Counts(
        -counts.consumed, -counts.rows, -counts.duplicates, -counts.dead_letters, -counts.deferred, -counts.lost
    )


def _check(head: TableHead, snapshot_id: int, moves: Sequence[SeamMove]) -> None:
    if head.snapshot_id != snapshot_id:
        found = "; ".join(
            f"log {move.log_id} partition {move.partition}: planned {move.start}, now {head.seam.next_offset(move.key)}"
            for move in moves
        )
        raise FencedError(
            f"the plan is for snapshot {snapshot_id} of market.{head.table_name}, its head is {head.snapshot_id} "
            f"(seams: {found}): stop the workers and make a new plan"
        )


def _offsets(table: Table, file: LiveFile, key: LogPartition, first: int) -> pl.Series:
    """Return which offsets of a partition at or above `first` a file holds."""
    require_as_written(table.io, file.data_file)
    columns = ["log_id", "log_partition", "log_offset"]
    with translated("looking for rows above an offset", path=file.path), table.io.new_input(file.path).open() as stream:
        found = pl.DataFrame(pl.from_arrow(pq.ParquetFile(stream).read(columns=columns)))
    within = (pl.col("log_id") == key.log_id) & (pl.col("log_partition") == key.partition)
    return found.filter(within & (pl.col("log_offset") >= first))["log_offset"]


def _filtered(stored: StoredRows, gone: pl.Expr) -> Iterator[pl.DataFrame]:
    for frame in stored.batches(_BATCH_ROWS):
        kept = frame.filter(~gone)
        if kept.height:
            yield kept
