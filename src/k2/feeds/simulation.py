"""Plays a run of the simulated market into the log: at the pace of its own times, or as fast as the log takes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from k2.common.units import NS_PER_SECOND
from k2.schemas.records import RECORD_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from k2.common.clock import Clock
    from k2.feeds.market import Market, MarketSlice

_NAP_SECONDS_MAX: Final = 0.1
_NAP_SECONDS_MIN: Final = 1e-4


class Outlet(Protocol):
    """Where records go: an exchange's topics."""

    def send(self, data_type: str, rows: pl.DataFrame) -> None:
        """Queue the rows in their order; blocks while the log is slow."""
        ...

    def flush(self) -> None:
        """Wait until everything sent is acknowledged."""
        ...

    def mark_end(self, data_type: str, rows: pl.DataFrame) -> None:
        """Mark the end of the stream; `rows` says how far each symbol came."""
        ...

    def mark_alive(self, data_type: str, rows: pl.DataFrame) -> None:
        """Mark how far each symbol has come until now."""
        ...


@dataclass
class Played:
    """What a run has come to.

    Records by data type, also those that were held before, the seconds it took, and those by which it slipped.
    """

    records: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RECORD_TYPES, 0))
    seconds: float = 0.0
    market_seconds: float = 0.0
    """How much of the market's own time was played."""
    slipped_seconds: float = 0.0

    @property
    def total(self) -> int:
        """Records of all data types."""
        return sum(self.records.values())


class Pacer:
    """Waits until a slice is due. A delay is made up for, up to a bound; beyond it, all that follows moves back."""

    def __init__(
        self,
        clock: Clock,
        *,
        start_ns: int,
        catch_up_seconds_max: float,
        on_slip: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Begin now; `on_slip` is told the seconds by which all that follows has moved back."""
        self._clock = clock
        self._on_slip = on_slip
        self._start_ns = start_ns
        self._catch_up_seconds_max = catch_up_seconds_max
        self._origin = clock.monotonic()
        self.slipped_seconds = 0.0

    def wait_for(self, time_ns: int, *, is_stopped: Callable[[], bool]) -> None:
        """Return once the run's time is `time_ns`, or as soon as it is stopped."""
        due = self._origin + (time_ns - self._start_ns) / NS_PER_SECOND
        while not is_stopped() and (left := due - self._clock.monotonic()) > _NAP_SECONDS_MIN:
            self._clock.sleep(min(left, _NAP_SECONDS_MAX))
        late = self._clock.monotonic() - due
        if late > self._catch_up_seconds_max:
            self._origin += late
            self.slipped_seconds += late
            self._on_slip(late)


def play(
    market: Market,
    outlet: Outlet,
    *,
    clock: Clock,
    pacer: Pacer | None,
    is_stopped: Callable[[], bool],
    on_progress: Callable[[Played], None],
    heartbeat_seconds: float = 0,
) -> Played:
    """Send slice after slice until the run ends or is stopped, then flush and mark the end of the stream.

    Without a pacer nothing is waited for but the log. A stopped run ends with the last slice that was sent whole.
    Every `heartbeat_seconds` of the market's time it marks how far it has come; 0 for never.

    Raises:
        UnavailableError: the log did not take a record; what was sent before is in it, and no end is marked.
    """
    played = Played()
    began, beats = clock.monotonic(), 1
    ends = {data_type: market.ends(data_type) for data_type in RECORD_TYPES}
    for part in market.slices():
        if pacer is not None:
            pacer.wait_for(part.end_ns, is_stopped=is_stopped)
            played.slipped_seconds = pacer.slipped_seconds
        if is_stopped():
            break
        _send(part, outlet, played)
        ends = {data_type: market.ends(data_type) for data_type in RECORD_TYPES}
        played.seconds = clock.monotonic() - began
        played.market_seconds = (part.end_ns - market.run.start_ns) / NS_PER_SECOND
        if heartbeat_seconds and played.market_seconds >= beats * heartbeat_seconds:
            beats = int(played.market_seconds // heartbeat_seconds) + 1
            for data_type, reached in ends.items():
                outlet.mark_alive(data_type, reached)
        on_progress(played)
    outlet.flush()
    for data_type, reached in ends.items():
        outlet.mark_end(data_type, reached)
    played.seconds = clock.monotonic() - began
    return played


def _send(part: MarketSlice, outlet: Outlet, played: Played) -> None:
    for data_type, rows in (("quotes", part.quotes), ("trades", part.trades)):
        if not rows.is_empty():
            outlet.send(data_type, rows)
        played.records[data_type] += len(rows)
