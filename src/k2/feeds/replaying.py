"""Plays a recording into the log again: at a multiple of its own pace, or as fast as the log takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from k2.feeds.simulation import Pacer

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable, Iterator

    from k2.common.clock import Clock
    from k2.feeds.simulation import Outlet

_SLOT_NS: Final = 50_000_000
"""Records due within the same stretch of real time are sent together."""
_END: Final = {"last_sequence": "sequence", "last_source_sequence": "source_sequence"}


@dataclass
class Replayed:
    """What a replay has come to: records of the recording, and the seconds that it took and by which it slipped."""

    records: int = 0
    seconds: float = 0.0
    slipped_seconds: float = 0.0
    event_ns: int = 0
    """The time of the newest event played."""


class Replay:
    """One recording of one data type on its way into a topic."""

    def __init__(
        self,
        data_type: str,
        exchange: str,
        *,
        outlet: Outlet,
        clock: Clock,
        speed: float | None,
        catch_up_seconds_max: float,
        source: str | None = None,
    ) -> None:
        """Begin; `speed` is a multiple of the recorded pace, None as fast as can be.

        Records become the exchange's. With a `source` they are a feed of that name, counted in the order played;
        else each keeps the source that it had.
        """
        self._data_type = data_type
        self._exchange = exchange
        self._outlet = outlet
        self._clock = clock
        self._speed = speed
        self._catch_up_seconds_max = catch_up_seconds_max
        self._source = source
        self._pacer: Pacer | None = None
        self._began_ns = self._latest_ns = 0
        self._counted = 0
        self._dates: dict[tuple[str, str], dt.date] = {}
        self._ends: dict[tuple[str, str], list[int | None]] = {}

    def play(
        self,
        frames: Iterable[pl.DataFrame],
        *,
        is_stopped: Callable[[], bool],
        on_progress: Callable[[Replayed], None],
    ) -> Replayed:
        """Send the frames, flush, and mark the end of each source and symbol; a stopped replay ends where it is.

        Raises:
            UnavailableError: the log did not take a record; what was sent before is in it, and no end is marked.
        """
        replayed, began = Replayed(), self._clock.monotonic()
        for due_ns, rows in (part for frame in frames for part in self._slots(frame)):
            if self._pacer is not None:
                self._pacer.wait_for(due_ns, is_stopped=is_stopped)
                replayed.slipped_seconds = self._pacer.slipped_seconds
            if is_stopped():
                break
            self._send(rows)
            replayed.records += len(rows)
            replayed.event_ns = self._latest_ns
            replayed.seconds = self._clock.monotonic() - began
            on_progress(replayed)
        self._outlet.flush()
        self._outlet.mark_end(self._data_type, self._end_rows())
        replayed.seconds = self._clock.monotonic() - began
        return replayed

    def _slots(self, frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
        """Yield the records that are due together, with the time, and never one before another that it followed."""
        if frame.is_empty():
            return
        if self._speed is None:
            self._latest_ns = int(frame["ts_event_ns"].to_numpy().max())
            yield 0, frame
            return
        if self._pacer is None:
            self._began_ns = self._latest_ns = frame["ts_event_ns"][0]
            self._pacer = Pacer(self._clock, start_ns=self._began_ns, catch_up_seconds_max=self._catch_up_seconds_max)
        time_ns = frame["ts_event_ns"].cum_max().clip(lower_bound=self._latest_ns)
        slots = ((time_ns - self._began_ns) / self._speed / _SLOT_NS).cast(pl.Int64).alias("slot")
        start = 0
        for count, slot in slots.rle().struct.unnest().rows():
            self._latest_ns = time_ns[start + count - 1]
            yield self._began_ns + slot * _SLOT_NS, frame[start : start + count]
            start += count

    def _send(self, rows: pl.DataFrame) -> None:
        rows = rows.with_columns(exchange=pl.lit(self._exchange))
        if self._source is not None:
            first = self._counted + 1
            self._counted += len(rows)
            counted = pl.int_range(first, self._counted + 1, dtype=pl.Int64)
            rows = rows.with_columns(source=pl.lit(self._source), source_sequence=counted)
        self._outlet.send(self._data_type, rows)
        self._note_ends(rows)

    def _note_ends(self, rows: pl.DataFrame) -> None:
        found = rows.group_by("source", "symbol", "trading_date").agg(
            *(pl.col(column).max() for column in _END.values()), pl.len()
        )
        for source, symbol, date, *reached, records in found.sort("trading_date").iter_rows():
            known = self._ends.setdefault((source, symbol), [None, None, 0])
            newest = self._dates.setdefault((source, symbol), date)
            if date > newest:  # a session has numbers of its own
                self._dates[source, symbol], known[0] = date, None
            elif date < newest:
                reached[0] = None
            for place, value in enumerate(reached):
                before = known[place]
                known[place] = value if before is None or (value is not None and value > before) else before
            known[2] = (known[2] or 0) + records

    def _end_rows(self) -> pl.DataFrame:
        return pl.DataFrame(
            [(*key, *reached) for key, reached in sorted(self._ends.items())],
            schema={"source": pl.String, "symbol": pl.String, **dict.fromkeys((*_END, "records"), pl.Int64)},
            orient="row",
        )
