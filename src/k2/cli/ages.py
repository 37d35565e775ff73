"""Ages as a person says them: 12.3 s, 3.4 min, 5.0 h, 12 days, 12.7 years."""

from __future__ import annotations

from typing import Final

_UNITS: Final = (
    ("years", 365.25 * 86_400, 1),
    ("days", 86_400.0, 0),
    ("h", 3600.0, 1),
    ("min", 60.0, 1),
)
"""Name, seconds and digits after the point; seconds themselves are what is left."""
_LEAST: Final = {"days": 2}
"""How many of a unit there must be before it is used, where one is not enough."""


def age(seconds: float) -> str:
    """Return a span in the largest unit that says it well."""
    for name, unit, digits in _UNITS:
        if seconds >= _LEAST.get(name, 1) * unit:
            return f"{seconds / unit:,.{digits}f} {name}"
    return f"{seconds:.1f} s"


def freshness(newest_seconds: float | None) -> str:
    """Return how old an answer's newest record is, as the end of a sentence; nothing where there is no record."""
    if newest_seconds is None:
        return ""
    if newest_seconds < 0:
        return f", newest record {age(-newest_seconds)} ahead of this clock"
    return f", newest record {age(newest_seconds)} old"
