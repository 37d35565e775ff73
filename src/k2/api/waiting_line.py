"""Who is next: light questions before heavy ones, first come first; a full line sends the youngest heavy one away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from k2.api.weights import Weight

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


class WaitingLine(Generic[T]):
    """A line of bounded length. Whoever waits is any hashable value."""

    def __init__(self, places_max: int) -> None:
        self._places_max = places_max
        self._waiting: dict[Weight, dict[T, None]] = {weight: {} for weight in Weight}

    def __len__(self) -> int:
        """Return how many wait."""
        return sum(map(len, self._waiting.values()))

    def join(self, who: T, weight: Weight) -> T | None:
        """Take a place; return who has to go for it: nobody, a younger heavy one, or `who` where the line is full."""
        heavy = self._waiting[Weight.HEAVY]
        gone: T | None = None
        if len(self) >= self._places_max:
            if weight == Weight.HEAVY or not heavy:
                return who
            gone, _ = heavy.popitem()
        self._waiting[weight][who] = None
        return gone

    @property
    def is_shut(self) -> bool:
        """Say whether nobody could join now: it is full, and no heavy one would go."""
        return len(self) >= self._places_max and not self._waiting[Weight.HEAVY]

    def leave(self, who: T) -> bool:
        """Give the place up; False if there was none."""
        for waiting in self._waiting.values():
            if who in waiting:
                del waiting[who]
                return True
        return False

    def call(self, *weights: Weight) -> T | None:
        """Return who is next of these weights, and give the place free; None where none of them waits."""
        for weight in sorted(weights):
            waiting = self._waiting[weight]
            if waiting:
                who = next(iter(waiting))
                del waiting[who]
                return who
        return None

    def counts(self) -> Iterator[tuple[Weight, int]]:
        """Give how many of each weight wait."""
        return ((weight, len(waiting)) for weight, waiting in self._waiting.items())
