"""Real ticks, a live market beside them, and processes killed in between: the answers equal the files, exactly.

What is expected is computed from the CSV files with the standard library alone; no code is shared with the importer.
"""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

SYDNEY = ZoneInfo("Australia/Sydney")
SAMPLE = Path(os.environ.get("K2_SAMPLE_DATA") or Path(__file__).parents[3] / "shared" / "data" / "asx")
SYMBOLS = {"7078": "BHP", "7181": "DVN", "3153": "MWR"}
REPLAYED_TO = "market.crypto.trades.binance"
REORDER_SECONDS = 1
CATCH_UP_SECONDS_MAX = 120
WHOLE = ["--start", "2014-03-01", "--end", "2014-04-01"]

pytestmark = [
    pytest.mark.platform,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not SAMPLE.is_dir(), reason=f"the ASX tick sample is absent ({SAMPLE}); name it in K2_SAMPLE_DATA"
    ),
]


@dataclass
class Expected:
    """What the files of one record type and symbol say, in file order."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    notional_by_day: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))


def event_ns(date: str, clock: str) -> int:
    local = datetime.strptime(f"{date} {clock}", "%m/%d/%Y %H:%M:%S.%f").replace(tzinfo=SYDNEY)
    whole_seconds = int(local.replace(microsecond=0).timestamp())
    return whole_seconds * 10**9 + local.microsecond * 1000


def lines_of(kind: str, number: str) -> Iterator[tuple[int, list[str]]]:
    with (SAMPLE / kind / f"{number}.csv").open(newline="") as lines:
        yield from enumerate(csv.reader(lines), 1)


def day_of(date: str) -> str:
    month, day, year = date.split("/")
    return f"{year}-{month}-{day}"


@cache
def expected_trades(number: str) -> Expected:
    found = Expected()
    for line, (date, clock, price, volume, *_rest) in lines_of("trades", number):
        found.rows.append((event_ns(date, clock), line, Decimal(price), Decimal(volume)))
        found.notional_by_day[day_of(date)] += Decimal(price) * Decimal(volume)
    found.rows.sort(key=lambda row: row[:2])
    return found


def expected_quotes(number: str) -> Expected:
    found = Expected()
    for line, (date, clock, bid, ask, bid_size, ask_size) in lines_of("quotes", number):
        bid_side = (Decimal(bid), Decimal(bid_size)) if Decimal(bid) else (None, None)
        ask_side = (Decimal(ask), Decimal(ask_size)) if Decimal(ask) else (None, None)
        found.rows.append((event_ns(date, clock), line, *bid_side, *ask_side))
    found.rows.sort(key=lambda row: row[:2])
    return found


class Platform:
    """The platform of one data directory, driven by its command line alone."""

    def __init__(self, directory: Path) -> None:
        own = {"K2_DATA_DIR": str(directory), "K2_INGESTION__SEQUENCES__REORDER_SECONDS": str(REORDER_SECONDS)}
        self.environment = {**os.environ, **own}

    def run(self, *arguments: str, check: bool = True) -> str:
        """Return what a command prints; a heavy question is asked again while the platform still catches up."""
        command = [sys.executable, "-m", "k2.cli.main", *arguments]
        deadline = time.monotonic() + CATCH_UP_SECONDS_MAX
        while True:
            ended = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, check=False, timeout=300
            )
            if "the platform is at CIRCUIT_BREAK" not in ended.stderr or time.monotonic() > deadline:
                break
            time.sleep(1)
        assert not check or ended.returncode == 0, f"{arguments}: {ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "k2.cli.main", *arguments]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def pid_of(self, component: str) -> int | None:
        status = json.loads(self.run("status", "--json", check=False) or "{}")
        for entry in status.get("components", []):
            if entry["name"] == component:
                return entry["pid"]
        return None

    def kill(self, component: str) -> None:
        pid = self.pid_of(component)
        assert pid is not None, f"{component} is not running"
        os.kill(pid, signal.SIGKILL)

    def wait_for_new(self, component: str, old: int, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.pid_of(component) not in (None, old):
                return
            time.sleep(0.3)
        raise AssertionError(f"{component} was not started again within {seconds} s")

    def rows(self, data_type: str, symbol: str) -> list[dict[str, str]]:
        answer = self.run(data_type, symbol, "--exchange", "asx", *WHOLE, "--format", "csv")
        return list(csv.DictReader(io.StringIO(answer)))


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    platform = Platform(tmp_path_factory.mktemp("real") / "data")
    platform.run("up", "--detach", "--simulate")
    try:
        importing = platform.start("import", "asx", str(SAMPLE))
        for component in ("worker", "kafka", "worker"):
            time.sleep(4)
            pid = platform.pid_of(component)
            platform.kill(component)
            platform.wait_for_new(component, pid or 0)
        output, _ = importing.communicate(timeout=240)
        if importing.returncode != 0:
            output += platform.run("import", "asx", str(SAMPLE))
        wait_until_stored(platform)
        yield platform
    finally:
        platform.run("down", check=False)


def wait_until_stored(platform: Platform, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        stored = platform.run("sql", "SELECT count(*) AS n FROM trades WHERE exchange = 'asx'", "--format", "csv")
        quoted = platform.run("sql", "SELECT count(*) AS n FROM quotes WHERE exchange = 'asx'", "--format", "csv")
        if [stored.split()[-1], quoted.split()[-1]] == ["91874", "78458"]:
            return
        time.sleep(1)
    raise AssertionError(
        f"the ticks were not stored within {seconds} s: {stored.split()} trades, {quoted.split()} quotes"
    )


def decimal_or_none(text: str) -> Decimal | None:
    return Decimal(text) if text else None


@pytest.mark.parametrize("number", SYMBOLS)
def test_trades_equal_the_file_row_for_row_in_order(platform: Platform, number: str) -> None:
    expected = expected_trades(number)

    found = platform.rows("trades", SYMBOLS[number])

    rows = [
        (int(r["ts_event_ns"]), int(r["source_sequence"]), Decimal(r["price"]), Decimal(r["quantity"])) for r in found
    ]
    assert rows == expected.rows


@pytest.mark.parametrize("number", SYMBOLS)
def test_sums_of_price_times_quantity_are_exact_by_day(platform: Platform, number: str) -> None:
    expected = expected_trades(number)
    sums: dict[str, Decimal] = defaultdict(Decimal)

    for row in platform.rows("trades", SYMBOLS[number]):
        sums[row["trading_date"]] += Decimal(row["price"]) * Decimal(row["quantity"])

    assert dict(sums) == dict(expected.notional_by_day)


@pytest.mark.parametrize("number", SYMBOLS)
def test_quotes_equal_the_file_row_for_row_in_order(platform: Platform, number: str) -> None:
    expected = expected_quotes(number)

    found = platform.rows("quotes", SYMBOLS[number])

    sides = ("bid_price", "bid_size", "ask_price", "ask_size")
    rows = [(int(r["ts_event_ns"]), int(r["source_sequence"]), *(decimal_or_none(r[s]) for s in sides)) for r in found]
    assert rows == expected.rows


def test_nothing_is_lost_and_nothing_doubled(platform: Platform) -> None:
    report = json.loads(platform.run("verify", "--json"))

    assert report["lost"] == 0
    assert report["doubled"] == 0
    assert report["rows"] >= 91_874 + 78_458
    accounted = report["rows"] + report["duplicates"] + report["dead_letters"] + report["deferred"] + report["lost"]
    assert report["messages"] == accounted


def test_what_was_injected_into_a_replay_is_what_the_table_the_duplicates_and_the_ledger_say(
    platform: Platform, tmp_path: Path
) -> None:
    truth = tmp_path / "truth.jsonl"
    faults = ("--gaps", "0.02", "--duplicates", "0.02", "--reorder", "0.02", "--seed", "7", "--truth", str(truth))

    # Into an exchange that holds nothing, so that what is dropped was injected.
    platform.run("replay", str(SAMPLE), "--to", REPLAYED_TO, *faults)

    told = [json.loads(line) for line in truth.read_text().splitlines()]
    withheld = {(e["symbol"], e["record"]["sequence"]) for e in told if e["kind"] == "withheld"}
    copies = [entry for entry in told if entry["kind"] == "duplicate"]
    expected = [
        (symbol, *row)
        for number, symbol in sorted(SYMBOLS.items(), key=lambda item: item[1])
        for row in expected_trades(number).rows
        if (symbol, row[1]) not in withheld
    ]
    wait_until_replayed(platform, len(expected))
    assert replayed(platform) == expected
    audited = [p for p in json.loads(platform.run("verify", "--json"))["partitions"] if p["topic"] == REPLAYED_TO]
    assert sum(p["duplicates"] for p in audited) == len(copies)
    assert sum(p["messages"] for p in audited) == len(expected) + len(copies)
    assert {p["lost"] + p["doubled"] for p in audited} == {0}
    for kind in ("withheld", "duplicate", "move"):
        assert 1_600 < sum(entry["kind"] == kind for entry in told) < 2_100
    closing = one_of_each(platform, tmp_path)
    lasts = pl.Series([len(expected_trades(number).rows) for number in SYMBOLS])
    for more in (1, 2):  # what is missing at the end shows once the numbers go on, and is a gap once its window is over
        time.sleep(REORDER_SECONDS + 0.5)
        closing.with_columns(sequence=lasts + more, source_sequence=lasts + more).write_parquet(
            tmp_path / "more.parquet"
        )
        platform.run("replay", str(tmp_path / "more.parquet"), "--to", REPLAYED_TO)
        wait_until_replayed(platform, len(expected) + more * len(SYMBOLS))
    assert missing_numbers(platform) == withheld


def one_of_each(platform: Platform, directory: Path) -> pl.DataFrame:
    """Export one trade of each symbol."""
    rows = []
    for symbol in SYMBOLS.values():
        path = directory / f"{symbol}.parquet"
        form = ("--limit", "1", "--format", "parquet", "--output", str(path))
        platform.run("trades", symbol, "--exchange", "asx", *WHOLE, *form)
        rows.append(pl.read_parquet(path))
    return pl.concat(rows)


def missing_numbers(platform: Platform) -> set[tuple[str, int]]:
    """Return what the ledger says is missing: the numbers of gaps that were opened, without those that came late."""
    query = "SELECT event, symbol, first_missing, last_missing FROM gaps WHERE exchange = 'binance'"
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for row in csv.DictReader(io.StringIO(platform.run("sql", query, "--format", "csv"))):
        numbers = range(int(row["first_missing"]), int(row["last_missing"]) + 1)
        found[row["event"]] += [(row["symbol"], number) for number in numbers]
    assert len(found["opened"]) == len(set(found["opened"])), "each missing number is told of once"
    return set(found["opened"]) - set(found["filled"])


def wait_until_replayed(platform: Platform, rows: int, seconds: float = 120) -> None:
    query = "SELECT count(*) AS n FROM trades WHERE exchange = 'binance'"
    deadline = time.monotonic() + seconds
    while int(platform.run("sql", query, "--format", "csv").split()[-1]) < rows:
        assert time.monotonic() < deadline, f"what was replayed was not stored within {seconds} s"
        time.sleep(1)


def replayed(platform: Platform) -> list[tuple[Any, ...]]:
    query = (
        "SELECT symbol, ts_event_ns, sequence, price, quantity FROM trades WHERE exchange = 'binance' "
        "ORDER BY symbol, ts_event_ns, sequence"
    )
    return [
        (r["symbol"], int(r["ts_event_ns"]), int(r["sequence"]), Decimal(r["price"]), Decimal(r["quantity"]))
        for r in csv.DictReader(io.StringIO(platform.run("sql", query, "--format", "csv")))
    ]


def test_importing_again_adds_nothing(platform: Platform) -> None:
    platform.run("import", "asx", str(SAMPLE))

    assert len(platform.rows("trades", "BHP")) == 91_631
