"""Reads the status topics, as far as they go: what the feeds have marked of each partition of the market topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from k2.common.errors import LogIdentityError, RecordError, UnavailableError
from k2.common.logging import get_logger
from k2.ingestion.sequences.markers import Marker
from k2.ingestion.sequences.rules import NO_DAY
from k2.kafka.producer import partition_for
from k2.kafka.registry import CachedSchemas
from k2.kafka.serialization import decode_record
from k2.schemas.status import STATUS_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from k2.common.clock import Clock
    from k2.ingestion.sequences.ports import LogEnds
    from k2.kafka.batches import LogBatch
    from k2.kafka.ports import AssignedReader, LogRange, TopicPartition
    from k2.kafka.registry import SchemaSource
    from k2.kafka.topics import Topic

log = get_logger(__name__)

_POLL_MESSAGES: Final = 20_000
_POLL_SECONDS: Final = 0.2


class StatusLog:
    """The markers of the streams of one table; one thread uses it. Only numbers that run per symbol can be marked."""

    def __init__(
        self,
        market: Iterable[Topic],
        status: Iterable[Topic],
        *,
        log_ends: LogEnds,
        open_reader: Callable[[], AssignedReader],
        registry: SchemaSource,
        clock: Clock,
        silent_seconds_max: float,
        markers_max: int,
        schemas_max: int,
    ) -> None:
        """Read the markers of the topics in `market`, which share a data type, on those in `status`."""
        self._topics = {topic.exchange: topic for topic in market}
        self._data_types = {topic.data_type for topic in self._topics.values()}
        self._status = sorted(topic.name for topic in status if topic.exchange in self._topics)
        self._log_ends = log_ends
        self._open_reader = open_reader
        self._schemas = CachedSchemas(registry, {}, entries_max=schemas_max)
        self._clock = clock
        self._silent_seconds_max = silent_seconds_max
        self._markers_max = markers_max
        self._reader: AssignedReader | None = None
        self._assigned: set[TopicPartition] = set()
        self._markers: dict[TopicPartition, list[Marker]] = {}
        self._ahead_us: int | None = None
        self._first = 0
        """What an offset of the topics as they are now counts from."""

    def refresh(self) -> None:
        """Read all that has been written until now.

        Raises:
            UnavailableError: the log or the registry does not answer; what was read is read again next time.
        """
        if not self._status:
            return
        ranges = self._log_ends.ranges(self._status)
        held = {place: extent for place, extent in ranges.items() if extent.end > extent.start}
        if not held:
            return
        try:
            self._read_to_the_end(held)
        except LogIdentityError as error:  # no record's fate depends on these topics: they stop no table
            self._begin_anew()
            raise UnavailableError(
                f"a status topic is not the one that was read until now; it is read again from its start: {error}",
                dependency="kafka",
            ) from error

    def _read_to_the_end(self, held: Mapping[TopicPartition, LogRange]) -> None:
        if self._reader is None:
            self._reader = self._open_reader()
        reader = self._reader
        new = {place: extent.start for place, extent in held.items() if place not in self._assigned}
        if new:
            reader.assign(new)
            self._assigned.update(new)
        ends = {place: extent.end for place, extent in held.items()}
        for place, end in ends.items():
            if reader.position(*place) > end:
                raise LogIdentityError(
                    f"expected {place[0]} to reach {reader.position(*place)}, found its end at {end}"
                )
        heard = self._clock.monotonic()
        while any(reader.position(*place) < end for place, end in ends.items()):
            for batch in reader.poll(_POLL_MESSAGES, _POLL_SECONDS):
                heard = self._clock.monotonic()
                self._take_or_start_again(batch)
            if self._clock.monotonic() - heard > self._silent_seconds_max:
                raise UnavailableError(
                    f"the status topics were silent for {self._silent_seconds_max:g} s before their end: is the broker "
                    "up? (`k2 status`)",
                    dependency="kafka",
                )

    def of(self, topic: str, partition: int) -> Sequence[Marker]:
        """Return the markers of a partition's streams, in the order of their offsets."""
        return self._markers.get((topic, partition), ())

    def partitions(self) -> Sequence[TopicPartition]:
        """Return the partitions that have markers."""
        return sorted(self._markers)

    def passed_us(self) -> int:
        """Return a time that the log's clock has reached: since a marker was read it has gone as far as ours."""
        return 0 if self._ahead_us is None else self._ahead_us + round(self._clock.monotonic() * 1_000_000)

    def close(self) -> None:
        """Give up the connection."""
        if self._reader is not None:
            self._reader.close()

    def _begin_anew(self) -> None:
        """Forget where the topics were read to; what is read from now on counts as behind all that was read before."""
        self.close()
        self._reader = None
        self._assigned.clear()
        self._first = 1 + max((each[-1].offset for each in self._markers.values()), default=-1)

    def _take_or_start_again(self, batch: LogBatch) -> None:
        try:
            found = [
                (place, marker)
                for offset, at_ms, value in zip(batch.offsets, batch.ts_log_ms, batch.values, strict=True)
                if value is not None and (read := self._read(batch, offset, at_ms, value))
                for place, marker in [read]
            ]
        except UnavailableError:  # of the registry: these messages are read again, none is left out
            assert self._reader is not None
            self._reader.seek(batch.topic, batch.partition, batch.offsets[0])
            raise
        for place, marker in found:
            kept = self._markers.setdefault(place, [])
            kept.append(marker)
            if len(kept) > self._markers_max:
                del kept[: self._markers_max // 2]
        if batch.ts_log_ms:
            ahead_us = batch.ts_log_ms[-1] * 1_000 - round(self._clock.monotonic() * 1_000_000)
            self._ahead_us = ahead_us if self._ahead_us is None else max(self._ahead_us, ahead_us)

    def _read(self, batch: LogBatch, offset: int, at_ms: int, value: bytes) -> tuple[TopicPartition, Marker] | None:
        try:
            said = decode_record(value, self._schemas.schema_text, STATUS_SCHEMA)
        except RecordError as error:
            log.warning("marker_unreadable", topic=batch.topic, offset=offset, error=str(error))
            return None
        topic = self._topics.get(said["exchange"])
        if topic is None or said["data_type"] not in self._data_types or said["last_sequence"] is None:
            return None
        symbol, day = said["symbol"], said["trading_date"]
        marker = Marker(
            symbol, said["last_sequence"], NO_DAY if day is None else day, at_ms * 1_000, self._first + offset
        )
        return (topic.name, partition_for(symbol.encode(), topic.partitions)), marker
