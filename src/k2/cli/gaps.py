"""`k2 gaps`: the numbers that did not come, from the table of gaps, and the streams that are halted for them."""

from __future__ import annotations

from typing import Annotated

import typer

from k2.cli import halts
from k2.cli.options import DataDirOption
from k2.cli.queries import Exchange, FormatOption, Output

Symbol = Annotated[str | None, typer.Option("--symbol", "-s", help="Only this symbol.")]
Since = Annotated[
    str | None, typer.Option(help="Only gaps that end at or after this event time, ISO 8601 (no zone: UTC).")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    group = typer.Typer()
    group.callback(invoke_without_command=True)(gaps)
    halts.register(group)
    app.add_typer(group, name="gaps")


def gaps(
    context: typer.Context,
    data_dir: DataDirOption = None,
    symbol: Symbol = None,
    exchange: Exchange = None,
    since: Since = None,
    format_name: FormatOption = "table",
    output: Output = None,
) -> None:
    """Show each gap in the venues' numbers, the newest first: how many are missing, and whether it was filled."""
    if context.invoked_subcommand is not None:
        return
    from k2.api.parameters import nanoseconds
    from k2.bootstrap import operations
    from k2.cli.output import require_writable, write
    from k2.settings import load_settings

    require_writable(format_name, output)
    since_ns = nanoseconds("--since", since)
    with operations.gap_reader(load_settings(data_dir)) as reader:
        found = reader.gaps(symbol=symbol, exchange=exchange, since_ns=since_ns)
    write(found.to_arrow(), None, format_name, output)
