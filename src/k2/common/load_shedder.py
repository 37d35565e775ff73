"""Sorts keys into those that a level keeps and those that it defers, one by one or a whole batch by columns."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from k2.common.circuit_breaker import every_key_alike
from k2.common.degradation import DEFERRED_FROM, DegradationLevel, Priority, keeps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from numpy.typing import NDArray

    from k2.common.circuit_breaker import PriorityOf

Keys: TypeAlias = "pl.Series | pa.Array | Sequence[bytes | None]"

_PRIORITIES: Final = len(Priority)


class TieredPriorities:
    """Priorities by two sets of keys: CRITICAL, HIGH, and for the rest NORMAL, or LOW for the kinds named."""

    def __init__(
        self, tier_1: Collection[str] = (), tier_2: Collection[str] = (), *, low_kinds: Collection[str] = ("quotes",)
    ) -> None:
        self._tier_1 = frozenset(tier_1)
        self._tier_2 = frozenset(tier_2)
        self._low_kinds = frozenset(low_kinds)

    def __call__(self, symbol: str, data_type: str, /) -> Priority:
        """Return the priority of a key."""
        if symbol in self._tier_1:
            return Priority.CRITICAL
        if symbol in self._tier_2:
            return Priority.HIGH
        return Priority.LOW if data_type in self._low_kinds else Priority.NORMAL


@dataclass(frozen=True, slots=True)
class Division:
    """What becomes of one batch: `keep` has a flag a key, `by_priority` counts all keys, kept or not."""

    keep: NDArray[np.bool_]
    by_priority: tuple[int, ...]
    deferred: int


class LoadShedder:
    """Answers from the table of levels and priorities, as the ladder does. Several threads may use it.

    `observer` hears of each batch how many keys of which priority were deferred, and why.
    """

    def __init__(
        self,
        priority_of: PriorityOf = every_key_alike,
        *,
        keys_max: int = 100_000,
        observer: Callable[[Priority, str, int], None] | None = None,
    ) -> None:
        self._priority_of = priority_of
        self._keys_max = keys_max
        self._observer = observer
        self._known: dict[str, _Remembered] = {}
        self._lock = threading.Lock()
        self._checked = [0] * _PRIORITIES
        self._shed = [0] * _PRIORITIES

    def get_priority(self, symbol: str, data_type: str = "trades") -> Priority:
        """Return the priority of a key."""
        return self._priority_of(symbol, data_type)

    def should_process(self, symbol: str, level: DegradationLevel, data_type: str = "trades") -> bool:
        """Say whether a level goes on with a key, and count it."""
        priority = self._priority_of(symbol, data_type)
        kept = keeps(level, priority)
        with self._lock:
            self._checked[priority] += 1
            self._shed[priority] += not kept
        return kept

    def divide(
        self, keys: Keys, level: DegradationLevel, data_type: str = "trades", *, reason: str = "level"
    ) -> Division:
        """Sort the keys of a batch by what a level keeps."""
        return self.divide_from(keys, DEFERRED_FROM[level], data_type, reason=reason)

    def divide_from(
        self, keys: Keys, deferred_from: int, data_type: str = "trades", *, reason: str = "level"
    ) -> Division:
        """Sort the keys of a batch: priorities numbered `deferred_from` or more are deferred, CRITICAL ones never."""
        if deferred_from <= Priority.CRITICAL:
            raise ValueError(f"expected a priority below CRITICAL to defer from, found {deferred_from}")
        priorities = self.priorities(keys, data_type)
        counts = np.bincount(priorities, minlength=_PRIORITIES).tolist()
        shed = [0] * deferred_from + counts[deferred_from:]
        with self._lock:
            for priority in Priority:
                self._checked[priority] += counts[priority]
                self._shed[priority] += shed[priority]
        if self._observer is not None:
            for priority in Priority:
                if shed[priority]:
                    self._observer(priority, reason, shed[priority])
        return Division(priorities < deferred_from, tuple(counts), sum(shed))

    def priorities(self, keys: Keys, data_type: str = "trades") -> NDArray[np.uint8]:
        """Return the priority of each key, in their order.

        A key that is missing or no UTF-8 is CRITICAL: its record is bad, and is told so at once.
        """
        encoded = _as_binary(keys).dictionary_encode()
        distinct: list[bytes] = encoded.dictionary.to_pylist()
        known = self._known.setdefault(data_type, _Remembered(self._priority_of, data_type))
        if len(known) > self._keys_max:
            known.clear()
        table = np.array([*map(known.__getitem__, distinct), Priority.CRITICAL], dtype=np.uint8)
        places = pc.fill_null(encoded.indices, len(distinct)).to_numpy(zero_copy_only=False)
        sorted_out: NDArray[np.uint8] = table[places]
        return sorted_out

    def get_shed_stats(self) -> dict[str, object]:
        """Return how many keys were looked at and deferred so far, in all and by priority."""
        with self._lock:
            checked, shed = list(self._checked), list(self._shed)
        return {
            "checked": sum(checked),
            "shed": sum(shed),
            "shed_ratio": sum(shed) / sum(checked) if sum(checked) else 0.0,
            "checked_by_priority": {each.name: checked[each] for each in Priority},
            "shed_by_priority": {each.name: shed[each] for each in Priority},
        }


class _Remembered(dict[bytes, int]):
    """The priorities of the keys of one kind, each asked for once."""

    def __init__(self, priority_of: PriorityOf, data_type: str) -> None:
        super().__init__()
        self._priority_of = priority_of
        self._data_type = data_type

    def __missing__(self, key: bytes) -> int:
        try:
            priority = int(self._priority_of(key.decode("utf-8"), self._data_type))
        except UnicodeDecodeError:
            priority = int(Priority.CRITICAL)
        self[key] = priority
        return priority


def _as_binary(keys: Keys) -> pa.Array:
    if isinstance(keys, pl.Series):
        keys = keys.to_arrow()
    if not isinstance(keys, pa.Array):
        return pa.array(keys, type=pa.binary())
    return keys.cast(pa.large_binary()) if keys.type != pa.binary() else keys
