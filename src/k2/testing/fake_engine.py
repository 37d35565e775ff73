"""A hybrid engine over rows in memory, for tests of what stands in front of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pyarrow as pa

from k2.query.bars.columns import BARS_SCHEMA
from k2.query.certificate import AsOf, Certificate
from k2.query.request import Answer, QueryRequest, RowKey, SymbolSummary
from k2.schemas.arrow import arrow_schema
from k2.schemas.records import ORDER, RECORD_TYPES
from k2.testing.fake_follower import FakeFollower
from k2.testing.fake_gaps import FakeGaps, see_that_few_are_read
from k2.testing.plain_bars import plain_bars, utc_start

if TYPE_CHECKING:
    from k2.common.errors import K2Error
    from k2.query.bars.request import BarsRequest
    from k2.storage.named_snapshots import KeptSnapshot

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class FakeEngine:
    """Answers from `rows` (all columns of the table). `fails_with` is raised instead, while it is set."""

    def __init__(self, rows: dict[str, pl.DataFrame] | None = None) -> None:
        self.rows = dict(rows or {})
        self.asked: list[QueryRequest] = []
        self.asked_bars: list[BarsRequest] = []
        self.fails_with: K2Error | None = None
        self.known_gaps = FakeGaps()
        self.followers: dict[str, FakeFollower] = {}
        self.known_snapshots: list[KeptSnapshot] = []

    def query(self, request: QueryRequest) -> Answer:
        """Answer from the rows whose offset is below the end that the request's token states."""
        self.asked.append(request)
        if self.fails_with is not None:
            raise self.fails_with
        schema = arrow_schema(RECORD_TYPES[request.data_type])
        rows = self.rows.get(request.data_type, pl.DataFrame(schema.empty_table()))
        end = AsOf.from_token(request.as_of).partitions[0][3] if request.as_of else _end(rows)
        rows = rows.filter(pl.col("symbol") == request.symbol, pl.col("log_offset") < end).sort(ORDER)
        if request.known_at_ns is not None:
            rows = rows.filter(pl.col("ts_log").dt.timestamp("us") * 1_000 < request.known_at_ns)
        if request.start_ns is not None:
            rows = rows.filter(pl.col("ts_event_ns") >= request.start_ns)
        if request.end_ns is not None:
            rows = rows.filter(pl.col("ts_event_ns") < request.end_ns)
        if request.since is not None:
            rows = rows.filter(pl.col("log_offset") >= request.since.ends[0][2])
        if request.after is not None:
            after = request.after
            place = (after.ts_event_ns, after.log_id, after.log_partition, after.log_offset)
            rows = rows.filter(pl.Series([key > place for key in rows.select(ORDER).rows()], dtype=pl.Boolean))
        truncated = request.limit is not None and len(rows) > request.limit
        rows = rows.head(request.limit) if request.limit is not None else rows
        next_after = RowKey(*rows.select(ORDER).row(-1)) if truncated else None
        table = rows.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)
        return Answer(table, self._certificate(request, len(rows), end, truncated=truncated), next_after)

    def bars(self, request: BarsRequest) -> Answer:
        """Return bars of all trades that `query` gives, counted from UTC midnight; each is final."""
        trades = self.query(request.trades)
        self.asked_bars.append(request)
        found = plain_bars(trades.table.to_pylist(), lambda at_ns: utc_start(at_ns, request.length_ns))
        bars = [self._bar(request, start, *values) for start, values in found.items()]
        stated = {"interval": request.interval, "align": request.align, "prints": request.prints}
        certificate = replace(trades.certificate, bars={**stated, "bars": len(bars)})
        return Answer(pa.Table.from_pylist(bars, BARS_SCHEMA), certificate)

    bar_settle_ns = 0

    def live(self, data_type: str) -> FakeFollower:
        """Return what follows the rows."""
        return self.followers.setdefault(data_type, FakeFollower(data_type, self.rows))

    def symbols(
        self, exchange: str | None = None, data_type: str | None = None, *, read_rows_max: int | None = None
    ) -> list[SymbolSummary]:
        """Return what the rows hold; none of them was counted before."""
        see_that_few_are_read(sum(map(len, self.rows.values())), read_rows_max)
        found = []
        for name, rows in self.rows.items():
            if data_type in (None, name):
                kept = rows if exchange is None else rows.filter(pl.col("exchange") == exchange)
                for (place, symbol), group in kept.group_by("exchange", "symbol", maintain_order=True):
                    times = group["ts_event_ns"]
                    found.append(SymbolSummary(name, place, symbol, len(group), times.min(), times.max()))  # type: ignore[arg-type]  # polars types columns loosely
        return found

    def gaps(
        self,
        *,
        symbol: str | None = None,
        exchange: str | None = None,
        since_ns: int | None = None,
        read_rows_max: int | None = None,
    ) -> pl.DataFrame:
        """Return the gaps that `known_gaps` tells."""
        return self.known_gaps.gaps(symbol=symbol, exchange=exchange, since_ns=since_ns, read_rows_max=read_rows_max)

    def snapshots(self, data_type: str | None = None) -> list[KeptSnapshot]:
        """Return what `known_snapshots` has of the table."""
        return [each for each in self.known_snapshots if data_type in (None, each.head.table_name)]

    def get_stats(self) -> dict[str, Any]:
        """Return how often it was asked."""
        return {"queries": len(self.asked)}

    @staticmethod
    def _bar(request: BarsRequest, start_ns: int, *values: Any) -> dict[str, Any]:
        """Return a bar of the values of `plain_bars`; of what they do not say, nothing but zeros."""
        named = dict(zip(("open", "high", "low", "close", "volume", "vwap", "trade_count"), values, strict=True))
        zeros: dict[str, Any] = {field.name: 0 for field in BARS_SCHEMA if pa.types.is_integer(field.type)}
        day = EPOCH + timedelta(microseconds=start_ns // 1_000)
        return {
            **zeros,
            **named,
            "exchange": request.trades.exchange or "sim",
            "symbol": request.trades.symbol,
            "bar_start": day,
            "bar_start_ns": start_ns,
            "bar_end_ns": start_ns + request.length_ns,
            "trading_date": day.date(),
            "trading_date_to": day.date(),
            "sequence_missing": None,
            "complete": True,
            "state": "final",
            "amended": False,
        }

    @staticmethod
    def _certificate(request: QueryRequest, rows: int, end: int, *, truncated: bool) -> Certificate:
        return Certificate(
            table=f"market.{request.data_type}",
            symbol=request.symbol,
            exchange=request.exchange,
            start_ns=request.start_ns,
            end_ns=request.end_ns,
            snapshot_id=1,
            commit_sequence=1,
            partitions=(),
            rows=rows,
            rows_from_table=rows,
            rows_from_log=0,
            undecodable=0,
            as_of=AsOf(request.data_type, request.exchange, 1, ((0, 0, 0, end),)).to_token(),
            complete=True,
            truncated=truncated,
            amendments=request.amendments,
            known_at_ns=request.known_at_ns,
            newest_record_age_seconds=1.0 if rows else None,
        )


def _end(rows: pl.DataFrame) -> int:
    highest = rows["log_offset"].max()
    return highest + 1 if isinstance(highest, int) else 0
