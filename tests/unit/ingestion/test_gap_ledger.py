"""The ledger's memory: moved by commits alone, rolled forward or rebuilt from the table; and how loudly it tells."""

from __future__ import annotations

import polars as pl
import pytest

from k2.common.errors import AccountingError, FencedError
from k2.ingestion import events
from k2.ingestion.sequences.checkpoints import NoCheckpoints
from k2.ingestion.sequences.ledger import GapLedger
from k2.ingestion.sequences.parts import BatchPart
from k2.ingestion.sequences.settings import SequenceSettings
from k2.kafka.topics import TopicCatalog
from k2.storage.seam import LogPartition, PartitionSeam, Seam
from k2.storage.tables import RegisteredLog, TableHead
from k2.testing.manual_clock import ManualClock
from k2.testing.market_rows import market_rows
from k2.testing.simulated_checkpoints import SimulatedCheckpoints

KEY = LogPartition(0, 0)
TOPIC = "market.simulated.trades.sim"
LOGS = {0: RegisteredLog(0, "cluster", "id", TOPIC, 1, {0: 0})}


class World:
    """A table whose numbers are its offsets, less those left out; and the gaps written of it."""

    def __init__(self, *missing: int) -> None:
        self.missing = missing
        self.seam = 0
        self.commit_sequence = 0
        self.read: list[tuple[int, int]] = []
        self.written: list[pl.DataFrame] = []
        self.told: list[events.Event] = []
        self.looked_up = 0
        self.checkpoints = NoCheckpoints()

    def frame(self, start: int, end: int) -> pl.DataFrame:
        rows = market_rows(range(start, end), symbols=["AAA"]).filter(~pl.col("log_offset").is_in(self.missing))
        return rows.with_columns(ts_log=pl.from_epoch(pl.col("log_offset") + 10**6, "s").dt.replace_time_zone("UTC"))

    def part(self, start: int, end: int) -> dict[LogPartition, BatchPart]:
        return {KEY: BatchPart(TOPIC, start, end, [self.frame(start, end)])}

    def ledger(self, **settings) -> GapLedger:
        chosen = SequenceSettings(reorder_messages=2, **settings)
        return GapLedger(
            "trades", scopes={TOPIC: "symbol"}, rows=self, gaps=self, settings=chosen, clock=ManualClock(),
            observer=self.told.append, log_ends=self, history=self, checkpoints=self.checkpoints,
        )  # fmt: skip

    def commit(self, ledger: GapLedger, start: int, end: int) -> None:
        watched = ledger.watch(self.part(start, end), LOGS)
        ledger.record(watched)
        self.seam, self.commit_sequence = end, self.commit_sequence + 1
        ledger.committed(watched, self.commit_sequence)

    # The table of gaps, and the table itself.

    def append(self, gap_events: pl.DataFrame) -> int:
        self.written.append(gap_events)
        return gap_events.height

    def events(self, topic_id: str, partition: int) -> pl.DataFrame:
        assert (topic_id, partition) == ("id", 0)
        self.looked_up += 1
        return pl.concat(self.written)

    def pinned(self, table_name: str) -> World:
        assert table_name == "trades"
        return self

    @property
    def head(self) -> TableHead:
        seam = Seam(self.commit_sequence, {KEY: PartitionSeam(self.seam)})
        return TableHead("trades", 1, seam, tuple(LOGS.values()), {}, "memory")

    def rows(self, partition, start, end, *, columns, since_us=0):
        assert (partition, since_us >= 0) == (KEY, True)
        self.read.append((start, end))
        yield self.frame(start, end).select(columns)

    def gaps(self) -> list[tuple[str, int, int]]:
        return [row for part in self.written for row in part.select("event", "first_missing", "last_missing").rows()]


def test_a_gap_is_written_once_its_window_is_over():
    world = World(10, 11)
    ledger = world.ledger()

    world.commit(ledger, 0, 14)
    before = world.gaps()
    world.commit(ledger, 14, 15)

    assert (before, world.gaps()) == ([], [("opened", 10, 11)])


def test_a_hole_that_is_one_too_many_is_told_before_it_is_given_up():
    world = World(10, 12)

    world.commit(world.ledger(holes_max=1), 0, 14)

    assert world.gaps() == [("opened", 10, 10), ("lost", 10, 10)]


def test_a_batch_that_is_dropped_leaves_no_trace_in_the_memory():
    world = World(10)
    ledger = world.ledger()
    world.commit(ledger, 0, 9)

    ledger.watch(world.part(9, 20), LOGS)
    world.commit(ledger, 9, 15)

    assert world.gaps() == [("opened", 10, 10)]


def test_a_successor_reads_the_memory_from_the_table():
    world = World(10)
    world.commit(world.ledger(), 0, 12)
    world.read.clear()

    world.commit(world.ledger(), 12, 20)

    assert world.read == [(0, 12)]
    assert world.gaps() == [("opened", 10, 10)]


def test_a_successor_that_finds_a_checkpoint_reads_nothing_from_the_table():
    world = World(10)
    world.checkpoints = SimulatedCheckpoints(0, lost=0, not_saved=0)
    world.commit(world.ledger(), 0, 12)
    world.read.clear()

    world.commit(world.ledger(), 12, 20)

    assert (world.checkpoints.found, world.read) == (1, [])
    assert world.gaps() == [("opened", 10, 10)]


def test_a_checkpoint_that_is_behind_is_rolled_forward():
    world = World(10)
    kept = world.checkpoints = SimulatedCheckpoints(0, lost=0, not_saved=0)
    world.commit(world.ledger(), 0, 5)
    world.checkpoints = NoCheckpoints()
    world.commit(world.ledger(), 5, 12)
    world.checkpoints = kept
    world.read.clear()

    world.commit(world.ledger(), 12, 20)

    assert world.read == [(5, 12)]
    assert world.gaps() == [("opened", 10, 10)]


def test_a_checkpoint_ahead_of_the_table_is_not_believed():
    world = World(3)
    world.checkpoints = SimulatedCheckpoints(0, lost=0, not_saved=0)
    world.commit(world.ledger(), 0, 50)
    world.seam, world.commit_sequence = 20, 1
    world.read.clear()

    world.commit(world.ledger(), 20, 30)

    assert world.read == [(0, 20)]


def test_a_memory_that_is_behind_is_rolled_forward_by_what_others_committed():
    world = World(10)
    ledger, other = world.ledger(), world.ledger()
    world.commit(ledger, 0, 5)
    world.commit(other, 5, 12)
    world.read.clear()

    world.commit(ledger, 12, 20)

    assert world.read == [(5, 12)]
    assert world.gaps() == [("opened", 10, 10)]


def test_a_memory_ahead_of_the_table_is_not_believed():
    world = World(3)
    ledger = world.ledger()
    world.commit(ledger, 0, 50)
    world.seam, world.commit_sequence = 20, 1
    world.read.clear()

    world.commit(ledger, 20, 30)

    assert world.read == [(0, 20)]


def test_a_memory_of_commits_that_the_table_has_no_more_is_not_believed():
    world = World(3)
    ledger = world.ledger()
    world.commit(ledger, 0, 20)
    world.commit(ledger, 20, 50)
    world.seam, world.commit_sequence = 60, 1
    world.read.clear()

    world.commit(ledger, 60, 70)

    assert world.read == [(0, 60)]


def send(world: World, ledger: GapLedger, *numbers: int, days_before: int = 0) -> None:
    """Commit one more batch, of these numbers."""
    end = world.seam + len(numbers)
    rows = world.frame(world.seam, end).with_columns(
        sequence=pl.Series(numbers, dtype=pl.Int64),
        trading_date=pl.col("trading_date") - pl.duration(days=days_before),
    )
    watched = ledger.watch({KEY: BatchPart(TOPIC, world.seam, end, [rows])}, LOGS)
    ledger.record(watched)
    world.seam, world.commit_sequence = end, world.commit_sequence + 1
    ledger.committed(watched, world.commit_sequence)


def test_a_number_that_comes_past_the_memory_fills_the_gap_that_the_table_knows():
    world = World(12, 13)
    ledger = world.ledger(memory_offsets=30)
    world.commit(ledger, 0, 60)

    send(world, ledger, 12, 40)

    assert world.gaps()[-1] == ("filled", 12, 12)
    assert [row for row in world.gaps() if row[0] == "filled"] == [("filled", 12, 12)]


def test_history_of_an_earlier_session_fills_the_gaps_of_that_session_alone():
    world = World(12)
    ledger = world.ledger(memory_offsets=30)
    world.commit(ledger, 0, 60)

    send(world, ledger, 12, days_before=1)

    assert (world.looked_up, [row for row in world.gaps() if row[0] == "filled"]) == (1, [])


def test_what_is_late_within_the_memory_asks_the_table_nothing():
    world = World(58)
    ledger = world.ledger()
    world.commit(ledger, 0, 60)

    send(world, ledger, 58)

    assert world.looked_up == 0


def test_rows_that_the_table_holds_already_are_refused():
    world = World()
    world.seam = 7

    with pytest.raises(FencedError, match="another writer"):
        world.ledger().watch(world.part(0, 9), LOGS)


def test_a_rebuild_reads_no_further_back_than_the_memory_reaches():
    world = World()
    world.seam = 1_000

    world.ledger(memory_offsets=100).watch(world.part(1_000, 1_010), LOGS)

    assert world.read == [(800, 1_000)]


def test_topics_without_numbers_are_not_watched():
    world = World(5)
    ledger = world.ledger()
    part = {KEY: BatchPart("market.crypto.trades.kraken", 0, 20, [world.frame(0, 20)])}

    watched = ledger.watch(part, LOGS)

    assert (watched.seen, watched.gap_events, world.read) == ({}, None, [])


def test_which_topics_have_numbers_is_in_the_topics_file():
    columns = TopicCatalog.load().sequence_columns

    assert columns["market.equities.trades.asx"] == "symbol"
    assert not [topic for topic in columns if topic.endswith((".kraken", ".coinbase"))]


@pytest.mark.parametrize(
    ("missing", "level"), [(9, None), (10, "log"), (99, "log"), (100, "alert"), (999, "alert"), (1_000, "halt")]
)
def test_the_larger_the_gap_the_louder_it_is_told(missing, level):
    world = World(*range(50, 50 + missing))

    world.commit(world.ledger(), 0, 60 + missing)

    told = [event.level for event in world.told if isinstance(event, events.GapOpened)]
    assert told == ([] if level is None else [level])
    counted = next(event for event in world.told if isinstance(event, events.SequencesWatched))
    assert counted.numbers == {"opened": missing}
    assert counted.messages == {"normal": 59, "gap": 1}


def test_numbers_that_run_otherwise_than_by_symbol_are_told_of_once():
    world = World(*range(1, 400, 2))
    ledger = world.ledger(doubt_messages=50)

    for start in range(0, 400, 10):
        world.commit(ledger, start, start + 10)

    [told] = [event for event in world.told if isinstance(event, events.NumbersDoubted)]
    assert (told.topic, told.messages, 45 <= told.gaps <= 50) == (TOPIC, 50, True)


def test_a_halt_stops_only_where_the_settings_say_so():
    world = World(*range(50, 1_050))

    with pytest.raises(AccountingError, match="numbers 50 to 1,049 are missing"):
        world.commit(world.ledger(on_halt="stop"), 0, 1_100)

    assert world.seam == 0
    assert world.written == []
