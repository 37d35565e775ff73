"""Tells what became of the numbers of a batch, and refuses gaps at which the settings say to stop."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Final

import polars as pl

from k2.common.errors import AccountingError
from k2.ingestion import events
from k2.ingestion.sequences.gap_share import GapShare
from k2.ingestion.sequences.rules import GapEvent, SequenceKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from k2.ingestion.sequences.batches import Observation
    from k2.ingestion.sequences.settings import SequenceSettings

_TOLD: Final = ("topic", "event", "exchange", "symbol", "channel", "first_missing", "last_missing")
_TOLD_MAX: Final = 100
"""Gaps of one batch that are told one by one; the counts are of all."""


class GapTeller:
    """Tells the observers of one table what became of numbers, and refuses gaps at which the settings say to stop."""

    def __init__(self, table: str, settings: SequenceSettings, observer: events.Observer) -> None:
        self._table = table
        self._settings = settings
        self._observe = observer
        self._share = GapShare(table, settings, observer)

    def see_that_none_halts(self, gap_events: pl.DataFrame) -> None:
        """Raise AccountingError where a gap is so large that the settings say to stop."""
        if self._settings.on_halt != "stop":
            return
        size = pl.col("last_missing") - pl.col("first_missing") + 1
        large = gap_events.filter(pl.col("event") == GapEvent.OPENED, size >= self._settings.halt_missing_min)
        if large.height:
            gap = large.row(0, named=True)
            raise AccountingError(
                f"{self._table}, {gap['exchange']} {gap['symbol'] or gap['channel']}: numbers {gap['gap_first']:,} to "
                f"{gap['gap_last']:,} are missing before offset {gap['log_offset']:,} of partition "
                f"{gap['log_partition']}; the settings say to stop at such a gap. To go on with the gap recorded, set "
                "K2_INGESTION__SEQUENCES__ON_HALT=alert"
            )

    def tell(self, seen: Iterable[tuple[str, Observation]], gap_events: pl.DataFrame | None) -> None:
        """Tell what a batch's messages, of the topics named, were, and of each gap that is large enough."""
        by_kind: Counter[SequenceKind] = Counter()
        messages: Counter[str] = Counter()
        for topic, observation in seen:
            by_kind.update(event.decision.kind for event in observation.events)
            messages[topic] += observation.messages
        by_kind[SequenceKind.NORMAL] = messages.total() - by_kind.total()
        numbers: Counter[str] = Counter()
        opened: Counter[str] = Counter()
        gaps: list[events.GapOpened] = []
        for topic, event, exchange, symbol, channel, first, last in (
            () if gap_events is None else gap_events.select(_TOLD).iter_rows()
        ):
            numbers[event] += last - first + 1
            if event == GapEvent.OPENED:
                opened[topic] += 1
                level = self._level(last - first + 1)
                gaps.append(events.GapOpened(self._table, exchange, symbol or channel, first, last, level))
        kinds = {kind.value: count for kind, count in by_kind.items()}
        self._observe(events.SequencesWatched(self._table, kinds, dict(numbers)))
        for gap in itertools.islice((gap for gap in gaps if gap.level), _TOLD_MAX):
            self._observe(gap)
        for topic, count in messages.items():
            self._share.note(topic, messages=count, gaps=opened[topic])

    def _level(self, missing: int) -> str:
        """Return how loudly a gap of so many numbers is told."""
        settings = self._settings
        thresholds = (("halt", settings.halt_missing_min), ("alert", settings.alert_missing_min),
                      ("log", settings.log_missing_min))  # fmt: skip
        return next((level for level, least in thresholds if missing >= least), "")
