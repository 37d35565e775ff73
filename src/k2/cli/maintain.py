"""`k2 maintain`: keeps the tables up, once or every so often, and drops old days on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from k2.cli.options import DataDirOption

if TYPE_CHECKING:
    from pathlib import Path

    from k2.settings import Settings
    from k2.storage.upkeep.retention import Day
    from k2.storage.upkeep.round import RoundReport

EXIT_PROBLEMS: Final = 1
AUTOMATIC: Final = "auto"
_UNITS_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DAYS_SHOWN: Final = 20


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(name="maintain")(maintain)


def maintain(  # noqa: PLR0917 - options of a command
    data_dir: DataDirOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Do one round now; this is the default.")] = False,
    every: Annotated[
        str | None,
        typer.Option(metavar="T", help="Do a round every T (30s, 5m, 2h) until stopped; auto: as the settings say."),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="T", help="Drop whole days older than T (such as 90d) instead; shown first, then asked."),
    ] = None,
    table: Annotated[list[str] | None, typer.Option(metavar="TABLE", help="Only this table. May be repeated.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before dropping days.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="With --every: port of /metrics, /livez and /readyz.")
    ] = None,
    background: Annotated[bool, typer.Option("--background", hidden=True)] = False,
) -> None:
    """Merge and compact files, expire snapshots, sweep orphaned files. Exit code 1: something could not be done."""
    from k2 import bootstrap
    from k2.common.errors import ConfigurationError
    from k2.settings import load_settings

    settings = load_settings(data_dir)
    if sum((once, every is not None, older_than is not None)) > 1:
        raise ConfigurationError("expected one of --once, --every and --older-than, found several")
    bootstrap.start_process(settings, component="upkeep")
    if older_than is not None:
        _retain(settings, older_than, table or [], dry_run=dry_run, yes=yes)
    elif every is None:
        _once(settings, table or [], dry_run=dry_run, as_json=as_json, sweep_now=not background)
    elif dry_run or table:
        raise ConfigurationError("expected --every alone, found it with --dry-run or --table")
    else:
        seconds = settings.upkeep.interval_seconds if every == AUTOMATIC else seconds_of(every)
        _every(settings, data_dir, seconds, settings.upkeep.metrics_port if metrics_port is None else metrics_port)


def seconds_of(text: str) -> float:
    """Return the seconds of a length of time such as 30s, 5m, 2h or 90d.

    Raises:
        ConfigurationError: the text is none.
    """
    from k2.common.errors import ConfigurationError

    unit = _UNITS_SECONDS.get(text[-1:])
    try:
        seconds = float(text[:-1]) * (unit or 0)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigurationError(f"expected a length of time such as 30s, 5m, 2h or 90d, found {text!r}")
    return seconds


def _once(settings: Settings, names: list[str], *, dry_run: bool, as_json: bool, sweep_now: bool) -> None:
    import json
    import signal
    import threading

    from k2.bootstrap import operations

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with operations.upkeep(settings) as upkeep:
        chosen = _chosen(names, upkeep.table_names)
        report = upkeep.round(chosen, dry_run=dry_run, sweep_now=sweep_now, stopping=stop.is_set)
    if as_json:
        typer.echo(json.dumps(report.to_dict()))
    else:
        _print(report)
    if not report.is_sound:
        raise typer.Exit(EXIT_PROBLEMS)


def _chosen(names: list[str], known: tuple[str, ...]) -> tuple[str, ...]:
    from k2.common.errors import ConfigurationError

    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigurationError(f"expected a table among {', '.join(known)}, found {', '.join(unknown)}")
    return tuple(names) or known


def _every(settings: Settings, data_dir: Path | None, seconds: float, port: int) -> None:
    import signal
    import sys
    import threading

    from k2 import bootstrap
    from k2.cli.upkeep_loop import UpkeepLoop
    from k2.common.logging import get_logger
    from k2.common.metrics import Metrics
    from k2.ingestion.status_server import StatusServer
    from k2.storage.upkeep.health import UpkeepHealth
    from k2.storage.upkeep.metrics import UpkeepMetrics

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    metrics, clock = Metrics(), bootstrap.system_clock()
    health = UpkeepHealth(settings.upkeep.alert_after_failures)
    where = [] if data_dir is None else ["--data-dir", str(data_dir)]
    loop = UpkeepLoop(
        [sys.executable, "-m", "k2.cli.main", "maintain", "--once", "--json", "--background", *where],
        interval_seconds=seconds,
        round_seconds_max=settings.upkeep.round_seconds_max,
        observers=(UpkeepMetrics(metrics, clock), health),
        clock=clock,
    )
    status = StatusServer(
        settings.upkeep.metrics_host,
        port,
        metrics=metrics,
        unready=health.reasons,
        silent_seconds=loop.silent_seconds,
        silent_seconds_max=settings.ingestion.silent_seconds_max,
    )
    status.start()
    log = get_logger(__name__)
    log.info("upkeep_started", address=":".join(map(str, status.address)), interval_seconds=seconds)
    try:
        loop.run(stop)
    finally:
        status.stop()
        log.info("upkeep_stopped")


def _retain(settings: Settings, older_than: str, names: list[str], *, dry_run: bool, yes: bool) -> None:
    from k2.bootstrap import operations

    days_old = seconds_of(older_than) / _UNITS_SECONDS["d"]
    with operations.upkeep(settings) as upkeep:
        retention = upkeep.retention
        planned = {
            name: retention.plan(name, older_than_days=days_old) for name in _chosen(names, retention.table_names)
        }
        for name, days in planned.items():
            _print_days(name, days)
        found = {name: days for name, days in planned.items() if days}
        if dry_run or not found:
            return
        if not yes:
            typer.confirm("Drop these rows for good?", abort=True)
        for name, days in found.items():
            rows = retention.drop(name, days)
            typer.echo(f"market.{name}: {rows:,} rows dropped; the sweep deletes their files once no snapshot has them")


def _print_days(name: str, days: tuple[Day, ...]) -> None:
    rows, files, size = (sum(getattr(day, key) for day in days) for key in ("rows", "file_count", "size_bytes"))
    typer.echo(
        f"market.{name}: {len(days)} days of an exchange to drop: {rows:,} rows, {files:,} files, {size:,} bytes"
    )
    for day in days[:_DAYS_SHOWN]:
        typer.echo(
            f"  {day.date} {day.exchange}: {day.rows:,} rows, {day.file_count:,} files, {day.size_bytes:,} bytes"
        )
    if len(days) > _DAYS_SHOWN:
        typer.echo(f"  and {len(days) - _DAYS_SHOWN} later ones, up to {days[-1].date}")


def _print(report: RoundReport) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    shown = Table(box=None, pad_edge=False, title="would be done" if report.dry_run else None, title_justify="left")
    shown.add_column("table")
    for name in ("rows", "files", "bytes", "snapshots", "files replaced", "orphans", "orphans deleted"):
        shown.add_column(name, justify="right")
    for one in report.tables:
        before, after = one.before, one.after
        shown.add_row(
            one.table,
            f"{after.rows:,}",
            _change(before.files, after.files),
            _change(before.bytes, after.bytes),
            _change(before.snapshots, before.snapshots - one.snapshots_expired if report.dry_run else after.snapshots),
            f"{one.files_replaced:,}",
            f"{one.orphans:,}" if one.swept else "not looked",
            f"{one.orphans_deleted:,}",
        )
    console.print(shown)
    for problem in (*report.problems, *(text for one in report.tables for text in one.problems)):
        console.print(f"problem: {problem}", markup=False)


def _change(before: int, after: int) -> str:
    return f"{after:,}" if before == after else f"{before:,} -> {after:,}"
