"""Leases on what the tail holds: an answer in the making keeps its rows from being trimmed, for a bounded time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k2.common.clock import Clock
    from k2.kafka.ports import TopicPartition


class Lease:
    """Holds each partition's rows from an offset on; ends with its `with` block, or when it expires."""

    def __init__(self, leases: Leases, floors: Mapping[TopicPartition, int], expires_at: float) -> None:
        self._leases = leases
        self.floors = floors
        self.expires_at = expires_at

    def narrow(self, floors: Mapping[TopicPartition, int]) -> None:
        """Hold only from the pinned seam on."""
        self.floors = {key: max(floor, floors.get(key, floor)) for key, floor in self.floors.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leases.release(self)


class Leases:
    """The leases that live."""

    def __init__(self, clock: Clock, *, seconds_max: float) -> None:
        self._clock = clock
        self._seconds_max = seconds_max
        self._lock = threading.Lock()
        self._live: set[Lease] = set()
        self.expired = 0

    def take(self, floors: Mapping[TopicPartition, int]) -> Lease:
        """Hold the partitions from these offsets on."""
        lease = Lease(self, dict(floors), self._clock.monotonic() + self._seconds_max)
        with self._lock:
            self._live.add(lease)
        return lease

    def release(self, lease: Lease) -> None:
        """End a lease; ending it twice is harmless."""
        with self._lock:
            self._live.discard(lease)

    def floor(self, key: TopicPartition, seam: int) -> int:
        """Return the offset below which nobody needs the partition: the seam, or the lowest lease below it."""
        with self._lock:
            return min([seam, *(lease.floors[key] for lease in self._live if key in lease.floors)])

    def expire(self) -> None:
        """End the leases whose time is over."""
        now = self._clock.monotonic()
        with self._lock:
            over = {lease for lease in self._live if lease.expires_at <= now}
            self._live -= over
            self.expired += len(over)

    def __len__(self) -> int:
        return len(self._live)
