"""Where a reader in memory is in each partition that its caller has assigned; what it reads there is its own matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from k2.kafka.ports import TopicPartition


class AssignedPlaces:
    """All that an assigned reader does beside `poll`."""

    def __init__(self) -> None:
        self._next: dict[TopicPartition, int] = {}

    def assign(self, starts: Mapping[TopicPartition, int]) -> None:
        """Read these partitions too."""
        self._next.update(starts)

    def unassign(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop reading these."""
        for key in partitions:
            self._next.pop(key, None)

    def position(self, topic: str, partition: int) -> int:
        """Return the offset that is read next."""
        return self._next[topic, partition]

    def positions(self) -> dict[TopicPartition, int]:
        """Return the offset that is read next, per partition."""
        return dict(self._next)

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Read on from `offset`."""
        self._next[topic, partition] = offset

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Do nothing: nobody who assigns pauses."""

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Do nothing: nobody who assigns pauses."""

    def close(self) -> None:
        """Give up all partitions."""
        self._next.clear()
