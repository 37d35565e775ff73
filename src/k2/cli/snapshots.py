"""`k2 snapshot`: lists the snapshots that the tables still have, and keeps some of them by a name."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from k2.cli.options import DataDirOption
from k2.cli.queries import FormatOption, Output

Name = Annotated[str, typer.Argument(metavar="NAME", help="The tag: letters, digits, dots, dashes, underscores.")]
Table = Annotated[Literal["trades", "quotes"] | None, typer.Option("--table", help="Only this table; both without it.")]
Keep = Annotated[
    str | None, typer.Option(metavar="T", help="Keep it so long (30s, 2h, 90d); until it is dropped without it.")
]
SnapshotId = Annotated[
    int | None, typer.Option("--snapshot", help="This snapshot of --table, by its id; the newest without it.")
]

commands = typer.Typer(no_args_is_help=True, help="List the tables' snapshots, and keep some by a name.")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.add_typer(commands, name="snapshot")


@commands.command(name="list")
def show(
    data_dir: DataDirOption = None,
    table: Table = None,
    format_name: FormatOption = "table",
    output: Output = None,
) -> None:
    """Show the snapshots that the tables still have, the newest first, with what --as-of takes."""
    from k2.bootstrap import operations
    from k2.cli.output import require_writable, write
    from k2.query.snapshot_list import snapshots_table
    from k2.settings import load_settings

    require_writable(format_name, output)
    with operations.snapshot_tags(load_settings(data_dir)) as tags:
        found = snapshots_table([each for name in _tables(table) for each in tags.snapshots([name])])
    write(found, None, format_name, output)


@commands.command(name="tag")
def tag(
    name: Name,
    data_dir: DataDirOption = None,
    table: Table = None,
    snapshot_id: SnapshotId = None,
    keep: Keep = None,
) -> None:
    """Keep the newest snapshot of the tables by a name, which --as-of takes; each table's for itself."""
    from k2.bootstrap import operations
    from k2.cli.maintain import seconds_of
    from k2.common.errors import ConfigurationError
    from k2.settings import load_settings

    if snapshot_id is not None and table is None:
        raise ConfigurationError("expected --table with --snapshot, whose ids each table has for itself, found none")
    keep_seconds = None if keep is None else seconds_of(keep)
    with operations.snapshot_tags(load_settings(data_dir)) as tags:
        for each in _tables(table):
            made = tags.tag(name, each, snapshot_id=snapshot_id, keep_seconds=keep_seconds)
            typer.echo(
                f"market.{each}: no snapshot yet, nothing to name"
                if made is None
                else f"market.{each}: {name} is snapshot {made.snapshot_id}, kept "
                f"{f'until it is dropped (k2 snapshot drop {name})' if keep is None else f'for {keep}'}"
            )


@commands.command(name="drop")
def drop(name: Name, data_dir: DataDirOption = None, table: Table = None) -> None:
    """Take a name away. Expiry may then take the snapshot, and the sweep the files that only it has."""
    from k2.bootstrap import operations
    from k2.common.errors import ConfigurationError
    from k2.settings import load_settings

    with operations.snapshot_tags(load_settings(data_dir)) as tags:
        found = {each: tags.drop(name, each) for each in _tables(table)}
    if not any(found.values()):
        raise ConfigurationError(f"expected a tag of the tables, found {name!r}: `k2 snapshot list` shows them")
    for each, gone in found.items():
        if gone is not None:
            typer.echo(f"market.{each}: {name} is dropped; snapshot {gone.snapshot_id} may expire")


def _tables(table: str | None) -> tuple[str, ...]:
    return ("trades", "quotes") if table is None else (table,)
