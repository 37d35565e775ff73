"""What watches a worker's batches, as the composition root puts it together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import yaml

from k2.bootstrap.watchers import batch_watchers
from k2.ingestion import events
from k2.ingestion.duplicates.deduplicator import Part
from k2.ingestion.settings import IngestionSettings
from k2.ingestion.watching.settings import MuteSettings
from k2.ingestion.watching.watchers import show
from k2.kafka.topics import PACKAGED, TopicCatalog
from k2.storage.seam import LogPartition
from k2.testing.manual_clock import ManualClock
from k2.testing.market_rows import market_rows

START = datetime(2026, 1, 2, tzinfo=UTC)
TOPIC = "market.simulated.trades.sim"


def topics_with_lines(directory: Path) -> TopicCatalog:
    content = yaml.safe_load(PACKAGED.read_text())
    content["exchanges"]["sim"]["lines"] = ["a", "b"]
    (directory / "topics.yaml").write_text(yaml.safe_dump(content))
    return TopicCatalog.load(directory / "topics.yaml")


def live_batch(records: int) -> Part:
    """Return records a tenth of a second apart, received as they were logged; each third on line b."""
    times = [START + timedelta(seconds=number / 10) for number in range(records)]
    rows = market_rows(range(records), symbols=("AAA",)).with_columns(
        ts_log=pl.Series(times, dtype=pl.Datetime("us", "UTC")),
        source=pl.Series(["b" if number % 3 == 0 else "a" for number in range(records)]),
    )
    return Part(0, [rows.with_columns(ts_recv_ns=pl.col("ts_log").dt.epoch("ns"))])


def test_lines_are_compared_and_a_feed_that_stops_is_told_of(tmp_path: Path) -> None:
    told: list[events.Event] = []
    clock = ManualClock(int(START.timestamp()) * 10**9)
    watchers, observer = batch_watchers(IngestionSettings(), topics_with_lines(tmp_path), clock, told.append)

    show(watchers, "trades", {LogPartition(0, 1): live_batch(600)})
    clock.advance(120)
    observer(events.LagMeasured("trades", TOPIC, 1, 0))

    compared, lag, silent = told
    assert isinstance(compared, events.LinesCompared)
    assert {name: counts.first for name, counts in compared.lines.items()} == {"a": 333, "b": 167}
    assert isinstance(lag, events.LagMeasured)
    assert isinstance(silent, events.StreamSilent)
    assert (silent.exchange, silent.symbol) == ("sim", None)


def test_the_mute_watch_can_be_turned_off() -> None:
    told: list[events.Event] = []
    settings = IngestionSettings(mutes=MuteSettings(enabled=False))
    clock = ManualClock(int(START.timestamp()) * 10**9)
    watchers, observer = batch_watchers(settings, TopicCatalog.load(), clock, told.append)

    show(watchers, "trades", {LogPartition(0, 1): live_batch(600)})
    clock.advance(120)
    observer(events.LagMeasured("trades", TOPIC, 1, 0))

    assert [type(event) for event in told] == [events.LagMeasured]
