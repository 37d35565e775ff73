"""`k2 import csv` and `k2 import parquet`: files of anybody's, read as a mapping says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from k2.cli.options import DataDirOption
from k2.common.errors import ConfigurationError
from k2.common.units import NS_PER_DAY
from k2.feeds.bad_lines import BadLines

if TYPE_CHECKING:
    from rich.console import Console

    from k2.feeds.mapped.files import MappedFile
    from k2.feeds.mapped.importing import ImportedFile
    from k2.feeds.mapped.mapping import FileMapping
    from k2.settings import Settings

Form = Literal["csv", "parquet"]
Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files that the mapping fits.")]
MappingOption = Annotated[
    Path, typer.Option("--mapping", help="YAML that says where each field comes from; `k2 import guess` proposes one.")
]
BadLinesOption = Annotated[
    BadLines,
    typer.Option(help="A file with bad lines: refuse it, or send them to the dead letters and import the rest."),
]


def add_to(importing: typer.Typer) -> None:
    """Add the commands to `k2 import`."""
    importing.command(name="csv")(import_csv)
    importing.command(name="parquet")(import_parquet)
    importing.command(name="guess")(guess)


def import_csv(
    files: Files, *, mapping: MappingOption, data_dir: DataDirOption = None, bad_lines: BadLinesOption = BadLines.REFUSE
) -> None:
    """Import CSV files by a mapping. Importing again adds nothing; an interrupted import resumes."""
    _import("csv", files, mapping, data_dir, bad_lines)


def import_parquet(
    files: Files, *, mapping: MappingOption, data_dir: DataDirOption = None, bad_lines: BadLinesOption = BadLines.REFUSE
) -> None:
    """Import Parquet files by a mapping. Importing again adds nothing; an interrupted import resumes."""
    _import("parquet", files, mapping, data_dir, bad_lines)


def guess(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A CSV or Parquet file.")],
    *,
    table: Annotated[
        Literal["trades", "quotes"] | None, typer.Option(help="What it holds; by its columns if unset.")
    ] = None,
    exchange: Annotated[str | None, typer.Option("--exchange", "-e", help="The exchange that it is of.")] = None,
    data_dir: DataDirOption = None,
) -> None:
    """Print a guessed mapping of a file, with what is unsure of it. Look at it, save it, and import by it."""
    from k2 import bootstrap
    from k2.feeds.mapped.guessing import guess_mapping
    from k2.feeds.mapped.mapping import exchange_named
    from k2.feeds.mapped.sampling import sample_of
    from k2.settings import load_settings

    settings = load_settings(data_dir)
    zone = "UTC"
    if exchange is not None:
        zone = exchange_named(exchange, bootstrap.topic_catalog(settings), where="--exchange").timezone
    latest_ns = bootstrap.system_clock().time_ns() + NS_PER_DAY
    sample = sample_of(file, settings.feeds)
    typer.echo(guess_mapping(sample, table=table, exchange=exchange, zone=zone, latest_ns=latest_ns), nl=False)


def _import(form: Form, paths: list[Path], mapping_path: Path, data_dir: Path | None, bad_lines: BadLines) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from k2 import bootstrap
    from k2.bootstrap import feeds
    from k2.cli.hold_lines import HoldLines
    from k2.feeds.import_lock import import_lock
    from k2.feeds.mapped.importing import check_all, import_all
    from k2.feeds.mapped.mapping import read_mapping
    from k2.settings import load_settings

    mapping = read_mapping(mapping_path)
    settings = load_settings(data_dir)
    bootstrap.start_process(settings, component="import")
    files = _mapped_files(form, paths, mapping, settings)
    console = Console()
    with Progress(console=console, disable=not console.is_terminal) as progress:
        tasks = {file.path: progress.add_task(file.path.name, total=None) for file in files}

        def told(path: Path, done: int, total: int | None) -> None:
            progress.update(tasks[path], completed=done, total=total)

        checked = check_all(files, settings.feeds, bad_lines=bad_lines, on_progress=told)
        lines = HoldLines(progress.console)
        with import_lock(settings.data_dir), feeds.feed(settings, mapping.exchange, told=lines) as feed:
            found = import_all(checked, channel=feed.channel, held=feed.held, on_progress=told)
    _summarize(console, found)


def _mapped_files(form: Form, paths: list[Path], mapping: FileMapping, settings: Settings) -> list[MappedFile]:
    from k2 import bootstrap
    from k2.feeds.mapped.csv_cells import CsvCells
    from k2.feeds.mapped.files import MappedFile
    from k2.feeds.mapped.mapping import exchange_of
    from k2.feeds.mapped.parquet_cells import ParquetCells

    exchange = exchange_of(mapping, bootstrap.topic_catalog(settings))
    latest_ns = bootstrap.system_clock().time_ns() + NS_PER_DAY
    twice = {str(path) for path in paths if paths.count(path) > 1}
    if twice:
        raise ConfigurationError(f"expected each file once, found {', '.join(sorted(twice))} several times")
    return [
        MappedFile(
            path,
            mapping,
            exchange.timezone,
            CsvCells(path, mapping, settings.feeds.import_block_bytes)
            if form == "csv"
            else ParquetCells(path, mapping, settings.feeds.import_rows_max),
            latest_ns,
        )
        for path in paths
    ]


def _summarize(console: Console, found: list[ImportedFile]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("file", "symbols", "records", "held before", "added", "bad lines"):
        table.add_column(name, justify="left" if name == "file" else "right")
    for entry in found:
        counts = (entry.symbols, entry.records, entry.held, entry.sent, entry.bad_lines)
        table.add_row(entry.file.path.name, *(f"{count:,}" for count in counts))
    console.print(table)
    bad = sum(entry.bad_lines for entry in found)
    if bad:
        letters = sum(entry.dead_letters for entry in found)
        console.print(
            f"{bad:,} bad lines were not imported: {letters:,} sent to the dead letters now (topics that end in .dlq), "
            f"{bad - letters:,} were there before",
            style="bold yellow",
        )
    console.print(f"{sum(entry.sent for entry in found):,} records added; all acknowledged by the log")
