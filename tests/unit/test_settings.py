"""Settings are read once, in order, and a wrong one names itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2.common.errors import ConfigurationError
from k2.settings import load_settings, variable_name


def test_the_environment_beats_the_settings_file(tmp_path: Path) -> None:
    (tmp_path / "k2.toml").write_text('log_level = "WARNING"\n[kafka]\nbootstrap_servers = "file:1"\n')

    settings = load_settings(tmp_path, environ={"K2_KAFKA__BOOTSTRAP_SERVERS": "environment:1"})

    assert settings.kafka.bootstrap_servers == "environment:1"
    assert settings.log_level == "WARNING"


def test_the_settings_file_beats_what_the_platform_found_free(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "endpoints.json").write_text(
        '{"kafka": {"bootstrap_servers": "platform:1"}, "api": {"port": 8123}}'
    )
    (tmp_path / "k2.toml").write_text('[kafka]\nbootstrap_servers = "file:1"\n')

    settings = load_settings(tmp_path, environ={})

    assert settings.kafka.bootstrap_servers == "file:1"
    assert settings.api.port == 8123


def test_a_platform_without_other_settings_keeps_its_tables_in_its_data_directory(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, environ={})

    assert settings.catalog.uri == f"sqlite:///{tmp_path}/catalog.db"
    assert settings.catalog.warehouse == f"file://{tmp_path}/warehouse"


def test_the_data_directory_comes_from_the_environment_and_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    settings = load_settings(environ={"K2_DATA_DIR": "elsewhere"})

    assert settings.data_dir == tmp_path / "elsewhere"


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, environ={})

    with pytest.raises(ValueError, match="frozen"):
        settings.log_level = "DEBUG"  # type: ignore[misc]  # the assignment is what is tested


def test_secrets_do_not_print(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, environ={"K2_VALKEY__URL": "redis://:hunter2@127.0.0.1:1/0"})

    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"K2_KAFKA__BOOTSTRAP_SERVER": "x:1"}, "K2_KAFKA__BOOTSTRAP_SERVER"),
        ({"K2_KAFAK__BOOTSTRAP_SERVERS": "x:1"}, "K2_KAFAK"),
        ({"K2_API__PORT": "eighty"}, "K2_API__PORT"),
        ({"K2_API__PORT": "0"}, "K2_API__PORT"),
        ({"K2_LOG_LEVEL": "LOUD"}, "K2_LOG_LEVEL"),
        ({"K2_KAFKA": "x", "K2_KAFKA__BOOTSTRAP_SERVERS": "x:1"}, "K2_KAFKA"),
    ],
)
def test_a_wrong_variable_stops_with_its_name(tmp_path: Path, environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        load_settings(tmp_path, environ=environ)


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("k2.toml", b"[kafka\n", "expected TOML"),
        ("k2.toml", b"\xff\xfe", "UTF-8"),
        ("k2.toml", b"[kafka]\nunknown_thing = 1\n", "K2_KAFKA__UNKNOWN_THING"),
        ("run/endpoints.json", b"{half", "expected JSON"),
        ("run/endpoints.json", b"[]", "expected a JSON object"),
    ],
)
def test_a_corrupt_file_is_named(tmp_path: Path, file: str, content: bytes, expected: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / file).write_bytes(content)

    with pytest.raises(ConfigurationError, match=expected):
        load_settings(tmp_path, environ={})


def test_a_named_settings_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="K2_SETTINGS_FILE"):
        load_settings(tmp_path, environ={"K2_SETTINGS_FILE": str(tmp_path / "absent.toml")})


def test_a_directory_in_the_place_of_the_settings_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "k2.toml").mkdir()

    with pytest.raises(ConfigurationError, match=r"k2\.toml"):
        load_settings(tmp_path, environ={})


def test_the_name_of_a_variable_follows_from_the_path() -> None:
    assert variable_name(("kafka", "bootstrap_servers")) == "K2_KAFKA__BOOTSTRAP_SERVERS"
