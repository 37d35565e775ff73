"""The options of the commands that can inject faults, and the way into the log that they ask for."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from k2.common.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from k2.feeds.faults.outlet import FaultyOutlet
    from k2.feeds.faults.rates import FaultRates
    from k2.feeds.simulation import Outlet
    from k2.settings import Settings

_PANEL = "Faults, injected after numbering"
Chance = "chance at each number of a stream, from 0 to 1"

Gaps = Annotated[float, typer.Option(help=f"Numbers that are dropped: {Chance}.", rich_help_panel=_PANEL)]
Duplicates = Annotated[float, typer.Option(help=f"Records sent twice: {Chance}.", rich_help_panel=_PANEL)]
Reorder = Annotated[float, typer.Option(help=f"Records sent late: {Chance}.", rich_help_panel=_PANEL)]
Resets = Annotated[
    float, typer.Option(help=f"Streams whose numbers begin again at 1: {Chance}.", rich_help_panel=_PANEL)
]
Mute = Annotated[float, typer.Option(help=f"Streams that fall silent: {Chance}.", rich_help_panel=_PANEL)]
Cancels = Annotated[
    float, typer.Option(help=f"Trades with an id that are cancelled: {Chance}.", rich_help_panel=_PANEL)
]
ReorderSpan = Annotated[
    int, typer.Option(help="Numbers of its stream that a late record is late at most.", rich_help_panel=_PANEL)
]
MuteSeconds = Annotated[
    float, typer.Option(help="How long a stream is silent, in the time of its events.", rich_help_panel=_PANEL)
]
Truth = Annotated[
    Path | None,
    typer.Option(
        help="File to write what was injected to, as JSON lines (docs/operations/faults.md).", rich_help_panel=_PANEL
    ),
]


@contextmanager
def with_faults(
    outlet: Outlet, rates: FaultRates, truth: Path | None, *, settings: Settings, scope: str, feed: str
) -> Iterator[FaultyOutlet | None]:
    """Give an outlet that injects the faults and writes the truth file; none where no fault is asked for.

    Raises:
        ConfigurationError: the truth file cannot be written, or is asked for without a fault.
    """
    from k2.feeds.faults.outlet import FaultyOutlet
    from k2.feeds.faults.truth import TruthFile

    if not rates.any:
        if truth is not None:
            raise ConfigurationError("expected --truth with a fault to inject (--gaps 0.02, ...), found none")
        yield None
        return
    file = None if truth is None else TruthFile(truth, rates, feed)
    limit = settings.feeds.fault_streams_max
    try:
        if file is None:
            yield FaultyOutlet(outlet, rates, scope=scope, streams_max=limit)
        else:
            yield FaultyOutlet(outlet, rates, scope=scope, streams_max=limit, tell=file)
    finally:
        if file is not None:
            file.close()


def told(outlet: FaultyOutlet, truth: Path | None) -> str:
    """Return what was injected as a line."""
    counts = outlet.counts
    parts = (
        f"{counts['withheld']:,} records withheld in {counts['gap']:,} gaps and {counts['mute']:,} mutes",
        f"{counts['duplicate']:,} doubled",
        f"{counts['move']:,} moved",
        f"{counts['reset']:,} resets",
        f"{counts['cancel']:,} cancels",
    )
    return f"injected: {', '.join(parts)}{f'; told in {truth}' if truth else ''}"
