"""`k2 gaps halted`, `release` and `releases` on real tables, with the releases in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from k2.bootstrap import announcing
from k2.cli.main import app
from k2.settings import load_settings
from k2.storage.catalog import open_catalog
from k2.storage.deferral import Deferral
from k2.storage.halts import HaltedPart
from k2.storage.seam import Counts, HaltedStream, LogPartition, PartitionDelta
from k2.storage.tables import MarketTables
from k2.storage.writer import Batch, TableWriter
from k2.testing.fake_releases import FakeReleases
from k2.testing.manual_clock import ManualClock

BHP = HaltedStream("BHP", ("BHP",), 3, 1_700_000_000_000_000)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    settings, clock = load_settings(tmp_path).catalog, ManualClock()
    tables = MarketTables(settings, clock, catalog=open_catalog(settings))
    tables.ensure()
    registered = tables.register_log(
        "trades", cluster_id="c", topic_id="t", topic="market.equities.trades.asx", starts={0: 0}
    )
    key = LogPartition(registered.log_id, 0)
    delta = PartitionDelta(0, 9, Counts(consumed=4, deferred=4))
    deferral = Deferral(halts={key: (HaltedPart(BHP, 4),)})
    TableWriter(tables, "trades", settings, clock).commit(Batch("b", {key: delta}, deferral=deferral))
    tables.close()
    return tmp_path


@pytest.fixture
def releases(monkeypatch: pytest.MonkeyPatch) -> FakeReleases:
    releases = FakeReleases()

    @contextmanager
    def book(_settings: object) -> Iterator[FakeReleases]:
        yield releases

    monkeypatch.setattr(announcing, "release_book", book)
    return releases


def k2(lake: Path, *words: str, said: str | None = None) -> Result:
    return CliRunner().invoke(app, ["gaps", *words, "--data-dir", str(lake)], input=said, catch_exceptions=False)


def test_what_is_halted_is_listed_from_the_table(lake: Path) -> None:
    (found,) = json.loads(k2(lake, "halted", "--json").stdout)["halted"]

    assert (found["exchange"], found["stream"], found["table"]) == ("asx", "BHP", "trades")
    assert (found["partition"], found["since_offset"], found["records"]) == (0, 3, 4)
    assert found["since"] == "2023-11-14T22:13:20+00:00"
    assert "BHP" in k2(lake, "halted").stdout


def test_a_release_names_the_halt_and_who_asked_for_it(lake: Path, releases: FakeReleases) -> None:
    result = k2(lake, "release", "BHP", "--exchange", "asx", "--note", "confirmed", "--yes")

    (request,) = releases.requests
    assert result.exit_code == 0
    assert releases.is_released("trades", 0, 0, 3)
    assert (request.stream, request.note) == ("BHP", "confirmed")
    assert re.fullmatch(r".+@.+", request.requested_by)
    assert "confirmed" in k2(lake, "releases").stdout


def test_it_asks_before_it_releases(lake: Path, releases: FakeReleases) -> None:
    refused = k2(lake, "release", "BHP", "-e", "asx", said="n\n")

    assert refused.exit_code == 1
    assert "4 records of BHP" in refused.output
    assert releases.requests == []


@pytest.mark.parametrize(
    "words", [("CBA", "-e", "asx"), ("BHP", "-e", "sim"), ("BHP", "-e", "asx", "--table", "quotes")]
)
def test_what_is_not_halted_cannot_be_released(lake: Path, releases: FakeReleases, words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, ["gaps", "release", *words, "--yes", "--data-dir", str(lake)])

    assert result.exit_code != 0
    assert releases.requests == []


def test_nothing_halted_and_nothing_released_is_said(lake: Path, releases: FakeReleases) -> None:
    assert k2(lake, "releases").stdout == "no releases\n"
