"""`k2 bars`: open, high, low, close, volume and VWAP of a symbol's trades."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from k2.cli.options import DataDirOption
from k2.cli.queries import (
    Amendments,
    Anchor,
    AsOf,
    DeferredOption,
    End,
    Exchange,
    FormatOption,
    Gaps,
    KnownAt,
    LakeOnly,
    MaxStaleness,
    OnDegrade,
    Output,
    Start,
    Window,
    client_of,
    lake_request,
    question_of,
    why_nothing,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from k2.settings import Settings

Interval = Annotated[str, typer.Option("--interval", "-i", help="Length of a bar, from 1s to 1d: 30s, 5m, 1h.")]
Align = Annotated[
    Literal["utc", "session"],
    typer.Option(help="Count bars from UTC midnight, or from the exchange's midnight and the edges of its sessions."),
]
Prints = Annotated[
    Literal["regular", "all"],
    typer.Option(help="Count the trades that the exchange's rule calls regular (topics.yaml), or all."),
]
_SHOWN: Final = (
    "bar_start", "exchange", "symbol", "open", "high", "low", "close", "volume", "vwap", "trade_count",
    "sequence_missing", "complete", "state", "amended",
)  # fmt: skip
"""What a table shows of a bar; the other forms have the rest."""


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(name="bars")(bars)


def bars(  # noqa: PLR0917 - one parameter an option
    symbol: str,
    data_dir: DataDirOption = None,
    exchange: Exchange = None,
    interval: Interval = "1m",
    align: Align = "utc",
    prints: Prints = "regular",
    window: Window = None,
    start: Start = None,
    end: End = None,
    anchor: Anchor = "now",
    as_of: AsOf = None,
    known_at: KnownAt = None,
    amendments: Amendments = "applied",
    format_name: FormatOption = "table",
    output: Output = None,
    lake_only: LakeOnly = False,
    on_degrade: OnDegrade = "fail",
    max_staleness: MaxStaleness = None,
    gaps: Gaps = "annotate",
    deferred: DeferredOption = "mark",
) -> None:
    """Show the bars of a symbol's trades, exact up to the last message."""
    from k2.cli.output import require_writable, write
    from k2.settings import load_settings

    require_writable(format_name, output)
    question = question_of(
        exchange, window, start, end, anchor, known_at=known_at, amendments=amendments, gaps=gaps, deferred=deferred,
        on_degrade=on_degrade, max_staleness=max_staleness, as_of=as_of,
    )  # fmt: skip
    shape: dict[str, Any] = {"interval": interval, "align": align, "prints": prints}
    settings = load_settings(data_dir)
    if lake_only:
        table, certificate = _from_lake(settings, symbol, question, shape)
    else:
        with client_of(settings) as client:
            result = client.bars(symbol, **question, **shape)
        table, certificate = result.table, result.certificate
    shown = table.select(list(_SHOWN)) if format_name == "table" else table
    write(shown, certificate, format_name, output)
    if table.num_rows == 0:
        typer.echo(_why_none(symbol, question, certificate), err=True)


def _why_none(symbol: str, question: dict[str, Any], certificate: dict[str, Any]) -> str:
    left_out = certificate["bars"]["trades_left_out"]
    if left_out:
        return f"no regular print of {symbol!r} there, but {left_out:,} others: --prints all counts them"
    return why_nothing("trades", symbol, question)


def _from_lake(
    settings: Settings, symbol: str, question: dict[str, Any], shape: dict[str, Any]
) -> tuple[pa.Table, dict[str, Any]]:
    from k2 import bootstrap
    from k2.query.bars.request import BarsRequest

    request = BarsRequest(trades=lake_request("trades", symbol, question), **shape)
    with bootstrap.lake_engine(settings) as engine:
        answer = engine.bars(request)
    return answer.table, answer.certificate.to_dict()
