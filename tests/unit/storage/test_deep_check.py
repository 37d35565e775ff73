"""The deep check: every kind of file, damaged or gone, is found and named with what it held, and nothing else is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pyiceberg.manifest import read_manifest_list

from k2.storage.checksums import BOUND_ID
from k2.storage.deep_check import DeepCheck
from k2.storage.file_io import local_path
from k2.storage.tables import MarketTables
from k2.storage.writer import Batch
from k2.testing.local_lake import LocalLake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from k2.storage.deep_check import DeepReport


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[LocalLake]:
    lake = LocalLake(tmp_path).create()
    lake.commit("b1", 0, 100)
    lake.commit("b2", 0, 50, partition=1)
    yield lake
    lake.close()


def checked(lake: LocalLake) -> DeepReport:
    fresh = MarketTables(lake.settings, lake.clock)
    report = DeepCheck(fresh).run()
    fresh.close()
    return report


def file_of(lake: LocalLake, kind: str) -> Path:
    table = lake.tables.load("trades")
    snapshot = table.current_snapshot()
    assert snapshot is not None
    location = {
        "metadata": lambda: table.metadata_location,
        "manifest list": lambda: snapshot.manifest_list,
        "manifest": lambda: next(
            item.manifest_path for item in read_manifest_list(table.io.new_input(snapshot.manifest_list))
        ),
        "data file": lambda: next(
            task.file.file_path for task in table.scan().plan_files() if task.file.record_count == 50
        ),
    }[kind]()
    path = local_path(location)
    assert path is not None
    return path


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def test_a_sound_lake_is_found_sound_and_all_of_it_is_read(lake: LocalLake, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    report = DeepCheck(lake.tables).run(lambda done, total: told.append((done, total)))

    assert report.is_sound
    assert report.unrecorded == 0
    assert report.bytes_read == sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))
    assert told[-1] == (report.bytes_read, report.bytes_read)
    assert report.files == 4 + 1 + 2 + 2  # metadata of four tables, one list, two manifests, two data files


@pytest.mark.parametrize("harm", [flip, shorten, lambda path: path.unlink()], ids=["flipped", "cut short", "gone"])
@pytest.mark.parametrize("kind", ["metadata", "manifest list", "manifest", "data file"])
def test_a_damaged_file_is_the_one_that_is_named(lake: LocalLake, kind: str, harm: Callable[[Path], None]) -> None:
    path = file_of(lake, kind)
    harm(path)

    (damage,) = checked(lake).damaged

    assert (damage.table, damage.kind, local_path(damage.path)) == ("market.trades", kind, path)
    assert "backup" in damage.advice


def test_of_a_data_file_it_is_said_what_it_held(lake: LocalLake) -> None:
    flip(file_of(lake, "data file"))

    (damage,) = checked(lake).damaged

    assert (damage.rows, damage.log_partitions, damage.log_offsets) == (50, (1, 1), (0, 49))
    assert "expected CRC32" in damage.problem


def test_of_damaged_metadata_the_newest_older_version_that_is_whole_is_named(lake: LocalLake) -> None:
    newest = file_of(lake, "metadata")
    flip(newest)
    older = sorted(path for path in newest.parent.glob("*.metadata.json") if path != newest)
    flip(older[-1])

    (damage,) = checked(lake).damaged

    assert older[-2].name in damage.advice


def test_a_file_without_a_checksum_is_read_page_by_page(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path).create()
    batch = lake.batch("b1", 0, 1_000)
    bounds = batch.files[0].data_file.lower_bounds
    assert bounds is not None
    del bounds[BOUND_ID]
    lake.writer().commit(Batch("b1", batch.deltas, batch.files))
    whole = checked(lake)
    path = local_path(batch.files[0].path)
    assert path is not None
    content = bytearray(path.read_bytes())
    content[200] ^= 0x10
    path.write_bytes(content)

    (damage,) = checked(lake).damaged

    assert (whole.is_sound, whole.unrecorded) == (True, 1)
    assert "a page is damaged" in damage.problem
    lake.close()
