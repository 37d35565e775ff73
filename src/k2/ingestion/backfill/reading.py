"""Reads a deferred range of one partition from the log, part by part, and keeps the records that were deferred."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Final

from k2.kafka.batches import LogBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from k2.ingestion.backfill.settings import BackfillSettings
    from k2.kafka.ports import AssignedReader, TopicPartition

    Keeps = Callable[[LogBatch], Sequence[bool]]
    """Says of each message whether it was deferred."""

_PEEK_SECONDS: Final = 0.5
_POLL_SECONDS_MIN: Final = 0.01


@dataclass(frozen=True, slots=True)
class RangePart:
    """The deferred records of [start, end), of a range that may go on."""

    start: int
    end: int
    batch: LogBatch


class RangeReader:
    """Reads one range after the other; what it holds is bounded in records and bytes."""

    def __init__(self, open_reader: Callable[[], AssignedReader], settings: BackfillSettings) -> None:
        self._open_reader = open_reader
        self._settings = settings
        self._reader: AssignedReader | None = None
        self._key: TopicPartition | None = None
        self._start = 0
        self._position = 0
        self._kept: list[LogBatch] = []
        self._records = 0
        self._bytes = 0

    def place(self, key: TopicPartition, start: int) -> None:
        """Read this partition from `start` on, unless that is what is being read already."""
        if self._key == key and self._start == start:
            return
        if self._key is not None and self._key != key:
            self._use_reader.unassign([self._key])
        self._forget(start)
        self._key = key
        position = self._use_reader.positions().get(key)
        if position is None:
            self._use_reader.assign({key: start})
        elif position != start:
            self._use_reader.seek(*key, start)

    def logged_ms(self, key: TopicPartition, start: int) -> int | None:
        """Return the log time of the first record from `start` on; None if it does not come at once.

        Where that range is being read, it is begun anew.
        """
        self.place(key, start)
        if self._position > self._start:
            self._key = None
            self.place(key, start)
        deadline_polls = max(1, round(_PEEK_SECONDS / max(self._settings.poll_seconds, _POLL_SECONDS_MIN)))
        found: int | None = None
        for _ in range(deadline_polls):
            batches = self._use_reader.poll(1, self._settings.poll_seconds)
            times = [batch.ts_log_ms[0] for batch in batches if (batch.topic, batch.partition) == key and len(batch)]
            if times:
                found = times[0]
                break
        self._use_reader.unassign([key])
        self._key = None
        return found

    def step(self, end: int, keeps: Keeps, *, seconds: float | None = None) -> bool:
        """Poll once; return whether a part of the range up to `end` can be taken.

        Raises:
            UnavailableError: the log does not answer; what was read is kept.
            LogIdentityError: the log no longer has what is to be read.
        """
        settings = self._settings
        if not self._is_ready(end):
            self._go_on_at_position()
            wait = settings.poll_seconds if seconds is None else seconds
            for batch in self._use_reader.poll(settings.poll_messages_max, wait):
                if (batch.topic, batch.partition) == self._key:
                    self._add(batch, end, keeps)
        return self._is_ready(end)

    def part(self) -> RangePart:
        """Return what was read; it stays until `taken`, or until another place is read."""
        assert self._key is not None
        topic, partition = self._key
        batch = _joined(self._kept) or LogBatch(topic, partition, [], [], [], [], self._position)
        return RangePart(self._start, self._position, replace(batch, next_offset=self._position))

    def taken(self) -> None:
        """Forget what was read: it is in the table."""
        self._forget(self._position)

    def close(self) -> None:
        """Give up the connection, and what was read."""
        reader, self._reader = self._reader, None
        self._key = None
        self._forget(0)
        if reader is not None:
            reader.close()

    @property
    def _use_reader(self) -> AssignedReader:
        if self._reader is None:
            self._reader = self._open_reader()
        return self._reader

    def _go_on_at_position(self) -> None:
        """Go back where a poll went beyond the end that the range had then: it may have grown since."""
        assert self._key is not None
        reader = self._use_reader
        if reader.positions().get(self._key) != self._position:
            reader.seek(*self._key, self._position)

    def _is_ready(self, end: int) -> bool:
        settings = self._settings
        return (
            self._position >= end or self._records >= settings.records_max or self._bytes >= settings.bytes_max
        ) and self._position > self._start

    def _add(self, batch: LogBatch, end: int, keeps: Keeps) -> None:
        if batch.next_offset <= self._position:
            return
        kept = batch.where(
            [kept and self._position <= offset < end for kept, offset in zip(keeps(batch), batch.offsets, strict=True)]
        )
        self._position = min(batch.next_offset, end)
        if len(kept):
            self._kept.append(kept)
            self._records += len(kept)
            self._bytes += kept.nbytes

    def _forget(self, start: int) -> None:
        self._start = self._position = start
        self._kept, self._records, self._bytes = [], 0, 0


def _joined(batches: Sequence[LogBatch]) -> LogBatch | None:
    if not batches:
        return None
    return replace(
        batches[-1],
        offsets=list(chain.from_iterable(batch.offsets for batch in batches)),
        ts_log_ms=list(chain.from_iterable(batch.ts_log_ms for batch in batches)),
        keys=list(chain.from_iterable(batch.keys for batch in batches)),
        values=list(chain.from_iterable(batch.values for batch in batches)),
        headers=None,
    )
