"""`k2 offsets`: where the seams are, and what moving one would lose or read again, before and when it is done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from k2.cli.options import DataDirOption


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    offsets = typer.Typer(
        help="Seams and logs: show, plan a move, apply it. Stop the workers of the table first.", no_args_is_help=True
    )
    offsets.command(name="show")(show)
    offsets.command(name="plan")(plan)
    offsets.command(name="apply")(apply)
    app.add_typer(offsets, name="offsets")


def show(
    data_dir: DataDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the seam of each partition, what its log holds, and whether both fit."""
    import json

    from rich.table import Table

    from k2.bootstrap import operations
    from k2.cli.console import wide_console
    from k2.settings import load_settings

    with operations.offset_planner(load_settings(data_dir)) as planner:
        found = planner.show()
    if as_json:
        typer.echo(json.dumps({"partitions": found}, indent=2))
        return
    grid = Table(box=None, pad_edge=False)
    columns = ("topic", "partition", "log_id", "seam", "leader_epoch", "log_start", "log_end", "state")
    for name in columns:
        grid.add_column(name.replace("_", " "), justify="left" if name in ("topic", "state") else "right")
    for entry in found:
        grid.add_row(*("-" if entry[name] is None else str(entry[name]) for name in columns))
    wide_console().print(grid)


def plan(
    topic: Annotated[str, typer.Argument(help="The topic whose seam is to move.")],
    data_dir: DataDirOption = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="OFFSET", help="Where to: an offset, or `start` or `end` of the log.")
    ] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Only this partition; all if left out.")] = None,
    new_log: Annotated[
        bool, typer.Option("--new-log", help="The topic was created again or moved: go on with it as a new log.")
    ] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the plan.")] = Path(
        "offsets.plan.json"
    ),
) -> None:
    """Show exactly what a move would lose or read again, and write that down for `k2 offsets apply`."""
    from k2.bootstrap import operations
    from k2.common.errors import ConfigurationError
    from k2.settings import load_settings

    if (to is None) == (not new_log):
        raise ConfigurationError("expected either --to or --new-log")
    with operations.offset_planner(load_settings(data_dir)) as planner:
        made = planner.plan_new_log(topic) if to is None else planner.plan_move(topic, to, partition=partition)
    try:
        output.write_text(made.to_json(), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot write {output}: {error.strerror}; name another --output") from error
    typer.echo(f"{made.topic} in market.{made.table_name}, snapshot {made.snapshot_id}:")
    for line in made.lines():
        typer.echo(line)
    typer.echo(f"nothing is changed yet; stop the workers, then: k2 offsets apply {output}")


def apply(
    path: Annotated[Path, typer.Argument(metavar="PLAN", help="The file that `k2 offsets plan` wrote.")],
    data_dir: DataDirOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Do what a plan says, if the table is still as it was then."""
    from k2.bootstrap import operations
    from k2.common.errors import ConfigurationError
    from k2.ingestion.offset_plans import OffsetPlan
    from k2.settings import load_settings

    try:
        made = OffsetPlan.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the plan {path}: {error}") from error
    for line in made.lines():
        typer.echo(line)
    if not yes and not typer.confirm("Do it?"):
        raise typer.Exit(1)
    with operations.offset_planner(load_settings(data_dir)) as planner:
        done = planner.apply(made)
    typer.echo("done; start the workers, then run k2 verify" if done else "this plan had been applied before")
