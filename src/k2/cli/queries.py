"""`k2 trades`, `k2 quotes`, `k2 symbols` and `k2 sql`: questions from the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from k2.cli.options import DataDirOption
from k2.common.errors import ConfigurationError, QueryError

if TYPE_CHECKING:
    import pyarrow as pa

    from k2.client import K2Client
    from k2.query.request import QueryRequest
    from k2.settings import Settings

Format = Literal["table", "json", "csv", "parquet", "arrow"]
Exchange = Annotated[str | None, typer.Option("--exchange", "-e", help="Only this exchange.")]
Window = Annotated[str | None, typer.Option(help="Counted back from the anchor: 90s, 15m, 2h, 1d. Default 15m.")]
Start = Annotated[
    str | None, typer.Option(help="First time, ISO 8601 (no zone: UTC) or nanoseconds (18 or 19 digits).")
]
End = Annotated[str | None, typer.Option(help="End time, not included; the same forms.")]
Anchor = Annotated[
    Literal["now", "latest"], typer.Option(help="Where a window ends: now, or the newest record (replayed history).")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Most rows, counted from the oldest; all without it.")]
FormatOption = Annotated[Format, typer.Option("--format", "-f", help="Form of the answer.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write; standard output without it.")]
Gaps = Annotated[
    Literal["annotate", "exclude", "fail"],
    typer.Option(help="Gaps in the venue's numbers: name them in the certificate, leave out their sessions, or fail."),
]
OnDegrade = Annotated[
    Literal["fail", "stale", "partial"],
    typer.Option(
        help="Log out of reach: fail, or the table alone (stale). Table too, or damage: what there is (partial)."
    ),
]
MaxStaleness = Annotated[
    float | None, typer.Option(help="Seconds that the answer's end may lie behind the log's; else it is refused.")
]
DeferredOption = Annotated[
    Literal["mark", "read"],
    typer.Option(help="Records that overload has put off: mark the answer as incomplete, or read them from the log."),
]
LakeOnly = Annotated[bool, typer.Option("--lake-only", help="Only what the table holds; needs no broker and no API.")]

AsOf = Annotated[
    str | None,
    typer.Option(
        help="From the log as it was: the as_of of an answer's certificate, a time, snapshot:ID, a tag (k2 snapshot), "
        "or now."
    ),
]
KnownAt = Annotated[
    str | None, typer.Option(help="As known then: a time, or the token (as_of) of an answer's certificate.")
]
Amendments = Annotated[
    Literal["applied", "raw"],
    typer.Option(help="Trades as CANCELs and CORRECTs leave them, or every record as written."),
]

SYMBOLS_SHOWN = 1000
_UNITS = {"s": 1 / 60, "m": 1.0, "h": 60.0, "d": 1440.0}


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(name="trades")(trades)
    app.command(name="quotes")(quotes)
    app.command(name="symbols")(symbols)
    app.command(name="sql")(sql)


def trades(  # noqa: PLR0917 - one parameter an option
    symbol: str,
    data_dir: DataDirOption = None,
    exchange: Exchange = None,
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
    """Show a symbol's trades, exact up to the last message."""
    question = question_of(
        exchange, window, start, end, anchor, known_at=known_at, amendments=amendments, gaps=gaps, deferred=deferred,
        on_degrade=on_degrade, max_staleness=max_staleness, as_of=as_of,
    )  # fmt: skip
    _records("trades", symbol, data_dir, question, limit, format_name, output, lake_only=lake_only)


def quotes(  # noqa: PLR0917 - one parameter an option
    symbol: str,
    data_dir: DataDirOption = None,
    exchange: Exchange = None,
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
    """Show a symbol's quotes, exact up to the last message."""
    question = question_of(
        exchange, window, start, end, anchor, known_at=known_at, amendments=amendments, gaps=gaps, deferred=deferred,
        on_degrade=on_degrade, max_staleness=max_staleness, as_of=as_of,
    )  # fmt: skip
    _records("quotes", symbol, data_dir, question, limit, format_name, output, lake_only=lake_only)


def symbols(
    data_dir: DataDirOption = None,
    exchange: Exchange = None,
    format_name: FormatOption = "table",
    output: Output = None,
    lake_only: LakeOnly = False,
) -> None:
    """Show the symbols that there are, with rows and the times of the first and last event."""
    import pyarrow as pa

    from k2 import bootstrap
    from k2.api.summaries import SCHEMA, summaries_table
    from k2.cli.output import require_writable, write
    from k2.settings import load_settings

    require_writable(format_name, output)
    settings = load_settings(data_dir)
    if lake_only:
        with bootstrap.lake_engine(settings) as engine:
            table = summaries_table(engine.symbols(exchange))
    else:
        with client_of(settings) as client:
            table = pa.Table.from_pylist(client.symbols(exchange=exchange), schema=SCHEMA)
    table = _with_times(table) if format_name == "table" else table
    write(table, None, format_name, output, rows_shown=SYMBOLS_SHOWN)
    if table.num_rows == 0:
        typer.echo("no symbols yet: `k2 simulate` or `k2 import asx DIR` brings some", err=True)


def sql(
    query: Annotated[str, typer.Argument(help="One SELECT over trades, quotes, dead_letters and gaps.")],
    data_dir: DataDirOption = None,
    format_name: FormatOption = "table",
    output: Output = None,
) -> None:
    """Run read-only SQL over the tables (what is committed; no tail).

    It ends at its limits of time and memory. JSON has no NaN and no infinity: both become null; CSV, Parquet, Arrow and
    the table keep them.
    """
    from k2 import bootstrap
    from k2.cli.output import require_writable, write
    from k2.cli.sql_limits import SqlLimits
    from k2.settings import load_settings

    require_writable(format_name, output)
    settings = load_settings(data_dir)
    limits = SqlLimits(
        seconds_max=settings.query.query_seconds_max,
        resident_bytes_max=settings.query.sql_resident_bytes_max,
        clock=bootstrap.system_clock(),
    )
    with bootstrap.table_sql(settings) as run:
        run.check(query)
        with limits:
            found = run(query)
    write(found, None, format_name, output)


def _with_times(table: pa.Table) -> pa.Table:
    """Return the table of symbols with times for nanoseconds, to the microsecond as in `k2 trades`."""
    import pyarrow as pa

    for name in ("first_ts_event", "last_ts_event"):
        number = table.column_names.index(f"{name}_ns")
        times = table.column(number).cast(pa.timestamp("ns", "UTC")).cast(pa.timestamp("us", "UTC"), safe=False)
        table = table.set_column(number, name, times)
    return table


def question_of(
    exchange: str | None,
    window: str | None,
    start: str | None,
    end: str | None,
    anchor: str,
    **how: str | float | None,
) -> dict[str, Any]:
    """Return a question about a symbol: where and when, and `how` it is to be answered, by the parameters' names."""
    ranged = start is not None or end is not None
    if window is not None and ranged:
        raise QueryError("expected --window or --start and --end, found both: give one of them")
    minutes = None if ranged else _minutes("15m" if window is None else window)
    return {"exchange": exchange, "window_minutes": minutes, "start": start, "end": end, "anchor": anchor, **how}


def _minutes(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None or float(found[1]) == 0:
        raise QueryError(f"expected a window such as 90s, 15m, 2h or 1d, found {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def _records(
    data_type: Literal["trades", "quotes"],
    symbol: str,
    data_dir: Path | None,
    question: dict[str, Any],
    limit: int | None,
    format_name: Format,
    output: Path | None,
    *,
    lake_only: bool,
) -> None:
    from k2.cli.output import require_writable, write
    from k2.settings import load_settings

    require_writable(format_name, output)
    settings = load_settings(data_dir)
    if lake_only:
        table, certificate = _from_lake(settings, data_type, symbol, question, limit)
    else:
        with client_of(settings) as client:
            ask = client.trades if data_type == "trades" else client.quotes
            result = ask(symbol, limit=limit, **question)
        table, certificate = result.table, result.certificate
    write(table, certificate, format_name, output)
    if table.num_rows == 0:
        typer.echo(why_nothing(data_type, symbol, question), err=True)


def why_nothing(data_type: str, symbol: str, question: dict[str, Any]) -> str:
    """Return what to ask instead of a question that found nothing."""
    hint = f"no {data_type} of {symbol!r} there: `k2 symbols` lists symbols as the venue writes them, with their times"
    if question["window_minutes"] is not None and question["anchor"] == "now":
        return (
            f"{hint}; for replayed or imported history, --anchor latest counts back from the newest record, "
            "--start and --end name a range"
        )
    return hint


def _from_lake(
    settings: Settings, data_type: Literal["trades", "quotes"], symbol: str, question: dict[str, Any], limit: int | None
) -> tuple[pa.Table, dict[str, Any]]:
    from k2 import bootstrap

    request = lake_request(data_type, symbol, question, limit)
    with bootstrap.lake_engine(settings) as engine:
        answer = engine.query(request)
    return answer.table, answer.certificate.to_dict()


def lake_request(
    data_type: Literal["trades", "quotes"], symbol: str, question: dict[str, Any], limit: int | None = None
) -> QueryRequest:
    """Return a question about the table alone."""
    from k2.api.parameters import knowledge, nanoseconds
    from k2.query.request import QueryRequest

    known_at_ns, token = knowledge(question["known_at"], question["as_of"])
    return QueryRequest(
        data_type=data_type,
        symbol=symbol,
        exchange=question["exchange"],
        window_minutes=question["window_minutes"],
        start_ns=nanoseconds("--start", question["start"]),
        end_ns=nanoseconds("--end", question["end"]),
        anchor=question["anchor"],
        limit=limit,
        as_of=token,
        known_at_ns=known_at_ns,
        amendments=question["amendments"],
        lake_only=True,
        on_degrade=question["on_degrade"],
        max_staleness_seconds=question["max_staleness"],
        gaps=question["gaps"],
        deferred=question["deferred"],
    )


def client_of(settings: Settings) -> K2Client:
    """Return the client of a platform's API."""
    from k2.api.keys import read_key
    from k2.client import K2Client

    if settings.api.key_file is None and not settings.kafka.bootstrap_servers:
        raise ConfigurationError(
            f"expected a platform that runs on {settings.data_dir}, found none: start it (`k2 up`), name the directory "
            "of one that runs (--data-dir, K2_DATA_DIR), or set K2_API__HOST, K2_API__PORT and K2_API__KEY_FILE"
        )
    key = read_key(settings.api.key_file or settings.data_dir / "api-key")
    address = f"http://{settings.api.host}:{settings.api.port}"
    return K2Client(address, key, timeout_seconds=settings.api.client_seconds_max)
