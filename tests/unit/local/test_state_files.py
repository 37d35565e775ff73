"""The small files of a platform, whole or refused."""

from __future__ import annotations

import stat

import pytest

from k2.common.errors import ConfigurationError
from k2.local.layout import DataDirectory, cache_directory
from k2.local.state_files import FileLock, api_key, claim, claim_with_space, read_json, read_json_or_empty, write_json


@pytest.fixture
def directory(tmp_path):
    return DataDirectory(tmp_path / "data")


def _claim(directory):
    claim(directory, free_bytes=10, free_bytes_min=1)


def test_values_written_are_read_again(tmp_path):
    write_json(tmp_path / "x.json", {"a": [1]})

    assert read_json(tmp_path / "x.json") == {"a": [1]}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("text", ["{", "", "[1]", "\udc00".encode("utf-8", "surrogatepass").decode("latin-1")])
def test_a_damaged_file_is_one_clear_error(tmp_path, text):
    path = tmp_path / "platform.json"
    path.write_text(text, encoding="latin-1")

    with pytest.raises(ConfigurationError, match=r"platform\.json.*delete the file"):
        read_json(path)
    assert read_json_or_empty(path) == {}


def test_an_empty_directory_becomes_a_data_directory(directory):
    _claim(directory)

    assert directory.marker.is_file()
    assert directory.run.is_dir()


def test_a_directory_with_only_a_settings_file_is_accepted(directory):
    directory.root.mkdir()
    directory.settings_file.write_text("")

    _claim(directory)

    assert directory.marker.is_file()


def test_a_directory_with_other_things_is_refused_and_left_alone(directory):
    directory.root.mkdir()
    (directory.root / "thesis.tex").write_text("x")

    with pytest.raises(ConfigurationError, match=r"thesis\.tex.*another --data-dir"):
        _claim(directory)
    assert [path.name for path in directory.root.iterdir()] == ["thesis.tex"]


def test_a_full_disk_is_refused_before_anything_is_made(directory):
    with pytest.raises(ConfigurationError, match="256 MiB free"):
        claim(directory, free_bytes=5 * 2**20, free_bytes_min=256 * 2**20)
    assert not directory.root.exists()


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("x")

    with pytest.raises(ConfigurationError, match=r"can be written.*another --data-dir"):
        claim_with_space(DataDirectory(tmp_path / "file" / "data"), 0)


def test_the_key_is_made_once_and_only_its_owner_can_read_it(directory):
    _claim(directory)

    key = api_key(directory)

    assert api_key(directory) == key
    prefix, public_id, secret = key.split("_", 2)
    assert (prefix, len(public_id), len(secret)) == ("k2", 8, 43)
    assert stat.S_IMODE(directory.key_file.stat().st_mode) == 0o600


def test_a_lock_has_one_holder(tmp_path):
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")

    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


def test_a_relative_data_directory_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert DataDirectory.at(tmp_path.__class__("x")).root == tmp_path / "x"


def test_the_cache_follows_the_users_desktop(tmp_path):
    home = tmp_path

    assert cache_directory(None, home=home, xdg_cache_home=None) == home / ".cache" / "k2"
    assert cache_directory(None, home=home, xdg_cache_home="relative") == home / ".cache" / "k2"
    assert cache_directory(None, home=home, xdg_cache_home="/c") == home.__class__("/c/k2")
    assert cache_directory(home / "own", home=home, xdg_cache_home="/c") == home / "own"
