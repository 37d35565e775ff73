"""A drill on a running platform: workers take the level, feeds are held back and go on, and it is known who asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from k2 import bootstrap
from k2.bootstrap import announcing
from k2.common.clock import SystemClock
from k2.common.degradation import DegradationLevel
from k2.kafka.admin import LogAdmin
from k2.kafka.level_board import KafkaLevelBoard
from k2.local.platform import LocalPlatform

pytestmark = pytest.mark.platform

CLOCK = SystemClock()
WAIT_SECONDS = 60.0
HELD_SECONDS = 2.0
QUOTES = "market.simulated.quotes.sim"
SETTINGS = """
[degradation.thresholds]
soft_drain_seconds = 1000
graceful_drain_seconds = 2000
aggressive_drain_seconds = 3000
circuit_break_drain_seconds = 4000
"""
"""No load of a busy machine is to take a level by itself."""


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[LocalPlatform]:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "k2.toml").write_text(SETTINGS)
    with LocalPlatform(data_dir, components=("kafka", "registry", "worker")) as platform:
        yield platform


@pytest.fixture
def admin(platform: LocalPlatform) -> Iterator[LogAdmin]:
    admin = bootstrap.log_admin(platform.settings())
    yield admin
    admin.close()


@pytest.fixture
def board(platform: LocalPlatform, admin: LogAdmin) -> Iterator[KafkaLevelBoard]:
    board = announcing.level_board(platform.settings(), admin)
    board.start()
    yield board
    board.close()


def words(platform: LocalPlatform, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "k2.cli.main", *arguments, "--data-dir", str(platform.directory.root)]


def k2(platform: LocalPlatform, *arguments: str) -> str:
    return subprocess.run(words(platform, *arguments), check=True, capture_output=True, text=True, timeout=60).stdout


def wait_for(what: Callable[[], bool]) -> bool:
    deadline = CLOCK.monotonic() + WAIT_SECONDS
    while not what() and CLOCK.monotonic() < deadline:
        CLOCK.sleep(0.05)
    return what()


def test_a_drill_is_taken_by_the_worker_holds_feeds_back_and_is_kept(platform, admin: LogAdmin, board) -> None:
    def is_at(level: DegradationLevel) -> bool:
        current = board.current()
        return current is not None and current.level == level

    def quotes() -> int:
        return sum(extent.end for extent in admin.ranges(QUOTES).values())

    assert wait_for(lambda: is_at(DegradationLevel.NORMAL)), "the worker tells its level without a drill as well"
    k2(platform, "drill", "level", "CIRCUIT_BREAK", "--for", "5m", "--yes")
    assert wait_for(lambda: is_at(DegradationLevel.CIRCUIT_BREAK))
    heard = board.current()
    simulate = words(platform, "simulate", "--duration", "1", "--rate", "500", "--symbols", "5")
    with subprocess.Popen(simulate, stdout=subprocess.PIPE, text=True) as feed:
        assert feed.stdout is not None
        first = next(line for line in feed.stdout if "held back" in line)
        CLOCK.sleep(HELD_SECONDS)
        meanwhile = quotes()
        k2(platform, "drill", "stop")
        rest = feed.communicate(timeout=60)[0]
    drills = json.loads(k2(platform, "drill", "list", "--json"))["drills"]

    assert heard.drill
    assert "is at CIRCUIT_BREAK (drill)" in first
    assert meanwhile == 0
    assert "going on after" in rest
    assert "all acknowledged by the log" in rest
    assert quotes() > 0
    assert wait_for(lambda: is_at(DegradationLevel.NORMAL))
    assert [(each["level"], each["running"]) for each in drills] == [("CIRCUIT_BREAK", False), ("NORMAL", False)]
    assert all(each["requested_by"] == drills[0]["requested_by"] != "" for each in drills)
