"""What `k2 simulate` says of a spool that is not empty, and of a platform that holds it back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from k2.bootstrap import feeds
from k2.bootstrap.feeds import Feed
from k2.cli.hold_lines import HoldLines
from k2.cli.main import app
from k2.common.announcing import LevelAnnouncement
from k2.common.degradation import DegradationLevel
from k2.common.errors import UnavailableError
from k2.testing.feed_world import FeedWorld

RUN = ("simulate", "--start", "2026-01-01", "--duration", "0.2", "--rate", "2000", "--symbols", "5", "--spool", "spool")


class Spool:
    """A spool from which so many messages are left each time that it is waited for."""

    def __init__(self, *left: int) -> None:
        self.waiting = left[0]
        self._left = list(left[1:])

    def drain(self, timeout_seconds: float, **_more: object) -> int:
        assert timeout_seconds > 0
        self.waiting = self._left.pop(0)
        return self.waiting


@pytest.fixture
def world(tmp_path: Path) -> FeedWorld:
    return FeedWorld(tmp_path, "sim")


def simulate(world: FeedWorld, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    @contextmanager
    def feed(_settings: object, _exchange: str, **named: object) -> Iterator[Feed]:
        assert named["spool_dir"] == Path("spool")
        yield Feed(world.channel, world.held, spool)

    monkeypatch.setattr(feeds, "feed", feed)
    return CliRunner().invoke(app, [*RUN, "--data-dir", str(tmp_path / "data")], catch_exceptions=False)


def test_a_run_whose_spool_is_empty_at_its_end_says_that_all_is_acknowledged(world, tmp_path, monkeypatch) -> None:
    result = simulate(world, Spool(0, 0), tmp_path, monkeypatch)

    assert result.exit_code == 0
    assert "all acknowledged by the log" in result.stdout


def test_a_run_that_leaves_messages_in_its_spool_says_so_and_fails(world, tmp_path, monkeypatch) -> None:
    result = simulate(world, Spool(0, 1_234), tmp_path, monkeypatch)

    assert result.exit_code == 1
    assert "1,234 messages wait in spool; run it again to send them" in result.stdout
    assert "all acknowledged" not in result.stdout


def test_what_an_earlier_run_left_is_sent_before_the_log_is_asked_what_it_holds(world, tmp_path, monkeypatch) -> None:
    result = simulate(world, Spool(7, 0, 0), tmp_path, monkeypatch)

    assert "7 messages that an earlier run left in the spool are sent first" in result.stdout
    assert result.exit_code == 0


def test_a_run_that_resumes_does_not_begin_while_they_cannot_be_sent(world, tmp_path, monkeypatch) -> None:
    with pytest.raises(UnavailableError, match="found 7 messages left"):
        simulate(world, Spool(7, 7), tmp_path, monkeypatch)

    assert world.values("trades") == []


def test_a_feed_that_is_held_back_says_why_for_how_long_and_that_it_goes_on() -> None:
    console = Console(width=200)
    lines = HoldLines(console)
    said = LevelAnnouncement("w-1", DegradationLevel.CIRCUIT_BREAK, "lag", 0, 0, lag_records=5_000_000)

    with console.capture() as captured:
        lines.held(said, 0)
        lines.held(said, 12.4)
        lines.released(13)

    first, second, last = captured.get().splitlines()
    assert first == ("held back: w-1 is at CIRCUIT_BREAK (lag), 5,000,000 records wait; the feed goes on by itself")
    assert second.startswith("held back, for 12 s now:")
    assert last == "going on after 13.0 s"
    assert lines.summary == "; held back for 13.0 s"
