"""What tests of several folders share: a real broker and registry, a real Valkey, each started when a test asks."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest

from k2.kafka.settings import KafkaSettings
from k2.local.platform import LocalPlatform

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
