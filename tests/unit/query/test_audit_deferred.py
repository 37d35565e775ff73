"""The audit while records are deferred: each is accounted for, what is lost is named, lists must fit the counters."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from k2.common.degradation import Priority
from k2.query.audit import Auditor
from k2.query.scan import Scanner
from k2.storage.deferral import Backfill, seam_after_backfill
from k2.storage.seam import Counts, LogPartition
from k2.testing.deferring_market import DeferringMarket
from k2.testing.fake_gaps import FakeGaps
from k2.testing.manual_clock import ManualClock
from k2.testing.simulated_hybrid import SETTINGS, topic

if TYPE_CHECKING:
    from pathlib import Path

    from k2.query.audit_report import AuditReport

ASX = topic("asx", partitions=1)
COUNTED = ("messages", "rows", "duplicates", "dead_letters", "deferred", "lost", "doubled")


@pytest.fixture
def market(tmp_path: Path) -> DeferringMarket:
    """Return 12 trades of which every second may be deferred; one of those repeats another, one is bad."""
    made = DeferringMarket(tmp_path, [ASX, topic("asx", "quotes", partitions=1)])
    made.register(ASX.name)
    for number in range(5):
        made.append(ASX.name, "ANZ", number)
        made.append(ASX.name, "NAB", min(number, 3), identity=min(number, 3) + 1)
    made.append(ASX.name, "ANZ", 9)
    made.append_bad(ASX.name, "NAB")
    made.commit(ASX.name, 0, deferred_from=Priority.NORMAL)
    return made


def audit(market: DeferringMarket, tmp_path: Path) -> AuditReport:
    scanner = Scanner([str(tmp_path)], memory_limit_bytes=2**28, threads=1, seconds_max=30)
    return Auditor(
        market.topics,
        planner=market,
        log_facts=market,
        open_reader=market.open_reader,
        dead_letters=market,
        gaps=FakeGaps(),
        scanner=scanner,
        settings=SETTINGS.model_copy(update={"audit_window_offsets": 5}),
        clock=ManualClock(),
    ).verify()


def totals(report: AuditReport) -> list[int]:
    return [report.totals[name] for name in COUNTED]


def test_deferred_records_are_outstanding_and_not_lost(market: DeferringMarket, tmp_path: Path) -> None:
    report = audit(market, tmp_path)

    assert report.is_sound
    assert totals(report) == [12, 6, 0, 0, 6, 0, 0]


def test_messages_are_the_sum_while_and_after_a_backfill(market: DeferringMarket, tmp_path: Path) -> None:
    market.backfill(ASX.name, 0, 4)
    half = audit(market, tmp_path)
    market.backfill(ASX.name, 0)

    report = audit(market, tmp_path)

    assert half.is_sound
    assert totals(half) == [12, 8, 0, 0, 4, 0, 0]
    assert report.is_sound
    assert totals(report) == [12, 10, 1, 1, 0, 0, 0]


def test_what_retention_has_eaten_makes_the_report_unsound(market: DeferringMarket, tmp_path: Path) -> None:
    head = market.head("trades")
    at, entry = LogPartition(0, 0), head.seam.deferred[0]
    lost = Backfill(entry.start, entry.end, market.predicate(Priority.NORMAL), Counts(), log_start=12, lost=6)
    market.partitions[ASX.name, 0].start = 12
    market._swap(dataclasses.replace(head, seam=seam_after_backfill(head.seam, at, lost)), ())

    report = audit(market, tmp_path)

    assert not report.is_sound
    assert report.totals["lost"] == 6
    assert report.totals["deferred"] == 0


def test_a_list_that_does_not_fit_the_counters_is_named(market: DeferringMarket, tmp_path: Path) -> None:
    head = market.head("trades")
    entry = dataclasses.replace(head.seam.deferred[0], records=2)
    market._swap(dataclasses.replace(head, seam=dataclasses.replace(head.seam, deferred=(entry,))), ())

    report = audit(market, tmp_path)

    assert not report.is_sound
    assert "deferred list" in " ".join(report.advice)


def test_what_was_deferred_in_a_topic_that_was_created_again_is_lost(market: DeferringMarket, tmp_path: Path) -> None:
    market.create(ASX.name, "id-2")
    market.register(ASX.name)

    report = audit(market, tmp_path)

    assert not report.is_sound
    assert totals(report) == [12, 6, 0, 0, 0, 6, 0]
    assert "6 records that were put off went with the log" in " ".join(report.advice)
