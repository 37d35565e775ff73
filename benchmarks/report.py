"""How a figure is stated: value, unit, goal; printed as a table and written as JSON."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Figure:
    """One measured number. `goal` is in words; `met` is None where there is no goal."""

    name: str
    value: float
    unit: str
    goal: str = ""
    met: bool | None = None


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` (0 to 1) of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -(-len(ordered) * share // 1).__int__() - 1))]


def show(title: str, figures: Sequence[Figure]) -> None:
    """Print the figures as a table."""
    table = Table(title=title, title_justify="left")
    for name in ("figure", "value", "unit", "goal", "met"):
        table.add_column(name, justify="right" if name == "value" else "left")
    for figure in figures:
        met = "" if figure.met is None else ("yes" if figure.met else "NO")
        table.add_row(figure.name, f"{figure.value:,.2f}", figure.unit, figure.goal, met)
    Console().print(table)


def write(results: dict[str, list[Figure]]) -> Path:
    """Write all figures of one run as JSON, named by date and time."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    path = RESULTS / f"bench-{now:%Y%m%dT%H%M%SZ}.json"
    body = {
        "at": now.isoformat(),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()},
        "benchmarks": {name: [asdict(figure) for figure in figures] for name, figures in results.items()},
    }
    path.write_text(json.dumps(body, indent=2) + "\n")
    return path
