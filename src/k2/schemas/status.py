"""The Avro schema of markers: how far a source went, for each symbol, at its end or so far."""

from __future__ import annotations

import json
from typing import Any, Final

from k2.schemas.avro import NAMESPACE

END_OF_STREAM: Final = "END_OF_STREAM"
HEARTBEAT: Final = "HEARTBEAT"
"""More follows: what was sent until now."""

STATUS_SCHEMA: Final[dict[str, Any]] = {
    "type": "record",
    "name": "Status",
    "namespace": NAMESPACE,
    "fields": [
        {"name": "kind", "type": "string", "doc": "END_OF_STREAM or HEARTBEAT"},
        {"name": "exchange", "type": "string"},
        {"name": "data_type", "type": "string", "doc": "trades or quotes"},
        {"name": "source", "type": "string", "doc": "the source that has ended or is alive"},
        {"name": "symbol", "type": "string"},
        {"name": "last_sequence", "type": ["null", "long"], "default": None, "doc": "the symbol's last sequence"},
        {"name": "last_source_sequence", "type": "long", "doc": "the source's last counter for the symbol"},
        {"name": "records", "type": "long", "doc": "records of the symbol in the source until then"},
        {
            "name": "trading_date",
            "type": ["null", "int"],
            "default": None,
            "doc": "session date of last_sequence, in days since 1970",
        },
    ],
}


def status_text() -> str:
    """Return the schema as JSON text, the form in which it is registered."""
    return json.dumps(STATUS_SCHEMA)
