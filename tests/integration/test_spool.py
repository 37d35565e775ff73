"""A feed with a spool on a real broker that stops for ten seconds, and whose own process is killed meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from k2.common.clock import SystemClock
from k2.feeds.market import Market, MarketRun
from k2.kafka.admin import LogAdmin
from k2.kafka.consumer import LogReader
from k2.kafka.decoding import Decoder
from k2.kafka.registry import CachedSchemas, SchemaRegistry
from k2.kafka.topics import TopicCatalog
from k2.local.platform import LocalPlatform
from k2.schemas.records import RECORD_TYPES

pytestmark = pytest.mark.platform

CLOCK = SystemClock()
SECONDS = 20
RUN = MarketRun(seed=5, start_ns=1_767_225_600_000_000_000, rate=2_000.0, symbols=20)
STOPPED_SECONDS = 10.0
WAIT_SECONDS = 60.0
DATA_TYPES = ("trades", "quotes")


def simulate(platform: LocalPlatform, spool: Path) -> subprocess.Popen[str]:
    words = ["--start", "2026-01-01", "--duration", str(SECONDS), "--rate", "2000", "--symbols", "20", "--seed", "5"]
    command = [sys.executable, "-m", "k2.cli.main", "simulate", *words, "--spool", str(spool)]
    command += ["--data-dir", str(platform.directory.root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def spooled_bytes(spool: Path) -> int:
    return sum(path.stat().st_size for path in spool.glob("*.spool"))


def by_symbol(settings, topic: str, data_type: str) -> dict[str, list[int]]:
    """Return the source sequences of each symbol in the order of the log."""
    admin, registry = LogAdmin(settings.kafka), SchemaRegistry(settings.kafka)
    ends = {at: extent.end for at, extent in admin.ranges(topic).items()}
    reader = LogReader(settings.kafka, dict.fromkeys(ends, 0))
    decoder = Decoder(RECORD_TYPES[data_type], CachedSchemas(registry, {}, entries_max=10))
    found: dict[str, list[int]] = {}
    while any(reader.position(*at) < end for at, end in ends.items()):
        for batch in reader.poll(10_000, 0.2):
            rows = decoder.decode(batch, log_id=0).rows
            for symbol, sequence in rows.select("symbol", "source_sequence").iter_rows():
                found.setdefault(symbol, []).append(sequence)
    for each in (reader, registry, admin):
        each.close()
    return found


def expected(data_type: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for part in Market(RUN, duration_ns=SECONDS * 10**9).slices():
        rows = getattr(part, data_type).select("symbol", "source_sequence")
        for symbol, sequence in rows.iter_rows():
            found.setdefault(symbol, []).append(sequence)
    return found


def test_a_stopped_broker_and_a_killed_feed_lose_and_double_nothing(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with LocalPlatform(tmp_path / "data", components=("kafka", "registry")) as platform:
        settings = platform.settings()
        topics = {name: TopicCatalog.load().topic("sim", name).name for name in DATA_TYPES}

        with simulate(platform, spool) as feed:
            deadline = CLOCK.monotonic() + WAIT_SECONDS
            while not spooled_bytes(spool) and CLOCK.monotonic() < deadline:  # asking the log takes as long as a feed
                CLOCK.sleep(0.02)
            platform.kill("kafka", signal.SIGSTOP)
            stopped_at = CLOCK.monotonic()
            held = spooled_bytes(spool)
            while spooled_bytes(spool) <= held + 100_000 and CLOCK.monotonic() < stopped_at + STOPPED_SECONDS:
                CLOCK.sleep(0.02)
            grown = spooled_bytes(spool) - held
            feed.kill()
        CLOCK.sleep(max(0.0, stopped_at + STOPPED_SECONDS - CLOCK.monotonic()))
        platform.kill("kafka", signal.SIGCONT)
        with simulate(platform, spool) as again:
            said = again.communicate(timeout=120)[0]
        in_log = {name: by_symbol(settings, topic, name) for name, topic in topics.items()}

    assert grown > 0, "the feed went on while the broker was stopped"
    assert again.returncode == 0, said
    assert "messages that an earlier run left in the spool are sent first" in said
    assert "all acknowledged by the log" in said
    assert in_log == {name: expected(name) for name in DATA_TYPES}
