"""Chunks are sorted by key before they are decoded: by the level, and by what the deferred lists hold back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from k2.common.degradation import DegradationLevel, Priority
from k2.common.errors import CorruptionError, FencedError
from k2.ingestion.duplicates.deduplicator import PartDecision
from k2.ingestion.handover import Chunk
from k2.ingestion.overload.flows import Flows
from k2.ingestion.overload.ladder import NoLadder
from k2.ingestion.overload.shedding import Shedding
from k2.ingestion.pending import PartitionPending, Pending
from k2.kafka.batches import LogBatch
from k2.kafka.decoding import Decoded
from k2.schemas.records import TRADES
from k2.schemas.tier_maps import TierMap
from k2.storage.deferral import DeferredList, Predicate
from k2.storage.seam import Counts, DeferredRange, LogPartition, PartitionSeam, Seam
from k2.storage.tables import TableHead
from k2.testing.market_rows import market_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY, OTHER = LogPartition(0, 0), LogPartition(0, 1)
TIERS = TierMap.of({"A"}, {"B"})
OLD = TierMap.of({"A", "C"}, {"B"})
NORMAL, SOFT, GRACEFUL, AGGRESSIVE, CIRCUIT_BREAK = DegradationLevel


class Standing(NoLadder):
    def __init__(self, level: DegradationLevel) -> None:
        self.level = level
        self.reason = "lag"
        self.told: dict[str, int] = {}

    def deferred(self, table: str, records: int, *, lowest_priority: int) -> None:
        self.told[table] = records
        self.lowest = lowest_priority


class World:
    def __init__(
        self, level: DegradationLevel = NORMAL, *, table: str = "trades", tiers: TierMap | None = TIERS
    ) -> None:
        self.ladder = Standing(level)
        self.flows = Flows()
        self.shedding = Shedding(table, ladder=self.ladder, flows=self.flows, tiers=tiers)

    def learn(self, *entries: DeferredRange, sequence: int = 1, **maps: str) -> dict[LogPartition, int]:
        return self.shedding.learn(head(*entries, sequence=sequence, **maps))

    def sort(self, keys: Sequence[str | None], predicate: Predicate | None) -> tuple[list[int], dict[object, int]]:
        found = self.shedding.sort(chunk(keys), predicate)
        return found.batch.offsets, dict(found.shed)


def head(*entries: DeferredRange, sequence: int = 1, **maps: str) -> TableHead:
    parts = {key: PartitionSeam(100, counts=Counts()) for key in (KEY, OTHER)}
    texts = {TIERS.map_id: TIERS.to_json(), OLD.map_id: OLD.to_json()} | maps
    return TableHead("trades", 1, Seam(sequence, parts, entries), (), {}, "memory", tier_maps=texts)


def entry(start: int, end: int, priority: int, tiers: TierMap = TIERS, records: int = 5) -> DeferredRange:
    return DeferredRange(0, 0, start, end, tiers.map_id, priority, records)


def chunk(keys: Sequence[str | None], start: int = 100, epoch: int = 1) -> Chunk:
    offsets = list(range(start, start + len(keys)))
    encoded = [None if key is None else key.encode() for key in keys]
    batch = LogBatch("market.t", 0, offsets, [0] * len(keys), encoded, encoded, start + len(keys))
    return Chunk("trades", KEY, epoch, start, start + len(keys), batch, 0.0)


def part(start: int, end: int, predicate: Predicate | None, deferred: int) -> PartitionPending:
    found = PartitionPending("market.t", 1, start, end, 0.0, consumed=end - start, predicate=predicate)
    found.shed.update({(Priority.LOW, "lag"): deferred} if deferred else {})
    return found


def by(priority: int, tiers: TierMap = TIERS) -> Predicate:
    return Predicate(tiers.map_id, priority)


@pytest.mark.parametrize(
    ("level", "wanted"), [(NORMAL, None), (SOFT, None), (GRACEFUL, 3), (AGGRESSIVE, 2), (CIRCUIT_BREAK, 1)]
)
def test_a_level_says_what_a_partition_without_a_list_defers(level: DegradationLevel, wanted: int | None) -> None:
    world = World(level)

    assert world.shedding.in_force(KEY, []) == (None if wanted is None else by(wanted))


def test_without_a_tier_map_nothing_is_deferred_at_any_level() -> None:
    assert World(CIRCUIT_BREAK, tiers=None).shedding.in_force(KEY, []) is None


def test_a_list_holds_back_what_it_matches_at_normal_too() -> None:
    world = World(NORMAL)
    world.learn(entry(0, 50, 2))

    assert world.shedding.in_force(KEY, []) == by(2)
    assert world.shedding.in_force(OTHER, []) is None


def test_a_list_of_an_older_tier_map_goes_on_by_that_map() -> None:
    world = World(CIRCUIT_BREAK)
    world.learn(entry(0, 50, 2, OLD))

    assert world.shedding.in_force(KEY, []) == by(1, OLD)
    assert world.sort(["A", "B", "C"], by(1, OLD)) == ([100, 102], {(Priority.HIGH, "lag"): 1})


def test_without_a_tier_map_a_list_is_held_to_all_the_same() -> None:
    world = World(CIRCUIT_BREAK, tiers=None)
    world.learn(entry(0, 50, 2, OLD))

    assert world.shedding.in_force(KEY, []) == by(2, OLD)


def test_what_batches_on_their_way_have_deferred_is_held_back_as_well() -> None:
    world = World(NORMAL)
    world.learn()

    assert world.shedding.in_force(KEY, [part(100, 120, by(2), 3)]) == by(2)
    assert world.shedding.in_force(KEY, [part(100, 120, by(2), 0)]) is None
    assert world.shedding.in_force(KEY, [part(100, 120, by(3), 2), part(120, 130, by(1), 1)]) == by(1)


def test_batches_that_do_not_fit_the_list_are_fenced() -> None:
    world = World(NORMAL)
    world.learn(entry(0, 50, 1))

    with pytest.raises(FencedError, match="sort again"):
        world.shedding.in_force(KEY, [part(100, 120, by(3), 2)])


def test_a_chunk_is_sorted_by_key_and_the_first_tier_stays() -> None:
    world = World(CIRCUIT_BREAK)

    kept, shed = world.sort(["A", "B", "X", None, "A"], by(1))

    assert kept == [100, 103, 104]
    assert shed == {(Priority.HIGH, "lag"): 1, (Priority.NORMAL, "lag"): 1}


def test_what_the_level_would_let_pass_is_told_as_held_back() -> None:
    world = World(GRACEFUL)

    assert world.sort(["A", "B", "X"], by(1))[1] == {
        (Priority.HIGH, "held_back"): 1,
        (Priority.NORMAL, "held_back"): 1,
    }


def test_quotes_of_symbols_in_no_tier_are_low() -> None:
    world = World(GRACEFUL, table="quotes")

    assert world.sort(["A", "B", "X"], by(3)) == ([100, 101], {(Priority.LOW, "lag"): 1})


def test_a_chunk_of_which_nothing_is_deferred_is_not_copied() -> None:
    world, whole = World(GRACEFUL), chunk(["A", "X"])

    assert world.shedding.sort(whole, by(3)).batch is whole.batch
    assert world.shedding.sort(whole, None).batch is whole.batch


def test_progress_tells_what_was_taken_by_priority_and_what_is_served() -> None:
    world = World(AGGRESSIVE)

    world.sort(["A", "B", "X", "X"], by(2))

    progress = world.flows.progress("trades", KEY, epoch=1, seam=0, log_end=500)
    assert (progress.log_end, progress.position, progress.waiting) == (500, 104, 0)
    assert (tuple(progress.taken), progress.served) == ((1, 1, 2, 0), 2)


def test_progress_is_counted_from_the_seam_after_a_partition_was_positioned_anew() -> None:
    world = World(NORMAL)
    world.sort(["A"] * 10, None)

    progress = world.flows.progress("trades", KEY, epoch=2, seam=100, log_end=110)

    assert (progress.position, progress.served) == (100, 10)


def test_a_sample_of_the_keys_stands_for_a_large_chunk() -> None:
    world = World(NORMAL)

    world.sort(["A", "X"] * 2_000, None)

    progress = world.flows.progress("trades", KEY, epoch=1, seam=0, log_end=0)
    assert tuple(progress.taken) == (2_000, 0, 2_000, 0)


def test_a_chunk_that_only_moves_the_position_is_sorted_as_well() -> None:
    assert World(CIRCUIT_BREAK).sort([], by(1)) == ([], {})
    assert World(NORMAL).sort([], None) == ([], {})


def test_a_list_that_others_wrote_is_told_with_the_commit_that_was_known() -> None:
    world = World(NORMAL)
    world.learn(entry(0, 50, 2), sequence=4)

    assert world.learn(entry(20, 50, 2, records=3), sequence=6) == {KEY: 4}
    assert world.learn(entry(20, 50, 2, records=3), sequence=7) == {}
    assert world.learn(sequence=9) == {KEY: 7}
    assert world.shedding.in_force(KEY, []) is None


def test_what_the_own_batch_added_is_no_work_of_others() -> None:
    world, pending = World(AGGRESSIVE), Pending()
    world.learn(entry(0, 50, 2))
    pending.partitions[KEY] = part(100, 120, by(2), 3)

    written = world.shedding.committed(head(entry(0, 120, 2, records=8)).seam, pending)

    assert written == {}
    assert world.ladder.told == {"trades": 8}
    assert world.ladder.lowest == 2


def test_a_backfill_between_two_commits_is_seen_at_the_second() -> None:
    world, pending = World(AGGRESSIVE), Pending()
    world.learn(entry(0, 50, 2), sequence=4)
    pending.partitions[KEY] = part(100, 120, by(2), 3)

    assert world.shedding.committed(head(entry(100, 120, 2, records=3)).seam, pending) == {KEY: 4}


def test_a_list_that_others_began_and_shortened_between_two_looks_is_told_as_well() -> None:
    world = World()
    world.shedding.learn(head(sequence=5))

    changed = world.shedding.backfilled(head(entry(16, 17, 2, records=1), sequence=14).seam)

    assert changed == {KEY: 5}


def test_a_list_is_known_to_hold_at_the_seam_at_which_it_was_seen_and_nowhere_else() -> None:
    world = World()
    unknown = world.shedding.reaches(KEY, [], 100)
    world.learn()

    assert not unknown
    assert world.shedding.reaches(KEY, [], 100)
    assert not world.shedding.reaches(KEY, [], 200)
    assert world.shedding.reaches(KEY, [part(100, 150, None, 0), part(150, 200, None, 0)], 200)
    assert not world.shedding.reaches(KEY, [part(100, 150, None, 0)], 200)


@pytest.mark.parametrize(
    ("listed", "deferred", "since"), [((), 0, None), ((), 2, 100), ((50,), 0, 50), ((50, 60), 2, 50)]
)
def test_a_predicate_that_has_matched_nothing_leaves_nothing_out(
    listed: tuple[int, ...], deferred: int, since: int | None
) -> None:
    world, pending = World(AGGRESSIVE), Pending()
    world.learn(*(entry(start, start + 10, 3 - place) for place, start in enumerate(listed)))
    pending.partitions[KEY] = part(100, 110, by(2), deferred)

    found = world.shedding.left_out(pending).get(KEY)

    assert (found and found.since) == since


def test_it_is_known_of_each_symbol_whether_it_is_left_out() -> None:
    world, pending = World(AGGRESSIVE), Pending()
    pending.partitions = {KEY: part(100, 110, by(2), 1), OTHER: part(100, 110, by(1), 1)}

    found = world.shedding.left_out(pending)

    assert [symbol for symbol in "ABC" if found[KEY].holds(symbol)] == ["C"]
    assert [symbol for symbol in "ABC" if found[OTHER].holds(symbol)] == ["B", "C"]


def test_a_batch_names_the_maps_by_which_it_was_sorted() -> None:
    world, pending = World(AGGRESSIVE), Pending()
    pending.partitions = {KEY: part(0, 10, by(2), 3), OTHER: part(0, 10, None, 0)}

    deferral = world.shedding.deferral(pending)

    assert dict(deferral.predicates) == {KEY: by(2)}
    assert dict(deferral.tier_maps) == {TIERS.map_id: TIERS.to_json()}


def test_a_map_that_the_table_lost_is_named() -> None:
    world = World(NORMAL)

    with pytest.raises(CorruptionError, match="expected the tier map gone"):
        world.shedding.sort(chunk(["A"]), Predicate("gone", 2))


@pytest.mark.parametrize(
    ("before", "deferred", "predicate", "takes"),
    [
        (None, 0, None, True),
        (None, 0, by(3), False),
        (by(3), 2, by(3), True),
        (by(3), 2, by(2), False),
        (by(2), 0, by(1), False),
        (by(2), 0, by(3), True),
        (by(2), 0, None, True),
        (by(2), 2, None, False),
        (by(2), 0, by(3, OLD), False),
    ],
)
def test_one_batch_of_a_partition_is_sorted_by_one_predicate(
    before: Predicate | None, deferred: int, predicate: Predicate | None, takes: bool
) -> None:
    pending = Pending()
    pending.partitions[KEY] = part(0, 10, before, deferred)

    assert pending.takes(KEY, predicate) is takes
    assert pending.partitions[KEY].predicate == (predicate if takes else before)


def test_deferred_records_are_consumed_and_accounted_for() -> None:
    pending, whole = Pending(), chunk(["A", "X", "X"])
    found = World(AGGRESSIVE).shedding.sort(whole, by(2))
    rows = market_rows([100], record_type=TRADES).drop("commit_sequence", "written_by")

    pending.add(whole, Decoded(rows, ()), found, at=1.0, predicate=by(2))

    delta = pending.partitions[KEY].delta()
    assert delta.counts == Counts(consumed=3, rows=1, deferred=2)
    assert delta.counts.unaccounted == 0
    assert (pending.records, pending.records_kept, pending.nbytes) == (3, 1, found.batch.nbytes)
    assert DeferredList.of(Seam(), KEY).deferring(delta.start, delta.end, by(2), 2).records == 2
    assert pending.drop(KEY) == 3
    assert (pending.records, pending.records_kept) == (0, 0)


def test_a_part_reaches_the_log_time_of_its_last_record_though_that_is_deferred() -> None:
    pending, found = Pending(), World(AGGRESSIVE).shedding.sort(chunk(["A", "X"]), by(2))
    for start, times_ms in ((100, [1_000, 2_000]), (102, [3_000, 9_000])):
        whole = chunk(["A", "X"], start)
        timed = replace(whole, batch=replace(whole.batch, ts_log_ms=times_ms))
        rows = market_rows([start], record_type=TRADES).drop("commit_sequence", "written_by")
        pending.add(timed, Decoded(rows, ()), found, at=1.0, predicate=by(2))

    (kept,) = pending.kept({KEY: PartDecision([])}, {}).values()

    assert kept.logged_us == 9_000_000
