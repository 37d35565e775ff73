"""What is missing in a range of which something is deferred is no gap until the range is written."""

from __future__ import annotations

import polars as pl
import pytest

from k2.ingestion.sequences.ledger import GapLedger
from k2.ingestion.sequences.markers import Marker
from k2.ingestion.sequences.parts import BatchPart, LeftOut
from k2.ingestion.sequences.settings import SequenceSettings
from k2.kafka.ports import LogRange
from k2.schemas.records import WrittenBy
from k2.storage.deferral import Predicate
from k2.storage.seam import DeferredRange, LogPartition, PartitionSeam, Seam
from k2.storage.tables import RegisteredLog, TableHead
from k2.testing.manual_clock import ManualClock
from k2.testing.market_rows import market_rows
from k2.testing.simulated_checkpoints import SimulatedCheckpoints

KEY = LogPartition(0, 0)
TOPIC = "market.simulated.trades.sim"
LOGS = {0: RegisteredLog(0, "cluster", "id", TOPIC, 1, {0: 0})}
BEGIN_S = 1_800_000_000
DAY = 20_454


class World:
    """A log of two symbols that take turns, whose numbers are those of their channel or of each; a table of its rows.

    Of the numbers `missing`, no record ever comes. What is deferred is BBB, and AAA too where it is `wide`. From offset
    `pause_before` on, the log is a minute later.
    """

    def __init__(self, scope: str, *missing: int, memory: int = 1_000_000, pause_before: int = 1_000_000) -> None:
        self.scope, self.missing, self.pause_before = scope, missing, pause_before
        self.settings = SequenceSettings(reorder_messages=2, memory_offsets=memory)
        self.seam, self.commits, self.deferred_from = 0, 0, None
        self.absent: set[int] = set()
        self.backfilled: set[int] = set()
        self.clock = ManualClock(BEGIN_S * 10**9)
        self.written: dict[tuple[str, int, int], None] = {}
        self.marked: list[Marker] = []
        self.checkpoints = SimulatedCheckpoints(0, lost=0, not_saved=0)

    def ledger(self) -> GapLedger:
        return GapLedger(
            "trades", scopes={TOPIC: self.scope}, rows=self, gaps=self, settings=self.settings,
            clock=self.clock, observer=lambda _: None, log_ends=self, markers=self, checkpoints=self.checkpoints,
        )  # fmt: skip

    def frame(self, start: int, end: int) -> pl.DataFrame:
        rows = market_rows(range(start, end), symbols=["AAA", "BBB"])
        number = pl.col("log_offset") if self.scope == "channel" else pl.col("log_offset") // 2
        logged_s = BEGIN_S + pl.col("log_offset") + (pl.col("log_offset") >= self.pause_before) * 60
        logged = pl.from_epoch(logged_s, "s").dt.replace_time_zone("UTC")
        rows = rows.with_columns(sequence=number, channel=pl.lit("c"), ts_log=logged)
        return rows.filter(~pl.col("log_offset").is_in(self.missing))

    def part(self, end: int, *, deferring: bool, wide: bool = False) -> BatchPart:
        rows, left_out = self.frame(self.seam, end), None
        logged_us = rows["ts_log"].dt.epoch("us")[-1]
        if deferring:
            held = {"AAA", "BBB"} if wide else {"BBB"}
            since = self.seam if self.deferred_from is None else self.deferred_from
            left_out = LeftOut(since, Predicate("map", 1 if wide else 2), held.__contains__)
            rows = rows.filter(~pl.col("symbol").is_in(held))
        return BatchPart(TOPIC, self.seam, end, [rows], left_out, logged_us=logged_us)

    def ingest(self, ledger: GapLedger, end: int, *, deferring: bool, wide: bool = False) -> None:
        part = self.part(end, deferring=deferring, wide=wide)
        watched = ledger.watch({KEY: part}, LOGS)
        ledger.record(watched)
        if part.deferring is not None:
            self.deferred_from = part.deferring.since
            self.absent |= {*range(self.seam, end)} - {*part.frames[0]["log_offset"]}
        self.seam, self.commits = end, self.commits + 1
        ledger.committed(watched, self.commits)

    def backfill(self, *ledgers: GapLedger) -> None:
        self.backfilled |= self.absent
        self.absent, self.deferred_from, self.commits = set(), None, self.commits + 1
        for ledger in ledgers:
            ledger.written_elsewhere([KEY])

    def append(self, gap_events: pl.DataFrame) -> int:
        columns = ("event", "first_missing", "last_missing")
        self.written |= dict.fromkeys(gap_events.select(columns).rows())
        return gap_events.height

    def ranges(self, topics: object) -> dict[tuple[str, int], LogRange]:
        del topics
        return {(TOPIC, 0): LogRange(0, self.seam)}

    def refresh(self) -> None: ...

    def of(self, topic: str, partition: int) -> list[Marker]:
        del topic, partition
        return self.marked

    def partitions(self) -> list[tuple[str, int]]:
        return [(TOPIC, 0)]

    def passed_us(self) -> int:
        return self.clock.time_ns() // 1_000

    def pinned(self, table_name: str) -> World:
        assert table_name == "trades"
        return self

    @property
    def head(self) -> TableHead:
        held = () if self.deferred_from is None else (DeferredRange(0, 0, self.deferred_from, self.seam, "map", 1, 1),)
        seam = Seam(self.commits, {KEY: PartitionSeam(self.seam)}, held)
        return TableHead("trades", 1, seam, tuple(LOGS.values()), {}, "memory")

    def rows(self, partition, start, end, *, columns, since_us=0):
        del partition, since_us
        rows = self.frame(start, end).filter(~pl.col("log_offset").is_in(self.absent))
        late = pl.col("log_offset").is_in(self.backfilled)
        by = pl.when(late).then(pl.lit(WrittenBy.BACKFILL)).otherwise(pl.lit(WrittenBy.INGEST))
        yield rows.with_columns(written_by=by).select(columns)


@pytest.mark.parametrize("scope", ["channel", "symbol"])
def test_what_is_deferred_is_no_gap_before_or_after_it_is_written(scope: str) -> None:
    world = World(scope)
    ledger = world.ledger()

    world.ingest(ledger, 10, deferring=False)
    world.ingest(ledger, 30, deferring=True)
    world.ingest(ledger, 50, deferring=True)
    world.backfill(ledger)
    world.ingest(ledger, 70, deferring=False)

    assert list(world.written) == []


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_gap_in_a_channel_that_a_deferred_range_hid_is_found_once_it_is_written(is_killed: bool) -> None:
    world = World("channel", 25, 33)
    ledger = world.ledger()
    world.ingest(ledger, 10, deferring=False)
    world.ingest(ledger, 30, deferring=True)
    world.ingest(ledger, 50, deferring=True)
    before = list(world.written)

    ledger = world.ledger() if is_killed else ledger
    world.backfill(ledger)
    world.ingest(ledger, 70, deferring=False)

    assert before == []
    assert list(world.written) == [("opened", 25, 25), ("opened", 33, 33)]


@pytest.mark.parametrize("scope", ["channel", "symbol"])
def test_a_successor_that_goes_on_deferring_tells_what_its_predecessor_deferred(scope: str) -> None:
    world = World(scope, 25)
    ledger = world.ledger()
    world.ingest(ledger, 10, deferring=False)
    world.ingest(ledger, 40, deferring=True)

    ledger = world.ledger()
    world.ingest(ledger, 70, deferring=True)
    world.backfill(ledger)
    world.ingest(ledger, 120, deferring=False)

    number = 25 if scope == "channel" else 12
    assert list(world.written) == [("opened", number, number)]


@pytest.mark.parametrize("scope", ["channel", "symbol"])
def test_who_takes_over_a_list_that_outlasts_the_memory_tells_what_it_hid(scope: str) -> None:
    world = World(scope, 115, memory=20)
    world.ingest(world.ledger(), 110, deferring=False)
    world.ingest(world.ledger(), 130, deferring=True)
    ledger = world.ledger()
    world.ingest(ledger, 150, deferring=True)
    world.ingest(ledger, 230, deferring=True)

    world.backfill(ledger)
    world.ingest(ledger, 250, deferring=False)

    number = 115 if scope == "channel" else 57
    assert list(world.written) == [("opened", number, number), ("lost", number, number)]


def test_who_comes_back_to_a_list_that_began_anew_takes_no_record_of_the_one_before_for_missing() -> None:
    world = World("symbol")
    first, second = world.ledger(), world.ledger()
    world.ingest(first, 10, deferring=False)
    world.ingest(first, 30, deferring=True)
    world.ingest(second, 50, deferring=True)
    world.backfill(second)

    world.ingest(first, 70, deferring=True)

    assert list(world.written) == []


@pytest.mark.parametrize("others_end", [30, 50])
def test_what_was_deferred_at_a_batch_that_never_came_is_not_missing_later(others_end: int) -> None:
    world = World("symbol")
    first, second = world.ledger(), world.ledger()
    world.ingest(first, 10, deferring=False)
    world.ingest(first, 30, deferring=True)
    second.watch({KEY: world.part(50, deferring=True)}, LOGS)
    if others_end > world.seam:
        world.ingest(first, others_end, deferring=True)
    world.backfill(first)

    world.ingest(second, 70, deferring=False)

    assert list(world.written) == []


def test_what_others_wrote_while_a_batch_was_on_its_way_is_read_after_it() -> None:
    world = World("symbol", 15)
    ledger = world.ledger()
    world.ingest(ledger, 10, deferring=False)
    rows = world.frame(10, 30)
    watched = ledger.watch({KEY: BatchPart(TOPIC, 10, 30, [rows])}, LOGS)

    world.backfilled = {*range(11, 30, 2)}
    ledger.written_elsewhere([KEY])
    world.seam, world.commits = 30, 2
    ledger.committed(watched, 2)
    world.ingest(ledger, 50, deferring=False)

    assert list(world.written) == [("opened", 7, 7)]


def test_a_gap_of_a_symbol_that_is_kept_is_told_at_once() -> None:
    world = World("symbol", 20)
    ledger = world.ledger()
    world.ingest(ledger, 10, deferring=False)

    world.ingest(ledger, 40, deferring=True)

    assert list(world.written) == [("opened", 10, 10)]


def test_what_a_deferred_symbol_misses_waits_for_what_is_deferred() -> None:
    world = World("symbol", 7)
    ledger = world.ledger()
    world.ingest(ledger, 10, deferring=False)

    world.ingest(ledger, 200, deferring=True)
    before = list(world.written)
    world.backfill(ledger)
    world.ingest(ledger, 220, deferring=False)

    assert before == []
    assert list(world.written) == [("opened", 3, 3)]


def test_a_marker_says_nothing_of_a_partition_that_holds_something_back() -> None:
    world = World("symbol")
    ledger = world.ledger()
    world.ingest(ledger, 10, deferring=False)
    world.marked = [Marker("BBB", 19, DAY, (BEGIN_S + 45) * 1_000_000, 0)]

    world.ingest(ledger, 40, deferring=True)
    world.ingest(ledger, 60, deferring=True)
    world.clock.advance(600)
    ledger.watch_quiet()
    before = list(world.written)
    world.backfill(ledger)
    world.ingest(ledger, 80, deferring=False)

    assert before == []
    assert list(world.written) == []


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_marker_of_a_symbol_that_is_kept_counts_as_it_would_without_the_others(is_killed: bool) -> None:
    world = World("symbol", 32)
    ledger = world.ledger()
    world.ingest(ledger, 10, deferring=False)
    world.ingest(ledger, 20, deferring=True)
    ledger = world.ledger() if is_killed else ledger
    world.marked = [Marker("AAA", 16, DAY, (BEGIN_S + 31) * 1_000_000, 0)]
    world.missing = (32, 34)

    world.ingest(ledger, 60, deferring=True)
    before = list(world.written)
    world.backfill(ledger)
    world.ingest(ledger, 80, deferring=False)

    assert before == [("opened", 16, 16), ("opened", 17, 17)]
    assert list(world.written) == before


def test_of_a_list_that_is_written_in_part_nothing_is_told_before_it_is_whole() -> None:
    world = World("symbol", 25, 27, 41)
    ledger = world.ledger()
    world.ingest(ledger, 10, deferring=False)
    world.ingest(ledger, 60, deferring=True)
    world.marked = [Marker("BBB", 12, DAY, (BEGIN_S + 26) * 1_000_000, 0)]
    world.backfilled = {offset for offset in world.absent if offset < 50}
    world.absent -= world.backfilled
    world.deferred_from = 50

    ledger = world.ledger()
    world.ingest(ledger, 70, deferring=True)
    before = list(world.written)
    world.backfill(ledger)
    world.ingest(ledger, 90, deferring=False)

    assert before == []
    assert list(world.written) == [("opened", 12, 12), ("opened", 13, 13), ("opened", 20, 20)]


def test_what_a_symbol_misses_is_decided_by_all_of_the_log_before_a_wider_list_holds_it() -> None:
    world = World("symbol", 26, memory=20, pause_before=29)
    ledger = world.ledger()
    world.ingest(ledger, 10, deferring=False)

    world.ingest(ledger, 30, deferring=True)
    before = list(world.written)
    world.ingest(world.ledger(), 130, deferring=True, wide=True)
    ledger = world.ledger()
    world.backfill(ledger)
    world.ingest(ledger, 150, deferring=False)

    assert before == [("opened", 13, 13)]
    assert list(world.written) == before


def test_where_nothing_is_left_out_the_rows_alone_say_how_late_it_is() -> None:
    world = World("symbol", 26)
    minute_later_us = (BEGIN_S + 90) * 1_000_000
    part = BatchPart(TOPIC, 0, 30, [world.frame(0, 29)], logged_us=minute_later_us)

    watched = world.ledger().watch({KEY: part}, LOGS)

    assert watched.gap_events is None


def test_a_list_that_is_narrower_than_the_one_before_it_lets_symbols_pass_that_were_written_since() -> None:
    world = World("symbol", 20)
    ledger = world.ledger()
    world.ingest(ledger, 10, deferring=False)
    world.ingest(ledger, 40, deferring=True, wide=True)

    world.backfill(ledger)
    world.ingest(ledger, 60, deferring=True)
    before = list(world.written)
    world.backfill(ledger)
    world.ingest(ledger, 80, deferring=False)

    assert before == [("opened", 10, 10)]
    assert list(world.written) == before


def test_what_was_not_decided_yet_is_told_by_the_batch_that_is_begun_again() -> None:
    world = World("symbol", 25)
    ledger = world.ledger()
    world.ingest(ledger, 10, deferring=False)
    world.ingest(ledger, 40, deferring=True)
    ledger = world.ledger()
    world.backfill(ledger)

    ledger.watch({KEY: world.part(60, deferring=False)}, LOGS)
    world.ingest(ledger, 60, deferring=False)

    assert list(world.written) == [("opened", 12, 12)]


def test_who_only_looked_on_while_others_wrote_what_they_had_deferred_tells_it() -> None:
    world = World("symbol", 25)
    world.marked = [Marker("AAA", 0, DAY, BEGIN_S * 1_000_000, 0)]
    ledger, others = world.ledger(), world.ledger()
    world.ingest(ledger, 10, deferring=False)

    world.ingest(others, 40, deferring=True)
    world.backfill(others)
    world.clock.advance(600)
    ledger.watch_quiet()
    world.ingest(ledger, 60, deferring=False)

    assert list(world.written) == [("opened", 12, 12)]


def test_a_partition_that_falls_quiet_is_looked_at_once_its_list_is_empty() -> None:
    world = World("channel", 25)
    world.marked = [Marker("c", 49, DAY, (BEGIN_S + 51) * 1_000_000, 0)]
    ledger = world.ledger()
    world.ingest(ledger, 10, deferring=False)
    world.ingest(ledger, 50, deferring=True)
    world.clock.advance(600)
    ledger.watch_quiet()
    before = list(world.written)

    world.backfill(ledger)
    world.clock.advance(600)
    ledger.watch_quiet()

    assert before == []
    assert list(world.written) == [("opened", 25, 25)]
