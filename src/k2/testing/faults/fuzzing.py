"""Hostile bytes for the decoder, and a comparison of every row that it makes with plain fastavro, message by message.

What must hold: each message is one row or one bad record; a row has exactly the values that fastavro reads, from all of
the message's bytes; what fastavro reads and would write in the same bytes is not called undecodable.

One difference is known and counted: the block decoder takes every branch of `["null", T]` but the first for T; fastavro
refuses those above 1, and counts those below 0 from the end. Such a row is compared with what fastavro reads once the
branch is mended.
"""

from __future__ import annotations

import io
import random
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import fastavro

from k2.kafka.decoding import Decoder
from k2.schemas.arrow import message_polars_schema
from k2.schemas.avro import avro_schema, avro_text
from k2.schemas.records import QUOTES, TRADES
from k2.testing.fake_log import FakeRegistry
from k2.testing.messages import EVENT_NS, SCHEMA_ID, batch_of, encode, quote, trade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from k2.common.clock import Clock

QUOTE_SCHEMA_ID: Final = SCHEMA_ID + 1
_FRAME_BYTES: Final = 5
_MORE_FOLLOW: Final = 0x80
"""The bit of a byte that says that more bytes of the number follow."""

_WRONG_KEPT_MAX: Final = 20
_HOSTILE_NUMBERS: Final = (-(2**63), -(2**31), -65, -2, -1, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1)
_COLUMNS: Final = tuple(message_polars_schema(TRADES))
_SCHEMA: Final = fastavro.parse_schema(avro_schema(TRADES))


@dataclass(frozen=True, slots=True)
class FuzzResult:
    """What one seed found; `wrong` describes rows that must not be, and is empty in a decoder that is right."""

    seed: int
    inputs: int
    rows: int
    bad: dict[str, int]
    stricter: int
    """Messages refused that fastavro reads, though it would write them in other bytes."""

    odd_branches: int
    """Rows of messages that name a branch which the schema does not have."""

    wrong: tuple[str, ...]
    slowest_seconds: float


def fuzz(seed: int, inputs: int, clock: Clock) -> FuzzResult:
    """Decode at least `inputs` messages drawn from the seed, in blocks of many sizes."""
    draw = random.Random(seed)  # noqa: S311 a failure must be repeatable
    source = _messages(draw)
    decoder = Decoder(
        TRADES, FakeRegistry({SCHEMA_ID: avro_text(TRADES), QUOTE_SCHEMA_ID: avro_text(QUOTES)}),
        unknown_schemas_ratio_max=1,
    )  # fmt: skip
    bad: Counter[str] = Counter()
    wrong: list[str] = []
    done = rows = stricter = odd = 0
    slowest = 0.0
    while done < inputs:
        values = [next(source) for _ in range(draw.choice([1, 3, 40, 200, 1_000]))]
        read = [_by_fastavro(value) for value in values]
        keys = [_key(record) for record in read]
        began = clock.monotonic()
        decoded = decoder.decode(batch_of(values, keys=keys, start=done), log_id=0)
        slowest = max(slowest, clock.monotonic() - began)
        offsets = decoded.rows["log_offset"].to_list()
        if sorted(offsets + [record.offset for record in decoded.bad]) != list(range(done, done + len(values))):
            wrong.append(f"seed {seed}: {len(values)} messages from {done} became {len(offsets)} rows and bad ones")
        for offset, row in zip(offsets, decoded.rows.select(_COLUMNS).iter_rows(named=True), strict=True):
            value, expected = values[offset - done], read[offset - done]
            if row != expected:
                expected = _by_fastavro(_mended(value))
                odd += expected is not None
            if row != expected:
                wrong.append(f"seed {seed}: {value!r} became {row}, fastavro: {expected}")
        for record in decoded.bad:
            bad[record.error_class] += 1
            known = read[record.offset - done]
            if record.error_class == "Undecodable" and known is not None:
                stricter += 1
                if _canonical(known, record.value):
                    wrong.append(f"seed {seed}: {record.value!r} is a sound record, found {record.reason}")
        done += len(values)
        rows += len(offsets)
    return FuzzResult(seed, done, rows, dict(bad), stricter, odd, tuple(wrong[:_WRONG_KEPT_MAX]), slowest)


def _messages(draw: random.Random) -> Iterator[bytes | None]:
    """Give messages without end: good ones, and near them and far from them everything that is not."""
    makers = (_whole, _truncations, _flipped, _with_hostile_number, _spliced, _foreign)
    while True:
        (make,) = draw.choices(makers, weights=(20, 1, 29, 20, 15, 15))
        yield from make(draw, _sound(draw))


def _whole(_draw: random.Random, whole: bytes) -> list[bytes | None]:
    return [whole]


def _truncations(_draw: random.Random, whole: bytes) -> list[bytes | None]:
    return [whole[:size] for size in range(len(whole))]


def _sound(draw: random.Random) -> bytes:
    text = draw.choice(["", "a", "BHP", "é" * 3, "x" * 70, "{}"])
    return encode(
        trade(
            symbol=draw.choice(["BHP", "CBA", "Ω", "S" * 64]),
            ts_event_ns=EVENT_NS + draw.randrange(10**12),
            source_sequence=draw.choice([0, 1, -1, 2**62]),
            sequence=draw.choice([None, 0, 63, 64, 8_191, 2**40]),
            sub_index=draw.choice([None, 0, 2**31 - 1]),
            trade_id=draw.choice([None, text]),
            price=Decimal(draw.randrange(-(10**28) + 1, 10**28)).scaleb(-12),
            quantity=Decimal(draw.choice([0, 1, -1, 10**17])),
            side=draw.choice([None, "BUY", "SELL"]),
            conditions=[text] * draw.choice([0, 0, 1, 3]),
            extra=draw.choice([None, text]),
        )
    )


def _flipped(draw: random.Random, whole: bytes) -> list[bytes | None]:
    changed = bytearray(whole)
    for _ in range(draw.choice([1, 1, 2, 8])):
        changed[draw.randrange(_FRAME_BYTES, len(changed))] ^= 1 << draw.randrange(8)
    return [bytes(changed)]


def _with_hostile_number(draw: random.Random, whole: bytes) -> list[bytes | None]:
    at = draw.randrange(_FRAME_BYTES, len(whole))
    endless = b"\xff" * draw.choice([9, 10, 11, 40])
    number = draw.choice([*map(_varint, _HOSTILE_NUMBERS), endless])
    return [whole[:at] + number + whole[at + draw.randrange(3) :]]


def _spliced(draw: random.Random, whole: bytes) -> list[bytes | None]:
    other = _sound(draw)
    at, cut = draw.randrange(_FRAME_BYTES, len(whole)), draw.randrange(_FRAME_BYTES, len(other))
    return [whole[:at] + other[cut:]]


def _foreign(draw: random.Random, whole: bytes) -> list[bytes | None]:
    return [
        draw.choice(
            [
                None,
                draw.randbytes(draw.randrange(80)),
                whole[:_FRAME_BYTES] + draw.randbytes(draw.randrange(200)),
                b"\0" + draw.randbytes(4) + whole[_FRAME_BYTES:],
                encode(quote(), schema_id=QUOTE_SCHEMA_ID),
                whole + draw.randbytes(draw.choice([1, 2, 8])),
            ]
        )
    ]


def _varint(number: int) -> bytes:
    """Return a number as Avro writes it: zigzag, seven bits a byte."""
    left = ((number << 1) ^ (number >> 63)) & (2**64 - 1)
    out = bytearray()
    while left >= _MORE_FOLLOW:
        out.append(left & 0x7F | _MORE_FOLLOW)
        left >>= 7
    return bytes([*out, left])


def _by_fastavro(value: bytes | None) -> dict[str, Any] | None:
    """Return what fastavro reads from all bytes of a message of K2's own schema; None if it cannot."""
    if value is None or value[:_FRAME_BYTES] != b"\0" + SCHEMA_ID.to_bytes(4, "big"):
        return None
    source = io.BytesIO(value)
    source.seek(_FRAME_BYTES)
    try:
        record = fastavro.schemaless_reader(source, _SCHEMA)
    except Exception:  # noqa: BLE001 - fastavro has no base of errors; foreign bytes raise many kinds
        return None
    if source.tell() != len(value) or not isinstance(record, dict):
        return None
    return record


def _mended(value: bytes | None) -> bytes | None:
    """Return the message with 1 for every branch that is neither 0 nor 1; walks by the schema, decodes nothing else."""
    if value is None:
        return None
    out, at = bytearray(value[:_FRAME_BYTES]), _FRAME_BYTES
    try:
        for field in avro_schema(TRADES)["fields"]:
            kind = field["type"]
            if isinstance(kind, list):
                branch, at = _read_varint(value, at)
                out += _varint(0 if branch == 0 else 1)
                kind = None if branch == 0 else kind[1]
            start, at = at, at if kind is None else _end_of(value, at, kind)
            out += value[start:at]
    except IndexError:
        return None
    return bytes(out) + value[at:]


def _end_of(value: bytes, at: int, kind: Any) -> int:  # Any: a type of an Avro schema
    name = kind if isinstance(kind, str) else kind["type"]
    number, after = _read_varint(value, at)
    if name in ("int", "long"):
        return after
    if name in ("string", "bytes"):
        return after + number
    while number:
        if number < 0:
            number, after = -number, _read_varint(value, after)[1]
        for _ in range(number):
            after = _end_of(value, after, kind["items"])
        number, after = _read_varint(value, after)
    return after


def _read_varint(value: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = value[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < _MORE_FOLLOW:
            number &= 2**64 - 1
            return (number >> 1) ^ -(number & 1), at


def _canonical(record: dict[str, Any], value: bytes | None) -> bool:
    """Say whether fastavro writes the record in exactly these bytes."""
    target = io.BytesIO()
    try:
        fastavro.schemaless_writer(target, _SCHEMA, record)
    except Exception:  # noqa: BLE001 - what fastavro cannot write is not canonical
        return False
    return value is not None and target.getvalue() == value[_FRAME_BYTES:]


def _key(record: dict[str, Any] | None) -> bytes:
    symbol = None if record is None else record.get("symbol")
    return symbol.encode() if isinstance(symbol, str) else b"BHP"
