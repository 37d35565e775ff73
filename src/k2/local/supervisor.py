"""All components of a platform together: started in parallel, ended in the right order."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

from k2.common.errors import UnavailableError
from k2.local.component import State
from k2.local.runner import ComponentRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from k2.common.clock import Clock
    from k2.local.component import Component, ComponentStatus
    from k2.local.layout import DataDirectory
    from k2.local.ports import PortBook
    from k2.local.settings import LocalSettings

_READY = frozenset({State.HEALTHY, State.FINISHED})


class Supervisor:
    """Runs each component in a thread of its own; a component starts when what it needs is healthy."""

    def __init__(
        self,
        components: Sequence[Component],
        directory: DataDirectory,
        ports: PortBook,
        settings: LocalSettings,
        clock: Clock,
        observe: Callable[[ComponentStatus], None],
    ) -> None:
        self._changed = threading.Condition()
        self._observe = observe
        self._runners = {
            component.name: ComponentRunner(
                component,
                directory,
                ports,
                settings,
                clock,
                needs_healthy=lambda needs=component.needs: self._are_healthy(needs),  # type: ignore[misc]  # a bound default
                observe=self._on_change,
            )
            for component in components
        }

    def start(self) -> None:
        """Begin to start every component."""
        for runner in self._runners.values():
            runner.start()

    def wait_ready(self, cancelled: threading.Event) -> bool:
        """Wait until every component is healthy; False if `cancelled` came first. Each has its own time limit.

        Raises:
            ConfigurationError, UnavailableError: a component cannot start; the text quotes its log.
        """
        with self._changed:
            while not cancelled.is_set():
                for runner in self._runners.values():
                    _raise_failure(runner)
                if all(runner.status.state in _READY for runner in self._runners.values()):
                    return True
                self._changed.wait(0.1)
        return False

    def stop(self) -> None:
        """End every component: writers and readers first, the broker last. Each wait is bounded."""
        ranked = sorted(self._runners.values(), key=lambda runner: runner.component.stop_rank)
        for _, group in itertools.groupby(ranked, key=lambda runner: runner.component.stop_rank):
            members = list(group)
            for runner in members:
                runner.request_stop()
            for runner in members:
                runner.join()

    def statuses(self) -> tuple[ComponentStatus, ...]:
        """Return what is known of each component now."""
        return tuple(runner.status for runner in self._runners.values())

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a component's process."""
        self._runners[name].signal(number)

    def _are_healthy(self, names: Sequence[str]) -> bool:
        return all(self._runners[name].status.state is State.HEALTHY for name in names if name in self._runners)

    def _on_change(self, status: ComponentStatus) -> None:
        self._observe(status)
        with self._changed:
            self._changed.notify_all()


def _raise_failure(runner: ComponentRunner) -> None:
    if runner.error is not None:
        raise runner.error
    if runner.failure:
        raise UnavailableError(f"{runner.failure}\n  mend that, then start again", dependency=runner.component.name)
