"""`k2 backup` and `k2 restore`: a platform's tables, log and registry, copied while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from k2.cli.options import DataDirOption

if TYPE_CHECKING:
    from k2.local.layout import DataDirectory
    from k2.settings import Settings

_BackupDir = Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the backup.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (backup, restore):
        app.command()(command)


def backup(target: _BackupDir, data_dir: DataDirOption = None) -> None:
    """Copy the platform into DIR, which must be empty or not there. It may run meanwhile."""
    from contextlib import closing

    from k2 import bootstrap
    from k2.local.backup import back_up
    from k2.local.layout import DataDirectory
    from k2.settings import load_settings

    settings = load_settings(data_dir)
    directory = DataDirectory.at(settings.data_dir)
    with closing(bootstrap.existing_tables(settings)) as tables:
        done = back_up(
            directory,
            target.absolute(),
            tables=tables,
            log_ends=lambda: _log_ends(settings, directory),
            clock=bootstrap.system_clock(),
            tell=lambda text: typer.echo(text, err=True),
        )
    megabytes = sum(file.size for file in done.files) / 1e6
    typer.echo(f"backed up: {len(done.files):,} files, {megabytes:,.1f} MB, in {target}")


def restore(source: _BackupDir, data_dir: DataDirOption = None) -> None:
    """Make a platform of the backup in DIR; its data directory must be empty or not there. Then `k2 up` starts it."""
    from k2.local.backup import restore as restore_backup
    from k2.local.layout import DataDirectory
    from k2.settings import load_settings

    directory = DataDirectory.at(load_settings(data_dir).data_dir)
    done = restore_backup(source.absolute(), directory, tell=lambda text: typer.echo(text, err=True))
    rows = ", ".join(f"{facts['rows']:,} rows of {name}" for name, facts in done.facts["tables"].items())
    typer.echo(f"restored into {directory.root}: {rows}; start it with `k2 up`, then check it with `k2 verify`")


def _log_ends(settings: Settings, directory: DataDirectory) -> dict[str, dict[int, int]]:
    """Return how far the log reaches, where the platform runs."""
    from k2 import bootstrap
    from k2.local.description import running_supervisor

    if running_supervisor(directory) is None:
        return {}
    admin = bootstrap.log_admin(settings)
    try:
        names = list(admin.identities(topic.name for topic in bootstrap.topic_catalog(settings).market_topics))
        ends: dict[str, dict[int, int]] = {}
        for (name, number), extent in admin.ranges(names).items():
            ends.setdefault(name, {})[number] = extent.end
        return ends
    finally:
        admin.close()
