"""How far the platform already holds a source: the highest source_sequence in the table and in the log above it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from k2.common.errors import UnavailableError
from k2.kafka.producer import partition_for
from k2.storage.seam import LogPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from k2.common.clock import Clock
    from k2.kafka.decoding import Decoder
    from k2.kafka.ports import Admin, AssignedReader
    from k2.kafka.topics import Topic
    from k2.storage.planning import Planner

POLL_MESSAGES: Final = 20_000
POLL_SECONDS: Final = 0.5
SILENCE_SECONDS_MAX: Final = 30.0


class HeldSource:
    """Finds the highest source_sequence held of a source of one symbol, which lies in one partition, in order."""

    def __init__(
        self,
        *,
        planner: Planner,
        admin: Admin,
        open_reader: Callable[[], AssignedReader],
        decoders: Mapping[str, Decoder],
        clock: Clock,
    ) -> None:
        self._planner = planner
        self._admin = admin
        self._open_reader = open_reader
        self._decoders = decoders
        self._clock = clock

    def highest(self, topic: Topic, *, symbol: str, source: str) -> int:
        """Return the highest source_sequence held, 0 where none is."""
        key = (topic.name, partition_for(symbol.encode(), topic.partitions))
        pinned = self._planner.pin(topic.data_type)
        files = [file.path for file in self._planner.plan(pinned, exchange=topic.exchange, symbol=symbol)]
        stored = _highest(pl.read_parquet(files, columns=["source", "source_sequence"]), source) if files else 0
        log = pinned.head.log_of(topic.name)
        seam = pinned.head.seam.next_offset(LogPartition(log.log_id, key[1])) if log else None
        found = self._admin.ranges(topic.name)[key]
        start = found.start if seam is None else max(seam, found.start)
        return max(stored, self._in_log(topic, key, start, found.end, source))

    def _in_log(self, topic: Topic, key: tuple[str, int], start: int, end: int, source: str) -> int:
        if start >= end:
            return 0
        reader = self._open_reader()
        highest, heard = 0, self._clock.monotonic()
        try:
            reader.assign({key: start})
            while reader.position(*key) < end:
                for batch in reader.poll(POLL_MESSAGES, POLL_SECONDS):
                    heard = self._clock.monotonic()
                    rows = self._decoders[topic.data_type].decode(batch, log_id=0).rows
                    highest = max(highest, _highest(rows, source))
                if self._clock.monotonic() - heard > SILENCE_SECONDS_MAX:
                    raise UnavailableError(
                        f"the log of {topic.name} was silent for {SILENCE_SECONDS_MAX:.0f} s before offset {end}: "
                        "try again",
                        dependency="kafka",
                    )
        finally:
            reader.close()
        return highest


def _highest(rows: pl.DataFrame, source: str) -> int:
    found = rows.filter(pl.col("source") == source)["source_sequence"].max()
    return int(found) if isinstance(found, int) else 0
