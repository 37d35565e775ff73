"""A guessed mapping: what is found by names and values, what is said to be unsure, and that it can be imported by."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from k2.common.errors import ConfigurationError
from k2.feeds.mapped.guessing import guess_mapping
from k2.feeds.mapped.sampling import sample_of
from k2.feeds.settings import FeedSettings
from k2.testing.feed_world import FeedWorld
from k2.testing.mapped_files import LATEST_NS, import_mapped

AT = datetime(2020, 1, 1, 12)  # noqa: DTZ001 - a time without a zone is meant


@pytest.fixture
def guess(tmp_path: Path):
    """Return what guesses from a content, as text."""

    def made(content: str | dict[str, Any], name: str = "BTCUSDT-2023.csv", **options: Any) -> str:
        path = tmp_path / name
        if isinstance(content, str):
            path.write_text(content)
        else:
            pl.DataFrame(content).write_parquet(path)
        options = {"table": None, "exchange": "binance", **options}
        return guess_mapping(sample_of(path, FeedSettings()), zone="UTC", latest_ns=LATEST_NS, **options)

    return made


def unsure_of(text: str, key: str) -> str:
    """Return what is unsure of a line."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(f"{key}:")]
    return line.partition("# unsure: ")[2]


def test_columns_are_found_by_their_names_and_values(guess) -> None:
    text = guess(
        "id,Time,price,qty,isBuyerMaker,best\n1,1700000000123,0.5,1,true,x\n2,1700000000124,0.6,2,false,y\n",
    )

    assert yaml.safe_load(text) == {
        "version": 1,
        "table": "trades",
        "exchange": "binance",
        "columns": {
            "symbol": {"constant": "BTCUSDT"},
            "ts_event_ns": {"column": "Time", "unit": "ms"},
            "trade_id": "id",
            "price": "price",
            "quantity": "qty",
            "side": {"column": "isBuyerMaker", "values": {"true": "SELL", "false": "BUY"}},
            "extra": {"columns": ["best"]},
        },
    }
    assert "tried on the first 2 records: all are read" in text
    assert "file's name" in unsure_of(text, "symbol")
    assert unsure_of(text, "price") == unsure_of(text, "exchange") == ""


def test_quotes_with_a_date_and_a_time_say_which_formats_fit(guess) -> None:
    text = guess(
        "Date\tTime\tSym\tBid\tAsk\tBid Size\tAsk Size\n03/04/2014\t10:00:00.123\tABC\t1.5\t1.6\t100\t200\n",
        exchange=None,
    )

    said = yaml.safe_load(text)
    assert (said["table"], said["csv"]) == ("quotes", {"delimiter": "\t"})
    assert said["columns"]["ts_event_ns"] == {
        "columns": ["Date", "Time"],
        "zone": "UTC",
        "format": "%m/%d/%Y %H:%M:%S%.f",
    }
    assert said["columns"]["ask_size"] == "Ask Size"
    assert unsure_of(text, "ts_event_ns") == (
        "%d/%m/%Y %H:%M:%S%.f would fit as well; the file says no zone: UTC, or the venue's?"
    )
    assert "topics.yaml" in unsure_of(text, "exchange")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("1700000000", {"column": "time", "unit": "s"}),
        ("1700000000.25", {"column": "time", "unit": "s"}),
        (1_700_000_000_000_000, {"column": "time", "unit": "us"}),
        (1_700_000_000_000_000_000, {"column": "time", "unit": "ns"}),
        ("2020-01-01T00:00:00Z", {"column": "time", "format": "%Y-%m-%dT%H:%M:%S%.f%#z"}),
        ("2020-01-01 00:00:00.1+01:00", {"column": "time", "format": "%Y-%m-%d %H:%M:%S%.f%#z"}),
        (AT, {"column": "time", "zone": "UTC"}),
        (AT.replace(tzinfo=UTC), "time"),
    ],
)
def test_a_time_is_guessed_by_what_fits(guess, value: object, said: object) -> None:
    text = guess({"symbol": ["A"], "time": [value], "price": [0.1], "size": [1]}, "a.parquet")

    assert yaml.safe_load(text)["columns"]["ts_event_ns"] == said
    assert "all are read" in text


def test_what_is_not_found_is_said_and_cannot_be_imported_by(guess) -> None:
    text = guess("1700000000;A;1.5;3\n1700000001;B;1.6;4\n", "n.csv")

    assert "# price: not found; every record needs it" in text
    assert "no header" in unsure_of(text, "csv")
    assert "price" not in yaml.safe_load(text)["columns"]


def test_texts_that_could_mean_anything_are_asked_about(guess) -> None:
    text = guess("ticker,timestamp,price,volume,side,cond\nA,1700000000,1.5,3,B,X\nA,1700000000,abc,3,cross,Y\n")

    said = yaml.safe_load(text)["columns"]
    assert said["side"] == {"column": "side", "values": {"B": "BUY", "cross": None}}
    assert unsure_of(text, "side") == "what does 'cross' mean?"
    assert "so far" in unsure_of(text, "quantity")
    assert "separator" in unsure_of(text, "conditions")
    assert "# unsure: tried on the first 2 records: 1 are not read, the first is record 2" in text


def test_a_guess_that_was_saved_can_be_imported_by(guess, tmp_path: Path) -> None:
    text = guess("sym,t,p,q\nA,1700000000,1.5,3\nB,1700000001,1.6,4\n", "trades.csv")
    (tmp_path / "mapping.yaml").write_text(text)
    world = FeedWorld(tmp_path, "binance")

    found = import_mapped(world, tmp_path / "trades.csv", tmp_path / "mapping.yaml")

    assert found.sent == 2
    assert sorted(world.rows("trades")["symbol"]) == ["A", "B"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("hello\nworld\n", "expected columns divided by one of"),
        ("", "found none"),
        ("a,b\n", "found none"),
        ("x,y\n1,2\n", "expected columns that could be trades"),
        ("PAR1 and more", "expected CSV or Parquet"),
    ],
)
def test_a_file_without_records_or_columns_is_refused(guess, content: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        guess(content)
