"""Which streams of a batch show a gap of halting size, and from which message on they are to be put off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from k2.common.logging import get_logger
from k2.ingestion.sequences.rules import SequenceKind
from k2.storage.seam import HaltedStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from k2.ingestion.sequences.batches import Observation, StreamEvent
    from k2.ingestion.sequences.parts import BatchPart
    from k2.ingestion.sequences.settings import SequenceSettings

log = get_logger(__name__)

_DEFER: Final = "defer"
SYMBOLS: Final = ("symbol", "channel")
"""Columns that tell a channel's symbols."""


def halting(
    seen: Observation,
    rows: pl.DataFrame,
    part: BatchPart,
    settings: SequenceSettings,
    symbols_of: Callable[[str], set[str]],
) -> tuple[HaltedStream, ...]:
    """Return the streams of a batch that are to be put off; none where the settings do not ask for it.

    The message that skips so many numbers decides, before its reorder window is over: fewer messages fit into that
    window than are missing, so that it becomes a gap whatever comes. `symbols_of` tells a stream's symbols.
    """
    if settings.on_halt != _DEFER:
        return ()
    held = {symbol for halted in part.halts for symbol in halted.symbols}
    found = []
    for event in _first_of_each(seen, settings.halt_missing_min):
        symbols = symbols_of(event.stream) - held
        facts = {"topic": part.topic, "stream": event.stream, "offset": event.offset}
        if not symbols or len(held | symbols) > settings.halt_symbols_max:
            log.warning("stream_not_halted", symbols=len(symbols), symbols_halted=len(held), **facts)
            continue
        held |= symbols
        log.warning("gap_halts_stream", expected=event.decision.expected, found=event.found, **facts)
        found.append(HaltedStream(event.stream, tuple(sorted(symbols)), event.offset, _logged_us(rows, event.offset)))
    return tuple(found)


def symbols_of(channel: str, frames: Iterable[pl.DataFrame]) -> set[str]:
    """Return the symbols that a channel has in these rows."""
    return {symbol for frame in frames for symbol in frame.filter(pl.col("channel") == channel)["symbol"].unique()}


def _first_of_each(seen: Observation, missing_min: int) -> Iterator[StreamEvent]:
    streams = set()
    for event in seen.events:
        expected = event.decision.expected
        if (
            event.decision.kind is SequenceKind.GAP
            and expected is not None
            and event.found - expected >= missing_min
            and event.stream not in streams
        ):
            streams.add(event.stream)
            yield event


def _logged_us(rows: pl.DataFrame, offset: int) -> int:
    return int(rows.filter(pl.col("log_offset") == offset)["ts_log"].dt.epoch("us")[0])
