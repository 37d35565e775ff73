"""A token gives its rows again whatever happens to the tables, and is refused where retention has taken some of them.

Real tables: commits with dead letters, deferrals and their backfill, replays, compaction, expiry, retention and tags
come in an order drawn from a seed. A tag answers for as long as it is there, whatever retention drops.
"""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING

import polars as pl
import pytest

from k2 import bootstrap
from k2.common.errors import ExpiredError
from k2.query.request import QueryRequest
from k2.schemas.tier_maps import TierMap
from k2.settings import Settings
from k2.storage.backfills import BackfilledRange, BackfillWriter
from k2.storage.deferral import Backfill, Deferral, Predicate
from k2.storage.expiry import SnapshotExpiry
from k2.storage.named_snapshots import SnapshotTags
from k2.storage.replays import Replay, ReplayWriter
from k2.storage.seam import Counts, LogPartition, PartitionDelta
from k2.storage.settings import UpkeepSettings
from k2.storage.upkeep.compaction import Compactor
from k2.storage.upkeep.orphans import OrphanSweep
from k2.storage.upkeep.retention import Retention
from k2.storage.writer import Batch
from k2.testing.local_lake import TOPIC, LocalLake
from k2.testing.manual_clock import ManualClock
from k2.testing.market_rows import START_NS, market_rows

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from k2.query.gap_aware import GapAwareEngine

SEEDS = range(3)
STEPS = 45
KEY = LogPartition(0, 0)
DAY_NS = 86_400_000_000_000
STEP_NS = DAY_NS // 20
SYMBOLS = ("AAA", "BBB", "CCC")
TIERS = TierMap.of({"AAA"}, set())
LOW = Predicate(TIERS.map_id, 3)
UPKEEP = UpkeepSettings(quiet_minutes=0, merge_files_min=2, file_bytes_min=1, file_bytes_max=2)


class AllNew:
    """What is replayed repeats nothing."""

    def repeated(self, _rows: pl.DataFrame) -> frozenset[int]:
        return frozenset()

    def outstanding(self, offsets: Collection[int]) -> frozenset[int]:
        return frozenset(offsets)


def rows_of(offsets: Collection[int]) -> pl.DataFrame:
    return market_rows(sorted(offsets), symbols=SYMBOLS, step_ns=STEP_NS)


class World:
    """One run: the tables, which rows they hold, and what was answered with which token."""

    def __init__(self, seed: int, directory: Path, engine: GapAwareEngine, lake: LocalLake) -> None:
        self.random = random.Random(seed)
        self.directory, self.engine, self.lake = directory, engine, lake
        self.tags = SnapshotTags(lake.tables, lake.settings, lake.clock)
        self.end = 0
        self.held: set[int] = set()
        self.dead: set[int] = set()
        self.answered: list[tuple[QueryRequest, list[int]]] = []
        self.named: dict[str, set[int]] = {}
        self.refused = 0
        self.from_older = 0

    def ask(self, request: QueryRequest) -> list[int]:
        found: list[int] = self.engine.query(request).table["log_offset"].to_pylist()
        return found

    def expected(self, request: QueryRequest, held: set[int]) -> list[int]:
        start = -1 if request.start_ns is None else request.start_ns
        place = SYMBOLS.index(request.symbol)
        return [each for each in sorted(held) if each % 3 == place and START_NS + each * STEP_NS >= start]

    def commit(self) -> None:
        count = self.random.choice([5, 20, 40])
        offsets = set(range(self.end, self.end + count))
        dead = {each for each in offsets if self.random.random() < 0.1}
        counts = Counts(consumed=count, rows=count - len(dead), dead_letters=len(dead))
        self._commit(offsets - dead, counts)
        self.dead |= dead

    def defer_and_backfill(self) -> None:
        offsets = set(range(self.end, self.end + 9))
        kept = {each for each in offsets if each % 3 == 0}
        start = self.end
        deferral = Deferral({KEY: LOW}, tier_maps={TIERS.map_id: TIERS.to_json()})
        self._commit(kept, Counts(consumed=9, rows=3, deferred=6), deferral)
        self.ask_now("AAA")
        late = rows_of(offsets - kept).drop("commit_sequence", "written_by")
        backfill = Backfill(start, start + 9, LOW, Counts(rows=6))
        BackfillWriter(self.lake.tables, "trades", self.lake.settings, self.lake.clock).commit(
            BackfilledRange(KEY, backfill, late)
        )
        self.held |= offsets

    def replay(self) -> None:
        if self.dead:
            offset = self.random.choice(sorted(self.dead))
            rows = rows_of([offset]).drop("commit_sequence", "written_by")
            writer = ReplayWriter(self.lake.tables, "trades", self.lake.settings, self.lake.clock)
            writer.commit(Replay(KEY, rows, {}, AllNew()))
            self.dead.discard(offset)
            self.held.add(offset)

    def compact(self) -> None:
        scratch = self.directory / "scratch"
        list(
            Compactor(self.lake.tables, self.lake.settings, UPKEEP, self.lake.clock, scratch_dir=scratch).run("trades")
        )

    def expire(self) -> None:
        SnapshotExpiry(self.lake.tables, self.lake.settings, self.lake.clock).expire("trades")
        OrphanSweep(self.lake.tables, self.lake.settings, UPKEEP, self.lake.clock).sweep("trades")
        self.lake.clock.sleep(25 * 3_600)

    def drop_days(self) -> None:
        retention = Retention(self.lake.tables, self.lake.settings, self.lake.clock)
        days = retention.plan("trades", older_than_days=0)[:1]
        retention.drop("trades", days)
        gone = {(day.date.toordinal() - 719_163) * DAY_NS for day in days}
        self.held = {each for each in self.held if (START_NS + each * STEP_NS) // DAY_NS * DAY_NS not in gone}

    def tag(self) -> None:
        name = f"t{len(self.named)}"
        if self.held and self.tags.tag(name, "trades") is not None:
            self.named[name] = set(self.held)

    def untag(self) -> None:
        if self.named:
            name = self.random.choice(sorted(self.named))
            self.tags.drop(name, "trades")
            self.named[name] = set()

    def ask_now(self, symbol: str | None = None) -> None:
        start = self.random.choice([None, START_NS + self.random.randrange(self.end + 1) * STEP_NS])
        symbol = symbol or self.random.choice(SYMBOLS)
        request = QueryRequest(data_type="trades", symbol=symbol, exchange="sim", start_ns=start, lake_only=True)

        answer = self.engine.query(request)

        found = answer.table["log_offset"].to_pylist()
        assert found == self.expected(request, self.held)
        self.answered.append((dataclasses.replace(request, as_of=answer.certificate.as_of), found))

    def ask_again(self) -> None:
        for request, before in self.random.sample(self.answered, min(4, len(self.answered))):
            now = self.expected(request, self.held)
            try:
                found = self.ask(request)
            except ExpiredError:
                self.refused += 1
                continue
            assert found == before
            self.from_older += not set(before) <= set(now)

    def ask_the_tags(self) -> None:
        for name, held in self.named.items():
            request = QueryRequest(
                data_type="trades", symbol=self.random.choice(SYMBOLS), exchange="sim", as_of=name, lake_only=True
            )
            if held:
                assert self.ask(request) == self.expected(request, held)

    def _commit(self, kept: set[int], counts: Counts, deferral: Deferral | None = None) -> None:
        delta = PartitionDelta(self.end, self.end + counts.consumed, counts)
        writer = self.lake.writer()
        batch = Batch(f"b{self.end}", {KEY: delta}, writer.write_files(rows_of(kept)))
        writer.commit(batch if deferral is None else dataclasses.replace(batch, deferral=deferral))
        self.end += counts.consumed
        self.held |= kept


@pytest.mark.parametrize("seed", SEEDS)
def test_a_token_gives_its_rows_again_or_is_refused_where_retention_took_some(seed: int, tmp_path: Path) -> None:
    clock = ManualClock(START_NS + 1_000 * DAY_NS)
    lake = LocalLake(tmp_path, clock, snapshots_kept_min=1, snapshots_kept_max=2, snapshot_age_min_seconds=0)
    lake.tables.ensure()
    lake.tables.register_log("trades", cluster_id="c", topic_id="t", topic=TOPIC, starts={0: 0})
    with bootstrap.lake_engine(Settings(data_dir=tmp_path, catalog=lake.settings)) as engine:
        world = World(seed, tmp_path, engine, lake)
        world.commit()
        world.ask_now()
        for _ in range(STEPS):
            what = world.random.choices(
                ["commit", "defer_and_backfill", "replay", "compact", "expire", "drop_days", "tag", "untag", "ask_now",
                 "ask_again", "ask_the_tags"],
                [5, 2, 3, 2, 3, 1, 2, 0.5, 5, 5, 2],
            )[0]  # fmt: skip
            getattr(world, what)()
        world.tag()
        world.drop_days()
        world.expire()
        world.ask_the_tags()
        world.ask_again()
    lake.close()

    assert len(world.answered) > 1
    assert world.refused + world.from_older > 0
