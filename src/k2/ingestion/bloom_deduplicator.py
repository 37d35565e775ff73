"""Finds ids seen before within a window of log time: Bloom filters say no, a confirm store says yes, a table decides.

An id that the filters have not seen is new, and costs no read. One that they may have seen is looked up in Valkey or
Redis. Where that does not answer, or has lost what it held, `confirm` asks the table; without it such an id counts as
new: an id is never called a duplicate on the word of a filter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
from xxhash import xxh3_64_intdigest

from k2.common.clock import SystemClock
from k2.common.errors import UnavailableError
from k2.common.logging import get_logger
from k2.common.units import NS_PER_MS
from k2.ingestion.duplicates.bloom_generations import GENERATIONS, BloomGenerations
from k2.ingestion.duplicates.confirm_store import ConfirmStore, RedisConfirmStore, Sighting

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from k2.common.clock import Clock

log = get_logger(__name__)

Ids = Sequence[str] | Sequence[int] | pl.Series
Confirm = Callable[[Sequence[str | int]], Sequence[Sighting | None]]
"""Asks the table for the newest acceptance of each id; raises UnavailableError where it cannot tell."""
Stored = tuple[Ids, Sequence[int] | None, int]
"""Ids that a table holds, with their offsets, and the log time that they were accepted at."""

_MS_PER_HOUR: Final = 3_600_000
_BYTES_PER_MIB: Final = 2**20
_OWED_IDS_MAX: Final = 1_000_000
"""Ids kept for a store that does not answer; past it the oldest are for the table alone to know."""
_NAME: Final = "xxh3"
"""Names what is stored: fingerprints are compared only with those of the same hash function."""


class ProductionDeduplicator:
    """Remembers ids for `ttl_hours` of log time. One thread uses it.

    `redis_client` is a client of Valkey or Redis, or None. Times are log times in milliseconds; the wall clock stands
    in where none is given. `directory` keeps closed filters over a restart; what is missing then is read back from the
    confirm store by `rebuild`, and until that is done every id is looked up. Where there is a table, and the store
    is found empty at the start, `confirm` is asked about every id for a window, unless `rebuild` is given its ids.
    """

    def __init__(
        self,
        redis_client: Any,  # Any: a client of Valkey or Redis; both have the commands that are used
        capacity: int = 100_000_000,
        error_rate: float = 0.001,
        ttl_hours: float = 24,
        *,
        namespace: str = "k2:ids",
        directory: Path | None = None,
        confirm: Confirm | None = None,
        store: ConfirmStore | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._capacity, self._error_rate = capacity, error_rate
        self._window_ms = int(ttl_hours * _MS_PER_HOUR)
        self._filters = BloomGenerations(
            capacity=capacity, error_rate=error_rate, window_ms=self._window_ms, directory=directory, name=_NAME
        )
        if store is None and redis_client is not None:
            store = RedisConfirmStore(
                redis_client,
                namespace=f"{namespace}:{_NAME}",
                ids_per_generation=capacity // GENERATIONS,
                length_ms=self._filters.length_ms,
            )
        self._store = store
        self._confirm = confirm
        self._clock = SystemClock() if clock is None else clock
        self._doubted: set[int] = set()
        """Generations of which the store may lack ids; an id that is not in it may still be a duplicate."""
        self._unbuilt: set[int] = set()
        """Generations that the store has and the filters have not."""
        self._blind = False
        """The store did not answer at the start: which generations there are is not known."""
        self._is_told = confirm is None
        """No table, or its ids were told: there are none but those that store and filters hold."""
        self._untold = False
        """A table may hold ids that neither store nor filters know."""
        self._untold_until: int | None = None
        self._owed: deque[tuple[int, int, Mapping[int, int | None]]] = deque()
        """Generation, log time and ids that the store did not take; it is given them when it answers again."""
        self._newest = -1
        self._warned = False
        self.reset_stats()
        self._begin()

    def is_duplicate(self, record_id: str | int, *, offset: int | None = None, log_time_ms: int | None = None) -> bool:
        """Say whether an id was seen within the window, and remember it if not. The same offset again is a replay."""
        return self.is_duplicate_batch(
            pl.Series([record_id]),
            offsets=None if offset is None else [offset],
            log_time_ms=log_time_ms,
        )[0]

    def is_duplicate_batch(
        self, ids: Ids, *, offsets: Sequence[int] | None = None, log_time_ms: int | None = None
    ) -> list[bool]:
        """Say the same of many ids, in order: of equal ones within the batch, the first is the one that is new."""
        now = self._time(log_time_ms)
        prints = fingerprints_of(ids)
        answers = [False] * len(prints)
        places = self._suspects(prints)
        found = self._winners(ids, prints, places, now)
        for place, winner in found.items():
            answers[place] = offsets is None or winner.offset != offsets[place]
        new: dict[int, int | None] = {}
        for place, fingerprint in enumerate(prints):
            if place in found:
                continue
            if fingerprint in new:
                answers[place] = offsets is None or new[fingerprint] != offsets[place]
            else:
                new[fingerprint] = None if offsets is None else offsets[place]
        self._duplicates += sum(answers)
        self._remember(new, now)
        return answers

    def suspects(self, ids: Ids, *, log_time_ms: int | None = None) -> list[bool]:
        """Say of each id whether it may have been seen within the window, and remember nothing.

        For a caller that asks the table about these, and calls `add_without_check` once its commit is there.
        """
        now = self._time(log_time_ms)
        prints = fingerprints_of(ids)
        places = self._suspects(prints)
        recalled = self._recalled(prints, places)
        held = [False] * len(prints)
        for place in places:
            sighting, sure = recalled[place]
            held[place] = not sure or (sighting is not None and now - sighting.log_time_ms <= self._window_ms)
        return held

    def add_without_check(
        self, ids: str | int | Ids, *, offsets: Sequence[int] | None = None, log_time_ms: int | None = None
    ) -> None:
        """Remember ids that are known to be new."""
        if isinstance(ids, str | int):
            ids = [ids]  # type: ignore[assignment]  # a list of one is of one type
        now = self._time(log_time_ms)
        prints = fingerprints_of(ids)  # type: ignore[arg-type]  # one id is a list by now
        new = dict.fromkeys(prints) if offsets is None else dict(zip(prints, offsets, strict=True))
        self._remember(new, now)

    def rebuild(self, stored: Iterable[Stored] | None = None) -> None:
        """Read back from the confirm store the generations that no file had; until then every id is looked up.

        `stored` is what the table holds of the window, the oldest first: with it nothing is unknown, whatever the
        store has lost.

        Raises:
            UnavailableError: the store does not answer; what was read so far is kept.
        """
        for ids, offsets, log_time_ms in stored or ():
            self.add_without_check(ids, offsets=offsets, log_time_ms=log_time_ms)
        if stored is not None:
            self._is_told, self._untold = True, False
        if self._store is None:
            return
        if self._blind:
            self._untold |= not (self._store.attach() or self._is_told)
            known = self._store.generations()
            self._unbuilt = {each for each in known if each > known[-1] - GENERATIONS} - set(self._filters.numbers)
            self._blind = False
        for generation in sorted(self._unbuilt):
            for fingerprints in self._store.fingerprints(generation):
                self._filters.add(fingerprints, generation * self._filters.length_ms)
            self._unbuilt.discard(generation)

    @property
    def is_built(self) -> bool:
        """Whether the filters hold the whole window, so that a no of theirs counts."""
        return not (self._unbuilt or self._blind or self._untold)

    def get_stats(self) -> Mapping[str, float]:
        """Return what was checked, how often the filter sufficed, and how much memory it takes."""
        checks, negatives, positives = self._checks, self._checks - self._positives, self._positives
        return {
            "total_checks": checks,
            "bloom_negatives": negatives,
            "bloom_positives": positives,
            "redis_confirms": self._reads,
            "false_positives": self._false_positives,
            "duplicates": self._duplicates,
            "actual_false_positive_rate": self._false_positives / max(1, negatives + self._false_positives),
            "redis_call_reduction": 1 - self._reads / checks if checks else 1.0,
            "capacity": self._capacity,
            "target_error_rate": self._error_rate,
            "estimated_memory_mb": self._filters.full_size_bytes / _BYTES_PER_MIB,
            "memory_mb": self._filters.size_bytes / _BYTES_PER_MIB,
            "ids": self._filters.ids,
            "redis_failures": self._failures,
        }

    def reset_stats(self) -> None:
        """Set the counters to 0."""
        self._checks = self._positives = self._reads = self._false_positives = self._duplicates = self._failures = 0

    def clear(self) -> None:
        """Forget every id, in memory, on disk and in the confirm store."""
        self._filters.clear()
        self._owed.clear()
        self._newest = -1
        self._doubted, self._unbuilt, self._blind, self._untold = set(), set(), False, False
        if self._store is not None:
            try:
                self._store.clear()
                self._store.attach()
            except UnavailableError as error:
                self._doubt(error)

    # What happens at the start and as time goes on.

    def _begin(self) -> None:
        loaded = set(self._filters.load())
        if self._store is None:
            self._untold = not self._is_told
            return
        try:
            was_attached = self._store.attach()
            known = set(self._store.generations()) if was_attached else set()
        except UnavailableError as error:
            self._blind = True
            self._doubt(error)
            return
        newest = max(known | loaded, default=0)
        self._unbuilt = {number for number in known - loaded if number > newest - GENERATIONS}
        self._doubted = loaded - known
        self._untold = not (was_attached or self._is_told)

    def _time(self, log_time_ms: int | None) -> int:
        now = self._clock.time_ns() // NS_PER_MS if log_time_ms is None else log_time_ms
        newest = self._filters.number_of(now)
        if newest > self._newest:
            self._newest = newest
            self._doubted -= set(self._filters.advance(now))
            self._forget(newest - GENERATIONS)
        if self._untold:
            self._untold_until = self._untold_until or now + self._window_ms
            self._untold = now <= self._untold_until
        return now

    def _forget(self, last: int) -> None:
        """Forget the generations up to `last`; what an outage leaves in the store goes when the next one begins."""
        self._unbuilt = {number for number in self._unbuilt if number > last}
        self._owed = deque(one for one in self._owed if one[0] > last)
        if self._store is None:
            return
        try:
            for generation in self._store.generations():
                if generation <= last:
                    self._store.forget(generation)
        except UnavailableError as error:
            self._warn(error)

    # Asking.

    def _suspects(self, prints: list[int]) -> list[int]:
        """Return the places of the ids that the filters may have seen; of all while a filter is missing."""
        self._checks += len(prints)
        if self.is_built:
            places = [place for place, hit in enumerate(self._filters.holds(prints)) if hit]
        else:
            places = list(range(len(prints)))
        self._positives += len(places)
        return places

    def _recalled(self, prints: list[int], places: list[int]) -> dict[int, tuple[Sighting | None, bool]]:
        """Return for each place what the store knows, and whether that is sure."""
        if not places:
            return {}
        if self._store is None:
            return dict.fromkeys(places, (None, False))
        wanted = sorted({*self._filters.numbers, *self._unbuilt, *self._doubted})
        try:
            if not self._store.is_attached():
                self._lost()
            sightings = self._store.recall(wanted, [prints[place] for place in places])
            self._warned = False
        except UnavailableError as error:
            self._warn(error)
            return dict.fromkeys(places, (None, False))
        self._reads += len(places)
        sure = not (self._doubted or self._blind or self._untold)
        return {
            place: (sighting, sure or sighting is not None) for place, sighting in zip(places, sightings, strict=True)
        }

    def _winners(self, ids: Ids, prints: list[int], places: list[int], now: int) -> dict[int, Sighting]:
        """Return the sightings within the window of those ids that have one."""
        recalled = self._recalled(prints, places)
        unsure = [place for place in places if not recalled[place][1]]
        winners = {place: sighting for place, (sighting, _) in recalled.items() if sighting is not None}
        if unsure and self._confirm is not None:
            answers = self._confirm([ids[place] for place in unsure])
            winners |= {place: winner for place, winner in zip(unsure, answers, strict=True) if winner is not None}
        told = places if self._confirm is not None else [place for place in places if recalled[place][1]]
        self._false_positives += len(told) - len(winners) if self.is_built else 0
        return {place: winner for place, winner in winners.items() if now - winner.log_time_ms <= self._window_ms}

    # Remembering.

    def _remember(self, new: Mapping[int, int | None], now: int) -> None:
        if not new:
            return
        generation = self._filters.number_of(now)
        self._filters.add(list(new), now)
        if self._store is None:
            return
        self._owed.append((generation, now, new))
        try:
            while self._owed:
                self._store.remember(*self._owed[0])
                self._owed.popleft()
        except UnavailableError as error:
            self._doubted.add(generation)
            self._doubt(error)
            while sum(len(ids) for _, _, ids in self._owed) > _OWED_IDS_MAX:
                self._owed.popleft()

    def _lost(self) -> None:
        """The store was flushed: what it says of the generations so far counts no more."""
        log.error(
            "deduplicator_store_lost",
            expected="the ids of the window",
            found="a store that was emptied",
            meaning="the table is asked instead" if self._confirm else "duplicates of earlier ids pass",
        )
        self._doubted |= set(self._filters.numbers) | self._unbuilt
        if self._store is not None:
            self._store.attach()

    def _doubt(self, error: UnavailableError) -> None:
        self._doubted |= set(self._filters.numbers)
        self._warn(error)

    def _warn(self, error: UnavailableError) -> None:
        self._failures += 1
        if not self._warned:
            meaning = "the table is asked instead" if self._confirm else "duplicates pass until it is back"
            log.error("deduplicator_store_unavailable", reason=str(error), meaning=meaning)
        self._warned = True


def create_deduplicator(
    redis_client: Any, *, stored: Iterable[Stored] | None = None, **options: Any
) -> ProductionDeduplicator:
    """Return a deduplicator whose filters hold the whole window, read back from the store where it answers."""
    # Any: as in ProductionDeduplicator
    deduplicator = ProductionDeduplicator(redis_client, **options)
    try:
        deduplicator.rebuild(stored)
    except UnavailableError as error:
        log.warning("deduplicator_not_rebuilt", reason=str(error), meaning="each id is looked up until it is")
    return deduplicator


def fingerprints_of(ids: Ids) -> list[int]:
    """Return a 64-bit fingerprint of each id; of unsigned 64-bit numbers, which are hashes already, those themselves.

    The fingerprints of an id are the same in every version and process, since they are stored.
    """
    if isinstance(ids, pl.Series):
        if ids.dtype == pl.UInt64:
            return ids.to_list()
        ids = ids.to_list()
    if ids and isinstance(ids[0], int):
        mixed: list[int] = _mixed(np.array(ids, dtype=np.int64)).tolist()
        return mixed
    return [xxh3_64_intdigest(each.encode()) for each in ids]  # type: ignore[union-attr]  # all of one type


def _mixed(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return splitmix64 of each number: one to one, and even in every bit, as the store's buckets need it."""
    mixed = numbers.view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
