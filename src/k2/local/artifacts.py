"""The Java programs of the platform: downloaded once per user, checked against the packaged lock file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, Protocol

from k2.common.errors import ConfigurationError, UnavailableError
from k2.local.state_files import FileLock, file_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOCK_FILE: Final = "components.lock.json"
CACHE_REMEDY: Final = "set XDG_CACHE_HOME to another place"
_COMPLETE: Final = ".complete"
_KEEP_FREE: Final = 3  # archive, what is in it, and some room


@dataclass(frozen=True)
class LockedFile:
    """One file of a Maven repository and what it must contain."""

    coordinate: str
    packaging: str
    classifier: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Return the file's name, unique within a component."""
        group, artifact, version = self.coordinate.split(":")
        suffix = f"-{self.classifier}" if self.classifier else ""
        return f"{group}.{artifact}-{version}{suffix}.{self.packaging}"


@dataclass(frozen=True)
class LockedComponent:
    """One program: its version and all its files."""

    name: str
    version: str
    files: tuple[LockedFile, ...]

    @property
    def fingerprint(self) -> str:
        """Return a short name for exactly these files."""
        text = "\n".join(file.sha256 for file in self.files)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def size(self) -> int:
        """Return the bytes to download."""
        return sum(file.size for file in self.files)


class Fetch(Protocol):
    """Download one file below `into`, telling the bytes as they arrive, and return where it is."""

    def __call__(self, file: LockedFile, into: Path, progress: Callable[[int], None]) -> Path:
        """Return the path of the downloaded file."""
        ...


def locked_components(package: str = "k2.local", lock_file: str = LOCK_FILE) -> dict[str, LockedComponent]:
    """Return what a packaged lock file names, by component."""
    values = json.loads((resources.files(package) / lock_file).read_text(encoding="utf-8"))
    return {
        name: LockedComponent(
            name,
            entry["version"],
            tuple(
                LockedFile(f["coordinate"], f["packaging"], f.get("classifier", ""), f["bytes"], f["sha256"])
                for f in entry["files"]
            ),
        )
        for name, entry in values["components"].items()
    }


class ArtifactCache:
    """The installed components of this user, shared by all platforms."""

    def __init__(self, root: Path, fetch: Fetch, *, threads: int, attempts_max: int) -> None:
        self.root = root
        self._fetch = fetch
        self._threads = threads
        self._attempts_max = attempts_max

    def install(self, component: LockedComponent, progress: Callable[[int, int], None]) -> Path:
        """Return the directory of the component, after downloading it if it is not there whole.

        `progress` hears (bytes so far, bytes in all).

        Raises:
            UnavailableError: the download failed.
            ConfigurationError: a file is not what the lock file says, or the cache cannot be written.
        """
        home = self.root / "components" / f"{component.name}-{component.version}-{component.fingerprint}"
        if _is_whole(home):
            return home
        with file_errors(self.root, instead=CACHE_REMEDY), FileLock(self.root / f"{component.name}.lock"):
            if not _is_whole(home):
                self._require_space(component)
                self._install(component, home, progress)
        return home

    def _require_space(self, component: LockedComponent) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if free < component.size * _KEEP_FREE:
            raise ConfigurationError(
                f"expected {component.size * _KEEP_FREE // 2**20} MiB free in {self.root} to install {component.name}, "
                f"found {free // 2**20}: free some space, or set XDG_CACHE_HOME to a larger disk"
            )

    def _install(self, component: LockedComponent, home: Path, progress: Callable[[int, int], None]) -> None:
        downloads = self.root / "downloads" / f"{component.name}-{component.fingerprint}"
        staging = home.with_name(home.name + ".new")
        for leftover in (staging, home):
            shutil.rmtree(leftover, ignore_errors=True)
        staging.mkdir(parents=True)
        arrived = _Arrivals(component.size, progress)
        with ThreadPoolExecutor(self._threads, thread_name_prefix="download") as pool:
            paths = list(pool.map(lambda file: self._download(file, downloads, arrived), component.files))
        for file, path in zip(component.files, paths, strict=True):
            if file.packaging == "tar.gz":
                _extract(path, staging)
            else:
                path.replace(staging / file.name)
        (staging / _COMPLETE).write_text(json.dumps(_sizes(staging)), encoding="utf-8")
        staging.rename(home)
        shutil.rmtree(downloads, ignore_errors=True)

    def _download(self, file: LockedFile, downloads: Path, arrived: _Arrivals) -> Path:
        """Return the checked file; what an earlier, interrupted run left is used if it is whole."""
        found = ""
        for _ in range(self._attempts_max):
            with arrived.one(file) as progress:
                path = self._fetch(file, downloads, progress)
            found = _sha256(path)
            if found == file.sha256:
                return path
            path.unlink()
        raise ConfigurationError(
            f"expected SHA-256 {file.sha256} for {file.coordinate}, found {found}: "
            "the repository or a proxy in between sends another file; do not use it"
        )


class _Arrivals:
    """Adds up the bytes of several downloads for one progress report."""

    def __init__(self, total: int, report: Callable[[int, int], None]) -> None:
        self._total = total
        self._report = report
        self._bytes: dict[str, int] = {}

    @contextlib.contextmanager
    def one(self, file: LockedFile) -> Iterator[Callable[[int], None]]:
        """Yield the progress function of one file, which starts again from nothing at each attempt."""
        self._bytes[file.name] = 0

        def progress(count: int) -> None:
            self._bytes[file.name] += count
            self._report(min(sum(list(self._bytes.values())), self._total), self._total)

        yield progress
        self._bytes[file.name] = file.size
        progress(0)


def fetch_with_jgo(timeout_seconds: int) -> Fetch:
    """Return a fetch from the Maven repositories that jgo knows, its own configuration file included."""

    def fetch(file: LockedFile, into: Path, progress: Callable[[int], None]) -> Path:
        import requests  # noqa: PLC0415  # half a second of imports, needed at the first run only
        from jgo.config import GlobalSettings  # noqa: PLC0415  # the same
        from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415  # the same

        @contextlib.contextmanager
        def report(_name: str, _size: int) -> Iterator[Callable[[int], None]]:
            yield progress

        mirrors = GlobalSettings.load().repositories
        context = MavenContext(
            PythonResolver(progress_callback=report),
            repo_cache=into,
            remote_repos=mirrors or None,
            timeout=timeout_seconds,
        )
        group, artifact, version = file.coordinate.split(":")
        locked = context.project(group, artifact).at_version(version).artifact(file.classifier, file.packaging)
        try:
            return Path(locked.resolve())
        except (requests.RequestException, RuntimeError) as error:
            if locked.cached_path is not None:
                locked.cached_path.unlink(missing_ok=True)
            raise UnavailableError(
                f"cannot download {file.coordinate} ({_cause(error)}): the first start needs the network; check the "
                "connection and any proxy (HTTPS_PROXY), then run it again; what has arrived is kept",
                dependency="Maven repository",
            ) from error

    return fetch


def _cause(error: Exception) -> str:
    """Return why a download failed, in words and without the repository's address."""
    text = str(error)
    for sign, words in (
        ("resolution", "the repository's name cannot be resolved"),
        ("resolve", "the repository's name cannot be resolved"),
        ("proxy", "the proxy refuses"),
        ("timed out", "no answer in time"),
        ("refused", "the connection was refused"),
        ("CERTIFICATE", "the certificate is not trusted"),
        ("not found in remote", "the repository does not have it"),
        ("unreachable", "the network cannot be reached"),
    ):
        if sign.lower() in text.lower():
            return words
    return type(error).__name__


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _extract(archive: Path, into: Path) -> None:
    """Unpack plain files only, each inside `into`."""
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            if not member.isfile():
                continue
            if name.is_absolute() or ".." in name.parts:
                raise ConfigurationError(
                    f"expected relative names in {archive.name}, found {member.name!r}: do not use it"
                )
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            if source is not None:
                with source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, 1024 * 1024)


def _sizes(home: Path) -> dict[str, int]:
    return {str(p.relative_to(home)): p.stat().st_size for p in sorted(home.rglob("*")) if p.is_file()}


def _is_whole(home: Path) -> bool:
    """Say whether every file that was installed is still there in its full size."""
    try:
        expected = json.loads((home / _COMPLETE).read_text(encoding="utf-8"))
        return all((home / name).stat().st_size == size for name, size in expected.items())
    except (OSError, ValueError):
        return False
