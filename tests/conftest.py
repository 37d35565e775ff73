"""What tests of several folders share: real servers, each started when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from k2.kafka.settings import KafkaSettings
from k2.local.platform import LocalPlatform
from k2.testing.services.places import LOCAL, SERVED, Services

MEBIBYTE = 2**20

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
