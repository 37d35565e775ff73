"""Which halted streams go on: those that a person has released, and those whose time is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from k2.common.units import NS_PER_SECOND

if TYPE_CHECKING:
    from k2.common.clock import Clock
    from k2.storage.seam import HaltedStream

_NS_PER_US = 1_000


class Releases(Protocol):
    """Says which halted streams go on."""

    def is_released(self, table: str, topic: str, partition: int, halted: HaltedStream) -> bool:
        """Say whether a stream of a partition goes on."""
        ...


class NothingReleased:
    """Keeps every halted stream where it is."""

    def is_released(self, table: str, topic: str, partition: int, halted: HaltedStream) -> bool:
        """Say no."""
        del table, topic, partition, halted
        return False


@dataclass(frozen=True, slots=True)
class TimedReleases:
    """Lets a stream go on `halt_seconds` after the message that halted it was logged, if not sooner; 0: never."""

    halt_seconds: float
    clock: Clock
    by_people: Releases = field(default_factory=NothingReleased)

    def is_released(self, table: str, topic: str, partition: int, halted: HaltedStream) -> bool:
        """Say whether a stream was released, or its time is over; see Releases."""
        age_ns = self.clock.time_ns() - halted.since_us * _NS_PER_US
        is_over = 0 < self.halt_seconds * NS_PER_SECOND <= age_ns
        return is_over or self.by_people.is_released(table, topic, partition, halted)
