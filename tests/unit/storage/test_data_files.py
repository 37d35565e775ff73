"""Data files: split, sorted, encoded, with our field ids and bounds, and whole or not there at all."""

from __future__ import annotations

import datetime as dt
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest

from k2.common.errors import UnavailableError
from k2.schemas.records import QUOTES, TRADES
from k2.storage import file_io
from k2.storage.file_io import local_path
from k2.testing.local_lake import LocalLake
from k2.testing.market_rows import START_NS, market_rows

if TYPE_CHECKING:
    from k2.storage.data_files import WrittenFile

DAY_NS = 86_400_000_000_000


def read(file: WrittenFile) -> pl.DataFrame:
    return pl.read_parquet(local_path(file.path))


def test_rows_are_split_by_exchange_and_utc_day(lake: LocalLake) -> None:
    rows = pl.concat(
        [
            market_rows(range(3), exchange="asx"),
            market_rows(range(3, 5), exchange="sim"),
            market_rows(range(5, 9), exchange="sim", start_ns=START_NS + DAY_NS),
        ]
    )

    files = lake.writer().write_files(rows.sample(fraction=1, shuffle=True, seed=1))

    found = {(*file.data_file.partition[0:2],): file.rows for file in files}
    first_day = (dt.date(2026, 1, 1) - dt.date(1970, 1, 1)).days
    assert found == {("asx", first_day): 3, ("sim", first_day): 2, ("sim", first_day + 1): 4}
    assert all("exchange=" in file.path and "ts_event_day=2026-01-0" in file.path for file in files)


def test_a_day_begins_at_midnight_utc(lake: LocalLake) -> None:
    rows = market_rows(range(2), start_ns=START_NS - 1_000, step_ns=1_000)

    files = lake.writer().write_files(rows)

    assert [file.rows for file in files] == [1, 1]


def test_rows_are_sorted_by_symbol_time_and_coordinate(lake: LocalLake) -> None:
    rows = market_rows(range(300), step_ns=0).sample(fraction=1, shuffle=True, seed=2)

    (file,) = lake.writer().write_files(rows)

    columns = ["symbol", "ts_event_ns", "log_id", "log_partition", "log_offset"]
    assert read(file).select(columns).rows() == sorted(rows.select(columns).rows())


@pytest.mark.parametrize("name", ["trades", "quotes"])
def test_every_value_comes_back_exactly(lake: LocalLake, name: str) -> None:
    record_type = TRADES if name == "trades" else QUOTES
    rows = market_rows(range(10), record_type=record_type)

    (file,) = lake.writer(name).write_files(rows.to_arrow())

    assert read(file).sort("log_offset").equals(rows)


def test_parquet_carries_the_field_ids_of_the_record_definition(lake: LocalLake) -> None:
    (file,) = lake.writer().write_files(market_rows(range(3)))

    schema = pq.read_schema(local_path(file.path))
    found = {field.name: int(field.metadata[b"PARQUET:field_id"]) for field in schema}
    element = schema.field("conditions").type.value_field
    assert found == {field.name: field.field_id for field in TRADES.fields}
    assert int(element.metadata[b"PARQUET:field_id"]) == TRADES.field("conditions").element_id


def test_row_groups_are_as_long_as_the_setting_says(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path, row_group_rows=1_024).create()

    (file,) = lake.writer().write_files(market_rows(range(2_500)))

    footer = pq.read_metadata(local_path(file.path))
    assert [footer.row_group(number).num_rows for number in range(footer.num_row_groups)] == [1_024, 1_024, 452]
    assert footer.row_group(0).column(0).compression == "ZSTD"


def test_no_rows_make_no_file(lake: LocalLake) -> None:
    assert lake.writer().write_files(market_rows([])) == ()


def test_duckdb_reads_what_a_commit_left(lake: LocalLake) -> None:
    lake.commit("b1", 0, 1_000)

    paths = [str(local_path(task.file.file_path)) for task in lake.tables.load("trades").scan().plan_files()]

    assert duckdb.read_parquet(paths).aggregate("count(*), sum(log_offset)").fetchone() == (1_000, 499_500)


def test_a_page_that_was_damaged_is_found_by_its_checksum(lake: LocalLake) -> None:
    (file,) = lake.writer().write_files(market_rows(range(1_000)))
    path = local_path(file.path)
    assert path is not None
    column = pq.read_metadata(path).row_group(0).column(TRADES.fields.index(TRADES.field("log_offset")))
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size - 8] ^= 0x40
    path.write_bytes(content)

    with pytest.raises(OSError, match=r"(?i)crc|checksum|verification"):
        pq.ParquetFile(path, page_checksum_verification=True).read()


def test_a_full_disk_names_the_file_and_the_remedy_and_leaves_no_piece(
    lake: LocalLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    [before] = lake.writer().write_files(market_rows(range(3)))  # makes the directories, which are synced too
    monkeypatch.setattr(file_io.os, "fsync", full)

    with pytest.raises(UnavailableError, match=r"\.parquet: No space left on device; free space"):
        lake.writer().write_files(market_rows(range(3)))

    left = list(Path(lake.settings.warehouse.removeprefix("file://")).rglob("*.parquet"))
    assert left == [local_path(before.path)]


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc").exists(), reason="needs a place that nobody can write to")
def test_a_place_that_cannot_be_written_names_it(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path).create()
    (tmp_path / "lake/market/trades/data").write_text("a file where a directory belongs")

    with pytest.raises(UnavailableError, match=r"lake/market/trades/data"):
        lake.writer().write_files(market_rows(range(3)))


def test_files_and_directories_are_synced(lake: LocalLake, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    sync = os.fsync

    def record(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        sync(descriptor)

    monkeypatch.setattr(file_io.os, "fsync", record)

    lake.commit("b1", 0, 5)

    head = lake.tables.load("trades")
    (task,) = head.scan().plan_files()
    data = local_path(task.file.file_path)
    metadata = local_path(head.metadata_location)
    assert data is not None
    assert metadata is not None
    assert {str(data), str(data.parent), str(data.parent.parent), str(metadata), str(metadata.parent)} <= set(synced)
