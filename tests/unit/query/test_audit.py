"""The audit finds what is lost, doubled or made up, and nothing where all is well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k2.common.errors import LogIdentityError, UnavailableError
from k2.query.audit import Auditor
from k2.query.audit_gaps import GapCounts, in_words
from k2.query.scan import Scanner
from k2.testing.fake_gaps import FakeGaps
from k2.testing.gap_events import gap_event, gap_events
from k2.testing.manual_clock import ManualClock
from k2.testing.simulated_hybrid import SETTINGS, topic
from k2.testing.simulated_market import SimulatedMarket

if TYPE_CHECKING:
    from pathlib import Path

    from k2.query.audit_report import AuditReport

ASX = topic("asx", partitions=1)


@pytest.fixture
def market(tmp_path: Path) -> SimulatedMarket:
    made = SimulatedMarket(tmp_path, [ASX, topic("asx", "quotes", partitions=1)])
    made.register(ASX.name)
    for number in range(20):
        made.append(ASX.name, "BHP", number)
    return made


def audit(
    market: SimulatedMarket,
    tmp_path: Path,
    *,
    window: int = 7,
    wait_seconds: float = 0,
    rows_at_once: int = 1_000,
    gaps: FakeGaps | None = None,
) -> AuditReport:
    auditor = Auditor(
        market.topics,
        planner=market,
        log_facts=market,
        open_reader=market.open_reader,
        dead_letters=market,
        gaps=gaps or FakeGaps(),
        scanner=Scanner([str(tmp_path)], memory_limit_bytes=2**28, threads=1, seconds_max=30),
        settings=SETTINGS.model_copy(update={"audit_window_offsets": window, "audit_rows_at_once_max": rows_at_once}),
        clock=ManualClock(),
    )
    return auditor.verify(wait_seconds=wait_seconds)


def test_a_sound_table_is_sound(market: SimulatedMarket, tmp_path: Path) -> None:
    market.append_bad(ASX.name, "BHP")
    market.append_control(ASX.name, 0)
    market.commit(ASX.name, 0, 9)
    market.commit(ASX.name, 0)
    market.append(ASX.name, "BHP", 99)

    report = audit(market, tmp_path)

    assert report.is_sound
    assert report.advice == ()
    expected = {"messages": 21, "rows": 20, "dead_letters": 1, "lost": 0, "doubled": 0, "pending": 1}
    assert {name: report.totals[name] for name in expected} == expected
    assert report.to_dict()["lost"] == 0


def test_a_commit_that_stored_nothing_is_found_as_a_loss(market: SimulatedMarket, tmp_path: Path) -> None:
    market.commit(ASX.name, 0, 5)
    market.skip(ASX.name, 0, 3)
    market.commit(ASX.name, 0)

    report = audit(market, tmp_path)

    assert report.totals["lost"] == 3
    assert report.totals["doubled"] == 0
    assert not report.is_sound
    assert "3 records lost" in report.advice[0]


def test_rows_appended_twice_are_found_as_doubled(market: SimulatedMarket, tmp_path: Path) -> None:
    market.commit(ASX.name, 0)
    market.append_files(ASX.name, 0, 4, 9)

    report = audit(market, tmp_path)

    assert report.totals["doubled"] == 5
    assert report.totals["lost"] == 0
    assert "without the fence" in report.advice[0]


def test_a_loss_and_a_double_do_not_cancel_out(market: SimulatedMarket, tmp_path: Path) -> None:
    market.commit(ASX.name, 0, 5)
    market.skip(ASX.name, 0, 2)
    market.commit(ASX.name, 0)
    market.append_files(ASX.name, 0, 0, 2)

    totals = audit(market, tmp_path).totals

    assert (totals["lost"], totals["doubled"]) == (2, 2)


def test_rows_above_the_seam_are_not_in_the_log_that_was_read(market: SimulatedMarket, tmp_path: Path) -> None:
    market.commit(ASX.name, 0, 10)
    market.append_files(ASX.name, 0, 12, 14)

    report = audit(market, tmp_path)

    assert report.totals["not_in_log"] == 2
    assert not report.is_sound


def test_counters_stand_in_for_what_retention_has_deleted(market: SimulatedMarket, tmp_path: Path) -> None:
    market.commit(ASX.name, 0)
    market.partitions[ASX.name, 0].start = 8

    report = audit(market, tmp_path)

    assert report.is_sound
    assert report.totals["messages"] == 20
    assert not report.partitions[0].compared_with_log


def test_a_loss_below_the_retained_log_shows_in_the_ledger(market: SimulatedMarket, tmp_path: Path) -> None:
    market.skip(ASX.name, 0, 4)
    market.commit(ASX.name, 0)
    market.partitions[ASX.name, 0].start = 8

    report = audit(market, tmp_path)

    assert report.totals["lost"] == 4


def test_a_double_below_the_retained_log_is_found(market: SimulatedMarket, tmp_path: Path) -> None:
    market.commit(ASX.name, 0)
    market.append_files(ASX.name, 0, 0, 3)
    market.partitions[ASX.name, 0].start = 8

    assert audit(market, tmp_path).totals["doubled"] == 3


def test_retention_that_passed_the_seam_is_a_problem(market: SimulatedMarket, tmp_path: Path) -> None:
    market.commit(ASX.name, 0, 5)
    market.partitions[ASX.name, 0].start = 8

    report = audit(market, tmp_path)

    assert not report.is_sound
    assert "3 offsets were deleted by retention" in report.advice[0]


def test_a_topic_that_nobody_has_registered_is_pending(tmp_path: Path) -> None:
    market = SimulatedMarket(tmp_path, [ASX])
    market.append(ASX.name, "BHP", 1)

    report = audit(market, tmp_path)

    assert report.is_sound
    assert (report.totals["messages"], report.totals["pending"]) == (0, 1)


def test_a_log_shorter_than_the_seam_is_refused(market: SimulatedMarket, tmp_path: Path) -> None:
    market.commit(ASX.name, 0)
    del market.partitions[ASX.name, 0].messages[15:]

    with pytest.raises(LogIdentityError, match=r"offset 20.* ends at 15, 5 short"):
        audit(market, tmp_path)


def test_another_topic_of_the_same_name_is_refused(market: SimulatedMarket, tmp_path: Path) -> None:
    market.commit(ASX.name, 0)
    market.create(ASX.name, "id-2")

    with pytest.raises(LogIdentityError, match="expected topic id id-1, found id-2"):
        audit(market, tmp_path)


def test_a_broker_that_is_down_makes_no_audit(market: SimulatedMarket, tmp_path: Path) -> None:
    market.log_is_up = False

    with pytest.raises(UnavailableError):
        audit(market, tmp_path)


def test_waiting_ends_when_its_time_is_over(market: SimulatedMarket, tmp_path: Path) -> None:
    assert audit(market, tmp_path, wait_seconds=1).totals["pending"] == 20


@pytest.mark.parametrize("window", [1, 3, 20, 1_000])
def test_the_window_changes_nothing(market: SimulatedMarket, tmp_path: Path, window: int) -> None:
    market.commit(ASX.name, 0, 11)
    market.skip(ASX.name, 0, 2)
    market.append_files(ASX.name, 0, 3, 4)

    totals = audit(market, tmp_path, window=window).totals

    assert (totals["lost"], totals["doubled"], totals["pending"]) == (2, 1, 7)


@pytest.mark.parametrize("rows_at_once", [1, 7, 1_000])
def test_a_file_that_two_machines_imported_at_once_is_found_as_doubled(
    market: SimulatedMarket, tmp_path: Path, rows_at_once: int
) -> None:
    for number in range(5, 20):
        market.append(ASX.name, "BHP", number, source_sequence=number)
    market.commit(ASX.name, 0)

    report = audit(market, tmp_path, rows_at_once=rows_at_once)

    expected = {"messages": 35, "rows": 35, "lost": 0, "doubled": 15, "repeated": 15, "not_in_log": 0}
    assert {name: report.totals[name] for name in expected} == expected
    assert not report.is_sound
    assert ["15 records were sent twice" in line for line in report.advice] == [True]


def test_the_same_place_in_a_source_of_another_symbol_is_another_record(
    market: SimulatedMarket, tmp_path: Path
) -> None:
    market.append(ASX.name, "CBA", 3, source_sequence=3)
    market.commit(ASX.name, 0)

    assert audit(market, tmp_path).is_sound


def test_a_row_that_is_stored_twice_is_no_record_that_was_sent_twice(market: SimulatedMarket, tmp_path: Path) -> None:
    market.append(ASX.name, "BHP", 4, source_sequence=4)
    market.commit(ASX.name, 0)
    market.append_files(ASX.name, 0, 7, 10)

    report = audit(market, tmp_path)

    assert (report.totals["doubled"], report.totals["repeated"]) == (4, 1)
    assert len(report.advice) == 3  # rows too many, records sent twice, and a ledger that says fewer rows


def test_gaps_are_counted_by_exchange_and_make_nothing_unsound(market: SimulatedMarket, tmp_path: Path) -> None:
    market.commit(ASX.name, 0)
    gaps = FakeGaps(
        gap_events(
            gap_event(),
            gap_event("opened", 20, 20, gap_first=20, gap_last=20),
            gap_event("filled", 20, 20, gap_first=20, gap_last=20),
            gap_event("opened", 30, 31, gap_first=30, gap_last=31, exchange="sim"),
            gap_event("lost", 30, 31, gap_first=30, gap_last=31, exchange="sim"),
        )
    )

    report = audit(market, tmp_path, gaps=gaps)

    assert report.is_sound
    assert report.gaps == (
        GapCounts("asx", opened=2, filled=1, lost=0, open=1, missing=5),
        GapCounts("sim", opened=1, filled=0, lost=1, open=0, missing=2),
    )
    assert report.to_dict()["gaps"][0]["opened"] == 2
    assert in_words(report.gaps)[0].startswith("gaps in the numbers of asx: 2 opened, of these 1 filled, 0 lost, 1 sti")


def test_a_ledger_that_cannot_be_read_leaves_the_audit_as_it_is(market: SimulatedMarket, tmp_path: Path) -> None:
    market.commit(ASX.name, 0)
    gaps = FakeGaps()
    gaps.fails_with = UnavailableError("the catalog is down", dependency="catalog")

    report = audit(market, tmp_path, gaps=gaps)

    assert (report.is_sound, report.gaps) == (True, None)
    assert "unknown" in in_words(report.gaps)[0]
