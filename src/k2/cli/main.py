"""The `k2` command: gathers the areas' commands, and turns errors into one clear line."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from k2 import __version__
from k2.cli import (
    asof,
    backup,
    bars,
    dlq,
    drill,
    export,
    feeds,
    gaps,
    ingest,
    lines,
    maintain,
    offsets,
    platform,
    queries,
    replay,
    serve,
    snapshots,
    stream,
    tiers,
    topics,
    verify,
)
from k2.common.errors import K2Error

EXIT_ERROR = 2

app = typer.Typer(
    name="k2",
    help="K2: a market-data lakehouse that answers exactly, up to the last message.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"k2 {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Trades and quotes in; any question about them, up to the last message, answered exactly."""


for _area in (
    platform, topics, feeds, replay, ingest, lines, serve, queries, export, asof, bars, gaps, verify, maintain, drill,
    tiers, dlq, offsets, backup, snapshots, stream,
):  # fmt: skip
    _area.register(app)


def main() -> None:
    """Run the command line; an error that K2 expects is one line on standard error and exit code 2."""
    try:
        app()
    except K2Error as error:
        sys.stderr.write(f"k2: {error}\n")
        raise SystemExit(EXIT_ERROR) from None


if __name__ == "__main__":
    main()
