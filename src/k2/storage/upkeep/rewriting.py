"""Rewrites data files into fewer, sorted ones, and proves that the rows are the same before anything is committed."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl
import psutil
import pyarrow.parquet as pq

from k2.common.errors import AccountingError, CorruptionError
from k2.schemas.arrow import polars_schema
from k2.storage.data_files import DataFileWriter
from k2.storage.failures import translated
from k2.storage.file_checks import require_as_written
from k2.storage.upkeep.sorting import ExternalSort, SortLimits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyiceberg.io import FileIO
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

    from k2.common.clock import Clock
    from k2.schemas.records import RecordType
    from k2.storage.data_files import WrittenFile
    from k2.storage.settings import UpkeepSettings
    from k2.storage.upkeep.choosing import Job

_SEEDS: Final = (0x5EED_0001, 0x5EED_0002)
_WRAP: Final = 2**64
_BATCH_ROWS: Final = 16_384


@dataclass(slots=True)
class Content:
    """What rows are, in any order: how many, and two sums of 64-bit hashes of whole rows."""

    rows: int = 0
    hashes: tuple[int, ...] = field(default=(0,) * len(_SEEDS))

    def add(self, frame: pl.DataFrame) -> None:
        """Count more rows in; all columns, in one order of columns."""
        self.rows += frame.height
        self.hashes = tuple(
            (total + int(frame.hash_rows(seed=seed).sum() or 0)) % _WRAP
            for total, seed in zip(self.hashes, _SEEDS, strict=True)
        )


@dataclass(frozen=True, slots=True)
class StoredRows:
    """The rows of one data file, read through the table's FileIO once its checksum has been compared.

    The pages' own checksums are compared as well: they cover what changes between the two readings.
    """

    io: FileIO
    data_file: DataFile
    schema: dict[str, pl.DataType]
    content: Content
    is_sorted: bool = True

    @property
    def rows(self) -> int:
        """Return how many rows it has, by the manifest."""
        return int(self.data_file.record_count)

    def batches(self, rows_max: int) -> Iterator[pl.DataFrame]:
        """Yield the rows with all columns; one that the file does not have yet is null."""
        path = self.data_file.file_path
        require_as_written(self.io, self.data_file)
        found = 0
        with translated("reading a data file to rewrite it", path=path), self.io.new_input(path).open() as stream:
            source = pq.ParquetFile(stream, page_checksum_verification=True, buffer_size=1 << 16, pre_buffer=False)
            for batch in source.iter_batches(min(rows_max, _BATCH_ROWS), use_threads=False):
                frame = pl.DataFrame(pl.from_arrow(batch))
                absent = [pl.lit(None).alias(name) for name in self.schema if name not in frame.columns]
                frame = frame.with_columns(absent).select(pl.col(name).cast(kind) for name, kind in self.schema.items())
                self.content.add(frame)
                found += frame.height
                yield frame
        if found != self.rows:
            raise CorruptionError(f"expected {self.rows} rows in {path} by its manifest, found {found}", path=path)


class Rewriter:
    """Rewrites the files of one table. `order` is the order of rows in its files."""

    def __init__(
        self,
        record_type: RecordType,
        order: Sequence[str],
        settings: UpkeepSettings,
        clock: Clock,
        *,
        row_group_rows: int,
        scratch_dir: Path,
    ) -> None:
        self._order = list(order)
        self._schema = polars_schema(record_type)
        self._writer = DataFileWriter(record_type, clock, row_group_rows=row_group_rows)
        self._limits = SortLimits(settings.sort_rows_max, settings.sort_pieces_max)
        self._row_group_rows = row_group_rows
        self._scratch_dir = scratch_dir

    def rewrite(self, table: Table, job: Job) -> tuple[WrittenFile, ...]:
        """Write the job's rows into new files, not yet part of the table.

        Raises:
            CorruptionError: a file to rewrite is damaged; it is named, and stays as it is.
            AccountingError: the new files do not hold the same rows in order; they are deleted.
        """
        before = Content()
        sources = [StoredRows(table.io, file.data_file, self._schema, before) for file in job.files]
        first = job.files[0].data_file
        directory = first.file_path.removeprefix(f"{table.location()}/").rpartition("/")[0]
        groups_each = -(-job.rows // (job.outputs * self._row_group_rows))
        with _deleted_on_error(table.io) as written:
            with _scratch(self._scratch_dir) as scratch:
                rows = ExternalSort(self._order, scratch, self._limits).sorted(sources)
                groups = row_groups(rows, self._row_group_rows)
                for group in groups:
                    part = _first_and(group, islice(groups, groups_each - 1))
                    written.append(self._writer.write_sorted(table, part, first.partition, directory))
            self._verify(table, job, written, before)
        return tuple(written)

    def _verify(self, table: Table, job: Job, written: Sequence[WrittenFile], before: Content) -> None:
        """Read what was written, and compare it with what was read."""
        after = Content()
        last: tuple[object, ...] | None = None
        for file in written:
            for batch in StoredRows(table.io, file.data_file, self._schema, after).batches(_BATCH_ROWS):
                last = self._checked_order(batch, last, file.path)
        if (before.rows, before.hashes) != (after.rows, after.hashes) or before.rows != job.rows:
            raise AccountingError(
                f"expected the {job.rows} rows of {len(job.files)} files of {'.'.join(table.name())} in the new "
                f"files, found {after.rows} rows (read {before.rows}), content {after.hashes} against {before.hashes}; "
                "nothing was replaced"
            )

    def _checked_order(self, batch: pl.DataFrame, last: tuple[object, ...] | None, path: str) -> tuple[object, ...]:
        keys = batch.select(self._order)
        if not keys.equals(keys.sort(self._order)) or (last is not None and keys.row(0) < last):
            raise AccountingError(
                f"expected rows in the order {', '.join(self._order)} in {path}; nothing was replaced"
            )
        return keys.row(-1)


def row_groups(frames: Iterator[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """Cut and join frames into ones of exactly `rows` rows; the last may have fewer."""
    held: list[pl.DataFrame] = []
    count = 0
    for frame in frames:
        held.append(frame)
        count += frame.height
        while count >= rows:
            joined = pl.concat(held)
            yield joined.head(rows)
            held, count = [joined.slice(rows)], count - rows
    if count:
        yield pl.concat(held)


def _first_and(first: pl.DataFrame, rest: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    yield first
    yield from rest


@contextmanager
def _deleted_on_error(io: FileIO) -> Iterator[list[WrittenFile]]:
    """Give a list of files written; on an error they are deleted, since no commit has ever named them."""
    written: list[WrittenFile] = []
    try:
        yield written
    except Exception:  # whatever it was goes on to the caller: no error may leave files behind that nobody knows of
        for file in written:
            with suppress(OSError):  # left to the orphan sweep
                io.delete(file.path)
        raise


@contextmanager
def _scratch(directory: Path) -> Iterator[Path]:
    """Give an empty directory that is gone afterwards; what a killed process has left there goes now."""
    with translated("making room for sorting", path=str(directory)):
        directory.mkdir(parents=True, exist_ok=True)
        for left in directory.iterdir():
            owner = left.name.partition("-")[0]
            if owner.isdecimal() and not psutil.pid_exists(int(owner)):
                shutil.rmtree(left, ignore_errors=True)
        path = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=directory))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
