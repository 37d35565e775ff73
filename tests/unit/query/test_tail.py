"""What the tail holds, drops and tells; chunks, leases and the choice of what to follow."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from k2.common.errors import QueryError, UnavailableError
from k2.query.chunks import PartitionChunks
from k2.query.leases import Leases
from k2.schemas.records import ORDER
from k2.testing.manual_clock import ManualClock
from k2.testing.market_rows import market_rows
from k2.testing.simulated_hybrid import SETTINGS, SimulatedHybrid, simulated_hybrid, topic
from k2.testing.simulated_market import SimulatedMarket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ASX = topic("asx", partitions=1)
KEY = (ASX.name, 0)


@pytest.fixture
def hybrid(tmp_path: Path) -> Iterator[SimulatedHybrid]:
    market = SimulatedMarket(tmp_path, [ASX])
    market.register(ASX.name)
    made = simulated_hybrid(market, tmp_path)
    yield made
    made.close()


def fill(hybrid: SimulatedHybrid, records: int) -> None:
    for number in range(records):
        hybrid.market.append(ASX.name, "BHP", number)
    hybrid.tail.step()


def held(hybrid: SimulatedHybrid) -> tuple[int, int]:
    view = hybrid.tail.view(KEY)
    assert view is not None
    return view.start, view.end


def test_the_tail_begins_at_the_seam(hybrid: SimulatedHybrid) -> None:
    for number in range(5):
        hybrid.market.append(ASX.name, "BHP", number)
    hybrid.market.commit(ASX.name, 0, 3)

    hybrid.tail.step()

    assert held(hybrid) == (3, 5)


def test_what_the_head_holds_is_dropped(hybrid: SimulatedHybrid) -> None:
    fill(hybrid, 3)
    fill(hybrid, 2)
    hybrid.market.commit(ASX.name, 0, 3)

    hybrid.tail.step()

    assert held(hybrid) == (3, 5)


def test_a_lease_keeps_what_the_head_holds_until_it_ends(hybrid: SimulatedHybrid) -> None:
    fill(hybrid, 3)
    fill(hybrid, 2)
    with hybrid.tail.lease():
        hybrid.market.commit(ASX.name, 0)
        hybrid.tail.step()
        assert held(hybrid) == (0, 5)

    hybrid.tail.step()

    assert held(hybrid) == (5, 5)


def test_a_lease_that_is_narrowed_holds_from_its_seam_on(hybrid: SimulatedHybrid) -> None:
    fill(hybrid, 3)
    fill(hybrid, 2)
    with hybrid.tail.lease() as lease:
        lease.narrow({KEY: 3})
        hybrid.market.commit(ASX.name, 0)
        hybrid.tail.step()

        assert held(hybrid) == (3, 5)


def test_a_lease_expires(hybrid: SimulatedHybrid) -> None:
    fill(hybrid, 3)
    hybrid.tail.lease()
    hybrid.market.commit(ASX.name, 0)
    hybrid.clock.advance(SETTINGS.lease_seconds_max + 1)

    hybrid.tail.step()

    assert held(hybrid) == (3, 3)
    assert hybrid.tail.get_stats()["leases_expired"] == 1


def test_the_tail_jumps_to_a_seam_that_has_overtaken_it(hybrid: SimulatedHybrid) -> None:
    fill(hybrid, 2)
    for number in range(50):
        hybrid.market.append(ASX.name, "BHP", number)
    hybrid.market.commit(ASX.name, 0, 40)

    hybrid.tail.step()

    assert held(hybrid) == (40, 52)


def test_the_tail_stays_within_its_bytes_and_says_what_it_dropped(tmp_path: Path) -> None:
    market = SimulatedMarket(tmp_path, [ASX])
    market.register(ASX.name)
    settings = SETTINGS.model_copy(update={"tail_bytes_max": 2_000})
    hybrid = simulated_hybrid(market, tmp_path, settings=settings)

    for _ in range(30):
        fill(hybrid, 3)

    stats = hybrid.tail.get_stats()
    assert 0 < stats["size_bytes"] <= 2_000
    assert stats["outrun_chunks"] > 0
    assert held(hybrid)[0] > 0
    assert held(hybrid)[1] == 90
    hybrid.close()


def test_control_records_move_the_end(hybrid: SimulatedHybrid) -> None:
    fill(hybrid, 2)
    hybrid.market.append_control(ASX.name, 0)

    hybrid.tail.step()

    assert held(hybrid) == (0, 3)


def test_a_broker_that_comes_back_is_read_on(hybrid: SimulatedHybrid) -> None:
    fill(hybrid, 2)
    hybrid.market.log_is_up = False
    with pytest.raises(UnavailableError):
        hybrid.tail.step()
    hybrid.market.log_is_up = True

    fill(hybrid, 3)

    assert held(hybrid) == (0, 5)


def test_a_decoder_that_must_wait_loses_nothing(hybrid: SimulatedHybrid, monkeypatch: pytest.MonkeyPatch) -> None:
    def registry_down(*_: object, **__: object) -> None:
        raise UnavailableError("the registry is down", dependency="registry")

    decoder = hybrid.tail._decoders["trades"]
    with monkeypatch.context() as patch:
        patch.setattr(type(decoder), "decode", registry_down)
        with pytest.raises(UnavailableError):
            fill(hybrid, 4)

    hybrid.tail.step()

    assert held(hybrid) == (0, 4)


def test_a_topic_created_again_is_given_up(hybrid: SimulatedHybrid) -> None:
    fill(hybrid, 2)
    hybrid.market.create(ASX.name, "id-2")

    hybrid.tail.step()

    assert hybrid.tail.view(KEY) is None
    assert "found id-2" in hybrid.tail.get_stats()["refused"][ASX.name]


def test_the_tail_answers_for_itself(hybrid: SimulatedHybrid) -> None:
    fill(hybrid, 5)
    hybrid.market.append(ASX.name, "CBA", hybrid.clock.time_ns() - 30 * 10**9)
    hybrid.tail.step()

    assert hybrid.tail.query("BHP", since=3)["ts_event_ns"].to_pylist() == [3, 4]
    assert hybrid.tail.query("BHP", since=dt.datetime(1970, 1, 1, tzinfo=dt.UTC)).num_rows == 5
    assert hybrid.tail.query("CBA", minutes=1).num_rows == 1
    assert hybrid.tail.query("BHP", minutes=1).num_rows == 0
    assert hybrid.tail.query("NAB").num_rows == 0
    assert hybrid.tail.get_symbols() == ["BHP", "CBA"]


@pytest.mark.parametrize(
    "wrong",
    [{"since": 1, "minutes": 1}, {"since": dt.datetime(2026, 1, 1)}, {"data_type": "books"}],  # noqa: DTZ001 - the point
)
def test_the_tail_refuses_a_wrong_question(hybrid: SimulatedHybrid, wrong: dict[str, object]) -> None:
    with pytest.raises(QueryError):
        hybrid.tail.query("BHP", **wrong)  # type: ignore[arg-type]


def test_the_thread_follows_until_it_is_stopped(tmp_path: Path) -> None:
    market = SimulatedMarket(tmp_path, [ASX])
    market.register(ASX.name)
    hybrid = simulated_hybrid(market, tmp_path)
    hybrid.tail.start()
    market.append(ASX.name, "BHP", 1)

    hybrid.tail.look_again(5)
    reached = hybrid.tail.wait_for({KEY: 1}, 5)

    assert reached
    assert hybrid.tail.get_stats()["running"]
    hybrid.tail.stop()
    assert not hybrid.tail.get_stats()["running"]
    hybrid.close()


def test_chunks_find_a_symbol_whatever_their_size() -> None:
    chunks = PartitionChunks(0, chunk_rows_max=512)
    rows = market_rows(range(1_000)).drop("commit_sequence", "written_by")
    for start in range(0, 1_000, 10):
        chunks.append(rows.slice(start, 10), start + 10)

    view = chunks.view
    found = view.slice("BBB", 123, 877)

    offsets = sorted(offset for frame in found.frames for offset in frame["log_offset"])
    assert offsets == [offset for offset in range(123, 877) if offset % 3 == 1]
    assert len(view.chunks) < 30
    assert sorted({symbol for chunk in view.chunks for symbol in chunk.symbols()}) == ["AAA", "BBB", "CCC"]


def test_chunks_are_contiguous_after_any_trim() -> None:
    chunks = PartitionChunks(0, chunk_rows_max=64)
    rows = market_rows(range(300)).drop("commit_sequence", "written_by")
    for start in range(0, 300, 3):
        chunks.append(rows.slice(start, 3), start + 3)
        chunks.drop_below(start - 40)

    view = chunks.view

    assert view.start <= 257
    assert view.end == 300
    assert [chunk.start for chunk in view.chunks[1:]] == [chunk.end for chunk in view.chunks[:-1]]
    assert sum(frame.height for frame in view.slice(None, view.start, 300).frames) == 300 - view.start
    chunks.drop_below(300)
    assert (chunks.view.start, chunks.view.end, chunks.size_bytes) == (300, 300, 0)


def test_a_view_does_not_change_under_its_reader() -> None:
    chunks = PartitionChunks(0, chunk_rows_max=64)
    rows = market_rows(range(20)).drop("commit_sequence", "written_by")
    chunks.append(rows.slice(0, 10), 10)
    view = chunks.view

    chunks.append(rows.slice(10, 10), 20)
    chunks.drop_oldest()

    assert (view.start, view.end) == (0, 10)
    assert sum(frame.height for frame in view.slice(None, 0, 20).frames) == 10


def test_the_lowest_lease_is_the_floor() -> None:
    leases = Leases(ManualClock(), seconds_max=10)
    first, second = leases.take({KEY: 7}), leases.take({KEY: 4})

    assert leases.floor(KEY, 9) == 4
    leases.release(second)
    assert leases.floor(KEY, 9) == 7
    leases.release(first)
    assert leases.floor(KEY, 9) == 9


def test_tail_rows_come_in_the_order_of_answers(hybrid: SimulatedHybrid) -> None:
    for time in (5, 1, 5, 3):
        hybrid.market.append(ASX.name, "BHP", time)
    hybrid.tail.step()

    rows = hybrid.tail.query("BHP").select(list(ORDER)).to_pylist()

    assert [(row["ts_event_ns"], row["log_offset"]) for row in rows] == [(1, 1), (3, 3), (5, 0), (5, 2)]
