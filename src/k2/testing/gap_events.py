"""Events of gaps with every column set, for tests of the table of gaps and of answers."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import polars as pl

from k2.schemas.arrow import polars_schema
from k2.schemas.records import GAPS

RECORDED: Final = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)


def gap_event(event: str = "opened", first: int = 10, last: int = 14, **other: Any) -> dict[str, Any]:
    """Return one event about the numbers `first` to `last`; `other` names columns with other values.

    Any: values of all columns' types.
    """
    values = {
        "event": event,
        "ts_recorded": RECORDED,
        "data_type": "trades",
        "exchange": "asx",
        "symbol": "BHP",
        "channel": None,
        "trading_date": RECORDED.date(),
        "trading_date_to": RECORDED.date(),
        "topic": "market.equities.trades.asx",
        "topic_id": "id",
        "log_id": 0,
        "log_partition": 0,
        "log_offset": 7,
        "ts_log": RECORDED,
        "gap_first": 10,
        "gap_last": 14,
        "first_missing": first,
        "last_missing": last,
        "event_offset": 7,
        "ts_event_log": RECORDED,
        "from_ns": 100,
        "to_ns": 200,
        "decided_offset": 9,
        "commit_sequence": None,
    }
    return values | other


def gap_events(*events: dict[str, Any]) -> pl.DataFrame:
    """Return events as the table of gaps takes them."""
    return pl.DataFrame(list(events), schema=polars_schema(GAPS))
