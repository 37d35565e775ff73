"""What tests of several folders share: real servers, each started when the first test asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest

from k2.common.errors import UnavailableError
from k2.kafka.settings import KafkaSettings
from k2.local.platform import LocalPlatform
from k2.testing.services.places import LOCAL, SERVED, Services

MEBIBYTE = 2**20
NOT_TO_BE_HAD = {"Maven repository", "PostgreSQL"}
MISSING: dict[str, str] = {}  # asked for once a session: a download that fails takes its time
Started = TypeVar("Started")

hypothesis.settings.register_profile("k2", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("k2")


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
    """PostgreSQL, a REST catalog and an S3 store, downloaded once per user."""
    terminal, told = request.config.get_terminal_writer(), set[tuple[str, int]]()

    def progress(name: str, done: int, total: int) -> None:
        tenth = done * 10 // total
        if (name, tenth) not in told:
            told.add((name, tenth))
            terminal.line(f"\ndownloading {name}: {done // MEBIBYTE} of {total // MEBIBYTE} MiB", flush=True)

    with Services(tmp_path_factory.mktemp("services"), progress) as services:
        yield services


@pytest.fixture(params=[LOCAL, *(pytest.param(name, marks=pytest.mark.platform) for name in SERVED)])
def place(request: pytest.FixtureRequest, services: Services, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings of each catalog and store in turn, without tables yet."""
    with ExitStack() as stack:
        yield or_skip(request.param, lambda: stack.enter_context(services.place(request.param, tmp_path)))


def or_skip(name: str, start: Callable[[], Started]) -> Started:
    """Start a server; skip the test, saying why, where it cannot be had. One that is here and fails is a failure."""
    reason = MISSING.get(name)
    if reason is None:
        try:
            return start()
        except UnavailableError as error:
            if error.dependency not in NOT_TO_BE_HAD:
                raise
            reason = MISSING[name] = str(error)
    pytest.skip(f"no {name} on this machine: {reason}")
