"""What the platform already holds of a source: in the tables, and in the log from where they are complete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import polars as pl

from k2.common.errors import UnavailableError
from k2.feeds.bad_line_letters import line_of
from k2.kafka.producer import partition_for
from k2.kafka.serialization import decode_record
from k2.schemas.instruments import INSTRUMENT_SCHEMA
from k2.storage.deferral import complete_through
from k2.storage.seam import LogPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from k2.common.clock import Clock
    from k2.feeds.settings import FeedSettings
    from k2.kafka.batches import LogBatch
    from k2.kafka.decoding import Decoder
    from k2.kafka.ports import Admin, AssignedReader, Registry
    from k2.kafka.topics import Topic
    from k2.storage.file_checks import FileChecks
    from k2.storage.planning import PinnedSnapshot, PlannedFile

POLL_MESSAGES: Final = 20_000
POLL_SECONDS: Final = 0.5


class Plans(Protocol):
    """Pins snapshots of the tables and names the files that can hold what is looked for."""

    def pin(self, table_name: str) -> PinnedSnapshot:
        """Pin the newest snapshot."""
        ...

    def plan(
        self, pinned: PinnedSnapshot, *, exchange: str, symbol: str | None, start_ns: int, end_ns: int
    ) -> Sequence[PlannedFile]:
        """Return the files that can hold such rows."""
        ...


class HeldSource:
    """Tells how far the platform holds a source: its records of one partition are held in order, without holes."""

    def __init__(
        self,
        *,
        planner: Plans,
        checks: FileChecks,
        admin: Admin,
        open_reader: Callable[[], AssignedReader],
        decoders: Mapping[str, Decoder],
        registry: Registry,
        settings: FeedSettings,
        clock: Clock,
    ) -> None:
        self._planner = planner
        self._checks = checks
        self._admin = admin
        self._open_reader = open_reader
        self._decoders = decoders
        self._registry = registry
        self._settings = settings
        self._clock = clock

    def highest(self, topic: Topic, *, symbol: str, source: str, start_ns: int, last_ns: int) -> int:
        """Return the highest source_sequence held of a symbol of a source, 0 where none is.

        `start_ns` and `last_ns` are the earliest and the latest event of the source: no other day is looked at.
        """
        mine = (pl.col("source") == source) & (pl.col("symbol") == symbol)
        number = partition_for(symbol.encode(), topic.partitions)
        return self._highest(topic, number, mine, symbol, (start_ns, last_ns + 1))

    def highest_by_partition(self, topic: Topic, *, source: str, start_ns: int, end_ns: int) -> list[int]:
        """Return the highest source_sequence held, per partition, of a source with events in [start_ns, end_ns)."""
        return [
            self._highest(
                topic,
                number,
                (pl.col("source") == source) & (pl.col("log_partition") == number),
                None,
                (start_ns, end_ns),
            )
            for number in range(topic.partitions)
        ]

    def dead_lines(self, topic: Topic, *, symbol: str, source: str) -> set[int]:
        """Return the lines of a source that the dead-letter topic holds."""
        found = (
            line_of(headers, source=source)
            for batch in self._whole(topic.dead_letter_name)
            for key, headers in zip(batch.keys, batch.headers or (), strict=True)
            if key == symbol.encode()
        )
        return {line for line in found if line is not None}

    def keys(self, topic: Topic) -> set[bytes]:
        """Return the keys of all messages of a small topic."""
        return {key for batch in self._whole(topic.name) for key in batch.keys if key is not None}

    def instruments(self, topic: Topic) -> dict[bytes, dict[str, Any]]:
        """Return the newest record of each key of a topic of reference data."""
        newest: dict[bytes, bytes | None] = {}
        for batch in self._whole(topic.name):
            newest.update((key, value) for key, value in zip(batch.keys, batch.values, strict=True) if key is not None)
        return {key: self._instrument(value) for key, value in newest.items() if value is not None}

    def _instrument(self, value: bytes) -> dict[str, Any]:
        return decode_record(value, self._registry.schema_text, INSTRUMENT_SCHEMA)

    def _highest(self, topic: Topic, number: int, mine: pl.Expr, symbol: str | None, times: tuple[int, int]) -> int:
        pinned = self._planner.pin(topic.data_type)
        files = self._planner.plan(pinned, exchange=topic.exchange, symbol=symbol, start_ns=times[0], end_ns=times[1])
        stored = pl.scan_parquet(self._checks.require(files)).filter(mine) if files else None
        highest = 0 if stored is None else _maximum(stored)
        log = pinned.head.log_of(topic.name)
        complete = complete_through(pinned.head.seam, LogPartition(log.log_id, number)) if log else None
        extent = self._admin.ranges(topic.name)[topic.name, number]
        start = extent.start if complete is None else max(complete, extent.start)
        for batch in self._read(topic.name, number, start, extent.end):
            rows = self._decoders[topic.data_type].decode(batch, log_id=0).rows
            highest = max(highest, _maximum(rows.lazy().filter(mine)))
        return highest

    def _whole(self, name: str) -> Iterator[LogBatch]:
        for (topic, number), extent in self._admin.ranges(name).items():
            yield from self._read(topic, number, extent.start, extent.end)

    def _read(self, name: str, number: int, start: int, end: int) -> Iterator[LogBatch]:
        """Yield what one partition holds in [start, end), and perhaps some more."""
        if start >= end:
            return
        reader = self._open_reader()
        heard = self._clock.monotonic()
        try:
            reader.assign({(name, number): start})
            while reader.position(name, number) < end:
                for batch in reader.poll(POLL_MESSAGES, POLL_SECONDS):
                    heard = self._clock.monotonic()
                    yield batch
                if self._clock.monotonic() - heard > self._settings.resume_timeout_seconds:
                    raise UnavailableError(
                        f"the log of {name} was silent for {self._settings.resume_timeout_seconds:g} s before offset "
                        f"{end} (K2_FEEDS__RESUME_TIMEOUT_SECONDS): is the broker up? (`k2 status`)",
                        dependency="kafka",
                    )
        finally:
            reader.close()


def _maximum(rows: pl.LazyFrame) -> int:
    found = rows.select(pl.col("source_sequence").max()).collect(engine="streaming").item()
    return int(found) if found is not None else 0
