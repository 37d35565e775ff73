"""`k2 replay`: plays a recording or a table into a topic again, with faults where asked for."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from k2.cli.fault_options import (
    Cancels,
    Duplicates,
    Gaps,
    Mute,
    MuteSeconds,
    Reorder,
    ReorderSpan,
    Resets,
    Truth,
    told,
    with_faults,
)
from k2.cli.options import DataDirOption
from k2.common.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from k2.kafka.topics import Topic
    from k2.query.table_reading import RowsWanted
    from k2.settings import Settings

_FASTEST = ("max", "0")


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(name="replay")(replay)


def replay(
    recording: Annotated[
        str,
        typer.Argument(
            metavar="FILE|TABLE",
            help="A directory of ASX ticks or a .csv in it, a Parquet or Arrow file that `k2` wrote, or the table "
            "trades or quotes (what is committed).",
        ),
    ],
    *,
    to: Annotated[str, typer.Option("--to", help="Topic, such as market.equities.trades.asx.")],
    speed: Annotated[
        str, typer.Option(help="Multiple of the recorded pace; 0 or max: as fast as the log takes it.")
    ] = "max",
    source: Annotated[
        str | None,
        typer.Option(help="Name of this feed; without it records keep their source, and what is held is a duplicate."),
    ] = None,
    exchange: Annotated[str | None, typer.Option("--exchange", "-e", help="Of a table: only this exchange.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Of a table: only this symbol.")] = None,
    start: Annotated[
        str | None, typer.Option(help="Of a table: first time, ISO 8601 or nanoseconds (18 or 19 digits).")
    ] = None,
    end: Annotated[str | None, typer.Option(help="Of a table: end time, not included.")] = None,
    gaps: Gaps = 0.0,
    duplicates: Duplicates = 0.0,
    reorder: Reorder = 0.0,
    resets: Resets = 0.0,
    mute: Mute = 0.0,
    cancels: Cancels = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed injects the same faults.")] = 1,
    reorder_span: ReorderSpan = 20,
    mute_seconds: MuteSeconds = 30.0,
    truth: Truth = None,
    data_dir: DataDirOption = None,
) -> None:
    """Play a recording into a topic again, in its order. Numbers, times and prices stay as they were."""
    from rich.console import Console

    from k2 import bootstrap
    from k2.api.parameters import nanoseconds
    from k2.bootstrap import feeds
    from k2.cli.hold_lines import HoldLines
    from k2.feeds.faults.rates import FaultRates
    from k2.feeds.replaying import Replay
    from k2.query.table_reading import RowsWanted
    from k2.settings import load_settings

    rates = FaultRates(
        gaps=gaps, duplicates=duplicates, reorder=reorder, resets=resets, mute=mute, cancels=cancels,
        seed=seed, reorder_span=reorder_span, mute_seconds=mute_seconds,
    )  # fmt: skip
    pace = _pace(speed)
    settings = load_settings(data_dir)
    topics = bootstrap.topic_catalog(settings)
    topic = topics.by_name(to)
    wanted = RowsWanted(
        table=topics.record_type(topic).name,
        exchange=exchange,
        symbol=symbol,
        start_ns=nanoseconds("--start", start),
        end_ns=nanoseconds("--end", end),
    )
    bootstrap.start_process(settings, component="replay")
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stopped.append(received))
    scope = topics.exchanges[topic.exchange].sequence_scope
    lines = HoldLines(Console())
    with (
        _frames(recording, topic, wanted, settings) as frames,
        feeds.feed(settings, topic.exchange, told=lines, is_stopped=lambda: bool(stopped)) as feed,
        with_faults(feed.channel, rates, truth, settings=settings, scope=scope, feed=f"{recording} to {to}") as faulty,
    ):
        played = Replay(
            topic.data_type,
            topic.exchange,
            outlet=faulty or feed.channel,
            clock=bootstrap.system_clock(),
            speed=pace,
            catch_up_seconds_max=settings.feeds.catch_up_seconds_max,
            source=source,
        ).play(frames, is_stopped=lambda: bool(stopped), on_progress=lambda _: None)
    slipped = f"; {played.slipped_seconds:,.1f} s late" if played.slipped_seconds else ""
    typer.echo(
        f"{played.records:,} records played to {to} in {played.seconds:,.1f} s{slipped}{lines.summary}; "
        "all acknowledged"
    )
    if faulty is not None:
        typer.echo(told(faulty, truth))


def _pace(speed: str) -> float | None:
    if speed in _FASTEST:
        return None
    try:
        pace = float(speed)
    except ValueError:
        pace = -1.0
    if not 0 < pace < float("inf"):
        raise ConfigurationError(f"expected --speed as a number above 0, or 0 or max for no pace, found {speed!r}")
    return pace


@contextmanager
def _frames(recording: str, topic: Topic, wanted: RowsWanted, settings: Settings) -> Iterator[Iterator[pl.DataFrame]]:
    """Give the records of the recording in their order."""
    from k2.bootstrap import operations
    from k2.feeds.recordings import as_messages, read_recording
    from k2.schemas.records import RECORD_TYPES

    table = recording.removeprefix("market.")
    if table not in RECORD_TYPES:
        if (wanted.exchange, wanted.symbol, wanted.start_ns, wanted.end_ns) != (None,) * 4:
            raise ConfigurationError(
                f"expected --exchange, --symbol, --start and --end with a table, found {recording!r}"
            )
        yield read_recording(Path(recording), topic.data_type, settings.feeds)
        return
    if table != topic.data_type:
        raise ConfigurationError(f"expected a topic of {table} for the table {table}, found {topic.name}")
    with operations.table_rows(settings, wanted) as rows:
        yield (as_messages(frame, table, recording) for frame in rows)
