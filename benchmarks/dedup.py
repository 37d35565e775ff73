"""The deduplicator by id, on a real Valkey: how fast, how much memory, how often it is wrong, recounted exactly."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import cast

import numpy as np
import polars as pl
import valkey

from benchmarks.report import Figure
from k2.ingestion.bloom_deduplicator import ProductionDeduplicator
from k2.local.platform import LocalPlatform
from k2.local.settings import LocalSettings

IDS = 100_000_000
IDS_QUICK = 2_000_000
BATCH = 100_000
CHECKS = 2_000
ABSENT = 1_000_000
ANSWER_SECONDS = 120
REPEATED_SHARE = 0.001
START_MS = 1_800_014_400_000 // 21_600_000 * 21_600_000
HOURS = 30
"""Of log time, over which the ids are spread: as long as five generations hold."""
WINDOW_SHARE = 0.79
"""Of the ids so far, those at most so far back are within a day."""


def measure(*, quick: bool) -> list[Figure]:
    """Fill all generations to capacity, a thousandth of the ids twice within a day of log time; then ask."""
    count = IDS_QUICK if quick else IDS
    settings = LocalSettings(valkey_mebibytes_max=max(256, count * 24 // 2**20))
    with (  # a busy machine must not look like a Valkey that is away: what that cannot take, no table tells here
        tempfile.TemporaryDirectory() as directory,
        LocalPlatform(Path(directory) / "data", components=("valkey",), settings=settings) as platform,
        closing(
            valkey.Valkey.from_url(platform.settings().valkey.url.get_secret_value(), socket_timeout=ANSWER_SECONDS)
        ) as client,
    ):
        before = _used_bytes(client)
        seen = ProductionDeduplicator(client, count)
        figures = _fill(seen, count)
        bytes_an_id = (_used_bytes(client) - before) / count
        figures += [
            Figure("Valkey, with time and offset", bytes_an_id, "bytes/id", "<= 20 at 100M ids", met=bytes_an_id <= 20),
            *_ask(seen, count),
        ]
    return figures


def _used_bytes(client: valkey.Valkey) -> int:
    memory = cast("dict[str, int]", client.info("memory"))
    return memory["used_memory"]


def _fill(seen: ProductionDeduplicator, count: int) -> list[Figure]:
    """Store all ids; after each batch some earlier ids come again. Counting is exact: ids are numbers."""
    drawn = np.random.default_rng(1)
    stored_seconds = checked_seconds = 0.0
    false_drops = missed = repeats = checked = 0
    for first in range(0, count, BATCH):
        now = START_MS + HOURS * 3_600_000 * first // count
        batch = _ids(np.arange(first, first + BATCH))
        began = time.perf_counter()
        false_drops += sum(seen.is_duplicate_batch(batch, offsets=range(first, first + BATCH), log_time_ms=now))
        stored_seconds += time.perf_counter() - began
        again = _ids(
            drawn.integers(max(0, first - int(WINDOW_SHARE * count)), first + BATCH, int(BATCH * REPEATED_SHARE))
        )
        answers = seen.is_duplicate_batch(again, log_time_ms=now)
        repeats += len(answers)
        missed += len(answers) - sum(answers)
    stats = seen.get_stats()
    reduction, memory = stats["redis_call_reduction"], stats["memory_mb"]
    absent = _ids(np.arange(count, count + ABSENT))
    seen.reset_stats()
    for first in range(0, ABSENT, BATCH):
        part = absent[first : first + BATCH]
        checked += len(part)
        began = time.perf_counter()
        seen.suspects(part, log_time_ms=now)
        checked_seconds += time.perf_counter() - began
    rate = seen.get_stats()["bloom_positives"] / checked
    return [
        Figure("ids held", count, "ids"),
        Figure("checked in batches, at capacity", checked / checked_seconds, "ids/s", "> 500,000", None),
        Figure("checked and stored", (count + repeats) / stored_seconds, "ids/s"),
        Figure("filter memory", memory, "MiB", "< 200", met=memory < 200),
        Figure("false positive rate of the filters", 100 * rate, "%", "< 0.2", met=rate < 0.002),
        Figure("reads of Valkey avoided", 100 * reduction, "%", "> 99", met=reduction > 0.99),
        Figure("ids called duplicates that were new", false_drops, "ids", "0", met=false_drops == 0),
        Figure("duplicates that were missed", missed, "ids", "0", met=missed == 0),
        Figure("calls that Valkey did not answer", stats["redis_failures"], "calls"),
    ]


def _ask(seen: ProductionDeduplicator, count: int) -> list[Figure]:
    """Measure single checks of ids that are new."""
    now = START_MS + HOURS * 3_600_000 - 1
    ids = [f"new-{count}-{number}" for number in range(CHECKS)]
    began = time.perf_counter()
    for each in ids:
        seen.suspects([each], log_time_ms=now)
    milliseconds = 1_000 * (time.perf_counter() - began) / CHECKS
    return [Figure("one check", milliseconds, "ms", "< 0.1", met=milliseconds < 0.1)]


def _ids(numbers: np.ndarray) -> pl.Series:
    return pl.Series(numbers.astype(np.int64))
