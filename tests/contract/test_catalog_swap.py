"""What the commit relies on in a catalog: a swap happens once, only on the head that it was made for.

Run on every catalog and store.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.table.update import SetPropertiesUpdate

from k2.storage.seam import SUMMARY_KEY, Counts, LogPartition, PartitionDelta, Seam
from k2.storage.snapshots import append, swap
from k2.storage.tables import head_of
from k2.storage.writer import Batch, SeamMovedError
from k2.testing.local_lake import LocalLake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyiceberg.table import Table


@pytest.fixture
def lake(place: dict[str, str], tmp_path: Path) -> Iterator[LocalLake]:
    lake = LocalLake(tmp_path, **place).create()
    yield lake
    lake.close()


def seam_summary(table: Table, end: int) -> dict[str, str]:
    delta = PartitionDelta(0, end, Counts(consumed=end, duplicates=end))
    return {SUMMARY_KEY: head_of(table).seam.advanced({LogPartition(0, 0): delta}).to_json()}


def test_a_swap_made_for_an_older_head_is_refused(lake: LocalLake) -> None:
    first, second = lake.tables.load("trades"), lake.tables.load("trades")
    append(first, summary=seam_summary(first, 5))

    with pytest.raises(CommitFailedException):
        append(second, summary=seam_summary(second, 7))

    assert lake.tables.head("trades").seam.next_offset(LogPartition(0, 0)) == 5


def test_a_change_of_properties_made_for_an_older_head_is_refused(lake: LocalLake) -> None:
    stale = lake.tables.load("trades")
    lake.commit("b1", 0, 5)

    with pytest.raises(CommitFailedException):
        swap(stale, (SetPropertiesUpdate(updates={"k2.log.7": "{}"}),))


def test_of_many_swaps_for_one_head_one_happens(place: dict[str, str], tmp_path: Path) -> None:
    lakes = [LocalLake(tmp_path, **place).create() for _ in range(4)]
    tables = [lake.tables.load("trades") for lake in lakes]
    together = threading.Barrier(len(tables))
    outcomes: list[str] = []

    def attempt(table: Table) -> None:
        together.wait()
        try:
            append(table, summary=seam_summary(table, 5))
            outcomes.append("swapped")
        except CommitFailedException:
            outcomes.append("refused")

    threads = [threading.Thread(target=attempt, args=(table,)) for table in tables]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["refused"] * 3 + ["swapped"]
    for lake in lakes:
        lake.close()


@pytest.mark.parametrize(("retries", "rows"), [("0", 5), ("4", 10)])
def test_pyiceberg_itself_rebases_a_stale_writer_and_doubles_rows_unless_told_not_to(
    lake: LocalLake, retries: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why the commit goes below PyIceberg's transactions: the same five rows, appended by two writers that overlap."""
    monkeypatch.setitem(lake.catalog.properties, "py-io-impl", "pyiceberg.io.pyarrow.PyArrowFileIO")
    with contextlib.suppress(NoSuchTableError):
        lake.catalog.drop_table("market.plain")
    table = lake.catalog.create_table("market.plain", pa.schema([("n", pa.int64())]))
    with table.transaction() as transaction:
        transaction.set_properties({"commit.retry.num-retries": retries, "commit.retry.min-wait-ms": "1"})
    first, stale = lake.catalog.load_table("market.plain"), lake.catalog.load_table("market.plain")
    data = pl.DataFrame({"n": range(5)}).to_arrow()

    first.append(data)
    with contextlib.suppress(CommitFailedException):
        stale.append(data)

    assert lake.catalog.load_table("market.plain").scan().count() == rows


def test_the_fenced_commit_never_doubles_them(lake: LocalLake) -> None:
    ours, theirs = lake.batch("ours", 0, 5), lake.batch("theirs", 0, 5)
    lake.writer().commit(theirs)

    with pytest.raises(SeamMovedError):
        lake.writer().commit(ours)

    assert len(lake.coordinates()) == 5


def test_plain_pyiceberg_reads_the_seam_and_the_rows(lake: LocalLake) -> None:
    lake.writer().commit(Batch("b0", {LogPartition(0, 1): PartitionDelta(0, 2, Counts(consumed=2, dead_letters=2))}))
    commit = lake.commit("b1", 0, 5)

    table = lake.catalog.load_table("market.trades")

    summary = table.current_snapshot().summary
    assert Seam.from_json(summary.additional_properties[SUMMARY_KEY]) == commit.seam
    assert (summary["total-records"], table.scan().count()) == ("5", 5)
