"""Downloads: checked against the lock file, resumed, and installed whole or not at all."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

from k2.common.errors import ConfigurationError, UnavailableError
from k2.local.artifacts import ArtifactCache, LockedComponent, LockedFile, _cause, locked_components


def _locked(name: str, content: bytes, packaging: str = "jar") -> LockedFile:
    return LockedFile(f"org.k2:{name}:1", packaging, "", len(content), hashlib.sha256(content).hexdigest())


class FakeRepository:
    """Gives out contents by coordinate, in the order listed; counts what was asked for."""

    def __init__(self, **contents: list[bytes | Exception]) -> None:
        self.contents = contents
        self.asked: list[str] = []

    def __call__(self, file, into, progress):
        name = file.coordinate.split(":")[1]
        self.asked.append(name)
        path = into / f"{name}.{file.packaging}"
        if path.exists():
            return path
        content = self.contents[name].pop(0)
        if isinstance(content, Exception):
            raise content
        into.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        progress(len(content))
        return path


def _cache(tmp_path, repository):
    return ArtifactCache(tmp_path, repository, threads=1, attempts_max=2)


def _ignore(done: int, total: int) -> None:
    pass


def test_all_files_are_installed_and_then_never_asked_for_again(tmp_path):
    component = LockedComponent("kafka", "1", (_locked("a", b"aa"), _locked("b", b"bbb")))
    repository = FakeRepository(a=[b"aa"], b=[b"bbb"])
    heard: list[tuple[int, int]] = []

    home = _cache(tmp_path, repository).install(component, lambda *report: heard.append(report))
    again = _cache(tmp_path, repository).install(component, _ignore)

    assert home == again
    assert sorted(path.name for path in home.glob("*.jar")) == ["org.k2.a-1.jar", "org.k2.b-1.jar"]
    assert repository.asked == ["a", "b"]
    assert heard[-1] == (5, 5)


def test_a_file_cut_short_is_downloaded_again(tmp_path):
    component = LockedComponent("kafka", "1", (_locked("a", b"aa"),))

    home = _cache(tmp_path, FakeRepository(a=[b"a", b"aa"])).install(component, _ignore)

    assert (home / "org.k2.a-1.jar").read_bytes() == b"aa"


def test_a_file_with_other_contents_is_refused_and_nothing_is_installed(tmp_path):
    component = LockedComponent("kafka", "1", (_locked("a", b"aa"),))

    with pytest.raises(ConfigurationError, match=r"expected SHA-256 .* for org.k2:a:1, found"):
        _cache(tmp_path, FakeRepository(a=[b"xx", b"xx"])).install(component, _ignore)
    assert not list((tmp_path / "components").glob("*/.complete"))


def test_an_interrupted_download_goes_on_with_what_has_arrived(tmp_path):
    component = LockedComponent("kafka", "1", (_locked("a", b"aa"), _locked("b", b"b")))
    down = UnavailableError("no network", dependency="Maven repository")
    with pytest.raises(UnavailableError):
        _cache(tmp_path, FakeRepository(a=[b"aa"], b=[down])).install(component, _ignore)

    _cache(tmp_path, FakeRepository(a=[], b=[b"b"])).install(component, _ignore)


def test_a_damaged_installation_is_made_again(tmp_path):
    component = LockedComponent("kafka", "1", (_locked("a", b"aa"),))
    repository = FakeRepository(a=[b"aa", b"aa"])
    home = _cache(tmp_path, repository).install(component, _ignore)
    (home / "org.k2.a-1.jar").write_bytes(b"")

    _cache(tmp_path, repository).install(component, _ignore)

    assert (home / "org.k2.a-1.jar").read_bytes() == b"aa"


def _archive(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 2
        tar.addfile(member, io.BytesIO(b"aa"))
    return buffer.getvalue()


def test_an_archive_is_unpacked(tmp_path):
    content = _archive("lib/a.jar")
    component = LockedComponent("registry", "1", (_locked("a", content, "tar.gz"),))

    home = _cache(tmp_path, FakeRepository(a=[content])).install(component, _ignore)

    assert (home / "lib" / "a.jar").read_bytes() == b"aa"


@pytest.mark.parametrize("name", ["../outside", "/outside"])
def test_an_archive_that_reaches_outside_is_refused(tmp_path, name):
    content = _archive(name)
    component = LockedComponent("registry", "1", (_locked("a", content, "tar.gz"),))

    with pytest.raises(ConfigurationError, match="relative names"):
        _cache(tmp_path, FakeRepository(a=[content])).install(component, _ignore)


def test_the_servers_of_tests_are_locked_in_the_same_way():
    components = locked_components("k2.testing.services", "services.lock.json")

    assert sorted(components) == ["postgres", "rest-catalog", "s3proxy"]
    assert all(len(file.sha256) == 64 and file.size > 0 for c in components.values() for file in c.files)


def test_the_packaged_lock_file_names_every_file_and_no_address():
    components = locked_components()

    assert components["kafka"].version == "4.3.1"
    assert components["registry"].version == "3.3.3"
    assert all(len(file.sha256) == 64 and file.size > 0 for c in components.values() for file in c.files)
    assert len({file.name for file in components["kafka"].files}) == 46


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Failed to resolve 'host' (Temporary failure in name resolution)", "cannot be resolved"),
        ("not found in remote repositories {'x': 'https://host/path'}", "does not have it"),
        ("something at https://host", "RuntimeError"),
    ],
)
def test_the_cause_of_a_failed_download_is_in_words_and_without_an_address(text, words):
    cause = _cause(RuntimeError(text))

    assert words in cause
    assert "host" not in cause
