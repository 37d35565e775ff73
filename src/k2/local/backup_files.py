"""The files of a backup: copied and synced with their SHA-256, listed in a file that is written last."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from k2.common.errors import ConfigurationError, CorruptionError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LIST_NAME: Final = "backup.json"
VERSION: Final = 1
_CHUNK_BYTES: Final = 1024 * 1024
_SPARE_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CopiedFile:
    """One file of a backup; `path` is relative to it."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup says of itself. `facts` are for people and tests: times, seams, ends of the log."""

    root: str
    """Directory of the platform that it was taken of."""
    tables: Mapping[str, str]
    """Metadata file of each table, as the platform named it."""
    files: tuple[CopiedFile, ...]
    facts: Mapping[str, Any]


def require_empty(directory: Path, *, what: str) -> None:
    """Refuse a target that holds anything.

    Raises:
        ConfigurationError: it does; the text says what to do.
    """
    if not directory.exists():
        return
    if not directory.is_dir() or any(directory.iterdir()):
        whole = (directory / LIST_NAME).exists()
        holds = "another backup" if whole else "other files, perhaps of a backup that was interrupted"
        raise ConfigurationError(
            f"expected no or an empty directory for the {what} at {directory}, found {holds}: choose another, or "
            "delete it first"
        )


def require_space(directory: Path, needed_bytes: int) -> None:
    """Refuse to begin where the disk has too little space."""
    nearest = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    if free < needed_bytes + _SPARE_BYTES:
        raise ConfigurationError(
            f"expected {(needed_bytes + _SPARE_BYTES) // 2**20} MiB free for {directory}, found {free // 2**20}: free "
            "some space, or choose another directory"
        )


def copy_file(source: Path, target: Path, *, mode: int | None = None) -> tuple[int, str, int]:
    """Copy a file as far as it reaches now, and sync it; return its size, SHA-256 and CRC32."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size, checksum = hashlib.sha256(), 0, 0
    with source.open("rb") as reading, target.open("xb") as writing:
        if mode is not None:
            os.fchmod(writing.fileno(), mode)
        while chunk := reading.read(_CHUNK_BYTES):
            digest.update(chunk)
            checksum = zlib.crc32(chunk, checksum)
            size += len(chunk)
            writing.write(chunk)
        writing.flush()
        os.fsync(writing.fileno())
    return size, digest.hexdigest(), checksum


def write_list(directory: Path, backup: Backup) -> None:
    """Write the list of a backup whose files are all there: from now on it is a whole one."""
    for path in sorted({(directory / file.path).parent for file in backup.files}):
        _sync(path)
    body = {"v": VERSION, **asdict(backup)}
    text = json.dumps({**body, "sha256": _digest(body)}, indent=1)
    temporary = directory / f"{LIST_NAME}.new"
    with temporary.open("x", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(directory / LIST_NAME)
    _sync(directory)


def read_list(directory: Path) -> Backup:
    """Return what a backup says of itself.

    Raises:
        ConfigurationError: there is none, it was interrupted, or another version wrote it.
        CorruptionError: the list is damaged.
    """
    path = directory / LIST_NAME
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        told = body.pop("sha256")
        version = body["v"]
    except FileNotFoundError:
        raise ConfigurationError(
            f"expected a whole backup at {directory}, found no {LIST_NAME}, which is written last: the backup was "
            "interrupted, or this is none"
        ) from None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CorruptionError(f"{path} is damaged: {error!r}; use another backup", path=str(path)) from error
    if version != VERSION:
        raise ConfigurationError(f"expected a backup of version {VERSION} at {directory}, found version {version}")
    if told != _digest(body):
        raise CorruptionError(f"{path} is damaged: its checksum does not fit; use another backup", path=str(path))
    files = tuple(CopiedFile(**entry) for entry in body["files"])
    return Backup(body["root"], body["tables"], files, body["facts"])


def check_files(directory: Path, backup: Backup) -> None:
    """Read every file of a backup, and compare it with the list.

    Raises:
        CorruptionError: one is missing or not what was copied; the text names the first, and how many more.
    """
    bad = [problem for file in backup.files if (problem := _problem(directory / file.path, file)) is not None]
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise CorruptionError(f"the backup is damaged: {bad[0]}{more}: use another backup", path=bad[0].split(":")[0])


def _problem(path: Path, file: CopiedFile) -> str | None:
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as reading:
            while chunk := reading.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        return f"{path}: {error.strerror}"
    if size != file.size:
        return f"{path}: expected {file.size} bytes, found {size}"
    return None if digest.hexdigest() == file.sha256 else f"{path}: its SHA-256 is not the recorded one"


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
