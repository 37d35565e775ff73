"""Processes that the platform owns: started in their own session, recognised after a crash, ended within a bound."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from k2.common.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from k2.common.clock import Clock

_LAUNCH: Final = Path(__file__).with_name("launch.py")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_PAUSE_SECONDS: Final = 0.02


@dataclass(frozen=True)
class ProcessIdentity:
    """A process that cannot be mistaken for a later one with the same number: `started` names the boot and the tick."""

    pid: int
    started: str
    command: tuple[str, ...]


def identify(pid: int) -> ProcessIdentity | None:
    """Return who runs as `pid` now; None if nobody does, or only a zombie."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return ProcessIdentity(pid, _started(process), tuple(process.cmdline()))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def is_same(recorded: ProcessIdentity, found: ProcessIdentity | None) -> bool:
    """Say whether the process found is the one recorded, and not another that got its number."""
    return found is not None and found == recorded


def still_runs(recorded: ProcessIdentity) -> bool:
    """Say whether the process recorded has not ended yet; while it ends, its command line is already gone."""
    found = identify(recorded.pid)
    return found is not None and found.started == recorded.started


def end_orphan(recorded: ProcessIdentity, clock: Clock, *, grace_seconds: float) -> bool:
    """End the recorded process and its group if it still runs; say whether there was anything to end."""
    if not is_same(recorded, identify(recorded.pid)):
        return False
    _signal_group(recorded.pid, signal.SIGTERM)
    asked = clock.monotonic()
    while still_runs(recorded):
        waited = clock.monotonic() - asked
        if waited > 2 * grace_seconds:
            raise UnavailableError(
                f"process {recorded.pid} of an earlier run does not end: end it by hand (kill -9 {recorded.pid})",
                dependency="local platform",
            )
        if waited > grace_seconds:
            _signal_group(recorded.pid, signal.SIGKILL)
        clock.sleep(_PAUSE_SECONDS)
    return True


def listens_on(pid: int, port: int) -> bool:
    """Say whether the process itself listens on the port; a stranger that took the port does not pass for it."""
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


class ChildProcess:
    """One running component, in a session of its own; it ends when this process ends."""

    def __init__(
        self, command: Sequence[str], *, directory: Path, log: Path, env: Mapping[str, str] | None, nice: int
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._command = tuple(command)
        launch = [sys.executable, "-I", "-S", str(_LAUNCH), str(os.getpid()), str(nice), *command]
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                launch,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Return the number of the process, which is also that of its group."""
        return self._popen.pid

    def identity(self) -> ProcessIdentity:
        """Return what to record, so that the process is recognised after a crash of the supervisor."""
        try:
            return ProcessIdentity(self.pid, _started(psutil.Process(self.pid)), self._command)
        except psutil.NoSuchProcess:
            return ProcessIdentity(self.pid, "", self._command)

    def exit_code(self) -> int | None:
        """Return the exit code; negative for a signal; None while it runs. Its number stays taken until `end`."""
        if self._popen.returncode is not None:
            return self._popen.returncode
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def signal(self, number: int) -> None:
        """Send a signal to the process and whatever it started; nothing once it was reaped."""
        if self._popen.returncode is None:
            _signal_group(self.pid, number)

    def end(self, clock: Clock, *, grace_seconds: float) -> int:
        """Ask it to end, wait, and kill what is left of its group; return the exit code."""
        self.signal(signal.SIGTERM)
        deadline = clock.monotonic() + grace_seconds
        while self.exit_code() is None and clock.monotonic() < deadline:
            clock.sleep(_PAUSE_SECONDS)
        self.signal(signal.SIGKILL)
        return self._popen.wait()


def _started(process: psutil.Process) -> str:
    """Return the boot and the clock tick at which a process began; a changed wall clock does not move it."""
    try:
        ticks = (
            Path(f"/proc/{process.pid}/stat")
            .read_text(encoding="ascii", errors="replace")
            .rsplit(")", 1)[1]
            .split()[19]
        )
        return f"{_BOOT_ID.read_text(encoding='ascii').strip()}/{ticks}"
    except FileNotFoundError:
        return f"{process.create_time():.2f}"


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return
