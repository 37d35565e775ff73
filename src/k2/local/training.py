"""Makes the ahead-of-time caches in the background, once per user, by a short run on scratch storage.

The JVM writes such a cache when it ends, which takes 10-20 s: the platform itself must not be held up by that when
it stops, so a second, idle process of low priority does it while the first start is in use.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from k2.common.errors import K2Error
from k2.local.component import Site, UnhealthyError
from k2.local.layout import DataDirectory
from k2.local.ports import PortBook
from k2.local.processes import ChildProcess
from k2.local.state_files import FileLock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k2.common.clock import Clock
    from k2.local.component import Command, Component
    from k2.local.java import AotCache
    from k2.local.settings import LocalSettings

_NICE: Final = 19
_POLL_SECONDS: Final = 0.2
_WRITE_SECONDS_MAX: Final = 180.0


@runtime_checkable
class Trainable(Protocol):
    """A component that starts faster with an ahead-of-time cache."""

    def training_command(self, site: Site) -> Command:
        """Return a run on scratch storage that writes the cache when it ends."""
        ...

    def aot_cache(self) -> AotCache:
        """Return the cache."""
        ...


class Training:
    """One background thread that makes the caches that are missing."""

    def __init__(self, components: Sequence[Component], cache_dir: Path, settings: LocalSettings, clock: Clock) -> None:
        self._components = components
        self._cache_dir = cache_dir
        self._settings = settings
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="training", daemon=True)

    def start(self) -> None:
        """Begin, some seconds after the platform is ready."""
        self._thread.start()

    def stop(self) -> None:
        """End a run that is under way; the next start tries again."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        if self._stop.wait(self._settings.fast_start_delay_seconds):
            return
        lock = FileLock(self._cache_dir / "training.lock")
        if not lock.acquire():
            return
        try:
            for component in self._components:
                if isinstance(component, Trainable) and not component.aot_cache().exists() and not self._stop.is_set():
                    with contextlib.suppress(K2Error, OSError):  # a faster start is a comfort, never a condition
                        self._train(component, component)
        finally:
            lock.release()

    def _train(self, component: Component, trainable: Trainable) -> None:
        scratch = Path(tempfile.mkdtemp(prefix="training-", dir=self._cache_dir))
        ports = PortBook(self._cache_dir / "ports", fixed={}, remembered={})
        try:
            site = Site(DataDirectory(scratch), {name: ports.take(name) for name in component.port_names})
            command = trainable.training_command(site)
            log = site.directory.log(component.name)
            child = ChildProcess(command.words, directory=command.directory, log=log, env=command.env, nice=_NICE)
            try:
                self._await_healthy(component, site, child)
            finally:
                grace = 0.0 if self._stop.is_set() else _WRITE_SECONDS_MAX
                child.end(_Interruptible(self._clock, self._stop), grace_seconds=grace)
            if not self._stop.is_set():
                trainable.aot_cache().publish()
        finally:
            ports.close()
            shutil.rmtree(scratch, ignore_errors=True)

    def _await_healthy(self, component: Component, site: Site, child: ChildProcess) -> None:
        deadline = self._clock.monotonic() + _WRITE_SECONDS_MAX
        while child.exit_code() is None and self._clock.monotonic() < deadline and not self._stop.wait(_POLL_SECONDS):
            with contextlib.suppress(UnhealthyError):
                component.check(site, timeout_seconds=self._settings.check_timeout_seconds)
                component.after_start(site, timeout_seconds=self._settings.check_timeout_seconds)
                return


class _Interruptible:
    """A clock whose time is up once the event is set, so that waiting for the cache ends with the platform."""

    def __init__(self, clock: Clock, stop: threading.Event) -> None:
        self._clock = clock
        self._stop = stop

    def time_ns(self) -> int:
        """Return the wall time, UTC nanoseconds since 1970."""
        return self._clock.time_ns()

    def monotonic(self) -> float:
        """Return monotonic seconds, or the end of time once stopped."""
        return float("inf") if self._stop.is_set() else self._clock.monotonic()

    def sleep(self, seconds: float) -> None:
        """Pause, or return at once when stopped."""
        self._stop.wait(seconds)
