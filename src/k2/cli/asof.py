"""`k2 asof`: a symbol's trades, each with the quote that stood when it happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

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
    Limit,
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

Tolerance = Annotated[float, typer.Option(help="Seconds that a quote may be older than the trade.")]
StrictlyBefore = Annotated[
    bool,
    typer.Option(
        "--strictly-before", help="Leave out quotes of the very nanosecond of the trade, which may have come after it."
    ),
]
_SHOWN: Final = (
    "ts_event", "exchange", "symbol", "price", "quantity", "side", "bid_price", "bid_size", "ask_price", "ask_size",
    "quote_ts_event_ns",
)  # fmt: skip
"""What a table shows; the other forms have the rest."""


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(name="asof")(asof)


def asof(  # noqa: PLR0917 - one parameter an option
    symbol: str,
    data_dir: DataDirOption = None,
    exchange: Exchange = None,
    tolerance: Tolerance = 3_600.0,
    strictly_before: StrictlyBefore = False,
    window: Window = None,
    start: Start = None,
    end: End = None,
    anchor: Anchor = "now",
    limit: Limit = None,
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
    """Show a symbol's trades, each with the last quote of its exchange that was not after it."""
    from k2.cli.output import require_writable, write
    from k2.settings import load_settings

    require_writable(format_name, output)
    question = question_of(
        exchange, window, start, end, anchor, known_at=known_at, amendments=amendments, gaps=gaps, deferred=deferred,
        on_degrade=on_degrade, max_staleness=max_staleness, as_of=as_of,
    )  # fmt: skip
    shape: dict[str, Any] = {"tolerance": tolerance, "strictly_before": strictly_before}
    settings = load_settings(data_dir)
    if lake_only:
        table, certificate = _from_lake(settings, symbol, question, limit, shape)
    else:
        with client_of(settings) as client:
            result = client.asof(symbol, limit=limit, **question, **shape)
        table, certificate = result.table, result.certificate
    write(table.select(list(_SHOWN)) if format_name == "table" else table, certificate, format_name, output)
    if table.num_rows == 0:
        typer.echo(why_nothing("trades", symbol, question), err=True)


def _from_lake(
    settings: Settings, symbol: str, question: dict[str, Any], limit: int | None, shape: dict[str, Any]
) -> tuple[pa.Table, dict[str, Any]]:
    from k2 import bootstrap
    from k2.query.prevailing import PrevailingRequest, with_quotes

    request = PrevailingRequest(
        trades=lake_request("trades", symbol, question, limit),
        tolerance_seconds=shape["tolerance"],
        strictly_before=shape["strictly_before"],
    )
    with bootstrap.lake_engine(settings) as engine:
        answer = with_quotes(engine.query, request, quotes_max=settings.query.rows_max)
    return answer.table, answer.certificate.to_dict()
