"""Tells whether upkeep does its work: rounds in a row that did not succeed are an alert."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class RoundObserver(Protocol):
    """Hears how each round of upkeep ended."""

    def record(self, report: Mapping[str, Any]) -> None:  # Any: a RoundReport as plain values
        """Take in the report of a round."""
        ...

    def failed(self) -> None:
        """Take in a round that ended without a report."""
        ...


class UpkeepHealth:
    """Why upkeep is not ready: so many rounds in a row had problems. One sound round ends it. Threads may share it."""

    def __init__(self, alert_after_failures: int) -> None:
        self._alert_after = alert_after_failures
        self._lock = threading.Lock()
        self._failures = 0
        self._reason = ""

    def record(self, report: Mapping[str, Any]) -> None:  # Any: a RoundReport as plain values
        """Take in the report of a round."""
        problems = problems_of(report)
        with self._lock:
            self._failures = self._failures + 1 if problems else 0
            self._reason = problems[0] if problems else ""

    def failed(self) -> None:
        """Take in a round that ended without a report."""
        with self._lock:
            self._failures += 1
            self._reason = "the round ended without a report; its log says why (`k2 logs upkeep`)"

    def reasons(self) -> list[str]:
        """Return why upkeep is not ready; empty when it is."""
        with self._lock:
            if self._failures < self._alert_after:
                return []
            return [f"upkeep: {self._failures} rounds in a row with problems: {self._reason}"]


def problems_of(report: Mapping[str, Any]) -> list[str]:  # Any: a RoundReport as plain values
    """Return what went wrong in a round, in words."""
    return [*report["problems"], *(text for table in report["tables"] for text in table["problems"])]
