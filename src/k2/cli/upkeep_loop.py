"""Upkeep in the background: a light process that starts each round as a process of its own and shows its metrics.

A round loads the libraries of the tables and may sort for minutes; when it ends, the memory is the system's again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from k2.common.logging import get_logger
from k2.local import launch

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from k2.common.clock import Clock
    from k2.storage.upkeep.health import RoundObserver

_NICE: Final = 10
_POLL_SECONDS: Final = 0.5
_GRACE_SECONDS: Final = 5.0


class UpkeepLoop:
    """Starts a round every so often, one at a time."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        interval_seconds: float,
        round_seconds_max: float,
        observers: Sequence[RoundObserver],
        clock: Clock,
    ) -> None:
        """`command` does one round and writes its report to standard output as JSON; `observers` hear of each."""
        self._command = (
            sys.executable, "-I", "-S", str(Path(launch.__file__)), str(os.getpid()), str(_NICE), *command,
        )  # fmt: skip
        self._interval_seconds = interval_seconds
        self._round_seconds_max = round_seconds_max
        self._observers = observers
        self._clock = clock
        self._heard = clock.monotonic()
        self._log = get_logger(__name__)

    def run(self, stop: threading.Event) -> None:
        """Do rounds until `stop` is set; the first one after the interval, when what starts now has started."""
        while not self._wait(stop):
            report = self._round(stop)
            for observer in self._observers:
                if report is not None:
                    observer.record(report)
                elif not stop.is_set():
                    observer.failed()

    def silent_seconds(self) -> float:
        """Return how long ago the loop last showed that it is alive."""
        return self._clock.monotonic() - self._heard

    def _wait(self, stop: threading.Event) -> bool:
        until = self._clock.monotonic() + self._interval_seconds
        while not stop.is_set():
            self._heard = self._clock.monotonic()
            left = until - self._heard
            if left <= 0:
                break
            stop.wait(min(left, _POLL_SECONDS))
        return stop.is_set()

    def _round(self, stop: threading.Event) -> dict[str, Any] | None:  # Any: the report as plain values
        began = self._clock.monotonic()
        with subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True) as process:
            output = self._output(process, stop)
        if output is None:
            if not stop.is_set():
                self._log.warning("upkeep_round_ended", seconds=round(self._clock.monotonic() - began, 1))
            return None
        try:
            report: dict[str, Any] = json.loads(output)
        except ValueError:
            self._log.warning("upkeep_round_failed", exit_code=process.returncode)
            return None
        return report

    def _output(self, process: subprocess.Popen[str], stop: threading.Event) -> str | None:
        """Wait for the round; end it, and return None, where it takes too long or is no longer wanted."""
        until = self._clock.monotonic() + self._round_seconds_max
        while not stop.is_set() and self._clock.monotonic() < until:
            self._heard = self._clock.monotonic()
            try:
                return process.communicate(timeout=_POLL_SECONDS)[0]
            except subprocess.TimeoutExpired:
                continue
        process.terminate()
        try:
            process.communicate(timeout=_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        return None
