"""What the administrator asks the cluster, and what it takes for granted for a moment."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from k2.kafka import admin as module
from k2.kafka.admin import LogAdmin, LogRange
from k2.kafka.settings import KafkaSettings
from k2.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from confluent_kafka import TopicCollection, TopicPartition


class Cluster:
    """Topics of some partitions, each of which is one range of offsets; notes what it is asked."""

    def __init__(self) -> None:
        self.partitions = {"trades": 2}
        self.start, self.end = 10, 20
        self.asked: list[str] = []

    def describe_topics(self, topics: TopicCollection, **_: Any) -> dict[str, Future[Any]]:
        self.asked.append("topics")
        return {name: self._topic(name) for name in topics.topic_names}

    def describe_cluster(self, **_: Any) -> Future[Any]:
        return told(SimpleNamespace(cluster_id="cluster"))

    def list_offsets(self, request: Mapping[TopicPartition, Any], **_: Any) -> dict[TopicPartition, Future[Any]]:
        earliest = module._EARLIEST in request.values()
        self.asked.append("starts" if earliest else "ends")
        return {
            at: told(SimpleNamespace(offset=self.start if earliest else self.end))
            if at.partition < self.partitions.get(at.topic, 0)
            else unknown()
            for at in request
        }

    def _topic(self, name: str) -> Future[Any]:
        if name not in self.partitions:
            return unknown()
        return told(SimpleNamespace(topic_id="id", partitions=range(self.partitions[name])))


def told(answer: object) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(answer)
    return future


def unknown() -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)))
    return future


def asked_by(cluster: Cluster, admin: LogAdmin, topics: Iterable[str] = ("trades",)) -> list[str]:
    cluster.asked.clear()
    admin.ranges(topics)
    return cluster.asked


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(module, "AdminClient", lambda _: made)
    return made


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def admin(cluster: Cluster, clock: ManualClock) -> LogAdmin:
    assert cluster.asked == []
    return LogAdmin(KafkaSettings(bootstrap_servers="broker:9092"), clock=clock)


def test_of_what_is_known_only_the_ends_are_asked_for(cluster: Cluster, admin: LogAdmin, clock: ManualClock) -> None:
    first = admin.ranges("trades")
    cluster.end = 25
    again = admin.ranges("trades")

    assert first == {("trades", 0): LogRange(10, 20), ("trades", 1): LogRange(10, 20)}
    assert again == {("trades", 0): LogRange(10, 25), ("trades", 1): LogRange(10, 25)}
    assert cluster.asked == ["topics", "starts", "ends", "ends"]
    clock.advance(1)
    assert asked_by(cluster, admin) == ["starts", "ends"]
    clock.advance(2)
    assert asked_by(cluster, admin) == ["topics", "starts", "ends"]


def test_who_asks_for_identities_spares_others_the_topics(
    cluster: Cluster, admin: LogAdmin, clock: ManualClock
) -> None:
    for _ in range(3):
        admin.identities(["trades"])
        clock.advance(2)

    assert asked_by(cluster, admin) == ["starts", "ends"]


def test_a_topic_that_was_made_anew_has_its_own_start(cluster: Cluster, admin: LogAdmin) -> None:
    admin.ranges("trades")
    cluster.start, cluster.end = 0, 5

    assert admin.ranges("trades") == {("trades", 0): LogRange(0, 5), ("trades", 1): LogRange(0, 5)}


def test_a_topic_that_went_away_is_left_out(cluster: Cluster, admin: LogAdmin) -> None:
    admin.ranges("trades")
    cluster.partitions.clear()

    assert admin.ranges("trades") == {}
