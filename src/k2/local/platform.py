"""A whole platform on this machine, as a value to start and stop: `with LocalPlatform(directory) as platform: ...`."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from k2.common.clock import Clock, SystemClock
from k2.common.errors import ConfigurationError, K2Error, UnavailableError
from k2.local.artifacts import CACHE_REMEDY
from k2.local.assembly import SERVICES, build_components
from k2.local.component import ComponentStatus, Site, State
from k2.local.description import PlatformDescription, orphans, read_description, running_supervisor, to_json
from k2.local.layout import DataDirectory, user_cache_directory
from k2.local.ports import USUAL, PortBook
from k2.local.processes import end_orphan, identify
from k2.local.settings import LocalSettings
from k2.local.state_files import FileLock, api_key, claim_with_space, file_errors, read_json_or_empty, write_json
from k2.local.supervisor import Supervisor
from k2.local.training import Training
from k2.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

_ORPHAN_GRACE_SECONDS: Final = 5.0
_DOWNLOAD_REPORT_SECONDS: Final = 0.25
_POLL_SECONDS: Final = 0.05
_DYING_SECONDS: Final = 2.0


class LocalPlatform:
    """The components of one data directory, supervised by this process.

    `components` are names of `k2.local.assembly.KNOWN`; by default the broker, the registry and Valkey, without the
    processes of K2 itself. All state stays in `data_dir`; starting it again continues.
    """

    def __init__(
        self,
        data_dir: Path | str,
        *,
        components: Sequence[str] = SERVICES,
        settings: LocalSettings | None = None,
        simulator_arguments: tuple[str, ...] = (),
        clock: Clock | None = None,
        observe: Callable[[ComponentStatus], None] = lambda _: None,
    ) -> None:
        self.directory = DataDirectory.at(Path(data_dir))
        self._settings = settings or LocalSettings()
        self._clock = clock or SystemClock()
        self._observe = observe
        self._cache_dir = user_cache_directory(self._settings.cache_dir)
        self._components = build_components(
            components, self._settings, self._cache_dir, simulator_arguments=simulator_arguments
        )
        self._lock = FileLock(self.directory.lock)
        self._ports: PortBook | None = None
        self._supervisor: Supervisor | None = None
        self._training: Training | None = None
        self._stage = "starting"
        self._error = ""
        self._writing = threading.Lock()
        self._reported: dict[str, tuple[ComponentStatus, float]] = {}

    def __enter__(self) -> Self:
        """Start and wait until every component is healthy."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; nothing is left running."""
        self.stop()

    def start(self, cancelled: threading.Event | None = None) -> bool:
        """Start everything and wait until it is healthy; False if `cancelled` was set first, and then all is ended.

        Raises:
            ConfigurationError: the directory, a port or a setting cannot be used, or another supervisor runs here.
            UnavailableError: a download failed, or a component does not come up.
        """
        self._own_directory()
        try:
            self._begin()
            assert self._supervisor is not None
            ready = self._supervisor.wait_ready(cancelled or threading.Event())
        except K2Error as error:
            self._error = str(error)
            self.stop(stage="failed")
            raise
        except BaseException:
            self.stop()
            raise
        if not ready:
            self.stop()
            return False
        self._stage = "ready"
        self._write_description()
        self._train()
        return True

    def stop(self, *, stage: str = "stopped") -> None:
        """End everything in order and let go of the directory; calling it twice does nothing."""
        if self._training is not None:
            self._training.stop()
        if self._supervisor is not None:
            self._stage = "stopping"
            self._supervisor.stop()
        if self._ports is not None:
            self._stage = stage
            self._write_description()
            with file_errors(self.directory.root):
                write_json(self.directory.endpoints_file, {"catalog": self.directory.catalog()})
            self._ports.close()
        self._supervisor = self._ports = self._training = None
        self._lock.release()

    def settings(self) -> Settings:
        """Return the settings that lead to this platform."""
        return load_settings(self.directory.root)

    def statuses(self) -> tuple[ComponentStatus, ...]:
        """Return what is known of each component now."""
        return () if self._supervisor is None else self._supervisor.statuses()

    def status(self, name: str) -> ComponentStatus:
        """Return what is known of one component now."""
        return next(status for status in self.statuses() if status.name == name)

    def kill(self, name: str, number: int = 9) -> None:
        """Send a signal to a component, SIGKILL by default; the supervisor starts again what dies."""
        assert self._supervisor is not None
        self._supervisor.signal(name, number)

    def wait_restarted(self, name: str, *, restarts: int = 1, timeout_seconds: float = 60.0) -> ComponentStatus:
        """Wait until a component is healthy after at least so many restarts."""
        deadline = self._clock.monotonic() + timeout_seconds
        while True:
            status = self.status(name)
            if status.restarts >= restarts and status.state is State.HEALTHY:
                return status
            if self._clock.monotonic() > deadline:
                raise UnavailableError(f"{name} is {status.state} ({status.detail})", dependency=name)
            self._clock.sleep(_POLL_SECONDS)

    def _acquired(self) -> bool:
        """Take the lock; one that was killed a moment ago holds it until its last thread has ended."""
        deadline = self._clock.monotonic() + _DYING_SECONDS
        with file_errors(self.directory.root):
            while not self._lock.acquire():
                if self._clock.monotonic() > deadline:
                    return False
                self._clock.sleep(_POLL_SECONDS)
        return True

    def _own_directory(self) -> None:
        """Take the directory for this process, and end what an earlier supervisor left running."""
        claim_with_space(self.directory, self._settings.free_bytes_min)
        if not self._acquired():
            holder = running_supervisor(self.directory)
            raise ConfigurationError(
                f"a platform already runs on {self.directory.root} (process {holder.pid if holder else 'unknown'}): "
                "use it, end it with `k2 down`, or choose another --data-dir"
            )
        own = identify(os.getpid())
        assert own is not None
        self._lock.write(f"{own.pid} {own.started}\n")
        self._end_orphans()

    def _end_orphans(self) -> None:
        try:
            description = read_description(self.directory)
        except ConfigurationError:  # damaged, and nobody's: it is about to be written anew
            return
        for process in orphans(description) if description else ():
            end_orphan(process, self._clock, grace_seconds=_ORPHAN_GRACE_SECONDS)

    def _begin(self) -> None:
        with file_errors(self.directory.root):
            self._take_ports()
            assert self._ports is not None
            api_key(self.directory)
            self._supervisor = Supervisor(
                self._components, self.directory, self._ports, self._settings, self._clock, self._on_change
            )
            self._write_endpoints()
            self._write_description()
        self._supervisor.start()

    def _take_ports(self) -> None:
        remembered = _remembered(read_json_or_empty(self.directory.ports_file))
        ports = PortBook(self._cache_dir / "ports", fixed=self._settings.ports, remembered=remembered)
        try:
            with file_errors(self._cache_dir, instead=CACHE_REMEDY):
                for component in self._components:
                    for name in component.port_names:
                        ports.take(name)
        except K2Error:
            ports.close()
            raise
        self._ports = ports

    def _on_change(self, status: ComponentStatus) -> None:
        now = self._clock.monotonic()
        last, at = self._reported.get(status.name, (None, 0.0))
        if last is not None and status.state is State.DOWNLOADING is last.state and now - at < _DOWNLOAD_REPORT_SECONDS:
            return
        self._reported[status.name] = (status, now)
        self._observe(status)
        if last is None or last.ports != status.ports:
            self._write_endpoints()
        self._write_description()

    def _write_description(self) -> None:
        description = PlatformDescription(identify(os.getpid()), self._stage, self.statuses(), self._error)
        with self._writing:
            write_json(self.directory.platform_file, to_json(description))

    def _write_endpoints(self) -> None:
        assert self._ports is not None
        ports = self._ports.ports()
        endpoints: dict[str, dict[str, Any]] = {"catalog": dict(self.directory.catalog())}
        for component in self._components:
            site = Site(self.directory, {name: ports[name] for name in component.port_names if name in ports})
            for section, values in component.endpoints(site).items():
                endpoints.setdefault(section, {}).update(values)
        with self._writing:
            write_json(self.directory.endpoints_file, endpoints)
            write_json(self.directory.ports_file, read_json_or_empty(self.directory.ports_file) | ports)

    def _train(self) -> None:
        if self._settings.fast_start:
            self._training = Training(self._components, self._cache_dir, self._settings, self._clock)
            self._training.start()


def _remembered(values: dict[str, Any]) -> dict[str, int]:
    return {name: port for name, port in values.items() if name in USUAL and isinstance(port, int)}
