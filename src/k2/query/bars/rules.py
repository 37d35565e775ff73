"""How the trades of an exchange become bars: its clock, its sessions, and which prints count by default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, time

    from k2.kafka.topics import Exchange

    Hours = tuple[tuple[time, time], ...]


@dataclass(frozen=True, slots=True)
class BarRule:
    """What topics.yaml says of an exchange's bars; without anything, days are UTC's and every print counts."""

    timezone: str = "UTC"
    sessions: Hours = ()
    """Where bars that are aligned to sessions begin and are cut, from Monday to Friday."""
    closed: frozenset[date] = frozenset()
    """Days without a session."""
    hours: Hours = ()
    """When a regular print can occur, from Monday to Friday but for the days closed; without any, always."""
    conditions: tuple[str, ...] | None = None
    """Codes of a regular print; one with any other code is special. None: no print is."""

    @classmethod
    def of(cls, exchange: Exchange) -> BarRule:
        """Return the rule of an exchange of topics.yaml; its own sessions are those of its feed, if it names none."""
        return cls(
            exchange.timezone,
            exchange.bars.sessions or exchange.sessions,
            frozenset(exchange.closed),
            exchange.bars.hours,
            exchange.bars.conditions,
        )

    def stated(self) -> dict[str, Any]:  # Any: what JSON holds
        """Return what keeps prints out, as a certificate states it."""
        hours = [f"{start:%H:%M:%S}-{end:%H:%M:%S}" for start, end in self.hours]
        return {
            "timezone": self.timezone,
            "hours": hours or None,
            "conditions": None if self.conditions is None else list(self.conditions),
        }


def bar_rules(exchanges: Mapping[str, Exchange]) -> dict[str, BarRule]:
    """Return the rule of each exchange."""
    return {name: BarRule.of(exchange) for name, exchange in exchanges.items()}
