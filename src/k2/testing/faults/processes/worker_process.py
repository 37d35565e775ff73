"""One ingest worker as a process of its own, with settings, a log and signals of its own."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_ENTRY: Final = "k2.testing.faults.processes.faulty_worker"
_STOP_SECONDS_MAX: Final = 20.0
_DUMP_SECONDS: Final = 0.5
_LAST_WORDS_CHARACTERS: Final = 8_000


class WorkerProcess:
    """A running worker; what it logs is read back as events."""

    def __init__(self, directory: Path, arguments: Sequence[str] = ()) -> None:
        self._log_path = directory / "worker.log"
        self._log = self._log_path.open("ab")
        command = [sys.executable, "-m", _ENTRY, str(directory), *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)

    @property
    def alive(self) -> bool:
        """Say whether the process runs, or is stopped by a signal."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it has not."""
        return self._process.poll()

    def kill(self) -> None:
        """End it as kill -9 does."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Stop it with SIGSTOP."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on with SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def leave(self) -> None:
        """Ask it to commit what it has and leave the group; kill it if it does not."""
        if self.alive:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.kill()

    def close(self) -> None:
        """See that nothing of it is left."""
        if self.alive:
            self.thaw()
            self.kill()
        self._log.close()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what it has logged under this name."""
        found = []
        for line in self._log_path.read_text(encoding="utf-8", errors="replace").splitlines():
            if f'"{name}"' in line:
                try:
                    entry = json.loads(line)
                except ValueError:  # the last line may not be whole yet
                    continue
                if entry.get("event") == name:
                    found.append(entry)
        return found

    def last_words(self) -> str:
        """Return the end of what it has logged, and where each of its threads stands if it still runs."""
        if self.alive:
            self._process.send_signal(signal.SIGUSR1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_DUMP_SECONDS)
        return self._log_path.read_text(encoding="utf-8", errors="replace")[-_LAST_WORDS_CHARACTERS:]
