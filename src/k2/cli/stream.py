"""`k2 stream`: follows symbols from history to what comes next, one record a line."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Literal

import typer

from k2.cli.options import DataDirOption
from k2.cli.queries import Exchange, client_of

Table = Annotated[Literal["trades", "quotes"], typer.Option(help="What to follow.")]
From = Annotated[
    str,
    typer.Option(
        "--from", help="latest (what comes from now on), a time (history first), or as_of of an answer's certificate."
    ),
]
Cursor = Annotated[str | None, typer.Option(help="Go on behind the event with this cursor; --from is then not used.")]
Bars = Annotated[
    str | None, typer.Option(help="Print the bars of this length as well, each once it is final: 1s to 1d.")
]
Follow = Annotated[bool, typer.Option("--follow/--no-follow", help="Go on with what comes next, or end at the newest.")]
OnSlow = Annotated[
    Literal["wait", "drop", "disconnect"],
    typer.Option(help="A pipe that does not keep up: read on from the table, tell what was left out, or end."),
]
Events = Annotated[
    bool, typer.Option("--events", help="One event a line, as the API sends it, with its cursor; heartbeats too.")
]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(name="stream")(stream)


def stream(  # noqa: PLR0917 - one parameter an option
    symbols: list[str],
    data_dir: DataDirOption = None,
    table: Table = "trades",
    exchange: Exchange = None,
    begin: From = "latest",
    cursor: Cursor = None,
    bars: Bars = None,
    follow: Follow = True,
    on_slow: OnSlow = "wait",
    events: Events = False,
) -> None:
    """Follow symbols: each record as JSON on a line of its own, none missing and none twice, until interrupted.

    At the end the cursor with which another `k2 stream` goes on is told on standard error.
    """
    from k2.settings import load_settings

    with client_of(load_settings(data_dir)) as client:
        reached = cursor
        try:
            for event in client.stream(
                symbols,
                table=table,
                exchange=exchange,
                start=begin,
                cursor=cursor,
                bars=bars,
                follow=follow,
                on_slow=on_slow,
            ):
                if events:
                    _print({"event": event.kind, "cursor": event.cursor, "data": event.body})
                elif event.kind == "left_out":
                    typer.echo(f"left out: {event.body['rows']} records, since this was too slow", err=True)
                for row in () if events else (*event.rows, *event.bars):
                    _print(row)
                sys.stdout.flush()
                reached = event.cursor or reached
        except KeyboardInterrupt:
            pass
        finally:
            if reached is not None and not events:
                typer.echo(f"to go on: --cursor {reached}", err=True)


def _print(value: object) -> None:
    sys.stdout.write(json.dumps(value, separators=(",", ":"), ensure_ascii=False) + "\n")
