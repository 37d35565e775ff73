"""Planning: no file too few, few too many, and no manifest read twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.manifest import ManifestFile

from k2.common.errors import CorruptionError
from k2.storage.expiry import SnapshotExpiry
from k2.storage.file_io import local_path
from k2.storage.planning import Planner
from k2.storage.seam import Counts, LogPartition, PartitionDelta
from k2.storage.writer import Batch
from k2.testing.local_lake import LocalLake
from k2.testing.market_rows import START_NS, market_rows

if TYPE_CHECKING:
    from pathlib import Path

DAY_NS = 86_400_000_000_000
SYMBOLS = ("AAA", "BBB", "CCC", "DDD")


def add(lake: LocalLake, number: int, *, exchange: str, symbols: tuple[str, ...], start_ns: int) -> None:
    rows = market_rows(range(number * 10, number * 10 + 10), exchange=exchange, symbols=symbols, start_ns=start_ns)
    delta = PartitionDelta(number * 10, number * 10 + 10, Counts(consumed=10, rows=10))
    lake.writer().commit(Batch(f"b{number}", {LogPartition(0, 0): delta}, lake.writer().write_files(rows)))


def small_lake(directory: Path) -> LocalLake:
    lake = LocalLake(directory, manifests_merge_count=4).create()
    for number in range(10):
        add(
            lake,
            number,
            exchange="asx" if number % 3 else "sim",
            symbols=SYMBOLS[number % 4 : number % 4 + 2],
            start_ns=START_NS + (number // 4) * DAY_NS,
        )
    return lake


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalLake, Planner]:
    lake = small_lake(tmp_path_factory.mktemp("planning"))
    return lake, Planner(lake.tables, lake.settings)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    exchange=st.sampled_from([None, "asx", "sim", "nowhere"]),
    symbol=st.sampled_from([None, *SYMBOLS, "A", "ZZZ"]),
    start=st.one_of(st.none(), st.integers(-1, 3 * 86_400)),
    length=st.one_of(st.none(), st.integers(0, 2 * 86_400)),
)
def test_a_plan_is_never_a_file_short(
    planned: tuple[LocalLake, Planner], exchange: str | None, symbol: str | None, start: int | None, length: int | None
) -> None:
    lake, planner = planned
    start_ns = None if start is None else START_NS + start * 1_000_000_000
    end_ns = None if length is None else (start_ns or START_NS) + length * 1_000_000_000

    plan = planner.plan(planner.pin("trades"), exchange=exchange, symbol=symbol, start_ns=start_ns, end_ns=end_ns)

    wanted = {
        str(local_path(path))
        for path, rows in rows_by_file(lake).items()
        if any(
            (exchange is None or row["exchange"] == exchange)
            and (symbol is None or row["symbol"] == symbol)
            and (start_ns is None or row["ts_event_ns"] >= start_ns)
            and (end_ns is None or row["ts_event_ns"] < end_ns)
            for row in rows
        )
    }
    assert wanted <= {file.path for file in plan}


_ROWS: dict[int, dict[str, list[dict[str, object]]]] = {}


def rows_by_file(lake: LocalLake) -> dict[str, list[dict[str, object]]]:
    if id(lake) not in _ROWS:
        tasks = lake.tables.load("trades").scan().plan_files()
        _ROWS[id(lake)] = {
            task.file.file_path: pl.read_parquet(local_path(task.file.file_path)).to_dicts() for task in tasks
        }
    return _ROWS[id(lake)]


def test_bounds_keep_other_days_exchanges_and_symbols_out(planned: tuple[LocalLake, Planner]) -> None:
    _, planner = planned
    pinned = planner.pin("trades")

    counts = [
        len(planner.plan(pinned)),
        len(planner.plan(pinned, exchange="sim")),
        len(planner.plan(pinned, end_ns=START_NS + DAY_NS)),
        len(planner.plan(pinned, symbol="AAA")),
        len(planner.plan(pinned, end_ns=START_NS)),
        len(planner.plan(pinned, start_ns=START_NS + 9 * DAY_NS)),
    ]

    assert counts == [10, 4, 4, 3, 0, 0]
    assert pinned.rows == 100


def test_a_table_without_rows_plans_nothing(lake: LocalLake) -> None:
    planner = Planner(lake.tables, lake.settings)

    assert planner.plan(planner.pin("trades")) == ()
    assert planner.plan(planner.pin("quotes")) == ()


def test_a_new_commit_reads_only_its_own_manifest(lake: LocalLake, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        lake.commit(f"b{number}", number, number + 1)
    planner = Planner(lake.tables, lake.settings)
    planner.pin("trades")
    lake.commit("b5", 5, 6)
    read: list[str] = []
    fetch = ManifestFile.fetch_manifest_entry
    monkeypatch.setattr(
        ManifestFile,
        "fetch_manifest_entry",
        lambda self, io: read.append(self.manifest_path) or fetch(self, io),
    )

    pinned = planner.pin("trades")

    assert (len(read), pinned.rows) == (1, 6)


def test_a_pinned_snapshot_survives_commits_merges_and_expiry(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path, manifests_merge_count=3, snapshots_kept_min=1, snapshot_age_min_seconds=0).create()
    planner = Planner(lake.tables, lake.settings)
    lake.commit("b0", 0, 5)
    pinned = planner.pin("trades")
    for number in range(1, 8):
        lake.commit(f"b{number}", number * 5, number * 5 + 5)
    SnapshotExpiry(lake.tables, lake.settings, lake.clock).expire("trades")

    (file,) = planner.plan(pinned)

    assert (file.rows, pinned.head.seam.next_offset(LogPartition(0, 0))) == (5, 5)
    assert local_path(file.path) is not None


def test_the_cache_of_manifests_is_bounded(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path, planned_files_cached_max=2).create()
    for number in range(6):
        lake.commit(f"b{number}", number, number + 1)
    planner = Planner(lake.tables, lake.settings)

    pinned = planner.pin("trades")

    assert len(planner.plan(pinned)) == 6
    assert planner._entries <= 2


def test_a_damaged_manifest_is_named(lake: LocalLake) -> None:
    lake.commit("b0", 0, 5)
    table = lake.tables.load("trades")
    (manifest,) = table.current_snapshot().manifests(table.io)
    path = local_path(manifest.manifest_path)
    path.write_bytes(path.read_bytes()[:100])

    with pytest.raises(CorruptionError) as caught:
        Planner(lake.tables, lake.settings).pin("trades")

    assert caught.value.path == manifest.manifest_path
