"""Overlapping writers on one log, with conflicts, lost replies, crashes and expiry, drawn from a seed.

Invariants, after every step: each coordinate is in the table at most once; the seam never goes back; the rows are
exactly those below the seam; the counters agree with the rows. At the end the whole log is in the table.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from k2.common.errors import FencedError, UnavailableError
from k2.storage.expiry import SnapshotExpiry
from k2.storage.seam import LogPartition
from k2.testing.faulty_catalog import Fault
from k2.testing.local_lake import PARTITIONS, LocalLake
from k2.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from pathlib import Path

    from k2.storage.seam import Seam
    from k2.storage.writer import Batch

Place = dict[str, str]
LOG_LENGTH = 60
SEEDS = range(12)


class Worker:
    """A writer that reads from where it believes the table ends, as a consumer that may have lost its partitions."""

    def __init__(self, directory: Path, number: int, draw: random.Random, place: Place, log_length: int) -> None:
        self.lake = LocalLake(directory, ManualClock(), commit_attempts_max=3, manifests_merge_count=4, **place)
        self.log_length = log_length
        self.number = number
        self.draw = draw
        self.position: dict[int, int] = {}
        self.pending: Batch | None = None
        self.batches = 0

    def seek(self) -> None:
        seam = self.lake.tables.head("trades").seam
        self.position = {part: seam.next_offset(LogPartition(0, part)) or 0 for part in range(PARTITIONS)}
        self.pending = None

    def step(self) -> None:
        if not self.position:
            self.seek()
        elif self.pending is None:
            self.prepare()
        else:
            self.commit(self.pending)

    def prepare(self) -> None:
        part = self.draw.randrange(PARTITIONS)
        start = self.position[part]
        end = min(self.log_length, start + self.draw.randint(1, 12))
        if start < end:
            self.batches += 1
            self.pending = self.lake.batch(f"{self.number}-{self.batches}", start, end, partition=part)
        elif all(offset == self.log_length for offset in self.position.values()):
            self.seek()

    def commit(self, batch: Batch) -> None:
        faults = [Fault.NONE] * 4 + [Fault.LOSE_REPLY] * 2 + [Fault.FAIL_BEFORE_SWAP] * 2
        self.lake.catalog.faults.extend(self.draw.choices(faults, k=3))
        try:
            self.lake.writer().commit(batch)
        except FencedError:
            self.seek()
        except UnavailableError:
            if self.draw.random() < 0.5:
                self.seek()  # restarted: knows nothing of its batch
        else:
            for key, delta in batch.deltas.items():
                self.position[key.partition] = delta.end
            self.pending = None
        finally:
            self.lake.catalog.faults.clear()

    def crash(self) -> None:
        self.position, self.pending = {}, None


def check(lake: LocalLake, before: Seam) -> Seam:
    seam = lake.tables.head("trades").seam
    rows = lake.coordinates()
    assert seam.commit_sequence >= before.commit_sequence
    for key, part in seam.partitions.items():
        assert part.next_offset >= before.partitions[key].next_offset
        assert part.counts.rows == part.counts.consumed == part.next_offset
    assert rows == [
        (0, part, offset)
        for part in range(PARTITIONS)
        for offset in range(seam.partitions[LogPartition(0, part)].next_offset)
    ]
    return seam


@pytest.mark.parametrize("seed", SEEDS)
def test_overlapping_writers_neither_lose_nor_double_a_row(tmp_path: Path, seed: int) -> None:
    run(tmp_path, seed, {}, LOG_LENGTH)


def test_overlapping_writers_neither_lose_nor_double_a_row_on_any_catalog_and_store(
    place: Place, tmp_path: Path
) -> None:
    run(tmp_path, 2026, place, 20)


def run(tmp_path: Path, seed: int, place: Place, log_length: int) -> None:
    draw = random.Random(seed)
    observer = LocalLake(tmp_path, snapshots_kept_min=1, snapshot_age_min_seconds=0, **place).create()
    expiry = SnapshotExpiry(observer.tables, observer.settings, observer.clock)
    workers = [Worker(tmp_path, number, draw, place, log_length) for number in range(3)]
    seam = observer.tables.head("trades").seam
    interruptions = [worker.step for worker in workers]

    def somebody_else(worker: Worker) -> None:
        others = [other for other in workers if other is not worker and not busy]
        if others and draw.random() < 0.3:
            busy.append(worker)
            draw.choice(others).step()
            busy.pop()

    busy: list[Worker] = []
    for worker in workers:
        worker.lake.catalog.before_commit = lambda worker=worker: somebody_else(worker)

    for step in range(400):
        draw.choice(interruptions)()
        if draw.random() < 0.05:
            draw.choice(workers).crash()
        if draw.random() < 0.05:
            expiry.expire("trades")
        if step % 10 == 0:
            seam = check(observer, seam)
        if all(part.next_offset == log_length for part in seam.partitions.values()):
            break

    check(observer, seam)
    assert all(part.next_offset == log_length for part in seam.partitions.values()), f"seed {seed} made no progress"
    for lake in (observer, *(worker.lake for worker in workers)):
        lake.close()
