"""How far the writer's thread has come with each partition: what the consumer's thread measures rates from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from k2.common.degradation import Priority
from k2.common.drain_time import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k2.storage.seam import LogPartition

_NONE_TAKEN = (0,) * len(Priority)


@dataclass(frozen=True, slots=True)
class _Flow:
    epoch: int = 0
    position: int = 0
    taken: tuple[int, ...] = _NONE_TAKEN
    served: int = 0


class Flows:
    """One thread writes, another one reads; what it reads of a partition belongs together."""

    def __init__(self) -> None:
        self._flows: dict[tuple[str, LogPartition], _Flow] = {}

    def came_to(
        self, table: str, log: LogPartition, *, epoch: int, position: int, taken: Sequence[int], served: int
    ) -> None:
        """Take note that records up to `position` are decoded or deferred; `taken` counts some or all by priority."""
        before = self._flows.get((table, log), _Flow())
        self._flows[table, log] = _Flow(
            epoch,
            position,
            tuple(old + new for old, new in zip(before.taken, taken, strict=True)),
            before.served + served,
        )

    def progress(self, table: str, log: LogPartition, *, epoch: int, seam: int, log_end: int) -> Progress:
        """Return where a partition is; from its seam on, where nothing was sorted since it was positioned."""
        flow = self._flows.get((table, log), _Flow())
        position = flow.position if flow.epoch == epoch else seam
        return Progress(max(log_end, position), position, flow.taken, 0, flow.served)
