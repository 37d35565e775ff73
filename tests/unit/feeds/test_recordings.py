"""Recordings: tick files come merged by time, exports of K2 as they are, and what is neither is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from k2.api.formats import FORMATS, Page
from k2.common.errors import ConfigurationError
from k2.feeds.recordings import TIME, merged, read_recording
from k2.feeds.settings import FeedSettings
from k2.schemas.arrow import message_polars_schema
from k2.schemas.records import TRADES
from k2.testing.market_rows import market_rows

COMPANIES = (
    "company_id,symbol,company_name,ISIN,start_date,end_date\r\n1,ABC,A,AU0,01/02/2003,\r\n2,XYZ,X,AU1,01/02/2003,\r\n"
)
SMALL = FeedSettings(import_block_bytes=1024, replay_records_max=7)


def trade(millisecond: int) -> str:
    return f"03/10/2014,10:13:{millisecond // 1000:02}.{millisecond % 1000:03},0.67,{millisecond},0,,\r\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    files = {
        "reference/company_info.csv": COMPANIES,
        "trades/1.csv": "".join(trade(number) for number in range(0, 3_000, 10)),
        "trades/2.csv": "".join(trade(number) for number in (5, 700, 690, 2_995)),
        "quotes/1.csv": "03/10/2014,05:46:13.604,1.11,0.0,10300,0\r\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, newline="")
    return tmp_path


def as_file(tmp_path: Path, name: str) -> Path:
    table = market_rows(range(20)).to_arrow()
    path = tmp_path / f"trades.{name}"
    path.write_bytes(b"".join(FORMATS[name][1](Page(table))))
    return path


def arrow_file(tmp_path: Path) -> Path:
    path = tmp_path / "trades.feather"
    with pa.ipc.new_file(path, (table := market_rows(range(20)).to_arrow()).schema) as file:
        file.write_table(table)
    return path


def test_a_directory_comes_as_one_stream_by_time_and_each_file_in_its_order(directory: Path) -> None:
    frames = list(read_recording(directory, "trades", SMALL))

    rows = pl.concat(frames)
    lines = rows.filter(pl.col("symbol") == "XYZ")["source_sequence"].to_list()
    assert len(rows) == 304
    assert lines == [1, 2, 3, 4], "line 3 is older than line 2, and follows it all the same"
    assert rows.filter(pl.col("source_sequence") != 3)["ts_event_ns"].is_sorted()
    assert len(frames) > 5
    assert dict(rows.schema) == message_polars_schema(TRADES)


def test_one_file_of_a_directory_comes_alone(directory: Path) -> None:
    (rows,) = read_recording(directory / "trades" / "2.csv", "trades", SMALL)

    assert rows["symbol"].unique().to_list() == ["XYZ"]


@pytest.mark.parametrize(
    "made", [lambda path: as_file(path, "parquet"), lambda path: as_file(path, "arrow"), arrow_file]
)
def test_what_k2_wrote_comes_back_as_messages(made: Callable[[Path], Path], tmp_path: Path) -> None:
    frames = list(read_recording(made(tmp_path), "trades", SMALL))

    rows = pl.concat(frames)
    assert rows.equals(market_rows(range(20)).select(list(message_polars_schema(TRADES))))
    assert max(map(len, frames)) <= 7


def test_sources_merge_by_time_and_keep_their_own_order() -> None:
    one = [pl.DataFrame({TIME: times, "name": [f"a{time}" for time in times]}) for times in ([1, 4], [4, 9])]
    other = [pl.DataFrame({TIME: [4, 5], "name": ["b4", "b5"]})]

    rows = pl.concat(merged([iter(one), iter(other)]))

    assert rows["name"].to_list() == ["a1", "a4", "b4", "a4", "b5", "a9"]


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("absent", None, "found none at"),
        ("text.txt", b"no records", "Parquet or Arrow"),
        ("empty.parquet", b"", "Parquet or Arrow"),
    ],
)
def test_what_is_no_recording_is_refused(tmp_path: Path, name: str, content: bytes | None, named: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(ConfigurationError, match=named):
        list(read_recording(tmp_path / name, "trades", SMALL))


def test_an_export_without_a_column_that_a_message_needs_is_refused(tmp_path: Path) -> None:
    market_rows(range(3)).drop("price", "source").write_parquet(tmp_path / "some.parquet")

    with pytest.raises(ConfigurationError, match="found none called source, price"):
        list(read_recording(tmp_path / "some.parquet", "trades", SMALL))


def test_quotes_of_a_directory_without_any_are_refused(directory: Path) -> None:
    (directory / "quotes" / "1.csv").unlink()

    with pytest.raises(ConfigurationError, match="--to the right topic"):
        read_recording(directory, "quotes", SMALL)
