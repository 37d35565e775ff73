"""`k2 import` and `k2 simulate` as a person types them, on a log in memory: what is said, and what is sent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from k2 import bootstrap
from k2.bootstrap import feeds
from k2.bootstrap.feeds import Feed
from k2.cli.main import app
from k2.common.errors import ConfigurationError
from k2.testing.feed_world import FeedWorld

COMPANIES = "company_id,symbol,company_name,ISIN,start_date,end_date\r\n1,ABC,A,AU0,01/02/2003,\r\n"
TRADE = "03/10/2014,10:13:34.553,0.67,8216,0,,\r\n"
RUN = ("simulate", "--start", "2026-01-01", "--duration", "0.5", "--rate", "2000", "--symbols", "5")


@pytest.fixture
def worlds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, FeedWorld]:
    made = {exchange: FeedWorld(tmp_path, exchange) for exchange in ("asx", "sim", "binance")}

    @contextmanager
    def feed(_settings: object, exchange: str, **_named: object) -> Iterator[Feed]:
        yield Feed(made[exchange].channel, made[exchange].held)

    monkeypatch.setattr(feeds, "feed", feed)
    monkeypatch.setattr(bootstrap, "start_process", lambda *_args, **_named: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setenv("COLUMNS", "160")
    return made


def directory_of(root: Path, trades: str) -> Path:
    for name, content in {"reference/company_info.csv": COMPANIES, "trades/1.csv": trades}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, newline="")
    return root


def k2(tmp_path: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--data-dir", str(tmp_path / "data")], catch_exceptions=False)


def test_the_summary_says_what_was_added_and_what_was_there(worlds, tmp_path: Path) -> None:
    directory = directory_of(tmp_path / "ticks", TRADE * 3)

    first = k2(tmp_path, "import", "asx", str(directory))
    again = k2(tmp_path, "import", "asx", str(directory))

    assert re.search(r"trades/1\.csv +ABC +3 +0 +3 +0", first.stdout)
    assert re.search(r"reference +1 +0 +1 +0", first.stdout)
    assert "4 records added; all acknowledged by the log" in first.stdout
    assert re.search(r"trades/1\.csv +ABC +3 +3 +0 +0", again.stdout)
    assert "0 records added" in again.stdout
    assert "bad lines were not" not in first.stdout


def test_a_bad_line_refuses_the_file_unless_dead_letters_are_asked_for(worlds, tmp_path: Path) -> None:
    directory = directory_of(tmp_path / "ticks", f"{TRADE}nonsense\r\n{TRADE}")

    with pytest.raises(ConfigurationError, match=r"1\.csv:2: 'nonsense'"):
        k2(tmp_path, "import", "asx", str(directory))
    assert worlds["asx"].values("trades") == []
    assert worlds["asx"].values("instruments") == []

    taken = k2(tmp_path, "import", "asx", str(directory), "--bad-lines", "dead-letter")

    assert taken.exit_code == 0
    assert "1 bad lines were not imported: 1 sent to the dead letters now" in taken.stdout
    assert len(worlds["asx"].values("trades")) == 2


MAPPING = """
version: 1
table: trades
exchange: binance
columns:
  symbol: {constant: BTCUSDT}
  ts_event_ns: {column: time, unit: ms}
  price: price
  quantity: qty
"""


def test_files_with_a_mapping_are_imported_and_summed_up(worlds, tmp_path: Path) -> None:
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    (tmp_path / "a.csv").write_text("time,price,qty\n1700000000000,0.5,1\n1700000000001,x,1\n1700000000002,1,1\n")
    pl.DataFrame({"time": [1_700_000_000_000], "price": [0.1], "qty": ["2"]}).write_parquet(tmp_path / "b.parquet")
    mapping = ("--mapping", str(tmp_path / "mapping.yaml"))

    refused = pytest.raises(ConfigurationError, match=r"a\.csv:3: '1700000000001,x,1'.*a price")
    with refused:
        k2(tmp_path, "import", "csv", str(tmp_path / "a.csv"), *mapping)
    lines = k2(tmp_path, "import", "csv", str(tmp_path / "a.csv"), *mapping, "--bad-lines", "dead-letter")
    rows = k2(tmp_path, "import", "parquet", str(tmp_path / "b.parquet"), *mapping)

    assert re.search(r"a\.csv +1 +2 +0 +2 +1", lines.stdout)
    assert "1 bad lines were not imported: 1 sent to the dead letters now" in lines.stdout
    assert re.search(r"b\.parquet +1 +1 +0 +1 +0", rows.stdout)
    assert "1 records added; all acknowledged by the log" in rows.stdout
    assert worlds["binance"].rows("trades")["price"].to_list() == [Decimal("0.5"), Decimal(1), Decimal("0.1")]


def test_no_mapping_is_ever_guessed_by_an_import(worlds, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["import", "csv", str(tmp_path / "a.csv")])

    assert result.exit_code == 2
    assert "--mapping" in result.output


def test_a_guess_is_printed_and_nothing_else_is_done(worlds, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,price,qty\n1700000000000,0.5,1\n")

    result = k2(tmp_path, "import", "guess", str(tmp_path / "a.csv"), "--exchange", "binance")

    assert "exchange: binance\ncolumns:\n  symbol: {constant: a}" in result.stdout
    assert worlds["binance"].values("trades") == []
    with pytest.raises(ConfigurationError, match=r"--exchange: expected one of topics\.yaml .*K2_TOPICS_FILE"):
        k2(tmp_path, "import", "guess", str(tmp_path / "a.csv"), "--exchange", "nyse")


def test_nothing_but_the_summary_is_written_where_there_is_no_terminal(worlds, tmp_path: Path) -> None:
    result = k2(tmp_path, *RUN)

    assert result.exit_code == 0
    (summary,) = [line for line in result.output.splitlines() if "simulation_started" not in line]  # the log's line
    assert re.match(r"[\d,]+ records \([\d,]+ trades, [\d,]+ quotes\) in ", summary)


def test_a_run_that_is_played_again_says_that_all_was_there(worlds, tmp_path: Path) -> None:
    k2(tmp_path, *RUN)
    before = worlds["sim"].values("quotes")

    result = k2(tmp_path, *RUN)

    total = re.search(r"^([\d,]+) records", result.stdout, re.MULTILINE)
    assert total is not None
    assert f"{total[1]} of them were held before and not sent again" in result.stdout
    assert worlds["sim"].values("quotes") == before != []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--start", "yesterday"), "ISO 8601"),
        (("--start", "2026-01-01"), "--duration"),
        (("--start", "2300-01-01", "--duration", "1"), "dead letters"),
        (("--rate", "0"), "rate"),
    ],
)
def test_a_run_that_makes_no_sense_is_refused(worlds, tmp_path: Path, words: tuple[str, ...], expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        k2(tmp_path, "simulate", *words)
