"""The messages of a simulated market as text, and their decoder: values follow from the text and the offset."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from k2.kafka.decoding import BadRecord, Decoded
from k2.schemas.arrow import polars_schema
from k2.schemas.records import Action

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k2.kafka.batches import LogBatch
    from k2.schemas.records import RecordType

BAD = b"bad"
"""A value that no decoder accepts."""


@dataclass(frozen=True, slots=True)
class TradeFields:
    """What the venue says of a trade or of an amendment; `day` counts from the day on which the log was begun."""

    action: str = Action.NEW
    trade_id: str | None = None
    ref_trade_id: str | None = None
    day: int = 0
    price: int = 1
    quantity: int = 1
    conditions: tuple[str, ...] = ()


def message_value(
    symbol: str, ts_event_ns: int, source_sequence: int | None, identity: int | None, trade: TradeFields | None
) -> bytes:
    """Return a message's value: symbol, time, the source's counter, the venue's number, the trade's fields."""
    numbers = ["" if number is None else str(number) for number in (source_sequence, identity)]
    said = "" if trade is None else json.dumps(asdict(trade), sort_keys=True)
    return "|".join([symbol, str(ts_event_ns), *numbers, said]).encode()


def what_is_said(value: bytes) -> tuple[str, ...] | None:
    """Return what two messages share where the later one repeats the earlier; None for one without identity."""
    if value == BAD:
        return None
    symbol, time, _, number, trade = _parts(value)
    if not number and (trade is None or trade.trade_id is None):
        return None
    return symbol, str(time), number, "" if trade is None else json.dumps(asdict(trade), sort_keys=True)


def _parts(value: bytes) -> tuple[str, int, str, str, TradeFields | None]:
    symbol, time, sequence, number, said = value.decode().split("|", 4)
    return symbol, int(time), sequence, number, TradeFields(**json.loads(said)) if said else None


class SimulatedMarketDecoder:
    """Decodes the market's messages: symbol and time as they carry them, filler that follows from the offset."""

    def __init__(self, record_type: RecordType) -> None:
        self._schema = {
            name: kind
            for name, kind in polars_schema(record_type).items()
            if name not in ("commit_sequence", "written_by")
        }

    def decode(self, batch: LogBatch, *, log_id: int) -> Decoded:
        """Decode a batch."""
        rows, bad = [], []
        for offset, logged, key, value in zip(batch.offsets, batch.ts_log_ms, batch.keys, batch.values, strict=True):
            if value is None or value == BAD:
                bad.append(BadRecord(batch.partition, offset, logged, key, value, "Bad", "it says so"))
            else:
                rows.append(self._row(batch, offset, logged, value, log_id))
        return Decoded(pl.DataFrame(rows, schema=self._schema, orient="row"), tuple(bad))

    def decode_all(self, batches: Sequence[LogBatch], *, log_id: int) -> list[Decoded]:
        """Decode batches of one topic."""
        return [self.decode(batch, log_id=log_id) for batch in batches]

    def _row(self, batch: LogBatch, offset: int, logged: int, value: bytes, log_id: int) -> list[Any]:
        symbol, time, sequence, number, trade = _parts(value)
        at = dt.datetime.fromtimestamp(logged / 1000, tz=dt.UTC)
        identity = int(number) if number else None
        known: dict[str, Any] = {
            "exchange": batch.topic.rpartition(".")[2],
            "symbol": symbol,
            "ts_event_ns": int(time),
            "ts_recv_ns": int(time) + 1,
            "trading_date": at.date(),
            "action": "NEW",
            "source": "simulated",
            "source_sequence": int(sequence) if sequence else offset,
            "conditions": [],
            "ts_event": dt.datetime.fromtimestamp(int(time) // 10**9, tz=dt.UTC),
            "log_id": log_id,
            "log_partition": batch.partition,
            "log_offset": offset,
            "ts_log": at,
            "sequence": identity,
            "price": offset + 1 if identity is None else 1,
            "quantity": 1,
        }
        if trade is not None:
            date = at.date() + dt.timedelta(days=trade.day)
            known |= {
                "action": trade.action,
                "trade_id": trade.trade_id,
                "ref_trade_id": trade.ref_trade_id,
                "trading_date": date,
                "price": trade.price,
                "quantity": trade.quantity,
                "conditions": list(trade.conditions),
            }
        return [known.get(name) for name in self._schema]
