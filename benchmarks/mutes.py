"""The mute watch on simulated and real streams: injected mutes found, how soon, and alarms where nothing is wrong."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import time
from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from benchmarks.report import Figure, percentile
from k2.feeds.asx import read_ticks, tick_files
from k2.feeds.faults.injector import FaultInjector
from k2.feeds.faults.rates import FaultRates
from k2.feeds.market import Market, MarketRun
from k2.feeds.settings import FeedSettings
from k2.ingestion import events
from k2.ingestion.duplicates.deduplicator import Part
from k2.ingestion.watching.mutes import MuteWatch
from k2.ingestion.watching.open_hours import CLOSED, OpenHours
from k2.ingestion.watching.rhythm import RhythmRules
from k2.storage.seam import LogPartition
from k2.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from k2.feeds.faults.truth import Entry

START_NS = 1_767_225_600_000_000_000
SECOND_NS = 1_000_000_000
CHECK_NS = 5 * SECOND_NS
SEEDS = (1, 2, 3)
SYMBOLS = 50
RATE = 2_000
MUTE_SECONDS = 30.0
ASX_MUTE_SECONDS = 900.0
ASX = Path(os.environ.get("K2_SAMPLE_DATA") or Path(__file__).parents[2] / "shared" / "data" / "asx")
ASX_HOURS = OpenHours("Australia/Sydney", [(time(10, 10), time(16, 0))])


@dataclass
class Watched:
    """What the watch said, with the time of the batch at whose end it said so."""

    silent: list[tuple[int, events.StreamSilent]] = field(default_factory=list)
    now_ns: int = 0

    def __call__(self, event: events.Event, /) -> None:
        """Keep the alarms."""
        if isinstance(event, events.StreamSilent):
            self.silent.append((self.now_ns, event))


def measure(*, quick: bool) -> list[Figure]:
    """Measure all."""
    minutes = 3 if quick else 10
    seeds = SEEDS[:1] if quick else SEEDS
    started, false_alarms, quotes = process_time(), 0, 0
    for seed in seeds:
        frames = _market(seed, minutes)
        quotes += sum(map(len, frames))
        false_alarms += len(_watch(frames, "sim", OpenHours()).silent)
    figures = [
        Figure(f"alarms on clean markets, {len(seeds)} x {minutes} min, {quotes:,} quotes", false_alarms, "alarms",
               "0", met=false_alarms == 0),
    ]  # fmt: skip
    found, missed, others, delays = 0, 0, 0, []
    for seed in seeds:
        truth: list[Entry] = []
        rates = FaultRates(mute=0.0002, mute_seconds=MUTE_SECONDS, seed=seed)
        injector = FaultInjector("quotes", rates, scope="symbol", streams_max=1_000, tell=truth.append)
        watched = _watch([injector.inject(frame) for frame in _market(seed, minutes)], "sim", OpenHours())
        injector.end()
        mutes = [entry for entry in truth if entry["kind"] == "mute" and entry["to_ns"] is not None]
        mutes = [entry for entry in mutes if entry["from_ns"] > START_NS + 60 * SECOND_NS]
        alarms = list(watched.silent)
        for mute in mutes:
            hit = [one for one in alarms if one[1].symbol == mute["symbol"] and _within(one[0], mute)]
            found, missed = found + bool(hit), missed + (not hit)
            delays += [(hit[0][0] - mute["from_ns"]) / SECOND_NS] if hit else []
        everywhere = [entry for entry in truth if entry["kind"] == "mute"]
        others += sum(
            not any(one[1].symbol == mute["symbol"] and _within(one[0], mute) for mute in everywhere) for one in alarms
        )
    recall = found / max(found + missed, 1)
    figures += [
        Figure(f"recall on {found + missed} mutes of {MUTE_SECONDS:.0f} s, after a first minute", recall, "", "1.0",
               met=recall == 1),
        Figure("alarms outside of mutes, in the same runs", others, "alarms", "0", met=others == 0),
        Figure("from the beginning of a mute to its alarm, p50", percentile(delays or [0], 0.5), "s"),
        Figure("the same, p99", percentile(delays or [0], 0.99), "s"),
        Figure("CPU, all of the above", process_time() - started, "s"),
    ]  # fmt: skip
    return figures + (_asx() if ASX.is_dir() else [])


def _within(at_ns: int, mute: Entry) -> bool:
    return bool(mute["from_ns"] <= at_ns <= mute["to_ns"] + SECOND_NS if mute["to_ns"] else mute["from_ns"] <= at_ns)


def _market(seed: int, minutes: int) -> list[pl.DataFrame]:
    run = MarketRun(seed=seed, start_ns=START_NS, rate=RATE, symbols=SYMBOLS)
    return [part.quotes for part in Market(run, duration_ns=minutes * 60 * SECOND_NS).slices()]


def _watch(frames: list[pl.DataFrame], exchange: str, hours: OpenHours) -> Watched:
    """Show the frames as batches of one partition that the log appended at the times of their events.

    Between two of them the lag is measured every few seconds, and is 0.
    """
    watched, clock = Watched(), ManualClock()
    watch = MuteWatch(
        {exchange: hours}, rules=RhythmRules(), streams_max=1_000, live_seconds_max=1, clock=clock, observer=watched
    )
    for frame in frames:
        if frame.height:
            first_ns, newest_ns = (int(frame["ts_event_ns"].to_numpy()[at]) for at in (0, -1))
            while watched.now_ns and watched.now_ns + CHECK_NS < first_ns:
                watched.now_ns += CHECK_NS
                clock.advance((watched.now_ns - clock.time_ns()) / SECOND_NS)
                watch(events.LagMeasured("quotes", f"market.any.quotes.{exchange}", 0, 0))
            watched.now_ns = max(watched.now_ns, newest_ns)
            logged = pl.from_epoch(pl.col("ts_event_ns"), time_unit="ns").dt.replace_time_zone("UTC")
            watch.committed("quotes", {LogPartition(0, 0): Part(0, [frame.with_columns(ts_log=logged)])})
    return watched


def _asx() -> list[Figure]:
    """Show the real sessions, clean, and with mutes of the one symbol that is active."""
    figures = []
    for data_type in ("trades", "quotes"):
        files = [file for file in tick_files(ASX) if file.data_type == data_type]
        rows = pl.concat([read_ticks(file, FeedSettings()) for file in files]).sort("ts_event_ns", maintain_order=True)
        clean = len(_watch(_batches(rows), "asx", ASX_HOURS).silent)
        truth: list[Entry] = []
        rates = FaultRates(mute=0.0002, mute_seconds=ASX_MUTE_SECONDS)
        injector = FaultInjector(data_type, rates, scope="symbol", streams_max=100, tell=truth.append)
        watched = _watch(_batches(pl.concat([injector.inject(rows), injector.end()])), "asx", ASX_HOURS)
        mutes = [entry for entry in truth if entry["kind"] == "mute" and _in_one_session(entry)]
        named = [(at, event.symbol) for at, event in watched.silent]
        # One symbol makes up nearly all of the partition: where it is silent, so is the partition, told of first.
        found = sum(
            any(symbol in {mute["symbol"], None} and _within(at, mute) for at, symbol in named) for mute in mutes
        )
        figures += [
            Figure(f"alarms on five real sessions, {data_type}, {len(rows):,} records", clean, "alarms"),
            Figure(f"recall on {len(mutes)} mutes of {ASX_MUTE_SECONDS:.0f} s in them", found / max(len(mutes), 1), ""),
        ]
    return figures


def _batches(rows: pl.DataFrame) -> list[pl.DataFrame]:
    """Cut by half minutes."""
    halves = rows["ts_event_ns"] // (30 * SECOND_NS)
    starts = [0, *((halves.diff() != 0).arg_true().to_list()), len(rows)]
    return [rows[low:high] for low, high in pairwise(starts) if high > low]


def _in_one_session(mute: Entry) -> bool:
    """Say whether a mute begins after the first half hour of a session, and ends in the same one."""
    if mute["to_ns"] is None:
        return False
    moments = ASX_HOURS.at(np.array([mute["from_ns"] - 1800 * SECOND_NS, mute["from_ns"], mute["to_ns"]], np.int64))
    return len(set(moments.session.tolist())) == 1 and moments.session[0] != CLOSED
