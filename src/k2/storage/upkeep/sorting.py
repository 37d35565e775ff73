"""Sorts more rows than memory holds: sorted pieces on disk, merged by blocks. Memory does not grow with the rows."""

from __future__ import annotations

import bisect
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import polars as pl
import pyarrow as pa

from k2.storage.failures import translated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path


class Rows(Protocol):
    """Rows that can be read once, in batches."""

    @property
    def rows(self) -> int:
        """Return how many there are."""
        ...

    @property
    def is_sorted(self) -> bool:
        """Say whether they come in the order wanted."""
        ...

    def batches(self, rows_max: int) -> Iterator[pl.DataFrame]:
        """Yield them, at most so many at a time."""
        ...


@dataclass(frozen=True, slots=True)
class SortLimits:
    """What sorting may hold: rows in memory, and pieces merged at a time (each has its share of those rows)."""

    rows_max: int
    pieces_max: int

    @property
    def batch_rows(self) -> int:
        """Return the rows of a piece that are held while it is merged."""
        return max(1, self.rows_max // self.pieces_max)


class ExternalSort:
    """Sorts by `order` with what does not fit in memory in files under `scratch`."""

    def __init__(self, order: Sequence[str], scratch: Path, limits: SortLimits) -> None:
        self._order = list(order)
        self._scratch = scratch
        self._limits = limits

    def sorted(self, sources: Iterable[Rows]) -> Iterator[pl.DataFrame]:
        """Yield all rows of the sources in order, in frames of no particular size."""
        pieces = list(self._pieces(sources))
        while len(pieces) > self._limits.pieces_max:
            head, rest = pieces[: self._limits.pieces_max], pieces[self._limits.pieces_max :]
            pieces = [*rest, self._spilled(self._merged(head), sum(piece.rows for piece in head))]
        yield from self._merged(pieces)

    def _pieces(self, sources: Iterable[Rows]) -> Iterator[Rows]:
        """Gather small sources into sorted pieces; leave large sorted ones where they are."""
        gathered: list[pl.DataFrame] = []
        held = 0
        spilled = False
        for source in sources:
            if source.is_sorted and source.rows >= self._limits.rows_max:
                spilled = True
                yield source
                continue
            for batch in source.batches(self._limits.rows_max):
                gathered.append(batch)
                held += batch.height
                if held >= self._limits.rows_max:
                    spilled = True
                    yield self._spilled(iter([self._sort(gathered)]), held)
                    gathered, held = [], 0
        if gathered:
            last = self._sort(gathered)
            yield self._spilled(iter([last]), held) if spilled else _InMemory(last)

    def _sort(self, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
        return pl.concat(frames).sort(self._order)

    def _spilled(self, frames: Iterator[pl.DataFrame], rows: int) -> Rows:
        path = self._scratch / f"{uuid.uuid4()}.arrow"
        first = next(frames).to_arrow(compat_level=pl.CompatLevel.oldest())
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with (
            translated("keeping sorted rows on disk", path=str(path)),
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_stream(file, first.schema, options=options) as writer,
        ):
            writer.write_table(first, self._limits.batch_rows)
            for frame in frames:
                writer.write_table(frame.to_arrow(compat_level=pl.CompatLevel.oldest()), self._limits.batch_rows)
        return _OnDisk(path, rows)

    def _merged(self, pieces: Sequence[Rows]) -> Iterator[pl.DataFrame]:
        """Merge by blocks: what is not above the least last key in hand cannot be preceded by anything still unread."""
        cursors = [_Cursor(piece.batches(self._limits.batch_rows), self._order) for piece in pieces]
        while True:
            cursors = [cursor for cursor in cursors if cursor.fill()]
            if len(cursors) == 1:
                yield cursors[0].rest()
                continue
            if not cursors:
                return
            bound = min(cursor.last_key for cursor in cursors)
            yield self._sort([cursor.take(bound) for cursor in cursors])


class _Cursor:
    """One piece while it is merged: the batch in hand, and what of it is left."""

    def __init__(self, batches: Iterator[pl.DataFrame], order: Sequence[str]) -> None:
        self._batches = batches
        self._order = order
        self._left = pl.DataFrame()
        self._keys = pl.DataFrame()

    def fill(self) -> bool:
        """Have rows in hand; False at the end."""
        while not self._left.height:
            batch = next(self._batches, None)
            if batch is None:
                return False
            self._left, self._keys = batch, batch.select(self._order)
        return True

    @property
    def last_key(self) -> tuple[str | int, ...]:
        """Return the key of the last row in hand."""
        return self._keys.row(-1)

    def take(self, bound: tuple[str | int, ...]) -> pl.DataFrame:
        """Take the rows in hand whose keys are not above the bound."""
        count = bisect.bisect_right(range(self._keys.height), bound, key=self._keys.row)
        taken = self._left.head(count)
        self._left, self._keys = self._left.slice(count), self._keys.slice(count)
        return taken

    def rest(self) -> pl.DataFrame:
        """Take all rows in hand."""
        taken, self._left = self._left, self._left.clear()
        return taken


@dataclass(frozen=True, slots=True)
class _InMemory:
    frame: pl.DataFrame
    is_sorted: bool = True

    @property
    def rows(self) -> int:
        return self.frame.height

    def batches(self, rows_max: int) -> Iterator[pl.DataFrame]:
        del rows_max  # it is in memory as it is
        yield self.frame


@dataclass(frozen=True, slots=True)
class _OnDisk:
    path: Path
    rows: int
    is_sorted: bool = True

    def batches(self, rows_max: int) -> Iterator[pl.DataFrame]:
        """Yield the rows as they were written, then delete the file."""
        del rows_max  # they were written in batches of this size
        with (
            translated("reading sorted rows from disk", path=str(self.path)),
            pa.OSFile(str(self.path), "rb") as file,
            pa.ipc.open_stream(file) as stream,
        ):
            for batch in stream:
                yield pl.DataFrame(pl.from_arrow(batch))
        self.path.unlink()
