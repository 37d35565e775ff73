"""The components' log files: bounded in size, and readable from the end."""

from __future__ import annotations

import contextlib
import shutil
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from k2.common.clock import Clock

_TAIL_BYTES = 256 * 1024


def turn_over(log: Path, bytes_max: int) -> bool:
    """Move a log that has grown too large to `.1`, replacing the one before; say whether it did.

    The component keeps its file open, so the contents are copied and the file is cut; what is written in between is
    lost, which a log can bear. With the supervisor out of the way of the bytes, it can never hold a component up.
    """
    try:
        if log.stat().st_size <= bytes_max:
            return False
        shutil.copyfile(log, log.with_name(log.name + ".1"))
        with log.open("r+b") as file:
            file.truncate(0)
    except FileNotFoundError:
        return False
    except OSError:
        with contextlib.suppress(OSError), log.open("r+b") as file:
            file.truncate(0)
    return True


def last_lines(log: Path, count: int) -> list[str]:
    """Return the last lines of a log; none if there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            return [line.decode("utf-8", "replace").rstrip("\n") for line in deque(file, maxlen=count)]
    except OSError:
        return []


def follow(logs: dict[str, Path], clock: Clock, *, pause_seconds: float = 0.2) -> Iterator[tuple[str, str]]:
    """Yield (component, line) for what is written from now on; never ends by itself."""
    positions = {name: log.stat().st_size if log.exists() else 0 for name, log in logs.items()}
    while True:
        quiet = True
        for name, log in logs.items():
            for line in _new_lines(log, name, positions):
                quiet = False
                yield name, line
        if quiet:
            clock.sleep(pause_seconds)


def _new_lines(log: Path, name: str, positions: dict[str, int]) -> Iterator[str]:
    try:
        size = log.stat().st_size
    except FileNotFoundError:
        return
    if size < positions[name]:  # it was turned over
        positions[name] = 0
    if size == positions[name]:
        return
    with log.open("rb") as file:
        file.seek(positions[name])
        yield from _whole_lines(file, name, positions)


def _whole_lines(file: BinaryIO, name: str, positions: dict[str, int]) -> Iterator[str]:
    for line in file:
        if not line.endswith(b"\n"):
            return
        positions[name] += len(line)
        yield line.decode("utf-8", "replace").rstrip("\n")
