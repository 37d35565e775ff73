"""Named points at which a test can end the process, as a power cut would.

A point costs one dictionary look-up while none is armed. `K2_CRASH_POINTS="before_commit:3"` (read by
`k2.settings`) ends the process with `os._exit(137)` the third time that the point is reached.
"""

from __future__ import annotations

import os
from typing import Final

EXIT_CODE: Final = 137

NAMES: Final = frozenset(
    {
        "after_poll",
        "after_decode",
        "mid_parquet",
        "file_closed",
        "before_commit",
        "metadata_written",
        "after_commit",
        "after_side_tables",
        "during_revoke",
        "before_replace",
        "after_replace",
        "orphans_marked",
        "mid_sweep",
    }
)

_armed: dict[str, int] = {}


def arm(name: str, *, hits: int = 1) -> None:
    """End the process at the `hits`-th time that the point `name` is reached."""
    if name not in NAMES:
        raise ValueError(f"unknown crash point {name!r}; known: {', '.join(sorted(NAMES))}")
    if hits < 1:
        raise ValueError(f"hits must be 1 or more, found {hits}")
    _armed[name] = hits


def arm_from(text: str) -> None:
    """Arm the points of a list such as `before_commit:3,after_poll`; an empty text arms none."""
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, hits = item.partition(":")
        arm(name, hits=int(hits or 1))


def reached(name: str) -> None:
    """Mark that the process is at the point `name`; ends the process if the point is armed and due."""
    left = _armed.get(name)
    if left is None:
        return
    if left == 1:
        os._exit(EXIT_CODE)
    _armed[name] = left - 1
