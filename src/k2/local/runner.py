"""Keep one component alive: start it when its needs are met, watch it, start it again when it dies."""

from __future__ import annotations

import contextlib
import signal
import threading
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from k2.common.errors import K2Error
from k2.local.component import ComponentStatus, Site, State, StopRequestedError, UnhealthyError
from k2.local.logs import last_lines, turn_over
from k2.local.ports import is_free
from k2.local.processes import ChildProcess, listens_on
from k2.local.restarts import RestartHistory, RestartPolicy, after_death
from k2.local.state_files import file_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.common.clock import Clock
    from k2.local.component import Component
    from k2.local.layout import DataDirectory
    from k2.local.ports import PortBook
    from k2.local.settings import LocalSettings

_EXIT_POLL_SECONDS = 0.1
_READY_POLL_SECONDS = 0.05
_QUOTED_LINES = 5


class _End(Enum):
    """Why a watch ended."""

    HEALTHY = "healthy"
    STOP = "stop"
    DIED = "died"
    HUNG = "hung"


class ComponentRunner:
    """The thread of one component.

    The thread that starts a process must outlive it: Linux ends the process with the thread that asked for that.
    """

    def __init__(
        self,
        component: Component,
        directory: DataDirectory,
        ports: PortBook,
        settings: LocalSettings,
        clock: Clock,
        *,
        needs_healthy: Callable[[], bool],
        observe: Callable[[ComponentStatus], None],
    ) -> None:
        self.component = component
        self.error: K2Error | None = None
        self.failure = ""
        self._directory = directory
        self._ports = ports
        self._settings = settings
        self._clock = clock
        self._needs_healthy = needs_healthy
        self._observe = observe
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"run-{component.name}", daemon=True)
        self._child: ChildProcess | None = None
        self._history = RestartHistory()
        self._was_healthy = False
        self._policy = RestartPolicy(
            settings.restart_pause_seconds,
            settings.restart_pause_seconds_max,
            settings.calm_seconds,
            settings.failing_after_deaths,
        )
        self.status = ComponentStatus(component.name, State.WAITING)

    def start(self) -> None:
        """Begin; the status tells how it goes."""
        self._thread.start()

    def request_stop(self) -> None:
        """Ask for the end without waiting for it."""
        self._stop.set()

    def join(self) -> None:
        """Wait until the component has ended, which `stop_seconds_max` bounds."""
        if self._thread.ident is not None:
            self._thread.join()

    def signal(self, number: int) -> None:
        """Send a signal to the component's process."""
        child = self._child
        if child is not None:
            child.signal(number)

    def _explain(self, detail: str) -> str:
        """Return what is wrong and the last lines of the log."""
        log = self._directory.log(self.component.name)
        quoted = "\n".join(f"    {line}" for line in last_lines(log, _QUOTED_LINES))
        return f"{self.component.name} {detail}\n  the last lines of {log}:\n{quoted}"

    def _run(self) -> None:
        try:
            with file_errors(self._directory.root):
                self._install()
                while not self._stop.is_set() and self._live():
                    pass
        except StopRequestedError:
            pass
        except K2Error as error:
            self.error = error
            self._publish(State.FAILING, str(error), process=None)
        except Exception as error:  # the edge of the thread: a bug must be seen in the status, not end in silence
            self.error = K2Error(f"{type(error).__name__}: {error}")
            self._publish(State.FAILING, str(self.error), process=None)
            raise
        finally:
            self._end_child()
            if self._stop.is_set():
                self._publish(State.STOPPED, "", process=None)

    def _install(self) -> None:
        def progress(done: int, total: int) -> None:
            if self._stop.is_set():
                raise StopRequestedError
            self._publish(State.DOWNLOADING, "", bytes_done=done, bytes_total=total)

        self.component.install(progress)
        self._publish(State.WAITING, "")

    def _live(self) -> bool:
        """Run the component once, from start to death; say whether to start it again."""
        if not self._await_needs():
            return False
        site = Site(self._directory, {name: self._ports.take(name) for name in self.component.port_names})
        born = self._clock.monotonic()
        child = self._begin(site)
        end, detail = self._await_healthy(child, site)
        was_healthy = end is _End.HEALTHY
        if was_healthy:
            self._was_healthy = True
            end, detail = self._watch(child, site)
        if end is _End.STOP:
            return False
        code = child.exit_code()
        if end is _End.HUNG:
            child.signal(signal.SIGKILL)
        self._end_child()
        if code == 0 and self.component.may_finish:
            self._publish(State.FINISHED, "", process=None)
            return False
        return self._after_death(site, detail, lived_seconds=self._clock.monotonic() - born, was_healthy=was_healthy)

    def _await_needs(self) -> bool:
        while not self._needs_healthy():
            if self._stop.wait(_READY_POLL_SECONDS):
                return False
        return not self._stop.is_set()

    def _begin(self, site: Site) -> ChildProcess:
        self._publish(State.STARTING, "", address=self.component.address(site), ports=site.ports)
        command = self.component.command(site)
        log = self._directory.log(self.component.name)
        turn_over(log, self._settings.log_bytes_max)
        self._child = ChildProcess(command.words, directory=command.directory, log=log, env=command.env, nice=0)
        self._publish(State.STARTING, "", process=self._child.identity())
        return self._child

    def _await_healthy(self, child: ChildProcess, site: Site) -> tuple[_End, str]:
        deadline = self._clock.monotonic() + self._settings.start_seconds_max
        problem = "no check was made"
        while not self._stop.wait(_READY_POLL_SECONDS):
            code = child.exit_code()
            if code is not None:
                return _End.DIED, f"ended while it started ({_exit_words(code)})"
            try:
                self._check(child, site)
                self.component.after_start(site, timeout_seconds=self._settings.check_timeout_seconds)
            except UnhealthyError as error:
                problem = str(error)
            else:
                self.failure = ""
                self._publish(State.HEALTHY, "", process=child.identity())
                return _End.HEALTHY, ""
            if self._clock.monotonic() > deadline:
                return _End.HUNG, f"was not ready within {self._settings.start_seconds_max:.0f} s ({problem})"
        return _End.STOP, ""

    def _watch(self, child: ChildProcess, site: Site) -> tuple[_End, str]:
        failed_checks, good_at = 0, self._clock.monotonic()
        checked_at = good_at
        while not self._stop.wait(_EXIT_POLL_SECONDS):
            code = child.exit_code()
            if code is not None:
                return _End.DIED, f"died ({_exit_words(code)})"
            now = self._clock.monotonic()
            if now - checked_at < self._settings.check_seconds:
                continue
            turn_over(self._directory.log(self.component.name), self._settings.log_bytes_max)
            try:
                self._check(child, site)
                failed_checks, good_at = 0, now
                if self.status.state is not State.HEALTHY:
                    self._publish(State.HEALTHY, "")
            except UnhealthyError as error:
                failed_checks += 1
                if failed_checks >= self._settings.unhealthy_after_checks:
                    self._publish(State.UNHEALTHY, str(error))
                if not self._needs_healthy():
                    good_at = now
                if now - good_at > self._settings.hung_seconds:
                    return _End.HUNG, f"did not answer for {self._settings.hung_seconds:.0f} s ({error})"
            checked_at = self._clock.monotonic()
        return _End.STOP, ""

    def _check(self, child: ChildProcess, site: Site) -> None:
        self.component.check(site, timeout_seconds=self._settings.check_timeout_seconds)
        for port in site.ports.values():
            if not listens_on(child.pid, port):
                raise UnhealthyError(f"something else listens on port {port}")

    def _after_death(self, site: Site, detail: str, *, lived_seconds: float, was_healthy: bool) -> bool:
        restart = after_death(self._history, self._policy, lived_seconds=lived_seconds)
        self._history = restart.history
        taken = [name for name in site.ports if not is_free(site.ports[name])]
        if taken and not self._was_healthy:
            for name in taken:
                self._ports.replace(name)
            return True
        if taken:
            detail += f"; port {site.ports[taken[0]]} is now used by another program: end that"
        if not was_healthy:
            self.component.before_retry()
        state = State.FAILING if restart.failing else State.RESTARTING
        if restart.failing:
            self.failure = self._explain(detail)
        self._publish(state, detail, process=None)
        return not self._stop.wait(restart.pause_seconds)

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.exit_code() is None:
            self._publish(State.STOPPING, self.status.detail)
        child.end(self._clock, grace_seconds=self._settings.stop_seconds_max)

    def _publish(self, state: State, detail: str, **changes: object) -> None:
        since = self.status.since_ns if state is self.status.state else self._clock.time_ns()
        self.status = replace(
            self.status,
            state=state,
            detail=detail,
            restarts=self._history.restarts,
            since_ns=since,
            **changes,  # type: ignore[arg-type]  # the names are those of ComponentStatus
        )
        with contextlib.suppress(OSError):  # a full disk must not end the supervision
            self._observe(self.status)


def _exit_words(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
