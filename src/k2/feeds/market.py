"""The simulated market: trades and quotes that agree; the same bytes for the same seed, start and parameters.

Nothing here reads a clock: the times of events derive from the run's start. A run's id derives from all that shapes
it, and is its `source` and `channel`, so two runs never share an identity unless they are the same, byte for byte.
Sequences begin at 1 in each run, per symbol and data type; `source_sequence` counts a run's records per data type.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from k2.common.errors import ConfigurationError
from k2.common.units import NS_PER_SECOND
from k2.feeds.decimals import decimal_from_units
from k2.feeds.market_arrivals import ArrivalProcess
from k2.feeds.market_prices import TRADE_SHARE, new_book, step
from k2.schemas.arrow import message_rows
from k2.schemas.records import (
    PRICE_PRECISION,
    PRICE_SCALE,
    QUANTITY_PRECISION,
    QUANTITY_SCALE,
    RECORD_TYPES,
    Action,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

EXCHANGE: Final = "sim"
SYMBOLS_MAX: Final = 100_000
RATE_MAX: Final = 1_000_000.0
_SLICE_RECORDS: Final = 1_000
_SLICE_NS_MIN: Final = 50_000_000
_SLICE_NS_MAX: Final = 250_000_000
_SPACING_NS: Final = 2_000
_QUOTE_DELAY_NS: Final = 1_000
_LATENCY_NS: Final = (20_000, 200_000)
_TICKS: Final = ((200, 10**9), (2_000, 5 * 10**9), (20_000, 10**10))
"""Tick in units of 10^-12, by the anchor in ticks that it is for at most: 0.001, 0.005, 0.01."""


@dataclass(frozen=True, slots=True)
class MarketRun:
    """What shapes a run: `rate` is messages a second on average, trades and quotes together."""

    seed: int
    start_ns: int
    rate: float = 200.0
    symbols: int = 50
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        """Refuse what no market can be made of."""
        if not 0 < self.rate <= RATE_MAX:
            raise ConfigurationError(
                f"expected a rate above 0 and at most {RATE_MAX:,.0f} messages a second, found {self.rate}"
            )
        if not 0 < self.symbols <= SYMBOLS_MAX:
            raise ConfigurationError(f"expected 1 to {SYMBOLS_MAX:,} symbols, found {self.symbols}")
        if self.seed < 0:
            raise ConfigurationError(f"expected a seed of 0 or more, found {self.seed}")

    @property
    def run_id(self) -> str:
        """Name of the run, from all that shapes it."""
        text = f"{self.seed}/{self.start_ns}/{self.rate!r}/{self.symbols}/{self.timezone}"
        return f"sim-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"

    @property
    def slice_ns(self) -> int:
        """Length of a slice: of the rate alone, so that the pace of a run changes no byte of it."""
        return int(min(max(_SLICE_RECORDS / self.rate * NS_PER_SECOND, _SLICE_NS_MIN), _SLICE_NS_MAX))


@dataclass(frozen=True)
class MarketSlice:
    """The records of one slice, each frame in the order of time, columns of the message; `end_ns` ends it."""

    end_ns: int
    trades: pl.DataFrame
    quotes: pl.DataFrame


def symbol_names(count: int) -> list[str]:
    """Return the names of the symbols, the most active first."""
    return [f"SIM{number:04d}" for number in range(1, count + 1)]


class Market:
    """One run of the market."""

    def __init__(self, run: MarketRun, *, duration_ns: int | None = None) -> None:
        """Begin a run. One that is cut short by `duration_ns` is, byte for byte, the beginning of the longer one."""
        self.run = run
        self._duration_ns = duration_ns
        self._random = np.random.Generator(np.random.PCG64(run.seed))
        self._book = new_book(self._random, run.symbols)
        self._tick = np.select(
            [self._book.anchor <= upto for upto, _ in _TICKS], [tick for _, tick in _TICKS], _TICKS[-1][1]
        ).astype(np.int64)
        self._arrivals = ArrivalProcess(
            self._random, events_per_second=run.rate / (1 + TRADE_SHARE), symbols=run.symbols
        )
        self._names = pl.Series(symbol_names(run.symbols))
        self._last_ns = np.full(run.symbols, -_SPACING_NS, np.int64)
        self._sequences = {name: np.zeros(run.symbols, np.int64) for name in RECORD_TYPES}
        self._counters = {name: np.zeros(run.symbols, np.int64) for name in RECORD_TYPES}
        self._sent = dict.fromkeys(RECORD_TYPES, 0)
        self._now_ns = 0

    def slices(self) -> Iterator[MarketSlice]:
        """Yield slice after slice until the run's duration is over; without one, for ever."""
        while self._duration_ns is None or self._now_ns < self._duration_ns:
            yield self.next_slice()

    def next_slice(self) -> MarketSlice:
        """Return the slice that follows the one before."""
        end_ns = self._now_ns + self.run.slice_ns
        arrivals = self._arrivals.between(self._now_ns, end_ns)
        self._now_ns = end_ns
        order = np.argsort(arrivals.symbol, kind="stable")
        symbol = arrivals.symbol[order]
        time_ns = self._spaced(symbol, arrivals.time_ns[order])
        happened = step(self._random, self._book, symbol)
        at = np.flatnonzero(happened.is_trade)
        trades = self._frame(
            "trades",
            symbol[at],
            time_ns[at],
            {
                "price": (happened.trade_price[at], self._tick[symbol[at]]),
                "quantity": (happened.trade_size[at], None),
            },
            side=np.where(happened.is_buy[at], "BUY", "SELL"),
        )
        quotes = self._frame(
            "quotes",
            symbol,
            time_ns + np.where(happened.is_trade, _QUOTE_DELAY_NS, 0),
            {
                "bid_price": (happened.bid, self._tick[symbol]),
                "bid_size": (happened.bid_size, None),
                "ask_price": (happened.ask, self._tick[symbol]),
                "ask_size": (happened.ask_size, None),
            },
        )
        return MarketSlice(self.run.start_ns + end_ns, trades, quotes)

    def ends(self, data_type: str) -> pl.DataFrame:
        """Return how far each symbol came: symbol, last_sequence, last_source_sequence, source, records."""
        # Copies: Polars would look at the counters themselves, which the next slice moves.
        sequences = pl.Series("last_sequence", self._sequences[data_type].copy(), dtype=pl.Int64)
        counters = pl.Series("last_source_sequence", self._counters[data_type].copy(), dtype=pl.Int64)
        frame = pl.DataFrame([self._names.alias("symbol"), sequences, counters]).filter(pl.col("last_sequence") > 0)
        return frame.with_columns(source=pl.lit(self.run.run_id), records=pl.col("last_sequence"))

    def _spaced(self, symbol: Ints, time_ns: Ints) -> Ints:
        """Keep a symbol's events apart, so that the quote that a trade leaves lies before its next event."""
        if not len(symbol):
            return time_ns
        heads = np.flatnonzero(np.r_[True, symbol[1:] != symbol[:-1]])
        lengths = np.diff(np.r_[heads, len(symbol)])
        place = np.arange(len(symbol), dtype=np.int64) - np.repeat(heads, lengths)
        earliest = time_ns - place * _SPACING_NS
        earliest[heads] = np.maximum(earliest[heads], self._last_ns[symbol[heads]] + _SPACING_NS)
        # One running maximum for all symbols: each is lifted above the ones before it, and brought down again.
        low = int(earliest.min())
        lift = np.repeat(np.arange(len(heads), dtype=np.int64), lengths) * (int(earliest.max()) - low + 1)
        spaced = np.maximum.accumulate(earliest - low + lift) - lift + low + place * _SPACING_NS
        last = heads + lengths - 1
        self._last_ns[symbol[last]] = spaced[last]
        return spaced

    def _frame(
        self,
        data_type: str,
        symbol: Ints,
        time_ns: Ints,
        numbers: dict[str, tuple[Ints, Ints | None]],
        *,
        side: NDArray[np.str_] | None = None,
    ) -> pl.DataFrame:
        """Return the message's columns in the order of time; `numbers` are (count, units of 10^-12 a count or None)."""
        sequence = self._sequence(data_type, symbol)
        order = self._in_time(time_ns)
        count = len(order)
        event_ns = self.run.start_ns + time_ns[order]
        first = self._sent[data_type] + 1
        self._sent[data_type] += count
        counter = pl.int_range(first, first + count, dtype=pl.Int64, eager=True)
        self._sequences[data_type][symbol[order]] = sequence[order]  # of equal indices the last one stays
        self._counters[data_type][symbol[order]] = np.arange(first, first + count)
        latency = self._random.integers(*_LATENCY_NS, size=len(symbol), dtype=np.int64)[:count]
        run_id = self.run.run_id
        days = pl.Series(event_ns).cast(pl.Datetime("ns")).dt.replace_time_zone("UTC")
        columns: dict[str, pl.Series | pl.Expr] = {
            "exchange": pl.lit(EXCHANGE),
            "symbol": self._names.gather(symbol[order]),
            "ts_event_ns": pl.Series(event_ns, dtype=pl.Int64),
            "ts_recv_ns": pl.Series(event_ns + latency, dtype=pl.Int64),
            "trading_date": days.dt.convert_time_zone(self.run.timezone).dt.date(),
            "action": pl.lit(Action.NEW),
            "source": pl.lit(run_id),
            "source_sequence": counter,
            "channel": pl.lit(run_id),
            "sequence": pl.Series(sequence[order], dtype=pl.Int64),
            "conditions": pl.lit([], dtype=pl.List(pl.String)),
        }
        if side is not None:
            columns["side"] = pl.Series(side[order].tolist(), dtype=pl.String)
            columns["trade_id"] = pl.lit(f"{run_id}-") + counter.cast(pl.String)
        for name, (values, units) in numbers.items():
            columns[name] = _decimal(values[order], None if units is None else units[order])
        present = pl.DataFrame({name: column for name, column in columns.items() if isinstance(column, pl.Series)})
        given = {name: column for name, column in columns.items() if isinstance(column, pl.Expr)}
        return message_rows(present.with_columns(**given), RECORD_TYPES[data_type])

    def _in_time(self, time_ns: Ints) -> Ints:
        """Return the order of time, without what lies beyond the run's duration."""
        order = np.argsort(time_ns, kind="stable")
        if self._duration_ns is None:
            return order
        return order[: int(np.searchsorted(time_ns[order], self._duration_ns))]

    def _sequence(self, data_type: str, symbol: Ints) -> Ints:
        """Return each record's number in its symbol; `symbol` is sorted."""
        if not len(symbol):
            return np.empty(0, np.int64)
        heads = np.flatnonzero(np.r_[True, symbol[1:] != symbol[:-1]])
        place = np.arange(len(symbol), dtype=np.int64) - np.repeat(heads, np.diff(np.r_[heads, len(symbol)]))
        return np.asarray(self._sequences[data_type][symbol] + place + 1)


def _decimal(values: Ints, units: Ints | None) -> pl.Series:
    if units is None:
        whole = values * 10**QUANTITY_SCALE
        return decimal_from_units(whole, precision=QUANTITY_PRECISION, scale=QUANTITY_SCALE)
    return decimal_from_units(values * units, precision=PRICE_PRECISION, scale=PRICE_SCALE)
