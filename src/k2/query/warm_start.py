"""Asks the first questions of a process itself: what only the first ones cost, nobody else pays for."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING, Final

from k2.common.errors import K2Error
from k2.common.logging import get_logger
from k2.query.bars.request import BarsRequest
from k2.query.request import QueryRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.common.clock import Clock
    from k2.query.gap_aware import AnswersQuestions
    from k2.query.ports import Plans
    from k2.query.request import DataType

log = get_logger(__name__)

_DATA_TYPES: Final[tuple[DataType, ...]] = ("trades", "quotes")
_PAUSE_SECONDS: Final = 0.02
_NO_SYMBOL: Final = "-"
"""Asked for where a table has no file that names one."""


class WarmStart:
    """Asks in a thread of its own; `is_over` says that it has asked all, or has tried for long enough.

    Then it has the garbage collector leave alone what there is by now: a look at all modules stops every thread for
    longer than a question takes.
    """

    def __init__(
        self,
        engine: AnswersQuestions,
        planner: Plans,
        *,
        can_answer: Callable[[], bool],
        clock: Clock,
        seconds_max: float,
    ) -> None:
        self._engine = engine
        self._planner = planner
        self._can_answer = can_answer
        self._clock = clock
        self._seconds_max = seconds_max
        self._stop = threading.Event()
        self._asked = threading.Event()
        self._thread: threading.Thread | None = None
        self._ends_at: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing is to be waited for any more; not before `start`."""
        late = self._ends_at is not None and self._clock.monotonic() >= self._ends_at
        return late or self._asked.is_set()

    def start(self) -> None:
        """Begin to ask; returns at once."""
        self._ends_at = self._clock.monotonic() + self._seconds_max
        self._thread = threading.Thread(target=self.run, name="k2-warm-start", daemon=True)
        self._thread.start()

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Ask nothing more, and wait for the question under way."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)
            self._thread = None

    def run(self) -> None:
        """Ask all questions, once there can be answers; the thread does this."""
        while not self._can_answer():
            if self._stop.wait(_PAUSE_SECONDS):
                return
        try:
            for data_type in _DATA_TYPES:
                if not self._stop.is_set():
                    self._ask(data_type)
        except K2Error as error:
            log.info("warm_start_ended_early", reason=str(error))
        gc.collect()
        gc.freeze()
        self._asked.set()

    def _ask(self, data_type: DataType) -> None:
        """Ask about a moment of the smallest file, which takes every path of a question and reads little."""
        pinned = self._planner.pin(data_type, partial=True)
        files = [entry for manifest in pinned.manifests for entry in manifest.files]
        smallest = min(files, key=lambda entry: entry.file.rows, default=None)
        start_ns = (smallest.start_ns if smallest else None) or 0
        question = QueryRequest(
            data_type=data_type,
            symbol=(smallest.symbol_min if smallest else None) or _NO_SYMBOL,
            exchange=smallest.exchange if smallest else None,
            start_ns=start_ns,
            end_ns=start_ns + 1,
        )
        self._engine.query(question)
        if data_type == "trades":
            self._engine.bars(BarsRequest(trades=question, interval="1m"))
