"""The newest stretch of the log, decoded and in memory: from the table's seam to the last message."""

from __future__ import annotations

import threading
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from k2.common.errors import ConfigurationError, K2Error, LogIdentityError, QueryError, UnavailableError
from k2.common.logging import get_logger
from k2.common.units import NS_PER_MINUTE
from k2.query.chunks import PartitionChunks, View
from k2.query.leases import Lease, Leases
from k2.query.placement import Placement
from k2.query.topic_watch import TopicWatch, WatchedState
from k2.schemas.arrow import polars_schema
from k2.schemas.records import ORDER, RECORD_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from k2.common.clock import Clock
    from k2.kafka.batches import LogBatch
    from k2.kafka.ports import AssignedReader, TopicPartition
    from k2.kafka.topics import Topic
    from k2.query.ports import Decodes, Heads, LogFacts, OpenReader
    from k2.query.settings import QuerySettings

log = get_logger(__name__)

COMMIT_COLUMNS: Final = ("commit_sequence", "written_by")
"""Columns that only a commit fills."""


class KafkaTail:
    """Follows topics from their table's seam on, in a thread; holds what no table holds yet, and little more.

    `decoders` are by record type. Their rule for what is no record must be ingestion's, except that any share of
    unknown schema ids is accepted in a batch: the tail's batches are small.
    """

    def __init__(
        self,
        topics: Sequence[Topic],
        *,
        open_reader: OpenReader,
        log_facts: LogFacts,
        tables: Heads,
        decoders: Mapping[str, Decodes],
        settings: QuerySettings,
        clock: Clock,
    ) -> None:
        self._open_reader = open_reader
        self._watch = TopicWatch(
            topics, log_facts=log_facts, tables=tables, interval_seconds=settings.tail_refresh_seconds
        )
        self._decoders = decoders
        self._settings = settings
        self._clock = clock
        self._applied = WatchedState()
        self._reader: AssignedReader | None = None
        self._partitions: dict[TopicPartition, PartitionChunks] = {}
        self._pending: deque[LogBatch] = deque()
        self.placement = Placement()
        self.decoding = threading.Lock()
        self._leases = Leases(clock, seconds_max=settings.lease_seconds_max)
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._awaited = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble: K2Error | None = None
        self._counts = {"records": 0, "undecodable": 0, "outrun_chunks": 0, "restarts": 0}

    def start(self) -> None:
        """Begin to follow; returns at once, also while the log or the catalog is down."""
        if self._thread is not None:
            raise RuntimeError("expected a tail that is stopped, found one that runs")
        self._stop.clear()
        self._watch.start()
        self._thread = threading.Thread(target=self._run, name="k2-tail", daemon=True)
        self._thread.start()

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """End the thread and close the reader; what is held is forgotten."""
        self._stop.set()
        self._awaited.set()
        self._watch.stop(timeout_seconds)
        if self._thread is not None:
            self._thread.join(timeout_seconds)
            self._thread = None
        self._forget()

    def query(
        self,
        symbol: str,
        since: int | datetime | None = None,
        minutes: float | None = None,
        *,
        data_type: str = "trades",
        exchange: str | None = None,
    ) -> pa.Table:
        """Return the symbol's rows that the tail holds, in order.

        `since` is UTC nanoseconds or a datetime with a zone; `minutes` count back from now; neither means all. The
        columns are the table's, without those that only a commit fills.
        """
        if since is not None and minutes is not None:
            raise QueryError("expected since or minutes, found both: give one of them")
        since_ns = _nanoseconds(since) if minutes is None else self._clock.time_ns() - int(minutes * NS_PER_MINUTE)
        frames = [self.empty(data_type)]
        for key, chunks in list(self._partitions.items()):
            followed = self._applied.followed.get(key[0])
            if followed is None or followed.topic.data_type != data_type:
                continue
            if exchange is None or followed.topic.exchange == exchange:
                view = chunks.view
                frames.extend(view.slice(symbol, view.start, view.end).frames)
        rows = pl.concat(frames)
        if since_ns is not None:
            rows = rows.filter(pl.col("ts_event_ns") >= since_ns)
        return rows.sort(*ORDER).to_arrow()

    def get_symbols(self, data_type: str | None = None) -> list[str]:
        """Return the symbols that occur in what the tail holds, sorted."""
        found: set[str] = set()
        for (topic, _), chunks in list(self._partitions.items()):
            followed = self._applied.followed.get(topic)
            if followed is not None and data_type in (None, followed.topic.data_type):
                found.update(symbol for chunk in chunks.view.chunks for symbol in chunk.symbols())
        return sorted(found)

    def get_stats(self) -> dict[str, Any]:
        """Return what the tail holds and how it does."""
        partitions = list(self._partitions.items())
        return {
            "running": self._thread is not None and self._thread.is_alive(),
            "trouble": None if self._trouble is None else str(self._trouble),
            "topics": sorted(self._applied.followed),
            "refused": {name: refused.reason for name, refused in self._applied.refused.items()},
            "rows": sum(chunks.rows for _, chunks in partitions),
            "size_bytes": sum(chunks.size_bytes for _, chunks in partitions),
            "size_bytes_max": self._settings.tail_bytes_max,
            "chunks": sum(len(chunks.view.chunks) for _, chunks in partitions),
            "strays": sorted(self.placement.strays),
            "leases": len(self._leases),
            "leases_expired": self._leases.expired,
            "partitions": {
                f"{topic}/{partition}": {"start": chunks.view.start, "end": chunks.view.end, "rows": chunks.rows}
                for (topic, partition), chunks in partitions
            },
            **self._counts,
        }

    @property
    def state(self) -> WatchedState:
        """Return what the last look at the tables and the topics found."""
        return self._watch.state

    @property
    def watch_trouble(self) -> K2Error | None:
        """Return why the last look at the tables and the topics failed; None if it did not."""
        return self._watch.trouble

    @property
    def trouble(self) -> K2Error | None:
        """Return why the tail is not following now; None while it is."""
        return self._trouble

    def lease(self) -> Lease:
        """Keep what is held now from being trimmed as the seam moves on.

        The bound in bytes, and the lease's own in time, end that all the same: a reader checks what a view covers.
        """
        return self._leases.take({key: chunks.view.start for key, chunks in list(self._partitions.items())})

    def view(self, key: TopicPartition) -> View | None:
        """Return what is held of a partition now; None if it is not followed."""
        chunks = self._partitions.get(key)
        return None if chunks is None else chunks.view

    def wait_for(self, ends: Mapping[TopicPartition, int], seconds: float) -> bool:
        """Wait until every partition is read up to its end; False if it takes longer, or the tail is in trouble."""

        def over() -> bool:
            return self._trouble is not None or self._reached(ends)

        if not over():
            self._awaited.set()
            with self._changed:
                self._changed.wait_for(over, timeout=seconds)
        return self._reached(ends)

    def look_again(self, seconds: float) -> None:
        """Look at tables and topics now, and wait for that at most `seconds`."""
        self._watch.look_again(seconds)

    def step(self) -> None:
        """Do one round: follow what the watch has found, read what has come, trim. The thread repeats this."""
        if self._thread is None:
            self._watch.look()
        if self._applied is not self._watch.state:
            self._apply(self._watch.state)
        if self._reader is None:
            return
        if not self._pending:
            settings = self._settings
            self._pending.extend(self._reader.poll(settings.tail_poll_records_max, settings.tail_poll_seconds))
        arrived = bool(self._pending)
        while self._pending:
            topic = self._pending[0].topic
            self._take([batch for batch in self._pending if batch.topic == topic])
            self._pending = deque(batch for batch in self._pending if batch.topic != topic)
        if arrived:
            self._bound()
            with self._changed:
                self._changed.notify_all()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = self._clock.monotonic()
            try:
                self.step()
                self._settle(None)
                pause = self._settings.tail_round_seconds + began - self._clock.monotonic()
                self._rest(self._settings.tail_poll_seconds if self._reader is None else max(pause, 0))
            except LogIdentityError as error:
                self._forget()
                self._settle(error)
            except (UnavailableError, ConfigurationError) as error:
                self._settle(error)
            except Exception as error:  # noqa: BLE001 - the loop's edge: a tail that ended would make all answers wait
                self._forget()
                self._settle(UnavailableError(f"the tail failed and begins anew: {error!r}", dependency="tail"))

    def _rest(self, seconds: float) -> None:
        """Pause between two rounds, unless a question waits for the next one."""
        if self._awaited.wait(seconds):
            self._awaited.clear()

    def _settle(self, trouble: K2Error | None) -> None:
        if str(trouble) != str(self._trouble):
            if trouble is None:
                log.info("tail_follows_again")
            else:
                log.warning("tail_in_trouble", reason=str(trouble))
        self._trouble = trouble
        if trouble is not None:
            with self._changed:
                self._changed.notify_all()
            self._stop.wait(self._settings.tail_retry_seconds)

    def _apply(self, state: WatchedState) -> None:
        """Follow what is to be followed, from the seam on; give up what is gone, refused, or another log by now."""
        before = self._applied.followed
        keep = {
            key: chunks
            for key, chunks in self._partitions.items()
            if key[0] in state.followed and state.followed[key[0]].log == before[key[0]].log
        }
        if self._reader is not None:
            self._reader.unassign(self._partitions.keys() - keep.keys())
        for name, topic in state.followed.items():
            for partition, seam in topic.seams.items():
                if (name, partition) not in keep:
                    keep[name, partition] = self._chunks(seam)
        self._partitions = keep
        self._applied = state
        self._assign()
        self._leases.expire()
        self._trim()

    def _assign(self) -> None:
        if self._reader is None and self._partitions:
            self._reader = self._open_reader()
        if self._reader is not None:
            known = self._reader.positions()
            starts = {key: chunks.view.end for key, chunks in self._partitions.items() if key not in known}
            if starts:
                self._reader.assign(starts)

    def _chunks(self, start: int) -> PartitionChunks:
        return PartitionChunks(start, chunk_rows_max=self._settings.tail_chunk_rows)

    def _take(self, batches: Sequence[LogBatch]) -> None:
        """Decode one topic's batches and hold their rows; UnavailableError leaves them to be taken again.

        A round has a few messages of each partition: decoded together they cost a fraction.
        """
        new = self._new(batches)
        if not new:
            return
        followed = self._applied.followed[new[0].topic]
        with self.decoding:
            all_decoded = self._decoders[followed.topic.data_type].decode_all(new, log_id=followed.log.log_id)
        for batch, decoded in zip(new, all_decoded, strict=True):
            self.placement.check(batch, decoded.rows, followed.log.partitions)
            bad = tuple(record.offset for record in decoded.bad)
            self._partitions[batch.topic, batch.partition].append(decoded.rows, batch.next_offset, bad)
            self._counts["records"] += len(batch)
            self._counts["undecodable"] += len(bad)

    def _new(self, batches: Sequence[LogBatch]) -> list[LogBatch]:
        """Return the batches of partitions that are followed, without what is held already."""
        new = []
        ends = {key: chunks.view.end for key, chunks in self._partitions.items()}
        for batch in batches:
            end = ends.get((batch.topic, batch.partition))
            if end is None or batch.next_offset <= end:
                continue
            ends[batch.topic, batch.partition] = batch.next_offset
            held = bool(batch.offsets) and batch.offsets[0] < end
            new.append(batch.where([offset >= end for offset in batch.offsets]) if held else batch)
        return new

    def _trim(self) -> None:
        """Drop what the head's seam and every leased snapshot hold."""
        for (topic, partition), chunks in self._partitions.items():
            floor = self._leases.floor((topic, partition), self._applied.followed[topic].seams[partition])
            if floor > chunks.view.end and self._reader is not None:
                self._jump(topic, partition, floor)
            else:
                chunks.drop_below(floor)

    def _jump(self, topic: str, partition: int, offset: int) -> None:
        """Go on at the seam where the table has overtaken the tail: nobody asks the tail for what lies below."""
        assert self._reader is not None
        self._reader.seek(topic, partition, offset)
        self._pending = deque(batch for batch in self._pending if (batch.topic, batch.partition) != (topic, partition))
        self._partitions = {**self._partitions, (topic, partition): self._chunks(offset)}

    def _bound(self) -> None:
        """Drop the oldest rows of the largest partition while there are too many bytes; answers read them on demand."""
        while sum(chunks.size_bytes for chunks in self._partitions.values()) > self._settings.tail_bytes_max:
            largest = max(self._partitions.values(), key=lambda chunks: chunks.size_bytes)
            largest.drop_oldest()
            self._counts["outrun_chunks"] += 1

    def _reached(self, ends: Mapping[TopicPartition, int]) -> bool:
        held = self._partitions
        return all(key in held and held[key].view.end >= end for key, end in ends.items())

    def _forget(self) -> None:
        reader, self._reader = self._reader, None
        self._partitions = {}
        self._pending.clear()
        self._applied = WatchedState()
        self._counts["restarts"] += 1
        if reader is not None:
            reader.close()

    def empty(self, data_type: str) -> pl.DataFrame:
        """Return no rows, with the columns that the tail's rows have."""
        record_type = RECORD_TYPES.get(data_type)
        if record_type is None:
            raise QueryError(f"expected data_type {' or '.join(RECORD_TYPES)}, found {data_type!r}")
        schema = polars_schema(record_type)
        return pl.DataFrame(schema={name: kind for name, kind in schema.items() if name not in COMMIT_COLUMNS})


def _nanoseconds(since: int | datetime | None) -> int | None:
    if not isinstance(since, datetime):
        return since
    if since.tzinfo is None:
        raise QueryError(f"expected a time with a zone, found {since.isoformat()}")
    return int(since.timestamp()) * 1_000_000_000 + since.microsecond * 1_000
