"""`k2 tiers` names the symbols that are traded most, as the worker reads them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import polars as pl
import pytest
from typer.testing import CliRunner

from k2.bootstrap.overload import tier_map
from k2.cli.main import app
from k2.common.clock import SystemClock
from k2.common.errors import ConfigurationError
from k2.schemas.tier_maps import TierMap
from k2.settings import load_settings
from k2.storage.seam import Counts, LogPartition, PartitionDelta
from k2.storage.tables import MarketTables
from k2.storage.writer import Batch
from k2.testing.local_lake import LocalLake
from k2.testing.market_rows import market_rows

if TYPE_CHECKING:
    from pathlib import Path

VOLUMES = {"AAA": 5, "BBB": 50, "CCC": 1, "DDD": 20}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trades of four symbols; OLD was traded most, thirty days before."""
    directory = tmp_path_factory.mktemp("platform")
    made = LocalLake(directory)
    made.tables.close()
    made.settings = load_settings(directory, environ={}).catalog
    made.tables = MarketTables(made.settings, SystemClock())
    made.create()
    symbols = [*VOLUMES, "OLD"]
    rows = market_rows(range(5), symbols=symbols).with_columns(
        quantity=pl.Series([*VOLUMES.values(), 1_000]).cast(pl.Decimal(28, 10)),
        trading_date=pl.col("trading_date").dt.offset_by(pl.Series(["0d"] * 4 + ["-30d"])),
    )
    delta = PartitionDelta(0, 5, Counts(consumed=5, rows=5))
    made.writer().commit(Batch("b", {LogPartition(0, 0): delta}, made.writer().write_files(rows)))
    made.close()
    return directory


def run(lake: Path, *words: str) -> str:
    result = CliRunner().invoke(app, ["tiers", "--data-dir", str(lake), *words])
    assert result.exception is None, result.exception
    return result.stdout


def test_the_symbols_traded_most_of_late_come_first(lake: Path) -> None:
    found = json.loads(run(lake, "--tier-1", "1", "--tier-2", "2"))

    assert found == {"tier_1": ["BBB"], "tier_2": ["AAA", "DDD"]}


def test_more_days_take_in_what_was_traded_before(lake: Path) -> None:
    assert json.loads(run(lake, "--days", "40", "--tier-1", "1"))["tier_1"] == ["OLD"]


def test_another_exchange_traded_nothing(lake: Path) -> None:
    assert json.loads(run(lake, "--exchange", "asx")) == {"tier_1": [], "tier_2": []}


def test_what_is_written_is_what_a_worker_reads(lake: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiers.json"

    printed = run(lake, "--output", str(path))

    assert printed == ""
    assert tier_map(path) == TierMap.of({"AAA", "BBB", "CCC", "DDD"}, ())
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="K2_DEGRADATION__TIERS_FILE"):
        tier_map(tmp_path / "none.json")


def test_a_file_that_cannot_be_written_is_refused_in_words(lake: Path) -> None:
    command = ["tiers", "--data-dir", str(lake), "--output", str(lake / "nowhere" / "tiers.json")]

    result = CliRunner().invoke(app, command)

    assert isinstance(result.exception, ConfigurationError)
    assert "expected the directory of --output to exist" in str(result.exception)
