"""Watches what share of a topic's messages opens gaps: with a wrong `sequence_scope` it is almost each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from k2.ingestion import events

if TYPE_CHECKING:
    from k2.ingestion.sequences.settings import SequenceSettings


@dataclass(slots=True)
class _Count:
    messages: int = 0
    gaps: int = 0
    is_doubted: bool = False


class GapShare:
    """Doubts a topic's numbers once too many of them are missing, and says so once; only one thread uses it."""

    def __init__(self, table: str, settings: SequenceSettings, observer: events.Observer) -> None:
        self._table = table
        self._messages_min = settings.doubt_messages
        self._ratio_max = settings.doubt_gaps_ratio
        self._observe = observer
        self._counts: dict[str, _Count] = {}

    def note(self, topic: str, *, messages: int, gaps: int) -> None:
        """Count numbered messages and the gaps opened; each `doubt_messages` of them are judged together."""
        count = self._counts.setdefault(topic, _Count())
        count.messages += messages
        count.gaps += gaps
        if count.messages < self._messages_min:
            return
        is_doubted = count.gaps > self._ratio_max * count.messages
        if is_doubted and not count.is_doubted:
            self._observe(events.NumbersDoubted(self._table, topic, count.messages, count.gaps))
        elif count.is_doubted and not is_doubted:
            self._observe(events.NumbersTrusted(self._table, topic))
        self._counts[topic] = _Count(is_doubted=is_doubted)
