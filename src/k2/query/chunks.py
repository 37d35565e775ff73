"""Rows of one partition's newest stretch, held in memory as contiguous chunks that find a symbol without a scan."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FAN_IN: Final = 8
"""Chunks of one level that are joined into one of the next, so that their number stays logarithmic."""
FULL: Final = 1_000
"""Level of a chunk that is never joined again."""
_NAMED_ROWS_MAX: Final = 1_000
_SCANNED_ROWS_MAX: Final = 64
"""Chunks up to this size are scanned: an index would cost more than it saves."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of the offsets [start, end). An indexed chunk is sorted by symbol, then offset; others by offset."""

    start: int
    end: int
    rows: pl.DataFrame
    undecodable: tuple[int, ...]
    """Offsets whose messages could not become rows."""
    level: int
    size_bytes: int
    index: Mapping[str, tuple[int, int]] | None = None
    """Of each symbol: its first row and its number of rows."""
    names: frozenset[str] | None = None
    """The symbols that occur in a small chunk; of most others a question then learns without a scan."""

    def of_symbol(self, symbol: str) -> pl.DataFrame:
        """Return the symbol's rows in offset order."""
        if self.names is not None and symbol not in self.names:
            return self.rows.clear()
        if self.index is None:
            return self.rows.filter(pl.col("symbol") == symbol)
        first, count = self.index.get(symbol, (0, 0))
        return self.rows.slice(first, count)

    def symbols(self) -> Sequence[str]:
        """Return the symbols that occur."""
        known = self.index if self.index is not None else self.names
        return list(known) if known is not None else self.rows["symbol"].unique().to_list()


@dataclass(frozen=True, slots=True)
class Slice:
    """What a view gave of [start, end), as far as it covers what was asked; the frames are in no order."""

    start: int
    end: int
    frames: tuple[pl.DataFrame, ...] = ()
    undecodable: int = 0


@dataclass(frozen=True, slots=True)
class View:
    """What was held of a partition at one moment: every record of [start, end). Never changes."""

    start: int
    end: int
    chunks: tuple[Chunk, ...] = ()

    def slice(self, symbol: str | None, start: int, end: int) -> Slice:
        """Return a symbol's rows (None: all rows) with offset in [start, end), as far as the view covers it."""
        low, high = max(start, self.start), min(end, self.end)
        if low >= high:
            return Slice(start, start)
        first = bisect_right(self.chunks, low, key=lambda chunk: chunk.end)
        last = bisect_left(self.chunks, high, key=lambda chunk: chunk.start)
        frames, undecodable = [], 0
        for chunk in self.chunks[first:last]:
            rows = chunk.rows if symbol is None else chunk.of_symbol(symbol)
            if rows.height and (chunk.start < low or chunk.end > high):
                rows = rows.filter((pl.col("log_offset") >= low) & (pl.col("log_offset") < high))
            undecodable += sum(low <= offset < high for offset in chunk.undecodable)
            if rows.height:
                frames.append(rows)
        return Slice(low, high, tuple(frames), undecodable)


class PartitionChunks:
    """The chunks of one partition. One thread changes them; any thread may read `view`, which is swapped whole."""

    def __init__(self, start: int, *, chunk_rows_max: int) -> None:
        self.view = View(start, start)
        self.size_bytes = 0
        self.rows = 0
        self._chunk_rows_max = chunk_rows_max

    def append(self, rows: pl.DataFrame, end: int, undecodable: tuple[int, ...] = ()) -> None:
        """Add the rows of [view.end, end), which are in offset order."""
        view = self.view
        if end < view.end:
            raise ValueError(f"expected a batch that ends at offset {view.end} or later, found {end}")
        if end == view.end:
            return
        chunks = list(view.chunks)
        if rows.height == 0 and not undecodable and chunks:
            chunks[-1] = replace(chunks[-1], end=end)
        else:
            chunks.append(self._chunk(rows, view.end, end, undecodable))
            self._join(chunks)
        self._swap(View(view.start, end, tuple(chunks)))

    def drop_below(self, offset: int) -> None:
        """Forget whole chunks that end at or below `offset`."""
        self._drop(bisect_right(self.view.chunks, offset, key=lambda chunk: chunk.end))

    def drop_oldest(self) -> None:
        """Forget the oldest chunk."""
        self._drop(1)

    def _drop(self, count: int) -> None:
        if count:
            chunks = self.view.chunks[count:]
            self._swap(View(chunks[0].start if chunks else self.view.end, self.view.end, chunks))

    def _swap(self, view: View) -> None:
        self.size_bytes = sum(chunk.size_bytes for chunk in view.chunks)
        self.rows = sum(chunk.rows.height for chunk in view.chunks)
        self.view = view

    def _chunk(self, rows: pl.DataFrame, start: int, end: int, undecodable: tuple[int, ...]) -> Chunk:
        if self._is_full(rows.height):
            return _indexed(rows, start, end, undecodable, FULL)
        return Chunk(start, end, rows, undecodable, 0, int(rows.estimated_size()), names=_names(rows))

    def _is_full(self, rows: int) -> bool:
        return rows * FAN_IN > self._chunk_rows_max

    def _join(self, chunks: list[Chunk]) -> None:
        while len(chunks) >= FAN_IN:
            newest = chunks[-FAN_IN:]
            level = newest[0].level
            if level == FULL or any(chunk.level != level for chunk in newest):
                return
            rows = pl.concat([chunk.rows for chunk in newest], how="vertical")
            undecodable = tuple(offset for chunk in newest for offset in chunk.undecodable)
            above = FULL if self._is_full(rows.height) else level + 1
            chunks[-FAN_IN:] = [_indexed(rows, newest[0].start, newest[-1].end, undecodable, above)]


def _indexed(rows: pl.DataFrame, start: int, end: int, undecodable: tuple[int, ...], level: int) -> Chunk:
    index = None
    if rows.height > _SCANNED_ROWS_MAX:
        rows = rows.sort("symbol", "log_offset")
        runs = rows["symbol"].rle().struct.unnest()
        counts = runs["len"].to_list()
        firsts = [0, *runs["len"].cum_sum().to_list()[:-1]]
        index = dict(zip(runs["value"].to_list(), zip(firsts, counts, strict=True), strict=True))
    else:
        rows = rows.sort("log_offset")
    names = _names(rows) if index is None else None
    return Chunk(start, end, rows.rechunk(), undecodable, level, int(rows.estimated_size()), index, names)


def _names(rows: pl.DataFrame) -> frozenset[str] | None:
    return frozenset(rows["symbol"].to_list()) if rows.height <= _NAMED_ROWS_MAX else None
