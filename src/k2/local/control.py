"""What other processes do with a platform: start it in the background, ask how it is, end it, delete it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil

from k2.common.errors import ConfigurationError, K2Error, UnavailableError
from k2.local.assembly import build_components
from k2.local.component import ComponentStatus, Site, State, UnhealthyError
from k2.local.description import orphans, read_description, running_supervisor
from k2.local.k2_component import K2Component
from k2.local.layout import DataDirectory, user_cache_directory
from k2.local.logs import last_lines
from k2.local.processes import end_orphan, identify, is_same, still_runs
from k2.local.state_files import FileLock, claim_with_space, file_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from k2.common.clock import Clock
    from k2.local.description import PlatformDescription
    from k2.local.processes import ProcessIdentity
    from k2.local.settings import LocalSettings

_POLL_SECONDS: Final = 0.05
_STOP_SECONDS_MAX: Final = 90.0
_LIVE: Final = frozenset({State.HEALTHY, State.UNHEALTHY})


@dataclass(frozen=True)
class ProcessReport:
    """One process of a platform at this moment; memory is the proportional set size on Linux, else the resident one."""

    name: str
    health: str
    detail: str
    pid: int | None
    address: str
    memory_bytes: int | None
    restarts: int
    uptime_seconds: float | None
    unready: tuple[str, ...] = ()
    """Why it cannot do its work now, though it lives."""


@dataclass(frozen=True)
class PlatformReport:
    """The supervisor and every component, checked just now; no supervisor means that nothing runs."""

    stage: str
    supervisor: ProcessReport | None
    components: tuple[ProcessReport, ...]

    @property
    def healthy(self) -> bool:
        """Say whether the platform runs and every component works."""
        works = all(component.health in (State.HEALTHY, State.FINISHED) for component in self.components)
        return self.supervisor is not None and bool(self.components) and works


def inspect(directory: DataDirectory, settings: LocalSettings, clock: Clock) -> PlatformReport:
    """Ask every component how it is, all at the same time."""
    supervisor = running_supervisor(directory)
    description = read_description(directory)
    if supervisor is None or description is None:
        return PlatformReport("stopped", None, ())
    with ThreadPoolExecutor(max(1, len(description.components))) as pool:
        components = pool.map(lambda status: _report(directory, status, settings, clock), description.components)
        memory, uptime = _memory_and_uptime(supervisor, clock)
        own = ProcessReport("supervisor", description.stage, "", supervisor.pid, "", memory, 0, uptime)
        return PlatformReport(description.stage, own, tuple(components))


def start_detached(
    directory: DataDirectory,
    components: Sequence[str],
    settings: LocalSettings,
    clock: Clock,
    *,
    simulator_arguments: tuple[str, ...] = (),
    observe: Callable[[ComponentStatus], None] = lambda _: None,
) -> int:
    """Start a supervisor of its own session and wait until all is healthy; return its process number.

    Raises:
        ConfigurationError, UnavailableError: it could not start; the text says why.
    """
    refuse_second(directory)
    claim_with_space(directory, settings.free_bytes_min)
    log = directory.log("supervisor")
    words = [sys.executable, "-m", "k2.local", str(directory.root), ",".join(components), settings.model_dump_json()]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*words, json.dumps(simulator_arguments)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    seen: dict[str, ComponentStatus] = {}
    while True:
        description = _description_by(directory, process.pid)
        for status in description.components if description else ():
            if seen.get(status.name) != status:
                seen[status.name] = status
                observe(status)
        if description and description.stage == "ready":
            process.returncode = 0  # not ours to wait for any more; Popen would warn of it
            return process.pid
        if process.poll() is not None:
            raise _start_failure(directory, process.pid)
        clock.sleep(_POLL_SECONDS)


def refuse_second(directory: DataDirectory) -> None:
    """Raise if a platform runs on this directory."""
    holder = running_supervisor(directory)
    if holder is not None:
        raise ConfigurationError(
            f"a platform already runs on {directory.root} (process {holder.pid}): use it, end it with "
            f"`k2 down --data-dir {directory.root}`, or choose another --data-dir"
        )


def stop_running(directory: DataDirectory, settings: LocalSettings, clock: Clock) -> bool:
    """End the platform of this directory and wait until nothing of it runs; False if nothing did."""
    supervisor = running_supervisor(directory)
    found = supervisor is not None
    if supervisor is not None:
        _end_supervisor(supervisor, clock)
    description = read_description(directory)
    for process in orphans(description) if description else ():
        found = end_orphan(process, clock, grace_seconds=settings.stop_seconds_max) or found
    return found


def reset(directory: DataDirectory) -> None:
    """Delete all state of a platform that does not run; its settings file stays.

    Raises:
        ConfigurationError: it runs, or the directory is not K2's.
    """
    refuse_second(directory)
    if not directory.root.exists():
        return
    if not directory.marker.is_file():
        raise ConfigurationError(
            f"expected K2's marker {directory.marker.name} in {directory.root}, found none: this is not a data "
            "directory of K2, and nothing was deleted"
        )
    lock = FileLock(directory.lock)
    with file_errors(directory.root):
        if not lock.acquire():
            raise ConfigurationError(
                f"a platform already runs on {directory.root}, though its files do not say which process: end it with "
                "Ctrl-C where it was started, then reset"
            )
        try:
            _delete_all(directory)
        finally:
            lock.release()


def _delete_all(directory: DataDirectory) -> None:
    """Delete all but the settings file; the lock goes last, so that nobody starts here meanwhile."""
    kept = (directory.marker, directory.settings_file, directory.lock.parent)
    for entry in sorted(directory.root.iterdir()):
        if entry not in kept:
            _delete(entry)
    _delete(directory.lock.parent)
    directory.marker.unlink()
    if not directory.settings_file.exists():
        directory.root.rmdir() if not directory.root.is_symlink() else None


def _delete(entry: os.PathLike[str]) -> None:
    if os.path.isdir(entry) and not os.path.islink(entry):  # noqa: PTH112, PTH114  # a link is deleted, never followed
        shutil.rmtree(entry)
    else:
        os.unlink(entry)  # noqa: PTH108  # the same


def _end_supervisor(supervisor: ProcessIdentity, clock: Clock) -> None:
    os.kill(supervisor.pid, signal.SIGTERM)
    asked = clock.monotonic()
    while still_runs(supervisor):
        waited = clock.monotonic() - asked
        if waited > _STOP_SECONDS_MAX:
            os.kill(supervisor.pid, signal.SIGKILL)
        if waited > 2 * _STOP_SECONDS_MAX:
            raise UnavailableError(f"process {supervisor.pid} does not end", dependency="local platform")
        clock.sleep(_POLL_SECONDS)


def _description_by(directory: DataDirectory, pid: int) -> PlatformDescription | None:
    try:
        description = read_description(directory)
    except ConfigurationError:  # an older, damaged file; the new supervisor replaces it
        return None
    if description is None or description.supervisor is None or description.supervisor.pid != pid:
        return None
    return description


def _start_failure(directory: DataDirectory, pid: int) -> K2Error:
    description = _description_by(directory, pid)
    if description is not None and description.error:
        return UnavailableError(description.error, dependency="local platform")
    lines = "\n".join(last_lines(directory.log("supervisor"), 5))
    return UnavailableError(f"the supervisor ended: {lines}", dependency="local platform")


def _report(directory: DataDirectory, status: ComponentStatus, settings: LocalSettings, clock: Clock) -> ProcessReport:
    health, detail = str(status.state), status.detail
    unready: tuple[str, ...] = ()
    alive = status.process is not None and is_same(status.process, identify(status.process.pid))
    if status.state in _LIVE:
        if not alive:
            health, detail = "dead", "the process is gone"
        else:
            health, detail, unready = _checked(directory, status, settings)
    memory, uptime = _memory_and_uptime(status.process, clock) if status.process and alive else (None, None)
    pid = status.process.pid if status.process and alive else None
    return ProcessReport(status.name, health, detail, pid, status.address, memory, status.restarts, uptime, unready)


def _checked(
    directory: DataDirectory, status: ComponentStatus, settings: LocalSettings
) -> tuple[str, str, tuple[str, ...]]:
    (component,) = build_components([status.name], settings, user_cache_directory(settings.cache_dir))
    site, timeout_seconds = Site(directory, status.ports), settings.check_timeout_seconds
    try:
        component.check(site, timeout_seconds=timeout_seconds)
        if isinstance(component, K2Component):
            return str(State.HEALTHY), "", component.unready(site, timeout_seconds=timeout_seconds)
    except UnhealthyError as error:
        return str(State.UNHEALTHY), str(error), ()
    return str(State.HEALTHY), "", ()


def _memory_and_uptime(process: ProcessIdentity, clock: Clock) -> tuple[int | None, float | None]:
    try:
        found = psutil.Process(process.pid)
        full = found.memory_full_info()
        memory = int(getattr(full, "pss", full.rss))
        return memory, max(0.0, clock.time_ns() / 1e9 - found.create_time())
    except psutil.Error:
        return None, None
