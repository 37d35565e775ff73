"""Reads what neither the table nor the tail holds from the log: one symbol, by key before decoding, within limits."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from k2.common.errors import UnavailableError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from k2.common.clock import Clock
    from k2.kafka.batches import LogBatch
    from k2.kafka.ports import AssignedReader, TopicPartition
    from k2.query.ports import Decodes, OpenReader
    from k2.query.settings import QuerySettings


@dataclass(frozen=True, slots=True)
class MissingRange:
    """Offsets [start, end) of one partition that an answer needs; `by_key`: each record's key is its symbol."""

    topic: str
    partition: int
    log_id: int
    start: int
    end: int
    by_key: bool = True
    is_deferred: Callable[[bytes | None], bool] | None = None
    """Of a deferred range: says of a key whether its records were put off. The others are in the table."""


@dataclass(slots=True)
class _Progress:
    """What one read has used up, and what it has found."""

    frames: list[pl.DataFrame]
    undecodable: int = 0
    records: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """The rows of all the ranges."""

    frames: tuple[pl.DataFrame, ...]
    undecodable: int


class OnDemandReader:
    """Reads ranges of the log; each read has a connection of its own."""

    def __init__(
        self, open_reader: OpenReader, *, decoding: threading.Lock, settings: QuerySettings, clock: Clock
    ) -> None:
        self._open_reader = open_reader
        self._settings = settings
        self._clock = clock
        self._decoding = decoding

    def read(self, ranges: Sequence[MissingRange], symbol: str, decoder: Decodes) -> Found:
        """Return the symbol's rows of all `ranges`.

        Raises:
            UnavailableError: the log cannot be read, or not within the limits; the text says how far it came.
        """
        progress = _Progress([])
        if not ranges:
            return Found((), 0)
        deadline = self._clock.monotonic() + self._settings.on_demand_seconds_max
        reader = self._open_reader()
        try:
            waiting = _by_partition(ranges)
            reader.assign({key: queue[0].start for key, queue in waiting.items()})
            while waiting:
                self._check(progress, ranges, deadline)
                for batch in reader.poll(self._settings.tail_poll_records_max, self._settings.tail_poll_seconds):
                    key = (batch.topic, batch.partition)
                    if key in waiting:
                        self._take(batch, waiting[key][0], symbol, decoder, progress)
                        _advance(reader, waiting, batch)
        finally:
            reader.close()
        return Found(tuple(progress.frames), progress.undecodable)

    def _take(self, batch: LogBatch, item: MissingRange, symbol: str, decoder: Decodes, progress: _Progress) -> None:
        key = symbol.encode()
        candidates = zip(batch.keys, batch.offsets, strict=True)
        wanted = batch.where(
            [
                offset < item.end
                and (found == key or not item.by_key)
                and (item.is_deferred is None or item.is_deferred(found))
                for found, offset in candidates
            ]
        )
        progress.records += len(batch)
        if len(wanted) == 0:
            return
        with self._decoding:  # one decoder serves all questions, and the tail
            decoded = decoder.decode(wanted, log_id=item.log_id)
        progress.undecodable += len(decoded.bad)
        rows = decoded.rows.filter(pl.col("symbol") == symbol)
        progress.frames.append(rows)
        progress.size_bytes += int(rows.estimated_size())

    def _check(self, progress: _Progress, ranges: Sequence[MissingRange], deadline: float) -> None:
        settings = self._settings
        if self._clock.monotonic() >= deadline:
            reached = f"K2_QUERY__ON_DEMAND_SECONDS_MAX ({settings.on_demand_seconds_max:g} s)"
        elif progress.records > settings.on_demand_records_max:
            reached = f"K2_QUERY__ON_DEMAND_RECORDS_MAX ({settings.on_demand_records_max})"
        elif progress.size_bytes > settings.on_demand_bytes_max:
            reached = f"K2_QUERY__ON_DEMAND_BYTES_MAX ({settings.on_demand_bytes_max})"
        else:
            return
        offsets = sum(item.end - item.start for item in ranges)
        raise UnavailableError(
            f"{offsets} offsets that are neither in the table nor in the tail must be read from the log; "
            f"{progress.records} records were read when the limit {reached} was met: wait for the ingest worker to "
            "catch up (`k2 status`), raise the limit, or accept a partial answer",
            dependency="kafka",
            retry_after_seconds=5,
        )


def _by_partition(ranges: Sequence[MissingRange]) -> dict[TopicPartition, deque[MissingRange]]:
    waiting: dict[TopicPartition, deque[MissingRange]] = {}
    for item in sorted(ranges, key=lambda item: item.start):
        waiting.setdefault((item.topic, item.partition), deque()).append(item)
    return waiting


def _advance(reader: AssignedReader, waiting: dict[TopicPartition, deque[MissingRange]], batch: LogBatch) -> None:
    """Go on to the partition's next range where this batch has reached the end of one; forget it after the last."""
    key = (batch.topic, batch.partition)
    queue = waiting[key]
    if batch.next_offset < queue[0].end:
        return
    queue.popleft()
    if queue:
        reader.seek(*key, queue[0].start)
    else:
        del waiting[key]
        reader.unassign([key])
