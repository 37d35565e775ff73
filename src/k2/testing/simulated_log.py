"""A log in memory with a consumer group: control records, rebalances, members that were put out and do not know it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from k2.common.errors import LogIdentityError, UnavailableError
from k2.kafka.batches import LogBatch
from k2.kafka.ports import LogIdentity, LogRange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from k2.kafka.ports import TopicPartition

CONTROL = None
"""An entry of a partition that readers skip: a transaction's marker or an aborted message."""


@dataclass
class SimulatedTopic:
    """One topic: per partition its first offset and its values, `CONTROL` where readers see nothing."""

    topic_id: str
    partitions: list[list[bytes | None]]
    starts: list[int]


@dataclass
class SimulatedLog:
    """The broker: topics, dead letters received, and whether it answers."""

    cluster_id: str = "cluster-1"
    topics: dict[str, SimulatedTopic] = field(default_factory=dict)
    sent: dict[str, list[tuple[bytes | None, bytes | None, dict[str, bytes]]]] = field(default_factory=dict)
    is_up: bool = True
    key_of: Callable[[bytes], bytes | None] = lambda _value: b"SYM"
    """The key of a value."""
    ms_of: Callable[[int, bytes], int] = lambda offset, _value: 1_700_000_000_000 + offset
    """The log time of an offset's value."""

    def create(self, topic: str, partitions: int, *, topic_id: str = "topic-1") -> None:
        """Create a topic, or create it again under another id."""
        self.topics[topic] = SimulatedTopic(f"{topic}/{topic_id}", [[] for _ in range(partitions)], [0] * partitions)

    def append(self, topic: str, partition: int, *values: bytes | None) -> None:
        """Append values; `CONTROL` makes a hole."""
        self.topics[topic].partitions[partition].extend(values)

    def cut_below(self, topic: str, partition: int, offset: int) -> None:
        """Let retention delete what lies below an offset."""
        self.topics[topic].starts[partition] = offset

    def end(self, topic: str, partition: int) -> int:
        """Return the offset that the next record gets."""
        return len(self.topics[topic].partitions[partition])

    def identities(self, topics: Iterable[str]) -> dict[str, LogIdentity]:
        """Return who each topic is; a topic that does not exist is left out."""
        self.answer()
        return {
            name: LogIdentity(self.cluster_id, self.topics[name].topic_id, name, len(self.topics[name].partitions))
            for name in topics
            if name in self.topics
        }

    def ranges(self, topics: str | Iterable[str]) -> dict[TopicPartition, LogRange]:
        """Return what each partition holds."""
        self.answer()
        names = [topics] if isinstance(topics, str) else list(topics)
        return {
            (name, number): LogRange(self.topics[name].starts[number], len(values))
            for name in names
            if name in self.topics
            for number, values in enumerate(self.topics[name].partitions)
        }

    def answer(self) -> None:
        """Fail while the broker is down."""
        if not self.is_up:
            raise UnavailableError("the simulated broker is down", dependency="kafka")


class SimulatedProducer:
    """Sends to the simulated log; what is not flushed is lost when the broker is down."""

    def __init__(self, log: SimulatedLog) -> None:
        self._log = log
        self._queued: list[tuple[str, tuple[bytes | None, bytes | None, dict[str, bytes]]]] = []
        self.acknowledged = 0

    def send(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        *,
        headers: Sequence[Mapping[str, bytes]] | None = None,
    ) -> None:
        """Queue the messages."""
        shared = headers or [{}] * len(values)
        self._queued += [(topic, (k, v, dict(h))) for k, v, h in zip(keys, values, shared, strict=True)]

    def flush(self, timeout_seconds: float) -> None:
        """Append what is queued, or fail while the broker is down."""
        del timeout_seconds
        self._log.answer()
        for topic, message in self._queued:
            self._log.sent.setdefault(topic, []).append(message)
        self.acknowledged += len(self._queued)
        self._queued = []

    def close(self) -> None:
        """Forget what is queued."""
        self._queued = []


class SimulatedGroup:
    """A consumer group whose coordinator is this object: `rebalance` shares out, members learn of it when they poll."""

    def __init__(self, log: SimulatedLog) -> None:
        self.log = log
        self.members: list[SimulatedGroupReader] = []

    def rebalance(self, shares: Mapping[SimulatedGroupReader, Iterable[TopicPartition]]) -> None:
        """Give each member its partitions; those not named get none. Nobody waits for anybody: owners may overlap."""
        for member in self.members:
            member.wanted = set(shares.get(member, ()))


class SimulatedGroupReader:
    """A member of the group; calls back inside of `poll`, as the real one does."""

    def __init__(
        self,
        group: SimulatedGroup,
        *,
        on_assign: Callable[[Sequence[TopicPartition]], Mapping[TopicPartition, int]],
        on_revoke: Callable[[Sequence[TopicPartition]], None],
        batch_messages_max: Callable[[], int] = lambda: 10,
    ) -> None:
        self._group = group
        self._log = group.log
        self._on_assign = on_assign
        self._on_revoke = on_revoke
        self._batch_messages_max = batch_messages_max
        self._next: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._held: set[TopicPartition] = set()
        self.wanted: set[TopicPartition] = set()
        self.committed: dict[TopicPartition, int] = {}
        group.members.append(self)

    def poll(self, max_messages: int, timeout_seconds: float) -> list[LogBatch]:
        """Take part in a rebalance that is due, then return a batch a partition."""
        del timeout_seconds
        self._rejoin()
        self._log.answer()
        batches = [self._read(key, min(max_messages, self._batch_messages_max())) for key in sorted(self._next)]
        return [batch for batch in batches if batch is not None]

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
        """Return nothing of these until `resume`."""
        self._paused.update(partitions)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these on."""
        self._paused.difference_update(partitions)

    def commit_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Remember the offsets that lag tools would see."""
        self.committed.update(offsets)

    def close(self) -> None:
        """Leave the group, giving the partitions back in order."""
        self.wanted = set()
        self._rejoin()
        self.vanish()

    def vanish(self) -> None:
        """Leave the group as a process that was killed."""
        if self in self._group.members:
            self._group.members.remove(self)

    def _rejoin(self) -> None:
        gone = sorted(self._held - self.wanted)
        if gone:
            self._on_revoke(gone)
            for key in gone:
                self._next.pop(key, None)
                self._paused.discard(key)
            self._held.difference_update(gone)
        come = sorted(self.wanted - self._held)
        if come:
            self._held.update(come)
            self._next.update(self._on_assign(come))

    def _read(self, key: TopicPartition, messages_max: int) -> LogBatch | None:
        if key in self._paused:
            return None
        topic = self._log.topics[key[0]]
        values, position = topic.partitions[key[1]], self._next[key]
        if not topic.starts[key[1]] <= position <= len(values):
            raise LogIdentityError(f"offset {position} of {key} is outside of the log")
        end = min(len(values), position + messages_max)
        offsets = [offset for offset in range(position, end) if values[offset] is not CONTROL]
        if not offsets:
            return None
        self._next[key] = end
        return LogBatch(
            topic=key[0],
            partition=key[1],
            offsets=offsets,
            ts_log_ms=[self._log.ms_of(offset, values[offset] or b"") for offset in offsets],
            keys=[self._log.key_of(values[offset] or b"") for offset in offsets],
            values=[values[offset] for offset in offsets],
            next_offset=end,
            leader_epoch=0,
        )
