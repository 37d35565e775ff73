"""What is missing at the end of a partition that fell quiet is found once the table holds all of its log."""

from __future__ import annotations

import polars as pl
import pytest

from k2.common.errors import AccountingError, UnavailableError
from k2.ingestion.sequences.ledger import GapLedger
from k2.ingestion.sequences.markers import Marker
from k2.ingestion.sequences.parts import BatchPart
from k2.ingestion.sequences.settings import SequenceSettings
from k2.kafka.ports import LogRange
from k2.storage.seam import LogPartition, PartitionSeam, Seam
from k2.storage.tables import RegisteredLog, TableHead
from k2.testing.manual_clock import ManualClock
from k2.testing.market_rows import market_rows

KEY = LogPartition(0, 0)
TOPIC = "market.simulated.trades.sim"
LOGS = {0: RegisteredLog(0, "cluster", "id", TOPIC, 1, {0: 0})}
BEGIN_S = 1_800_000_000
DAY = 20_454


class World:
    """A log of one symbol whose numbers are the offsets, a second apart; a marker after ten of them says `last`."""

    def __init__(self, *, last: int = 12, fails: bool = False) -> None:
        self.clock = ManualClock(BEGIN_S * 10**9)
        self.end, self.seam, self.commits, self.fails = 10, 0, 0, fails
        self.marked = [Marker("AAA", last, DAY, (BEGIN_S + 20) * 1_000_000, 0)]
        self.written: list[tuple[str, int, int, int]] = []

    def frame(self, start: int, end: int, numbers: range | None = None) -> pl.DataFrame:
        rows = market_rows(range(start, end), symbols=["AAA"])
        logged = pl.from_epoch(pl.col("log_offset") + BEGIN_S, "s").dt.replace_time_zone("UTC")
        return rows.with_columns(ts_log=logged, sequence=pl.Series(numbers or range(start, end), dtype=pl.Int64))

    def ledger(self, **settings) -> GapLedger:
        return GapLedger(
            "trades", scopes={TOPIC: "symbol"}, rows=self, gaps=self, settings=SequenceSettings(**settings),
            clock=self.clock, observer=lambda _: None, log_ends=self, markers=self,
        )  # fmt: skip

    def commit(self, ledger: GapLedger, frame: pl.DataFrame, end: int) -> None:
        watched = ledger.watch({KEY: BatchPart(TOPIC, self.seam, end, [frame])}, LOGS)
        ledger.record(watched)
        self.seam, self.commits = end, self.commits + 1
        ledger.committed(watched, self.commits)

    def look(self, ledger: GapLedger) -> None:
        self.clock.advance(60)
        ledger.watch_quiet()

    # Markers.

    def refresh(self) -> None:
        if self.fails:
            raise UnavailableError("the log is down", dependency="kafka")

    def of(self, topic: str, partition: int) -> list[Marker]:
        assert (topic, partition) == (TOPIC, 0)
        return self.marked

    def partitions(self) -> list[tuple[str, int]]:
        return [(TOPIC, 0)]

    def passed_us(self) -> int:
        return self.clock.time_ns() // 1_000

    # The log's ends, the table of gaps, and the table itself.

    def ranges(self, topics: object) -> dict[tuple[str, int], LogRange]:
        assert topics == {TOPIC}
        return {(TOPIC, 0): LogRange(0, self.end)}

    def append(self, gap_events: pl.DataFrame) -> int:
        columns = ("event", "first_missing", "last_missing", "decided_offset")
        new = [row for row in gap_events.select(columns).rows() if row not in self.written]
        self.written += new
        return len(new)

    def pinned(self, table_name: str) -> World:
        assert table_name == "trades"
        return self

    @property
    def head(self) -> TableHead:
        return TableHead("trades", 1, Seam(self.commits, {KEY: PartitionSeam(self.seam)}), tuple(LOGS.values()), {}, "")

    def rows(self, partition, start, end, *, columns, since_us=0):
        del partition, since_us
        yield self.frame(start, end).select(columns)


def test_a_missing_end_is_opened_while_nothing_else_comes():
    world = World()
    ledger = world.ledger()
    world.commit(ledger, world.frame(0, 10), 10)

    world.look(ledger)

    assert world.written == [("opened", 10, 12, 9)]


def test_it_is_told_once_however_often_and_by_whomever_it_is_looked_at():
    world = World()
    ledger = world.ledger()
    world.commit(ledger, world.frame(0, 10), 10)

    for each in (ledger, ledger, world.ledger()):
        world.look(each)

    assert world.written == [("opened", 10, 12, 9)]


def test_a_worker_that_starts_after_the_end_finds_it_too():
    world = World()
    world.seam, world.commits = 10, 3

    world.look(world.ledger())

    assert world.written == [("opened", 10, 12, 9)]


def test_while_the_log_holds_more_than_the_table_nothing_is_said():
    world = World()
    ledger = world.ledger()
    world.commit(ledger, world.frame(0, 10), 10)
    world.end = 13

    world.look(ledger)

    assert world.written == []


def test_within_the_reorder_window_nothing_is_said():
    world = World()
    ledger = world.ledger(reorder_seconds=41)
    world.commit(ledger, world.frame(0, 10), 10)

    world.look(ledger)

    assert world.written == []


def test_late_numbers_fill_it():
    world = World()
    ledger = world.ledger()
    world.commit(ledger, world.frame(0, 10), 10)
    world.look(ledger)

    world.end = 12
    world.commit(ledger, world.frame(10, 12, range(11, 13)), 12)

    assert world.written[1:] == [("filled", 11, 11, 11), ("filled", 12, 12, 11)]


def test_between_two_looks_some_time_passes():
    world = World()
    ledger = world.ledger(quiet_look_seconds=100)
    world.look(ledger)
    world.commit(ledger, world.frame(0, 10), 10)

    world.clock.advance(39)
    ledger.watch_quiet()

    assert world.written == []


def test_a_missing_end_may_halt_the_table():
    world = World(last=2_000)
    ledger = world.ledger(on_halt="stop")
    world.commit(ledger, world.frame(0, 10), 10)

    with pytest.raises(AccountingError, match="10 to 2,000"):
        world.look(ledger)


def test_markers_that_cannot_be_read_hold_a_batch_up():
    world = World(fails=True)

    with pytest.raises(UnavailableError):
        world.commit(world.ledger(), world.frame(0, 10), 10)
