"""Checksums: recorded while a file is written, kept by merging, and looked at before anything is believed."""

from __future__ import annotations

import random
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pyiceberg.manifest import read_manifest_list

from k2.common.errors import CorruptionError
from k2.storage.checksums import checksum_of
from k2.storage.file_io import local_path
from k2.storage.planning import Planner
from k2.testing.local_lake import LocalLake

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from k2.storage.planning import PinnedSnapshot


def path_of(location: str) -> Path:
    path = local_path(location)
    assert path is not None
    return path


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def manifest_list(table: Table) -> Path:
    snapshot = table.current_snapshot()
    assert snapshot is not None
    return path_of(snapshot.manifest_list)


def manifests(table: Table) -> list[Path]:
    listed = read_manifest_list(table.io.new_input(str(manifest_list(table))))
    return [path_of(manifest.manifest_path) for manifest in listed]


def pinned_or_damage(directory: Path) -> PinnedSnapshot | CorruptionError:
    """Return what a fresh process would pin, or what it would say of the damage."""
    lake = LocalLake(directory)
    try:
        return Planner(lake.tables, lake.settings).pin("trades")
    except CorruptionError as error:
        return error
    finally:
        lake.close()


def test_the_manifest_records_the_checksum_of_each_data_file_also_once_merged(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path, manifests_merge_count=2).create()
    for number in range(5):
        lake.commit(f"b{number}", 10 * number, 10 * number + 10)

    files = [task.file for task in lake.tables.load("trades").scan().plan_files()]

    assert len(files) == 5
    assert [checksum_of(file) for file in files] == [zlib.crc32(path_of(file.file_path).read_bytes()) for file in files]


def test_a_planned_file_carries_its_checksum(lake: LocalLake) -> None:
    lake.commit("b1", 0, 10)
    planner = Planner(lake.tables, lake.settings)

    (file,) = planner.plan(planner.pin("trades"))

    assert file.checksum == zlib.crc32(Path(file.path).read_bytes())


@pytest.mark.parametrize("kind", ["metadata", "manifest list", "manifest"])
def test_any_bit_that_flips_in_the_metadata_is_refused_by_name_or_changes_nothing(tmp_path: Path, kind: str) -> None:
    lake = LocalLake(tmp_path).create()
    lake.commit("b1", 0, 10)
    lake.commit("b2", 10, 20)
    table = lake.tables.load("trades")
    path = {
        "metadata": path_of(table.metadata_location),
        "manifest list": manifest_list(table),
        "manifest": manifests(table)[0],
    }[kind]
    whole, sound = path.read_bytes(), lake.tables.head("trades")
    drawn = random.Random(19)
    stamp = [drawn.randrange(8 * 25) for _ in range(15)] if kind == "metadata" else []
    refused = 0

    for bit in [*stamp, *(drawn.randrange(8 * len(whole)) for _ in range(25))]:
        flip(path, bit)
        found = pinned_or_damage(tmp_path)
        path.write_bytes(whole)
        if isinstance(found, CorruptionError):
            assert found.path == "market.trades" or path_of(found.path) == path, bit
            refused += 1
        else:
            assert (found.head, found.rows) == (sound, 20), bit

    assert refused >= 25
    lake.close()


@pytest.mark.parametrize("kept", [0, 1, 1_000, -1])
def test_a_metadata_file_that_was_cut_short_is_refused_by_name(tmp_path: Path, kept: int) -> None:
    lake = LocalLake(tmp_path).create()
    lake.commit("b1", 0, 10)
    path = path_of(lake.tables.load("trades").metadata_location)
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(CorruptionError, match=r"market.trades|metadata\.json"):
        LocalLake(tmp_path).tables.head("trades")
    lake.close()


def test_the_other_manifests_are_served_where_that_is_asked_for(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path).create()
    lake.commit("b1", 0, 10)
    lake.commit("b2", 10, 25)
    newest, _ = manifests(lake.tables.load("trades"))
    flip(newest, 1_000)
    planner = Planner(lake.tables, lake.settings)

    with pytest.raises(CorruptionError, match=newest.name):
        planner.pin("trades")
    pinned = planner.pin("trades", partial=True)

    assert pinned.rows == 10
    assert [path_of(damage.path) for damage in pinned.damaged] == [newest]
    lake.close()


def test_a_commit_refuses_to_build_on_a_manifest_that_is_damaged(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path, manifests_merge_count=2).create()
    lake.commit("b1", 0, 10)
    (only,) = manifests(lake.tables.load("trades"))
    flip(only, 1_000)

    lake.commit("b2", 10, 20)

    with pytest.raises(CorruptionError, match=only.name):
        lake.commit("b3", 20, 30)
    lake.close()
