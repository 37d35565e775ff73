"""The logs under test: the fake and the real broker, told apart by nothing but their names."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Protocol

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from k2.kafka.admin import LogAdmin
from k2.kafka.consumer import GroupReader, LogReader
from k2.kafka.producer import LogProducer
from k2.kafka.topics import Topic
from k2.testing.fake_log import FakeAdmin, FakeGroupReader, FakeLog, FakeProducer, FakeReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from k2.kafka.ports import Admin, AssignedReader, GroupedReader, Producing
    from k2.kafka.settings import KafkaSettings

POLLS_MAX = 200


class Log(Protocol):
    """One log under test."""

    admin: Admin
    producer: Producing

    def reader(self, starts: Mapping[tuple[str, int], int]) -> AssignedReader: ...
    def member(
        self, group_id: str, topics: Sequence[str], starts: Callable, revoked: Callable, member_id: str | None = None
    ) -> GroupedReader: ...
    def abort(self, topic: str, partition: int, values: Sequence[bytes]) -> None: ...
    def delete_before(self, topic: str, partition: int, offset: int) -> None: ...
    def close(self) -> None: ...


class InMemory:
    def __init__(self) -> None:
        self.log = FakeLog()
        self.admin = FakeAdmin(self.log)
        self.producer = FakeProducer(self.log)

    def reader(self, starts):
        return FakeReader(self.log, starts)

    def member(self, group_id, topics, starts, revoked, member_id=None):
        return FakeGroupReader(
            self.log, group_id=group_id, topics=topics, on_assign=starts, on_revoke=revoked, member_id=member_id
        )

    def abort(self, topic, partition, values):
        for value in values:
            self.log.append(topic, b"k", value, partition=partition, visible=False)
        self.log.append_control(topic, partition)

    def delete_before(self, topic, partition, offset):
        self.log.delete_before(topic, partition, offset)

    def close(self):
        pass


class Real:
    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self.admin = LogAdmin(settings)
        self.producer = LogProducer(settings)
        self.readers = []

    def reader(self, starts):
        self.readers.append(LogReader(self.settings, starts))
        return self.readers[-1]

    def member(self, group_id, topics, starts, revoked, member_id=None):
        self.readers.append(
            GroupReader(
                self.settings,
                group_id=group_id,
                topics=topics,
                on_assign=starts,
                on_revoke=revoked,
                member_id=member_id,
            )
        )
        return self.readers[-1]

    def abort(self, topic, partition, values):
        producer = Producer(
            {"bootstrap.servers": self.settings.bootstrap_servers, "transactional.id": f"test-{uuid.uuid4()}"}
        )
        before = self.admin.ranges(topic)[topic, partition].end
        producer.init_transactions(10)
        producer.begin_transaction()
        for value in values:
            producer.produce(topic, key=b"k", value=value, partition=partition)
        producer.flush(10)
        producer.abort_transaction(10)
        for _ in range(POLLS_MAX):  # the marker is written after the answer
            if self.admin.ranges(topic)[topic, partition].end == before + len(values) + 1:
                return
        raise AssertionError("no marker of the aborted transaction")

    def delete_before(self, topic, partition, offset):
        client = AdminClient({"bootstrap.servers": self.settings.bootstrap_servers})
        for future in client.delete_records([TopicPartition(topic, partition, offset)]).values():
            future.result(10)

    def close(self):
        for reader in self.readers:
            reader.close()
        self.producer.close()
        self.admin.close()


@pytest.fixture(params=["fake", pytest.param("kafka", marks=pytest.mark.platform)])
def log(request) -> Iterator[Log]:
    log = InMemory() if request.param == "fake" else Real(request.getfixturevalue("kafka_settings"))
    yield log
    log.close()


@pytest.fixture
def create_topic(log) -> Callable[[int], str]:
    """Return what creates a new topic of so many partitions."""

    def create(partitions: int) -> str:
        name = f"market.test.trades.{uuid.uuid4().hex[:12]}"
        config = {"message.timestamp.type": "LogAppendTime"}
        log.admin.create_topics([Topic(name, "test", "trades", name.rpartition(".")[2], partitions, config)])
        return name

    return create


@pytest.fixture
def topic(create_topic) -> str:
    """Return a new topic of two partitions."""
    return create_topic(2)
