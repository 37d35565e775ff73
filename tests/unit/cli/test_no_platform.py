"""Commands where no platform runs: none guesses an address, since a stranger's broker may answer there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from k2.cli import first_answer
from k2.cli import main as command_line

COMMANDS = (
    ("topics",),
    ("simulate", "--duration", "1"),
    ("ingest",),
    ("verify",),
    ("symbols",),
    ("trades", "SIM0001"),
    ("quotes", "SIM0001"),
)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_without_a_platform_names_what_is_missing_and_makes_nothing(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("K2_KAFKA__BOOTSTRAP_SERVERS", "K2_KAFKA__REGISTRY_URL", "K2_API__KEY_FILE", "K2_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["k2", *words, "--data-dir", str(tmp_path / "data")])

    with pytest.raises(SystemExit) as ended:
        command_line.main()

    assert ended.value.code == command_line.EXIT_ERROR
    error = capsys.readouterr().err
    assert "k2 up" in error
    assert "--data-dir" in error
    assert not list((tmp_path / "data").glob("**/*.db"))


def test_the_first_question_is_about_the_market_that_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Connection:
        def __init__(self, *_: object, **__: object) -> None: ...

        def request(self, _method: str, path: str, **_: object) -> None:
            asked.append(path)
            raise OSError

        def close(self) -> None: ...

    monkeypatch.setattr(first_answer.http.client, "HTTPConnection", Connection)

    assert first_answer.first_symbol("http://127.0.0.1:1", "key") is None
    assert "exchange=sim" in asked[0]
