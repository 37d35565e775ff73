"""No bytes crash the decoder, and none change what it makes of their neighbours."""

from __future__ import annotations

import json

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k2.kafka.avro_blocks import FRAME_BYTES, BlockReader
from k2.kafka.avro_plans import block_plan
from k2.kafka.avro_walking import find_defect
from k2.kafka.decoding import Decoder
from k2.schemas.avro import avro_text
from k2.schemas.records import QUOTES, TRADES
from k2.testing.fake_log import FakeRegistry
from k2.testing.messages import SCHEMA_ID, batch_of, encode, quote, trade

EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
FRAME = b"\0" + SCHEMA_ID.to_bytes(4, "big")
FULL = encode(trade(trade_id="t", side="BUY", conditions=["a", "bb"], channel="c", sub_index=5, extra="{}"))
PLAN = block_plan(TRADES)
READER = BlockReader(PLAN, SCHEMA_ID)
DECODER = Decoder(TRADES, FakeRegistry({SCHEMA_ID: avro_text(TRADES), 8: avro_text(QUOTES)}))


def mutations(valid: bytes) -> st.SearchStrategy[bytes]:
    """Bytes near a valid message: some changed, cut out, repeated or put in."""
    at = st.integers(FRAME_BYTES, len(valid))
    change = st.tuples(at, st.integers(0, 12), st.binary(max_size=12))
    return st.lists(change, min_size=1, max_size=3).map(lambda changes: _mutated(valid, changes))


def _mutated(valid: bytes, changes) -> bytes:
    for start, length, replacement in changes:
        valid = valid[:start] + replacement + valid[start + length :]
    return valid


HOSTILE = st.one_of(
    st.none(),
    st.binary(max_size=200),
    st.binary(max_size=200).map(lambda body: FRAME + body),
    mutations(FULL),
    mutations(FULL + FULL),
    mutations(encode(quote(), schema_id=8)),
)


def good(number: int) -> bytes:
    return encode(trade(sequence=number))


@EXAMPLES
@given(st.lists(st.one_of(st.integers(0, 2**40), HOSTILE), min_size=1, max_size=12))
def test_good_messages_come_out_right_whatever_surrounds_them(entries) -> None:
    values = [good(entry) if isinstance(entry, int) else entry for entry in entries]

    decoded = DECODER.decode(batch_of(values), log_id=0)

    assert len(decoded.rows) + len(decoded.bad) == len(values)
    offsets = decoded.rows["log_offset"].to_list()
    assert sorted(offsets + [bad.offset for bad in decoded.bad]) == list(range(len(values)))
    sequences = dict(zip(offsets, decoded.rows["sequence"].to_list(), strict=True))
    for at, entry in enumerate(entries):
        if isinstance(entry, int):
            assert sequences[at] == entry


@EXAMPLES
@given(st.lists(HOSTILE, min_size=1, max_size=6))
def test_the_fate_of_a_message_does_not_depend_on_its_neighbours(values) -> None:
    together = DECODER.decode(batch_of(values), log_id=0)
    alone = [DECODER.decode(batch_of([value], start=at), log_id=0) for at, value in enumerate(values)]

    assert together.bad == tuple(bad for one in alone for bad in one.bad)
    assert pl.concat(one.rows for one in alone).equals(together.rows)


@EXAMPLES
@given(st.one_of(st.binary(max_size=120), mutations(FULL).map(lambda value: value[FRAME_BYTES:])))
def test_the_walk_accepts_exactly_what_the_block_reader_accepts(body) -> None:
    accepted = READER.read([FRAME + body]) is not None

    assert (find_defect(body, PLAN.fields) is None) == accepted


def test_every_truncation_of_a_record_is_one_bad_record() -> None:
    cuts = [FULL[:size] for size in range(len(FULL))]

    decoded = DECODER.decode(batch_of([FULL, *cuts, FULL]), log_id=0)

    assert [bad.offset for bad in decoded.bad] == list(range(1, len(cuts) + 1))
    assert decoded.rows["log_offset"].to_list() == [0, len(cuts) + 1]


def test_every_byte_of_a_record_can_be_any_other_without_harm_to_its_neighbours() -> None:
    values = [FULL]
    for at in range(FRAME_BYTES, len(FULL)):
        for byte in (0x00, 0x7F, 0x80, 0xFF):
            values += [FULL[:at] + bytes([byte]) + FULL[at + 1 :], FULL]

    decoded = DECODER.decode(batch_of(values), log_id=0)

    assert len(decoded.rows) + len(decoded.bad) == len(values)
    kept = decoded.rows.filter(decoded.rows["log_offset"] % 2 == 0)
    assert kept["log_offset"].to_list() == list(range(0, len(values), 2))
    assert kept.drop("log_offset").unique(maintain_order=True).height == 1


def test_a_message_of_ten_megabytes_is_read_like_any_other() -> None:
    huge = encode(trade(extra=json.dumps({"x": "y" * 10_000_000})))

    decoded = DECODER.decode(batch_of([FULL, huge, huge[:-1], FULL]), log_id=0)

    assert [bad.offset for bad in decoded.bad] == [2]
    assert decoded.rows["extra"].str.len_bytes().to_list()[1] > 10_000_000
