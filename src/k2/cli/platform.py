"""`k2 up`, `down`, `status`, `logs`, `reset`: the platform on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from k2.cli.options import DataDirOption

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from k2.local.component import ComponentStatus
    from k2.local.layout import DataDirectory
    from k2.local.settings import LocalSettings
    from k2.settings import Settings

_EXIT_UNHEALTHY = 1
_EXIT_INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (up, down, status, logs, reset):
        app.command()(command)


def up(
    data_dir: DataDirOption = None,
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background; return when all is ready.")] = False,
    simulate: Annotated[bool, typer.Option("--simulate", help="Stream a simulated market in.")] = False,
    port: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=N", help="A port that must be used, e.g. api=8001. May be repeated."),
    ] = None,
    only: Annotated[str | None, typer.Option(help="Components to start, by comma.", hidden=True)] = None,
) -> None:
    """Start the platform and keep it running: Kafka, registry, Valkey, ingest worker, API and upkeep."""
    from k2.local.assembly import EVERYTHING
    from k2.local.control import refuse_second
    from k2.local.layout import DataDirectory
    from k2.settings import load_settings

    settings = load_settings(data_dir)
    directory = DataDirectory.at(settings.data_dir)
    refuse_second(directory)
    names = tuple(only.split(",")) if only else EVERYTHING
    names += ("simulator",) if simulate and "simulator" not in names else ()
    local = _with_ports(settings, directory, port or [])
    if detach:
        _start_detached(directory, names, local)
    else:
        _run_here(directory, names, local)


def down(data_dir: DataDirOption = None) -> None:
    """End the platform, wherever it was started; its state stays."""
    from k2.common.clock import SystemClock
    from k2.local.control import stop_running

    directory, local = _place(data_dir)
    if stop_running(directory, local, SystemClock()):
        typer.echo(f"ended; the state stays in {directory.root}")
    else:
        typer.echo(f"nothing runs on {directory.root}")


def status(
    data_dir: DataDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show each component: process, address, health, memory, and what keeps it from its work.

    Exit code 1 unless all are healthy: they run and answer. `ready` in the JSON says whether all do their work.
    """
    from k2.cli.platform_view import print_report, report_json
    from k2.common.clock import SystemClock
    from k2.local.control import inspect

    directory, local = _place(data_dir)
    report = inspect(directory, local, SystemClock())
    if as_json:
        typer.echo(report_json(report, directory))
    elif report.supervisor is None:
        typer.echo(f"nothing runs on {directory.root}: start it with `k2 up{_data_dir_option(directory)}`")
    else:
        print_report(report, directory)
    if not report.healthy:
        raise typer.Exit(_EXIT_UNHEALTHY)


def logs(
    component: Annotated[
        str | None, typer.Argument(help="kafka, registry, valkey, worker, api, ...; all if left out")
    ] = None,
    data_dir: DataDirOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing what is written.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Lines to begin with, per component.")] = 20,
) -> None:
    """Print the end of the components' logs."""
    from k2.common.clock import SystemClock
    from k2.common.errors import ConfigurationError
    from k2.local.logs import follow as follow_logs
    from k2.local.logs import last_lines

    directory, _ = _place(data_dir)
    found = {path.stem: path for path in sorted(directory.logs.glob("*.log"))}
    if not found or (component is not None and component not in found):
        known = ", ".join(found) or "none"
        raise ConfigurationError(f"expected the log of a component in {directory.logs}, found these: {known}")
    chosen = found if component is None else {component: found[component]}
    width = max(map(len, chosen))
    begin = [(name, line) for name, path in chosen.items() for line in last_lines(path, lines)]
    try:
        for source in (begin, follow_logs(chosen, SystemClock()) if follow else ()):
            for name, line in source:
                typer.echo(line if component else f"{name:<{width}}  {line}")
    except KeyboardInterrupt:
        raise typer.Exit(_EXIT_INTERRUPTED) from None


def reset(
    data_dir: DataDirOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete all data of a platform that does not run: log, tables, registry, key. The settings file stays."""
    from k2.local import control

    directory, _ = _place(data_dir)
    control.refuse_second(directory)
    if not directory.root.exists():
        typer.echo(f"nothing to delete: {directory.root} does not exist")
        return
    if not yes:
        typer.confirm(f"Delete all data in {directory.root}?", abort=True)
    control.reset(directory)
    typer.echo(f"deleted the data in {directory.root}")


def _place(data_dir: DataDirOption) -> tuple[DataDirectory, LocalSettings]:
    from k2.local.layout import DataDirectory
    from k2.settings import load_settings

    settings = load_settings(data_dir)
    return DataDirectory.at(settings.data_dir), settings.local


def _with_ports(settings: Settings, directory: DataDirectory, options: list[str]) -> LocalSettings:
    """Return the local settings with the ports of the command line, and an API port that was set by name."""
    from k2.common.errors import ConfigurationError
    from k2.local.ports import USUAL
    from k2.local.state_files import read_json_or_empty

    ports = dict(settings.local.ports)
    if settings.api.port not in (USUAL["api"], read_json_or_empty(directory.ports_file).get("api")):
        ports.setdefault("api", settings.api.port)
    for option in options:
        name, _, number = option.partition("=")
        if not number.isdecimal():
            raise ConfigurationError(f"expected --port NAME=N, e.g. api=8001, found {option!r}")
        ports[name] = int(number)
    return settings.local.model_copy(update={"ports": ports})


def _start_detached(directory: DataDirectory, names: tuple[str, ...], local: LocalSettings) -> None:
    from k2.cli.platform_view import Progress, print_ready
    from k2.common.clock import SystemClock
    from k2.local.control import start_detached
    from k2.local.description import read_description

    clock = SystemClock()
    began = clock.monotonic()
    with Progress(names) as progress:
        pid = start_detached(directory, names, local, clock, observe=progress.observe)
    description = read_description(directory)
    components = description.components if description else ()
    print_ready(components, directory, clock.monotonic() - began, pid=pid)
    _ask_first(directory, components, began, stop=None)


def _run_here(directory: DataDirectory, names: tuple[str, ...], local: LocalSettings) -> None:
    import threading

    from k2.cli.platform_view import Progress, print_ready
    from k2.common.clock import SystemClock
    from k2.local.platform import LocalPlatform

    clock = SystemClock()
    began = clock.monotonic()
    stop = threading.Event()
    progress = Progress(names)
    platform = LocalPlatform(directory.root, components=names, settings=local, observe=progress.observe)
    _stop_on_signals(stop)
    with progress:
        ready = platform.start(stop)
    if not ready:
        raise typer.Exit(_EXIT_INTERRUPTED)
    try:
        print_ready(platform.statuses(), directory, clock.monotonic() - began, pid=None)
        _ask_first(directory, platform.statuses(), began, stop=stop)
        stop.wait()
        typer.echo("stopping ...")
    finally:
        platform.stop()
    typer.echo(f"stopped; the state stays in {directory.root}")


def _ask_first(
    directory: DataDirectory, components: Sequence[ComponentStatus], began: float, *, stop: threading.Event | None
) -> None:
    """Show a first answer where a market streams in."""
    from k2.cli.first_answer import show_first_answer
    from k2.common.clock import SystemClock

    addresses = {component.name: component.address for component in components}
    if {"api", "simulator"} <= addresses.keys():
        show_first_answer(directory, addresses["api"], SystemClock(), began=began, stop=stop)


def _stop_on_signals(stop: threading.Event) -> None:
    """End in order at the first signal, and at once at the second: the kernel then ends every component."""
    import os
    import signal

    def on_signal(*_: object) -> None:
        if stop.is_set():
            os._exit(_EXIT_INTERRUPTED)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)


def _data_dir_option(directory: DataDirectory) -> str:
    from k2.cli.platform_view import data_dir_option

    return data_dir_option(directory)
