"""Raw consume against ingest, in one run on one topic: how much of the log's speed reaches the table."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.report import Figure
from benchmarks.services import fill, services

if TYPE_CHECKING:
    from collections.abc import Mapping

GOAL_RATIO = 0.35
GOAL_CHECKED = 0.75
UNCHECKED = {"K2_INGESTION__DEDUPLICATION__ENABLED": "false", "K2_INGESTION__SEQUENCES__ENABLED": "false"}


def measure(*, quick: bool) -> list[Figure]:
    """Fill a topic; in turns read it raw, ingest it, ingest it unchecked, each in a process of its own."""
    records, rounds = (1_000_000, 1) if quick else (2_000_000, 3)
    raw, ingested, unchecked = [], [], []
    with services() as settings:
        topic = fill(settings, records)
        _rate("raw", settings.data_dir, topic)  # the first reader finds the log on its way to the disk
        for number in range(rounds):
            raw.append(_rate("raw", settings.data_dir, topic))
            ingested.append(_rate("ingest", settings.data_dir, topic, _tables(settings.data_dir, f"checked-{number}")))
            other = _tables(settings.data_dir, f"unchecked-{number}")
            unchecked.append(_rate("ingest", settings.data_dir, topic, UNCHECKED | other))
    share = median(a / b for a, b in zip(ingested, raw, strict=True))
    checked = median(a / b for a, b in zip(ingested, unchecked, strict=True))
    return [
        Figure("raw consume, median", median(raw), "records/s"),
        Figure("ingest: log to committed table, median", median(ingested), "rows/s"),
        Figure("ingest / raw consume, median of rounds", share, "ratio", f"at least {GOAL_RATIO}", share >= GOAL_RATIO),
        Figure("ingest, duplicates and gaps not looked for, median", median(unchecked), "rows/s"),
        Figure(
            "ingest / ingest without looking for duplicates and gaps, median of rounds", checked, "ratio",
            f"at least {GOAL_CHECKED}", checked >= GOAL_CHECKED,
        ),
    ]  # fmt: skip


def _tables(data_dir: Path, name: str) -> dict[str, str]:
    """Return settings that lead to tables of their own, so that the same topic is ingested once more."""
    place = data_dir / name
    place.mkdir()
    return {"K2_CATALOG__URI": f"sqlite:///{place}/catalog.db", "K2_CATALOG__WAREHOUSE": place.as_uri()}


def _rate(kind: str, data_dir: Path, topic: str, changes: Mapping[str, str] | None = None) -> float:
    environment = {**os.environ, "K2_DATA_DIR": str(data_dir), "POLARS_MAX_THREADS": "2", **(changes or {})}
    command = [sys.executable, "-m", "benchmarks.ingest", kind, topic]
    ended = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    if ended.returncode != 0:
        raise RuntimeError(ended.stderr)
    return float(ended.stdout.split()[-1])


def _raw(topic: str) -> float:
    """Return records a second of `consume` with value, offset and time read, and nothing else."""
    from confluent_kafka import Consumer, TopicPartition  # noqa: PLC0415 - the raw client is what is measured

    from k2 import bootstrap  # noqa: PLC0415
    from k2.kafka.consumer import _fetch_properties  # noqa: PLC0415 - the same fetch settings
    from k2.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    ranges = bootstrap.log_admin(settings).ranges(topic)
    total = sum(found.end - found.start for found in ranges.values())
    properties = _fetch_properties(settings.kafka) | {
        "bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": "bench-raw", "enable.partition.eof": False,
    }  # fmt: skip
    consumer = Consumer(properties)
    consumer.assign([TopicPartition(topic, key[1], found.start) for key, found in ranges.items()])
    seen, skipped, began = 0, 0, 0.0
    while seen < total:
        messages = consumer.consume(10_000, 1.0)
        if messages and not began:
            began, skipped = time.perf_counter(), len(messages)
        for message in messages:
            message.value(), message.offset(), message.timestamp()
        seen += len(messages)
    elapsed = time.perf_counter() - began
    consumer.close()
    return (seen - skipped) / elapsed


def _ingest(topic: str) -> float:
    """Return rows a second from the first commit to the last one, the rows of the first left out."""
    from k2 import bootstrap  # noqa: PLC0415
    from k2.ingestion import events  # noqa: PLC0415
    from k2.ingestion.memory import prepare_process  # noqa: PLC0415
    from k2.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    commits: list[tuple[float, int]] = []

    def observe(event: events.Event) -> None:
        if isinstance(event, events.BatchCommitted):
            commits.append((time.perf_counter(), event.rows))

    worker = bootstrap.ingest_worker(settings, observer=observe)
    prepare_process()
    admin = bootstrap.log_admin(settings)
    ends = {key: found.end for key, found in admin.ranges(topic).items()}
    if not worker.run_until(ends, timeout_seconds=300):
        raise RuntimeError("the topic was not ingested within 300 s")
    return sum(rows for _, rows in commits[1:]) / (commits[-1][0] - commits[0][0])


if __name__ == "__main__":
    print({"raw": _raw, "ingest": _ingest}[sys.argv[1]](sys.argv[2]))
