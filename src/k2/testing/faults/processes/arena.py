"""A platform that many runs share, and one run on it: topics, catalog, workers and a feeder of its own."""

from __future__ import annotations

import json
import random
import subprocess
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

from k2 import bootstrap
from k2.common.clock import SystemClock
from k2.common.errors import K2Error
from k2.local.platform import LocalPlatform
from k2.schemas.avro import avro_text
from k2.schemas.records import TRADES
from k2.settings import load_settings
from k2.testing.faults.processes.feeder import Feeder
from k2.testing.faults.processes.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from k2.kafka.ports import TopicPartition
    from k2.storage.tables import MarketTables

PARTITIONS: Final = 2
_DISK_BYTES: Final = 24 * 2**20
WAIT_SECONDS_MAX: Final = 120.0
_LOOK_SECONDS: Final = 0.05
_TOPICS: Final = """version: 1
data_types:
  trades: {{retention_days: 7}}
  quotes: {{retention_days: 7}}
  status: {{retention_days: 7}}
  instruments: {{compacted: true}}
  dead_letters: {{retention_days: 7}}
exchanges:
  {exchange}: {{asset_class: faults, timezone: UTC, sequence_scope: symbol, partitions: {partitions}}}
"""
_SETTINGS: Final[dict[str, Any]] = {
    "kafka": {"session_timeout_seconds": 3.0, "request_timeout_seconds": 5.0},
    "catalog": {"busy_timeout_seconds": 1.0, "commit_timeout_seconds": 5.0, "commit_attempts_max": 5},
    "ingestion": {
        "commit_interval_seconds": 0.3,
        "retry_pause_seconds": 0.2,
        "retry_pause_seconds_max": 1.0,
        "identity_check_seconds": 0.5,
        "log_end_grace_seconds": 5.0,
        "revoke_seconds": 3.0,
        "shutdown_seconds": 5.0,
        "dead_letter_flush_seconds": 5.0,
    },
}


class FaultTimeoutError(Exception):
    """Something that a run waited for did not come about."""


class Arena:
    """The shared broker, registry and Valkey."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = SystemClock()
        self.platform = LocalPlatform(directory / "platform", components=("kafka", "registry", "valkey"))

    @contextmanager
    def open(self) -> Iterator[Arena]:
        """Start the platform; end it afterwards."""
        with self.platform:
            yield self

    @contextmanager
    def run(
        self,
        number: int,
        seed: int,
        *,
        broken: float = 0.02,
        small_disk: bool = False,
        feeder: type[Feeder] = Feeder,
    ) -> Iterator[Run]:
        """Give one run; afterwards nothing of it is left running."""
        run = Run(self, number, seed, broken=broken, small_disk=small_disk, feeder=feeder)
        try:
            yield run
        finally:
            run.close()


class Run:
    """One run: its own exchange, catalog and warehouse; workers are started and misled by the scenario."""

    def __init__(
        self, arena: Arena, number: int, seed: int, *, broken: float, small_disk: bool, feeder: type[Feeder] = Feeder
    ) -> None:
        self.arena = arena
        self.clock = arena.clock
        self.draw = random.Random(seed)  # noqa: S311 a run must be repeatable
        self.directory = arena.directory / f"run-{number:04d}"
        self.directory.mkdir()
        self.warehouse = self.directory / "warehouse"
        self.warehouse.mkdir()
        self.exchange = f"f{number:04d}"
        self.topic = f"market.faults.trades.{self.exchange}"
        self.workers: list[WorkerProcess] = []
        self.recoveries: list[float] = []
        self.injected = 0
        self.complaints: list[str] = []
        self.catalog_settings: dict[str, Any] = {}
        self.degradation_settings: dict[str, Any] = {}
        self._stack = ExitStack()
        if small_disk:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", self.warehouse], check=True)
            self._stack.callback(lambda: subprocess.run(["umount", "-l", self.warehouse], check=False))
        topics = self.directory / "topics.yaml"
        topics.write_text(_TOPICS.format(exchange=self.exchange, partitions=PARTITIONS), encoding="utf-8")
        self.settings = load_settings(self._settings_directory("harness", {}))
        self.admin = bootstrap.log_admin(self.settings)
        self._stack.callback(self.admin.close)
        self.admin.create_topics(bootstrap.topic_catalog(self.settings).all_topics)
        self.tables = bootstrap.market_tables(self.settings)
        self._stack.callback(self.tables.close)
        registry = bootstrap.schema_registry(self.settings)
        schema_id = registry.register(f"{self.topic}-value", avro_text(TRADES))
        registry.close()
        self.feeder = feeder(
            self.settings.kafka.bootstrap_servers,
            self.topic,
            schema_id,
            draw=self.draw,
            clock=self.clock,
            broken=broken,
        )

    # What a scenario does.

    def start_worker(
        self,
        *,
        member: str | None = None,
        crash_points: str = "",
        group: str = "faults",
        arguments: Sequence[str] = (),
        kafka: Mapping[str, Any] | None = None,
        catalog: Mapping[str, Any] | None = None,
    ) -> WorkerProcess:
        """Start a worker process of this run; `member` is its stable name, `kafka` and `catalog` replace settings."""
        identity = {"group_id": f"{self.exchange}-{group}"} | ({"member_id": member} if member else {})
        extra = {"crash_points": crash_points, "ingestion": identity, "kafka": kafka or {}, "catalog": catalog or {}}
        worker = WorkerProcess(self._settings_directory(f"worker-{len(self.workers)}", extra), arguments)
        self.workers.append(worker)
        return worker

    def wait(self, what: str, condition: Callable[[], bool], seconds: float = WAIT_SECONDS_MAX) -> float:
        """Wait until the condition holds; return how long that took; FaultTimeoutError if it takes too long."""
        began = self.clock.monotonic()
        while not condition():
            if self.clock.monotonic() - began > seconds:
                tails = "\n".join(worker.last_words() for worker in self.workers)
                raise FaultTimeoutError(f"not within {seconds:.0f} s: {what}\n{tails}")
            self.clock.sleep(_LOOK_SECONDS)
        return self.clock.monotonic() - began

    @contextmanager
    def ingested_again(self) -> Iterator[MarketTables]:
        """Ingest the whole topic once more, by a worker that nothing disturbs, into tables of its own; give those."""
        places = {
            "uri": f"sqlite:///{self.directory}/catalog-again.db",
            "warehouse": f"file://{self.directory}/warehouse-again",
        }
        (self.directory / "warehouse-again").mkdir()
        worker = self.start_worker(group="again", catalog=places)
        settings = load_settings(self._settings_directory("again", {"catalog": places}))
        with closing(bootstrap.market_tables(settings)) as tables:
            self.wait("other tables to hold the whole log", lambda: self._holds_all(tables))
            worker.leave()
            yield tables

    def seams(self, tables: MarketTables | None = None) -> dict[int, int]:
        """Return the seam by partition; empty while the log is not registered, or the catalog does not answer."""
        try:
            head = (tables or self.tables).head("trades")
        except K2Error:
            return {}
        log = head.log_of(self.topic)
        if log is None:
            return {}
        return {
            key.partition: part.next_offset for key, part in head.seam.partitions.items() if key.log_id == log.log_id
        }

    def wait_for_commits(self, seconds: float = WAIT_SECONDS_MAX) -> float:
        """Wait until the seam of every partition has moved; return how long that took. Records must be coming."""
        before = self.seams()

        def all_moved() -> bool:
            now = self.seams()
            return len(now) == PARTITIONS and all(now[key] > before.get(key, 0) for key in now)

        return self.wait("a commit in every partition", all_moved, seconds)

    def recover(self, began: float) -> None:
        """Wait for the first commit in every partition, and note how long after `began` (monotonic seconds) it was."""
        self.wait_for_commits()
        self.recoveries.append(self.clock.monotonic() - began)

    def quiesce(self) -> None:
        """Stop sending, see that a worker runs, wait until the tables hold the log, stop the workers."""
        self.feeder.stop()
        if not any(worker.alive for worker in self.workers):
            self.start_worker()
        self.wait_until_all_is_held()
        for worker in self.workers:
            worker.leave()

    def wait_until_all_is_held(self) -> None:
        """Wait until the tables hold the whole log."""
        self.wait("the tables to hold the whole log", self._holds_all)

    def fenced(self) -> int:
        """Return how many batches the workers dropped at the fence."""
        return sum(len(worker.events("batch_fenced")) for worker in self.workers)

    def refusals(self) -> list[str]:
        """Return why topics were refused."""
        return [event["reason"] for worker in self.workers for event in worker.events("topic_refused")]

    def close(self) -> None:
        """End everything that the run has started."""
        for worker in self.workers:
            worker.close()
        self.feeder.stop()
        self._stack.close()

    def _holds_all(self, tables: MarketTables | None = None) -> bool:
        try:
            ends: Mapping[TopicPartition, Any] = self.admin.ranges(self.topic)
        except K2Error:
            return False
        seams = self.seams(tables)
        return len(ends) == PARTITIONS and all(seams.get(key[1], -1) >= extent.end for key, extent in ends.items())

    def _settings_directory(self, name: str, extra: Mapping[str, Any]) -> Path:
        """Write a settings file of its own into a directory of its own."""
        directory = self.directory / name
        directory.mkdir()
        shared = self.arena.platform.settings()
        places = {
            "uri": f"sqlite:///{self.directory}/catalog.db",
            "warehouse": f"file://{self.warehouse}",
            **self.catalog_settings,
            **extra.get("catalog", {}),
        }
        sections: dict[str, dict[str, Any]] = {
            "kafka": {
                **_SETTINGS["kafka"],
                "bootstrap_servers": shared.kafka.bootstrap_servers,
                "registry_url": shared.kafka.registry_url,
                **extra.get("kafka", {}),
            },
            "catalog": {**_SETTINGS["catalog"], **places},
            "ingestion": {**_SETTINGS["ingestion"], **extra.get("ingestion", {})},
            "degradation": self.degradation_settings,
        }
        lines = [
            f"topics_file = {json.dumps(str(self.directory / 'topics.yaml'))}",
            f"crash_points = {json.dumps(extra.get('crash_points', ''))}",
        ]
        for section, values in sections.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        (directory / "k2.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return directory
