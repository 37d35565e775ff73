"""What a person sees: nothing cut off, and commands as this shell can call them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from rich.table import Table

from k2.cli.console import program, wide_console


def test_a_narrow_terminal_cuts_no_topic_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    table = Table(box=None)
    for name in ("topic", *"abcdefgh"):
        table.add_column(name)
    table.add_row("market.equities.trades.asx", *["1234567890"] * 8)

    wide_console().print(table)

    assert "market.equities.trades.asx" in capsys.readouterr().out


def installed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mkdir(parents=True)
    (place / "k2").write_text("#!/bin/sh\n")
    (place / "k2").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(place / "python"))


def test_the_name_alone_serves_where_the_path_leads_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path / "bin", monkeypatch)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    assert program() == "k2"


def test_elsewhere_the_command_is_named_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path / ".venv" / "bin", monkeypatch)
    monkeypatch.setenv("PATH", "")

    monkeypatch.chdir(tmp_path)
    inside = program()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    outside = program()

    assert inside == ".venv/bin/k2"
    assert outside == str(tmp_path / ".venv" / "bin" / "k2")
