"""When a component that died is started again: at once, then after a pause that doubles, until a calm life."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class RestartPolicy:
    """The limits of restarting."""

    pause_seconds: float
    pause_seconds_max: float
    calm_seconds: float
    failing_after_deaths: int


@dataclass(frozen=True)
class RestartHistory:
    """What is remembered of a component's deaths."""

    deaths_in_a_row: int = 0
    restarts: int = 0


@dataclass(frozen=True)
class Restart:
    """What to do after a death: wait, then start again; `failing` tells people about it."""

    pause_seconds: float
    failing: bool
    history: RestartHistory


def after_death(history: RestartHistory, policy: RestartPolicy, *, lived_seconds: float) -> Restart:
    """Return the pause before the next start; a life of `calm_seconds` makes this death the first again."""
    before = 0 if lived_seconds >= policy.calm_seconds else history.deaths_in_a_row
    pause = min(policy.pause_seconds * 2.0 ** min(before - 1, 30), policy.pause_seconds_max) if before else 0.0
    remembered = replace(history, deaths_in_a_row=before + 1, restarts=history.restarts + 1)
    return Restart(pause, before + 1 >= policy.failing_after_deaths, remembered)
