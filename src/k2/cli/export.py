"""`k2 export`: an exact answer as Parquet files by exchange and day."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from k2.cli.options import DataDirOption
from k2.cli.queries import Amendments, AsOf, DeferredOption, End, Exchange, LakeOnly, Start, client_of, lake_request
from k2.common.errors import QueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from k2.query.gap_aware import GapAwareEngine
    from k2.query.request import QueryRequest
    from k2.settings import Settings

    Page = tuple[pa.Table, dict[str, Any]]
    Pages = Callable[[str, str | None], Iterator[Page]]
    """Gives the pages of the answer about a symbol of an exchange."""

_EARLIEST: Final = "1990-01-01"
_DataType = Literal["trades", "quotes"]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(name="export")(export)


def export(  # noqa: PLR0917 - one parameter an option
    table: Annotated[_DataType, typer.Argument(help="What to export.")],
    directory: Annotated[Path, typer.Argument(help="Directory to make; `exchange=.../date=...` lies in it.")],
    data_dir: DataDirOption = None,
    symbol: Annotated[
        list[str] | None, typer.Option("--symbol", "-s", help="Only this symbol; may be given several times.")
    ] = None,
    exchange: Exchange = None,
    start: Start = None,
    end: End = None,
    as_of: AsOf = None,
    amendments: Amendments = "applied",
    lake_only: LakeOnly = False,
    deferred: DeferredOption = "mark",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in its place.")] = False,
) -> None:
    """Export trades or quotes as Parquet by exchange and UTC day. The directory appears whole, or not at all.

    Each symbol is an exact answer, with its certificate in the directory; `--as-of` makes all of one log prefix.
    """
    from rich.console import Console
    from rich.progress import Progress

    from k2.client import joined_certificate
    from k2.query.exporting import HiveExport
    from k2.settings import load_settings

    settings = load_settings(data_dir)
    question: dict[str, Any] = {"exchange": exchange, "start": start, "end": end, "as_of": as_of}
    question |= {"amendments": amendments, "deferred": deferred, "lake_only": lake_only}
    asked = {**question, "start": start or _EARLIEST}
    console = Console()
    with (
        HiveExport(
            directory, {"table": table, "symbols": symbol, **question}, settings.query, overwrite=overwrite
        ) as made,
        _source(settings, table, symbol, asked, lake_only=lake_only) as (subjects, pages),
        Progress(console=console, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task(table, total=len(subjects))
        for name, venue in subjects:
            certificates = []
            for rows, certificate in pages(name, venue):
                made.add(rows)
                certificates.append(certificate)
                progress.update(task, description=f"{name}: {made.rows:,} rows")
            made.certify(joined_certificate(certificates, truncated=False))
            progress.advance(task)
        summary = made.finish()
    console.print(
        f"{summary['rows']:,} {table} of {len(subjects):,} symbols in {summary['files']:,} files written to {directory}"
    )
    if not summary["complete"]:
        console.print(
            f"NOT complete: {summary['incomplete_answers']:,} answers lack records; their certificates say which",
            style="bold yellow",
        )


@contextmanager
def _source(
    settings: Settings, table: _DataType, symbols: list[str] | None, asked: dict[str, Any], *, lake_only: bool
) -> Iterator[tuple[list[tuple[str, str | None]], Pages]]:
    """Give the symbols to ask for, each with its exchange, and what answers: the tables alone, or the API."""
    from k2 import bootstrap

    exchange: str | None = asked["exchange"]
    named = None if not symbols else [(name, exchange) for name in dict.fromkeys(symbols)]
    if lake_only:
        with bootstrap.lake_engine(settings) as engine:
            known = [(each.symbol, each.exchange) for each in engine.symbols(exchange, table)] if not named else []
            yield named or _some(known, table), lambda name, venue: _lake_pages(engine, table, name, venue, asked)
        return
    with client_of(settings) as client:

        def pages(name: str, venue: str | None) -> Iterator[Page]:
            question = {**asked, "exchange": venue, "lake_only": None}
            return ((page.table, page.certificate) for page in client.pages(table, name, **question))

        listed = client.symbols(exchange=exchange, data_type=table) if not named else []
        yield named or _some([(each["symbol"], each["exchange"]) for each in listed], table), pages


def _some(known: list[tuple[str, str]], table: str) -> list[tuple[str, str | None]]:
    if not known:
        raise QueryError(f"expected some {table} to export, found none: `k2 symbols` lists what there is")
    return [(symbol, exchange) for exchange, symbol in sorted((exchange, symbol) for symbol, exchange in known)]


def _lake_pages(
    engine: GapAwareEngine, table: _DataType, symbol: str, exchange: str | None, asked: dict[str, Any]
) -> Iterator[Page]:
    request: QueryRequest | None = lake_request(
        table,
        symbol,
        {**_DEFAULTS, **asked, "exchange": exchange},
        _LAKE_PAGE_ROWS,
    )
    while request is not None:
        answer = engine.query(request)
        yield answer.table, answer.certificate.to_dict()
        request = (
            None
            if answer.next_after is None
            else replace(request, after=answer.next_after, as_of=answer.certificate.as_of)
        )


_LAKE_PAGE_ROWS: Final = 200_000
"""As many as a page of the client has."""
_DEFAULTS: Final[dict[str, Any]] = {
    "window_minutes": None, "anchor": "now", "known_at": None, "on_degrade": "fail", "max_staleness": None,
    "gaps": "annotate",
}  # fmt: skip
