"""What the rest of K2 may ask of the log, so that a fake can stand in for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from k2.common.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from k2.kafka.batches import LogBatch
    from k2.kafka.topics import Topic


class NotYetAcknowledgedError(UnavailableError):
    """Not everything is acknowledged in the time allowed; the producer still has it, and goes on trying."""


TopicPartition = tuple[str, int]
"""Topic name and partition number."""


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """Which log a topic is: it changes when the topic is deleted and created again, or on another cluster."""

    cluster_id: str
    topic_id: str
    topic: str
    partitions: int


@dataclass(frozen=True, slots=True)
class LogRange:
    """Offsets [start, end) that a partition holds; `end` is the last stable offset (read_committed)."""

    start: int
    end: int


class Reader(Protocol):
    """Reads partitions of the log in offset order, each batch of one partition."""

    def poll(self, max_messages: int, timeout_seconds: float) -> list[LogBatch]:
        """Return what has arrived, at most `max_messages` in all; an empty list after `timeout_seconds`."""
        ...

    def position(self, topic: str, partition: int) -> int:
        """Return the offset that is read next; KeyError for a partition that is not assigned."""
        ...

    def positions(self) -> dict[TopicPartition, int]:
        """Return the offset that is read next, per assigned partition."""
        ...

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Read on from `offset`; nothing from before the call is returned afterwards."""
        ...

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Return nothing of these partitions until `resume`."""
        ...

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these partitions on, from where they were paused."""
        ...

    def close(self) -> None:
        """Give up all partitions and connections."""
        ...


class AssignedReader(Reader, Protocol):
    """A reader whose partitions the caller chooses."""

    def assign(self, starts: Mapping[TopicPartition, int]) -> None:
        """Read these partitions too, each from its offset."""
        ...

    def unassign(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop reading these partitions."""
        ...


class GroupedReader(Reader, Protocol):
    """A reader whose partitions the consumer group shares out."""

    def commit_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell the group the next offsets, for lag tools only; does not wait, never fails."""
        ...


class Admin(Protocol):
    """Creates topics and tells what the cluster holds."""

    def create_topics(self, topics: Iterable[Topic]) -> list[str]:
        """Create what is missing and return its names; ConfigurationError where partitions differ."""
        ...

    def identities(self, topics: Iterable[str]) -> dict[str, LogIdentity]:
        """Return who each topic is; a topic that does not exist is left out."""
        ...

    def ranges(self, topics: str | Iterable[str]) -> dict[TopicPartition, LogRange]:
        """Return what each partition holds; a topic that does not exist is left out."""
        ...

    def close(self) -> None:
        """Give up all connections."""
        ...


class Producing(Protocol):
    """Appends messages to topics, in order, each exactly once."""

    def send(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        *,
        headers: Sequence[Mapping[str, bytes]] | None = None,
    ) -> None:
        """Queue the messages; blocks while too much is unacknowledged."""
        ...

    def flush(self, timeout_seconds: float) -> None:
        """Wait until everything is acknowledged; NotYetAcknowledgedError if it is not by then."""
        ...

    @property
    def acknowledged(self) -> int:
        """Messages that the log has accepted."""
        ...

    def close(self) -> None:
        """Give up all connections; what was not flushed is lost."""
        ...


class Registry(Protocol):
    """Keeps the schemas."""

    def register(self, subject: str, schema_text: str) -> int:
        """Return the id of the schema, registered if new; ConfigurationError if it is incompatible."""
        ...

    def schema_text(self, schema_id: int) -> str:
        """Return the text of a schema; UnknownSchemaError, or UnavailableError when the registry is down."""
        ...
