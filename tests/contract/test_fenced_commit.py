"""The fenced commit on every catalog and store: races, lost replies, stale heads, registration, expiry."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from k2.common.errors import FencedError, UnavailableError
from k2.storage.expiry import SnapshotExpiry
from k2.storage.seam import Counts, LogPartition
from k2.storage.settings import CatalogSettings
from k2.storage.writer import Batch, SeamMovedError, TableWriter
from k2.testing.faulty_catalog import Fault
from k2.testing.local_lake import LocalLake
from k2.testing.services.places import Services

FIRST = LogPartition(0, 0)
Place = dict[str, str]


@pytest.fixture
def lake(place: Place, tmp_path: Path):
    lake = LocalLake(tmp_path, **place).create()
    yield lake
    lake.close()


def test_of_writers_that_race_for_one_range_one_lands_and_the_others_are_fenced(place: Place, tmp_path: Path) -> None:
    lakes = [LocalLake(tmp_path, **place).create() for _ in range(3)]
    batches = [lake.batch(f"b{number}", 0, 5) for number, lake in enumerate(lakes)]
    together = threading.Barrier(len(lakes))
    outcomes: list[str] = []

    def race(lake: LocalLake, batch: Batch) -> None:
        together.wait()
        try:
            lake.writer().commit(batch)
            outcomes.append("landed")
        except FencedError:
            outcomes.append("fenced")

    threads = [threading.Thread(target=race, args=pair) for pair in zip(lakes, batches, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["fenced", "fenced", "landed"]
    assert lakes[0].coordinates() == [(0, 0, offset) for offset in range(5)]
    for lake in lakes:
        lake.close()


def test_writers_of_two_partitions_that_overlap_are_merged(lake: LocalLake, place: Place, tmp_path: Path) -> None:
    other = LocalLake(tmp_path, **place)
    theirs = [other.batch("theirs", 0, 3, partition=1)]
    lake.catalog.before_commit = lambda: theirs and other.writer().commit(theirs.pop())

    commit = lake.commit("ours", 0, 5)

    assert commit.attempts == 2
    assert commit.seam.totals() == Counts(consumed=8, rows=8)
    assert len(lake.coordinates()) == 8
    other.close()


def test_a_batch_whose_reply_was_lost_is_found_by_its_id(lake: LocalLake) -> None:
    lake.catalog.faults.append(Fault.LOSE_REPLY)

    commit = lake.commit("b1", 0, 5)

    assert (commit.found, commit.attempts) == (True, 2)
    assert len(lake.coordinates()) == 5


def test_a_batch_that_somebody_overtook_after_its_reply_was_lost_is_found_too(
    lake: LocalLake, place: Place, tmp_path: Path
) -> None:
    other = LocalLake(tmp_path, **place)
    batch = lake.batch("b1", 0, 5)
    lake.catalog.faults.append(Fault.LOSE_REPLY)
    once = TableWriter(lake.tables, "trades", CatalogSettings(**place, commit_attempts_max=1), lake.clock)
    with pytest.raises(UnavailableError, match="commit the same batch again"):
        once.commit(batch)
    other.commit("b2", 5, 9)

    again = lake.writer().commit(batch)

    assert again.found
    assert again.seam.next_offset(FIRST) == 9
    assert len(lake.coordinates()) == 9
    other.close()


def test_a_stale_writer_is_fenced_and_told_where_to_seek(lake: LocalLake, place: Place, tmp_path: Path) -> None:
    other = LocalLake(tmp_path, **place)
    stale = lake.batch("stale", 0, 5)
    other.commit("theirs", 0, 7)

    with pytest.raises(SeamMovedError) as caught:
        lake.writer().commit(stale)

    assert caught.value.head.seam.next_offset(FIRST) == 7
    assert len(lake.coordinates()) == 7
    other.close()


def test_workers_that_register_logs_at_once_get_one_id_each(place: Place, tmp_path: Path) -> None:
    lakes = [LocalLake(tmp_path, **place, commit_attempts_max=50) for _ in range(3)]
    lakes[0].tables.ensure()

    def register(lake: LocalLake, number: int) -> None:
        lake.tables.register_log(
            "trades", cluster_id="c", topic_id=f"t{number % 2}", topic=f"topic{number % 2}", starts={0: 0}
        )

    threads = [threading.Thread(target=register, args=(lake, number)) for number, lake in enumerate(lakes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    logs = lakes[0].tables.head("trades").logs
    assert [log.log_id for log in logs] == [0, 1]
    assert sorted(log.topic_id for log in logs) == ["t0", "t1"]
    for lake in lakes:
        lake.close()


def test_workers_that_start_at_once_on_nothing_make_one_of_each_table(place: Place, tmp_path: Path) -> None:
    lakes = started_at_once(place, tmp_path)

    assert len({lake.tables.load("trades").metadata.table_uuid for lake in lakes}) == 1
    for lake in lakes:
        lake.close()


@pytest.mark.platform
def test_workers_that_start_at_once_on_an_empty_database_make_its_tables_once(
    services: Services, tmp_path: Path
) -> None:
    lakes = started_at_once({"uri": services.postgres.new_database("nothing-yet")}, tmp_path)

    assert len({lake.tables.load("trades").metadata.table_uuid for lake in lakes}) == 1
    for lake in lakes:
        lake.close()


def started_at_once(place: Place, directory: Path) -> list[LocalLake]:
    together = threading.Barrier(3)

    def start(_number: int) -> LocalLake:
        together.wait()
        lake = LocalLake(directory, **place)
        lake.tables.ensure()
        return lake

    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(start, range(3)))


def test_expiry_keeps_the_seam_and_gives_way_to_a_commit(place: Place, tmp_path: Path) -> None:
    settings = {**place, "snapshots_kept_min": 2, "snapshot_age_min_seconds": 0}
    lake, other = LocalLake(tmp_path, **settings).create(), LocalLake(tmp_path, **settings)
    for number in range(4):
        lake.commit(f"b{number}", number, number + 1)
    expiry = SnapshotExpiry(lake.tables, lake.settings, lake.clock)
    theirs = [other.batch("theirs", 4, 5)]
    lake.catalog.before_commit = lambda: theirs and other.writer().commit(theirs.pop())

    overtaken, expired = expiry.expire("trades"), expiry.expire("trades")

    assert (overtaken, expired) == (0, 4)
    assert lake.tables.head("trades").seam.next_offset(FIRST) == 5
    assert len(lake.coordinates()) == 5
    lake.close()
    other.close()
