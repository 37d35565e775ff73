"""`k2 tiers`: a tier map by what was traded, as the ingest worker reads it."""

from __future__ import annotations

from pathlib import Path  # typer reads the annotation at run time
from typing import Annotated

import typer

from k2.cli.options import DataDirOption


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(name="tiers")(tiers)


def tiers(
    days: Annotated[int, typer.Option(min=1, help="Trading days that count, the newest of the table last.")] = 7,
    exchange: Annotated[
        str | None, typer.Option(help="Only what was traded there: volumes of several are no one unit.")
    ] = None,
    tier_1: Annotated[int, typer.Option(min=0, help="Symbols of the first tier, which are never deferred.")] = 20,
    tier_2: Annotated[int, typer.Option(min=0, help="Symbols of the second tier, which are deferred last.")] = 80,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it to a file, replaced as a whole.")
    ] = None,
    data_dir: DataDirOption = None,
) -> None:
    """Print the symbols that are traded most, by tier; K2_DEGRADATION__TIERS_FILE names such a file."""
    import polars as pl

    from k2 import bootstrap
    from k2.cli.output import require_writable, save
    from k2.schemas.tier_maps import TierMap
    from k2.settings import load_settings

    require_writable("json", output)
    with bootstrap.table_sql(load_settings(data_dir)) as run:
        found = run("SELECT exchange, symbol, trading_date, sum(quantity::DOUBLE) AS volume FROM trades GROUP BY ALL")
    volumes = pl.DataFrame(pl.from_arrow(found))
    volumes = volumes.filter(pl.col("trading_date") > pl.col("trading_date").max() - pl.duration(days=days))
    if exchange is not None:
        volumes = volumes.filter(pl.col("exchange") == exchange)
    text = TierMap.by_volume(volumes, tier_1_symbols=tier_1, tier_2_symbols=tier_2).to_json()
    if output is None:
        typer.echo(text)
        return
    save(iter([f"{text}\n".encode()]), output)
