"""Halted streams are put off by key from one message on, until the table's list holds them no more."""

from __future__ import annotations

import pytest

from k2.common.degradation import DegradationLevel, Priority
from k2.common.errors import FencedError
from k2.ingestion.handover import Chunk
from k2.ingestion.overload.flows import Flows
from k2.ingestion.overload.ladder import NoLadder
from k2.ingestion.overload.shedding import Shedding
from k2.ingestion.pending import Pending
from k2.kafka.batches import LogBatch
from k2.kafka.decoding import Decoded
from k2.schemas.records import TRADES
from k2.schemas.tier_maps import TierMap
from k2.storage.deferral import Predicate
from k2.storage.halts import HaltedPart
from k2.storage.seam import Counts, DeferredRange, HaltedStream, LogPartition, PartitionSeam, Seam
from k2.storage.tables import TableHead
from k2.testing.market_rows import market_rows

KEY = LogPartition(0, 0)
TIERS = TierMap.of({"A"}, {"B"})
A, B = HaltedStream("A", ("A",), 102, 0), HaltedStream("B", ("B",), 105, 0)


class Standing(NoLadder):
    level = DegradationLevel.AGGRESSIVE
    reason = "lag"


def shedding(*entries: DeferredRange, seam: int = 100, tiers: TierMap | None = None) -> Shedding:
    found = Shedding("trades", ladder=Standing(), flows=Flows(), tiers=tiers)
    found.learn(head(*entries, seam=seam))
    return found


def head(*entries: DeferredRange, seam: int = 100) -> TableHead:
    parts = {KEY: PartitionSeam(seam, counts=Counts())}
    return TableHead("trades", 1, Seam(1, parts, entries), (), {}, "memory", tier_maps={TIERS.map_id: TIERS.to_json()})


def chunk(keys: str, start: int = 100) -> Chunk:
    offsets, encoded = list(range(start, start + len(keys))), [key.encode() for key in keys]
    batch = LogBatch("market.t", 0, offsets, [0] * len(keys), encoded, encoded, start + len(keys))
    return Chunk("trades", KEY, 1, start, start + len(keys), batch, 0.0)


def sort_into(pending: Pending, shed: Shedding, what: Chunk) -> list[int]:
    held = list(pending.partitions.values())
    predicate = shed.in_force(KEY, held)
    found = shed.sort(what, predicate, shed.halted(KEY, held))
    rows = market_rows(found.batch.offsets, record_type=TRADES).drop("commit_sequence", "written_by")
    pending.add(what, Decoded(rows, ()), found, at=1.0, predicate=predicate)
    return found.batch.offsets


def test_a_stream_that_is_to_halt_is_put_off_from_its_message_on() -> None:
    shed, pending = shedding(), Pending()
    with pytest.raises(FencedError, match="A of trades"):
        shed.halt({KEY: (A,)})

    assert sort_into(pending, shed, chunk("ABABA")) == [100, 101, 103]
    assert sort_into(pending, shed, chunk("AB", 105)) == [106]
    assert shed.deferral(pending).halts == {KEY: (HaltedPart(A, 3),)}
    assert pending.partitions[KEY].delta().counts == Counts(consumed=7, rows=4, deferred=3)
    assert pending.partitions[KEY].shed == {(Priority.NORMAL, "halted"): 3}


def test_what_is_known_to_halt_is_told_once() -> None:
    shed = shedding()
    with pytest.raises(FencedError):
        shed.halt({KEY: (A,)})

    shed.halt({KEY: (A,)})


def test_a_list_says_what_is_halted_after_a_restart() -> None:
    held = DeferredRange(0, 0, 102, 110, "", len(Priority), 4, A)
    shed, pending = shedding(held, seam=110), Pending()

    assert sort_into(pending, shed, chunk("AXA", 110)) == [111]
    assert shed.deferral(pending).halts == {KEY: (HaltedPart(A, 2),)}


def test_a_list_without_it_lets_it_pass() -> None:
    held = DeferredRange(0, 0, 102, 110, "", len(Priority), 4, A)
    shed, pending = shedding(held, seam=110), Pending()

    changed = shed.backfilled(head(seam=110).seam)

    assert set(changed) == {KEY}
    assert sort_into(pending, shed, chunk("AXA", 110)) == [110, 111, 112]


def test_a_wish_below_the_seam_is_forgotten() -> None:
    shed = shedding()
    with pytest.raises(FencedError):
        shed.halt({KEY: (A,)})

    shed.learn(head(seam=103))

    assert shed.halted(KEY, []) == []


def test_a_halted_stream_and_overload_are_counted_apart() -> None:
    shed, pending = shedding(tiers=TIERS), Pending()
    with pytest.raises(FencedError):
        shed.halt({KEY: (A,)})

    assert sort_into(pending, shed, chunk("AXAXB")) == [100, 104]
    part = pending.partitions[KEY]
    assert part.predicate == Predicate(TIERS.map_id, 2)
    assert (part.deferred, part.deferred_by_priority, part.halted_parts) == (3, 2, (HaltedPart(A, 1),))
    assert part.shed == {(Priority.CRITICAL, "halted"): 1, (Priority.NORMAL, "lag"): 2}


def test_what_the_own_batch_halted_is_no_work_of_others() -> None:
    shed, pending = shedding(), Pending()
    with pytest.raises(FencedError):
        shed.halt({KEY: (A,)})
    sort_into(pending, shed, chunk("ABABA"))

    after = head(DeferredRange(0, 0, 102, 105, "", len(Priority), 2, A), seam=105).seam

    assert shed.committed(after, pending) == {}


def test_a_batch_that_holds_back_what_was_written_meanwhile_is_fenced() -> None:
    held = DeferredRange(0, 0, 102, 110, "", len(Priority), 4, A)
    shed, pending = shedding(held, seam=110), Pending()
    sort_into(pending, shed, chunk("AXA", 110))

    shed.backfilled(head(seam=110).seam)

    with pytest.raises(FencedError, match="goes on by now"):
        shed.in_force(KEY, list(pending.partitions.values()))


@pytest.mark.parametrize(("halts", "takes"), [((), False), ((A,), True), ((A, B), False), ((B,), False)])
def test_a_batch_goes_on_with_the_streams_halted_that_it_began_with(
    halts: tuple[HaltedStream, ...], takes: bool
) -> None:
    shed, pending = shedding(), Pending()
    with pytest.raises(FencedError):
        shed.halt({KEY: (A,)})
    sort_into(pending, shed, chunk("ABABA"))

    assert pending.takes(KEY, None, halts) is takes


def test_a_batch_without_halted_streams_takes_none() -> None:
    shed, pending = shedding(), Pending()
    sort_into(pending, shed, chunk("AB"))

    assert pending.takes(KEY, None, ())
    assert not pending.takes(KEY, None, (A,))
