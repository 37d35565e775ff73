"""A confirm store in memory, which can be down, stalled half way through, or emptied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2.common.errors import UnavailableError
from k2.ingestion.duplicates.confirm_store import Sighting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Saved = tuple[dict[int, dict[int, Sighting]], bool]


class FakeConfirmStore:
    """Keeps sightings by generation. `is_up = False` makes every call fail; `flush` loses all, as FLUSHALL does.

    `copy` and `put_back` are what a server does that saves, dies, and comes back with what it had saved.
    """

    def __init__(self) -> None:
        self.is_up = True
        self.calls = 0
        self._held: dict[int, dict[int, Sighting]] = {}
        self._marked = self._went_back = False

    def flush(self) -> None:
        """Lose everything."""
        self._held, self._marked, self._went_back = {}, False, False

    def copy(self) -> Saved:
        """Return what it holds now."""
        return {number: dict(held) for number, held in self._held.items()}, self._marked

    def put_back(self, saved: Saved) -> None:
        """Hold what was saved, and nothing that came after."""
        held, self._marked = saved
        self._held = {number: dict(each) for number, each in held.items()}
        self._went_back = True

    def attach(self) -> bool:
        """Set the mark; True if it was there."""
        was = self.is_attached()
        self._marked, self._went_back = True, False
        return was

    def is_attached(self) -> bool:
        """Look for the mark."""
        self._answer()
        return self._marked and not self._went_back

    def remember(self, generation: int, log_time_ms: int, offsets: Mapping[int, int | None]) -> None:
        """Store fingerprints."""
        self._answer()
        held = self._held.setdefault(generation, {})
        held.update({fingerprint: Sighting(log_time_ms, offset) for fingerprint, offset in offsets.items()})

    def recall(self, generations: Sequence[int], fingerprints: Sequence[int]) -> list[Sighting | None]:
        """Look fingerprints up, newest generation first."""
        self._answer()
        newest_first = [self._held.get(number, {}) for number in sorted(generations, reverse=True)]
        return [
            next((held[fingerprint] for held in newest_first if fingerprint in held), None)
            for fingerprint in fingerprints
        ]

    def generations(self) -> tuple[int, ...]:
        """Return the generations stored."""
        self._answer()
        return tuple(sorted(self._held))

    def fingerprints(self, generation: int) -> Iterator[list[int]]:
        """Give all fingerprints of a generation."""
        self._answer()
        yield list(self._held.get(generation, {}))

    def forget(self, generation: int) -> None:
        """Delete a generation."""
        self._answer()
        self._held.pop(generation, None)

    def clear(self) -> None:
        """Delete everything."""
        self._answer()
        self.flush()

    def _answer(self) -> None:
        self.calls += 1
        if not self.is_up:
            raise UnavailableError("the fake store is down", dependency="valkey")
