"""Deferred ranges and one question: which of them hold back records of its symbol, by the predicates of their entries.

A symbol whose records a predicate lets pass is not concerned: its answers are complete whatever is deferred.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from k2.common.degradation import Priority
from k2.query.certificate import Deferred
from k2.query.on_demand import MissingRange
from k2.schemas.tier_maps import TierMap
from k2.storage.deferral import DeferredList, predicate_of
from k2.storage.halts import pieces
from k2.storage.seam import LogPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from k2.common.load_shedder import TieredPriorities
    from k2.query.certificate import PartitionRead
    from k2.storage.seam import DeferredRange
    from k2.storage.tables import TableHead

    IsDeferred = Callable[[bytes | None], bool]

_MAPS_KEPT = 64


def concerning(
    head: TableHead, symbol: str, partitions: Sequence[PartitionRead], strays: Collection[str]
) -> tuple[MissingRange, ...]:
    """Return the deferred ranges that hold back records of a symbol in the partitions read, below their ends.

    In topics with strays a record's key may not be its symbol, so that every range may hold some of it back.
    """
    read = {(item.log_id, item.partition): item for item in partitions}
    found = []
    for entry in head.seam.deferred:
        item = read.get((entry.log_id, entry.partition))
        if item is None or entry.start >= item.end:
            continue
        by_key = item.topic not in strays
        for start, end, is_deferred in _parts(head, entry, min(entry.end, item.end)):
            if not by_key or is_deferred(symbol.encode()):
                found.append(MissingRange(item.topic, item.partition, item.log_id, start, end, by_key, is_deferred))
    return tuple(found)


def stated(ranges: Sequence[MissingRange], *, are_read: bool) -> tuple[Deferred, ...]:
    """Return the ranges as a certificate names them."""
    return tuple(Deferred(item.log_id, item.partition, item.start, item.end, are_read) for item in ranges)


def _parts(head: TableHead, entry: DeferredRange, end: int) -> Iterator[tuple[int, int, IsDeferred]]:
    """Give the parts of a range up to `end`, each with what says of a key whether its records are deferred there.

    What a halted stream holds back is left out of all other ranges, or a record would be read twice.
    """
    if entry.halted is not None:
        keys = frozenset(symbol.encode() for symbol in entry.halted.symbols)
        yield entry.start, end, keys.__contains__
        return
    halts = DeferredList.of(head.seam, LogPartition(entry.log_id, entry.partition)).halted
    for low, high, symbols in pieces(entry.start, end, halts):
        yield low, high, _but(_rule(head, entry), frozenset(symbol.encode() for symbol in symbols))


def _but(is_deferred: IsDeferred, keys: frozenset[bytes]) -> IsDeferred:
    return (lambda key: key not in keys and is_deferred(key)) if keys else is_deferred


def _rule(head: TableHead, entry: DeferredRange) -> IsDeferred:
    """Return what says of a key whether the entry's predicate defers it; all are, where its tier map is not known."""
    text = head.tier_maps.get(entry.tier_map_id)
    if text is None:
        return lambda _key: True
    priority_of, predicate, data_type = _priorities(text), predicate_of(entry), head.table_name

    def is_deferred(key: bytes | None) -> bool:
        try:
            priority = Priority.CRITICAL if key is None else priority_of(key.decode(), data_type)
        except UnicodeDecodeError:
            priority = Priority.CRITICAL
        return predicate.matches(priority)

    return is_deferred


@lru_cache(_MAPS_KEPT)
def _priorities(text: str) -> TieredPriorities:
    return TierMap.from_json(text).priorities()
