"""Puts decoded records on disk while memory is short: Arrow files of which the frames read when they are needed."""

from __future__ import annotations

import contextlib
import shutil
import threading
import weakref
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa

from k2.common.logging import get_logger
from k2.ingestion.memory import release_unused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from k2.common.clock import Clock
    from k2.ingestion.pending import Pending

log = get_logger(__name__)

_RELEASE_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 10.0
"""How long the disk is left alone after it could not be written."""


class Spill:
    """One worker's directory, empty at its start. Lanes share it.

    A file is unlinked as soon as it is mapped: its space is free once the last frame that shows it is gone, and nothing
    is left behind by a process that dies.
    """

    def __init__(
        self,
        directory: Path,
        *,
        bytes_max: int,
        clock: Clock,
        release: Callable[[], None] = release_unused,
    ) -> None:
        """Begin with nothing; what another process of this worker has left there is deleted."""
        self._directory = directory
        self._bytes_max = bytes_max
        self._clock = clock
        self._release = release
        self._lock = threading.Lock()
        self._number = 0
        self._release_at = self._try_at = clock.monotonic()
        self.nbytes = 0
        """Bytes on disk."""
        shutil.rmtree(directory, ignore_errors=True)

    def relieve(self, pending: Pending) -> None:
        """Put on disk what a batch holds, as far as there is room, and give the memory back."""
        moved = False
        if self._clock.monotonic() < self._try_at:
            return
        for part in pending.partitions.values():
            for place in range(part.spilled, len(part.frames)):
                frame = self._moved(part.frames[place])
                if frame is None:
                    break
                part.frames[place] = frame
                part.spilled = place + 1
                moved = True
        if moved and self._clock.monotonic() >= self._release_at:
            self._release_at = self._clock.monotonic() + _RELEASE_SECONDS
            self._release()

    def _moved(self, frame: pl.DataFrame) -> pl.DataFrame | None:
        size = int(frame.estimated_size())
        with self._lock:
            if self.nbytes + size > self._bytes_max:
                return None
            self.nbytes += size
            self._number += 1
            path = self._directory / f"{self._number}.arrow"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            mapped = _through(path, frame)
        except OSError as error:
            self._freed(size)
            self._try_at = self._clock.monotonic() + _PAUSE_SECONDS
            log.warning("spill_failed", path=str(path), reason=str(error), meaning="records stay in memory")
            return None
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        weakref.finalize(mapped, self._freed, size)
        return mapped

    def _freed(self, size: int) -> None:
        with self._lock:
            self.nbytes -= size


def _through(path: Path, frame: pl.DataFrame) -> pl.DataFrame:
    """Write a frame and return what the file shows of it, without a copy in memory."""
    table = frame.to_arrow(compat_level=pl.CompatLevel.newest())
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    with pa.memory_map(str(path)) as file:
        return pl.DataFrame(pl.from_arrow(pa.ipc.open_file(file).read_all(), rechunk=False))


class NoSpill:
    """Leaves everything in memory."""

    def relieve(self, pending: Pending) -> None:
        """Do nothing."""
