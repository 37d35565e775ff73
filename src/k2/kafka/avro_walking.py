"""Walks through one Avro message without decoding it, to find and name the defect that keeps it out of a block.

It accepts exactly what the block reader accepts, so that the fate of a message never depends on its neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from k2.kafka.avro_plans import WireField

_VARINT_BYTES_MAX: Final = 10
_DECIMAL_BYTES_MAX: Final = 16
_FIXED_SIZES: Final = {"boolean": 1, "float": 4, "double": 8}


class _DefectError(Exception):
    pass


def find_defect(body: bytes, fields: tuple[WireField, ...]) -> str | None:
    """Return what was expected and found where the walk through `body` failed, or None if it is sound."""
    at = 0
    name = ""
    try:
        for field in fields:
            name = field.name
            at = _skip(body, at, field)
    except _DefectError as defect:
        return f"field {name}: {defect}"
    if at != len(body):
        return f"expected the record to end after {at} bytes, found {len(body) - at} more"
    return None


def _skip(body: bytes, at: int, field: WireField) -> int:
    if field.null_branch is not None:
        branch, at = _long(body, at)
        if branch == field.null_branch:
            return at
    if field.wire in {"long", "date"}:
        return _long(body, at)[1]
    if field.wire in {"string", "bytes", "decimal"}:
        return _skip_bytes(body, at, field.wire)
    if field.wire in {"strings", "longs"}:
        return _skip_array(body, at, field.wire)
    size = field.size if field.wire == "fixed" else _FIXED_SIZES[field.wire]
    return _advance(body, at, size)


def _skip_bytes(body: bytes, at: int, wire: str) -> int:
    length, at = _long(body, at)
    if length < 0:
        raise _DefectError(f"expected a length, found {length}")
    if wire == "decimal" and length > _DECIMAL_BYTES_MAX:
        raise _DefectError(f"expected a decimal of at most {_DECIMAL_BYTES_MAX} bytes, found one of {length}")
    end = _advance(body, at, length)
    if wire == "string":
        try:
            body[at:end].decode()
        except UnicodeDecodeError as error:
            raise _DefectError(f"expected UTF-8, found {body[at:end][:32]!r} ({error.reason})") from None
    return end


def _skip_array(body: bytes, at: int, wire: str) -> int:
    while True:
        count, at = _long(body, at)
        if count == 0:
            return at
        if count < 0:
            count = -count
            _, at = _long(body, at)
        if count > len(body) - at:
            raise _DefectError(f"expected at most {len(body) - at} items, found a count of {count}")
        for _ in range(count):
            at = _skip_bytes(body, at, "string") if wire == "strings" else _long(body, at)[1]


def _long(body: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(_VARINT_BYTES_MAX):
        if at >= len(body):
            raise _DefectError("expected an integer, found the end of the message")
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:  # noqa: PLR2004 - the bit that says "more follow"
            value &= 0xFFFF_FFFF_FFFF_FFFF
            return (value >> 1) ^ -(value & 1), at
    raise _DefectError(f"expected an integer of at most {_VARINT_BYTES_MAX} bytes, found a longer one")


def _advance(body: bytes, at: int, size: int) -> int:
    if size > len(body) - at:
        raise _DefectError(f"expected {size} bytes, found {len(body) - at}")
    return at + size
