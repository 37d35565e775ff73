"""Reads many Avro messages as one block, in columns, and proves where each of them begins and ends.

Each message is preceded by a salt: random bytes that no message can know. A reader's copy of the writer's schema
begins with a `fixed` field that takes the salt and the message's five bytes of framing. If every row of the block
shows salt and framing there, then every row began where a message begins (the salt occurs nowhere else); and since
there are as many rows as messages, each message is exactly one row: none is shifted, split or swallowed. A last
message of ours closes the block, so that the last foreign one ends where it should, too.
"""

from __future__ import annotations

import io
import json
import os
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from k2.schemas.records import PRICE_PRECISION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k2.kafka.avro_plans import BlockPlan, WireField

FRAME_BYTES: Final = 5
_SALT_BYTES: Final = 11
_SYNC: Final = bytes(16)
_FRAME: Final = "k2.frame"
"""Name of the first field; with a dot, so that no Avro field can have it."""

_ZERO: Final = {"boolean": b"\0", "float": bytes(4), "double": bytes(8)}
_READER_TYPES: Final[dict[str, Any]] = {
    "strings": {"type": "array", "items": "string"},
    "longs": {"type": "array", "items": "long"},
    "date": "long",
}


class BlockReader:
    """Reads the messages of one writer schema. Integers and dates come back as 64 bits, to be checked for range."""

    def __init__(self, plan: BlockPlan, schema_id: int) -> None:
        self._plan = plan
        self._salt = os.urandom(_SALT_BYTES)
        frame = b"\0" + schema_id.to_bytes(4, "big")
        self._mark = self._salt + frame
        self._marks = pl.Series([self._mark])
        self._last = self._mark + b"".join(_zero(field) for field in plan.fields)
        self._header = _container_header(_reader_schema(plan, len(self._mark)))

    def read(self, messages: Sequence[bytes]) -> pl.DataFrame | None:
        """Return one row a message, or None if any of them is bad. The messages carry their five bytes of framing.

        The first column holds salt and framing, and is of no further use.
        """
        body = b"".join((self._salt, self._salt.join(messages), self._last) if messages else (self._last,))
        count = len(messages) + 1
        block = b"".join((self._header, zigzag(count), zigzag(len(body)), body, _SYNC))
        frame = _read_avro(block)
        if frame is None or frame.height != count or not (frame.get_column(_FRAME) == self._marks).all():
            return None
        return frame.head(-1)


def zigzag(number: int) -> bytes:
    """Encode an integer of 64 bits as Avro does."""
    left = (number << 1) ^ (number >> 63)
    out = bytearray()
    while left > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def _read_avro(block: bytes) -> pl.DataFrame | None:
    try:
        return pl.read_avro(io.BytesIO(block))
    except (pl.exceptions.PolarsError, OSError):
        return None
    except BaseException as error:
        # Polars has no checked read: bytes that lead out of the block panic, and pyo3's PanicException derives from
        # BaseException and cannot be imported.
        if type(error).__name__ == "PanicException":
            return None
        raise


def _reader_schema(plan: BlockPlan, mark_bytes: int) -> dict[str, Any]:
    first = {"name": _FRAME, "type": {"type": "fixed", "name": "K2Frame", "size": mark_bytes}}
    return {"type": "record", "name": "Block", "fields": [first, *map(_reader_field, plan.fields)]}


def _reader_field(field: WireField) -> dict[str, Any]:
    kind: Any = _READER_TYPES.get(field.wire, field.wire)
    if field.wire == "decimal":
        kind = {"type": "bytes", "logicalType": "decimal", "precision": PRICE_PRECISION, "scale": field.scale}
    elif field.wire == "fixed":
        kind = {"type": "fixed", "name": f"Fixed_{field.name}", "size": field.size}
    if field.null_branch is not None:
        kind = ["null", kind] if field.null_branch == 0 else [kind, "null"]
    return {"name": field.name, "type": kind}


def _zero(field: WireField) -> bytes:
    if field.null_branch is not None:
        return zigzag(field.null_branch)
    if field.wire == "fixed":
        return bytes(field.size)
    return _ZERO.get(field.wire, b"\0")


def _container_header(schema: dict[str, Any]) -> bytes:
    entries = {"avro.schema": json.dumps(schema).encode(), "avro.codec": b"null"}
    body = b"".join(zigzag(len(k)) + k.encode() + zigzag(len(v)) + v for k, v in entries.items())
    return b"Obj\x01" + zigzag(len(entries)) + body + b"\0" + _SYNC
