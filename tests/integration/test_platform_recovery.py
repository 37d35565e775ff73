"""The real broker, registry and Valkey: what survives a kill, a stop and a second platform."""

from __future__ import annotations

import os
import signal
import threading

import psutil
import pytest

from k2.common.clock import SystemClock
from k2.common.errors import ConfigurationError, RecordError
from k2.kafka.admin import LogAdmin
from k2.kafka.registry import SchemaRegistry
from k2.kafka.topics import TopicCatalog
from k2.local import control
from k2.local.component import State
from k2.local.description import read_description
from k2.local.platform import LocalPlatform
from k2.local.processes import still_runs
from k2.local.settings import LocalSettings

pytestmark = pytest.mark.platform

CLOCK = SystemClock()
SETTINGS = LocalSettings(fast_start=False)
SCHEMA = '{"type": "record", "name": "r", "fields": [{"name": "a", "type": "string"}]}'
INCOMPATIBLE = (
    '{"type": "record", "name": "r", "fields": [{"name": "a", "type": "string"}, {"name": "b", "type": "long"}]}'
)


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    with LocalPlatform(tmp_path_factory.mktemp("first") / "data", settings=SETTINGS) as platform:
        yield platform


def _topic_ids(settings) -> dict[str, str]:
    """Create the market's topics if they are not there, and return their ids."""
    topics = [topic for topic in TopicCatalog.load().market_topics if topic.exchange == "asx"]
    admin = LogAdmin(settings.kafka)
    try:
        admin.create_topics(topics)
        return {name: found.topic_id for name, found in admin.identities(t.name for t in topics).items()}
    finally:
        admin.close()


def _schema_id(settings, schema: str = SCHEMA) -> int:
    registry = SchemaRegistry(settings.kafka)
    try:
        return registry.register("recovery-value", schema)
    finally:
        registry.close()


def test_every_component_is_healthy_and_is_described(platform):
    report = control.inspect(platform.directory, SETTINGS, CLOCK)

    assert report.healthy
    assert report.supervisor is not None
    assert report.supervisor.pid == os.getpid()
    assert {c.name: c.health for c in report.components} == dict.fromkeys(("kafka", "registry", "valkey"), "healthy")
    assert all(c.pid and c.address and c.memory_bytes for c in report.components)


def test_every_address_is_on_loopback(platform):
    for status in platform.statuses():
        listening = [c for c in psutil.Process(status.process.pid).net_connections() if c.status == "LISTEN"]
        assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}
        assert {c.laddr.port for c in listening} == set(status.ports.values())


def test_an_incompatible_schema_is_refused(platform):
    _schema_id(platform.settings())

    with pytest.raises((ConfigurationError, RecordError)):
        _schema_id(platform.settings(), INCOMPATIBLE)


def test_a_second_platform_on_the_same_directory_is_refused(platform):
    second = LocalPlatform(platform.directory.root, settings=SETTINGS)

    with pytest.raises(ConfigurationError, match=rf"already runs.*process {os.getpid()}"):
        second.start()
    second.stop()

    assert control.inspect(platform.directory, SETTINGS, CLOCK).healthy


def test_a_killed_broker_comes_back_with_its_topics_on_the_same_port(platform):
    before = _topic_ids(platform.settings())
    address = platform.status("kafka").address
    began = CLOCK.monotonic()

    platform.kill("kafka")
    restarted = platform.wait_restarted("kafka")

    assert restarted.address == address
    assert _topic_ids(platform.settings()) == before
    assert CLOCK.monotonic() - began < 30


def test_two_platforms_run_side_by_side(platform, tmp_path):
    with LocalPlatform(tmp_path / "data", components=("kafka", "valkey"), settings=SETTINGS) as second:
        both = [status for one in (platform, second) for status in one.statuses()]
        ports = [port for status in both for port in status.ports.values()]

        assert len(set(ports)) == len(ports)
        assert all(status.state is State.HEALTHY for status in both)
        assert second.settings().kafka.bootstrap_servers != platform.settings().kafka.bootstrap_servers
        assert set(_topic_ids(second.settings()).values()).isdisjoint(_topic_ids(platform.settings()).values())


def test_topics_and_schemas_survive_a_stop_and_a_killed_supervisor(tmp_path):
    platform = LocalPlatform(tmp_path / "data", components=("kafka", "registry"), settings=SETTINGS)
    with platform:
        topics, schema = _topic_ids(platform.settings()), _schema_id(platform.settings())
        stopped = [status.process for status in platform.statuses()]
    pid = control.start_detached(platform.directory, ("kafka", "registry"), SETTINGS, CLOCK)
    after_stop = _topic_ids(platform.settings()), _schema_id(platform.settings())
    description = read_description(platform.directory)
    assert description is not None

    os.kill(pid, signal.SIGKILL)

    _wait_until_gone([component.process for component in description.components])
    assert not any(still_runs(process) for process in stopped)
    assert not control.inspect(platform.directory, SETTINGS, CLOCK).healthy
    with platform:
        after_kill = _topic_ids(platform.settings()), _schema_id(platform.settings())
    assert after_stop == after_kill == (topics, schema)


def _wait_until_gone(processes) -> None:
    deadline = CLOCK.monotonic() + 10
    while any(still_runs(process) for process in processes):
        assert CLOCK.monotonic() < deadline
        CLOCK.sleep(0.02)


def test_a_start_that_is_cancelled_leaves_nothing_running(tmp_path):
    cancelled = threading.Event()
    cancelled.set()
    platform = LocalPlatform(tmp_path / "data", settings=SETTINGS)

    assert not platform.start(cancelled)

    assert control.inspect(platform.directory, SETTINGS, CLOCK).supervisor is None
