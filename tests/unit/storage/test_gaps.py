"""The table of gaps: each event once, and the state that a gap's events tell; rows read back in the log's order."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from k2.common.errors import ReadLimitError
from k2.ingestion.sequences.batches import COLUMNS
from k2.schemas.records import GAPS
from k2.storage.event_tables import GAP_EVENTS, EventWriter
from k2.storage.gap_events import GapEvents
from k2.storage.gaps import GapReader, GapWriter, states
from k2.storage.partition_rows import PartitionRows
from k2.storage.seam import Counts, LogPartition
from k2.storage.seam_moves import SeamMove, SeamMover
from k2.testing.gap_events import gap_event, gap_events
from k2.testing.local_lake import LocalLake


def test_an_event_is_held_once_however_often_it_is_told(lake: LocalLake) -> None:
    writer = GapWriter(lake.tables, lake.settings, lake.clock)

    first = writer.append(gap_events(gap_event("opened", 10, 14)))
    again = writer.append(gap_events(gap_event("opened", 10, 14), gap_event("filled", 12, 12, event_offset=9)))

    assert (first, again) == (1, 1)


def test_a_gap_is_open_until_it_is_filled_or_lost(lake: LocalLake) -> None:
    writer, reader = GapWriter(lake.tables, lake.settings, lake.clock), GapReader(lake.tables)
    seen = []
    for part in (
        [gap_event("opened", 10, 14)],
        [gap_event("filled", 12, 12, event_offset=9)],
        [gap_event("lost", 10, 11), gap_event("lost", 13, 14)],
        [gap_event("filled", number, number, event_offset=number + 20) for number in (10, 11, 13, 14)],
    ):
        writer.append(gap_events(*part))
        seen.append(reader.gaps().select("state", "size", "missing").row(0))

    assert seen == [("open", 5, 5), ("open", 5, 4), ("lost", 5, 4), ("filled", 5, 0)]


def test_a_number_that_comes_twice_fills_once() -> None:
    filled = [gap_event("filled", 12, 12, event_offset=offset) for offset in (9, 20)]

    found = states(gap_events(gap_event("opened", 11, 12), *filled))

    assert found.select("state", "size", "missing").rows() == [("open", 2, 1)]


def test_gaps_are_found_by_symbol_exchange_and_time(lake: LocalLake) -> None:
    writer, reader = GapWriter(lake.tables, lake.settings, lake.clock), GapReader(lake.tables)
    writer.append(
        gap_events(gap_event("opened", 10, 14), gap_event("opened", 30, 31, gap_first=30, gap_last=31, symbol="CBA"))
    )

    assert reader.gaps(symbol="CBA")["gap_first"].to_list() == [30]
    assert reader.gaps(exchange="sim").height == 0
    assert (reader.gaps(since_ns=200).height, reader.gaps(since_ns=201).height) == (2, 0)


def test_no_event_is_read_where_there_are_more_than_the_caller_allows(lake: LocalLake) -> None:
    writer, reader = GapWriter(lake.tables, lake.settings, lake.clock), GapReader(lake.tables)
    nothing = reader.gaps(read_rows_max=0)
    writer.append(gap_events(gap_event("opened", 10, 14), gap_event("filled", 12, 12, event_offset=9)))

    with pytest.raises(ReadLimitError, match="at most 1 events of gaps, found 2"):
        reader.gaps(read_rows_max=1)

    assert nothing.is_empty()
    assert reader.gaps(read_rows_max=2).height == 1


def test_a_partitions_rows_come_back_in_the_order_of_the_log(lake: LocalLake) -> None:
    lake.commit("a", 0, 30)
    lake.commit("b", 30, 50)
    lake.commit("c", 0, 9, partition=1)
    pinned = PartitionRows(lake.tables).pinned("trades")

    found = pl.concat(list(pinned.rows(LogPartition(0, 0), 5, 40, columns=COLUMNS)))
    late = list(pinned.rows(LogPartition(0, 0), 0, 50, columns=COLUMNS, since_us=1_767_400_000_000_000))

    assert found["log_offset"].to_list() == list(range(5, 40))
    assert tuple(found.columns) == COLUMNS
    assert sum(part.height for part in late) == 0
    assert pinned.head.seam.next_offset(LogPartition(0, 0)) == 50


@pytest.mark.parametrize("events_max", [1_000, 0])
def test_events_of_a_symbol_are_up_to_date_held_in_memory_or_not(lake: LocalLake, events_max: int) -> None:
    writer, known = GapWriter(lake.tables, lake.settings, lake.clock), GapEvents(lake.tables, events_max=events_max)
    seen = [known.of("trades", "BHP").height]
    for part in (
        [gap_event(), gap_event("opened", 30, 31, gap_first=30, symbol="CBA")],
        [gap_event("lost"), gap_event("opened", 50, 50, gap_first=50, symbol=None, channel="c")],
    ):
        writer.append(gap_events(*part))
        seen.append(known.of("trades", "BHP").height)

    assert seen == [0, 1, 3]
    assert known.of("quotes", "BHP").height == 0
    assert states(known.of("trades", "CBA"))["gap_first"].to_list() == [50, 30]


def test_a_symbol_whose_gaps_all_lie_outside_the_times_asked_for_has_no_events(lake: LocalLake) -> None:
    early = gap_event(from_ns=100, to_ns=200)
    GapWriter(lake.tables, lake.settings, lake.clock).append(gap_events(early))
    known = GapEvents(lake.tables, events_max=1_000)

    around = [(None, 100), (None, 101), (201, None), (200, None), (120, 130), (300, 400), (1, 50)]
    found = [known.of("trades", "BHP", start_ns=start, end_ns=end).height for start, end in around]

    assert found == [0, 1, 0, 1, 1, 0, 0]


def test_gaps_that_are_decided_again_are_forgotten(lake: LocalLake) -> None:
    writer, reader = GapWriter(lake.tables, lake.settings, lake.clock), GapReader(lake.tables)
    other = {"gap_first": 30, "gap_last": 31, "topic_id": "other"}
    writer.append(gap_events(gap_event(), gap_event("opened", 30, 31, **other, decided_offset=40)))
    writer.append(gap_events(gap_event("opened", 50, 50, gap_first=50, gap_last=50, decided_offset=25)))
    mover = SeamMover(lake.tables, lake.settings, lake.clock)
    back = [SeamMove(0, 0, 30, 20, Counts())]

    mover.forget_letters("id", back)
    mover.forget_letters("id", back)

    assert sorted(reader.gaps()["gap_first"]) == [10, 30]


def test_events_from_before_a_column_was_added_are_read_like_the_others(lake: LocalLake) -> None:
    before = replace(GAPS, fields=GAPS.fields[:-1])
    writer = EventWriter(replace(GAP_EVENTS, record_type=before), lake.tables, lake.settings, lake.clock)
    writer.append(gap_events(gap_event()).drop("commit_sequence"))

    held = GapEvents(lake.tables, events_max=100).of("trades", "BHP")

    assert held["commit_sequence"].to_list() == [None]
    assert GapReader(lake.tables).gaps()["missing"].to_list() == [5]
