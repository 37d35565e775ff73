"""Reads the messages of one writer schema: as a block where that is possible, and finds the bad ones where it fails."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final, Protocol

import fastavro

from k2.kafka.avro_blocks import FRAME_BYTES, BlockReader
from k2.kafka.avro_plans import BlockPlan, NoPlan, Plan, TranscodePlan, block_plan
from k2.kafka.avro_walking import find_defect

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl

    from k2.schemas.records import RecordType

__all__ = ["FRAME_BYTES", "MessageReader", "reader_for"]

Refused = dict[int, tuple[str, str]]
"""Error class and reason of the messages that cannot be read, by position."""

UNDECODABLE: Final = "Undecodable"
MISMATCH: Final = "SchemaMismatch"
_WALK_MESSAGES_MAX: Final = 512
"""A failing block of so many messages is walked through one by one; a longer one is halved."""
_FAILED_BLOCKS_MAX: Final = 16
"""After so many failing blocks the rest is walked through, too: each costs time, and the library may print."""


class MessageReader(Protocol):
    """Reads framed messages of one writer schema."""

    in_blocks: bool
    """Whether `read_block` is worth trying."""
    refuses_all: bool
    """Whether the schema is one of other records."""

    def read_block(self, messages: Sequence[bytes]) -> pl.DataFrame | None:
        """Return one row a message, or None if any of them is bad or of another schema."""
        ...

    def read(self, messages: Sequence[bytes]) -> tuple[pl.DataFrame | None, Refused]:
        """Return the rows of the good messages, in order (None if there are none), and what is wrong with the rest."""
        ...


def reader_for(plan: Plan, schema_id: int, record_type: RecordType) -> MessageReader:
    """Return the reader that a plan asks for."""
    if isinstance(plan, NoPlan):
        return _RefusingReader(plan.reason)
    if isinstance(plan, BlockPlan):
        return _BlockwiseReader(plan, schema_id)
    return _TranscodingReader(plan, block_plan(record_type))


class _BlockwiseReader:
    in_blocks = True
    refuses_all = False

    def __init__(self, plan: BlockPlan, schema_id: int) -> None:
        self._fields = plan.fields
        self._block = BlockReader(plan, schema_id)

    def read_block(self, messages: Sequence[bytes]) -> pl.DataFrame | None:
        return self._block.read(messages)

    def read(self, messages: Sequence[bytes]) -> tuple[pl.DataFrame | None, Refused]:
        rows = self._block.read(messages)
        if rows is not None:
            return rows, {}
        suspects = self._narrow_down(messages)
        refused: Refused = {}
        for at in suspects:
            defect = find_defect(messages[at][FRAME_BYTES:], self._fields)
            if defect is not None:
                refused[at] = UNDECODABLE, defect
        rows = self._read_all_but(messages, refused)
        if rows is None:
            self._refuse_what_fails_alone(messages, suspects, refused)
            rows = self._read_all_but(messages, refused)
        if rows is None:
            raise RuntimeError("messages that can be read one by one cannot be read together: a defect in K2")
        return rows, refused

    def _narrow_down(self, messages: Sequence[bytes]) -> list[int]:
        """Return the positions of short blocks that fail; all other messages are good."""
        suspects: list[int] = []
        failed = 0
        waiting = [(0, len(messages))]
        while waiting:
            start, stop = waiting.pop()
            exhausted = failed >= _FAILED_BLOCKS_MAX
            if not exhausted and self._block.read(messages[start:stop]) is not None:
                continue
            failed += 1
            if exhausted or stop - start <= _WALK_MESSAGES_MAX:
                suspects.extend(range(start, stop))
            else:
                middle = (start + stop) // 2
                waiting += [(middle, stop), (start, middle)]
        return suspects

    def _read_all_but(self, messages: Sequence[bytes], refused: Refused) -> pl.DataFrame | None:
        return self._block.read([message for at, message in enumerate(messages) if at not in refused])

    def _refuse_what_fails_alone(self, messages: Sequence[bytes], suspects: list[int], refused: Refused) -> None:
        for at in suspects:
            if at not in refused and self._block.read([messages[at]]) is None:
                refused[at] = UNDECODABLE, "expected an Avro record, found bytes that Polars refuses"


class _TranscodingReader:
    """Translates each message into the record type's own schema, then reads the translations as a block."""

    in_blocks = False
    refuses_all = False
    _OWN_ID: Final = 1

    def __init__(self, plan: TranscodePlan, own: BlockPlan) -> None:
        self._writer = fastavro.parse_schema(plan.writer_schema)
        self._reader = fastavro.parse_schema(plan.reader_schema)
        self._own = own
        self._block = BlockReader(own, self._OWN_ID)
        self._frame = b"\0" + self._OWN_ID.to_bytes(4, "big")

    def read_block(self, messages: Sequence[bytes]) -> pl.DataFrame | None:
        rows, refused = self.read(messages)
        return None if refused else rows

    def read(self, messages: Sequence[bytes]) -> tuple[pl.DataFrame | None, Refused]:
        refused: Refused = {}
        translated = []
        for at, message in enumerate(messages):
            try:
                translated.append(self._translate(message))
            except Exception as error:  # noqa: BLE001 - fastavro has no base of errors; foreign bytes raise many kinds
                refused[at] = UNDECODABLE, f"expected a record of the writer's schema, found {error!r:.200}"
        rows = self._block.read(translated)
        if rows is None:
            raise RuntimeError("messages of K2's own schema cannot be read: a defect in K2")
        return rows, refused

    def _translate(self, message: bytes) -> bytes:
        source = io.BytesIO(message)
        source.seek(FRAME_BYTES)
        fastavro.schemaless_reader(source, self._writer)  # reads every field; leaving one out would not check its end
        if source.tell() != len(message):
            raise ValueError(f"{len(message) - source.tell()} bytes after the record")
        source.seek(FRAME_BYTES)
        record = fastavro.schemaless_reader(source, self._writer, self._reader)
        target = io.BytesIO()
        target.write(self._frame)
        fastavro.schemaless_writer(target, self._reader, record)
        translation = target.getvalue()
        defect = find_defect(translation[FRAME_BYTES:], self._own.fields)
        if defect is not None:
            raise ValueError(defect)
        return translation


class _RefusingReader:
    in_blocks = False
    refuses_all = True

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def read_block(self, messages: Sequence[bytes]) -> pl.DataFrame | None:  # noqa: ARG002 - the protocol's
        return None

    def read(self, messages: Sequence[bytes]) -> tuple[pl.DataFrame | None, Refused]:
        return None, dict.fromkeys(range(len(messages)), (MISMATCH, self._reason))
