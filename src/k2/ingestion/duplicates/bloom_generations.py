"""Bloom filters by log time: five generations of a quarter of the window, so that the window is always held in full."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Final

from rbloom import Bloom

from k2.common.errors import K2Error
from k2.common.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = get_logger(__name__)

GENERATIONS: Final = 5
"""Four closed ones hold the window; the fifth is being filled."""
_UNION_SHARE: Final = 1.65
"""Error rate of all generations together, in multiples of the target: 199 MiB hold 100M ids at 0.165 %."""


class BloomGenerations:
    """Filters of 64-bit fingerprints. A fingerprint that was added less than a window ago is always found.

    `capacity` is what all generations hold together. `directory` keeps closed generations for the next start.
    """

    def __init__(
        self, *, capacity: int, error_rate: float, window_ms: int, directory: Path | None = None, name: str = "ids"
    ) -> None:
        if capacity < GENERATIONS or not 0 < error_rate < 1 or window_ms < GENERATIONS:
            raise ValueError(
                f"expected a capacity of {GENERATIONS} or more, an error rate between 0 and 1 and a window in "
                f"milliseconds, found {capacity}, {error_rate}, {window_ms}"
            )
        self.length_ms = -(-window_ms // (GENERATIONS - 1))
        self._share = -(-capacity // GENERATIONS)
        self._error_rate = error_rate * _UNION_SHARE / GENERATIONS
        self._directory = directory
        self._name = f"{name}-{self._share}-{self._error_rate:.3g}-{self.length_ms}"
        self._filters: dict[int, Bloom] = {}
        self._counts: dict[int, int] = {}
        self._newest: int | None = None

    def number_of(self, log_time_ms: int) -> int:
        """Return the generation that a log time belongs to."""
        return log_time_ms // self.length_ms

    @property
    def numbers(self) -> tuple[int, ...]:
        """The generations held, oldest first."""
        return tuple(sorted(self._filters))

    @property
    def size_bytes(self) -> int:
        """Memory of all filters."""
        return sum(each.size_in_bits for each in self._filters.values()) // 8

    @property
    def full_size_bytes(self) -> int:
        """Memory of the filters once all generations are there."""
        sample = next(iter(self._filters.values()), None)
        one = (sample or Bloom(self._share, self._error_rate, operator.index)).size_in_bits // 8
        return one * GENERATIONS

    @property
    def ids(self) -> int:
        """How many fingerprints were added to the generations held."""
        return sum(self._counts.values())

    def advance(self, log_time_ms: int) -> list[int]:
        """Move on to the generation of a log time: save what is closed by it; return the generations forgotten."""
        number = self.number_of(log_time_ms)
        if self._newest is not None and number <= self._newest:
            return []
        closed, self._newest = self._newest, number
        if closed is not None:
            self._save(closed)
        return [old for old in list(self._filters) if old <= number - GENERATIONS and self._drop(old)]

    def add(self, fingerprints: list[int], log_time_ms: int) -> None:
        """Add fingerprints seen at a log time; those older than all generations held are past the window."""
        number = self.number_of(log_time_ms)
        if not fingerprints or (self._newest is not None and number <= self._newest - GENERATIONS):
            return
        if number not in self._filters:
            self._filters[number] = Bloom(self._share, self._error_rate, operator.index)
            self._counts[number] = 0
        before = self._counts[number]
        self._filters[number].update(fingerprints)
        self._counts[number] = before + len(fingerprints)
        if before <= self._share < self._counts[number]:
            log.warning("deduplicator_generation_over_capacity", generation=number, capacity=self._share)

    def holds(self, fingerprints: list[int]) -> list[bool]:
        """Say of each fingerprint whether it may have been added; where False, it was not."""
        filters = [self._filters[number] for number in sorted(self._filters, reverse=True)]
        match filters:
            case []:
                return [False] * len(fingerprints)
            case [a]:
                return [x in a for x in fingerprints]
            case [a, b]:
                return [x in a or x in b for x in fingerprints]
            case [a, b, c]:
                return [x in a or x in b or x in c for x in fingerprints]
            case [a, b, c, d]:
                return [x in a or x in b or x in c or x in d for x in fingerprints]
            case [a, b, c, d, e, *more]:
                found = [x in a or x in b or x in c or x in d or x in e for x in fingerprints]
                for other in more:
                    found = [hit or x in other for hit, x in zip(found, fingerprints, strict=True)]
                return found
        raise AssertionError

    def load(self) -> tuple[int, ...]:
        """Load the closed generations that an earlier process saved; return which were there and sound."""
        for path, number in self._saved():
            try:
                self._filters[number] = Bloom.load(str(path), operator.index)
            except (OSError, ValueError) as error:
                log.warning("deduplicator_generation_unreadable", path=str(path), reason=str(error))
                continue
            self._counts[number] = int(self._filters[number].approx_items)
        self._newest = max(self._filters, default=self._newest)
        return self.numbers

    def clear(self) -> None:
        """Forget everything, saved generations too."""
        for path, _ in self._saved():
            path.unlink(missing_ok=True)
        self._filters, self._counts, self._newest = {}, {}, None

    def _drop(self, number: int) -> bool:
        del self._filters[number], self._counts[number]
        if self._directory is not None:
            self._path(self._directory, number).unlink(missing_ok=True)
        return True

    def _save(self, number: int) -> None:
        """Save a closed generation; where that fails, a restart rebuilds it."""
        if self._directory is None or number not in self._filters:
            return
        path = self._path(self._directory, number)
        part = path.with_suffix(".part")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._filters[number].save(str(part))
            part.replace(path)
        except (OSError, K2Error) as error:
            log.warning("deduplicator_generation_not_saved", path=str(path), reason=str(error))

    def _saved(self) -> Iterator[tuple[Path, int]]:
        if self._directory is None or not self._directory.is_dir():
            return
        for path in sorted(self._directory.glob(f"{self._name}.*.bloom")):
            number = path.name.removeprefix(f"{self._name}.").removesuffix(".bloom")
            if number.isdecimal():
                yield path, int(number)

    def _path(self, directory: Path, number: int) -> Path:
        return directory / f"{self._name}.{number}.bloom"
