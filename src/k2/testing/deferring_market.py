"""A simulated market whose commits defer what a predicate matches, and whose backfills write it later."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from k2.schemas.records import WrittenBy
from k2.schemas.tier_maps import TierMap
from k2.storage.deferral import (
    Backfill,
    DeferredList,
    Predicate,
    predicate_of,
    seam_after_backfill,
    seam_after_batch,
)
from k2.storage.halts import NOBODY, HaltedPart, owners
from k2.storage.seam import Counts, LogPartition, PartitionDelta
from k2.testing.simulated_market import SimulatedMarket

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from k2.common.degradation import Priority
    from k2.kafka.batches import LogBatch
    from k2.kafka.topics import Topic
    from k2.storage.seam import HaltedStream
    from k2.storage.tables import RegisteredLog, TableHead

TIERS: Final = TierMap.of({"ANZ"}, {"CBA"})
"""ANZ is never deferred; CBA is by the widest predicate only. Both share partition 1 of 2 with NAB, of no tier."""


class DeferringMarket(SimulatedMarket):
    """Its commits sort records by key; what was deferred stays so until it is backfilled."""

    def __init__(self, directory: Path, topics: Iterable[Topic], tiers: TierMap = TIERS) -> None:
        super().__init__(directory, topics)
        self.tiers = tiers

    def predicate(self, deferred_from: Priority) -> Predicate:
        """Return what defers priorities from this one on."""
        return Predicate(self.tiers.map_id, deferred_from)

    def commit(
        self,
        topic: str,
        partition: int,
        records: int | None = None,
        *,
        deferred_from: Priority | None = None,
        halt: tuple[HaltedStream, ...] = (),
    ) -> int:
        """Commit what follows the seam, less what is deferred; return how many offsets the seam has moved."""
        head, log, at = self._place(topic, partition)
        wanted = None if deferred_from is None else self.predicate(deferred_from)
        held = DeferredList.of(head.seam, at)
        predicate, halts = held.in_force(wanted), (*held.halted, *halt)
        start = head.seam.next_offset(at) or 0
        messages = self.partitions[topic, partition].messages
        end = len(messages) if records is None else min(len(messages), start + records)
        batch = self._batch(topic, partition, start, end)
        owner = owners(batch.keys, batch.offsets, halts)
        parts = tuple(HaltedPart(halted, int((owner == place).sum())) for place, halted in enumerate(halts))
        deferred = (owner != NOBODY) | np.array(self._matching(batch, head.table_name, predicate), dtype=bool)
        rows, counts = self._fates(batch.where((~deferred).tolist()), log)
        counts = replace(counts, consumed=len(batch), deferred=int(deferred.sum()))
        deltas = {at: PartitionDelta(start, end, counts)}
        seam = seam_after_batch(head.seam, deltas, {} if predicate is None else {at: predicate}, {at: parts})
        maps = {self.tiers.map_id: self.tiers.to_json()}
        files = self._write(head.table_name, rows, seam.commit_sequence)
        self._swap(replace(head, seam=seam, tier_maps=maps), files)
        return end - start

    def backfill(self, topic: str, partition: int, offsets: int | None = None) -> int:
        """Write the first deferred range, at most so many offsets of it; return how many records that were.

        What overload deferred is written first, then halted streams.
        """
        head, log, at = self._place(topic, partition)
        held = DeferredList.of(head.seam, at)
        entries = held.ranges
        if not entries:
            return 0
        start = entries[0].start
        end = entries[0].end if offsets is None else min(entries[0].end, start + offsets)
        predicate = predicate_of(entries[0])
        batch = self._batch(topic, partition, start, end)
        if predicate.halted is None:
            nobodys = owners(batch.keys, batch.offsets, held.halted) == NOBODY
            keep = nobodys & np.array(self._matching(batch, head.table_name, predicate), dtype=bool)
        else:
            keep = owners(batch.keys, batch.offsets, (predicate.halted,)) != NOBODY
        rows, found = self._fates(batch.where(keep.tolist()), log)
        seam = seam_after_backfill(head.seam, at, Backfill(start, end, predicate, found))
        files = self._write(head.table_name, rows, seam.commit_sequence, WrittenBy.BACKFILL)
        self._swap(replace(head, seam=seam), files)
        return found.rows + found.duplicates + found.dead_letters

    def _place(self, topic: str, partition: int) -> tuple[TableHead, RegisteredLog, LogPartition]:
        head = self._heads[self._topic(topic).data_type]
        log = head.log_of(topic)
        if log is None:
            raise ValueError(f"expected a registered topic, found {topic}")
        return head, log, LogPartition(log.log_id, partition)

    def _matching(self, batch: LogBatch, data_type: str, predicate: Predicate | None) -> list[bool]:
        priority_of = self.tiers.priorities()
        return [
            predicate is not None and predicate.matches(priority_of((key or b"").decode(), data_type))
            for key in batch.keys
        ]

    def _fates(self, batch: LogBatch, log: RegisteredLog) -> tuple[pl.DataFrame, Counts]:
        """Return the rows of a batch that are no duplicates, and how many records of it have which fate."""
        decoded = self.decoder(self._topic(batch.topic).data_type).decode(batch, log_id=log.log_id)
        repeated = sorted(self.duplicates(batch.topic, batch.partition))
        rows = decoded.rows.filter(~pl.col("log_offset").is_in(repeated))
        self.dead_letters.setdefault((log.topic_id, batch.partition), []).extend(bad.offset for bad in decoded.bad)
        return rows, Counts(
            rows=rows.height, duplicates=decoded.rows.height - rows.height, dead_letters=len(decoded.bad)
        )
