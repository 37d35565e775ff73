"""What the hybrid engine does while the log or the table is down, short, outrun or another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k2.common.errors import LogIdentityError, UnavailableError
from k2.testing.simulated_hybrid import (
    ASX,
    SETTINGS,
    SimulatedHybrid,
    ask,
    home,
    simulated_hybrid,
    times,
)
from k2.testing.simulated_market import SimulatedMarket

if TYPE_CHECKING:
    from pathlib import Path


def test_lake_only_ends_at_the_seam_and_needs_no_log(hybrid: SimulatedHybrid) -> None:
    for number in range(4):
        hybrid.market.append(ASX.name, "BHP", number)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"), 3)
    hybrid.market.log_is_up = False

    answer = ask(hybrid, lake_only=True)

    assert times(answer) == [0, 1, 2]
    assert answer.certificate.lake_only


def test_a_log_that_is_down_fails_or_is_marked(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(ASX.name, "BHP", 1)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"))
    hybrid.tail.step()
    hybrid.market.log_is_up = False

    answer = ask(hybrid, on_degrade="partial")

    assert times(answer) == [1]
    assert (answer.certificate.complete, answer.certificate.degradation_level) == (False, "TABLE_ONLY")
    assert answer.certificate.as_of is None
    assert "broker is down" in answer.certificate.reasons[0]
    with pytest.raises(UnavailableError):
        ask(hybrid)


def test_a_table_that_is_down_leaves_the_tail_marked(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(ASX.name, "BHP", 1)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"))
    hybrid.market.append(ASX.name, "BHP", 2)
    hybrid.tail.step()
    hybrid.market.catalog_is_up = False

    answer = ask(hybrid, on_degrade="partial")

    assert times(answer) == [2]
    assert (answer.certificate.complete, answer.certificate.degradation_level) == (False, "LOG_ONLY")
    with pytest.raises(UnavailableError):
        ask(hybrid)


def test_what_the_tail_was_outrun_by_is_read_on_demand(tmp_path: Path) -> None:
    market = SimulatedMarket(tmp_path, [ASX])
    market.register(ASX.name)
    settings = SETTINGS.model_copy(update={"tail_bytes_max": 1})
    hybrid = simulated_hybrid(market, tmp_path, settings=settings)
    for number in range(30):
        market.append(ASX.name, "BHP", number)
    hybrid.tail.step()

    answer = ask(hybrid)

    assert hybrid.tail.get_stats()["rows"] == 0
    assert times(answer) == list(range(30))
    hybrid.close()


def test_a_read_on_demand_that_is_too_long_fails_or_is_marked(tmp_path: Path) -> None:
    market = SimulatedMarket(tmp_path, [ASX])
    market.register(ASX.name)
    settings = SETTINGS.model_copy(update={"on_demand_records_max": 5})
    hybrid = simulated_hybrid(market, tmp_path, settings=settings)
    hybrid.tail.step()
    hybrid.engine._log._on_demand._settings = settings.model_copy(update={"tail_poll_records_max": 3})
    for number in range(30):
        market.append(ASX.name, "BHP", number)

    with pytest.raises(UnavailableError, match="ON_DEMAND_RECORDS_MAX"):
        ask(hybrid)
    answer = ask(hybrid, on_degrade="partial")

    assert not answer.certificate.complete
    hybrid.close()


def test_offsets_that_retention_deleted_are_never_left_out_in_silence(hybrid: SimulatedHybrid) -> None:
    for number in range(5):
        hybrid.market.append(ASX.name, "BHP", number)
    hybrid.market.partitions[ASX.name, home(hybrid, "BHP")].start = 3

    with pytest.raises(LogIdentityError, match="3 offsets were deleted by retention"):
        ask(hybrid)


def test_a_log_shorter_than_the_seam_is_refused_with_the_difference(hybrid: SimulatedHybrid) -> None:
    for number in range(5):
        hybrid.market.append(ASX.name, "BHP", number)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"))
    hybrid.tail.step()
    del hybrid.market.partitions[ASX.name, home(hybrid, "BHP")].messages[3:]

    with pytest.raises(LogIdentityError, match=r"offset 5.* ends at 3, 2 short"):
        ask(hybrid)


def test_a_topic_that_was_created_again_is_refused(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(ASX.name, "BHP", 1)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"))
    hybrid.market.create(ASX.name, "id-2")
    hybrid.tail.step()

    with pytest.raises(LogIdentityError, match="expected topic id id-1, found id-2"):
        ask(hybrid)


def test_a_topic_that_no_worker_has_met_is_harmless_while_it_is_empty(tmp_path: Path) -> None:
    market = SimulatedMarket(tmp_path, [ASX])
    hybrid = simulated_hybrid(market, tmp_path)
    hybrid.tail.step()

    assert ask(hybrid).table.num_rows == 0
    market.append(ASX.name, "BHP", 1)
    with pytest.raises(UnavailableError, match="not registered in trades yet"):
        ask(hybrid)
    hybrid.close()


def test_a_topic_registered_after_the_last_look_is_looked_at_anew(tmp_path: Path) -> None:
    market = SimulatedMarket(tmp_path, [ASX])
    hybrid = simulated_hybrid(market, tmp_path)
    hybrid.tail.step()
    market.register(ASX.name)
    market.append(ASX.name, "BHP", 1)

    assert times(ask(hybrid)) == [1]
    hybrid.close()


def test_rows_of_a_log_that_was_left_behind_stay_in_the_answer(hybrid: SimulatedHybrid) -> None:
    for number in range(4):
        hybrid.market.append(ASX.name, "BHP", number)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"))
    hybrid.market.create(ASX.name, "id-2")
    hybrid.market.register(ASX.name)
    hybrid.market.append(ASX.name, "BHP", 9)
    hybrid.tail.step()

    answer = ask(hybrid)

    assert times(answer) == [0, 1, 2, 3, 9]
    assert answer.table["log_id"].to_pylist() == [0, 0, 0, 0, 2]


def test_a_tail_that_has_not_heard_of_a_new_log_makes_no_answer_short(
    hybrid: SimulatedHybrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    hybrid.tail.step()
    hybrid.market.create(ASX.name, "id-2")
    hybrid.market.register(ASX.name)
    hybrid.market.append(ASX.name, "BHP", 9)
    monkeypatch.setattr(hybrid.tail, "look_again", lambda _: None)

    with pytest.raises(UnavailableError, match="found it at another one"):
        ask(hybrid)


def test_a_log_that_the_table_has_left_cannot_come_back_unnoticed(hybrid: SimulatedHybrid) -> None:
    hybrid.market.create(ASX.name, "id-2")
    hybrid.market.register(ASX.name)
    hybrid.market.create(ASX.name, "id-1")
    hybrid.tail.step()

    with pytest.raises(LogIdentityError, match="expected topic id id-2, found id-1"):
        ask(hybrid)
