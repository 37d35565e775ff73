"""Bids, asks, sizes and trades of the simulated market, for one slice of events at once.

An event either renews the quote or is a trade. A trade happens at the bid or the ask that stood before it, for
at most the size that stood there; it takes the whole level, and both prices step away by one tick, or leaves a rest.
Prices are whole ticks: the bid walks and is drawn back to the symbol's anchor, the ask is at least one tick above.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]

TRADE_SHARE: Final = 0.25
"""Share of the events that are trades; each makes two messages, the trade and the quote that it leaves."""
_MOVE_SHARE: Final = 0.3
_SWEEP_SHARE: Final = 0.3
_WIDER_CHANCE: Final = 0.35
_PULL: Final = 0.02
_LOT: Final = 100
_LOTS_MEAN: Final = 12
_SPREAD_TICKS_MAX: Final = 8


@dataclass
class Book:
    """The quote of each symbol, between two slices: prices in ticks, sizes in units."""

    anchor: Ints
    bid: Ints
    spread: Ints
    bid_size: Ints
    ask_size: Ints
    is_open: Flags


@dataclass(frozen=True)
class Slice:
    """Events grouped by symbol, in each symbol by time: the quote after each event, and the trade, where one is."""

    bid: Ints
    ask: Ints
    bid_size: Ints
    ask_size: Ints
    is_trade: Flags
    is_buy: Flags
    trade_price: Ints
    trade_size: Ints


def new_book(random: np.random.Generator, symbols: int) -> Book:
    """Return a book in which no symbol has been quoted yet; prices lie between 100 and 20,000 ticks."""
    anchor = random.integers(100, 20_000, size=symbols, dtype=np.int64)
    zeros = np.zeros(symbols, np.int64)
    return Book(anchor, anchor.copy(), zeros + 1, zeros + _LOT, zeros + _LOT, np.zeros(symbols, np.bool_))


def step(random: np.random.Generator, book: Book, symbol: Ints) -> Slice:
    """Let events happen in the symbols `symbol` (sorted) and move the book; the first event of a symbol is a quote."""
    count = len(symbol)
    heads = np.flatnonzero(np.r_[True, symbol[1:] != symbol[:-1]]) if count else np.empty(0, np.int64)
    lengths = np.diff(np.r_[heads, count])
    draws = random.random((5, count))
    is_first = np.zeros(count, np.bool_)
    is_first[heads] = ~book.is_open[symbol[heads]]
    is_trade = (draws[0] < TRADE_SHARE) & ~is_first
    is_sweep = is_trade & (draws[1] < _SWEEP_SHARE)
    is_move = ~is_trade & ((draws[1] < _MOVE_SHARE) | is_first)
    is_buy = draws[2] < 0.5  # noqa: PLR2004 - a fair coin

    bid = _bids(book, symbol, heads, lengths, _steps(book, symbol, draws[3], is_move, is_sweep, is_buy))
    spread = _spreads(random, book, symbol, heads, is_move)
    fresh = _LOT * (1 + random.poisson(_LOTS_MEAN, size=(2, count)).astype(np.int64))
    renews = is_move | is_sweep
    renews_bid = renews | (~is_trade & (draws[4] < 0.5))  # noqa: PLR2004 - one side or the other
    renews_ask = renews | (~is_trade & ~renews_bid)
    sells, buys = is_trade & ~is_buy, is_trade & is_buy
    bid_before, bid_size = _sizes(book.bid_size, symbol, heads, fresh[0], renews_bid, sells & ~is_sweep, draws[4])
    ask_before, ask_size = _sizes(book.ask_size, symbol, heads, fresh[1], renews_ask, buys & ~is_sweep, draws[4])
    ask = bid + spread

    price = np.where(is_buy, _before(book.bid + book.spread, symbol, heads, ask), _before(book.bid, symbol, heads, bid))
    standing = np.where(is_buy, ask_before, bid_before)
    size = np.where(is_sweep, standing, _taken(standing, draws[4]))
    _close(book, symbol, heads, lengths, (bid, spread, bid_size, ask_size))
    return Slice(bid, ask, bid_size, ask_size, is_trade, is_buy, price, size)


def _steps(book: Book, symbol: Ints, draw: NDArray[np.float64], is_move: Flags, is_sweep: Flags, is_buy: Flags) -> Ints:
    """Return by how many ticks each event moves the bid: a walk with a slight pull to the anchor, and sweeps."""
    pull = _PULL * np.clip((book.anchor - book.bid) / book.anchor, -1, 1)
    walk = np.where(draw < 0.5 * (1 + pull[symbol]), 1, -1)
    return np.where(is_move, walk, np.where(is_sweep, np.where(is_buy, 1, -1), 0)).astype(np.int64)


def _bids(book: Book, symbol: Ints, heads: Ints, lengths: Ints, steps: Ints) -> Ints:
    """Add the steps up, symbol by symbol; a bid below one tick is reflected."""
    total = np.cumsum(steps)
    before = np.repeat(total[heads] - steps[heads], lengths)
    return np.asarray(1 + np.abs(book.bid[symbol] + total - before - 1))


def _spreads(random: np.random.Generator, book: Book, symbol: Ints, heads: Ints, is_move: Flags) -> Ints:
    """Draw a spread where the quote moves, and keep it until the next move."""
    drawn = np.minimum(random.geometric(1 - _WIDER_CHANCE, size=len(symbol)), _SPREAD_TICKS_MAX).astype(np.int64)
    source = _latest(is_move, heads)
    return np.where(source >= 0, drawn[source], book.spread[symbol])


def _latest(is_set: Flags, heads: Ints) -> Ints:
    """Return for each event the latest event at or before it, in its symbol, where `is_set`; -1 where none is."""
    positions = np.arange(len(is_set), dtype=np.int64)
    latest = np.maximum.accumulate(np.where(is_set, positions, -1)) if len(positions) else positions
    start = np.repeat(heads, np.diff(np.r_[heads, len(is_set)]))
    return np.where(latest >= start, latest, -1)


def _before(carried: Ints, symbol: Ints, heads: Ints, after: Ints) -> Ints:
    """Return what stood before each event: the value after the one before it, at a symbol's first the carried one."""
    before = np.r_[after[:1], after[:-1]]
    before[heads] = carried[symbol[heads]]
    return np.asarray(before)


def _taken(standing: Ints, draw: NDArray[np.float64]) -> Ints:
    """Return how much a trade takes that leaves a rest: 1 up to the standing size."""
    return np.asarray(1 + np.floor(draw * np.maximum(standing - 1, 0)).astype(np.int64))


def _sizes(
    carried: Ints, symbol: Ints, heads: Ints, fresh: Ints, renews: Flags, takes: Flags, draw: NDArray[np.float64]
) -> tuple[Ints, Ints]:
    """Return one side's size before and after each event.

    Takes in a row depend on each other, so they are worked off by their place in the row, all rows at once. Where
    nothing would be left, one unit is shown: the level was refilled.
    """
    size = np.where(renews, fresh, carried[symbol])
    touched = np.flatnonzero(renews | takes)
    is_take = takes[touched]
    owner = symbol[touched]
    anew = ~is_take | np.r_[True, owner[1:] != owner[:-1]] if len(touched) else np.empty(0, np.bool_)
    places = np.arange(len(touched), dtype=np.int64)
    depth = places - np.maximum.accumulate(np.where(anew, places, 0)) if len(touched) else places
    opening = touched[anew & is_take]  # a take with nothing before it in this slice starts from the carried size
    size[opening] = _rest(size[opening], draw[opening])
    for level in range(1, int(depth.max(initial=0)) + 1):
        at = np.flatnonzero(depth == level)
        size[touched[at]] = _rest(size[touched[at - 1]], draw[touched[at]])
    source = _latest(renews | takes, heads)
    after = np.where(source >= 0, size[source], carried[symbol])
    return _before(carried, symbol, heads, after), after


def _rest(standing: Ints, draw: NDArray[np.float64]) -> Ints:
    return np.asarray(np.maximum(standing - _taken(standing, draw), 1))


def _close(book: Book, symbol: Ints, heads: Ints, lengths: Ints, after: tuple[Ints, Ints, Ints, Ints]) -> None:
    last = heads + lengths - 1
    owner = symbol[last]
    book.bid[owner], book.spread[owner], book.bid_size[owner], book.ask_size[owner] = (values[last] for values in after)
    book.is_open[owner] = True
