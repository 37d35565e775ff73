"""`k2 replay`, and `k2 simulate` with faults, as a person types them, on a log in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from k2 import bootstrap
from k2.bootstrap import feeds
from k2.bootstrap.feeds import Feed
from k2.cli.main import app
from k2.common.errors import ConfigurationError
from k2.feeds.faults.truth import read_truth
from k2.schemas.arrow import message_polars_schema
from k2.schemas.records import TRADES
from k2.settings import Settings
from k2.testing.feed_world import FeedWorld
from k2.testing.local_lake import LocalLake
from k2.testing.market_rows import market_rows

SIM = "market.simulated.trades.sim"
RUN = ("simulate", "--start", "2026-01-01", "--duration", "0.5", "--rate", "2000", "--symbols", "5")
FAULTS = ("--gaps", "0.1", "--duplicates", "0.1", "--reorder", "0.1")


@pytest.fixture
def worlds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, FeedWorld]:
    made = {exchange: FeedWorld(tmp_path, exchange) for exchange in ("asx", "sim")}

    @contextmanager
    def feed(_settings: object, exchange: str, **_named: object) -> Iterator[Feed]:
        yield Feed(made[exchange].channel, made[exchange].held)

    monkeypatch.setattr(feeds, "feed", feed)
    monkeypatch.setattr(bootstrap, "start_process", lambda *_args, **_named: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    return made


@pytest.fixture
def export(tmp_path: Path) -> Path:
    market_rows(range(1, 1_001)).write_parquet(tmp_path / "trades.parquet")
    return tmp_path / "trades.parquet"


def k2(tmp_path: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--data-dir", str(tmp_path / "data")], catch_exceptions=False)


def sent(worlds: dict[str, FeedWorld]) -> pl.DataFrame:
    """Return the messages of all partitions without what the log adds."""
    return worlds["sim"].rows("trades").select(list(message_polars_schema(TRADES)))


def test_an_export_is_played_as_it_is(worlds, export: Path, tmp_path: Path) -> None:
    result = k2(tmp_path, "replay", str(export), "--to", SIM)

    assert re.search(rf"1,000 records played to {re.escape(SIM)} in .* s; all acknowledged", result.stdout)
    assert sent(worlds).sort("source_sequence").equals(market_rows(range(1, 1_001)).select(list(sent(worlds).columns)))
    assert len(worlds["sim"].log.messages("market.simulated.status.sim")) == 3


def test_what_the_truth_file_tells_is_what_was_sent(worlds, export: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"

    result = k2(tmp_path, "replay", str(export), "--to", SIM, *FAULTS, "--truth", str(truth))

    entries = read_truth(truth)
    told = {kind: [entry for entry in entries if entry["kind"] == kind] for kind in ("withheld", "duplicate", "move")}
    assert f"injected: {len(told['withheld'])} records withheld in" in result.stdout
    assert f"{len(told['duplicate'])} doubled, {len(told['move'])} moved" in result.stdout
    numbers = sent(worlds).select("symbol", "sequence").rows()
    missing = {(entry["symbol"], entry["record"]["sequence"]) for entry in told["withheld"]}
    twice = {(entry["symbol"], entry["sequence"]) for entry in told["duplicate"]}
    recorded = set(market_rows(range(1, 1_001)).select("symbol", "sequence").rows())
    assert sorted(numbers) == sorted([*recorded - missing, *twice])
    assert missing
    assert twice


def test_a_simulated_market_with_faults_is_sent_whole_again(worlds, tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"

    k2(tmp_path, *RUN, *FAULTS, "--truth", str(truth))
    first = worlds["sim"].values("quotes")
    result = k2(tmp_path, *RUN, *FAULTS)

    ends = {entry["data_type"]: entry for entry in read_truth(truth) if entry["kind"] == "end"}
    assert ends["quotes"]["sent"] == len(first)
    assert ends["quotes"]["input"] != len(first)
    assert len(worlds["sim"].values("quotes")) == 2 * len(first)
    assert "injected:" in result.stdout


def test_a_table_is_played_into_another_exchange(worlds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = LocalLake(tmp_path).create()
    lake.commit("a", 0, 900)
    settings = Settings(data_dir=tmp_path / "data", catalog=lake.settings)
    monkeypatch.setattr("k2.settings.load_settings", lambda _: settings)

    result = k2(tmp_path, "replay", "market.trades", "--to", "market.equities.trades.asx", "--symbol", "BBB")

    rows = worlds["asx"].rows("trades")
    lake.close()
    assert "300 records played" in result.stdout
    assert rows["symbol"].unique().to_list() == ["BBB"]
    assert rows["exchange"].unique().to_list() == ["asx"]
    assert rows["source_sequence"].to_list() == list(range(1, 900, 3))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--to", "market.none"), "expected a topic of topics.yaml"),
        (("--to", "market.simulated.status.sim"), "expected a topic of trades or quotes"),
        (("--to", SIM, "--speed", "fast"), "--speed"),
        (("--to", SIM, "--speed", "-1"), "--speed"),
        (("--to", SIM, "--gaps", "2"), "--gaps"),
        (("--to", SIM, "--symbol", "AAA"), "with a table"),
        (("--to", SIM, "--truth", "here"), "--truth"),
    ],
)
def test_a_replay_that_makes_no_sense_is_refused(
    worlds, export: Path, tmp_path: Path, words: tuple[str, ...], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        k2(tmp_path, "replay", str(export), *words)
    assert worlds["sim"].values("trades") == []


def test_a_table_of_another_kind_than_the_topic_is_refused(worlds, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected a topic of quotes"):
        k2(tmp_path, "replay", "quotes", "--to", SIM)
