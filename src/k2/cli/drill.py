"""`k2 drill`: rehearse overload on a running platform, see who did, and end it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from k2.cli.options import DataDirOption
from k2.cli.who import who
from k2.common.degradation import DegradationLevel
from k2.common.errors import ConfigurationError
from k2.common.units import NS_PER_SECOND

if TYPE_CHECKING:
    from k2.common.announcing import DrillRequest
    from k2.kafka.settings import AnnouncingSettings
    from k2.settings import Settings

_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|)")
_UNIT_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}

ForOption = Annotated[
    str, typer.Option("--for", metavar="TIME", help="How long: 90s, 5m, 1h; K2_ANNOUNCING__DRILL_SECONDS_MAX at most.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    drill = typer.Typer(help="Drills: rehearse overload, list who did, stop.", no_args_is_help=True)
    drill.command(name="level")(level)
    drill.command(name="overload")(overload)
    drill.command(name="list")(list_drills)
    drill.command(name="stop")(stop)
    app.add_typer(drill, name="drill")


def level(
    wanted: Annotated[str, typer.Argument(metavar="LEVEL", help="0 to 4, or NORMAL, SOFT, GRACEFUL and so on.")],
    span: ForOption = "60s",
    sink_delay: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="Make each commit wait so long as well, as a slow sink would."),
    ] = 0.0,
    yes: YesOption = False,
    data_dir: DataDirOption = None,
) -> None:
    """Make every worker take at least a level for a while; what it defers is written afterwards."""
    from k2.settings import load_settings

    settings = load_settings(data_dir)
    request = _request(settings, _level(wanted), _seconds(span, settings.announcing), sink_delay)
    _confirm(f"every worker takes at least {request.level.name} for {span}{_slow(sink_delay)}", yes=yes)
    _ask(settings, request)
    typer.echo(
        f"asked for {request.level.name}{_slow(sink_delay)} until {_moment(request.until_ns)}; `k2 drill stop` ends it"
    )


def overload(
    span: ForOption = "60s",
    times: Annotated[float, typer.Option(min=0.1, help="How many times the usual rate.")] = 10.0,
    rate: Annotated[float, typer.Option(min=0.1, help="The usual rate, messages a second.")] = 200.0,
    symbols: Annotated[int, typer.Option(min=1, help="Symbols of the market.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the market.")] = 1,
    sink_rate: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="ROWS", help="Rows a second that the sink takes; twice the usual rate if unset."),
    ] = None,
    yes: YesOption = False,
    data_dir: DataDirOption = None,
) -> None:
    """Stream a simulated market at a multiple of its rate into `sim` while the sink is slow. No level holds it back."""
    from k2.cli.feeds import stream_market
    from k2.feeds.faults.rates import FaultRates
    from k2.feeds.market import MarketRun
    from k2.settings import load_settings

    settings = load_settings(data_dir)
    seconds = _seconds(span, settings.announcing)
    run = MarketRun(seed=seed, start_ns=0, rate=times * rate, symbols=symbols)
    rows = 2 * rate if sink_rate is None else sink_rate
    what = f"{run.rate:,.0f} records a second for {span}, of which the sink takes {rows:,.0f}"
    request = _request(settings, DegradationLevel.NORMAL, seconds, note=f"overload: {what}", sink_rate=rows)
    _confirm(f"the market `sim` gets {what}", yes=yes)
    _ask(settings, request)
    try:
        stream_market(data_dir, run, seconds, FaultRates(), is_held_back=False)
    finally:
        _ask(settings, _request(settings, DegradationLevel.NORMAL, 0, note="overload is over"))


def list_drills(
    data_dir: DataDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="Most drills shown.")] = 20,
) -> None:
    """List the newest drills: when, who, what, until when, and whether it runs."""
    import json
    from itertools import zip_longest

    from k2.bootstrap import announcing, system_clock
    from k2.settings import load_settings

    settings = load_settings(data_dir)
    with announcing.drill_book(settings) as book:
        requests = list(book.asked(limit))
    now_ns = system_clock().time_ns()
    seconds_max = settings.announcing.drill_seconds_max
    entries = [_entry(each, after, now_ns, seconds_max) for each, after in zip_longest(requests, requests[1:])]
    if as_json:
        typer.echo(json.dumps({"drills": entries}, indent=2))
    elif entries:
        _print(entries)
    else:
        typer.echo("no drills")


def stop(data_dir: DataDirOption = None) -> None:
    """End the drill that runs, on every worker."""
    from k2.bootstrap import announcing, system_clock
    from k2.settings import load_settings

    settings = load_settings(data_dir)
    with announcing.drill_book(settings) as book:
        newest = list(book.asked(1))
        now_ns = system_clock().time_ns()
        if not newest or not newest[0].runs_at(now_ns, seconds_max=settings.announcing.drill_seconds_max):
            typer.echo("no drill runs")
            return
        book.ask(_request(settings, DegradationLevel.NORMAL, 0, note="stop"))
    typer.echo(f"stopped {newest[0].level.name}, asked for by {newest[0].requested_by}")


def _level(text: str) -> DegradationLevel:
    names = {each.name: each for each in DegradationLevel} | {str(int(each)): each for each in DegradationLevel}
    found = names.get(text.upper())
    if found is None:
        known = ", ".join(f"{int(each)} ({each.name})" for each in DegradationLevel)
        raise ConfigurationError(f"expected a level among {known}, found {text!r}")
    return found


def _seconds(text: str, settings: AnnouncingSettings) -> float:
    found = _SPAN.fullmatch(text.strip())
    seconds = float(found[1]) * _UNIT_SECONDS[found[2]] if found else 0.0
    if not 0 < seconds <= settings.drill_seconds_max:
        raise ConfigurationError(
            f"expected --for as 90s, 5m or 1h, above 0 and at most {settings.drill_seconds_max:g} s "
            f"(K2_ANNOUNCING__DRILL_SECONDS_MAX), found {text!r}"
        )
    return seconds


def _request(
    settings: Settings,
    wanted: DegradationLevel,
    seconds: float,
    sink_delay: float = 0.0,
    *,
    sink_rate: float = 0.0,
    note: str = "",
) -> DrillRequest:
    from k2.bootstrap import system_clock
    from k2.common.announcing import DrillRequest

    most = settings.announcing.drill_sink_delay_seconds_max
    if sink_delay > most:
        raise ConfigurationError(
            f"expected --sink-delay of at most {most:g} s (K2_ANNOUNCING__DRILL_SINK_DELAY_SECONDS_MAX), "
            f"found {sink_delay:g}"
        )
    now_ns = system_clock().time_ns()
    return DrillRequest(wanted, now_ns + int(seconds * NS_PER_SECOND), now_ns, who(), sink_delay, sink_rate, note)


def _confirm(what: str, *, yes: bool) -> None:
    if not yes:
        typer.confirm(f"{what}; go on?", abort=True)


def _ask(settings: Settings, request: DrillRequest) -> None:
    from k2.bootstrap import announcing

    with announcing.drill_book(settings) as book:
        book.ask(request)


def _slow(sink_delay: float) -> str:
    return f", each commit waits {sink_delay:g} s" if sink_delay else ""


def _moment(time_ns: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time_ns / NS_PER_SECOND, UTC).isoformat(timespec="seconds")


def _entry(request: DrillRequest, after: DrillRequest | None, now_ns: int, seconds_max: float) -> dict[str, Any]:
    """Return a drill as plain values; `after` is the one that was asked for next."""
    ended_ns = request.until_ns if after is None else min(request.until_ns, after.requested_at_ns)
    is_running = after is None and request.runs_at(now_ns, seconds_max=seconds_max)
    return {
        "requested_at": _moment(request.requested_at_ns),
        "requested_by": request.requested_by,
        "level": request.level.name,
        "sink_delay_seconds": request.sink_delay_seconds,
        "sink_rows_per_second": request.sink_rows_per_second,
        "until": _moment(ended_ns),
        "running": is_running,
        "note": request.note,
    }


def _print(entries: list[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from k2.cli.console import wide_console

    grid = Table(box=None, pad_edge=False)
    for name in ("asked for at", "by", "level", "sink", "until", "", "for what"):
        grid.add_column(name)
    for entry in entries:
        waits = f"waits {entry['sink_delay_seconds']:g} s" if entry["sink_delay_seconds"] else ""
        rate = f"{entry['sink_rows_per_second']:,.0f} rows/s" if entry["sink_rows_per_second"] else ""
        sink = ", ".join(filter(None, (waits, rate)))
        state = "running" if entry["running"] else "over"
        words = (
            entry["requested_at"],
            entry["requested_by"],
            entry["level"],
            sink,
            entry["until"],
            state,
            entry["note"],
        )
        grid.add_row(*map(escape, words))
    wide_console().print(grid)
