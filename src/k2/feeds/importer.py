"""Brings tick files into the log, each record once: resumes after what the platform holds, adds nothing twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from k2.feeds.asx import TickFile, read_ticks
from k2.feeds.channel import Channel, ends_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from k2.feeds.held import HeldSource

CHUNK_ROWS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one file: of `records` lines, `held` were there before and `sent` were added."""

    file: TickFile
    records: int
    held: int
    sent: int


def import_files(
    files: Iterable[TickFile], *, channel: Channel, held: HeldSource, on_progress: Callable[[TickFile, int, int], None]
) -> list[Imported]:
    """Import each file; `on_progress(file, done, records)` is told after each chunk.

    Every file is read and checked before the first record is sent. A file's end marker follows its records.
    """
    rows_of = [(file, read_ticks(file)) for file in files]
    return [_import(file, rows, channel, held, on_progress) for file, rows in rows_of]


def _import(
    file: TickFile,
    rows: pl.DataFrame,
    channel: Channel,
    held: HeldSource,
    on_progress: Callable[[TickFile, int, int], None],
) -> Imported:
    highest = held.highest(channel.topic(file.data_type), symbol=file.symbol, source=rows["source"][0])
    missing = rows.filter(pl.col("source_sequence") > highest)
    done = len(rows) - len(missing)
    on_progress(file, done, len(rows))
    for chunk in missing.iter_slices(CHUNK_ROWS):
        channel.send(file.data_type, chunk)
        done += len(chunk)
        on_progress(file, done, len(rows))
    channel.flush()
    if not missing.is_empty():
        channel.mark_end(file.data_type, ends_of(rows))
    return Imported(file, len(rows), len(rows) - len(missing), len(missing))
