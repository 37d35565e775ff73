"""Keys go where Java and librdkafka put them; a producer without a broker holds a bounded amount and says so."""

from __future__ import annotations

import pytest
from confluent_kafka import murmur2
from hypothesis import given
from hypothesis import strategies as st

from k2.common.errors import RecordError, UnavailableError
from k2.kafka.producer import LogProducer, partition_for
from k2.kafka.settings import KafkaSettings
from k2.testing.manual_clock import ManualClock

NOWHERE = "127.0.0.1:1"


@given(st.binary(max_size=64), st.integers(1, 64))
def test_keys_go_where_librdkafka_puts_them(key, partitions) -> None:
    assert partition_for(key, partitions) == murmur2(key, partitions)


@pytest.mark.parametrize(
    ("key", "hashed"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536), (b"abc", 479470107)],
)
def test_the_hash_is_that_of_kafkas_own_tests(key, hashed) -> None:
    assert partition_for(key, 2**31) == hashed & 0x7FFFFFFF


def test_a_message_that_is_too_large_is_refused_before_any_is_sent() -> None:
    producer = LogProducer(KafkaSettings(bootstrap_servers=NOWHERE, message_bytes_max=1000))

    with pytest.raises(RecordError, match=r"at most 1000 bytes .* found one of 1001"):
        producer.send("t", [b"k", b"k"], [b"x", b"x" * 1001])

    assert producer.acknowledged == 0
    producer.close()


def test_a_flush_without_a_broker_says_how_much_is_left() -> None:
    producer = LogProducer(KafkaSettings(bootstrap_servers=NOWHERE, request_timeout_seconds=1))
    producer.send("t", [b"k"] * 3, [b"x"] * 3)

    with pytest.raises(UnavailableError, match=f"3 messages are not acknowledged by {NOWHERE}"):
        producer.flush(0.1)

    assert producer.acknowledged == 0
    producer.close()


def send_for_ever(producer) -> None:
    for _ in range(1000):
        producer.send("t", [b"k"], [b"x" * 100_000])


class ImpatientClock(ManualClock):
    """Each look at it finds a second gone."""

    def monotonic(self) -> float:
        self.advance(1.0)
        return super().monotonic()


@pytest.mark.parametrize("limit", [{"producer_queue_messages_max": 10}, {"producer_queue_bytes_max": 2**20}])
def test_a_producer_without_a_broker_holds_no_more_than_allowed(limit) -> None:
    settings = KafkaSettings(bootstrap_servers=NOWHERE, delivery_timeout_seconds=5, request_timeout_seconds=1, **limit)
    producer = LogProducer(settings, clock=ImpatientClock())

    with pytest.raises(UnavailableError, match=f"wait for {NOWHERE}"):
        send_for_ever(producer)

    producer.close()


class LosesItsError:
    """Ends as confluent's producer does when a callback follows the fatal error: CPython has lost the reason."""

    def flush(self, _seconds):
        raise SystemError("returned NULL without setting an exception")

    def __len__(self):
        return 0


def test_a_producer_that_ended_without_a_reason_is_an_outage_and_the_next_message_begins_anew() -> None:
    producer = LogProducer(KafkaSettings(bootstrap_servers=NOWHERE, request_timeout_seconds=1))
    producer._producer = LosesItsError()

    with pytest.raises(UnavailableError, match="the client ended"):
        producer.flush(1)

    producer.send("t", [b"k"], [b"x"])
    assert not isinstance(producer._producer, LosesItsError)
    producer.close()
