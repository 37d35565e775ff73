"""`k2 dlq`: the records that could not become rows: which and why, their bytes, and another try after a fix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from k2.cli.options import DataDirOption

if TYPE_CHECKING:
    import polars as pl

    from k2.ingestion.dead_letters.groups import LetterGroup
    from k2.ingestion.dead_letters.replaying import LeftOut, ReplayReport
    from k2.storage.dead_letter_events import Chosen

EXIT_SOME_LEFT: Final = 1
_BYTES_SHOWN: Final = 256
_OFFSETS_SHOWN: Final = 10

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TopicOption = Annotated[str | None, typer.Option("--topic", metavar="TOPIC", help="Only this topic.")]
TableOption = Annotated[str | None, typer.Option("--table", metavar="TABLE", help="Only this table: trades, quotes.")]
ClassOption = Annotated[str | None, typer.Option("--error-class", metavar="NAME", help="Only this error class.")]
AtOption = Annotated[
    str | None,
    typer.Option("--at", metavar="TOPIC:PARTITION:OFFSET", help="Only this record; a range is FIRST-LAST as OFFSET."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    dlq = typer.Typer(help="Dead letters: list, show, replay.", no_args_is_help=True)
    dlq.command(name="list")(list_letters)
    dlq.command(name="show")(show)
    dlq.command(name="replay")(replay)
    app.add_typer(dlq, name="dlq")


def list_letters(
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
    table: TableOption = None,
    topic: TopicOption = None,
    error_class: ClassOption = None,
) -> None:
    """Count the dead letters by table, topic, error class and reason, with the first and last time of each."""
    import json

    from k2.bootstrap import operations
    from k2.ingestion.dead_letters.groups import group_letters
    from k2.settings import load_settings

    with operations.dead_letters(load_settings(data_dir)) as letters:
        groups = group_letters(letters.outstanding(chosen_of(None, table, topic, error_class)))
    if as_json:
        records = sum(group.records for group in groups)
        typer.echo(json.dumps({"records": records, "groups": [group.to_dict() for group in groups]}, indent=2))
    else:
        _print_groups(groups)


def show(
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
    table: TableOption = None,
    topic: TopicOption = None,
    error_class: ClassOption = None,
    at: AtOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000, help="Most records shown.")] = 1,
) -> None:
    """Show dead letters as they came: coordinate, times, key, bytes, error class and reason."""
    import json

    import polars as pl

    from k2.bootstrap import operations
    from k2.settings import load_settings

    kept: pl.DataFrame | None = None
    order = ("topic", "topic_id", "log_partition", "log_offset")
    with operations.dead_letters(load_settings(data_dir)) as letters:
        for frame in letters.outstanding(chosen_of(at, table, topic, error_class), with_bytes=True):
            joined = frame if kept is None else pl.concat([kept, frame])
            kept = joined.sort(order).head(limit)
    entries = [] if kept is None else [_entry(row) for row in kept.to_dicts()]
    if as_json:
        typer.echo(json.dumps({"records": entries}, indent=2))
        return
    for entry in entries:
        _print_entry(entry)
    if not entries:
        typer.echo("no dead letters")


def replay(
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
    table: TableOption = None,
    topic: TopicOption = None,
    error_class: ClassOption = None,
    at: AtOption = None,
) -> None:
    """Decode dead letters again, and store each that is a record now once, at its own coordinate.

    Exit code 1: some are still bad, or cannot be replayed yet; they stay dead letters, and the report says why.
    """
    import json

    from k2.bootstrap import operations
    from k2.settings import load_settings

    with operations.dead_letter_replay(load_settings(data_dir)) as replaying:
        report = replaying.replay(chosen_of(at, table, topic, error_class))
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        _print_report(report)
    if report.still_bad or report.not_yet:
        raise typer.Exit(EXIT_SOME_LEFT)


def chosen_of(at: str | None, table: str | None, topic: str | None, error_class: str | None) -> Chosen:
    """Return which dead letters the options mean; ConfigurationError for a coordinate that is none."""
    from k2.common.errors import ConfigurationError
    from k2.storage.dead_letter_events import Chosen

    if at is None:
        return Chosen(table_name=table, topic=topic, error_class=error_class)
    try:
        name, partition, offsets = at.split(":")
        first, _, last = offsets.partition("-")
        return Chosen(
            table_name=table,
            topic=name,
            error_class=error_class,
            log_partition=int(partition),
            first_offset=int(first),
            last_offset=int(last or first),
        )
    except ValueError as error:
        raise ConfigurationError(
            f"expected TOPIC:PARTITION:OFFSET with --at, such as market.equities.trades.asx:3:1042, found {at!r}"
        ) from error


def _entry(row: dict[str, object]) -> dict[str, object]:
    """Return a dead letter as plain values: bytes in hexadecimal, times as ISO 8601."""
    entry: dict[str, object] = {}
    for name, value in row.items():
        if isinstance(value, bytes):
            entry[name] = value.hex()
        elif hasattr(value, "isoformat"):
            entry[name] = value.isoformat()
        else:
            entry[name] = value
    return entry


def _print_groups(groups: list[LetterGroup]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from k2.cli.console import wide_console

    console = wide_console()
    if not groups:
        console.print("no dead letters")
        return
    grid = Table(box=None, pad_edge=False)
    for name in ("records", "table", "topic", "error class", "first", "last", "newest reason"):
        grid.add_column(name, justify="right" if name == "records" else "left")
    for group in groups:
        first, last = (at.isoformat(timespec="seconds") for at in (group.first, group.last))
        words = (group.table_name, group.topic, group.error_class, first, last, group.reason)
        grid.add_row(f"{group.records:,}", *map(escape, words))
    console.print(grid)


def _print_entry(entry: dict[str, object]) -> None:
    typer.echo(f"{entry['topic']}:{entry['log_partition']}:{entry['log_offset']}  (log {entry['log_id']})")
    typer.echo(f"  logged   {entry['ts_log'] or 'unknown'}, recorded {entry['ts_recorded']}")
    typer.echo(f"  reason   {entry['error_class']}: {entry['reason']}")
    for name in ("key", "value"):
        content = entry[name]
        if content is None:
            typer.echo(f"  {name:<8} none")
            continue
        raw = bytes.fromhex(str(content))
        cut = f" ... {len(raw):,} bytes in all; --json gives them" if len(raw) > _BYTES_SHOWN else ""
        typer.echo(f"  {name:<8} {raw[:_BYTES_SHOWN]!r}{cut}")
        typer.echo(f"           {raw[:_BYTES_SHOWN].hex(' ', 4)}{' ...' if cut else ''}")


def _print_report(report: ReplayReport) -> None:
    again = report.marked - report.stored - report.duplicates
    before = f"; {again:,} had their row already and are marked now" if again > 0 else ""
    same = f"; {report.duplicates:,} are duplicates of rows and need none" if report.duplicates else ""
    typer.echo(f"{report.chosen:,} dead letters looked at: {report.stored:,} stored{same}{before}")
    for title, items in (("still bad", report.still_bad), ("not yet", report.not_yet)):
        for item in items:
            typer.echo(f"{title}: {item.topic}:{item.log_partition}:{_offsets(item)}: {item.reason}")


def _offsets(item: LeftOut) -> str:
    shown = ", ".join(map(str, item.offsets[:_OFFSETS_SHOWN]))
    more = len(item.offsets) - _OFFSETS_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown
