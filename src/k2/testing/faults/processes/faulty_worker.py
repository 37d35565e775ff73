"""`k2 ingest` in a process whose catalog loses or delays replies, or whose clock is wrong; all else is the product."""

from __future__ import annotations

import argparse
import faulthandler
import random
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from k2.cli.ingest import ingest
from k2.common.clock import SystemClock
from k2.storage import catalog, tables
from k2.testing.faulty_catalog import Fault, FaultyCatalog

if TYPE_CHECKING:
    from k2.storage.settings import CatalogSettings

_NS = 10**9
_JUMP_BACK_SECONDS = 3_600


class UnreliableCatalog(FaultyCatalog):
    """Draws for each commit whether its request or its reply gets lost, and how long the reply takes."""

    def __init__(self, inner: Any, draw: random.Random, *, lost: float, delay_seconds: float) -> None:
        super().__init__(inner)
        self._draw = draw
        self._lost = lost
        self._delay_seconds = delay_seconds
        self._clock = SystemClock()

    def commit_table(self, table: Any, requirements: Any, updates: Any) -> Any:  # Any: handed through
        """Commit, with what was drawn."""
        if self._draw.random() < self._lost:
            self.faults.append(self._draw.choice([Fault.LOSE_REPLY, Fault.LOSE_REPLY, Fault.FAIL_BEFORE_SWAP]))
        try:
            return super().commit_table(table, requirements, updates)
        finally:
            if self._delay_seconds and self._draw.random() < self._lost:
                self._clock.sleep(self._draw.random() * self._delay_seconds)


class WrongClock(SystemClock):
    """A wall clock that is off, and that stands still or jumps now and then; monotonic time is right."""

    def __init__(self, draw: random.Random, offset_seconds: float) -> None:
        self._draw = draw
        self._offset_ns = int(offset_seconds * _NS)

    def time_ns(self) -> int:
        """Return a wrong time: an offset, and up to a minute back and forth."""
        return super().time_ns() + self._offset_ns + self._draw.randrange(-60 * _NS, 60 * _NS)


class FrozenClock(SystemClock):
    """A wall clock that stands still for a while, then is an hour behind; monotonic time is right."""

    def __init__(self, frozen_seconds: float) -> None:
        self._stopped_ns = super().time_ns()
        self._until = super().monotonic() + frozen_seconds

    def time_ns(self) -> int:
        """Return the time at which it stopped, then one that has jumped back."""
        if self.monotonic() < self._until:
            return self._stopped_ns
        return super().time_ns() - _JUMP_BACK_SECONDS * _NS


def main() -> None:
    """Put the faults in place, then ingest as the command does."""
    parser = argparse.ArgumentParser(prog="faulty_worker", description=__doc__)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lost", type=float, default=0.0, help="share of commits whose request or reply is lost")
    parser.add_argument("--delay", type=float, default=0.0, help="longest delay of such a reply, seconds")
    parser.add_argument("--clock-offset", type=float, default=0.0, help="seconds that the wall clock is off")
    parser.add_argument("--clock-frozen", type=float, default=0.0, help="seconds that it stands still, to jump back")
    arguments = parser.parse_args()
    faulthandler.register(signal.SIGUSR1)
    draw = random.Random(arguments.seed)  # noqa: S311 a run must be repeatable
    if arguments.clock_offset:
        patch("k2.common.clock.SystemClock", lambda: WrongClock(draw, arguments.clock_offset)).start()
    if arguments.clock_frozen:
        frozen = FrozenClock(arguments.clock_frozen)
        patch("k2.common.clock.SystemClock", lambda: frozen).start()
    if arguments.lost:

        def open_unreliable(settings: CatalogSettings) -> UnreliableCatalog:
            inner = catalog.open_catalog(settings)
            return UnreliableCatalog(inner, draw, lost=arguments.lost, delay_seconds=arguments.delay)

        patch.object(tables, "open_catalog", open_unreliable).start()
    ingest(data_dir=arguments.data_dir, metrics_port=0, member_id=None, accept_new_log=None)


if __name__ == "__main__":
    main()
