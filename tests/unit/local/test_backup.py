"""A backup's files and list, the log's segments, and tables that come to stand elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from k2.common.errors import ConfigurationError, CorruptionError, UnavailableError
from k2.local.backup import back_up, restore
from k2.local.backup_files import LIST_NAME
from k2.local.backup_log import copy_log
from k2.local.layout import DataDirectory
from k2.storage.deep_check import DeepCheck
from k2.storage.settings import CatalogSettings
from k2.storage.tables import MarketTables
from k2.testing.local_lake import LocalLake
from k2.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTITION = "kafka/log/market.simulated.trades.sim-0"


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[LocalLake]:
    """A platform's directory with three commits, a log of one partition and a registry; nothing runs on it."""
    root = tmp_path / "data"
    root.mkdir()
    catalog = DataDirectory(root).catalog()
    lake = LocalLake(root, manifests_merge_count=2)
    lake.close()
    settings = CatalogSettings(**catalog, manifests_merge_count=2)
    lake.settings, lake.catalog = settings, None  # type: ignore[assignment]
    lake.tables = MarketTables(settings, lake.clock)
    lake.create()
    for number in range(3):
        lake.commit(f"b{number}", 100 * number, 100 * number + 100)
    partition = root / PARTITION
    partition.mkdir(parents=True)
    (partition / "00000000000000000000.log").write_bytes(b"segment" * 100)
    (partition / "00000000000000000000.index").write_bytes(bytes(100))
    (root / "kafka/log/meta.properties").write_text("cluster.id=c\n")
    (root / "kafka/log/recovery-point-offset-checkpoint").write_text("0\n0\n")
    (root / "registry").mkdir()
    (root / "registry/registry.mv.db").write_bytes(b"schemas")
    (root / "api-key").write_text("k2_secret\n")
    yield lake
    lake.tables.close()


def backed_up(lake: LocalLake, tmp_path: Path) -> Path:
    target = tmp_path / "backup"
    directory = DataDirectory(tmp_path / "data")
    back_up(directory, target, tables=lake.tables, log_ends=dict, clock=ManualClock(), tell=lambda _text: None)
    return target


def restored(source: Path, root: Path) -> MarketTables:
    directory = DataDirectory(root)
    restore(source, directory, tell=lambda _text: None)
    return MarketTables(CatalogSettings(**directory.catalog()), ManualClock())


def coordinates(tables: MarketTables) -> list[int]:
    return sorted(tables.load("trades").scan(selected_fields=("log_offset",)).to_arrow()["log_offset"].to_pylist())


def test_restored_tables_hold_the_same_snapshot_seam_and_rows_without_the_old_directory(
    lake: LocalLake, tmp_path: Path
) -> None:
    source = backed_up(lake, tmp_path)
    head = lake.tables.head("trades")
    (tmp_path / "data").rename(tmp_path / "gone")

    tables = restored(source, tmp_path / "new")

    found = tables.head("trades")
    assert (found.snapshot_id, found.seam, found.logs) == (head.snapshot_id, head.seam, head.logs)
    assert coordinates(tables) == list(range(300))
    report = DeepCheck(tables).run()
    assert (report.is_sound, report.unrecorded) == (True, 0)
    tables.close()


def test_a_restored_table_takes_the_next_commit(lake: LocalLake, tmp_path: Path) -> None:
    tables = restored(backed_up(lake, tmp_path), tmp_path / "new")
    lake.tables.close()
    lake.tables = tables
    lake.settings = CatalogSettings(**DataDirectory(tmp_path / "new").catalog(), manifests_merge_count=2)

    lake.commit("b3", 300, 350)

    assert coordinates(tables) == list(range(350))


def test_commits_after_the_pin_are_not_in_the_backup_and_do_no_harm(lake: LocalLake, tmp_path: Path) -> None:
    target = tmp_path / "backup"

    def commit_before_the_log(text: str) -> None:
        if text == "log":
            lake.commit("meanwhile", 300, 310)

    directory = DataDirectory(tmp_path / "data")
    back_up(directory, target, tables=lake.tables, log_ends=dict, clock=ManualClock(), tell=commit_before_the_log)

    tables = restored(target, tmp_path / "new")

    assert coordinates(tables) == list(range(300))
    assert coordinates(lake.tables) == list(range(310))
    tables.close()


def test_a_backup_inside_of_the_platform_is_refused(lake: LocalLake, tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data")
    target = tmp_path / "data" / "backup"

    with pytest.raises(ConfigurationError, match="outside of the platform"):
        back_up(directory, target, tables=lake.tables, log_ends=dict, clock=ManualClock(), tell=print)

    assert not target.exists()


def test_an_interrupted_backup_is_none(lake: LocalLake, tmp_path: Path) -> None:
    source = backed_up(lake, tmp_path)
    (source / LIST_NAME).unlink()

    with pytest.raises(ConfigurationError, match="interrupted"):
        restored(source, tmp_path / "new")
    with pytest.raises(ConfigurationError, match="backup that was interrupted"):
        backed_up(lake, tmp_path)

    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("harm", ["flipped", "short", "gone"])
def test_a_damaged_backup_is_refused_before_anything_is_written(lake: LocalLake, tmp_path: Path, harm: str) -> None:
    source = backed_up(lake, tmp_path)
    path = next((source / "warehouse").rglob("*.parquet"))
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(content if harm == "flipped" else content[:-1])

    with pytest.raises(CorruptionError, match=path.name):
        restored(source, tmp_path / "new")

    assert not (tmp_path / "new").exists()


def test_a_list_that_was_changed_is_refused(lake: LocalLake, tmp_path: Path) -> None:
    source = backed_up(lake, tmp_path)
    body = json.loads((source / LIST_NAME).read_text())
    body["files"].pop()
    (source / LIST_NAME).write_text(json.dumps(body))

    with pytest.raises(CorruptionError, match="checksum does not fit"):
        restored(source, tmp_path / "new")


def test_a_directory_in_use_is_refused(lake: LocalLake, tmp_path: Path) -> None:
    source = backed_up(lake, tmp_path)

    with pytest.raises(ConfigurationError, match="expected no or an empty directory for the restored platform"):
        restored(source, tmp_path / "data")
    with pytest.raises(ConfigurationError, match="found another backup"):
        backed_up(lake, tmp_path)


def test_a_damaged_data_file_is_named_and_makes_no_backup(lake: LocalLake, tmp_path: Path) -> None:
    path = next((tmp_path / "data/warehouse").rglob("*.parquet"))
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)

    with pytest.raises(CorruptionError, match=path.name):
        backed_up(lake, tmp_path)

    assert not (tmp_path / "backup" / LIST_NAME).exists()


def test_only_segments_are_copied_of_the_log_and_secrets_stay_private(lake: LocalLake, tmp_path: Path) -> None:
    source = backed_up(lake, tmp_path)

    assert sorted(path.name for path in (source / PARTITION).iterdir()) == ["00000000000000000000.log"]
    assert sorted(path.name for path in (source / "kafka/log").iterdir() if path.is_file()) == ["meta.properties"]
    assert (source / "api-key").stat().st_mode & 0o077 == 0


def log_of(directory: Path, *segments: str) -> Path:
    partition = directory / "t-0"
    partition.mkdir(parents=True)
    for name in segments:
        (partition / f"{name}.log").write_text(name)
    return partition


def test_a_segment_that_goes_while_its_partition_is_copied_leaves_no_hole(tmp_path: Path) -> None:
    partition = log_of(tmp_path / "log", "00", "10", "20")
    copied: list[str] = []

    def copy(source: Path, _path: str) -> None:
        copied.append(source.read_text())
        if copied == ["00", "10"]:
            (partition / "00.log").unlink()

    copy_log(tmp_path / "log", "log", copy)

    assert copied == ["00", "10", "20", "10", "20"]


def test_a_log_that_never_stands_still_is_given_up(tmp_path: Path) -> None:
    partition = log_of(tmp_path / "log", "00", "10")

    def copy(source: Path, _path: str) -> None:
        replacement = partition / "new"
        replacement.write_text("cleaned")
        replacement.replace(source)

    with pytest.raises(UnavailableError, match="begin the backup again"):
        copy_log(tmp_path / "log", "log", copy)


def test_the_cluster_s_metadata_is_copied_last_and_its_snapshots_after_its_log(tmp_path: Path) -> None:
    for name in ("zz-0", "__cluster_metadata-0", "aa-0", "aa-1-delete.x-delete"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.log").write_text("x")
    (tmp_path / "__cluster_metadata-0/5.checkpoint").write_text("x")
    copied: list[str] = []

    copy_log(tmp_path, "log", lambda _source, path: copied.append(path))

    assert copied == [
        "log/aa-0/0.log",
        "log/zz-0/0.log",
        "log/__cluster_metadata-0/0.log",
        "log/__cluster_metadata-0/5.checkpoint",
    ]
