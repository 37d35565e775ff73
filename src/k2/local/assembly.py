"""Builds the components of a platform by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from k2.common.errors import ConfigurationError
from k2.local.artifacts import ArtifactCache, fetch_with_jgo, locked_components
from k2.local.java import find_java
from k2.local.k2_component import api, simulator, upkeep, worker
from k2.local.kafka_component import KafkaComponent
from k2.local.registry_component import RegistryComponent
from k2.local.valkey_component import ValkeyComponent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from k2.local.component import Component
    from k2.local.settings import LocalSettings

SERVICES: Final = ("kafka", "registry", "valkey")
EVERYTHING: Final = (*SERVICES, "worker", "api", "upkeep")
KNOWN: Final = (*EVERYTHING, "simulator")


def build_components(
    names: Sequence[str], settings: LocalSettings, cache_dir: Path, *, simulator_arguments: tuple[str, ...] = ()
) -> tuple[Component, ...]:
    """Return the named components.

    Raises:
        ConfigurationError: a name is unknown, or this machine cannot run one of them.
    """
    unknown = [name for name in names if name not in KNOWN]
    if unknown or not names:
        raise ConfigurationError(f"expected components among {', '.join(KNOWN)}, found {', '.join(unknown) or 'none'}")
    return tuple(_build(name, settings, cache_dir, simulator_arguments) for name in KNOWN if name in names)


def _build(name: str, settings: LocalSettings, cache_dir: Path, simulator_arguments: tuple[str, ...]) -> Component:
    match name:
        case "valkey":
            return ValkeyComponent(settings)
        case "worker":
            return worker()
        case "api":
            return api()
        case "upkeep":
            return upkeep()
        case "simulator":
            return simulator(simulator_arguments)
    cache = ArtifactCache(
        cache_dir,
        fetch_with_jgo(settings.download_timeout_seconds),
        threads=settings.download_threads,
        attempts_max=settings.download_attempts_max,
    )
    kind = KafkaComponent if name == "kafka" else RegistryComponent
    return kind(locked_components()[name], cache, find_java(), settings)
