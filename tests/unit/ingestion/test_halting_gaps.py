"""on_halt=defer: who is halted and from where, what is said of the others, and what is found once it is written."""

from __future__ import annotations

import polars as pl
import pytest
from pydantic import ValidationError

from k2.ingestion.sequences.ledger import GapLedger
from k2.ingestion.sequences.markers import Marker
from k2.ingestion.sequences.parts import BatchPart, LeftOut
from k2.ingestion.sequences.settings import SequenceSettings
from k2.ingestion.sequences.watched import Watched
from k2.kafka.ports import LogRange
from k2.schemas.records import WrittenBy
from k2.storage.deferral import Predicate
from k2.storage.seam import DeferredRange, HaltedStream, LogPartition, PartitionSeam, Seam
from k2.storage.tables import RegisteredLog, TableHead
from k2.testing.manual_clock import ManualClock
from k2.testing.market_rows import market_rows
from k2.testing.simulated_checkpoints import SimulatedCheckpoints

KEY = LogPartition(0, 0)
TOPIC = "market.simulated.trades.sim"
LOGS = {0: RegisteredLog(0, "cluster", "id", TOPIC, 1, {0: 0})}
BEGIN_S = 1_800_000_000
DEFER = SequenceSettings(reorder_messages=2, on_halt="defer", log_missing_min=1, alert_missing_min=1,
                         halt_missing_min=10)  # fmt: skip
A_AT_10 = HaltedStream("AAA", ("AAA",), 10, (BEGIN_S + 10) * 10**6)


class World:
    """AAA has the even offsets, BBB the odd ones; `jumps` says at which offsets how many of its numbers are skipped.

    From offset `pause_before` on, the log is a minute later. From `deferred_since` on, overload puts off `deferred`.
    """

    def __init__(
        self,
        jumps: dict[int, int],
        *,
        scope: str = "symbol",
        settings: SequenceSettings = DEFER,
        pause_before: int = 999,
    ) -> None:
        self.jumps, self.scope, self.settings, self.pause_before = jumps, scope, settings, pause_before
        self.seam, self.commits = 0, 0
        self.halts: tuple[HaltedStream, ...] = ()
        self.deferred = "BBB"
        self.deferred_since: int | None = None
        self.backfilled: set[int] = set()
        self.clock = ManualClock(BEGIN_S * 10**9)
        self.told: dict[tuple[str, int, int], None] = {}
        self.marked: list[Marker] = []
        self.checkpoints = SimulatedCheckpoints(0, lost=0, not_saved=0)

    def ledger(self) -> GapLedger:
        return GapLedger(
            "trades", scopes={TOPIC: self.scope}, rows=self, gaps=self, settings=self.settings,
            clock=self.clock, observer=lambda _: None, log_ends=self, markers=self, checkpoints=self.checkpoints,
        )  # fmt: skip

    def frame(self, start: int, end: int) -> pl.DataFrame:
        rows = market_rows(range(start, end), symbols=["AAA", "BBB"])
        numbers = []
        for offset in rows["log_offset"]:
            own = offset if self.scope == "channel" else offset // 2
            same = [at for at in self.jumps if self.scope == "channel" or at % 2 == offset % 2]
            numbers.append(own + sum(self.jumps[at] for at in same if at <= offset))
        logged_s = BEGIN_S + pl.col("log_offset") + (pl.col("log_offset") >= self.pause_before) * 60
        logged = pl.from_epoch(logged_s, "s").dt.replace_time_zone("UTC")
        return rows.with_columns(sequence=pl.Series(numbers), channel=pl.lit("c"), ts_log=logged)

    def is_held(self) -> pl.Expr:
        held = [pl.col("symbol").is_in(each.symbols) & (pl.col("log_offset") >= each.since) for each in self.halts]
        if self.deferred_since is not None:
            held.append((pl.col("symbol") == self.deferred) & (pl.col("log_offset") >= self.deferred_since))
        return pl.any_horizontal(pl.lit(value=False), *held)

    def watch(self, ledger: GapLedger, end: int) -> Watched:
        rows, since = self.frame(self.seam, end), self.deferred_since
        logged_us = rows["ts_log"].dt.epoch("us")[-1]
        left_out = None if since is None else LeftOut(since, Predicate("map", 2), {self.deferred}.__contains__)
        kept = [rows.filter(~self.is_held())]
        part = BatchPart(TOPIC, self.seam, end, kept, left_out, self.halts, logged_us)
        return ledger.watch({KEY: part}, LOGS)

    def ingest(self, ledger: GapLedger, end: int) -> None:
        watched = self.watch(ledger, end)
        assert not watched.halts.get(KEY)
        ledger.record(watched)
        self.seam, self.commits = end, self.commits + 1
        ledger.committed(watched, self.commits)

    def release(self, ledger: GapLedger, stream: str) -> None:
        gone = [each for each in self.halts if each.stream == stream]
        self.halts = tuple(each for each in self.halts if each.stream != stream)
        self.backfilled |= {at for each in gone for at in range(each.since, self.seam)}
        self.commits += 1
        ledger.written_elsewhere([KEY])

    def backfill(self, ledger: GapLedger) -> None:
        self.backfilled |= {at for at in range(self.deferred_since or 0, self.seam) if at % 2}
        self.deferred_since, self.commits = None, self.commits + 1
        ledger.written_elsewhere([KEY])

    def append(self, gap_events: pl.DataFrame) -> int:
        self.told |= dict.fromkeys(gap_events.select("event", "first_missing", "last_missing").rows())
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
        held = tuple(DeferredRange(0, 0, each.since, self.seam, "", 4, 1, each) for each in self.halts)
        seam = Seam(self.commits, {KEY: PartitionSeam(self.seam)}, held)
        return TableHead("trades", 1, seam, tuple(LOGS.values()), {}, "memory")

    def rows(self, partition, start, end, *, columns, since_us=0):
        del partition, since_us
        late = pl.col("log_offset").is_in(sorted(self.backfilled))
        by = pl.when(late).then(pl.lit(WrittenBy.BACKFILL)).otherwise(pl.lit(WrittenBy.INGEST))
        yield self.frame(start, end).filter(~self.is_held()).with_columns(written_by=by).select(columns)


def test_a_gap_of_halting_size_halts_its_stream_from_the_message_that_showed_it() -> None:
    world = World({10: 50})

    watched = world.watch(world.ledger(), 40)

    assert watched.halts == {KEY: (A_AT_10,)}


@pytest.mark.parametrize("on_halt", ["alert", "stop"])
def test_other_policies_halt_no_stream(on_halt: str) -> None:
    world = World({10: 50}, settings=DEFER.model_copy(update={"on_halt": on_halt, "reorder_messages": 100}))

    assert not world.watch(world.ledger(), 14).halts.get(KEY)


@pytest.mark.parametrize(("missing", "halts"), [(9, 0), (10, 1)])
def test_a_smaller_gap_halts_nothing(missing: int, halts: int) -> None:
    world = World({10: missing})

    assert len(world.watch(world.ledger(), 12).halts[KEY]) == halts


def test_the_first_gap_of_each_stream_counts() -> None:
    world = World({10: 50, 20: 60, 15: 70})

    found = world.watch(world.ledger(), 40).halts[KEY]

    assert {(each.stream, each.since) for each in found} == {("AAA", 10), ("BBB", 15)}


def test_while_a_stream_is_halted_the_gaps_of_others_are_told() -> None:
    world = World({10: 50, 21: 3})
    ledger = world.ledger()
    world.ingest(ledger, 8)
    world.halts = (A_AT_10,)

    world.ingest(ledger, 40)

    assert list(world.told) == [("opened", 10, 12)]


def test_of_a_halted_stream_is_told_what_was_missing_before_and_no_more() -> None:
    world = World({4: 1, 10: 50})
    ledger = world.ledger()
    world.halts = (A_AT_10,)

    world.ingest(ledger, 8)
    world.ingest(ledger, 60)

    assert list(world.told) == [("opened", 2, 2)]


@pytest.mark.parametrize("is_killed", [False, True])
def test_once_it_is_written_its_gap_is_told_and_halts_it_no_more(is_killed: bool) -> None:
    world = World({10: 50})
    ledger = world.ledger()
    world.ingest(ledger, 8)
    world.halts = (A_AT_10,)
    world.ingest(ledger, 30)
    world.ingest(ledger, 50)
    ledger = world.ledger() if is_killed else ledger

    world.release(ledger, "AAA")
    world.ingest(ledger, 70)

    assert list(world.told) == [("opened", 5, 54)]


def test_no_checkpoint_is_kept_of_a_memory_that_lacks_a_halted_stream() -> None:
    world = World({10: 50})
    world.ingest(world.ledger(), 8)
    world.halts = (A_AT_10,)
    world.ingest(world.ledger(), 30)
    others = world.ledger()
    world.ingest(others, 50)
    world.release(others, "AAA")

    world.ingest(world.ledger(), 70)

    assert list(world.told) == [("opened", 5, 54)]


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_halt_that_outlasts_the_memory_is_decided_all_the_same(is_killed: bool) -> None:
    world = World({10: 50}, settings=DEFER.model_copy(update={"memory_offsets": 20}))
    ledger = world.ledger()
    world.ingest(ledger, 8)
    world.halts = (A_AT_10,)
    world.ingest(ledger, 100)
    ledger = world.ledger() if is_killed else ledger
    world.ingest(ledger, 104)

    world.release(ledger, "AAA")
    world.ingest(ledger, 120)

    assert list(world.told) == [("opened", 5, 54), ("lost", 5, 54)]


def test_one_stream_goes_on_while_another_is_halted() -> None:
    world = World({10: 50, 15: 70})
    ledger = world.ledger()
    world.ingest(ledger, 8)
    world.halts = (A_AT_10, HaltedStream("BBB", ("BBB",), 15, 0))
    world.ingest(ledger, 50)

    world.release(ledger, "AAA")
    world.ingest(ledger, 70)
    only_a = list(world.told)
    world.release(ledger, "BBB")
    world.ingest(ledger, 90)

    assert only_a == [("opened", 5, 54)]
    assert list(world.told) == [("opened", 5, 54), ("opened", 7, 76)]


def test_a_gap_within_what_was_halted_halts_nothing_later() -> None:
    world = World({10: 50, 20: 80})
    ledger = world.ledger()
    world.halts = (A_AT_10,)
    world.ingest(ledger, 50)

    world.release(ledger, "AAA")
    world.ingest(ledger, 70)

    assert list(world.told) == [("opened", 5, 54), ("opened", 60, 139)]


def test_a_later_gap_halts_the_stream_again() -> None:
    world = World({10: 50, 60: 80})
    ledger = world.ledger()
    world.halts = (A_AT_10,)
    world.ingest(ledger, 50)
    world.release(ledger, "AAA")

    assert [each.since for each in world.watch(ledger, 70).halts[KEY]] == [60]


@pytest.mark.parametrize("ends", [(21, 40), (40,)])
def test_a_stream_is_decided_by_the_time_of_records_that_are_left_out_before_it_is_halted(
    ends: tuple[int, ...],
) -> None:
    world = World({10: 50, 19: 1, 21: 70}, pause_before=20)
    ledger = world.ledger()
    world.ingest(ledger, 8)
    b_at_21 = HaltedStream("BBB", ("BBB",), 21, (BEGIN_S + 81) * 10**6)
    for end in ends:
        world.halts = (A_AT_10, b_at_21) if end > 21 else (A_AT_10,)
        world.ingest(ledger, end)
    before = list(world.told)

    world.release(ledger, "AAA")
    world.ingest(ledger, 60)
    world.release(ledger, "BBB")
    world.ingest(ledger, 80)

    assert before == [("opened", 9, 9)]
    assert list(world.told) == [("opened", 9, 9), ("opened", 5, 54), ("opened", 11, 80)]


def test_memory_that_a_dropped_batch_read_beside_a_deferred_range_is_read_anew_once_that_is_written() -> None:
    world = World({10: 50, 21: 3})
    world.ingest(world.ledger(), 8)
    world.halts, world.deferred_since = (A_AT_10,), 8
    world.ingest(world.ledger(), 30)
    successor = world.ledger()
    world.watch(successor, 50)

    world.backfill(successor)
    world.deferred, world.deferred_since = "CCC", 30
    world.ingest(successor, 50)

    assert list(world.told) == [("opened", 10, 12)]


def test_a_halted_channel_takes_its_symbols_along_and_is_watched_once_it_is_written() -> None:
    world = World({30: 50}, scope="channel")
    ledger = world.ledger()
    world.ingest(ledger, 29)
    (halted,) = world.watch(ledger, 50).halts[KEY]
    world.halts = (halted,)

    world.ingest(ledger, 50)
    before = list(world.told)
    world.release(ledger, "c")
    world.ingest(ledger, 70)

    assert (halted.stream, halted.symbols, halted.since) == ("c", ("AAA", "BBB"), 30)
    assert before == []
    assert list(world.told) == [("opened", 30, 79)]


def test_more_symbols_than_the_limit_go_on() -> None:
    world = World({30: 50}, scope="channel", settings=DEFER.model_copy(update={"halt_symbols_max": 1}))

    assert world.watch(world.ledger(), 50).halts[KEY] == ()


def test_the_missing_end_of_another_stream_is_told_while_one_is_halted() -> None:
    world = World({10: 50})
    ledger = world.ledger()
    world.halts = (A_AT_10,)
    world.ingest(ledger, 20)
    at_us = (BEGIN_S + 100) * 10**6
    world.marked = [Marker("AAA", 200, 20_454, at_us, 1), Marker("BBB", 30, 20_454, at_us, 2)]
    world.clock.advance(1_000)

    ledger.watch_quiet()

    assert [each for each in world.told if each[0] == "opened"] == [("opened", 10, 30)]


def test_a_marker_decides_nothing_of_a_halted_stream() -> None:
    world = World({4: 1, 10: 50}, settings=DEFER.model_copy(update={"holes_max": 1}))
    ledger = world.ledger()
    world.ingest(ledger, 8)
    world.halts = (A_AT_10,)
    world.marked = [Marker("AAA", 200, 20_454, (BEGIN_S + 10) * 10**6 + 1, 1)]

    world.ingest(ledger, 12)

    assert list(world.told) == [("opened", 2, 2)]


def test_what_is_late_must_not_halt() -> None:
    with pytest.raises(ValidationError, match="halt_missing_min above reorder_messages"):
        SequenceSettings(on_halt="defer", reorder_messages=1_000)
