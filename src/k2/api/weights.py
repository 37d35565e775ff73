"""Whether a question is light or heavy, decided before it runs: by the range that it reads, then by the files in it."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from k2.common.units import NS_PER_MINUTE

if TYPE_CHECKING:
    from k2.api.settings import ApiSettings
    from k2.query.request import QueryRequest


class Weight(IntEnum):
    """How much a question takes; light ones go first."""

    LIGHT = 0
    HEAVY = 1


def weight_of(request: QueryRequest, settings: ApiSettings, now_ns: int) -> Weight:
    """Return the weight of a question by the length of its range: a range with no start is as long as can be."""
    light_ns = settings.light_window_minutes * NS_PER_MINUTE
    if request.window_minutes is not None:
        return Weight.LIGHT if request.window_minutes * NS_PER_MINUTE <= light_ns else Weight.HEAVY
    if request.start_ns is None:
        return Weight.HEAVY
    end_ns = now_ns if request.end_ns is None else request.end_ns
    return Weight.LIGHT if end_ns - request.start_ns <= light_ns else Weight.HEAVY
