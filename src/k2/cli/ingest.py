"""`k2 ingest`: one more ingest worker against the platform at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from k2.cli.options import DataDirOption

if TYPE_CHECKING:
    import threading

    from k2.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(name="ingest")(ingest)


def ingest(
    data_dir: DataDirOption = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of /metrics, /livez and /readyz; 0 picks a free one.")
    ] = None,
    member_id: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="This worker's own, stable name in the group: started again, it goes on at once.",
        ),
    ] = None,
    accept_new_log: Annotated[
        list[str] | None,
        typer.Option(
            "--accept-new-log",
            metavar="TOPIC",
            help="Go on with a topic that was created again or moved, as a new log of its table. May be repeated.",
        ),
    ] = None,
) -> None:
    """Take records from the log into the tables until stopped. Any number of workers share the work."""
    import signal
    import threading

    from k2 import bootstrap
    from k2.settings import load_settings

    settings = _with_member_id(load_settings(data_dir), member_id)
    bootstrap.start_process(settings, component="ingest")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    port = settings.ingestion.metrics_port if metrics_port is None else metrics_port
    _run(settings, stop, port=port, accepted=frozenset(accept_new_log or ()))


def _with_member_id(settings: Settings, member_id: str | None) -> Settings:
    if member_id is None:
        return settings
    ingestion = settings.ingestion.model_copy(update={"member_id": member_id})
    return settings.model_copy(update={"ingestion": ingestion})


def _run(settings: Settings, stop: threading.Event, *, port: int, accepted: frozenset[str]) -> None:
    import os

    from k2 import bootstrap
    from k2.common.logging import get_logger
    from k2.common.metrics import Metrics
    from k2.ingestion.events import Observers
    from k2.ingestion.health import WorkerHealth
    from k2.ingestion.memory import prepare_process, release_every
    from k2.ingestion.metrics import IngestMetrics
    from k2.ingestion.status_server import StatusServer

    log = get_logger(__name__)
    metrics, health = Metrics(), WorkerHealth(settings.ingestion)
    counts = IngestMetrics(metrics, clock=bootstrap.system_clock())
    worker = bootstrap.ingest_worker(settings, observer=Observers(counts, health))
    prepare_process()  # now that the worker is made, all is imported that the collector is to leave alone
    os.nice(settings.ingestion.niceness)  # not before: a worker that takes over is to be there soon
    counts.begin(worker.table_names)
    worker.accept_new_logs(accepted)
    status = StatusServer(
        settings.ingestion.metrics_host,
        port,
        metrics=metrics,
        unready=health.reasons,
        silent_seconds=worker.silent_seconds,
        silent_seconds_max=settings.ingestion.silent_seconds_max,
    )
    status.start()
    release_every(settings.ingestion.memory_trim_seconds, stop)
    log.info("worker_started", address=":".join(map(str, status.address)))
    try:
        worker.run(stop)
    finally:
        status.stop()
        log.info("worker_stopped")
