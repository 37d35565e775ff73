"""`k2 lines`: the lines of each venue side by side, as the platform's worker has counted them since it started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from k2.cli.options import DataDirOption
from k2.common.errors import ConfigurationError, UnavailableError

TIMEOUT_SECONDS = 5.0


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(name="lines")(lines)


@dataclass
class Line:
    """One line of one venue and data type."""

    table: str
    exchange: str
    line: str
    first: int = 0
    second: int = 0
    lost: int = 0
    late: int = 0
    led: int = 0
    lead_seconds: float = 0.0

    @property
    def lost_ratio(self) -> float:
        """Share of the venue's numbers that the line has not brought."""
        numbers = self.first + self.second + self.lost
        return self.lost / numbers if numbers else 0.0

    @property
    def lead_mean_seconds(self) -> float:
        """How far it is ahead, where it is."""
        return self.lead_seconds / self.led if self.led else 0.0


def lines(
    data_dir: DataDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what each line of a venue was first with, by how much, and what it has lost."""
    import json

    from rich.table import Table

    from k2.cli.console import wide_console

    found = lines_of(_metrics_text(_worker_address(data_dir)))
    if as_json:
        shown = [
            {**vars(each), "lost_ratio": each.lost_ratio, "lead_mean_seconds": each.lead_mean_seconds} for each in found
        ]
        typer.echo(json.dumps(shown))
        return
    table = Table(box=None, pad_edge=False)
    for name in ("exchange", "table", "line", "first", "second", "lost", "lost %", "late", "leads by"):
        table.add_column(name, justify="left" if name in ("exchange", "table", "line") else "right")
    for each in found:
        counts = (each.first, each.second, each.lost)
        lead = f"{each.lead_mean_seconds * 1000:,.1f} ms"
        table.add_row(
            each.exchange, each.table, each.line, *(f"{count:,}" for count in counts), f"{each.lost_ratio:.3%}",
            f"{each.late:,}", lead,
        )  # fmt: skip
    wide_console().print(table)
    if not found:
        typer.echo("no lines were compared: name the feeds of a venue as its lines in topics.yaml", err=True)


def lines_of(metrics: str) -> list[Line]:
    """Return the lines that a worker's metrics tell of."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[tuple[str, str, str], Line] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if not sample.name.startswith("k2_line_") or not sample.name.endswith("_total"):
                continue
            key = (sample.labels["table"], sample.labels["exchange"], sample.labels["line"])
            line = found.setdefault(key, Line(*key))
            if sample.name == "k2_line_lead_seconds_total":
                line.lead_seconds = sample.value
            else:
                setattr(line, sample.labels.get("outcome", "led"), int(sample.value))
    return [found[key] for key in sorted(found)]


def _worker_address(data_dir: DataDirOption) -> str:
    from k2.local.description import read_description
    from k2.local.layout import DataDirectory
    from k2.settings import load_settings

    directory = DataDirectory.at(load_settings(data_dir).data_dir)
    description = read_description(directory)
    for component in description.components if description else ():
        if component.name == "worker" and component.address:
            return component.address
    raise ConfigurationError(f"expected a platform with a worker in {directory.root}, found none: `k2 up` starts one")


def _metrics_text(address: str) -> str:
    import httpx2

    try:
        response = httpx2.get(f"{address}/metrics", timeout=TIMEOUT_SECONDS)
        response.raise_for_status()
    except httpx2.HTTPError as error:
        raise UnavailableError(
            f"expected the worker's metrics at {address}, found none ({error}): is it running? (`k2 status`)",
            dependency="worker",
        ) from error
    return response.text
