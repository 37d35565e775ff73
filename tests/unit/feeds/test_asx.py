"""How ASX files are read, quirk by quirk, on small files made up here, and on the real sample where it is present."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from k2.common.errors import ConfigurationError
from k2.feeds.asx import TickFile, tick_files
from k2.feeds.asx import read_ticks as read_ticks_of
from k2.feeds.settings import FeedSettings
from k2.schemas.arrow import message_polars_schema
from k2.schemas.records import QUOTES, TRADES

SAMPLE = Path(os.environ.get("K2_SAMPLE_DATA") or Path(__file__).parents[4] / "shared" / "data" / "asx")
needs_sample = pytest.mark.skipif(
    not SAMPLE.is_dir(), reason=f"the ASX tick sample is absent ({SAMPLE}); name it in K2_SAMPLE_DATA"
)
COMPANIES = "company_id,symbol,company_name,ISIN,start_date,end_date\r\n1,ABC,A B C LTD,AU0,01/01/2000,12/31/2020\r\n"
TRADE = "03/10/2014,10:13:34.553,0.67,8216,0,,"
QUOTE = "03/10/2014,10:13:34.553,0.66,0.67,100,200"


def file_of(directory: Path, data_type: str, content: str | bytes) -> TickFile:
    path = directory / f"{data_type}.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return TickFile(path, data_type, "ABC")


def read_ticks(file: TickFile) -> pl.DataFrame:
    return read_ticks_of(file, FeedSettings())


def directory_of(root: Path, **files: str) -> Path:
    for name, content in {"reference/company_info.csv": COMPANIES, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, newline="")
    return root


def ns(year: int, month: int, day: int, hour: int, minute: int, fold: int = 0) -> int:
    moment = datetime(year, month, day, hour, minute, tzinfo=ZoneInfo("Australia/Sydney"), fold=fold)
    return int(moment.timestamp()) * 10**9


@pytest.mark.parametrize("ending", ["\r\n", "\n", ""])
def test_the_last_line_may_lack_its_newline(tmp_path: Path, ending: str) -> None:
    rows = read_ticks(file_of(tmp_path, "trades", f"{TRADE}\r\n{TRADE}{ending}"))

    assert rows["source_sequence"].to_list() == [1, 2]
    assert dict(rows.schema) == message_polars_schema(TRADES)


@pytest.mark.parametrize("content", [f"{TRADE}\n{TRADE}\n", TRADE])
def test_a_mark_of_the_byte_order_costs_no_line(tmp_path: Path, content: str) -> None:
    plain = read_ticks(file_of(tmp_path, "trades", content))
    marked = b"\xef\xbb\xbf" + content.encode()

    rows = read_ticks(file_of(tmp_path, "trades", marked))

    told = ["symbol", "ts_event_ns", "trading_date", "price", "quantity", "source_sequence"]
    assert rows.select(told).equals(plain.select(told))
    assert rows["source"][0] == hashlib.sha256(marked).hexdigest()


def test_companies_may_begin_with_a_mark_of_the_byte_order(tmp_path: Path) -> None:
    root = directory_of(tmp_path, **{"reference/company_info.csv": "\ufeff" + COMPANIES, "trades/1.csv": TRADE})

    assert [file.symbol for file in tick_files(root)] == ["ABC"]


def test_equal_lines_are_different_records(tmp_path: Path) -> None:
    rows = read_ticks(file_of(tmp_path, "trades", f"{TRADE}\r\n" * 3))

    assert rows["sequence"].to_list() == [1, 2, 3]
    assert rows["source_sequence"].to_list() == [1, 2, 3]


def test_the_source_is_the_hash_of_the_file(tmp_path: Path) -> None:
    content = f"{TRADE}\r\n".encode()

    rows = read_ticks(file_of(tmp_path, "trades", content))

    assert rows["source"].to_list() == [hashlib.sha256(content).hexdigest()]


def test_a_session_crosses_the_utc_date_and_keeps_its_trading_date(tmp_path: Path) -> None:
    lines = "03/11/2014,10:59:00.000,1,1,0,,\r\n03/11/2014,11:01:00.000,1,1,0,,\r\n"

    rows = read_ticks(file_of(tmp_path, "trades", lines))

    utc_days = rows["ts_event_ns"].cast(pl.Datetime("ns")).dt.date().to_list()
    assert utc_days == [date(2014, 3, 10), date(2014, 3, 11)]
    assert rows["trading_date"].to_list() == [date(2014, 3, 11)] * 2


def test_the_zone_has_rules_and_no_fixed_offset(tmp_path: Path) -> None:
    lines = "01/15/2014,10:00:00.000,1,1,0,,\r\n07/15/2014,10:00:00.000,1,1,0,,\r\n"

    rows = read_ticks(file_of(tmp_path, "trades", lines))

    assert rows["ts_event_ns"].to_list() == [ns(2014, 1, 15, 10, 0), ns(2014, 7, 15, 10, 0)]


def test_an_hour_that_comes_twice_is_taken_as_the_first(tmp_path: Path) -> None:
    rows = read_ticks(file_of(tmp_path, "trades", "04/06/2014,02:30:00.000,1,1,0,,\r\n"))

    assert rows["ts_event_ns"].to_list() == [ns(2014, 4, 6, 2, 30, fold=0)]


def test_an_hour_that_the_clocks_skip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"trades\.csv:1"):
        read_ticks(file_of(tmp_path, "trades", "10/05/2014,02:30:00.000,1,1,0,,\r\n"))


def test_prices_and_sizes_are_exact(tmp_path: Path) -> None:
    rows = read_ticks(file_of(tmp_path, "trades", "03/10/2014,10:13:34.553,36.667000000001,204000,3,X,\r\n"))

    assert rows.select("price", "quantity").row(0) == (Decimal("36.667000000001"), Decimal(204000))
    assert rows.select("side", "trade_id").row(0) == (None, None)


@pytest.mark.parametrize(("code", "conditions"), [("0", ["0"]), ("27", ["27"]), ("", [])])
def test_qualifiers_become_conditions(tmp_path: Path, code: str, conditions: list[str]) -> None:
    rows = read_ticks(file_of(tmp_path, "trades", f"03/10/2014,10:13:34.553,1,1,{code},,\r\n"))

    assert rows["conditions"].to_list() == [conditions]


def test_venue_and_buyer_are_kept_as_they_came_even_a_price(tmp_path: Path) -> None:
    rows = read_ticks(file_of(tmp_path, "trades", f"03/10/2014,10:13:34.553,1,1,0,X,35.77\r\n{TRADE}\r\n"))

    kept, none = rows["extra"].to_list()
    assert json.loads(kept) == {"venue": "X", "buyer_id": "35.77"}
    assert none is None


def test_an_empty_side_has_neither_price_nor_size(tmp_path: Path) -> None:
    rows = read_ticks(
        file_of(tmp_path, "quotes", "03/10/2014,10:00:00.000,1.11,0.0,10300,0\r\n03/10/2014,10:00:00.000,0.0,2,0,5")
    )

    sides = rows.select("bid_price", "bid_size", "ask_price", "ask_size").rows()
    assert sides == [(Decimal("1.11"), Decimal(10300), None, None), (None, None, Decimal(2), Decimal(5))]
    assert dict(rows.schema) == message_polars_schema(QUOTES)


def test_crossed_quotes_are_kept(tmp_path: Path) -> None:
    rows = read_ticks(file_of(tmp_path, "quotes", "03/10/2014,07:00:13.948,37.73,37.0,19,16\r\n"))

    assert rows.select("bid_price", "ask_price").row(0) == (Decimal("37.73"), Decimal(37))


@pytest.mark.parametrize(
    ("data_type", "content"),
    [
        ("trades", ""),
        ("trades", QUOTE),
        ("quotes", TRADE),
        ("trades", b"\x1f\x8b\x08\x00\xff\xfe"),
        ("trades", b"PK\x03\x04\x00\x00"),
        ("trades", "Date,Time,Price,Volume,Qualifiers,Venue,BuyerID\r\n" + TRADE),
        ("trades", TRADE + "\r\n\r\n" + TRADE),
        ("trades", TRADE.replace("0.67", "1e3")),
        ("trades", TRADE.replace("0.67", "")),
        ("trades", TRADE.replace("0.67", "0.1234567890123")),
        ("trades", TRADE.replace("8216", "x")),
        ("trades", TRADE.replace("10:13", "25:13")),
        ("trades", TRADE.replace("03/10", "13/10")),
        ("trades", TRADE.replace("0.67", "\u0661\u0662")),
        ("trades", TRADE.replace("8216", "\uff13\uff16")),
        ("quotes", QUOTE.replace("0.66", "NaN")),
        ("quotes", QUOTE.replace("0.66", "\u0661")),
    ],
)
def test_what_is_no_tick_file_is_refused_with_its_path(tmp_path: Path, data_type: str, content: str | bytes) -> None:
    with pytest.raises(ConfigurationError, match=rf"(?s)expected .*{data_type}\.csv"):
        read_ticks(file_of(tmp_path, data_type, content))


def test_a_bad_line_is_named_by_its_number(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"trades\.csv:2: 'nonsense'"):
        read_ticks(file_of(tmp_path, "trades", f"{TRADE}\r\nnonsense\r\n{TRADE}\r\n"))


def test_files_are_found_with_their_symbols(tmp_path: Path) -> None:
    directory = directory_of(tmp_path, **{"trades/1.csv": TRADE, "quotes/1.csv": QUOTE})

    found = [(file.data_type, file.path.name, file.symbol) for file in tick_files(directory)]

    assert found == [("trades", "1.csv", "ABC"), ("quotes", "1.csv", "ABC")]


def test_an_unknown_company_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"trades/2\.csv"):
        tick_files(directory_of(tmp_path, **{"trades/2.csv": TRADE}))


def test_a_directory_without_ticks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected CSV files"):
        tick_files(directory_of(tmp_path))


def test_no_directory_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected a directory"):
        tick_files(tmp_path / "absent")


@needs_sample
def test_the_real_sample_is_read_whole() -> None:
    counts = {(file.data_type, file.symbol): len(read_ticks(file)) for file in tick_files(SAMPLE)}

    assert counts == {
        ("trades", "BHP"): 91_631,
        ("trades", "DVN"): 232,
        ("trades", "MWR"): 11,
        ("quotes", "BHP"): 77_849,
        ("quotes", "DVN"): 549,
        ("quotes", "MWR"): 60,
    }


@needs_sample
def test_the_real_sample_has_the_high_that_its_description_states() -> None:
    trades = read_ticks(next(f for f in tick_files(SAMPLE) if (f.data_type, f.symbol) == ("trades", "BHP")))
    day = trades.filter(pl.col("trading_date") == date(2014, 3, 11))
    plain = day.filter(pl.col("conditions").list.first().is_in(["0", "2"]))

    assert day["price"].max() == Decimal("42.00")
    assert plain["price"].max() == Decimal("36.45")
