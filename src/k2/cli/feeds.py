"""`k2 import` and `k2 simulate`: what brings records into the log."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from k2.cli.options import DataDirOption
from k2.common.errors import ConfigurationError

if TYPE_CHECKING:
    from k2.feeds.importer import Imported
    from k2.feeds.simulation import Played

SECOND_NS = 1_000_000_000


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    importing = typer.Typer(no_args_is_help=True, help="Bring files into the log, each record once.")
    importing.callback()(_import)
    importing.command(name="asx")(import_asx)
    app.add_typer(importing, name="import")
    app.command(name="simulate")(simulate)


def _import() -> None:
    """Bring files into the log, each record once."""


def import_asx(
    directory: Annotated[Path, typer.Argument(help="Directory with trades/, quotes/ and reference/.")],
    data_dir: DataDirOption = None,
) -> None:
    """Import ASX tick files. Importing again adds nothing; an interrupted import resumes."""
    from rich.console import Console
    from rich.progress import Progress

    from k2 import bootstrap
    from k2.feeds.asx import EXCHANGE, TickFile, tick_files
    from k2.feeds.import_lock import import_lock
    from k2.feeds.importer import import_files
    from k2.settings import load_settings

    files = tick_files(directory)
    settings = load_settings(data_dir)
    bootstrap.start_process(settings, component="import")
    console = Console()
    with (
        import_lock(settings.data_dir),
        bootstrap.feed(settings, EXCHANGE) as feed,
        Progress(console=console) as progress,
    ):
        tasks = {file.path: progress.add_task(f"{file.symbol} {file.data_type}", total=None) for file in files}

        def told(file: TickFile, done: int, records: int) -> None:
            progress.update(tasks[file.path], completed=done, total=records)

        found = import_files(files, channel=feed.channel, held=feed.held, on_progress=told)
    _summarize(console, found)


def _summarize(console: object, found: list[Imported]) -> None:
    from rich.console import Console
    from rich.table import Table

    assert isinstance(console, Console)
    table = Table(box=None, pad_edge=False)
    for name in ("file", "symbol", "records", "held before", "added"):
        table.add_column(name, justify="left" if name in ("file", "symbol") else "right")
    for entry in found:
        name = f"{entry.file.data_type}/{entry.file.path.name}"
        table.add_row(name, entry.file.symbol, f"{entry.records:,}", f"{entry.held:,}", f"{entry.sent:,}")
    console.print(table)
    console.print(f"{sum(entry.sent for entry in found):,} records added; all acknowledged by the log")


def simulate(
    data_dir: DataDirOption = None,
    rate: Annotated[float, typer.Option(help="Messages a second on average, trades and quotes together.")] = 200.0,
    symbols: Annotated[int, typer.Option(min=1, help="Symbols; the first are the most active.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and start give the same bytes.")] = 1,
    duration: Annotated[float | None, typer.Option(min=0.001, help="Seconds of market; without end if unset.")] = None,
    start: Annotated[
        str | None, typer.Option(help="When the market begins, ISO 8601; now if unset. In the past: sent unpaced.")
    ] = None,
) -> None:
    """Stream a simulated market into the exchange `sim`, at the pace of its own times."""
    from k2 import bootstrap
    from k2.common.logging import get_logger
    from k2.feeds.market import Market, MarketRun
    from k2.feeds.simulation import Pacer, play
    from k2.settings import load_settings

    settings = load_settings(data_dir)
    bootstrap.start_process(settings, component="simulate")
    clock = bootstrap.system_clock()
    start_ns = clock.time_ns() if start is None else _start_ns(start)
    market = Market(
        MarketRun(seed=seed, start_ns=start_ns, rate=rate, symbols=symbols),
        duration_ns=None if duration is None else int(duration * SECOND_NS),
    )
    if start is not None and duration is None:
        raise ConfigurationError("expected --duration with --start, found none: a run in the past needs an end")
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stopped.append(received))
    log = get_logger(__name__)
    log.info("simulation_started", run=market.run.run_id, rate=rate, symbols=symbols, seed=seed)
    with bootstrap.feed(settings, "sim") as feed:
        pacer = (
            None
            if start is not None
            else Pacer(clock, start_ns=start_ns, catch_up_seconds_max=settings.feeds.catch_up_seconds_max)
        )
        played = play(
            market, feed.channel, clock=clock, pacer=pacer, is_stopped=lambda: bool(stopped), on_progress=lambda _: None
        )
    typer.echo(_told(played))


def _told(played: Played) -> str:
    rate = played.total / played.seconds if played.seconds else 0.0
    return (
        f"{played.total:,} records ({played.records['trades']:,} trades, {played.records['quotes']:,} quotes) "
        f"in {played.seconds:,.1f} s ({rate:,.0f} a second); all acknowledged by the log"
    )


def _start_ns(text: str) -> int:
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"expected --start as ISO 8601, found {text!r}") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * SECOND_NS
