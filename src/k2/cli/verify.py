"""`k2 verify`: audits the tables against the log, and says what to do about what it finds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from k2.cli.options import DataDirOption

if TYPE_CHECKING:
    from k2.query.audit_report import AuditReport
    from k2.settings import Settings
    from k2.storage.deep_check import DeepReport

EXIT_UNSOUND: Final = 1
_SHOWN: Final = ("messages", "rows", "duplicates", "dead_letters", "deferred", "lost", "doubled", "pending")
_POSITIONS: Final = ("seam", "log_end")


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(name="verify")(verify)


def verify(
    data_dir: DataDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    wait_seconds: Annotated[
        float, typer.Option("--wait", min=0, metavar="SECONDS", help="Let ingestion catch up first, at most this long.")
    ] = 0.0,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep", help="Check every file of the tables against its recorded checksum instead; needs no broker."
        ),
    ] = False,
) -> None:
    """Compare every record of the log with the tables. Exit code 1: lost, doubled or damaged; 2: no audit possible."""
    import json

    from k2.bootstrap import operations
    from k2.settings import load_settings

    if deep:
        _verify_files(load_settings(data_dir), as_json=as_json)
        return
    with operations.auditor(load_settings(data_dir)) as auditor:
        report = auditor.verify(wait_seconds=wait_seconds)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        _print(report)
    if not report.is_sound:
        raise typer.Exit(EXIT_UNSOUND)


def _verify_files(settings: Settings, *, as_json: bool) -> None:
    import json
    from contextlib import closing

    from rich.console import Console
    from rich.progress import Progress

    from k2 import bootstrap
    from k2.storage.deep_check import DeepCheck

    with (
        closing(bootstrap.existing_tables(settings)) as tables,
        Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress,
    ):
        task = progress.add_task("reading files", total=None)
        report = DeepCheck(tables).run(lambda done, total: progress.update(task, completed=done, total=total))
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        _print_files(report)
    if not report.is_sound:
        raise typer.Exit(EXIT_UNSOUND)


def _print_files(report: DeepReport) -> None:
    for item in report.damaged:
        typer.echo(f"damaged {item.kind} of {item.table}: {item.path}")
        typer.echo(f"  {item.problem}")
        held = [f"{item.rows:,} rows" if item.rows is not None else "", item.partition or ""]
        if item.log_partitions and item.log_offsets:
            held.append(
                f"log partitions {item.log_partitions[0]} to {item.log_partitions[1]}, "
                f"offsets {item.log_offsets[0]:,} to {item.log_offsets[1]:,}"
            )
        if any(held):
            typer.echo(f"  it held: {', '.join(filter(None, held))}")
        typer.echo(f"  what to do: {item.advice}")
    older = f"; {report.unrecorded:,} have no recorded checksum, their pages were checked" if report.unrecorded else ""
    read = f"{report.files:,} files checked, {report.bytes_read / 2**20:,.1f} MiB of data read{older}"
    typer.echo(f"{'all as written' if report.is_sound else f'DAMAGED: {len(report.damaged):,} files'}: {read}")


def _print(report: AuditReport) -> None:
    from rich.table import Table

    from k2.cli.console import wide_console
    from k2.query.audit_gaps import in_words

    console = wide_console()
    table = Table(box=None, pad_edge=False)
    table.add_column("topic")
    for name in ("partition", *_SHOWN, *_POSITIONS):
        table.add_column(name.replace("_", " "), justify="right")
    shown = [item for item in report.partitions if item.messages or item.rows or item.pending or not item.is_sound]
    for item in shown:
        values = [f"{getattr(item, name):,}" for name in (*_SHOWN, *_POSITIONS)]
        style = None if item.is_sound else "bold red"
        table.add_row(item.topic, str(item.partition), *values, style=style)
    table.add_section()
    totals = report.totals
    table.add_row("all", "", *(f"{totals[name]:,}" for name in _SHOWN), "", "", style="bold")
    console.print(table)
    empty = len(report.partitions) - len(shown)
    if empty:
        console.print(f"({empty} partitions hold nothing)")
    for line in in_words(report.gaps):
        console.print(line)
    for line in report.advice:
        console.print(f"[bold red]![/] {line}")
    console.print(_verdict(report), style="green" if report.is_sound else "bold red")


def _verdict(report: AuditReport) -> str:
    totals = report.totals
    given_up = f"; {totals['given_up']:,} records were given up by hand (k2 offsets)" if totals["given_up"] else ""
    if not report.is_sound:
        found = f"lost {totals['lost']:,}, doubled {totals['doubled']:,}"
        return f"NOT SOUND: {found} (audited in {report.seconds:.1f} s){given_up}"
    pending = f"; {totals['pending']:,} offsets are not ingested yet" if totals["pending"] else ""
    deferred = f"; {totals['deferred']:,} records are deferred, to be backfilled" if totals["deferred"] else ""
    by_counters = sum(not item.compared_with_log for item in report.partitions)
    trusted = f"; {by_counters} partitions partly by counters, since retention has passed" if by_counters else ""
    notes = f"{given_up}{deferred}{pending}{trusted}"
    return f"lost 0, doubled 0: every record below the seam is accounted for (in {report.seconds:.1f} s){notes}"
