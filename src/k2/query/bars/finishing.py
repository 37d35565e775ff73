"""Turns raw bars into an answer: VWAP to the last digit, whether each bar is whole, and whether it may still change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from k2.query.answering import certificate_of
from k2.query.bars.columns import BARS_SCHEMA, PRICE
from k2.query.bars.spans import NS_MIN
from k2.query.bars.statement import VALUES
from k2.query.certificate import AsOf
from k2.query.request import Answer
from k2.schemas.records import ORDER, PRICE_PRECISION, PRICE_SCALE, QUANTITY_SCALE

if TYPE_CHECKING:
    from k2.common.clock import Clock
    from k2.query.answering import Draft
    from k2.query.bars.reader import BarReader
    from k2.query.bars.request import BarsRequest
    from k2.query.certificate import Certificate
    from k2.query.request import QueryRequest

FINAL: Final = "final"
PROVISIONAL: Final = "provisional"
_VALUE_SCALE: Final = PRICE_SCALE + QUANTITY_SCALE
_WIDE: Final = Context(prec=100)
_NS: Final = pa.int64()


@dataclass(frozen=True, slots=True)
class _Horizon:
    """Up to when bars are over: whatever ends at or before `settled_ns`; `cut_ns` is the end asked for, if one was."""

    settled_ns: int
    cut_ns: int | None


def bars_answer(request: BarsRequest, draft: Draft, reader: BarReader, clock: Clock) -> Answer:
    """Return the answer that a draft with raw bars has come to; nobody has looked for gaps yet."""
    raw = draft.shown.rows
    excluded = pc.sum(raw["excluded_count"]).as_py() or 0
    raw = raw.filter(pc.greater(raw["trade_count"], 0))
    newest_ns = max((last["ts_event_ns"] for last in raw["last"].to_pylist()), default=None)
    now_ns = clock.time_ns()
    certificate = certificate_of(
        request.trades,
        draft,
        now_ns=now_ns,
        rows=pc.sum(raw["trade_count"]).as_py() or 0,
        newest_ns=newest_ns,
        is_of_bars=True,
    )
    rules = {} if request.prints == "all" else {name: rule.stated() for name, rule in reader.rules(draft).items()}
    stated = {
        "interval": request.interval,
        "align": request.align,
        "prints": request.prints,
        "rules": rules,
        "bars": raw.num_rows,
        "trades_left_out": excluded,
    }
    horizon = _horizon(request.trades, now_ns, newest_ns, reader.settle_ns)
    return Answer(_table(raw, request.trades.symbol, certificate, horizon), replace(certificate, bars=stated))


def with_gaps(answer: Answer, gaps: pl.DataFrame, watched: frozenset[str]) -> Answer:
    """Return the answer with the numbers that are missing in each bar of the exchanges whose numbers are watched.

    A gap lies between two events; it counts in every bar that it overlaps, since nobody knows where it is.
    """
    bars = pl.DataFrame(pl.from_arrow(answer.table.select(["exchange", "bar_start_ns", "bar_end_ns"])))
    bars = bars.with_row_index("number")
    spans = gaps.select(
        pl.col("exchange").alias("of"),
        low=pl.min_horizontal("from_ns", "to_ns"),
        high=pl.max_horizontal("from_ns", "to_ns"),
        missing="missing",
    )
    found = bars.join_where(
        spans,
        pl.col("exchange") == pl.col("of"),
        pl.col("bar_start_ns") <= pl.col("high"),
        pl.col("bar_end_ns") > pl.col("low"),
    )
    counts = bars.join(found.group_by("number").agg(pl.col("missing").sum()), on="number", how="left").sort("number")
    is_watched = pl.col("exchange").is_in(sorted(watched))
    missing = counts.select(pl.when(is_watched).then(pl.col("missing").fill_null(0)).cast(pl.Int64)).to_series()
    whole = pc.and_(answer.table["complete"], (missing.fill_null(0) == 0).to_arrow())
    table = _set(answer.table, "sequence_missing", missing.to_arrow())
    return replace(answer, table=_set(table, "complete", whole))


def without_gaps(answer: Answer, gaps: pl.DataFrame) -> Answer:
    """Return the answer without the bars of sessions that lack something: an exchange's trading dates."""
    bars = pl.DataFrame(pl.from_arrow(answer.table))
    out = pl.lit(value=False)
    for exchange, since, until, from_ns, to_ns in gaps.select(
        "exchange", "trading_date", "trading_date_to", "from_ns", "to_ns"
    ).unique().iter_rows():  # fmt: skip
        session = (
            (pl.col("bar_start_ns") <= max(from_ns, to_ns)) & (pl.col("bar_end_ns") > min(from_ns, to_ns))
            if since is None or until is None
            else (pl.col("trading_date") <= until) & (pl.col("trading_date_to") >= since)
        )
        out |= (pl.col("exchange") == exchange) & session
    gone = bars.select(gone=out.fill_null(value=False))["gone"]
    certificate = answer.certificate
    left = bars.filter(~gone)
    newest_ns = max(left["last_ts_event_ns"].to_list(), default=None)
    age = None if newest_ns is None else round((certificate.answered_at_ns - newest_ns) / 1e9, 6)
    certificate = replace(
        certificate,
        rows_excluded=int(bars.filter(gone)["trade_count"].sum()),
        newest_record_age_seconds=age,
        bars={**(certificate.bars or {}), "bars": left.height},
    )
    return replace(answer, table=answer.table.filter((~gone).to_arrow()), certificate=certificate)


def _horizon(asked: QueryRequest, now_ns: int, newest_ns: int | None, settle_ns: int) -> _Horizon:
    """Return the horizon: that of the first answer, where a token is asked again, so that bars come out the same."""
    seen_ns: int | None = now_ns
    if asked.as_of is not None:
        seen_ns = AsOf.from_token(asked.as_of).at_ns
        seen_ns = newest_ns if seen_ns is None else seen_ns
    if asked.known_at_ns is not None and seen_ns is not None:
        seen_ns = min(seen_ns, asked.known_at_ns)
    return _Horizon(max((seen_ns or 0) - settle_ns, NS_MIN), asked.end_ns)


def _table(raw: pa.Table, symbol: str, certificate: Certificate, horizon: _Horizon) -> pa.Table:
    count = raw.num_rows
    first, last = raw["first"], raw["last"]
    ends = raw["bar_end_ns"]
    is_cut = pa.repeat(pa.scalar(False), count)
    if horizon.cut_ns is not None:
        is_cut = pc.greater(ends, horizon.cut_ns)
    is_over = pc.and_not(pc.less_equal(ends, horizon.settled_ns), pc.or_(raw["unsettled"], is_cut))
    columns: dict[str, Any] = {
        "exchange": raw["exchange"],
        "symbol": pa.repeat(pa.scalar(symbol), count),
        "bar_start": pc.divide(raw["bar_start_ns"], 1_000).cast(pa.timestamp("us", "UTC")),
        "bar_start_ns": raw["bar_start_ns"],
        "bar_end_ns": ends,
        "trading_date": pc.struct_field(first, "trading_date"),
        "trading_date_to": pc.struct_field(last, "trading_date"),
        "open": pc.struct_field(first, "price"),
        "high": raw["high"],
        "low": raw["low"],
        "close": pc.struct_field(last, "price"),
        "volume": raw["volume"],
        "vwap": _vwaps(raw),
        "trade_count": raw["trade_count"],
        "excluded_count": raw["excluded_count"],
        **{f"first_{name}": pc.struct_field(first, name) for name in ORDER},
        **{f"last_{name}": pc.struct_field(last, name) for name in ORDER},
        "sequence_missing": pa.nulls(count, _NS),
        "complete": pc.and_(pa.repeat(pa.scalar(certificate.complete), count), pc.invert(is_cut)),
        "state": pc.if_else(is_over, FINAL, PROVISIONAL),
        "revision": raw["revision"],
        "amended": raw["amended"],
    }
    return pa.table([columns[field.name].cast(field.type) for field in BARS_SCHEMA], schema=BARS_SCHEMA)


def _vwaps(raw: pa.Table) -> pa.Array:
    """Return price times quantity through quantity, rounded once, half to even, to the decimals of a price.

    Null where the quantities add up to nothing, or the quotient is more than a price can be.
    """
    sums = zip(*(raw[name].to_pylist() for name in VALUES), raw["volume"].to_pylist(), strict=True)
    return pa.array([_vwap(*row) for row in sums], PRICE)


def _vwap(*sums: Decimal) -> Decimal | None:
    *values, volume = sums
    # In units of the last digit both are whole numbers, and so is the quotient: of the last digit of a price.
    value = sum(int(_WIDE.scaleb(part, _VALUE_SCALE)) for part in values)
    quantity = int(_WIDE.scaleb(volume, QUANTITY_SCALE))
    if quantity == 0:
        return None
    if quantity < 0:
        value, quantity = -value, -quantity
    whole, rest = divmod(value, quantity)
    whole += 2 * rest > quantity or (2 * rest == quantity and whole % 2 == 1)
    return _WIDE.scaleb(Decimal(whole), -PRICE_SCALE) if abs(whole) < 10**PRICE_PRECISION else None


def _set(table: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), column.cast(table.schema.field(at).type))
