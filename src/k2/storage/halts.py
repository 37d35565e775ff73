"""Halted streams of a partition: which records are theirs, and what a batch adds to what is put off of them.

From the message on that showed its gap, each record of a halted stream is its own: a range that overload defers never
counts it, whatever its predicate says. So both kinds of range lie beside each other, and one can be written first.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2.common.degradation import Priority
from k2.common.errors import FencedError
from k2.storage.seam import DeferredRange

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from k2.storage.seam import HaltedStream, LogPartition

NOBODY: Final = -1
"""The owner of a record that is no halted stream's."""
_NO_PRIORITY: Final = len(Priority)
"""A number that no priority reaches: a halted stream's range holds its own records, and none by priority."""
_NO_OFFSET: Final = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class HaltedPart:
    """How many records of one halted stream a batch leaves out."""

    halted: HaltedStream
    records: int = 0


def owners(keys: Sequence[bytes | None], offsets: Sequence[int], halts: Sequence[HaltedStream]) -> NDArray[np.int64]:
    """Return of each message the place in `halts` of the stream that it is put off with, or NOBODY."""
    encoded = pa.array(keys, type=pa.binary()).dictionary_encode()
    place_of = {symbol.encode(): place for place, halted in enumerate(halts) for symbol in halted.symbols}
    distinct = [place_of.get(key, NOBODY) for key in encoded.dictionary.to_pylist()]
    codes = pc.fill_null(encoded.indices, len(distinct)).to_numpy(zero_copy_only=False)
    places = np.array([*distinct, NOBODY], dtype=np.int64)[codes]
    since = np.array([*(halted.since for halted in halts), _NO_OFFSET], dtype=np.int64)[places]
    found: NDArray[np.int64] = np.where(np.asarray(offsets, dtype=np.int64) >= since, places, NOBODY)
    return found


def with_batch(
    halts: tuple[DeferredRange, ...], key: LogPartition, start: int, end: int, parts: Sequence[HaltedPart]
) -> tuple[DeferredRange, ...]:
    """Return the halted streams of a partition after a batch of [start, end), which was sorted by those of `parts`.

    Raises:
        FencedError: the batch let records of a halted stream pass, or put off those of one that goes on by now.
    """
    added = {part.halted: part.records for part in parts}
    known = {entry.halted: entry for entry in halts}
    passed = [halted.stream for halted in known if halted is not None and halted not in added]
    if passed:
        raise FencedError(
            f"expected a batch of {_where(key)} to put off the halted streams {passed}, as the table's list asks, "
            "found that it does not: drop the batch, take the list from the head and sort again"
        )
    after = {
        halted: replace(entry, end=end, records=entry.records + added[halted]) if added[halted] else entry
        for halted, entry in known.items()
        if halted is not None
    }
    for halted, records in added.items():
        if halted in after or not records:
            continue
        taken = {symbol for other in after for symbol in other.symbols} & set(halted.symbols)
        if not start <= halted.since < end or taken:
            raise FencedError(
                f"expected no records of {halted.stream} in {_where(key)} to be put off since offset {halted.since} in "
                f"the batch of [{start}, {end}), found {records}: the stream goes on by now, or is halted otherwise; "
                "drop the batch, take the list from the head and sort again"
            )
        after[halted] = DeferredRange(
            key.log_id, key.partition, halted.since, end, "", _NO_PRIORITY, records, halted=halted
        )
    return tuple(after.values())


def problems_of(halts: Sequence[DeferredRange], next_offset: int) -> Iterator[str]:
    """Give what is wrong with the halted streams of a partition."""
    symbols: set[str] = set()
    for entry in halts:
        halted = entry.halted
        if halted is None:
            continue
        if not halted.since <= entry.start < entry.end <= next_offset:
            yield f"[{entry.start}, {entry.end}) of {halted.stream} is out of place"
        if symbols & set(halted.symbols):
            yield f"a symbol of {halted.stream} is halted twice"
        symbols |= set(halted.symbols)


def pieces(start: int, end: int, halts: Sequence[HaltedStream]) -> Iterator[tuple[int, int, frozenset[str]]]:
    """Cut a range at the messages from which on streams are halted; with each piece come the symbols not its own."""
    cuts = sorted({start, end, *(halted.since for halted in halts if start < halted.since < end)})
    for low, high in itertools.pairwise(cuts):
        yield low, high, frozenset(symbol for each in halts if each.since <= low for symbol in each.symbols)


def _where(key: LogPartition) -> str:
    return f"log {key.log_id} partition {key.partition}"
