"""The campaign's table and its dated JSON."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from k2.common.clock import Clock
    from k2.testing.faults.campaign import KindSummary

_NS: Final = 10**9
_COLUMNS: Final = (
    "kind", "faults", "runs", "injected", "acknowledged", "rows", "dead letters", "lost", "doubled", "stale commits",
    "fenced", "recovery p50", "p99", "max",
)  # fmt: skip


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` (0 to 1) of the values do not exceed; 0 of none."""
    ordered = sorted(values)
    rank = -int(-len(ordered) * share // 1)
    return ordered[max(0, min(len(ordered) - 1, rank - 1))] if ordered else 0.0


def show(title: str, summaries: Sequence[KindSummary], console: Console | None = None) -> None:
    """Print one line a kind, a total, and what failed."""
    out = console or Console(width=180)
    table = Table(title=title, title_justify="left")
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in ("kind", "faults") else "right")
    for summary in summaries:
        table.add_row(summary.kind, summary.numbers, *_figures([summary]))
    table.add_section()
    table.add_row("total", "", *_figures(summaries))
    out.print(table)
    for summary in summaries:
        for failure in summary.failures:
            out.print(f"FAILED {summary.kind}, {failure}", markup=False)


def write(
    directory: Path, name: str, clock: Clock, body: Mapping[str, Any], summaries: Sequence[KindSummary] = ()
) -> Path:
    """Write the figures of one run as JSON, named by date and time, and its table beside it for documents."""
    directory.mkdir(parents=True, exist_ok=True)
    now = datetime.fromtimestamp(clock.time_ns() / _NS, UTC)
    path = directory / f"{name}-{now:%Y%m%dT%H%M%SZ}.json"
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    path.write_text(json.dumps({"at": now.isoformat(), "machine": machine, **body}, indent=2) + "\n", encoding="utf-8")
    if summaries:
        path.with_suffix(".md").write_text(as_markdown(summaries), encoding="utf-8")
    return path


def as_markdown(summaries: Sequence[KindSummary]) -> str:
    """Return the table as documents have it."""
    lines = [
        "| " + " | ".join(_COLUMNS) + " |",
        "|" + "|".join("---" if column in ("kind", "faults") else "---:" for column in _COLUMNS) + "|",
    ]
    rows = [(summary.kind, summary.numbers, *_figures([summary])) for summary in summaries]
    rows.append(("total", "", *_figures(summaries)))
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def as_json(summaries: Sequence[KindSummary]) -> list[dict[str, Any]]:
    """Return the summaries as JSON has them, with the percentiles in place of all times."""
    return [
        {
            **asdict(summary),
            "recovery_seconds": {
                "p50": percentile(summary.recovery_seconds, 0.5),
                "p99": percentile(summary.recovery_seconds, 0.99),
                "max": max(summary.recovery_seconds, default=0.0),
            },
        }
        for summary in summaries
    ]


def _figures(summaries: Sequence[KindSummary]) -> list[str]:
    counts = ("runs", "injected", "acknowledged", "rows", "dead_letters", "lost", "doubled", "stale_commits", "fenced")
    times = [seconds for summary in summaries for seconds in summary.recovery_seconds]
    return [f"{sum(getattr(summary, name) for summary in summaries):,}" for name in counts] + [
        f"{percentile(times, share):,.1f} s" if times else "" for share in (0.5, 0.99, 1.0)
    ]
