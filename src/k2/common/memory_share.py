"""This process's resident set against its own limit: a setting, else that of its control group, never the machine's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.common.clock import Clock

_UNLIMITED_FROM: Final = 2**60
"""Version 1 of control groups writes a number about as large as addresses go where there is no limit."""


class ProcessMemory:
    """Measures at most once an interval; between, the last value is given."""

    def __init__(
        self,
        *,
        limit_bytes: int | None,
        interval_seconds: float,
        clock: Clock,
        resident_bytes: Callable[[], int] | None = None,
    ) -> None:
        self.limit_bytes = limit_bytes
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._resident_bytes = resident_bytes or resident_bytes_now
        self._measure_at = clock.monotonic()
        self._percent = 0.0

    def percent(self) -> float:
        """Return the resident set as a percentage of the limit; 0 where there is no limit."""
        if self.limit_bytes is None:
            return 0.0
        now = self._clock.monotonic()
        if now >= self._measure_at:
            self._measure_at = now + self._interval_seconds
            self._percent = 100 * self._resident_bytes() / self.limit_bytes
        return self._percent


def resident_bytes_now() -> int:
    """Return the resident set of this process."""
    return int(psutil.Process().memory_info().rss)


def control_group_limit_bytes(root: Path = Path("/")) -> int | None:
    """Return the least memory limit of this process's control group and those above it; None if there is none."""
    limits = []
    for line in _text_of(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            limits += _limits_up(root / "sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits_up(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")
    return min(limits, default=None)


def _limits_up(mount: Path, path: str, name: str) -> list[int]:
    """Read the limits of a group and of those above it; inside a container only the mount itself may be there."""
    group = Path(path.lstrip("/"))
    found = []
    for each in (group, *group.parents):
        text = _text_of(mount / each / name).strip()
        if text.isdecimal() and int(text) < _UNLIMITED_FROM:
            found.append(int(text))
    return found


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
