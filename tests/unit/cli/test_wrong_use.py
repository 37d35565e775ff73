"""Wrong use of the command line: one clear error, exit code 2, nothing made and nothing changed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from k2.cli import main as command_line

NOBODY = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_KAFKA__BOOTSTRAP_SERVERS", NOBODY)
    monkeypatch.setenv("K2_KAFKA__REQUEST_TIMEOUT_SECONDS", "0.2")


@pytest.fixture
def error_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Return what runs a command that must fail, and gives its only words."""

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["k2", *words, "--data-dir", str(tmp_path / "data")])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (command_line.EXIT_ERROR, "")
        assert err.startswith("k2: ")
        assert "Traceback" not in err
        return err

    return run


def test_a_broker_that_is_not_there_is_named_with_its_setting(error_of) -> None:
    error = error_of("topics")

    assert "K2_KAFKA__BOOTSTRAP_SERVERS" in error


def test_a_corrupt_settings_file_is_named_with_the_mistake(error_of, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "k2.toml").write_text("kafka = [")

    error = error_of("topics")

    assert str(tmp_path / "data" / "k2.toml") in error
    assert "TOML" in error


def test_an_unknown_setting_is_named(error_of, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_KAFKA__BOOTSTRAP_SERVER", NOBODY)

    assert "unknown setting K2_KAFKA__BOOTSTRAP_SERVER" in error_of("topics")


def test_an_import_of_something_else_is_refused_with_its_path(error_of, tmp_path: Path) -> None:
    wrong = tmp_path / "holiday.jpg"
    wrong.write_bytes(b"\xff\xd8\xff\xe0 JFIF")

    assert str(wrong) in error_of("import", "asx", str(wrong))


def test_up_in_a_directory_that_holds_something_else_leaves_it_alone(error_of, tmp_path: Path) -> None:
    home = tmp_path / "data"
    home.mkdir()
    (home / "thesis.txt").write_text("precious")

    error = error_of("up", "--detach", "--only", "valkey")

    assert str(home) in error
    assert [path.name for path in home.iterdir()] == ["thesis.txt"]


def test_up_under_a_file_is_one_clear_error(error_of, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where a directory belongs")

    assert str(tmp_path / "data") in error_of("up", "--detach", "--only", "valkey")
