"""What passes between the thread that consumes and the thread that writes: chunks one way, wishes both ways."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from concurrent.futures import Future

    from k2.kafka.batches import LogBatch
    from k2.storage.seam import LogPartition


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consumed records of one partition that cover the offsets [start, end).

    `epoch` tells one positioning of the partition from the next: chunks of an older one are worthless.
    """

    table: str
    log: LogPartition
    epoch: int
    start: int
    end: int
    batch: LogBatch
    arrived: float


@dataclass(frozen=True, slots=True)
class Flush:
    """To the writer: commit what is there until `deadline` (monotonic seconds), then set `done`."""

    tables: frozenset[str]
    deadline: float
    done: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Reposition:
    """To the consumer: read the head of the table, check its topics and seek to its seam."""

    table: str


@dataclass(frozen=True, slots=True)
class Committed:
    """To the consumer: the table's seam has moved to these offsets."""

    table: str
    next_offsets: Mapping[LogPartition, int]


@dataclass(frozen=True, slots=True)
class Abandon:
    """To the consumer: this table is no longer written; stop reading its topics."""

    table: str


Wish = Reposition | Committed | Abandon


class Handover:
    """The only object that both threads touch; each method is atomic."""

    def __init__(self, tables: Iterable[str]) -> None:
        self._changed = threading.Condition()
        self._chunks: dict[str, deque[Chunk]] = {table: deque() for table in tables}
        self._bytes: dict[str, int] = dict.fromkeys(self._chunks, 0)
        self._flushes: deque[Flush] = deque()
        self._wishes: deque[Wish] = deque()
        self._nudged = False
        self._epochs = itertools.count(1)
        self._epoch = 0

    def next_epoch(self) -> int:
        """Return a number greater than every epoch so far."""
        with self._changed:
            self._epoch = next(self._epochs)
            return self._epoch

    @property
    def epoch(self) -> int:
        """The newest epoch."""
        with self._changed:
            return self._epoch

    def put(self, chunk: Chunk) -> None:
        """Hand a chunk to the writer; the consumer looks at `bytes_waiting` to stay within its bound."""
        with self._changed:
            self._chunks[chunk.table].append(chunk)
            self._bytes[chunk.table] += chunk.batch.nbytes
            self._changed.notify_all()

    def take(self, table: str, *, records_max: int) -> list[Chunk]:
        """Take the oldest chunks of a table, until `records_max` is reached; the last one may exceed it."""
        taken: list[Chunk] = []
        records = 0
        with self._changed:
            queue = self._chunks[table]
            while queue and records < records_max:
                chunk = queue.popleft()
                self._bytes[table] -= chunk.batch.nbytes
                records += len(chunk.batch)
                taken.append(chunk)
            if taken:
                self._changed.notify_all()
        return taken

    def discard(self, table: str) -> None:
        """Drop every chunk of a table that waits."""
        with self._changed:
            self._chunks[table].clear()
            self._bytes[table] = 0
            self._changed.notify_all()

    def bytes_waiting(self, table: str) -> int:
        """Return the bytes of a table that wait to be decoded."""
        with self._changed:
            return self._bytes[table]

    def ask_writer(self, flush: Flush) -> None:
        """Ask the writer to commit what is there."""
        with self._changed:
            self._flushes.append(flush)
            self._changed.notify_all()

    def next_flush(self) -> Flush | None:
        """Take the oldest request to commit, if there is one."""
        with self._changed:
            return self._flushes.popleft() if self._flushes else None

    @property
    def is_flush_asked(self) -> bool:
        """Say whether somebody waits for a commit of what is there."""
        with self._changed:
            return bool(self._flushes)

    def ask_consumer(self, wish: Wish) -> None:
        """Ask the consumer to do something with the reader, which only its thread touches."""
        with self._changed:
            self._wishes.append(wish)
            self._changed.notify_all()

    def wishes(self) -> list[Wish]:
        """Take all that the writer has asked for."""
        with self._changed:
            taken = list(self._wishes)
            self._wishes.clear()
            return taken

    def wait_for_work(self, timeout_seconds: float, *, tables: Collection[str]) -> None:
        """Wait until one of the tables has a chunk, or a request to commit comes, or the time is over."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._nudged or bool(self._flushes) or any(self._chunks[table] for table in tables),
                timeout_seconds,
            )
            self._nudged = False

    def wait_for_files(self, written: Future[Any], timeout_seconds: float, *, gives_way: bool) -> bool:
        """Wait until files are written; False if they are not in time, or a commit is asked for that goes before."""
        with self._changed:
            self._changed.wait_for(lambda: written.done() or (gives_way and bool(self._flushes)), timeout_seconds)
            return written.done() and not (gives_way and self._flushes)

    def nudge_writer(self) -> None:
        """Wake the writer: files that it waits for are written."""
        with self._changed:
            self._nudged = True
            self._changed.notify_all()

    def wait_for_room(self, timeout_seconds: float, *, tables: Collection[str], bytes_max: int) -> None:
        """Wait until each of the tables has fewer than `bytes_max` waiting, or a wish comes, or the time is over."""
        with self._changed:
            self._changed.wait_for(
                lambda: bool(self._wishes) or all(self._bytes[table] < bytes_max for table in tables), timeout_seconds
            )


def joined(chunks: list[Chunk], *, records_max: int) -> list[Chunk]:
    """Join neighbouring chunks of one partition, since large blocks decode faster than small ones."""
    blocks: dict[tuple[LogPartition, int], list[list[Chunk]]] = {}
    for chunk in chunks:
        of_partition = blocks.setdefault((chunk.log, chunk.epoch), [])
        last = of_partition[-1] if of_partition else None
        if last and last[-1].end == chunk.start and sum(len(c.batch) for c in last) + len(chunk.batch) <= records_max:
            last.append(chunk)
        else:
            of_partition.append([chunk])
    return [_join(block) for of_partition in blocks.values() for block in of_partition]


def _join(chunks: list[Chunk]) -> Chunk:
    if len(chunks) == 1:
        return chunks[0]
    first, last = chunks[0], chunks[-1]
    batches = [chunk.batch for chunk in chunks]
    batch = replace(
        last.batch,
        offsets=list(chain.from_iterable(batch.offsets for batch in batches)),
        ts_log_ms=list(chain.from_iterable(batch.ts_log_ms for batch in batches)),
        keys=list(chain.from_iterable(batch.keys for batch in batches)),
        values=list(chain.from_iterable(batch.values for batch in batches)),
    )
    return replace(first, end=last.end, batch=batch)
