"""`k2 import` and `k2 simulate`: what brings records into the log."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Self

import typer

from k2.cli import mapped_imports
from k2.cli.fault_options import (
    Cancels,
    Duplicates,
    Gaps,
    Mute,
    MuteSeconds,
    Reorder,
    ReorderSpan,
    Resets,
    Truth,
    told,
    with_faults,
)
from k2.cli.options import DataDirOption
from k2.common.errors import ConfigurationError, UnavailableError
from k2.common.units import NS_PER_SECOND
from k2.feeds.bad_lines import BadLines

if TYPE_CHECKING:
    from rich.console import Console

    from k2.bootstrap.feeds import Feed
    from k2.feeds.faults.rates import FaultRates
    from k2.feeds.importer import Imported, ImportedReference
    from k2.feeds.market import Market, MarketRun
    from k2.feeds.resuming import ResumingOutlet
    from k2.feeds.settings import SpoolSettings
    from k2.feeds.simulation import Played
    from k2.feeds.spooling_producer import SpoolingProducer

EXIT_NOT_SENT: Final = 1


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    importing = typer.Typer(no_args_is_help=True, help="Bring files into the log, each record once.")
    importing.callback()(_import)
    importing.command(name="asx")(import_asx)
    mapped_imports.add_to(importing)
    app.add_typer(importing, name="import")
    app.command(name="simulate")(simulate)


def _import() -> None:
    """Bring files into the log, each record once."""


def import_asx(
    directory: Annotated[Path, typer.Argument(help="Directory with trades/, quotes/ and reference/.")],
    data_dir: DataDirOption = None,
    bad_lines: Annotated[
        BadLines,
        typer.Option(help="A file with bad lines: refuse it, or send them to the dead letters and import the rest."),
    ] = BadLines.REFUSE,
) -> None:
    """Import ASX tick files and reference data. Importing again adds nothing; an interrupted import resumes."""
    from rich.console import Console
    from rich.progress import Progress

    from k2 import bootstrap
    from k2.bootstrap import feeds
    from k2.cli.hold_lines import HoldLines
    from k2.feeds.asx import EXCHANGE, TickFile, tick_files
    from k2.feeds.asx_reference import read_reference
    from k2.feeds.import_lock import import_lock
    from k2.feeds.importer import check_files, import_files, import_reference
    from k2.settings import load_settings

    files = tick_files(directory)
    records = read_reference(directory)
    settings = load_settings(data_dir)
    bootstrap.start_process(settings, component="import")
    console = Console()
    with Progress(console=console, disable=not console.is_terminal) as progress:
        tasks = {file.path: progress.add_task(f"{file.symbol} {file.data_type}", total=None) for file in files}

        def told(file: TickFile, done: int, total: int | None) -> None:
            progress.update(tasks[file.path], completed=done, total=total)

        checked = check_files(files, settings.feeds, bad_lines=bad_lines, on_progress=told)
        lines = HoldLines(progress.console)
        with import_lock(settings.data_dir), feeds.feed(settings, EXCHANGE, told=lines) as feed:
            reference = import_reference(records, channel=feed.channel, held=feed.held)
            found = import_files(
                checked, channel=feed.channel, held=feed.held, settings=settings.feeds, on_progress=told
            )
    _summarize(console, found, reference)


def _summarize(console: Console, found: list[Imported], reference: ImportedReference) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    names = ("file", "symbol", "records", "held before", "added", "bad lines")
    for name in names:
        table.add_column(name, justify="left" if name in ("file", "symbol") else "right")
    for entry in found:
        name = f"{entry.file.data_type}/{entry.file.path.name}"
        counts = (entry.records, entry.held, entry.sent, entry.bad_lines)
        table.add_row(name, entry.file.symbol, *(f"{count:,}" for count in counts))
    held = reference.records - reference.sent
    table.add_row("reference", "", f"{reference.records:,}", f"{held:,}", f"{reference.sent:,}", "0")
    console.print(table)
    bad = sum(entry.bad_lines for entry in found)
    if bad:
        letters = sum(entry.dead_letters for entry in found)
        console.print(
            f"{bad:,} bad lines were not imported: {letters:,} sent to the dead letters now (topics that end in .dlq), "
            f"{bad - letters:,} were there before",
            style="bold yellow",
        )
    added = sum(entry.sent for entry in found) + reference.sent
    console.print(f"{added:,} records added; all acknowledged by the log")


def simulate(
    data_dir: DataDirOption = None,
    *,
    rate: Annotated[float, typer.Option(help="Messages a second on average, trades and quotes together.")] = 200.0,
    symbols: Annotated[int, typer.Option(min=1, help="Symbols; the first are the most active.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and start give the same bytes.")] = 1,
    duration: Annotated[float | None, typer.Option(min=0.001, help="Seconds of market; without end if unset.")] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="When the market begins, ISO 8601; sent unpaced; again, it adds nothing. "
            "If unset, the run begins now, is paced, and is another one each time."
        ),
    ] = None,
    gaps: Gaps = 0.0,
    duplicates: Duplicates = 0.0,
    reorder: Reorder = 0.0,
    resets: Resets = 0.0,
    mute: Mute = 0.0,
    cancels: Cancels = 0.0,
    reorder_span: ReorderSpan = 20,
    mute_seconds: MuteSeconds = 30.0,
    truth: Truth = None,
    spool: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep what is sent in this directory until the log has it, as a venue's feed does: the run waits for "
            "no broker and is never held back. What an earlier run left there is sent first.",
        ),
    ] = None,
) -> None:
    """Stream a simulated market into the exchange `sim`, at the pace of its own times.

    It is held back while the platform is at CIRCUIT_BREAK. A run with faults is sent whole, also where the platform
    holds some of it.
    """
    from k2.feeds.faults.rates import FaultRates
    from k2.feeds.market import MarketRun

    run = MarketRun(seed=seed, start_ns=0 if start is None else _start_ns(start), rate=rate, symbols=symbols)
    if start is not None and duration is None:
        raise ConfigurationError("expected --duration with --start, found none: a run in the past needs an end")
    if duration is not None:
        _require_not_ahead(run.start_ns + int(duration * NS_PER_SECOND))
    rates = FaultRates(
        gaps=gaps, duplicates=duplicates, reorder=reorder, resets=resets, mute=mute, cancels=cancels,
        seed=seed, reorder_span=reorder_span, mute_seconds=mute_seconds,
    )  # fmt: skip
    stream_market(data_dir, run, duration, rates, truth, is_live=start is None, spool_dir=spool)


def stream_market(
    data_dir: Path | None,
    run: MarketRun,
    duration: float | None,
    rates: FaultRates,
    truth: Path | None = None,
    *,
    is_live: bool = True,
    spool_dir: Path | None = None,
    is_held_back: bool = True,
) -> None:
    """Stream a run until it ends or a signal stops it, and print what came of it; exit code 1 if a spool is left."""
    from rich.console import Console

    from k2 import bootstrap
    from k2.bootstrap import feeds
    from k2.cli.hold_lines import HoldLines
    from k2.common.logging import get_logger
    from k2.feeds.market import EXCHANGE, Market
    from k2.feeds.simulation import Pacer, play
    from k2.settings import load_settings

    settings = load_settings(data_dir)
    bootstrap.start_process(settings, component="simulate")
    clock = bootstrap.system_clock()
    scope = bootstrap.topic_catalog(settings).exchanges[EXCHANGE].sequence_scope
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stopped.append(received))
    console = Console()
    lines = HoldLines(console)
    left = 0
    with (
        feeds.feed(
            settings,
            EXCHANGE,
            told=lines if is_held_back else None,
            is_stopped=lambda: bool(stopped),
            spool_dir=spool_dir,
        ) as feed,
        with_faults(feed.channel, rates, truth, settings=settings, scope=scope, feed="simulate") as faulty,
        _RunProgress(console, duration, feed.spool) as progress,
    ):
        _send_what_was_left(feed.spool, settings.feeds.spool, console, is_live=is_live)
        pacer = None
        if is_live:  # the market opens once its way into the log is ready
            run = replace(run, start_ns=clock.time_ns())
            pacer = Pacer(
                clock, start_ns=run.start_ns, catch_up_seconds_max=settings.feeds.catch_up_seconds_max, on_slip=_slipped
            )
        get_logger(__name__).info(
            "simulation_started", run=run.run_id, rate=run.rate, symbols=run.symbols, seed=run.seed,
            start_ns=run.start_ns,
        )  # fmt: skip
        market = Market(run, duration_ns=None if duration is None else int(duration * NS_PER_SECOND))
        resumed = None if is_live or faulty else _resumed(feed, market, int((duration or 0) * NS_PER_SECOND))
        played = play(
            market,
            faulty or resumed or feed.channel,
            clock=clock,
            pacer=pacer,
            is_stopped=lambda: bool(stopped),
            on_progress=progress.told,
            heartbeat_seconds=settings.feeds.heartbeat_seconds,
        )
        if feed.spool is not None:
            # a second signal ends the wait as well
            left = feed.spool.drain(settings.feeds.spool.drain_seconds, is_stopped=lambda: len(stopped) > 1)
    end = (
        "all acknowledged by the log"
        if not left
        else f"{left:,} messages wait in {spool_dir}; run it again to send them"
    )
    typer.echo(f"{_told(played, resumed.left_out if resumed else 0)}{lines.summary}; {end}")
    if faulty is not None:
        typer.echo(told(faulty, truth))
    if left:
        raise typer.Exit(EXIT_NOT_SENT)


def _send_what_was_left(
    spool: SpoolingProducer | None, settings: SpoolSettings, console: Console, *, is_live: bool
) -> None:
    """Say what an earlier run left; a run that resumes asks the log what it holds, so that must be in it before."""
    if spool is None or not spool.waiting:
        return
    console.print(f"{spool.waiting:,} messages that an earlier run left in the spool are sent first")
    if not is_live and (left := spool.drain(settings.drain_seconds)):
        raise UnavailableError(
            f"expected the log to take what an earlier run left in the spool within {settings.drain_seconds:g} s, "
            f"found {left:,} messages left: is the broker up? (`k2 status`)",
            dependency="kafka",
        )


def _slipped(seconds: float) -> None:
    from k2.common.logging import get_logger

    get_logger(__name__).warning("simulation_slipped", seconds=round(seconds, 3))


class _RunProgress:
    """A bar that follows the market's own time, on a terminal; elsewhere nothing."""

    def __init__(self, console: Console, duration: float | None, spool: SpoolingProducer | None) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._task = self._progress.add_task("simulated market", total=duration)
        self._spool = spool

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def told(self, played: Played) -> None:
        """Show how far the run is."""
        spooled = f", {self._spool.waiting:,} in the spool" if self._spool is not None and self._spool.waiting else ""
        description = f"{played.total:,} records{spooled}"
        self._progress.update(self._task, completed=played.market_seconds, description=description)


def _resumed(feed: Feed, market: Market, duration_ns: int) -> ResumingOutlet:
    """Return the way into the log that leaves out what the platform holds of the run."""
    from k2.feeds.resuming import ResumingOutlet
    from k2.schemas.records import RECORD_TYPES

    run = market.run
    held = {
        data_type: feed.held.highest_by_partition(
            feed.channel.topic(data_type),
            source=run.run_id,
            start_ns=run.start_ns,
            end_ns=run.start_ns + duration_ns + NS_PER_SECOND,
        )
        for data_type in RECORD_TYPES
    }
    return ResumingOutlet(feed.channel, held)


def _told(played: Played, left_out: int) -> str:
    rate = played.total / played.seconds if played.seconds else 0.0
    held = f"; {left_out:,} of them were held before and not sent again" if left_out else ""
    slipped = f"; {played.slipped_seconds:,.1f} s late" if played.slipped_seconds else ""
    return (
        f"{played.total:,} records ({played.records['trades']:,} trades, {played.records['quotes']:,} quotes) "
        f"in {played.seconds:,.1f} s ({rate:,.0f} a second){held}{slipped}"
    )


def _require_not_ahead(end_ns: int) -> None:
    from k2 import bootstrap
    from k2.kafka.record_rules import EventBounds

    latest_ns = bootstrap.system_clock().time_ns() + EventBounds().ahead_ns
    if end_ns > latest_ns:
        raise ConfigurationError(
            "expected --start and --duration of a market that ends within a day from now, found a later one: its "
            "records would become dead letters (EventTimeOutOfBounds)"
        )


def _start_ns(text: str) -> int:
    from datetime import UTC, datetime, timedelta

    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"expected --start as ISO 8601, found {text!r}") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1_000
