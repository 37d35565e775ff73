"""Which files of a running broker make a log that the broker recovers as after a crash.

Segments only grow, and each batch in them has a checksum: a broker that finds no mark of a clean stop reads them all
from the recovery point on, cuts a torn tail off, and writes indexes and producer states again. So segments are copied,
and what would spare that reading is left out: with no recovery point, all of them are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from k2.common.errors import UnavailableError

_PARTITION: Final = re.compile(r".+-\d+$")
_METADATA_LOG: Final = "__cluster_metadata-0"
_OF_THE_BROKER: Final = ("meta.properties", "bootstrap.checkpoint", "log-start-offset-checkpoint")
_ATTEMPTS_MAX: Final = 5

_Copy = Callable[[Path, str], object]
"""Copies a file into the backup, to a path relative to it, in place of an earlier copy."""


def copy_log(log_dir: Path, into: str, copy: _Copy) -> None:
    """Copy the log of a broker that may be running; the cluster's own metadata comes last, so it knows all the rest.

    Raises:
        UnavailableError: a partition was cleaned or deleted faster than it could be copied.
    """
    for name in _OF_THE_BROKER:
        if (log_dir / name).exists():
            copy(log_dir / name, f"{into}/{name}")
    partitions = sorted(path for path in log_dir.iterdir() if path.is_dir() and _PARTITION.fullmatch(path.name))
    for partition in sorted(partitions, key=lambda path: path.name == _METADATA_LOG):
        _copy_partition(partition, f"{into}/{partition.name}", copy)


def _copy_partition(partition: Path, into: str, copy: _Copy) -> None:
    """Copy small files, then segments from the oldest on, then snapshots of metadata, which may not be older.

    A segment that retention or the cleaner took away meanwhile would leave a hole: then all is copied again.
    """
    for _ in range(_ATTEMPTS_MAX):
        try:
            before = dict(_identities(partition))
            for name in before:
                copy(partition / name, f"{into}/{name}")
            after = dict(_identities(partition))
        except FileNotFoundError:
            if not partition.exists():  # the topic was deleted
                return
            continue
        if all(after.get(name) == inode for name, inode in before.items() if name.endswith(".log")):
            return
    raise UnavailableError(
        f"{partition.name} changed under each of {_ATTEMPTS_MAX} copies: begin the backup again", dependency="kafka"
    )


def _identities(partition: Path) -> Iterator[tuple[str, int]]:
    """Give the files to copy in order, each with its inode."""
    small = [partition / name for name in ("partition.metadata", "leader-epoch-checkpoint", "quorum-state")]
    files = [path for path in small if path.exists()]
    files += sorted(partition.glob("*.log"))
    files += sorted(partition.glob("*.checkpoint"))
    yield from ((path.name, path.stat().st_ino) for path in files)
