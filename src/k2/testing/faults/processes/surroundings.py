"""Faults of what the workers depend on: broker, topics, registry, catalog, disk."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import psutil
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]  # not in its list
from valkey import Valkey

from k2 import bootstrap
from k2.ingestion.bloom_deduplicator import ProductionDeduplicator
from k2.testing.fault_proxy import HEALTHY, FaultProxy, NetworkFault
from k2.testing.faults.processes.arena import PARTITIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.testing.faults.processes.arena import Run

_LOCKED_SECONDS: Final = 4.0
_STALLED_SECONDS: Final = 5.0
_VALKEY_SECONDS: Final = 1.0
"""How long a client waits for Valkey."""
_VALKEY_CALL_SECONDS_MAX: Final = 10.0
_IDS: Final = 500
_MORE_RECORDS: Final = 400
_REQUEST_SECONDS: Final = 10.0


def kill_broker(run: Run) -> None:
    """Kill the broker; its supervisor starts it again."""
    run.start_worker()
    run.wait_for_commits()
    restarts = run.arena.platform.status("kafka").restarts
    run.arena.platform.kill("kafka")
    died = run.clock.monotonic()
    run.injected += 1
    run.arena.platform.wait_restarted("kafka", restarts=restarts + 1)
    run.recover(died)


def kill_registry(run: Run) -> None:
    """Kill the registry and Valkey, and start a worker that knows no schema yet."""
    restarts = {name: run.arena.platform.status(name).restarts for name in ("registry", "valkey")}
    for name in restarts:
        run.arena.platform.kill(name)
        run.injected += 1
    run.start_worker()
    for name, count in restarts.items():
        run.arena.platform.wait_restarted(name, restarts=count + 1)
    run.wait_for_commits()


def silence_registry(run: Run) -> None:
    """Put the registry behind a network that falls silent, then loses replies, then heals."""
    url = urlsplit(run.settings.kafka.registry_url)
    with FaultProxy(url.port or 0) as proxy:
        proxy.fault = NetworkFault(silent=True)
        registry_url = url._replace(netloc=f"127.0.0.1:{proxy.port}").geturl()
        worker = run.start_worker(kafka={"registry_url": registry_url, "request_timeout_seconds": 1.0})
        for fault in (NetworkFault(silent=True), NetworkFault(drop_replies=True)):
            proxy.fault = fault
            asked = proxy.connections
            run.wait("the registry to be asked", lambda asked=asked: proxy.connections > asked)  # type: ignore[misc]  # a bound default
            run.injected += 1
        proxy.fault = HEALTHY
        run.wait_for_commits()
        worker.leave()


def create_topic_again(run: Run) -> None:
    """Delete the topic when the tables hold it, create it again: what comes then must be refused, and not stored."""
    _settle(run)
    client = _client(run)
    for future in client.delete_topics([run.topic]).values():
        future.result()
    wanted = bootstrap.topic_catalog(run.settings).all_topics
    run.wait("the topic to be gone", lambda: run.topic not in run.admin.identities([run.topic]))
    run.admin.create_topics(wanted)
    _append_plain(run, b"of another log", 10)
    run.injected += 1
    run.start_worker()
    _expect_refusal(run, "was deleted and created again")


def add_partitions(run: Run) -> None:
    """Add a partition to the topic under a running worker: it must be refused until a person accepts it."""
    run.start_worker()
    run.wait_for_commits()
    run.feeder.stop()
    run.wait_until_all_is_held()
    grown = PARTITIONS + 1
    client = _client(run)
    for future in client.create_partitions([NewPartitions(run.topic, grown)]).values():
        future.result()
    run.wait("the topic to have grown", lambda: run.admin.identities([run.topic])[run.topic].partitions == grown)
    _append_plain(run, b"after the topic grew", 10)
    run.injected += 1
    _expect_refusal(run, f"registered it with {PARTITIONS} partitions, found {grown}")


def let_retention_pass(run: Run) -> None:
    """Delete records that no table holds: the range must be named, and nothing skipped in silence."""
    _settle(run)
    seam = run.seams()[0]
    _append_plain(run, b"never ingested", 10)
    client = _client(run)
    for future in client.delete_records([TopicPartition(run.topic, 0, seam + 5)]).values():
        future.result()
    run.injected += 1
    run.start_worker()
    _expect_refusal(run, f"offsets {seam:,} to {seam + 4:,} (5 records) were deleted before they were ingested")


def restore_old_log(run: Run) -> None:
    """Kill the broker and put an older copy of the topic in its place: the log, with its id, ends below the seam."""
    _settle(run)
    home = run.arena.platform.directory.component("kafka") / "log"
    partitions = [f"{run.topic}-{number}" for number in range(PARTITIONS)]
    copies = run.directory / "old-log"
    for name in partitions:
        shutil.copytree(home / name, copies / name)
    ended = run.admin.ranges(run.topic)[run.topic, 0].end
    run.feeder.send(_MORE_RECORDS)
    run.feeder.stop()
    run.start_worker()
    run.quiesce()
    seam = run.seams()[0]

    def restore() -> None:
        for name in partitions:
            shutil.rmtree(home / name)
            shutil.copytree(copies / name, home / name)

    _restart_broker(run, restore)
    run.injected += 1
    run.start_worker()
    _expect_refusal(run, f"seam says {seam:,}, log ends at {ended:,}: {seam - ended} records")


def _restart_broker(run: Run, while_down: Callable[[], None]) -> None:
    """Kill the broker and do something before its successor, which is a JVM to start first, looks at its files."""
    status = run.arena.platform.status("kafka")
    assert status.process is not None
    killed = psutil.Process(status.process.pid)
    run.arena.platform.kill("kafka")
    run.wait("the broker to be dead", lambda: not killed.is_running() or killed.status() == psutil.STATUS_ZOMBIE)
    while_down()
    run.arena.platform.wait_restarted("kafka", restarts=status.restarts + 1)


def stall_valkey(run: Run) -> None:
    """Let Valkey fall silent for five seconds while ids are looked up in it: none may be dropped unconfirmed.

    Ingestion, which needs no Valkey, must go on meanwhile.
    """
    run.start_worker()
    run.wait_for_commits()
    url = urlsplit(run.arena.platform.settings().valkey.url.get_secret_value())
    with FaultProxy(url.port or 0) as proxy:
        client = Valkey(port=proxy.port, socket_timeout=_VALKEY_SECONDS, retry=None)
        seen = ProductionDeduplicator(client, 100_000, namespace=run.topic)
        known = [f"{run.topic}-known-{number}" for number in range(_IDS)]
        seen.is_duplicate_batch(known)
        proxy.fault = NetworkFault(silent=True)
        began = run.clock.monotonic()
        asked, slowest = 0, 0.0
        while run.clock.monotonic() - began < _STALLED_SECONDS:
            new = [f"{run.topic}-new-{asked}-{number}" for number in range(_IDS)]
            called = run.clock.monotonic()
            dropped = sum(seen.is_duplicate_batch([*new, *known]))
            slowest = max(slowest, run.clock.monotonic() - called)
            asked += 1
            if dropped:
                run.complaints.append(f"{dropped} ids counted as duplicates while Valkey could not confirm it")
        run.injected += asked
        if slowest > _VALKEY_CALL_SECONDS_MAX:
            run.complaints.append(f"a question waited {slowest:.1f} s for Valkey")
        run.wait_for_commits()
        proxy.fault = HEALTHY
        run.wait("ids to be known again", lambda: all(seen.is_duplicate_batch(known)))
        client.connection_pool.disconnect()


def lock_catalog(run: Run) -> None:
    """Hold the catalog's lock from another connection, longer than a writer waits for it."""
    run.start_worker()
    run.wait_for_commits()
    connection = sqlite3.connect(run.directory / "catalog.db", timeout=_REQUEST_SECONDS, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    run.injected += 1
    run.clock.sleep(_LOCKED_SECONDS)
    connection.execute("ROLLBACK")
    connection.close()
    freed = run.clock.monotonic()
    run.recover(freed)


def fill_disk(run: Run) -> None:
    """Fill the warehouse's file system; commits must fail cleanly, and go on when there is room."""
    filler = run.warehouse / "filler"

    def fill() -> None:
        with filler.open("wb") as file:
            while True:
                try:
                    file.write(b"\0" * 65_536)
                    file.flush()
                except OSError:
                    return

    _break_disk(run, fill, filler.unlink)


def make_read_only(run: Run) -> None:
    """Make the warehouse's file system read-only, and writable again."""
    _break_disk(run, lambda: _remount(run, "ro"), lambda: _remount(run, "rw"))


def _break_disk(run: Run, harm: Callable[[], None], mend: Callable[[], None]) -> None:
    worker = run.start_worker()
    run.wait_for_commits()
    harm()
    run.injected += 1
    run.wait("a commit to fail", lambda: bool(worker.events("commit_failed")))
    mend()
    run.recover(run.clock.monotonic())


def _remount(run: Run, how: str) -> None:
    """Mount the warehouse anew; the system refuses for as long as a file is open for writing."""
    command = ["mount", "-o", f"remount,{how}", str(run.warehouse)]
    run.wait(
        f"a moment to remount {how}", lambda: not subprocess.run(command, check=False, capture_output=True).returncode
    )


def _settle(run: Run) -> None:
    """Let the tables take everything that was sent, and stop."""
    run.start_worker()
    run.wait_for_commits()
    run.quiesce()


def _expect_refusal(run: Run, text: str) -> None:
    run.wait(f"a refusal that says: {text}", lambda: any(text in reason for reason in run.refusals()))
    for worker in run.workers:
        worker.leave()


def _append_plain(run: Run, value: bytes, count: int) -> None:
    """Append messages that are no part of what the oracle expects."""
    from confluent_kafka import Producer  # noqa: PLC0415 - only this fault needs it

    producer = Producer({"bootstrap.servers": run.settings.kafka.bootstrap_servers})
    for _ in range(count):
        producer.produce(run.topic, value=value, partition=0)
    producer.flush(_REQUEST_SECONDS)


def _client(run: Run) -> AdminClient:
    return AdminClient({"bootstrap.servers": run.settings.kafka.bootstrap_servers})
