"""The causes of overload that are simulated: how much arrives where, how well the sink works, what memory leaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_BEGINS_AT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Trace:
    """One cause: `load` is a factor by time and partition, `service` a factor of what the sink can take."""

    name: str
    ends_at: float
    seconds: float
    load: Callable[[float, int], float] = lambda _now, _partition: 1.0
    service: Callable[[float], float] = lambda _now: 1.0
    leaked_percent: Callable[[float], float] = lambda _now: 0.0


def _during(seconds: float, factor: float) -> Callable[[float], float]:
    return lambda now: factor if _BEGINS_AT <= now < _BEGINS_AT + seconds else 1.0


def _everywhere(factor: Callable[[float], float]) -> Callable[[float, int], float]:
    return lambda now, _partition: factor(now)


def _square(now: float) -> float:
    since = now - _BEGINS_AT
    return 6.0 if 0 <= since < _WAVES * _PERIOD and since % _PERIOD < _PERIOD / 2 else 1.0


_WAVES: Final = 6
_PERIOD: Final = 80.0
_LEAK_PERCENT_PER_SECOND: Final = 0.15
_LEAK_SECONDS: Final = 240.0

TRACES: Final = (
    Trace("step", _BEGINS_AT + 120, 360, load=_everywhere(_during(120, 4.0))),
    Trace("10x spike", _BEGINS_AT + 60, 360, load=_everywhere(_during(60, 10.0))),
    Trace(
        "hot partition",
        _BEGINS_AT + 60,
        360,
        load=lambda now, partition: _during(60, 10.0)(now) if partition == 0 else 1.0,
    ),
    Trace("sink collapse", _BEGINS_AT + 60, 360, service=_during(60, 0.1)),
    Trace("square wave", _BEGINS_AT + (_WAVES - 0.5) * _PERIOD, 720, load=_everywhere(_square)),
    Trace(
        "slow leak",
        _BEGINS_AT + _LEAK_SECONDS,
        420,
        leaked_percent=lambda now: (
            _LEAK_PERCENT_PER_SECOND * (now - _BEGINS_AT) if _BEGINS_AT <= now < _BEGINS_AT + _LEAK_SECONDS else 0.0
        ),
    ),
)
