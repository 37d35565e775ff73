"""Which sequences of each numbered stream were seen: exact sets of intervals; a stream in order has one interval."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

STREAM: Final = ("exchange", "channel", "trading_date", "symbol")
"""Whose numbers run by themselves; a venue that numbers per channel has one number for one symbol only."""
_EMPTY: Final[Numbers] = np.empty(0, dtype=np.int64)
_BYTES_AN_INTERVAL: Final = 16


@dataclass(slots=True)
class Intervals:
    """A set of whole numbers as disjoint intervals [start, end], in order."""

    starts: Numbers = field(default_factory=lambda: _EMPTY)
    ends: Numbers = field(default_factory=lambda: _EMPTY)
    newest: datetime | None = None
    """Log time of the newest number."""

    def holds(self, numbers: Numbers) -> NDArray[np.bool_]:
        """Say of each number whether it is in the set."""
        if not len(self.starts):
            return np.zeros(len(numbers), dtype=np.bool_)
        place = np.searchsorted(self.starts, numbers, side="right") - 1
        return (place >= 0) & (numbers <= self.ends[np.maximum(place, 0)])

    def add(self, numbers: Numbers, *, intervals_max: int) -> None:
        """Add numbers; past `intervals_max` the older half becomes one interval, which holds more than was seen."""
        numbers = np.unique(numbers)
        breaks = np.flatnonzero(np.diff(numbers) != 1)
        self.add_runs(
            numbers[np.concatenate(([0], breaks + 1))],
            numbers[np.concatenate((breaks, [len(numbers) - 1]))],
            intervals_max=intervals_max,
        )

    def add_runs(self, starts: Numbers, ends: Numbers, *, intervals_max: int) -> None:
        """Add intervals, which are in order and apart; of more than `intervals_max` the older half becomes one."""
        if len(self.starts):
            starts, ends = _merged(np.concatenate((self.starts, starts)), np.concatenate((self.ends, ends)))
        if len(starts) > intervals_max:
            half = len(starts) // 2
            starts, ends = (
                np.concatenate((starts[:1], starts[half:])),
                np.concatenate((ends[half - 1 : half], ends[half:])),
            )
        self.starts, self.ends = starts, ends


class Numbered:
    """Rows of one partition that have a sequence, summed up by stream once for all that asks."""

    def __init__(self, rows: pl.DataFrame) -> None:
        step = pl.col("sequence").diff()
        self.rows = rows
        self.spans = rows.group_by(STREAM, maintain_order=True).agg(
            low=pl.col("sequence").min(),
            high=pl.col("sequence").max(),
            newest=pl.col("ts_log").max(),
            is_run=((step.min() >= 0) & (step.max() <= 1)).fill_null(value=True),
            climbs=(step.min() > 0).fill_null(value=True),
        )

    @property
    def repeats(self) -> bool:
        """Whether a stream may hold a number twice: not where each is higher than the one before."""
        return not self.spans["climbs"].all()


class SeenSequences:
    """The intervals of all streams of one partition."""

    def __init__(self, *, intervals_max: int) -> None:
        self._intervals_max = intervals_max
        self._streams: dict[tuple[object, ...], Intervals] = {}

    @property
    def size_bytes(self) -> int:
        """Memory of the intervals."""
        return sum(len(stream.starts) * _BYTES_AN_INTERVAL for stream in self._streams.values())

    @property
    def streams(self) -> int:
        """How many streams are remembered."""
        return len(self._streams)

    def suspects(self, numbered: Numbered) -> NDArray[np.bool_]:
        """Say of each row whether its stream has had its sequence."""
        found = np.zeros(numbered.rows.height, dtype=np.bool_)
        if not self._streams:
            return found
        spans = numbered.spans
        late = [low <= self._highest(tuple(stream)) for *stream, low in spans.select(*STREAM, "low").rows()]
        for stream, sequences, at in _by_stream(numbered.rows, spans.filter(pl.Series(late, dtype=pl.Boolean))):
            found[at] = self._streams[stream].holds(sequences)
        return found

    def add(self, numbered: Numbered) -> None:
        """Add the sequences of rows."""
        told = numbered.spans.select(*STREAM, "low", "high", "newest", "is_run")
        for *stream, low, high, newest, _ in told.filter("is_run").rows():
            known = self._stream(tuple(stream), newest)
            known.add_runs(np.array([low]), np.array([high]), intervals_max=self._intervals_max)
        broken = told.filter(~pl.col("is_run"))
        for *stream, _, _, newest, _ in broken.rows():
            self._stream(tuple(stream), newest)
        for stream_name, sequences, _ in _by_stream(numbered.rows, broken):
            self._streams[stream_name].add(sequences, intervals_max=self._intervals_max)

    def _highest(self, name: tuple[object, ...]) -> float:
        known = self._streams.get(name)
        return int(known.ends[-1]) if known is not None and len(known.ends) else -math.inf

    def _stream(self, name: tuple[object, ...], newest: datetime) -> Intervals:
        known = self._streams.setdefault(name, Intervals())
        known.newest = newest if known.newest is None else max(known.newest, newest)
        return known

    def forget(self, before: datetime) -> None:
        """Forget the streams whose newest number was logged before a time."""
        old = [name for name, stream in self._streams.items() if stream.newest is None or stream.newest < before]
        for name in old:
            del self._streams[name]


def _by_stream(rows: pl.DataFrame, streams: pl.DataFrame) -> Iterator[tuple[tuple[object, ...], Numbers, Numbers]]:
    """Give of each of `streams` its name, its sequences, and the places of its rows."""
    if streams.is_empty():
        return
    grouped = (
        rows.select(*STREAM, "sequence")
        .with_row_index("place")
        .join(streams.select(STREAM), on=STREAM, how="semi", nulls_equal=True)
        .group_by(STREAM, maintain_order=True)
        .agg("sequence", "place")
    )
    for *name, sequences, places in grouped.rows():
        yield tuple(name), np.array(sequences, dtype=np.int64), np.array(places, dtype=np.int64)


def _merged(starts: Numbers, ends: Numbers) -> tuple[Numbers, Numbers]:
    """Merge intervals that touch or overlap."""
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    apart = np.flatnonzero(starts[1:] > ends[:-1] + 1)
    return starts[np.concatenate(([0], apart + 1))], ends[np.concatenate((apart, [len(ends) - 1]))]
