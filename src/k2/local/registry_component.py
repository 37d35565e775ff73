"""The schema registry of the local platform: Apicurio, which speaks the Confluent REST API, on H2 files."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any, Final

from k2.local.component import Command, Site, UnhealthyError
from k2.local.java import ENVIRONMENT, AotCache, JavaProgram, JavaRuntime, command
from k2.local.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from k2.local.artifacts import ArtifactCache, LockedComponent
    from k2.local.settings import LocalSettings

API_PATH: Final = "/apis/ccompat/v7"
COMPATIBILITY: Final = "BACKWARD_TRANSITIVE"
_MAIN: Final = "io.quarkus.runner.GeneratedMain"


class RegistryComponent:
    """One registry.

    It runs from a flat class path and not from the launcher that it ships: an ahead-of-time cache holds only classes
    of the JVM's own class path, which brings the start from 6 s to 2 s.
    """

    name = "registry"
    needs: tuple[str, ...] = ()
    stop_rank = 2
    port_names: tuple[str, ...] = ("registry", "registry-management")
    may_finish = False

    def __init__(
        self, locked: LockedComponent, cache: ArtifactCache, java: JavaRuntime, settings: LocalSettings
    ) -> None:
        self._locked = locked
        self._cache = cache
        self._java = java
        self._settings = settings
        self._jars: tuple[Path, ...] = ()

    def install(self, progress: Callable[[int, int], None]) -> None:
        """Download and unpack the distribution once per user."""
        home = self._cache.install(self._locked, progress)
        parts = ("quarkus/transformed-bytecode.jar", "quarkus/generated-bytecode.jar", "app/*.jar", "lib/*/*.jar")
        self._jars = tuple(jar for part in parts for jar in sorted(home.glob(part)))

    def command(self, site: Site) -> Command:
        """Return how to start it on its files."""
        home = site.directory.component(self.name)
        home.mkdir(exist_ok=True)
        program = self._program(home, site.ports)
        words = command(self._java, program, home / "java.args", cache_options=self.aot_cache().use_options())
        return Command(tuple(words), home, ENVIRONMENT)

    def training_command(self, site: Site) -> Command:
        """Return a run on scratch storage that writes the ahead-of-time cache when it ends."""
        home = site.directory.component(self.name)
        home.mkdir(parents=True)
        program = self._program(home, site.ports)
        words = command(self._java, program, home / "java.args", cache_options=self.aot_cache().train_options())
        return Command(tuple(words), home, ENVIRONMENT)

    def aot_cache(self) -> AotCache:
        """Return the ahead-of-time cache of these jars and options."""
        program = JavaProgram(self._options(), self._jars, _MAIN)
        return AotCache(self._cache.root / "aot", self.name, self._java, program)

    def check(self, site: Site, *, timeout_seconds: float) -> None:
        """Read the global configuration, which the registry reads from its storage."""
        _request(site, "GET", "/config", None, timeout_seconds)

    def after_start(self, site: Site, *, timeout_seconds: float) -> None:
        """Refuse schemas that cannot read what all earlier ones wrote; the registry's own default accepts any."""
        if _request(site, "GET", "/config", None, timeout_seconds).get("compatibilityLevel") != COMPATIBILITY:
            _request(site, "PUT", "/config", {"compatibility": COMPATIBILITY}, timeout_seconds)

    def before_retry(self) -> None:
        """Start without the ahead-of-time cache, in case that is what failed."""
        self.aot_cache().discard()

    def address(self, site: Site) -> str:
        """Return the base URL of the Confluent REST API."""
        return f"http://{HOST}:{site.ports['registry']}{API_PATH}"

    def endpoints(self, site: Site) -> dict[str, Any]:
        """Return the setting that leads clients here."""
        return {"kafka": {"registry_url": self.address(site)}}

    def _program(self, home: Path, ports: Mapping[str, int]) -> JavaProgram:
        options = (*self._options(), *_properties(home, ports), f"-XX:ErrorFile={home}/java-crash.log")
        return JavaProgram(options, self._jars, _MAIN)

    def _options(self) -> tuple[str, ...]:
        return (
            f"-Xmx{self._settings.registry_heap_mebibytes}m",
            "-Xms32m",
            "-Xss512k",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:ReservedCodeCacheSize=64m",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-CreateCoredumpOnCrash",
            "-Djava.awt.headless=true",
            "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
            "--add-opens=java.base/java.lang=ALL-UNNAMED",
            "--enable-native-access=ALL-UNNAMED",
            "--sun-misc-unsafe-memory-access=allow",
        )


def _properties(home: Path, ports: Mapping[str, int]) -> tuple[str, ...]:
    values = {
        "quarkus.http.host": HOST,
        "quarkus.http.port": str(ports["registry"]),
        "quarkus.http.access-log.enabled": "false",
        "quarkus.http.io-threads": "2",
        "quarkus.management.host": HOST,
        "quarkus.management.port": str(ports["registry-management"]),
        "apicurio.storage.kind": "sql",
        "apicurio.storage.sql.kind": "h2",
        "apicurio.storage.snapshot.location": str(home),
        "apicurio.datasource.url": f"jdbc:h2:file:{home}/registry",
        "apicurio.datasource.jdbc.initial-size": "2",
        "apicurio.datasource.jdbc.min-size": "2",
        "apicurio.datasource.jdbc.max-size": "10",
        "java.io.tmpdir": str(home),
    }
    return tuple(f"-D{name}={value}" for name, value in values.items())


def _request(site: Site, method: str, path: str, body: Any, timeout_seconds: float) -> dict[str, Any]:
    connection = http.client.HTTPConnection(HOST, site.ports["registry"], timeout=timeout_seconds)
    try:
        payload = None if body is None else json.dumps(body)
        connection.request(method, API_PATH + path, payload, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != http.client.OK:
            raise UnhealthyError(f"the registry answers {answer.status} to {method} {path}: {text[:200]!r}")
        values: dict[str, Any] = json.loads(text)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnhealthyError(f"no answer from the registry on port {site.ports['registry']}: {error}") from error
    else:
        return values
    finally:
        connection.close()
