"""`k2 dlq` lists dead letters by cause and shows one as it came; it needs no broker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from k2.cli.main import app
from k2.testing.replay_world import OLD, ReplayWorld, message

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    world = ReplayWorld(tmp_path).create()
    monkeypatch.setenv("K2_CATALOG__URI", world.lake.settings.uri)
    monkeypatch.setenv("K2_CATALOG__WAREHOUSE", world.lake.settings.warehouse)
    world.ingest(0, 10, bad=[3, 5])
    world.ingest(10, 20, bad=[12], value=b"\x00\xff")
    world.lake.close()
    return tmp_path


def run(data_dir: Path, *words: str) -> str:
    result = CliRunner().invoke(app, ["dlq", *words, "--data-dir", str(data_dir)])
    assert result.exit_code == 0, result.output
    return result.output


def test_letters_of_one_cause_are_one_line(data_dir: Path) -> None:
    listed = json.loads(run(data_dir, "list", "--json"))

    assert listed["records"] == 3
    (group,) = listed["groups"]
    assert (group["table_name"], group["records"], group["error_class"]) == ("trades", 3, "UnknownSchema")
    assert group["first"] == group["last"] == OLD.isoformat()
    assert "UnknownSchema" in run(data_dir, "list")


def test_one_is_shown_with_the_bytes_that_came(data_dir: Path) -> None:
    (shown,) = json.loads(run(data_dir, "show", "--json", "--at", "market.equities.trades.sim:0:5"))["records"]

    assert bytes.fromhex(shown["value"]) == message(5)
    assert bytes.fromhex(shown["key"]) == b"AAA"
    assert (shown["log_partition"], shown["log_offset"]) == (0, 5)


def test_bytes_are_readable_on_a_terminal(data_dir: Path) -> None:
    shown = run(data_dir, "show", "--at", "market.equities.trades.sim:0:11-19")

    assert "market.equities.trades.sim:0:12" in shown
    assert r"b'\x00\xff'" in shown
    assert "00ff" in shown


def test_no_dead_letters_are_said_so(data_dir: Path) -> None:
    assert run(data_dir, "list", "--topic", "market.equities.trades.other").strip() == "no dead letters"


def test_a_replay_of_what_is_bad_still_says_so_and_leaves_it(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_KAFKA__REGISTRY_URL", "http://127.0.0.1:1")
    words = ["dlq", "replay", "--json", "--at", "market.equities.trades.sim:0:12", "--data-dir", str(data_dir)]

    result = CliRunner().invoke(app, words)

    report = json.loads(result.output)
    assert (result.exit_code, report["chosen"], report["stored"], report["duplicates"]) == (1, 1, 0, 0)
    assert [left["offsets"] for left in (*report["still_bad"], *report["not_yet"])] == [[12]]
    assert json.loads(run(data_dir, "list", "--json"))["records"] == 3
