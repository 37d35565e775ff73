"""`k2 gaps halted`, `release` and `releases`: the streams that are deferred for their gaps, and letting them go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from k2.cli.options import DataDirOption
from k2.cli.who import who
from k2.common.errors import ConfigurationError
from k2.common.units import NS_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from k2.settings import Settings
    from k2.storage.seam import DeferredRange, HaltedStream
    from k2.storage.tables import TableHead

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_US_PER_SECOND = 1_000_000


def register(gaps: typer.Typer) -> None:
    """Add the commands to the group of `k2 gaps`."""
    gaps.command(name="halted")(halted)
    gaps.command(name="release")(release)
    gaps.command(name="releases")(releases)


def halted(data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """List the streams that are deferred since a gap of halting size: where, since when, how many records wait."""
    from k2.settings import load_settings

    entries = _halted(load_settings(data_dir))
    _show("halted", entries, as_json=as_json)


def release(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="The symbol or channel that is halted.")],
    exchange: Annotated[str, typer.Option("--exchange", "-e", help="Its exchange.")],
    data_dir: DataDirOption = None,
    table: Annotated[str | None, typer.Option("--table", help="Only in this table: trades or quotes.")] = None,
    note: Annotated[str, typer.Option("--note", help="Why it may go on; kept with who said so.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Let a halted stream go on: what waits is written in the order of the log, and its gap is recorded."""
    from k2.bootstrap import announcing, system_clock
    from k2.common.announcing import ReleaseRequest
    from k2.settings import load_settings

    settings = load_settings(data_dir)
    found = [
        each
        for each in _halted(settings)
        if (each["stream"], each["exchange"]) == (stream, exchange) and table in (None, each["table"])
    ]
    if not found:
        raise ConfigurationError(
            f"expected {stream} of {exchange} to be halted, found that it is not: `k2 gaps halted` lists what is"
        )
    records = sum(each["records"] for each in found)
    if not yes:
        typer.confirm(f"{records:,} records of {stream} are written, without the missing numbers; go on?", abort=True)
    now_ns = system_clock().time_ns()
    with announcing.release_book(settings) as book:
        for each in found:
            place = (each["table"], each["log_id"], each["partition"], each["since_offset"])
            book.ask(ReleaseRequest(*place, stream, now_ns, who(), note))
    typer.echo(f"released {stream} of {exchange}: {records:,} records go on; `k2 gaps halted` shows what is left")


def releases(
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="Most releases shown.")] = 20,
) -> None:
    """List the newest releases: when, who, what and why."""
    from k2.bootstrap import announcing
    from k2.settings import load_settings

    with announcing.release_book(load_settings(data_dir)) as book:
        asked = book.asked(limit)
    entries = [
        {
            "requested_at": _moment(each.requested_at_ns / NS_PER_SECOND),
            "requested_by": each.requested_by,
            "table": each.table,
            "stream": each.stream,
            "partition": each.partition,
            "since_offset": each.since,
            "note": each.note,
        }
        for each in asked
    ]
    _show("releases", entries, as_json=as_json)


def _halted(settings: Settings) -> list[dict[str, Any]]:
    """Return the halted streams of all tables as plain values."""
    from k2.bootstrap import operations

    return [
        _plain(head, entry, entry.halted)
        for head in operations.table_heads(settings)
        for entry in head.seam.deferred
        if entry.halted is not None
    ]


def _plain(head: TableHead, entry: DeferredRange, halted: HaltedStream) -> dict[str, Any]:
    from k2.kafka.topics import exchange_of

    topics = {log.log_id: log.topic for log in head.logs}
    return {
        "exchange": exchange_of(topics[entry.log_id]),
        "stream": halted.stream,
        "symbols": len(halted.symbols),
        "table": head.table_name,
        "log_id": entry.log_id,
        "partition": entry.partition,
        "since_offset": halted.since,
        "since": _moment(halted.since_us / _US_PER_SECOND),
        "records": entry.records,
    }


def _show(name: str, entries: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    import json

    if as_json:
        typer.echo(json.dumps({name: entries}, indent=2))
    elif entries:
        _print(entries)
    else:
        typer.echo(f"no {name}" if name == "releases" else "nothing is halted")


def _print(entries: Iterable[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from k2.cli.console import wide_console

    rows = list(entries)
    grid = Table(box=None, pad_edge=False)
    for name in rows[0]:
        grid.add_column(name.replace("_", " "))
    for each in rows:
        grid.add_row(*(escape(str(value)) for value in each.values()))
    wide_console().print(grid)


def _moment(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
