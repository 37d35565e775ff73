"""How the platform looks on a terminal: progress while it starts, the summary when it is ready, its status."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from k2.cli.console import program, wide_console
from k2.local.component import ComponentStatus, State
from k2.settings import DEFAULT_DATA_DIR

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from k2.local.control import PlatformReport, ProcessReport
    from k2.local.layout import DataDirectory

_STYLES = {
    State.HEALTHY: "green",
    State.FINISHED: "green",
    State.UNHEALTHY: "red",
    State.FAILING: "red",
    State.RESTARTING: "yellow",
}
_MEBIBYTE = 2**20
_AFTER_READY = frozenset({State.UNHEALTHY, State.RESTARTING, State.FAILING, State.HEALTHY, State.FINISHED})


class Progress:
    """Shows every component while the platform starts; later, one line for each change."""

    def __init__(self, names: Sequence[str], console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._statuses = {name: ComponentStatus(name, State.WAITING) for name in names}
        self._live = Live(console=self._console, refresh_per_second=8, transient=True)
        self._started = False

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Go over from the table to lines."""
        self._live.stop()
        self._started = True

    def observe(self, status: ComponentStatus) -> None:
        """Take one change."""
        before = self._statuses.get(status.name)
        self._statuses[status.name] = status
        if self._console.is_terminal and not self._started:
            self._live.update(_progress_table(list(self._statuses.values())))
        elif before is None or before.state is not status.state:
            self._print_line(status)

    def _print_line(self, status: ComponentStatus) -> None:
        if self._started and status.state not in _AFTER_READY:
            return
        note = f" ({status.bytes_total / _MEBIBYTE:.0f} MiB)" if status.state is State.DOWNLOADING else ""
        detail = f": {status.detail}" if status.detail else ""
        self._console.print(f"{status.name} {status.state}{note}{detail}", markup=False)


def print_ready(
    components: Sequence[ComponentStatus], directory: DataDirectory, seconds: float, *, pid: int | None
) -> None:
    """Print the addresses, the key, and how to ask the first question."""
    console = Console(highlight=False, soft_wrap=True)
    running = f" and runs as process {pid}" if pid else ""
    console.print(f"\nK2 is ready after {seconds:.1f} s{running}. Data: {directory.root}", style="bold")
    for component in components:
        if component.address:
            console.print(f"  {component.name:<10}{component.address}")
    option = data_dir_option(directory)
    addresses = {component.name: component.address for component in components}
    if "api" in addresses:
        _print_first_questions(console, directory, addresses["api"], option)
    k2 = program()
    end = f"{k2} down{option}" if pid else f"Ctrl-C, or {k2} down{option} elsewhere"
    console.print(f"\nState: {k2} status{option}    Logs: {k2} logs{option}    End: {end}\n")


def _print_first_questions(console: Console, directory: DataDirectory, api: str, option: str) -> None:
    key = directory.key_file.read_text(encoding="utf-8").strip()
    console.print(f"  {'API key':<10}{key}   (in {directory.key_file})", markup=False)
    console.print("\nAsk it:")
    console.print(f"  {program()} symbols{option}")
    console.print(f"  {program()} trades SYMBOL --window 15m{option}")
    console.print(f'  curl -H "X-API-Key: $(cat {directory.key_file})" "{api}/v1/symbols"', markup=False)
    console.print(f"  {api}/docs")


def print_report(report: PlatformReport, directory: DataDirectory) -> None:
    """Print every process as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in (("component", "left"), ("health", "left"), ("pid", "right"), ("memory", "right"),
                           ("restarts", "right"), ("uptime", "right"), ("address", "left"), ("", "left")):  # fmt: skip
        table.add_column(title, justify=justify)  # type: ignore[arg-type]  # rich names its literals
    for process in _processes(report):
        table.add_row(*_cells(process))
    console = wide_console()
    console.print(table)
    total = sum(process.memory_bytes or 0 for process in _processes(report))
    console.print(f"{report.stage}; memory of everything {total / _MEBIBYTE:.0f} MiB; data: {directory.root}")


def report_json(report: PlatformReport, directory: DataDirectory) -> str:
    """Return the report as JSON text."""
    memory = sum(process.memory_bytes or 0 for process in _processes(report))
    values = {
        "running": report.supervisor is not None,
        "healthy": report.healthy,
        "ready": report.healthy and not any(component.unready for component in report.components),
        "stage": report.stage,
        "data_dir": str(directory.root),
        "memory_bytes": memory,
        "supervisor": None if report.supervisor is None else _json(report.supervisor),
        "components": [_json(component) for component in report.components],
    }
    return json.dumps(values, indent=2)


def data_dir_option(directory: DataDirectory) -> str:
    """Return the option that leads a command here; nothing where it is the default."""
    is_default = directory.root == DEFAULT_DATA_DIR.absolute()
    if is_default:
        return ""
    here = Path.cwd()
    path = directory.root.relative_to(here) if directory.root.is_relative_to(here) else directory.root
    return f" --data-dir {path}"


def _json(process: ProcessReport) -> dict[str, object]:
    return {**asdict(process), "memory_kind": "proportional set size (resident set size outside Linux)"}


def _processes(report: PlatformReport) -> tuple[ProcessReport, ...]:
    return (*report.components, *((report.supervisor,) if report.supervisor else ()))


def _cells(process: ProcessReport) -> tuple[str, ...]:
    style = _STYLES.get(State(process.health), "") if process.health in set(State) else ""
    style = "yellow" if process.unready else style
    health = f"[{style}]{process.health}[/]" if style else process.health
    memory = "" if process.memory_bytes is None else f"{process.memory_bytes / _MEBIBYTE:.0f} MiB"
    uptime = "" if process.uptime_seconds is None else _duration(process.uptime_seconds)
    pid = "" if process.pid is None else str(process.pid)
    detail = f"not ready: {'; '.join(process.unready)}" if process.unready else process.detail
    return process.name, health, pid, memory, str(process.restarts), uptime, process.address, escape(detail)


def _progress_table(statuses: Sequence[ComponentStatus]) -> Table:
    table = Table.grid(padding=(0, 2))
    for status in statuses:
        style = _STYLES.get(status.state, "")
        state = f"[{style}]{status.state}[/]" if style else str(status.state)
        arrived = ""
        if status.state is State.DOWNLOADING:
            arrived = f"{status.bytes_done / _MEBIBYTE:.0f} of {status.bytes_total / _MEBIBYTE:.0f} MiB"
        table.add_row(status.name, state, arrived or status.detail)
    return table


def _duration(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}"
