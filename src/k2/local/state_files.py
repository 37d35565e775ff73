"""The small files of a platform: written whole or not at all, read with a clear error when they are damaged."""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
from typing import TYPE_CHECKING, Any, Self

from k2.common.errors import ConfigurationError
from k2.local.layout import MARKER_TEXT, DataDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_KNOWN_ENTRIES = frozenset({".k2-data", "k2.toml", "run", "logs", "api-key", ".env"})


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Replace the file by these values in one step."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the values of the file; None if there is none.

    Raises:
        ConfigurationError: the file is damaged.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise ConfigurationError(
            f"expected JSON in {path}, found something else ({error}): "
            "end the platform if it runs, delete the file, and start again"
        ) from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"expected a JSON object in {path}, found {type(values).__name__}: delete the file")
    return values


def read_json_or_empty(path: Path) -> dict[str, Any]:
    """Return the values of a file that only remembers; a damaged one is the same as none."""
    try:
        return read_json(path) or {}
    except ConfigurationError:
        return {}


@contextlib.contextmanager
def file_errors(root: Path, *, instead: str = "choose another --data-dir") -> Iterator[None]:
    """Turn the system's errors about a directory into one that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ConfigurationError(f"no space is left for {root}: free some, or {instead}") from error
        raise ConfigurationError(
            f"expected a directory that can be written at {root}, found: {error.strerror} ({error.filename}): "
            f"check its permissions, or {instead}"
        ) from error


def claim(directory: DataDirectory, *, free_bytes: int, free_bytes_min: int) -> None:
    """Make the data directory and mark it as K2's; refuse a directory that holds other things.

    Raises:
        ConfigurationError: the directory cannot be used.
    """
    if free_bytes < free_bytes_min:
        raise ConfigurationError(
            f"expected {free_bytes_min // 2**20} MiB free for {directory.root}, found {free_bytes // 2**20}: "
            "free some space, or choose another --data-dir"
        )
    with file_errors(directory.root):
        directory.root.mkdir(parents=True, exist_ok=True)
        if not directory.marker.exists():
            strange = sorted(entry.name for entry in directory.root.iterdir() if entry.name not in _KNOWN_ENTRIES)
            if strange:
                raise ConfigurationError(
                    f"expected an empty or a K2 data directory at {directory.root}, found {strange[0]!r}: "
                    "choose another --data-dir"
                )
        for path in (directory.run, directory.logs):
            path.mkdir(exist_ok=True)
        directory.marker.write_text(MARKER_TEXT, encoding="utf-8")


def claim_with_space(directory: DataDirectory, free_bytes_min: int) -> None:
    """Claim the directory if its disk has enough space left."""
    with file_errors(directory.root):
        nearest = next(path for path in (directory.root, *directory.root.parents) if path.exists())
        free = shutil.disk_usage(nearest).free
    claim(directory, free_bytes=free, free_bytes_min=free_bytes_min)


def api_key(directory: DataDirectory) -> str:
    """Return the API key of this platform, made at the first call; only its owner can read the file."""
    with file_errors(directory.root):
        with contextlib.suppress(FileNotFoundError):
            key = directory.key_file.read_text(encoding="utf-8").strip()
            if key:
                return key
        secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        key = f"k2_{secrets.token_hex(4)}_{secret}"
        temporary = directory.key_file.with_name("api-key.new")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(key + "\n")
        temporary.replace(directory.key_file)
        return key


class FileLock:
    """A lock that ends with its process, however that ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self, *, wait: bool = False) -> bool:
        """Take the lock; without `wait`, say False if somebody else holds it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def write(self, text: str) -> None:
        """Say in the file who holds it."""
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text.encode(), 0)

    def release(self) -> None:
        """Let go."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire(wait=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
