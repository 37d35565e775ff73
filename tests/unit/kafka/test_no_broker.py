"""Without a broker every client says so within its time limit, names the address and goes on trying."""

from __future__ import annotations

import pytest

from k2.common.errors import UnavailableError
from k2.kafka.admin import LogAdmin
from k2.kafka.consumer import GroupReader, LogReader
from k2.kafka.settings import KafkaSettings
from k2.kafka.topics import Topic

NOWHERE = "127.0.0.1:1"
SETTINGS = KafkaSettings(bootstrap_servers=NOWHERE, request_timeout_seconds=0.5)
TOPIC = Topic("market.test.trades.x", "test", "trades", "x", 1, {})


def polled_until_it_says_so(reader) -> None:
    for _ in range(100):
        reader.poll(10, 0.1)


@pytest.mark.parametrize(
    "ask",
    [
        lambda admin: admin.create_topics([TOPIC]),
        lambda admin: admin.identities([TOPIC.name]),
        lambda admin: admin.ranges(TOPIC.name),
        lambda admin: admin.cluster_id(),
    ],
    ids=["create", "identities", "ranges", "cluster"],
)
def test_questions_to_the_cluster_end_within_their_time_limit(ask) -> None:
    admin = LogAdmin(SETTINGS)

    with pytest.raises(UnavailableError, match=r"K2_KAFKA__BOOTSTRAP_SERVERS") as raised:
        ask(admin)

    assert raised.value.dependency == "kafka"
    admin.close()


def test_a_reader_says_that_no_broker_answers_and_can_be_polled_again() -> None:
    reader = LogReader(SETTINGS, {(TOPIC.name, 0): 0})

    with pytest.raises(UnavailableError, match=NOWHERE):
        polled_until_it_says_so(reader)

    assert reader.poll(10, 0.01) == []
    assert reader.position(TOPIC.name, 0) == 0
    reader.close()


def test_a_member_of_a_group_says_so_too() -> None:
    member = GroupReader(SETTINGS, group_id="g", topics=[TOPIC.name], on_assign=lambda _: {}, on_revoke=lambda _: None)

    with pytest.raises(UnavailableError, match=NOWHERE):
        polled_until_it_says_so(member)

    member.close()


def test_passwords_do_not_show() -> None:
    settings = KafkaSettings(client_properties={"sasl.password": "hush"}, registry_password="hush")

    assert "hush" not in repr(settings)
    assert "hush" not in settings.model_dump_json()
