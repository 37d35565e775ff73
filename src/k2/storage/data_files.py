"""Data files: sorted Parquet, one an exchange and day, written once, synced, counted from its own footer."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.typedef import Record

from k2.common.crash_points import reached
from k2.common.errors import AccountingError
from k2.schemas.arrow import arrow_schema
from k2.schemas.records import FieldType
from k2.storage.checksums import ChecksumStream, with_checksum
from k2.storage.failures import translated
from k2.storage.file_checks import require_as_written
from k2.storage.iceberg_schema import PARTITION_DAY, PARTITION_EXCHANGE, SORT_COLUMNS, is_market_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyiceberg.table import Table

    from k2.common.clock import Clock
    from k2.schemas.records import RecordType

_COMPRESSION: Final = "zstd"
_UNIQUE_STRINGS: Final = {
    "trade_id": "DELTA_BYTE_ARRAY",
    "ref_trade_id": "DELTA_BYTE_ARRAY",
    "extra": "DELTA_LENGTH_BYTE_ARRAY",
    "reason": "DELTA_LENGTH_BYTE_ARRAY",
    "key": "DELTA_LENGTH_BYTE_ARRAY",
    "value": "DELTA_LENGTH_BYTE_ARRAY",
}
"""Columns that rarely repeat; a dictionary would only be filled and thrown away."""
_DELTA_TYPES: Final = frozenset({FieldType.INT, FieldType.LONG, FieldType.DATE, FieldType.TIMESTAMP})


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """One data file on disk, not yet part of a table. `rows` is read back from the footer."""

    path: str
    rows: int
    size_bytes: int
    written_at_ns: int
    data_file: DataFile
    """What the manifest will say of it: partition, counts and bounds."""


class DataFileWriter:
    """Writes the data files of one table. Its checksum goes into the manifest; its pages carry a CRC32 each."""

    def __init__(self, record_type: RecordType, clock: Clock, *, row_group_rows: int) -> None:
        self._record_type = record_type
        self._schema = arrow_schema(record_type)
        self._clock = clock
        self._row_group_rows = row_group_rows
        self._dictionary, self._encodings = _encodings(record_type)

    def write(self, table: Table, rows: pa.Table | pl.DataFrame) -> tuple[WrittenFile, ...]:
        """Sort rows, split them by exchange and UTC day of `ts_event`, and write a file for each part."""
        frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(pl.from_arrow(rows))
        if frame.is_empty():
            return ()
        if not is_market_table(self._record_type):
            return (self._write_part(table, frame, Record(), "data"),)
        frame = frame.sort(SORT_COLUMNS)
        day = pl.col("ts_event").dt.date().alias(PARTITION_DAY)
        keys = frame.select(PARTITION_EXCHANGE, day).unique(maintain_order=True).rows()
        written = []
        for exchange, date in keys:
            part = frame if len(keys) == 1 else frame.filter(pl.col(PARTITION_EXCHANGE) == exchange, day == date)
            directory = f"data/{PARTITION_EXCHANGE}={quote(exchange, safe='')}/{PARTITION_DAY}={date.isoformat()}"
            written.append(self._write_part(table, part, Record(exchange, (date - _EPOCH).days), directory))
        return tuple(written)

    def write_again(self, table: Table, file: WrittenFile) -> WrittenFile:
        """Copy a file that waited too long for its commit: the orphan sweep may have marked the old one."""
        require_as_written(table.io, file.data_file)
        with translated("reading a data file that waited for its commit", path=file.path):
            source = table.io.new_input(file.path)
            with source.open() as stream:
                content = pq.ParquetFile(stream).read()
        directory = file.path.removeprefix(f"{table.location()}/").rpartition("/")[0]
        frame = pl.DataFrame(pl.from_arrow(content))
        return self._write_part(table, frame, file.data_file.partition, directory)

    def write_sorted(
        self, table: Table, frames: Iterable[pl.DataFrame], partition: Record, directory: str
    ) -> WrittenFile:
        """Write frames that come sorted and all belong to one partition; each frame becomes a row group."""
        path = f"{table.location()}/{directory}/{uuid.uuid4()}.parquet"
        rows = 0
        with translated("writing a data file", path=path):
            output = table.io.new_output(path)
            with output.create() as stream, self._parquet_writer(summed := ChecksumStream(stream)) as writer:
                for frame in frames:
                    content = frame.select(self._schema.names).to_arrow(compat_level=pl.CompatLevel.oldest())
                    writer.write_table(content.cast(self._schema), self._row_group_rows)
                    rows += content.num_rows
                    reached("mid_parquet")
            reached("file_closed")
            return self._described(table, path, rows, partition, summed.checksum)

    def _write_part(self, table: Table, frame: pl.DataFrame, partition: Record, directory: str) -> WrittenFile:
        parts = (frame.slice(start, self._row_group_rows) for start in range(0, frame.height, self._row_group_rows))
        return self.write_sorted(table, parts, partition, directory)

    def _parquet_writer(self, stream: object) -> pq.ParquetWriter:
        return pq.ParquetWriter(
            stream,
            self._schema,
            compression=_COMPRESSION,
            use_dictionary=self._dictionary,
            column_encoding=self._encodings,
            write_statistics=True,
            write_page_index=True,
            write_page_checksum=True,
            store_schema=False,
        )

    def _described(self, table: Table, path: str, rows: int, partition: Record, checksum: int) -> WrittenFile:
        """Read the footer back, as any reader would, and return what the manifest is to say of the file."""
        source = table.io.new_input(path)
        with source.open() as stream:
            footer = pq.read_metadata(stream)
        if footer.num_rows != rows:
            raise AccountingError(f"expected {rows} rows in {path}, found {footer.num_rows} in its footer")
        size_bytes = len(source)
        statistics = data_file_statistics_from_parquet_metadata(
            parquet_metadata=footer,
            stats_columns=compute_statistics_plan(table.schema(), table.properties),
            parquet_column_mapping=parquet_path_to_id_mapping(table.schema()),
        )
        described = statistics.to_serialized_dict()
        described["lower_bounds"] = with_checksum(described["lower_bounds"], checksum)
        data_file = DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=path,
            file_format=FileFormat.PARQUET,
            partition=partition,
            file_size_in_bytes=size_bytes,
            sort_order_id=table.metadata.default_sort_order_id,
            spec_id=table.metadata.default_spec_id,
            equality_ids=None,
            key_metadata=None,
            **described,
        )
        return WrittenFile(path, footer.num_rows, size_bytes, self._clock.time_ns(), data_file)


_EPOCH: Final = pl.Series([0], dtype=pl.Date).item()


def _encodings(record_type: RecordType) -> tuple[list[str], dict[str, str]]:
    """Return the columns with a dictionary, and the encoding of the others."""
    dictionary, encodings = [], {}
    for field in record_type.fields:
        if field.type in _DELTA_TYPES:
            encodings[field.name] = "DELTA_BINARY_PACKED"
        elif field.name in _UNIQUE_STRINGS:
            encodings[field.name] = _UNIQUE_STRINGS[field.name]
        elif field.type is FieldType.STRINGS:
            dictionary.append(f"{field.name}.list.element")
        else:
            dictionary.append(field.name)
    return dictionary, encodings
