"""From kill -9 of the ingest worker to the first commit after it, on a platform with history and a market running."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.report import Figure, percentile
from benchmarks.services import fill
from k2 import bootstrap
from k2.local.platform import LocalPlatform
from k2.local.settings import LocalSettings
from k2.storage.tables import MAIN_TABLES, MarketTables

RATE = 2_000
GOAL_SECONDS = 5
CALM_SECONDS = 5.0
"""Each death is to be the first one, as it is a minute after the one before with the settings as they come."""
SETTINGS = LocalSettings(fast_start=False, calm_seconds=CALM_SECONDS)
COMPONENTS = ("kafka", "registry", "worker", "simulator")


def measure(*, quick: bool) -> list[Figure]:
    """Kill the worker at random moments of its life; each time wait for the next commit of either table."""
    kills, history = (10, 500_000) if quick else (40, 4_000_000)
    chance = random.Random(4)  # moments that are the same in each run
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalPlatform(
            Path(directory) / "data",
            components=COMPONENTS,
            settings=SETTINGS,
            simulator_arguments=("--rate", str(RATE)),
        ) as platform,
    ):
        tables = MarketTables(platform.settings().catalog, bootstrap.system_clock())
        _wait_for_commit(tables, _commits(tables))
        fill(platform.settings(), history)
        while _trades(tables) < history:
            time.sleep(0.1)
        seconds = []
        for _ in range(kills):
            time.sleep(CALM_SECONDS + chance.uniform(0, 5))
            platform.kill("worker")
            began, before = time.perf_counter(), _commits(tables)
            _wait_for_commit(tables, before)
            seconds.append(time.perf_counter() - began)
        tables.close()
    p99 = percentile(seconds, 0.99)
    return [
        Figure("history, trades", history, "rows"),
        Figure(f"kill -9 to first commit, p50 of {kills}", statistics.median(seconds), "s"),
        Figure(f"kill -9 to first commit, p99 of {kills}", p99, "s", f"{GOAL_SECONDS} or less", p99 <= GOAL_SECONDS),
        Figure("kill -9 to first commit, longest", max(seconds), "s"),
    ]


def _commits(tables: MarketTables) -> int:
    return sum(tables.head(name).seam.commit_sequence for name in MAIN_TABLES)


def _trades(tables: MarketTables) -> int:
    return sum(partition.rows_held for partition in tables.head("trades").seam.partitions.values())


def _wait_for_commit(tables: MarketTables, before: int) -> None:
    while _commits(tables) <= before:
        time.sleep(0.01)
