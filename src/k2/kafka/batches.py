"""Consumed messages of one topic partition, column by column."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True)
class LogBatch:
    """Messages of ONE topic partition, offsets strictly ascending; the lists have one entry a message.

    `next_offset` is the reader's position after the batch. It may lie beyond the last offset + 1 where the log
    holds control records or aborted messages; a batch may hold no message and only move the position.
    """

    topic: str
    partition: int
    offsets: list[int]
    ts_log_ms: list[int]
    keys: list[bytes | None] = field(repr=False)
    values: list[bytes | None] = field(repr=False)
    next_offset: int
    leader_epoch: int = -1
    headers: list[dict[str, bytes]] | None = field(default=None, repr=False)
    """Only where the reader was asked for them."""

    def __len__(self) -> int:
        return len(self.offsets)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the values (keys are small and repeat)."""
        return sum(map(len, filter(None, self.values)))

    def between(self, start: int, stop: int) -> LogBatch:
        """Return the messages at the positions [start, stop) of this batch, like a slice.

        The last part keeps `next_offset`; an earlier one ends where the next part begins.
        """
        size = len(self)
        start, stop = min(max(start, 0), size), min(max(stop, 0), size)
        next_offset = self.next_offset if stop >= size else self.offsets[stop]
        return LogBatch(
            self.topic,
            self.partition,
            self.offsets[start:stop],
            self.ts_log_ms[start:stop],
            self.keys[start:stop],
            self.values[start:stop],
            next_offset,
            self.leader_epoch,
            None if self.headers is None else self.headers[start:stop],
        )

    def where(self, keep: Sequence[bool]) -> LogBatch:
        """Return the messages whose flag in `keep` is true; the position stays."""
        return LogBatch(
            self.topic,
            self.partition,
            list(compress(self.offsets, keep)),
            list(compress(self.ts_log_ms, keep)),
            list(compress(self.keys, keep)),
            list(compress(self.values, keep)),
            self.next_offset,
            self.leader_epoch,
            None if self.headers is None else list(compress(self.headers, keep)),
        )

    def chunks(self, messages_max: int) -> Iterator[LogBatch]:
        """Cut the batch into batches of at most `messages_max` messages, in order; an empty one stays one."""
        for start in range(0, max(len(self), 1), messages_max):
            yield self.between(start, start + messages_max)


def joined(batches: Sequence[LogBatch]) -> LogBatch:
    """Return the messages of one topic's batches, in their order, as if they were of the first one's partition.

    Its offsets rise only within each batch: it is there to be decoded, not to be read from.
    """
    if len(batches) == 1:
        return batches[0]
    return replace(
        batches[0],
        offsets=[offset for batch in batches for offset in batch.offsets],
        ts_log_ms=[time for batch in batches for time in batch.ts_log_ms],
        keys=[key for batch in batches for key in batch.keys],
        values=[value for batch in batches for value in batch.values],
        headers=None,
    )
