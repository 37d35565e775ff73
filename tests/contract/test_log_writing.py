"""What the real producer promises: each message once, in order, counted, or a clear refusal."""

from __future__ import annotations

import random
import uuid
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, TopicPartition

from k2.common.errors import K2Error, RecordError
from k2.kafka.admin import LogAdmin
from k2.kafka.consumer import LogReader
from k2.kafka.producer import LogProducer
from k2.kafka.topics import Topic

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.platform


@pytest.fixture
def admin(kafka_settings) -> Iterator[LogAdmin]:
    admin = LogAdmin(kafka_settings)
    yield admin
    admin.close()


@pytest.fixture
def topic(admin) -> str:
    name = f"market.test.trades.{uuid.uuid4().hex[:12]}"
    admin.create_topics([Topic(name, "test", "trades", "x", 1, {"max.message.bytes": "20000"})])
    return name


def read_values(settings, topic: str, count: int) -> list[bytes]:
    reader = LogReader(settings, {(topic, 0): 0})
    values: list[bytes] = []
    for _ in range(200):
        values += [value for batch in reader.poll(10_000, 0.1) for value in batch.values]
        if len(values) >= count:
            break
    reader.close()
    return values


def test_more_messages_than_the_queue_holds_all_arrive_in_order(kafka_settings, topic) -> None:
    producer = LogProducer(kafka_settings.model_copy(update={"producer_queue_messages_max": 500}))
    values = [b"%d" % number for number in range(5_000)]

    producer.send(topic, [b"k"] * len(values), values)
    producer.flush(20)

    assert producer.acknowledged == 5_000
    assert read_values(kafka_settings, topic, 5_000) == values
    producer.close()


def test_headers_arrive_with_their_message(kafka_settings, topic) -> None:
    producer = LogProducer(kafka_settings)

    producer.send(topic, [b"k", None], [b"a", b"b"], headers=[{"x": b"1"}, {"x": b"2", "y": b""}])
    producer.flush(10)

    reader = LogReader(kafka_settings, {(topic, 0): 0}, with_headers=True)
    batches = [batch for _ in range(20) for batch in reader.poll(10, 0.2)]
    reader.close()
    assert [header for batch in batches for header in batch.headers or ()] == [{"x": b"1"}, {"x": b"2", "y": b""}]
    consumer = Consumer({"bootstrap.servers": kafka_settings.bootstrap_servers, "group.id": "test"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    messages = consumer.consume(2, 10)
    consumer.close()
    assert producer.acknowledged == 2
    assert [message.headers() for message in messages] == [[("x", b"1")], [("x", b"2"), ("y", b"")]]
    producer.close()


def test_each_delivery_is_told_with_its_offset(kafka_settings, topic) -> None:
    told: list[tuple[str, int, int]] = []
    producer = LogProducer(kafka_settings, on_delivery=lambda *at: told.append(at))

    producer.send(topic, [b"k"] * 3, [b"a", b"b", b"c"])
    producer.flush(10)

    assert told == [(topic, 0, 0), (topic, 0, 1), (topic, 0, 2)]
    producer.close()


@pytest.mark.parametrize("headers", [None, [{"x": b"1"}]], ids=["plain", "with headers"])
def test_a_message_that_the_topic_refuses_is_an_error_and_the_next_one_passes(kafka_settings, topic, headers) -> None:
    producer = LogProducer(kafka_settings)
    producer.send(topic, [b"k"], [random.Random(1).randbytes(80_000)], headers=headers)

    with pytest.raises(RecordError, match=topic):
        producer.flush(10)

    with pytest.raises(RecordError):
        producer.flush(10)
    assert producer.acknowledged == 0

    producer.send(topic, [b"k"], [b"a"], headers=headers)
    producer.flush(10)

    assert producer.acknowledged == 1
    assert read_values(kafka_settings, topic, 1) == [b"a"]
    producer.close()


def test_a_topic_that_does_not_exist_is_an_error(kafka_settings) -> None:
    producer = LogProducer(kafka_settings.model_copy(update={"delivery_timeout_seconds": 1.0}))
    producer.send("market.test.absent", [b"k"], [b"a"])

    with pytest.raises(K2Error, match=r"market\.test\.absent|_GAPLESS"):
        producer.flush(10)

    producer.close()
