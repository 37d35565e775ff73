"""Which days retention has taken out of a table, and by which commit: rows that older answers may have shown."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from k2.common.errors import CorruptionError
from k2.common.units import NS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DROPPED_PROPERTY: Final = "k2.dropped"
ENTRIES_MAX: Final = 200
"""Entries kept, since every reader of the table reads them: beyond it the oldest of an exchange are taken together."""


@dataclass(frozen=True, slots=True)
class DroppedDays:
    """Days of one exchange, days since 1970, both included, that the commit `commit_sequence` took out at `at_ns`."""

    exchange: str
    first_day: int
    last_day: int
    commit_sequence: int
    at_ns: int

    def concerns(self, exchange: str | None, start_ns: int | None, end_ns: int | None) -> bool:
        """Say whether events of [start_ns, end_ns) may have been among the rows; None stands for no bound."""
        return (
            exchange in (None, self.exchange)
            and (start_ns is None or start_ns < (self.last_day + 1) * NS_PER_DAY)
            and (end_ns is None or end_ns > self.first_day * NS_PER_DAY)
        )


def dropped_property(known: Sequence[DroppedDays], more: Sequence[DroppedDays]) -> dict[str, str]:
    """Return the property that names the days dropped before, and more."""
    entries = [*known, *more]
    while len(entries) > ENTRIES_MAX and (pair := _oldest_pair(entries)) is not None:
        first, second = pair
        entries[second] = _together(entries[first], entries[second])
        del entries[first]
    body = [[each.exchange, each.first_day, each.last_day, each.commit_sequence, each.at_ns] for each in entries]
    return {DROPPED_PROPERTY: json.dumps(body, separators=(",", ":"))}


def dropped_days(properties: Mapping[str, str]) -> tuple[DroppedDays, ...]:
    """Return the days that a table's properties name; CorruptionError if they cannot be read."""
    text = properties.get(DROPPED_PROPERTY, "[]")
    try:
        return tuple(
            DroppedDays(str(exchange), int(first), int(last), int(commit), int(at_ns))
            for exchange, first, last, commit, at_ns in json.loads(text)
        )
    except (ValueError, TypeError) as error:
        raise CorruptionError(
            f"expected the days dropped in {DROPPED_PROPERTY}, found {text[:200]!r}", path=DROPPED_PROPERTY
        ) from error


def _oldest_pair(entries: Sequence[DroppedDays]) -> tuple[int, int] | None:
    """Return the places of the oldest two entries of one exchange; None where each exchange has one."""
    seen: dict[str, int] = {}
    pairs = []
    for place, entry in enumerate(entries):
        if entry.exchange in seen:
            pairs.append((seen[entry.exchange], place))
        seen[entry.exchange] = place
    return min(pairs, default=None)


def _together(one: DroppedDays, other: DroppedDays) -> DroppedDays:
    return DroppedDays(
        one.exchange,
        min(one.first_day, other.first_day),
        max(one.last_day, other.last_day),
        max(one.commit_sequence, other.commit_sequence),
        max(one.at_ns, other.at_ns),
    )
