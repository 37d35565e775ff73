"""Gives freed memory back to the system, so that an idle worker is small again after a busy time."""

from __future__ import annotations

import ctypes
import threading
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable


def release_unused() -> None:
    """Return what Arrow's pool and the C library keep of freed memory; does nothing where that cannot be."""
    pa.default_memory_pool().release_unused()
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def release_every(seconds: float, stop: threading.Event) -> threading.Thread:
    """Start a thread that releases unused memory until `stop` is set."""

    def loop() -> None:
        while not stop.wait(seconds):
            release_unused()

    thread = threading.Thread(target=loop, name="k2-memory", daemon=True)
    thread.start()
    return thread
