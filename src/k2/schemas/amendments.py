"""What CANCELs and CORRECTs do to the trades that they name: a function of a set of records, whatever their order.

An amendment names a trade by its id (`ref_trade_id`, else its own `trade_id`), within its exchange, symbol and trading
date: venues use ids anew each day. A CORRECT with another id of its own is a further name of the same trade. Any CANCEL
ends the trade; without one, the CORRECT that is last in the log says what the trade is now.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from k2.schemas.records import Action

if TYPE_CHECKING:
    import datetime as dt

    import polars as pl

    Name = tuple[str, dt.date, str]
    """Exchange, trading date and id: what names a trade among those of its symbol."""
    Place = tuple[int, int, int]
    """Log id, partition and offset."""

NAMES: Final = ("exchange", "trading_date", "trade_id")
PLACE: Final = ("log_id", "log_partition", "log_offset")


@dataclass(slots=True)
class Fate:
    """What became of one amended trade."""

    names: list[Name] = field(default_factory=list)
    cancelled: bool = False
    correction: int | None = None
    """Which row of `Settled.amendments` says what the trade is now."""


@dataclass(frozen=True, slots=True)
class Amendment:
    """One record other than NEW: which row of `Settled.amendments` it is, what it names, and that trade's fate."""

    row: int
    name: str | None
    fate: Fate | None
    """None where it names nothing: it has no id, as quotes never have."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What a symbol's amendments come to."""

    amendments: pl.DataFrame
    """The amendments in log order."""
    fates: dict[Name, Fate]
    """The fate of every trade that is amended, by each of its names."""
    by_place: dict[Place, Amendment]


def settle(amendments: pl.DataFrame) -> Settled:
    """Return what one symbol's records other than NEW come to."""
    ordered = amendments.unique(PLACE).sort(PLACE)
    own_ids, references = (
        ordered[name].to_list() if name in ordered.columns else [None] * ordered.height
        for name in ("trade_id", "ref_trade_id")
    )
    scopes = ordered.select(NAMES[:2]).rows()
    corrects = [action == Action.CORRECT for action in ordered["action"].to_list()]
    named = [own if reference is None else reference for own, reference in zip(own_ids, references, strict=True)]
    ties = _Ties()
    for scope, own, other, correct in zip(scopes, own_ids, named, corrects, strict=True):
        if other is not None:
            ties.tie((*scope, other), (*scope, own if correct and own is not None else other))
    fates = ties.fates()
    by_place: dict[Place, Amendment] = {}
    for row, (place, scope, name, correct) in enumerate(
        zip(ordered.select(PLACE).rows(), scopes, named, corrects, strict=True)
    ):
        fate = None if name is None else fates[*scope, name]
        by_place[place] = Amendment(row, name, fate)
        if fate is not None and correct:
            fate.correction = row
        elif fate is not None:
            fate.cancelled = True
    return Settled(ordered, fates, by_place)


class _Ties:
    """Names, of which some are known to be of one trade."""

    def __init__(self) -> None:
        self._up: dict[Name, Name] = {}

    def tie(self, one: Name, other: Name) -> None:
        """Say that two names, or one given twice, are of the same trade."""
        self._up[self._top(one)] = self._top(other)

    def fates(self) -> dict[Name, Fate]:
        """Return a fate for each trade, by all its names."""
        tops: dict[Name, Fate] = {}
        fates = {name: tops.setdefault(self._top(name), Fate()) for name in self._up}
        for name, fate in fates.items():
            fate.names.append(name)
        return fates

    def _top(self, name: Name) -> Name:
        top = self._up.setdefault(name, name)
        while top != self._up[top]:
            self._up[top] = top = self._up[self._up[top]]
        return top
