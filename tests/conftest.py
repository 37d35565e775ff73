"""What tests of several folders share: real servers, each started when the first test asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from k2.kafka.settings import KafkaSettings
from k2.local.platform import LocalPlatform
from k2.testing.services.places import LOCAL, SERVED, Services

MEBIBYTE = 2**20

STEP_BACK = 5
"""Niceness of the processes that have no servers; threads of Polars starve at twice that."""

hypothesis.settings.register_profile("k2", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("k2")


SERVERS = (
    "tests/contract/",
    "tests/integration/",
    "tests/simulation/test_catalog_outages.py",
    "tests/simulation/test_commit_interleavings.py",
    "tests/simulation/test_commit_kills.py",
)
"""Where tests of real servers are: of several processes that share the tests, one has all of these."""


class ServersApart(LoadFileScheduling):
    """Starts each server in one process only, and no two platforms beside each other; other tests go file by file."""

    def _split_scope(self, nodeid: str) -> str:
        return "servers" if nodeid.startswith(SERVERS) else super()._split_scope(nodeid)


def pytest_configure(config: pytest.Config) -> None:
    """Let the process that has the servers, which is the first one, go before the others: it waits for real time."""
    worker = getattr(config, "workerinput", {}).get("workerid", "gw0")
    if worker != "gw0":
        os.nice(STEP_BACK)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    return ServersApart(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def servers_elsewhere(request: pytest.FixtureRequest) -> list[str]:
    """The collected tests of real servers that are not where SERVERS says."""
    marked = [item.nodeid for item in request.session.items if item.get_closest_marker("platform")]
    return [name for name in marked if not name.startswith(SERVERS)]


@pytest.fixture(scope="session")
def kafka_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    with LocalPlatform(tmp_path_factory.mktemp("log") / "data", components=("kafka", "registry")) as platform:
        yield platform.settings().kafka


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with LocalPlatform(tmp_path_factory.mktemp("cache") / "data", components=("valkey",)) as platform:
        yield platform.settings().valkey.url.get_secret_value()


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Services]:
    """PostgreSQL, a REST catalog and an S3 store, downloaded once per user; where that cannot be, a test skips."""
    terminal, told = request.config.get_terminal_writer(), set[tuple[str, int]]()

    def progress(name: str, done: int, total: int) -> None:
        tenth = done * 10 // total
        if (name, tenth) not in told:
            told.add((name, tenth))
            terminal.line(f"\ndownloading {name}: {done // MEBIBYTE} of {total // MEBIBYTE} MiB", flush=True)

    with Services(tmp_path_factory.mktemp("services"), progress=progress, not_to_be_had=pytest.skip) as services:
        yield services


@pytest.fixture(params=[LOCAL, *(pytest.param(name, marks=pytest.mark.platform) for name in SERVED)])
def place(request: pytest.FixtureRequest, services: Services, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings of each catalog and store in turn, without tables yet."""
    with services.place(request.param, tmp_path) as settings:
        yield settings
