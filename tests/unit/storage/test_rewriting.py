"""A rewrite that is not the same rows in order is refused, and so is one of a damaged file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from k2.storage.file_io import local_path
from k2.storage.settings import UpkeepSettings
from k2.storage.upkeep import rewriting
from k2.storage.upkeep.compaction import Compactor, Done
from k2.testing.local_lake import LocalLake

SETTINGS = UpkeepSettings(quiet_minutes=0, merge_files_min=2)


def lake_with(directory: Path, commits: int) -> LocalLake:
    lake = LocalLake(directory).create()
    for number in range(commits):
        lake.commit(f"b{number}", number * 30, (number + 1) * 30)
    return lake


def compact(lake: LocalLake) -> list[Done]:
    scratch_dir = Path(local_path(lake.settings.warehouse)) / "scratch"
    return list(Compactor(lake.tables, lake.settings, SETTINGS, lake.clock, scratch_dir=scratch_dir).run("trades"))


def files_of(lake: LocalLake) -> list[Path]:
    return [Path(local_path(task.file.file_path)) for task in lake.tables.load("trades").scan().plan_files()]


def test_a_damaged_file_is_named_and_nothing_is_replaced(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 6)
    victim = files_of(lake)[2]
    content = bytearray(victim.read_bytes())
    content[40] ^= 0xFF
    victim.write_bytes(content)

    (done,) = compact(lake)

    assert victim.name in done.problem
    assert len(files_of(lake)) == 6


@pytest.mark.parametrize("harm", ["drop", "change", "double"])
def test_a_rewrite_that_changes_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str) -> None:
    lake = lake_with(tmp_path, 6)
    whole = rewriting.row_groups

    def harmed(frames, rows):
        for frame in whole(frames, rows):
            if harm == "drop":
                yield frame.head(frame.height - 1)
            elif harm == "change":
                yield frame.with_columns(written_by=pl.lit("replay"))
            else:
                yield pl.concat([frame.head(1), frame])

    monkeypatch.setattr(rewriting, "row_groups", harmed)

    (done,) = compact(lake)

    assert "nothing was replaced" in done.problem
    assert len(files_of(lake)) == 6
    assert len(list(files_of(lake)[0].parent.iterdir())) == 6


def test_files_in_the_wrong_order_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = lake_with(tmp_path, 6)
    whole = rewriting.row_groups
    monkeypatch.setattr(rewriting, "row_groups", lambda frames, rows: (one.reverse() for one in whole(frames, rows)))

    (done,) = compact(lake)

    assert "in the order" in done.problem


def test_what_a_killed_process_left_behind_while_sorting_is_cleared(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 6)
    scratch_dir = Path(local_path(lake.settings.warehouse)) / "scratch"
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    for owner in (ended.pid, os.getpid()):
        (scratch_dir / f"{owner}-left").mkdir(parents=True)

    compact(lake)

    assert [path.name for path in scratch_dir.iterdir()] == [f"{os.getpid()}-left"]
