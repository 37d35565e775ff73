"""The API under 10 times its capacity: what it answers, what it refuses and how, health meanwhile, and its memory."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import psutil

from benchmarks.api_load import Answered, Plan
from benchmarks.report import Figure, percentile
from benchmarks.rows import SECOND_NS, START_NS
from benchmarks.services import CHUNK, command, fill, services, worker
from k2 import bootstrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from k2.settings import Settings

FACTOR = 10
HEALTH_GOAL_MS = 100
MEMORY_GOAL = 1.1
RECENT_GOAL_MS = 2_000
RATE = "500"
MEMORY_EVERY_SECONDS = 0.25
GENERATORS = 2
KEY = "bench"
READY_SECONDS = 60
RECENT = f"/v1/trades?symbol={{symbol}}&exchange=sim&start={START_NS}&end={START_NS + 10 * SECOND_NS}"
SCAN = "/v1/trades?symbol={symbol}&exchange=sim&start=0&limit=10000"
MIX = {"recent": RECENT, "scan": SCAN}
SHARES = [0.9, 0.1]
UNLIMITED_KEY = {"K2_API__KEY_QUESTIONS_PER_SECOND": "1e6", "K2_API__KEY_QUESTIONS_AT_ONCE_MAX": "100000"}
"""One key stands for many callers here: it is the server's limits that are looked at."""


def measure(*, quick: bool) -> list[Figure]:
    """Find the rate that the API answers, then ask 10 times as often, recent reads and scans, and look at health."""
    chunks, seconds = (4, 15.0) if quick else (20, 60.0)
    with services() as settings:
        fill(settings, chunks * CHUNK)
        with worker(settings), running_api(settings) as (port, process):
            _wait_for_rows(port, settings, chunks * CHUNK)
            with command(settings, "simulate", "--rate", RATE):
                return _figures(port, psutil.Process(process.pid), seconds)


def _figures(port: int, process: psutil.Process, seconds: float) -> list[Figure]:
    calm = Plan(port, KEY, seconds / 3, 1e6, 8, MIX, SHARES, 1)
    answered = [each for each in _run(calm) if each.status == 200]
    capacity = len(answered) / calm.seconds
    load = replace(calm, seconds=seconds, per_second=FACTOR * capacity / GENERATORS, connections=60)
    probe = replace(load, per_second=20, connections=1, kinds={"health": "/health"}, weights=[1.0])
    memory: list[int] = []
    running = [_start(replace(load, seed=seed)) for seed in range(2, 2 + GENERATORS)]
    probing = _start(probe)
    for _ in range(int(seconds / MEMORY_EVERY_SECONDS)):
        memory.append(process.memory_info().rss)
        time.sleep(MEMORY_EVERY_SECONDS)
    asked = [each for generator in running for each in _read(generator)]
    return [*_answers(answered, asked, capacity, seconds), *_health(_read(probing)), *_memory(memory)]


def _answers(calm: Sequence[Answered], asked: Sequence[Answered], capacity: float, seconds: float) -> list[Figure]:
    good = [each for each in asked if each.status == 200]
    refused = [each for each in asked if each.status == 503 and each.names_pause]
    other = len(asked) - len(good) - len(refused)
    recent = _ms(good, "recent")
    share = len(recent) / max(1, len(_ms(asked, "recent")))
    p99 = percentile(recent, 0.99)
    return [
        Figure("answers a second at capacity, 9 recent reads for each scan", capacity, "1/s"),
        Figure("asked a second under overload, of that", len(asked) / seconds / capacity, "times"),
        Figure("answers a second under overload, of those at capacity", len(good) / seconds / capacity, "ratio"),
        Figure("recent reads answered, of those asked", share, "ratio"),
        Figure("scans answered, of those asked", len(_ms(good, "scan")) / max(1, len(_ms(asked, "scan"))), "ratio"),
        Figure("refused with 503 and Retry-After", len(refused), "answers"),
        Figure("answered in any other way", other, "answers", "0", other == 0),
        Figure("recent reads at capacity, p99", percentile(_ms(calm, "recent"), 0.99), "ms"),
        Figure("recent reads under overload, p50", percentile(recent, 0.5), "ms"),
        Figure("recent reads under overload, p99", p99, "ms", f"{RECENT_GOAL_MS:,} or less", p99 <= RECENT_GOAL_MS),
    ]


def _health(probed: Sequence[Answered]) -> list[Figure]:
    times = _ms(probed, "health")
    other = sum(each.status != 200 for each in probed)
    return [
        Figure("health not answered with 200", other, "answers", "0", other == 0),
        Figure("health, p50", percentile(times, 0.5), "ms"),
        Figure("health, slowest", max(times), "ms", f"{HEALTH_GOAL_MS} or less", max(times) <= HEALTH_GOAL_MS),
    ]


def _memory(resident: Sequence[int]) -> list[Figure]:
    settled = resident[len(resident) // 4 :]
    growth = max(settled) / settled[0]
    return [
        Figure("resident memory after the first quarter", settled[0] / 2**20, "MiB"),
        Figure(
            "most resident memory after that, of it", growth, "ratio", f"{MEMORY_GOAL} or less", growth <= MEMORY_GOAL
        ),
    ]


def _ms(answered: Sequence[Answered], kind: str) -> list[float]:
    return [each.seconds * 1e3 for each in answered if each.kind == kind]


@contextmanager
def running_api(settings: Settings) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run `k2 serve` on a free port, until the block ends."""
    (settings.data_dir / "api-key").write_text(KEY)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    with command(settings, "serve", environment={"K2_API__PORT": str(port), **UNLIMITED_KEY}) as process:
        deadline = time.monotonic() + READY_SECONDS
        while not _is_ready(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the API did not become ready")
            time.sleep(0.2)
        yield port, process


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _wait_for_rows(port: int, settings: Settings, records: int) -> None:
    """Wait until the tables hold what the log does, so that ingestion takes no part in what is measured."""
    tables = bootstrap.market_tables(settings)
    deadline = time.monotonic() + READY_SECONDS
    while sum(known.counts.rows for known in tables.head("trades").seam.partitions.values()) < records:
        if time.monotonic() > deadline or not _is_ready(port):
            raise RuntimeError("the trades did not arrive in the table")
        time.sleep(0.5)
    tables.close()


def _run(plan: Plan) -> Sequence[Answered]:
    return _read(_start(plan))


def _start(plan: Plan) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "benchmarks.api_load", json.dumps(asdict(plan))]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def _read(generator: subprocess.Popen[str]) -> Sequence[Answered]:
    out, _ = generator.communicate()
    return [Answered(**each) for each in json.loads(out)]
