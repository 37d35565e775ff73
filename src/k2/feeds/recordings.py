"""Reads recordings to replay: ASX tick files merged by time, and Parquet or Arrow that `k2` wrote, in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from k2.common.errors import ConfigurationError
from k2.feeds.asx import check_file, rows_after, tick_files
from k2.schemas.arrow import message_rows
from k2.schemas.records import RECORD_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from k2.feeds.asx import TickFile
    from k2.feeds.settings import FeedSettings

TIME: Final = "k2.time_ns"
"""The time at which a record of a file is due: its event's, or that of a record before it which is later."""
_PARQUET: Final = b"PAR1"
_ARROW_FILE: Final = b"ARROW1"


def read_recording(path: Path, data_type: str, settings: FeedSettings) -> Iterator[pl.DataFrame]:
    """Yield the records of one data type that a file or directory holds, columns of the message.

    Raises:
        ConfigurationError: it is no recording, lacks a column, or holds none of that data type.
    """
    if not path.exists():
        raise ConfigurationError(f"expected a file or directory of records, found none at {path}")
    if path.is_dir() or path.suffix.lower() == ".csv":
        files = [file for file in _asx_files(path) if file.data_type == data_type]
        if not files:
            raise ConfigurationError(f"expected files of {data_type} in {path}, found none: is --to the right topic?")
        return merged([_ticks(file, settings) for file in files])
    return (_message(batch, data_type, path) for batch in _batches(path, settings.replay_records_max))


def merged(sources: Iterable[Iterator[pl.DataFrame]]) -> Iterator[pl.DataFrame]:
    """Yield the frames of several sources as one, by TIME; each source keeps its own order."""
    waiting = [(source, frame) for source in sources if (frame := next(source, None)) is not None]
    while waiting:
        horizon = min(frame[TIME][-1] for _, frame in waiting)
        ready = [frame.filter(pl.col(TIME) <= horizon) for _, frame in waiting]
        yield pl.concat(ready).sort(TIME, maintain_order=True).drop(TIME)
        left = [(source, frame.filter(pl.col(TIME) > horizon)) for source, frame in waiting]
        refilled = [(source, frame if frame.height else next(source, None)) for source, frame in left]
        waiting = [(source, frame) for source, frame in refilled if frame is not None]


def _asx_files(path: Path) -> list[TickFile]:
    if path.is_dir():
        return tick_files(path)
    return [file for file in tick_files(path.absolute().parent.parent) if file.path.name == path.name]


def _ticks(file: TickFile, settings: FeedSettings) -> Iterator[pl.DataFrame]:
    latest = -(2**63)
    for read in rows_after(check_file(file, settings), 0, settings):
        if read.rows.height:
            rows = read.rows.with_columns(pl.col("ts_event_ns").cum_max().clip(lower_bound=latest).alias(TIME))
            latest = rows[TIME][-1]
            yield rows


def _batches(path: Path, records_max: int) -> Iterator[pa.RecordBatch]:
    try:
        with path.open("rb") as stream:
            begin = stream.read(len(_ARROW_FILE))
            stream.seek(0)
            if begin.startswith(_PARQUET):
                yield from pq.ParquetFile(stream).iter_batches(records_max)
                return
            batches = pa.ipc.open_file(stream) if begin == _ARROW_FILE else pa.ipc.open_stream(stream)
            count = getattr(batches, "num_record_batches", None)
            for batch in batches if count is None else map(batches.get_batch, range(count)):
                for start in range(0, batch.num_rows, records_max):
                    yield batch.slice(start, records_max)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror or error}") from error
    except pa.ArrowInvalid as error:
        raise ConfigurationError(
            f"expected ASX tick files (a directory or a .csv in it), Parquet or Arrow in {path}, found none: {error}"
        ) from error


def _message(batch: pa.RecordBatch, data_type: str, path: Path) -> pl.DataFrame:
    rows = pl.from_arrow(batch)
    assert isinstance(rows, pl.DataFrame)
    return as_messages(rows, data_type, str(path))


def as_messages(rows: pl.DataFrame, data_type: str, name: str) -> pl.DataFrame:
    """Return stored rows as the messages that they were; ConfigurationError where a column is missing or no such."""
    record_type = RECORD_TYPES[data_type]
    fields = record_type.message_fields
    required = [field.name for field in fields if not field.nullable and field.name not in rows.columns]
    if required:
        raise ConfigurationError(
            f"expected the columns of {data_type} in {name}, found none called {', '.join(required)}: "
            "export whole rows, as `k2 trades ... --format parquet` does"
        )
    try:
        return message_rows(rows, record_type)
    except pl.exceptions.PolarsError as error:
        raise ConfigurationError(f"expected the columns of {data_type} in {name}, found others: {error}") from error
