"""Ingestion, merging, compaction, expiry, retention and sweeps on one table, with crashes and lost replies, by seed.

Invariants: every snapshot has a seam, and along the snapshots it never goes back; the rows are those of a plain model,
column for column; the seam counts what the table holds; a reader reads what it pinned for as long as it may.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from k2.common.errors import FencedError, K2Error
from k2.storage import data_files, replacing, writer
from k2.storage.expiry import SnapshotExpiry
from k2.storage.planning import Planner
from k2.storage.seam import Counts, LogPartition, PartitionDelta, Seam
from k2.storage.settings import UpkeepSettings
from k2.storage.upkeep import orphans
from k2.storage.upkeep.compaction import Compactor
from k2.storage.upkeep.orphans import OrphanSweep
from k2.storage.upkeep.retention import Retention
from k2.storage.writer import Batch
from k2.testing.faulty_catalog import Fault
from k2.testing.local_lake import PARTITIONS, LocalLake
from k2.testing.manual_clock import ManualClock
from k2.testing.market_rows import START_NS, market_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.storage.tables import MarketTables

SEEDS = range(5)
STEPS = 90
DAY_NS = 86_400_000_000_000
OFFSETS_A_DAY = 25
KEYS = tuple(LogPartition(0, number) for number in range(PARTITIONS))
ORDER = ("log_partition", "log_offset")


class Crash(BaseException):
    """The process ends here, as by kill -9."""


@dataclass
class Pin:
    """What a reader began to read, and when."""

    snapshot_id: int
    at_ns: int
    paths: list[str]
    rows: pl.DataFrame


@dataclass
class World:
    """One table, who works on it, and the model of its rows."""

    directory: Path
    draw: random.Random
    crashing: bool = False
    clock: ManualClock = field(default_factory=lambda: ManualClock(START_NS + 30 * DAY_NS))
    batches: dict[str, pl.DataFrame] = field(default_factory=dict)
    pins: list[Pin] = field(default_factory=list)
    busy: bool = False

    def __post_init__(self) -> None:
        self.lake = self.open(snapshots_kept_max=6).create()
        self.ingesting = self.open()
        self.settings = UpkeepSettings(
            file_bytes_min=10**9, file_bytes_max=2 * 10**9, merge_files_min=3, sort_rows_max=256, sort_pieces_max=2
        )
        self.planner = Planner(self.lake.tables, self.lake.settings)
        self.lake.catalog.before_commit = self.somebody_else

    def open(self, **settings: float) -> LocalLake:
        limits = {"commit_attempts_max": 4, "manifests_merge_count": 3, "snapshots_kept_min": 2, **settings}
        return LocalLake(self.directory, self.clock, snapshot_age_min_seconds=0, **limits)

    def reached(self, _point: str) -> None:
        if self.crashing and self.draw.random() < 0.1:
            raise Crash

    def somebody_else(self) -> None:
        if not self.busy and self.draw.random() < 0.3:
            self.busy, crashing, self.crashing = True, self.crashing, False
            self.ingest()
            self.busy, self.crashing = False, crashing

    def ingest(self) -> None:
        number = self.draw.randrange(PARTITIONS)
        start = self.ingesting.tables.head("trades").seam.next_offset(KEYS[number]) or 0
        end = start + self.draw.randint(1, 12)
        batch_id = f"b{len(self.batches)}"
        made = market_rows(
            range(start, end), partition=number, step_ns=DAY_NS // OFFSETS_A_DAY, commit_sequence=len(self.batches)
        )
        self.batches[batch_id] = made
        delta = PartitionDelta(start, end, Counts(consumed=end - start, rows=end - start))
        writes = self.ingesting.writer()
        batch = Batch(batch_id, {KEYS[number]: delta}, writes.write_files(made))
        self.faults(self.ingesting)
        try:
            writes.commit(batch)
        finally:
            self.ingesting.catalog.faults.clear()

    def faults(self, lake: LocalLake) -> None:
        kinds = [Fault.NONE] * 4 + [Fault.LOSE_REPLY, Fault.FAIL_BEFORE_SWAP]
        lake.catalog.faults.extend(self.draw.choices(kinds, k=3))

    def compact(self) -> None:
        quiet = self.settings.model_copy(update={"quiet_minutes": self.draw.choice([0, 10**9])})
        compactor = Compactor(
            self.lake.tables, self.lake.settings, quiet, self.clock, scratch_dir=self.directory / "scratch"
        )
        list(compactor.run("trades"))

    def expire(self) -> None:
        SnapshotExpiry(self.lake.tables, self.lake.settings, self.clock).expire("trades")

    def sweep(self) -> None:
        self.clock.advance(self.draw.choice([1, 5, 13]) * 3_600)
        OrphanSweep(self.lake.tables, self.lake.settings, self.settings, self.clock).sweep("trades")

    def retain(self) -> None:
        retention = Retention(self.lake.tables, self.lake.settings, self.clock)
        age_days = (self.clock.time_ns() - START_NS) // DAY_NS - self.draw.randrange(3)
        retention.drop("trades", retention.plan("trades", older_than_days=age_days))

    def pin(self) -> None:
        pinned = self.planner.pin("trades")
        if pinned.head.snapshot_id is not None:
            paths = [file.path for file in self.planner.plan(pinned)]
            self.pins.append(Pin(pinned.head.snapshot_id, self.clock.time_ns(), paths, read(paths)))

    def step(self) -> None:
        actions: list[tuple[Callable[[], None], int]] = [
            (self.ingest, 8), (self.compact, 4), (self.expire, 3), (self.sweep, 3), (self.retain, 1), (self.pin, 1),
        ]  # fmt: skip
        (action,) = self.draw.choices([one for one, _ in actions], [weight for _, weight in actions])
        self.crashing = action != self.pin
        if action != self.ingest:
            self.faults(self.lake)
        try:
            action()
        except (Crash, FencedError):
            pass
        except K2Error as error:
            if not any(text in str(error) for text in ("no success", "not known to be", "expiring", "run the command")):
                raise
        finally:
            self.crashing = self.busy = False
            self.lake.catalog.faults.clear()


def read(paths: list[str]) -> pl.DataFrame:
    if not paths:
        return market_rows([])
    return pl.concat([pl.read_parquet(path) for path in paths]).sort(ORDER)


def held(tables: MarketTables) -> pl.DataFrame:
    found = pl.DataFrame(pl.from_arrow(tables.load("trades").scan().to_arrow()))
    return found.sort(ORDER).select(market_rows([]).columns).cast(market_rows([]).schema)


def check(world: World) -> None:
    table = world.lake.tables.load("trades")
    seams = [
        Seam.from_summary(one.summary.additional_properties)
        for one in sorted(table.snapshots(), key=lambda one: one.sequence_number)
    ]
    for before, after in pairwise(seams):
        assert after.commit_sequence >= before.commit_sequence
        for key, part in before.partitions.items():
            assert after.partitions[key].next_offset >= part.next_offset
            assert after.partitions[key].removed_rows >= part.removed_rows
    rows, seam = held(world.lake.tables), seams[-1]
    for key in KEYS:
        part, mine = seam.partitions[key], rows.filter(pl.col("log_partition") == key.partition)
        assert part.counts.rows == part.counts.consumed == part.next_offset
        assert part.rows_held == mine.height
        offsets = mine["log_offset"].to_list()
        assert len(set(offsets)) == len(offsets)
        missing = set(range(part.next_offset)) - set(offsets)
        assert len(missing) == part.removed_rows
        assert all(offset < 3 * OFFSETS_A_DAY for offset in missing), "retention drops the first days only"
    # A batch that was refused or never known to have landed may share coordinates with a later one that did.
    model = pl.concat([market_rows([]), *world.batches.values()])
    assert rows.join(model, on=rows.columns, how="anti", nulls_equal=True).is_empty()


def check_pins(world: World) -> None:
    alive = {one.snapshot_id for one in world.lake.tables.load("trades").snapshots()}
    limit_ns = int(world.settings.orphan_hours * 3_600 * 1e9)
    world.pins = [pin for pin in world.pins if pin.snapshot_id in alive or world.clock.time_ns() - pin.at_ns < limit_ns]
    for pin in world.pins:
        assert read(pin.paths).equals(pin.rows)


@pytest.mark.parametrize("seed", SEEDS)
def test_upkeep_beside_ingestion_changes_no_row_and_no_seam(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, random.Random(seed))
    for module in (data_files, orphans, replacing, writer):
        monkeypatch.setattr(module, "reached", world.reached)

    for number in range(STEPS):
        world.step()
        if number % 6 == 0:
            check(world)
            check_pins(world)

    check(world)
    check_pins(world)
    assert held(world.lake.tables).height, f"seed {seed} kept no row"
    world.lake.close()
    world.ingesting.close()
