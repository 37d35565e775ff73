"""Whatever levels, tier maps, backfills and retention do: each symbol is written in order, once, and counted."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from k2.common.degradation import DegradationLevel
from k2.storage.deferral import (
    Backfill,
    DeferredList,
    Predicate,
    check_lists,
    predicate_of,
    seam_after_backfill,
    seam_after_batch,
)
from k2.storage.seam import Counts, DeferredRange, LogPartition, PartitionDelta, PartitionSeam, Seam

KEY = LogPartition(3, 1)
MAPS = {"one": {"a": 0, "b": 1, "c": 2, "d": 3}, "two": {"a": 3, "b": 0, "c": 2, "d": 1}}
symbols = st.lists(st.sampled_from("abcd"), min_size=1, max_size=8)


class Overload(RuleBasedStateMachine):
    """One partition's log, its table, and a seam that is only ever changed by the rules."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []
        self.log_start = 0
        self.written: list[int] = []
        self.lost: set[int] = set()
        self.tier_map = "one"
        self.seam = Seam(0, {KEY: PartitionSeam(0)})

    @property
    def held(self) -> DeferredList:
        return DeferredList.of(self.seam, KEY)

    @rule(tier_map=st.sampled_from(sorted(MAPS)))
    def change_the_tier_map(self, tier_map: str) -> None:
        self.tier_map = tier_map

    @rule(batch=symbols, level=st.sampled_from(list(DegradationLevel)))
    def ingest(self, batch: list[str], level: DegradationLevel) -> None:
        predicate = self.held.in_force(Predicate.at(level, self.tier_map))
        kept, counts = self.sort(batch, predicate)
        delta = PartitionDelta(len(self.log), len(self.log) + len(batch), counts)
        self.seam = seam_after_batch(self.seam, {KEY: delta}, {} if predicate is None else {KEY: predicate})
        self.written += kept
        self.log += batch

    @precondition(lambda self: self.held.entries)
    @rule(share=st.floats(0, 1), only_what_is_gone=st.booleans())
    def backfill(self, share: float, *, only_what_is_gone: bool) -> None:
        entry = self.held.entries[0]
        end = entry.start + max(1, round(share * (entry.end - entry.start)))
        if self.log_start > entry.start:
            end = min(self.log_start, entry.end) if only_what_is_gone else entry.end
        self.seam = seam_after_backfill(self.seam, KEY, self.read(entry, end))

    @precondition(lambda self: self.log)
    @rule(share=st.floats(0, 0.3))
    def let_retention_eat_into_the_log(self, share: float) -> None:
        self.log_start = max(self.log_start, round(share * len(self.log)))

    def sort(self, batch: list[str], predicate: Predicate | None) -> tuple[list[int], Counts]:
        first = len(self.log)
        kept = [first + at for at, symbol in enumerate(batch) if not matches(predicate, symbol)]
        return kept, Counts(consumed=len(batch), rows=len(kept), deferred=len(batch) - len(kept))

    def read(self, entry: DeferredRange, end: int) -> Backfill:
        """Read the records of an entry from the log, and write them; what the log no longer holds is lost."""
        predicate = predicate_of(entry)
        matching = [at for at in range(entry.start, end) if matches(predicate, self.log[at])]
        found = [at for at in matching if at >= self.log_start]
        self.written += found
        lost = len(matching) - len(found)
        self.lost.update(at for at in matching if at < self.log_start)
        return Backfill(entry.start, end, predicate, Counts(rows=len(found)), log_start=self.log_start, lost=lost)

    @invariant()
    def each_symbol_is_written_in_the_order_of_the_log(self) -> None:
        for symbol in "abcd":
            offsets = [at for at in self.written if self.log[at] == symbol]
            assert all(one < next_ for one, next_ in pairwise(offsets))

    @invariant()
    def every_record_is_written_or_deferred_or_lost(self) -> None:
        counts = self.seam.partitions[KEY].counts

        assert counts.unaccounted == 0
        assert counts.rows == len(self.written) == len(set(self.written))
        assert counts.lost == len(self.lost)
        assert counts.consumed == len(self.log) == self.seam.next_offset(KEY)

    @invariant()
    def what_is_deferred_is_what_the_lists_predicates_find(self) -> None:
        deferred = {
            at
            for entry in self.held.entries
            for at in range(entry.start, entry.end)
            if matches(predicate_of(entry), self.log[at])
        }

        assert deferred == set(range(len(self.log))) - set(self.written) - self.lost
        check_lists(self.seam)

    @invariant()
    def the_list_is_no_longer_than_there_are_predicates(self) -> None:
        assert len(self.held.entries) <= 3
        assert Seam.from_json(self.seam.to_json()) == self.seam


def matches(predicate: Predicate | None, symbol: str) -> bool:
    return predicate is not None and predicate.matches(MAPS[predicate.tier_map_id][symbol])


TestOverload = Overload.TestCase
TestOverload.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
