"""Two real workers under any levels, takeovers, crashes and failures: each record is written once, or in a list.

Looked at after every step, by the log alone: what lies below the seam is what a plain reading of the log keeps, less
what the lists name; a list counts just the records that its rule matches; the first tier is in none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from k2.common import crash_points
from k2.common.degradation import DegradationLevel
from k2.storage.deferral import check_lists
from k2.storage.seam import LogPartition
from k2.testing.simulated_backfill import SimulatedBackfills, key_of
from k2.testing.simulated_duplicates import record_value
from k2.testing.simulated_ingest import crash_at

if TYPE_CHECKING:
    from collections.abc import Callable

TRADES = ("market.equities.trades.asx", 0)
DEFERRED = record_value(2)
PRIORITIES = {b"S0": 0, b"S1": 1, b"S2": 2}
POINTS = sorted(
    {*crash_points.BACKFILL_NAMES, "after_decode", "mid_parquet", "before_commit", "after_commit", "after_side_tables"}
)
records = st.one_of(
    st.builds(record_value, st.integers(0, 8), st.sampled_from([1, 1, 2]), st.integers(0, 1)),
    st.sampled_from([b"bad", None]),
)
lists = st.lists(records, min_size=1, max_size=6)
workers = st.integers(0, 1)


def once() -> Callable[..., bool]:
    """Return a fault that happens at the next occasion and never again."""
    left = [True]
    return lambda *_: bool(left) and left.pop()


class World(SimulatedBackfills):
    """Polls bring all that is there, so that what is drawn alone decides what happens."""

    def __init__(self) -> None:
        super().__init__(0, partitions=1)
        backfill = self.settings.backfill.model_copy(update={"last_offsets_max": 4, "records_max": 3})
        limits = {"commit_rows_max": 1_000, "buffer_bytes_max": 10_000, "decode_messages_max": 100}
        self.settings = self.settings.model_copy(update={**limits, "backfill": backfill})

    def batch_messages(self) -> int:
        return 100


class Overload(RuleBasedStateMachine):
    """One partition that two workers own in turn; who has lost it, or was killed, knows nothing of that."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(crash_points, "reached", crash_at(self.world))
        self.seen = -1
        for _ in range(2):
            self.world.start_worker()

    @initialize(level=st.sampled_from([DegradationLevel.AGGRESSIVE, DegradationLevel.CIRCUIT_BREAK]), values=lists)
    def begin_under_overload(self, level: DegradationLevel, values: list[bytes | None]) -> None:
        self.take_over(0)
        self.overload(0, level, [*values, DEFERRED])

    @rule(who=workers)
    def take_over(self, who: int) -> None:
        self.world.group.rebalance({self.world.workers[who].reader: [TRADES]})

    @rule(level=st.sampled_from(list(DegradationLevel)))
    def climb_or_fall(self, level: DegradationLevel) -> None:
        self.world.ladder.level = level

    @rule(who=workers, level=st.sampled_from(list(DegradationLevel)), values=lists)
    def overload(self, who: int, level: DegradationLevel, values: list[bytes | None]) -> None:
        self.climb_or_fall(level)
        self.append(values)
        self.commit(who)

    @rule(values=lists)
    def append(self, values: list[bytes | None]) -> None:
        self.world.log.append(*TRADES, *values)

    @rule(who=workers)
    def consume(self, who: int) -> None:
        worker = self.world.workers[who]
        self.run(who, worker.step_consumer)

    @rule(who=workers, seconds=st.sampled_from([0.0, 1.0, 6.0]), times=st.integers(1, 3))
    def write(self, who: int, seconds: float, times: int) -> None:
        for _ in range(times):
            self.world.clock.sleep(seconds)
            self.run(who, self.world.workers[who].step_writer)

    @rule(who=workers)
    def commit(self, who: int) -> None:
        self.consume(who)
        self.write(who, 0.0, 1)
        self.write(who, 6.0, 1)
        self.consume(who)

    @rule(who=workers)
    def backfill(self, who: int) -> None:
        self.world.ladder.level = DegradationLevel.NORMAL
        self.write(who, 1.0, 4)

    @rule(who=workers)
    def kill(self, who: int) -> None:
        self.world.kill(self.world.workers[who])
        self.world.start_worker()
        self.take_over(1)

    @rule(point=st.sampled_from(POINTS))
    def die_at(self, point: str) -> None:
        crash = once()
        self.world.faults.crash = lambda name: name == point and crash()

    @rule(what=st.sampled_from(["before_commit", "reply_lost", "head_fails", "side_table_fails"]))
    def fail(self, what: str) -> None:
        setattr(self.world.faults, what, once())

    @rule(who=workers)
    def let_the_other_one_write_while_this_one_commits(self, who: int) -> None:
        other = self.world.workers[1 - who]
        happens = once()
        self.world.faults.meanwhile = lambda: self.run(1 - who, other.step_writer) if happens() else None
        self.commit(who)
        self.world.faults.meanwhile = lambda: None

    def run(self, who: int, step: Callable[[], None]) -> None:
        worker = self.world.workers[who]
        self.world.run(step, worker)

    @invariant()
    def each_record_is_written_once_or_in_a_list(self) -> None:
        table = self.world.tables.tables["trades"]
        if table.version == self.seen:
            return
        self.seen = table.version
        log = table.head.log_of(TRADES[0])
        if log is None:
            return
        at = LogPartition(log.log_id, TRADES[1])
        values, seam = self.world.log.topics[TRADES[0]].partitions[0], table.head.seam
        check_lists(seam)
        listed: set[int] = set()
        for entry in seam.deferred:
            matched = {
                offset
                for offset in range(entry.start, entry.end)
                if values[offset] is not None and PRIORITIES[key_of(values[offset])] >= entry.lowest_deferred_priority
            }
            assert entry.records == len(matched)
            assert entry.lowest_deferred_priority > 0
            listed |= matched
        kept = {row["log_offset"] for row in self.world.replays()["trades", at].kept}
        stored = [offset for rows in table.rows for offset in rows.filter(log_id=at.log_id)["log_offset"]]
        assert len(stored) == len(set(stored))
        assert set(stored) == {offset for offset in kept if offset < (seam.next_offset(at) or 0)} - listed

    def teardown(self) -> None:
        try:
            self.world.ladder.level = DegradationLevel.NORMAL
            self.world.settle()
            self.each_record_is_written_once_or_in_a_list()
            self.world.check()
        finally:
            self.patch.undo()


TestOverload = Overload.TestCase
TestOverload.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
