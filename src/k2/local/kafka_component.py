"""The log of the local platform: one Kafka node (KRaft) on loopback."""

from __future__ import annotations

import base64
import subprocess
import uuid
from typing import TYPE_CHECKING, Any, Final

from k2.common.errors import ConfigurationError
from k2.local.broker_probe import ask_broker
from k2.local.component import Command, Site, UnhealthyError
from k2.local.java import ENVIRONMENT, AotCache, JavaProgram, JavaRuntime, command
from k2.local.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from k2.local.artifacts import ArtifactCache, LockedComponent
    from k2.local.settings import LocalSettings

_FORMAT_SECONDS_MAX: Final = 60.0


class KafkaComponent:
    """One broker and controller in one process."""

    name = "kafka"
    needs: tuple[str, ...] = ()
    stop_rank = 3
    port_names: tuple[str, ...] = ("kafka", "kafka-controller")
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
        """Download the jars once per user."""
        home = self._cache.install(self._locked, progress)
        self._jars = tuple(sorted(home.glob("*.jar")))

    def command(self, site: Site) -> Command:
        """Write the broker's properties, format its storage the first time, and return how to start it."""
        home = site.directory.component(self.name)
        home.mkdir(exist_ok=True)
        properties = home / "server.properties"
        properties.write_text(_properties(home, site.ports), encoding="utf-8")
        if not (home / "log" / "meta.properties").exists():
            self._format(home, properties)
        program = self._program(home, "kafka.Kafka", str(properties))
        words = command(self._java, program, home / "java.args", cache_options=self.aot_cache().use_options())
        return Command(tuple(words), home, ENVIRONMENT)

    def training_command(self, site: Site) -> Command:
        """Return a run on scratch storage that writes the ahead-of-time cache when it ends."""
        home = site.directory.component(self.name)
        home.mkdir(parents=True)
        properties = home / "server.properties"
        properties.write_text(_properties(home, site.ports), encoding="utf-8")
        self._format(home, properties)
        program = self._program(home, "kafka.Kafka", str(properties))
        words = command(self._java, program, home / "java.args", cache_options=self.aot_cache().train_options())
        return Command(tuple(words), home, ENVIRONMENT)

    def aot_cache(self) -> AotCache:
        """Return the ahead-of-time cache of these jars and options."""
        program = JavaProgram(self._options(), self._jars, "kafka.Kafka")
        return AotCache(self._cache.root / "aot", self.name, self._java, program)

    def check(self, site: Site, *, timeout_seconds: float) -> None:
        """Ask the broker for its cluster id, which must be the one of this data directory."""
        answer = ask_broker(HOST, site.ports["kafka"], timeout_seconds=timeout_seconds)
        own = _cluster_id(site.directory.component(self.name))
        if answer.cluster_id != own:
            raise UnhealthyError(f"expected cluster {own} on port {site.ports['kafka']}, found {answer.cluster_id}")
        if answer.brokers < 1:
            raise UnhealthyError("the broker has not registered with its controller yet")

    def after_start(self, site: Site, *, timeout_seconds: float) -> None:
        """Do nothing: all is in the properties."""

    def before_retry(self) -> None:
        """Start without the ahead-of-time cache, in case that is what failed."""
        self.aot_cache().discard()

    def address(self, site: Site) -> str:
        """Return the bootstrap server."""
        return f"{HOST}:{site.ports['kafka']}"

    def endpoints(self, site: Site) -> dict[str, Any]:
        """Return the setting that leads clients here."""
        return {"kafka": {"bootstrap_servers": self.address(site)}}

    def _format(self, home: Path, properties: Path) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if cluster_id.startswith("-"):  # would be read as an option
            cluster_id = "k" + cluster_id[1:]
        arguments = ("format", "--cluster-id", cluster_id, "--config", str(properties), "--ignore-formatted")
        program = self._program(home, "kafka.tools.StorageTool", *arguments)
        words = command(self._java, program, home / "format.args")
        try:
            subprocess.run(
                words,
                cwd=home,
                env=ENVIRONMENT,
                capture_output=True,
                timeout=_FORMAT_SECONDS_MAX,
                check=True,
                text=True,
            )
        except subprocess.CalledProcessError as error:
            text = (error.stdout + error.stderr).strip()[-500:]
            raise ConfigurationError(f"Kafka cannot format its storage in {home}: {text}") from error
        except subprocess.TimeoutExpired as error:
            raise ConfigurationError(
                f"Kafka did not format its storage in {home} within {_FORMAT_SECONDS_MAX:.0f} s: start it again"
            ) from error

    def _program(self, home: Path, main: str, *arguments: str) -> JavaProgram:
        options = (*self._options(), f"-XX:ErrorFile={home}/java-crash.log")
        return JavaProgram(options, self._jars, main, arguments)

    def _options(self) -> tuple[str, ...]:
        return (
            f"-Xmx{self._settings.kafka_heap_mebibytes}m",
            "-Xms96m",
            "-Xss512k",
            "-XX:+UseSerialGC",
            "-XX:ReservedCodeCacheSize=96m",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-CreateCoredumpOnCrash",
            "-Djava.awt.headless=true",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
            "--enable-native-access=ALL-UNNAMED",
            "--sun-misc-unsafe-memory-access=allow",
        )


def _properties(home: Path, ports: Any) -> str:
    """Return the broker's configuration.

    The short session and heartbeat make a broker that was killed come back in 3 s instead of 11-14: its own old
    registration must expire before it may serve again. That is safe with one node only.
    """
    listener, controller = f"{HOST}:{ports['kafka']}", f"{HOST}:{ports['kafka-controller']}"
    values = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"PLAINTEXT://{listener},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{listener}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(home / "log"),
        "auto.create.topics.enable": "false",
        "default.replication.factor": "1",
        "min.insync.replicas": "1",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "num.replica.fetchers": "1",
        "num.recovery.threads.per.data.dir": "2",
        "background.threads": "2",
        "log.cleaner.dedupe.buffer.size": "8388608",
        "broker.session.timeout.ms": "1500",
        "broker.heartbeat.interval.ms": "300",
        "controller.quorum.election.timeout.ms": "300",
        "controller.quorum.fetch.timeout.ms": "1000",
    }
    return "".join(f"{name}={_escaped(value)}\n" for name, value in values.items())


def _escaped(value: str) -> str:
    """Return a value as Java's properties files want it."""
    text = value.replace("\\", "\\\\")
    return "".join(c if c.isascii() else "".join(f"\\u{unit:04x}" for unit in _utf16(c)) for c in text)


def _utf16(character: str) -> tuple[int, ...]:
    encoded = character.encode("utf-16-be")
    return tuple(int.from_bytes(encoded[i : i + 2]) for i in range(0, len(encoded), 2))


def _cluster_id(home: Path) -> str:
    try:
        lines = (home / "log" / "meta.properties").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.removeprefix("cluster.id=") for line in lines if line.startswith("cluster.id=")), "")
