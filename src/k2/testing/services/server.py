"""One server process of a test: installed from the lock file, started on a free loopback port, ended within a bound."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from k2.common.clock import SystemClock
from k2.common.errors import UnavailableError
from k2.local.artifacts import ArtifactCache, fetch_with_jgo, locked_components
from k2.local.layout import user_cache_directory
from k2.local.ports import HOST
from k2.local.processes import ChildProcess
from k2.local.settings import LocalSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

LOCK_FILE: Final = "services.lock.json"
_START_SECONDS_MAX: Final = 60.0
_STOP_SECONDS_MAX: Final = 10.0
_PAUSE_SECONDS: Final = 0.05


def install(name: str, progress: Callable[[int, int], None]) -> Path:
    """Return the directory of a service's files, downloaded once per user; UnavailableError without a network."""
    settings = LocalSettings()
    cache = ArtifactCache(
        user_cache_directory(None),
        fetch_with_jgo(settings.download_timeout_seconds),
        threads=settings.download_threads,
        attempts_max=settings.download_attempts_max,
    )
    return cache.install(locked_components(__package__, LOCK_FILE)[name], progress)


def free_port() -> int:
    """Return a loopback port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Server:
    """A process that answers on one loopback port; it can be stopped, killed and started again on the same port."""

    def __init__(self, name: str, command: Sequence[str], directory: Path, port: int) -> None:
        self._name = name
        self._command = tuple(command)
        self._directory = directory
        self._clock = SystemClock()
        self._process: ChildProcess | None = None
        self.port = port
        self.log = directory / f"{name}.log"

    def start(self, answers: Callable[[], bool]) -> None:
        """Start it, and wait until it answers.

        Raises:
            UnavailableError: it ended, or did not answer in time; the text has the end of its log.
        """
        self._process = ChildProcess(self._command, directory=self._directory, log=self.log, env=_PLAIN, nice=0)
        deadline = self._clock.monotonic() + _START_SECONDS_MAX
        while not answers():
            if self._process.exit_code() is not None or self._clock.monotonic() > deadline:
                end = self.log.read_text(encoding="utf-8", errors="replace")[-1500:]
                self.stop()
                raise UnavailableError(f"{self._name} did not start: {end}", dependency=self._name)
            self._clock.sleep(_PAUSE_SECONDS)

    @property
    def pid(self) -> int:
        """Return the number of the process."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: int) -> None:
        """Send a signal to it."""
        if self._process is not None:
            self._process.signal(number)

    def stop(self, *, grace_seconds: float = _STOP_SECONDS_MAX) -> None:
        """End it: asked first, killed after `grace_seconds`."""
        if self._process is not None:
            self._process.end(self._clock, grace_seconds=grace_seconds)
            self._process = None


_PLAIN: Final = {"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}


def accepts(port: int) -> bool:
    """Say whether something accepts connections on the port."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True
