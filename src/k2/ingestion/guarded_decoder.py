"""Decodes so that no message can kill the worker for good: what did so several times is narrowed down and left out."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import polars as pl

from k2.common import crash_points
from k2.ingestion.dead_letters.collector import KILLED
from k2.ingestion.decode_journal import Stretch
from k2.kafka.decoding import BadRecord, Decoded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from k2.ingestion.decode_journal import DecodeJournal
    from k2.ingestion.lane_ports import Decoder
    from k2.kafka.batches import LogBatch


class GuardedDecoder:
    """Stands before a decoder; the journal is shared by all decoders of one thread.

    A block in which a process died is decoded as one again, since the process may have died of something else. Before
    the last try allowed it is decoded message by message, so that a further death names one offset.
    """

    def __init__(self, decoder: Decoder, journal: DecodeJournal, *, kills_max: int) -> None:
        self._decoder = decoder
        self._journal = journal
        self._kills_max = kills_max

    def decode(self, batch: LogBatch, *, log_id: int) -> Decoded:
        """Return what the decoder does, but for messages in quarantine: they are bad, and are not decoded."""
        if not len(batch):
            return self._decoder.decode(batch, log_id=log_id)
        whole = Stretch(batch.topic, log_id, batch.partition, batch.offsets[0], batch.offsets[-1] + 1)
        watched = [one for one in (*self._journal.suspects, *self._journal.quarantined) if one.overlaps(whole)]
        if not watched:
            return self._decode(batch, whole)
        parts = [self._decode_part(part, whole) for part in self._cut(batch, whole)]
        rows = pl.concat([part.rows for part in parts])
        return Decoded(rows, tuple(bad for part in parts for bad in part.bad))

    def _cut(self, batch: LogBatch, whole: Stretch) -> Iterator[LogBatch]:
        """Cut a batch where suspicion begins and ends, and into single messages where a death must name one."""
        suspects = [one for one in self._journal.suspects if one.overlaps(whole)]
        quarantined = {one.start for one in self._journal.quarantined if one.overlaps(whole)}

        def kind(at: int) -> tuple[int, int]:
            offset = batch.offsets[at]
            number = next((n for n, one in enumerate(suspects) if one.start <= offset < one.end), -1)
            alone = offset in quarantined or (number >= 0 and suspects[number].deaths >= self._kills_max - 1)
            return number, at if alone else -1

        for _, positions in groupby(range(len(batch)), kind):
            found = list(positions)
            yield batch.between(found[0], found[-1] + 1)

    def _decode_part(self, part: LogBatch, whole: Stretch) -> Decoded:
        stretch = Stretch(whole.topic, whole.log_id, whole.partition, part.offsets[0], part.offsets[-1] + 1)
        if len(part) == 1 and any(one.overlaps(stretch) for one in self._journal.quarantined):
            return self._left_out(part, whole.log_id)
        deaths = max((one.deaths for one in self._journal.suspects if one.overlaps(stretch)), default=0)
        return self._decode(part, Stretch(*_place(stretch), deaths))

    def _decode(self, batch: LogBatch, stretch: Stretch) -> Decoded:
        self._journal.begins(stretch)
        try:
            crash_points.reached_with("decoding", batch.values)
            decoded = self._decoder.decode(batch, log_id=stretch.log_id)
        except BaseException:
            self._journal.interrupted()
            raise
        self._journal.ended(stretch)
        return decoded

    def _left_out(self, part: LogBatch, log_id: int) -> Decoded:
        empty = self._decoder.decode(part.between(0, 0), log_id=log_id)
        record = BadRecord(
            partition=part.partition,
            offset=part.offsets[0],
            ts_log_ms=part.ts_log_ms[0],
            key=part.keys[0],
            value=part.values[0],
            error_class=KILLED,
            reason=f"killed the process {_times(self._kills_max)}: expected a message that can be decoded",
        )
        return Decoded(empty.rows, (record,))


def _times(count: int) -> str:
    return {2: "twice", 3: "three times"}.get(count, f"{count} times")


def _place(stretch: Stretch) -> tuple[str, int, int, int, int]:
    return stretch.topic, stretch.log_id, stretch.partition, stretch.start, stretch.end
