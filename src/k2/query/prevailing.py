"""Trades with the quote that stood when each happened: an ASOF join of two exact answers, under one token."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa

from k2.common.errors import QueryError
from k2.common.units import NS_PER_SECOND
from k2.query.request import Answer, QueryRequest
from k2.schemas.arrow import arrow_schema
from k2.schemas.records import ORDER, QUOTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.query.certificate import Certificate

SEPARATOR: Final = "~"
"""Between the two tokens of a joined answer: that of its trades and that of its quotes."""
_TAKEN: Final = ("bid_price", "bid_size", "ask_price", "ask_size")
_READ: Final = ("exchange", *ORDER, *_TAKEN)
_NAMES: Final = {name: f"quote_{name}" for name in ORDER} | {name: name for name in _TAKEN}
"""The quote's columns as the answer calls them."""
_SECONDS_MAX: Final = 366 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class PrevailingRequest:
    """One question: the trades that `trades` asks for, each with the quote of its exchange that stood at its time.

    That is the last quote in the order of answers whose event time is not after the trade's and at most
    `tolerance_seconds` before it. `as_of` of `trades` may be the token of such an answer.
    """

    trades: QueryRequest
    tolerance_seconds: float = 3_600.0
    strictly_before: bool = False
    """Leave out quotes of the very nanosecond of the trade, which may have come after it."""

    def __post_init__(self) -> None:
        asked = self.trades
        if asked.data_type != "trades" or asked.columns is not None:
            raise QueryError("expected all columns of trades, found another question")
        if not 0 < self.tolerance_seconds <= _SECONDS_MAX:
            raise QueryError(
                f"expected a tolerance above 0 and up to {_SECONDS_MAX} seconds, found {self.tolerance_seconds}"
            )


def with_quotes(query: Callable[[QueryRequest], Answer], request: PrevailingRequest, *, quotes_max: int) -> Answer:
    """Ask `query` for the trades and for the quotes that may have stood, and join them.

    The answer has the columns of trades, then `quote_ts_event_ns` and the quote's coordinate, all null where no quote
    stood, and its prices and sizes, null also where its side was empty. The certificate is that of the trades, with
    that of the quotes in `quotes`; it is complete if both are.

    Raises:
        QueryError: more than `quotes_max` quotes may have stood.
    """
    tokens = _tokens(request.trades.as_of)
    trades = query(replace(request.trades, as_of=tokens[0]))
    tolerance_ns = round(request.tolerance_seconds * NS_PER_SECOND)
    if trades.table.num_rows == 0:
        empty = arrow_schema(QUOTES).empty_table().select(list(_READ))
        return Answer(_beside(trades.table, empty, pa.nulls(0, pa.int64())), _certified(trades, None))
    times = trades.table["ts_event_ns"]
    quotes = query(
        replace(
            request.trades,
            data_type="quotes",
            window_minutes=None,
            start_ns=times[0].as_py() - tolerance_ns,
            end_ns=times[-1].as_py() + (not request.strictly_before),
            limit=quotes_max,
            columns=_READ,
            after=None,
            as_of=tokens[1],
            amendments="applied",
            gaps="annotate" if request.trades.gaps == "exclude" else request.trades.gaps,
        )
    )
    if quotes.next_after is not None:
        raise QueryError(
            f"more than {quotes.table.num_rows} quotes may have stood at these trades: ask for fewer trades at a time "
            "(limit), or for a smaller tolerance"
        )
    places = _places(trades.table, quotes.table, tolerance_ns, strictly_before=request.strictly_before)
    return Answer(_beside(trades.table, quotes.table, places), _certified(trades, quotes), trades.next_after)


def _tokens(as_of: str | None) -> tuple[str | None, str | None]:
    """Return what trades and quotes are to be read as of; a time, a tag and `now` mean the same for both."""
    if as_of is None or SEPARATOR not in as_of:
        return as_of, as_of
    trades, _, quotes = as_of.partition(SEPARATOR)
    if not trades:
        raise QueryError("expected as_of to be the token of a certificate, found one without the part of its trades")
    return trades, quotes or None


def _places(trades: pa.Table, quotes: pa.Table, tolerance_ns: int, *, strictly_before: bool) -> pa.Array:
    """Return the row of the quote that stood at each trade, null where none did. Both tables are in answers' order."""
    keys = ["exchange", "ts_event_ns"]
    left = pl.DataFrame(pl.from_arrow(trades.select(keys)))
    right = pl.DataFrame(pl.from_arrow(quotes.select(keys))).with_row_index("place")
    joined = left.join_asof(
        right,
        on="ts_event_ns",
        by="exchange",
        strategy="backward",
        tolerance=tolerance_ns,
        allow_exact_matches=not strictly_before,
        check_sortedness=False,  # the order of answers is by time first
    )
    return joined["place"].cast(pl.Int64).to_arrow()


def _beside(trades: pa.Table, quotes: pa.Table, places: pa.Array) -> pa.Table:
    taken = quotes.select(list(_NAMES)).take(places)
    for name, shown in _NAMES.items():
        field = taken.schema.field(name)
        trades = trades.append_column(pa.field(shown, field.type), taken[name])
    return trades


def _certified(trades: Answer, quotes: Answer | None) -> Certificate:
    own = trades.certificate
    if quotes is None:
        return replace(own, as_of=None if own.as_of is None else own.as_of + SEPARATOR)
    beside = quotes.certificate
    known = own.as_of is not None and beside.as_of is not None
    return replace(
        own,
        as_of=f"{own.as_of}{SEPARATOR}{beside.as_of}" if known else None,
        complete=own.complete and beside.complete,
        reasons=(*own.reasons, *(f"quotes: {reason}" for reason in beside.reasons)),
        stale=own.stale or beside.stale,
        quotes=beside.to_dict(),
    )
