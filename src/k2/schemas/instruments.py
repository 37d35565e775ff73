"""The Avro schema of reference data: listings and corporate actions, each a record that stands by itself.

The topic is compacted by key, so it holds the newest word on each fact, for ever. A table of instruments by point in
time can be built from it: `effective_date` and `end_date` say when a fact holds, the log's append time when it was
known. The name `market.instruments` is reserved for that table.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from k2.schemas.avro import NAMESPACE
from k2.schemas.records import PRICE_PRECISION, PRICE_SCALE

if TYPE_CHECKING:
    from collections.abc import Mapping

LISTING: Final = "LISTING"
DIVIDEND: Final = "DIVIDEND"
SPLIT: Final = "SPLIT"
MERGER: Final = "MERGER"

_DATE: Final = {"type": "int", "logicalType": "date"}
_AMOUNT: Final = {"type": "bytes", "logicalType": "decimal", "precision": PRICE_PRECISION, "scale": PRICE_SCALE}


def _optional(name: str, kind: Any, doc: str) -> dict[str, Any]:  # Any: an Avro type, whose shape is Avro's
    return {"name": name, "type": ["null", kind], "default": None, "doc": doc}


INSTRUMENT_SCHEMA: Final[dict[str, Any]] = {
    "type": "record",
    "name": "Instrument",
    "namespace": NAMESPACE,
    "fields": [
        {"name": "kind", "type": "string", "doc": "LISTING, DIVIDEND, SPLIT or MERGER"},
        {"name": "exchange", "type": "string"},
        {"name": "symbol", "type": "string", "doc": "the venue's symbol, verbatim"},
        {"name": "venue_id", "type": "string", "doc": "the venue's number of the company"},
        {"name": "source", "type": "string", "doc": "SHA-256 of the file that first said so"},
        {"name": "source_sequence", "type": "long", "doc": "line of that file"},
        _optional("effective_date", _DATE, "first day on which it holds: of listing, ex date, day of the action"),
        _optional("end_date", _DATE, "last day of a listing"),
        _optional("name", "string", "the company's name"),
        _optional("isin", "string", "ISIN"),
        _optional("declared_date", _DATE, "day on which it was announced"),
        _optional("record_date", _DATE, "record date of a dividend"),
        _optional("pay_date", _DATE, "payment date of a dividend"),
        _optional("net_amount", _AMOUNT, "dividend a share, net"),
        _optional("gross_amount", _AMOUNT, "dividend a share, gross"),
        _optional("currency", "string", "currency of the amounts"),
        _optional("ratio", "string", "ratio of a split or merger, as the venue states it"),
        _optional("extra", "string", "what else the venue sent: one JSON object"),
    ],
}
_PROVENANCE: Final = frozenset({"source", "source_sequence"})
_NULLS: Final = {field["name"]: None for field in INSTRUMENT_SCHEMA["fields"] if "default" in field}


def instrument_text() -> str:
    """Return the schema as JSON text, the form in which it is registered."""
    return json.dumps(INSTRUMENT_SCHEMA)


def instrument(kind: str, **values: Any) -> dict[str, Any]:  # Any: each field has a type of its own
    """Return a record; optional fields that are not named are null."""
    return {**_NULLS, "kind": kind, **values}


def instrument_key(record: Mapping[str, Any], *, place: int = 0) -> bytes:
    """Return a record's message key: symbol and kind, then what tells its facts apart.

    Listings go by the venue's number, corporate actions by their day; `place` counts those before it on the same day.
    """
    part = record["venue_id"] if record["kind"] == LISTING else record["effective_date"].isoformat()
    return json.dumps([record["symbol"], record["kind"], part, *([place] if place else [])]).encode()


def states_the_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two records state the same, wherever each was read."""
    return all(one.get(name) == other.get(name) for name in (one.keys() | other.keys()) - _PROVENANCE)
