"""Which halted streams go on: those that a person has released, and those whose time is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from k2.common.units import NS_PER_SECOND

if TYPE_CHECKING:
    from k2.common.clock import Clock
    from k2.storage.seam import DeferredRange

_NS_PER_US: Final = 1_000


class Releases(Protocol):
    """Where a worker hears that people let halted streams go on."""

    def is_released(self, table: str, log_id: int, partition: int, since: int) -> bool:
        """Say whether the stream of a partition that is halted since an offset was let go on."""
        ...


class NothingReleased:
    """Hears of none."""

    def is_released(self, table: str, log_id: int, partition: int, since: int) -> bool:
        """Say no."""
        del table, log_id, partition, since
        return False


@dataclass(frozen=True, slots=True)
class GoingOn:
    """Says which ranges of halted streams may be written; `halt_seconds` count from the message that halted, 0: never.

    Writing that has begun goes on: then the stream was let go before, by whomever.
    """

    releases: Releases = field(default_factory=NothingReleased)
    halt_seconds: float = 0.0
    clock: Clock | None = None

    def may_write(self, table: str, entry: DeferredRange) -> bool:
        """Say whether a range may be written, as far as halting goes."""
        halted = entry.halted
        if halted is None or entry.start > halted.since:
            return True
        if self.clock is not None and self.halt_seconds:
            age_ns = self.clock.time_ns() - halted.since_us * _NS_PER_US
            if age_ns >= self.halt_seconds * NS_PER_SECOND:
                return True
        return self.releases.is_released(table, entry.log_id, entry.partition, halted.since)
