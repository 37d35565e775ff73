"""Guesses the mapping of a file by the names and values of its columns, and says what of it is not sure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Literal

import polars as pl
import yaml

from k2.common.errors import ConfigurationError
from k2.feeds.mapped.columns import required_of
from k2.feeds.mapped.guessed_times import Guessed, guess_date, guess_time, is_time_of_day
from k2.feeds.mapped.making import BROKEN, LINE, RecordMaker
from k2.feeds.mapped.mapping import mapping_of
from k2.schemas.records import RECORD_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from k2.feeds.mapped.sampling import Sample

DataType = Literal["trades", "quotes"]
_NAMES: Final = {
    "symbol": "symbol sym ticker ric instrument pair code security product s",
    "ts_event_ns": "tseventns tsevent timestamp time datetime eventtime transacttime exchangetime tradetime ts t",
    "ts_recv_ns": "tsrecvns tsrecv recvtime receivetime receivedtime receivetimestamp localtimestamp localtime",
    "trading_date": "tradingdate sessiondate businessdate tradedate",
    "action": "action",
    "channel": "channel channelid",
    "sequence": "sequence seq seqnum seqno sequencenumber",
    "sub_index": "subindex",
    "trade_id": "tradeid id tid execid matchid aggtradeid",
    "ref_trade_id": "reftradeid",
    "price": "price px tradeprice lastprice last p",
    "quantity": "quantity qty size tradesize lastsize amount volume vol q v",
    "side": "side aggressorside aggressor takerside direction isbuyermaker buyermaker",
    "conditions": "conditions condition cond saleconditions qualifiers",
    "bid_price": "bidprice bidpx bid bestbid bestbidprice bidpx00",
    "bid_size": "bidsize bidqty bidsz bidvolume bestbidsize bestbidqty bidsz00 bidquantity bidamount",
    "ask_price": "askprice askpx ask bestask bestaskprice offer askpx00 offerprice",
    "ask_size": "asksize askqty asksz askvolume bestasksize bestaskqty asksz00 askquantity askamount offersize",
    "extra": "extra",
}
"""Names of columns by field, as letters and digits alone, the likelier before the others."""
_BUYS: Final = frozenset({"b", "buy", "bid", "buyer", "1"})
_SELLS: Final = frozenset({"s", "sell", "ask", "a", "seller", "-1", "2"})
_SIDES_MAX: Final = 10
_UNKNOWN: Final = "?"


def guess_mapping(sample: Sample, *, table: DataType | None, exchange: str | None, zone: str, latest_ns: int) -> str:
    """Return a mapping as YAML, with comments where it is not sure and how it went with the sample's records.

    Raises:
        ConfigurationError: the file has no columns that could be a table's.
    """
    found = _by_name(sample.frame.columns)
    chosen = table or ("quotes" if "price" not in found and {"bid_price", "ask_price"} & set(found) else "trades")
    guesses = _guesses(sample, chosen, found)
    record_type = RECORD_TYPES[chosen]
    if sample.has_names and set(guesses) <= {"symbol", "extra"}:
        raise ConfigurationError(
            f"expected columns that could be {chosen} in {sample.path}, found {', '.join(sample.frame.columns)[:200]}: "
            "write the mapping by hand (docs/operations/own-data.md)"
        )
    missing = [name for name in required_of(record_type) if name not in guesses]
    said: dict[str, Any] = {"version": 1, "table": chosen, "exchange": exchange or _UNKNOWN}
    if sample.csv is not None:
        said["csv"] = sample.csv
    said["columns"] = {name: _short(guess.said) for name, guess in guesses.items()}
    unsure = {name: guess.unsure for name, guess in guesses.items()}
    unsure["csv"] = sample.unsure
    if exchange is None:
        unsure["exchange"] = ("name one of topics.yaml (`k2 topics` shows them)",)
    if table is None and {"price", "bid_price"} <= set(found):
        unsure["table"] = ("there are prices and bids: --table quotes guesses the other",)
    checked = None if missing else _checked(sample, said, zone=zone, latest_ns=latest_ns)
    return _written(sample, said, unsure, missing, checked)


def _by_name(columns: Sequence[str]) -> dict[str, str]:
    """Return the likeliest column of each field; no column is of two fields."""
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in reversed(columns)}
    found: dict[str, str] = {}
    for field, names in _NAMES.items():
        for name in names.split():
            if name in plain and plain[name] not in found.values():
                found[field] = plain[name]
                break
    return found


def _guesses(sample: Sample, table: DataType, found: Mapping[str, str]) -> dict[str, Guessed]:
    frame = sample.frame
    guesses: dict[str, Guessed] = {}
    used: set[str | None] = set()
    for field in RECORD_TYPES[table].message_fields:
        guess = _guess(field.name, found.get(field.name), sample)
        if guess is not None:
            guesses[field.name] = guess
            used |= {guess.said.get("column"), *guess.said.get("columns", ())}
    rest = [name for name in frame.columns if name not in used]
    if rest and "extra" not in guesses:
        guesses["extra"] = Guessed({"columns": rest}, ("no field was found for these; leave out what is not wanted",))
    return guesses


def _guess(field: str, name: str | None, sample: Sample) -> Guessed | None:
    column = None if name is None else sample.frame[name]
    if field == "ts_event_ns":
        return _event_time(column, sample.frame)
    if column is None:
        return _symbol_of(sample) if field == "symbol" else None
    match field:
        case "ts_recv_ns":
            guess = guess_time([column])
        case "trading_date":
            guess = guess_date(column)
        case "side":
            guess = _side(column)
        case _:
            doubt = _doubt(field, column)
            guess = Guessed({"column": column.name}, () if doubt is None else (doubt,))
    return guess


def _symbol_of(sample: Sample) -> Guessed | None:
    stem = re.match(r"[A-Za-z0-9]+", sample.path.stem)
    return Guessed({"constant": stem[0]}, ("no column of symbols: this is from the file's name",)) if stem else None


def _doubt(field: str, column: pl.Series) -> str | None:
    if field == "quantity" and column.name.lower() in {"volume", "vol", "v"}:
        return "is it each trade's, or the day's so far?"
    if field == "trade_id" and column.name.lower() == "id":
        return "is it the venue's number of the trade?"
    if field == "conditions" and not isinstance(column.dtype, pl.List):
        return "several in one text need a separator"
    return None


def _event_time(column: pl.Series | None, frame: pl.DataFrame) -> Guessed | None:
    if column is not None and not is_time_of_day(column):
        return guess_time([column])
    dates = [frame[name] for name in frame.columns if "date" in name.lower()]
    times = [frame[name] for name in frame.columns if is_time_of_day(frame[name])]
    if dates and times:
        return guess_time([dates[0], times[0]])
    return guess_time([dates[0]]) if dates else None


def _side(column: pl.Series) -> Guessed | None:
    texts = [str(text) for text in column.cast(pl.String).unique().drop_nulls().sort().to_list()]
    if len(texts) > _SIDES_MAX:
        return None
    if "maker" in column.name.lower():
        return Guessed(
            {
                "column": column.name,
                "values": {text: "SELL" if text.lower() in ("true", "1", "t") else "BUY" for text in texts},
            },
            ("the aggressor is the side that is not the maker",),
        )
    if set(texts) <= {"BUY", "SELL", ""}:
        return Guessed({"column": column.name})
    values = {
        text: "BUY" if text.lower() in _BUYS else "SELL" if text.lower() in _SELLS else None for text in texts if text
    }
    unknown = [text for text, meaning in values.items() if meaning is None]
    unsure = (f"what does {', '.join(map(repr, unknown))} mean?",) if unknown else ("is it the aggressor's side?",)
    return Guessed({"column": column.name, "values": values}, unsure)


def _short(said: dict[str, Any]) -> Any:
    return said["column"] if list(said) == ["column"] else said


def _checked(sample: Sample, said: dict[str, Any], *, zone: str, latest_ns: int) -> str:
    """Return how the mapping goes with the records of the sample."""
    try:
        maker = RecordMaker(mapping_of(said, sample.path), zone=zone, source=_UNKNOWN, latest_ns=latest_ns)
        numbers = pl.int_range(1, sample.frame.height + 1, dtype=pl.Int64, eager=True)
        cells = sample.frame.with_columns(numbers.alias(LINE), pl.lit(None, pl.Int32).alias(BROKEN))
        read = maker.make(cells)
    except ConfigurationError as error:
        return f"unsure: {error}"
    counted = f"tried on the first {sample.frame.height:,} records: "
    if not read.bad:
        return f"{counted}all are read"
    bad = read.bad[0]
    return f"unsure: {counted}{len(read.bad):,} are not read, the first is record {bad.line} (expected {bad.expected})"


def _written(
    sample: Sample,
    said: dict[str, Any],
    unsure: Mapping[str, Sequence[str]],
    missing: Sequence[str],
    checked: str | None,
) -> str:
    lines = [f"# A guess from {sample.path.name}: look at each line, above all where it is unsure, then save it."]
    if checked is not None:
        lines.append(f"# {checked}")
    for key, value in said.items():
        if key != "columns":
            lines.append(_line(key, value, unsure.get(key, ())))
    lines.append("columns:")
    lines += [f"  # {name}: not found; every record needs it" for name in missing]
    lines += [f"  {_line(name, value, unsure.get(name, ()))}" for name, value in said["columns"].items()]
    return "\n".join(lines) + "\n"


def _line(key: str, value: Any, unsure: Sequence[str]) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True)
    text = text.removesuffix("\n").removesuffix("\n...")
    return f"{key}: {text}{'  # unsure: ' + '; '.join(unsure) if unsure else ''}"
