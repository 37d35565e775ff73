"""What a look at the log's newest rows finds: each row once, and what memory alone cannot decide."""

from __future__ import annotations

import pytest

from k2.common.errors import QueryError, UnavailableError
from k2.query.live.follower import TailFollower
from k2.storage.seam import LogPartition
from k2.testing.simulated_hybrid import ASX, SETTINGS, SIM, SimulatedHybrid, home, simulated_hybrid
from k2.testing.simulated_market import SimulatedMarket


def following(hybrid: SimulatedHybrid) -> TailFollower:
    hybrid.tail.step()
    follower = hybrid.engine.live("trades")
    follower.jump()
    return follower


def come(hybrid: SimulatedHybrid, follower: TailFollower) -> list[int]:
    hybrid.tail.step()
    found: list[int] = follower.step({"BHP"}).rows["ts_event_ns"].to_list()
    return found


def test_only_rows_of_the_symbols_that_came_since_the_last_look_are_found_in_order(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(ASX.name, "BHP", 1)
    follower = following(hybrid)

    hybrid.market.append(ASX.name, "BHP", 5)
    hybrid.market.append(SIM.name, "BHP", 4)
    hybrid.market.append(ASX.name, "CBA", 3)

    assert come(hybrid, follower) == [4, 5]
    assert come(hybrid, follower) == []


@pytest.mark.parametrize("committed", [0, 1, 2, None])
def test_a_repeated_record_is_not_found_wherever_the_first_lies(hybrid: SimulatedHybrid, committed: int | None) -> None:
    hybrid.market.append(ASX.name, "BHP", 7, identity=1)
    follower = following(hybrid)

    hybrid.market.append(ASX.name, "BHP", 8, identity=2)
    for time, number in ((8, 2), (7, 1), (9, 3)):
        hybrid.market.append(ASX.name, "BHP", time, identity=number)
    hybrid.tail.step()
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"), committed)

    assert follower.step({"BHP"}).rows["ts_event_ns"].to_list() == [8, 9]


def test_a_repeated_record_is_found_out_while_the_catalog_is_down(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(ASX.name, "BHP", 7, identity=1)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"))
    follower = following(hybrid)
    follower.ends(None)
    hybrid.tail.start()
    hybrid.market.catalog_is_up = False

    hybrid.market.append(ASX.name, "BHP", 7, identity=1)
    hybrid.market.append(ASX.name, "BHP", 8, identity=2)
    key = (ASX.name, home(hybrid, "BHP"))
    hybrid.tail.wait_for({key: 3}, 10)

    assert follower.step({"BHP"}).rows["ts_event_ns"].to_list() == [8]


def test_without_the_catalog_ever_seen_symbols_with_identities_are_left_undecided(hybrid: SimulatedHybrid) -> None:
    follower = following(hybrid)
    hybrid.market.append(ASX.name, "BHP", 8, identity=2)
    hybrid.market.append(ASX.name, "CBA", 9)
    hybrid.tail.step()
    hybrid.market.catalog_is_up = False

    found = follower.step({"BHP", "CBA"})

    assert found.rows["symbol"].to_list() == ["CBA"]
    assert found.undecided == {"BHP"}


def test_what_the_tail_has_dropped_shows_as_a_span_that_begins_too_late(tmp_path: object) -> None:
    market = SimulatedMarket(tmp_path, [ASX])  # type: ignore[arg-type]
    market.register(ASX.name)
    hybrid = simulated_hybrid(market, tmp_path, settings=SETTINGS.model_copy(update={"tail_bytes_max": 1}))  # type: ignore[arg-type]
    follower = following(hybrid)
    at = LogPartition(0, home(hybrid, "BHP"))

    for time in range(3):
        market.append(ASX.name, "BHP", time)
    hybrid.tail.step()
    found = follower.step({"BHP"})

    assert (found.spans[at].start, found.spans[at].end) == (3, 3)
    assert found.rows.is_empty()
    hybrid.close()


def test_where_the_first_of_two_is_no_longer_held_the_symbol_is_left_undecided(tmp_path: object) -> None:
    market = SimulatedMarket(tmp_path, [ASX])  # type: ignore[arg-type]
    market.register(ASX.name)
    hybrid = simulated_hybrid(market, tmp_path)  # type: ignore[arg-type]
    market.append(ASX.name, "BHP", 7, identity=1)
    follower = following(hybrid)
    hybrid.tail._partitions[ASX.name, home(hybrid, "BHP")].drop_oldest()

    market.append(ASX.name, "BHP", 7, identity=1)
    hybrid.tail.step()
    found = follower.step({"BHP"})

    assert (found.rows.height, found.undecided) == (0, {"BHP"})
    hybrid.close()


def test_the_prefix_is_what_an_answer_of_now_would_name(hybrid: SimulatedHybrid) -> None:
    for time in range(4):
        hybrid.market.append(ASX.name, "BHP", time)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"), 2)
    follower = following(hybrid)

    prefix = follower.prefix("asx")

    assert (prefix.data_type, prefix.exchange, prefix.commit_sequence) == ("trades", "asx", 3)
    assert (0, home(hybrid, "BHP"), 2, 4) in prefix.partitions
    assert len(prefix.partitions) == ASX.partitions
    with pytest.raises(QueryError, match="asx, sim"):
        follower.check_exchange("nyse")


def test_a_tail_that_is_behind_the_table_is_waited_for(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(ASX.name, "BHP", 1)
    follower = following(hybrid)
    hybrid.market.append(ASX.name, "BHP", 2)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"))

    with pytest.raises(UnavailableError, match="at offset 2, where the table ends, found it at 1"):
        follower.prefix(None)


def test_a_topic_that_is_registered_later_is_followed_from_its_start(tmp_path: object) -> None:
    market = SimulatedMarket(tmp_path, [ASX, SIM])  # type: ignore[arg-type]
    market.register(ASX.name)
    hybrid = simulated_hybrid(market, tmp_path)  # type: ignore[arg-type]
    follower = following(hybrid)
    market.append(SIM.name, "BHP", 3)

    market.register(SIM.name)

    assert come(hybrid, follower) == [3]
    hybrid.close()
