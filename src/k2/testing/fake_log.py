"""A log in memory that behaves as Kafka does towards K2: offsets with holes, groups, outages, topics created again."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from k2.common.errors import ConfigurationError, LogIdentityError, MemberFencedError, UnavailableError
from k2.kafka.batches import LogBatch
from k2.kafka.ports import LogIdentity, LogRange, TopicPartition
from k2.kafka.producer import partition_for
from k2.kafka.registry import UnknownSchemaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from k2.kafka.topics import Topic


@dataclass(frozen=True, slots=True)
class FakeMessage:
    """One entry of a partition; `visible` is false for control records and aborted messages."""

    key: bytes | None
    value: bytes | None
    ts_log_ms: int
    headers: Mapping[str, bytes] = field(default_factory=dict)
    visible: bool = True


@dataclass
class FakeTopic:
    """One topic: its id, and per partition the first offset kept and the entries from offset 0 on."""

    topic_id: str
    partitions: list[list[FakeMessage]]
    starts: list[int]


class FakeLog:
    """The broker. `is_up` and `registry_is_up` cut it off; `now_ms` is its clock."""

    def __init__(self, *, cluster_id: str = "fake-cluster", now_ms: int = 1_800_000_000_000) -> None:
        self.cluster_id = cluster_id
        self.now_ms = now_ms
        self.is_up = True
        self.topics: dict[str, FakeTopic] = {}
        self.groups: dict[str, _Group] = {}
        self._ids = itertools.count(1)

    def create_topic(self, name: str, partitions: int = 1) -> None:
        """Create a topic, or create it again: it is another one then."""
        self.topics[name] = FakeTopic(f"fake-{next(self._ids)}", [[] for _ in range(partitions)], [0] * partitions)

    def append(
        self, topic: str, key: bytes | None, value: bytes | None, *, partition: int | None = None, visible: bool = True
    ) -> int:
        """Append one entry and return its offset."""
        self.answer()
        partitions = self.topics[topic].partitions
        number = partition_for(key or b"", len(partitions)) if partition is None else partition
        partitions[number].append(FakeMessage(key, value, self.now_ms, visible=visible))
        return len(partitions[number]) - 1

    def append_control(self, topic: str, partition: int) -> int:
        """Append a control record, which takes an offset and is never read; return its offset."""
        return self.append(topic, None, None, partition=partition, visible=False)

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Let retention pass: entries below `offset` are gone."""
        self.topics[topic].starts[partition] = offset

    def truncate(self, topic: str, partition: int, end: int) -> None:
        """Lose the entries from `end` on, as a broker restored from an older copy does."""
        del self.topics[topic].partitions[partition][end:]

    def messages(self, topic: str) -> list[FakeMessage]:
        """Return the visible messages of all partitions, for a test to look at."""
        return [entry for partition in self.topics[topic].partitions for entry in partition if entry.visible]

    def answer(self) -> None:
        """Answer a request; UnavailableError while the broker is down."""
        if not self.is_up:
            raise UnavailableError("the fake broker is down", dependency="kafka", retry_after_seconds=0.0)

    def group(self, group_id: str) -> _Group:
        """Return a consumer group."""
        return self.groups.setdefault(group_id, _Group(self))


class FakeAdmin:
    """Creates topics in a FakeLog and tells what it holds."""

    def __init__(self, log: FakeLog) -> None:
        self._log = log

    def create_topics(self, topics: Iterable[Topic]) -> list[str]:
        """Create what is missing and return its names; ConfigurationError where partitions differ."""
        self._log.answer()
        wanted = list(topics)
        for topic in wanted:
            present = self._log.topics.get(topic.name)
            if present is not None and len(present.partitions) != topic.partitions:
                raise ConfigurationError(
                    f"expected {topic.partitions} partitions in {topic.name}, found {len(present.partitions)}"
                )
        missing = [topic for topic in wanted if topic.name not in self._log.topics]
        for topic in missing:
            self._log.create_topic(topic.name, topic.partitions)
        return [topic.name for topic in missing]

    def identities(self, topics: Iterable[str]) -> dict[str, LogIdentity]:
        """Return who each topic is; a topic that does not exist is left out."""
        self._log.answer()
        found = {name: self._log.topics[name] for name in topics if name in self._log.topics}
        return {
            name: LogIdentity(self._log.cluster_id, topic.topic_id, name, len(topic.partitions))
            for name, topic in found.items()
        }

    def ranges(self, topics: str | Iterable[str]) -> dict[TopicPartition, LogRange]:
        """Return what each partition holds; a topic that does not exist is left out."""
        self._log.answer()
        names = [topics] if isinstance(topics, str) else list(topics)
        return {
            (name, number): LogRange(topic.starts[number], len(entries))
            for name in names
            if (topic := self._log.topics.get(name)) is not None
            for number, entries in enumerate(topic.partitions)
        }

    def close(self) -> None:
        """Do nothing; a fake holds no connection."""


class FakeReader:
    """Reads partitions that the caller chooses."""

    def __init__(
        self, log: FakeLog, starts: Mapping[TopicPartition, int] | None = None, *, with_headers: bool = False
    ) -> None:
        self._log = log
        self._with_headers = with_headers
        self._next: dict[TopicPartition, int] = dict(starts or {})
        self._paused: set[TopicPartition] = set()

    def poll(self, max_messages: int, timeout_seconds: float) -> list[LogBatch]:  # noqa: ARG002 - never waits
        """Return what is there, at most `max_messages` in all, one batch a partition."""
        self._log.answer()
        batches = []
        left = max_messages
        for key in sorted(self._next):
            if left > 0 and key not in self._paused:
                batch = self._read(key, left)
                if batch is not None:
                    batches.append(batch)
                    left -= len(batch)
        return batches

    def position(self, topic: str, partition: int) -> int:
        """Return the offset that is read next; KeyError for a partition that is not assigned."""
        return self._next[topic, partition]

    def positions(self) -> dict[TopicPartition, int]:
        """Return the offset that is read next, per assigned partition."""
        return dict(self._next)

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Read on from `offset`."""
        self._next[topic, partition] = offset

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        """Return nothing of these partitions until `resume`."""
        self._paused.update(key for key in partitions if key in self._next)

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these partitions on."""
        self._paused.difference_update(partitions)

    def assign(self, starts: Mapping[TopicPartition, int]) -> None:
        """Read these partitions too, each from its offset."""
        self._next.update(starts)

    def unassign(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop reading these partitions."""
        for key in partitions:
            self._next.pop(key, None)
            self._paused.discard(key)

    def close(self) -> None:
        """Give up all partitions."""
        self._next.clear()

    def _read(self, key: TopicPartition, messages_max: int) -> LogBatch | None:
        topic, position = self._log.topics.get(key[0]), self._next[key]
        if topic is None:
            raise LogIdentityError(f"reading {key[0]}: no such topic")
        entries, start = topic.partitions[key[1]], topic.starts[key[1]]
        if not start <= position <= len(entries):
            raise LogIdentityError(
                f"expected offset {position} in {key[0]} partition {key[1]}, found a log of [{start}, {len(entries)})"
            )
        seen = [(at, entry) for at, entry in enumerate(entries[position:], position) if entry.visible][:messages_max]
        ended = len(seen) < messages_max
        next_offset = len(entries) if ended else seen[-1][0] + 1
        if next_offset == position:
            return None
        self._next[key] = next_offset
        return LogBatch(
            topic=key[0],
            partition=key[1],
            offsets=[at for at, _ in seen],
            ts_log_ms=[entry.ts_log_ms for _, entry in seen],
            keys=[entry.key for _, entry in seen],
            values=[entry.value for _, entry in seen],
            next_offset=next_offset,
            leader_epoch=0 if seen else -1,
            headers=[dict(entry.headers) for _, entry in seen] if self._with_headers else None,
        )


class FakeGroupReader(FakeReader):
    """A member of a consumer group; the callbacks run inside of `poll` and `close`."""

    def __init__(
        self,
        log: FakeLog,
        *,
        group_id: str,
        topics: Sequence[str],
        on_assign: Callable[[Sequence[TopicPartition]], Mapping[TopicPartition, int]],
        on_revoke: Callable[[Sequence[TopicPartition]], None],
        on_lost: Callable[[Sequence[TopicPartition]], None] | None = None,
        member_id: str | None = None,
    ) -> None:
        super().__init__(log)
        self.topics = tuple(topics)
        self.member_id = member_id
        self.owned: set[TopicPartition] = set()
        self._on_assign, self._on_revoke, self._on_lost = on_assign, on_revoke, on_lost or on_revoke
        self._group = log.group(group_id)
        self._group.join(self)

    def poll(self, max_messages: int, timeout_seconds: float) -> list[LogBatch]:
        """Follow the group's decisions, then return what is there."""
        self._log.answer()
        if self._group.is_fenced(self):
            raise MemberFencedError(f"another member joined the group as {self.member_id}")
        self._follow()
        return super().poll(max_messages, timeout_seconds)

    def commit_offsets(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Tell the group the next offsets."""
        self._group.offsets.update({key: offset for key, offset in offsets.items() if key in self.owned})

    def close(self) -> None:
        """Give the partitions back and leave the group."""
        self._give_up(sorted(self.owned), self._on_revoke)
        self._group.leave(self)

    def _follow(self) -> None:
        if self not in self._group.members:
            self._give_up(sorted(self.owned), self._on_lost)
            self._group.join(self)
        share = self._group.share_of(self)
        self._give_up(sorted(self.owned - share), self._on_revoke)
        gained = sorted(share - self.owned - self._group.owned_by_others(self))
        if gained:
            self.owned.update(gained)
            self.assign(self._on_assign(gained))

    def _give_up(self, keys: list[TopicPartition], tell: Callable[[Sequence[TopicPartition]], None]) -> None:
        if keys:
            tell(keys)
            self.unassign(keys)
            self.owned.difference_update(keys)


class _Group:
    """Shares partitions out evenly among its members."""

    def __init__(self, log: FakeLog) -> None:
        self._log = log
        self.members: list[FakeGroupReader] = []
        self.offsets: dict[TopicPartition, int] = {}

    def join(self, member: FakeGroupReader) -> None:
        before = next((one for one in self.members if one.member_id and one.member_id == member.member_id), None)
        if before is None:
            self.members.append(member)
        else:
            self.members[self.members.index(before)] = member

    def is_fenced(self, member: FakeGroupReader) -> bool:
        taken = any(other.member_id == member.member_id for other in self.members)
        return member.member_id is not None and taken and member not in self.members

    def leave(self, member: FakeGroupReader) -> None:
        if member in self.members:
            self.members.remove(member)

    put_out = leave
    """What a session timeout does: the member learns of it at its next poll."""

    def share_of(self, member: FakeGroupReader) -> set[TopicPartition]:
        keys = [
            (name, number)
            for name in member.topics
            if name in self._log.topics
            for number in range(len(self._log.topics[name].partitions))
        ]
        return set(keys[self.members.index(member) :: len(self.members)])

    def owned_by_others(self, member: FakeGroupReader) -> set[TopicPartition]:
        return set().union(*(other.owned for other in self.members if other is not member))


class FakeProducer:
    """Appends to a FakeLog; what it sends is there at once."""

    def __init__(self, log: FakeLog, *, on_delivery: Callable[[str, int, int], None] = lambda *_: None) -> None:
        self._log = log
        self._on_delivery = on_delivery
        self.acknowledged = 0

    def send(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        *,
        headers: Sequence[Mapping[str, bytes]] | None = None,
    ) -> None:
        """Append the messages."""
        self._log.answer()
        partitions = self._log.topics[topic].partitions
        for at, (key, value) in enumerate(zip(keys, values, strict=True)):
            message = FakeMessage(key, value, self._log.now_ms, headers[at] if headers else {})
            number = partition_for(key or b"", len(partitions))
            partitions[number].append(message)
            self._on_delivery(topic, number, len(partitions[number]) - 1)
            self.acknowledged += 1

    def flush(self, timeout_seconds: float) -> None:  # noqa: ARG002 - nothing is ever on its way
        """See that the broker answers."""
        self._log.answer()

    def close(self) -> None:
        """Do nothing; a fake holds no connection."""


class FakeRegistry:
    """A schema registry in memory; `is_up` cuts it off, and `asked` lists the ids that were looked up."""

    def __init__(self, schemas: Mapping[int, str] | None = None) -> None:
        self.schemas = dict(schemas or {})
        self.is_up = True
        self.asked: list[int] = []

    def register(self, subject: str, schema_text: str) -> int:  # noqa: ARG002 - ids are global, as Confluent's are
        """Return the id of the schema, registered if new."""
        self._answer()
        for schema_id, text in self.schemas.items():
            if text == schema_text:
                return schema_id
        schema_id = max(self.schemas, default=0) + 1
        self.schemas[schema_id] = schema_text
        return schema_id

    def schema_text(self, schema_id: int) -> str:
        """Return the text of a schema; UnknownSchemaError if there is none."""
        self._answer()
        self.asked.append(schema_id)
        if schema_id not in self.schemas:
            raise UnknownSchemaError(f"expected a schema id that the registry knows, found {schema_id}")
        return self.schemas[schema_id]

    def _answer(self) -> None:
        if not self.is_up:
            raise UnavailableError("the fake registry is down", dependency="schema registry", retry_after_seconds=0.0)
